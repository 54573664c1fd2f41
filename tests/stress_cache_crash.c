/*
 * Goal: a worker may die between any two writes to the shared memory: what is
 * left is swept, passes the audit, serves nothing wrong and wastes nothing.
 * Method: the cache is built with SHM_CRASH_POINT()s between those writes.  A
 * first pass runs a fixed course of everything a worker does and counts how
 * often it passes each point; each point named in the sources must be among
 * them.  Then, for each point and for its first, second, third, middle and last
 * passage, the same course is run by a process that dies there.  The parent
 * sweeps, audits, and lets another worker and a successor in the same slot go
 * on; they read, write and are checked by the oracle of cache_world.h.
 */
#include "config.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/shm_cache_part.h"
#include "tests/cache_world.h"

#define POINTS_MAX  128
#define CACHE_BYTES SHM_CACHE_BYTES_MIN
#define COURSE_ACTS 6000
#define AFTER_ACTS  3000
#define SLOTS	    2

void shm_crash_point(const char *name);

struct point {
	char name[48];
	uint64_t passed;
};

/* Shared between the processes. */
struct points {
	struct point point[POINTS_MAX];
	uint32_t count;
	const char *armed; /* of the process that is to die */
	uint64_t left;
};

static struct points *points;

/* What another worker does while the one that is tested is at a point. */
static struct {
	const char *where; /* NULL: nothing */
	struct world_actor actor;
	struct shm_cache view;
	struct shm_cache_key key;
	char text[32]; /* of the key */
	struct shm_cache_lease lease;
} meanwhile;

static void
meanwhile_run(const char *name)
{
	struct shm_cache_bucket *bucket;

	if (meanwhile.where == NULL || strcmp(meanwhile.where, name) != 0)
		return;
	meanwhile.where = NULL;
	SHM_ASSERT(world_store(&meanwhile.actor, &meanwhile.key, 2, 1,
		       &meanwhile.lease, NULL) == SHM_CACHE_STORED);
	/* It took the first empty way, and so would the other: make them two,
	 * as an eviction in between could have. */
	bucket = shm_cache_bucket_of(&meanwhile.view, meanwhile.key.hash);
	for (uint32_t i = 0; i + 1 < SHM_CACHE_WAYS; i++)
		if (bucket->way[i] != 0 && bucket->way[i + 1] == 0) {
			bucket->way[i + 1] = bucket->way[i];
			bucket->way[i] = 0;
			return;
		}
}

static struct point *
point_find(const char *name)
{
	for (uint32_t i = 0; i < points->count; i++)
		if (strcmp(points->point[i].name, name) == 0)
			return &points->point[i];
	return NULL;
}

/* Called by the cache. */
void
shm_crash_point(const char *name)
{
	struct point *point;

	if (points == NULL)
		return;
	meanwhile_run(name);
	if (points->armed != NULL) {
		if (strcmp(points->armed, name) == 0 && --points->left == 0)
			raise(SIGKILL);
		return;
	}
	point = point_find(name);
	if (point == NULL) {
		SHM_ASSERT(points->count < POINTS_MAX);
		point = &points->point[points->count++];
		snprintf(point->name, sizeof(point->name), "%s", name);
	}
	point->passed++;
}

struct scene {
	struct world *world;
	struct shm_cache *cache;
};

static void
scene_begin(struct scene *scene)
{
	const struct shm_cache_options options = {.bytes = CACHE_BYTES,
	    .slots_count = SLOTS,
	    .seed = 7,
	    .mean_bytes = 512};
	const struct shm_cache_policy policy = {
	    .stale_us = 1, .error_us = 1, .linger_us = 1};

	scene->world = world_new();
	scene->cache = shm_cache_new(&options);
	assert_non_null(scene->cache);
	shm_cache_set_policy(scene->cache, &policy);
}

static void
scene_end(struct scene *scene)
{
	shm_cache_free(&scene->cache);
	munmap(scene->world, sizeof(*scene->world));
}

