/*
 * The inside of worker_db: what its files share, and nobody else.
 *
 *	worker_db.c         placement, timers: the public functions
 *	worker_db_admit.c   who is let in at all
 *	worker_db_query.c   a query's lists, errors and ends
 *	worker_db_away.c    back-off, and what is said about it
 *	worker_db_secret.c  user and password that change
 *	worker_db_link.c    a connection's life: lookup, connect, set-up, end
 *	worker_db_pipe.c    queries on a connection in pipeline mode
 *	worker_db_stream.c  a connection that one query has to itself
 *
 * A LINK'S STATES.  "deadline" is what deadline_us means in it.
 *
 *	WAITING ----> RESOLVING ----> CONNECTING ----> SETUP ----> READY
 *	   ^  \_____________________/ (no names)         |          | |
 *	   |                                             |          | v
 *	   +---- any failure or loss, by back-off -------+   RETIRING DRAINING
 *	   +<----------- RETIRING, when it is empty                   |
 *	READY <- STREAM_END <- STREAMING <- STREAM_BEGIN <-- when empty
 *
 * INVARIANTS
 *   I1  ring holds, in the order of the answers to come, each query handed to
 *       libpq and a NULL for each sync of reads.  A write stands for itself
 *       and the sync directly after it.
 *   I2  a query is in one place: a queue (state WAITING or ENDED), one link's
 *       ring (SENT), or one link's stream.
 *   I3  unsynced: the last thing in ring is a read.
 *   I4  between a link's loss and its next connect it holds no query.
 */
#ifndef WORKER_DB_LINK_H
#define WORKER_DB_LINK_H

#include <libpq-fe.h>

#include "worker/worker_admission.h"
#include "worker/worker_conninfo.h"
#include "worker/worker_db.h"

#define DB_DEPTH_MAX	  64  /* queries on a link: more wait in the queue */
#define DB_RING_SIZE	  256 /* power of two */
#define DB_ROWS_PER_TURN  256 /* of one stream: the loop has others to serve */
#define DB_GRACE_US	  1000000 /* added to statement_timeout */
#define DB_FRESH_US	  500000  /* wait for a new link, then any will do */
#define DB_BACKOFF_MIN_MS 100
#define DB_BACKOFF_MAX_MS 5000

_Static_assert(DB_RING_SIZE >= 2 * DB_DEPTH_MAX + 2, "a sync per query");

#define DB_LINK_STATES(S)                                               \
	S(WAITING, "the next connect")                                  \
	S(RESOLVING, "the connect deadline")                            \
	S(CONNECTING, "the connect deadline")                           \
	S(SETUP, "the connect deadline")                                \
	S(READY, "unused: the oldest query counts")                     \
	S(RETIRING, "unused: the oldest query counts")                  \
	S(DRAINING, "unused: the oldest query counts")                  \
	S(STREAM_BEGIN, "the answer to SET")                            \
	S(STREAMING, "the first row; then as slow as the client likes") \
	S(STREAM_END, "the answer to SET")

enum db_link_state {
#define S(name, deadline) DB_LINK_##name,
	DB_LINK_STATES(S)
#undef S
};

enum db_query_state {
	DB_QUERY_IDLE = 0, /* the caller's */
	DB_QUERY_WAITING,
	DB_QUERY_SENT,
	DB_QUERY_ENDED, /* done() is due */
};

/* What an error says about the connection it came from. */
enum db_error {
	DB_ERROR_STATEMENT = 0,
	DB_ERROR_TIMEOUT,
	DB_ERROR_STALE, /* not run; another connection may do better */
	DB_ERROR_DEAD,
};

struct db_list {
	struct worker_db_query *first;
	struct worker_db_query *last;
	uint32_t count;
};

struct worker_db_link {
	struct worker_db *db;
	PGconn *conn; /* NULL in WAITING and RESOLVING */
	uint32_t number;
	enum db_link_state state;
	int watched_fd; /* -1: none */
	uint32_t watched_events;
	uint64_t deadline_us;
	uint64_t synced_us;	 /* the last sync was handed to libpq */
	uint64_t busy_us;	 /* a query was sent and none was before it */
	uint64_t answered_us;	 /* the last query had its answer */
	uint64_t ready_us;	 /* since when it may be used */
	uint32_t failures;	 /* connects in a row */
	uint32_t first_target;	 /* of this connect */
	uint64_t secret_version; /* likewise */

