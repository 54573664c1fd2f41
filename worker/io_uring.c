/*
 * The io_uring back end: fastest where the kernel and its seccomp profile let
 * us have it.
 *
 * One ring.  Every request carries kind + generation + index in user_data,
 * never a pointer.  A slot counts its requests under way and its descriptor is
 * closed only when that count is zero, by close(2): a queued request names a
 * descriptor by number and must never meet the number's next owner.
 *
 * Receiving, best first, each step taken when the kernel refuses the one
 * before it:
 *	multishot   recv stays armed, the kernel picks buffers from a ring of
 *	            ours that all slots share, so idle connections own no memory
 *	one-shot    the same ring, armed again after each completion
 *	poll        a one-shot poll, then recv(2) into one buffer of the process
 *
 * Accepting is a one-shot exclusive poll and accept4(2): the listening sockets
 * are non-blocking and shared by all workers (an io_uring accept on a
 * non-blocking socket answers EAGAIN at once on some kernels), and a poll that
 * is armed anew stands at the end of the socket's wait queue, so that idle
 * workers take turns.  A multishot accept would keep the first place for ever.
 *
 * Completions are copied out of the ring in batches before any callback runs:
 * callbacks queue new requests, which may have to enter the kernel.  What a
 * batch has received is announced first: its buffers go back to the kernel only
 * after received().
 */
#include "config.h"

#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <liburing.h>

#include "worker/io_back.h"

#define SQ_ENTRIES    1024 /* more in one turn: submitted early */
#define CQ_ENTRIES    8192 /* more: the kernel keeps them aside */
#define BUFFERS_COUNT 256  /* power of two; all in use: recv is armed again */
#define BUFFER_BYTES  4096
#define BUFFER_GROUP  0
#define SCRATCH_BYTES (64u << 10) /* for the poll way of receiving */
#define RELEASED      (1u << 31)  /* in `closed`: it is a release */
#define WINDOW_COUNT  256	  /* completions that end a window early */

enum tag_kind {
	TAG_RECEIVE = 1,
	TAG_SEND,
	TAG_LISTENER,
	TAG_POLLER,
	TAG_IGNORE, /* cancels */
};

enum receive_way {
	RECEIVE_MULTISHOT = 0,
	RECEIVE_ONESHOT,
	RECEIVE_POLL,
};

struct uring_slot {
	int fd; /* -1: free */
	uint32_t generation;
	uint16_t under_way; /* requests whose completion is still to come */
	bool receive_armed;
	bool receiving; /* the consumer wants bytes */
	bool ended;	/* the last word on receiving was said */
	bool closing;
	bool sending;
	bool releasing;
	bool release_failed; /* something was received since */
	bool resumes;	     /* receiving, when that is so */
};

struct uring_poller {
	int fd;
	uint32_t events; /* 0: not watched */
	uint32_t generation;
	bool armed;
};

struct uring_listener {
	int fd; /* -1: nobody waits */
	uint32_t generation;
	bool stopping; /* the poll is being cancelled */
};

struct io_uring_back {
	struct io io;
	struct io_uring ring;
	bool has_ring;
	uint32_t features; /* enum io_feature in use */
	enum receive_way way;
	struct io_uring_buf_ring *buf_ring;
	size_t buf_ring_bytes;
	char *buffers;
	char *scratch;
	struct uring_slot *slot;
	uint32_t *closed; /* slots whose closed() is due, or released() */
	uint32_t closed_count;
	struct uring_listener listener[IO_LISTENERS_MAX];
	struct uring_poller poller[IO_POLLERS_MAX];
};

struct completion {
	uint64_t tag;
	int res;
	uint32_t flags;
};

static struct io_uring_back *
uring_of(struct io *io)
{
	return (struct io_uring_back *)io;
}

/* A submission entry; when the queue is full what is in it goes first. */
static struct io_uring_sqe *
sqe_get(struct io_uring_back *ur)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ur->ring);

	for (int tries = 0; sqe == NULL; tries++) {
		SHM_ASSERT(tries < 1000);
		io_uring_submit(&ur->ring);
		sqe = io_uring_get_sqe(&ur->ring);
	}
	return sqe;
}

