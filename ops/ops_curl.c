/*
 * libcurl's multi interface, driven by sockets: it tells which ones to watch,
 * and for one request at a time these are few: the connection, one more while
 * another address is tried, and one of the lookup of a name.
 *
 * libcurl is loaded when it is needed and not before: it brings some thirty
 * libraries, and each process that the master forks would pay for them.
 *
 * SECRETS go through here in both directions: an answer lies in one buffer of
 * fixed size, which is wiped, and nothing of a request or an answer goes into
 * a reason.
 */
#include "config.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

#include "ops/ops_curl.h"

#define LIBRARY		   "libcurl.so.4"
#define CONNECT_TIMEOUT_MS 2000L

struct ops_curl {
	ops_curl_done *done;
	void *owner;
	CURLM *multi;
	CURL *easy; /* of the request under way */
	struct curl_slist *headers;
	char *request_body;
	struct pollfd fds[OPS_CURL_FDS]; /* fd -1: free */
	uint64_t due_us;
	struct ops_curl_answer answer;
	char error[CURL_ERROR_SIZE];
	size_t len;
	char text[OPS_CURL_ANSWER_BYTES + 1];
};

/* What is used of libcurl: curl_NAME. */
#define LIBRARY_FUNCTIONS(F)   \
	F(easy_cleanup)        \
	F(easy_getinfo)        \
	F(easy_init)           \
	F(easy_setopt)         \
	F(easy_strerror)       \
	F(getdate)             \
	F(multi_add_handle)    \
	F(multi_cleanup)       \
	F(multi_info_read)     \
	F(multi_init)          \
	F(multi_remove_handle) \
	F(multi_setopt)        \
	F(multi_socket_action) \
	F(slist_append)        \
	F(slist_free_all)      \
	F(version_info)

static struct {
	void *handle; /* NULL: not loaded */
#define F(name) __typeof__(&curl_##name) name;
	LIBRARY_FUNCTIONS(F)
#undef F
} library;

