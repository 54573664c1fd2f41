/*
 * Time per operation: get over its floor, miss, put into a full cache, and a
 * mixture of both in one process and in two that share the cache.
 */
#include "config.h"

#include <sys/mman.h>
#include <sys/wait.h>

#include <err.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "bench/cache.h"

#define MIX_KEYS    20000
#define MIX_VALUE   400
#define MIX_PUTS_IN 20 /* every 20th operation is a put */
#define MIX_SECONDS 0.4
#define MIX_CHUNK   4096
#define PUT_VALUE   400
#define PUT_OBJECTS 1000000

#define HIT_SHARE_MIN .999

static char out[SHM_CACHE_VALUE_MAX + 64];
static _Atomic uint64_t sink; /* what a compiler must not leave out */

/* ---- get */

static const struct get_case {
	const char *key, *label;
	double keys, ops; /* ops: of a round */
	uint32_t value_bytes;
	uint32_t mib;		  /* of the cache: large enough for all keys */
	double ns_max, floor_max; /* bars, or 0 */
} get_cases[] = {
    {"get_400_1k", "400 B, 1 k keys", 1000, 1 << 20, 400, 64, 32, 0},
    {"get_400_20k", "400 B, 20 k keys", 20000, 1 << 20, 400, 64, 45, 6},
    {"get_400_500k", "400 B, 500 k keys", 500000, 1 << 20, 400, 512, 0, 0},
    {"get_16k", "16 KiB, 1 k keys", 1000, 1 << 16, 16384, 64, 0, 1.25},
    {"get_60k", "60 KB, 300 keys", 300, 1 << 14, 60000, 64, 0, 1.25},
};

static double
floor_ns(const struct shm_cache *cache, const struct cache_draws *draws,
    const char *array, uint32_t value_bytes)
{
	uint64_t hashes = 0;
	double begin = cache_cpu_ns();

	for (uint32_t i = 0; i < draws->count; i++) {
		struct shm_cache_key key = {
		    .data = draws->text[i], .len = CACHE_KEY_BYTES};

		shm_cache_key_hash(cache, &key);
		hashes += key.hash;
		memcpy(out, array + (size_t)draws->number[i] * value_bytes,
		    value_bytes);
		__asm__ volatile("" : : "r"(out) : "memory");
	}
	atomic_store(&sink, hashes);
	return (cache_cpu_ns() - begin) / draws->count;
}

static double
get_ns(struct shm_cache *cache, const struct cache_draws *draws, uint32_t *hits)
{
	double begin = cache_cpu_ns();

	*hits = 0;
	for (uint32_t i = 0; i < draws->count; i++)
		*hits += cache_get(cache, draws->text[i], out);
	return (cache_cpu_ns() - begin) / draws->count;
}

static double
batch_ns(
    struct shm_cache *cache, const struct cache_draws *draws, uint32_t *hits)
{
	double begin = cache_cpu_ns();

	*hits = 0;
	for (uint32_t i = 0; i < draws->count; i += CACHE_BATCH)
		*hits += cache_get_batch(cache, &draws->text[i],
		    draws->count - i < CACHE_BATCH ? draws->count - i
						   : CACHE_BATCH,
		    out);
	return (cache_cpu_ns() - begin) / draws->count;
}

/* Keys that were never stored. */
static double
miss_ns(struct shm_cache *cache, struct cache_draws *draws, uint32_t keys)
{
	uint32_t hits;

	for (uint32_t i = 0; i < draws->count; i++)
		cache_key_text(draws->text[i], draws->number[i] + keys);
	return get_ns(cache, draws, &hits);
}

/* What the rounds of one case took. */
struct get_times {
	double one[CACHE_ROUNDS_MAX]; /* one key after another */
	double batch[CACHE_ROUNDS_MAX];
	double floor[CACHE_ROUNDS_MAX];
};

/* One row, and what it is over the floor.  A miss is cheaper than any hit:
 * then (not is_valid) nothing was measured. */
