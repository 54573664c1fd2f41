/*
 * Goal: a put stores what may be stored and nothing else, never replaces a
 * newer row, finds room at once in a full cache by evicting what is least
 * used, and leaves nothing behind that the death of its process could break.
 * Method: one or more workers' views of a small cache, an audit after every
 * test, keys chosen by brute force to meet in one bucket, states that are rare
 * written into the mapping, and forked processes where a death is real.
 */
#include "config.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/shm_test.h"

#define MIB	   (1024 * 1024ULL)
#define NOW	   TEST_START
#define WORKERS	   4
#define CROWD	   12 /* keys that meet in one bucket */
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static struct shm_cache *cache; /* worker 0 */
static struct shm_cache *worker[WORKERS];

static int
setup(void **state)
{
	(void)state;
	cache = test_cache_new(1 * MIB, WORKERS);
	worker[0] = cache;
	for (uint32_t i = 1; i < WORKERS; i++) {
		worker[i] = malloc(sizeof(*cache));
		assert_non_null(worker[i]);
		*worker[i] = *cache;
		shm_cache_enter(worker[i], i);
	}
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	test_audit(cache);
	for (uint32_t i = 1; i < WORKERS; i++) {
		free(worker[i]);
		worker[i] = NULL;
	}
	shm_cache_free(&cache);
	return 0;
}

static uint64_t
counter(enum shm_cache_counter which)
{
	struct shm_cache_stats stats;

	shm_cache_stats(cache, &stats);
	return stats.counter[which];
}

static struct shm_cache_lease
lease_of(const struct shm_cache_key *key)
{
	struct shm_cache_lease lease;
	struct shm_cache_view view;

	(void)!shm_cache_get(cache, key, NOW, &lease, &view);
	return lease;
}

/* Numbers of books that share a bucket with book 0, without sharing a tag. */
static void
crowd_find(uint64_t crowd[CROWD])
{
	struct test_key test;
	uint64_t hash = test_book(cache, &test, 0)->hash;
	struct shm_cache_bucket *bucket = shm_cache_bucket_of(cache, hash);
	uint32_t count = 1;

	crowd[0] = 0;
	for (uint64_t n = 1; count < CROWD; n++)
		if (shm_cache_bucket_of(
			cache, test_book(cache, &test, n)->hash) == bucket)
			crowd[count++] = n;
}

static _Atomic uint64_t *
way_of(uint64_t n)
{
	struct test_key test;
	uint64_t hash = test_book(cache, &test, n)->hash;
	struct shm_cache_bucket *bucket = shm_cache_bucket_of(cache, hash);

	for (uint32_t i = 0; i < SHM_CACHE_WAYS; i++)
		if (shm_cache_index_tag(bucket->way[i]) ==
		    shm_cache_tag_of(hash))
			return &bucket->way[i];
	return NULL;
}

static enum shm_cache_queue
queue_of(uint64_t n)
{
	_Atomic uint64_t *way = way_of(n);
	uint64_t offset;

	assert_non_null(way);
	offset = shm_cache_index_offset(*way);
	return shm_cache_word_queue(
	    cache->word[offset >> cache->segment_shift]);
}

/* ---- what is refused */

static void
a_value_up_to_the_limit_is_stored_and_one_byte_more_is_not(void **state)
{
	uint32_t most = shm_cache_value_max(cache) - 4 - 14; /* head, key */
	uint32_t version;

	(void)state;
	assert_int_equal(test_store(cache, 1, 1, most, NOW), SHM_CACHE_STORED);
	assert_int_equal(test_look(cache, 1, NOW, &version), SHM_CACHE_HIT);
	assert_int_equal(
	    test_store(cache, 2, 1, most + 1, NOW), SHM_CACHE_TOO_LARGE);
	assert_int_equal(test_look(cache, 2, NOW, NULL), SHM_CACHE_MISS);
	/* The newer row that could not be stored ends the older one. */
	assert_int_equal(
	    test_store(cache, 1, 2, most + 1, NOW), SHM_CACHE_TOO_LARGE);
	assert_int_equal(test_look(cache, 1, NOW, NULL), SHM_CACHE_MISS);
	assert_int_equal(counter(SHM_CACHE_puts), 1);
	assert_int_equal(counter(SHM_CACHE_puts_refused), 2);
}

