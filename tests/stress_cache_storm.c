/*
 * Goal: whoever dies or stops, and wherever, the cache never gives bytes that
 * are not an answer, never an answer older than one already given, and stays
 * in order.
 * Method: workers read, load and write books of a small world (cache_world.h)
 * in a cache too small for them.  The parent kills them with SIGKILL at random
 * moments and does what the master does: reaps, sweeps, audits, starts the
 * next.  In a second storm they are stopped and continued too.  STORM_KILLS
 * sets how many, `make storm` runs the long form.  A storm that did not really
 * read, write, evict and load proves nothing and fails.
 */
#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/shm_cache_part.h"
#include "tests/cache_world.h"

#define WORKERS	    4
#define CACHE_BYTES SHM_CACHE_BYTES_MIN
#ifdef __SANITIZE_ADDRESS__
#define KILLS_DEFAULT 2000 /* forks are slow */
#else
#define KILLS_DEFAULT 10000
#endif
#define DEBTS_MAX 64

struct storm {
	struct world *world;
	struct shm_cache *cache;
	struct world_actor dice; /* the parent's random numbers */
	pid_t pid[WORKERS];
	bool stopped[WORKERS];
	struct shm_cache_debt debt[DEBTS_MAX];
	uint32_t debts_count;
	uint64_t kills;
	uint64_t stops;
};

static void
worker_run(struct storm *storm, uint32_t slot, uint64_t seed)
{
	static char out[WORLD_HEAD + WORLD_BODY_MAX];
	struct world_actor actor = {.world = storm->world,
	    .cache = storm->cache,
	    .random = seed | 1,
	    .out = out};

	int patience;

	/* Whoever kills comes first. */
	errno = 0;
	patience = nice(10);
	if (patience == -1 && errno != 0)
		_exit(1);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	shm_cache_enter(storm->cache, slot);
	for (;;)
		world_act(&actor);
}

static void
worker_start(struct storm *storm, uint32_t slot)
{
	uint64_t seed = world_random(&storm->dice);
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		worker_run(storm, slot, seed);
		_exit(1);
	}
	storm->pid[slot] = pid;
	storm->stopped[slot] = false;
}

/* What a dead worker had sent may still be committed until its debt is due. */
static void
debts_settle(struct storm *storm, uint64_t now_us)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < storm->debts_count; i++) {
		if (storm->debt[i].due_us > now_us) {
			if (kept != i)
				storm->debt[kept] = storm->debt[i];
			kept++;
			continue;
		}
		shm_cache_settle(storm->cache, &storm->debt[i]);
	}
	storm->debts_count = kept;
}

static void
worker_bury(struct storm *storm, uint32_t slot)
{
	struct shm_cache_debt *debt = &storm->debt[storm->debts_count];
	uint64_t now_us = shm_clock_us();
	char why[256] = "";
	int status;

	assert_int_equal(
	    waitpid(storm->pid[slot], &status, 0), storm->pid[slot]);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGKILL);
	storm->pid[slot] = 0;
	shm_cache_sweep(storm->cache, slot, now_us, debt);
	if (debt->due_us != 0)
		storm->debts_count++;
	debts_settle(storm, now_us);
	assert_true(storm->debts_count < DEBTS_MAX);
	if (shm_cache_audit(storm->cache, false, why, sizeof(why)) != 0)
		fail_msg("after %llu kills: %s",
		    (unsigned long long)storm->kills, why);
}

static void
storm_begin(struct storm *storm, uint64_t seed)
{
	const struct shm_cache_options options = {.bytes = CACHE_BYTES,
	    .slots_count = WORKERS,
	    .seed = seed,
	    .mean_bytes = 512};
	const struct shm_cache_policy policy = {
	    .stale_us = 1, .error_us = 1, .linger_us = 2000};

	*storm = (struct storm){.world = world_new()};
	storm->dice.random = seed;
	storm->cache = shm_cache_new(&options);
	assert_non_null(storm->cache);
	shm_cache_set_policy(storm->cache, &policy);
	for (uint32_t i = 0; i < WORKERS; i++)
		worker_start(storm, i);
}

/* Was the cache really used, and full?  On a slow machine that takes a while
 * longer than the kills do. */
