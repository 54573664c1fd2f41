/*
 * An HTTP/1.1 load generator.  Closed loop: every connection keeps one request
 * under way and sends the next one when the answer is whole.  Open loop, with
 * --rate=N: requests are due at random times (a Poisson process of that rate),
 * whatever becomes of the ones before; one that finds all connections busy
 * waits, and its latency counts from when it was due.
 *
 * It must cost less than what it measures, so it does the least per answer
 * that still proves an answer: the status line, the end of the head, the
 * Content-Length, and that nothing follows the body.  Requests are composed
 * before the start, one for each target; which comes next is drawn from a
 * seeded generator, so two runs ask the same questions.  With --isbns=N there
 * is one request, and its ISBN is written for each send: a hundred thousand
 * different requests that all lie in the nearest cache of this side.
 *
 * The time goes: connect, with --sweep ask each target once (to fill a cache),
 * warm up, print "measuring" on a line of its own,
 * measure, print one JSON object.  Whoever reads the server's CPU time does so
 * at these two lines.
 *
 * INVARIANTS
 *   L1  a connection has exactly one request under way, or none in the open
 *       loop: then it is in idle[].
 *   L2  a connection that breaks is opened again at once and its request is
 *       an error, never silently a retry.
 *   L3  latency is counted from the send, or from when it was due, to the last
 *       byte of the answer, in buckets whose width is at most 1/32 of their
 *       value.
 */
#include "config.h"

#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define LOAD_TARGETS_MAX 1000000
#define LOAD_BUFFER	 65536
#define LOAD_HEAD_MAX	 8192 /* a longer head is a framing error */
#define LOAD_STEPS	 32   /* histogram buckets for each power of two */
#define LOAD_BUCKETS	 (64 * LOAD_STEPS)
#define LOAD_SECOND	 1000000000U /* in nanoseconds */
#define LOAD_ISBN_FIRST	 UINT64_C(9780000000001)
#define LOAD_ISBN_DIGITS 13

enum load_error {
	LOAD_STATUS,  /* not 200 */
	LOAD_FRAMING, /* no head, no length, or bytes after the body */
	LOAD_CLOSED,  /* the server ended the connection, or it broke */
	LOAD_ERRORS,
};

static const char *const error_names[LOAD_ERRORS] = {
    "status",
    "framing",
    "closed",
};

struct load_request {
	char *bytes;
	uint32_t len;
};

struct load_conn {
	int fd;
	uint64_t sent_ns;
	uint64_t body_left; /* known once the head is whole */
	bool has_head;
	bool is_good; /* status 200 */
	uint32_t head_len;
	char *head; /* of an answer that came in pieces; else unused */
};

static struct {
	unsigned long port, connections, seed;
	double seconds, warmup;
	double rate;	     /* a second; 0: closed loop */
	unsigned long isbns; /* 0: no ISBN is written */
	bool sweep;
} options = {.connections = 64, .seed = 1, .seconds = 3, .warmup = 1};

static struct load_request *requests;
static size_t requests_count;
static char *isbn_at; /* in the one request, with --isbns */
static uint64_t sweep_next;
static bool sweeping;
static struct load_conn *conns;
static struct load_conn **idle; /* in the open loop: a stack */
static size_t idle_count;
static uint64_t due_ns; /* the next request of the open loop */
static int epoll;

/* What the measured window saw. */
static uint64_t answers_count, answer_bytes;
static uint64_t errors_count[LOAD_ERRORS];
static uint64_t latency[LOAD_BUCKETS];

static uint64_t
now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * LOAD_SECOND + (uint64_t)now.tv_nsec;
}

/* ---- latency histogram (L3) */

static unsigned
bucket_of(uint64_t ns)
{
	unsigned shift;

	if (ns < LOAD_STEPS)
		return (unsigned)ns;
	shift = 63 - (unsigned)__builtin_clzll(ns) - 5;
	return (shift + 1) * LOAD_STEPS + (unsigned)(ns >> shift) - LOAD_STEPS;
}

static uint64_t
bucket_ns(unsigned bucket)
{
	unsigned shift;

	if (bucket < LOAD_STEPS)
		return bucket;
	shift = bucket / LOAD_STEPS - 1;
	return (uint64_t)(LOAD_STEPS + bucket % LOAD_STEPS) << shift;
}

static double
quantile_us(double share)
{
	uint64_t wanted = (uint64_t)((double)answers_count * share), seen = 0;

	for (unsigned i = 0; i < LOAD_BUCKETS; i++) {
		seen += latency[i];
		if (seen > wanted)
			return (double)bucket_ns(i) / 1000;
	}
	return 0;
}

