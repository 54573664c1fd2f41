/*
 * The fields that decide where a message ends.
 *
 * Fields come one by one, in any order, and each is judged by itself as soon
 * as its line is complete; what only their combination tells waits for the end
 * of the head.  There a doubt about the framing (400) goes before a well formed
 * wish that is refused (413, 417, 501), or the answer would depend on the order
 * of the fields.
 *
 * INVARIANT: a head that passes has at most one Content-Length or one
 * Transfer-Encoding, never both, and at most one Host, exactly one in 1.1.
 */
#include "config.h"

#include "worker/worker_http_facts.h"
#include "worker/worker_http_text.h"

#define CONTENT_LENGTH_MAX INT64_MAX

static enum worker_http_result
reject(struct worker_http_head *head, uint16_t status, const char *detail)
{
	head->status = status;
	head->detail = detail;
	return WORKER_HTTP_REJECT;
}

static enum worker_http_result
note_host(struct worker_http_head *head, struct worker_http_facts *facts,
    struct api_slice value)
{
	if (++facts->hosts_count > 1)
		return reject(head, 400, "There are two Host fields.");
	if (!worker_http_is_host(value, false))
		return reject(head, 400, "The Host field is malformed.");
	if (!facts->is_absolute)
		head->host = value;
	return WORKER_HTTP_OK;
}

/* Even two equal lengths are refused: whoever sent them is confused. */
static enum worker_http_result
note_length(struct worker_http_head *head, struct worker_http_facts *facts,
    struct api_slice value)
{
	uint64_t length = 0;

	if (++facts->lengths_count > 1)
		return reject(
		    head, 400, "There are two Content-Length fields.");
	if (value.len == 0)
		return reject(head, 400, "The Content-Length is malformed.");
	for (size_t i = 0; i < value.len; i++) {
		uint64_t digit = (uint64_t)(value.data[i] - '0');

		if (!worker_http_is(value.data[i], HTTP_DIGIT))
			return reject(
			    head, 400, "The Content-Length is malformed.");
		if (length > (CONTENT_LENGTH_MAX - digit) / 10)
			return reject(
			    head, 400, "The Content-Length is not possible.");
		length = length * 10 + digit;
	}
	head->content_length = length;
	return WORKER_HTTP_OK;
}

/*
 * Only "chunked" by itself is served.  A list that ends in another coding or
 * names chunked twice has no end that two parsers agree on: 400.  Codings that
 * we do not know are 501 (RFC 9112 section 6.1).
 */
static enum worker_http_result
note_coding(struct worker_http_head *head, struct worker_http_facts *facts,
    struct api_slice value)
{
	struct api_slice rest = value, element;
	bool has_chunked = false;

	if (++facts->codings_count > 1)
		return reject(
		    head, 400, "There are two Transfer-Encoding fields.");
	if (head->minor == 0)
		return reject(head, 400, "HTTP/1.0 has no Transfer-Encoding.");
	if (WORKER_HTTP_IS_WORD(value, "chunked"))
		return WORKER_HTTP_OK;
	while (worker_http_list_next(&rest, &element)) {
		size_t len = 0;

		while (len < element.len &&
		       worker_http_is(element.data[len], HTTP_TOKEN))
			len++;
		if (len == 0)
			return reject(
			    head, 400, "The Transfer-Encoding is malformed.");
		if (has_chunked)
			return reject(head, 400,
			    "The chunked coding is not the last one.");
		if (WORKER_HTTP_IS_WORD(
			((struct api_slice){element.data, len}), "chunked")) {
			has_chunked = true;
			if (len < element.len)
				return reject(head, 400,
				    "The chunked coding has no parameters.");
		} else if (len < element.len && element.data[len] != ';' &&
			   !worker_http_is_blank(element.data[len])) {
			return reject(
			    head, 400, "The Transfer-Encoding is malformed.");
		}
	}
	facts->is_coding_unknown = true;
	return WORKER_HTTP_OK;
}

/* Options that we do not know say nothing to us. */
static void
note_connection(struct worker_http_facts *facts, struct api_slice value)
{
	struct api_slice element;

	while (worker_http_list_next(&value, &element)) {
		if (WORKER_HTTP_IS_WORD(element, "close"))
			facts->has_close = true;
		else if (WORKER_HTTP_IS_WORD(element, "keep-alive"))
			facts->has_keep_alive = true;
	}
}

/* ---- public */

enum worker_http_result
worker_http_facts_take(struct worker_http_head *head,
    struct worker_http_facts *facts, const struct worker_http_field *field)
{
	switch (field->name.len) {
	case sizeof("host") - 1:
		if (WORKER_HTTP_IS_WORD(field->name, "host"))
			return note_host(head, facts, field->value);
		break;
	case sizeof("expect") - 1:
		if (WORKER_HTTP_IS_WORD(field->name, "expect")) {
			head->expect_continue = true;
			if (!WORKER_HTTP_IS_WORD(field->value, "100-continue"))
				facts->is_expect_unknown = true;
		}
		break;
	case sizeof("connection") - 1:
		if (WORKER_HTTP_IS_WORD(field->name, "connection"))
			note_connection(facts, field->value);
		break;
	case sizeof("content-length") - 1:
		if (WORKER_HTTP_IS_WORD(field->name, "content-length"))
			return note_length(head, facts, field->value);
		break;
	case sizeof("transfer-encoding") - 1:
		if (WORKER_HTTP_IS_WORD(field->name, "transfer-encoding"))
			return note_coding(head, facts, field->value);
		break;
	}
	return WORKER_HTTP_OK;
}

enum worker_http_result
worker_http_facts_finish(struct worker_http_head *head,
    const struct worker_http_facts *facts, uint64_t body_bytes_max)
{
	if (facts->hosts_count == 0 && head->minor == 1)
		return reject(head, 400, "There is no Host field.");
	if (facts->codings_count > 0 && facts->lengths_count > 0)
		return reject(head, 400,
		    "Content-Length and Transfer-Encoding exclude each other.");
	if (facts->is_coding_unknown)
		return reject(head, 501, "This transfer coding is not known.");
	if (facts->is_expect_unknown)
		return reject(head, 417, "This expectation cannot be met.");
	if (head->content_length > body_bytes_max)
		return reject(head, 413, "The body is too long.");
	if (facts->codings_count > 0)
		head->framing = WORKER_HTTP_CHUNKED;
	else if (head->content_length > 0)
		head->framing = WORKER_HTTP_LENGTH;
	if (head->minor == 0 || head->framing == WORKER_HTTP_NO_BODY)
		head->expect_continue = false;
	head->keep_alive =
	    !facts->has_close && (head->minor == 1 || facts->has_keep_alive);
	return WORKER_HTTP_OK;
}
