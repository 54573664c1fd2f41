/*
 * The book cache: complete answers in memory that all processes of one booksd
 * share, without a lock.  docs/SHM.md tells how it works and why it holds.
 *
 * A request's way through it:
 *
 *	shm_cache_get()		HIT or STALE: shm_cache_copy(), answer
 *	shm_cache_claim()	else: load it, wait for who does, or load alone
 *	shm_cache_put()		the loaded answer, under the lease of the get
 *	shm_cache_claim_end()	waiters are woken and look again
 *
 * and a write's:
 *
 *	shm_cache_intent_open()	before the statement is sent
 *	shm_cache_intent_close()	the outcome is known, before the answer
 *	shm_cache_intent_unknown()	it never will be
 *
 * All times are shm_clock_us() values that the caller passes, so that one turn
 * of a loop has one time and tests have their own.
 */
#ifndef SHM_CACHE_H
#define SHM_CACHE_H

#include "shm/shm_base.h"

#define SHM_CACHE_SLOTS_MAX   64   /* workers; as many waiter bits fit a word */
#define SHM_CACHE_SLOT_OTHER  64   /* ops and tools: no claims, puts, intents */
#define SHM_CACHE_KEY_MAX     1100 /* longer: not cached.  255 code points */
#define SHM_CACHE_VALUE_MAX   65536 /* and a quarter of a segment: TOO_LARGE */
#define SHM_CACHE_INTENTS_MAX 256   /* writes under way per worker: then 503 */
#define SHM_CACHE_BYTES_MIN   (1u << 20)
#define SHM_CACHE_BYTES_MAX   (UINT64_C(32) << 30) /* 32-bit offsets of words */

struct shm_cache; /* one process's view of it */

/* What an entry is about.  A flush or a write can turn against one class. */
enum shm_cache_class {
	SHM_CACHE_BOOK = 0,
	SHM_CACHE_LIST,
	SHM_CACHE_NEGATIVE, /* "there is no such book" */
	SHM_CACHE_CLASSES,
};

/* ---- making it */

struct shm_cache_options {
	uint64_t bytes; /* of the data region, SHM_CACHE_BYTES_MIN to MAX */
	uint32_t slots_count; /* places of workers: 1 to SHM_CACHE_SLOTS_MAX */
	uint32_t workers;     /* that fill them at a time; 0: all */
	uint64_t seed;	      /* of the hash; 0: from getrandom(2) */
	uint32_t mean_bytes;  /* of an entry, for the index; 0: 512 */
};

/* The whole mapping's size for options, for comparison with a memory limit
 * before anything is touched. */
uint64_t shm_cache_map_bytes(const struct shm_cache_options *options);

/* May slots_count workers share so small a cache?  *least is what they need. */
bool shm_cache_is_large_enough(
    const struct shm_cache_options *options, uint64_t *least) SHM_MUSTCHECK;

/*
 * Map and pre-fault it.  Master, before the first fork; tests.  NULL with
 * errno.  The handle is inherited by fork(2) and used by one thread.
 */
struct shm_cache *
shm_cache_new(const struct shm_cache_options *options) SHM_MUSTCHECK;
/* Unmaps this process's view.  Takes; NULL is fine. */
void shm_cache_free(struct shm_cache **cache);

/*
 * After fork: be slot (a worker), or SHM_CACHE_SLOT_OTHER.  Populates this
 * process's page tables for all but the data.  The slot's incarnation, as the
 * master left it, is what everything this process owns is marked with.
 */
void shm_cache_enter(struct shm_cache *cache, uint32_t slot);

/* Populate the page tables for another SHM_CACHE_POPULATE_BYTES of the data, a
 * fraction of a millisecond; true while there is more.  Between two turns of a
 * worker's loop, so that it serves from the start. */
#define SHM_CACHE_POPULATE_BYTES (UINT64_C(1) << 20)
bool shm_cache_populate(struct shm_cache *cache);

/* The memfd and a hash of everything that its layout depends on: a binary that
 * computes another hash for the fd it was given makes a new cache. */
