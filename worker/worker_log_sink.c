/*
 * Sinks that never block and never tear.
 *
 * NEVER BLOCKS.  O_NONBLOCK belongs to an open file description, and stdout's
 * is shared with whoever started us: setting it there would make the shell, or
 * a sibling container process, lose output.  So
 *   pipe, tty   are opened anew through /proc/self/fd/N: a description of our
 *               own on the same object, with O_NONBLOCK;
 *   socket      takes MSG_DONTWAIT for each send;
 *   file        never makes a writer wait for a reader, and keeps the
 *               inherited description because its offset is shared;
 *   and where the new opening is refused (another user's pipe), a write asks
 *   for RWF_NOWAIT, or, where the kernel has none for it, poll(2) first.
 *
 * NEVER TORN.  The kernel keeps a write of at most PIPE_BUF bytes to a pipe in
 * one piece, and in non-blocking mode takes it wholly or not at all.  So each
 * write holds whole lines and at most PIPE_BUF bytes.
 *
 * INVARIANTS
 *   I1  0 <= begin <= end <= WORKER_LOG_SINK_BYTES, and data[begin, end) ends
 *       with a newline or is empty.
 *   I2  begin is at the start of a line, but for a terminal, a stream socket
 *       or a full disk that took a part of one: the rest goes first, then.
 *
 * LIMITS: 64 KiB wait here; a line that finds no room is dropped and counted,
 * the older ones stay.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "worker/worker_log_sink.h"

#define RETRY_US  10000 /* a full pipe is tried again after so long */
#define FILE_MODE 0640

_Static_assert(PIPE_BUF >= 4096, "a longest line must fit in one write");

static enum worker_log_sink_kind
sink_kind(int fd, const struct stat *st)
{
	if (S_ISSOCK(st->st_mode))
		return WORKER_LOG_SINK_SOCKET;
	if (S_ISFIFO(st->st_mode) || isatty(fd))
		return WORKER_LOG_SINK_OWN;
	return WORKER_LOG_SINK_FILE;
}