static void
a_head_of_4_KiB_is_too_large(void **state)
{
	static char head[4096];
	struct test_key test;
	const struct shm_cache_key *key =
	    test_key(cache, &test, SHM_CACHE_BOOK, "b");
	struct shm_cache_lease lease = lease_of(key);
	struct shm_cache_value value = {
	    .head = head, .head_bytes = 4095, .fresh_us = 1000000};
	struct shm_cache_view view;

	(void)state;
	assert_int_equal(shm_cache_put(cache, key, &lease, &value, NULL, NOW),
	    SHM_CACHE_STORED);
	assert_int_equal(
	    shm_cache_get(cache, key, NOW, &lease, &view), SHM_CACHE_HIT);
	assert_int_equal(view.head_bytes, 4095);
	value.head_bytes = 4096;
	assert_int_equal(shm_cache_put(cache, key, &lease, &value, NULL, NOW),
	    SHM_CACHE_TOO_LARGE);
	value.head_bytes = 0;
	value.body_bytes = UINT32_MAX;
	assert_int_equal(shm_cache_put(cache, key, &lease, &value, NULL, NOW),
	    SHM_CACHE_TOO_LARGE);
}

/* What may happen between a lookup and its put. */
static void
happen_nothing(uint64_t hash)
{
	(void)hash;
}

static void
happen_invalidate(uint64_t hash)
{
	shm_cache_invalidate(worker[1], hash);
}

static void
happen_flush(uint64_t hash)
{
	(void)hash;
	shm_cache_flush(worker[1], SHM_CACHE_BOOK);
}

static void
happen_other_flush(uint64_t hash)
{
	(void)hash;
	shm_cache_flush(worker[1], SHM_CACHE_LIST);
	shm_cache_flush(worker[1], SHM_CACHE_NEGATIVE);
	shm_cache_lists_changed(worker[1]);
}

static void
happen_intent(uint64_t hash)
{
	int intent = shm_cache_intent_open(worker[1], &hash, 1);

	assert_true(intent >= 0);
}

static void
happen_whole_write(uint64_t hash)
{
	int intent = shm_cache_intent_open(worker[1], &hash, 1);

	assert_true(intent >= 0);
	shm_cache_intent_close(worker[1], intent);
}

static void
a_put_under_an_outdated_lease_stores_nothing(void **state)
{
	static const struct {
		void (*happen)(uint64_t hash);
		enum shm_cache_stored stored;
	} table[] = {
	    {happen_nothing, SHM_CACHE_STORED},
	    {happen_invalidate, SHM_CACHE_OUTDATED},
	    {happen_flush, SHM_CACHE_OUTDATED},
	    {happen_other_flush, SHM_CACHE_STORED},
	    {happen_whole_write, SHM_CACHE_OUTDATED},
	    {happen_intent, SHM_CACHE_OUTDATED},
	};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(table); i++) {
		struct test_key test;
		const struct shm_cache_key *key = test_book(cache, &test, i);
		struct shm_cache_lease lease = lease_of(key);
		uint64_t used = cache->small.used;

		table[i].happen(key->hash);
		assert_int_equal(test_put(cache, key, &lease, i, 1, 9, NOW),
		    table[i].stored);
		assert_int_equal(test_look(cache, i, NOW, NULL),
		    table[i].stored == SHM_CACHE_STORED ? SHM_CACHE_HIT
							: SHM_CACHE_MISS);
		if (table[i].stored != SHM_CACHE_STORED)
			assert_int_equal(cache->small.used, used);
	}
}

static void
an_entry_that_slipped_in_under_an_old_lease_is_not_served(void **state)
{
	struct test_key test;
	const struct shm_cache_key *key = test_book(cache, &test, 1);

	(void)state;
	/* The invalidation comes just after put has looked: the same as an
	 * entry that was there before it. */
	assert_int_equal(test_store(cache, 1, 1, 9, NOW), SHM_CACHE_STORED);
	shm_cache_invalidate(worker[1], key->hash);
	assert_int_equal(test_look(cache, 1, NOW, NULL), SHM_CACHE_MISS);
	assert_int_equal(test_store(cache, 1, 1, 9, NOW), SHM_CACHE_STORED);
	assert_int_equal(test_look(cache, 1, NOW, NULL), SHM_CACHE_HIT);
}

