/*
 * HTTP over the control socket, spoken by libcurl.
 *
 * WHERE IT IS: -S, else BOOKS_CONTROL_SOCKET, which is the setting that booksd
 * reads as well and so may also say auto or off; for auto the two places that
 * booksd takes by itself.  The second of them is below /tmp, where anybody can
 * make a folder: one that is not ours is not believed.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#include <curl/curl.h>

#include "ctl/ctl_control.h"

#define ANSWER_BYTES_MAX (128u << 20) /* longer: EX_PROTOCOL */
#define PATH_BYTES_MAX	 sizeof(((struct sockaddr_un *)NULL)->sun_path)
#define ROOT_PATH	 "/run/booksd/control.sock"

struct transfer {
	CURL *curl;
	struct ctl_control_answer answer;
	size_t cap;
	bool is_too_long;
};

/* ---- the transfer */

static size_t
take_body(char *data, size_t size, size_t count, void *arg)
{
	struct transfer *transfer = arg;
	struct ctl_control_answer *answer = &transfer->answer;
	size_t len = size * count, cap = answer->len + len + 1;
	char *grown;

	if (cap > ANSWER_BYTES_MAX) {
		transfer->is_too_long = true;
		return 0;
	}
	if (cap > transfer->cap) {
		cap = cap < 4096 ? 4096 : 2 * cap;
		grown = realloc(answer->body, cap);
		if (grown == NULL)
			return 0;
		answer->body = grown;
		transfer->cap = cap;
	}
	memcpy(answer->body + answer->len, data, len);
	answer->len += len;
	answer->body[answer->len] = '\0';
	return len;
}

static long
timeout_s(const struct ctl_control_question *question)
{
	return question->timeout_s > 0 ? question->timeout_s
				       : CTL_CONTROL_TIMEOUT_S;
}

static bool
set_options(struct transfer *transfer, const char *path,
    const struct ctl_control_question *question, const char *url)
{
	CURL *curl = transfer->curl;
	bool ok = curl_easy_setopt(curl, CURLOPT_URL, url) == CURLE_OK;

#define SET(option, value) \
	ok = curl_easy_setopt(curl, (option), (value)) == CURLE_OK && ok
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_UNIX_SOCKET_PATH, path);
	SET(CURLOPT_WRITEFUNCTION, take_body);
	SET(CURLOPT_WRITEDATA, transfer);
	SET(CURLOPT_TIMEOUT, timeout_s(question));
	if (question->is_post) {
		SET(CURLOPT_POST, 1L);
		SET(CURLOPT_POSTFIELDS, "");
	}
#undef SET
	return ok;
}

static int
transfer_failed(const struct transfer *transfer,
    const struct ctl_control_question *question, CURLcode code)
{
	switch (code) {
	case CURLE_OPERATION_TIMEDOUT:
		ctl_say(
		    "booksd does not answer within %ld s", timeout_s(question));
		return EX_UNAVAILABLE;
	case CURLE_GOT_NOTHING:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
	case CURLE_PARTIAL_FILE:
		ctl_say("booksd went away before it had answered (%s)",
		    curl_easy_strerror(code));
		return EX_UNAVAILABLE;
	case CURLE_OUT_OF_MEMORY:
		break;
	case CURLE_WRITE_ERROR:
		if (!transfer->is_too_long)
			break;
		ctl_say(
		    "the answer is longer than %u MiB", ANSWER_BYTES_MAX >> 20);
		return EX_PROTOCOL;
	default:
		ctl_say("what answers at the control socket is not booksd (%s)",
		    curl_easy_strerror(code));
		return EX_PROTOCOL;
	}
	ctl_say("out of memory");
	return EX_OSERR;
}

/* error: why nobody could be reached at path, 0: somebody was.  That is not
 * said here, all else is. */
static int
transfer_run(struct transfer *transfer, const char *path,
    const struct ctl_control_question *question, int *error)
{
	CURLcode code = CURLE_OUT_OF_MEMORY;
	char *url = NULL;
	long os_error = 0;

	if (asprintf(&url, "http://booksd%s", question->target) == -1)
		url = NULL;
	if (url != NULL && set_options(transfer, path, question, url))
		code = curl_easy_perform(transfer->curl);
	free(url);
	if (code == CURLE_COULDNT_CONNECT)
		curl_easy_getinfo(transfer->curl, CURLINFO_OS_ERRNO, &os_error);
	*error = (int)os_error;
	if (os_error != 0)
		return EX_UNAVAILABLE;
	if (code != CURLE_OK)
		return transfer_failed(transfer, question, code);
	curl_easy_getinfo(
	    transfer->curl, CURLINFO_RESPONSE_CODE, &transfer->answer.status);
	return EX_OK;
}

