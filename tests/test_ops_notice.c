/*
 * Goal: a notification voids in the cache what it tells of, and whatever comes
 * on its channel that makes no sense voids everything, once and without a
 * flood of log lines.
 * Method: a table of payloads, good and hostile, is read; then payloads are
 * applied to a real cache that holds two books, the fact that a third is
 * missing, and the list, and what is still served is looked at.  Each
 * hostile payload lies against the end of its memory, so that a sanitizer sees
 * who reads on.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/api.h"
#include "ops/ops_notice.h"

#define T10   "0123456789"
#define T100  T10 T10 T10 T10 T10 T10 T10 T10 T10 T10
#define T1000 T100 T100 T100 T100 T100 T100 T100 T100 T100 T100
#define T1020 T1000 T10 T10

static const struct {
	const char *payload;
	enum ops_notice_kind kind;
	const char *isbns; /* joined by | */
} payloads[] = {
    {"[\"9780201134476\"]", OPS_NOTICE_BOOKS, "9780201134476"},
    {"[\"1\",\"2\"]", OPS_NOTICE_BOOKS, "1|2"},
    {" [ \"1\" , \"2\" ] ", OPS_NOTICE_BOOKS, "1|2"},
    {"[]", OPS_NOTICE_BOOKS, ""},
    {"[\"\"]", OPS_NOTICE_BOOKS, ""},
    {"[\"a\\\"b\\\\c\\u00e9\xe6\x9b\xb8\"]", OPS_NOTICE_BOOKS,
	"a\"b\\c\xc3\xa9\xe6\x9b\xb8"},
    {"[\"\\ud83d\\udcda\"]", OPS_NOTICE_BOOKS, "\xf0\x9f\x93\x9a"},
    {"[\"flush\"]", OPS_NOTICE_BOOKS, "flush"},
    {"[\"" T1020 "\"]", OPS_NOTICE_BOOKS, T1020},

    {"flush", OPS_NOTICE_FLUSH, ""},

    {"", OPS_NOTICE_UNREADABLE, ""},
    {"FLUSH", OPS_NOTICE_UNREADABLE, ""},
    {"flush ", OPS_NOTICE_UNREADABLE, ""},
    {"flush\n", OPS_NOTICE_UNREADABLE, ""},
    {"\"flush\"", OPS_NOTICE_UNREADABLE, ""},
    {"9780201134476", OPS_NOTICE_UNREADABLE, ""},
    {"\"9780201134476\"", OPS_NOTICE_UNREADABLE, ""},
    {"{\"isbn\":\"1\"}", OPS_NOTICE_UNREADABLE, ""},
    {"null", OPS_NOTICE_UNREADABLE, ""},
    {"[\"1\",2]", OPS_NOTICE_UNREADABLE, ""},
    {"[\"1\",null]", OPS_NOTICE_UNREADABLE, ""},
    {"[[\"1\"]]", OPS_NOTICE_UNREADABLE, ""},
    {"[\"1\"]x", OPS_NOTICE_UNREADABLE, ""},
    {"[\"1\"][\"2\"]", OPS_NOTICE_UNREADABLE, ""},
    {"[\"1\",]", OPS_NOTICE_UNREADABLE, ""},
    {"[\"1\"", OPS_NOTICE_UNREADABLE, ""},
    {"[\"1", OPS_NOTICE_UNREADABLE, ""},
    {"[\"\\", OPS_NOTICE_UNREADABLE, ""},
    {"[\"\\u00", OPS_NOTICE_UNREADABLE, ""},
    {"[", OPS_NOTICE_UNREADABLE, ""},
    {"[\"a\nb\"]", OPS_NOTICE_UNREADABLE, ""},
    {"[\"a\\u0000b\"]", OPS_NOTICE_UNREADABLE, ""},
    {"[\"\\ud83d\"]", OPS_NOTICE_UNREADABLE, ""},
    {"[\"\xff\"]", OPS_NOTICE_UNREADABLE, ""},
    {"[\"\xc3\"]", OPS_NOTICE_UNREADABLE, ""},
    {"[\"\xc0\xaf\"]", OPS_NOTICE_UNREADABLE, ""},
    {"[\"" T1020 "x\"]", OPS_NOTICE_UNREADABLE, ""},
};

static void
join(void *owner, struct api_slice isbn)
{
	char *text = owner;

	if (*text != '\0')
		strcat(text, "|");
	strncat(text, isbn.data, isbn.len);
}

