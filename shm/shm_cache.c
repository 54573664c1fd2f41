/*
 * The book cache's mapping: how large its regions are, who makes and adopts
 * it, and the words that end the validity of what it holds.
 *
 * LAYOUT: see shm_cache_part.h and docs/SHM.md.  Sizes follow from the
 * options alone (struct layout below); an adopted mapping's are read once from
 * its head, checked, and copied to private memory.
 *
 * WHO MAY WRITE
 *	head		before the first fork the master; then only its
 *			generations, suspect (any process, fetch_add)
 *	bucket.version	any process, fetch_add
 *	counters	the process in the slot; of OTHER any, by fetch_add
 *
 * INVARIANTS
 *	I1 versions, generations and suspect only ever grow (modulo their size)
 *	I2 an entry is served only if the version of its stripe and the hard
 *	   generation of its class are the ones of the lease it was loaded under
 *
 * MEMORY ORDER
 *	W1 fetch_add of a version or generation, acq_rel: pairs with R1, the
 *	   acquire loads of shm_cache_get() before anything else is read.  A
 *	   request that arrives after the answer of a write is ordered behind
 *	   the write's W1 by the kernel's socket, so its R1 sees it.
 *
 * A WRITER DIES INSIDE: each invalidation is one instruction.
 *
 * LIMITS: a version has 32 bits.  An entry would have to lie still for 2^32
 * invalidations of its stripe to be taken for a current one.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "shm/shm_cache_entry.h"

#define CACHE_LAYOUT_VERSION  2
#define CACHE_PAGE	      4096
#define CACHE_SEGMENT_MIN     16384
#define CACHE_SEGMENT_MAX     (64u << 20)
#define CACHE_MEAN_BYTES      512
#define CACHE_MEAN_BYTES_MIN  64
#define CACHE_WORKER_SEGMENTS 3	 /* owned at once: small, main, spare */
#define CACHE_WORKERS_SHARE   20 /* all of those: at most a 20th, 5 % */

/* Where everything lies.  Counts first, then offsets from the start. */
struct layout {
	uint64_t segment_bytes, segments_count, slots_count;
	uint64_t buckets_count, ghost_count;
	uint64_t slots, intents, open, places, words, segments, buckets, ghost,
	    data;
	uint64_t map_bytes;
};

static uint64_t
layout_region(uint64_t *end, uint64_t bytes)
{
	uint64_t start = *end;

	*end = (start + bytes + CACHE_PAGE - 1) & ~(uint64_t)(CACHE_PAGE - 1);
	return start;
}

/* Offsets from counts. */
static void
layout_place(struct layout *layout)
{
	const uint64_t slots_bytes =
	    sizeof(struct shm_cache_slot) * (SHM_CACHE_SLOTS_MAX + 1);
	uint64_t end = 0;

	(void)layout_region(&end, sizeof(struct shm_cache_head));
	/* 256 words are no more than the slots leave of their last page. */
	layout->slots = layout_region(
	    &end, slots_bytes + sizeof(uint64_t) * layout->segments_count);
	layout->words = layout->slots + slots_bytes;
	layout->intents = layout_region(&end, sizeof(struct shm_cache_intent) *
						  layout->slots_count *
						  SHM_CACHE_INTENTS_MAX);
	layout->open =
	    layout_region(&end, sizeof(uint64_t) * SHM_CACHE_OPEN_WORDS);
	layout->places = layout_region(
	    &end, sizeof(struct shm_cache_place) * SHM_CACHE_FLIGHTS);
	layout->segments = layout_region(
	    &end, sizeof(struct shm_cache_segment) * layout->segments_count);
	layout->buckets = layout_region(
	    &end, sizeof(struct shm_cache_bucket) * layout->buckets_count);
	layout->ghost =
	    layout_region(&end, sizeof(uint32_t) * layout->ghost_count);
	layout->data =
	    layout_region(&end, layout->segment_bytes * layout->segments_count);
	layout->map_bytes = end;
}

static uint32_t
workers_of(const struct shm_cache_options *options)
{
	return options->workers != 0 ? options->workers : options->slots_count;
}

