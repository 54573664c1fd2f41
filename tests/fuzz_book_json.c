/*
 * Goal: no body of a POST, whatever its bytes, makes anything but a clean
 * refusal or a statement with sound parameters.
 * Method: the input is the body, once for a client of plain texts and once for
 * one of problems.  A refusal has to be 400 and UTF-8 (JSON where it says so);
 * a statement has to keep the rules, and the row that the database would give
 * back has to become JSON with the same values.  A broken rule aborts.
 */
#include "config.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include <jansson.h>

#include "api/api_book.h"
#include "api/api_call.h"
#include "tests/api_test.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(cond)              \
	do {                     \
		if (!(cond))     \
			abort(); \
	} while (0)

static void
check_text(const char *text, bool may_be_blank)
{
	size_t points, len = strlen(text);
	bool blank = true;

	CHECK(api_utf8_is_valid((struct api_slice){text, len}, &points));
	CHECK(points <= API_BOOK_CHARS_MAX);
	for (size_t i = 0; i < len; i++)
		blank = blank && (uint8_t)text[i] <= 0x20;
	CHECK(may_be_blank || !blank);
}

static json_t *
check_json(struct api_slice text)
{
	json_error_t error;
	json_t *document = json_loadb(text.data, text.len,
	    JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &error);

	CHECK(json_is_object(document));
	return document;
}

static void
check_refusal(const struct api_reply *reply)
{
	size_t points;

	CHECK(reply->status == 400);
	CHECK(reply->body.len > 0);
	CHECK(api_utf8_is_valid(reply->body, &points));
	if (strncmp(reply->content_type, "application/", 12) == 0)
		json_decref(check_json(reply->body));
}

static void
check_member(const json_t *document, const char *name, const char *text)
{
	const char *value = json_string_value(json_object_get(document, name));

	CHECK((value == NULL) == (text == NULL));
	CHECK(value == NULL || strcmp(value, text) == 0);
}

/* What the database gives back is what the client sent. */
static void
check_created(const struct api_reply *reply, const struct test_book *book)
{
	json_t *document = check_json(reply->body);

	CHECK(reply->status == 201);
	CHECK(reply->has_version && reply->version.row_version == 1);
	CHECK(reply->cacheable == API_CACHEABLE_NOT);
	check_member(document, "isbn", book->isbn);
	check_member(document, "title", book->title);
	check_member(document, "author", book->author);
	check_member(document, "publisher", book->publisher);
	CHECK(
	    json_real_value(json_object_get(document, "price")) == book->price);
	json_decref(document);
}

static void
check_statement(struct api_call *call, struct api_buf *buf)
{
	const struct api_statement *statement = api_call_statement(call);
	struct test_book book = {.id = 1, .version = 1};
	struct api_reply reply;
	struct test_row row;
	json_t *document;
	char *end;

	CHECK(statement->id == API_SQL_BOOK_POST);
	CHECK(statement->params_count == 5);
	book.isbn = statement->params[0];
	book.title = statement->params[1];
	book.author = statement->params[2];
	book.price = strtod(statement->params[3], &end);
	book.publisher = statement->params[4];
	CHECK(*end == '\0' && book.price > 0 && isfinite(book.price));
	CHECK(api_book_isbn_is_valid(book.isbn));
	check_text(book.title, false);
	check_text(book.author, false);
	if (book.publisher != NULL)
		check_text(book.publisher, true);
	test_row_make(&row, &book);
	api_row(call, &row.row, buf);
	/* The call's texts end with it: keep it until they were compared. */
	document = json_incref(call->document);
	CHECK(api_db(call, API_DB_OK, "", buf, &reply) == API_DONE);
	check_created(&reply, &book);
	json_decref(document);
}

static void
run(struct api_slice body, struct api_slice accept)
{
	static const struct api api = {.greeting = {"", 0}};
	const struct api_request request = {
	    .method = API_POST,
	    .path = API_SLICE("/books"),
	    .accept = accept,
	    .content_type = API_SLICE("application/json"),
	    .has_body = true,
	};
	struct api_buf buf = {.data = NULL};
	struct api_reply reply;
	struct api_call call;

	CHECK(api_begin(&call, &api, &request, &buf, &reply) == API_NEED_BODY);
	if (api_body(&call, body, &buf, &reply) == API_DONE)
		check_refusal(&reply);
	else
		check_statement(&call, &buf);
	api_call_end(&call);
	api_buf_fini(&buf);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct api_slice body = {(const char *)data, size};

	run(body, (struct api_slice){NULL, 0});
	run(body, API_SLICE("application/problem+json"));
	return 0;
}
