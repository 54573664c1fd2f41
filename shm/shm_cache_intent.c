/*
 * Writes under way: what keeps the cache silent about a key from before its
 * statement is sent until the outcome is known and old entries are void.
 *
 * LAYOUT
 *
 *	intents[slot][SHM_CACHE_INTENTS_MAX]  hash[2] | due_us | state
 *	open[SHM_CACHE_OPEN_WORDS]            a bit for each slot
 *	head->lists_open                      a bit for each slot
 *
 * intents tells the master what a dead worker had begun; open is what readers
 * look at: word (hash >> 32) % SHM_CACHE_OPEN_WORDS of a key is 0, or some
 * worker writes to it or to a key with the same word.
 *
 * WHO MAY WRITE: a slot's intents, and its bit of each word, the worker in the
 * slot alone; the master once that is dead.
 *
 * INVARIANTS
 * I1  While a statement may be under way, its intent is OPEN and the slot's
 *     bit is set in the words of its keys and in lists_open.
 * I2  A bit is cleared only after the versions have moved: who sees it cleared
 *     sees the new versions.
 * I3  An intent that was OPEN or LINGERING when its worker died has its keys
 *     invalidated once at the sweep, and once more when the debt is due.
 *
 * MEMORY ORDER: seq_cst but where said.
 * W1  seq_cst: set the bit, before the statement is sent; clear it, after the
 *     version's increment.  Pairs with R1 of shm_cache_get(): the word is
 *     loaded (acquire) before the version.
 * W2  release: a state, after the words of the intent that it speaks of.
 * R2  acquire: a state, read by the master.
 * R3  relaxed: what this process wrote itself, or the master after the death
 *     of its only writer.
 *
 * A WRITER DIES INSIDE: open: before W2 the place is FREE, nothing was sent;
 * after it the sweep invalidates in vain.  close: until FREE the sweep
 * invalidates again.  unknown: the same, whether the state says OPEN still or
 * LINGERING already.  Bits are cleared by the sweep whatever the states say.
 * Stripes that moved twice cost a load each.
 *
 * LIMITS: SHM_CACHE_INTENTS_MAX OPEN and LINGERING ones per worker, then 503.
 * A collision in open[] costs loads while the other key is written.
 */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>

#include "shm/shm_cache_part.h"

static struct shm_cache_intent *
intents_of(const struct shm_cache *cache, uint32_t slot)
{
	return &cache->intent[(size_t)slot * SHM_CACHE_INTENTS_MAX];
}

static uint32_t
open_index(uint64_t hash)
{
	return (uint32_t)((hash >> 32) % SHM_CACHE_OPEN_WORDS);
}

/* How many keys: one is stored twice. */
static uint32_t
intent_keys(const struct shm_cache_intent *intent, uint64_t hash[2])
{
	hash[0] = SHM_CACHE_RELAXED(intent->hash[0]); /* R3 */
	hash[1] = SHM_CACHE_RELAXED(intent->hash[1]); /* R3 */
	return hash[0] == hash[1] ? 1 : 2;
}

static uint64_t
intent_state(const struct shm_cache_intent *intent)
{
	return SHM_CACHE_ACQUIRE(intent->state); /* R2 */
}

static void
intent_move(struct shm_cache_intent *intent, enum shm_cache_intent_state state)
{
	/* W2 */
	atomic_store_explicit(&intent->state, state, memory_order_release);
}

/* Each stripe once, and the lists. */
static void
invalidate(struct shm_cache *cache, const struct shm_cache_intent *intent)
{
	uint64_t hash[2];
	uint32_t count = intent_keys(intent, hash);

	shm_cache_invalidate(cache, hash[0]);
	SHM_CRASH_POINT("intent_one_stripe_invalidated");
	if (count == 2 && shm_cache_version_of(cache, hash[0]) !=
			      shm_cache_version_of(cache, hash[1]))
		shm_cache_invalidate(cache, hash[1]);
	SHM_CRASH_POINT("intent_stripes_invalidated");
	shm_cache_lists_changed(cache);
	SHM_CRASH_POINT("intent_lists_invalidated");
}

/* ---- the bits: set while any open intent of this process needs them */

static void
bit_set(struct shm_cache *cache, uint64_t hash)
{
	uint32_t i = open_index(hash);

	if (cache->intents_at[i]++ == 0)
		atomic_fetch_or(&cache->open[i], 1ULL << cache->me); /* W1 */
}

static void
bit_clear(struct shm_cache *cache, uint64_t hash)
{
	uint32_t i = open_index(hash);

	SHM_ASSERT(cache->intents_at[i] > 0);
	if (--cache->intents_at[i] == 0)
		atomic_fetch_and(&cache->open[i], ~(1ULL << cache->me));
}

