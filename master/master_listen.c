/*
 * Listening sockets.
 *
 * One socket per address, shared by all workers: a worker that dies takes no
 * queue of waiting clients with it.  "*" is two sockets, one per family with
 * IPV6_V6ONLY, so that addresses in the log are what clients really have.
 *
 * SO_REUSEADDR lets a restart bind while old connections linger in TIME_WAIT;
 * it does not let two servers listen on one port.  TCP_NODELAY is inherited by
 * accepted sockets, which saves a system call per connection.
 *
 * A unix socket's path outlives its server.  An abandoned one (nobody answers
 * connect(2)) is removed and made anew; a living one, or a file that is no
 * socket, is left alone and is an error.
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
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#include "master/master_listen.h"

#define UNIX_MODE    0660
#define BACKLOG_FILE "/proc/sys/net/core/somaxconn"

/* "host:port" taken apart. */
struct address {
	char host[NI_MAXHOST];
	char port[8];
};

static bool
parse_port(const char *text)
{
	unsigned long port;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	port = strtoul(text, &end, 10);
	return *end == '\0' && port <= 65535 && end - text <= 5;
}

static bool
parse_address(const char *text, struct address *address, const char **why)
{
	const char *colon = strrchr(text, ':');
	const char *host = text;
	size_t host_len;

	*why = "need HOST:PORT, [V6]:PORT, *:PORT or unix:/PATH";
	if (colon == NULL || colon == text)
		return false;
	host_len = (size_t)(colon - text);
	if (host[0] == '[' && host[host_len - 1] == ']') {
		host++;
		host_len -= 2;
	} else if (memchr(host, ':', host_len) != NULL) {
		*why = "an IPv6 address needs brackets: [::1]:8080";
		return false;
	}
	if (!parse_port(colon + 1)) {
		*why = "need a port from 0 to 65535 after the colon";
		return false;
	}
	if (host_len == 0 || host_len >= sizeof(address->host))
		return false;
	memcpy(address->host, host, host_len);
	address->host[host_len] = '\0';
	strcpy(address->port, colon + 1);
	return true;
}

static bool
is_unix(const char *text)
{
	return strncmp(text, "unix:", 5) == 0;
}

static bool
check_unix(const char *text, const char **why)
{
	struct sockaddr_un sun;

	*why = NULL;
	if (text[5] != '/')
		*why = "need an absolute path after unix:";
	else if (strlen(text + 5) >= sizeof(sun.sun_path))
		*why = "the path of a unix socket has at most 107 bytes";
	return *why == NULL;
}

static struct addrinfo *
resolve(const struct address *address, const char **why)
{
	const struct addrinfo hints = {
	    .ai_family = AF_UNSPEC,
	    .ai_socktype = SOCK_STREAM,
	    .ai_flags = AI_PASSIVE | AI_NUMERICSERV,
	};
	bool is_any = strcmp(address->host, "*") == 0;
	struct addrinfo *found = NULL;
	int error;

	error = getaddrinfo(
	    is_any ? NULL : address->host, address->port, &hints, &found);
	if (error == 0)
		return found;
	*why = gai_strerror(error);
	return NULL;
}

bool
master_listen_check(const char *text, const char **why)
{
	struct address address;
	struct addrinfo *found;

	if (is_unix(text))
		return check_unix(text, why);
	if (!parse_address(text, &address, why))
		return false;
	found = resolve(&address, why);
	if (found == NULL)
		return false;
	freeaddrinfo(found);
	return true;
}

/* ---- opening */

static int
read_backlog(void)
{
	FILE *file = fopen(BACKLOG_FILE, "re");
	int backlog = 0;

	if (file != NULL) {
		if (fscanf(file, "%d", &backlog) != 1)
			backlog = 0;
		fclose(file);
	}
	return backlog > 0 ? backlog : SOMAXCONN;
}

