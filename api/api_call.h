/*
 * The size of a call, so that the worker can keep calls in arrays of its own.
 * All fields are private to api/.
 */
#ifndef API_CALL_H
#define API_CALL_H

#include "api/api.h"

#define API_ISBN_CHARS_MAX 255 /* longer: not found without a query */
#define API_ISBN_BYTES_MAX (API_ISBN_CHARS_MAX * 4)

struct api_route;

struct api_call {
	const struct api *api;
	const struct api_route *route; /* NULL: none matched */
	enum api_method method;
	bool as_problem_json;
	bool has_row;
	uint8_t tries; /* statements run for one PUT */
	uint32_t rows_count;
	struct api_statement statement;
	struct json_t *document; /* owned; parameters point into it */
	size_t row_start;	 /* where the row's text begins in the buf */
	char price[32];		 /* the price as parameter text */
	char isbn[API_ISBN_BYTES_MAX + 1]; /* of the path, decoded; empty:
					      too long to be anybody's */
};

#endif
