/*
 * The new side of an upgrade.
 *
 * The variable is words of the form key=value.  A key ends in "-lent" when the
 * sockets are a service manager's, whose paths are not ours to remove.
 *
 * We ask the predecessor to let go when all of our workers serve and ops hears
 * the database's notifications, so that nothing becomes less in between.
 *
 * It can die before or after that.  Then its workers end with it, and what they
 * owned in the cache is given back by us.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "master/master_daemon.h"
#include "master/master_notify.h"
#include "master/master_ops.h"
#include "master/master_supervise_part.h"

#define LOOK_US	    20000
#define OPS_WAIT_US 5000000 /* for ops, when all workers serve */
#define SWEEP_US    1000000 /* until the dead one's workers are gone */

/* ---- reading */

static bool
read_fd(const char *text, int *fd)
{
	char *end;
	long number = strtol(text, &end, 10);

	if (end == text || *end != '\0' || number < 3 || number > INT32_MAX ||
	    fcntl((int)number, F_SETFD, FD_CLOEXEC) == -1)
		return false;
	*fd = (int)number;
	return true;
}

static bool
read_sockets(
    char *list, struct master_inherit_sockets *sockets, uint32_t count_max)
{
	const char *word;
	int fd;

	while ((word = strsep(&list, ",")) != NULL)
		if (!read_fd(word, &fd) ||
		    master_inherit_add(sockets, count_max, fd) != NULL)
			return false;
	return true;
}

static bool
read_wakers(char *list, int wake_fd[SHM_CACHE_SLOTS_MAX])
{
	const char *word;
	uint32_t i = 0;

	while ((word = strsep(&list, ",")) != NULL) {
		if (i == SHM_CACHE_SLOTS_MAX ||
		    (strcmp(word, "-") != 0 && !read_fd(word, &wake_fd[i])))
			return false;
		i++;
	}
	return i == SHM_CACHE_SLOTS_MAX;
}

/* The kind of sockets that a key names, with how many there may be. */
static struct master_inherit_sockets *
sockets_of(struct master_inherit *inherit, const char *key, uint32_t *count_max)
{
	size_t len = strcspn(key, "-");
	bool is_lent = strcmp(key + len, "-lent") == 0;
	struct master_inherit_sockets *sockets = NULL;

	if (key[len] != '\0' && !is_lent)
		return NULL;
	if (strncmp(key, "listen", len) == 0) {
		sockets = &inherit->listen;
		*count_max = WORKER_LISTENERS_MAX;
	} else if (strncmp(key, "admin", len) == 0) {
		sockets = &inherit->admin;
		*count_max = OPS_ADMIN_MAX;
	} else if (strncmp(key, "control", len) == 0) {
		sockets = &inherit->control;
		*count_max = 1;
	}
	if (sockets != NULL)
		sockets->are_ours = !is_lent;
	return sockets;
}

static bool
read_word(struct master_takeover *takeover, struct master_inherit *inherit,
    const char *key, char *value)
{
	struct master_inherit_sockets *sockets;
	uint32_t count_max;

	if (strcmp(key, "from") == 0)
		takeover->predecessor = (pid_t)strtol(value, NULL, 10);
	else if (strcmp(key, "half") == 0)
		takeover->half = strcmp(value, "1") == 0;
	else if (strcmp(key, "layout") == 0)
		takeover->cache_layout = strtoull(value, NULL, 16);
	else if (strcmp(key, "talk") == 0)
		return read_fd(value, &takeover->talk_fd);
	else if (strcmp(key, "task") == 0)
		return read_fd(value, &takeover->task_fd);
	else if (strcmp(key, "cache") == 0)
		return read_fd(value, &takeover->cache_fd);
	else if (strcmp(key, "wake") == 0)
		return read_wakers(value, takeover->wake_fd);
	else if ((sockets = sockets_of(inherit, key, &count_max)) != NULL)
		return read_sockets(value, sockets, count_max);
	return true; /* a younger one may have more to say */
}