/* Two workers store one key at once, and take two ways of its bucket. */
static void
store_twice(struct scene *scene, struct world_actor *actor)
{
	struct shm_cache_view view;

	meanwhile.view = *scene->cache;
	meanwhile.actor = *actor;
	meanwhile.actor.cache = &meanwhile.view;
	shm_cache_enter(&meanwhile.view, 1);
	world_key(scene->cache, 2, meanwhile.text, &meanwhile.key);
	if (shm_cache_get(scene->cache, &meanwhile.key, shm_clock_us(),
		&meanwhile.lease, &view) != SHM_CACHE_MISS)
		return; /* the successor's turn: it is there already */
	meanwhile.where = "put_before_index";
	SHM_ASSERT(world_store(actor, &meanwhile.key, 2, 1, &meanwhile.lease,
		       NULL) == SHM_CACHE_STORED);
	SHM_ASSERT(meanwhile.where == NULL);
}

/* A newer row that is too large: the older one must go all the same. */
static void
store_too_large(struct scene *scene)
{
	static const char body[SHM_CACHE_VALUE_MAX + 1];
	const struct shm_cache_value value = {.id = 2,
	    .row_version = 2,
	    .fresh_us = WORLD_FRESH_US,
	    .status = 200,
	    .cls = SHM_CACHE_BOOK,
	    .body = body,
	    .body_bytes = sizeof(body)};

	SHM_ASSERT(shm_cache_put(scene->cache, &meanwhile.key, &meanwhile.lease,
		       &value, NULL, shm_clock_us()) == SHM_CACHE_TOO_LARGE);
}

/* The last breath: a load and two writes stay under way. */
static void
leave_open(struct scene *scene)
{
	uint64_t now_us = shm_clock_us();
	struct shm_cache_flight flight;
	struct shm_cache_key key;
	char text[32];
	int intent;

	world_key(scene->cache, 1, text, &key);
	intent = shm_cache_intent_open(scene->cache, &key.hash, 1);
	if (intent >= 0)
		shm_cache_intent_unknown(scene->cache, intent, now_us);
	if (shm_cache_intent_open(scene->cache, &key.hash, 1) < 0 ||
	    shm_cache_claim(scene->cache, &key, now_us, now_us + 60000000,
		&flight) != SHM_CACHE_CLAIM_MINE)
		return;
}

/* The course: the same acts in the same order each time. */
static void
course(struct scene *scene, uint32_t slot, uint64_t seed, uint32_t acts)
{
	static char out[WORLD_HEAD + WORLD_BODY_MAX];
	struct world_actor actor = {.world = scene->world,
	    .cache = scene->cache,
	    .random = seed,
	    .out = out};
	struct shm_cache_flight flight, other;
	struct shm_cache_key key;
	uint64_t now_us;
	char text[32];

	shm_cache_enter(scene->cache, slot);
	if (slot == 0) {
		store_twice(scene, &actor);
		store_too_large(scene);
	}
	for (uint32_t i = 0; i < acts; i++) {
		world_act(&actor);
		if (i % 500 != 0)
			continue;
		/* What the small world has no reason to do. */
		world_key(scene->cache, i, text, &key);
		now_us = shm_clock_us();
		if (shm_cache_claim(scene->cache, &key, now_us, now_us + 1,
			&flight) == SHM_CACHE_CLAIM_MINE &&
		    shm_cache_claim(scene->cache, &key, now_us, now_us + 1,
			&other) == SHM_CACHE_CLAIM_OTHER &&
		    shm_cache_claim_wait(scene->cache, &other) &&
		    /* Its deadline has passed: taken over. */
		    shm_cache_claim(scene->cache, &key, now_us + 5000000,
			now_us + 6000000, &flight) == SHM_CACHE_CLAIM_MINE)

			shm_cache_claim_end(scene->cache, &flight, &key,
			    SHM_CACHE_ENDED_UNSTORED, now_us);

		shm_cache_lists_changed(scene->cache);
		shm_cache_suspect(scene->cache);
		shm_cache_flush(scene->cache, SHM_CACHE_NEGATIVE);
	}
	leave_open(scene);
}

/* Run the course in a process of its own; returns its wait(2) status. */
static int
course_forked(struct scene *scene, uint32_t slot, uint64_t seed, uint32_t acts)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		course(scene, slot, seed, acts);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void
audited(struct scene *scene, bool quiet, const char *name, uint64_t k)
{
	char why[256] = "";

	if (shm_cache_audit(scene->cache, quiet, why, sizeof(why)) != 0)
		fail_msg(
		    "dead at %s (%llu): %s", name, (unsigned long long)k, why);
}

