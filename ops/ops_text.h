/*
 * The text format of metrics: OpenMetrics 1.0, or what Prometheus read before
 * it, which differs in how counters are named, has no type info and no end.
 */
#ifndef OPS_TEXT_H
#define OPS_TEXT_H

#include "api/api_slice.h"
#include "shm/shm_stats.h"

enum ops_text_type {
	OPS_TEXT_COUNTER = 0,
	OPS_TEXT_GAUGE,
	OPS_TEXT_HISTOGRAM,
	OPS_TEXT_INFO,
};

struct ops_text {
	struct api_buf *buf; /* borrowed */
	bool is_open_metrics;
	/* the family that samples belong to */
	const char *family;
	const char *unit; /* in the name; "": none */
	enum ops_text_type type;
	uint32_t labels; /* of the sample that is being written */
};

/* A family begins: all of its samples come before the next one.  Names and
 * help are ours and need no escape. */
void ops_text_family(struct ops_text *text, enum ops_text_type type,
    const char *family, const char *unit, const char *help);

/* A sample: its labels if any, then its value.  The values of labels are ours
 * too. */
void ops_text_label(struct ops_text *text, const char *name, const char *value);
void
ops_text_label_u64(struct ops_text *text, const char *name, uint64_t value);
void ops_text_u64(struct ops_text *text, uint64_t value);
void ops_text_real(struct ops_text *text, double value);
/* Microseconds, in seconds without loss. */
void ops_text_us(struct ops_text *text, uint64_t us);

/* All samples of a histogram; label NULL: no label. */
void ops_text_histogram(struct ops_text *text, const char *label,
    const char *value, const struct shm_histogram *histogram);

void ops_text_end(struct ops_text *text);

#endif
