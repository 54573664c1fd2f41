/*
 * What the tests of the book cache share: a small cache, keys and values made
 * from numbers, and one-line puts and gets that check what they bring back.
 */
#ifndef SHM_TEST_H
#define SHM_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "shm/shm_cache_entry.h"

#define TEST_SECOND    1000000ULL
#define TEST_START     (1000 * TEST_SECOND) /* of the tests' own clock */
#define TEST_FRESH     (60 * TEST_SECOND)
#define TEST_STALE     (10 * TEST_SECOND)
#define TEST_ERROR     (3600 * TEST_SECOND)
#define TEST_LINGER    (3 * TEST_SECOND)
#define TEST_SEED      0x5eed5eed5eed5eedULL
#define TEST_VALUE_MAX 65536

static inline struct shm_cache *
test_cache_new(uint64_t bytes, uint32_t slots_count)
{
	const struct shm_cache_options options = {
	    .bytes = bytes,
	    .slots_count = slots_count,
	    .seed = TEST_SEED,
	};
	const struct shm_cache_policy policy = {
	    .stale_us = TEST_STALE,
	    .error_us = TEST_ERROR,
	    .linger_us = TEST_LINGER,
	};
	struct shm_cache *cache = shm_cache_new(&options);

	assert_non_null(cache);
	shm_cache_set_policy(cache, &policy);
	shm_cache_enter(cache, 0);
	return cache;
}

/* A key with its own memory. */
struct test_key {
	struct shm_cache_key key;
	char data[SHM_CACHE_KEY_MAX];
};

static inline const struct shm_cache_key *
test_key(const struct shm_cache *cache, struct test_key *test, uint32_t cls,
    const char *data)
{
	test->key = (struct shm_cache_key){
	    .data = test->data,
	    .len = (uint32_t)strlen(data),
	    .cls = cls,
	};
	memcpy(test->data, data, test->key.len);
	shm_cache_key_hash(cache, &test->key);
	return &test->key;
}

/* The key of book n. */
static inline const struct shm_cache_key *
test_book(const struct shm_cache *cache, struct test_key *test, uint64_t n)
{
	char data[32];

	snprintf(data, sizeof(data), "b978%010llu", (unsigned long long)n);
	return test_key(cache, test, SHM_CACHE_BOOK, data);
}

/* A body that depends on its number and version in every 8 bytes. */
static inline void
test_fill(char *body, uint32_t bytes, uint64_t n, uint32_t version)
{
	for (uint32_t i = 0; i < bytes; i += 8) {
		uint64_t word = shm_hash_number(
		    n * 1000003 + version + ((uint64_t)i << 40));
		uint32_t rest = bytes - i < 8 ? bytes - i : 8;

		memcpy(body + i, &word, rest);
	}
}

static inline enum shm_cache_stored
test_put(struct shm_cache *cache, const struct shm_cache_key *key,
    const struct shm_cache_lease *lease, uint64_t n, uint32_t version,
    uint32_t bytes, uint64_t now_us)
{
	static char body[TEST_VALUE_MAX];
	const struct shm_cache_value value = {
	    .id = n,
	    .row_version = version,
	    .modified_s = 7,
	    .fresh_us = TEST_FRESH,
	    .status = 200,
	    .cls = (uint8_t)key->cls,
	    .head = "head",
	    .head_bytes = 4,
	    .body = body,
	    .body_bytes = bytes,
	};

	assert_true(bytes <= sizeof(body));
	test_fill(body, bytes, n, version);
	return shm_cache_put(cache, key, lease, &value, NULL, now_us);
}

/* Look book n up, and if it is not there, store version of it. */
static inline enum shm_cache_stored
test_store(struct shm_cache *cache, uint64_t n, uint32_t version,
    uint32_t bytes, uint64_t now_us)
{
	struct test_key test;
	struct shm_cache_lease lease;
	struct shm_cache_view view;
	const struct shm_cache_key *key = test_book(cache, &test, n);

	(void)!shm_cache_get(cache, key, now_us, &lease, &view);
	return test_put(cache, key, &lease, n, version, bytes, now_us);
}

/* Is what view describes version of n, to the last byte?  False: it went away
 * while it was copied. */
static inline bool
test_value_is(struct shm_cache *cache, const struct shm_cache_view *view,
    uint64_t n, uint32_t version)
{
	static char have[TEST_VALUE_MAX + 4], want[TEST_VALUE_MAX];

	if (!shm_cache_copy(cache, view, 0, view->value_bytes, have))
		return false;
	assert_int_equal(view->id, n);
	assert_int_equal(view->row_version, version);
	assert_int_equal(view->head_bytes, 4);
	assert_memory_equal(have, "head", 4);
	test_fill(want, view->value_bytes - 4, n, version);
	assert_memory_equal(have + 4, want, view->value_bytes - 4);
	return true;
}

/* Look book n up; a value that is found must be whole. */
static inline enum shm_cache_found
test_look(
    struct shm_cache *cache, uint64_t n, uint64_t now_us, uint32_t *version)
{
	struct test_key test;
	struct shm_cache_lease lease;
	struct shm_cache_view view;
	enum shm_cache_found found = shm_cache_get(
	    cache, test_book(cache, &test, n), now_us, &lease, &view);

	if (found == SHM_CACHE_MISS)
		return found;
	if (version != NULL)
		*version = view.row_version;
	return test_value_is(cache, &view, n, view.row_version)
		   ? found
		   : SHM_CACHE_MISS;
}

static inline void
test_audit(const struct shm_cache *cache)
{
	char why[256];

	if (shm_cache_audit(cache, true, why, sizeof(why)) != 0)
		fail_msg("audit: %s", why);
}

#endif
