/*
 * Telling a service manager how we are: the datagrams of sd_notify(3).
 */
#ifndef MASTER_NOTIFY_H
#define MASTER_NOTIFY_H

/* Remember $NOTIFY_SOCKET and remove it from the environment, so that no child
 * speaks for us.  Before the environment is overwritten. */
void master_notify_init(void);

/* Send "READY=1\nSTATUS=..." if anybody wants to know.  Never blocks, never
 * fails: a manager that does not listen is no reason to stop serving. */
void master_notify_send(const char *state);

#endif
