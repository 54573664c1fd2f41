/*
 * The life of a client connection.
 *
 *	READING -> (BODY) -> WAITING -> READING ...
 *	                  -> STREAMING -> READING ...
 *	any of them -> LAST -> LINGERING -> CLOSING -> FREE
 *
 * One request at a time: bytes behind a request stay in `in` until it has its
 * answer, so answers are in order and nothing behind an unsafe request starts
 * before that one's outcome.  Answers collect in `out` while an earlier batch
 * (`flight`) is being sent, so a pipelined burst costs one send.
 *
 * INVARIANTS
 *   I1  call != NULL exactly in BODY, WAITING and STREAMING.
 *   I2  sending <=> flight holds bytes that io has; they do not move.
 *   I3  after LAST nothing the client sends is interpreted.
 *   I4  no function here is entered again while it runs for the same
 *       connection: the database never calls back from inside a submit, io
 *       never from inside a start, and worker_conn_continue() guards itself.
 *
 * LIMITS
 *   backlog   bytes behind a request: a full head and a page, then receiving
 *             stops and TCP holds the client back
 *   out       16 KiB of unsent answers behind those being sent: then no
 *             further request is started (a client that pipelines and does
 *             not read costs this and no more)
 *   memory    WORKER_HELD_BYTES_MAX for all connections: then 503 and close
 */
#include "config.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <errno.h>

#include "worker/worker_answer.h"
#include "worker/worker_call.h"
#include "worker/worker_conn_part.h"
#include "worker/worker_handover.h"

#define BACKLOG_SLACK 4096u
/* Receives already completed when receiving was stopped: io's whole ring. */
#define BACKLOG_OVERRUN (2u << 20)
#define LINGER_US	2000000u
#define LINGER_TOTAL_US 10000000u

static struct api_slice
in_rest(const struct worker_conn *conn)
{
	return (struct api_slice){
	    conn->in.data + conn->in_start, conn->in.len - conn->in_start};
}

static uint32_t
backlog_max(const struct worker_loop *loop)
{
	return loop->limits.request_line_bytes_max +
	       loop->limits.header_bytes_max + BACKLOG_SLACK;
}

/* ---- deadlines: one at a time, of what the connection waits for */

void
conn_deadline(struct worker_conn *conn, uint64_t after_ms)
{
	struct worker_loop *loop = conn->loop;

	worker_timer_set(
	    loop->timer, conn->slot, loop->now_us + after_ms * 1000);
}

/* A request is under way: its waiting has deadlines elsewhere, so only a
 * distant look is kept (cheaper than taking the entry out and in again). */
void
conn_deadline_none(struct worker_conn *conn)
{
	conn_deadline(conn, 3600 * 1000);
}

/* ---- closing */

static void
in_free(struct worker_conn *conn)
{
	conn->loop->held_bytes -= conn->in.cap;
	api_buf_fini(&conn->in);
	conn->in = (struct api_buf){0};
	conn->in_start = 0;
}

void
conn_drop(struct worker_conn *conn)
{
	struct worker_loop *loop = conn->loop;

	if (conn->state == WORKER_CONN_CLOSING)
		return;
	/* An answer that ends with the connection must not end cleanly. */
	if (conn->state == WORKER_CONN_STREAMING && conn->minor == 0)
		io_reset(loop->io, conn->slot);
	worker_call_leave(&conn->call);
	worker_handover_forget(conn);
	conn->state = WORKER_CONN_CLOSING;
	worker_timer_set(loop->timer, conn->slot, WORKER_TIMER_NEVER);
	in_free(conn);
	worker_out_end(loop, &conn->out);
	io_close(loop->io, conn->slot);
}

void
worker_conn_abort(struct worker_conn *conn)
{
	conn_drop(conn);
}

/*
 * The last answer has left.  Closing now could reset the connection and take
 * the answer away from a client that is still sending (RFC 9112 section 9.6):
 * so our side ends, and the client's bytes are read and thrown away for a
 * while.
 */
void
conn_linger(struct worker_conn *conn)
{
	if (conn->ended) {
		conn_drop(conn);
		return;
	}
	conn->state = WORKER_CONN_LINGERING;
	in_free(conn);
	io_shutdown_send(conn->loop->io, conn->slot);
	if (conn->paused) {
		conn->paused = false;
		io_receive_start(conn->loop->io, conn->slot);
	}
	conn->linger_us = conn->loop->now_us + LINGER_TOTAL_US;
	conn_deadline(conn, LINGER_US / 1000);
}

/* ---- requests */

