#include "config.h"

#include <stdio.h>

#include "shm/shm_board.h"

void
shm_board_worker_reset(struct shm_board *board, uint32_t i)
{
	struct shm_board_worker *worker;

	SHM_ASSERT(i < SHM_BOARD_SLOTS);
	worker = &board->worker[i];
	shm_board_set(worker->pid, 0);
	shm_board_set(worker->state, SHM_BOARD_EMPTY);
	shm_board_set(worker->io, SHM_BOARD_IO_NONE);
	shm_board_set(worker->db, SHM_BOARD_DB_AWAY);
	shm_board_set(worker->connections, 0);
	shm_board_set(worker->db_connections, 0);
	shm_board_set(worker->requests, 0);
	shm_board_set(worker->heartbeat_us, 0);
	shm_board_set(worker->busy_us, 0);
	shm_board_set(worker->cpu_us, 0);
	shm_board_set(worker->doing, SHM_BOARD_WAITING);
	shm_board_set(worker->busy_permille, 0);
	shm_board_set(worker->db_busy, 0);
	shm_board_set(worker->db_waiting, 0);
	shm_board_set(worker->requests_open, 0);
}

void
shm_board_ops_reset(struct shm_board *board)
{
	shm_board_set(board->ops.pid, 0);
	shm_board_set(board->ops.listening, 0);
	shm_board_set(board->ops.heartbeat_us, 0);
}

bool
shm_board_is_ready(const struct shm_board *board)
{
	return shm_board_get(board->served) && !shm_board_get(board->draining);
}

bool
shm_board_has_db(const struct shm_board *board)
{
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
		if (shm_board_get(board->worker[i].db) == SHM_BOARD_DB_READY)
			return true;
	return false;
}

const char *
shm_board_io_name(uint32_t io)
{
	switch ((enum shm_board_io)io) {
	case SHM_BOARD_IO_NONE:
		return "none";
	case SHM_BOARD_IO_URING:
		return "io_uring";
	case SHM_BOARD_IO_EPOLL:
		return "epoll";
	}
	return "unknown";
}

const char *
shm_board_state_name(uint32_t state)
{
	switch ((enum shm_board_state)state) {
	case SHM_BOARD_EMPTY:
		return "empty";
	case SHM_BOARD_STARTING:
		return "starting";
	case SHM_BOARD_SERVING:
		return "serving";
	case SHM_BOARD_RETIRING:
		return "retiring";
	case SHM_BOARD_DRAINING:
		return "draining";
	}
	return "unknown";
}

const char *
shm_board_migrate_name(uint32_t migrate)
{
	switch ((enum shm_board_migrate)migrate) {
	case SHM_BOARD_MIGRATE_OFF:
		return "off";
	case SHM_BOARD_MIGRATE_PENDING:
		return "pending";
	case SHM_BOARD_MIGRATE_DONE:
		return "done";
	case SHM_BOARD_MIGRATE_FAILED:
		return "failed";
	}
	return "unknown";
}

const char *
shm_board_event_name(enum shm_board_event event)
{
	static const char *const names[] = {
#define SHM_BOARD_EVENT(name, help) #name,
	    SHM_BOARD_EVENTS
#undef SHM_BOARD_EVENT
	};

	return names[event];
}

const char *
shm_board_event_help(enum shm_board_event event)
{
	static const char *const helps[] = {
#define SHM_BOARD_EVENT(name, help) help,
	    SHM_BOARD_EVENTS
#undef SHM_BOARD_EVENT
	};

	return helps[event];
}

void
shm_board_count(struct shm_board *board, enum shm_board_event event)
{
	shm_board_set(
	    board->event[event], shm_board_get(board->event[event]) + 1);
}

void
shm_board_source_set(struct shm_board *board, const char *text)
{
	snprintf(board->cpu.source, sizeof(board->cpu.source), "%s", text);
}