static bool
library_load(void)
{
	void *handle;

	if (library.handle != NULL)
		return true;
	handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (handle == NULL)
		return false;
#define F(name)                                                 \
	*(void **)&library.name = dlsym(handle, "curl_" #name); \
	if (library.name == NULL) {                             \
		dlclose(handle);                                \
		return false;                                   \
	}
	LIBRARY_FUNCTIONS(F)
#undef F
	library.handle = handle;
	return true;
}

/* ---- what libcurl calls */

/* The place of fd, or a free one (fd -1); NULL: there is none. */
static struct pollfd *
find_fd(struct ops_curl *curl, int fd)
{
	for (size_t i = 0; i < OPS_CURL_FDS; i++)
		if (curl->fds[i].fd == fd)
			return &curl->fds[i];
	return NULL;
}

static int
on_socket(
    CURL *easy, curl_socket_t fd, int what, void *owner, void *socket_owner)
{
	struct ops_curl *curl = owner;
	struct pollfd *place = find_fd(curl, fd);

	(void)easy;
	(void)socket_owner;
	if (place == NULL)
		place = find_fd(curl, -1);
	if (place == NULL)
		return what == CURL_POLL_REMOVE ? 0 : -1;
	*place = (struct pollfd){.fd = what == CURL_POLL_REMOVE ? -1 : fd,
	    .events = (short)(((what & CURL_POLL_IN) != 0 ? POLLIN : 0) |
			      ((what & CURL_POLL_OUT) != 0 ? POLLOUT : 0))};
	return 0;
}

static int
on_timer(CURLM *multi, long timeout_ms, void *owner)
{
	struct ops_curl *curl = owner;

	(void)multi;
	curl->due_us = timeout_ms < 0
			   ? UINT64_MAX
			   : shm_clock_us() + (uint64_t)timeout_ms * 1000;
	return 0;
}

static size_t
on_body(char *data, size_t size, size_t count, void *owner)
{
	struct ops_curl *curl = owner;

	if (size * count > OPS_CURL_ANSWER_BYTES - curl->len)
		return 0;
	memcpy(curl->text + curl->len, data, size * count);
	curl->len += size * count;
	return size * count;
}

static size_t
on_header(char *line, size_t size, size_t count, void *owner)
{
	static const char date[] = "date:", retry[] = "retry-after:";
	struct ops_curl *curl = owner;
	char text[64];
	size_t len = size * count;

	snprintf(text, sizeof(text), "%.*s", (int)(len < 63 ? len : 63), line);
	text[strcspn(text, "\r\n")] = '\0';
	if (strncasecmp(text, date, sizeof(date) - 1) == 0)
		curl->answer.date_s =
		    library.getdate(text + sizeof(date) - 1, NULL);
	else if (strncasecmp(text, retry, sizeof(retry) - 1) == 0)
		curl->answer.retry_after_s =
		    (uint32_t)strtoul(text + sizeof(retry) - 1, NULL, 10);
	if (curl->answer.date_s < 0)
		curl->answer.date_s = 0;
	return len;
}

/* ---- a request */

static void
request_end(struct ops_curl *curl)
{
	if (curl->easy != NULL) {
		library.multi_remove_handle(curl->multi, curl->easy);
		library.easy_cleanup(curl->easy);
	}
	curl->easy = NULL;
	library.slist_free_all(curl->headers);
	curl->headers = NULL;
	free(curl->request_body);
	curl->request_body = NULL;
	explicit_bzero(curl->text, curl->len);
	curl->len = 0;
}

static bool
add_headers(struct ops_curl *curl, const struct ops_curl_request *request)
{
	for (size_t i = 0; i < OPS_CURL_HEADERS_MAX; i++) {
		struct curl_slist *longer;
		const char *value;

		if (request->header[i] == NULL)
			continue;
		value = strchr(request->header[i], ':');
		SHM_ASSERT(value != NULL && value[1] == ' ' &&
			   value[2] != '\0'); /* see the header */
		longer =
		    library.slist_append(curl->headers, request->header[i]);
		if (longer == NULL)
			return false;
		curl->headers = longer;
	}
	return true;
}

static bool
set_body(struct ops_curl *curl, const char *body)
{
	if (body == NULL)
		return true;
	curl->request_body = strdup(body);
	return curl->request_body != NULL &&
	       library.easy_setopt(curl->easy, CURLOPT_POSTFIELDS,
		   curl->request_body) == CURLE_OK;
}

static bool
set_signature(CURL *easy, const struct ops_curl_request *request)
{
	if (request->sigv4 == NULL)
		return true;
	return library.easy_setopt(easy, CURLOPT_AWS_SIGV4, request->sigv4) ==
		   CURLE_OK &&
	       library.easy_setopt(easy, CURLOPT_USERNAME, request->key_id) ==
		   CURLE_OK &&
	       library.easy_setopt(
		   easy, CURLOPT_PASSWORD, request->key_secret) == CURLE_OK;
}

static bool
set_options(struct ops_curl *curl, const struct ops_curl_request *request)
{
	CURL *easy = curl->easy;
	bool ok = true;

#define SET(option, value) \
	(ok = ok && library.easy_setopt(easy, (option), (value)) == CURLE_OK)
	SET(CURLOPT_URL, request->url);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_NOPROGRESS, 1L);
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_TIMEOUT_MS, (long)request->timeout_ms);
	SET(CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	SET(CURLOPT_ERRORBUFFER, curl->error);
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_WRITEDATA, curl);
	SET(CURLOPT_HEADERFUNCTION, on_header);
	SET(CURLOPT_HEADERDATA, curl);
	SET(CURLOPT_HTTPHEADER, curl->headers);
	/* An address or a name of the network's owner is no file. */
#if LIBCURL_VERSION_NUM >= 0x075500
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
#else
	SET(CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
	if (request->is_near)
		SET(CURLOPT_NOPROXY, "*");
#undef SET
	return ok;
}

bool
ops_curl_start(struct ops_curl *curl, const struct ops_curl_request *request)
{
	SHM_ASSERT(curl->easy == NULL);
	curl->answer = (struct ops_curl_answer){.status = 0};
	curl->error[0] = '\0';
	curl->easy = library.easy_init();
	if (curl->easy != NULL && add_headers(curl, request) &&
	    set_options(curl, request) && set_body(curl, request->body) &&
	    set_signature(curl->easy, request) &&
	    library.multi_add_handle(curl->multi, curl->easy) == CURLM_OK)
		return true;
	request_end(curl);
	return false;
}

