/*
 * A worker's report of itself.
 *
 * Requests are counted where they end, at the cost of a few additions.  What
 * needs a system call, the CPU time, is read in steps of 250 ms; an idle loop
 * wakes for its heartbeat anyway.
 *
 * BUSY is the time between two waits.  With io_uring much of the work is done
 * inside the call that also waits, so of each step the CPU time counts when it
 * is more.
 */
#include "config.h"

#include <sys/resource.h>

#include "api/api_route.h"
#include "worker/worker_call.h"
#include "worker/worker_probe.h"
#include "worker/worker_stats.h"

#define STEP_US		 250000u
#define HEARTBEAT_OFF_US 1000000u /* without a watchdog */
#define NO_ROUTE	 (SHM_STATS_ROUTES - 1)

_Static_assert((uint32_t)API_ROUTE_COUNT <= NO_ROUTE, "a place for each");
_Static_assert((uint32_t)API_METHOD_OTHER < SHM_STATS_METHODS, "likewise");

static uint32_t
route_of(const struct worker_call *call)
{
	return call->api.route != NULL ? (uint32_t)call->api.route->id
				       : NO_ROUTE;
}

/* ---- requests */

void
worker_stats_request_goes_on(const struct worker_call *call)
{
	struct shm_board_worker *block = call->loop->block;

	if (!WORKER_STATS_ON)
		return;
	shm_board_set(block->route, route_of(call));
	shm_board_set(block->doing, SHM_BOARD_REQUEST);
}

void
worker_stats_request_begin(const struct worker_call *call)
{
	if (WORKER_STATS_ON)
		call->loop->stats.requests_open++;
	worker_stats_request_goes_on(call);
}

void
worker_stats_request(
    const struct worker_call *call, uint32_t status, uint64_t duration_us)
{
	struct worker_loop *loop = call->loop;

	if (!WORKER_STATS_ON)
		return;
	SHM_ASSERT(loop->stats.requests_open > 0);
	loop->stats.requests_open--;
	shm_stats_request(loop->stats.shm, route_of(call),
	    (uint32_t)call->api.method, status, duration_us);
	WORKER_PROBE4(request__done, api_method_name(call->api.method),
	    api_call_route(&call->api), status, duration_us);
	if (status == 499)
		shm_stats_count(loop->stats.shm, SHM_STATS_aborted, 1);
	shm_board_set(loop->block->doing, SHM_BOARD_WORKING);
}

void
worker_stats_refused(const struct worker_conn *conn, uint32_t status)
{
	const struct worker_loop *loop = conn->loop;
	uint64_t began_us = conn->head_started ? conn->head_us : loop->now_us;

	shm_stats_request(loop->stats.shm, NO_ROUTE, conn->method, status,
	    shm_clock_us() - began_us);
	if (status != 503) /* else it was well-formed and we had no memory */
		shm_stats_count(loop->stats.shm, SHM_STATS_malformed, 1);
}

/* ---- steps */

static uint64_t
microseconds(const struct timeval *time)
{
	return (uint64_t)time->tv_sec * 1000000 + (uint64_t)time->tv_usec;
}

/* Returns the CPU time since the last step. */
static uint64_t
step_cpu(struct worker_loop *loop)
{
	struct worker_stats *stats = &loop->stats;
	struct rusage usage;
	uint64_t user_us, system_us;

	if (getrusage(RUSAGE_SELF, &usage) == -1)
		return 0;
	user_us = microseconds(&usage.ru_utime) - stats->cpu_user_us;
	system_us = microseconds(&usage.ru_stime) - stats->cpu_system_us;
	/* The kernel divides a total in two and may take back a little. */
	if ((int64_t)user_us < 0)
		user_us = 0;
	if ((int64_t)system_us < 0)
		system_us = 0;
	stats->cpu_user_us += user_us;
	stats->cpu_system_us += system_us;
	shm_stats_count(stats->shm, SHM_STATS_cpu_user, user_us);
	shm_stats_count(stats->shm, SHM_STATS_cpu_system, system_us);
	shm_board_set(
	    loop->block->cpu_us, stats->cpu_user_us + stats->cpu_system_us);
	return user_us + system_us;
}

