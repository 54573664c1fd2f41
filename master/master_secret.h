/*
 * Where the database's secret lies while booksd runs, and who may see it.
 */
#ifndef MASTER_SECRET_H
#define MASTER_SECRET_H

#include "master/master_options.h"
#include "shm/shm_secret.h"

/* Memory for it, before the first fork: always, since a reload can begin to
 * need it.  Warns in the log when it may be swapped out.  NULL with errno. */
struct shm_secret *
master_secret_new(const struct master_options *options) SHM_MUSTCHECK;

/* In a child, after the privilege drop: no core dump and no debugger of others,
 * when there is a secret and core_dumps is off.  -1 with errno. */
int master_secret_protect(const struct master_options *options) SHM_MUSTCHECK;

/* May database_secret be this?  *why is static. */
bool master_secret_check(const char *id, const char **why) SHM_MUSTCHECK;

#endif
