/*
 * Supervision: keep the workers alive, and end them well.
 *
 * All that can happen to the master is a signal (SIGCHLD among them) or the
 * passing of time.  So its loop waits in sigtimedwait(2) for blocked signals:
 * no handlers, nothing that runs between two lines of code, and as process 1
 * of a container it gets signals for which it has no handler.  Signals of one
 * kind melt into one while they are pending, therefore the children are reaped
 * and the clock is looked at after every wake-up, whatever its reason.
 *
 * PHASES
 *	RUNNING   dead children are replaced
 *	DRAINING  SIGTERM was passed on; workers time drain_delay themselves;
 *	          our copies of the sockets are closed when it is over
 *	STOPPING  SIGINT was passed on; a second later it is SIGKILL
 *	KILLING   SIGKILL was sent
 * and only forwards.  The loop ends when no child is left.
 *
 * INVARIANTS
 *   I1  a slot has a process (pid > 0), or a time for its next one
 *       (start_us > 0), or neither: stopped or done.
 *   I2  each death of a child is logged at most once, by child_died(); the
 *       orderly end of a worker that was told to end is not a death.
 *   I3  every process that exits is reaped, ours or adopted: as process 1, or
 *       with orphans handed to us, nothing stays a zombie.
 */
#include "config.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>

#include "master/master_notify.h"
#include "master/master_slot.h"
#include "master/master_supervise.h"

#define SERVED_POLL_US 50000
#define STOP_GRACE_US  1000000
#define DRAIN_GRACE_US 500000

enum phase {
	PHASE_RUNNING = 0,
	PHASE_DRAINING,
	PHASE_STOPPING,
	PHASE_KILLING,
};

struct supervisor {
	const struct master_heritage *heritage;
	struct master_listen *listen;
	enum phase phase;
	int exit_code;
	bool is_ready; /* READY=1 was said */
	bool has_listeners;
	uint64_t close_listen_us;
	uint64_t kill_us;
	uint64_t unsupported_said; /* a bit for each signal */
	sigset_t signals;
	struct master_slot worker[SHM_BOARD_WORKERS_MAX];
	struct master_slot migrate;
};

static const int awaited[] = {SIGCHLD, SIGTERM, SIGQUIT, SIGINT, SIGUSR1,
    SIGHUP, SIGUSR2, SIGWINCH, SIGTTIN, SIGTTOU};

static void
awaited_set(sigset_t *set)
{
	sigemptyset(set);
	for (size_t i = 0; i < SHM_ARRAY_LEN(awaited); i++)
		sigaddset(set, awaited[i]);
}

int
master_supervise_block_signals(void)
{
	sigset_t set;

	/* Whoever started us may have ignored some: SIGCHLD ignored would
	 * reap our children behind our back. */
	for (size_t i = 0; i < SHM_ARRAY_LEN(awaited); i++)
		if (signal(awaited[i], SIG_DFL) == SIG_ERR)
			return -1;
	awaited_set(&set);
	return sigprocmask(SIG_SETMASK, &set, NULL);
}

static uint32_t
workers_count(const struct supervisor *supervisor)
{
	return supervisor->heritage->options->workers;
}

/* ---- signals to the children */

static void
kill_workers(const struct supervisor *supervisor, int number)
{
	for (uint32_t i = 0; i < workers_count(supervisor); i++)
		master_slot_kill(&supervisor->worker[i], number);
}

static uint32_t
children_count(const struct supervisor *supervisor)
{
	uint32_t count = supervisor->migrate.pid > 0;

	for (uint32_t i = 0; i < workers_count(supervisor); i++)
		count += supervisor->worker[i].pid > 0;
	return count;
}

/* ---- phases */

/* From RUNNING to any other: nothing is started any more. */
static void
leave_running(struct supervisor *supervisor)
{
	if (supervisor->phase != PHASE_RUNNING)
		return;
	shm_board_set(supervisor->heritage->board->draining, 1);
	supervisor->migrate.start_us = 0;
	for (uint32_t i = 0; i < workers_count(supervisor); i++)
		supervisor->worker[i].start_us = 0;
	master_slot_kill(&supervisor->migrate, SIGTERM);
	master_notify_send("STOPPING=1\nSTATUS=Stopping");
}

