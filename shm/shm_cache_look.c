/*
 * Looking at the book cache from outside: statistics, a dump of its keys, and
 * the audit of its invariants.
 *
 * WHO MAY WRITE: nothing here writes to the mapping.
 *
 * MEMORY ORDER: as a reader's (R2, R3, R4 of shm_cache_get.c).  While others
 * run, the audit reports only what it has seen twice: a word that has not
 * changed between two looks, and what must be true as long as it stands.
 *
 * INVARIANTS audited, by their names in docs/SHM.md
 *	A1 the head says what this process knows
 *	A2 a segment's word is one of the legal ones; used is within it
 *	A3 an owner is a slot, and (quiet) alive, with at most three ACTIVE
 *	   segments and one EVICT
 *	A4 an index word names a segment of equal gen that is not FREE, below
 *	   its used
 *	A5 there is a well-formed entry in that place, whose hash belongs to
 *	   this bucket and to this tag
 *	A6 (quiet) the entries of a segment end where its used ends, and index
 *	   words name their beginnings, each a different one
 *
 * LIMITS: the quiet audit takes a bit of memory for each 8 bytes of data, and
 * counts that it could not get it as a breach.
 */
#include "config.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/shm_cache_entry.h"

#define LOOK_BUCKETS_MAX 65536 /* more are estimated from so many */

static const struct {
	const char *name;
	const char *help;
} counters[] = {
#define SHM_CACHE_COUNTER(name, help) {#name, help},
    SHM_CACHE_COUNTERS
#undef SHM_CACHE_COUNTER
};

const char *
shm_cache_counter_name(enum shm_cache_counter counter)
{
	SHM_ASSERT(counter < SHM_CACHE_COUNTERS_COUNT);
	return counters[counter].name;
}

const char *
shm_cache_counter_help(enum shm_cache_counter counter)
{
	SHM_ASSERT(counter < SHM_CACHE_COUNTERS_COUNT);
	return counters[counter].help;
}

/* ---- statistics */

static uint64_t
used_of(const struct shm_cache *cache, const struct shm_cache_segment *segment)
{
	uint64_t used = SHM_CACHE_ACQUIRE(segment->used);

	return used < cache->segment_bytes ? used : cache->segment_bytes;
}

static void
stats_segments(const struct shm_cache *cache, struct shm_cache_stats *stats)
{
	for (uint32_t i = 0; i < cache->segments_count; i++) {
		uint64_t word = SHM_CACHE_ACQUIRE(cache->word[i]);

		if (shm_cache_word_state(word) == SHM_CACHE_FREE) {
			stats->segments_free++;
			continue;
		}
		if (shm_cache_word_state(word) == SHM_CACHE_ACTIVE)
			stats->segments_active++;
		if (shm_cache_word_queue(word) == SHM_CACHE_MAIN)
			stats->segments_main++;
		else
			stats->segments_small++;
		stats->used_bytes += used_of(cache, &cache->segment[i]);
	}
}

/* Every step-th bucket stands for step of them. */
static uint64_t
stats_entries(const struct shm_cache *cache)
{
	uint64_t step = (cache->buckets_count - 1) / LOOK_BUCKETS_MAX + 1;
	uint64_t entries = 0, seen = 0;

	SHM_ASSERT(cache->buckets_count > 0);
	for (uint64_t i = 0; i < cache->buckets_count; i += step, seen++)
		for (uint32_t k = 0; k < SHM_CACHE_WAYS; k++)
			entries +=
			    SHM_CACHE_RELAXED(cache->bucket[i].way[k]) != 0;
	return step == 1 ? entries : entries * cache->buckets_count / seen;
}

void
shm_cache_counters(
    const struct shm_cache *cache, uint64_t counter[SHM_CACHE_COUNTERS_COUNT])
{
	memset(counter, 0, SHM_CACHE_COUNTERS_COUNT * sizeof(counter[0]));
	for (uint32_t slot = 0; slot <= SHM_CACHE_SLOTS_MAX; slot++)
		for (uint32_t i = 0; i < SHM_CACHE_COUNTERS_COUNT; i++)
			counter[i] += SHM_CACHE_RELAXED(
			    cache->slot[slot].counters.counter[i]);
}

