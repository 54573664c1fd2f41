/*
 * Conditions of reads.
 *
 * The head of a request is gone when the answer is known, so its conditions
 * are read at the start into a few words: the entity tags that can be ours as
 * numbers, or a time.  A tag of another shape matches nothing that is served
 * here and is dropped, which gives the same answer as keeping it.
 *
 * Precedence is that of RFC 9110 section 13.2.2: with If-None-Match in the
 * request, If-Modified-Since does not count, not even when the former cannot
 * be read.  Whatever cannot be read is taken as a condition that is met: the
 * client gets the whole answer, which is never wrong.  Comparison is weak, as
 * section 13.1.2 wants it: a W/ makes no difference.
 *
 * Dates come in three forms.  A year of two digits is 1970 to 2069, which is
 * what section 5.6.7 asks for (at most 50 years ahead) until the year 2069,
 * without a clock.  A day of the week that is not that of the date makes it no
 * date.
 */
#include "config.h"

#include "api/api_condition.h"

static bool
is_space(char c)
{
	return c == ' ' || c == '\t';
}

static void
skip_space(struct api_slice *rest)
{
	while (rest->len > 0 && is_space(rest->data[0])) {
		rest->data++;
		rest->len--;
	}
}

/* Take text off the front of *rest, if it is there. */
static bool
take(struct api_slice *rest, const char *text)
{
	size_t len = strlen(text);

	if (rest->len < len || memcmp(rest->data, text, len) != 0)
		return false;
	rest->data += len;
	rest->len -= len;
	return true;
}

/* Take one entity tag off the front of *rest, and keep it if it can be ours.
 * False when there is none. */
static bool
take_etag(struct api_slice *rest, struct api_condition *condition)
{
	const char *opaque, *end;
	uint64_t value;

	(void)take(rest, "W/");
	if (!take(rest, "\""))
		return false;
	opaque = rest->data;
	end = memchr(opaque, '"', rest->len);
	if (end == NULL)
		return false;
	for (const char *at = opaque; at < end; at++)
		if ((uint8_t)*at <= ' ' || *at == 127)
			return false;
	rest->len -= (size_t)(end + 1 - opaque);
	rest->data = end + 1;
	if (end - opaque == 16 && condition->count < API_ETAGS_MAX &&
	    api_etag_read(opaque, &value))
		condition->value[condition->count++] = value;
	return true;
}

/* A comma-separated list; empty elements are allowed in what is received. */
static bool
read_etags(struct api_slice field, struct api_condition *condition)
{
	for (;;) {
		skip_space(&field);
		if (field.len == 0)
			return true;
		if (take(&field, ","))
			continue;
		if (!take_etag(&field, condition))
			return false;
		skip_space(&field);
		if (field.len > 0 && field.data[0] != ',')
			return false;
	}
}

static void
read_none_match(struct api_condition *condition, struct api_slice field)
{
	struct api_slice rest = field;

	condition->kind = API_CONDITION_ETAGS;
	condition->count = 0;
	skip_space(&rest);
	if (take(&rest, "*")) {
		skip_space(&rest);
		if (rest.len == 0)
			condition->kind = API_CONDITION_ANY;
		return;
	}
	if (!read_etags(field, condition))
		condition->count = 0;
}

void
api_condition_read(
    struct api_condition *condition, const struct api_request *request)
{
	condition->kind = API_CONDITION_NONE;
	if (request->if_none_match.data != NULL)
		read_none_match(condition, request->if_none_match);
	else if (request->if_modified_since.data != NULL &&
		 api_condition_date(
		     request->if_modified_since, &condition->value[0]))
		condition->kind = API_CONDITION_SINCE;
}

/* ---- dates */

struct date {
	unsigned weekday;	   /* 0 is Sunday */
	unsigned year, month, day; /* month: 0 is January */
	unsigned hour, minute, second;
};

static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
    "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
