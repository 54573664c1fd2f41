/*
 * What booksd was told: the options that the settings fill in, and where they
 * are read from.
 */
#ifndef MASTER_OPTIONS_H
#define MASTER_OPTIONS_H

#include <stdio.h>

#include "worker/worker.h"

#define MASTER_LIST_MAX WORKER_LISTENERS_MAX

struct master_list {
	uint32_t count;
	const char *item[MASTER_LIST_MAX];
};

struct master_options {
	/* settings, in the order of who uses them */
	struct worker_options worker;
	struct worker_log_options log;
	struct master_list listen;
	struct master_list io_uring_without;
	uint32_t workers; /* to begin with; as set, until it is decided */
	uint32_t database_connections; /* of all workers; 0: auto, likewise */
	uint64_t cache_bytes;	       /* 0: no cache */
	uint32_t cache_heartbeat_ms;
	uint32_t metrics_emf_ms; /* 0: none */
	bool migrate_on_start;
	bool fail_fast;
	bool core_dumps;
	const char *database_secret; /* "": none */
	uint32_t database_secret_refresh_ms;
	const char *user;	    /* "": stay who we are */
	const char *pid_file;	    /* "": none */
	const char *control_socket; /* "auto", "off" or a path */
	const char *admin_listen;   /* "off" or an address */
	const char *admin_token;    /* secret; "": nobody has one */

	/* decided by master_rules_check() */
	uint32_t workers_min; /* equal to max: a fixed number */
	uint32_t workers_max;
	char workers_source[160];     /* why so many, for the log */
	bool admin_listen_is_default; /* nobody gave it */
	bool workers_is_auto;	      /* they follow the limit of the CPUs */
	uint32_t limit_millicpus;     /* of the CPUs; 0: none was found */
	bool drops_privileges;
	uint32_t user_id;
	uint32_t group_id;
};

struct master_settings;

/* What the command line asks for. */
enum master_mode {
	MASTER_MODE_RUN = 0,
	MASTER_MODE_TEST,    /* -t */
	MASTER_MODE_DUMP,    /* -T */
	MASTER_MODE_VERSION, /* -V */
	MASTER_MODE_HELP,    /* -h */
};

struct master_command {
	enum master_mode mode;
	bool foreground;  /* -f */
	const char *file; /* -c, NULL: none */
	int exit_code;	  /* EX_OK, or why not to go on */
};

/*
 * Read flags, environment and file into settings, the strongest last, and say
 * what is wrong to settings->errors, all of it.  argv and environ may be
 * overwritten afterwards.
 */
void master_options_read(struct master_settings *settings, int argc,
    char **argv, char **environment, struct master_command *command);

/* One source alone, for the above and for tests. */
void master_options_read_file(
    struct master_settings *settings, const char *file_path);
void master_options_read_environment(
    struct master_settings *settings, char **environment);

/* The text of -h. */
void master_options_help(FILE *out);

#endif
