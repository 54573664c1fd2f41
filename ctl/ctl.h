/*
 * What the commands of booksctl share.  One process, one thread, blocking
 * libpq and libcurl: all of it may wait for the database, or for booksd.
 */
#ifndef CTL_H
#define CTL_H

#include <stdio.h>

#include <libpq-fe.h>

#include "shm/shm_base.h"

struct ctl {
	const char *database; /* conninfo, URI, name; NULL: libpq's own */
	const char *control;  /* path of the socket; NULL: look for it */
	bool is_quiet;
};

/* usage is what help prints, and what shells complete is read from it: options
 * (-x, --word, a value behind them in capitals), words in small letters, FILE
 * or PATH for names of files. */
struct ctl_command {
	const char *name;
	int (*run)(const struct ctl *ctl, int argc, char **argv);
	const char *usage; /* its arguments */
	const char *help;
	bool needs_database;
};

/* Sorted by name. */
extern const struct ctl_command ctl_commands[];
extern const size_t ctl_commands_count;
#define CTL_GLOBAL_USAGE "[-hqV] [-d CONNINFO] [-S PATH]"

/*
 * A command reads its own arguments (argv[0] is its name, optind is 1) and
 * returns an exit code of sysexits(3).
 */
int ctl_cache(const struct ctl *ctl, int argc, char **argv);
int ctl_check(const struct ctl *ctl, int argc, char **argv);
int ctl_completion(const struct ctl *ctl, int argc, char **argv);
int ctl_drain(const struct ctl *ctl, int argc, char **argv);
int ctl_export(const struct ctl *ctl, int argc, char **argv);
int ctl_flush(const struct ctl *ctl, int argc, char **argv);
int ctl_health(const struct ctl *ctl, int argc, char **argv);
int ctl_import(const struct ctl *ctl, int argc, char **argv);
int ctl_log(const struct ctl *ctl, int argc, char **argv);
int ctl_migrate(const struct ctl *ctl, int argc, char **argv);
int ctl_reload(const struct ctl *ctl, int argc, char **argv);
int ctl_status(const struct ctl *ctl, int argc, char **argv);
int ctl_top(const struct ctl *ctl, int argc, char **argv);
int ctl_workers(const struct ctl *ctl, int argc, char **argv);

/* "booksctl: " and a message on standard error. */
void ctl_say(const char *format, ...) SHM_PRINTF(1, 2);
/* From now on the first message goes to text instead, without the name in
 * front, and others nowhere; NULL: as before. */
void ctl_say_into(char *text, size_t size);
/* The same, then where help is to be found.  Returns EX_USAGE. */
int ctl_usage(const char *format, ...) SHM_PRINTF(1, 2);
/* After getopt_long(3) found an unknown option or a missing argument. */
int ctl_usage_option(int argc, char **argv);

/*
 * The connection's string from the environment: BOOKS_DATABASE, else the
 * content of the file that BOOKS_DATABASE_FILE names (allocated, never freed),
 * else NULL.  EX_OK, or another exit code after saying why.
 */
int ctl_database_from_env(const char **database) SHM_MUSTCHECK;

/*
 * Connect.  EX_OK and *conn to PQfinish(), or another exit code after saying
 * why: EX_CONFIG when the string makes no sense, EX_UNAVAILABLE otherwise.
 * wait_s: go on trying for so long; -1: without end.
 */
int ctl_connect(const struct ctl *ctl, int wait_s, PGconn **conn) SHM_MUSTCHECK;

/*
 * Run text (one statement or several).  EX_OK and *result (the last one's, to
 * PQclear(); NULL result: not wanted), or another exit code after saying why.
 */
int ctl_exec(PGconn *conn, const char *text, PGresult **result) SHM_MUSTCHECK;

/* Say why the server refused result (or why the connection broke) while doing
 * what; returns the exit code for it. */
int ctl_sql_failed(PGconn *conn, const PGresult *result, const char *what);

#endif
