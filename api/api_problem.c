/*
 * Error answers: the bare sentences of the original service, or RFC 9457 for
 * clients that ask for it.
 *
 * The type of every problem is "about:blank": the status says what kind it
 * is, the title is the status's phrase as the RFC wants it then, and the
 * detail is the same sentence that other clients get bare.
 */
#include "config.h"

#include "api/api_problem.h"

static const struct {
	uint16_t status;
	const char *reason;
} reasons[] = {
    {100, "Continue"},
    {101, "Switching Protocols"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {206, "Partial Content"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {304, "Not Modified"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"},
    {417, "Expectation Failed"},
    {421, "Misdirected Request"},
    {422, "Unprocessable Content"},
    {426, "Upgrade Required"},
    {428, "Precondition Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
};

const char *
api_status_reason(uint16_t status)
{
	for (size_t i = 0; i < SHM_ARRAY_LEN(reasons); i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "Unknown";
}

void
api_reply_written(uint16_t status, const char *content_type, size_t start,
    const struct api_buf *buf, struct api_reply *reply)
{
	if (buf->failed) {
		*reply = (struct api_reply){
		    .status = 500,
		    .content_type = API_TYPE_TEXT,
		    .body = API_SLICE("There is no memory for the answer."),
		};
		return;
	}
	*reply = (struct api_reply){
	    .status = status,
	    .content_type = content_type,
	    .body = {buf->data + start, buf->len - start},
	};
}

void
api_problem_open(
    uint16_t status, const struct api_detail *detail, struct api_buf *buf)
{
	const char *after = detail->after != NULL ? detail->after : "";

	api_buf_text(buf, "{\"type\":\"about:blank\",\"title\":\"");
	api_buf_text(buf, api_status_reason(status));
	api_buf_text(buf, "\",\"status\":");
	api_buf_u64(buf, status);
	api_buf_text(buf, ",\"detail\":\"");
	api_buf_json(
	    buf, (struct api_slice){detail->before, strlen(detail->before)});
	api_buf_json(buf, detail->subject);
	api_buf_json(buf, (struct api_slice){after, strlen(after)});
	api_buf_text(buf, "\"");
}

void
api_problem_detail(uint16_t status, const struct api_detail *detail,
    bool as_problem_json, struct api_buf *buf, struct api_reply *reply)
{
	size_t start = buf->len;

	if (as_problem_json) {
		api_problem_open(status, detail, buf);
		api_buf_text(buf, "}");
		api_reply_written(status, API_TYPE_PROBLEM, start, buf, reply);
		return;
	}
	api_buf_text(buf, detail->before);
	api_buf_bytes(buf, detail->subject.data, detail->subject.len);
	if (detail->after != NULL)
		api_buf_text(buf, detail->after);
	api_reply_written(status, API_TYPE_TEXT, start, buf, reply);
}

void
api_problem(uint16_t status, const char *detail, bool as_problem_json,
    struct api_buf *buf, struct api_reply *reply)
{
	struct api_detail sentence = {.before = detail};

	api_problem_detail(status, &sentence, as_problem_json, buf, reply);
}
