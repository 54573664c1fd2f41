/*
 * What a connection sends: answers, streams, and when they leave.
 *
 * Answers collect in `out`; a flush makes `out` the flight and sends it, so a
 * pipelined burst costs one send.  A stream's rows are written into one open
 * chunk of `out`, which becomes a whole chunk when it leaves.
 */
#include "config.h"

#include "worker/worker_answer.h"
#include "worker/worker_call.h"
#include "worker/worker_conn_part.h"
#include "worker/worker_handover.h"

#define OUT_HIGH_BYTES	  (16u << 10) /* no further request is started */
#define STREAM_HIGH_BYTES (16u << 10) /* a chunk leaves, or rows pause */
#define CHUNK_PREFIX	  8	      /* six hex digits and CRLF */

void
conn_flight_free(struct worker_conn *conn)
{
	conn->loop->unsent_bytes -= conn->flight.cap;
	worker_out_end(conn->loop, &conn->flight);
}

/* How much may wait behind a flight: less when many clients do not read. */
size_t
conn_out_high(const struct worker_loop *loop)
{
	return loop->unsent_bytes < WORKER_HELD_BYTES_MAX / 2
		   ? OUT_HIGH_BYTES
		   : WORKER_OUT_BYTES / 2;
}

/*
 * A send ends when the kernel has room for all of it, which may be megabytes
 * after the client's last read.  So a send that lasts is looked at several
 * times per send_timeout: as long as the client takes bytes it is only slow.
 */
#define SEND_LOOKS 4

bool
conn_waits_for_send(const struct worker_conn *conn)
{
	return conn->sending &&
	       (conn->state == WORKER_CONN_STREAMING ||
		   conn->state == WORKER_CONN_LAST ||
		   (conn->state == WORKER_CONN_READING && !conn->head_started));
}

static void
conn_send(struct worker_conn *conn)
{
	struct worker_loop *loop = conn->loop;

	conn->sending = true;
	conn->unsent = UINT32_MAX;
	conn->progress_us = loop->now_us;
	if (conn_waits_for_send(conn))
		conn_deadline(
		    conn, loop->options->send_timeout_ms / SEND_LOOKS);
	io_send(loop->io, conn->slot, conn->flight.data + conn->flight_sent,
	    conn->flight.len - conn->flight_sent);
}

/* The time for a look has come: has the client stopped reading? */
bool
conn_send_is_stalled(struct worker_conn *conn)
{
	struct worker_loop *loop = conn->loop;
	uint64_t timeout_ms = loop->options->send_timeout_ms;
	uint32_t unsent = io_unsent(loop->io, conn->slot);

	if (unsent < conn->unsent) {
		conn->unsent = unsent;
		conn->progress_us = loop->now_us;
	}
	if (loop->now_us - conn->progress_us >= timeout_ms * 1000)
		return true;
	conn_deadline(conn, timeout_ms / SEND_LOOKS);
	return false;
}

/* What was written of a stream becomes a whole chunk. */
static void
chunk_close(struct worker_conn *conn)
{
	static const char hex[] = "0123456789abcdef";
	char *prefix;
	size_t bytes;

	if (!conn->chunk_open || conn->out.failed)
		return;
	conn->chunk_open = false;
	prefix = conn->out.data + conn->chunk_at;
	bytes = conn->out.len - conn->chunk_at - CHUNK_PREFIX;
	if (bytes == 0) { /* a chunk of no bytes would be the last one */
		conn->out.len = conn->chunk_at;
		return;
	}
	SHM_ASSERT(bytes < 1u << 24);
	for (int i = 5; i >= 0; i--, bytes >>= 4)
		prefix[i] = hex[bytes & 15];
	memcpy(prefix + 6, "\r\n", 2);
	api_buf_bytes(&conn->out, "\r\n", 2);
}

void
conn_flush(struct worker_conn *conn)
{
	if (!conn->sending)
		chunk_close(conn); /* whoever asks: half one never leaves */
	if (conn->out.failed) {
		conn_drop(conn);
		return;
	}
	if (conn->sending || conn->out.len == 0)
		return;
	conn->flight = conn->out;
	conn->loop->unsent_bytes += conn->flight.cap;
	conn->out = (struct api_buf){0};
	conn->flight_sent = 0;
	conn_send(conn);
}

/* What a connection waits for when no send is under way. */
void
conn_deadline_of_state(struct worker_conn *conn)
{
	const struct worker_options *options = conn->loop->options;

	switch ((enum worker_conn_state)conn->state) {
	case WORKER_CONN_READING:
		if (!conn->head_started)
			conn_deadline(conn, options->keepalive_timeout_ms);
		break;
	case WORKER_CONN_STREAMING:
	case WORKER_CONN_LAST:
		conn_deadline(conn, options->send_timeout_ms);
		break;
	case WORKER_CONN_WAITING:
		conn_deadline_none(conn);
		break;
	case WORKER_CONN_FREE:
	case WORKER_CONN_BODY: /* set once, when the body began */
	case WORKER_CONN_LINGERING:
	case WORKER_CONN_CLOSING:
		break;
	}
}

