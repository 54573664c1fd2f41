/*
 * What fits and what is kept: bytes beside the keys and values of a full
 * cache, and the share of a Zipf trace that is answered from a cache that
 * holds 1 % and 10 % of the objects.
 *
 * The ideal keeps the k most popular objects for ever and is computed from the
 * law itself.  LRU over k objects is a reference everybody knows.  With several
 * workers a token goes round, and who has it takes the next requests of the
 * trace: the same requests in the same order as with one.
 */
#include "config.h"

#include <sys/mman.h>
#include <sys/wait.h>

#include <err.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "bench/cache.h"

#define OBJECTS	      1000000
#define VALUE_BYTES   400
#define WARM	      4 /* requests per object before and while counting */
#define COUNTED	      4
#define WORKERS_MAX   4
#define TOKEN_STEPS   64 /* requests until the token is passed on */
#define SEGMENTS_WANT 256

/* ---- overhead */

struct held {
	uint64_t entries;
	uint64_t bytes; /* of keys and values */
};

static bool
held_add(void *owner, const struct shm_cache_dumped *dumped)
{
	struct held *held = owner;

	if (dumped->is_served) {
		held->entries++;
		held->bytes += dumped->key_len + dumped->value_bytes;
	}
	return true;
}

static struct held
held_count(const struct shm_cache *cache)
{
	struct held held = {0};

	shm_cache_dump(cache, CACHE_NOW_US, held_add, &held);
	return held;
}

/* Requests of draws [from, to): look up, store what is missing. */
static uint64_t
serve(struct shm_cache *cache, const struct cache_draws *draws, uint32_t from,
    uint32_t to)
{
	static char out[SHM_CACHE_VALUE_MAX];
	uint64_t hits = 0;

	for (uint32_t i = from; i < to; i++) {
		if (cache_get(cache, draws->text[i], out))
			hits++;
		else if (cache_put(cache, draws->text[i], VALUE_BYTES) !=
			 SHM_CACHE_STORED)
			continue; /* a later miss */
	}
	return hits;
}

void
cache_bench_overhead(void)
{
	uint32_t objects = cache_scaled(OBJECTS, 20000);
	struct cache_draws draws = cache_draws_new(objects, objects * 2, 1);
	struct shm_cache *cache =
	    cache_new((uint64_t)(64 * CACHE_MIB * cache_options.scale), 1, 0);
	struct shm_cache_stats stats;
	struct held held;

	shm_cache_enter(cache, 0);
	(void)serve(cache, &draws, 0, draws.count);
	held = held_count(cache);
	shm_cache_stats(cache, &stats);
	cache_report(&(struct cache_figure){"overhead",
	    "bytes per entry beside key and value (400 B), full",
	    held.entries == 0
		? NAN
		: (double)(stats.map_bytes - held.bytes) / (double)held.entries,
	    "B", CACHE_AT_MOST, 104});
	cache_report(&(struct cache_figure){"overhead_outside",
	    "  of it outside the data region",
	    held.entries == 0 ? NAN
			      : (double)(stats.map_bytes - stats.data_bytes) /
				    (double)held.entries,
	    "B", CACHE_NO_BAR, 0});
	cache_report(&(struct cache_figure){"overhead_entries",
	    "  entries held", (double)held.entries, "", CACHE_NO_BAR, 0});
	shm_cache_free(&cache);
	cache_draws_free(&draws);
}

/* ---- LRU, the reference */

struct lru {
	uint32_t *next,
	    *prev; /* of each object; [objects] is the list's head */
	bool *has;
	uint32_t held, held_max, head;
};

static void
lru_unlink(struct lru *lru, uint32_t object)
{
	lru->next[lru->prev[object]] = lru->next[object];
	lru->prev[lru->next[object]] = lru->prev[object];
}

static void
lru_push(struct lru *lru, uint32_t object)
{
	lru->next[object] = lru->next[lru->head];
	lru->prev[object] = lru->head;
	lru->prev[lru->next[object]] = object;
	lru->next[lru->head] = object;
}

