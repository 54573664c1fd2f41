/*
 * Single flight: of all workers that miss a key, one loads it.
 *
 * LAYOUT: a key's hash chooses one of SHM_CACHE_FLIGHTS places, a place is
 * three independent words:
 *
 *	word     incarnation:20 | slot + 1:8 | deadline:16 | tag:20, or 0: free
 *	waiters  a bit for each slot with somebody who waits for the word
 *	mark     until_ms:42 | kind:2 | tag:20: how the last load of tag ended
 *
 * The tag is made of bits of the hash that do not choose the place.  The
 * deadline counts units of DEADLINE_UNIT_US and wraps; it is never more than
 * DEADLINE_AHEAD units away, and all that seems to be further away has passed.
 *
 * WHO MAY WRITE: word: whoever finds it free, or its owner dead, or late, by
 * CAS from exactly what it saw; its owner, back to 0.  waiters: a waiter sets
 * its own bit, whoever has made the word 0 takes all bits.  mark: an owner.
 *
 * INVARIANTS
 * I1  A living loader's word is not replaced before its deadline: at most one
 *     loader of a key holds a claim.
 * I2  Whoever makes a word 0 takes the waiters' bits after that.  A word that
 *     is stolen keeps its waiters: the thief wakes them.
 * I3  After a sweep no word names a dead incarnation, and all have been woken
 *     whose word was made 0 by a process that died before it could do that.
 *
 * MEMORY ORDER: all seq_cst but for two kinds.
 * W1  waiter: set the bit; R1: then load the word.
 * W2  ender: make the word 0; R2: then take the bits.  W1, R1, W2 and R2 are
 *     seq_cst, so that R1 sees W2 or R2 sees W1: nobody waits for a flight
 *     that has ended without having been seen by who ended it.
 * R3  acquire: an incarnation, pairs with the sweep's increment of it.
 * R4  relaxed: a mark is a hint about one second, in one word.
 *
 * A WRITER DIES INSIDE: before the CAS nothing has happened.  With the claim
 * held, the word names a dead incarnation once the master has reaped it and
 * anybody may steal it; the sweep frees it and wakes the waiters.  Between W2
 * and R2 the word is free and bits are left: the sweep wakes those.  Between
 * R2 and write(2) the bits are gone: waiters look again after
 * SHM_CACHE_WAIT_US, as they do whenever a wake-up is lost.  The sweep only
 * repeats steps that may be repeated.
 *
 * LIMITS: another key with the same place loads without a claim; another key
 * with the same place and tag (1 in 2^32) is taken for the same and only waits
 * for nothing.  A late loader whose process claimed the same key again takes
 * that claim for its own after 2^16 units (36 minutes): it costs a load.
 */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "shm/shm_cache_part.h"

#define TAG_MASK	  0xfffffULL
#define DEADLINE_SHIFT	  20
#define DEADLINE_UNIT_US  32768 /* 16 bits wrap after 36 minutes */
#define DEADLINE_AHEAD	  8192	/* units: 268 s.  Later ones are cut */
#define SLOT_SHIFT	  36
#define INCARNATION_SHIFT 44
#define INCARNATION_MASK  0xfffffU
#define MARK_KIND_SHIFT	  20
#define MARK_UNTIL_SHIFT  22
#define MARK_MS		  1000
#define CLAIM_TRIES_MAX	  4 /* then loaded alone */

_Static_assert((SHM_CACHE_FLIGHTS & (SHM_CACHE_FLIGHTS - 1)) == 0, "a mask");
_Static_assert(SHM_CACHE_SLOTS_MAX < 255, "slot + 1 has 8 bits");
_Static_assert(2 * DEADLINE_AHEAD <= 1 << 16, "compared modulo 2^16");

enum mark_kind {
	MARK_NONE = 0,
	MARK_UNSTORED,
	MARK_FAILED,
};

static uint32_t
place_index(uint64_t hash)
{
	return (uint32_t)(hash >> 20) & (SHM_CACHE_FLIGHTS - 1);
}