static void
cancel_tag(struct io_uring_back *ur, uint64_t tag)
{
	struct io_uring_sqe *sqe = sqe_get(ur);

	io_uring_prep_cancel64(sqe, tag, 0);
	io_uring_sqe_set_data64(sqe, io_tag_pack(TAG_IGNORE, 0, 0));
}

/* ---- slots */

static void
slot_arm_receive(struct io_uring_back *ur, uint32_t index)
{
	struct uring_slot *slot = &ur->slot[index];
	struct io_uring_sqe *sqe;

	if (slot->receive_armed || !slot->receiving || slot->ended ||
	    slot->closing)
		return;
	sqe = sqe_get(ur);
	switch (ur->way) {
	case RECEIVE_MULTISHOT:
		io_uring_prep_recv_multishot(sqe, slot->fd, NULL, 0, 0);
		break;
	case RECEIVE_ONESHOT:
		io_uring_prep_recv(sqe, slot->fd, NULL, BUFFER_BYTES, 0);
		break;
	case RECEIVE_POLL:
		io_uring_prep_poll_add(sqe, slot->fd, POLLIN | POLLRDHUP);
		break;
	}
	if (ur->way != RECEIVE_POLL) {
		sqe->flags |= IOSQE_BUFFER_SELECT;
		sqe->buf_group = BUFFER_GROUP;
	}
	io_uring_sqe_set_data64(
	    sqe, io_tag_pack(TAG_RECEIVE, index, slot->generation));
	slot->receive_armed = true;
	slot->under_way++;
}

static void
slot_finish_close(struct io_uring_back *ur, uint32_t index)
{
	struct uring_slot *slot = &ur->slot[index];

	if (!slot->closing || slot->under_way > 0)
		return;
	close(slot->fd);
	slot->fd = -1;
	slot->closing = false;
	slot->generation++;
	ur->closed[ur->closed_count++] = index;
}

static void
uring_open_slot(struct io *io, uint32_t index, int fd)
{
	struct io_uring_back *ur = uring_of(io);
	struct uring_slot *slot = &ur->slot[index];

	SHM_ASSERT(slot->fd == -1);
	SHM_ASSERT(slot->under_way == 0);
	slot->fd = fd;
	slot->receiving = true;
	slot->ended = slot->closing = slot->sending = false;
	slot->releasing = false;
	slot_arm_receive(ur, index);
}

static void
uring_receive_stop(struct io *io, uint32_t index)
{
	struct io_uring_back *ur = uring_of(io);
	struct uring_slot *slot = &ur->slot[index];

	slot->resumes = false;
	if (!slot->receiving)
		return;
	slot->receiving = false;
	if (slot->receive_armed)
		cancel_tag(
		    ur, io_tag_pack(TAG_RECEIVE, index, slot->generation));
}

static void
uring_receive_start(struct io *io, uint32_t index)
{
	struct io_uring_back *ur = uring_of(io);

	SHM_ASSERT(ur->slot[index].fd != -1);
	ur->slot[index].resumes = true;
	if (ur->slot[index].releasing)
		return;
	ur->slot[index].receiving = true;
	slot_arm_receive(ur, index);
}

static void
uring_send(struct io *io, uint32_t index, const void *data, size_t len)
{
	struct io_uring_back *ur = uring_of(io);
	struct uring_slot *slot = &ur->slot[index];
	struct io_uring_sqe *sqe = sqe_get(ur);

	SHM_ASSERT(slot->fd != -1);
	SHM_ASSERT(!slot->sending);
	SHM_ASSERT(!slot->closing);
	io_uring_prep_send(sqe, slot->fd, data, len, MSG_NOSIGNAL);
	io_uring_sqe_set_data64(
	    sqe, io_tag_pack(TAG_SEND, index, slot->generation));
	slot->sending = true;
	slot->under_way++;
}

