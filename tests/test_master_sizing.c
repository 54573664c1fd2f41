/*
 * Goal: "workers = auto" is the number of CPUs that the affinity mask, the
 * control groups and the container service really leave us, whatever shape the
 * hierarchy has. Method: each case is a fake machine: a folder with
 * proc/self/cgroup, proc/self/mountinfo and the group's files, written from a
 * table.
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

#include "master/master_sizing.h"

static char base[] = "/tmp/test_master_sizing_XXXXXX";
static char root[64];
static unsigned roots;

#define V2_MOUNT                                                            \
	"30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 " \
	"rw,nsdelegate\n"
#define V1_MOUNT                                                            \
	"29 24 0:25 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" \
	"31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup "       \
	"rw,cpu,cpuacct\n"
#define V2 "/sys/fs/cgroup"
#define V1 "/sys/fs/cgroup/cpu,cpuacct"

struct file {
	const char *path; /* NULL: the end */
	const char *text;
};

static const struct machine {
	const char *what;
	uint32_t affinity;
	uint32_t workers;
	const char *source; /* part of it */
	const char *cgroup; /* NULL: no such file */
	const char *mountinfo;
	struct file files[6];
	uint32_t task;	    /* what ECS says */
	uint32_t millicpus; /* 0: not looked at */
} machines[] = {
    {"nothing can be read", 6, 6, "affinity mask of 6 CPUs", NULL, NULL,
	.files = {{0}}},
    {"no limit", 4, 4, "affinity", "0::/\n", V2_MOUNT,
	.files = {{V2 "/cpu.max", "max 100000\n"}}},
    {"a container's own group", 8, 2, "cpu.max 200000/100000 in " V2, "0::/\n",
	V2_MOUNT, .files = {{V2 "/cpu.max", "200000 100000\n"}}},
    {"a part of a CPU counts as one", 8, 2, "cpu.max 150000/100000", "0::/\n",
	V2_MOUNT, .files = {{V2 "/cpu.max", "150000 100000\n"}}},
    {"a quarter of a CPU is one worker", 8, 1, "cpu.max 25000/100000", "0::/\n",
	V2_MOUNT, .files = {{V2 "/cpu.max", "25000 100000\n"}}},
    {"a larger limit than the mask", 2, 2, "affinity", "0::/\n", V2_MOUNT,
	.files = {{V2 "/cpu.max", "800000 100000\n"}}},
    {"the smallest limit on the way up", 16, 3, "in " V2 "/a\n", "0::/a/b/c\n",
	V2_MOUNT,
	.files = {{V2 "/a/b/c/cpu.max", "max 100000\n"},
	    {V2 "/a/b/cpu.max", "500000 100000\n"},
	    {V2 "/a/cpu.max", "300000 100000\n"},
	    {V2 "/cpu.max", "900000 100000\n"}}},
    {"the deepest group decides", 16, 2, "in " V2 "/a/b\n", "0::/a/b\n",
	V2_MOUNT,
	.files = {{V2 "/a/b/cpu.max", "20000 10000\n"},
	    {V2 "/a/cpu.max", "300000 100000\n"}}},
    {"a group beside ours is not asked", 16, 16, "affinity", "0::/a\n",
	V2_MOUNT, .files = {{V2 "/b/cpu.max", "100000 100000\n"}}},
    {"a mounted part of the hierarchy", 16, 2, "in " V2 "/app\n",
	"0::/docker/123/app\n",
	"30 24 0:26 /docker/123 /sys/fs/cgroup ro - cgroup2 cgroup ro\n",
	.files = {{V2 "/app/cpu.max", "200000 100000\n"}}},
    {"a group outside of the mounted part", 16, 2, "in " V2 "\n",
	"0::/../other\n", V2_MOUNT,
	.files = {{V2 "/cpu.max", "200000 100000\n"}}},
    {"a prefix that is no parent", 16, 2, "in " V2 "\n", "0::/docker/1234\n",
	"30 24 0:26 /docker/123 /sys/fs/cgroup ro - cgroup2 cgroup ro\n",
	.files = {{V2 "/cpu.max", "200000 100000\n"},
	    {V2 "4/cpu.max", "100000 100000\n"}}},
    {"version 1", 16, 3, "cpu.cfs_quota_us 250000/100000 in " V1 "/a\n",
	"5:memory:/m\n4:cpu,cpuacct:/a\n1:name=systemd:/\n", V1_MOUNT,
	.files = {{V1 "/a/cpu.cfs_quota_us", "250000\n"},
	    {V1 "/a/cpu.cfs_period_us", "100000\n"}}},
    {"version 1 without a limit", 5, 5, "affinity", "4:cpu,cpuacct:/\n",
	V1_MOUNT,
	.files = {{V1 "/cpu.cfs_quota_us", "-1\n"},
	    {V1 "/cpu.cfs_period_us", "100000\n"}}},
    {"version 1 in a container that sees the host's path", 16, 1, "in " V1,
	"4:cpu,cpuacct:/docker/77\n",
	"31 24 0:27 /docker/77 /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup "
	"rw,cpu,cpuacct\n",
	.files = {{V1 "/cpu.cfs_quota_us", "50000\n"},
	    {V1 "/cpu.cfs_period_us", "100000\n"}}},
    {"version 1 limits upwards too", 16, 2, "in " V1 "\n",
	"4:cpuacct,cpu:/a/b\n", V1_MOUNT,
	.files = {{V1 "/a/b/cpu.cfs_quota_us", "-1\n"},
	    {V1 "/a/b/cpu.cfs_period_us", "100000\n"},
	    {V1 "/cpu.cfs_quota_us", "200000\n"},
	    {V1 "/cpu.cfs_period_us", "100000\n"}}},
    {"both versions at once", 16, 2, "cpu.cfs_quota_us",
	"4:cpu,cpuacct:/\n0::/\n",
	"30 24 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 "
	"rw\n" V1_MOUNT,
	.files = {{V1 "/cpu.cfs_quota_us", "200000\n"},
	    {V1 "/cpu.cfs_period_us", "100000\n"},
	    {"/sys/fs/cgroup/unified/cpu.max", "max 100000\n"}}},
    {"cpuset is not cpu", 7, 7, "affinity", "4:cpuset:/\n",
	"31 24 0:27 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n",
	.files = {{"/sys/fs/cgroup/cpuset/cpu.cfs_quota_us", "100000\n"},
	    {"/sys/fs/cgroup/cpuset/cpu.cfs_period_us", "100000\n"}}},
    {"nonsense limits nothing", 3, 3, "affinity", "0::/\n", V2_MOUNT,
	.files = {{V2 "/cpu.max", "lots\n"}}},
    {"a period of zero limits nothing", 3, 3, "affinity", "0::/\n", V2_MOUNT,
	.files = {{V2 "/cpu.max", "100000 0\n"}}},
    {"an empty file limits nothing", 3, 3, "affinity", "0::/\n", V2_MOUNT,
	.files = {{V2 "/cpu.max", ""}}},
    {"broken lines are passed over", 3, 1, "cpu.max", "x\n\n0:\n0::/\n",
	"short\n - \n" V2_MOUNT, .files = {{V2 "/cpu.max", "1 100000\n"}}},
    {"the task's limit is not seen in the groups", 2, 1,
	"ECS task limit of 0.250 vCPU", "0::/\n", V2_MOUNT,
	.files = {{V2 "/cpu.max", "max 100000\n"}}, .task = 250,
	.millicpus = 250},
    {"a part of a task's CPU counts as one", 8, 2, "ECS", NULL, NULL,
	.files = {{0}}, .task = 1500, .millicpus = 1500},
    {"a group below the task has less", 8, 1, "cpu.max 50000/100000", "0::/\n",
	V2_MOUNT, .files = {{V2 "/cpu.max", "50000 100000\n"}}, .task = 2000,
	.millicpus = 500},
    {"of equal limits the task's is named", 2, 2, "ECS task limit of 2.000",
	"0::/\n", V2_MOUNT, .files = {{V2 "/cpu.max", "200000 100000\n"}},
	.task = 2000, .millicpus = 2000},
    {"a task larger than the mask", 2, 2, "affinity", NULL, NULL,
	.files = {{0}}, .task = 4000},
    {"a group before the mask", 2, 2, "cpu.max", "0::/\n", V2_MOUNT,
	.files = {{V2 "/cpu.max", "150000 100000\n"}}, .millicpus = 1500},
    {"the least there is stays a limit", 8, 1, "cpu.max 1/", "0::/\n", V2_MOUNT,
	.files = {{V2 "/cpu.max", "1 100000\n"}}, .millicpus = 1},
    {"numbers beyond all CPUs limit nothing", 3, 3, "affinity", "0::/\n",
	V2_MOUNT, .files = {{V2 "/cpu.max", "18446744073709551615 3\n"}}},
    {"a rest beyond all counting limits nothing", 3, 3, "affinity", "0::/\n",
	V2_MOUNT,
	.files = {{V2 "/cpu.max",
	    "18446744073709551614 18446744073709551615\n"}}},
    {"more CPUs than booksd has workers", 1000, SHM_BOARD_WORKERS_MAX,
	"the most that booksd has", NULL, NULL, .files = {{0}}},
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
	if (machine->cgroup != NULL)
		write_below_root("/proc/self/cgroup", machine->cgroup);
	if (machine->mountinfo != NULL)
		write_below_root("/proc/self/mountinfo", machine->mountinfo);
	for (const struct file *file = machine->files; file->path != NULL;
	     file++)
		write_below_root(file->path, file->text);
}

