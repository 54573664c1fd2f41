/*
 * The database's part of booksctl check: can it be reached, by whom and how,
 * is what booksd needs there, and may its role use it?
 *
 * Nothing is changed, and no statement waits for a lock that writers hold.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "api/api_migrate.h"
#include "ctl/ctl_check.h"

#define SERVER_VERSION_LEAST 120000

/* The first field of the first row, NULL after an error (which is a finding);
 * to free(). */
static char *
ask(struct ctl_check *check, PGconn *conn, const char *subject,
    const char *statement)
{
	PGresult *result;
	char why[256], *text = NULL;

	ctl_say_into(why, sizeof(why));
	if (ctl_exec(conn, statement, &result) == EX_OK) {
		if (PQntuples(result) > 0)
			text = strdup(PQgetvalue(result, 0, 0));
		PQclear(result);
	}
	ctl_say_into(NULL, 0);
	if (text == NULL)
		ctl_check_say(check, CTL_CHECK_FAIL, subject, "%s", why);
	return text;
}

static bool
is_near(const PGconn *conn)
{
	const char *host = PQhost(conn);

	return host == NULL || *host == '\0' || *host == '/' ||
	       strcmp(host, "localhost") == 0 ||
	       strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0;
}

static void
check_tls(struct ctl_check *check, PGconn *conn)
{
	if (PQsslInUse(conn)) {
		const char *protocol = PQsslAttribute(conn, "protocol");

		ctl_check_say(check, CTL_CHECK_OK, "tls", "%s",
		    protocol != NULL ? protocol : "in use");
	} else if (is_near(conn)) {
		ctl_check_say(check, CTL_CHECK_OK, "tls",
		    "not used; the server is on this machine");
	} else {
		ctl_check_say(check, CTL_CHECK_WARN, "tls",
		    "not used, passwords and books can be read on the way;"
		    " add sslmode=verify-full and sslrootcert to the string");
	}
}

static void
check_version(struct ctl_check *check, PGconn *conn)
{
	int version = PQserverVersion(conn);

	if (version >= SERVER_VERSION_LEAST)
		ctl_check_say(check, CTL_CHECK_OK, "server", "PostgreSQL %d.%d",
		    version / 10000, version % 10000);
	else
		ctl_check_say(check, CTL_CHECK_WARN, "server",
		    "PostgreSQL %d.%d is older than what booksd is tested"
		    " with; upgrade to %d or later",
		    version / 10000, version % 10000,
		    SERVER_VERSION_LEAST / 10000);
}

static void
check_writable(struct ctl_check *check, PGconn *conn)
{
	char *standby = ask(check, conn, "writes",
	    "SELECT pg_is_in_recovery()"
	    " OR current_setting('transaction_read_only') = 'on'");

	if (standby != NULL && *standby == 't')
		ctl_check_say(check, CTL_CHECK_FAIL, "writes",
		    "the server takes no writes; connect to the writer, for"
		    " instance with target_session_attrs=read-write");
	else if (standby != NULL)
		ctl_check_say(check, CTL_CHECK_OK, "writes", "taken");
	free(standby);
}

static void
say_migrations(struct ctl_check *check, long count)
{
	if (count < (long)api_migrations_count)
		ctl_check_say(check, CTL_CHECK_FAIL, "migrations",
		    "%ld of %zu applied; run booksctl migrate", count,
		    api_migrations_count);
	else
		ctl_check_say(
		    check, CTL_CHECK_OK, "migrations", "%ld applied", count);
}

static void
check_migrations(struct ctl_check *check, PGconn *conn)
{
	char *seen = ask(check, conn, "migrations",
	    "SELECT coalesce(has_table_privilege("
	    "to_regclass('booksd_migration'), 'SELECT')::text, 'none')");
	char *count = NULL;

	if (seen == NULL)
		return;
	if (strcmp(seen, "none") == 0) {
		say_migrations(check, 0);
	} else if (strcmp(seen, "false") == 0) {
		ctl_check_say(check, CTL_CHECK_WARN, "migrations",
		    "this role may not see them; ask as the one that"
		    " migrates");
	} else {
		count = ask(check, conn, "migrations",
		    "SELECT count(*) FROM booksd_migration");
		if (count != NULL)
			say_migrations(check, strtol(count, NULL, 10));
	}
	free(count);
	free(seen);
}