static void
conn_request(struct worker_conn *conn, const struct worker_http_head *head)
{
	struct worker_loop *loop = conn->loop;

	SHM_ASSERT(conn->call == NULL);
	conn->minor = head->minor;
	conn->keep_alive = head->keep_alive;
	conn->is_head = head->method == API_HEAD;
	conn->method = (uint8_t)head->method;
	conn->call = worker_call_begin(conn, head);
	conn->head_started = false;
	if (conn->call == NULL) {
		conn_refuse(conn, 503, "The server is out of memory.");
		return;
	}
	conn->framing = (uint8_t)head->framing;
	conn->body_bytes = 0;
	conn->body_left = head->content_length;
	conn->state = WORKER_CONN_WAITING;
	if (head->framing == WORKER_HTTP_NO_BODY) {
		if (conn->call->verdict == API_NEED_BODY)
			worker_call_body(conn->call, API_SLICE(""));
		worker_call_go_on(conn->call);
		return;
	}
	if (head->expect_continue && conn->call->verdict == API_DONE) {
		/* Refused before the body was sent: nobody asks for it. */
		conn->keep_alive = false;
		worker_call_go_on(conn->call);
		return;
	}
	conn->state = WORKER_CONN_BODY;
	worker_call_keep_log(conn->call);
	worker_chunked_init(&conn->chunked);
	conn_deadline(conn, loop->options->body_timeout_ms);
	if (head->expect_continue) {
		worker_out_begin(loop, &conn->out);
		api_buf_text(&conn->out, "HTTP/1.1 100 Continue\r\n\r\n");
	}
}

static size_t
conn_read_head(struct worker_conn *conn, struct api_slice bytes, bool *more)
{
	struct worker_loop *loop = conn->loop;
	struct worker_http_head *head = &loop->head;

	switch (worker_http_parse(head, bytes.data, bytes.len, &loop->limits)) {
	case WORKER_HTTP_OK:
		conn_request(conn, head);
		return head->bytes;
	case WORKER_HTTP_MORE:
		*more = true;
		if (!conn->head_started) {
			conn->head_started = true;
			conn->head_us = loop->now_us;
			conn_deadline(conn, loop->options->header_timeout_ms);
		}
		return 0;
	case WORKER_HTTP_REJECT:
		conn->minor = 1;
		conn->is_head =
		    head->method_text.len > 0 && head->method == API_HEAD;
		conn->method = head->method_text.len > 0 ? (uint8_t)head->method
							 : API_METHOD_OTHER;
		conn_refuse(conn, head->status, head->detail);
		return bytes.len;
	}
	return 0;
}

/* Take body bytes; false when the connection was refused for them. */
static bool
body_take(struct worker_conn *conn, struct api_slice data)
{
	struct worker_loop *loop = conn->loop;
	struct worker_call *call = conn->call;
	size_t cap = call->body.cap;

	conn->body_bytes += data.len;
	if (conn->body_bytes > loop->limits.body_bytes_max) {
		conn_refuse(conn, 413, "The request body is too large.");
		return false;
	}
	if (call->verdict != API_NEED_BODY || data.len == 0)
		return true;
	api_buf_bytes(&call->body, data.data, data.len);
	loop->held_bytes += call->body.cap - cap;
	if (call->body.failed || loop->held_bytes > WORKER_HELD_BYTES_MAX) {
		conn_refuse(conn, 503, "The server holds too many bodies.");
		return false;
	}
	return true;
}

static void
body_done(struct worker_conn *conn, struct api_slice body)
{
	conn->state = WORKER_CONN_WAITING;
	conn_deadline_none(conn);
	if (conn->call->verdict == API_NEED_BODY)
		worker_call_body(conn->call, body);
	worker_call_go_on(conn->call);
}

static size_t
conn_read_length(struct worker_conn *conn, struct api_slice bytes)
{
	size_t used =
	    bytes.len < conn->body_left ? bytes.len : (size_t)conn->body_left;
	struct api_slice data = {bytes.data, used};

	if (conn->body_bytes == 0 && used == conn->body_left) {
		conn->body_left = 0;
		body_done(conn, data); /* in one piece: not copied */
		return used;
	}
	if (!body_take(conn, data))
		return bytes.len;
	conn->body_left -= used;
	if (conn->body_left == 0)
		body_done(conn, api_buf_slice(&conn->call->body));
	return used;
}

