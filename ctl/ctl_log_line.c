/*
 * One log line of booksd as people read it.
 *
 * A request:  time, worker, status, how long it took, method, target, and what
 * of it was the database's and the cache's.  An event: time, process, level,
 * its name and sentence, its fields.  Strings are bytes that clients chose: see
 * ctl_text_print().
 */
#include "config.h"

#include <string.h>

#include "ctl/ctl_log.h"
#include "ctl/ctl_text.h"

static const char *
text_of(const json_t *line, const char *name)
{
	const char *text = json_string_value(json_object_get(line, name));

	return text != NULL ? text : "";
}

static void
print_text(const json_t *value)
{
	if (json_is_string(value))
		ctl_text_print(stdout, json_string_value(value),
		    json_string_length(value));
}

/* 2026-01-31T23:59:59.123456Z becomes 2026-01-31 23:59:59.123. */
static void
print_time(const json_t *line)
{
	const char *time = text_of(line, "time");
	size_t len = strlen(time);

	if (len > 23 && time[10] == 'T' && time[19] == '.') {
		ctl_text_print(stdout, time, 10);
		putchar(' ');
		time += 11;
		len = 12;
	}
	ctl_text_print(stdout, time, len);
	putchar(' ');
}

static enum ctl_text_color
color_of_status(json_int_t status)
{
	if (status >= 500)
		return CTL_TEXT_RED;
	if (status >= 400)
		return CTL_TEXT_YELLOW;
	return status >= 300 ? CTL_TEXT_BLUE : CTL_TEXT_GREEN;
}

static void
print_request(const json_t *line)
{
	const json_t *worker = json_object_get(line, "worker");
	const json_t *cache = json_object_get(line, "cache");
	json_int_t status = json_integer_value(json_object_get(line, "status"));
	json_int_t db =
	    json_integer_value(json_object_get(line, "database_us"));
	json_int_t bytes = json_integer_value(json_object_get(line, "bytes"));
	char size[CTL_TEXT_BYTES];

	if (json_is_integer(worker))
		printf("w%-5d ", (int)json_integer_value(worker));
	printf("%s%3d%s %10.3f ms  ",
	    ctl_text_color(stdout, color_of_status(status)), (int)status,
	    ctl_text_color(stdout, CTL_TEXT_PLAIN),
	    (double)json_integer_value(json_object_get(line, "duration_us")) /
		1000);
	print_text(json_object_get(line, "method"));
	putchar(' ');
	print_text(json_object_get(line, "target"));
	printf("  %s%s", ctl_text_color(stdout, CTL_TEXT_FAINT),
	    ctl_text_size(bytes > 0 ? (uint64_t)bytes : 0, size));
	if (json_is_string(cache)) {
		printf(", cache ");
		print_text(cache);
	}
	if (db > 0)
		printf(", database %.3f ms", (double)db / 1000);
	printf("%s\n", ctl_text_color(stdout, CTL_TEXT_PLAIN));
}

static bool
is_said_already(const char *name)
{
	static const char *const names[] = {
	    "time", "level", "event", "message", "process", "worker"};

	for (size_t i = 0; i < SHM_ARRAY_LEN(names); i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

static void
print_fields(const json_t *line)
{
	const char *name;
	const json_t *value;

	json_object_foreach((json_t *)(uintptr_t)line, name, value)
	{
		if (is_said_already(name))
			continue;
		putchar(' ');
		ctl_text_print(stdout, name, strlen(name));
		putchar('=');
		if (json_is_string(value))
			print_text(value);
		else if (json_is_integer(value))
			printf(
			    "%" JSON_INTEGER_FORMAT, json_integer_value(value));
		else if (json_is_real(value))
			printf("%g", json_real_value(value));
		else
			printf("%s", json_is_true(value)    ? "true"
				     : json_is_false(value) ? "false"
							    : "-");
	}
}

static void
print_event(const json_t *line)
{
	const json_t *worker = json_object_get(line, "worker");
	const char *level = text_of(line, "level");
	enum ctl_text_color color = CTL_TEXT_PLAIN;

	if (strcmp(level, "error") == 0)
		color = CTL_TEXT_RED;
	else if (strcmp(level, "warn") == 0)
		color = CTL_TEXT_YELLOW;
	if (json_is_integer(worker))
		printf("w%-5d ", (int)json_integer_value(worker));
	else
		printf("%-6.6s ", text_of(line, "process"));
	fputs(ctl_text_color(stdout, color), stdout);
	print_text(json_object_get(line, "level"));
	putchar(' ');
	print_text(json_object_get(line, "event"));
	printf("%s ", ctl_text_color(stdout, CTL_TEXT_PLAIN));
	print_text(json_object_get(line, "message"));
	fputs(ctl_text_color(stdout, CTL_TEXT_FAINT), stdout);
	print_fields(line);
	printf("%s\n", ctl_text_color(stdout, CTL_TEXT_PLAIN));
}

void
ctl_log_line(const json_t *line)
{
	print_time(line);
	if (json_is_integer(json_object_get(line, "status")) &&
	    json_is_string(json_object_get(line, "method")))
		print_request(line);
	else
		print_event(line);
}
