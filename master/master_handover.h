/*
 * The sockets over which workers hand connections to each other.
 */
#ifndef MASTER_HANDOVER_H
#define MASTER_HANDOVER_H

#include "worker/worker.h"

/* A pair for each slot of our board.  They are made once and stay, so that
 * whoever is in a slot can be reached by all, older or younger. */
struct master_handover {
	int send_fd[SHM_BOARD_SLOTS];
	int receive_fd[SHM_BOARD_SLOTS];
};

/* Before the first fork.  -1 with errno. */
int master_handover_open(struct master_handover *handover) SHM_MUSTCHECK;
void master_handover_close(struct master_handover *handover);

/* In a worker: what it may use; the other ends are closed. */
void master_handover_take(const struct master_handover *handover, uint32_t slot,
    struct worker_options *options);
/* In another child: close all. */
void master_handover_forget(const struct master_handover *handover);

/* The worker of a slot has ended: what it was sent last and did not take goes
 * to another one.  to == from: nobody is there, it is closed. */
void master_handover_pass(
    const struct master_handover *handover, uint32_t from, uint32_t to);

#endif
