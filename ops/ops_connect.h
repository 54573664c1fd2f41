/*
 * How ops connects to the database: parameters, back-off, words for failures.
 */
#ifndef OPS_CONNECT_H
#define OPS_CONNECT_H

#include <libpq-fe.h>

#include "shm/shm_base.h"

#define OPS_CONNECT_REASON_BYTES 160

/* Begin; PQconnectPoll() goes on.  What stands in secret, a piece of a
 * connection string, wins over conninfo.  The caller's to PQfinish().  NULL
 * without memory. */
PGconn *
ops_connect_start(const char *conninfo, const char *secret) SHM_MUSTCHECK;

/* After ops_connect_start() failed at once: NULL, a server is to blame and
 * PQerrorMessage() may be shown; else the reason to show instead. */
const char *ops_connect_refused(const PGconn *conn);

/* How long to wait after so many failures: half of it sure, half of it chance,
 * or all tasks come back at once. */
uint64_t ops_connect_backoff_us(uint32_t failures);

/* text on one line, without control bytes, as valid UTF-8: a message may come
 * in any encoding before the session has its own, and may be cut. */
void
ops_connect_reason(char reason[OPS_CONNECT_REASON_BYTES], const char *text);

uint64_t ops_connect_random(void);

#endif
