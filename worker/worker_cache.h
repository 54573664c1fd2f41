/*
 * A call's way through the cache: looking, serving, and the marks of writes.
 */
#ifndef WORKER_CACHE_H
#define WORKER_CACHE_H

#include "worker/worker_call.h"

/* Be this worker's slot in the cache. */
void worker_cache_open(struct worker_loop *loop);

/* The request is complete.  True: the call has its answer and has left, or it
 * waits.  False: do what its verdict says. */
bool worker_cache_ask(struct worker_call *call) SHM_MUSTCHECK;

/* A wait is over, or long enough: look again, and answer or load. */
void worker_cache_look_again(struct worker_call *call);

/* The load has failed: is there an answer that is better than the error's?
 * True: it was given and the call has left. */
bool worker_cache_rescue(struct worker_call *call) SHM_MUSTCHECK;

/* A write is about to be sent.  False: too many are under way. */
bool worker_cache_write_begin(struct worker_call *call) SHM_MUSTCHECK;
/* It has ended, for good.  Before its answer is written; no write is fine. */
void
worker_cache_write_end(struct worker_call *call, enum api_db_outcome outcome);

/* Requests that come next (io.h): fetch what they will look up. */
void worker_cache_soon(
    const struct worker_loop *loop, const struct io_soon *soon, uint32_t count);

#endif
