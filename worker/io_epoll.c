/*
 * The epoll back end: the one that Fargate lets us have.
 *
 * Client sockets are registered once, edge-triggered for both directions, so a
 * request costs epoll_wait, recv and send and no epoll_ctl.  An edge is
 * remembered in the slot until recv(2) or send(2) says EAGAIN:
 *
 *	readable  there may be bytes: set by an edge, cleared by a short read
 *	          (epoll(7): less than was asked for means drained) unless the
 *	          edge also said that the peer hung up, whose 0 is still to come
 *	blocked   a send found the socket full: the next writable edge sends
 *
 * A listener is registered level-triggered and exclusive only while an accept
 * is wanted, and is taken out by each accept: adding it again puts this process
 * at the end of the socket's wait queue, so that idle workers take turns.
 *
 * Nothing calls back from inside a starting function: a send that ends at once
 * and a close put an entry into `done`, which io_turn() delivers.  A slot has
 * at most an entry being delivered, a new send and a close in there, so it
 * cannot overflow.
 */
#include "config.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "worker/io_back.h"

#define EVENTS_BATCH  256	  /* per epoll_wait */
#define RECEIVE_BYTES (64u << 10) /* one for the process, lent to callbacks */
#define WAIT_MS_MAX   60000

enum tag_kind {
	TAG_SLOT = 1,
	TAG_LISTENER,
	TAG_POLLER,
};

struct epoll_slot {
	int fd; /* -1: closed */
	uint32_t generation;
	bool receiving;
	bool readable;
	bool hung_up; /* an edge said RDHUP, HUP or ERR */
	bool queued;  /* in readable list */
	bool sending;
	bool blocked;
	const char *send_data;
	size_t send_len;
};

struct epoll_poller {
	int fd;
	uint32_t events;
	uint32_t generation;
};

struct epoll_done {
	uint32_t slot;
	uint32_t generation; /* of a send; a close is always for its slot */
	int res;
	bool is_close;
};

struct io_epoll {
	struct io io;
	int epoll_fd;
	struct epoll_slot *slot;
	uint32_t *readable; /* slots to read without a new edge */
	uint32_t readable_count;
	struct epoll_done *done;
	uint32_t done_count;
	uint32_t done_max;
	int listener_fd[IO_LISTENERS_MAX];   /* -1: not armed */
	int accept_failed[IO_LISTENERS_MAX]; /* errno to be delivered, or 0 */
	struct epoll_poller poller[IO_POLLERS_MAX];
	char receive[RECEIVE_BYTES];
};

static uint64_t
tag_pack(enum tag_kind kind, uint32_t index, uint32_t generation)
{
	return (uint64_t)kind << 56 | (uint64_t)(generation & 0xffffff) << 32 |
	       index;
}

static struct io_epoll *
epoll_of(struct io *io)
{
	return (struct io_epoll *)io;
}

static void
done_push(struct io_epoll *ep, uint32_t slot, int res, bool is_close)
{
	SHM_ASSERT(ep->done_count < ep->done_max);
	ep->done[ep->done_count++] =
	    (struct epoll_done){slot, ep->slot[slot].generation, res, is_close};
}

static void
readable_push(struct io_epoll *ep, uint32_t slot)
{
	if (ep->slot[slot].queued)
		return;
	ep->slot[slot].queued = true;
	ep->readable[ep->readable_count++] = slot;
}

/* ---- starting operations */

static void
epoll_accept(struct io *io, uint32_t listener, int fd)
{
	struct io_epoll *ep = epoll_of(io);
	struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE,
	    .data.u64 = tag_pack(TAG_LISTENER, listener, 0)};

	SHM_ASSERT(ep->listener_fd[listener] == -1);
	if (epoll_ctl(ep->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0)
		ep->listener_fd[listener] = fd;
	else
		ep->accept_failed[listener] = errno;
}

