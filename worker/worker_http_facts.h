/*
 * What the few fields that decide about framing and the connection said.
 * Private to the request parser (worker_http.c).
 */
#ifndef WORKER_HTTP_FACTS_H
#define WORKER_HTTP_FACTS_H

#include "worker/worker_http.h"

/* What the fields said, judged together by worker_http_facts_finish(). */
struct worker_http_facts {
	uint32_t hosts_count;
	uint32_t lengths_count;
	uint32_t codings_count;
	bool is_coding_unknown;
	bool is_expect_unknown;
	bool has_close;
	bool has_keep_alive;
	bool is_absolute; /* the target brought the host */
};

/*
 * Take notice of a field, on OK or REJECT; head->minor is known.  Fields that
 * do not matter are OK.
 */
enum worker_http_result worker_http_facts_take(struct worker_http_head *head,
    struct worker_http_facts *facts,
    const struct worker_http_field *field) SHM_MUSTCHECK;

/* The same; the lengths of the names that matter are looked at first. */
static inline enum worker_http_result
worker_http_facts_note(struct worker_http_head *head,
    struct worker_http_facts *facts, const struct worker_http_field *field)
{
	const uint32_t lengths = 1u << (sizeof("host") - 1) |
				 1u << (sizeof("expect") - 1) |
				 1u << (sizeof("connection") - 1) |
				 1u << (sizeof("content-length") - 1) |
				 1u << (sizeof("transfer-encoding") - 1);

	if (field->name.len > 31 || (lengths >> field->name.len & 1) == 0)
		return WORKER_HTTP_OK;
	return worker_http_facts_take(head, facts, field);
}

/* The whole head is there: what do its parts say together?  Sets framing,
 * expect_continue and keep_alive, or gives REJECT. */
enum worker_http_result worker_http_facts_finish(struct worker_http_head *head,
    const struct worker_http_facts *facts,
    uint64_t body_bytes_max) SHM_MUSTCHECK;

#endif
