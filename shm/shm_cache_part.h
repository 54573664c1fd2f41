/*
 * What the files shm_cache*.c share and nobody else sees: the layout of the
 * mapping and one process's view of it.
 *
 * LAYOUT of the mapping, each region on a page boundary, offsets only:
 *
 *	head       magic, layout hash, sizes, seed, generations, suspect
 *	slots      struct shm_cache_slot [SHM_CACHE_SLOTS_MAX + 1]
 *	words      uint64_t [segments_count]: a segment's state and owner; in
 *		   what the slots leave of their last page
 *	intents    struct shm_cache_intent [SLOTS_MAX][INTENTS_MAX]
 *	open       uint64_t [OPEN_WORDS]: which workers have an intent open
 *	flights    struct shm_cache_place [FLIGHTS]
 *	segments   struct shm_cache_segment [segments_count]
 *	buckets    struct shm_cache_bucket [buckets_count]
 *	ghost      uint32_t [ghost_count]
 *	data       segments_count * segment_bytes
 */
#ifndef SHM_CACHE_PART_H
#define SHM_CACHE_PART_H

#include <stdatomic.h>

#include "shm/shm_cache.h"
#include "shm/shm_hash.h"
#include "shm/shm_map.h"

#define SHM_CACHE_MAGIC	       0x626f6f6b73636331ULL /* "bookscc1" */
#define SHM_CACHE_OPEN_WORDS   1024 /* a collision costs a load, no more */
#define SHM_CACHE_FLIGHTS      4096 /* a collision: loaded without a claim */
#define SHM_CACHE_SEGMENTS_MIN 256
#define SHM_CACHE_WAYS	       6
#define SHM_CACHE_STRIPES      4 /* of a bucket; two bits of the hash */

/* Die here, if the test of crash points says so: see tests/crash_*.c.  In the
 * program it is nothing at all. */
#ifdef SHM_CRASH_POINTS
void shm_crash_point(const char *name);
#define SHM_CRASH_POINT(name) shm_crash_point(name)
#else
#define SHM_CRASH_POINT(name) ((void)0)
#endif

struct shm_cache_counters {
	_Alignas(128) _Atomic uint64_t counter[SHM_CACHE_COUNTERS_COUNT];
};

/* WHO MAY WRITE: incarnation the master (sweep); counters the process in the
 * slot (OTHER: any process that is in no slot, by fetch_add). */
struct shm_cache_slot {
	_Alignas(128) _Atomic uint32_t incarnation;
	struct shm_cache_counters counters;
};

/* WHO MAY WRITE: the worker in the slot; the master in a sweep.  The state is
 * stored last (release), so that what it names is there. */
enum shm_cache_intent_state {
	SHM_CACHE_INTENT_FREE = 0,
	SHM_CACHE_INTENT_OPEN,
	SHM_CACHE_INTENT_LINGERING, /* unknown: invalidate again at due_us */
};
struct shm_cache_intent {
	_Atomic uint64_t hash[2]; /* one key: the same twice */
	_Atomic uint64_t due_us;
	_Atomic uint64_t state;
};

/* A place of the in-flight table, and its mark: two independent words. */
struct shm_cache_place {
	_Alignas(32) _Atomic uint64_t word;
	_Atomic uint64_t waiters; /* a bit for each slot */
	_Atomic uint64_t mark;	  /* tag, kind and until: ENDED_* of a key */
};

/* What its owner writes with every put.  Away from its word, which every read
 * loads twice and which changes three times in its life. */
struct shm_cache_segment {
	_Alignas(SHM_CACHE_LINE) _Atomic uint64_t birth;
	_Atomic uint64_t used; /* bytes that hold whole entries */
};

struct shm_cache_bucket {
	_Alignas(SHM_CACHE_LINE) _Atomic uint64_t way[SHM_CACHE_WAYS];
	_Atomic uint32_t version[SHM_CACHE_STRIPES];
};

/* On lines of their own: what every read loads, away from what is written
 * often (next_birth). */
struct shm_cache_head {
	uint64_t magic;
	uint64_t layout;
	uint64_t map_bytes;
	uint64_t seed;
	uint64_t buckets_count;
	uint64_t ghost_count;
	uint64_t segment_bytes;
	uint32_t segments_count;
	uint32_t slots_count;
	_Alignas(128) _Atomic uint64_t generation[SHM_CACHE_CLASSES];
	_Atomic uint32_t suspect;
	_Atomic uint64_t lists_open; /* as open[], for the lists class */
	_Alignas(128) _Atomic uint64_t next_birth;
};

_Static_assert(sizeof(struct shm_cache_bucket) == SHM_CACHE_LINE, "a line");
_Static_assert(sizeof(struct shm_cache_segment) == SHM_CACHE_LINE, "a line");
_Static_assert(sizeof(struct shm_cache_place) == 32, "two in a line");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "words must be lock-free");

