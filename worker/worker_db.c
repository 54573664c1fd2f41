/*
 * The queries of a worker and where they go.
 *
 * A turn, as the loop calls it:
 *
 *	worker_db_ready()   answers arrive: rows, done()
 *	worker_db_submit()  from there or from the HTTP side: only queues
 *	worker_db_flush()   places what is queued, one sync and one write a link
 *	worker_db_tick()    timers; says how long the loop may wait
 *
 * So the callbacks may submit, cancel and resume as they like: nothing that
 * could call back happens inside those three.
 *
 * BOUNDS AND THEIR CONSEQUENCES
 *   queries_max queries wait           one more ends at once: BUSY
 *   waits stand above queue_target_ms  some end at once: BUSY
 *   acquire_timeout_ms of waiting      BUSY, or UNAVAILABLE when no link is up
 *   DB_DEPTH_MAX queries on a link     the others wait
 *   half the links (at least one) have a stream, or wait for one
 *                                      one more ends at once: BUSY
 *   statement_timeout_ms and a second without an answer
 *                                      the link is closed
 *
 * Nothing is allocated for a query.
 */
#include "config.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/worker_db_link.h"

void
db_wake_at(struct worker_db *db, uint64_t at_us)
{
	if (at_us < db->wake_us)
		db->wake_us = at_us;
}

/* ---- placing */

/* The link with the fewest queries; an idle one ends the search.  Beginning
 * after the last one chosen spreads equal links evenly.  A query that comes
 * from a stale or lost link is for one that was made later, for as long as it
 * is worth while to wait for one. */
static struct worker_db_link *
db_choose(struct worker_db *db, const struct worker_db_query *query)
{
	uint64_t since_us =
	    query->wants_fresh && db->now_us < query->queued_us + DB_FRESH_US
		? query->queued_us
		: 0;
	struct worker_db_link *best = NULL;
	uint32_t number = db->next;

	for (uint32_t i = 0; i < db->options.connections; i++) {
		struct worker_db_link *link = &db->links[number];

		if (++number == db->options.connections)
			number = 0;
		if (link->state != DB_LINK_READY ||
		    link->queries >= DB_DEPTH_MAX ||
		    link->ready_us < since_us ||
		    (best != NULL && link->queries >= best->queries))
			continue;
		best = link;
		db->next = number;
		if (link->queries == 0)
			break;
	}
	return best;
}

static void
db_place(struct worker_db *db, struct db_list *list)
{
	struct worker_db_link *link;

	while (list->first != NULL &&
	       (link = db_choose(db, list->first)) != NULL) {
		struct worker_db_query *query = db_list_pop(list);

		/* Never sent, so it may wait again, whatever it is; its time
		 * goes on. */
		if (db_pipe_send(link, query))
			db_query_waited(db, query);
		else
			db_list_push(list, query);
	}
}

/* The last link that serves everybody is not given away. */
static struct worker_db_link *
db_choose_for_stream(struct worker_db *db)
{
	uint32_t ready = 0;

	for (uint32_t i = 0; i < db->options.connections; i++)
		ready += db->links[i].state == DB_LINK_READY;
	if (ready < 2 && db->options.connections > 1)
		return NULL;
	return db_choose(db, db->streams.first);
}

static void
db_place_streams(struct worker_db *db)
{
	struct worker_db_link *link;

	while (db->streams.first != NULL &&
	       (link = db_choose_for_stream(db)) != NULL) {
		db_query_waited(db, db->streams.first);
		db_stream_place(link, db_list_pop(&db->streams));
	}
}

/* ---- what is due */

/* Those that ended up to now: what their callbacks end waits for next time,
 * so that nobody can keep the loop here. */
static void
db_run_ended(struct worker_db *db)
{
	struct db_list list = db->ended;
	struct worker_db_query *query;

	db->ended = (struct db_list){.first = NULL};
	while ((query = db_list_pop(&list)) != NULL)
		db_query_done(db, query, query->outcome, query->sqlstate);
}

static void
db_run_cut(struct worker_db *db)
{
	if (!db->has_cut)
		return;
	db->has_cut = false;
	for (uint32_t i = 0; i < db->options.connections; i++)
		if (db->links[i].is_cut)
			db_stream_cut(&db->links[i]);
}

static void
db_run_streams(struct worker_db *db)
{
	if (!db->has_more)
		return;
	db->has_more = false;
	for (uint32_t i = 0; i < db->options.connections; i++)
		if (db->links[i].has_more)
			db_stream_pump(&db->links[i]);
}

static void
db_expire(struct worker_db *db, struct db_list *list)
{
	uint64_t acquire_us = db->options.acquire_timeout_ms * 1000ull;

	while (list->first != NULL &&
	       list->first->queued_us + acquire_us <= db->now_us) {
		db_query_waited(db, list->first);
		shm_stats_count(db->stats, SHM_STATS_database_timeouts, 1);
		db_query_end(db, db_list_pop(list),
		    db->up_count > 0 ? API_DB_BUSY : API_DB_UNAVAILABLE, "");
	}
	if (list->first != NULL)
		db_wake_at(db, list->first->queued_us + acquire_us);
}

