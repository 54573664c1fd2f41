/*
 * Heads of answers.
 *
 * A head is put together from whole pieces by memcpy: the status line and the
 * Server field are constants, the date changes once a second, only lengths are
 * printed.  Date is RFC 9110 section 6.6.1's, in every answer.
 *
 * What the cache stores begins behind the fields that differ from answer to
 * answer, so that an answer from it is a lead and one copy:
 *
 *	lead	status line, Server, Date, X-Cache, Age, Connection
 *	block	Content-Type, ETag, Last-Modified, Cache-Control, Vary,
 *		Content-Length, the empty line
 *	body
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>

#include "worker/worker_answer.h"
#include "worker/worker_put.h"

#define OUT_KEPT_MAX   256 /* more buffers than this go back to malloc */
#define HEAD_BYTES_MAX 512 /* all pieces but Location and Cache-Control */
#define STATUS_200     "HTTP/1.1 200 OK\r\n"

struct worker_out_block {
	struct worker_out_block *next;
};

void
worker_out_begin(struct worker_loop *loop, struct api_buf *out)
{
	struct worker_out_block *block = loop->out_free;

	if (out->data != NULL)
		return;
	if (block != NULL) {
		loop->out_free = block->next;
		loop->out_free_count--;
		out->data = (char *)block;
	} else {
		out->data = malloc(WORKER_OUT_BYTES);
		if (out->data == NULL) {
			out->failed = true;
			return;
		}
	}
	out->cap = WORKER_OUT_BYTES;
	out->len = 0;
}

void
worker_out_end(struct worker_loop *loop, struct api_buf *out)
{
	struct worker_out_block *block;

	if (out->data != NULL && out->cap == WORKER_OUT_BYTES &&
	    loop->out_free_count < OUT_KEPT_MAX) {
		block = (struct worker_out_block *)(void *)out->data;
		block->next = loop->out_free;
		loop->out_free = block;
		loop->out_free_count++;
		*out = (struct api_buf){0};
	} else if (out->data != NULL) {
		api_buf_fini(out);
		*out = (struct api_buf){0};
	}
}

void
worker_out_free_all(struct worker_loop *loop)
{
	while (loop->out_free != NULL) {
		struct worker_out_block *block = loop->out_free;

		loop->out_free = block->next;
		free(block);
	}
	loop->out_free_count = 0;
}

static char *
put_text(char *at, const char *text)
{
	return worker_put(at, text, strlen(text));
}

static void
date_refresh(struct worker_loop *loop)
{
	uint64_t wall_us = shm_wallclock_us();
	char date[API_DATE_BYTES];

	api_date(wall_us / 1000000, date);
	loop->lead_bytes = (uint32_t)snprintf(loop->lead, sizeof(loop->lead),
	    STATUS_200 "Server: booksd\r\nDate: %.*s\r\n", API_DATE_BYTES,
	    date);
	loop->date_us = loop->now_us + 1000000 - wall_us % 1000000;
}

static char *
put_status(char *at, uint16_t status)
{
	at = WORKER_PUT(at, "HTTP/1.1 ");
	at = worker_put_u64(at, status);
	*at++ = ' ';
	at = put_text(at, api_status_reason(status));
	return WORKER_PUT(at, "\r\n");
}

const char *
worker_source_name(enum worker_source source)
{
	switch (source) {
	case WORKER_SOURCE_NONE:
		break;
	case WORKER_SOURCE_HIT:
		return "hit";
	case WORKER_SOURCE_MISS:
		return "miss";
	case WORKER_SOURCE_STALE:
		return "stale";
	case WORKER_SOURCE_COALESCED:
		return "coalesced";
	}
	return NULL;
}

static char *
put_source(char *at, const struct worker_loop *loop,
    const struct worker_answer *answer)
{
	if (answer->source == WORKER_SOURCE_NONE)
		return at;
	if (loop->options->cache_header) {
		at = WORKER_PUT(at, "X-Cache: ");
		at = put_text(at, worker_source_name(answer->source));
		at = WORKER_PUT(at, "\r\n");
	}
	if (answer->source == WORKER_SOURCE_HIT ||
	    answer->source == WORKER_SOURCE_STALE) {
		at = WORKER_PUT(at, "Age: ");
		at = worker_put_u64(at, answer->age_s);
		at = WORKER_PUT(at, "\r\n");
	}
	return at;
}

static char *
put_connection(char *at, const struct worker_answer *answer)
{
	if (answer->close)
		return WORKER_PUT(at, "Connection: close\r\n");
	if (answer->is_http10)
		return WORKER_PUT(at, "Connection: keep-alive\r\n");
	return at;
}

/* Everything that differs between two answers with one block. */
static char *
put_lead(char *at, struct worker_loop *loop, uint16_t status,
    const struct worker_answer *answer)
{
	const size_t skip = sizeof(STATUS_200) - 1;

	if (loop->now_us >= loop->date_us)
		date_refresh(loop);
	if (status == 200) {
		at = worker_put(at, loop->lead, loop->lead_bytes);
	} else {
		at = put_status(at, status);
		at = worker_put(at, loop->lead + skip, loop->lead_bytes - skip);
	}
	at = put_source(at, loop, answer);
	return put_connection(at, answer);
}

static char *
put_length(char *at, uint64_t bytes)
{
	at = WORKER_PUT(at, "Content-Length: ");
	at = worker_put_u64(at, bytes);
	return WORKER_PUT(at, "\r\n");
}

