/*
 * The sd_notify protocol: one datagram of lines KEY=VALUE to the unix socket
 * that $NOTIFY_SOCKET names, a path or, with '@', a name in the abstract
 * namespace.  Small enough to speak by hand, so that the master needs no
 * library for it.
 */
#include "config.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "master/master_notify.h"
#include "shm/shm_base.h"

#define STATUS_MAX 200

static struct sockaddr_un manager; /* sun_family 0: there is none */
static socklen_t manager_bytes;
static char manager_name[sizeof(manager.sun_path)];
static char status[STATUS_MAX]; /* said last */
static struct {
	uint64_t period_us; /* 0: nobody waits for it */
	uint64_t next_us;
} watchdog;

/* Twice within the time after which we are taken for dead. */
static void
watchdog_init(void)
{
	const char *time = getenv("WATCHDOG_USEC");
	const char *pid = getenv("WATCHDOG_PID");

	if (time != NULL && manager.sun_family == AF_UNIX &&
	    (pid == NULL || strtol(pid, NULL, 10) == (long)getpid()))
		watchdog.period_us = strtoull(time, NULL, 10) / 2;
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
}

void
master_notify_init(void)
{
	const char *name = getenv("NOTIFY_SOCKET");
	size_t len = name != NULL ? strlen(name) : 0;

	if (len >= 2 && len < sizeof(manager.sun_path) &&
	    (name[0] == '/' || name[0] == '@')) {
		memcpy(manager.sun_path, name, len);
		if (name[0] == '@')
			manager.sun_path[0] = '\0';
		manager.sun_family = AF_UNIX;
		memcpy(manager_name, name, len + 1);
		manager_bytes =
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	}
	unsetenv("NOTIFY_SOCKET");
	watchdog_init();
}

int
master_notify_pass(void)
{
	char time[24];

	if (manager.sun_family != AF_UNIX)
		return 0;
	if (setenv("NOTIFY_SOCKET", manager_name, 1) == -1)
		return -1;
	snprintf(time, sizeof(time), "%ju", (uintmax_t)watchdog.period_us * 2);
	return watchdog.period_us == 0 ? 0 : setenv("WATCHDOG_USEC", time, 1);
}

void
master_notify_send(const char *state)
{
	int fd;

	if (manager.sun_family != AF_UNIX)
		return;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return;
	(void)sendto(fd, state, strlen(state), MSG_DONTWAIT | MSG_NOSIGNAL,
	    (const struct sockaddr *)&manager, manager_bytes);
	close(fd);
}

void
master_notify_status(const char *text)
{
	char line[STATUS_MAX + 8];

	if (strncmp(text, status, sizeof(status) - 1) == 0)
		return;
	snprintf(status, sizeof(status), "%s", text);
	snprintf(line, sizeof(line), "STATUS=%s", status);
	master_notify_send(line);
}

uint64_t
master_notify_watchdog(uint64_t now_us)
{
	if (watchdog.period_us == 0)
		return UINT64_MAX;
	if (watchdog.next_us <= now_us) {
		master_notify_send("WATCHDOG=1");
		watchdog.next_us = now_us + watchdog.period_us;
	}
	return watchdog.next_us;
}

void
master_notify_reloading(void)
{
	char state[64];

	snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%ju",
	    (uintmax_t)shm_clock_us());
	master_notify_send(state);
}