static size_t
conn_read_chunked(struct worker_conn *conn, struct api_slice bytes)
{
	size_t at = 0;

	while (at < bytes.len) {
		struct api_slice data = {NULL, 0};
		size_t used = 0;
		enum worker_chunked_result result =
		    worker_chunked_read(&conn->chunked, bytes.data + at,
			bytes.len - at, &used, &data);

		at += used;
		if (result == WORKER_CHUNKED_BAD) {
			conn_refuse(
			    conn, 400, "The chunked body is malformed.");
			return bytes.len;
		}
		if (!body_take(conn, data))
			return bytes.len;
		if (result == WORKER_CHUNKED_DONE) {
			body_done(conn, api_buf_slice(&conn->call->body));
			return at;
		}
	}
	return at;
}

/* Use what can be used of bytes; the rest is the caller's to keep. */
static size_t
conn_advance(struct worker_conn *conn, struct api_slice bytes, bool *more)
{
	size_t used = 0;

	while (used < bytes.len && !*more &&
	       conn->out.len < conn_out_high(conn->loop)) {
		struct api_slice rest = {bytes.data + used, bytes.len - used};

		if (conn->state == WORKER_CONN_READING)
			used += conn_read_head(conn, rest, more);
		else if (conn->state != WORKER_CONN_BODY)
			break;
		else if (conn->framing == WORKER_HTTP_LENGTH)
			used += conn_read_length(conn, rest);
		else
			used += conn_read_chunked(conn, rest);
	}
	return used;
}

/* ---- the backlog */

static bool
in_append(struct worker_conn *conn, const char *data, size_t len)
{
	struct worker_loop *loop = conn->loop;
	size_t cap = conn->in.cap, rest = conn->in.len - conn->in_start;

	if (conn->in_start > 0) {
		memmove(conn->in.data, conn->in.data + conn->in_start, rest);
		conn->in.len = rest;
		conn->in_start = 0;
	}
	conn->in.bytes_max = backlog_max(loop) + BACKLOG_OVERRUN;
	api_buf_bytes(&conn->in, data, len);
	loop->held_bytes += conn->in.cap - cap;
	if (conn->in.failed || loop->held_bytes > WORKER_HELD_BYTES_MAX) {
		conn_drop(conn);
		return false;
	}
	if (conn->in.len > backlog_max(loop) && !conn->paused) {
		conn->paused = true;
		io_receive_stop(loop->io, conn->slot);
	}
	return true;
}

/* After LAST the client's bytes mean nothing (I3). */
static bool
conn_is_deaf(const struct worker_conn *conn)
{
	return conn->state == WORKER_CONN_LAST ||
	       conn->state == WORKER_CONN_LINGERING ||
	       conn->state == WORKER_CONN_CLOSING;
}

void
worker_conn_continue(struct worker_conn *conn)
{
	bool more = false;

	if (conn->advancing || conn->state == WORKER_CONN_CLOSING)
		return;
	conn->advancing = true;
	if (conn_is_deaf(conn)) {
		in_free(conn);
	} else if (conn->in.len > conn->in_start) {
		conn->in_start += conn_advance(conn, in_rest(conn), &more);
		if (conn->in_start == conn->in.len || conn_is_deaf(conn))
			in_free(conn);
	}
	conn->advancing = false;
	if (conn->state == WORKER_CONN_CLOSING)
		return;
	if (conn->paused &&
	    conn->in.len - conn->in_start < backlog_max(conn->loop) / 2) {
		conn->paused = false;
		io_receive_start(conn->loop->io, conn->slot);
	}
	conn_flush(conn);
	/* The client ended its side and has all its answers. */
	if (conn->ended && !conn->sending &&
	    (conn->state == WORKER_CONN_READING ||
		conn->state == WORKER_CONN_BODY))
		conn_drop(conn);
}

static void
conn_received_end(struct worker_conn *conn, int res)
{
	conn->ended = true;
	if (res < 0 || conn->state == WORKER_CONN_LINGERING)
		conn_drop(conn);
	else
		worker_conn_continue(conn);
}

static void
conn_received_deaf(struct worker_conn *conn)
{
	uint64_t next = conn->loop->now_us + LINGER_US;

	if (conn->state == WORKER_CONN_LINGERING)
		worker_timer_set(conn->loop->timer, conn->slot,
		    next < conn->linger_us ? next : conn->linger_us);
}

void
worker_conn_received(struct worker_conn *conn, int res, const char *data)
{
	struct api_slice bytes = {data, res > 0 ? (size_t)res : 0};
	bool more = false;
	size_t used = 0;

	if (res <= 0) {
		conn_received_end(conn, res);
		return;
	}
	if (conn_is_deaf(conn)) {
		conn_received_deaf(conn);
		return;
	}
	if (conn->in.len == conn->in_start) {
		conn->advancing = true;
		used = conn_advance(conn, bytes, &more);
		conn->advancing = false;
	}
	if (conn_is_deaf(conn))
		used = bytes.len;
	if (used < bytes.len &&
	    !in_append(conn, bytes.data + used, bytes.len - used))
		return;
	/* What was just found too short to parse needs no second look. */
	if (more)
		conn_flush(conn);
	else
		worker_conn_continue(conn);
}