static int
uring_fd(const struct io *io, uint32_t index)
{
	return ((const struct io_uring_back *)io)->slot[index].fd;
}

static void
uring_shutdown_send(struct io *io, uint32_t index)
{
	shutdown(uring_of(io)->slot[index].fd, SHUT_WR);
}

/* shutdown(2) ends what waits on the socket, so that the count reaches zero. */
static void
uring_close(struct io *io, uint32_t index)
{
	struct io_uring_back *ur = uring_of(io);
	struct uring_slot *slot = &ur->slot[index];

	SHM_ASSERT(slot->fd != -1);
	SHM_ASSERT(!slot->closing);
	slot->closing = true;
	slot->receiving = slot->releasing = false;
	if (slot->under_way > 0)
		shutdown(slot->fd, SHUT_RDWR);
	if (slot->receive_armed)
		cancel_tag(
		    ur, io_tag_pack(TAG_RECEIVE, index, slot->generation));
	slot_finish_close(ur, index);
}

/* What is received until the cancel has come is ours; all else stays in the
 * socket. */
static void
uring_release(struct io *io, uint32_t index)
{
	struct io_uring_back *ur = uring_of(io);
	struct uring_slot *slot = &ur->slot[index];

	SHM_ASSERT(slot->fd != -1);
	SHM_ASSERT(!slot->sending && !slot->closing && !slot->releasing);
	slot->releasing = true;
	slot->release_failed = false;
	slot->resumes = slot->receiving;
	slot->receiving = false;
	if (slot->receive_armed)
		cancel_tag(
		    ur, io_tag_pack(TAG_RECEIVE, index, slot->generation));
	else
		ur->closed[ur->closed_count++] = index | RELEASED;
}

/* Nothing is received any more. */
static void
slot_release_end(struct io_uring_back *ur, uint32_t index)
{
	struct uring_slot *slot = &ur->slot[index];
	int fd = -EAGAIN;

	slot->releasing = false;
	if (slot->release_failed) {
		slot->receiving = slot->resumes;
		slot_arm_receive(ur, index);
	} else {
		SHM_ASSERT(slot->under_way == 0);
		fd = slot->fd;
		slot->fd = -1;
		slot->generation++;
	}
	ur->io.events->released(ur->io.owner, index, fd);
}

/* ---- listeners and pollers */

static void
listener_arm(struct io_uring_back *ur, uint32_t index)
{
	struct uring_listener *listener = &ur->listener[index];
	struct io_uring_sqe *sqe = sqe_get(ur);

	io_uring_prep_poll_add(sqe, listener->fd, POLLIN | EPOLLEXCLUSIVE);
	io_uring_sqe_set_data64(
	    sqe, io_tag_pack(TAG_LISTENER, index, listener->generation));
}

static void
uring_accept(struct io *io, uint32_t index, int fd)
{
	struct io_uring_back *ur = uring_of(io);

	SHM_ASSERT(ur->listener[index].fd == -1);
	ur->listener[index].fd = fd;
	ur->listener[index].stopping = false;
	listener_arm(ur, index);
}

static void
uring_accept_stop(struct io *io, uint32_t index)
{
	struct io_uring_back *ur = uring_of(io);
	struct uring_listener *listener = &ur->listener[index];

	if (listener->fd == -1 || listener->stopping)
		return;
	listener->stopping = true;
	cancel_tag(ur, io_tag_pack(TAG_LISTENER, index, listener->generation));
}

static void
poller_arm(struct io_uring_back *ur, uint32_t index)
{
	struct uring_poller *poller = &ur->poller[index];
	struct io_uring_sqe *sqe;

	if (poller->armed || poller->events == 0)
		return;
	sqe = sqe_get(ur);
	io_uring_prep_poll_add(sqe, poller->fd, poller->events);
	io_uring_sqe_set_data64(
	    sqe, io_tag_pack(TAG_POLLER, index, poller->generation));
	poller->armed = true;
}

