/*
 * Goal: whatever becomes of a statement, the client is told what it can do:
 * races are run again and given up in the end, failures have their status and
 * Retry-After, and nothing that was rolled back is answered.
 * Method: calls up to their statement, then outcomes played as the worker
 * would report them.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/api_call_test.h"

static const struct {
	enum api_db_outcome outcome;
	const char *sqlstate;
	int status;
} failures[] = {
    {API_DB_UNAVAILABLE, "", 503},
    {API_DB_BUSY, "", 503},
    {API_DB_TIMEOUT, "57014", 503},
    {API_DB_UNKNOWN, "", 503},
    {API_DB_REFUSED, "57014", 503},
    {API_DB_REFUSED, "25006", 503},
    {API_DB_REFUSED, "57P01", 503},
    {API_DB_REFUSED, "57P03", 503},
    {API_DB_REFUSED, "08006", 503},
    {API_DB_REFUSED, "53300", 503},
    {API_DB_REFUSED, "22001", 400},
    {API_DB_REFUSED, "22021", 400},
    {API_DB_REFUSED, "22P05", 400},
    {API_DB_REFUSED, "42P01", 500},
    {API_DB_REFUSED, "XX000", 500},
    {API_DB_REFUSED, "", 500},
};

static void
every_failure_of_the_database_has_its_answer(void **state)
{
	static const struct sent reads[] = {
	    {M(API_GET, "/books/" ISBN), .accept = PROBLEM},
	    {M(API_DELETE, "/books/" ISBN)},
	    {M(API_GET, "/books")},
	};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(failures); i++) {
		begin_put(ISBN, BODY(ISBN));
		assert_int_equal(api_db(&call, failures[i].outcome,
				     failures[i].sqlstate, &buf, &reply),
		    API_DONE);
		expect_reply(failures[i].status, TEXT, NULL);
		for (size_t j = 0; j < SHM_ARRAY_LEN(reads); j++) {
			assert_int_not_equal(begin(reads[j]), API_DONE);
			assert_int_equal(
			    api_db(&call, failures[i].outcome,
				failures[i].sqlstate, &buf, &reply),
			    API_DONE);
			expect_reply(
			    failures[i].status, j == 0 ? PROBLEM : TEXT, NULL);
		}
	}
}

static void
the_sentences_about_the_database_differ(void **state)
{
	char text[4][128];

	(void)state;
	for (int i = 0; i < 4; i++) {
		assert_int_equal(
		    begin((struct sent){M(API_DELETE, "/books/1")}),
		    API_NEED_DB);
		assert_int_equal(api_db(&call, (enum api_db_outcome)(i + 1), "",
				     &buf, &reply),
		    API_DONE);
		snprintf(text[i], sizeof(text[i]), "%.*s", (int)reply.body.len,
		    reply.body.data);
		for (int j = 0; j < i; j++)
			assert_string_not_equal(text[i], text[j]);
	}
}

static void
a_put_that_lost_a_race_runs_again_and_then_wins(void **state)
{
	(void)state;
	begin_put(ISBN, BODY(ISBN));
	assert_int_equal(
	    api_db(&call, API_DB_OK, "", &buf, &reply), API_NEED_DB);
	assert_int_equal(
	    api_db(&call, API_DB_REFUSED, "40001", &buf, &reply), API_NEED_DB);
	expect_statement(API_SQL_BOOK_PUT, 6,
	    (const char *[]){ISBN, ISBN, "T", "A", "9.9", "P"});
	give_row(&stored);
	assert_int_equal(api_db(&call, API_DB_OK, "", &buf, &reply), API_DONE);
	expect_reply(200, JSON, STORED_JSON);
}

static void
a_put_that_keeps_losing_gives_up_after_five_statements(void **state)
{
	(void)state;
	begin_put(ISBN, BODY(ISBN));
	for (int i = 1; i < 5; i++)
		assert_int_equal(
		    api_db(&call, API_DB_OK, "", &buf, &reply), API_NEED_DB);
	assert_int_equal(api_db(&call, API_DB_OK, "", &buf, &reply), API_DONE);
	expect_reply(503, TEXT, NULL);
}

static void
a_row_that_was_rolled_back_is_not_answered(void **state)
{
	(void)state;
	begin_put(ISBN, BODY(ISBN));
	give_row(&(struct test_book){.id = 9, .isbn = ISBN});
	assert_int_equal(
	    api_db(&call, API_DB_REFUSED, "40P01", &buf, &reply), API_NEED_DB);
	give_row(&stored);
	assert_int_equal(api_db(&call, API_DB_OK, "", &buf, &reply), API_DONE);
	expect_reply(200, JSON, STORED_JSON);
	begin_put(ISBN, BODY(ISBN));
	give_row(&stored);
	assert_int_equal(
	    api_db(&call, API_DB_REFUSED, "40001", &buf, &reply), API_NEED_DB);
	assert_int_equal(
	    api_db(&call, API_DB_OK, "", &buf, &reply), API_NEED_DB);
	begin_put(ISBN, BODY(ISBN));
	give_row(&stored);
	assert_int_equal(
	    api_db(&call, API_DB_UNKNOWN, "", &buf, &reply), API_DONE);
	expect_reply(503, TEXT, NULL);
	assert_memory_equal(reply.body.data, "The database was lost", 21);
}

static void
an_answer_without_memory_is_500(void **state)
{
	(void)state;
	assert_int_equal(
	    begin((struct sent){M(API_GET, "/books/" ISBN)}), API_NEED_DB);
	buf.bytes_max = 100;
	give_row(&stored);
	assert_int_equal(api_db(&call, API_DB_OK, "", &buf, &reply), API_DONE);
	expect_reply(500, TEXT, "There is no memory for the answer.");
	buf.bytes_max = 0;
}

static void
a_list_is_streamed_as_an_array(void **state)
{
	static const char *const want[] = {
	    "[]", "[" STORED_JSON "]", "[" STORED_JSON "," STORED_JSON "]"};
	struct test_row row;

	(void)state;
	test_row_make(&row, &stored);
	for (int rows = 0; rows < 3; rows++) {
		assert_int_equal(begin((struct sent){M(API_GET, "/books/")}),
		    API_NEED_STREAM);
		expect_statement(API_SQL_BOOKS_LIST, 0, NULL);
		api_stream_open(&call, &buf, &reply);
		expect_reply(200, JSON, "");
		for (int i = 0; i < rows; i++)
			api_stream_row(&call, &row.row, &buf);
		api_stream_close(&call, &buf);
		assert_true(api_slice_is(api_buf_slice(&buf), want[rows]));
	}
}

static void
a_duplicate_is_422_by_no_row_and_by_23505(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(begin((struct sent){M(API_POST, "/books"),
				     .content_type = JSON}),
		    API_NEED_BODY);
		assert_int_equal(body(BODY(ISBN)), API_NEED_DB);
		assert_int_equal(
		    api_db(&call, i == 0 ? API_DB_OK : API_DB_REFUSED,
			i == 0 ? "" : "23505", &buf, &reply),
		    API_DONE);
		expect_reply(
		    422, TEXT, "A book with ISBN " ISBN " already exists.");
	}
}

static void
a_put_whose_body_has_a_taken_isbn_is_422_naming_it(void **state)
{
	(void)state;
	begin_put(OTHER, BODY(ISBN));
	assert_int_equal(api_db(&call, API_DB_OK, "", &buf, &reply), API_DONE);
	expect_reply(422, TEXT, "A book with ISBN " ISBN " already exists.");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    CALL_TEST(every_failure_of_the_database_has_its_answer),
	    CALL_TEST(the_sentences_about_the_database_differ),
	    CALL_TEST(a_put_that_lost_a_race_runs_again_and_then_wins),
	    CALL_TEST(a_put_that_keeps_losing_gives_up_after_five_statements),
	    CALL_TEST(a_row_that_was_rolled_back_is_not_answered),
	    CALL_TEST(an_answer_without_memory_is_500),
	    CALL_TEST(a_list_is_streamed_as_an_array),
	    CALL_TEST(a_duplicate_is_422_by_no_row_and_by_23505),
	    CALL_TEST(a_put_whose_body_has_a_taken_isbn_is_422_naming_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
