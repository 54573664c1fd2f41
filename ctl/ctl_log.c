/*
 * booksctl log: booksd's JSON log lines, filtered and made readable.
 *
 * It reads what booksd wrote, from a file or from a pipe (docker logs), and
 * asks nobody.  A filter that a line cannot answer lets nothing through: an
 * event has no status, so --status shows requests alone.  Lines that are not
 * booksd's, as of a library that printed to standard error, are shown when no
 * filter is given.
 */
#include "config.h"

#include <ctype.h>
#include <fnmatch.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "ctl/ctl_log.h"
#include "ctl/ctl_text.h"

#define PATH_BYTES_MAX 4096 /* of a target; a longer one is not looked at */

static const char *const level_names[] = {"error", "warn", "info", "debug"};

struct filter {
	const char *event; /* NULL, or -1 below: all */
	const char *path;
	const char *status;
	double slow_ms;
	long worker;
	int level;
	bool is_any; /* one of them is given */
};

/* ---- filters */

/* "404", "5xx", "4xx,503": is status one of them? */
static bool
status_matches(const char *codes, json_int_t status)
{
	char text[24];

	snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT, status);
	if (strlen(text) != 3)
		return false;
	for (;; codes += 4) {
		bool same = true;

		for (int i = 0; i < 3; i++)
			if (tolower((unsigned char)codes[i]) != 'x' &&
			    codes[i] != text[i])
				same = false;
		if (same)
			return true;
		if (codes[3] == '\0')
			return false;
	}
}

static bool
status_is_valid(const char *codes)
{
	for (;; codes += 4) {
		if (codes[0] < '1' || codes[0] > '5')
			return false;
		for (int i = 1; i < 3; i++)
			if (tolower((unsigned char)codes[i]) != 'x' &&
			    !isdigit((unsigned char)codes[i]))
				return false;
		if (codes[3] != ',')
			return codes[3] == '\0';
	}
}

/* The pattern of a shell, or, without its signs, the beginning. */
static bool
path_matches(const char *pattern, const char *target)
{
	char path[PATH_BYTES_MAX];
	size_t len = strcspn(target, "?");

	if (strpbrk(pattern, "*?[") == NULL)
		return strncmp(target, pattern, strlen(pattern)) == 0;
	if (len >= sizeof(path))
		return false;
	memcpy(path, target, len);
	path[len] = '\0';
	return fnmatch(pattern, path, 0) == 0;
}

static int
level_find(const char *name)
{
	for (size_t i = 0; i < SHM_ARRAY_LEN(level_names); i++)
		if (strcmp(level_names[i], name) == 0)
			return (int)i;
	return -1;
}

static const char *
text_of(const json_t *line, const char *name)
{
	const char *text = json_string_value(json_object_get(line, name));

	return text != NULL ? text : "";
}

static bool
number_passes(const json_t *line, const char *name, double least)
{
	const json_t *value = json_object_get(line, name);

	return json_is_number(value) && json_number_value(value) >= least;
}

static bool
passes(const struct filter *filter, const json_t *line)
{
	const json_t *worker = json_object_get(line, "worker");
	const json_t *status = json_object_get(line, "status");
	int level;

	if (filter->worker >= 0 &&
	    (!json_is_integer(worker) ||
		json_integer_value(worker) != filter->worker))
		return false;
	if (filter->status != NULL &&
	    (!json_is_integer(status) ||
		!status_matches(filter->status, json_integer_value(status))))
		return false;
	if (filter->slow_ms >= 0 &&
	    !number_passes(line, "duration_us", filter->slow_ms * 1000))
		return false;
	if (filter->path != NULL &&
	    !path_matches(filter->path, text_of(line, "target")))
		return false;
	if (filter->event != NULL &&
	    fnmatch(filter->event, text_of(line, "event"), 0) != 0)
		return false;
	if (filter->level < 0)
		return true;
	level = level_find(text_of(line, "level"));
	return level >= 0 && level <= filter->level;
}

static void
line_read(void *owner, const char *text, size_t len)
{
	const struct filter *filter = owner;
	json_t *line = json_loadb(text, len, JSON_ALLOW_NUL, NULL);

	if (json_is_object(line) && *text == '{') {
		if (passes(filter, line))
			ctl_log_line(line);
	} else if (!filter->is_any) {
		ctl_text_print(stdout, text, len);
		putchar('\n');
	}
	json_decref(line);
}

/* ---- the command */

enum {
	OPTION_EVENT = 256,
	OPTION_LEVEL,
	OPTION_PATH,
	OPTION_SLOW,
	OPTION_STATUS,
	OPTION_WORKER,
};

/* A number that fills text; -1: it is none. */
static double
number_of(const char *text)
{
	char *end;
	double number = strtod(text, &end);

	if (!isdigit((unsigned char)*text) || *end != '\0' || number > 1e9)
		return -1;
	return number;
}

/* EX_OK, or after saying why not. */
static int
filter_add(struct filter *filter, int option, const char *value)
{
	double number;

	filter->is_any = true;
	switch (option) {
	case OPTION_EVENT:
		filter->event = value;
		return EX_OK;
	case OPTION_PATH:
		filter->path = value;
		return EX_OK;
	case OPTION_LEVEL:
		filter->level = level_find(value);
		if (filter->level < 0)
			return ctl_usage(
			    "log: --level: need error, warn, info or debug");
		return EX_OK;
	case OPTION_STATUS:
		filter->status = value;
		if (!status_is_valid(value))
			return ctl_usage("log: --status: need codes like 404,"
					 " 5xx or 4xx,503");
		return EX_OK;
	case OPTION_SLOW:
		filter->slow_ms = number_of(value);
		if (filter->slow_ms < 0)
			return ctl_usage("log: --slow: need milliseconds");
		return EX_OK;
	default:
		number = number_of(value);
		filter->worker = (long)number;
		if (number < 0 || (double)filter->worker != number)
			return ctl_usage("log: --worker: need a number");
		return EX_OK;
	}
}

int
ctl_log(const struct ctl *ctl, int argc, char **argv)
{
	static const struct option options[] = {
	    {"event", required_argument, NULL, OPTION_EVENT},
	    {"level", required_argument, NULL, OPTION_LEVEL},
	    {"path", required_argument, NULL, OPTION_PATH},
	    {"slow", required_argument, NULL, OPTION_SLOW},
	    {"status", required_argument, NULL, OPTION_STATUS},
	    {"worker", required_argument, NULL, OPTION_WORKER},
	    {NULL, 0, NULL, 0},
	};
	struct filter filter = {.slow_ms = -1, .worker = -1, .level = -1};
	bool follow = false;
	int option, code;

	(void)ctl;
	while ((option = getopt_long(argc, argv, "f", options, NULL)) != -1) {
		code = EX_OK;
		if (option == 'f')
			follow = true;
		else if (option == '?')
			code = ctl_usage_option(argc, argv);
		else
			code = filter_add(&filter, option, optarg);
		if (code != EX_OK)
			return code;
	}
	if (argc - optind > 1)
		return ctl_usage("log takes one file");
	return ctl_log_read(
	    optind < argc ? argv[optind] : "-", follow, line_read, &filter);
}
