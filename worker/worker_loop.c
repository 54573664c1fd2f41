/*
 * One turn of a worker: take all completions, advance every state machine,
 * submit once.
 *
 *	io_turn()		accepts, receives, sends, readiness -> callbacks
 *	worker_timer_run()	deadlines of connections
 *	worker_db_tick()	deadlines of the database
 *	worker_wait_tick()	those who wait for another's load look again
 *	worker_db_flush()	the turn's statements leave in one write
 *	worker_log_flush()	the turn's lines leave in one write
 *	worker_stats_turn_end()	what the turn has cost
 *
 * ACCEPTING.  The listening sockets are shared by all workers and each worker
 * has one accept under way per listener, armed again after each connection.
 * With connections_max open it arms none: further clients wait in the listen
 * queue, where another worker may take them.
 * How a worker ends is worker_drain.c.
 */
#include "config.h"

#include <sys/signalfd.h>
#include <sys/socket.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sysexits.h>
#include <unistd.h>

#include "worker/worker_answer.h"
#include "worker/worker_balance.h"
#include "worker/worker_cache.h"
#include "worker/worker_call.h"
#include "worker/worker_conn.h"
#include "worker/worker_drain.h"
#include "worker/worker_handover.h"
#include "worker/worker_wait.h"

#define POLLER_SIGNALS	0
#define POLLER_WAKE	1 /* the cache's */
#define POLLER_HANDOVER 2
#define POLLER_DB	3      /* and those after it */
#define ACCEPT_RETRY_US 100000 /* after EMFILE and its like */
#define SERVED_POLL_US	20000  /* while migrations are waited for */

static uint64_t
min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* ---- connections */

void
worker_loop_conn_closed(struct worker_loop *loop, uint32_t slot)
{
	loop->free_slot[loop->free_count++] = slot;
	loop->open_count--;
	shm_board_set(loop->block->connections, loop->open_count);
}

bool
worker_loop_is_full(const struct worker_loop *loop)
{
	return loop->open_count >= loop->options->connections_max;
}

void
worker_loop_accept_stop(struct worker_loop *loop)
{
	for (uint32_t i = 0; i < loop->options->listeners_count; i++)
		if (loop->accept_armed[i])
			io_accept_stop(loop->io, i);
}

/* Stopped or not: may a connection still come? */
bool
worker_loop_is_accepting(const struct worker_loop *loop)
{
	for (uint32_t i = 0; i < loop->options->listeners_count; i++)
		if (loop->accept_armed[i])
			return true;
	return false;
}

static uint32_t
conn_take(struct worker_loop *loop, int fd)
{
	uint32_t slot;

	SHM_ASSERT(loop->free_count > 0);
	slot = loop->free_slot[--loop->free_count];
	loop->open_count++;
	shm_board_set(loop->block->connections, loop->open_count);
	worker_conn_open(loop, slot, fd);
	return slot;
}

void
worker_loop_accept(struct worker_loop *loop, int fd)
{
	shm_stats_count(loop->stats.shm, SHM_STATS_connections, 1);
	conn_take(loop, fd);
}

void
worker_loop_adopt(struct worker_loop *loop, int fd, uint32_t keepalive_ms)
{
	worker_timer_set(loop->timer, conn_take(loop, fd),
	    loop->now_us + keepalive_ms * 1000ull);
}

static void
accept_one(struct worker_loop *loop, uint32_t listener)
{
	loop->accept_armed[listener] = true;
	io_accept(loop->io, listener, loop->options->listener_fd[listener]);
}

/* A stop looks by itself; the next turn arms it again. */
void
worker_loop_accept_look(struct worker_loop *loop, uint32_t listener)
{
	if (loop->accept_armed[listener])
		io_accept_stop(loop->io, listener);
	else if (loop->now_us >= loop->accept_retry_us)
		accept_one(loop, listener);
}

static void
accept_arm(struct worker_loop *loop)
{
	if (loop->balance.is_shut || loop->phase >= WORKER_RETIRING ||
	    worker_loop_is_full(loop) || loop->now_us < loop->accept_retry_us)
		return;
	for (uint32_t i = 0; i < loop->options->listeners_count; i++) {
		if (!loop->accept_armed[i])
			accept_one(loop, i);
	}
}