/* A copy that ends where its memory ends. */
static char *
exact(const char *text)
{
	char *copy = malloc(strlen(text) + 1);

	assert_non_null(copy);
	return strcpy(copy, text);
}

static void
a_payload_is_isbns_or_flush_and_all_else_is_unreadable(void **state)
{
	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(payloads); i++) {
		char *payload = exact(payloads[i].payload), isbns[2048] = "";
		enum ops_notice_kind kind =
		    ops_notice_read(payload, join, isbns);

		if (kind != payloads[i].kind)
			fprintf(stderr, "# %.60s\n", payload);
		assert_int_equal(kind, payloads[i].kind);
		assert_string_equal(isbns, payloads[i].isbns);
		free(payload);
	}
}

/* PostgreSQL would not send it; who knows what speaks its protocol. */
static void
a_payload_that_is_too_long_is_unreadable(void **state)
{
	char *payload = malloc(OPS_NOTICE_BYTES_MAX + 1), isbns[64] = "";

	(void)state;
	assert_non_null(payload);
	memset(payload, ' ', OPS_NOTICE_BYTES_MAX);
	payload[OPS_NOTICE_BYTES_MAX] = '\0';
	memcpy(payload, "[\"1\"]", 5);
	assert_int_equal(
	    ops_notice_read(payload, join, isbns), OPS_NOTICE_UNREADABLE);
	payload[OPS_NOTICE_BYTES_MAX - 1] = '\0';
	assert_int_equal(
	    ops_notice_read(payload, join, isbns), OPS_NOTICE_BOOKS);
	assert_string_equal(isbns, "1");
	free(payload);
}

static void
deep_nesting_is_unreadable(void **state)
{
	char payload[OPS_NOTICE_BYTES_MAX], isbns[64] = "";

	(void)state;
	memset(payload, '[', sizeof(payload) - 1);
	payload[sizeof(payload) - 1] = '\0';
	assert_int_equal(
	    ops_notice_read(payload, join, isbns), OPS_NOTICE_UNREADABLE);
}

/* ---- what it does to a cache */

enum {
	FIRST = 0,
	SECOND,
	MISSING,
	LIST,
	THINGS,
};

static const struct thing {
	const char *isbn; /* NULL: the list */
	enum shm_cache_class cls;
} things[THINGS] = {
    [FIRST] = {"9780201134476", SHM_CACHE_BOOK},
    [SECOND] = {"a\"b\\c", SHM_CACHE_BOOK},
    [MISSING] = {"0000000000", SHM_CACHE_NEGATIVE},
    [LIST] = {NULL, SHM_CACHE_LIST},
};

static struct shm_cache *cache;
static struct ops_options options;
static uint32_t logged;
static int64_t logged_count;

static void
log_count(enum ops_log_level level, const char *event, const char *text,
    const struct ops_log_field *fields, uint32_t fields_count)
{
	(void)text;
	assert_int_equal(level, OPS_LOG_WARN);
	assert_string_equal(event, "notify_unreadable");
	logged++;
	for (uint32_t i = 0; i < fields_count; i++)
		if (strcmp(fields[i].name, "count") == 0)
			logged_count = fields[i].number;
}

static int
setup(void **state)
{
	/* The seed puts these few keys into stripes of their own. */
	const struct shm_cache_options wanted = {
	    .bytes = 1 << 20, .slots_count = 1, .seed = 1};
	const struct shm_cache_policy policy = {.linger_us = 1};

	(void)state;
	cache = shm_cache_new(&wanted);
	if (cache == NULL)
		return -1;
	shm_cache_set_policy(cache, &policy);
	shm_cache_enter(cache, 0);
	options = (struct ops_options){.cache = cache, .log = log_count};
	logged = 0;
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	shm_cache_free(&cache);
	return 0;
}

static void
key_of(const struct thing *thing, char text[64], struct shm_cache_key *key)
{
	*key = (struct shm_cache_key){.data = text,
	    .len = 1,
	    .cls = thing->isbn == NULL ? SHM_CACHE_LIST : SHM_CACHE_BOOK};
	text[0] = 'l';
	if (thing->isbn != NULL)
		key->len = (uint32_t)api_cache_book_key(
		    (struct api_slice){thing->isbn, strlen(thing->isbn)}, text);
	shm_cache_key_hash(cache, key);
}

