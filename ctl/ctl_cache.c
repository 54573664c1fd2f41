/*
 * booksctl cache: what the book cache of a running booksd is doing, what it
 * holds, and how to empty it.
 *
 * Tables are for people and may change; --json is booksd's answer as it came.
 * Keys are bytes that clients of booksd chose: see ctl_text_print().
 */
#include "config.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "ctl/ctl_answer.h"
#include "ctl/ctl_text.h"
#include "shm/shm_cache.h"

#define KEYS_MAX	 10000
#define TARGET_BYTES_MAX 8192 /* what booksd takes; more ISBNs: EX_USAGE */

struct cache {
	const char *path;  /* of the socket; NULL: look for it */
	const char *limit; /* of keys; NULL: booksd's own */
	bool is_json;
};

/* ---- asking */

static int
ask(const struct cache *cache, bool is_post, const char *target,
    int (*show)(const json_t *root))
{
	const struct ctl_control_question question = {
	    .path = cache->path, .is_post = is_post, .target = target};
	json_t *root;
	int code = ctl_answer_get(&question, cache->is_json, &root);

	if (code == EX_OK && root != NULL)
		code = show(root);
	json_decref(root);
	return code;
}

/* ---- status */

static void
row(const char *name, const char *value, const char *more)
{
	printf("  %-18s %14s", name, value);
	if (*more != '\0')
		printf("  %s", more);
	putchar('\n');
}

static void
show_counters(const json_t *root)
{
	const json_t *counters = json_object_get(root, "counters");
	const json_t *ratio = json_object_get(root, "hit_ratio");
	char text[32], name[32];

	printf("answers\n");
	snprintf(text, sizeof(text), "%.2f %%", 100 * json_number_value(ratio));
	row("hit ratio", json_is_number(ratio) ? text : "-",
	    "answers that cost the database nothing");
	for (uint32_t i = 0; i < SHM_CACHE_COUNTERS_COUNT; i++) {
		enum shm_cache_counter counter = (enum shm_cache_counter)i;
		const char *known = shm_cache_counter_name(counter);

		if (json_object_get(counters, known) == NULL)
			continue;
		snprintf(name, sizeof(name), "%s", known);
		for (char *at = name; *at != '\0'; at++)
			if (*at == '_')
				*at = ' ';
		row(name,
		    ctl_text_grouped(ctl_answer_figure(counters, known), text),
		    shm_cache_counter_help(counter));
	}
}

static void
show_memory(const json_t *root)
{
	const json_t *memory = json_object_get(root, "memory");
	uint64_t data = ctl_answer_figure(memory, "data_bytes");
	uint64_t used = ctl_answer_figure(memory, "used_bytes");
	char text[32], size[32], more[128];

	printf("memory\n");
	row("size", ctl_text_size(data, text),
	    "for answers (the setting cache_size)");
	snprintf(more, sizeof(more), "%.0f %% in segments that hold answers",
	    data > 0 ? 100 * (double)used / (double)data : 0);
	row("used", ctl_text_size(used, text), more);
	row("map", ctl_text_size(ctl_answer_figure(memory, "map_bytes"), text),
	    "with index and tables");
	snprintf(more, sizeof(more),
	    "of %s: %" PRIu64 " free, %" PRIu64 " small, %" PRIu64 " main, "
	    "%" PRIu64 " being filled",
	    ctl_text_size(ctl_answer_figure(memory, "segment_bytes"), size),
	    ctl_answer_figure(memory, "segments_free"),
	    ctl_answer_figure(memory, "segments_small"),
	    ctl_answer_figure(memory, "segments_main"),
	    ctl_answer_figure(memory, "segments_active"));
	row("segments",
	    ctl_text_grouped(ctl_answer_figure(memory, "segments"), text),
	    more);
	snprintf(more, sizeof(more), "in %s buckets",
	    ctl_text_grouped(ctl_answer_figure(memory, "buckets"), size));
	row("entries",
	    ctl_text_grouped(ctl_answer_figure(memory, "entries"), text), more);
}

static void
show_now(const json_t *root)
{
	char text[32];

	printf("under way\n");
	row("loads",
	    ctl_text_grouped(ctl_answer_figure(root, "loads_under_way"), text),
	    "from the database");
	row("writes",
	    ctl_text_grouped(ctl_answer_figure(root, "writes_under_way"), text),
	    "of books: they are not served from the cache meanwhile");
}

