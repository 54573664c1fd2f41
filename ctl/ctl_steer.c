/*
 * The commands that tell a running booksd what to do, and health.
 *
 * booksd accepts a command at once (202) and its master carries it out later,
 * so what came of it is seen in the status: a reload that was refused, for
 * instance, counts in events.reload_failed.  We look until it did, or until
 * WAIT_S have passed.  While settings are reloaded the process that answers us
 * is replaced as well: an answer that fails to come is asked for again.
 */
#include "config.h"

#include <ctype.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "ctl/ctl_answer.h"
#include "ctl/ctl_text.h"

#define WAIT_S	   120
#define LOOK_MS	   100
#define HEALTH_S   4  /* container engines give up after 5 s or more */
#define WORKER_MAX 64 /* booksd itself judges more exactly */

struct steer {
	const char *path;
	bool is_waiting;
	bool is_live;
};

/* What is waited for, as the status has it. */
struct look {
	uint64_t generation;
	uint64_t refused; /* reloads */
	uint64_t wanted;
	uint64_t serving; /* workers */
};

/* ---- options */

static int
options_read(struct steer *steer, const struct ctl *ctl, int argc, char **argv)
{
	static const struct option options[] = {
	    {"live", no_argument, NULL, 'l'},
	    {"no-wait", no_argument, NULL, 'w'},
	    {NULL, 0, NULL, 0},
	};
	bool is_health = strcmp(argv[0], "health") == 0;
	bool can_wait =
	    strcmp(argv[0], "reload") == 0 || strcmp(argv[0], "workers") == 0;
	int option;

	*steer = (struct steer){.path = ctl->control, .is_waiting = true};
	while ((option = getopt_long(argc, argv, "S:", options, NULL)) != -1) {
		if (option == 'S')
			steer->path = optarg;
		else if (option == 'w' && can_wait)
			steer->is_waiting = false;
		else if (option == 'l' && is_health)
			steer->is_live = true;
		else
			return ctl_usage_option(argc, argv);
	}
	if (optind < argc)
		return ctl_usage("%s: %s", argv[0],
		    strcmp(argv[0], "workers") == 0
			? "need one number"
			: "there is an argument too many");
	return EX_OK;
}

/* ---- asking */

static int
post(const struct steer *steer, const char *target)
{
	const struct ctl_control_question question = {
	    .path = steer->path, .target = target, .is_post = true};
	json_t *root;
	int code = ctl_answer_get(&question, false, &root);

	json_decref(root);
	return code;
}

static int
look_at(const struct steer *steer, struct look *look)
{
	const struct ctl_control_question question = {
	    .path = steer->path, .target = "/status.json"};
	const json_t *workers, *worker;
	size_t i;
	json_t *root;
	int code = ctl_answer_get(&question, false, &root);

	if (code != EX_OK)
		return code;
	workers = json_object_get(root, "workers");
	if (!json_is_array(workers) ||
	    !json_is_integer(json_object_get(root, "generation"))) {
		json_decref(root);
		return ctl_answer_no_sense();
	}
	*look = (struct look){
	    .generation = ctl_answer_figure(root, "generation"),
	    .refused = ctl_answer_figure(
		json_object_get(root, "events"), "reload_failed"),
	    .wanted = ctl_answer_figure(root, "workersWanted"),
	};
	json_array_foreach(workers, i, worker)
	{
		if (strcmp(ctl_answer_text(worker, "state"), "serving") == 0)
			look->serving++;
	}
	json_decref(root);
	return EX_OK;
}

/* Look until is_there says so.  EX_OK, or after saying what is missing. */
static int
wait_until(const struct steer *steer, struct look *look, const char *what,
    bool (*is_there)(const struct look *look, const struct look *before),
    const struct look *before)
{
	const struct timespec pause = {0, LOOK_MS * 1000000L};
	uint64_t end_us = shm_clock_us() + WAIT_S * UINT64_C(1000000);
	char why[256];
	int code;

	for (;;) {
		ctl_say_into(why, sizeof(why));
		code = look_at(steer, look);
		ctl_say_into(NULL, 0);
		if (code == EX_OK && is_there(look, before))
			return EX_OK;
		if (shm_clock_us() > end_us) {
			ctl_say("after %d s still not: %s%s%s", WAIT_S, what,
			    code != EX_OK ? ": " : "",
			    code != EX_OK ? why : "");
			return code != EX_OK ? code : EX_UNAVAILABLE;
		}
		nanosleep(&pause, NULL);
	}
}

/* ---- drain, reload */

int
ctl_drain(const struct ctl *ctl, int argc, char **argv)
{
	struct steer steer;
	int code = options_read(&steer, ctl, argc, argv);

	if (code == EX_OK)
		code = post(&steer, "/drain");
	if (code == EX_OK)
		printf("booksd drains, and ends when it has answered\n");
	return code;
}

