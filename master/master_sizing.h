/*
 * How many workers "auto" is: one for each CPU that this process may use.
 */
#ifndef MASTER_SIZING_H
#define MASTER_SIZING_H

#include "shm/shm_board.h"

struct master_sizing {
	uint32_t workers;
	uint32_t millicpus; /* the limit; 0: only the mask limits */
	char source[160];   /* what decided, for the log */
};

/* CPUs in the affinity mask; at least 1. */
uint32_t master_sizing_affinity(void);

/*
 * Decide from the mask, from the limit of the container service's task (0:
 * none) and from the CPU limits of the control groups, version 2 or 1, found
 * below root ("" for this machine; tests give a folder with proc/self/cgroup,
 * proc/self/mountinfo and the hierarchy itself).  Any time: what limits us can
 * change while we run.
 */
void master_sizing_decide(const char *root, uint32_t affinity,
    uint32_t task_millicpus, struct master_sizing *sizing);

#endif
