/*
 * The catalogue's HTTP interface without any I/O.
 *
 *	api_begin()  the head of a request has been read
 *	api_body()   its whole body has been read
 *	api_row()    a row of the statement arrived
 *	api_db()     the statement ended
 *
 * Each returns what the caller has to do next; between two of them the call
 * sits in the worker's memory and holds no pointer into the request.  A call
 * answers exactly once: API_DONE, or API_STREAM followed by rows.
 */
#ifndef API_H
#define API_H

#include "api/api_slice.h"
#include "shm/shm_board.h"
#include "shm/shm_cache.h"

enum api_method {
	API_GET = 0,
	API_HEAD,
	API_POST,
	API_PUT,
	API_DELETE,
	API_OPTIONS,
	API_METHODS,			/* how many we serve */
	API_METHOD_OTHER = API_METHODS, /* known, not served: PATCH, TRACE... */
};

/*
 * Statements, prepared on each connection under their names.  Text and
 * parameter counts are in api_sql.c; results are asked for in binary format.
 */
enum api_sql {
	API_SQL_BOOK_GET = 0,
	API_SQL_BOOK_POST,
	API_SQL_BOOK_PUT,
	API_SQL_BOOK_DELETE,
	API_SQL_BOOKS_LIST, /* streamed */
	API_SQL_COUNT,
};

struct api_sql_text {
	const char *name; /* of the prepared statement */
	const char *sql;
	uint8_t params_count;
	bool is_write;
};

const struct api_sql_text *api_sql_text(enum api_sql id);

#define API_PARAMS_MAX 6

/* A statement to run.  Text parameters; NULL is SQL NULL.  Valid until the
 * call is ended or asks for another one. */
struct api_statement {
	enum api_sql id;
	uint8_t params_count;
	const char *params[API_PARAMS_MAX];
};

/* A row in the columns' order of api_sql.c, binary format, borrowed. */
#define API_BOOK_COLUMNS 11

struct api_cell {
	const char *data; /* NULL: SQL NULL */
	uint32_t len;
};

struct api_row {
	struct api_cell cell[API_BOOK_COLUMNS];
};

/* How a statement ended. */
enum api_db_outcome {
	API_DB_OK = 0,	    /* writes: committed */
	API_DB_UNAVAILABLE, /* never sent, or a read that was lost: 503 */
	API_DB_BUSY,	    /* no connection in time: 503 */
	API_DB_TIMEOUT,	    /* statement_timeout (57014): 503 */
	API_DB_UNKNOWN,	    /* a write was sent, its fate is unknown: 503 */
	API_DB_REFUSED,	    /* an SQL error: see sqlstate */
};

/* The request line and the fields that matter here; all borrowed for the call
 * of api_begin() only. */
struct api_request {
	enum api_method method;
	bool asterisk;		 /* OPTIONS * */
	struct api_slice path;	 /* as sent: percent-encoded, no query */
	struct api_slice query;	 /* after '?', may be empty */
	struct api_slice accept; /* fields joined by ", "; data NULL: absent */
	struct api_slice content_type;
	struct api_slice content_encoding;
	struct api_slice if_none_match; /* fields joined by ", " */
	struct api_slice if_modified_since;
	bool has_body; /* Content-Length > 0 or chunked */
};

/* Which state of which thing an answer shows: what its validators (RFC 9110
 * section 8.8) are made of. */
struct api_version {
	uint64_t id; /* of the row; of a list, api_content_hash() of it */
	uint32_t row_version;
	uint32_t modified_s; /* Last-Modified, Unix time; 0: none */
};

/* How an answer may be kept, if it has a body to keep (the head of a list has
 * none); also: whether it says Cache-Control and Vary. */
enum api_cacheable {
	API_CACHEABLE_NOT = 0,
	API_CACHEABLE_BOOK,	/* 200 */
	API_CACHEABLE_NEGATIVE, /* 404: there is no such book */
	API_CACHEABLE_LIST,	/* 200 */
};

/*
 * An answer.  body is borrowed: static, or inside the api_buf given with the
 * call, so the caller copies it before the next call.  For HEAD the body is
 * there (its length is the Content-Length) and not to be sent.
 */
struct api_reply {
	uint16_t status;
	const char *content_type; /* NULL: no content (204, OPTIONS) */
	struct api_slice body;
	const char *allow;	   /* Allow's value or NULL */
	struct api_slice location; /* Location's value; empty: none.  In buf. */
	uint16_t retry_after_s;	   /* 0: no Retry-After */
	bool is_stream_head; /* HEAD of a list: announce chunked, no length */
	enum api_cacheable cacheable;
	bool has_version; /* say ETag, and Last-Modified unless it is 0 */
	struct api_version version;
};

enum api_verdict {
	API_DONE = 0,	 /* *reply is the answer */
	API_NEED_BODY,	 /* read the body, then api_body() */
	API_NEED_DB,	 /* run *api_call_statement(), rows, then api_db() */
	API_NEED_STREAM, /* the same, row by row while it is being sent */
};

/* What does not change while a worker lives. */
struct api {
	const struct shm_board *board;
	struct api_slice greeting; /* valid UTF-8, borrowed */
	const char *version;
};

struct api_call; /* see api_call.h for its size only */

