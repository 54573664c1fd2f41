/*
 * The one-shot child "booksd: migrate".
 *
 * It waits for the database as long as that takes, runs the text of
 * api_migrate.h once, and reports on the board; workers begin without it and
 * become ready when it is done.  Nothing else happens in this process, so it
 * may block, name lookups included; only the time of a connect is bounded.
 *
 * Errors that pass by themselves (the server goes down or is a standby yet, a
 * deadlock with another task) are waited out like a server that is away.  Any
 * other error of SQL needs an administrator: trying again would only repeat
 * it.
 */
#include "config.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "api/api_migrate.h"
#include "shm/shm_secret.h"
#include "worker/worker.h"
#include "worker/worker_conninfo.h"

#define MIGRATE_BACKOFF_MIN_MS 100
#define MIGRATE_BACKOFF_MAX_MS 5000

#define MIGRATE_SECRET_ATTEMPTS 6 /* of --fail-fast: five seconds or so */

struct migrate {
	const struct worker_options *options;
	struct worker_conninfo *conninfo;
	const char *sql;
	uint64_t secret_version; /* in conninfo */
	uint32_t attempts;
	bool is_waiting;  /* and said so */
	char sqlstate[6]; /* that was said */
};

enum migrate_result {
	MIGRATE_DONE = 0,
	MIGRATE_LATER,	/* logged */
	MIGRATE_FAILED, /* logged */
};

