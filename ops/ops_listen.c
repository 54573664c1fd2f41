/*
 * The notification session's life.
 *
 *	WAITING --> CONNECTING --> LISTENING --> PROVING --> READY
 *	   ^_____________|_____________|____________|__________|
 *
 * READY means that it was seen to hear: LISTEN was accepted, on the channel of
 * the changes and on one of the session's own, and a notification that the
 * session sent to itself has come back.  A connection pooler that accepts
 * LISTEN and gives the server connection to the next client stays in PROVING.
 *
 * What happened before LISTEN was committed may have been missed, so each time
 * the session becomes READY, also for the first time in this process (there
 * may have been one before it), all that the cache holds becomes suspect: it
 * is loaded anew before it is served.  Not when the session is lost: then the
 * database may be away too, and the cache is all there is.
 *
 * A HEARTBEAT every heartbeat_ms tells a session that hears nothing because
 * nothing happens from one that is deaf.  There is one at a time under way,
 * and when nothing at all was heard for two heartbeats the session is closed:
 * behind a flood of notifications ours is late, and that is not deaf.
 * What has arrived is read before that is decided, so a process that was
 * stopped for a while does not take its own silence for the server's.
 *
 * ONE DEADLINE covers everything from the start to READY, since libpq has no
 * connect timeout here.  An address that does not answer at all would eat it
 * every time, so at the deadline its half-open socket is shut down: libpq
 * meets an error and goes on with the next address, which has a deadline of
 * its own.
 *
 * WHAT BLOCKS: the lookup of a host name, inside PQconnectStartParams() and,
 * for further hosts, PQconnectPoll().  Nobody waits for this process but
 * whoever asks the control socket, so there is no thread for it.
 */
#include "config.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "ops/ops_connect.h"
#include "ops/ops_listen.h"

#define ADDRESSES_MAX	 32 /* that do not answer, in one attempt */
#define CHANNEL_BYTES	 32
#define LOG_PAUSE_US	 60000000 /* between two reasons for being away */
#define SECRET_PAUSE_US	 200000	  /* until it is looked for again */
#define NOTICES_TURN_MAX 100	  /* then the loop turns */

#define LISTEN_STATES(S)                            \
	S(OFF)	      /* there is no cache */       \
	S(WAITING)    /* for the next attempt */    \
	S(CONNECTING) /* PQconnectPoll() */         \
	S(LISTENING)  /* LISTEN was sent */         \
	S(PROVING)    /* the first heartbeat was */ \
	S(READY)

enum listen_state {
#define S(name) LISTEN_##name,
	LISTEN_STATES(S)
#undef S
};

static const char *const state_names[] = {
#define S(name) #name,
    LISTEN_STATES(S)
#undef S
};

struct ops_listen {
	const struct ops_options *options;
	struct ops_notice notice;
	PGconn *conn;
	enum listen_state state;
	short events;	       /* to poll its socket for */
	bool is_busy;	       /* a statement is under way */
	bool has_more;	       /* notifications wait for the next turn */
	uint64_t secret;       /* version that it was begun with */
	uint32_t failures;     /* since it was READY */
	uint32_t addresses;    /* that did not answer, of this attempt */
	uint64_t due_us;       /* of WAITING to PROVING */
	uint64_t beat_due_us;  /* READY: when to send the next */
	uint64_t beat_sent_us; /* 0: none is under way */
	uint64_t alive_us;     /* any notification came, last */
	uint64_t heard_us;     /* a heartbeat did */
	uint64_t since_us;     /* READY, or not READY */
	uint64_t sessions;
	uint64_t logged_us;
	bool is_logged; /* that it is away */
	char logged[OPS_CONNECT_REASON_BYTES];
	char reason[OPS_CONNECT_REASON_BYTES];
	char fatal[OPS_CONNECT_REASON_BYTES]; /* the server's last words */
	char channel[CHANNEL_BYTES];
};

/* ---- states */

static void
listen_move(struct ops_listen *listen, enum listen_state from,
    enum listen_state to, uint64_t now_us)
{
	SHM_ASSERT(listen->state == from && from != to);
	ops_say(listen->options, OPS_LOG_DEBUG, "notify_state",
	    "the notification session changed its state",
	    OPS_LOG_STR("from", state_names[from]),
	    OPS_LOG_STR("to", state_names[to]));
	listen->state = to;
	if (from != LISTEN_READY && to != LISTEN_READY)
		return;
	listen->since_us = now_us;
	shm_board_set(
	    listen->options->board->ops.listening, to == LISTEN_READY);
}

/* ---- the end of a session */

