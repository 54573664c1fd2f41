/*
 * The worker's side of shm_profile.h: samples of its stack by CPU time, while
 * ops asks for them.
 */
#ifndef WORKER_PROFILE_H
#define WORKER_PROFILE_H

#include <time.h>

#include "shm/shm_task.h"

struct worker_profile {
	const struct shm_profile_request *request;
	uint32_t serial; /* of the last request that was seen */
	bool is_on;
	uint64_t until_us;
	timer_t timer;
};

/* After worker_stack_open(); slot is the one in the task. */
void worker_profile_open(
    struct worker_profile *profile, struct shm_task *task, uint32_t slot);
void worker_profile_close(struct worker_profile *profile);

/* A new request, or the end of one (worker_profile_tick() finds out). */
void worker_profile_change(struct worker_profile *profile, uint64_t now_us);

/* Once a turn. */
static inline void
worker_profile_tick(struct worker_profile *profile, uint64_t now_us)
{
	uint32_t serial = atomic_load_explicit(
	    &profile->request->serial, memory_order_acquire);

	if (serial != profile->serial ||
	    (profile->is_on && now_us >= profile->until_us))
		worker_profile_change(profile, now_us);
}

#endif
