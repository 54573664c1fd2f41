/*
 * Calls that wait for a load of somebody else, in this worker or another.
 */
#ifndef WORKER_WAIT_H
#define WORKER_WAIT_H

#include "worker/worker_call.h"

void worker_wait_add(struct worker_call *call);
/* It waits no longer; one that does not wait is fine. */
void worker_wait_remove(struct worker_call *call);

/* The cache's descriptor is readable: some load has ended. */
void worker_wait_woken(struct worker_loop *loop);

/* Look again for those whose time has come.  Microseconds until the next
 * (UINT64_MAX: nobody waits). */
uint64_t worker_wait_tick(struct worker_loop *loop);

#endif