static bool
is_reloaded(const struct look *look, const struct look *before)
{
	return look->generation != before->generation ||
	       look->refused != before->refused;
}

int
ctl_reload(const struct ctl *ctl, int argc, char **argv)
{
	struct look before, look;
	struct steer steer;
	int code = options_read(&steer, ctl, argc, argv);

	if (code == EX_OK && steer.is_waiting)
		code = look_at(&steer, &before);
	if (code == EX_OK)
		code = post(&steer, "/reload");
	if (code != EX_OK)
		return code;
	if (!steer.is_waiting) {
		printf("booksd was asked to reload\n");
		return EX_OK;
	}
	code = wait_until(
	    &steer, &look, "the settings are reloaded", is_reloaded, &before);
	if (code != EX_OK)
		return code;
	if (look.generation == before.generation) {
		ctl_say("booksd refused the settings and goes on with those it"
			" has: its log says why, and so does booksd -t");
		return EX_CONFIG;
	}
	printf("reloaded: generation %" PRIu64 "\n", look.generation);
	return EX_OK;
}

/* ---- workers */

static bool
has_all(const struct look *look, const struct look *goal)
{
	return look->wanted == goal->wanted && look->serving == goal->wanted;
}

/* "3", "+1", "-1"; 0 to WORKER_MAX behind the sign, else -1. */
static long
count_read(const char *text)
{
	long value;

	if (*text == '+' || *text == '-')
		text++;
	if (!isdigit((unsigned char)*text) || strlen(text) > 3 ||
	    text[strspn(text, "0123456789")] != '\0')
		return -1;
	value = strtol(text, NULL, 10);
	return value <= WORKER_MAX ? value : -1;
}

static bool
is_count(const char *text)
{
	return isdigit((unsigned char)*text) ||
	       ((*text == '+' || *text == '-') &&
		   isdigit((unsigned char)text[1]));
}

/* -1 would pass for an option: take the number out of the arguments, wherever
 * it stands but for the value of -S. */
static const char *
count_take(int *argc, char **argv)
{
	const char *count = NULL;

	for (int i = 1; i < *argc && count == NULL; i++) {
		if (!is_count(argv[i]) || strcmp(argv[i - 1], "-S") == 0)
			continue;
		count = argv[i];
		for (int j = i; j < *argc; j++)
			argv[j] = argv[j + 1];
		(*argc)--;
	}
	return count;
}

static int
workers_set(const struct steer *steer, const char *count, struct look *look)
{
	struct look goal = *look;
	long value = count_read(count);
	char target[64];
	int code;

	if (value == -1)
		return ctl_usage("workers: need a number of workers, or +N or"
				 " -N, of at most %d",
		    WORKER_MAX);
	if (*count == '+')
		goal.wanted += (uint64_t)value;
	else if (*count == '-')
		goal.wanted -= (uint64_t)value < goal.wanted ? (uint64_t)value
							     : goal.wanted;
	else
		goal.wanted = (uint64_t)value;
	snprintf(target, sizeof(target), "/workers?n=%" PRIu64, goal.wanted);
	code = post(steer, target);
	if (code == EX_OK && steer->is_waiting)
		code = wait_until(
		    steer, look, "that many workers serve", has_all, &goal);
	else if (code == EX_OK)
		printf(
		    "booksd was asked for %" PRIu64 " workers\n", goal.wanted);
	return code;
}

int
ctl_workers(const struct ctl *ctl, int argc, char **argv)
{
	const char *count = count_take(&argc, argv);
	struct steer steer;
	struct look look;
	int code = options_read(&steer, ctl, argc, argv);

	if (code == EX_OK)
		code = look_at(&steer, &look);
	if (code == EX_OK && count != NULL)
		code = workers_set(&steer, count, &look);
	if (code == EX_OK && (count == NULL || steer.is_waiting))
		printf("%" PRIu64 " wanted, %" PRIu64 " serving\n", look.wanted,
		    look.serving);
	return code;
}

/* ---- health */

int
ctl_health(const struct ctl *ctl, int argc, char **argv)
{
	struct ctl_control_question question = {.timeout_s = HEALTH_S};
	struct ctl_control_answer answer;
	struct steer steer;
	int code = options_read(&steer, ctl, argc, argv);
	long status;

	if (code != EX_OK)
		return code;
	question.path = steer.path;
	question.target = steer.is_live ? "/livez" : "/readyz";
	/* Container engines know 0 and 1, and reserve the rest. */
	if (ctl_control_ask(&question, &answer) != EX_OK)
		return EXIT_FAILURE;
	status = answer.status;
	ctl_control_answer_fini(&answer);
	if (status != 200) {
		ctl_say("booksd is not %s (%ld)",
		    steer.is_live ? "alive" : "ready", status);
		return EXIT_FAILURE;
	}
	if (!ctl->is_quiet)
		printf("%s\n", steer.is_live ? "alive" : "ready");
	return EX_OK;
}
