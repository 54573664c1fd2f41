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

/* Where the answer to a question that the cache was asked came from. */
enum worker_source {
	WORKER_SOURCE_NONE = 0, /* it was not asked */
	WORKER_SOURCE_HIT,
	WORKER_SOURCE_MISS, /* the database, or nowhere */
	WORKER_SOURCE_STALE,
	WORKER_SOURCE_COALESCED, /* another's load was waited for */
};

/* "hit" and so on, as X-Cache and the access log say it; NULL for NONE. */
const char *worker_source_name(enum worker_source source);

struct worker_answer {
	const struct api_reply *reply;
	enum worker_answer_framing framing;
	enum worker_source source;
	uint32_t age_s; /* with HIT and STALE */
	bool close;	/* say Connection: close */
	bool is_http10; /* a kept connection must be said */
	bool is_head;	/* send no body */
};

/* Once, before the first answer; -1 with errno. */
int worker_answer_open(struct worker_loop *loop) SHM_MUSTCHECK;
void worker_answer_close(struct worker_loop *loop);

/* Append the head, and the body of a LENGTH answer.  *out->failed tells when
 * there was no memory. */
void worker_answer_write(struct worker_loop *loop, struct api_buf *out,
    const struct worker_answer *answer);

/*
 * The other way, for an answer that is stored with most of its head: the fields
 * that are not stored, at the end of out, and room for value_bytes more.
 * Returns where those go, NULL when there is no memory (out->failed).  out->len
 * is left alone: what is not wanted after all was never there.
 * Of *answer the reply and the framing are not used.
 */
char *worker_answer_lead(struct worker_loop *loop, struct api_buf *out,
    uint16_t status, const struct worker_answer *answer,
    size_t value_bytes) SHM_MUSTCHECK;

/* The header block of a reply as it is stored, with the empty line at its end;
 * valid until the next call. */
struct api_slice
worker_answer_block(struct worker_loop *loop, const struct api_reply *reply);

/* Buffers of WORKER_OUT_BYTES that live in a small stack: the one given back
 * last is warm in the cache.  begin does nothing when out has memory. */
#define WORKER_OUT_BYTES 8192
void worker_out_begin(struct worker_loop *loop, struct api_buf *out);
void worker_out_end(struct worker_loop *loop, struct api_buf *out);
void worker_out_free_all(struct worker_loop *loop);

#endif