static void
on_accepted(void *owner, uint32_t listener, int fd)
{
	struct worker_loop *loop = owner;

	loop->accept_armed[listener] = false;
	if (fd >= 0) {
		loop->accept_failing = false;
		worker_loop_accept(loop, fd);
		return;
	}
	if (fd == -ECANCELED)
		return;
	loop->accept_retry_us = loop->now_us + ACCEPT_RETRY_US;
	if (!loop->accept_failing)
		worker_log(WORKER_LOG_ERROR, "accept_failed",
		    "cannot accept connections: they wait in the queue",
		    LOG_STR("error", strerror(-fd)), LOG_END);
	loop->accept_failing = true;
}

/* What happens in a turn happens after its wait, not before. */
static void
on_woke(void *owner)
{
	struct worker_loop *loop = owner;

	loop->now_us = shm_clock_us();
	worker_stats_turn_begin(loop);
}

static void
on_soon(void *owner, const struct io_soon *soon, uint32_t count)
{
	const struct worker_loop *loop = owner;

	if (loop->cache != NULL)
		worker_cache_soon(loop, soon, count);
}

static void
on_received(void *owner, uint32_t slot, int res, const char *data)
{
	struct worker_loop *loop = owner;

	if (res > 0)
		shm_stats_count(loop->stats.shm, SHM_STATS_received, res);
	worker_conn_received(&loop->conn[slot], res, data);
}

static void
on_sent(void *owner, uint32_t slot, int res)
{
	struct worker_loop *loop = owner;

	if (res > 0)
		shm_stats_count(loop->stats.shm, SHM_STATS_sent, res);
	worker_conn_sent(&loop->conn[slot], res);
}

static void
on_closed(void *owner, uint32_t slot)
{
	struct worker_loop *loop = owner;

	worker_conn_closed(&loop->conn[slot]);
}

static void
on_released(void *owner, uint32_t slot, int fd)
{
	struct worker_loop *loop = owner;

	worker_handover_released(&loop->conn[slot], fd);
}

static void
on_timeout(void *owner, uint32_t slot)
{
	struct worker_loop *loop = owner;

	worker_conn_timeout(&loop->conn[slot]);
}

/* ---- the database */

static void
db_watch(void *owner, uint32_t n, int fd, uint32_t events)
{
	struct worker_loop *loop = owner;

	io_poll(loop->io, POLLER_DB + n, fd, events);
}

static void
db_state(void *owner, bool available, uint32_t connections)
{
	struct worker_loop *loop = owner;

	shm_board_set(loop->block->db,
	    available ? SHM_BOARD_DB_READY : SHM_BOARD_DB_AWAY);
	shm_board_set(loop->block->db_connections, connections);
}

/* The task is ready from the moment it could first serve. */
static bool
served_check(struct worker_loop *loop)
{
	struct shm_board *board = loop->options->board;
	uint32_t migrate;

	if (shm_board_get(board->served))
		return true;
	if (!worker_db_is_available(loop->db))
		return false;
	migrate = shm_board_get(board->migrate);
	if (migrate != SHM_BOARD_MIGRATE_OFF &&
	    migrate != SHM_BOARD_MIGRATE_DONE)
		return false;
	shm_board_set(board->served, 1);
	worker_log(WORKER_LOG_INFO, "ready", "the first request can be served",
	    LOG_END);
	return true;
}

/* ---- signals */

static void
signals_read(struct worker_loop *loop)
{
	struct signalfd_siginfo info;

	while (read(loop->signal_fd, &info, sizeof(info)) ==
	       (ssize_t)sizeof(info)) {
		switch (info.ssi_signo) {
		case SIGTERM:
		case SIGQUIT:
			worker_drain_begin(loop);
			break;
		case SIGHUP:
			worker_drain_retire(loop);
			break;
		case SIGINT:
			loop->phase = WORKER_STOPPED;
			break;
		case SIGUSR1:
			worker_log_reopen();
			break;
		default:
			break;
		}
	}
}

static void
on_ready(void *owner, uint32_t poller, uint32_t events)
{
	struct worker_loop *loop = owner;

	if (poller == POLLER_SIGNALS)
		signals_read(loop);
	else if (poller == POLLER_WAKE)
		worker_wait_woken(loop);
	else if (poller == POLLER_HANDOVER)
		worker_handover_receive(loop);
	else
		worker_db_ready(loop->db, poller - POLLER_DB, events);
}

