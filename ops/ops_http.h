/*
 * The control socket and the admin listener: HTTP/1.1 for administrators and
 * monitoring, with the same answers on both.
 */
#ifndef OPS_HTTP_H
#define OPS_HTTP_H

#include <jansson.h>
#include <microhttpd.h>

#include "api/api.h"
#include "ops/ops_listen.h"

struct ops_site;

struct ops_http {
	const struct ops_options *options; /* borrowed */
	const struct ops_listen *listen;   /* borrowed */
	struct ops_site *site;		   /* borrowed */
	struct MHD_Daemon *daemon;	   /* of one listening socket */
	uint32_t dumps;			   /* of keys, under way */
};

/* Serve fd, a listening socket that stays the caller's.  NULL with errno. */
struct ops_http *
ops_http_new(const struct ops_options *options, const struct ops_listen *listen,
    struct ops_site *site, int fd) SHM_MUSTCHECK;
void ops_http_free(struct ops_http **http); /* takes; NULL is fine */

int ops_http_fd(const struct ops_http *http); /* to poll for POLLIN */
void ops_http_run(struct ops_http *http);     /* then, and when time is up: */
uint64_t ops_http_wait_us(const struct ops_http *http);

const char *ops_http_version(void); /* of the library; static */

/* ---- for handlers: each answers a request that is complete */

struct ops_request {
	struct ops_http *http;
	struct MHD_Connection *connection;
	const struct ops_options *options;
};

/* The argument key of the query, of value_len bytes (decoded, and followed by
 * a 0).  False ends the walk. */
typedef bool ops_http_each_argument(
    void *owner, const char *key, const char *value, size_t value_len);
/* False: one of them ended it. */
bool ops_http_arguments(const struct ops_request *request,
    ops_http_each_argument *each, void *owner) SHM_MUSTCHECK;

/* The argument key as a number, and no other argument. */
struct ops_http_number {
	const char *key;
	unsigned long least, most; /* at most 8 digits */
	unsigned long value;
	bool is_given;
};
bool ops_http_number(const struct ops_request *request,
    struct ops_http_number *number) SHM_MUSTCHECK;

/* Takes root (NULL: there was no memory). */
enum MHD_Result
ops_http_json(const struct ops_request *request, unsigned status, json_t *root);
/* detail is a sentence without foreign bytes. */
enum MHD_Result ops_http_problem(
    const struct ops_request *request, uint16_t status, const char *detail);
/* 401, and how to do it right. */
enum MHD_Result ops_http_unauthorized(const struct ops_request *request);
/* Takes what buf holds. */
enum MHD_Result ops_http_buf(const struct ops_request *request, unsigned status,
    const char *content_type, struct api_buf *buf);
/* An answer of the api room, which is copied. */
enum MHD_Result ops_http_reply(
    const struct ops_request *request, const struct api_reply *reply);
/* What a content reader returns: up to out_bytes of text from *at on, which
 * moves; an error if text failed. */
ssize_t ops_http_give(
    const struct api_buf *text, size_t *at, char *out, size_t out_bytes);
/* Takes response (NULL: there was no memory). */
enum MHD_Result ops_http_answer(const struct ops_request *request,
    unsigned status, const char *content_type, struct MHD_Response *response);

#endif