static void
show_notifications(const json_t *root)
{
	const json_t *notes = json_object_get(root, "notifications");
	const char *state = json_string_value(json_object_get(notes, "state"));
	const json_t *reason = json_object_get(notes, "reason");
	const json_t *heard = json_object_get(notes, "heard_s_ago");
	char text[32], more[64];

	printf("changes that others make\n");
	snprintf(more, sizeof(more), "for %s",
	    ctl_text_time(ctl_answer_measure(notes, "for_s"), text));
	row("session", state != NULL ? state : "-", more);
	if (json_string_length(reason) > 0) {
		printf("  %-18s ", "reason");
		ctl_text_print(stdout, json_string_value(reason),
		    json_string_length(reason));
		putchar('\n');
	}
	snprintf(text, sizeof(text), "%.3g s",
	    ctl_answer_measure(notes, "heartbeat_s"));
	if (json_is_number(heard))
		snprintf(more, sizeof(more), "heard %.1f s ago",
		    json_number_value(heard));
	row("heartbeat", text, json_is_number(heard) ? more : "never heard");
	row("sessions",
	    ctl_text_grouped(ctl_answer_figure(notes, "sessions"), text),
	    "since this ops process began");
	row("notifications",
	    ctl_text_grouped(ctl_answer_figure(notes, "received"), text), "");
	row("books named",
	    ctl_text_grouped(ctl_answer_figure(notes, "books"), text), "");
	row("flushes",
	    ctl_text_grouped(ctl_answer_figure(notes, "flushes"), text),
	    "by notifications");
}

static int
show_status(const json_t *root)
{
	const json_t *version = json_object_get(root, "version");

	if (!json_is_string(version) ||
	    !json_is_object(json_object_get(root, "counters")) ||
	    !json_is_object(json_object_get(root, "memory")))
		return ctl_answer_no_sense();
	printf("the book cache of booksd ");
	ctl_text_print(
	    stdout, json_string_value(version), json_string_length(version));
	printf("\n\n");
	show_counters(root);
	putchar('\n');
	show_memory(root);
	putchar('\n');
	show_now(root);
	putchar('\n');
	show_notifications(root);
	return EX_OK;
}

static int
run_status(const struct cache *cache, int argc, char **argv)
{
	(void)argv;
	if (argc > 0)
		return ctl_usage("cache status takes no argument");
	return ask(cache, false, "/cache", show_status);
}

/* ---- flush */

static bool
is_class(const char *word)
{
	return strcmp(word, "all") == 0 || strcmp(word, "books") == 0 ||
	       strcmp(word, "lists") == 0 || strcmp(word, "negatives") == 0;
}

static int
show_flushed(const json_t *root)
{
	const json_t *flushed = json_object_get(root, "flushed");
	uint64_t books = ctl_answer_figure(root, "books");
	char text[32];

	if (!json_is_array(flushed))
		return ctl_answer_no_sense();
	if (books > 0)
		printf("%s %s and the lists will be loaded again\n",
		    ctl_text_grouped(books, text),
		    books == 1 ? "book" : "books");
	for (size_t i = 0; i < json_array_size(flushed); i++) {
		const json_t *name = json_array_get(flushed, i);

		ctl_text_print(
		    stdout, json_string_value(name), json_string_length(name));
		printf(": flushed\n");
	}
	return EX_OK;
}

/* One more argument of the query.  EX_OK, or why not. */
static int
target_add(char *target, const char *word)
{
	size_t len = strlen(target);
	char *escaped;
	int more;

	/* A class that is mistyped must not pass for an ISBN. */
	if (!is_class(word) && strpbrk(word, "0123456789") == NULL)
		return ctl_usage("cache flush: need all, books, lists,"
				 " negatives, or ISBNs");
	escaped = ctl_control_escape(word);
	if (escaped == NULL) {
		ctl_say("out of memory");
		return EX_OSERR;
	}
	more = snprintf(target + len, TARGET_BYTES_MAX - len, "%c%s=%s",
	    strchr(target, '?') == NULL ? '?' : '&',
	    is_class(word) ? "class" : "isbn", escaped);
	free(escaped);
	if ((size_t)more >= TARGET_BYTES_MAX - len)
		return ctl_usage("cache flush: too many ISBNs at a time");
	return EX_OK;
}

static int
run_flush(const struct cache *cache, int argc, char **argv)
{
	static char all[] = "all", *default_argv[] = {all};
	char target[TARGET_BYTES_MAX] = "/cache/flush";
	int code = EX_OK;

	if (argc == 0) {
		argc = 1;
		argv = default_argv;
	}
	for (int i = 0; i < argc && code == EX_OK; i++)
		code = target_add(target, argv[i]);
	if (code != EX_OK)
		return code;
	return ask(cache, true, target, show_flushed);
}

