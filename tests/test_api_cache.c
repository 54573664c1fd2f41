/*
 * Goal: what the cache learns of calls is right.  Keys are the same for the
 * same thing, each write names the books that it may change, each answer says
 * how it may be kept and which state it shows, and the answers that are given
 * without asking the database are those that the database would have caused.
 * Method: whole calls in tables, with rows as the worker would hand them over;
 * answers compared byte for byte.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/api_call_test.h"

#define EPOCH_S	 INT64_C(946684800) /* 2000-01-01 in Unix time */
#define US_PER_S INT64_C(1000000)

/* ---- keys and what writes touch */

static const struct {
	struct sent sent;
	const char *key; /* NULL: none of the cache's business */
	enum shm_cache_class cls;
} keys[] = {
    {{M(API_GET, "/books/" ISBN)}, "b" ISBN, SHM_CACHE_BOOK},
    {{M(API_HEAD, "/books/" ISBN)}, "b" ISBN, SHM_CACHE_BOOK},
    {{M(API_GET, "/books/" ISBN "/"), .query = "a=b"}, "b" ISBN,
	SHM_CACHE_BOOK},
    {{M(API_GET, "/books/978%30201134476"), .accept = PROBLEM}, "b" ISBN,
	SHM_CACHE_BOOK},
    {{M(API_GET, "/books/%C3%A9%2f%22")}, "b\xc3\xa9/\"", SHM_CACHE_BOOK},
    {{M(API_GET, "/books/l")}, "bl", SHM_CACHE_BOOK},
    {{M(API_GET, "/books")}, "l", SHM_CACHE_LIST},
    {{M(API_GET, "/books/"), .query = "page=2"}, "l", SHM_CACHE_LIST},
    {{M(API_HEAD, "/books")}, "l", SHM_CACHE_LIST},
    {{M(API_GET, "/")}, NULL, 0},
    {{M(API_GET, "/livez")}, NULL, 0},
    {{M(API_GET, "/readyz")}, NULL, 0},
    {{M(API_GET, "/x")}, NULL, 0},
    {{M(API_GET, "/books/%zz")}, NULL, 0},
    {{M(API_GET, "/books/1"), .accept = "text/html"}, NULL, 0},
    {{M(API_HEAD, "/books"), .accept = "text/html"}, NULL, 0},
    {{M(API_OPTIONS, "/books")}, NULL, 0},
    {{M(API_METHOD_OTHER, "/books/1")}, NULL, 0},
    {{M(API_POST, "/books"), .content_type = JSON}, NULL, 0},
    {{M(API_PUT, "/books/1"), .content_type = JSON}, NULL, 0},
    {{M(API_DELETE, "/books/1")}, NULL, 0},
};

static void
reads_of_books_have_keys_and_nothing_else_has(void **state)
{
	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(keys); i++) {
		enum shm_cache_class cls = SHM_CACHE_CLASSES;
		struct api_slice key = {NULL, 0};

		/* one before it, of which nothing must be left */
		(void)begin((struct sent){M(API_GET, "/books/1")});
		(void)begin(keys[i].sent);
		assert_int_equal(
		    api_cache_key(&call, &key, &cls), keys[i].key != NULL);
		if (keys[i].key == NULL)
			continue;
		assert_true(api_slice_is(key, keys[i].key));
		assert_int_equal(cls, keys[i].cls);
	}
}

/* "/books/" and count times x. */
static const char *
path_of(int count)
{
	static char path[512];

	assert_true(count < 500);
	memcpy(path, "/books/", 7);
	memset(path + 7, 'x', (size_t)count);
	path[7 + count] = '\0';
	return path;
}

static void
an_isbn_that_is_too_long_has_no_key_and_is_not_touched(void **state)
{
	enum shm_cache_class cls;
	struct api_slice key, isbn[2];

	(void)state;
	assert_int_equal(
	    begin((struct sent){M(API_GET, path_of(255))}), API_NEED_DB);
	assert_true(api_cache_key(&call, &key, &cls));
	assert_int_equal(key.len, 256);
	assert_int_equal(
	    begin((struct sent){M(API_GET, path_of(256))}), API_DONE);
	assert_int_equal(reply.status, 404);
	assert_int_equal(reply.cacheable, API_CACHEABLE_NOT);
	assert_false(api_cache_key(&call, &key, &cls));
	assert_int_equal(begin((struct sent){
			     M(API_PUT, path_of(256)), .content_type = JSON}),
	    API_NEED_BODY);
	assert_int_equal(body(BODY(ISBN)), API_NEED_DB);
	assert_int_equal(api_call_touches(&call, isbn), 1);
	assert_true(api_slice_is(isbn[0], ISBN));
}

