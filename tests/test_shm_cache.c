/*
 * Goal: the cache's mapping has the size that was announced and can be adopted;
 * a lookup finds exactly what may still be served, whatever was invalidated,
 * flushed, suspected or has aged, also where counters wrap; and looking at the
 * cache from outside tells the truth.
 * Method: one worker's view of a small cache with a clock and a seed of the
 * test's own; states that take too long to reach are written into the mapping.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/shm_test.h"

#define MIB	   (1024 * 1024ULL)
#define NOW	   TEST_START
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static struct shm_cache *cache;

static int
setup(void **state)
{
	(void)state;
	cache = test_cache_new(1 * MIB, 4);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	test_audit(cache);
	shm_cache_free(&cache);
	return cache == NULL ? 0 : -1;
}

static uint64_t
counter(enum shm_cache_counter which)
{
	struct shm_cache_stats stats;

	shm_cache_stats(cache, &stats);
	return stats.counter[which];
}

/* ---- mapping */

static void
sizes_follow_from_the_options(void **state)
{
	static const struct {
		uint64_t bytes;
		uint32_t slots_count;
		uint64_t segment_bytes;
		uint32_t value_max;
	} table[] = {
	    {1 * MIB, 1, 16384, 4096},
	    {4 * MIB, 1, 16384, 4096},
	    {64 * MIB, 1, 262144, 65536},
	    {64 * MIB, 4, 262144, 65536},
	    {64 * MIB, 8, 131072, 32768},
	    {64 * MIB, 64, 16384, 4096},
	    {100 * MIB, 4, 262144, 65536},
	    {1024 * MIB, 4, 4194304, 65536},
	    {1024 * MIB, 64, 262144, 65536},
	};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(table); i++) {
		const struct shm_cache_options options = {
		    .bytes = table[i].bytes,
		    .slots_count = table[i].slots_count,
		};
		uint64_t least;
		struct shm_cache *made;
		struct shm_cache_stats stats;

		if (table[i].bytes > 100 * MIB)
			continue; /* checked below without memory */
		made = shm_cache_new(&options);
		assert_non_null(made);
		shm_cache_stats(made, &stats);
		assert_int_equal(stats.segment_bytes, table[i].segment_bytes);
		assert_int_equal(
		    stats.segments_count, table[i].bytes / stats.segment_bytes);
		assert_int_equal(
		    stats.map_bytes, shm_cache_map_bytes(&options));
		assert_int_equal(shm_map_fd_bytes(shm_cache_fd(made)),
		    shm_cache_map_bytes(&options));
		assert_int_equal(shm_cache_value_max(made), table[i].value_max);
		assert_true(stats.data_bytes <= options.bytes);
		if (shm_cache_is_large_enough(&options, &least))
			assert_true((uint64_t)stats.segments_count >=
				    table[i].slots_count * 60ULL);
		test_audit(made);
		shm_cache_free(&made);
	}
}

static void
a_cache_that_is_too_small_says_what_is_needed(void **state)
{
	static const struct {
		uint64_t bytes;
		uint32_t slots_count;
		bool is_large_enough;
	} table[] = {
	    {MIB, 1, true},
	    {MIB - 1, 1, false},
	    {MIB, 2, false},
	    {64 * MIB, 64, true},
	    {4 * MIB, 4, true},
	    {4 * MIB, 5, false},
	};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(table); i++) {
		struct shm_cache_options options = {
		    .bytes = table[i].bytes,
		    .slots_count = table[i].slots_count,
		};
		uint64_t least;

		assert_int_equal(shm_cache_is_large_enough(&options, &least),
		    table[i].is_large_enough);
		options.bytes = least;
		assert_true(shm_cache_is_large_enough(&options, &least));
		assert_int_equal(options.bytes, least);
		options.bytes--;
		assert_false(shm_cache_is_large_enough(&options, &least));
	}
}

static void
the_file_can_neither_shrink_nor_grow(void **state)
{
	int fd = shm_cache_fd(cache);

	(void)state;
	assert_int_equal(ftruncate(fd, 4096), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(fd, 1 << 30), -1);
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

static void
every_worker_has_a_waker_that_does_not_block(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < SHM_CACHE_SLOTS_MAX; i++) {
		int fd = cache->wake_fd[i];

		if (i >= 4) {
			assert_int_equal(fd, -1);
			continue;
		}
		assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
		assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	}
}

static void
a_cache_can_be_adopted_with_all_that_it_holds(void **state)
{
	struct shm_cache *adopted;
	int fd = dup(shm_cache_fd(cache));

	(void)state;
	assert_int_equal(test_store(cache, 1, 3, 400, NOW), SHM_CACHE_STORED);
	adopted = shm_cache_adopt(fd, shm_cache_layout(cache), NULL);
	assert_non_null(adopted);
	shm_cache_set_policy(adopted, &cache->policy);
	shm_cache_enter(adopted, 1);
	assert_int_equal(test_look(adopted, 1, NOW, NULL), SHM_CACHE_HIT);
	assert_int_equal(test_store(adopted, 2, 1, 100, NOW), SHM_CACHE_STORED);
	assert_int_equal(test_look(cache, 2, NOW, NULL), SHM_CACHE_HIT);
	test_audit(adopted);
	shm_cache_free(&adopted);
}

