/*
 * Goal: calls answer as the contract says: every status, header and text, in
 * the order of the checks, when the database does its part.
 * Method: tables of requests; rows in binary format as the worker would hand
 * them over.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/api_call_test.h"

static const struct {
	struct sent sent;
	int status;
	const char *content_type, *text, *route;
} answers[] = {
    {{M(API_GET, "/")}, 200, TEXT, "Welcome!", "/"},
    {{M(API_HEAD, "/")}, 200, TEXT, "Welcome!", "/"},
    {{M(API_GET, "/"), .accept = "text/html;q=0"}, 200, TEXT, "Welcome!", "/"},
    {{M(API_GET, "/livez")}, 200, TEXT, "alive", "/livez"},
    {{M(API_HEAD, "/livez"), .accept = "image/png"}, 200, TEXT, "alive",
	"/livez"},
    {{M(API_OPTIONS, "/")}, 200, NULL, "", "/"},
    {{M(API_OPTIONS, "/books/1")}, 200, NULL, "", "/books/{isbn}"},
    {{M(API_OPTIONS, "*"), .asterisk = true}, 200, NULL, "", "*"},
    {{M(API_GET, "/x")}, 404, TEXT, "There is nothing at this path.", "none"},
    {{M(API_METHOD_OTHER, "/x")}, 404, TEXT, NULL, "none"},
    {{M(API_OPTIONS, "/x")}, 404, TEXT, NULL, "none"},
    {{M(API_GET, "/x"), .accept = PROBLEM}, 404, PROBLEM,
	"{\"type\":\"about:blank\",\"title\":\"Not Found\",\"status\":404,"
	"\"detail\":\"There is nothing at this path.\"}",
	"none"},
    {{M(API_POST, "/")}, 405, TEXT, "The method is not allowed at this path.",
	"/"},
    {{M(API_METHOD_OTHER, "/")}, 405, TEXT, NULL, "/"},
    {{M(API_PUT, "/books")}, 405, TEXT, NULL, "/books"},
    {{M(API_DELETE, "/books")}, 405, TEXT, NULL, "/books"},
    {{M(API_POST, "/books/1")}, 405, TEXT, NULL, "/books/{isbn}"},
    {{M(API_METHOD_OTHER, "/books/1"), .accept = PROBLEM}, 405, PROBLEM, NULL,
	"/books/{isbn}"},
    {{M(API_DELETE, "/health")}, 405, TEXT, NULL, "/health"},
    {{M(API_GET, "/books/%zz")}, 400, TEXT,
	"The path must be percent-encoded UTF-8 without NUL.", "/books/{isbn}"},
    {{M(API_DELETE, "/books/%00")}, 400, TEXT, NULL, "/books/{isbn}"},
    {{M(API_GET, "/books/%ff"), .accept = PROBLEM}, 400, PROBLEM, NULL,
	"/books/{isbn}"},
    {{M(API_PUT, "/books"), .accept = "text/html"}, 405, TEXT, NULL, "/books"},
    {{M(API_GET, "/books"), .accept = "text/html"}, 406, TEXT, NULL, "/books"},
    {{M(API_HEAD, "/books"), .accept = JSON ";q=0"}, 406, TEXT, NULL, "/books"},
    {{M(API_GET, "/books/1"), .accept = "text/*"}, 406, TEXT, NULL,
	"/books/{isbn}"},
    {{M(API_POST, "/books"), .accept = "text/html"}, 406, TEXT, NULL, "/books"},
    {{M(API_PUT, "/books/1"), .accept = PROBLEM "," JSON ";q=0"}, 406, PROBLEM,
	NULL, "/books/{isbn}"},
    {{M(API_POST, "/books")}, 415, TEXT, NULL, "/books"},
    {{M(API_POST, "/books"), .content_type = "text/plain"}, 415, TEXT, NULL,
	"/books"},
    {{M(API_PUT, "/books/1"), .content_type = JSON ";charset=latin1"}, 415,
	TEXT, NULL, "/books/{isbn}"},
    {{M(API_POST, "/books"), .content_type = JSON, .content_encoding = "gzip"},
	415, TEXT, "The body must be sent without a Content-Encoding.",
	"/books"},
    {{M(API_HEAD, "/books")}, 200, JSON, "", "/books"},
};

static void
calls_that_need_nothing_are_answered_at_once(void **state)
{
	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(answers); i++) {
		assert_int_equal(begin(answers[i].sent), API_DONE);
		expect_reply(answers[i].status, answers[i].content_type,
		    answers[i].text);
		assert_string_equal(api_call_route(&call), answers[i].route);
		assert_int_equal(reply.is_stream_head,
		    answers[i].sent.method == API_HEAD && reply.status == 200 &&
			strcmp(answers[i].sent.path, "/books") == 0);
	}
}

static void
options_and_405_list_the_methods(void **state)
{
	(void)state;
	(void)begin((struct sent){M(API_OPTIONS, "/books/1")});
	assert_string_equal(reply.allow, "GET, HEAD, PUT, DELETE, OPTIONS");
	(void)begin((struct sent){M(API_METHOD_OTHER, "/books")});
	assert_string_equal(reply.allow, "GET, HEAD, POST, OPTIONS");
	(void)begin((struct sent){M(API_OPTIONS, "*"), .asterisk = true});
	assert_string_equal(
	    reply.allow, "GET, HEAD, POST, PUT, DELETE, OPTIONS");
}

static void
the_greeting_touches_no_memory(void **state)
{
	(void)state;
	assert_int_equal(begin((struct sent){M(API_GET, "/")}), API_DONE);
	assert_null(buf.data);
	assert_ptr_equal(reply.body.data, api.greeting.data);
}

static void
a_book_is_found_by_its_decoded_isbn(void **state)
{
	(void)state;
	assert_int_equal(
	    begin((struct sent){
		M(API_GET, "/books/978%30201134476/"), .query = "x=1"}),
	    API_NEED_DB);
	expect_statement(API_SQL_BOOK_GET, 1, (const char *[]){ISBN});
	give_row(&stored);
	assert_int_equal(api_db(&call, API_DB_OK, "", &buf, &reply), API_DONE);
	expect_reply(200, JSON, STORED_JSON);
}

static void
head_of_a_book_asks_the_database_as_well(void **state)
{
	(void)state;
	assert_int_equal(
	    begin((struct sent){M(API_HEAD, "/books/" ISBN)}), API_NEED_DB);
	give_row(&stored);
	assert_int_equal(api_db(&call, API_DB_OK, "", &buf, &reply), API_DONE);
	expect_reply(200, JSON, STORED_JSON);
}

static void
a_row_that_comes_again_replaces_the_first(void **state)
{
	(void)state;
	assert_int_equal(
	    begin((struct sent){M(API_GET, "/books/" ISBN)}), API_NEED_DB);
	give_row(&(struct test_book){.id = 9, .isbn = ISBN});
	give_row(&stored);
	assert_int_equal(api_db(&call, API_DB_OK, "", &buf, &reply), API_DONE);
	expect_reply(200, JSON, STORED_JSON);
}

static void
an_unknown_book_is_named_in_its_404(void **state)
{
	(void)state;
	assert_int_equal(
	    begin((struct sent){M(API_GET, "/books/a%2F%22b")}), API_NEED_DB);
	assert_int_equal(api_db(&call, API_DB_OK, "", &buf, &reply), API_DONE);
	expect_reply(404, TEXT, "The book with ISBN a/\"b was not found.");
	assert_int_equal(begin((struct sent){
			     M(API_GET, "/books/a%2F%22b"), .accept = PROBLEM}),
	    API_NEED_DB);
	assert_int_equal(api_db(&call, API_DB_OK, "", &buf, &reply), API_DONE);
	expect_reply(404, PROBLEM,
	    "{\"type\":\"about:blank\",\"title\":\"Not Found\",\"status\":404,"
	    "\"detail\":\"The book with ISBN a/\\\"b was not found.\"}");
}

/* "/books/" and count pieces; the decoded text in *decoded. */
static char *
long_path(const char *piece, int count)
{
	size_t len = strlen(piece);
	char *path = malloc(8 + len * (size_t)count);

	assert_non_null(path);
	strcpy(path, "/books/");
	for (int i = 0; i < count; i++)
		strcpy(path + 7 + len * (size_t)i, piece);
	return path;
}