int shm_cache_fd(const struct shm_cache *cache);
uint64_t shm_cache_layout(const struct shm_cache *cache);
/* Those of all slots, SHM_CACHE_SLOTS_MAX, -1: none. */
const int *shm_cache_wake_fds(const struct shm_cache *cache);
/* Map what fd holds; NULL with errno EPROTO: another layout, not usable.  fd
 * and wake_fd (of all slots; NULL: new ones) are the cache's on success. */
struct shm_cache *
shm_cache_adopt(int fd, uint64_t layout, const int *wake_fd) SHM_MUSTCHECK;

/* How a class's answers age: per process, the same in all of them.  Before
 * the first get. */
struct shm_cache_policy {
	uint64_t stale_us; /* after fresh: STALE, served while it is reloaded */
	uint64_t error_us; /* after that: ERROR_ONLY */
	bool lists_relaxed; /* a write makes lists STALE, not MISS */
	uint64_t linger_us; /* how long a lost statement may still commit */
};
void shm_cache_set_policy(
    struct shm_cache *cache, const struct shm_cache_policy *policy);

/* ---- keys */

struct shm_cache_key {
	const char *data; /* borrowed */
	uint32_t len;	  /* 1 to SHM_CACHE_KEY_MAX */
	uint32_t cls;	  /* enum shm_cache_class of what is looked for; a
			     NEGATIVE entry is found under BOOK too */
	uint64_t hash;
};

/* Fill key->hash from data and len (seeded).  Any process. */
void
shm_cache_key_hash(const struct shm_cache *cache, struct shm_cache_key *key);

/* Fetch what a get will touch: the bucket first and, when that has had time
 * to arrive, the entry. */
void shm_cache_prefetch_bucket(const struct shm_cache *cache, uint64_t hash);
void shm_cache_prefetch_entry(const struct shm_cache *cache, uint64_t hash);

/* ---- reading */

enum shm_cache_found {
	SHM_CACHE_HIT = 0,
	SHM_CACHE_STALE,      /* serve it; somebody should reload it */
	SHM_CACHE_ERROR_ONLY, /* serve it only when loading fails */
	SHM_CACHE_MISS,
};

/* The state of the world at a lookup.  What is loaded after it may be stored
 * under it, and is served as long as nothing has happened since. */
struct shm_cache_lease {
	uint64_t generation[SHM_CACHE_CLASSES]; /* hard << 32 | soft */
	uint64_t taken_us;
	uint32_t version; /* of the stripe */
	uint32_t suspect;
};

/*
 * What is known of an answer without copying it: the words of its entry as
 * they lie in the cache, so that a lookup copies them and takes nothing apart.
 */
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "The fields below are where they belong on little-endian processors only"
#endif
#define SHM_CACHE_ENTRY_WORDS 7
struct shm_cache_view {
	union {
		uint64_t word[SHM_CACHE_ENTRY_WORDS];
		struct {
			/* 0 */
			uint64_t hash; /* of the key */
			/* 1 */
			uint32_t value_bytes : 20; /* head and body */
			uint32_t key_bytes : 12;
			uint32_t version; /* of the stripe, in the lease */
			/* 2 */
			uint64_t status : 12;
			uint64_t cls : 4;
			/* when its load began: now - taken_us is its age */
			uint64_t taken_us : 48;
			/* 3 */
			uint32_t modified_s; /* Last-Modified; 0: none */
			uint32_t fresh_ms;
			/* 4 */
			uint64_t generation; /* of the class, in the lease */
			/* 5 */
			uint64_t id; /* of the row; of a list, the hash of its
					content */
			/* 6 */
			uint32_t head_bytes : 12; /* of the value */
			uint32_t suspect : 20;	  /* in the lease */
			uint32_t row_version;
		};
	};

	/* private: where it lies, and what must not have changed */
	uint64_t segment_word;
	uint64_t offset; /* from the start of the data */
};
_Static_assert(offsetof(struct shm_cache_view, segment_word) ==
		   SHM_CACHE_ENTRY_WORDS * sizeof(uint64_t),
    "the fields are the words");

