/*
 * GET /cache/keys: the entries that are used most.
 *
 * MEMORY: a dump walks the whole index and keeps the best of what it has seen
 * in a heap with the worst of them on top, so it holds as many keys as were
 * asked for and not as many as there are.  They are written as JSON while the
 * client reads, one at a time.  OPS_CACHE_DUMPS_MAX dumps may be under way.
 *
 * TIME: the walk is done in one piece; whoever else asks, and notifications,
 * wait for as long.  It is a matter of milliseconds for a cache of the default
 * size.
 *
 * BYTES: keys hold what clients sent.  api_buf_json() makes valid JSON of any
 * bytes.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "api/api_slice.h"
#include "ops/ops_cache.h"

static const char *const class_names[SHM_CACHE_CLASSES] = {
    [SHM_CACHE_BOOK] = "book",
    [SHM_CACHE_LIST] = "list",
    [SHM_CACHE_NEGATIVE] = "negative",
};

struct dumped {
	uint64_t taken_us;
	uint32_t value_bytes;
	uint32_t row_version;
	uint32_t key_len;
	uint16_t status;
	uint8_t frequency;
	uint8_t cls;
	bool is_served;
	char key[];
};

struct keys {
	struct ops_http *http;
	uint64_t now_us;
	uint32_t limit;
	uint32_t count;
	uint32_t next; /* to be written */
	bool is_opened;
	bool is_closed;
	bool has_failed;     /* no memory */
	struct api_buf text; /* what is being written */
	size_t text_at;
	struct dumped *heap[]; /* limit of them: the worst one first */
};

/* More used; among equals, younger. */
static bool
is_better(const struct dumped *a, const struct dumped *b)
{
	if (a->frequency != b->frequency)
		return a->frequency > b->frequency;
	return a->taken_us > b->taken_us;
}

static int
compare_dumped(const void *a, const void *b)
{
	const struct dumped *one = *(struct dumped *const *)a;
	const struct dumped *other = *(struct dumped *const *)b;

	return is_better(one, other) ? -1 : is_better(other, one);
}

static void
swap(struct dumped **a, struct dumped **b)
{
	struct dumped *old = *a;

	*a = *b;
	*b = old;
}

static void
heap_up(struct keys *keys, uint32_t at)
{
	for (uint32_t above; at > 0; at = above) {
		above = (at - 1) / 2;
		if (!is_better(keys->heap[above], keys->heap[at]))
			return;
		swap(&keys->heap[above], &keys->heap[at]);
	}
}

static void
heap_down(struct keys *keys)
{
	uint32_t at = 0, worst;

	for (;; at = worst) {
		worst = at;
		for (uint32_t i = 2 * at + 1; i <= 2 * at + 2; i++)
			if (i < keys->count &&
			    is_better(keys->heap[worst], keys->heap[i]))
				worst = i;
		if (worst == at)
			return;
		swap(&keys->heap[worst], &keys->heap[at]);
	}
}

static bool
keys_each(void *arg, const struct shm_cache_dumped *from)
{
	struct keys *keys = arg;
	struct dumped probe = {
	    .taken_us = from->taken_us,
	    .value_bytes = from->value_bytes,
	    .row_version = from->row_version,
	    .key_len = from->key_len,
	    .status = from->status,
	    .frequency = (uint8_t)from->frequency,
	    .cls = from->cls,
	    .is_served = from->is_served,
	};
	struct dumped *dumped;

	SHM_ASSERT(from->key_len <= SHM_CACHE_KEY_MAX);
	if (keys->count == keys->limit && !is_better(&probe, keys->heap[0]))
		return true;
	dumped = malloc(sizeof(*dumped) + from->key_len);
	if (dumped == NULL) {
		keys->has_failed = true;
		return false;
	}
	*dumped = probe;
	memcpy(dumped->key, from->key, from->key_len);
	if (keys->count < keys->limit) {
		keys->heap[keys->count] = dumped;
		heap_up(keys, keys->count++);
		return true;
	}
	free(keys->heap[0]);
	keys->heap[0] = dumped;
	heap_down(keys);
	return true;
}

static void
write_number(struct api_buf *text, const char *name, uint64_t value)
{
	api_buf_text(text, ",\"");
	api_buf_text(text, name);
	api_buf_text(text, "\":");
	api_buf_u64(text, value);
}