static void
an_isbn_of_255_characters_is_asked_for_and_a_longer_one_is_not(void **state)
{
	static const struct {
		const char *sent, *decoded;
	} pieces[] = {
	    {"x", "x"},
	    {"%C3%A9", "\xc3\xa9"},
	    {"%F0%9F%93%9A", "\xf0\x9f\x93\x9a"},
	};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(pieces); i++) {
		size_t bytes = strlen(pieces[i].decoded);
		char *path = long_path(pieces[i].sent, 255);
		char *want = long_path(pieces[i].decoded, 256);
		char text[2048];

		assert_int_equal(
		    begin((struct sent){M(API_GET, path)}), API_NEED_DB);
		assert_int_equal(
		    strlen(api_call_statement(&call)->params[0]), bytes * 255);
		free(path);
		path = long_path(pieces[i].sent, 256);
		for (int problem = 0; problem < 2; problem++) {
			assert_int_equal(
			    begin((struct sent){M(API_GET, path),
				.accept = problem ? PROBLEM : NULL}),
			    API_DONE);
			snprintf(text, sizeof(text),
			    "%sThe book with ISBN %s was not found.%s",
			    problem ? "{\"type\":\"about:blank\",\"title\":"
				      "\"Not Found\",\"status\":404,"
				      "\"detail\":\""
				    : "",
			    want + 7, problem ? "\"}" : "");
			expect_reply(404, problem ? PROBLEM : TEXT, text);
		}
		assert_int_equal(
		    begin((struct sent){M(API_DELETE, path)}), API_DONE);
		expect_reply(204, NULL, "");
		free(path);
		free(want);
	}
}

