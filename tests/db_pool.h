/*
 * A pool of worker_db under test, a loop for it, and queries that
 * remember how they ended.
 */
#ifndef TESTS_DB_POOL_H
#define TESTS_DB_POOL_H

#include "tests/db_server.h"
#include "worker/worker_db.h"

#define LINKS_MAX   8
#define WAIT_MS_MAX 30000 /* a test that waits longer has failed */
#define QUERIES_MAX 1000

/* The pool's backends, for admin(). */
#define BACKENDS "FROM pg_stat_activity WHERE application_name = 'booksd'"

/* The table book with 100 rows, and triggers that fail on purpose. */
extern const char table_sql[];

struct pool {
	struct worker_db *db;
	struct worker_db_options options;
	int epoll_fd;
	int fds[LINKS_MAX + 1]; /* -1: not watched */
	uint32_t events[LINKS_MAX + 1];
	bool is_available;
	uint32_t connections;
	uint32_t state_calls;
};

/* Turn until cond is true. */
#define pool_until(pool, cond)                                                \
	do {                                                                  \
		uint64_t give_up_us = shm_clock_us() + WAIT_MS_MAX * 1000ull; \
		while (!(cond)) {                                             \
			if (shm_clock_us() > give_up_us)                      \
				fail_msg("waited too long for " #cond);       \
			pool_turn(pool);                                      \
		}                                                             \
	} while (0)

/* Fill pool->options; then pool_begin(). */
void
pool_prepare(struct pool *pool, uint32_t connections, const char *conninfo);
void pool_begin(struct pool *pool);
void
pool_open_at(struct pool *pool, uint32_t connections, const char *conninfo);
/* The test's server, and all links stand. */
void pool_open(struct pool *pool, uint32_t connections);
void pool_close(struct pool *pool);
void pool_turn(struct pool *pool);
const char *pool_conninfo(const char *format, ...) SHM_PRINTF(1, 2);

struct query {
	struct worker_db_query query; /* first */
	struct pool *pool;
	struct api_statement statement;
	char isbn[32];
	char key[300]; /* isbn of the rows */
	uint32_t rows;
	uint32_t pause_after; /* rows, of a stream; 0: never */
	uint32_t done;	      /* calls */
	enum api_db_outcome outcome;
	char sqlstate[6];
	struct query *then; /* submitted by done */
	bool cancel_in_row;
	int64_t id_last;
};

extern struct query queries[QUERIES_MAX];

void submit(struct query *query);
void submit_get(struct pool *pool, struct query *query, const char *isbn);
void submit_post(struct pool *pool, struct query *query, const char *isbn,
    const char *price);
void submit_list(struct pool *pool, struct query *query, uint32_t pause_after);

/* Of the first count queries. */
uint32_t done_count(const struct query *list, uint32_t count);
uint32_t outcome_count(
    const struct query *list, uint32_t count, enum api_db_outcome outcome);

/* The pool works. */
void get_is_ok(struct pool *pool);

/* Somebody else holds the table until this connection is finished. */
PGconn *lock_table(void);

/* Turn until that many backends wait for it. */
void wait_for_blocked(struct pool *pool, int count);

#endif
