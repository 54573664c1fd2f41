/*
 * The database's secret, as far as the master has to do with it: it makes the
 * memory and never reads it.
 *
 * A core file would hold what libpq keeps on the heap.  The limit alone does
 * not help where the kernel hands core dumps to a program, so processes are
 * made not dumpable; the price is that /proc/PID of theirs belongs to root.
 */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "master/master_secret.h"

struct shm_secret *
master_secret_new(const struct master_options *options)
{
	struct shm_secret *secret = shm_secret_new();

	if (secret == NULL || shm_secret_lock(secret) ||
	    options->database_secret[0] == '\0')
		return secret;
	worker_log(WORKER_LOG_WARN, "secret_not_locked",
	    "the database's secret could be swapped to a disk: raise the "
	    "limit of locked memory (ulimit -l) or turn swap off",
	    LOG_STR("error", strerror(errno)), LOG_END);
	return secret;
}

int
master_secret_protect(const struct master_options *options)
{
	const struct rlimit none = {.rlim_cur = 0, .rlim_max = 0};

	if (options->database_secret[0] == '\0' || options->core_dumps)
		return 0;
	if (setrlimit(RLIMIT_CORE, &none) == -1)
		return -1;
	return prctl(PR_SET_DUMPABLE, 0);
}

bool
master_secret_check(const char *id, const char **why)
{
	*why = "need a secret's name (letters, digits and /_+=.@!-) or its ARN "
	       "(arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME)";
	if (id[0] == '\0')
		return true;
	for (const char *at = id; *at != '\0'; at++)
		if (!isalnum((unsigned char)*at) &&
		    strchr("/_+=.@!-:", *at) == NULL)
			return false;
	return strchr(id, ':') == NULL ||
	       (strncmp(id, "arn:", 4) == 0 &&
		   strstr(id, ":secretsmanager:") != NULL &&
		   strstr(id, ":secret:") != NULL);
}
