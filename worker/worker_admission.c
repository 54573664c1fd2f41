#include "config.h"

#include "worker/worker_admission.h"

#define STALE_US (10 * WORKER_ADMISSION_INTERVAL_US)

static uint64_t
root_of(uint64_t square)
{
	uint64_t root = 0;

	for (uint64_t bit = UINT64_C(1) << 31; bit > 0; bit >>= 1)
		if ((root | bit) * (root | bit) <= square)
			root |= bit;
	return root;
}

/* Between two refusals; count > 0. */
static uint64_t
gap_us(uint64_t count)
{
	const uint64_t interval_us = WORKER_ADMISSION_INTERVAL_US;

	return root_of(interval_us * interval_us / count);
}

void
worker_admission_waits(struct worker_admission *admission, uint64_t wait_us)
{
	if (wait_us < admission->least_us)
		admission->least_us = wait_us;
}

void
worker_admission_step(struct worker_admission *admission, uint64_t now_us)
{
	uint64_t least_us = admission->least_us, count = admission->count;
	uint64_t all = admission->asked * admission->asked;
	bool rises;

	/* Nothing was measured yet, or not for a long time. */
	if (least_us == UINT64_MAX ||
	    now_us >= admission->interval_end_us + STALE_US)
		least_us = count = 0;
	rises = least_us >= admission->last_us;
	admission->last_us = least_us;
	if (least_us > 4 * admission->target_us)
		count = 2 * count + all / 16 + 4; /* a fourth at once */
	else if (least_us > admission->target_us && rises)
		count += count / 4 + 1;
	else if (least_us < admission->target_us / 4)
		count /= least_us == 0 ? 4 : 2;
	else if (least_us <= admission->target_us && !rises)
		count -= (count + 7) / 8;
	admission->count = count < all ? count : all;
	admission->asked = 0;
	admission->least_us = UINT64_MAX;
	admission->interval_end_us = now_us + WORKER_ADMISSION_INTERVAL_US;
}

bool
worker_admission_refuses(struct worker_admission *admission, uint64_t now_us)
{
	uint64_t gap;

	admission->asked++;
	if (admission->count == 0 || now_us < admission->next_us)
		return false;
	gap = gap_us(admission->count);
	/* Of refusals that nobody came for, an interval's are caught up with.
	 */
	admission->next_us =
	    now_us - admission->next_us < WORKER_ADMISSION_INTERVAL_US
		? admission->next_us + gap
		: now_us + gap;
	admission->count++;
	return true;
}
