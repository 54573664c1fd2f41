/*
 * Goal: of all workers that miss a key one loads it; the others wait and are
 * woken, whatever becomes of the loader; a claim ends by its owner, its
 * deadline or its owner's death, and by nothing else.
 * Method: several workers' views of one cache in this process, with hashes and
 * times made up; where the kernel has a part in it (eventfd, death), forked
 * processes.
 */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/shm_cache_part.h"

#define WORKERS	   8
#define HANG_MS	   20000 /* only a bug takes that long */
#define SECOND	   1000000ULL
#define NOW	   (1000 * SECOND)
#define DEADLINE   (NOW + 2 * SECOND)
#define UNIT	   32768ULL /* of a deadline in a word */
#define PLACE(n)   ((uint64_t)(n) << 20)
#define TAG(n)	   ((uint64_t)(n) << 36)
#define IN_BUCKET  5ULL
#define IN_STRIPE  (3ULL << 62)
#define MASTER	   cache
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static struct shm_cache *cache;
static struct shm_cache *worker[WORKERS];

static struct shm_cache *
view_of(uint32_t slot)
{
	struct shm_cache *view = malloc(sizeof(*view));

	assert_non_null(view);
	*view = *cache;
	shm_cache_enter(view, slot);
	return view;
}

static int
setup(void **state)
{
	const struct shm_cache_options options = {
	    .bytes = 4u << 20, .slots_count = WORKERS, .seed = 1};

	(void)state;
	cache = shm_cache_new(&options);
	if (cache == NULL)
		return -1;
	for (uint32_t i = 0; i < WORKERS; i++)
		worker[i] = view_of(i);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < WORKERS; i++)
		free(worker[i]);
	shm_cache_free(&cache);
	return 0;
}

static struct shm_cache_key
key_of(uint64_t hash)
{
	return (struct shm_cache_key){
	    .data = "bx", .len = 2, .cls = SHM_CACHE_BOOK, .hash = hash};
}

static enum shm_cache_claim
claim(struct shm_cache *view, uint64_t hash, uint64_t now,
    struct shm_cache_flight *flight)
{
	struct shm_cache_key key = key_of(hash);

	return shm_cache_claim(view, &key, now, now + 2 * SECOND, flight);
}

static void
end(struct shm_cache *view, struct shm_cache_flight *flight, uint64_t hash,
    enum shm_cache_ended how, uint64_t now)
{
	struct shm_cache_key key = key_of(hash);

	shm_cache_claim_end(view, flight, &key, how, now);
	assert_true(flight->word == 0);
}

static uint64_t
counted(enum shm_cache_counter counter)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i <= SHM_CACHE_SLOT_OTHER; i++)
		sum +=
		    SHM_CACHE_RELAXED(cache->slot[i].counters.counter[counter]);
	return sum;
}

/* What the master does first when it has reaped a worker. */
static void
declare_dead(uint32_t slot)
{
	atomic_fetch_add(&cache->slot[slot].incarnation, 1);
}

/* Is the worker woken within ms?  Takes the wake-up. */
static bool
is_woken(struct shm_cache *view, int ms)
{
	struct pollfd poll_fd = {
	    .fd = shm_cache_wake_fd(view), .events = POLLIN};
	uint64_t count;

	if (poll(&poll_fd, 1, ms) != 1)
		return false;
	return read(poll_fd.fd, &count, sizeof(count)) == sizeof(count);
}

/* ---- claims */

static void
one_claims_a_key_and_all_others_wait_even_in_the_same_worker(void **state)
{
	struct shm_cache_flight mine, other;

	(void)state;
	assert_int_equal(
	    claim(worker[0], TAG(7), NOW, &mine), SHM_CACHE_CLAIM_MINE);
	assert_true(shm_cache_claim_is_mine(worker[0], &mine));
	for (uint32_t i = 0; i < WORKERS; i++) {
		assert_int_equal(claim(worker[i], TAG(7), NOW, &other),
		    SHM_CACHE_CLAIM_OTHER);
		assert_true(other.word == 0);
		assert_false(shm_cache_claim_is_mine(worker[i], &other));
	}
	end(worker[0], &mine, TAG(7), SHM_CACHE_ENDED_STORED, NOW);
	assert_false(shm_cache_claim_is_mine(worker[0], &mine));
	assert_int_equal(
	    claim(worker[1], TAG(7), NOW, &other), SHM_CACHE_CLAIM_MINE);
	assert_int_equal(counted(SHM_CACHE_loads), 2);
	assert_int_equal(counted(SHM_CACHE_steals), 0);
}

