/*
 * More workers or fewer?
 *
 * Busy is the part of the time in which a worker's loop does not wait.  To grow
 * is urgent and cheap, so three seconds are enough; to shrink is neither, and a
 * worker that was retired too early has to be started again: a minute.  After
 * each step time begins anew, because the mean is another one then.
 */
#include "config.h"

#include "master/master_scale.h"

/* Since when; 0 if it is not so. */
static uint64_t
since(uint64_t before_us, bool is_so, uint64_t now_us)
{
	if (!is_so)
		return 0;
	return before_us != 0 ? before_us : now_us;
}

int
master_scale_step(struct master_scale *scale, uint32_t busy_permille,
    uint32_t workers, const uint32_t bounds[2], uint64_t now_us)
{
	bool is_busy = busy_permille > MASTER_SCALE_BUSY_PERMILLE;
	bool is_idle = busy_permille < MASTER_SCALE_IDLE_PERMILLE;
	int step = 0;

	scale->busy_us = since(scale->busy_us, is_busy, now_us);
	scale->idle_us = since(scale->idle_us, is_idle, now_us);
	if (is_busy && workers < bounds[1] &&
	    now_us >= scale->busy_us + MASTER_SCALE_BUSY_US)
		step = 1;
	if (is_idle && workers > bounds[0] &&
	    now_us >= scale->idle_us + MASTER_SCALE_IDLE_US)
		step = -1;
	if (step != 0)
		*scale = (struct master_scale){.busy_us = 0};
	return step;
}