void
worker_conn_sent(struct worker_conn *conn, int res)
{
	struct worker_loop *loop = conn->loop;

	if (conn->state == WORKER_CONN_CLOSING)
		return;
	if (res < 0) {
		conn_drop(conn);
		return;
	}
	conn->flight_sent += (size_t)res;
	if (conn->flight_sent < conn->flight.len) {
		conn_send(conn);
		return;
	}
	conn->sending = false;
	conn_flight_free(conn);
	if (conn->state == WORKER_CONN_LAST && conn->out.len == 0) {
		conn_linger(conn);
		return;
	}
	conn_deadline_of_state(conn);
	if (conn->state == WORKER_CONN_STREAMING) {
		(void)worker_conn_stream_push(conn);
		if (conn->call != NULL) /* dropped: no memory for rows */
			worker_db_resume(loop->db, &conn->call->query);
		return;
	}
	worker_conn_continue(conn);
	worker_handover_idle(conn);
}

/* ---- answers */

/* The present request has its answer. */
static void
conn_next(struct worker_conn *conn)
{
	conn->loop->requests++;
	conn->state = conn->keep_alive ? WORKER_CONN_READING : WORKER_CONN_LAST;
	conn->head_started = false;
	if (conn_waits_for_send(conn)) /* a new request is no progress of it */
		conn_deadline(
		    conn, conn->loop->options->send_timeout_ms / SEND_LOOKS);
	else
		conn_deadline_of_state(conn);
}

/* What every answer of the present request has in common. */
static struct worker_answer
answer_begin(struct worker_conn *conn)
{
	const struct worker_call *call = conn->call;

	if (worker_loop_says_close(conn->loop))
		conn->keep_alive = false;
	return (struct worker_answer){
	    .source = call != NULL ? call->cache.source : WORKER_SOURCE_NONE,
	    .age_s = call != NULL ? call->cache.age_s : 0,
	    .close = !conn->keep_alive,
	    .is_http10 = conn->minor == 0,
	    .is_head = conn->is_head,
	};
}

void
worker_conn_answered(
    struct worker_conn *conn, uint16_t status, uint64_t body_bytes)
{
	if (conn->call != NULL) {
		worker_call_log(
		    conn->call, status, conn->is_head ? 0 : body_bytes);
		worker_call_leave(&conn->call);
	}
	conn_next(conn);
}

void
worker_conn_answer(struct worker_conn *conn, const struct api_reply *reply)
{
	struct worker_answer answer = answer_begin(conn);

	answer.reply = reply;
	if (reply->is_stream_head && conn->minor > 0)
		answer.framing = WORKER_ANSWER_CHUNKED;
	else if (reply->is_stream_head)
		answer.framing = WORKER_ANSWER_UNTIL_CLOSE;
	worker_answer_write(conn->loop, &conn->out, &answer);
	worker_conn_answered(conn, reply->status, reply->body.len);
}

char *
worker_conn_answer_lead(
    struct worker_conn *conn, uint16_t status, size_t value_bytes)
{
	const struct worker_answer answer = answer_begin(conn);

	return worker_answer_lead(
	    conn->loop, &conn->out, status, &answer, value_bytes);
}

/*
 * The engine's own answer to something that is no request, or too much of one:
 * it is the last thing said.
 */
void
conn_refuse(struct worker_conn *conn, uint16_t status, const char *detail)
{
	struct api_buf text = {0};
	struct api_reply reply = {0};

	api_problem(status, detail,
	    conn->call != NULL && api_call_wants_problem(&conn->call->api),
	    &text, &reply);
	conn->keep_alive = false;
	if (conn->call == NULL) {
		worker_stats_refused(conn, status);
		worker_log_request(&(struct worker_log_access){.status = status,
		    .minor = 1,
		    .bytes = reply.body.len,
		    .route = "none",
		    .remote = worker_log_text(conn->remote)});
	}
	worker_conn_answer(conn, &reply);
	api_buf_fini(&text);
}

/* ---- streams */

void
worker_conn_stream_begin(
    struct worker_conn *conn, const struct api_reply *reply)
{
	struct worker_answer answer;

	if (conn->minor == 0)
		conn->keep_alive = false;
	answer = answer_begin(conn);
	answer.reply = reply;
	answer.framing = conn->minor == 0 ? WORKER_ANSWER_UNTIL_CLOSE
					  : WORKER_ANSWER_CHUNKED;
	conn->state = WORKER_CONN_STREAMING;
	conn->chunk_open = false;
	worker_answer_write(conn->loop, &conn->out, &answer);
	conn_deadline_of_state(conn);
}

struct api_buf *
worker_conn_stream_buf(struct worker_conn *conn)
{
	worker_out_begin(conn->loop, &conn->out);
	if (conn->chunk_open || conn->minor == 0)
		return &conn->out;
	conn->chunk_at = conn->out.len;
	if (api_buf_reserve(&conn->out, CHUNK_PREFIX) != NULL)
		conn->out.len += CHUNK_PREFIX;
	conn->chunk_open = true;
	return &conn->out;
}

bool
worker_conn_stream_push(struct worker_conn *conn)
{
	if (conn->sending)
		return conn->out.len < STREAM_HIGH_BYTES;
	if (conn->out.len >= STREAM_HIGH_BYTES || conn->out.failed)
		conn_flush(conn);
	return true;
}

void
worker_conn_stream_end(struct worker_conn *conn)
{
	chunk_close(conn);
	if (conn->minor > 0) {
		worker_out_begin(conn->loop, &conn->out);
		api_buf_bytes(&conn->out, "0\r\n\r\n", 5);
	}
	worker_call_leave(&conn->call);
	conn_next(conn);
}
