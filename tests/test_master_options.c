/*
 * Goal: every way to say a setting gives the same value, the stronger source
 * wins, and whatever is wrong is said with its place and with what would have
 * been right.
 * Method: settings are read from argument vectors, environments and files made
 * here; messages are caught in memory and looked at as a whole.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include <cmocka.h>

#include "master/master_rules.h"
#include "master/master_slot.h"

static struct master_options options;
static struct master_settings settings;
static struct master_command command;
static char *messages;
static size_t messages_bytes;
static FILE *errors;
static char folder[] = "/tmp/test_master_options_XXXXXX";

static int
group_setup(void **state)
{
	(void)state;
	return mkdtemp(folder) == NULL ? -1 : 0;
}

static int
group_teardown(void **state)
{
	(void)state;
	return rmdir(folder);
}

static int
begin(void **state)
{
	(void)state;
	errors = open_memstream(&messages, &messages_bytes);
	if (errors == NULL)
		return -1;
	master_settings_init(&settings, &options, errors);
	return 0;
}

static int
end(void **state)
{
	(void)state;
	master_settings_fini(&settings);
	fclose(errors);
	free(messages);
	messages = NULL;
	return 0;
}

/* Throw away what was read and said. */
static void
again(void)
{
	end(NULL);
	assert_int_equal(begin(NULL), 0);
}

static const char *
said(void)
{
	fflush(errors);
	return messages != NULL ? messages : "";
}

#define ARGS_MAX 20

/* Flags and environment, each a list that NULL ends. */
static int
read_with(const char *const *flags, const char *const *environment)
{
	static char text[2 * ARGS_MAX][256];
	char *argv[ARGS_MAX + 2] = {text[0]}, *env[ARGS_MAX] = {NULL};
	int argc = 1, entries = 0;

	strcpy(text[0], "booksd");
	for (; flags != NULL && flags[argc - 1] != NULL; argc++) {
		strcpy(text[argc], flags[argc - 1]);
		argv[argc] = text[argc];
	}
	for (; environment != NULL && environment[entries] != NULL; entries++) {
		strcpy(text[ARGS_MAX + entries], environment[entries]);
		env[entries] = text[ARGS_MAX + entries];
	}
	master_options_read(&settings, argc, argv, env, &command);
	return command.exit_code;
}

#define FLAGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void
set(const char *name, const char *text)
{
	static const struct master_origin origin = {
	    MASTER_SOURCE_FLAG, "-o", 0};

	master_settings_set(&settings, name, text, &origin);
}

static const char *
write_file(const char *text)
{
	static char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "%s/conf", folder);
	file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	return path;
}

static void
read_file(const char *text)
{
	const char *path = write_file(text);

	master_options_read_file(&settings, path);
	unlink(path);
}

/* ---- values */

static void
the_defaults_are_the_documented_ones(void **state)
{
	(void)state;
	assert_int_equal(options.listen.count, 1);
	assert_string_equal(options.listen.item[0], "*:8080");
	assert_int_equal(options.workers, 0);
	assert_int_equal(options.database_connections, 0);
	assert_int_equal(options.worker.io_backend, IO_AUTO);
	assert_string_equal(options.worker.database, "");
	assert_int_equal(options.worker.body_bytes_max, 1 << 20);
	assert_int_equal(options.worker.request_line_bytes_max, 8192);
	assert_int_equal(options.worker.header_bytes_max, 16384);
	assert_int_equal(options.worker.headers_count_max, 100);
	assert_int_equal(options.worker.keepalive_timeout_ms, 75000);
	assert_int_equal(options.worker.drain_delay_ms, 2000);
	assert_int_equal(options.worker.drain_timeout_ms, 25000);
	assert_int_equal(options.cache_bytes, 64 << 20);
	assert_int_equal(options.cache_heartbeat_ms, 5000);
	assert_int_equal(options.worker.cache_fresh_ms, 60000);
	assert_int_equal(options.worker.cache_stale_while_revalidate_ms, 10000);
	assert_int_equal(options.worker.cache_stale_if_error_ms, 3600000);
	assert_int_equal(options.worker.cache_negative_ms, 5000);
	assert_int_equal(options.worker.cache_lists, WORKER_LISTS_STRICT);
	assert_string_equal(options.worker.cache_control, "no-cache");
	assert_true(options.worker.cache_header);
	assert_string_equal(options.control_socket, "auto");
	assert_string_equal(options.admin_listen, "127.0.0.1:9180");
	assert_true(options.migrate_on_start);
	assert_false(options.fail_fast);
	assert_string_equal(options.log.access, "stdout");
	assert_string_equal(options.log.error, "stderr");
	assert_int_equal(options.log.level, WORKER_LOG_INFO);
}

