/*
 * Reading the book cache.
 *
 * LAYOUT: a bucket holds six index words and the versions of its four stripes,
 * in one cache line.  An index word is a hint: it names a place in a segment.
 * The entry in that place is the truth: it carries the whole key and the state
 * of the world in which it was loaded (its lease).
 *
 * WHO MAY WRITE: a reader writes one thing, the frequency in an index word, by
 * a CAS that may fail; never anything in a segment.  Keys that are hot have
 * the highest frequency already, and their reads write nothing at all.
 *
 * INVARIANTS
 *	I1 when a segment's gen moves, no index word names the old one
 *	I2 bytes of a segment below its used do not change until its gen moves
 *	I3 every number that is read from the mapping is checked before it
 *	   becomes part of an address; whatever the mapping holds, a read
 *	   stays inside it
 *
 * MEMORY ORDER
 *	R1 open intents, then versions and generations, acquire and before all
 *	   else: pairs with W1 of shm_cache.c and shm_cache_intent.c (which
 *	   bump, then close)
 *	R2 the acquire fence after an index word: pairs with W2, the put's
 *	   release CAS, so that the entry's words are there
 *	R3 the acquire load of the segment's word before the entry is read, and
 *	R4 the acquire fence after the last byte was read, before the segment's
 *	   word is loaded again: pairs with W4, the release fence of who makes a
 *	   segment reusable.  Whoever saw a byte of its next life sees its
 *	   next gen, and throws away what it read.
 *
 * A WRITER DIES INSIDE: a put becomes visible by one CAS of an index word;
 * before that nothing names what it wrote.  A reader that dies leaves nothing.
 *
 * LIMITS: at most GET_TRIES rounds over at most six ways; then it is a miss.
 */
#include "config.h"

#ifdef __x86_64__
#include <emmintrin.h>
#endif

#include "shm/shm_cache_entry.h"

#define GET_TRIES 4
/* Of an entry: one of the mean size is there when it is copied, which halves
 * what a read out of many keys waits for. */
#define PREFETCH_BYTES 512

void
shm_cache_prefetch_bucket(const struct shm_cache *cache, uint64_t hash)
{
	__builtin_prefetch(shm_cache_bucket_of(cache, hash));
}

void
shm_cache_prefetch_entry(const struct shm_cache *cache, uint64_t hash)
{
	const struct shm_cache_bucket *bucket =
	    shm_cache_bucket_of(cache, hash);
	uint32_t tag = shm_cache_tag_of(hash);

	for (uint32_t i = 0; i < SHM_CACHE_WAYS; i++) {
		uint64_t index = SHM_CACHE_RELAXED(bucket->way[i]);
		uint64_t offset = shm_cache_index_offset(index);

		if (shm_cache_index_tag(index) != tag ||
		    offset >= cache->data_bytes)
			continue;
		for (uint32_t at = 0; at < PREFETCH_BYTES; at += SHM_CACHE_LINE)
			__builtin_prefetch(&cache->data[(offset + at) / 8]);
		__builtin_prefetch(
		    &cache->word[offset >> cache->segment_shift]);
	}
}

/* A NEGATIVE entry answers for a BOOK. */
static inline bool
view_suits(const struct shm_cache_view *view, uint32_t cls)
{
	return view->cls == cls ||
	       (view->cls == SHM_CACHE_NEGATIVE && cls == SHM_CACHE_BOOK);
}

/*
 * Load what is the entry of key, if it is.  The view is filled before anything
 * is known to be true, so that nothing need be kept until it is: it means
 * nothing unless this returns true.
 */
SHM_CACHE_INLINE bool
view_load(const struct shm_cache *cache, const struct shm_cache_spot *spot,
    const struct shm_cache_key *key, struct shm_cache_view *view)
{
	uint32_t room = (uint32_t)cache->segment_bytes - spot->offset;
	uint32_t start = SHM_CACHE_ENTRY_BYTES + shm_cache_key_room(key->len);

	if (room < start || SHM_CACHE_RELAXED(spot->words[0]) != key->hash ||
	    !shm_cache_spot_has_key(spot, key))
		return false;
	shm_cache_entry_words(spot, view);
	view->segment_word = spot->segment_word;
	view->offset = (uint64_t)((char *)spot->words - (char *)cache->data);
	if (view->key_bytes != key->len ||
	    view->head_bytes > view->value_bytes || !view_suits(view, key->cls))
		return false;
	if (view->value_bytes >= SHM_CACHE_ALIGNED_MIN)
		start = shm_cache_value_start(
		    spot->offset, key->len, view->value_bytes);
	return start + view->value_bytes <= room;
}

/*
 * It was used: one try, for a lost count is a lost count.  Out of the way, for
 * what is hot has been used often enough.
 */
