/*
 * Goal: both back ends of io.h, and io_uring with each feature taken away,
 * behave alike and keep the rules R1 to R4 of io.h.
 * Method: every case runs once per flavour on real sockets of this process;
 * callbacks record what they heard, and the loop is turned until a condition
 * holds or 2000 turns of at most 5 ms have passed.  A flavour that the kernel
 * refuses is skipped, not passed.  This program's own epoll_ctl() stands before
 * the C library's, so that a case can have it fail.
 */
#include "config.h"

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/io.h"

#define SLOTS	  80
#define TURNS_MAX 2000
#define HEARD_MAX (4u << 20)
#define SOON_MAX  1024

struct flavour {
	const char *name;
	enum io_backend backend;
	uint32_t without;
};

static const struct flavour flavours[] = {
    {"epoll", IO_EPOLL, 0},
    {"io_uring", IO_URING, 0},
    {"io_uring one-shot", IO_URING, IO_FEATURE_MULTISHOT_RECV},
    {"io_uring poll", IO_URING, IO_FEATURE_BUFFER_RING},
    {"io_uring plain set-up", IO_URING,
	IO_FEATURE_SINGLE_ISSUER | IO_FEATURE_COOP_TASKRUN},
};

static struct {
	struct io *io;
	char *bytes; /* all that slot 0 received */
	size_t bytes_count;
	uint64_t bytes_all;  /* of all slots */
	int last_res[SLOTS]; /* of received */
	unsigned received[SLOTS];
	char last_byte[SLOTS];
	unsigned sent[SLOTS];
	int sent_res[SLOTS];
	unsigned closed[SLOTS];
	unsigned released[SLOTS];
	int released_fd[SLOTS];
	unsigned accepted;
	int accepted_fd[SLOTS];
	unsigned ready;
	uint32_t ready_events;
	bool stop_in_callback;
	bool close_in_callback;
	int drain_fd; /* read one eventfd count when ready, or -1 */
	struct io_soon soon[SOON_MAX]; /* announced and not yet received */
	uint32_t soon_next, soon_count;
	unsigned announced, announcements;
	unsigned soon_without; /* received with data that nobody announced */
	bool is_announcing;
	/* In the first received() of the next turns. */
	void (*first)(uint32_t slot);
} heard;

static int epoll_refuses; /* errno of EPOLL_CTL_ADD, or 0 */

int
epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	if (epoll_refuses != 0 && op == EPOLL_CTL_ADD) {
		errno = epoll_refuses;
		return -1;
	}
	return (int)syscall(SYS_epoll_ctl, epfd, op, fd, event);
}

static void
on_accepted(void *owner, uint32_t listener, int fd)
{
	assert_ptr_equal(owner, &heard);
	assert_int_equal(listener, 0);
	heard.accepted_fd[heard.accepted++ % SLOTS] = fd;
}

static void
on_soon(void *owner, const struct io_soon *soon, uint32_t count)
{
	assert_ptr_equal(owner, &heard);
	assert_in_range(count, 1, IO_BATCH_MAX);
	heard.announcements++;
	heard.announced += count;
	heard.soon_next = 0;
	heard.soon_count = count;
	memcpy(heard.soon, soon, count * sizeof(*soon));
	for (uint32_t i = 0; i < count; i++) {
		assert_true(soon[i].slot < SLOTS);
		assert_true(soon[i].len > 0);
		assert_int_equal(heard.closed[soon[i].slot], 0);
	}
}

/* What was announced and not received before this one was of closed slots. */
static void
announced_is_received(uint32_t slot, int res, const char *data)
{
	while (heard.soon_next < heard.soon_count) {
		const struct io_soon *soon = &heard.soon[heard.soon_next++];

		if (soon->slot == slot && soon->data == data &&
		    soon->len == (uint32_t)res)
			return;
	}
	heard.soon_without++;
}