/*
 * The call begins.  buf is where text is made; *reply is written only with
 * API_DONE.  route_name() works from now on.  After API_DONE the call holds
 * nothing, api_call_end() is still allowed.
 */
enum api_verdict api_begin(struct api_call *call, const struct api *api,
    const struct api_request *request, struct api_buf *buf,
    struct api_reply *reply) SHM_MUSTCHECK;

/* After API_NEED_BODY: API_DONE or API_NEED_DB.  body is borrowed. */
enum api_verdict api_body(struct api_call *call, struct api_slice body,
    struct api_buf *buf, struct api_reply *reply) SHM_MUSTCHECK;

/* The statement to run after API_NEED_DB or API_NEED_STREAM. */
const struct api_statement *api_call_statement(const struct api_call *call);

/* One row of a statement that is not streamed; a read that is sent again may
 * bring it again, and the later one stands. */
void
api_row(struct api_call *call, const struct api_row *row, struct api_buf *buf);

/* That row does not count: the statement is sent once more. */
void api_row_again(struct api_call *call);

/*
 * The statement ended: API_DONE, or API_NEED_DB to run another one (a write
 * that lost a race).  sqlstate has 5 characters, "" when unknown.
 * buf is the one that api_row() wrote to.
 */
enum api_verdict
api_db(struct api_call *call, enum api_db_outcome outcome, const char *sqlstate,
    struct api_buf *buf, struct api_reply *reply) SHM_MUSTCHECK;

/*
 * A streamed list: open writes the first bytes and fills *reply (status 200,
 * content type, no body) when the first row or the end has arrived; row
 * appends one element, close the last bytes.  An error before open is
 * answered by api_db(); after it the connection is cut.
 */
void api_stream_open(
    struct api_call *call, struct api_buf *buf, struct api_reply *reply);
void api_stream_row(
    struct api_call *call, const struct api_row *row, struct api_buf *buf);
void api_stream_close(struct api_call *call, struct api_buf *buf);

/* Frees what the call holds (a parsed document).  Any number of times. */
void api_call_end(struct api_call *call);

/* ---- the cache's questions */

/*
 * What the answer to a GET or HEAD is kept under: "b" and the ISBN, or "l" and
 * the canonical query.  False: this request is none of the cache's business
 * (a write, a health check, an ISBN that cannot exist).  *cls is BOOK or LIST.
 * The slice is borrowed from the call until that begins again.  After
 * api_begin() said NEED_DB or NEED_STREAM, or DONE for the HEAD of a list.
 */
bool api_cache_key(const struct api_call *call, struct api_slice *key,
    enum shm_cache_class *cls) SHM_MUSTCHECK;

/* The key of one book, for who knows only its ISBN.  out has room for
 * 1 + isbn.len bytes; returns the length. */
size_t api_cache_book_key(struct api_slice isbn, char *out);

/* The ISBNs (0 to 2) that the write about to be sent may change: borrowed from
 * the call, of POST, PUT and DELETE after API_NEED_DB. */
uint32_t
api_call_touches(const struct api_call *call, struct api_slice isbn[2]);

/* Would the client be told nothing new by an answer of this version: the
 * request's If-None-Match names its ETag, or without that field its
 * If-Modified-Since is not before it (RFC 9110 section 13.2.2)?  For 200
 * answers to GET and HEAD. */
bool api_call_is_not_modified(
    const struct api_call *call, const struct api_version *version);

/* Turn a 200 *reply into 304: no body and no type of one, so say no length
 * either; what is said about validators and keeping stays. */
void api_reply_not_modified(struct api_reply *reply);

/* The 404 that api_db() would give for the call's book, without asking. */
void api_call_not_found(
    struct api_call *call, struct api_buf *buf, struct api_reply *reply);

/* The 503 for a load that failed a moment ago, without asking again. */
void api_call_unavailable(
    struct api_call *call, struct api_buf *buf, struct api_reply *reply);

/* ETag's value with its quotes: the same for a version in every task and after
 * every restart (no seed).  Strong. */
#define API_ETAG_BYTES 18
void api_etag(const struct api_version *version, char out[API_ETAG_BYTES]);

/* A 64-bit hash of a list's bytes, not seeded; continue with the result of the
 * bytes before (0 at first): in whatever pieces, the result is the same. */
uint64_t api_content_hash(uint64_t before, const void *data, size_t len);

/* "Sun, 06 Nov 1994 08:49:37 GMT" (IMF-fixdate), of Unix time; no NUL. */
#define API_DATE_BYTES 29
void api_date(uint64_t unix_s, char out[API_DATE_BYTES]);

/* Did the request's Accept ask for RFC 9457 bodies?  After api_begin(). */
bool api_call_wants_problem(const struct api_call *call);

/* The route's template ("/books/{isbn}") or "none"; static text. */
const char *api_call_route(const struct api_call *call);
const char *api_method_name(enum api_method method);

/*
 * An answer that the HTTP engine gives by itself (a framing error, a limit, a
 * full queue): plain text, or RFC 9457 when the request's Accept asks for it.
 * detail is one sentence without client bytes.
 */
void api_problem(uint16_t status, const char *detail, bool as_problem_json,
    struct api_buf *buf, struct api_reply *reply);

/* The reason phrase of RFC 9110 for a status ("Not Found"). */
const char *api_status_reason(uint16_t status);

#endif
