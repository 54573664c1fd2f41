/*
 * Migrations: numbered files, applied in order, each at most once, all or
 * none.
 *
 * Everything happens in one transaction under one advisory lock, so that any
 * number of tasks may start at the same time: the first one works, the others
 * wait for its commit and then find nothing to do.  What was applied is kept
 * in the table booksd_migration with the checksum of the file; a file that
 * was changed afterwards is an error that somebody has to look at, not
 * something to apply again.  Numbers that only the database knows are left
 * alone: they come from a newer booksd, and this may be a way back to the
 * older one.
 *
 * READ COMMITTED is said explicitly, because a stricter default would fix the
 * snapshot before the lock was waited for and hide what the first task did.
 *
 * A role that may only read and write books can run the text as long as there
 * is nothing to do: the table is made only when it is missing.
 *
 * The files are trusted text of ours, quoted once with a tag that none of
 * them contains (asserted) and run by EXECUTE, so that statements which depend
 * on each other are parsed one after the other.
 */
#include "config.h"

#include "api/api_migrate.h"

#define SQL_TAG "$booksd_sql$"

/* "booksd m" in ASCII: any number that nobody else is likely to lock. */
#define SQL_LOCK "7093010445419946093"

static const char sql_begin[] =
    "BEGIN ISOLATION LEVEL READ COMMITTED;\n"
    "SET LOCAL statement_timeout = 0;\n"
    "SET LOCAL client_min_messages = warning;\n"
    "SELECT pg_advisory_xact_lock(" SQL_LOCK ");\n"
    "SELECT set_config('booksd.migrations_applied', '0', false);\n"
    "DO $booksd$ BEGIN\n"
    "IF to_regclass('booksd_migration') IS NULL THEN\n"
    "  CREATE TABLE booksd_migration (\n"
    "    version integer PRIMARY KEY,\n"
    "    name text NOT NULL,\n"
    "    checksum text NOT NULL,\n"
    "    applied_at timestamptz NOT NULL DEFAULT now());\n"
    "END IF;\n"
    "END $booksd$;\n";

static const char sql_apply_head[] =
    "DO $booksd$\n"
    "DECLARE\n"
    "  known text;\n"
    "BEGIN\n"
    "SELECT checksum INTO known FROM booksd_migration WHERE version = ";

static const char sql_apply_body[] = ";\n"
				     "IF known IS NULL THEN\n"
				     "  EXECUTE " SQL_TAG;

static const char sql_apply_counted[] =
    ");\n"
    "  PERFORM set_config('booksd.migrations_applied', (current_setting(\n"
    "    'booksd.migrations_applied')::integer + 1)::text, false);\n"
    "ELSIF known <> ";

static const char sql_end[] =
    "COMMIT;\n"
    "SELECT current_setting('booksd.migrations_applied') AS applied, ";

/* As an SQL string; ours hold no backslash and no quote. */
static void
write_quoted(struct api_buf *buf, const char *text)
{
	SHM_ASSERT(strpbrk(text, "'\\") == NULL);
	api_buf_text(buf, "'");
	api_buf_text(buf, text);
	api_buf_text(buf, "'");
}

static void
write_migration(struct api_buf *buf, const struct api_migration *migration)
{
	SHM_ASSERT(strstr(migration->sql, SQL_TAG) == NULL);
	SHM_ASSERT(strstr(migration->sql, "$booksd$") == NULL);
	api_buf_text(buf, sql_apply_head);
	api_buf_u64(buf, migration->number);
	api_buf_text(buf, sql_apply_body);
	api_buf_text(buf, migration->sql);
	api_buf_text(buf,
	    SQL_TAG ";\n"
		    "  INSERT INTO booksd_migration (version, name, checksum)\n"
		    "    VALUES (");
	api_buf_u64(buf, migration->number);
	api_buf_text(buf, ", ");
	write_quoted(buf, migration->name);
	api_buf_text(buf, ", ");
	write_quoted(buf, migration->checksum);
	api_buf_text(buf, sql_apply_counted);
	write_quoted(buf, migration->checksum);
	api_buf_text(buf,
	    " THEN\n"
	    "  RAISE EXCEPTION 'migration % (%) was applied with checksum %,"
	    " but this booksd has %',\n    ");
	api_buf_u64(buf, migration->number);
	api_buf_text(buf, ", ");
	write_quoted(buf, migration->name);
	api_buf_text(buf, ", known, ");
	write_quoted(buf, migration->checksum);
	api_buf_text(buf, ";\nEND IF;\nEND $booksd$;\n");
}

const char *
api_migrate_sql(struct api_buf *buf)
{
	size_t start = buf->len;

	api_buf_text(buf, sql_begin);
	for (size_t i = 0; i < api_migrations_count; i++)
		write_migration(buf, &api_migrations[i]);
	api_buf_text(buf, sql_end);
	api_buf_u64(buf, api_migrations_count);
	api_buf_text(buf, "::text AS total;\n");
	api_buf_bytes(buf, "", 1);
	return buf->failed ? NULL : buf->data + start;
}