static void
epoll_accept_stop(struct io *io, uint32_t listener)
{
	struct io_epoll *ep = epoll_of(io);

	if (ep->listener_fd[listener] == -1)
		return;
	epoll_ctl(ep->epoll_fd, EPOLL_CTL_DEL, ep->listener_fd[listener], NULL);
	ep->listener_fd[listener] = -1;
}

/* Listeners that could not be watched: the consumer tries again. */
static int
accept_failed_deliver(struct io_epoll *ep)
{
	int called = 0;

	for (uint32_t i = 0; i < IO_LISTENERS_MAX; i++) {
		int error = ep->accept_failed[i];

		ep->accept_failed[i] = 0;
		if (error == 0)
			continue;
		ep->io.events->accepted(ep->io.owner, i, -error);
		called++;
	}
	return called;
}

static void
epoll_open_slot(struct io *io, uint32_t index, int fd)
{
	struct io_epoll *ep = epoll_of(io);
	struct epoll_slot *slot = &ep->slot[index];
	struct epoll_event event = {
	    .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
	    .data.u64 = tag_pack(TAG_SLOT, index, slot->generation)};

	SHM_ASSERT(slot->fd == -1);
	slot->fd = fd;
	slot->receiving = true;
	slot->readable = slot->hung_up = false;
	slot->sending = slot->blocked = false;
	/* A socket that cannot be watched reads once and reports its end. */
	if (epoll_ctl(ep->epoll_fd, EPOLL_CTL_ADD, fd, &event) == -1) {
		slot->readable = slot->hung_up = true;
		shutdown(fd, SHUT_RDWR);
		readable_push(ep, index);
	}
}

static void
epoll_receive_stop(struct io *io, uint32_t index)
{
	epoll_of(io)->slot[index].receiving = false;
}

static void
epoll_receive_start(struct io *io, uint32_t index)
{
	struct io_epoll *ep = epoll_of(io);
	struct epoll_slot *slot = &ep->slot[index];

	SHM_ASSERT(slot->fd != -1);
	slot->receiving = true;
	if (slot->readable)
		readable_push(ep, index);
}

static void
slot_try_send(struct io_epoll *ep, uint32_t index)
{
	struct epoll_slot *slot = &ep->slot[index];
	ssize_t n;

	do
		n = send(slot->fd, slot->send_data, slot->send_len,
		    MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n == -1 && errno == EINTR);
	slot->blocked = n == -1 && errno == EAGAIN;
	if (slot->blocked)
		return;
	slot->sending = false;
	done_push(ep, index, n >= 0 ? (int)n : -errno, false);
}

static void
epoll_send(struct io *io, uint32_t index, const void *data, size_t len)
{
	struct io_epoll *ep = epoll_of(io);
	struct epoll_slot *slot = &ep->slot[index];

	SHM_ASSERT(slot->fd != -1);
	SHM_ASSERT(!slot->sending);
	slot->sending = true;
	slot->send_data = data;
	slot->send_len = len;
	slot_try_send(ep, index);
}

static int
epoll_fd(const struct io *io, uint32_t index)
{
	return ((const struct io_epoll *)io)->slot[index].fd;
}

static void
epoll_shutdown_send(struct io *io, uint32_t index)
{
	shutdown(epoll_of(io)->slot[index].fd, SHUT_WR);
}

static void
epoll_close(struct io *io, uint32_t index)
{
	struct io_epoll *ep = epoll_of(io);
	struct epoll_slot *slot = &ep->slot[index];

	SHM_ASSERT(slot->fd != -1);
	close(slot->fd);
	slot->fd = -1;
	slot->receiving = slot->readable = false;
	slot->sending = slot->blocked = false;
	slot->generation++;
	done_push(ep, index, 0, true);
}