static void
on_received(void *owner, uint32_t slot, int res, const char *data)
{
	void (*first)(uint32_t slot) = heard.first;

	(void)owner;
	assert_int_equal(heard.closed[slot], 0);
	if (res > 0 && heard.is_announcing)
		announced_is_received(slot, res, data);
	heard.received[slot]++;
	heard.last_res[slot] = res;
	if (res > 0)
		heard.last_byte[slot] = data[res - 1];
	heard.bytes_all += res > 0 ? (uint64_t)res : 0;
	if (res > 0 && slot == 0) {
		assert_true(heard.bytes_count + (size_t)res <= HEARD_MAX);
		memcpy(heard.bytes + heard.bytes_count, data, (size_t)res);
		heard.bytes_count += (size_t)res;
	}
	heard.first = NULL;
	if (first != NULL)
		first(slot);
	if (heard.stop_in_callback)
		io_receive_stop(heard.io, slot);
	if (heard.close_in_callback)
		io_close(heard.io, slot);
}

static void
on_sent(void *owner, uint32_t slot, int res)
{
	(void)owner;
	assert_int_equal(heard.closed[slot], 0);
	heard.sent[slot]++;
	heard.sent_res[slot] = res;
}

static void
on_closed(void *owner, uint32_t slot)
{
	(void)owner;
	heard.closed[slot]++;
}

static void
on_released(void *owner, uint32_t slot, int fd)
{
	(void)owner;
	assert_int_equal(heard.closed[slot], 0);
	heard.released[slot]++;
	heard.released_fd[slot] = fd;
}

static void
on_ready(void *owner, uint32_t poller, uint32_t events)
{
	uint64_t count;

	(void)owner;
	assert_int_equal(poller, 3);
	heard.ready++;
	heard.ready_events = events;
	if (heard.drain_fd != -1)
		assert_int_equal(read(heard.drain_fd, &count, 8), 8);
}

static const struct io_events events_announced = {
    .soon = on_soon,
    .accepted = on_accepted,
    .received = on_received,
    .sent = on_sent,
    .closed = on_closed,
    .released = on_released,
    .ready = on_ready,
};

static const struct io_events events = {
    .accepted = on_accepted,
    .received = on_received,
    .sent = on_sent,
    .closed = on_closed,
    .released = on_released,
    .ready = on_ready,
};

/* Turn the loop until cond holds. */
#define UNTIL(cond)                                                     \
	do {                                                            \
		for (int turn = 0; turn < TURNS_MAX && !(cond); turn++) \
			assert_true(io_turn(heard.io, 5000) >= 0);      \
		assert_true(cond);                                      \
	} while (0)

static void
turns(int count)
{
	while (count-- > 0)
		assert_true(io_turn(heard.io, 1000) >= 0);
}

static void
io_begin_with(const struct flavour *flavour, const struct io_events *wanted)
{
	struct io_options options = {.backend = flavour->backend,
	    .without = flavour->without,
	    .slots_count = SLOTS,
	    .owner = &heard,
	    .events = wanted};
	char *bytes = heard.bytes;
	const char *why;

	memset(&heard, 0, sizeof(heard));
	heard.bytes = bytes;
	heard.drain_fd = -1;
	heard.is_announcing = wanted->soon != NULL;
	heard.io = io_open(&options, &why);
	if (heard.io == NULL && flavour->backend == IO_URING)
		skip();
	assert_non_null(heard.io);
}

static void
io_begin(const struct flavour *flavour)
{
	io_begin_with(flavour, &events);
}

/* io_uring without its buffer ring announces nothing. */
static void
io_begin_announced(const struct flavour *flavour)
{
	if (flavour->without & IO_FEATURE_BUFFER_RING)
		skip();
	io_begin_with(flavour, &events_announced);
}

static void
io_end(void)
{
	io_free(&heard.io);
}

/* A connected pair: [0] is the server's side, in a slot. */
static void
pair_open(int pair[2], uint32_t slot)
{
	assert_int_equal(
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	io_open_slot(heard.io, slot, pair[0]);
}

static int
listener_open(struct sockaddr_in *addr)
{
	socklen_t len = sizeof(*addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	*addr = (struct sockaddr_in){
	    .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)addr, len), 0);
	assert_int_equal(listen(fd, 16), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)addr, &len), 0);
	return fd;
}

