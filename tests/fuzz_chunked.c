/*
 * Goal: the chunked decoder gives the same body, end and verdict however its
 * input is cut, stays inside its input, and lends only announced bytes.
 * Method: libFuzzer entry (and plain test over tests/corpus/chunked).  The
 * first byte chooses a cut; the rest is read whole, bytewise and cut, each
 * time from memory of its own size.  A violation aborts.
 */
#include "config.h"

#include <stdlib.h>

#include "worker/worker_chunked.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(cond)            \
	do {                     \
		if (!(cond))     \
			abort(); \
	} while (0)

struct outcome {
	enum worker_chunked_result result;
	size_t used;
	char *body;
	size_t body_len;
};

static void
take_piece(struct worker_chunked *chunked, const char *piece, size_t len,
    struct outcome *out)
{
	char *copy = malloc(len);
	size_t at = 0, used;
	struct api_slice data;

	REQUIRE(copy != NULL);
	memcpy(copy, piece, len);
	do {
		out->result = worker_chunked_read(
		    chunked, copy + at, len - at, &used, &data);
		REQUIRE(used <= len - at && data.len <= used);
		if (data.len > 0)
			REQUIRE(data.data >= copy + at &&
				data.data + data.len <= copy + at + used);
		if (out->result == WORKER_CHUNKED_DATA)
			REQUIRE(data.len > 0 && used < len - at);
		if (out->result == WORKER_CHUNKED_BAD ||
		    out->result == WORKER_CHUNKED_DONE)
			REQUIRE(data.len == 0);
		memcpy(out->body + out->body_len, data.data, data.len);
		out->body_len += data.len;
		at += used;
	} while (out->result == WORKER_CHUNKED_DATA);
	REQUIRE(out->result != WORKER_CHUNKED_MORE || at == len);
	out->used += at;
	free(copy);
}

/* Pieces of piece bytes; the first one has first bytes. */
static struct outcome
take(const char *text, size_t len, size_t first, size_t piece)
{
	struct outcome out = {.body = malloc(len > 0 ? len : 1)};
	struct worker_chunked chunked;
	size_t at = 0, next = first;

	REQUIRE(out.body != NULL && piece > 0);
	worker_chunked_init(&chunked);
	while (at < len && out.result == WORKER_CHUNKED_MORE) {
		if (next == 0 || next > len - at)
			next = piece < len - at ? piece : len - at;
		take_piece(&chunked, text + at, next, &out);
		at += next;
		next = piece;
	}
	return out;
}

static void
require_same(const struct outcome *left, struct outcome *right)
{
	REQUIRE(left->result == right->result);
	REQUIRE(left->used == right->used);
	REQUIRE(left->body_len == right->body_len);
	REQUIRE(memcmp(left->body, right->body, left->body_len) == 0);
	free(right->body);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data + 1;
	struct outcome whole, other;

	if (size == 0)
		return 0;
	size--;
	whole = take(text, size, size, size > 0 ? size : 1);
	REQUIRE(whole.used <= size);
	if (whole.result == WORKER_CHUNKED_DONE)
		REQUIRE(whole.used >= 5 &&
			memcmp(text + whole.used - 4, "\r\n\r\n", 4) == 0);
	other = take(text, size, 1, 1);
	require_same(&whole, &other);
	other = take(text, size, data[0], size > 0 ? size : 1);
	require_same(&whole, &other);
	other = take(text, size, data[0] % 7, 1 + data[0] % 13);
	require_same(&whole, &other);
	free(whole.body);
	return 0;
}
