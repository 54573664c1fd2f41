/*
 * What the files master_supervise*.c share and nobody else sees.
 */
#ifndef MASTER_SUPERVISE_PART_H
#define MASTER_SUPERVISE_PART_H

#include <signal.h>

#include "master/master_cache.h"
#include "master/master_orders.h"
#include "master/master_scale.h"
#include "master/master_slot.h"
#include "master/master_supervise.h"
#include "master/master_takeover.h"
#include "master/master_throttle.h"
#include "master/master_upgrade.h"

enum master_phase {
	MASTER_PHASE_RUNNING = 0,
	MASTER_PHASE_DRAINING,
	MASTER_PHASE_STOPPING,
	MASTER_PHASE_KILLING,
};

/* Replacing all workers, one by one (master_supervise_roll.c). */
struct master_roll {
	bool is_under_way;
	bool is_asked_again; /* a reload came meanwhile */
	bool is_back;	     /* it returns to the settings before */
	bool is_ops_stale;   /* ops has to be told something else */
	uint32_t old;	     /* whom successor relieves */
	pid_t old_pid;
	uint32_t successor; /* SHM_BOARD_SLOTS: nobody is under way */
	uint64_t began_us;
	uint64_t told_us;      /* an old one to go, last */
	uint64_t successor_us; /* it was planned */
	uint64_t serving_us;   /* it serves since, 0: not yet */
	uint32_t generation_before;
	struct master_settings *before; /* NULL: there is no way back */
};

struct master_supervisor {
	struct master_heritage *heritage;
	struct master_listen *listen;
	enum master_phase phase;
	int exit_code;
	bool is_ready; /* READY=1 was said */
	bool has_listeners;
	uint64_t close_listen_us;
	uint64_t kill_us;
	sigset_t signals;
	uint32_t wanted; /* workers, while they do not rest */
	bool is_resting; /* SIGWINCH: none is wanted for now */
	struct master_slot worker[SHM_BOARD_SLOTS];
	struct master_slot migrate;
	struct master_slot ops;
	struct master_slot audit; /* start_us: wanted, when it has ended */
	uint32_t generation;	  /* of the settings in use */
	uint32_t generations;	  /* how many there were */
	struct master_roll roll;
	struct master_scale scale;
	uint64_t scaled_us;  /* the last look at the load */
	uint64_t watched_us; /* the watchdog's last look */
	bool helpers_told;   /* ops and the audit: to end */
	struct master_cache cache;
	struct master_throttle throttle;
	struct master_upgrade upgrade;
};

/* ---- master_supervise.c */

/* SIGTERM's and SIGUSR1's work, whoever asked for it. */
void master_supervise_drain(struct master_supervisor *supervisor);
void master_supervise_reopen(struct master_supervisor *supervisor);
/* Another master serves: finish what we have, and end.  ops ends at once when
 * the other's does its work. */
void master_supervise_leave(
    struct master_supervisor *supervisor, bool is_ops_useless);
/* The sooner of two times; 0 is never. */
static inline uint64_t
master_supervise_sooner(uint64_t at_us, uint64_t when_us)
{
	return when_us > 0 && when_us < at_us ? when_us : at_us;
}

/* A child said that it can never work: end booksd with its exit code. */
void master_supervise_give_up(
    struct master_supervisor *supervisor, pid_t pid, int code);

/* ---- master_upgrade.c */

/* The other half's master and its processes are dead: what they owned becomes
 * nobody's. */
void master_supervise_sweep_other(
    struct master_supervisor *supervisor, uint64_t now_us);

/* ---- master_supervise_workers.c */

/* Want that many from now on, 1 to SHM_BOARD_WORKERS_MAX: start new ones or
 * retire the youngest.  reason is for the log. */
void master_supervise_resize(
    struct master_supervisor *supervisor, uint32_t wanted, const char *reason);
/* The CPUs that we may use are others now: so are the workers of auto. */
void master_supervise_limit(struct master_supervisor *supervisor);
/* One more or one less, by a person; never none. */
void master_supervise_step(
    struct master_supervisor *supervisor, int step, const char *reason);
/* Retire all workers and start none until somebody wants some again. */
void master_supervise_rest(struct master_supervisor *supervisor);
/* The end of that; false: they did not rest. */
bool master_supervise_wake(struct master_supervisor *supervisor);
/* Tell a worker to finish what it has; nobody follows it in its slot. */
void master_supervise_retire(struct master_supervisor *supervisor, uint32_t i);
/* Has it a process, or one to come, that is not told to end? */
bool master_supervise_is_wanted(const struct master_slot *slot);
/* A place for another process, SHM_BOARD_SLOTS: none is free. */
uint32_t master_supervise_place(const struct master_supervisor *supervisor);
/* Plan a process there. */
void master_supervise_plan(
    struct master_supervisor *supervisor, uint32_t i, uint64_t now_us);
/* Do what ops has asked for. */
void master_supervise_obey(struct master_supervisor *supervisor);
/* As many as are wanted, and an end for those that do not come to one.  When
 * it is time again; UINT64_MAX: never. */
uint64_t master_supervise_workers_tick(
    struct master_supervisor *supervisor, uint64_t now_us);

/* ---- master_supervise_roll.c */

/* Read the settings again and, if they are right, replace all workers. */
void master_supervise_reload(struct master_supervisor *supervisor);
/* How many workers more than wanted the roll has for now. */
uint32_t
master_supervise_roll_extra(const struct master_supervisor *supervisor);
/* Go on with it.  When to look again; UINT64_MAX: it is over. */
uint64_t master_supervise_roll_tick(
    struct master_supervisor *supervisor, uint64_t now_us);

/* ---- master_supervise_watch.c */

/* Look whether everybody lives, and kill who does not.  When to look again. */
uint64_t master_supervise_watch_tick(
    struct master_supervisor *supervisor, uint64_t now_us);

/* ---- master_supervise_child.c */

/* Reap who has died, and plan successors. */
void master_supervise_reap(struct master_supervisor *supervisor);
/* Start those whose time has come. */
void master_supervise_start_due(
    struct master_supervisor *supervisor, uint64_t now_us);

#endif
