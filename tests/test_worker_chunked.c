/*
 * Goal: worker_chunked reads chunked bodies strictly and gives the same
 * result for any pieces.
 * Method: tables of bodies, each read whole, byte by byte, and in two pieces
 * cut at every offset, from exact-size copies.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "worker/worker_chunked.h"

struct outcome {
	enum worker_chunked_result result;
	size_t used;
	char body[65536];
	size_t body_len;
};

static void
take_piece(struct worker_chunked *chunked, const char *piece, size_t len,
    struct outcome *out)
{
	char *copy = malloc(len > 0 ? len : 1);
	size_t at = 0, used;
	struct api_slice data;

	assert_non_null(copy);
	memcpy(copy, piece, len);
	do {
		out->result = worker_chunked_read(
		    chunked, copy + at, len - at, &used, &data);
		assert_true(used <= len - at);
		assert_true(data.len <= used);
		if (data.len > 0)
			assert_true(data.data >= copy + at &&
				    data.data + data.len <= copy + at + used);
		memcpy(out->body + out->body_len, data.data, data.len);
		out->body_len += data.len;
		at += used;
	} while (out->result == WORKER_CHUNKED_DATA);
	if (out->result == WORKER_CHUNKED_MORE)
		assert_int_equal(at, len);
	out->used += at;
	free(copy);
}

/* Read text in pieces of piece bytes (0: whole), the first one of first. */
static void
take(struct outcome *out, const char *text, size_t len, size_t first,
    size_t piece)
{
	struct worker_chunked chunked;
	size_t at = 0, next = first > 0 ? first : piece;

	worker_chunked_init(&chunked);
	out->result = WORKER_CHUNKED_MORE;
	out->used = out->body_len = 0;
	while (at < len && out->result == WORKER_CHUNKED_MORE) {
		if (next == 0 || next > len - at)
			next = len - at;
		take_piece(&chunked, text + at, next, out);
		at += next;
		next = piece;
	}
}

struct sample {
	const char *text;
	size_t len; /* 0: strlen */
	enum worker_chunked_result result;
	const char *body;
	size_t extra; /* bytes of text that are not the body's */
};

#define GOOD(text, body)                              \
	{                                             \
		text, 0, WORKER_CHUNKED_DONE, body, 0 \
	}
#define WRONG(text, body)                                           \
	{                                                           \
		text, sizeof(text) - 1, WORKER_CHUNKED_BAD, body, 0 \
	}
#define PART(text, body)                              \
	{                                             \
		text, 0, WORKER_CHUNKED_MORE, body, 0 \
	}

static const struct sample samples[] = {
    GOOD("0\r\n\r\n", ""),
    GOOD("5\r\nhello\r\n0\r\n\r\n", "hello"),
    GOOD("5\r\nhello\r\n006\r\n world\r\n0\r\n\r\n", "hello world"),
    GOOD("a\r\n0123456789\r\nB\r\n0123456789a\r\n000\r\n\r\n",
	"01234567890123456789a"),
    GOOD("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
    GOOD("5;a\r\nhello\r\n0;b\r\n\r\n", "hello"),
    GOOD("5;a=b;c=\"d\"\r\nhello\r\n0\r\n\r\n", "hello"),
    GOOD("5 ; a = b\t;c\r\nhello\r\n0\r\n\r\n", "hello"),
    GOOD("5;a=\"\\\"\\;\xff\t \"\r\nhello\r\n0\r\n\r\n", "hello"),
    GOOD("5;a=\"b\" ;c\r\nhello\r\n0\r\n\r\n", "hello"),
    GOOD("0\r\nX: y\r\n\r\n", ""),
    GOOD("1\r\nx\r\n0\r\nX:\r\nY: caf\xc3\xa9 \t\r\n\r\n", "x"),
    GOOD("0\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\n\r\n", ""),
    {"1\r\nx\r\n0\r\n\r\nGET / HTTP/1.1\r\n", 0, WORKER_CHUNKED_DONE, "x", 16},
    PART("", ""),
    PART("5", ""),
    PART("5\r\nhel", "hel"),
    PART("1000000000000000\r\nx", "x"),
    PART("0\r\n", ""),
    PART("0\r\n\r", ""),
    WRONG("\r\n", ""),
    WRONG("x", ""),
    WRONG(" 5\r\n", ""),
    WRONG("+5\r\n", ""),
    WRONG("-5\r\n", ""),
    WRONG("0x5\r\n", ""),
    WRONG("5\nhello", ""),
    WRONG("5\rhello", ""),
    WRONG("5 \r\nhello", ""),
    WRONG("5\t\r\nhello", ""),
    WRONG("5 5\r\n", ""),
    WRONG("5,5\r\n", ""),
    WRONG("5.\r\n", ""),
    WRONG("5;\r\n", ""),
    WRONG("5;;a\r\n", ""),
    WRONG("5;a\n", ""),
    WRONG("5;a\rb\r\n", ""),
    WRONG("5;a b\r\n", ""),
    WRONG("5;a \r\n", ""),
    WRONG("5;a=\r\n", ""),
    WRONG("5;=b\r\n", ""),
    WRONG("5;a=b=c\r\n", ""),
    WRONG("5;a=b c\r\n", ""),
    WRONG("5;a=b \r\n", ""),
    WRONG("5;a=\"b\r\n\"\r\n", ""),
    WRONG("5;a=\"b\\\r\"\r\n", ""),
    WRONG("5;a=\"b\"c\r\n", ""),
    WRONG("5;a=\"\0\"\r\n", ""),
    WRONG("5;a=\"\x7f\"\r\n", ""),
    WRONG("5;\xe9\r\n", ""),
    WRONG("5\0\r\n", ""),
    WRONG("5\r\nhello0\r\n", "hello"),
    WRONG("5\r\nhello\n0\r\n", "hello"),
    WRONG("5\r\nhello\r0\r\n", "hello"),
    WRONG("5\r\nhello\n\n0\r\n\r\n", "hello"),
    WRONG("5\r\nhello\r\r0\r\n\r\n", "hello"),
    WRONG("5\r\nhello\r\n\r\n", "hello"),
    WRONG("5\r\nhello \r\n", "hello"),
    WRONG("1000000000000001\r\n", ""),
    WRONG("2000000000000000\r\n", ""),
    WRONG("ffffffffffffffff\r\n", ""),
    WRONG("10000000000000000\r\n", ""),
    WRONG("00000000000000001\r\n", ""),
    WRONG("0\r\n\n", ""),
    WRONG("0\r\n\rX", ""),
    WRONG("0\r\nX : y\r\n\r\n", ""),
    WRONG("0\r\n: y\r\n\r\n", ""),
    WRONG("0\r\nX\r\n\r\n", ""),
    WRONG("0\r\n X: y\r\n\r\n", ""),
    WRONG("0\r\nX: y\n\r\n", ""),
    WRONG("0\r\nX: y\r\n z\r\n\r\n", ""),
    WRONG("0\r\nX: y\rz\r\n\r\n", ""),
    WRONG("0\r\nX: \0\r\n\r\n", ""),
    WRONG("0\r\nX: \x7f\r\n\r\n", ""),
    WRONG("0\r\n\xe9: y\r\n\r\n", ""),
    WRONG("0\r\nGET / HTTP/1.1\r\n\r\n", ""),
};

static struct outcome out;

static void
expect_sample(const struct sample *sample, size_t len)
{
	if (out.result != sample->result)
		fail_msg("%d, not %d, for: %s", out.result, sample->result,
		    sample->text);
	assert_int_equal(out.body_len, strlen(sample->body));
	assert_memory_equal(out.body, sample->body, out.body_len);
	if (sample->result == WORKER_CHUNKED_DONE)
		assert_int_equal(out.used, len - sample->extra);
}

static void
a_body_gives_the_same_result_in_any_pieces(void **state)
{
	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(samples); i++) {
		const struct sample *sample = &samples[i];
		size_t len =
		    sample->len > 0 ? sample->len : strlen(sample->text);

		take(&out, sample->text, len, 0, 0);
		expect_sample(sample, len);
		take(&out, sample->text, len, 0, 1);
		expect_sample(sample, len);
		for (size_t cut = 1; cut < len; cut++) {
			take(&out, sample->text, len, cut, 0);
			expect_sample(sample, len);
		}
	}
}

