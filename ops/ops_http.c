/*
 * libmicrohttpd on the control socket and on the admin listener, one instance
 * for each socket, driven from the loop of ops_main.c (MHD_USE_EPOLL without a
 * thread: its epoll descriptor is polled with the rest).
 *
 * THE SOCKET IS SHARED with the master, which made it, and with the ops that
 * comes after this one.  MHD_stop_daemon() closes a listening socket, and in
 * some of the library's modes shuts it down, for all who hold it.  So the
 * daemon is quiesced first, which takes the socket away from it.
 *
 * WHO IS TRUSTED: a unix socket's mode lets its owner in and nobody else; of
 * the others ops_guard.c judges each request.  All are bounded, in memory and
 * time: at most CONNECTIONS_MAX (others wait in the queue), CONNECTION_BYTES
 * each for what is received, TIMEOUT_S without progress.
 *
 * A request is answered when all of it was read: an answer queued while there
 * is a body to come would close the connection.  Bodies mean nothing here;
 * one of more than BODY_BYTES_MAX closes the connection.
 */
#include "config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/ops_cache.h"
#include "ops/ops_command.h"
#include "ops/ops_events.h"
#include "ops/ops_guard.h"
#include "ops/ops_health.h"
#include "ops/ops_metrics.h"
#include "ops/ops_page.h"
#include "ops/ops_profile.h"
#include "ops/ops_status.h"

#define CONNECTIONS_MAX	 16
#define CONNECTION_BYTES (128 * 1024) /* a longer request: 4xx */
#define TIMEOUT_S	 15
#define BODY_BYTES_MAX	 (64 * 1024)

#define TYPE_JSON    "application/json"
#define TYPE_PROBLEM "application/problem+json"

/* The library ends a chunked answer to HEAD with a last chunk, so what has no
 * length beforehand has no HEAD. */
static const struct route {
	const char *path;
	const char *allow; /* the methods */
	enum MHD_Result (*run)(const struct ops_request *request);
	bool needs_cache;
} routes[] = {
    {"/", "GET, HEAD", ops_page, false},
    {"/cache", "GET, HEAD", ops_cache_status, true},
    {"/cache/flush", "POST", ops_cache_flush, true},
    {"/cache/keys", "GET", ops_cache_keys, true},
    {"/drain", "POST", ops_command_drain, false},
    {"/events", "GET", ops_events, false},
    {"/history.json", "GET", ops_events_history, false},
    {"/livez", "GET, HEAD", ops_health_livez, false},
    {"/metrics", "GET, HEAD", ops_metrics, false},
    {"/profile", "GET", ops_profile, false},
    {"/readyz", "GET, HEAD", ops_health_readyz, false},
    {"/reload", "POST", ops_command_reload, false},
    {"/status.json", "GET, HEAD", ops_status, false},
    {"/workers", "POST", ops_command_workers, false},
};

/* ---- answers */

ssize_t
ops_http_give(
    const struct api_buf *text, size_t *at, char *out, size_t out_bytes)
{
	size_t len;

	if (text->failed)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	len = text->len - *at;
	if (len > out_bytes)
		len = out_bytes;
	memcpy(out, text->data + *at, len);
	*at += len;
	return (ssize_t)len;
}

