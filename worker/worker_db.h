/*
 * PostgreSQL for one worker: a few connections in pipeline mode, nothing that
 * blocks.
 *
 * A query is the caller's memory: it is queued by worker_db_submit(), placed
 * on the connection with the fewest queries under way, written once a turn by
 * worker_db_flush(), and ends in exactly one call of its done function, which
 * never runs inside worker_db_submit() or worker_db_cancel().
 *
 * Writes have a sync of their own and end only at PGRES_PIPELINE_SYNC.  Reads
 * of one turn share a sync; a read that was aborted because another statement
 * of its sync failed, or whose connection was lost, is sent once more.
 */
#ifndef WORKER_DB_H
#define WORKER_DB_H

#include "api/api.h"
#include "shm/shm_secret.h"
#include "shm/shm_stats.h"
#include "worker/worker_log.h"

struct worker_db;
struct worker_db_link;
struct worker_db_query;

struct worker_db_options {
	const char *conninfo; /* libpq string or URI; "" is libpq's own */
	/* What stands in it wins over conninfo, and nobody connects before
	 * there is one; NULL: conninfo is all. */
	struct shm_secret *secret;
	uint32_t connections;	     /* of this worker */
	uint32_t acquire_timeout_ms; /* waiting for a place: API_DB_BUSY */
	uint32_t statement_timeout_ms;
	uint32_t connect_timeout_ms;
	uint32_t queries_max;	  /* waiting: more end as API_DB_BUSY at once */
	uint32_t queue_target_ms; /* worker_admission.h */
	struct shm_stats *stats;  /* where to count; NULL: nowhere */
	/* Readiness of descriptor number n (0 <= n < worker_db_pollers()):
	 * the owner watches fd for events (POLLIN, POLLOUT), 0 stops.  When
	 * the server has hung up, fd is closed already when watching stops;
	 * nothing was opened in between. */
	void (*watch)(void *owner, uint32_t n, int fd, uint32_t events);
	/* The number of usable connections changed; available: it is not 0.
	 * worker_db logs by itself when the first stands or the last goes. */
	void (*state)(void *owner, bool available, uint32_t connections);
	void *owner;
};

struct worker_db_query {
	/* the caller's */
	const struct api_statement *statement;
	bool is_write;
	bool is_stream; /* rows one by one, on a connection of its own */
	/* Rows as they come; the row is borrowed.  Streams: return false to
	 * pause until worker_db_resume(). */
	bool (*row)(struct worker_db_query *query, const struct api_row *row);
	/* The rows so far do not count, it is sent once more; may be NULL. */
	void (*again)(struct worker_db_query *query);
	/* The end; the query is the caller's again. */
	void (*done)(struct worker_db_query *query, enum api_db_outcome outcome,
	    const char *sqlstate);
	/* readable by the caller after done: from submit to there */
	uint64_t db_us;

	/* private; all zero before the first submit */
	uint64_t submitted_us;
	uint64_t queued_us; /* again after a loss */
	uint64_t sent_us;   /* 0: not on the way */
	uint64_t flush;	    /* placed then, it did not wait */
	struct worker_db_query *next;
	struct worker_db_link *link; /* that has it */
	uint8_t state;
	uint8_t outcome; /* until done() is called */
	uint8_t tries;	 /* that ended without a run */
	bool cancelled;
	bool paused;
	bool wants_fresh; /* a link that is newer than the last */
	uint8_t ends;	  /* of sessions by command: they are no tries */
	bool is_failed;	  /* sqlstate says how */
	bool is_aborted;  /* skipped, for another one's failure */
	bool is_answered; /* a write that waits for its sync */
	uint32_t rows;
	char sqlstate[6];
};

/* NULL with *why (allocated text, the caller frees) when the conninfo cannot
 * be parsed: a configuration error; *why is NULL when there is no memory.
 * Connecting begins with the first tick. */
struct worker_db *worker_db_new(
    const struct worker_db_options *options, char **why) SHM_MUSTCHECK;
/* Closes all connections; queries that are not done yet are, with UNAVAILABLE
 * or UNKNOWN.  state() is not called. */
void worker_db_free(struct worker_db **db);

/* How many descriptors watch() may name. */
uint32_t worker_db_pollers(const struct worker_db_options *options);

/* May be called at any time, callbacks included, like cancel and resume. */
void worker_db_submit(struct worker_db *db, struct worker_db_query *query);

/* Nobody waits for the answer any more.  A query that was not sent yet is
 * dropped, a stream's connection is closed, anything else runs to its end.
 * done is called all the same, soon or then; row is not. */
void worker_db_cancel(struct worker_db *db, struct worker_db_query *query);

void worker_db_resume(struct worker_db *db, struct worker_db_query *query);

/* A watched descriptor is ready. */
void worker_db_ready(struct worker_db *db, uint32_t n, uint32_t events);

/* Once a turn: syncs what was queued and writes it. */
void worker_db_flush(struct worker_db *db);

/* Timers: connects, back-off, acquisition; rows that a stream has already.
 * Returns the microseconds until it wants to be called again (UINT64_MAX:
 * never; 0: at once).  Called each turn, after the flush, before the loop
 * waits. */
uint64_t worker_db_tick(struct worker_db *db, uint64_t now_us);

/* The same without doing anything: asked after the last flush of a turn, which
 * may have set timers or ended queries. */
uint64_t worker_db_wait(const struct worker_db *db, uint64_t now_us);

/* Connections with a statement, and queries that have none.  False: as before,
 * nothing is stored. */
bool worker_db_load(struct worker_db *db, uint32_t *busy, uint32_t *waiting);

bool worker_db_is_available(const struct worker_db *db);

#endif
