/*
 * booksctl import: a CSV file becomes books.
 *
 *	file -> ctl_csv -> api_book_check() -> COPY into a temporary table
 *	     -> INSERT ... SELECT ... ON CONFLICT (isbn) DO NOTHING -> COMMIT
 *
 * A row becomes the same JSON document that a client would POST and meets the
 * same checks, so the file cannot bring in what the interface refuses.  Rows
 * are not held in memory: only one at a time and libpq's buffer.
 *
 * INVARIANTS
 *   I1  rows read = loaded + skipped + rejected.
 *   I2  one transaction: all good rows are stored, or none.
 *   I3  ids are given in the file's order.
 *
 * The temporary table takes what COPY brings without any constraint, and the
 * server decides at once about ISBNs that exist already, be it in the
 * catalogue or earlier in the file.
 */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sysexits.h>

#include <jansson.h>

#include "api/api_book.h"
#include "api/api_number.h"
#include "ctl/ctl.h"
#include "ctl/ctl_csv.h"
#include "ctl/ctl_progress.h"

#define READ_BYTES	65536
#define COPY_BYTES	65536 /* rows are sent in pieces of about this size */
#define REJECTS_SHOWN	100   /* more are counted, not printed */
#define REJECT_ISBN_MAX 20
#define COLUMN_ABSENT	SIZE_MAX

#define TABLE_SQL                                                          \
	"CREATE TEMPORARY TABLE import_book (line int8, isbn text, title " \
	"text,"                                                            \
	" author text, price float8, publisher text) ON COMMIT DROP"
#define COPY_SQL                                                         \
	"COPY import_book (line, isbn, title, author, price, publisher)" \
	" FROM STDIN"
/* Books that the catalogue lacks, each once, as the file has it first.  A row
 * that ON CONFLICT passes over would use up an id, so it has only to stop what
 * others insert meanwhile. */
#define NEW_BOOKS                                                          \
	"(SELECT DISTINCT ON (isbn) * FROM import_book i WHERE NOT EXISTS" \
	" (SELECT FROM book b WHERE b.isbn = i.isbn) ORDER BY isbn, line)"
#define INSERT_SQL                                                 \
	"INSERT INTO book (isbn, title, author, price, publisher," \
	" created_date, last_modified_date, version)"              \
	" SELECT isbn, title, author, price, publisher,"           \
	" now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC', 1"   \
	" FROM " NEW_BOOKS " n ORDER BY line"                      \
	" ON CONFLICT (isbn) DO NOTHING"
#define DRY_RUN_SQL "SELECT count(*) FROM " NEW_BOOKS " n"

/* The names under which a column may come: ours, and bibliographies'. */
static const struct column {
	const char *names[3];
	bool is_required;
} columns[API_BOOK_FIELDS] = {
    [API_BOOK_ISBN] = {{"isbn", "isbn13"}, true},
    [API_BOOK_TITLE] = {{"title"}, true},
    [API_BOOK_AUTHOR] = {{"author", "authors"}, true},
    [API_BOOK_PRICE] = {{"price"}, true},
    [API_BOOK_PUBLISHER] = {{"publisher"}, false},
};

struct import {
	const struct ctl *ctl;
	const char *path; /* as it is called in messages */
	FILE *file;
	PGconn *conn;
	bool is_dry_run;
	uint64_t rejects_allowed;

	bool has_header;
	size_t fields_count;		/* of the header */
	size_t column[API_BOOK_FIELDS]; /* where each one is, COLUMN_ABSENT */

	uint64_t bytes;
	uint64_t good;
	uint64_t rejected;
	uint64_t loaded;
	struct api_buf copy;
	struct ctl_progress progress;
	struct ctl_csv csv;
};

/* ---- the header */

static bool
column_is(const struct column *column, struct api_slice name)
{
	for (size_t i = 0; i < SHM_ARRAY_LEN(column->names); i++) {
		const char *want = column->names[i];

		if (want != NULL && strlen(want) == name.len &&
		    strncasecmp(want, name.data, name.len) == 0)
			return true;
	}
	return false;
}

