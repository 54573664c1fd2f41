/*
 * The memory of a task: made, adopted, summed.
 */
#include "config.h"

#include <sys/mman.h>
#include <unistd.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "shm/shm_hash.h"
#include "shm/shm_map.h"
#include "shm/shm_task.h"

#define TASK_MAGIC 0x626f6f6b73746b31ULL /* "bookstk1" */
#define TASK_FORM  1 /* counts changes of meaning that no size shows */

uint64_t
shm_task_layout(void)
{
	const uint64_t facts[] = {TASK_FORM, sizeof(struct shm_task),
	    sizeof(struct shm_board), sizeof(struct shm_stats),
	    sizeof(struct shm_profile_worker), offsetof(struct shm_task, stats),
	    offsetof(struct shm_stats, duration),
	    offsetof(struct shm_board, worker), SHM_STATS_COUNTERS_COUNT,
	    SHM_BOARD_EVENTS_COUNT};
	uint64_t hash = TASK_MAGIC;

	for (size_t i = 0; i < SHM_ARRAY_LEN(facts); i++)
		hash = shm_hash_number(hash ^ facts[i]);
	return hash;
}

static void *
map(int fd)
{
	void *start = mmap(NULL, sizeof(struct shm_task),
	    PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	return start == MAP_FAILED ? NULL : start;
}

struct shm_task *
shm_task_new(int *fd)
{
	struct shm_task *task;

	*fd = memfd_create("booksd-task", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*fd == -1)
		return NULL;
	if (ftruncate(*fd, sizeof(*task)) == -1 ||
	    fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == -1)
		goto close_fd;
	task = map(*fd);
	if (task == NULL)
		goto close_fd;
	task->magic = TASK_MAGIC;
	task->layout = shm_task_layout();
	task->bytes = sizeof(*task);
	task->started_us = shm_clock_us();
	for (uint32_t i = 0; i < SHM_TASK_HALVES; i++)
		task->half[i].half = i;
	return task;
close_fd:
	close(*fd);
	*fd = -1;
	return NULL;
}

struct shm_task *
shm_task_adopt(int fd)
{
	struct shm_task *task;

	if (shm_map_fd_bytes(fd) != sizeof(*task)) {
		errno = EPROTO;
		return NULL;
	}
	task = map(fd);
	if (task == NULL)
		return NULL;
	if (task->magic == TASK_MAGIC && task->layout == shm_task_layout() &&
	    task->half[0].half == 0 && task->half[1].half == 1)
		return task;
	shm_task_free(&task);
	errno = EPROTO;
	return NULL;
}

void
shm_task_free(struct shm_task **task)
{
	if (*task != NULL)
		munmap(*task, sizeof(**task));
	*task = NULL;
}

struct shm_board *
shm_task_board_new(void)
{
	int fd;
	struct shm_task *task = shm_task_new(&fd);

	if (task == NULL)
		return NULL;
	close(fd);
	return &task->half[0];
}

struct shm_task *
shm_task_of(struct shm_board *board)
{
	return (struct shm_task *)(void *)((char *)(board - board->half) -
					   offsetof(struct shm_task, half));
}

void
shm_task_half_begin(struct shm_board *board, int32_t master)
{
	const uint32_t half = board->half;

	SHM_ASSERT(half < SHM_TASK_HALVES);
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++) {
		shm_board_worker_reset(board, i);
		shm_board_set(board->worker[i].restarts, 0);
		shm_board_set(board->worker[i].log_dropped, 0);
	}
	shm_board_ops_reset(board);
	shm_board_set(board->ops.restarts, 0);
	shm_board_set(board->served, 0);
	shm_board_set(board->draining, 0);
	shm_board_set(board->migrate, SHM_BOARD_MIGRATE_OFF);
	shm_board_set(board->generation, 0);
	shm_board_set(board->master_started_us, shm_clock_us());
	shm_board_set(board->master, master);
}

void
shm_task_sum(const struct shm_task *task, struct shm_stats *sum)
{
	memset(sum, 0, sizeof(*sum));
	/* Looking at a block makes its pages, so those never used are left. */
	for (uint32_t i = 0; i < SHM_TASK_SLOTS; i++) {
		const struct shm_board *board =
		    &task->half[i / SHM_BOARD_SLOTS];

		if (shm_board_get(
			board->worker[i % SHM_BOARD_SLOTS].incarnation) > 0)
			shm_stats_sum(sum, &task->stats[i]);
	}
}

uint64_t
shm_task_events(const struct shm_task *task, enum shm_board_event event)
{
	return shm_board_get(task->half[0].event[event]) +
	       shm_board_get(task->half[1].event[event]);
}