static void
bits_set(struct shm_cache *cache, const uint64_t *hash, uint32_t count)
{
	bit_set(cache, hash[0]);
	SHM_CRASH_POINT("intent_open_one_bit_set");
	if (count == 2)
		bit_set(cache, hash[1]);
	if (cache->intents_open++ == 0)
		atomic_fetch_or(
		    &cache->head->lists_open, 1ULL << cache->me); /* W1 */
	SHM_CRASH_POINT("intent_open_bits_set");
}

static void
bits_clear(struct shm_cache *cache, const uint64_t *hash, uint32_t count)
{
	SHM_ASSERT(cache->intents_open > 0);
	bit_clear(cache, hash[0]);
	SHM_CRASH_POINT("intent_end_one_bit_cleared");
	if (count == 2)
		bit_clear(cache, hash[1]);
	if (--cache->intents_open == 0)
		atomic_fetch_and(
		    &cache->head->lists_open, ~(1ULL << cache->me));
	SHM_CRASH_POINT("intent_end_bits_cleared");
}

/* ---- public */

static int
free_intent(struct shm_cache *cache)
{
	const struct shm_cache_intent *intent = intents_of(cache, cache->me);
	uint32_t at = cache->intent_next % SHM_CACHE_INTENTS_MAX;

	for (uint32_t i = 0; i < SHM_CACHE_INTENTS_MAX; i++) {
		if (intent_state(&intent[at]) == SHM_CACHE_INTENT_FREE) {
			cache->intent_next = at + 1;
			return (int)at;
		}
		at = (at + 1) % SHM_CACHE_INTENTS_MAX;
	}
	return -1;
}

int
shm_cache_intent_open(
    struct shm_cache *cache, const uint64_t *hashes, uint32_t count)
{
	struct shm_cache_intent *intent;
	uint64_t hash[2];
	int at;

	SHM_ASSERT(cache->me < SHM_CACHE_SLOTS_MAX);
	SHM_ASSERT(count == 1 || count == 2);
	at = free_intent(cache);
	if (at == -1)
		return -1;
	intent = &intents_of(cache, cache->me)[at];
	hash[0] = hashes[0];
	hash[1] = hashes[count - 1];
	for (int i = 0; i < 2; i++)
		atomic_store_explicit(
		    &intent->hash[i], hash[i], memory_order_relaxed); /* W2 */
	atomic_store_explicit(
	    &intent->due_us, UINT64_MAX, memory_order_relaxed); /* W2 */
	SHM_CRASH_POINT("intent_open_keys_noted");
	intent_move(intent, SHM_CACHE_INTENT_OPEN);
	SHM_CRASH_POINT("intent_open_state");
	bits_set(cache, hash, intent_keys(intent, hash));
	return at;
}

static struct shm_cache_intent *
intent_at(const struct shm_cache *cache, int at)
{
	struct shm_cache_intent *intent;

	SHM_ASSERT(cache->me < SHM_CACHE_SLOTS_MAX);
	SHM_ASSERT(at >= 0 && at < SHM_CACHE_INTENTS_MAX);
	intent = &intents_of(cache, cache->me)[at];
	SHM_ASSERT(intent_state(intent) == SHM_CACHE_INTENT_OPEN);
	return intent;
}

void
shm_cache_intent_close(struct shm_cache *cache, int at)
{
	struct shm_cache_intent *intent = intent_at(cache, at);
	uint64_t hash[2];
	uint32_t count = intent_keys(intent, hash);

	invalidate(cache, intent);
	intent_move(intent, SHM_CACHE_INTENT_FREE);
	SHM_CRASH_POINT("intent_close_state");
	bits_clear(cache, hash, count);
}

void
shm_cache_intent_unknown(struct shm_cache *cache, int at, uint64_t now_us)
{
	struct shm_cache_intent *intent = intent_at(cache, at);
	uint64_t hash[2];
	uint32_t count = intent_keys(intent, hash);

	invalidate(cache, intent);
	atomic_store_explicit(&intent->due_us, now_us + cache->policy.linger_us,
	    memory_order_relaxed); /* W2 */
	SHM_CRASH_POINT("intent_unknown_due");
	intent_move(intent, SHM_CACHE_INTENT_LINGERING);
	SHM_CRASH_POINT("intent_unknown_state");
	cache->intents_lingering++;
	bits_clear(cache, hash, count);
}

uint64_t
shm_cache_intent_tick(struct shm_cache *cache, uint64_t now_us)
{
	uint64_t next_us = UINT64_MAX;
	struct shm_cache_intent *intent;

	if (cache->intents_lingering == 0)
		return UINT64_MAX;
	SHM_ASSERT(cache->me < SHM_CACHE_SLOTS_MAX);
	intent = intents_of(cache, cache->me);
	for (uint32_t i = 0; i < SHM_CACHE_INTENTS_MAX; i++) {
		uint64_t due_us;

		if (intent_state(&intent[i]) != SHM_CACHE_INTENT_LINGERING)
			continue;
		due_us = SHM_CACHE_RELAXED(intent[i].due_us); /* R3 */
		if (due_us > now_us) {
			if (due_us - now_us < next_us)
				next_us = due_us - now_us;
			continue;
		}
		invalidate(cache, &intent[i]);
		intent_move(&intent[i], SHM_CACHE_INTENT_FREE);
		cache->intents_lingering--;
	}
	return next_us;
}

