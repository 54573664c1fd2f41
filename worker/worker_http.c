/*
 * The request head, strictly.
 *
 * Two parsers in a row (a load balancer's and ours) that read one byte string
 * differently are a request smuggling hole, so whatever RFC 9112 lets a
 * recipient repair is refused here: one 400, close, nothing after it is
 * interpreted.
 *
 * ONE PASS, LEFT TO RIGHT.  Each byte is judged when it is reached and by what
 * stands before it, never by how many bytes happen to be there.  This gives
 *   I1  a prefix of a good head is MORE;
 *   I2  a prefix of a bad head is MORE or the very REJECT of the whole;
 *   I3  how the bytes were cut into pieces cannot matter.
 * A caller that gets MORE parses again from the start of the buffer; the
 * limits bound what that can cost.
 *
 * LIMITS.  stop is the end of the input or of what the present part of the
 * head may take, whichever comes first.  No loop reads past stop; running into
 * it is MORE in the first case and 414 or 431 in the second (ran_out).  The
 * limits include line ends, hence
 *   I4  head.bytes <= 2 + request_line_bytes_max + header_bytes_max.
 *
 * WHICH ERROR.  What breaks the syntax is answered at its byte.  What is well
 * formed but refused (413, 417, 501 for a coding) waits for the end of the
 * head, so that a doubt about the framing always wins with its 400.
 *
 * SPEED.  Names and targets go through a class table; values, most of the
 * bytes, eight at a time.  A name is looked at more closely only when its
 * length is one of the five that matter.
 */
#include "config.h"

#include <endian.h>

#include "worker/worker_http.h"
#include "worker/worker_http_facts.h"
#include "worker/worker_http_text.h"

/* Where the parser stands. */
struct scan {
	const char *at;
	const char *stop; /* nothing is read from here on */
	const char *end;  /* of the input */
	uint16_t limit_status;
	const char *limit_detail;
};

static enum worker_http_result
reject(struct worker_http_head *head, uint16_t status, const char *detail)
{
	head->status = status;
	head->detail = detail;
	return WORKER_HTTP_REJECT;
}

static enum worker_http_result
ran_out(struct worker_http_head *head, const struct scan *scan)
{
	if (scan->stop == scan->end)
		return WORKER_HTTP_MORE;
	return reject(head, scan->limit_status, scan->limit_detail);
}

/* The next part of the head may take bytes_max from here. */
static void
scan_limit(
    struct scan *scan, uint32_t bytes_max, uint16_t status, const char *detail)
{
	scan->stop = (size_t)(scan->end - scan->at) > bytes_max
			 ? scan->at + bytes_max
			 : scan->end;
	scan->limit_status = status;
	scan->limit_detail = detail;
}

/* A byte that may stand nowhere in a head, or not here. */
static enum worker_http_result
reject_byte(struct worker_http_head *head, char byte, const char *detail)
{
	if (byte == '\n')
		return reject(head, 400, "A line ends with a bare LF.");
	if (byte == '\r')
		return reject(head, 400, "A bare CR stands in the request.");
	if ((uint8_t)byte < 0x20 || byte == 0x7f)
		return reject(
		    head, 400, "A control byte stands in the request.");
	return reject(head, 400, detail);
}

/* at is on CR: take CR LF. */
static inline enum worker_http_result
scan_line_end(struct worker_http_head *head, struct scan *scan)
{
	if (scan->stop - scan->at < 2)
		return ran_out(head, scan);
	if (scan->at[1] != '\n')
		return reject(head, 400, "A bare CR stands in the request.");
	scan->at += 2;
	return WORKER_HTTP_OK;
}

/* ---- the request line */

/* RFC 9112 section 2.2: one empty line may be left over from a body before. */
static enum worker_http_result
scan_empty_line(struct worker_http_head *head, struct scan *scan)
{
	if (scan->at == scan->stop)
		return ran_out(head, scan);
	return *scan->at == '\r' ? scan_line_end(head, scan) : WORKER_HTTP_OK;
}