/* Over the last second, or the shortest time known that is longer. */
static uint32_t
busy_permille(struct worker_stats *stats, uint64_t now_us)
{
	struct worker_stats_past from = stats->past[stats->past_next];
	uint64_t part;

	for (uint32_t i = 1; i < WORKER_STATS_STEPS; i++) {
		struct worker_stats_past past =
		    stats->past[(stats->past_next + i) % WORKER_STATS_STEPS];

		if (past.at_us + 1000000 <= now_us)
			from = past;
	}
	stats->past[stats->past_next] =
	    (struct worker_stats_past){now_us, stats->busy_us};
	stats->past_next = (stats->past_next + 1) % WORKER_STATS_STEPS;
	if (now_us <= from.at_us)
		return 0;
	part = (stats->busy_us - from.busy_us) * 1000 / (now_us - from.at_us);
	return part < 1000 ? (uint32_t)part : 1000;
}

static void
step(struct worker_loop *loop, uint64_t now_us)
{
	struct worker_stats *stats = &loop->stats;
	uint64_t whole_us = now_us - stats->step_us;
	uint64_t busy_us = step_cpu(loop);

	if (busy_us < stats->step_busy_us)
		busy_us = stats->step_busy_us;
	if (busy_us > whole_us)
		busy_us = whole_us;
	stats->step_us = now_us;
	stats->step_busy_us = 0;
	stats->busy_us += busy_us;
	shm_stats_count(stats->shm, SHM_STATS_busy, busy_us);
	shm_board_set(loop->block->busy_us, stats->busy_us);
	shm_board_set(loop->block->busy_permille, busy_permille(stats, now_us));
}

static void
count_log_dropped(struct worker_loop *loop)
{
	uint64_t dropped = worker_log_dropped();

	if (dropped == loop->stats.log_dropped)
		return;
	shm_stats_count(loop->stats.shm, SHM_STATS_log_dropped,
	    dropped - loop->stats.log_dropped);
	loop->stats.log_dropped = dropped;
	shm_board_set(loop->block->log_dropped, dropped);
}

/* ---- turns */

void
worker_stats_turn_begin(struct worker_loop *loop)
{
	if (!WORKER_STATS_ON)
		return;
	shm_board_set(loop->block->heartbeat_us, loop->now_us);
	shm_board_set(loop->block->doing, SHM_BOARD_WORKING);
	shm_stats_count(loop->stats.shm, SHM_STATS_turns, 1);
	worker_profile_tick(&loop->stats.profile, loop->now_us);
}

uint64_t
worker_stats_turn_end(struct worker_loop *loop)
{
	struct shm_board_worker *block = loop->block;
	struct worker_stats *stats = &loop->stats;
	uint64_t now_us;
	uint32_t busy, waiting;

	if (!WORKER_STATS_ON)
		return stats->heartbeat_us;
	now_us = shm_clock_us();
	stats->step_busy_us += now_us - loop->now_us;
	if (now_us >= stats->step_us + STEP_US)
		step(loop, now_us);
	count_log_dropped(loop);
	if (worker_db_load(loop->db, &busy, &waiting)) {
		shm_board_set(block->db_busy, busy);
		shm_board_set(block->db_waiting, waiting);
	}
	shm_board_set(block->requests, loop->requests);
	shm_board_set(block->requests_open, stats->requests_open);
	shm_board_set(block->doing, SHM_BOARD_WAITING);
	return stats->heartbeat_us;
}

/* ---- the beginning and the end */

void
worker_stats_open(struct worker_loop *loop)
{
	const struct worker_options *options = loop->options;
	struct worker_stats *stats = &loop->stats;

	stats->shm =
	    &options->task->stats[shm_task_slot(options->board, options->slot)];
	stats->heartbeat_us = options->watchdog_ms != 0
				  ? options->watchdog_ms * 250ull
				  : HEARTBEAT_OFF_US;
	stats->step_us = loop->now_us;
	for (uint32_t i = 0; i < WORKER_STATS_STEPS; i++)
		stats->past[i].at_us = loop->now_us;
	worker_profile_open(&stats->profile, options->task,
	    shm_task_slot(options->board, options->slot));
	shm_board_set(loop->block->heartbeat_us, loop->now_us);
	shm_board_set(loop->block->doing, SHM_BOARD_WORKING);
}

void
worker_stats_close(struct worker_loop *loop)
{
	worker_profile_close(&loop->stats.profile);
	step(loop, shm_clock_us());
	count_log_dropped(loop);
	shm_board_set(loop->block->requests, loop->requests);
}
