/*
 * LAYOUT: an anonymous file (memfd) in one MAP_SHARED mapping, on a border of
 * 2 MiB so that the kernel can use huge pages; its users divide it.
 *
 * WHO MAY WRITE: shm_map_write() and shm_map_move() are for bytes with a single
 * writer, whose readers validate what they read by another word.
 *
 * MEMORY ORDER: all copies are relaxed (R0, W0), in both directions.  What
 * makes them visible, or proves that they were not overwritten meanwhile, is
 * the business of the caller's words.
 *
 * To the C language a plain memcpy() from memory that another process writes
 * is a data race.  The portable copies are therefore made of relaxed atomic
 * 64-bit words.  On x86-64, where every load is at least as strong, the
 * library's memcpy() is called between two compiler barriers: the compiler
 * can neither read the source again later nor use it before, which is all that
 * "relaxed" promises.  Under ThreadSanitizer, which would report the race, and
 * on other processors the portable copies are used.
 *
 * A WRITER DIES INSIDE: half a copy; nobody has been told of it.
 *
 * LIMITS: a mapping is never resized: its size is sealed.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/shm_map.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

#define MAP_HUGE_BYTES (2u << 20)

/* On a border of a huge page: reserve more, map over a part, give back the
 * rest. */
static void *
map_aligned(int fd, uint64_t bytes)
{
	uint64_t room = bytes + MAP_HUGE_BYTES;
	char *start, *at;

	start = mmap(NULL, room, PROT_NONE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (start == MAP_FAILED)
		return NULL;
	at = start + (-(uintptr_t)start & (MAP_HUGE_BYTES - 1));
	/* What it returns is `at`. */
	/* cppcheck-suppress leakReturnValNotUsed */
	if (mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
		0) == MAP_FAILED) {
		int saved = errno;

		munmap(start, room);
		errno = saved;
		return NULL;
	}
	bytes = (bytes + 4095) & ~(uint64_t)4095;
	if (at > start)
		munmap(start, (size_t)(at - start));
	if (at + bytes < start + room)
		munmap(at + bytes, (size_t)(start + room - (at + bytes)));
	return at;
}

/*
 * Make it of huge pages, whatever the machine's setting for them in shared
 * memory (which is "never" nearly everywhere): a page in each first, for the
 * kernel collapses only what it finds.  Fewer faults in every process that
 * maps it, and half of a read's time, which were misses of the TLB.  Where it
 * cannot be (Linux before 6.1, no memory in one piece) nothing is lost.
 */
static void
map_collapse(int fd, void *start, uint64_t bytes)
{
	uint64_t whole = bytes - bytes % MAP_HUGE_BYTES;

	for (uint64_t at = 0; at < whole; at += MAP_HUGE_BYTES)
		if (fallocate(fd, 0, (off_t)at, 1) == -1)
			return;
	if (whole > 0)
		(void)madvise(start, whole, MADV_COLLAPSE);
}

void *
shm_map_new(uint64_t bytes, int *fd)
{
	void *start;
	int saved, made;

	made = memfd_create("booksd-cache", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (made == -1)
		return NULL;
	if (ftruncate(made, (off_t)bytes) == -1)
		goto close_fd;
	start = map_aligned(made, bytes);
	if (start == NULL)
		goto close_fd;
	map_collapse(made, start, bytes);
	/* All pages now: what is missing is ENOMEM here, and would be a SIGBUS
	 * later.  Three times as fast as to write to each by the mapping. */
	if (fallocate(made, 0, 0, (off_t)bytes) == -1)
		goto unmap;
	if (fcntl(made, F_ADD_SEALS,
		F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == -1)
		goto unmap;
	*fd = made;
	return start;
unmap:
	saved = errno;
	munmap(start, bytes);
	errno = saved;
close_fd:
	saved = errno;
	close(made);
	errno = saved;
	return NULL;
}

uint64_t
shm_map_fd_bytes(int fd)
{
	struct stat status;

	if (fstat(fd, &status) == -1)
		return 0;
	if (!S_ISREG(status.st_mode) || status.st_size <= 0) {
		errno = EPROTO;
		return 0;
	}
	return (uint64_t)status.st_size;
}

void *
shm_map_fd(int fd, uint64_t bytes)
{
	int seals = fcntl(fd, F_GET_SEALS);

	/* A file that can shrink below us would be a SIGBUS to come. */
	if (seals == -1 || (seals & F_SEAL_SHRINK) == 0 ||
	    shm_map_fd_bytes(fd) != bytes) {
		errno = EPROTO;
		return NULL;
	}
	return map_aligned(fd, bytes);
}

void
shm_map_free(void *start, uint64_t bytes)
{
	munmap(start, bytes);
}

void
shm_map_populate(void *start, uint64_t bytes)
{
	/* The pages are there, and a shared mapping of such a file lets them
	 * be written by the same entries.  Where this cannot be done they are
	 * faulted in one by one. */
	(void)madvise(start, bytes, MADV_POPULATE_READ);
}

#ifndef SHM_MAP_IS_X86

static inline uint64_t
word_get(const _Atomic uint64_t *word)
{
	return atomic_load_explicit(word, memory_order_relaxed); /* R0 */
}

void
shm_map_read(
    void *out, const _Atomic uint64_t *words, uint64_t from, uint64_t len)
{
	char *to = out;
	uint64_t word, skip = from % 8;

	words += from / 8;
	while (len > 0) {
		uint64_t n = 8 - skip < len ? 8 - skip : len;

		word = word_get(words++);
		memcpy(to, (const char *)&word + skip, n);
		to += n;
		len -= n;
		skip = 0;
	}
}

void
shm_map_write(
    _Atomic uint64_t *words, uint64_t from, const void *in, uint64_t len)
{
	const char *data = in;
	uint64_t word, skip = from % 8;

	words += from / 8;
	while (len > 0) {
		uint64_t n = 8 - skip < len ? 8 - skip : len;

		word = n == 8 ? 0 : word_get(words);
		memcpy((char *)&word + skip, data, n);
		atomic_store_explicit(
		    words++, word, memory_order_relaxed); /* W0 */
		data += n;
		len -= n;
		skip = 0;
	}
}

void
shm_map_move(
    _Atomic uint64_t *to, const _Atomic uint64_t *from, uint64_t words_count)
{
	for (uint64_t i = 0; i < words_count; i++)
		atomic_store_explicit(
		    &to[i], word_get(&from[i]), memory_order_relaxed); /* W0 */
}

#endif
