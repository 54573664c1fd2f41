/*
 * Counting the CPUs that are really ours.
 *
 * A container is kept to a share of a machine in three ways: by the affinity
 * mask, which sched_getaffinity(2) tells, by a quota of CPU time per period,
 * which only the control group's files tell, and on ECS by a limit of the task,
 * whose group is above what a container sees and which only the service's
 * metadata tell (master_ecs.c).  A quota can stand at any level above us, so
 * the way up to the mount point is walked.  All of them hold at once, so the
 * smallest one counts; of equal ones the first that was asked: the task, the
 * groups of version 2 and 1, the mask.  It is rounded up: with 1.5 CPUs two
 * workers use them, one would waste a third.
 *
 * Nothing here fails: what cannot be read limits nothing.
 */
#include "config.h"

#include <ctype.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "master/master_group.h"
#include "master/master_sizing.h"

#define CPUS_MAX      8192
#define MILLICPUS_MAX (CPUS_MAX * UINT64_C(1000))

struct limit {
	uint64_t quota;
	uint64_t period;
};

/* The way up through one hierarchy. */
struct climb {
	const char *root;
	bool is_v2;
	struct master_sizing *sizing;
};

uint32_t
master_sizing_affinity(void)
{
	cpu_set_t *set = CPU_ALLOC(CPUS_MAX);
	size_t bytes = CPU_ALLOC_SIZE(CPUS_MAX);
	int count = 0;

	if (set != NULL && sched_getaffinity(0, bytes, set) == 0)
		count = CPU_COUNT_S(bytes, set);
	CPU_FREE(set);
	return count > 0 ? (uint32_t)count : 1;
}

/* The group's own limit; false when it has none. */
static bool
read_limit(const struct climb *climb, const char *folder, struct limit *limit)
{
	char words[2][MASTER_GROUP_WORD], period[2][MASTER_GROUP_WORD];
	const char *root = climb->root;

	if (climb->is_v2) {
		if (!master_group_read(root, folder, "cpu.max", words))
			return false;
	} else {
		if (!master_group_read(
			root, folder, "cpu.cfs_quota_us", words) ||
		    !master_group_read(
			root, folder, "cpu.cfs_period_us", period))
			return false;
		strcpy(words[1], period[0]);
	}
	/* "max" and "-1" say that there is no limit. */
	if (!isdigit((unsigned char)words[0][0]))
		return false;
	limit->quota = strtoull(words[0], NULL, 10);
	limit->period = strtoull(words[1], NULL, 10);
	return limit->quota > 0 && limit->period > 0;
}

/* Rounded up: what is not nothing must not become "no limit". */
static uint64_t
limit_millicpus(const struct limit *limit)
{
	uint64_t whole = limit->quota / limit->period;
	uint64_t rest = limit->quota % limit->period;

	if (whole >= MILLICPUS_MAX / 1000 || rest > UINT64_MAX / 1000)
		return MILLICPUS_MAX;
	return whole * 1000 + (rest * 1000 + limit->period - 1) / limit->period;
}

/* Does a limit count, since none said less before?  Then it is taken. */
static bool
take_limit(struct master_sizing *sizing, uint64_t millicpus)
{
	if (sizing->millicpus > 0 && millicpus >= sizing->millicpus)
		return false;
	sizing->millicpus =
	    (uint32_t)(millicpus < MILLICPUS_MAX ? millicpus : MILLICPUS_MAX);
	return true;
}

/* Let the smallest limit between our group and the mount point count. */
static void
apply_limit(void *owner, const char *folder)
{
	const struct climb *climb = owner;
	struct master_sizing *sizing = climb->sizing;
	struct limit limit;

	if (!read_limit(climb, folder, &limit) ||
	    !take_limit(sizing, limit_millicpus(&limit)))
		return;
	snprintf(sizing->source, sizeof(sizing->source), "%s %ju/%ju in %.80s",
	    climb->is_v2 ? "cpu.max" : "cpu.cfs_quota_us",
	    (uintmax_t)limit.quota, (uintmax_t)limit.period, folder);
}

static void
apply_task(struct master_sizing *sizing, uint32_t millicpus)
{
	if (millicpus == 0 || !take_limit(sizing, millicpus))
		return;
	snprintf(sizing->source, sizeof(sizing->source),
	    "ECS task limit of %u.%03u vCPU", millicpus / 1000,
	    millicpus % 1000);
}

static void
apply_groups(struct master_sizing *sizing, const char *root)
{
	static const bool versions[] = {true, false};
	struct master_group *group = calloc(1, sizeof(*group));
	struct climb climb = {.root = root, .sizing = sizing};

	for (size_t i = 0; group != NULL && i < SHM_ARRAY_LEN(versions); i++) {
		climb.is_v2 = versions[i];
		if (master_group_find(root, climb.is_v2, "cpu", group))
			master_group_climb(group, apply_limit, &climb);
	}
	free(group);
}

void
master_sizing_decide(const char *root, uint32_t affinity,
    uint32_t task_millicpus, struct master_sizing *sizing)
{
	*sizing = (struct master_sizing){.workers = affinity};
	apply_task(sizing, task_millicpus);
	apply_groups(sizing, root);
	if (sizing->millicpus > 0 &&
	    sizing->millicpus <= affinity * UINT64_C(1000)) {
		sizing->workers = (sizing->millicpus + 999) / 1000;
	} else {
		sizing->millicpus = 0;
		snprintf(sizing->source, sizeof(sizing->source),
		    "affinity mask of %u CPUs", affinity);
	}
	if (sizing->workers > SHM_BOARD_WORKERS_MAX) {
		sizing->workers = SHM_BOARD_WORKERS_MAX;
		snprintf(sizing->source, sizeof(sizing->source),
		    "the most that booksd has");
	}
	SHM_ASSERT(sizing->workers >= 1);
}