/* ---- the beginning and the end */

static void
remote_text(int fd, char text[46])
{
	struct sockaddr_storage addr = {0};
	socklen_t len = sizeof(addr);
	const void *from = NULL;

	text[0] = '\0';
	if (getpeername(fd, (struct sockaddr *)&addr, &len) == -1)
		return;
	if (addr.ss_family == AF_INET)
		from = &((struct sockaddr_in *)(void *)&addr)->sin_addr;
	else if (addr.ss_family == AF_INET6)
		from = &((struct sockaddr_in6 *)(void *)&addr)->sin6_addr;
	if (from != NULL)
		inet_ntop(addr.ss_family, from, text, 46);
}

void
worker_conn_open(struct worker_loop *loop, uint32_t slot, int fd)
{
	struct worker_conn *conn = &loop->conn[slot];

	SHM_ASSERT(conn->state == WORKER_CONN_FREE);
	*conn = (struct worker_conn){
	    .loop = loop, .slot = slot, .state = WORKER_CONN_READING};
	remote_text(fd, conn->remote);
	io_open_slot(loop->io, slot, fd);
	conn_deadline_of_state(conn);
}

void
worker_conn_closed(struct worker_conn *conn)
{
	SHM_ASSERT(conn->state == WORKER_CONN_CLOSING);
	conn_flight_free(conn);
	conn->sending = false;
	conn->state = WORKER_CONN_FREE;
	worker_loop_conn_closed(conn->loop, conn->slot);
}

static void
conn_count_timeout(const struct worker_conn *conn)
{
	shm_stats_count(conn->loop->stats.shm, SHM_STATS_timeouts, 1);
}

void
worker_conn_timeout(struct worker_conn *conn)
{
	if (conn_waits_for_send(conn) && !conn_send_is_stalled(conn))
		return;
	switch ((enum worker_conn_state)conn->state) {
	case WORKER_CONN_READING:
		conn_count_timeout(conn);
		if (conn->sending || !conn->head_started) {
			conn_drop(conn);
			return;
		}
		conn->is_head = false; /* its method is not known */
		conn->method = API_METHOD_OTHER;
		conn_refuse(conn, 408, "The request head took too long.");
		worker_conn_continue(conn);
		return;
	case WORKER_CONN_BODY:
		conn_count_timeout(conn);
		conn_refuse(conn, 408, "The request body took too long.");
		worker_conn_continue(conn);
		return;
	case WORKER_CONN_STREAMING:
		/* The client waits for rows; few and slow ones go out now. */
		if (conn->sending || conn->out.len == 0) {
			conn_count_timeout(conn);
			conn_drop(conn);
			return;
		}
		conn_flush(conn);
		return;
	case WORKER_CONN_LAST:
		conn_count_timeout(conn);
		conn_drop(conn);
		return;
	case WORKER_CONN_LINGERING: /* it had its answer */
		conn_drop(conn);
		return;
	case WORKER_CONN_WAITING:
		conn_deadline_none(conn);
		return;
	case WORKER_CONN_FREE:
	case WORKER_CONN_CLOSING:
		return;
	}
}

void
worker_conn_close_idle(struct worker_conn *conn)
{
	if (conn->state == WORKER_CONN_READING && !conn->head_started &&
	    !conn->sending && conn->out.len == 0 && !conn->leaving)
		conn_linger(conn);
}

void
worker_conn_moved(struct worker_conn *conn)
{
	struct worker_loop *loop = conn->loop;

	SHM_ASSERT(conn->state == WORKER_CONN_READING && !conn->sending);
	worker_timer_set(loop->timer, conn->slot, WORKER_TIMER_NEVER);
	in_free(conn);
	worker_out_end(loop, &conn->out);
	conn->state = WORKER_CONN_FREE;
	worker_loop_conn_closed(loop, conn->slot);
}

void
worker_conn_fini(struct worker_conn *conn)
{
	if (conn->state == WORKER_CONN_FREE)
		return;
	worker_call_leave(&conn->call);
	api_buf_fini(&conn->in);
	api_buf_fini(&conn->out);
	api_buf_fini(&conn->flight);
	conn->state = WORKER_CONN_FREE;
}
