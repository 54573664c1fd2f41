/*
 * A connection's life: lookup, connect, set-up, and its end.
 *
 * CONNECTING never blocks.  Names are looked up by worker_resolve, one lookup
 * at a time for all links that want one; whoever begins to wait while one is
 * under way takes its result, which is as fresh as its own would be.
 * PQconnectPoll() may close its socket and open another one under the same
 * number, so the descriptor is not watched while it runs.
 *
 * libpq has no connect timeout of its own here: deadline_us covers everything
 * from the lookup to the end of the set-up.  An address that does not answer
 * would eat that time again and again, so after a timeout the next attempt
 * begins with the next address.
 *
 * SET-UP is one pipeline with one sync: session parameters and every prepared
 * statement.  A link counts only when that sync has arrived without an error
 * before it; a missing table (42P01) means that migrations are pending, and is
 * met by the same back-off as a server that is away.
 */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "worker/worker_db_link.h"

static const char *const link_state_names[] = {
#define S(name, deadline) #name,
    DB_LINK_STATES(S)
#undef S
};

/* ---- states */

static bool
state_is_up(enum db_link_state state)
{
	return state == DB_LINK_READY || state >= DB_LINK_DRAINING;
}

static bool
state_is_connecting(enum db_link_state state)
{
	return state >= DB_LINK_RESOLVING && state <= DB_LINK_SETUP;
}

/* opened less lost is how many are usable. */
static void
link_count(const struct worker_db_link *link, enum db_link_state from,
    enum db_link_state to)
{
	struct worker_db *db = link->db;

	db->is_touched = true;
	if (state_is_up(to) && !state_is_up(from))
		shm_stats_count(db->stats, SHM_STATS_database_opened, 1);
	else if (state_is_up(from) && !state_is_up(to) && !db->is_closing)
		shm_stats_count(db->stats, SHM_STATS_database_lost, 1);
}

/* The only place where a state changes. */
void
db_link_move(
    struct worker_db_link *link, enum db_link_state from, enum db_link_state to)
{
	struct worker_db *db = link->db;
	uint32_t up_before = db->up_count;

	SHM_ASSERT(link->state == from);
	link->state = to;
	db->connecting_count -= state_is_connecting(from);
	db->connecting_count += state_is_connecting(to);
	db->up_count -= state_is_up(from);
	db->up_count += state_is_up(to);
	link_count(link, from, to);
	if (worker_log_enabled(WORKER_LOG_DEBUG))
		worker_log(WORKER_LOG_DEBUG, "database_link",
		    "a database connection changed its state",
		    LOG_INT("link", link->number),
		    LOG_STR("from", link_state_names[from]),
		    LOG_STR("to", link_state_names[to]), LOG_END);
	if (db->up_count == db->options.connections)
		db->is_short = false;
	if (up_before == 0 && db->up_count == 1)
		db_away_ends(link);
	if (db->up_count != up_before && !db->is_closing)
		db->options.state(
		    db->options.owner, db->up_count > 0, db->up_count);
}

/* ---- the socket */

/* events 0 stops; the pair is told to the owner only when it changes. */
void
db_link_watch(struct worker_db_link *link, uint32_t events)
{
	const struct worker_db_options *options = &link->db->options;
	int fd = link->conn == NULL ? -1 : PQsocket(link->conn);

	if (fd == -1)
		events = 0;
	if (events == 0) {
		if (link->watched_fd != -1)
			options->watch(
			    options->owner, link->number, link->watched_fd, 0);
		link->watched_fd = -1;
		link->watched_events = 0;
		return;
	}
	if (fd == link->watched_fd && events == link->watched_events)
		return;
	link->watched_fd = fd;
	link->watched_events = events;
	options->watch(options->owner, link->number, fd, events);
}

bool
db_link_flush(struct worker_db_link *link)
{
	int left = PQflush(link->conn);

	if (left < 0) {
		db_link_lost(link, NULL);
		return false;
	}
	db_link_watch(link, left > 0 ? POLLIN | POLLOUT : POLLIN);
	return true;
}

/* A server that hung up: libpq has closed the socket in there.  Watching ends
 * before anything can open another one under its number. */
bool
db_link_read(struct worker_db_link *link)
{
	bool ok = PQconsumeInput(link->conn) == 1;

	if (PQsocket(link->conn) == -1)
		db_link_watch(link, 0);
	return ok;
}

/* Errors and notices that belong to no query: the server says why it hangs
 * up, and libpq must not print it to standard error. */
static void
link_notice(void *arg, const PGresult *result)
{
	struct worker_db_link *link = arg;
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	if (sqlstate == NULL || db_error_kind(sqlstate) != DB_ERROR_DEAD)
		return;
	snprintf(link->failure.sqlstate, sizeof(link->failure.sqlstate), "%s",
	    sqlstate);
	/* What is sent before the end of the stream is seen is too late. */
	db_error_note_end(link, result);
}