/* The exit code for errno after a failed bind, and advice on it. */
static int
explain(int error, const char **advice)
{
	switch (error) {
	case EADDRINUSE:
		*advice = "another process listens there: stop it (ss -ltnp "
			  "shows it) or choose another address, for example "
			  "-o listen=127.0.0.1:8081";
		return EX_OSERR;
	case EACCES:
	case EPERM:
		*advice = "ports below 1024 need root or CAP_NET_BIND_SERVICE; "
			  "a path needs a folder that can be written";
		return EX_NOPERM;
	case EADDRNOTAVAIL:
		*advice = "no interface of this machine has that address (ip "
			  "address shows them)";
		return EX_OSERR;
	default:
		*advice = "see booksd(8)";
		return EX_OSERR;
	}
}

static int
say_failure(const char *text, int error, FILE *errors)
{
	const char *advice;
	int code = explain(error, &advice);

	fprintf(errors, "booksd: cannot listen on %s: %s; %s\n", text,
	    strerror(error), advice);
	return code;
}

/* With what it is really bound to: port 0 became another one. */
static struct master_listener *
add(struct master_listen *listen, int fd)
{
	struct master_listener *listener = &listen->listener[listen->count++];
	char path[sizeof(listener->path)];

	*listener = (struct master_listener){.fd = fd};
	master_inherit_name(fd, listener->text, path);
	return listener;
}

/* The path is ours to remove. */
static void
own_path(struct master_listener *listener, const char *path)
{
	struct stat st;

	strcpy(listener->path, path);
	if (path[0] != '\0' && lstat(path, &st) == 0) {
		listener->device = st.st_dev;
		listener->inode = st.st_ino;
	}
}

static int
open_tcp_socket(const struct addrinfo *info, int backlog)
{
	const int on = 1;
	int fd, saved;

	fd = socket(
	    info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == -1 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == -1)
		goto close_fd;
	if (info->ai_family == AF_INET6 &&
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) == -1)
		goto close_fd;
	if (bind(fd, info->ai_addr, info->ai_addrlen) == -1 ||
	    listen(fd, backlog) == -1)
		goto close_fd;
	return fd;
close_fd:
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

/* A kernel without IPv6, or with it switched off, still has "*". */
static bool
is_missing_family(const struct addrinfo *info, int error)
{
	return info->ai_family == AF_INET6 &&
	       (error == EAFNOSUPPORT || error == EADDRNOTAVAIL);
}

static int
open_tcp(struct master_listen *listen, const char *text, FILE *errors)
{
	struct address address;
	struct addrinfo *found, *info;
	const char *why;
	uint32_t before = listen->count;
	int fd, code = EX_OK, error = 0;

	if (!parse_address(text, &address, &why) ||
	    (found = resolve(&address, &why)) == NULL) {
		fprintf(errors, "booksd: listen=%s: %s\n", text, why);
		return EX_CONFIG;
	}
	for (info = found; info != NULL && code == EX_OK;
	     info = info->ai_next) {
		if (listen->count == WORKER_LISTENERS_MAX) {
			fprintf(errors, "booksd: listen: at most %d sockets\n",
			    WORKER_LISTENERS_MAX);
			code = EX_CONFIG;
			break;
		}
		fd = open_tcp_socket(info, listen->backlog);
		if (fd != -1)
			add(listen, fd);
		else if (strcmp(address.host, "*") == 0 &&
			 is_missing_family(info, errno))
			error = errno;
		else
			code = say_failure(text, errno, errors);
	}
	freeaddrinfo(found);
	if (code == EX_OK && listen->count == before)
		code = say_failure(text, error, errors);
	return code;
}