static void
write_key(struct keys *keys, const struct dumped *dumped)
{
	struct api_buf *text = &keys->text;
	const char *cls = dumped->cls < SHM_CACHE_CLASSES
			      ? class_names[dumped->cls]
			      : "unknown";

	api_buf_text(text, keys->next > 1 ? ",\n{\"key\":\"" : "{\"key\":\"");
	api_buf_json(text, (struct api_slice){dumped->key, dumped->key_len});
	api_buf_text(text, "\",\"class\":\"");
	api_buf_text(text, cls);
	api_buf_text(text, "\"");
	write_number(text, "status", dumped->status);
	write_number(text, "bytes", dumped->value_bytes);
	write_number(text, "frequency", dumped->frequency);
	write_number(text, "age_s",
	    dumped->taken_us < keys->now_us
		? (keys->now_us - dumped->taken_us) / 1000000
		: 0);
	write_number(text, "version", dumped->row_version);
	api_buf_text(text, ",\"served\":");
	api_buf_text(text, dumped->is_served ? "true}" : "false}");
}

/* The next piece of the array; false: there is none. */
static bool
keys_write(struct keys *keys)
{
	api_buf_clear(&keys->text);
	keys->text_at = 0;
	if (!keys->is_opened) {
		keys->is_opened = true;
		api_buf_text(&keys->text, "[");
	} else if (keys->next < keys->count) {
		keys->next++;
		write_key(keys, keys->heap[keys->next - 1]);
	} else if (!keys->is_closed) {
		keys->is_closed = true;
		api_buf_text(&keys->text, "]\n");
	} else {
		return false;
	}
	return true;
}

static ssize_t
keys_read(void *arg, uint64_t at, char *out, size_t out_bytes)
{
	struct keys *keys = arg;

	(void)at;
	if (keys->text_at == keys->text.len && !keys_write(keys))
		return MHD_CONTENT_READER_END_OF_STREAM;
	return ops_http_give(&keys->text, &keys->text_at, out, out_bytes);
}

static void
keys_free(void *arg)
{
	struct keys *keys = arg;

	for (uint32_t i = 0; i < keys->count; i++)
		free(keys->heap[i]);
	api_buf_fini(&keys->text);
	keys->http->dumps--;
	free(keys);
}

static struct keys *
keys_new(const struct ops_request *request, uint32_t limit)
{
	/* Its elements are pointers, and that is meant. */
	/* NOLINTBEGIN(bugprone-sizeof-expression) */
	struct keys *keys =
	    calloc(1, sizeof(*keys) + limit * sizeof(keys->heap[0]));

	if (keys == NULL)
		return NULL;
	keys->http = request->http;
	keys->http->dumps++;
	keys->now_us = shm_clock_us();
	keys->limit = limit;
	shm_cache_dump(request->options->cache, keys->now_us, keys_each, keys);
	qsort(keys->heap, keys->count, sizeof(keys->heap[0]), compare_dumped);
	/* NOLINTEND(bugprone-sizeof-expression) */
	return keys;
}

/* 0: it is no number that we allow. */
static bool
keys_argument(void *arg, const char *key, const char *value, size_t len)
{
	uint32_t *limit = arg;
	unsigned long found;

	*limit = 0;
	if (strcmp(key, "limit") != 0 || len == 0 || len > 5 ||
	    strspn(value, "0123456789") != len)
		return false;
	found = strtoul(value, NULL, 10);
	if (found == 0 || found > OPS_CACHE_KEYS_MAX)
		return false;
	*limit = (uint32_t)found;
	return true;
}

enum MHD_Result
ops_cache_keys(const struct ops_request *request)
{
	uint32_t limit = OPS_CACHE_KEYS_DEFAULT;
	struct MHD_Response *response;
	struct keys *keys;

	if (!ops_http_arguments(request, keys_argument, &limit))
		return ops_http_problem(request, MHD_HTTP_BAD_REQUEST,
		    "The argument is limit, 1 to 10000.");
	if (request->http->dumps >= OPS_CACHE_DUMPS_MAX)
		return ops_http_problem(request, MHD_HTTP_SERVICE_UNAVAILABLE,
		    "Others ask for the keys just now. Try again later.");
	keys = keys_new(request, limit);
	if (keys == NULL || keys->has_failed) {
		if (keys != NULL)
			keys_free(keys);
		return ops_http_problem(request, MHD_HTTP_INTERNAL_SERVER_ERROR,
		    "There is no memory for the answer.");
	}
	response = MHD_create_response_from_callback(
	    MHD_SIZE_UNKNOWN, 4096, keys_read, keys, keys_free);
	if (response == NULL)
		keys_free(keys);
	return ops_http_answer(
	    request, MHD_HTTP_OK, "application/json", response);
}
