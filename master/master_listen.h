/*
 * Listening sockets: made by the master, inherited by every worker.
 */
#ifndef MASTER_LISTEN_H
#define MASTER_LISTEN_H

#include <stdio.h>
#include <sys/types.h>

#include "master/master_inherit.h"
#include "master/master_options.h"

struct master_listener {
	int fd;		/* -1: closed */
	char text[96];	/* 127.0.0.1:8080, [::1]:8080, unix:/run/books.sock */
	char path[108]; /* of a unix socket, "" for TCP */
	dev_t device;	/* of that path: only our own file is removed */
	ino_t inode;
};

struct master_listen {
	uint32_t count;
	int backlog;
	bool is_lent; /* a service manager's: it listens on without us */
	struct master_listener listener[WORKER_LISTENERS_MAX];
};

/* Is text an address that could be listened on?  *why is static text.  May ask
 * the resolver. */
bool master_listen_check(const char *text, const char **why) SHM_MUSTCHECK;

/*
 * Bind and listen on every address of list, saying to errors what fails.
 * EX_OK, or the exit code of the first failure with nothing left open:
 * EX_OSERR (an address in use or not ours), EX_NOPERM, EX_CANTCREAT (a unix
 * socket's path), EX_CONFIG (too many).  Blocks while names are resolved.
 */
int master_listen_open(struct master_listen *listen,
    const struct master_list *list, FILE *errors) SHM_MUSTCHECK;

/* The same with sockets that somebody else has made. */
void master_listen_adopt(
    struct master_listen *listen, const struct master_inherit_sockets *given);

/* Another process has the sockets, too: their paths are its to remove. */
void master_listen_leave(struct master_listen *listen);

/* Is the socket at a path that cannot be bound one that no living server has,
 * so that it may be removed?  False: errno says why not, EADDRINUSE or EEXIST
 * (it is no socket). */
struct sockaddr_un;
bool
master_listen_is_abandoned(const struct sockaddr_un *address) SHM_MUSTCHECK;

/* "127.0.0.1:8080 [::1]:8080" */
#define MASTER_LISTEN_NAMES_BYTES (WORKER_LISTENERS_MAX * 97)
void master_listen_names(
    const struct master_listen *listen, char names[MASTER_LISTEN_NAMES_BYTES]);

/* Nobody new: close our copies and remove the unix sockets' paths.  Any number
 * of times. */
void master_listen_close(struct master_listen *listen);

#endif
