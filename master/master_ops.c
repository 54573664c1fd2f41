/*
 * The master between ops and the log.
 *
 * The log belongs to the worker room, and the rooms worker and ops do not know
 * each other.  The master knows both: it gives ops functions to log with, and
 * translates.
 */
#include "config.h"

#include "master/master_ecs.h"
#include "master/master_ops.h"

static const enum worker_log_level levels[] = {
    [OPS_LOG_ERROR] = WORKER_LOG_ERROR,
    [OPS_LOG_WARN] = WORKER_LOG_WARN,
    [OPS_LOG_INFO] = WORKER_LOG_INFO,
    [OPS_LOG_DEBUG] = WORKER_LOG_DEBUG,
};

static void
log_for_ops(enum ops_log_level level, const char *event, const char *text,
    const struct ops_log_field *fields, uint32_t fields_count)
{
	struct worker_log_field copy[OPS_LOG_FIELDS_MAX + 1];

	SHM_ASSERT(fields_count <= OPS_LOG_FIELDS_MAX);
	SHM_ASSERT((size_t)level < SHM_ARRAY_LEN(levels));
	for (uint32_t i = 0; i < fields_count; i++)
		copy[i] = fields[i].text != NULL
			      ? LOG_STR(fields[i].name, fields[i].text)
			      : LOG_INT(fields[i].name, fields[i].number);
	copy[fields_count] = LOG_END;
	worker_log_fields(levels[level], event, text, copy);
}

bool
master_ops_is_wanted(const struct master_heritage *heritage)
{
	return heritage->cache != NULL || heritage->control->fd != -1 ||
	       heritage->admin->count > 0 ||
	       heritage->options->database_secret[0] != '\0';
}

void
master_ops_options(
    const struct master_heritage *heritage, struct ops_options *options)
{
	static char listen[MASTER_LISTEN_NAMES_BYTES]; /* once a process */
	const struct master_options *settings = heritage->options;

	master_listen_names(heritage->listen, listen);
	*options = (struct ops_options){
	    .task = heritage->task,
	    .board = heritage->board,
	    .cache = heritage->cache,
	    .ecs = master_ecs_task(),
	    .version = PACKAGE_VERSION,
	    .database = settings->worker.database,
	    .listen = listen,
	    .secret = heritage->secret,
	    .secret_id = settings->database_secret,
	    .secret_refresh_ms = settings->database_secret_refresh_ms,
	    .database_connect_timeout_ms =
		settings->worker.database_connect_timeout_ms,
	    .heartbeat_ms = settings->cache_heartbeat_ms,
	    .metrics_emf_ms = settings->metrics_emf_ms,
	    .control_fd = heritage->control->fd,
	    .admin_count = heritage->admin->count,
	    .admin_token = settings->admin_token,
	    .command_fd = heritage->command_fd,
	    .log = log_for_ops,
	    .log_flush = worker_log_flush,
	    .log_reopen = worker_log_reopen,
	};
	for (uint32_t i = 0; i < heritage->admin->count; i++)
		options->admin_fd[i] = heritage->admin->fd[i];
}