static int
fd_with(uint64_t bytes, bool is_sealed, bool has_head)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd != -1);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	if (has_head)
		assert_int_equal(
		    pwrite(fd, cache->head, sizeof(*cache->head), 0),
		    sizeof(*cache->head));
	if (is_sealed)
		assert_int_equal(
		    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
	return fd;
}

static void
what_is_no_such_cache_is_not_adopted(void **state)
{
	uint64_t bytes = shm_map_fd_bytes(shm_cache_fd(cache));
	uint64_t layout = shm_cache_layout(cache);
	struct shm_cache_head *head = cache->head;
	struct shm_cache_head saved = *head;
	const struct {
		int fd;
		uint64_t layout;
	} table[] = {
	    {dup(shm_cache_fd(cache)), layout + 1},
	    {fd_with(bytes, false, true), layout},
	    {fd_with(bytes, true, false), layout},
	    {fd_with(bytes + 4096, true, true), layout},
	    {fd_with(bytes - 4096, true, true), layout},
	    {fd_with(16, true, false), layout},
	    {open("/dev/null", O_RDWR | O_CLOEXEC), layout},
	    {-1, layout},
	};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(table); i++) {
		errno = 0;
		assert_null(
		    shm_cache_adopt(table[i].fd, table[i].layout, NULL));
		assert_int_equal(errno, EPROTO);
		close(table[i].fd);
	}
	/* Counts that lead outside, or are none. */
	head->segments_count *= 2;
	assert_null(shm_cache_adopt(shm_cache_fd(cache), layout, NULL));
	*head = saved;
	head->buckets_count = UINT64_MAX / 32;
	assert_null(shm_cache_adopt(shm_cache_fd(cache), layout, NULL));
	*head = saved;
	head->segment_bytes = 24576;
	assert_null(shm_cache_adopt(shm_cache_fd(cache), layout, NULL));
	*head = saved;
	head->slots_count = SHM_CACHE_SLOTS_MAX + 1;
	assert_null(shm_cache_adopt(shm_cache_fd(cache), layout, NULL));
	*head = saved;
}

/* ---- keys */

static void
the_hash_depends_on_the_seed_and_on_every_byte(void **state)
{
	struct shm_hash one, other;
	char key[64];

	(void)state;
	shm_hash_init(&one, 1);
	shm_hash_init(&other, 2);
	memset(key, 'x', sizeof(key));
	for (size_t len = 1; len <= sizeof(key); len++) {
		uint64_t hash = shm_hash_bytes(&one, key, len);

		assert_true(hash != shm_hash_bytes(&other, key, len));
		assert_true(hash != shm_hash_bytes(&one, key, len - 1));
		for (size_t i = 0; i < len; i++) {
			key[i] ^= 1;
			assert_true(hash != shm_hash_bytes(&one, key, len));
			key[i] ^= 1;
		}
		assert_true(hash == shm_hash_bytes(&one, key, len));
	}
}

static void
the_hash_spreads_keys_over_buckets_stripes_and_tags(void **state)
{
	enum { KEYS = 64000, SLOTS = 64 };
	uint32_t low[SLOTS] = {0}, high[SLOTS] = {0}, tag[SLOTS] = {0};
	struct test_key test;

	(void)state;
	for (uint64_t n = 0; n < KEYS; n++) {
		uint64_t hash = test_book(cache, &test, n)->hash;

		low[(uint32_t)hash >> 26]++;
		high[hash >> 58]++;
		tag[shm_cache_tag_of(hash) % SLOTS]++;
	}
	/* 1,000 expected in each; ten deviations are 316. */
	for (uint32_t i = 0; i < SLOTS; i++) {
		assert_in_range(low[i], 684, 1316);
		assert_in_range(high[i], 684, 1316);
		assert_in_range(tag[i], 684, 1316);
	}
}