/* Once, and later only when there is another reason. */
static void
log_away(struct ops_listen *listen, const char *event, uint64_t now_us)
{
	if (listen->is_logged && (strcmp(listen->logged, listen->reason) == 0 ||
				     now_us - listen->logged_us < LOG_PAUSE_US))
		return;
	listen->is_logged = true;
	listen->logged_us = now_us;
	memcpy(listen->logged, listen->reason, sizeof(listen->logged));
	ops_say(listen->options, OPS_LOG_WARN, event,
	    "changes that others make are not heard, so cached answers may be "
	    "as old as the settings allow",
	    OPS_LOG_STR("reason", listen->reason));
}

static void
listen_close(struct ops_listen *listen)
{
	PQfinish(listen->conn);
	listen->conn = NULL;
	listen->is_busy = listen->has_more = false;
	listen->beat_sent_us = 0;
	listen->fatal[0] = '\0';
}

/* reason NULL: what server or libpq said. */
static void
listen_lost(struct ops_listen *listen, const char *event, const char *reason,
    uint64_t now_us)
{
	if (reason == NULL && listen->fatal[0] != '\0')
		reason = listen->fatal;
	else if (reason == NULL)
		reason = PQerrorMessage(listen->conn);
	ops_connect_reason(listen->reason, reason);
	listen_close(listen);
	listen->failures++;
	listen->due_us = now_us + ops_connect_backoff_us(listen->failures);
	if (listen->state != LISTEN_WAITING)
		listen_move(listen, listen->state, LISTEN_WAITING, now_us);
	log_away(listen, event, now_us);
}

/* The server says why it hangs up; the rest is nobody's business. */
static void
listen_notice(void *arg, const PGresult *result)
{
	struct ops_listen *listen = arg;
	const char *severity =
	    PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
	const char *message =
	    PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

	if (severity != NULL && message != NULL &&
	    (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0))
		ops_connect_reason(listen->fatal, message);
}

/* ---- statements */

/* Write what libpq holds.  False: the connection is lost. */
static bool
listen_flush(struct ops_listen *listen, uint64_t now_us)
{
	int left = PQflush(listen->conn);

	if (left < 0) {
		listen_lost(listen, "notify_lost", NULL, now_us);
		return false;
	}
	listen->events = left > 0 ? POLLIN | POLLOUT : POLLIN;
	return true;
}

static bool
listen_send(struct ops_listen *listen, const char *text, uint64_t now_us)
{
	SHM_ASSERT(!listen->is_busy);
	if (PQsendQuery(listen->conn, text) == 0) {
		listen_lost(listen, "notify_lost", NULL, now_us);
		return false;
	}
	listen->is_busy = true;
	return listen_flush(listen, now_us);
}

/* Autocommit each: a notification is sent when its transaction ends. */
static bool
send_listen(struct ops_listen *listen, uint64_t now_us)
{
	char text[128];

	snprintf(listen->channel, sizeof(listen->channel), "books_beat_%016llx",
	    (unsigned long long)ops_connect_random());
	snprintf(text, sizeof(text), "LISTEN " OPS_NOTICE_CHANNEL "; LISTEN %s",
	    listen->channel);
	return listen_send(listen, text, now_us);
}

static bool
send_beat(struct ops_listen *listen, uint64_t now_us)
{
	char text[64];

	listen->beat_sent_us = now_us;
	snprintf(text, sizeof(text), "NOTIFY %s", listen->channel);
	return listen_send(listen, text, now_us);
}

/* ---- hearing */

static void
listen_is_ready(struct ops_listen *listen, uint64_t now_us)
{
	listen_move(listen, LISTEN_PROVING, LISTEN_READY, now_us);
	shm_cache_suspect(listen->options->cache);
	listen->failures = 0;
	listen->sessions++;
	listen->is_logged = false;
	listen->reason[0] = '\0';
	ops_say(listen->options, OPS_LOG_INFO, "notify_ready",
	    "changes that others make are heard",
	    OPS_LOG_STR("host", PQhost(listen->conn)),
	    OPS_LOG_STR("port", PQport(listen->conn)),
	    OPS_LOG_INT("heartbeat_ms", listen->options->heartbeat_ms));
}

static void
heard_beat(struct ops_listen *listen, uint64_t now_us)
{
	listen->beat_sent_us = 0;
	listen->heard_us = now_us;
	listen->beat_due_us = now_us + listen->options->heartbeat_ms * 1000ULL;
	if (listen->state == LISTEN_PROVING)
		listen_is_ready(listen, now_us);
}

/* A flood of them must not keep the loop from its other work. */
static void
take_notifications(struct ops_listen *listen, uint64_t now_us)
{
	PGnotify *notify = NULL;
	uint32_t count = 0;

	while (count++ < NOTICES_TURN_MAX &&
	       (notify = PQnotifies(listen->conn)) != NULL) {
		if (strcmp(notify->relname, OPS_NOTICE_CHANNEL) == 0)
			ops_notice_take(&listen->notice, notify->extra, now_us);
		else if (strcmp(notify->relname, listen->channel) == 0)
			heard_beat(listen, now_us);
		listen->alive_us = now_us;
		PQfreemem(notify);
	}
	listen->has_more = notify != NULL;
}

