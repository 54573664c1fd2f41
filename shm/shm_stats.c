/*
 * Statistics: names, sums, and the parts that are not a line.
 */
#include "config.h"

#include <string.h>

#include "shm/shm_stats.h"

#define STATUS_MIN 200
#define STATUS_MAX 511

static const uint16_t statuses[] = SHM_STATS_STATUSES;
_Static_assert(SHM_ARRAY_LEN(statuses) + 1 == SHM_STATS_STATUSES_COUNT,
    "one more, for any other");

/* ---- histograms */

uint64_t
shm_histogram_floor(uint32_t index)
{
	uint32_t power;

	if (index < 4)
		return index;
	power = index / 4 + 1;
	return (uint64_t)(4 + index % 4) << (power - 2);
}

uint64_t
shm_histogram_count(const struct shm_histogram *histogram)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < SHM_HISTOGRAM_BUCKETS; i++)
		count += shm_stats_get(histogram->bucket[i]);
	return count;
}

uint64_t
shm_histogram_quantile(const struct shm_histogram *histogram, double part)
{
	uint64_t count = shm_histogram_count(histogram), seen = 0;

	if (count == 0)
		return 0;
	for (uint32_t i = 0; i < SHM_HISTOGRAM_BUCKETS; i++) {
		seen += shm_stats_get(histogram->bucket[i]);
		if ((double)seen >= part * (double)count)
			return shm_histogram_floor(i + 1);
	}
	return shm_histogram_floor(SHM_HISTOGRAM_BUCKETS);
}

/* ---- requests */

uint32_t
shm_stats_status_index(uint32_t status)
{
	/* 0: not filled; else the index and 1.  Two threads that fill it write
	 * the same. */
	static _Atomic uint8_t table[STATUS_MAX - STATUS_MIN + 1];
	uint32_t found, i;

	if (status < STATUS_MIN || status > STATUS_MAX)
		return SHM_STATS_STATUSES_COUNT - 1;
	found = shm_stats_get(table[status - STATUS_MIN]);
	if (found != 0)
		return found - 1;
	for (i = 0; i < SHM_ARRAY_LEN(statuses); i++)
		if (statuses[i] == status)
			break;
	atomic_store_explicit(&table[status - STATUS_MIN], (uint8_t)(i + 1),
	    memory_order_relaxed);
	return i;
}

uint32_t
shm_stats_status(uint32_t index)
{
	return index < SHM_ARRAY_LEN(statuses) ? statuses[index] : 0;
}

void
shm_stats_request(struct shm_stats *stats, uint32_t route, uint32_t method,
    uint32_t status, uint64_t duration_us)
{
	if (route >= SHM_STATS_ROUTES)
		route = SHM_STATS_ROUTES - 1;
	if (method >= SHM_STATS_METHODS)
		method = SHM_STATS_METHODS - 1;
	shm_stats_add(
	    stats->requests[route][method][shm_stats_status_index(status)], 1);
	shm_histogram_add(&stats->duration[route], duration_us);
}

/* ---- SQLSTATEs */

uint32_t
shm_stats_sqlstate(const char *text)
{
	uint32_t value = 0;

	if (text == NULL || strlen(text) != 5)
		text = "XX000";
	for (uint32_t i = 0; i < 5; i++) {
		uint32_t digit;

		if (text[i] >= '0' && text[i] <= '9')
			digit = (uint32_t)(text[i] - '0');
		else if (text[i] >= 'A' && text[i] <= 'Z')
			digit = (uint32_t)(text[i] - 'A') + 10;
		else
			return shm_stats_sqlstate("XX000");
		value = value * 36 + digit;
	}
	return value + 1;
}

void
shm_stats_sqlstate_text(uint32_t sqlstate, char text[6])
{
	static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

	text[5] = '\0';
	sqlstate--;
	for (int i = 4; i >= 0; i--) {
		text[i] = digits[sqlstate % 36];
		sqlstate /= 36;
	}
}

static void
sqlstate_add(struct shm_stats *stats, uint32_t sqlstate, uint64_t n)
{
	for (uint32_t i = 0; i < SHM_STATS_SQLSTATES; i++) {
		struct shm_stats_sqlstate *place = &stats->sqlstate[i];
		uint32_t there = shm_stats_get(place->sqlstate);

		if (there == 0)
			atomic_store_explicit(
			    &place->sqlstate, sqlstate, memory_order_relaxed);
		if (there == 0 || there == sqlstate) {
			shm_stats_add(place->count, n);
			return;
		}
	}
	shm_stats_add(stats->sqlstate_other, n);
}

void
shm_stats_sqlstate_count(struct shm_stats *stats, const char *sqlstate)
{
	sqlstate_add(stats, shm_stats_sqlstate(sqlstate), 1);
}

/* ---- reading */

static const struct {
	const char *name;
	enum shm_stats_unit unit;
	const char *help;
} counters[] = {
#define SHM_STATS_COUNTER(name, unit, help) {#name, SHM_STATS_##unit, help},
    SHM_STATS_COUNTERS
#undef SHM_STATS_COUNTER
};

const char *
shm_stats_counter_name(enum shm_stats_counter counter)
{
	return counters[counter].name;
}

const char *
shm_stats_counter_help(enum shm_stats_counter counter)
{
	return counters[counter].help;
}

enum shm_stats_unit
shm_stats_counter_unit(enum shm_stats_counter counter)
{
	return counters[counter].unit;
}

static void
sum_words(_Atomic uint64_t *sum, const _Atomic uint64_t *from, size_t count)
{
	for (size_t i = 0; i < count; i++)
		shm_stats_add(sum[i], shm_stats_get(from[i]));
}

static void
sum_histogram(struct shm_histogram *sum, const struct shm_histogram *from)
{
	sum_words(sum->bucket, from->bucket, SHM_HISTOGRAM_BUCKETS);
	sum_words(&sum->sum_us, &from->sum_us, 1);
}

void
shm_stats_sum(struct shm_stats *sum, const struct shm_stats *from)
{
	sum_words(sum->counter, from->counter, SHM_STATS_COUNTERS_COUNT);
	for (uint32_t i = 0; i < SHM_STATS_ROUTES; i++) {
		for (uint32_t j = 0; j < SHM_STATS_METHODS; j++)
			sum_words(sum->requests[i][j], from->requests[i][j],
			    SHM_STATS_STATUSES_COUNT);
		sum_histogram(&sum->duration[i], &from->duration[i]);
	}
	sum_histogram(&sum->database, &from->database);
	sum_histogram(&sum->database_wait, &from->database_wait);
	for (uint32_t i = 0; i < SHM_STATS_SQLSTATES; i++)
		if (shm_stats_get(from->sqlstate[i].sqlstate) != 0)
			sqlstate_add(sum,
			    shm_stats_get(from->sqlstate[i].sqlstate),
			    shm_stats_get(from->sqlstate[i].count));
	sum_words(&sum->sqlstate_other, &from->sqlstate_other, 1);
}
