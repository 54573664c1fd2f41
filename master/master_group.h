/*
 * The control groups, version 2 and 1: where our limits stand.
 *
 * root is "" for this machine; tests give a folder with proc/self/cgroup,
 * proc/self/mountinfo and the hierarchy itself.
 */
#ifndef MASTER_GROUP_H
#define MASTER_GROUP_H

#include <limits.h>
#include <stdio.h>

#include "shm/shm_base.h"

#define MASTER_GROUP_WORD 32

struct master_group {
	bool is_v2;
	char mount_root[PATH_MAX];  /* the part of the hierarchy mounted ... */
	char mount_point[PATH_MAX]; /* ... here */
	char path[PATH_MAX];	    /* ours in the hierarchy */
};

/* Our group in the hierarchy of that version and, in version 1, of that
 * controller. */
bool master_group_find(const char *root, bool is_v2, const char *controller,
    struct master_group *group) SHM_MUSTCHECK;

/* Call each for the group's folder and all above it up to the mount point. */
void master_group_climb(const struct master_group *group,
    void (*each)(void *owner, const char *folder), void *owner);

/* The first words of a folder's file; words[1] may be "". */
bool master_group_read(const char *root, const char *folder, const char *name,
    char words[2][MASTER_GROUP_WORD]) SHM_MUSTCHECK;

/* fopen(3) below root, for reading. */
FILE *master_group_open(const char *root, const char *path) SHM_MUSTCHECK;

#endif