static int
dial(const struct sockaddr_in *addr)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(
	    connect(fd, (const struct sockaddr *)addr, sizeof(*addr)), 0);
	return fd;
}

/* ---- cases */

static void
bytes_arrive_in_order_and_the_end_is_told_once(void **state)
{
	char big[100000];
	size_t left = 30;
	int pair[2];

	io_begin(*state);
	pair_open(pair, 0);
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 31 >> 3);
	fcntl(pair[1], F_SETFL, O_NONBLOCK);
	while (left > 0) {
		size_t want = (30 - left + 1) * sizeof(big), off = 0;

		while (off < sizeof(big)) {
			ssize_t n =
			    write(pair[1], big + off, sizeof(big) - off);

			if (n > 0)
				off += (size_t)n;
			assert_true(io_turn(heard.io, 0) >= 0);
		}
		UNTIL(heard.bytes_count == want);
		left--;
	}
	for (size_t i = 0; i < heard.bytes_count; i++)
		assert_int_equal(heard.bytes[i], big[i % sizeof(big)]);
	close(pair[1]);
	UNTIL(heard.last_res[0] == 0);
	left = heard.received[0];
	turns(3);
	assert_int_equal(heard.received[0], left);
	io_close(heard.io, 0);
	UNTIL(heard.closed[0] == 1);
	io_end();
}

static void
a_send_is_reported_once_and_a_full_socket_waits(void **state)
{
	static char big[8u << 20];
	static char sink[64u << 10];
	size_t off = 0, got = 0;
	int pair[2];

	io_begin(*state);
	pair_open(pair, 0);
	memset(big, 'x', sizeof(big));
	while (off < sizeof(big)) {
		unsigned before = heard.sent[0];

		io_send(heard.io, 0, big + off, sizeof(big) - off);
		for (int i = 0; i < TURNS_MAX && heard.sent[0] == before; i++) {
			ssize_t n =
			    recv(pair[1], sink, sizeof(sink), MSG_DONTWAIT);

			if (n > 0)
				got += (size_t)n;
			assert_true(io_turn(heard.io, 1000) >= 0);
		}
		assert_int_equal(heard.sent[0], before + 1);
		assert_true(heard.sent_res[0] > 0);
		off += (size_t)heard.sent_res[0];
	}
	while (got < sizeof(big)) {
		ssize_t n = recv(pair[1], sink, sizeof(sink), 0);

		assert_true(n > 0);
		got += (size_t)n;
	}
	close(pair[1]);
	io_end();
}

static void
a_send_to_a_closed_peer_is_an_error_not_a_signal(void **state)
{
	int pair[2];

	io_begin(*state);
	pair_open(pair, 0);
	close(pair[1]);
	UNTIL(heard.received[0] > 0);
	io_send(heard.io, 0, "late", 4);
	UNTIL(heard.sent[0] == 1);
	assert_true(
	    heard.sent_res[0] == -EPIPE || heard.sent_res[0] == -ECONNRESET);
	io_end();
}

static void
a_stopped_slot_holds_the_client_back_until_it_is_started(void **state)
{
	int pair[2];
	size_t before;

	io_begin(*state);
	pair_open(pair, 0);
	heard.stop_in_callback = true;
	assert_int_equal(write(pair[1], "one", 3), 3);
	UNTIL(heard.bytes_count == 3);
	turns(3);
	before = heard.bytes_count;
	assert_int_equal(write(pair[1], "two", 3), 3);
	turns(5);
	assert_int_equal(heard.bytes_count, before);
	heard.stop_in_callback = false;
	io_receive_start(heard.io, 0);
	UNTIL(heard.bytes_count == 6);
	assert_memory_equal(heard.bytes, "onetwo", 6);
	assert_int_equal(write(pair[1], "three", 5), 5);
	UNTIL(heard.bytes_count == 11);
	close(pair[1]);
	io_end();
}

