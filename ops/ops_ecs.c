/*
 * The task metadata endpoint of Amazon ECS.
 *
 * The CPU limit of a task is a limit of a group above the container's own,
 * which cannot be seen from inside: this endpoint is the only one who tells.
 * It is plain HTTP to a link-local address that only the task reaches.  The
 * address comes from the environment, and what the environment says is not
 * followed anywhere else: no other host, no proxy, no redirect, no other
 * protocol.
 *
 * libcurl is loaded when it is needed and not before: it brings some thirty
 * libraries along, whose pages every process of booksd would else have.
 *
 * Right after a start the endpoint may not be up yet, so what fails fast is
 * tried again until the time is over.
 */
#include "config.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <math.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <curl/curl.h>
#include <jansson.h>

#include "ops/ops_ecs.h"

#define LIBRARY	     "libcurl.so.4"
#define SCHEME	     "http://"
#define URI_MAX	     1024
#define TRY_AGAIN_MS 50

struct curl {
	CURL *(*easy_init)(void);
	CURLcode (*easy_setopt)(CURL *, CURLoption, ...);
	CURLcode (*easy_perform)(CURL *);
	void (*easy_reset)(CURL *);
	void (*easy_cleanup)(CURL *);
	const char *(*easy_strerror)(CURLcode);
};

struct answer {
	char *text;
	size_t len;
};

/* ---- where to ask */

static bool
is_local_v4(const char *host)
{
	struct in_addr address;
	uint32_t number;

	if (inet_pton(AF_INET, host, &address) != 1)
		return false;
	number = ntohl(address.s_addr);
	return number >> 24 == 127 || number >> 16 == 0xa9fe; /* 169.254/16 */
}

static bool
is_local_v6(const char *host)
{
	struct in6_addr address;

	return inet_pton(AF_INET6, host, &address) == 1 &&
	       (IN6_IS_ADDR_LOOPBACK(&address) ||
		   IN6_IS_ADDR_LINKLOCAL(&address));
}

