/*
 * Host names to addresses without stopping the loop.
 *
 * getaddrinfo(3) blocks for as long as the name servers like, so it runs in a
 * short-lived thread.  The owner watches worker_resolve_fd() for POLLIN, calls
 * worker_resolve_finish() when it is readable, and reads the addresses.
 */
#ifndef WORKER_RESOLVE_H
#define WORKER_RESOLVE_H

#include "shm/shm_base.h"

#define WORKER_RESOLVE_ADDRESSES_MAX 16 /* of one name: more are not tried */

struct worker_resolve;

/* Begin to look up names[0..count), which are copied.  NULL with errno when
 * there is no memory, descriptor or thread. */
struct worker_resolve *
worker_resolve_start(const char *const *names, uint32_t count) SHM_MUSTCHECK;

/* Readable when the lookup has ended; closed by worker_resolve_free(). */
int worker_resolve_fd(const struct worker_resolve *resolve);

/* Once, when the descriptor is readable; from then on the rest may be asked. */
void worker_resolve_finish(struct worker_resolve *resolve);

/* The addresses of name i as numeric text, lent until free; 0 when the lookup
 * of that name failed. */
uint32_t worker_resolve_count(const struct worker_resolve *resolve, uint32_t i);
const char *worker_resolve_address(
    const struct worker_resolve *resolve, uint32_t i, uint32_t address);

/* Why a name has no address; static text. */
const char *worker_resolve_error(const struct worker_resolve *resolve);

/* Takes; NULL is fine.  A lookup that still runs goes on without an owner and
 * frees itself at its end. */
void worker_resolve_free(struct worker_resolve **resolve);

#endif