static void
a_put_without_its_claim_is_lost(void **state)
{
	struct test_key test;
	const struct shm_cache_key *key = test_book(cache, &test, 1);
	struct shm_cache_lease lease = lease_of(key);
	struct shm_cache_value value = {.fresh_us = TEST_FRESH};
	struct shm_cache_flight flight, thief;

	(void)state;
	assert_int_equal(
	    shm_cache_claim(cache, key, NOW, NOW + TEST_SECOND, &flight),
	    SHM_CACHE_CLAIM_MINE);
	assert_int_equal(
	    shm_cache_put(cache, key, &lease, &value, &flight, NOW),
	    SHM_CACHE_STORED);
	assert_int_equal(shm_cache_claim(worker[1], key, NOW + 3 * TEST_SECOND,
			     NOW + 9 * TEST_SECOND, &thief),
	    SHM_CACHE_CLAIM_MINE);
	value.row_version = 1;
	assert_int_equal(shm_cache_put(cache, key, &lease, &value, &flight,
			     NOW + 3 * TEST_SECOND),
	    SHM_CACHE_LOST);
	/* Our requester is told of row version 1; version 0 is over. */
	assert_int_equal(test_look(cache, 1, NOW, NULL), SHM_CACHE_MISS);
	flight.word = 0;
	assert_int_equal(
	    shm_cache_put(cache, key, &lease, &value, &flight, NOW),
	    SHM_CACHE_STORED);
	shm_cache_claim_end(
	    worker[1], &thief, key, SHM_CACHE_ENDED_NOTHING, NOW);
}

/* ---- reads never go backwards */

static void
an_older_row_does_not_replace_a_newer_one(void **state)
{
	static const struct {
		uint64_t id;
		uint32_t version;
		enum shm_cache_stored stored;
	} table[] = {
	    {1, 5, SHM_CACHE_STORED},
	    {1, 4, SHM_CACHE_OLDER},
	    {1, 5, SHM_CACHE_STORED}, /* again */
	    {1, 6, SHM_CACHE_STORED},
	    {1, 5, SHM_CACHE_OLDER},
	    {2, 1, SHM_CACHE_STORED}, /* deleted and created again */
	    {2, UINT32_MAX, SHM_CACHE_STORED},
	    {2, 0, SHM_CACHE_OLDER},
	};
	struct test_key test;
	const struct shm_cache_key *key = test_book(cache, &test, 1);
	struct shm_cache_lease lease = lease_of(key);
	struct shm_cache_view view;
	uint64_t id = 0;
	uint32_t version = 0;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(table); i++) {
		assert_int_equal(test_put(worker[i % WORKERS], key, &lease,
				     table[i].id, table[i].version, 9, NOW),
		    table[i].stored);
		if (table[i].stored == SHM_CACHE_STORED) {
			id = table[i].id;
			version = table[i].version;
		}
		assert_int_equal(shm_cache_get(cache, key, NOW, &lease, &view),
		    SHM_CACHE_HIT);
		assert_true(test_value_is(cache, &view, id, version));
	}
}

static void
what_is_not_served_any_more_does_not_stop_an_older_row(void **state)
{
	struct test_key test;
	const struct shm_cache_key *key = test_book(cache, &test, 1);

	(void)state;
	/* Invalidated. */
	assert_int_equal(test_store(cache, 1, 9, 9, NOW), SHM_CACHE_STORED);
	shm_cache_invalidate(cache, key->hash);
	assert_int_equal(test_store(cache, 1, 8, 9, NOW), SHM_CACHE_STORED);
	/* Suspect: after a failover rows may have gone back. */
	shm_cache_suspect(cache);
	assert_int_equal(test_store(cache, 1, 7, 9, NOW), SHM_CACHE_STORED);
	/* Too old even for errors. */
	assert_int_equal(test_store(cache, 1, 6, 9,
			     NOW + TEST_FRESH + TEST_STALE + TEST_ERROR + 1),
	    SHM_CACHE_STORED);
}

static void
a_load_from_before_does_not_replace_one_from_after(void **state)
{
	struct test_key test;
	const struct shm_cache_key *key;
	struct shm_cache_lease lease;

	(void)state;
	/* A suspicion between the two. */
	key = test_book(cache, &test, 1);
	lease = lease_of(key);
	shm_cache_suspect(cache);
	assert_int_equal(test_store(cache, 1, 1, 9, NOW), SHM_CACHE_STORED);
	assert_int_equal(
	    test_put(cache, key, &lease, 1, 1, 9, NOW), SHM_CACHE_OUTDATED);
	assert_int_equal(test_look(cache, 1, NOW, NULL), SHM_CACHE_HIT);
	/* Without another it is better than nothing. */
	key = test_book(cache, &test, 2);
	lease = lease_of(key);
	shm_cache_suspect(cache);
	assert_int_equal(
	    test_put(cache, key, &lease, 2, 1, 9, NOW), SHM_CACHE_STORED);
	assert_int_equal(test_look(cache, 2, NOW, NULL), SHM_CACHE_ERROR_ONLY);
	/* A change of a list, relaxed. */
	key = test_key(cache, &test, SHM_CACHE_LIST, "l");
	cache->policy.lists_relaxed = true;
	lease = lease_of(key);
	shm_cache_lists_changed(cache);
	assert_int_equal(
	    test_put(cache, key, &lease, 3, 0, 9, NOW), SHM_CACHE_STORED);
	{
		struct shm_cache_lease now = lease_of(key);

		assert_int_equal(
		    test_put(cache, key, &now, 4, 0, 9, NOW), SHM_CACHE_STORED);
	}
	assert_int_equal(
	    test_put(cache, key, &lease, 3, 0, 9, NOW), SHM_CACHE_OUTDATED);
}

