/*
 * Completion-driven I/O for one worker: two back ends, one behaviour.
 *
 * The consumer (worker_loop.c) starts operations on numbered slots and hears
 * of their ends in callbacks, in no order between slots.  A callback may start
 * operations on any slot; it never runs inside a function of this file other
 * than io_turn().
 *
 *	slot:     a client socket, 0 <= slot < slots_count
 *	listener: a listening socket, 0 <= listener < IO_LISTENERS_MAX
 *	poller:   any other descriptor whose readiness matters (libpq's sockets,
 *	          signalfd, eventfd), 0 <= poller < IO_POLLERS_MAX
 *
 * RULES
 *   R1  one send and one receive at most are under way on a slot.
 *   R2  what io_send() was given stays unchanged until sent() is called.
 *   R3  the bytes that received() lends are valid until it returns.
 *   R4  after io_close() only closed() comes for that slot, once, when nothing
 *       of it is under way; then the slot may be opened again.  Late
 *       completions are recognised by the slot's generation and dropped.
 *   R5  from io_release() to released() nothing is started on the slot, unless
 *       received() comes first, but it may be closed: then released() does not
 *       come.
 */
#ifndef WORKER_IO_H
#define WORKER_IO_H

#include "shm/shm_base.h"

#define IO_LISTENERS_MAX 16
#define IO_POLLERS_MAX	 1088 /* 1,024 database sockets and a few more */

enum io_backend {
	IO_AUTO = 0,
	IO_URING,
	IO_EPOLL,
};

/* io_uring features that can be missing or refused one by one. */
enum io_feature {
	IO_FEATURE_SINGLE_ISSUER = 1 << 0,
	IO_FEATURE_DEFER_TASKRUN = 1 << 1,
	IO_FEATURE_COOP_TASKRUN = 1 << 2,
	IO_FEATURE_BUFFER_RING = 1 << 3,
	IO_FEATURE_MULTISHOT_RECV = 1 << 4,
};

#define IO_BATCH_MAX 32 /* announced together; more: in the next batch */

/* Bytes that have arrived for a slot; data is what received() will lend. */
struct io_soon {
	uint32_t slot;
	uint32_t len;
	const char *data;
};

struct io_events {
	/* The wait of a turn is over, nothing was called yet: read the clock.
	 * NULL: not wanted. */
	void (*woke)(void *owner);
	/* These will be received() next, in this order, with the same data:
	 * time to fetch what they will touch.  count is 1 to IO_BATCH_MAX;
	 * nothing may be started here.  Only a hint: a slot that is closed
	 * meanwhile receives nothing, other callbacks may come in between, and
	 * io_uring without its buffer ring announces nothing.  NULL: not
	 * wanted. */
	void (*soon)(void *owner, const struct io_soon *soon, uint32_t count);
	/* A client connected: fd is the callee's, or -errno (ECANCELED: it was
	 * stopped).  The listener is no longer armed. */
	void (*accepted)(void *owner, uint32_t listener, int fd);
	/* res > 0 bytes at data, 0: the client closed its side, -errno. */
	void (*received)(void *owner, uint32_t slot, int res, const char *data);
	/* res > 0 bytes were taken (maybe fewer than given), or -errno. */
	void (*sent)(void *owner, uint32_t slot, int res);
	void (*closed)(void *owner, uint32_t slot);
	/* io_release() has ended: fd is the callee's and the slot may be opened
	 * again; or -EAGAIN: something was received() meanwhile, and the slot
	 * goes on as before. */
	void (*released)(void *owner, uint32_t slot, int fd);
	/* events: POLLIN and so on, level-triggered. */
	void (*ready)(void *owner, uint32_t poller, uint32_t events);
};

struct io_options {
	enum io_backend backend;
	uint32_t without; /* enum io_feature bits not to use (diagnosis) */
	uint32_t slots_count;
	uint32_t window_us; /* a turn may begin so long after the one before it,
			       to find more of what has come; 0: never */
	void *owner;
	const struct io_events *events;
};

struct io;

/*
 * Open a back end in the process that will use it, after it has dropped its
 * privileges.  IO_AUTO takes io_uring when a ring of the real size can be made
 * and a no-op comes back from it, else epoll.  NULL with *why (static text)
 * and errno when even the wanted one cannot be had.
 */
struct io *
io_open(const struct io_options *options, const char **why) SHM_MUSTCHECK;
void io_free(struct io **io); /* closes all it holds; NULL is fine */

enum io_backend io_backend(const struct io *io); /* never IO_AUTO */

/* The io_uring features in use, or the reason why epoll is used, as text for
 * logs and people: "io_uring (single_issuer defer_taskrun ...)". */
const char *io_describe(const struct io *io);

/* "single_issuer" and so on; NULL past the last bit. */
const char *io_feature_name(unsigned bit);

/* Wait for the next connection: one accepted() per call. */
void io_accept(struct io *io, uint32_t listener, int fd);
/* accepted() comes soon, with a client that had come already (the kernel may
 * have told nobody else about it) or -ECANCELED; only then may the listener be
 * armed again.  Nothing, when it is not armed. */
void io_accept_stop(struct io *io, uint32_t listener);

/* Take fd (closed with the slot) and begin to receive. */
void io_open_slot(struct io *io, uint32_t slot, int fd);
void io_receive_stop(struct io *io, uint32_t slot); /* some more may arrive */
void io_receive_start(struct io *io, uint32_t slot);
void io_send(struct io *io, uint32_t slot, const void *data, size_t len);
/* Bytes that were sent and that the client's side has not taken yet: when a
 * send waits, its getting less tells a slow client from a dead one. */
uint32_t io_unsent(struct io *io, uint32_t slot);
/* shutdown(2) of the sending side: the client sees the end of the answer. */
void io_shutdown_send(struct io *io, uint32_t slot);
/* Break a TCP connection: the client sees an error, not an end.  io_close()
 * is still to be called. */
void io_reset(struct io *io, uint32_t slot);
void io_close(struct io *io, uint32_t slot);
/* Give the slot's descriptor back, open and with all bytes still in it; no send
 * is under way. */
void io_release(struct io *io, uint32_t slot);

/* Watch fd for events (POLLIN, POLLOUT) until changed; 0: stop watching, to be
 * called before the fd is closed. */
void io_poll(struct io *io, uint32_t poller, int fd, uint32_t events);

/*
 * One turn: submit what was started, wait until something ends or wait_us
 * passes (0: do not wait), and call back for everything that has ended.
 * Returns the number of callbacks, or -errno when the back end broke (a bug or
 * no memory: the worker ends).
 */
int io_turn(struct io *io, uint64_t wait_us);

#endif
