/*
 * The secret's life.
 *
 *	IDLE --> KEYS --> VALUE --> IDLE
 *	  \______________/ (keys that are fresh, or need no question)
 *
 * When: at the start; when database_secret_refresh is over; by SIGHUP; and
 * when the database has refused the present one, whoever noticed.  There is
 * one of this process in a task and one request at a time, so however many
 * connections are refused, one question is asked; and refusals lead to one a
 * second at most.
 *
 * DOUBT: a rotation changes the password in the database first and the secret
 * after that, so a secret that was refused can come back unchanged.  It is
 * asked for again, less and less often, until it is another one or the doubt
 * has lasted too long.  Logins that still fail renew the doubt.
 *
 * FAILURES wait with full jitter: anything between nothing and a limit that
 * doubles, or all tasks come back at once; after throttling never before the
 * time that was asked for.  The last secret stays in force meanwhile.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "ops/ops_aws.h"
#include "ops/ops_connect.h"
#include "ops/ops_secret.h"
#include "ops/ops_secret_text.h"

#define REQUEST_TIMEOUT_MS 5000
#define REFUSAL_PAUSE_US   1000000
#define DOUBTS_MAX	   8
#define BACKOFF_MIN_MS	   200
#define BACKOFF_MAX_MS	   5000
#define ADMIN_MAX_MS	   30000 /* of what only a person can mend */
#define THROTTLE_MIN_MS	   500
#define RETRY_AFTER_MAX_S  300
#define LOG_PAUSE_US	   60000000

enum secret_state {
	SECRET_IDLE = 0,
	SECRET_KEYS,
	SECRET_VALUE,
};

struct ops_secret {
	const struct ops_options *options;
	struct shm_secret *shm; /* NULL: off */
	struct ops_curl *curl;
	enum secret_state state;
	bool has_new_keys;   /* they were just read, however long they live */
	uint64_t due_us;     /* of IDLE: the next fetch */
	uint64_t started_us; /* the last one; 0: never */
	uint64_t refusals;   /* that a fetch has answered */
	uint32_t doubts;     /* fetches that found no other; 0: no doubt */
	uint32_t failures;   /* in a row */
	uint64_t logged_us;
	char logged[OPS_SECRET_REASON_BYTES];
	struct ops_aws_keys keys;
};

/* ---- when */

static uint64_t
random_us(uint64_t below_ms)
{
	return ops_connect_random() % (below_ms * 1000 + 1);
}

/* A tenth earlier or not: tasks that began together drift apart. */
static uint64_t
refresh_us(const struct ops_secret *secret, uint64_t now_us)
{
	uint64_t ms = secret->options->secret_refresh_ms;

	return ms == 0 ? UINT64_MAX : now_us + ms * 1000 - random_us(ms / 10);
}

static uint64_t
retry_us(const struct ops_secret *secret, enum ops_secret_fault fault,
    uint32_t after_s)
{
	uint64_t most_ms =
	    fault == OPS_SECRET_ADMIN ? ADMIN_MAX_MS : BACKOFF_MAX_MS;
	uint64_t ms = BACKOFF_MIN_MS, least_us = 0;

	for (uint32_t i = 1; i < secret->failures && ms < most_ms; i++)
		ms *= 2;
	if (ms > most_ms)
		ms = most_ms;
	if (after_s > RETRY_AFTER_MAX_S)
		after_s = RETRY_AFTER_MAX_S;
	if (fault == OPS_SECRET_THROTTLED)
		least_us = THROTTLE_MIN_MS * 1000;
	if (after_s * 1000000ULL > least_us)
		least_us = after_s * 1000000ULL;
	return least_us + random_us(ms);
}

/* ---- what is said */

static void
log_failure(struct ops_secret *secret, const struct ops_secret_verdict *verdict)
{
	bool has_one = shm_secret_version(secret->shm) > 0;
	uint64_t now_us = shm_clock_us();

	if (strcmp(secret->logged, verdict->reason) == 0 &&
	    now_us - secret->logged_us < LOG_PAUSE_US)
		return;
	memcpy(secret->logged, verdict->reason, sizeof(secret->logged));
	secret->logged_us = now_us;
	ops_say(secret->options, has_one ? OPS_LOG_WARN : OPS_LOG_ERROR,
	    "secret_failed",
	    has_one ? "the database's secret could not be fetched again, the "
		      "last one stays in force"
		    : "the database's secret cannot be fetched, and nobody "
		      "can connect before",
	    OPS_LOG_STR("secret", secret->options->secret_id),
	    OPS_LOG_STR("error", verdict->type),
	    OPS_LOG_STR("reason", verdict->reason),
	    OPS_LOG_INT("failures", secret->failures));
}

static void
log_new(struct ops_secret *secret)
{
	secret->logged[0] = '\0';
	ops_say(secret->options, OPS_LOG_INFO, "secret_fetched",
	    "new connections to the database use the secret that was fetched",
	    OPS_LOG_STR("secret", secret->options->secret_id),
	    OPS_LOG_INT("version", shm_secret_version(secret->shm)));
}

