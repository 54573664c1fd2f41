/*
 * The floor: the least that a server on this kernel can pay for a request.
 *
 * It parses nothing.  It counts the ends of request heads and owes the same
 * bytes for each, so pipelined and split heads get the right number of
 * answers and the generator cannot tell it from a server.  What booksd costs
 * above this program is what booksd does; what this program costs is the
 * kernel's TCP path.
 *
 *	--io=uring  multishot accept and receive, a buffer ring, plain sends,
 *	            one submission a turn; SINGLE_ISSUER, COOP_TASKRUN and
 *	            DEFER_TASKRUN
 *	--io=epoll  edge-triggered, read until empty
 *
 * INVARIANTS
 *   N1  `owed` counts the bytes of whole answers not yet taken by the kernel;
 *       `at` is where in an answer the next byte lies.
 *   N2  an io_uring connection is closed only when its receive has ended and
 *       no send is under way, so no completion can reach a later tenant of the
 *       same descriptor.
 *
 * There is no limit on connections but NULL_FDS, and no timeout: the bench
 * harness is the only client.
 */
#include "config.h"

#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include <liburing.h>

#define NULL_FDS	16384 /* a higher descriptor is closed unanswered */
#define NULL_ANSWER_MAX 65536
#define NULL_COPIES	64 /* answers that one send can carry */
#define NULL_BUFFERS	1024
#define NULL_BUFFER	2048
#define NULL_RING	4096
#define NULL_GROUP	0

enum null_kind {
	NULL_ACCEPT,
	NULL_RECV,
	NULL_SEND,
};

struct null_conn {
	uint64_t line; /* bytes since the last line feed */
	uint64_t owed; /* N1 */
	size_t at;     /* N1 */
	bool is_sending;
	bool is_over; /* nothing more will be received */
};

static const char null_default[] = "HTTP/1.1 200 OK\r\n"
				   "Server: null\r\n"
				   "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
				   "Content-Type: text/plain; charset=UTF-8\r\n"
				   "Content-Length: 38\r\n"
				   "\r\n"
				   "Welcome to the AWSome Books catalogue!";

static struct null_conn conns[NULL_FDS];
static char *answers; /* NULL_COPIES of the answer, end to end */
static size_t answer_len;

/*
 * Count the heads that end in data.  A head ends with an empty line, that is
 * a line feed one byte (the carriage return) after another.
 */
static unsigned
heads_count(struct null_conn *conn, const char *data, size_t len)
{
	const char *end = data + len, *next;
	unsigned count = 0;

	while ((next = memchr(data, '\n', (size_t)(end - data))) != NULL) {
		if (conn->line + (uint64_t)(next - data) == 1)
			count++;
		conn->line = 0;
		data = next + 1;
	}
	conn->line += (uint64_t)(end - data);
	return count;
}

static size_t
send_len(const struct null_conn *conn)
{
	size_t room = answer_len * NULL_COPIES - conn->at;

	return conn->owed < room ? (size_t)conn->owed : room;
}

static void
sent(struct null_conn *conn, size_t len)
{
	conn->owed -= len;
	conn->at = (conn->at + len) % answer_len;
}

static void
conn_open(int fd)
{
	const int one = 1;

	conns[fd] = (struct null_conn){0};
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

/* ---- io_uring */

static struct io_uring ring;
static struct io_uring_buf_ring *buffers;
static char buffer_bytes[NULL_BUFFERS][NULL_BUFFER];

static struct io_uring_sqe *
sqe_get(enum null_kind kind, int fd)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

	if (sqe == NULL) {
		(void)io_uring_submit(&ring);
		sqe = io_uring_get_sqe(&ring);
		if (sqe == NULL)
			errx(EX_SOFTWARE, "the submission queue stays full");
	}
	sqe->user_data = (uint64_t)kind << 32 | (uint32_t)fd;
	return sqe;
}

/* Preparing clears user_data, so it is set again after each. */
static void
uring_accept(int fd)
{
	struct io_uring_sqe *sqe = sqe_get(NULL_ACCEPT, fd);
	uint64_t tag = sqe->user_data;

	io_uring_prep_multishot_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC);
	sqe->user_data = tag;
}

static void
uring_recv(int fd)
{
	struct io_uring_sqe *sqe = sqe_get(NULL_RECV, fd);
	uint64_t tag = sqe->user_data;

	io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = NULL_GROUP;
	sqe->user_data = tag;
}

static void
uring_send(int fd)
{
	struct null_conn *conn = &conns[fd];
	struct io_uring_sqe *sqe;
	uint64_t tag;

	if (conn->is_sending || conn->owed == 0)
		return;
	sqe = sqe_get(NULL_SEND, fd);
	tag = sqe->user_data;
	io_uring_prep_send(
	    sqe, fd, answers + conn->at, send_len(conn), MSG_NOSIGNAL);
	sqe->user_data = tag;
	conn->is_sending = true;
}

