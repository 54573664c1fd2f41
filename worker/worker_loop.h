/*
 * One worker's state: private to the worker room.
 */
#ifndef WORKER_LOOP_H
#define WORKER_LOOP_H

#include "api/api.h"
#include "worker/io.h"
#include "worker/worker.h"
#include "worker/worker_db.h"
#include "worker/worker_http.h"
#include "worker/worker_stats.h"
#include "worker/worker_timer.h"

struct worker_call;
struct worker_conn;
struct worker_out_block;

/* Bytes of requests that are not complete yet, all connections together.
 * More: the connection that asks for them gets 503 and is closed. */
#define WORKER_HELD_BYTES_MAX (64u << 20)

enum worker_phase {
	WORKER_SERVING = 0,
	WORKER_DRAIN_DELAY, /* told to stop, still accepting */
	WORKER_RETIRING,   /* accepting no more, others do; answers say close */
	WORKER_DRAINING,   /* nobody accepts any more, answers say close */
	WORKER_DRAIN_IDLE, /* idle connections are being closed too */
	WORKER_STOPPED,
};

/* worker_handover.c */
struct worker_handover {
	uint32_t wanted;  /* connections to give away; UINT32_MAX: all */
	uint32_t leaving; /* of them, being released */
	uint32_t sent[SHM_BOARD_SLOTS]; /* lately */
	uint64_t sent_until_us;
};

/* worker_balance.c */
struct worker_balance {
	uint64_t look_us;      /* the next look at the board */
	uint64_t changed_us;   /* or then, if our number has changed */
	uint32_t open_count;   /* as it was */
	uint32_t uneven_looks; /* in a row */
	bool is_alone;
	bool is_shut; /* we have enough: others accept */
};

struct worker_loop {
	const struct worker_options *options;
	struct shm_board_worker *block; /* ours in the board */
	struct io *io;
	struct worker_db *db;
	struct worker_timer *timer; /* a deadline per connection */
	struct worker_stats stats;
	struct api api;
	struct worker_http_limits limits;
	uint64_t now_us; /* shm_clock_us() when the turn's wait ended */

	/* connections_max, and one more a listener: each may have an accept
	 * under way that cannot be taken back without losing a wake-up */
	struct worker_conn *conn;
	uint32_t conn_count;
	uint32_t *free_slot; /* a stack */
	uint32_t free_count;
	uint32_t open_count;
	size_t held_bytes;
	size_t unsent_bytes; /* of flights */
	uint64_t requests;
	uint64_t request_id; /* next made-up id */

	bool accept_armed[IO_LISTENERS_MAX]; /* accepted() is to come */
	bool accept_failing;		     /* said once per run of failures */
	uint64_t accept_retry_us;

	struct worker_handover handover;
	struct worker_balance balance;

	enum worker_phase phase;
	bool retire_closes; /* answers say close: nobody takes connections */
	uint64_t phase_us;  /* when the next phase begins */
	uint64_t stop_us;   /* when drain ends at the latest */
	int signal_fd;

	/* scratch of one request, and what is kept for the next one */
	struct worker_http_head head;
	struct worker_call *call_free;
	struct worker_out_block *out_free;
	uint32_t out_free_count;

	/* worker_answer.c */
	char lead[96]; /* status 200, Server and Date: valid until date_us */
	uint32_t lead_bytes;
	uint32_t keep_bytes; /* of keep_text: Cache-Control and Vary */
	uint64_t date_us;
	char *keep_text;
	char *value_head; /* scratch: a header block to be stored */

	/* the cache: worker_cache.c, worker_wait.c, worker_load.c */
	struct shm_cache *cache; /* NULL: there is none */
	struct worker_call *wait_first, *wait_last;
	uint32_t wait_count;
	uint32_t renewals_count; /* loads that nobody waits for */
	uint64_t random;	 /* for the jitter of fresh times */
	bool is_closing;	 /* what ends now says nothing about loads */
};

static inline bool
worker_loop_says_close(const struct worker_loop *loop)
{
	return loop->phase >= WORKER_DRAINING ||
	       (loop->phase == WORKER_RETIRING && loop->retire_closes);
}

/* Run until stopped; EX_OK or an exit code.  options outlives the call. */
int worker_loop_run(const struct worker_options *options) SHM_MUSTCHECK;

/* A connection's slot is free again (worker_conn.c tells). */
void worker_loop_conn_closed(struct worker_loop *loop, uint32_t slot);

/* A connection of another worker, which may be idle for so long. */
void worker_loop_adopt(struct worker_loop *loop, int fd, uint32_t keepalive_ms);

/* ---- worker_drain.c and others call these */
bool worker_loop_is_full(const struct worker_loop *loop);
void worker_loop_accept(struct worker_loop *loop, int fd); /* takes fd */
void worker_loop_accept_stop(struct worker_loop *loop);
/* A client waits at a listener: take one, whatever the balance. */
void worker_loop_accept_look(struct worker_loop *loop, uint32_t listener);
bool worker_loop_is_accepting(const struct worker_loop *loop);

#endif
