/*
 * Requests between their head and their answer.
 *
 * A call comes from a free list (so a steady load allocates nothing) and goes
 * back when all have left it: the connection (conn == NULL), the database
 * (!query_open) and the cache (no claim, no intent).  Strings for the access
 * line point into the request head; a call that has to wait copies them first,
 * because the head is gone by then.
 *
 *	begin --> body --> go_on --> the cache answers, or another's load does
 *	                     '--> start --> done --> start ... --> answer
 *
 * A call without a connection goes on for the sake of the cache: a write until
 * its outcome is known, a load until it is stored (worker_load.c).
 */
#include "config.h"

#include <stdlib.h>

#include "worker/worker_cache.h"
#include "worker/worker_call.h"
#include "worker/worker_load.h"
#include "worker/worker_probe.h"
#include "worker/worker_wait.h"

#define TEXT_KEPT_BYTES	 (16u << 10) /* larger buffers are freed */
#define FIELD_JOINED_MAX 1024

static struct worker_call *
call_take(struct worker_loop *loop)
{
	struct worker_call *call = loop->call_free;

	if (call == NULL)
		call = calloc(1, sizeof(*call));
	else
		loop->call_free = call->next;
	if (call == NULL)
		return NULL;
	/* Field by field: most of a call needs no clearing. */
	call->loop = loop;
	call->conn = NULL;
	call->stream_open = call->query_open = call->logged = false;
	call->started_us = loop->now_us;
	call->db_us = call->stream_bytes = 0;
	call->text.len = 0;
	call->reply = (struct api_reply){0};
	call->cache.is_asked = call->cache.has_waited = false;
	call->cache.source = WORKER_SOURCE_NONE;
	call->cache.age_s = 0;
	call->cache.intent = -1;
	call->cache.is_load = call->cache.has_tee = false;
	call->cache.is_renewal = false;
	call->cache.flight.word = 0;
	call->cache.is_waiting = false;
	call->cache.give_up_us = 0;
	return call;
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

	SHM_ASSERT(call->conn == NULL && !call->cache.is_waiting);
	if (call->query_open)
		return;
	SHM_ASSERT(call->cache.flight.word == 0 && call->cache.intent == -1);
	if (call->cache.is_renewal) {
		SHM_ASSERT(loop->renewals_count > 0);
		loop->renewals_count--;
	}
	api_call_end(&call->api);
	if (call->body.data != NULL) {
		loop->held_bytes -= call->body.cap;
		api_buf_fini(&call->body);
		call->body = (struct api_buf){0};
	}
	if (call->cache.tee.data != NULL)
		api_buf_fini(&call->cache.tee);
	buf_trim(&call->text);
	call->next = loop->call_free;
	loop->call_free = call;
}

/* ---- the beginning */

/* The lengths of the fields' names, as bits: most requests have none of the
 * fields below, and this is cheaper than to look for each. */
static uint32_t
name_lengths(const struct worker_http_head *head)
{
	uint32_t lengths = 0;

	for (uint32_t i = 0; i < head->fields_count; i++)
		lengths |= 1u << (head->field[i].name.len & 31);
	return lengths;
}

#define MAY_HAVE(lengths, name) (((lengths) >> (sizeof(name) - 1) & 1) != 0)

static void
read_fields(const struct worker_http_head *head, uint32_t lengths,
    struct api_request *request, char if_none_match[FIELD_JOINED_MAX])
{
	if (MAY_HAVE(lengths, "if-none-match"))
		request->if_none_match = worker_http_values(
		    head, "if-none-match", if_none_match, FIELD_JOINED_MAX);
	if (MAY_HAVE(lengths, "if-modified-since"))
		request->if_modified_since =
		    worker_call_field(head, "if-modified-since");
}

static void
request_fields(const struct worker_http_head *head, struct api_request *request,
    char accept[FIELD_JOINED_MAX], char if_none_match[FIELD_JOINED_MAX])
{
	uint32_t lengths = name_lengths(head);

	if (MAY_HAVE(lengths, "accept"))
		request->accept = worker_http_values(
		    head, "accept", accept, FIELD_JOINED_MAX);
	if (head->method == API_POST || head->method == API_PUT) {
		request->content_type = worker_call_field(head, "content-type");
		request->content_encoding =
		    worker_call_field(head, "content-encoding");
	}
	if (head->method == API_GET || head->method == API_HEAD)
		read_fields(head, lengths, request, if_none_match);
}

