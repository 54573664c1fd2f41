/*
 * Answering for the dead.
 *
 * A worker can die at any instruction, and only the master knows for certain
 * that it has: waitpid(2) said so.  Each death is followed by a sweep before
 * the slot gets its next process, the orderly ones too, because a worker that
 * ends in good order still leaves the segments that it was filling.
 *
 * DEBTS
 * A dead worker's writes may still be committed by the server until the time
 * limit of their statement has passed, so what they touch is invalidated by
 * the sweep and once more when a debt is due.  A slot that keeps dying makes
 * new debts while old ones wait; there is room for 64 of them.  A debt that
 * finds no room becomes a flush of all classes when it is due, which does more
 * than it asked for and needs no memory but a time.  Two times are kept, the
 * first and the last, so that a flush is never put off by the debts that come
 * after it: each is settled when it is due or one limit later at most.
 *
 * AUDIT
 * After a death that was none of our orders the invariants of docs/SHM.md are
 * looked at.  The protocol keeps them whatever a process does not do any more;
 * a breach therefore means that one did what it should not, and wrote where it
 * must not write.  Then all that is cached is declared void by a flush: what
 * comes after is loaded from the database.  The service goes on.
 *
 * Every entry is looked at, which takes a microsecond each where they are not
 * in a CPU's cache: seconds with a large cache, for which the master must not
 * be deaf.  So it is done by a child, at a low priority.  And if the map is so
 * broken that looking at it is fatal, it is fatal to that child, whose death
 * says so.
 */
#include "config.h"

#include "master/master_cache.h"
#include "shm/shm_task.h"

#define LINGER_EXTRA_US 1000000 /* for the way to the server and back */

void
master_cache_wanted(
    const struct master_options *options, struct shm_cache_options *wanted)
{
	*wanted = (struct shm_cache_options){
	    .bytes = options->cache_bytes,
	    .slots_count = SHM_TASK_SLOTS,
	    .workers = options->workers,
	};
}

void
master_cache_policy(
    struct shm_cache *cache, const struct master_options *options)
{
	const struct worker_options *worker = &options->worker;
	const struct shm_cache_policy policy = {
	    .stale_us = worker->cache_stale_while_revalidate_ms * 1000ULL,
	    .error_us = worker->cache_stale_if_error_ms * 1000ULL,
	    .lists_relaxed = worker->cache_lists == WORKER_LISTS_RELAXED,
	    .linger_us = worker->database_statement_timeout_ms * 1000ULL +
			 LINGER_EXTRA_US,
	};

	shm_cache_set_policy(cache, &policy);
}

struct shm_cache *
master_cache_new(const struct master_options *options)
{
	struct shm_cache_options wanted;
	struct shm_cache *cache;

	master_cache_wanted(options, &wanted);
	cache = shm_cache_new(&wanted);
	if (cache != NULL)
		master_cache_policy(cache, options);
	return cache;
}

static void
flush_all(struct shm_cache *cache)
{
	for (uint32_t cls = 0; cls < SHM_CACHE_CLASSES; cls++)
		shm_cache_flush(cache, (enum shm_cache_class)cls);
}

static struct shm_cache_debt *
free_debt(struct master_cache *cache)
{
	for (size_t i = 0; i < SHM_ARRAY_LEN(cache->debt); i++)
		if (cache->debt[i].due_us == 0)
			return &cache->debt[i];
	return NULL;
}

static void
owe_flush(struct master_cache *cache, uint64_t due_us)
{
	if (cache->flush_us == 0)
		cache->flush_us = due_us;
	else if (due_us > cache->flush_last_us)
		cache->flush_last_us = due_us;
}

void
master_cache_reaped(struct master_cache *cache, uint32_t slot, uint64_t now_us)
{
	struct shm_cache_debt spare, *debt;

	if (cache->cache == NULL)
		return;
	debt = free_debt(cache);
	if (debt == NULL)
		debt = &spare;
	shm_cache_sweep(cache->cache, slot, now_us, debt);
	if (debt == &spare && spare.due_us > 0)
		owe_flush(cache, spare.due_us);
}

static void
flush_due(struct master_cache *cache, uint64_t now_us)
{
	if (cache->flush_us == 0 || cache->flush_us > now_us)
		return;
	flush_all(cache->cache);
	if (cache->flush_last_us <= now_us)
		cache->flush_last_us = 0;
	cache->flush_us = cache->flush_last_us;
	cache->flush_last_us = 0;
}

uint64_t
master_cache_tick(struct master_cache *cache, uint64_t now_us)
{
	uint64_t next_us = UINT64_MAX;

	if (cache->cache == NULL)
		return next_us;
	flush_due(cache, now_us);
	if (cache->flush_us > 0)
		next_us = cache->flush_us;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cache->debt); i++) {
		struct shm_cache_debt *debt = &cache->debt[i];

		if (debt->due_us > 0 && debt->due_us <= now_us)
			shm_cache_settle(cache->cache, debt);
		if (debt->due_us > 0 && debt->due_us < next_us)
			next_us = debt->due_us;
	}
	return next_us;
}

void
master_cache_distrust(
    struct shm_cache *cache, uint32_t breaches, const char *why)
{
	flush_all(cache);
	worker_log(WORKER_LOG_ERROR, "cache_audit_failed",
	    "the cache is not in order after a worker's death, so nothing "
	    "that it holds is served any more",
	    LOG_INT("breaches", breaches), LOG_STR("why", why), LOG_END);
}

void
master_cache_audit(struct shm_cache *cache)
{
	uint64_t begin_us = shm_clock_us();
	char why[200] = "";
	uint32_t breaches;

	breaches = shm_cache_audit(cache, false, why, sizeof(why));
	if (breaches > 0) {
		master_cache_distrust(cache, breaches, why);
		return;
	}
	worker_log(WORKER_LOG_INFO, "cache_audited",
	    "the cache is in order after a worker's death",
	    LOG_INT("duration_us", shm_clock_us() - begin_us), LOG_END);
}
