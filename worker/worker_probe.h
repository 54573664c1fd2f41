/*
 * Static probes (USDT) of the provider "booksd", for perf, bpftrace and
 * SystemTap.  Nobody listening, each costs the test of one word; built without
 * <sys/sdt.h>, nothing.
 *
 *	request__start	method, path, bytes of path, route
 *	request__done	method, route, status, microseconds
 *	cache__hit	key, bytes of key, enum worker_source
 *	cache__miss	key, bytes of key
 *	query__start	statement, number of the connection
 *	query__done	statement, enum api_db_outcome, microseconds
 *
 * method, route and statement are texts with a NUL at their end; path and key
 * are not.  books-tuning(7) has examples.
 */
#ifndef WORKER_PROBE_H
#define WORKER_PROBE_H

#include "shm/shm_base.h"

#define WORKER_PROBES                \
	WORKER_PROBE(request__start) \
	WORKER_PROBE(request__done)  \
	WORKER_PROBE(cache__hit)     \
	WORKER_PROBE(cache__miss)    \
	WORKER_PROBE(query__start)   \
	WORKER_PROBE(query__done)

extern const char *const worker_probe_names[];

#ifdef HAVE_SYS_SDT_H

/* The listener counts itself in there. */
#define WORKER_PROBE(name) extern volatile uint16_t booksd_##name##_semaphore;
WORKER_PROBES
#undef WORKER_PROBE

#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>

#define WORKER_PROBE_IS_ON(name) \
	__builtin_expect(booksd_##name##_semaphore != 0, 0)
#define WORKER_PROBE2(name, a, b)                          \
	do {                                               \
		if (WORKER_PROBE_IS_ON(name))              \
			DTRACE_PROBE2(booksd, name, a, b); \
	} while (0)
#define WORKER_PROBE3(name, a, b, c)                          \
	do {                                                  \
		if (WORKER_PROBE_IS_ON(name))                 \
			DTRACE_PROBE3(booksd, name, a, b, c); \
	} while (0)
#define WORKER_PROBE4(name, a, b, c, d)                          \
	do {                                                     \
		if (WORKER_PROBE_IS_ON(name))                    \
			DTRACE_PROBE4(booksd, name, a, b, c, d); \
	} while (0)

#else

/* The arguments are still compiled. */
#define WORKER_PROBE2(name, a, b)             \
	do {                                  \
		if (false) {                  \
			(void)(a), (void)(b); \
		}                             \
	} while (0)
#define WORKER_PROBE3(name, a, b, c)                     \
	do {                                             \
		if (false) {                             \
			(void)(a), (void)(b), (void)(c); \
		}                                        \
	} while (0)
#define WORKER_PROBE4(name, a, b, c, d)                             \
	do {                                                        \
		if (false) {                                        \
			(void)(a), (void)(b), (void)(c), (void)(d); \
		}                                                   \
	} while (0)

#endif

#endif