static bool
read_words(struct master_takeover *takeover, struct master_inherit *inherit,
    char *words)
{
	char *word, *key;

	while ((word = strsep(&words, " ")) != NULL) {
		key = strsep(&word, "=");
		if (word == NULL || !read_word(takeover, inherit, key, word))
			return false;
	}
	return takeover->talk_fd != -1 &&
	       master_upgrade_listen(takeover->talk_fd) == 0;
}

int
master_takeover_read(struct master_takeover *takeover,
    struct master_inherit *inherit, FILE *errors)
{
	const char *given = getenv(MASTER_UPGRADE_VARIABLE);
	char *words;

	*takeover = (struct master_takeover){
	    .talk_fd = -1, .task_fd = -1, .cache_fd = -1};
	for (uint32_t i = 0; i < SHM_CACHE_SLOTS_MAX; i++)
		takeover->wake_fd[i] = -1;
	if (given == NULL)
		return EX_OK;
	words = strdup(given);
	unsetenv(MASTER_UPGRADE_VARIABLE);
	if (words == NULL || !read_words(takeover, inherit, words)) {
		fprintf(errors, "booksd: %s makes no sense: %s\n",
		    MASTER_UPGRADE_VARIABLE, strerror(errno));
		free(words);
		return EX_SOFTWARE;
	}
	free(words);
	takeover->state = MASTER_TAKEOVER_STARTING;
	return EX_OK;
}

/* ---- memory */

struct shm_task *
master_takeover_task(struct master_takeover *takeover, int *fd)
{
	struct shm_task *task;

	if (takeover->task_fd == -1)
		return NULL;
	task = shm_task_adopt(takeover->task_fd);
	if (task != NULL) {
		*fd = takeover->task_fd;
		takeover->task_fd = -1;
		return task;
	}
	worker_log(WORKER_LOG_WARN, "task_new",
	    "the statistics begin anew: the program before laid them out in "
	    "another way",
	    LOG_STR("error", strerror(errno)), LOG_END);
	close(takeover->task_fd);
	takeover->task_fd = -1;
	return NULL;
}

static void
close_cache(struct master_takeover *takeover)
{
	for (uint32_t i = 0; i < SHM_CACHE_SLOTS_MAX; i++)
		if (takeover->wake_fd[i] != -1)
			close(takeover->wake_fd[i]);
	close(takeover->cache_fd);
	takeover->cache_fd = -1;
}

struct shm_cache *
master_takeover_cache(struct master_takeover *takeover)
{
	struct shm_cache *cache;

	if (takeover->cache_fd == -1)
		return NULL;
	cache = shm_cache_adopt(
	    takeover->cache_fd, takeover->cache_layout, takeover->wake_fd);
	if (cache != NULL) {
		takeover->cache_fd = -1;
		takeover->is_cache_shared = true;
		return cache;
	}
	worker_log(WORKER_LOG_WARN, "cache_new",
	    "the cache begins empty: the program before laid it out in "
	    "another way",
	    LOG_STR("error", strerror(errno)), LOG_END);
	close_cache(takeover);
	return NULL;
}

/* ---- becoming the master */

bool
master_takeover_is_over(const struct master_takeover *takeover)
{
	return takeover->state != MASTER_TAKEOVER_STARTING &&
	       takeover->state != MASTER_TAKEOVER_ASKED;
}

bool
master_takeover_has_predecessor(const struct master_takeover *takeover)
{
	return takeover->state != MASTER_TAKEOVER_NONE;
}

static bool
all_serve(const struct master_supervisor *supervisor)
{
	const struct shm_board *board = supervisor->heritage->board;
	uint32_t count = 0;

	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
		count +=
		    shm_board_get(board->worker[i].state) == SHM_BOARD_SERVING;
	return shm_board_get(board->served) && count >= supervisor->wanted;
}

/* Without a cache there is nothing to hear of. */
static bool
ops_hears(const struct master_supervisor *supervisor)
{
	return supervisor->heritage->cache == NULL ||
	       shm_board_get(supervisor->heritage->board->ops.listening);
}

