/*
 * Goal: no sequence of operations makes the cache serve what it must not.
 * Method: the input is a program of operations for two workers and a master on
 * one small cache.  A reference keeps, for each key, the newest version that
 * was answered and the newest that the database has: every value served lies
 * between the two and has that version's bytes.  Workers "die" (are replaced
 * without a farewell) and are swept.  At the end the audit has to be quiet.
 */
#include "config.h"

#include "shm/shm_cache_part.h"
#include "tests/cache_world.h"

#define WORKERS	  2
#define ACTS_MAX  4000
#define HELD_MAX  4
#define FUZZ_KEYS 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a worker has in its hands between two operations. */
struct held {
	bool is_load;
	bool is_write;
	uint32_t book;
	uint32_t version;
	struct shm_cache_lease lease;
	struct shm_cache_flight flight;
	int intent;
};

struct worker {
	struct shm_cache cache; /* a view of its own */
	struct world_actor actor;
	struct held held[HELD_MAX];
	char out[WORLD_HEAD + WORLD_BODY_MAX];
};

struct state {
	struct shm_cache *master;
	struct world *world;
	uint64_t now_us;
	struct worker worker[WORKERS];
	struct shm_cache_debt debt;
};

static void
worker_init(struct state *state, uint32_t slot)
{
	struct worker *worker = &state->worker[slot];

	*worker = (struct worker){.cache = *state->master};
	shm_cache_enter(&worker->cache, slot);
	worker->actor = (struct world_actor){.world = state->world,
	    .cache = &worker->cache,
	    .random = 1,
	    .out = worker->out};
}

static void
fuzz_get(struct state *state, struct worker *worker, struct held *held,
    uint32_t book)
{
	uint32_t least = state->world->answered[book];
	struct shm_cache_lease lease;
	struct shm_cache_view view;
	struct shm_cache_key key;
	enum shm_cache_found found;
	char text[32];

	world_key(&worker->cache, book, text, &key);
	found =
	    shm_cache_get(&worker->cache, &key, state->now_us, &lease, &view);
	if (found == SHM_CACHE_HIT || found == SHM_CACHE_STALE) {
		SHM_ASSERT(view.value_bytes <= sizeof(worker->out));
		/* Nobody else runs: nothing can have changed. */
		SHM_ASSERT(shm_cache_copy(
		    &worker->cache, &view, 0, view.value_bytes, worker->out));
		SHM_ASSERT(world_is_whole(worker->out, &view, book));
		SHM_ASSERT(view.row_version >= least);
		SHM_ASSERT(view.row_version <= state->world->committed[book]);
		world_tell(state->world, book, view.row_version);
		return;
	}
	if (held->is_load || held->is_write)
		return;
	*held = (struct held){.book = book, .lease = lease};
	switch (shm_cache_claim(&worker->cache, &key, state->now_us,
	    state->now_us + WORLD_CLAIM_US, &held->flight)) {
	case SHM_CACHE_CLAIM_OTHER:
		if (shm_cache_claim_wait(&worker->cache, &held->flight))
			world_add(&worker->actor, WORLD_WAITS);
		return;
	case SHM_CACHE_CLAIM_FAILED:
		return;
	case SHM_CACHE_CLAIM_MINE:
	case SHM_CACHE_CLAIM_ALONE:
		held->is_load = true;
		held->version = state->world->committed[book];
		world_tell(state->world, book, held->version);
		return;
	}
}

/* A load or a write that is under way comes to its end. */
static void
fuzz_end(
    struct state *state, struct worker *worker, struct held *held, uint8_t how)
{
	struct shm_cache_key key;
	enum shm_cache_stored stored;
	char text[32];

	world_key(&worker->cache, held->book, text, &key);
	if (held->is_load) {
		stored = world_store(&worker->actor, &key, held->book,
		    held->version, &held->lease, &held->flight);
		shm_cache_claim_end(&worker->cache, &held->flight, &key,
		    stored == SHM_CACHE_STORED
			? SHM_CACHE_ENDED_STORED
			: (enum shm_cache_ended)(how % 4),
		    state->now_us);
	} else if (held->is_write && how % 4 == 0) {
		shm_cache_intent_unknown(
		    &worker->cache, held->intent, state->now_us);
	} else if (held->is_write) {
		shm_cache_intent_close(&worker->cache, held->intent);
		world_tell(state->world, held->book, held->version);
	}
	*held = (struct held){0};
}

static void
fuzz_write(struct state *state, struct worker *worker, struct held *held,
    uint32_t book)
{
	struct shm_cache_key key;
	char text[32];

	if (held->is_load || held->is_write)
		return;
	world_key(&worker->cache, book, text, &key);
	held->intent = shm_cache_intent_open(&worker->cache, &key.hash, 1);
	if (held->intent < 0)
		return;
	held->is_write = true;
	held->book = book;
	held->version = ++state->world->committed[book];
}

static void
fuzz_die(struct state *state, uint32_t slot)
{
	shm_cache_settle(state->master, &state->debt);
	shm_cache_sweep(state->master, slot, state->now_us, &state->debt);
	worker_init(state, slot);
}

static void
fuzz_act(struct state *state, uint8_t op, uint8_t argument, uint8_t how)
{
	uint32_t slot = op >> 7;
	struct worker *worker = &state->worker[slot];
	struct held *held = &worker->held[how % HELD_MAX];
	uint32_t book = argument % FUZZ_KEYS;

	switch (op & 15) {
	case 0:
		fuzz_die(state, slot);
		return;
	case 1:
		state->now_us += (uint64_t)argument << (how % 24);
		return;
	case 2:
		(void)shm_cache_intent_tick(&worker->cache, state->now_us);
		return;
	case 3:
		shm_cache_flush(&worker->cache,
		    (enum shm_cache_class)(argument % SHM_CACHE_CLASSES));
		return;
	case 4:
		shm_cache_suspect(&worker->cache);
		return;
	case 5:
	case 6:
		fuzz_write(state, worker, held, book);
		return;
	case 7:
	case 8:
	case 9:
	case 10:
		if (held->is_load || held->is_write)
			fuzz_end(state, worker, held, argument);
		return;
	default:
		fuzz_get(state, worker, held, book);
		return;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct shm_cache_options options = {
	    .bytes = SHM_CACHE_BYTES_MIN, .slots_count = WORKERS, .seed = 11};
	const struct shm_cache_policy policy = {
	    .stale_us = 1000000, .error_us = 1000000, .linger_us = 1000};
	static struct state state;
	char why[256] = "";

	state.master = shm_cache_new(&options);
	SHM_ASSERT(state.master != NULL);
	shm_cache_set_policy(state.master, &policy);
	state.world = world_new();
	state.now_us = shm_clock_us();
	state.debt = (struct shm_cache_debt){0};
	for (uint32_t i = 0; i < WORKERS; i++)
		worker_init(&state, i);
	for (size_t i = 0; i + 3 <= size && i < (size_t)ACTS_MAX * 3; i += 3)
		fuzz_act(&state, data[i], data[i + 1], data[i + 2]);
	for (uint32_t i = 0; i < WORKERS; i++)
		fuzz_die(&state, i);
	shm_cache_settle(state.master, &state.debt);
	if (shm_cache_audit(state.master, true, why, sizeof(why)) != 0) {
		fprintf(stderr, "audit: %s\n", why);
		abort();
	}
	munmap(state.world, sizeof(*state.world));
	shm_cache_free(&state.master);
	return 0;
}
