/*
 * A connection that one query has to itself, because its rows come as slowly
 * as a client reads them.
 *
 *	READY --place--> DRAINING --empty--> STREAM_BEGIN (SET no timeout)
 *	      --answer--> STREAMING (rows one by one) --end-->
 *	      STREAM_END (SET the timeout again) --answer--> READY
 *
 * BOUNDED MEMORY.  libpq reads as much as fits into its buffer and no more as
 * long as PQconsumeInput() is called only when no complete row is left in it.
 * A paused stream's socket is not watched at all: the kernel's buffers fill,
 * the server waits.  That such a connection has died is noticed when its
 * client reads on, or when the query is cancelled.
 *
 * DEADLINE.  The first row has to come as fast as any other answer; after it
 * only the client's reading counts (its connection's send timeout).
 *
 * FAIRNESS.  DB_ROWS_PER_TURN rows, then the loop gets its turn and
 * worker_db_tick() asks for another one.
 *
 * The whole list is one statement, so it is one snapshot.  A stream that has
 * not lent a row yet may be sent once more, like any read.
 */
#include "config.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "worker/worker_db_link.h"
#include "worker/worker_probe.h"

void
db_stream_place(struct worker_db_link *link, struct worker_db_query *query)
{
	SHM_ASSERT(link->stream == NULL);
	db_link_move(link, DB_LINK_READY, DB_LINK_DRAINING);
	link->stream = query;
	query->link = link;
	query->state = DB_QUERY_SENT;
	if (link->count == 0)
		db_stream_begin(link);
}

/* An error's sqlstate goes to the query; false when there is no server. */
static bool
stream_error(struct worker_db_link *link, const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	struct worker_db_query *query = link->stream;

	if (sqlstate == NULL)
		return false;
	if (db_error_kind(sqlstate) == DB_ERROR_DEAD) {
		snprintf(link->failure.sqlstate, sizeof(link->failure.sqlstate),
		    "%s", sqlstate);
		return false;
	}
	db_count_error(link->db, sqlstate);
	if (query != NULL) {
		query->is_failed = true;
		snprintf(
		    query->sqlstate, sizeof(query->sqlstate), "%s", sqlstate);
	}
	return true;
}

static bool
stream_send_set(struct worker_db_link *link, const char *milliseconds)
{
	char sql[64];

	snprintf(sql, sizeof(sql), "SET statement_timeout = %s", milliseconds);
	link->deadline_us = link->db->now_us + link->db->answer_us;
	db_wake_at(link->db, link->deadline_us);
	return PQsendQuery(link->conn, sql) == 1;
}

void
db_stream_begin(struct worker_db_link *link)
{
	SHM_ASSERT(link->count == 0 && !link->has_unsynced);
	db_link_move(link, DB_LINK_DRAINING, DB_LINK_STREAM_BEGIN);
	if (PQexitPipelineMode(link->conn) != 1 ||
	    !stream_send_set(link, "0")) {
		db_link_lost(link, NULL);
		return;
	}
	(void)!db_link_flush(link);
}

/* ---- the ends */

static void
stream_done(struct worker_db_link *link, enum api_db_outcome outcome)
{
	struct worker_db_query *query = link->stream;

	link->stream = NULL;
	link->is_cut = false;
	db_query_end(link->db, query, outcome, query->sqlstate);
}

/* The connection is gone: once more, if nobody has seen a row of it. */
void
db_stream_abandon(struct worker_db_link *link)
{
	struct worker_db_query *query = link->stream;

	if (query == NULL)
		return;
	query->wants_fresh = true;
	if (query->rows == 0 && db_query_retry(link->db, query)) {
		link->stream = NULL;
		query->paused = false;
		return;
	}
	stream_done(link, API_DB_UNAVAILABLE);
}

/* Not even a first row came: the server waits for something, a lock say, and
 * has no timeout of its own for this statement. */
void
db_stream_timed_out(struct worker_db_link *link)
{
	SHM_ASSERT(link->stream->rows == 0);
	stream_done(link, API_DB_TIMEOUT);
	db_link_renew(link, "a list had no first row in time");
}

/* Cancelled.  Nothing of it was sent while the link drains; afterwards only
 * closing makes the server stop. */
void
db_stream_cut(struct worker_db_link *link)
{
	link->is_cut = false;
	if (link->stream == NULL)
		return;
	if (link->state == DB_LINK_DRAINING) {
		db_link_move(link, DB_LINK_DRAINING, DB_LINK_READY);
		stream_done(link, API_DB_UNAVAILABLE);
		return;
	}
	db_link_renew(link, "a list was given up");
}

static enum api_db_outcome
stream_outcome(const struct worker_db_query *query)
{
	if (!query->is_failed)
		return API_DB_OK;
	switch (db_error_kind(query->sqlstate)) {
	case DB_ERROR_TIMEOUT:
		return API_DB_TIMEOUT;
	case DB_ERROR_STATEMENT:
		return API_DB_REFUSED;
	case DB_ERROR_STALE:
	case DB_ERROR_DEAD:
		break;
	}
	return API_DB_UNAVAILABLE;
}

