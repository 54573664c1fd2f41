/*
 * Another program in our place, on the same sockets and the same memory, with
 * no request lost: the old side of an upgrade.
 *
 *	old master                            new master
 *	fork, exec ------------------------>  takes sockets, task and cache,
 *	serves on                             keeps to the other half
 *	           <------------------ READY  all of its workers serve
 *	forgets the pid file,
 *	tells the manager who it is
 *	GO -------------------------------->  writes the pid file
 *	its workers retire
 *	BYE ------------------------------->  may be upgraded itself
 *	exit 0
 *
 * One message is one byte over a SOCK_SEQPACKET pair.  An end without READY is
 * a failed upgrade, and without BYE a death.
 */
#ifndef MASTER_UPGRADE_H
#define MASTER_UPGRADE_H

#include <sys/types.h>

#include "shm/shm_base.h"

/* How the new one hears of all this: words of the form key=value.  Not of the
 * prefix that settings have. */
#define MASTER_UPGRADE_VARIABLE "BOOKSD_UPGRADE"

enum master_upgrade_message {
	MASTER_UPGRADE_READY = 'R',	  /* on the same cache */
	MASTER_UPGRADE_READY_ALONE = 'A', /* on a cache of its own */
	MASTER_UPGRADE_GO = 'G',
	MASTER_UPGRADE_BYE = 'B',
};

enum master_upgrade_state {
	MASTER_UPGRADE_IDLE = 0,
	MASTER_UPGRADE_STARTING, /* the new one does not serve yet */
	MASTER_UPGRADE_SWEEPING, /* it failed; what it owned is given back */
	MASTER_UPGRADE_LEAVING,	 /* it serves, and we finish what we have */
};

struct master_upgrade {
	enum master_upgrade_state state;
	pid_t pid;	 /* of the new one; 0: gone, or not ours any more */
	int talk_fd;	 /* valid while STARTING and LEAVING */
	uint64_t due_us; /* STARTING: it failed then; SWEEPING: go on then */
};

/* Remember which program we are, before it is replaced.  Once, at the start;
 * without /proc there will be no upgrade. */
void master_upgrade_init(void);

/* Both sides: a descriptor that brings SIGIO when something came. */
int master_upgrade_listen(int talk_fd) SHM_MUSTCHECK;
/* The next message; 0: none yet, -1: the other end is gone. */
int master_upgrade_hear(int talk_fd) SHM_MUSTCHECK;
void master_upgrade_say(int talk_fd, enum master_upgrade_message message);

/* ---- for master_supervise*.c */

struct master_supervisor;

/* SIGUSR2: begin, or log why not. */
void master_upgrade_begin(struct master_supervisor *supervisor);
/* A process was reaped; true: it was the new master, which failed. */
bool master_upgrade_reaped(
    struct master_supervisor *supervisor, pid_t pid, int status) SHM_MUSTCHECK;
/* Go on with it.  When to look again; UINT64_MAX: when a signal comes. */
uint64_t
master_upgrade_tick(struct master_supervisor *supervisor, uint64_t now_us);
/* No child is left: may the master end, too? */
bool master_upgrade_may_end(struct master_supervisor *supervisor) SHM_MUSTCHECK;
/* The master ends: tell the other one, if there is one. */
void master_upgrade_end(struct master_supervisor *supervisor);

#endif
