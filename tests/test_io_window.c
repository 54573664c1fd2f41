/*
 * Goal: the window opens only where it gathers something, is never longer than
 * the setting, and delays nobody who comes alone.
 * Method: turns with made-up times.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "worker/io_window.h"

/* A second of turns: one receive each, gap_us apart and busy for busy_us, of
 * so many connections.  What the window is in the end. */
static uint64_t
window_after(
    uint32_t most_us, uint32_t gap_us, uint32_t busy_us, uint32_t conns)
{
	struct io_window window = {.most_us = most_us};
	uint32_t next = 0;

	for (uint64_t us = gap_us; us < 1000000; us += gap_us) {
		io_window_woke(&window, us);
		io_window_received(&window, next++ % conns);
		(void)io_window_pause(&window, us + busy_us);
		assert_true(window.us <= most_us);
	}
	return window.us;
}

static void
it_opens_when_it_gathers(void **state)
{
	(void)state;
	assert_int_equal(window_after(200, 50, 10, 64), 200);
	assert_in_range(window_after(1000, 50, 10, 64), 390, 410);
	assert_int_equal(window_after(100, 50, 10, 64), 100);
}

static void
it_stays_shut_when_there_is_nothing_to_gain(void **state)
{
	(void)state;
	assert_int_equal(window_after(0, 50, 10, 64), 0);
	assert_int_equal(window_after(200, 500, 10, 64), 0); /* rare */
	assert_int_equal(window_after(200, 50, 10, 1), 0);   /* alone */
	assert_int_equal(window_after(200, 50, 10, 3), 0);   /* a few */
	assert_int_equal(window_after(200, 50, 45, 64), 0);  /* busy */
}

static void
a_pause_ends_a_window_after_the_last_turn(void **state)
{
	struct io_window window = {.most_us = 200, .us = 200, .begun_us = 1000};

	(void)state;
	io_window_woke(&window, 1000);
	assert_int_equal(io_window_pause(&window, 1050), 150);
	io_window_woke(&window, 1200);
	assert_int_equal(io_window_pause(&window, 1400), 0);
	assert_int_equal(io_window_pause(&window, 5000), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(it_opens_when_it_gathers),
	    cmocka_unit_test(it_stays_shut_when_there_is_nothing_to_gain),
	    cmocka_unit_test(a_pause_ends_a_window_after_the_last_turn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