/*
 * A SEGMENT'S WORD: gen:32 | incarnation:20 | slot:8 | queue:1 | state:3.
 * Slot and incarnation are its owner's; 0 in states without one.
 */
enum shm_cache_state {
	SHM_CACHE_FREE = 0, /* nothing has ever been in it; used is 0 */
	SHM_CACHE_ACTIVE,   /* its owner appends to it, or keeps it as spare */
	SHM_CACHE_SEALED,   /* full; anybody may take it to evict it */
	SHM_CACHE_EVICT,    /* its owner walks it */
};
enum shm_cache_queue {
	SHM_CACHE_SMALL = 0,
	SHM_CACHE_MAIN,
};
#define SHM_CACHE_NONE		   UINT32_MAX /* no segment */
#define SHM_CACHE_INCARNATION_MASK 0xfffffu

static inline uint64_t
shm_cache_word(uint32_t gen, uint32_t incarnation, uint32_t slot,
    enum shm_cache_queue queue, enum shm_cache_state state)
{
	return (uint64_t)gen << 32 |
	       (uint64_t)(incarnation & SHM_CACHE_INCARNATION_MASK) << 12 |
	       (uint64_t)slot << 4 | (uint64_t)queue << 3 | (uint64_t)state;
}

static inline uint32_t
shm_cache_word_gen(uint64_t word)
{
	return (uint32_t)(word >> 32);
}

static inline uint32_t
shm_cache_word_incarnation(uint64_t word)
{
	return (uint32_t)(word >> 12) & SHM_CACHE_INCARNATION_MASK;
}

static inline uint32_t
shm_cache_word_slot(uint64_t word)
{
	return (uint32_t)(word >> 4) & 0xff;
}

static inline enum shm_cache_queue
shm_cache_word_queue(uint64_t word)
{
	return (word >> 3 & 1) != 0 ? SHM_CACHE_MAIN : SHM_CACHE_SMALL;
}

/* 0 to 7: only 0 to 3 are states. */
static inline uint32_t
shm_cache_word_state(uint64_t word)
{
	return (uint32_t)word & 7;
}

/*
 * AN INDEX WORD: offset:32 in units of 8 bytes | gen:12 | freq:2 | tag:18.
 * The tag is never 0, so that no word but an empty one is 0.
 */
#define SHM_CACHE_UNIT	     8
#define SHM_CACHE_TAG_MASK   0x3ffffu
#define SHM_CACHE_GEN_MASK   0xfffu
#define SHM_CACHE_FREQ_MAX   3
#define SHM_CACHE_FREQ_ONE   ((uint64_t)1 << 18)
#define SHM_CACHE_PLACE_MASK (~(uint64_t)0xfffff) /* offset and gen */

static inline uint32_t
shm_cache_tag_of(uint64_t hash)
{
	uint32_t tag = (uint32_t)(hash >> 44) & SHM_CACHE_TAG_MASK;

	return tag != 0 ? tag : 1;
}

static inline uint64_t
shm_cache_index(uint64_t offset, uint32_t gen, uint32_t freq, uint32_t tag)
{
	return offset / SHM_CACHE_UNIT << 32 |
	       (uint64_t)(gen & SHM_CACHE_GEN_MASK) << 20 |
	       (uint64_t)freq << 18 | tag;
}

static inline uint64_t
shm_cache_index_offset(uint64_t index)
{
	return (index >> 32) * SHM_CACHE_UNIT;
}

static inline uint32_t
shm_cache_index_gen(uint64_t index)
{
	return (uint32_t)(index >> 20) & SHM_CACHE_GEN_MASK;
}

static inline uint32_t
shm_cache_index_freq(uint64_t index)
{
	return (uint32_t)(index >> 18) & SHM_CACHE_FREQ_MAX;
}

static inline uint32_t
shm_cache_index_tag(uint64_t index)
{
	return (uint32_t)index & SHM_CACHE_TAG_MASK;
}

/* A queue's segment that this process appends to.  Private memory: it dies
 * with the process, and the sweep seals the segment. */
struct shm_cache_appender {
	uint32_t segment; /* UINT32_MAX: none */
	uint32_t used;	  /* bytes */
	uint64_t word;	  /* as we wrote it */
};

struct shm_cache {
	/* the mapping */
	struct shm_cache_head *head;
	struct shm_cache_slot *slot;
	struct shm_cache_intent *intent; /* [slot * INTENTS_MAX + i] */
	_Atomic uint64_t *open;
	struct shm_cache_place *place;
	_Atomic uint64_t *word; /* of each segment: see shm_cache_put.c */
	struct shm_cache_segment *segment;
	struct shm_cache_bucket *bucket;
	_Atomic uint32_t *ghost;
	_Atomic uint64_t *data; /* words */
	int fd;
	int wake_fd[SHM_CACHE_SLOTS_MAX];

