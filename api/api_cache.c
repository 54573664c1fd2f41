/*
 * What the cache has to know about calls: under which key an answer is kept,
 * which keys a write touches, and the answers that need no database.
 *
 * A key names what was asked for and nothing about the client.  That is enough
 * as long as there is one representation: an answer about a book that exists
 * is JSON for everybody, and of one that does not only the fact is kept, since
 * its 404 has two forms.  Query parameters that mean nothing are no part of a
 * key, and none means anything today.
 */
#include "config.h"

#include "api/api_call.h"
#include "api/api_condition.h"
#include "api/api_done.h"

_Static_assert(1 + API_ISBN_BYTES_MAX <= SHM_CACHE_KEY_MAX,
    "each book that can be stored can be cached");

bool
api_cache_key(const struct api_call *call, struct api_slice *key,
    enum shm_cache_class *cls)
{
	switch (call->cacheable) {
	case API_CACHEABLE_NOT:
		return false;
	case API_CACHEABLE_BOOK:
	case API_CACHEABLE_NEGATIVE:
		SHM_ASSERT(call->key[0] == API_KEY_BOOK && call->isbn_len > 0);
		*key = (struct api_slice){call->key, 1u + call->isbn_len};
		*cls = SHM_CACHE_BOOK;
		return true;
	case API_CACHEABLE_LIST:
		SHM_ASSERT(call->key[0] == API_KEY_LIST);
		*key = (struct api_slice){call->key, 1};
		*cls = SHM_CACHE_LIST;
		return true;
	}
	SHM_ASSERT(false);
	return false;
}

size_t
api_cache_book_key(struct api_slice isbn, char *out)
{
	out[0] = API_KEY_BOOK;
	if (isbn.len > 0)
		memcpy(out + 1, isbn.data, isbn.len);
	return 1 + isbn.len;
}

uint32_t
api_call_touches(const struct api_call *call, struct api_slice isbn[2])
{
	const char *body = api_call_body_isbn(call);
	uint32_t count = 0;

	SHM_ASSERT(api_sql_text(call->statement.id)->is_write);
	/* An ISBN of the path that is too long is nobody's. */
	if (call->isbn_len > 0)
		isbn[count++] =
		    (struct api_slice){api_call_isbn(call), call->isbn_len};
	if (body != NULL && (count == 0 || !api_slice_is(isbn[0], body)))
		isbn[count++] = (struct api_slice){body, strlen(body)};
	return count;
}

bool
api_call_is_not_modified(
    const struct api_call *call, const struct api_version *version)
{
	const struct api_condition *condition = &call->condition;
	uint64_t etag;

	switch ((enum api_condition_kind)condition->kind) {
	case API_CONDITION_NONE:
		return false;
	case API_CONDITION_ANY:
		return true;
	case API_CONDITION_ETAGS:
		etag = api_etag_value(version);
		for (uint32_t i = 0; i < condition->count; i++)
			if (condition->value[i] == etag)
				return true;
		return false;
	case API_CONDITION_SINCE:
		return version->modified_s != 0 &&
		       version->modified_s <= condition->value[0];
	}
	SHM_ASSERT(false);
	return false;
}

void
api_reply_not_modified(struct api_reply *reply)
{
	SHM_ASSERT(reply->status == 200);
	reply->status = 304;
	reply->content_type = NULL;
	reply->body = (struct api_slice){NULL, 0};
	reply->is_stream_head = false;
}

void
api_call_not_found(
    struct api_call *call, struct api_buf *buf, struct api_reply *reply)
{
	SHM_ASSERT(call->cacheable == API_CACHEABLE_BOOK);
	(void)api_done_no_book(call, buf, reply);
	api_call_end(call);
}

void
api_call_unavailable(
    struct api_call *call, struct api_buf *buf, struct api_reply *reply)
{
	(void)api_done_unavailable(call, buf, reply);
	api_call_end(call);
}
