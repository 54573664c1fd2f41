/*
 * Requests between their head and their answer.
 *
 * A call comes from a free list (so a steady load allocates nothing) and goes
 * back when both have left it: the connection (conn == NULL) and the database
 * (!query_open).  Strings for the access line point into the request head; a
 * call that has to wait copies them first, because the head is gone by then.
 */
#include "config.h"

#include <stdlib.h>

#include "worker/worker_call.h"

#define TEXT_KEPT_BYTES	  (16u << 10) /* larger buffers are freed */
#define REQUEST_ID_MAX	  128
#define LOG_TARGET_MAX	  1024
#define ACCEPT_JOINED_MAX 1024

static struct worker_call *
call_take(struct worker_loop *loop)
{
	struct worker_call *call = loop->call_free;

	if (call != NULL) {
		loop->call_free = call->next;
		return call;
	}
	return calloc(1, sizeof(*call));
}

static void
buf_trim(struct api_buf *buf)
{
	if (buf->cap > TEXT_KEPT_BYTES || buf->failed) {
		api_buf_fini(buf);
		*buf = (struct api_buf){0};
	}
	buf->len = 0;
}

static void
call_release(struct worker_call *call)
{
	struct worker_loop *loop = call->loop;

	SHM_ASSERT(call->conn == NULL);
	if (call->query_open)
		return;
	api_call_end(&call->api);
	loop->held_bytes -= call->body.cap;
	api_buf_fini(&call->body);
	call->body = (struct api_buf){0};
	buf_trim(&call->text);
	call->next = loop->call_free;
	loop->call_free = call;
}

/* ---- the access line */

/* X-Amzn-Trace-Id: "Root=1-...;Parent=..." in any order. */
static struct api_slice
trace_root(struct api_slice value)
{
	for (size_t i = 0; i + 5 <= value.len; i++) {
		size_t end = i + 5;

		if (i > 0 && value.data[i - 1] != ';' &&
		    value.data[i - 1] != ' ')
			continue;
		if (memcmp(value.data + i, "Root=", 5) != 0)
			continue;
		while (end < value.len && value.data[end] != ';')
			end++;
		return (struct api_slice){value.data + i + 5, end - i - 5};
	}
	return (struct api_slice){NULL, 0};
}

static struct api_slice
field_value(const struct worker_http_head *head, const char *name)
{
	const struct worker_http_field *field = worker_http_field(head, name);

	if (field == NULL)
		return (struct api_slice){NULL, 0};
	return field->value;
}

/* Sixteen hexadecimal digits, different for each request of a worker and, by
 * the start value, between workers. */
static struct api_slice
request_id_make(struct worker_call *call)
{
	static const char hex[] = "0123456789abcdef";
	uint64_t id = call->loop->request_id++;
	char *text = call->log_text + sizeof(call->log_text) - 16;

	/* splitmix64's finalizer: a bijection, so no two are equal. */
	id = (id ^ (id >> 30)) * 0xbf58476d1ce4e5b9ULL;
	id = (id ^ (id >> 27)) * 0x94d049bb133111ebULL;
	id ^= id >> 31;
	for (int i = 0; i < 16; i++, id >>= 4)
		text[i] = hex[id & 15];
	return (struct api_slice){text, 16};
}

static void
log_begin(struct worker_call *call, const struct worker_http_head *head)
{
	struct worker_log_access *access = &call->access;

	*access = (struct worker_log_access){
	    .minor = head->minor,
	    .method = head->method_text,
	    .target = head->target,
	    .request_id = field_value(head, "x-request-id"),
	    .trace_root = trace_root(field_value(head, "x-amzn-trace-id")),
	    .remote = worker_log_text(call->conn->remote),
	    .referer = field_value(head, "referer"),
	    .user_agent = field_value(head, "user-agent"),
	};
	if (access->request_id.len == 0 ||
	    access->request_id.len > REQUEST_ID_MAX)
		access->request_id = request_id_make(call);
}

