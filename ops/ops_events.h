/*
 * GET /events: the status each second, as server-sent events; and the history
 * by itself.
 */
#ifndef OPS_EVENTS_H
#define OPS_EVENTS_H

#include "ops/ops_http.h"

#define OPS_EVENTS_MAX 8 /* clients at a time: then 503 */

struct ops_site;
struct ops_events_client;

struct ops_events {
	uint64_t serial; /* of the status; 0: there was none */
	bool is_ending;
	struct ops_events_client *client[OPS_EVENTS_MAX]; /* or NULL */
};

enum MHD_Result ops_events(const struct ops_request *request);
enum MHD_Result ops_events_history(const struct ops_request *request);

/* There is a new status: wake the clients. */
void ops_events_tick(struct ops_site *site);
/* Wake them for the end, before their servers are stopped. */
void ops_events_end(struct ops_events *events);

#endif
