/*
 * An answer's bytes: status line, fields, body, in buffers that are used again.
 */
#ifndef WORKER_ANSWER_H
#define WORKER_ANSWER_H

#include "worker/worker_loop.h"

/* How the body ends (RFC 9112 section 6). */
enum worker_answer_framing {
	WORKER_ANSWER_LENGTH = 0,
	WORKER_ANSWER_CHUNKED,
	WORKER_ANSWER_UNTIL_CLOSE, /* HTTP/1.0 only */
};

struct worker_answer {
	const struct api_reply *reply;
	enum worker_answer_framing framing;
	bool close;	/* say Connection: close */
	bool is_http10; /* a kept connection must be said */
	bool is_head;	/* send no body */
};

/* Append the head, and the body of a LENGTH answer.  *out->failed tells when
 * there was no memory. */
void worker_answer_write(struct worker_loop *loop, struct api_buf *out,
    const struct worker_answer *answer);

/* Buffers of WORKER_OUT_BYTES that live in a small stack: the one given back
 * last is warm in the cache.  begin does nothing when out has memory. */
#define WORKER_OUT_BYTES 8192
void worker_out_begin(struct worker_loop *loop, struct api_buf *out);
void worker_out_end(struct worker_loop *loop, struct api_buf *out);
void worker_out_free_all(struct worker_loop *loop);

#endif