/* A place is chosen by 12 bits, a tag by 20 others: a word tells keys apart
 * by those, and by no bit of the bucket's number or the stripe's. */
static void
keys_that_meet_in_a_place_are_told_apart_by_their_tags(void **state)
{
	static const struct {
		uint64_t first, second;
		enum shm_cache_claim claim;
	} cases[] = {
	    {TAG(1), TAG(2), SHM_CACHE_CLAIM_ALONE},
	    {TAG(1), TAG(0), SHM_CACHE_CLAIM_ALONE},
	    {0, TAG(1), SHM_CACHE_CLAIM_ALONE},
	    {PLACE(9), PLACE(9) | TAG(0xfffff), SHM_CACHE_CLAIM_ALONE},
	    {TAG(1), TAG(1) | PLACE(1), SHM_CACHE_CLAIM_MINE},
	    {PLACE(4095), PLACE(4094), SHM_CACHE_CLAIM_MINE},
	    {TAG(1), TAG(1), SHM_CACHE_CLAIM_OTHER},
	    {TAG(1), TAG(1) | IN_BUCKET, SHM_CACHE_CLAIM_OTHER},
	    {TAG(1), TAG(1) | IN_STRIPE, SHM_CACHE_CLAIM_OTHER},
	};
	struct shm_cache_flight first, second;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++) {
		assert_int_equal(claim(worker[0], cases[i].first, NOW, &first),
		    SHM_CACHE_CLAIM_MINE);
		assert_int_equal(
		    claim(worker[1], cases[i].second, NOW, &second),
		    cases[i].claim);
		end(worker[1], &second, cases[i].second,
		    SHM_CACHE_ENDED_NOTHING, NOW);
		assert_true(shm_cache_claim_is_mine(worker[0], &first));
		end(worker[0], &first, cases[i].first, SHM_CACHE_ENDED_NOTHING,
		    NOW);
	}
	assert_int_equal(shm_cache_flight_count(cache), 0);
}

/* Slot 0, incarnation 0, tag 0 and a deadline of 0 modulo 2^16. */
static void
no_claim_looks_like_a_free_word(void **state)
{
	const uint64_t wrap = 65536 * UNIT;
	struct shm_cache_key key = key_of(0);
	struct shm_cache_flight flight;

	(void)state;
	assert_int_equal(
	    shm_cache_claim(worker[0], &key, wrap - UNIT, wrap, &flight),
	    SHM_CACHE_CLAIM_MINE);
	assert_true(flight.word != 0);
	assert_int_equal(shm_cache_flight_count(cache), 1);
}

/* Over a wrap of the deadline's 16 bits too. */
static void
a_claim_is_kept_until_its_deadline_and_taken_soon_after(void **state)
{
	static const uint64_t starts[] = {1, UNIT - 1, NOW, 65534 * UNIT,
	    65535 * UNIT, 65536 * UNIT, 65536 * UNIT - 1, 131071 * UNIT + 5,
	    UINT64_C(1) << 50};
	static const uint64_t lasts[] = {
	    1, UNIT - 1, UNIT, UNIT + 1, SECOND, 30 * SECOND, 260 * SECOND};
	struct shm_cache_flight flight, other;
	struct shm_cache_key key = key_of(TAG(3));

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(starts); i++) {
		for (size_t j = 0; j < SHM_ARRAY_LEN(lasts); j++) {
			uint64_t until = starts[i] + lasts[j];

			assert_int_equal(shm_cache_claim(worker[0], &key,
					     starts[i], until, &flight),
			    SHM_CACHE_CLAIM_MINE);
			assert_int_equal(
			    claim(worker[1], TAG(3), starts[i], &other),
			    SHM_CACHE_CLAIM_OTHER);
			assert_int_equal(
			    claim(worker[1], TAG(3), until - 1, &other),
			    SHM_CACHE_CLAIM_OTHER);
			assert_int_equal(
			    claim(worker[1], TAG(3), until + UNIT, &other),
			    SHM_CACHE_CLAIM_MINE);
			end(worker[1], &other, TAG(3), SHM_CACHE_ENDED_NOTHING,
			    until);
		}
	}
	assert_int_equal(counted(SHM_CACHE_steals),
	    SHM_ARRAY_LEN(starts) * SHM_ARRAY_LEN(lasts));
}

/* However far its deadline was said to be, and whatever 16 bits make of it
 * from then until shortly before they come round. */
