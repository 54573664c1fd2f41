/*
 * The ops process: one thread, one poll(2) over three descriptors.
 *
 *	signalfd		TERM, QUIT and INT end the process, USR1
 *				reopens logs
 *	libpq's socket		the notification session (ops_listen.c)
 *	libmicrohttpd's epoll	the control socket (ops_http.c)
 *
 * Nothing in here waits for anybody; ops_listen.c names the one exception.
 * Nobody waits for this process either: when it dies, workers go on serving,
 * and administrators stay in the queue of the control socket, which the master
 * holds open, until the next ops takes them.
 */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <unistd.h>

#include "ops/ops_http.h"
#include "ops/ops_listen.h"

#define POLL_MAX_MS 60000

enum {
	POLL_SIGNALS = 0,
	POLL_LISTEN,
	POLL_HTTP,
	POLL_COUNT,
};

struct ops {
	const struct ops_options *options;
	struct ops_listen *listen;
	struct ops_http *http; /* NULL: no control socket */
	int signal_fd;
	bool is_ending;
};

/* ---- signals */

static int
signals_open(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGQUIT);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

static void
signals_read(struct ops *ops)
{
	struct signalfd_siginfo info;

	while (read(ops->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGUSR1)
			ops->options->log_reopen();
		else
			ops->is_ending = true;
	}
}

/* ---- the loop */

static uint64_t
earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Rounded up, so that what is due is due when poll(2) returns. */
static int
timeout_ms(const struct ops *ops, uint64_t log_us, uint64_t now_us)
{
	uint64_t due_us = ops_listen_due_us(ops->listen), wait_us;

	wait_us = due_us > now_us ? due_us - now_us : 0;
	wait_us = earlier(wait_us, log_us);
	if (ops->http != NULL)
		wait_us = earlier(wait_us, ops_http_wait_us(ops->http));
	if (wait_us > POLL_MAX_MS * 1000ULL)
		return POLL_MAX_MS;
	return (int)((wait_us + 999) / 1000);
}

static void
turn(struct ops *ops)
{
	struct pollfd fds[POLL_COUNT];
	uint64_t now_us = shm_clock_us(), log_us;
	int count;

	ops_listen_tick(ops->listen, now_us);
	log_us = ops->options->log_flush(now_us);
	memset(fds, 0, sizeof(fds));
	fds[POLL_SIGNALS] =
	    (struct pollfd){.fd = ops->signal_fd, .events = POLLIN};
	fds[POLL_LISTEN].fd =
	    ops_listen_fd(ops->listen, &fds[POLL_LISTEN].events);
	fds[POLL_HTTP] = (struct pollfd){
	    .fd = ops->http == NULL ? -1 : ops_http_fd(ops->http),
	    .events = POLLIN};
	count = poll(fds, POLL_COUNT, timeout_ms(ops, log_us, now_us));
	if (count == -1) {
		SHM_ASSERT(errno == EINTR || errno == ENOMEM);
		return;
	}
	if (fds[POLL_SIGNALS].revents != 0)
		signals_read(ops);
	if (fds[POLL_LISTEN].revents != 0)
		ops_listen_ready(ops->listen, shm_clock_us());
	if (ops->http != NULL)
		ops_http_run(ops->http);
}

static int
run(struct ops *ops)
{
	const struct ops_options *options = ops->options;

	ops->listen = ops_listen_new(options);
	if (ops->listen == NULL)
		return EX_OSERR;
	if (options->control_fd != -1) {
		ops->http = ops_http_new(options, ops->listen);
		/* To hear of changes is worth more than to be asked. */
		if (ops->http == NULL)
			ops_say(options, OPS_LOG_ERROR, "control_failed",
			    "the control socket cannot be served",
			    OPS_LOG_STR("error", strerror(errno)));
	}
	while (!ops->is_ending)
		turn(ops);
	ops_http_free(&ops->http);
	ops_listen_free(&ops->listen);
	return EX_OK;
}

int
ops_main(const struct ops_options *options)
{
	struct ops ops = {.options = options, .signal_fd = signals_open()};
	int code;

	if (ops.signal_fd == -1)
		return EX_OSERR;
	signal(SIGPIPE, SIG_IGN);
	if (options->cache != NULL)
		shm_cache_enter(options->cache, SHM_CACHE_SLOT_OTHER);
	code = run(&ops);
	close(ops.signal_fd);
	return code;
}

const char *
ops_versions(void)
{
	static char text[64];

	snprintf(text, sizeof(text), "libmicrohttpd %s\n", ops_http_version());
	return text;
}
