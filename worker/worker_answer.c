/*
 * Heads of answers.
 *
 * A head is put together from whole pieces by memcpy: the status line and the
 * Server field are constants, the date changes once a second, only lengths are
 * printed.  Date is RFC 9110 section 6.6.1's, in every answer.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "worker/worker_answer.h"

#define OUT_KEPT_MAX   256 /* more buffers than this go back to malloc */
#define HEAD_BYTES_MAX 512 /* all pieces but Location */

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

/* strftime(3) would ask the locale for names. */
static void
date_refresh(struct worker_loop *loop)
{
	static const char days[] = "SunMonTueWedThuFriSat";
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	uint64_t wall_us = shm_wallclock_us();
	time_t now = (time_t)(wall_us / 1000000);
	struct tm tm;

	if (gmtime_r(&now, &tm) == NULL)
		return;
	snprintf(loop->date, sizeof(loop->date),
	    "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT", days + tm.tm_wday * 3,
	    tm.tm_mday % 100, months + tm.tm_mon * 3, tm.tm_year % 8100 + 1900,
	    tm.tm_hour, tm.tm_min, tm.tm_sec);
	loop->date_us = loop->now_us + 1000000 - wall_us % 1000000;
}

static char *
put(char *at, const char *text, size_t len)
{
	memcpy(at, text, len);
	return at + len;
}

#define PUT(at, literal) put((at), (literal), sizeof(literal) - 1)

static char *
put_text(char *at, const char *text)
{
	return put(at, text, strlen(text));
}

static char *
put_u64(char *at, uint64_t value)
{
	char digits[20];
	size_t start = sizeof(digits);

	do {
		digits[--start] = (char)('0' + value % 10);
		value /= 10;
	} while (value > 0);
	return put(at, digits + start, sizeof(digits) - start);
}

static char *
put_status(char *at, uint16_t status)
{
	if (status == 200)
		return PUT(at, "HTTP/1.1 200 OK\r\n");
	at = PUT(at, "HTTP/1.1 ");
	at = put_u64(at, status);
	*at++ = ' ';
	at = put_text(at, api_status_reason(status));
	return PUT(at, "\r\n");
}

static char *
put_framing(char *at, const struct worker_answer *answer)
{
	/* RFC 9110 section 8.6: no Content-Length in 204. */
	if (answer->reply->status == 204)
		return at;
	switch (answer->framing) {
	case WORKER_ANSWER_LENGTH:
		at = PUT(at, "Content-Length: ");
		at = put_u64(at, answer->reply->body.len);
		return PUT(at, "\r\n");
	case WORKER_ANSWER_CHUNKED:
		return PUT(at, "Transfer-Encoding: chunked\r\n");
	case WORKER_ANSWER_UNTIL_CLOSE:
		return at;
	}
	return at;
}

static char *
put_fields(char *at, const struct api_reply *reply)
{
	if (reply->content_type != NULL) {
		at = PUT(at, "Content-Type: ");
		at = put_text(at, reply->content_type);
		at = PUT(at, "\r\n");
	}
	if (reply->allow != NULL) {
		at = PUT(at, "Allow: ");
		at = put_text(at, reply->allow);
		at = PUT(at, "\r\n");
	}
	if (reply->retry_after_s > 0) {
		at = PUT(at, "Retry-After: ");
		at = put_u64(at, reply->retry_after_s);
		at = PUT(at, "\r\n");
	}
	if (reply->location.len > 0) {
		at = PUT(at, "Location: ");
		at = put(at, reply->location.data, reply->location.len);
		at = PUT(at, "\r\n");
	}
	return at;
}

void
worker_answer_write(struct worker_loop *loop, struct api_buf *out,
    const struct worker_answer *answer)
{
	const struct api_reply *reply = answer->reply;
	bool has_body = !answer->is_head &&
			answer->framing == WORKER_ANSWER_LENGTH &&
			reply->status != 204;
	size_t body_bytes = has_body ? reply->body.len : 0;
	char *start, *at;

	if (loop->now_us >= loop->date_us)
		date_refresh(loop);
	worker_out_begin(loop, out);
	start = api_buf_reserve(
	    out, HEAD_BYTES_MAX + reply->location.len + body_bytes);
	if (start == NULL)
		return;
	at = put_status(start, reply->status);
	at = PUT(at, "Server: booksd\r\nDate: ");
	at = put(at, loop->date, 29);
	at = PUT(at, "\r\n");
	at = put_fields(at, reply);
	at = put_framing(at, answer);
	if (answer->close)
		at = PUT(at, "Connection: close\r\n");
	else if (answer->is_http10)
		at = PUT(at, "Connection: keep-alive\r\n");
	at = PUT(at, "\r\n");
	SHM_ASSERT(
	    (size_t)(at - start) <= HEAD_BYTES_MAX + reply->location.len);
	if (body_bytes > 0)
		at = put(at, reply->body.data, body_bytes);
	out->len += (size_t)(at - start);
}
