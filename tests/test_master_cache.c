/*
 * Goal: what a dead worker's writes touched is void at once and again when the
 * server can no longer commit them, however many die; and a cache that is not
 * in order serves nothing that it holds.
 * Method: one process plays the worker of a slot and then the master, with a
 * clock of the test's; answers are put into a real cache and looked up on both
 * sides of each due time.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "master/master_cache.h"

#define LINGER_US 6000000 /* statement timeout of 5 s and a second */

static struct master_options options;
static struct master_cache master;
static uint64_t now_us;

static int
begin(void **state)
{
	(void)state;
	memset(&master, 0, sizeof(master));
	options = (struct master_options){
	    .cache_bytes = 4 << 20,
	    .workers = 2,
	    .worker.database_statement_timeout_ms = 5000,
	};
	now_us = 1000000000;
	master.cache = master_cache_new(&options);
	return master.cache == NULL ? -1 : 0;
}

static int
end(void **state)
{
	(void)state;
	shm_cache_free(&master.cache);
	return 0;
}

static void
key_of(struct shm_cache_key *key, char text[16], unsigned book)
{
	snprintf(text, 16, "b%u", book);
	*key = (struct shm_cache_key){
	    .data = text, .len = (uint32_t)strlen(text), .cls = SHM_CACHE_BOOK};
	shm_cache_key_hash(master.cache, key);
}

static void
be(uint32_t slot)
{
	shm_cache_enter(master.cache, slot);
}

static bool
is_served(unsigned book)
{
	struct shm_cache_key key;
	struct shm_cache_lease lease;
	struct shm_cache_view view;
	char text[16];

	key_of(&key, text, book);
	return shm_cache_get(master.cache, &key, now_us, &lease, &view) ==
	       SHM_CACHE_HIT;
}

/* As the worker in slot 0, which goes on living. */
static void
store(unsigned book)
{
	static const struct shm_cache_value value = {
	    .id = 1,
	    .row_version = 1,
	    .fresh_us = 3600000000,
	    .status = 200,
	    .cls = SHM_CACHE_BOOK,
	    .head = "\r\n",
	    .head_bytes = 2,
	    .body = "body",
	    .body_bytes = 4,
	};
	struct shm_cache_key key;
	struct shm_cache_lease lease;
	struct shm_cache_view view;
	char text[16];

	key_of(&key, text, book);
	assert_int_not_equal(
	    shm_cache_get(master.cache, &key, now_us, &lease, &view),
	    SHM_CACHE_HIT);
	assert_int_equal(
	    shm_cache_put(master.cache, &key, &lease, &value, NULL, now_us),
	    SHM_CACHE_STORED);
	assert_true(is_served(book));
}

/* A worker in slot 1 dies while it writes book; book 0: it writes nothing. */
static void
die_writing(unsigned book)
{
	struct shm_cache_key key;
	char text[16];

	be(1);
	if (book > 0) {
		key_of(&key, text, book);
		assert_true(
		    shm_cache_intent_open(master.cache, &key.hash, 1) >= 0);
	}
	be(SHM_CACHE_SLOT_OTHER);
	master_cache_reaped(&master, 1, now_us);
	be(0);
}

static void
a_death_voids_what_was_being_written_at_once_and_again(void **state)
{
	(void)state;
	be(0);
	store(1);
	store(2);
	die_writing(1);
	assert_false(is_served(1));
	assert_true(is_served(2));
	/* The server has not committed yet: the old row is loaded again. */
	store(1);
	assert_int_equal(
	    master_cache_tick(&master, now_us), now_us + LINGER_US);
	now_us += LINGER_US - 1;
	assert_int_equal(master_cache_tick(&master, now_us), now_us + 1);
	assert_true(is_served(1));
	now_us++;
	assert_int_equal(master_cache_tick(&master, now_us), UINT64_MAX);
	assert_false(is_served(1));
	assert_true(is_served(2));
	/* And that was all. */
	store(1);
	now_us += 10 * LINGER_US;
	assert_int_equal(master_cache_tick(&master, now_us), UINT64_MAX);
	assert_true(is_served(1));
}

