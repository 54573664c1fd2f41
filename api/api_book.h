/*
 * The book: read from a client's JSON, checked, and written from a row of the
 * database.
 */
#ifndef API_BOOK_H
#define API_BOOK_H

#include "api/api.h"

struct json_t;

#define API_BOOK_CHARS_MAX  255	  /* of a text, in code points: 400 */
#define API_BOOK_VALUES_MAX 10000 /* values in one document: 400 */
#define API_BOOK_DEFECT_MAX 160

/* What a client may set. */
enum api_book_field {
	API_BOOK_ISBN = 0,
	API_BOOK_TITLE,
	API_BOOK_AUTHOR,
	API_BOOK_PRICE,
	API_BOOK_PUBLISHER,
	API_BOOK_FIELDS,
};

/* A checked book; texts are borrowed from the document. */
struct api_book {
	const char *isbn;
	const char *title;
	const char *author;
	const char *publisher; /* NULL: none */
	double price;	       /* finite, > 0 */
};

/* What is wrong with each field; static sentences, NULL where nothing is. */
struct api_book_errors {
	const char *message[API_BOOK_FIELDS];
};

/*
 * Parse a body into an object, which the caller owns (json_decref); NULL with
 * one sentence in defect when it is no JSON or not an object.  The sentence
 * holds no client bytes.
 */
struct json_t *api_book_parse(
    struct api_slice body, char defect[API_BOOK_DEFECT_MAX]) SHM_MUSTCHECK;

/* Check all fields.  True: *book is filled; else *errors says why. */
bool api_book_check(const struct json_t *document, struct api_book *book,
    struct api_book_errors *errors) SHM_MUSTCHECK;

/* The errors as a flat JSON object, property to sentence. */
void api_book_write_errors(
    const struct api_book_errors *errors, struct api_buf *buf);

/* The stored book as JSON. */
void api_book_write(const struct api_row *row, struct api_buf *buf);

/* Which state of which book the row is. */
struct api_version api_book_version(const struct api_row *row);

/* ISO 8601 in UTC of a timestamp in PostgreSQL's binary format (microseconds
 * since 2000-01-01), without quotes: at most API_BOOK_DATE_BYTES_MAX. */
#define API_BOOK_DATE_BYTES_MAX 32
char *api_book_put_date(char *at, int64_t us);

/* "0123456789" or "0123456789012": digits only, no check digit. */
bool api_book_isbn_is_valid(const char *isbn);

#endif
