/*
 * booksctl status: what booksd is doing, on one screen.
 *
 * The columns are for people and may change; --json is booksd's answer as it
 * came.  What this version of booksctl does not find is shown as 0 or "-": a
 * booksd that is being upgraded may be of another version.
 */
#include "config.h"

#include <getopt.h>
#include <inttypes.h>
#include <string.h>
#include <sysexits.h>

#include "ctl/ctl_answer.h"
#include "ctl/ctl_text.h"

static void
color(enum ctl_text_color which)
{
	fputs(ctl_text_color(stdout, which), stdout);
}

static void
title(const char *name)
{
	color(CTL_TEXT_BOLD);
	printf("%-9s ", name);
	color(CTL_TEXT_PLAIN);
}

static enum ctl_text_color
color_of_state(const char *state)
{
	if (strcmp(state, "ready") == 0 || strcmp(state, "serving") == 0)
		return CTL_TEXT_GREEN;
	return strcmp(state, "away") == 0 ? CTL_TEXT_RED : CTL_TEXT_YELLOW;
}

static void
colored(const json_t *object, const char *name)
{
	color(color_of_state(ctl_answer_text(object, name)));
	ctl_answer_print(object, name);
	color(CTL_TEXT_PLAIN);
}

static void
show_task(const json_t *root)
{
	const json_t *task = json_object_get(root, "task");
	char text[CTL_TEXT_BYTES];

	title("booksd");
	ctl_answer_print(root, "version");
	fputs(", ", stdout);
	colored(root, "state");
	printf(", up %s, master %" PRIu64 ", ",
	    ctl_text_time(ctl_answer_measure(root, "uptimeSeconds"), text),
	    ctl_answer_figure(root, "pid"));
	ctl_answer_print(root, "backend");
	printf(
	    ", settings %" PRIu64 "\n", ctl_answer_figure(root, "generation"));
	if (!json_is_object(task))
		return;
	title("task");
	ctl_answer_print(task, "family");
	putchar(':');
	ctl_answer_print(task, "revision");
	putchar(' ');
	ctl_answer_print(task, "id");
	putchar('\n');
}

static void
show_requests(const json_t *root)
{
	const json_t *requests = json_object_get(root, "requests");
	const json_t *classes = json_object_get(requests, "byClass");
	const json_t *latency = json_object_get(root, "latency");
	const char *name;
	const json_t *value;
	char text[CTL_TEXT_BYTES];

	title("requests");
	printf("%s, %.1f/s now, %.0f per CPU second",
	    ctl_text_grouped(ctl_answer_figure(requests, "total"), text),
	    ctl_answer_measure(requests, "perSecond"),
	    ctl_answer_measure(requests, "perCpuSecond"));
	json_object_foreach((json_t *)(uintptr_t)classes, name, value)
	{
		if (!json_is_integer(value) || json_integer_value(value) <= 0)
			continue;
		printf(", ");
		if (*name == '5')
			color(CTL_TEXT_RED);
		ctl_text_print(stdout, name, strlen(name));
		printf(" %s", ctl_text_grouped(
				  (uint64_t)json_integer_value(value), text));
		color(CTL_TEXT_PLAIN);
	}
	printf("\n");
	title("latency");
	printf("p50 %.2f ms, p90 %.2f ms, p99 %.2f ms, max %.2f ms"
	       " (last 10 s)\n",
	    ctl_answer_measure(latency, "p50"),
	    ctl_answer_measure(latency, "p90"),
	    ctl_answer_measure(latency, "p99"),
	    ctl_answer_measure(latency, "max"));
}

static void
show_cache(const json_t *root)
{
	const json_t *cache = json_object_get(root, "cache");
	char used[CTL_TEXT_BYTES], size[CTL_TEXT_BYTES];
	char entries[CTL_TEXT_BYTES];

	title("cache");
	if (!json_is_true(json_object_get(cache, "enabled"))) {
		printf("off\n");
		return;
	}
	if (json_is_number(json_object_get(cache, "hitRatio")))
		printf("%.1f %% hits, ",
		    100 * ctl_answer_measure(cache, "hitRatio"));
	printf("%s entries, %s of %s\n",
	    ctl_text_grouped(ctl_answer_figure(cache, "entries"), entries),
	    ctl_text_size(ctl_answer_figure(cache, "usedBytes"), used),
	    ctl_text_size(ctl_answer_figure(cache, "dataBytes"), size));
}

static void
show_database(const json_t *root)
{
	const json_t *database = json_object_get(root, "database"), *error;
	const json_t *errors = json_object_get(database, "errors");
	bool is_ready = json_is_true(json_object_get(database, "ready"));
	size_t i;

	title("database");
	color(is_ready ? CTL_TEXT_GREEN : CTL_TEXT_RED);
	fputs(is_ready ? "ready" : "away", stdout);
	color(CTL_TEXT_PLAIN);
	printf(", %" PRIu64 " connections, %" PRIu64 " busy, %" PRIu64
	       " waiting, p50 %.2f ms, p99 %.2f ms, %" PRIu64 " timeouts",
	    ctl_answer_figure(database, "connections"),
	    ctl_answer_figure(database, "busy"),
	    ctl_answer_figure(database, "waiting"),
	    ctl_answer_measure(database, "p50"),
	    ctl_answer_measure(database, "p99"),
	    ctl_answer_figure(database, "timeouts"));
	json_array_foreach(errors, i, error)
	{
		printf(", ");
		ctl_answer_print(error, "sqlstate");
		printf(" %" PRIu64, ctl_answer_figure(error, "count"));
	}
	putchar('\n');
}

