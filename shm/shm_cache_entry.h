/*
 * An entry of the book cache: how it lies in a segment, how it is read while
 * others may be overwriting it, and when it may be served.  Inline, because
 * every get goes through all of it.
 *
 * MEMORY ORDER: R1, R3 and R4 are told at the top of shm_cache_get.c.
 */
#ifndef SHM_CACHE_ENTRY_H
#define SHM_CACHE_ENTRY_H

#include <string.h>

#include "shm/shm_cache_part.h"

/*
 * AN ENTRY, in 64-bit words, on a border of 8 bytes:
 *
 *	0	hash
 *	1	version:32 | key_bytes:12 | value_bytes:20
 *	2	taken_us:48 | cls:4 | status:12
 *	3	fresh_ms:32 | modified_s:32
 *	4	generation of its class, hard:32 | soft:32
 *	5	id
 *	6	row_version:32 | suspect:20 | head_bytes:12
 *	7...	key, padded to a word; value, padded to a word
 *
 * A value of SHM_CACHE_ALIGNED_MIN bytes or more begins on a cache line: it is
 * copied a fifth faster, and the gap is nothing beside it.
 */
/* Not left to the compiler's judgement: measured, see docs/PERFORMANCE.md. */
#define SHM_CACHE_INLINE static inline __attribute__((always_inline))

#define SHM_CACHE_ENTRY_BYTES (SHM_CACHE_ENTRY_WORDS * 8)
#define SHM_CACHE_ALIGNED_MIN 4096u
#define SHM_CACHE_HEAD_MAX    4095u /* of head_bytes:12 */

#define SHM_CACHE_SUSPECT_MASK 0xfffffu
#define SHM_CACHE_TAKEN_MASK   (((uint64_t)1 << 48) - 1)

/* Where an entry is. */
struct shm_cache_spot {
	_Atomic uint64_t *words;
	uint64_t segment_word; /* as it was when the spot was found */
	uint32_t segment;
	uint32_t offset; /* in the segment, bytes */
};

static inline uint32_t
shm_cache_key_room(uint32_t klen)
{
	return (klen + 7) & ~7u;
}

/* Where in an entry at offset (in its segment, or of all: segments begin on
 * lines) its value begins. */
static inline uint32_t
shm_cache_value_start(uint64_t offset, uint32_t klen, uint32_t vlen)
{
	uint32_t start = SHM_CACHE_ENTRY_BYTES + shm_cache_key_room(klen);

	if (vlen < SHM_CACHE_ALIGNED_MIN)
		return start;
	return start + (-((uint32_t)offset + start) & (SHM_CACHE_LINE - 1));
}

/* All that an entry takes at offset in its segment, and wherever it may be. */
static inline uint32_t
shm_cache_entry_bytes(uint32_t offset, uint32_t klen, uint32_t vlen)
{
	return (shm_cache_value_start(offset, klen, vlen) + vlen +
		   SHM_CACHE_UNIT - 1) &
	       ~(SHM_CACHE_UNIT - 1u);
}

static inline uint32_t
shm_cache_entry_bytes_max(uint32_t klen, uint32_t vlen)
{
	uint32_t gap = vlen < SHM_CACHE_ALIGNED_MIN ? 0 : SHM_CACHE_LINE;

	return shm_cache_entry_bytes(0, klen, 0) + gap + vlen + SHM_CACHE_UNIT -
	       1;
}

/* The state of the world, before anything else is read. */
SHM_CACHE_INLINE void
shm_cache_lease_fill(const struct shm_cache *cache,
    const _Atomic uint32_t *version, uint64_t now_us,
    struct shm_cache_lease *lease)
{
	const struct shm_cache_head *head = cache->head;

	lease->version = SHM_CACHE_ACQUIRE(*version); /* R1 */
#pragma GCC unroll 3
	for (uint32_t i = 0; i < SHM_CACHE_CLASSES; i++)
		lease->generation[i] =
		    SHM_CACHE_ACQUIRE(head->generation[i]); /* R1 */
	lease->suspect = SHM_CACHE_ACQUIRE(head->suspect);  /* R1 */
	lease->taken_us = now_us;
}

static inline void
shm_cache_lease_take(const struct shm_cache *cache, uint64_t hash,
    uint64_t now_us, struct shm_cache_lease *lease)
{
	shm_cache_lease_fill(
	    cache, shm_cache_version_of(cache, hash), now_us, lease);
}

/* False: index names no place that is valid now. */
SHM_CACHE_INLINE bool
shm_cache_spot_find(
    const struct shm_cache *cache, uint64_t index, struct shm_cache_spot *spot)
{
	uint64_t offset = shm_cache_index_offset(index);

	if (offset >= cache->data_bytes)
		return false;
	spot->segment = (uint32_t)(offset >> cache->segment_shift);
	spot->offset = (uint32_t)(offset & (cache->segment_bytes - 1));
	spot->words = &cache->data[offset / 8];
	spot->segment_word =
	    SHM_CACHE_ACQUIRE(cache->word[spot->segment]); /* R3 */
	return ((shm_cache_word_gen(spot->segment_word) ^
		    shm_cache_index_gen(index)) &
		   SHM_CACHE_GEN_MASK) == 0;
}

