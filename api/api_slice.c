/*
 * Text made in place: a buffer that grows, JSON's escapes, UTF-8.
 *
 * A worker keeps one buffer for all its answers, so growing is rare and the
 * common case of every writer is a compare and a memcpy.  The failed flag is
 * sticky until api_buf_clear(): a caller writes a whole answer and asks once
 * at the end, instead of after each piece.
 *
 *	I1  len <= cap, and cap never passes bytes_max.
 *	I2  once failed, nothing more is written: text is whole or useless.
 *
 * The escaper looks at eight bytes at a time, because nearly all text in a
 * catalogue is printable ASCII that needs no care.  A byte needs care when it
 * is below 0x20, a quote, a backslash, or starts something beyond ASCII; the
 * last kind is checked, for a database whose encoding is SQL_ASCII hands out
 * whatever was put in and the answer has to stay JSON all the same.
 */
#include "config.h"

#include <stdlib.h>

#include "api/api_slice.h"

#define BUF_BYTES_MIN 1024

#define BYTES_OF(c) (0x0101010101010101ULL * (uint8_t)(c))

static bool
buf_grow(struct api_buf *buf, size_t need)
{
	size_t max = buf->bytes_max != 0 ? buf->bytes_max : API_BUF_BYTES_MAX;
	size_t cap = buf->cap < BUF_BYTES_MIN ? BUF_BYTES_MIN : buf->cap;
	char *data;

	if (need > max)
		return false;
	while (cap < need)
		cap *= 2;
	if (cap > max)
		cap = max;
	data = realloc(buf->data, cap);
	if (data == NULL)
		return false;
	buf->data = data;
	buf->cap = cap;
	return true;
}

void
api_buf_fini(struct api_buf *buf)
{
	free(buf->data);
	*buf = (struct api_buf){.bytes_max = buf->bytes_max};
}

void
api_buf_clear(struct api_buf *buf)
{
	buf->len = 0;
	buf->failed = false;
}

char *
api_buf_reserve(struct api_buf *buf, size_t len)
{
	SHM_ASSERT(buf->len <= buf->cap); /* I1 */
	if (buf->failed)
		return NULL;
	if (len > buf->cap - buf->len &&
	    (len > SIZE_MAX / 2 || !buf_grow(buf, buf->len + len))) {
		buf->failed = true;
		return NULL;
	}
	return buf->data + buf->len;
}

void
api_buf_bytes(struct api_buf *buf, const void *data, size_t len)
{
	char *at;

	if (len == 0)
		return; /* data may be NULL then, which memcpy forbids */
	at = api_buf_reserve(buf, len);
	if (at == NULL)
		return;
	memcpy(at, data, len);
	buf->len += len;
}

void
api_buf_text(struct api_buf *buf, const char *text)
{
	api_buf_bytes(buf, text, strlen(text));
}

/* The decimal digits of value, no sign. */
static char *
put_u64(char *at, uint64_t value)
{
	char digits[API_I64_BYTES_MAX];
	size_t first = sizeof(digits);

	do {
		digits[--first] = (char)('0' + value % 10);
		value /= 10;
	} while (value != 0);
	memcpy(at, digits + first, sizeof(digits) - first);
	return at + (sizeof(digits) - first);
}

char *
api_put_i64(char *at, int64_t value)
{
	if (value >= 0)
		return put_u64(at, (uint64_t)value);
	*at++ = '-';
	return put_u64(at, -(uint64_t)value); /* right for INT64_MIN as well */
}

void
api_buf_u64(struct api_buf *buf, uint64_t value)
{
	char digits[API_I64_BYTES_MAX];

	api_buf_bytes(buf, digits, (size_t)(put_u64(digits, value) - digits));
}

void
api_buf_i64(struct api_buf *buf, int64_t value)
{
	char digits[API_I64_BYTES_MAX];

	api_buf_bytes(
	    buf, digits, (size_t)(api_put_i64(digits, value) - digits));
}

static bool
is_continuation(char byte)
{
	return ((uint8_t)byte & 0xc0) == 0x80;
}

