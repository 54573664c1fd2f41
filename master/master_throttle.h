/*
 * The CPU quota while we run: is it another one now, and does it stop us?
 */
#ifndef MASTER_THROTTLE_H
#define MASTER_THROTTLE_H

#include "master/master_sizing.h"

/* cpu.stat of a group, counted since the group began. */
struct master_throttle_stat {
	uint64_t periods;
	uint64_t throttled_periods;
	uint64_t throttled_us;
};

/* Zeroed it is ready. */
struct master_throttle {
	bool has_begun;
	uint64_t next_us; /* when to look again */
	uint64_t said_us; /* the last line about throttling, or the begin */
	struct master_throttle_stat said; /* what was counted by then */
	struct master_sizing sizing;	  /* as it is now */
};

/* Of our group and those above it the one that was stopped most, in the control
 * groups below root, as in master_group.h; all 0 without any. */
void master_throttle_read(const char *root, struct master_throttle_stat *stat);

/*
 * Look once a second: store what is found in board->cpu, and say what is new.
 * True: the limit, and with it sizing.workers, is not what it was.  next_us
 * says when it is time again.
 */
bool master_throttle_tick(struct master_throttle *throttle, const char *root,
    struct shm_board *board, uint64_t now_us) SHM_MUSTCHECK;

#endif
