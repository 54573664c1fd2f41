/*
 * Goal: statistics are counted where they belong, sums see every slot that had
 * a process and survive what happens to it, and a task's memory is adopted only
 * by who lays it out alike.
 * Method: count in blocks of a real mapping, map it again through its
 * descriptor, compare with figures worked out by hand.
 */
#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/shm_task.h"

static struct shm_task *task;
static int task_fd = -1;

static int
setup(void **state)
{
	(void)state;
	task = shm_task_new(&task_fd);
	return task != NULL ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	shm_task_free(&task);
	close(task_fd);
	return 0;
}

static void
a_value_lies_in_its_bucket(void **state)
{
	const uint64_t values[] = {0, 1, 3, 4, 5, 7, 8, 9, 10, 15, 16, 63, 64,
	    100, 1000, 999999, 1u << 20, 123456789, (1u << 27) - 1};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(values); i++) {
		uint32_t index = shm_histogram_index(values[i]);

		assert_in_range(values[i], shm_histogram_floor(index),
		    shm_histogram_floor(index + 1) - 1);
	}
	for (uint32_t i = 0; i < SHM_HISTOGRAM_BUCKETS; i++)
		assert_int_equal(
		    shm_histogram_index(shm_histogram_floor(i)), i);
	assert_int_equal(
	    shm_histogram_index(UINT64_MAX), SHM_HISTOGRAM_BUCKETS - 1);
}

static void
a_quantile_is_an_upper_bound_of_its_part(void **state)
{
	struct shm_histogram *histogram = &task->stats[0].database;

	(void)state;
	assert_int_equal(shm_histogram_quantile(histogram, .99), 0);
	for (uint64_t us = 1; us <= 1000; us++)
		shm_histogram_add(histogram, us);
	assert_int_equal(shm_histogram_count(histogram), 1000);
	assert_int_equal(shm_stats_get(histogram->sum_us), 500500);
	assert_in_range(shm_histogram_quantile(histogram, .5), 500, 600);
	assert_in_range(shm_histogram_quantile(histogram, .99), 990, 1180);
	assert_in_range(shm_histogram_quantile(histogram, 1), 1000, 1180);
}

static void
every_status_has_a_place_and_strange_ones_share_the_last(void **state)
{
	const uint16_t statuses[] = SHM_STATS_STATUSES;

	(void)state;
	for (uint32_t i = 0; i < SHM_ARRAY_LEN(statuses); i++)
		for (int again = 0; again < 2; again++) {
			assert_int_equal(
			    shm_stats_status_index(statuses[i]), i);
			assert_int_equal(shm_stats_status(i), statuses[i]);
		}
	for (uint32_t status = 0; status < 2000; status += 7)
		assert_in_range(shm_stats_status_index(status), 0,
		    SHM_STATS_STATUSES_COUNT - 1);
	assert_int_equal(
	    shm_stats_status_index(218), SHM_STATS_STATUSES_COUNT - 1);
	assert_int_equal(shm_stats_status(SHM_STATS_STATUSES_COUNT - 1), 0);
}

static void
sqlstates_are_numbers_and_texts(void **state)
{
	const char *const texts[] = {"00000", "23505", "57P01", "ZZZZZ"};
	char text[6];

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(texts); i++) {
		assert_int_not_equal(shm_stats_sqlstate(texts[i]), 0);
		shm_stats_sqlstate_text(shm_stats_sqlstate(texts[i]), text);
		assert_string_equal(text, texts[i]);
	}
	assert_int_equal(
	    shm_stats_sqlstate("57p01"), shm_stats_sqlstate("XX000"));
	assert_int_equal(shm_stats_sqlstate(NULL), shm_stats_sqlstate("XX000"));
	assert_int_equal(shm_stats_sqlstate("1"), shm_stats_sqlstate("XX000"));
}

