/*
 * What people may see about connections: whether a connection string is
 * valid, the string without its secrets, and the reason why a connection
 * failed without libpq's prose.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/worker.h"
#include "worker/worker_conninfo.h"

#define MASK "********"

/* ---- failures */

static const struct {
	const char *sqlstate;
	const char *reason;
} sqlstate_reasons[] = {
    {"0A000", "statements must be prepared again"},
    {"25006", "the server is read-only"},
    {"26000", "statements must be prepared again"},
    {"28000", "the server refuses this user or host"},
    {"28P01", "wrong password"},
    {"3D000", "no such database"},
    {"42501", "permission denied"},
    {"42703", "a column is missing: migrations are pending"},
    {"42P01", "a table is missing: migrations are pending"},
    {"53300", "too many connections"},
    {"57P01", "terminated by an administrator"},
    {"57P02", "the server crashed"},
    {"57P03", "the server is starting up or shutting down"},
    {"57P04", "the database was dropped"},
    {"57P05", "the connection was idle for too long"},
};

const char *
worker_conninfo_sqlstate(const char *sqlstate)
{
	for (size_t i = 0; i < SHM_ARRAY_LEN(sqlstate_reasons); i++)
		if (strcmp(sqlstate_reasons[i].sqlstate, sqlstate) == 0)
			return sqlstate_reasons[i].reason;
	return NULL;
}

/* Does the line end as PQERRORS_SQLSTATE makes it, "SEVERITY:  28P01"? */
static const char *
line_sqlstate(const char *line, size_t len)
{
	const char *state = line + len - 5;

	if (len < 8 || memcmp(state - 3, ":  ", 3) != 0)
		return NULL;
	for (int i = 0; i < 5; i++)
		if (!((state[i] >= '0' && state[i] <= '9') ||
			(state[i] >= 'A' && state[i] <= 'Z')))
			return NULL;
	return state;
}

static void
reason_set(
    struct worker_conninfo_failure *failure, const char *text, size_t len)
{
	snprintf(
	    failure->reason, sizeof(failure->reason), "%.*s", (int)len, text);
}

static void
failure_line(
    struct worker_conninfo_failure *failure, const char *line, size_t len)
{
	static const char mark[] = " failed: ";
	const char *state = line_sqlstate(line, len);
	const char *text = memmem(line, len, mark, sizeof(mark) - 1);

	if (state != NULL) {
		const char *reason;

		memcpy(failure->sqlstate, state, 5);
		reason = worker_conninfo_sqlstate(failure->sqlstate);
		if (reason == NULL)
			reason = "refused by the server";
		reason_set(failure, reason, strlen(reason));
	} else if (failure->sqlstate[0] == '\0' && text != NULL) {
		text += sizeof(mark) - 1;
		reason_set(failure, text, len - (size_t)(text - line));
	} else if (failure->reason[0] == '\0') {
		reason_set(failure, line, len);
	}
}

/* Several hosts give several lines: the last one counts, but one with an
 * SQLSTATE more than one without.  Lines that begin with a tab are hints. */
void
worker_conninfo_failure(
    const char *message, struct worker_conninfo_failure *failure)
{
	*failure = (struct worker_conninfo_failure){.sqlstate = ""};
	while (*message != '\0') {
		size_t len = strcspn(message, "\n");

		if (message[0] != '\t' && len > 0)
			failure_line(failure, message, len);
		message += len;
		message += *message == '\n';
	}
	if (failure->reason[0] == '\0')
		reason_set(failure, "connection lost", 15);
}

/* ---- the setting */

bool
worker_database_check(const char *conninfo, char **why)
{
	struct worker_conninfo *info = worker_conninfo_new(conninfo, NULL, why);
	bool ok = info != NULL;

	worker_conninfo_free(&info);
	return ok;
}

/* ---- masking */

static bool
keyword_is_secret(const PQconninfoOption *option)
{
	return option->dispchar[0] == '*' ||
	       strstr(option->keyword, "password") != NULL ||
	       strstr(option->keyword, "secret") != NULL ||
	       strncmp(option->keyword, "scram_", 6) == 0;
}

/* A string inside dbname is one that somebody meant to be expanded. */
static bool
option_is_secret(const PQconninfoOption *option)
{
	return keyword_is_secret(option) ||
	       (strcmp(option->keyword, "dbname") == 0 &&
		   (strstr(option->val, "://") != NULL ||
		       strchr(option->val, '=') != NULL));
}

static void
value_print(FILE *out, const char *value)
{
	if (value[0] != '\0' && strpbrk(value, " \t\n\r\v\f'\\") == NULL) {
		fputs(value, out);
		return;
	}
	fputc('\'', out);
	for (; *value != '\0'; value++) {
		if (*value == '\'' || *value == '\\')
			fputc('\\', out);
		fputc(*value, out);
	}
	fputc('\'', out);
}

static void
mask_print(FILE *out, const PQconninfoOption *options)
{
	const char *space = "";

	for (; options->keyword != NULL; options++) {
		if (options->val == NULL)
			continue;
		fprintf(out, "%s%s=", space, options->keyword);
		value_print(
		    out, option_is_secret(options) ? MASK : options->val);
		space = " ";
	}
}

/* Written anew from what the parser understood, a URI too: so nothing that
 * libpq takes for a secret can be left over. */
char *
worker_database_mask(const char *conninfo)
{
	PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
	char *text = NULL;
	size_t size;
	FILE *out;

	if (options == NULL)
		return strdup(MASK);
	out = open_memstream(&text, &size);
	if (out != NULL) {
		mask_print(out, options);
		if (fclose(out) != 0) {
			free(text);
			text = NULL;
		}
	}
	PQconninfoFree(options);
	return text;
}