/* The state between two puts that took two ways: made by hand. */
static void
of_two_ways_of_one_key_the_newer_row_is_shown_and_one_left(void **state)
{
	struct test_key test;
	const struct shm_cache_key *key = test_book(cache, &test, 1);
	struct shm_cache_bucket *bucket = shm_cache_bucket_of(cache, key->hash);
	struct shm_cache_lease lease = lease_of(key);
	uint32_t version;

	(void)state;
	for (uint32_t round = 0; round < 2; round++) {
		uint32_t first = round == 0 ? 5 : 6;
		uint32_t second = round == 0 ? 6 : 5;
		uint64_t index;

		assert_int_equal(test_put(cache, key, &lease, 1, first, 9, NOW),
		    SHM_CACHE_STORED);
		assert_ptr_equal(way_of(1), &bucket->way[0]);
		index = atomic_exchange(&bucket->way[0], 0);
		assert_int_equal(
		    test_put(worker[1], key, &lease, 1, second, 9, NOW),
		    SHM_CACHE_STORED);
		bucket->way[3] = index;
		assert_int_equal(
		    test_look(cache, 1, NOW, &version), SHM_CACHE_HIT);
		assert_int_equal(version, 6);
		bucket->way[4] = bucket->way[0];
		bucket->way[0] = 0;
		assert_int_equal(
		    test_look(cache, 1, NOW, &version), SHM_CACHE_HIT);
		assert_int_equal(version, 6);
		assert_int_equal(test_put(cache, key, &lease, 1, 7, 9, NOW),
		    SHM_CACHE_STORED);
		/* It replaced one and removed the other. */
		assert_true((bucket->way[3] == 0) != (bucket->way[4] == 0));
		assert_int_equal(
		    test_look(cache, 1, NOW, &version), SHM_CACHE_HIT);
		assert_int_equal(version, 7);
		bucket->way[3] = 0;
		bucket->way[4] = 0;
	}
}

/* ---- where values lie */

static void
large_values_begin_on_a_cache_line_wherever_they_move(void **state)
{
	static const uint32_t bytes[] = {0, 100, 4000, 4091, 4092, 9000, 20000};
	uint64_t moved;

	(void)state;
	teardown(NULL);
	cache = test_cache_new(32 * MIB, 1);
	for (uint64_t n = 0; n < 7000; n++) {
		struct test_key test;
		struct shm_cache_lease lease;
		struct shm_cache_view view;
		uint32_t size = bytes[n % SHM_ARRAY_LEN(bytes)];

		assert_int_equal(
		    test_store(cache, n, 1, size, NOW), SHM_CACHE_STORED);
		/* Older ones too, which may be in another segment now. */
		if (n % 3 == 0)
			continue;
		for (uint64_t old = n; old + 2000 > n; old -= 900) {
			test_book(cache, &test, old);
			if (shm_cache_get(cache, &test.key, NOW, &lease,
				&view) == SHM_CACHE_MISS)
				break;
			if (view.value_bytes >= SHM_CACHE_ALIGNED_MIN)
				assert_int_equal(
				    (view.offset +
					shm_cache_value_start(view.offset,
					    view.key_bytes, view.value_bytes)) %
					SHM_CACHE_LINE,
				    0);
			assert_true(test_value_is(cache, &view, old, 1));
			if (old < 900)
				break;
		}
	}
	moved = counter(SHM_CACHE_promotions);
	assert_true(moved > 100);
	test_audit(cache);
	shm_cache_free(&cache);
	setup(NULL);
}

/* ---- the bucket */

