/*
 * Goal: a book in JSON is accepted exactly when the contract says so, with the
 * contract's sentences; a row of the database becomes the contract's JSON to
 * the byte.
 * Method: tables of documents with the expected errors; hostile documents of
 * the largest size; tables of dates, checked again against gmtime_r(3).
 */
#include "config.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>
#include <jansson.h>

#include "api/api_book.h"
#include "tests/api_test.h"

#define ISBN_UNDEFINED	 "The book ISBN must be defined."
#define ISBN_FORMAT	 "The ISBN format must be valid."
#define TITLE_UNDEFINED	 "The book title must be defined."
#define AUTHOR_UNDEFINED "The book author must be defined."
#define PRICE_UNDEFINED	 "The book price must be defined."
#define PRICE_ZERO	 "The book price must be greater than zero."

/* A document with one property replaced: the rest is a good book. */
#define BOOK(isbn, title, author, price, rest)                      \
	"{\"isbn\":" isbn ",\"title\":" title ",\"author\":" author \
	",\"price\":" price rest "}"
#define GOOD_ISBN	  "\"9780201134476\""
#define WITH_ISBN(isbn)	  BOOK(isbn, "\"t\"", "\"a\"", "9.9", "")
#define WITH_TITLE(title) BOOK(GOOD_ISBN, title, "\"a\"", "9.9", "")
#define WITH_PRICE(price) BOOK(GOOD_ISBN, "\"t\"", "\"a\"", price, "")
#define WITH_REST(rest)	  BOOK(GOOD_ISBN, "\"t\"", "\"a\"", "9.9", rest)

static const struct {
	const char *document;
	const char *message[API_BOOK_FIELDS]; /* all NULL: accepted */
} cases[] = {
    {WITH_REST(""), {NULL}},
    {WITH_ISBN("\"0123456789\""), {NULL}},
    {WITH_ISBN("\"1234567890123\""), {NULL}},
    {WITH_ISBN("\"\""), {ISBN_UNDEFINED}},
    {WITH_ISBN("\" \\t\\n\\u0001\""), {ISBN_UNDEFINED}},
    {WITH_ISBN("null"), {ISBN_UNDEFINED}},
    {WITH_ISBN("\"123456789\""), {ISBN_FORMAT}},
    {WITH_ISBN("\"12345678901\""), {ISBN_FORMAT}},
    {WITH_ISBN("\"123456789012\""), {ISBN_FORMAT}},
    {WITH_ISBN("\"12345678901234\""), {ISBN_FORMAT}},
    {WITH_ISBN("\"123456789X\""), {ISBN_FORMAT}},
    {WITH_ISBN("\"978-0201134476\""), {ISBN_FORMAT}},
    {WITH_ISBN("\"9780201134476\\n\""), {ISBN_FORMAT}},
    {WITH_ISBN("\" 9780201134476\""), {ISBN_FORMAT}},
    {WITH_ISBN("\"\xd9\xa1\xd9\xa1\xd9\xa1\xd9\xa1\xd9\xa1\""),
	{ISBN_FORMAT}}, /* digits elsewhere */
    {WITH_ISBN("9780201134476"), {"The book ISBN must be a string."}},
    {WITH_ISBN("[]"), {"The book ISBN must be a string."}},
    {WITH_TITLE("\" \""), {NULL, TITLE_UNDEFINED}},
    {WITH_TITLE("\"\\u00a0\""), {NULL}}, /* trim() leaves it */
    {WITH_TITLE("\" t\\u0001\""), {NULL}},
    {WITH_TITLE("null"), {NULL, TITLE_UNDEFINED}},
    {WITH_TITLE("7"), {NULL, "The book title must be a string."}},
    {WITH_TITLE("{}"), {NULL, "The book title must be a string."}},
    {WITH_PRICE("0.01"), {NULL}},
    {WITH_PRICE("10"), {NULL}},
    {WITH_PRICE("123456789012345678901234567890"), {NULL}},
    {WITH_PRICE("1e308"), {NULL}},
    {WITH_PRICE("5e-324"), {NULL}},
    {WITH_PRICE("0"), {NULL, NULL, NULL, PRICE_ZERO}},
    {WITH_PRICE("-0"), {NULL, NULL, NULL, PRICE_ZERO}},
    {WITH_PRICE("-0.0"), {NULL, NULL, NULL, PRICE_ZERO}},
    {WITH_PRICE("-1"), {NULL, NULL, NULL, PRICE_ZERO}},
    {WITH_PRICE("1e-400"), {NULL, NULL, NULL, PRICE_ZERO}},
    {WITH_PRICE("null"), {NULL, NULL, NULL, PRICE_UNDEFINED}},
    {WITH_PRICE("\"9.9\""),
	{NULL, NULL, NULL, "The book price must be a number."}},
    {WITH_PRICE("true"),
	{NULL, NULL, NULL, "The book price must be a number."}},
    {WITH_PRICE("[1]"), {NULL, NULL, NULL, "The book price must be a number."}},
    {WITH_REST(",\"publisher\":null"), {NULL}},
    {WITH_REST(",\"publisher\":\"\""), {NULL}},
    {WITH_REST(",\"publisher\":\" \""), {NULL}},
    {WITH_REST(",\"publisher\":3"),
	{NULL, NULL, NULL, NULL, "The book publisher must be a string."}},
    {WITH_REST(",\"id\":\"x\",\"version\":[],\"createdDate\":{},"
	       "\"lastModifiedDate\":false,\"createdBy\":1,"
	       "\"lastModifiedBy\":{\"a\":[1]},\"x\":1e9,\"Isbn\":0"),
	{NULL}},
    {"{}",
	{ISBN_UNDEFINED, TITLE_UNDEFINED, AUTHOR_UNDEFINED, PRICE_UNDEFINED}},
    {BOOK("1", "2", "3", "\"4\"", ",\"publisher\":5"),
	{"The book ISBN must be a string.", "The book title must be a string.",
	    "The book author must be a string.",
	    "The book price must be a number.",
	    "The book publisher must be a string."}},
};