/* ---- the end */

static void
link_disconnect(struct worker_db_link *link)
{
	db_link_watch(link, 0);
	if (link->conn != NULL)
		PQfinish(link->conn);
	link->conn = NULL;
	db_pipe_abandon(link);
	db_stream_abandon(link);
	link->has_unsynced = link->has_more = link->is_cut = false;
	link->is_told = link->is_undone = false;
}

/* The reason as it will be logged: the server's word before libpq's. */
static void
link_explain(struct worker_db_link *link, const char *reason)
{
	struct worker_conninfo_failure *failure = &link->failure;
	const char *known = worker_conninfo_sqlstate(failure->sqlstate);

	if (failure->sqlstate[0] == '\0' && reason == NULL)
		worker_conninfo_failure(
		    link->conn == NULL ? "" : PQerrorMessage(link->conn),
		    failure);
	else if (reason == NULL)
		reason = known != NULL ? known : "refused by the server";
	if (reason != NULL)
		snprintf(
		    failure->reason, sizeof(failure->reason), "%s", reason);
}

void
db_link_lost(struct worker_db_link *link, const char *reason)
{
	struct worker_db *db = link->db;

	SHM_ASSERT(link->state != DB_LINK_WAITING);
	link_explain(link, reason);
	if (link->failure.sqlstate[0] != '\0')
		db_count_error(db, link->failure.sqlstate);
	db_secret_refused(link);
	link_disconnect(link);
	link->failures++;
	link->deadline_us = db->now_us + db_away_backoff_us(db, link->failures);
	db_wake_at(db, link->deadline_us);
	db_link_move(link, link->state, DB_LINK_WAITING);
	db_away_note_failure(link);
}

void
db_link_renew(struct worker_db_link *link, const char *reason)
{
	link_explain(link, reason);
	link_disconnect(link);
	link->deadline_us = link->db->now_us;
	db_wake_at(link->db, link->deadline_us);
	db_link_move(link, link->state, DB_LINK_WAITING);
	db_away_note_failure(link);
}

void
db_link_close(struct worker_db_link *link)
{
	link_disconnect(link);
	if (link->state != DB_LINK_WAITING)
		db_link_move(link, link->state, DB_LINK_WAITING);
}

/* ---- connecting */

static void
link_poll(struct worker_db_link *link, PostgresPollingStatusType status)
{
	switch (status) {
	case PGRES_POLLING_READING:
		db_link_watch(link, POLLIN);
		break;
	case PGRES_POLLING_WRITING:
		db_link_watch(link, POLLOUT);
		break;
	default:
		db_link_lost(link, NULL);
	}
}

static void
link_start(struct worker_db_link *link)
{
	struct worker_db *db = link->db;

	if (worker_conninfo_targets(db->conninfo, db->resolve) == 0) {
		db_link_lost(link, worker_resolve_error(db->resolve));
		return;
	}
	link->first_target = db->first_target;
	link->secret_version = db->secret_version;
	link->conn = worker_conninfo_start(
	    db->conninfo, db->resolve, link->first_target);
	if (link->conn == NULL) {
		db_link_lost(link, "no memory");
		return;
	}
	PQsetNoticeReceiver(link->conn, link_notice, link);
	db_link_move(link, link->state, DB_LINK_CONNECTING);
	link_poll(link, PQstatus(link->conn) == CONNECTION_BAD
			    ? PGRES_POLLING_FAILED
			    : PGRES_POLLING_WRITING);
}

/* The lookup begins, or the one under way will do. */
static void
link_resolve(
    struct worker_db_link *link, const char *const *names, uint32_t count)
{
	struct worker_db *db = link->db;

	db_link_move(link, DB_LINK_WAITING, DB_LINK_RESOLVING);
	if (db->resolve != NULL)
		return;
	db->resolve = worker_resolve_start(names, count);
	if (db->resolve == NULL) {
		db_link_lost(link, strerror(errno));
		return;
	}
	db->options.watch(db->options.owner, db->options.connections,
	    worker_resolve_fd(db->resolve), POLLIN);
}

void
db_link_resolved(struct worker_db *db)
{
	int fd = worker_resolve_fd(db->resolve);

	db->options.watch(db->options.owner, db->options.connections, fd, 0);
	worker_resolve_finish(db->resolve);
	for (uint32_t i = 0; i < db->options.connections; i++)
		if (db->links[i].state == DB_LINK_RESOLVING)
			link_start(&db->links[i]);
	worker_resolve_free(&db->resolve);
}