static void
a_put_takes_its_own_way_or_an_empty_dead_or_least_used_one(void **state)
{
	uint64_t crowd[CROWD];
	_Atomic uint64_t *way, *own;

	(void)state;
	crowd_find(crowd);
	for (uint32_t i = 0; i < SHM_CACHE_WAYS; i++)
		assert_int_equal(
		    test_store(cache, crowd[i], 1, 9, NOW), SHM_CACHE_STORED);
	for (uint32_t i = 0; i < SHM_CACHE_WAYS; i++)
		assert_int_equal(
		    test_look(cache, crowd[i], NOW, NULL), SHM_CACHE_HIT);
	/* Its own. */
	own = way_of(crowd[4]);
	assert_int_equal(
	    test_store(cache, crowd[4], 2, 9, NOW), SHM_CACHE_STORED);
	assert_ptr_equal(way_of(crowd[4]), own);
	assert_int_equal(counter(SHM_CACHE_evictions), 0);
	/* An empty one. */
	way = way_of(crowd[2]);
	atomic_store(way, 0);
	assert_int_equal(
	    test_store(cache, crowd[6], 1, 9, NOW), SHM_CACHE_STORED);
	assert_ptr_equal(way_of(crowd[6]), way);
	assert_int_equal(test_look(cache, crowd[6], NOW, NULL), SHM_CACHE_HIT);
	assert_int_equal(counter(SHM_CACHE_evictions), 0);
	/* A dead one, although it was used most. */
	way = way_of(crowd[3]);
	atomic_fetch_or(way, 3 * SHM_CACHE_FREQ_ONE);
	{
		uint64_t offset = shm_cache_index_offset(*way);

		cache->data[offset / 8 + 1] += (uint64_t)1 << 32; /* version */
	}
	assert_int_equal(
	    test_store(cache, crowd[7], 1, 9, NOW), SHM_CACHE_STORED);
	assert_ptr_equal(way_of(crowd[7]), way);
	assert_int_equal(test_look(cache, crowd[7], NOW, NULL), SHM_CACHE_HIT);
	assert_int_equal(counter(SHM_CACHE_evictions), 0);
	/* The least used. */
	way = way_of(crowd[0]);
	atomic_fetch_and(way, ~(3 * SHM_CACHE_FREQ_ONE));
	assert_int_equal(
	    test_store(cache, crowd[8], 1, 9, NOW), SHM_CACHE_STORED);
	assert_ptr_equal(way_of(crowd[8]), way);
	assert_int_equal(counter(SHM_CACHE_evictions), 1);
	assert_int_equal(test_look(cache, crowd[0], NOW, NULL), SHM_CACHE_MISS);
}

static void
a_replaced_entry_keeps_its_use_and_its_queue(void **state)
{
	(void)state;
	assert_int_equal(test_store(cache, 1, 1, 9, NOW), SHM_CACHE_STORED);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(test_look(cache, 1, NOW, NULL), SHM_CACHE_HIT);
	assert_int_equal(test_store(cache, 1, 2, 9, NOW), SHM_CACHE_STORED);
	assert_int_equal(shm_cache_index_freq(*way_of(1)), 3);
	assert_int_equal(queue_of(1), SHM_CACHE_SMALL);
}

/* ---- eviction */

static void
new_keys_are_small_and_those_that_come_back_are_main(void **state)
{
	uint64_t n = 0;

	(void)state;
	assert_int_equal(test_store(cache, n, 1, 400, NOW), SHM_CACHE_STORED);
	assert_int_equal(queue_of(n), SHM_CACHE_SMALL);
	/* Others, until it has gone: noted in the ghost. */
	while (test_look(worker[1], 0, NOW, NULL) == SHM_CACHE_HIT) {
		_Atomic uint64_t *way = way_of(0);

		atomic_fetch_and(way, ~(3 * SHM_CACHE_FREQ_ONE));
		assert_int_equal(
		    test_store(cache, ++n, 1, 400, NOW), SHM_CACHE_STORED);
		assert_true(n < 100000);
	}
	/* That was the first walk; when it has ended there is a spare. */
	while (cache->spare.segment == SHM_CACHE_NONE)
		assert_int_equal(
		    test_store(cache, ++n, 1, 400, NOW), SHM_CACHE_STORED);
	assert_int_equal(test_store(cache, 0, 1, 400, NOW), SHM_CACHE_STORED);
	assert_int_equal(queue_of(0), SHM_CACHE_MAIN);
	/* Once: the ghost forgot it. */
	assert_false(shm_cache_ghost_take(
	    cache, test_book(cache, &(struct test_key){0}, 0)->hash));
}

