/*
 * The old side of an upgrade.
 *
 * The new master is our child and begins as a copy of us, so nothing has to be
 * sent to it: it inherits the descriptors and a variable that says which is
 * which.  Everything else (settings, environment, folder) it finds as we found
 * it.  Until it says READY it may fail in any way, even by not being booksd at
 * all, and nothing has changed for clients: our workers serve on.  Then the
 * roles change at once, and there is no way back.
 *
 * Both masters have the task's memory and the cache mapped, each with its own
 * half of the slots.  What a failed successor's processes owned in the cache is
 * given back by us, since nobody else is left who could; they are not our
 * children and end because their master has ended, so they get a moment.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include "master/master_daemon.h"
#include "master/master_notify.h"
#include "master/master_reload.h"
#include "master/master_supervise_part.h"

#define READY_US  30000000
#define SWEEP_US  1000000
#define WORDS_MAX 4096

static char program[PATH_MAX]; /* "": it could not be told */

void
master_upgrade_init(void)
{
	ssize_t len = readlink("/proc/self/exe", program, sizeof(program) - 1);

	program[len == -1 ? 0 : len] = '\0';
}

/* ---- talking */

int
master_upgrade_listen(int talk_fd)
{
	int flags = fcntl(talk_fd, F_GETFL);

	if (flags == -1 || fcntl(talk_fd, F_SETOWN, getpid()) == -1 ||
	    fcntl(talk_fd, F_SETFD, FD_CLOEXEC) == -1)
		return -1;
	return fcntl(talk_fd, F_SETFL, flags | O_NONBLOCK | O_ASYNC);
}

