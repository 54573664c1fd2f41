/*
 * The book cache as administrators see it: figures, and flushes.
 *
 * A flush looks at all of its arguments before it does anything, so that a
 * request with a mistake in it does nothing.  Nobody keeps what it is about: it
 * reads the arguments twice.
 */
#include "config.h"

#include <string.h>

#include "api/api_call.h"
#include "ops/ops_cache.h"

static const char *const class_names[SHM_CACHE_CLASSES] = {
    [SHM_CACHE_BOOK] = "books",
    [SHM_CACHE_LIST] = "lists",
    [SHM_CACHE_NEGATIVE] = "negatives",
};

/* ---- GET /cache */

struct figure {
	const char *name;
	uint64_t value;
};

/* NULL without memory, as with all that makes JSON here: jansson passes it on
 * to the end. */
static void
set_figures(json_t *object, const struct figure *figure, size_t count)
{
	for (size_t i = 0; i < count; i++)
		json_object_set_new(object, figure[i].name,
		    json_integer((json_int_t)figure[i].value));
}

static json_t *
figures(const struct figure *figure, size_t count)
{
	json_t *object = json_object();

	set_figures(object, figure, count);
	return object;
}

static json_t *
seconds_since(uint64_t then_us, uint64_t now_us)
{
	uint64_t past_us = then_us < now_us ? now_us - then_us : 0;
	uint64_t past_ms = past_us / 1000;

	return json_real((double)past_ms / 1e3);
}

static json_t *
status_counters(const struct shm_cache_stats *stats)
{
	struct figure figure[SHM_CACHE_COUNTERS_COUNT];

	for (uint32_t i = 0; i < SHM_CACHE_COUNTERS_COUNT; i++)
		figure[i] = (struct figure){
		    shm_cache_counter_name((enum shm_cache_counter)i),
		    stats->counter[i],
		};
	return figures(figure, SHM_CACHE_COUNTERS_COUNT);
}

/* Of the answers that the cache could have given, those for which nobody asked
 * the database; null before the first. */
static json_t *
status_ratio(const struct shm_cache_stats *stats)
{
	uint64_t good = stats->counter[SHM_CACHE_hits] +
			stats->counter[SHM_CACHE_stale] +
			stats->counter[SHM_CACHE_coalesced];
	uint64_t all = good + stats->counter[SHM_CACHE_misses];

	return all == 0 ? json_null() : json_real((double)good / (double)all);
}

static json_t *
status_memory(const struct shm_cache_stats *stats)
{
	const struct figure figure[] = {
	    {"map_bytes", stats->map_bytes},
	    {"data_bytes", stats->data_bytes},
	    {"used_bytes", stats->used_bytes},
	    {"segment_bytes", stats->segment_bytes},
	    {"segments", stats->segments_count},
	    {"segments_free", stats->segments_free},
	    {"segments_small", stats->segments_small},
	    {"segments_main", stats->segments_main},
	    {"segments_active", stats->segments_active},
	    {"buckets", stats->buckets_count},
	    {"entries", stats->entries},
	};

	return figures(figure, SHM_ARRAY_LEN(figure));
}

static json_t *
status_notifications(const struct ops_request *request, uint64_t now_us)
{
	struct ops_listen_status status;
	json_t *object;

	ops_listen_status(request->http->listen, &status);
	const struct figure figure[] = {
	    {"sessions", status.sessions},
	    {"received", status.notice->received},
	    {"books", status.notice->books},
	    {"flushes", status.notice->flushes},
	    {"unreadable", status.notice->unreadable},
	};
	object = json_object();
	json_object_set_new(object, "state", json_string(status.state));
	json_object_set_new(
	    object, "for_s", seconds_since(status.since_us, now_us));
	json_object_set_new(object, "reason", json_string(status.reason));
	json_object_set_new(object, "heartbeat_s",
	    json_real(request->options->heartbeat_ms / 1e3));
	json_object_set_new(object, "heard_s_ago",
	    status.heard_us == 0 ? json_null()
				 : seconds_since(status.heard_us, now_us));
	set_figures(object, figure, SHM_ARRAY_LEN(figure));
	return object;
}