/* ---- ends of a fetch */

static void
fetch_failed(struct ops_secret *secret,
    const struct ops_secret_verdict *verdict, uint32_t after_s)
{
	secret->state = SECRET_IDLE;
	secret->failures++;
	if (verdict->fault == OPS_SECRET_KEYS)
		ops_aws_forget(&secret->keys);
	secret->due_us =
	    shm_clock_us() + retry_us(secret, verdict->fault, after_s);
	log_failure(secret, verdict);
}

static void
fetch_failed_early(
    struct ops_secret *secret, enum ops_secret_fault fault, const char *reason)
{
	struct ops_secret_verdict verdict = {.fault = fault};

	snprintf(verdict.reason, sizeof(verdict.reason), "%s", reason);
	fetch_failed(secret, &verdict, 0);
}

static void
fetch_done(struct ops_secret *secret, const char *text)
{
	uint64_t before = shm_secret_version(secret->shm);
	uint64_t now_us = shm_clock_us();

	secret->state = SECRET_IDLE;
	secret->failures = 0;
	secret->due_us = refresh_us(secret, now_us);
	SHM_ASSERT(strlen(text) < SHM_SECRET_BYTES_MAX);
	(void)!shm_secret_put(secret->shm, text);
	if (shm_secret_version(secret->shm) != before) {
		secret->doubts = 0;
		log_new(secret);
	} else if (secret->doubts > 0 && secret->doubts++ < DOUBTS_MAX) {
		/* 1, 1.5, 2, ... seconds */
		secret->due_us = now_us + REFUSAL_PAUSE_US / 2 * secret->doubts;
	} else {
		secret->doubts = 0;
	}
	secret->logged[0] = '\0';
}

static void
on_keys(struct ops_secret *secret, const struct ops_curl_answer *answer)
{
	char reason[OPS_AWS_REASON_BYTES] = "";

	if (!ops_aws_read(&secret->keys, answer, reason)) {
		ops_aws_forget(&secret->keys);
		fetch_failed_early(secret,
		    answer->status == 0 || answer->status >= 500
			? OPS_SECRET_LATER
			: OPS_SECRET_ADMIN,
		    reason);
		return;
	}
	secret->state = SECRET_IDLE;
	secret->has_new_keys = true;
	secret->due_us = 0;
}

static void
on_value(struct ops_secret *secret, const struct ops_curl_answer *answer)
{
	struct ops_secret_verdict verdict;
	char text[SHM_SECRET_BYTES_MAX];

	ops_secret_judge(
	    answer, (int64_t)(shm_wallclock_us() / 1000000), &verdict, text);
	if (verdict.fault == OPS_SECRET_OK)
		fetch_done(secret, text);
	else
		fetch_failed(secret, &verdict, answer->retry_after_s);
	explicit_bzero(text, sizeof(text));
}

static void
on_answer(void *owner, const struct ops_curl_answer *answer)
{
	struct ops_secret *secret = owner;

	if (secret->state == SECRET_KEYS)
		on_keys(secret, answer);
	else
		on_value(secret, answer);
}

/* ---- its beginning */

static void
ask_for_keys(struct ops_secret *secret, const struct ops_aws_ask *ask)
{
	struct ops_curl_request request = {
	    .url = ask->url, .is_near = true, .timeout_ms = REQUEST_TIMEOUT_MS};

	if (ask->authorization[0] != '\0')
		request.header[0] = ask->authorization;
	if (!ops_curl_start(secret->curl, &request)) {
		fetch_failed_early(secret, OPS_SECRET_LATER, "no memory");
		return;
	}
	secret->state = SECRET_KEYS;
}

static char *
request_body(const char *id)
{
	json_t *root = json_pack("{s:s}", "SecretId", id);
	char *text = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);

	json_decref(root);
	return text;
}

static void
ask_for_value(struct ops_secret *secret)
{
	const char *id = secret->options->secret_id;
	char region[64], url[OPS_AWS_URL_BYTES], sigv4[128];
	char token[OPS_AWS_TOKEN_BYTES + 32];
	char *body = request_body(id);
	struct ops_curl_request request = {.url = url,
	    .body = body,
	    .header = {"Content-Type: application/x-amz-json-1.1",
		"X-Amz-Target: secretsmanager.GetSecretValue"},
	    .sigv4 = sigv4,
	    .key_id = secret->keys.id,
	    .key_secret = secret->keys.secret,
	    .timeout_ms = REQUEST_TIMEOUT_MS};

	if (!ops_aws_region(id, region)) {
		free(body);
		fetch_failed_early(secret, OPS_SECRET_ADMIN,
		    "no AWS region: set AWS_REGION, or give the ARN as "
		    "database_secret");
		return;
	}
	ops_aws_endpoint(region, url);
	snprintf(sigv4, sizeof(sigv4), "aws:amz:%s:secretsmanager", region);
	snprintf(token, sizeof(token), "X-Amz-Security-Token: %s",
	    secret->keys.token);
	if (secret->keys.token[0] != '\0')
		request.header[2] = token;
	if (body != NULL && ops_curl_start(secret->curl, &request))
		secret->state = SECRET_VALUE;
	else
		fetch_failed_early(secret, OPS_SECRET_LATER, "no memory");
	explicit_bzero(token, sizeof(token));
	free(body);
}

