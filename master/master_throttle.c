/*
 * Watching the quota.
 *
 * A quota can change while we run: an administrator edits it, an orchestrator
 * resizes a pod in place.  And it can be too small, which shows in nothing
 * but latency: the kernel stops all of our processes for the rest of a period,
 * and clients wait.  The group's cpu.stat tells, so we look, and say it.
 *
 * The files are a few hundred bytes that the kernel makes up when they are
 * read; once a second that is too little to measure.  Our group is looked up
 * each time, since we can be moved to another.
 */
#include "config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "master/master_ecs.h"
#include "master/master_group.h"
#include "master/master_throttle.h"
#include "worker/worker_log.h"

#define LOOK_US 1000000
#define SAY_US	60000000 /* lines about throttling are at least so far apart */

struct climb {
	const char *root;
	struct master_throttle_stat *most;
};

/* ---- cpu.stat */

static void
take_line(struct master_throttle_stat *stat, const char *name, uint64_t value)
{
	if (strcmp(name, "nr_periods") == 0)
		stat->periods = value;
	else if (strcmp(name, "nr_throttled") == 0)
		stat->throttled_periods = value;
	else if (strcmp(name, "throttled_usec") == 0) /* version 2 */
		stat->throttled_us = value;
	else if (strcmp(name, "throttled_time") == 0) /* version 1 */
		stat->throttled_us = value / 1000;
}

static void
read_folder(void *owner, const char *folder)
{
	const struct climb *climb = owner;
	struct master_throttle_stat stat = {0}, *most = climb->most;
	char path[2 * PATH_MAX + 16], name[64];
	uint64_t value;
	FILE *file;

	snprintf(path, sizeof(path), "%s/cpu.stat", folder);
	file = master_group_open(climb->root, path);
	if (file == NULL)
		return;
	while (fscanf(file, "%63s %" SCNu64, name, &value) == 2)
		take_line(&stat, name, value);
	fclose(file);
	if (stat.throttled_us > most->throttled_us ||
	    (stat.throttled_us == most->throttled_us &&
		stat.periods > most->periods))
		*most = stat;
}

void
master_throttle_read(const char *root, struct master_throttle_stat *stat)
{
	static const bool versions[] = {true, false};
	struct master_group *group = calloc(1, sizeof(*group));
	struct climb climb = {.root = root, .most = stat};

	*stat = (struct master_throttle_stat){0};
	for (size_t i = 0; group != NULL && i < SHM_ARRAY_LEN(versions); i++)
		if (master_group_find(root, versions[i], "cpu", group))
			master_group_climb(group, read_folder, &climb);
	free(group);
}

/* ---- saying it */

static void
say_throttled(struct master_throttle *throttle,
    const struct master_throttle_stat *stat, uint64_t now_us)
{
	const struct master_throttle_stat *said = &throttle->said;

	/* Counted elsewhere now, or anew. */
	if (stat->throttled_us < said->throttled_us ||
	    stat->periods < said->periods)
		throttle->said = *stat;
	if (stat->throttled_us == said->throttled_us ||
	    now_us < throttle->said_us + SAY_US)
		return;
	worker_log(WORKER_LOG_WARN, "cpu_throttled",
	    "the CPU quota is used up, and stops booksd until the period's end",
	    LOG_INT("throttled_ms",
		(stat->throttled_us - said->throttled_us) / 1000),
	    LOG_INT("throttled_periods",
		stat->throttled_periods - said->throttled_periods),
	    LOG_INT("periods", stat->periods - said->periods),
	    LOG_INT("limit_millicpus", throttle->sizing.millicpus), LOG_END);
	throttle->said = *stat;
	throttle->said_us = now_us;
}

static void
say_changed(
    const struct master_sizing *before, const struct master_sizing *after)
{
	worker_log(WORKER_LOG_INFO, "quota_changed",
	    "the CPUs that booksd may use are others now",
	    LOG_INT("from_millicpus", before->millicpus),
	    LOG_INT("to_millicpus", after->millicpus),
	    LOG_INT("cpus", after->workers), LOG_STR("source", after->source),
	    LOG_END);
}

/* ---- looking */

static bool
look_at_limit(struct master_throttle *throttle, const char *root)
{
	const struct ops_ecs_task *task = master_ecs_task();
	struct master_sizing before = throttle->sizing;

	master_sizing_decide(root, master_sizing_affinity(),
	    task != NULL ? task->millicpus : 0, &throttle->sizing);
	if (!throttle->has_begun ||
	    (before.millicpus == throttle->sizing.millicpus &&
		before.workers == throttle->sizing.workers))
		return false;
	say_changed(&before, &throttle->sizing);
	return true;
}

static void
look_at_stat(struct master_throttle *throttle, const char *root,
    struct shm_board *board, uint64_t now_us)
{
	struct master_throttle_stat stat;

	master_throttle_read(root, &stat);
	shm_board_set(board->cpu.periods, stat.periods);
	shm_board_set(board->cpu.throttled_periods, stat.throttled_periods);
	shm_board_set(board->cpu.throttled_us, stat.throttled_us);
	if (throttle->has_begun) {
		say_throttled(throttle, &stat, now_us);
		return;
	}
	/* What was counted before us is not ours; and the first line may come
	 * at once. */
	throttle->said = stat;
	throttle->said_us = now_us >= SAY_US ? now_us - SAY_US : 0;
}

bool
master_throttle_tick(struct master_throttle *throttle, const char *root,
    struct shm_board *board, uint64_t now_us)
{
	bool is_changed;

	if (throttle->next_us > now_us)
		return false;
	is_changed = look_at_limit(throttle, root);
	shm_board_set(board->cpu.millicpus, throttle->sizing.millicpus);
	look_at_stat(throttle, root, board, now_us);
	throttle->has_begun = true;
	throttle->next_us = now_us + LOOK_US;
	return is_changed;
}