static void
the_table_is_sorted_and_its_names_are_keys(void **state)
{
	(void)state;
	for (size_t i = 0; i < MASTER_SETTINGS_COUNT; i++) {
		const char *name = master_settings_table[i].name;

		assert_int_equal(
		    strspn(name, "abcdefghijklmnopqrstuvwxyz_"), strlen(name));
		if (i > 0)
			assert_true(strcmp(master_settings_table[i - 1].name,
					name) < 0);
	}
}

static void
numbers_are_read_with_their_units(void **state)
{
	static const struct {
		const char *name;
		const char *text;
		size_t offset;
		size_t bytes;
		uint64_t number;
	} cases[] = {
#define CASE(name, text, field, number)                      \
	{name, text, offsetof(struct master_options, field), \
	    sizeof(options.field), number}
	    CASE("drain_delay", "500ms", worker.drain_delay_ms, 500),
	    CASE("drain_delay", "0", worker.drain_delay_ms, 0),
	    CASE("drain_delay", "2s", worker.drain_delay_ms, 2000),
	    CASE("drain_delay", "1m", worker.drain_delay_ms, 60000),
	    CASE("drain_delay", "1h", worker.drain_delay_ms, 3600000),
	    CASE("header_max", "8KiB", worker.header_bytes_max, 8192),
	    CASE("header_max", "300", worker.header_bytes_max, 300),
	    CASE("header_max", "300B", worker.header_bytes_max, 300),
	    CASE("header_max", "4K", worker.header_bytes_max, 4096),
	    CASE("body_max", "1MiB", worker.body_bytes_max, 1 << 20),
	    CASE("body_max", "64M", worker.body_bytes_max, 64 << 20),
	    CASE("workers", "1", workers, 1),
	    CASE("workers", "31", workers, 31),
	    CASE("workers", "2..4", workers, 2 | 4 << 16),
	    CASE("workers", "auto", workers, 0),
	    CASE("io_backend", "epoll", worker.io_backend, IO_EPOLL),
	    CASE("io_backend", "io_uring", worker.io_backend, IO_URING),
	    CASE("log_format", "combined", log.format, WORKER_LOG_COMBINED),
	    CASE("log_level", "error", log.level, WORKER_LOG_ERROR),
	    CASE("log_level", "debug", log.level, WORKER_LOG_DEBUG),
	    CASE("fail_fast", "on", fail_fast, 1),
	    CASE("fail_fast", "true", fail_fast, 1),
	    CASE("fail_fast", "yes", fail_fast, 1),
	    CASE("cache_size", "0", cache_bytes, 0),
	    CASE("cache_size", "1GiB", cache_bytes, 1u << 30),
	    CASE("cache_size", "32GiB", cache_bytes, UINT64_C(32) << 30),
	    CASE("cache_fresh", "1ms", worker.cache_fresh_ms, 1),
	    CASE("cache_negative", "0", worker.cache_negative_ms, 0),
	    CASE("cache_stale_while_revalidate", "0",
		worker.cache_stale_while_revalidate_ms, 0),
	    CASE("cache_stale_if_error", "24h", worker.cache_stale_if_error_ms,
		86400000),
	    CASE("cache_heartbeat", "100ms", cache_heartbeat_ms, 100),
	    CASE("cache_lists", "strict", worker.cache_lists,
		WORKER_LISTS_STRICT),
	    CASE("cache_lists", "relaxed", worker.cache_lists,
		WORKER_LISTS_RELAXED),
	    CASE("cache_lists", "off", worker.cache_lists, WORKER_LISTS_OFF),
	    CASE("cache_header", "off", worker.cache_header, 0),
	    CASE("migrate_on_start", "off", migrate_on_start, 0),
	    CASE("migrate_on_start", "false", migrate_on_start, 0),
	    CASE("migrate_on_start", "no", migrate_on_start, 0),
#undef CASE
	};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++) {
		uint64_t number = 0;

		set(cases[i].name, cases[i].text);
		assert_string_equal(said(), "");
		memcpy(&number, (char *)&options + cases[i].offset,
		    cases[i].bytes); /* little-endian or of 8 bytes */
		if (number != cases[i].number)
			fail_msg("%s=%s", cases[i].name, cases[i].text);
	}
}

