/*
 * Goal: log lines are valid whatever bytes they carry, whole however many
 * processes share a pipe, and no reader, however slow, can stop the process.
 * Method: lines are written to files, pipes, FIFOs and sockets and read back;
 * jansson judges the JSON.  What concerns stdout runs in a child with its
 * stdout replaced; an alarm(2) kills the child if a write ever waits.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "worker/worker_log.h"
#include "worker/worker_log_line.h"

#define STUCK_S	   20 /* a child that still runs then was blocked */
#define READ_BYTES (8 << 20)
#define BYTES(literal)                         \
	{                                      \
		(literal), sizeof(literal) - 1 \
	}

static char folder[] = "/tmp/test_worker_log_XXXXXX";
static char text[READ_BYTES + 1];

static const char *
path_of(const char *name)
{
	static char path[4][128];
	static unsigned next;
	char *out = path[next++ % 4];

	snprintf(out, sizeof(path[0]), "%s/%s", folder, name);
	return out;
}

static int
group_setup(void **state)
{
	(void)state;
	signal(SIGPIPE, SIG_IGN);
	return mkdtemp(folder) == NULL ? -1 : 0;
}

static int
group_teardown(void **state)
{
	char command[160];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

static void
open_log(const char *access, const char *error, enum worker_log_format format)
{
	const struct worker_log_options options = {
	    .access = access,
	    .error = error,
	    .format = format,
	    .level = WORKER_LOG_INFO,
	};
	const char *which;

	if (worker_log_open(&options, &which) == -1) {
		fprintf(stderr, "# %s: %s\n", which, strerror(errno));
		abort();
	}
}

/* Begin with an empty file for events and requests alike. */
static void
open_file(enum worker_log_format format)
{
	unlink(path_of("log"));
	open_log(path_of("log"), path_of("log"), format);
	worker_log_forked("worker", 3);
}

static size_t
read_fd(int fd)
{
	size_t len = 0;
	ssize_t n;

	while ((n = read(fd, text + len, READ_BYTES - len)) > 0)
		len += (size_t)n;
	text[len] = '\0';
	return len;
}

static size_t
read_log(void)
{
	int fd = open(path_of("log"), O_RDONLY);
	size_t len;

	worker_log_close();
	assert_int_not_equal(fd, -1);
	len = read_fd(fd);
	close(fd);
	return len;
}

/* The only line there is, parsed. */
static json_t *
read_json(void)
{
	size_t len = read_log();
	json_error_t why;
	json_t *json;

	assert_true(len > 0 && len <= WORKER_LOG_LINE_MAX);
	assert_ptr_equal(strchr(text, '\n'), text + len - 1);
	json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
	if (json == NULL)
		fail_msg("%s in %s", why.text, text);
	return json;
}

static const char *
json_text(const json_t *json, const char *name)
{
	const char *value = json_string_value(json_object_get(json, name));

	if (value == NULL)
		fail_msg("no string \"%s\" in %s", name, text);
	return value;
}

static struct worker_log_access
plain_request(void)
{
	return (struct worker_log_access){
	    .duration_us = 456,
	    .db_us = 123,
	    .bytes = 1789,
	    .status = 200,
	    .minor = 1,
	    .route = "/books/{isbn}",
	    .method = API_SLICE("GET"),
	    .target = API_SLICE("/books/9780201134476?x=1"),
	    .request_id = API_SLICE("0123456789abcdef"),
	    .trace_root = API_SLICE("1-67891233-abcdef012345678912345678"),
	    .remote = API_SLICE("192.0.2.7"),
	    .referer = API_SLICE("https://example.com/\"x"),
	    .user_agent = API_SLICE("curl/8.0"),
	};
}

/* ---- lines */

static void
an_event_has_its_fields_in_order(void **state)
{
	json_t *json;
	char *copy;

	(void)state;
	open_file(WORKER_LOG_JSON);
	worker_log(WORKER_LOG_WARN, "db_away", "the database is away",
	    LOG_STR("cause", "refused"), LOG_INT("wait_ms", -5), LOG_END);
	json = read_json();
	copy = json_dumps(json, JSON_COMPACT);
	assert_non_null(strstr(copy,
	    ",\"level\":\"warn\",\"event\":\"db_away\","
	    "\"message\":\"the database is away\",\"process\":\"worker\","
	    "\"worker\":3,\"cause\":\"refused\",\"wait_ms\":-5}"));
	assert_int_equal(strlen(json_text(json, "time")),
	    strlen("2026-01-31T23:59:59.000000Z"));
	free(copy);
	json_decref(json);
}

static void
a_request_has_its_fields_in_order(void **state)
{
	struct worker_log_access access = plain_request();
	json_t *json;

	(void)state;
	open_file(WORKER_LOG_JSON);
	worker_log_request(&access);
	json = read_json();
	assert_memory_equal(text, "{\"time\":\"2", 10);
	assert_string_equal(strstr(text, ",\"level\""),
	    ",\"level\":\"info\",\"message\":\"request\","
	    "\"request_id\":\"0123456789abcdef\","
	    "\"trace_root\":\"1-67891233-abcdef012345678912345678\","
	    "\"method\":\"GET\",\"route\":\"/books/{isbn}\","
	    "\"target\":\"/books/9780201134476?x=1\",\"status\":200,"
	    "\"bytes\":1789,\"duration_us\":456,\"database_us\":123,"
	    "\"worker\":3}\n");
	json_decref(json);
}

/* The other way to make the line, which escapes. */
static void
a_request_with_a_quote_has_the_same_fields(void **state)
{
	struct worker_log_access access = plain_request();
	json_t *json;

	(void)state;
	access.cache = "hit";
	access.target = API_SLICE("/books/\"");
	open_file(WORKER_LOG_JSON);
	worker_log_request(&access);
	json = read_json();
	assert_string_equal(strstr(text, ",\"level\""),
	    ",\"level\":\"info\",\"message\":\"request\","
	    "\"request_id\":\"0123456789abcdef\","
	    "\"trace_root\":\"1-67891233-abcdef012345678912345678\","
	    "\"method\":\"GET\",\"route\":\"/books/{isbn}\","
	    "\"target\":\"/books/\\\"\",\"status\":200,"
	    "\"bytes\":1789,\"duration_us\":456,\"database_us\":123,"
	    "\"cache\":\"hit\",\"worker\":3}\n");
	json_decref(json);
}

static void
one_byte_anywhere_makes_a_text_not_plain(void **state)
{
	char bytes[40];

	(void)state;
	for (size_t len = 0; len < sizeof(bytes); len++) {
		memset(bytes, 'a', sizeof(bytes));
		assert_true(
		    worker_log_line_is_plain((struct api_slice){bytes, len}));
		for (size_t at = 0; at < len; at++) {
			bytes[at] = "\"\\\x1f\x7f\x80"[at % 5];
			assert_false(worker_log_line_is_plain(
			    (struct api_slice){bytes, len}));
			bytes[at] = 'a';
		}
	}
}

static void
a_request_says_where_its_answer_came_from(void **state)
{
	struct worker_log_access access = plain_request();
	json_t *json;

	(void)state;
	access.cache = "coalesced";
	open_file(WORKER_LOG_JSON);
	worker_log_request(&access);
	json = read_json();
	assert_string_equal(json_text(json, "cache"), "coalesced");
	json_decref(json);
}

static void
a_request_looks_like_apaches_combined_format(void **state)
{
	struct worker_log_access access = plain_request();
	char *after;

	(void)state;
	open_file(WORKER_LOG_COMBINED);
	worker_log_request(&access);
	read_log();
	assert_memory_equal(text, "192.0.2.7 - - [", 15);
	after = strchr(text, ']');
	assert_int_equal(after - text, 15 + 26);
	assert_memory_equal(after - 6, " +0000", 6);
	assert_string_equal(after,
	    "] \"GET /books/9780201134476?x=1 HTTP/1.1\" 200 1789 "
	    "\"https://example.com/\\\"x\" \"curl/8.0\"\n");
}

static void
what_a_request_lacks_is_a_dash_in_combined_format(void **state)
{
	struct worker_log_access access = {.status = 400, .route = "none"};

	(void)state;
	open_file(WORKER_LOG_COMBINED);
	worker_log_request(&access);
	read_log();
	assert_memory_equal(text, "- - - [", 7);
	assert_string_equal(strchr(text, ']'), "] \"-\" 400 - \"-\" \"-\"\n");
}

static void
an_event_is_for_people_in_combined_format(void **state)
{
	(void)state;
	open_file(WORKER_LOG_COMBINED);
	worker_log(WORKER_LOG_ERROR, "x_failed", "it failed",
	    LOG_STR("path", "/a"), LOG_STR("why", "no \"b\"\n"),
	    LOG_STR("empty", ""), LOG_INT("code", 7), LOG_END);
	read_log();
	assert_string_equal(text + strlen("2026-01-31T23:59:59.000000Z"),
	    " error x_failed: it failed process=worker worker=3 path=/a "
	    "why=\"no \\\"b\\\"\\x0a\" empty=\"\" code=7\n");
}

static void
hostile_bytes_come_out_as_valid_json(void **state)
{
	static const struct {
		struct api_slice in;
		const char *out; /* as a JSON parser reads it */
	} cases[] = {
	    {BYTES(""), ""},
	    {BYTES("plain"), "plain"},
	    {BYTES("a\"b"), "a\"b"},
	    {BYTES("a\\b"), "a\\b"},
	    {BYTES("12345678\"}\n{\"level\":\"error\"}"),
		"12345678\"}\n{\"level\":\"error\"}"},
	    {BYTES("\x01\x1f\x7f\t\r"), "\x01\x1f\x7f\t\r"},
	    {BYTES("caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x93\x9a"),
		"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x93\x9a"},
	    {BYTES("\xff"), "\xef\xbf\xbd"},
	    {BYTES("a\x80z"), "a\xef\xbf\xbdz"},
	    {BYTES("\xc3"), "\xef\xbf\xbd"},
	    {BYTES("\xc0\xaf"), "\xef\xbf\xbd\xef\xbf\xbd"},
	    {BYTES("\xe0\x80\xaf"), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
	    {BYTES("\xed\xa0\x80"), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
	    {BYTES("\xf4\x90\x80\x80!"),
		"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd!"},
	    {BYTES("\xe2\x82"), "\xef\xbf\xbd\xef\xbf\xbd"},
	    {BYTES("\xc2\x9b\x32J"), "\xc2\x9b\x32J"},
	};
	json_t *json;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++) {
		open_file(WORKER_LOG_JSON);
		worker_log(WORKER_LOG_INFO, "e", "m",
		    LOG_SLICE("value", cases[i].in), LOG_END);
		json = read_json();
		assert_string_equal(json_text(json, "value"), cases[i].out);
		json_decref(json);
	}
}

static void
a_nul_and_terminal_controls_are_escaped(void **state)
{
	(void)state;
	open_file(WORKER_LOG_JSON);
	worker_log(WORKER_LOG_INFO, "e", "m",
	    LOG_SLICE("value", API_SLICE("a\0b\x1b[2J\xc2\x9b")), LOG_END);
	read_log();
	assert_non_null(
	    strstr(text, "\"value\":\"a\\u0000b\\u001b[2J\\u009b\"}"));
}

/* Lengths around the limit, with characters of every kind at every place where
 * the cut may fall. */
static void
a_line_too_long_is_shortened_and_stays_valid(void **state)
{
	static const char *const kinds[] = {"a", "\"", "\x01", "\xc3\xa9",
	    "\xf0\x9f\x93\x9a", "\xff", "ab\"\x01", "\x01\xe2\x82\xac\xff"};
	static const size_t lens[] = {
	    600, 620, 1000, 1500, 2100, 3700, 3750, 3800, 3850, 4096, 8999};
	struct worker_log_access access = plain_request();
	char target[9000];
	const char *read;
	json_t *json;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(kinds) * 12; i++) {
		const char *kind = kinds[i / 12];

		memset(target, 'a', sizeof(target));
		for (size_t at = i % 12; at < sizeof(target); at++)
			target[at] = kind[(at - i % 12) % strlen(kind)];
		for (size_t n = 0; n < SHM_ARRAY_LEN(lens); n++) {
			access.target = (struct api_slice){target, lens[n]};
			open_file(WORKER_LOG_JSON);
			worker_log_request(&access);
			json = read_json();
			read = json_text(json, "target");
			if (i < 12 && lens[n] <= 3700)
				assert_int_equal(strlen(read), lens[n]);
			if (lens[n] >= 4096)
				assert_string_equal(
				    read + strlen(read) - 3, "...");
			assert_string_equal(
			    json_text(json, "request_id"), "0123456789abcdef");
			json_decref(json);
		}
	}
}

static void
short_strings_stay_whole_beside_a_long_one(void **state)
{
	static char longest[20000];
	struct api_slice slice = {longest, sizeof(longest)};
	json_t *json;

	(void)state;
	memset(longest, 'x', sizeof(longest));
	open_file(WORKER_LOG_JSON);
	worker_log(WORKER_LOG_INFO, "e", "a sentence of some length",
	    LOG_SLICE("a", slice), LOG_STR("b", "short"), LOG_SLICE("c", slice),
	    LOG_INT("d", 1), LOG_END);
	json = read_json();
	assert_string_equal(json_text(json, "b"), "short");
	assert_string_equal(
	    json_text(json, "message"), "a sentence of some length");
	assert_true(strlen(json_text(json, "a")) >= 1000);
	assert_int_equal(
	    strlen(json_text(json, "a")), strlen(json_text(json, "c")));
	json_decref(json);
}

static void
a_level_below_the_wanted_one_is_silent(void **state)
{
	(void)state;
	open_file(WORKER_LOG_JSON);
	assert_false(worker_log_enabled(WORKER_LOG_DEBUG));
	assert_true(worker_log_enabled(WORKER_LOG_INFO));
	worker_log(WORKER_LOG_DEBUG, "e", "m", LOG_END);
	assert_int_equal(read_log(), 0);
}

static void
logging_preserves_errno(void **state)
{
	(void)state;
	open_log("off", "/dev/full", WORKER_LOG_JSON);
	errno = ENOTTY;
	worker_log(WORKER_LOG_INFO, "e", "m", LOG_END);
	assert_int_equal(errno, ENOTTY);
	worker_log_close();
}

/* ---- sinks */

static void
a_path_that_cannot_be_opened_is_named(void **state)
{
	struct worker_log_options options = {
	    .access = "off",
	    .error = "/nonexistent/log",
	};
	const char *which = NULL;

	(void)state;
	assert_int_equal(worker_log_open(&options, &which), -1);
	assert_int_equal(errno, ENOENT);
	assert_string_equal(which, "error_log");
	options.access = "/nonexistent/log";
	assert_int_equal(worker_log_open(&options, &which), -1);
	assert_string_equal(which, "access_log");
}

static void
access_lines_wait_for_company_and_not_for_long(void **state)
{
	struct worker_log_access access = plain_request();
	struct stat st;
	uint64_t due;

	(void)state;
	open_file(WORKER_LOG_JSON);
	assert_true(worker_log_flush(1000) == UINT64_MAX);
	worker_log_request(&access);
	due = worker_log_flush(1000);
	assert_int_equal(due, 20000);
	assert_int_equal(worker_log_flush(11000), 10000);
	assert_int_equal(stat(path_of("log"), &st), 0);
	assert_int_equal(st.st_size, 0);
	assert_true(worker_log_flush(1000 + due) == UINT64_MAX);
	assert_int_equal(stat(path_of("log"), &st), 0);
	assert_true(st.st_size > 0);
	/* A whole PIPE_BUF of them leaves at once. */
	for (int i = 0; i < 20; i++)
		worker_log_request(&access);
	assert_true(worker_log_flush(50000) == UINT64_MAX);
	worker_log_close();
}

static void
a_forked_process_forgets_its_parents_lines(void **state)
{
	struct worker_log_access access = plain_request();

	(void)state;
	open_file(WORKER_LOG_JSON);
	worker_log_request(&access);
	worker_log_forked("migrate", -1);
	worker_log(WORKER_LOG_INFO, "mine", "m", LOG_END);
	read_log();
	assert_null(strstr(text, "request"));
	assert_non_null(strstr(text, "\"process\":\"migrate\"}\n"));
}

static void
reopening_follows_a_rotated_file(void **state)
{
	char command[300];

	(void)state;
	open_file(WORKER_LOG_JSON);
	worker_log(WORKER_LOG_INFO, "before", "m", LOG_END);
	assert_int_equal(rename(path_of("log"), path_of("log.1")), 0);
	worker_log(WORKER_LOG_INFO, "between", "m", LOG_END);
	worker_log_reopen();
	worker_log(WORKER_LOG_INFO, "after", "m", LOG_END);
	read_log();
	assert_non_null(strstr(text, "\"after\""));
	assert_null(strstr(text, "\"between\""));
	snprintf(command, sizeof(command),
	    "grep -q before %s && grep -q between %s", path_of("log.1"),
	    path_of("log.1"));
	assert_int_equal(system(command), 0);
}

static void
a_reopen_that_fails_keeps_the_old_file_and_says_so(void **state)
{
	char sub[200], moved[200], path[256];
	struct worker_log_options options = {
	    .access = "off",
	    .error = path,
	    .level = WORKER_LOG_INFO,
	};
	const char *which;
	int fd;

	(void)state;
	snprintf(sub, sizeof(sub), "%s", path_of("sub"));
	snprintf(moved, sizeof(moved), "%s", path_of("moved"));
	snprintf(path, sizeof(path), "%s/log", sub);
	assert_int_equal(mkdir(sub, 0700), 0);
	assert_int_equal(worker_log_open(&options, &which), 0);
	assert_int_equal(rename(sub, moved), 0);
	worker_log_reopen();
	worker_log(WORKER_LOG_INFO, "after", "m", LOG_END);
	worker_log_close();
	snprintf(path, sizeof(path), "%s/log", moved);
	fd = open(path, O_RDONLY);
	read_fd(fd);
	close(fd);
	assert_non_null(strstr(text, "\"log_reopen_failed\""));
	assert_non_null(strstr(text, "\"after\""));
}

/* ---- stdout in a child */

/* Run body with fd as stdout; its exit status, or -1 when it was stuck. */
static pid_t
child_start(int fd, void (*body)(int), int argument)
{
	pid_t pid = fork();

	assert_int_not_equal(pid, -1);
	if (pid == 0) {
		signal(SIGALRM, SIG_DFL);
		alarm(STUCK_S);
		if (dup2(fd, STDOUT_FILENO) == -1)
			_exit(90);
		body(argument);
		_exit(0);
	}
	return pid;
}

static int
child_end(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Far more lines than pipe and buffer hold, with nobody reading. */
static void
log_much(int lines)
{
	struct worker_log_access access = plain_request();
	int flags = fcntl(STDOUT_FILENO, F_GETFL);

	open_log("stdout", "off", WORKER_LOG_JSON);
	if (fcntl(STDOUT_FILENO, F_GETFL) != flags || flags & O_NONBLOCK)
		_exit(91);
	for (int i = 0; i < lines; i++) {
		access.bytes = (uint64_t)i;
		worker_log_request(&access);
		(void)worker_log_flush(shm_clock_us());
	}
	if (worker_log_dropped() == 0)
		_exit(92);
	if (fcntl(STDOUT_FILENO, F_GETFL) != flags)
		_exit(93);
}

static void
a_full_pipe_never_blocks(void **state)
{
	int fd[2];

	(void)state;
	assert_int_equal(pipe(fd), 0);
	assert_int_equal(child_end(child_start(fd[1], log_much, 5000)), 0);
	close(fd[0]);
	close(fd[1]);
}

static void
a_full_socket_never_blocks(void **state)
{
	static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
	int fd[2];

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(types); i++) {
		assert_int_equal(socketpair(AF_UNIX, types[i], 0, fd), 0);
		assert_int_equal(
		    child_end(child_start(fd[1], log_much, 5000)), 0);
		close(fd[0]);
		close(fd[1]);
	}
}

static void
log_much_as_nobody(int lines)
{
	struct passwd *nobody = getpwnam("nobody");

	if (nobody == NULL || setgid(nobody->pw_gid) == -1 ||
	    setuid(nobody->pw_uid) == -1)
		_exit(94);
	if (open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK) != -1)
		_exit(95); /* then this test would show nothing */
	log_much(lines);
}