bool
master_listen_is_abandoned(const struct sockaddr_un *address)
{
	struct stat st;
	bool result = false;
	int fd;

	if (lstat(address->sun_path, &st) == -1 || !S_ISSOCK(st.st_mode)) {
		errno = EEXIST;
		return false;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return false;
	result = connect(fd, (const struct sockaddr *)address,
		     sizeof(*address)) == -1 &&
		 errno == ECONNREFUSED;
	close(fd);
	errno = EADDRINUSE;
	return result;
}

static int
bind_unix(int fd, const struct sockaddr_un *address)
{
	const struct sockaddr *generic = (const struct sockaddr *)address;
	mode_t old = umask(0777 & ~UNIX_MODE);
	int result = bind(fd, generic, sizeof(*address));

	if (result == -1 && errno == EADDRINUSE &&
	    master_listen_is_abandoned(address) &&
	    unlink(address->sun_path) == 0)
		result = bind(fd, generic, sizeof(*address));
	umask(old);
	return result;
}

static int
open_unix(struct master_listen *listen_, const char *text, FILE *errors)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd, code;

	if (listen_->count == WORKER_LISTENERS_MAX) {
		fprintf(errors, "booksd: listen: at most %d sockets\n",
		    WORKER_LISTENERS_MAX);
		return EX_CONFIG;
	}
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", text + 5);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return say_failure(text, errno, errors);
	if (bind_unix(fd, &address) == -1 ||
	    listen(fd, listen_->backlog) == -1) {
		if (errno == EEXIST || errno == ENOENT || errno == ENOTDIR) {
			fprintf(errors, "booksd: cannot listen on %s: %s\n",
			    text,
			    errno == EEXIST ? "a file that is no socket is in "
					      "the way"
					    : strerror(errno));
			code = EX_CANTCREAT;
		} else {
			code = say_failure(text, errno, errors);
		}
		close(fd);
		return code;
	}
	own_path(add(listen_, fd), address.sun_path);
	return EX_OK;
}

int
master_listen_open(
    struct master_listen *listen, const struct master_list *list, FILE *errors)
{
	int code = EX_OK, one;

	*listen = (struct master_listen){.backlog = read_backlog()};
	for (uint32_t i = 0; i < list->count; i++) {
		if (is_unix(list->item[i]))
			one = open_unix(listen, list->item[i], errors);
		else
			one = open_tcp(listen, list->item[i], errors);
		if (code == EX_OK)
			code = one;
	}
	if (code != EX_OK)
		master_listen_close(listen);
	return code;
}

/* Undo what workers do to a socket at the end of a drain (worker_drain.c):
 * it is used again after us. */
static void
thaw(int fd)
{
	const int unused = 0;

	(void)setsockopt(
	    fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof(unused));
}

void
master_listen_adopt(
    struct master_listen *listen, const struct master_inherit_sockets *given)
{
	char text[96], path[108];

	*listen = (struct master_listen){
	    .backlog = read_backlog(), .is_lent = !given->are_ours};
	for (uint32_t i = 0; i < given->count; i++) {
		thaw(given->fd[i]);
		master_inherit_name(given->fd[i], text, path);
		own_path(
		    add(listen, given->fd[i]), given->are_ours ? path : "");
	}
}

void
master_listen_names(
    const struct master_listen *listen, char names[MASTER_LISTEN_NAMES_BYTES])
{
	char *at = names;

	*at = '\0';
	for (uint32_t i = 0; i < listen->count; i++) {
		if (i > 0)
			*at++ = ' ';
		at = stpcpy(at, listen->listener[i].text);
	}
}

static void
remove_path(const struct master_listener *listener)
{
	struct stat st;

	/* Another server may have taken the path over since. */
	if (listener->path[0] != '\0' && lstat(listener->path, &st) == 0 &&
	    st.st_dev == listener->device && st.st_ino == listener->inode)
		unlink(listener->path);
}

void
master_listen_leave(struct master_listen *listen)
{
	for (uint32_t i = 0; i < listen->count; i++)
		listen->listener[i].path[0] = '\0';
}

void
master_listen_close(struct master_listen *listen)
{
	for (uint32_t i = 0; i < listen->count; i++) {
		struct master_listener *listener = &listen->listener[i];

		if (listener->fd == -1)
			continue;
		remove_path(listener);
		if (listen->is_lent)
			thaw(listener->fd);
		close(listener->fd);
		listener->fd = -1;
	}
}