static void
the_key_of_an_isbn_is_that_of_its_path(void **state)
{
	char out[1 + API_ISBN_BYTES_MAX + 1];
	enum shm_cache_class cls;
	struct api_slice key;
	size_t len;

	(void)state;
	assert_int_equal(
	    begin((struct sent){M(API_GET, "/books/a%20%C3%A9")}), API_NEED_DB);
	assert_true(api_cache_key(&call, &key, &cls));
	memset(out, 'x', sizeof(out));
	len = api_cache_book_key(API_SLICE("a \xc3\xa9"), out);
	assert_int_equal(len, key.len);
	assert_memory_equal(out, key.data, len);
	assert_int_equal(out[len], 'x');
	assert_int_equal(
	    api_cache_book_key((struct api_slice){NULL, 0}, out), 1);
	assert_int_equal(out[0], 'b');
}

static void
expect_touches(uint32_t count, const char *first, const char *second)
{
	struct api_slice isbn[2];

	assert_int_equal(api_call_touches(&call, isbn), count);
	assert_true(api_slice_is(isbn[0], first));
	if (count == 2)
		assert_true(api_slice_is(isbn[1], second));
}

static void
each_write_names_the_books_that_it_may_change(void **state)
{
	(void)state;
	assert_int_equal(
	    begin((struct sent){M(API_POST, "/books"), .content_type = JSON}),
	    API_NEED_BODY);
	assert_int_equal(body(BODY(ISBN)), API_NEED_DB);
	expect_touches(1, ISBN, NULL);
	begin_put(ISBN, BODY(ISBN));
	expect_touches(1, ISBN, NULL);
	begin_put(OTHER, BODY(ISBN));
	expect_touches(2, OTHER, ISBN);
	/* what the database has may follow other rules than ours */
	begin_put("a%2Fb", BODY(ISBN));
	expect_touches(2, "a/b", ISBN);
	assert_int_equal(
	    begin((struct sent){M(API_DELETE, "/books/a%20b")}), API_NEED_DB);
	expect_touches(1, "a b", NULL);
	/* a write that runs again touches the same */
	begin_put(ISBN, BODY(ISBN));
	assert_int_equal(
	    api_db(&call, API_DB_REFUSED, "40001", &buf, &reply), API_NEED_DB);
	expect_touches(1, ISBN, NULL);
}

/* ---- what answers say about themselves */

static const struct {
	int64_t us; /* since 2000-01-01 */
	uint32_t modified_s;
} moments[] = {
    {0, EPOCH_S},
    {1, EPOCH_S},
    {999999, EPOCH_S},
    {1000000, EPOCH_S + 1},
    {-1, EPOCH_S - 1},
    {-1000000, EPOCH_S - 1},
    {-1000001, EPOCH_S - 2},
    {(1 - EPOCH_S) * US_PER_S, 1},
    {(1 - EPOCH_S) * US_PER_S - 1, 0},
    {-EPOCH_S * US_PER_S, 0},
    {-EPOCH_S * US_PER_S - 1, 0},
    {(UINT32_MAX - EPOCH_S) * US_PER_S + 999999, UINT32_MAX},
    {(UINT32_MAX - EPOCH_S + 1) * US_PER_S, 0},
    {INT64_MAX, 0}, /* infinity */
    {INT64_MIN, 0},
};

static void
answers_have_the_version_of_their_row(void **state)
{
	struct test_book book = stored;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(moments); i++) {
		book.modified_us = moments[i].us;
		assert_int_equal(
		    begin((struct sent){M(API_GET, "/books/1")}), API_NEED_DB);
		give_row(&book);
		assert_int_equal(
		    api_db(&call, API_DB_OK, "", &buf, &reply), API_DONE);
		assert_true(reply.has_version);
		assert_int_equal(
		    reply.version.modified_s, moments[i].modified_s);
	}
	book.id = INT64_MAX - 1;
	book.version = INT32_MAX;
	assert_int_equal(
	    begin((struct sent){M(API_GET, "/books/1")}), API_NEED_DB);
	/* a read that was sent again: the later row stands */
	give_row(&stored);
	give_row(&book);
	assert_int_equal(api_db(&call, API_DB_OK, "", &buf, &reply), API_DONE);
	assert_int_equal(reply.version.id, INT64_MAX - 1);
	assert_int_equal(reply.version.row_version, INT32_MAX);
}

