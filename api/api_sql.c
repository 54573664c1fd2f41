/*
 * The statements.
 *
 * Every statement lists its columns, in the order in which the book's JSON
 * names them, and casts each to the type that api_book.c reads in binary
 * format.  So neither a column added by a later migration nor a table that
 * came with slightly other types changes what arrives.
 *
 * Dates are kept as the table has them: timestamps without zone, meant as
 * UTC.  now() is asked once per statement, so that a new book's two dates are
 * equal.
 *
 * PUT is one statement, so that no other client can come between its update
 * and its insert with anything worse than an empty result:
 *
 *	- the row of the path's ISBN exists: it is updated.  A concurrent
 *	  update is waited for and then seen, so no version is lost, and the
 *	  date is pushed past the one before even if this transaction began
 *	  earlier than the other one ended.
 *	- it does not: the body's book is inserted.
 *	- it does not, and the body's ISBN is taken: no row.  If both ISBNs are
 *	  one, somebody inserted it since the statement's snapshot was taken,
 *	  and the caller runs the statement again.
 */
#include "config.h"

#include "api/api.h"

#define COLUMNS                                                            \
	"id::int8, isbn::text, title::text, author::text, price::float8, " \
	"publisher::text, created_date::timestamp, "                       \
	"last_modified_date::timestamp, created_by::text, "                \
	"last_modified_by::text, version::int8"

#define COLUMN_NAMES                                                \
	"id, isbn, title, author, price, publisher, created_date, " \
	"last_modified_date, created_by, last_modified_by, version"

#define COLUMNS_INSERTED                                         \
	"(isbn, title, author, price, publisher, created_date, " \
	"last_modified_date, version)"

#define NOW "now() AT TIME ZONE 'UTC'"

static const struct api_sql_text sql_table[API_SQL_COUNT] = {
    [API_SQL_BOOK_GET] =
	{
	    .name = "book_get",
	    .params_count = 1,
	    .sql = "SELECT " COLUMNS " FROM book WHERE isbn = $1::text",
	},
    [API_SQL_BOOK_POST] =
	{
	    .name = "book_post",
	    .params_count = 5,
	    .is_write = true,
	    .sql = "INSERT INTO book " COLUMNS_INSERTED
		   " VALUES ($1::text, $2::text, $3::text, $4::float8,"
		   " $5::text, " NOW ", " NOW ", 1)"
		   " ON CONFLICT (isbn) DO NOTHING"
		   " RETURNING " COLUMNS,
	},
    [API_SQL_BOOK_PUT] =
	{
	    .name = "book_put",
	    .params_count = 6,
	    .is_write = true,
	    .sql = "WITH updated AS ("
		   "UPDATE book SET title = $3::text, author = $4::text,"
		   " price = $5::float8, publisher = $6::text,"
		   " version = version + 1,"
		   " last_modified_date = greatest(" NOW
		   ", last_modified_date + interval '1 microsecond')"
		   " WHERE isbn = $1::text"
		   " RETURNING " COLUMNS "), "
		   "inserted AS ("
		   "INSERT INTO book " COLUMNS_INSERTED
		   " SELECT $2::text, $3::text, $4::text, $5::float8,"
		   " $6::text, " NOW ", " NOW ", 1"
		   " WHERE NOT EXISTS (SELECT FROM updated)"
		   " ON CONFLICT (isbn) DO NOTHING"
		   " RETURNING " COLUMNS ") "
		   "SELECT " COLUMN_NAMES " FROM updated"
		   " UNION ALL SELECT " COLUMN_NAMES " FROM inserted",
	},
    [API_SQL_BOOK_DELETE] =
	{
	    .name = "book_delete",
	    .params_count = 1,
	    .is_write = true,
	    .sql = "DELETE FROM book WHERE isbn = $1::text",
	},
    [API_SQL_BOOKS_LIST] =
	{
	    .name = "books_list",
	    .sql = "SELECT " COLUMNS " FROM book ORDER BY id",
	},
};

const struct api_sql_text *
api_sql_text(enum api_sql id)
{
	SHM_ASSERT(id < API_SQL_COUNT);
	return &sql_table[id];
}
