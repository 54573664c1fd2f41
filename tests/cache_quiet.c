/*
 * For cache_symbols.sh: between two writes to a descriptor that is not open
 * this program gets, copies, puts, invalidates and writes under intents, and
 * strace(1) shows what the kernel heard of it.
 */
#include "config.h"

#include <unistd.h>

#include "shm/shm_cache_part.h"
#include "tests/cache_world.h"

int
main(void)
{
	static char out[WORLD_HEAD + WORLD_BODY_MAX];
	const struct shm_cache_options options = {
	    .bytes = SHM_CACHE_BYTES_MIN, .slots_count = 1, .seed = 5};
	const struct shm_cache_policy policy = {.linger_us = 1000};
	struct world_actor actor = {
	    .world = world_new(), .random = 9, .out = out};
	struct shm_cache_flight none = {0};
	struct shm_cache_lease lease;
	struct shm_cache_view view;
	struct shm_cache_key key;
	uint64_t hits = 0;
	char text[32];

	actor.cache = shm_cache_new(&options);
	SHM_ASSERT(actor.cache != NULL);
	shm_cache_set_policy(actor.cache, &policy);
	shm_cache_enter(actor.cache, 0);
	SHM_ASSERT(write(-1, "begin", 5) == -1);
	for (uint32_t i = 0; i < 50000; i++) {
		uint32_t book = world_book(&actor);

		world_key(actor.cache, book, text, &key);
		if (shm_cache_get(actor.cache, &key, i, &lease, &view) !=
		    SHM_CACHE_HIT)
			(void)world_store(&actor, &key, book, 1, &lease, &none);
		else if (shm_cache_copy(
			     actor.cache, &view, 0, view.value_bytes, out))
			hits++;
		if (i % 50 == 0)
			shm_cache_invalidate(actor.cache, key.hash);
		if (i % 70 == 0)
			world_write(&actor, book);
		if (i % 90 == 0)
			(void)shm_cache_intent_tick(actor.cache, i);
	}
	SHM_ASSERT(write(-1, "end", 3) == -1);
	printf("%llu hits\n", (unsigned long long)hits);
	return hits < 1000;
}
