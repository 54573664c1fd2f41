/*
 * Goal: from before a write is sent until its outcome is known the cache says
 * nothing about its keys and the lists, and afterwards nothing older; what a
 * lost or dead writer left behind is invalidated at once and again when its
 * statement can no longer commit.
 * Method: several workers' views of one cache in this process, with hashes and
 * times made up, and the table of versions as the witness; then real entries;
 * then processes: one that is killed while it writes, and one that writes
 * while others read and compare what they get with what had been answered.
 */
#include "config.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/shm_cache_part.h"

#define WORKERS	   4
#define SECOND	   1000000ULL
#define NOW	   (1000 * SECOND)
#define LINGER	   (11 * SECOND)
#define WORD(n)	   ((uint64_t)(n) << 32)
#define BUCKET(n)  ((uint64_t)(n) << 20) /* of the 4096 of so small a cache */
#define STRIPE(n)  ((uint64_t)(n) << 62)
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static struct shm_cache *cache; /* the master's */
static struct shm_cache *worker[WORKERS];

static int
setup(void **state)
{
	const struct shm_cache_options options = {
	    .bytes = 4u << 20, .slots_count = WORKERS, .seed = 1};
	const struct shm_cache_policy policy = {
	    .stale_us = SECOND, .linger_us = LINGER};

	(void)state;
	cache = shm_cache_new(&options);
	if (cache == NULL)
		return -1;
	shm_cache_set_policy(cache, &policy);
	for (uint32_t i = 0; i < WORKERS; i++) {
		worker[i] = malloc(sizeof(*worker[i]));
		if (worker[i] == NULL)
			return -1;
		*worker[i] = *cache;
		shm_cache_enter(worker[i], i);
	}
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < WORKERS; i++)
		free(worker[i]);
	shm_cache_free(&cache);
	return 0;
}

static void
be_relaxed(struct shm_cache *view)
{
	view->policy.lists_relaxed = true;
}

static uint32_t
version(uint64_t hash)
{
	return atomic_load(shm_cache_version_of(cache, hash));
}

static uint32_t
lists_generation(void)
{
	return (
	    uint32_t)(atomic_load(&cache->head->generation[SHM_CACHE_LIST]) >>
		      32);
}

static int
begin(struct shm_cache *view, uint64_t hash)
{
	int intent = shm_cache_intent_open(view, &hash, 1);

	assert_int_not_equal(intent, -1);
	return intent;
}

static void
assert_audit_is_clean(void)
{
	char why[200] = "";

	if (shm_cache_intent_audit(cache, true, why, sizeof(why)) != 0)
		fail_msg("audit: %s", why);
}

/* What the master does when it has reaped a worker, as far as it is ours. */
static void
bury(uint32_t slot, struct shm_cache_debt *debt)
{
	atomic_fetch_add(&cache->slot[slot].incarnation, 1);
	shm_cache_intent_sweep(cache, slot, NOW, debt);
}

/* ---- open and close */

static void
a_key_and_the_lists_are_open_until_the_write_is_closed(void **state)
{
	uint64_t hash = WORD(17) | BUCKET(3);
	uint32_t before = version(hash), lists = lists_generation();
	int intent;

	(void)state;
	assert_false(shm_cache_is_open(cache, hash));
	intent = begin(worker[0], hash);
	assert_true(shm_cache_is_open(cache, hash));
	assert_false(shm_cache_is_open(cache, WORD(18) | BUCKET(3)));
	assert_true(atomic_load(&cache->head->lists_open) == 1);
	assert_int_equal(shm_cache_intent_count(cache), 1);
	assert_int_equal(version(hash), before);
	assert_audit_is_clean();

	shm_cache_intent_close(worker[0], intent);
	assert_false(shm_cache_is_open(cache, hash));
	assert_true(atomic_load(&cache->head->lists_open) == 0);
	assert_int_equal(shm_cache_intent_count(cache), 0);
	assert_int_equal(version(hash), before + 1);
	assert_int_equal(lists_generation(), lists + 1);
	assert_audit_is_clean();
}