static void
stopping_and_starting_in_one_turn_loses_nothing(void **state)
{
	int pair[2];

	io_begin(*state);
	pair_open(pair, 0);
	turns(1);
	for (int i = 1; i <= 50; i++) {
		io_receive_stop(heard.io, 0);
		io_receive_start(heard.io, 0);
		assert_int_equal(write(pair[1], "x", 1), 1);
		UNTIL(heard.bytes_count == (size_t)i);
	}
	close(pair[1]);
	io_end();
}

static void
a_slot_closed_with_work_under_way_is_closed_once_and_reusable(void **state)
{
	static char big[8u << 20];
	int pair[2];

	io_begin(*state);
	for (int round = 0; round < 200; round++) {
		memset(heard.closed, 0, sizeof(heard.closed));
		pair_open(pair, 0);
		if (round % 3 == 0)
			turns(1);
		if (round % 2 == 0)
			io_send(heard.io, 0, big, sizeof(big));
		assert_int_equal(write(pair[1], "late", 4), 4);
		io_close(heard.io, 0);
		UNTIL(heard.closed[0] == 1);
		turns(1);
		assert_int_equal(heard.closed[0], 1);
		assert_int_equal(fcntl(pair[0], F_GETFD), -1);
		close(pair[1]);
	}
	io_end();
}

static void
closing_inside_received_drops_what_was_queued(void **state)
{
	int pair[2], other[2];

	io_begin(*state);
	heard.close_in_callback = true;
	pair_open(pair, 0);
	pair_open(other, 1);
	assert_int_equal(write(pair[1], "a", 1), 1);
	assert_int_equal(write(other[1], "b", 1), 1);
	UNTIL(heard.closed[0] == 1 && heard.closed[1] == 1);
	assert_int_equal(heard.received[0], 1);
	assert_int_equal(heard.received[1], 1);
	close(pair[1]);
	close(other[1]);
	io_end();
}

static void
the_end_of_our_side_is_seen_and_the_other_side_goes_on(void **state)
{
	int pair[2];
	char byte;

	io_begin(*state);
	pair_open(pair, 0);
	io_shutdown_send(heard.io, 0);
	assert_int_equal(read(pair[1], &byte, 1), 0);
	assert_int_equal(write(pair[1], "still", 5), 5);
	UNTIL(heard.bytes_count == 5);
	close(pair[1]);
	io_end();
}

static void
one_accept_takes_one_connection(void **state)
{
	struct sockaddr_in addr;
	int fd, client[3];

	io_begin(*state);
	fd = listener_open(&addr);
	io_accept(heard.io, 0, fd);
	for (int i = 0; i < 3; i++)
		client[i] = dial(&addr);
	UNTIL(heard.accepted == 1);
	turns(3);
	assert_int_equal(heard.accepted, 1);
	assert_true(heard.accepted_fd[0] >= 0);
	assert_int_equal(fcntl(heard.accepted_fd[0], F_GETFD), FD_CLOEXEC);
	io_accept(heard.io, 0, fd);
	UNTIL(heard.accepted == 2);
	io_accept(heard.io, 0, fd);
	UNTIL(heard.accepted == 3);
	io_accept(heard.io, 0, fd);
	io_accept_stop(heard.io, 0);
	close(dial(&addr));
	UNTIL(heard.accepted == 4);
	if (heard.accepted_fd[3] >= 0)
		close(heard.accepted_fd[3]);
	else
		assert_int_equal(heard.accepted_fd[3], -ECANCELED);
	close(dial(&addr));
	turns(5);
	assert_int_equal(heard.accepted, 4);
	for (int i = 0; i < 3; i++) {
		close(heard.accepted_fd[i]);
		close(client[i]);
	}
	close(fd);
	io_end();
}

