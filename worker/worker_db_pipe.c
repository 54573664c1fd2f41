/*
 * Queries on a connection in pipeline mode.
 *
 * The server runs everything up to a sync as one transaction: when a statement
 * fails, those before it are rolled back and those after it are skipped.  So
 *
 *	reads of a turn   r r r S       share a sync
 *	a write           w S           has its own, and none before it is open:
 *	                                r r S w S r S
 *
 * and a write is committed when its sync arrives, not before.  Its rows may be
 * read earlier; its outcome is not.  A read that was skipped is sent once
 * more, behind a sync of its own, so that it cannot be skipped twice.
 *
 * libpq answers for each query with results, then NULL; for each sync with
 * PGRES_PIPELINE_SYNC alone.  ring has the same order (I1), so its first entry
 * always says whose result is at hand.
 *
 * WHEN THE LINK IS LOST
 *   a read                        is sent once more
 *   a write with an error         was rolled back: UNAVAILABLE
 *   any other write, and the      did not run, or was rolled back: sent
 *     server said why             again, a bounded number of times
 *   any other write               UNKNOWN; only the caller can find out
 *   a query never sent            is the queue's, not in ring at all
 *
 * "The server said why": it ends a session by command at places where it looks
 * for that, between statements or inside one, which it then rolls back.  What
 * it answers comes in the order in which it was done, the answer of a write
 * before its commit; so when that word stands where the answer of a write
 * should, neither this write nor any after it was or will be done.  Where the
 * sync of an answered write should stand, it was rolled back as well: servers
 * do not look between the commit and the sync's answer.  (Before 15 they may:
 * notifications were sent in a transaction of their own there.)  Such words of
 * others, poolers or a server that crashes, prove nothing; the place in the
 * server's source tells them apart.
 *
 * PQpipelineSync() of libpq before 17 writes to the socket by itself, so it is
 * called once a turn for the reads, after the last of them.
 */
#include "config.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "worker/worker_db_link.h"
#include "worker/worker_probe.h"

/* Ends of sessions that a query may meet; more: as any other loss. */
#define ENDS_FIRST_MAX 4  /* ... as the one that was being done */
#define ENDS_MAX       16 /* ... behind it */

/* ---- the ring */

static struct worker_db_query *
ring_first(const struct worker_db_link *link)
{
	SHM_ASSERT(link->count > 0);
	return link->ring[link->head];
}

/* query NULL: a sync of reads. */
static void
ring_push(struct worker_db_link *link, struct worker_db_query *query)
{
	uint32_t at = (link->head + link->count) & (DB_RING_SIZE - 1);

	SHM_ASSERT(link->count < DB_RING_SIZE);
	link->ring[at] = query;
	link->count++;
	link->queries += query != NULL;
}

static struct worker_db_query *
ring_pop(struct worker_db_link *link)
{
	struct worker_db_query *query = ring_first(link);

	link->head = (link->head + 1) & (DB_RING_SIZE - 1);
	link->count--;
	link->queries -= query != NULL;
	return query;
}

uint64_t
db_pipe_deadline(const struct worker_db_link *link)
{
	const struct worker_db_query *query;

	if (link->count == 0)
		return UINT64_MAX;
	query = ring_first(link);
	return (query != NULL ? query->sent_us : link->synced_us) +
	       link->db->answer_us;
}

/* ---- sending */

static bool
pipe_sync(struct worker_db_link *link)
{
	if (PQpipelineSync(link->conn) != 1)
		return false;
	link->synced_us = link->db->now_us;
	link->has_unsynced = false;
	return true;
}

static bool
pipe_sync_reads(struct worker_db_link *link)
{
	if (!link->has_unsynced)
		return true;
	if (!pipe_sync(link))
		return false;
	ring_push(link, NULL);
	return true;
}

static void
pipe_mark_dirty(struct worker_db_link *link)
{
	struct worker_db *db = link->db;

	if (link->is_dirty)
		return;
	SHM_ASSERT(db->dirty_count < db->options.connections);
	link->is_dirty = true;
	db->dirty[db->dirty_count++] = link;
}

static bool
pipe_send_prepared(
    struct worker_db_link *link, const struct api_statement *statement)
{
	const struct api_sql_text *text = api_sql_text(statement->id);