static int
signals_open(struct worker_loop *loop)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGQUIT);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	if (sigprocmask(SIG_SETMASK, &set, NULL) == -1)
		return -1;
	loop->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (loop->signal_fd == -1)
		return -1;
	io_poll(loop->io, POLLER_SIGNALS, loop->signal_fd, POLLIN);
	io_poll(loop->io, POLLER_HANDOVER, loop->options->handover_own, POLLIN);
	return 0;
}

/* ---- opening and closing */

static const struct io_events events = {
    .woke = on_woke,
    .soon = on_soon,
    .accepted = on_accepted,
    .received = on_received,
    .sent = on_sent,
    .closed = on_closed,
    .released = on_released,
    .ready = on_ready,
};

static int
loop_open_io(struct worker_loop *loop)
{
	const struct worker_options *options = loop->options;
	struct io_options io_options = {.backend = options->io_backend,
	    .without = options->io_without,
	    .slots_count = loop->conn_count,
	    .window_us = options->batch_window_us,
	    .owner = loop,
	    .events = &events};
	const char *why;

	loop->io = io_open(&io_options, &why);
	if (loop->io == NULL) {
		worker_log(WORKER_LOG_ERROR, "io_failed",
		    "the I/O back end that io_backend names cannot be used",
		    LOG_STR("why", why), LOG_STR("error", strerror(errno)),
		    LOG_END);
		return EX_UNAVAILABLE;
	}
	shm_board_set(loop->block->io, io_backend(loop->io) == IO_URING
					   ? SHM_BOARD_IO_URING
					   : SHM_BOARD_IO_EPOLL);
	worker_log(
	    WORKER_LOG_INFO, "io_backend", io_describe(loop->io), LOG_END);
	return EX_OK;
}

static int
loop_open_db(struct worker_loop *loop)
{
	const struct worker_options *options = loop->options;
	struct worker_db_options db_options = {.conninfo = options->database,
	    .secret = options->database_secret,
	    .connections = options->database_connections,
	    .acquire_timeout_ms = options->database_acquire_timeout_ms,
	    .statement_timeout_ms = options->database_statement_timeout_ms,
	    .connect_timeout_ms = options->database_connect_timeout_ms,
	    .queries_max = loop->conn_count, /* one request each */
	    .queue_target_ms = options->database_queue_target_ms,
	    .stats = loop->stats.shm,
	    .watch = db_watch,
	    .state = db_state,
	    .owner = loop};
	char *why = NULL;

	SHM_ASSERT(
	    worker_db_pollers(&db_options) + POLLER_DB <= IO_POLLERS_MAX);
	loop->db = worker_db_new(&db_options, &why);
	if (loop->db != NULL)
		return EX_OK;
	worker_log(WORKER_LOG_ERROR, "database_setting",
	    "the setting database cannot be used",
	    LOG_STR("why", why != NULL ? why : "no memory"), LOG_END);
	free(why);
	return EX_CONFIG;
}

static void
loop_open_cache(struct worker_loop *loop)
{
	worker_cache_open(loop);
	if (loop->cache != NULL)
		io_poll(loop->io, POLLER_WAKE, shm_cache_wake_fd(loop->cache),
		    POLLIN);
}

static int
loop_open_memory(struct worker_loop *loop)
{
	uint32_t count =
	    loop->options->connections_max + loop->options->listeners_count;

	loop->conn_count = count;
	loop->conn = calloc(count, sizeof(*loop->conn));
	loop->free_slot = calloc(count, sizeof(*loop->free_slot));
	loop->timer = worker_timer_new(count, on_timeout, loop, loop->now_us);
	if (loop->conn == NULL || loop->free_slot == NULL ||
	    loop->timer == NULL)
		return EX_OSERR;
	while (loop->free_count < count) {
		loop->free_slot[loop->free_count] =
		    count - 1 - loop->free_count;
		loop->free_count++;
	}
	return EX_OK;
}

