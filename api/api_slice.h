/*
 * Borrowed text, and a buffer to write text into.
 */
#ifndef API_SLICE_H
#define API_SLICE_H

#include <string.h>

#include "shm/shm_base.h"

/* A view of bytes owned by somebody else; not NUL-terminated. */
struct api_slice {
	const char *data;
	size_t len;
};

#define API_SLICE(literal) ((struct api_slice){(literal), sizeof(literal) - 1})

static inline bool
api_slice_is(struct api_slice slice, const char *text)
{
	/* data may be NULL in an empty slice, which memcmp(3) forbids. */
	return slice.len == strlen(text) &&
	       (slice.len == 0 || memcmp(slice.data, text, slice.len) == 0);
}

/*
 * Bytes that grow.  A worker keeps one and uses it again for each answer, so
 * that answers allocate nothing once it has its size.  When memory runs out,
 * or bytes_max is passed, failed becomes true, later writes do nothing, and
 * whoever asked for the text answers 500: nobody sends a half-written one.
 */
struct api_buf {
	char *data;
	size_t len;
	size_t cap;
	size_t bytes_max; /* 0: API_BUF_BYTES_MAX */
	bool failed;
};

#define API_BUF_BYTES_MAX (4u << 20) /* larger than any answer but a list */

void api_buf_fini(struct api_buf *buf);
void api_buf_clear(struct api_buf *buf);

/* Room for len more bytes; NULL when failed.  Advance buf->len yourself. */
char *api_buf_reserve(struct api_buf *buf, size_t len) SHM_MUSTCHECK;
void api_buf_bytes(struct api_buf *buf, const void *data, size_t len);
void api_buf_text(struct api_buf *buf, const char *text);
void api_buf_u64(struct api_buf *buf, uint64_t value);
void api_buf_i64(struct api_buf *buf, int64_t value);

/* text as the inside of a JSON string (no quotes around it). */
void api_buf_json(struct api_buf *buf, struct api_slice text);

/*
 * The same two without a buffer: write at at, return the end.  The caller has
 * API_I64_BYTES_MAX, or API_JSON_GROWTH times len, bytes there.  What JSON
 * must escape is escaped (RFC 8259), valid UTF-8 passes, each byte that is not
 * part of any becomes U+FFFD.
 */
#define API_I64_BYTES_MAX 20
#define API_JSON_GROWTH	  6 /* \u00XX for one byte */
char *api_put_i64(char *at, int64_t value);
char *api_put_json(char *at, const char *data, size_t len);

/* The bytes of the UTF-8 sequence at data[0..len): 1 to 4, or 0 when there is
 * none (overlong forms and surrogates are none).  len > 0. */
size_t api_utf8_sequence(const char *data, size_t len);

/* Whether text is valid UTF-8; then *points counts its code points. */
bool api_utf8_is_valid(struct api_slice text, size_t *points);

static inline struct api_slice
api_buf_slice(const struct api_buf *buf)
{
	return (struct api_slice){buf->data, buf->len};
}

#endif
