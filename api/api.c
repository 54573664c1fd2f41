/*
 * A call from its first byte to its answer.
 *
 * Checks come in this order, each with its own answer: is there such a path
 * (404) and can it be decoded (400), does it serve the method (405), can the
 * client take what it would get (406), can we read what it sends (415).  Only
 * then is a body asked for, parsed (400) and checked (400), and only then is
 * the database asked.
 *
 *	api_begin --> DONE
 *	    |-------> NEED_BODY --> api_body --> DONE
 *	    |                           |
 *	    |-------> NEED_DB <---------'   <-- again: a write lost a race
 *	    |            '--> api_row (0 or 1) --> api_db --> DONE
 *	    '-------> NEED_STREAM --> api_stream_*, or api_db on an error
 *
 *	I1  A call that waits holds no pointer into the request: the ISBN of
 *	    the path was copied, texts of the body live in the document.
 *	I2  The document lives until the answer is written, because the answer
 *	    may name its ISBN, and no longer.
 *	I3  The call's ISBN is empty exactly when the path's is longer than any
 *	    that can be stored, for an empty segment is no book's path.  Such a
 *	    book is known not to exist without asking.
 *	I4  call->cacheable is set, and conditions are read, only for reads
 *	    that passed all checks: whatever else is answered, an error above
 *	    all, is no business of the cache and of preconditions (RFC 9110
 *	    section 13.2.1).
 */
#include "config.h"

#include <jansson.h>

#include "api/api.h"
#include "api/api_book.h"
#include "api/api_call.h"
#include "api/api_condition.h"
#include "api/api_done.h"
#include "api/api_health.h"
#include "api/api_media.h"
#include "api/api_number.h"
#include "api/api_route.h"

_Static_assert(sizeof(((struct api_call *)0)->price) >= API_NUMBER_BYTES_MAX,
    "room for any price");

/* 200 with Allow and nothing else. */
static enum api_verdict
done_options(struct api_call *call, struct api_reply *reply)
{
	*reply = (struct api_reply){
	    .status = 200,
	    .allow = call->route->allow,
	};
	return API_DONE;
}

/* Begin the statement; parameters follow by add_param(). */
static void
set_statement(struct api_call *call, enum api_sql id)
{
	call->statement.id = id;
	call->statement.params_count = 0;
}

static void
add_param(struct api_call *call, const char *text)
{
	SHM_ASSERT(call->statement.params_count < API_PARAMS_MAX);
	call->statement.params[call->statement.params_count++] = text;
}

/*
 * Decode the path's ISBN into the call, or leave it empty when it is too long
 * (I3).  False when it cannot be decoded, or there is no memory (buf->failed).
 */
static bool
decode_isbn(
    struct api_call *call, struct api_slice segment, struct api_buf *buf)
{
	char *const isbn = call->key + 1;
	char *out = isbn;
	size_t len, points;

	if (segment.len > API_ISBN_BYTES_MAX) {
		out = api_buf_reserve(buf, segment.len); /* scratch */
		if (out == NULL)
			return false;
	}
	if (!api_route_decode(segment, out, &len, &points))
		return false;
	if (points > API_ISBN_CHARS_MAX)
		len = 0;
	else if (out != isbn)
		memcpy(isbn, out, len);
	isbn[len] = '\0';
	call->isbn_len = (uint16_t)len;
	return true;
}

/*
 * The 404 for an ISBN that is too long for the call: it is decoded into buf
 * once more, and everything that follows it there is reserved together with
 * it, so that it does not move while it is being quoted.
 */
static enum api_verdict
done_too_long(struct api_call *call, struct api_slice segment,
    struct api_buf *buf, struct api_reply *reply)
{
	const size_t sentence_bytes = 512;
	struct api_slice isbn = {NULL, 0};
	size_t points;
	char *out;

	out = api_buf_reserve(
	    buf, segment.len * (1 + API_JSON_GROWTH) + sentence_bytes);
	if (out != NULL && api_route_decode(segment, out, &isbn.len, &points))
		isbn.data = out;
	buf->len += isbn.len;
	return api_done_not_found(call, isbn, buf, reply);
}

