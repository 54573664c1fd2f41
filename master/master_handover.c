#include "config.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "master/master_handover.h"

#define PASS_MAX 1024 /* more than a socket holds */

int
master_handover_open(struct master_handover *handover)
{
	int pair[2], saved;

	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
		handover->send_fd[i] = handover->receive_fd[i] = -1;
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++) {
		if (socketpair(AF_UNIX,
			SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
			pair) == -1)
			goto close_pairs;
		handover->send_fd[i] = pair[0];
		handover->receive_fd[i] = pair[1];
	}
	return 0;
close_pairs:
	saved = errno;
	master_handover_close(handover);
	errno = saved;
	return -1;
}

static void
close_one(int fd)
{
	if (fd != -1)
		close(fd);
}

void
master_handover_forget(const struct master_handover *handover)
{
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++) {
		close_one(handover->send_fd[i]);
		close_one(handover->receive_fd[i]);
	}
}

void
master_handover_close(struct master_handover *handover)
{
	master_handover_forget(handover);
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
		handover->send_fd[i] = handover->receive_fd[i] = -1;
}

void
master_handover_take(const struct master_handover *handover, uint32_t slot,
    struct worker_options *options)
{
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++) {
		options->handover_fd[i] = handover->send_fd[i];
		if (i != slot)
			close_one(handover->receive_fd[i]);
	}
	options->handover_own = handover->receive_fd[slot];
}

/* Its descriptor, or -1. */
static int
note_fd(const struct msghdr *message)
{
	const struct cmsghdr *cmsg = CMSG_FIRSTHDR(message);
	int fd;

	if (cmsg == NULL || cmsg->cmsg_level != SOL_SOCKET ||
	    cmsg->cmsg_type != SCM_RIGHTS ||
	    cmsg->cmsg_len != CMSG_LEN(sizeof(int)))
		return -1;
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	return fd;
}

void
master_handover_pass(
    const struct master_handover *handover, uint32_t from, uint32_t to)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	char note[64]; /* the workers' own business */

	for (uint32_t i = 0; i < PASS_MAX; i++) {
		struct iovec part = {note, sizeof(note)};
		struct msghdr message = {.msg_iov = &part,
		    .msg_iovlen = 1,
		    .msg_control = control.space,
		    .msg_controllen = sizeof(control.space)};
		ssize_t n;
		int fd;

		n = recvmsg(handover->receive_fd[from], &message,
		    MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (n == -1)
			return;
		fd = note_fd(&message);
		if (fd == -1)
			continue;
		part.iov_len = (size_t)n;
		/* A full queue: the client is idle, and sees an end. */
		if (to != from)
			(void)sendmsg(handover->send_fd[to], &message,
			    MSG_DONTWAIT | MSG_NOSIGNAL);
		close(fd);
	}
}