void
shm_cache_stats(const struct shm_cache *cache, struct shm_cache_stats *stats)
{
	*stats = (struct shm_cache_stats){
	    .map_bytes = cache->map_bytes,
	    .data_bytes = cache->data_bytes,
	    .segment_bytes = cache->segment_bytes,
	    .segments_count = cache->segments_count,
	    .buckets_count = cache->buckets_count,
	};
	shm_cache_counters(cache, stats->counter);
	stats_segments(cache, stats);
	stats->entries = stats_entries(cache);
	stats->intents_open = shm_cache_intent_count(cache);
	stats->flights = shm_cache_flight_count(cache);
}

/* ---- the dump */

static bool
dump_way(const struct shm_cache *cache, uint64_t index, uint64_t now_us,
    struct shm_cache_dumped *dumped)
{
	struct shm_cache_spot spot;
	struct shm_cache_view entry;
	struct shm_cache_lease world;

	shm_map_fence(memory_order_acquire); /* R2 */
	if (!shm_cache_spot_find(cache, index, &spot) ||
	    !shm_cache_entry_load(cache, &spot, &entry))
		return false;
	shm_map_read(
	    dumped->key, spot.words, SHM_CACHE_ENTRY_BYTES, entry.key_bytes);
	if (!shm_cache_spot_held(cache, &spot))
		return false;
	shm_cache_lease_take(cache, entry.hash, now_us, &world);
	dumped->key[entry.key_bytes] = '\0';
	dumped->key_len = entry.key_bytes;
	dumped->frequency = shm_cache_index_freq(index);
	dumped->cls = entry.cls;
	dumped->status = entry.status;
	dumped->value_bytes = entry.value_bytes;
	dumped->row_version = entry.row_version;
	dumped->taken_us = entry.taken_us;
	dumped->is_served = shm_cache_entry_judge(cache, &entry, &world,
				now_us) != SHM_CACHE_MISS;
	return true;
}

void
shm_cache_dump(const struct shm_cache *cache, uint64_t now_us,
    bool (*each)(void *owner, const struct shm_cache_dumped *dumped),
    void *owner)
{
	struct shm_cache_dumped dumped;

	for (uint64_t i = 0; i < cache->buckets_count; i++)
		for (uint32_t k = 0; k < SHM_CACHE_WAYS; k++) {
			uint64_t index =
			    SHM_CACHE_RELAXED(cache->bucket[i].way[k]);

			if (index != 0 &&
			    dump_way(cache, index, now_us, &dumped) &&
			    !each(owner, &dumped))
				return;
		}
}

/* ---- the audit */

struct audit {
	const struct shm_cache *cache;
	char *why;
	size_t why_bytes;
	uint32_t breaches;
	/* quiet only: a bit for each place of 8 bytes */
	uint64_t *begins; /* an entry begins here */
	uint64_t *named;  /* an index word names it */
	uint32_t active[SHM_CACHE_SLOTS_MAX], evict[SHM_CACHE_SLOTS_MAX];
};

static void SHM_PRINTF(2, 3) breach(struct audit *audit, const char *fmt, ...)
{
	va_list args;

	if (audit->breaches++ > 0 || audit->why_bytes == 0)
		return;
	va_start(args, fmt);
	vsnprintf(audit->why, audit->why_bytes, fmt, args);
	va_end(args);
}

static bool
bit_is_set(const uint64_t *bits, uint64_t at)
{
	return (bits[at / 64] >> at % 64 & 1) != 0;
}

static void
bit_set(uint64_t *bits, uint64_t at)
{
	bits[at / 64] |= (uint64_t)1 << at % 64;
}

