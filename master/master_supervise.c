/*
 * Supervision: keep the workers alive, and end them well.
 *
 * All that can happen to the master is a signal (SIGCHLD among them) or the
 * passing of time.  So its loop waits in sigtimedwait(2) for blocked signals:
 * no handlers, nothing that runs between two lines of code, and as process 1
 * of a container it gets signals for which it has no handler.  Signals of one
 * kind melt into one while they are pending, therefore the children are reaped
 * and the clock is looked at after every wake-up, whatever its reason, and so
 * are the orders that ops sends.  Each part of the supervision has a tick,
 * which does what is due and says when it is time again: tick() has them all.
 *
 * PHASES
 *	RUNNING   dead children are replaced, and there are as many workers as
 *	          are wanted (master_supervise_workers.c)
 *	DRAINING  SIGTERM was passed on; workers time drain_delay themselves;
 *	          our copies of the sockets are closed when it is over
 *	STOPPING  SIGINT was passed on; a second later it is SIGKILL
 *	KILLING   SIGKILL was sent
 * and only forwards.  The loop ends when no child is left.  ops is told to end
 * when the last worker is gone: until then they need what it hears.  Until
 * then, too, deaths are followed by an audit of the cache.
 *
 * INVARIANTS
 *   I1  a slot has a process (pid > 0), or a time for its next one
 *       (start_us > 0), or neither: it is free, stopped or done.
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
#include "master/master_ops.h"
#include "master/master_supervise_part.h"

#define SERVED_POLL_US 50000
#define STOP_GRACE_US  1000000
#define DRAIN_GRACE_US 500000
#define OPS_DELAY_US   100000

/* SIGIO: ops has sent an order (master_orders.c). */
static const int awaited[] = {SIGCHLD, SIGTERM, SIGQUIT, SIGINT, SIGUSR1,
    SIGHUP, SIGUSR2, SIGWINCH, SIGTTIN, SIGTTOU, SIGIO};

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

/* ---- signals to the children */

static void
kill_workers(const struct master_supervisor *supervisor, int number)
{
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
		master_slot_kill(&supervisor->worker[i], number);
}

static uint32_t
workers_alive(const struct master_supervisor *supervisor)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
		count += supervisor->worker[i].pid > 0;
	return count;
}

static uint32_t
children_count(const struct master_supervisor *supervisor)
{
	return workers_alive(supervisor) + (supervisor->migrate.pid > 0) +
	       (supervisor->ops.pid > 0) + (supervisor->audit.pid > 0);
}

/* ---- phases */

/* From RUNNING to any other. */
static void
start_nothing(struct master_supervisor *supervisor)
{
	supervisor->migrate.start_us = 0;
	supervisor->ops.start_us = 0;
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
		supervisor->worker[i].start_us = 0;
	master_slot_kill(&supervisor->migrate, SIGTERM);
}

static void
leave_running(struct master_supervisor *supervisor)
{
	if (supervisor->phase != MASTER_PHASE_RUNNING)
		return;
	start_nothing(supervisor);
	shm_board_set(supervisor->heritage->board->draining, 1);
	master_notify_send("STOPPING=1");
}