/* Is it a method of RFC 9110 or PATCH?  Which of ours, if any? */
static bool
method_find(struct api_slice text, enum api_method *method)
{
#define IF_METHOD(literal, value)                                   \
	if (memcmp(text.data, literal, sizeof(literal) - 1) == 0) { \
		*method = (value);                                  \
		return true;                                        \
	}
	switch (text.len) {
	case 3:
		IF_METHOD("GET", API_GET);
		IF_METHOD("PUT", API_PUT);
		break;
	case 4:
		IF_METHOD("POST", API_POST);
		IF_METHOD("HEAD", API_HEAD);
		break;
	case 5:
		IF_METHOD("PATCH", API_METHOD_OTHER);
		IF_METHOD("TRACE", API_METHOD_OTHER);
		break;
	case 6:
		IF_METHOD("DELETE", API_DELETE);
		break;
	case 7:
		IF_METHOD("OPTIONS", API_OPTIONS);
		IF_METHOD("CONNECT", API_METHOD_OTHER);
		break;
	}
	*method = API_METHOD_OTHER;
	return false;
#undef IF_METHOD
}

static enum worker_http_result
scan_method(struct worker_http_head *head, struct scan *scan)
{
	const char *begin = scan->at, *at = begin;

	while (at < scan->stop && worker_http_is(*at, HTTP_TOKEN))
		at++;
	if (at == scan->stop)
		return ran_out(head, scan);
	if (*at != ' ' || at == begin)
		return reject_byte(head, *at, "The method is not a token.");
	head->method_text = (struct api_slice){begin, (size_t)(at - begin)};
	if (!method_find(head->method_text, &head->method))
		return reject(head, 501, "This method is not known here.");
	scan->at = at + 1;
	return WORKER_HTTP_OK;
}

/*
 * absolute-form: the part before '?' is scheme "://" authority path.  The
 * authority takes the place of Host (RFC 9112 section 3.2.2); user names in it
 * are refused as RFC 9110 section 4.2.4 allows.
 */
static bool
target_absolute(struct worker_http_head *head, struct worker_http_facts *facts)
{
	struct api_slice whole = head->path, authority;
	const char *end = whole.data + whole.len, *at;
	size_t skip;

	if (whole.len >= 7 &&
	    WORKER_HTTP_IS_WORD(((struct api_slice){whole.data, 7}), "http://"))
		skip = 7;
	else if (whole.len >= 8 &&
		 WORKER_HTTP_IS_WORD(
		     ((struct api_slice){whole.data, 8}), "https://"))
		skip = 8;
	else
		return false;
	at = whole.data + skip;
	while (at < end && *at != '/')
		at++;
	authority.data = whole.data + skip;
	authority.len = (size_t)(at - authority.data);
	if (!worker_http_is_host(authority, false))
		return false;
	head->host = authority;
	head->path = at < end ? (struct api_slice){at, (size_t)(end - at)}
			      : API_SLICE("/");
	facts->is_absolute = true;
	return true;
}

/*
 * Which form is it, and does the method allow it?  RFC 9112 section 3.2.
 * CONNECT has no path; "/" stands for it so that it is refused as any method
 * is that a path does not have.
 */
static bool
target_split(struct worker_http_head *head, struct worker_http_facts *facts)
{
	struct api_slice text = head->method_text;

	if (head->method == API_METHOD_OTHER && text.data[0] == 'C') {
		if (!worker_http_is_host(head->target, true))
			return false;
		head->host = head->target;
		head->path = API_SLICE("/");
		facts->is_absolute = true;
		return true;
	}
	if (head->path.len > 0 && head->path.data[0] == '/')
		return true;
	if (head->target.len == 1 && head->target.data[0] == '*') {
		head->asterisk = true;
		return head->method == API_OPTIONS;
	}
	return target_absolute(head, facts);
}

static enum worker_http_result
scan_target(struct worker_http_head *head, struct scan *scan,
    struct worker_http_facts *facts)
{
	const char *begin = scan->at, *at = begin;

