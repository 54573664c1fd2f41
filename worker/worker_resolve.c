/*
 * One lookup, one thread, one eventfd.
 *
 * WHO OWNS IT
 *   The thread alone touches names[] until it has written the eventfd; the
 *   owner touches it after worker_resolve_finish(), which joins the thread and
 *   so orders everything the thread wrote before everything the owner reads.
 *
 * INVARIANTS
 *   I1  whoever moves state away from RUNNING second frees: the thread finds
 *       ABANDONED and frees, or the owner finds ENDED and frees.
 *   I2  the eventfd is written before the state becomes ENDED, so the owner
 *       cannot close it under the thread.
 *
 * getaddrinfo cannot be interrupted.  An owner that has lost patience leaves
 * the thread behind; that there is at most one is the owner's rule.
 */
#include "config.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/worker_resolve.h"

#define RESOLVE_ADDRESS_SIZE 64		   /* IPv6 with a scope's name */
#define RESOLVE_STACK_BYTES  (1024 * 1024) /* NSS modules like the stack */

enum resolve_state {
	RESOLVE_RUNNING = 0,
	RESOLVE_ENDED,
	RESOLVE_ABANDONED,
};

struct resolve_name {
	char *name;
	uint32_t count;
	int error; /* of getaddrinfo */
	char address[WORKER_RESOLVE_ADDRESSES_MAX][RESOLVE_ADDRESS_SIZE];
};

struct worker_resolve {
	_Atomic int state; /* enum resolve_state */
	int fd;
	bool is_joined;
	pthread_t thread;
	uint32_t count;
	struct resolve_name names[];
};

static void
resolve_destroy(struct worker_resolve *resolve)
{
	for (uint32_t i = 0; i < resolve->count; i++)
		free(resolve->names[i].name);
	if (resolve->fd != -1)
		close(resolve->fd);
	free(resolve);
}

static void
resolve_add(struct resolve_name *name, const struct addrinfo *info)
{
	char *text = name->address[name->count];

	if (info->ai_family != AF_INET && info->ai_family != AF_INET6)
		return;
	if (getnameinfo(info->ai_addr, info->ai_addrlen, text,
		RESOLVE_ADDRESS_SIZE, NULL, 0, NI_NUMERICHOST) == 0)
		name->count++;
}

static void
resolve_name_blocking(struct resolve_name *name)
{
	struct addrinfo hints = {
	    .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;

	name->error = getaddrinfo(name->name, NULL, &hints, &list);
	if (name->error != 0)
		return;
	for (struct addrinfo *info = list;
	     info != NULL && name->count < WORKER_RESOLVE_ADDRESSES_MAX;
	     info = info->ai_next)
		resolve_add(name, info);
	freeaddrinfo(list);
}

static void *
resolve_run(void *arg)
{
	struct worker_resolve *resolve = arg;
	uint64_t one = 1;
	ssize_t written;

	for (uint32_t i = 0; i < resolve->count; i++)
		resolve_name_blocking(&resolve->names[i]);
	written = write(resolve->fd, &one, sizeof(one));
	SHM_ASSERT(written == sizeof(one)); /* a counter of 1 always fits */
	if (atomic_exchange(&resolve->state, RESOLVE_ENDED) ==
	    RESOLVE_ABANDONED)
		resolve_destroy(resolve);
	return NULL;
}

/* The thread takes no signals: they are the loop's, by signalfd. */
static int
resolve_thread(struct worker_resolve *resolve)
{
	pthread_attr_t attr;
	sigset_t all, before;
	int error;

	error = pthread_attr_init(&attr);
	if (error != 0)
		return error;
	(void)pthread_attr_setstacksize(&attr, RESOLVE_STACK_BYTES);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&resolve->thread, &attr, resolve_run, resolve);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return error;
}

struct worker_resolve *
worker_resolve_start(const char *const *names, uint32_t count)
{
	struct worker_resolve *resolve;
	int error = ENOMEM;

	SHM_ASSERT(count > 0);
	resolve =
	    calloc(1, sizeof(*resolve) + count * sizeof(resolve->names[0]));
	if (resolve == NULL)
		return NULL;
	resolve->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (resolve->fd == -1) {
		error = errno;
		goto destroy;
	}
	for (; resolve->count < count; resolve->count++) {
		char *name = strdup(names[resolve->count]);

		if (name == NULL)
			goto destroy;
		resolve->names[resolve->count].name = name;
	}
	error = resolve_thread(resolve);
	if (error != 0)
		goto destroy;
	return resolve;
destroy:
	resolve_destroy(resolve);
	errno = error;
	return NULL;
}

int
worker_resolve_fd(const struct worker_resolve *resolve)
{
	return resolve->fd;
}

void
worker_resolve_finish(struct worker_resolve *resolve)
{
	int error;

	SHM_ASSERT(!resolve->is_joined);
	error = pthread_join(resolve->thread, NULL);
	SHM_ASSERT(error == 0);
	resolve->is_joined = true;
}

uint32_t
worker_resolve_count(const struct worker_resolve *resolve, uint32_t i)
{
	SHM_ASSERT(resolve->is_joined && i < resolve->count);
	return resolve->names[i].count;
}

const char *
worker_resolve_address(
    const struct worker_resolve *resolve, uint32_t i, uint32_t address)
{
	SHM_ASSERT(address < worker_resolve_count(resolve, i));
	return resolve->names[i].address[address];
}

const char *
worker_resolve_error(const struct worker_resolve *resolve)
{
	SHM_ASSERT(resolve->is_joined);
	for (uint32_t i = 0; i < resolve->count; i++)
		if (resolve->names[i].error != 0)
			return gai_strerror(resolve->names[i].error);
	return "No address";
}

void
worker_resolve_free(struct worker_resolve **resolve)
{
	struct worker_resolve *old = *resolve;
	pthread_t thread;

	if (old == NULL)
		return;
	*resolve = NULL;
	thread = old->thread; /* old may be gone after the exchange */
	if (!old->is_joined && atomic_exchange(&old->state,
				   RESOLVE_ABANDONED) == RESOLVE_RUNNING) {
		pthread_detach(thread);
		return;
	}
	if (!old->is_joined)
		pthread_join(thread, NULL);
	resolve_destroy(old);
}
