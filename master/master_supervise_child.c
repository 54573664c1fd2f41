/*
 * The children's deaths and births: invariants I1 to I3 of master_supervise.c.
 *
 * A dead worker's share of the cache is given back before its slot can get
 * another process: what the cache holds is marked with slots.
 */
#include "config.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>

#include "master/master_supervise_part.h"

/* ---- deaths */

/* The event's name, and the field that says who died. */
static const char *
describe_slot(const struct master_supervisor *supervisor,
    const struct master_slot *slot, struct worker_log_field *who)
{
	if (slot == &supervisor->migrate) {
		*who = LOG_STR("child", "migrate");
		return "migrate_died";
	}
	if (slot == &supervisor->ops) {
		*who = LOG_STR("child", "ops");
		return "ops_died";
	}
	*who = LOG_INT("worker", slot - supervisor->worker);
	return "worker_died";
}

/* A death that nobody follows. */
static void
say_died(const char *event, const char *text, struct worker_log_field who,
    pid_t pid, const char *cause, uint64_t alive_ms)
{
	worker_log(WORKER_LOG_WARN, event, text, who, LOG_INT("pid", pid),
	    LOG_STR("cause", cause), LOG_INT("alive_ms", alive_ms), LOG_END);
}

/* The only place where deaths are logged (I2). */
static void
child_died(struct master_supervisor *supervisor, struct master_slot *slot,
    pid_t pid, int status)
{
	uint64_t now_us = shm_clock_us();
	uint64_t alive_ms = (now_us - slot->started_us) / 1000;
	struct worker_log_field who;
	const char *event = describe_slot(supervisor, slot, &who);
	char cause[64];

	master_slot_describe_death(status, cause, sizeof(cause));
	if (supervisor->phase != MASTER_PHASE_RUNNING) {
		say_died(event, "a process died while booksd was stopping", who,
		    pid, cause, alive_ms);
		return;
	}
	if (slot->is_leaving) {
		say_died(event, "a process died that was told to end", who, pid,
		    cause, alive_ms);
		return;
	}
	worker_log(WORKER_LOG_ERROR, event, "a process died and is replaced",
	    who, LOG_INT("pid", pid), LOG_STR("cause", cause),
	    LOG_INT("alive_ms", alive_ms),
	    LOG_INT("restart_in_ms", master_slot_plan(slot, now_us)), LOG_END);
}

static void
worker_count(
    struct shm_board *board, const struct master_slot *slot, int status)
{
	if (slot->is_stuck)
		return; /* counted when it was found */
	if (!WIFEXITED(status))
		shm_board_count(board, SHM_BOARD_EVENT_worker_signal);
	else if (slot->is_leaving && WEXITSTATUS(status) == EX_OK)
		shm_board_count(board, SHM_BOARD_EVENT_worker_retired);
	else
		shm_board_count(board, SHM_BOARD_EVENT_worker_exit);
}

/* Connections that were on their way to a worker that has died: to the one with
 * the fewest; without any they wait for its successor, if there is to be one.
 */
static void
handover_pass(struct master_supervisor *supervisor, uint32_t from)
{
	struct shm_board *board = supervisor->heritage->board;
	uint32_t least = UINT32_MAX, to = from;

	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++) {
		const struct shm_board_worker *block = &board->worker[i];
		uint32_t count = shm_board_get(block->connections);

		if (i == from || count >= least ||
		    shm_board_get(block->state) != SHM_BOARD_SERVING)
			continue;
		least = count;
		to = i;
	}
	if (to != from || supervisor->phase != MASTER_PHASE_RUNNING ||
	    supervisor->worker[from].is_leaving)
		master_handover_pass(supervisor->heritage->handover, from, to);
}

