/*
 * Goal: every query ends once and truly: a write is OK only when it is
 * committed, UNKNOWN only when nobody can tell, a read survives the failures
 * of others, and a database that is away, slow, locked, killed or stopped
 * costs a bounded time.
 * Method: a PostgreSQL server of the test's own, the real statements on a
 * table made here (with triggers that fail on purpose), and a small
 * loop that also checks how the pool asks for descriptors to be watched.
 * What the pool reports is compared with what a connection beside it sees.
 */
#include "config.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/db_pool.h"

#define PASSWORD	 "hunter2"
#define ACQUIRE_SHORT_MS 400 /* where it has to pass */

static void
the_pool_is_available_only_when_the_table_is_there(void **state)
{
	struct pool pool;
	struct query query;

	(void)state;
	pool_prepare(&pool, 4, pool_conninfo("host=%s", server.dir));
	pool.options.acquire_timeout_ms = ACQUIRE_SHORT_MS;
	pool_begin(&pool);
	submit_get(&pool, &query, "isbn-1");
	pool_until(&pool, query.done);
	assert_int_equal(query.outcome, API_DB_UNAVAILABLE);
	assert_false(worker_db_is_available(pool.db));
	assert_int_equal(pool.state_calls, 0);
	admin("%s", table_sql);
	pool_until(&pool, pool.connections == 4);
	assert_true(worker_db_is_available(pool.db));
	assert_int_equal(pool.state_calls, 4);
	get_is_ok(&pool);
	pool_close(&pool);
}

static void
each_of_many_reads_gets_its_own_row(void **state)
{
	struct pool pool;
	char isbn[32];

	(void)state;
	pool_open(&pool, 4);
	for (uint32_t round = 0; round < 20; round++) {
		for (int i = 0; i < 64; i++) {
			snprintf(isbn, sizeof(isbn), "isbn-%d", i * 2);
			submit_get(&pool, &queries[i], isbn);
		}
		pool_until(&pool, done_count(queries, 64) == 64);
		assert_int_equal(outcome_count(queries, 64, API_DB_OK), 64);
		for (int i = 0; i < 64; i++) {
			assert_int_equal(queries[i].rows, i < 50);
			if (i < 50)
				assert_string_equal(
				    queries[i].key, queries[i].isbn);
		}
	}
	pool_close(&pool);
}

static void
failures_of_some_leave_the_others_right(void **state)
{
	static const struct {
		const char *isbn;  /* %d: the round and number */
		const char *price; /* NULL: a read */
		enum api_db_outcome outcome;
		const char *sqlstate;
		bool is_stored;
	} mix[] = {
	    {"isbn-1", NULL, API_DB_OK, "", true},
	    {"bad \xff text", NULL, API_DB_REFUSED, "22021", false},
	    {"isbn-2", NULL, API_DB_OK, "", true},
	    {"new-%d", "1.5", API_DB_OK, "", true},
	    {"isbn-3", NULL, API_DB_OK, "", true},
	    {"no-price-%d", "cheap", API_DB_REFUSED, "22P02", false},
	    {"new-%d", "2.5", API_DB_OK, "", true},
	    {"isbn-4", "9", API_DB_OK, "", true}, /* a duplicate: no row */
	    {"null-%d", "", API_DB_REFUSED, "22P02", false},
	    {"deferred", "1", API_DB_REFUSED, "XX123", false},
	    {"isbn-5", NULL, API_DB_OK, "", true},
	    {"always-23514", "1", API_DB_REFUSED, "23514", false},
	};
	uint32_t count = SHM_ARRAY_LEN(mix) * 8;
	struct pool pool;
	char isbn[64], sql[200];

	(void)state;
	pool_open(&pool, 3);
	for (uint32_t round = 0; round < 30; round++) {
		for (uint32_t i = 0; i < count; i++) {
			/* another order each round */
			uint32_t n = (i * 5 + round) % SHM_ARRAY_LEN(mix);

			snprintf(isbn, sizeof(isbn), "%s", mix[n].isbn);
			if (strstr(isbn, "%d") != NULL)
				snprintf(strstr(isbn, "%d"), 20, "%u",
				    round * 1000 + i);
			if (mix[n].price == NULL)
				submit_get(&pool, &queries[i], isbn);
			else
				submit_post(
				    &pool, &queries[i], isbn, mix[n].price);
		}
		pool_until(&pool, done_count(queries, count) == count);
		for (uint32_t i = 0; i < count; i++) {
			uint32_t n = (i * 5 + round) % SHM_ARRAY_LEN(mix);

			assert_int_equal(queries[i].outcome, mix[n].outcome);
			assert_string_equal(
			    queries[i].sqlstate, mix[n].sqlstate);
			if (mix[n].sqlstate[0] == '2' && mix[n].price == NULL)
				continue;
			snprintf(sql, sizeof(sql),
			    "SELECT count(*) FROM book WHERE isbn = '%s'",
			    queries[i].isbn);
			assert_int_equal(admin_int(sql), mix[n].is_stored);
		}
	}
	/* The rows of a write whose commit failed were seen, in vain. */
	submit_post(&pool, &queries[0], "deferred", "1");
	pool_until(&pool, queries[0].done);
	assert_int_equal(queries[0].rows, 1);
	assert_int_equal(queries[0].outcome, API_DB_REFUSED);
	admin("DELETE FROM book WHERE isbn LIKE 'new-%%'");
	pool_close(&pool);
}