static void
a_bad_value_is_refused_with_what_is_needed(void **state)
{
	static const struct {
		const char *name;
		const char *text;
		const char *need;
	} cases[] = {
	    {"workers", "999",
		"need auto or 1 to 31 processes, or MIN..MAX (from -o)"},
	    {"workers", "4..2",
		"need auto or 1 to 31 processes, or MIN..MAX (from -o)"},
	    {"workers", "0..2",
		"need auto or 1 to 31 processes, or MIN..MAX (from -o)"},
	    {"workers", "2..32",
		"need auto or 1 to 31 processes, or MIN..MAX (from -o)"},
	    {"workers", "2..",
		"need auto or 1 to 31 processes, or MIN..MAX (from -o)"},
	    {"workers", "0",
		"need auto or 1 to 31 processes, or MIN..MAX (from -o)"},
	    {"workers", "",
		"need auto or 1 to 31 processes, or MIN..MAX (from -o)"},
	    {"workers", "-1",
		"need auto or 1 to 31 processes, or MIN..MAX (from -o)"},
	    {"workers", "2.5",
		"need auto or 1 to 31 processes, or MIN..MAX (from -o)"},
	    {"workers", "1 ",
		"need auto or 1 to 31 processes, or MIN..MAX (from -o)"},
	    {"workers", "4294967297",
		"need auto or 1 to 31 processes, or MIN..MAX (from -o)"},
	    {"workers", "18446744073709551617",
		"need auto or 1 to 31 processes, or MIN..MAX (from -o)"},
	    {"drain_delay", "30", "need 0 to 1h (ms, s, m, h) (from -o)"},
	    {"drain_delay", "1.5s", "need 0 to 1h (ms, s, m, h) (from -o)"},
	    {"drain_delay", "2h", "need 0 to 1h (ms, s, m, h) (from -o)"},
	    {"drain_delay", "18446744073709551615h",
		"need 0 to 1h (ms, s, m, h) (from -o)"},
	    {"header_max", "8KB",
		"need 256 to 1MiB (bytes, KiB, MiB, GiB) (from -o)"},
	    {"header_max", "255",
		"need 256 to 1MiB (bytes, KiB, MiB, GiB) (from -o)"},
	    {"cache_size", "65GiB",
		"need 0 to 32GiB (bytes, KiB, MiB, GiB) (from -o)"},
	    {"cache_fresh", "0", "need 1ms to 24h (ms, s, m, h) (from -o)"},
	    {"cache_stale_if_error", "25h",
		"need 0 to 24h (ms, s, m, h) (from -o)"},
	    {"cache_lists", "on", "need strict, relaxed or off (from -o)"},
	    {"cache_control", "no-cache\r\nX: y",
		"need 0 to 255 bytes of UTF-8 without control characters "
		"(from -o)"},
	    {"control_socket", "",
		"need 1 to 107 bytes of UTF-8 without control characters "
		"(from -o)"},
	    {"header_fields_max", "101", "need 1 to 100 fields (from -o)"},
	    {"io_backend", "poll", "need auto, io_uring or epoll (from -o)"},
	    {"log_format", "", "need json or combined (from -o)"},
	    {"fail_fast", "maybe", "need on or off (from -o)"},
	    {"access_log", "log.txt",
		"need stdout, stderr, off or an absolute path (from -o)"},
	    {"greeting", "\xff",
		"need 0 to 4096 bytes of UTF-8 without control characters "
		"(from -o)"},
	    {"greeting", "a\nb",
		"need 0 to 4096 bytes of UTF-8 without control characters "
		"(from -o)"},
	    {"listen", "",
		"need 1 to 4095 bytes of UTF-8 without control characters "
		"(from -o)"},
	    {"listen",
		"a:1,a:2,a:3,a:4,a:5,a:6,a:7,a:8,a:9,a:10,a:11,a:12,a:13,"
		"a:14,a:15,a:16,a:17",
		"need at most 16 addresses (from -o)"},
	};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++) {
		again();
		set(cases[i].name, cases[i].text);
		if (strstr(said(), cases[i].need) == NULL ||
		    strncmp(said() + strlen("booksd: "), cases[i].name,
			strlen(cases[i].name)) != 0)
			fail_msg(
			    "%s=%s: %s", cases[i].name, cases[i].text, said());
		assert_int_equal(settings.errors_count, 1);
		/* The old value stays. */
		assert_int_equal(options.workers, 0);
		assert_string_equal(options.listen.item[0], "*:8080");
	}
}