static uint64_t
tag_of(uint64_t hash)
{
	return (hash >> 36) & TAG_MASK;
}

/* ---- words */

/* Rounded up: nobody loses a claim before the time it was promised. */
static uint64_t
word_make(const struct shm_cache *cache, uint64_t hash, uint64_t now_us,
    uint64_t deadline_us)
{
	uint64_t now = now_us / DEADLINE_UNIT_US;
	uint64_t deadline =
	    (deadline_us + DEADLINE_UNIT_US - 1) / DEADLINE_UNIT_US;

	if (deadline > now + DEADLINE_AHEAD)
		deadline = now + DEADLINE_AHEAD;
	return (uint64_t)(cache->incarnation & INCARNATION_MASK)
		   << INCARNATION_SHIFT |
	       (uint64_t)(cache->me + 1) << SLOT_SHIFT |
	       (deadline & 0xffff) << DEADLINE_SHIFT | tag_of(hash);
}

/* SHM_CACHE_SLOTS_MAX and above: of no slot at all. */
static uint32_t
word_slot(uint64_t word)
{
	return ((uint32_t)(word >> SLOT_SHIFT) & 0xff) - 1;
}

static bool
word_is_late(uint64_t word, uint64_t now_us)
{
	uint16_t ahead =
	    (uint16_t)((word >> DEADLINE_SHIFT) - now_us / DEADLINE_UNIT_US);

	return ahead == 0 || ahead > DEADLINE_AHEAD;
}

static bool
word_is_of(const struct shm_cache *cache, uint64_t word, uint32_t slot)
{
	/* R3 */
	uint32_t incarnation = SHM_CACHE_ACQUIRE(cache->slot[slot].incarnation);

	return word >> INCARNATION_SHIFT == (incarnation & INCARNATION_MASK);
}

/* Has somebody who lives the claim, and time left? */
static bool
word_is_held(const struct shm_cache *cache, uint64_t word, uint64_t now_us)
{
	uint32_t slot = word_slot(word);

	return slot < SHM_CACHE_SLOTS_MAX && word_is_of(cache, word, slot) &&
	       !word_is_late(word, now_us);
}

/* ---- marks */

static enum mark_kind
mark_get(const struct shm_cache_place *place, uint64_t tag, uint64_t now_us)
{
	uint64_t mark = SHM_CACHE_RELAXED(place->mark); /* R4 */
	uint64_t until_ms = mark >> MARK_UNTIL_SHIFT;
	uint64_t now_ms = now_us / 1000;

	if (mark == 0 || (mark & TAG_MASK) != tag)
		return MARK_NONE;
	if (now_ms >= until_ms || until_ms - now_ms > MARK_MS)
		return MARK_NONE;
	return (enum mark_kind)(mark >> MARK_KIND_SHIFT & 3);
}

static void
mark_set(struct shm_cache_place *place, uint64_t tag, enum mark_kind kind,
    uint64_t now_us)
{
	uint64_t until_ms = now_us / 1000 + MARK_MS;

	atomic_store(&place->mark, until_ms << MARK_UNTIL_SHIFT |
				       (uint64_t)kind << MARK_KIND_SHIFT | tag);
}

/* Only the key's own: the place may have been another's a moment ago. */
static void
mark_clear(struct shm_cache_place *place, uint64_t tag)
{
	uint64_t mark = SHM_CACHE_RELAXED(place->mark); /* R4 */

	if (mark != 0 && (mark & TAG_MASK) == tag)
		atomic_compare_exchange_strong(&place->mark, &mark, 0);
}

/* ---- waking */

static void
wake(const struct shm_cache *cache, struct shm_cache_place *place)
{
	uint64_t bits = atomic_exchange(&place->waiters, 0); /* R2 */
	const uint64_t one = 1;

	SHM_CRASH_POINT("flight_wake_waiters_taken");
	while (bits != 0) {
		int slot = __builtin_ctzll(bits);

		bits &= bits - 1;
		/* EAGAIN: it is readable already.  Anything else costs those
		 * who wait a tick of their timer. */
		if (write(cache->wake_fd[slot], &one, sizeof(one)) == -1)
			continue;
		SHM_CRASH_POINT("flight_wake_one_of_them_woken");
	}
}

