/*
 * The notification session: hears from the database what others changed.
 *
 * One connection of the ops process, without waiting for anything but the
 * lookup of a host name.  The caller polls ops_listen_fd() and calls
 * ops_listen_ready() when it is, and ops_listen_tick() when ops_listen_due_us()
 * has come.
 */
#ifndef OPS_LISTEN_H
#define OPS_LISTEN_H

#include "ops/ops_notice.h"

struct ops_listen;

/* Without a cache there is nothing to hear: the state is off for ever.
 * Borrows options.  NULL without memory. */
struct ops_listen *
ops_listen_new(const struct ops_options *options) SHM_MUSTCHECK;
void ops_listen_free(struct ops_listen **listen); /* takes; NULL is fine */

/* -1: nothing to poll.  events: POLLIN and POLLOUT. */
int ops_listen_fd(const struct ops_listen *listen, short *events);
void ops_listen_ready(struct ops_listen *listen, uint64_t now_us);

/* Do what is due; when that is (UINT64_MAX: never). */
void ops_listen_tick(struct ops_listen *listen, uint64_t now_us);
uint64_t ops_listen_due_us(const struct ops_listen *listen);

/* What people are told of it. */
struct ops_listen_status {
	const char *state;  /* "ready", "away" or "off" */
	const char *reason; /* why it is away; "" */
	uint64_t since_us;  /* of the state */
	uint64_t heard_us;  /* its own heartbeat, last; 0: never */
	uint64_t sessions;  /* that became ready */
	const struct ops_notice *notice;
};
void ops_listen_status(
    const struct ops_listen *listen, struct ops_listen_status *status);

#endif
