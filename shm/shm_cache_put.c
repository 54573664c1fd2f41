/*
 * Storing in the book cache: appending to a log of one's own, then naming the
 * entry in the index.
 *
 * LAYOUT: each worker appends to at most two segments, one for each queue, and
 * keeps a spare, so that a put finds room at once.  See shm_cache_part.h for
 * the words of segments, of the index and of entries.
 *
 * WHO MAY WRITE
 *	bytes, birth and used of a segment	its owner alone
 *	its word	its owner; for SEALED and FREE whoever wins the CAS
 *	index words	anybody, by CAS
 *
 * INVARIANTS
 *	I1 an index word names an entry that is complete and below the used of
 *	   its segment
 *	I2 no two index words name one entry: a worker makes an index word for
 *	   an entry once, and only of an entry that it has just appended
 *	I3 an index word for a segment is made only by the segment's owner while
 *	   it is ACTIVE.  After SEALED none is added, so a walk that has
 *	   removed those it found has removed all
 *	I4 at one stripe version, hard generation and suspect, a put never
 *	   replaces or hides a newer row of the same id
 *
 * MEMORY ORDER
 *	W2 the CAS of an index word, release (it is seq_cst for W5): pairs with
 *	   R2 of shm_cache_get.c.  All of an entry is written before
 *	W3 used, release, before W2: pairs with R6 of shm_cache_evict.c
 *	W5 the same CAS, seq_cst, pairs with R5, the seq_cst loads of the other
 *	   ways after it: of two puts of one key that took two ways, at least
 *	   one sees the other
 *	W6 the word that seals, release: pairs with R6, the CAS by which it is
 *	   taken for eviction
 *
 * A WRITER DIES INSIDE
 *	before used	bytes above used, which nobody looks at
 *	before the CAS	an entry without a name, which eviction skips
 *	after it	nothing is missing; an older entry of the key may be
 *			left beside it for as long as it takes to be found
 *	anywhere	its segments are sealed by the sweep
 *
 * LIMITS: a put that loses its CAS PUT_TRIES times gives up, and so does one
 * that finds no room after EVICT_STEPS of eviction.
 */
#include "config.h"

#include "shm/shm_cache_entry.h"

#define PUT_TRIES 4

/* What a put is about, once. */
struct put {
	const struct shm_cache_key *key;
	const struct shm_cache_lease *lease;
	const struct shm_cache_value *value;
	struct shm_cache_lease world; /* as it is now */
	uint64_t now_us;
	struct shm_cache_bucket *bucket;
	uint32_t tag;
	uint32_t vlen;
	uint32_t bytes_max; /* of the entry, wherever it will be */
};

/* What the bucket offers. */
struct offer {
	uint32_t way;
	uint64_t index; /* as it was there */
	uint32_t freq;	/* to go on with */
	enum shm_cache_queue queue;
	bool is_same; /* the key's own way */
	bool is_live; /* somebody else's, who loses it */
};

/* Where it was appended. */
struct placed {
	struct shm_cache_appender *appender;
	uint64_t index; /* to name it, without a frequency */
	uint32_t bytes;
};

/* ---- appending */

static void
appender_seal(struct shm_cache *cache, struct shm_cache_appender *appender)
{
	uint64_t word = appender->word;
	uint64_t sealed = shm_cache_word(shm_cache_word_gen(word), 0, 0,
	    shm_cache_word_queue(word), SHM_CACHE_SEALED);

	SHM_CRASH_POINT("seal_before");
	/* Nobody but a sweep changes our word.  Should it have, then the
	 * segment is not ours any more, and there is nothing to do. */
	(void)atomic_compare_exchange_strong_explicit(
	    &cache->word[appender->segment], &word, sealed,
	    memory_order_release, memory_order_relaxed); /* W6 */
	SHM_CRASH_POINT("seal_after");
	appender->segment = SHM_CACHE_NONE;
}

/* The spare becomes the appender of a queue. */
static bool
appender_open(struct shm_cache *cache, struct shm_cache_appender *appender,
    enum shm_cache_queue queue)
{
	struct shm_cache_appender spare = cache->spare;
	struct shm_cache_segment *segment = &cache->segment[spare.segment];
	uint64_t opened = shm_cache_word(shm_cache_word_gen(spare.word),
	    cache->incarnation, cache->me, queue, SHM_CACHE_ACTIVE);

