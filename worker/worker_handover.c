/*
 * Giving idle connections to another worker, and taking those of others.
 *
 *	idle -> io_release() -> released() -> sendmsg() to a slot -> gone
 *	             |               '-> nobody takes it: opened again here
 *	             '-> bytes came meanwhile: served here
 *
 * Only a connection between two requests moves, with nothing of it in our
 * memory: what the client has sent since is in the socket and goes with it.
 * So the next worker needs to know nothing but how long it may stay idle.
 *
 * WHOM TO ASK.  Workers that serve, by the board, with less connections than
 * they may have, and with the database if we have it; the one with the fewest.
 * The board lags behind what was just sent, so what we have sent in the last
 * moment is added.
 *
 * TRUST.  A note is another worker's word: it is judged, and whatever comes
 * with it that is no connected stream socket is closed.
 */
#include "config.h"

#include <sys/socket.h>

#include <errno.h>
#include <unistd.h>

#include "worker/worker_balance.h"
#include "worker/worker_conn_part.h"
#include "worker/worker_handover.h"

#define LOOK_US	       5000 /* for connections that became idle */
#define LOOK_COUNT_MAX 64   /* released in one look */
#define RECEIVE_MAX    64   /* in one turn: the rest wakes us again */
#define SENT_RECENT_US 100000

/* ---- giving */

static void
sent_expire(struct worker_loop *loop)
{
	struct worker_handover *handover = &loop->handover;

	if (loop->now_us < handover->sent_until_us)
		return;
	memset(handover->sent, 0, sizeof(handover->sent));
	handover->sent_until_us = loop->now_us + SENT_RECENT_US;
}

/* The slot that takes the next one, or -1. */
static int
target_find(const struct worker_loop *loop)
{
	const struct worker_options *options = loop->options;
	uint32_t least = options->connections_max;
	bool has_db = shm_board_get(loop->block->db) == SHM_BOARD_DB_READY;
	int target = -1;

	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++) {
		struct shm_board_worker *block = &options->board->worker[i];
		uint32_t count;

		if (i == options->slot || options->handover_fd[i] == -1 ||
		    !worker_balance_is_serving(loop, i) ||
		    (has_db && shm_board_get(block->db) != SHM_BOARD_DB_READY))
			continue;
		count =
		    shm_board_get(block->connections) + loop->handover.sent[i];
		if (count < least) {
			least = count;
			target = (int)i;
		}
	}
	return target;
}

bool
worker_handover_is_possible(const struct worker_loop *loop)
{
	return target_find(loop) != -1;
}

void
worker_handover_want(struct worker_loop *loop, uint32_t count)
{
	loop->handover.wanted = count;
}

void
worker_handover_idle(struct worker_conn *conn)
{
	struct worker_handover *handover = &conn->loop->handover;

	if (handover->leaving >= handover->wanted || conn->leaving ||
	    conn->state != WORKER_CONN_READING || conn->head_started ||
	    conn->sending || conn->paused || conn->ended || conn->out.len > 0 ||
	    conn->in.len > conn->in_start ||
	    !worker_handover_is_possible(conn->loop))
		return;
	conn->leaving = true;
	handover->leaving++;
	io_release(conn->loop->io, conn->slot);
}

void
worker_handover_forget(struct worker_conn *conn)
{
	if (!conn->leaving)
		return;
	SHM_ASSERT(conn->loop->handover.leaving > 0);
	conn->leaving = false;
	conn->loop->handover.leaving--;
}

uint64_t
worker_handover_tick(struct worker_loop *loop)
{
	struct worker_handover *handover = &loop->handover;
	uint32_t begun = 0;

	if (handover->wanted == 0)
		return UINT64_MAX;
	sent_expire(loop);
	if (!worker_handover_is_possible(loop))
		return LOOK_US;
	for (uint32_t i = 0; i < loop->conn_count && begun < LOOK_COUNT_MAX &&
			     handover->leaving < handover->wanted;
	     i++) {
		struct worker_conn *conn = &loop->conn[i];

		if (conn->state != WORKER_CONN_READING || conn->leaving)
			continue;
		worker_handover_idle(conn);
		begun += conn->leaving;
	}
	return LOOK_US;
}