static void
epoll_poll(struct io *io, uint32_t index, int fd, uint32_t events)
{
	struct io_epoll *ep = epoll_of(io);
	struct epoll_poller *poller = &ep->poller[index];
	struct epoll_event event = {.events = events};
	int op;

	if (poller->events != 0 && poller->fd != fd) {
		epoll_ctl(ep->epoll_fd, EPOLL_CTL_DEL, poller->fd, NULL);
		poller->events = 0;
	}
	if (events == poller->events)
		return;
	op = poller->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
	if (events == 0)
		op = EPOLL_CTL_DEL;
	if (op != EPOLL_CTL_MOD)
		poller->generation++;
	event.data.u64 = tag_pack(TAG_POLLER, index, poller->generation);
	if (epoll_ctl(ep->epoll_fd, op, fd, &event) == -1)
		events = 0;
	poller->fd = fd;
	poller->events = events;
}

/* ---- what has ended */

/*
 * Read once; more than one buffer full waits for the next turn, so that one
 * loud client does not hold up the others.
 */
static int
slot_receive(struct io_epoll *ep, uint32_t index)
{
	struct epoll_slot *slot = &ep->slot[index];
	ssize_t n;

	if (!slot->receiving || !slot->readable)
		return 0;
	do
		n = recv(
		    slot->fd, ep->receive, sizeof(ep->receive), MSG_DONTWAIT);
	while (n == -1 && errno == EINTR);
	if (n == -1 && errno == EAGAIN) {
		slot->readable = false;
		return 0;
	}
	if (n <= 0) {
		slot->receiving = slot->readable = false;
		ep->io.events->received(
		    ep->io.owner, index, n == 0 ? 0 : -errno, NULL);
		return 1;
	}
	if ((size_t)n < sizeof(ep->receive) && !slot->hung_up)
		slot->readable = false;
	else
		readable_push(ep, index);
	ep->io.events->received(ep->io.owner, index, (int)n, ep->receive);
	return 1;
}

static int
slot_ready(struct io_epoll *ep, uint32_t index, uint32_t events)
{
	struct epoll_slot *slot = &ep->slot[index];

	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		slot->hung_up = true;
	if (slot->blocked && (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)))
		slot_try_send(ep, index);
	if (events & ~(uint32_t)EPOLLOUT)
		slot->readable = true;
	return slot_receive(ep, index);
}

static int
listener_ready(struct io_epoll *ep, uint32_t listener)
{
	int fd = ep->listener_fd[listener];

	if (fd == -1)
		return 0;
	fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd == -1 &&
	    (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
		return 0; /* another worker was faster: still armed */
	if (fd == -1)
		fd = -errno;
	epoll_accept_stop(&ep->io, listener);
	ep->io.events->accepted(ep->io.owner, listener, fd);
	return 1;
}

static int
event_dispatch(struct io_epoll *ep, const struct epoll_event *event)
{
	uint32_t index = (uint32_t)event->data.u64;
	uint32_t generation = (uint32_t)(event->data.u64 >> 32) & 0xffffff;

	switch ((enum tag_kind)(event->data.u64 >> 56)) {
	case TAG_SLOT:
		if ((ep->slot[index].generation & 0xffffff) != generation)
			return 0; /* late news for an old tenant */
		return slot_ready(ep, index, event->events);
	case TAG_LISTENER:
		return listener_ready(ep, index);
	case TAG_POLLER:
		if ((ep->poller[index].generation & 0xffffff) != generation ||
		    ep->poller[index].events == 0)
			return 0;
		ep->io.events->ready(ep->io.owner, index, event->events);
		return 1;
	}
	return 0;
}

/* Only what was there at the start: a callback's own sends come next turn. */
static int
done_deliver(struct io_epoll *ep)
{
	uint32_t count = ep->done_count;
	int called = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct epoll_done done = ep->done[i];

		if (done.is_close)
			ep->io.events->closed(ep->io.owner, done.slot);
		else if (ep->slot[done.slot].generation == done.generation)
			ep->io.events->sent(ep->io.owner, done.slot, done.res);
		else
			continue;
		called++;
	}
	for (uint32_t i = count; i < ep->done_count; i++)
		ep->done[i - count] = ep->done[i];
	ep->done_count -= count;
	return called;
}

