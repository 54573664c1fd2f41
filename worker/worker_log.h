/*
 * Log lines: one JSON object (or one line for people) per event, written
 * without ever blocking the process and never torn.
 *
 * Two sinks: access (one line per request) and error (events).  Lines collect
 * in a buffer and leave in writes of whole lines: at most PIPE_BUF bytes at
 * once on a pipe, where the kernel keeps such a write in one piece.  When the
 * sink has no room the oldest buffered lines stay, the new line is dropped and
 * counted, and a later event (log_lines_dropped) says how many were lost.
 *
 * stdout and stderr are shared with other processes, so O_NONBLOCK is never
 * set on them: a pipe or a terminal is opened anew through /proc/self/fd for a
 * description of our own (by the master, before the privileges are dropped),
 * a socket is written with MSG_DONTWAIT, a file as it is.
 *
 * Strings are escaped for JSON whatever bytes they hold: invalid UTF-8 becomes
 * U+FFFD.  A line that would pass WORKER_LOG_LINE_MAX has its longest strings
 * shortened and stays valid JSON.
 */
#ifndef WORKER_LOG_H
#define WORKER_LOG_H

#include "api/api_slice.h"

#define WORKER_LOG_LINE_MAX 4096 /* PIPE_BUF: longer strings are cut */

enum worker_log_level {
	WORKER_LOG_ERROR = 0,
	WORKER_LOG_WARN,
	WORKER_LOG_INFO,
	WORKER_LOG_DEBUG,
};

enum worker_log_format {
	WORKER_LOG_JSON = 0,
	WORKER_LOG_COMBINED, /* Apache's combined format; events for people */
};

struct worker_log_options {
	/* "stdout", "stderr", "off" or an absolute path; both are borrowed for
	 * the life of the process, because they may be opened again */
	const char *access;
	const char *error;
	/* of the files made here: the workers' user, who has to open them again
	 * after a rotation; 0: whoever we are */
	uint32_t owner;
	uint32_t group;
	enum worker_log_format format;
	enum worker_log_level level;
};

/*
 * Open both sinks; the caller ignores SIGPIPE.  Once, in the master before the
 * first fork (paths as the user who starts it); children inherit them and each
 * flushes its own lines. -1 with errno and *which naming the setting when a
 * path cannot be opened.
 */
int worker_log_open(
    const struct worker_log_options *options, const char **which) SHM_MUSTCHECK;

/* What lines look like and which are written from now on, and in children to
 * come.  The master. */
void
worker_log_adjust(enum worker_log_format format, enum worker_log_level level);

/* After USR1: paths are opened again, keeping the old file when that fails
 * (logged).  Any process, for itself. */
void worker_log_reopen(void);

/* In a child after fork: forget the parent's unwritten lines and name the
 * process ("worker" 3) in each line; number -1 for a process without one.
 * process is static text. */
void worker_log_forked(const char *process, int number);

/* Once a turn.  Events are tried when they happen; access lines are written
 * here, when a PIPE_BUF of them has come together or the oldest waited 20 ms.
 * Returns the microseconds until the next call is due (UINT64_MAX: nothing
 * waits). */
uint64_t worker_log_flush(uint64_t now_us);
/* At exit: tries for at most 200 ms. */
void worker_log_close(void);

uint64_t worker_log_dropped(void);
bool worker_log_enabled(enum worker_log_level level);
bool worker_log_access_enabled(void);

/* For a signal handler: where whole lines of events may be written (-1:
 * nowhere), and in which format. */
int worker_log_error_fd(void);
bool worker_log_is_json(void);

/*
 * One event with fields:
 *	worker_log(WORKER_LOG_WARN, "worker_died", "worker died and is
 *replaced", LOG_INT("pid", pid), LOG_STR("cause", text), LOG_END); event is a
 *fixed name for programs, message a sentence for people. errno is preserved.
 */
struct worker_log_field {
	const char *name;
	enum { WORKER_LOG_FIELD_STR, WORKER_LOG_FIELD_INT } kind;
	struct api_slice str;
	int64_t number;
};

#define LOG_STR(key, value)                       \
	((struct worker_log_field){.name = (key), \
	    .kind = WORKER_LOG_FIELD_STR,         \
	    .str = worker_log_text(value)})
#define LOG_SLICE(key, value)       \
	((struct worker_log_field){ \
	    .name = (key), .kind = WORKER_LOG_FIELD_STR, .str = (value)})
#define LOG_INT(key, value)                       \
	((struct worker_log_field){.name = (key), \
	    .kind = WORKER_LOG_FIELD_INT,         \
	    .number = (int64_t)(value)})
#define LOG_END ((struct worker_log_field){.name = NULL})
#define worker_log(level, event, message, ...)         \
	worker_log_fields((level), (event), (message), \
	    (const struct worker_log_field[]){__VA_ARGS__})

struct api_slice worker_log_text(const char *text); /* NULL is "" */
void worker_log_fields(enum worker_log_level level, const char *event,
    const char *message, const struct worker_log_field *fields);

/* One access line. */
struct worker_log_access {
	uint64_t now_us; /* shm_clock_us() of the end; 0: not known */
	uint64_t duration_us;
	uint64_t db_us;
	uint64_t bytes; /* of the body sent */
	uint16_t status;
	uint8_t minor;	   /* HTTP/1.minor */
	const char *route; /* template */
	const char *cache; /* where the answer came from; NULL: not said */
	struct api_slice method;
	struct api_slice target;
	struct api_slice request_id; /* as received or made */
	struct api_slice trace_root; /* Root of X-Amzn-Trace-Id, may be empty */
	struct api_slice remote;     /* address, may be empty */
	struct api_slice referer;    /* combined only */
	struct api_slice user_agent; /* combined only */
};

void worker_log_request(const struct worker_log_access *access);

#endif
