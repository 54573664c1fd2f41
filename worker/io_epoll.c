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
 * Received bytes are gathered in one area before they are delivered, so that a
 * batch of them can be announced.  It is delivered, in the order of receiving,
 * when a count, the area or the turn is at its end, and before the callback of
 * any other kind and the next receive of a slot that is in it:
 *
 *	E1  a slot is in the batch at most once
 *	E2  what is in it is delivered also when the slot was stopped meanwhile
 *	    (io.h: some more may arrive) and dropped when it was closed, which
 *	    its generation tells
 *
 * A listener is registered level-triggered and exclusive only while an accept
 * is wanted, and is taken out by each accept: adding it again puts this process
 * at the end of the socket's wait queue, so that idle workers take turns.
 *
 * A poller that epoll refuses (ENOSPC: no watches are left for this user) is
 * looked at with poll(2) in each turn until epoll takes it.
 *
 * Nothing calls back from inside a starting function: a send that ends at once,
 * a close and a release put an entry into `done`, which io_turn() delivers.  A
 * slot has at most an entry being delivered, a new send or release and a close
 * in there, so it cannot overflow.
 */
#include "config.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "worker/io_back.h"

#define EVENTS_BATCH  256	  /* per epoll_wait */
#define RECEIVE_BYTES (64u << 10) /* at most, of one recv(2) */
/* Memory per worker for what is received; only as much of it is touched as is
 * used.  With less than RECEIVE_BYTES left the batch is delivered. */
#define AREA_BYTES	(2 * RECEIVE_BYTES)
#define AREA_ALIGN	64
#define WAIT_MS_MAX	60000
#define WAIT_MS_REFUSED 10 /* between two looks at refused pollers */

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
	bool held;    /* in the batch */
	bool sending;
	bool blocked;
	const char *send_data;
	size_t send_len;
};

struct epoll_poller {
	int fd;
	uint32_t events; /* 0: not watched */
	uint32_t generation;
	bool refused; /* epoll does not watch it: poll(2) does */
};

struct epoll_received {
	uint32_t slot;
	uint32_t generation;
	int res;
	const char *data;
};

enum done_kind {
	DONE_SENT = 0,
	DONE_CLOSED,
	DONE_RELEASED, /* res: 0 or -EAGAIN */
};

struct epoll_done {
	uint32_t slot;
	uint32_t generation; /* a close is always for its slot */
	int res;
	enum done_kind kind;
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
	int listener_fd[IO_LISTENERS_MAX]; /* -1: not armed */
	int stopped_fd[IO_LISTENERS_MAX];  /* with accept_due ECANCELED */
	int accept_due[IO_LISTENERS_MAX];  /* errno to be delivered, or 0 */
	uint32_t accept_due_count;
	struct epoll_poller poller[IO_POLLERS_MAX];
	uint32_t refused_count; /* of poller */
	struct epoll_received batch[IO_BATCH_MAX];
	uint32_t batch_count;
	uint32_t batch_max; /* 1 when nobody wants announcements */
	char *area;
	size_t area_bytes;
	size_t area_used;
};

static struct io_epoll *
epoll_of(struct io *io)
{
	return (struct io_epoll *)io;
}