	while (at < scan->stop && worker_http_is(*at, HTTP_PATH))
		at++;
	head->path = (struct api_slice){begin, (size_t)(at - begin)};
	head->query = (struct api_slice){at, 0};
	if (at < scan->stop && *at == '?') {
		head->query.data = ++at;
		while (at < scan->stop && worker_http_is(*at, HTTP_QUERY))
			at++;
		head->query.len = (size_t)(at - head->query.data);
	}
	if (at == scan->stop)
		return ran_out(head, scan);
	if (*at == '\r')
		return reject(head, 400, "The request line has no version.");
	if (*at != ' ' || at == begin)
		return reject_byte(
		    head, *at, "The target has a byte that may not be there.");
	head->target = (struct api_slice){begin, (size_t)(at - begin)};
	if (!target_split(head, facts))
		return reject(head, 400,
		    "The target has no form that goes with the method.");
	scan->at = at + 1;
	return WORKER_HTTP_OK;
}

/* "HTTP/" DIGIT "." DIGIT CR LF.  Higher minors are spoken to as 1.1. */
static enum worker_http_result
scan_version(struct worker_http_head *head, struct scan *scan)
{
	static const char pattern[] = "HTTP/0.0\r\n";
	const char *at = scan->at;

	/* nearly always, and the loop below would find the same */
	if (scan->stop - at >= 10 && memcmp(at, "HTTP/1.1\r\n", 10) == 0) {
		head->minor = 1;
		scan->at = at + 10;
		return WORKER_HTTP_OK;
	}
	for (size_t i = 0; i < sizeof(pattern) - 1; i++) {
		if (at + i == scan->stop)
			return ran_out(head, scan);
		if (pattern[i] == '0' ? !worker_http_is(at[i], HTTP_DIGIT)
				      : at[i] != pattern[i])
			return reject_byte(
			    head, at[i], "The version is malformed.");
	}
	if (at[5] != '1')
		return reject(head, 505, "Only HTTP/1.x is spoken here.");
	head->minor = at[7] != '0';
	scan->at = at + sizeof(pattern) - 1;
	return WORKER_HTTP_OK;
}

/* ---- fields */

/* The first byte that ends a value or may not be in one.  Eight at a time: a
 * byte below 0x20 or equal to 0x7f sets the high bit of its lane, the lowest
 * lane that is set is exact, and higher ones are not looked at. */
static inline const char *
value_end(const char *at, const char *stop)
{
	const uint64_t ones = 0x0101010101010101u, highs = ones << 7;
	uint64_t word, is_control, is_del;

	while (stop - at >= (ptrdiff_t)sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		word = le64toh(word);
		is_control = (word - ones * 0x20) & ~word;
		is_del = ((word ^ ones * 0x7f) - ones) & ~(word ^ ones * 0x7f);
		word = (is_control | is_del) & highs;
		if (word == 0) {
			at += sizeof(word);
			continue;
		}
		at += __builtin_ctzll(word) / 8;
		if (*at != '\t')
			return at;
		at++;
	}
	while (
	    at < stop && (((uint8_t)*at >= 0x20 && *at != 0x7f) || *at == '\t'))
		at++;
	return at;
}

/* name ":" OWS value OWS CR LF, with at on the name's first byte. */
static inline enum worker_http_result
scan_field(struct worker_http_head *head, struct scan *scan,
    struct worker_http_field *field)
{
	const char *begin = scan->at, *at = begin, *stop = scan->stop, *end;

	while (at < stop && worker_http_is(*at, HTTP_TOKEN))
		at++;
	if (at == stop)
		return ran_out(head, scan);
	if (*at != ':' || at == begin)
		return reject_byte(head, *at,
		    worker_http_is_blank(*at)
			? "White space stands before a field's colon "
			  "or begins a line."
			: "A field name is not a token.");
	field->name = (struct api_slice){begin, (size_t)(at - begin)};
	at++;
	while (at < stop && worker_http_is_blank(*at))
		at++;
	end = value_end(at, stop);
	if (end == stop)
		return ran_out(head, scan);
	if (*end != '\r')
		return reject_byte(head, *end, NULL);
	scan->at = end;
	while (end > at && worker_http_is_blank(end[-1]))
		end--;
	field->value = (struct api_slice){at, (size_t)(end - at)};
	return scan_line_end(head, scan);
}

