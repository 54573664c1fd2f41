/*
 * Figures and foreign text as people read them.
 */
#include "config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/api_slice.h"
#include "ctl/ctl_text.h"

const char *
ctl_text_grouped(uint64_t value, char out[CTL_TEXT_BYTES])
{
	char digits[24], *to = out;
	int len = snprintf(digits, sizeof(digits), "%" PRIu64, value);

	for (int i = 0; i < len; i++) {
		if (i > 0 && (len - i) % 3 == 0)
			*to++ = ',';
		*to++ = digits[i];
	}
	*to = '\0';
	return out;
}

const char *
ctl_text_size(uint64_t bytes, char out[CTL_TEXT_BYTES])
{
	if (bytes < 1024)
		snprintf(out, CTL_TEXT_BYTES, "%" PRIu64 " B", bytes);
	else if (bytes < 1024 * 1024)
		snprintf(out, CTL_TEXT_BYTES, "%.1f KiB", (double)bytes / 1024);
	else if (bytes < UINT64_C(1) << 30)
		snprintf(
		    out, CTL_TEXT_BYTES, "%.1f MiB", (double)bytes / (1 << 20));
	else
		snprintf(
		    out, CTL_TEXT_BYTES, "%.1f GiB", (double)bytes / (1 << 30));
	return out;
}

const char *
ctl_text_time(double seconds, char out[CTL_TEXT_BYTES])
{
	uint64_t s = seconds > 0 ? (uint64_t)seconds : 0;

	if (s < 60)
		snprintf(out, CTL_TEXT_BYTES, "%" PRIu64 " s", s);
	else if (s < 3600)
		snprintf(
		    out, 32, "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
	else if (s < 86400)
		snprintf(out, CTL_TEXT_BYTES, "%" PRIu64 " h %" PRIu64 " min",
		    s / 3600, s % 3600 / 60);
	else
		snprintf(out, CTL_TEXT_BYTES, "%" PRIu64 " d %" PRIu64 " h",
		    s / 86400, s % 86400 / 3600);
	return out;
}

/* The code point of a valid sequence. */
static uint32_t
code_point(const char *text, size_t len)
{
	uint32_t point = (unsigned char)text[0];

	if (len > 1)
		point &= 0x7fu >> len;
	for (size_t i = 1; i < len; i++)
		point = point << 6 | ((unsigned char)text[i] & 0x3f);
	return point;
}

static bool
is_obeyed(uint32_t point)
{
	return point < 0x20 || (point >= 0x7f && point < 0xa0) ||
	       (point >= 0x200b && point <= 0x200f) ||
	       (point >= 0x2028 && point <= 0x202e) ||
	       (point >= 0x2060 && point <= 0x206f) || point == 0xfeff;
}

void
ctl_text_print(FILE *out, const char *text, size_t len)
{
	for (size_t at = 0, bytes; at < len; at += bytes) {
		uint32_t point;

		bytes = api_utf8_sequence(text + at, len - at);
		if (bytes == 0) {
			bytes = 1;
			fprintf(out, "\\x%02x", (unsigned char)text[at]);
			continue;
		}
		point = code_point(text + at, bytes);
		if (is_obeyed(point))
			fprintf(out, "\\u%04" PRIx32, point);
		else
			fwrite(text + at, 1, bytes, out);
	}
}

static bool
is_colored(FILE *out)
{
	const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");

	if (no_color != NULL && *no_color != '\0')
		return false;
	if (term == NULL || strcmp(term, "dumb") == 0)
		return false;
	return isatty(fileno(out)) == 1;
}

const char *
ctl_text_color(FILE *out, enum ctl_text_color color)
{
	static const char *const codes[] = {"\033[0m", "\033[1m", "\033[2m",
	    "\033[31m", "\033[32m", "\033[33m", "\033[34m"};
	static signed char known[2]; /* of stdout, stderr: 1 yes, -1 no */
	signed char *mine = &known[out == stderr];

	if (*mine == 0)
		*mine = is_colored(out) ? 1 : -1;
	return *mine > 0 ? codes[color] : "";
}