static void
a_refused_secret_is_not_repeated(void **state)
{
	(void)state;
	set("database", "password=hunter2\n");
	assert_non_null(strstr(said(), "database=********: need"));
	assert_null(strstr(said(), "hunter2"));
}

static void
an_unknown_name_brings_the_nearest_one(void **state)
{
	static const struct {
		const char *name;
		const char *nearest; /* NULL: none */
	} cases[] = {
	    {"worker", "workers"},
	    {"wrokers", "workers"},
	    {"Workers", "workers"},
	    {"drain-delay", "drain_delay"},
	    {"keepalive_timout", "keepalive_timeout"},
	    {"listne", "listen"},
	    {"pidfile", "pid_file"},
	    {"database_conections", "database_connections"},
	    {"zzz", NULL},
	    {"", NULL},
	    {"a_name_that_is_much_longer_than_any_setting_could_ever_be", NULL},
	};
	char wanted[100];

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++) {
		again();
		set(cases[i].name, "1");
		snprintf(wanted, sizeof(wanted),
		    "booksd: there is no setting '%s', did you mean '%s'? "
		    "(from -o)\n",
		    cases[i].name, cases[i].nearest);
		if (cases[i].nearest == NULL)
			assert_null(strstr(said(), "did you mean"));
		else
			assert_string_equal(said(), wanted);
		assert_int_equal(settings.errors_count, 1);
	}
}

/* ---- sources */

static void
flag_beats_environment_beats_file_beats_default(void **state)
{
	const char *path = write_file("workers = 1\ngreeting = file\n"
				      "user = file\n");

	(void)state;
	assert_int_equal(
	    read_with(FLAGS("-f", "-c", path, "-o", "workers=3"),
		FLAGS("BOOKS_WORKERS=2", "BOOKS_GREETING=env", "OTHER=1")),
	    EX_OK);
	unlink(path);
	assert_string_equal(said(), "");
	assert_int_equal(options.workers, 3);
	assert_string_equal(options.worker.greeting, "env");
	assert_string_equal(options.user, "file");
	assert_string_equal(options.pid_file, "");
	assert_true(command.foreground);
}

