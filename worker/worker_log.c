/*
 * Log lines: what they look like.  Where they go is worker_log_sink.c, how
 * they are escaped is worker_log_line.c.
 *
 *	JSON event   {"time","level","event","message","process","worker",...}
 *	JSON access  {"time","level":"info","message":"request",...,"worker"}
 *	combined     Apache's access line; events as
 *	             TIME level event: message process=worker worker=3 key=value
 *
 * Events are rare and wanted at once, so each is tried as it happens.  Access
 * lines come in thousands: they wait for worker_log_flush() to leave many in
 * one write.
 *
 * A line is first written with its strings as long as they are.  Only when it
 * does not fit is it written again with ever smaller limits for one string:
 * the longest ones lose their ends, the short ones stay whole.
 *
 * One process, one thread: the state is static and no lock is needed.
 */
#include "config.h"

#include <errno.h>
#include <time.h>

#include "worker/worker_log.h"
#include "worker/worker_log_line.h"
#include "worker/worker_log_sink.h"
#include "worker/worker_put.h"

#define ACCESS_DELAY_US	 20000
#define CLOSE_TRIES	 40 /* times CLOSE_WAIT_MS: 200 ms */
#define CLOSE_WAIT_MS	 5
#define TEXT_BYTES_LEAST 16

static struct {
	enum worker_log_format format;
	enum worker_log_level level;
	const char *process;
	int number; /* -1: the process has none */
	struct worker_log_sink access;
	struct worker_log_sink error;
} state = {.process = "master", .number = -1};

static const char *const level_names[] = {
    [WORKER_LOG_ERROR] = "error",
    [WORKER_LOG_WARN] = "warn",
    [WORKER_LOG_INFO] = "info",
    [WORKER_LOG_DEBUG] = "debug",
};

static struct worker_log_line line;

struct api_slice
worker_log_text(const char *text)
{
	if (text == NULL)
		text = "";
	return (struct api_slice){text, strlen(text)};
}

/* ,"name":"value" with name a literal of ours. */
static void
json_string(const char *name, struct api_slice value)
{
	worker_log_line_literal(&line, ",\"");
	worker_log_line_bytes(&line, name, strlen(name));
	worker_log_line_literal(&line, "\":\"");
	worker_log_line_json(&line, value);
	worker_log_line_literal(&line, "\"");
}

static void
json_number(const char *name, int64_t value)
{
	worker_log_line_literal(&line, ",\"");
	worker_log_line_bytes(&line, name, strlen(name));
	worker_log_line_literal(&line, "\":");
	worker_log_line_i64(&line, value);
}

static void
json_begin(uint64_t wallclock_us, enum worker_log_level level)
{
	worker_log_line_literal(&line, "{\"time\":\"");
	worker_log_line_time(&line, wallclock_us);
	worker_log_line_literal(&line, "\"");
	json_string("level", worker_log_text(level_names[level]));
}

/* ---- events */

struct event {
	uint64_t wallclock_us;
	enum worker_log_level level;
	const char *name;
	const char *message;
	const struct worker_log_field *fields;
};

static void
event_json(const struct event *event)
{
	const struct worker_log_field *field;

	json_begin(event->wallclock_us, event->level);
	json_string("event", worker_log_text(event->name));
	json_string("message", worker_log_text(event->message));
	json_string("process", worker_log_text(state.process));
	if (state.number >= 0)
		json_number(state.process, state.number);
	for (field = event->fields; field->name != NULL; field++)
		if (field->kind == WORKER_LOG_FIELD_STR)
			json_string(field->name, field->str);
		else
			json_number(field->name, field->number);
	worker_log_line_literal(&line, "}");
}

/* A value that a reader could not tell from what follows is quoted. */
static bool
needs_quotes(struct api_slice value)
{
	for (size_t i = 0; i < value.len; i++)
		if (value.data[i] <= ' ' || value.data[i] >= 0x7f ||
		    strchr("\"\\=", value.data[i]) != NULL)
			return true;
	return value.len == 0;
}

static void
event_pair(const char *name, struct api_slice value)
{
	bool quotes = needs_quotes(value);

	worker_log_line_literal(&line, " ");
	worker_log_line_bytes(&line, name, strlen(name));
	worker_log_line_literal(&line, "=");
	if (quotes)
		worker_log_line_literal(&line, "\"");
	worker_log_line_text(&line, value);
	if (quotes)
		worker_log_line_literal(&line, "\"");
}

