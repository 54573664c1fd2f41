/*
 * What answers are recognized by: entity tags, hashes of lists, dates.
 *
 * A client may keep an entity tag for years and show it to any task of any
 * later program, so nothing here depends on a seed, a clock, a locale, the
 * byte order or the size of a long; tests/test_api_cache.c holds values that
 * must never change.  When the bytes of an answer change for a row that did
 * not (another member, another format of a number), REPRESENTATION has to
 * change, or clients would keep the old form.
 *
 * ENTITY TAGS are 64 bits mixed from the row's id and version.  For one id the
 * way from the version to the tag is a bijection, so no two versions of a book
 * ever share one; two books that had the same ISBN one after the other have
 * two ids, and a chance of 2^-64.  They are strong: equal tags mean equal
 * bytes, since a row's bytes change only with its version, or with a change by
 * SQL that leaves the version alone, which books-api(7) warns of.
 *
 * THE HASH of a list is the value of a polynomial over its bytes, modulo 2^64
 * at an odd number.  It is chosen for one property: text hashed in pieces gives
 * the same as text hashed at once, so where the rows of a list were cut into
 * buffers makes no difference, and nothing but the sum so far has to be kept.
 * Each byte counts as itself plus one, so that zeros at the start count.  Eight
 * bytes are taken at a time, whose products do not wait for each other.
 */
#include "config.h"

#include "api/api.h"
#include "api/api_condition.h"

#define REPRESENTATION 1 /* of the JSON that api_book.c writes */

/* The point of the polynomial and its powers, modulo 2^64. */
#define P1 UINT64_C(0x9e3779b97f4a7c15)
#define P2 (P1 * P1)
#define P3 (P2 * P1)
#define P4 (P2 * P2)
#define P5 (P4 * P1)
#define P6 (P4 * P2)
#define P7 (P4 * P3)
#define P8 (P4 * P4)
/* The ones that are added to eight bytes. */
#define PS (P7 + P6 + P5 + P4 + P3 + P2 + P1 + 1)

/* A bijection in which each bit of the argument moves half of the result's
 * (the finalizer of splitmix64). */
static uint64_t
mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

uint64_t
api_etag_value(const struct api_version *version)
{
	uint64_t what = mix(version->id + REPRESENTATION * P1);

	return mix(what + version->row_version * P1);
}

void
api_etag(const struct api_version *version, char out[API_ETAG_BYTES])
{
	uint64_t value = api_etag_value(version);

	out[0] = '"';
	for (int i = 0; i < 16; i++)
		out[1 + i] = "0123456789abcdef"[value >> (60 - 4 * i) & 15];
	out[API_ETAG_BYTES - 1] = '"';
}

bool
api_etag_read(const char digits[16], uint64_t *value)
{
	uint64_t read = 0;

	for (int i = 0; i < 16; i++) {
		char c = digits[i];

		if (c >= '0' && c <= '9')
			read = read << 4 | (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			read = read << 4 | (uint64_t)(c - 'a' + 10);
		else
			return false;
	}
	*value = read;
	return true;
}

uint64_t
api_content_hash(uint64_t before, const void *data, size_t len)
{
	const uint8_t *at = data;
	uint64_t hash = before;

	for (; len >= 8; len -= 8, at += 8)
		hash = hash * P8 + (at[0] * P7 + at[1] * P6) +
		       (at[2] * P5 + at[3] * P4) + (at[4] * P3 + at[5] * P2) +
		       (at[6] * P1 + at[7]) + PS;
	for (; len > 0; len--)
		hash = hash * P1 + *at++ + 1;
	return hash;
}
