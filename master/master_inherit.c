/*
 * Sockets given to us.
 *
 * Socket activation: the manager listens before we run, so that no client is
 * refused while we are started again, and low ports need no root.  It sets
 * LISTEN_FDS to their number (from descriptor 3 on), LISTEN_PID to the process
 * that is meant and LISTEN_FDNAMES to their names, with colons between them.
 *
 * A socket of the wrong kind is an error and not passed over: somebody meant
 * something with it.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#include "master/master_inherit.h"

#define FDS_START 3
#define FDS_MAX	  (WORKER_LISTENERS_MAX + OPS_ADMIN_MAX + 1)

static int
option_of(int fd, int option)
{
	int value = -1;
	socklen_t bytes = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &bytes) == 0 ? value
								       : -1;
}

static int
make_ours(int fd, int domain)
{
	const int on = 1;
	int flags = fcntl(fd, F_GETFL);

	if (flags == -1 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) == -1 ||
	    fcntl(fd, F_SETFD, FD_CLOEXEC) == -1)
		return -1;
	if (domain == AF_UNIX)
		return 0;
	return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

const char *
master_inherit_add(
    struct master_inherit_sockets *sockets, uint32_t count_max, int fd)
{
	int domain = option_of(fd, SO_DOMAIN);

	if (domain == -1)
		return "is no open socket";
	if (domain != AF_INET && domain != AF_INET6 && domain != AF_UNIX)
		return "is a socket of another family than IPv4, IPv6 and unix";
	if (option_of(fd, SO_TYPE) != SOCK_STREAM ||
	    option_of(fd, SO_ACCEPTCONN) != 1)
		return "does not listen for streams (Accept=no is needed)";
	if (sockets->count == count_max)
		return "is one socket of its kind too many";
	if (make_ours(fd, domain) == -1)
		return strerror(errno);
	sockets->fd[sockets->count++] = fd;
	return NULL;
}

/* ---- activation */

static uint32_t
read_number(const char *name, uint32_t max)
{
	const char *text = getenv(name);
	unsigned long number;
	char *end;

	if (text == NULL || *text < '0' || *text > '9')
		return 0;
	number = strtoul(text, &end, 10);
	return *end == '\0' && number <= max ? (uint32_t)number : 0;
}

static const char *
add_named(struct master_inherit *inherit, const char *name, int fd)
{
	if (strcmp(name, "control") == 0)
		return option_of(fd, SO_DOMAIN) != AF_UNIX
			   ? "is no unix socket"
			   : master_inherit_add(&inherit->control, 1, fd);
	if (strcmp(name, "admin") == 0)
		return master_inherit_add(&inherit->admin, OPS_ADMIN_MAX, fd);
	return master_inherit_add(&inherit->listen, WORKER_LISTENERS_MAX, fd);
}

static int
add_all(
    struct master_inherit *inherit, uint32_t count, char *names, FILE *errors)
{
	for (uint32_t i = 0; i < count; i++) {
		const char *name = names != NULL ? strsep(&names, ":") : "";
		int fd = (int)(FDS_START + i);
		const char *why = add_named(inherit, name, fd);

		if (why == NULL)
			continue;
		fprintf(errors,
		    "booksd: the service manager's descriptor %d (%s) %s\n", fd,
		    name, why);
		return EX_CONFIG;
	}
	return EX_OK;
}

int
master_inherit_activation(struct master_inherit *inherit, FILE *errors)
{
	uint32_t count = read_number("LISTEN_FDS", INT32_MAX);
	bool is_meant =
	    read_number("LISTEN_PID", INT32_MAX) == (uint32_t)getpid();
	const char *given = getenv("LISTEN_FDNAMES");
	char *names = given != NULL ? strdup(given) : NULL;
	int code = EX_OK;

	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDNAMES");
	if (is_meant && count > FDS_MAX) {
		fprintf(errors,
		    "booksd: the service manager gives %u sockets, at most %d "
		    "can be used\n",
		    count, FDS_MAX);
		code = EX_CONFIG;
	} else if (is_meant) {
		code = add_all(inherit, count, names, errors);
	}
	free(names);
	return code;
}

/* ---- names */

static void
name_unix(const struct sockaddr_un *address, socklen_t bytes, char text[96],
    char path[108])
{
	size_t len = bytes - offsetof(struct sockaddr_un, sun_path);

	/* In the abstract namespace there is no path; a pathname's length may
	 * count its end. */
	if (len > 0 && address->sun_path[0] != '\0') {
		len = strnlen(address->sun_path, len);
		if (len < 108) {
			memcpy(path, address->sun_path, len);
			path[len] = '\0';
		}
	}
	snprintf(text, 96, "unix:%.90s", path);
}

void
master_inherit_name(int fd, char text[96], char path[108])
{
	union {
		struct sockaddr generic;
		struct sockaddr_un local;
		struct sockaddr_storage storage;
	} address = {.storage = {0}};
	socklen_t bytes = sizeof(address);
	char host[64], port[8];

	text[0] = path[0] = '\0';
	if (getsockname(fd, &address.generic, &bytes) == -1)
		return;
	if (address.generic.sa_family == AF_UNIX)
		name_unix(&address.local, bytes, text, path);
	else if (getnameinfo(&address.generic, bytes, host, sizeof(host), port,
		     sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		snprintf(text, 96,
		    address.generic.sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s",
		    host, port);
}
