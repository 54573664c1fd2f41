/*
 * Writing one log line.
 *
 * An access line is made for every request, so this file has no printf, no
 * allocation, and looks at eight bytes at a time for the first one that must
 * be escaped: nearly all strings are copied as they are.  The text of the
 * current second is kept, because a busy worker writes thousands of lines
 * within it.
 *
 * INVARIANTS
 *   I1  len <= WORKER_LOG_LINE_MAX - 1: there is always room for the newline.
 *   I2  after overflow nothing is added; the line is not used.
 *   I3  a string is cut between characters, never inside an escape or a UTF-8
 *       sequence, and a cut string ends in "...".
 */
#include "config.h"

#include <time.h>

#include "worker/worker_log_line.h"
#include "worker/worker_put.h"

#define CUT_MARK	  "..."
#define CUT_MARK_BYTES	  (sizeof(CUT_MARK) - 1)
#define ESCAPED_BYTES_MAX 6		 /* \u001f */
#define REPLACEMENT	  "\xef\xbf\xbd" /* U+FFFD */

static const char hex_digit[] = "0123456789abcdef";

void
worker_log_line_begin(struct worker_log_line *line, size_t text_max)
{
	SHM_ASSERT(text_max >= CUT_MARK_BYTES);
	line->len = 0;
	line->text_max = text_max;
	line->overflow = false;
}

bool
worker_log_line_end(struct worker_log_line *line)
{
	if (line->overflow)
		return false;
	SHM_ASSERT(line->len < WORKER_LOG_LINE_MAX); /* I1 */
	line->data[line->len++] = '\n';
	return true;
}

void
worker_log_line_bytes(
    struct worker_log_line *line, const char *data, size_t len)
{
	if (line->overflow || len > WORKER_LOG_LINE_MAX - 1 - line->len) {
		line->overflow = true;
		return;
	}
	memcpy(line->data + line->len, data, len);
	line->len += len;
}

void
worker_log_line_u64(struct worker_log_line *line, uint64_t value)
{
	char digits[20];

	worker_log_line_bytes(
	    line, digits, (size_t)(worker_put_u64(digits, value) - digits));
}

void
worker_log_line_i64(struct worker_log_line *line, int64_t value)
{
	if (value < 0)
		worker_log_line_literal(line, "-");
	worker_log_line_u64(
	    line, value < 0 ? -(uint64_t)value : (uint64_t)value);
}

static bool
is_plain(unsigned char byte)
{
	return byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\';
}

/* Eight times the same byte. */
static uint64_t
word_of(unsigned char byte)
{
	return ~UINT64_C(0) / 255 * byte;
}

/* Is one of the word's bytes below limit (at most 0x80)? */
static bool
word_has_below(uint64_t word, unsigned char limit)
{
	return ((word - word_of(limit)) & ~word & word_of(0x80)) != 0;
}

static bool
word_is_plain(uint64_t word)
{
	return (word & word_of(0x80)) == 0 && !word_has_below(word, 0x20) &&
	       !word_has_below(word ^ word_of('"'), 1) &&
	       !word_has_below(word ^ word_of('\\'), 1) &&
	       !word_has_below(word ^ word_of(0x7f), 1);
}

bool
worker_log_line_is_plain(struct api_slice text)
{
	uint64_t word;
	size_t i = 0;

	if (text.len < sizeof(word)) {
		while (i < text.len && is_plain((unsigned char)text.data[i]))
			i++;
		return i == text.len;
	}
	/* The last word may have been seen in part. */
	for (; i + sizeof(word) < text.len; i += sizeof(word)) {
		memcpy(&word, text.data + i, sizeof(word));
		if (!word_is_plain(word))
			return false;
	}
	memcpy(&word, text.data + text.len - sizeof(word), sizeof(word));
	return word_is_plain(word);
}

/* How many bytes from the start can be copied as they are. */
static size_t
plain_run(const char *data, size_t len)
{
	size_t i = 0;
	uint64_t word;

	for (; i + sizeof(word) <= len; i += sizeof(word)) {
		memcpy(&word, data + i, sizeof(word));
		if (!word_is_plain(word))
			break;
	}
	while (i < len && is_plain((unsigned char)data[i]))
		i++;
	return i;
}

/*
 * The length of the valid UTF-8 sequence at data (2 to 4), 0 when there is
 * none: overlong forms, surrogates and what lies above U+10FFFF are refused.
 */
static size_t
utf8_sequence(const unsigned char *data, size_t len)
{
	unsigned char first = data[0], low = 0x80, high = 0xbf;
	size_t bytes;

	if (first >= 0xc2 && first <= 0xdf)
		bytes = 2;
	else if (first >= 0xe0 && first <= 0xef)
		bytes = 3;
	else if (first >= 0xf0 && first <= 0xf4)
		bytes = 4;
	else
		return 0;
	if (first == 0xe0)
		low = 0xa0;
	else if (first == 0xed)
		high = 0x9f;
	else if (first == 0xf0)
		low = 0x90;
	else if (first == 0xf4)
		high = 0x8f;
	if (len < bytes || data[1] < low || data[1] > high)
		return 0;
	for (size_t i = 2; i < bytes; i++)
		if ((data[i] & 0xc0) != 0x80)
			return 0;
	return bytes;
}

/* One character at the start of text that is not plain: its escaped form goes
 * to out, the bytes it takes of the text are returned. */