static const char *const days_short[] = {
    "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
static const char *const days_long[] = {"Sunday", "Monday", "Tuesday",
    "Wednesday", "Thursday", "Friday", "Saturday"};

static bool
take_name(struct api_slice *rest, const char *const names[], unsigned count,
    unsigned *index)
{
	for (unsigned i = 0; i < count; i++) {
		if (take(rest, names[i])) {
			*index = i;
			return true;
		}
	}
	return false;
}

#define TAKE_NAME(rest, names, index) \
	take_name((rest), (names), SHM_ARRAY_LEN(names), (index))

/* Take exactly so many digits. */
static bool
take_number(struct api_slice *rest, size_t digits, unsigned *number)
{
	unsigned value = 0;

	if (rest->len < digits)
		return false;
	for (size_t i = 0; i < digits; i++) {
		if (rest->data[i] < '0' || rest->data[i] > '9')
			return false;
		value = value * 10 + (unsigned)(rest->data[i] - '0');
	}
	rest->data += digits;
	rest->len -= digits;
	*number = value;
	return true;
}

static bool
take_time(struct api_slice *rest, struct date *date)
{
	return take_number(rest, 2, &date->hour) && take(rest, ":") &&
	       take_number(rest, 2, &date->minute) && take(rest, ":") &&
	       take_number(rest, 2, &date->second);
}

/* "Sun, 06 Nov 1994 08:49:37 GMT" */
static bool
read_fixdate(struct api_slice text, struct date *date)
{
	return TAKE_NAME(&text, days_short, &date->weekday) &&
	       take(&text, ", ") && take_number(&text, 2, &date->day) &&
	       take(&text, " ") && TAKE_NAME(&text, months, &date->month) &&
	       take(&text, " ") && take_number(&text, 4, &date->year) &&
	       take(&text, " ") && take_time(&text, date) &&
	       api_slice_is(text, " GMT");
}

/* "Sunday, 06-Nov-94 08:49:37 GMT" */
static bool
read_rfc850(struct api_slice text, struct date *date)
{
	bool is_read =
	    TAKE_NAME(&text, days_long, &date->weekday) && take(&text, ", ") &&
	    take_number(&text, 2, &date->day) && take(&text, "-") &&
	    TAKE_NAME(&text, months, &date->month) && take(&text, "-") &&
	    take_number(&text, 2, &date->year) && take(&text, " ") &&
	    take_time(&text, date) && api_slice_is(text, " GMT");

	if (is_read)
		date->year += date->year < 70 ? 2000 : 1900;
	return is_read;
}

/* "Sun Nov  6 08:49:37 1994" */
static bool
read_asctime(struct api_slice text, struct date *date)
{
	return TAKE_NAME(&text, days_short, &date->weekday) &&
	       take(&text, " ") && TAKE_NAME(&text, months, &date->month) &&
	       take(&text, " ") &&
	       (take(&text, " ") ? take_number(&text, 1, &date->day)
				 : take_number(&text, 2, &date->day)) &&
	       take(&text, " ") && take_time(&text, date) && take(&text, " ") &&
	       take_number(&text, 4, &date->year) && text.len == 0;
}

static bool
is_leap(unsigned year)
{
	return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

/* Days from 0000-01-01 to the date. */
static uint64_t
days_of(const struct date *date)
{
	static const uint16_t before[] = {
	    0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
	uint64_t years = date->year; /* whole ones before it */
	uint64_t leaps = years == 0 ? 0
				    : (years + 3) / 4 - (years + 99) / 100 +
					  (years + 399) / 400;

	return years * 365 + leaps + before[date->month] +
	       (date->month > 1 && is_leap(date->year)) + date->day - 1;
}

static bool
date_exists(const struct date *date)
{
	static const uint8_t lengths[] = {
	    31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

	if (date->day == 0 || date->day > lengths[date->month] ||
	    (date->day == 29 && date->month == 1 && !is_leap(date->year)))
		return false;
	/* A leap second is the first of the next minute. */
	if (date->hour > 23 || date->minute > 59 || date->second > 60)
		return false;
	return (days_of(date) + 6) % 7 == date->weekday; /* a Saturday */
}

bool
api_condition_date(struct api_slice text, uint64_t *unix_s)
{
	const uint64_t epoch_days = 719528; /* 1970-01-01 */
	struct date date;
	uint64_t days;

	if ((!read_fixdate(text, &date) && !read_rfc850(text, &date) &&
		!read_asctime(text, &date)) ||
	    !date_exists(&date))
		return false;
	days = days_of(&date);
	*unix_s = days < epoch_days
		      ? 0
		      : (days - epoch_days) * 86400 + date.hour * 3600 +
			    date.minute * 60 + date.second;
	return true;
}
