/*
 * What happened in the last ten hours, in bounded memory: a point for each
 * second of ten minutes, for each ten seconds of the hour and 40 minutes
 * before, for each minute of all ten hours.
 */
#ifndef OPS_HISTORY_H
#define OPS_HISTORY_H

#include "ops/ops_json.h"
#include "ops/ops_sample.h"

#define OPS_HISTORY_TIERS  3
#define OPS_HISTORY_POINTS 600 /* of each tier */
#define OPS_HISTORY_BANDS  16  /* of the heat map */

struct ops_point {
	uint64_t t_ms; /* Unix time of its end */
	float rps;
	float p50_ms, p99_ms, p999_ms;
	float hit;    /* 0 to 1; no number: nobody looked something up */
	float errors; /* 5xx a second */
	float busy;   /* per cent of the workers' time */
	uint32_t connections;
	uint32_t heat[OPS_HISTORY_BANDS];
};

struct ops_history_tier {
	struct ops_total from; /* where the next point begins */
	uint32_t first, count;
	struct ops_point point[OPS_HISTORY_POINTS];
};

struct ops_history {
	uint64_t clock_ms; /* Unix time at zero of shm_clock_us(); only grows */
	struct ops_history_tier tier[OPS_HISTORY_TIERS];
};

/* A second has passed; the first call is the beginning. */
void
ops_history_add(struct ops_history *history, const struct ops_total *total);

/* The last second's; NULL before there is one. */
const struct ops_point *ops_history_last(const struct ops_history *history);

/* The oldest point after that time, each time in the finest form that there
 * is; NULL: none. */
const struct ops_point *
ops_history_next(const struct ops_history *history, uint64_t after_ms);

/* Between which milliseconds a band's requests took: up to this; the last has
 * no end. */
double ops_history_band_ms(uint32_t band);

/* The object {"t":...,"heat":[...]}. */
void ops_history_write(
    struct ops_json *json, const char *key, const struct ops_point *point);

#endif
