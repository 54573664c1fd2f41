/*
 * What a back end of io.h gives: private to io.c, io_epoll.c and io_uring.c.
 */
#ifndef WORKER_IO_BACK_H
#define WORKER_IO_BACK_H

#include "worker/io.h"
#include "worker/io_window.h"

#define IO_DESCRIPTION_MAX 160

struct io_back {
	enum io_backend backend;
	void (*free)(struct io *io);
	void (*accept)(struct io *io, uint32_t listener, int fd);
	void (*accept_stop)(struct io *io, uint32_t listener);
	void (*open_slot)(struct io *io, uint32_t slot, int fd);
	void (*receive_stop)(struct io *io, uint32_t slot);
	void (*receive_start)(struct io *io, uint32_t slot);
	void (*send)(
	    struct io *io, uint32_t slot, const void *data, size_t len);
	int (*fd)(const struct io *io, uint32_t slot);
	void (*shutdown_send)(struct io *io, uint32_t slot);
	void (*close)(struct io *io, uint32_t slot);
	void (*release)(struct io *io, uint32_t slot);
	void (*poll)(struct io *io, uint32_t poller, int fd, uint32_t events);
	int (*turn)(struct io *io, uint64_t wait_us);
};

/* The first member of each back end's own structure. */
struct io {
	const struct io_back *back;
	const struct io_events *events;
	void *owner;
	uint32_t slots_count;
	struct io_window window;
	char description[IO_DESCRIPTION_MAX];
};

/*
 * What a request under way or a watched descriptor carries through the kernel:
 * kind (of the back end) : 8, generation : 24, index : 32; never a pointer, so
 * that late news for an old tenant are recognised.
 */
#define IO_GENERATION_MASK 0xffffffu

static inline uint64_t
io_tag_pack(unsigned kind, uint32_t index, uint32_t generation)
{
	return (uint64_t)kind << 56 |
	       (uint64_t)(generation & IO_GENERATION_MASK) << 32 | index;
}

static inline unsigned
io_tag_kind(uint64_t tag)
{
	return (unsigned)(tag >> 56);
}

static inline uint32_t
io_tag_index(uint64_t tag)
{
	return (uint32_t)tag;
}

static inline bool
io_tag_is_of(uint64_t tag, uint32_t generation)
{
	return ((uint32_t)(tag >> 32) & IO_GENERATION_MASK) ==
	       (generation & IO_GENERATION_MASK);
}

/* NULL with errno; the caller says why. */
struct io *io_epoll_open(const struct io_options *options) SHM_MUSTCHECK;
struct io *io_uring_open(const struct io_options *options) SHM_MUSTCHECK;

#endif
