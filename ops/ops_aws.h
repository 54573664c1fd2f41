/*
 * Who we are for AWS, and where it is: keys, region, endpoint.
 *
 * Keys come from the first of these that is there, as with AWS's own clients:
 *	AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN)
 *	AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI: a task of ECS
 *	the shared file (AWS_SHARED_CREDENTIALS_FILE, ~/.aws/credentials), its
 *	profile AWS_PROFILE or default
 */
#ifndef OPS_AWS_H
#define OPS_AWS_H

#include "ops/ops_curl.h"

#define OPS_AWS_REASON_BYTES 200
#define OPS_AWS_URL_BYTES    1024
#define OPS_AWS_TOKEN_BYTES  8192

struct ops_aws_keys {
	char id[256];
	char secret[256];
	char token[OPS_AWS_TOKEN_BYTES]; /* "": a user's keys have none */
	int64_t expires_s;		 /* 0: never */
};

/* What the container endpoint is asked with. */
struct ops_aws_ask {
	char url[OPS_AWS_URL_BYTES];
	char authorization[OPS_AWS_TOKEN_BYTES]; /* the field; "": none */
};

enum ops_aws_result {
	OPS_AWS_OK = 0,
	OPS_AWS_ASK,	/* the endpoint has to be asked */
	OPS_AWS_FAILED, /* reason says what to do about it */
};

/* Find keys.  Reads the environment and small files. */
enum ops_aws_result ops_aws_find(struct ops_aws_keys *keys,
    struct ops_aws_ask *ask, char reason[OPS_AWS_REASON_BYTES]) SHM_MUSTCHECK;

/* The keys in the container endpoint's answer. */
bool
ops_aws_read(struct ops_aws_keys *keys, const struct ops_curl_answer *answer,
    char reason[OPS_AWS_REASON_BYTES]) SHM_MUSTCHECK;

/* Five minutes before they expire is the time for others. */
bool ops_aws_are_fresh(const struct ops_aws_keys *keys, int64_t now_s);
void ops_aws_forget(struct ops_aws_keys *keys); /* wipes */

/* The region of an ARN, else AWS_REGION, else AWS_DEFAULT_REGION; copied.
 * False: none of them. */
bool ops_aws_region(const char *arn, char region[64]) SHM_MUSTCHECK;

/* AWS_ENDPOINT_URL_SECRETS_MANAGER, AWS_ENDPOINT_URL, or the region's. */
void ops_aws_endpoint(const char *region, char url[OPS_AWS_URL_BYTES]);

/* May keys be asked for there?  https, or a task's own network. */
bool ops_aws_is_near(const char *url);

/* "2026-01-31T12:00:00Z" in seconds since 1970; 0: not a time. */
int64_t ops_aws_time(const char *text);

#endif