static void
keys_of_every_length_are_told_apart(void **state)
{
	struct shm_cache_lease lease;
	struct shm_cache_view view;
	struct test_key test;
	char data[SHM_CACHE_KEY_MAX + 1] = {0};

	(void)state;
	for (uint32_t len = 1; len <= 40; len++) {
		memset(data, 'k', len);
		test_key(cache, &test, SHM_CACHE_BOOK, data);
		assert_int_equal(
		    shm_cache_get(cache, &test.key, NOW, &lease, &view),
		    SHM_CACHE_MISS);
		assert_int_equal(
		    test_put(cache, &test.key, &lease, len, 1, len, NOW),
		    SHM_CACHE_STORED);
	}
	for (uint32_t len = 1; len <= 40; len++) {
		memset(data, 0, sizeof(data));
		memset(data, 'k', len);
		test_key(cache, &test, SHM_CACHE_BOOK, data);
		assert_int_equal(
		    shm_cache_get(cache, &test.key, NOW, &lease, &view),
		    SHM_CACHE_HIT);
		assert_true(test_value_is(cache, &view, len, 1));
		/* The same hash and length, another last byte. */
		test.data[len - 1] ^= 1;
		assert_int_equal(
		    shm_cache_get(cache, &test.key, NOW, &lease, &view),
		    SHM_CACHE_MISS);
	}
	memset(data, 'k', SHM_CACHE_KEY_MAX);
	test_key(cache, &test, SHM_CACHE_BOOK, data);
	(void)!shm_cache_get(cache, &test.key, NOW, &lease, &view);
	assert_int_equal(
	    test_put(cache, &test.key, &lease, 9, 1, 9, NOW), SHM_CACHE_STORED);
	assert_int_equal(
	    shm_cache_get(cache, &test.key, NOW, &lease, &view), SHM_CACHE_HIT);
	assert_true(test_value_is(cache, &view, 9, 1));
}

/* ---- reading */

static void
a_hit_tells_everything_about_the_answer(void **state)
{
	const struct shm_cache_value value = {
	    .id = 0x123456789abcdef0,
	    .row_version = 0xfedcba98,
	    .modified_s = 0x87654321,
	    .fresh_us = 1500 * 1000,
	    .status = 404,
	    .cls = SHM_CACHE_NEGATIVE,
	    .head = "the head",
	    .head_bytes = 8,
	    .body = "and the body",
	    .body_bytes = 12,
	};
	struct test_key test;
	const struct shm_cache_key *key = test_book(cache, &test, 5);
	struct shm_cache_lease lease;
	struct shm_cache_view view;
	char out[21] = "";

	(void)state;
	assert_int_equal(
	    shm_cache_get(cache, key, NOW, &lease, &view), SHM_CACHE_MISS);
	assert_int_equal(
	    shm_cache_put(cache, key, &lease, &value, NULL, NOW + 700),
	    SHM_CACHE_STORED);
	assert_int_equal(
	    shm_cache_get(cache, key, NOW + 999, &lease, &view), SHM_CACHE_HIT);
	assert_true(view.id == value.id);
	assert_int_equal(view.row_version, value.row_version);
	assert_int_equal(view.modified_s, value.modified_s);
	assert_int_equal(view.taken_us, NOW); /* the lease's, not the put's */
	assert_int_equal(view.status, 404);
	assert_int_equal(view.cls, SHM_CACHE_NEGATIVE);
	assert_int_equal(view.head_bytes, 8);
	assert_int_equal(view.value_bytes, 20);
	assert_true(shm_cache_copy(cache, &view, 0, 20, out));
	assert_string_equal(out, "the headand the body");
}

/* What is written as words is read as fields, by this and by other binaries. */
static void
the_fields_of_a_view_are_where_the_words_have_them(void **state)
{
	const struct shm_cache_view view = {.word = {
						0x0123456789abcdef,
						0x87654321abc54321,
						0x123456789abc2def,
						0x1111111122222222,
						0x3333333344444444,
						0x5555555566666666,
						0x77777777fedcb987,
					    }};

	(void)state;
	assert_true(view.hash == 0x0123456789abcdef);
	assert_true(view.version == 0x87654321);
	assert_true(view.key_bytes == 0xabc);
	assert_true(view.value_bytes == 0x54321);
	assert_true(view.taken_us == 0x123456789abc);
	assert_true(view.cls == 2);
	assert_true(view.status == 0xdef);
	assert_true(view.fresh_ms == 0x11111111);
	assert_true(view.modified_s == 0x22222222);
	assert_true(view.generation == 0x3333333344444444);
	assert_true(view.id == 0x5555555566666666);
	assert_true(view.row_version == 0x77777777);
	assert_true(view.suspect == 0xfedcb);
	assert_true(view.head_bytes == 0x987);
}

static void
any_part_of_a_value_can_be_copied(void **state)
{
	struct test_key test;
	struct shm_cache_lease lease;
	struct shm_cache_view view;
	char want[301], have[301];

	(void)state;
	assert_int_equal(test_store(cache, 1, 1, 297, NOW), SHM_CACHE_STORED);
	assert_int_equal(shm_cache_get(cache, test_book(cache, &test, 1), NOW,
			     &lease, &view),
	    SHM_CACHE_HIT);
	memcpy(want, "head", 4);
	test_fill(want + 4, 297, 1, 1);
	for (uint32_t from = 0; from <= 301; from += 7)
		for (uint32_t len = 0; len <= 301 - from; len += 3) {
			memset(have, 0x55, sizeof(have));
			assert_true(
			    shm_cache_copy(cache, &view, from, len, have));
			assert_memory_equal(have, want + from, len);
			if (len < 301)
				assert_int_equal(have[len], 0x55);
		}
}

