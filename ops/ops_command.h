/*
 * What administrators ask the master for, through ops.
 */
#ifndef OPS_COMMAND_H
#define OPS_COMMAND_H

#include "ops/ops_http.h"

/* POST /drain, POST /reload: as the signals TERM and HUP. */
enum MHD_Result ops_command_drain(const struct ops_request *request);
enum MHD_Result ops_command_reload(const struct ops_request *request);

/* POST /workers?n=N: how many there shall be. */
enum MHD_Result ops_command_workers(const struct ops_request *request);

#endif