static void
uring_poll(struct io *io, uint32_t index, int fd, uint32_t events)
{
	struct io_uring_back *ur = uring_of(io);
	struct uring_poller *poller = &ur->poller[index];

	if (poller->events == events && (events == 0 || poller->fd == fd))
		return;
	if (poller->armed) {
		cancel_tag(
		    ur, io_tag_pack(TAG_POLLER, index, poller->generation));
		poller->generation++;
		poller->armed = false;
	}
	poller->fd = fd;
	poller->events = events;
	poller_arm(ur, index);
}

/* ---- completions */

static void
buffer_give_back(struct io_uring_back *ur, unsigned id)
{
	io_uring_buf_ring_add(ur->buf_ring,
	    ur->buffers + (size_t)id * BUFFER_BYTES, BUFFER_BYTES,
	    (unsigned short)id, io_uring_buf_ring_mask(BUFFERS_COUNT), 0);
	io_uring_buf_ring_advance(ur->buf_ring, 1);
}

static const char *
buffer_of(const struct io_uring_back *ur, const struct completion *cqe)
{
	size_t id = cqe->flags >> IORING_CQE_BUFFER_SHIFT;

	return ur->buffers + id * BUFFER_BYTES;
}

/* The poll way: the readiness came, the bytes are read here. */
static int
receive_by_hand(struct io_uring_back *ur, int fd)
{
	ssize_t n;

	do
		n = recv(fd, ur->scratch, SCRATCH_BYTES, MSG_DONTWAIT);
	while (n == -1 && errno == EINTR);
	return n >= 0 ? (int)n : -errno;
}

static int
receive_done(
    struct io_uring_back *ur, uint32_t index, const struct completion *cqe)
{
	struct uring_slot *slot = &ur->slot[index];
	const char *data = ur->scratch;
	int res = cqe->res, called = 0;
	bool has_buffer = (cqe->flags & IORING_CQE_F_BUFFER) != 0;

	/* A slot outlives what it has under way. */
	SHM_ASSERT(io_tag_is_of(cqe->tag, slot->generation));
	if ((cqe->flags & IORING_CQE_F_MORE) == 0) {
		slot->receive_armed = false;
		slot->under_way--;
	}
	if (ur->way == RECEIVE_POLL && res > 0 && slot->receiving)
		res = receive_by_hand(ur, slot->fd);
	else if (ur->way == RECEIVE_POLL && res > 0)
		res = -ECANCELED; /* stopped meanwhile: the bytes can wait */
	if (has_buffer)
		data = buffer_of(ur, cqe);
	/* ENOBUFS: all buffers hold bytes of this batch; EAGAIN: another turn.
	 * ECANCELED: receiving was stopped.  None of them is the end. */
	if (!slot->closing && !slot->ended && res != -ENOBUFS &&
	    res != -ECANCELED && res != -EAGAIN && res != -EINTR) {
		io_window_received(&ur->io.window, index);
		if (res <= 0)
			slot->ended = true;
		slot->release_failed = true;
		ur->io.events->received(ur->io.owner, index, res, data);
		called = 1;
	}
	if (has_buffer)
		buffer_give_back(ur, cqe->flags >> IORING_CQE_BUFFER_SHIFT);
	if (slot->closing)
		slot_finish_close(ur, index);
	else if (slot->releasing && !slot->receive_armed)
		slot_release_end(ur, index);
	else
		slot_arm_receive(ur, index);
	return called;
}

static int
send_done(struct io_uring_back *ur, uint32_t index, int res)
{
	struct uring_slot *slot = &ur->slot[index];

	slot->under_way--;
	slot->sending = false;
	if (slot->closing) {
		slot_finish_close(ur, index);
		return 0;
	}
	ur->io.events->sent(ur->io.owner, index, res);
	return 1;
}

/* An exclusive wake-up that was ours is nobody else's: so a poll that was to be
 * cancelled is looked at like any other. */
