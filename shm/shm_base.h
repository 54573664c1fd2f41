/*
 * Base macros that every room may use: assertions that stay on in production,
 * results that may not be ignored, and the two clocks.
 */
#ifndef SHM_BASE_H
#define SHM_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHM_MUSTCHECK	      __attribute__((warn_unused_result))
#define SHM_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define SHM_NORETURN	      __attribute__((noreturn))
#define SHM_ARRAY_LEN(a)      (sizeof(a) / sizeof((a)[0]))
#define SHM_CACHE_LINE	      64

/*
 * A broken assertion is a bug in booksd.  The process says where on standard
 * error, dies by SIGABRT, and the master replaces it.
 */
#define SHM_ASSERT(cond)                                          \
	do {                                                      \
		if (__builtin_expect(!(cond), 0))                 \
			shm_assert_failed(                        \
			    #cond, __FILE__, __LINE__, __func__); \
	} while (0)

void shm_assert_failed(const char *cond, const char *file, int line,
    const char *func) SHM_NORETURN;

/* CLOCK_MONOTONIC in microseconds: the same zero for all processes. */
uint64_t shm_clock_us(void);

/* CLOCK_REALTIME in microseconds since 1970-01-01 UTC. */
uint64_t shm_wallclock_us(void);

#endif
