/*
 * The worker's door: from the master's fork to the loop and back.
 */
#include "config.h"

#include <signal.h>
#include <stdio.h>

#include <libpq-fe.h>

#include "worker/worker_crash.h"
#include "worker/worker_loop.h"

int
worker_main(const struct worker_options *options)
{
	int code;

	SHM_ASSERT(options->slot < SHM_BOARD_SLOTS);
	SHM_ASSERT(options->listeners_count <= WORKER_LISTENERS_MAX);
	SHM_ASSERT(options->database_connections >= 2);
	/* A reader of the log or a client that went away is an errno here, and
	 * what is meant for the master does not end a worker. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGUSR2, SIG_IGN);
	worker_crash_open(
	    &options->board->worker[options->slot], options->slot);
	code = worker_loop_run(options);
	worker_log_close();
	return code;
}

const char *
worker_versions(void)
{
	static char text[160];
	int pq = PQlibVersion();

	snprintf(text, sizeof(text),
	    "libpq %d.%d\nliburing " LIBURING_VERSION
	    "\njansson " LIBJANSSON_VERSION "\n",
	    pq / 10000, pq % 10000);
	return text;
}
