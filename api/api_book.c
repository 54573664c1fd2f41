/*
 * A book between JSON, rules and rows.
 *
 * READING.  jansson parses, with duplicate keys refused and every number read
 * as a double.  Its depth is bounded by itself (2048 levels, a few hundred
 * bytes of stack each); how many values there are is bounded here before it
 * starts, because "[],[],[]..." costs it eighty times the bytes it reads.
 * Properties that are no field of ours are ignored, server-managed ones
 * included, so a client may send back what it was given.
 *
 * CHECKING.  Texts are as long as their code points.  Blank is what Java's
 * String.trim() makes empty: nothing beyond spaces and control characters.
 * The format of an ISBN is all that is asked of it: the samples that
 * came with the original contract fail the check digit.
 *
 * WRITING.  A row is written straight into the buffer after one reservation
 * for the worst case, since this is what each GET costs.  Cells are trusted in
 * their size (the statements cast each column) and not in their bytes (a
 * database with encoding SQL_ASCII stores anything).
 */
#include "config.h"

#include <math.h>
#include <stdio.h>

#include <jansson.h>

#include "api/api_book.h"
#include "api/api_date.h"
#include "api/api_number.h"

#define DAY_OF_2000 10957 /* from 1970-01-01; the database counts from it */

/* The columns of api_sql.c. */
enum column {
	COLUMN_ID = 0,
	COLUMN_ISBN,
	COLUMN_TITLE,
	COLUMN_AUTHOR,
	COLUMN_PRICE,
	COLUMN_PUBLISHER,
	COLUMN_CREATED_DATE,
	COLUMN_LAST_MODIFIED_DATE,
	COLUMN_CREATED_BY,
	COLUMN_LAST_MODIFIED_BY,
	COLUMN_VERSION,
};

_Static_assert(
    COLUMN_VERSION + 1 == API_BOOK_COLUMNS, "one cell for each column");

/* A row without its texts: names, punctuation, numbers, dates. */
#define ROW_FIXED_BYTES 512

#define PARSE_FLAGS \
	(JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL | JSON_DECODE_ANY)

/* A field and the sentences about it. */
struct field {
	const char *name;
	const char *undefined; /* NULL: need not be there */
	const char *wrong_type;
	const char *wrong_value; /* too long, malformed, not positive */
};

static const struct field fields[API_BOOK_FIELDS] = {
    [API_BOOK_ISBN] = {"isbn", "The book ISBN must be defined.",
	"The book ISBN must be a string.", "The ISBN format must be valid."},
    [API_BOOK_TITLE] = {"title", "The book title must be defined.",
	"The book title must be a string.",
	"The book title must have at most 255 characters."},
    [API_BOOK_AUTHOR] = {"author", "The book author must be defined.",
	"The book author must be a string.",
	"The book author must have at most 255 characters."},
    [API_BOOK_PRICE] = {"price", "The book price must be defined.",
	"The book price must be a number.",
	"The book price must be greater than zero."},
    [API_BOOK_PUBLISHER] = {"publisher", NULL,
	"The book publisher must be a string.",
	"The book publisher must have at most 255 characters."},
};

/* Where a text stops being acceptable. */
struct place {
	size_t line;
	size_t column; /* in bytes */
	size_t bytes;  /* before it */
};

/*
 * Count what can begin a value: an opening bracket, a comma.  False with the
 * place of the first one too many.
 */
static bool
values_are_few(struct api_slice body, struct place *place)
{
	size_t line = 1, line_start = 0, count = 0;
	bool quoted = false;

	for (size_t i = 0; i < body.len; i++) {
		char c = body.data[i];

		if (c == '"') {
			quoted = !quoted;
		} else if (quoted) {
			i += c == '\\'; /* an escaped quote is no end */
		} else if (c == '\n') {
			line++;
			line_start = i + 1;
		} else if ((c == '[' || c == '{' || c == ',') &&
			   ++count > API_BOOK_VALUES_MAX) {
			*place = (struct place){line, i - line_start + 1, i};
			return false;
		}
	}
	return true;
}

