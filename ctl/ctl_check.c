/*
 * booksctl check: what would an administrator look at, when booksd does not do
 * what it should?
 *
 * Settings are judged by booksd itself (booksd -t), because there is one table
 * of them and it lives there; the program is looked for beside this one, then
 * in PATH.  What it prints goes to nobody but the one who asked, yet a value
 * may be a secret, so only its own message is shown, and of its dump (-T, which
 * hides secrets) one number is read.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "ctl/ctl_answer.h"
#include "ctl/ctl_check.h"
#include "ctl/ctl_text.h"

#define OUTPUT_BYTES_MAX 16384

extern char **environ;

void
ctl_check_say(struct ctl_check *check, enum ctl_check_mark mark,
    const char *subject, const char *format, ...)
{
	static const struct {
		const char *word;
		enum ctl_text_color color;
	} marks[] = {
	    [CTL_CHECK_OK] = {"ok", CTL_TEXT_GREEN},
	    [CTL_CHECK_WARN] = {"warn", CTL_TEXT_YELLOW},
	    [CTL_CHECK_FAIL] = {"fail", CTL_TEXT_RED},
	};
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	printf("%s%-4s%s  %-11s  ", ctl_text_color(stdout, marks[mark].color),
	    marks[mark].word, ctl_text_color(stdout, CTL_TEXT_PLAIN), subject);
	ctl_text_print(stdout, text, strlen(text));
	putchar('\n');
	check->has_failed |= mark == CTL_CHECK_FAIL;
}

/* ---- booksd -t */

/* Beside us, or in the sbin beside our bin; else its name, for PATH. */
static const char *
booksd_find(char path[PATH_MAX])
{
	static const char *const places[] = {"booksd", "../sbin/booksd"};
	char folder[PATH_MAX - 32], *slash;
	ssize_t len = readlink("/proc/self/exe", folder, sizeof(folder) - 1);

	if (len <= 0)
		return "booksd";
	folder[len] = '\0';
	slash = strrchr(folder, '/');
	if (slash != NULL)
		*slash = '\0';
	for (size_t i = 0; i < SHM_ARRAY_LEN(places); i++) {
		snprintf(path, PATH_MAX, "%s/%s", folder, places[i]);
		if (access(path, X_OK) == 0)
			return path;
	}
	return "booksd";
}