static enum worker_http_result
scan_fields(struct worker_http_head *head, struct scan *scan,
    struct worker_http_facts *facts, uint32_t count_max)
{
	enum worker_http_result result;

	for (;;) {
		struct worker_http_field *field =
		    &head->field[head->fields_count];

		if (scan->at == scan->stop)
			return ran_out(head, scan);
		if (*scan->at == '\r')
			return scan_line_end(head, scan);
		if (head->fields_count == count_max)
			return reject(
			    head, 431, "There are too many header fields.");
		result = scan_field(head, scan, field);
		if (result == WORKER_HTTP_OK)
			result = worker_http_facts_note(head, facts, field);
		if (result != WORKER_HTTP_OK)
			return result;
		head->fields_count++;
	}
}

/* Everything but the fields, which fields_count says are not there. */
static void
head_clear(struct worker_http_head *head)
{
	memset(head, 0, offsetof(struct worker_http_head, field));
	head->fields_count = 0;
	head->bytes = 0;
	head->status = 0;
	head->detail = NULL;
}

/* ---- public */

enum worker_http_result
worker_http_parse(struct worker_http_head *head, const char *buf, size_t len,
    const struct worker_http_limits *limits)
{
	struct scan scan = {.at = buf, .stop = buf + len, .end = buf + len};
	struct worker_http_facts facts = {0};
	enum worker_http_result result;

	SHM_ASSERT(limits->headers_count_max <= WORKER_HTTP_FIELDS_MAX);
	head_clear(head);
	result = scan_empty_line(head, &scan);
	if (result != WORKER_HTTP_OK)
		return result;
	scan_limit(&scan, limits->request_line_bytes_max, 414,
	    "The request line is too long.");
	result = scan_method(head, &scan);
	if (result == WORKER_HTTP_OK)
		result = scan_target(head, &scan, &facts);
	if (result == WORKER_HTTP_OK)
		result = scan_version(head, &scan);
	if (result != WORKER_HTTP_OK)
		return result;
	scan_limit(&scan, limits->header_bytes_max, 431,
	    "The header fields are too long.");
	result = scan_fields(head, &scan, &facts, limits->headers_count_max);
	if (result != WORKER_HTTP_OK)
		return result;
	head->bytes = (uint32_t)(scan.at - buf);
	return worker_http_facts_finish(head, &facts, limits->body_bytes_max);
}

const struct worker_http_field *
worker_http_field(const struct worker_http_head *head, const char *name_lower)
{
	size_t len = strlen(name_lower);

	for (uint32_t i = 0; i < head->fields_count; i++)
		if (worker_http_is_word(head->field[i].name, name_lower, len))
			return &head->field[i];
	return NULL;
}

struct api_slice
worker_http_values(const struct worker_http_head *head, const char *name_lower,
    char *scratch, size_t scratch_bytes)
{
	const size_t name_len = strlen(name_lower);
	struct api_slice all = {NULL, 0};

	for (uint32_t i = 0; i < head->fields_count; i++) {
		struct api_slice value = head->field[i].value;

		if (!worker_http_is_word(
			head->field[i].name, name_lower, name_len))
			continue;
		if (all.data == NULL) {
			all = value;
			continue;
		}
		if (all.len + 2 + value.len > scratch_bytes)
			break;
		if (all.data != scratch)
			memcpy(scratch, all.data, all.len);
		memcpy(scratch + all.len, ", ", 2);
		memcpy(scratch + all.len + 2, value.data, value.len);
		all = (struct api_slice){scratch, all.len + 2 + value.len};
	}
	return all;
}