static bool
storm_has_stressed(const struct storm *storm)
{
	struct shm_cache_stats stats;

	shm_cache_stats(storm->cache, &stats);
	return stats.counter[SHM_CACHE_evictions] > 0 &&
	       storm->world->count[WORLD_HITS] > 1000 &&
	       storm->world->count[WORLD_WRITES] > 100 &&
	       storm->world->count[WORLD_STORED] > 100;
}

static void
storm_end(struct storm *storm)
{
	struct shm_cache_stats stats;
	char why[256] = "";

	for (uint32_t i = 0; i < WORKERS; i++) {
		kill(storm->pid[i], SIGKILL);
		worker_bury(storm, i);
	}
	debts_settle(storm, UINT64_MAX);
	if (shm_cache_audit(storm->cache, true, why, sizeof(why)) != 0)
		fail_msg("at the end: %s", why);
	shm_cache_stats(storm->cache, &stats);
	print_message("# %llu kills, %llu stops, %llu hits, %llu loads, "
		      "%llu stored, %llu writes, %llu waits\n",
	    (unsigned long long)storm->kills, (unsigned long long)storm->stops,
	    (unsigned long long)storm->world->count[WORLD_HITS],
	    (unsigned long long)storm->world->count[WORLD_LOADS],
	    (unsigned long long)storm->world->count[WORLD_STORED],
	    (unsigned long long)storm->world->count[WORLD_WRITES],
	    (unsigned long long)storm->world->count[WORLD_WAITS]);
	print_message("# %llu evictions, %llu retries, %llu steals, "
		      "%llu corrupt, %llu stale, %llu stalls over 100 ms\n",
	    (unsigned long long)stats.counter[SHM_CACHE_evictions],
	    (unsigned long long)stats.counter[SHM_CACHE_retries],
	    (unsigned long long)stats.counter[SHM_CACHE_steals],
	    (unsigned long long)storm->world->corrupt,
	    (unsigned long long)storm->world->stale,
	    (unsigned long long)storm->world->count[WORLD_STALLS]);
	if (storm->world->corrupt + storm->world->stale > 0)
		fail_msg("%s", storm->world->first);
	assert_true(storm_has_stressed(storm));

	shm_cache_free(&storm->cache);
	munmap(storm->world, sizeof(*storm->world));
}

static uint64_t
kills_wanted(void)
{
	const char *text = getenv("STORM_KILLS");

	return text != NULL ? strtoull(text, NULL, 10) : KILLS_DEFAULT;
}

static void
a_storm_of_kills_leaves_no_wrong_answer(void **state)
{
	struct storm storm;
	uint64_t wanted = kills_wanted();

	(void)state;
	storm_begin(&storm, 20261124);
	while (storm.kills < wanted ||
	       (storm.kills < wanted * 20 && !storm_has_stressed(&storm))) {
		uint32_t slot = (uint32_t)(world_random(&storm.dice) % WORKERS);

		usleep((useconds_t)(world_random(&storm.dice) % 600));
		kill(storm.pid[slot], SIGKILL);
		storm.kills++;
		worker_bury(&storm, slot);
		worker_start(&storm, slot);
	}
	storm_end(&storm);
}

/* Stop one, or let one go on, or kill it while it is stopped. */
static void
stop_or_go(struct storm *storm, uint32_t slot)
{
	if (!storm->stopped[slot]) {
		kill(storm->pid[slot], SIGSTOP);
		storm->stopped[slot] = true;
		storm->stops++;
		return;
	}
	if (world_random(&storm->dice) % 4 == 0) {
		kill(storm->pid[slot], SIGKILL);
		storm->kills++;
		worker_bury(storm, slot);
		worker_start(storm, slot);
		return;
	}
	kill(storm->pid[slot], SIGCONT);
	storm->stopped[slot] = false;
}

static void
stopped_workers_harm_nobody(void **state)
{
	uint64_t wanted = kills_wanted() / 5;
	struct storm storm;

	(void)state;
	storm_begin(&storm, 424242);
	while (storm.stops < wanted ||
	       (storm.stops < wanted * 20 && !storm_has_stressed(&storm))) {
		uint32_t slot = (uint32_t)(world_random(&storm.dice) % WORKERS);

		stop_or_go(&storm, slot);
		usleep((useconds_t)(world_random(&storm.dice) % 1000));
	}
	storm_end(&storm);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_storm_of_kills_leaves_no_wrong_answer),
	    cmocka_unit_test(stopped_workers_harm_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