static void
the_last_flag_of_a_name_wins_and_lists_grow(void **state)
{
	(void)state;
	read_with(FLAGS("-o", "workers=3", "-o", "workers=4", "-o",
		      "listen=a:1", "-o", "listen= b:2 , c:3", "--fail-fast"),
	    FLAGS("BOOKS_LISTEN=x:1"));
	assert_string_equal(said(), "");
	assert_int_equal(options.workers, 4);
	assert_int_equal(options.listen.count, 3);
	assert_string_equal(options.listen.item[0], "a:1");
	assert_string_equal(options.listen.item[1], "b:2");
	assert_string_equal(options.listen.item[2], "c:3");
	assert_true(options.fail_fast);
}

static void
a_file_may_have_comments_quotes_and_white_space(void **state)
{
	(void)state;
	read_file("# a comment\n"
		  "\n"
		  "  workers=2   # two\n"
		  "\tgreeting = \"a \\\"b\\\" \\\\ # c\"  # quoted\r\n"
		  "user = a#b\n"
		  "pid_file =\n"
		  "listen = a:1\n"
		  "listen = b:2, c:3\n"
		  "database = host=a password='x y'");
	assert_string_equal(said(), "");
	assert_int_equal(options.workers, 2);
	assert_string_equal(options.worker.greeting, "a \"b\" \\ # c");
	assert_string_equal(options.user, "a#b");
	assert_string_equal(options.pid_file, "");
	assert_int_equal(options.listen.count, 3);
	assert_string_equal(options.worker.database, "host=a password='x y'");
}

static void
errors_of_a_file_name_its_lines_and_all_are_said(void **state)
{
	static const char *const wanted[] = {
	    "conf:1)",
	    "conf:2: need key = value",
	    "conf:4: workers was set in line 3 already",
	    "conf:5: greeting: the quotes do not end",
	    "conf:6: greeting: the quotes do not end",
	    "drain_delay=x: need 0 to 1h (ms, s, m, h) (from /tmp/",
	    "conf:7)",
	};

	(void)state;
	read_file("wrokers = 1\nnonsense\nworkers = 1\nworkers = 2\n"
		  "greeting = \"a\ngreeting = \"a\" b\ndrain_delay = x\n");
	for (size_t i = 0; i < SHM_ARRAY_LEN(wanted); i++)
		if (strstr(said(), wanted[i]) == NULL)
			fail_msg("%s not in %s", wanted[i], said());
	assert_int_equal(settings.errors_count, 6);
}

static void
a_file_that_cannot_be_read_is_a_configuration_error(void **state)
{
	(void)state;
	assert_int_equal(
	    read_with(FLAGS("-c", "/nonexistent/conf"), NULL), EX_CONFIG);
	assert_non_null(strstr(said(), "cannot read /nonexistent/conf: No "));
}

static void
an_unknown_variable_is_an_error_that_names_it(void **state)
{
	static const struct {
		const char *entry;
		const char *wanted;
	} cases[] = {
	    {"BOOKS_WORKER=1", "did you mean 'workers'? (from environment "
			       "BOOKS_WORKER)"},
	    {"BOOKS_workers=1", "(from environment BOOKS_workers)"},
	    {"BOOKS_=1", "(from environment BOOKS_)"},
	    {"BOOKS_WORKERS_FILE=/x", "BOOKS_WORKERS_FILE: only a secret"},
	    {"BOOKS_DATABASE_FILE=/nonexistent/x",
		"BOOKS_DATABASE_FILE=/nonexistent/x: cannot read the file"},
	};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++) {
		again();
		assert_int_equal(
		    read_with(NULL, FLAGS(cases[i].entry)), EX_CONFIG);
		if (strstr(said(), cases[i].wanted) == NULL)
			fail_msg("%s: %s", cases[i].entry, said());
		assert_int_equal(settings.errors_count, 1);
	}
}

