/*
 * The same number of connections for every worker.
 */
#ifndef WORKER_BALANCE_H
#define WORKER_BALANCE_H

#include "worker/worker_loop.h"

/* Does the worker in a slot of our board serve, and turn? */
bool worker_balance_is_serving(const struct worker_loop *loop, uint32_t slot);

/* How many of our connections should be somewhere else: count is ours, others
 * the counts of the other workers.  is_first: in no slot before ours is as
 * many.  Pure; for tests. */
uint32_t worker_balance_surplus(uint32_t count, const uint32_t *others,
    uint32_t others_count, bool is_first);

/* Compare, when it is time to.  Microseconds until the next look. */
uint64_t worker_balance_tick(struct worker_loop *loop);

#endif