static void
event_pair_number(const char *name, int64_t value)
{
	worker_log_line_literal(&line, " ");
	worker_log_line_bytes(&line, name, strlen(name));
	worker_log_line_literal(&line, "=");
	worker_log_line_i64(&line, value);
}

static void
event_combined(const struct event *event)
{
	const struct worker_log_field *field;

	worker_log_line_time(&line, event->wallclock_us);
	worker_log_line_literal(&line, " ");
	worker_log_line_text(&line, worker_log_text(level_names[event->level]));
	worker_log_line_literal(&line, " ");
	worker_log_line_text(&line, worker_log_text(event->name));
	worker_log_line_literal(&line, ": ");
	worker_log_line_text(&line, worker_log_text(event->message));
	event_pair("process", worker_log_text(state.process));
	if (state.number >= 0)
		event_pair_number(state.process, state.number);
	for (field = event->fields; field->name != NULL; field++)
		if (field->kind == WORKER_LOG_FIELD_STR)
			event_pair(field->name, field->str);
		else
			event_pair_number(field->name, field->number);
}

void
worker_log_fields(enum worker_log_level level, const char *name,
    const char *message, const struct worker_log_field *fields)
{
	const struct event event = {
	    .wallclock_us = shm_wallclock_us(),
	    .level = level,
	    .name = name,
	    .message = message,
	    .fields = fields,
	};
	size_t text_max = WORKER_LOG_LINE_MAX;
	int saved = errno;

	if (!worker_log_enabled(level))
		return;
	for (;; text_max /= 2) {
		/* Only names, fixed in the program, could be too long then. */
		SHM_ASSERT(text_max >= TEXT_BYTES_LEAST);
		worker_log_line_begin(&line, text_max);
		if (state.format == WORKER_LOG_JSON)
			event_json(&event);
		else
			event_combined(&event);
		if (worker_log_line_end(&line))
			break;
	}
	worker_log_sink_add(&state.error, line.data, line.len);
	worker_log_sink_write(&state.error);
	errno = saved;
}

/* ---- requests */

/* Of a request's strings; more: piece by piece. */
#define PLAIN_BYTES_MAX	 1024
#define PLAIN_BYTES_ELSE 1024 /* names, numbers, our own strings */
_Static_assert(
    PLAIN_BYTES_MAX + PLAIN_BYTES_ELSE < WORKER_LOG_LINE_MAX, "it fits");

static char *
put_slice(char *at, struct api_slice text)
{
	return worker_put(at, text.data != NULL ? text.data : "", text.len);
}

/* Nothing of it has to be escaped or cut: nearly always. */
static bool
access_is_plain(const struct worker_log_access *access)
{
	return access->request_id.len + access->trace_root.len +
		       access->method.len + access->target.len <=
		   PLAIN_BYTES_MAX &&
	       worker_log_line_is_plain(access->request_id) &&
	       worker_log_line_is_plain(access->trace_root) &&
	       worker_log_line_is_plain(access->method) &&
	       worker_log_line_is_plain(access->target);
}

/* The same line as access_json() would make. */
static void
access_json_plain(const struct worker_log_access *access, uint64_t wallclock_us)
{
	char *at;

	worker_log_line_literal(&line, "{\"time\":\"");
	worker_log_line_time(&line, wallclock_us);
	at = line.data + line.len;
	at = WORKER_PUT(at, "\",\"level\":\"info\",\"message\":\"request\","
			    "\"request_id\":\"");
	at = put_slice(at, access->request_id);
	at = WORKER_PUT(at, "\",\"trace_root\":\"");
	at = put_slice(at, access->trace_root);
	at = WORKER_PUT(at, "\",\"method\":\"");
	at = put_slice(at, access->method);
	at = WORKER_PUT(at, "\",\"route\":\"");
	at = worker_put(at, access->route, strlen(access->route));
	at = WORKER_PUT(at, "\",\"target\":\"");
	at = put_slice(at, access->target);
	at = WORKER_PUT(at, "\",\"status\":");
	at = worker_put_u64(at, access->status);
	at = WORKER_PUT(at, ",\"bytes\":");
	at = worker_put_u64(at, access->bytes);
	at = WORKER_PUT(at, ",\"duration_us\":");
	at = worker_put_u64(at, access->duration_us);
	at = WORKER_PUT(at, ",\"database_us\":");
	at = worker_put_u64(at, access->db_us);
	if (access->cache != NULL) {
		at = WORKER_PUT(at, ",\"cache\":\"");
		at = worker_put(at, access->cache, strlen(access->cache));
		at = WORKER_PUT(at, "\"");
	}
	at = WORKER_PUT(at, ",\"worker\":");
	at = worker_put_u64(at, (uint64_t)state.number);
	at = WORKER_PUT(at, "}");
	line.len = (size_t)(at - line.data);
	SHM_ASSERT(line.len < PLAIN_BYTES_MAX + PLAIN_BYTES_ELSE);
}

