/*
 * Telling a service manager how we are: the datagrams of sd_notify(3).
 */
#ifndef MASTER_NOTIFY_H
#define MASTER_NOTIFY_H

#include "shm/shm_base.h"

/* Remember $NOTIFY_SOCKET and $WATCHDOG_USEC and remove them from the
 * environment, so that no child speaks for us.  Before the environment is
 * overwritten, by the process that stays. */
void master_notify_init(void);
/* Put them back, for a program that this process is about to become. */
int master_notify_pass(void) SHM_MUSTCHECK;

/* Send "READY=1\nSTATUS=..." if anybody wants to know.  Never blocks, never
 * fails: a manager that does not listen is no reason to stop serving. */
void master_notify_send(const char *state);

/* "STATUS=...", when it is not what was said last. */
void master_notify_status(const char *text);

/* Say that we are alive, if the manager wants that and it is time; when it is
 * time again, UINT64_MAX: never. */
uint64_t master_notify_watchdog(uint64_t now_us);
/* The same of a reload, which ends with READY=1. */
void master_notify_reloading(void);

#endif
