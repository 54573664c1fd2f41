/*
 * Is a process stuck?  Judged by its heartbeats and by how our own time passed.
 */
#ifndef MASTER_WATCHDOG_H
#define MASTER_WATCHDOG_H

#include <sys/types.h>

#include "shm/shm_base.h"

/* What is remembered of a process; zeroed for a new one. */
struct master_watch {
	uint64_t heartbeat_us; /* the last one that was seen */
	uint64_t fair_us;      /* since then, as far as we were on time */
	uint64_t suspect_us;   /* fair_us when it was suspected; 0: it is not */
	uint64_t cpu_us;       /* its CPU time then */
};

/* What the kernel says of it. */
struct master_watch_facts {
	char state;	 /* of /proc/PID/stat: R, S, D, T, t ... */
	uint64_t cpu_us; /* user and system */
};

enum master_verdict {
	MASTER_VERDICT_FINE = 0,
	MASTER_VERDICT_SUSPECT, /* facts are needed next time */
	MASTER_VERDICT_STUCK,
};

/* How often to look, and which pause between looks is too long to judge by. */
uint64_t master_watchdog_period_us(uint64_t limit_us);
bool master_watchdog_is_late(uint64_t limit_us, uint64_t pause_us);

/*
 * One more look: heartbeat_us is what the process wrote last, pause_us our time
 * since the last look, 0 if that was late.  facts: NULL while it is not
 * suspected.
 */
enum master_verdict master_watchdog_judge(struct master_watch *watch,
    uint64_t limit_us, uint64_t heartbeat_us, uint64_t pause_us,
    const struct master_watch_facts *facts) SHM_MUSTCHECK;

/* Read /proc/PID/stat; false: it is gone. */
bool master_watchdog_facts(
    pid_t pid, struct master_watch_facts *facts) SHM_MUSTCHECK;

#endif
