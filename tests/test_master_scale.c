/*
 * Goal: workers are added when they stay busy, retired when they stay idle, and
 * never beyond the bounds.
 * Method: seconds of busy ratios go in, steps come out; time is only numbers.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "master/master_scale.h"

#define SECOND 1000000

static const uint32_t bounds[2] = {2, 4};
static struct master_scale scale;
static uint64_t now_us;

/* So many seconds; the sum of the steps, which change *workers. */
static int
pass(unsigned seconds, uint32_t busy_permille, uint32_t *workers)
{
	int sum = 0, step;

	for (unsigned i = 0; i < seconds; i++) {
		now_us += SECOND;
		step = master_scale_step(
		    &scale, busy_permille, *workers, bounds, now_us);
		*workers = (uint32_t)((int)*workers + step);
		sum += step;
	}
	return sum;
}

static int
begin(void **state)
{
	(void)state;
	scale = (struct master_scale){.busy_us = 0};
	now_us = SECOND;
	return 0;
}

static void
busy_ones_get_help_after_three_seconds_each(void **state)
{
	uint32_t workers = 2;

	(void)state;
	assert_int_equal(pass(3, 900, &workers), 0);
	assert_int_equal(pass(1, 900, &workers), 1);
	assert_int_equal(pass(3, 900, &workers), 0);
	assert_int_equal(pass(1, 900, &workers), 1);
	assert_int_equal(pass(600, 1000, &workers), 0);
	assert_int_equal(workers, 4);
}

static void
a_quiet_second_in_between_begins_anew(void **state)
{
	uint32_t workers = 2;

	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(pass(3, 900, &workers), 0);
		assert_int_equal(pass(1, 750, &workers), 0);
	}
}

static void
idle_ones_go_after_a_minute_each(void **state)
{
	uint32_t workers = 4;

	(void)state;
	assert_int_equal(pass(60, 100, &workers), 0);
	assert_int_equal(pass(1, 100, &workers), -1);
	assert_int_equal(pass(61, 299, &workers), -1);
	assert_int_equal(pass(600, 0, &workers), 0);
	assert_int_equal(workers, 2);
}

static void
the_middle_changes_nothing(void **state)
{
	uint32_t workers = 3;

	(void)state;
	assert_int_equal(pass(1000, 300, &workers), 0);
	assert_int_equal(pass(1000, 750, &workers), 0);
}

static void
more_than_the_most_by_hand_go_when_idle(void **state)
{
	uint32_t workers = 9;

	(void)state;
	assert_int_equal(pass(1000, 1000, &workers), 0);
	assert_int_equal(pass(62, 0, &workers), -1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(
		busy_ones_get_help_after_three_seconds_each, begin),
	    cmocka_unit_test_setup(
		a_quiet_second_in_between_begins_anew, begin),
	    cmocka_unit_test_setup(idle_ones_go_after_a_minute_each, begin),
	    cmocka_unit_test_setup(the_middle_changes_nothing, begin),
	    cmocka_unit_test_setup(
		more_than_the_most_by_hand_go_when_idle, begin),
	};

	return cmocka_run_group_tests_name("master_scale", tests, NULL, NULL);
}
