/*
 * Goal: no bytes in the shared memory, whoever wrote them, make a process read
 * or write outside of it, or stay in a call.
 * Method: the mapping is moved between two pages that nobody may touch.  Then
 * index, segments, in-flight places, intents and data are overwritten: at
 * random, with all ones, and with words that look right but for one bit.  A
 * child makes every call on it; what it is told does not matter, that it comes
 * back does.  The header is left alone: it is checked when it is mapped, and
 * each process works with its own copy of it.
 */
#include "config.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/shm_cache_part.h"
#include "tests/cache_world.h"

#define ROUNDS	    60
#define GUARD_BYTES (UINT64_C(16) << 20)

static uint64_t dice = 88172645463325252ULL;

static uint64_t
roll(void)
{
	dice ^= dice << 13;
	dice ^= dice >> 7;
	dice ^= dice << 17;
	return dice;
}

/* Every pointer of the handle moves with the mapping. */
static void
move(struct shm_cache *cache, char *to)
{
	char *from = (char *)cache->head;
	ptrdiff_t by = to - from;

#define MOVE(field) (cache->field = (void *)((char *)(void *)cache->field + by))
	MOVE(head);
	MOVE(slot);
	MOVE(intent);
	MOVE(open);
	MOVE(place);
	MOVE(word);
	MOVE(segment);
	MOVE(bucket);
	MOVE(ghost);
	MOVE(data);
	if (cache->counters != NULL)
		MOVE(counters);
#undef MOVE
}

