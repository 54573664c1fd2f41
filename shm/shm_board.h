/*
 * The scoreboard: what the processes of one master tell each other.
 *
 * LAYOUT: a half of the task's mapping (shm_task.h), since during an upgrade
 * two masters share one: a header, then SHM_BOARD_SLOTS worker blocks of 256
 * bytes, each on cache lines of its own, and a block for ops.
 *
 * WHO MAY WRITE
 *   header          the master, but for migrate (the migrate child) and
 *                   served (any worker; it only ever becomes true)
 *   worker[i].pid, incarnation, restarts, born_us   the master
 *   ops             the master, but for listening and heartbeat_us (ops)
 *   the rest of worker[i]                  the worker in slot i alone
 *
 * INVARIANTS
 *   I1  every field is one word and meaningful by itself; no reader combines
 *       two of them and believes the pair.  (The texts of the header are an
 *       exception: readers stop at the last byte and expect any content.)
 *   I2  served and draining never go back to false while a master lives.
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

/* Of one master: those of two fill the cache's 64. */
#define SHM_BOARD_SLOTS 32
/* One slot stays free for the successor of a worker that is replaced.  More:
 * EX_CONFIG from the settings table. */
#define SHM_BOARD_WORKERS_MAX (SHM_BOARD_SLOTS - 1)
#define SHM_BOARD_TEXT	      160

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
	SHM_BOARD_RETIRING, /* finishes what it has; others go on */
	SHM_BOARD_DRAINING, /* the whole task ends */
};

/* What a worker's loop is doing, for the watchdog and for people. */
enum shm_board_doing {
	SHM_BOARD_WAITING = 0, /* in the kernel, for events */
	SHM_BOARD_WORKING,     /* between two waits */
	SHM_BOARD_REQUEST,     /* of that, a request of the route in route */
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
	_Atomic uint64_t born_us;	   /* when the master forked it */

	/* written every turn: a line of its own */
	_Alignas(128) _Atomic uint64_t heartbeat_us; /* the last turn began;
				at least four times in each worker_watchdog */
	_Atomic uint64_t busy_us; /* of this incarnation, between waits */
	_Atomic uint64_t cpu_us;  /* of this incarnation, user and system; as of
				     a heartbeat */
	_Atomic uint32_t doing;	  /* enum shm_board_doing */
	_Atomic uint32_t route;	  /* enum api_route_id, with REQUEST */
	_Atomic uint32_t busy_permille; /* over the last second */
	_Atomic uint32_t db_busy;	/* connections with a statement */
	_Atomic uint32_t db_waiting;	/* requests without a connection */
	_Atomic uint32_t requests_open; /* begun and not yet answered */
};

/* The process beside the workers; all 0 when there is none. */
struct shm_board_ops {
	_Alignas(128) _Atomic int32_t pid; /* 0: nobody */
	_Atomic uint32_t incarnation;	   /* counts its processes */
	_Atomic uint32_t restarts;	   /* after deaths */
	_Atomic uint32_t listening;  /* it hears the database's notifications */
	_Atomic uint64_t started_us; /* shm_clock_us() */
	_Atomic uint64_t heartbeat_us; /* of its loop */
};

/* Why processes ended or began, counted over the task's life by each half. */
#define SHM_BOARD_EVENTS                                                       \
	SHM_BOARD_EVENT(worker_exit, "workers that ended by themselves")       \
	SHM_BOARD_EVENT(worker_signal, "workers that a signal ended")          \
	SHM_BOARD_EVENT(worker_watchdog, "workers that were stuck and killed") \
	SHM_BOARD_EVENT(worker_retired, "workers that were retired in order")  \
	SHM_BOARD_EVENT(ops_death, "deaths of the operations process")         \
	SHM_BOARD_EVENT(reload, "reloads of the settings that succeeded")      \
	SHM_BOARD_EVENT(reload_failed, "reloads that were refused")            \
	SHM_BOARD_EVENT(upgrade, "upgrades of the program that succeeded")     \
	SHM_BOARD_EVENT(upgrade_failed, "upgrades that were rolled back")      \
	SHM_BOARD_EVENT(resize, "changes of the number of workers")

enum shm_board_event {
#define SHM_BOARD_EVENT(name, help) SHM_BOARD_EVENT_##name,
	SHM_BOARD_EVENTS
#undef SHM_BOARD_EVENT
	    SHM_BOARD_EVENTS_COUNT
};

/* The CPUs that the task may use, as the master found them. */
struct shm_board_cpu {
	_Atomic uint32_t millicpus;    /* the limit; 0: none was found */
	_Atomic uint64_t throttled_us; /* cpu.stat, since the group began */
	_Atomic uint64_t throttled_periods; /* likewise */
	_Atomic uint64_t periods;	    /* likewise */
	char source[SHM_BOARD_TEXT]; /* what decided the number of workers */
};

struct shm_board {
	uint32_t half;		/* which one we are: 0 or 1 */
	_Atomic int32_t master; /* its pid; 0: this half is not in use */
	_Atomic uint64_t master_started_us;
	_Atomic uint32_t workers_wanted;
	_Atomic uint32_t workers_min; /* equal to max: a fixed number */
	_Atomic uint32_t workers_max;
	_Atomic uint32_t generation; /* of the settings: counts reloads */
	_Atomic uint32_t migrate;    /* enum shm_board_migrate */
	_Atomic uint32_t served;     /* a worker could serve once: ready */
	_Atomic uint32_t draining;   /* TERM was seen: not ready any more */
	_Atomic uint64_t event[SHM_BOARD_EVENTS_COUNT];
	struct shm_board_cpu cpu;
	struct shm_board_worker worker[SHM_BOARD_SLOTS];
	struct shm_board_ops ops;
};

_Static_assert(sizeof(struct shm_board_worker) == 256, "whole cache lines");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "words must be lock-free");

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
const char *shm_board_event_name(enum shm_board_event event);
const char *shm_board_event_help(enum shm_board_event event);

/* The master counts. */
void shm_board_count(struct shm_board *board, enum shm_board_event event);
/* The header's text for people, always ended. */
void shm_board_source_set(struct shm_board *board, const char *text);

/* Relaxed access, the only order this file needs. */
#define shm_board_get(word) atomic_load_explicit(&(word), memory_order_relaxed)
#define shm_board_set(word, value) \
	atomic_store_explicit(&(word), (value), memory_order_relaxed)

#endif