enum MHD_Result
ops_cache_status(const struct ops_request *request)
{
	uint64_t now_us = shm_clock_us();
	struct shm_cache_stats stats;
	json_t *root;

	shm_cache_stats(request->options->cache, &stats);
	const struct figure figure[] = {
	    {"writes_under_way", stats.intents_open},
	    {"loads_under_way", stats.flights},
	};
	root = json_object();
	json_object_set_new(
	    root, "version", json_string(request->options->version));
	json_object_set_new(root, "hit_ratio", status_ratio(&stats));
	json_object_set_new(root, "counters", status_counters(&stats));
	json_object_set_new(root, "memory", status_memory(&stats));
	set_figures(root, figure, SHM_ARRAY_LEN(figure));
	json_object_set_new(
	    root, "notifications", status_notifications(request, now_us));
	return ops_http_json(request, MHD_HTTP_OK, root);
}

/* ---- POST /cache/flush */

struct flush {
	struct shm_cache *cache;
	bool is_dry; /* look at the arguments only */
	bool is_class[SHM_CACHE_CLASSES];
	uint32_t books;
	const char *wrong; /* a sentence, or NULL */
};

static bool
flush_class(struct flush *flush, const char *name)
{
	bool is_all = strcmp(name, "all") == 0, is_known = is_all;

	for (uint32_t cls = 0; cls < SHM_CACHE_CLASSES; cls++) {
		if (!is_all && strcmp(name, class_names[cls]) != 0)
			continue;
		flush->is_class[cls] = is_known = true;
	}
	if (!is_known)
		flush->wrong = "The class must be all, books, lists or "
			       "negatives.";
	return is_known;
}

static bool
flush_argument(void *arg, const char *key, const char *value, size_t len)
{
	struct flush *flush = arg;

	if (strcmp(key, "class") == 0)
		return flush_class(flush, value);
	if (strcmp(key, "isbn") != 0) {
		flush->wrong = "The arguments are class and isbn.";
		return false;
	}
	if (len == 0 || len > API_ISBN_BYTES_MAX) {
		flush->wrong = "An ISBN has 1 to 1020 bytes.";
		return false;
	}
	flush->books++;
	if (!flush->is_dry)
		ops_notice_book(flush->cache, (struct api_slice){value, len});
	return true;
}

_Static_assert(API_ISBN_BYTES_MAX == 1020, "a sentence above says so");

/* A book's lists are void with it, as when it is changed. */
static json_t *
flush_run(const struct ops_request *request, struct flush *flush)
{
	json_t *names = json_array();

	flush->is_dry = false;
	flush->books = 0;
	(void)!ops_http_arguments(request, flush_argument, flush);
	if (flush->books > 0)
		shm_cache_lists_changed(flush->cache);
	for (uint32_t cls = 0; cls < SHM_CACHE_CLASSES; cls++) {
		if (!flush->is_class[cls])
			continue;
		shm_cache_flush(flush->cache, (enum shm_cache_class)cls);
		json_array_append_new(names, json_string(class_names[cls]));
	}
	return json_pack(
	    "{s:o,s:i}", "flushed", names, "books", (int)flush->books);
}

enum MHD_Result
ops_cache_flush(const struct ops_request *request)
{
	struct flush flush = {.cache = request->options->cache, .is_dry = true};
	bool is_any = false;

	if (!ops_http_arguments(request, flush_argument, &flush))
		return ops_http_problem(
		    request, MHD_HTTP_BAD_REQUEST, flush.wrong);
	for (uint32_t cls = 0; cls < SHM_CACHE_CLASSES; cls++)
		is_any |= flush.is_class[cls];
	if (!is_any && flush.books == 0)
		return ops_http_problem(request, MHD_HTTP_BAD_REQUEST,
		    "Say what to flush: class=all, books, lists or negatives, "
		    "or isbn=... .");
	ops_say(request->options, OPS_LOG_INFO, "cache_flushed",
	    "an administrator flushed the cache",
	    OPS_LOG_INT("books", flush.books),
	    OPS_LOG_STR(
		"class_books", flush.is_class[SHM_CACHE_BOOK] ? "yes" : "no"),
	    OPS_LOG_STR(
		"class_lists", flush.is_class[SHM_CACHE_LIST] ? "yes" : "no"),
	    OPS_LOG_STR("class_negatives",
		flush.is_class[SHM_CACHE_NEGATIVE] ? "yes" : "no"));
	return ops_http_json(request, MHD_HTTP_OK, flush_run(request, &flush));
}