/* ---- death, and looking at it */

static void
debt_add(struct shm_cache_debt *debt, const struct shm_cache_intent *intent)
{
	uint64_t hash[2];
	uint32_t count = intent_keys(intent, hash);

	SHM_ASSERT(debt->count + count <= SHM_ARRAY_LEN(debt->hash));
	for (uint32_t i = 0; i < count; i++)
		debt->hash[debt->count++] = hash[i];
}

/* All places are noted in *debt before the first is freed: a sweep that is
 * repeated because it did not come that far finds them all again. */
void
shm_cache_intent_sweep(struct shm_cache *cache, uint32_t slot, uint64_t now_us,
    struct shm_cache_debt *debt)
{
	struct shm_cache_intent *intent = intents_of(cache, slot);
	uint64_t others = ~(1ULL << slot);

	SHM_ASSERT(slot < SHM_CACHE_SLOTS_MAX);
	debt->due_us = 0;
	debt->count = 0;
	for (uint32_t i = 0; i < SHM_CACHE_INTENTS_MAX; i++) {
		if (intent_state(&intent[i]) == SHM_CACHE_INTENT_FREE)
			continue;
		invalidate(cache, &intent[i]);
		debt_add(debt, &intent[i]);
		debt->due_us = now_us + cache->policy.linger_us;
	}
	SHM_CRASH_POINT("intent_sweep_noted");
	for (uint32_t i = 0; i < SHM_CACHE_INTENTS_MAX; i++)
		intent_move(&intent[i], SHM_CACHE_INTENT_FREE);
	SHM_CRASH_POINT("intent_sweep_freed");
	for (uint32_t i = 0; i < SHM_CACHE_OPEN_WORDS; i++)
		if ((atomic_load(&cache->open[i]) & ~others) != 0)
			atomic_fetch_and(&cache->open[i], others);
	atomic_fetch_and(&cache->head->lists_open, others);
}

uint32_t
shm_cache_intent_count(const struct shm_cache *cache)
{
	uint32_t slots = cache->slots_count;
	uint32_t count = 0;

	for (uint32_t i = 0; i < slots * SHM_CACHE_INTENTS_MAX; i++)
		count +=
		    intent_state(&cache->intent[i]) == SHM_CACHE_INTENT_OPEN;
	return count;
}

static uint32_t
breach(uint32_t breaches, char *why, size_t why_bytes, const char *what,
    uint32_t where)
{
	if (breaches == 0 && why_bytes > 0)
		snprintf(why, why_bytes, "%s %" PRIu32, what, where);
	return breaches + 1;
}

/* What open[] and lists_open would be by what the intents say.  False: a
 * state is none. */
static bool
expected_bits(const struct shm_cache *cache, uint32_t slot, uint64_t *open,
    uint64_t *lists)
{
	const struct shm_cache_intent *intent = intents_of(cache, slot);
	bool is_good = true;

	for (uint32_t i = 0; i < SHM_CACHE_INTENTS_MAX; i++) {
		uint64_t state = intent_state(&intent[i]);
		uint64_t hash[2];

		if (state > SHM_CACHE_INTENT_LINGERING)
			is_good = false;
		if (state != SHM_CACHE_INTENT_OPEN)
			continue;
		intent_keys(&intent[i], hash);
		open[open_index(hash[0])] |= 1ULL << slot;
		open[open_index(hash[1])] |= 1ULL << slot;
		*lists |= 1ULL << slot;
	}
	return is_good;
}

uint32_t
shm_cache_intent_audit(
    const struct shm_cache *cache, bool quiet, char *why, size_t why_bytes)
{
	uint64_t open[SHM_CACHE_OPEN_WORDS] = {0};
	uint32_t slots = cache->slots_count;
	uint64_t nobody = slots < 64 ? ~0ULL << slots : 0;
	uint64_t lists = 0;
	uint32_t n = 0;

	for (uint32_t slot = 0; slot < slots; slot++)
		if (!expected_bits(cache, slot, open, &lists))
			n = breach(n, why, why_bytes,
			    "an intent has no known state, of slot", slot);
	for (uint32_t i = 0; i < SHM_CACHE_OPEN_WORDS; i++) {
		uint64_t bits = atomic_load(&cache->open[i]);

		if ((bits & nobody) != 0)
			n = breach(n, why, why_bytes,
			    "no slot has this word open: word", i);
		else if (quiet && bits != open[i])
			n = breach(n, why, why_bytes,
			    "intents and bits disagree, in word", i);
	}
	if (quiet && atomic_load(&cache->head->lists_open) != lists)
		n = breach(n, why, why_bytes,
		    "intents and lists_open disagree, slots:", slots);
	return n;
}
