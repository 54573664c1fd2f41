/*
 * Looks at what the task has done, one each second, kept for ten: rates and
 * quantiles of "now" are differences between two of them.
 */
#ifndef OPS_SAMPLE_H
#define OPS_SAMPLE_H

#include "ops/ops.h"

#define OPS_SAMPLE_PERIOD_US 1000000
#define OPS_SAMPLES	     11 /* the last one, and ten periods before it */

/* Sums that only grow, and the moment. */
struct ops_total {
	uint64_t at_us;	  /* shm_clock_us() */
	uint64_t wall_ms; /* Unix time */
	uint64_t requests;
	uint64_t errors;     /* answered 5xx */
	uint64_t class[4];   /* 2xx to 5xx, 499 among 4xx */
	uint64_t busy_us;    /* of all workers */
	uint64_t cpu_us;     /* likewise */
	uint64_t cache_good; /* answers for which nobody asked the database */
	uint64_t cache_all;
	struct shm_histogram duration;
	/* not sums: as they are at the moment */
	uint32_t connections;
	uint32_t serving; /* workers */
};

struct ops_sample_route {
	uint64_t requests;
	uint64_t errors;
	struct shm_histogram duration;
};

struct ops_sample_slot { /* of our half */
	uint32_t incarnation;
	uint64_t requests;
	uint64_t cpu_us;
};

struct ops_sample {
	struct ops_total total;
	struct ops_sample_route route[SHM_STATS_ROUTES];
	struct ops_sample_slot slot[SHM_BOARD_SLOTS];
	struct shm_histogram database;
	uint64_t counter[SHM_STATS_COUNTERS_COUNT];
	uint64_t cache[SHM_CACHE_COUNTERS_COUNT];
	uint64_t sqlstate_other;
	struct shm_stats_sqlstate sqlstate[SHM_STATS_SQLSTATES];
};

struct ops_samples {
	const struct ops_options *options; /* borrowed */
	struct shm_stats sum;		   /* of the last look */
	uint32_t count;			   /* up to OPS_SAMPLES */
	uint32_t last;
	struct ops_sample sample[OPS_SAMPLES];
};

/* Look now, whenever the last time was. */
void ops_samples_take(struct ops_samples *samples, uint64_t now_us);

/* The last one, the one before, and the oldest; those that there are not yet
 * are the oldest one that there is. */
const struct ops_sample *ops_samples_last(const struct ops_samples *samples);
const struct ops_sample *ops_samples_before(const struct ops_samples *samples);
const struct ops_sample *ops_samples_oldest(const struct ops_samples *samples);

/* What was counted between two looks, for quantiles. */
void ops_histogram_between(struct shm_histogram *difference,
    const struct shm_histogram *from, const struct shm_histogram *to);
/* Milliseconds; a part of 1 is the largest value.  0 without any. */
double ops_histogram_ms(const struct shm_histogram *histogram, double part);

static inline double
ops_seconds_between(const struct ops_total *from, const struct ops_total *to)
{
	return (double)(to->at_us - from->at_us) / 1e6;
}

/* a / b, 0 when that is no number. */
static inline double
ops_ratio(double a, double b)
{
	return b > 0 ? a / b : 0;
}

#endif
