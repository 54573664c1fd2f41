/*
 * The size of a call, so that the worker can keep calls in arrays of its own.
 * All fields are private to api/.
 */
#ifndef API_CALL_H
#define API_CALL_H

#include "api/api.h"

#define API_ISBN_CHARS_MAX 255 /* longer: not found without a query */
#define API_ISBN_BYTES_MAX (API_ISBN_CHARS_MAX * 4)

#define API_ETAGS_MAX 16 /* of our shape in one request; more are ignored */

struct api_route;

/* What the request's If-None-Match or If-Modified-Since asks for. */
enum api_condition_kind {
	API_CONDITION_NONE = 0,
	API_CONDITION_ANY,   /* "*" */
	API_CONDITION_ETAGS, /* value[0..count), maybe none that can match */
	API_CONDITION_SINCE, /* value[0], Unix time */
};

struct api_condition {
	uint8_t kind; /* the other fields mean nothing without one */
	uint8_t count;
	uint64_t value[API_ETAGS_MAX];
};

struct api_call {
	const struct api *api;
	const struct api_route *route; /* NULL: none matched */
	enum api_method method;
	enum api_cacheable cacheable; /* what the answer may become */
	bool as_problem_json;
	bool has_row;
	uint8_t tries; /* statements run for one PUT */
	uint32_t rows_count;
	struct api_version version; /* of the row */
	struct api_statement statement;
	struct json_t *document; /* owned; parameters point into it */
	size_t row_start;	 /* where the row's text begins in the buf */
	char price[32];		 /* the price as parameter text */
	struct api_condition condition;
	/*
	 * The kind of the key and the ISBN of the path, decoded, with a NUL:
	 * together they are the book's key in the cache.  An ISBN that is too
	 * long to be anybody's is empty here.
	 */
	uint16_t isbn_len;
	char key[1 + API_ISBN_BYTES_MAX + 1];
};

#define API_KEY_BOOK 'b'
#define API_KEY_LIST 'l'

static inline const char *
api_call_isbn(const struct api_call *call)
{
	return call->key + 1;
}

/* The ISBN in the body of a POST or PUT that has a statement, else NULL. */
static inline const char *
api_call_body_isbn(const struct api_call *call)
{
	if (call->method == API_DELETE)
		return NULL;
	return call->statement.params[call->method == API_PUT ? 1 : 0];
}

#endif
