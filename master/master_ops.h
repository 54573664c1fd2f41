/*
 * What ops is told, and the log that it is lent.
 */
#ifndef MASTER_OPS_H
#define MASTER_OPS_H

#include "master/master_child.h"
#include "ops/ops.h"

/* Is there something for ops to do? */
bool master_ops_is_wanted(const struct master_heritage *heritage);

void master_ops_options(
    const struct master_heritage *heritage, struct ops_options *options);

#endif
