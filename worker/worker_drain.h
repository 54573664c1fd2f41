/*
 * The way out: from SIGTERM or SIGHUP to the last answer.
 */
#ifndef WORKER_DRAIN_H
#define WORKER_DRAIN_H

#include "worker/worker_loop.h"

/* SIGTERM has come: the whole task ends. */
void worker_drain_begin(struct worker_loop *loop);
/* SIGHUP has come: this worker ends, the others go on. */
void worker_drain_retire(struct worker_loop *loop);

/* Move on when it is time.  Microseconds until the next look (UINT64_MAX: not
 * draining). */
uint64_t worker_drain_tick(struct worker_loop *loop);

#endif