	cache->spare.segment = SHM_CACHE_NONE;
	atomic_store_explicit(&segment->birth,
	    atomic_fetch_add_explicit(
		&cache->head->next_birth, 1, memory_order_relaxed),
	    memory_order_relaxed);
	SHM_CRASH_POINT("open_before");
	if (!atomic_compare_exchange_strong_explicit(
		&cache->word[spare.segment], &spare.word, opened,
		memory_order_release, memory_order_relaxed))
		return false;
	SHM_CRASH_POINT("open_after");
	spare.word = opened;
	*appender = spare;
	return true;
}

static bool
appender_fits(const struct shm_cache *cache,
    const struct shm_cache_appender *appender, uint32_t bytes)
{
	return appender->segment != SHM_CACHE_NONE &&
	       cache->segment_bytes - appender->used >= bytes;
}

struct shm_cache_appender *
shm_cache_append_room(
    struct shm_cache *cache, enum shm_cache_queue queue, uint32_t bytes)
{
	bool is_main = queue == SHM_CACHE_MAIN;
	struct shm_cache_appender *mine =
	    is_main ? &cache->main : &cache->small;
	struct shm_cache_appender *other =
	    is_main ? &cache->small : &cache->main;

	if (appender_fits(cache, mine, bytes))
		return mine;
	if (cache->spare.segment != SHM_CACHE_NONE) {
		if (mine->segment != SHM_CACHE_NONE)
			appender_seal(cache, mine);
		if (appender_open(cache, mine, queue))
			return mine;
	}
	/* Eviction could not keep up: better in the wrong queue than lost. */
	return appender_fits(cache, other, bytes) ? other : NULL;
}

void
shm_cache_append_advance(struct shm_cache *cache,
    struct shm_cache_appender *appender, uint32_t bytes)
{
	SHM_ASSERT(appender_fits(cache, appender, bytes));
	appender->used += bytes;
	atomic_store_explicit(&cache->segment[appender->segment].used,
	    appender->used, memory_order_release); /* W3 */
}

void
shm_cache_append_retreat(struct shm_cache *cache,
    struct shm_cache_appender *appender, uint32_t bytes)
{
	SHM_ASSERT(appender->used >= bytes);
	appender->used -= bytes;
	atomic_store_explicit(&cache->segment[appender->segment].used,
	    appender->used, memory_order_release); /* W3 */
}

/* ---- the entry */

static uint32_t
fresh_ms(uint64_t fresh_us)
{
	uint64_t ms = fresh_us / 1000 + (fresh_us % 1000 != 0);

	return ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
}

static void
entry_write(struct shm_cache *cache, uint64_t offset, uint32_t value_start,
    const struct put *put)
{
	const struct shm_cache_value *value = put->value;
	const struct shm_cache_lease *lease = put->lease;
	const struct shm_cache_key *key = put->key;
	_Atomic uint64_t *word = &cache->data[offset / 8];
	const uint64_t words[SHM_CACHE_ENTRY_WORDS] = {
	    key->hash,
	    (uint64_t)lease->version << 32 | (uint64_t)key->len << 20 |
		put->vlen,
	    (lease->taken_us & SHM_CACHE_TAKEN_MASK) << 16 |
		(uint64_t)value->cls << 12 | (value->status & 0xfff),
	    (uint64_t)fresh_ms(value->fresh_us) << 32 | value->modified_s,
	    lease->generation[value->cls],
	    value->id,
	    (uint64_t)value->row_version << 32 |
		(uint64_t)(lease->suspect & SHM_CACHE_SUSPECT_MASK) << 12 |
		value->head_bytes,
	};

	for (uint32_t i = 0; i < SHM_CACHE_ENTRY_WORDS; i++)
		atomic_store_explicit(&word[i], words[i], memory_order_relaxed);
	SHM_CRASH_POINT("put_half_written");
	/* The rest of the key's last word is zero: keys are compared by it. */
	atomic_store_explicit(&word[SHM_CACHE_ENTRY_WORDS + (key->len - 1) / 8],
	    0, memory_order_relaxed);
	shm_map_write(
	    cache->data, offset + SHM_CACHE_ENTRY_BYTES, key->data, key->len);
	offset += value_start;
	shm_map_write(cache->data, offset, value->head, value->head_bytes);
	shm_map_write(cache->data, offset + value->head_bytes, value->body,
	    value->body_bytes);
}

