/*
 * The sd_notify protocol: one datagram of lines KEY=VALUE to the unix socket
 * that $NOTIFY_SOCKET names, a path or, with '@', a name in the abstract
 * namespace.  Small enough to speak by hand, so that the master needs no
 * library for it.
 */
#include "config.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "master/master_notify.h"

static struct sockaddr_un manager; /* sun_family 0: there is none */
static socklen_t manager_bytes;

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
		manager_bytes =
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	}
	unsetenv("NOTIFY_SOCKET");
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