static void
drain(struct supervisor *supervisor, uint64_t now_us)
{
	const struct worker_options *worker =
	    &supervisor->heritage->options->worker;

	SHM_ASSERT(supervisor->phase == PHASE_RUNNING);
	leave_running(supervisor);
	supervisor->phase = PHASE_DRAINING;
	supervisor->close_listen_us =
	    now_us + (uint64_t)worker->drain_delay_ms * 1000;
	supervisor->kill_us =
	    now_us + (uint64_t)worker->drain_timeout_ms * 1000 + DRAIN_GRACE_US;
	worker_log(WORKER_LOG_INFO, "draining",
	    "new clients are sent away soon, requests are finished",
	    LOG_INT("drain_delay_ms", worker->drain_delay_ms),
	    LOG_INT("drain_timeout_ms", worker->drain_timeout_ms), LOG_END);
	kill_workers(supervisor, SIGTERM);
}

static void
stop(struct supervisor *supervisor, uint64_t now_us, const char *reason)
{
	if (supervisor->phase >= PHASE_STOPPING)
		return;
	leave_running(supervisor);
	supervisor->phase = PHASE_STOPPING;
	supervisor->close_listen_us = now_us;
	supervisor->kill_us = now_us + STOP_GRACE_US;
	worker_log(WORKER_LOG_INFO, "stopping", "all connections are closed",
	    LOG_STR("reason", reason), LOG_END);
	kill_workers(supervisor, SIGINT);
}

static void
kill_leftovers(struct supervisor *supervisor)
{
	SHM_ASSERT(supervisor->phase < PHASE_KILLING);
	worker_log(WORKER_LOG_WARN, "stop_overdue",
	    "processes that did not end in time are killed",
	    LOG_INT("processes", children_count(supervisor)), LOG_END);
	supervisor->phase = PHASE_KILLING;
	master_slot_kill(&supervisor->migrate, SIGKILL);
	kill_workers(supervisor, SIGKILL);
}

/* ---- deaths */

/* The only place where deaths are logged (I2). */
static void
child_died(struct supervisor *supervisor, struct master_slot *slot, pid_t pid,
    int status)
{
	uint64_t now_us = shm_clock_us();
	uint64_t alive_ms = (now_us - slot->started_us) / 1000;
	bool is_worker = slot != &supervisor->migrate;
	const char *event = is_worker ? "worker_died" : "migrate_died";
	struct worker_log_field number;
	char cause[64];

	if (is_worker)
		number = LOG_INT("worker", slot - supervisor->worker);
	else
		number = LOG_STR("child", "migrate");
	master_slot_describe_death(status, cause, sizeof(cause));
	if (supervisor->phase != PHASE_RUNNING) {
		worker_log(WORKER_LOG_WARN, event,
		    "a process died while booksd was stopping", number,
		    LOG_INT("pid", pid), LOG_STR("cause", cause),
		    LOG_INT("alive_ms", alive_ms), LOG_END);
		return;
	}
	worker_log(WORKER_LOG_ERROR, event, "a process died and is replaced",
	    number, LOG_INT("pid", pid), LOG_STR("cause", cause),
	    LOG_INT("alive_ms", alive_ms),
	    LOG_INT("restart_in_ms", master_slot_plan(slot, now_us)), LOG_END);
}

static void
give_up(struct supervisor *supervisor, pid_t pid, int code)
{
	worker_log(WORKER_LOG_ERROR, "start_failed",
	    "a process said that it can never work, so booksd ends",
	    LOG_INT("pid", pid), LOG_INT("exit_code", code), LOG_END);
	supervisor->exit_code = code;
	stop(supervisor, shm_clock_us(), "start failed");
}