static uint32_t
keepalive_left_ms(const struct worker_conn *conn)
{
	const struct worker_loop *loop = conn->loop;
	uint64_t deadline_us = worker_timer_get(loop->timer, conn->slot);

	if (deadline_us <= loop->now_us)
		return 1;
	deadline_us -= loop->now_us;
	return deadline_us / 1000 < loop->options->keepalive_timeout_ms
		   ? (uint32_t)(deadline_us / 1000)
		   : loop->options->keepalive_timeout_ms;
}

static bool
note_send(int to, const struct worker_handover_note *note, int fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec part = {(void *)(uintptr_t)note, sizeof(*note)};
	struct msghdr message = {.msg_iov = &part,
	    .msg_iovlen = 1,
	    .msg_control = control.space,
	    .msg_controllen = sizeof(control.space)};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	return sendmsg(to, &message, MSG_DONTWAIT | MSG_NOSIGNAL) ==
	       (ssize_t)sizeof(*note);
}

void
worker_handover_released(struct worker_conn *conn, int fd)
{
	struct worker_loop *loop = conn->loop;
	struct worker_handover_note note = {.version = WORKER_HANDOVER_VERSION,
	    .keepalive_ms = keepalive_left_ms(conn)};
	int target;

	worker_handover_forget(conn);
	if (fd < 0)
		return;
	sent_expire(loop);
	target = loop->handover.wanted > 0 ? target_find(loop) : -1;
	if (target == -1 ||
	    !note_send(loop->options->handover_fd[target], &note, fd)) {
		io_open_slot(loop->io, conn->slot, fd);
		return;
	}
	close(fd);
	loop->handover.sent[target]++;
	if (loop->handover.wanted != UINT32_MAX)
		loop->handover.wanted--;
	shm_stats_count(loop->stats.shm, SHM_STATS_connections_moved, 1);
	worker_conn_moved(conn);
}

/* ---- taking */

static bool
is_connection(int fd)
{
	struct sockaddr_storage addr;
	int value = 0;
	socklen_t len = sizeof(value);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &len) == -1 ||
	    value != SOCK_STREAM)
		return false;
	len = sizeof(value);
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &len) == -1 ||
	    value != 0)
		return false;
	/* A client that has gone has no name any more, but is one of ours:
	 * the loop finds out. */
	len = sizeof(addr);
	return getpeername(fd, (struct sockaddr *)&addr, &len) == 0 ||
	       errno == ENOTCONN;
}

/* The descriptors of a message: the first one is lent, others are closed. */
static int
note_fd(struct msghdr *message)
{
	int found = -1;

	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(message); cmsg != NULL;
	     cmsg = CMSG_NXTHDR(message, cmsg)) {
		size_t count;

		if (cmsg->cmsg_level != SOL_SOCKET ||
		    cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(
			    &fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(fd));
			if (found == -1)
				found = fd;
			else
				close(fd);
		}
	}
	return found;
}

/* False: there is no message.  *fd is -1 when it is not worth anything. */
static bool
note_receive(int from, struct worker_handover_note *note, int *fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(4 * sizeof(int))];
	} control;
	struct iovec part = {note, sizeof(*note)};
	struct msghdr message = {.msg_iov = &part,
	    .msg_iovlen = 1,
	    .msg_control = control.space,
	    .msg_controllen = sizeof(control.space)};
	ssize_t n;

	do
		n = recvmsg(from, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n == -1 && errno == EINTR);
	if (n == -1)
		return false;
	*fd = note_fd(&message);
	if (*fd != -1 &&
	    (n != (ssize_t)sizeof(*note) ||
		(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 ||
		note->version != WORKER_HANDOVER_VERSION ||
		!is_connection(*fd))) {
		close(*fd);
		*fd = -1;
	}
	return true;
}

void
worker_handover_receive(struct worker_loop *loop)
{
	const struct worker_options *options = loop->options;
	struct worker_handover_note note;
	int fd;

	for (uint32_t i = 0; i < RECEIVE_MAX; i++) {
		if (!note_receive(options->handover_own, &note, &fd))
			return;
		if (fd == -1)
			worker_log(WORKER_LOG_WARN, "handover_refused",
			    "what another worker handed over is no connection",
			    LOG_END);
		else if (worker_loop_is_full(loop))
			close(fd); /* it is idle: its client dials again */
		else
			worker_loop_adopt(loop, fd,
			    note.keepalive_ms < options->keepalive_timeout_ms
				? note.keepalive_ms
				: options->keepalive_timeout_ms);
	}
}