static void
audit_head(struct audit *audit)
{
	const struct shm_cache *cache = audit->cache;
	const struct shm_cache_head *head = cache->head;

	if (head->magic != SHM_CACHE_MAGIC ||
	    head->map_bytes != cache->map_bytes ||
	    head->buckets_count != cache->buckets_count ||
	    head->ghost_count != cache->ghost_count ||
	    head->segment_bytes != cache->segment_bytes ||
	    head->segments_count != cache->segments_count ||
	    head->slots_count != cache->slots_count)
		breach(audit, "A1: the head has changed");
}

/* What is wrong with this word and what belongs to it; NULL: nothing. */
static const char *
segment_fault(const struct shm_cache *cache, uint64_t word, uint64_t used)
{
	uint32_t state = shm_cache_word_state(word);
	bool is_owned = state == SHM_CACHE_ACTIVE || state == SHM_CACHE_EVICT;

	if (state > SHM_CACHE_EVICT)
		return "A2: no such state";
	if (used > cache->segment_bytes || used % SHM_CACHE_UNIT != 0)
		return "A2: used is impossible";
	if (state == SHM_CACHE_FREE && used != 0)
		return "A2: something is in a free segment";
	if (!is_owned && (shm_cache_word_slot(word) != 0 ||
			     shm_cache_word_incarnation(word) != 0))
		return "A2: an owner where there can be none";
	if (is_owned && shm_cache_word_slot(word) >= cache->slots_count)
		return "A3: the owner is no slot";
	return NULL;
}

static void
audit_owner(struct audit *audit, uint32_t at, uint64_t word)
{
	uint32_t state = shm_cache_word_state(word);
	uint32_t slot = shm_cache_word_slot(word);
	uint32_t incarnation;

	if (state != SHM_CACHE_ACTIVE && state != SHM_CACHE_EVICT)
		return;
	incarnation = SHM_CACHE_RELAXED(audit->cache->slot[slot].incarnation) &
		      SHM_CACHE_INCARNATION_MASK;
	if (shm_cache_word_incarnation(word) != incarnation)
		breach(audit,
		    "A3: segment %" PRIu32 " belongs to a dead process of slot "
		    "%" PRIu32 ": word %016" PRIx64,
		    at, slot, word);
	if (state == SHM_CACHE_ACTIVE && ++audit->active[slot] > 3)
		breach(audit,
		    "A3: slot %" PRIu32 " has more than three segments", slot);
	if (state == SHM_CACHE_EVICT && ++audit->evict[slot] > 1)
		breach(audit,
		    "A3: slot %" PRIu32 " evicts more than one segment", slot);
}

/* Where entries begin, and that they fill it up to used. */
static void
audit_entries(struct audit *audit, uint32_t at, uint64_t used)
{
	const struct shm_cache *cache = audit->cache;
	uint64_t start = (uint64_t)at << cache->segment_shift;
	struct shm_cache_spot spot = {.segment = at};
	struct shm_cache_view entry;

	while (spot.offset < used) {
		spot.words = &cache->data[(start + spot.offset) / 8];
		if (!shm_cache_entry_load(cache, &spot, &entry)) {
			breach(audit,
			    "A6: no entry in segment %" PRIu32 " at %" PRIu32,
			    at, spot.offset);
			return;
		}
		bit_set(audit->begins, (start + spot.offset) / SHM_CACHE_UNIT);
		spot.offset += shm_cache_entry_bytes(
		    spot.offset, entry.key_bytes, entry.value_bytes);
	}
	if (spot.offset != used)
		breach(audit,
		    "A6: segment %" PRIu32 " ends within an entry, at %" PRIu64,
		    at, used);
}

static void
audit_segment(struct audit *audit, uint32_t at, bool quiet)
{
	const struct shm_cache *cache = audit->cache;
	uint64_t word = SHM_CACHE_ACQUIRE(cache->word[at]);
	uint64_t used = SHM_CACHE_ACQUIRE(cache->segment[at].used);
	const char *fault = segment_fault(cache, word, used);

	if (fault != NULL) {
		if (SHM_CACHE_ACQUIRE(cache->word[at]) == word)
			breach(audit,
			    "%s: segment %" PRIu32 ", word %016" PRIx64
			    ", used %" PRIu64,
			    fault, at, word, used);
		return;
	}
	if (!quiet)
		return;
	audit_owner(audit, at, word);
	if (SHM_CACHE_RELAXED(cache->segment[at].birth) >
	    SHM_CACHE_RELAXED(cache->head->next_birth))
		breach(audit,
		    "A2: segment %" PRIu32 " will be born in the future", at);
	audit_entries(audit, at, used);
}