static void
uring_close_if_over(int fd)
{
	if (conns[fd].is_over && !conns[fd].is_sending) /* N2 */
		(void)close(fd);
}

static void
uring_accepted(int listener, const struct io_uring_cqe *cqe)
{
	if (cqe->res >= NULL_FDS) {
		(void)close(cqe->res);
	} else if (cqe->res >= 0) {
		conn_open(cqe->res);
		uring_recv(cqe->res);
	}
	if (!(cqe->flags & IORING_CQE_F_MORE))
		uring_accept(listener);
}

static void
uring_received(int fd, const struct io_uring_cqe *cqe)
{
	struct null_conn *conn = &conns[fd];
	unsigned id = cqe->flags >> IORING_CQE_BUFFER_SHIFT;

	if (cqe->flags & IORING_CQE_F_BUFFER) {
		if (cqe->res > 0)
			conn->owed += (uint64_t)answer_len *
				      heads_count(conn, buffer_bytes[id],
					  (size_t)cqe->res);
		io_uring_buf_ring_add(buffers, buffer_bytes[id], NULL_BUFFER,
		    (uint16_t)id, NULL_BUFFERS - 1, 0);
		io_uring_buf_ring_advance(buffers, 1);
	}
	uring_send(fd);
	if (cqe->flags & IORING_CQE_F_MORE)
		return;
	if (cqe->res > 0 || cqe->res == -ENOBUFS) {
		uring_recv(fd);
		return;
	}
	conn->is_over = true;
	uring_close_if_over(fd);
}

static void
uring_sent(int fd, int res)
{
	struct null_conn *conn = &conns[fd];

	conn->is_sending = false;
	if (res < 0)
		conn->owed = 0; /* the receive ends too and closes */
	else
		sent(conn, (size_t)res);
	uring_send(fd);
	uring_close_if_over(fd);
}

static void
uring_open(void)
{
	struct io_uring_params params = {
	    .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN |
		     IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
	    .cq_entries = 4 * NULL_RING,
	};
	struct io_uring_buf_reg reg = {
	    .ring_entries = NULL_BUFFERS,
	    .bgid = NULL_GROUP,
	};
	int rc;

	rc = io_uring_queue_init_params(NULL_RING, &ring, &params);
	if (rc < 0)
		errx(EX_UNAVAILABLE, "io_uring: %s", strerror(-rc));
	buffers = mmap(NULL, NULL_BUFFERS * sizeof(struct io_uring_buf),
	    PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buffers == MAP_FAILED)
		err(EX_OSERR, "mmap");
	reg.ring_addr = (uint64_t)(uintptr_t)buffers;
	rc = io_uring_register_buf_ring(&ring, &reg, 0);
	if (rc < 0)
		errx(EX_UNAVAILABLE, "buffer ring: %s", strerror(-rc));
	io_uring_buf_ring_init(buffers);
	for (unsigned id = 0; id < NULL_BUFFERS; id++)
		io_uring_buf_ring_add(buffers, buffer_bytes[id], NULL_BUFFER,
		    (uint16_t)id, NULL_BUFFERS - 1, (int)id);
	io_uring_buf_ring_advance(buffers, NULL_BUFFERS);
}

static void
uring_run(int listener)
{
	struct io_uring_cqe *cqe;
	unsigned head, count;
	int rc, fd;

	uring_open();
	uring_accept(listener);
	for (;;) {
		rc = io_uring_submit_and_wait(&ring, 1);
		if (rc < 0 && rc != -EINTR)
			errx(EX_OSERR, "io_uring_enter: %s", strerror(-rc));
		count = 0;
		io_uring_for_each_cqe(&ring, head, cqe)
		{
			fd = (int)(uint32_t)cqe->user_data;
			switch ((enum null_kind)(cqe->user_data >> 32)) {
			case NULL_ACCEPT:
				uring_accepted(fd, cqe);
				break;
			case NULL_RECV:
				uring_received(fd, cqe);
				break;
			case NULL_SEND:
				uring_sent(fd, cqe->res);
				break;
			}
			count++;
		}
		io_uring_cq_advance(&ring, count);
	}
}

/* ---- epoll */

static void
epoll_accept(int epoll, int listener)
{
	struct epoll_event event = {
	    .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
	};
	int fd;

	while ((fd = accept4(listener, NULL, NULL,
		    SOCK_NONBLOCK | SOCK_CLOEXEC)) != -1) {
		if (fd >= NULL_FDS) {
			(void)close(fd);
			continue;
		}
		conn_open(fd);
		event.data.fd = fd;
		if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == -1)
			err(EX_OSERR, "epoll_ctl");
	}
}

