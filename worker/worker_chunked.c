/*
 * The chunked transfer coding, one state machine.
 *
 *	chunked-body = *( size [ext] CRLF data CRLF ) 1*"0" [ext] CRLF
 *	               *( trailer-field CRLF ) CRLF
 *
 * The state says what the next byte may be, and nothing else is remembered, so
 * that pieces of any size give the same result; inside a chunk's data whole
 * pieces are lent at once instead of byte by byte.
 *
 * INVARIANTS
 *   I1  left > 0 exactly in DATA: a byte is lent if and only if a size line
 *       announced it.
 *   I2  DONE and BAD are final and consume nothing.
 *   I3  what is not body text is bounded: a size line by LINE_MAX, all
 *       extensions of a body together by EXTENSION_MAX (a client could
 *       otherwise have a kilobyte parsed for every byte of body), all trailers
 *       by TRAILER_MAX.  More is BAD.
 *
 * Extensions and trailers mean nothing to us, yet they are held to their
 * grammar: a parser that skips "anything up to LF" disagrees with its
 * neighbours about where the line ends.
 */
#include "config.h"

#include "worker/worker_chunked.h"
#include "worker/worker_http_text.h"

#define SIZE_DIGITS_MAX 16
#define SIZE_MAX_BYTES	(UINT64_C(1) << 60)

/* What the next byte belongs to. */
enum state {
	SIZE_FIRST = 0, /* the first digit of a size */
	SIZE,
	EXT_SPACE,	/* BWS; then ';' */
	EXT_NAME_FIRST, /* behind ';': BWS, then a name */
	EXT_NAME,
	EXT_NAME_SPACE,	 /* behind a name: BWS, then '=' or ';' */
	EXT_VALUE_FIRST, /* behind '=': BWS, then a token or '"' */
	EXT_VALUE,
	EXT_QUOTED,
	EXT_ESCAPED, /* behind '\' in a quoted string */
	EXT_QUOTED_END,
	SIZE_LF,
	DATA,
	DATA_CR,
	DATA_LF,
	TRAILER_FIRST, /* a trailer's name, or CR of the last line */
	TRAILER_NAME,
	TRAILER_VALUE,
	TRAILER_LF,
	LAST_LF,
	DONE,
	BAD,
};

static enum state
size_digit(struct worker_chunked *chunked, char byte)
{
	uint64_t digit = byte <= '9' ? (uint64_t)(byte - '0')
				     : (uint64_t)((byte | 0x20) - 'a' + 10);

	if (chunked->digits == SIZE_DIGITS_MAX)
		return BAD;
	chunked->digits++;
	chunked->left = chunked->left * 16 + digit;
	return chunked->left <= SIZE_MAX_BYTES ? SIZE : BAD;
}

/* What may stand behind a complete part of an extension. */
static enum state
ext_next(char byte)
{
	if (byte == ';')
		return EXT_NAME_FIRST;
	if (byte == '\r')
		return SIZE_LF;
	return worker_http_is_blank(byte) ? EXT_SPACE : BAD;
}

/* May byte stand in a quoted string or a field value? */
static bool
is_text(char byte)
{
	return ((uint8_t)byte >= 0x20 && byte != 0x7f) || byte == '\t';
}

static enum state
ext_step(enum state state, char byte)
{
	bool is_token = worker_http_is(byte, HTTP_TOKEN);

	switch (state) {
	case EXT_SPACE:
		return byte == ';'		    ? EXT_NAME_FIRST
		       : worker_http_is_blank(byte) ? EXT_SPACE
						    : BAD;
	case EXT_NAME_FIRST:
		return is_token			    ? EXT_NAME
		       : worker_http_is_blank(byte) ? EXT_NAME_FIRST
						    : BAD;
	case EXT_NAME:
		if (is_token)
			return EXT_NAME;
		if (byte == '=')
			return EXT_VALUE_FIRST;
		return worker_http_is_blank(byte) ? EXT_NAME_SPACE
						  : ext_next(byte);
	case EXT_NAME_SPACE:
		if (worker_http_is_blank(byte))
			return EXT_NAME_SPACE;
		return byte == '='   ? EXT_VALUE_FIRST
		       : byte == ';' ? EXT_NAME_FIRST
				     : BAD;
	case EXT_VALUE_FIRST:
		if (byte == '"')
			return EXT_QUOTED;
		return is_token			    ? EXT_VALUE
		       : worker_http_is_blank(byte) ? EXT_VALUE_FIRST
						    : BAD;
	case EXT_VALUE:
		return is_token ? EXT_VALUE : ext_next(byte);
	case EXT_QUOTED:
		return byte == '"'     ? EXT_QUOTED_END
		       : byte == '\\'  ? EXT_ESCAPED
		       : is_text(byte) ? EXT_QUOTED
				       : BAD;
	case EXT_ESCAPED:
		return is_text(byte) ? EXT_QUOTED : BAD;
	case EXT_QUOTED_END:
		return ext_next(byte);
	default:
		return BAD;
	}
}

