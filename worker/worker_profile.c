/*
 * The sampler: a timer on the CPU time of the loop's thread sends SIGPROF, and
 * its handler writes the stack into the worker's block.
 *
 * An idle worker has no samples and pays nothing; a busy one pays one walk of
 * its stack each 1/hertz s of CPU time.  What was asked for comes from shared
 * memory and is judged: the rate and the end are bounded whatever they say.
 */
#include "config.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "worker/worker_log.h"
#include "worker/worker_profile.h"
#include "worker/worker_stack.h"

#define HERTZ_MAX 1000

/* glibc gives the field no name before 2.42 or so. */
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

_Static_assert(SHM_PROFILE_DEPTH <= WORKER_STACK_DEPTH, "a walk is enough");

/* The handler's: it has no argument of ours. */
static struct shm_profile_worker *block;
static volatile uint32_t used; /* of its samples; not believed from there */

static void
on_sigprof(int number, siginfo_t *info, void *context)
{
	struct shm_profile_sample *sample;

	(void)number;
	(void)info;
	if (used >= SHM_PROFILE_SAMPLES) {
		atomic_store_explicit(&block->lost,
		    atomic_load_explicit(&block->lost, memory_order_relaxed) +
			1,
		    memory_order_relaxed);
		return;
	}
	sample = &block->sample[used];
	sample->depth = worker_stack_walk(
	    context, WORKER_STACK_QUICK, sample->pc, SHM_PROFILE_DEPTH);
	used++;
	/* shm_profile.h's I1 */
	atomic_store_explicit(&block->count, used, memory_order_release);
}

static int
timer_begin(struct worker_profile *profile, uint32_t hertz)
{
	const long interval_ns = 1000000000 / (long)hertz;
	const struct itimerspec every = {
	    .it_interval = {interval_ns / 1000000000, interval_ns % 1000000000},
	    .it_value = {interval_ns / 1000000000, interval_ns % 1000000000}};
	struct sigevent event = {
	    .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGPROF};

	event.sigev_notify_thread_id = gettid();
	if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &profile->timer) ==
	    -1)
		return -1;
	if (timer_settime(profile->timer, 0, &every, NULL) == 0)
		return 0;
	timer_delete(profile->timer);
	return -1;
}

static void
profile_begin(struct worker_profile *profile, uint64_t now_us)
{
	uint64_t until_us = atomic_load_explicit(
	    &profile->request->until_us, memory_order_relaxed);
	uint64_t last_us = now_us + SHM_PROFILE_SECONDS_MAX * 1000000ull;
	uint32_t hertz = atomic_load_explicit(
	    &profile->request->hertz, memory_order_relaxed);

	if (until_us <= now_us)
		return; /* over before we saw it */
	if (hertz == 0)
		hertz = SHM_PROFILE_HERTZ;
	if (hertz > HERTZ_MAX)
		hertz = HERTZ_MAX;
	used = 0;
	atomic_store_explicit(&block->count, 0, memory_order_relaxed);
	atomic_store_explicit(&block->lost, 0, memory_order_relaxed);
	atomic_store_explicit(
	    &block->serial, profile->serial, memory_order_release);
	profile->until_us = until_us < last_us ? until_us : last_us;
	profile->is_on = timer_begin(profile, hertz) == 0;
	if (!profile->is_on)
		worker_log(WORKER_LOG_WARN, "profile_failed",
		    "this worker cannot be profiled",
		    LOG_STR("error", strerror(errno)), LOG_END);
}

static void
profile_end(struct worker_profile *profile)
{
	if (profile->is_on)
		timer_delete(profile->timer);
	profile->is_on = false;
}

void
worker_profile_change(struct worker_profile *profile, uint64_t now_us)
{
	uint32_t serial = atomic_load_explicit(
	    &profile->request->serial, memory_order_acquire);

	profile_end(profile);
	if (serial == profile->serial)
		return;
	profile->serial = serial;
	profile_begin(profile, now_us);
}

void
worker_profile_open(
    struct worker_profile *profile, struct shm_task *task, uint32_t slot)
{
	struct sigaction action = {
	    .sa_sigaction = on_sigprof, .sa_flags = SA_SIGINFO | SA_RESTART};

	SHM_ASSERT(slot < SHM_TASK_SLOTS);
	*profile = (struct worker_profile){.request = &task->profile};
	/* One that is going on includes us from the first turn. */
	block = &task->samples[slot];
	used = 0;
	sigemptyset(&action.sa_mask);
	/* From here on for good: a late signal must find it. */
	sigaction(SIGPROF, &action, NULL);
}

void
worker_profile_close(struct worker_profile *profile)
{
	profile_end(profile);
}