static void
worker_reaped(struct master_supervisor *supervisor, uint32_t i, int status)
{
	struct shm_board *board = supervisor->heritage->board;
	struct shm_board_worker *block = &board->worker[i];
	struct master_slot *slot = &supervisor->worker[i];
	pid_t pid = slot->pid;
	bool is_orderly = WIFEXITED(status) && WEXITSTATUS(status) == EX_OK;
	bool is_first =
	    slot->is_first && shm_board_get(block->state) == SHM_BOARD_STARTING;
	bool was_leaving = slot->is_leaving;

	slot->pid = 0;
	slot->is_first = false;
	shm_board_worker_reset(board, i);
	handover_pass(supervisor, i);
	master_cache_reaped(
	    &supervisor->cache, shm_task_slot(board, i), shm_clock_us());
	if (!is_orderly && supervisor->phase <= MASTER_PHASE_DRAINING &&
	    supervisor->cache.cache != NULL)
		supervisor->audit.start_us = shm_clock_us();
	worker_count(board, slot, status);
	if (supervisor->phase == MASTER_PHASE_RUNNING && is_first &&
	    master_slot_is_hopeless(status)) {
		master_supervise_give_up(supervisor, pid, WEXITSTATUS(status));
		return;
	}
	if (supervisor->phase == MASTER_PHASE_KILLING ||
	    (supervisor->phase != MASTER_PHASE_RUNNING && is_orderly))
		return;
	if (!is_orderly)
		shm_board_set(
		    block->restarts, shm_board_get(block->restarts) + 1);
	if (slot->is_stuck)
		slot->failures = 0; /* the watchdog is slow enough */
	if (!was_leaving || !is_orderly)
		child_died(supervisor, slot, pid, status);
	slot->is_leaving = slot->is_stuck = false;
}

static void
migrate_reaped(struct master_supervisor *supervisor, int status)
{
	struct master_slot *slot = &supervisor->migrate;
	bool fail_fast = supervisor->heritage->options->fail_fast;
	pid_t pid = slot->pid;

	slot->pid = 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == EX_OK)
		return; /* it has said itself what it did */
	if (supervisor->phase != MASTER_PHASE_RUNNING)
		return; /* we ended it */
	if (master_slot_is_hopeless(status) ||
	    (fail_fast && WIFEXITED(status) &&
		WEXITSTATUS(status) == EX_DATAERR)) {
		master_supervise_give_up(supervisor, pid, WEXITSTATUS(status));
		return;
	}
	child_died(supervisor, slot, pid, status);
}

/* Whatever it dies of, another one is started: no client notices. */
static void
ops_reaped(struct master_supervisor *supervisor, int status)
{
	struct shm_board *board = supervisor->heritage->board;
	struct master_slot *slot = &supervisor->ops;
	bool is_orderly = WIFEXITED(status) && WEXITSTATUS(status) == EX_OK;
	pid_t pid = slot->pid;

	slot->pid = 0;
	shm_board_ops_reset(board);
	if (supervisor->phase == MASTER_PHASE_KILLING ||
	    (supervisor->phase != MASTER_PHASE_RUNNING && is_orderly))
		return;
	if (slot->is_leaving && supervisor->phase == MASTER_PHASE_RUNNING) {
		slot->is_leaving = false;
		slot->start_us = shm_clock_us();
		return;
	}
	shm_board_count(board, SHM_BOARD_EVENT_ops_death);
	shm_board_set(
	    board->ops.restarts, shm_board_get(board->ops.restarts) + 1);
	child_died(supervisor, slot, pid, status);
}

static void
audit_reaped(struct master_supervisor *supervisor, int status)
{
	char cause[64];

	supervisor->audit.pid = 0;
	if ((WIFEXITED(status) && WEXITSTATUS(status) == EX_OK) ||
	    supervisor->helpers_told ||
	    supervisor->phase == MASTER_PHASE_KILLING)
		return;
	master_slot_describe_death(status, cause, sizeof(cause));
	master_cache_distrust(supervisor->cache.cache, 1, cause);
}

void
master_supervise_reap(struct master_supervisor *supervisor)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == supervisor->migrate.pid) {
			migrate_reaped(supervisor, status);
			continue;
		}
		if (pid == supervisor->ops.pid) {
			ops_reaped(supervisor, status);
			continue;
		}
		if (pid == supervisor->audit.pid) {
			audit_reaped(supervisor, status);
			continue;
		}
		if (master_upgrade_reaped(supervisor, pid, status))
			continue;
		/* Not found: an orphan that was given to us (I3). */
		for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
			if (supervisor->worker[i].pid == pid) {
				worker_reaped(supervisor, i, status);
				break;
			}
	}
}

