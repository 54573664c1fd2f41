/*
 * booksd: the start, in order.
 *
 *	settings     flags, environment, file; then -h, -V, -T or -t and out
 *	sockets      bound with the privileges of whoever started us
 *	logs         opened likewise, then the control socket and the
 *	             admin listener
 *	background   unless -f or process 1; the caller waits for the rest
 *	pid file     after that, because it holds the pid that stays
 *	memory       the board and the cache, before the first fork
 *	children     master_supervise() until the end
 *
 * What goes wrong until the logs are open is said in plain words on standard
 * error: that is where the person who starts a program looks.
 */
#include "config.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <sysexits.h>
#include <unistd.h>

#include "master/master_cache.h"
#include "master/master_daemon.h"
#include "master/master_ecs.h"
#include "master/master_notify.h"
#include "master/master_ops.h"
#include "master/master_orders.h"
#include "master/master_reload.h"
#include "master/master_rules.h"
#include "master/master_secret.h"
#include "master/master_supervise.h"
#include "master/master_takeover.h"
#include "master/master_upgrade.h"

extern char **environ;

/* Reachable for the life of the process: the options' texts live here. */
static struct master_options options;
static struct master_settings settings;
static struct master_handover handover;

/* ---- what ends soon */

/* Open the back end as a worker would, and say what came of it. */
static int
print_io(void)
{
	static const struct io_events events = {.accepted = NULL};
	const struct io_options io_options = {
	    .backend = options.worker.io_backend,
	    .without = options.worker.io_without,
	    .slots_count = options.worker.connections_max,
	    .events = &events,
	};
	const char *why = NULL;
	struct io *io = io_open(&io_options, &why);

	if (io == NULL) {
		printf("I/O back end: not available: %s (%s)\n",
		    why != NULL ? why : "unknown reason", strerror(errno));
		return EX_UNAVAILABLE;
	}
	printf("I/O back end: %s\n", io_describe(io));
	io_free(&io);
	return EX_OK;
}

static int
print_version(int code)
{
	struct utsname kernel;

	printf("booksd %s\n%s%s", PACKAGE_VERSION, worker_versions(),
	    ops_versions());
	if (uname(&kernel) == 0)
		printf("%s %s %s\n", kernel.sysname, kernel.release,
		    kernel.machine);
	/* Which back end to try is itself a setting. */
	if (code == EX_OK)
		code = master_rules_check(&settings);
	return code == EX_OK ? print_io() : code;
}

/* -1: go on and run. */
static int
run_command(const struct master_command *command)
{
	int code = command->exit_code;

	switch (command->mode) {
	case MASTER_MODE_HELP:
		master_options_help(stdout);
		return EX_OK;
	case MASTER_MODE_VERSION:
		return print_version(code);
	case MASTER_MODE_DUMP:
		if (code == EX_OK)
			master_settings_dump(&settings, stdout);
		return code;
	case MASTER_MODE_TEST:
	case MASTER_MODE_RUN:
		break;
	}
	if (code == EX_OK)
		code = master_rules_check(&settings);
	if (code != EX_OK)
		return code;
	if (command->mode == MASTER_MODE_RUN)
		return -1;
	printf("booksd: configuration ok\n");
	return EX_OK;
}

/* ---- what stays */

static void
log_start(const struct master_heritage *heritage)
{
	static const char *const backends[] = {"auto", "io_uring", "epoll"};
	const struct master_listen *listen = heritage->listen;
	const char *control = heritage->control->path;
	char addresses[MASTER_LISTEN_NAMES_BYTES];
	struct shm_cache_stats cache = {.segments_count = 0};

	if (heritage->cache != NULL)
		shm_cache_stats(heritage->cache, &cache);
	master_listen_names(listen, addresses);
	worker_log(WORKER_LOG_INFO, "started", "booksd starts its workers",
	    LOG_STR("version", PACKAGE_VERSION), LOG_INT("pid", getpid()),
	    LOG_STR("listen", addresses), LOG_INT("backlog", listen->backlog),
	    LOG_INT("workers", options.workers),
	    LOG_STR("workers_source", options.workers_source),
	    LOG_INT("limit_millicpus", options.limit_millicpus),
	    LOG_STR("io_backend", backends[options.worker.io_backend]),
	    LOG_INT("database_connections", options.database_connections),
	    LOG_INT("database_connections_per_worker",
		master_rules_share(
		    &options, options.workers_max, options.workers_max - 1)),
	    LOG_INT("cache_bytes", cache.data_bytes),
	    LOG_INT("cache_segments", cache.segments_count),
	    LOG_STR("control_socket", control[0] != '\0' ? control : "off"),
	    LOG_STR("admin_listen", heritage->admin->text),
	    LOG_STR("user", options.user), LOG_END);
}