static struct json_t *
parse_copy(const char *text, size_t len, char defect[API_BOOK_DEFECT_MAX])
{
	char *copy = malloc(len > 0 ? len : 1);
	struct json_t *document;

	assert_non_null(copy);
	memcpy(copy, text, len);
	document = api_book_parse((struct api_slice){copy, len}, defect);
	free(copy);
	return document;
}

static struct json_t *
parse_good(const char *text)
{
	char defect[API_BOOK_DEFECT_MAX];
	struct json_t *document = parse_copy(text, strlen(text), defect);

	if (document == NULL)
		fail_msg("%s: %s", text, defect);
	return document;
}

static void
each_book_is_judged_by_the_contracts_sentences(void **state)
{
	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++) {
		struct json_t *document = parse_good(cases[i].document);
		struct api_book_errors errors;
		struct api_book book;
		bool ok = api_book_check(document, &book, &errors);

		for (int field = 0; field < API_BOOK_FIELDS; field++) {
			const char *want = cases[i].message[field];
			const char *got = errors.message[field];

			if ((want == NULL) != (got == NULL) ||
			    (want != NULL && strcmp(want, got) != 0))
				fail_msg("%s: \"%s\", not \"%s\"",
				    cases[i].document, got, want);
			ok = ok && want == NULL;
		}
		for (int field = 0; field < API_BOOK_FIELDS; field++)
			assert_false(ok && cases[i].message[field] != NULL);
		json_decref(document);
	}
}

static void
a_good_book_gives_its_values(void **state)
{
	struct json_t *document = parse_good(BOOK("\"0123456789\"",
	    "\"T\\u00e9 \"", "\"A\"", "1e-7", ",\"publisher\":\" \""));
	struct api_book_errors errors;
	struct api_book book;

	(void)state;
	assert_true(api_book_check(document, &book, &errors));
	assert_string_equal(book.isbn, "0123456789");
	assert_string_equal(book.title, "T\xc3\xa9 ");
	assert_string_equal(book.author, "A");
	assert_string_equal(book.publisher, " ");
	assert_true(book.price == 1e-7);
	json_decref(document);
}