/* Being told to end is nothing special here: the server rolls back. */
static void
migrate_signals(void)
{
	static const int numbers[] = {SIGTERM, SIGQUIT, SIGINT};
	static const int ignored[] = {SIGPIPE, SIGHUP, SIGUSR1, SIGUSR2};
	sigset_t set;

	for (size_t i = 0; i < SHM_ARRAY_LEN(ignored); i++)
		signal(ignored[i], SIG_IGN);

	sigemptyset(&set);
	for (size_t i = 0; i < SHM_ARRAY_LEN(numbers); i++) {
		signal(numbers[i], SIG_DFL);
		sigaddset(&set, numbers[i]);
	}
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/* Once, and again when the server's reason changes. */
static void
migrate_log_waiting(struct migrate *migrate, const char *message)
{
	struct worker_conninfo_failure failure;

	worker_conninfo_failure(message, &failure);
	if (migrate->is_waiting &&
	    strcmp(migrate->sqlstate, failure.sqlstate) == 0)
		return;
	migrate->is_waiting = true;
	memcpy(migrate->sqlstate, failure.sqlstate, sizeof(migrate->sqlstate));
	worker_log(WORKER_LOG_WARN, "migrate_waiting",
	    "migrations wait for the database",
	    LOG_STR("sqlstate", failure.sqlstate),
	    LOG_STR("reason", failure.reason), LOG_END);
}

/* ---- the secret */

/* False: there is none yet, or it is of no use. */
static bool
migrate_take_secret(struct migrate *migrate)
{
	struct shm_secret *secret = migrate->options->database_secret;
	char text[SHM_SECRET_BYTES_MAX], *why = NULL;
	struct worker_conninfo *fresh;

	if (secret == NULL ||
	    shm_secret_version(secret) == migrate->secret_version)
		return secret == NULL || migrate->secret_version > 0;
	migrate->secret_version = shm_secret_get(secret, text);
	fresh = worker_conninfo_new(migrate->options->database, text, &why);
	explicit_bzero(text, sizeof(text));
	free(why); /* workers say it as well */
	if (fresh == NULL)
		return false;
	worker_conninfo_free(&migrate->conninfo);
	migrate->conninfo = fresh;
	return true;
}

/* Or has waited for it long enough. */
static bool
migrate_has_secret(const struct migrate *migrate)
{
	return migrate->options->database_secret == NULL ||
	       migrate->secret_version > 0 ||
	       migrate->attempts >= MIGRATE_SECRET_ATTEMPTS;
}

static void
migrate_refused_login(struct migrate *migrate, const char *message)
{
	struct worker_conninfo_failure failure;

	if (migrate->options->database_secret == NULL)
		return;
	worker_conninfo_failure(message, &failure);
	if (strcmp(failure.sqlstate, "28P01") == 0 ||
	    strcmp(failure.sqlstate, "28000") == 0)
		shm_secret_refuse(
		    migrate->options->database_secret, migrate->secret_version);
}

/* ---- connecting */

/* False: the time is over or the connection failed. */
static bool
migrate_connect_blocking(PGconn *conn, uint64_t deadline_us)
{
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;

	if (PQstatus(conn) == CONNECTION_BAD)
		return false;
	while (status != PGRES_POLLING_OK) {
		uint64_t now_us = shm_clock_us();
		struct pollfd pfd = {.fd = PQsocket(conn),
		    .events =
			status == PGRES_POLLING_READING ? POLLIN : POLLOUT};

		if (now_us >= deadline_us ||
		    poll(&pfd, 1, (int)((deadline_us - now_us) / 1000) + 1) ==
			0)
			return false;
		status = PQconnectPoll(conn);
		if (status == PGRES_POLLING_FAILED)
			return false;
	}
	return true;
}

static PGconn *
migrate_connect(struct migrate *migrate)
{
	uint64_t deadline_us =
	    shm_clock_us() +
	    migrate->options->database_connect_timeout_ms * 1000ull;
	PGconn *conn;

	if (!migrate_take_secret(migrate)) {
		migrate_log_waiting(
		    migrate, "the database's secret has not been fetched yet");
		return NULL;
	}
	conn =
	    worker_conninfo_start(migrate->conninfo, NULL, migrate->attempts);
	if (conn != NULL && migrate_connect_blocking(conn, deadline_us))
		return conn;
	if (conn != NULL && PQstatus(conn) == CONNECTION_BAD)
		migrate_refused_login(migrate, PQerrorMessage(conn));
	migrate_log_waiting(migrate, conn == NULL ? "no memory"
				     : PQstatus(conn) == CONNECTION_BAD
					 ? PQerrorMessage(conn)
					 : "connecting took too long");
	PQfinish(conn);
	return NULL;
}

/* ---- running */

static bool
sqlstate_passes_by(const char *sqlstate)
{
	static const char *const classes[] = {
	    "08", "40", "53", "55P03", "57", "25006", ""};
	size_t i = 0;

	if (sqlstate[0] == '\0')
		return true; /* the connection was lost */
	while (classes[i][0] != '\0' &&
	       strncmp(sqlstate, classes[i], strlen(classes[i])) != 0)
		i++;
	return classes[i][0] != '\0';
}

static const char *
result_field(const PGresult *result, int field)
{
	const char *text = PQresultErrorField(result, field);

	return text == NULL ? "" : text;
}

static enum migrate_result
migrate_refused(struct migrate *migrate, PGconn *conn, const PGresult *result)
{
	const char *sqlstate = result_field(result, PG_DIAG_SQLSTATE);

	if (sqlstate_passes_by(sqlstate)) {
		migrate_log_waiting(migrate, PQerrorMessage(conn));
		return MIGRATE_LATER;
	}
	worker_log(WORKER_LOG_ERROR, "migrate_failed",
	    "a migration failed and nothing was changed",
	    LOG_STR("sqlstate", sqlstate),
	    LOG_STR("reason", result_field(result, PG_DIAG_MESSAGE_PRIMARY)),
	    LOG_STR("detail", result_field(result, PG_DIAG_MESSAGE_DETAIL)),
	    LOG_END);
	return MIGRATE_FAILED;
}

static void
migrate_notice(void *arg, const PGresult *result)
{
	(void)arg; /* "relation exists, skipping" is no news */
	(void)result;
}

static enum migrate_result
migrate_try(struct migrate *migrate)
{
	enum migrate_result outcome = MIGRATE_DONE;
	PGconn *conn = migrate_connect(migrate);
	PGresult *result;

	if (conn == NULL)
		return MIGRATE_LATER;
	PQsetNoticeReceiver(conn, migrate_notice, NULL);
	result = PQexec(conn, migrate->sql);
	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		outcome = migrate_refused(migrate, conn, result);
	else
		worker_log(WORKER_LOG_INFO, "migrated",
		    "the schema is up to date",
		    LOG_STR("applied", PQgetvalue(result, 0, 0)),
		    LOG_STR("total", PQgetvalue(result, 0, 1)), LOG_END);
	PQclear(result);
	PQfinish(conn);
	return outcome;
}

/* Half of it chance, so that tasks do not come in step. */
static void
migrate_pause_blocking(struct migrate *migrate)
{
	uint64_t ms = MIGRATE_BACKOFF_MIN_MS;

	for (uint32_t i = 0;
	     i < migrate->attempts && ms < MIGRATE_BACKOFF_MAX_MS; i++)
		ms *= 2;
	if (migrate->options->database_secret != NULL && ms > 1000)
		ms = 1000; /* another one may be there any moment */
	if (ms > MIGRATE_BACKOFF_MAX_MS)
		ms = MIGRATE_BACKOFF_MAX_MS;
	ms = ms / 2 + (shm_clock_us() ^ (uint64_t)getpid()) % (ms / 2);
	nanosleep(&(struct timespec){.tv_sec = (time_t)(ms / 1000),
		      .tv_nsec = (long)(ms % 1000 * 1000000)},
	    NULL);
}

static int
migrate_run(struct migrate *migrate, bool fail_fast)
{
	struct shm_board *board = migrate->options->board;

	for (;; migrate->attempts++) {
		enum migrate_result result = migrate_try(migrate);

		(void)worker_log_flush(shm_clock_us());
		switch (result) {
		case MIGRATE_DONE:
			shm_board_set(board->migrate, SHM_BOARD_MIGRATE_DONE);
			return EX_OK;
		case MIGRATE_FAILED:
			shm_board_set(board->migrate, SHM_BOARD_MIGRATE_FAILED);
			return EX_DATAERR;
		case MIGRATE_LATER:
			if (fail_fast && migrate_has_secret(migrate))
				return EX_UNAVAILABLE;
		}
		migrate_pause_blocking(migrate);
	}
}

int
worker_migrate_main(const struct worker_options *options, bool fail_fast)
{
	struct migrate migrate = {.options = options};
	struct api_buf buf = {.data = NULL};
	char *why = NULL;
	int code = EX_CONFIG;

	migrate_signals();
	migrate.conninfo = worker_conninfo_new(options->database, NULL, &why);
	migrate.sql = api_migrate_sql(&buf);
	if (migrate.conninfo == NULL)
		worker_log(WORKER_LOG_ERROR, "database_setting",
		    "the setting database cannot be used",
		    LOG_STR("reason", why), LOG_END);
	else if (migrate.sql == NULL)
		code = EX_OSERR;
	else
		code = migrate_run(&migrate, fail_fast);
	if (code == EX_CONFIG)
		shm_board_set(
		    options->board->migrate, SHM_BOARD_MIGRATE_FAILED);
	free(why);
	worker_conninfo_free(&migrate.conninfo);
	api_buf_fini(&buf);
	worker_log_close();
	return code;
}