static void
a_forgotten_claim_blocks_nobody_for_long(void **state)
{
	static const uint64_t asked[] = {
	    2, 300, 600, 1000, 2000, 2147, 3600, 86400};
	struct shm_cache_flight flight, other;
	struct shm_cache_key key = key_of(TAG(3));

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(asked); i++) {
		for (uint64_t later = 269; later < 1870; later += 100) {
			assert_int_equal(shm_cache_claim(worker[0], &key, NOW,
					     NOW + asked[i] * SECOND, &flight),
			    SHM_CACHE_CLAIM_MINE);
			assert_int_equal(
			    claim(worker[1], TAG(3), NOW + SECOND, &other),
			    SHM_CACHE_CLAIM_OTHER);
			assert_int_equal(claim(worker[1], TAG(3),
					     NOW + later * SECOND, &other),
			    SHM_CACHE_CLAIM_MINE);
			end(worker[1], &other, TAG(3), SHM_CACHE_ENDED_NOTHING,
			    NOW);
		}
	}
}

static void
who_was_late_knows_it_and_disturbs_the_thief_in_nothing(void **state)
{
	struct shm_cache_flight late, thief, waiting;
	static const enum shm_cache_ended ends[] = {SHM_CACHE_ENDED_STORED,
	    SHM_CACHE_ENDED_UNSTORED, SHM_CACHE_ENDED_FAILED,
	    SHM_CACHE_ENDED_NOTHING};
	uint64_t now = NOW;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(ends); i++) {
		assert_int_equal(
		    claim(worker[0], TAG(1), now, &late), SHM_CACHE_CLAIM_MINE);
		now += 3 * SECOND;
		assert_int_equal(claim(worker[1], TAG(1), now, &thief),
		    SHM_CACHE_CLAIM_MINE);
		assert_false(shm_cache_claim_is_mine(worker[0], &late));
		assert_true(shm_cache_claim_is_mine(worker[1], &thief));
		assert_int_equal(claim(worker[2], TAG(1), now, &waiting),
		    SHM_CACHE_CLAIM_OTHER);
		assert_true(shm_cache_claim_wait(worker[2], &waiting));

		end(worker[0], &late, TAG(1), ends[i], now);
		assert_true(shm_cache_claim_is_mine(worker[1], &thief));
		assert_false(is_woken(worker[2], 0));
		assert_int_equal(claim(worker[3], TAG(1), now, &waiting),
		    SHM_CACHE_CLAIM_OTHER);
		end(worker[1], &thief, TAG(1), SHM_CACHE_ENDED_STORED, now);
		assert_true(is_woken(worker[2], 0));
	}
	assert_int_equal(counted(SHM_CACHE_steals), SHM_ARRAY_LEN(ends));
}

static void
another_key_takes_the_place_of_a_late_claim_too(void **state)
{
	struct shm_cache_flight late, other;

	(void)state;
	assert_int_equal(
	    claim(worker[0], TAG(1), NOW, &late), SHM_CACHE_CLAIM_MINE);
	assert_int_equal(claim(worker[0], TAG(2), NOW + 3 * SECOND, &other),
	    SHM_CACHE_CLAIM_MINE);
	assert_false(shm_cache_claim_is_mine(worker[0], &late));
	assert_true(shm_cache_claim_is_mine(worker[0], &other));
}

static void
a_dead_loaders_claim_is_taken_at_once(void **state)
{
	struct shm_cache_flight dead, thief;

	(void)state;
	assert_int_equal(
	    claim(worker[0], TAG(1), NOW, &dead), SHM_CACHE_CLAIM_MINE);
	declare_dead(0);
	assert_int_equal(
	    claim(worker[1], TAG(1), NOW, &thief), SHM_CACHE_CLAIM_MINE);
	assert_int_equal(counted(SHM_CACHE_steals), 1);
	/* The sweep comes late and finds nothing of the dead one's. */
	shm_cache_flight_sweep(cache, 0);
	assert_true(shm_cache_claim_is_mine(worker[1], &thief));
}

/* Whatever got into the table: a word that no worker can have written. */
static void
a_word_of_no_slot_is_taken_like_a_dead_ones(void **state)
{
	static const uint64_t words[] = {
	    1, UINT64_MAX, TAG(0), 0xffULL << 36, 65ULL << 36, 1ULL << 44};
	struct shm_cache_flight flight;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(words); i++) {
		atomic_store(&cache->place[0].word, words[i]);
		assert_int_equal(claim(worker[0], TAG(1), NOW, &flight),
		    SHM_CACHE_CLAIM_MINE);
		end(worker[0], &flight, TAG(1), SHM_CACHE_ENDED_NOTHING, NOW);
	}
}

