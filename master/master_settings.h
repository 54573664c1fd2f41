/*
 * The settings table: what can be set, its default and its limits.  Parser,
 * -T, -h, messages and tests read this table; booksd.conf(5) is compared with
 * it by a test.
 */
#ifndef MASTER_SETTINGS_H
#define MASTER_SETTINGS_H

#include "master/master_options.h"
#include "worker/worker_http.h"

/*
 * MASTER_SETTING(name, type, field of struct master_options, default, min,
 *	max, unit, help), sorted by name.
 * min and max: of the number, in milliseconds and bytes; of a text's length.
 * unit: what is counted; of an ENUM its names in the order of their values.
 */
#define MASTER_SETTINGS                                                        \
	MASTER_SETTING(access_log, LOG, log.access, "stdout", 1, 4095, "",     \
	    "where the line about each request goes")                          \
	MASTER_SETTING(admin_listen, TEXT, admin_listen, "127.0.0.1:9180", 1,  \
	    255, "", "HOST:PORT or unix:/PATH of metrics and status, or off")  \
	MASTER_SETTING(admin_token, SECRET, admin_token, "", 0, 255, "",       \
	    "what remote administrators have to know")                         \
	MASTER_SETTING(batch_window, COUNT, worker.batch_window_us, "0", 0,    \
	    1000, "microseconds", "longest pause to gather requests; 0: none") \
	MASTER_SETTING(body_max, SIZE, worker.body_bytes_max, "1MiB", 1,       \
	    64 << 20, "", "longest request body (then 413)")                   \
	MASTER_SETTING(body_timeout, DURATION, worker.body_timeout_ms, "30s",  \
	    100, 3600000, "", "time to send a whole request body (then 408)")  \
	MASTER_SETTING(cache_control, TEXT, worker.cache_control, "no-cache",  \
	    0, 255, "", "Cache-Control of books and lists; empty: none")       \
	MASTER_SETTING(cache_fresh, DURATION, worker.cache_fresh_ms, "60s", 1, \
	    86400000, "", "time for which a cached answer is fresh")           \
	MASTER_SETTING(cache_header, BOOL, worker.cache_header, "on", 0, 1,    \
	    "", "tell in X-Cache what the cache did")                          \
	MASTER_SETTING(cache_heartbeat, DURATION, cache_heartbeat_ms, "5s",    \
	    100, 3600000, "", "pause between checks of the notifications")     \
	MASTER_SETTING(cache_lists, ENUM, worker.cache_lists, "strict", 0, 2,  \
	    "strict|relaxed|off", "what a write does to cached lists")         \
	MASTER_SETTING(cache_negative, DURATION, worker.cache_negative_ms,     \
	    "5s", 0, 3600000, "", "time for which a missing book is cached")   \
	MASTER_SETTING(cache_size, SIZE, cache_bytes, "64MiB", 0,              \
	    UINT64_C(32) << 30, "", "memory of the book cache; 0: none")       \
	MASTER_SETTING(cache_stale_if_error, DURATION,                         \
	    worker.cache_stale_if_error_ms, "1h", 0, 86400000, "",             \
	    "time after that, while the database is away")                     \
	MASTER_SETTING(cache_stale_while_revalidate, DURATION,                 \
	    worker.cache_stale_while_revalidate_ms, "10s", 0, 86400000, "",    \
	    "time after fresh to serve while reloading")                       \
	MASTER_SETTING(connections_max, COUNT, worker.connections_max, "4096", \
	    1, 65536, "connections",                                           \
	    "clients per worker (more wait in the queue)")                     \
	MASTER_SETTING(control_socket, TEXT, control_socket, "auto", 1, 107,   \
	    "", "path of the control socket, auto or off")                     \
	MASTER_SETTING(core_dumps, BOOL, core_dumps, "off", 0, 1, "",          \
	    "let processes that hold a fetched secret dump core")              \
	MASTER_SETTING(database, SECRET, worker.database, "", 0, 16384, "",    \
	    "libpq connection string or URI")                                  \
	MASTER_SETTING(database_acquire_timeout, DURATION,                     \
	    worker.database_acquire_timeout_ms, "2s", 1, 3600000, "",          \
	    "wait for a database connection (then 503)")                       \
	MASTER_SETTING(database_connect_timeout, DURATION,                     \
	    worker.database_connect_timeout_ms, "3s", 10, 3600000, "",         \
	    "time for one attempt to connect")                                 \
	MASTER_SETTING(database_connections, COUNT_AUTO, database_connections, \
	    "auto", 2, 1024, "connections",                                    \
	    "of all workers together (auto: 4 for each)")                      \
	MASTER_SETTING(database_queue_target, DURATION,                        \
	    worker.database_queue_target_ms, "100ms", 0, 3600000, "",          \
	    "wait that may stand before some get 503; 0: any")                 \
	MASTER_SETTING(database_secret, TEXT, database_secret, "", 0, 2048,    \
	    "", "name or ARN of user and password in Secrets Manager")         \
	MASTER_SETTING(database_secret_refresh, DURATION,                      \
	    database_secret_refresh_ms, "1h", 0, 86400000, "",                 \
	    "pause between fetches; 0: only when it is refused")               \
	MASTER_SETTING(database_statement_timeout, DURATION,                   \
	    worker.database_statement_timeout_ms, "5s", 1, 3600000, "",        \
	    "time for one statement (then 503)")                               \
	MASTER_SETTING(drain_delay, DURATION, worker.drain_delay_ms, "2s", 0,  \
	    3600000, "", "go on accepting after SIGTERM")                      \
	MASTER_SETTING(drain_timeout, DURATION, worker.drain_timeout_ms,       \
	    "25s", 1, 7200000, "", "longest time from SIGTERM to the end")     \
	MASTER_SETTING(error_log, LOG, log.error, "stderr", 1, 4095, "",       \
	    "where events go")                                                 \
	MASTER_SETTING(fail_fast, BOOL, fail_fast, "off", 0, 1, "",            \
	    "end when the database is away at the start")                      \
	MASTER_SETTING(greeting, TEXT, worker.greeting,                        \
	    "Welcome to the AWSome Books catalogue!", 0, 4096, "",             \
	    "the answer to GET /")                                             \
	MASTER_SETTING(header_fields_max, COUNT, worker.headers_count_max,     \
	    "100", 1, WORKER_HTTP_FIELDS_MAX, "fields",                        \
	    "most header fields (then 431)")                                   \
	MASTER_SETTING(header_max, SIZE, worker.header_bytes_max, "16KiB",     \
	    256, 1 << 20, "", "longest header block (then 431)")               \
	MASTER_SETTING(header_timeout, DURATION, worker.header_timeout_ms,     \
	    "10s", 100, 3600000, "", "time to send a request's head")          \
	MASTER_SETTING(io_backend, ENUM, worker.io_backend, "auto", 0, 2,      \
	    "auto|io_uring|epoll", "how workers do input and output")          \
	MASTER_SETTING(io_uring_without, LIST, io_uring_without, "", 0, 4095,  \
	    "features", "io_uring features not to use")                        \
	MASTER_SETTING(keepalive_timeout, DURATION,                            \
	    worker.keepalive_timeout_ms, "75s", 100, 86400000, "",             \
	    "idle time after which a connection is closed")                    \
	MASTER_SETTING(listen, LIST, listen, "*:8080", 1, 4095, "addresses",   \
	    "HOST:PORT, [V6]:PORT, *:PORT or unix:/PATH, repeatable")          \
	MASTER_SETTING(log_format, ENUM, log.format, "json", 0, 1,             \
	    "json|combined", "what log lines look like")                       \
	MASTER_SETTING(log_level, ENUM, log.level, "info", 0, 3,               \
	    "error|warn|info|debug", "least important events to log")          \
	MASTER_SETTING(metrics_emf, DURATION, metrics_emf_ms, "0", 0, 3600000, \
	    "", "pause between CloudWatch metrics on stdout; 0: none")         \
	MASTER_SETTING(migrate_on_start, BOOL, migrate_on_start, "on", 0, 1,   \
	    "", "bring the tables up to date first")                           \
	MASTER_SETTING(pid_file, TEXT, pid_file, "", 0, 4095, "",              \
	    "file for the master's process id")                                \
	MASTER_SETTING(request_line_max, SIZE, worker.request_line_bytes_max,  \
	    "8KiB", 64, 1 << 20, "", "longest request line (then 414)")        \
	MASTER_SETTING(send_timeout, DURATION, worker.send_timeout_ms, "30s",  \
	    100, 3600000, "", "time a client may take nothing of an answer")   \
	MASTER_SETTING(user, TEXT, user, "", 0, 255, "",                       \
	    "user to become after the sockets are open")                       \
	MASTER_SETTING(worker_watchdog, DURATION, worker.watchdog_ms, "2s", 0, \
	    3600000, "", "a worker stuck for so long is killed; 0: never")     \
	MASTER_SETTING(workers, WORKERS, workers, "auto", 1,                   \
	    SHM_BOARD_WORKERS_MAX, "processes",                                \
	    "worker processes (auto: one per usable CPU)")