/* ---- public */

enum shm_cache_claim
shm_cache_claim(struct shm_cache *cache, const struct shm_cache_key *key,
    uint64_t now_us, uint64_t deadline_us, struct shm_cache_flight *flight)
{
	uint32_t index = place_index(key->hash);
	struct shm_cache_place *place = &cache->place[index];
	uint64_t tag = tag_of(key->hash);
	uint64_t mine, word;

	SHM_ASSERT(cache->me < SHM_CACHE_SLOTS_MAX);
	SHM_ASSERT(deadline_us > now_us);
	*flight = (struct shm_cache_flight){.index = index};
	switch (mark_get(place, tag, now_us)) {
	case MARK_UNSTORED:
		return SHM_CACHE_CLAIM_ALONE;
	case MARK_FAILED:
		return SHM_CACHE_CLAIM_FAILED;
	case MARK_NONE:
		break;
	}
	mine = word_make(cache, key->hash, now_us, deadline_us);
	word = atomic_load(&place->word);
	for (int tries = 0; tries < CLAIM_TRIES_MAX; tries++) {
		if (word != 0 && word_is_held(cache, word, now_us)) {
			if ((word & TAG_MASK) != tag)
				return SHM_CACHE_CLAIM_ALONE;
			flight->seen = word;
			return SHM_CACHE_CLAIM_OTHER;
		}
		SHM_CRASH_POINT("flight_claim_before");
		if (!atomic_compare_exchange_strong(&place->word, &word, mine))
			continue;
		SHM_CRASH_POINT("flight_claim_taken");
		flight->word = mine;
		shm_cache_add(cache, SHM_CACHE_loads, 1);
		if (word != 0)
			shm_cache_add(cache, SHM_CACHE_steals, 1);
		return SHM_CACHE_CLAIM_MINE;
	}
	return SHM_CACHE_CLAIM_ALONE;
}

bool
shm_cache_claim_wait(
    struct shm_cache *cache, const struct shm_cache_flight *flight)
{
	struct shm_cache_place *place = &cache->place[flight->index];

	SHM_ASSERT(cache->me < SHM_CACHE_SLOTS_MAX);
	SHM_ASSERT(flight->index < SHM_CACHE_FLIGHTS);
	SHM_ASSERT(flight->seen != 0);
	atomic_fetch_or(&place->waiters, 1ULL << cache->me); /* W1 */
	SHM_CRASH_POINT("flight_wait_bit_set");
	return atomic_load(&place->word) == flight->seen; /* R1 */
}

bool
shm_cache_claim_is_mine(
    const struct shm_cache *cache, const struct shm_cache_flight *flight)
{
	SHM_ASSERT(flight->index < SHM_CACHE_FLIGHTS);
	return flight->word != 0 &&
	       atomic_load(&cache->place[flight->index].word) == flight->word;
}

/* While a write to the key is under way nothing stored is served: those who
 * wait must not load one after another. */
static bool
is_stored_in_vain(
    const struct shm_cache *cache, const struct shm_cache_key *key)
{
	if (key->cls == SHM_CACHE_LIST)
		return !cache->policy.lists_relaxed &&
		       atomic_load(&cache->head->lists_open) != 0;
	return shm_cache_is_open(cache, key->hash);
}

static void
mark_ended(struct shm_cache *cache, struct shm_cache_place *place,
    const struct shm_cache_key *key, enum shm_cache_ended how, uint64_t now_us)
{
	uint64_t tag = tag_of(key->hash);

	if (how == SHM_CACHE_ENDED_STORED && is_stored_in_vain(cache, key))
		how = SHM_CACHE_ENDED_UNSTORED;
	switch (how) {
	case SHM_CACHE_ENDED_STORED:
	case SHM_CACHE_ENDED_NOTHING:
		mark_clear(place, tag);
		break;
	case SHM_CACHE_ENDED_UNSTORED:
		mark_set(place, tag, MARK_UNSTORED, now_us);
		break;
	case SHM_CACHE_ENDED_FAILED:
		mark_set(place, tag, MARK_FAILED, now_us);
		break;
	}
}

