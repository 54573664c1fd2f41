#include "config.h"

#include <sys/mman.h>

#include "shm/shm_board.h"

#define BOARD_MAGIC 0x626f6f6b73626431ULL /* "booksbd1" */

struct shm_board *
shm_board_new(uint32_t workers_count)
{
	struct shm_board *board;

	SHM_ASSERT(workers_count > 0);
	SHM_ASSERT(workers_count <= SHM_BOARD_WORKERS_MAX);
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED)
		return NULL;
	board->magic = BOARD_MAGIC;
	board->bytes = sizeof(*board);
	board->workers_count = workers_count;
	return board;
}

void
shm_board_free(struct shm_board **board)
{
	if (*board == NULL)
		return;
	SHM_ASSERT((*board)->magic == BOARD_MAGIC);
	munmap(*board, (*board)->bytes);
	*board = NULL;
}

void
shm_board_worker_reset(struct shm_board *board, uint32_t i)
{
	struct shm_board_worker *worker;

	SHM_ASSERT(i < board->workers_count);
	worker = &board->worker[i];
	shm_board_set(worker->pid, 0);
	shm_board_set(worker->state, SHM_BOARD_EMPTY);
	shm_board_set(worker->io, SHM_BOARD_IO_NONE);
	shm_board_set(worker->db, SHM_BOARD_DB_AWAY);
	shm_board_set(worker->connections, 0);
	shm_board_set(worker->db_connections, 0);
	shm_board_set(worker->requests, 0);
}

void
shm_board_ops_reset(struct shm_board *board)
{
	shm_board_set(board->ops.pid, 0);
	shm_board_set(board->ops.listening, 0);
}

bool
shm_board_is_ready(const struct shm_board *board)
{
	return shm_board_get(board->served) && !shm_board_get(board->draining);
}

bool
shm_board_has_db(const struct shm_board *board)
{
	for (uint32_t i = 0; i < board->workers_count; i++)
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
