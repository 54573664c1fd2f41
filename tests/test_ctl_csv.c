/*
 * Goal: the CSV reader understands RFC 4180 text as it is written in the wild
 * and refuses, record by record, what it cannot understand.
 * Method: a table of texts with the records they mean; each is read in one
 * piece and in pieces of every size from a byte on, each piece in a heap block
 * of its exact size.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "ctl/ctl_csv.h"

/* clang-format off */
#define TEXT(literal) {(literal), sizeof(literal) - 1}
/* clang-format on */

/* Records are written as fields in <>, quoted ones in "", one a line with its
 * line number in front; refused ones as !error. */
static const struct csv_case {
	const char *name;
	struct api_slice text;
	const char *means;
} cases[] = {
    {"nothing", TEXT(""), ""},
    {"one field", TEXT("a\n"), "1<a>\n"},
    {"no end of the last line", TEXT("a,b\nc,d"), "1<a><b>\n2<c><d>\n"},
    {"CRLF", TEXT("a,b\r\nc,d\r\n"), "1<a><b>\n2<c><d>\n"},
    {"empty fields", TEXT(",\n,,\n"), "1<><>\n2<><><>\n"},
    {"an empty field at the end", TEXT("a,"), "1<a><>\n"},
    {"empty lines are passed over", TEXT("\n\r\na\n\nb\n\n"), "3<a>\n5<b>\n"},
    {"a quoted empty field is no empty line", TEXT("\"\"\n"), "1\"\"\n"},
    {"quoted and unquoted emptiness differ", TEXT("\"\",\n"), "1\"\"<>\n"},
    {"comma, quote and line ends in quotes",
	TEXT("\"a,b\",\"c\"\"d\",\"e\nf\r\ng\"\nh\n"),
	"1\"a,b\"\"c\"d\"\"e\nf\r\ng\"\n4<h>\n"},
    {"only doubled quotes", TEXT("\"\"\"\"\"\"\n"), "1\"\"\"\"\n"},
    {"quoted last field without a line end", TEXT("a,\"b\""), "1<a>\"b\"\n"},
    {"spaces belong to the field", TEXT(" a , b\n"), "1< a >< b>\n"},
    {"a byte order mark",
	TEXT("\xef\xbb\xbf"
	     "a,b\n"),
	"1<a><b>\n"},
    {"a byte order mark before a quote", TEXT("\xef\xbb\xbf\"a\",b\n"),
	"1\"a\"<b>\n"},
    {"a byte order mark alone", TEXT("\xef\xbb\xbf"), ""},
    {"a byte order mark later on is text",
	TEXT("a\n\xef\xbb\xbf"
	     "b\n"),
	"1<a>\n2<\xef\xbb\xbf"
	"b>\n"},
    {"half a byte order mark is text", TEXT("\xef\xbb,a\n"),
	"1<\xef\xbb><a>\n"},
    {"a quote inside", TEXT("a\"b,c\nd\n"),
	"1!a quote inside an unquoted field\n2<d>\n"},
    {"a space before the quote", TEXT("a, \"b\"\nc\n"),
	"1!a quote inside an unquoted field\n2<c>\n"},
    {"text after the closing quote", TEXT("\"a\"b\nc\n"),
	"1!text after a closing quote\n2<c>\n"},
    {"a quote never closed", TEXT("a\n\"b\nc\n"),
	"1<a>\n2!a quote that is never closed\n"},
    {"a bare CR", TEXT("a\rb\nc\n"),
	"1!a CR without LF outside quotes\n2<c>\n"},
    {"a CR at the very end", TEXT("a\nb\r"),
	"1<a>\n2!a CR without LF outside quotes\n"},
    {"two CR", TEXT("a\r\r\nb\n"), "1!a CR without LF outside quotes\n2<b>\n"},
    {"a NUL", TEXT("a\0b\nc\n"), "1!a NUL byte\n2<c>\n"},
    {"a NUL in quotes", TEXT("\"a\0\"\nc\n"), "1!a NUL byte\n2<c>\n"},
    {"a NUL first", TEXT("\0\nc\n"), "1!a NUL byte\n2<c>\n"},
    {"a bad last line", TEXT("a\nb\"c"),
	"1<a>\n2!a quote inside an unquoted field\n"},
    {"lines are counted through quoted fields and errors",
	TEXT("\"a\n\n\"\nb\"\nc\n"),
	"1\"a\n\n\"\n4!a quote inside an unquoted field\n5<c>\n"},
};

static struct ctl_csv csv;
static char said[1024];

static void
say(const char *data, size_t len)
{
	size_t at = strlen(said);

	assert_true(at + len < sizeof(said));
	memcpy(said + at, data, len);
	said[at + len] = '\0';
}

