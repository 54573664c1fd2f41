/*
 * Statistics: what the workers of a task have done since it began.
 *
 * LAYOUT: a block for each worker slot of both halves (shm_task.h).  A reader
 * sums the blocks of all slots that ever had a process.
 *
 * WHO MAY WRITE: the worker in the slot, nobody else.
 *
 * INVARIANTS
 *   I1  no word ever becomes less: neither a death nor a successor in the slot
 *       clears anything.  So sums are monotonic across deaths, reloads and
 *       upgrades.
 *   I2  a request is counted before the last byte of its answer is given to
 *       the kernel: who has the answer finds it counted.
 *   I3  a histogram's count is the sum of its buckets; there is no third word
 *       that could disagree.
 *
 * MEMORY ORDER: relaxed.  One writer to a word, so an addition is a load and a
 * store and needs no locked instruction.
 *
 * A WRITER DIES INSIDE: one addition may be missing.
 */
#ifndef SHM_STATS_H
#define SHM_STATS_H

#include <stdatomic.h>

#include "shm/shm_base.h"

/* ---- histograms of microseconds: four buckets for each doubling, so a value
 * is known within 19 %; Tene's HdrHistogram is the model */

#define SHM_HISTOGRAM_BUCKETS 104 /* the last one holds all above 134 s */

struct shm_histogram {
	_Atomic uint64_t bucket[SHM_HISTOGRAM_BUCKETS];
	_Atomic uint64_t sum_us;
};

static inline uint32_t
shm_histogram_index(uint64_t us)
{
	uint32_t power, index;

	if (us < 4)
		return (uint32_t)us;
	power = 63 - (uint32_t)__builtin_clzll(us);
	index = (power - 1) * 4 + (uint32_t)((us >> (power - 2)) & 3);
	return index < SHM_HISTOGRAM_BUCKETS ? index
					     : SHM_HISTOGRAM_BUCKETS - 1;
}

/* The least value of a bucket; of SHM_HISTOGRAM_BUCKETS the end of the last. */
uint64_t shm_histogram_floor(uint32_t index);

/* ---- counters of a worker: SHM_STATS_COUNTER(name, unit, help); unit is
 * COUNT, BYTES or MICROSECONDS */

#define SHM_STATS_COUNTERS                                                     \
	SHM_STATS_COUNTER(connections, COUNT, "connections accepted")          \
	SHM_STATS_COUNTER(                                                     \
	    connections_moved, COUNT, "connections given to another worker")   \
	SHM_STATS_COUNTER(received, BYTES, "bytes received from clients")      \
	SHM_STATS_COUNTER(sent, BYTES, "bytes of answers given to the kernel") \
	SHM_STATS_COUNTER(                                                     \
	    malformed, COUNT, "requests refused before they had a route")      \
	SHM_STATS_COUNTER(                                                     \
	    aborted, COUNT, "requests whose client left before the answer")    \
	SHM_STATS_COUNTER(                                                     \
	    refused, COUNT, "requests answered 503 early, by admission")       \
	SHM_STATS_COUNTER(                                                     \
	    timeouts, COUNT, "connections closed because a deadline passed")   \
	SHM_STATS_COUNTER(turns, COUNT, "turns of event loops")                \
	SHM_STATS_COUNTER(busy, MICROSECONDS, "time of loops between waits")   \
	SHM_STATS_COUNTER(cpu_user, MICROSECONDS, "CPU time in user mode")     \
	SHM_STATS_COUNTER(cpu_system, MICROSECONDS, "CPU time in the kernel")  \
	SHM_STATS_COUNTER(database_queries, COUNT, "statements sent")          \
	SHM_STATS_COUNTER(database_waits, COUNT,                               \
	    "requests that waited for a database connection")                  \
	SHM_STATS_COUNTER(                                                     \
	    database_timeouts, COUNT, "requests that waited too long for one") \
	SHM_STATS_COUNTER(                                                     \
	    database_opened, COUNT, "database connections that became usable") \
	SHM_STATS_COUNTER(database_lost, COUNT, "database connections lost")   \
	SHM_STATS_COUNTER(log_dropped, COUNT, "log lines that found no room")