/* Own words for jansson's, which quote the client. */
static const char *
error_words(const json_error_t *error)
{
	switch (json_error_code(error)) {
	case json_error_out_of_memory:
		return "there is no memory for it";
	case json_error_stack_overflow:
		return "it is nested too deeply";
	case json_error_invalid_utf8:
		return "invalid UTF-8";
	case json_error_premature_end_of_input:
		return "it ends too early";
	case json_error_end_of_input_expected:
		return "something follows its end";
	case json_error_null_character:
	case json_error_null_byte_in_key:
		return "a NUL character";
	case json_error_duplicate_key:
		return "a duplicate property";
	case json_error_numeric_overflow:
		return "a number that is too large";
	default:
		return "a syntax error";
	}
}

static void
write_defect(
    char defect[API_BOOK_DEFECT_MAX], struct place place, const char *words)
{
	snprintf(defect, API_BOOK_DEFECT_MAX,
	    "The request body is not acceptable JSON at line %zu, column %zu"
	    " (byte %zu): %s.",
	    place.line, place.column, place.bytes, words);
}

struct json_t *
api_book_parse(struct api_slice body, char defect[API_BOOK_DEFECT_MAX])
{
	struct place place = {1, 1, 0};
	json_error_t error;
	json_t *document;

	if (body.len == 0) {
		write_defect(defect, place, "it is empty");
		return NULL;
	}
	if (!values_are_few(body, &place)) {
		write_defect(defect, place, "it has too many values");
		return NULL;
	}
	document = json_loadb(body.data, body.len, PARSE_FLAGS, &error);
	if (document == NULL) {
		place.line = error.line > 0 ? (size_t)error.line : 1;
		place.column = error.column > 0 ? (size_t)error.column : 0;
		place.bytes = error.position > 0 ? (size_t)error.position : 0;
		write_defect(defect, place, error_words(&error));
		return NULL;
	}
	if (!json_is_object(document)) {
		snprintf(defect, API_BOOK_DEFECT_MAX,
		    "The request body must be a JSON object.");
		json_decref(document);
		return NULL;
	}
	return document;
}

/* Java's trim() leaves nothing. */
static bool
is_blank(const char *text)
{
	while (*text != '\0')
		if ((uint8_t)*text++ > 0x20)
			return false;
	return true;
}

static bool
is_too_long(const char *text)
{
	struct api_slice slice = {text, strlen(text)};
	size_t points;

	return !api_utf8_is_valid(slice, &points) ||
	       points > API_BOOK_CHARS_MAX;
}

bool
api_book_isbn_is_valid(const char *isbn)
{
	size_t digits = strspn(isbn, "0123456789");

	return isbn[digits] == '\0' && (digits == 10 || digits == 13);
}

/* What is wrong with a text field, or NULL; *text becomes its value. */
static const char *
check_text(const json_t *document, enum api_book_field id, const char **text)
{
	const struct field *field = &fields[id];
	const json_t *value = json_object_get(document, field->name);
	bool is_bad;

	*text = NULL;
	if (value == NULL || json_is_null(value))
		return field->undefined;
	if (!json_is_string(value))
		return field->wrong_type;
	*text = json_string_value(value);
	if (field->undefined != NULL && is_blank(*text))
		return field->undefined;
	is_bad = id == API_BOOK_ISBN ? !api_book_isbn_is_valid(*text)
				     : is_too_long(*text);
	return is_bad ? field->wrong_value : NULL;
}

static const char *
check_price(const json_t *document, double *price)
{
	const struct field *field = &fields[API_BOOK_PRICE];
	const json_t *value = json_object_get(document, field->name);

	*price = 0;
	if (value == NULL || json_is_null(value))
		return field->undefined;
	if (!json_is_real(value))
		return field->wrong_type;
	*price = json_real_value(value);
	SHM_ASSERT(isfinite(*price)); /* jansson refuses what overflows */
	return *price > 0 ? NULL : field->wrong_value;
}

