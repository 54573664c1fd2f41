/*
 * From the master's fork to the worker room's door.
 */
#ifndef MASTER_CHILD_H
#define MASTER_CHILD_H

#include <sys/types.h>

#include "master/master_admin.h"
#include "master/master_handover.h"
#include "master/master_options.h"
#include "master/master_takeover.h"
#include "shm/shm_secret.h"
#include "shm/shm_task.h"

/* All that crosses the fork. */
struct master_heritage {
	const struct master_options *options; /* those of settings */
	struct master_settings *settings;
	const struct master_listen *listen;
	struct master_control *control;
	struct master_admin *admin;
	struct master_takeover *takeover;
	struct shm_task *task;
	int task_fd;
	struct shm_board *board; /* our half of task */
	struct shm_cache *cache; /* NULL: none */
	struct shm_secret *secret;
	const struct master_handover *handover;
	int command_fd;	 /* the end of ops, -1: none */
	int orders_fd;	 /* the master's end of it */
	uint32_t shares; /* workers that the database's budget is for */
	pid_t master;
};

/*
 * Fork a worker, the one-shot child that migrates, ops, or the one-shot child
 * that audits the cache.  Returns the pid, or -1 with errno; never returns in
 * the child.
 *
 * The child runs with the user's privileges, dies with the master, and has the
 * master's signals blocked when worker_main() or ops_main() begins, so that
 * none is lost before they are listened to.
 */
pid_t master_child_worker(
    const struct master_heritage *heritage, uint32_t slot) SHM_MUSTCHECK;
pid_t
master_child_migrate(const struct master_heritage *heritage) SHM_MUSTCHECK;
pid_t master_child_ops(const struct master_heritage *heritage) SHM_MUSTCHECK;
pid_t master_child_audit(const struct master_heritage *heritage) SHM_MUSTCHECK;

/* Take the space of arguments and environment for titles: both are moved, and
 * what ps(1) showed of secrets in them is gone.  Once, in the master. */
void master_child_title_init(int argc, char **argv);
/* Name this process in ps(1) and top(1): "booksd: master". */
void master_child_title(const char *title);

#endif
