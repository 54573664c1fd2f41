/*
 * For the tests of whole calls: a call with all that it needs, begun from a
 * request that is freed before anything else happens, so that a pointer kept
 * into it is found by a sanitizer.
 */
#ifndef TESTS_API_CALL_TEST_H
#define TESTS_API_CALL_TEST_H

#include "shm/shm_task.h"
#include "api/api_call.h"
#include "tests/api_test.h"

#define JSON	"application/json"
#define PROBLEM "application/problem+json"
#define TEXT	"text/plain; charset=UTF-8"
#define ISBN	"9780201134476"
#define OTHER	"0123456789"

#define BODY(isbn)                                                 \
	"{\"isbn\":\"" isbn "\",\"title\":\"T\",\"author\":\"A\"," \
	"\"price\":9.90,\"publisher\":\"P\"}"

static struct api api = {.greeting = {"Welcome!", 8}, .version = "1.2.3"};
static struct shm_board *board;
static struct api_call call;
static struct api_buf buf;
static struct api_reply reply;

static const struct test_book stored = {
    1, ISBN, "T", "A", 9.9, "P", 0, 0, NULL, NULL, 1};
#define STORED_JSON                                                         \
	"{\"id\":1,\"isbn\":\"" ISBN "\",\"title\":\"T\",\"author\":\"A\"," \
	"\"price\":9.9,\"publisher\":\"P\","                                \
	"\"createdDate\":\"2000-01-01T00:00:00.000000Z\","                  \
	"\"lastModifiedDate\":\"2000-01-01T00:00:00.000000Z\","             \
	"\"createdBy\":null,\"lastModifiedBy\":null,\"version\":1}"

static inline int
setup(void **state)
{
	(void)state;
	board = shm_task_board_new();
	api.board = board;
	return board != NULL ? 0 : -1;
}

static inline int
teardown(void **state)
{
	struct shm_task *task;

	(void)state;
	api_call_end(&call);
	api_buf_fini(&buf);
	task = shm_task_of(board);
	shm_task_free(&task);
	return 0;
}

/* A request; unnamed fields are absent. */
struct sent {
	enum api_method method;
	const char *path, *query, *accept, *content_type, *content_encoding;
	const char *if_none_match, *if_modified_since;
	bool asterisk;
};

#define M(m, p) .method = (m), .path = (p)

static inline struct api_slice
copy_of(const char *text)
{
	struct api_slice copy = {NULL, 0};

	if (text == NULL)
		return copy;
	copy.len = strlen(text);
	copy.data = malloc(copy.len + 1);
	assert_non_null(copy.data);
	memcpy((char *)copy.data, text, copy.len);
	return copy;
}

static inline enum api_verdict
begin(struct sent sent)
{
	struct api_request request = {
	    .method = sent.method,
	    .asterisk = sent.asterisk,
	    .path = copy_of(sent.path),
	    .query = copy_of(sent.query != NULL ? sent.query : ""),
	    .accept = copy_of(sent.accept),
	    .content_type = copy_of(sent.content_type),
	    .content_encoding = copy_of(sent.content_encoding),
	    .if_none_match = copy_of(sent.if_none_match),
	    .if_modified_since = copy_of(sent.if_modified_since),
	};
	enum api_verdict verdict;

	api_call_end(&call);
	api_buf_fini(&buf);
	memset(&reply, 0xa5, sizeof(reply));
	verdict = api_begin(&call, &api, &request, &buf, &reply);
	free((char *)request.path.data);
	free((char *)request.query.data);
	free((char *)request.accept.data);
	free((char *)request.content_type.data);
	free((char *)request.content_encoding.data);
	free((char *)request.if_none_match.data);
	free((char *)request.if_modified_since.data);
	return verdict;
}

static inline enum api_verdict
body(const char *text)
{
	struct api_slice copy = copy_of(text);
	enum api_verdict verdict = api_body(&call, copy, &buf, &reply);

	free((char *)copy.data);
	return verdict;
}

/* content_type NULL: no body at all; text NULL: any. */
static inline void
expect_reply(int status, const char *content_type, const char *text)
{
	if (reply.status != status)
		fail_msg("%d, not %d: %.*s", reply.status, status,
		    (int)reply.body.len, reply.body.data);
	if (content_type == NULL) {
		assert_null(reply.content_type);
		assert_int_equal(reply.body.len, 0);
	} else {
		assert_string_equal(reply.content_type, content_type);
	}
	if (text != NULL && !api_slice_is(reply.body, text))
		fail_msg("%.*s", (int)reply.body.len, reply.body.data);
	assert_int_equal(reply.retry_after_s != 0, status == 503);
	assert_int_equal(reply.location.len != 0, status == 201);
	assert_true(status != 405 || reply.allow != NULL);
	if (reply.has_version)
		assert_true(status == 200 || status == 201);
	if (reply.cacheable != API_CACHEABLE_NOT)
		assert_true(status == 200 || status == 404);
}

static inline void
give_row(const struct test_book *book)
{
	struct test_row row;

	test_row_make(&row, book);
	api_row(&call, &row.row, &buf);
}

static inline void
expect_statement(enum api_sql id, int count, const char *const *params)
{
	const struct api_statement *statement = api_call_statement(&call);

	assert_int_equal(statement->id, id);
	assert_int_equal(statement->params_count, count);
	assert_int_equal(
	    statement->params_count, api_sql_text(id)->params_count);
	for (int i = 0; i < count; i++) {
		if (params[i] == NULL)
			assert_null(statement->params[i]);
		else
			assert_string_equal(statement->params[i], params[i]);
	}
}

static inline void
begin_put(const char *path_isbn, const char *body_text)
{
	char path[64];

	snprintf(path, sizeof(path), "/books/%s", path_isbn);
	assert_int_equal(
	    begin((struct sent){M(API_PUT, path), .content_type = JSON}),
	    API_NEED_BODY);
	assert_int_equal(body(body_text), API_NEED_DB);
}

#define CALL_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