static struct shm_cache *
guarded_new(void)
{
	const struct shm_cache_options options = {
	    .bytes = SHM_CACHE_BYTES_MIN, .slots_count = 2, .seed = 3};
	struct shm_cache *cache = shm_cache_new(&options);
	uint64_t bytes;
	char *room, *to;

	assert_non_null(cache);
	bytes = (cache->head->map_bytes + 4095) & ~UINT64_C(4095);
	room = mmap(NULL, bytes + 2 * GUARD_BYTES, PROT_NONE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(room != MAP_FAILED);
	to = mremap(cache->head, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED,
	    room + GUARD_BYTES);
	assert_true(to == room + GUARD_BYTES);
	/* The pages between the region's end and the guard belong to it. */
	move(cache, to);
	return cache;
}

/* Fill it with real entries first: hostile bytes are worst beside good ones. */
static void
fill(struct world_actor *actor)
{
	for (uint32_t i = 0; i < 4000; i++)
		world_read(actor, i % WORLD_BOOKS);
}

enum hostility {
	HOSTILE_RANDOM,
	HOSTILE_ONES,
	HOSTILE_BIT,
	HOSTILE_LENGTHS,
	HOSTILITIES,
};

static void
spoil_word(uint64_t *word, enum hostility how)
{
	switch (how) {
	case HOSTILE_RANDOM:
		*word = roll();
		return;
	case HOSTILE_ONES:
		*word = UINT64_MAX;
		return;
	case HOSTILE_BIT:
		*word ^= UINT64_C(1) << roll() % 64;
		return;
	case HOSTILE_LENGTHS: /* the parts that hold lengths and offsets */
		*word |= roll() << 32;
		return;
	case HOSTILITIES:
		return;
	}
}

static void
spoil(void *region, uint64_t bytes, uint32_t one_in, enum hostility how)
{
	uint64_t *word = region;

	for (uint64_t i = 0; i < bytes / sizeof(*word); i++)
		if (roll() % one_in == 0)
			spoil_word(&word[i], how);
}

static void
spoil_all(struct shm_cache *cache, uint32_t one_in, enum hostility how)
{
	char *end = (char *)cache->head + cache->head->map_bytes;

	spoil(cache->intent,
	    sizeof(struct shm_cache_intent) * SHM_CACHE_INTENTS_MAX *
		cache->head->slots_count,
	    one_in, how);
	spoil(cache->place, sizeof(struct shm_cache_place) * SHM_CACHE_FLIGHTS,
	    one_in, how);
	spoil(
	    cache->word, sizeof(uint64_t) * cache->segments_count, one_in, how);
	spoil(cache->segment,
	    sizeof(struct shm_cache_segment) * cache->segments_count, one_in,
	    how);
	spoil(cache->bucket,
	    sizeof(struct shm_cache_bucket) * cache->head->buckets_count,
	    one_in, how);
	spoil(cache->ghost, sizeof(uint32_t) * cache->head->ghost_count, one_in,
	    how);
	spoil(cache->data, (uint64_t)(end - (char *)cache->data), one_in, how);
}

static bool
dumped(void *owner, const struct shm_cache_dumped *entry)
{
	uint64_t *sum = owner;

	SHM_ASSERT(entry->key_len <= SHM_CACHE_KEY_MAX);
	for (uint32_t i = 0; i < entry->key_len; i++)
		*sum += (unsigned char)entry->key[i];
	return true;
}

static enum shm_cache_found
look_up(struct world_actor *actor, uint32_t book, struct shm_cache_key *key,
    char text[32], struct shm_cache_lease *lease)
{
	static char large[2 << 20];
	struct shm_cache_view view;
	enum shm_cache_found found;

	world_key(actor->cache, book, text, key);
	shm_cache_prefetch_bucket(actor->cache, key->hash);
	shm_cache_prefetch_entry(actor->cache, key->hash);
	found = shm_cache_get(actor->cache, key, shm_clock_us(), lease, &view);
	if (found == SHM_CACHE_MISS)
		return found;
	SHM_ASSERT(view.value_bytes <= sizeof(large));
	if (!shm_cache_copy(actor->cache, &view, 0, view.value_bytes, large))
		return SHM_CACHE_MISS;
	return found;
}

/* Every call, in a child that the alarm ends if it does not come back.  First
 * all is read, for what is written replaces what is hostile. */
static void
use_all(struct world_actor *actor)
{
	static struct shm_cache_debt debt;
	struct shm_cache_stats stats;
	struct shm_cache_lease lease;
	struct shm_cache_key key;
	char text[32], why[256];
	uint64_t sum = 0;

	for (uint32_t i = 0; i < WORLD_BOOKS; i++)
		sum += look_up(actor, i, &key, text, &lease) == SHM_CACHE_HIT;
	for (uint32_t i = 0; i < 3000; i++) {
		if (look_up(actor, i, &key, text, &lease) == SHM_CACHE_MISS &&
		    world_store(actor, &key, i, i, &lease, NULL) ==
			SHM_CACHE_STORED)
			sum++;
		world_load(actor, &key, i, &lease);
		if (i % 8 == 0)
			world_write(actor, i);
	}
	(void)shm_cache_intent_tick(actor->cache, UINT64_MAX);
	shm_cache_stats(actor->cache, &stats);
	shm_cache_dump(actor->cache, shm_clock_us(), dumped, &sum);
	(void)shm_cache_audit(actor->cache, true, why, sizeof(why));
	shm_cache_sweep(actor->cache, 1, shm_clock_us(), &debt);
	SHM_ASSERT(debt.count <= SHM_CACHE_INTENTS_MAX * 2);
	shm_cache_settle(actor->cache, &debt);
}

static void
hostile_round(enum hostility how, uint32_t one_in)
{
	static char out[WORLD_HEAD + WORLD_BODY_MAX];
	struct world_actor actor = {
	    .world = world_new(), .random = roll() | 1, .out = out};
	uint64_t bytes;
	int status;
	pid_t pid;

	actor.cache = guarded_new();
	shm_cache_enter(actor.cache, 0);
	fill(&actor);
	spoil_all(actor.cache, one_in, how);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		alarm(60);
		use_all(&actor);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (status != 0)
		fail_msg("kind %d, one word in %u: wait status %d", (int)how,
		    one_in, status);
	bytes = (actor.cache->head->map_bytes + 4095) & ~UINT64_C(4095);
	munmap(
	    (char *)actor.cache->head - GUARD_BYTES, bytes + 2 * GUARD_BYTES);
	munmap(actor.world, sizeof(*actor.world));
	/* The view itself: its mapping is gone already. */
	for (uint32_t i = 0; i < SHM_CACHE_SLOTS_MAX; i++)
		if (actor.cache->wake_fd[i] >= 0)
			close(actor.cache->wake_fd[i]);
	close(actor.cache->fd);
	free(actor.cache);
}

static void
hostile_bytes_lead_nobody_outside_the_map(void **state)
{
	static const uint32_t often[] = {1, 3, 20, 500};

	(void)state;
	for (uint32_t i = 0; i < ROUNDS; i++)
		hostile_round((enum hostility)(i % HOSTILITIES),
		    often[i / HOSTILITIES % SHM_ARRAY_LEN(often)]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(hostile_bytes_lead_nobody_outside_the_map),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