static void
what_was_used_survives_a_scan(void **state)
{
	enum { USED = 50, SCANNED = 20000 };
	uint32_t survived = 0;

	(void)state;
	for (uint64_t n = 0; n < SCANNED; n++) {
		assert_int_equal(
		    test_store(cache, n, 1, 400, NOW), SHM_CACHE_STORED);
		if (n > 0 && n % 10 == 0)
			(void)test_look(cache, 10 * (n / 10 % USED), NOW, NULL);
	}
	for (uint64_t n = 0; n < USED; n++)
		survived +=
		    test_look(cache, 10 * n, NOW, NULL) == SHM_CACHE_HIT;
	assert_true(survived > USED * 9 / 10);
	assert_true(counter(SHM_CACHE_promotions) > 0);
	assert_true(counter(SHM_CACHE_evictions) > SCANNED / 2);
}

static void
dead_entries_are_dropped_for_free(void **state)
{
	uint64_t evictions;

	(void)state;
	for (uint64_t n = 0; n < 5000; n++) {
		assert_int_equal(
		    test_store(cache, n, 1, 400, NOW), SHM_CACHE_STORED);
		(void)test_look(cache, n, NOW, NULL);
	}
	shm_cache_flush(cache, SHM_CACHE_BOOK);
	evictions = counter(SHM_CACHE_evictions);
	for (uint64_t n = 10000; n < 10100; n++)
		assert_int_equal(
		    test_store(cache, n, 1, 400, NOW), SHM_CACHE_STORED);
	assert_int_equal(counter(SHM_CACHE_evictions), evictions);
	for (uint64_t n = 10000; n < 10100; n++)
		assert_int_equal(test_look(cache, n, NOW, NULL), SHM_CACHE_HIT);
}

static uint64_t
random_next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

/* Sizes from nothing to the limit, invalidations, flushes, four workers.
 * Returns the puts that were not stored. */
static uint32_t
churn(uint64_t seed, uint32_t rounds)
{
	uint32_t refused = 0;
	uint32_t value_max = shm_cache_value_max(cache) - 18;
	uint64_t x = seed;
	struct test_key test;

	for (uint32_t i = 0; i < rounds; i++) {
		struct shm_cache *me = worker[random_next(&x) % WORKERS];
		uint64_t n = random_next(&x) % 8000;
		uint64_t roll = random_next(&x) % 1000;
		uint32_t bytes = roll < 900 ? (uint32_t)(roll * 2)
					    : (uint32_t)(n % value_max);

		n = n * n / 8000; /* some more often than others */
		if (roll < 3)
			shm_cache_invalidate(me, test_book(me, &test, n)->hash);
		else if (roll == 3 && i % 7 == 0)
			shm_cache_flush(me, SHM_CACHE_BOOK);
		else if (test_look(me, n, NOW, NULL) == SHM_CACHE_MISS)
			refused += test_store(me, n, 1, bytes, NOW) !=
				   SHM_CACHE_STORED;
	}
	return refused;
}

static void
a_full_cache_under_churn_keeps_its_invariants(void **state)
{
	(void)state;
	for (uint32_t i = 1; i <= 40; i++) {
		assert_int_equal(churn(i * 0x9e3779b97f4a7c15ULL, 2000), 0);
		test_audit(cache);
	}
	/* Each worker keeps at most three segments, and one that it walks. */
	for (uint32_t i = 0; i < WORKERS; i++)
		assert_true(worker[i]->evict.survived * 100ULL <=
			    cache->segment_bytes * 75);
	assert_true(counter(SHM_CACHE_evictions) > 10000);
}

static void
generations_of_segments_wrap_unnoticed(void **state)
{
	static const uint32_t gens[] = {0xffe, 0xfffffffe};

	(void)state;
	for (size_t k = 0; k < SHM_ARRAY_LEN(gens); k++) {
		uint32_t wrapped = 0;

		if (k == 1) {
			teardown(NULL);
			setup(NULL);
		}
		for (uint32_t i = 0; i < cache->segments_count; i++)
			cache->word[i] = (uint64_t)gens[k] << 32;
		for (uint32_t i = 1; i <= 10; i++) {
			churn(i * 77777, 2000);
			test_audit(cache);
		}
		for (uint32_t i = 0; i < cache->segments_count; i++) {
			uint32_t gen = shm_cache_word_gen(cache->word[i]);

			wrapped += k == 0 ? gen > 0xfff : gen < gens[k];
		}
		assert_true(wrapped > cache->segments_count / 2);
	}
}

static void
a_put_walks_at_most_a_few_entries(void **state)
{
	uint64_t most = 0, before, after;

	(void)state;
	for (uint64_t n = 0; n < 8000; n++) {
		before = counter(SHM_CACHE_promotions) +
			 counter(SHM_CACHE_evictions);
		assert_int_equal(
		    test_store(cache, n, 1, 4000, NOW), SHM_CACHE_STORED);
		after = counter(SHM_CACHE_promotions) +
			counter(SHM_CACHE_evictions);
		if (after - before > most)
			most = after - before;
	}
	assert_in_range(most, 1, 9); /* eight walked, one in the bucket */
}