static void
a_stopped_accept_takes_the_client_that_came_before(void **state)
{
	struct sockaddr_in addr;
	int fd, client;

	io_begin(*state);
	fd = listener_open(&addr);
	for (unsigned i = 0; i < 20; i++) {
		io_accept(heard.io, 0, fd);
		turns(1);
		client = dial(&addr);
		io_accept_stop(heard.io, 0);
		io_accept_stop(heard.io, 0); /* changes nothing */
		UNTIL(heard.accepted == i + 1);
		assert_true(heard.accepted_fd[i] >= 0);
		close(heard.accepted_fd[i]);
		close(client);
	}
	io_accept_stop(heard.io, 0); /* not armed */
	turns(3);
	assert_int_equal(heard.accepted, 20);
	close(fd);
	io_end();
}

static void
a_watched_descriptor_is_level_triggered_until_it_is_not_wanted(void **state)
{
	unsigned before;
	int fd;

	io_begin(*state);
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	io_poll(heard.io, 3, fd, POLLIN);
	turns(2);
	assert_int_equal(heard.ready, 0);
	assert_int_equal(eventfd_write(fd, 1), 0);
	UNTIL(heard.ready >= 3); /* nobody reads: it comes again */
	assert_true(heard.ready_events & POLLIN);
	heard.drain_fd = fd;
	UNTIL(heard.ready >= 4);
	turns(2);
	before = heard.ready;
	turns(3);
	assert_int_equal(heard.ready, before);
	heard.drain_fd = -1;
	io_poll(heard.io, 3, fd, POLLIN | POLLOUT);
	UNTIL(heard.ready > before);
	assert_true(heard.ready_events & POLLOUT);
	io_poll(heard.io, 3, fd, 0);
	turns(2);
	before = heard.ready;
	assert_int_equal(eventfd_write(fd, 1), 0);
	turns(3);
	assert_int_equal(heard.ready, before);
	close(fd);
	io_end();
}

static void
a_watch_moves_to_another_descriptor(void **state)
{
	int first, second;

	io_begin(*state);
	first = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	second = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	io_poll(heard.io, 3, first, POLLIN);
	UNTIL(heard.ready > 0);
	io_poll(heard.io, 3, second, POLLIN);
	turns(2);
	heard.ready = 0;
	turns(3);
	assert_int_equal(heard.ready, 0);
	assert_int_equal(eventfd_write(second, 1), 0);
	UNTIL(heard.ready > 0);
	io_poll(heard.io, 3, second, 0);
	close(first);
	close(second);
	io_end();
}

static void
a_descriptor_that_epoll_refuses_is_watched_all_the_same(void **state)
{
	const struct flavour *flavour = *state;
	unsigned before;
	int fd;

	if (flavour->backend != IO_EPOLL)
		skip();
	io_begin(flavour);
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	epoll_refuses = ENOSPC;
	io_poll(heard.io, 3, fd, POLLIN);
	turns(3);
	assert_int_equal(heard.ready, 0);
	assert_int_equal(eventfd_write(fd, 1), 0);
	UNTIL(heard.ready >= 2);
	assert_int_equal(heard.ready_events, POLLIN);
	io_poll(heard.io, 3, fd, POLLOUT);
	UNTIL(heard.ready_events == POLLOUT);
	epoll_refuses = 0; /* and when there is room again */
	turns(2);
	epoll_refuses = ENOSPC;
	io_poll(heard.io, 3, fd, POLLIN);
	UNTIL(heard.ready_events == POLLIN);
	io_poll(heard.io, 3, fd, 0);
	turns(2);
	before = heard.ready;
	turns(3);
	assert_int_equal(heard.ready, before);
	epoll_refuses = 0;
	close(fd);
	io_end();
}

/* ---- announcements */

static int pairs[SLOTS][2];

/* A byte is on its way to each slot of [0, count) before the loop turns. */
static void
pairs_open(uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		pair_open(pairs[i], i);
	turns(1);
	for (uint32_t i = 0; i < count; i++) {
		char byte = (char)('!' + i);

		assert_int_equal(write(pairs[i][1], &byte, 1), 1);
	}
}

static void
pairs_close(uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		close(pairs[i][1]);
}

