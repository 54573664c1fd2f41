/*
 * GET /profile?seconds=N: where the workers spend their CPU time, as folded
 * stacks.
 */
#ifndef OPS_PROFILE_H
#define OPS_PROFILE_H

#include "ops/ops_http.h"

#define OPS_PROFILE_SECONDS_DEFAULT 10

struct ops_profile_run;

struct ops_profile {
	struct ops_profile_run *run; /* NULL: nobody asked */
};

enum MHD_Result ops_profile(const struct ops_request *request);

/* When to be called next; UINT64_MAX: no need. */
uint64_t ops_profile_due_us(const struct ops_profile *profile);
void ops_profile_tick(struct ops_profile *profile, uint64_t now_us);
/* Let the client go, before its server is stopped. */
void ops_profile_end(struct ops_profile *profile);

#endif