static void
a_stored_hint_that_is_wrong_does_no_harm(void **state)
{
	(void)state;
	churn(1, 3000);
	for (uint32_t i = 0; i < WORKERS; i++)
		worker[i]->scan_hint = UINT32_MAX - i;
	churn(2, 3000);
	for (uint32_t i = 0; i < WORKERS; i++)
		assert_true(worker[i]->scan_hint <= cache->segments_count);
}

static void
without_a_segment_a_put_gives_up_and_drops_the_older_row(void **state)
{
	struct test_key test;

	(void)state;
	assert_int_equal(
	    test_store(worker[1], 1, 1, 400, NOW), SHM_CACHE_STORED);
	assert_int_equal(test_look(cache, 1, NOW, NULL), SHM_CACHE_HIT);
	/* All are in the hands of others. */
	for (uint32_t i = 0; i < cache->segments_count; i++)
		if (shm_cache_word_state(cache->word[i]) == SHM_CACHE_FREE)
			cache->word[i] = shm_cache_word(
			    0, 0, 2 + i % 2, SHM_CACHE_SMALL, SHM_CACHE_ACTIVE);
	assert_int_equal(test_store(cache, 2, 1, 400, NOW), SHM_CACHE_GAVE_UP);
	assert_int_equal(test_store(cache, 1, 1, 400, NOW), SHM_CACHE_GAVE_UP);
	assert_int_equal(test_look(cache, 1, NOW, NULL), SHM_CACHE_HIT);
	assert_int_equal(test_store(cache, 1, 2, 400, NOW), SHM_CACHE_GAVE_UP);
	assert_int_equal(test_look(cache, 1, NOW, NULL), SHM_CACHE_MISS);
	assert_null(way_of(1));
	(void)test_book(cache, &test, 1);
	for (uint32_t i = 0; i < cache->segments_count; i++)
		if (shm_cache_word_slot(cache->word[i]) >= 2)
			cache->word[i] = 0;
}

/* ---- death */

static uint32_t
segments_of(uint32_t slot)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < cache->segments_count; i++) {
		uint64_t word = cache->word[i];
		uint32_t state = shm_cache_word_state(word);

		count +=
		    (state == SHM_CACHE_ACTIVE || state == SHM_CACHE_EVICT) &&
		    shm_cache_word_slot(word) == slot;
	}
	return count;
}

static void
a_sweep_takes_all_from_the_dead_and_nothing_from_the_living(void **state)
{
	struct shm_cache_debt debt;
	uint32_t others[WORKERS];

	(void)state;
	churn(3, 20000);
	assert_true(segments_of(1) >= 2);
	for (uint32_t i = 0; i < WORKERS; i++)
		others[i] = segments_of(i);
	shm_cache_sweep(cache, 1, NOW, &debt);
	assert_int_equal(segments_of(1), 0);
	for (uint32_t i = 0; i < WORKERS; i++)
		if (i != 1)
			assert_int_equal(segments_of(i), others[i]);
	assert_int_equal(cache->slot[1].incarnation, 1);
	test_audit(cache);
	/* The next process in the slot: it can store at once. */
	shm_cache_enter(worker[1], 1);
	assert_int_equal(worker[1]->incarnation, 1);
	assert_int_equal(
	    test_store(worker[1], 9999, 1, 400, NOW), SHM_CACHE_STORED);
	assert_true(churn(4, 20000) < 20);
	test_audit(cache);
	/* Twice in a row is once. */
	shm_cache_sweep(cache, 1, NOW, &debt);
	shm_cache_sweep(cache, 1, NOW, &debt);
	shm_cache_enter(worker[1], 1);
	churn(5, 2000);
}

static void
segments_are_not_lost_however_often_a_worker_dies(void **state)
{
	struct shm_cache_stats stats;
	struct shm_cache_debt debt;

	(void)state;
	for (uint32_t i = 1; i <= 200; i++) {
		churn(i, 300);
		shm_cache_sweep(cache, i % WORKERS, NOW, &debt);
		shm_cache_enter(worker[i % WORKERS], i % WORKERS);
	}
	churn(1000, 20000);
	shm_cache_stats(cache, &stats);
	assert_int_equal(stats.segments_free, 0);
	assert_true(stats.used_bytes > stats.data_bytes * 8 / 10);
}