bool
api_book_check(const struct json_t *document, struct api_book *book,
    struct api_book_errors *errors)
{
	const char **message = errors->message;

	message[API_BOOK_ISBN] =
	    check_text(document, API_BOOK_ISBN, &book->isbn);
	message[API_BOOK_TITLE] =
	    check_text(document, API_BOOK_TITLE, &book->title);
	message[API_BOOK_AUTHOR] =
	    check_text(document, API_BOOK_AUTHOR, &book->author);
	message[API_BOOK_PRICE] = check_price(document, &book->price);
	message[API_BOOK_PUBLISHER] =
	    check_text(document, API_BOOK_PUBLISHER, &book->publisher);
	for (int i = 0; i < API_BOOK_FIELDS; i++)
		if (message[i] != NULL)
			return false;
	return true;
}

void
api_book_write_errors(const struct api_book_errors *errors, struct api_buf *buf)
{
	const char *before = "{\"";

	for (int i = 0; i < API_BOOK_FIELDS; i++) {
		if (errors->message[i] == NULL)
			continue;
		api_buf_text(buf, before);
		api_buf_text(buf, fields[i].name);
		api_buf_text(buf, "\":\"");
		api_buf_text(buf, errors->message[i]);
		before = "\",\"";
	}
	SHM_ASSERT(before[1] == ','); /* there was at least one */
	api_buf_text(buf, "\"}");
}

/* A column of 8 bytes; 0 for SQL NULL. */
static uint64_t
read_u64(const struct api_cell *cell)
{
	uint64_t value = 0;

	if (cell->data == NULL)
		return 0;
	SHM_ASSERT(cell->len == 8);
	for (int i = 0; i < 8; i++)
		value = value << 8 | (uint8_t)cell->data[i];
	return value;
}

#define PUT_LITERAL(at, text) \
	(memcpy((at), (text), sizeof(text) - 1), (at) + sizeof(text) - 1)

static char *
put_null(char *at)
{
	return PUT_LITERAL(at, "null");
}

static char *
put_text(char *at, const struct api_cell *cell)
{
	if (cell->data == NULL)
		return put_null(at);
	*at++ = '"';
	at = api_put_json(at, cell->data, cell->len);
	*at++ = '"';
	return at;
}

static char *
put_integer(char *at, const struct api_cell *cell)
{
	if (cell->data == NULL)
		return put_null(at);
	return api_put_i64(at, (int64_t)read_u64(cell));
}

static char *
put_double(char *at, const struct api_cell *cell)
{
	uint64_t bits;
	double value;

	if (cell->data == NULL)
		return put_null(at);
	bits = read_u64(cell);
	memcpy(&value, &bits, sizeof(value));
	return at + api_number_print(value, at);
}

static char *
put_four(char *at, unsigned value)
{
	return api_date_put_pair(
	    api_date_put_pair(at, value / 100), value % 100);
}

/* Years of more than four digits carry a sign, as ISO 8601 asks. */
static char *
put_year(char *at, int64_t year)
{
	if (year >= 0 && year <= 9999)
		return put_four(at, (unsigned)year);
	*at++ = year < 0 ? '-' : '+';
	year = year < 0 ? -year : year;
	if (year > 9999)
		return api_put_i64(at, year);
	return put_four(at, (unsigned)year);
}

static char *
put_day(char *at, int64_t day)
{
	struct api_date_civil civil = api_date_civil(day);

	at = put_year(at, civil.year);
	*at++ = '-';
	at = api_date_put_pair(at, civil.month);
	*at++ = '-';
	return api_date_put_pair(at, civil.day);
}

char *
api_book_put_date(char *at, int64_t us)
{
	const int64_t day_us = 86400000000;
	int64_t day = us / day_us, rest = us % day_us;
	unsigned seconds, micros;

	if (rest < 0) {
		rest += day_us;
		day--;
	}
	seconds = (unsigned)(rest / 1000000);
	micros = (unsigned)(rest % 1000000);
	at = put_day(at, day + DAY_OF_2000);
	*at++ = 'T';
	at = api_date_put_pair(at, seconds / 3600);
	*at++ = ':';
	at = api_date_put_pair(at, seconds / 60 % 60);
	*at++ = ':';
	at = api_date_put_pair(at, seconds % 60);
	*at++ = '.';
	at = api_date_put_pair(at, micros / 10000);
	at = put_four(at, micros % 10000);
	*at++ = 'Z';
	return at;
}