enum MHD_Result
ops_http_answer(const struct ops_request *request, unsigned status,
    const char *content_type, struct MHD_Response *response)
{
	enum MHD_Result result;

	if (response == NULL)
		return MHD_NO; /* the connection is closed */
	MHD_add_response_header(
	    response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
	MHD_add_response_header(
	    response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	result = MHD_queue_response(request->connection, status, response);
	MHD_destroy_response(response);
	return result;
}

enum MHD_Result
ops_http_json(const struct ops_request *request, unsigned status, json_t *root)
{
	char *text = NULL;

	if (root != NULL)
		text =
		    json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
	json_decref(root);
	if (text == NULL)
		return ops_http_problem(request, MHD_HTTP_INTERNAL_SERVER_ERROR,
		    "There is no memory for the answer.");
	return ops_http_answer(request, status, TYPE_JSON,
	    MHD_create_response_from_buffer(
		strlen(text), text, MHD_RESPMEM_MUST_FREE));
}

static struct MHD_Response *
problem_new(uint16_t status, const char *detail)
{
	struct MHD_Response *response = NULL;
	struct api_buf buf = {0};
	struct api_reply reply;

	api_problem(status, detail, true, &buf, &reply);
	response = MHD_create_response_from_buffer(reply.body.len,
	    (void *)(uintptr_t)reply.body.data, MHD_RESPMEM_MUST_COPY);
	api_buf_fini(&buf);
	return response;
}

enum MHD_Result
ops_http_problem(
    const struct ops_request *request, uint16_t status, const char *detail)
{
	return ops_http_answer(
	    request, status, TYPE_PROBLEM, problem_new(status, detail));
}

enum MHD_Result
ops_http_unauthorized(const struct ops_request *request)
{
	struct MHD_Response *response = problem_new(MHD_HTTP_UNAUTHORIZED,
	    "From another machine this needs the token of admin_token.");

	if (response != NULL)
		MHD_add_response_header(response,
		    MHD_HTTP_HEADER_WWW_AUTHENTICATE,
		    "Bearer realm=\"booksd\"");
	return ops_http_answer(
	    request, MHD_HTTP_UNAUTHORIZED, TYPE_PROBLEM, response);
}

enum MHD_Result
ops_http_buf(const struct ops_request *request, unsigned status,
    const char *content_type, struct api_buf *buf)
{
	struct MHD_Response *response = NULL;

	if (!buf->failed) {
		response = MHD_create_response_from_buffer(
		    buf->len, buf->data, MHD_RESPMEM_MUST_FREE);
		if (response != NULL)
			*buf = (struct api_buf){.data = NULL};
	}
	api_buf_fini(buf);
	if (response == NULL)
		return ops_http_problem(request, MHD_HTTP_INTERNAL_SERVER_ERROR,
		    "There is no memory for the answer.");
	return ops_http_answer(request, status, content_type, response);
}

enum MHD_Result
ops_http_reply(const struct ops_request *request, const struct api_reply *reply)
{
	struct MHD_Response *response =
	    MHD_create_response_from_buffer(reply->body.len,
		(void *)(uintptr_t)reply->body.data, MHD_RESPMEM_MUST_COPY);
	char seconds[16];

	if (response != NULL && reply->retry_after_s > 0) {
		snprintf(seconds, sizeof(seconds), "%u", reply->retry_after_s);
		MHD_add_response_header(
		    response, MHD_HTTP_HEADER_RETRY_AFTER, seconds);
	}
	return ops_http_answer(
	    request, reply->status, reply->content_type, response);
}

static enum MHD_Result
wrong_method(const struct ops_request *request, const struct route *route)
{
	struct MHD_Response *response = problem_new(
	    MHD_HTTP_METHOD_NOT_ALLOWED, "This method is not allowed here.");

	if (response != NULL)
		MHD_add_response_header(
		    response, MHD_HTTP_HEADER_ALLOW, route->allow);
	return ops_http_answer(
	    request, MHD_HTTP_METHOD_NOT_ALLOWED, TYPE_PROBLEM, response);
}

/* ---- arguments */

struct walk {
	ops_http_each_argument *each;
	void *owner;
	bool is_ended;
};

static enum MHD_Result
walk_argument(void *arg, enum MHD_ValueKind kind, const char *key,
    size_t key_len, const char *value, size_t value_len)
{
	struct walk *walk = arg;

	(void)kind;
	/* A key with a NUL in it is none of ours. */
	if (strlen(key) != key_len)
		key = "";
	walk->is_ended = !walk->each(
	    walk->owner, key, value != NULL ? value : "", value_len);
	return walk->is_ended ? MHD_NO : MHD_YES;
}

bool
ops_http_arguments(const struct ops_request *request,
    ops_http_each_argument *each, void *owner)
{
	struct walk walk = {.each = each, .owner = owner};

	MHD_get_connection_values_n(
	    request->connection, MHD_GET_ARGUMENT_KIND, walk_argument, &walk);
	return !walk.is_ended;
}

static bool
number_argument(void *arg, const char *key, const char *value, size_t len)
{
	struct ops_http_number *number = arg;

	if (strcmp(key, number->key) != 0 || number->is_given || len == 0 ||
	    len > 8 || strspn(value, "0123456789") != len)
		return false;
	number->is_given = true;
	number->value = strtoul(value, NULL, 10);
	return number->value >= number->least && number->value <= number->most;
}

bool
ops_http_number(
    const struct ops_request *request, struct ops_http_number *number)
{
	return ops_http_arguments(request, number_argument, number);
}

/* ---- requests */

static bool
is_allowed(const struct route *route, const char *method)
{
	size_t len = strlen(method);

	for (const char *at = route->allow; *at != '\0';) {
		size_t word = strcspn(at, ",");

		if (word == len && memcmp(at, method, len) == 0)
			return true;
		at += word;
		at += strspn(at, ", ");
	}
	return false;
}

static enum MHD_Result
dispatch(
    const struct ops_request *request, const char *path, const char *method)
{
	enum MHD_Result refused;

	if (!ops_guard_pass(request, method, &refused))
		return refused;
	for (size_t i = 0; i < SHM_ARRAY_LEN(routes); i++) {
		const struct route *route = &routes[i];

		if (strcmp(path, route->path) != 0)
			continue;
		if (!is_allowed(route, method))
			return wrong_method(request, route);
		if (route->needs_cache && request->options->cache == NULL)
			return ops_http_problem(request,
			    MHD_HTTP_SERVICE_UNAVAILABLE,
			    "The cache is off (cache_size = 0).");
		return route->run(request);
	}
	return ops_http_problem(
	    request, MHD_HTTP_NOT_FOUND, "There is nothing here.");
}

/* *seen is 0 at the request's head, then one more than the bytes of its body
 * so far. */
static enum MHD_Result
handle(void *arg, struct MHD_Connection *connection, const char *path,
    const char *method, const char *version, const char *data,
    size_t *data_bytes, void **seen)
{
	struct ops_http *http = arg;
	const struct ops_request request = {
	    .http = http,
	    .connection = connection,
	    .options = http->options,
	};
	uintptr_t bytes = (uintptr_t)*seen;

	(void)version;
	(void)data;
	if (bytes > 0 && *data_bytes == 0)
		return dispatch(&request, path, method);
	bytes += bytes == 0 ? 1 : *data_bytes;
	if (bytes > BODY_BYTES_MAX)
		return MHD_NO;
	*seen = (void *)bytes;
	*data_bytes = 0;
	return MHD_YES;
}

/* What the library finds wrong with its clients. */
static void
log_library(void *arg, const char *format, va_list args) SHM_PRINTF(2, 0);

static void
log_library(void *arg, const char *format, va_list args)
{
	const struct ops_options *options = arg;
	char text[200];

	vsnprintf(text, sizeof(text), format, args);
	text[strcspn(text, "\n")] = '\0';
	ops_say(options, OPS_LOG_DEBUG, "control_http",
	    "the server for administrators has something to say",
	    OPS_LOG_STR("said", text));
}

/* ---- the room's side */

static struct MHD_Daemon *
daemon_start(struct ops_http *http, int fd)
{
	const struct ops_options *options = http->options;
	struct MHD_OptionItem items[] = {
	    {MHD_OPTION_LISTEN_SOCKET, fd, NULL},
	    {MHD_OPTION_STRICT_FOR_CLIENT, 1, NULL},
	    {MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, NULL},
	    {MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, NULL},
	    {MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_BYTES, NULL},
	    {MHD_OPTION_CONNECTION_TIMEOUT, TIMEOUT_S, NULL},
	    {MHD_OPTION_END, 0, NULL},
	};

	/* The logger comes first, or standard error hears of the rest. */
	return MHD_start_daemon(
	    MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0,
	    NULL, NULL, handle, http, MHD_OPTION_EXTERNAL_LOGGER, log_library,
	    (void *)(uintptr_t)options, MHD_OPTION_ARRAY, items,
	    MHD_OPTION_END);
}

struct ops_http *
ops_http_new(const struct ops_options *options, const struct ops_listen *listen,
    struct ops_site *site, int fd)
{
	struct ops_http *http = calloc(1, sizeof(*http));

	if (http == NULL)
		return NULL;
	http->options = options;
	http->listen = listen;
	http->site = site;
	http->daemon = daemon_start(http, fd);
	if (http->daemon == NULL) {
		free(http);
		return NULL;
	}
	return http;
}

void
ops_http_free(struct ops_http **http)
{
	struct ops_http *old = *http;

	*http = NULL;
	if (old == NULL)
		return;
	(void)MHD_quiesce_daemon(old->daemon);
	MHD_stop_daemon(old->daemon);
	free(old);
}

int
ops_http_fd(const struct ops_http *http)
{
	const union MHD_DaemonInfo *info =
	    MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);

	SHM_ASSERT(info != NULL);
	return info->epoll_fd;
}

void
ops_http_run(struct ops_http *http)
{
	(void)MHD_run(http->daemon);
}

uint64_t
ops_http_wait_us(const struct ops_http *http)
{
	MHD_UNSIGNED_LONG_LONG ms;

	if (MHD_get_timeout(http->daemon, &ms) != MHD_YES)
		return UINT64_MAX;
	return ms > TIMEOUT_S * 1000ULL ? TIMEOUT_S * 1000000ULL : ms * 1000ULL;
}

const char *
ops_http_version(void)
{
	return MHD_get_version();
}