static enum state
size_end(struct worker_chunked *chunked)
{
	chunked->line_bytes = 0;
	chunked->digits = 0;
	return chunked->left > 0 ? DATA : TRAILER_FIRST;
}

static enum state
trailer_step(enum state state, char byte)
{
	switch (state) {
	case TRAILER_FIRST:
		if (byte == '\r')
			return LAST_LF;
		return worker_http_is(byte, HTTP_TOKEN) ? TRAILER_NAME : BAD;
	case TRAILER_NAME:
		if (byte == ':')
			return TRAILER_VALUE;
		return worker_http_is(byte, HTTP_TOKEN) ? TRAILER_NAME : BAD;
	case TRAILER_VALUE:
		if (byte == '\r')
			return TRAILER_LF;
		return is_text(byte) ? TRAILER_VALUE : BAD;
	case TRAILER_LF:
		return byte == '\n' ? TRAILER_FIRST : BAD;
	case LAST_LF:
		return byte == '\n' ? DONE : BAD;
	default:
		return BAD;
	}
}

/* The state behind a byte that is not chunk data. */
static enum state
chunked_step(struct worker_chunked *chunked, char byte)
{
	enum state state = chunked->state;

	if (state >= TRAILER_FIRST) {
		if (++chunked->trailer_bytes > WORKER_CHUNKED_TRAILER_MAX)
			return BAD;
		return trailer_step(state, byte);
	}
	if (state == DATA_CR)
		return byte == '\r' ? DATA_LF : BAD;
	if (state == DATA_LF)
		return byte == '\n' ? SIZE_FIRST : BAD;
	if (++chunked->line_bytes > WORKER_CHUNKED_LINE_MAX)
		return BAD;
	if (state == SIZE_LF)
		return byte == '\n' ? size_end(chunked) : BAD;
	if (state <= SIZE) {
		if (worker_http_is(byte, HTTP_HEX))
			return size_digit(chunked, byte);
		return state == SIZE ? ext_next(byte) : BAD;
	}
	if (++chunked->extension_bytes > WORKER_CHUNKED_EXTENSION_MAX)
		return BAD;
	return ext_step(state, byte);
}

void
worker_chunked_init(struct worker_chunked *chunked)
{
	*chunked = (struct worker_chunked){.state = SIZE_FIRST};
}

enum worker_chunked_result
worker_chunked_read(struct worker_chunked *chunked, const char *in, size_t len,
    size_t *used, struct api_slice *data)
{
	size_t at = 0;

	*data = (struct api_slice){in, 0};
	while (at < len && chunked->state != DATA && chunked->state < DONE)
		chunked->state = (uint8_t)chunked_step(chunked, in[at++]);
	if (at < len && chunked->state == DATA) {
		SHM_ASSERT(chunked->left > 0);
		data->data = in + at;
		data->len =
		    len - at < chunked->left ? len - at : (size_t)chunked->left;
		chunked->left -= data->len;
		at += data->len;
		if (chunked->left == 0)
			chunked->state = DATA_CR;
	}
	*used = at;
	if (chunked->state == DONE)
		return WORKER_CHUNKED_DONE;
	if (chunked->state == BAD)
		return WORKER_CHUNKED_BAD;
	return at < len ? WORKER_CHUNKED_DATA : WORKER_CHUNKED_MORE;
}
