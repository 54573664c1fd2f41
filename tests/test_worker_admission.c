/*
 * Goal: admission refuses nobody while waits are short or come in bursts, rises
 * by the square-root law while they stand, keeps goodput and waits when three
 * times as much is offered as can be done, and opens again.
 * Method: the law with made-up times, and a model of a queue before a server.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "worker/worker_admission.h"

#define INTERVAL WORKER_ADMISSION_INTERVAL_US
#define TARGET	 100000
#define SECOND	 UINT64_C(1000000)

static struct worker_admission
admission_new(void)
{
	return (struct worker_admission){
	    .target_us = TARGET, .least_us = UINT64_MAX};
}

/* One interval with that least wait; how many of 1,000 are refused in it. */
static unsigned
interval(struct worker_admission *admission, uint64_t *now, uint64_t least)
{
	unsigned refused = 0;

	for (int i = 0; i < 1000; i++, *now += INTERVAL / 1000) {
		worker_admission_waits(admission, least + (uint64_t)i);
		refused += worker_admission_refuses(admission, *now);
	}
	worker_admission_step(admission, *now);
	return refused;
}

static void
short_waits_and_bursts_are_admitted(void **state)
{
	struct worker_admission admission = admission_new();
	uint64_t now = SECOND;

	(void)state;
	worker_admission_step(&admission, now);
	for (int i = 0; i < 50; i++) {
		worker_admission_waits(&admission, 5 * SECOND);
		worker_admission_waits(&admission, TARGET); /* not above */
		assert_int_equal(interval(&admission, &now, 3 * TARGET), 0);
	}
}

static void
refusals_rise_while_the_least_wait_stands(void **state)
{
	struct worker_admission admission = admission_new();
	unsigned refused, before = 0;
	uint64_t now = SECOND;

	(void)state;
	worker_admission_step(&admission, now);
	assert_int_equal(interval(&admission, &now, 2 * TARGET), 0);
	for (int i = 0; i < 10; i++) {
		refused = interval(&admission, &now, 2 * TARGET);
		assert_true(refused >= before);
		before = refused;
	}
	assert_in_range(before, 5, 500);
	for (int i = 0; i < 20; i++)
		refused = interval(&admission, &now, 0);
	assert_in_range(refused, 0, 1);
}

static void
count_refusals_are_made_in_an_interval_of_its_root(void **state)
{
	struct worker_admission admission = admission_new();
	unsigned refused = 0;

	(void)state;
	admission.count = 10000;
	for (uint64_t now = SECOND; now < SECOND + INTERVAL; now += 10)
		refused += worker_admission_refuses(&admission, now);
	assert_in_range(refused, 98, 106);
}

static void
no_target_admits_all(void **state)
{
	struct worker_admission admission = {.least_us = UINT64_MAX};

	(void)state;
	assert_false(worker_admission_is_due(&admission, SECOND));
	assert_false(worker_admission_refuses(&admission, SECOND));
}

/* A server that does `capacity` a second, asked `offered` a second; what it did
 * in the seconds from `from` to `to`, and the longest wait of those. */
struct outcome {
	uint64_t done, wait_max;
};

static struct outcome
simulate(uint64_t capacity, uint64_t offered, uint64_t from, uint64_t to)
{
	uint64_t free_at = 0, next = 0;
	struct worker_admission admission = admission_new();
	struct outcome outcome = {0, 0};

	srandom(7);
	for (uint64_t now = 0; now < to * SECOND;
	     now += (uint64_t)random() % (2 * SECOND / offered) + 1) {
		uint64_t wait = free_at > now ? free_at - now : 0;

		if (next <= now) {
			worker_admission_step(&admission, now);
			next = now + INTERVAL;
		}
		worker_admission_waits(&admission, wait);
		if (worker_admission_refuses(&admission, now) ||
		    wait > 2 * SECOND)
			continue;
		free_at = now + wait + SECOND / capacity;
		if (now < from * SECOND)
			continue;
		outcome.done++;
		if (wait > outcome.wait_max)
			outcome.wait_max = wait;
	}
	return outcome;
}

static void
goodput_stays_when_three_times_as_much_is_offered(void **state)
{
	static const uint64_t capacities[] = {50, 500, 5000, 20000};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(capacities); i++) {
		uint64_t capacity = capacities[i];
		struct outcome outcome =
		    simulate(capacity, 3 * capacity, 5, 15);

		print_message("# %ju/s: goodput %.3f, longest wait %ju ms\n",
		    (uintmax_t)capacity,
		    (double)outcome.done / 10 / (double)capacity,
		    (uintmax_t)outcome.wait_max / 1000);
		assert_true(outcome.done >= capacity * 9);
		assert_true(outcome.wait_max < SECOND);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(short_waits_and_bursts_are_admitted),
	    cmocka_unit_test(refusals_rise_while_the_least_wait_stands),
	    cmocka_unit_test(
		count_refusals_are_made_in_an_interval_of_its_root),
	    cmocka_unit_test(no_target_admits_all),
	    cmocka_unit_test(goodput_stays_when_three_times_as_much_is_offered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
