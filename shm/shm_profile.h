/*
 * Samples of where workers spend their CPU time: ops asks, workers write, ops
 * reads.
 *
 * LAYOUT: a header and a block for each worker slot of both halves, in the
 * task's mapping (shm_task.h).  Pages of blocks are there only after they were
 * written to; ops gives them back afterwards.
 *
 * WHO MAY WRITE
 *   until_us, hertz, serial	ops, serial last
 *   a block			the worker in the slot, from its SIGPROF
 *				handler; cleared by it when a serial begins
 *
 * INVARIANTS
 *   I1  count is stored after the sample (release): a reader that saw it
 *       (acquire) finds count samples complete.
 *   I2  depth is at most SHM_PROFILE_DEPTH; a reader clamps it all the same.
 *
 * A WRITER DIES INSIDE: its last sample is not counted.
 */
#ifndef SHM_PROFILE_H
#define SHM_PROFILE_H

#include <stdatomic.h>

#include "shm/shm_base.h"

#define SHM_PROFILE_DEPTH	30
#define SHM_PROFILE_SAMPLES	6400 /* 60 s at 99 Hz; more: lost */
#define SHM_PROFILE_HERTZ	99
#define SHM_PROFILE_SECONDS_MAX 60

struct shm_profile_sample {
	uint32_t depth;
	uint32_t reserved;
	uint64_t pc[SHM_PROFILE_DEPTH]; /* the innermost first */
};

struct shm_profile_worker {
	_Alignas(128) _Atomic uint32_t serial; /* what the samples belong to */
	_Atomic uint32_t count;
	_Atomic uint32_t lost;
	struct shm_profile_sample sample[SHM_PROFILE_SAMPLES];
};

struct shm_profile_request {
	_Alignas(128) _Atomic uint32_t serial; /* 0: never asked */
	_Atomic uint32_t hertz;
	_Atomic uint64_t until_us; /* shm_clock_us() */
};

#endif