static void
ending_a_flight_without_a_claim_changes_nothing(void **state)
{
	struct shm_cache_flight mine, none = {0};

	(void)state;
	assert_int_equal(
	    claim(worker[0], TAG(1), NOW, &mine), SHM_CACHE_CLAIM_MINE);
	assert_int_equal(
	    claim(worker[0], TAG(2), NOW, &none), SHM_CACHE_CLAIM_ALONE);
	end(worker[0], &none, TAG(2), SHM_CACHE_ENDED_FAILED, NOW);
	assert_true(shm_cache_claim_is_mine(worker[0], &mine));
	assert_true(atomic_load(&cache->place[0].mark) == 0);
	assert_int_equal(counted(SHM_CACHE_load_failures), 1);
}

/* ---- marks */

static void
how_a_load_ended_is_remembered_for_a_second(void **state)
{
	static const struct {
		enum shm_cache_ended how;
		uint64_t later;
		enum shm_cache_claim claim;
	} cases[] = {
	    {SHM_CACHE_ENDED_STORED, 0, SHM_CACHE_CLAIM_MINE},
	    {SHM_CACHE_ENDED_NOTHING, 0, SHM_CACHE_CLAIM_MINE},
	    {SHM_CACHE_ENDED_UNSTORED, 0, SHM_CACHE_CLAIM_ALONE},
	    {SHM_CACHE_ENDED_UNSTORED, 999999, SHM_CACHE_CLAIM_ALONE},
	    {SHM_CACHE_ENDED_UNSTORED, SECOND, SHM_CACHE_CLAIM_MINE},
	    {SHM_CACHE_ENDED_UNSTORED, 3600 * SECOND, SHM_CACHE_CLAIM_MINE},
	    {SHM_CACHE_ENDED_FAILED, 0, SHM_CACHE_CLAIM_FAILED},
	    {SHM_CACHE_ENDED_FAILED, 999999, SHM_CACHE_CLAIM_FAILED},
	    {SHM_CACHE_ENDED_FAILED, SECOND, SHM_CACHE_CLAIM_MINE},
	    {SHM_CACHE_ENDED_FAILED, 3600 * SECOND, SHM_CACHE_CLAIM_MINE},
	};
	struct shm_cache_flight flight;

	(void)state;
	for (uint64_t i = 0; i < SHM_ARRAY_LEN(cases); i++) {
		uint64_t hash = PLACE(i) | TAG(i);

		assert_int_equal(
		    claim(worker[0], hash, NOW, &flight), SHM_CACHE_CLAIM_MINE);
		end(worker[0], &flight, hash, cases[i].how, NOW);
		/* of this key alone */
		assert_int_equal(
		    claim(worker[1], hash ^ TAG(1 << 19), NOW, &flight),
		    SHM_CACHE_CLAIM_MINE);
		end(worker[1], &flight, hash ^ TAG(1 << 19),
		    SHM_CACHE_ENDED_STORED, NOW);
		assert_int_equal(
		    claim(worker[1], hash, NOW + cases[i].later, &flight),
		    cases[i].claim);
	}
}

static void
a_good_load_forgets_the_keys_own_mark(void **state)
{
	static const enum shm_cache_ended ends[] = {
	    SHM_CACHE_ENDED_STORED, SHM_CACHE_ENDED_NOTHING};
	struct shm_cache_flight flight;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(ends); i++) {
		uint64_t now = NOW + i * 10 * SECOND;

		assert_int_equal(claim(worker[0], TAG(1), now, &flight),
		    SHM_CACHE_CLAIM_MINE);
		end(worker[0], &flight, TAG(1), SHM_CACHE_ENDED_FAILED, now);
		assert_true(atomic_load(&cache->place[0].mark) != 0);
		now += SECOND;
		assert_int_equal(claim(worker[0], TAG(1), now, &flight),
		    SHM_CACHE_CLAIM_MINE);
		end(worker[0], &flight, TAG(1), ends[i], now);
		assert_true(atomic_load(&cache->place[0].mark) == 0);
	}
}

/* Nothing stored is served before the write has ended: whoever waited has to
 * load as well, and must not do it one after another. */