static void
worker_reaped(struct supervisor *supervisor, uint32_t i, int status)
{
	struct shm_board *board = supervisor->heritage->board;
	struct shm_board_worker *block = &board->worker[i];
	struct master_slot *slot = &supervisor->worker[i];
	pid_t pid = slot->pid;
	bool is_orderly = WIFEXITED(status) && WEXITSTATUS(status) == EX_OK;
	bool is_first = shm_board_get(block->incarnation) == 1 &&
			shm_board_get(block->state) == SHM_BOARD_STARTING;

	slot->pid = 0;
	shm_board_worker_reset(board, i);
	if (supervisor->phase == PHASE_RUNNING && is_first &&
	    master_slot_is_hopeless(status)) {
		give_up(supervisor, pid, WEXITSTATUS(status));
		return;
	}
	if (supervisor->phase == PHASE_KILLING ||
	    (supervisor->phase != PHASE_RUNNING && is_orderly))
		return;
	if (!is_orderly)
		shm_board_set(
		    block->restarts, shm_board_get(block->restarts) + 1);
	child_died(supervisor, slot, pid, status);
}

static void
migrate_reaped(struct supervisor *supervisor, int status)
{
	struct master_slot *slot = &supervisor->migrate;
	bool fail_fast = supervisor->heritage->options->fail_fast;
	pid_t pid = slot->pid;

	slot->pid = 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == EX_OK)
		return; /* it has said itself what it did */
	if (supervisor->phase != PHASE_RUNNING)
		return; /* we ended it */
	if (master_slot_is_hopeless(status) ||
	    (fail_fast && WIFEXITED(status) &&
		WEXITSTATUS(status) == EX_DATAERR)) {
		give_up(supervisor, pid, WEXITSTATUS(status));
		return;
	}
	child_died(supervisor, slot, pid, status);
}

static void
reap(struct supervisor *supervisor)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == supervisor->migrate.pid) {
			migrate_reaped(supervisor, status);
			continue;
		}
		/* Not found: an orphan that was given to us (I3). */
		for (uint32_t i = 0; i < workers_count(supervisor); i++)
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
start_worker(struct supervisor *supervisor, uint32_t i, uint64_t now_us)
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
	shm_board_set(block->pid, pid);
}

static void
start_migrate(struct supervisor *supervisor, uint64_t now_us)
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

static bool
is_due(uint64_t when_us, uint64_t now_us)
{
	return when_us > 0 && when_us <= now_us;
}

static void
start_due(struct supervisor *supervisor, uint64_t now_us)
{
	if (is_due(supervisor->migrate.start_us, now_us))
		start_migrate(supervisor, now_us);
	for (uint32_t i = 0; i < workers_count(supervisor); i++)
		if (is_due(supervisor->worker[i].start_us, now_us))
			start_worker(supervisor, i, now_us);
}

/* ---- signals to us */

static void
say_unsupported(struct supervisor *supervisor, int number)
{
	uint64_t bit = UINT64_C(1) << number;
	char name[16];

	if ((supervisor->unsupported_said & bit) != 0)
		return;
	supervisor->unsupported_said |= bit;
	snprintf(name, sizeof(name), "SIG%s", sigabbrev_np(number));
	worker_log(WORKER_LOG_WARN, "signal_ignored",
	    "this signal is not supported yet and changes nothing",
	    LOG_STR("signal", name), LOG_END);
}

static void
handle_signal(struct supervisor *supervisor, int number)
{
	uint64_t now_us = shm_clock_us();

	switch (number) {
	case SIGCHLD:
		break; /* reaping follows every wake-up */
	case SIGTERM:
	case SIGQUIT:
		if (supervisor->phase == PHASE_RUNNING)
			drain(supervisor, now_us);
		else
			stop(supervisor, now_us, "second signal");
		break;
	case SIGINT:
		stop(supervisor, now_us, "SIGINT");
		break;
	case SIGUSR1:
		/* First here: a new file gets the workers' user as owner. */
		worker_log_reopen();
		kill_workers(supervisor, SIGUSR1);
		break;
	default:
		say_unsupported(supervisor, number);
		break;
	}
}

/* ---- time */

