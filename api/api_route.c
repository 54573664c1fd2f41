/*
 * Paths to routes.
 *
 * Paths are compared as they were sent: no dot segments are removed, no
 * doubled slashes joined, no escapes decoded before the comparison.  Whatever
 * stands in front of this server and decides by path then sees the same path,
 * and there is no second spelling of a route to slip past it.  Two things are
 * looser, both because the service that this one replaces had them: one slash
 * at the end of a book's or the books' path, and escapes inside {isbn}, which
 * are decoded once.  %2F is data there: the segment was cut out before.
 *
 * The table is short and the paths of most requests are told apart by their
 * first bytes, so there is nothing to hash.
 */
#include "config.h"

#include "api/api_route.h"

#define BIT(name)   API_ROUTE_BIT(API_##name)
#define BOOKS_BYTES (sizeof("/books") - 1)

const struct api_route api_route_table[API_ROUTE_COUNT] = {
    [API_ROUTE_ROOT] = {API_ROUTE_ROOT, "/", "GET, HEAD, OPTIONS",
	BIT(GET) | BIT(HEAD) | BIT(OPTIONS)},
    [API_ROUTE_BOOKS] = {API_ROUTE_BOOKS, "/books", "GET, HEAD, POST, OPTIONS",
	BIT(GET) | BIT(HEAD) | BIT(POST) | BIT(OPTIONS)},
    [API_ROUTE_BOOK] = {API_ROUTE_BOOK, "/books/{isbn}",
	"GET, HEAD, PUT, DELETE, OPTIONS",
	BIT(GET) | BIT(HEAD) | BIT(PUT) | BIT(DELETE) | BIT(OPTIONS)},
    [API_ROUTE_LIVEZ] = {API_ROUTE_LIVEZ, "/livez", "GET, HEAD, OPTIONS",
	BIT(GET) | BIT(HEAD) | BIT(OPTIONS)},
    [API_ROUTE_READYZ] = {API_ROUTE_READYZ, "/readyz", "GET, HEAD, OPTIONS",
	BIT(GET) | BIT(HEAD) | BIT(OPTIONS)},
    [API_ROUTE_HEALTH] = {API_ROUTE_HEALTH, "/health", "GET, HEAD, OPTIONS",
	BIT(GET) | BIT(HEAD) | BIT(OPTIONS)},
    [API_ROUTE_ACTUATOR_HEALTH] = {API_ROUTE_ACTUATOR_HEALTH,
	"/actuator/health", "GET, HEAD, OPTIONS",
	BIT(GET) | BIT(HEAD) | BIT(OPTIONS)},
    [API_ROUTE_ASTERISK] = {API_ROUTE_ASTERISK, "*",
	"GET, HEAD, POST, PUT, DELETE, OPTIONS", BIT(OPTIONS)},
};

_Static_assert(API_METHOD_OTHER < 8, "methods has a bit for each");

/* What follows "/books": nothing, "/", "/{isbn}" or "/{isbn}/". */
static const struct api_route *
match_books(struct api_slice rest, struct api_slice *segment)
{
	const char *slash;

	if (rest.len == 0)
		return &api_route_table[API_ROUTE_BOOKS];
	if (rest.data[0] != '/')
		return NULL; /* "/bookshelf" */
	if (rest.len == 1)
		return &api_route_table[API_ROUTE_BOOKS];
	rest.data++;
	rest.len--;
	slash = memchr(rest.data, '/', rest.len);
	if (slash == rest.data ||
	    (slash != NULL && slash + 1 != rest.data + rest.len))
		return NULL; /* an empty segment, or one too many */
	segment->data = rest.data;
	segment->len = slash != NULL ? (size_t)(slash - rest.data) : rest.len;
	return &api_route_table[API_ROUTE_BOOK];
}

const struct api_route *
api_route_match(struct api_slice path, struct api_slice *segment)
{
	if (path.len == 1 && path.data[0] == '/')
		return &api_route_table[API_ROUTE_ROOT];
	if (path.len >= BOOKS_BYTES &&
	    memcmp(path.data, "/books", BOOKS_BYTES) == 0) {
		path.data += BOOKS_BYTES;
		path.len -= BOOKS_BYTES;
		return match_books(path, segment);
	}
	for (int i = API_ROUTE_LIVEZ; i < API_ROUTE_ASTERISK; i++)
		if (api_slice_is(path, api_route_table[i].path))
			return &api_route_table[i];
	return NULL;
}

bool
api_route_has(const struct api_route *route, enum api_method method)
{
	return (route->methods & API_ROUTE_BIT(method)) != 0;
}

static int
hex_value(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	if (digit >= 'a' && digit <= 'f')
		return digit - 'a' + 10;
	if (digit >= 'A' && digit <= 'F')
		return digit - 'A' + 10;
	return -1;
}

/* The byte that an escape at text[0..len) stands for, or -1. */
static int
escape_value(const char *text, size_t len)
{
	int high, low;

	if (len < 3)
		return -1;
	high = hex_value(text[1]);
	low = hex_value(text[2]);
	return high == -1 || low == -1 ? -1 : high * 16 + low;
}

/* Copy what stands for itself, and for one code point each; how many bytes. */
static size_t
copy_plain(struct api_slice segment, char *out)
{
	size_t len = 0;

	while (len < segment.len && (signed char)segment.data[len] > 0 &&
	       segment.data[len] != '%') {
		out[len] = segment.data[len];
		len++;
	}
	return len;
}

bool
api_route_decode(
    struct api_slice segment, char *out, size_t *len, size_t *points)
{
	size_t plain = copy_plain(segment, out);
	struct api_slice decoded = {out, plain};

	if (plain == segment.len) { /* as most are */
		*len = *points = plain;
		return true;
	}
	for (size_t i = plain; i < segment.len; i++) {
		int byte = (uint8_t)segment.data[i];

		if (byte == '%') {
			byte = escape_value(segment.data + i, segment.len - i);
			i += 2;
		}
		if (byte <= 0)
			return false; /* a bad escape, or a NUL */
		out[decoded.len++] = (char)byte;
	}
	if (!api_utf8_is_valid(decoded, points))
		return false;
	*len = decoded.len;
	return true;
}