void
db_link_connect(struct worker_db_link *link)
{
	struct worker_db *db = link->db;
	const char *const *names;
	uint32_t count;

	SHM_ASSERT(link->state == DB_LINK_WAITING);
	SHM_ASSERT(link->conn == NULL && link->count == 0);
	if (db_away_puts_off(link))
		return;
	link->failure = (struct worker_conninfo_failure){.sqlstate = ""};
	if (!db_secret_take(db)) {
		db_secret_missing(link);
		return;
	}
	count = worker_conninfo_names(db->conninfo, &names);
	link->deadline_us =
	    db->now_us + db->options.connect_timeout_ms * 1000ull;
	db_wake_at(db, link->deadline_us);
	if (count > 0)
		link_resolve(link, names, count);
	else
		link_start(link);
}

/* ---- set-up */

static bool
link_send_setup(struct worker_db_link *link)
{
	const char *const values[] = {link->db->statement_timeout};
	bool ok;

	ok = PQsetnonblocking(link->conn, 1) == 0 &&
	     PQenterPipelineMode(link->conn) == 1 &&
	     PQsendQueryParams(link->conn,
		 "SELECT set_config('statement_timeout', $1, false),"
		 /* A list has no statement timeout: without this one its
		  * session would wait for a lock after we closed it. */
		 " set_config('lock_timeout', $1, false),"
		 " set_config('TimeZone', 'UTC', false),"
		 " set_config('DateStyle', 'ISO', false)",
		 1, NULL, values, NULL, NULL, 0) == 1;
	for (int i = 0; ok && i < API_SQL_COUNT; i++) {
		const struct api_sql_text *text = api_sql_text((enum api_sql)i);

		ok = PQsendPrepare(
			 link->conn, text->name, text->sql, 0, NULL) == 1;
	}
	return ok && PQpipelineSync(link->conn) == 1;
}

void
db_link_connect_ready(struct worker_db_link *link)
{
	PostgresPollingStatusType status;

	db_link_watch(link, 0); /* the socket may change unseen */
	status = PQconnectPoll(link->conn);
	if (status != PGRES_POLLING_OK) {
		link_poll(link, status);
		return;
	}
	if (!link_send_setup(link)) {
		db_link_lost(link, NULL);
		return;
	}
	db_link_move(link, DB_LINK_CONNECTING, DB_LINK_SETUP);
	(void)!db_link_flush(link);
}

/* Keep the first error of the set-up. */
static void
link_setup_result(struct worker_db_link *link, const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	if (PQresultStatus(result) == PGRES_FATAL_ERROR && sqlstate != NULL &&
	    link->failure.sqlstate[0] == '\0')
		snprintf(link->failure.sqlstate, sizeof(link->failure.sqlstate),
		    "%s", sqlstate);
}

static void
link_setup_done(struct worker_db_link *link)
{
	if (link->failure.sqlstate[0] != '\0') {
		db_link_lost(link, NULL);
		return;
	}
	link->failures = 0;
	link->ready_us = link->db->now_us;
	db_link_move(link, DB_LINK_SETUP, DB_LINK_READY);
}

void
db_link_setup_ready(struct worker_db_link *link)
{
	bool ok = db_link_read(link);

	while (!PQisBusy(link->conn)) {
		PGresult *result = PQgetResult(link->conn);
		bool is_sync = PQresultStatus(result) == PGRES_PIPELINE_SYNC;

		if (result == NULL && PQstatus(link->conn) == CONNECTION_BAD)
			break;
		link_setup_result(link, result);
		PQclear(result);
		if (is_sync) {
			link_setup_done(link);
			return;
		}
	}
	if (!ok || PQstatus(link->conn) == CONNECTION_BAD)
		db_link_lost(link, NULL);
	else
		(void)!db_link_flush(link);
}

/* ---- timers */

void
db_link_timed_out(struct worker_db_link *link)
{
	switch (link->state) {
	case DB_LINK_WAITING:
		db_link_connect(link);
		break;
	case DB_LINK_RESOLVING:
		db_link_lost(link, "the name lookup took too long");
		break;
	case DB_LINK_CONNECTING:
		/* Links that began together move on together, by one. */
		link->db->first_target = link->first_target + 1;
		db_link_lost(link, "connecting took too long");
		break;
	case DB_LINK_SETUP:
		db_link_lost(link, "the set-up took too long");
		break;
	case DB_LINK_READY:
	case DB_LINK_RETIRING:
	case DB_LINK_DRAINING:
	case DB_LINK_STREAM_BEGIN:
	case DB_LINK_STREAM_END:
		db_link_lost(link, "no answer in time");
		break;
	case DB_LINK_STREAMING:
		db_stream_timed_out(link);
		break;
	}
}