/* A title of count code points, each of the bytes given. */
static const char *
title_message(const char *point, int count)
{
	struct api_book_errors errors;
	struct api_book book;
	struct json_t *document;
	char text[4096];
	int len;

	len = sprintf(text,
	    "{\"isbn\":\"0123456789\",\"author\":\"a\",\"price\":1,"
	    "\"title\":\"");
	for (int i = 0; i < count; i++)
		len += sprintf(text + len, "%s", point);
	sprintf(text + len, "\"}");
	document = parse_good(text);
	if (api_book_check(document, &book, &errors))
		errors.message[API_BOOK_TITLE] = NULL;
	json_decref(document);
	return errors.message[API_BOOK_TITLE];
}

static void
texts_are_measured_in_code_points(void **state)
{
	static const char *const points[] = {"a", "\xc3\xa9", "\xe2\x82\xac",
	    "\xf0\x9f\x93\x9a", "\\ud83d\\udcda"};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(points); i++) {
		assert_null(title_message(points[i], 255));
		assert_string_equal(title_message(points[i], 256),
		    "The book title must have at most 255 characters.");
	}
}

#define AT(line, column, byte, words)                           \
	"The request body is not acceptable JSON at line " line \
	", column " column " (byte " byte "): " words "."

static const struct {
	const char *document, *defect;
} malformed[] = {
    {"", AT("1", "1", "0", "it is empty")},
    {"{", AT("1", "1", "1", "it ends too early")},
    {"{\n\n  x}", AT("3", "3", "6", "a syntax error")},
    {"{\"a\":1,\"a\":2}", AT("1", "10", "10", "a duplicate property")},
    {"{\"a\":\"\xff\"}", AT("1", "6", "6", "invalid UTF-8")},
    {"{\"a\":\"\\u0000\"}", AT("1", "13", "13", "a NUL character")},
    {"{\"\\u0000\":1}", AT("1", "9", "9", "a NUL character")},
    {"{\"a\":\"\\ud800\"}", AT("1", "13", "13", "a syntax error")},
    {"{\"a\":NaN}", AT("1", "8", "8", "a syntax error")},
    {"{\"a\":Infinity}", AT("1", "13", "13", "a syntax error")},
    {"{\"a\":1e999}", AT("1", "10", "10", "a number that is too large")},
    {"{\"a\":-1e999}", AT("1", "11", "11", "a number that is too large")},
    {"{\"a\":01}", AT("1", "6", "6", "a syntax error")},
    {"{\"a\":1,}", AT("1", "8", "8", "a syntax error")},
    {"{'a':1}", AT("1", "2", "2", "a syntax error")},
    {"{} x", AT("1", "4", "4", "something follows its end")},
    {"{}{}", AT("1", "3", "3", "something follows its end")},
    {"\xef\xbb\xbf{}", NULL},
    {"// c\n{}", NULL},
    {"nul", NULL},
    {"[]", "The request body must be a JSON object."},
    {"null", "The request body must be a JSON object."},
    {"7", "The request body must be a JSON object."},
    {"\"{}\"", "The request body must be a JSON object."},
};

static void
malformed_documents_are_refused_with_the_place(void **state)
{
	char defect[API_BOOK_DEFECT_MAX];

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(malformed); i++) {
		const char *text = malformed[i].document;

		assert_null(parse_copy(text, strlen(text), defect));
		if (malformed[i].defect != NULL &&
		    strcmp(defect, malformed[i].defect) != 0)
			fail_msg("%s: %s", text, defect);
		assert_true(strlen(defect) > 0);
	}
	assert_null(parse_copy("{}\0", 3, defect));
	assert_null(parse_copy("{\"a\":\"\0\"}", 9, defect));
}

/* piece, again and again up to a mebibyte. */
static const char *
defect_of_many(const char *piece)
{
	static char defect[API_BOOK_DEFECT_MAX];
	const size_t size = 1 << 20, len = strlen(piece);
	char *text = malloc(size);

	assert_non_null(text);
	for (size_t i = 0; i < size; i++)
		text[i] = piece[i % len];
	assert_null(parse_copy(text, size, defect));
	free(text);
	return defect;
}