static void
ended_sessions_lose_no_read_and_no_write(void **state)
{
	struct pool pool;
	PGconn *locker;
	char isbn[32];

	(void)state;
	pool_open(&pool, 4);
	locker = lock_table();
	for (int i = 0; i < 60; i++) {
		snprintf(
		    isbn, sizeof(isbn), "%s-%d", i < 40 ? "isbn" : "kill", i);
		if (i < 40)
			submit_get(&pool, &queries[i], isbn);
		else
			submit_post(&pool, &queries[i], isbn, "1");
	}
	wait_for_blocked(&pool, 4);
	admin("CREATE TEMP TABLE killed AS"
	      " SELECT pid, pg_terminate_backend(pid) " BACKENDS);
	/* Not before all are gone, or the lock's end lets some work. */
	pool_until(
	    &pool, admin_int("SELECT count(*) " BACKENDS
			     " AND pid IN (SELECT pid FROM killed)") == 0);
	PQfinish(locker);
	pool_until(&pool, done_count(queries, 60) == 60);
	assert_int_equal(outcome_count(queries, 40, API_DB_OK), 40);
	assert_int_equal(outcome_count(queries + 40, 20, API_DB_OK), 20);
	assert_int_equal(
	    admin_int("SELECT count(*) FROM book WHERE isbn LIKE 'kill-%'"),
	    20);
	admin("DELETE FROM book WHERE isbn LIKE 'kill-%%'");
	pool_until(&pool, pool.connections == 4);
	get_is_ok(&pool);
	pool_close(&pool);
}

static void
a_write_that_ends_its_sessions_is_not_done_and_others_go_on(void **state)
{
	struct pool pool;

	(void)state;
	pool_open(&pool, 2);
	for (int i = 0; i < 20; i++)
		if (i == 10)
			submit_post(&pool, &queries[i], "die", "1");
		else
			submit_get(&pool, &queries[i], "isbn-1");
	pool_until(&pool, done_count(queries, 20) == 20);
	assert_int_equal(outcome_count(queries, 20, API_DB_OK), 19);
	assert_int_equal(queries[10].outcome, API_DB_UNAVAILABLE);
	pool_close(&pool);
}

static void
stale_links_are_replaced_and_their_queries_sent_again(void **state)
{
	static const char *const once[] = {
	    "once-26000", "once-0A000", "once-25006"};
	struct pool pool;

	(void)state;
	pool_open(&pool, 2);
	/* Both links forget their statements. */
	for (int i = 0; i < 2; i++)
		submit_post(&pool, &queries[i], "deallocate", "1");
	pool_until(&pool, done_count(queries, 2) == 2);
	for (int i = 0; i < 40; i++)
		if (i % 2 == 0)
			submit_get(&pool, &queries[i], "isbn-1");
		else
			submit_post(&pool, &queries[i], "isbn-1", "1");
	pool_until(&pool, done_count(queries, 40) == 40);
	assert_int_equal(outcome_count(queries, 40, API_DB_OK), 40);
	admin("DELETE FROM book WHERE isbn = 'deallocate'");
	pool_until(&pool, pool.connections == 2);
	for (size_t i = 0; i < SHM_ARRAY_LEN(once); i++) {
		submit_post(&pool, &queries[0], once[i], "1");
		pool_until(&pool, queries[0].done);
		assert_int_equal(queries[0].outcome, API_DB_OK);
	}
	submit_post(&pool, &queries[0], "always-25006", "1");
	pool_until(&pool, queries[0].done);
	assert_int_equal(queries[0].outcome, API_DB_UNAVAILABLE);
	assert_string_equal(queries[0].sqlstate, "25006");
	admin("DELETE FROM book WHERE isbn LIKE 'once-%%'");
	pool_close(&pool);
}