/* The fewest segments that so many workers can share. */
static uint64_t
layout_segments_least(uint32_t slots_count)
{
	uint64_t least =
	    (uint64_t)slots_count * CACHE_WORKER_SEGMENTS * CACHE_WORKERS_SHARE;

	return least > SHM_CACHE_SEGMENTS_MIN ? least : SHM_CACHE_SEGMENTS_MIN;
}

static void
layout_of(struct layout *layout, const struct shm_cache_options *options)
{
	uint64_t mean = options->mean_bytes;
	uint64_t least = layout_segments_least(workers_of(options));

	*layout = (struct layout){
	    .segment_bytes = CACHE_SEGMENT_MIN,
	    .slots_count = options->slots_count,
	};
	while (layout->segment_bytes < CACHE_SEGMENT_MAX &&
	       options->bytes / (layout->segment_bytes * 2) >= least)
		layout->segment_bytes *= 2;
	layout->segments_count = options->bytes / layout->segment_bytes;
	if (mean == 0)
		mean = CACHE_MEAN_BYTES;
	if (mean < CACHE_MEAN_BYTES_MIN)
		mean = CACHE_MEAN_BYTES_MIN;
	/* A ghost for each object that fits, and no more: remembering longer
	 * lets too much into the main queue.  Two objects to a bucket. */
	layout->ghost_count = options->bytes / mean;
	layout->buckets_count = layout->ghost_count / 2;
	if (layout->buckets_count < 64)
		layout->buckets_count = 64;
	if (layout->ghost_count < 64)
		layout->ghost_count = 64;
	layout_place(layout);
}

/* Of everything that two binaries must agree on to share a mapping. */
static uint64_t
layout_hash(void)
{
	static const uint64_t numbers[] = {
	    CACHE_LAYOUT_VERSION,
	    SHM_CACHE_SLOTS_MAX,
	    SHM_CACHE_INTENTS_MAX,
	    SHM_CACHE_OPEN_WORDS,
	    SHM_CACHE_FLIGHTS,
	    SHM_CACHE_WAYS,
	    SHM_CACHE_STRIPES,
	    SHM_CACHE_CLASSES,
	    SHM_CACHE_COUNTERS_COUNT,
	    SHM_CACHE_ENTRY_BYTES,
	    SHM_CACHE_ALIGNED_MIN,
	    sizeof(struct shm_cache_head),
	    sizeof(struct shm_cache_slot),
	    sizeof(struct shm_cache_intent),
	    sizeof(struct shm_cache_place),
	    sizeof(uint64_t), /* a segment's word */
	    sizeof(struct shm_cache_segment),
	    sizeof(struct shm_cache_bucket),
	};
	uint64_t hash = SHM_CACHE_MAGIC;

	for (size_t i = 0; i < SHM_ARRAY_LEN(numbers); i++)
		hash = shm_hash_number(hash ^ numbers[i]);
	return hash;
}

uint64_t
shm_cache_map_bytes(const struct shm_cache_options *options)
{
	struct layout layout;

	layout_of(&layout, options);
	return layout.map_bytes;
}

bool
shm_cache_is_large_enough(
    const struct shm_cache_options *options, uint64_t *least)
{
	*least = (uint64_t)workers_of(options) * CACHE_WORKER_SEGMENTS *
		 CACHE_WORKERS_SHARE * CACHE_SEGMENT_MIN;
	if (*least < SHM_CACHE_BYTES_MIN)
		*least = SHM_CACHE_BYTES_MIN;
	return options->bytes >= *least;
}

/* ---- one process's view */

