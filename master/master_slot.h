/*
 * The place of a child process: which one is there, and when the next comes.
 */
#ifndef MASTER_SLOT_H
#define MASTER_SLOT_H

#include <sys/types.h>

#include "master/master_watchdog.h"

struct master_slot {
	pid_t pid;	     /* 0: none */
	uint64_t started_us; /* of pid */
	uint64_t start_us;   /* when to start the next one; 0: never */
	uint32_t failures;   /* deaths in a row */
	uint32_t generation; /* of the settings that pid was started with */
	bool is_first;	   /* of the start: if it can never work, booksd ends */
	bool is_leaving;   /* pid was told to end and has no successor here */
	uint32_t drain_ms; /* the time that pid was given for its end */
	uint64_t overdue_us;	   /* with it: when pid is killed */
	struct master_watch watch; /* of pid */
	bool is_stuck;		   /* the watchdog kills it */
	uint64_t abort_us;	   /* with it: when SIGABRT was not enough */
};

/* Has it no process, and none to come? */
static inline bool
master_slot_is_free(const struct master_slot *slot)
{
	return slot->pid == 0 && slot->start_us == 0;
}

/* The pause after that many deaths in a row: none, then 100 ms doubling up to
 * 30 s. */
uint32_t master_slot_pause_ms(uint32_t failures);

/* The slot's process is gone: plan the next one.  The pause in ms. */
uint32_t master_slot_plan(struct master_slot *slot, uint64_t now_us);

/* Signal the slot's process, if there is one. */
void master_slot_kill(const struct master_slot *slot, int number);

/* A wait(2) status in words: "exit code 1", "signal 11 (SIGSEGV), core
 * dumped". */
void master_slot_describe_death(int status, char *text, size_t bytes);

/* Did the process say by its exit code that it would be the same next time? */
bool master_slot_is_hopeless(int status);

#endif