/* Two keys: their stripes move once each, one stripe moves once. */
static void
a_write_touches_its_keys_and_no_others(void **state)
{
	static const struct {
		uint64_t hash[2];
		uint32_t count;
		uint32_t moves[2];
	} cases[] = {
	    {{WORD(1) | BUCKET(1), WORD(1) | BUCKET(1)}, 1, {1, 1}},
	    {{WORD(1) | BUCKET(1), WORD(1) | BUCKET(1)}, 2, {1, 1}},
	    {{WORD(1) | BUCKET(1), WORD(2) | BUCKET(2)}, 2, {1, 1}},
	    {{WORD(1) | BUCKET(1), WORD(2) | BUCKET(1)}, 2, {1, 1}},
	    {{WORD(1) | BUCKET(1), WORD(1) | BUCKET(1) | STRIPE(1)}, 2, {1, 1}},
	    {{WORD(3) | BUCKET(1), WORD(3) | BUCKET(1) | STRIPE(3)}, 2, {1, 1}},
	    {{WORD(1) | BUCKET(1), WORD(2) | BUCKET(2)}, 1, {1, 0}},
	};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++) {
		uint32_t before[2];
		int intent;

		for (int j = 0; j < 2; j++)
			before[j] = version(cases[i].hash[j]);
		intent = shm_cache_intent_open(
		    worker[0], cases[i].hash, cases[i].count);
		assert_int_not_equal(intent, -1);
		for (uint32_t j = 0; j < cases[i].count; j++)
			assert_true(shm_cache_is_open(cache, cases[i].hash[j]));
		assert_audit_is_clean();
		shm_cache_intent_close(worker[0], intent);
		assert_audit_is_clean();
		for (int j = 0; j < 2; j++) {
			bool is_same =
			    shm_cache_version_of(cache, cases[i].hash[0]) ==
			    shm_cache_version_of(cache, cases[i].hash[1]);

			assert_false(
			    shm_cache_is_open(cache, cases[i].hash[j]));
			assert_int_equal(version(cases[i].hash[j]) - before[j],
			    is_same ? 1 : cases[i].moves[j]);
		}
	}
}

static void
a_word_stays_open_until_its_last_write_is_closed(void **state)
{
	uint64_t two[2] = {WORD(5) | BUCKET(1), WORD(5) | BUCKET(2)};
	int first, second, both, others;

	(void)state;
	first = begin(worker[0], WORD(5) | BUCKET(1));
	second = begin(worker[0], WORD(5) | BUCKET(1));
	both = shm_cache_intent_open(worker[0], two, 2);
	assert_int_not_equal(both, -1);
	others = begin(worker[1], WORD(5 + SHM_CACHE_OPEN_WORDS) | BUCKET(9));
	assert_audit_is_clean();
	shm_cache_intent_close(worker[0], second);
	assert_true(shm_cache_is_open(cache, two[0]));
	shm_cache_intent_close(worker[0], both);
	assert_true(atomic_load(&cache->open[5]) == 3);
	assert_true(atomic_load(&cache->head->lists_open) == 3);
	shm_cache_intent_close(worker[0], first);
	assert_true(atomic_load(&cache->open[5]) == 2);
	assert_true(atomic_load(&cache->head->lists_open) == 2);
	assert_true(shm_cache_is_open(cache, two[0]));
	assert_audit_is_clean();
	shm_cache_intent_close(worker[1], others);
	assert_false(shm_cache_is_open(cache, two[0]));
	assert_true(atomic_load(&cache->head->lists_open) == 0);
}