/* All rows were lent, or the statement failed. */
static void
stream_end(struct worker_db_link *link)
{
	struct worker_db_query *query = link->stream;
	bool is_stale = query->is_failed &&
			db_error_kind(query->sqlstate) == DB_ERROR_STALE;

	if (is_stale && query->rows == 0 && query->tries == 0) {
		snprintf(link->failure.sqlstate, sizeof(link->failure.sqlstate),
		    "%s", query->sqlstate);
		query->wants_fresh = true;
		db_link_renew(link, NULL); /* sends the query once more */
		return;
	}
	stream_done(link, stream_outcome(query));
	db_link_move(link, DB_LINK_STREAMING, DB_LINK_STREAM_END);
	if (!stream_send_set(link, link->db->statement_timeout)) {
		db_link_lost(link, NULL);
		return;
	}
	(void)!db_link_flush(link);
}

/* ---- rows */

/* False: the link is lost. */
static bool
stream_result(struct worker_db_link *link, const PGresult *result)
{
	struct worker_db_query *query = link->stream;

	switch (PQresultStatus(result)) {
	case PGRES_SINGLE_TUPLE:
		if (!db_query_row(query, result, 0))
			query->paused = true;
		return true;
	case PGRES_TUPLES_OK: /* the empty end of the rows */
	case PGRES_COMMAND_OK:
		return true;
	default:
		return stream_error(link, result);
	}
}

/* One row, or the end.  False: no more now, or not STREAMING any more. */
static bool
stream_step(struct worker_db_link *link)
{
	PGresult *result = PQgetResult(link->conn);
	bool ok = true;

	if (result != NULL) {
		ok = stream_result(link, result);
		PQclear(result);
	} else if (PQstatus(link->conn) == CONNECTION_BAD) {
		ok = false;
	} else {
		stream_end(link);
		return false;
	}
	if (!ok)
		db_link_lost(link, NULL);
	return ok && !link->is_cut && !link->stream->paused;
}

void
db_stream_pump(struct worker_db_link *link)
{
	int rows = 0;

	link->has_more = false;
	if (link->state != DB_LINK_STREAMING || link->stream->paused ||
	    link->is_cut)
		return;
	while (!PQisBusy(link->conn)) {
		if (rows++ == DB_ROWS_PER_TURN) {
			link->has_more = link->db->has_more = true;
			break;
		}
		if (!stream_step(link))
			break;
	}
	if (link->state != DB_LINK_STREAMING)
		return;
	if (link->stream->paused || link->is_cut)
		db_link_watch(link, 0);
	else
		(void)!db_link_flush(link);
}

static void
stream_rows_ready(struct worker_db_link *link)
{
	bool ok = true;

	/* Under TLS a second time: one read may leave the rest of a record
	 * inside the TLS library, where no poll sees it. */
	for (int i = PQsslInUse(link->conn) ? 2 : 1;
	     ok && i > 0 && PQisBusy(link->conn); i--)
		ok = db_link_read(link);
	/* Rows that arrived before the end are lent first: then PQgetResult()
	 * says that the connection is gone. */
	db_stream_pump(link);
}

/* ---- SET, before and after */

static bool
stream_send_query(struct worker_db_link *link)
{
	const struct api_statement *statement = link->stream->statement;
	const struct api_sql_text *text = api_sql_text(statement->id);

	link->stream->sent_us = link->db->now_us;
	shm_stats_count(link->db->stats, SHM_STATS_database_queries, 1);
	WORKER_PROBE2(query__start, text->name, link->number);
	link->deadline_us = link->db->now_us + link->db->answer_us;
	db_wake_at(link->db, link->deadline_us);
	return PQsendQueryPrepared(link->conn, text->name,
		   statement->params_count, statement->params, NULL, NULL,
		   1) == 1 &&
	       PQsetSingleRowMode(link->conn) == 1;
}

static void
stream_set_done(struct worker_db_link *link)
{
	bool ok;

	if (link->state == DB_LINK_STREAM_BEGIN) {
		ok = stream_send_query(link);
		if (ok)
			db_link_move(
			    link, DB_LINK_STREAM_BEGIN, DB_LINK_STREAMING);
	} else {
		ok = PQenterPipelineMode(link->conn) == 1;
		if (ok)
			db_link_move(link, DB_LINK_STREAM_END, DB_LINK_READY);
	}
	if (!ok)
		db_link_lost(link, NULL);
	else
		(void)!db_link_flush(link);
}

static void
stream_set_ready(struct worker_db_link *link)
{
	bool ok = db_link_read(link);

	while (ok && !PQisBusy(link->conn)) {
		PGresult *result = PQgetResult(link->conn);

		if (result == NULL && PQstatus(link->conn) == CONNECTION_OK) {
			stream_set_done(link);
			return;
		}
		ok = result != NULL &&
		     PQresultStatus(result) == PGRES_COMMAND_OK;
		if (result != NULL && !ok)
			(void)stream_error(link, result);
		PQclear(result);
	}
	if (!ok)
		db_link_lost(link, NULL);
	else
		(void)!db_link_flush(link);
}

void
db_stream_ready(struct worker_db_link *link)
{
	if (link->state == DB_LINK_STREAMING)
		stream_rows_ready(link);
	else
		stream_set_ready(link);
}
