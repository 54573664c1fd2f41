/*
 * A request between its head and its answer: the meeting of a connection, the
 * api, the cache and the database.  A call outlives its connection when a write
 * is still under way, whose outcome matters to the cache, or when others wait
 * for what it loads.
 */
#ifndef WORKER_CALL_H
#define WORKER_CALL_H

#include "api/api_call.h"
#include "worker/worker_answer.h"
#include "worker/worker_conn.h"
#include "worker/worker_log.h"

#define WORKER_CALL_TEXT_MAX                            \
	1536 /* of log fields kept; longer ones are cut \
	      */

/* What a call has to do with the cache. */
struct worker_call_cache {
	/* worker_cache.c */
	bool is_asked;		      /* key is valid: the cache may know it */
	bool has_waited;	      /* for another's load */
	enum worker_source source;    /* of the answer */
	uint32_t age_s;		      /* of an answer from the cache */
	struct shm_cache_key key;     /* its text is in api */
	struct shm_cache_lease lease; /* of the last look */
	int intent;		      /* of a write; -1: none */

	/* worker_load.c */
	bool is_load;	    /* what is read is stored under lease */
	bool is_renewal;    /* nobody waits for it */
	bool has_tee;	    /* a list that is kept while it is sent */
	struct api_buf tee; /* its bytes */
	struct shm_cache_flight flight; /* word 0: loading without a claim */

	/* worker_wait.c */
	bool is_waiting; /* in the loop's list */
	struct worker_call *wait_next, *wait_prev;
	uint64_t look_us;    /* look again then */
	uint64_t give_up_us; /* wait no longer than that; 0: never waited */
};

struct worker_call {
	struct worker_call *next; /* in the free list */
	struct worker_loop *loop;
	struct worker_conn *conn; /* NULL: the client is gone, or never was */
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
	struct worker_call_cache cache;
	struct worker_log_access access;
	char log_text[WORKER_CALL_TEXT_MAX];
	struct api_call api;
};

/* The head of a request was read: ask the api.  NULL without memory. */
struct worker_call *worker_call_begin(struct worker_conn *conn,
    const struct worker_http_head *head) SHM_MUSTCHECK;

/* A GET that no client asked for; NULL without memory.  worker_call_start() or
 * worker_call_drop() follows. */
struct worker_call *worker_call_begin_alone(struct worker_loop *loop,
    struct api_slice path, struct api_slice query) SHM_MUSTCHECK;
void worker_call_drop(struct worker_call **call);

/* Keep what the log needs: head's bytes are going away. */
void worker_call_keep_log(struct worker_call *call);

/* The body is here (API_NEED_BODY). */
void worker_call_body(struct worker_call *call, struct api_slice body);

/* The request is complete: answer from the cache, wait, or start. */
void worker_call_go_on(struct worker_call *call);

/* Do what the verdict says: answer, or ask the database. */
void worker_call_start(struct worker_call *call);

/* The connection has no more interest; *call becomes NULL.  Without an access
 * line yet it gets one with status 499: the client left before its answer. */
void worker_call_leave(struct worker_call **call);

void worker_call_free_all(struct worker_loop *loop);

/* ---- worker_call_log.c: the access line, and that the request counts */
void worker_call_log_begin(
    struct worker_call *call, const struct worker_http_head *head);
/* The answer's size is known: once for each request that a client sent. */
void
worker_call_log(struct worker_call *call, uint16_t status, uint64_t body_bytes);
/* A field's value; data NULL: absent. */
struct api_slice
worker_call_field(const struct worker_http_head *head, const char *name);

#endif
