/*
 * Goal: no data race: whatever two workers touch together is an atomic word,
 * in an order that the thread sanitizer can follow.
 * Method: built with -fsanitize=thread by cache_threads.sh.  Threads play
 * workers on one mapping, each with a view of its own, in the small world of
 * cache_world.h; another thread plays ops and flushes, suspects and looks.  The
 * sanitizer ends the program at the first race; the oracle counts the rest.
 * With -DCACHE_RACE there is one, to see it found.
 */
#include "config.h"

#include <pthread.h>

#include "shm/shm_cache_part.h"
#include "tests/cache_world.h"

#define WORKERS	  3
#define ACTS	  60000
#define LOOK_ACTS 400

static struct world *world;
static struct shm_cache *master;

static bool
dumped(void *owner, const struct shm_cache_dumped *entry)
{
	*(uint64_t *)owner += entry->key_len;
	return true;
}

static void *
work(void *argument)
{
	struct shm_cache view = *master;
	struct world_actor actor = {.world = world, .cache = &view};
	uint32_t slot = *(const uint32_t *)argument;

	actor.out = malloc(WORLD_HEAD + WORLD_BODY_MAX);
	actor.random = slot * 7919 + 1;
	shm_cache_enter(&view, slot);
	for (uint32_t i = 0; i < ACTS; i++)
		world_act(&actor);
	free(actor.out);
	return NULL;
}

#ifdef CACHE_RACE
static uint64_t
race(const struct shm_cache *cache)
{
	const uint64_t *word = (const uint64_t *)(const void *)cache->data;
	uint64_t sum = 0;

	for (uint64_t i = 0; i < cache->data_bytes / sizeof(*word); i++)
		sum += word[i];
	return sum;
}
#else
#define race(cache) ((void)(cache), 0)
#endif

static void *
look(void *argument)
{
	struct shm_cache view = *master;
	struct shm_cache_stats stats;
	uint64_t sum = 0;
	char why[256];

	(void)argument;
	shm_cache_enter(&view, SHM_CACHE_SLOT_OTHER);
	for (uint32_t i = 0; i < LOOK_ACTS; i++) {
		shm_cache_stats(&view, &stats);
		if (shm_cache_audit(&view, false, why, sizeof(why)) != 0) {
			fprintf(stderr, "audit: %s\n", why);
			abort();
		}
		if (i % 20 == 0)
			shm_cache_dump(&view, shm_clock_us(), dumped, &sum);
		if (i % 50 == 0)
			shm_cache_suspect(&view);
		sum += race(&view);
		if (i % 90 == 0)
			shm_cache_flush(&view, SHM_CACHE_BOOK);
	}
	return NULL;
}

int
main(void)
{
	const struct shm_cache_options options = {
	    .bytes = 2u << 20, .slots_count = WORKERS, .seed = 5};
	const struct shm_cache_policy policy = {
	    .stale_us = 1000, .error_us = 1000, .linger_us = 1000};
	uint32_t slot[WORKERS];
	pthread_t thread[WORKERS + 1];
	char why[256] = "";

	world = world_new();
	master = shm_cache_new(&options);
	SHM_ASSERT(master != NULL);
	shm_cache_set_policy(master, &policy);
	for (uint32_t i = 0; i < WORKERS; i++) {
		slot[i] = i;
		SHM_ASSERT(
		    pthread_create(&thread[i], NULL, work, &slot[i]) == 0);
	}
	SHM_ASSERT(pthread_create(&thread[WORKERS], NULL, look, NULL) == 0);
	for (uint32_t i = 0; i <= WORKERS; i++)
		pthread_join(thread[i], NULL);
	SHM_ASSERT(shm_cache_audit(master, false, why, sizeof(why)) == 0);
	printf("# %llu hits, %llu stored, %llu writes, %llu corrupt, "
	       "%llu stale\n",
	    (unsigned long long)world->count[WORLD_HITS],
	    (unsigned long long)world->count[WORLD_STORED],
	    (unsigned long long)world->count[WORLD_WRITES],
	    (unsigned long long)world->corrupt,
	    (unsigned long long)world->stale);
	if (world->corrupt + world->stale > 0)
		printf("# %s\n", world->first);
	shm_cache_free(&master);
	return world->corrupt + world->stale > 0 ||
	       world->count[WORLD_HITS] < 1000 ||
	       world->count[WORLD_STORED] < 100;
}
