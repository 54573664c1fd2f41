/*
 * Goal: whatever numbers of connections workers begin with, the rule by which
 * each decides how many to give away ends with a difference of at most one, in
 * few rounds, and then nobody gives anything.
 * Method: a model of some workers that all look at the same board, give what
 * the rule says to whoever then has the fewest, and look again.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "worker/worker_balance.h"

#define WORKERS_MAX 31
#define ROUNDS_MAX  40

static uint32_t
surplus_of(const uint32_t *board, uint32_t workers, uint32_t which)
{
	uint32_t others[WORKERS_MAX], count = 0;
	bool is_first = true;

	for (uint32_t i = 0; i < workers; i++) {
		if (i == which)
			continue;
		others[count++] = board[i];
		if (i < which && board[i] >= board[which])
			is_first = false;
	}
	return worker_balance_surplus(board[which], others, count, is_first);
}

/* Each gives by the same board, knowing only of its own gifts. */
static uint32_t
round_play(uint32_t *board, uint32_t workers)
{
	uint32_t next[WORKERS_MAX], given = 0;

	memcpy(next, board, workers * sizeof(*board));
	for (uint32_t i = 0; i < workers; i++) {
		uint32_t seen[WORKERS_MAX];
		uint32_t surplus = surplus_of(board, workers, i);

		assert_true(surplus <= board[i]);
		memcpy(seen, board, workers * sizeof(*board));
		seen[i] = UINT32_MAX;
		for (; surplus > 0; surplus--, given++) {
			uint32_t to = i == 0 ? 1 : 0;

			for (uint32_t j = 0; j < workers; j++)
				if (seen[j] < seen[to])
					to = j;
			seen[to]++;
			next[to]++;
			next[i]--;
		}
	}
	memcpy(board, next, workers * sizeof(*board));
	return given;
}

static uint32_t
difference(const uint32_t *board, uint32_t workers)
{
	uint32_t least = UINT32_MAX, most = 0;

	for (uint32_t i = 0; i < workers; i++) {
		least = board[i] < least ? board[i] : least;
		most = board[i] > most ? board[i] : most;
	}
	return most - least;
}

static void
any_board_becomes_even_and_stays_so(void **state)
{
	(void)state;
	srandom(1);
	for (int game = 0; game < 20000; game++) {
		uint32_t workers = 2 + (uint32_t)random() % (WORKERS_MAX - 1);
		uint32_t range = 1 + (uint32_t)random() % 200;
		uint32_t board[WORKERS_MAX], rounds = 0;

		for (uint32_t i = 0; i < workers; i++)
			board[i] = (uint32_t)random() % range;
		while (round_play(board, workers) > 0)
			assert_true(rounds++ < ROUNDS_MAX);
		assert_true(difference(board, workers) <= 1);
	}
}

static void
a_difference_of_one_moves_nothing(void **state)
{
	const uint32_t others[] = {4, 5, 5};

	(void)state;
	assert_int_equal(worker_balance_surplus(5, others, 3, true), 0);
	assert_int_equal(worker_balance_surplus(1, others, 0, true), 0);
	assert_int_equal(worker_balance_surplus(0, others, 3, true), 0);
}

static void
what_is_above_the_mean_goes_or_one_of_the_first(void **state)
{
	const uint32_t empty[] = {0}, low[] = {5, 5, 3};

	(void)state;
	assert_int_equal(worker_balance_surplus(64, empty, 1, true), 32);
	assert_int_equal(worker_balance_surplus(7, empty, 1, false), 3);
	assert_int_equal(worker_balance_surplus(5, low, 3, true), 1);
	assert_int_equal(worker_balance_surplus(5, low, 3, false), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(any_board_becomes_even_and_stays_so),
	    cmocka_unit_test(a_difference_of_one_moves_nothing),
	    cmocka_unit_test(what_is_above_the_mean_goes_or_one_of_the_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
