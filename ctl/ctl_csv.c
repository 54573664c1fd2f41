/*
 * One byte moves one state:
 *
 *	START   at the first byte of a record
 *	FIELD   at the first byte of a field that is not the record's first
 *	PLAIN   inside an unquoted field
 *	QUOTED  inside a quoted field
 *	QUOTE   after a quote in a quoted field: its end, or half of a pair
 *	CR      after a CR outside quotes: only LF may follow
 *	SKIP    after an error: up to the end of the line
 *
 * INVARIANTS
 *   I1  text[0..text_len) holds the fields of this record without their
 *       quotes, one after the other; text_len <= CTL_CSV_RECORD_BYTES_MAX.
 *   I2  field[0..fields_count) are complete; the one being read begins at
 *       field_at.
 *   I3  every byte of the input is looked at once, so the pieces it comes in
 *       change nothing.
 *
 * A broken record is given up at the end of its line.  What follows an odd
 * quote cannot be known; going on with the next line loses the fewest rows
 * when the quote was a typing error.
 */
#include "config.h"

#include "ctl/ctl_csv.h"

enum csv_state {
	CSV_START = 0,
	CSV_FIELD,
	CSV_PLAIN,
	CSV_QUOTED,
	CSV_QUOTE,
	CSV_CR,
	CSV_SKIP,
};

static void
record_begin(struct ctl_csv *csv)
{
	csv->state = CSV_START;
	csv->fields_count = 0;
	csv->text_len = 0;
	csv->field_at = 0;
	csv->field_is_quoted = false;
	csv->line = csv->line_now;
}

/* The record is refused; what is left of its line is passed over. */
static enum ctl_csv_result
record_bad(struct ctl_csv *csv, const char *error, char c)
{
	csv->error = error;
	csv->fields_count = 0;
	csv->state = c == '\n' ? CSV_START : CSV_SKIP;
	return CTL_CSV_BAD;
}

static enum ctl_csv_result
field_byte(struct ctl_csv *csv, char c)
{
	if (csv->text_len == sizeof(csv->text))
		return record_bad(csv, "the record is too long", c);
	csv->text[csv->text_len++] = c;
	return CTL_CSV_MORE;
}

static enum ctl_csv_result
field_end(struct ctl_csv *csv, char c)
{
	struct ctl_csv_field *field;

	if (csv->fields_count == CTL_CSV_FIELDS_MAX)
		return record_bad(csv, "the record has too many fields", c);
	field = &csv->field[csv->fields_count++];
	field->text.data = csv->text + csv->field_at;
	field->text.len = csv->text_len - csv->field_at;
	field->is_quoted = csv->field_is_quoted;
	csv->field_at = csv->text_len;
	csv->field_is_quoted = false;
	csv->state = CSV_FIELD;
	return CTL_CSV_MORE;
}

static enum ctl_csv_result
record_end(struct ctl_csv *csv, char c)
{
	if (field_end(csv, c) == CTL_CSV_BAD)
		return CTL_CSV_BAD;
	csv->state = CSV_START;
	return CTL_CSV_RECORD;
}

/* A byte outside quotes, where a field may go on or end. */
static enum ctl_csv_result
plain_byte(struct ctl_csv *csv, char c)
{
	switch (c) {
	case ',':
		return field_end(csv, c);
	case '\n':
		return record_end(csv, c);
	case '\r':
		csv->state = CSV_CR;
		return CTL_CSV_MORE;
	case '"':
		return record_bad(csv, "a quote inside an unquoted field", c);
	default:
		csv->state = CSV_PLAIN;
		return field_byte(csv, c);
	}
}

static enum ctl_csv_result
start_byte(struct ctl_csv *csv, char c)
{
	if (c == '"') {
		csv->field_is_quoted = true;
		csv->state = CSV_QUOTED;
		return CTL_CSV_MORE;
	}
	return plain_byte(csv, c);
}

static enum ctl_csv_result
quoted_byte(struct ctl_csv *csv, char c)
{
	if (c == '"') {
		csv->state = CSV_QUOTE;
		return CTL_CSV_MORE;
	}
	return field_byte(csv, c);
}

static enum ctl_csv_result
quote_byte(struct ctl_csv *csv, char c)
{
	switch (c) {
	case '"':
		csv->state = CSV_QUOTED;
		return field_byte(csv, c);
	case ',':
	case '\n':
	case '\r':
		return plain_byte(csv, c);
	default:
		return record_bad(csv, "text after a closing quote", c);
	}
}

static enum ctl_csv_result
byte_step(struct ctl_csv *csv, char c)
{
	if (c == '\0' && csv->state != CSV_SKIP)
		return record_bad(csv, "a NUL byte", c);
	switch ((enum csv_state)csv->state) {
	case CSV_START:
	case CSV_FIELD:
		return start_byte(csv, c);
	case CSV_PLAIN:
		return plain_byte(csv, c);
	case CSV_QUOTED:
		return quoted_byte(csv, c);
	case CSV_QUOTE:
		return quote_byte(csv, c);
	case CSV_CR:
		if (c == '\n')
			return record_end(csv, c);
		return record_bad(csv, "a CR without LF outside quotes", c);
	case CSV_SKIP:
		if (c == '\n')
			csv->state = CSV_START;
		return CTL_CSV_MORE;
	}
	SHM_ASSERT(false);
}

/* Is a record that has just ended an empty line? */
static bool
record_is_empty(const struct ctl_csv *csv)
{
	return csv->fields_count == 1 && csv->text_len == 0 &&
	       !csv->field[0].is_quoted;
}

/* The input ends inside a record, perhaps. */
static enum ctl_csv_result
input_end(struct ctl_csv *csv)
{
	enum ctl_csv_result result;

	switch ((enum csv_state)csv->state) {
	case CSV_START:
	case CSV_SKIP:
		return CTL_CSV_END;
	case CSV_QUOTED:
		result = record_bad(csv, "a quote that is never closed", '\0');
		break;
	case CSV_CR:
		result =
		    record_bad(csv, "a CR without LF outside quotes", '\0');
		break;
	default:
		result = record_end(csv, '\n');
		break;
	}
	csv->state = CSV_START;
	return result;
}

/* The first three bytes of the input are known: forget a byte order mark. */
static void
bom_drop(struct ctl_csv *csv)
{
	static const char bom[] = "\xef\xbb\xbf";

	if (csv->state == CSV_PLAIN && csv->text_len == 3 &&
	    memcmp(csv->text, bom, 3) == 0)
		record_begin(csv);
}

void
ctl_csv_init(struct ctl_csv *csv)
{
	csv->line_now = 1;
	csv->input_bytes = 0;
	csv->error = NULL;
	record_begin(csv);
}

enum ctl_csv_result
ctl_csv_next(struct ctl_csv *csv, struct api_slice *input, bool is_last)
{
	enum ctl_csv_result result;
	char c;

	while (input->len > 0) {
		c = *input->data++;
		input->len--;
		if (csv->state == CSV_START)
			record_begin(csv);
		result = byte_step(csv, c);
		csv->line_now += c == '\n';
		if (++csv->input_bytes == 3)
			bom_drop(csv);
		if (result == CTL_CSV_BAD ||
		    (result == CTL_CSV_RECORD && !record_is_empty(csv)))
			return result;
	}
	return is_last ? input_end(csv) : CTL_CSV_MORE;
}
