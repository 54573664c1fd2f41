/*
 * Asking for the task, with tongs.
 *
 * The answer is HTTP and JSON, which the master does not touch: a child asks,
 * without rights, and hands over a struct of fixed size.  A child that dies of
 * what it reads, or takes too long, is the same as no answer.
 */
#include "config.h"

#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <errno.h>
#include <fcntl.h>

#include "master/master_ecs.h"
#include "worker/worker_log.h"

#define VARIABLE   "ECS_CONTAINER_METADATA_URI_V4"
#define TIMEOUT_MS 1000
#define GRACE_MS   250 /* for the child to load and to say that it failed */
#define NOBODY	   65534

struct answer {
	struct ops_ecs_task task;
	uint32_t is_found;
	char why[100];
};

_Static_assert(sizeof(struct answer) <= 4096, "one write to a pipe");

static struct {
	bool is_asked;
	bool is_wanted; /* the variable is there */
	struct answer answer;
} found;

static void SHM_NORETURN
run_child(int fd, const char *uri)
{
	struct answer answer = {.is_found = 0};
	const char *why = "it cannot be asked without rights";
	bool has_dropped = prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 &&
			   prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;

	if (has_dropped && geteuid() == 0)
		has_dropped = setgroups(0, NULL) == 0 &&
			      setresgid(NOBODY, NOBODY, NOBODY) == 0 &&
			      setresuid(NOBODY, NOBODY, NOBODY) == 0;
	answer.is_found = has_dropped && ops_ecs_ask_blocking(uri, TIMEOUT_MS,
					     &answer.task, &why);
	if (!answer.is_found)
		strncpy(answer.why, why, sizeof(answer.why) - 1);
	_exit(write(fd, &answer, sizeof(answer)) != sizeof(answer));
}

/* Never longer than the timeout, whatever the child does. */
static bool
read_answer(int fd, struct answer *answer)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
	uint64_t end_us = shm_clock_us() + (TIMEOUT_MS + GRACE_MS) * 1000;
	int count;

	do {
		uint64_t now_us = shm_clock_us();

		count = poll(&poll_fd, 1,
		    now_us < end_us ? (int)((end_us - now_us) / 1000) : 0);
	} while (count == -1 && errno == EINTR);
	return count == 1 &&
	       read(fd, answer, sizeof(*answer)) == (ssize_t)sizeof(*answer);
}

/* What another process wrote is a text only when it ends. */
static void
end_texts(struct answer *answer)
{
	struct ops_ecs_task *task = &answer->task;

	task->family[sizeof(task->family) - 1] = '\0';
	task->revision[sizeof(task->revision) - 1] = '\0';
	task->cluster[sizeof(task->cluster) - 1] = '\0';
	task->service[sizeof(task->service) - 1] = '\0';
	task->id[sizeof(task->id) - 1] = '\0';
	answer->why[sizeof(answer->why) - 1] = '\0';
	if (task->millicpus > OPS_ECS_MILLICPUS_MAX)
		task->millicpus = 0;
}

static void
ask(const char *uri, struct answer *answer)
{
	int fd[2];
	pid_t pid;

	strcpy(answer->why, "no process could be started");
	if (pipe2(fd, O_CLOEXEC) == -1)
		return;
	pid = fork();
	if (pid == 0)
		run_child(fd[1], uri);
	close(fd[1]);
	if (pid > 0) {
		strcpy(answer->why, "no answer in time");
		if (!read_answer(fd[0], answer))
			answer->is_found = 0;
		kill(pid, SIGKILL);
		while (waitpid(pid, NULL, 0) == -1 && errno == EINTR)
			continue;
	}
	close(fd[0]);
	end_texts(answer);
}

const struct ops_ecs_task *
master_ecs_task(void)
{
	const char *uri;

	if (!found.is_asked) {
		found.is_asked = true;
		uri = getenv(VARIABLE);
		found.is_wanted = uri != NULL && uri[0] != '\0';
		if (found.is_wanted)
			ask(uri, &found.answer);
	}
	return found.answer.is_found ? &found.answer.task : NULL;
}

void
master_ecs_log(void)
{
	const struct ops_ecs_task *task = master_ecs_task();

	if (task != NULL)
		worker_log(WORKER_LOG_INFO, "ecs_task",
		    "booksd is part of a task of the container service",
		    LOG_STR("family", task->family),
		    LOG_STR("revision", task->revision),
		    LOG_STR("task", task->id),
		    LOG_INT("limit_millicpus", task->millicpus), LOG_END);
	else if (found.is_wanted)
		worker_log(WORKER_LOG_WARN, "ecs_task_unknown",
		    "the container service did not tell the task's limits",
		    LOG_STR("reason", found.answer.why), LOG_END);
}
