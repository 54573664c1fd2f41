/*
 * The database's secret in memory that the processes of a task share.
 *
 * LAYOUT
 *	version | refusals | wake_fd | slot 0: words | slot 1: words
 *
 * WHO MAY WRITE
 *	version, slots	ops, of which there is one at a time
 *	refusals	anybody adds to it
 *	wake_fd		the master, before the first fork
 *
 * INVARIANTS
 *   I1  the text in force is in slot version % 2, ended by a 0 within it
 *   I2  ops writes to the other slot only
 *   I3  version only grows, by one
 *
 * MEMORY ORDER
 *	W1  words of the slot of version + 1, plain
 *	W2  version, release			pairs with R1
 *	R1  version, acquire
 *	R2  words of its slot, plain, then an acquire fence
 *	R3  version once more: the same, and I2 says that nobody wrote there
 *	F1  a writer's fence between W2 and the next W1: a reader that sees a
 *	    word of version + 2 sees version + 1 or later in R3
 *
 * A WRITER DIES INSIDE: version was not moved, so nobody looks at what it has
 * written, and the next ops writes there again.
 *
 * LIMITS: SHM_SECRET_BYTES_MAX; a reader that meets a change reads again, and
 * ops makes one a second at most.
 */
#include "config.h"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <errno.h>
#include <string.h>

#include "shm/shm_map.h"
#include "shm/shm_secret.h"

#define SECRET_MAGIC 0x626f6f6b73736563ULL /* "bookssec" */

struct secret_slot {
	_Atomic uint64_t words[SHM_SECRET_BYTES_MAX / sizeof(uint64_t)];
};

struct shm_secret {
	uint64_t magic;
	int wake_fd;
	_Atomic uint64_t version;
	_Atomic uint64_t refusals;
	struct secret_slot slot[2];
};

_Static_assert(sizeof(((struct secret_slot *)0)->words) == SHM_SECRET_BYTES_MAX,
    "whole words");

struct shm_secret *
shm_secret_new(void)
{
	struct shm_secret *secret = mmap(NULL, sizeof(*secret),
	    PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int saved;

	if (secret == MAP_FAILED)
		return NULL;
	if (madvise(secret, sizeof(*secret), MADV_DONTDUMP) == -1)
		goto unmap;
	secret->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (secret->wake_fd == -1)
		goto unmap;
	secret->magic = SECRET_MAGIC;
	return secret;
unmap:
	saved = errno;
	munmap(secret, sizeof(*secret));
	errno = saved;
	return NULL;
}

void
shm_secret_free(struct shm_secret **secret)
{
	struct shm_secret *old = *secret;

	*secret = NULL;
	if (old == NULL)
		return;
	close(old->wake_fd);
	munmap(old, sizeof(*old));
}

bool
shm_secret_lock(struct shm_secret *secret)
{
	return mlock(secret, sizeof(*secret)) == 0;
}

uint64_t
shm_secret_version(const struct shm_secret *secret)
{
	return atomic_load_explicit(
	    &secret->version, memory_order_acquire); /* R1 */
}

uint64_t
shm_secret_get(const struct shm_secret *secret, char text[SHM_SECRET_BYTES_MAX])
{
	uint64_t version, again = shm_secret_version(secret);

	SHM_ASSERT(secret->magic == SECRET_MAGIC);
	do {
		version = again;
		shm_map_read(text, secret->slot[version % 2].words, 0,
		    SHM_SECRET_BYTES_MAX); /* R2 */
		shm_map_fence(memory_order_acquire);
		again = shm_secret_version(secret); /* R3 */
	} while (again != version);
	text[SHM_SECRET_BYTES_MAX - 1] = '\0'; /* whoever wrote there */
	if (version == 0)
		text[0] = '\0';
	return version;
}

bool
shm_secret_put(struct shm_secret *secret, const char *text)
{
	char copy[SHM_SECRET_BYTES_MAX];
	uint64_t version = shm_secret_get(secret, copy);
	bool is_same = version > 0 && strcmp(copy, text) == 0;

	explicit_bzero(copy, sizeof(copy));
	if (strlen(text) >= SHM_SECRET_BYTES_MAX)
		return false;
	if (is_same)
		return true;
	shm_map_fence(memory_order_seq_cst); /* F1 */
	shm_map_write(secret->slot[(version + 1) % 2].words, 0, text,
	    strlen(text) + 1); /* W1 */
	atomic_store_explicit(
	    &secret->version, version + 1, memory_order_release); /* W2 */
	return true;
}

void
shm_secret_refuse(struct shm_secret *secret, uint64_t version)
{
	static const uint64_t one = 1;

	if (version != shm_secret_version(secret))
		return;
	atomic_fetch_add(&secret->refusals, 1);
	/* A full counter wakes as well. */
	(void)!write(secret->wake_fd, &one, sizeof(one));
}

uint64_t
shm_secret_refusals(const struct shm_secret *secret)
{
	return atomic_load(&secret->refusals);
}

int
shm_secret_wake_fd(const struct shm_secret *secret)
{
	return secret->wake_fd;
}

void
shm_secret_woken(const struct shm_secret *secret)
{
	uint64_t count;

	(void)!read(secret->wake_fd, &count, sizeof(count));
}