static void
expect_kept(int status, enum api_cacheable cacheable, bool has_version)
{
	assert_int_equal(reply.status, status);
	assert_int_equal(reply.cacheable, cacheable);
	assert_int_equal(reply.has_version, has_version);
	if (!has_version)
		return;
	assert_int_equal(reply.version.id, stored.id);
	assert_int_equal(reply.version.row_version, stored.version);
	assert_int_equal(reply.version.modified_s, EPOCH_S);
}

static void
reads_can_be_kept_and_writes_cannot(void **state)
{
	static const enum api_method methods[] = {API_GET, API_HEAD};

	(void)state;
	for (int i = 0; i < 2; i++) {
		(void)begin((struct sent){M(methods[i], "/books/" ISBN)});
		give_row(&stored);
		(void)!api_db(&call, API_DB_OK, "", &buf, &reply);
		expect_kept(200, API_CACHEABLE_BOOK, true);
		(void)begin((struct sent){M(methods[i], "/books/" ISBN)});
		(void)!api_db(&call, API_DB_OK, "", &buf, &reply);
		expect_kept(404, API_CACHEABLE_NEGATIVE, false);
		(void)begin((struct sent){M(methods[i], "/books/" ISBN)});
		(void)!api_db(&call, API_DB_UNAVAILABLE, "", &buf, &reply);
		expect_kept(503, API_CACHEABLE_NOT, false);
	}
	begin_put(ISBN, BODY(ISBN));
	give_row(&stored);
	(void)!api_db(&call, API_DB_OK, "", &buf, &reply);
	expect_kept(200, API_CACHEABLE_NOT, false);
	(void)begin((struct sent){M(API_POST, "/books"), .content_type = JSON});
	(void)body(BODY(ISBN));
	give_row(&stored);
	(void)!api_db(&call, API_DB_OK, "", &buf, &reply);
	expect_kept(201, API_CACHEABLE_NOT, true);
	begin_put(OTHER, BODY(ISBN));
	(void)!api_db(&call, API_DB_OK, "", &buf, &reply);
	expect_kept(422, API_CACHEABLE_NOT, false);
	(void)begin((struct sent){M(API_DELETE, "/books/" ISBN)});
	(void)!api_db(&call, API_DB_OK, "", &buf, &reply);
	expect_kept(204, API_CACHEABLE_NOT, false);
	(void)begin((struct sent){M(API_HEAD, "/books")});
	expect_kept(200, API_CACHEABLE_LIST, false);
	(void)begin((struct sent){M(API_GET, "/books")});
	api_stream_open(&call, &buf, &reply);
	expect_kept(200, API_CACHEABLE_LIST, false);
	(void)begin((struct sent){M(API_GET, "/")});
	expect_kept(200, API_CACHEABLE_NOT, false);
	(void)begin((struct sent){M(API_GET, "/x")});
	expect_kept(404, API_CACHEABLE_NOT, false);
}

static void
an_answer_that_there_was_no_memory_for_is_not_kept(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		(void)begin((struct sent){M(API_GET, "/books/" ISBN)});
		buf.bytes_max = 4;
		if (i == 0)
			give_row(&stored);
		(void)!api_db(&call, API_DB_OK, "", &buf, &reply);
		expect_kept(500, API_CACHEABLE_NOT, false);
		buf.bytes_max = 0;
	}
}

static void
not_modified_has_no_body_and_keeps_its_validators(void **state)
{
	(void)state;
	(void)begin((struct sent){M(API_GET, "/books/" ISBN)});
	give_row(&stored);
	(void)!api_db(&call, API_DB_OK, "", &buf, &reply);
	api_reply_not_modified(&reply);
	expect_kept(304, API_CACHEABLE_BOOK, true);
	assert_null(reply.content_type);
	assert_int_equal(reply.body.len, 0);
	assert_int_equal(reply.retry_after_s, 0);
	(void)begin((struct sent){M(API_HEAD, "/books")});
	api_reply_not_modified(&reply);
	expect_kept(304, API_CACHEABLE_LIST, false);
	assert_false(reply.is_stream_head);
}

/* ---- answers that need no database */

static struct api_reply
copy_of_reply(void)
{
	struct api_reply copy = reply;
	char *text = malloc(copy.body.len + 1);

	assert_non_null(text);
	memcpy(text, copy.body.data, copy.body.len);
	copy.body.data = text;
	return copy;
}

