/*
 * The admin listener: where monitoring and administrators reach ops over TCP,
 * or over a unix socket.
 */
#ifndef MASTER_ADMIN_H
#define MASTER_ADMIN_H

#include "master/master_control.h"
#include "master/master_listen.h"
#include "ops/ops.h"

struct master_admin {
	uint32_t count; /* 0: off, or its default address is in use */
	int fd[OPS_ADMIN_MAX];
	char text[200];		     /* what is bound; "off" */
	struct master_control local; /* unix:/path */
	struct master_listen tcp;
};

/* Is text a value of the setting?  *why is static text.  May ask the
 * resolver. */
bool master_admin_check(const char *text, const char **why) SHM_MUSTCHECK;

/*
 * Bind and listen as the setting says, before privileges are dropped and after
 * the logs are open.  EX_OK, or an exit code after saying to errors what
 * fails.  The default address that cannot be had is a warning in the log: a
 * second booksd on a machine has to start.
 */
int master_admin_open(struct master_admin *admin,
    const struct master_options *options, FILE *errors) SHM_MUSTCHECK;

/* The same with sockets that somebody else has made. */
void master_admin_adopt(
    struct master_admin *admin, const struct master_inherit_sockets *given);

/* In a child that is not ops: close our copies. */
void master_admin_forget(const struct master_admin *admin);
/* Another process has the sockets, too: a path is that one's to remove. */
void master_admin_leave(struct master_admin *admin);
/* The master's end: close, and remove the path if it is still ours. */
void master_admin_close(struct master_admin *admin);

#endif
