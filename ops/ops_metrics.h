/*
 * GET /metrics: the counters for Prometheus and its like.
 */
#ifndef OPS_METRICS_H
#define OPS_METRICS_H

#include "ops/ops_http.h"

enum MHD_Result ops_metrics(const struct ops_request *request);

#endif
