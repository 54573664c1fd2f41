/*
 * GET /status.json: everything about the task, as of the last second.
 */
#ifndef OPS_STATUS_H
#define OPS_STATUS_H

#include "ops/ops_http.h"
#include "ops/ops_json.h"

struct ops_site;

/* The object that books-counters(7) describes. */
void ops_status_write(struct ops_site *site, struct ops_json *json);

enum MHD_Result ops_status(const struct ops_request *request);

#endif