__attribute__((noinline)) static void
index_touch(struct shm_cache *cache, uint64_t hash, uint64_t index)
{
	struct shm_cache_bucket *bucket = shm_cache_bucket_of(cache, hash);

	for (uint32_t i = 0; i < SHM_CACHE_WAYS; i++) {
		uint64_t seen = index;

		if (SHM_CACHE_RELAXED(bucket->way[i]) == seen)
			(void)atomic_compare_exchange_strong_explicit(
			    &bucket->way[i], &seen, index + SHM_CACHE_FREQ_ONE,
			    memory_order_relaxed, memory_order_relaxed);
	}
}

/* What looking came to: an enum shm_cache_found, or that something went away
 * under our eyes.  One number, so that none of it lives in memory. */
#define LOOKED_MOVED (SHM_CACHE_MISS + 1u)

/*
 * The ways with this tag, a bit each: without branches, for which way it is
 * cannot be predicted.  Only a filter: each way is loaded again, properly, so
 * that a vector load may do.
 */
#ifdef SHM_MAP_IS_X86
#define BUCKET_TAG_SHIFT 14
SHM_CACHE_INLINE uint32_t
bucket_match(const struct shm_cache_bucket *bucket, uint32_t tag)
{
	const __m128i *ways = (const __m128i *)(const void *)bucket->way;
	/* Tags are the low bits: shifted up, nothing else is left. */
	__m128i want = _mm_set1_epi32((int)(tag << BUCKET_TAG_SHIFT));
	__m128 one = _mm_castsi128_ps(_mm_load_si128(&ways[0]));
	__m128 two = _mm_castsi128_ps(_mm_load_si128(&ways[1]));
	__m128 three = _mm_castsi128_ps(_mm_load_si128(&ways[2]));
	/* The low halves of four words, and of two, twice. */
	__m128i low =
	    _mm_castps_si128(_mm_shuffle_ps(one, two, _MM_SHUFFLE(2, 0, 2, 0)));
	__m128i rest = _mm_castps_si128(
	    _mm_shuffle_ps(three, three, _MM_SHUFFLE(2, 0, 2, 0)));

	low = _mm_cmpeq_epi32(_mm_slli_epi32(low, BUCKET_TAG_SHIFT), want);
	rest = _mm_cmpeq_epi32(_mm_slli_epi32(rest, BUCKET_TAG_SHIFT), want);
	return ((uint32_t)_mm_movemask_ps(_mm_castsi128_ps(low)) |
		   (uint32_t)_mm_movemask_ps(_mm_castsi128_ps(rest)) << 4) &
	       ((1u << SHM_CACHE_WAYS) - 1);
}
_Static_assert(SHM_CACHE_WAYS == 6, "three vectors of two");
_Static_assert(
    SHM_CACHE_TAG_MASK == UINT32_MAX >> BUCKET_TAG_SHIFT, "the tag's bits");
#else
SHM_CACHE_INLINE uint32_t
bucket_match(const struct shm_cache_bucket *bucket, uint32_t tag)
{
	uint32_t ways = 0;

	for (uint32_t i = 0; i < SHM_CACHE_WAYS; i++)
		ways |= (uint32_t)(shm_cache_index_tag(SHM_CACHE_RELAXED(
				       bucket->way[i])) == tag)
			<< i;
	return ways;
}
#endif

__attribute__((noinline)) static uint32_t
view_judge(const struct shm_cache *cache, const struct shm_cache_view *view,
    const struct shm_cache_lease *lease)
{
	return shm_cache_entry_judge(cache, view, lease, lease->taken_us);
}

/* One way whose tag fits.  *view means nothing unless it may be served. */
SHM_CACHE_INLINE uint32_t
way_look(struct shm_cache *cache, const struct shm_cache_key *key,
    const struct shm_cache_lease *lease, const _Atomic uint64_t *way,
    struct shm_cache_view *view)
{
	uint64_t index = SHM_CACHE_RELAXED(*way);
	uint32_t found = SHM_CACHE_HIT;
	struct shm_cache_spot spot;

	shm_map_fence(memory_order_acquire); /* R2 */
	if (!shm_cache_spot_find(cache, index, &spot))
		return index == 0 ? SHM_CACHE_MISS : LOOKED_MOVED;
	if (!view_load(cache, &spot, key, view))
		return shm_cache_spot_held(cache, &spot) ? SHM_CACHE_MISS
							 : LOOKED_MOVED;
	if (!shm_cache_spot_held(cache, &spot))
		return LOOKED_MOVED;
	if (!shm_cache_entry_is_fresh(view, lease))
		found = view_judge(cache, view, lease);
	if (shm_cache_index_freq(index) < SHM_CACHE_FREQ_MAX &&
	    found != SHM_CACHE_MISS)
		index_touch(cache, key->hash, index);
	return found;
}

/* Several ways have the tag: of those that have the key, the newest row. */
__attribute__((noinline)) static uint32_t
ways_look(struct shm_cache *cache, const struct shm_cache_key *key,
    const struct shm_cache_lease *lease, uint32_t ways,
    struct shm_cache_view *view)
{
	struct shm_cache_bucket *bucket = shm_cache_bucket_of(cache, key->hash);
	uint32_t found = SHM_CACHE_MISS, judged;
	struct shm_cache_view other;

