/*
 * Making room in the book cache: S3-FIFO over segments.
 *
 * New keys go to the small queue, keys that were used there, or come back soon
 * after they left it, to the main queue.  The oldest segment of the queue that
 * has too much is walked, some entries with each put: what was used is copied
 * to the walker's own segment of the main queue, everything else is dropped;
 * then all of the segment is free at once.  There is no list and no queue: the
 * order is each segment's birth, found by looking at all of them.
 *
 * LAYOUT: the ghost is an array of 32-bit fingerprints of keys dropped from
 * the small queue; each key has one place in it, and the last one there wins.
 *
 * WHO MAY WRITE: the word of a SEALED segment, whoever wins the CAS to EVICT;
 * everything else of it then its owner.  The ghost: anybody, any time; it is
 * a hint.
 *
 *	FREE ------> ACTIVE (spare) --> ACTIVE --> SEALED --> EVICT (walked)
 *	                ^ gen + 1                     ^          |    |
 *	                +-----------------------------|----------+    |
 *	                                              +---- owner dead
 *
 * INVARIANTS
 *	I1 when gen moves, no index word names the old gen: every entry of the
 *	   segment has been looked for in its bucket and taken out of it
 *	I2 an entry is taken out of the index, or its copy put in its place, by
 *	   one CAS
 *	I3 of a segment at most SURVIVORS_PERCENT are copied, so that each walk
 *	   frees something
 *
 * MEMORY ORDER
 *	R6 the CAS SEALED -> EVICT, acquire: pairs with W3 and W6 of
 *	   shm_cache_put.c
 *	W2 as in shm_cache_put.c, when a copy is named
 *	W4 the release fence after a segment's gen moved or a FREE one was
 *	   taken, before its first byte is overwritten: pairs with R4 of
 *	   shm_cache_get.c
 *
 * A WRITER DIES INSIDE
 *	in the walk	the sweep seals the segment again; it is still the
 *			oldest and will be walked anew, from the start: what is
 *			already out of the index is skipped
 *	before a copy is named	an entry without a name in its own segment
 *	between gen and used	a segment of old bytes that nobody names: the
 *			sweep seals it, a walk skips all of it
 *
 * LIMITS: EVICT_STEPS entries a put; SCAN_MAX segments looked at for a victim.
 */
#include "config.h"

#include "shm/shm_cache_entry.h"

#define EVICT_STEPS	  8
#define SURVIVORS_PERCENT 75
#define SMALL_PERCENT	  10
#define SCAN_MAX	  1024

/* ---- the ghost */

static _Atomic uint32_t *
ghost_of(const struct shm_cache *cache, uint64_t hash)
{
	return &cache->ghost[(uint32_t)hash * cache->ghost_count >> 32];
}

static uint32_t
ghost_print(uint64_t hash)
{
	return (uint32_t)(hash >> 32) | 1;
}

bool
shm_cache_ghost_take(struct shm_cache *cache, uint64_t hash)
{
	_Atomic uint32_t *ghost = ghost_of(cache, hash);

	if (SHM_CACHE_RELAXED(*ghost) != ghost_print(hash))
		return false;
	atomic_store_explicit(ghost, 0, memory_order_relaxed);
	return true;
}

static void
ghost_note(struct shm_cache *cache, uint64_t hash)
{
	atomic_store_explicit(
	    ghost_of(cache, hash), ghost_print(hash), memory_order_relaxed);
}

/* ---- choosing a segment */

/* What a look at the segment table found. */
struct scan {
	struct {
		uint32_t segment; /* the oldest SEALED; NONE */
		uint64_t birth, word;
	} oldest[2];	      /* of each queue */
	uint32_t free, empty; /* SEALED without a byte in it */
	uint64_t free_word, empty_word;
	uint32_t seen, small_count;
};

static void
scan_segment(const struct shm_cache *cache, uint32_t at, struct scan *scan)
{
	const struct shm_cache_segment *segment = &cache->segment[at];
	uint64_t word = SHM_CACHE_ACQUIRE(cache->word[at]); /* R6 */
	enum shm_cache_queue queue = shm_cache_word_queue(word);
	uint64_t birth;

	scan->seen++;
	switch (shm_cache_word_state(word)) {
	case SHM_CACHE_FREE:
		scan->free = at;
		scan->free_word = word;
		return;
	case SHM_CACHE_SEALED:
		break;
	default:
		scan->small_count += queue == SHM_CACHE_SMALL;
		return;
	}
	if (SHM_CACHE_RELAXED(segment->used) == 0) {
		scan->empty = at;
		scan->empty_word = word;
		return;
	}
	scan->small_count += queue == SHM_CACHE_SMALL;
	birth = SHM_CACHE_RELAXED(segment->birth);
	if (scan->oldest[queue].segment == SHM_CACHE_NONE ||
	    birth < scan->oldest[queue].birth) {
		scan->oldest[queue].segment = at;
		scan->oldest[queue].birth = birth;
		scan->oldest[queue].word = word;
	}
}

