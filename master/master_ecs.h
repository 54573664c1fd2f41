/*
 * The container service's task that this process is part of, if it is one.
 */
#ifndef MASTER_ECS_H
#define MASTER_ECS_H

#include "ops/ops_ecs.h"

/*
 * Asked of $ECS_CONTAINER_METADATA_URI_V4 at the first call, which blocks for
 * a second at most, and remembered: a task does not change while it lives.
 * NULL: there is none, or nobody answers.
 */
const struct ops_ecs_task *master_ecs_task(void);

/* Tell the log what was found, or what went wrong. */
void master_ecs_log(void);

#endif
