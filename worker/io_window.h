/*
 * The window: at part load a loop waits a moment before it takes what has
 * come, so that more of it is taken in one turn.  Private to the back ends.
 *
 * A turn begins no earlier than the window after the one before.  So a client
 * that comes alone waits for nothing, and nobody for longer than the window.
 */
#ifndef WORKER_IO_WINDOW_H
#define WORKER_IO_WINDOW_H

#include "shm/shm_base.h"

struct io_window {
	uint64_t most_us; /* the setting; 0: off */
	uint64_t us;	  /* in effect until the period ends */
	uint64_t woke_us; /* the last turn began */
	/* of the period */
	uint64_t begun_us;
	uint64_t busy_us;
	uint32_t received;
	uint64_t slots; /* a bit for each that was heard, of their numbers
			   modulo 64 */
};

/* A wait is over. */
void io_window_woke(struct io_window *window, uint64_t now_us);

/* The turn's work is done: how long to leave be what comes.  0: take it. */
uint64_t io_window_pause(struct io_window *window, uint64_t now_us);

static inline void
io_window_received(struct io_window *window, uint32_t slot)
{
	window->received++;
	window->slots |= UINT64_C(1) << (slot & 63);
}

#endif