int
master_upgrade_hear(int talk_fd)
{
	char message;
	ssize_t n = recv(talk_fd, &message, 1, MSG_DONTWAIT);

	if (n == 1)
		return message > 0 ? message : 0;
	return n == -1 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

void
master_upgrade_say(int talk_fd, enum master_upgrade_message message)
{
	const char byte = (char)message;

	/* An end that is gone is heard of otherwise. */
	(void)!send(talk_fd, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* ---- the new program */

struct words {
	char text[WORDS_MAX];
	size_t len;
};

static void add(struct words *words, const char *format, ...) SHM_PRINTF(2, 3);

static void
add(struct words *words, const char *format, ...)
{
	size_t room = sizeof(words->text) - words->len;
	va_list arguments;
	int len;

	va_start(arguments, format);
	len = vsnprintf(words->text + words->len, room, format, arguments);
	va_end(arguments);
	SHM_ASSERT(len >= 0 && (size_t)len < room);
	words->len += (size_t)len;
}

/* The descriptor stays open across exec(2). */
static void
add_fd(struct words *words, const char *before, int fd)
{
	add(words, "%s%d", before, fd);
	(void)fcntl(fd, F_SETFD, 0);
}

static void
add_listen(
    struct words *words, const char *key, const struct master_listen *listen)
{
	if (listen->count == 0)
		return;
	add(words, " %s%s", key, listen->is_lent ? "-lent" : "");
	for (uint32_t i = 0; i < listen->count; i++)
		add_fd(words, i == 0 ? "=" : ",", listen->listener[i].fd);
}

static void
add_control(
    struct words *words, const char *key, const struct master_control *control)
{
	if (control->fd == -1)
		return;
	add(words, " %s%s", key, control->inode == 0 ? "-lent" : "");
	add_fd(words, "=", control->fd);
}

static void
add_cache(struct words *words, const struct shm_cache *cache)
{
	const int *wake_fd = shm_cache_wake_fds(cache);

	add_fd(words, " cache=", shm_cache_fd(cache));
	add(words, " layout=%jx", (uintmax_t)shm_cache_layout(cache));
	for (uint32_t i = 0; i < SHM_CACHE_SLOTS_MAX; i++)
		if (wake_fd[i] == -1)
			add(words, i == 0 ? " wake=-" : ",-");
		else
			add_fd(words, i == 0 ? " wake=" : ",", wake_fd[i]);
}

static void
describe(
    const struct master_heritage *heritage, int talk_fd, struct words *words)
{
	add(words, "from=%d half=%u", (int)heritage->master,
	    1 - heritage->board->half);
	add_fd(words, " talk=", talk_fd);
	add_fd(words, " task=", heritage->task_fd);
	if (heritage->cache != NULL)
		add_cache(words, heritage->cache);
	add_listen(words, "listen", heritage->listen);
	add_control(words, "control", heritage->control);
	add_control(words, "admin", &heritage->admin->local);
	add_listen(words, "admin", &heritage->admin->tcp);
}

static void SHM_NORETURN
become_new(const struct master_heritage *heritage, int talk_fd)
{
	static struct words words;
	sigset_t none;

	describe(heritage, talk_fd, &words);
	sigemptyset(&none);
	if (setenv(MASTER_UPGRADE_VARIABLE, words.text, 1) == 0 &&
	    master_notify_pass() == 0 && master_reload_return() == 0 &&
	    sigprocmask(SIG_SETMASK, &none, NULL) == 0)
		execv(program, master_reload_arguments());
	worker_log(WORKER_LOG_ERROR, "exec_failed",
	    "the program could not be started", LOG_STR("program", program),
	    LOG_STR("error", strerror(errno)), LOG_END);
	worker_log_close();
	_exit(EX_OSERR);
}

/* NULL, or why there can be no upgrade now. */
static const char *
refusal(const struct master_supervisor *supervisor)
{
	if (getpid() == 1)
		return "booksd is process 1, with whose end the container ends";
	if (program[0] == '\0')
		return "without /proc the path of the program is not known";
	if (supervisor->phase != MASTER_PHASE_RUNNING)
		return "booksd is stopping";
	if (supervisor->upgrade.state != MASTER_UPGRADE_IDLE)
		return "another upgrade is under way";
	if (master_takeover_has_predecessor(supervisor->heritage->takeover))
		return "the master before still finishes what it has";
	if (!shm_board_get(supervisor->heritage->board->served))
		return "booksd does not serve yet";
	if (supervisor->roll.is_under_way)
		return "a reload is under way";
	return NULL;
}

void
master_upgrade_begin(struct master_supervisor *supervisor)
{
	struct master_upgrade *upgrade = &supervisor->upgrade;
	const char *why = refusal(supervisor);
	int pair[2];
	pid_t pid;

	if (why == NULL &&
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == -1)
		why = strerror(errno);
	if (why != NULL) {
		worker_log(WORKER_LOG_WARN, "upgrade_refused",
		    "the program is not replaced", LOG_STR("reason", why),
		    LOG_END);
		return;
	}
	pid = master_upgrade_listen(pair[0]) == 0 ? fork() : -1;
	if (pid == 0)
		become_new(supervisor->heritage, pair[1]);
	close(pair[1]);
	if (pid == -1) {
		worker_log(WORKER_LOG_ERROR, "fork_failed",
		    "the new program could not be started",
		    LOG_STR("error", strerror(errno)), LOG_END);
		close(pair[0]);
		return;
	}
	*upgrade = (struct master_upgrade){
	    .state = MASTER_UPGRADE_STARTING,
	    .pid = pid,
	    .talk_fd = pair[0],
	    .due_us = shm_clock_us() + READY_US,
	};
	worker_log(WORKER_LOG_INFO, "upgrade_begins",
	    "a new master starts beside this one", LOG_INT("pid", pid),
	    LOG_STR("program", program), LOG_END);
}

/* ---- failure */

static void
failed(struct master_supervisor *supervisor, const char *why)
{
	struct master_upgrade *upgrade = &supervisor->upgrade;

	SHM_ASSERT(upgrade->state == MASTER_UPGRADE_STARTING);
	if (upgrade->pid > 0)
		kill(upgrade->pid, SIGKILL);
	close(upgrade->talk_fd);
	upgrade->state = MASTER_UPGRADE_SWEEPING;
	upgrade->due_us = shm_clock_us() + SWEEP_US;
	shm_board_count(
	    supervisor->heritage->board, SHM_BOARD_EVENT_upgrade_failed);
	worker_log(WORKER_LOG_ERROR, "upgrade_failed",
	    "the new master did not come to serve, this one goes on",
	    LOG_STR("reason", why), LOG_END);
}

void
master_supervise_sweep_other(
    struct master_supervisor *supervisor, uint64_t now_us)
{
	struct master_heritage *heritage = supervisor->heritage;
	struct shm_board *other =
	    &heritage->task->half[1 - heritage->board->half];

	/* All of them: with a task of its own it told us nothing of which. */
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
		master_cache_reaped(
		    &supervisor->cache, shm_task_slot(other, i), now_us);
	if (supervisor->cache.cache != NULL)
		supervisor->audit.start_us = now_us;
	shm_task_half_begin(other, 0);
}

bool
master_upgrade_reaped(
    struct master_supervisor *supervisor, pid_t pid, int status)
{
	struct master_upgrade *upgrade = &supervisor->upgrade;
	char cause[64];

	if (upgrade->pid != pid)
		return false;
	upgrade->pid = 0;
	if (upgrade->state != MASTER_UPGRADE_STARTING)
		return true;
	master_slot_describe_death(status, cause, sizeof(cause));
	failed(supervisor, cause);
	return true;
}

/* ---- success */

static void
leave(struct master_supervisor *supervisor, bool is_cache_shared)
{
	struct master_upgrade *upgrade = &supervisor->upgrade;
	char text[48];

	upgrade->state = MASTER_UPGRADE_LEAVING;
	shm_board_count(supervisor->heritage->board, SHM_BOARD_EVENT_upgrade);
	worker_log(WORKER_LOG_INFO, "upgraded",
	    "the new master serves, this one finishes what it has",
	    LOG_INT("pid", upgrade->pid),
	    LOG_STR("cache", is_cache_shared ? "shared" : "new"), LOG_END);
	snprintf(text, sizeof(text), "MAINPID=%d", (int)upgrade->pid);
	master_notify_send(text);
	master_daemon_pid_file_forget();
	master_listen_leave(supervisor->listen);
	master_control_leave(supervisor->heritage->control);
	master_admin_leave(supervisor->heritage->admin);
	master_upgrade_say(upgrade->talk_fd, MASTER_UPGRADE_GO);
	/* With caches of their own, what the new one's clients change is heard
	 * of as what other tasks change is: by ops. */
	master_supervise_leave(supervisor, is_cache_shared);
}

static void
starting_tick(struct master_supervisor *supervisor, uint64_t now_us)
{
	struct master_upgrade *upgrade = &supervisor->upgrade;

	switch (master_upgrade_hear(upgrade->talk_fd)) {
	case MASTER_UPGRADE_READY:
		leave(supervisor, true);
		break;
	case MASTER_UPGRADE_READY_ALONE:
		leave(supervisor, false);
		break;
	default: /* an end is a death, which comes with its cause */
		if (supervisor->phase != MASTER_PHASE_RUNNING)
			failed(supervisor, "booksd is stopping");
		else if (now_us >= upgrade->due_us)
			failed(supervisor, "it was not ready in 30 seconds");
		break;
	}
}

uint64_t
master_upgrade_tick(struct master_supervisor *supervisor, uint64_t now_us)
{
	struct master_upgrade *upgrade = &supervisor->upgrade;

	if (upgrade->state == MASTER_UPGRADE_STARTING)
		starting_tick(supervisor, now_us);
	if (upgrade->state == MASTER_UPGRADE_SWEEPING && upgrade->pid == 0 &&
	    now_us >= upgrade->due_us) {
		master_supervise_sweep_other(supervisor, now_us);
		upgrade->state = MASTER_UPGRADE_IDLE;
	}
	switch (upgrade->state) {
	case MASTER_UPGRADE_STARTING:
	case MASTER_UPGRADE_SWEEPING:
		/* Not in the past: the end that is waited for is a signal. */
		return upgrade->due_us > now_us ? upgrade->due_us : UINT64_MAX;
	case MASTER_UPGRADE_IDLE:
	case MASTER_UPGRADE_LEAVING:
		break;
	}
	return UINT64_MAX;
}

bool
master_upgrade_may_end(struct master_supervisor *supervisor)
{
	struct master_upgrade *upgrade = &supervisor->upgrade;

	if (upgrade->state == MASTER_UPGRADE_STARTING)
		failed(supervisor, "booksd is stopping");
	/* The cache lives on, so what is still owed to it is paid: a write
	 * whose worker died may be committed late. */
	return upgrade->state != MASTER_UPGRADE_LEAVING ||
	       supervisor->exit_code != EX_OK ||
	       master_cache_tick(&supervisor->cache, shm_clock_us()) ==
		   UINT64_MAX;
}

void
master_upgrade_end(struct master_supervisor *supervisor)
{
	shm_board_set(supervisor->heritage->board->master, 0);
	if (supervisor->upgrade.state != MASTER_UPGRADE_LEAVING)
		return;
	master_upgrade_say(supervisor->upgrade.talk_fd, MASTER_UPGRADE_BYE);
	close(supervisor->upgrade.talk_fd);
	supervisor->upgrade.state = MASTER_UPGRADE_IDLE;
}