static size_t
escape_json(struct api_slice text, char out[ESCAPED_BYTES_MAX], size_t *out_len)
{
	const unsigned char *data = (const unsigned char *)text.data;
	static const char shorts[] = "\"\"\\\\\nn\rr\tt";
	unsigned code = data[0];
	size_t bytes = 1;

	for (size_t i = 0; i < sizeof(shorts) - 1; i += 2)
		if (data[0] == (unsigned char)shorts[i]) {
			out[0] = '\\';
			out[1] = shorts[i + 1];
			*out_len = 2;
			return 1;
		}
	if (data[0] >= 0x80) {
		bytes = utf8_sequence(data, text.len);
		if (bytes == 0) {
			memcpy(out, REPLACEMENT, 3);
			*out_len = 3;
			return 1;
		}
		/* C1 controls (C2 80 to C2 9F) move terminals as ESC does. */
		if (data[0] != 0xc2 || data[1] > 0x9f) {
			memcpy(out, data, bytes);
			*out_len = bytes;
			return bytes;
		}
		code = data[1];
	}
	memcpy(out, "\\u00", 4);
	out[4] = hex_digit[code >> 4];
	out[5] = hex_digit[code & 15];
	*out_len = 6;
	return bytes;
}

static size_t
escape_text(struct api_slice text, char out[ESCAPED_BYTES_MAX], size_t *out_len)
{
	unsigned char byte = (unsigned char)text.data[0];

	out[0] = '\\';
	if (byte == '"' || byte == '\\') {
		out[1] = (char)byte;
		*out_len = 2;
	} else {
		out[1] = 'x';
		out[2] = hex_digit[byte >> 4];
		out[3] = hex_digit[byte & 15];
		*out_len = 4;
	}
	return 1;
}

/*
 * Add text, escaped, at most text_max bytes of it.  whole is where the line
 * would have to be cut if the rest turned out too long (I3): the last place
 * between two characters that leaves room for the mark.
 */
static void
line_string(struct worker_log_line *line, struct api_slice text,
    size_t (*escape)(struct api_slice, char *, size_t *))
{
	const size_t end_max = line->len + line->text_max;
	const size_t whole_max = end_max - CUT_MARK_BYTES;
	size_t whole = line->len, before, run, out_len;
	char out[ESCAPED_BYTES_MAX];

	while (text.len > 0 && !line->overflow) {
		before = line->len;
		run = plain_run(text.data, text.len);
		if (run > end_max - before)
			run = end_max - before + 1; /* shows it is too long */
		if (run > 0) {
			worker_log_line_bytes(line, text.data, run);
			if (before <= whole_max)
				whole = line->len < whole_max ? line->len
							      : whole_max;
		} else {
			run = escape(text, out, &out_len);
			worker_log_line_bytes(line, out, out_len);
			if (line->len <= whole_max)
				whole = line->len;
		}
		if (line->len > end_max) {
			line->len = whole;
			worker_log_line_literal(line, CUT_MARK);
			return;
		}
		text.data += run;
		text.len -= run;
	}
}

void
worker_log_line_json(struct worker_log_line *line, struct api_slice text)
{
	line_string(line, text, escape_json);
}

void
worker_log_line_text(struct worker_log_line *line, struct api_slice text)
{
	line_string(line, text, escape_text);
}

static void
put_two(char *out, int value)
{
	out[0] = (char)('0' + value / 10 % 10);
	out[1] = (char)('0' + value % 10);
}

void
worker_log_line_time(struct worker_log_line *line, uint64_t wallclock_us)
{
	static uint64_t kept_second = UINT64_MAX;
	static char text[] = "0000-00-00T00:00:00.000000Z";
	uint64_t second = wallclock_us / 1000000;
	uint32_t rest = (uint32_t)(wallclock_us % 1000000);
	time_t when = (time_t)second;
	struct tm tm;

	if (second != kept_second && gmtime_r(&when, &tm) != NULL) {
		put_two(text, (tm.tm_year + 1900) / 100);
		put_two(text + 2, tm.tm_year + 1900);
		put_two(text + 5, tm.tm_mon + 1);
		put_two(text + 8, tm.tm_mday);
		put_two(text + 11, tm.tm_hour);
		put_two(text + 14, tm.tm_min);
		put_two(text + 17, tm.tm_sec);
		kept_second = second;
	}
	for (size_t at = 25; at >= 20; at--) {
		text[at] = (char)('0' + rest % 10);
		rest /= 10;
	}
	worker_log_line_bytes(line, text, sizeof(text) - 1);
}

void
worker_log_line_time_clf(struct worker_log_line *line, uint64_t wallclock_us)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	static uint64_t kept_second = UINT64_MAX;
	static char text[] = "00/Jan/0000:00:00:00 +0000";
	uint64_t second = wallclock_us / 1000000;
	time_t when = (time_t)second;
	struct tm tm;

	if (second != kept_second && gmtime_r(&when, &tm) != NULL) {
		put_two(text, tm.tm_mday);
		memcpy(text + 3, months + 3 * tm.tm_mon, 3);
		put_two(text + 7, (tm.tm_year + 1900) / 100);
		put_two(text + 9, tm.tm_year + 1900);
		put_two(text + 12, tm.tm_hour);
		put_two(text + 15, tm.tm_min);
		put_two(text + 18, tm.tm_sec);
		kept_second = second;
	}
	worker_log_line_bytes(line, text, sizeof(text) - 1);
}