/* False: there is no table. */
static bool
check_tables(struct ctl_check *check, PGconn *conn)
{
	char *table = ask(
	    check, conn, "tables", "SELECT to_regclass('book') IS NOT NULL");
	bool is_there = table != NULL && *table == 't';

	free(table);
	if (table == NULL)
		return false;
	if (!is_there) {
		ctl_check_say(check, CTL_CHECK_FAIL, "tables",
		    "there is no table book; run booksctl migrate");
		return false;
	}
	ctl_check_say(check, CTL_CHECK_OK, "tables", "book");
	check_migrations(check, conn);
	return true;
}

/* What booksd's statements need, of the role that we are. */
static void
check_permissions(struct ctl_check *check, PGconn *conn)
{
	char *missing = ask(check, conn, "permissions",
	    "SELECT coalesce(string_agg(need, ', '), '') FROM ("
	    " SELECT need FROM unnest(ARRAY["
	    "'SELECT', 'INSERT', 'UPDATE', 'DELETE']) need"
	    " WHERE NOT has_table_privilege('book', need)"
	    " UNION ALL SELECT 'USAGE of the sequence of id'"
	    " WHERE pg_get_serial_sequence('book', 'id') IS NOT NULL"
	    " AND NOT has_sequence_privilege("
	    "pg_get_serial_sequence('book', 'id'), 'USAGE')) missing");
	const char *user = PQuser(conn);

	if (missing != NULL && *missing != '\0')
		ctl_check_say(check, CTL_CHECK_FAIL, "permissions",
		    "%s lacks %s on book; GRANT them to it",
		    user != NULL ? user : "the role", missing);
	else if (missing != NULL)
		ctl_check_say(check, CTL_CHECK_OK, "permissions",
		    "%s may read and write books",
		    user != NULL ? user : "the role");
	free(missing);
}

static void
check_connections(struct ctl_check *check, PGconn *conn)
{
	char *text = ask(check, conn, "connections",
	    "SELECT current_setting('max_connections')::int -"
	    " current_setting('superuser_reserved_connections')::int -"
	    " (SELECT count(*) FROM pg_stat_activity"
	    " WHERE backend_type = 'client backend'"
	    " AND pid <> pg_backend_pid()"
	    " AND application_name NOT LIKE 'booksd%')");
	long room;

	if (text == NULL)
		return;
	room = strtol(text, NULL, 10);
	free(text);
	if (check->connections_wanted == 0)
		ctl_check_say(check, CTL_CHECK_OK, "connections",
		    "the server has room for %ld", room);
	else if (room < (long)check->connections_wanted)
		ctl_check_say(check, CTL_CHECK_FAIL, "connections",
		    "the server has room for %ld, a task asks for %ju; raise"
		    " max_connections or lower database_connections",
		    room, (uintmax_t)check->connections_wanted);
	else
		ctl_check_say(check, CTL_CHECK_OK, "connections",
		    "the server has room for %ld, a task asks for %ju", room,
		    (uintmax_t)check->connections_wanted);
}

void
ctl_check_database(struct ctl_check *check, const struct ctl *ctl)
{
	char why[512];
	PGconn *conn;
	int code;

	ctl_say_into(why, sizeof(why));
	code = ctl_connect(ctl, 0, &conn);
	ctl_say_into(NULL, 0);
	if (code != EX_OK) {
		ctl_check_say(check, CTL_CHECK_FAIL, "database",
		    "%s; correct BOOKS_DATABASE or -d, or start the server",
		    why);
		return;
	}
	ctl_check_say(check, CTL_CHECK_OK, "database", "%s at %s as %s",
	    PQdb(conn), PQhost(conn), PQuser(conn));
	check_tls(check, conn);
	check_version(check, conn);
	check_writable(check, conn);
	if (check_tables(check, conn))
		check_permissions(check, conn);
	check_connections(check, conn);
	PQfinish(conn);
}