enum master_setting_id {
#define MASTER_SETTING(name, ...) MASTER_SETTING_##name,
	MASTER_SETTINGS
#undef MASTER_SETTING
	    MASTER_SETTINGS_COUNT
};

/* Made once, before the first fork: a reload keeps these as they are.  All
 * others change with it. */
#define MASTER_SETTINGS_RESTART          \
	MASTER_RESTART(access_log)       \
	MASTER_RESTART(admin_listen)     \
	MASTER_RESTART(cache_size)       \
	MASTER_RESTART(control_socket)   \
	MASTER_RESTART(error_log)        \
	MASTER_RESTART(fail_fast)        \
	MASTER_RESTART(listen)           \
	MASTER_RESTART(migrate_on_start) \
	MASTER_RESTART(pid_file)         \
	MASTER_RESTART(user)

/* What ops is told by master_ops_options(): it is replaced when one of these
 * has changed. */
#define MASTER_SETTINGS_OPS                  \
	MASTER_OPS(admin_token)              \
	MASTER_OPS(cache_heartbeat)          \
	MASTER_OPS(database)                 \
	MASTER_OPS(database_connect_timeout) \
	MASTER_OPS(database_secret)          \
	MASTER_OPS(database_secret_refresh)  \
	MASTER_OPS(log_format)               \
	MASTER_OPS(log_level)

