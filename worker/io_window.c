/*
 * How long the window is, from what the last period was like.
 *
 *	few receives in a window   0: there is nothing to gather
 *	few connections            0: their next requests come after our answers
 *	a busy loop                0: what comes meanwhile is gathered anyway
 *	else                       as long as it takes to gather some, at most
 *	                           as the setting says
 */
#include "config.h"

#include "worker/io_window.h"

#define PERIOD_US	10000
#define GATHER_MIN	2 /* receives in the longest window, or none */
#define GATHER		8 /* so many are enough */
#define CONNECTIONS_MIN 4
#define BUSY_PERCENT	75

static uint64_t
window_choose(const struct io_window *window, uint64_t period_us)
{
	uint64_t gathered = window->received * window->most_us / period_us;
	uint64_t enough_us;

	if (gathered < GATHER_MIN ||
	    __builtin_popcountll(window->slots) < CONNECTIONS_MIN ||
	    window->busy_us * 100 > period_us * BUSY_PERCENT)
		return 0;
	enough_us = GATHER * period_us / window->received;
	return enough_us < window->most_us ? enough_us : window->most_us;
}

void
io_window_woke(struct io_window *window, uint64_t now_us)
{
	window->woke_us = now_us;
}

uint64_t
io_window_pause(struct io_window *window, uint64_t now_us)
{
	uint64_t period_us = now_us - window->begun_us, next_us;

	window->busy_us += now_us - window->woke_us;
	if (period_us >= PERIOD_US) {
		window->us = window_choose(window, period_us);
		window->begun_us = now_us;
		window->busy_us = window->slots = 0;
		window->received = 0;
	}
	next_us = window->woke_us + window->us;
	return next_us > now_us ? next_us - now_us : 0;
}
