/*
 * What a worker says of itself: its block in the board, as it works, and its
 * slot's statistics, for good.
 *
 * A turn: turn_begin when the wait is over, turn_end before the next one.
 * Every request that a client sent is counted once: by worker_stats_request()
 * when its answer is written (or its client has left), or, when it never
 * became one, by worker_stats_refused().
 */
#ifndef WORKER_STATS_H
#define WORKER_STATS_H

#include "shm/shm_stats.h"
#include "worker/worker_profile.h"

#define WORKER_STATS_STEPS 4

#ifdef BOOKS_NO_STATS /* bench/overhead asks what all this costs */
#define WORKER_STATS_ON false
#else
#define WORKER_STATS_ON true
#endif

struct worker_call;
struct worker_conn;
struct worker_loop;

struct worker_stats {
	struct shm_stats *shm; /* our slot's; NULL before open */
	uint64_t heartbeat_us; /* the loop sleeps no longer */
	uint32_t requests_open;
	uint64_t log_dropped;

	struct worker_profile profile;

	/* since the last step, which is taken every 250 ms or so */
	uint64_t step_us;
	uint64_t step_busy_us;

	/* of this process */
	uint64_t busy_us;
	uint64_t cpu_user_us;
	uint64_t cpu_system_us;
	struct worker_stats_past {
		uint64_t at_us;
		uint64_t busy_us;
	} past[WORKER_STATS_STEPS];
	uint32_t past_next;
};

void worker_stats_open(struct worker_loop *loop);
void worker_stats_close(struct worker_loop *loop); /* the last figures */

/* loop->now_us is the time at which the wait ended. */
void worker_stats_turn_begin(struct worker_loop *loop);
/* Returns how long the loop may sleep at most. */
uint64_t worker_stats_turn_end(struct worker_loop *loop);

/* The loop works for this request now; which it had not seen before. */
void worker_stats_request_begin(const struct worker_call *call);
void worker_stats_request_goes_on(const struct worker_call *call);
/* The request has its answer. */
void worker_stats_request(
    const struct worker_call *call, uint32_t status, uint64_t duration_us);
/* conn's client sent something that had no route and is answered so. */
void worker_stats_refused(const struct worker_conn *conn, uint32_t status);

#endif