	/* copies of what does not change: never read again from the mapping,
	 * where a wild write could change them */
	struct shm_hash hash;
	uint64_t map_bytes;
	uint64_t buckets_count;
	uint64_t ghost_count;
	uint64_t segment_bytes;
	uint64_t data_bytes;
	uint32_t segments_count;
	uint32_t slots_count;
	uint32_t segment_shift; /* log2 of segment_bytes */
	uint32_t value_max;

	/* this process */
	uint32_t me; /* slot, or SHM_CACHE_SLOT_OTHER */
	uint32_t incarnation;
	struct shm_cache_counters *counters;
	struct shm_cache_policy policy;

	/* shm_cache_put.c, shm_cache_evict.c */
	struct shm_cache_appender small, main, spare;
	struct {
		uint32_t segment;  /* being evicted; UINT32_MAX: none */
		uint32_t at;	   /* bytes walked */
		uint32_t used;	   /* bytes to walk */
		uint32_t survived; /* bytes copied from it */
		uint64_t word;
	} evict;
	uint64_t populated; /* bytes of the data, in our page tables */
	uint32_t scan_hint; /* where the last look for a segment ended */
	bool is_none_free;  /* it found none that is free */

	/* shm_cache_intent.c */
	uint32_t intent_next;  /* where to look for a free one */
	uint32_t intents_open; /* of this process */
	uint32_t intents_lingering;
	uint16_t intents_at[SHM_CACHE_OPEN_WORDS]; /* of them, by open[] */
};

/* ---- shm_cache.c */
#define SHM_CACHE_RELAXED(word) \
	atomic_load_explicit(&(word), memory_order_relaxed)
#define SHM_CACHE_ACQUIRE(word) \
	atomic_load_explicit(&(word), memory_order_acquire)

static inline struct shm_cache_bucket *
shm_cache_bucket_of(const struct shm_cache *cache, uint64_t hash)
{
	/* The low half of the hash, scaled: any number of buckets will do. */
	return &cache->bucket[(uint32_t)hash * cache->buckets_count >> 32];
}

/* The stripe's version word, by bits that the bucket number does not use. */
static inline _Atomic uint32_t *
shm_cache_version_of(const struct shm_cache *cache, uint64_t hash)
{
	return &shm_cache_bucket_of(cache, hash)->version[hash >> 62];
}

/* ---- shm_cache_get.c */
/* Would an answer of class cls, loaded under lease, be current? */
bool shm_cache_lease_holds(const struct shm_cache *cache,
    const struct shm_cache_key *key, const struct shm_cache_lease *lease,
    uint32_t cls);

void shm_cache_add(
    struct shm_cache *cache, enum shm_cache_counter counter, uint64_t n);

/* ---- shm_cache_intent.c: is a write to this key under way in this task? */
static inline bool
shm_cache_is_open(const struct shm_cache *cache, uint64_t hash)
{
	/* R1: acquire, pairs with W1 of shm_cache_intent.c */
	return SHM_CACHE_ACQUIRE(
		   cache->open[(hash >> 32) % SHM_CACHE_OPEN_WORDS]) != 0;
}
void shm_cache_intent_sweep(struct shm_cache *cache, uint32_t slot,
    uint64_t now_us, struct shm_cache_debt *debt);
uint32_t shm_cache_intent_count(const struct shm_cache *cache);
uint32_t shm_cache_intent_audit(
    const struct shm_cache *cache, bool quiet, char *why, size_t why_bytes);

/* ---- shm_cache_flight.c */
void shm_cache_flight_sweep(struct shm_cache *cache, uint32_t slot);
uint32_t shm_cache_flight_count(const struct shm_cache *cache);
uint32_t shm_cache_flight_audit(
    const struct shm_cache *cache, bool quiet, char *why, size_t why_bytes);

/* ---- shm_cache_put.c */
/* The appender with room for bytes, preferably of queue; NULL: there is none.
 * What is written at its used becomes part of the log by _advance(), and is
 * taken back by _retreat() if nothing names it. */
struct shm_cache_appender *shm_cache_append_room(
    struct shm_cache *cache, enum shm_cache_queue queue, uint32_t bytes);
void shm_cache_append_advance(struct shm_cache *cache,
    struct shm_cache_appender *appender, uint32_t bytes);
void shm_cache_append_retreat(struct shm_cache *cache,
    struct shm_cache_appender *appender, uint32_t bytes);

/* ---- shm_cache_evict.c */
/* Walk some entries on, so that there will be room. */
void shm_cache_evict(struct shm_cache *cache, uint64_t now_us);
/* Was it evicted from the small queue not long ago?  Forgets it. */
bool shm_cache_ghost_take(struct shm_cache *cache, uint64_t hash);

/* ---- shm_cache_sweep.c */
void shm_cache_segment_sweep(struct shm_cache *cache, uint32_t slot);

#endif