static void
stored_while_a_key_is_written_lets_the_others_load_alone(void **state)
{
	static const struct {
		uint32_t cls;
		bool is_relaxed;
		bool is_written;
		enum shm_cache_claim claim;
	} cases[] = {
	    {SHM_CACHE_BOOK, false, false, SHM_CACHE_CLAIM_MINE},
	    {SHM_CACHE_BOOK, false, true, SHM_CACHE_CLAIM_ALONE},
	    {SHM_CACHE_BOOK, true, true, SHM_CACHE_CLAIM_ALONE},
	    {SHM_CACHE_LIST, false, false, SHM_CACHE_CLAIM_MINE},
	    {SHM_CACHE_LIST, false, true, SHM_CACHE_CLAIM_ALONE},
	    {SHM_CACHE_LIST, true, true, SHM_CACHE_CLAIM_MINE},
	};
	struct shm_cache_flight flight;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++) {
		struct shm_cache_policy policy = {
		    .lists_relaxed = cases[i].is_relaxed};
		struct shm_cache_key key = key_of(PLACE(i));
		uint64_t written = PLACE(i) | 1;
		int intent = -1;

		key.cls = cases[i].cls;
		shm_cache_set_policy(worker[0], &policy);
		if (cases[i].is_written) {
			intent = shm_cache_intent_open(worker[1], &written, 1);
			assert_int_not_equal(intent, -1);
		}
		assert_int_equal(
		    shm_cache_claim(worker[0], &key, NOW, DEADLINE, &flight),
		    SHM_CACHE_CLAIM_MINE);
		shm_cache_claim_end(
		    worker[0], &flight, &key, SHM_CACHE_ENDED_STORED, NOW);
		if (cases[i].is_written)
			shm_cache_intent_close(worker[1], intent);
		assert_int_equal(
		    shm_cache_claim(worker[0], &key, NOW, DEADLINE, &flight),
		    cases[i].claim);
	}
}

/* ---- waiting */

static void
who_waits_is_woken_once_by_the_end(void **state)
{
	struct shm_cache_flight mine, other;

	(void)state;
	assert_int_equal(
	    claim(worker[0], TAG(1), NOW, &mine), SHM_CACHE_CLAIM_MINE);
	for (uint32_t i = 0; i < WORKERS; i += 2) {
		assert_int_equal(claim(worker[i], TAG(1), NOW, &other),
		    SHM_CACHE_CLAIM_OTHER);
		assert_true(shm_cache_claim_wait(worker[i], &other));
		assert_true(shm_cache_claim_wait(worker[i], &other));
	}
	for (uint32_t i = 0; i < WORKERS; i++)
		assert_false(is_woken(worker[i], 0));
	end(worker[0], &mine, TAG(1), SHM_CACHE_ENDED_STORED, NOW);
	for (uint32_t i = 0; i < WORKERS; i++) {
		assert_int_equal(is_woken(worker[i], 0), i % 2 == 0);
		assert_false(is_woken(worker[i], 0));
	}
}

static void
nobody_waits_for_a_flight_that_has_ended_or_changed_hands(void **state)
{
	struct shm_cache_flight mine, other, thief;

	(void)state;
	assert_int_equal(
	    claim(worker[0], TAG(1), NOW, &mine), SHM_CACHE_CLAIM_MINE);
	assert_int_equal(
	    claim(worker[1], TAG(1), NOW, &other), SHM_CACHE_CLAIM_OTHER);
	end(worker[0], &mine, TAG(1), SHM_CACHE_ENDED_STORED, NOW);
	assert_false(shm_cache_claim_wait(worker[1], &other));

	assert_int_equal(
	    claim(worker[0], TAG(1), NOW, &mine), SHM_CACHE_CLAIM_MINE);
	assert_int_equal(
	    claim(worker[1], TAG(1), NOW, &other), SHM_CACHE_CLAIM_OTHER);
	declare_dead(0);
	assert_int_equal(
	    claim(worker[2], TAG(1), NOW, &thief), SHM_CACHE_CLAIM_MINE);
	assert_false(shm_cache_claim_wait(worker[1], &other));
	/* its bit, once set, is inherited all the same */
	end(worker[2], &thief, TAG(1), SHM_CACHE_ENDED_STORED, NOW);
	assert_true(is_woken(worker[1], 0));
}

