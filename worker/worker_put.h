/*
 * Text put together in place: each function writes at a position that has
 * room and returns the one after it.
 */
#ifndef WORKER_PUT_H
#define WORKER_PUT_H

#include <string.h>

#include "shm/shm_base.h"

static inline char *
worker_put(char *at, const char *text, size_t len)
{
	memcpy(at, text, len);
	return at + len;
}

#define WORKER_PUT(at, literal) worker_put((at), (literal), sizeof(literal) - 1)

/* At most 20 bytes. */
static inline char *
worker_put_u64(char *at, uint64_t value)
{
	char digits[20];
	size_t start = sizeof(digits);

	do {
		digits[--start] = (char)('0' + value % 10);
		value /= 10;
	} while (value > 0);
	return worker_put(at, digits + start, sizeof(digits) - start);
}

#endif
