/*
 * The control socket: where booksctl(1) asks ops.
 */
#ifndef MASTER_CONTROL_H
#define MASTER_CONTROL_H

#include <stdio.h>
#include <sys/types.h>

#include "master/master_inherit.h"
#include "master/master_options.h"

struct master_control {
	int fd;		/* -1: none */
	char path[108]; /* "" with it, or without a path */
	dev_t device;	/* of path: only our own file is removed */
	ino_t inode;	/* 0: it is somebody else's */
};

/* May text be the setting's value?  *why is static text. */
bool master_control_check(const char *text, const char **why) SHM_MUSTCHECK;

/*
 * Bind and listen as the setting says, before privileges are dropped and after
 * the logs are open.  EX_OK; EX_CANTCREAT when a given path cannot be used,
 * said to errors.  What "auto" means not to be usable is a warning in the log,
 * and no socket.
 */
int master_control_open(struct master_control *control,
    const struct master_options *options, FILE *errors) SHM_MUSTCHECK;

/* The same with a socket that somebody else has made. */
void master_control_adopt(
    struct master_control *control, const struct master_inherit_sockets *given);

/*
 * Bind and listen at that path and no other, with mode 0600 from the first
 * moment on; the user owns it.  NULL, or why there is no socket.
 */
const char *master_control_open_path(struct master_control *control,
    const char *path, const struct master_options *options) SHM_MUSTCHECK;

/* In a child that is not ops: close our copy. */
void master_control_forget(const struct master_control *control);
/* Another process has the socket, too: its path is that one's to remove. */
void master_control_leave(struct master_control *control);
/* The master's end: close it and remove the path, if it is still ours. */
void master_control_close(struct master_control *control);

#endif