/*
 * Look key up.  *lease is always written, *view unless MISS.  Any worker; waits
 * for nobody, a bounded number of tries, no system call.
 *
 * What was invalidated is MISS, never ERROR_ONLY; what expired or is suspect
 * can be ERROR_ONLY.  While a write to this key is under way in this task (an
 * open intent) the result is MISS: whoever asks now, loads.  (Lists: unless
 * the policy is relaxed.)
 */
enum shm_cache_found shm_cache_get(struct shm_cache *cache,
    const struct shm_cache_key *key, uint64_t now_us,
    struct shm_cache_lease *lease, struct shm_cache_view *view) SHM_MUSTCHECK;

/*
 * Copy bytes [from, from + len) of the value to out, and only then find out
 * whether they are what view describes: false means that out holds rubbish
 * (the entry went away): get again.
 */
bool shm_cache_copy(struct shm_cache *cache, const struct shm_cache_view *view,
    uint32_t from, uint32_t len, void *out) SHM_MUSTCHECK;

/* ---- loading: one at a time for a key, among all workers */

enum shm_cache_claim {
	SHM_CACHE_CLAIM_MINE = 0, /* get again (another may have stored it since
				     the miss), else load, put, claim_end() */
	SHM_CACHE_CLAIM_OTHER,	  /* somebody loads: claim_wait() */
	SHM_CACHE_CLAIM_ALONE,	  /* load without a claim (another key has the
				     place, or a value is too large to store) */
	SHM_CACHE_CLAIM_FAILED,	  /* it failed a moment ago: answer from an
				     ERROR_ONLY entry, or 503 */
};

struct shm_cache_flight {
	uint64_t word;	/* private: what we wrote; 0: no claim */
	uint64_t seen;	/* private: OTHER: whose claim we met */
	uint32_t index; /* of the place, to find those who wait on it */
};

/* Claim the loading of key until deadline_us (after now_us; at most 4 minutes
 * count), after which others may. */
enum shm_cache_claim shm_cache_claim(struct shm_cache *cache,
    const struct shm_cache_key *key, uint64_t now_us, uint64_t deadline_us,
    struct shm_cache_flight *flight) SHM_MUSTCHECK;

/* After OTHER: ask to be woken.  False: it has ended already, look again.
 * True: shm_cache_wake_fd() becomes readable when it ends; a waiter looks
 * again after SHM_CACHE_WAIT_US all the same. */
#define SHM_CACHE_WAIT_US 50000
bool shm_cache_claim_wait(struct shm_cache *cache,
    const struct shm_cache_flight *flight) SHM_MUSTCHECK;

/* Is the claim still ours?  (Not after its deadline, if another took it.) */
bool shm_cache_claim_is_mine(
    const struct shm_cache *cache, const struct shm_cache_flight *flight);

enum shm_cache_ended {
	SHM_CACHE_ENDED_STORED = 0,
	SHM_CACHE_ENDED_UNSTORED, /* for 1 s others load in parallel: ALONE */
	SHM_CACHE_ENDED_FAILED,	  /* for 1 s others do not ask: FAILED */
	SHM_CACHE_ENDED_NOTHING,  /* given back; no mark */
};

/* The load is over.  Wakes those who wait, by a write(2) each.  flight->word
 * becomes 0; a flight without a claim is fine. */
void
shm_cache_claim_end(struct shm_cache *cache, struct shm_cache_flight *flight,
    const struct shm_cache_key *key, enum shm_cache_ended how, uint64_t now_us);

/* This worker's eventfd(2), non-blocking; readable: look at all waiters. */
int shm_cache_wake_fd(const struct shm_cache *cache);

/* ---- storing */

struct shm_cache_value {
	uint64_t id;
	uint32_t row_version;
	uint32_t modified_s;
	uint64_t fresh_us; /* counted from the lease */
	uint16_t status;
	uint8_t cls; /* BOOK and LIST as the key; NEGATIVE for a BOOK */
	const char *head;
	uint32_t head_bytes; /* under 4 KiB */
	const char *body;
	uint32_t body_bytes;
};

