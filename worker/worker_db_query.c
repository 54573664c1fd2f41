/*
 * A query between submit and done: the list that it is in, what an error says
 * about it, and its ends.
 *
 * A query that did not run, or that only reads and whose answer was lost, is
 * sent once more.  "Did not run" is what these say:
 *
 *	26000, 0A000	its prepared statement is gone or out of date
 *	25006		the server became a standby
 *	57P01		it ended the session by command (worker_db_pipe.c)
 *
 * It is then for a link that was made later (list fresh): what has happened to
 * its first link is about to happen to the others as a rule, when a server is
 * shut down, fails over, or a table is altered.
 */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "worker/worker_db_link.h"
#include "worker/worker_probe.h"

/* ---- lists */

void
db_list_push(struct db_list *list, struct worker_db_query *query)
{
	query->next = NULL;
	if (list->first == NULL)
		list->first = query;
	else
		list->last->next = query;
	list->last = query;
	list->count++;
}

struct worker_db_query *
db_list_pop(struct db_list *list)
{
	struct worker_db_query *query = list->first;

	if (query == NULL)
		return NULL;
	SHM_ASSERT(list->count > 0);
	list->first = query->next;
	list->count--;
	return query;
}

void
db_list_remove(struct db_list *list, const struct worker_db_query *query)
{
	struct db_list rest = {.first = NULL};
	struct worker_db_query *other;

	while ((other = db_list_pop(list)) != NULL)
		if (other != query)
			db_list_push(&rest, other);
	*list = rest;
}

struct db_list *
db_query_list(struct worker_db *db, const struct worker_db_query *query)
{
	if (query->is_stream)
		return &db->streams;
	return query->wants_fresh ? &db->fresh : &db->waiting;
}

/* ---- errors */

enum db_error
db_error_kind(const char *sqlstate)
{
	if (strcmp(sqlstate, "57014") == 0 || strcmp(sqlstate, "55P03") == 0)
		return DB_ERROR_TIMEOUT;
	if (strcmp(sqlstate, "26000") == 0 || strcmp(sqlstate, "0A000") == 0 ||
	    strcmp(sqlstate, "25006") == 0)
		return DB_ERROR_STALE;
	if (strncmp(sqlstate, "57P", 3) == 0 || strncmp(sqlstate, "08", 2) == 0)
		return DB_ERROR_DEAD;
	return DB_ERROR_STATEMENT;
}

void
db_error_note_end(struct worker_db_link *link, const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *severity =
	    PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
	const char *where = PQresultErrorField(result, PG_DIAG_SOURCE_FUNCTION);

	if (sqlstate == NULL || severity == NULL || where == NULL ||
	    strcmp(sqlstate, "57P01") != 0 || strcmp(severity, "FATAL") != 0 ||
	    strcmp(where, "ProcessInterrupts") != 0)
		return;
	link->is_told = true;
	link->is_undone = PQserverVersion(link->conn) >= 150000;
}

void
db_count_error(struct worker_db *db, const char *sqlstate)
{
	shm_stats_sqlstate_count(db->stats, sqlstate);
}

/* ---- ends */

void
db_query_waited(struct worker_db *db, const struct worker_db_query *query)
{
	if (query->flush == db->flushes)
		return;
	shm_stats_count(db->stats, SHM_STATS_database_waits, 1);
	shm_histogram_add(
	    &db->stats->database_wait, db->now_us - query->queued_us);
}

void
db_query_end(struct worker_db *db, struct worker_db_query *query,
    enum api_db_outcome outcome, const char *sqlstate)
{
	query->state = DB_QUERY_ENDED;
	query->outcome = (uint8_t)outcome;
	query->link = NULL;
	if (sqlstate != query->sqlstate)
		snprintf(
		    query->sqlstate, sizeof(query->sqlstate), "%s", sqlstate);
	db_list_push(&db->ended, query);
}

void
db_query_done(struct worker_db *db, struct worker_db_query *query,
    enum api_db_outcome outcome, const char *sqlstate)
{
	char copy[sizeof(query->sqlstate)];

	/* The query may be used again inside done(). */
	snprintf(copy, sizeof(copy), "%s", sqlstate);
	query->db_us = db->now_us - query->submitted_us;
	if (query->sent_us != 0) {
		uint64_t sent_us = db->now_us - query->sent_us;

		shm_histogram_add(&db->stats->database, sent_us);
		WORKER_PROBE3(query__done,
		    api_sql_text(query->statement->id)->name, outcome, sent_us);
	}
	query->state = DB_QUERY_IDLE;
	query->link = NULL;
	if (query->is_stream) {
		SHM_ASSERT(db->streams_count > 0);
		db->streams_count--;
	}
	query->done(query, outcome, copy);
}

bool
db_query_retry(struct worker_db *db, struct worker_db_query *query)
{
	if (query->tries > 0 || query->cancelled || db->is_closing)
		return false;
	query->tries++;
	query->state = DB_QUERY_WAITING;
	query->queued_us = db->now_us;
	query->sent_us = 0;
	query->flush = db->flushes;
	query->link = NULL;
	query->is_failed = query->is_aborted = query->is_answered = false;
	query->sqlstate[0] = '\0';
	if (query->rows > 0 && query->again != NULL)
		query->again(query);
	query->rows = 0;
	db_list_push(db_query_list(db, query), query);
	db_wake_at(db, query->queued_us + DB_FRESH_US);
	return true;
}

bool
db_query_row(struct worker_db_query *query, const PGresult *result, int row)
{
	struct api_row cells = {.cell = {{.data = NULL}}};
	int columns = PQnfields(result);

	query->rows++;
	if (query->cancelled)
		return true;
	if (columns > API_BOOK_COLUMNS)
		columns = API_BOOK_COLUMNS;
	for (int i = 0; i < columns; i++) {
		struct api_cell *cell = &cells.cell[i];

		cell->len = (uint32_t)PQgetlength(result, row, i);
		if (cell->len > 0 || !PQgetisnull(result, row, i))
			cell->data = PQgetvalue(result, row, i);
	}
	return query->row(query, &cells);
}
