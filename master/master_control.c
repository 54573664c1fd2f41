/*
 * The control socket.
 *
 * The master makes it, because that has the rights to do so and outlives ops:
 * while ops is replaced, those who ask wait in the socket's queue.
 *
 * Whoever can connect can flush the cache and read its keys, so the socket is
 * its owner's alone from its first moment on: mode 0600, by the umask while it
 * is bound.  "auto" has to find a place without being told one, and /tmp is
 * everybody's: the socket lies in a folder of ours there, and a folder that
 * another user has made in advance, or made writable, or a symbolic link, is
 * not ours.  A name in a sticky folder is safe once its owner is us.
 *
 * A path outlives its server.  An abandoned one (nobody answers connect(2)) is
 * replaced; a living server's, or a file that is no socket, is left alone.
 */
#include "config.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#include "master/master_control.h"
#include "master/master_listen.h"

#define CONTROL_MODE	0600
#define CONTROL_BACKLOG 16
#define FOLDER_MODE	0700

bool
master_control_check(const char *text, const char **why)
{
	struct sockaddr_un sun;

	*why = NULL;
	if (strcmp(text, "auto") == 0 || strcmp(text, "off") == 0)
		return true;
	if (text[0] != '/')
		*why = "need auto, off or an absolute path";
	else if (strlen(text) >= sizeof(sun.sun_path))
		*why = "the path of a unix socket has at most 107 bytes";
	return *why == NULL;
}

/* ---- the folder of "auto" */

static void
auto_folder(char folder[64])
{
	if (geteuid() == 0)
		strcpy(folder, "/run/booksd");
	else
		snprintf(folder, 64, "/tmp/booksd-%ju", (uintmax_t)geteuid());
}

/* NULL, or why the folder is not ours to use. */
static const char *
folder_make(const char *folder)
{
	struct stat st;

	if (mkdir(folder, FOLDER_MODE) == -1 && errno != EEXIST)
		return strerror(errno);
	if (lstat(folder, &st) == -1)
		return strerror(errno);
	if (!S_ISDIR(st.st_mode))
		return "its folder's name is taken by what is no folder";
	if (st.st_uid != geteuid())
		return "its folder belongs to another user";
	if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
		return "other users may write to its folder";
	return NULL;
}

/* ---- the socket */

static int
bind_path(int fd, const struct sockaddr_un *address)
{
	const struct sockaddr *generic = (const struct sockaddr *)address;
	mode_t old = umask(0777 & ~CONTROL_MODE);
	int result = bind(fd, generic, sizeof(*address)), saved;

	if (result == -1 && errno == EADDRINUSE &&
	    master_listen_is_abandoned(address) &&
	    unlink(address->sun_path) == 0)
		result = bind(fd, generic, sizeof(*address));
	saved = errno;
	umask(old);
	errno = saved;
	return result;
}

/* The user that ops becomes is the one who administrates. */
static int
give_away(const char *path, const struct master_options *options)
{
	if (!options->drops_privileges)
		return 0;
	return lchown(path, options->user_id, options->group_id);
}

static const char *
explain(int error)
{
	switch (error) {
	case EEXIST:
		return "a file that is no socket is in the way";
	case EADDRINUSE:
		return "another booksd listens there";
	default:
		return strerror(error);
	}
}

const char *
master_control_open_path(struct master_control *control, const char *path,
    const struct master_options *options)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct stat st;
	const char *why;

	SHM_ASSERT(strlen(path) < sizeof(address.sun_path));
	strcpy(address.sun_path, path);
	control->fd =
	    socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (control->fd == -1)
		return strerror(errno);
	if (bind_path(control->fd, &address) == -1) {
		why = explain(errno);
		goto close_fd;
	}
	if (lstat(path, &st) == 0) {
		strcpy(control->path, path);
		control->device = st.st_dev;
		control->inode = st.st_ino;
	}
	if (give_away(path, options) == 0 &&
	    listen(control->fd, CONTROL_BACKLOG) == 0)
		return NULL;
	why = strerror(errno);
close_fd:
	master_control_close(control);
	return why;
}

/* ---- the setting */

static int
open_auto(struct master_control *control, const struct master_options *options)
{
	char folder[64], path[96];
	const char *why;

	auto_folder(folder);
	snprintf(path, sizeof(path), "%s/control.sock", folder);
	why = folder_make(folder);
	if (why == NULL)
		why = master_control_open_path(control, path, options);
	if (why != NULL)
		worker_log(WORKER_LOG_WARN, "control_socket_missing",
		    "booksctl cannot reach this booksd: there is no control "
		    "socket (the setting control_socket gives it another path)",
		    LOG_STR("path", path), LOG_STR("reason", why), LOG_END);
	return EX_OK;
}

int
master_control_open(struct master_control *control,
    const struct master_options *options, FILE *errors)
{
	const char *path = options->control_socket, *why;

	*control = (struct master_control){.fd = -1};
	if (strcmp(path, "off") == 0)
		return EX_OK;
	if (strcmp(path, "auto") == 0)
		return open_auto(control, options);
	why = master_control_open_path(control, path, options);
	if (why == NULL)
		return EX_OK;
	fprintf(errors, "booksd: cannot make the control socket %s: %s\n", path,
	    why);
	return EX_CANTCREAT;
}

void
master_control_adopt(
    struct master_control *control, const struct master_inherit_sockets *given)
{
	char text[96];
	struct stat st;

	SHM_ASSERT(given->count == 1);
	*control = (struct master_control){.fd = given->fd[0]};
	master_inherit_name(control->fd, text, control->path);
	if (given->are_ours && control->path[0] != '\0' &&
	    lstat(control->path, &st) == 0) {
		control->device = st.st_dev;
		control->inode = st.st_ino;
	}
}

void
master_control_forget(const struct master_control *control)
{
	if (control->fd != -1)
		close(control->fd);
}

void
master_control_leave(struct master_control *control)
{
	control->path[0] = '\0';
}

void
master_control_close(struct master_control *control)
{
	struct stat st;

	/* Another booksd may have taken the path over since. */
	if (control->path[0] != '\0' && lstat(control->path, &st) == 0 &&
	    st.st_dev == control->device && st.st_ino == control->inode)
		unlink(control->path);
	if (control->fd != -1)
		close(control->fd);
	*control = (struct master_control){.fd = -1};
}