/* The made-up request id keeps its place at the end of log_text. */
void
worker_call_keep_log(struct worker_call *call)
{
	struct worker_log_access *access = &call->access;
	struct api_slice *slice[] = {&access->method, &access->request_id,
	    &access->trace_root, &access->remote, &access->target,
	    &access->referer, &access->user_agent};
	size_t at = 0, room = sizeof(call->log_text) - 16;

	if (!worker_log_access_enabled())
		return;
	for (size_t i = 0; i < SHM_ARRAY_LEN(slice); i++) {
		size_t len = slice[i]->len;

		if (slice[i]->data >= call->log_text &&
		    slice[i]->data < call->log_text + sizeof(call->log_text))
			continue; /* kept already */
		if (len > room - at)
			len = room - at;
		if (slice[i] == &access->target && len > LOG_TARGET_MAX)
			len = LOG_TARGET_MAX;
		if (len > 0)
			memcpy(call->log_text + at, slice[i]->data, len);
		*slice[i] = (struct api_slice){call->log_text + at, len};
		at += len;
	}
}

void
worker_call_log(struct worker_call *call, uint16_t status, uint64_t body_bytes)
{
	if (call->logged)
		return;
	call->logged = true;
	if (!worker_log_access_enabled())
		return;
	call->access.status = status;
	call->access.bytes = body_bytes;
	call->access.db_us = call->db_us;
	call->access.duration_us = shm_clock_us() - call->started_us;
	call->access.route = api_call_route(&call->api);
	worker_log_request(&call->access);
}

/* ---- the beginning */

struct worker_call *
worker_call_begin(struct worker_conn *conn, const struct worker_http_head *head)
{
	struct worker_loop *loop = conn->loop;
	struct worker_call *call = call_take(loop);
	char joined[ACCEPT_JOINED_MAX];
	struct api_request request = {.method = head->method,
	    .asterisk = head->asterisk,
	    .path = head->path,
	    .query = head->query,
	    .has_body = head->framing != WORKER_HTTP_NO_BODY};

	if (call == NULL)
		return NULL;
	call->loop = loop;
	call->conn = conn;
	call->stream_open = call->query_open = call->logged = false;
	call->started_us = loop->now_us;
	call->db_us = call->stream_bytes = 0;
	call->body.bytes_max = loop->limits.body_bytes_max + 1;
	if (worker_log_access_enabled())
		log_begin(call, head);
	request.accept =
	    worker_http_values(head, "accept", joined, sizeof(joined));
	if (head->method == API_POST || head->method == API_PUT) {
		request.content_type = field_value(head, "content-type");
		request.content_encoding =
		    field_value(head, "content-encoding");
	}
	call->text.len = 0;
	call->reply = (struct api_reply){0};
	call->verdict = api_begin(
	    &call->api, &loop->api, &request, &call->text, &call->reply);
	return call;
}

void
worker_call_body(struct worker_call *call, struct api_slice body)
{
	SHM_ASSERT(call->verdict == API_NEED_BODY);
	call->verdict = api_body(&call->api, body, &call->text, &call->reply);
	SHM_ASSERT(call->verdict != API_NEED_BODY);
}

/* ---- the database */

static struct worker_call *
call_of(struct worker_db_query *query)
{
	return (
	    struct worker_call *)(void *)((char *)query -
					  offsetof(struct worker_call, query));
}

/* The first row or the end has come: the head and the list's first bytes. */
static void
stream_begin(struct worker_call *call)
{
	api_stream_open(&call->api, &call->text, &call->reply);
	worker_conn_stream_begin(call->conn, &call->reply);
	call->stream_open = true;
	api_buf_bytes(worker_conn_stream_buf(call->conn), call->text.data,
	    call->text.len);
	call->stream_bytes += call->text.len;
}

