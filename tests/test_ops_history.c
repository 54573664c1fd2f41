/*
 * Goal: ten hours of seconds become at most 1800 points, in order, without a
 * gap or an overlap, and each of them counts what happened in its time.
 * Method: hours of seconds in a loop, with and without jumps of the clocks.
 */
#include "config.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/ops_history.h"

#define START_MS UINT64_C(1700000000000)

struct world {
	struct ops_history history;
	struct ops_total total;
};

static struct world *
world_new(void)
{
	struct world *world = calloc(1, sizeof(*world));

	assert_non_null(world);
	world->total = (struct ops_total){
	    .at_us = 5000000, .wall_ms = START_MS, .serving = 2};
	ops_history_add(&world->history, &world->total);
	return world;
}

/* A second with requests that take us each. */
static void
second(struct world *world, uint32_t requests, uint64_t us)
{
	struct ops_total *total = &world->total;

	total->at_us += 1000000;
	total->wall_ms += 1000;
	total->requests += requests;
	total->busy_us += 500000;
	for (uint32_t i = 0; i < requests; i++)
		shm_histogram_add(&total->duration, us);
	ops_history_add(&world->history, total);
}

static uint32_t
count_points(const struct ops_history *history, uint64_t *requests)
{
	const struct ops_point *point;
	uint64_t after_ms = 0;
	uint32_t count = 0;

	*requests = 0;
	while ((point = ops_history_next(history, after_ms)) != NULL) {
		assert_true(point->t_ms > after_ms);
		after_ms = point->t_ms;
		for (uint32_t i = 0; i < OPS_HISTORY_BANDS; i++)
			*requests += point->heat[i];
		count++;
	}
	return count;
}

static void
a_point_counts_what_happened_in_its_second(void **state)
{
	struct world *world = world_new();
	const struct ops_point *point;

	(void)state;
	assert_null(ops_history_last(&world->history));
	second(world, 10, 300);
	second(world, 20, 3000);
	point = ops_history_last(&world->history);
	assert_non_null(point);
	assert_int_equal(point->t_ms, START_MS + 2000);
	assert_true(fabsf(point->rps - 20) < 0.01f);
	assert_true(point->p50_ms >= 3 && point->p50_ms < 3.7);
	assert_true(isnan(point->hit));
	assert_true(fabsf(point->busy - 25) < 0.01f);
	assert_int_equal(point->heat[4], 20); /* 2.048 to 4.096 ms */
	point = ops_history_next(&world->history, 0);
	assert_int_equal(point->heat[1], 10);
	free(world);
}

static void
ten_hours_are_1800_points_without_a_gap(void **state)
{
	struct world *world = world_new();
	uint64_t requests;
	uint32_t count = 0;

	(void)state;
	for (uint32_t i = 1; i <= 36000; i++) {
		second(world, 2, 100);
		if (i != 1 && i != 59 && i != 601 && i != 5999 && i != 36000)
			continue;
		count = count_points(&world->history, &requests);
		if (i <= 600)
			assert_int_equal(count, i);
		/* What is older than all ten-second points begins with one. */
		assert_true(requests <= UINT64_C(2) * i &&
			    requests + 2 * 60 >= UINT64_C(2) * i);
	}
	assert_true(count > 600 && count <= 1800);
	for (uint32_t i = 0; i < 36000; i++)
		second(world, 2, 100);
	count = count_points(&world->history, &requests);
	assert_true(count > 1000 && count <= 1800);
	assert_true(requests >= 2 * 35900 && requests <= 2 * 36060);
	free(world);
}

static void
points_stay_in_order_when_the_clock_is_set(void **state)
{
	struct world *world = world_new();
	uint64_t requests;

	(void)state;
	for (uint32_t i = 0; i < 30; i++)
		second(world, 1, 100);
	world->total.wall_ms -= 3600000;
	for (uint32_t i = 0; i < 30; i++)
		second(world, 1, 100);
	world->total.wall_ms += 2 * 3600000;
	for (uint32_t i = 0; i < 30; i++)
		second(world, 1, 100);
	assert_int_equal(count_points(&world->history, &requests), 90);
	assert_int_equal(requests, 90);
	assert_int_equal(
	    ops_history_last(&world->history)->t_ms, world->total.wall_ms);
	free(world);
}

static void
a_pause_is_one_point(void **state)
{
	struct world *world = world_new();

	(void)state;
	second(world, 1, 100);
	world->total.at_us += 99000000;
	world->total.wall_ms += 99000;
	second(world, 100, 100);
	assert_true(fabsf(ops_history_last(&world->history)->rps - 1) < 0.01f);
	free(world);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_point_counts_what_happened_in_its_second),
	    cmocka_unit_test(ten_hours_are_1800_points_without_a_gap),
	    cmocka_unit_test(points_stay_in_order_when_the_clock_is_set),
	    cmocka_unit_test(a_pause_is_one_point),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