struct worker_call *
worker_call_begin(struct worker_conn *conn, const struct worker_http_head *head)
{
	struct worker_loop *loop = conn->loop;
	struct worker_call *call = call_take(loop);
	char joined[2][FIELD_JOINED_MAX];
	struct api_request request = {.method = head->method,
	    .asterisk = head->asterisk,
	    .path = head->path,
	    .query = head->query,
	    .has_body = head->framing != WORKER_HTTP_NO_BODY};

	if (call == NULL)
		return NULL;
	call->conn = conn;
	if (conn->head_started) /* it began in an earlier turn */
		call->started_us = conn->head_us;
	call->body.bytes_max = loop->limits.body_bytes_max + 1;
	if (worker_log_access_enabled())
		worker_call_log_begin(call, head);
	request_fields(head, &request, joined[0], joined[1]);
	call->verdict = api_begin(
	    &call->api, &loop->api, &request, &call->text, &call->reply);
	worker_stats_request_begin(call);
	WORKER_PROBE4(request__start, api_method_name(head->method),
	    head->path.data, head->path.len, api_call_route(&call->api));
	return call;
}

struct worker_call *
worker_call_begin_alone(
    struct worker_loop *loop, struct api_slice path, struct api_slice query)
{
	const struct api_request request = {
	    .method = API_GET, .path = path, .query = query};
	struct worker_call *call = call_take(loop);

	if (call == NULL)
		return NULL;
	call->logged = true; /* nobody asked for it */
	call->access = (struct worker_log_access){.status = 0};
	call->verdict = api_begin(
	    &call->api, &loop->api, &request, &call->text, &call->reply);
	return call;
}

void
worker_call_drop(struct worker_call **call)
{
	if (*call != NULL)
		call_release(*call);
	*call = NULL;
}

void
worker_call_body(struct worker_call *call, struct api_slice body)
{
	SHM_ASSERT(call->verdict == API_NEED_BODY);
	call->verdict = api_body(&call->api, body, &call->text, &call->reply);
	SHM_ASSERT(call->verdict != API_NEED_BODY);
}

/* ---- streams */

/* Where a list's text is written: to its client, or for the cache alone. */
static struct api_buf *
stream_buf(struct worker_call *call)
{
	return call->conn != NULL ? worker_conn_stream_buf(call->conn)
				  : &call->cache.tee;
}

/* Bytes from before on were written to out. */
static void
stream_wrote(struct worker_call *call, struct api_buf *out, size_t before)
{
	if (call->conn == NULL) {
		worker_load_tee_check(call);
		return;
	}
	call->stream_bytes += out->len - before;
	if (!call->cache.has_tee)
		return;
	if (out->failed) /* some of it is missing */
		worker_load_cut(call);
	else
		worker_load_tee(call, out->data + before, out->len - before);
}

/* The first row or the end has come: the head and the list's first bytes. */
static void
stream_begin(struct worker_call *call)
{
	struct api_buf *out;
	size_t before;

	api_stream_open(&call->api, &call->text, &call->reply);
	if (call->conn != NULL)
		worker_conn_stream_begin(call->conn, &call->reply);
	call->stream_open = true;
	out = stream_buf(call);
	before = out->len;
	api_buf_bytes(out, call->text.data, call->text.len);
	stream_wrote(call, out, before);
}

static bool
stream_row(struct worker_call *call, const struct api_row *row)
{
	struct api_buf *out;
	size_t before;

	if (!call->stream_open)
		stream_begin(call);
	out = stream_buf(call);
	before = out->len;
	api_stream_row(&call->api, row, out);
	stream_wrote(call, out, before);
	if (call->conn == NULL)
		return true;
	/* While it is kept for others it is not as slow as its client. */
	return worker_conn_stream_push(call->conn) || call->cache.has_tee;
}

static void
stream_failed(struct worker_call *call, const char *sqlstate)
{
	worker_log(WORKER_LOG_ERROR, "stream_failed",
	    "a list was cut: the database failed in the middle",
	    LOG_STR("sqlstate", sqlstate), LOG_INT("bytes", call->stream_bytes),
	    LOG_SLICE("request_id", call->access.request_id), LOG_END);
	worker_call_log(call, 200, call->stream_bytes);
	worker_conn_abort(call->conn);
}

