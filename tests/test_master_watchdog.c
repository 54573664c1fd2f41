/*
 * Goal: a process is judged stuck when it is, and never for what happened to
 * all of us.
 *
 * Method: a day of looks at a limit of 2 s, each with its heartbeat, its pause
 * and what the kernel says; time is only numbers.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "master/master_watchdog.h"

#define LIMIT 2000000
#define TICK  250000

static struct master_watch watch;

/* Look count times; what the last look said. */
static enum master_verdict
look(unsigned count, uint64_t heartbeat_us, uint64_t pause_us, char state,
    uint64_t cpu_us_each)
{
	enum master_verdict verdict = MASTER_VERDICT_FINE;
	struct master_watch_facts facts = {.state = state};

	for (unsigned i = 0; i < count && verdict != MASTER_VERDICT_STUCK;
	     i++) {
		verdict = master_watchdog_judge(
		    &watch, LIMIT, heartbeat_us, pause_us, NULL);
		facts.cpu_us += cpu_us_each;
		if (verdict == MASTER_VERDICT_SUSPECT)
			verdict = master_watchdog_judge(
			    &watch, LIMIT, heartbeat_us, 0, &facts);
	}
	return verdict;
}

static int
begin(void **state)
{
	(void)state;
	watch = (struct master_watch){.heartbeat_us = 0};
	assert_int_equal(look(1, 100, TICK, 'S', 0), MASTER_VERDICT_FINE);
	return 0;
}

static void
a_heart_that_beats_is_fine(void **state)
{
	(void)state;
	for (uint64_t beat = 200; beat < 2000; beat += 100)
		assert_int_equal(
		    look(2, beat, TICK, 'R', TICK), MASTER_VERDICT_FINE);
}

static void
one_that_is_stopped_or_waits_is_stuck_at_the_limit(void **state)
{
	static const char states[] = "TSZ";

	for (size_t i = 0; i < sizeof(states) - 1; i++) {
		begin(state);
		assert_int_equal(
		    look(7, 100, TICK, states[i], 0), MASTER_VERDICT_SUSPECT);
		assert_int_equal(
		    look(1, 100, TICK, states[i], 0), MASTER_VERDICT_STUCK);
	}
}

static void
one_that_loops_is_stuck_at_the_limit(void **state)
{
	(void)state;
	assert_int_equal(look(20, 100, TICK, 'R', TICK), MASTER_VERDICT_STUCK);
	assert_int_equal(watch.fair_us, LIMIT);
}

static void
one_that_is_starved_gets_three_times_as_long(void **state)
{
	static const char states[] = "RD";

	for (size_t i = 0; i < sizeof(states) - 1; i++) {
		begin(state);
		assert_int_equal(look(23, 100, TICK, states[i], TICK / 10),
		    MASTER_VERDICT_SUSPECT);
		assert_int_equal(
		    look(1, 100, TICK, states[i], 0), MASTER_VERDICT_STUCK);
	}
}

static void
time_in_which_we_were_late_does_not_count(void **state)
{
	(void)state;
	assert_int_equal(look(1000, 100, 0, 'T', 0), MASTER_VERDICT_FINE);
	assert_int_equal(look(4, 100, TICK, 'T', 0), MASTER_VERDICT_SUSPECT);
	assert_int_equal(look(1000, 100, 0, 'T', 0), MASTER_VERDICT_SUSPECT);
}

static void
one_that_a_debugger_holds_is_not_judged(void **state)
{
	(void)state;
	assert_int_not_equal(
	    look(1000, 100, TICK, 't', 0), MASTER_VERDICT_STUCK);
}

static void
a_beat_at_the_last_moment_saves(void **state)
{
	(void)state;
	assert_int_equal(look(7, 100, TICK, 'T', 0), MASTER_VERDICT_SUSPECT);
	assert_int_equal(look(1, 101, TICK, 'S', 0), MASTER_VERDICT_FINE);
	assert_int_equal(look(7, 101, TICK, 'T', 0), MASTER_VERDICT_SUSPECT);
}

static void
late_is_a_quarter_more_than_planned(void **state)
{
	(void)state;
	assert_int_equal(master_watchdog_period_us(LIMIT), TICK);
	assert_false(master_watchdog_is_late(LIMIT, TICK));
	assert_false(master_watchdog_is_late(LIMIT, TICK + TICK / 5));
	assert_true(master_watchdog_is_late(LIMIT, TICK + TICK / 3));
}

static void
the_kernel_is_asked_about_processes(void **state)
{
	struct master_watch_facts facts;

	(void)state;
	assert_true(master_watchdog_facts(getpid(), &facts));
	assert_int_equal(facts.state, 'R');
	assert_in_range(facts.cpu_us, 0, 60000000);
	assert_false(master_watchdog_facts(999999999, &facts));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(a_heart_that_beats_is_fine, begin),
	    cmocka_unit_test_setup(
		one_that_is_stopped_or_waits_is_stuck_at_the_limit, begin),
	    cmocka_unit_test_setup(one_that_loops_is_stuck_at_the_limit, begin),
	    cmocka_unit_test_setup(
		one_that_is_starved_gets_three_times_as_long, begin),
	    cmocka_unit_test_setup(
		time_in_which_we_were_late_does_not_count, begin),
	    cmocka_unit_test_setup(
		one_that_a_debugger_holds_is_not_judged, begin),
	    cmocka_unit_test_setup(a_beat_at_the_last_moment_saves, begin),
	    cmocka_unit_test(late_is_a_quarter_more_than_planned),
	    cmocka_unit_test(the_kernel_is_asked_about_processes),
	};

	return cmocka_run_group_tests_name(
	    "master_watchdog", tests, NULL, NULL);
}
