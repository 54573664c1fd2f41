/*
 * What the files master_supervise*.c share and nobody else sees.
 */
#ifndef MASTER_SUPERVISE_PART_H
#define MASTER_SUPERVISE_PART_H

#include <signal.h>

#include "master/master_cache.h"
#include "master/master_slot.h"
#include "master/master_supervise.h"

enum master_phase {
	MASTER_PHASE_RUNNING = 0,
	MASTER_PHASE_DRAINING,
	MASTER_PHASE_STOPPING,
	MASTER_PHASE_KILLING,
};

struct master_supervisor {
	const struct master_heritage *heritage;
	struct master_listen *listen;
	enum master_phase phase;
	int exit_code;
	bool is_ready; /* READY=1 was said */
	bool has_listeners;
	uint64_t close_listen_us;
	uint64_t kill_us;
	uint64_t unsupported_said; /* a bit for each signal */
	sigset_t signals;
	struct master_slot worker[SHM_BOARD_WORKERS_MAX];
	struct master_slot migrate;
	struct master_slot ops;
	struct master_slot audit; /* start_us: wanted, when it has ended */
	bool helpers_told;	  /* ops and the audit: to end */
	struct master_cache cache;
};

static inline uint32_t
master_supervise_workers(const struct master_supervisor *supervisor)
{
	return supervisor->heritage->options->workers;
}

/* ---- master_supervise.c */

/* A child said that it can never work: end booksd with its exit code. */
void master_supervise_give_up(
    struct master_supervisor *supervisor, pid_t pid, int code);

/* ---- master_supervise_child.c */

/* Reap who has died, and plan successors. */
void master_supervise_reap(struct master_supervisor *supervisor);
/* Start those whose time has come. */
void master_supervise_start_due(
    struct master_supervisor *supervisor, uint64_t now_us);

#endif
