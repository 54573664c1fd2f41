/*
 * One HTTP request at a time, with libcurl and without waiting.
 *
 * The caller polls ops_curl_fds() and calls ops_curl_run() when one is ready
 * or ops_curl_due_us() has come.  What libcurl needs of names,
 * connections and TLS stays until ops_curl_free().
 */
#ifndef OPS_CURL_H
#define OPS_CURL_H

#include <poll.h>

#include "shm/shm_base.h"

#define OPS_CURL_FDS	      5
#define OPS_CURL_HEADERS_MAX  4
#define OPS_CURL_ANSWER_BYTES 131072 /* longer: no answer, with a reason */
#define OPS_CURL_REASON_BYTES 160

struct ops_curl;

/* All is borrowed for the call of ops_curl_start(). */
struct ops_curl_request {
	const char *url;
	const char *body; /* NULL: GET, else POST */
	/* "Name: value".  NEVER "Name:" alone, which takes a field away:
	 * libcurl before 8.3 signs it all the same, and the signature is wrong.
	 */
	const char *header[OPS_CURL_HEADERS_MAX];
	const char *sigv4; /* "aws:amz:REGION:SERVICE"; NULL: not signed */
	const char *key_id;
	const char *key_secret;
	bool is_near; /* never by a proxy */
	uint32_t timeout_ms;
};

struct ops_curl_answer {
	long status;	  /* 0: there is none */
	const char *body; /* ended by a 0; borrowed, wiped after the call */
	size_t body_len;
	uint32_t retry_after_s; /* 0: not said */
	int64_t date_s;		/* the server's clock; 0: not said */
	char reason[OPS_CURL_REASON_BYTES]; /* why there is none */
};

typedef void ops_curl_done(void *owner, const struct ops_curl_answer *answer);

/* NULL without memory, descriptors or libcurl. */
struct ops_curl *ops_curl_new(ops_curl_done *done, void *owner) SHM_MUSTCHECK;
void ops_curl_free(struct ops_curl **curl); /* takes; NULL is fine */

/* Ends in one call of done, never inside.  False: no memory.  There must be
 * none under way. */
bool ops_curl_start(struct ops_curl *curl,
    const struct ops_curl_request *request) SHM_MUSTCHECK;
bool ops_curl_is_busy(const struct ops_curl *curl);

void ops_curl_fds(const struct ops_curl *curl, struct pollfd fds[OPS_CURL_FDS]);
uint64_t ops_curl_due_us(const struct ops_curl *curl); /* UINT64_MAX: never */
/* fds as poll(2) has left them, NULL: for the time alone.  May call done, which
 * may not start another one. */
void ops_curl_run(struct ops_curl *curl, const struct pollfd fds[OPS_CURL_FDS],
    uint64_t now_us);

const char *ops_curl_version(void); /* of the library; static */

#endif
