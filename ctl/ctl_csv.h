/*
 * RFC 4180 text, read record by record from pieces of any size: no I/O, no
 * allocation, every bound written here.
 *
 * Accepted beyond the RFC: lines that end with LF alone, a UTF-8 byte order
 * mark at the start, empty lines (passed over), a last line without an end.
 * Refused, each as a record of its own that the caller counts: a quote inside
 * an unquoted field, text after a closing quote, a quote that is never closed,
 * a bare CR, a NUL byte, too many fields, too long a record.
 */
#ifndef CTL_CSV_H
#define CTL_CSV_H

#include "api/api_slice.h"

#define CTL_CSV_FIELDS_MAX	 64
#define CTL_CSV_RECORD_BYTES_MAX 65536 /* of all fields after unquoting */

enum ctl_csv_result {
	CTL_CSV_RECORD = 0, /* field[] has the record */
	CTL_CSV_BAD,	    /* error says why; the next one begins a line on */
	CTL_CSV_MORE,	    /* the input is used up */
	CTL_CSV_END,	    /* the last input is used up */
};

struct ctl_csv_field {
	struct api_slice text; /* borrowed until the next call */
	bool is_quoted;	       /* "" is empty text, nothing at all is null */
};

/* About 66 KiB; the fields after error are private. */
struct ctl_csv {
	size_t fields_count;
	struct ctl_csv_field field[CTL_CSV_FIELDS_MAX];
	uint64_t line;	   /* on which the record begins, from 1 */
	const char *error; /* static text, after CTL_CSV_BAD */
	int state;
	uint64_t line_now;
	uint64_t input_bytes;
	size_t text_len;
	size_t field_at; /* where the field that is being read begins */
	bool field_is_quoted;
	char text[CTL_CSV_RECORD_BYTES_MAX];
};

void ctl_csv_init(struct ctl_csv *csv);

/*
 * Read on until a record ends.  *input is advanced past what was used; is_last
 * says that nothing comes after it.  Call again until CTL_CSV_MORE or
 * CTL_CSV_END.
 */
enum ctl_csv_result ctl_csv_next(
    struct ctl_csv *csv, struct api_slice *input, bool is_last) SHM_MUSTCHECK;

#endif