static int
listener_done(struct io_uring_back *ur, uint32_t index, uint64_t tag)
{
	struct uring_listener *listener = &ur->listener[index];
	int fd;

	if (listener->fd == -1 || !io_tag_is_of(tag, listener->generation))
		return 0;
	fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd == -1 &&
	    (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)) {
		if (!listener->stopping) {
			listener_arm(ur, index); /* another was faster */
			return 0;
		}
		fd = -ECANCELED;
	} else if (fd == -1)
		fd = -errno;
	listener->fd = -1;
	listener->generation++;
	ur->io.events->accepted(ur->io.owner, index, fd);
	return 1;
}

static int
poller_done(struct io_uring_back *ur, uint32_t index, uint64_t tag, int res)
{
	struct uring_poller *poller = &ur->poller[index];

	if (!io_tag_is_of(tag, poller->generation))
		return 0;
	poller->armed = false;
	if (poller->events == 0)
		return 0;
	ur->io.events->ready(
	    ur->io.owner, index, res > 0 ? (uint32_t)res : POLLERR);
	poller_arm(ur, index);
	return 1;
}

static int
completion_dispatch(struct io_uring_back *ur, const struct completion *cqe)
{
	uint32_t index = io_tag_index(cqe->tag);

	switch ((enum tag_kind)io_tag_kind(cqe->tag)) {
	case TAG_RECEIVE:
		return receive_done(ur, index, cqe);
	case TAG_SEND:
		return send_done(ur, index, cqe->res);
	case TAG_LISTENER:
		return listener_done(ur, index, cqe->tag);
	case TAG_POLLER:
		return poller_done(ur, index, cqe->tag, cqe->res);
	case TAG_IGNORE:
		return 0;
	}
	return 0;
}

static int
closed_deliver(struct io_uring_back *ur)
{
	uint32_t count = ur->closed_count;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t index = ur->closed[i] & ~RELEASED;

		if ((ur->closed[i] & RELEASED) == 0)
			ur->io.events->closed(ur->io.owner, index);
		else if (ur->slot[index].releasing)
			slot_release_end(ur, index);
	}
	for (uint32_t i = count; i < ur->closed_count; i++)
		ur->closed[i - count] = ur->closed[i];
	ur->closed_count -= count;
	return (int)count;
}

static unsigned
completions_take(
    struct io_uring_back *ur, struct completion *batch, unsigned max)
{
	struct io_uring_cqe *cqe;
	unsigned head, count = 0;

	io_uring_for_each_cqe(&ur->ring, head, cqe)
	{
		if (count == max)
			break;
		batch[count++] =
		    (struct completion){cqe->user_data, cqe->res, cqe->flags};
	}
	io_uring_cq_advance(&ur->ring, count);
	return count;
}

static void
completions_announce(const struct io_uring_back *ur,
    const struct completion *batch, unsigned count)
{
	struct io_soon soon[IO_BATCH_MAX];
	const struct uring_slot *slot;
	uint32_t soon_count = 0;

	for (unsigned i = 0; i < count; i++) {
		const struct completion *cqe = &batch[i];

		if (io_tag_kind(cqe->tag) != TAG_RECEIVE || cqe->res <= 0 ||
		    (cqe->flags & IORING_CQE_F_BUFFER) == 0)
			continue;
		slot = &ur->slot[io_tag_index(cqe->tag)];
		if (slot->closing || slot->ended)
			continue;
		soon[soon_count++] = (struct io_soon){io_tag_index(cqe->tag),
		    (uint32_t)cqe->res, buffer_of(ur, cqe)};
	}
	if (soon_count > 0)
		ur->io.events->soon(ur->io.owner, soon, soon_count);
}

/* What has ended until now, in batches; what ends meanwhile is for the next
 * turn, or a flood of it would hold up timers and submissions. */
static int
completions_deliver(struct io_uring_back *ur)
{
	struct completion batch[IO_BATCH_MAX];
	unsigned left = io_uring_cq_ready(&ur->ring), count;
	int called = 0;

	while (left > 0) {
		count = completions_take(
		    ur, batch, left < IO_BATCH_MAX ? left : IO_BATCH_MAX);
		SHM_ASSERT(count > 0);
		if (ur->io.events->soon != NULL)
			completions_announce(ur, batch, count);
		for (unsigned i = 0; i < count; i++)
			called += completion_dispatch(ur, &batch[i]);
		left -= count;
	}
	return called;
}

