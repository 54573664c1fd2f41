/*
 * Orders from ops: the socket pair of shm_command.h, the master's side.
 */
#ifndef MASTER_ORDERS_H
#define MASTER_ORDERS_H

#include "shm/shm_command.h"

/* Taken in one turn; more wait for the next. */
#define MASTER_ORDERS_MAX 16

/*
 * Make the pair, both ends close-on-exec: *ours sends SIGIO to this process
 * when an order has come, *theirs is for ops.  The master, when its pid is the
 * one that stays.  -1 with errno.
 */
int master_orders_open(int *ours, int *theirs) SHM_MUSTCHECK;
void master_orders_close(int *ours, int *theirs);

/* The next order that may be obeyed; false: none is there.  What is no order
 * is dropped, and said in the log.  Never blocks. */
bool master_orders_next(int ours, struct shm_command *command) SHM_MUSTCHECK;

#endif
