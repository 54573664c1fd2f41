/*
 * A worker of the book cache is dead: what it owned becomes nobody's.
 *
 * WHO MAY WRITE: the master alone, after waitpid(2) has told it that the
 * process is gone, and before the slot is used again.
 *
 * INVARIANTS
 *	I1 the incarnation moves first: every word that carries the old one is
 *	   void from then on, in flights too
 *	I2 a segment loses its owner by one CAS and nothing else of it changes:
 *	   its entries stay, its birth stays, so it is walked in its turn
 *
 * MEMORY ORDER
 *	W7 the incarnation, seq_cst: pairs with whoever compares it with a
 *	   claim's
 *	W6 as in shm_cache_put.c, for the dead worker.  What it wrote is there:
 *	   the kernel ordered its death before our waitpid(2)
 *
 * A WRITER DIES INSIDE: a sweep that stopped half way is swept again, with
 * another incarnation; every step can be done twice.
 *
 * LIMITS: one CAS a segment and a flight; the sweep of 4,096 of each takes
 * some tens of microseconds.
 */
#include "config.h"

#include "shm/shm_cache_part.h"

void
shm_cache_segment_sweep(struct shm_cache *cache, uint32_t slot)
{
	for (uint32_t i = 0; i < cache->segments_count; i++) {
		uint64_t word = SHM_CACHE_ACQUIRE(cache->word[i]); /* R6 */
		uint32_t state = shm_cache_word_state(word);

		if (shm_cache_word_slot(word) != slot ||
		    (state != SHM_CACHE_ACTIVE && state != SHM_CACHE_EVICT))
			continue;
		SHM_CRASH_POINT("sweep_before_seal");
		(void)atomic_compare_exchange_strong_explicit(&cache->word[i],
		    &word,
		    shm_cache_word(shm_cache_word_gen(word), 0, 0,
			shm_cache_word_queue(word), SHM_CACHE_SEALED),
		    memory_order_acq_rel, memory_order_relaxed); /* W6 */
	}
}

void
shm_cache_sweep(struct shm_cache *cache, uint32_t slot, uint64_t now_us,
    struct shm_cache_debt *debt)
{
	SHM_ASSERT(slot < cache->slots_count);
	SHM_CRASH_POINT("sweep_before");
	atomic_fetch_add(&cache->slot[slot].incarnation, 1); /* W7 */
	SHM_CRASH_POINT("sweep_after_incarnation");
	shm_cache_segment_sweep(cache, slot);
	SHM_CRASH_POINT("sweep_after_segments");
	shm_cache_flight_sweep(cache, slot);
	SHM_CRASH_POINT("sweep_after_flights");
	shm_cache_intent_sweep(cache, slot, now_us, debt);
	SHM_CRASH_POINT("sweep_after");
}

void
shm_cache_settle(struct shm_cache *cache, struct shm_cache_debt *debt)
{
	for (uint32_t i = 0; i < debt->count; i++)
		shm_cache_invalidate(cache, debt->hash[i]);
	if (debt->count > 0)
		shm_cache_lists_changed(cache);
	debt->due_us = 0;
	debt->count = 0;
}