static void
a_full_table_refuses_and_a_closed_place_is_used_again(void **state)
{
	int intent[SHM_CACHE_INTENTS_MAX];
	bool is_used[SHM_CACHE_INTENTS_MAX] = {false};
	uint64_t hash = 1;

	(void)state;
	for (int i = 0; i < SHM_CACHE_INTENTS_MAX; i++) {
		intent[i] = begin(worker[2], WORD(i) | BUCKET(i));
		assert_true(intent[i] < SHM_CACHE_INTENTS_MAX);
		assert_false(is_used[intent[i]]);
		is_used[intent[i]] = true;
	}
	assert_int_equal(shm_cache_intent_open(worker[2], &hash, 1), -1);
	assert_int_equal(shm_cache_intent_count(cache), SHM_CACHE_INTENTS_MAX);
	assert_audit_is_clean();
	/* another worker has its own */
	shm_cache_intent_close(worker[3], begin(worker[3], hash));
	for (int i = 0; i < SHM_CACHE_INTENTS_MAX; i += 5) {
		shm_cache_intent_close(worker[2], intent[i]);
		intent[i] = begin(worker[2], WORD(i));
		assert_int_equal(
		    shm_cache_intent_open(worker[2], &hash, 1), -1);
	}
	for (int i = 0; i < SHM_CACHE_INTENTS_MAX; i++)
		shm_cache_intent_close(worker[2], intent[i]);
	assert_int_equal(shm_cache_intent_count(cache), 0);
	assert_audit_is_clean();
}

/* ---- unknown outcomes */

static void
an_unknown_outcome_invalidates_now_and_again_when_due(void **state)
{
	uint64_t hash = WORD(17) | BUCKET(3);
	uint32_t before = version(hash), lists = lists_generation();

	(void)state;
	assert_true(shm_cache_intent_tick(worker[0], NOW) == UINT64_MAX);
	shm_cache_intent_unknown(worker[0], begin(worker[0], hash), NOW);
	assert_int_equal(version(hash), before + 1);
	assert_int_equal(lists_generation(), lists + 1);
	assert_false(shm_cache_is_open(cache, hash));
	assert_int_equal(shm_cache_intent_count(cache), 0);
	assert_audit_is_clean();

	assert_true(shm_cache_intent_tick(worker[0], NOW) == LINGER);
	assert_true(shm_cache_intent_tick(worker[0], NOW + LINGER - 1) == 1);
	assert_int_equal(version(hash), before + 1);
	assert_true(
	    shm_cache_intent_tick(worker[0], NOW + LINGER) == UINT64_MAX);
	assert_int_equal(version(hash), before + 2);
	assert_int_equal(lists_generation(), lists + 2);
	assert_true(
	    shm_cache_intent_tick(worker[0], NOW + LINGER) == UINT64_MAX);
	assert_int_equal(version(hash), before + 2);
	assert_audit_is_clean();
}

static void
each_unknown_outcome_comes_due_at_its_own_time(void **state)
{
	uint32_t before[3];

	(void)state;
	for (uint64_t i = 0; i < 3; i++) {
		before[i] = version(BUCKET(i));
		shm_cache_intent_unknown(worker[0],
		    begin(worker[0], WORD(i) | BUCKET(i)), NOW + i * SECOND);
	}
	for (uint64_t i = 0; i < 3; i++) {
		uint64_t left =
		    shm_cache_intent_tick(worker[0], NOW + LINGER + i * SECOND);

		assert_true(left == (i < 2 ? SECOND : UINT64_MAX));
		for (uint64_t j = 0; j < 3; j++)
			assert_int_equal(
			    version(BUCKET(j)) - before[j], j <= i ? 2 : 1);
	}
}

static void
a_lingering_write_keeps_its_place_until_it_is_due(void **state)
{
	uint64_t hash = 1;

	(void)state;
	for (int i = 0; i < SHM_CACHE_INTENTS_MAX; i++)
		shm_cache_intent_unknown(
		    worker[0], begin(worker[0], WORD(i)), NOW);
	assert_int_equal(shm_cache_intent_open(worker[0], &hash, 1), -1);
	assert_true(
	    shm_cache_intent_tick(worker[0], NOW + LINGER) == UINT64_MAX);
	shm_cache_intent_close(worker[0], begin(worker[0], hash));
}