static void
stream_done(
    struct worker_call *call, enum api_db_outcome outcome, const char *sqlstate)
{
	struct worker_conn *conn = call->conn;
	struct api_buf *out;
	size_t before;

	if (outcome == API_DB_OK) {
		out = stream_buf(call);
		before = out->len;
		api_stream_close(&call->api, out);
		stream_wrote(call, out, before);
	}
	worker_load_end(call, outcome, sqlstate);
	if (conn == NULL) {
		call_release(call);
	} else if (outcome != API_DB_OK) {
		stream_failed(call, sqlstate);
	} else {
		worker_call_log(call, 200, call->stream_bytes);
		worker_conn_stream_end(conn);
		worker_conn_continue(conn);
	}
}

/* ---- the database */

static struct worker_call *
call_of(struct worker_db_query *query)
{
	return (
	    struct worker_call *)(void *)((char *)query -
					  offsetof(struct worker_call, query));
}

static bool
call_row(struct worker_db_query *query, const struct api_row *row)
{
	struct worker_call *call = call_of(query);

	if (call->conn == NULL && !call->cache.is_load)
		return true;
	worker_stats_request_goes_on(call);
	if (query->is_stream)
		return stream_row(call, row);
	api_row(&call->api, row, &call->text);
	return true;
}

static void
call_again(struct worker_db_query *query)
{
	api_row_again(&call_of(query)->api);
}

/* What was loaded, the error of that, or the outcome of a write. */
static void
call_answer(struct worker_call *call)
{
	struct api_reply *reply = &call->reply;

	if (worker_cache_rescue(call))
		return;
	if (reply->status == 200 && reply->cacheable == API_CACHEABLE_BOOK &&
	    api_call_is_not_modified(&call->api, &reply->version))
		api_reply_not_modified(reply);
	worker_conn_answer(call->conn, reply);
}

static void
call_done(struct worker_db_query *query, enum api_db_outcome outcome,
    const char *sqlstate)
{
	struct worker_call *call = call_of(query);
	struct worker_conn *conn = call->conn;

	call->query_open = false;
	call->db_us += query->db_us;
	worker_stats_request_goes_on(call);
	if (conn == NULL && !call->cache.is_load) {
		worker_cache_write_end(call, outcome);
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
	if (call->verdict != API_DONE) {
		worker_call_start(call);
		return;
	}
	worker_cache_write_end(call, outcome);
	worker_load_end(call, outcome, sqlstate);
	if (conn == NULL) {
		call_release(call);
		return;
	}
	call_answer(call);
	worker_conn_continue(conn);
}

static void
call_submit(struct worker_call *call)
{
	const struct api_statement *statement = api_call_statement(&call->api);

	if (!call->logged)
		worker_call_keep_log(call);
	call->query = (struct worker_db_query){
	    .statement = statement,
	    .is_write = api_sql_text(statement->id)->is_write,
	    .is_stream = call->verdict == API_NEED_STREAM,
	    .row = call_row,
	    .again = call_again,
	    .done = call_done,
	};
	call->query_open = true;
	worker_db_submit(call->loop->db, &call->query);
}

/* No more writes than the cache can mark. */
static void
call_refuse_write(struct worker_call *call)
{
	api_problem(503, "Too many writes are under way.",
	    api_call_wants_problem(&call->api), &call->text, &call->reply);
	call->reply.retry_after_s = 1;
	call->verdict = API_DONE;
	worker_conn_answer(call->conn, &call->reply);
}

void
worker_call_start(struct worker_call *call)
{
	switch (call->verdict) {
	case API_DONE:
		worker_conn_answer(call->conn, &call->reply);
		return;
	case API_NEED_DB:
		if (api_sql_text(api_call_statement(&call->api)->id)
			->is_write &&
		    !worker_cache_write_begin(call)) {
			call_refuse_write(call);
			return;
		}
		call_submit(call);
		return;
	case API_NEED_STREAM:
		call_submit(call);
		return;
	case API_NEED_BODY:
		break;
	}
	SHM_ASSERT(call->verdict != API_NEED_BODY);
}

void
worker_call_go_on(struct worker_call *call)
{
	if (!worker_cache_ask(call))
		worker_call_start(call);
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
	worker_wait_remove(left);
	if (left->query_open && !worker_load_goes_on(left)) {
		left->cache.is_load = false;
		worker_db_cancel(left->loop->db, &left->query);
	}
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