static void
cache_view(struct shm_cache *cache, char *start, const struct layout *layout)
{
	cache->head = (void *)start;
	cache->slot = (void *)(start + layout->slots);
	cache->intent = (void *)(start + layout->intents);
	cache->open = (void *)(start + layout->open);
	cache->place = (void *)(start + layout->places);
	cache->word = (void *)(start + layout->words);
	cache->segment = (void *)(start + layout->segments);
	cache->bucket = (void *)(start + layout->buckets);
	cache->ghost = (void *)(start + layout->ghost);
	cache->data = (void *)(start + layout->data);

	cache->map_bytes = layout->map_bytes;
	cache->buckets_count = layout->buckets_count;
	cache->ghost_count = layout->ghost_count;
	cache->segment_bytes = layout->segment_bytes;
	cache->segments_count = (uint32_t)layout->segments_count;
	cache->data_bytes = layout->segment_bytes * layout->segments_count;
	cache->segment_shift = (uint32_t)__builtin_ctzll(layout->segment_bytes);
	cache->value_max = (uint32_t)(layout->segment_bytes / 4);
	if (cache->value_max > SHM_CACHE_VALUE_MAX)
		cache->value_max = SHM_CACHE_VALUE_MAX;
}

/* Be nobody: until shm_cache_enter(), and again in each child. */
static void
cache_be(struct shm_cache *cache, uint32_t slot)
{
	cache->me = slot;
	cache->incarnation = SHM_CACHE_RELAXED(cache->slot[slot].incarnation);
	cache->counters = &cache->slot[slot].counters;
	cache->small.segment = UINT32_MAX;
	cache->main.segment = UINT32_MAX;
	cache->spare.segment = UINT32_MAX;
	cache->evict.segment = UINT32_MAX;
	cache->scan_hint = 0;
	cache->populated = 0;
	cache->is_none_free = false;
	cache->intent_next = 0;
	cache->intents_open = 0;
	cache->intents_lingering = 0;
	memset(cache->intents_at, 0, sizeof(cache->intents_at));
}

/* The eventfds by which workers are woken: all of them before the first fork,
 * so that everybody has everybody's.  Those of another binary's workers, too:
 * given are the same ones. */
static int
cache_wakers_open(struct shm_cache *cache, uint32_t count, const int *given)
{
	for (uint32_t i = 0; i < SHM_CACHE_SLOTS_MAX; i++)
		cache->wake_fd[i] = given != NULL && i < count ? given[i] : -1;
	if (given != NULL)
		return 0;
	for (uint32_t i = 0; i < count; i++) {
		cache->wake_fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (cache->wake_fd[i] == -1)
			return -1;
	}
	return 0;
}

static void
cache_wakers_close(struct shm_cache *cache)
{
	int saved = errno;

	for (uint32_t i = 0; i < SHM_CACHE_SLOTS_MAX; i++)
		if (cache->wake_fd[i] != -1)
			close(cache->wake_fd[i]);
	errno = saved;
}

static uint64_t
seed_random(void)
{
	uint64_t seed = 0;

	if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed))
		seed = shm_wallclock_us() ^ (uint64_t)(uintptr_t)&seed;
	return seed;
}

/* A fresh mapping is all zero, which is a valid empty cache but for this. */
static void
head_init(struct shm_cache *cache, const struct shm_cache_options *options)
{
	struct shm_cache_head *head = cache->head;

	head->layout = layout_hash();
	head->map_bytes = cache->map_bytes;
	head->seed = options->seed != 0 ? options->seed : seed_random();
	head->buckets_count = cache->buckets_count;
	head->ghost_count = cache->ghost_count;
	head->segment_bytes = cache->segment_bytes;
	head->segments_count = cache->segments_count;
	head->slots_count = options->slots_count;
	head->magic = SHM_CACHE_MAGIC;
}

struct shm_cache *
shm_cache_new(const struct shm_cache_options *options)
{
	struct layout layout;
	struct shm_cache *cache;
	void *start;
	int saved;

	SHM_ASSERT(options->slots_count >= 1 &&
		   options->slots_count <= SHM_CACHE_SLOTS_MAX);
	SHM_ASSERT(options->bytes >= SHM_CACHE_BYTES_MIN);
	SHM_ASSERT(options->bytes <= SHM_CACHE_BYTES_MAX);
	layout_of(&layout, options);
	cache = calloc(1, sizeof(*cache));
	if (cache == NULL)
		return NULL;
	if (cache_wakers_open(cache, options->slots_count, NULL) == -1)
		goto close_wakers;
	start = shm_map_new(layout.map_bytes, &cache->fd);
	if (start == NULL)
		goto close_wakers;
	cache_view(cache, start, &layout);
	head_init(cache, options);
	shm_hash_init(&cache->hash, cache->head->seed);
	cache->slots_count = options->slots_count;
	cache_be(cache, SHM_CACHE_SLOT_OTHER);
	return cache;
close_wakers:
	cache_wakers_close(cache);
	saved = errno;
	free(cache);
	errno = saved;
	return NULL;
}