	SHM_ASSERT(statement->params_count == text->params_count);
	return PQsendQueryPrepared(link->conn, text->name,
		   statement->params_count, statement->params, NULL, NULL,
		   1) == 1;
}

bool
db_pipe_send(struct worker_db_link *link, struct worker_db_query *query)
{
	struct worker_db *db = link->db;
	bool needs_fresh_sync = query->is_write || query->tries > 0;

	SHM_ASSERT(link->state == DB_LINK_READY);
	if ((needs_fresh_sync && !pipe_sync_reads(link)) ||
	    !pipe_send_prepared(link, query->statement)) {
		db_link_lost(link, NULL);
		return false;
	}
	query->state = DB_QUERY_SENT;
	query->link = link;
	query->sent_us = db->now_us;
	shm_stats_count(db->stats, SHM_STATS_database_queries, 1);
	WORKER_PROBE2(query__start, api_sql_text(query->statement->id)->name,
	    link->number);
	if (link->count == 0)
		db_wake_at(db, db->now_us + db->answer_us);
	if (link->queries == 0)
		link->busy_us = db->now_us;
	ring_push(link, query);
	pipe_mark_dirty(link);
	if (!query->is_write)
		link->has_unsynced = true;
	else if (!pipe_sync(link))
		db_link_lost(link, NULL); /* the query with it */
	return true;
}

void
db_pipe_flush(struct worker_db_link *link)
{
	link->is_dirty = false;
	if (link->state != DB_LINK_READY && link->state != DB_LINK_RETIRING &&
	    link->state != DB_LINK_DRAINING)
		return; /* lost since */
	if (!pipe_sync_reads(link)) {
		db_link_lost(link, NULL);
		return;
	}
	(void)!db_link_flush(link);
}

/* ---- ends */

/* Did not run, or was lost: once more if it may. */
static void
pipe_retry(struct worker_db_link *link, struct worker_db_query *query)
{
	if (!db_query_retry(link->db, query))
		db_query_end(
		    link->db, query, API_DB_UNAVAILABLE, query->sqlstate);
}

/* No new queries; when the last answer is there, a new connection. */
static void
pipe_retire(struct worker_db_link *link)
{
	if (link->state == DB_LINK_READY)
		db_link_move(link, DB_LINK_READY, DB_LINK_RETIRING);
}

static void
pipe_end_failed(struct worker_db_link *link, struct worker_db_query *query)
{
	struct worker_db *db = link->db;
	enum db_error kind = db_error_kind(query->sqlstate);

	if (kind == DB_ERROR_STALE) {
		snprintf(link->failure.sqlstate, sizeof(link->failure.sqlstate),
		    "%s", query->sqlstate);
		pipe_retire(link);
		/* Counts for itself: it may have been skipped before, behind
		 * another query that met a stale link. */
		if (!query->wants_fresh)
			query->tries = 0;
		query->wants_fresh = true;
		pipe_retry(link, query);
		return;
	}
	db_query_done(db, query,
	    kind == DB_ERROR_TIMEOUT ? API_DB_TIMEOUT : API_DB_REFUSED,
	    query->sqlstate);
}

/* The answer of a query is complete; of a write: its sync has arrived. */
static void
pipe_end(struct worker_db_link *link)
{
	struct worker_db_query *query = ring_pop(link);

	db_admit_answered(link);
	query->link = NULL;
	if (query->is_failed)
		pipe_end_failed(link, query);
	else if (query->is_aborted)
		pipe_retry(link, query);
	else
		db_query_done(link->db, query, API_DB_OK, "");
}

static bool
pipe_did_not_run(
    const struct worker_db_link *link, const struct worker_db_query *query)
{
	return (query->is_answered ? link->is_undone : link->is_told) &&
	       !query->is_failed && !query->is_aborted;
}

/* An end by command is no try: whoever ends all sessions ends one after the
 * other, and a query may meet many of them.  Bounded all the same: it may be
 * this very query that is meant, or that does it. */
static void
pipe_spare(const struct worker_db_link *link, struct worker_db_query *query,
    bool is_first)
{
	if (!link->is_told ||
	    query->ends >= (is_first ? ENDS_FIRST_MAX : ENDS_MAX))
		return;
	query->ends++;
	query->tries = 0;
}

