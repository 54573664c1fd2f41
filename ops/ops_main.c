/*
 * The ops process: one thread, one poll(2) over a few descriptors.
 *
 *	signalfd		TERM, QUIT and INT end the process, USR1
 *				reopens logs
 *	libpq's socket		the notification session (ops_listen.c)
 *	libmicrohttpd's epolls	the control socket, the admin listener's
 *				sockets (ops_http.c)
 *
 * Nothing in here waits for anybody; ops_listen.c names the one exception.
 * Nobody waits for this process either: when it dies, workers go on serving,
 * and administrators stay in the queues of these sockets, which the master
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

#include "ops/ops_curl.h"
#include "ops/ops_http.h"
#include "ops/ops_listen.h"
#include "ops/ops_secret.h"
#include "ops/ops_site.h"

#define POLL_MAX_MS 500 /* a sign of life to the master */
#define HTTP_MAX    (1 + OPS_ADMIN_MAX)

enum {
	POLL_SIGNALS = 0,
	POLL_LISTEN,
	POLL_SECRET,
	POLL_HTTP =
	    POLL_SECRET + OPS_SECRET_FDS, /* and one for each server more */
	POLL_COUNT = POLL_HTTP + HTTP_MAX,
};

struct ops {
	const struct ops_options *options;
	struct ops_listen *listen;
	struct ops_site *site;
	struct ops_secret *secret;
	struct ops_http *http[HTTP_MAX]; /* NULL: none */
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
	sigaddset(&set, SIGHUP);
	return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

static void
signals_read(struct ops *ops)
{
	struct signalfd_siginfo info;

	while (read(ops->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGUSR1)
			ops->options->log_reopen();
		else if (info.ssi_signo == SIGHUP)
			ops_secret_renew(ops->secret, shm_clock_us());
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
	uint64_t due_us = earlier(
	    ops_listen_due_us(ops->listen), ops_secret_due_us(ops->secret));
	uint64_t site_us = ops_site_due_us(ops->site);
	uint64_t wait_us;

	wait_us = due_us > now_us ? due_us - now_us : 0;
	wait_us = earlier(wait_us, log_us);
	wait_us = earlier(wait_us, site_us > now_us ? site_us - now_us : 0);
	for (uint32_t i = 0; i < HTTP_MAX; i++)
		if (ops->http[i] != NULL)
			wait_us =
			    earlier(wait_us, ops_http_wait_us(ops->http[i]));
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

	shm_board_set(ops->options->board->ops.heartbeat_us, now_us);
	ops_secret_tick(ops->secret, now_us);
	ops_listen_tick(ops->listen, now_us);
	ops_site_tick(ops->site, now_us);
	log_us = ops->options->log_flush(now_us);
	memset(fds, 0, sizeof(fds));
	fds[POLL_SIGNALS] =
	    (struct pollfd){.fd = ops->signal_fd, .events = POLLIN};
	fds[POLL_LISTEN].fd =
	    ops_listen_fd(ops->listen, &fds[POLL_LISTEN].events);
	ops_secret_fds(ops->secret, &fds[POLL_SECRET]);
	for (uint32_t i = 0; i < HTTP_MAX; i++)
		fds[POLL_HTTP + i] = (struct pollfd){
		    .fd = ops->http[i] == NULL ? -1 : ops_http_fd(ops->http[i]),
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
	ops_secret_run(ops->secret, &fds[POLL_SECRET], shm_clock_us());
	for (uint32_t i = 0; i < HTTP_MAX; i++)
		if (ops->http[i] != NULL)
			ops_http_run(ops->http[i]);
}

/* To hear of changes is worth more than to be asked: it is not the end. */
static struct ops_http *
serve(struct ops *ops, int fd, const char *what)
{
	struct ops_http *http = NULL;

	if (fd == -1)
		return NULL;
	http = ops_http_new(ops->options, ops->listen, ops->site, fd);
	if (http == NULL)
		ops_say(ops->options, OPS_LOG_ERROR, "control_failed",
		    "administrators cannot be served",
		    OPS_LOG_STR("socket", what),
		    OPS_LOG_STR("error", strerror(errno)));
	return http;
}

static int
run(struct ops *ops)
{
	const struct ops_options *options = ops->options;

	ops->listen = ops_listen_new(options);
	ops->secret = ops_secret_new(options);
	if (ops->listen == NULL || ops->secret == NULL) {
		ops_secret_free(&ops->secret);
		ops_listen_free(&ops->listen);
		return EX_OSERR;
	}
	ops->site = ops_site_new(options, ops->listen);
	if (ops->site == NULL) {
		ops_secret_free(&ops->secret);
		ops_listen_free(&ops->listen);
		return EX_OSERR;
	}
	ops->http[0] = serve(ops, options->control_fd, "control_socket");
	for (uint32_t i = 0; i < options->admin_count; i++)
		ops->http[1 + i] =
		    serve(ops, options->admin_fd[i], "admin_listen");
	while (!ops->is_ending)
		turn(ops);
	ops_site_end(ops->site);
	for (uint32_t i = 0; i < HTTP_MAX; i++)
		ops_http_free(&ops->http[i]);
	ops_site_free(&ops->site);
	ops_secret_free(&ops->secret);
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
	static char text[96];

	snprintf(text, sizeof(text), "libmicrohttpd %s\nlibcurl %s\n",
	    ops_http_version(), ops_curl_version());
	return text;
}
