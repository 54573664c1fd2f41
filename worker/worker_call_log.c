/*
 * The access line of a call, and its place in the statistics.
 *
 * Its strings point into the request head; a call that has to wait copies them
 * first, because the head is gone by then.  Nothing of that is done when no
 * access log is written.
 */
#include "config.h"

#include "worker/worker_call.h"

#define REQUEST_ID_MAX 128
#define LOG_TARGET_MAX 1024

/* X-Amzn-Trace-Id: "Root=1-...;Parent=..." in any order. */
static struct api_slice
trace_root(struct api_slice value)
{
	for (size_t i = 0; i + 5 <= value.len; i++) {
		size_t end = i + 5;

		if (i > 0 && value.data[i - 1] != ';' &&
		    value.data[i - 1] != ' ')
			continue;
		if (memcmp(value.data + i, "Root=", 5) != 0)
			continue;
		while (end < value.len && value.data[end] != ';')
			end++;
		return (struct api_slice){value.data + i + 5, end - i - 5};
	}
	return (struct api_slice){NULL, 0};
}

struct api_slice
worker_call_field(const struct worker_http_head *head, const char *name)
{
	const struct worker_http_field *field = worker_http_field(head, name);

	if (field == NULL)
		return (struct api_slice){NULL, 0};
	return field->value;
}

/* Eight hexadecimal digits, all at once: a byte for each half of one. */
static void
put_hex(char *text, uint32_t value)
{
	uint64_t digits = value, above_nine;

	digits = (digits | digits << 16) & 0x0000ffff0000ffffULL;
	digits = (digits | digits << 8) & 0x00ff00ff00ff00ffULL;
	digits = (digits | digits << 4) & 0x0f0f0f0f0f0f0f0fULL;
	above_nine =
	    (digits + 0x0606060606060606ULL) >> 4 & 0x0101010101010101ULL;
	digits += 0x3030303030303030ULL + above_nine * ('a' - '0' - 10);
	memcpy(text, &digits, sizeof(digits));
}

/* Sixteen hexadecimal digits, different for each request of a worker and, by
 * the start value, between workers. */
static struct api_slice
request_id_make(struct worker_call *call)
{
	uint64_t id = call->loop->request_id++;
	char *text = call->log_text + sizeof(call->log_text) - 16;

	/* splitmix64's finalizer: a bijection, so no two are equal. */
	id = (id ^ (id >> 30)) * 0xbf58476d1ce4e5b9ULL;
	id = (id ^ (id >> 27)) * 0x94d049bb133111ebULL;
	id ^= id >> 31;
	put_hex(text, (uint32_t)id);
	put_hex(text + 8, (uint32_t)(id >> 32));
	return (struct api_slice){text, 16};
}

void
worker_call_log_begin(
    struct worker_call *call, const struct worker_http_head *head)
{
	struct worker_log_access *access = &call->access;

	*access = (struct worker_log_access){
	    .minor = head->minor,
	    .method = head->method_text,
	    .target = head->target,
	    .request_id = worker_call_field(head, "x-request-id"),
	    .trace_root =
		trace_root(worker_call_field(head, "x-amzn-trace-id")),
	    .remote = worker_log_text(call->conn->remote),
	};
	if (!worker_log_is_json()) {
		access->referer = worker_call_field(head, "referer");
		access->user_agent = worker_call_field(head, "user-agent");
	}
	if (access->request_id.len == 0 ||
	    access->request_id.len > REQUEST_ID_MAX)
		access->request_id = request_id_make(call);
}

/* The made-up request id keeps its place at the end of log_text. */
void
worker_call_keep_log(struct worker_call *call)
{
	struct worker_log_access *access = &call->access;
	struct api_slice *slice[] = {&access->method, &access->request_id,
	    &access->trace_root, &access->remote, &access->target,
	    &access->referer, &access->user_agent};
	size_t at = 0, room = sizeof(call->log_text) - 16;

	if (!worker_log_access_enabled())
		return;
	for (size_t i = 0; i < SHM_ARRAY_LEN(slice); i++) {
		size_t len = slice[i]->len;

		if (slice[i]->data >= call->log_text &&
		    slice[i]->data < call->log_text + sizeof(call->log_text))
			continue; /* kept already */
		if (len > room - at)
			len = room - at;
		if (slice[i] == &access->target && len > LOG_TARGET_MAX)
			len = LOG_TARGET_MAX;
		if (len > 0)
			memcpy(call->log_text + at, slice[i]->data, len);
		*slice[i] = (struct api_slice){call->log_text + at, len};
		at += len;
	}
}

void
worker_call_log(struct worker_call *call, uint16_t status, uint64_t body_bytes)
{
	uint64_t now_us, duration_us;

	if (call->logged)
		return;
	call->logged = true;
	if (!WORKER_STATS_ON && !worker_log_access_enabled())
		return;
	now_us = shm_clock_us();
	duration_us = now_us - call->started_us;
	worker_stats_request(call, status, duration_us);
	if (!worker_log_access_enabled())
		return;
	call->access.status = status;
	call->access.bytes = body_bytes;
	call->access.db_us = call->db_us;
	call->access.now_us = now_us;
	call->access.duration_us = duration_us;
	call->access.route = api_call_route(&call->api);
	call->access.cache = worker_source_name(call->cache.source);
	worker_log_request(&call->access);
}