/* ---- births */

static void
fork_failed(struct master_slot *slot, uint64_t now_us)
{
	int error = errno;

	slot->started_us = now_us;
	worker_log(WORKER_LOG_ERROR, "fork_failed",
	    "a process could not be started, it is tried again",
	    LOG_STR("error", strerror(error)),
	    LOG_INT("restart_in_ms", master_slot_plan(slot, now_us)), LOG_END);
}

static void
start_worker(struct master_supervisor *supervisor, uint32_t i, uint64_t now_us)
{
	struct shm_board_worker *block =
	    &supervisor->heritage->board->worker[i];
	struct master_slot *slot = &supervisor->worker[i];
	pid_t pid;

	SHM_ASSERT(slot->pid == 0); /* I1 */
	slot->start_us = 0;
	shm_board_set(
	    block->incarnation, shm_board_get(block->incarnation) + 1);
	pid = master_child_worker(supervisor->heritage, i);
	if (pid == -1) {
		fork_failed(slot, now_us);
		return;
	}
	slot->pid = pid;
	slot->started_us = now_us;
	slot->watch = (struct master_watch){.heartbeat_us = 0};
	slot->is_stuck = false;
	slot->generation = supervisor->generation;
	slot->drain_ms = supervisor->heritage->options->worker.drain_timeout_ms;
	shm_board_set(block->born_us, now_us);
	shm_board_set(block->pid, pid);
}

static void
start_migrate(struct master_supervisor *supervisor, uint64_t now_us)
{
	struct master_slot *slot = &supervisor->migrate;
	pid_t pid;

	SHM_ASSERT(slot->pid == 0); /* I1 */
	slot->start_us = 0;
	pid = master_child_migrate(supervisor->heritage);
	if (pid == -1) {
		fork_failed(slot, now_us);
		return;
	}
	slot->pid = pid;
	slot->started_us = now_us;
}

static void
start_ops(struct master_supervisor *supervisor, uint64_t now_us)
{
	struct shm_board_ops *block = &supervisor->heritage->board->ops;
	struct master_slot *slot = &supervisor->ops;
	pid_t pid;

	SHM_ASSERT(slot->pid == 0); /* I1 */
	slot->start_us = 0;
	shm_board_set(
	    block->incarnation, shm_board_get(block->incarnation) + 1);
	pid = master_child_ops(supervisor->heritage);
	if (pid == -1) {
		fork_failed(slot, now_us);
		return;
	}
	slot->pid = pid;
	slot->started_us = now_us;
	slot->watch = (struct master_watch){.heartbeat_us = 0};
	slot->is_stuck = false;
	shm_board_set(block->started_us, now_us);
	shm_board_set(block->pid, pid);
}

static void
start_audit(struct master_supervisor *supervisor, uint64_t now_us)
{
	struct master_slot *slot = &supervisor->audit;
	pid_t pid;

	SHM_ASSERT(slot->pid == 0);
	slot->start_us = 0;
	pid = master_child_audit(supervisor->heritage);
	if (pid == -1) {
		fork_failed(slot, now_us);
		return;
	}
	slot->pid = pid;
	slot->started_us = now_us;
	slot->failures = 0;
}

static bool
is_due(uint64_t when_us, uint64_t now_us)
{
	return when_us > 0 && when_us <= now_us;
}

void
master_supervise_start_due(
    struct master_supervisor *supervisor, uint64_t now_us)
{
	if (is_due(supervisor->migrate.start_us, now_us))
		start_migrate(supervisor, now_us);
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
		if (is_due(supervisor->worker[i].start_us, now_us))
			start_worker(supervisor, i, now_us);
	if (is_due(supervisor->ops.start_us, now_us))
		start_ops(supervisor, now_us);
	/* Last: the dead one's successor is more urgent. */
	if (supervisor->audit.pid == 0 &&
	    is_due(supervisor->audit.start_us, now_us))
		start_audit(supervisor, now_us);
}