/* ---- one connection */

static uint64_t
random_next(void)
{
	static uint64_t state;

	if (state == 0)
		state = options.seed * 0x9e3779b97f4a7c15U | 1;
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* How many different requests there are. */
static uint64_t
targets_count(void)
{
	return options.isbns > 0 ? options.isbns : requests_count;
}

static const struct load_request *
request_next(void)
{
	uint64_t next = sweeping ? sweep_next++ : random_next();
	uint64_t isbn = LOAD_ISBN_FIRST + next % targets_count();

	if (options.isbns == 0)
		return &requests[next % requests_count];
	for (int i = LOAD_ISBN_DIGITS - 1; i >= 0; i--, isbn /= 10)
		isbn_at[i] = (char)('0' + isbn % 10);
	return &requests[0];
}

static void
conn_ask(struct load_conn *conn, uint64_t now)
{
	const struct load_request *request = request_next();

	conn->has_head = false;
	conn->head_len = 0;
	conn->sent_ns = now;
	/* A fresh send buffer holds a request; a short send is a break, which
	 * the receive will see. */
	(void)send(conn->fd, request->bytes, request->len, MSG_NOSIGNAL);
}

/* The connection may have a new request. */
static void
conn_next(struct load_conn *conn, uint64_t now)
{
	if (options.rate > 0 && !sweeping)
		idle[idle_count++] = conn;
	else
		conn_ask(conn, now);
}

static void
conn_open(struct load_conn *conn)
{
	struct sockaddr_in addr = {
	    .sin_family = AF_INET,
	    .sin_port = htons((uint16_t)options.port),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
	const int one = 1;

	conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (conn->fd == -1)
		err(EX_OSERR, "socket");
	if (connect(conn->fd, (struct sockaddr *)&addr, sizeof(addr)) == -1)
		err(EX_UNAVAILABLE, "connect to port %lu", options.port);
	(void)setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (fcntl(conn->fd, F_SETFL, O_NONBLOCK) == -1 ||
	    epoll_ctl(epoll, EPOLL_CTL_ADD, conn->fd, &event) == -1)
		err(EX_OSERR, "epoll_ctl");
	conn_next(conn, now_ns());
}

/* The server may end a connection that nothing was asked of. */
static bool
idle_remove(const struct load_conn *conn)
{
	for (size_t i = 0; i < idle_count; i++)
		if (idle[i] == conn) {
			idle[i] = idle[--idle_count];
			return true;
		}
	return false;
}

static void
conn_fail(struct load_conn *conn, enum load_error error)
{
	if (!idle_remove(conn))
		errors_count[error]++;
	(void)close(conn->fd);
	conn_open(conn); /* L2 */
}

/*
 * The number in Content-Length, or -1.  The first line of head is the status
 * line; every line ends with a line feed.
 */
static int64_t
head_content_length(const char *head, const char *end)
{
	static const char name[] = "content-length:";
	const char *line = head;
	int64_t length = -1;

	while ((line = memchr(line, '\n', (size_t)(end - line))) != NULL) {
		line++;
		if ((size_t)(end - line) < sizeof(name) ||
		    (*line != 'C' && *line != 'c') ||
		    strncasecmp(line, name, sizeof(name) - 1) != 0)
			continue;
		line += sizeof(name) - 1;
		while (line < end && *line == ' ')
			line++;
		for (length = 0; line < end && *line >= '0' && *line <= '9';
		     line++)
			length = length * 10 + (*line - '0');
	}
	return length;
}

/* Read the head; its length, 0 when it is not whole, or -1 for bad framing. */
static int
conn_head(struct load_conn *conn, const char *data, size_t len)
{
	static const char ok[] = "HTTP/1.1 200 ";
	const char *end = memmem(data, len, "\r\n\r\n", 4);
	int64_t length;

	if (end == NULL)
		return len < LOAD_HEAD_MAX ? 0 : -1;
	end += 4;
	length = head_content_length(data, end);
	if (length < 0 || (size_t)(end - data) < sizeof(ok) ||
	    memcmp(data, "HTTP/1.1 ", 9) != 0)
		return -1;
	conn->has_head = true;
	conn->is_good = memcmp(data, ok, sizeof(ok) - 1) == 0;
	conn->body_left = (uint64_t)length;
	return (int)(end - data);
}

/* Keep the beginning of a head until the rest of it comes. */
static bool
conn_keep(struct load_conn *conn, const char *data, size_t len)
{
	if (conn->head == NULL && (conn->head = malloc(LOAD_BUFFER)) == NULL)
		err(EX_OSERR, "malloc");
	if (conn->head_len + len > LOAD_BUFFER)
		return false;
	memcpy(conn->head + conn->head_len, data, len);
	conn->head_len += (uint32_t)len;
	return true;
}

static void
conn_answered(struct load_conn *conn)
{
	uint64_t now = now_ns();

	if (conn->is_good) {
		answers_count++;
		latency[bucket_of(now - conn->sent_ns)]++;
	} else {
		errors_count[LOAD_STATUS]++;
	}
	conn_next(conn, now);
}

static void
conn_received(struct load_conn *conn, const char *data, size_t len)
{
	int head_len;

	answer_bytes += len;
	if (!conn->has_head) {
		if (conn->head_len > 0) {
			if (!conn_keep(conn, data, len)) {
				conn_fail(conn, LOAD_FRAMING);
				return;
			}
			data = conn->head;
			len = conn->head_len;
		}
		head_len = conn_head(conn, data, len);
		if (head_len < 0 || (head_len == 0 && conn->head_len == 0 &&
					!conn_keep(conn, data, len))) {
			conn_fail(conn, LOAD_FRAMING);
			return;
		}
		if (head_len == 0)
			return;
		len -= (size_t)head_len;
	}
	if (len > conn->body_left) {
		conn_fail(conn, LOAD_FRAMING);
		return;
	}
	conn->body_left -= len;
	if (conn->body_left == 0)
		conn_answered(conn);
}

/* ---- the open loop */

static uint64_t
gap_ns(void)
{
	double share = ((double)(random_next() >> 11) + 1) * 0x1p-53;

	return (uint64_t)(-log(share) / options.rate * LOAD_SECOND);
}

/* Send what is due, as far as there are connections; how long until more is. */
static uint64_t
send_due(void)
{
	uint64_t now = now_ns();

	if (due_ns == 0)
		due_ns = now;
	while (due_ns <= now && idle_count > 0) {
		conn_ask(idle[--idle_count], due_ns);
		due_ns += gap_ns();
	}
	return due_ns > now ? due_ns - now : LOAD_SECOND / 100;
}

/* One turn of the loop. */
static void
turn(void)
{
	static char data[LOAD_BUFFER];
	struct epoll_event events[256];
	struct timespec wait = {.tv_nsec = LOAD_SECOND / 10};
	struct load_conn *conn;
	ssize_t res;
	int count;

	if (options.rate > 0 && !sweeping)
		wait.tv_nsec = (long)(send_due() % LOAD_SECOND);
	count = epoll_pwait2(epoll, events, 256, &wait, NULL);

	if (count == -1 && errno != EINTR)
		err(EX_OSERR, "epoll_wait");
	for (int i = 0; i < count; i++) {
		conn = events[i].data.ptr;
		res = recv(conn->fd, data, sizeof(data), 0);
		if (res > 0)
			conn_received(conn, data, (size_t)res);
		else if (res == 0 || errno != EAGAIN)
			conn_fail(conn, LOAD_CLOSED);
	}
}

static void
turn_until(uint64_t end_ns)
{
	while (now_ns() < end_ns)
		turn();
}

/* ---- the run */

/* Compose the request for a target; `more` holds further field lines. */
static void
request_add(const char *target, const char *more)
{
	char *bytes;
	int len;

	if (requests_count == LOAD_TARGETS_MAX)
		errx(EX_DATAERR, "more than %d targets", LOAD_TARGETS_MAX);
	len =
	    asprintf(&bytes, "GET %s HTTP/1.1\r\nHost: localhost:%lu\r\n%s\r\n",
		target, options.port, more);
	requests =
	    reallocarray(requests, requests_count + 1, sizeof(*requests));
	if (len == -1 || requests == NULL)
		err(EX_OSERR, "malloc");
	requests[requests_count++] = (struct load_request){
	    .bytes = bytes,
	    .len = (uint32_t)len,
	};
}

static void
targets_load(const char *path, const char *more)
{
	FILE *file = fopen(path, "re");
	char line[1024];

	if (file == NULL)
		err(EX_NOINPUT, "%s", path);
	while (fgets(line, sizeof(line), file) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0] != '/')
			errx(EX_DATAERR, "%s: a target begins with /", path);
		request_add(line, more);
	}
	(void)fclose(file);
	if (requests_count == 0)
		errx(EX_DATAERR, "%s: no targets", path);
}