/* Submit, and wait for so many completions. */
static int
wait_for(struct io_uring_back *ur, unsigned count, uint64_t wait_us)
{
	struct __kernel_timespec ts = {.tv_sec = (long long)(wait_us / 1000000),
	    .tv_nsec = (long long)(wait_us % 1000000) * 1000};
	struct io_uring_cqe *cqe;

	return io_uring_submit_and_wait_timeout(
	    &ur->ring, &cqe, count, wait_us == UINT64_MAX ? NULL : &ts, NULL);
}

/* The same with the window before it. */
static int
wait_in_window(struct io_uring_back *ur, uint64_t wait_us)
{
	uint64_t pause_us = 0;

	if (ur->io.window.most_us > 0)
		pause_us = io_window_pause(&ur->io.window, shm_clock_us());
	if (pause_us == 0 || pause_us > wait_us)
		return wait_for(ur, 1, wait_us);
	(void)wait_for(ur, WINDOW_COUNT, pause_us);
	if (io_uring_cq_ready(&ur->ring) > 0)
		return 0;
	return wait_for(
	    ur, 1, wait_us == UINT64_MAX ? UINT64_MAX : wait_us - pause_us);
}

static int
uring_turn(struct io *io, uint64_t wait_us)
{
	struct io_uring_back *ur = uring_of(io);
	int called, res;

	if (ur->closed_count > 0 || wait_us == 0)
		res = io_uring_submit_and_get_events(&ur->ring);
	else
		res = wait_in_window(ur, wait_us);
	if (res < 0 && res != -ETIME && res != -EINTR && res != -EAGAIN &&
	    res != -EBUSY)
		return res;
	if (io->window.most_us > 0)
		io_window_woke(&io->window, shm_clock_us());
	if (io->events->woke != NULL)
		io->events->woke(io->owner);
	called = closed_deliver(ur);
	return called + completions_deliver(ur);
}

/* ---- opening: what does this kernel let us have? */

static const struct {
	enum io_feature feature;
	unsigned flag;
} setup_flags[] = {
    {IO_FEATURE_SINGLE_ISSUER, IORING_SETUP_SINGLE_ISSUER},
    {IO_FEATURE_DEFER_TASKRUN, IORING_SETUP_DEFER_TASKRUN},
    {IO_FEATURE_COOP_TASKRUN, IORING_SETUP_COOP_TASKRUN},
};

static unsigned
flags_of(uint32_t features)
{
	unsigned flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;

	for (size_t i = 0; i < SHM_ARRAY_LEN(setup_flags); i++)
		if (features & setup_flags[i].feature)
			flags |= setup_flags[i].flag;
	return flags;
}

/*
 * Make the ring with as many set-up flags as the kernel takes: the newest is
 * given up first, and DEFER_TASKRUN is nothing without SINGLE_ISSUER.
 */
static int
ring_open(struct io_uring_back *ur, uint32_t without)
{
	static const uint32_t given_up[] = {0, IO_FEATURE_DEFER_TASKRUN,
	    IO_FEATURE_DEFER_TASKRUN | IO_FEATURE_SINGLE_ISSUER,
	    IO_FEATURE_DEFER_TASKRUN | IO_FEATURE_SINGLE_ISSUER |
		IO_FEATURE_COOP_TASKRUN};
	const uint32_t all = IO_FEATURE_SINGLE_ISSUER |
			     IO_FEATURE_DEFER_TASKRUN | IO_FEATURE_COOP_TASKRUN;
	int res = -EINVAL;

	if (without & IO_FEATURE_SINGLE_ISSUER)
		without |= IO_FEATURE_DEFER_TASKRUN;
	for (size_t i = 0; i < SHM_ARRAY_LEN(given_up) && res == -EINVAL; i++) {
		uint32_t features = all & ~without & ~given_up[i];
		struct io_uring_params params = {
		    .flags = flags_of(features), .cq_entries = CQ_ENTRIES};

		res =
		    io_uring_queue_init_params(SQ_ENTRIES, &ur->ring, &params);
		if (res == 0)
			ur->features = features;
	}
	return res;
}