static void
a_sum_has_all_slots_of_both_halves(void **state)
{
	struct shm_stats *sum = aligned_alloc(128, sizeof(*sum));
	char sqlstate[6] = "40000";

	(void)state;
	assert_non_null(sum);
	shm_board_set(task->half[0].worker[3].incarnation, 1);
	shm_board_set(task->half[1].worker[0].incarnation, 1);
	shm_stats_request(&task->stats[3], 2, 0, 200, 50);
	shm_stats_request(&task->stats[SHM_BOARD_SLOTS], 2, 0, 200, 70);
	shm_stats_request(&task->stats[SHM_BOARD_SLOTS], 99, 99, 999, 70);
	shm_stats_count(&task->stats[3], SHM_STATS_sent, 1000);
	for (int i = 0; i < SHM_STATS_SQLSTATES + 5; i++) {
		sqlstate[3] = (char)('0' + i / 10);
		sqlstate[4] = (char)('0' + i % 10);
		shm_stats_sqlstate_count(&task->stats[3], sqlstate);
	}
	shm_stats_sqlstate_count(&task->stats[SHM_BOARD_SLOTS], "40003");
	/* A death changes nothing of it. */
	shm_board_worker_reset(&task->half[0], 3);
	shm_task_half_begin(&task->half[1], 1);
	shm_task_sum(task, sum);
	assert_int_equal(
	    shm_stats_get(sum->requests[2][0][shm_stats_status_index(200)]), 2);
	assert_int_equal(
	    shm_stats_get(
		sum->requests[SHM_STATS_ROUTES - 1][SHM_STATS_METHODS - 1]
			     [SHM_STATS_STATUSES_COUNT - 1]),
	    1);
	assert_int_equal(shm_histogram_count(&sum->duration[2]), 2);
	assert_int_equal(shm_stats_get(sum->counter[SHM_STATS_sent]), 1000);
	assert_int_equal(shm_stats_get(sum->sqlstate[3].count), 2);
	assert_int_equal(shm_stats_get(sum->sqlstate_other), 5);
	free(sum);
}

static void
a_mapping_is_adopted_by_who_lays_it_out_alike(void **state)
{
	struct shm_task *again = shm_task_adopt(task_fd);

	(void)state;
	assert_non_null(again);
	shm_stats_count(&task->stats[5], SHM_STATS_turns, 7);
	assert_int_equal(
	    shm_stats_get(again->stats[5].counter[SHM_STATS_turns]), 7);
	shm_board_count(&again->half[1], SHM_BOARD_EVENT_reload);
	assert_int_equal(shm_task_events(task, SHM_BOARD_EVENT_reload), 1);
	assert_ptr_equal(shm_task_of(&again->half[1]), again);
	assert_int_equal(
	    shm_task_slot(&again->half[1], 2), SHM_BOARD_SLOTS + 2);
	shm_task_free(&again);
	task->layout++;
	assert_null(shm_task_adopt(task_fd));
	assert_int_equal(errno, EPROTO);
}

static void
every_name_is_a_word(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < SHM_STATS_COUNTERS_COUNT; i++) {
		assert_true(shm_stats_counter_name(i)[0] >= 'a');
		assert_true(shm_stats_counter_help(i)[0] != '\0');
		assert_in_range(shm_stats_counter_unit(i), SHM_STATS_COUNT,
		    SHM_STATS_MICROSECONDS);
	}
	for (uint32_t i = 0; i < SHM_BOARD_EVENTS_COUNT; i++) {
		assert_true(shm_board_event_name(i)[0] >= 'a');
		assert_true(shm_board_event_help(i)[0] != '\0');
	}
}

#define STATS_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_value_lies_in_its_bucket),
	    STATS_TEST(a_quantile_is_an_upper_bound_of_its_part),
	    cmocka_unit_test(
		every_status_has_a_place_and_strange_ones_share_the_last),
	    cmocka_unit_test(sqlstates_are_numbers_and_texts),
	    STATS_TEST(a_sum_has_all_slots_of_both_halves),
	    STATS_TEST(a_mapping_is_adopted_by_who_lays_it_out_alike),
	    cmocka_unit_test(every_name_is_a_word),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
