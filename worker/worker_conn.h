/*
 * A client connection: from accept to close, one request at a time.
 */
#ifndef WORKER_CONN_H
#define WORKER_CONN_H

#include "worker/worker_chunked.h"
#include "worker/worker_loop.h"

/*
 * state      waits for            until it passes           then
 * READING    a request            keepalive_timeout         close
 *            the rest of a head   header_timeout            408, LAST
 * BODY       the rest of a body   body_timeout              408, LAST
 * WAITING    the database         the database's timeouts   503
 * STREAMING  rows, the client     send_timeout              close
 * LAST       the client reading   send_timeout              close
 * LINGERING  the client's end     2 s, 10 s in all          close
 * CLOSING    completions          -
 */
enum worker_conn_state {
	WORKER_CONN_FREE = 0,
	WORKER_CONN_READING,
	WORKER_CONN_BODY,
	WORKER_CONN_WAITING,
	WORKER_CONN_STREAMING,
	WORKER_CONN_LAST,
	WORKER_CONN_LINGERING,
	WORKER_CONN_CLOSING,
};

struct worker_conn {
	struct worker_loop *loop;
	uint32_t slot;
	uint8_t state;	 /* enum worker_conn_state */
	uint8_t minor;	 /* of the present request's version */
	uint8_t framing; /* enum worker_http_framing of its body */
	uint8_t method;	 /* enum api_method */
	bool keep_alive; /* what the present request allows */
	bool is_head;
	bool sending;	   /* flight is under way */
	bool ended;	   /* the client sends no more */
	bool paused;	   /* receiving is stopped: the backlog is full */
	bool head_started; /* a part of a head is here, its clock runs */
	bool advancing;	   /* conn_continue is on the stack */
	bool leaving;	   /* released, to be handed over */
	struct worker_call *call; /* the present request's, while it lasts */
	struct api_buf in;	  /* bytes not used yet: in.data + in_start */
	size_t in_start;
	struct api_buf out;    /* answers being written */
	struct api_buf flight; /* being sent; flight_sent of it have left */
	size_t flight_sent;
	size_t chunk_at; /* where the open chunk begins in out */
	bool chunk_open;
	uint64_t head_us;    /* when the first part of a head came */
	uint64_t body_left;  /* with WORKER_HTTP_LENGTH */
	uint64_t body_bytes; /* read so far */
	struct worker_chunked chunked;
	uint64_t progress_us; /* when the client last took bytes of flight */
	uint32_t unsent;      /* as it was then */
	uint64_t linger_us;   /* lingering ends at the latest */
	char remote[46];      /* address, "" for a unix socket */
};

/* ---- worker_loop.c calls these */
void worker_conn_open(struct worker_loop *loop, uint32_t slot, int fd);
void worker_conn_received(struct worker_conn *conn, int res, const char *data);
void worker_conn_sent(struct worker_conn *conn, int res);
void worker_conn_closed(struct worker_conn *conn);
void worker_conn_timeout(struct worker_conn *conn);
/* Drain: close it when no request is under way. */
void worker_conn_close_idle(struct worker_conn *conn);
void worker_conn_fini(struct worker_conn *conn); /* at exit */
/* Another worker has it now (worker_handover.c). */
void worker_conn_moved(struct worker_conn *conn);

/* ---- worker_call.c calls these */

/* Write the answer of the present request and go on to the next one. */
void
worker_conn_answer(struct worker_conn *conn, const struct api_reply *reply);
/* The same in two steps for a stored answer: where its value goes in conn->out
 * (worker_answer_lead()), and that it was written there. */
char *worker_conn_answer_lead(struct worker_conn *conn, uint16_t status,
    size_t value_bytes) SHM_MUSTCHECK;
void worker_conn_answered(
    struct worker_conn *conn, uint16_t status, uint64_t body_bytes);
/* The head of a list answer has to go out. */
void worker_conn_stream_begin(
    struct worker_conn *conn, const struct api_reply *reply);
/* Where its text is written, as one open chunk. */
struct api_buf *worker_conn_stream_buf(struct worker_conn *conn);
/* More was written: false when the client has enough for now. */
bool worker_conn_stream_push(struct worker_conn *conn);
void worker_conn_stream_end(struct worker_conn *conn);
/* Cut the connection: the client must see that the answer is not whole. */
void worker_conn_abort(struct worker_conn *conn);
/* After any of these from outside of received/sent: use what is buffered. */
void worker_conn_continue(struct worker_conn *conn);

#endif