static void
a_death_without_writes_owes_nothing(void **state)
{
	(void)state;
	be(0);
	store(1);
	die_writing(0);
	assert_int_equal(master_cache_tick(&master, now_us), UINT64_MAX);
	assert_true(is_served(1));
}

static void
a_slot_that_dies_again_before_the_first_debt_is_due_owes_both(void **state)
{
	uint64_t first_us;

	(void)state;
	be(0);
	die_writing(1);
	first_us = now_us + LINGER_US;
	now_us += 1000;
	die_writing(2);
	store(1);
	store(2);
	assert_int_equal(master_cache_tick(&master, now_us), first_us);
	now_us = first_us;
	assert_int_equal(master_cache_tick(&master, now_us), first_us + 1000);
	assert_false(is_served(1));
	assert_true(is_served(2));
	now_us += 1000;
	assert_int_equal(master_cache_tick(&master, now_us), UINT64_MAX);
	assert_false(is_served(2));
}

static void
debts_without_a_place_become_a_flush_in_time(void **state)
{
	uint64_t first_us, last_us;

	(void)state;
	be(0);
	for (unsigned i = 0; i < MASTER_CACHE_DEBTS_MAX; i++)
		die_writing(1);
	now_us += 1000;
	first_us = now_us + LINGER_US;
	die_writing(2);
	assert_int_equal(master.flush_us, first_us);
	for (unsigned i = 0; i < 10; i++) {
		now_us += 1000;
		die_writing(3 + i);
	}
	last_us = now_us + LINGER_US;
	/* The later ones do not put off the first. */
	now_us = first_us - 1;
	assert_int_equal(master_cache_tick(&master, now_us), first_us);
	store(2);
	store(100);
	now_us = first_us;
	assert_int_equal(master_cache_tick(&master, now_us), last_us);
	assert_false(is_served(2));
	assert_false(is_served(100));
	store(12);
	now_us = last_us;
	assert_int_equal(master_cache_tick(&master, now_us), UINT64_MAX);
	assert_false(is_served(12));
	/* There is room again. */
	die_writing(1);
	assert_int_equal(master.flush_us, 0);
	assert_int_equal(
	    master_cache_tick(&master, now_us), now_us + LINGER_US);
}

static void
a_late_tick_settles_all_that_is_due(void **state)
{
	(void)state;
	be(0);
	for (unsigned i = 0; i < MASTER_CACHE_DEBTS_MAX + 3; i++) {
		now_us += 1000;
		die_writing(1);
	}
	now_us += 10 * LINGER_US;
	assert_int_equal(master_cache_tick(&master, now_us), UINT64_MAX);
	assert_int_equal(master.flush_last_us, 0);
}

static void
an_audit_of_a_sound_cache_changes_nothing(void **state)
{
	(void)state;
	be(0);
	store(1);
	die_writing(2);
	master_cache_audit(master.cache);
	assert_true(is_served(1));
}

static void
a_cache_that_is_not_in_order_serves_nothing_that_it_holds(void **state)
{
	(void)state;
	be(0);
	store(1);
	be(SHM_CACHE_SLOT_OTHER);
	master_cache_distrust(master.cache, 1, "the test says so");
	be(0);
	assert_false(is_served(1));
	store(1);
}

static void
without_a_cache_nothing_is_done(void **state)
{
	struct master_cache none = {.cache = NULL};

	(void)state;
	master_cache_reaped(&none, 1, now_us);
	assert_int_equal(master_cache_tick(&none, now_us), UINT64_MAX);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(a_death_voids_what_was_being_written_at_once_and_again),
	    TEST(a_death_without_writes_owes_nothing),
	    TEST(a_slot_that_dies_again_before_the_first_debt_is_due_owes_both),
	    TEST(debts_without_a_place_become_a_flush_in_time),
	    TEST(a_late_tick_settles_all_that_is_due),
	    TEST(an_audit_of_a_sound_cache_changes_nothing),
	    TEST(a_cache_that_is_not_in_order_serves_nothing_that_it_holds),
	    TEST(without_a_cache_nothing_is_done),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