/* Its words; nothing of them is checked. */
SHM_CACHE_INLINE void
shm_cache_entry_words(
    const struct shm_cache_spot *spot, struct shm_cache_view *entry)
{
#ifdef SHM_MAP_IS_X86
	/* Two at a time, each as good as relaxed: see shm_map.c. */
	shm_map_read(entry->word, spot->words, 0, SHM_CACHE_ENTRY_BYTES);
#else
	for (uint32_t i = 0; i < SHM_CACHE_ENTRY_WORDS; i++)
		entry->word[i] = SHM_CACHE_RELAXED(spot->words[i]);
#endif
}

/* False: what is there is no entry (or is being overwritten). */
static inline bool
shm_cache_entry_load(const struct shm_cache *cache,
    const struct shm_cache_spot *spot, struct shm_cache_view *entry)
{
	if (cache->segment_bytes - spot->offset < SHM_CACHE_ENTRY_BYTES)
		return false;
	shm_cache_entry_words(spot, entry);
	return entry->cls < SHM_CACHE_CLASSES && entry->key_bytes > 0 &&
	       entry->key_bytes <= SHM_CACHE_KEY_MAX &&
	       entry->head_bytes <= entry->value_bytes &&
	       shm_cache_entry_bytes(spot->offset, entry->key_bytes,
		   entry->value_bytes) <= cache->segment_bytes - spot->offset;
}

/* Is what was read since the spot was found what was there then? */
SHM_CACHE_INLINE bool
shm_cache_spot_held(
    const struct shm_cache *cache, const struct shm_cache_spot *spot)
{
	uint64_t word;

	shm_map_fence(memory_order_acquire); /* R4 */
	word = SHM_CACHE_RELAXED(cache->word[spot->segment]);
	return shm_cache_word_gen(word) ==
	       shm_cache_word_gen(spot->segment_word);
}

/* A key of less than a word as it lies in its only word, the rest zero. */
__attribute__((noinline, unused)) static uint64_t
shm_cache_key_short(const char *data, uint32_t len)
{
	uint64_t word = 0;

	memcpy(&word, data, len);
	return word;
}

/* Is this the key in the entry?  There must be room for it. */
SHM_CACHE_INLINE bool
shm_cache_spot_has_key(
    const struct shm_cache_spot *spot, const struct shm_cache_key *key)
{
	const _Atomic uint64_t *word = spot->words + SHM_CACHE_ENTRY_WORDS;
	const char *data = key->data, *last;
	uint64_t want;

	if (__builtin_expect(key->len < 8, 0))
		return SHM_CACHE_RELAXED(*word) ==
		       shm_cache_key_short(key->data, key->len);
	for (last = data + key->len - 8; data < last; data += 8) {
		memcpy(&want, data, 8);
		if (SHM_CACHE_RELAXED(*word++) != want)
			return false;
	}
	/* The rest in one load, and out with what is before it. */
	memcpy(&want, last, 8);
	return SHM_CACHE_RELAXED(*word) == want >> (-key->len % 8 * 8);
}

static inline bool
shm_cache_entry_is_of(const struct shm_cache_spot *spot,
    const struct shm_cache_view *entry, const struct shm_cache_key *key)
{
	return entry->hash == key->hash && entry->key_bytes == key->len &&
	       shm_cache_spot_has_key(spot, key);
}

/* By its age alone.  What was taken in the future is young: the clock is the
 * same for all, but who called us looked at it a moment ago. */
static inline enum shm_cache_found
shm_cache_entry_judge_age(const struct shm_cache *cache,
    const struct shm_cache_view *entry, uint64_t now_us)
{
	const struct shm_cache_policy *policy = &cache->policy;
	uint64_t fresh_us = (uint64_t)entry->fresh_ms * 1000;
	uint64_t age_us =
	    now_us > entry->taken_us ? now_us - entry->taken_us : 0;

	if (age_us <= fresh_us)
		return SHM_CACHE_HIT;
	age_us -= fresh_us;
	if (age_us <= policy->stale_us)
		return SHM_CACHE_STALE;
	if (age_us - policy->stale_us <= policy->error_us)
		return SHM_CACHE_ERROR_ONLY;
	return SHM_CACHE_MISS;
}

/* How may entry be served in the world that lease describes? */
static inline enum shm_cache_found
shm_cache_entry_judge(const struct shm_cache *cache,
    const struct shm_cache_view *entry, const struct shm_cache_lease *lease,
    uint64_t now_us)
{
	uint64_t changed = entry->generation ^ lease->generation[entry->cls];
	enum shm_cache_found found;

	if (entry->version != lease->version || changed >> 32 != 0)
		return SHM_CACHE_MISS;
	found = shm_cache_entry_judge_age(cache, entry, now_us);
	if (changed != 0 && found < SHM_CACHE_STALE)
		found = SHM_CACHE_STALE;
	if (((entry->suspect ^ lease->suspect) & SHM_CACHE_SUSPECT_MASK) != 0 &&
	    found < SHM_CACHE_ERROR_ONLY)
		found = SHM_CACHE_ERROR_ONLY;
	return found;
}

/* Is it certainly a HIT, for which nothing has changed?  What usually is true,
 * in few instructions; false says nothing. */
SHM_CACHE_INLINE bool
shm_cache_entry_is_fresh(
    const struct shm_cache_view *entry, const struct shm_cache_lease *lease)
{
	return entry->version == lease->version &&
	       entry->generation == lease->generation[entry->cls] &&
	       ((entry->suspect ^ lease->suspect) & SHM_CACHE_SUSPECT_MASK) ==
		   0 &&
	       lease->taken_us - entry->taken_us <=
		   (uint64_t)entry->fresh_ms * 1000;
}

#endif