static int
open_logs(void)
{
	const char *which;

	if (worker_log_open(&options.log, &which) == 0)
		return EX_OK;
	fprintf(stderr, "booksd: cannot open %s: %s\n", which, strerror(errno));
	return EX_CANTCREAT;
}

static int
open_pid_file(void)
{
	int owner = 0;

	if (options.pid_file[0] == '\0' ||
	    master_daemon_pid_file(options.pid_file, &owner) == 0)
		return EX_OK;
	if (errno == EEXIST)
		fprintf(stderr,
		    "booksd: another booksd runs as process %d and has %s: "
		    "stop it, or choose another pid_file\n",
		    owner, options.pid_file);
	else
		fprintf(stderr, "booksd: cannot write the pid file %s: %s\n",
		    options.pid_file, strerror(errno));
	return EX_CANTCREAT;
}

static int
make_memory(struct master_heritage *heritage)
{
	struct master_takeover *takeover = heritage->takeover;

	heritage->task = master_takeover_task(takeover, &heritage->task_fd);
	if (heritage->task == NULL)
		heritage->task = shm_task_new(&heritage->task_fd);
	if (heritage->task == NULL) {
		fprintf(
		    stderr, "booksd: no shared memory: %s\n", strerror(errno));
		return EX_OSERR;
	}
	if (master_handover_open(&handover) == -1) {
		fprintf(stderr, "booksd: no sockets between workers: %s\n",
		    strerror(errno));
		return EX_OSERR;
	}
	heritage->secret = master_secret_new(&options);
	if (heritage->secret == NULL) {
		fprintf(stderr, "booksd: no memory for the secret: %s\n",
		    strerror(errno));
		return EX_OSERR;
	}
	heritage->board = &heritage->task->half[takeover->half];
	shm_task_half_begin(heritage->board, getpid());
	shm_board_set(heritage->board->workers_wanted, options.workers);
	shm_board_set(heritage->board->workers_min, options.workers_min);
	shm_board_set(heritage->board->workers_max, options.workers_max);
	shm_board_source_set(heritage->board, options.workers_source);
	shm_board_set(heritage->board->cpu.millicpus, options.limit_millicpus);
	if (options.cache_bytes == 0)
		return EX_OK;
	heritage->cache = master_takeover_cache(takeover);
	if (heritage->cache != NULL)
		master_cache_policy(heritage->cache, &options);
	else
		heritage->cache = master_cache_new(&options);
	if (heritage->cache != NULL)
		return EX_OK;
	fprintf(stderr, "booksd: no memory for a cache_size of %ju bytes: %s\n",
	    (uintmax_t)options.cache_bytes, strerror(errno));
	return EX_OSERR;
}

static int
supervise(struct master_listen *listen, struct master_control *control,
    struct master_admin *admin, struct master_takeover *takeover)
{
	struct master_heritage heritage = {
	    .options = &options,
	    .settings = &settings,
	    .listen = listen,
	    .control = control,
	    .admin = admin,
	    .takeover = takeover,
	    .handover = &handover,
	    .command_fd = -1,
	    .orders_fd = -1,
	    .shares = options.workers_max,
	    .master = getpid(),
	};
	int code = make_memory(&heritage);