void
shm_cache_claim_end(struct shm_cache *cache, struct shm_cache_flight *flight,
    const struct shm_cache_key *key, enum shm_cache_ended how, uint64_t now_us)
{
	struct shm_cache_place *place = &cache->place[flight->index];
	uint64_t word = flight->word;

	flight->word = 0;
	if (how == SHM_CACHE_ENDED_FAILED)
		shm_cache_add(cache, SHM_CACHE_load_failures, 1);
	if (word == 0)
		return;
	SHM_ASSERT(flight->index == place_index(key->hash));
	/* Stolen: marking and waking are the thief's. */
	if (atomic_load(&place->word) != word)
		return;
	/* Before the word is free, so that who is woken finds the mark. */
	mark_ended(cache, place, key, how, now_us);
	SHM_CRASH_POINT("flight_end_marked");
	if (!atomic_compare_exchange_strong(&place->word, &word, 0)) /* W2 */
		return;
	SHM_CRASH_POINT("flight_end_word_cleared");
	wake(cache, place);
}

int
shm_cache_wake_fd(const struct shm_cache *cache)
{
	SHM_ASSERT(cache->me < SHM_CACHE_SLOTS_MAX);
	return cache->wake_fd[cache->me];
}

/* ---- death, and looking at it */

void
shm_cache_flight_sweep(struct shm_cache *cache, uint32_t slot)
{
	uint64_t bit = 1ULL << slot;

	SHM_ASSERT(slot < SHM_CACHE_SLOTS_MAX);
	for (uint32_t i = 0; i < SHM_CACHE_FLIGHTS; i++) {
		struct shm_cache_place *place = &cache->place[i];
		uint64_t word = atomic_load(&place->word);

		if (word != 0 && word_slot(word) == slot &&
		    !word_is_of(cache, word, slot) &&
		    atomic_compare_exchange_strong(&place->word, &word, 0)) {
			SHM_CRASH_POINT("flight_sweep_word_cleared");
			word = 0;
		}
		if ((atomic_load(&place->waiters) & bit) != 0)
			atomic_fetch_and(&place->waiters, ~bit);
		/* Also where it died between its own W2 and R2. */
		if (word == 0 && atomic_load(&place->waiters) != 0)
			wake(cache, place);
	}
}

uint32_t
shm_cache_flight_count(const struct shm_cache *cache)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < SHM_CACHE_FLIGHTS; i++)
		count += SHM_CACHE_RELAXED(cache->place[i].word) != 0; /* R4 */
	return count;
}

/* Whoever audits also sweeps, so that no word may be a dead one's. */
uint32_t
shm_cache_flight_audit(
    const struct shm_cache *cache, bool quiet, char *why, size_t why_bytes)
{
	uint32_t slots = cache->slots_count;
	uint32_t breaches = 0;

	/* Nothing more holds when all is quiet: a bit may be left at a free
	 * word by who saw at R1 that it need not wait. */
	(void)quiet;
	for (uint32_t i = 0; i < SHM_CACHE_FLIGHTS; i++) {
		const struct shm_cache_place *place = &cache->place[i];
		uint64_t word = atomic_load(&place->word);
		uint32_t slot = word_slot(word);
		uint64_t waiters = atomic_load(&place->waiters);
		const char *what = NULL;

		if (word != 0 && slot >= slots)
			what = "is claimed by no slot";
		else if (word != 0 && !word_is_of(cache, word, slot))
			what = "is claimed by a dead process";
		else if (slots < 64 && waiters >> slots != 0)
			what = "is waited for by no slot";
		if (what != NULL && breaches++ == 0 && why_bytes > 0)
			snprintf(why, why_bytes,
			    "flight %" PRIu32 " %s: word %016" PRIx64
			    ", waiters %016" PRIx64,
			    i, what, word, waiters);
	}
	return breaches;
}