static bool
stream_row(struct worker_call *call, const struct api_row *row)
{
	struct worker_conn *conn = call->conn;
	struct api_buf *out;
	size_t before;

	if (!call->stream_open)
		stream_begin(call);
	out = worker_conn_stream_buf(conn);
	before = out->len;
	api_stream_row(&call->api, row, out);
	call->stream_bytes += out->len - before;
	return worker_conn_stream_push(conn);
}

static bool
call_row(struct worker_db_query *query, const struct api_row *row)
{
	struct worker_call *call = call_of(query);

	if (call->conn == NULL)
		return true;
	if (query->is_stream)
		return stream_row(call, row);
	api_row(&call->api, row, &call->text);
	return true;
}

static void
stream_done(
    struct worker_call *call, enum api_db_outcome outcome, const char *sqlstate)
{
	struct worker_conn *conn = call->conn;
	struct api_buf *out;
	size_t before;

	if (outcome != API_DB_OK) {
		worker_log(WORKER_LOG_ERROR, "stream_failed",
		    "a list was cut: the database failed in the middle",
		    LOG_STR("sqlstate", sqlstate),
		    LOG_INT("bytes", call->stream_bytes),
		    LOG_SLICE("request_id", call->access.request_id), LOG_END);
		worker_call_log(call, 200, call->stream_bytes);
		worker_conn_abort(conn);
		return;
	}
	out = worker_conn_stream_buf(conn);
	before = out->len;
	api_stream_close(&call->api, out);
	call->stream_bytes += out->len - before;
	worker_call_log(call, 200, call->stream_bytes);
	worker_conn_stream_end(conn);
	worker_conn_continue(conn);
}

static void
call_done(struct worker_db_query *query, enum api_db_outcome outcome,
    const char *sqlstate)
{
	struct worker_call *call = call_of(query);
	struct worker_conn *conn = call->conn;

	call->query_open = false;
	call->db_us += query->db_us;
	if (conn == NULL) {
		call_release(call);
		return;
	}
	if (query->is_stream && !call->stream_open && outcome == API_DB_OK) {
		/* No row came: an empty list is a list. */
		stream_begin(call);
	}
	if (call->stream_open) {
		stream_done(call, outcome, sqlstate);
		return;
	}
	call->verdict =
	    api_db(&call->api, outcome, sqlstate, &call->text, &call->reply);
	worker_call_go_on(call);
	worker_conn_continue(conn);
}

static void
call_submit(struct worker_call *call)
{
	const struct api_statement *statement = api_call_statement(&call->api);

	worker_call_keep_log(call);
	call->query = (struct worker_db_query){
	    .statement = statement,
	    .is_write = api_sql_text(statement->id)->is_write,
	    .is_stream = call->verdict == API_NEED_STREAM,
	    .row = call_row,
	    .done = call_done,
	};
	call->query_open = true;
	worker_db_submit(call->loop->db, &call->query);
}

void
worker_call_go_on(struct worker_call *call)
{
	switch (call->verdict) {
	case API_DONE:
		worker_conn_answer(call->conn, &call->reply);
		return;
	case API_NEED_DB:
	case API_NEED_STREAM:
		call_submit(call);
		return;
	case API_NEED_BODY:
		break;
	}
	SHM_ASSERT(call->verdict != API_NEED_BODY);
}

/* ---- the end */

void
worker_call_leave(struct worker_call **call)
{
	struct worker_call *left = *call;

	if (left == NULL)
		return;
	*call = NULL;
	if (!left->logged)
		worker_call_log(left, 499, left->stream_bytes);
	left->conn = NULL;
	if (left->query_open)
		worker_db_cancel(left->loop->db, &left->query);
	call_release(left);
}

void
worker_call_free_all(struct worker_loop *loop)
{
	while (loop->call_free != NULL) {
		struct worker_call *call = loop->call_free;

		loop->call_free = call->next;
		api_buf_fini(&call->text);
		api_buf_fini(&call->body);
		free(call);
	}
}