/* The results of what was sent.  False: an error, and the session is over. */
static bool
take_results(struct ops_listen *listen, uint64_t now_us)
{
	PGresult *result;
	bool is_error;

	while (listen->is_busy && !PQisBusy(listen->conn)) {
		result = PQgetResult(listen->conn);
		/* The end of a statement, no result, has this status too. */
		is_error = result != NULL &&
			   PQresultStatus(result) == PGRES_FATAL_ERROR;
		if (is_error && listen->fatal[0] == '\0')
			ops_connect_reason(
			    listen->fatal, PQresultErrorMessage(result));
		listen->is_busy = result != NULL;
		PQclear(result);
		if (is_error) {
			listen_lost(listen, "notify_lost", NULL, now_us);
			return false;
		}
	}
	return true;
}

/* Take what has arrived.  False: the session is over. */
static bool
listen_read(struct ops_listen *listen, uint64_t now_us)
{
	bool ok = PQconsumeInput(listen->conn) == 1;

	/* What was heard before the end counts. */
	take_notifications(listen, now_us);
	if (!take_results(listen, now_us))
		return false;
	if (!ok || PQstatus(listen->conn) == CONNECTION_BAD) {
		listen_lost(listen, "notify_lost", NULL, now_us);
		return false;
	}
	if (!listen_flush(listen, now_us))
		return false;
	if (listen->state != LISTEN_LISTENING || listen->is_busy)
		return true;
	listen_move(listen, LISTEN_LISTENING, LISTEN_PROVING, now_us);
	return send_beat(listen, now_us);
}

/* ---- connecting */

/* A server that asked for a password and then hung up did not like it; why it
 * did is only said in its own language. */
static void
connect_failed(struct ops_listen *listen, uint64_t now_us)
{
	if (listen->options->secret_id[0] != '\0' &&
	    PQconnectionUsedPassword(listen->conn))
		shm_secret_refuse(listen->options->secret, listen->secret);
	listen_lost(listen, "notify_lost", NULL, now_us);
}

static void
connect_poll(struct ops_listen *listen, PostgresPollingStatusType status,
    uint64_t now_us)
{
	switch (status) {
	case PGRES_POLLING_READING:
		listen->events = POLLIN;
		return;
	case PGRES_POLLING_WRITING:
		listen->events = POLLOUT;
		return;
	case PGRES_POLLING_OK:
		break;
	default:
		connect_failed(listen, now_us);
		return;
	}
	if (PQsetnonblocking(listen->conn, 1) == -1) {
		listen_lost(listen, "notify_lost", NULL, now_us);
		return;
	}
	listen_move(listen, LISTEN_CONNECTING, LISTEN_LISTENING, now_us);
	(void)send_listen(listen, now_us);
}

/* False: it has to be fetched first. */
static bool
take_secret(struct ops_listen *listen, char text[SHM_SECRET_BYTES_MAX])
{
	text[0] = '\0';
	if (listen->options->secret_id[0] == '\0')
		return true;
	listen->secret = shm_secret_get(listen->options->secret, text);
	return listen->secret > 0;
}

static void
listen_connect(struct ops_listen *listen, uint64_t now_us)
{
	const struct ops_options *options = listen->options;
	char secret[SHM_SECRET_BYTES_MAX];

	if (!take_secret(listen, secret)) {
		listen->due_us = now_us + SECRET_PAUSE_US;
		return;
	}
	listen_move(listen, LISTEN_WAITING, LISTEN_CONNECTING, now_us);
	listen->addresses = 0;
	listen->conn = ops_connect_start(options->database, secret);
	explicit_bzero(secret, sizeof(secret));
	/* The lookup of a name may have taken its time. */
	listen->due_us =
	    shm_clock_us() + options->database_connect_timeout_ms * 1000ULL;
	if (listen->conn == NULL) {
		listen_lost(listen, "notify_lost", "no memory", now_us);
		return;
	}
	PQsetNoticeReceiver(listen->conn, listen_notice, listen);
	if (PQstatus(listen->conn) == CONNECTION_BAD)
		listen_lost(listen, "notify_lost",
		    ops_connect_refused(listen->conn), now_us);
	else
		connect_poll(listen, PGRES_POLLING_WRITING, now_us);
}

/* ---- timers */

