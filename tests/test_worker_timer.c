/*
 * Goal: no deadline fires early, none is lost, and a moved one fires once.
 * Method: the clock is a number of the test's own; random schedules are held
 * against a plain array of deadlines.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "worker/worker_timer.h"

#define THINGS 64
#define SECOND 1000000ull

static uint64_t now_us;
static uint64_t wanted[THINGS];
static unsigned fired[THINGS];
static struct worker_timer *timer;

static void
on_fire(void *owner, uint32_t index)
{
	assert_ptr_equal(owner, wanted);
	assert_true(wanted[index] <= now_us);
	wanted[index] = WORKER_TIMER_NEVER;
	fired[index]++;
}

static int
set_up(void **state)
{
	(void)state;
	now_us = 1000 * SECOND + 12345;
	for (size_t i = 0; i < THINGS; i++) {
		wanted[i] = WORKER_TIMER_NEVER;
		fired[i] = 0;
	}
	timer = worker_timer_new(THINGS, on_fire, wanted, now_us);
	return timer == NULL ? -1 : 0;
}

static int
tear_down(void **state)
{
	(void)state;
	worker_timer_free(&timer);
	return 0;
}

static void
want(uint32_t index, uint64_t deadline_us)
{
	wanted[index] = deadline_us;
	worker_timer_set(timer, index, deadline_us);
}

static void
an_empty_wheel_never_needs_a_call(void **state)
{
	(void)state;
	assert_true(worker_timer_run(timer, now_us) == WORKER_TIMER_NEVER);
}

static void
a_deadline_fires_once_and_at_most_a_tick_late(void **state)
{
	(void)state;
	want(3, now_us + 300000);
	for (int i = 0; i < 100 && fired[3] == 0; i++) {
		uint64_t wait = worker_timer_run(timer, now_us);

		if (fired[3] > 0)
			break;
		assert_true(wait <= 5 * SECOND);
		now_us += wait;
	}
	assert_int_equal(fired[3], 1);
	assert_true(
	    now_us <= 1000 * SECOND + 12345 + 300000 + WORKER_TIMER_TICK_US);
	now_us += 100 * SECOND;
	worker_timer_run(timer, now_us);
	assert_int_equal(fired[3], 1);
}

static void
a_deadline_moved_later_does_not_fire_at_the_old_time(void **state)
{
	(void)state;
	want(0, now_us + SECOND);
	want(0, now_us + 70 * SECOND);
	now_us += 69 * SECOND;
	worker_timer_run(timer, now_us);
	assert_int_equal(fired[0], 0);
	assert_true(worker_timer_get(timer, 0) == wanted[0]);
	now_us += 2 * SECOND;
	worker_timer_run(timer, now_us);
	assert_int_equal(fired[0], 1);
	assert_true(worker_timer_get(timer, 0) == WORKER_TIMER_NEVER);
}

static void
a_deadline_moved_earlier_fires_at_the_new_time(void **state)
{
	(void)state;
	want(0, now_us + 70 * SECOND);
	want(0, now_us + SECOND / 2);
	now_us += SECOND;
	worker_timer_run(timer, now_us);
	assert_int_equal(fired[0], 1);
}

static void
a_cancelled_deadline_does_not_fire(void **state)
{
	(void)state;
	want(5, now_us + SECOND);
	want(5, WORKER_TIMER_NEVER);
	now_us += 10 * SECOND;
	assert_true(worker_timer_run(timer, now_us) == WORKER_TIMER_NEVER);
	assert_int_equal(fired[5], 0);
}

static void
a_deadline_in_the_past_fires_with_the_next_tick(void **state)
{
	(void)state;
	want(1, now_us - SECOND);
	now_us += WORKER_TIMER_TICK_US;
	worker_timer_run(timer, now_us);
	assert_int_equal(fired[1], 1);
}

static void
random_schedules_agree_with_an_array(void **state)
{
	(void)state;
	srandom(7);
	for (int step = 0; step < 200000; step++) {
		uint32_t i = (uint32_t)random() % THINGS;

		if (random() % 3 == 0)
			want(i, now_us + (uint64_t)random() % (90 * SECOND));
		now_us += (uint64_t)random() %
			  (random() % 500 == 0 ? 20 * SECOND : 40000);
		worker_timer_run(timer, now_us);
		for (size_t k = 0; k < THINGS; k++)
			if (wanted[k] != WORKER_TIMER_NEVER)
				assert_true(
				    wanted[k] + WORKER_TIMER_TICK_US > now_us);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(an_empty_wheel_never_needs_a_call),
	    TEST(a_deadline_fires_once_and_at_most_a_tick_late),
	    TEST(a_deadline_moved_later_does_not_fire_at_the_old_time),
	    TEST(a_deadline_moved_earlier_fires_at_the_new_time),
	    TEST(a_cancelled_deadline_does_not_fire),
	    TEST(a_deadline_in_the_past_fires_with_the_next_tick),
	    TEST(random_schedules_agree_with_an_array),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