static int
header_column(struct import *import, int field)
{
	const struct column *column = &columns[field];

	import->column[field] = COLUMN_ABSENT;
	for (size_t i = 0; i < import->csv.fields_count; i++) {
		if (!column_is(column, import->csv.field[i].text))
			continue;
		if (import->column[field] != COLUMN_ABSENT) {
			ctl_say("%s:1: two columns are called %s", import->path,
			    column->names[0]);
			return EX_DATAERR;
		}
		import->column[field] = i;
	}
	if (import->column[field] == COLUMN_ABSENT && column->is_required) {
		ctl_say("%s:1: the first line has to name the columns, and"
			" none of them is called %s",
		    import->path, column->names[0]);
		return EX_DATAERR;
	}
	return EX_OK;
}

static int
header_read(struct import *import)
{
	int code = EX_OK;

	import->has_header = true;
	import->fields_count = import->csv.fields_count;
	for (int i = 0; i < API_BOOK_FIELDS && code == EX_OK; i++)
		code = header_column(import, i);
	return code;
}

/* ---- a row */

/* Say that a row is left out.  The file's bytes are shown only as far as they
 * are an ISBN's. */
static void
row_reject(struct import *import, const char *why)
{
	struct api_slice isbn = {"", 0};
	char shown[REJECT_ISBN_MAX + 1];
	size_t column = import->column[API_BOOK_ISBN], len;

	import->rejected++;
	if (import->rejected > REJECTS_SHOWN)
		return;
	if (import->has_header && column < import->csv.fields_count)
		isbn = import->csv.field[column].text;
	len = isbn.len < REJECT_ISBN_MAX ? isbn.len : REJECT_ISBN_MAX;
	memcpy(shown, isbn.data, len);
	shown[len] = '\0';
	ctl_progress_clear(&import->progress);
	if (len > 0 && strspn(shown, "0123456789-Xx") == len)
		ctl_say("%s:%llu: rejected, ISBN %s: %s", import->path,
		    (unsigned long long)import->csv.line, shown, why);
	else
		ctl_say("%s:%llu: rejected: %s", import->path,
		    (unsigned long long)import->csv.line, why);
	if (import->rejected == REJECTS_SHOWN)
		ctl_say("more rejected rows are counted, not printed");
}

/* A price is what JSON calls a number; anything else stays text, for the
 * check to say so. */
static json_t *
price_value(struct api_slice text)
{
	json_t *value = NULL;

	/* No blanks around it, which the parser would pass over. */
	if (text.len > 0 && (uint8_t)text.data[0] > ' ' &&
	    (uint8_t)text.data[text.len - 1] > ' ')
		value = json_loadb(text.data, text.len,
		    JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, NULL);
	if (json_is_real(value))
		return value;
	json_decref(value);
	return json_string("");
}

/* The document that a client would send for this row; NULL when a text is not
 * UTF-8. */
static json_t *
row_document(const struct import *import)
{
	static const char *const name[API_BOOK_FIELDS] = {
	    [API_BOOK_ISBN] = "isbn",
	    [API_BOOK_TITLE] = "title",
	    [API_BOOK_AUTHOR] = "author",
	    [API_BOOK_PRICE] = "price",
	    [API_BOOK_PUBLISHER] = "publisher",
	};
	json_t *document = json_object();

	for (int i = 0; i < API_BOOK_FIELDS; i++) {
		size_t at = import->column[i];
		const struct ctl_csv_field *field;
		json_t *value;

		if (at == COLUMN_ABSENT)
			continue;
		field = &import->csv.field[at];
		if (field->text.len == 0 && !field->is_quoted)
			continue; /* as absent as null */
		value = i == API_BOOK_PRICE
			    ? price_value(field->text)
			    : json_stringn(field->text.data, field->text.len);
		if (json_object_set_new(document, name[i], value) == -1) {
			json_decref(document);
			return NULL;
		}
	}
	return document;
}

/* text in COPY's text format, and what ends it. */
static void
copy_text(struct api_buf *copy, const char *text, char end)
{
	for (; text != NULL && *text != '\0'; text++) {
		char escaped[2] = {'\\', *text};

		switch (*text) {
		case '\n':
			escaped[1] = 'n';
			break;
		case '\r':
			escaped[1] = 'r';
			break;
		case '\t':
			escaped[1] = 't';
			break;
		case '\\':
			break;
		default:
			api_buf_bytes(copy, text, 1);
			continue;
		}
		api_buf_bytes(copy, escaped, 2);
	}
	if (text == NULL)
		api_buf_text(copy, "\\N");
	api_buf_bytes(copy, &end, 1);
}