	uint32_t head; /* of ring */
	uint32_t count;
	uint32_t queries; /* in ring */
	bool is_dirty;	  /* in db->dirty */
	bool has_unsynced;
	bool has_more; /* STREAMING: rows may be in libpq's buffer */
	bool is_cut;   /* its stream was cancelled */
	/* What has no answer did not run; and what has no sync was rolled
	 * back: see worker_db_pipe.c. */
	bool is_told;
	bool is_undone;
	struct worker_db_query *stream;
	struct worker_conninfo_failure failure; /* of set-up, or a FATAL */
	struct worker_db_query *ring[DB_RING_SIZE];
};

struct worker_db {
	struct worker_db_options options;
	struct worker_conninfo *conninfo; /* of the text and the secret */
	char *conninfo_text;		  /* options.conninfo */
	uint64_t secret_version;	  /* in conninfo; 0: none */
	bool has_secret;		  /* and it could be used */
	bool wants_secret;		  /* another one, or the first */
	struct worker_resolve *resolve;	  /* NULL: none under way */
	char statement_timeout[16];	  /* as text for SET */
	uint64_t answer_us; /* a link that is silent for longer is dead */
	uint64_t now_us;
	uint64_t wake_us; /* no timer is due before */
	uint64_t random;
	struct shm_stats *stats;
	uint64_t flushes; /* that placed queries */
	bool is_touched;  /* worker_db_load() has news */

	struct worker_admission admission;
	uint64_t admit_step_us;
	uint64_t admit_answered; /* since then */
	uint64_t admit_rate;	 /* a second, of late */
	struct db_list waiting;
	struct db_list fresh;	/* for a link made after that */
	struct db_list streams; /* waiting */
	struct db_list ended;	/* done() is due */
	uint32_t streams_count; /* waiting or on a link */
	uint32_t streams_max;
	bool has_more; /* some link has_more */
	bool has_cut;  /* some link is_cut */
	bool is_closing;

	/* availability */
	uint32_t up_count;	   /* links READY or with a stream */
	uint32_t connecting_count; /* links RESOLVING to SETUP */
	bool is_away;		   /* and said so */
	bool is_short;		   /* and said so */
	uint32_t away_failures;
	uint64_t away_retry_us;
	char away_sqlstate[6];
	uint32_t first_target; /* moves on when one does not answer */

	uint32_t next; /* where the search for a link begins */
	uint32_t dirty_count;
	struct worker_db_link **dirty;
	struct worker_db_link *links; /* options.connections */
};

/* ---- worker_db.c */

/* A timer may be due at at_us. */
void db_wake_at(struct worker_db *db, uint64_t at_us);

/* ---- worker_db_query.c */

void db_list_push(struct db_list *list, struct worker_db_query *query);
struct worker_db_query *db_list_pop(struct db_list *list);
void db_list_remove(struct db_list *list, const struct worker_db_query *query);

/* The list that a query without a link waits in. */
struct db_list *
db_query_list(struct worker_db *db, const struct worker_db_query *query);

/* The query is over: done() will be called from a safe place. */
void db_query_end(struct worker_db *db, struct worker_db_query *query,
    enum api_db_outcome outcome, const char *sqlstate);

/* The same, at once: from a callback of a descriptor or timer only. */
void db_query_done(struct worker_db *db, struct worker_db_query *query,
    enum api_db_outcome outcome, const char *sqlstate);

/* It leaves the list in which it waited for a link: count that, if it was
 * longer than to the end of a turn. */
void db_query_waited(struct worker_db *db, const struct worker_db_query *query);

/* It did not run: send it once more.  False when it had its second try. */
bool db_query_retry(
    struct worker_db *db, struct worker_db_query *query) SHM_MUSTCHECK;

/* An error that the server has said. */
void db_count_error(struct worker_db *db, const char *sqlstate);

enum db_error db_error_kind(const char *sqlstate);