static bool
lru_get(struct lru *lru, uint32_t object)
{
	uint32_t last = lru->prev[lru->head];

	if (lru->has[object]) {
		lru_unlink(lru, object);
		lru_push(lru, object);
		return true;
	}
	if (lru->held == lru->held_max) {
		lru->has[last] = false;
		lru_unlink(lru, last);
	} else {
		lru->held++;
	}
	lru->has[object] = true;
	lru_push(lru, object);
	return false;
}

static double
lru_ratio(const struct cache_draws *draws, uint32_t objects, uint32_t kept,
    uint32_t warm)
{
	struct lru lru = {.next = calloc(objects + 1, sizeof(*lru.next)),
	    .prev = calloc(objects + 1, sizeof(*lru.prev)),
	    .has = calloc(objects, sizeof(*lru.has)),
	    .held_max = kept,
	    .head = objects};
	uint64_t hits = 0;

	if (lru.next == NULL || lru.prev == NULL || lru.has == NULL)
		err(EX_OSERR, "malloc");
	lru.next[objects] = lru.prev[objects] = objects;
	for (uint32_t i = 0; i < draws->count; i++)
		hits += lru_get(&lru, draws->number[i]) && i >= warm;
	free(lru.next);
	free(lru.prev);
	free(lru.has);
	return (double)hits / (draws->count - warm);
}

/* ---- the cache, one worker or several */

struct trace {
	const struct cache_draws *draws;
	uint32_t warm;
	int token[WORKERS_MAX][2]; /* a pipe to each */
	uint32_t workers;
	struct shared {
		_Atomic uint32_t at; /* the next request */
		_Atomic uint64_t hits;
	} * shared;
};

/* The token's value says nothing; having it does. */
static void
trace_worker(struct shm_cache *cache, struct trace *trace, uint32_t number)
{
	struct shared *shared = trace->shared;
	const uint32_t count = trace->draws->count;
	uint32_t at, end;
	uint64_t hits;
	char token;

	shm_cache_enter(cache, number);
	for (;;) {
		if (read(trace->token[number][0], &token, 1) != 1)
			_exit(EX_SOFTWARE);
		at = atomic_load(&shared->at);
		end = count - at < TOKEN_STEPS ? count : at + TOKEN_STEPS;
		if (at < trace->warm && end > trace->warm)
			end = trace->warm;
		hits = serve(cache, trace->draws, at, end);
		if (at >= trace->warm)
			atomic_fetch_add(&shared->hits, hits);
		atomic_store(&shared->at, end);
		if (write(trace->token[(number + 1) % trace->workers][1],
			&token, 1) != 1)
			_exit(EX_SOFTWARE);
		if (at == count)
			_exit(0);
	}
}

static void
trace_run(struct shm_cache *cache, struct trace *trace)
{
	pid_t pid[WORKERS_MAX];
	int status;

	for (uint32_t i = 0; i < trace->workers; i++)
		if (pipe(trace->token[i]) == -1)
			err(EX_OSERR, "pipe");
	for (uint32_t i = 0; i < trace->workers; i++) {
		pid[i] = fork();
		if (pid[i] == -1)
			err(EX_OSERR, "fork");
		if (pid[i] == 0)
			trace_worker(cache, trace, i);
	}
	if (write(trace->token[0][1], "t", 1) != 1)
		err(EX_OSERR, "write");
	for (uint32_t i = 0; i < trace->workers; i++)
		if (waitpid(pid[i], &status, 0) != pid[i] || status != 0)
			errx(EX_SOFTWARE, "a worker of the trace failed");
	for (uint32_t i = 0; i < trace->workers; i++) {
		(void)close(trace->token[i][0]);
		(void)close(trace->token[i][1]);
	}
}