static void
scan_segments(struct shm_cache *cache, struct scan *scan)
{
	uint32_t count = cache->segments_count;
	uint32_t at = cache->scan_hint;

	*scan = (struct scan){.free = SHM_CACHE_NONE, .empty = SHM_CACHE_NONE};
	scan->oldest[SHM_CACHE_SMALL].segment = SHM_CACHE_NONE;
	scan->oldest[SHM_CACHE_MAIN].segment = SHM_CACHE_NONE;
	if (count > SCAN_MAX)
		count = SCAN_MAX;
	for (uint32_t i = 0; i < count && scan->free == SHM_CACHE_NONE; i++) {
		if (at >= cache->segments_count)
			at = 0;
		scan_segment(cache, at++, scan);
	}
	cache->scan_hint = at;
}

/* A segment is ours and empty: keep it. */
static void
spare_set(struct shm_cache *cache, uint32_t at, uint64_t word)
{
	shm_map_fence(memory_order_release); /* W4 */
	SHM_CRASH_POINT("spare_before_used");
	atomic_store_explicit(
	    &cache->segment[at].used, 0, memory_order_release);
	cache->spare = (struct shm_cache_appender){
	    .segment = at,
	    .word = word,
	};
}

static bool
segment_take(struct shm_cache *cache, uint32_t at, uint64_t word,
    enum shm_cache_state state, uint64_t *mine)
{
	*mine = shm_cache_word(shm_cache_word_gen(word), cache->incarnation,
	    cache->me, shm_cache_word_queue(word), state);
	SHM_CRASH_POINT("take_before");
	if (!atomic_compare_exchange_strong_explicit(&cache->word[at], &word,
		*mine, memory_order_acq_rel, memory_order_relaxed)) /* R6 */
		return false;
	SHM_CRASH_POINT("take_after");
	return true;
}

static void
evict_begin(struct shm_cache *cache, uint32_t at, uint64_t word)
{
	uint64_t mine, used;

	if (!segment_take(cache, at, word, SHM_CACHE_EVICT, &mine))
		return;
	used = SHM_CACHE_ACQUIRE(cache->segment[at].used); /* R6 */
	cache->evict.segment = at;
	cache->evict.word = mine;
	cache->evict.at = 0;
	cache->evict.survived = 0;
	cache->evict.used = used < cache->segment_bytes
				? (uint32_t)used
				: (uint32_t)cache->segment_bytes;
}

/* One look for a segment: a free one becomes the spare, else a walk begins.
 * False: there is none, or somebody was faster. */
static bool
evict_choose(struct shm_cache *cache)
{
	enum shm_cache_queue queue = SHM_CACHE_MAIN;
	struct scan scan;
	uint64_t word;

	scan_segments(cache, &scan);
	if (scan.free != SHM_CACHE_NONE) {
		if (!segment_take(cache, scan.free, scan.free_word,
			SHM_CACHE_ACTIVE, &word))
			return false;
		spare_set(cache, scan.free, word);
		return true;
	}
	cache->is_none_free = true;
	if (scan.empty != SHM_CACHE_NONE) {
		evict_begin(cache, scan.empty, scan.empty_word);
		return cache->evict.segment != SHM_CACHE_NONE;
	}
	if ((uint64_t)scan.small_count * 100 >
	    (uint64_t)scan.seen * SMALL_PERCENT)
		queue = SHM_CACHE_SMALL;
	if (scan.oldest[queue].segment == SHM_CACHE_NONE)
		queue =
		    queue == SHM_CACHE_MAIN ? SHM_CACHE_SMALL : SHM_CACHE_MAIN;
	if (scan.oldest[queue].segment == SHM_CACHE_NONE)
		return false;
	evict_begin(cache, scan.oldest[queue].segment, scan.oldest[queue].word);
	return cache->evict.segment != SHM_CACHE_NONE;
}

/* ---- the walk */

