/*
 * What worker_conn.c and worker_conn_send.c share and nobody else sees.
 */
#ifndef WORKER_CONN_PART_H
#define WORKER_CONN_PART_H

#include "worker/worker_conn.h"

/* ---- worker_conn.c */
void conn_deadline(struct worker_conn *conn, uint64_t after_ms);
void conn_deadline_none(struct worker_conn *conn);
/* Give the connection up at once. */
void conn_drop(struct worker_conn *conn);
/* The last answer has left: end our side, let the client's come. */
void conn_linger(struct worker_conn *conn);

/* ---- worker_conn_send.c */
/* What a connection waits for when no send is under way. */
void conn_deadline_of_state(struct worker_conn *conn);
/* Send what was written, unless a send is under way. */
void conn_flush(struct worker_conn *conn);
void conn_flight_free(struct worker_conn *conn);
/* How much may wait behind a flight before no further request is started. */
size_t conn_out_high(const struct worker_loop *loop);
bool conn_waits_for_send(const struct worker_conn *conn);
/* The time for a look has come: has the client stopped reading? */
bool conn_send_is_stalled(struct worker_conn *conn);
/*
 * The engine's own answer to something that is no request, or too much of one:
 * it is the last thing said.
 */
void conn_refuse(struct worker_conn *conn, uint16_t status, const char *detail);

#endif