static void
a_full_pipe_of_another_user_never_blocks(void **state)
{
	int fd[2];

	(void)state;
	if (geteuid() != 0 || getpwnam("nobody") == NULL)
		skip();
	assert_int_equal(pipe(fd), 0);
	assert_int_equal(fchmod(fd[1], 0600), 0);
	assert_int_equal(
	    child_end(child_start(fd[1], log_much_as_nobody, 5000)), 0);
	close(fd[0]);
	close(fd[1]);
}

static void
log_and_tell(int lines)
{
	struct worker_log_access access = plain_request();
	char go;

	open_log("stdout", path_of("log"), WORKER_LOG_JSON);
	worker_log_forked("worker", 1);
	for (int i = 0; i < lines; i++)
		worker_log_request(&access);
	/* Now the parent reads; what waits leaves, and the loss is told. */
	if (write(STDERR_FILENO, "", 1) != 1 || read(STDIN_FILENO, &go, 1) != 1)
		_exit(96);
	while (worker_log_flush(shm_clock_us()) != UINT64_MAX)
		usleep(1000);
	worker_log_close();
}

/* Lines read and lines told as lost are all lines, and the oldest stayed. */
static void
lost_lines_are_counted_and_told(void **state)
{
	enum { LINES = 3000 };
	int out[2], ready[2], go[2], told = 0, read_lines = 0;
	char byte, *at;
	pid_t pid;

	(void)state;
	unlink(path_of("log"));
	assert_int_equal(pipe(out), 0);
	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(go), 0);
	pid = fork();
	assert_int_not_equal(pid, -1);
	if (pid == 0) {
		alarm(STUCK_S);
		close(out[0]);
		if (dup2(out[1], STDOUT_FILENO) == -1 ||
		    dup2(ready[1], STDERR_FILENO) == -1 ||
		    dup2(go[0], STDIN_FILENO) == -1)
			_exit(90);
		close(out[1]);
		log_and_tell(LINES);
		_exit(0);
	}
	close(out[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(write(go[1], "", 1), 1);
	read_fd(out[0]);
	for (at = text; (at = strchr(at, '\n')) != NULL; at++)
		read_lines++;
	assert_int_equal(child_end(pid), 0);
	assert_true(read_lines > 100);
	assert_true(read_lines < LINES);

	out[1] = open(path_of("log"), O_RDONLY);
	read_fd(out[1]);
	assert_non_null(strstr(text, "\"log_lines_dropped\""));
	at = strstr(text, "\"setting\":\"access_log\",\"lines\":");
	assert_non_null(at);
	told = atoi(strrchr(at, ':') + 1);
	assert_int_equal(read_lines + told, LINES);
	for (size_t i = 0; i < 2; i++) {
		close(out[i]);
		close(ready[i]);
		close(go[i]);
	}
}

static void
log_to_nobody(int lines)
{
	open_log("off", "stdout", WORKER_LOG_JSON);
	for (int i = 0; i < lines; i++)
		worker_log(WORKER_LOG_INFO, "e", "m", LOG_END);
	if (worker_log_dropped() != (uint64_t)lines)
		_exit(97);
	worker_log_close();
}

static void
a_reader_that_went_away_costs_lines_and_nothing_else(void **state)
{
	int fd[2];

	(void)state;
	assert_int_equal(pipe(fd), 0);
	close(fd[0]);
	assert_int_equal(child_end(child_start(fd[1], log_to_nobody, 10)), 0);
	close(fd[1]);
}

static void
log_without_stdout(int unused)
{
	struct worker_log_access access = plain_request();

	(void)unused;
	close(STDOUT_FILENO);
	open_log("stdout", "off", WORKER_LOG_JSON);
	if (worker_log_access_enabled())
		_exit(98);
	worker_log_request(&access);
	worker_log_close();
}

static void
a_closed_stdout_is_like_off(void **state)
{
	(void)state;
	assert_int_equal(
	    child_end(child_start(STDERR_FILENO, log_without_stdout, 0)), 0);
}

static void
log_one_line(int unused)
{
	(void)unused;
	open_log("off", "stdout", WORKER_LOG_JSON);
	worker_log(WORKER_LOG_INFO, "e", "m", LOG_END);
	worker_log_close();
}

static void
an_inherited_file_keeps_its_shared_offset(void **state)
{
	int fd = open(path_of("shared"), O_RDWR | O_CREAT | O_TRUNC, 0600);

	(void)state;
	assert_int_equal(write(fd, "before\n", 7), 7);
	assert_int_equal(child_end(child_start(fd, log_one_line, 0)), 0);
	assert_int_equal(write(fd, "after\n", 6), 6);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	read_fd(fd);
	assert_memory_equal(text, "before\n{\"time\"", 14);
	assert_non_null(strstr(text, "}\nafter\n"));
	close(fd);
}

/* ---- several processes, one pipe */

enum { WRITERS = 4, WRITER_LINES = 4000 };

static void
log_as_writer(int number)
{
	static char filler[3000];
	struct worker_log_access access = plain_request();

	memset(filler, '0' + number, sizeof(filler));
	open_log("stdout", "off", WORKER_LOG_JSON);
	worker_log_forked("worker", number);
	for (int i = 0; i < WRITER_LINES; i++) {
		access.bytes = (uint64_t)i;
		access.target = (struct api_slice){
		    filler, (size_t)(i * 37 + number * 11) % sizeof(filler)};
		worker_log_request(&access);
		(void)worker_log_flush(shm_clock_us());
		if (i % 4 == 0)
			usleep(300);
	}
	worker_log_close();
}

/* Read in odd pieces with pauses, so that the pipe is full most of the time. */
static size_t
read_slowly(int fd)
{
	size_t len = 0, piece = 1;
	ssize_t n;

	for (;;) {
		piece = piece * 7 % 9973 + 1;
		if (piece > READ_BYTES - len)
			piece = READ_BYTES - len;
		n = read(fd, text + len, piece);
		if (n <= 0)
			break;
		len += (size_t)n;
		if (piece % 16 == 0)
			usleep(1000);
	}
	text[len] = '\0';
	return len;
}

static void
lines_of_several_processes_are_never_torn(void **state)
{
	int fd[2], last_worker = -1, changes = 0, lines = 0;
	long long last[WRITERS] = {-1, -1, -1, -1};
	pid_t pid[WRITERS];
	char *at, *newline;

	(void)state;
	assert_int_equal(pipe(fd), 0);
	/* Two pages: nearly every write of one follows a write of another. */
	(void)fcntl(fd[1], F_SETPIPE_SZ, 2 * 4096);
	for (int i = 0; i < WRITERS; i++)
		pid[i] = child_start(fd[1], log_as_writer, i);
	close(fd[1]);
	read_slowly(fd[0]);
	close(fd[0]);
	for (int i = 0; i < WRITERS; i++)
		assert_int_equal(child_end(pid[i]), 0);
	for (at = text; (newline = strchr(at, '\n')) != NULL;
	     at = newline + 1) {
		json_t *json = json_loadb(at, (size_t)(newline - at), 0, NULL);
		long long worker, bytes;
		const char *target;

		if (json == NULL)
			fail_msg("torn: %.*s", (int)(newline - at), at);
		worker = json_integer_value(json_object_get(json, "worker"));
		bytes = json_integer_value(json_object_get(json, "bytes"));
		target = json_text(json, "target");
		assert_int_equal(
		    strspn(target, (char[]){(char)('0' + worker), '\0'}),
		    strlen(target));
		assert_true(bytes > last[worker]); /* in order, none twice */
		last[worker] = bytes;
		changes += worker != last_worker;
		last_worker = (int)worker;
		lines++;
		json_decref(json);
	}
	assert_int_equal(*at, '\0');
	if (changes < 100) {
		print_message(
		    "only %d changes of writer in %d lines\n", changes, lines);
		skip();
	}
	assert_true(lines >= WRITERS * 100);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(an_event_has_its_fields_in_order),
	    cmocka_unit_test(a_request_has_its_fields_in_order),
	    cmocka_unit_test(a_request_with_a_quote_has_the_same_fields),
	    cmocka_unit_test(one_byte_anywhere_makes_a_text_not_plain),
	    cmocka_unit_test(a_request_says_where_its_answer_came_from),
	    cmocka_unit_test(a_request_looks_like_apaches_combined_format),
	    cmocka_unit_test(what_a_request_lacks_is_a_dash_in_combined_format),
	    cmocka_unit_test(an_event_is_for_people_in_combined_format),
	    cmocka_unit_test(hostile_bytes_come_out_as_valid_json),
	    cmocka_unit_test(a_nul_and_terminal_controls_are_escaped),
	    cmocka_unit_test(a_line_too_long_is_shortened_and_stays_valid),
	    cmocka_unit_test(short_strings_stay_whole_beside_a_long_one),
	    cmocka_unit_test(a_level_below_the_wanted_one_is_silent),
	    cmocka_unit_test(logging_preserves_errno),
	    cmocka_unit_test(a_path_that_cannot_be_opened_is_named),
	    cmocka_unit_test(access_lines_wait_for_company_and_not_for_long),
	    cmocka_unit_test(a_forked_process_forgets_its_parents_lines),
	    cmocka_unit_test(reopening_follows_a_rotated_file),
	    cmocka_unit_test(
		a_reopen_that_fails_keeps_the_old_file_and_says_so),
	    cmocka_unit_test(a_full_pipe_never_blocks),
	    cmocka_unit_test(a_full_socket_never_blocks),
	    cmocka_unit_test(a_full_pipe_of_another_user_never_blocks),
	    cmocka_unit_test(lost_lines_are_counted_and_told),
	    cmocka_unit_test(
		a_reader_that_went_away_costs_lines_and_nothing_else),
	    cmocka_unit_test(a_closed_stdout_is_like_off),
	    cmocka_unit_test(an_inherited_file_keeps_its_shared_offset),
	    cmocka_unit_test(lines_of_several_processes_are_never_torn),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