static void
access_json(const struct worker_log_access *access, uint64_t wallclock_us)
{
	worker_log_line_literal(&line, "{\"time\":\"");
	worker_log_line_time(&line, wallclock_us);
	worker_log_line_literal(&line,
	    "\",\"level\":\"info\",\"message\":\"request\",\"request_id\":\"");
	worker_log_line_json(&line, access->request_id);
	worker_log_line_literal(&line, "\",\"trace_root\":\"");
	worker_log_line_json(&line, access->trace_root);
	worker_log_line_literal(&line, "\",\"method\":\"");
	worker_log_line_json(&line, access->method);
	worker_log_line_literal(&line, "\",\"route\":\"");
	worker_log_line_json(&line, worker_log_text(access->route));
	worker_log_line_literal(&line, "\",\"target\":\"");
	worker_log_line_json(&line, access->target);
	worker_log_line_literal(&line, "\",\"status\":");
	worker_log_line_u64(&line, access->status);
	worker_log_line_literal(&line, ",\"bytes\":");
	worker_log_line_u64(&line, access->bytes);
	worker_log_line_literal(&line, ",\"duration_us\":");
	worker_log_line_u64(&line, access->duration_us);
	worker_log_line_literal(&line, ",\"database_us\":");
	worker_log_line_u64(&line, access->db_us);
	if (access->cache != NULL)
		json_string("cache", worker_log_text(access->cache));
	worker_log_line_literal(&line, ",\"worker\":");
	worker_log_line_i64(&line, state.number);
	worker_log_line_literal(&line, "}");
}

/* Absent is "-". */
static void
combined_text(struct api_slice text)
{
	worker_log_line_text(&line, text.len > 0 ? text : API_SLICE("-"));
}

static void
access_combined(const struct worker_log_access *access, uint64_t wallclock_us)
{
	combined_text(access->remote);
	worker_log_line_literal(&line, " - - [");
	worker_log_line_time_clf(&line, wallclock_us);
	worker_log_line_literal(&line, "] \"");
	if (access->method.len == 0) {
		worker_log_line_literal(&line, "-");
	} else {
		worker_log_line_text(&line, access->method);
		worker_log_line_literal(&line, " ");
		worker_log_line_text(&line, access->target);
		worker_log_line_literal(&line, " HTTP/1.");
		worker_log_line_u64(&line, access->minor);
	}
	worker_log_line_literal(&line, "\" ");
	worker_log_line_u64(&line, access->status);
	worker_log_line_literal(&line, " ");
	if (access->bytes > 0)
		worker_log_line_u64(&line, access->bytes);
	else
		worker_log_line_literal(&line, "-");
	worker_log_line_literal(&line, " \"");
	combined_text(access->referer);
	worker_log_line_literal(&line, "\" \"");
	combined_text(access->user_agent);
	worker_log_line_literal(&line, "\"");
}

/* A request's end was read from the one clock; the difference to the other one
 * is looked at once a second. */
static uint64_t
wallclock_of(const struct worker_log_access *access)
{
	static uint64_t between_us, until_us;

	if (access->now_us == 0)
		return shm_wallclock_us();
	if (access->now_us >= until_us) {
		between_us = shm_wallclock_us() - access->now_us;
		until_us = access->now_us + 1000000;
	}
	return access->now_us + between_us;
}

