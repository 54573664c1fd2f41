/*
 * History.
 *
 * Each tier remembers the sums at which its last point ended, so a point of a
 * minute has the quantiles of that minute and is not made of other quantiles.
 *
 * TIME: points are ordered by the monotonic clock, shown as Unix time.  When
 * the wall clock is set forward, later points follow it; when it is set back,
 * they go on from where they were.
 */
#include "config.h"

#include <math.h>

#include "ops/ops_history.h"

/* A band's end, and that of the histogram's bucket below it, is a power of two
 * of microseconds. */
#define BAND_FIRST_US 256u

static const uint32_t periods_s[OPS_HISTORY_TIERS] = {1, 10, 60};

/* ---- points */

static uint32_t
band_of(uint32_t bucket)
{
	uint64_t floor_us = shm_histogram_floor(bucket);
	uint32_t band = 0;

	while (band < OPS_HISTORY_BANDS - 1 &&
	       floor_us >= (uint64_t)BAND_FIRST_US << band)
		band++;
	return band;
}

static void
point_make(struct ops_point *point, const struct ops_total *from,
    const struct ops_total *to)
{
	const double seconds = ops_seconds_between(from, to);
	uint64_t looked = to->cache_all - from->cache_all;
	uint32_t serving = to->serving > 0 ? to->serving : 1;
	struct shm_histogram took;

	ops_histogram_between(&took, &from->duration, &to->duration);
	*point = (struct ops_point){
	    .rps = (float)ops_ratio(
		(double)(to->requests - from->requests), seconds),
	    .p50_ms = (float)ops_histogram_ms(&took, 0.5),
	    .p99_ms = (float)ops_histogram_ms(&took, 0.99),
	    .p999_ms = (float)ops_histogram_ms(&took, 0.999),
	    .hit = looked == 0
		       ? NAN
		       : (float)((double)(to->cache_good - from->cache_good) /
				 (double)looked),
	    .errors =
		(float)ops_ratio((double)(to->errors - from->errors), seconds),
	    .busy = (float)ops_ratio(
		(double)(to->busy_us - from->busy_us) / 1e4, seconds * serving),
	    .connections = to->connections,
	};
	for (uint32_t i = 0; i < SHM_HISTOGRAM_BUCKETS; i++)
		point->heat[band_of(i)] += (uint32_t)took.bucket[i];
}

static const struct ops_point *
point_at(const struct ops_history_tier *tier, uint32_t i)
{
	return &tier->point[(tier->first + i) % OPS_HISTORY_POINTS];
}

static void
tier_add(
    struct ops_history_tier *tier, const struct ops_total *total, uint64_t t_ms)
{
	struct ops_point *point;

	if (tier->count == OPS_HISTORY_POINTS)
		tier->first = (tier->first + 1) % OPS_HISTORY_POINTS;
	else
		tier->count++;
	point =
	    &tier->point[(tier->first + tier->count - 1) % OPS_HISTORY_POINTS];
	point_make(point, &tier->from, total);
	point->t_ms = t_ms;
	tier->from = *total;
}

void
ops_history_add(struct ops_history *history, const struct ops_total *total)
{
	uint64_t at_ms = total->at_us / 1000;

	if (total->wall_ms > history->clock_ms + at_ms)
		history->clock_ms = total->wall_ms - at_ms;
	for (uint32_t i = 0; i < OPS_HISTORY_TIERS; i++) {
		struct ops_history_tier *tier = &history->tier[i];
		uint64_t period_us = periods_s[i] * UINT64_C(1000000);

		if (tier->from.at_us == 0)
			tier->from = *total;
		/* A second comes a little early or late. */
		else if (total->at_us + OPS_SAMPLE_PERIOD_US / 2 >=
			 tier->from.at_us + period_us)
			tier_add(tier, total, history->clock_ms + at_ms);
	}
}

/* ---- reading */

const struct ops_point *
ops_history_last(const struct ops_history *history)
{
	const struct ops_history_tier *tier = &history->tier[0];

	return tier->count == 0 ? NULL : point_at(tier, tier->count - 1);
}

/* The tier's first point after that time, by halving. */
static const struct ops_point *
tier_next(const struct ops_history_tier *tier, uint64_t after_ms)
{
	uint32_t low = 0, high = tier->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (point_at(tier, middle)->t_ms <= after_ms)
			low = middle + 1;
		else
			high = middle;
	}
	return low == tier->count ? NULL : point_at(tier, low);
}

const struct ops_point *
ops_history_next(const struct ops_history *history, uint64_t after_ms)
{
	const struct ops_point *found = NULL;

	/* A coarser point counts when it ended before the finer ones begin. */
	for (uint32_t i = 0; i < OPS_HISTORY_TIERS; i++) {
		const struct ops_history_tier *tier = &history->tier[i];
		const struct ops_point *next = tier_next(tier, after_ms);
		bool is_older = i == 0;

		if (i > 0 && next != NULL)
			is_older = history->tier[i - 1].count > 0 &&
				   next->t_ms <
				       point_at(&history->tier[i - 1], 0)->t_ms;
		if (next != NULL && is_older)
			found = next;
	}
	return found;
}

double
ops_history_band_ms(uint32_t band)
{
	return (double)((uint64_t)BAND_FIRST_US << band) / 1e3;
}

/* ---- JSON */

void
ops_history_write(
    struct ops_json *json, const char *key, const struct ops_point *point)
{
	ops_json_object(json, key);
	ops_json_u64(json, "t", point->t_ms);
	ops_json_real(json, "rps", point->rps);
	ops_json_real(json, "p50", point->p50_ms);
	ops_json_real(json, "p99", point->p99_ms);
	ops_json_real(json, "p999", point->p999_ms);
	ops_json_real(json, "hit", point->hit);
	ops_json_real(json, "errors", point->errors);
	ops_json_real(json, "busy", point->busy);
	ops_json_u64(json, "connections", point->connections);
	ops_json_array(json, "heat");
	for (uint32_t i = 0; i < OPS_HISTORY_BANDS; i++)
		ops_json_u64(json, NULL, point->heat[i]);
	ops_json_end_array(json);
	ops_json_end_object(json);
}