/* ---- its end */

static void
request_done(struct ops_curl *curl, CURLcode code)
{
	struct ops_curl_answer *answer = &curl->answer;
	const char *why = curl->error;

	if (code == CURLE_OK)
		library.easy_getinfo(
		    curl->easy, CURLINFO_RESPONSE_CODE, &answer->status);
	else if (code == CURLE_WRITE_ERROR)
		why = "the answer is too long";
	else if (why[0] == '\0')
		why = library.easy_strerror(code);
	if (code != CURLE_OK)
		snprintf(answer->reason, sizeof(answer->reason), "%.*s",
		    (int)sizeof(answer->reason) - 1, why);
	curl->text[curl->len] = '\0';
	answer->body = curl->text;
	answer->body_len = curl->len;
	curl->done(curl->owner, answer);
	request_end(curl);
}

static void
run_ready(struct ops_curl *curl, const struct pollfd *ready)
{
	int what = 0, running;

	/* It may have been closed meanwhile. */
	if (ready->fd == -1 || ready->revents == 0 ||
	    find_fd(curl, ready->fd) == NULL)
		return;
	if ((ready->revents & POLLIN) != 0)
		what |= CURL_CSELECT_IN;
	if ((ready->revents & POLLOUT) != 0)
		what |= CURL_CSELECT_OUT;
	if ((ready->revents & (POLLERR | POLLHUP | POLLNVAL)) != 0)
		what |= CURL_CSELECT_ERR;
	library.multi_socket_action(curl->multi, ready->fd, what, &running);
}

void
ops_curl_run(struct ops_curl *curl, const struct pollfd fds[OPS_CURL_FDS],
    uint64_t now_us)
{
	CURLMsg *message;
	int running, left;

	for (size_t i = 0; fds != NULL && i < OPS_CURL_FDS; i++)
		run_ready(curl, &fds[i]);
	if (now_us >= curl->due_us) {
		curl->due_us = UINT64_MAX; /* until on_timer() */
		library.multi_socket_action(
		    curl->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
	while ((message = library.multi_info_read(curl->multi, &left)) != NULL)
		if (message->msg == CURLMSG_DONE &&
		    message->easy_handle == curl->easy)
			request_done(curl, message->data.result);
}

/* ---- the rest */

struct ops_curl *
ops_curl_new(ops_curl_done *done, void *owner)
{
	struct ops_curl *curl;

	if (!library_load())
		return NULL;
	curl = calloc(1, sizeof(*curl));
	if (curl == NULL)
		return NULL;
	curl->done = done;
	curl->owner = owner;
	curl->due_us = UINT64_MAX;
	for (size_t i = 0; i < OPS_CURL_FDS; i++)
		curl->fds[i].fd = -1;
	curl->multi = library.multi_init();
	if (curl->multi == NULL) {
		ops_curl_free(&curl);
		return NULL;
	}
	library.multi_setopt(curl->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	library.multi_setopt(curl->multi, CURLMOPT_SOCKETDATA, curl);
	library.multi_setopt(curl->multi, CURLMOPT_TIMERFUNCTION, on_timer);
	library.multi_setopt(curl->multi, CURLMOPT_TIMERDATA, curl);
	return curl;
}

void
ops_curl_free(struct ops_curl **curl)
{
	struct ops_curl *old = *curl;

	*curl = NULL;
	if (old == NULL)
		return;
	request_end(old);
	if (old->multi != NULL)
		library.multi_cleanup(old->multi);
	explicit_bzero(old->text, sizeof(old->text));
	free(old);
}

bool
ops_curl_is_busy(const struct ops_curl *curl)
{
	return curl->easy != NULL;
}

void
ops_curl_fds(const struct ops_curl *curl, struct pollfd fds[OPS_CURL_FDS])
{
	memcpy(fds, curl->fds, sizeof(curl->fds));
}

uint64_t
ops_curl_due_us(const struct ops_curl *curl)
{
	return curl->due_us;
}

const char *
ops_curl_version(void)
{
	if (!library_load())
		return "not found";
	return library.version_info(CURLVERSION_NOW)->version;
}
