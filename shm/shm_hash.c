/*
 * The hash of the cache's keys, of the multiply-and-fold kind: the input is
 * read eight bytes at a time, xored with secrets, and the two halves of the
 * 128-bit product are xored.
 *
 * LAYOUT: nothing is shared; every process derives the secrets from the seed
 * in the mapping's head.
 *
 * LIMITS: not a cryptographic hash.  A client that cannot see the seed and
 * only sees which requests hit has no way to build many keys for one bucket;
 * if one had, the bucket's six ways would lose hits, nothing else.
 */
#include "config.h"

#include <string.h>

#include "shm/shm_hash.h"

static inline uint64_t
fold(uint64_t a, uint64_t b)
{
	__extension__ unsigned __int128 product = a;

	product *= b;
	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t
read8(const unsigned char *p)
{
	uint64_t word;

	memcpy(&word, p, sizeof(word));
	return word;
}

static inline uint64_t
read4(const unsigned char *p)
{
	uint32_t word;

	memcpy(&word, p, sizeof(word));
	return word;
}

/* splitmix64: every bit of the result depends on every bit of number. */
uint64_t
shm_hash_number(uint64_t number)
{
	number += 0x9e3779b97f4a7c15ULL;
	number = (number ^ (number >> 30)) * 0xbf58476d1ce4e5b9ULL;
	number = (number ^ (number >> 27)) * 0x94d049bb133111ebULL;
	return number ^ (number >> 31);
}

void
shm_hash_init(struct shm_hash *hash, uint64_t seed)
{
	for (uint32_t i = 0; i < SHM_ARRAY_LEN(hash->secret); i++) {
		seed = shm_hash_number(seed + i);
		hash->secret[i] = seed | 1;
	}
}

uint64_t
shm_hash_bytes(const struct shm_hash *hash, const void *data, size_t len)
{
	const unsigned char *p = data;
	const uint64_t *secret = hash->secret;
	uint64_t state = secret[0];
	uint64_t a = 0, b = 0;
	size_t left = len;

	for (; left > 16; left -= 16, p += 16)
		state = fold(read8(p) ^ secret[1], read8(p + 8) ^ state);
	if (left >= 8) {
		/* The two reads overlap: every byte is in one of them. */
		a = read8(p);
		b = read8(p + left - 8);
	} else if (left >= 4) {
		a = read4(p);
		b = read4(p + left - 4);
	} else if (left > 0) {
		a = (uint64_t)p[0] << 16 | (uint64_t)p[left / 2] << 8 |
		    p[left - 1];
	}
	state = fold(a ^ secret[2], b ^ state);
	return fold(state ^ secret[3], (uint64_t)len ^ secret[1]);
}
