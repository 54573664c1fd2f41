/*
 * Byte classes, lists and hosts.
 *
 * One table of 256 bytes answers every question about a single byte.  It is
 * narrower than a locale and never changes: RFC 9110 tokens, what RFC 3986
 * lets stand in a target, in a host name.  Bytes from 0x80 on belong to no
 * class; only field values may hold them, and those are not looked up here.
 */
#include "config.h"

#include "worker/worker_http_text.h"

#define PORT_MAX 65535

/* Rows of the table below, one letter a combination. */
/* clang-format off */
#define o 0
#define t (HTTP_TOKEN)
#define q (HTTP_QUERY)
#define p (HTTP_PATH | HTTP_QUERY)
#define r (HTTP_PATH | HTTP_QUERY | HTTP_REG)
#define m (HTTP_PATH | HTTP_QUERY | HTTP_TOKEN)
#define a (HTTP_PATH | HTTP_QUERY | HTTP_TOKEN | HTTP_REG)
#define x (a | HTTP_HEX)
#define d (x | HTTP_DIGIT)

const uint8_t worker_http_class[256] = {
	o, o, o, o, o, o, o, o, o, o, o, o, o, o, o, o, /* 0x00 */
	o, o, o, o, o, o, o, o, o, o, o, o, o, o, o, o, /* 0x10 */
	o, a, o, t, a, m, a, a, r, r, a, a, p, a, a, p, /*  !"#$%&'()*+,-./ */
	d, d, d, d, d, d, d, d, d, d, p, r, o, r, o, q, /* 0123456789:;<=>? */
	p, x, x, x, x, x, x, a, a, a, a, a, a, a, a, a, /* @ABCDEFGHIJKLMNO */
	a, a, a, a, a, a, a, a, a, a, a, p, o, p, t, a, /* PQRSTUVWXYZ[\]^_ */
	t, x, x, x, x, x, x, a, a, a, a, a, a, a, a, a, /* `abcdefghijklmno */
	a, a, a, a, a, a, a, a, a, a, a, o, t, o, a, o, /* pqrstuvwxyz{|}~ */
};

#undef o
#undef t
#undef q
#undef p
#undef r
#undef m
#undef a
#undef x
#undef d
/* clang-format on */

/*
 * The end of a host name or address at at, or NULL.  Narrower than the RFC by
 * the comma: "a,b" is what two merged Host fields look like.
 */
static const char *
host_name_end(const char *at, const char *end)
{
	const char *begin = at;

	if (at < end && *at == '[') {
		for (at++; at < end; at++)
			if (!worker_http_is(*at, HTTP_HEX) && *at != ':' &&
			    *at != '.')
				break;
		return at < end && *at == ']' && at - begin > 2 ? at + 1 : NULL;
	}
	while (at < end) {
		if (worker_http_is(*at, HTTP_REG))
			at++;
		else if (*at == '%' && end - at > 2 &&
			 worker_http_is(at[1], HTTP_HEX) &&
			 worker_http_is(at[2], HTTP_HEX))
			at += 3;
		else
			break;
	}
	return at > begin ? at : NULL;
}

/* ---- public */

bool
worker_http_list_next(struct api_slice *list, struct api_slice *element)
{
	const char *at = list->data, *end, *comma;

	if (at == NULL)
		return false;
	end = at + list->len;
	comma = memchr(at, ',', list->len);
	*list = comma != NULL
		    ? (struct api_slice){comma + 1, (size_t)(end - comma - 1)}
		    : (struct api_slice){NULL, 0};
	if (comma != NULL)
		end = comma;
	while (at < end && worker_http_is_blank(*at))
		at++;
	while (at < end && worker_http_is_blank(end[-1]))
		end--;
	*element = (struct api_slice){at, (size_t)(end - at)};
	return true;
}

bool
worker_http_is_host(struct api_slice text, bool needs_port)
{
	const char *end = text.data + text.len;
	const char *at = host_name_end(text.data, end);
	uint32_t port = 0;

	if (at == NULL)
		return false;
	if (at == end)
		return !needs_port;
	if (*at++ != ':' || (needs_port && at == end))
		return false;
	for (; at < end; at++) {
		if (!worker_http_is(*at, HTTP_DIGIT))
			return false;
		port = port * 10 + (uint32_t)(*at - '0');
		if (port > PORT_MAX)
			return false;
	}
	return true;
}
