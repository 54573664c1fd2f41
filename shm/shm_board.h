/*
 * The scoreboard: what the processes of one booksd tell each other.
 *
 * LAYOUT: one anonymous shared mapping made by the master before the first
 * fork: a header, then SHM_BOARD_WORKERS_MAX worker blocks of 128 bytes, each
 * on cache lines of its own, and a block for ops.
 *
 * WHO MAY WRITE
 *   header          the master, but for migrate (the migrate child) and
 *                   served (any worker; it only ever becomes true)
 *   worker[i].pid, incarnation, restarts   the master
 *   ops             the master, but for listening (ops)
 *   the rest of worker[i]                  the worker in slot i alone
 *
 * INVARIANTS
 *   I1  every field is one word and meaningful by itself; no reader combines
 *       two of them and believes the pair.
 *   I2  served and draining never go back to false.
 *
 * MEMORY ORDER: relaxed everywhere.  The words are reports, nothing is
 * published through them.
 *
 * A WRITER DIES INSIDE: the master clears the dead worker's block
 * (shm_board_worker_reset) before the slot is used again; until then readers
 * see its last report.
 */
#ifndef SHM_BOARD_H
#define SHM_BOARD_H

#include <stdatomic.h>

#include "shm/shm_base.h"

#define SHM_BOARD_WORKERS_MAX 64 /* more: EX_CONFIG from the settings table */

enum shm_board_io {
	SHM_BOARD_IO_NONE = 0, /* not decided yet */
	SHM_BOARD_IO_URING,
	SHM_BOARD_IO_EPOLL,
};

enum shm_board_db {
	SHM_BOARD_DB_AWAY = 0, /* no usable connection */
	SHM_BOARD_DB_READY,
};

enum shm_board_migrate {
	SHM_BOARD_MIGRATE_OFF = 0, /* migrate_on_start = off */
	SHM_BOARD_MIGRATE_PENDING, /* the child waits or works */
	SHM_BOARD_MIGRATE_DONE,
	SHM_BOARD_MIGRATE_FAILED, /* the SQL failed: an administrator's turn */
};

enum shm_board_state {
	SHM_BOARD_EMPTY = 0,
	SHM_BOARD_STARTING,
	SHM_BOARD_SERVING,
	SHM_BOARD_DRAINING,
};

struct shm_board_worker {
	_Alignas(128) _Atomic int32_t pid; /* 0: nobody */
	_Atomic uint32_t incarnation;	   /* counts the slot's processes */
	_Atomic uint32_t restarts;	   /* after abnormal deaths */
	_Atomic uint32_t state;		   /* enum shm_board_state */
	_Atomic uint32_t io;		   /* enum shm_board_io */
	_Atomic uint32_t db;		   /* enum shm_board_db */
	_Atomic uint32_t connections;	   /* client sockets open now */
	_Atomic uint32_t db_connections;   /* usable now */
	_Atomic uint64_t started_us;	   /* shm_clock_us() */
	_Atomic uint64_t requests;	   /* answered by this incarnation */
	_Atomic uint64_t log_dropped;	   /* lines that found no room */
};

/* The process beside the workers; all 0 when there is none. */
struct shm_board_ops {
	_Alignas(128) _Atomic int32_t pid; /* 0: nobody */
	_Atomic uint32_t incarnation;	   /* counts its processes */
	_Atomic uint32_t restarts;	   /* after deaths */
	_Atomic uint32_t listening;  /* it hears the database's notifications */
	_Atomic uint64_t started_us; /* shm_clock_us() */
};

struct shm_board {
	uint64_t magic;
	uint32_t bytes; /* of the whole mapping */
	uint32_t workers_count;
	_Atomic uint32_t migrate;  /* enum shm_board_migrate */
	_Atomic uint32_t served;   /* a worker could serve once: ready */
	_Atomic uint32_t draining; /* TERM was seen: not ready any more */
	struct shm_board_worker worker[SHM_BOARD_WORKERS_MAX];
	struct shm_board_ops ops;
};

_Static_assert(sizeof(struct shm_board_worker) == 128, "two cache lines");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "words must be lock-free");

/*
 * Map a zeroed board.  Master, before the first fork; tests.  NULL with errno
 * when there is no memory.  The caller owns it: shm_board_free().
 */
struct shm_board *shm_board_new(uint32_t workers_count) SHM_MUSTCHECK;
void shm_board_free(struct shm_board **board); /* takes; NULL is fine */

/* Forget the reports of slot i's dead process.  Master, after waitpid(2). */
void shm_board_worker_reset(struct shm_board *board, uint32_t i);

/* The same for ops. */
void shm_board_ops_reset(struct shm_board *board);

/*
 * May a load balancer send requests to this task?  True from the moment the
 * task could first serve until drain begins, whatever the database does in
 * between.  Any process.
 */
bool shm_board_is_ready(const struct shm_board *board);

/* Does at least one worker have a usable database connection?  Any process. */
bool shm_board_has_db(const struct shm_board *board);

/* "io_uring", "epoll" or "none"; "ready"/"away"; and so on.  Static text. */
const char *shm_board_io_name(uint32_t io);
const char *shm_board_state_name(uint32_t state);
const char *shm_board_migrate_name(uint32_t migrate);

/* Relaxed access, the only order this file needs. */
#define shm_board_get(word) atomic_load_explicit(&(word), memory_order_relaxed)
#define shm_board_set(word, value) \
	atomic_store_explicit(&(word), (value), memory_order_relaxed)

#endif