/* Does a request really come back?  Set-up alone may be allowed. */
static int
ring_probe_nop(struct io_uring_back *ur)
{
	struct __kernel_timespec ts = {.tv_sec = 2};
	struct io_uring_cqe *cqe = NULL;
	int res;

	io_uring_prep_nop(sqe_get(ur));
	res = io_uring_submit_and_wait_timeout(&ur->ring, &cqe, 1, &ts, NULL);
	if (res < 0)
		return res;
	if (cqe == NULL)
		return -ETIME;
	res = cqe->res;
	io_uring_cqe_seen(&ur->ring, cqe);
	return res;
}

/* The buffers are written once here, so that serving grows nothing. */
static int
buffer_ring_open(struct io_uring_back *ur)
{
	struct io_uring_buf_reg reg = {0};
	int res;

	ur->buf_ring_bytes = BUFFERS_COUNT * sizeof(struct io_uring_buf);
	ur->buf_ring = mmap(NULL, ur->buf_ring_bytes, PROT_READ | PROT_WRITE,
	    MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
	if (ur->buf_ring == MAP_FAILED) {
		ur->buf_ring = NULL;
		return -ENOMEM;
	}
	ur->buffers = malloc((size_t)BUFFERS_COUNT * BUFFER_BYTES);
	if (ur->buffers == NULL)
		return -ENOMEM;
	memset(ur->buffers, 0, (size_t)BUFFERS_COUNT * BUFFER_BYTES);
	reg.ring_addr = (uint64_t)(uintptr_t)ur->buf_ring;
	reg.ring_entries = BUFFERS_COUNT;
	reg.bgid = BUFFER_GROUP;
	res = io_uring_register_buf_ring(&ur->ring, &reg, 0);
	if (res < 0)
		return res;
	io_uring_buf_ring_init(ur->buf_ring);
	for (unsigned i = 0; i < BUFFERS_COUNT; i++)
		buffer_give_back(ur, i);
	return 0;
}

/* One real receive on a socket pair tells whether a kernel knows multishot. */
static bool
multishot_works(struct io_uring_back *ur)
{
	struct __kernel_timespec ts = {.tv_sec = 2};
	struct io_uring_cqe *cqe = NULL;
	struct io_uring_sqe *sqe;
	bool works = false;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == -1)
		return false;
	if (write(pair[1], "x", 1) != 1)
		goto close_pair;
	sqe = sqe_get(ur);
	io_uring_prep_recv_multishot(sqe, pair[0], NULL, 0, 0);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = BUFFER_GROUP;
	if (io_uring_submit_and_wait_timeout(&ur->ring, &cqe, 1, &ts, NULL) <
		0 ||
	    cqe == NULL)
		goto close_pair;
	if (cqe->flags & IORING_CQE_F_BUFFER)
		buffer_give_back(ur, cqe->flags >> IORING_CQE_BUFFER_SHIFT);
	works = cqe->res == 1 && (cqe->flags & IORING_CQE_F_MORE) != 0;
	io_uring_cqe_seen(&ur->ring, cqe);
	/* The end of the pair ends the request: its completion is taken too. */
	shutdown(pair[1], SHUT_RDWR);
	if (works &&
	    io_uring_submit_and_wait_timeout(&ur->ring, &cqe, 1, &ts, NULL) >=
		0 &&
	    cqe != NULL) {
		if (cqe->flags & IORING_CQE_F_BUFFER)
			buffer_give_back(
			    ur, cqe->flags >> IORING_CQE_BUFFER_SHIFT);
		io_uring_cqe_seen(&ur->ring, cqe);
	}
close_pair:
	close(pair[0]);
	close(pair[1]);
	return works;
}

