/*
 * A seeded 64-bit hash for short keys (10 to 30 bytes): two multiplications
 * of 64 by 64 bits for most of them.
 *
 * All constants that the input meets are derived from the seed.  A fixed one
 * would let a client choose eight bytes that make a factor zero, and so keys
 * that collide whatever the seed is.
 */
#ifndef SHM_HASH_H
#define SHM_HASH_H

#include "shm/shm_base.h"

struct shm_hash {
	uint64_t secret[4]; /* odd */
};

void shm_hash_init(struct shm_hash *hash, uint64_t seed);

/* The same in every process that was given the same seed; not the same on
 * machines of another byte order.  data is borrowed. */
uint64_t
shm_hash_bytes(const struct shm_hash *hash, const void *data, size_t len);

/* One number into another, unseeded: for a layout's fingerprint. */
uint64_t shm_hash_number(uint64_t number);

#endif
