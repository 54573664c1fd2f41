/*
 * Where the database is and how to connect to it: the setting `database`,
 * a libpq connection string or URI, merged with libpq's own variables and
 * files and with what booksd wants unless told otherwise.
 *
 * Any process.  Nothing here waits for the network: names are looked up by
 * worker_resolve, and the connection that worker_conninfo_start() returns is
 * carried on with PQconnectPoll().
 */
#ifndef WORKER_CONNINFO_H
#define WORKER_CONNINFO_H

#include <libpq-fe.h>

#include "shm/shm_base.h"
#include "worker/worker_resolve.h"

#define WORKER_CONNINFO_HOSTS_MAX 32 /* more: a configuration error */

struct worker_conninfo;

/* Copies text and more; what stands in more, another string, wins over text
 * (NULL: nothing does).  NULL with *why (allocated, the caller frees; no secret
 * in it) when it is not valid. */
struct worker_conninfo *worker_conninfo_new(
    const char *text, const char *more, char **why) SHM_MUSTCHECK;
void worker_conninfo_free(struct worker_conninfo **info);

/* The host names that must be looked up, in the order that worker_resolve
 * wants them; *names is lent.  Addresses and sockets are not among them. */
uint32_t worker_conninfo_names(
    const struct worker_conninfo *info, const char *const **names);

/* How many addresses there are to try; 0: nothing was found. */
uint32_t worker_conninfo_targets(
    const struct worker_conninfo *info, const struct worker_resolve *resolve);

/*
 * Begin to connect, trying target number `first` first.  resolve holds what
 * was found for worker_conninfo_names(); NULL leaves the looking up to libpq,
 * which blocks.  Errors of this connection are read by SQLSTATE.  NULL without
 * memory; otherwise the caller's to PQfinish(), also when it has failed.
 */
PGconn *worker_conninfo_start(const struct worker_conninfo *info,
    const struct worker_resolve *resolve, uint32_t first) SHM_MUSTCHECK;

/* Why a connection failed, from PQerrorMessage(): one short line, and the
 * SQLSTATE ("" when the server did not say one). */
struct worker_conninfo_failure {
	char sqlstate[6];
	char reason[120];
};

void worker_conninfo_failure(
    const char *message, struct worker_conninfo_failure *failure);

/* A sentence for an SQLSTATE that ends connections, or NULL. */
const char *worker_conninfo_sqlstate(const char *sqlstate);

#endif
