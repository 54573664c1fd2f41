/*
 * One log line being written: a bounded buffer that knows how to escape.
 *
 * A piece that finds no room sets overflow and changes nothing more; the
 * caller begins again with a smaller text_max, which shortens the strings that
 * are longer than it and leaves the others alone.
 */
#ifndef WORKER_LOG_LINE_H
#define WORKER_LOG_LINE_H

#include "worker/worker_log.h"

struct worker_log_line {
	size_t len;
	size_t text_max; /* escaped bytes that one string may take */
	bool overflow;
	char data[WORKER_LOG_LINE_MAX];
};

void worker_log_line_begin(struct worker_log_line *line, size_t text_max);
/* Adds the newline.  False when the line did not fit. */
bool worker_log_line_end(struct worker_log_line *line) SHM_MUSTCHECK;

void worker_log_line_bytes(
    struct worker_log_line *line, const char *data, size_t len);
#define worker_log_line_literal(line, literal) \
	worker_log_line_bytes((line), (literal), sizeof(literal) - 1)
void worker_log_line_u64(struct worker_log_line *line, uint64_t value);
void worker_log_line_i64(struct worker_log_line *line, int64_t value);

/* Can the text be a JSON string, or a text for people, as it is? */
bool worker_log_line_is_plain(struct api_slice text);

/* The inside of a JSON string, without the quotes around it. */
void worker_log_line_json(struct worker_log_line *line, struct api_slice text);
/* The same for people and for Apache's readers: printable ASCII, the rest as
 * \xHH, quotes and backslashes escaped. */
void worker_log_line_text(struct worker_log_line *line, struct api_slice text);

/* 2026-01-31T23:59:59.000000Z */
void worker_log_line_time(struct worker_log_line *line, uint64_t wallclock_us);
/* 31/Jan/2026:23:59:59 +0000 */
void
worker_log_line_time_clf(struct worker_log_line *line, uint64_t wallclock_us);

#endif