static void
a_put_to_an_isbn_that_is_too_long_stores_the_bodys_book(void **state)
{
	char *path = long_path("x", 300);

	(void)state;
	assert_int_equal(
	    begin((struct sent){M(API_PUT, path), .content_type = JSON}),
	    API_NEED_BODY);
	free(path);
	assert_int_equal(body(BODY(ISBN)), API_NEED_DB);
	expect_statement(API_SQL_BOOK_PUT, 6,
	    (const char *[]){NULL, ISBN, "T", "A", "9.9", "P"});
	assert_int_equal(api_db(&call, API_DB_OK, "", &buf, &reply), API_DONE);
	expect_reply(422, TEXT, "A book with ISBN " ISBN " already exists.");
}

static void
begin_post(const char *accept)
{
	assert_int_equal(
	    begin((struct sent){M(API_POST, "/books"), .accept = accept,
		.content_type = JSON ";charset=utf-8"}),
	    API_NEED_BODY);
}

static void
a_new_book_is_created_with_its_location(void **state)
{
	(void)state;
	begin_post(NULL);
	assert_int_equal(body(BODY(ISBN)), API_NEED_DB);
	expect_statement(
	    API_SQL_BOOK_POST, 5, (const char *[]){ISBN, "T", "A", "9.9", "P"});
	give_row(&stored);
	assert_int_equal(api_db(&call, API_DB_OK, "", &buf, &reply), API_DONE);
	expect_reply(201, JSON, STORED_JSON);
	assert_true(api_slice_is(reply.location, "/books/" ISBN));
}

static void
a_missing_publisher_is_null(void **state)
{
	(void)state;
	begin_post(NULL);
	assert_int_equal(
	    body("{\"isbn\":\"" ISBN "\",\"title\":\" T\",\"author\":\"A\","
		 "\"price\":1e21}"),
	    API_NEED_DB);
	expect_statement(API_SQL_BOOK_POST, 5,
	    (const char *[]){ISBN, " T", "A", "1e+21", NULL});
}

