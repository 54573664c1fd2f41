/*
 * Memory that processes share through a file descriptor: making it, mapping
 * it, and copying bytes out of it and into it while others look.
 */
#ifndef SHM_MAP_H
#define SHM_MAP_H

#include <stdatomic.h>
#include <string.h>

#include "shm/shm_base.h"

/*
 * A sealed memfd of bytes, close-on-exec, every page of it present.  Returns
 * its start and sets *fd, or NULL with errno: ENOMEM when memory is short
 * (never SIGBUS).  Master before the first fork; tests.
 */
void *shm_map_new(uint64_t bytes, int *fd) SHM_MUSTCHECK;

/* Map all of fd, which must be bytes long: else NULL with EPROTO. */
void *shm_map_fd(int fd, uint64_t bytes) SHM_MUSTCHECK;

/* Length of what fd holds; 0 with errno: it cannot be told. */
uint64_t shm_map_fd_bytes(int fd) SHM_MUSTCHECK;

void shm_map_free(void *start, uint64_t bytes);

/* Fill this process's page tables, so that no first touch costs a fault. */
void shm_map_populate(void *start, uint64_t bytes);

/* Fences, one for each direction of a copy that is validated by a word.
 * (ThreadSanitizer does not model them, and all it would miss is that.) */
static inline void
shm_map_fence(memory_order order)
{
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpragmas"
#pragma GCC diagnostic ignored "-Wtsan"
#endif
	atomic_thread_fence(order);
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
}

/* Processors on which plain loads and stores are as good as relaxed ones, and
 * compilers that can be kept from noticing: see shm_map.c. */
#if defined(__SANITIZE_THREAD__)
#define SHM_MAP_IS_PORTABLE
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SHM_MAP_IS_PORTABLE
#endif
#endif
#if defined(__x86_64__) && !defined(SHM_MAP_IS_PORTABLE)
#define SHM_MAP_IS_X86
#endif

/*
 * _read(): copy len bytes that begin at byte from of words[] to out.  Others
 * may be writing there: what comes out is rubbish then, and the caller must
 * find that out afterwards.
 *
 * _write(): copy in to words[], beginning at byte from.  The caller is the only
 * writer; others may be reading, and will find out that they read rubbish.
 *
 * _move(): from one place of shared memory to another.
 */
#ifdef SHM_MAP_IS_X86

/* The compiler may assume nothing about memory across it. */
static inline void
shm_map_barrier(void)
{
	__asm__ volatile("" ::: "memory");
}

static inline void
shm_map_read(
    void *out, const _Atomic uint64_t *words, uint64_t from, uint64_t len)
{
	if (len == 0)
		return; /* out may be NULL, which memcpy() may not be given */
	shm_map_barrier();
	memcpy(out, (const char *)words + from, len); /* R0 */
	shm_map_barrier();
}

static inline void
shm_map_write(
    _Atomic uint64_t *words, uint64_t from, const void *in, uint64_t len)
{
	if (len == 0)
		return;
	shm_map_barrier();
	memcpy((char *)words + from, in, len); /* W0 */
	shm_map_barrier();
}

static inline void
shm_map_move(
    _Atomic uint64_t *to, const _Atomic uint64_t *from, uint64_t words_count)
{
	shm_map_barrier();
	memcpy((char *)to, (const char *)from, words_count * 8); /* W0, R0 */
	shm_map_barrier();
}

#else

void shm_map_read(
    void *out, const _Atomic uint64_t *words, uint64_t from, uint64_t len);
void shm_map_write(
    _Atomic uint64_t *words, uint64_t from, const void *in, uint64_t len);
void shm_map_move(
    _Atomic uint64_t *to, const _Atomic uint64_t *from, uint64_t words_count);

#endif

#endif
