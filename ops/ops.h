/*
 * The operations room's door: all that master/ calls.
 *
 * ops is a process beside the workers.  It listens to the database for changes
 * that others made (ops_listen.c) and serves the control socket and the admin
 * listener (ops_http.c).  When it dies no client notices; the master starts
 * another.
 */
#ifndef OPS_H
#define OPS_H

#include "ops/ops_ecs.h"
#include "shm/shm_cache.h"
#include "shm/shm_secret.h"
#include "shm/shm_task.h"

enum ops_log_level {
	OPS_LOG_ERROR = 0,
	OPS_LOG_WARN,
	OPS_LOG_INFO,
	OPS_LOG_DEBUG,
};

struct ops_log_field {
	const char *name;
	const char *text; /* NULL: number counts */
	int64_t number;
};
#define OPS_LOG_FIELDS_MAX 6

#define OPS_ADMIN_MAX 2 /* admin listeners: both families */

struct ops_options {
	struct shm_task *task;
	struct shm_board *board; /* our master's half of it */
	struct shm_cache *cache; /* NULL: off; entered as SLOT_OTHER.  Its
				    policy was set before the fork. */
	const struct ops_ecs_task *ecs; /* NULL: not in a task of ECS */
	const char *version;
	const char *database;	    /* conninfo */
	const char *listen;	    /* of workers: "127.0.0.1:80 [::1]:80" */
	struct shm_secret *secret;  /* where to publish, whom to believe */
	const char *secret_id;	    /* of AWS: name or ARN; "": none */
	uint32_t secret_refresh_ms; /* 0: only when it is refused */
	uint32_t database_connect_timeout_ms;
	uint32_t heartbeat_ms;	 /* of the notification session */
	uint64_t metrics_emf_ms; /* between lines on standard output; 0: none */
	int control_fd;		 /* listening unix socket, or -1 */
	uint32_t admin_count;
	int admin_fd[OPS_ADMIN_MAX]; /* listening, of any kind */
	const char *admin_token;     /* secret; "": none */
	int command_fd;		     /* to the master (shm_command.h), or -1 */

	/* Where events go: the rooms worker and ops do not know each other,
	 * so the master lends its log.  flush returns the microseconds until
	 * it wants to be called again. */
	void (*log)(enum ops_log_level level, const char *event,
	    const char *text, const struct ops_log_field *fields,
	    uint32_t fields_count);
	uint64_t (*log_flush)(uint64_t now_us);
	void (*log_reopen)(void);
};

/*
 * Run until SIGTERM, SIGQUIT or SIGINT, which are blocked by the caller and
 * read from a signalfd.  SIGUSR1 reopens logs.  In a child of the master,
 * after the privilege drop.  Returns an exit code of sysexits.h.
 *
 * During a drain the master ends ops last: workers still need to hear.
 */
int ops_main(const struct ops_options *options) SHM_MUSTCHECK;

/* "libmicrohttpd 0.9.75\n" and so on, for booksd -V; static. */
const char *ops_versions(void);

/* ---- inside the room: one event, at most OPS_LOG_FIELDS_MAX fields */

#define OPS_LOG_STR(key, value) \
	((struct ops_log_field){.name = (key), .text = (value)})
#define OPS_LOG_INT(key, value) \
	((struct ops_log_field){.name = (key), .number = (int64_t)(value)})
#define ops_say(options, level, event, message, ...)                         \
	(options)->log((level), (event), (message),                          \
	    (const struct ops_log_field[]){__VA_ARGS__},                     \
	    (uint32_t)(sizeof((const struct ops_log_field[]){__VA_ARGS__}) / \
		       sizeof(struct ops_log_field)))

#endif
