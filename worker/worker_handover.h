/*
 * Idle connections move to another worker of the same master.
 *
 * The master makes a pair of sockets for each slot before the first fork:
 * everybody may send to a slot, its worker receives.  A connection is one
 * message: a struct worker_handover_note and its descriptor.
 */
#ifndef WORKER_HANDOVER_H
#define WORKER_HANDOVER_H

#include "worker/worker_loop.h"

#define WORKER_HANDOVER_VERSION 1

struct worker_handover_note {
	uint32_t version;
	uint32_t keepalive_ms; /* what is left until it is closed as idle */
};

/* Is there a worker that would take a connection of ours? */
bool worker_handover_is_possible(const struct worker_loop *loop);

/* So many more connections are to be given away, each when it is idle and
 * somebody takes it. */
void worker_handover_want(struct worker_loop *loop, uint32_t count);

/* Look for idle ones.  Microseconds until the next look (UINT64_MAX: none is
 * to be given away). */
uint64_t worker_handover_tick(struct worker_loop *loop);

/* The connection has become idle: is it to go? */
void worker_handover_idle(struct worker_conn *conn);
/* io's released(). */
void worker_handover_released(struct worker_conn *conn, int fd);
/* It is dropped instead. */
void worker_handover_forget(struct worker_conn *conn);

/* Others have sent: take what they give. */
void worker_handover_receive(struct worker_loop *loop);

#endif