static void
after_the_end_nothing_is_used_any_more(void **state)
{
	static const struct {
		const char *text;
		enum worker_chunked_result result;
	} ends[] = {
	    {"0\r\n\r\n", WORKER_CHUNKED_DONE},
	    {"z", WORKER_CHUNKED_BAD},
	};
	struct worker_chunked chunked;
	struct api_slice data;
	size_t used;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(ends); i++) {
		worker_chunked_init(&chunked);
		assert_int_equal(
		    ends[i].result, worker_chunked_read(&chunked, ends[i].text,
					strlen(ends[i].text), &used, &data));
		assert_int_equal(ends[i].result,
		    worker_chunked_read(&chunked, "1\r\nx", 4, &used, &data));
		assert_int_equal(used, 0);
		assert_int_equal(data.len, 0);
	}
}

/* text, then fill repeated until the decoder says BAD; how much it took. */
static size_t
bytes_until_bad(const char *text, const char *fill)
{
	struct worker_chunked chunked;
	struct api_slice data;
	size_t used, total = 0, len = strlen(text);
	enum worker_chunked_result result;

	worker_chunked_init(&chunked);
	do {
		result = worker_chunked_read(&chunked, text, len, &used, &data);
		total += used;
		if (result != WORKER_CHUNKED_DATA) {
			text = fill;
			len = strlen(fill);
		} else {
			text += used;
			len -= used;
		}
		assert_true(total < 1000000);
	} while (result != WORKER_CHUNKED_BAD);
	return total;
}

static void
lines_extensions_and_trailers_are_bounded(void **state)
{
	(void)state;
	assert_int_equal(
	    bytes_until_bad("5;a", "a"), WORKER_CHUNKED_LINE_MAX + 1);
	assert_int_equal(
	    bytes_until_bad("5;", " "), WORKER_CHUNKED_LINE_MAX + 1);
	assert_int_equal(bytes_until_bad("0\r\nX:", "a"),
	    3 + WORKER_CHUNKED_TRAILER_MAX + 1);
	assert_int_equal(bytes_until_bad("0\r\n", "X:\r\n"),
	    3 + WORKER_CHUNKED_TRAILER_MAX + 1);
	/* of each 10 bytes, the 4 between ';' and LF are extension */
	assert_int_equal(bytes_until_bad("", "1;abc\r\nx\r\n"),
	    WORKER_CHUNKED_EXTENSION_MAX / 4 * 10 + 3);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_body_gives_the_same_result_in_any_pieces),
	    cmocka_unit_test(after_the_end_nothing_is_used_any_more),
	    cmocka_unit_test(lines_extensions_and_trailers_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
