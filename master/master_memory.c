/*
 * Counting the memory that is really left.
 *
 * A process that touches more than its control group may have is killed, with
 * no chance to say why.  The cache is touched as a whole at the start, so what
 * is left is looked up before: the group's limit less what its processes use
 * already.  A limit can stand at any level above us, so the way up to the mount
 * point is walked and the smallest remainder counts.  What the kernel calls
 * available bounds all of them.
 *
 * Pages of files that nobody has used for a while count as used in the group's
 * figure, but the kernel takes them back before it kills: they are left.  A
 * container that has read a large file would otherwise not start again.
 *
 * Nothing here fails: what cannot be read limits nothing.
 */
#include "config.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "master/master_group.h"
#include "master/master_memory.h"

/* A version 1 group without a limit has one that no machine reaches. */
#define V1_NO_LIMIT (UINT64_C(1) << 60)

struct names {
	const char *limit;
	const char *used;
	const char *reclaimable; /* a line of memory.stat */
};

static const struct names names_v1 = {
    "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"};
static const struct names names_v2 = {
    "memory.max", "memory.current", "inactive_file"};

/* The way up through one hierarchy. */
struct climb {
	const char *root;
	const struct names *names;
	struct master_memory *memory;
};

void
master_memory_text(uint64_t bytes, char text[MASTER_MEMORY_TEXT])
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB"};
	size_t unit = 0;
	uint64_t tenths;

	while (
	    unit + 1 < SHM_ARRAY_LEN(units) && bytes >> (10 * (unit + 1)) > 0)
		unit++;
	if (unit == 0) {
		snprintf(text, MASTER_MEMORY_TEXT, "%" PRIu64 " bytes", bytes);
		return;
	}
	tenths = (bytes >> (10 * (unit - 1))) * 10 / 1024;
	if (tenths % 10 == 0)
		snprintf(text, MASTER_MEMORY_TEXT, "%" PRIu64 " %s",
		    tenths / 10, units[unit]);
	else
		snprintf(text, MASTER_MEMORY_TEXT, "%" PRIu64 ".%" PRIu64 " %s",
		    tenths / 10, tenths % 10, units[unit]);
}

/* A file with one number; "max" is none. */
static bool
read_bytes(
    const char *root, const char *folder, const char *name, uint64_t *bytes)
{
	char words[2][MASTER_GROUP_WORD];

	if (!master_group_read(root, folder, name, words) ||
	    !isdigit((unsigned char)words[0][0]))
		return false;
	*bytes = strtoull(words[0], NULL, 10);
	return true;
}

/* The number behind name in a file of lines "name number"; 0 without it. */
static uint64_t
read_line(const char *root, const char *path, const char *name)
{
	FILE *file = master_group_open(root, path);
	uint64_t number = 0;
	char line[256];
	size_t len = strlen(name);

	if (file == NULL)
		return 0;
	while (fgets(line, sizeof(line), file) != NULL)
		if (strncmp(line, name, len) == 0 && line[len] == ' ') {
			number = strtoull(line + len, NULL, 10);
			break;
		}
	fclose(file);
	return number;
}

static uint64_t
less(uint64_t from, uint64_t what)
{
	return from > what ? from - what : 0;
}

static void
apply_limit(void *owner, const char *folder)
{
	const struct climb *climb = owner;
	const struct names *names = climb->names;
	struct master_memory *memory = climb->memory;
	char limit_text[MASTER_MEMORY_TEXT], used_text[MASTER_MEMORY_TEXT];
	char stat[2 * PATH_MAX + 64];
	uint64_t limit, used;

	if (!read_bytes(climb->root, folder, names->limit, &limit) ||
	    limit >= V1_NO_LIMIT ||
	    !read_bytes(climb->root, folder, names->used, &used))
		return;
	snprintf(stat, sizeof(stat), "%s/memory.stat", folder);
	used = less(used, read_line(climb->root, stat, names->reclaimable));
	if (less(limit, used) >= memory->left)
		return;
	memory->left = less(limit, used);
	master_memory_text(limit, limit_text);
	master_memory_text(used, used_text);
	snprintf(memory->source, sizeof(memory->source),
	    "%s of %.80s is %s, %s in use", names->limit, folder, limit_text,
	    used_text);
}

static void
apply_available(const char *root, struct master_memory *memory)
{
	uint64_t bytes = read_line(root, "/proc/meminfo", "MemAvailable:");

	if (bytes == 0 || bytes > UINT64_MAX / 1024)
		return;
	memory->left = bytes * 1024;
	snprintf(memory->source, sizeof(memory->source),
	    "MemAvailable of /proc/meminfo");
}

void
master_memory_left(const char *root, struct master_memory *memory)
{
	struct master_group *group = calloc(1, sizeof(*group));
	struct climb climb = {.root = root, .memory = memory};

	*memory = (struct master_memory){.left = UINT64_MAX};
	apply_available(root, memory);
	for (int version = 2; group != NULL && version > 0; version--) {
		climb.names = version == 2 ? &names_v2 : &names_v1;
		if (master_group_find(root, version == 2, "memory", group))
			master_group_climb(group, apply_limit, &climb);
	}
	free(group);
}