/* The index word that names the entry at spot: its way and what it was. */
static _Atomic uint64_t *
way_of(const struct shm_cache *cache, const struct shm_cache_spot *spot,
    const struct shm_cache_view *entry, uint64_t *index)
{
	struct shm_cache_bucket *bucket =
	    shm_cache_bucket_of(cache, entry->hash);
	uint64_t offset =
	    ((uint64_t)spot->segment << cache->segment_shift) + spot->offset;
	uint64_t want = shm_cache_index(
	    offset, shm_cache_word_gen(spot->segment_word), 0, 0);

	for (uint32_t i = 0; i < SHM_CACHE_WAYS; i++) {
		*index = SHM_CACHE_RELAXED(bucket->way[i]);
		if (((*index ^ want) & SHM_CACHE_PLACE_MASK) == 0 &&
		    *index != 0)
			return &bucket->way[i];
	}
	return NULL;
}

/* Replace the index word, whatever its frequency has become; false: it names
 * something else now. */
static bool
way_replace(_Atomic uint64_t *way, uint64_t index, uint64_t new)
{
	uint64_t seen = index;

	while (!atomic_compare_exchange_strong(way, &seen, new)) /* W2 */
		if (((seen ^ index) & SHM_CACHE_PLACE_MASK) != 0)
			return false;
	return true;
}

/* Its value can begin at another distance from its start there. */
static void
entry_move(struct shm_cache *cache, const struct shm_cache_spot *spot,
    const struct shm_cache_view *entry,
    const struct shm_cache_appender *appender)
{
	uint64_t to = ((uint64_t)appender->segment << cache->segment_shift) +
		      appender->used;
	uint32_t klen = entry->key_bytes, vlen = entry->value_bytes;
	uint32_t old = shm_cache_value_start(spot->offset, klen, vlen);
	uint32_t new = shm_cache_value_start(appender->used, klen, vlen);

	shm_map_move(&cache->data[to / 8], spot->words,
	    SHM_CACHE_ENTRY_WORDS + shm_cache_key_room(klen) / 8);
	shm_map_move(&cache->data[(to + new) / 8], spot->words + old / 8,
	    (vlen + 7) / 8);
}

/* Copy it to our main segment.  False: no room. */
static bool
entry_keep(struct shm_cache *cache, const struct shm_cache_spot *spot,
    const struct shm_cache_view *entry, _Atomic uint64_t *way, uint64_t index)
{
	struct shm_cache_appender *appender = shm_cache_append_room(cache,
	    SHM_CACHE_MAIN,
	    shm_cache_entry_bytes_max(entry->key_bytes, entry->value_bytes));
	uint64_t offset;
	uint32_t bytes;

	if (appender == NULL)
		return false;
	offset = ((uint64_t)appender->segment << cache->segment_shift) +
		 appender->used;
	bytes = shm_cache_entry_bytes(
	    appender->used, entry->key_bytes, entry->value_bytes);
	entry_move(cache, spot, entry, appender);
	SHM_CRASH_POINT("keep_before_used");
	shm_cache_append_advance(cache, appender, bytes);
	SHM_CRASH_POINT("keep_before_index");
	if (way_replace(way, index,
		shm_cache_index(offset, shm_cache_word_gen(appender->word),
		    shm_cache_index_freq(index) - 1,
		    shm_cache_index_tag(index)))) {
		SHM_CRASH_POINT("keep_after_index");
		cache->evict.survived += bytes;
		shm_cache_add(cache, SHM_CACHE_promotions, 1);
	} else {
		/* Replaced meanwhile: nobody needs the copy. */
		shm_cache_append_retreat(cache, appender, bytes);
	}
	return true;
}

static void
entry_drop(struct shm_cache *cache, const struct shm_cache_view *entry,
    _Atomic uint64_t *way, uint64_t index, bool is_dead)
{
	SHM_CRASH_POINT("drop_before_index");
	if (!way_replace(way, index, 0) || is_dead)
		return;
	shm_cache_add(cache, SHM_CACHE_evictions, 1);
	if (shm_cache_word_queue(cache->evict.word) == SHM_CACHE_SMALL)
		ghost_note(cache, entry->hash);
}

static bool
survivors_fit(const struct shm_cache *cache, uint32_t bytes)
{
	return (uint64_t)(cache->evict.survived + bytes) * 100 <=
	       cache->segment_bytes * SURVIVORS_PERCENT;
}

