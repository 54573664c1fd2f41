/*
 * From fork to the worker room's door, or that of ops.
 *
 * THE ORDER MATTERS
 *   1  groups, group, user; then it is checked that there is no way back
 *   2  no_new_privs: nothing that is executed gets more than we have
 *   3  the death signal: a change of user clears it, so it comes after 1
 *   4  no core dumps, when the database's secret is in our memory
 *   5  the parent is looked at: it may have died before 3
 *
 * Workers and ops keep the master's signals blocked and read them from a
 * signalfd.
 * The migrating child runs blocking calls and is simply ended by them.
 */
#include "config.h"

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <unistd.h>

#include "master/master_cache.h"
#include "master/master_child.h"
#include "master/master_daemon.h"
#include "master/master_ops.h"
#include "master/master_rules.h"
#include "master/master_secret.h"

#define AUDIT_NICE 10

extern char **environ;

static struct {
	char *text; /* NULL: no room was found */
	size_t bytes;
} title;

/* ---- titles */

/* The environment moves to the heap: getenv(3) has to go on working. */
static bool
copy_environment(void)
{
	size_t count = 0;
	char **copy;

	while (environ[count] != NULL)
		count++;
	copy = calloc(count + 1, sizeof(*copy));
	if (copy == NULL)
		return false;
	for (size_t i = 0; i < count; i++) {
		copy[i] = strdup(environ[i]);
		if (copy[i] == NULL)
			goto free_copy;
	}
	environ = copy;
	return true;
free_copy:
	for (size_t i = 0; copy[i] != NULL; i++)
		free(copy[i]);
	free(copy);
	return false;
}

void
master_child_title_init(int argc, char **argv)
{
	char **old = environ;
	char *end;

	if (argc < 1 || !copy_environment())
		return;
	/* The kernel laid arguments and variables out one after the other;
	 * what is not adjacent (somebody changed it) is not ours to use. */
	end = argv[0];
	for (int i = 0; i < argc; i++)
		if (argv[i] == end)
			end += strlen(argv[i]) + 1;
	for (char **entry = old; *entry != NULL; entry++)
		if (*entry == end)
			end += strlen(*entry) + 1;
	title.text = argv[0];
	title.bytes = (size_t)(end - argv[0]);
}

/* comm has 15 characters: "booksd:worker63", without the space. */
static void
set_comm(const char *text)
{
	char comm[16];
	size_t len = 0;

	for (; *text != '\0' && len < sizeof(comm) - 1; text++)
		if (*text != ' ')
			comm[len++] = *text;
	comm[len] = '\0';
	prctl(PR_SET_NAME, comm);
}

void
master_child_title(const char *text)
{
	size_t len = strlen(text);

	set_comm(text);
	if (title.text == NULL || title.bytes < 2)
		return;
	if (len > title.bytes - 1)
		len = title.bytes - 1;
	memset(title.text, 0, title.bytes);
	memcpy(title.text, text, len);
}

/* ---- the child */

static void SHM_NORETURN
give_up(int code, const char *what)
{
	worker_log(WORKER_LOG_ERROR, "child_failed",
	    "a process could not be prepared", LOG_STR("step", what),
	    LOG_STR("error", strerror(errno)), LOG_END);
	worker_log_close();
	_exit(code);
}

static void
drop_privileges(const struct master_options *options)
{
	uid_t uid = options->user_id;
	gid_t gid = options->group_id;

	if (initgroups(options->user, gid) == -1)
		give_up(EX_NOPERM, "initgroups");
	if (setresgid(gid, gid, gid) == -1)
		give_up(EX_NOPERM, "setresgid");
	if (setresuid(uid, uid, uid) == -1)
		give_up(EX_NOPERM, "setresuid");
	/* There must be no way back; user = root is no drop at all. */
	if (getuid() != uid || geteuid() != uid || getgid() != gid ||
	    getegid() != gid || (uid != 0 && setuid(0) != -1)) {
		errno = EPERM;
		give_up(EX_NOPERM, "drop of privileges");
	}
}

static void
prepare(const struct master_heritage *heritage)
{
	if (heritage->options->drops_privileges)
		drop_privileges(heritage->options);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1)
		give_up(EX_OSERR, "no_new_privs");
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1)
		give_up(EX_OSERR, "death signal");
	if (master_secret_protect(heritage->options) == -1)
		give_up(EX_OSERR, "no core dumps");
	if (getppid() != heritage->master)
		_exit(EX_OK); /* nobody is left to read a log */
}

static void
fill_options(
    const struct master_heritage *heritage, struct worker_options *options)
{
	const struct master_listen *listen = heritage->listen;

	*options = heritage->options->worker;
	options->board = heritage->board;
	options->task = heritage->task;
	options->cache = heritage->cache;
	if (heritage->options->database_secret[0] != '\0')
		options->database_secret = heritage->secret;
	options->workers_count = heritage->shares;
	options->version = PACKAGE_VERSION;
	options->listeners_count = listen->count;
	for (uint32_t i = 0; i < listen->count; i++)
		options->listener_fd[i] = listen->listener[i].fd;
}