/* One request for all books, whose ISBNs follow one another. */
static void
isbns_load(const char *more)
{
	request_add("/books/0000000000000", more);
	isbn_at = strstr(requests[0].bytes, "/books/") + strlen("/books/");
}

static void
report(double seconds)
{
	uint64_t errors = 0;

	printf("{\"requests\": %llu, \"seconds\": %.6f, \"bytes\": %llu, "
	       "\"connections\": %lu, \"latency_us\": {\"p50\": %.1f, "
	       "\"p90\": %.1f, \"p99\": %.1f}, \"errors\": {",
	    (unsigned long long)answers_count, seconds,
	    (unsigned long long)answer_bytes, options.connections,
	    quantile_us(.5), quantile_us(.9), quantile_us(.99));
	for (int i = 0; i < LOAD_ERRORS; i++) {
		errors += errors_count[i];
		printf("\"%s\": %llu, ", error_names[i],
		    (unsigned long long)errors_count[i]);
	}
	printf("\"total\": %llu}}\n", (unsigned long long)errors);
}

static void
run(void)
{
	struct rlimit files = {0};
	uint64_t begin;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	(void)prctl(PR_SET_TIMERSLACK, 1000);
	conns = calloc(options.connections, sizeof(*conns));
	idle = calloc(options.connections, sizeof(*idle));
	epoll = epoll_create1(EPOLL_CLOEXEC);
	if (conns == NULL || idle == NULL || epoll == -1)
		err(EX_OSERR, "epoll");
	sweeping = options.sweep;
	for (size_t i = 0; i < options.connections; i++)
		conn_open(&conns[i]);
	/* Once more round the connections: every target was answered. */
	while (sweeping && sweep_next < targets_count() + options.connections)
		turn();
	sweeping = false;
	turn_until(now_ns() + (uint64_t)(options.warmup * LOAD_SECOND));

	puts("measuring");
	(void)fflush(stdout);
	begin = now_ns();
	answers_count = answer_bytes = 0;
	memset(latency, 0, sizeof(latency));
	turn_until(begin + (uint64_t)(options.seconds * LOAD_SECOND));
	report((double)(now_ns() - begin) / LOAD_SECOND);
}