static void
fetch_start(struct ops_secret *secret, uint64_t now_us)
{
	int64_t now_s = (int64_t)(shm_wallclock_us() / 1000000);
	char reason[OPS_AWS_REASON_BYTES] = "";
	struct ops_aws_ask ask;

	secret->started_us = now_us;
	secret->refusals = shm_secret_refusals(secret->shm);
	if (secret->has_new_keys || ops_aws_are_fresh(&secret->keys, now_s)) {
		secret->has_new_keys = false;
		ask_for_value(secret);
		return;
	}
	switch (ops_aws_find(&secret->keys, &ask, reason)) {
	case OPS_AWS_OK:
		ask_for_value(secret);
		return;
	case OPS_AWS_ASK:
		ask_for_keys(secret, &ask);
		return;
	case OPS_AWS_FAILED:
		ops_aws_forget(&secret->keys);
		fetch_failed_early(secret, OPS_SECRET_ADMIN, reason);
		return;
	}
}

/* ---- the room's side */

/* The next fetch for a refusal or a wish: soon, not at once. */
static void
fetch_soon(struct ops_secret *secret, uint64_t now_us)
{
	uint64_t at_us = secret->started_us == 0
			     ? now_us
			     : secret->started_us + REFUSAL_PAUSE_US;

	if (at_us < secret->due_us)
		secret->due_us = at_us;
}

static void
look_for_refusals(struct ops_secret *secret, uint64_t now_us)
{
	if (secret->state != SECRET_IDLE ||
	    shm_secret_refusals(secret->shm) == secret->refusals)
		return;
	secret->refusals = shm_secret_refusals(secret->shm);
	if (secret->doubts == 0)
		ops_say(secret->options, OPS_LOG_INFO, "secret_refused",
		    "the database refuses the secret, so it is fetched again",
		    OPS_LOG_STR("secret", secret->options->secret_id));
	secret->doubts = 1;
	/* After a failure its back-off goes on. */
	if (secret->failures == 0)
		fetch_soon(secret, now_us);
}

void
ops_secret_renew(struct ops_secret *secret, uint64_t now_us)
{
	if (secret->shm != NULL && secret->state == SECRET_IDLE)
		fetch_soon(secret, now_us);
}

void
ops_secret_tick(struct ops_secret *secret, uint64_t now_us)
{
	if (secret->shm == NULL)
		return;
	if (now_us >= ops_curl_due_us(secret->curl))
		ops_curl_run(secret->curl, NULL, now_us);
	look_for_refusals(secret, now_us);
	if (secret->state == SECRET_IDLE && now_us >= secret->due_us)
		fetch_start(secret, now_us);
}

uint64_t
ops_secret_due_us(const struct ops_secret *secret)
{
	uint64_t due_us;

	if (secret->shm == NULL)
		return UINT64_MAX;
	due_us = ops_curl_due_us(secret->curl);
	if (secret->state == SECRET_IDLE && secret->due_us < due_us)
		due_us = secret->due_us;
	return due_us;
}

void
ops_secret_fds(
    const struct ops_secret *secret, struct pollfd fds[OPS_SECRET_FDS])
{
	for (size_t i = 0; i < OPS_SECRET_FDS; i++)
		fds[i] = (struct pollfd){.fd = -1};
	if (secret->shm == NULL)
		return;
	fds[0] = (struct pollfd){
	    .fd = shm_secret_wake_fd(secret->shm), .events = POLLIN};
	ops_curl_fds(secret->curl, &fds[1]);
}

void
ops_secret_run(struct ops_secret *secret,
    const struct pollfd fds[OPS_SECRET_FDS], uint64_t now_us)
{
	if (secret->shm == NULL)
		return;
	if (fds[0].revents != 0)
		shm_secret_woken(secret->shm);
	ops_curl_run(secret->curl, &fds[1], now_us);
}

struct ops_secret *
ops_secret_new(const struct ops_options *options)
{
	struct ops_secret *secret = calloc(1, sizeof(*secret));

	if (secret == NULL)
		return NULL;
	secret->options = options;
	if (options->secret_id[0] == '\0')
		return secret;
	secret->shm = options->secret;
	secret->refusals = shm_secret_refusals(options->secret);
	secret->curl = ops_curl_new(on_answer, secret);
	if (secret->curl == NULL) {
		ops_say(options, OPS_LOG_ERROR, "secret_failed",
		    "the database's secret cannot be fetched",
		    OPS_LOG_STR("reason",
			"libcurl.so.4 is not installed, or there is no "
			"memory"));
		ops_secret_free(&secret);
	}
	return secret;
}

void
ops_secret_free(struct ops_secret **secret)
{
	struct ops_secret *old = *secret;

	*secret = NULL;
	if (old == NULL)
		return;
	ops_curl_free(&old->curl);
	ops_aws_forget(&old->keys);
	free(old);
}
