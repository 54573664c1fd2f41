/*
 * booksctl migrate: run the text of api_migrate.h once and say what it did.
 * The text itself is one transaction and keeps others out, so this may run as
 * often and in as many places at once as one likes.
 */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "api/api_migrate.h"
#include "ctl/ctl.h"

#define WAIT_S_MAX 86400

static int
migrate_report(const PGresult *result)
{
	const char *applied, *count;

	SHM_ASSERT(PQntuples(result) == 1 && PQnfields(result) == 2);
	applied = PQgetvalue(result, 0, 0);
	count = PQgetvalue(result, 0, 1);
	if (strcmp(applied, "0") == 0)
		printf("nothing to do: all %s migrations are applied\n", count);
	else
		printf("%s of %s migrations applied\n", applied, count);
	return EX_OK;
}

static int
migrate_run(const struct ctl *ctl, int wait_s)
{
	struct api_buf buf = {0};
	const char *text = api_migrate_sql(&buf);
	PGresult *result;
	PGconn *conn;
	int code;

	if (text == NULL) {
		ctl_say("out of memory");
		return EX_OSERR;
	}
	code = ctl_connect(ctl, wait_s, &conn);
	if (code == EX_OK) {
		code = ctl_exec(conn, text, &result);
		if (code == EX_OK) {
			code = migrate_report(result);
			PQclear(result);
		} else {
			ctl_say("nothing was changed");
		}
		PQfinish(conn);
	}
	api_buf_fini(&buf);
	return code;
}

/* Seconds to wait, -1 for as long as it takes; -2 when text is neither. */
static int
wait_read(const char *text)
{
	char *end;
	long value;

	if (text == NULL)
		return -1;
	errno = 0;
	value = strtol(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || value < 0 ||
	    value > WAIT_S_MAX)
		return -2;
	return (int)value;
}

int
ctl_migrate(const struct ctl *ctl, int argc, char **argv)
{
	static const struct option options[] = {
	    {"wait", optional_argument, NULL, 'w'},
	    {NULL, 0, NULL, 0},
	};
	int option, wait_s = 0;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option != 'w')
			return ctl_usage_option(argc, argv);
		wait_s = wait_read(optarg);
		if (wait_s == -2)
			return ctl_usage(
			    "--wait: need 0 to %d seconds", WAIT_S_MAX);
	}
	if (optind != argc)
		return ctl_usage("migrate takes no argument; the options of"
				 " the database stand before it");
	return migrate_run(ctl, wait_s);
}