int
main(int argc, char **argv)
{
	static const struct option names[] = {
	    {"port", required_argument, NULL, 'p'},
	    {"connections", required_argument, NULL, 'c'},
	    {"seconds", required_argument, NULL, 's'},
	    {"rate", required_argument, NULL, 'R'},
	    {"warmup", required_argument, NULL, 'w'},
	    {"seed", required_argument, NULL, 'r'},
	    {"target", required_argument, NULL, 't'},
	    {"targets", required_argument, NULL, 'f'},
	    {"header", required_argument, NULL, 'h'},
	    {"isbns", required_argument, NULL, 'n'},
	    {"sweep", no_argument, NULL, 'S'},
	    {NULL, 0, NULL, 0},
	};
	const char *target = "/", *targets = NULL;
	static char more[4096];
	int option, len = 0;

	while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (option) {
		case 'p':
			options.port = strtoul(optarg, NULL, 10);
			break;
		case 'c':
			options.connections = strtoul(optarg, NULL, 10);
			break;
		case 's':
			options.seconds = strtod(optarg, NULL);
			break;
		case 'R':
			options.rate = strtod(optarg, NULL);
			break;
		case 'w':
			options.warmup = strtod(optarg, NULL);
			break;
		case 'r':
			options.seed = strtoul(optarg, NULL, 10);
			break;
		case 't':
			target = optarg;
			break;
		case 'f':
			targets = optarg;
			break;
		case 'n':
			options.isbns = strtoul(optarg, NULL, 10);
			break;
		case 'S':
			options.sweep = true;
			break;
		case 'h':
			len += snprintf(more + len, sizeof(more) - (size_t)len,
			    "%s\r\n", optarg);
			if (len >= (int)sizeof(more))
				errx(EX_USAGE, "--header: too many");
			break;
		default:
			return EX_USAGE;
		}
	}
	if (options.port == 0 || options.port > UINT16_MAX ||
	    options.connections == 0 || options.seconds <= 0 ||
	    options.warmup < 0 || options.rate < 0 || optind != argc)
		errx(EX_USAGE,
		    "need --port=N; also --connections=N "
		    "--seconds=S --warmup=S --rate=N --seed=N --target=PATH "
		    "--targets=FILE --header=LINE --isbns=N "
		    "--sweep");
	if (options.isbns > 0)
		isbns_load(more);
	else if (targets != NULL)
		targets_load(targets, more);
	else
		request_add(target, more);
	run();
	return errors_count[LOAD_STATUS] + errors_count[LOAD_FRAMING] +
			   errors_count[LOAD_CLOSED] ==
		       0
		   ? EX_OK
		   : EX_PROTOCOL;
}