enum shm_cache_stored {
	SHM_CACHE_STORED = 0,
	SHM_CACHE_OUTDATED, /* the lease is: something happened meanwhile */
	SHM_CACHE_OLDER,    /* the cache has a newer row */
	SHM_CACHE_LOST,	    /* the claim is another's now */
	SHM_CACHE_TOO_LARGE,
	SHM_CACHE_GAVE_UP, /* no place could be made at once */
};

/* Largest head_bytes + body_bytes + key length that can be stored. */
uint32_t shm_cache_value_max(const struct shm_cache *cache);

/*
 * Store what was loaded after lease was taken.  flight: NULL or without a
 * claim when loaded alone.  Evicts at most a few entries; no system call.  A
 * result other than STORED is no error: the requester is served anyway.
 */
enum shm_cache_stored
shm_cache_put(struct shm_cache *cache, const struct shm_cache_key *key,
    const struct shm_cache_lease *lease, const struct shm_cache_value *value,
    const struct shm_cache_flight *flight, uint64_t now_us) SHM_MUSTCHECK;

/* ---- invalidation: any process, any time, wait-free */

/* Nothing that was loaded before now is served for this key's stripe. */
void shm_cache_invalidate(struct shm_cache *cache, uint64_t hash);
/* The same for a whole class. */
void shm_cache_flush(struct shm_cache *cache, enum shm_cache_class cls);
/* A book changed: lists become MISS, or STALE where the policy is relaxed. */
void shm_cache_lists_changed(struct shm_cache *cache);
/* Notifications may have been missed: everything older is ERROR_ONLY. */
void shm_cache_suspect(struct shm_cache *cache);

/* ---- writes under way */

/*
 * A write is about to be sent that touches the keys with these hashes (one or
 * two) and the lists.  Until it is closed nothing cached for them is served in
 * this task.  Returns its number, or -1: SHM_CACHE_INTENTS_MAX are open, answer
 * 503.
 */
int shm_cache_intent_open(struct shm_cache *cache, const uint64_t *hashes,
    uint32_t count) SHM_MUSTCHECK;
/* Its outcome is known, or it was never sent.  Invalidates, then closes. */
void shm_cache_intent_close(struct shm_cache *cache, int intent);
/* Its outcome is unknown.  Invalidates now, and again when the statement can
 * no longer commit (policy.linger_us); the number is gone at once, its place
 * only then. */
void
shm_cache_intent_unknown(struct shm_cache *cache, int intent, uint64_t now_us);
/* Does what is due; microseconds until the next, UINT64_MAX: nothing. */
uint64_t shm_cache_intent_tick(struct shm_cache *cache, uint64_t now_us);

/* ---- death: the master alone, after waitpid(2) */

/* What a dead worker's writes may still do: kept by the master. */
struct shm_cache_debt {
	uint64_t due_us; /* invalidate again then */
	uint32_t count;
	uint64_t hash[SHM_CACHE_INTENTS_MAX * 2];
};

/*
 * The process in slot is dead: all that it owned becomes nobody's, those who
 * wait for it are woken, its open writes are invalidated and noted in *debt
 * (due_us 0: there are none).  Before the slot is used again.
 */
void shm_cache_sweep(struct shm_cache *cache, uint32_t slot, uint64_t now_us,
    struct shm_cache_debt *debt);
/* When debt->due_us has come.  debt->due_us becomes 0. */
void shm_cache_settle(struct shm_cache *cache, struct shm_cache_debt *debt);

/* ---- looking at it: any process, any time */

