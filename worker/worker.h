/*
 * The worker room's doors: all that master/ calls.
 */
#ifndef WORKER_H
#define WORKER_H

#include "shm/shm_cache.h"
#include "shm/shm_task.h"
#include "worker/io.h"
#include "worker/worker_log.h"

#define WORKER_LISTENERS_MAX IO_LISTENERS_MAX

/* What a write does to cached lists. */
enum worker_cache_lists {
	WORKER_LISTS_STRICT = 0, /* none older is served */
	WORKER_LISTS_RELAXED,	 /* served stale while it is reloaded */
	WORKER_LISTS_OFF,	 /* lists are not cached */
};

struct worker_options {
	/* from the master */
	struct shm_task *task;
	struct shm_board *board; /* our master's half of it */
	struct shm_cache *cache; /* NULL: cache_size = 0 */
	uint32_t slot; /* in the board; shm_task_slot(): in the cache */
	uint32_t workers_count;
	uint32_t listeners_count;
	int listener_fd[WORKER_LISTENERS_MAX]; /* O_NONBLOCK, shared */
	int handover_fd[SHM_BOARD_SLOTS];      /* to give a slot connections */
	int handover_own;		       /* where we get them */
	const char *version;

	/* settings */
	enum io_backend io_backend;
	uint32_t io_without;
	const char *greeting;
	const char *database;
	struct shm_secret *database_secret; /* NULL: database is all */
	uint32_t database_connections;	    /* of this worker, at least 2 */
	uint32_t database_acquire_timeout_ms;
	uint32_t database_statement_timeout_ms;
	uint32_t database_connect_timeout_ms;
	uint32_t database_queue_target_ms; /* worker_admission.h; 0: off */
	uint32_t batch_window_us;	   /* io.h; 0: none */
	uint32_t connections_max;
	uint32_t request_line_bytes_max;
	uint32_t header_bytes_max;
	uint32_t headers_count_max;
	uint64_t body_bytes_max;
	uint32_t keepalive_timeout_ms;
	uint32_t header_timeout_ms;
	uint32_t body_timeout_ms;
	uint32_t send_timeout_ms;
	uint32_t drain_delay_ms;
	uint32_t drain_timeout_ms;
	uint32_t cache_fresh_ms;
	uint32_t cache_negative_ms; /* 0: such answers are not cached */
	uint32_t cache_stale_while_revalidate_ms;
	uint32_t cache_stale_if_error_ms;
	enum worker_cache_lists cache_lists;
	bool cache_header;	   /* say X-Cache */
	const char *cache_control; /* Cache-Control's value; "": none */
	uint32_t watchdog_ms; /* heartbeats are four times as frequent; 0: off,
				 one a second */
};

/*
 * Serve until told to stop.  In a child of the master, after the privilege
 * drop.  Returns the process's exit code (sysexits.h).
 *	SIGTERM, SIGQUIT  drain: after drain_delay accept no more, answer what
 *	                  is in flight, end within drain_timeout; repeats are
 *	                  ignored
 *	SIGHUP            retire: accept no more, hand what is idle to the
 *	                  other workers, finish the rest, end within
 *	                  drain_timeout
 *	SIGINT            end at once
 *	SIGUSR1           reopen logs
 */
int worker_main(const struct worker_options *options) SHM_MUSTCHECK;

/*
 * Apply the migrations, waiting for the database as long as it takes (or, with
 * fail_fast, not at all), and report in board->migrate.  In a child of the
 * master.  Returns an exit code: EX_OK, EX_UNAVAILABLE (fail_fast), EX_CONFIG
 * (conninfo), EX_DATAERR (a migration failed).
 */
int worker_migrate_main(
    const struct worker_options *options, bool fail_fast) SHM_MUSTCHECK;

/* Does conninfo parse?  *why is allocated text to free.  No connection. */
bool worker_database_check(const char *conninfo, char **why) SHM_MUSTCHECK;

/* Copy conninfo with every secret in it replaced by "********" (for -T and
 * logs); allocated, NULL without memory. */
char *worker_database_mask(const char *conninfo) SHM_MUSTCHECK;

/* Versions of the libraries in use, one "name version" a line; static. */
const char *worker_versions(void);

#endif