static void
a_value_that_went_away_is_not_copied(void **state)
{
	struct test_key test;
	struct shm_cache_lease lease;
	struct shm_cache_view view;
	char out[404];
	_Atomic uint64_t *word;
	uint64_t old;

	(void)state;
	assert_int_equal(test_store(cache, 1, 1, 400, NOW), SHM_CACHE_STORED);
	assert_int_equal(shm_cache_get(cache, test_book(cache, &test, 1), NOW,
			     &lease, &view),
	    SHM_CACHE_HIT);
	word = &cache->word[view.offset >> cache->segment_shift];
	old = atomic_load(word);
	/* Sealing changes no byte: the copy is good. */
	atomic_store(word, shm_cache_word(shm_cache_word_gen(old), 0, 0,
			       SHM_CACHE_SMALL, SHM_CACHE_SEALED));
	assert_true(shm_cache_copy(cache, &view, 0, 404, out));
	/* A new life of the segment does, and 4,096 of them too, which an
	 * index word cannot tell from the old one. */
	atomic_store(word, old + ((uint64_t)1 << 32));
	assert_false(shm_cache_copy(cache, &view, 0, 404, out));
	assert_int_equal(test_look(cache, 1, NOW, NULL), SHM_CACHE_MISS);
	atomic_store(word, old + ((uint64_t)4096 << 32));
	assert_false(shm_cache_copy(cache, &view, 0, 404, out));
	assert_true(counter(SHM_CACHE_retries) > 0);
	atomic_store(word, old);
}

static void
an_answer_ages(void **state)
{
	const uint64_t stale = TEST_FRESH + TEST_STALE;
	const uint64_t error = stale + TEST_ERROR;
	const struct {
		int64_t age_us;
		enum shm_cache_found found;
	} table[] = {
	    {0, SHM_CACHE_HIT},
	    {-1, SHM_CACHE_HIT}, /* a clock that was read a moment ago */
	    {-(int64_t)TEST_START, SHM_CACHE_HIT},
	    {(int64_t)TEST_FRESH, SHM_CACHE_HIT},
	    {(int64_t)TEST_FRESH + 1, SHM_CACHE_STALE},
	    {(int64_t)stale, SHM_CACHE_STALE},
	    {(int64_t)stale + 1, SHM_CACHE_ERROR_ONLY},
	    {(int64_t)error, SHM_CACHE_ERROR_ONLY},
	    {(int64_t)error + 1, SHM_CACHE_MISS},
	    {(int64_t)1 << 47, SHM_CACHE_MISS},
	};

	(void)state;
	assert_int_equal(test_store(cache, 1, 1, 9, NOW), SHM_CACHE_STORED);
	for (size_t i = 0; i < SHM_ARRAY_LEN(table); i++)
		assert_int_equal(
		    test_look(cache, 1, NOW + (uint64_t)table[i].age_us, NULL),
		    table[i].found);
}

static void
endless_times_do_not_overflow(void **state)
{
	const struct shm_cache_policy policy = {
	    .stale_us = UINT64_MAX, .error_us = UINT64_MAX};
	struct shm_cache_value value = {.fresh_us = UINT64_MAX, .status = 200};
	struct test_key test;
	const struct shm_cache_key *key = test_book(cache, &test, 1);
	struct shm_cache_lease lease;
	struct shm_cache_view view;

	(void)state;
	shm_cache_set_policy(cache, &policy);
	(void)!shm_cache_get(cache, key, NOW, &lease, &view);
	assert_int_equal(shm_cache_put(cache, key, &lease, &value, NULL, NOW),
	    SHM_CACHE_STORED);
	assert_int_equal(
	    shm_cache_get(cache, key, NOW + 1, &lease, &view), SHM_CACHE_HIT);
	assert_int_equal(shm_cache_get(cache, key, UINT64_MAX, &lease, &view),
	    SHM_CACHE_STALE);
}

static void
freshness_is_rounded_up_to_milliseconds(void **state)
{
	struct shm_cache_value value = {.fresh_us = 1, .status = 200};
	struct test_key test;
	const struct shm_cache_key *key = test_book(cache, &test, 1);
	struct shm_cache_lease lease;
	struct shm_cache_view view;

	(void)state;
	(void)!shm_cache_get(cache, key, NOW, &lease, &view);
	assert_int_equal(shm_cache_put(cache, key, &lease, &value, NULL, NOW),
	    SHM_CACHE_STORED);
	assert_int_equal(shm_cache_get(cache, key, NOW + 1000, &lease, &view),
	    SHM_CACHE_HIT);
	assert_int_equal(shm_cache_get(cache, key, NOW + 1001, &lease, &view),
	    SHM_CACHE_STALE);
}

/* ---- the ends of validity */