/* ---- the bucket */

/* What a way holds, for a put. */
enum held {
	HELD_EMPTY,
	HELD_DEAD, /* nothing that could still be served */
	HELD_SAME, /* the put's own key */
	HELD_LIVE,
};

static enum held
way_read(const struct shm_cache *cache, const struct put *put, uint64_t index,
    struct shm_cache_view *entry, struct shm_cache_spot *spot)
{
	struct shm_cache_lease world;

	if (index == 0)
		return HELD_EMPTY;
	shm_map_fence(memory_order_acquire); /* R2 */
	if (!shm_cache_spot_find(cache, index, spot))
		return HELD_DEAD;
	if (!shm_cache_entry_load(cache, spot, entry))
		return HELD_DEAD;
	if (shm_cache_index_tag(index) == put->tag &&
	    shm_cache_entry_is_of(spot, entry, put->key))
		return shm_cache_spot_held(cache, spot) ? HELD_SAME : HELD_DEAD;
	shm_cache_lease_take(cache, entry->hash, put->now_us, &world);
	if (!shm_cache_spot_held(cache, spot) ||
	    shm_cache_entry_judge(cache, entry, &world, put->now_us) ==
		SHM_CACHE_MISS)
		return HELD_DEAD;
	return HELD_LIVE;
}

/* May the entry that is there be served as well as, or better than, ours? */
static bool
entry_is_newer(const struct shm_cache *cache, const struct put *put,
    const struct shm_cache_view *entry)
{
	if (shm_cache_entry_judge(cache, entry, &put->world, put->now_us) ==
		SHM_CACHE_MISS ||
	    ((entry->suspect ^ put->world.suspect) & SHM_CACHE_SUSPECT_MASK) !=
		0)
		return false;
	return entry->cls == put->value->cls && entry->id == put->value->id &&
	       entry->row_version > put->value->row_version;
}

/* Loaded before something that what is there was loaded after? */
static bool
entry_is_outdating(const struct put *put, const struct shm_cache_view *entry)
{
	uint32_t cls = put->value->cls;

	if (entry->cls != cls || entry->version != put->world.version)
		return false;
	return (entry->suspect ==
		       (put->world.suspect & SHM_CACHE_SUSPECT_MASK) &&
		   put->lease->suspect != put->world.suspect) ||
	       (entry->generation == put->world.generation[cls] &&
		   put->lease->generation[cls] != put->world.generation[cls]);
}

/* The key's own way, if it has one. */
static bool
bucket_find(const struct shm_cache *cache, const struct put *put,
    struct offer *offer, struct shm_cache_view *entry)
{
	struct shm_cache_spot spot;

	for (uint32_t i = 0; i < SHM_CACHE_WAYS; i++) {
		uint64_t index = SHM_CACHE_RELAXED(put->bucket->way[i]);

		if (shm_cache_index_tag(index) != put->tag ||
		    way_read(cache, put, index, entry, &spot) != HELD_SAME)
			continue;
		*offer = (struct offer){
		    .way = i,
		    .index = index,
		    .freq = shm_cache_index_freq(index),
		    .queue = shm_cache_word_queue(spot.segment_word),
		    .is_same = true,
		};
		return true;
	}
	return false;
}

/* An empty way is preferred to a dead one: it is found without a look at
 * entries.  Last comes the least used. */
static void
bucket_victim(
    const struct shm_cache *cache, const struct put *put, struct offer *offer)
{
	uint64_t index[SHM_CACHE_WAYS];
	struct shm_cache_view entry;
	struct shm_cache_spot spot;
	uint32_t least = 0;

	*offer = (struct offer){0};
	for (uint32_t i = 0; i < SHM_CACHE_WAYS; i++) {
		index[i] = SHM_CACHE_RELAXED(put->bucket->way[i]);
		if (index[i] == 0) {
			offer->way = i;
			return;
		}
		if (shm_cache_index_freq(index[i]) <
		    shm_cache_index_freq(index[least]))
			least = i;
	}
	for (uint32_t i = 0; i < SHM_CACHE_WAYS; i++) {
		offer->way = i;
		offer->index = index[i];
		if (way_read(cache, put, index[i], &entry, &spot) == HELD_DEAD)
			return;
	}
	offer->way = least;
	offer->index = index[least];
	offer->is_live = true;
}

