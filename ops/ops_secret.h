/*
 * Fetches the database's user and password from AWS Secrets Manager, and
 * publishes them for all processes of the task (shm_secret.h).
 *
 * Like ops_listen.h: the caller polls ops_secret_fds(), calls ops_secret_run()
 * after that, and ops_secret_tick() when ops_secret_due_us() has come.
 */
#ifndef OPS_SECRET_H
#define OPS_SECRET_H

#include <poll.h>

#include "ops/ops.h"
#include "ops/ops_curl.h"

#define OPS_SECRET_FDS (1 + OPS_CURL_FDS)

struct ops_secret;

/* Borrows options; without a secret in them nothing is ever due.  NULL without
 * memory. */
struct ops_secret *
ops_secret_new(const struct ops_options *options) SHM_MUSTCHECK;
void ops_secret_free(struct ops_secret **secret); /* takes; NULL is fine */

void ops_secret_fds(
    const struct ops_secret *secret, struct pollfd fds[OPS_SECRET_FDS]);
/* fds as poll(2) has left them. */
void ops_secret_run(struct ops_secret *secret,
    const struct pollfd fds[OPS_SECRET_FDS], uint64_t now_us);

void ops_secret_tick(struct ops_secret *secret, uint64_t now_us);
uint64_t ops_secret_due_us(const struct ops_secret *secret);

/* Somebody asked for it: fetch soon (SIGHUP). */
void ops_secret_renew(struct ops_secret *secret, uint64_t now_us);

#endif