static void
an_invalid_book_is_400_flat_or_as_a_problem(void **state)
{
	(void)state;
	begin_post(NULL);
	assert_int_equal(
	    body("{\"isbn\":\"x\",\"title\":\"T\",\"price\":0}"), API_DONE);
	expect_reply(400, JSON,
	    "{\"isbn\":\"The ISBN format must be valid.\","
	    "\"author\":\"The book author must be defined.\","
	    "\"price\":\"The book price must be greater than zero.\"}");
	begin_post(PROBLEM);
	assert_int_equal(body("{\"isbn\":\"x\",\"title\":\"T\",\"author\":"
			      "\"A\",\"price\":1}"),
	    API_DONE);
	expect_reply(400, PROBLEM,
	    "{\"type\":\"about:blank\",\"title\":\"Bad Request\","
	    "\"status\":400,\"detail\":\"The book is not valid.\","
	    "\"errors\":{\"isbn\":\"The ISBN format must be valid.\"}}");
}

static void
a_malformed_body_is_400_with_its_place(void **state)
{
	(void)state;
	begin_post(NULL);
	assert_int_equal(body("{\"a\":"), API_DONE);
	expect_reply(400, TEXT,
	    "The request body is not acceptable JSON at line 1, column 5"
	    " (byte 5): it ends too early.");
	begin_post(PROBLEM);
	assert_int_equal(body("[]"), API_DONE);
	expect_reply(400, PROBLEM, NULL);
	begin_post(NULL);
	assert_int_equal(body(""), API_DONE);
	expect_reply(400, TEXT, NULL);
}

static void
a_put_answers_the_row_that_it_stored(void **state)
{
	(void)state;
	begin_put(OTHER, BODY(ISBN));
	expect_statement(API_SQL_BOOK_PUT, 6,
	    (const char *[]){OTHER, ISBN, "T", "A", "9.9", "P"});
	give_row(&stored);
	assert_int_equal(api_db(&call, API_DB_OK, "", &buf, &reply), API_DONE);
	expect_reply(200, JSON, STORED_JSON);
}

static void
a_delete_is_204_whether_it_found_something_or_not(void **state)
{
	(void)state;
	assert_int_equal(begin((struct sent){M(API_DELETE, "/books/" ISBN),
			     .accept = "text/html"}),
	    API_NEED_DB);
	expect_statement(API_SQL_BOOK_DELETE, 1, (const char *[]){ISBN});
	assert_int_equal(api_db(&call, API_DB_OK, "", &buf, &reply), API_DONE);
	expect_reply(204, NULL, "");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    CALL_TEST(calls_that_need_nothing_are_answered_at_once),
	    CALL_TEST(options_and_405_list_the_methods),
	    CALL_TEST(the_greeting_touches_no_memory),
	    CALL_TEST(a_book_is_found_by_its_decoded_isbn),
	    CALL_TEST(head_of_a_book_asks_the_database_as_well),
	    CALL_TEST(a_row_that_comes_again_replaces_the_first),
	    CALL_TEST(an_unknown_book_is_named_in_its_404),
	    CALL_TEST(
		an_isbn_of_255_characters_is_asked_for_and_a_longer_one_is_not),
	    CALL_TEST(a_put_to_an_isbn_that_is_too_long_stores_the_bodys_book),
	    CALL_TEST(a_new_book_is_created_with_its_location),
	    CALL_TEST(a_missing_publisher_is_null),
	    CALL_TEST(an_invalid_book_is_400_flat_or_as_a_problem),
	    CALL_TEST(a_malformed_body_is_400_with_its_place),
	    CALL_TEST(a_put_answers_the_row_that_it_stored),
	    CALL_TEST(a_delete_is_204_whether_it_found_something_or_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