/* One entry on. */
static void
evict_step(struct shm_cache *cache, uint64_t now_us)
{
	struct shm_cache_spot spot = {
	    .segment = cache->evict.segment,
	    .offset = cache->evict.at,
	    .segment_word = cache->evict.word,
	};
	struct shm_cache_view entry;
	struct shm_cache_lease world;
	_Atomic uint64_t *way;
	uint64_t index;
	uint32_t bytes;
	bool is_dead;

	spot.words =
	    &cache->data[(((uint64_t)spot.segment << cache->segment_shift) +
			     spot.offset) /
			 8];
	if (!shm_cache_entry_load(cache, &spot, &entry)) {
		/* Not ours to repair: no reader believes it either. */
		cache->evict.at = cache->evict.used;
		return;
	}
	bytes = shm_cache_entry_bytes(
	    spot.offset, entry.key_bytes, entry.value_bytes);
	cache->evict.at += bytes;
	way = way_of(cache, &spot, &entry, &index);
	if (way == NULL)
		return;
	shm_cache_lease_take(cache, entry.hash, now_us, &world);
	is_dead = shm_cache_entry_judge(cache, &entry, &world, now_us) ==
		  SHM_CACHE_MISS;
	if (!is_dead && shm_cache_index_freq(index) > 0 &&
	    survivors_fit(cache, bytes) &&
	    entry_keep(cache, &spot, &entry, way, index))
		return;
	entry_drop(cache, &entry, way, index, is_dead);
}

/* All entries are out of the index: the segment begins a new life. */
static void
evict_end(struct shm_cache *cache)
{
	uint64_t word = cache->evict.word;
	uint64_t mine = shm_cache_word(shm_cache_word_gen(word) + 1,
	    cache->incarnation, cache->me, SHM_CACHE_SMALL, SHM_CACHE_ACTIVE);
	uint32_t at = cache->evict.segment;

	cache->evict.segment = SHM_CACHE_NONE;
	SHM_CRASH_POINT("evict_before_gen");
	if (!atomic_compare_exchange_strong_explicit(&cache->word[at], &word,
		mine, memory_order_acq_rel, memory_order_relaxed))
		return;
	SHM_CRASH_POINT("evict_after_gen");
	spare_set(cache, at, mine);
}

/* Bytes that can still be appended, or will be when the walk has ended. */
static uint64_t
room_bytes(const struct shm_cache *cache)
{
	uint64_t room = 0;

	if (cache->small.segment != SHM_CACHE_NONE)
		room += cache->segment_bytes - cache->small.used;
	if (cache->main.segment != SHM_CACHE_NONE)
		room += cache->segment_bytes - cache->main.used;
	if (cache->spare.segment != SHM_CACHE_NONE)
		room += cache->segment_bytes;
	if (cache->evict.segment != SHM_CACHE_NONE)
		room += cache->evict.at < cache->evict.used
			    ? cache->evict.at
			    : cache->segment_bytes;
	return room;
}

static bool
evict_is_done(const struct shm_cache *cache)
{
	return cache->evict.segment != SHM_CACHE_NONE &&
	       cache->evict.at >= cache->evict.used;
}

/* A worker that has nothing yet would have to give up its first puts: it walks
 * a whole segment at once, this one time. */
static bool
evict_is_new(const struct shm_cache *cache)
{
	return cache->small.segment == SHM_CACHE_NONE &&
	       cache->main.segment == SHM_CACHE_NONE &&
	       cache->spare.segment == SHM_CACHE_NONE;
}

/*
 * Two segments' worth of room, and a bit.  When an appender is full and there
 * is no spare, the other one and the walk then hold two full segments between
 * them: the walk has ended, and so there is a spare after all.
 */
void
shm_cache_evict(struct shm_cache *cache, uint64_t now_us)
{
	uint64_t enough = cache->segment_bytes * 9 / 4;
	uint32_t steps = evict_is_new(cache) ? UINT32_MAX : EVICT_STEPS;
	bool has_looked = false;

	for (uint32_t i = 0; i < steps; i++) {
		if (i >= EVICT_STEPS && cache->spare.segment != SHM_CACHE_NONE)
			return;
		bool has_spare = cache->spare.segment != SHM_CACHE_NONE;

		if (evict_is_done(cache)) {
			if (has_spare)
				return;
			evict_end(cache);
			continue;
		}
		if (cache->evict.segment != SHM_CACHE_NONE) {
			if (room_bytes(cache) >= enough)
				return;
			evict_step(cache, now_us);
			continue;
		}
		/* While there are free ones, one at a time will do. */
		if (has_spare &&
		    (!cache->is_none_free || room_bytes(cache) >= enough))
			return;
		if (has_looked || !evict_choose(cache))
			return;
		has_looked = true;
	}
	if (evict_is_done(cache) && cache->spare.segment == SHM_CACHE_NONE)
		evict_end(cache);
}