/* ---- keys */

/* What people know of a key: the ISBN, or the address of the list. */
static void
print_key(const char *cls, const char *key, size_t len)
{
	bool is_list = strcmp(cls, "list") == 0;

	if (len > 0 && *key == (is_list ? 'l' : 'b')) {
		fputs(is_list ? "/books" : "", stdout);
		key++;
		len--;
	}
	ctl_text_print(stdout, key, len);
}

static int
show_keys(const json_t *root)
{
	size_t count = json_array_size(root);
	char bytes[32], age[32];

	if (!json_is_array(root))
		return ctl_answer_no_sense();
	printf("%4s  %-8s  %6s  %7s  %7s  %12s  %-6s  %s\n", "FREQ", "CLASS",
	    "STATUS", "BYTES", "VERSION", "AGE", "SERVED", "KEY");
	for (size_t i = 0; i < count; i++) {
		const json_t *entry = json_array_get(root, i);
		const json_t *key = json_object_get(entry, "key");
		const char *cls =
		    json_string_value(json_object_get(entry, "class"));

		if (!json_is_string(key) || cls == NULL)
			return ctl_answer_no_sense();
		printf("%4" PRIu64 "  %-8.8s  %6" PRIu64 "  %7s  %7" PRIu64
		       "  %12s  %-6s  ",
		    ctl_answer_figure(entry, "frequency"), cls,
		    ctl_answer_figure(entry, "status"),
		    ctl_text_grouped(ctl_answer_figure(entry, "bytes"), bytes),
		    ctl_answer_figure(entry, "version"),
		    ctl_text_time(ctl_answer_measure(entry, "age_s"), age),
		    json_is_true(json_object_get(entry, "served")) ? "yes"
								   : "no");
		print_key(cls, json_string_value(key), json_string_length(key));
		putchar('\n');
	}
	return EX_OK;
}

static int
run_keys(const struct cache *cache, int argc, char **argv)
{
	char target[64] = "/cache/keys";
	const char *limit = cache->limit;
	long number;

	(void)argv;
	if (argc > 0)
		return ctl_usage("cache keys takes no argument but -n");
	if (limit != NULL) {
		if (*limit == '\0' || strlen(limit) > 5 ||
		    limit[strspn(limit, "0123456789")] != '\0')
			number = 0;
		else
			number = strtol(limit, NULL, 10);
		if (number < 1 || number > KEYS_MAX)
			return ctl_usage(
			    "cache keys: -n: need 1 to %d keys", KEYS_MAX);
		snprintf(
		    target, sizeof(target), "/cache/keys?limit=%ld", number);
	}
	return ask(cache, false, target, show_keys);
}

/* ---- the command */

static const struct {
	const char *name;
	int (*run)(const struct cache *cache, int argc, char **argv);
} words[] = {
    {"status", run_status},
    {"flush", run_flush},
    {"keys", run_keys},
};

int
ctl_cache(const struct ctl *ctl, int argc, char **argv)
{
	static const struct option options[] = {
	    {"json", no_argument, NULL, 'j'},
	    {NULL, 0, NULL, 0},
	};
	struct cache cache = {.path = ctl->control};
	const char *word = "status";
	int option;

	while (
	    (option = getopt_long(argc, argv, "S:n:", options, NULL)) != -1) {
		if (option == 'S')
			cache.path = optarg;
		else if (option == 'n')
			cache.limit = optarg;
		else if (option == 'j')
			cache.is_json = true;
		else
			return ctl_usage_option(argc, argv);
	}
	if (optind < argc)
		word = argv[optind++];
	if (cache.limit != NULL && strcmp(word, "keys") != 0)
		return ctl_usage("cache: -n belongs to keys");
	for (size_t i = 0; i < SHM_ARRAY_LEN(words); i++)
		if (strcmp(words[i].name, word) == 0)
			return words[i].run(
			    &cache, argc - optind, argv + optind);
	return ctl_usage("cache: need status, flush or keys");
}

int
ctl_flush(const struct ctl *ctl, int argc, char **argv)
{
	struct cache cache = {.path = ctl->control};
	int option;

	while ((option = getopt(argc, argv, "S:")) != -1) {
		if (option != 'S')
			return ctl_usage_option(argc, argv);
		cache.path = optarg;
	}
	return run_flush(&cache, argc - optind, argv + optind);
}