/* What is wrong with an index word; NULL: nothing. */
static const char *
index_fault(const struct shm_cache *cache, uint64_t bucket, uint64_t index)
{
	struct shm_cache_spot spot;
	struct shm_cache_view entry;

	shm_map_fence(memory_order_acquire); /* R2 */
	if (shm_cache_index_offset(index) >= cache->data_bytes)
		return "A4: names a place outside";
	if (!shm_cache_spot_find(cache, index, &spot))
		return "A4: names an old generation of its segment";
	if (shm_cache_word_state(spot.segment_word) == SHM_CACHE_FREE)
		return "A4: names a free segment";
	if (spot.offset >= used_of(cache, &cache->segment[spot.segment]))
		return "A4: names a place beyond used";
	if (!shm_cache_entry_load(cache, &spot, &entry))
		return "A5: names no entry";
	if (shm_cache_bucket_of(cache, entry.hash) != &cache->bucket[bucket])
		return "A5: names an entry of another bucket";
	if (shm_cache_tag_of(entry.hash) != shm_cache_index_tag(index))
		return "A5: has another tag than its entry";
	return NULL;
}

static void
audit_way(struct audit *audit, uint64_t bucket, uint32_t way, bool quiet)
{
	const struct shm_cache *cache = audit->cache;
	const _Atomic uint64_t *word = &cache->bucket[bucket].way[way];
	uint64_t index = SHM_CACHE_RELAXED(*word);
	uint64_t at = shm_cache_index_offset(index) / SHM_CACHE_UNIT;
	const char *fault;

	if (index == 0)
		return;
	fault = index_fault(cache, bucket, index);
	if (fault == NULL && quiet) {
		if (!bit_is_set(audit->begins, at))
			fault = "A6: names the inside of an entry";
		else if (bit_is_set(audit->named, at))
			fault = "A6: names what another one names";
		bit_set(audit->named, at);
	}
	/* While it stands, its entry does: I1 of shm_cache_evict.c. */
	shm_map_fence(memory_order_acquire); /* R4 */
	if (fault != NULL &&
	    ((SHM_CACHE_RELAXED(*word) ^ index) & SHM_CACHE_PLACE_MASK) == 0)
		breach(audit,
		    "%s: bucket %" PRIu64 ", way %" PRIu32 ", word %016" PRIx64,
		    fault, bucket, way, index);
}

uint32_t
shm_cache_audit(
    const struct shm_cache *cache, bool quiet, char *why, size_t why_bytes)
{
	struct audit audit = {
	    .cache = cache, .why = why, .why_bytes = why_bytes};
	size_t words = cache->data_bytes / SHM_CACHE_UNIT / 64;

	if (why_bytes > 0)
		why[0] = '\0';
	audit_head(&audit);
	if (quiet) {
		audit.begins = calloc(words, sizeof(uint64_t));
		audit.named = calloc(words, sizeof(uint64_t));
		if (audit.begins == NULL || audit.named == NULL) {
			breach(&audit, "no memory for a quiet audit");
			quiet = false;
		}
	}
	for (uint32_t i = 0; i < cache->segments_count; i++)
		audit_segment(&audit, i, quiet);
	for (uint64_t i = 0; i < cache->buckets_count; i++)
		for (uint32_t k = 0; k < SHM_CACHE_WAYS; k++)
			audit_way(&audit, i, k, quiet);
	free(audit.begins);
	free(audit.named);
	if (audit.breaches > 0)
		why_bytes = 0;
	audit.breaches += shm_cache_flight_audit(cache, quiet, why, why_bytes);
	if (audit.breaches > 0)
		why_bytes = 0;
	return audit.breaches +
	       shm_cache_intent_audit(cache, quiet, why, why_bytes);
}