static void
a_locked_table_costs_the_statement_timeout(void **state)
{
	struct pool pool;
	PGconn *locker;
	uint32_t timeouts;

	(void)state;
	pool_prepare(&pool, 2, pool_conninfo("host=%s", server.dir));
	pool.options.statement_timeout_ms = 300;
	pool_begin(&pool);
	pool_until(&pool, pool.connections == 2);
	locker = lock_table();
	for (int i = 0; i < 40; i++)
		if (i % 4 != 0)
			submit_get(&pool, &queries[i], "isbn-1");
		else
			submit_post(&pool, &queries[i], "locked", "1");
	pool_until(&pool, done_count(queries, 40) == 40);
	timeouts = outcome_count(queries, 40, API_DB_TIMEOUT);
	assert_true(timeouts >= 2);
	assert_int_equal(timeouts +
			     outcome_count(queries, 40, API_DB_UNAVAILABLE) +
			     outcome_count(queries, 40, API_DB_BUSY) +
			     outcome_count(queries, 40, API_DB_UNKNOWN),
	    40);
	for (int i = 0; i < 40; i++)
		if (queries[i].outcome == API_DB_TIMEOUT)
			assert_string_equal(queries[i].sqlstate, "57014");
		else if (i % 4 != 0)
			assert_int_not_equal(
			    queries[i].outcome, API_DB_UNKNOWN);
	PQfinish(locker);
	pool_until(&pool, pool.connections == 2);
	get_is_ok(&pool);
	admin("DELETE FROM book WHERE isbn = 'locked'");
	pool_close(&pool);
}

static void
a_backend_that_does_not_answer_is_given_up(void **state)
{
	struct pool pool;
	pid_t pids[2];
	char sql[100];

	(void)state;
	pool_prepare(&pool, 2, pool_conninfo("host=%s", server.dir));
	pool.options.statement_timeout_ms = 200;
	pool_begin(&pool);
	pool_until(&pool, pool.connections == 2);
	for (int i = 0; i < 2; i++) {
		snprintf(sql, sizeof(sql),
		    "SELECT pid " BACKENDS " ORDER BY pid OFFSET %d", i);
		pids[i] = admin_int(sql);
		assert_int_equal(kill(pids[i], SIGSTOP), 0);
	}
	for (int i = 0; i < 10; i++)
		submit_get(&pool, &queries[i], "isbn-1");
	submit_post(&pool, &queries[10], "silence", "1");
	pool_until(&pool, done_count(queries, 11) == 11);
	assert_int_equal(outcome_count(queries, 10, API_DB_OK), 10);
	assert_int_equal(queries[10].outcome, API_DB_UNKNOWN);
	for (int i = 0; i < 2; i++)
		kill(pids[i], SIGCONT);
	pool_close(&pool);
}

static void
who_waits_too_long_or_in_a_full_queue_is_told_busy(void **state)
{
	const uint32_t placed = 2 * 64, waiting = 100, more = 30;
	struct pool pool;
	PGconn *locker;

	(void)state;
	pool_prepare(&pool, 2, pool_conninfo("host=%s", server.dir));
	pool.options.acquire_timeout_ms = ACQUIRE_SHORT_MS;
	pool_begin(&pool);
	pool_until(&pool, pool.connections == 2);
	locker = lock_table();
	for (uint32_t i = 0; i < placed; i++) {
		submit_get(&pool, &queries[i], "isbn-1");
		pool_turn(&pool);
	}
	for (uint32_t i = placed; i < placed + waiting + more; i++)
		submit_get(&pool, &queries[i], "isbn-1");
	/* Not even a timer has run: these did not wait. */
	worker_db_flush(pool.db);
	assert_int_equal(done_count(queries, placed + waiting), 0);
	assert_int_equal(
	    outcome_count(queries + placed + waiting, more, API_DB_BUSY), more);
	pool_until(&pool, done_count(queries, placed + waiting) == waiting);
	assert_int_equal(
	    outcome_count(queries + placed, waiting, API_DB_BUSY), waiting);
	PQfinish(locker);
	pool_until(&pool, done_count(queries, placed) == placed);
	assert_int_equal(outcome_count(queries, placed, API_DB_OK), placed);
	pool_close(&pool);
}

