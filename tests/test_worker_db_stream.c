/*
 * Goal: a list has a connection to itself, comes as slowly as its reader
 * likes, can be given up at any moment, and never disturbs other queries.
 * Method: a PostgreSQL server of the test's own with 20,000 books; readers
 * that pause, cancel, and whose backend is killed, while other queries go on.
 */
#include "config.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/db_pool.h"

#define STREAM_ROWS 20000

static int
stream_setup(void **state)
{
	(void)server_setup(state);
	admin("%s", table_sql);
	return 0;
}

static void
a_list_on_a_stale_link_begins_again_on_a_new_one(void **state)
{
	struct pool pool;

	(void)state;
	pool_open(&pool, 1);
	submit_post(&pool, &queries[0], "deallocate", "1");
	pool_until(&pool, queries[0].done);
	submit_list(&pool, &queries[1], 0);
	pool_until(&pool, done_count(queries, 2) == 2);
	assert_int_equal(outcome_count(queries, 2, API_DB_OK), 2);
	assert_int_equal(queries[1].rows, 101);
	admin("DELETE FROM book WHERE isbn = 'deallocate'");
	pool_close(&pool);
}

static void
a_list_is_paused_and_resumed_while_others_go_on(void **state)
{
	struct pool pool;
	struct query *list = &queries[0];

	(void)state;
	admin("INSERT INTO book (author, isbn, price, title, created_date,"
	      " last_modified_date, version) SELECT repeat('a', 100),"
	      " 'many-' || i, i, 't', now(), now(), 1"
	      " FROM generate_series(1, %d) i",
	    STREAM_ROWS);
	pool_open(&pool, 2);
	submit_list(&pool, list, 1000);
	pool_until(&pool, list->rows == 1000);
	for (int i = 0; i < 200; i++) {
		get_is_ok(&pool);
		assert_int_equal(list->rows, 1000);
	}
	/* One of two links has a list, so no other one is begun. */
	submit_list(&pool, &queries[1], 0);
	pool_until(&pool, queries[1].done);
	assert_int_equal(queries[1].outcome, API_DB_BUSY);
	assert_int_equal(list->rows, 1000);
	list->pause_after = 1001;
	worker_db_resume(pool.db, &list->query);
	worker_db_resume(pool.db, &list->query);
	pool_until(&pool, list->rows == 1001);
	worker_db_resume(pool.db, &list->query);
	pool_until(&pool, list->done);
	assert_int_equal(list->outcome, API_DB_OK);
	assert_int_equal(list->rows, STREAM_ROWS + 100);
	pool_close(&pool);
}

static void
after_a_list_the_statement_timeout_is_back(void **state)
{
	struct pool pool;
	PGconn *locker;
	int pid;

	(void)state;
	pool_prepare(&pool, 1, pool_conninfo("host=%s", server.dir));
	pool.options.statement_timeout_ms = 500;
	pool_begin(&pool);
	pool_until(&pool, pool.connections == 1);
	pid = admin_int("SELECT pid " BACKENDS);
	submit_list(&pool, &queries[0], 0);
	pool_until(&pool, queries[0].done);
	assert_int_equal(queries[0].outcome, API_DB_OK);
	locker = lock_table();
	submit_get(&pool, &queries[0], "isbn-1");
	pool_until(&pool, queries[0].done);
	assert_int_equal(queries[0].outcome, API_DB_TIMEOUT);
	/* The server ended it, not the link's loss. */
	assert_int_equal(admin_int("SELECT pid " BACKENDS), pid);
	PQfinish(locker);
	pool_close(&pool);
}

static void
a_cancelled_list_closes_its_connection_only(void **state)
{
	struct pool pool;
	struct query *list = &queries[0];
	int before, after;

	(void)state;
	pool_open(&pool, 3);
	before = admin_int("SELECT max(pid) " BACKENDS);
	for (int how = 0; how < 4; how++) {
		submit_list(&pool, list, how == 0 ? 10 : 0);
		list->cancel_in_row = how == 1;
		if (how == 0)
			pool_until(&pool, list->rows == 10);
		else if (how == 1)
			pool_until(&pool, list->rows == 1);
		else if (how == 2)
			pool_turn(&pool); /* sent, or about to be */
		worker_db_cancel(pool.db, &list->query);
		list->pause_after = 0;
		pool_until(&pool, list->done);
		assert_int_equal(list->outcome, API_DB_UNAVAILABLE);
		assert_in_range(list->rows, 0, 10);
		pool_until(&pool, pool.connections == 3);
		get_is_ok(&pool);
	}
	after = admin_int("SELECT max(pid) " BACKENDS);
	assert_int_not_equal(before, after);
	submit_list(&pool, list, 0);
	pool_until(&pool, list->done);
	assert_int_equal(list->rows, STREAM_ROWS + 100);
	pool_close(&pool);
}

static void
a_list_whose_backend_is_killed_ends_and_never_repeats_a_row(void **state)
{
	struct pool pool;
	struct query *list = &queries[0];

	(void)state;
	pool_open(&pool, 2);
	submit_list(&pool, list, 500);
	pool_until(&pool, list->rows == 500);
	admin("SELECT pg_terminate_backend(pid) " BACKENDS);
	worker_db_resume(pool.db, &list->query);
	pool_until(&pool, list->done);
	assert_int_equal(list->outcome, API_DB_UNAVAILABLE);
	assert_true(list->rows < STREAM_ROWS);
	pool_until(&pool, pool.connections == 2);
	get_is_ok(&pool);
	pool_close(&pool);
	admin("DELETE FROM book WHERE isbn LIKE 'many-%%'");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_list_on_a_stale_link_begins_again_on_a_new_one),
	    cmocka_unit_test(a_list_is_paused_and_resumed_while_others_go_on),
	    cmocka_unit_test(after_a_list_the_statement_timeout_is_back),
	    cmocka_unit_test(a_cancelled_list_closes_its_connection_only),
	    cmocka_unit_test(
		a_list_whose_backend_is_killed_ends_and_never_repeats_a_row),
	};

	if (!server_find())
		return 0;
	return cmocka_run_group_tests(tests, stream_setup, server_teardown);
}
