/*
 * The small grammar below HTTP's messages: byte classes, words, lists, hosts.
 * Pure functions for the parsers of this room.
 */
#ifndef WORKER_HTTP_TEXT_H
#define WORKER_HTTP_TEXT_H

#include "api/api_slice.h"

/* Classes of bytes, combined by '|'. */
enum {
	HTTP_TOKEN = 1 << 0, /* RFC 9110 tchar */
	HTTP_PATH = 1 << 1,  /* in a target before '?' */
	HTTP_QUERY = 1 << 2, /* in a target after '?', and '?' itself */
	HTTP_REG = 1 << 3,   /* in a host name (but for '%' and two digits) */
	HTTP_DIGIT = 1 << 4,
	HTTP_HEX = 1 << 5,
};

extern const uint8_t worker_http_class[256];

static inline bool
worker_http_is(char byte, unsigned classes)
{
	return (worker_http_class[(uint8_t)byte] & classes) != 0;
}

static inline bool
worker_http_is_blank(char byte)
{
	return byte == ' ' || byte == '\t';
}

/* Is text that word in any case?  word is in lower case. */
static inline bool
worker_http_is_word(struct api_slice text, const char *word, size_t len)
{
	if (text.len != len)
		return false;
	for (size_t i = 0; i < len; i++) {
		char byte = text.data[i];

		if (byte >= 'A' && byte <= 'Z')
			byte |= 0x20;
		if (byte != word[i])
			return false;
	}
	return true;
}

#define WORKER_HTTP_IS_WORD(text, literal) \
	worker_http_is_word(text, literal, sizeof(literal) - 1)

/*
 * Take the next element of a comma-separated list, without the blanks around
 * it and possibly empty.  False when the list is used up; an empty list has
 * one empty element.
 */
bool worker_http_list_next(
    struct api_slice *list, struct api_slice *element) SHM_MUSTCHECK;

/* Is text host [ ":" port ] (RFC 3986 section 3.2.2)?  The host may not be
 * empty; the port may be missing or empty unless it is needed. */
bool worker_http_is_host(struct api_slice text, bool needs_port) SHM_MUSTCHECK;

#endif