static void
get_row(const struct cache_figure *row, const double ns[CACHE_ROUNDS_MAX],
    const double floor[CACHE_ROUNDS_MAX], double floor_max, bool is_valid)
{
	double ratio[CACHE_ROUNDS_MAX];
	struct cache_figure figure = *row;
	char key[64];
	uint32_t rounds = cache_options.rounds;

	for (uint32_t i = 0; i < rounds; i++)
		ratio[i] = ns[i] / floor[i];
	figure.value = is_valid ? cache_median(ns, rounds) : NAN;
	cache_report(&figure);
	snprintf(key, sizeof(key), "%s_ratio", row->key);
	cache_report(&(struct cache_figure){key, "  over its floor",
	    is_valid ? cache_median(ratio, rounds) : NAN, "times",
	    floor_max > 0 ? CACHE_AT_MOST : CACHE_NO_BAR, floor_max});
}

/* A worker gets in batches: the bars are for these. */
static void
get_report(
    const struct get_case *one, const struct get_times *times, double hit_share)
{
	bool is_valid = hit_share >= HIT_SHARE_MIN;
	char what[96], key[64];

	snprintf(what, sizeof(what), "get %s", one->label);
	get_row(
	    &(struct cache_figure){one->key, what, 0, "ns", CACHE_NO_BAR, 0},
	    times->one, times->floor, 0, is_valid);
	snprintf(what, sizeof(what), "  in batches of %d, as a worker does",
	    CACHE_BATCH);
	snprintf(key, sizeof(key), "%s_batch", one->key);
	get_row(
	    &(struct cache_figure){key, what, 0, "ns",
		one->ns_max > 0 ? CACHE_AT_MOST : CACHE_NO_BAR, one->ns_max},
	    times->batch, times->floor, one->floor_max, is_valid);
	snprintf(key, sizeof(key), "%s_floor", one->key);
	cache_report(&(struct cache_figure){key, "  the floor, hash and memcpy",
	    cache_median(times->floor, cache_options.rounds), "ns",
	    CACHE_NO_BAR, 0});
	if (hit_share < 1)
		printf(
		    "    only %.2f %% of these were hits\n", hit_share * 100);
}

static void
get_case_run(const struct get_case *one)
{
	struct get_times times;
	double ns[CACHE_ROUNDS_MAX];
	uint32_t keys = cache_scaled(one->keys, 16), hits, batch_hits = 0;
	struct cache_draws draws =
	    cache_draws_new(keys, cache_scaled(one->ops, 64), 1);
	struct shm_cache *cache = cache_new(
	    cache_scaled(one->mib, 64) * CACHE_MIB, 1, one->value_bytes + 100);
	size_t array_bytes = (size_t)keys * one->value_bytes;
	char *array = malloc(array_bytes);

	if (array == NULL)
		err(EX_OSERR, "malloc");
	memset(array, 'x', array_bytes);
	shm_cache_enter(cache, 0);
	cache_fill(cache, keys, one->value_bytes);
	for (int i = 0; i < 3; i++) /* until hot keys are pure reads */
		(void)get_ns(cache, &draws, &hits);
	for (uint32_t i = 0; i < cache_options.rounds; i++) {
		times.floor[i] =
		    floor_ns(cache, &draws, array, one->value_bytes);
		times.one[i] = get_ns(cache, &draws, &hits);
		times.batch[i] = batch_ns(cache, &draws, &batch_hits);
	}
	if (batch_hits < hits)
		hits = batch_hits;
	get_report(one, &times, (double)hits / draws.count);
	if (strcmp(one->key, "get_400_20k") == 0) {
		for (uint32_t i = 0; i < cache_options.rounds; i++)
			ns[i] = miss_ns(cache, &draws, keys);
		cache_report(
		    &(struct cache_figure){"miss", "miss, a cache of 20 k keys",
			cache_median(ns, cache_options.rounds), "ns",
			CACHE_NO_BAR, 0});
	}
	free(array);
	cache_draws_free(&draws);
	shm_cache_free(&cache);
}

void
cache_bench_get(void)
{
	for (size_t i = 0; i < SHM_ARRAY_LEN(get_cases); i++)
		get_case_run(&get_cases[i]);
}

/* ---- put */

static uint64_t
wall_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/*
 * The misses of a Zipf trace are stored; each put is timed by itself, in wall
 * time (the CPU clock costs more than a put).  Returns how many.
 */