static bool
is_served(const struct thing *thing)
{
	struct shm_cache_lease lease;
	struct shm_cache_view view;
	struct shm_cache_key key;
	char text[64];

	key_of(thing, text, &key);
	return shm_cache_get(cache, &key, shm_clock_us(), &lease, &view) ==
	       SHM_CACHE_HIT;
}

static void
store(const struct thing *thing)
{
	const struct shm_cache_value value = {
	    .id = 1,
	    .row_version = 1,
	    .fresh_us = 60000000,
	    .status = thing->cls == SHM_CACHE_NEGATIVE ? 404 : 200,
	    .cls = (uint8_t)thing->cls,
	    .head = "",
	    .body = "x",
	    .body_bytes = thing->cls == SHM_CACHE_NEGATIVE ? 0 : 1,
	};
	uint64_t now_us = shm_clock_us();
	struct shm_cache_lease lease;
	struct shm_cache_view view;
	struct shm_cache_key key;
	char text[64];

	key_of(thing, text, &key);
	(void)!shm_cache_get(cache, &key, now_us, &lease, &view);
	assert_int_equal(
	    shm_cache_put(cache, &key, &lease, &value, NULL, now_us),
	    SHM_CACHE_STORED);
	assert_true(is_served(thing));
}

static uint64_t
counted(enum shm_cache_counter counter)
{
	struct shm_cache_stats stats;

	shm_cache_stats(cache, &stats);
	return stats.counter[counter];
}

static void
what_a_notification_names_is_served_no_more_and_the_rest_is(void **state)
{
	static const struct {
		const char *payload;
		bool served[THINGS];
		uint64_t books;
		uint64_t flushes;
	} cases[] = {
	    {"[\"9780201134476\"]", {false, true, true, false}, 1, 0},
	    {"[\"a\\\"b\\\\c\"]", {true, false, true, false}, 1, 0},
	    {"[\"0000000000\"]", {true, true, false, false}, 1, 0},
	    {"[\"0000000000\",\"9780201134476\"]", {false, true, false, false},
		2, 0},
	    {"[]", {true, true, true, false}, 0, 0},
	    {"flush", {false, false, false, false}, 0, 1},
	    {"[\"0000000000\",1]", {false, false, false, false}, 0, 1},
	    {"what?", {false, false, false, false}, 0, 1},
	};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++) {
		struct ops_notice notice = {.options = &options};
		uint64_t before = counted(SHM_CACHE_invalidations);

		for (size_t k = 0; k < THINGS; k++)
			store(&things[k]);
		ops_notice_take(&notice, cases[i].payload, 1);
		for (size_t k = 0; k < THINGS; k++)
			assert_int_equal(
			    is_served(&things[k]), cases[i].served[k]);
		assert_int_equal(notice.received, 1);
		assert_int_equal(notice.books, cases[i].books);
		assert_int_equal(notice.flushes, cases[i].flushes);
		assert_int_equal(
		    counted(SHM_CACHE_invalidations) - before, cases[i].books);
	}
}

static void
unreadable_ones_are_logged_once_a_minute_with_their_number(void **state)
{
	struct ops_notice notice = {.options = &options};
	const uint64_t minute_us = 60000000, start_us = 5;

	(void)state;
	for (int i = 0; i < 1000; i++)
		ops_notice_take(&notice, "?", start_us + (uint64_t)i);
	assert_int_equal(logged, 1);
	assert_int_equal(logged_count, 1);
	ops_notice_take(&notice, "[\"1\"]", start_us + minute_us);
	ops_notice_take(&notice, "flush", start_us + minute_us);
	assert_int_equal(logged, 1);
	ops_notice_take(&notice, "?", start_us + minute_us);
	assert_int_equal(logged, 2);
	assert_int_equal(logged_count, 1000);
	assert_int_equal(notice.unreadable, 1001);
	assert_int_equal(notice.flushes, 1002);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(
		a_payload_is_isbns_or_flush_and_all_else_is_unreadable),
	    cmocka_unit_test(a_payload_that_is_too_long_is_unreadable),
	    cmocka_unit_test(deep_nesting_is_unreadable),
	    cmocka_unit_test_setup_teardown(
		what_a_notification_names_is_served_no_more_and_the_rest_is,
		setup, teardown),
	    cmocka_unit_test_setup_teardown(
		unreadable_ones_are_logged_once_a_minute_with_their_number,
		setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
