/*
 * The user and the password of the database, for the processes of one task.
 *
 * ops fetches them and is the only writer; whoever connects to the database
 * reads them, and says when the server has refused them.  The text is a piece
 * of a libpq connection string: what stands in it wins over the setting
 * database.
 *
 * The memory has no name and no descriptor.  It is left out of core dumps,
 * and never swapped out where that is allowed.
 */
#ifndef SHM_SECRET_H
#define SHM_SECRET_H

#include "shm/shm_base.h"

#define SHM_SECRET_BYTES_MAX 4096 /* with the 0: longer ones are refused */

struct shm_secret;

/* The master, before the first fork; tests.  NULL with errno. */
struct shm_secret *shm_secret_new(void) SHM_MUSTCHECK;
void shm_secret_free(struct shm_secret **secret); /* takes; NULL is fine */

/* Keep it out of swap, for as long as this process lives (the master).  False
 * with errno: it may be swapped out, and everything else works. */
bool shm_secret_lock(struct shm_secret *secret) SHM_MUSTCHECK;

/*
 * Publish a text, when it is another than the last one.  ops only.  False: it
 * is too long.  Whoever dies in here leaves the last one in force.
 */
bool shm_secret_put(struct shm_secret *secret, const char *text) SHM_MUSTCHECK;

/* Copy the text; its version, 0: there is none yet and text is "".  The caller
 * wipes text. */
uint64_t shm_secret_get(
    const struct shm_secret *secret, char text[SHM_SECRET_BYTES_MAX]);
/* The version alone, for a look whether it has changed. */
uint64_t shm_secret_version(const struct shm_secret *secret);

/* The server refused what version says.  Any process, any number of times:
 * ops is woken once, and an older version than the present one is no news. */
void shm_secret_refuse(struct shm_secret *secret, uint64_t version);
/* How often that was news.  ops fetches again when this has grown. */
uint64_t shm_secret_refusals(const struct shm_secret *secret);

/* ops polls it for POLLIN and calls _woken(). */
int shm_secret_wake_fd(const struct shm_secret *secret);
void shm_secret_woken(const struct shm_secret *secret);

#endif
