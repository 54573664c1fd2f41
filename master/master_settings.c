/*
 * The settings: one table, one way in.
 *
 * Whatever source a value comes from, it passes master_settings_set(): found
 * in the table, parsed by its type, stored in the options and remembered with
 * its text and its origin for -T and for messages.  Sources are read from the
 * weakest to the strongest, so a later one simply replaces an earlier one;
 * but a list grows while its values come from one and the same source.
 *
 * Everything that is wrong is said, then the caller gives up: an administrator
 * should not have to start a program five times to see five mistakes.
 *
 * Secrets: a value of that type never goes into a message, and -T asks the
 * room that knows how to read it for a masked copy.
 */
#include "config.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "master/master_settings.h"
#include "master/master_value.h"

#define NAME_BYTES_MAX 48 /* longer names are not compared */
#define MASK	       "********"

#define FIELD_BYTES(field) sizeof(((struct master_options *)0)->field)

const struct master_setting master_settings_table[MASTER_SETTINGS_COUNT] = {
#define MASTER_SETTING(name, type, field, standard, min, max, unit, help)   \
	{#name, MASTER_TYPE_##type, offsetof(struct master_options, field), \
	    FIELD_BYTES(field), standard, min, max, unit, help},
    MASTER_SETTINGS
#undef MASTER_SETTING
};

/* Configuration is read once, at the start: without memory there is no
 * program. */
static char *
must_copy(const char *text)
{
	char *copy = strdup(text);

	if (copy == NULL)
		abort();
	return copy;
}

/* ---- messages */

SHM_PRINTF(2, 0)
static void
say(struct master_settings *settings, const char *format, va_list args)
{
	settings->errors_count++;
	fputs("booksd: ", settings->errors);
	vfprintf(settings->errors, format, args);
}

void
master_settings_error(struct master_settings *settings, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(settings, format, args);
	va_end(args);
	fputc('\n', settings->errors);
}

/* Text for a terminal: what would move its cursor becomes '?'. */
static void
print_safely(FILE *out, const char *text)
{
	for (; *text != '\0'; text++) {
		unsigned char byte = (unsigned char)*text;

		fputc(byte < 0x20 || byte == 0x7f ? '?' : byte, out);
	}
}

SHM_PRINTF(5, 0)
static void
refuse(struct master_settings *settings, const struct master_setting *setting,
    const char *text, const char *origin, const char *format, va_list args)
{
	settings->errors_count++;
	fprintf(settings->errors, "booksd: %s=", setting->name);
	print_safely(settings->errors,
	    setting->type == MASTER_TYPE_SECRET ? MASK : text);
	fputs(": ", settings->errors);
	vfprintf(settings->errors, format, args);
	fprintf(settings->errors, " (from %s)\n", origin);
}

void
master_settings_refuse(struct master_settings *settings,
    enum master_setting_id id, const char *format, ...)
{
	const struct master_setting_value *value = &settings->value[id];
	va_list args;

	va_start(args, format);
	refuse(settings, &master_settings_table[id], value->text, value->origin,
	    format, args);
	va_end(args);
}

SHM_PRINTF(5, 6)
static void
refuse_text(struct master_settings *settings,
    const struct master_setting *setting, const char *text, const char *origin,
    const char *format, ...)
{
	va_list args;

	va_start(args, format);
	refuse(settings, setting, text, origin, format, args);
	va_end(args);
}

/* ---- names */

const struct master_setting *
master_settings_find(const char *name)
{
	for (size_t i = 0; i < MASTER_SETTINGS_COUNT; i++)
		if (strcmp(master_settings_table[i].name, name) == 0)
			return &master_settings_table[i];
	return NULL;
}

static unsigned
least(unsigned a, unsigned b, unsigned c)
{
	unsigned smaller = a < b ? a : b;

	return smaller < c ? smaller : c;
}

