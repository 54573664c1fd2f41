/*
 * From how the statement ended to what the client is told.
 *
 * A write that lost a race runs again, a few times, and then the client is
 * asked to.  What the database says about its errors is never passed on: it
 * may quote data, and it speaks about the inside.  The client is told what it
 * can do: correct the book (400, 422), come again (503 with Retry-After), or
 * look first, when a write was sent and nobody knows what became of it.
 */
#include "config.h"

#include "api/api.h"
#include "api/api_book.h"
#include "api/api_call.h"
#include "api/api_done.h"

#define TRIES_MAX 5 /* statements for one write; more: 503, Retry-After */

void
api_row(struct api_call *call, const struct api_row *row, struct api_buf *buf)
{
	/* A read that was lost after its row is sent again: the later row
	 * stands, for ISBNs are unique. */
	call->has_row = true;
	call->row_start = buf->len;
	call->version = api_book_version(row);
	api_book_write(row, buf);
}

void
api_row_again(struct api_call *call)
{
	call->has_row = false;
}

/* The answer shows the row, and its place when it is new. */
static void
reply_row(struct api_call *call, struct api_buf *buf, struct api_reply *reply)
{
	size_t row_end = buf->len;

	if (call->method != API_POST) {
		api_reply_written(
		    200, API_TYPE_JSON, call->row_start, buf, reply);
		return;
	}
	api_buf_text(buf, "/books/");
	api_buf_text(buf, api_call_body_isbn(call)); /* digits only */
	api_reply_written(201, API_TYPE_JSON, call->row_start, buf, reply);
	if (reply->status == 201) {
		reply->body.len = row_end - call->row_start;
		reply->location.data = buf->data + row_end;
		reply->location.len = buf->len - row_end;
	}
}

/* The stored book with its validators; what a read showed may be kept.  Those
 * of PUT would say that it was stored as it was sent (RFC 9110, section 9.3.4),
 * but it has got members and dates. */
static enum api_verdict
done_row(struct api_call *call, struct api_buf *buf, struct api_reply *reply)
{
	reply_row(call, buf, reply);
	if (reply->status == 500)
		return API_DONE;
	reply->cacheable = call->cacheable;
	reply->has_version = call->method != API_PUT;
	reply->version = call->version;
	return API_DONE;
}

/* Somebody else's write came in between: run the statement again. */
static enum api_verdict
try_again(struct api_call *call, struct api_buf *buf, struct api_reply *reply)
{
	if (++call->tries < TRIES_MAX)
		return API_NEED_DB;
	return api_done_retry(call, API_RETRY_AFTER_S,
	    "Others kept changing this book; nothing was changed here.", buf,
	    reply);
}

/* The statement did what it does. */
static enum api_verdict
db_ok(struct api_call *call, struct api_buf *buf, struct api_reply *reply)
{
	if (call->method == API_DELETE)
		return api_done_no_content(reply);
	if (call->has_row)
		return done_row(call, buf, reply);
	if (call->method == API_PUT &&
	    strcmp(api_call_isbn(call), api_call_body_isbn(call)) == 0)
		return try_again(call, buf, reply);
	if (call->method == API_PUT || call->method == API_POST)
		return api_done_exists(
		    call, api_call_body_isbn(call), buf, reply);
	return api_done_no_book(call, buf, reply);
}

static bool
state_is(const char *sqlstate, const char *prefix)
{
	return strncmp(sqlstate, prefix, strlen(prefix)) == 0;
}

/*
 * The database refused.  Its message stays here: it may quote data or say
 * more about the inside than a client should know.
 */
static enum api_verdict
db_refused(struct api_call *call, const char *sqlstate, struct api_buf *buf,
    struct api_reply *reply)
{
	bool is_write = call->method == API_POST || call->method == API_PUT;

	if (state_is(sqlstate, "22001"))
		return api_done_problem(call, 400,
		    "A text is longer than the database can store.", buf,
		    reply);
	if (state_is(sqlstate, "22021") || state_is(sqlstate, "22P05"))
		return api_done_problem(call, 400,
		    "A text has characters that the database cannot store.",
		    buf, reply);
	if (is_write && state_is(sqlstate, "23505"))
		return api_done_exists(
		    call, api_call_body_isbn(call), buf, reply);
	if (state_is(sqlstate, "40001") || state_is(sqlstate, "40P01"))
		return try_again(call, buf, reply);
	if (state_is(sqlstate, "57014"))
		return api_done_retry(call, API_RETRY_AFTER_S,
		    "The database did not answer in time.", buf, reply);
	if (state_is(sqlstate, "08") || state_is(sqlstate, "25006") ||
	    state_is(sqlstate, "53") || state_is(sqlstate, "57P0"))
		return api_done_retry(call, API_RETRY_AFTER_AWAY_S,
		    "The database cannot serve at the moment.", buf, reply);
	return api_done_problem(
	    call, 500, "The database refused the statement.", buf, reply);
}

static enum api_verdict
db_ended(struct api_call *call, enum api_db_outcome outcome,
    const char *sqlstate, struct api_buf *buf, struct api_reply *reply)
{
	switch (outcome) {
	case API_DB_OK:
		return db_ok(call, buf, reply);
	case API_DB_UNAVAILABLE:
		return api_done_unavailable(call, buf, reply);
	case API_DB_BUSY:
		return api_done_retry(call, API_RETRY_AFTER_S,
		    "All connections to the database are busy.", buf, reply);
	case API_DB_TIMEOUT:
		return api_done_retry(call, API_RETRY_AFTER_S,
		    "The database did not answer in time.", buf, reply);
	case API_DB_UNKNOWN:
		return api_done_retry(call, API_RETRY_AFTER_AWAY_S,
		    "The database was lost while it wrote: the change may or"
		    " may not have been made. GET the book to find out.",
		    buf, reply);
	case API_DB_REFUSED:
		return db_refused(call, sqlstate, buf, reply);
	}
	SHM_ASSERT(false);
	return API_DONE;
}

enum api_verdict
api_db(struct api_call *call, enum api_db_outcome outcome, const char *sqlstate,
    struct api_buf *buf, struct api_reply *reply)
{
	bool is_stream = call->statement.id == API_SQL_BOOKS_LIST;
	enum api_verdict verdict;

	SHM_ASSERT(outcome != API_DB_OK || !is_stream);
	verdict = db_ended(call, outcome, sqlstate, buf, reply);
	if (verdict == API_NEED_DB)
		call->has_row = false; /* it belonged to what was undone */
	else
		api_call_end(call); /* I2 */
	return verdict;
}

void
api_stream_open(
    struct api_call *call, struct api_buf *buf, struct api_reply *reply)
{
	SHM_ASSERT(call->statement.id == API_SQL_BOOKS_LIST);
	SHM_ASSERT(call->rows_count == 0);
	api_buf_text(buf, "[");
	*reply = (struct api_reply){
	    .status = 200,
	    .content_type = API_TYPE_JSON,
	    .cacheable = API_CACHEABLE_LIST,
	};
}

void
api_stream_row(
    struct api_call *call, const struct api_row *row, struct api_buf *buf)
{
	if (call->rows_count++ > 0)
		api_buf_bytes(buf, ",", 1);
	api_book_write(row, buf);
}

void
api_stream_close(struct api_call *call, struct api_buf *buf)
{
	api_buf_text(buf, "]");
	api_call_end(call);
}