static uint64_t
link_due_us(const struct worker_db_link *link)
{
	switch (link->state) {
	case DB_LINK_WAITING:
	case DB_LINK_RESOLVING:
	case DB_LINK_CONNECTING:
	case DB_LINK_SETUP:
	case DB_LINK_STREAM_BEGIN:
	case DB_LINK_STREAM_END:
		return link->deadline_us;
	case DB_LINK_READY:
	case DB_LINK_RETIRING:
	case DB_LINK_DRAINING:
		return db_pipe_deadline(link);
	case DB_LINK_STREAMING:
		return link->stream->rows == 0 ? link->deadline_us : UINT64_MAX;
	}
	return UINT64_MAX;
}

static void
db_run_timers(struct worker_db *db)
{
	db->wake_us = UINT64_MAX;
	db_expire(db, &db->waiting);
	db_expire(db, &db->fresh);
	db_expire(db, &db->streams);
	db_secret_look(db);
	for (uint32_t i = 0; i < db->options.connections; i++) {
		struct worker_db_link *link = &db->links[i];

		if (link_due_us(link) <= db->now_us)
			db_link_timed_out(link);
		db_wake_at(db, link_due_us(link));
	}
}

/* ---- public */

struct worker_db *
worker_db_new(const struct worker_db_options *options, char **why)
{
	static struct shm_stats nobody;
	struct worker_db *db = calloc(1, sizeof(*db));
	uint32_t count = options->connections;

	SHM_ASSERT(count > 0);
	*why = NULL;
	if (db == NULL)
		return NULL;
	db->options = *options;
	db->conninfo = worker_conninfo_new(options->conninfo, NULL, why);
	db->conninfo_text = strdup(options->conninfo);
	db->links = calloc(count, sizeof(*db->links));
	db->dirty = calloc(count, sizeof(struct worker_db_link *));
	if (db->conninfo == NULL || db->conninfo_text == NULL ||
	    db->links == NULL || db->dirty == NULL) {
		db->options.connections = 0; /* none to close */
		worker_db_free(&db);
		return NULL;
	}
	db->options.conninfo = NULL; /* borrowed */
	db->stats = options->stats != NULL ? options->stats : &nobody;
	db->is_touched = true;
	snprintf(db->statement_timeout, sizeof(db->statement_timeout), "%u",
	    options->statement_timeout_ms);
	db->answer_us =
	    options->statement_timeout_ms == 0
		? UINT64_MAX / 4
		: options->statement_timeout_ms * 1000ull + DB_GRACE_US;
	db->streams_max = count / 2 > 0 ? count / 2 : 1;
	db->now_us = shm_clock_us();
	db->random = db->now_us ^ ((uint64_t)getpid() << 32) ^ 1;
	for (uint32_t i = 0; i < count; i++)
		db->links[i] = (struct worker_db_link){.db = db,
		    .number = i,
		    .watched_fd = -1,
		    .deadline_us = db->now_us};
	db_admit_open(db);
	return db; /* the first tick connects */
}

/* Everything ends, and nothing begins: what is submitted meanwhile ends too.
 * The links are closed first, so that no callback meets half a pool. */
void
worker_db_free(struct worker_db **db)
{
	struct worker_db *old = *db;
	struct worker_db_query *query;

	if (old == NULL)
		return;
	old->is_closing = true;
	if (old->resolve != NULL)
		old->options.watch(old->options.owner, old->options.connections,
		    worker_resolve_fd(old->resolve), 0);
	worker_resolve_free(&old->resolve);
	for (uint32_t i = 0; i < old->options.connections; i++)
		db_link_close(&old->links[i]);
	while ((query = db_list_pop(&old->waiting)) != NULL ||
	       (query = db_list_pop(&old->fresh)) != NULL ||
	       (query = db_list_pop(&old->streams)) != NULL)
		db_query_end(old, query, API_DB_UNAVAILABLE, "");
	while (old->ended.first != NULL)
		db_run_ended(old);
	worker_conninfo_free(&old->conninfo);
	free(old->conninfo_text);
	free(old->links);
	free(old->dirty);
	free(old);
	*db = NULL;
}

uint32_t
worker_db_pollers(const struct worker_db_options *options)
{
	return options->connections + 1; /* the lookup's */
}

