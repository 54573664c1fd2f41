/*
 * What the container service says about the task that we are in.
 *
 * This is asked for in a short-lived process of its own, before anything else
 * is started: the answer decides how many workers there are.
 */
#ifndef OPS_ECS_H
#define OPS_ECS_H

#include "shm/shm_base.h"

#define OPS_ECS_ANSWER_MAX    (256 << 10) /* longer: refused */
#define OPS_ECS_MILLICPUS_MAX 1024000

struct ops_ecs_task {
	uint32_t millicpus; /* Limits.CPU; 0: none was given */
	char family[256];   /* of the task definition; "" if not told */
	char revision[16];  /* likewise */
	char id[128];	    /* the last part of the task's ARN; likewise */
	char cluster[256];  /* likewise */
	char service[256];  /* likewise */
};

/* May uri be asked?  Only http, and only of an address that is link-local or
 * of this machine, as the service gives it. */
bool ops_ecs_is_local(const char *uri) SHM_MUSTCHECK;

/* Read an answer.  False: it is none of a task. */
bool ops_ecs_parse(
    const char *text, size_t len, struct ops_ecs_task *task) SHM_MUSTCHECK;

/*
 * Ask uri for the task, for at most timeout_ms.  Loads libcurl into this
 * process and blocks, so: in a child.  False: *why is text for people, static
 * or libcurl's.
 */
bool ops_ecs_ask_blocking(const char *uri, uint32_t timeout_ms,
    struct ops_ecs_task *task, const char **why) SHM_MUSTCHECK;

#endif
