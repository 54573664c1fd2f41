/*
 * Goal: no input makes worker_http_parse read outside its bytes, change its
 * mind when more bytes come, or accept what a strict parser may not.
 * Method: libFuzzer entry (and plain test over tests/corpus/http).  The input
 * is parsed at each prefix under roomy and under tight limits; what an
 * accepted head claims is checked against its bytes by slower and simpler
 * code.  A violation aborts.
 */
#include "config.h"

#include <stdlib.h>

#include "worker/worker_http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(cond)            \
	do {                     \
		if (!(cond))     \
			abort(); \
	} while (0)
#define ALL_PREFIXES_MAX 256 /* longer inputs are cut at fewer places */

static const struct worker_http_limits roomy = {8192, 16384, 100, 1 << 20};
static const struct worker_http_limits tight = {40, 60, 3, 9};

static struct worker_http_head whole, part;

static void
require_inside(struct api_slice slice, const char *buf, size_t len)
{
	if (slice.len == 0)
		return;
	REQUIRE(slice.data >= buf && slice.len <= len);
	REQUIRE(slice.data + slice.len <= buf + len);
}

/* The head ends with its only empty line and has whole lines of clean text. */
static void
require_clean_lines(const char *buf, size_t len)
{
	size_t at = buf[0] == '\r' ? 2 : 0;

	REQUIRE(len >= at + 4 && memcmp(buf + len - 4, "\r\n\r\n", 4) == 0);
	for (; at < len; at++) {
		uint8_t byte = (uint8_t)buf[at];

		if (byte == '\r')
			REQUIRE(at + 1 < len && buf[at + 1] == '\n');
		else if (byte == '\n')
			REQUIRE(at > 0 && buf[at - 1] == '\r');
		else
			REQUIRE((byte >= 0x20 && byte != 0x7f) || byte == '\t');
		if (at + 4 < len)
			REQUIRE(memcmp(buf + at, "\r\n\r\n", 4) != 0);
		if (byte == '\n' && at + 1 < len)
			REQUIRE(buf[at + 1] != ' ' && buf[at + 1] != '\t');
	}
}

static size_t
count_fields(const struct worker_http_head *head, const char *name)
{
	size_t count = 0;

	for (uint32_t i = 0; i < head->fields_count; i++) {
		struct api_slice text = head->field[i].name;
		size_t len = 0;

		while (len < text.len && name[len] != '\0' &&
		       (text.data[len] | 0x20) == (name[len] | 0x20))
			len++;
		count += len == text.len && name[len] == '\0';
	}
	return count;
}

/* Each field is a line: name, colon, value with nothing but blanks around. */
static void
require_fields(const struct worker_http_head *head, const char *buf)
{
	const char *at = NULL;

	for (uint32_t i = 0; i < head->fields_count; i++) {
		const struct worker_http_field *field = &head->field[i];
		const char *end = field->value.data + field->value.len;

		require_inside(field->name, buf, head->bytes);
		require_inside(field->value, buf, head->bytes);
		REQUIRE(field->name.len > 0);
		REQUIRE(field->name.data[-1] == '\n');
		REQUIRE(at == NULL || field->name.data == at);
		REQUIRE(field->name.data[field->name.len] == ':');
		REQUIRE(memchr(field->name.data, ' ', field->name.len) == NULL);
		for (at = field->name.data + field->name.len + 1;
		     at < field->value.data; at++)
			REQUIRE(*at == ' ' || *at == '\t');
		if (field->value.len > 0)
			REQUIRE(end[-1] != ' ' && end[-1] != '\t');
		for (at = end; *at != '\r'; at++)
			REQUIRE(*at == ' ' || *at == '\t');
		at += 2;
	}
}

static void
require_head(const struct worker_http_head *head, const char *buf, size_t len,
    const struct worker_http_limits *limits)
{
	size_t hosts = count_fields(head, "host");
	size_t lengths = count_fields(head, "content-length");
	size_t codings = count_fields(head, "transfer-encoding");

	REQUIRE(head->bytes <= len);
	REQUIRE(head->bytes <=
		2 + limits->request_line_bytes_max + limits->header_bytes_max);
	REQUIRE(head->fields_count <= limits->headers_count_max);
	require_clean_lines(buf, head->bytes);
	require_fields(head, buf);
	require_inside(head->method_text, buf, head->bytes);
	require_inside(head->target, buf, head->bytes);
	require_inside(head->query, buf, head->bytes);
	require_inside(head->host, buf, head->bytes);
	if (!api_slice_is(head->path, "/"))
		require_inside(head->path, buf, head->bytes);
	REQUIRE(head->target.len > 0 && head->method_text.len > 0);
	REQUIRE(head->path.data[0] == (head->asterisk ? '*' : '/'));
	REQUIRE(!head->asterisk || head->method == API_OPTIONS);
	REQUIRE(hosts == 1 || (hosts == 0 && head->minor == 0));
	REQUIRE(hosts == 0 || head->host.len > 0);
	REQUIRE(lengths + codings <= 1);
	REQUIRE((head->framing == WORKER_HTTP_CHUNKED) == (codings == 1));
	REQUIRE(head->framing != WORKER_HTTP_CHUNKED || head->minor == 1);
	REQUIRE((head->framing == WORKER_HTTP_LENGTH) ==
		(head->content_length > 0));
	REQUIRE(head->content_length <= limits->body_bytes_max);
	REQUIRE(!head->expect_continue || head->minor == 1);
}

static void
require_reject(const struct worker_http_head *head)
{
	switch (head->status) {
	case 400:
	case 413:
	case 414:
	case 417:
	case 431:
	case 501:
	case 505:
		break;
	default:
		abort();
	}
	REQUIRE(head->detail != NULL && head->detail[0] != '\0');
}

/* The same bytes and fewer of them, in memory of their own size. */
static void
require_prefix(const char *buf, size_t cut, enum worker_http_result result,
    const struct worker_http_limits *limits)
{
	char *copy = malloc(cut > 0 ? cut : 1);
	enum worker_http_result early;

	REQUIRE(copy != NULL);
	if (cut > 0)
		memcpy(copy, buf, cut);
	early = worker_http_parse(&part, copy, cut, limits);
	if (early != WORKER_HTTP_MORE) {
		REQUIRE(early == result);
		REQUIRE(part.status == whole.status);
		REQUIRE(part.detail == whole.detail);
		REQUIRE(part.bytes == whole.bytes);
		REQUIRE(part.fields_count == whole.fields_count);
	}
	if (result == WORKER_HTTP_OK)
		REQUIRE((early == WORKER_HTTP_OK) == (cut >= whole.bytes));
	free(copy);
}

static void
run(const char *buf, size_t len, const struct worker_http_limits *limits)
{
	enum worker_http_result result =
	    worker_http_parse(&whole, buf, len, limits);
	size_t step = len <= ALL_PREFIXES_MAX ? 1 : len / 61;

	if (result == WORKER_HTTP_OK)
		require_head(&whole, buf, len, limits);
	else if (result == WORKER_HTTP_REJECT)
		require_reject(&whole);
	else
		REQUIRE(len < 2u + limits->request_line_bytes_max +
				  limits->header_bytes_max);
	for (size_t cut = 0; cut < len; cut += step)
		require_prefix(buf, cut, result, limits);
	require_prefix(buf, len, result, limits);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	run((const char *)data, size, &roomy);
	run((const char *)data, size, &tight);
	return 0;
}
