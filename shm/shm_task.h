/*
 * The memory of a task but for the cache: boards, statistics, profile.
 *
 * A task usually has one master.  During an upgrade it has two, which share
 * this mapping: each keeps to one half of it (a board and the statistics of
 * its slots), and the halves change roles with each upgrade.  Statistics are
 * never cleared, so sums over both halves do not notice.
 *
 * A worker's slot in the cache is its slot in the task: half *
 * SHM_BOARD_SLOTS + slot.
 */
#ifndef SHM_TASK_H
#define SHM_TASK_H

#include "shm/shm_board.h"
#include "shm/shm_profile.h"
#include "shm/shm_stats.h"

#define SHM_TASK_HALVES 2
#define SHM_TASK_SLOTS	(SHM_TASK_HALVES * SHM_BOARD_SLOTS)

struct shm_task {
	uint64_t magic;
	uint64_t layout;     /* shm_task_layout() of the maker */
	uint64_t bytes;	     /* of the whole mapping */
	uint64_t started_us; /* shm_clock_us(), when the task began */
	struct shm_board half[SHM_TASK_HALVES];
	struct shm_stats stats[SHM_TASK_SLOTS];
	struct shm_profile_request profile;
	struct shm_profile_worker samples[SHM_TASK_SLOTS];
};

/* A hash of everything that the layout depends on. */
uint64_t shm_task_layout(void);

/*
 * A sealed memfd, zeroed; *fd is its descriptor, close-on-exec.  Master, before
 * the first fork; tests.  NULL with errno.
 */
struct shm_task *shm_task_new(int *fd) SHM_MUSTCHECK;
/* Map what fd holds; NULL with errno EPROTO: made by a booksd with another
 * layout.  fd stays the caller's. */
struct shm_task *shm_task_adopt(int fd) SHM_MUSTCHECK;
void shm_task_free(struct shm_task **task); /* takes; NULL is fine */

/* A board of a task of its own, for tests; shm_task_free(&shm_task_of()). */
struct shm_board *shm_task_board_new(void) SHM_MUSTCHECK;

/* The task that a board is a half of. */
struct shm_task *shm_task_of(struct shm_board *board);

/* The slot in the task of the board's slot i. */
static inline uint32_t
shm_task_slot(const struct shm_board *board, uint32_t i)
{
	return board->half * SHM_BOARD_SLOTS + i;
}

/* The board's half begins anew for a master: everything of the board but its
 * event counts is cleared.  The statistics stay. */
void shm_task_half_begin(struct shm_board *board, int32_t master);

/* Sum the statistics of all slots that ever had a process. */
void shm_task_sum(const struct shm_task *task, struct shm_stats *sum);
/* Of one event, both halves. */
uint64_t
shm_task_events(const struct shm_task *task, enum shm_board_event event);

#endif