static void
a_secret_can_come_from_a_file_without_its_newline(void **state)
{
	static const struct {
		const char *text;
		const char *value;
	} cases[] = {
	    {"host=a password=b\n", "host=a password=b"},
	    {"host=a password=b", "host=a password=b"},
	    {"", ""},
	};
	char entry[200];

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++) {
		again();
		snprintf(entry, sizeof(entry), "BOOKS_DATABASE_FILE=%s",
		    write_file(cases[i].text));
		read_with(NULL, FLAGS(entry));
		unlink(strchr(entry, '=') + 1);
		assert_string_equal(said(), "");
		assert_string_equal(options.worker.database, cases[i].value);
	}
}

static void
a_secret_in_two_places_is_an_error(void **state)
{
	(void)state;
	assert_int_equal(
	    read_with(NULL, FLAGS("BOOKS_DATABASE=a",
				"BOOKS_DATABASE_FILE=/nonexistent/x")),
	    EX_CONFIG);
	assert_non_null(strstr(said(), "are both set"));
}

static void
a_wrong_command_line_is_a_usage_error(void **state)
{
	static const char *const cases[][3] = {
	    {"-o", "workers", NULL},
	    {"-o", "=1", NULL},
	    {"surplus", NULL, NULL},
	};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++) {
		again();
		assert_int_equal(read_with(cases[i], NULL), EX_USAGE);
		assert_int_equal(settings.errors_count, 1);
	}
}

/* ---- the dump */

static void
dump(char **text)
{
	size_t bytes;
	FILE *out = open_memstream(text, &bytes);

	assert_non_null(out);
	master_settings_dump(&settings, out);
	fclose(out);
}

/* Lines without the remark on their origin. */
static void
cut_origins(char *text)
{
	char *out = text;

	for (char *line = text, *end; *line != '\0'; line = end + 1) {
		char *remark = NULL;

		end = strchr(line, '\n');
		for (char *at = line; at < end; at++)
			if (strncmp(at, "  # ", 4) == 0)
				remark = at;
		assert_non_null(remark);
		memmove(out, line, (size_t)(remark - line));
		out += remark - line;
		*out++ = '\n';
	}
	*out = '\0';
}

static void
a_dump_read_back_gives_the_same_dump(void **state)
{
	char *first, *second;

	(void)state;
	read_with(FLAGS("-o", "greeting= \"Hi\" \\ # there ", "-o",
		      "listen=a:1", "-o", "listen=unix:/b c", "-o",
		      "drain_delay=1500ms", "-o", "workers=3"),
	    FLAGS("BOOKS_DATABASE=host=a password='s e'"));
	dump(&first);
	assert_non_null(strstr(first, "workers = 3  # -o\n"));
	assert_non_null(strstr(first, "user = \"\"  # default\n"));
	assert_non_null(strstr(first, "  # environment BOOKS_DATABASE\n"));
	assert_null(strstr(first, "s e"));
	again();
	read_file(first);
	assert_string_equal(said(), "");
	assert_string_equal(options.worker.greeting, " \"Hi\" \\ # there ");
	assert_int_equal(options.listen.count, 2);
	assert_int_equal(options.worker.drain_delay_ms, 1500);
	dump(&second);
	cut_origins(first);
	cut_origins(second);
	assert_string_equal(first, second);
	free(first);
	free(second);
}

/* ---- rules */

