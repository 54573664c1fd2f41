/*
 * Is a process stuck?
 *
 * A worker writes the time at the beginning of each turn of its loop, at least
 * four times within the limit.  When that stands still the worker is stopped,
 * loops or waits for something; or nobody could have done better.  To kill it
 * for that would make a bad moment worse, so what counts is not time but fair
 * time:
 *
 *  - Time during which we were late ourselves does not count.  When the whole
 *    container was frozen, stopped or throttled, or the machine slept, we were
 *    too.
 *  - Who is ready to run and got hardly any CPU time, or waits for a disk, is
 *    starved: that counts for a third.
 *  - Who is held by a debugger is not judged.
 */
#include "config.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "master/master_watchdog.h"

#define LOOKS	     8 /* within the limit */
#define STARVED_MORE 3 /* times the limit */
#define CPU_PART     4 /* who got a quarter of a CPU is not starved */
#define LATE_SLACK   5000

uint64_t
master_watchdog_period_us(uint64_t limit_us)
{
	return limit_us / LOOKS;
}

bool
master_watchdog_is_late(uint64_t limit_us, uint64_t pause_us)
{
	uint64_t period_us = master_watchdog_period_us(limit_us);

	return pause_us > period_us + period_us / 4 + LATE_SLACK;
}

static bool
is_starved(
    const struct master_watch *watch, const struct master_watch_facts *facts)
{
	uint64_t suspect_us = watch->fair_us - watch->suspect_us;

	if (facts->state == 'D')
		return true;
	return facts->state == 'R' &&
	       facts->cpu_us - watch->cpu_us < suspect_us / CPU_PART;
}

enum master_verdict
master_watchdog_judge(struct master_watch *watch, uint64_t limit_us,
    uint64_t heartbeat_us, uint64_t pause_us,
    const struct master_watch_facts *facts)
{
	if (heartbeat_us != watch->heartbeat_us ||
	    (facts != NULL && facts->state == 't')) {
		*watch = (struct master_watch){.heartbeat_us = heartbeat_us};
		return MASTER_VERDICT_FINE;
	}
	watch->fair_us += pause_us;
	if (watch->fair_us < limit_us / 2)
		return MASTER_VERDICT_FINE;
	if (facts == NULL)
		return MASTER_VERDICT_SUSPECT;
	if (watch->suspect_us == 0) {
		watch->suspect_us = watch->fair_us;
		watch->cpu_us = facts->cpu_us;
		return MASTER_VERDICT_SUSPECT;
	}
	if (watch->fair_us < limit_us ||
	    (watch->fair_us < limit_us * STARVED_MORE &&
		is_starved(watch, facts)))
		return MASTER_VERDICT_SUSPECT;
	return MASTER_VERDICT_STUCK;
}

bool
master_watchdog_facts(pid_t pid, struct master_watch_facts *facts)
{
	char path[32], text[1024], *end;
	unsigned long user, kernel;
	long second = sysconf(_SC_CLK_TCK);
	FILE *file;
	size_t bytes;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	if (file == NULL)
		return false;
	bytes = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[bytes] = '\0';
	end = strrchr(text, ')'); /* the name may hold anything */
	if (end == NULL || second <= 0 ||
	    sscanf(end + 1,
		" %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
		&facts->state, &user, &kernel) != 3)
		return false;
	facts->cpu_us = ((uint64_t)user + kernel) * 1000000 / (uint64_t)second;
	return true;
}
