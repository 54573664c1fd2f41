/*
 * The route table: which paths there are and which methods each serves.  The
 * dispatcher, metrics, gateways and tests read this one table.
 */
#ifndef API_ROUTE_H
#define API_ROUTE_H

#include "api/api.h"

enum api_route_id {
	API_ROUTE_ROOT = 0,
	API_ROUTE_BOOKS,
	API_ROUTE_BOOK,
	API_ROUTE_LIVEZ,
	API_ROUTE_READYZ,
	API_ROUTE_HEALTH,
	API_ROUTE_ACTUATOR_HEALTH,
	API_ROUTE_ASTERISK, /* OPTIONS *: the server itself, not a path */
	API_ROUTE_COUNT,
};

struct api_route {
	enum api_route_id id;
	const char *path;  /* the template: "/books/{isbn}" */
	const char *allow; /* Allow's value, the words for methods */
	uint8_t methods;   /* bits of API_ROUTE_BIT() */
};

#define API_ROUTE_BIT(method) (1u << (method))

/* In the order of enum api_route_id. */
extern const struct api_route api_route_table[API_ROUTE_COUNT];

/*
 * The route of a path as sent (percent-encoded, no query), or NULL.  For
 * /books/{isbn} *segment is the encoded ISBN, borrowed from path, not empty.
 */
const struct api_route *
api_route_match(struct api_slice path, struct api_slice *segment) SHM_MUSTCHECK;

bool api_route_has(const struct api_route *route, enum api_method method);

/*
 * Percent-decode a segment, once, into out, which has room for segment.len
 * bytes.  False when an escape is malformed, or a NUL or something that is
 * not UTF-8 comes out; else *len bytes and *points code points were written.
 */
bool api_route_decode(struct api_slice segment, char *out, size_t *len,
    size_t *points) SHM_MUSTCHECK;

#endif
