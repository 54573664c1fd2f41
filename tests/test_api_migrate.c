/*
 * Goal: the migrations' text is whole: every file in it, in order, in one
 * transaction under the lock; running out of memory is noticed; embed-sql
 * refuses gaps and strange names.
 * Method: look for the pieces in their order; run embed-sql on made-up names.
 * What PostgreSQL makes of the text is the integration tests' matter.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/api_migrate.h"

/* Find piece at or after at, and return what follows it. */
static const char *
expect_next(const char *at, const char *piece)
{
	const char *found = strstr(at, piece);

	if (found == NULL)
		fail_msg("no \"%.60s\" in the rest", piece);
	return found + strlen(piece);
}

static void
migrations_are_numbered_from_one_without_a_gap(void **state)
{
	(void)state;
	assert_true(api_migrations_count > 0);
	for (size_t i = 0; i < api_migrations_count; i++) {
		assert_int_equal(api_migrations[i].number, i + 1);
		assert_true(strlen(api_migrations[i].name) > 0);
		assert_true(strlen(api_migrations[i].checksum) > 0);
		assert_true(strlen(api_migrations[i].sql) > 0);
	}
	assert_string_equal(api_migrations[0].name, "book");
	assert_string_equal(api_migrations[1].name, "book_notify");
}

static void
the_text_is_one_transaction_with_every_migration_in_order(void **state)
{
	struct api_buf buf = {.data = NULL};
	const char *sql, *at;

	(void)state;
	sql = api_migrate_sql(&buf);
	assert_non_null(sql);
	assert_memory_equal(sql, "BEGIN ISOLATION LEVEL READ COMMITTED;", 37);
	assert_int_equal(strlen(sql) + 1, buf.len);
	at = expect_next(sql, "pg_advisory_xact_lock");
	at = expect_next(at, "CREATE TABLE booksd_migration");
	for (size_t i = 0; i < api_migrations_count; i++) {
		at = expect_next(at, api_migrations[i].sql);
		at = expect_next(at, api_migrations[i].checksum);
		at = expect_next(at, "RAISE EXCEPTION");
	}
	at = expect_next(at, "\nCOMMIT;\n");
	at = expect_next(at, "AS applied");
	expect_next(at, "AS total;\n");
	api_buf_fini(&buf);
}

static void
too_little_memory_gives_no_text(void **state)
{
	struct api_buf buf = {.bytes_max = 1024};

	(void)state;
	assert_null(api_migrate_sql(&buf));
	api_buf_fini(&buf);
}

/* Run embed-sql on files of these names; its exit code. */
static int
run_embed(const char *names)
{
	const char *srcdir = getenv("abs_top_srcdir");
	char command[8192];
	int status;

	snprintf(command, sizeof(command),
	    "set -e; dir=$(mktemp -d); script='%s/api/embed-sql'; cd \"$dir\"\n"
	    "for name in %s; do printf 'SELECT \"\\\\\";\\n' >$name; done\n"
	    "code=0; sh \"$script\" %s >out 2>err || code=$?\n"
	    "cd /; rm -r \"$dir\"; exit $code",
	    srcdir != NULL ? srcdir : ".", names, names);
	status = system(command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void
embed_sql_takes_only_numbered_names_in_order(void **state)
{
	(void)state;
	assert_int_equal(run_embed("001_a.sql 002_b.sql"), 0);
	assert_int_equal(run_embed("002_b.sql"), 1);
	assert_int_equal(run_embed("001_a.sql 003_c.sql"), 1);
	assert_int_equal(run_embed("001_a.sql 001_b.sql"), 1);
	assert_int_equal(run_embed("1_a.sql"), 1);
	assert_int_equal(run_embed("001_A.sql"), 1);
	assert_int_equal(run_embed("001_a.txt"), 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(migrations_are_numbered_from_one_without_a_gap),
	    cmocka_unit_test(
		the_text_is_one_transaction_with_every_migration_in_order),
	    cmocka_unit_test(too_little_memory_gives_no_text),
	    cmocka_unit_test(embed_sql_takes_only_numbered_names_in_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