/* The rest of an authority and a path: ":80/v4/..." */
static bool
is_port_and_path(const char *text)
{
	if (*text == ':') {
		size_t digits = strspn(text + 1, "0123456789");

		if (digits < 1 || digits > 5)
			return false;
		text += 1 + digits;
	}
	if (*text != '/' && *text != '\0')
		return false;
	return strspn(text, "/-._~0123456789abcdefghijklmnopqrstuvwxyz"
			    "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == strlen(text);
}

bool
ops_ecs_is_local(const char *uri)
{
	char host[64];
	const char *at = uri + strlen(SCHEME);
	size_t len;
	bool is_v6;

	if (strlen(uri) > URI_MAX || strncmp(uri, SCHEME, strlen(SCHEME)) != 0)
		return false;
	is_v6 = *at == '[';
	at += is_v6;
	len = strcspn(at, is_v6 ? "]" : ":/");
	if (len >= sizeof(host) || (is_v6 && at[len] != ']'))
		return false;
	memcpy(host, at, len);
	host[len] = '\0';
	return (is_v6 ? is_local_v6(host) : is_local_v4(host)) &&
	       is_port_and_path(at + len + is_v6);
}

/* ---- what is answered */

/* Labels of metrics later: what is not plain text is not taken. */
static void
take_text(char *out, size_t bytes, const char *text)
{
	size_t len = text != NULL ? strlen(text) : 0;

	out[0] = '\0';
	if (len >= bytes)
		return;
	for (const char *at = text; at != NULL && *at != '\0'; at++)
		if (*at <= ' ' || *at > '~' || *at == '"' || *at == '\\')
			return;
	memcpy(out, text != NULL ? text : "", len + 1);
}

/* Of an ARN or a plain name; NULL: of no text. */
static const char *
last_part(const json_t *arn)
{
	const char *text = json_string_value(arn);
	const char *slash = text != NULL ? strrchr(text, '/') : NULL;

	return slash != NULL ? slash + 1 : text;
}

/* vCPUs, a number like 0.25 or 4. */
static uint32_t
read_cpu(const json_t *cpu)
{
	double value = json_number_value(cpu) * 1000;

	if (!(value >= 1 && value <= OPS_ECS_MILLICPUS_MAX))
		return 0;
	return (uint32_t)lround(value);
}

bool
ops_ecs_parse(const char *text, size_t len, struct ops_ecs_task *task)
{
	json_t *root = json_loadb(text, len, 0, NULL);

	if (!json_is_object(root)) {
		json_decref(root);
		return false;
	}
	task->millicpus =
	    read_cpu(json_object_get(json_object_get(root, "Limits"), "CPU"));
	take_text(task->family, sizeof(task->family),
	    json_string_value(json_object_get(root, "Family")));
	take_text(task->revision, sizeof(task->revision),
	    json_string_value(json_object_get(root, "Revision")));
	take_text(task->id, sizeof(task->id),
	    last_part(json_object_get(root, "TaskARN")));
	take_text(task->cluster, sizeof(task->cluster),
	    last_part(json_object_get(root, "Cluster")));
	take_text(task->service, sizeof(task->service),
	    json_string_value(json_object_get(root, "ServiceName")));
	json_decref(root);
	return task->millicpus > 0 || task->family[0] != '\0' ||
	       task->id[0] != '\0';
}

/* ---- asking */

static void *
symbol(void *library, const char *name)
{
	return library == NULL ? NULL : dlsym(library, name);
}

static bool
load(struct curl *curl)
{
	void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

	/* POSIX allows what ISO C does not: a function in a void pointer. */
	*(void **)&curl->easy_init = symbol(library, "curl_easy_init");
	*(void **)&curl->easy_setopt = symbol(library, "curl_easy_setopt");
	*(void **)&curl->easy_perform = symbol(library, "curl_easy_perform");
	*(void **)&curl->easy_reset = symbol(library, "curl_easy_reset");
	*(void **)&curl->easy_cleanup = symbol(library, "curl_easy_cleanup");
	*(void **)&curl->easy_strerror = symbol(library, "curl_easy_strerror");
	return curl->easy_init != NULL && curl->easy_setopt != NULL &&
	       curl->easy_perform != NULL && curl->easy_reset != NULL &&
	       curl->easy_cleanup != NULL && curl->easy_strerror != NULL;
}

static size_t
answer_more(char *data, size_t size, size_t count, void *owner)
{
	struct answer *answer = owner;
	size_t len = size * count;

	if (len > OPS_ECS_ANSWER_MAX - answer->len)
		return 0; /* an error for libcurl */
	memcpy(answer->text + answer->len, data, len);
	answer->len += len;
	return len;
}

static CURLcode
ask_once(const struct curl *curl, CURL *easy, const char *uri, long left_ms,
    struct answer *answer)
{
	answer->len = 0;
	curl->easy_reset(easy);
	curl->easy_setopt(easy, CURLOPT_URL, uri);
	curl->easy_setopt(easy, CURLOPT_PROXY, "");
	curl->easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	curl->easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl->easy_setopt(easy, CURLOPT_FAILONERROR, 1L);
	curl->easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl->easy_setopt(easy, CURLOPT_TIMEOUT_MS, left_ms);
	curl->easy_setopt(
	    easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl->easy_setopt(easy, CURLOPT_WRITEFUNCTION, answer_more);
	curl->easy_setopt(easy, CURLOPT_WRITEDATA, answer);
	return curl->easy_perform(easy);
}

static bool
ask(const struct curl *curl, CURL *easy, const char *uri, uint32_t timeout_ms,
    struct answer *answer, const char **why)
{
	const struct timespec pause = {.tv_nsec = TRY_AGAIN_MS * 1000000};
	uint64_t end_us = shm_clock_us() + timeout_ms * UINT64_C(1000), now_us;
	CURLcode code;

	*why = "no answer in time";
	while ((now_us = shm_clock_us()) + 1000 < end_us) {
		code = ask_once(
		    curl, easy, uri, (long)((end_us - now_us) / 1000), answer);
		if (code == CURLE_OK)
			return true;
		*why = code == CURLE_WRITE_ERROR ? "the answer is too long"
						 : curl->easy_strerror(code);
		if (code == CURLE_WRITE_ERROR)
			return false;
		nanosleep(&pause, NULL);
	}
	return false;
}

bool
ops_ecs_ask_blocking(const char *uri, uint32_t timeout_ms,
    struct ops_ecs_task *task, const char **why)
{
	struct answer answer = {.text = malloc(OPS_ECS_ANSWER_MAX)};
	struct curl curl;
	char full[URI_MAX + 8];
	CURL *easy;
	bool result = false;

	*why = "not http to a link-local address";
	if (!ops_ecs_is_local(uri))
		goto free_answer;
	snprintf(full, sizeof(full), "%s/task", uri);
	*why = LIBRARY " cannot be loaded";
	if (!load(&curl) || (easy = curl.easy_init()) == NULL)
		goto free_answer;
	result = answer.text != NULL &&
		 ask(&curl, easy, full, timeout_ms, &answer, why);
	curl.easy_cleanup(easy);
	if (result && !ops_ecs_parse(answer.text, answer.len, task)) {
		*why = "the answer describes no task";
		result = false;
	}
free_answer:
	free(answer.text);
	return result;
}