static int
ask_at(const char *path, const struct ctl_control_question *question,
    struct ctl_control_answer *answer, int *error)
{
	struct transfer transfer = {.curl = NULL};
	int code;

	*error = 0;
	if (strlen(path) >= PATH_BYTES_MAX) {
		*error = ENAMETOOLONG;
		return EX_UNAVAILABLE;
	}
	transfer.curl = curl_easy_init();
	if (transfer.curl == NULL) {
		ctl_say("out of memory");
		return EX_OSERR;
	}
	code = transfer_run(&transfer, path, question, error);
	curl_easy_cleanup(transfer.curl);
	if (code != EX_OK)
		ctl_control_answer_fini(&transfer.answer);
	*answer = transfer.answer;
	return code;
}

/* ---- where to ask */

/* Why there is nobody at path, and the exit code for it. */
static int
nobody_at(const char *path, int error)
{
	switch (error) {
	case EACCES:
	case EPERM:
		ctl_say("%s: %s (only the user that booksd runs as may ask it)",
		    path, strerror(error));
		return EX_NOPERM;
	case EAGAIN:
		ctl_say("%s: booksd does not answer: its queue is full", path);
		break;
	case ENOENT:
		ctl_say("%s: there is no such socket: is booksd running, and"
			" does its setting control_socket say so?",
		    path);
		break;
	case ECONNREFUSED:
		ctl_say(
		    "%s: nobody listens: booksd does not run any more", path);
		break;
	default:
		ctl_say("%s: %s", path, strerror(error));
	}
	return EX_UNAVAILABLE;
}

static int
ask_given(const char *path, const struct ctl_control_question *question,
    struct ctl_control_answer *answer)
{
	int error, code = ask_at(path, question, answer, &error);

	return error != 0 ? nobody_at(path, error) : code;
}

/* Is the folder of path ours, if it is there at all? */
static bool
is_our_folder(const char *path)
{
	char folder[PATH_BYTES_MAX];
	struct stat status;

	snprintf(folder, sizeof(folder), "%s", path);
	*strrchr(folder, '/') = '\0';
	return lstat(folder, &status) == -1 ||
	       (S_ISDIR(status.st_mode) && status.st_uid == geteuid());
}

/* Is it no more than that no booksd has made this place its own? */
static bool
is_empty_place(int error)
{
	return error == ENOENT || error == ECONNREFUSED || error == ENOTDIR;
}

static int
ask_auto(const struct ctl_control_question *question,
    struct ctl_control_answer *answer)
{
	char ours[PATH_BYTES_MAX];
	int root_error, error, code;

	code = ask_at(ROOT_PATH, question, answer, &root_error);
	if (root_error == 0)
		return code;
	/* What we may not use can be another user's; ours is below. */
	if (root_error != EACCES && !is_empty_place(root_error))
		return nobody_at(ROOT_PATH, root_error);
	snprintf(ours, sizeof(ours), "/tmp/booksd-%ju/control.sock",
	    (uintmax_t)geteuid());
	if (!is_our_folder(ours)) {
		ctl_say("%s: its folder belongs to somebody else", ours);
		return EX_NOPERM;
	}
	code = ask_at(ours, question, answer, &error);
	if (error == 0)
		return code;
	if (!is_empty_place(error))
		return nobody_at(ours, error);
	if (root_error == EACCES)
		return nobody_at(ROOT_PATH, root_error);
	ctl_say("no booksd answers at %s or %s", ROOT_PATH, ours);
	ctl_say("is it running? when its setting control_socket names a path,"
		" give that with -S");
	return EX_UNAVAILABLE;
}

int
ctl_control_ask(const struct ctl_control_question *question,
    struct ctl_control_answer *answer)
{
	const char *path = question->path;

	if (path == NULL)
		path = getenv("BOOKS_CONTROL_SOCKET");
	else
		return ask_given(path, question, answer);
	if (path == NULL || *path == '\0' || strcmp(path, "auto") == 0)
		return ask_auto(question, answer);
	if (strcmp(path, "off") != 0)
		return ask_given(path, question, answer);
	ctl_say("BOOKS_CONTROL_SOCKET=off: booksd has no control socket");
	return EX_UNAVAILABLE;
}

void
ctl_control_answer_fini(struct ctl_control_answer *answer)
{
	free(answer->body);
	*answer = (struct ctl_control_answer){.body = NULL};
}

char *
ctl_control_escape(const char *text)
{
	char *escaped = curl_easy_escape(NULL, text, 0), *copy;

	if (escaped == NULL)
		return NULL;
	copy = strdup(escaped);
	curl_free(escaped);
	return copy;
}
