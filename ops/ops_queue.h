/*
 * The kernel's queues of connections that nobody has accepted yet.
 */
#ifndef OPS_QUEUE_H
#define OPS_QUEUE_H

#include "ops/ops.h"

struct ops_queue {
	bool is_known;
	uint64_t waiting;   /* of our TCP sockets */
	uint64_t limit;	    /* of them together */
	uint64_t overflows; /* of this network namespace, since it began */
};

/* Ask the kernel about the TCP sockets of addresses ("127.0.0.1:8080
 * [::1]:8080"), by their ports.  Takes tens of microseconds. */
void ops_queue_look(struct ops_queue *queue, const char *addresses);

#endif
