/*
 * Goal: a quota that changes and a quota that stops us are noticed, in either
 * version of control groups.
 * Method: a fake machine, a folder with the kernel's files, whose numbers are
 * changed between two looks; time is a number.  it_sizing.py does the same to
 * a booksd that runs.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "master/master_throttle.h"
#include "shm/shm_task.h"

#define SECOND UINT64_C(1000000)
#define V2     "30 24 0:26 / /v2 rw - cgroup2 cgroup2 rw\n"
#define V1     "31 24 0:27 / /v1 rw - cgroup cgroup rw,cpu\n"

static char root[] = "/tmp/test_master_throttle_XXXXXX";
static struct shm_board *board;

static void
write_file(const char *path, const char *text)
{
	char full[256];
	FILE *file;

	snprintf(full, sizeof(full), "%s%s", root, path);
	file = fopen(full, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

/* For looks whose answer is of no interest. */
static void
look(struct master_throttle *throttle, uint64_t now_us)
{
	assert_false(master_throttle_tick(throttle, root, board, now_us));
}

static void
the_level_that_was_stopped_most_counts(void **state)
{
	struct master_throttle_stat stat;

	(void)state;
	write_file("/v2/a/cpu.stat",
	    "usage_usec 5\nnr_periods 9\nnr_throttled 0\nthrottled_usec 0\n");
	write_file("/v2/cpu.stat",
	    "nr_periods 8\nnr_throttled 3\nthrottled_usec 7000\n");
	write_file("/v1/cpu.stat", "");
	master_throttle_read(root, &stat);
	assert_int_equal(stat.periods, 8);
	assert_int_equal(stat.throttled_periods, 3);
	assert_int_equal(stat.throttled_us, 7000);
}

static void
version_1_counts_nanoseconds(void **state)
{
	struct master_throttle_stat stat;

	(void)state;
	write_file("/v2/a/cpu.stat", "usage_usec 5\n");
	write_file("/v2/cpu.stat", "nr_periods");
	write_file("/v1/cpu.stat",
	    "nr_periods 4\nnr_throttled 2\nthrottled_time 9000999\n");
	master_throttle_read(root, &stat);
	assert_int_equal(stat.periods, 4);
	assert_int_equal(stat.throttled_us, 9000);
	write_file("/v1/cpu.stat", "");
}

static void
a_changed_quota_is_noticed_within_a_second(void **state)
{
	struct master_throttle throttle = {0};
	uint64_t now_us = 100 * SECOND;

	(void)state;
	write_file("/v2/a/cpu.max", "max 100000\n");
	write_file("/v2/cpu.max", "50000 100000\n");
	assert_false(master_throttle_tick(&throttle, root, board, now_us));
	assert_int_equal(shm_board_get(board->cpu.millicpus), 500);
	assert_int_equal(throttle.next_us, now_us + SECOND);
	write_file("/v2/cpu.max", "20000 100000\n");
	assert_false(
	    master_throttle_tick(&throttle, root, board, now_us + SECOND / 2));
	assert_int_equal(shm_board_get(board->cpu.millicpus), 500);
	assert_true(
	    master_throttle_tick(&throttle, root, board, now_us + SECOND));
	assert_int_equal(shm_board_get(board->cpu.millicpus), 200);
	assert_int_equal(throttle.sizing.workers, 1);
	assert_false(
	    master_throttle_tick(&throttle, root, board, now_us + 2 * SECOND));
	write_file("/v2/cpu.max", "max 100000\n");
	assert_true(
	    master_throttle_tick(&throttle, root, board, now_us + 3 * SECOND));
	assert_int_equal(shm_board_get(board->cpu.millicpus), 0);
	assert_int_equal(throttle.sizing.workers, master_sizing_affinity());
}

static void
throttling_is_reported_at_most_once_a_minute(void **state)
{
	struct master_throttle throttle = {0};
	uint64_t now_us = 100 * SECOND;
	char text[100];

	(void)state;
	for (unsigned i = 0; i < 100; i++) {
		snprintf(text, sizeof(text),
		    "nr_periods %u\nnr_throttled %u\nthrottled_usec %u\n",
		    100 + 10 * i, 50 + i, 5000 + 1000 * i);
		write_file("/v2/cpu.stat", text);
		look(&throttle, now_us + i * SECOND);
		/* The first look only learns what was counted before. */
		if (i == 0)
			assert_int_equal(throttle.said.throttled_us, 5000);
		else if (i < 61)
			assert_int_equal(throttle.said.throttled_us, 6000);
		else
			assert_int_equal(throttle.said.throttled_us, 66000);
	}
	assert_int_equal(shm_board_get(board->cpu.throttled_us), 104000);
	assert_int_equal(shm_board_get(board->cpu.throttled_periods), 149);
	assert_int_equal(shm_board_get(board->cpu.periods), 1090);
}

static void
counts_that_begin_anew_are_no_throttling(void **state)
{
	struct master_throttle throttle = {0};

	(void)state;
	write_file("/v2/cpu.stat",
	    "nr_periods 100\nnr_throttled 9\nthrottled_usec 5000\n");
	look(&throttle, 100 * SECOND);
	write_file(
	    "/v2/cpu.stat", "nr_periods 1\nnr_throttled 0\nthrottled_usec 0\n");
	look(&throttle, 101 * SECOND);
	assert_int_equal(throttle.said.throttled_us, 0);
	assert_int_equal(throttle.said_us, 40 * SECOND);
}

static int
group_setup(void **state)
{
	static const char *const folders[] = {
	    "/proc", "/proc/self", "/v1", "/v2", "/v2/a"};
	char full[256];

	(void)state;
	if (mkdtemp(root) == NULL)
		return -1;
	for (size_t i = 0; i < SHM_ARRAY_LEN(folders); i++) {
		snprintf(full, sizeof(full), "%s%s", root, folders[i]);
		if (mkdir(full, 0700) == -1)
			return -1;
	}
	write_file("/proc/self/cgroup", "4:cpu:/\n0::/a\n");
	write_file("/proc/self/mountinfo", V2 V1);
	board = shm_task_board_new();
	return board == NULL ? -1 : 0;
}

static int
group_teardown(void **state)
{
	struct shm_task *task = shm_task_of(board);
	char line[100];

	(void)state;
	shm_task_free(&task);
	snprintf(line, sizeof(line), "rm -rf %s", root);
	return system(line);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_level_that_was_stopped_most_counts),
	    cmocka_unit_test(version_1_counts_nanoseconds),
	    cmocka_unit_test(a_changed_quota_is_noticed_within_a_second),
	    cmocka_unit_test(throttling_is_reported_at_most_once_a_minute),
	    cmocka_unit_test(counts_that_begin_anew_are_no_throttling),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
