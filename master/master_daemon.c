/*
 * Descriptors, the background, the pid file.
 *
 * The pid file is locked with fcntl(2): such a lock belongs to the process,
 * not to the open file, so no worker inherits it and it is gone when the
 * master dies in whatever way.  A file without a lock is a leftover and is
 * taken over; a number in it proves nothing, because pids come back.
 *
 * Between open and lock another booksd may have removed the file, and we would
 * lock something without a name: so the path is compared with what is locked.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "master/master_daemon.h"

#define PID_FILE_MODE  0644
#define PID_FILE_TRIES 10

static int waiting_parent = -1; /* the pipe that it reads */

static struct {
	const char *path;
	int fd;
} pid_file = {.fd = -1};

int
master_daemon_open_standard(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
		if (fd == -1)
			return -1;
	} while (fd <= STDERR_FILENO);
	close(fd);
	return 0;
}

/* The parent's rest of life; its exit code is what a shell or init sees. */
static void SHM_NORETURN
wait_for_start(int fd, pid_t child)
{
	char byte;
	int status;
	ssize_t n;

	do
		n = read(fd, &byte, 1);
	while (n == -1 && errno == EINTR);
	if (n == 1)
		_exit(EX_OK);
	if (waitpid(child, &status, 0) == child && WIFEXITED(status))
		_exit(WEXITSTATUS(status));
	_exit(EX_OSERR);
}

int
master_daemon_raise_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == -1)
		return -1;
	limit.rlim_cur = limit.rlim_max;
	return setrlimit(RLIMIT_NOFILE, &limit);
}

int
master_daemon_detach(void)
{
	int fd[2];
	pid_t child;

	if (pipe2(fd, O_CLOEXEC) == -1)
		return -1;
	child = fork();
	if (child == -1) {
		close(fd[0]);
		close(fd[1]);
		return -1;
	}
	if (child > 0) {
		close(fd[1]);
		wait_for_start(fd[0], child);
	}
	close(fd[0]);
	waiting_parent = fd[1];
	if (setsid() == -1)
		return -1;
	return chdir("/");
}

void
master_daemon_started(bool keep_stderr)
{
	int fd;

	if (waiting_parent == -1)
		return;
	fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (fd != -1) {
		dup2(fd, STDIN_FILENO);
		dup2(fd, STDOUT_FILENO);
		if (!keep_stderr)
			dup2(fd, STDERR_FILENO);
		close(fd);
	}
	/* Nothing to be done when the parent was killed meanwhile. */
	if (write(waiting_parent, "", 1) == 1)
		close(waiting_parent);
	waiting_parent = -1;
}

/* 1: locked, 0: the path is another file now, -1 with errno. */
static int
lock_file(int fd, const char *path, int *owner)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	struct stat ours, named;

	if (fcntl(fd, F_SETLK, &lock) == -1) {
		if (errno != EACCES && errno != EAGAIN)
			return -1;
		*owner = 0;
		if (fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type == F_WRLCK)
			*owner = lock.l_pid;
		errno = EEXIST;
		return -1;
	}
	if (fstat(fd, &ours) == -1)
		return -1;
	return stat(path, &named) == 0 && named.st_dev == ours.st_dev &&
	       named.st_ino == ours.st_ino;
}

static int
write_pid(int fd)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%d\n", (int)getpid());

	if (ftruncate(fd, 0) == -1)
		return -1;
	if (pwrite(fd, text, (size_t)len, 0) == len)
		return 0;
	if (errno == 0)
		errno = ENOSPC;
	return -1;
}

int
master_daemon_pid_file(const char *path, int *owner)
{
	int locked = 0, fd = -1, saved;

	for (int i = 0; i < PID_FILE_TRIES && locked == 0; i++) {
		if (fd != -1)
			close(fd);
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
		    PID_FILE_MODE);
		if (fd == -1)
			return -1;
		locked = lock_file(fd, path, owner);
	}
	errno = locked == 0 ? EAGAIN : errno;
	if (locked == 1 && write_pid(fd) == 0) {
		pid_file.path = path;
		pid_file.fd = fd;
		return 0;
	}
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

void
master_daemon_pid_file_forget(void)
{
	if (pid_file.fd == -1)
		return;
	close(pid_file.fd);
	pid_file.fd = -1;
}

void
master_daemon_pid_file_remove(void)
{
	struct stat ours, named;

	if (pid_file.fd == -1)
		return;
	if (fstat(pid_file.fd, &ours) == 0 &&
	    lstat(pid_file.path, &named) == 0 && named.st_dev == ours.st_dev &&
	    named.st_ino == ours.st_ino)
		unlink(pid_file.path);
	master_daemon_pid_file_forget();
}
