/*
 * Keys, values, clocks and a cache filled with them: see cache.h.
 */
#include "config.h"

#include <err.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "bench/cache.h"

#define HEAD_BYTES 200 /* of each value, as a book's header block */
#define FRESH_US   UINT64_C(3600000000)
#define HASH_SEED  UINT64_C(0x9e3779b97f4a7c15)

static char value_bytes_of[SHM_CACHE_VALUE_MAX];
static cpu_set_t started_on;

uint32_t
cache_scaled(double n, uint32_t least)
{
	n *= cache_options.scale;
	return n < least ? least : (uint32_t)n;
}

static int
compare_double(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

double
cache_median(const double *values, uint32_t count)
{
	double sorted[CACHE_ROUNDS_MAX];

	SHM_ASSERT(count > 0 && count <= CACHE_ROUNDS_MAX);
	memcpy(sorted, values, count * sizeof(*sorted));
	qsort(sorted, count, sizeof(*sorted), compare_double);
	return (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
}

/* ---- keys */

void
cache_key_text(char text[CACHE_KEY_BYTES + 2], uint32_t number)
{
	uint64_t isbn = UINT64_C(9780000000000) + number;

	text[0] = 'b';
	for (int i = CACHE_KEY_BYTES - 1; i > 0; i--, isbn /= 10)
		text[i] = (char)('0' + isbn % 10);
	text[CACHE_KEY_BYTES] = text[CACHE_KEY_BYTES + 1] = '\0';
}

static double *
zipf_sums(uint32_t numbers)
{
	double *sum = calloc(numbers, sizeof(*sum)), all = 0;

	if (sum == NULL)
		err(EX_OSERR, "malloc");
	for (uint32_t i = 0; i < numbers; i++)
		sum[i] = all += pow(i + 1, -CACHE_ZIPF);
	return sum;
}

double
cache_zipf_share(uint32_t numbers, uint32_t kept)
{
	double *sum = zipf_sums(numbers), share;

	share = sum[kept - 1] / sum[numbers - 1];
	free(sum);
	return share;
}

/* The first number whose sum is above wanted. */
static uint32_t
zipf_find(const double *sum, uint32_t numbers, double wanted)
{
	uint32_t low = 0, high = numbers - 1;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (sum[mid] > wanted)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

struct cache_draws
cache_draws_new(uint32_t numbers, uint32_t count, uint64_t seed)
{
	struct cache_draws draws = {.count = count,
	    .number = calloc(count, sizeof(*draws.number)),
	    .text = calloc(count, sizeof(*draws.text))};
	double *sum = zipf_sums(numbers);
	uint64_t random = seed * HASH_SEED | 1;

	if (draws.number == NULL || draws.text == NULL)
		err(EX_OSERR, "malloc");
	for (uint32_t i = 0; i < count; i++) {
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		draws.number[i] = zipf_find(sum, numbers,
		    (double)(random >> 11) * 0x1p-53 * sum[numbers - 1]);
		cache_key_text(draws.text[i], draws.number[i]);
	}
	free(sum);
	return draws;
}

void
cache_draws_free(struct cache_draws *draws)
{
	free(draws->number);
	free(draws->text);
	*draws = (struct cache_draws){0};
}

/* ---- the cache */

struct shm_cache *
cache_new(uint64_t bytes, uint32_t slots_count, uint32_t mean_bytes)
{
	struct shm_cache_options options = {.bytes = bytes,
	    .slots_count = slots_count,
	    .seed = HASH_SEED,
	    .mean_bytes = mean_bytes};
	const struct shm_cache_policy policy = {
	    .stale_us = 10000000, .error_us = FRESH_US, .linger_us = 3000000};
	struct shm_cache *cache;
	uint64_t least;

	if (options.bytes < SHM_CACHE_BYTES_MIN)
		options.bytes = SHM_CACHE_BYTES_MIN;
	if (!shm_cache_is_large_enough(&options, &least))
		options.bytes = least; /* a small scale: not what is judged */
	cache = shm_cache_new(&options);
	if (cache == NULL)
		err(EX_OSERR, "a cache of %llu bytes",
		    (unsigned long long)options.bytes);
	shm_cache_set_policy(cache, &policy);
	return cache;
}

static void
key_of(
    const struct shm_cache *cache, struct shm_cache_key *key, const char *text)
{
	*key = (struct shm_cache_key){
	    .data = text, .len = CACHE_KEY_BYTES, .cls = SHM_CACHE_BOOK};
	shm_cache_key_hash(cache, key);
}

uint32_t
cache_get_batch(struct shm_cache *cache, char (*text)[CACHE_KEY_BYTES + 2],
    uint32_t count, char *out)
{
	struct shm_cache_key key[CACHE_BATCH];
	struct shm_cache_lease lease;
	struct shm_cache_view view;
	uint32_t hits = 0;

	for (uint32_t i = 0; i < count; i++) {
		key_of(cache, &key[i], text[i]);
		shm_cache_prefetch_bucket(cache, key[i].hash);
	}
	for (uint32_t i = 0; i < count; i++)
		shm_cache_prefetch_entry(cache, key[i].hash);
	for (uint32_t i = 0; i < count; i++)
		if (shm_cache_get(cache, &key[i], CACHE_NOW_US, &lease,
			&view) == SHM_CACHE_HIT &&
		    shm_cache_copy(cache, &view, 0, view.value_bytes, out))
			hits++;
	return hits;
}

bool
cache_get(struct shm_cache *cache, const char *text, char *out)
{
	struct shm_cache_lease lease;
	struct shm_cache_view view;
	struct shm_cache_key key;

	key_of(cache, &key, text);
	do {
		if (shm_cache_get(cache, &key, CACHE_NOW_US, &lease, &view) !=
		    SHM_CACHE_HIT)
			return false;
	} while (!shm_cache_copy(cache, &view, 0, view.value_bytes, out));
	return true;
}

enum shm_cache_stored
cache_put_missed(struct shm_cache *cache, const struct shm_cache_key *key,
    const struct shm_cache_lease *lease, uint32_t value_bytes)
{
	const struct shm_cache_value value = {
	    .id = key->hash,
	    .row_version = 1,
	    .modified_s = 1700000000,
	    .fresh_us = FRESH_US,
	    .status = 200,
	    .cls = SHM_CACHE_BOOK,
	    .head = value_bytes_of,
	    .head_bytes = HEAD_BYTES,
	    .body = value_bytes_of + HEAD_BYTES,
	    .body_bytes = value_bytes - HEAD_BYTES,
	};

	return shm_cache_put(cache, key, lease, &value, NULL, CACHE_NOW_US);
}

enum shm_cache_stored
cache_put(struct shm_cache *cache, const char *text, uint32_t value_bytes)
{
	struct shm_cache_lease lease;
	struct shm_cache_view view;
	struct shm_cache_key key;
	enum shm_cache_found found;

	key_of(cache, &key, text);
	found = shm_cache_get(cache, &key, CACHE_NOW_US, &lease, &view);
	(void)found; /* stored again all the same */
	return cache_put_missed(cache, &key, &lease, value_bytes);
}

void
cache_fill(struct shm_cache *cache, uint32_t count, uint32_t value_bytes)
{
	char text[CACHE_KEY_BYTES + 2];

	for (uint32_t i = 0; i < count; i++) {
		cache_key_text(text, i);
		if (cache_put(cache, text, value_bytes) != SHM_CACHE_STORED)
			continue; /* the share of hits tells */
	}
}

/* ---- the processor */

double
cache_cpu_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

void
cache_pin(uint32_t which)
{
	cpu_set_t one;
	size_t cpu = SIZE_MAX;

	if (CPU_COUNT(&started_on) == 0 &&
	    sched_getaffinity(0, sizeof(started_on), &started_on) == -1)
		err(EX_OSERR, "sched_getaffinity");
	which %= (uint32_t)CPU_COUNT(&started_on);
	do
		if (CPU_ISSET(++cpu, &started_on))
			which--;
	while (which != UINT32_MAX);
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one) == -1)
		err(EX_OSERR, "sched_setaffinity");
}