static void
done_push(struct io_epoll *ep, uint32_t slot, int res, enum done_kind kind)
{
	SHM_ASSERT(ep->done_count < ep->done_max);
	ep->done[ep->done_count++] =
	    (struct epoll_done){slot, ep->slot[slot].generation, res, kind};
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
accept_due_set(struct io_epoll *ep, uint32_t listener, int error)
{
	ep->accept_due[listener] = error;
	ep->accept_due_count++;
}

static void
epoll_accept(struct io *io, uint32_t listener, int fd)
{
	struct io_epoll *ep = epoll_of(io);
	struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE,
	    .data.u64 = io_tag_pack(TAG_LISTENER, listener, 0)};

	SHM_ASSERT(ep->listener_fd[listener] == -1);
	SHM_ASSERT(ep->accept_due[listener] == 0);
	if (epoll_ctl(ep->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0)
		ep->listener_fd[listener] = fd;
	else
		accept_due_set(ep, listener, errno);
}

static void
listener_remove(struct io_epoll *ep, uint32_t listener)
{
	epoll_ctl(ep->epoll_fd, EPOLL_CTL_DEL, ep->listener_fd[listener], NULL);
	ep->listener_fd[listener] = -1;
}

static void
epoll_accept_stop(struct io *io, uint32_t listener)
{
	struct io_epoll *ep = epoll_of(io);

	if (ep->listener_fd[listener] == -1)
		return;
	ep->stopped_fd[listener] = ep->listener_fd[listener];
	listener_remove(ep, listener);
	accept_due_set(ep, listener, ECANCELED);
}

/* Listeners that could not be watched (the consumer tries again) or were
 * stopped.  An exclusive wake-up that was ours is nobody else's: so one look
 * follows a stop. */
static int
accept_due_deliver(struct io_epoll *ep)
{
	int called = 0;

	for (uint32_t i = 0; i < IO_LISTENERS_MAX && ep->accept_due_count > 0;
	     i++) {
		int error = ep->accept_due[i], fd = -error;

		if (error == 0)
			continue;
		ep->accept_due[i] = 0;
		ep->accept_due_count--;
		if (error == ECANCELED)
			fd = accept4(
			    ep->stopped_fd[i], NULL, NULL, SOCK_CLOEXEC);
		if (fd == -1)
			fd = -error;
		ep->io.events->accepted(ep->io.owner, i, fd);
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
	    .data.u64 = io_tag_pack(TAG_SLOT, index, slot->generation)};

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
	done_push(ep, index, n >= 0 ? (int)n : -errno, DONE_SENT);
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
	done_push(ep, index, 0, DONE_CLOSED);
}

/* What the kernel holds goes with the descriptor, what the batch holds does
 * not. */
static void
epoll_release(struct io *io, uint32_t index)
{
	struct io_epoll *ep = epoll_of(io);
	struct epoll_slot *slot = &ep->slot[index];

	SHM_ASSERT(slot->fd != -1);
	SHM_ASSERT(!slot->sending);
	if (slot->held) {
		done_push(ep, index, -EAGAIN, DONE_RELEASED);
		return;
	}
	epoll_ctl(ep->epoll_fd, EPOLL_CTL_DEL, slot->fd, NULL);
	slot->receiving = slot->readable = false;
	done_push(ep, index, 0, DONE_RELEASED);
}

static void
poller_watch(struct io_epoll *ep, uint32_t index, int op, uint32_t events)
{
	struct epoll_poller *poller = &ep->poller[index];
	struct epoll_event event = {.events = events,
	    .data.u64 = io_tag_pack(TAG_POLLER, index, poller->generation)};
	bool refused = epoll_ctl(ep->epoll_fd, op, poller->fd, &event) == -1;

	if (refused != poller->refused)
		ep->refused_count += refused ? 1 : UINT32_MAX;
	poller->refused = refused;
	poller->events = events;
}

static void
poller_forget(struct io_epoll *ep, uint32_t index)
{
	struct epoll_poller *poller = &ep->poller[index];

	if (poller->refused)
		ep->refused_count--;
	else
		epoll_ctl(ep->epoll_fd, EPOLL_CTL_DEL, poller->fd, NULL);
	poller->refused = false;
	poller->events = 0;
	poller->generation++;
}

static void
epoll_poll(struct io *io, uint32_t index, int fd, uint32_t events)
{
	struct io_epoll *ep = epoll_of(io);
	struct epoll_poller *poller = &ep->poller[index];

	if (poller->events != 0 && poller->fd != fd)
		poller_forget(ep, index);
	if (events == poller->events)
		return;
	if (events == 0) {
		poller_forget(ep, index);
		return;
	}
	if (poller->events == 0)
		poller->generation++;
	poller->fd = fd;
	poller_watch(ep, index,
	    poller->events == 0 || poller->refused ? EPOLL_CTL_ADD
						   : EPOLL_CTL_MOD,
	    events);
}

/* ---- what has ended */

static void
batch_announce(struct io_epoll *ep)
{
	struct io_soon soon[IO_BATCH_MAX];
	uint32_t soon_count = 0;

	for (uint32_t i = 0; i < ep->batch_count; i++)
		if (ep->batch[i].res > 0)
			soon[soon_count++] = (struct io_soon){ep->batch[i].slot,
			    (uint32_t)ep->batch[i].res, ep->batch[i].data};
	if (soon_count > 0)
		ep->io.events->soon(ep->io.owner, soon, soon_count);
}

static int
batch_deliver(struct io_epoll *ep)
{
	uint32_t count = ep->batch_count;
	int called = 0;

	if (count == 0)
		return 0;
	if (ep->io.events->soon != NULL)
		batch_announce(ep);
	for (uint32_t i = 0; i < count; i++) {
		const struct epoll_received *one = &ep->batch[i];
		struct epoll_slot *slot = &ep->slot[one->slot];

		slot->held = false;
		if (slot->generation != one->generation)
			continue;
		ep->io.events->received(
		    ep->io.owner, one->slot, one->res, one->data);
		called++;
	}
	ep->batch_count = 0;
	ep->area_used = 0;
	return called;
}

static void
batch_add(struct io_epoll *ep, uint32_t index, int res, const char *data)
{
	struct epoll_slot *slot = &ep->slot[index];

	slot->held = true;
	ep->batch[ep->batch_count++] =
	    (struct epoll_received){index, slot->generation, res, data};
	if (res > 0)
		ep->area_used +=
		    ((size_t)res + AREA_ALIGN - 1) & ~(size_t)(AREA_ALIGN - 1);
}

/*
 * Read once; more than RECEIVE_BYTES waits for the next turn, so that one loud
 * client does not hold up the others.
 */
static int
slot_receive(struct io_epoll *ep, uint32_t index)
{
	struct epoll_slot *slot = &ep->slot[index];
	char *data;
	ssize_t n;
	int called = 0;

	if (slot->held)
		called = batch_deliver(ep); /* E1 */
	if (!slot->receiving || !slot->readable)
		return called;
	data = ep->area + ep->area_used;
	do
		n = recv(slot->fd, data, RECEIVE_BYTES, MSG_DONTWAIT);
	while (n == -1 && errno == EINTR);
	if (n == -1 && errno == EAGAIN) {
		slot->readable = false;
		return called;
	}
	io_window_received(&ep->io.window, index);
	if (n <= 0)
		slot->receiving = slot->readable = false;
	else if (n < (ssize_t)RECEIVE_BYTES && !slot->hung_up)
		slot->readable = false;
	else
		readable_push(ep, index);
	batch_add(ep, index, n >= 0 ? (int)n : -errno, n > 0 ? data : NULL);
	if (ep->batch_count == ep->batch_max ||
	    ep->area_bytes - ep->area_used < RECEIVE_BYTES)
		called += batch_deliver(ep);
	return called;
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
	listener_remove(ep, listener);
	ep->io.events->accepted(ep->io.owner, listener, fd);
	return 1;
}

static int
event_dispatch(struct io_epoll *ep, const struct epoll_event *event)
{
	uint64_t tag = event->data.u64;
	uint32_t index = io_tag_index(tag);
	int called = 0;

	switch ((enum tag_kind)io_tag_kind(tag)) {
	case TAG_SLOT:
		if (!io_tag_is_of(tag, ep->slot[index].generation))
			break; /* late news for an old tenant */
		return slot_ready(ep, index, event->events);
	case TAG_LISTENER:
		called = batch_deliver(ep);
		return called + listener_ready(ep, index);
	case TAG_POLLER:
		called = batch_deliver(ep);
		if (!io_tag_is_of(tag, ep->poller[index].generation) ||
		    ep->poller[index].events == 0)
			break;
		ep->io.events->ready(ep->io.owner, index, event->events);
		return called + 1;
	}
	return called;
}

/* Pollers that epoll has refused: ask again, and look oneself until then. */
static int
refused_look(struct io_epoll *ep)
{
	int called = 0;

	for (uint32_t i = 0; i < IO_POLLERS_MAX && ep->refused_count > 0; i++) {
		struct epoll_poller *poller = &ep->poller[i];
		struct pollfd look = {.fd = poller->fd};

		if (!poller->refused)
			continue;
		poller_watch(ep, i, EPOLL_CTL_ADD, poller->events);
		look.events = (short)poller->events;
		if (!poller->refused || poll(&look, 1, 0) != 1)
			continue;
		ep->io.events->ready(
		    ep->io.owner, i, (uint32_t)(unsigned short)look.revents);
		called++;
	}
	return called;
}

static int
released_deliver(struct io_epoll *ep, const struct epoll_done *done)
{
	struct epoll_slot *slot = &ep->slot[done->slot];
	int fd = done->res;

	if (fd == 0) {
		fd = slot->fd;
		slot->fd = -1;
		slot->generation++;
	}
	ep->io.events->released(ep->io.owner, done->slot, fd);
	return 1;
}

static int
done_one(struct io_epoll *ep, const struct epoll_done *done)
{
	if (done->kind == DONE_CLOSED) {
		ep->io.events->closed(ep->io.owner, done->slot);
		return 1;
	}
	if (ep->slot[done->slot].generation != done->generation)
		return 0;
	if (done->kind == DONE_RELEASED)
		return released_deliver(ep, done);
	ep->io.events->sent(ep->io.owner, done->slot, done->res);
	return 1;
}

/* Only what was there at the start: a callback's own sends come next turn. */
static int
done_deliver(struct io_epoll *ep)
{
	uint32_t count = ep->done_count;
	int called = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct epoll_done done = ep->done[i];

		called += done_one(ep, &done);
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

/* The window: what has ended in the last turn can wait as well. */
static void
window_wait(struct io_epoll *ep, uint64_t wait_us)
{
	uint64_t pause_us = io_window_pause(&ep->io.window, shm_clock_us());
	struct timespec pause = {.tv_nsec = (long)pause_us * 1000};

	if (pause_us > 0 && pause_us <= wait_us && ep->readable_count == 0 &&
	    ep->accept_due_count == 0)
		(void)nanosleep(&pause, NULL);
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
	if (ep->refused_count > 0 && wait_ms > WAIT_MS_REFUSED)
		wait_ms = WAIT_MS_REFUSED;
	if (ep->done_count > 0 || ep->readable_count > 0 ||
	    ep->accept_due_count > 0)
		wait_ms = 0;
	if (io->window.most_us > 0)
		window_wait(ep, wait_us);
	count = epoll_wait(ep->epoll_fd, event, EVENTS_BATCH, wait_ms);
	if (count == -1)
		return errno == EINTR ? 0 : -errno;
	if (io->window.most_us > 0)
		io_window_woke(&io->window, shm_clock_us());
	if (io->events->woke != NULL)
		io->events->woke(io->owner);
	called += accept_due_deliver(ep);
	called += done_deliver(ep);
	called += readable_deliver(ep);
	for (int i = 0; i < count; i++)
		called += event_dispatch(ep, &event[i]);
	called += batch_deliver(ep);
	if (ep->refused_count > 0)
		called += refused_look(ep);
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
	free(ep->area);
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
    .release = epoll_release,
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
	ep->batch_max = options->events->soon == NULL ? 1 : IO_BATCH_MAX;
	ep->area_bytes =
	    options->events->soon == NULL ? RECEIVE_BYTES : AREA_BYTES;
	ep->area = aligned_alloc(AREA_ALIGN, ep->area_bytes);
	if (ep->epoll_fd == -1 || ep->slot == NULL || ep->readable == NULL ||
	    ep->done == NULL || ep->area == NULL)
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