/* "/proc/self/fd/N" for the three that we are born with. */
static int
open_again(int fd)
{
	char path[] = "/proc/self/fd/N";

	path[sizeof(path) - 2] = (char)('0' + fd);
	return open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

static int
open_inherited(struct worker_log_sink *sink, int inherited)
{
	enum worker_log_sink_kind kind = WORKER_LOG_SINK_OFF;
	struct stat st;
	int fd = -1;

	/* Started without it: like off, and not an error. */
	if (fstat(inherited, &st) == -1)
		goto done;
	kind = sink_kind(inherited, &st);
	if (kind == WORKER_LOG_SINK_OWN)
		fd = open_again(inherited);
	if (fd == -1) {
		if (kind == WORKER_LOG_SINK_OWN)
			kind = WORKER_LOG_SINK_SHARED;
		/* A number of our own, whatever becomes of 1 and 2. */
		fd = fcntl(inherited, F_DUPFD_CLOEXEC, 3);
		if (fd == -1)
			return -1;
	}
done:
	worker_log_sink_close(sink);
	sink->kind = kind;
	sink->fd = fd;
	return 0;
}

static int
open_path(struct worker_log_sink *sink)
{
	struct stat st;
	int fd, saved;

	fd = open(sink->target,
	    O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
	    FILE_MODE);
	if (fd == -1)
		return -1;
	if (fstat(fd, &st) == -1)
		goto close_fd;
	/* The workers run as another user and must be able to open it again
	 * after the next rotation. */
	if (sink->owner != 0 && S_ISREG(st.st_mode) &&
	    st.st_uid != sink->owner && geteuid() == 0 &&
	    fchown(fd, sink->owner, sink->group) == -1)
		goto close_fd;
	worker_log_sink_close(sink);
	sink->kind = sink_kind(fd, &st);
	sink->fd = fd;
	return 0;
close_fd:
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

int
worker_log_sink_open(struct worker_log_sink *sink)
{
	if (strcmp(sink->target, "off") == 0) {
		worker_log_sink_close(sink);
		return 0;
	}
	if (strcmp(sink->target, "stdout") == 0)
		return open_inherited(sink, STDOUT_FILENO);
	if (strcmp(sink->target, "stderr") == 0)
		return open_inherited(sink, STDERR_FILENO);
	return open_path(sink);
}

void
worker_log_sink_close(struct worker_log_sink *sink)
{
	if (sink->kind == WORKER_LOG_SINK_OFF)
		return;
	worker_log_sink_write(sink);
	close(sink->fd);
	sink->fd = -1;
	sink->kind = WORKER_LOG_SINK_OFF;
}

void
worker_log_sink_forget(struct worker_log_sink *sink)
{
	sink->begin = 0;
	sink->end = 0;
	sink->is_full = false;
	sink->since_us = 0;
	sink->dropped = 0;
	sink->dropped_new = 0;
}

bool
worker_log_sink_is_empty(const struct worker_log_sink *sink)
{
	return sink->begin == sink->end;
}

static void
count_dropped(struct worker_log_sink *sink, uint64_t lines)
{
	sink->dropped += lines;
	sink->dropped_new += lines;
}

/* How much the next write takes: whole lines, and no more than a pipe keeps in
 * one piece. */
static size_t
next_bytes(const struct worker_log_sink *sink)
{
	const char *from = sink->data + sink->begin;
	size_t len = sink->end - sink->begin;
	const char *newline;

	if (sink->kind == WORKER_LOG_SINK_FILE || len <= PIPE_BUF)
		return len;
	newline = memrchr(from, '\n', PIPE_BUF);
	SHM_ASSERT(newline != NULL); /* I1, and lines are shorter */
	return (size_t)(newline - from) + 1;
}

/* Another process reads the description's flags too, so they stay: ask for
 * this one write not to wait. */
static ssize_t
write_shared(int fd, const char *data, size_t len)
{
	struct iovec iov = {
	    .iov_base = (void *)(uintptr_t)data, .iov_len = len};
	struct pollfd pollfd = {.fd = fd, .events = POLLOUT};
	ssize_t n;

	n = pwritev2(fd, &iov, 1, -1, RWF_NOWAIT);
	if (n != -1 || errno == EAGAIN || errno == EINTR || errno == EPIPE)
		return n;
	/* Room for one page at least is what POLLOUT means on a pipe. */
	n = poll(&pollfd, 1, 0);
	if (n == 0)
		errno = EAGAIN;
	if (n != 1)
		return -1;
	return write(fd, data, len);
}

static ssize_t
sink_put(struct worker_log_sink *sink, const char *data, size_t len)
{
	ssize_t n = -1;

	do {
		switch (sink->kind) {
		case WORKER_LOG_SINK_OFF:
			return (ssize_t)len;
		case WORKER_LOG_SINK_FILE:
		case WORKER_LOG_SINK_OWN:
			n = write(sink->fd, data, len);
			break;
		case WORKER_LOG_SINK_SHARED:
			n = write_shared(sink->fd, data, len);
			break;
		case WORKER_LOG_SINK_SOCKET:
			n = send(
			    sink->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
			break;
		}
	} while (n == -1 && errno == EINTR);
	return n;
}

/* The reader is gone or the device is broken: nothing here will be read. */
static void
sink_lose(struct worker_log_sink *sink)
{
	uint64_t lines = 0;

	for (size_t i = sink->begin; i < sink->end; i++)
		if (sink->data[i] == '\n')
			lines++;
	count_dropped(sink, lines);
	sink->begin = sink->end;
}

void
worker_log_sink_write(struct worker_log_sink *sink)
{
	ssize_t n;

	while (sink->begin < sink->end && !sink->is_full) {
		n = sink_put(sink, sink->data + sink->begin, next_bytes(sink));
		if (n >= 0)
			sink->begin += (size_t)n;
		else if (errno == EAGAIN || errno == ENOSPC ||
			 errno == EDQUOT || errno == ENOBUFS)
			sink->is_full = true; /* it may pass */
		else
			sink_lose(sink);
		SHM_ASSERT(sink->begin <= sink->end); /* I1 */
	}
	if (sink->begin == sink->end) {
		sink->begin = 0;
		sink->end = 0;
		sink->since_us = 0;
	}
}

void
worker_log_sink_add(struct worker_log_sink *sink, const char *line, size_t len)
{
	SHM_ASSERT(len > 0 && len <= PIPE_BUF && line[len - 1] == '\n');
	if (sink->kind == WORKER_LOG_SINK_OFF)
		return;
	if (len > WORKER_LOG_SINK_BYTES - sink->end) {
		worker_log_sink_write(sink);
		if (sink->begin > 0)
			memmove(sink->data, sink->data + sink->begin,
			    sink->end - sink->begin);
		sink->end -= sink->begin;
		sink->begin = 0;
	}
	if (len > WORKER_LOG_SINK_BYTES - sink->end) {
		count_dropped(sink, 1);
		return;
	}
	memcpy(sink->data + sink->end, line, len);
	sink->end += len;
}

uint64_t
worker_log_sink_flush(
    struct worker_log_sink *sink, uint64_t now_us, uint64_t delay_us)
{
	if (sink->begin == sink->end)
		return UINT64_MAX;
	if (sink->is_full) {
		if (now_us < sink->retry_us)
			return sink->retry_us - now_us;
		sink->is_full = false;
	} else if (sink->end - sink->begin < PIPE_BUF) {
		if (sink->since_us == 0)
			sink->since_us = now_us;
		if (now_us < sink->since_us + delay_us)
			return sink->since_us + delay_us - now_us;
	}
	worker_log_sink_write(sink);
	if (!sink->is_full)
		return UINT64_MAX;
	sink->retry_us = now_us + RETRY_US;
	return RETRY_US;
}

void
worker_log_sink_retry(struct worker_log_sink *sink)
{
	sink->is_full = false;
	worker_log_sink_write(sink);
}
