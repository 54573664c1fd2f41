/*
 * Notifications on the channel books_changed: a JSON array of the ISBNs that
 * may have changed, or the word flush.
 *
 * The channel is open to everybody who may connect to the database, so a
 * payload is foreign text.  The worst that it can do is make the cache load
 * again: what cannot be read means that something was to be said, and is
 * answered by the flush of everything.  That is safe, costs what any flush
 * costs, and is logged at most once a minute.
 *
 * A book that changed is void for both of its classes, since "there is no such
 * book" lies under the same stripe, and the lists are told once for each
 * notification, not once for each book.
 */
#include "config.h"

#include <jansson.h>

#include "api/api_call.h"
#include "ops/ops_notice.h"

#define LOG_PAUSE_US 60000000

/* An array of strings, each of which may be an ISBN. */
static bool
is_isbns(const json_t *root)
{
	size_t count = json_array_size(root);

	if (!json_is_array(root))
		return false;
	for (size_t i = 0; i < count; i++) {
		const json_t *isbn = json_array_get(root, i);

		if (!json_is_string(isbn) ||
		    json_string_length(isbn) > API_ISBN_BYTES_MAX)
			return false;
	}
	return true;
}

static void
each_isbn(
    const json_t *root, void (*each)(void *, struct api_slice), void *owner)
{
	size_t count = json_array_size(root);

	for (size_t i = 0; i < count; i++) {
		const json_t *isbn = json_array_get(root, i);

		each(owner, (struct api_slice){json_string_value(isbn),
				json_string_length(isbn)});
	}
}

enum ops_notice_kind
ops_notice_read(const char *payload,
    void (*each)(void *owner, struct api_slice isbn), void *owner)
{
	enum ops_notice_kind kind = OPS_NOTICE_UNREADABLE;
	size_t len = strnlen(payload, OPS_NOTICE_BYTES_MAX);
	json_t *root;

	if (len == OPS_NOTICE_BYTES_MAX)
		return OPS_NOTICE_UNREADABLE;
	if (strcmp(payload, "flush") == 0)
		return OPS_NOTICE_FLUSH;
	root = json_loadb(payload, len, 0, NULL);
	if (is_isbns(root)) {
		each_isbn(root, each, owner);
		kind = OPS_NOTICE_BOOKS;
	}
	json_decref(root);
	return kind;
}

/* ---- the cache */

void
ops_notice_book(struct shm_cache *cache, struct api_slice isbn)
{
	char text[1 + API_ISBN_BYTES_MAX];
	struct shm_cache_key key = {.data = text, .cls = SHM_CACHE_BOOK};

	SHM_ASSERT(isbn.len <= API_ISBN_BYTES_MAX);
	key.len = (uint32_t)api_cache_book_key(isbn, text);
	shm_cache_key_hash(cache, &key);
	shm_cache_invalidate(cache, key.hash);
}

void
ops_notice_flush(struct shm_cache *cache)
{
	for (uint32_t cls = 0; cls < SHM_CACHE_CLASSES; cls++)
		shm_cache_flush(cache, (enum shm_cache_class)cls);
}

static void
take_book(void *owner, struct api_slice isbn)
{
	struct ops_notice *notice = owner;

	notice->books++;
	ops_notice_book(notice->options->cache, isbn);
}

/* The payload itself is not shown: it may hold anything. */
static void
log_unreadable(struct ops_notice *notice, size_t len, uint64_t now_us)
{
	notice->unreadable++;
	notice->log_count++;
	if (now_us < notice->log_due_us)
		return;
	ops_say(notice->options, OPS_LOG_WARN, "notify_unreadable",
	    "a notification made no sense, so everything was flushed from the "
	    "cache",
	    OPS_LOG_STR("channel", OPS_NOTICE_CHANNEL),
	    OPS_LOG_INT("bytes", len), OPS_LOG_INT("count", notice->log_count));
	notice->log_due_us = now_us + LOG_PAUSE_US;
	notice->log_count = 0;
}

void
ops_notice_take(struct ops_notice *notice, const char *payload, uint64_t now_us)
{
	struct shm_cache *cache = notice->options->cache;

	notice->received++;
	switch (ops_notice_read(payload, take_book, notice)) {
	case OPS_NOTICE_BOOKS:
		shm_cache_lists_changed(cache);
		return;
	case OPS_NOTICE_FLUSH:
		break;
	case OPS_NOTICE_UNREADABLE:
		log_unreadable(notice, strlen(payload), now_us);
		break;
	}
	notice->flushes++;
	ops_notice_flush(cache);
}