/* SHM_CACHE_COUNTER(name, help) in the order in which people are shown them. */
#define SHM_CACHE_COUNTERS                                                     \
	SHM_CACHE_COUNTER(hits, "answers served fresh from the cache")         \
	SHM_CACHE_COUNTER(misses, "lookups that found nothing to serve")       \
	SHM_CACHE_COUNTER(stale, "answers served stale")                       \
	SHM_CACHE_COUNTER(coalesced, "answers that waited for another's load") \
	SHM_CACHE_COUNTER(negative, "answers that a book does not exist, "     \
				    "from the cache")                          \
	SHM_CACHE_COUNTER(not_modified, "304 answers from the cache")          \
	SHM_CACHE_COUNTER(puts, "answers stored")                              \
	SHM_CACHE_COUNTER(puts_refused,                                        \
	    "answers not stored: outdated, older, "                            \
	    "too large or no place")                                           \
	SHM_CACHE_COUNTER(evictions, "entries dropped to make room")           \
	SHM_CACHE_COUNTER(promotions, "entries kept because they were used")   \
	SHM_CACHE_COUNTER(invalidations, "stripes invalidated by writes and "  \
					 "notifications")                      \
	SHM_CACHE_COUNTER(flushes, "whole classes invalidated")                \
	SHM_CACHE_COUNTER(suspects, "times that notifications may have been "  \
				    "missed")                                  \
	SHM_CACHE_COUNTER(retries, "reads that met a change and looked again") \
	SHM_CACHE_COUNTER(loads, "claims taken to load an answer")             \
	SHM_CACHE_COUNTER(steals, "claims taken over from a late or dead "     \
				  "loader")                                    \
	SHM_CACHE_COUNTER(load_failures, "loads that the database failed")

enum shm_cache_counter {
#define SHM_CACHE_COUNTER(name, help) SHM_CACHE_##name,
	SHM_CACHE_COUNTERS
#undef SHM_CACHE_COUNTER
	    SHM_CACHE_COUNTERS_COUNT
};

/* Counted by the worker, whose answer it is: hits, misses, stale, coalesced,
 * negative, not_modified.  All others count themselves. */
void shm_cache_count(struct shm_cache *cache, enum shm_cache_counter counter);

struct shm_cache_stats {
	uint64_t counter[SHM_CACHE_COUNTERS_COUNT]; /* all processes, ever */
	uint64_t map_bytes;
	uint64_t data_bytes; /* of the data region */
	uint64_t used_bytes; /* of it in segments that hold something */
	uint64_t segment_bytes;
	uint32_t segments_count;
	uint32_t segments_free;
	uint32_t segments_small;
	uint32_t segments_main;
	uint32_t segments_active; /* owned by a worker */
	uint64_t buckets_count;
	uint64_t entries; /* index words in use: an estimate of live entries */
	uint32_t intents_open;
	uint32_t flights; /* loads under way */
};
/* Looks at the index: a millisecond or so for a large cache. */
void
shm_cache_stats(const struct shm_cache *cache, struct shm_cache_stats *stats);
/* The counters alone, in no time. */
void shm_cache_counters(
    const struct shm_cache *cache, uint64_t counter[SHM_CACHE_COUNTERS_COUNT]);
const char *shm_cache_counter_name(enum shm_cache_counter counter);
const char *shm_cache_counter_help(enum shm_cache_counter counter);

/* One entry as a dump shows it. */
struct shm_cache_dumped {
	char key[SHM_CACHE_KEY_MAX + 1];
	uint32_t key_len;
	uint32_t frequency; /* 0 to 3 */
	uint8_t cls;
	uint16_t status;
	uint32_t value_bytes;
	uint32_t row_version;
	uint64_t taken_us;
	bool is_served; /* version and generation are current */
};
/* Call each for every entry that the index names, until it returns false. */
void shm_cache_dump(const struct shm_cache *cache, uint64_t now_us,
    bool (*each)(void *owner, const struct shm_cache_dumped *dumped),
    void *owner);

/*
 * Are the invariants of docs/SHM.md kept?  Returns the number of breaches and
 * describes the first in why.  quiet: nobody else is running, so that exact
 * sums are compared too; else only what holds at any moment.
 */
uint32_t shm_cache_audit(
    const struct shm_cache *cache, bool quiet, char *why, size_t why_bytes);

#endif