static uint32_t
put_times(struct shm_cache *cache, const struct cache_draws *draws,
    uint32_t *ns, uint32_t max)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < draws->count && count < max; i++) {
		struct shm_cache_key key = {.data = draws->text[i],
		    .len = CACHE_KEY_BYTES,
		    .cls = SHM_CACHE_BOOK};
		struct shm_cache_lease lease;
		struct shm_cache_view view;
		enum shm_cache_stored stored;
		uint64_t begin;

		shm_cache_key_hash(cache, &key);
		if (shm_cache_get(cache, &key, CACHE_NOW_US, &lease, &view) ==
		    SHM_CACHE_HIT)
			continue;
		begin = wall_ns();
		stored = cache_put_missed(cache, &key, &lease, PUT_VALUE);
		begin = wall_ns() - begin;
		(void)stored; /* giving up takes its time too */
		ns[count++] = begin < UINT32_MAX ? (uint32_t)begin : UINT32_MAX;
	}
	return count;
}

static int
compare_u32(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static const struct {
	const char *key, *what;
	double share, us_max;
} put_quantiles[] = {
    {"put_p50", "put 400 B, full cache, p50", .5, 1},
    {"put_p99", "  p99", .99, 0},
    {"put_p999", "  p99.9", .999, 20},
    {"put_max", "  the worst (wall time: an interruption counts)", 1, 0},
};

void
cache_bench_put(void)
{
	double us[SHM_ARRAY_LEN(put_quantiles)][CACHE_ROUNDS_MAX];
	uint32_t objects = cache_scaled(PUT_OBJECTS, 20000), count,
		 rounds = cache_options.rounds;
	struct shm_cache *cache =
	    cache_new((uint64_t)(64 * CACHE_MIB * cache_options.scale), 1, 0);
	uint32_t *ns = calloc(objects, sizeof(*ns));

	if (ns == NULL)
		err(EX_OSERR, "malloc");
	shm_cache_enter(cache, 0);
	for (uint32_t i = 0; i <= rounds; i++) { /* the first one fills it */
		struct cache_draws draws =
		    cache_draws_new(objects, objects, i + 1);

		count = put_times(cache, &draws, ns, objects);
		cache_draws_free(&draws);
		if (i == 0 || count == 0)
			continue;
		qsort(ns, count, sizeof(*ns), compare_u32);
		for (size_t q = 0; q < SHM_ARRAY_LEN(put_quantiles); q++)
			us[q][i - 1] = ns[(uint32_t)((count - 1) *
						     put_quantiles[q].share)] /
				       1e3;
	}
	for (size_t q = 0; q < SHM_ARRAY_LEN(put_quantiles); q++)
		cache_report(&(struct cache_figure){put_quantiles[q].key,
		    put_quantiles[q].what,
		    count == 0 ? NAN : cache_median(us[q], rounds), "us",
		    put_quantiles[q].us_max > 0 ? CACHE_AT_MOST : CACHE_NO_BAR,
		    put_quantiles[q].us_max});
	free(ns);
	shm_cache_free(&cache);
}

/* ---- a mixture, one process and two */

/* What the processes of a round share. */
struct mix {
	_Atomic uint32_t ready;
	_Atomic uint32_t go;
	double mops[2]; /* per second of CPU */
	double floor_mops[2];
};

static double
mix_mops(struct shm_cache *cache, const struct cache_draws *draws, uint32_t at)
{
	double begin = cache_cpu_ns();
	uint64_t end = wall_ns() +
		       (uint64_t)(MIX_SECONDS * cache_options.scale * 1e9),
		 ops = 0;

	do {
		for (uint32_t i = 0; i < MIX_CHUNK; i++, ops++) {
			const char *text = draws->text[at];

			at = at + 1 < draws->count ? at + 1 : 0;
			if (ops % MIX_PUTS_IN != 0)
				(void)cache_get(cache, text, out);
			else if (cache_put(cache, text, MIX_VALUE) !=
				 SHM_CACHE_STORED)
				continue; /* the other one's put was first */
		}
	} while (wall_ns() < end);
	return (double)ops / (cache_cpu_ns() - begin) * 1e3;
}

/* In a child: be slot number, wait for the others, work. */
static void
mix_child(struct shm_cache *cache, struct mix *mix,
    const struct cache_draws *draws, const char *array, uint32_t number)
{
	cache_pin(number);
	shm_cache_enter(cache, number);
	if (array == NULL) {
		cache_fill(cache, cache_scaled(MIX_KEYS, 100), MIX_VALUE);
		_exit(0);
	}
	atomic_fetch_add(&mix->ready, 1);
	while (!atomic_load(&mix->go))
		usleep(100);
	mix->mops[number] = mix_mops(cache, draws, draws->count / 2 * number);
	/* Two of the machine's processors may be one and a half. */
	atomic_fetch_sub(&mix->ready, 1);
	while (atomic_load(&mix->ready) > 0)
		usleep(100);
	mix->floor_mops[number] =
	    1e3 / floor_ns(cache, draws, array, MIX_VALUE);
	_exit(0);
}

static double
mix_mean(const double of[2])
{
	return (of[0] + of[1]) / 2;
}

/* The dead are swept as the master would: the slots are used again. */
static void
mix_round(struct shm_cache *cache, struct mix *mix,
    const struct cache_draws *draws, const char *array, uint32_t first,
    uint32_t processes)
{
	static struct shm_cache_debt debt;
	pid_t pid[2];
	int status;

	atomic_store(&mix->ready, 0);
	atomic_store(&mix->go, 0);
	for (uint32_t i = first; i < first + processes; i++) {
		pid[i] = fork();
		if (pid[i] == -1)
			err(EX_OSERR, "fork");
		if (pid[i] == 0)
			mix_child(cache, mix, draws, array, i);
	}
	while (array != NULL && atomic_load(&mix->ready) < processes)
		usleep(100);
	atomic_store(&mix->go, 1);
	for (uint32_t i = first; i < first + processes; i++) {
		if (waitpid(pid[i], &status, 0) != pid[i] || status != 0)
			errx(EX_SOFTWARE, "a process of the mixture failed");
		shm_cache_sweep(cache, i, CACHE_NOW_US, &debt);
	}
}

static void
mix_report(const double one[CACHE_ROUNDS_MAX],
    const double two[CACHE_ROUNDS_MAX], const double kept[CACHE_ROUNDS_MAX],
    const double floor_kept[CACHE_ROUNDS_MAX])
{
	uint32_t rounds = cache_options.rounds;

	cache_report(
	    &(struct cache_figure){"mix_1", "95 % get, 5 % put, one process",
		cache_median(one, rounds), "Mops/s", CACHE_NO_BAR, 0});
	cache_report(&(struct cache_figure){"mix_2",
	    "  two processes, each, per second of CPU",
	    cache_median(two, rounds), "Mops/s", CACHE_AT_LEAST, 5});
	cache_report(&(struct cache_figure){"mix_kept", "  two over one",
	    cache_median(kept, rounds), "times", CACHE_AT_LEAST, .9});
	cache_report(&(struct cache_figure){"mix_floor_kept",
	    "  the same of the floor, which shares nothing",
	    cache_median(floor_kept, rounds), "times", CACHE_NO_BAR, 0});
}

void
cache_bench_mix(void)
{
	double one[CACHE_ROUNDS_MAX], two[CACHE_ROUNDS_MAX],
	    kept[CACHE_ROUNDS_MAX], floor_kept[CACHE_ROUNDS_MAX], floor;
	uint32_t keys = cache_scaled(MIX_KEYS, 100);
	struct cache_draws draws =
	    cache_draws_new(keys, cache_scaled(1 << 20, 64), 1);
	struct shm_cache *cache =
	    cache_new((uint64_t)(64 * CACHE_MIB * cache_options.scale), 2, 0);
	char *array = malloc((size_t)keys * MIX_VALUE);
	struct mix *mix = mmap(NULL, sizeof(*mix), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (array == NULL || mix == MAP_FAILED)
		err(EX_OSERR, "memory");
	memset(array, 'x', (size_t)keys * MIX_VALUE);
	mix_round(cache, mix, &draws, NULL, 0, 1); /* fill it */
	for (uint32_t i = 0; i < cache_options.rounds; i++) {
		/* Alone on each processor, for they need not be equally fast:
		 * what shares a core with them is not ours to know. */
		mix_round(cache, mix, &draws, array, 0, 1);
		mix_round(cache, mix, &draws, array, 1, 1);
		one[i] = mix_mean(mix->mops);
		floor = mix_mean(mix->floor_mops);
		mix_round(cache, mix, &draws, array, 0, 2);
		two[i] = mix_mean(mix->mops);
		kept[i] = two[i] / one[i];
		floor_kept[i] = mix_mean(mix->floor_mops) / floor;
	}
	mix_report(one, two, kept, floor_kept);
	(void)munmap(mix, sizeof(*mix));
	free(array);
	cache_draws_free(&draws);
	shm_cache_free(&cache);
}
