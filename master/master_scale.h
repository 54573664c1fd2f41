/*
 * More workers or fewer?  For workers = MIN..MAX.
 */
#ifndef MASTER_SCALE_H
#define MASTER_SCALE_H

#include "shm/shm_base.h"

#define MASTER_SCALE_BUSY_PERMILLE 750	    /* above it for ... */
#define MASTER_SCALE_BUSY_US	   3000000  /* ... so long: one more */
#define MASTER_SCALE_IDLE_PERMILLE 300	    /* below it for ... */
#define MASTER_SCALE_IDLE_US	   60000000 /* ... so long: one less */

/* Zeroed, it is ready. */
struct master_scale {
	uint64_t busy_us; /* since when the workers are busy, 0: they are not */
	uint64_t idle_us; /* likewise idle */
};

/*
 * Of workers whose mean of busy time is busy_permille: 1 for one more, -1 for
 * one less, 0 for none.  Never above max, never below min; who was resized by
 * hand to beyond them is led back by idleness alone.
 */
int master_scale_step(struct master_scale *scale, uint32_t busy_permille,
    uint32_t workers, const uint32_t bounds[2], uint64_t now_us) SHM_MUSTCHECK;

#endif