/* What of the master's a child goes on with. */
enum inherited {
	KEEPS_LISTENERS = 1 << 0, /* else: no client connects by mistake */
	KEEPS_HANDOVER = 1 << 1,
	KEEPS_ADMIN = 1 << 2, /* the sockets of administrators, and orders */
};

static void
close_listeners(const struct master_listen *listen)
{
	for (uint32_t i = 0; i < listen->count; i++)
		if (listen->listener[i].fd != -1)
			close(listen->listener[i].fd);
}

static void
forget(const struct master_heritage *heritage, unsigned kept)
{
	master_daemon_pid_file_forget();
	if (heritage->orders_fd != -1)
		close(heritage->orders_fd);
	if ((kept & KEEPS_ADMIN) == 0) {
		master_control_forget(heritage->control);
		master_admin_forget(heritage->admin);
		if (heritage->command_fd != -1)
			close(heritage->command_fd);
	}
	if ((kept & KEEPS_HANDOVER) == 0)
		master_handover_forget(heritage->handover);
	if ((kept & KEEPS_LISTENERS) == 0)
		close_listeners(heritage->listen);
}

/* slot: -1 when there is only one of its kind. */
static void
begin(const struct master_heritage *heritage, const char *name, int slot,
    unsigned kept)
{
	char title_text[32];

	if (slot == -1)
		snprintf(title_text, sizeof(title_text), "booksd: %s", name);
	else
		snprintf(title_text, sizeof(title_text), "booksd: %s %d", name,
		    slot);
	master_child_title(title_text);
	worker_log_forked(name, slot);
	forget(heritage, kept);
}

static void SHM_NORETURN
run_worker(const struct master_heritage *heritage, uint32_t slot)
{
	struct worker_options options;
	struct shm_board_worker *block = &heritage->board->worker[slot];
	int code;

	begin(heritage, "worker", (int)slot, KEEPS_LISTENERS | KEEPS_HANDOVER);
	shm_board_set(block->started_us, shm_clock_us());
	shm_board_set(block->log_dropped, 0);
	shm_board_set(block->state, SHM_BOARD_STARTING);
	prepare(heritage);
	fill_options(heritage, &options);
	options.slot = slot;
	master_handover_take(heritage->handover, slot, &options);
	options.database_connections =
	    master_rules_share(heritage->options, heritage->shares, slot);
	code = worker_main(&options);
	worker_log_close();
	exit(code);
}

static void SHM_NORETURN
run_migrate(const struct master_heritage *heritage)
{
	struct shm_cache *cache = heritage->cache;
	struct worker_options options;
	sigset_t none;
	int code;

	begin(heritage, "migrate", -1, 0);
	shm_cache_free(&cache);
	prepare(heritage);
	fill_options(heritage, &options);
	options.cache = NULL;
	options.listeners_count = 0;
	options.database_connections =
	    master_rules_share(heritage->options, heritage->shares, 0);
	signal(SIGUSR1, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	code = worker_migrate_main(&options, heritage->options->fail_fast);
	worker_log_close();
	exit(code);
}

static void SHM_NORETURN
run_ops(const struct master_heritage *heritage)
{
	struct ops_options options;
	int code;

	begin(heritage, "ops", -1, KEEPS_ADMIN);
	prepare(heritage);
	master_ops_options(heritage, &options);
	code = ops_main(&options);
	worker_log_close();
	exit(code);
}

/* It looks at memory and ends: there is nothing to tell it. */
static void SHM_NORETURN
run_audit(const struct master_heritage *heritage)
{
	begin(heritage, "audit", -1, 0);
	prepare(heritage);
	(void)setpriority(PRIO_PROCESS, 0, AUDIT_NICE);
	master_cache_audit(heritage->cache);
	worker_log_close();
	exit(EX_OK);
}

pid_t
master_child_worker(const struct master_heritage *heritage, uint32_t slot)
{
	pid_t pid = fork();

	if (pid == 0)
		run_worker(heritage, slot);
	return pid;
}

pid_t
master_child_migrate(const struct master_heritage *heritage)
{
	pid_t pid = fork();

	if (pid == 0)
		run_migrate(heritage);
	return pid;
}

pid_t
master_child_ops(const struct master_heritage *heritage)
{
	pid_t pid = fork();

	if (pid == 0)
		run_ops(heritage);
	return pid;
}

pid_t
master_child_audit(const struct master_heritage *heritage)
{
	pid_t pid = fork();

	if (pid == 0)
		run_audit(heritage);
	return pid;
}
