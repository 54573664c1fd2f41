/*
 * The beginning of a booksd that takes over from another one: the new side of
 * an upgrade (master_upgrade.h has the old one, and what both say).
 */
#ifndef MASTER_TAKEOVER_H
#define MASTER_TAKEOVER_H

#include <sys/types.h>

#include "master/master_inherit.h"
#include "master/master_options.h"

enum master_takeover_state {
	MASTER_TAKEOVER_NONE = 0, /* an ordinary start, or long over */
	MASTER_TAKEOVER_STARTING, /* the predecessor serves */
	MASTER_TAKEOVER_ASKED,	  /* we serve too, and said so */
	MASTER_TAKEOVER_MASTER,	  /* the predecessor finishes what it has */
	MASTER_TAKEOVER_ORPHAN,	  /* it died; its slots have to be swept */
};

struct master_takeover {
	enum master_takeover_state state;
	pid_t predecessor;
	uint32_t half; /* ours */
	int talk_fd;   /* to the predecessor; -1: none */
	int task_fd;   /* -1: none, or taken */
	int cache_fd;  /* likewise */
	bool is_cache_shared;
	uint64_t cache_layout;
	int wake_fd[SHM_CACHE_SLOTS_MAX];
	uint64_t ready_us; /* all workers serve since then, 0: not yet */
	uint64_t sweep_us; /* ORPHAN: when its processes are surely gone */
};

/*
 * What the predecessor gives in the environment; the variable is removed.
 * EX_OK, with state NONE when there is no predecessor, or EX_SOFTWARE after
 * saying to errors that it makes no sense.  Before anything else is opened.
 */
int master_takeover_read(struct master_takeover *takeover,
    struct master_inherit *inherit, FILE *errors) SHM_MUSTCHECK;

/* The predecessor's task, with its descriptor, or NULL: none, or of another
 * layout. */
struct shm_task *
master_takeover_task(struct master_takeover *takeover, int *fd) SHM_MUSTCHECK;
/* Its cache, or NULL: likewise. */
struct shm_cache *
master_takeover_cache(struct master_takeover *takeover) SHM_MUSTCHECK;

/* ---- while we run, for master_supervise*.c */

struct master_supervisor;

/* May the manager be told that we are ready?  Not before the predecessor has
 * let go. */
bool
master_takeover_is_over(const struct master_takeover *takeover) SHM_MUSTCHECK;
/* Does a predecessor still finish what it has? */
bool master_takeover_has_predecessor(
    const struct master_takeover *takeover) SHM_MUSTCHECK;
/* Go on with it.  When to look again; UINT64_MAX: when a signal comes. */
uint64_t
master_takeover_tick(struct master_supervisor *supervisor, uint64_t now_us);

#endif