void
db_pipe_abandon(struct worker_db_link *link)
{
	bool is_first = true;

	while (link->count > 0) {
		struct worker_db_query *query = ring_pop(link);

		if (query == NULL)
			continue;
		query->link = NULL;
		query->wants_fresh = true;
		pipe_spare(link, query, is_first);
		is_first = false;
		if (!query->is_write || pipe_did_not_run(link, query))
			pipe_retry(link, query);
		else
			db_query_end(link->db, query,
			    query->is_failed || query->is_aborted
				? API_DB_UNAVAILABLE
				: API_DB_UNKNOWN,
			    query->is_failed ? query->sqlstate
					     : link->failure.sqlstate);
	}
	link->head = 0;
	SHM_ASSERT(link->queries == 0);
}

/* ---- results */

/* False: the connection is gone with it. */
static bool
pipe_error(struct worker_db_link *link, const PGresult *result)
{
	struct worker_db_query *query = ring_first(link);
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	/* libpq made this result: no server behind it, or no memory for what a
	 * server that did its work has said. */
	if (sqlstate == NULL)
		return false;
	if (db_error_kind(sqlstate) == DB_ERROR_DEAD) {
		snprintf(link->failure.sqlstate, sizeof(link->failure.sqlstate),
		    "%s", sqlstate);
		db_error_note_end(link, result);
		return false;
	}
	/* Under a sync of reads: they have been answered. */
	if (query == NULL)
		return true;
	/* Also when a write had its answer and its commit failed. */
	db_count_error(link->db, sqlstate);
	query->is_failed = true;
	snprintf(query->sqlstate, sizeof(query->sqlstate), "%s", sqlstate);
	return true;
}

static bool
pipe_result(struct worker_db_link *link, const PGresult *result)
{
	struct worker_db_query *query = ring_first(link);
	int rows;

	switch (PQresultStatus(result)) {
	case PGRES_TUPLES_OK:
		SHM_ASSERT(query != NULL);
		rows = PQntuples(result);
		for (int i = 0; i < rows; i++)
			(void)db_query_row(query, result, i);
		query->is_answered = query->is_write;
		return true;
	case PGRES_COMMAND_OK:
		if (query != NULL)
			query->is_answered = query->is_write;
		return true;
	case PGRES_PIPELINE_ABORTED:
		if (query != NULL)
			query->is_aborted = true;
		return true;
	case PGRES_PIPELINE_SYNC:
		SHM_ASSERT(
		    query == NULL || (query->is_write && query->is_answered));
		if (query == NULL)
			(void)ring_pop(link);
		else
			pipe_end(link);
		return true;
	default:
		return pipe_error(link, result);
	}
}

/* The end of one query's results. */
static void
pipe_null(struct worker_db_link *link)
{
	struct worker_db_query *query = ring_first(link);

	if (query == NULL)
		return; /* after an error under a sync of reads */
	if (query->is_write)
		query->is_answered = true;
	else
		pipe_end(link);
}

/* False: lost. */
static bool
pipe_results(struct worker_db_link *link)
{
	while (!PQisBusy(link->conn) && link->count > 0) {
		PGresult *result = PQgetResult(link->conn);
		bool ok = true;

		if (result == NULL && PQstatus(link->conn) == CONNECTION_BAD)
			return false;
		if (result == NULL)
			pipe_null(link);
		else
			ok = pipe_result(link, result);
		PQclear(result);
		if (!ok)
			return false;
	}
	return PQstatus(link->conn) == CONNECTION_OK;
}

void
db_pipe_ready(struct worker_db_link *link, uint32_t events)
{
	bool ok = db_link_read(link);

	/* What arrived before the end counts, so the results come first. */
	if (!pipe_results(link) || !ok) {
		db_link_lost(link, NULL);
		return;
	}
	if (link->count == 0 && link->state == DB_LINK_RETIRING)
		db_link_renew(link, NULL);
	else if (link->count == 0 && link->state == DB_LINK_DRAINING)
		db_stream_begin(link);
	else if ((events & POLLOUT) != 0)
		(void)!db_link_flush(link);
}