static void
rules_between_settings_are_checked(void **state)
{
	static const struct {
		const char *flags[3];
		int code;
		const char *wanted;
	} cases[] = {
	    {{"workers=2", "database_connections=3"}, EX_CONFIG,
		"database_connections=3: 2 workers need at least 4"},
	    {{"workers=2", "database_connections=4"}, EX_OK, ""},
	    {{"drain_delay=25s"}, EX_CONFIG,
		"drain_delay=25s: need less than drain_timeout, which is 25s"},
	    {{"drain_delay=24999ms"}, EX_OK, ""},
	    {{"listen=8080"}, EX_CONFIG, "listen=8080: 8080: need HOST:PORT"},
	    {{"listen=::1:8080"}, EX_CONFIG, "needs brackets"},
	    {{"listen=127.0.0.1:65536"}, EX_CONFIG, "a port from 0 to 65535"},
	    {{"listen=unix:run"}, EX_CONFIG, "an absolute path after unix:"},
	    {{"listen=[::1]:1,127.0.0.1:2,*:3,unix:/a"}, EX_OK, ""},
	    {{"listen=,"}, EX_CONFIG, "need at least one address"},
	    {{"io_uring_without=wings"}, EX_CONFIG,
		"no feature is called 'wings'"},
	    {{"database=host"}, EX_CONFIG, "database=********: missing"},
	    {{"pid_file=run/pid"}, EX_CONFIG, "pid_file=run/pid: need an abs"},
	    {{"cache_size=0"}, EX_OK, ""},
	    {{"cache_size=1MiB", "workers=1"}, EX_OK, ""},
	    {{"cache_size=1048575", "workers=1"}, EX_CONFIG,
		"cache_size=1048575: need at least 1 MiB for 1 worker, or 0"},
	    {{"cache_size=29MiB", "workers=31"}, EX_CONFIG,
		"cache_size=29MiB: need at least 29 MiB for 31 workers"},
	    {{"cache_size=30MiB", "workers=31"}, EX_OK, ""},
	    {{"cache_control="}, EX_OK, ""},
	    {{"cache_control=max-age=5, public"}, EX_OK, ""},
	    {{"cache_control=no-cache "}, EX_CONFIG, "need no space"},
	    {{"cache_control= no-cache"}, EX_CONFIG, "need no space"},
	    {{"cache_control=n\xc3\xb6"}, EX_CONFIG, "printable ASCII"},
	    {{"admin_listen=off"}, EX_OK, ""},
	    {{"admin_listen=[::1]:0"}, EX_OK, ""},
	    {{"admin_listen=unix:/run/x"}, EX_OK, ""},
	    {{"admin_listen=9180"}, EX_CONFIG, "need HOST:PORT"},
	    {{"admin_token=0123456789abcdef"}, EX_OK, ""},
	    {{"admin_token=0123456789abcde"}, EX_CONFIG,
		"admin_token=********: need at least 16 characters"},
	    {{"control_socket=off"}, EX_OK, ""},
	    {{"control_socket=/run/x"}, EX_OK, ""},
	    {{"control_socket=on"}, EX_CONFIG,
		"control_socket=on: need auto, off or an absolute path"},
	    {{"user=no-such-user-here"}, EX_NOUSER, "there is no such user"},
	};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++) {
		again();
		for (size_t j = 0; cases[i].flags[j] != NULL; j++)
			read_with(FLAGS("-o", cases[i].flags[j]), NULL);
		assert_int_equal(settings.errors_count, 0);
		assert_int_equal(master_rules_check(&settings), cases[i].code);
		if (strstr(said(), cases[i].wanted) == NULL)
			fail_msg("%s: %s", cases[i].flags[0], said());
	}
}

static void
auto_gives_each_worker_four_connections(void **state)
{
	(void)state;
	set("workers", "3");
	assert_int_equal(master_rules_check(&settings), EX_OK);
	assert_int_equal(options.database_connections, 12);
	again();
	assert_int_equal(master_rules_check(&settings), EX_OK);
	assert_in_range(options.workers, 1, SHM_BOARD_WORKERS_MAX);
}

static void
the_budget_of_connections_is_spent_wholly(void **state)
{
	(void)state;
	for (uint32_t workers = 1; workers <= 64; workers++)
		for (uint32_t total = 2 * workers; total <= 200; total++) {
			uint32_t sum = 0;

			options.database_connections = total;
			for (uint32_t i = 0; i < workers; i++) {
				uint32_t share =
				    master_rules_share(&options, workers, i);

				assert_true(share >= 2);
				sum += share;
			}
			assert_int_equal(sum, total);
		}
}