static enum shm_cache_stored
bucket_offer(
    const struct shm_cache *cache, const struct put *put, struct offer *offer)
{
	struct shm_cache_view entry;

	if (!bucket_find(cache, put, offer, &entry)) {
		bucket_victim(cache, put, offer);
		return SHM_CACHE_STORED;
	}
	if (entry_is_newer(cache, put, &entry))
		return SHM_CACHE_OLDER;
	if (entry_is_outdating(put, &entry))
		return SHM_CACHE_OUTDATED;
	return SHM_CACHE_STORED;
}

/*
 * Two puts of one key may have taken two ways.  Who sees the other removes the
 * older of the two; of two equal ones the one in the higher way, so that not
 * both go.
 */
static void
bucket_single(
    const struct shm_cache *cache, const struct put *put, uint32_t mine)
{
	struct shm_cache_view entry;
	struct shm_cache_spot spot;

	for (uint32_t i = 0; i < SHM_CACHE_WAYS; i++) {
		uint64_t index = atomic_load(&put->bucket->way[i]); /* R5 */
		uint64_t own;
		uint32_t kill = i;

		if (i == mine || shm_cache_index_tag(index) != put->tag ||
		    way_read(cache, put, index, &entry, &spot) != HELD_SAME)
			continue;
		own = atomic_load(&put->bucket->way[mine]);
		if (entry_is_newer(cache, put, &entry) ||
		    (entry.row_version == put->value->row_version && i < mine))
			kill = mine;
		if (kill == mine)
			index = own;
		SHM_CRASH_POINT("put_before_single");
		(void)atomic_compare_exchange_strong(
		    &put->bucket->way[kill], &index, 0);
		if (kill == mine)
			return;
	}
}

/*
 * We could not store what our requester is about to be told.  Whoever asks
 * after him must not be told something older: what is there goes, unless it
 * is known to be as new.
 */
static void
bucket_drop_older(const struct shm_cache *cache, const struct put *put,
    enum shm_cache_stored why)
{
	struct shm_cache_view entry;
	struct shm_cache_spot spot;

	for (uint32_t i = 0; i < SHM_CACHE_WAYS; i++) {
		uint64_t index = SHM_CACHE_RELAXED(put->bucket->way[i]);
		bool is_same_row;

		if (shm_cache_index_tag(index) != put->tag ||
		    way_read(cache, put, index, &entry, &spot) != HELD_SAME)
			continue;
		is_same_row =
		    entry.cls == put->value->cls && entry.id == put->value->id;
		if (is_same_row && entry.row_version >= put->value->row_version)
			continue;
		/* Another row, loaded under a newer lease: not older. */
		if (!is_same_row && why == SHM_CACHE_OUTDATED)
			continue;
		/* Its frequency may move meanwhile; a few tries suffice. */
		for (uint32_t tries = 0; tries <= SHM_CACHE_FREQ_MAX; tries++) {
			uint64_t seen = index;

			SHM_CRASH_POINT("put_before_drop");
			if (atomic_compare_exchange_strong(
				&put->bucket->way[i], &seen, 0) ||
			    ((seen ^ index) & SHM_CACHE_PLACE_MASK) != 0)
				break;
			index = seen;
		}
	}
}

/* ---- put */

static enum shm_cache_stored
put_append(struct shm_cache *cache, const struct put *put,
    const struct offer *offer, struct placed *placed)
{
	enum shm_cache_queue queue = offer->queue;
	struct shm_cache_appender *appender;
	uint32_t klen = put->key->len;
	uint64_t offset;

	/* Evicted a short while ago and here again: not a passing key. */
	if (!offer->is_same && shm_cache_ghost_take(cache, put->key->hash))
		queue = SHM_CACHE_MAIN;
	appender = shm_cache_append_room(cache, queue, put->bytes_max);
	if (appender == NULL)
		return SHM_CACHE_GAVE_UP;
	offset = ((uint64_t)appender->segment << cache->segment_shift) +
		 appender->used;
	*placed = (struct placed){
	    .appender = appender,
	    .index = shm_cache_index(
		offset, shm_cache_word_gen(appender->word), 0, put->tag),
	    .bytes = shm_cache_entry_bytes(appender->used, klen, put->vlen),
	};
	entry_write(cache, offset,
	    shm_cache_value_start(appender->used, klen, put->vlen), put);
	SHM_CRASH_POINT("put_before_used");
	shm_cache_append_advance(cache, appender, placed->bytes);
	SHM_CRASH_POINT("put_before_index");
	return SHM_CACHE_STORED;
}