static void
say_record(enum ctl_csv_result result)
{
	char line[32];

	say(line,
	    (size_t)snprintf(line, sizeof(line), "%u", (unsigned)csv.line));
	if (result == CTL_CSV_BAD) {
		say("!", 1);
		say(csv.error, strlen(csv.error));
	}
	for (size_t i = 0; i < csv.fields_count; i++) {
		say(csv.field[i].is_quoted ? "\"" : "<", 1);
		say(csv.field[i].text.data, csv.field[i].text.len);
		say(csv.field[i].is_quoted ? "\"" : ">", 1);
	}
	say("\n", 1);
}

/* One piece, in a block of its own. */
static enum ctl_csv_result
read_piece(const char *data, size_t len, bool is_last)
{
	char *copy = malloc(len > 0 ? len : 1);
	struct api_slice input = {copy, len};
	enum ctl_csv_result result;

	assert_non_null(copy);
	memcpy(copy, data, len);
	while (
	    (result = ctl_csv_next(&csv, &input, is_last)) == CTL_CSV_RECORD ||
	    result == CTL_CSV_BAD)
		say_record(result);
	assert_int_equal(input.len, 0);
	free(copy);
	return result;
}

static void
read_in_pieces(const struct csv_case *c, size_t size)
{
	ctl_csv_init(&csv);
	said[0] = '\0';
	for (size_t at = 0; at < c->text.len; at += size)
		assert_int_equal(
		    read_piece(c->text.data + at,
			size < c->text.len - at ? size : c->text.len - at,
			false),
		    CTL_CSV_MORE);
	assert_int_equal(read_piece("", 0, true), CTL_CSV_END);
	if (strcmp(said, c->means) != 0)
		fail_msg("%s, pieces of %zu: got\n%s", c->name, size, said);
}

static void
text_means_the_same_in_pieces_of_every_size(void **state)
{
	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++)
		for (size_t size = 1; size <= cases[i].text.len + 1; size++)
			read_in_pieces(&cases[i], size);
}

static void
the_last_piece_may_carry_text(void **state)
{
	(void)state;
	ctl_csv_init(&csv);
	said[0] = '\0';
	assert_int_equal(read_piece("a,b\nc", 5, true), CTL_CSV_END);
	assert_string_equal(said, "1<a><b>\n2<c>\n");
}

/* count times c and a line end; then "x\n". */
static enum ctl_csv_result
read_many(const char *unit, size_t count, const char *tail)
{
	size_t unit_len = strlen(unit), len = unit_len * count;
	char *text = malloc(len + strlen(tail) + 1);
	struct api_slice input;
	enum ctl_csv_result result;

	assert_non_null(text);
	for (size_t i = 0; i < count; i++)
		memcpy(text + i * unit_len, unit, unit_len);
	memcpy(text + len, tail, strlen(tail) + 1);
	input = (struct api_slice){text, len + strlen(tail)};
	ctl_csv_init(&csv);
	result = ctl_csv_next(&csv, &input, true);
	if (result == CTL_CSV_BAD) {
		/* Goes on with the next line. */
		assert_int_equal(
		    ctl_csv_next(&csv, &input, true), CTL_CSV_RECORD);
		assert_int_equal(csv.fields_count, 1);
		assert_true(api_slice_is(csv.field[0].text, "x"));
		assert_int_equal(csv.line, 2);
	}
	free(text);
	return result;
}

static void
a_record_of_the_most_bytes_is_read_and_one_more_is_refused(void **state)
{
	(void)state;
	assert_int_equal(
	    read_many("a", CTL_CSV_RECORD_BYTES_MAX, "\nx\n"), CTL_CSV_RECORD);
	assert_int_equal(csv.field[0].text.len, CTL_CSV_RECORD_BYTES_MAX);
	assert_int_equal(
	    read_many("a", CTL_CSV_RECORD_BYTES_MAX + 1, "\nx\n"), CTL_CSV_BAD);
	assert_string_equal(csv.error, "the record is too long");
}

static void
the_most_fields_are_read_and_one_more_is_refused(void **state)
{
	(void)state;
	assert_int_equal(
	    read_many(",", CTL_CSV_FIELDS_MAX - 1, "\nx\n"), CTL_CSV_RECORD);
	assert_int_equal(csv.fields_count, CTL_CSV_FIELDS_MAX);
	assert_int_equal(
	    read_many(",", CTL_CSV_FIELDS_MAX, "\nx\n"), CTL_CSV_BAD);
	assert_string_equal(csv.error, "the record has too many fields");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(text_means_the_same_in_pieces_of_every_size),
	    cmocka_unit_test(the_last_piece_may_carry_text),
	    cmocka_unit_test(
		a_record_of_the_most_bytes_is_read_and_one_more_is_refused),
	    cmocka_unit_test(the_most_fields_are_read_and_one_more_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
