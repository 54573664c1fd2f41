/*
 * Listening sockets by sock_diag(7): ops has none of its own, and must not, or
 * a drain would leave a queue that nobody empties.  Only sockets in the state
 * LISTEN are asked for, so the answer is short however many connections there
 * are.
 *
 * A socket that listens on one of our ports at another address counts as ours.
 */
#include "config.h"

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ops/ops_queue.h"

#define PORTS_MAX    16
#define STATE_LISTEN 10 /* TCP_LISTEN of the kernel */
#define NETSTAT	     "/proc/net/netstat"

struct ports {
	uint32_t count;
	uint16_t port[PORTS_MAX];
};

static void
ports_read(struct ports *ports, const char *addresses)
{
	ports->count = 0;
	while (*addresses != '\0' && ports->count < PORTS_MAX) {
		size_t len = strcspn(addresses, " ");
		const char *colon = memrchr(addresses, ':', len);

		if (colon != NULL && strncmp(addresses, "unix:", 5) != 0)
			ports->port[ports->count++] =
			    (uint16_t)strtoul(colon + 1, NULL, 10);
		addresses += len;
		addresses += strspn(addresses, " ");
	}
}

static bool
is_ours(const struct ports *ports, uint16_t port)
{
	for (uint32_t i = 0; i < ports->count; i++)
		if (ports->port[i] == port)
			return true;
	return false;
}

/* ---- sock_diag */

static bool
diag_ask(int fd, uint8_t family)
{
	const struct {
		struct nlmsghdr header;
		struct inet_diag_req_v2 request;
	} message = {
	    .header =
		{
		    .nlmsg_len = sizeof(message),
		    .nlmsg_type = SOCK_DIAG_BY_FAMILY,
		    .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
		},
	    .request =
		{
		    .sdiag_family = family,
		    .sdiag_protocol = IPPROTO_TCP,
		    .idiag_states = 1u << STATE_LISTEN,
		},
	};

	return send(fd, &message, sizeof(message), 0) ==
	       (ssize_t)sizeof(message);
}

/* Of one message; false: it was the last. */
static bool
diag_take(const struct nlmsghdr *header, const struct ports *ports,
    struct ops_queue *queue)
{
	const struct inet_diag_msg *socket_ = NLMSG_DATA(header);

	if (header->nlmsg_type == NLMSG_DONE) {
		queue->is_known = true;
		return false;
	}
	if (header->nlmsg_type != SOCK_DIAG_BY_FAMILY ||
	    header->nlmsg_len < NLMSG_LENGTH(sizeof(*socket_)))
		return false;
	if (is_ours(ports, ntohs(socket_->id.idiag_sport))) {
		queue->waiting += socket_->idiag_rqueue;
		queue->limit += socket_->idiag_wqueue;
	}
	return true;
}

static void
diag_read(int fd, const struct ports *ports, struct ops_queue *queue)
{
	_Alignas(struct nlmsghdr) char buffer[8192];

	queue->is_known = false;
	for (;;) {
		ssize_t got = recv(fd, buffer, sizeof(buffer), 0);
		const struct nlmsghdr *header = (const void *)buffer;
		size_t left = got > 0 ? (size_t)got : 0;

		if (got <= 0)
			return;
		for (; NLMSG_OK(header, left);
		     header = NLMSG_NEXT(header, left))
			if (!diag_take(header, ports, queue))
				return;
	}
}

/* The kernel makes an answer while it is read: nothing is waited for.  The
 * time limit is for kernels that are imitated. */
static void
diag(struct ops_queue *queue, const struct ports *ports)
{
	static const uint8_t families[] = {AF_INET, AF_INET6};
	const struct timeval limit = {.tv_usec = 50000};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

	if (fd == -1)
		return;
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	for (size_t i = 0; i < SHM_ARRAY_LEN(families); i++) {
		if (!diag_ask(fd, families[i]))
			break;
		diag_read(fd, ports, queue);
		if (!queue->is_known)
			break;
	}
	close(fd);
}

/* ---- overflows */

/* The number below name in two lines of names and numbers. */
static uint64_t
netstat(const char *name)
{
	char names[8192], numbers[8192];
	FILE *file = fopen(NETSTAT, "re");
	uint64_t found = 0;

	if (file == NULL)
		return 0;
	while (fgets(names, sizeof(names), file) != NULL &&
	       fgets(numbers, sizeof(numbers), file) != NULL) {
		char *rest[2] = {names, numbers};
		char *word, *number;

		if (strncmp(names, "TcpExt:", 7) != 0)
			continue;
		while ((word = strsep(&rest[0], " \n")) != NULL &&
		       (number = strsep(&rest[1], " \n")) != NULL)
			if (strcmp(word, name) == 0)
				found = strtoull(number, NULL, 10);
	}
	fclose(file);
	return found;
}

void
ops_queue_look(struct ops_queue *queue, const char *addresses)
{
	struct ports ports;

	*queue = (struct ops_queue){.is_known = false};
	ports_read(&ports, addresses);
	diag(queue, &ports);
	queue->overflows = netstat("ListenOverflows");
}