void
worker_log_request(const struct worker_log_access *access)
{
	size_t text_max = WORKER_LOG_LINE_MAX;
	uint64_t wallclock_us;

	if (!worker_log_access_enabled())
		return;
	wallclock_us = wallclock_of(access);
	if (state.format == WORKER_LOG_JSON && state.number >= 0 &&
	    access_is_plain(access)) {
		worker_log_line_begin(&line, text_max);
		access_json_plain(access, wallclock_us);
		if (worker_log_line_end(&line))
			worker_log_sink_add(&state.access, line.data, line.len);
		return;
	}
	for (;; text_max /= 2) {
		SHM_ASSERT(text_max >= TEXT_BYTES_LEAST);
		worker_log_line_begin(&line, text_max);
		if (state.format == WORKER_LOG_JSON)
			access_json(access, wallclock_us);
		else
			access_combined(access, wallclock_us);
		if (worker_log_line_end(&line))
			break;
	}
	worker_log_sink_add(&state.access, line.data, line.len);
}

/* ---- opening, writing, closing */

int
worker_log_open(const struct worker_log_options *options, const char **which)
{
	state.format = options->format;
	state.level = options->level;
	state.access.target = options->access;
	state.access.owner = options->owner;
	state.access.group = options->group;
	state.error.target = options->error;
	state.error.owner = options->owner;
	state.error.group = options->group;
	*which = "access_log";
	if (worker_log_sink_open(&state.access) == -1)
		return -1;
	*which = "error_log";
	return worker_log_sink_open(&state.error);
}

void
worker_log_adjust(enum worker_log_format format, enum worker_log_level level)
{
	state.format = format;
	state.level = level;
}

static void
reopen(struct worker_log_sink *sink, const char *setting)
{
	/* stdout and stderr belong to whoever started us; off stays off. */
	if (sink->target == NULL || sink->target[0] != '/')
		return;
	if (worker_log_sink_open(sink) == 0)
		return;
	worker_log(WORKER_LOG_ERROR, "log_reopen_failed",
	    "the log could not be opened again, the old file stays in use",
	    LOG_STR("setting", setting), LOG_STR("path", sink->target),
	    LOG_STR("cause", strerror(errno)), LOG_END);
}

void
worker_log_reopen(void)
{
	reopen(&state.access, "access_log");
	reopen(&state.error, "error_log");
}

void
worker_log_forked(const char *process, int number)
{
	state.process = process;
	state.number = number;
	worker_log_sink_forget(&state.access);
	worker_log_sink_forget(&state.error);
}

/* When there is room again a line tells what is missing. */
static void
tell_dropped(struct worker_log_sink *sink, const char *setting)
{
	uint64_t lines = sink->dropped_new;

	if (lines == 0 || !worker_log_sink_is_empty(sink))
		return;
	sink->dropped_new = 0;
	worker_log(WORKER_LOG_WARN, "log_lines_dropped",
	    "the log's reader was too slow and lines were lost",
	    LOG_STR("setting", setting), LOG_INT("lines", lines), LOG_END);
}

uint64_t
worker_log_flush(uint64_t now_us)
{
	uint64_t access_us, error_us;

	access_us =
	    worker_log_sink_flush(&state.access, now_us, ACCESS_DELAY_US);
	error_us = worker_log_sink_flush(&state.error, now_us, 0);
	tell_dropped(&state.access, "access_log");
	tell_dropped(&state.error, "error_log");
	return access_us < error_us ? access_us : error_us;
}

void
worker_log_close(void)
{
	const struct timespec wait = {.tv_nsec = CLOSE_WAIT_MS * 1000000};

	for (int i = 0; i < CLOSE_TRIES; i++) {
		worker_log_sink_retry(&state.access);
		worker_log_sink_retry(&state.error);
		if (worker_log_sink_is_empty(&state.access) &&
		    worker_log_sink_is_empty(&state.error))
			break;
		nanosleep(&wait, NULL);
	}
	tell_dropped(&state.access, "access_log");
	tell_dropped(&state.error, "error_log");
	worker_log_sink_close(&state.access);
	worker_log_sink_close(&state.error);
}

uint64_t
worker_log_dropped(void)
{
	return state.access.dropped + state.error.dropped;
}

bool
worker_log_enabled(enum worker_log_level level)
{
	return level <= state.level && state.error.kind != WORKER_LOG_SINK_OFF;
}

bool
worker_log_access_enabled(void)
{
	return state.access.kind != WORKER_LOG_SINK_OFF;
}

int
worker_log_error_fd(void)
{
	return state.error.kind != WORKER_LOG_SINK_OFF ? state.error.fd : -1;
}

bool
worker_log_is_json(void)
{
	return state.format == WORKER_LOG_JSON;
}
