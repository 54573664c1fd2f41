/*
 * Answers about the service itself; inside api/ only.  None needs a database.
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

#endif