static void
receive_way_choose(struct io_uring_back *ur, uint32_t without)
{
	ur->way = RECEIVE_POLL;
	if ((without & IO_FEATURE_BUFFER_RING) || buffer_ring_open(ur) < 0)
		return;
	ur->features |= IO_FEATURE_BUFFER_RING;
	ur->way = RECEIVE_ONESHOT;
	if ((without & IO_FEATURE_MULTISHOT_RECV) || !multishot_works(ur))
		return;
	ur->features |= IO_FEATURE_MULTISHOT_RECV;
	ur->way = RECEIVE_MULTISHOT;
}

static void
describe(struct io_uring_back *ur)
{
	size_t len = (size_t)snprintf(
	    ur->io.description, IO_DESCRIPTION_MAX, "io_uring (");
	const char *name, *gap = "";

	for (unsigned bit = 0; (name = io_feature_name(bit)) != NULL; bit++) {
		if ((ur->features & 1u << bit) == 0)
			continue;
		len += (size_t)snprintf(ur->io.description + len,
		    IO_DESCRIPTION_MAX - len, "%s%s", gap, name);
		gap = " ";
	}
	snprintf(ur->io.description + len, IO_DESCRIPTION_MAX - len, "%s)",
	    *gap == '\0' ? "plain" : "");
}

static void
uring_free(struct io *io)
{
	struct io_uring_back *ur = uring_of(io);

	/* The ring goes first: nothing may write into what is freed next. */
	if (ur->has_ring)
		io_uring_queue_exit(&ur->ring);
	for (uint32_t i = 0; ur->slot != NULL && i < io->slots_count; i++)
		if (ur->slot[i].fd != -1)
			close(ur->slot[i].fd);
	if (ur->buf_ring != NULL)
		munmap(ur->buf_ring, ur->buf_ring_bytes);
	free(ur->buffers);
	free(ur->scratch);
	free(ur->slot);
	free(ur->closed);
	free(ur);
}

static const struct io_back uring_back = {
    .backend = IO_URING,
    .free = uring_free,
    .accept = uring_accept,
    .accept_stop = uring_accept_stop,
    .open_slot = uring_open_slot,
    .receive_stop = uring_receive_stop,
    .receive_start = uring_receive_start,
    .send = uring_send,
    .fd = uring_fd,
    .shutdown_send = uring_shutdown_send,
    .close = uring_close,
    .release = uring_release,
    .poll = uring_poll,
    .turn = uring_turn,
};

static int
uring_set_up(struct io_uring_back *ur, const struct io_options *options)
{
	int res;

	ur->slot = calloc(options->slots_count, sizeof(*ur->slot));
	ur->closed = calloc(options->slots_count * 2, sizeof(*ur->closed));
	if (ur->slot == NULL || ur->closed == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < options->slots_count; i++)
		ur->slot[i].fd = -1;
	for (uint32_t i = 0; i < IO_LISTENERS_MAX; i++)
		ur->listener[i].fd = -1;
	res = ring_open(ur, options->without);
	if (res < 0)
		return res;
	ur->has_ring = true;
	res = ring_probe_nop(ur);
	if (res < 0)
		return res;
	receive_way_choose(ur, options->without);
	if (ur->way == RECEIVE_POLL) {
		ur->scratch = malloc(SCRATCH_BYTES);
		if (ur->scratch == NULL)
			return -ENOMEM;
	}
	describe(ur);
	return 0;
}

struct io *
io_uring_open(const struct io_options *options)
{
	struct io_uring_back *ur = calloc(1, sizeof(*ur));
	int res;

	if (ur == NULL)
		return NULL;
	ur->io = (struct io){.back = &uring_back,
	    .events = options->events,
	    .owner = options->owner,
	    .slots_count = options->slots_count};
	res = uring_set_up(ur, options);
	if (res == 0)
		return &ur->io;
	uring_free(&ur->io);
	errno = -res;
	return NULL;
}
