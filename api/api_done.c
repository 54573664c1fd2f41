/*
 * The ends of a call that more than one place needs.  The sentences about a
 * book are the original service's, to the letter: clients compare them.
 */
#include "config.h"

#include "api/api_call.h"
#include "api/api_done.h"

enum api_verdict
api_done_problem(struct api_call *call, uint16_t status, const char *sentence,
    struct api_buf *buf, struct api_reply *reply)
{
	api_problem(status, sentence, call->as_problem_json, buf, reply);
	return API_DONE;
}

enum api_verdict
api_done_retry(struct api_call *call, uint16_t retry_after_s,
    const char *sentence, struct api_buf *buf, struct api_reply *reply)
{
	api_problem(503, sentence, call->as_problem_json, buf, reply);
	reply->retry_after_s = retry_after_s;
	return API_DONE;
}

enum api_verdict
api_done_not_found(struct api_call *call, struct api_slice isbn,
    struct api_buf *buf, struct api_reply *reply)
{
	struct api_detail detail = {
	    "The book with ISBN ", isbn, " was not found."};

	api_problem_detail(404, &detail, call->as_problem_json, buf, reply);
	return API_DONE;
}

enum api_verdict
api_done_no_book(
    struct api_call *call, struct api_buf *buf, struct api_reply *reply)
{
	(void)api_done_not_found(call,
	    (struct api_slice){api_call_isbn(call), call->isbn_len}, buf,
	    reply);
	if (reply->status == 404)
		reply->cacheable = API_CACHEABLE_NEGATIVE;
	return API_DONE;
}

enum api_verdict
api_done_exists(struct api_call *call, const char *isbn, struct api_buf *buf,
    struct api_reply *reply)
{
	struct api_detail detail = {
	    "A book with ISBN ", {isbn, strlen(isbn)}, " already exists."};

	api_problem_detail(422, &detail, call->as_problem_json, buf, reply);
	return API_DONE;
}

enum api_verdict
api_done_unavailable(
    struct api_call *call, struct api_buf *buf, struct api_reply *reply)
{
	return api_done_retry(call, API_RETRY_AFTER_AWAY_S,
	    "The database is not available at the moment.", buf, reply);
}

enum api_verdict
api_done_no_content(struct api_reply *reply)
{
	*reply = (struct api_reply){.status = 204};
	return API_DONE;
}