/* Bytes of the data region that an entry takes, found by half filling one. */
static double
entry_bytes(void)
{
	const uint32_t count = 60000;
	struct shm_cache *cache = cache_new(64 * CACHE_MIB, 1, 0);
	struct shm_cache_stats stats;
	double bytes;

	shm_cache_enter(cache, 0);
	cache_fill(cache, count, VALUE_BYTES);
	shm_cache_stats(cache, &stats);
	bytes = (double)stats.used_bytes / count;
	shm_cache_free(&cache);
	return bytes > VALUE_BYTES ? bytes : VALUE_BYTES + 64;
}

/* Hits of all counted requests; *is_judged: with as many segments as the bar
 * asks for. */
static double
cache_ratio(const struct cache_draws *draws, uint32_t warm, uint64_t bytes,
    uint32_t workers, bool *is_judged)
{
	struct shm_cache *cache = cache_new(bytes, workers, 0);
	struct trace trace = {.draws = draws, .warm = warm, .workers = workers};
	struct shm_cache_stats stats;
	double ratio;

	trace.shared = mmap(NULL, sizeof(*trace.shared), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (trace.shared == MAP_FAILED)
		err(EX_OSERR, "memory");
	trace_run(cache, &trace);
	ratio = (double)trace.shared->hits / (draws->count - warm);
	shm_cache_stats(cache, &stats);
	*is_judged = stats.segments_count >= SEGMENTS_WANT;
	(void)munmap(trace.shared, sizeof(*trace.shared));
	shm_cache_free(&cache);
	return ratio;
}

static const struct {
	const char *name, *label;
	double share;
	struct {
		uint32_t workers;
		double least; /* of the ideal */
	} run[2];
} ratio_cases[] = {
    {"1pc", "1 %", .01, {{1, .96}, {4, .95}}},
    {"10pc", "10 %", .1, {{1, .97}, {4, .96}}},
};

void
cache_bench_hit_ratio(void)
{
	uint32_t objects = cache_scaled(OBJECTS, 20000), warm = objects * WARM;
	struct cache_draws draws =
	    cache_draws_new(objects, warm + objects * COUNTED, 1);
	double each = entry_bytes(), ideal, ratio;
	char what[96], key[64];
	bool is_judged;

	for (size_t i = 0; i < SHM_ARRAY_LEN(ratio_cases); i++) {
		uint32_t kept = (uint32_t)(objects * ratio_cases[i].share);

		ideal = cache_zipf_share(objects, kept);
		snprintf(what, sizeof(what), "%s of the objects: ideal (top k)",
		    ratio_cases[i].label);
		snprintf(
		    key, sizeof(key), "ratio_%s_ideal", ratio_cases[i].name);
		cache_report(&(struct cache_figure){
		    key, what, ideal, "", CACHE_NO_BAR, 0});
		snprintf(key, sizeof(key), "ratio_%s_lru", ratio_cases[i].name);
		cache_report(
		    &(struct cache_figure){key, "  LRU, hits of all requests",
			lru_ratio(&draws, objects, kept, warm), "",
			CACHE_NO_BAR, 0});
		for (int n = 0; n < 2; n++) {
			uint32_t workers = ratio_cases[i].run[n].workers;

			ratio = cache_ratio(&draws, warm,
			    (uint64_t)(kept * each), workers, &is_judged);
			snprintf(what, sizeof(what),
			    "  the cache, %u worker%s, hits", workers,
			    workers == 1 ? "" : "s");
			snprintf(key, sizeof(key), "ratio_%s_%u",
			    ratio_cases[i].name, workers);
			cache_report(&(struct cache_figure){
			    key, what, ratio, "", CACHE_NO_BAR, 0});
			snprintf(key, sizeof(key), "ratio_%s_%u_of_ideal",
			    ratio_cases[i].name, workers);
			cache_report(&(struct cache_figure){key,
			    "    of the ideal", ratio / ideal, "times",
			    is_judged ? CACHE_AT_LEAST : CACHE_NO_BAR,
			    ratio_cases[i].run[n].least});
		}
	}
	cache_draws_free(&draws);
}
