/*
 * A handler for the signals that end a worker.
 *
 * It runs on a stack of its own, because the worker's may be what is broken,
 * and calls nothing that could wait or allocate: the line is put together in
 * memory that was there before, and written once.  A second fault inside it
 * finds the default action and ends the process without a line.
 */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "api/api_date.h"
#include "api/api_route.h"
#include "worker/worker_crash.h"
#include "worker/worker_log_line.h"
#include "worker/worker_stack.h"

#define HANDLER_STACK_BYTES (64u << 10)
#define WRITE_WAIT_MS	    100 /* for a reader of the log that is behind */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED true /* its own report of a fault says more */
#else
#define IS_SANITIZED false
#endif

static const struct {
	int number;
	const char *name;
	bool is_fault; /* has an address */
} signals[] = {
    {SIGABRT, "SIGABRT", false},
    {SIGBUS, "SIGBUS", true},
    {SIGFPE, "SIGFPE", true},
    {SIGILL, "SIGILL", true},
    {SIGSEGV, "SIGSEGV", true},
};

static char handler_stack[HANDLER_STACK_BYTES];
static const struct shm_board_worker *block;
static uint32_t slot;
static bool is_json;
static struct worker_log_line line;

/* ---- the line */

static void
put_time(void)
{
	uint64_t now_us = shm_wallclock_us(), second = now_us / 1000000;
	struct api_date_civil date = api_date_civil((int64_t)(second / 86400));
	char text[32], *at = text;

	at = api_date_put_pair(at, (unsigned)(date.year / 100));
	at = api_date_put_pair(at, (unsigned)(date.year % 100));
	*at++ = '-';
	at = api_date_put_pair(at, date.month);
	*at++ = '-';
	at = api_date_put_pair(at, date.day);
	*at++ = 'T';
	at = api_date_put_pair(at, (unsigned)(second / 3600 % 24));
	*at++ = ':';
	at = api_date_put_pair(at, (unsigned)(second / 60 % 60));
	*at++ = ':';
	at = api_date_put_pair(at, (unsigned)(second % 60));
	*at++ = '.';
	for (uint32_t unit = 10000; unit > 0; unit /= 100)
		at = api_date_put_pair(at, (unsigned)(now_us / unit % 100));
	*at++ = 'Z';
	worker_log_line_bytes(&line, text, (size_t)(at - text));
}

static void
put(const char *text)
{
	worker_log_line_bytes(&line, text, strlen(text));
}

/* The name of a field, and of its value all that stands before it. */
static void
put_name(const char *name)
{
	put(is_json ? ",\"" : " ");
	put(name);
	put(is_json ? "\":" : "=");
}

static void
put_text(const char *name, const char *value)
{
	put_name(name);
	put("\"");
	put(value);
	put("\"");
}

static void
put_hex(uint64_t value)
{
	char text[18], *at = text + sizeof(text);

	do {
		*--at = "0123456789abcdef"[value & 15];
		value >>= 4;
	} while (value > 0);
	*--at = 'x';
	*--at = '0';
	worker_log_line_bytes(&line, at, (size_t)(text + sizeof(text) - at));
}

static void
put_stack(const void *context)
{
	uint64_t pc[WORKER_STACK_DEPTH], offset;
	uint32_t depth = worker_stack_walk(
	    context, WORKER_STACK_CAREFUL, pc, WORKER_STACK_DEPTH);

	put_name("stack");
	put("\"");
	for (uint32_t i = 0; i < depth; i++) {
		if (i > 0)
			put(" ");
		put(worker_stack_place(pc[i], &offset));
		put("+");
		put_hex(offset);
	}
	put("\"");
}

static void
put_doing(void)
{
	static const char *const words[] = {"waiting", "working", "request"};
	uint32_t doing = shm_board_get(block->doing);
	uint32_t route = shm_board_get(block->route);

	if (doing >= SHM_ARRAY_LEN(words))
		return;
	put_text("doing", words[doing]);
	if (doing == SHM_BOARD_REQUEST)
		put_text("route", route < API_ROUTE_COUNT
				      ? api_route_table[route].path
				      : "none");
}

static void
put_begin(void)
{
	const char *message = "a signal ends this worker, which was here";

	put(is_json ? "{\"time\":\"" : "");
	put_time();
	if (is_json) {
		put("\"");
		put_text("level", "error");
		put_text("event", "worker_stack");
		put_text("message", message);
	} else {
		put(" error worker_stack: ");
		put(message);
	}
	put_text("process", "worker");
	put_name("worker");
	worker_log_line_u64(&line, slot);
	put_name("pid");
	worker_log_line_u64(&line, (uint64_t)getpid());
}

/* ---- the handler */

static void
line_write(int fd)
{
	struct pollfd room = {.fd = fd, .events = POLLOUT};
	ssize_t done = write(fd, line.data, line.len);

	if (done == -1 && errno == EAGAIN && poll(&room, 1, WRITE_WAIT_MS) == 1)
		done = write(fd, line.data, line.len);
	(void)done;
}

static void
on_signal(int number, siginfo_t *info, void *context)
{
	int fd = worker_log_error_fd();

	worker_log_line_begin(&line, WORKER_LOG_LINE_MAX);
	put_begin();
	for (size_t i = 0; i < SHM_ARRAY_LEN(signals); i++) {
		if (signals[i].number != number)
			continue;
		put_text("signal", signals[i].name);
		if (signals[i].is_fault && info->si_code > 0) {
			put_name("address");
			put("\"");
			put_hex((uint64_t)(uintptr_t)info->si_addr);
			put("\"");
		}
	}
	put_doing();
	put_stack(context);
	put(is_json ? "}" : "");
	if (worker_log_line_end(&line) && fd != -1)
		line_write(fd);
	/* The default action is back (SA_RESETHAND) and comes with the return
	 * from here, so that a core file shows the place. */
	raise(number);
}

void
worker_crash_open(const struct shm_board_worker *reports, uint32_t number)
{
	struct sigaction action = {.sa_sigaction = on_signal,
	    .sa_flags = SA_SIGINFO | SA_ONSTACK | (int)SA_RESETHAND};
	stack_t stack = {
	    .ss_sp = handler_stack, .ss_size = sizeof(handler_stack)};

	block = reports;
	slot = number;
	is_json = worker_log_is_json();
	worker_stack_open();
	if (sigaltstack(&stack, NULL) == -1)
		action.sa_flags &= ~SA_ONSTACK;
	sigfillset(&action.sa_mask);
	for (size_t i = 0; i < SHM_ARRAY_LEN(signals); i++)
		if (!IS_SANITIZED || signals[i].number == SIGABRT)
			sigaction(signals[i].number, &action, NULL);
}