void
shm_cache_free(struct shm_cache **cache)
{
	struct shm_cache *old = *cache;

	*cache = NULL;
	if (old == NULL)
		return;
	cache_wakers_close(old);
	shm_map_free(old->head, old->map_bytes);
	close(old->fd);
	free(old);
}

/* Are these the counts of a layout that fits the file?  They come from a file
 * that another binary wrote. */
static bool
head_is_usable(
    const struct shm_cache_head *head, uint64_t bytes, struct layout *layout)
{
	*layout = (struct layout){
	    .segment_bytes = head->segment_bytes,
	    .segments_count = head->segments_count,
	    .slots_count = head->slots_count,
	    .buckets_count = head->buckets_count,
	    .ghost_count = head->ghost_count,
	};
	if (head->magic != SHM_CACHE_MAGIC || head->layout != layout_hash() ||
	    head->map_bytes != bytes || head->slots_count == 0 ||
	    head->slots_count > SHM_CACHE_SLOTS_MAX)
		return false;
	if (layout->segment_bytes < CACHE_SEGMENT_MIN ||
	    layout->segment_bytes > CACHE_SEGMENT_MAX ||
	    (layout->segment_bytes & (layout->segment_bytes - 1)) != 0 ||
	    layout->segments_count == 0 || layout->buckets_count == 0 ||
	    layout->ghost_count == 0)
		return false;
	/* So that no product below can overflow. */
	if (layout->buckets_count > bytes || layout->ghost_count > bytes ||
	    layout->segments_count > bytes / layout->segment_bytes)
		return false;
	layout_place(layout);
	return layout->map_bytes == bytes;
}

struct shm_cache *
shm_cache_adopt(int fd, uint64_t layout_given, const int *wake_fd)
{
	struct layout layout;
	struct shm_cache *cache;
	uint64_t bytes = shm_map_fd_bytes(fd);
	void *start;
	int saved;

	if (layout_given != layout_hash() ||
	    bytes < sizeof(struct shm_cache_head)) {
		errno = EPROTO;
		return NULL;
	}
	start = shm_map_fd(fd, bytes);
	if (start == NULL)
		return NULL;
	errno = EPROTO;
	if (!head_is_usable(start, bytes, &layout))
		goto unmap;
	cache = calloc(1, sizeof(*cache));
	if (cache == NULL)
		goto unmap;
	cache_view(cache, start, &layout);
	shm_hash_init(&cache->hash, cache->head->seed);
	cache->slots_count = cache->head->slots_count;
	cache->fd = fd;
	if (cache_wakers_open(cache, cache->slots_count, wake_fd) == -1)
		goto close_wakers;
	cache_be(cache, SHM_CACHE_SLOT_OTHER);
	return cache;
close_wakers:
	cache_wakers_close(cache);
	saved = errno;
	free(cache);
	errno = saved;
unmap:
	saved = errno;
	shm_map_free(start, bytes);
	errno = saved;
	return NULL;
}

void
shm_cache_enter(struct shm_cache *cache, uint32_t slot)
{
	SHM_ASSERT(slot < cache->slots_count || slot == SHM_CACHE_SLOT_OTHER);
	cache_be(cache, slot);
	shm_map_populate(
	    cache->head, (uint64_t)((char *)cache->data - (char *)cache->head));
}