static size_t
output_read(int fd, char output[OUTPUT_BYTES_MAX])
{
	size_t len = 0;
	ssize_t got;
	char rest[512];

	while (len < OUTPUT_BYTES_MAX - 1) {
		got = read(fd, output + len, OUTPUT_BYTES_MAX - 1 - len);
		if (got == -1 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		len += (size_t)got;
	}
	/* A full pipe would stop the program. */
	while ((got = read(fd, rest, sizeof(rest))) > 0 ||
	       (got == -1 && errno == EINTR))
		continue;
	output[len] = '\0';
	return len;
}

/* What booksd prints, and its exit code; -1: there is no booksd. */
static int
booksd_run(const char *const argv[], char output[OUTPUT_BYTES_MAX])
{
	posix_spawn_file_actions_t actions;
	char path[PATH_MAX];
	int ends[2], error, status = 0;
	pid_t pid;

	*output = '\0';
	if (pipe2(ends, O_CLOEXEC) == -1)
		return -1;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(
	    &actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
	error = posix_spawnp(&pid, booksd_find(path), &actions, NULL,
	    (char *const *)(uintptr_t)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(ends[1]);
	if (error == 0) {
		output_read(ends[0], output);
		while (waitpid(pid, &status, 0) == -1 && errno == EINTR)
			continue;
	}
	close(ends[0]);
	if (error != 0)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EX_OSERR;
}

/* The number behind "key = " at the start of a line of booksd -T, else 0. */
static uint64_t
dump_number(const char *dump, const char *key)
{
	size_t len = strlen(key);

	for (const char *at = dump; at != NULL && *at != '\0';) {
		if (strncmp(at, key, len) == 0 &&
		    strncmp(at + len, " = ", 3) == 0)
			return strtoull(at + len + 3, NULL, 10);
		at = strchr(at, '\n');
		at += at != NULL;
	}
	return 0;
}

static void
check_settings(struct ctl_check *check, const char *file)
{
	const char *argv[] = {"booksd", "-t", NULL, NULL, NULL};
	char output[OUTPUT_BYTES_MAX];
	const char *text = output;
	int code;

	if (file != NULL) {
		argv[2] = "-c";
		argv[3] = file;
		if (access(file, R_OK) == -1) {
			ctl_check_say(check, CTL_CHECK_FAIL, "settings",
			    "%s: %s; give the file that booksd -c is given",
			    file, strerror(errno));
			return;
		}
	}
	code = booksd_run(argv, output);
	output[strcspn(output, "\n")] = '\0';
	if (strncmp(text, "booksd: ", 8) == 0)
		text += 8;
	if (code == -1) {
		ctl_check_say(check, CTL_CHECK_WARN, "settings",
		    "not judged: booksd is neither beside booksctl nor in"
		    " PATH; install it here, or run booksd -t there");
		return;
	}
	if (code != EX_OK) {
		ctl_check_say(check, CTL_CHECK_FAIL, "settings",
		    "%s; booksd.conf(5) explains each",
		    *text != '\0' ? text : "booksd -t failed");
		return;
	}
	ctl_check_say(check, CTL_CHECK_OK, "settings", "%s: valid",
	    file != NULL ? file : "environment and defaults");
	argv[1] = "-T";
	if (booksd_run(argv, output) == EX_OK)
		check->connections_wanted =
		    dump_number(output, "database_connections");
}

/* ---- the running booksd */

static void
check_version(struct ctl_check *check, const json_t *root)
{
	const char *version = ctl_answer_text(root, "version");

	if (strcmp(version, PACKAGE_VERSION) == 0)
		ctl_check_say(
		    check, CTL_CHECK_OK, "version", "%s, as booksctl", version);
	else
		ctl_check_say(check, CTL_CHECK_WARN, "version",
		    "booksd is %s, booksctl is %s; use those of one package",
		    version, PACKAGE_VERSION);
}

static void
check_state(struct ctl_check *check, const json_t *root)
{
	const char *state = ctl_answer_text(root, "state");
	const json_t *workers = json_object_get(root, "workers"), *worker;
	uint64_t wanted = ctl_answer_figure(root, "workersWanted");
	uint64_t serving = 0;
	size_t i;

	json_array_foreach(workers, i, worker)
	{
		serving +=
		    strcmp(ctl_answer_text(worker, "state"), "serving") == 0;
	}
	if (strcmp(state, "ready") != 0)
		ctl_check_say(check, CTL_CHECK_WARN, "booksd",
		    "%s: load balancers are told not to send requests; wait,"
		    " or see its log",
		    state);
	else if (serving < wanted)
		ctl_check_say(check, CTL_CHECK_WARN, "booksd",
		    "%" PRIu64 " of %" PRIu64 " workers serve; its log says"
		    " what happens to the others",
		    serving, wanted);
	else
		ctl_check_say(check, CTL_CHECK_OK, "booksd",
		    "ready, %" PRIu64 " workers", serving);
	if (!json_is_true(
		json_object_get(json_object_get(root, "database"), "ready")))
		ctl_check_say(check, CTL_CHECK_FAIL, "pool",
		    "booksd has no usable connection to its database; its log"
		    " says why");
}

static void
check_running(struct ctl_check *check, const char *path)
{
	const struct ctl_control_question question = {
	    .path = path, .target = "/status.json"};
	char why[512];
	json_t *root;
	int code;

	ctl_say_into(why, sizeof(why));
	code = ctl_answer_get(&question, false, &root);
	ctl_say_into(NULL, 0);
	if (code != EX_OK) {
		/* It need not run, but one that was named should. */
		ctl_check_say(check,
		    code == EX_UNAVAILABLE && path == NULL ? CTL_CHECK_WARN
							   : CTL_CHECK_FAIL,
		    "control", "%s", why);
		return;
	}
	ctl_check_say(check, CTL_CHECK_OK, "control", "booksd answers");
	check_version(check, root);
	check_state(check, root);
	json_decref(root);
}

/* ---- the command */

static void
check_all(const struct ctl *ctl, struct ctl_check *check, const char *file,
    const char *path)
{
	struct ctl with_database = *ctl;
	char why[256];
	int code = EX_OK;

	check_settings(check, file);
	if (with_database.database == NULL) {
		ctl_say_into(why, sizeof(why));
		code = ctl_database_from_env(&with_database.database);
		ctl_say_into(NULL, 0);
	}
	if (code != EX_OK)
		ctl_check_say(check, CTL_CHECK_FAIL, "database", "%s", why);
	else
		ctl_check_database(check, &with_database);
	check_running(check, path);
}

int
ctl_check(const struct ctl *ctl, int argc, char **argv)
{
	struct ctl_check check = {.has_failed = false};
	const char *file = NULL, *path = ctl->control;
	int option;

	while ((option = getopt(argc, argv, "c:S:")) != -1) {
		if (option == 'c')
			file = optarg;
		else if (option == 'S')
			path = optarg;
		else
			return ctl_usage_option(argc, argv);
	}
	if (optind < argc)
		return ctl_usage("check takes no argument");
	check_all(ctl, &check, file, path);
	return check.has_failed ? EXIT_FAILURE : EX_OK;
}