static void
a_mebibyte_of_malice_is_refused(void **state)
{
	(void)state;
	assert_non_null(strstr(defect_of_many("["), "too many values"));
	assert_non_null(strstr(defect_of_many("{\"a\":"), "too many values"));
	assert_non_null(strstr(defect_of_many("[],"), "too many values"));
	assert_non_null(strstr(defect_of_many("1"), "too large"));
	assert_non_null(strstr(defect_of_many("\""), "byte"));
	assert_non_null(strstr(defect_of_many(" "), "ends too early"));
}

static void
depth_is_bounded_by_itself(void **state)
{
	char text[8192], defect[API_BOOK_DEFECT_MAX];

	(void)state;
	memset(text, '[', sizeof(text));
	assert_null(parse_copy(text, sizeof(text), defect));
	assert_non_null(strstr(defect, "nested too deeply"));
}

static void
commas_inside_of_strings_are_no_values(void **state)
{
	const size_t size = 100000;
	char defect[API_BOOK_DEFECT_MAX], *text = malloc(size);
	struct json_t *document;

	(void)state;
	assert_non_null(text);
	memset(text, ',', size);
	memcpy(text, "{\"a\":\"\\\"", 8);
	memcpy(text + size - 2, "\"}", 2);
	document = parse_copy(text, size, defect);
	if (document == NULL)
		fail_msg("%s", defect);
	json_decref(document);
	free(text);
}

static void
errors_are_written_as_a_flat_object(void **state)
{
	struct api_book_errors errors = {
	    .message = {[API_BOOK_TITLE] = "T.", [API_BOOK_PRICE] = "P."}};
	struct api_buf buf = {.data = NULL};

	(void)state;
	api_book_write_errors(&errors, &buf);
	assert_true(api_slice_is(
	    api_buf_slice(&buf), "{\"title\":\"T.\",\"price\":\"P.\"}"));
	api_buf_fini(&buf);
}

static void
expect_row(const struct test_row *row, const char *json)
{
	struct api_buf buf = {.data = NULL};

	api_book_write(&row->row, &buf);
	assert_false(buf.failed);
	if (!api_slice_is(api_buf_slice(&buf), json))
		fail_msg("%.*s", (int)buf.len, buf.data);
	api_buf_fini(&buf);
}

static void
a_row_becomes_the_contracts_json(void **state)
{
	struct test_row row;

	(void)state;
	test_row_make(&row,
	    &(struct test_book){7, "9780201134476", "The \"Art\"",
		"D. E. Kn\xc3\xbcth", 9.9, "A\\W", 0, 1, "ann", "bob", 3});
	expect_row(&row,
	    "{\"id\":7,\"isbn\":\"9780201134476\","
	    "\"title\":\"The \\\"Art\\\"\",\"author\":\"D. E. Kn\xc3\xbcth\","
	    "\"price\":9.9,\"publisher\":\"A\\\\W\","
	    "\"createdDate\":\"2000-01-01T00:00:00.000000Z\","
	    "\"lastModifiedDate\":\"2000-01-01T00:00:00.000001Z\","
	    "\"createdBy\":\"ann\",\"lastModifiedBy\":\"bob\",\"version\":3}");
}

static void
nulls_infinities_and_bad_utf8_stay_json(void **state)
{
	struct test_row row;

	(void)state;
	test_row_make(
	    &row, &(struct test_book){INT64_MIN, "", "\xff", "\n", INFINITY,
		      NULL, INT64_MAX, INT64_MIN, NULL, NULL, INT64_MAX});
	expect_row(&row,
	    "{\"id\":-9223372036854775808,\"isbn\":\"\","
	    "\"title\":\"\xef\xbf\xbd\",\"author\":\"\\n\","
	    "\"price\":null,\"publisher\":null,\"createdDate\":null,"
	    "\"lastModifiedDate\":null,\"createdBy\":null,"
	    "\"lastModifiedBy\":null,\"version\":9223372036854775807}");
	for (int i = 0; i < API_BOOK_COLUMNS; i++)
		row.row.cell[i] = (struct api_cell){NULL, 0};
	expect_row(&row,
	    "{\"id\":null,\"isbn\":null,\"title\":null,\"author\":null,"
	    "\"price\":null,\"publisher\":null,\"createdDate\":null,"
	    "\"lastModifiedDate\":null,\"createdBy\":null,"
	    "\"lastModifiedBy\":null,\"version\":null}");
}

