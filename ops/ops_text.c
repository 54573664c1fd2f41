/*
 * Metrics as text.
 *
 * Of a histogram's buckets each fourth is shown: their ends are the powers of
 * two of microseconds, which are exact in both forms.  A value that is such an
 * end belongs to the next bucket; as durations are cut to whole microseconds,
 * what was measured is less than the end.
 */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ops/ops_json.h"
#include "ops/ops_text.h"

#define LE_FIRST_POWER 4  /* 16 microseconds */
#define LE_LAST_POWER  26 /* 67 seconds */

static const char *const types[] = {
    [OPS_TEXT_COUNTER] = "counter",
    [OPS_TEXT_GAUGE] = "gauge",
    [OPS_TEXT_HISTOGRAM] = "histogram",
    [OPS_TEXT_INFO] = "info",
};

/* What samples of a type have behind the family's name. */
static const char *const suffixes[] = {
    [OPS_TEXT_COUNTER] = "_total",
    [OPS_TEXT_GAUGE] = "",
    [OPS_TEXT_HISTOGRAM] = "",
    [OPS_TEXT_INFO] = "_info",
};

static void
write_name(struct ops_text *text, const char *suffix)
{
	api_buf_text(text->buf, text->family);
	if (text->unit[0] != '\0') {
		api_buf_text(text->buf, "_");
		api_buf_text(text->buf, text->unit);
	}
	api_buf_text(text->buf, suffix);
}

static void
write_metadata(struct ops_text *text, const char *what, const char *value)
{
	api_buf_text(text->buf, "# ");
	api_buf_text(text->buf, what);
	api_buf_text(text->buf, " ");
	write_name(text, text->is_open_metrics ? "" : suffixes[text->type]);
	api_buf_text(text->buf, " ");
	api_buf_text(text->buf, value);
	api_buf_text(text->buf, "\n");
}

void
ops_text_family(struct ops_text *text, enum ops_text_type type,
    const char *family, const char *unit, const char *help)
{
	bool is_old_info = type == OPS_TEXT_INFO && !text->is_open_metrics;

	text->type = type;
	text->family = family;
	text->unit = unit;
	text->labels = 0;
	write_metadata(text, "TYPE", is_old_info ? "gauge" : types[type]);
	if (unit[0] != '\0' && text->is_open_metrics)
		write_metadata(text, "UNIT", unit);
	write_metadata(text, "HELP", help);
}

/* ---- samples */

static void
label_begin(struct ops_text *text, const char *suffix, const char *name)
{
	if (text->labels++ == 0) {
		write_name(text, suffix);
		api_buf_text(text->buf, "{");
	} else {
		api_buf_text(text->buf, ",");
	}
	api_buf_text(text->buf, name);
	api_buf_text(text->buf, "=\"");
}

void
ops_text_label(struct ops_text *text, const char *name, const char *value)
{
	label_begin(text, suffixes[text->type], name);
	api_buf_text(text->buf, value);
	api_buf_text(text->buf, "\"");
}

void
ops_text_label_u64(struct ops_text *text, const char *name, uint64_t value)
{
	label_begin(text, suffixes[text->type], name);
	api_buf_u64(text->buf, value);
	api_buf_text(text->buf, "\"");
}

/* What stands between the name, or its labels, and the value. */
static void
value_begin(struct ops_text *text, const char *suffix)
{
	if (text->labels == 0)
		write_name(text, suffix);
	else
		api_buf_text(text->buf, "}");
	api_buf_text(text->buf, " ");
	text->labels = 0;
}

void
ops_text_u64(struct ops_text *text, uint64_t value)
{
	value_begin(text, suffixes[text->type]);
	api_buf_u64(text->buf, value);
	api_buf_text(text->buf, "\n");
}

void
ops_text_real(struct ops_text *text, double value)
{
	value_begin(text, suffixes[text->type]);
	ops_json_number(text->buf, value);
	api_buf_text(text->buf, "\n");
}

static void
write_us(struct api_buf *buf, uint64_t us)
{
	char number[32];

	snprintf(number, sizeof(number), "%" PRIu64 ".%06u", us / 1000000,
	    (unsigned)(us % 1000000));
	api_buf_text(buf, number);
}

void
ops_text_us(struct ops_text *text, uint64_t us)
{
	value_begin(text, suffixes[text->type]);
	write_us(text->buf, us);
	api_buf_text(text->buf, "\n");
}

/* ---- histograms */

struct series {
	const char *label, *value; /* or NULL */
};

static void
bucket(struct ops_text *text, const struct series *series, uint64_t le_us,
    uint64_t count)
{
	if (series->label != NULL) {
		label_begin(text, "_bucket", series->label);
		api_buf_text(text->buf, series->value);
		api_buf_text(text->buf, "\"");
	}
	label_begin(text, "_bucket", "le");
	if (le_us == UINT64_MAX)
		api_buf_text(text->buf, "+Inf");
	else
		write_us(text->buf, le_us);
	api_buf_text(text->buf, "\"");
	value_begin(text, "_bucket");
	api_buf_u64(text->buf, count);
	api_buf_text(text->buf, "\n");
}

static void
total(struct ops_text *text, const struct series *series, const char *suffix)
{
	if (series->label != NULL) {
		label_begin(text, suffix, series->label);
		api_buf_text(text->buf, series->value);
		api_buf_text(text->buf, "\"");
	}
	value_begin(text, suffix);
}

void
ops_text_histogram(struct ops_text *text, const char *label, const char *value,
    const struct shm_histogram *histogram)
{
	const struct series series = {label, value};
	uint64_t count = 0;
	uint32_t at = 0;

	for (uint32_t power = LE_FIRST_POWER; power <= LE_LAST_POWER; power++) {
		uint64_t le_us = UINT64_C(1) << power;

		for (; shm_histogram_floor(at) < le_us; at++)
			count += histogram->bucket[at];
		bucket(text, &series, le_us, count);
	}
	for (; at < SHM_HISTOGRAM_BUCKETS; at++)
		count += histogram->bucket[at];
	bucket(text, &series, UINT64_MAX, count);
	total(text, &series, "_count");
	api_buf_u64(text->buf, count);
	api_buf_text(text->buf, "\n");
	total(text, &series, "_sum");
	write_us(text->buf, histogram->sum_us);
	api_buf_text(text->buf, "\n");
}

void
ops_text_end(struct ops_text *text)
{
	if (text->is_open_metrics)
		api_buf_text(text->buf, "# EOF\n");
}
