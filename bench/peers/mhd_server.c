/*
 * A peer: libmicrohttpd in its strict mode with a constant answer.
 *
 * booksd has an HTTP engine of its own on its public listener; this program is
 * here so that the decision can be judged again with every new version of the
 * library.  It is given its best: one thread, epoll, an answer made once, no
 * limits that would close connections.  The waiting is done here: when the
 * library waits by itself (in its own thread or in MHD_run_wait) and a multiple
 * of 128 sockets is ready, it asks for more without having served them and
 * stalls.
 *
 * The library composes the head.  The harness picks --type so that the whole
 * answer has as many bytes as the other servers' answers.
 */
#include "config.h"

#include <err.h>
#include <getopt.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include <microhttpd.h>

#define MHD_CONNECTIONS_MAX 4096 /* more are not accepted */
#define MHD_WAIT_MS_MAX	    1000

static enum MHD_Result
answer(void *response, struct MHD_Connection *connection, const char *url,
    const char *method, const char *version, const char *upload,
    size_t *upload_len, void **state)
{
	static char seen;

	(void)url;
	(void)version;
	(void)upload;
	if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
		return MHD_NO;
	/* Answering on the first call makes the library close. */
	if (*state == NULL) {
		*state = &seen;
		return MHD_YES;
	}
	*upload_len = 0;
	return MHD_queue_response(connection, MHD_HTTP_OK, response);
}

static struct MHD_Response *
response_new(const char *body, const char *type)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(
	    strlen(body), (void *)(uintptr_t)body, MHD_RESPMEM_PERSISTENT);

	if (response == NULL ||
	    MHD_add_response_header(response, "Content-Type", type) != MHD_YES)
		errx(EX_SOFTWARE, "cannot make the answer");
	return response;
}

static void
run(struct MHD_Daemon *daemon, int epoll)
{
	struct pollfd poller = {.fd = epoll, .events = POLLIN};
	MHD_UNSIGNED_LONG_LONG wait_ms;

	for (;;) {
		if (MHD_get_timeout(daemon, &wait_ms) != MHD_YES ||
		    wait_ms > MHD_WAIT_MS_MAX)
			wait_ms = MHD_WAIT_MS_MAX;
		if (wait_ms > 0)
			(void)poll(&poller, 1, (int)wait_ms);
		if (MHD_run(daemon) != MHD_YES)
			errx(EX_SOFTWARE, "MHD_run");
	}
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
	    {"port", required_argument, NULL, 'p'},
	    {"body", required_argument, NULL, 'b'},
	    {"type", required_argument, NULL, 't'},
	    {NULL, 0, NULL, 0},
	};
	const char *body = "Welcome!", *type = "text/plain";
	const union MHD_DaemonInfo *info;
	struct MHD_Response *response;
	struct MHD_Daemon *daemon;
	unsigned long port = 0;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'p':
			port = strtoul(optarg, NULL, 10);
			break;
		case 'b':
			body = optarg;
			break;
		case 't':
			type = optarg;
			break;
		default:
			return EX_USAGE;
		}
	}
	if (port == 0 || port > UINT16_MAX || optind != argc)
		errx(EX_USAGE, "need --port=1..65535 [--body=TEXT] "
			       "[--type=TEXT]");
	response = response_new(body, type);
	daemon = MHD_start_daemon(MHD_USE_EPOLL, (uint16_t)port, NULL, NULL,
	    answer, response, MHD_OPTION_STRICT_FOR_CLIENT, 1,
	    MHD_OPTION_CONNECTION_LIMIT, MHD_CONNECTIONS_MAX,
	    MHD_OPTION_CONNECTION_TIMEOUT, 0U, MHD_OPTION_END);
	if (daemon == NULL)
		err(EX_UNAVAILABLE, "port %lu", port);
	info = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_EPOLL_FD);
	if (info == NULL)
		errx(EX_SOFTWARE, "no epoll descriptor");
	run(daemon, info->epoll_fd);
}
