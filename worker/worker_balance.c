/*
 * Balance: serving workers have the same number of connections, but for one.
 *
 * Clients of a load balancer stay for hours, so whoever has more of them than
 * others has more to do for hours.  Each worker compares itself with the other
 * ones of its board, ten times a second and when its own number has changed:
 *
 *   accepts  a worker with clearly more connections than the one with the
 *            fewest does not wait for clients; that one always does
 *   moves    what is above the mean, rounded up, is handed over as it becomes
 *            idle (worker_handover.c); and if nobody is above but somebody is
 *            two below, the first of those with the most gives one
 *
 * A difference of one is none, and a difference has to be there in two looks in
 * a row, so that short connections and messages under way start nothing.
 *
 * NOBODY WAITS FOR A WORKER THAT DOES NOT TURN.  The kernel wakes one waiting
 * worker for a client: if that one is stopped, or dies just then, nobody else
 * hears of it.  So each look also asks whether a client waits, and takes it,
 * gate or no gate.  And a worker without a recent heartbeat counts for nothing.
 */
#include "config.h"

#include <poll.h>

#include "worker/worker_balance.h"
#include "worker/worker_handover.h"

#define LOOK_US		100000
#define LOOK_ALONE_US	1000000
#define LOOK_CHANGED_US 1000 /* at most as often, when our number changes */
#define STALE_US	1500000
#define GATE_SLACK	8  /* and an eighth */
#define MOVES_MAX	32 /* in one look */
#define UNEVEN_LOOKS	2

bool
worker_balance_is_serving(const struct worker_loop *loop, uint32_t slot)
{
	struct shm_board_worker *block = &loop->options->board->worker[slot];

	return shm_board_get(block->state) == SHM_BOARD_SERVING &&
	       shm_board_get(block->heartbeat_us) + STALE_US > loop->now_us;
}

uint32_t
worker_balance_surplus(uint32_t count, const uint32_t *others,
    uint32_t others_count, bool is_first)
{
	uint64_t sum = count;
	uint32_t least = UINT32_MAX, most = 0, mean;

	for (uint32_t i = 0; i < others_count; i++) {
		sum += others[i];
		least = others[i] < least ? others[i] : least;
		most = others[i] > most ? others[i] : most;
	}
	if (others_count == 0 || count < 2 || least > count - 2)
		return 0;
	mean = (uint32_t)((sum + others_count) / (others_count + 1));
	if (count > mean)
		return count - mean;
	return count >= most && is_first ? 1 : 0;
}

/* Fills others; how many there are. */
static uint32_t
others_read(const struct worker_loop *loop, uint32_t *others, uint32_t *least,
    bool *is_first)
{
	const struct worker_options *options = loop->options;
	uint32_t count = 0;

	*least = UINT32_MAX;
	*is_first = true;
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++) {
		uint32_t one;

		if (i == options->slot || !worker_balance_is_serving(loop, i))
			continue;
		one = shm_board_get(options->board->worker[i].connections);
		*least = one < *least ? one : *least;
		if (i < options->slot && one >= loop->open_count)
			*is_first = false;
		others[count++] = one;
	}
	return count;
}

/* A client that has waited since the last look waits for nobody. */
static void
listeners_look(struct worker_loop *loop)
{
	const struct worker_options *options = loop->options;
	struct pollfd look[WORKER_LISTENERS_MAX];

	if (worker_loop_is_full(loop))
		return;
	for (uint32_t i = 0; i < options->listeners_count; i++)
		look[i] = (struct pollfd){
		    .fd = options->listener_fd[i], .events = POLLIN};
	if (poll(look, options->listeners_count, 0) <= 0)
		return;
	for (uint32_t i = 0; i < options->listeners_count; i++)
		if (look[i].revents != 0)
			worker_loop_accept_look(loop, i);
}

static void
gate_set(struct worker_loop *loop, bool is_shut)
{
	if (is_shut && !loop->balance.is_shut)
		worker_loop_accept_stop(loop);
	loop->balance.is_shut = is_shut;
}

static void
compare(struct worker_loop *loop, bool is_look)
{
	struct worker_balance *balance = &loop->balance;
	uint32_t others[SHM_BOARD_SLOTS], count, least, surplus;
	bool is_first;

	count = others_read(loop, others, &least, &is_first);
	balance->is_alone = count == 0;
	gate_set(loop,
	    count > 0 && loop->open_count > least + least / 8 + GATE_SLACK);
	if (!is_look)
		return;
	surplus =
	    worker_balance_surplus(loop->open_count, others, count, is_first);
	balance->uneven_looks = surplus > 0 ? balance->uneven_looks + 1 : 0;
	if (balance->uneven_looks < UNEVEN_LOOKS)
		surplus = 0;
	worker_handover_want(loop, surplus < MOVES_MAX ? surplus : MOVES_MAX);
}

uint64_t
worker_balance_tick(struct worker_loop *loop)
{
	struct worker_balance *balance = &loop->balance;
	bool is_look = loop->now_us >= balance->look_us;

	if (loop->phase != WORKER_SERVING) {
		balance->is_shut = false;
		return UINT64_MAX;
	}
	if (!is_look && (loop->open_count == balance->open_count ||
			    loop->now_us < balance->changed_us))
		return balance->look_us - loop->now_us;
	balance->open_count = loop->open_count;
	balance->changed_us = loop->now_us + LOOK_CHANGED_US;
	compare(loop, is_look);
	if (!is_look)
		return balance->look_us - loop->now_us;
	balance->look_us =
	    loop->now_us + (balance->is_alone ? LOOK_ALONE_US : LOOK_US);
	listeners_look(loop);
	return balance->look_us - loop->now_us;
}