enum master_setting_type {
	MASTER_TYPE_TEXT,
	MASTER_TYPE_SECRET,
	MASTER_TYPE_LOG, /* stdout, stderr, off or an absolute path */
	MASTER_TYPE_LIST,
	MASTER_TYPE_BOOL,
	MASTER_TYPE_COUNT,
	MASTER_TYPE_COUNT_AUTO,
	MASTER_TYPE_WORKERS, /* auto, N or MIN..MAX: MASTER_VALUE_RANGE() */
	MASTER_TYPE_SIZE,
	MASTER_TYPE_DURATION,
	MASTER_TYPE_ENUM,
};

struct master_setting {
	const char *name;
	enum master_setting_type type;
	size_t offset; /* in struct master_options */
	size_t bytes;  /* of the field */
	const char *standard;
	uint64_t min;
	uint64_t max;
	const char *unit;
	const char *help;
};

extern const struct master_setting master_settings_table[MASTER_SETTINGS_COUNT];

/* Weakest first. */
enum master_source {
	MASTER_SOURCE_DEFAULT = 0,
	MASTER_SOURCE_FILE,
	MASTER_SOURCE_ENVIRONMENT,
	MASTER_SOURCE_FLAG,
};

struct master_origin {
	enum master_source source;
	const char *name; /* file, variable or flag; copied when kept */
	unsigned line;	  /* of a file */
};

struct master_setting_value {
	char *text;   /* as given; owned */
	char *parts;  /* a list's items; owned */
	char *origin; /* as people read it; owned */
	enum master_source source;
};

struct master_settings {
	struct master_options *options;
	FILE *errors; /* who wants to know */
	unsigned errors_count;
	bool is_reload; /* what only a restart changes needs no check */
	struct master_setting_value value[MASTER_SETTINGS_COUNT];
};

/* All defaults.  options and errors are borrowed. */
void master_settings_init(struct master_settings *settings,
    struct master_options *options, FILE *errors);
/* The options' texts are gone with it. */
void master_settings_fini(struct master_settings *settings);

/* Set name to text from there, or say what is wrong with it. */
void master_settings_set(struct master_settings *settings, const char *name,
    const char *text, const struct master_origin *origin);

/* Is one setting's value another in these two? */
bool master_settings_differ(const struct master_settings *a,
    const struct master_settings *b, enum master_setting_id id) SHM_MUSTCHECK;
/* Give a setting the value that it has elsewhere. */
void master_settings_copy(struct master_settings *settings,
    const struct master_settings *from, enum master_setting_id id);

/* NULL: no such setting. */
const struct master_setting *master_settings_find(const char *name);
/* The name that was probably meant, NULL when nothing is near. */
const char *master_settings_nearest(const char *name);

/* "booksd: name=value: need ... (from origin)", counted. */
void master_settings_refuse(struct master_settings *settings,
    enum master_setting_id id, const char *format, ...) SHM_PRINTF(3, 4);
/* The same for what is not a value: "booksd: ..." */
void master_settings_error(
    struct master_settings *settings, const char *format, ...) SHM_PRINTF(2, 3);

/* Every setting in the file's syntax, secrets masked. */
void master_settings_dump(const struct master_settings *settings, FILE *out);
/* Every setting with default, values and meaning. */
void master_settings_help(FILE *out);

#endif