/* How many letters to insert, delete, replace or swap with their neighbour. */
static unsigned
edit_distance(const char *a, const char *b)
{
	size_t a_len = strlen(a), b_len = strlen(b);
	unsigned row[3][NAME_BYTES_MAX + 1];

	for (size_t j = 0; j <= b_len; j++)
		row[0][j] = (unsigned)j;
	for (size_t i = 1; i <= a_len; i++) {
		unsigned *now = row[i % 3], *last = row[(i + 2) % 3],
			 *before = row[(i + 1) % 3];

		now[0] = (unsigned)i;
		for (size_t j = 1; j <= b_len; j++) {
			now[j] = least(last[j] + 1, now[j - 1] + 1,
			    last[j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
			    a[i - 2] == b[j - 1] && before[j - 2] + 1 < now[j])
				now[j] = before[j - 2] + 1;
		}
	}
	return row[a_len % 3][b_len];
}

const char *
master_settings_nearest(const char *name)
{
	const char *nearest = NULL;
	size_t len = strlen(name);
	/* More than a third of the letters wrong is another word. */
	unsigned distance, best = (unsigned)(len / 3 > 2 ? len / 3 : 2);

	if (len > NAME_BYTES_MAX)
		return NULL;
	for (size_t i = 0; i < MASTER_SETTINGS_COUNT; i++) {
		distance = edit_distance(name, master_settings_table[i].name);
		if (distance < best || (distance == best && nearest == NULL)) {
			best = distance;
			nearest = master_settings_table[i].name;
		}
	}
	return nearest;
}

/* ---- values */

static void
print_origin(const struct master_origin *origin, char *text, size_t bytes)
{
	switch (origin->source) {
	case MASTER_SOURCE_DEFAULT:
		snprintf(text, bytes, "default");
		return;
	case MASTER_SOURCE_FILE:
		snprintf(text, bytes, "%s:%u", origin->name, origin->line);
		return;
	case MASTER_SOURCE_ENVIRONMENT:
		snprintf(text, bytes, "environment %s", origin->name);
		return;
	case MASTER_SOURCE_FLAG:
		snprintf(text, bytes, "%s", origin->name);
		return;
	}
}

static void
store_number(struct master_settings *settings,
    const struct master_setting *setting, uint64_t number)
{
	char *field = (char *)settings->options + setting->offset;
	uint32_t word = (uint32_t)number;

	if (setting->type == MASTER_TYPE_BOOL) {
		*(bool *)field = number != 0;
	} else if (setting->bytes == sizeof(number)) {
		memcpy(field, &number, sizeof(number));
	} else {
		SHM_ASSERT(setting->bytes == sizeof(word));
		SHM_ASSERT(number <= UINT32_MAX);
		memcpy(field, &word, sizeof(word));
	}
}

/* Split text at commas into list; false when there are too many items. */
static bool
split_list(char *text, struct master_list *list)
{
	char *item, *rest = text;

	list->count = 0;
	while ((item = strsep(&rest, ",")) != NULL) {
		item += strspn(item, " ");
		for (char *end = strchr(item, '\0');
		     end > item && end[-1] == ' '; end--)
			end[-1] = '\0';
		if (*item == '\0')
			continue;
		if (list->count == MASTER_LIST_MAX)
			return false;
		list->item[list->count++] = item;
	}
	return true;
}

/* A list's value in full: what this source gave before, and text. */
static char *
joined_text(const struct master_setting_value *value,
    const struct master_setting *setting, const char *text,
    enum master_source source)
{
	char *joined;

	if (setting->type != MASTER_TYPE_LIST || value->source != source ||
	    source == MASTER_SOURCE_DEFAULT || value->text[0] == '\0')
		return must_copy(text);
	if (asprintf(&joined, "%s, %s", value->text, text) == -1)
		abort();
	return joined;
}

static bool
store_list(struct master_settings *settings,
    const struct master_setting *setting, struct master_setting_value *value)
{
	char *field = (char *)settings->options + setting->offset;
	struct master_list list;
	char *parts = must_copy(value->text);

	if (!split_list(parts, &list)) {
		free(parts);
		return false;
	}
	free(value->parts);
	value->parts = parts;
	memcpy(field, &list, sizeof(list));
	return true;
}

static bool
store(struct master_settings *settings, const struct master_setting *setting,
    struct master_setting_value *value)
{
	char *field = (char *)settings->options + setting->offset;
	const char *text = value->text;
	uint64_t number;

	switch (setting->type) {
	case MASTER_TYPE_TEXT:
	case MASTER_TYPE_SECRET:
	case MASTER_TYPE_LOG:
		if (!master_value_is_text(setting, text))
			return false;
		memcpy(field, &text, sizeof(text));
		return true;
	case MASTER_TYPE_LIST:
		return master_value_is_text(setting, text) &&
		       store_list(settings, setting, value);
	case MASTER_TYPE_BOOL:
	case MASTER_TYPE_COUNT:
	case MASTER_TYPE_COUNT_AUTO:
	case MASTER_TYPE_WORKERS:
	case MASTER_TYPE_SIZE:
	case MASTER_TYPE_DURATION:
	case MASTER_TYPE_ENUM:
		if (!master_value_number(setting, text, &number))
			return false;
		store_number(settings, setting, number);
		return true;
	}
	return false;
}

static void
set_value(struct master_settings *settings,
    const struct master_setting *setting, const char *text,
    const struct master_origin *origin)
{
	struct master_setting_value *value =
	    &settings->value[setting - master_settings_table];
	struct master_setting_value fresh = {.source = origin->source};
	char need[MASTER_VALUE_NEED_BYTES], origin_text[512];

	print_origin(origin, origin_text, sizeof(origin_text));
	fresh.text = joined_text(value, setting, text, origin->source);
	if (!store(settings, setting, &fresh)) {
		master_value_need(setting, need);
		if (setting->type == MASTER_TYPE_LIST &&
		    master_value_is_text(setting, fresh.text))
			snprintf(need, sizeof(need), "at most %d %s",
			    MASTER_LIST_MAX, setting->unit);
		refuse_text(
		    settings, setting, text, origin_text, "need %s", need);
		free(fresh.text);
		return;
	}
	fresh.origin = must_copy(origin_text);
	free(value->text);
	free(value->parts);
	free(value->origin);
	*value = fresh;
}

void
master_settings_set(struct master_settings *settings, const char *name,
    const char *text, const struct master_origin *origin)
{
	const struct master_setting *setting = master_settings_find(name);
	const char *nearest = master_settings_nearest(name);
	char origin_text[512];

	if (setting != NULL) {
		set_value(settings, setting, text, origin);
		return;
	}
	print_origin(origin, origin_text, sizeof(origin_text));
	settings->errors_count++;
	fputs("booksd: there is no setting '", settings->errors);
	print_safely(settings->errors, name);
	if (nearest != NULL)
		fprintf(settings->errors, "', did you mean '%s'?", nearest);
	else
		fputs("' (booksd -h lists them)", settings->errors);
	fprintf(settings->errors, " (from %s)\n", origin_text);
}

bool
master_settings_differ(const struct master_settings *a,
    const struct master_settings *b, enum master_setting_id id)
{
	return strcmp(a->value[id].text, b->value[id].text) != 0;
}

void
master_settings_copy(struct master_settings *settings,
    const struct master_settings *from, enum master_setting_id id)
{
	const struct master_setting_value *source = &from->value[id];
	struct master_setting_value *value = &settings->value[id];
	struct master_setting_value fresh = {
	    .text = must_copy(source->text),
	    .origin = must_copy(source->origin),
	    .source = source->source,
	};
	bool is_stored;

	is_stored = store(settings, &master_settings_table[id], &fresh);
	SHM_ASSERT(is_stored); /* it could be once */
	free(value->text);
	free(value->parts);
	free(value->origin);
	*value = fresh;
}

void
master_settings_init(struct master_settings *settings,
    struct master_options *options, FILE *errors)
{
	static const struct master_origin origin = {
	    .source = MASTER_SOURCE_DEFAULT};

	*options = (struct master_options){.user = NULL};
	*settings =
	    (struct master_settings){.options = options, .errors = errors};
	for (size_t i = 0; i < MASTER_SETTINGS_COUNT; i++)
		set_value(settings, &master_settings_table[i],
		    master_settings_table[i].standard, &origin);
	SHM_ASSERT(settings->errors_count == 0); /* the table is right */
}

void
master_settings_fini(struct master_settings *settings)
{
	for (size_t i = 0; i < MASTER_SETTINGS_COUNT; i++) {
		free(settings->value[i].text);
		free(settings->value[i].parts);
		free(settings->value[i].origin);
	}
	*settings = (struct master_settings){.options = NULL};
}

/* ---- printing */

static void
print_quoted(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text != '\0'; text++) {
		if (*text == '"' || *text == '\\')
			fputc('\\', out);
		fputc(*text, out);
	}
	fputc('"', out);
}

