/*
 * Choosing a back end, and the doors that lead to it.
 *
 * Containers refuse io_uring in many ways (EPERM from a seccomp profile or
 * from kernel.io_uring_disabled, ENOSYS from a kernel without it, ENOMEM from
 * a memlock limit): no list of them is complete, so any errno means epoll.
 */
#include "config.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "worker/io_back.h"

static const char *const feature_names[] = {
    "single_issuer",
    "defer_taskrun",
    "coop_taskrun",
    "buffer_ring",
    "multishot_recv",
};

const char *
io_feature_name(unsigned bit)
{
	return bit < SHM_ARRAY_LEN(feature_names) ? feature_names[bit] : NULL;
}

#define SLACK_NS 1000 /* a sleep lasts about as long as it was asked to */

static struct io *
io_ready(struct io *io, const struct io_options *options)
{
	io->window.most_us = options->window_us;
	io->window.begun_us = io->window.woke_us = shm_clock_us();
	if (options->window_us > 0)
		(void)prctl(PR_SET_TIMERSLACK, SLACK_NS);
	return io;
}

struct io *
io_open(const struct io_options *options, const char **why)
{
	struct io *io = NULL;
	int uring_errno = 0;

	SHM_ASSERT(options->slots_count > 0);
	SHM_ASSERT(options->slots_count < 1u << 24);
	*why = NULL;
	if (options->backend != IO_EPOLL) {
		io = io_uring_open(options);
		if (io != NULL)
			return io_ready(io, options);
		uring_errno = errno;
		if (options->backend == IO_URING) {
			*why = "the kernel refused io_uring";
			return NULL;
		}
	}
	io = io_epoll_open(options);
	if (io == NULL) {
		*why = "epoll_create1 or memory failed";
		return NULL;
	}
	if (uring_errno != 0)
		snprintf(io->description, sizeof(io->description),
		    "epoll (io_uring refused: %s)", strerror(uring_errno));
	else
		snprintf(io->description, sizeof(io->description), "epoll");
	return io_ready(io, options);
}

void
io_free(struct io **io)
{
	if (*io == NULL)
		return;
	(*io)->back->free(*io);
	*io = NULL;
}

enum io_backend
io_backend(const struct io *io)
{
	return io->back->backend;
}

const char *
io_describe(const struct io *io)
{
	return io->description;
}

void
io_accept(struct io *io, uint32_t listener, int fd)
{
	SHM_ASSERT(listener < IO_LISTENERS_MAX);
	io->back->accept(io, listener, fd);
}

void
io_accept_stop(struct io *io, uint32_t listener)
{
	SHM_ASSERT(listener < IO_LISTENERS_MAX);
	io->back->accept_stop(io, listener);
}

void
io_open_slot(struct io *io, uint32_t slot, int fd)
{
	SHM_ASSERT(slot < io->slots_count);
	SHM_ASSERT(fd >= 0);
	io->back->open_slot(io, slot, fd);
}

void
io_receive_stop(struct io *io, uint32_t slot)
{
	SHM_ASSERT(slot < io->slots_count);
	io->back->receive_stop(io, slot);
}

void
io_receive_start(struct io *io, uint32_t slot)
{
	SHM_ASSERT(slot < io->slots_count);
	io->back->receive_start(io, slot);
}

void
io_send(struct io *io, uint32_t slot, const void *data, size_t len)
{
	SHM_ASSERT(slot < io->slots_count);
	SHM_ASSERT(len > 0);
	io->back->send(io, slot, data, len);
}

uint32_t
io_unsent(struct io *io, uint32_t slot)
{
	int bytes = 0;

	SHM_ASSERT(slot < io->slots_count);
	if (ioctl(io->back->fd(io, slot), SIOCOUTQ, &bytes) == -1 || bytes < 0)
		return 0;
	return (uint32_t)bytes;
}

void
io_shutdown_send(struct io *io, uint32_t slot)
{
	SHM_ASSERT(slot < io->slots_count);
	io->back->shutdown_send(io, slot);
}

void
io_reset(struct io *io, uint32_t slot)
{
	const struct sockaddr nobody = {.sa_family = AF_UNSPEC};

	SHM_ASSERT(slot < io->slots_count);
	/* Dissolving the association sends RST at once (connect(2)). */
	(void)connect(io->back->fd(io, slot), &nobody, sizeof(nobody));
}

void
io_close(struct io *io, uint32_t slot)
{
	SHM_ASSERT(slot < io->slots_count);
	io->back->close(io, slot);
}

void
io_release(struct io *io, uint32_t slot)
{
	SHM_ASSERT(slot < io->slots_count);
	SHM_ASSERT(io->events->released != NULL);
	io->back->release(io, slot);
}

void
io_poll(struct io *io, uint32_t poller, int fd, uint32_t events)
{
	SHM_ASSERT(poller < IO_POLLERS_MAX);
	io->back->poll(io, poller, fd, events);
}

int
io_turn(struct io *io, uint64_t wait_us)
{
	return io->back->turn(io, wait_us);
}