static void
a_stopped_server_is_waited_for(void **state)
{
	struct pool pool;

	(void)state;
	pool_prepare(&pool, 4, pool_conninfo("host=%s", server.dir));
	pool.options.acquire_timeout_ms = ACQUIRE_SHORT_MS;
	pool_begin(&pool);
	pool_until(&pool, pool.connections == 4);
	server_stop();
	pool_until(&pool, !pool.is_available);
	for (int i = 0; i < 20; i++)
		submit_get(&pool, &queries[i], "isbn-1");
	submit_post(&pool, &queries[20], "stopped", "1");
	submit_list(&pool, &queries[21], 0);
	pool_until(&pool, done_count(queries, 22) == 22);
	assert_int_equal(outcome_count(queries, 22, API_DB_UNAVAILABLE), 22);
	server_start();
	pool_until(&pool, pool.connections == 4);
	get_is_ok(&pool);
	pool_close(&pool);
}

static void
a_cancelled_query_ends_once_without_rows(void **state)
{
	struct pool pool;

	(void)state;
	pool_open(&pool, 2);
	for (int i = 0; i < 20; i++) {
		submit_get(&pool, &queries[i], "isbn-1");
		if (i % 2 == 0)
			worker_db_cancel(pool.db, &queries[i].query);
	}
	worker_db_flush(pool.db);
	for (int i = 1; i < 20; i += 4)
		worker_db_cancel(pool.db, &queries[i].query);
	pool_until(&pool, done_count(queries, 20) == 20);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(queries[i].rows, i % 4 == 3);
		assert_int_equal(queries[i].outcome,
		    i % 2 == 0 ? API_DB_UNAVAILABLE : API_DB_OK);
		worker_db_cancel(pool.db, &queries[i].query);
	}
	get_is_ok(&pool);
	pool_close(&pool);
}

static void
done_may_submit_the_next_query_or_the_same_one(void **state)
{
	struct pool pool;

	(void)state;
	pool_open(&pool, 2);
	for (int i = 1; i < 200; i++) {
		queries[i] = (struct query){.pool = &pool,
		    .statement = {.id = API_SQL_BOOK_GET,
			.params_count = 1,
			.params = {"isbn-5"}}};
		queries[i].then = i == 199 ? NULL : &queries[i + 1];
	}
	queries[0] = queries[1];
	submit(&queries[0]);
	pool_until(&pool, queries[199].done);
	assert_int_equal(outcome_count(queries + 2, 198, API_DB_OK), 198);
	pool_close(&pool);
}

static void
a_closed_pool_ends_every_query(void **state)
{
	struct pool pool;
	PGconn *locker;

	(void)state;
	pool_open(&pool, 2);
	locker = lock_table();
	for (int i = 0; i < 10; i++)
		submit_get(&pool, &queries[i], "isbn-1");
	submit_post(&pool, &queries[10], "closed", "1");
	submit_list(&pool, &queries[11], 0);
	pool_turn(&pool);
	submit_get(&pool, &queries[12], "isbn-1");
	queries[12].then = &queries[13];
	queries[13] = queries[12];
	queries[13].query = (struct worker_db_query){.statement = NULL};
	queries[13].then = NULL;
	pool_close(&pool);
	assert_int_equal(outcome_count(queries, 14, API_DB_UNAVAILABLE), 13);
	assert_int_equal(queries[10].outcome, API_DB_UNKNOWN);
	PQfinish(locker);
	admin("DELETE FROM book WHERE isbn = 'closed'");
}

static void
names_are_looked_up_and_bad_addresses_passed_over(void **state)
{
	struct pool pool;
	int listener, port = free_port(&listener);

	(void)state;
	pool_open_at(&pool, 4, pool_conninfo("host=localhost"));
	pool_until(&pool, pool.connections == 4);
	get_is_ok(&pool);
	pool_close(&pool);
	/* It accepts, and says nothing. */
	assert_int_equal(listen(listener, 64), 0);
	pool_prepare(&pool, 4,
	    pool_conninfo(
		"hostaddr=127.0.0.1,127.0.0.1 port=%d,%d", port, server.port));
	pool.options.connect_timeout_ms = 500;
	pool_begin(&pool);
	pool_until(&pool, pool.connections == 4);
	get_is_ok(&pool);
	pool_close(&pool);
	close(listener);
}