static int
copy_send(struct import *import)
{
	int sent = -1;

	if (import->copy.failed)
		ctl_say("out of memory");
	else
		sent = PQputCopyData(
		    import->conn, import->copy.data, (int)import->copy.len);
	api_buf_clear(&import->copy);
	if (sent == 1)
		return EX_OK;
	return ctl_sql_failed(import->conn, NULL, "import");
}

static int
row_store(struct import *import, const struct api_book *book)
{
	char price[API_NUMBER_BYTES_MAX];
	struct api_buf *copy = &import->copy;

	import->good++;
	api_number_print(book->price, price);
	api_buf_u64(copy, import->csv.line);
	api_buf_bytes(copy, "\t", 1);
	copy_text(copy, book->isbn, '\t');
	copy_text(copy, book->title, '\t');
	copy_text(copy, book->author, '\t');
	copy_text(copy, price, '\t');
	copy_text(copy, book->publisher, '\n');
	return copy->len >= COPY_BYTES ? copy_send(import) : EX_OK;
}

static void
row_reject_errors(struct import *import, const struct api_book_errors *errors)
{
	char why[512] = "";
	size_t len = 0;

	for (int i = 0; i < API_BOOK_FIELDS && len < sizeof(why); i++)
		if (errors->message[i] != NULL)
			len += (size_t)snprintf(why + len, sizeof(why) - len,
			    "%s%s", len > 0 ? " " : "", errors->message[i]);
	row_reject(import, why);
}

static int
row_read(struct import *import)
{
	struct api_book_errors errors = {{NULL}};
	struct api_book book;
	json_t *document;
	char why[64];
	int code = EX_OK;

	if (import->csv.fields_count != import->fields_count) {
		snprintf(why, sizeof(why), "%zu fields, the header has %zu",
		    import->csv.fields_count, import->fields_count);
		row_reject(import, why);
		return EX_OK;
	}
	document = row_document(import);
	if (document == NULL)
		row_reject(import, "a text is not valid UTF-8");
	else if (api_book_check(document, &book, &errors))
		code = row_store(import, &book);
	else
		row_reject_errors(import, &errors);
	json_decref(document);
	return code;
}

static int
record_read(struct import *import, enum ctl_csv_result result)
{
	if (result == CTL_CSV_BAD && !import->has_header) {
		ctl_say("%s:%llu: %s", import->path,
		    (unsigned long long)import->csv.line, import->csv.error);
		return EX_DATAERR;
	}
	if (result == CTL_CSV_BAD) {
		row_reject(import, import->csv.error);
		return EX_OK;
	}
	return import->has_header ? row_read(import) : header_read(import);
}

/* ---- the file */

static int
piece_read(struct import *import, struct api_slice piece, bool is_last)
{
	enum ctl_csv_result result;
	int code = EX_OK;

	import->bytes += piece.len;
	while (code == EX_OK) {
		result = ctl_csv_next(&import->csv, &piece, is_last);
		if (result == CTL_CSV_MORE || result == CTL_CSV_END)
			break;
		code = record_read(import, result);
	}
	ctl_progress_step(
	    &import->progress, import->bytes, import->good + import->rejected);
	return code;
}

static int
file_read(struct import *import)
{
	static char data[READ_BYTES];
	size_t len;
	int code = EX_OK;

	while (code == EX_OK &&
	       (len = fread(data, 1, sizeof(data), import->file)) > 0)
		code = piece_read(import, (struct api_slice){data, len}, false);
	if (code == EX_OK && ferror(import->file)) {
		ctl_say("%s: %s", import->path, strerror(errno));
		return EX_NOINPUT;
	}
	if (code == EX_OK)
		code = piece_read(import, (struct api_slice){"", 0}, true);
	if (code == EX_OK && !import->has_header) {
		ctl_say("%s: the file is empty", import->path);
		return EX_DATAERR;
	}
	return code;
}

/* 0: not known, as for a pipe. */
static uint64_t
file_bytes(FILE *file)
{
	struct stat status;

	if (fstat(fileno(file), &status) == -1 || !S_ISREG(status.st_mode))
		return 0;
	return (uint64_t)status.st_size;
}

/* ---- the transaction */