static void
show_cpu(const json_t *root)
{
	const json_t *cpu = json_object_get(root, "cpu");
	double limit = ctl_answer_measure(cpu, "limitMillicpus") / 1000;
	double throttled = ctl_answer_measure(cpu, "throttledSeconds");

	title("cpu");
	if (limit > 0)
		printf("limit %.2f", limit);
	else
		printf("no limit");
	if (*ctl_answer_text(cpu, "source") != '\0') {
		printf(" (");
		ctl_answer_print(cpu, "source");
		printf(")");
	}
	if (throttled > 0) {
		color(CTL_TEXT_YELLOW);
		printf(", throttled %.1f s", throttled);
		color(CTL_TEXT_PLAIN);
	}
	putchar('\n');
}

static void
show_listen(const json_t *root)
{
	const json_t *listen = json_object_get(root, "listen"), *address;
	const json_t *addresses = json_object_get(listen, "addresses");
	size_t i;

	title("listen");
	json_array_foreach(addresses, i, address)
	{
		if (json_is_string(address))
			ctl_text_print(stdout, json_string_value(address),
			    json_string_length(address));
		printf(", ");
	}
	printf("%" PRIu64 " in the queue, %" PRIu64 " overflows\n",
	    ctl_answer_figure(listen, "queue"),
	    ctl_answer_figure(listen, "overflows"));
}

/* Those that happened, but for the harmless one of each resize or reload. */
static void
show_events(const json_t *root)
{
	const json_t *events = json_object_get(root, "events"), *value;
	const char *name;
	bool is_any = false;

	json_object_foreach((json_t *)(uintptr_t)events, name, value)
	{
		if (!json_is_integer(value) || json_integer_value(value) <= 0)
			continue;
		if (!is_any)
			title("events");
		printf("%s", is_any ? ", " : "");
		ctl_text_print(stdout, name, strlen(name));
		printf(" %" JSON_INTEGER_FORMAT, json_integer_value(value));
		is_any = true;
	}
	if (is_any)
		putchar('\n');
}

/* A word in a column: one that is no plain word would upset the columns, if
 * not the terminal. */
static const char *
word(const json_t *object, const char *name)
{
	const char *text = ctl_answer_text(object, name);

	for (const char *at = text; *at != '\0'; at++)
		if (*at <= ' ' || *at >= 0x7f)
			return "?";
	return text;
}

static void
show_worker(const json_t *worker)
{
	char age[CTL_TEXT_BYTES];
	const char *state = word(worker, "state");

	printf("%4" PRIu64 " %8" PRIu64 " ", ctl_answer_figure(worker, "slot"),
	    ctl_answer_figure(worker, "pid"));
	color(color_of_state(state));
	printf("%-9.9s", state);
	color(CTL_TEXT_PLAIN);
	printf(" %12s %5" PRIu64 " %9.1f %5.1f %5.1f %3" PRIu64 "/%-3" PRIu64
	       " %5" PRIu64 "  %-8.8s",
	    ctl_text_time(ctl_answer_measure(worker, "ageSeconds"), age),
	    ctl_answer_figure(worker, "connections"),
	    ctl_answer_measure(worker, "requestsPerSecond"),
	    ctl_answer_measure(worker, "busyPercent"),
	    ctl_answer_measure(worker, "cpuPercent"),
	    ctl_answer_figure(worker, "databaseBusy"),
	    ctl_answer_figure(worker, "databaseConnections"),
	    ctl_answer_figure(worker, "restarts"), word(worker, "doing"));
	if (json_is_string(json_object_get(worker, "route"))) {
		putchar(' ');
		ctl_answer_print(worker, "route");
	}
	putchar('\n');
}

static void
show_workers(const json_t *root)
{
	const json_t *workers = json_object_get(root, "workers"), *worker;
	uint64_t min = ctl_answer_figure(root, "workersMin");
	uint64_t max = ctl_answer_figure(root, "workersMax");
	size_t i;

	title("workers");
	printf("%" PRIu64 " wanted", ctl_answer_figure(root, "workersWanted"));
	if (max > min)
		printf(", between %" PRIu64 " and %" PRIu64, min, max);
	printf("\n\n");
	color(CTL_TEXT_BOLD);
	printf("SLOT      PID STATE              AGE  CONN     REQ/S  BUSY   "
	       "CPU DB      DIED  DOING");
	color(CTL_TEXT_PLAIN);
	putchar('\n');
	json_array_foreach(workers, i, worker)
	{
		show_worker(worker);
	}
}

int
ctl_status(const struct ctl *ctl, int argc, char **argv)
{
	static const struct option options[] = {
	    {"json", no_argument, NULL, 'j'},
	    {NULL, 0, NULL, 0},
	};
	struct ctl_control_question question = {
	    .path = ctl->control, .target = "/status.json"};
	bool is_json = false;
	json_t *root;
	int option, code;

	while ((option = getopt_long(argc, argv, "S:", options, NULL)) != -1) {
		if (option == 'S')
			question.path = optarg;
		else if (option == 'j')
			is_json = true;
		else
			return ctl_usage_option(argc, argv);
	}
	if (optind < argc)
		return ctl_usage("status takes no argument");
	code = ctl_answer_get(&question, is_json, &root);
	if (code != EX_OK || root == NULL)
		return code;
	if (!json_is_string(json_object_get(root, "version")) ||
	    !json_is_array(json_object_get(root, "workers"))) {
		json_decref(root);
		return ctl_answer_no_sense();
	}
	show_task(root);
	show_requests(root);
	show_cache(root);
	show_database(root);
	show_cpu(root);
	show_listen(root);
	show_events(root);
	show_workers(root);
	json_decref(root);
	return EX_OK;
}