static char *
put_framing(char *at, const struct worker_answer *answer)
{
	/* RFC 9110 section 8.6: no Content-Length in 204; in 304 it would be
	 * the length of what is not sent. */
	if (answer->reply->status == 204 || answer->reply->status == 304)
		return at;
	switch (answer->framing) {
	case WORKER_ANSWER_LENGTH:
		return put_length(at, answer->reply->body.len);
	case WORKER_ANSWER_CHUNKED:
		return WORKER_PUT(at, "Transfer-Encoding: chunked\r\n");
	case WORKER_ANSWER_UNTIL_CLOSE:
		return at;
	}
	return at;
}

/* The validators (RFC 9110 section 8.8). */
static char *
put_version(char *at, const struct api_version *version)
{
	at = WORKER_PUT(at, "ETag: ");
	api_etag(version, at);
	at = WORKER_PUT(at + API_ETAG_BYTES, "\r\n");
	if (version->modified_s == 0)
		return at;
	at = WORKER_PUT(at, "Last-Modified: ");
	api_date(version->modified_s, at);
	return WORKER_PUT(at + API_DATE_BYTES, "\r\n");
}

/* The fields that are stored with an answer. */
static char *
put_kept_fields(
    char *at, const struct worker_loop *loop, const struct api_reply *reply)
{
	if (reply->content_type != NULL) {
		at = WORKER_PUT(at, "Content-Type: ");
		at = put_text(at, reply->content_type);
		at = WORKER_PUT(at, "\r\n");
	}
	if (reply->has_version)
		at = put_version(at, &reply->version);
	if (reply->cacheable != API_CACHEABLE_NOT)
		at = worker_put(at, loop->keep_text, loop->keep_bytes);
	return at;
}

static char *
put_fields(char *at, const struct api_reply *reply)
{
	if (reply->allow != NULL) {
		at = WORKER_PUT(at, "Allow: ");
		at = put_text(at, reply->allow);
		at = WORKER_PUT(at, "\r\n");
	}
	if (reply->retry_after_s > 0) {
		at = WORKER_PUT(at, "Retry-After: ");
		at = worker_put_u64(at, reply->retry_after_s);
		at = WORKER_PUT(at, "\r\n");
	}
	if (reply->location.len > 0) {
		at = WORKER_PUT(at, "Location: ");
		at = worker_put(at, reply->location.data, reply->location.len);
		at = WORKER_PUT(at, "\r\n");
	}
	return at;
}

static size_t
head_bytes_max(const struct worker_loop *loop)
{
	return HEAD_BYTES_MAX + loop->keep_bytes;
}

/* ---- public */

int
worker_answer_open(struct worker_loop *loop)
{
	static const char vary[] = "Vary: Accept\r\n";
	const char *control = loop->options->cache_control;
	size_t len = control != NULL ? strlen(control) : 0;
	char *at;

	loop->keep_text = malloc(len + 64);
	loop->value_head = malloc(HEAD_BYTES_MAX + len + 64);
	if (loop->keep_text == NULL || loop->value_head == NULL)
		return -1;
	at = loop->keep_text;
	if (len > 0) {
		at = WORKER_PUT(at, "Cache-Control: ");
		at = worker_put(at, control, len);
		at = WORKER_PUT(at, "\r\n");
	}
	at = worker_put(at, vary, sizeof(vary) - 1);
	loop->keep_bytes = (uint32_t)(at - loop->keep_text);
	return 0;
}

void
worker_answer_close(struct worker_loop *loop)
{
	free(loop->keep_text);
	free(loop->value_head);
	loop->keep_text = loop->value_head = NULL;
}

void
worker_answer_write(struct worker_loop *loop, struct api_buf *out,
    const struct worker_answer *answer)
{
	const struct api_reply *reply = answer->reply;
	bool has_body = !answer->is_head &&
			answer->framing == WORKER_ANSWER_LENGTH &&
			reply->status != 204 && reply->status != 304;
	size_t body_bytes = has_body ? reply->body.len : 0;
	size_t head_max = head_bytes_max(loop) + reply->location.len;
	char *start, *at;

	worker_out_begin(loop, out);
	start = api_buf_reserve(out, head_max + body_bytes);
	if (start == NULL)
		return;
	at = put_lead(start, loop, reply->status, answer);
	at = put_kept_fields(at, loop, reply);
	at = put_fields(at, reply);
	at = put_framing(at, answer);
	at = WORKER_PUT(at, "\r\n");
	SHM_ASSERT((size_t)(at - start) <= head_max);
	if (body_bytes > 0)
		at = worker_put(at, reply->body.data, body_bytes);
	out->len += (size_t)(at - start);
}

char *
worker_answer_lead(struct worker_loop *loop, struct api_buf *out,
    uint16_t status, const struct worker_answer *answer, size_t value_bytes)
{
	char *start, *at;

	worker_out_begin(loop, out);
	start = api_buf_reserve(out, HEAD_BYTES_MAX + value_bytes);
	if (start == NULL)
		return NULL;
	at = put_lead(start, loop, status, answer);
	SHM_ASSERT((size_t)(at - start) <= HEAD_BYTES_MAX);
	return at;
}

struct api_slice
worker_answer_block(struct worker_loop *loop, const struct api_reply *reply)
{
	char *at = put_kept_fields(loop->value_head, loop, reply);

	at = put_length(at, reply->body.len);
	at = WORKER_PUT(at, "\r\n");
	SHM_ASSERT((size_t)(at - loop->value_head) <= head_bytes_max(loop));
	return (struct api_slice){
	    loop->value_head, (size_t)(at - loop->value_head)};
}
