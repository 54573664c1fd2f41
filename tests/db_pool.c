/*
 * The loop checks how the pool asks for descriptors to be watched; the queries
 * check that rows and ends come once, in order, and never inside submit.
 */
#include "config.h"

#include <endian.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/db_pool.h"

/* Inserts of these ISBNs fail on purpose. */
const char table_sql[] =
    "CREATE TABLE book (id bigserial PRIMARY KEY,"
    " author varchar(255) NOT NULL, isbn varchar(255) UNIQUE NOT NULL,"
    " price float8 NOT NULL, title varchar(255) NOT NULL,"
    " created_date timestamp NOT NULL, last_modified_date timestamp NOT NULL,"
    " version integer NOT NULL, publisher varchar(255),"
    " created_by varchar(255), last_modified_by varchar(255));"
    "CREATE SEQUENCE once;"
    "CREATE FUNCTION book_insert() RETURNS trigger LANGUAGE plpgsql AS $$"
    " BEGIN"
    "  IF NEW.isbn = 'deallocate' THEN EXECUTE 'DEALLOCATE ALL';"
    "  ELSIF NEW.isbn LIKE 'once-%' AND nextval('once') % 2 = 1 THEN"
    "   RAISE EXCEPTION USING ERRCODE = substr(NEW.isbn, 6);"
    "  ELSIF NEW.isbn LIKE 'always-%' THEN"
    "   RAISE EXCEPTION USING ERRCODE = substr(NEW.isbn, 8);"
    "  ELSIF NEW.isbn = 'die' THEN"
    "   PERFORM pg_terminate_backend(pg_backend_pid());"
    "  END IF; RETURN NEW; END $$;"
    "CREATE TRIGGER book_insert BEFORE INSERT ON book FOR EACH ROW"
    " EXECUTE FUNCTION book_insert();"
    "CREATE FUNCTION book_commit() RETURNS trigger LANGUAGE plpgsql AS $$"
    " BEGIN RAISE EXCEPTION USING ERRCODE = 'XX123'; END $$;"
    "CREATE CONSTRAINT TRIGGER book_commit AFTER INSERT ON book"
    " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
    " WHEN (NEW.isbn = 'deferred') EXECUTE FUNCTION book_commit();"
    "INSERT INTO book (author, isbn, price, title, created_date,"
    " last_modified_date, version) SELECT 'a', 'isbn-' || i, i, 't', now(),"
    " now(), 1 FROM generate_series(0, 99) i";

/* epoll, because it forgets a socket that libpq closes and opens anew under
 * the same number, as the real loop does; poll(2) would not notice. */
