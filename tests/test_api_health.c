/*
 * Goal: health tells what the scoreboard says, in each of its forms, and the
 * answers and names that other rooms take from here are whole.
 * Method: set words of a scoreboard, ask, parse the JSON.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

#include "tests/api_call_test.h"

static void
readiness_is_told_in_every_form(void **state)
{
	static const char *const names[] = {"starting", "ready", "draining"};
	const char *up[] = {"{\"status\":\"OUT_OF_SERVICE\"}",
	    "{\"status\":\"UP\"}", "{\"status\":\"OUT_OF_SERVICE\"}"};

	(void)state;
	for (int i = 0; i < 3; i++) {
		int status = i == 1 ? 200 : 503;

		shm_board_set(board->served, i >= 1);
		shm_board_set(board->draining, i >= 2);
		(void)begin((struct sent){M(API_GET, "/readyz")});
		expect_reply(status, TEXT, names[i]);
		(void)begin((struct sent){M(API_GET, "/readyz"),
		    .query = "v=1&verbos&x", .accept = PROBLEM});
		expect_reply(status, i == 1 ? TEXT : PROBLEM, NULL);
		(void)begin(
		    (struct sent){M(API_GET, "/readyz"), .query = "verbose"});
		expect_reply(status, JSON, NULL);
		(void)begin((struct sent){M(API_GET, "/health")});
		expect_reply(status, JSON, up[i]);
		(void)begin((struct sent){M(API_HEAD, "/actuator/health")});
		expect_reply(status, JSON, up[i]);
		(void)begin((struct sent){M(API_GET, "/livez")});
		expect_reply(200, TEXT, "alive");
	}
}

static void
verbose_readiness_tells_what_the_scoreboard_knows(void **state)
{
	json_t *document, *worker;
	json_error_t error;

	(void)state;
	shm_board_set(board->served, 1);
	shm_board_set(board->migrate, SHM_BOARD_MIGRATE_DONE);
	shm_board_set(board->worker[1].pid, 4711);
	shm_board_set(board->worker[1].state, SHM_BOARD_SERVING);
	shm_board_set(board->worker[1].io, SHM_BOARD_IO_EPOLL);
	shm_board_set(board->worker[1].connections, 5);
	shm_board_set(board->worker[1].requests, 99);
	shm_board_set(board->worker[1].restarts, 2);
	shm_board_set(board->worker[1].started_us, shm_clock_us());
	(void)begin(
	    (struct sent){M(API_GET, "/readyz"), .query = "a&verbose=1&b"});
	expect_reply(200, JSON, NULL);
	document = json_loadb(reply.body.data, reply.body.len, 0, &error);
	assert_non_null(document);
	assert_string_equal(
	    json_string_value(json_object_get(document, "status")), "ready");
	assert_string_equal(
	    json_string_value(json_object_get(document, "version")), "1.2.3");
	assert_string_equal(
	    json_string_value(json_object_get(document, "migrate")), "done");
	assert_string_equal(
	    json_string_value(json_object_get(document, "database")), "away");
	assert_string_equal(
	    json_string_value(json_object_get(document, "backend")), "epoll");
	assert_int_equal(
	    json_array_size(json_object_get(document, "workers")), 1);
	worker = json_array_get(json_object_get(document, "workers"), 0);
	assert_int_equal(
	    json_integer_value(json_object_get(worker, "pid")), 4711);
	assert_string_equal(
	    json_string_value(json_object_get(worker, "state")), "serving");
	assert_string_equal(
	    json_string_value(json_object_get(worker, "io")), "epoll");
	assert_int_equal(
	    json_integer_value(json_object_get(worker, "requests")), 99);
	json_decref(document);
	shm_board_set(board->worker[0].io, SHM_BOARD_IO_URING);
	shm_board_set(board->worker[0].db, SHM_BOARD_DB_READY);
	(void)begin((struct sent){M(API_GET, "/readyz"), .query = "verbose"});
	document = json_loadb(reply.body.data, reply.body.len, 0, &error);
	assert_string_equal(
	    json_string_value(json_object_get(document, "backend")), "mixed");
	assert_string_equal(
	    json_string_value(json_object_get(document, "database")), "ready");
	json_decref(document);
}

static void
the_engines_own_answers_have_both_forms(void **state)
{
	(void)state;
	api_problem(431, "Too \"many\".", false, &buf, &reply);
	expect_reply(431, TEXT, "Too \"many\".");
	api_problem(431, "Too \"many\".", true, &buf, &reply);
	expect_reply(431, PROBLEM,
	    "{\"type\":\"about:blank\",\"title\":\"Request Header Fields Too "
	    "Large\",\"status\":431,\"detail\":\"Too \\\"many\\\".\"}");
	assert_string_equal(api_status_reason(422), "Unprocessable Content");
	assert_string_equal(api_status_reason(299), "Unknown");
}

static void
names_and_statements_are_complete(void **state)
{
	(void)state;
	for (int i = 0; i < API_METHODS; i++)
		assert_non_null(api_method_name((enum api_method)i));
	assert_string_equal(api_method_name(API_METHOD_OTHER), "OTHER");
	for (int i = 0; i < API_SQL_COUNT; i++) {
		const struct api_sql_text *text = api_sql_text((enum api_sql)i);
		char last[8], next[8];

		assert_non_null(text->name);
		snprintf(last, sizeof(last), "$%d", text->params_count);
		snprintf(next, sizeof(next), "$%d", text->params_count + 1);
		assert_true(
		    text->params_count == 0 || strstr(text->sql, last) != NULL);
		assert_null(strstr(text->sql, next));
		assert_int_equal(
		    text->is_write, strstr(text->sql, "INSERT") != NULL ||
					strstr(text->sql, "DELETE") != NULL);
		assert_null(strchr(text->sql, '*'));
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    CALL_TEST(readiness_is_told_in_every_form),
	    CALL_TEST(verbose_readiness_tells_what_the_scoreboard_knows),
	    CALL_TEST(the_engines_own_answers_have_both_forms),
	    CALL_TEST(names_and_statements_are_complete),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