/* ---- death */

static void
the_dead_ones_writes_are_invalidated_and_owed_once_more(void **state)
{
	uint64_t open[2] = {WORD(1) | BUCKET(1), WORD(2) | BUCKET(2)},
		 lost = WORD(3) | BUCKET(3);
	uint64_t others = WORD(1) | BUCKET(4);
	uint32_t before[5], lists = lists_generation();
	struct shm_cache_debt debt = {.due_us = 77, .count = 77};
	int theirs;

	(void)state;
	for (uint64_t i = 0; i < 5; i++)
		before[i] = version(BUCKET(i));
	theirs = begin(worker[1], others);
	assert_int_not_equal(shm_cache_intent_open(worker[0], open, 2), -1);
	shm_cache_intent_unknown(worker[0], begin(worker[0], lost), NOW - 1);
	assert_int_equal(lists_generation(), lists + 1);
	bury(0, &debt);

	assert_true(debt.due_us == NOW + LINGER);
	assert_int_equal(debt.count, 3);
	assert_true(debt.hash[0] == open[0] && debt.hash[1] == open[1] &&
		    debt.hash[2] == lost);
	assert_int_equal(version(BUCKET(1)), before[1] + 1);
	assert_int_equal(version(BUCKET(2)), before[2] + 1);
	assert_int_equal(version(BUCKET(3)), before[3] + 2);
	assert_int_equal(version(BUCKET(4)), before[4]);
	assert_int_equal(lists_generation(), lists + 3);
	/* the living one's stay */
	assert_true(atomic_load(&cache->open[1]) == 2);
	assert_true(atomic_load(&cache->open[2]) == 0);
	assert_true(atomic_load(&cache->head->lists_open) == 2);
	assert_int_equal(shm_cache_intent_count(cache), 1);
	assert_audit_is_clean();
	shm_cache_intent_close(worker[1], theirs);

	/* a second time there is nothing, nor for the slot's next process */
	shm_cache_intent_sweep(cache, 0, NOW, &debt);
	assert_true(debt.due_us == 0);
	assert_int_equal(debt.count, 0);
	shm_cache_enter(worker[0], 0);
	assert_true(
	    shm_cache_intent_tick(worker[0], NOW + LINGER) == UINT64_MAX);
	shm_cache_intent_close(worker[0], begin(worker[0], open[0]));
	assert_audit_is_clean();
}

static void
a_debt_is_settled_by_invalidating_all_of_it_again(void **state)
{
	uint64_t two[2] = {WORD(1) | BUCKET(1), WORD(2) | BUCKET(2)};
	uint32_t before[2] = {version(two[0]), version(two[1])};
	uint32_t lists = lists_generation();
	struct shm_cache_debt debt;

	(void)state;
	assert_int_not_equal(shm_cache_intent_open(worker[0], two, 2), -1);
	bury(0, &debt);
	shm_cache_settle(cache, &debt);
	assert_true(debt.due_us == 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(version(two[i]), before[i] + 2);
	assert_int_equal(lists_generation(), lists + 2);
}

static void
a_full_table_of_two_keys_each_fits_a_debt(void **state)
{
	struct shm_cache_debt debt;

	(void)state;
	for (uint64_t i = 0; i < SHM_CACHE_INTENTS_MAX; i++) {
		uint64_t two[2] = {2 * i, 2 * i + 1};

		assert_int_not_equal(
		    shm_cache_intent_open(worker[0], two, 2), -1);
	}
	bury(0, &debt);
	assert_int_equal(debt.count, 2 * SHM_CACHE_INTENTS_MAX);
	for (uint64_t i = 0; i < debt.count; i++)
		assert_true(debt.hash[i] == i);
	assert_audit_is_clean();
}

/* Words as a death between two writes leaves them. */
static void
half_an_intent_is_harmless_whichever_half_it_is(void **state)
{
	static const struct {
		uint64_t state;
		bool has_bits;
		uint32_t debts;
	} cases[] = {
	    {SHM_CACHE_INTENT_FREE, false, 0}, /* keys noted */
	    {SHM_CACHE_INTENT_OPEN, false,
		1}, /* state; closing: not FREE yet */
	    {SHM_CACHE_INTENT_OPEN, true, 1},
	    {SHM_CACHE_INTENT_FREE, true, 0},	   /* closing: bits left */
	    {SHM_CACHE_INTENT_LINGERING, true, 1}, /* unknown: bits left */
	};
	uint64_t hash = WORD(6) | BUCKET(6);

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++) {
		struct shm_cache_intent *intent =
		    &cache->intent[2 * SHM_CACHE_INTENTS_MAX + 9];
		uint32_t before = version(hash);
		struct shm_cache_debt debt;

		atomic_store(&intent->hash[0], hash);
		atomic_store(&intent->hash[1], hash);
		atomic_store(&intent->state, cases[i].state);
		atomic_store(&cache->open[6], cases[i].has_bits ? 4 : 0);
		atomic_store(
		    &cache->head->lists_open, cases[i].has_bits ? 4 : 0);
		bury(2, &debt);
		assert_int_equal(debt.count, cases[i].debts);
		assert_int_equal(version(hash), before + cases[i].debts);
		assert_false(shm_cache_is_open(cache, hash));
		assert_audit_is_clean();
	}
}