static void
features_become_bits(void **state)
{
	(void)state;
	set("io_uring_without", "single_issuer, multishot_recv");
	assert_int_equal(master_rules_check(&settings), EX_OK);
	assert_int_equal(options.worker.io_without,
	    IO_FEATURE_SINGLE_ISSUER | IO_FEATURE_MULTISHOT_RECV);
}

/* ---- what happens to a dead child */

static void
pauses_double_from_none_to_half_a_minute(void **state)
{
	static const uint32_t wanted[] = {0, 0, 100, 200, 400, 800, 1600, 3200,
	    6400, 12800, 25600, 30000, 30000};
	struct master_slot slot = {.started_us = 1000000};

	(void)state;
	for (uint32_t i = 0; i < SHM_ARRAY_LEN(wanted); i++)
		assert_int_equal(master_slot_pause_ms(i), wanted[i]);
	assert_int_equal(master_slot_pause_ms(UINT32_MAX), 30000);
	for (uint32_t i = 1; i < 5; i++)
		assert_int_equal(master_slot_plan(&slot, 2000000), wanted[i]);
	assert_int_equal(slot.start_us, 2000000 + 400000);
	/* A minute of life wipes the slate clean. */
	assert_int_equal(master_slot_plan(&slot, 60999999), 800);
	assert_int_equal(master_slot_plan(&slot, 61000000), 0);
	assert_int_equal(slot.start_us, 61000000);
}

static void
a_death_is_described_by_code_or_signal(void **state)
{
	char text[64];

	(void)state;
	master_slot_describe_death(W_EXITCODE(3, 0), text, sizeof(text));
	assert_string_equal(text, "exit code 3");
	master_slot_describe_death(W_EXITCODE(0, 9), text, sizeof(text));
	assert_string_equal(text, "signal 9 (SIGKILL)");
	master_slot_describe_death(
	    W_EXITCODE(0, 11) | WCOREFLAG, text, sizeof(text));
	assert_string_equal(text, "signal 11 (SIGSEGV), core dumped");
	assert_true(master_slot_is_hopeless(W_EXITCODE(EX_CONFIG, 0)));
	assert_true(master_slot_is_hopeless(W_EXITCODE(EX_NOPERM, 0)));
	assert_false(master_slot_is_hopeless(W_EXITCODE(EX_OSERR, 0)));
	assert_false(master_slot_is_hopeless(W_EXITCODE(1, 0)));
	assert_false(master_slot_is_hopeless(W_EXITCODE(0, 9)));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(the_defaults_are_the_documented_ones),
	    TEST(the_table_is_sorted_and_its_names_are_keys),
	    TEST(numbers_are_read_with_their_units),
	    TEST(a_bad_value_is_refused_with_what_is_needed),
	    TEST(a_refused_secret_is_not_repeated),
	    TEST(an_unknown_name_brings_the_nearest_one),
	    TEST(flag_beats_environment_beats_file_beats_default),
	    TEST(the_last_flag_of_a_name_wins_and_lists_grow),
	    TEST(a_file_may_have_comments_quotes_and_white_space),
	    TEST(errors_of_a_file_name_its_lines_and_all_are_said),
	    TEST(a_file_that_cannot_be_read_is_a_configuration_error),
	    TEST(an_unknown_variable_is_an_error_that_names_it),
	    TEST(a_secret_can_come_from_a_file_without_its_newline),
	    TEST(a_secret_in_two_places_is_an_error),
	    TEST(a_wrong_command_line_is_a_usage_error),
	    TEST(a_dump_read_back_gives_the_same_dump),
	    TEST(rules_between_settings_are_checked),
	    TEST(auto_gives_each_worker_four_connections),
	    TEST(the_budget_of_connections_is_spent_wholly),
	    TEST(features_become_bits),
	    TEST(pauses_double_from_none_to_half_a_minute),
	    TEST(a_death_is_described_by_code_or_signal),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