static unsigned
received_count(uint32_t from, uint32_t to)
{
	unsigned count = 0;

	for (uint32_t i = from; i < to; i++)
		count += heard.received[i];
	return count;
}

static void
bytes_are_announced_before_they_are_received(void **state)
{
	char big[100000];
	size_t off = 0;
	int pair[2];

	io_begin_announced(*state);
	pair_open(pair, 0);
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 31 >> 3);
	fcntl(pair[1], F_SETFL, O_NONBLOCK);
	while (off < sizeof(big)) {
		ssize_t n = write(pair[1], big + off, sizeof(big) - off);

		if (n > 0)
			off += (size_t)n;
		assert_true(io_turn(heard.io, 0) >= 0);
	}
	UNTIL(heard.bytes_count == sizeof(big));
	assert_memory_equal(heard.bytes, big, sizeof(big));
	assert_int_equal(heard.announced, heard.received[0]);
	assert_int_equal(heard.soon_without, 0);
	close(pair[1]);
	UNTIL(heard.last_res[0] == 0); /* an end is no bytes */
	assert_int_equal(heard.announced + 1, heard.received[0]);
	io_end();
}

static void
more_slots_than_a_batch_holds_are_announced_in_batches(void **state)
{
	io_begin_announced(*state);
	pairs_open(SLOTS);
	UNTIL(received_count(0, SLOTS) == SLOTS);
	assert_int_equal(heard.announced, SLOTS);
	assert_true(heard.announcements < SLOTS / 4); /* together, mostly */
	assert_int_equal(heard.soon_without, 0);
	for (uint32_t i = 0; i < SLOTS; i++) {
		assert_int_equal(heard.received[i], 1);
		assert_int_equal(heard.last_byte[i], '!' + i);
	}
	pairs_close(SLOTS);
	io_end();
}

static void
a_slot_that_is_closing_is_not_announced(void **state)
{
	io_begin_announced(*state);
	pairs_open(2);
	io_close(heard.io, 1);
	UNTIL(heard.received[0] == 1 && heard.closed[1] == 1);
	assert_int_equal(heard.announced, 1);
	assert_int_equal(heard.received[1], 0);
	pairs_close(2);
	io_end();
}

static void
close_the_others(uint32_t slot)
{
	for (uint32_t i = 0; i < 8; i++)
		if (i != slot)
			io_close(heard.io, i);
}

static void
a_slot_closed_by_another_of_its_batch_receives_nothing(void **state)
{
	io_begin_announced(*state);
	pairs_open(8);
	heard.first = close_the_others;
	UNTIL(heard.closed[1] + heard.closed[0] > 0);
	turns(3);
	assert_true(heard.announced > 1); /* or nothing was shown here */
	assert_int_equal(received_count(0, 8), 1);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(heard.closed[i], heard.received[i] == 0);
	pairs_close(8);
	io_end();
}

static void
stop_the_others(uint32_t slot)
{
	for (uint32_t i = 0; i < 8; i++)
		if (i != slot)
			io_receive_stop(heard.io, i);
}

static void
a_slot_stopped_by_another_of_its_batch_loses_nothing(void **state)
{
	io_begin_announced(*state);
	pairs_open(8);
	heard.first = stop_the_others;
	UNTIL(received_count(0, 8) > 0);
	assert_true(heard.announced > 1);
	turns(3);
	for (uint32_t i = 0; i < 8; i++)
		assert_in_range(heard.received[i], 0, 1);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(write(pairs[i][1], "y", 1), 1);
	turns(3);
	for (uint32_t i = 0; i < 8; i++)
		io_receive_start(heard.io, i);
	UNTIL(received_count(1, 8) >= 14 && heard.bytes_count == 2);
	assert_memory_equal(heard.bytes, "!y", 2);
	assert_int_equal(received_count(0, 8), 16);
	pairs_close(8);
	io_end();
}