static int
loop_open(struct worker_loop *loop, const struct worker_options *options)
{
	int code;

	*loop = (struct worker_loop){
	    .options = options,
	    .block = &options->board->worker[options->slot],
	    .signal_fd = -1,
	    .now_us = shm_clock_us(),
	    .api = {.board = options->board,
		.greeting = {options->greeting, strlen(options->greeting)},
		.version = options->version},
	    .limits = {.request_line_bytes_max =
			   options->request_line_bytes_max,
		.header_bytes_max = options->header_bytes_max,
		.headers_count_max = options->headers_count_max,
		.body_bytes_max = options->body_bytes_max},
	};
	worker_stats_open(loop);
	loop->request_id = shm_wallclock_us() << 16 ^ (uint64_t)getpid();
	code = loop_open_memory(loop);
	if (code == EX_OK && worker_answer_open(loop) == -1)
		code = EX_OSERR;
	if (code == EX_OK)
		code = loop_open_io(loop);
	if (code == EX_OK && signals_open(loop) == -1)
		code = EX_OSERR;
	if (code == EX_OK)
		code = loop_open_db(loop);
	if (code == EX_OK)
		loop_open_cache(loop);
	return code;
}

static void
loop_close(struct worker_loop *loop)
{
	for (uint32_t i = 0; loop->conn != NULL && i < loop->conn_count; i++)
		worker_call_leave(&loop->conn[i].call);
	loop->is_closing = true;
	worker_db_free(&loop->db); /* ends what is left of loads and writes */
	if (loop->stats.shm != NULL)
		worker_stats_close(loop);
	io_free(&loop->io); /* until here the kernel reads what is in flight */
	for (uint32_t i = 0; loop->conn != NULL && i < loop->conn_count; i++)
		worker_conn_fini(&loop->conn[i]);
	if (loop->signal_fd != -1)
		close(loop->signal_fd);
	worker_call_free_all(loop);
	worker_out_free_all(loop);
	worker_answer_close(loop);
	worker_timer_free(&loop->timer);
	free(loop->conn);
	free(loop->free_slot);
}

static uint64_t
cache_tick(struct worker_loop *loop)
{
	uint64_t wait_us;

	if (loop->cache == NULL)
		return UINT64_MAX;
	wait_us = min_u64(worker_wait_tick(loop),
	    shm_cache_intent_tick(loop->cache, loop->now_us));
	/* The first turns: it goes on while they have other work too. */
	return shm_cache_populate(loop->cache) ? 0 : wait_us;
}

/* Everything but the completions.  Returns how long the loop may sleep. */
static uint64_t
loop_tick(struct worker_loop *loop)
{
	uint64_t wait_us;

	wait_us = worker_timer_run(loop->timer, loop->now_us);
	worker_db_flush(loop->db);
	wait_us = min_u64(wait_us, worker_db_tick(loop->db, loop->now_us));
	wait_us = min_u64(wait_us, cache_tick(loop));
	wait_us = min_u64(wait_us, worker_drain_tick(loop));
	wait_us = min_u64(wait_us, worker_balance_tick(loop));
	wait_us = min_u64(wait_us, worker_handover_tick(loop));
	accept_arm(loop);
	if (loop->accept_retry_us > loop->now_us)
		wait_us = min_u64(wait_us, ACCEPT_RETRY_US);
	if (!served_check(loop))
		wait_us = min_u64(wait_us, worker_db_is_available(loop->db)
					       ? SERVED_POLL_US
					       : UINT64_MAX);
	worker_db_flush(loop->db); /* what the tick's endings asked for */
	wait_us = min_u64(wait_us, worker_db_wait(loop->db, loop->now_us));
	wait_us = min_u64(wait_us, worker_log_flush(loop->now_us));
	return min_u64(wait_us, worker_stats_turn_end(loop));
}

int
worker_loop_run(const struct worker_options *options)
{
	static struct worker_loop loop;
	uint64_t wait_us;
	int code = loop_open(&loop, options);
	int res = 0;

	if (code != EX_OK) {
		loop_close(&loop);
		return code;
	}
	shm_board_set(loop.block->state, SHM_BOARD_SERVING);
	while (loop.phase != WORKER_STOPPED && res >= 0) {
		wait_us = loop_tick(&loop);
		if (loop.phase == WORKER_STOPPED)
			break;
		res = io_turn(loop.io, wait_us);
	}
	if (res < 0) {
		worker_log(WORKER_LOG_ERROR, "io_broke",
		    "the event loop cannot go on",
		    LOG_STR("error", strerror(-res)), LOG_END);
		code = EX_OSERR;
	}
	loop_close(&loop);
	return code;
}
