/*
 * Goal: the memory that is left is what the tightest control group and the
 * kernel leave us, and a cache that would take too much of it is refused with
 * both figures.
 * Method: each case is a fake machine: a folder with proc/self/cgroup,
 * proc/self/mountinfo, proc/meminfo and the group's files, written from a
 * table; the rule is asked on both sides of its limit.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "master/master_cache.h"
#include "master/master_memory.h"
#include "master/master_rules.h"

static char base[] = "/tmp/test_master_memory_XXXXXX";
static char root[64];
static unsigned roots;

#define V2_MOUNT                                                            \
	"30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 " \
	"rw,nsdelegate\n"
#define V1_MOUNT                                                      \
	"31 24 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n" \
	"29 24 0:25 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
#define V2     "/sys/fs/cgroup"
#define V1     "/sys/fs/cgroup/memory"
#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define GIB(n) ((uint64_t)(n) << 30)

struct file {
	const char *path; /* NULL: the end */
	const char *text;
};

static const struct machine {
	const char *what;
	uint64_t left;
	const char *source;  /* part of it */
	const char *meminfo; /* NULL: no such file */
	const char *cgroup;
	const char *mountinfo;
	struct file files[8];
} machines[] = {
    {"nothing can be read", UINT64_MAX, "", NULL, NULL, NULL, {{0}}},
    {"no group, the kernel's figure", GIB(2), "MemAvailable of /proc/meminfo",
	"MemTotal: 9 kB\nMemAvailable:    2097152 kB\n", NULL, NULL, {{0}}},
    {"a group without a limit", GIB(2), "MemAvailable",
	"MemAvailable: 2097152 kB\n", "0::/\n", V2_MOUNT,
	{{V2 "/memory.max", "max\n"}, {V2 "/memory.current", "1\n"}}},
    {"a limit less what is in use", MIB(96),
	"memory.max of " V2 " is 128 MiB, 32 MiB in use",
	"MemAvailable: 2097152 kB\n", "0::/\n", V2_MOUNT,
	{{V2 "/memory.max", "134217728\n"},
	    {V2 "/memory.current", "33554432\n"}}},
    {"idle pages of files are left", MIB(112), "128 MiB, 16 MiB in use", NULL,
	"0::/\n", V2_MOUNT,
	{{V2 "/memory.max", "134217728\n"},
	    {V2 "/memory.current", "33554432\n"},
	    {V2 "/memory.stat",
		"anon 1\ninactive_file_not 5\ninactive_file 16777216\n"}}},
    {"more than the limit is in use", 0, "128 MiB in use", NULL, "0::/\n",
	V2_MOUNT,
	{{V2 "/memory.max", "67108864\n"},
	    {V2 "/memory.current", "134217728\n"}}},
    {"less is available than the group may have", MIB(1), "MemAvailable",
	"MemAvailable: 1024 kB\n", "0::/\n", V2_MOUNT,
	{{V2 "/memory.max", "134217728\n"}, {V2 "/memory.current", "0\n"}}},
    {"the smallest remainder on the way up, not the smallest limit", MIB(16),
	"memory.max of " V2 "/a is 256 MiB, 240 MiB in use", NULL, "0::/a/b\n",
	V2_MOUNT,
	{{V2 "/a/b/memory.max", "134217728\n"},
	    {V2 "/a/b/memory.current", "1048576\n"},
	    {V2 "/a/memory.max", "268435456\n"},
	    {V2 "/a/memory.current", "251658240\n"},
	    {V2 "/memory.max", "max\n"}, {V2 "/memory.current", "9\n"}}},
    {"a group beside ours is not asked", UINT64_MAX, "", NULL, "0::/a\n",
	V2_MOUNT,
	{{V2 "/b/memory.max", "1\n"}, {V2 "/b/memory.current", "1\n"}}},
    {"a mounted part of the hierarchy", MIB(64), "of " V2 "/app is", NULL,
	"0::/docker/123/app\n",
	"30 24 0:26 /docker/123 /sys/fs/cgroup ro - cgroup2 cgroup ro\n",
	{{V2 "/app/memory.max", "67108864\n"},
	    {V2 "/app/memory.current", "0\n"}}},
    {"a limit without a figure of its use limits nothing", UINT64_MAX, "", NULL,
	"0::/\n", V2_MOUNT, {{V2 "/memory.max", "1\n"}}},
    {"nonsense limits nothing", UINT64_MAX, "", "MemAvailable: lots\n",
	"0::/\n", V2_MOUNT,
	{{V2 "/memory.max", "little\n"}, {V2 "/memory.current", "1\n"}}},
    {"version 1", MIB(48),
	"memory.limit_in_bytes of " V1 "/m is 64 MiB, 16 MiB in use",
	"MemAvailable: 2097152 kB\n", "5:memory:/m\n4:cpu:/c\n", V1_MOUNT,
	{{V1 "/m/memory.limit_in_bytes", "67108864\n"},
	    {V1 "/m/memory.usage_in_bytes", "20971520\n"},
	    {V1 "/m/memory.stat",
		"inactive_file 7\ntotal_inactive_file 4194304\n"},
	    {V1 "/memory.limit_in_bytes", "9223372036854771712\n"},
	    {V1 "/memory.usage_in_bytes", "1\n"}}},
    {"version 1 without a limit", GIB(2), "MemAvailable",
	"MemAvailable: 2097152 kB\n", "5:memory:/\n", V1_MOUNT,
	{{V1 "/memory.limit_in_bytes", "9223372036854771712\n"},
	    {V1 "/memory.usage_in_bytes", "1\n"}}},
    {"version 1 limits upwards too", MIB(8), "of " V1 " is 8 MiB", NULL,
	"5:memory:/a/b\n", V1_MOUNT,
	{{V1 "/a/b/memory.limit_in_bytes", "67108864\n"},
	    {V1 "/a/b/memory.usage_in_bytes", "0\n"},
	    {V1 "/memory.limit_in_bytes", "8388608\n"},
	    {V1 "/memory.usage_in_bytes", "0\n"}}},
    {"both versions at once", MIB(8), "memory.limit_in_bytes", NULL,
	"5:memory:/\n0::/\n",
	"30 24 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 "
	"rw\n" V1_MOUNT,
	{{V1 "/memory.limit_in_bytes", "8388608\n"},
	    {V1 "/memory.usage_in_bytes", "0\n"},
	    {"/sys/fs/cgroup/unified/memory.max", "16777216\n"},
	    {"/sys/fs/cgroup/unified/memory.current", "0\n"}}},
};

