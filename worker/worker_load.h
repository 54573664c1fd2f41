/*
 * Loading an answer for the cache, for a client or for nobody.
 */
#ifndef WORKER_LOAD_H
#define WORKER_LOAD_H

#include "worker/worker_call.h"

/* How long the database may take for a load: so long others wait for it. */
uint64_t worker_load_us(const struct worker_loop *loop);
/* When others may take a claim that begins now. */
uint64_t worker_load_deadline(const struct worker_loop *loop);

/* What the call reads will be stored under its lease. */
void worker_load_begin(struct worker_call *call);

/* It will not be, after all; a call without a claim is fine. */
void worker_load_give_back(struct worker_call *call);

/* An answer is stale: if nobody loads it anew yet, do so without a client.
 * Before the stale one is served, because the call may end with it. */
void worker_load_renew(struct worker_call *call);

/* The client is going away: is there a reason to go on without it? */
bool worker_load_goes_on(const struct worker_call *call);

/* A streamed list was written to data: keep it for the cache, as long as it
 * fits. */
void worker_load_tee(struct worker_call *call, const char *data, size_t len);
/* It was written to call->cache.tee itself. */
void worker_load_tee_check(struct worker_call *call);
/* It cannot be kept: whoever waits need not wait for its end. */
void worker_load_cut(struct worker_call *call);

/* The statement has ended for good, and with OK call->reply is the answer (of a
 * list: all but its body).  Stores it, wakes who waits.  Without a load it
 * does nothing. */
void worker_load_end(struct worker_call *call, enum api_db_outcome outcome,
    const char *sqlstate);

#endif