static void
an_end_and_bytes_of_one_batch_come_each_to_its_slot(void **state)
{
	io_begin_announced(*state);
	for (uint32_t i = 0; i < 8; i++)
		pair_open(pairs[i], i);
	turns(1);
	for (uint32_t i = 0; i < 8; i++) {
		if (i % 2 == 0)
			assert_int_equal(write(pairs[i][1], "x", 1), 1);
		else
			close(pairs[i][1]);
	}
	UNTIL(received_count(0, 8) == 8);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(heard.last_res[i], i % 2 == 0);
	assert_int_equal(heard.announced, 4);
	for (uint32_t i = 0; i < 8; i += 2)
		close(pairs[i][1]);
	io_end();
}

static void
a_slow_turn_full_of_large_receives_loses_nothing(void **state)
{
	static char big[48u << 10];
	uint64_t want = 8 * sizeof(big);

	io_begin_announced(*state);
	for (uint32_t i = 0; i < 8; i++)
		pair_open(pairs[i], i);
	turns(1);
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 31 >> 3);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(
		    write(pairs[i][1], big, sizeof(big)), sizeof(big));
	UNTIL(heard.bytes_all == want);
	assert_int_equal(heard.bytes_count, sizeof(big));
	assert_memory_equal(heard.bytes, big, sizeof(big));
	assert_int_equal(heard.soon_without, 0);
	pairs_close(8);
	io_end();
}

/* Whether a byte comes before, while or after it is released: it is received
 * here, or by whoever has the descriptor then. */
static void
a_released_slot_gives_its_descriptor_back_with_all_bytes(void **state)
{
	unsigned given = 0;
	size_t before;
	int pair[2];

	io_begin(*state);
	for (unsigned i = 0; i < 200; i++) {
		heard.bytes_count = 0;
		pair_open(pair, 0);
		turns(i % 3 == 0);
		if (i % 4 == 1)
			assert_int_equal(write(pair[1], "x", 1), 1);
		if (i % 8 == 1)
			turns(1);
		before = heard.bytes_count;
		io_release(heard.io, 0);
		if (i % 4 == 2)
			assert_int_equal(write(pair[1], "x", 1), 1);
		UNTIL(heard.released[0] == i + 1);
		if (i % 4 == 3)
			assert_int_equal(write(pair[1], "x", 1), 1);
		if (heard.released_fd[0] == pair[0]) {
			given++;
			assert_int_equal(heard.bytes_count, before);
			turns(1);
			io_open_slot(heard.io, 0, pair[0]);
		} else {
			assert_int_equal(heard.released_fd[0], -EAGAIN);
		}
		if (i % 4 != 0)
			UNTIL(heard.bytes_count == 1);
		io_send(heard.io, 0, "y", 1);
		UNTIL(heard.sent[0] == i + 1);
		close(pair[1]);
		io_close(heard.io, 0);
		UNTIL(heard.closed[0] == 1);
		heard.closed[0] = 0;
	}
	assert_true(given >= 100); /* those without bytes before, at least */
	io_end();
}

static void
a_slot_closed_while_it_is_released_is_closed_once(void **state)
{
	int pair[2];

	io_begin(*state);
	for (int i = 0; i < 20; i++) {
		heard.closed[0] = 0;
		pair_open(pair, 0);
		turns(i % 2);
		io_release(heard.io, 0);
		io_close(heard.io, 0);
		UNTIL(heard.closed[0] == 1);
		turns(2);
		assert_int_equal(heard.closed[0], 1);
		assert_int_equal(heard.released[0], 0);
		assert_int_equal(fcntl(pair[0], F_GETFD), -1);
		close(pair[1]);
	}
	io_end();
}

static void
release_the_others(uint32_t slot)
{
	for (uint32_t i = 0; i < 8; i++)
		if (i != slot)
			io_release(heard.io, i);
}