void
worker_db_submit(struct worker_db *db, struct worker_db_query *query)
{
	bool is_full = query->is_stream
			   ? db->streams_count >= db->streams_max
			   : db->waiting.count >= db->options.queries_max;

	SHM_ASSERT(query->state == DB_QUERY_IDLE);
	SHM_ASSERT(
	    query->is_write == api_sql_text(query->statement->id)->is_write);
	SHM_ASSERT(!query->is_write || !query->is_stream);
	db->now_us = shm_clock_us();
	query->submitted_us = query->queued_us = db->now_us;
	query->sent_us = 0;
	query->flush = db->flushes;
	db->is_touched = true;
	query->link = NULL;
	query->tries = 0;
	query->rows = 0;
	query->cancelled = query->paused = query->wants_fresh = false;
	query->ends = 0;
	query->is_failed = query->is_aborted = query->is_answered = false;
	query->sqlstate[0] = '\0';
	query->state = DB_QUERY_WAITING;
	db->streams_count += query->is_stream;
	if (db->is_closing) {
		db_query_end(db, query, API_DB_UNAVAILABLE, "");
		return;
	}
	if (is_full) {
		db_query_end(db, query, API_DB_BUSY, "");
		return;
	}
	if (db_admit_refuses(db)) {
		db_query_end(db, query, API_DB_BUSY, "");
		return;
	}
	db_list_push(db_query_list(db, query), query);
	db_wake_at(
	    db, query->queued_us + db->options.acquire_timeout_ms * 1000ull);
}

void
worker_db_cancel(struct worker_db *db, struct worker_db_query *query)
{
	switch ((enum db_query_state)query->state) {
	case DB_QUERY_IDLE:
		return;
	case DB_QUERY_WAITING:
		db_query_waited(db, query);
		db_list_remove(db_query_list(db, query), query);
		db_query_end(db, query, API_DB_UNAVAILABLE, "");
		break;
	case DB_QUERY_SENT:
		if (query->is_stream) {
			query->link->is_cut = true;
			db->has_cut = true;
		}
		break;
	case DB_QUERY_ENDED:
		break;
	}
	query->cancelled = true;
}

void
worker_db_resume(struct worker_db *db, struct worker_db_query *query)
{
	if (!query->paused || query->state != DB_QUERY_SENT)
		return;
	query->paused = false;
	query->link->has_more = true;
	db->has_more = true;
}

void
worker_db_ready(struct worker_db *db, uint32_t n, uint32_t events)
{
	struct worker_db_link *link;

	SHM_ASSERT(n <= db->options.connections);
	db->now_us = shm_clock_us();
	db->is_touched = true;
	if (n == db->options.connections) {
		if (db->resolve != NULL)
			db_link_resolved(db);
		return;
	}
	link = &db->links[n];
	if (link->watched_fd == -1)
		return; /* late news of a closed connection */
	switch (link->state) {
	case DB_LINK_WAITING:
	case DB_LINK_RESOLVING:
		break;
	case DB_LINK_CONNECTING:
		db_link_connect_ready(link);
		break;
	case DB_LINK_SETUP:
		db_link_setup_ready(link);
		break;
	case DB_LINK_READY:
	case DB_LINK_RETIRING:
	case DB_LINK_DRAINING:
		db_pipe_ready(link, events);
		break;
	case DB_LINK_STREAM_BEGIN:
	case DB_LINK_STREAMING:
	case DB_LINK_STREAM_END:
		db_stream_ready(link);
		break;
	}
}

void
worker_db_flush(struct worker_db *db)
{
	if (db->ended.first != NULL)
		db_run_ended(db);
	db_run_cut(db);
	if (db->streams.first == NULL && db->waiting.first == NULL &&
	    db->dirty_count == 0 && db->fresh.first == NULL)
		return;
	db->now_us = shm_clock_us();
	db_place_streams(db);
	db_place(db, &db->fresh);
	db_place(db, &db->waiting);
	db->flushes++;
	db->is_touched = true;
	while (db->dirty_count > 0)
		db_pipe_flush(db->dirty[--db->dirty_count]);
	if (db->ended.first != NULL)
		db_run_ended(db); /* a link was lost on the way */
}

uint64_t
worker_db_wait(const struct worker_db *db, uint64_t now_us)
{
	if (db->ended.first != NULL || db->has_cut || db->has_more ||
	    db->wake_us <= now_us)
		return 0;
	return db->wake_us == UINT64_MAX ? UINT64_MAX : db->wake_us - now_us;
}

uint64_t
worker_db_tick(struct worker_db *db, uint64_t now_us)
{
	db->now_us = now_us;
	db_run_cut(db);
	db_run_streams(db);
	if (now_us >= db->wake_us) {
		db_run_timers(db);
		db->is_touched = true;
	}
	if (db->ended.first != NULL)
		db_run_ended(db);
	return worker_db_wait(db, now_us);
}

bool
worker_db_load(struct worker_db *db, uint32_t *busy, uint32_t *waiting)
{
	if (!db->is_touched)
		return false;
	db->is_touched = false;
	*busy = 0;
	for (uint32_t i = 0; i < db->options.connections; i++)
		*busy +=
		    db->links[i].queries > 0 || db->links[i].stream != NULL;
	*waiting = db->waiting.count + db->fresh.count + db->streams.count;
	return true;
}

bool
worker_db_is_available(const struct worker_db *db)
{
	return db->up_count > 0;
}