static void
the_tightest_of_mask_and_groups_decides(void **state)
{
	struct master_sizing sizing;
	char source[200];

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(machines); i++) {
		build(&machines[i]);
		master_sizing_decide(
		    root, machines[i].affinity, machines[i].task, &sizing);
		/* A newline in the table is the source's end. */
		snprintf(source, sizeof(source), "%s\n", sizing.source);
		if (sizing.workers != machines[i].workers ||
		    strstr(source, machines[i].source) == NULL ||
		    (machines[i].millicpus > 0 &&
			sizing.millicpus != machines[i].millicpus))
			fail_msg("%s: %u workers, %u (%s)", machines[i].what,
			    sizing.workers, sizing.millicpus, sizing.source);
	}
}

static void
this_machine_has_at_least_one_cpu_for_us(void **state)
{
	struct master_sizing sizing;
	uint32_t affinity = master_sizing_affinity();

	(void)state;
	assert_true(affinity >= 1);
	master_sizing_decide("", affinity, 0, &sizing);
	assert_in_range(sizing.workers, 1, SHM_BOARD_WORKERS_MAX);
	assert_true(sizing.workers <= affinity);
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
	snprintf(line, sizeof(line), "rm -rf %s", base);
	return system(line);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_tightest_of_mask_and_groups_decides),
	    cmocka_unit_test(this_machine_has_at_least_one_cpu_for_us),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