static void
a_slot_of_a_batch_that_is_released_loses_nothing(void **state)
{
	io_begin_announced(*state);
	pairs_open(8);
	heard.first = release_the_others;
	UNTIL(received_count(0, 8) > 0);
	for (uint32_t i = 0; i < 8; i++)
		UNTIL(heard.released[i] == 1 || heard.received[i] == 1);
	turns(3);
	for (uint32_t i = 0; i < 8; i++)
		if (heard.released[i] == 1 && heard.released_fd[i] >= 0)
			io_open_slot(heard.io, i, pairs[i][0]);
	UNTIL(received_count(0, 8) == 8);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(heard.last_byte[i], '!' + i);
	pairs_close(8);
	io_end();
}

static void
the_description_names_what_is_in_use(void **state)
{
	const struct flavour *flavour = *state;
	const char *text;

	io_begin(flavour);
	text = io_describe(heard.io);
	assert_int_equal(io_backend(heard.io), flavour->backend);
	if (flavour->backend == IO_EPOLL)
		assert_string_equal(text, "epoll");
	for (unsigned bit = 0; io_feature_name(bit) != NULL; bit++)
		if (flavour->without & 1u << bit)
			assert_null(strstr(text, io_feature_name(bit)));
	io_end();
}

static int
bytes_new(void **state)
{
	(void)state;
	heard.bytes = malloc(HEARD_MAX);
	return heard.bytes == NULL ? -1 : 0;
}

static int
bytes_free(void **state)
{
	(void)state;
	free(heard.bytes);
	return 0;
}

static const struct {
	const char *name;
	CMUnitTestFunction run;
} cases[] = {
#define CASE(name)          \
	{                   \
#name, name \
	}
    CASE(bytes_arrive_in_order_and_the_end_is_told_once),
    CASE(a_send_is_reported_once_and_a_full_socket_waits),
    CASE(a_send_to_a_closed_peer_is_an_error_not_a_signal),
    CASE(a_stopped_slot_holds_the_client_back_until_it_is_started),
    CASE(stopping_and_starting_in_one_turn_loses_nothing),
    CASE(a_slot_closed_with_work_under_way_is_closed_once_and_reusable),
    CASE(closing_inside_received_drops_what_was_queued),
    CASE(the_end_of_our_side_is_seen_and_the_other_side_goes_on),
    CASE(one_accept_takes_one_connection),
    CASE(a_released_slot_gives_its_descriptor_back_with_all_bytes),
    CASE(a_slot_closed_while_it_is_released_is_closed_once),
    CASE(a_slot_of_a_batch_that_is_released_loses_nothing),
    CASE(a_stopped_accept_takes_the_client_that_came_before),
    CASE(a_watched_descriptor_is_level_triggered_until_it_is_not_wanted),
    CASE(a_watch_moves_to_another_descriptor),
    CASE(a_descriptor_that_epoll_refuses_is_watched_all_the_same),
    CASE(bytes_are_announced_before_they_are_received),
    CASE(more_slots_than_a_batch_holds_are_announced_in_batches),
    CASE(a_slot_that_is_closing_is_not_announced),
    CASE(a_slot_closed_by_another_of_its_batch_receives_nothing),
    CASE(a_slot_stopped_by_another_of_its_batch_loses_nothing),
    CASE(an_end_and_bytes_of_one_batch_come_each_to_its_slot),
    CASE(a_slow_turn_full_of_large_receives_loses_nothing),
    CASE(the_description_names_what_is_in_use),
};

int
main(void)
{
	static struct CMUnitTest
	    tests[SHM_ARRAY_LEN(cases) * SHM_ARRAY_LEN(flavours)];
	static char names[SHM_ARRAY_LEN(tests)][128];
	size_t count = 0;

	for (size_t f = 0; f < SHM_ARRAY_LEN(flavours); f++)
		for (size_t c = 0; c < SHM_ARRAY_LEN(cases); c++) {
			snprintf(names[count], sizeof(names[count]), "%s: %s",
			    flavours[f].name, cases[c].name);
			tests[count] = (struct CMUnitTest){.name = names[count],
			    .test_func = cases[c].run,
			    .initial_state = (void *)(uintptr_t)&flavours[f]};
			count++;
		}
	return cmocka_run_group_tests(tests, bytes_new, bytes_free);
}