static void
the_writes_of_a_killed_process_are_found(void **state)
{
	struct shm_cache_debt debt;
	uint32_t before[3];
	int told[2];
	char byte = 0;
	pid_t pid;

	(void)state;
	for (uint64_t i = 0; i < 3; i++)
		before[i] = version(BUCKET(i));
	assert_int_equal(pipe(told), 0);
	pid = fork();
	assert_int_not_equal(pid, -1);
	if (pid == 0) {
		shm_cache_enter(cache, 1);
		for (uint64_t i = 0; i < 3; i++) {
			uint64_t hash = WORD(i) | BUCKET(i);

			if (shm_cache_intent_open(cache, &hash, 1) == -1)
				_exit(1);
		}
		if (write(told[1], &byte, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(told[0], &byte, 1), 1);
	assert_true(shm_cache_is_open(cache, WORD(1) | BUCKET(1)));
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	shm_cache_sweep(cache, 1, NOW, &debt);
	assert_int_equal(debt.count, 3);
	assert_true(debt.due_us == NOW + LINGER);
	for (uint64_t i = 0; i < 3; i++) {
		assert_false(shm_cache_is_open(cache, WORD(i) | BUCKET(i)));
		assert_int_equal(version(BUCKET(i)), before[i] + 1);
	}
	assert_audit_is_clean();
	close(told[0]);
	close(told[1]);
}

/* ---- what readers get */

static struct shm_cache_key
key_of(const char *name)
{
	struct shm_cache_key key = {.data = name,
	    .len = (uint32_t)strlen(name),
	    .cls = name[0] == 'l' ? SHM_CACHE_LIST : SHM_CACHE_BOOK};

	shm_cache_key_hash(cache, &key);
	return key;
}

static enum shm_cache_found
get(struct shm_cache *view, const char *name, struct shm_cache_lease *lease)
{
	struct shm_cache_key key = key_of(name);
	struct shm_cache_view found;

	return shm_cache_get(view, &key, NOW, lease, &found);
}

static enum shm_cache_stored
put(struct shm_cache *view, const char *name,
    const struct shm_cache_lease *lease, const char *body, uint32_t row_version)
{
	struct shm_cache_key key = key_of(name);
	struct shm_cache_value value = {.id = 1,
	    .row_version = row_version,
	    .fresh_us = 3600 * SECOND,
	    .status = 200,
	    .cls = (uint8_t)key.cls,
	    .head = "\r\n",
	    .head_bytes = 2,
	    .body = body,
	    .body_bytes = (uint32_t)strlen(body)};

	return shm_cache_put(view, &key, lease, &value, NULL, NOW);
}

static void
load(struct shm_cache *view, const char *name, uint32_t row_version)
{
	struct shm_cache_lease lease;

	assert_int_equal(get(view, name, &lease), SHM_CACHE_MISS);
	assert_int_equal(
	    put(view, name, &lease, "body", row_version), SHM_CACHE_STORED);
	assert_int_equal(get(view, name, &lease), SHM_CACHE_HIT);
}

static void
a_reader_misses_while_a_key_is_written_and_gets_the_new(void **state)
{
	struct shm_cache_key key = key_of("b1");
	struct shm_cache_lease lease, early;
	int intent;

	(void)state;
	load(worker[0], "b1", 1);
	load(worker[0], "b2", 1);
	load(worker[0], "l", 1);
	intent = begin(worker[1], key.hash);
	assert_int_equal(get(worker[0], "b1", &early), SHM_CACHE_MISS);
	assert_int_equal(get(worker[1], "b1", &lease), SHM_CACHE_MISS);
	assert_int_equal(get(worker[0], "l", &lease), SHM_CACHE_MISS);
	/* loaded meanwhile: may be stored, is not served */
	(void)put(worker[0], "b1", &early, "meanwhile", 1);
	assert_int_equal(get(worker[0], "b1", &lease), SHM_CACHE_MISS);
	shm_cache_intent_close(worker[1], intent);
	assert_int_equal(get(worker[0], "b1", &lease), SHM_CACHE_MISS);
	assert_int_equal(get(worker[0], "l", &lease), SHM_CACHE_MISS);
	assert_int_not_equal(
	    put(worker[0], "b1", &early, "late", 1), SHM_CACHE_STORED);
	assert_int_equal(get(worker[0], "b1", &lease), SHM_CACHE_MISS);
	load(worker[0], "b1", 2);
	load(worker[0], "l", 2);
	/* if their stripes and words differ, as they do with this seed */
	assert_int_equal(get(worker[0], "b2", &lease), SHM_CACHE_HIT);
}

static void
relaxed_lists_are_served_during_a_write_and_stale_after(void **state)
{
	struct shm_cache_key key = key_of("b1");
	struct shm_cache_lease lease;
	int intent;

	(void)state;
	be_relaxed(worker[0]);
	be_relaxed(worker[1]);
	load(worker[0], "l", 1);
	intent = begin(worker[1], key.hash);
	assert_int_equal(get(worker[0], "l", &lease), SHM_CACHE_HIT);
	shm_cache_intent_close(worker[1], intent);
	assert_int_equal(get(worker[0], "l", &lease), SHM_CACHE_STALE);
}

/* What one writer and several readers have in common beside the cache: the
 * database is a number, and so is the last write that was answered. */
struct world {
	_Atomic uint32_t row, answered, stop, hits;
};

#define WRITES 3000 /* and as many more as it takes to see hits */
#define HITS   1000

static void
write_on(struct shm_cache *view, struct world *world)
{
	struct shm_cache_key key = key_of("b1");

	for (uint32_t i = 1; i <= WRITES || atomic_load(&world->hits) < HITS;
	     i++) {
		int intent = shm_cache_intent_open(view, &key.hash, 1);

		if (intent == -1)
			_exit(1);
		atomic_store(&world->row, i);
		shm_cache_intent_close(view, intent);
		atomic_store(&world->answered, i);
		if (i % 16 == 0)
			usleep(50); /* or readers would never find one stored */
	}
	_exit(0);
}

/* Exits with 0 when told to stop, with 1 on an answer older than a write that
 * had been answered before it asked, with 2 when rows went backwards. */
static void
read_on(struct shm_cache *view, struct world *world)
{
	struct shm_cache_key key = key_of("b1");
	struct shm_cache_lease lease;
	struct shm_cache_view found;
	uint32_t row = 0, last = 0;
	char body[16];

	while (!atomic_load(&world->stop)) {
		uint32_t answered = atomic_load(&world->answered);

		switch (shm_cache_get(view, &key, NOW, &lease, &found)) {
		case SHM_CACHE_HIT:
			row = found.row_version;
			atomic_fetch_add(&world->hits, 1);
			break;
		case SHM_CACHE_MISS:
			row = atomic_load(&world->row);
			snprintf(body, sizeof(body), "%u", (unsigned)row);
			(void)put(view, "b1", &lease, body, row);
			break;
		case SHM_CACHE_STALE:
		case SHM_CACHE_ERROR_ONLY:
			_exit(3);
		}
		if (row < answered)
			_exit(1);
		if (row < last)
			_exit(2);
		last = row;
	}
	_exit(0);
}

static void
no_reader_gets_a_row_older_than_any_that_was_answered(void **state)
{
	struct world *world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid[WORKERS];
	int status;

	(void)state;
	assert_true(world != MAP_FAILED);
	for (uint32_t i = 0; i < WORKERS; i++) {
		pid[i] = fork();
		assert_int_not_equal(pid[i], -1);
		if (pid[i] != 0)
			continue;
		alarm(60);
		shm_cache_enter(cache, i);
		if (i == 0)
			write_on(cache, world);
		else
			read_on(cache, world);
	}
	for (uint32_t i = 0; i < WORKERS; i++) {
		assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 0);
		atomic_store(&world->stop, 1);
	}
	assert_true(atomic_load(&world->hits) >= HITS);
	munmap(world, sizeof(*world));
}

/* ---- audit */

static void
the_audit_finds_what_no_worker_can_have_written(void **state)
{
	char why[200] = "";

	(void)state;
	atomic_store(&cache->intent[5].state, 3);
	assert_int_equal(
	    shm_cache_intent_audit(cache, false, why, sizeof(why)), 1);
	assert_string_equal(why, "an intent has no known state, of slot 0");
	atomic_store(&cache->intent[5].state, 0);
	atomic_store(&cache->open[9], 1ULL << WORKERS);
	assert_int_equal(
	    shm_cache_intent_audit(cache, false, why, sizeof(why)), 1);
	assert_string_equal(why, "no slot has this word open: word 9");
	atomic_store(&cache->open[9], 1);
	assert_int_equal(
	    shm_cache_intent_audit(cache, false, why, sizeof(why)), 0);
	assert_int_equal(
	    shm_cache_intent_audit(cache, true, why, sizeof(why)), 1);
	assert_string_equal(why, "intents and bits disagree, in word 9");
	atomic_store(&cache->open[9], 0);
	atomic_store(&cache->head->lists_open, 1);
	assert_int_equal(shm_cache_intent_audit(cache, true, NULL, 0), 1);
	atomic_store(&cache->head->lists_open, 0);
	assert_audit_is_clean();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(a_key_and_the_lists_are_open_until_the_write_is_closed),
	    TEST(a_write_touches_its_keys_and_no_others),
	    TEST(a_word_stays_open_until_its_last_write_is_closed),
	    TEST(a_full_table_refuses_and_a_closed_place_is_used_again),
	    TEST(an_unknown_outcome_invalidates_now_and_again_when_due),
	    TEST(each_unknown_outcome_comes_due_at_its_own_time),
	    TEST(a_lingering_write_keeps_its_place_until_it_is_due),
	    TEST(the_dead_ones_writes_are_invalidated_and_owed_once_more),
	    TEST(a_debt_is_settled_by_invalidating_all_of_it_again),
	    TEST(a_full_table_of_two_keys_each_fits_a_debt),
	    TEST(half_an_intent_is_harmless_whichever_half_it_is),
	    TEST(the_writes_of_a_killed_process_are_found),
	    TEST(a_reader_misses_while_a_key_is_written_and_gets_the_new),
	    TEST(relaxed_lists_are_served_during_a_write_and_stale_after),
	    TEST(no_reader_gets_a_row_older_than_any_that_was_answered),
	    TEST(the_audit_finds_what_no_worker_can_have_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