static int
readable_deliver(struct io_epoll *ep)
{
	uint32_t count = ep->readable_count;
	int called = 0;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t index = ep->readable[i];

		ep->slot[index].queued = false;
		if (ep->slot[index].fd != -1)
			called += slot_receive(ep, index);
	}
	/* What was queued meanwhile stands behind the first count entries. */
	for (uint32_t i = count; i < ep->readable_count; i++)
		ep->readable[i - count] = ep->readable[i];
	ep->readable_count -= count;
	return called;
}

static int
epoll_turn(struct io *io, uint64_t wait_us)
{
	struct io_epoll *ep = epoll_of(io);
	struct epoll_event event[EVENTS_BATCH];
	int count, called = 0, wait_ms;

	wait_ms = wait_us >= WAIT_MS_MAX * 1000ull
		      ? WAIT_MS_MAX
		      : (int)((wait_us + 999) / 1000);
	if (ep->done_count > 0 || ep->readable_count > 0)
		wait_ms = 0;
	count = epoll_wait(ep->epoll_fd, event, EVENTS_BATCH, wait_ms);
	if (count == -1)
		return errno == EINTR ? 0 : -errno;
	if (io->events->woke != NULL)
		io->events->woke(io->owner);
	called += accept_failed_deliver(ep);
	called += done_deliver(ep);
	called += readable_deliver(ep);
	for (int i = 0; i < count; i++)
		called += event_dispatch(ep, &event[i]);
	return called;
}

static void
epoll_free(struct io *io)
{
	struct io_epoll *ep = epoll_of(io);

	for (uint32_t i = 0; ep->slot != NULL && i < io->slots_count; i++)
		if (ep->slot[i].fd != -1)
			close(ep->slot[i].fd);
	if (ep->epoll_fd != -1)
		close(ep->epoll_fd);
	free(ep->slot);
	free(ep->readable);
	free(ep->done);
	free(ep);
}

static const struct io_back epoll_back = {
    .backend = IO_EPOLL,
    .free = epoll_free,
    .accept = epoll_accept,
    .accept_stop = epoll_accept_stop,
    .open_slot = epoll_open_slot,
    .receive_stop = epoll_receive_stop,
    .receive_start = epoll_receive_start,
    .send = epoll_send,
    .fd = epoll_fd,
    .shutdown_send = epoll_shutdown_send,
    .close = epoll_close,
    .poll = epoll_poll,
    .turn = epoll_turn,
};

struct io *
io_epoll_open(const struct io_options *options)
{
	struct io_epoll *ep = calloc(1, sizeof(*ep));
	int saved;

	if (ep == NULL)
		return NULL;
	ep->io = (struct io){.back = &epoll_back,
	    .events = options->events,
	    .owner = options->owner,
	    .slots_count = options->slots_count};
	ep->done_max = options->slots_count * 3;
	for (uint32_t i = 0; i < IO_LISTENERS_MAX; i++)
		ep->listener_fd[i] = -1;
	ep->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	ep->slot = calloc(options->slots_count, sizeof(*ep->slot));
	/* A slot may be queued once before and once while it is delivered. */
	ep->readable = calloc(options->slots_count * 2, sizeof(*ep->readable));
	ep->done = calloc(ep->done_max, sizeof(*ep->done));
	if (ep->epoll_fd == -1 || ep->slot == NULL || ep->readable == NULL ||
	    ep->done == NULL)
		goto free_ep;
	for (uint32_t i = 0; i < options->slots_count; i++)
		ep->slot[i].fd = -1;
	return &ep->io;
free_ep:
	saved = errno;
	if (ep->slot != NULL)
		for (uint32_t i = 0; i < options->slots_count; i++)
			ep->slot[i].fd = -1;
	epoll_free(&ep->io);
	errno = saved;
	return NULL;
}