static void
a_row_that_has_no_room_fails_the_buffer(void **state)
{
	struct api_buf buf = {.bytes_max = 1024};
	struct test_row row;
	char title[256];

	(void)state;
	memset(title, 'x', sizeof(title));
	title[255] = '\0';
	test_row_make(&row, &(struct test_book){1, "1", title, "a", 1, NULL, 0,
				0, NULL, NULL, 1});
	api_book_write(&row.row, &buf);
	assert_true(buf.failed);
	assert_int_equal(buf.len, 0);
	api_buf_fini(&buf);
}

#define DAY INT64_C(86400000000)

static const struct {
	int64_t us;
	const char *text;
} dates[] = {
    {0, "2000-01-01T00:00:00.000000Z"},
    {-1, "1999-12-31T23:59:59.999999Z"},
    {59 * DAY, "2000-02-29T00:00:00.000000Z"},
    {60 * DAY, "2000-03-01T00:00:00.000000Z"},
    {DAY - 1, "2000-01-01T23:59:59.999999Z"},
    {-10957 * DAY, "1970-01-01T00:00:00.000000Z"},
    {366 * DAY, "2001-01-01T00:00:00.000000Z"},
    {INT64_C(252455615999999999), "9999-12-31T23:59:59.999999Z"},
    {INT64_C(252455616000000000), "+10000-01-01T00:00:00.000000Z"},
    {-730119 * DAY, "0001-01-01T00:00:00.000000Z"},
    {-730120 * DAY, "0000-12-31T00:00:00.000000Z"},
    {-730485 * DAY, "0000-01-01T00:00:00.000000Z"},
    {-730486 * DAY, "-0001-12-31T00:00:00.000000Z"},
    {INT64_C(9223371331199999999), "+294276-12-31T23:59:59.999999Z"},
    {INT64_C(-211813488000000000), "-4713-11-24T00:00:00.000000Z"},
};

static void
dates_are_iso_8601_with_six_digits(void **state)
{
	char text[API_BOOK_DATE_BYTES_MAX + 1];

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(dates); i++) {
		*api_book_put_date(text, dates[i].us) = '\0';
		assert_string_equal(text, dates[i].text);
	}
}

static void
every_day_of_a_millennium_is_the_c_librarys(void **state)
{
	char text[API_BOOK_DATE_BYTES_MAX + 1], want[64];
	struct tm tm;

	(void)state;
	for (int64_t day = -200000; day < 200000; day++) {
		time_t seconds = (time_t)((day + 10957) * 86400 + 45296);

		assert_non_null(gmtime_r(&seconds, &tm));
		strftime(want, sizeof(want), "%Y-%m-%dT%H:%M:%S.000789Z", &tm);
		*api_book_put_date(text, day * DAY + INT64_C(45296000789)) =
		    '\0';
		assert_string_equal(text, want);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(each_book_is_judged_by_the_contracts_sentences),
	    cmocka_unit_test(a_good_book_gives_its_values),
	    cmocka_unit_test(texts_are_measured_in_code_points),
	    cmocka_unit_test(malformed_documents_are_refused_with_the_place),
	    cmocka_unit_test(a_mebibyte_of_malice_is_refused),
	    cmocka_unit_test(depth_is_bounded_by_itself),
	    cmocka_unit_test(commas_inside_of_strings_are_no_values),
	    cmocka_unit_test(errors_are_written_as_a_flat_object),
	    cmocka_unit_test(a_row_becomes_the_contracts_json),
	    cmocka_unit_test(nulls_infinities_and_bad_utf8_stay_json),
	    cmocka_unit_test(a_row_that_has_no_room_fails_the_buffer),
	    cmocka_unit_test(dates_are_iso_8601_with_six_digits),
	    cmocka_unit_test(every_day_of_a_millennium_is_the_c_librarys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
