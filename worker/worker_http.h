/*
 * The head of an HTTP/1.1 request (RFC 9112), strictly.
 *
 * Usage:
 *	switch (worker_http_parse(&head, buf, len, &limits)) {
 *	case WORKER_HTTP_OK:	 head.* point into buf; head.bytes are consumed
 *	case WORKER_HTTP_MORE:	 read more, call again from the start of buf
 *	case WORKER_HTTP_REJECT: answer head.status, close, interpret nothing
 *	}
 * Pure functions: no state but *head, no I/O, no allocation.
 */
#ifndef WORKER_HTTP_H
#define WORKER_HTTP_H

#include "api/api.h"

#define WORKER_HTTP_FIELDS_MAX 100 /* hard bound of headers_count_max */

struct worker_http_limits {
	uint32_t request_line_bytes_max; /* with its CRLF; longer: 414 */
	uint32_t header_bytes_max;  /* field lines and the empty line: 431 */
	uint32_t headers_count_max; /* more: 431 */
	uint64_t body_bytes_max;    /* longer Content-Length: 413 */
};

struct worker_http_field {
	struct api_slice name;	/* as sent */
	struct api_slice value; /* without the white space around it */
};

/* How the body is framed (RFC 9112 section 6.3). */
enum worker_http_framing {
	WORKER_HTTP_NO_BODY = 0,
	WORKER_HTTP_LENGTH,
	WORKER_HTTP_CHUNKED,
};

struct worker_http_head {
	/* valid after WORKER_HTTP_OK; slices borrow from the input */
	enum api_method method;
	uint8_t minor; /* HTTP/1.minor: 0 or 1 */
	bool keep_alive;
	bool expect_continue; /* in 1.1, and a body follows */
	bool asterisk;	      /* OPTIONS * */
	enum worker_http_framing framing;
	uint64_t content_length; /* with WORKER_HTTP_LENGTH; > 0 */
	struct api_slice method_text;
	struct api_slice target; /* as sent, any form */
	struct api_slice path;	 /* "/..." percent-encoded, "*" when asterisk;
				  * a static "/" when the target has none */
	struct api_slice query;	 /* after '?', empty when absent */
	struct api_slice host;	 /* data NULL: none, in HTTP/1.0 */
	struct worker_http_field field[WORKER_HTTP_FIELDS_MAX];
	uint32_t fields_count;
	uint32_t bytes; /* the head's length with its empty line */

	/* valid after WORKER_HTTP_REJECT; so are method and method_text when
	 * method_text.len > 0, because HEAD has no body even then */
	uint16_t status;
	const char *detail; /* one sentence, static, without client bytes */
};

enum worker_http_result {
	WORKER_HTTP_OK = 0,
	WORKER_HTTP_MORE,
	WORKER_HTTP_REJECT,
};

/*
 * Parse the request head at the start of buf.  Empty lines before the request
 * line are skipped as RFC 9112 section 2.2 asks (at most one CRLF) and count
 * in head->bytes.  A prefix of a valid head always gives MORE, and a head that
 * breaks the syntax gives REJECT as soon as the wrong byte (of a field that is
 * looked into: its line) is there, whatever follows.  413, 417 and 501 for a
 * transfer coding wait for the end of the head, where a 400 goes before them.
 */
enum worker_http_result
worker_http_parse(struct worker_http_head *head, const char *buf, size_t len,
    const struct worker_http_limits *limits) SHM_MUSTCHECK;

/* The first field of that name (lower case given), or NULL. */
const struct worker_http_field *
worker_http_field(const struct worker_http_head *head, const char *name_lower);

/*
 * The values of all fields of that name joined by ", ": the only value itself
 * without a copy, else joined in scratch (too small: truncated at a value).
 * data == NULL when there is none.
 */
struct api_slice worker_http_values(const struct worker_http_head *head,
    const char *name_lower, char *scratch, size_t scratch_bytes);

#endif
