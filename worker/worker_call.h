/*
 * A request between its head and its answer: the meeting of a connection, the
 * api and the database.  A call outlives its connection when a write is still
 * under way: its outcome matters to nobody then, but its memory does.
 */
#ifndef WORKER_CALL_H
#define WORKER_CALL_H

#include "api/api_call.h"
#include "worker/worker_conn.h"
#include "worker/worker_log.h"

#define WORKER_CALL_TEXT_MAX                            \
	1536 /* of log fields kept; longer ones are cut \
	      */

struct worker_call {
	struct worker_call *next; /* in the free list */
	struct worker_loop *loop;
	struct worker_conn *conn; /* NULL: the client is gone */
	struct worker_db_query query;
	enum api_verdict verdict;
	struct api_reply reply; /* with API_DONE */
	struct api_buf text;	/* where the api writes */
	struct api_buf body;	/* the request's, when it came in pieces */
	bool stream_open;
	bool query_open; /* with the database */
	bool logged;
	uint64_t stream_bytes;
	uint64_t started_us;
	uint64_t db_us;
	struct worker_log_access access;
	char log_text[WORKER_CALL_TEXT_MAX];
	struct api_call api;
};

/* The head of a request was read: ask the api.  NULL without memory. */
struct worker_call *worker_call_begin(struct worker_conn *conn,
    const struct worker_http_head *head) SHM_MUSTCHECK;

/* Keep what the log needs: head's bytes are going away. */
void worker_call_keep_log(struct worker_call *call);

/* The body is here (API_NEED_BODY). */
void worker_call_body(struct worker_call *call, struct api_slice body);

/* Do what the verdict says: answer, or ask the database. */
void worker_call_go_on(struct worker_call *call);

/* The access line, when the answer's size is known. */
void
worker_call_log(struct worker_call *call, uint16_t status, uint64_t body_bytes);

/* The connection has no more interest; *call becomes NULL.  Without an access
 * line yet it gets one with status 499: the client left before its answer. */
void worker_call_leave(struct worker_call **call);

void worker_call_free_all(struct worker_loop *loop);

#endif