static void
pool_watch(void *owner, uint32_t n, int fd, uint32_t events)
{
	struct pool *pool = owner;
	struct epoll_event event = {.events = events, .data.u32 = n};
	int before = pool->fds[n];

	assert_true(n <= pool->options.connections);
	assert_true(fd >= 0);
	if (events == 0) {
		assert_int_equal(before, fd);
		(void)epoll_ctl(pool->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		pool->fds[n] = -1;
		return;
	}
	assert_true(before == -1 || before == fd);
	assert_true(before == -1 || pool->events[n] != events);
	assert_int_equal(
	    epoll_ctl(pool->epoll_fd,
		before == -1 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event),
	    0);
	pool->fds[n] = fd;
	pool->events[n] = events;
}

static void
pool_state(void *owner, bool available, uint32_t connections)
{
	struct pool *pool = owner;

	assert_int_equal(available, connections > 0);
	assert_int_not_equal(connections, pool->connections);
	pool->is_available = available;
	pool->connections = connections;
	pool->state_calls++;
}

void
pool_turn(struct pool *pool)
{
	struct epoll_event ready[LINKS_MAX + 1];
	uint64_t wait_us;
	int count;

	worker_db_flush(pool->db);
	wait_us = worker_db_tick(pool->db, shm_clock_us());
	count = epoll_wait(pool->epoll_fd, ready, LINKS_MAX + 1,
	    wait_us > 20000 ? 20 : (int)(wait_us / 1000));
	for (int i = 0; i < count; i++)
		worker_db_ready(pool->db, ready[i].data.u32, ready[i].events);
}

void
pool_prepare(struct pool *pool, uint32_t connections, const char *conninfo)
{
	*pool = (struct pool){.options = {.conninfo = conninfo,
				  .connections = connections,
				  .acquire_timeout_ms = 10000,
				  .statement_timeout_ms = 10000,
				  .connect_timeout_ms = 5000,
				  .queries_max = 100,
				  .watch = pool_watch,
				  .state = pool_state,
				  .owner = pool}};
	for (int i = 0; i <= LINKS_MAX; i++)
		pool->fds[i] = -1;
	pool->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	assert_int_not_equal(pool->epoll_fd, -1);
}

void
pool_begin(struct pool *pool)
{
	char *why = NULL;

	pool->db = worker_db_new(&pool->options, &why);
	assert_non_null(pool->db);
}

void
pool_open_at(struct pool *pool, uint32_t connections, const char *conninfo)
{
	pool_prepare(pool, connections, conninfo);
	pool_begin(pool);
}

const char *
pool_conninfo(const char *format, ...)
{
	static char conninfo[400];
	va_list args;
	int len;

	len = snprintf(conninfo, sizeof(conninfo),
	    "port=%d dbname=postgres user=postgres ", server.port);
	va_start(args, format);
	vsnprintf(conninfo + len, sizeof(conninfo) - (size_t)len, format, args);
	va_end(args);
	return conninfo;
}

void
pool_open(struct pool *pool, uint32_t connections)
{
	pool_open_at(pool, connections, pool_conninfo("host=%s", server.dir));
	pool_until(pool, pool->connections == connections);
}

void
pool_close(struct pool *pool)
{
	worker_db_free(&pool->db);
	assert_null(pool->db);
	for (int i = 0; i <= LINKS_MAX; i++)
		assert_int_equal(pool->fds[i], -1);
	close(pool->epoll_fd);
}

/* ---- queries */

static int is_submitting; /* no callback may come now */

static bool
query_row(struct worker_db_query *wanted, const struct api_row *row)
{
	struct query *query = (struct query *)wanted;
	uint64_t id;

	assert_false(is_submitting);
	assert_int_equal(query->done, 0);
	query->rows++;
	assert_int_equal(row->cell[0].len, 8);
	memcpy(&id, row->cell[0].data, 8);
	id = be64toh(id);
	assert_true((int64_t)id > query->id_last);
	query->id_last = (int64_t)id;
	snprintf(query->key, sizeof(query->key), "%.*s", (int)row->cell[1].len,
	    row->cell[1].data);
	assert_null(row->cell[8].data); /* created_by is NULL */
	if (query->cancel_in_row)
		worker_db_cancel(query->pool->db, wanted);
	return query->pause_after == 0 || query->rows != query->pause_after;
}

static void
query_done(struct worker_db_query *wanted, enum api_db_outcome outcome,
    const char *sqlstate)
{
	struct query *query = (struct query *)wanted;

	assert_false(is_submitting);
	assert_int_equal(query->done, 0);
	query->done++;
	query->outcome = outcome;
	snprintf(query->sqlstate, sizeof(query->sqlstate), "%s", sqlstate);
	if (query->then != NULL)
		submit(query->then);
}

void
submit(struct query *query)
{
	is_submitting++;
	query->done = 0;
	query->rows = 0;
	query->id_last = 0;
	query->query.statement = &query->statement;
	query->query.is_write = api_sql_text(query->statement.id)->is_write;
	query->query.row = query_row;
	query->query.done = query_done;
	worker_db_submit(query->pool->db, &query->query);
	is_submitting--;
}

void
submit_get(struct pool *pool, struct query *query, const char *isbn)
{
	*query = (struct query){.pool = pool};
	snprintf(query->isbn, sizeof(query->isbn), "%s", isbn);
	query->statement = (struct api_statement){
	    .id = API_SQL_BOOK_GET, .params_count = 1, .params = {query->isbn}};
	submit(query);
}

void
submit_post(
    struct pool *pool, struct query *query, const char *isbn, const char *price)
{
	*query = (struct query){.pool = pool};
	snprintf(query->isbn, sizeof(query->isbn), "%s", isbn);
	query->statement = (struct api_statement){.id = API_SQL_BOOK_POST,
	    .params_count = 5,
	    .params = {query->isbn, "title", "author", price, NULL}};
	submit(query);
}

void
submit_list(struct pool *pool, struct query *query, uint32_t pause_after)
{
	*query = (struct query){.pool = pool, .pause_after = pause_after};
	query->statement = (struct api_statement){.id = API_SQL_BOOKS_LIST};
	query->query.is_stream = true;
	submit(query);
}

uint32_t
done_count(const struct query *list, uint32_t count)
{
	uint32_t done = 0;

	for (uint32_t i = 0; i < count; i++)
		done += list[i].done;
	return done;
}

uint32_t
outcome_count(
    const struct query *list, uint32_t count, enum api_db_outcome outcome)
{
	uint32_t found = 0;

	for (uint32_t i = 0; i < count; i++) {
		assert_int_equal(list[i].done, 1);
		found += list[i].outcome == outcome;
	}
	return found;
}

void
get_is_ok(struct pool *pool)
{
	struct query query;

	submit_get(pool, &query, "isbn-7");
	pool_until(pool, query.done);
	assert_int_equal(query.outcome, API_DB_OK);
	assert_string_equal(query.key, "isbn-7");
}

/* Someone else holds the table. */
PGconn *
lock_table(void)
{
	PGconn *conn = server_connect("application_name=locker");

	assert_int_equal(PQstatus(conn), CONNECTION_OK);
	PQclear(PQexec(conn, "BEGIN"));
	PQclear(PQexec(conn, "LOCK TABLE book"));
	return conn;
}

void
wait_for_blocked(struct pool *pool, int count)
{
	uint64_t end_us = shm_clock_us() + WAIT_MS_MAX * 1000ull;

	while (admin_int("SELECT count(*) " BACKENDS
			 " AND wait_event_type = 'Lock'") < count) {
		assert_true(shm_clock_us() < end_us);
		pool_turn(pool);
	}
}

struct query queries[QUERIES_MAX];