/* Store book 1, list and negative of book 2, do something, see what is left. */
static void
store_one_of_each_class(void)
{
	struct test_key test;
	struct shm_cache_lease lease;
	struct shm_cache_view view;
	const struct shm_cache_value negative = {
	    .fresh_us = TEST_FRESH, .status = 404, .cls = SHM_CACHE_NEGATIVE};

	assert_int_equal(test_store(cache, 1, 1, 9, NOW), SHM_CACHE_STORED);
	test_key(cache, &test, SHM_CACHE_LIST, "l");
	(void)!shm_cache_get(cache, &test.key, NOW, &lease, &view);
	assert_int_equal(
	    test_put(cache, &test.key, &lease, 7, 0, 9, NOW), SHM_CACHE_STORED);
	test_book(cache, &test, 2);
	(void)!shm_cache_get(cache, &test.key, NOW, &lease, &view);
	assert_int_equal(
	    shm_cache_put(cache, &test.key, &lease, &negative, NULL, NOW),
	    SHM_CACHE_STORED);
}

static enum shm_cache_found
look_at_class(enum shm_cache_class cls, uint64_t now_us)
{
	struct test_key test;
	struct shm_cache_lease lease;
	struct shm_cache_view view;

	if (cls == SHM_CACHE_LIST)
		test_key(cache, &test, SHM_CACHE_LIST, "l");
	else
		test_book(cache, &test, cls == SHM_CACHE_BOOK ? 1 : 2);
	return shm_cache_get(cache, &test.key, now_us, &lease, &view);
}

static void
flush_books(void)
{
	shm_cache_flush(cache, SHM_CACHE_BOOK);
}

static void
flush_lists(void)
{
	shm_cache_flush(cache, SHM_CACHE_LIST);
}

static void
flush_negatives(void)
{
	shm_cache_flush(cache, SHM_CACHE_NEGATIVE);
}

static void
change_lists(void)
{
	shm_cache_lists_changed(cache);
}

static void
change_lists_relaxed(void)
{
	cache->policy.lists_relaxed = true;
	shm_cache_lists_changed(cache);
}

static void
suspect(void)
{
	shm_cache_suspect(cache);
}

static void
suspect_and_change_lists_relaxed(void)
{
	suspect();
	change_lists_relaxed();
}

static void
invalidate_book_1(void)
{
	struct test_key test;

	shm_cache_invalidate(cache, test_book(cache, &test, 1)->hash);
}

static void
nothing_happens(void)
{
}

/* As in shm_cache_found, short enough for a table. */
#define H SHM_CACHE_HIT
#define S SHM_CACHE_STALE
#define E SHM_CACHE_ERROR_ONLY
#define M SHM_CACHE_MISS

static void
each_event_ends_the_validity_of_its_own_answers(void **state)
{
	static const struct {
		void (*event)(void);
		enum shm_cache_found book, list, negative;
		enum shm_cache_found old_book, old_list;
	} table[] = {
	    {nothing_happens, H, H, H, S, S},
	    {flush_books, M, H, H, M, S},
	    {flush_lists, H, M, H, S, M},
	    {flush_negatives, H, H, M, S, S},
	    {change_lists, H, M, H, S, M},
	    {change_lists_relaxed, H, S, H, S, S},
	    {suspect, E, E, E, E, E},
	    {suspect_and_change_lists_relaxed, E, E, E, E, E},
	    {invalidate_book_1, M, H, H, M, S},
	};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(table); i++) {
		uint64_t late = NOW + TEST_FRESH + 1;

		cache->policy.lists_relaxed = false;
		store_one_of_each_class();
		table[i].event();
		assert_int_equal(
		    look_at_class(SHM_CACHE_BOOK, NOW), table[i].book);
		assert_int_equal(
		    look_at_class(SHM_CACHE_LIST, NOW), table[i].list);
		assert_int_equal(
		    look_at_class(SHM_CACHE_NEGATIVE, NOW), table[i].negative);
		assert_int_equal(
		    look_at_class(SHM_CACHE_BOOK, late), table[i].old_book);
		assert_int_equal(
		    look_at_class(SHM_CACHE_LIST, late), table[i].old_list);
	}
}