enum shm_stats_counter {
#define SHM_STATS_COUNTER(name, unit, help) SHM_STATS_##name,
	SHM_STATS_COUNTERS
#undef SHM_STATS_COUNTER
	    SHM_STATS_COUNTERS_COUNT
};

enum shm_stats_unit {
	SHM_STATS_COUNT = 0,
	SHM_STATS_BYTES,
	SHM_STATS_MICROSECONDS,
};

/* ---- requests by route, method and status */

#define SHM_STATS_ROUTES  12 /* enum api_route_id, and the last: no route */
#define SHM_STATS_METHODS 7  /* enum api_method, OTHER included */

/* The statuses that booksd answers, and 499 for clients that left. */
#define SHM_STATS_STATUSES                                                  \
	{                                                                   \
		200, 201, 204, 304, 400, 401, 403, 404, 405, 406, 408, 409, \
		    411, 412, 413, 414, 415, 417, 422, 428, 429, 431, 499,  \
		    500, 501, 502, 503, 504, 505                            \
	}
#define SHM_STATS_STATUSES_COUNT 30 /* the last: any other */

/* Where a status is counted; constant time, a table. */
uint32_t shm_stats_status_index(uint32_t status);
/* The status counted there; 0: any other. */
uint32_t shm_stats_status(uint32_t index);

/* ---- errors of the database by SQLSTATE */

#define SHM_STATS_SQLSTATES 32 /* different ones a worker; then "other" */

/* Five characters 0-9A-Z as a number, never 0; ill-formed: that of "XX000". */
uint32_t shm_stats_sqlstate(const char *text);
void shm_stats_sqlstate_text(uint32_t sqlstate, char text[6]);

struct shm_stats_sqlstate {
	_Atomic uint32_t sqlstate; /* 0: free; once set it stays */
	_Atomic uint64_t count;
};

/* ---- a worker's block */

struct shm_stats {
	_Alignas(128) _Atomic uint64_t counter[SHM_STATS_COUNTERS_COUNT];
	_Atomic uint64_t requests[SHM_STATS_ROUTES][SHM_STATS_METHODS]
				 [SHM_STATS_STATUSES_COUNT];
	/* from the first byte of the head to the answer's last byte given to
	 * the kernel */
	struct shm_histogram duration[SHM_STATS_ROUTES];
	struct shm_histogram database;	    /* sent to last row */
	struct shm_histogram database_wait; /* for a connection, if any */
	struct shm_stats_sqlstate sqlstate[SHM_STATS_SQLSTATES];
	_Atomic uint64_t sqlstate_other;
};

/* The worker's own additions. */
#define shm_stats_get(word) atomic_load_explicit(&(word), memory_order_relaxed)
#ifndef BOOKS_NO_STATS
#define shm_stats_add(word, n)                                              \
	atomic_store_explicit(&(word), shm_stats_get(word) + (uint64_t)(n), \
	    memory_order_relaxed)
#else /* bench/overhead asks what that costs */
#define shm_stats_add(word, n) ((void)(word), (void)(n))
#endif

static inline void
shm_histogram_add(struct shm_histogram *histogram, uint64_t us)
{
	shm_stats_add(histogram->bucket[shm_histogram_index(us)], 1);
	shm_stats_add(histogram->sum_us, us);
}

static inline void
shm_stats_count(
    struct shm_stats *stats, enum shm_stats_counter counter, uint64_t n)
{
	shm_stats_add(stats->counter[counter], n);
}

/* route: SHM_STATS_ROUTES - 1 without one. */
void shm_stats_request(struct shm_stats *stats, uint32_t route, uint32_t method,
    uint32_t status, uint64_t duration_us);
void shm_stats_sqlstate_count(struct shm_stats *stats, const char *sqlstate);

/* ---- reading */

const char *shm_stats_counter_name(enum shm_stats_counter counter);
const char *shm_stats_counter_help(enum shm_stats_counter counter);
enum shm_stats_unit shm_stats_counter_unit(enum shm_stats_counter counter);

/* Add from's words to sum, which is nobody else's. */
void shm_stats_sum(struct shm_stats *sum, const struct shm_stats *from);
uint64_t shm_histogram_count(const struct shm_histogram *histogram);
/* An upper bound of that part (0 to 1) of the values; 0 without any. */
uint64_t
shm_histogram_quantile(const struct shm_histogram *histogram, double part);

#endif
