/*
 * Goal: the scoreboard tells readiness and the database's state as its header
 * promises, to every process, and forgets a dead worker.
 * Method: set words, ask questions; a forked child writes what the parent
 * reads.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/shm_task.h"

static struct shm_board *board;

static int
setup(void **state)
{
	(void)state;
	board = shm_task_board_new();
	return board != NULL ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	struct shm_task *task = shm_task_of(board);

	shm_task_free(&task);
	return task == NULL ? 0 : -1;
}

static void
a_new_board_is_empty_and_not_ready(void **state)
{
	(void)state;
	assert_false(shm_board_is_ready(board));
	assert_false(shm_board_has_db(board));
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++) {
		assert_int_equal(shm_board_get(board->worker[i].pid), 0);
		assert_int_equal(
		    shm_board_get(board->worker[i].state), SHM_BOARD_EMPTY);
	}
}

static void
blocks_of_workers_share_no_cache_line(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
		assert_int_equal((uintptr_t)&board->worker[i] % 128, 0);
}

static void
readiness_lasts_until_drain_whatever_the_database_does(void **state)
{
	(void)state;
	shm_board_set(board->worker[1].db, SHM_BOARD_DB_READY);
	assert_false(shm_board_is_ready(board));
	shm_board_set(board->served, 1);
	assert_true(shm_board_is_ready(board));
	shm_board_set(board->worker[1].db, SHM_BOARD_DB_AWAY);
	assert_true(shm_board_is_ready(board));
	shm_board_set(board->draining, 1);
	assert_false(shm_board_is_ready(board));
}

static void
one_worker_with_a_connection_is_enough_to_have_the_database(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++) {
		shm_board_set(board->worker[i].db, SHM_BOARD_DB_READY);
		assert_true(shm_board_has_db(board));
		shm_board_set(board->worker[i].db, SHM_BOARD_DB_AWAY);
		assert_false(shm_board_has_db(board));
	}
}

static void
a_reset_forgets_the_reports_and_keeps_the_count_of_restarts(void **state)
{
	struct shm_board_worker *worker = &board->worker[2];

	(void)state;
	shm_board_set(worker->pid, 77);
	shm_board_set(worker->restarts, 4);
	shm_board_set(worker->state, SHM_BOARD_SERVING);
	shm_board_set(worker->io, SHM_BOARD_IO_EPOLL);
	shm_board_set(worker->db, SHM_BOARD_DB_READY);
	shm_board_set(worker->connections, 9);
	shm_board_set(worker->db_connections, 2);
	shm_board_set(worker->requests, 1000);
	shm_board_worker_reset(board, 2);
	assert_int_equal(shm_board_get(worker->pid), 0);
	assert_int_equal(shm_board_get(worker->state), SHM_BOARD_EMPTY);
	assert_int_equal(shm_board_get(worker->io), SHM_BOARD_IO_NONE);
	assert_int_equal(shm_board_get(worker->db), SHM_BOARD_DB_AWAY);
	assert_int_equal(shm_board_get(worker->connections), 0);
	assert_int_equal(shm_board_get(worker->db_connections), 0);
	assert_int_equal(shm_board_get(worker->requests), 0);
	assert_int_equal(shm_board_get(worker->restarts), 4);
}

static void
a_child_writes_what_its_parent_reads(void **state)
{
	pid_t pid = fork();
	int status;

	(void)state;
	assert_int_not_equal(pid, -1);
	if (pid == 0) {
		shm_board_set(board->served, 1);
		shm_board_set(board->worker[0].requests, UINT64_C(1) << 40);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_true(shm_board_is_ready(board));
	assert_true(
	    shm_board_get(board->worker[0].requests) == UINT64_C(1) << 40);
}

static void
every_state_has_a_name_and_strange_numbers_are_unknown(void **state)
{
	(void)state;
	assert_string_equal(shm_board_io_name(SHM_BOARD_IO_NONE), "none");
	assert_string_equal(shm_board_io_name(SHM_BOARD_IO_URING), "io_uring");
	assert_string_equal(shm_board_io_name(SHM_BOARD_IO_EPOLL), "epoll");
	assert_string_equal(shm_board_io_name(99), "unknown");
	assert_string_equal(shm_board_state_name(SHM_BOARD_EMPTY), "empty");
	assert_string_equal(
	    shm_board_state_name(SHM_BOARD_STARTING), "starting");
	assert_string_equal(shm_board_state_name(SHM_BOARD_SERVING), "serving");
	assert_string_equal(
	    shm_board_state_name(SHM_BOARD_DRAINING), "draining");
	assert_string_equal(shm_board_state_name(99), "unknown");
	assert_string_equal(
	    shm_board_migrate_name(SHM_BOARD_MIGRATE_OFF), "off");
	assert_string_equal(
	    shm_board_migrate_name(SHM_BOARD_MIGRATE_PENDING), "pending");
	assert_string_equal(
	    shm_board_migrate_name(SHM_BOARD_MIGRATE_DONE), "done");
	assert_string_equal(
	    shm_board_migrate_name(SHM_BOARD_MIGRATE_FAILED), "failed");
	assert_string_equal(shm_board_migrate_name(99), "unknown");
}

static void
freeing_no_task_is_fine(void **state)
{
	struct shm_task *none = NULL;

	(void)state;
	shm_task_free(&none);
	assert_null(none);
}

#define BOARD_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    BOARD_TEST(a_new_board_is_empty_and_not_ready),
	    BOARD_TEST(blocks_of_workers_share_no_cache_line),
	    BOARD_TEST(readiness_lasts_until_drain_whatever_the_database_does),
	    BOARD_TEST(
		one_worker_with_a_connection_is_enough_to_have_the_database),
	    BOARD_TEST(
		a_reset_forgets_the_reports_and_keeps_the_count_of_restarts),
	    BOARD_TEST(a_child_writes_what_its_parent_reads),
	    BOARD_TEST(every_state_has_a_name_and_strange_numbers_are_unknown),
	    cmocka_unit_test(freeing_no_task_is_fine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