static void
versions_and_generations_may_wrap(void **state)
{
	struct test_key test;
	const struct shm_cache_key *key = test_book(cache, &test, 1);
	_Atomic uint32_t *version = shm_cache_version_of(cache, key->hash);
	_Atomic uint64_t *generation = cache->head->generation;

	(void)state;
	atomic_store(version, UINT32_MAX);
	atomic_store(&cache->head->suspect, SHM_CACHE_SUSPECT_MASK);
	for (uint32_t i = 0; i < SHM_CACHE_CLASSES; i++)
		atomic_store(&generation[i], UINT64_MAX);
	store_one_of_each_class();
	assert_int_equal(look_at_class(SHM_CACHE_BOOK, NOW), SHM_CACHE_HIT);
	invalidate_book_1();
	assert_int_equal(atomic_load(version), 0);
	assert_int_equal(look_at_class(SHM_CACHE_BOOK, NOW), SHM_CACHE_MISS);

	change_lists_relaxed();
	/* The soft half wrapped; the hard one stayed. */
	assert_true(atomic_load(&generation[SHM_CACHE_LIST]) ==
		    (uint64_t)UINT32_MAX << 32);
	assert_int_equal(look_at_class(SHM_CACHE_LIST, NOW), SHM_CACHE_STALE);
	flush_lists();
	assert_int_equal(atomic_load(&generation[SHM_CACHE_LIST]), 0);
	assert_int_equal(look_at_class(SHM_CACHE_LIST, NOW), SHM_CACHE_MISS);

	assert_int_equal(look_at_class(SHM_CACHE_NEGATIVE, NOW), SHM_CACHE_HIT);
	suspect(); /* its 20 bits in an entry wrap */
	assert_int_equal(
	    look_at_class(SHM_CACHE_NEGATIVE, NOW), SHM_CACHE_ERROR_ONLY);
}

static void
all_of_a_stripe_is_invalidated_and_nothing_else(void **state)
{
	struct test_key test, first;
	const struct shm_cache_key *key = test_book(cache, &first, 0);
	uint32_t same = 0, other = 0;

	(void)state;
	for (uint64_t n = 0; n < 1000; n++)
		assert_int_equal(
		    test_store(cache, n, 1, 9, NOW), SHM_CACHE_STORED);
	shm_cache_invalidate(cache, key->hash);
	for (uint64_t n = 0; n < 1000; n++) {
		bool is_same = shm_cache_version_of(
				   cache, test_book(cache, &test, n)->hash) ==
			       shm_cache_version_of(cache, key->hash);

		assert_int_equal(test_look(cache, n, NOW, NULL),
		    is_same ? SHM_CACHE_MISS : SHM_CACHE_HIT);
		same += is_same;
		other += !is_same;
	}
	assert_true(same >= 1);
	assert_true(other > 900);
}

static void
a_write_under_way_makes_its_keys_misses(void **state)
{
	struct test_key test;
	struct shm_cache_lease lease;
	struct shm_cache_view view;
	int intent;

	(void)state;
	store_one_of_each_class();
	test_book(cache, &test, 1);
	intent = shm_cache_intent_open(cache, &test.key.hash, 1);
	assert_true(intent >= 0);
	memset(&lease, 0xff, sizeof(lease));
	assert_int_equal(shm_cache_get(cache, &test.key, NOW, &lease, &view),
	    SHM_CACHE_MISS);
	assert_int_equal(lease.taken_us, NOW); /* written all the same */
	assert_int_equal(lease.version, 0);
	assert_int_equal(look_at_class(SHM_CACHE_LIST, NOW), SHM_CACHE_MISS);
	assert_int_equal(look_at_class(SHM_CACHE_NEGATIVE, NOW), SHM_CACHE_HIT);
	cache->policy.lists_relaxed = true;
	assert_int_equal(look_at_class(SHM_CACHE_LIST, NOW), SHM_CACHE_HIT);
	assert_int_equal(test_put(cache, &test.key, &lease, 1, 2, 9, NOW),
	    SHM_CACHE_OUTDATED);
	shm_cache_intent_close(cache, intent);
	assert_int_equal(test_put(cache, &test.key, &lease, 1, 2, 9, NOW),
	    SHM_CACHE_OUTDATED);
	assert_int_equal(test_store(cache, 1, 2, 9, NOW), SHM_CACHE_STORED);
}

/* ---- looking at it */

static void
reads_count_their_use_up_to_three_and_write_nothing_else(void **state)
{
	struct test_key test;
	const struct shm_cache_key *key = test_book(cache, &test, 1);
	struct shm_cache_bucket *bucket;
	uint64_t before[64], index = 0;
	uint32_t way = 0;

	(void)state;
	assert_int_equal(test_store(cache, 1, 1, 300, NOW), SHM_CACHE_STORED);
	bucket = shm_cache_bucket_of(cache, key->hash);
	while (bucket->way[way] == 0)
		way++;
	index = bucket->way[way];
	shm_map_read(
	    before, cache->data, shm_cache_index_offset(index), sizeof(before));
	for (uint32_t i = 0; i < 6; i++) {
		uint64_t after[64];

		assert_int_equal(
		    shm_cache_index_freq(bucket->way[way]), i < 3 ? i : 3);
		assert_int_equal(test_look(cache, 1, NOW, NULL), SHM_CACHE_HIT);
		shm_map_read(after, cache->data, shm_cache_index_offset(index),
		    sizeof(after));
		assert_memory_equal(before, after, sizeof(before));
	}
	assert_true(((bucket->way[way] ^ index) & SHM_CACHE_PLACE_MASK) == 0);
}

struct seen {
	uint32_t count, served;
	uint32_t until;
	struct shm_cache_dumped last;
};