/* Send what is owed; false when the connection is broken. */
static bool
epoll_send(int fd)
{
	struct null_conn *conn = &conns[fd];
	ssize_t res;

	while (conn->owed > 0) {
		res =
		    send(fd, answers + conn->at, send_len(conn), MSG_NOSIGNAL);
		if (res == -1)
			return errno == EAGAIN;
		sent(conn, (size_t)res);
	}
	return true;
}

/*
 * A read that does not fill the buffer has emptied the socket, and a later
 * arrival is a new edge: no second recv to hear EAGAIN.  The end of the stream
 * announces itself as EPOLLRDHUP, and then reading goes on until it is seen.
 */
static void
epoll_serve(int fd, uint32_t events)
{
	static char data[NULL_BUFFER * 8];
	struct null_conn *conn = &conns[fd];
	ssize_t res;

	do {
		res = recv(fd, data, sizeof(data), 0);
		if (res == 0 || (res == -1 && errno != EAGAIN))
			conn->is_over = true;
		if (res > 0)
			conn->owed += (uint64_t)answer_len *
				      heads_count(conn, data, (size_t)res);
	} while (res == (ssize_t)sizeof(data) ||
		 (res > 0 && (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))));
	if (!epoll_send(fd) || (conn->is_over && conn->owed == 0))
		(void)close(fd);
}

static void
epoll_run(int listener)
{
	struct epoll_event events[256], event = {.events = EPOLLIN};
	int epoll = epoll_create1(EPOLL_CLOEXEC), count;

	event.data.fd = listener;
	if (epoll == -1 ||
	    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) == -1)
		err(EX_OSERR, "epoll");
	for (;;) {
		count = epoll_wait(epoll, events, 256, -1);
		if (count == -1 && errno != EINTR)
			err(EX_OSERR, "epoll_wait");
		for (int i = 0; i < count; i++) {
			if (events[i].data.fd == listener)
				epoll_accept(epoll, listener);
			else
				epoll_serve(
				    events[i].data.fd, events[i].events);
		}
	}
}

/* ---- both */

static int
listen_on(uint16_t port, int flags)
{
	struct sockaddr_in addr = {
	    .sin_family = AF_INET,
	    .sin_port = htons(port),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	const int one = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

	if (fd == -1)
		err(EX_OSERR, "socket");
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == -1 ||
	    listen(fd, 4096) == -1)
		err(EX_UNAVAILABLE, "port %u", port);
	return fd;
}

static void
answer_load(const char *path)
{
	static char bytes[NULL_ANSWER_MAX];
	FILE *file;

	if (path == NULL) {
		answer_len = sizeof(null_default) - 1;
		memcpy(bytes, null_default, answer_len);
	} else {
		if ((file = fopen(path, "re")) == NULL)
			err(EX_NOINPUT, "%s", path);
		answer_len = fread(bytes, 1, sizeof(bytes), file);
		(void)fclose(file);
		if (answer_len == 0 || answer_len == sizeof(bytes))
			errx(EX_DATAERR, "%s: need 1 to %d bytes", path,
			    NULL_ANSWER_MAX - 1);
	}
	if ((answers = malloc(answer_len * NULL_COPIES)) == NULL)
		err(EX_OSERR, "malloc");
	for (size_t i = 0; i < NULL_COPIES; i++)
		memcpy(answers + i * answer_len, bytes, answer_len);
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
	    {"io", required_argument, NULL, 'i'},
	    {"port", required_argument, NULL, 'p'},
	    {"bytes", required_argument, NULL, 'b'},
	    {NULL, 0, NULL, 0},
	};
	const char *io = "", *bytes = NULL;
	unsigned long port = 0;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'i':
			io = optarg;
			break;
		case 'p':
			port = strtoul(optarg, NULL, 10);
			break;
		case 'b':
			bytes = optarg;
			break;
		default:
			return EX_USAGE;
		}
	}
	if (port == 0 || port > UINT16_MAX || optind != argc)
		errx(EX_USAGE, "need --io=uring|epoll --port=1..65535 "
			       "[--bytes=FILE]");
	(void)signal(SIGPIPE, SIG_IGN);
	answer_load(bytes);
	if (strcmp(io, "uring") == 0)
		uring_run(listen_on((uint16_t)port, 0));
	else if (strcmp(io, "epoll") == 0)
		epoll_run(listen_on((uint16_t)port, SOCK_NONBLOCK));
	errx(EX_USAGE, "--io=%s: need uring or epoll", io);
}