static void
a_thief_inherits_who_waits(void **state)
{
	struct shm_cache_flight dead, waiting, thief;

	(void)state;
	assert_int_equal(
	    claim(worker[0], TAG(1), NOW, &dead), SHM_CACHE_CLAIM_MINE);
	assert_int_equal(
	    claim(worker[1], TAG(1), NOW, &waiting), SHM_CACHE_CLAIM_OTHER);
	assert_true(shm_cache_claim_wait(worker[1], &waiting));
	declare_dead(0);
	assert_int_equal(
	    claim(worker[2], TAG(1), NOW, &thief), SHM_CACHE_CLAIM_MINE);
	assert_false(is_woken(worker[1], 0));
	end(worker[2], &thief, TAG(1), SHM_CACHE_ENDED_STORED, NOW);
	assert_true(is_woken(worker[1], 0));
}

static void
a_full_eventfd_stops_nobody(void **state)
{
	const uint64_t full = UINT64_MAX - 1;
	struct shm_cache_flight mine, other;

	(void)state;
	assert_int_equal(write(shm_cache_wake_fd(worker[1]), &full, 8), 8);
	assert_int_equal(
	    claim(worker[0], TAG(1), NOW, &mine), SHM_CACHE_CLAIM_MINE);
	for (uint32_t i = 1; i <= 2; i++) {
		assert_int_equal(claim(worker[i], TAG(1), NOW, &other),
		    SHM_CACHE_CLAIM_OTHER);
		assert_true(shm_cache_claim_wait(worker[i], &other));
	}
	end(worker[0], &mine, TAG(1), SHM_CACHE_ENDED_STORED, NOW);
	assert_true(is_woken(worker[1], 0));
	assert_true(is_woken(worker[2], 0));
}

/* ---- death */

static void
a_sweep_frees_what_the_dead_owned_and_wakes_who_waited(void **state)
{
	struct shm_cache_flight flight[4], waiting;

	(void)state;
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(
		    claim(worker[i % 2], PLACE(i), NOW, &flight[i]),
		    SHM_CACHE_CLAIM_MINE);
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(claim(worker[2 + i], PLACE(i), NOW, &waiting),
		    SHM_CACHE_CLAIM_OTHER);
		assert_true(shm_cache_claim_wait(worker[2 + i], &waiting));
	}
	declare_dead(0);
	shm_cache_flight_sweep(cache, 0);
	assert_int_equal(shm_cache_flight_count(cache), 2);
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(is_woken(worker[2 + i], 0), i % 2 == 0);
		assert_int_equal(
		    shm_cache_claim_is_mine(worker[i % 2], &flight[i]),
		    i % 2 == 1);
	}
	assert_int_equal(shm_cache_flight_audit(cache, true, NULL, 0), 0);
}

/* Its word is free already, but those who wait were not told. */
static void
a_sweep_wakes_who_was_left_by_a_loader_that_died_while_ending(void **state)
{
	struct shm_cache_flight flight, waiting;

	(void)state;
	assert_int_equal(
	    claim(worker[0], PLACE(5), NOW, &flight), SHM_CACHE_CLAIM_MINE);
	assert_int_equal(
	    claim(worker[1], PLACE(5), NOW, &waiting), SHM_CACHE_CLAIM_OTHER);
	assert_true(shm_cache_claim_wait(worker[1], &waiting));
	atomic_store(&cache->place[5].word, 0);
	declare_dead(0);
	shm_cache_flight_sweep(cache, 0);
	assert_true(is_woken(worker[1], 0));
}

static void
a_sweep_forgets_that_the_dead_waited(void **state)
{
	struct shm_cache_flight mine, waiting;

	(void)state;
	assert_int_equal(
	    claim(worker[0], PLACE(5), NOW, &mine), SHM_CACHE_CLAIM_MINE);
	for (uint32_t i = 1; i <= 2; i++) {
		assert_int_equal(claim(worker[i], PLACE(5), NOW, &waiting),
		    SHM_CACHE_CLAIM_OTHER);
		assert_true(shm_cache_claim_wait(worker[i], &waiting));
	}
	declare_dead(1);
	shm_cache_flight_sweep(cache, 1);
	end(worker[0], &mine, PLACE(5), SHM_CACHE_ENDED_STORED, NOW);
	assert_false(is_woken(worker[1], 0));
	assert_true(is_woken(worker[2], 0));
}