static void
write_below_root(const char *path, const char *text)
{
	char full[256];
	FILE *file;

	snprintf(full, sizeof(full), "%s%s", root, path);
	for (char *at = full + 1; (at = strchr(at, '/')) != NULL; at++) {
		*at = '\0';
		mkdir(full, 0700);
		*at = '/';
	}
	file = fopen(full, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void
build(const struct machine *machine)
{
	snprintf(root, sizeof(root), "%s/%u", base, roots++);
	mkdir(root, 0700);
	if (machine->meminfo != NULL)
		write_below_root("/proc/meminfo", machine->meminfo);
	if (machine->cgroup != NULL)
		write_below_root("/proc/self/cgroup", machine->cgroup);
	if (machine->mountinfo != NULL)
		write_below_root("/proc/self/mountinfo", machine->mountinfo);
	for (const struct file *file = machine->files; file->path != NULL;
	     file++)
		write_below_root(file->path, file->text);
}

static void
the_smallest_remainder_of_groups_and_kernel_decides(void **state)
{
	struct master_memory memory;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(machines); i++) {
		build(&machines[i]);
		master_memory_left(root, &memory);
		if (memory.left != machines[i].left ||
		    strstr(memory.source, machines[i].source) == NULL)
			fail_msg("%s: %ju bytes (%s)", machines[i].what,
			    (uintmax_t)memory.left, memory.source);
	}
}

static void
this_machine_has_something_left(void **state)
{
	struct master_memory memory;

	(void)state;
	master_memory_left("", &memory);
	assert_true(memory.left > MIB(1));
}

static void
sizes_are_written_for_people(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
	    {0, "0 bytes"},
	    {1023, "1023 bytes"},
	    {1024, "1 KiB"},
	    {1536, "1.5 KiB"},
	    {MIB(1) - 1, "1023.9 KiB"},
	    {MIB(64), "64 MiB"},
	    {MIB(64) + KIB(512), "64.5 MiB"},
	    {GIB(3) + MIB(256), "3.2 GiB"},
	    {UINT64_MAX, "17179869183.9 GiB"},
	};
	char text[MASTER_MEMORY_TEXT];

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++) {
		master_memory_text(cases[i].bytes, text);
		assert_string_equal(text, cases[i].text);
	}
}

