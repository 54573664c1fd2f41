/*
 * A small world around the cache, for the tests that kill, stop and race what
 * uses it: books whose content follows from their number and version, a
 * database that is one word for each book, and the oracle of what was answered.
 *
 *	committed[i]  the newest version that the "database" has
 *	answered[i]   the newest version that some client was told of, by the
 *	              answer to a write or to a read
 *
 * A read that begins when answered[i] is v must not bring a version below v.
 */
#ifndef CACHE_WORLD_H
#define CACHE_WORLD_H

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shm/shm_cache.h"

#define WORLD_BOOKS    4096 /* more than the smallest cache holds */
#define WORLD_HEAD     64
#define WORLD_BODY_MAX 6000
#define WORLD_FRESH_US UINT64_C(3600000000)
#define WORLD_CLAIM_US UINT64_C(20000)

enum world_count {
	WORLD_HITS,
	WORLD_LOADS,
	WORLD_STORED,
	WORLD_WRITES,
	WORLD_WAITS,
	WORLD_STALLS, /* operations of more than 100 ms */
	WORLD_COUNTS,
};

struct world {
	_Atomic uint32_t committed[WORLD_BOOKS];
	_Atomic uint32_t answered[WORLD_BOOKS];
	_Atomic uint64_t corrupt;
	_Atomic uint64_t stale;
	_Atomic uint64_t count[WORLD_COUNTS];
	char first[256]; /* of the errors */
};

/* One process or thread in it. */
struct world_actor {
	struct world *world;
	struct shm_cache *cache;
	uint64_t random;
	char *out; /* WORLD_HEAD + WORLD_BODY_MAX */
};

static inline struct world *
world_new(void)
{
	struct world *world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (world == MAP_FAILED)
		abort();
	for (uint32_t i = 0; i < WORLD_BOOKS; i++)
		atomic_store(&world->committed[i], 1);
	return world;
}

static inline uint64_t
world_random(struct world_actor *actor)
{
	uint64_t x = actor->random;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return actor->random = x;
}

static inline uint64_t
world_mix(uint64_t book, uint32_t version)
{
	uint64_t x = book * 0x9e3779b97f4a7c15ULL + version;

	x = (x ^ (x >> 31)) * 0xbf58476d1ce4e5b9ULL;
	return x ^ (x >> 29);
}

/* Few books are large, so that sizes and segments' ends vary. */
static inline uint32_t
world_body_bytes(uint32_t book, uint32_t version)
{
	uint64_t mix = world_mix(book, version);

	return mix % 16 == 0 ? 1 + (uint32_t)(mix >> 8) % WORLD_BODY_MAX
			     : 100 + (uint32_t)(mix >> 8) % 500;
}

static inline void
world_fill(char *out, uint32_t bytes, uint32_t book, uint32_t version)
{
	uint64_t word = world_mix(book, version);

	for (uint32_t i = 0; i < bytes; i++)
		out[i] = (char)(word >> (i % 8 * 8)) ^ (char)(i / 8);
}

static inline void
world_key(const struct shm_cache *cache, uint32_t book, char text[32],
    struct shm_cache_key *key)
{
	*key = (struct shm_cache_key){.data = text, .cls = SHM_CACHE_BOOK};
	key->len = (uint32_t)snprintf(text, 32, "b97800%u", book);
	shm_cache_key_hash(cache, key);
}

static inline void
world_add(struct world_actor *actor, enum world_count count)
{
	atomic_fetch_add_explicit(
	    &actor->world->count[count], 1, memory_order_relaxed);
}

static inline void
world_wrong(struct world_actor *actor, _Atomic uint64_t *which,
    const char *what, uint32_t book, uint32_t got, uint32_t wanted)
{
	if (atomic_fetch_add(which, 1) == 0)
		snprintf(actor->world->first, sizeof(actor->world->first),
		    "%s: book %u, version %u, wanted %u", what, book, got,
		    wanted);
}

/* Is what was copied what book looked like at that version? */
static inline bool
world_is_whole(
    const char *out, const struct shm_cache_view *view, uint32_t book)
{
	static _Thread_local char want[WORLD_HEAD + WORLD_BODY_MAX];
	uint32_t bytes = world_body_bytes(book, view->row_version);

	if (view->head_bytes != WORLD_HEAD || view->id != book ||
	    view->status != 200 || view->value_bytes != WORLD_HEAD + bytes)
		return false;
	world_fill(want, WORLD_HEAD + bytes, book, view->row_version);
	return memcmp(out, want, WORLD_HEAD + bytes) == 0;
}

static inline void
world_tell(struct world *world, uint32_t book, uint32_t version)
{
	uint32_t known = atomic_load(&world->answered[book]);

	while (known < version && !atomic_compare_exchange_weak(
				      &world->answered[book], &known, version))
		continue;
}

