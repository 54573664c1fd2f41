/*
 * The master's life after the start: children and signals.
 */
#ifndef MASTER_SUPERVISE_H
#define MASTER_SUPERVISE_H

#include "master/master_child.h"

/*
 * Block the signals that the master waits for.  Before the first fork, and as
 * early as a signal should mean an orderly end.
 */
int master_supervise_block_signals(void) SHM_MUSTCHECK;

/*
 * Keep workers alive until a signal ends the service or the start turns out to
 * be hopeless.  Returns the exit code, with no child left.
 */
int master_supervise(struct master_heritage *heritage,
    struct master_listen *listen) SHM_MUSTCHECK;

#endif
