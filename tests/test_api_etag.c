/*
 * Goal: what clients recognize answers by never changes: entity tags, hashes
 * of lists, dates as they are written, and read in all their forms.
 * Method: tables of values that another program computed; every day of four
 * centuries compared with the C library.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "api/api_condition.h"

/* ---- entity tags */

static const struct {
	struct api_version version;
	const char *etag;
} etags[] = {
    {{0, 0, 0}, "\"48218226ff3cd4bf\""},
    {{1, 0, 0}, "\"dce423fc82c0d5b8\""},
    {{1, 1, 0}, "\"5e41ab087439611e\""},
    {{1, 2, 0}, "\"f18d6ce93d6cf1ee\""},
    {{2, 1, 0}, "\"64684c4f0fd784b4\""},
    {{256, 1, 0}, "\"11ea327166776b28\""},
    {{1, 256, 0}, "\"45cd140b6b90bebc\""},
    {{4294967297, 1, 0}, "\"7b863400bc026a40\""},
    {{INT64_MAX, UINT32_MAX, 0}, "\"017291e271a69462\""},
    {{UINT64_MAX, 0, 0}, "\"445018e305810b78\""},
    /* the time is no part of it */
    {{1, 1, 1234567890}, "\"5e41ab087439611e\""},
};

static void
entity_tags_never_change(void **state)
{
	char out[API_ETAG_BYTES + 1];
	uint64_t value;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(etags); i++) {
		memset(out, 'x', sizeof(out));
		api_etag(&etags[i].version, out);
		assert_int_equal(out[API_ETAG_BYTES], 'x');
		out[API_ETAG_BYTES] = '\0';
		assert_string_equal(out, etags[i].etag);
		assert_true(api_etag_read(out + 1, &value));
		assert_int_equal(value, api_etag_value(&etags[i].version));
	}
}

static int
compare_u64(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return (a > b) - (a < b);
}

static void
versions_that_are_close_have_different_tags(void **state)
{
	enum { IDS = 64, VERSIONS = 1024 };
	static uint64_t seen[IDS * VERSIONS];
	uint32_t bits = 0;

	(void)state;
	for (uint32_t id = 0; id < IDS; id++) {
		for (uint32_t v = 0; v < VERSIONS; v++) {
			struct api_version at = {id, v, 0},
					   next = {id, v + 1, 0};

			seen[id * VERSIONS + v] = api_etag_value(&at);
			bits += (uint32_t)__builtin_popcountll(
			    api_etag_value(&at) ^ api_etag_value(&next));
		}
	}
	qsort(seen, IDS * VERSIONS, sizeof(seen[0]), compare_u64);
	for (int i = 1; i < IDS * VERSIONS; i++)
		assert_int_not_equal(seen[i - 1], seen[i]);
	/* One more changes about half of the bits. */
	assert_in_range(bits / (IDS * VERSIONS), 31, 33);
}

static void
text_of_another_shape_is_no_tag_of_ours(void **state)
{
	static const char *const others[] = {"5E41AB087439611E",
	    "5e41ab087439611g", "5e41ab08 439611e", "0x41ab087439611e",
	    "5e41ab08-439611e", "5e41ab087439611\xc3"};
	uint64_t value;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(others); i++)
		assert_false(api_etag_read(others[i], &value));
}

/* ---- hashes */

#define FOX "The quick brown fox jumps over the lazy dog"

static const struct {
	struct api_slice text;
	uint64_t hash;
} hashes[] = {
    {{"", 0}, 0},
    {{"", 1}, 1},
    {{"\0", 2}, UINT64_C(0x9e3779b97f4a7c16)},
    {{"[]", 2}, UINT64_C(0xdbefbea9bec497ea)},
    {{"abcdefg", 7}, UINT64_C(0x629ccde1aba88917)},
    {{"abcdefgh", 8}, UINT64_C(0xdd825e01c0e0634c)},
    {{FOX, sizeof(FOX) - 1}, UINT64_C(0x628f9e352631a9a4)},
};

static void
hashes_of_content_never_change(void **state)
{
	static uint8_t page[65536];

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(hashes); i++)
		assert_int_equal(api_content_hash(0, hashes[i].text.data,
				     hashes[i].text.len),
		    hashes[i].hash);
	for (size_t i = 0; i < sizeof(page); i++)
		page[i] = (uint8_t)(i * 7);
	assert_int_equal(api_content_hash(0, page, sizeof(page)),
	    UINT64_C(0x9c962b62d6228000));
}

