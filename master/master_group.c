/*
 * Finding the control groups that this process is in.
 *
 * Where a group's folder is: /proc/self/cgroup gives the path within the
 * hierarchy, /proc/self/mountinfo where which part of the hierarchy is
 * mounted.  In a container the mounted part often is the group itself.
 * A limit can stand at any level above us, so those who look for one walk all
 * the way up to the mount point.
 *
 * Nothing here fails: what cannot be read limits nothing.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "master/master_group.h"

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

FILE *
master_group_open(const char *root, const char *path)
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
find_path(const char *root, const char *controller, struct master_group *group)
{
	FILE *file = master_group_open(root, "/proc/self/cgroup");
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
		is_found = group->is_v2 ? strcmp(number, "0") == 0 &&
					      controllers[0] == '\0'
					: has_word(controllers, controller);
		strcpy(group->path, path);
	}
	fclose(file);
	return is_found;
}

/*
 * mountinfo: id parent device root point options [tags] - type source super
 */
static bool
find_mount(const char *root, const char *controller, struct master_group *group)
{
	FILE *file = master_group_open(root, "/proc/self/mountinfo");
	char line[3 * PATH_MAX], type[64], super[1024];
	bool is_found = false;

	if (file == NULL)
		return false;
	while (!is_found && fgets(line, sizeof(line), file) != NULL) {
		const char *tail = strstr(line, " - ");

		if (tail == NULL ||
		    sscanf(tail, " - %63s %*s %1023s", type, super) != 2 ||
		    sscanf(line, "%*s %*s %*s %4095s %4095s", group->mount_root,
			group->mount_point) != 2)
			continue;
		is_found = group->is_v2 ? strcmp(type, "cgroup2") == 0
					: strcmp(type, "cgroup") == 0 &&
					      has_word(super, controller);
	}
	fclose(file);
	return is_found;
}

/* Our group's path below the mount point, "" for the mount point itself. */
static const char *
path_below_mount(const struct master_group *group)
{
	size_t len = strlen(group->mount_root);
	const char *path = group->path;

	if (strcmp(group->mount_root, "/") == 0)
		len = 0;
	/* A group outside of what we can see: its limits, if any, are those
	 * of the mount point. */
	if (strncmp(path, group->mount_root, len) != 0 ||
	    (path[len] != '/' && path[len] != '\0') ||
	    strncmp(path, "/..", 3) == 0)
		return "";
	return strcmp(path + len, "/") == 0 ? "" : path + len;
}

bool
master_group_read(
    const char *root, const char *folder, const char *name, char words[2][32])
{
	char path[2 * PATH_MAX + 64];
	FILE *file;
	int count;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = master_group_open(root, path);
	if (file == NULL)
		return false;
	words[1][0] = '\0';
	count = fscanf(file, "%31s %31s", words[0], words[1]);
	fclose(file);
	return count >= 1;
}

bool
master_group_find(const char *root, bool is_v2, const char *controller,
    struct master_group *group)
{
	group->is_v2 = is_v2;
	return find_path(root, controller, group) &&
	       find_mount(root, controller, group);
}

void
master_group_climb(const struct master_group *group,
    void (*each)(void *owner, const char *folder), void *owner)
{
	char folder[2 * PATH_MAX];
	size_t top = strlen(group->mount_point);

	snprintf(folder, sizeof(folder), "%s%s", group->mount_point,
	    path_below_mount(group));
	for (;;) {
		each(owner, folder);
		if (strlen(folder) <= top || strrchr(folder, '/') == NULL)
			return;
		*strrchr(folder, '/') = '\0';
	}
}
