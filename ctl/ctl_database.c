/*
 * The database as the commands use it: where the connection string comes from,
 * connecting with or without patience, and what an error means for the exit
 * code.
 *
 * A connection string may hold a password, and libpq quotes pieces of a string
 * it cannot parse.  So what it says about parsing is never shown; what it and
 * the server say later names hosts, users and databases, which are no secrets.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "ctl/ctl.h"

#define SECRET_BYTES_MAX 65536
#define RETRY_MS	 250

static int
file_read(const char *path, char *text, size_t size)
{
	FILE *file = fopen(path, "re");
	size_t len;

	if (file == NULL)
		return -1;
	len = fread(text, 1, size - 1, file);
	if (ferror(file) || (len == size - 1 && fgetc(file) != EOF)) {
		if (!ferror(file))
			errno = EFBIG;
		fclose(file);
		return -1;
	}
	fclose(file);
	/* Editors end a file with a line end; the string has none. */
	while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
		len--;
	text[len] = '\0';
	return 0;
}

/* Is this a connection string, or just the name of a database? */
static bool
is_conninfo(const char *database)
{
	return strchr(database, '=') != NULL ||
	       strncmp(database, "postgresql://", 13) == 0 ||
	       strncmp(database, "postgres://", 11) == 0;
}

static int
conninfo_check(const char *database)
{
	PQconninfoOption *options;
	char *why = NULL;

	if (database == NULL || !is_conninfo(database))
		return EX_OK;
	options = PQconninfoParse(database, &why);
	if (options == NULL) {
		ctl_say("the connection string of the database cannot be"
			" parsed (it is not shown: it may hold a password)");
		PQfreemem(why);
		return EX_CONFIG;
	}
	PQconninfoFree(options);
	return EX_OK;
}

static PGconn *
connect_once(const char *database)
{
	/* What stands before dbname gives way to the string itself. */
	const char *keyword[5], *value[5];
	int count = 0;

	keyword[count] = "fallback_application_name";
	value[count++] = "booksctl";
	if (getenv("PGCONNECT_TIMEOUT") == NULL) {
		keyword[count] = "connect_timeout";
		value[count++] = "10";
	}
	if (database != NULL && *database != '\0') {
		keyword[count] = "dbname";
		value[count++] = database;
	}
	keyword[count] = "client_encoding";
	value[count++] = "UTF8";
	keyword[count] = value[count] = NULL;
	return PQconnectdbParams(keyword, value, 1);
}

/* A message of libpq on one line: without line ends and control bytes. */
static const char *
one_line(const char *message, char *out, size_t out_size)
{
	size_t len = 0;

	for (; *message != '\0' && len + 1 < out_size; message++) {
		if ((unsigned char)*message >= ' ' && *message != 0x7f)
			out[len++] = *message;
		else if (len > 0 && out[len - 1] != ' ')
			out[len++] = ' ';
	}
	while (len > 0 && out[len - 1] == ' ')
		len--;
	out[len] = '\0';
	return out;
}

/* Would waiting help?  A wrong password or a database that nobody made is as
 * likely to be a matter of order at start as a server that is not up. */
static int
connect_patiently(const char *database, int wait_s, PGconn **conn)
{
	const struct timespec pause = {0, RETRY_MS * 1000000L};
	uint64_t end_us = shm_clock_us() + (uint64_t)wait_s * 1000000;
	char text[512], before[512] = "";

	for (;;) {
		*conn = connect_once(database);
		if (*conn == NULL) {
			ctl_say("out of memory");
			return EX_OSERR;
		}
		if (PQstatus(*conn) == CONNECTION_OK)
			return EX_OK;
		one_line(PQerrorMessage(*conn), text, sizeof(text));
		PQfinish(*conn);
		*conn = NULL;
		if (wait_s >= 0 && shm_clock_us() >= end_us) {
			ctl_say("cannot connect to the database: %s", text);
			return EX_UNAVAILABLE;
		}
		if (strcmp(text, before) != 0)
			ctl_say("waiting for the database: %s", text);
		memcpy(before, text, sizeof(before));
		nanosleep(&pause, NULL);
	}
}

/* Notices ("relation exists already, skipping") are not the user's business. */
static void
notice_ignore(void *arg, const PGresult *result)
{
	(void)arg;
	(void)result;
}

int
ctl_database_from_env(const char **database)
{
	static char text[SECRET_BYTES_MAX];
	const char *value = getenv("BOOKS_DATABASE");
	const char *path = getenv("BOOKS_DATABASE_FILE");

	if (value != NULL && path != NULL) {
		ctl_say("BOOKS_DATABASE and BOOKS_DATABASE_FILE are both set:"
			" need one of them");
		return EX_CONFIG;
	}
	*database = value;
	if (path == NULL)
		return EX_OK;
	if (file_read(path, text, sizeof(text)) == -1) {
		ctl_say("BOOKS_DATABASE_FILE=%s: %s", path, strerror(errno));
		return EX_CONFIG;
	}
	*database = text;
	return EX_OK;
}

int
ctl_connect(const struct ctl *ctl, int wait_s, PGconn **conn)
{
	int code = conninfo_check(ctl->database);

	if (code == EX_OK)
		code = connect_patiently(ctl->database, wait_s, conn);
	if (code == EX_OK)
		PQsetNoticeReceiver(*conn, notice_ignore, NULL);
	return code;
}

int
ctl_sql_failed(PGconn *conn, const PGresult *result, const char *what)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message =
	    PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	char text[512];

	if (PQstatus(conn) != CONNECTION_OK || state == NULL) {
		ctl_say("%s: the connection was lost: %s", what,
		    one_line(PQerrorMessage(conn), text, sizeof(text)));
		return EX_UNAVAILABLE;
	}
	ctl_say("%s: %s (SQLSTATE %s)", what,
	    one_line(message != NULL ? message : "unknown error", text,
		sizeof(text)),
	    state);
	if (strcmp(state, "42P01") == 0) {
		ctl_say("the tables are missing: run booksctl migrate first");
		return EX_UNAVAILABLE;
	}
	if (strcmp(state, "42501") == 0)
		return EX_NOPERM;
	if (strncmp(state, "57", 2) == 0 || strncmp(state, "53", 2) == 0 ||
	    strcmp(state, "25006") == 0)
		return EX_UNAVAILABLE;
	return EX_DATAERR;
}

int
ctl_exec(PGconn *conn, const char *text, PGresult **result)
{
	PGresult *got = PQexec(conn, text);
	ExecStatusType status = PQresultStatus(got);
	int code = EX_OK;

	if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK &&
	    status != PGRES_COPY_IN && status != PGRES_COPY_OUT)
		code = ctl_sql_failed(conn, got, "the database");
	if (code == EX_OK && result != NULL)
		*result = got;
	else
		PQclear(got);
	return code;
}