static bool
see(void *owner, const struct shm_cache_dumped *dumped)
{
	struct seen *seen = owner;

	seen->count++;
	seen->served += dumped->is_served;
	seen->last = *dumped;
	return seen->count < seen->until;
}

static void
a_dump_shows_every_entry_and_stops_when_told(void **state)
{
	struct seen seen = {.until = UINT32_MAX};

	(void)state;
	shm_cache_dump(cache, NOW, see, &seen);
	assert_int_equal(seen.count, 0);
	assert_int_equal(test_store(cache, 77, 5, 96, NOW), SHM_CACHE_STORED);
	assert_int_equal(test_look(cache, 77, NOW, NULL), SHM_CACHE_HIT);
	shm_cache_dump(cache, NOW, see, &seen);
	assert_int_equal(seen.count, 1);
	assert_string_equal(seen.last.key, "b9780000000077");
	assert_int_equal(seen.last.key_len, 14);
	assert_int_equal(seen.last.frequency, 1);
	assert_int_equal(seen.last.cls, SHM_CACHE_BOOK);
	assert_int_equal(seen.last.status, 200);
	assert_int_equal(seen.last.value_bytes, 100);
	assert_int_equal(seen.last.row_version, 5);
	assert_int_equal(seen.last.taken_us, NOW);
	assert_true(seen.last.is_served);

	flush_books();
	store_one_of_each_class();
	seen = (struct seen){.until = UINT32_MAX};
	shm_cache_dump(cache, NOW, see, &seen);
	assert_int_equal(seen.count, 4);
	assert_int_equal(seen.served, 3);
	seen = (struct seen){.until = 2};
	shm_cache_dump(cache, NOW, see, &seen);
	assert_int_equal(seen.count, 2);
}

static void
statistics_add_up(void **state)
{
	struct shm_cache_stats stats;

	(void)state;
	shm_cache_stats(cache, &stats);
	assert_int_equal(stats.segments_free, stats.segments_count);
	assert_int_equal(stats.entries, 0);
	assert_int_equal(stats.used_bytes, 0);
	for (uint64_t n = 0; n < 100; n++)
		assert_int_equal(
		    test_store(cache, n, 1, 400, NOW), SHM_CACHE_STORED);
	shm_cache_stats(cache, &stats);
	assert_int_equal(stats.entries, 100);
	assert_int_equal(stats.counter[SHM_CACHE_puts], 100);
	assert_int_equal(
	    stats.used_bytes, 100 * shm_cache_entry_bytes(0, 14, 404));
	assert_int_equal(
	    stats.segments_free + stats.segments_small + stats.segments_main,
	    stats.segments_count);
	assert_int_equal(stats.data_bytes,
	    (uint64_t)stats.segments_count * stats.segment_bytes);
	assert_int_equal(stats.map_bytes, cache->map_bytes);
}

static void
counters_are_summed_over_slots_and_outsiders(void **state)
{
	static const uint32_t slots[] = {0, 3, SHM_CACHE_SLOT_OTHER};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(slots); i++) {
		shm_cache_enter(cache, slots[i]);
		for (uint32_t k = 0; k < SHM_CACHE_COUNTERS_COUNT; k++)
			shm_cache_count(cache, (enum shm_cache_counter)k);
		shm_cache_count(cache, SHM_CACHE_hits);
		assert_int_equal(counter(SHM_CACHE_hits), 2 * (i + 1));
		assert_int_equal(counter(SHM_CACHE_load_failures), i + 1);
	}
	assert_string_equal(shm_cache_counter_name(SHM_CACHE_hits), "hits");
	for (uint32_t k = 0; k < SHM_CACHE_COUNTERS_COUNT; k++)
		assert_true(strlen(shm_cache_counter_help(
				(enum shm_cache_counter)k)) > 10);
	invalidate_book_1();
	flush_books();
	suspect();
	assert_int_equal(counter(SHM_CACHE_invalidations), 4);
	assert_int_equal(counter(SHM_CACHE_flushes), 4);
	assert_int_equal(counter(SHM_CACHE_suspects), 4);
}

/* ---- the audit finds what is wrong */

static void
expect_breach(const char *what)
{
	char why[256];

	if (shm_cache_audit(cache, true, why, sizeof(why)) == 0)
		fail_msg("no breach instead of \"%s\"", what);
	if (strstr(why, what) == NULL)
		fail_msg("\"%s\" instead of \"%s\"", why, what);
	assert_true(shm_cache_audit(cache, true, NULL, 0) > 0);
}