/* ---- the rule */

static struct master_options options;
static struct master_settings settings;
static char *messages;
static size_t messages_bytes;

static const char *
rule_says(uint64_t cache_bytes, uint64_t left, unsigned *errors_count)
{
	struct master_memory memory = {.left = left, .source = "a group"};
	FILE *errors;

	free(messages);
	messages = NULL;
	errors = open_memstream(&messages, &messages_bytes);
	assert_non_null(errors);
	master_settings_init(&settings, &options, errors);
	options.workers = 2;
	options.cache_bytes = cache_bytes;
	master_rules_check_memory(&settings, &memory);
	*errors_count = settings.errors_count;
	master_settings_fini(&settings);
	fclose(errors);
	return messages;
}

static void
a_cache_over_three_quarters_of_what_is_left_is_refused(void **state)
{
	struct shm_cache_options wanted = {
	    .bytes = MIB(64), .slots_count = SHM_CACHE_SLOTS_MAX, .workers = 2};
	uint64_t map = shm_cache_map_bytes(&wanted), enough;
	unsigned errors_count;

	(void)state;
	assert_true(map > wanted.bytes); /* the index counts */
	enough = (map + 74) / 75 * 100;
	rule_says(wanted.bytes, enough, &errors_count);
	assert_int_equal(errors_count, 0);
	rule_says(wanted.bytes, enough - 200, &errors_count);
	assert_int_equal(errors_count, 1);
	rule_says(wanted.bytes, UINT64_MAX, &errors_count);
	assert_int_equal(errors_count, 0);
	rule_says(wanted.bytes, 0, &errors_count);
	assert_int_equal(errors_count, 1);
}

static void
the_refusal_names_both_figures_and_who_says_so(void **state)
{
	struct shm_cache_options wanted = {
	    .bytes = MIB(64), .slots_count = SHM_CACHE_SLOTS_MAX, .workers = 2};
	char map[MASTER_MEMORY_TEXT], text[200];
	unsigned errors_count;
	const char *said;

	(void)state;
	master_memory_text(shm_cache_map_bytes(&wanted), map);
	said = rule_says(wanted.bytes, MIB(80), &errors_count);
	snprintf(text, sizeof(text),
	    "booksd: cache_size=64MiB: the cache would take %s, and of the "
	    "80 MiB that are left",
	    map);
	if (strstr(said, text) == NULL || strstr(said, "75 %") == NULL ||
	    strstr(said, "a group (from default)") == NULL)
		fail_msg("%s", said);
}

static int
group_setup(void **state)
{
	(void)state;
	return mkdtemp(base) == NULL ? -1 : 0;
}

static int
group_teardown(void **state)
{
	char line[100];

	(void)state;
	free(messages);
	snprintf(line, sizeof(line), "rm -rf %s", base);
	return system(line);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(
		the_smallest_remainder_of_groups_and_kernel_decides),
	    cmocka_unit_test(this_machine_has_something_left),
	    cmocka_unit_test(sizes_are_written_for_people),
	    cmocka_unit_test(
		a_cache_over_three_quarters_of_what_is_left_is_refused),
	    cmocka_unit_test(the_refusal_names_both_figures_and_who_says_so),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