bool
shm_cache_populate(struct shm_cache *cache)
{
	uint64_t left = cache->data_bytes - cache->populated;
	uint64_t bytes =
	    left < SHM_CACHE_POPULATE_BYTES ? left : SHM_CACHE_POPULATE_BYTES;

	if (bytes > 0)
		shm_map_populate((char *)cache->data + cache->populated, bytes);
	cache->populated += bytes;
	return cache->populated < cache->data_bytes;
}

int
shm_cache_fd(const struct shm_cache *cache)
{
	return cache->fd;
}

const int *
shm_cache_wake_fds(const struct shm_cache *cache)
{
	return cache->wake_fd;
}

uint64_t
shm_cache_layout(const struct shm_cache *cache)
{
	return cache->head->layout;
}

void
shm_cache_set_policy(
    struct shm_cache *cache, const struct shm_cache_policy *policy)
{
	cache->policy = *policy;
}

uint32_t
shm_cache_value_max(const struct shm_cache *cache)
{
	return cache->value_max;
}

/* ---- keys */

void
shm_cache_key_hash(const struct shm_cache *cache, struct shm_cache_key *key)
{
	SHM_ASSERT(key->len > 0 && key->len <= SHM_CACHE_KEY_MAX);
	key->hash = shm_hash_bytes(&cache->hash, key->data, key->len);
}

/* ---- counting */

/* One writer to a slot's block, so an addition needs no locked instruction;
 * OTHER's block has many. */
void
shm_cache_add(
    struct shm_cache *cache, enum shm_cache_counter counter, uint64_t n)
{
	_Atomic uint64_t *word = &cache->counters->counter[counter];

	if (cache->me == SHM_CACHE_SLOT_OTHER)
		atomic_fetch_add_explicit(word, n, memory_order_relaxed);
	else
		atomic_store_explicit(
		    word, SHM_CACHE_RELAXED(*word) + n, memory_order_relaxed);
}

void
shm_cache_count(struct shm_cache *cache, enum shm_cache_counter counter)
{
	SHM_ASSERT(counter < SHM_CACHE_COUNTERS_COUNT);
	shm_cache_add(cache, counter, 1);
}

/* ---- invalidation */

void
shm_cache_invalidate(struct shm_cache *cache, uint64_t hash)
{
	SHM_CRASH_POINT("invalidate_before");
	atomic_fetch_add_explicit(shm_cache_version_of(cache, hash), 1,
	    memory_order_acq_rel); /* W1 */
	SHM_CRASH_POINT("invalidate_after");
	shm_cache_add(cache, SHM_CACHE_invalidations, 1);
}

/* The hard half; the carry out of it is lost, as it should be. */
static void
generation_bump(struct shm_cache *cache, enum shm_cache_class cls)
{
	atomic_fetch_add_explicit(&cache->head->generation[cls],
	    (uint64_t)1 << 32, memory_order_acq_rel); /* W1 */
}

void
shm_cache_flush(struct shm_cache *cache, enum shm_cache_class cls)
{
	SHM_ASSERT(cls < SHM_CACHE_CLASSES);
	generation_bump(cache, cls);
	shm_cache_add(cache, SHM_CACHE_flushes, 1);
}

/* The soft half must not carry into the hard one, so no fetch_add. */
static void
generation_bump_soft(struct shm_cache *cache, enum shm_cache_class cls)
{
	_Atomic uint64_t *word = &cache->head->generation[cls];
	uint64_t old = SHM_CACHE_RELAXED(*word), new;

	do
		new = (old & ~(uint64_t)UINT32_MAX) | (uint32_t)(old + 1);
	while (!atomic_compare_exchange_weak_explicit(word, &old, new,
	    memory_order_acq_rel, memory_order_relaxed)); /* W1 */
}

void
shm_cache_lists_changed(struct shm_cache *cache)
{
	if (cache->policy.lists_relaxed)
		generation_bump_soft(cache, SHM_CACHE_LIST);
	else
		generation_bump(cache, SHM_CACHE_LIST);
}

void
shm_cache_suspect(struct shm_cache *cache)
{
	atomic_fetch_add_explicit(
	    &cache->head->suspect, 1, memory_order_acq_rel); /* W1 */
	shm_cache_add(cache, SHM_CACHE_suspects, 1);
}
