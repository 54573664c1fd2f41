/*
 * For the tests of api/: rows as the database sends them in binary format.
 */
#ifndef TESTS_API_TEST_H
#define TESTS_API_TEST_H

#include "api/api.h"

struct test_book {
	int64_t id;
	const char *isbn, *title, *author;
	double price;
	const char *publisher;
	int64_t created_us, modified_us; /* since 2000-01-01 */
	const char *created_by, *modified_by;
	int64_t version;
};

struct test_row {
	struct api_row row;
	char number[API_BOOK_COLUMNS][8];
};

static inline void
test_row_u64(struct test_row *row, int column, uint64_t value)
{
	for (int i = 0; i < 8; i++)
		row->number[column][i] = (char)(value >> (56 - 8 * i));
	row->row.cell[column] = (struct api_cell){row->number[column], 8};
}

static inline void
test_row_text(struct test_row *row, int column, const char *text)
{
	row->row.cell[column] =
	    (struct api_cell){text, text != NULL ? (uint32_t)strlen(text) : 0};
}

/* Texts stay borrowed from book. */
static inline void
test_row_make(struct test_row *row, const struct test_book *book)
{
	uint64_t bits;

	memcpy(&bits, &book->price, sizeof(bits));
	test_row_u64(row, 0, (uint64_t)book->id);
	test_row_text(row, 1, book->isbn);
	test_row_text(row, 2, book->title);
	test_row_text(row, 3, book->author);
	test_row_u64(row, 4, bits);
	test_row_text(row, 5, book->publisher);
	test_row_u64(row, 6, (uint64_t)book->created_us);
	test_row_u64(row, 7, (uint64_t)book->modified_us);
	test_row_text(row, 8, book->created_by);
	test_row_text(row, 9, book->modified_by);
	test_row_u64(row, 10, (uint64_t)book->version);
}

#endif
