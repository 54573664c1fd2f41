/*
 * The master's part in the book cache: it makes the memory, and answers for
 * the dead.
 */
#ifndef MASTER_CACHE_H
#define MASTER_CACHE_H

#include "master/master_options.h"

#define MASTER_CACHE_DEBTS_MAX 64

/* Zeroed but for cache, it is ready. */
struct master_cache {
	struct shm_cache *cache; /* NULL: there is none, nothing is done */
	uint64_t flush_us;	/* 0, or when to flush: debts without a place */
	uint64_t flush_last_us; /* and again: those that came after them */
	struct shm_cache_debt debt[MASTER_CACHE_DEBTS_MAX]; /* due_us 0: free */
};

/* What the settings ask for; workers is decided. */
void master_cache_wanted(
    const struct master_options *options, struct shm_cache_options *wanted);
/* Make it, ready for the master and its children.  NULL with errno. */
struct shm_cache *
master_cache_new(const struct master_options *options) SHM_MUSTCHECK;

/* What of the settings the children inherit with it. */
void master_cache_policy(
    struct shm_cache *cache, const struct master_options *options);

/* The worker in slot was reaped.  Before the slot is used again. */
void
master_cache_reaped(struct master_cache *cache, uint32_t slot, uint64_t now_us);
/* Do what is due; when it is time again, UINT64_MAX: never. */
uint64_t master_cache_tick(struct master_cache *cache, uint64_t now_us);

/* Is the cache in order?  In a process of its own; the log says it.  If not,
 * it is distrusted. */
void master_cache_audit(struct shm_cache *cache);
/* Something is wrong with it: serve nothing that it holds, and say why. */
void master_cache_distrust(
    struct shm_cache *cache, uint32_t breaches, const char *why);

#endif
