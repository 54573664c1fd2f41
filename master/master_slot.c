/*
 * A slot's deaths and births.
 *
 * The first death is answered at once: most often the process was killed or
 * met a rare bug, and a pause would only cost capacity.  A process that dies
 * again soon gets longer and longer pauses, so that one which cannot live does
 * not eat the CPU that the others need.  One that lived for a minute has
 * proved that it can, and its next death counts as a first one.
 */
#include "config.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>

#include "master/master_slot.h"

#define PAUSE_FIRST_MS 100
#define PAUSE_MAX_MS   30000
#define STABLE_US      60000000

uint32_t
master_slot_pause_ms(uint32_t failures)
{
	uint32_t pause = PAUSE_FIRST_MS;

	if (failures <= 1)
		return 0;
	for (uint32_t i = 2; i < failures && pause < PAUSE_MAX_MS; i++)
		pause *= 2;
	return pause < PAUSE_MAX_MS ? pause : PAUSE_MAX_MS;
}

void
master_slot_kill(const struct master_slot *slot, int number)
{
	/* ESRCH: it died and waits to be reaped. */
	if (slot->pid > 0)
		(void)kill(slot->pid, number);
}

void
master_slot_describe_death(int status, char *text, size_t bytes)
{
	const char *name;

	if (WIFEXITED(status)) {
		snprintf(text, bytes, "exit code %d", WEXITSTATUS(status));
		return;
	}
	name = sigabbrev_np(WTERMSIG(status));
	snprintf(text, bytes, "signal %d (SIG%s)%s", WTERMSIG(status),
	    name != NULL ? name : "?",
	    WCOREDUMP(status) ? ", core dumped" : "");
}

bool
master_slot_is_hopeless(int status)
{
	if (!WIFEXITED(status))
		return false;
	switch (WEXITSTATUS(status)) {
	case EX_USAGE:
	case EX_NOUSER:
	case EX_UNAVAILABLE:
	case EX_NOPERM:
	case EX_CONFIG:
		return true;
	default:
		return false;
	}
}

uint32_t
master_slot_plan(struct master_slot *slot, uint64_t now_us)
{
	uint32_t pause_ms;

	if (now_us - slot->started_us >= STABLE_US)
		slot->failures = 0;
	slot->failures++;
	pause_ms = master_slot_pause_ms(slot->failures);
	slot->start_us = now_us + (uint64_t)pause_ms * 1000;
	return pause_ms;
}