	for (; ways != 0; ways &= ways - 1) {
		judged = way_look(cache, key, lease,
		    &bucket->way[(uint32_t)__builtin_ctz(ways)], &other);
		if (judged == LOOKED_MOVED)
			return LOOKED_MOVED;
		if (judged == SHM_CACHE_MISS ||
		    (found != SHM_CACHE_MISS &&
			other.row_version <= view->row_version))
			continue;
		*view = other;
		found = judged;
	}
	return found;
}

/*
 * Usually one way has the tag.  Two can have the key for an instant, when two
 * puts met in the bucket: the newer row is served, so that reads never go
 * backwards.
 */
SHM_CACHE_INLINE uint32_t
bucket_look(struct shm_cache *cache, struct shm_cache_bucket *bucket,
    const struct shm_cache_key *key, const struct shm_cache_lease *lease,
    struct shm_cache_view *view)
{
	uint32_t ways = bucket_match(bucket, shm_cache_tag_of(key->hash));

	if (ways == 0)
		return SHM_CACHE_MISS;
	if (__builtin_expect((ways & (ways - 1)) != 0, 0))
		return ways_look(cache, key, lease, ways, view);
	return way_look(cache, key, lease,
	    &bucket->way[(uint32_t)__builtin_ctz(ways)], view);
}

/* Is a write under way that may change the answer? */
static inline bool
key_is_open(const struct shm_cache *cache, const struct shm_cache_key *key)
{
	if (__builtin_expect(key->cls != SHM_CACHE_LIST, 1))
		return shm_cache_is_open(cache, key->hash); /* R1 */
	return !cache->policy.lists_relaxed &&
	       SHM_CACHE_ACQUIRE(cache->head->lists_open) != 0; /* R1 */
}

bool
shm_cache_lease_holds(const struct shm_cache *cache,
    const struct shm_cache_key *key, const struct shm_cache_lease *lease,
    uint32_t cls)
{
	uint64_t generation;

	if (key_is_open(cache, key) ||
	    SHM_CACHE_ACQUIRE(*shm_cache_version_of(cache, key->hash)) !=
		lease->version) /* R1 */
		return false;
	generation = SHM_CACHE_ACQUIRE(cache->head->generation[cls]); /* R1 */
	return (generation ^ lease->generation[cls]) >> 32 == 0;
}

/* Something moved under our eyes: look again, a few times. */
__attribute__((noinline)) static enum shm_cache_found
get_again(struct shm_cache *cache, const struct shm_cache_key *key,
    const struct shm_cache_lease *lease, struct shm_cache_view *view)
{
	struct shm_cache_bucket *bucket = shm_cache_bucket_of(cache, key->hash);
	uint32_t found;

	for (uint32_t i = 1; i < GET_TRIES; i++) {
		shm_cache_add(cache, SHM_CACHE_retries, 1);
		found = bucket_look(cache, bucket, key, lease, view);
		if (found != LOOKED_MOVED)
			return (enum shm_cache_found)found;
	}
	shm_cache_add(cache, SHM_CACHE_retries, 1);
	return SHM_CACHE_MISS;
}

enum shm_cache_found
shm_cache_get(struct shm_cache *cache, const struct shm_cache_key *key,
    uint64_t now_us, struct shm_cache_lease *lease, struct shm_cache_view *view)
{
	struct shm_cache_bucket *bucket = shm_cache_bucket_of(cache, key->hash);
	const _Atomic uint32_t *version = &bucket->version[key->hash >> 62];
	uint32_t found;

	if (__builtin_expect(key_is_open(cache, key), 0)) {
		shm_cache_lease_fill(cache, version, now_us, lease);
		return SHM_CACHE_MISS;
	}
	shm_cache_lease_fill(cache, version, now_us, lease);
	found = bucket_look(cache, bucket, key, lease, view);
	if (__builtin_expect(found == LOOKED_MOVED, 0))
		return get_again(cache, key, lease, view);
	return (enum shm_cache_found)found;
}

bool
shm_cache_copy(struct shm_cache *cache, const struct shm_cache_view *view,
    uint32_t from, uint32_t len, void *out)
{
	const struct shm_cache_spot spot = {.segment_word = view->segment_word,
	    .segment = (uint32_t)(view->offset >> cache->segment_shift)};
	uint64_t start = view->offset + from +
			 shm_cache_value_start(
			     view->offset, view->key_bytes, view->value_bytes);

	SHM_ASSERT((uint64_t)from + len <= view->value_bytes &&
		   start + len <= cache->data_bytes);
	shm_map_read(out, cache->data, start, len); /* R0 of shm_map.c */
	if (shm_cache_spot_held(cache, &spot))
		return true;
	shm_cache_add(cache, SHM_CACHE_retries, 1);
	return false;
}