	if (code == EX_OK &&
	    master_orders_open(&heritage.orders_fd, &heritage.command_fd) == -1)
		code = EX_OSERR;
	if (code == EX_OK) {
		log_start(&heritage);
		master_ecs_log();
		master_daemon_started(strcmp(options.log.error, "stderr") == 0);
		code = master_supervise(&heritage, listen);
		worker_log(WORKER_LOG_INFO, "stopped", "booksd ends",
		    LOG_INT("exit_code", code), LOG_END);
	}
	if (heritage.settings != &settings) /* those of the last reload */
		master_reload_free(&heritage.settings);
	master_orders_close(&heritage.orders_fd, &heritage.command_fd);
	shm_secret_free(&heritage.secret);
	shm_cache_free(&heritage.cache);
	shm_task_free(&heritage.task);
	return code;
}

/* Those that were given, and those of the settings. */
static int
open_sockets(struct master_listen *listen, struct master_control *control,
    struct master_admin *admin, struct master_takeover *takeover)
{
	static struct master_inherit given;
	int code = master_takeover_read(takeover, &given, stderr);

	if (code == EX_OK && takeover->state == MASTER_TAKEOVER_NONE)
		code = master_inherit_activation(&given, stderr);
	if (code == EX_OK && given.listen.count > 0)
		master_listen_adopt(listen, &given.listen);
	else if (code == EX_OK)
		code = master_listen_open(listen, &options.listen, stderr);
	if (code == EX_OK)
		code = open_logs();
	if (code == EX_OK && given.control.count > 0)
		master_control_adopt(control, &given.control);
	else if (code == EX_OK)
		code = master_control_open(control, &options, stderr);
	if (code == EX_OK && given.admin.count > 0)
		master_admin_adopt(admin, &given.admin);
	else if (code == EX_OK)
		code = master_admin_open(admin, &options, stderr);
	return code;
}

/* Who takes over from another is there already. */
static int
go_to_background(bool is_there)
{
	return is_there ? chdir("/") : master_daemon_detach();
}

static int
run(bool foreground, int argc, char **argv)
{
	static struct master_listen listen;
	static struct master_control control = {.fd = -1};
	static struct master_admin admin = {.local = {.fd = -1}};
	static struct master_takeover takeover;
	int code;

	if (master_supervise_block_signals() == -1 ||
	    master_reload_init(argc, argv) == -1 ||
	    master_daemon_raise_descriptors() == -1) {
		fprintf(stderr, "booksd: cannot start: %s\n", strerror(errno));
		return EX_OSERR;
	}
	master_upgrade_init();
	code = open_sockets(&listen, &control, &admin, &takeover);
	if (code == EX_OK && !foreground &&
	    go_to_background(takeover.state != MASTER_TAKEOVER_NONE) == -1) {
		fprintf(stderr, "booksd: cannot go to the background: %s\n",
		    strerror(errno));
		code = EX_OSERR;
	}
	/* The predecessor's, until it lets go. */
	if (code == EX_OK && takeover.state == MASTER_TAKEOVER_NONE)
		code = open_pid_file();
	if (code == EX_OK) {
		master_notify_init();
		master_child_title_init(argc, argv);
		master_child_title("booksd: master");
		code = supervise(&listen, &control, &admin, &takeover);
		master_daemon_pid_file_remove();
	}
	master_control_close(&control);
	master_admin_close(&admin);
	worker_log_close();
	master_listen_close(&listen);
	return code;
}

int
main(int argc, char **argv)
{
	struct master_command command;
	int code;

	if (master_daemon_open_standard() == -1)
		return EX_OSERR;
	signal(SIGPIPE, SIG_IGN);
	master_settings_init(&settings, &options, stderr);
	master_options_read(&settings, argc, argv, environ, &command);
	code = run_command(&command);
	if (code == -1)
		code = run(command.foreground || getpid() == 1, argc, argv);
	else if (code == EX_USAGE)
		fputs("booksd: booksd -h prints what can be given\n", stderr);
	if (fflush(stdout) == EOF && code == EX_OK)
		code = EX_OSERR;
	return code;
}