/* A server that is starting up: it says so to whoever connects. */
static pid_t
starting_server(int listener)
{
	static const char error[] = "E\0\0\0\x1a"
				    "SFATAL\0VFATAL\0C57P03\0\0";
	char startup[1000];
	pid_t pid = fork();

	assert_int_not_equal(pid, -1);
	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (read(fd, startup, sizeof(startup)) <= 0 ||
		    write(fd, error, sizeof(error) - 1) == -1)
			_exit(1);
		close(fd);
	}
}

static void
a_server_that_is_starting_up_is_passed_over_in_one_connect(void **state)
{
	struct pool pool;
	int listener, port = free_port(&listener);
	pid_t pid;

	(void)state;
	assert_int_equal(listen(listener, 64), 0);
	pid = starting_server(listener);
	pool_prepare(&pool, 2,
	    pool_conninfo("hostaddr=127.0.0.1,127.0.0.1 port=%d,%d"
			  " sslmode=disable",
		port, server.port));
	pool.options.connect_timeout_ms = 2 * WAIT_MS_MAX;
	pool_begin(&pool);
	pool_until(&pool, pool.connections == 2);
	get_is_ok(&pool);
	pool_close(&pool);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(listener);
}

static void
a_name_that_does_not_exist_is_a_database_that_is_away(void **state)
{
	struct pool pool;

	(void)state;
	pool_prepare(&pool, 2, pool_conninfo("host=no-such-host.invalid"));
	pool.options.acquire_timeout_ms = ACQUIRE_SHORT_MS;
	pool_begin(&pool);
	submit_get(&pool, &queries[0], "isbn-1");
	pool_until(&pool, queries[0].done);
	assert_int_equal(queries[0].outcome, API_DB_UNAVAILABLE);
	pool_close(&pool); /* perhaps with a lookup under way */
}

static void
being_away_is_logged_once_and_without_the_password(void **state)
{
	char path[100], text[8000];
	struct worker_log_options log = {.access = "off", .error = path};
	const char *which;
	struct pool pool;
	uint64_t end_us;
	size_t len;
	FILE *file;

	(void)state;
	snprintf(path, sizeof(path), "%s/error.log", server.dir);
	log.level = WORKER_LOG_WARN;
	assert_int_equal(worker_log_open(&log, &which), 0);
	pool_open_at(&pool, 3,
	    pool_conninfo("host=127.0.0.1 user=locked password=" PASSWORD));
	end_us = shm_clock_us() + 1000000;
	pool_until(&pool, shm_clock_us() > end_us);
	pool_close(&pool);
	worker_log_close();
	file = fopen(path, "r");
	assert_non_null(file);
	len = fread(text, 1, sizeof(text) - 1, file);
	text[len] = '\0';
	fclose(file);
	print_message("# %s", text);
	assert_non_null(strstr(text, "database_away"));
	assert_null(strstr(strstr(text, "database_away") + 1, "database_away"));
	assert_non_null(strstr(text, "\"28P01\""));
	assert_null(strstr(text, PASSWORD));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(
		the_pool_is_available_only_when_the_table_is_there),
	    cmocka_unit_test(each_of_many_reads_gets_its_own_row),
	    cmocka_unit_test(failures_of_some_leave_the_others_right),
	    cmocka_unit_test(ended_sessions_lose_no_read_and_no_write),
	    cmocka_unit_test(
		a_write_that_ends_its_sessions_is_not_done_and_others_go_on),
	    cmocka_unit_test(
		stale_links_are_replaced_and_their_queries_sent_again),
	    cmocka_unit_test(a_locked_table_costs_the_statement_timeout),
	    cmocka_unit_test(a_backend_that_does_not_answer_is_given_up),
	    cmocka_unit_test(
		who_waits_too_long_or_in_a_full_queue_is_told_busy),
	    cmocka_unit_test(a_stopped_server_is_waited_for),
	    cmocka_unit_test(a_cancelled_query_ends_once_without_rows),
	    cmocka_unit_test(done_may_submit_the_next_query_or_the_same_one),
	    cmocka_unit_test(a_closed_pool_ends_every_query),
	    cmocka_unit_test(names_are_looked_up_and_bad_addresses_passed_over),
	    cmocka_unit_test(
		a_server_that_is_starting_up_is_passed_over_in_one_connect),
	    cmocka_unit_test(
		a_name_that_does_not_exist_is_a_database_that_is_away),
	    cmocka_unit_test(
		being_away_is_logged_once_and_without_the_password),
	};

	if (!server_find())
		return 0;
	return cmocka_run_group_tests(tests, server_setup, server_teardown);
}