static char *
put_date(char *at, const struct api_cell *cell)
{
	int64_t us;

	if (cell->data == NULL)
		return put_null(at);
	us = (int64_t)read_u64(cell);
	if (us == INT64_MAX || us == INT64_MIN)
		return put_null(at); /* the infinities */
	*at++ = '"';
	at = api_book_put_date(at, us);
	*at++ = '"';
	return at;
}

void
api_book_write(const struct api_row *row, struct api_buf *buf)
{
	static const enum column texts[] = {COLUMN_ISBN, COLUMN_TITLE,
	    COLUMN_AUTHOR, COLUMN_PUBLISHER, COLUMN_CREATED_BY,
	    COLUMN_LAST_MODIFIED_BY};
	const struct api_cell *cell = row->cell;
	size_t text_bytes = 0;
	char *at;

	for (size_t i = 0; i < SHM_ARRAY_LEN(texts); i++)
		text_bytes += cell[texts[i]].len;
	at = api_buf_reserve(
	    buf, ROW_FIXED_BYTES + text_bytes * API_JSON_GROWTH);
	if (at == NULL)
		return;
	at = put_integer(PUT_LITERAL(at, "{\"id\":"), &cell[COLUMN_ID]);
	at = put_text(PUT_LITERAL(at, ",\"isbn\":"), &cell[COLUMN_ISBN]);
	at = put_text(PUT_LITERAL(at, ",\"title\":"), &cell[COLUMN_TITLE]);
	at = put_text(PUT_LITERAL(at, ",\"author\":"), &cell[COLUMN_AUTHOR]);
	at = put_double(PUT_LITERAL(at, ",\"price\":"), &cell[COLUMN_PRICE]);
	at = put_text(
	    PUT_LITERAL(at, ",\"publisher\":"), &cell[COLUMN_PUBLISHER]);
	at = put_date(
	    PUT_LITERAL(at, ",\"createdDate\":"), &cell[COLUMN_CREATED_DATE]);
	at = put_date(PUT_LITERAL(at, ",\"lastModifiedDate\":"),
	    &cell[COLUMN_LAST_MODIFIED_DATE]);
	at = put_text(
	    PUT_LITERAL(at, ",\"createdBy\":"), &cell[COLUMN_CREATED_BY]);
	at = put_text(PUT_LITERAL(at, ",\"lastModifiedBy\":"),
	    &cell[COLUMN_LAST_MODIFIED_BY]);
	at = put_integer(
	    PUT_LITERAL(at, ",\"version\":"), &cell[COLUMN_VERSION]);
	*at++ = '}';
	buf->len = (size_t)(at - buf->data);
	SHM_ASSERT(buf->len <= buf->cap);
}

/* Whole seconds of Unix time; 0 for none and what does not fit: the
 * infinities, before 1970, after 2106. */
static uint32_t
unix_seconds(const struct api_cell *cell)
{
	const int64_t epoch_s = 946684800; /* of 2000-01-01 */
	int64_t us = (int64_t)read_u64(cell);
	int64_t seconds = us / 1000000 - (us % 1000000 < 0) + epoch_s;

	if (cell->data == NULL || seconds < 0 || seconds > UINT32_MAX)
		return 0;
	return (uint32_t)seconds;
}

struct api_version
api_book_version(const struct api_row *row)
{
	return (struct api_version){
	    .id = read_u64(&row->cell[COLUMN_ID]),
	    .row_version = (uint32_t)read_u64(&row->cell[COLUMN_VERSION]),
	    .modified_s = unix_seconds(&row->cell[COLUMN_LAST_MODIFIED_DATE]),
	};
}
