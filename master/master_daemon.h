/*
 * What makes a program a daemon: descriptors, the background, the pid file.
 */
#ifndef MASTER_DAEMON_H
#define MASTER_DAEMON_H

#include "shm/shm_base.h"

/* Make sure that 0, 1 and 2 are open, so that no socket becomes one of them. */
int master_daemon_open_standard(void) SHM_MUSTCHECK;

/* Room for the descriptors of every client and database connection, and for
 * the cache's, as far as we are allowed.  Inherited.  -1 with errno. */
int master_daemon_raise_descriptors(void) SHM_MUSTCHECK;

/*
 * Go on in the background.  Returns in the child, in a session of its own;
 * the parent stays until master_daemon_started() or the child's end and then
 * exits with 0 or with the child's code.  -1 with errno when there is no
 * second process.
 */
int master_daemon_detach(void) SHM_MUSTCHECK;

/* Let the waiting parent go: booksd runs.  Leaves the terminal, but keeps
 * standard error when keep_stderr.  Does nothing in the foreground. */
void master_daemon_started(bool keep_stderr);

/*
 * Write our pid to path and keep it locked while we live.  -1 with errno;
 * EEXIST: a living process has it, *owner is its pid.
 */
int master_daemon_pid_file(const char *path, int *owner) SHM_MUSTCHECK;
/* In a child: the file is the master's. */
void master_daemon_pid_file_forget(void);
/* Remove it, if it is still ours. */
void master_daemon_pid_file_remove(void);

#endif