size_t
api_utf8_sequence(const char *data, size_t len)
{
	uint8_t lead = (uint8_t)data[0];
	uint8_t second = len > 1 ? (uint8_t)data[1] : 0;
	uint8_t low = 0x80, high = 0xbf; /* what second may be */
	size_t need;

	if (lead < 0x80)
		return 1;
	if (lead < 0xc2 || lead > 0xf4)
		return 0; /* a continuation, overlong, or past U+10FFFF */
	need = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
	if (lead == 0xe0)
		low = 0xa0; /* overlong */
	else if (lead == 0xed)
		high = 0x9f; /* surrogates */
	else if (lead == 0xf0)
		low = 0x90; /* overlong */
	else if (lead == 0xf4)
		high = 0x8f; /* past U+10FFFF */
	if (len < need || second < low || second > high)
		return 0;
	for (size_t i = 2; i < need; i++)
		if (!is_continuation(data[i]))
			return 0;
	return need;
}

bool
api_utf8_is_valid(struct api_slice text, size_t *points)
{
	size_t at = 0, count = 0;

	while (at < text.len) {
		size_t bytes = api_utf8_sequence(text.data + at, text.len - at);

		if (bytes == 0)
			return false;
		at += bytes;
		count++;
	}
	*points = count;
	return true;
}

/*
 * Do all eight bytes pass through as they are?  Each term sets a byte's top
 * bit when the byte is the thing looked for; a borrow can only make a false
 * alarm beside a true one, so "none" is always right.
 */
static bool
is_plain(uint64_t word)
{
	uint64_t quote = word ^ BYTES_OF('"');
	uint64_t backslash = word ^ BYTES_OF('\\');
	uint64_t found = word; /* beyond ASCII */

	found |= word - BYTES_OF(0x20);
	found |= quote - BYTES_OF(1);
	found |= backslash - BYTES_OF(1);
	return (found & BYTES_OF(0x80)) == 0;
}

static char *
put_escape(char *at, uint8_t byte)
{
	static const char hex[] = "0123456789abcdef";
	char letter = '\0';

	switch (byte) {
	case '"':
	case '\\':
		letter = (char)byte;
		break;
	case '\b':
		letter = 'b';
		break;
	case '\f':
		letter = 'f';
		break;
	case '\n':
		letter = 'n';
		break;
	case '\r':
		letter = 'r';
		break;
	case '\t':
		letter = 't';
		break;
	}
	*at++ = '\\';
	if (letter != '\0') {
		*at++ = letter;
		return at;
	}
	memcpy(at, "u00", 3);
	at[3] = hex[byte >> 4];
	at[4] = hex[byte & 15];
	return at + 5;
}

char *
api_put_json(char *at, const char *data, size_t len)
{
	const char *end = data + len;
	uint64_t word;

	while (data < end) {
		uint8_t byte = (uint8_t)*data;
		size_t bytes;

		if ((size_t)(end - data) >= sizeof(word)) {
			memcpy(&word, data, sizeof(word));
			if (is_plain(word)) {
				memcpy(at, &word, sizeof(word));
				data += sizeof(word);
				at += sizeof(word);
				continue;
			}
		}
		if (byte < 0x20 || byte == '"' || byte == '\\') {
			at = put_escape(at, byte);
			data++;
			continue;
		}
		if (byte < 0x80) {
			*at++ = *data++;
			continue;
		}
		bytes = api_utf8_sequence(data, (size_t)(end - data));
		if (bytes == 0) {
			memcpy(at, "\xef\xbf\xbd", 3);
			at += 3;
			data++;
			continue;
		}
		memcpy(at, data, bytes);
		data += bytes;
		at += bytes;
	}
	return at;
}

void
api_buf_json(struct api_buf *buf, struct api_slice text)
{
	char *at;

	if (text.len == 0)
		return;
	if (text.len > SIZE_MAX / 2 / API_JSON_GROWTH) {
		buf->failed = true;
		return;
	}
	at = api_buf_reserve(buf, text.len * API_JSON_GROWTH);
	if (at == NULL)
		return;
	buf->len = (size_t)(api_put_json(at, text.data, text.len) - buf->data);
}