/* POST and PUT: is what will be sent something that we read? */
static enum api_verdict
begin_write(struct api_call *call, const struct api_request *request,
    struct api_buf *buf, struct api_reply *reply)
{
	if (!api_media_is_json(request->content_type))
		return api_done_problem(call, 415,
		    "The Content-Type must be application/json in UTF-8.", buf,
		    reply);
	if (!api_media_is_identity(request->content_encoding))
		return api_done_problem(call, 415,
		    "The body must be sent without a Content-Encoding.", buf,
		    reply);
	return API_NEED_BODY;
}

/* A read that can be answered from the cache (I4). */
static void
begin_read(struct api_call *call, const struct api_request *request,
    enum api_cacheable cacheable, char key)
{
	call->cacheable = cacheable;
	call->key[0] = key;
	api_condition_read(&call->condition, request);
}

static enum api_verdict
begin_books(struct api_call *call, const struct api_request *request,
    struct api_buf *buf, struct api_reply *reply)
{
	if (call->method == API_POST)
		return begin_write(call, request, buf, reply);
	begin_read(call, request, API_CACHEABLE_LIST, API_KEY_LIST);
	if (call->method == API_HEAD) {
		*reply = (struct api_reply){
		    .status = 200,
		    .content_type = API_TYPE_JSON,
		    .is_stream_head = true,
		    .cacheable = API_CACHEABLE_LIST,
		};
		return API_DONE;
	}
	set_statement(call, API_SQL_BOOKS_LIST);
	return API_NEED_STREAM;
}

static enum api_verdict
begin_book(struct api_call *call, const struct api_request *request,
    struct api_slice segment, struct api_buf *buf, struct api_reply *reply)
{
	bool is_delete = call->method == API_DELETE;

	if (call->method == API_PUT)
		return begin_write(call, request, buf, reply);
	if (call->isbn_len == 0)
		return is_delete ? api_done_no_content(reply)
				 : done_too_long(call, segment, buf, reply);
	if (!is_delete)
		begin_read(call, request, API_CACHEABLE_BOOK, API_KEY_BOOK);
	set_statement(call, is_delete ? API_SQL_BOOK_DELETE : API_SQL_BOOK_GET);
	add_param(call, api_call_isbn(call));
	return API_NEED_DB;
}

/* The path exists and serves the method. */
static enum api_verdict
begin_route(struct api_call *call, const struct api_request *request,
    struct api_slice segment, struct api_buf *buf, struct api_reply *reply)
{
	switch (call->route->id) {
	case API_ROUTE_BOOKS:
		return begin_books(call, request, buf, reply);
	case API_ROUTE_BOOK:
		return begin_book(call, request, segment, buf, reply);
	case API_ROUTE_LIVEZ:
		api_health_livez(reply);
		return API_DONE;
	case API_ROUTE_READYZ:
		api_health_readyz(call->api, request->query,
		    call->as_problem_json, buf, reply);
		return API_DONE;
	case API_ROUTE_HEALTH:
	case API_ROUTE_ACTUATOR_HEALTH:
		api_health_actuator(call->api, reply);
		return API_DONE;
	case API_ROUTE_ROOT:
	case API_ROUTE_ASTERISK:
	case API_ROUTE_COUNT:
		break; /* answered before */
	}
	SHM_ASSERT(false);
	return API_DONE;
}

/* Whatever is not the greeting. */
static enum api_verdict
begin_checked(struct api_call *call, const struct api_request *request,
    struct api_slice segment, struct api_buf *buf, struct api_reply *reply)
{
	struct api_media_accept accept = api_media_accept(request->accept);
	const struct api_route *route = call->route;

	call->as_problem_json = accept.problem;
	if (route == NULL)
		return api_done_problem(
		    call, 404, "There is nothing at this path.", buf, reply);
	if (route->id == API_ROUTE_BOOK && !decode_isbn(call, segment, buf))
		return api_done_problem(call, 400,
		    "The path must be percent-encoded UTF-8 without NUL.", buf,
		    reply);
	if (call->method == API_OPTIONS)
		return done_options(call, reply);
	if (!api_route_has(route, call->method)) {
		(void)api_done_problem(call, 405,
		    "The method is not allowed at this path.", buf, reply);
		reply->allow = route->allow;
		return API_DONE;
	}
	if ((route->id == API_ROUTE_BOOKS || route->id == API_ROUTE_BOOK) &&
	    call->method != API_DELETE && !accept.json)
		return api_done_problem(call, 406,
		    "Books are application/json, which Accept excludes.", buf,
		    reply);
	return begin_route(call, request, segment, buf, reply);
}