/* reply is what *want is, byte for byte; frees the copy. */
static void
expect_same(struct api_reply *want)
{
	assert_int_equal(reply.status, want->status);
	assert_string_equal(reply.content_type, want->content_type);
	assert_int_equal(reply.body.len, want->body.len);
	assert_memory_equal(reply.body.data, want->body.data, want->body.len);
	assert_int_equal(reply.cacheable, want->cacheable);
	assert_int_equal(reply.has_version, want->has_version);
	assert_int_equal(reply.retry_after_s, want->retry_after_s);
	assert_int_equal(reply.location.len, want->location.len);
	assert_null(reply.allow);
	free((char *)want->body.data);
}

static void
a_kept_404_is_the_databases_404(void **state)
{
	static const char *const paths[] = {("/books/" ISBN),
	    "/books/a%2F%22b/", "/books/%C3%A9%F0%9F%93%9A",
	    "/books/%01%0A%5C%7F", "/books/%E2%80%A8"};

	(void)state;
	for (size_t i = 0; i <= SHM_ARRAY_LEN(paths); i++) {
		for (int variant = 0; variant < 4; variant++) {
			struct sent sent = {
			    .method = variant & 1 ? API_HEAD : API_GET,
			    .path = i < SHM_ARRAY_LEN(paths) ? paths[i]
							     : path_of(255),
			    .accept = variant & 2 ? PROBLEM : NULL,
			};
			struct api_reply want;

			assert_int_equal(begin(sent), API_NEED_DB);
			assert_int_equal(
			    api_db(&call, API_DB_OK, "", &buf, &reply),
			    API_DONE);
			want = copy_of_reply();
			assert_int_equal(want.status, 404);
			assert_int_equal(begin(sent), API_NEED_DB);
			memset(&reply, 0xa5, sizeof(reply));
			api_call_not_found(&call, &buf, &reply);
			expect_same(&want);
		}
	}
}

static void
a_load_that_failed_is_the_503_of_a_database_that_is_away(void **state)
{
	static const struct sent reads[] = {
	    {M(API_GET, "/books/" ISBN)},
	    {M(API_GET, "/books/" ISBN), .accept = PROBLEM},
	    {M(API_HEAD, "/books/" ISBN)},
	    {M(API_GET, "/books")},
	    {M(API_GET, "/books"), .accept = PROBLEM},
	};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(reads); i++) {
		struct api_reply want;

		assert_int_not_equal(begin(reads[i]), API_DONE);
		assert_int_equal(
		    api_db(&call, API_DB_UNAVAILABLE, "", &buf, &reply),
		    API_DONE);
		want = copy_of_reply();
		assert_int_equal(want.status, 503);
		assert_int_not_equal(begin(reads[i]), API_DONE);
		memset(&reply, 0xa5, sizeof(reply));
		api_call_unavailable(&call, &buf, &reply);
		expect_same(&want);
	}
}

static void
a_call_that_the_cache_answers_makes_no_text(void **state)
{
	enum shm_cache_class cls;
	struct api_slice key;

	(void)state;
	assert_int_equal(begin((struct sent){M(API_GET, "/books/" ISBN),
			     .accept = JSON, .if_none_match = "*"}),
	    API_NEED_DB);
	assert_true(api_cache_key(&call, &key, &cls));
	assert_true(
	    api_call_is_not_modified(&call, &(struct api_version){1, 1, 0}));
	assert_null(buf.data);
	assert_null(call.document);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    CALL_TEST(reads_of_books_have_keys_and_nothing_else_has),
	    CALL_TEST(an_isbn_that_is_too_long_has_no_key_and_is_not_touched),
	    CALL_TEST(the_key_of_an_isbn_is_that_of_its_path),
	    CALL_TEST(each_write_names_the_books_that_it_may_change),
	    CALL_TEST(answers_have_the_version_of_their_row),
	    CALL_TEST(reads_can_be_kept_and_writes_cannot),
	    CALL_TEST(an_answer_that_there_was_no_memory_for_is_not_kept),
	    CALL_TEST(not_modified_has_no_body_and_keeps_its_validators),
	    CALL_TEST(a_kept_404_is_the_databases_404),
	    CALL_TEST(a_load_that_failed_is_the_503_of_a_database_that_is_away),
	    CALL_TEST(a_call_that_the_cache_answers_makes_no_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