static void
a_worker_killed_while_it_stores_leaves_a_sound_cache(void **state)
{
	(void)state;
	for (uint32_t i = 1; i <= 20; i++) {
		struct shm_cache_debt debt;
		int status;
		pid_t pid = fork();

		assert_true(pid != -1);
		if (pid == 0) {
			shm_cache_enter(cache, 0);
			worker[0] = worker[1] = worker[2] = worker[3] = cache;
			for (uint64_t k = i;; k++)
				churn(k, 1000);
		}
		usleep(5000);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		shm_cache_sweep(cache, 0, NOW, &debt);
		test_audit(cache);
	}
	assert_true(counter(SHM_CACHE_puts) > 0);
	shm_cache_enter(cache, 0);
	churn(1, 20000);
}

static void
two_processes_churn_one_full_cache(void **state)
{
	pid_t pid[2];

	(void)state;
	for (uint32_t i = 0; i < 2; i++) {
		pid[i] = fork();
		assert_true(pid[i] != -1);
		if (pid[i] == 0) {
			uint32_t refused = 0;

			shm_cache_enter(cache, i);
			worker[0] = worker[1] = worker[2] = worker[3] = cache;
			for (uint64_t k = 1; k <= 20; k++)
				refused += churn(k * 31 + i, 2000);
			/* Some meet an invalidation, or no room at once. */
			_exit(refused > 400);
		}
	}
	for (uint32_t i = 0; i < 2; i++) {
		struct shm_cache_debt debt;
		int status;

		assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
		assert_int_equal(status, 0);
		shm_cache_sweep(cache, i, NOW, &debt);
		shm_cache_enter(worker[i], i);
	}
	test_audit(cache);
	assert_true(churn(9, 2000) < 20);
}

static void
settling_a_debt_invalidates_all_of_it(void **state)
{
	struct shm_cache_debt debt = {.due_us = NOW, .count = 2};
	struct test_key test;

	(void)state;
	for (uint64_t n = 1; n <= 3; n++)
		assert_int_equal(
		    test_store(cache, n, 1, 9, NOW), SHM_CACHE_STORED);
	debt.hash[0] = test_book(cache, &test, 1)->hash;
	debt.hash[1] = test_book(cache, &test, 2)->hash;
	shm_cache_settle(cache, &debt);
	assert_int_equal(debt.due_us, 0);
	assert_int_equal(test_look(cache, 1, NOW, NULL), SHM_CACHE_MISS);
	assert_int_equal(test_look(cache, 2, NOW, NULL), SHM_CACHE_MISS);
	assert_int_equal(test_look(cache, 3, NOW, NULL), SHM_CACHE_HIT);
	shm_cache_settle(cache, &debt); /* nothing is left of it */
	assert_int_equal(counter(SHM_CACHE_invalidations), 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(a_value_up_to_the_limit_is_stored_and_one_byte_more_is_not),
	    TEST(a_head_of_4_KiB_is_too_large),
	    TEST(a_put_under_an_outdated_lease_stores_nothing),
	    TEST(an_entry_that_slipped_in_under_an_old_lease_is_not_served),
	    TEST(a_put_without_its_claim_is_lost),
	    TEST(an_older_row_does_not_replace_a_newer_one),
	    TEST(what_is_not_served_any_more_does_not_stop_an_older_row),
	    TEST(a_load_from_before_does_not_replace_one_from_after),
	    TEST(of_two_ways_of_one_key_the_newer_row_is_shown_and_one_left),
	    TEST(large_values_begin_on_a_cache_line_wherever_they_move),
	    TEST(a_put_takes_its_own_way_or_an_empty_dead_or_least_used_one),
	    TEST(a_replaced_entry_keeps_its_use_and_its_queue),
	    TEST(new_keys_are_small_and_those_that_come_back_are_main),
	    TEST(what_was_used_survives_a_scan),
	    TEST(dead_entries_are_dropped_for_free),
	    TEST(a_full_cache_under_churn_keeps_its_invariants),
	    TEST(generations_of_segments_wrap_unnoticed),
	    TEST(a_put_walks_at_most_a_few_entries),
	    TEST(a_stored_hint_that_is_wrong_does_no_harm),
	    TEST(without_a_segment_a_put_gives_up_and_drops_the_older_row),
	    TEST(a_sweep_takes_all_from_the_dead_and_nothing_from_the_living),
	    TEST(segments_are_not_lost_however_often_a_worker_dies),
	    TEST(a_worker_killed_while_it_stores_leaves_a_sound_cache),
	    TEST(two_processes_churn_one_full_cache),
	    TEST(settling_a_debt_invalidates_all_of_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
