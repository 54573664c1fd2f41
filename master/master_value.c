/*
 * Reading the values of settings.
 *
 * A value is right or it is refused with what would have been right: there is
 * no rounding, no clamping and no guessing of units.  A bare number is a count
 * or bytes; a duration without its unit is refused, because "30" has meant
 * seconds in one program and milliseconds in the next.
 */
#include "config.h"

#include <string.h>

#include "master/master_value.h"

struct unit {
	const char *name;
	uint64_t factor;
};

/* The first of equal factors is the one that messages use. */
static const struct unit durations[] = {
    {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}, {NULL, 0}};
static const struct unit sizes[] = {{"GiB", 1 << 30}, {"MiB", 1 << 20},
    {"KiB", 1 << 10}, {"", 1}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10},
    {"B", 1}, {NULL, 0}};
static const struct unit counts[] = {{"", 1}, {NULL, 0}};

/* Decimal digits and one of the units; nothing else, no overflow. */
static bool
parse_number(const char *text, const struct unit *units, uint64_t *number)
{
	uint64_t value = 0;
	const char *at = text;

	for (; *at >= '0' && *at <= '9'; at++) {
		uint64_t digit = (uint64_t)(*at - '0');

		if (value > (UINT64_MAX - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	if (at == text)
		return false;
	if (value == 0 && *at == '\0') { /* zero is zero in any unit */
		*number = 0;
		return true;
	}
	for (; units->name != NULL; units++)
		if (strcmp(at, units->name) == 0) {
			if (value > UINT64_MAX / units->factor)
				return false;
			*number = value * units->factor;
			return true;
		}
	return false;
}

static bool
parse_bool(const char *text, uint64_t *number)
{
	static const char *const words[] = {
	    "off", "on", "false", "true", "no", "yes"};

	for (size_t i = 0; i < SHM_ARRAY_LEN(words); i++)
		if (strcmp(text, words[i]) == 0) {
			*number = i % 2;
			return true;
		}
	return false;
}

/* text is the n-th of "a|b|c". */
static bool
parse_choice(const char *text, const char *choices, uint64_t *number)
{
	size_t len = strlen(text);
	uint64_t n = 0;

	for (const char *at = choices;; at++, n++) {
		const char *end = strchrnul(at, '|');

		if ((size_t)(end - at) == len && memcmp(at, text, len) == 0) {
			*number = n;
			return true;
		}
		if (*end == '\0')
			return false;
		at = end;
	}
}

/* MIN..MAX, both within the limits. */
static bool
parse_range(
    const struct master_setting *setting, const char *text, uint64_t *number)
{
	const char *dots = strstr(text, "..");
	uint64_t least, most;
	char first[16];

	if ((size_t)(dots - text) >= sizeof(first))
		return false;
	memcpy(first, text, (size_t)(dots - text));
	first[dots - text] = '\0';
	if (!parse_number(first, counts, &least) ||
	    !parse_number(dots + 2, counts, &most) || least < setting->min ||
	    least > most || most > setting->max)
		return false;
	*number = MASTER_VALUE_RANGE(least, most);
	return true;
}

bool
master_value_number(
    const struct master_setting *setting, const char *text, uint64_t *number)
{
	uint64_t value;
	bool is_right = false;

	switch (setting->type) {
	case MASTER_TYPE_BOOL:
		return parse_bool(text, number);
	case MASTER_TYPE_ENUM:
		return parse_choice(text, setting->unit, number);
	case MASTER_TYPE_WORKERS:
		if (strstr(text, "..") != NULL)
			return parse_range(setting, text, number);
		/* fall through */
	case MASTER_TYPE_COUNT_AUTO:
		if (strcmp(text, "auto") == 0) {
			*number = 0;
			return true;
		}
		is_right = parse_number(text, counts, &value);
		break;
	case MASTER_TYPE_COUNT:
		is_right = parse_number(text, counts, &value);
		break;
	case MASTER_TYPE_SIZE:
		is_right = parse_number(text, sizes, &value);
		break;
	case MASTER_TYPE_DURATION:
		is_right = parse_number(text, durations, &value);
		break;
	case MASTER_TYPE_TEXT:
	case MASTER_TYPE_SECRET:
	case MASTER_TYPE_LOG:
	case MASTER_TYPE_LIST:
		SHM_ASSERT(!"a setting with a number");
	}
	if (!is_right || value < setting->min || value > setting->max)
		return false;
	*number = value;
	return true;
}

/* Valid UTF-8 without control characters: what can be printed back, stored in
 * a file of one line per setting, and put into JSON. */
static bool
is_printable(const char *text)
{
	const unsigned char *at = (const unsigned char *)text;

	while (*at != '\0') {
		unsigned more = 0;

		if (*at < 0x20 || *at == 0x7f)
			return false;
		if (*at >= 0x80) {
			if (*at < 0xc2 || *at > 0xf4)
				return false;
			more = *at >= 0xf0 ? 3 : *at >= 0xe0 ? 2 : 1;
			if ((*at == 0xe0 && at[1] < 0xa0) ||
			    (*at == 0xed && at[1] > 0x9f) ||
			    (*at == 0xf0 && at[1] < 0x90) ||
			    (*at == 0xf4 && at[1] > 0x8f))
				return false;
		}
		for (at++; more > 0; more--, at++)
			if ((*at & 0xc0) != 0x80)
				return false;
	}
	return true;
}

bool
master_value_is_text(const struct master_setting *setting, const char *text)
{
	size_t len = strlen(text);

	if (len < setting->min || len > setting->max || !is_printable(text))
		return false;
	if (setting->type != MASTER_TYPE_LOG)
		return true;
	return text[0] == '/' || strcmp(text, "stdout") == 0 ||
	       strcmp(text, "stderr") == 0 || strcmp(text, "off") == 0;
}

/* The number in its largest unit without a remainder. */
static void
print_number(uint64_t number, const struct unit *units, char text[32])
{
	for (; units->name != NULL; units++)
		if (number > 0 && number % units->factor == 0) {
			snprintf(text, 32, "%ju%s",
			    (uintmax_t)(number / units->factor), units->name);
			return;
		}
	snprintf(text, 32, "%ju", (uintmax_t)number);
}

void
master_value_duration(uint64_t ms, char text[32])
{
	print_number(ms, durations, text);
}

/* "a|b|c" as "a, b or c" */
static void
print_choices(const char *choices, char *need)
{
	const char *last = strrchr(choices, '|');
	char *out = need;

	for (const char *at = choices; *at != '\0'; at++)
		if (*at != '|')
			*out++ = *at;
		else
			out = stpcpy(out, at == last ? " or " : ", ");
	*out = '\0';
}

static void
print_range(
    const struct master_setting *setting, const struct unit *units, char *need)
{
	char min[32], max[32];
	bool has_range = setting->type == MASTER_TYPE_WORKERS;
	bool has_auto = setting->type == MASTER_TYPE_COUNT_AUTO || has_range;
	bool is_size = setting->type == MASTER_TYPE_SIZE;

	print_number(setting->min, units, min);
	print_number(setting->max, units, max);
	snprintf(need, MASTER_VALUE_NEED_BYTES, "%s%s to %s%s%s%s",
	    has_auto ? "auto or " : "", min, max,
	    is_size		       ? " (bytes, KiB, MiB, GiB)"
	    : setting->unit[0] != '\0' ? " "
				       : " (ms, s, m, h)",
	    setting->unit, has_range ? ", or MIN..MAX" : "");
}

void
master_value_need(
    const struct master_setting *setting, char need[MASTER_VALUE_NEED_BYTES])
{
	switch (setting->type) {
	case MASTER_TYPE_TEXT:
	case MASTER_TYPE_SECRET:
	case MASTER_TYPE_LIST:
		snprintf(need, MASTER_VALUE_NEED_BYTES,
		    "%ju to %ju bytes of UTF-8 without control characters",
		    (uintmax_t)setting->min, (uintmax_t)setting->max);
		return;
	case MASTER_TYPE_LOG:
		snprintf(need, MASTER_VALUE_NEED_BYTES,
		    "stdout, stderr, off or an absolute path");
		return;
	case MASTER_TYPE_BOOL:
		snprintf(need, MASTER_VALUE_NEED_BYTES, "on or off");
		return;
	case MASTER_TYPE_ENUM:
		print_choices(setting->unit, need);
		return;
	case MASTER_TYPE_COUNT:
	case MASTER_TYPE_COUNT_AUTO:
	case MASTER_TYPE_WORKERS:
		print_range(setting, counts, need);
		return;
	case MASTER_TYPE_SIZE:
		print_range(setting, sizes, need);
		return;
	case MASTER_TYPE_DURATION:
		print_range(setting, durations, need);
		return;
	}
}
