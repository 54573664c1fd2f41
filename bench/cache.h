/*
 * What the parts of bench/cache share: options, figures, and a cache with keys
 * whose popularity follows Zipf's law.
 */
#ifndef BENCH_CACHE_H
#define BENCH_CACHE_H

#include <math.h>

#include "shm/shm_cache.h"

#define CACHE_KEY_BYTES	 14 /* "b" and 13 digits */
#define CACHE_ROUNDS_MAX 101
#define CACHE_ZIPF	 0.99
#define CACHE_NOW_US	 UINT64_C(1000000000)
#define CACHE_MIB	 (UINT64_C(1) << 20)

struct cache_options {
	uint32_t rounds;
	double scale; /* of keys, requests and cache sizes; 1: the real run */
	const char *only;      /* one part, or NULL: all */
	const char *memcached; /* its unix socket, or NULL */
	int memcached_pid;
};
extern struct cache_options cache_options;

/* n at the scale of this run, at least least. */
uint32_t cache_scaled(double n, uint32_t least);

/* ---- figures */

enum cache_sense {
	CACHE_NO_BAR = 0,
	CACHE_AT_MOST,
	CACHE_AT_LEAST,
};

struct cache_figure {
	const char *key; /* for machines */
	const char *what;
	double value; /* NAN: not measured */
	const char *unit;
	enum cache_sense sense;
	double limit;
};
void cache_report(const struct cache_figure *figure);
double cache_median(const double *values, uint32_t count);

/* ---- keys */

/* The text of key number, and the key that borrows it, hashed. */
void cache_key_text(char text[CACHE_KEY_BYTES + 2], uint32_t number);

/* Numbers drawn by Zipf's law: number 0 is the most popular.  With their key
 * texts in the order of use, so that fetching them costs floor and cache the
 * same, next to nothing. */
struct cache_draws {
	uint32_t count;
	uint32_t *number;
	char (*text)[CACHE_KEY_BYTES + 2];
};
struct cache_draws
cache_draws_new(uint32_t numbers, uint32_t count, uint64_t seed);
void cache_draws_free(struct cache_draws *draws);
/* The share of requests that are for the `kept` most popular of numbers. */
double cache_zipf_share(uint32_t numbers, uint32_t kept);

/* ---- a cache under measurement */

struct shm_cache *
cache_new(uint64_t bytes, uint32_t slots_count, uint32_t mean_bytes);
/* Look up and copy out to `out`; false: a miss. */
bool cache_get(struct shm_cache *cache, const char *text, char *out);

/* Get count keys as a worker does with the requests of one turn of its loop:
 * their buckets are prefetched, then their entries, then they are read.
 * Returns how many were hits. */
#define CACHE_BATCH 16
uint32_t cache_get_batch(struct shm_cache *cache,
    char (*text)[CACHE_KEY_BYTES + 2], uint32_t count, char *out);

/* Look up for the lease, and store value_bytes. */
enum shm_cache_stored
cache_put(struct shm_cache *cache, const char *text, uint32_t value_bytes);
/* The same where the lookup was a miss: only the put is left. */
enum shm_cache_stored
cache_put_missed(struct shm_cache *cache, const struct shm_cache_key *key,
    const struct shm_cache_lease *lease, uint32_t value_bytes);
/* Store numbers [0, count). */
void cache_fill(struct shm_cache *cache, uint32_t count, uint32_t value_bytes);

/* CPU time of this process in ns. */
double cache_cpu_ns(void);
/* Run on the which-th processor that the program was started on. */
void cache_pin(uint32_t which);

/* ---- the parts */

void cache_bench_get(void); /* get, miss */
void cache_bench_put(void);
void cache_bench_mix(void); /* one process and two */
void cache_bench_overhead(void);
void cache_bench_hit_ratio(void);
void cache_bench_memcached(void);

#endif