static void
connecting_timed_out(struct ops_listen *listen, uint64_t now_us)
{
	if (PQstatus(listen->conn) == CONNECTION_STARTED &&
	    listen->addresses++ < ADDRESSES_MAX &&
	    shutdown(PQsocket(listen->conn), SHUT_RDWR) == 0) {
		listen->due_us =
		    now_us +
		    listen->options->database_connect_timeout_ms * 1000ULL;
		listen->events = POLLOUT;
		return;
	}
	listen_lost(listen, "notify_lost", "connecting took too long", now_us);
}

/* The next heartbeat, or the time by which the last one has to be heard. */
static uint64_t
ready_due_us(const struct ops_listen *listen)
{
	uint64_t patience_us = listen->options->heartbeat_ms * 2000ULL;

	if (listen->beat_sent_us == 0)
		return listen->beat_due_us +
		       (listen->is_busy ? patience_us : 0);
	if (listen->alive_us > listen->beat_sent_us)
		return listen->alive_us + patience_us;
	return listen->beat_sent_us + patience_us;
}

static void
ready_tick(struct ops_listen *listen, uint64_t now_us)
{
	if (listen->beat_sent_us == 0 && !listen->is_busy) {
		(void)send_beat(listen, now_us);
		return;
	}
	/* It may lie there, unread. */
	if (!listen_read(listen, now_us) || listen->has_more ||
	    now_us < ready_due_us(listen))
		return;
	if (listen->beat_sent_us != 0 || listen->is_busy)
		listen_lost(listen, "notify_deaf",
		    "its own heartbeat was not heard in time", now_us);
}

void
ops_listen_tick(struct ops_listen *listen, uint64_t now_us)
{
	if (now_us < ops_listen_due_us(listen))
		return;
	if (listen->has_more) {
		(void)listen_read(listen, now_us);
		return;
	}
	switch (listen->state) {
	case LISTEN_OFF:
		return;
	case LISTEN_WAITING:
		listen_connect(listen, now_us);
		return;
	case LISTEN_CONNECTING:
		connecting_timed_out(listen, now_us);
		return;
	case LISTEN_LISTENING:
		listen_lost(listen, "notify_lost",
		    "no answer to LISTEN in time", now_us);
		return;
	case LISTEN_PROVING:
		listen_lost(listen, "notify_deaf",
		    "LISTEN was accepted, yet a notification to itself does "
		    "not arrive (is there a connection pooler?)",
		    now_us);
		return;
	case LISTEN_READY:
		ready_tick(listen, now_us);
		return;
	}
	SHM_ASSERT(false);
}

/* ---- the room's side */

struct ops_listen *
ops_listen_new(const struct ops_options *options)
{
	struct ops_listen *listen = calloc(1, sizeof(*listen));

	if (listen == NULL)
		return NULL;
	listen->options = options;
	listen->notice.options = options;
	listen->since_us = listen->due_us = shm_clock_us();
	listen->state = options->cache == NULL ? LISTEN_OFF : LISTEN_WAITING;
	return listen;
}

void
ops_listen_free(struct ops_listen **listen)
{
	struct ops_listen *old = *listen;

	*listen = NULL;
	if (old == NULL)
		return;
	shm_board_set(old->options->board->ops.listening, 0);
	listen_close(old);
	free(old);
}

int
ops_listen_fd(const struct ops_listen *listen, short *events)
{
	*events = listen->events;
	return listen->conn == NULL ? -1 : PQsocket(listen->conn);
}

void
ops_listen_ready(struct ops_listen *listen, uint64_t now_us)
{
	if (listen->state == LISTEN_CONNECTING)
		connect_poll(listen, PQconnectPoll(listen->conn), now_us);
	else if (listen->state > LISTEN_CONNECTING)
		(void)listen_read(listen, now_us);
}

/* There is no need to wait with it. */
static bool
has_new_secret(const struct ops_listen *listen)
{
	return listen->state == LISTEN_WAITING &&
	       listen->options->secret_id[0] != '\0' &&
	       shm_secret_version(listen->options->secret) != listen->secret;
}

uint64_t
ops_listen_due_us(const struct ops_listen *listen)
{
	if (listen->state == LISTEN_OFF)
		return UINT64_MAX;
	if (listen->has_more || has_new_secret(listen))
		return 0;
	return listen->state == LISTEN_READY ? ready_due_us(listen)
					     : listen->due_us;
}

void
ops_listen_status(
    const struct ops_listen *listen, struct ops_listen_status *status)
{
	*status = (struct ops_listen_status){
	    .state = listen->state == LISTEN_OFF     ? "off"
		     : listen->state == LISTEN_READY ? "ready"
						     : "away",
	    .reason = listen->reason,
	    .since_us = listen->since_us,
	    .heard_us = listen->heard_us,
	    .sessions = listen->sessions,
	    .notice = &listen->notice,
	};
}