static void
swept(struct scene *scene, uint32_t slot)
{
	static struct shm_cache_debt debt;

	shm_cache_sweep(scene->cache, slot, shm_clock_us(), &debt);
	if (debt.due_us != 0)
		shm_cache_settle(scene->cache, &debt);
}

/* A master that dies while it sweeps. */
static void
sweep_forked(struct scene *scene)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		swept(scene, 0);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
}

/* Die at the k-th passage of name, and see what the others make of it. */
static void
die_at(const char *name, uint64_t k)
{
	struct scene scene;
	int status;

	scene_begin(&scene);
	points->armed = name;
	points->left = k;
	status = course_forked(&scene, 0, 99, COURSE_ACTS);
	if (WIFEXITED(status))
		sweep_forked(&scene);
	points->armed = "";

	/* A point that only a sweep passes: the one who sweeps died, and the
	 * sweep is repeated.  One that was passed less often this time, for
	 * the clock has a part in it: nobody died, the rest is checked. */

	assert_true(WIFSIGNALED(status) || WIFEXITED(status));
	swept(&scene, 0);
	swept(&scene, 1);
	audited(&scene, false, name, k);
	assert_int_equal(course_forked(&scene, 1, 55, AFTER_ACTS), 0);
	swept(&scene, 1);
	assert_int_equal(course_forked(&scene, 0, 77, AFTER_ACTS), 0);
	swept(&scene, 0);
	swept(&scene, 1);
	audited(&scene, true, name, k);
	if (scene.world->corrupt + scene.world->stale > 0)
		fail_msg("dead at %s (%llu): %s", name, (unsigned long long)k,
		    scene.world->first);
	assert_true(scene.world->count[WORLD_HITS] > 0);
	scene_end(&scene);
}

/* Count the passages of the course. */
static int
setup(void **state)
{
	struct scene scene;

	(void)state;
	points = mmap(NULL, sizeof(*points), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(points != MAP_FAILED);
	scene_begin(&scene);
	assert_int_equal(course_forked(&scene, 0, 99, COURSE_ACTS), 0);
	swept(&scene, 0);
	swept(&scene, 1);
	audited(&scene, true, "nowhere", 0);
	points->armed = "";
	scene_end(&scene);
	return 0;
}

/* The names in the sources, so that no point is forgotten. */
static void
the_course_passes_every_point_of_the_sources(void **state)
{
	const char *top = getenv("abs_top_srcdir");
	char command[512], line[256];
	uint32_t found = 0;
	FILE *names;

	(void)state;
	snprintf(command, sizeof(command),
	    "sed -n 's/.*SHM_CRASH_POINT(\"\\([a-z_0-9]*\\)\").*/\\1/p' "
	    "%s/shm/shm_cache*.c",
	    top != NULL ? top : ".");
	names = popen(command, "r");
	assert_non_null(names);
	while (fgets(line, sizeof(line), names) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		found++;
		if (point_find(line) == NULL)
			fail_msg("the course never passes %s", line);
	}
	pclose(names);
	assert_true(found >= 10);
	print_message("# %u points\n", found);
}

static void
a_death_at_any_point_harms_nobody(void **state)
{
	const char *text = getenv("CRASH_EVERY");
	uint32_t every = text != NULL ? (uint32_t)atoi(text) : 1;
	uint32_t deaths = 0, number = 0;

	(void)state;
	for (uint32_t i = 0; i < points->count; i++) {
		uint64_t passed = points->point[i].passed;
		uint64_t when[] = {1, 2, 3, passed / 2, passed};
		uint64_t last = 0;

		for (uint32_t j = 0; j < SHM_ARRAY_LEN(when); j++) {
			if (when[j] <= last || when[j] > passed)
				continue;
			last = when[j];
			if (number++ % every != 0)
				continue;
			die_at(points->point[i].name, last);
			deaths++;
		}
	}
	print_message("# %u deaths\n", deaths);
	assert_true(deaths >= points->count / every);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_course_passes_every_point_of_the_sources),
	    cmocka_unit_test(a_death_at_any_point_harms_nobody),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
