/*
 * A hashed timing wheel (Varghese and Lauck, 1987) with lazy moves.
 *
 * WHEEL_SLOTS lists, one per tick.  An entry sits in the list of the tick at
 * which it is looked at next, which may be before its deadline but never
 * after: a keep-alive deadline moves with every request, and moving it later
 * only stores the new time.  When the tick comes, an entry whose deadline has
 * not passed is filed again, at most LOOK_AHEAD ticks on.
 *
 * INVARIANTS
 *   I1  an entry with a deadline is in exactly one list, look <= deadline
 *       rounded up to a tick, and look is at most LOOK_AHEAD ticks on.
 *   I2  all entries of one list have the same look (WHEEL_SLOTS > LOOK_AHEAD).
 *   I3  no entry has a look before next_look, so a turn before that tick
 *       costs two comparisons.
 */
#include "config.h"

#include <stdlib.h>

#include "worker/worker_timer.h"

#define WHEEL_SLOTS 256 /* power of two */
#define LOOK_AHEAD  250 /* ticks: 5 s */
#define NOBODY	    UINT32_MAX

struct timer_entry {
	uint64_t deadline_us;
	uint64_t look; /* tick; meaningful while linked */
	uint32_t next, prev;
	bool linked;
};

struct worker_timer {
	void (*fire)(void *owner, uint32_t index);
	void *owner;
	uint64_t tick; /* lists up to this tick are empty */
	uint32_t count;
	uint32_t linked_count;
	uint64_t next_look; /* no list before this tick holds an entry */
	uint32_t head[WHEEL_SLOTS];
	struct timer_entry entry[];
};

struct worker_timer *
worker_timer_new(uint32_t count, void (*fire)(void *owner, uint32_t index),
    void *owner, uint64_t now_us)
{
	struct worker_timer *timer;

	timer = calloc(1, sizeof(*timer) + count * sizeof(timer->entry[0]));
	if (timer == NULL)
		return NULL;
	timer->fire = fire;
	timer->owner = owner;
	timer->count = count;
	timer->tick = now_us / WORKER_TIMER_TICK_US;
	timer->next_look = UINT64_MAX;
	for (size_t i = 0; i < WHEEL_SLOTS; i++)
		timer->head[i] = NOBODY;
	return timer;
}

void
worker_timer_free(struct worker_timer **timer)
{
	free(*timer);
	*timer = NULL;
}

static void
entry_unlink(struct worker_timer *timer, uint32_t index)
{
	struct timer_entry *entry = &timer->entry[index];

	SHM_ASSERT(entry->linked);
	if (entry->prev != NOBODY)
		timer->entry[entry->prev].next = entry->next;
	else
		timer->head[entry->look % WHEEL_SLOTS] = entry->next;
	if (entry->next != NOBODY)
		timer->entry[entry->next].prev = entry->prev;
	entry->linked = false;
	timer->linked_count--;
}

static uint64_t
tick_after(uint64_t deadline_us)
{
	return deadline_us / WORKER_TIMER_TICK_US + 1;
}

static void
entry_link(struct worker_timer *timer, uint32_t index)
{
	struct timer_entry *entry = &timer->entry[index];
	uint64_t look = tick_after(entry->deadline_us);
	uint32_t *head;

	if (look <= timer->tick)
		look = timer->tick + 1;
	if (look > timer->tick + LOOK_AHEAD)
		look = timer->tick + LOOK_AHEAD;
	entry->look = look;
	if (look < timer->next_look)
		timer->next_look = look;
	head = &timer->head[look % WHEEL_SLOTS];
	entry->prev = NOBODY;
	entry->next = *head;
	if (*head != NOBODY)
		timer->entry[*head].prev = index;
	*head = index;
	entry->linked = true;
	timer->linked_count++;
}

void
worker_timer_set(
    struct worker_timer *timer, uint32_t index, uint64_t deadline_us)
{
	struct timer_entry *entry = &timer->entry[index];

	SHM_ASSERT(index < timer->count);
	entry->deadline_us = deadline_us;
	if (deadline_us == WORKER_TIMER_NEVER) {
		if (entry->linked)
			entry_unlink(timer, index);
		return;
	}
	if (entry->linked && entry->look <= tick_after(deadline_us))
		return;
	if (entry->linked)
		entry_unlink(timer, index);
	entry_link(timer, index);
}

uint64_t
worker_timer_get(const struct worker_timer *timer, uint32_t index)
{
	SHM_ASSERT(index < timer->count);
	return timer->entry[index].linked ? timer->entry[index].deadline_us
					  : WORKER_TIMER_NEVER;
}

static void
tick_run(struct worker_timer *timer, uint64_t now_us)
{
	uint32_t *head = &timer->head[timer->tick % WHEEL_SLOTS];

	while (*head != NOBODY) {
		uint32_t index = *head;
		struct timer_entry *entry = &timer->entry[index];

		entry_unlink(timer, index);
		if (entry->deadline_us > now_us) {
			entry_link(timer, index);
			continue;
		}
		entry->deadline_us = WORKER_TIMER_NEVER;
		timer->fire(timer->owner, index);
	}
}

static void
next_look_find(struct worker_timer *timer)
{
	timer->next_look = UINT64_MAX;
	for (uint64_t tick = timer->tick + 1; tick <= timer->tick + WHEEL_SLOTS;
	     tick++) {
		if (timer->head[tick % WHEEL_SLOTS] == NOBODY)
			continue;
		timer->next_look = tick;
		return;
	}
}

/* After a long sleep of the process every list is visited once, not more. */
uint64_t
worker_timer_run(struct worker_timer *timer, uint64_t now_us)
{
	uint64_t now = now_us / WORKER_TIMER_TICK_US;

	if (now >= timer->next_look) {
		if (now > timer->tick + WHEEL_SLOTS)
			timer->tick = now - WHEEL_SLOTS;
		while (timer->tick < now) {
			timer->tick++;
			tick_run(timer, now_us);
		}
		next_look_find(timer);
	} else if (now > timer->tick) {
		timer->tick = now;
	}
	if (timer->next_look == UINT64_MAX)
		return WORKER_TIMER_NEVER;
	return timer->next_look * WORKER_TIMER_TICK_US - now_us;
}