static void
content_hashes_the_same_however_it_is_cut(void **state)
{
	static const char fox[] = FOX;
	const size_t len = sizeof(FOX) - 1;
	uint64_t hash, whole = api_content_hash(0, fox, len);

	(void)state;
	for (size_t first = 0; first <= len; first++) {
		for (size_t second = first; second <= len; second++) {
			hash = api_content_hash(0, fox, first);
			hash =
			    api_content_hash(hash, fox + first, second - first);
			hash =
			    api_content_hash(hash, fox + second, len - second);
			assert_int_equal(hash, whole);
		}
	}
}

static void
lists_that_differ_in_one_place_have_different_hashes(void **state)
{
	char text[512], other[512];

	(void)state;
	memset(text, 'a', sizeof(text));
	for (size_t i = 0; i < sizeof(text); i++) {
		text[i] = 'b';
		memcpy(other, text, sizeof(text));
		for (size_t j = 0; j < sizeof(text); j++) {
			if (i == j)
				continue;
			/* the b is somewhere else */
			other[i] = 'a';
			other[j] = 'b';
			assert_int_not_equal(
			    api_content_hash(0, text, sizeof(text)),
			    api_content_hash(0, other, sizeof(other)));
			other[j] = 'a';
			other[i] = 'b';
		}
		text[i] = 'a';
		assert_int_not_equal(api_content_hash(0, text, i),
		    api_content_hash(0, text, i + 1));
	}
}

/* ---- dates */

static const struct {
	uint64_t unix_s;
	const char *text;
} dates[] = {
    {0, "Thu, 01 Jan 1970 00:00:00 GMT"},
    {784111777, "Sun, 06 Nov 1994 08:49:37 GMT"},
    {951782399, "Mon, 28 Feb 2000 23:59:59 GMT"},
    {951782400, "Tue, 29 Feb 2000 00:00:00 GMT"},
    {951868800, "Wed, 01 Mar 2000 00:00:00 GMT"},
    {1709164800, "Thu, 29 Feb 2024 00:00:00 GMT"},
    {1735689599, "Tue, 31 Dec 2024 23:59:59 GMT"},
    {1735689600, "Wed, 01 Jan 2025 00:00:00 GMT"},
    {4107456000, "Sun, 28 Feb 2100 00:00:00 GMT"},
    {4107542400, "Mon, 01 Mar 2100 00:00:00 GMT"},
    {UINT32_MAX, "Sun, 07 Feb 2106 06:28:15 GMT"},
    {253402300799, "Fri, 31 Dec 9999 23:59:59 GMT"},
};

static bool
read_date(const char *text, uint64_t *unix_s)
{
	size_t len = strlen(text);
	char *copy = malloc(len + 1); /* without the NUL */
	bool is_date;

	assert_non_null(copy);
	memcpy(copy + 1, text, len);
	is_date = api_condition_date((struct api_slice){copy + 1, len}, unix_s);
	free(copy);
	return is_date;
}

static void
dates_are_written_and_read(void **state)
{
	char out[API_DATE_BYTES + 1] = "";
	uint64_t back;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(dates); i++) {
		api_date(dates[i].unix_s, out);
		assert_string_equal(out, dates[i].text);
		assert_true(read_date(out, &back));
		assert_int_equal(back, dates[i].unix_s);
	}
	/* later than the form can say */
	api_date(UINT64_MAX, out);
	assert_string_equal(out, "Fri, 31 Dec 9999 23:59:59 GMT");
}

/* Each day from 1970 to 2400 in all three forms, by the C library. */
static void
all_days_are_written_and_read_as_the_library_has_them(void **state)
{
	char out[API_DATE_BYTES + 1] = "", want[64];
	uint64_t back;
	size_t len;

	(void)state;
	for (uint64_t day = 0; day < 430 * 366; day++) {
		uint64_t unix_s = day * 86400 + day * 7919 % 86400;
		time_t at = (time_t)unix_s;
		struct tm tm;

		assert_non_null(gmtime_r(&at, &tm));
		strftime(want, sizeof(want), "%a, %d %b %Y %H:%M:%S GMT", &tm);
		api_date(unix_s, out);
		assert_string_equal(out, want);
		assert_true(read_date(want, &back));
		assert_int_equal(back, unix_s);
		strftime(want, sizeof(want), "%a %b %e %H:%M:%S %Y", &tm);
		assert_true(read_date(want, &back));
		assert_int_equal(back, unix_s);
		len = strftime(want, sizeof(want), "%A, %d-%b-", &tm);
		len += (size_t)snprintf(
		    want + len, 3, "%02u", (unsigned)tm.tm_year % 100u);
		strftime(want + len, sizeof(want) - len, " %H:%M:%S GMT", &tm);
		if (tm.tm_year >= 170)
			continue; /* two digits are of 1970 to 2069 */
		assert_true(read_date(want, &back));
		assert_int_equal(back, unix_s);
	}
}