static void
the_audit_finds_every_kind_of_damage(void **state)
{
	struct test_key test;
	struct shm_cache_lease lease;
	struct shm_cache_view view;
	struct shm_cache_bucket *bucket;
	struct shm_cache_segment *segment;
	_Atomic uint64_t *entry, *owner; /* the segment's word */
	uint64_t word, index, used;
	uint32_t way = 0;

	(void)state;
	shm_cache_enter(cache, 1); /* an owner that is not 0 */
	assert_int_equal(test_store(cache, 1, 1, 300, NOW), SHM_CACHE_STORED);
	assert_int_equal(shm_cache_get(cache, test_book(cache, &test, 1), NOW,
			     &lease, &view),
	    SHM_CACHE_HIT);
	segment = &cache->segment[view.offset >> cache->segment_shift];
	bucket = shm_cache_bucket_of(cache, test.key.hash);
	while (bucket->way[way] == 0)
		way++;
	owner = &cache->word[view.offset >> cache->segment_shift];
	word = *owner;
	index = bucket->way[way];
	used = segment->used;
	entry = &cache->data[shm_cache_index_offset(index) / 8];

	*owner = word | 7;
	expect_breach("A2: no such state");
	*owner = word + 1; /* SEALED, but with an owner */
	expect_breach("A2: an owner");
	*owner = word & ~(uint64_t)UINT32_MAX; /* FREE */
	expect_breach("A2: something is in a free segment");
	*owner = word + ((uint64_t)cache->slots_count << 4);
	expect_breach("A3: the owner is no slot");
	*owner = word + (1 << 12);
	expect_breach("A3: segment");
	*owner = word + ((uint64_t)1 << 32);
	expect_breach("A4: names an old generation");
	*owner = word;
	segment->used = used + 4;
	expect_breach("A2: used is impossible");
	segment->used = used - 16;
	expect_breach("A6: segment");
	segment->used = 0;
	expect_breach("A4: names a place beyond used");
	segment->used = used;
	bucket->way[way] = index | ((uint64_t)UINT32_MAX << 32);
	expect_breach("A4: names a place outside");
	bucket->way[way] = index + ((uint64_t)1 << 32);
	expect_breach("A5");
	bucket->way[way] = index ^ 1;
	expect_breach("A5: has another tag");
	bucket->way[way] = index;
	bucket->way[(way + 1) % SHM_CACHE_WAYS] = index;
	expect_breach("A6: names what another one names");
	bucket->way[(way + 1) % SHM_CACHE_WAYS] = 0;
	cache->bucket[bucket == cache->bucket].way[0] = index;
	expect_breach("A5: names an entry of another bucket");
	cache->bucket[bucket == cache->bucket].way[0] = 0;
	entry[1] ^= 0xfffff; /* vlen */
	expect_breach("A6: no entry in segment");
	entry[1] ^= 0xfffff;
	segment->birth += 1000;
	expect_breach("A2: segment");
	segment->birth -= 1000;
	cache->head->segments_count++;
	expect_breach("A1");
	cache->head->segments_count--;
	test_audit(cache);
}

/* ---- two processes */

static void
what_one_process_stores_another_reads(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	assert_true(pid != -1);
	if (pid == 0) {
		shm_cache_enter(cache, 1);
		for (uint64_t n = 0; n < 200; n++)
			if (test_store(cache, n, 2, 200, NOW) !=
			    SHM_CACHE_STORED)
				_exit(1);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	for (uint64_t n = 0; n < 200; n++)
		assert_int_equal(test_look(cache, n, NOW, NULL), SHM_CACHE_HIT);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(sizes_follow_from_the_options),
	    cmocka_unit_test(a_cache_that_is_too_small_says_what_is_needed),
	    TEST(the_file_can_neither_shrink_nor_grow),
	    TEST(every_worker_has_a_waker_that_does_not_block),
	    TEST(a_cache_can_be_adopted_with_all_that_it_holds),
	    TEST(what_is_no_such_cache_is_not_adopted),
	    cmocka_unit_test(the_hash_depends_on_the_seed_and_on_every_byte),
	    TEST(the_hash_spreads_keys_over_buckets_stripes_and_tags),
	    TEST(keys_of_every_length_are_told_apart),
	    TEST(a_hit_tells_everything_about_the_answer),
	    TEST(the_fields_of_a_view_are_where_the_words_have_them),
	    TEST(any_part_of_a_value_can_be_copied),
	    TEST(a_value_that_went_away_is_not_copied),
	    TEST(an_answer_ages),
	    TEST(endless_times_do_not_overflow),
	    TEST(freshness_is_rounded_up_to_milliseconds),
	    TEST(each_event_ends_the_validity_of_its_own_answers),
	    TEST(versions_and_generations_may_wrap),
	    TEST(all_of_a_stripe_is_invalidated_and_nothing_else),
	    TEST(a_write_under_way_makes_its_keys_misses),
	    TEST(reads_count_their_use_up_to_three_and_write_nothing_else),
	    TEST(a_dump_shows_every_entry_and_stops_when_told),
	    TEST(statistics_add_up),
	    TEST(counters_are_summed_over_slots_and_outsiders),
	    TEST(the_audit_finds_every_kind_of_damage),
	    TEST(what_one_process_stores_another_reads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
