/*
 * Counting the CPUs that are really ours.
 *
 * A container is kept to a share of a machine in two ways: by the affinity
 * mask, which sched_getaffinity(2) tells, and by a quota of CPU time per
 * period, which only the control group's files tell.  A quota can stand at any
 * level above us, so the way up to the mount point is walked and the smallest
 * one counts.  It is rounded up: with 1.5 CPUs two workers use them, one would
 * waste a third.
 *
 * Where the group's folder is: /proc/self/cgroup gives the path within the
 * hierarchy, /proc/self/mountinfo where which part of the hierarchy is
 * mounted.  In a container the mounted part often is the group itself.
 *
 * Nothing here fails: what cannot be read limits nothing.
 */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "master/master_sizing.h"

#define CPUS_MAX 8192

struct hierarchy {
	bool is_v2;
	char mount_root[PATH_MAX];  /* the part of the hierarchy mounted ... */
	char mount_point[PATH_MAX]; /* ... here */
	char group[PATH_MAX];	    /* our path in the hierarchy */
};

struct limit {
	uint64_t quota;
	uint64_t period;
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

/* Is word one of the comma-separated words of list? */
static bool
has_word(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = list; *at != '\0';) {
		size_t item = strcspn(at, ",");

		if (item == len && memcmp(at, word, len) == 0)
			return true;
		at += item;
		at += *at == ',';
	}
	return false;
}

static FILE *
open_below(const char *root, const char *path)
{
	char full[2 * PATH_MAX];
	int len = snprintf(full, sizeof(full), "%s%s", root, path);

	if (len < 0 || (size_t)len >= sizeof(full)) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	return fopen(full, "re");
}

/* Lines "0::/path" (version 2) and "4:cpu,cpuacct:/path" (version 1). */
static bool
find_group(const char *root, struct hierarchy *hierarchy)
{
	FILE *file = open_below(root, "/proc/self/cgroup");
	char line[PATH_MAX + 256];
	bool is_found = false;

	if (file == NULL)
		return false;
	while (!is_found && fgets(line, sizeof(line), file) != NULL) {
		char *rest = line, *number, *controllers, *path;

		number = strsep(&rest, ":");
		controllers = strsep(&rest, ":");
		path = strsep(&rest, "\n");
		if (path == NULL || strlen(path) >= PATH_MAX)
			continue;
		is_found = hierarchy->is_v2 ? strcmp(number, "0") == 0 &&
						  controllers[0] == '\0'
					    : has_word(controllers, "cpu");
		strcpy(hierarchy->group, path);
	}
	fclose(file);
	return is_found;
}

/*
 * mountinfo: id parent device root point options [tags] - type source super
 */
static bool
find_mount(const char *root, struct hierarchy *hierarchy)
{
	FILE *file = open_below(root, "/proc/self/mountinfo");
	char line[3 * PATH_MAX], type[64], super[1024];
	bool is_found = false;

	if (file == NULL)
		return false;
	while (!is_found && fgets(line, sizeof(line), file) != NULL) {
		const char *tail = strstr(line, " - ");

		if (tail == NULL ||
		    sscanf(tail, " - %63s %*s %1023s", type, super) != 2 ||
		    sscanf(line, "%*s %*s %*s %4095s %4095s",
			hierarchy->mount_root, hierarchy->mount_point) != 2)
			continue;
		is_found = hierarchy->is_v2 ? strcmp(type, "cgroup2") == 0
					    : strcmp(type, "cgroup") == 0 &&
						  has_word(super, "cpu");
	}
	fclose(file);
	return is_found;
}

/* Our group's path below the mount point, "" for the mount point itself. */
static const char *
group_below_mount(const struct hierarchy *hierarchy)
{
	size_t len = strlen(hierarchy->mount_root);
	const char *group = hierarchy->group;

	if (strcmp(hierarchy->mount_root, "/") == 0)
		len = 0;
	/* A group outside of what we can see: its limits, if any, are those
	 * of the mount point. */
	if (strncmp(group, hierarchy->mount_root, len) != 0 ||
	    (group[len] != '/' && group[len] != '\0') ||
	    strncmp(group, "/..", 3) == 0)
		return "";
	return strcmp(group + len, "/") == 0 ? "" : group + len;
}

static bool
read_words(
    const char *root, const char *folder, const char *name, char words[2][32])
{
	char path[2 * PATH_MAX + 64];
	FILE *file;
	int count;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = open_below(root, path);
	if (file == NULL)
		return false;
	words[1][0] = '\0';
	count = fscanf(file, "%31s %31s", words[0], words[1]);
	fclose(file);
	return count >= 1;
}

/* The group's own limit; false when it has none. */
static bool
read_limit(const char *root, const struct hierarchy *hierarchy,
    const char *folder, struct limit *limit)
{
	char words[2][32], period[2][32];

	if (hierarchy->is_v2) {
		if (!read_words(root, folder, "cpu.max", words))
			return false;
	} else {
		if (!read_words(root, folder, "cpu.cfs_quota_us", words) ||
		    !read_words(root, folder, "cpu.cfs_period_us", period))
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

/* CPUs that the limit gives, rounded up. */
static uint64_t
limit_cpus(const struct limit *limit)
{
	return limit->quota / limit->period +
	       (limit->quota % limit->period != 0);
}

/* Let the smallest limit between our group and the mount point count. */
static void
apply_limits(const char *root, const struct hierarchy *hierarchy,
    struct master_sizing *sizing)
{
	char folder[2 * PATH_MAX];
	size_t top = strlen(hierarchy->mount_point);
	struct limit limit;

	snprintf(folder, sizeof(folder), "%s%s", hierarchy->mount_point,
	    group_below_mount(hierarchy));
	for (;;) {
		if (read_limit(root, hierarchy, folder, &limit) &&
		    limit_cpus(&limit) < sizing->workers) {
			sizing->workers = (uint32_t)limit_cpus(&limit);
			snprintf(sizing->source, sizeof(sizing->source),
			    "%s %ju/%ju in %.80s",
			    hierarchy->is_v2 ? "cpu.max" : "cpu.cfs_quota_us",
			    (uintmax_t)limit.quota, (uintmax_t)limit.period,
			    folder);
		}
		if (strlen(folder) <= top || strrchr(folder, '/') == NULL)
			return;
		*strrchr(folder, '/') = '\0';
	}
}

void
master_sizing_decide(
    const char *root, uint32_t affinity, struct master_sizing *sizing)
{
	static const bool versions[] = {true, false};
	struct hierarchy *hierarchy = calloc(1, sizeof(*hierarchy));

	sizing->workers = affinity;
	snprintf(sizing->source, sizeof(sizing->source),
	    "affinity mask of %u CPUs", affinity);
	for (size_t i = 0; hierarchy != NULL && i < SHM_ARRAY_LEN(versions);
	     i++) {
		hierarchy->is_v2 = versions[i];
		if (find_group(root, hierarchy) && find_mount(root, hierarchy))
			apply_limits(root, hierarchy, sizing);
	}
	free(hierarchy);
	if (sizing->workers > SHM_BOARD_WORKERS_MAX) {
		sizing->workers = SHM_BOARD_WORKERS_MAX;
		snprintf(sizing->source, sizeof(sizing->source),
		    "the most that booksd has");
	}
	SHM_ASSERT(sizing->workers >= 1);
}