static const struct {
	const char *text;
	uint64_t unix_s;
} foreign_dates[] = {
    {"Sunday, 06-Nov-94 08:49:37 GMT", 784111777},
    {"Sun Nov  6 08:49:37 1994", 784111777},
    {"Thursday, 01-Jan-70 00:00:00 GMT", 0},
    {"Tuesday, 31-Dec-69 23:59:59 GMT", 3155759999}, /* 2069 */
    {"Friday, 31-Dec-99 23:59:59 GMT", 946684799},
    {"Saturday, 01-Jan-00 00:00:00 GMT", 946684800},
    {"Sat Dec 31 23:59:60 2016", 1483228800}, /* a leap second */
    /* before the count begins */
    {"Wed, 31 Dec 1969 23:59:59 GMT", 0},
    {"Sat, 01 Jan 0000 00:00:00 GMT", 0},
    {"Fri Dec 13 20:45:52 1901", 0},
};

static const char *const no_dates[] = {"", " ", "0", "784111777", "Sun",
    "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 UTC",
    "Sun, 06 Nov 1994 08:49:37 GMT ", " Sun, 06 Nov 1994 08:49:37 GMT",
    "Sun, 06 Nov 1994 08:49:37 gmt", "sun, 06 Nov 1994 08:49:37 GMT",
    "Sun, 06 nov 1994 08:49:37 GMT", "Sun, 6 Nov 1994 08:49:37 GMT",
    "Sun, 06 Nov 94 08:49:37 GMT", "Sun,06 Nov 1994 08:49:37 GMT",
    "Sun, 06  Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 8:49:37 GMT",
    "Sun, 06 Nov 1994 08:49 GMT", "Sun, 06 Nov 1994 08:49:37 +0000",
    "Sun, 06 Nov 1994 24:00:00 GMT", "Sun, 06 Nov 1994 08:60:37 GMT",
    "Sun, 06 Nov 1994 08:49:61 GMT", "Sun, 00 Nov 1994 08:49:37 GMT",
    "Thu, 31 Nov 1994 08:49:37 GMT", "Wed, 29 Feb 1995 08:49:37 GMT",
    "Thu, 29 Feb 1900 08:49:37 GMT", "Mon, 29 Feb 2100 08:49:37 GMT",
    "Mon, 06 Nov 1994 08:49:37 GMT", /* it was a Sunday */
    "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
    "Sun, 06-Nov-94 08:49:37 GMT", "Sunday, 06-Nov-1994 08:49:37 GMT",
    "Sunday, 06 Nov 1994 08:49:37 GMT", "Monday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov 6 08:49:37 1994", "Sun Nov 06 08:49:37 94",
    "Sun Nov  6 08:49:37 1994 GMT", "Sun Nov   6 08:49:37 1994",
    "Sun Nov  0 08:49:37 1994", "-un, 06 Nov 1994 08:49:37 GMT",
    "Sun, -6 Nov 1994 08:49:37 GMT", "Sun, 06 Nov +994 08:49:37 GMT"};

static void
obsolete_forms_of_dates_are_read_as_well(void **state)
{
	uint64_t back;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(foreign_dates); i++) {
		if (!read_date(foreign_dates[i].text, &back))
			fail_msg("%s is a date", foreign_dates[i].text);
		assert_int_equal(back, foreign_dates[i].unix_s);
	}
}

static void
what_is_no_date_is_not_read(void **state)
{
	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(no_dates); i++) {
		uint64_t back = 42;

		if (read_date(no_dates[i], &back))
			fail_msg("%s is no date", no_dates[i]);
		assert_int_equal(back, 42);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(entity_tags_never_change),
	    cmocka_unit_test(versions_that_are_close_have_different_tags),
	    cmocka_unit_test(text_of_another_shape_is_no_tag_of_ours),
	    cmocka_unit_test(hashes_of_content_never_change),
	    cmocka_unit_test(content_hashes_the_same_however_it_is_cut),
	    cmocka_unit_test(
		lists_that_differ_in_one_place_have_different_hashes),
	    cmocka_unit_test(dates_are_written_and_read),
	    cmocka_unit_test(
		all_days_are_written_and_read_as_the_library_has_them),
	    cmocka_unit_test(obsolete_forms_of_dates_are_read_as_well),
	    cmocka_unit_test(what_is_no_date_is_not_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
