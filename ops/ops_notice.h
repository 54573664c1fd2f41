/*
 * What a notification says, and what it does to the cache.
 */
#ifndef OPS_NOTICE_H
#define OPS_NOTICE_H

#include "api/api_slice.h"
#include "ops/ops.h"

#define OPS_NOTICE_CHANNEL   "books_changed"
#define OPS_NOTICE_BYTES_MAX 8192 /* PostgreSQL sends less: then FLUSH */

enum ops_notice_kind {
	OPS_NOTICE_BOOKS = 0,
	OPS_NOTICE_FLUSH,
	OPS_NOTICE_UNREADABLE, /* whoever sent it meant something: FLUSH */
};

/*
 * Read a payload.  Only when all of it is in order each is called, once for
 * every ISBN, with bytes that are valid UTF-8 and borrowed for the call.
 */
enum ops_notice_kind ops_notice_read(const char *payload,
    void (*each)(void *owner, struct api_slice isbn),
    void *owner) SHM_MUSTCHECK;

/* Private but for the counters, which anybody may read. */
struct ops_notice {
	const struct ops_options *options; /* borrowed; the cache is there */
	uint64_t received;
	uint64_t books;	  /* ISBNs in them */
	uint64_t flushes; /* payloads that flushed, the unreadable too */
	uint64_t unreadable;
	uint64_t log_due_us; /* not before that; 0: never logged */
	uint64_t log_count;  /* unreadable ones that no event told of yet */
};

/* A notification came: void in the cache what it tells of. */
void ops_notice_take(
    struct ops_notice *notice, const char *payload, uint64_t now_us);

/* Void one book, or everything; who asks has to say that lists changed. */
void ops_notice_book(struct shm_cache *cache, struct api_slice isbn);
void ops_notice_flush(struct shm_cache *cache);

#endif
