/*
 * Answers about the service itself, for api/ and ops.  None needs a database.
 */
#ifndef API_HEALTH_H
#define API_HEALTH_H

#include "api/api.h"

/* GET /livez: the process that answers is alive. */
void api_health_livez(struct api_reply *reply);

/* GET /readyz: may a load balancer send requests here? */
void api_health_readyz(const struct api *api, struct api_slice query,
    bool as_problem_json, struct api_buf *buf, struct api_reply *reply);

/* GET /health and /actuator/health: the same in the original's words. */
void api_health_actuator(const struct api *api, struct api_reply *reply);

/* ---- what these are made of, for others */

/* "starting", "ready" or "draining". */
const char *api_health_state(const struct shm_board *board);
/* The back end of all workers that have one; "mixed" while they differ. */
const char *api_health_io(const struct shm_board *board);

#endif
