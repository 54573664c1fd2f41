/*
 * Listening sockets that somebody else made and gave us at the start: a
 * service manager, or the booksd that we take over from.
 */
#ifndef MASTER_INHERIT_H
#define MASTER_INHERIT_H

#include <stdio.h>

#include "ops/ops.h"
#include "worker/worker.h"

/* Sockets of one kind.  Without any, the settings say what to open. */
struct master_inherit_sockets {
	uint32_t count;
	bool are_ours; /* paths are removed at the end */
	int fd[WORKER_LISTENERS_MAX];
};

struct master_inherit {
	struct master_inherit_sockets listen;
	struct master_inherit_sockets admin;   /* at most OPS_ADMIN_MAX */
	struct master_inherit_sockets control; /* at most 1 */
};

/*
 * What a service manager gives, as sd_listen_fds(3) describes it: sockets
 * named "admin" or "control" are those, all others are for clients.  The
 * variables are removed, so that no child takes them for its own.  EX_OK, or
 * EX_CONFIG after saying to errors what is wrong with what was given.  Before
 * anything else is opened.
 */
int master_inherit_activation(
    struct master_inherit *inherit, FILE *errors) SHM_MUSTCHECK;

/* One more socket of that kind, which must listen for streams: made
 * nonblocking and close-on-exec.  NULL, or why it cannot be used. */
const char *master_inherit_add(struct master_inherit_sockets *sockets,
    uint32_t count_max, int fd) SHM_MUSTCHECK;

/* The address of a socket as the settings write it; the path of a unix socket
 * alone, "" for others. */
void master_inherit_name(int fd, char text[96], char path[108]);

#endif