static void
print_secret(FILE *out, size_t id, const char *text)
{
	char *masked = NULL;

	if (text[0] == '\0' || id == MASTER_SETTING_database)
		masked = worker_database_mask(text);

	print_quoted(out, masked != NULL ? masked : MASK);
	free(masked);
}

void
master_settings_dump(const struct master_settings *settings, FILE *out)
{
	for (size_t i = 0; i < MASTER_SETTINGS_COUNT; i++) {
		const struct master_setting *setting =
		    &master_settings_table[i];
		const struct master_setting_value *value = &settings->value[i];

		fprintf(out, "%s = ", setting->name);
		if (setting->type == MASTER_TYPE_SECRET)
			print_secret(out, i, value->text);
		else if (setting->type == MASTER_TYPE_TEXT ||
			 setting->type == MASTER_TYPE_LOG ||
			 setting->type == MASTER_TYPE_LIST)
			print_quoted(out, value->text);
		else
			fputs(value->text, out);
		fputs("  # ", out);
		print_safely(out, value->origin);
		fputc('\n', out);
	}
}

/* By a reload? */
static bool
is_kept(size_t id)
{
	static const bool kept[MASTER_SETTINGS_COUNT] = {
#define MASTER_RESTART(name) [MASTER_SETTING_##name] = true,
	    MASTER_SETTINGS_RESTART
#undef MASTER_RESTART
	};

	return kept[id];
}

void
master_settings_help(FILE *out)
{
	char need[MASTER_VALUE_NEED_BYTES];

	for (size_t i = 0; i < MASTER_SETTINGS_COUNT; i++) {
		const struct master_setting *setting =
		    &master_settings_table[i];

		fprintf(out, "  %-27s %s%s\n", setting->name, setting->help,
		    is_kept(i) ? " (restart)" : "");
		if (setting->type == MASTER_TYPE_TEXT ||
		    setting->type == MASTER_TYPE_SECRET ||
		    setting->type == MASTER_TYPE_LIST) {
			if (setting->standard[0] != '\0')
				fprintf(out, "  %-27s default %s\n", "",
				    setting->standard);
			continue;
		}
		master_value_need(setting, need);
		fprintf(out, "  %-27s %s; default %s\n", "", need,
		    setting->standard);
	}
}
