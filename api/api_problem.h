/*
 * Answers that say what went wrong; inside api/ only.
 */
#ifndef API_PROBLEM_H
#define API_PROBLEM_H

#include "api/api.h"

#define API_TYPE_TEXT	 "text/plain; charset=UTF-8"
#define API_TYPE_JSON	 "application/json"
#define API_TYPE_PROBLEM "application/problem+json"

/* A sentence with a subject that came from outside in its middle. */
struct api_detail {
	const char *before;
	struct api_slice subject; /* borrowed; see api_done.h about buf */
	const char *after;	  /* NULL: nothing */
};

/* Answer with the bare sentence, or as RFC 9457. */
void api_problem_detail(uint16_t status, const struct api_detail *detail,
    bool as_problem_json, struct api_buf *buf, struct api_reply *reply);

/*
 * Write an RFC 9457 object up to its last member, without the closing brace,
 * so that members can be added.
 */
void api_problem_open(
    uint16_t status, const struct api_detail *detail, struct api_buf *buf);

/* Fill *reply with what was written to buf since start, or with a static 500
 * when that failed. */
void api_reply_written(uint16_t status, const char *content_type, size_t start,
    const struct api_buf *buf, struct api_reply *reply);

#endif