void
master_supervise_drain(struct master_supervisor *supervisor)
{
	const struct worker_options *worker =
	    &supervisor->heritage->options->worker;
	uint64_t now_us = shm_clock_us();

	SHM_ASSERT(supervisor->phase == MASTER_PHASE_RUNNING);
	leave_running(supervisor);
	supervisor->phase = MASTER_PHASE_DRAINING;
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

void
master_supervise_leave(
    struct master_supervisor *supervisor, bool is_ops_useless)
{
	uint64_t now_us = shm_clock_us();
	uint64_t longest_us =
	    (uint64_t)supervisor->heritage->options->worker.drain_timeout_ms *
	    1000;

	SHM_ASSERT(supervisor->phase == MASTER_PHASE_RUNNING);
	/* Neither the board nor the manager is told of an end: the task goes
	 * on, and who asks our workers hears that it is ready. */
	start_nothing(supervisor);
	supervisor->phase = MASTER_PHASE_DRAINING;
	supervisor->close_listen_us = now_us;
	supervisor->kill_us = now_us + longest_us + DRAIN_GRACE_US;
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
		supervisor->worker[i].is_leaving = true;
	kill_workers(supervisor, SIGHUP);
	if (is_ops_useless)
		master_slot_kill(&supervisor->ops, SIGTERM);
}

static void
stop(struct master_supervisor *supervisor, uint64_t now_us, const char *reason)
{
	if (supervisor->phase >= MASTER_PHASE_STOPPING)
		return;
	leave_running(supervisor);
	supervisor->phase = MASTER_PHASE_STOPPING;
	supervisor->close_listen_us = now_us;
	supervisor->kill_us = now_us + STOP_GRACE_US;
	worker_log(WORKER_LOG_INFO, "stopping", "all connections are closed",
	    LOG_STR("reason", reason), LOG_END);
	kill_workers(supervisor, SIGINT);
}

/* Nobody is left whom ops serves, or who could be served something wrong. */
static void
stop_helpers(struct master_supervisor *supervisor, uint64_t now_us)
{
	if (supervisor->helpers_told || workers_alive(supervisor) > 0)
		return;
	supervisor->helpers_told = true;
	supervisor->audit.start_us = 0;
	master_slot_kill(&supervisor->audit, SIGKILL);
	master_slot_kill(&supervisor->ops, SIGTERM);
	if (supervisor->kill_us > now_us + STOP_GRACE_US)
		supervisor->kill_us = now_us + STOP_GRACE_US;
}

static void
kill_leftovers(struct master_supervisor *supervisor)
{
	uint32_t count = children_count(supervisor);

	SHM_ASSERT(supervisor->phase < MASTER_PHASE_KILLING);
	/* They go with the workers, but they are not late. */
	if (!supervisor->helpers_told)
		count -=
		    (supervisor->ops.pid > 0) + (supervisor->audit.pid > 0);
	worker_log(WORKER_LOG_WARN, "stop_overdue",
	    "processes that did not end in time are killed",
	    LOG_INT("processes", count), LOG_END);
	supervisor->phase = MASTER_PHASE_KILLING;
	master_slot_kill(&supervisor->migrate, SIGKILL);
	master_slot_kill(&supervisor->ops, SIGKILL);
	master_slot_kill(&supervisor->audit, SIGKILL);
	kill_workers(supervisor, SIGKILL);
}

void
master_supervise_give_up(
    struct master_supervisor *supervisor, pid_t pid, int code)
{
	worker_log(WORKER_LOG_ERROR, "start_failed",
	    "a process said that it can never work, so booksd ends",
	    LOG_INT("pid", pid), LOG_INT("exit_code", code), LOG_END);
	supervisor->exit_code = code;
	stop(supervisor, shm_clock_us(), "start failed");
}

/* ---- signals to us */

void
master_supervise_reopen(struct master_supervisor *supervisor)
{
	/* First here: a new file gets the workers' user as owner. */
	worker_log_reopen();
	kill_workers(supervisor, SIGUSR1);
	master_slot_kill(&supervisor->ops, SIGUSR1);
}

static void
handle_signal(struct master_supervisor *supervisor, int number)
{
	uint64_t now_us = shm_clock_us();

	switch (number) {
	case SIGCHLD: /* reaping follows every wake-up, */
	case SIGIO:   /* and so does reading orders */
		break;
	case SIGTERM:
	case SIGQUIT:
		if (supervisor->phase == MASTER_PHASE_RUNNING)
			master_supervise_drain(supervisor);
		else
			stop(supervisor, now_us, "second signal");
		break;
	case SIGINT:
		stop(supervisor, now_us, "SIGINT");
		break;
	case SIGUSR1:
		master_supervise_reopen(supervisor);
		break;
	case SIGTTIN:
		master_supervise_step(supervisor, 1, "SIGTTIN");
		break;
	case SIGTTOU:
		master_supervise_step(supervisor, -1, "SIGTTOU");
		break;
	case SIGHUP:
		master_supervise_reload(supervisor);
		break;
	case SIGUSR2:
		master_upgrade_begin(supervisor);
		break;
	case SIGWINCH:
		master_supervise_rest(supervisor);
		break;
	default:
		SHM_ASSERT(!"a signal that is awaited");
	}
}

/* ---- time */

static void
look_at_board(struct master_supervisor *supervisor)
{
	const struct master_heritage *heritage = supervisor->heritage;

	if (supervisor->is_ready || supervisor->phase != MASTER_PHASE_RUNNING ||
	    !shm_board_get(heritage->board->served) ||
	    !master_takeover_is_over(heritage->takeover))
		return;
	supervisor->is_ready = true;
	master_notify_send("READY=1");
}

/* One line for whoever asks the service manager. */
static void
say_status(const struct master_supervisor *supervisor)
{
	const struct shm_board *board = supervisor->heritage->board;
	const char *what = supervisor->is_ready ? "Serving" : "Starting";
	uint32_t serving = 0;
	char text[64];

	/* Of two masters one speaks. */
	if (supervisor->upgrade.state == MASTER_UPGRADE_LEAVING ||
	    !master_takeover_is_over(supervisor->heritage->takeover))
		return;
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
		serving +=
		    shm_board_get(board->worker[i].state) == SHM_BOARD_SERVING;
	if (supervisor->phase == MASTER_PHASE_RUNNING)
		snprintf(text, sizeof(text), "%s, %u of %u workers", what,
		    serving, supervisor->is_resting ? 0 : supervisor->wanted);
	else
		snprintf(text, sizeof(text), "Stopping, %u workers left",
		    workers_alive(supervisor));
	master_notify_status(text);
}

static void
advance(struct master_supervisor *supervisor, uint64_t now_us)
{
	look_at_board(supervisor);
	master_supervise_start_due(supervisor, now_us);
	if (supervisor->phase == MASTER_PHASE_RUNNING)
		return;
	stop_helpers(supervisor, now_us);
	/* What is lent is given back when the last worker is gone. */
	if (supervisor->has_listeners && !supervisor->listen->is_lent &&
	    now_us >= supervisor->close_listen_us) {
		master_listen_close(supervisor->listen);
		supervisor->has_listeners = false;
	}
	if (supervisor->phase != MASTER_PHASE_KILLING &&
	    now_us >= supervisor->kill_us && children_count(supervisor) > 0)
		kill_leftovers(supervisor);
}

/* When a phase or a birth is due although no signal comes. */
static uint64_t
next_us(const struct master_supervisor *supervisor, uint64_t now_us)
{
	uint64_t at_us = UINT64_MAX;

	if (supervisor->audit.pid == 0)
		at_us =
		    master_supervise_sooner(at_us, supervisor->audit.start_us);
	if (supervisor->phase == MASTER_PHASE_RUNNING) {
		at_us = master_supervise_sooner(
		    at_us, supervisor->migrate.start_us);
		at_us =
		    master_supervise_sooner(at_us, supervisor->ops.start_us);
		for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
			at_us = master_supervise_sooner(
			    at_us, supervisor->worker[i].start_us);
		if (!supervisor->is_ready)
			at_us = master_supervise_sooner(
			    at_us, now_us + SERVED_POLL_US);
		return at_us;
	}
	if (supervisor->has_listeners && !supervisor->listen->is_lent)
		at_us =
		    master_supervise_sooner(at_us, supervisor->close_listen_us);
	if (supervisor->phase != MASTER_PHASE_KILLING &&
	    children_count(supervisor) > 0)
		at_us = master_supervise_sooner(at_us, supervisor->kill_us);
	return at_us;
}

/* Everything that is due, each part by itself.  When to look again. */
static uint64_t
tick(struct master_supervisor *supervisor, uint64_t now_us)
{
	struct master_throttle *throttle = &supervisor->throttle;
	uint64_t at_us, log_us;

	if (master_throttle_tick(
		throttle, "", supervisor->heritage->board, now_us))
		master_supervise_limit(supervisor);
	at_us = master_supervise_workers_tick(supervisor, now_us);
	at_us = master_supervise_sooner(
	    at_us, master_supervise_watch_tick(supervisor, now_us));
	at_us = master_supervise_sooner(
	    at_us, master_takeover_tick(supervisor, now_us));
	at_us = master_supervise_sooner(
	    at_us, master_upgrade_tick(supervisor, now_us));
	advance(supervisor, now_us);
	at_us = master_supervise_sooner(
	    at_us, master_cache_tick(&supervisor->cache, now_us));
	at_us = master_supervise_sooner(at_us, next_us(supervisor, now_us));
	at_us = master_supervise_sooner(at_us, throttle->next_us);
	at_us = master_supervise_sooner(at_us, master_notify_watchdog(now_us));
	say_status(supervisor);
	log_us = worker_log_flush(now_us);
	return log_us == UINT64_MAX
		   ? at_us
		   : master_supervise_sooner(at_us, now_us + log_us);
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

/* One turn: what has happened, what is due, and then the next signal. */
static void
turn(struct master_supervisor *supervisor)
{
	uint64_t now_us = shm_clock_us(), at_us;
	int number;

	at_us = tick(supervisor, now_us);
	number = wait_for_signal(&supervisor->signals, now_us, at_us);
	if (number > 0) {
		handle_signal(supervisor, number);
	} else if (number < 0) {
		supervisor->exit_code = EX_SOFTWARE;
		stop(supervisor, now_us, "waiting failed");
	}
}

static void
plan_start(struct master_supervisor *supervisor, uint64_t now_us)
{
	const struct master_heritage *heritage = supervisor->heritage;

	if (heritage->options->migrate_on_start) {
		shm_board_set(
		    heritage->board->migrate, SHM_BOARD_MIGRATE_PENDING);
		supervisor->migrate.start_us = now_us;
	}
	supervisor->wanted = heritage->options->workers;
	for (uint32_t i = 0; i < supervisor->wanted; i++) {
		supervisor->worker[i].start_us = now_us;
		supervisor->worker[i].is_first = true;
	}
	/* Clients wait for the workers, so these get the CPUs first. */
	if (master_ops_is_wanted(heritage))
		supervisor->ops.start_us = now_us + OPS_DELAY_US;
}

int
master_supervise(struct master_heritage *heritage, struct master_listen *listen)
{
	/* Too large for a stack, and once in a process. */
	static struct master_supervisor supervisor;

	supervisor.heritage = heritage;
	supervisor.listen = listen;
	supervisor.has_listeners = true;
	supervisor.exit_code = EX_OK;
	supervisor.roll.successor = SHM_BOARD_SLOTS;
	supervisor.cache.cache = heritage->cache;
	awaited_set(&supervisor.signals);
	plan_start(&supervisor, shm_clock_us());
	for (;;) {
		master_supervise_reap(&supervisor);
		if (supervisor.phase != MASTER_PHASE_RUNNING &&
		    children_count(&supervisor) == 0 &&
		    master_upgrade_may_end(&supervisor))
			break;
		master_supervise_obey(&supervisor);
		turn(&supervisor);
	}
	master_listen_close(listen);
	master_upgrade_end(&supervisor);
	return supervisor.exit_code;
}