static void
sweeping_again_takes_nothing_from_the_slots_new_process(void **state)
{
	struct shm_cache_flight dead, reborn;

	(void)state;
	assert_int_equal(
	    claim(worker[3], PLACE(1), NOW, &dead), SHM_CACHE_CLAIM_MINE);
	declare_dead(3);
	shm_cache_flight_sweep(cache, 3);
	shm_cache_enter(worker[3], 3);
	assert_int_equal(
	    claim(worker[3], PLACE(1), NOW, &reborn), SHM_CACHE_CLAIM_MINE);
	assert_true(dead.word != reborn.word);
	shm_cache_flight_sweep(cache, 3);
	assert_true(shm_cache_claim_is_mine(worker[3], &reborn));
	assert_false(shm_cache_claim_is_mine(worker[3], &dead));
}

/* ---- real processes */

static void
wait_for(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* A process that waits for a claim it has met, tells so, and exits with 0
 * when it is woken. */
static pid_t
fork_waiter(uint32_t slot, uint64_t hash, int told)
{
	struct shm_cache_flight flight;
	pid_t pid = fork();
	char byte = 0;

	assert_int_not_equal(pid, -1);
	if (pid != 0)
		return pid;
	shm_cache_enter(cache, slot);
	if (claim(cache, hash, NOW, &flight) != SHM_CACHE_CLAIM_OTHER)
		_exit(1);
	if (!shm_cache_claim_wait(cache, &flight))
		_exit(2);
	if (write(told, &byte, 1) != 1)
		_exit(3);
	_exit(is_woken(cache, HANG_MS) ? 0 : 4);
}

static void
the_end_of_a_load_wakes_waiters_in_other_processes(void **state)
{
	struct shm_cache_flight mine;
	pid_t pid[WORKERS];
	int told[2];
	char byte;

	(void)state;
	assert_int_equal(pipe(told), 0);
	assert_int_equal(
	    claim(worker[0], TAG(1), NOW, &mine), SHM_CACHE_CLAIM_MINE);
	for (uint32_t i = 1; i < WORKERS; i++)
		pid[i] = fork_waiter(i, TAG(1), told[1]);
	close(told[1]);
	for (uint32_t i = 1; i < WORKERS; i++)
		assert_int_equal(read(told[0], &byte, 1), 1);
	end(worker[0], &mine, TAG(1), SHM_CACHE_ENDED_STORED, NOW);
	for (uint32_t i = 1; i < WORKERS; i++)
		wait_for(pid[i]);
	close(told[0]);
}

static void
the_death_of_a_loader_wakes_waiters_when_the_master_sweeps(void **state)
{
	struct shm_cache_flight flight;
	struct shm_cache_debt debt;
	pid_t loader, waiter;
	int told[2];
	char byte = 0;

	(void)state;
	assert_int_equal(pipe(told), 0);
	loader = fork();
	assert_int_not_equal(loader, -1);
	if (loader == 0) {
		shm_cache_enter(cache, 0);
		if (claim(cache, TAG(1), NOW, &flight) !=
			SHM_CACHE_CLAIM_MINE ||
		    write(told[1], &byte, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(told[0], &byte, 1), 1);
	waiter = fork_waiter(1, TAG(1), told[1]);
	assert_int_equal(read(told[0], &byte, 1), 1);
	assert_int_equal(kill(loader, SIGKILL), 0);
	assert_int_equal(waitpid(loader, NULL, 0), loader);
	shm_cache_sweep(cache, 0, NOW, &debt);
	wait_for(waiter);
	assert_int_equal(
	    claim(worker[2], TAG(1), NOW, &flight), SHM_CACHE_CLAIM_MINE);
	close(told[0]);
	close(told[1]);
}

/* What processes that claim the same keys have in common. */
struct race {
	_Atomic uint32_t here; /* how often anybody came to a key */
	_Atomic uint32_t won[SHM_CACHE_FLIGHTS];
};

#define RACERS 2 /* more would only wait for a processor */

/* At each key wait for all others, then claim it at the same time. */
static void
race_on(struct race *race)
{
	struct shm_cache_flight flight;

	alarm(HANG_MS / 1000);
	for (uint32_t i = 0; i < SHM_CACHE_FLIGHTS; i++) {
		atomic_fetch_add(&race->here, 1);
		for (int spins = 1; atomic_load(&race->here) < RACERS * (i + 1);
		     spins++)
			if (spins % 256 == 0)
				sched_yield();
		switch (claim(cache, PLACE(i) | TAG(i), NOW, &flight)) {
		case SHM_CACHE_CLAIM_MINE:
			atomic_fetch_add(&race->won[i], 1);
			break;
		case SHM_CACHE_CLAIM_OTHER:
			break;
		case SHM_CACHE_CLAIM_ALONE:
		case SHM_CACHE_CLAIM_FAILED:
			_exit(2);
		}
	}
	_exit(0);
}

static void
of_processes_that_claim_a_key_at_once_exactly_one_gets_it(void **state)
{
	struct race *race = mmap(NULL, sizeof(*race), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid[RACERS];

	(void)state;
	assert_true(race != MAP_FAILED);
	for (uint32_t i = 0; i < RACERS; i++) {
		pid[i] = fork();
		assert_int_not_equal(pid[i], -1);
		if (pid[i] != 0)
			continue;
		shm_cache_enter(cache, i);
		race_on(race);
	}
	for (uint32_t i = 0; i < RACERS; i++)
		wait_for(pid[i]);
	for (uint32_t i = 0; i < SHM_CACHE_FLIGHTS; i++)
		assert_int_equal(atomic_load(&race->won[i]), 1);
	assert_int_equal(counted(SHM_CACHE_loads), SHM_CACHE_FLIGHTS);
	munmap(race, sizeof(*race));
}

/* ---- audit */

static void
the_audit_finds_what_nobody_living_can_have_written(void **state)
{
	static const struct {
		uint64_t word, waiters;
		const char *why;
	} cases[] = {
	    {0, 0, NULL},
	    {0, 1, NULL}, /* left by who saw that it need not wait */
	    {1ULL << 36, 1, NULL},
	    {1, 0, "flight 7 is claimed by no slot"},
	    {(WORKERS + 1ULL) << 36, 0, "flight 7 is claimed by no slot"},
	    {1ULL << 44 | 1ULL << 36, 0,
		"flight 7 is claimed by a dead process"},
	    {0, 1ULL << WORKERS, "flight 7 is waited for by no slot"},
	};
	char why[200];

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++) {
		why[0] = '\0';
		/* relative to the incarnation in slot 0, which may be any */
		atomic_store(&cache->place[7].word,
		    cases[i].word >> 36 == 0
			? cases[i].word
			: cases[i].word +
			      ((uint64_t)worker[0]->incarnation << 44));
		atomic_store(&cache->place[7].waiters, cases[i].waiters);
		assert_int_equal(
		    shm_cache_flight_audit(cache, false, why, sizeof(why)),
		    cases[i].why != NULL);
		if (cases[i].why != NULL)
			assert_memory_equal(
			    why, cases[i].why, strlen(cases[i].why));
	}
	atomic_store(&cache->place[7].word, 0);
	atomic_store(&cache->place[7].waiters, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(one_claims_a_key_and_all_others_wait_even_in_the_same_worker),
	    TEST(keys_that_meet_in_a_place_are_told_apart_by_their_tags),
	    TEST(no_claim_looks_like_a_free_word),
	    TEST(a_claim_is_kept_until_its_deadline_and_taken_soon_after),
	    TEST(a_forgotten_claim_blocks_nobody_for_long),
	    TEST(who_was_late_knows_it_and_disturbs_the_thief_in_nothing),
	    TEST(another_key_takes_the_place_of_a_late_claim_too),
	    TEST(a_dead_loaders_claim_is_taken_at_once),
	    TEST(a_word_of_no_slot_is_taken_like_a_dead_ones),
	    TEST(ending_a_flight_without_a_claim_changes_nothing),
	    TEST(how_a_load_ended_is_remembered_for_a_second),
	    TEST(a_good_load_forgets_the_keys_own_mark),
	    TEST(stored_while_a_key_is_written_lets_the_others_load_alone),
	    TEST(who_waits_is_woken_once_by_the_end),
	    TEST(nobody_waits_for_a_flight_that_has_ended_or_changed_hands),
	    TEST(a_thief_inherits_who_waits),
	    TEST(a_full_eventfd_stops_nobody),
	    TEST(a_sweep_frees_what_the_dead_owned_and_wakes_who_waited),
	    TEST(a_sweep_wakes_who_was_left_by_a_loader_that_died_while_ending),
	    TEST(a_sweep_forgets_that_the_dead_waited),
	    TEST(sweeping_again_takes_nothing_from_the_slots_new_process),
	    TEST(the_end_of_a_load_wakes_waiters_in_other_processes),
	    TEST(the_death_of_a_loader_wakes_waiters_when_the_master_sweeps),
	    TEST(of_processes_that_claim_a_key_at_once_exactly_one_gets_it),
	    TEST(the_audit_finds_what_nobody_living_can_have_written),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