static enum shm_cache_stored
put_store(struct shm_cache *cache, const struct put *put)
{
	struct placed placed;
	struct offer offer;
	enum shm_cache_stored stored = bucket_offer(cache, put, &offer);

	if (stored == SHM_CACHE_STORED)
		stored = put_append(cache, put, &offer, &placed);
	if (stored != SHM_CACHE_STORED)
		return stored;
	for (uint32_t i = 0; i < PUT_TRIES; i++) {
		uint64_t new = placed.index | (uint64_t)offer.freq << 18;

		if (atomic_compare_exchange_strong(&put->bucket->way[offer.way],
			&offer.index, new)) { /* W2, W5 */
			SHM_CRASH_POINT("put_after_index");
			if (offer.is_live)
				shm_cache_add(cache, SHM_CACHE_evictions, 1);
			bucket_single(cache, put, offer.way);
			return SHM_CACHE_STORED;
		}
		stored = bucket_offer(cache, put, &offer);
		if (stored != SHM_CACHE_STORED)
			break;
	}
	/* Nothing names it: the next put may have the room. */
	shm_cache_append_retreat(cache, placed.appender, placed.bytes);
	return stored == SHM_CACHE_STORED ? SHM_CACHE_GAVE_UP : stored;
}

static enum shm_cache_stored
put_check(const struct shm_cache *cache, const struct put *put,
    const struct shm_cache_flight *flight)
{
	if (put->value->head_bytes > SHM_CACHE_HEAD_MAX ||
	    (uint64_t)put->value->head_bytes + put->value->body_bytes +
		    put->key->len >
		cache->value_max)
		return SHM_CACHE_TOO_LARGE;
	if (flight != NULL && flight->word != 0 &&
	    !shm_cache_claim_is_mine(cache, flight))
		return SHM_CACHE_LOST;
	if (!shm_cache_lease_holds(
		cache, put->key, put->lease, put->value->cls))
		return SHM_CACHE_OUTDATED;
	return SHM_CACHE_STORED;
}

enum shm_cache_stored
shm_cache_put(struct shm_cache *cache, const struct shm_cache_key *key,
    const struct shm_cache_lease *lease, const struct shm_cache_value *value,
    const struct shm_cache_flight *flight, uint64_t now_us)
{
	struct put put = {
	    .key = key,
	    .lease = lease,
	    .value = value,
	    .now_us = now_us,
	    .bucket = shm_cache_bucket_of(cache, key->hash),
	    .tag = shm_cache_tag_of(key->hash),
	    .vlen = value->head_bytes + value->body_bytes,
	};
	enum shm_cache_stored stored;

	SHM_ASSERT(cache->me < cache->slots_count);
	SHM_ASSERT(key->len > 0 && key->len <= SHM_CACHE_KEY_MAX);
	SHM_ASSERT(
	    value->cls == key->cls ||
	    (value->cls == SHM_CACHE_NEGATIVE && key->cls == SHM_CACHE_BOOK));
	put.bytes_max = shm_cache_entry_bytes_max(key->len, put.vlen);
	shm_cache_lease_take(cache, key->hash, now_us, &put.world);
	stored = put_check(cache, &put, flight);
	if (stored == SHM_CACHE_STORED) {
		shm_cache_evict(cache, now_us);
		stored = put_store(cache, &put);
	}
	if (stored == SHM_CACHE_STORED) {
		shm_cache_add(cache, SHM_CACHE_puts, 1);
		return stored;
	}
	if (stored != SHM_CACHE_OLDER)
		bucket_drop_older(cache, &put, stored);
	shm_cache_add(cache, SHM_CACHE_puts_refused, 1);
	return stored;
}
