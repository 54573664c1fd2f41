/*
 * The ends of a call: answers that know how this client wants them; inside
 * api/ only.  Each fills *reply and returns API_DONE.
 */
#ifndef API_DONE_H
#define API_DONE_H

#include "api/api.h"
#include "api/api_problem.h"

enum api_verdict api_done_problem(struct api_call *call, uint16_t status,
    const char *sentence, struct api_buf *buf, struct api_reply *reply);

#define API_RETRY_AFTER_S      1 /* what passes by itself */
#define API_RETRY_AFTER_AWAY_S 2 /* a database that has to come back */

/* 503 with Retry-After. */
enum api_verdict api_done_retry(struct api_call *call, uint16_t retry_after_s,
    const char *sentence, struct api_buf *buf, struct api_reply *reply);

/* 404 and 422 about a book.  isbn may be inside buf when buf has room for the
 * whole answer already. */
enum api_verdict api_done_not_found(struct api_call *call,
    struct api_slice isbn, struct api_buf *buf, struct api_reply *reply);
/* The same 404 about the book of the call, which may be kept. */
enum api_verdict api_done_no_book(
    struct api_call *call, struct api_buf *buf, struct api_reply *reply);
enum api_verdict api_done_exists(struct api_call *call, const char *isbn,
    struct api_buf *buf, struct api_reply *reply);

/* The database is away: 503. */
enum api_verdict api_done_unavailable(
    struct api_call *call, struct api_buf *buf, struct api_reply *reply);

enum api_verdict api_done_no_content(struct api_reply *reply);

#endif
