/*
 * The end of a worker that is told to stop.
 *
 * SIGTERM -> DRAIN_DELAY: all goes on (a load balancer is told by /readyz
 * meanwhile) -> DRAINING: a filter that drops everything is attached to the TCP
 * listeners, so that no handshake completes any more, what is queued is
 * accepted, and every answer says Connection: close -> DRAIN_IDLE, a second
 * later: connections without a request are closed -> STOPPED when none is
 * left, or drain_timeout after the signal.
 *
 * SIGHUP -> RETIRING: others serve the listeners, so these are left as they
 * are.  Accepting ends at once, but for a client that only we were told of.
 * Idle connections are handed to others, as are those that become idle; after
 * a second, or when nobody takes them, answers say Connection: close and idle
 * ones are closed -> STOPPED as above.  SIGTERM meanwhile is a drain like any
 * other.
 */
#include "config.h"

#include <linux/filter.h>
#include <sys/socket.h>

#include <errno.h>

#include "worker/worker_conn.h"
#include "worker/worker_drain.h"
#include "worker/worker_handover.h"

#define DRAIN_IDLE_US 1000000 /* grace of idle connections */
#define DRAIN_LOOK_US 50000   /* for connections that became idle */
/* So long others may still hand us connections: they believed that we serve. */
#define RETIRE_LEAST_US 100000

void
worker_drain_begin(struct worker_loop *loop)
{
	/* Service managers signal the whole group and the master passes its
	 * own TERM on: a repeat is the same news.  Haste comes as SIGINT. */
	if (loop->phase != WORKER_SERVING && loop->phase != WORKER_RETIRING)
		return;
	worker_handover_want(loop, 0);
	loop->phase = WORKER_DRAIN_DELAY;
	loop->phase_us = loop->now_us + loop->options->drain_delay_ms * 1000ull;
	loop->stop_us =
	    loop->now_us + loop->options->drain_timeout_ms * 1000ull;
	shm_board_set(loop->block->state, SHM_BOARD_DRAINING);
}

void
worker_drain_retire(struct worker_loop *loop)
{
	if (loop->phase != WORKER_SERVING)
		return;
	loop->phase = WORKER_RETIRING;
	loop->phase_us = loop->now_us + DRAIN_IDLE_US;
	loop->stop_us =
	    loop->now_us + loop->options->drain_timeout_ms * 1000ull;
	shm_board_set(loop->block->state, SHM_BOARD_RETIRING);
	worker_log(WORKER_LOG_INFO, "retiring",
	    "what is under way is finished, the others go on",
	    LOG_INT("connections", loop->open_count), LOG_END);
	worker_loop_accept_stop(loop);
	loop->retire_closes = !worker_handover_is_possible(loop);
	worker_handover_want(loop, UINT32_MAX);
}

/*
 * Take the listener out of service without resetting anybody: with a filter
 * that accepts no packet the kernel completes no handshake, so the queue can
 * only shrink, and clients that dial now find the next task.  (A unix socket
 * has no such filter; the master removes its name.)
 */
static void
listener_freeze(int fd)
{
	struct sock_filter drop[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
	struct sock_fprog program = {SHM_ARRAY_LEN(drop), drop};
	int domain = AF_UNIX;
	socklen_t len = sizeof(domain);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == -1 ||
	    domain == AF_UNIX)
		return;
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program,
		sizeof(program)) == -1)
		worker_log(WORKER_LOG_WARN, "drain_filter_failed",
		    "clients that connect during the last moment may be reset",
		    LOG_STR("error", strerror(errno)), LOG_END);
}

static void
drain_listeners(struct worker_loop *loop)
{
	worker_loop_accept_stop(loop);
	for (uint32_t i = 0; i < loop->options->listeners_count; i++)
		listener_freeze(loop->options->listener_fd[i]);
}

/* Take what is queued, as far as there are places; true when none is left. */
static bool
drain_queues(struct worker_loop *loop)
{
	for (uint32_t i = 0; i < loop->options->listeners_count; i++) {
		int fd;

		do {
			if (worker_loop_is_full(loop))
				return false;
			fd = accept4(loop->options->listener_fd[i], NULL, NULL,
			    SOCK_CLOEXEC);
			if (fd >= 0)
				worker_loop_accept(loop, fd);
		} while (fd >= 0 || errno == EINTR || errno == ECONNABORTED);
	}
	return true;
}

static void
drain_idle(struct worker_loop *loop)
{
	for (uint32_t i = 0; i < loop->conn_count; i++)
		worker_conn_close_idle(&loop->conn[i]);
}

/* How long until the next look. */
static uint64_t
retire_tick(struct worker_loop *loop)
{
	loop->retire_closes = loop->now_us >= loop->phase_us ||
			      !worker_handover_is_possible(loop);
	if (loop->now_us >= loop->phase_us)
		drain_idle(loop);
	return DRAIN_LOOK_US;
}

static bool
is_finished(struct worker_loop *loop)
{
	if (loop->phase == WORKER_RETIRING)
		return loop->open_count == 0 &&
		       !worker_loop_is_accepting(loop) &&
		       loop->now_us + DRAIN_IDLE_US >=
			   loop->phase_us + RETIRE_LEAST_US;
	return loop->phase >= WORKER_DRAINING && drain_queues(loop) &&
	       loop->open_count == 0;
}

uint64_t
worker_drain_tick(struct worker_loop *loop)
{
	uint64_t next_us, look_us = UINT64_MAX;

	if (loop->phase == WORKER_SERVING || loop->phase == WORKER_STOPPED)
		return UINT64_MAX;
	if (loop->phase == WORKER_DRAIN_DELAY &&
	    loop->now_us >= loop->phase_us) {
		loop->phase = WORKER_DRAINING;
		loop->phase_us = loop->now_us + DRAIN_IDLE_US;
		drain_listeners(loop);
	}
	if (loop->phase == WORKER_DRAINING && loop->now_us >= loop->phase_us)
		loop->phase = WORKER_DRAIN_IDLE;
	if (loop->phase == WORKER_DRAIN_IDLE) {
		drain_idle(loop);
		look_us = DRAIN_LOOK_US;
	}
	if (loop->phase == WORKER_RETIRING)
		look_us = retire_tick(loop);
	if (is_finished(loop))
		loop->phase = WORKER_STOPPED;
	if (loop->now_us >= loop->stop_us) {
		worker_log(WORKER_LOG_WARN, "drain_timeout",
		    "stopping with connections open",
		    LOG_INT("connections", loop->open_count), LOG_END);
		loop->phase = WORKER_STOPPED;
	}
	if (loop->phase == WORKER_STOPPED)
		return 0;
	if (look_us != UINT64_MAX)
		return look_us;
	next_us =
	    loop->phase_us < loop->stop_us ? loop->phase_us : loop->stop_us;
	return next_us - loop->now_us;
}