static void
look_at_board(struct supervisor *supervisor)
{
	char state[64];

	if (supervisor->is_ready || supervisor->phase != PHASE_RUNNING ||
	    !shm_board_get(supervisor->heritage->board->served))
		return;
	supervisor->is_ready = true;
	snprintf(state, sizeof(state), "READY=1\nSTATUS=Serving, %u workers",
	    workers_count(supervisor));
	master_notify_send(state);
}

static void
advance(struct supervisor *supervisor, uint64_t now_us)
{
	look_at_board(supervisor);
	if (supervisor->phase == PHASE_RUNNING) {
		start_due(supervisor, now_us);
		return;
	}
	if (supervisor->has_listeners &&
	    now_us >= supervisor->close_listen_us) {
		master_listen_close(supervisor->listen);
		supervisor->has_listeners = false;
	}
	if (supervisor->phase != PHASE_KILLING && now_us >= supervisor->kill_us)
		kill_leftovers(supervisor);
}

static uint64_t
sooner(uint64_t at_us, uint64_t when_us)
{
	return when_us > 0 && when_us < at_us ? when_us : at_us;
}

/* When something has to be done although no signal comes. */
static uint64_t
next_us(const struct supervisor *supervisor, uint64_t now_us, uint64_t log_us)
{
	uint64_t at_us = log_us == UINT64_MAX ? UINT64_MAX : now_us + log_us;

	if (supervisor->phase == PHASE_RUNNING) {
		at_us = sooner(at_us, supervisor->migrate.start_us);
		for (uint32_t i = 0; i < workers_count(supervisor); i++)
			at_us = sooner(at_us, supervisor->worker[i].start_us);
		if (!supervisor->is_ready)
			at_us = sooner(at_us, now_us + SERVED_POLL_US);
		return at_us;
	}
	if (supervisor->has_listeners)
		at_us = sooner(at_us, supervisor->close_listen_us);
	if (supervisor->phase != PHASE_KILLING)
		at_us = sooner(at_us, supervisor->kill_us);
	return at_us;
}

/* The next signal, 0 when the time has come, -1 when waiting is broken. */
static int
wait_for_signal(const sigset_t *signals, uint64_t now_us, uint64_t at_us)
{
	uint64_t wait_us = at_us > now_us ? at_us - now_us : 0;
	struct timespec wait = {
	    .tv_sec = (time_t)(wait_us / 1000000),
	    .tv_nsec = (long)(wait_us % 1000000) * 1000,
	};
	int number;

	number =
	    sigtimedwait(signals, NULL, at_us == UINT64_MAX ? NULL : &wait);
	if (number > 0)
		return number;
	return errno == EAGAIN || errno == EINTR ? 0 : -1;
}

int
master_supervise(
    const struct master_heritage *heritage, struct master_listen *listen)
{
	struct supervisor supervisor = {
	    .heritage = heritage,
	    .listen = listen,
	    .has_listeners = true,
	    .exit_code = EX_OK,
	};
	uint64_t now_us = shm_clock_us(), log_us;
	int number;

	awaited_set(&supervisor.signals);
	if (heritage->options->migrate_on_start) {
		shm_board_set(
		    heritage->board->migrate, SHM_BOARD_MIGRATE_PENDING);
		supervisor.migrate.start_us = now_us;
	}
	for (uint32_t i = 0; i < heritage->options->workers; i++)
		supervisor.worker[i].start_us = now_us;
	for (;;) {
		reap(&supervisor);
		now_us = shm_clock_us();
		advance(&supervisor, now_us);
		if (supervisor.phase != PHASE_RUNNING &&
		    children_count(&supervisor) == 0)
			break;
		log_us = worker_log_flush(now_us);
		number = wait_for_signal(&supervisor.signals, now_us,
		    next_us(&supervisor, now_us, log_us));
		if (number > 0)
			handle_signal(&supervisor, number);
		else if (number < 0) {
			supervisor.exit_code = EX_SOFTWARE;
			stop(&supervisor, now_us, "waiting failed");
		}
	}
	master_listen_close(listen);
	return supervisor.exit_code;
}
