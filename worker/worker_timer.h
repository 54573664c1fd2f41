/*
 * Deadlines of numbered things (client connections), cheap to move.
 */
#ifndef WORKER_TIMER_H
#define WORKER_TIMER_H

#include "shm/shm_base.h"

#define WORKER_TIMER_NEVER   UINT64_MAX
#define WORKER_TIMER_TICK_US 20000 /* a deadline fires at most this late */

struct worker_timer;

/* NULL without memory.  fire() is called from worker_timer_run() alone, for
 * each deadline that has passed; the deadline is NEVER then. */
struct worker_timer *
worker_timer_new(uint32_t count, void (*fire)(void *owner, uint32_t index),
    void *owner, uint64_t now_us) SHM_MUSTCHECK;
void worker_timer_free(struct worker_timer **timer);

/* Set or move a deadline (WORKER_TIMER_NEVER: none).  O(1), and for a deadline
 * that moves into the future one store and one comparison. */
void worker_timer_set(
    struct worker_timer *timer, uint32_t index, uint64_t deadline_us);
uint64_t worker_timer_get(const struct worker_timer *timer, uint32_t index);

/* Fire what is due.  Microseconds until the next call is needed. */
uint64_t worker_timer_run(struct worker_timer *timer, uint64_t now_us);

#endif
