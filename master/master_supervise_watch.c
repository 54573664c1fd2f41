/*
 * The watchdog: who does not live any more although he is not dead.
 *
 * master_watchdog.c judges, here it is carried out: SIGABRT, so that the worker
 * writes where it was; SIGCONT, because one that is stopped gets no other
 * signal; and 200 ms later SIGKILL.  The place gets another worker at once: a
 * watchdog that needs its time for each death needs no pauses besides.
 * Clients that wait in the queue of the sockets are served by the others
 * meanwhile.
 *
 * ops may wait for a name server (ops_listen.c) and nobody waits for it, so it
 * has fifteen times as long, and so has a worker that has not begun its loop.
 */
#include "config.h"

#include <signal.h>

#include "api/api_route.h"
#include "master/master_supervise_part.h"

#define ABORT_US     200000
#define PATIENT_MORE 15

static void
say_stuck(const struct master_supervisor *supervisor, uint32_t i,
    const struct master_watch_facts *facts, uint64_t now_us)
{
	static const char *const doings[] = {
	    [SHM_BOARD_WAITING] = "waiting",
	    [SHM_BOARD_WORKING] = "working",
	    [SHM_BOARD_REQUEST] = "request",
	};
	const struct shm_board_worker *block =
	    &supervisor->heritage->board->worker[i];
	const struct master_slot *slot = &supervisor->worker[i];
	uint32_t doing = shm_board_get(block->doing);
	uint32_t route = shm_board_get(block->route);
	uint64_t beat_us = shm_board_get(block->heartbeat_us);
	char state[2] = {facts->state, '\0'};

	worker_log(WORKER_LOG_ERROR, "worker_stuck",
	    "a worker does not go on and is killed", LOG_INT("worker", i),
	    LOG_INT("pid", slot->pid),
	    LOG_STR("doing",
		doing < SHM_ARRAY_LEN(doings) ? doings[doing] : "unknown"),
	    LOG_STR(
		"route", doing == SHM_BOARD_REQUEST && route < API_ROUTE_COUNT
			     ? api_route_table[route].path
			     : "none"),
	    LOG_INT("heartbeat_age_ms", beat_us > 0 && beat_us < now_us
					    ? (now_us - beat_us) / 1000
					    : 0),
	    LOG_STR("process_state", state),
	    LOG_INT("cpu_ms", facts->cpu_us / 1000),
	    LOG_INT("connections", shm_board_get(block->connections)),
	    LOG_INT("requests", shm_board_get(block->requests)), LOG_END);
}

static void
kill_stuck(struct master_slot *slot, uint64_t now_us)
{
	slot->is_stuck = true;
	slot->abort_us = now_us + ABORT_US;
	master_slot_kill(slot, SIGABRT);
	master_slot_kill(slot, SIGCONT);
}

/* Is the process stuck?  facts are filled in when it is. */
static bool
is_stuck(struct master_slot *slot, uint64_t limit_us, uint64_t heartbeat_us,
    uint64_t pause_us, struct master_watch_facts *facts)
{
	enum master_verdict verdict;

	verdict = master_watchdog_judge(
	    &slot->watch, limit_us, heartbeat_us, pause_us, NULL);
	if (verdict == MASTER_VERDICT_SUSPECT &&
	    master_watchdog_facts(slot->pid, facts))
		verdict = master_watchdog_judge(
		    &slot->watch, limit_us, heartbeat_us, 0, facts);
	return verdict == MASTER_VERDICT_STUCK;
}

static void
look_at_worker(struct master_supervisor *supervisor, uint32_t i,
    uint64_t limit_us, uint64_t pause_us, uint64_t now_us)
{
	struct shm_board *board = supervisor->heritage->board;
	struct master_slot *slot = &supervisor->worker[i];
	uint64_t heartbeat_us = shm_board_get(board->worker[i].heartbeat_us);
	struct master_watch_facts facts;

	if (slot->pid == 0 || slot->is_stuck)
		return;
	if (heartbeat_us == 0)
		limit_us *= PATIENT_MORE;
	if (!is_stuck(slot, limit_us, heartbeat_us, pause_us, &facts))
		return;
	say_stuck(supervisor, i, &facts, now_us);
	shm_board_count(board, SHM_BOARD_EVENT_worker_watchdog);
	kill_stuck(slot, now_us);
}

static void
look_at_ops(struct master_supervisor *supervisor, uint64_t limit_us,
    uint64_t pause_us, uint64_t now_us)
{
	const struct shm_board_ops *block = &supervisor->heritage->board->ops;
	struct master_slot *slot = &supervisor->ops;
	struct master_watch_facts facts;

	if (slot->pid == 0 || slot->is_stuck ||
	    !is_stuck(slot, limit_us * PATIENT_MORE,
		shm_board_get(block->heartbeat_us), pause_us, &facts))
		return;
	worker_log(WORKER_LOG_ERROR, "ops_stuck",
	    "the operations process does not go on and is killed",
	    LOG_INT("pid", slot->pid), LOG_INT("cpu_ms", facts.cpu_us / 1000),
	    LOG_END);
	kill_stuck(slot, now_us);
}

/* Whom SIGABRT did not end. */
static uint64_t
abort_tick(struct master_slot *slot, uint64_t now_us)
{
	if (!slot->is_stuck || slot->abort_us == 0 || slot->pid == 0)
		return UINT64_MAX;
	if (slot->abort_us > now_us)
		return slot->abort_us;
	slot->abort_us = 0;
	master_slot_kill(slot, SIGKILL);
	return UINT64_MAX;
}

static void
look_at_all(
    struct master_supervisor *supervisor, uint64_t limit_us, uint64_t now_us)
{
	uint64_t pause_us = now_us - supervisor->watched_us;

	if (master_watchdog_is_late(limit_us, pause_us))
		pause_us = 0; /* nobody's fault */
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
		look_at_worker(supervisor, i, limit_us, pause_us, now_us);
	look_at_ops(supervisor, limit_us, pause_us, now_us);
	supervisor->watched_us = now_us;
}

uint64_t
master_supervise_watch_tick(
    struct master_supervisor *supervisor, uint64_t now_us)
{
	const struct worker_options *options =
	    &supervisor->heritage->options->worker;
	uint64_t limit_us = (uint64_t)options->watchdog_ms * 1000;
	uint64_t period_us = master_watchdog_period_us(limit_us);
	uint64_t at_us = UINT64_MAX;

	if (supervisor->phase != MASTER_PHASE_RUNNING)
		return UINT64_MAX; /* the phases have their own deadlines */
	if (limit_us > 0 && now_us >= supervisor->watched_us + period_us)
		look_at_all(supervisor, limit_us, now_us);
	if (limit_us > 0)
		at_us = supervisor->watched_us + period_us;
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
		at_us = master_supervise_sooner(
		    at_us, abort_tick(&supervisor->worker[i], now_us));
	return master_supervise_sooner(
	    at_us, abort_tick(&supervisor->ops, now_us));
}
