/*
 * How much memory is left to this process.
 */
#ifndef MASTER_MEMORY_H
#define MASTER_MEMORY_H

#include "shm/shm_base.h"

#define MASTER_MEMORY_TEXT 32

struct master_memory {
	uint64_t left;	  /* bytes; UINT64_MAX: nothing is known */
	char source[200]; /* what decided, for messages */
};

/*
 * The smallest of: the limits of the control groups, version 2 and 1, less
 * what is in use there, on our group's level and on all above; and what the
 * kernel says to be available.  Found below root, as in master_group.h.
 */
void master_memory_left(const char *root, struct master_memory *memory);

/* 67108864 as "64 MiB", 1600 as "1.5 KiB"; for messages. */
void master_memory_text(uint64_t bytes, char text[MASTER_MEMORY_TEXT]);

#endif