static inline enum shm_cache_stored
world_store(struct world_actor *actor, const struct shm_cache_key *key,
    uint32_t book, uint32_t version, const struct shm_cache_lease *lease,
    const struct shm_cache_flight *flight)
{
	char bytes[WORLD_HEAD + WORLD_BODY_MAX];
	uint32_t body_bytes = world_body_bytes(book, version);
	struct shm_cache_value value = {
	    .id = book,
	    .row_version = version,
	    .modified_s = version,
	    .fresh_us = WORLD_FRESH_US,
	    .status = 200,
	    .cls = SHM_CACHE_BOOK,
	    .head = bytes,
	    .head_bytes = WORLD_HEAD,
	    .body = bytes + WORLD_HEAD,
	    .body_bytes = body_bytes,
	};

	world_fill(bytes, WORLD_HEAD + body_bytes, book, version);
	return shm_cache_put(
	    actor->cache, key, lease, &value, flight, shm_clock_us());
}

/* Load book from the "database" as a worker does. */
static inline void
world_load(struct world_actor *actor, const struct shm_cache_key *key,
    uint32_t book, const struct shm_cache_lease *lease)
{
	struct shm_cache_flight flight;
	uint64_t now_us = shm_clock_us();
	enum shm_cache_stored stored;
	enum shm_cache_ended ended;
	uint32_t version;

	switch (shm_cache_claim(
	    actor->cache, key, now_us, now_us + WORLD_CLAIM_US, &flight)) {
	case SHM_CACHE_CLAIM_OTHER:
		if (shm_cache_claim_wait(actor->cache, &flight))
			world_add(actor, WORLD_WAITS);
		return;
	case SHM_CACHE_CLAIM_FAILED:
		return;
	case SHM_CACHE_CLAIM_MINE:
	case SHM_CACHE_CLAIM_ALONE:
		break;
	}
	world_add(actor, WORLD_LOADS);
	version = atomic_load(&actor->world->committed[book]);
	world_tell(actor->world, book, version);
	stored = world_store(actor, key, book, version, lease, &flight);
	if (stored == SHM_CACHE_STORED)
		world_add(actor, WORLD_STORED);
	ended = stored == SHM_CACHE_STORED ? SHM_CACHE_ENDED_STORED
					   : SHM_CACHE_ENDED_NOTHING;
	shm_cache_claim_end(actor->cache, &flight, key, ended, shm_clock_us());
}

/* A client's GET: the oracle is asked first. */
static inline void
world_read(struct world_actor *actor, uint32_t book)
{
	uint32_t least = atomic_load(&actor->world->answered[book]);
	struct shm_cache_lease lease;
	struct shm_cache_view view;
	struct shm_cache_key key;
	char text[32];

	world_key(actor->cache, book, text, &key);
	switch (
	    shm_cache_get(actor->cache, &key, shm_clock_us(), &lease, &view)) {
	case SHM_CACHE_HIT:
	case SHM_CACHE_STALE:
		if (view.value_bytes > WORLD_HEAD + WORLD_BODY_MAX) {
			world_wrong(actor, &actor->world->corrupt, "size", book,
			    view.value_bytes, 0);
			return;
		}
		if (!shm_cache_copy(
			actor->cache, &view, 0, view.value_bytes, actor->out))
			return;
		world_add(actor, WORLD_HITS);
		if (!world_is_whole(actor->out, &view, book))
			world_wrong(actor, &actor->world->corrupt, "corrupt",
			    book, view.row_version, 0);
		if (view.row_version < least)
			world_wrong(actor, &actor->world->stale, "stale", book,
			    view.row_version, least);
		world_tell(actor->world, book, view.row_version);
		return;
	case SHM_CACHE_ERROR_ONLY:
	case SHM_CACHE_MISS:
		world_load(actor, &key, book, &lease);
		return;
	}
}

/* A client's PUT: intent, commit, invalidation, answer. */
static inline void
world_write(struct world_actor *actor, uint32_t book)
{
	struct shm_cache_key key;
	uint32_t version;
	char text[32];
	int intent;

	world_key(actor->cache, book, text, &key);
	intent = shm_cache_intent_open(actor->cache, &key.hash, 1);
	if (intent < 0)
		return; /* 503 */
	version = atomic_fetch_add(&actor->world->committed[book], 1) + 1;
	if (world_random(actor) % 64 == 0) {
		/* Nobody was told: any version may follow. */
		shm_cache_intent_unknown(actor->cache, intent, shm_clock_us());
		return;
	}
	shm_cache_intent_close(actor->cache, intent);
	world_tell(actor->world, book, version);
	world_add(actor, WORLD_WRITES);
}

/* Some books are asked for more than others. */
static inline uint32_t
world_book(struct world_actor *actor)
{
	uint64_t r = world_random(actor);

	return (uint32_t)(r % 4 == 0 ? (r >> 8) % 16 : (r >> 8) % WORLD_BOOKS);
}

static inline void
world_act(struct world_actor *actor)
{
	uint64_t start_us = shm_clock_us();
	uint32_t book = world_book(actor);

	switch (world_random(actor) % 32) {
	case 0:
	case 1:
		world_write(actor, book);
		break;
	case 2:
		(void)shm_cache_intent_tick(actor->cache, shm_clock_us());
		break;
	default:
		world_read(actor, book);
		break;
	}
	if (shm_clock_us() - start_us > 100000)
		world_add(actor, WORLD_STALLS);
}

#endif