/* Take what the server says about the COPY that has just ended. */
static int
copy_result(struct import *import)
{
	PGresult *result;
	int code = EX_OK;

	while ((result = PQgetResult(import->conn)) != NULL) {
		if (PQresultStatus(result) != PGRES_COMMAND_OK && code == EX_OK)
			code = ctl_sql_failed(import->conn, result, "import");
		PQclear(result);
	}
	return code;
}

static int
copy_run(struct import *import)
{
	int code =
	    ctl_exec(import->conn, "BEGIN; " TABLE_SQL "; " COPY_SQL, NULL);

	if (code != EX_OK)
		return code;
	code = file_read(import);
	if (code == EX_OK && import->copy.len > 0)
		code = copy_send(import);
	if (code != EX_OK) {
		/* What went wrong has been said. */
		PQputCopyEnd(import->conn, "given up");
		return code;
	}
	if (PQputCopyEnd(import->conn, NULL) != 1)
		return ctl_sql_failed(import->conn, NULL, "import");
	return copy_result(import);
}

static int
rows_insert(struct import *import)
{
	PGresult *result;
	/* Without statistics the server would take import_book for small. */
	int code = ctl_exec(import->conn,
	    import->is_dry_run ? "ANALYZE import_book; " DRY_RUN_SQL
			       : "ANALYZE import_book; " INSERT_SQL,
	    &result);

	if (code != EX_OK)
		return code;
	import->loaded = strtoull(
	    import->is_dry_run ? PQgetvalue(result, 0, 0) : PQcmdTuples(result),
	    NULL, 10);
	PQclear(result);
	return ctl_exec(
	    import->conn, import->is_dry_run ? "ROLLBACK" : "COMMIT", NULL);
}

static int
import_report(const struct import *import)
{
	printf("%s%llu loaded, %llu skipped (already there), %llu rejected\n",
	    import->is_dry_run ? "dry run, nothing is stored: " : "",
	    (unsigned long long)import->loaded,
	    (unsigned long long)(import->good - import->loaded),
	    (unsigned long long)import->rejected);
	return import->rejected > import->rejects_allowed ? EX_DATAERR : EX_OK;
}

static int
import_run(struct import *import)
{
	int code = ctl_connect(import->ctl, 0, &import->conn);

	if (code != EX_OK)
		return code;
	ctl_csv_init(&import->csv);
	ctl_progress_begin(&import->progress, "reading",
	    file_bytes(import->file), import->ctl->is_quiet);
	code = copy_run(import);
	if (code == EX_OK) {
		ctl_progress_end(&import->progress);
		code = rows_insert(import);
	} else {
		ctl_progress_clear(&import->progress);
	}
	PQfinish(import->conn); /* rolls back what is not committed */
	api_buf_fini(&import->copy);
	return code == EX_OK ? import_report(import) : code;
}

static bool
number_read(const char *text, uint64_t *number)
{
	char *end;

	if (text == NULL || *text < '0' || *text > '9')
		return false;
	errno = 0;
	*number = strtoull(text, &end, 10);
	return errno == 0 && *end == '\0';
}

static int
options_read(struct import *import, int argc, char **argv)
{
	static const struct option options[] = {
	    {"allow-rejects", required_argument, NULL, 'a'},
	    {"dry-run", no_argument, NULL, 'n'},
	    {NULL, 0, NULL, 0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'a':
			if (!number_read(optarg, &import->rejects_allowed))
				return ctl_usage("--allow-rejects: need a"
						 " number of rows");
			break;
		case 'n':
			import->is_dry_run = true;
			break;
		default:
			return ctl_usage_option(argc, argv);
		}
	}
	if (optind != argc - 1)
		return ctl_usage("import: need one file");
	import->path = argv[optind];
	return EX_OK;
}

int
ctl_import(const struct ctl *ctl, int argc, char **argv)
{
	static struct import import; /* large because of its CSV record */
	int code = options_read(&import, argc, argv);

	if (code != EX_OK)
		return code;
	import.ctl = ctl;
	if (strcmp(import.path, "-") == 0) {
		import.path = "standard input";
		import.file = stdin;
	} else {
		import.file = fopen(import.path, "re");
	}
	if (import.file == NULL) {
		ctl_say("%s: %s", import.path, strerror(errno));
		return EX_NOINPUT;
	}
	code = import_run(&import);
	if (import.file != stdin)
		fclose(import.file);
	return code;
}