static void
ask(struct master_supervisor *supervisor, uint64_t now_us)
{
	struct master_takeover *takeover = supervisor->heritage->takeover;

	if (!all_serve(supervisor)) {
		takeover->ready_us = 0;
		return;
	}
	if (takeover->ready_us == 0)
		takeover->ready_us = now_us;
	if (!ops_hears(supervisor) && now_us < takeover->ready_us + OPS_WAIT_US)
		return;
	master_upgrade_say(takeover->talk_fd,
	    takeover->is_cache_shared || supervisor->heritage->cache == NULL
		? MASTER_UPGRADE_READY
		: MASTER_UPGRADE_READY_ALONE);
	takeover->state = MASTER_TAKEOVER_ASKED;
}

static void
take_pid_file(const struct master_options *options)
{
	int owner = 0;

	if (options->pid_file[0] == '\0' ||
	    master_daemon_pid_file(options->pid_file, &owner) == 0)
		return;
	worker_log(WORKER_LOG_ERROR, "pid_file_failed",
	    "the pid file cannot be written",
	    LOG_STR("path", options->pid_file),
	    LOG_STR("error", strerror(errno)), LOG_INT("owner", owner),
	    LOG_END);
}

static void
be_master(struct master_supervisor *supervisor)
{
	char text[32];

	supervisor->heritage->takeover->state = MASTER_TAKEOVER_MASTER;
	take_pid_file(supervisor->heritage->options);
	snprintf(text, sizeof(text), "MAINPID=%d", (int)getpid());
	master_notify_send(text);
	worker_log(WORKER_LOG_INFO, "took_over", "this is the master now",
	    LOG_INT("predecessor", supervisor->heritage->takeover->predecessor),
	    LOG_END);
}

static void
forget_predecessor(struct master_takeover *takeover)
{
	close(takeover->talk_fd);
	takeover->talk_fd = -1;
	takeover->state = MASTER_TAKEOVER_NONE;
}

static void
predecessor_died(struct master_supervisor *supervisor, uint64_t now_us)
{
	struct master_takeover *takeover = supervisor->heritage->takeover;

	worker_log(WORKER_LOG_WARN, "predecessor_died",
	    "the master before died, this one goes on alone",
	    LOG_INT("pid", takeover->predecessor), LOG_END);
	if (!master_takeover_is_over(takeover))
		be_master(supervisor);
	close(takeover->talk_fd);
	takeover->talk_fd = -1;
	takeover->state = MASTER_TAKEOVER_ORPHAN;
	takeover->sweep_us = now_us + SWEEP_US;
}

static void
listen_to(struct master_supervisor *supervisor, uint64_t now_us)
{
	struct master_takeover *takeover = supervisor->heritage->takeover;
	int message = 1;

	while (takeover->talk_fd != -1 && message != 0) {
		message = master_upgrade_hear(takeover->talk_fd);
		if (message == -1)
			predecessor_died(supervisor, now_us);
		else if (message == MASTER_UPGRADE_GO &&
			 takeover->state == MASTER_TAKEOVER_ASKED)
			be_master(supervisor);
		else if (message == MASTER_UPGRADE_BYE &&
			 takeover->state == MASTER_TAKEOVER_MASTER)
			forget_predecessor(takeover);
	}
}

uint64_t
master_takeover_tick(struct master_supervisor *supervisor, uint64_t now_us)
{
	struct master_takeover *takeover = supervisor->heritage->takeover;

	if (takeover->state == MASTER_TAKEOVER_NONE)
		return UINT64_MAX;
	if (takeover->state == MASTER_TAKEOVER_STARTING &&
	    supervisor->phase == MASTER_PHASE_RUNNING)
		ask(supervisor, now_us);
	if (takeover->talk_fd != -1)
		listen_to(supervisor, now_us);
	if (takeover->state == MASTER_TAKEOVER_ORPHAN) {
		if (now_us < takeover->sweep_us)
			return takeover->sweep_us;
		master_supervise_sweep_other(supervisor, now_us);
		takeover->state = MASTER_TAKEOVER_NONE;
	}
	/* Messages come with a signal; what we wait for does not. */
	return takeover->state == MASTER_TAKEOVER_STARTING ? now_us + LOOK_US
							   : UINT64_MAX;
}
