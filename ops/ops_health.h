/*
 * Liveness and readiness on ops' own listeners: the answers of the catalogue's
 * routes of these names, and they stay when all workers are busy.
 */
#ifndef OPS_HEALTH_H
#define OPS_HEALTH_H

#include "ops/ops_http.h"

enum MHD_Result ops_health_livez(const struct ops_request *request);
/* Follows the drain, never the database.  ?verbose */
enum MHD_Result ops_health_readyz(const struct ops_request *request);

#endif