/* An error or notice of link's server: does it end the session at a place where
 * it looks for that, between or inside statements?  Notes in link what follows
 * for those that are under way. */
void db_error_note_end(struct worker_db_link *link, const PGresult *result);

/* Lend a row of result to the query, unless it was cancelled.  False: pause. */
bool
db_query_row(struct worker_db_query *query, const PGresult *result, int row);

/* ---- worker_db_admit.c */

void db_admit_open(struct worker_db *db);
/* The answer of a query is whole. */
void db_admit_answered(struct worker_db_link *link);
/* Is a query that comes now refused?  Counts it. */
bool db_admit_refuses(struct worker_db *db);

/* ---- worker_db_away.c */

/* How long to wait after so many failures in a row. */
uint64_t db_away_backoff_us(struct worker_db *db, uint32_t failures);

/* link failed or was lost.  Says so when no other one is up. */
void db_away_note_failure(struct worker_db_link *link);

/* link is the first one up: the others need not wait any longer. */
void db_away_ends(struct worker_db_link *link);

/* Is another link finding out, or is it too early?  Sets link's deadline. */
bool db_away_puts_off(struct worker_db_link *link);

/* ---- worker_db_secret.c */

/* Before a connect: take the newest.  False: there is none yet. */
bool db_secret_take(struct worker_db *db) SHM_MUSTCHECK;
void db_secret_missing(struct worker_db_link *link);

/* link is about to be lost: if that is for the secret, ops is told. */
void db_secret_refused(struct worker_db_link *link);

/* With the timers: when there is a new one, waiting links connect now. */
void db_secret_look(struct worker_db *db);

/* ---- worker_db_link.c */

void db_link_move(struct worker_db_link *link, enum db_link_state from,
    enum db_link_state to);
void db_link_watch(struct worker_db_link *link, uint32_t events);

/* Take what the socket has.  False: it is broken; results that arrived before
 * are there all the same. */
bool db_link_read(struct worker_db_link *link) SHM_MUSTCHECK;

/* Write what libpq holds and watch what it waits for.  False: lost. */
bool db_link_flush(struct worker_db_link *link) SHM_MUSTCHECK;

/* Begin to connect, or put it off while the database is away. */
void db_link_connect(struct worker_db_link *link);
void db_link_resolved(struct worker_db *db);
void db_link_connect_ready(struct worker_db_link *link);
void db_link_setup_ready(struct worker_db_link *link);
void db_link_timed_out(struct worker_db_link *link);

/*
 * The connection is of no use any more.  Its queries are sent again or end,
 * and a new one is made: after a back-off, or at once when nothing is wrong
 * with the server.  reason NULL: as link->failure or libpq says.
 */
void db_link_lost(struct worker_db_link *link, const char *reason);
void db_link_renew(struct worker_db_link *link, const char *reason);

/* Close without a successor (worker_db_free). */
void db_link_close(struct worker_db_link *link);

/* ---- worker_db_pipe.c */

/* Hand query to libpq.  False: it was not sent, and the link is lost. */
bool db_pipe_send(
    struct worker_db_link *link, struct worker_db_query *query) SHM_MUSTCHECK;

/* The end of a turn: sync the reads and write. */
void db_pipe_flush(struct worker_db_link *link);
void db_pipe_ready(struct worker_db_link *link, uint32_t events);

/* When an answer must have come; UINT64_MAX: none is due. */
uint64_t db_pipe_deadline(const struct worker_db_link *link);

/* Every query of a lost link is sent again or ends. */
void db_pipe_abandon(struct worker_db_link *link);

/* ---- worker_db_stream.c */

/* Take a READY link: it drains, then the stream begins. */
void
db_stream_place(struct worker_db_link *link, struct worker_db_query *query);
void db_stream_begin(struct worker_db_link *link); /* it has drained */
void db_stream_ready(struct worker_db_link *link);

/* Rows that libpq already has, DB_ROWS_PER_TURN of them at most. */
void db_stream_pump(struct worker_db_link *link);
void db_stream_timed_out(struct worker_db_link *link);
void db_stream_cut(struct worker_db_link *link);
void db_stream_abandon(struct worker_db_link *link);

#endif