enum api_verdict
api_begin(struct api_call *call, const struct api *api,
    const struct api_request *request, struct api_buf *buf,
    struct api_reply *reply)
{
	struct api_slice segment = {NULL, 0};

	call->api = api;
	call->method = request->method;
	call->cacheable = API_CACHEABLE_NOT;
	call->as_problem_json = false;
	call->has_row = false;
	call->tries = 0;
	call->rows_count = 0;
	call->statement.params_count = 0;
	call->document = NULL;
	call->row_start = 0;
	call->condition.kind = API_CONDITION_NONE;
	call->isbn_len = 0;
	call->key[1] = '\0';
	if (request->asterisk && request->method == API_OPTIONS)
		call->route = &api_route_table[API_ROUTE_ASTERISK];
	else
		call->route = api_route_match(request->path, &segment);
	if (call->route == &api_route_table[API_ROUTE_ROOT] &&
	    (call->method == API_GET || call->method == API_HEAD)) {
		*reply = (struct api_reply){
		    .status = 200,
		    .content_type = API_TYPE_TEXT,
		    .body = api->greeting,
		};
		return API_DONE;
	}
	return begin_checked(call, request, segment, buf, reply);
}

/* 400 for a book that breaks rules: the flat object of the original service,
 * or the same inside a problem. */
static void
reply_invalid(struct api_call *call, const struct api_book_errors *errors,
    struct api_buf *buf, struct api_reply *reply)
{
	const struct api_detail detail = {.before = "The book is not valid."};
	size_t start = buf->len;

	if (call->as_problem_json) {
		api_problem_open(400, &detail, buf);
		api_buf_text(buf, ",\"errors\":");
		api_book_write_errors(errors, buf);
		api_buf_text(buf, "}");
		api_reply_written(400, API_TYPE_PROBLEM, start, buf, reply);
		return;
	}
	api_book_write_errors(errors, buf);
	api_reply_written(400, API_TYPE_JSON, start, buf, reply);
}

/* The parameters of POST are those of PUT but the first. */
static void
set_write_statement(struct api_call *call, const struct api_book *book)
{
	api_number_print(book->price, call->price);
	if (call->method == API_POST) {
		set_statement(call, API_SQL_BOOK_POST);
	} else {
		set_statement(call, API_SQL_BOOK_PUT);
		/* NULL equals no ISBN, which is right for one too long. */
		add_param(
		    call, call->isbn_len > 0 ? api_call_isbn(call) : NULL);
	}
	add_param(call, book->isbn);
	add_param(call, book->title);
	add_param(call, book->author);
	add_param(call, call->price);
	add_param(call, book->publisher);
}

enum api_verdict
api_body(struct api_call *call, struct api_slice body, struct api_buf *buf,
    struct api_reply *reply)
{
	char defect[API_BOOK_DEFECT_MAX];
	struct api_book_errors errors;
	struct api_book book;

	SHM_ASSERT(call->method == API_POST || call->method == API_PUT);
	SHM_ASSERT(call->document == NULL);
	call->document = api_book_parse(body, defect);
	if (call->document == NULL)
		return api_done_problem(call, 400, defect, buf, reply);
	if (!api_book_check(call->document, &book, &errors)) {
		reply_invalid(call, &errors, buf, reply);
		api_call_end(call);
		return API_DONE;
	}
	set_write_statement(call, &book);
	return API_NEED_DB;
}

const struct api_statement *
api_call_statement(const struct api_call *call)
{
	return &call->statement;
}

void
api_call_end(struct api_call *call)
{
	json_decref(call->document);
	call->document = NULL;
	call->statement.params_count = 0;
}

bool
api_call_wants_problem(const struct api_call *call)
{
	return call->as_problem_json;
}

const char *
api_call_route(const struct api_call *call)
{
	return call->route != NULL ? call->route->path : "none";
}

const char *
api_method_name(enum api_method method)
{
	static const char *const names[API_METHODS] = {
	    [API_GET] = "GET",
	    [API_HEAD] = "HEAD",
	    [API_POST] = "POST",
	    [API_PUT] = "PUT",
	    [API_DELETE] = "DELETE",
	    [API_OPTIONS] = "OPTIONS",
	};

	return method < API_METHODS ? names[method] : "OTHER";
}
