/*
 * The last words of a worker: what a signal that ends it has interrupted.
 */
#ifndef WORKER_CRASH_H
#define WORKER_CRASH_H

#include "shm/shm_board.h"

/*
 * From now on SIGABRT, SIGBUS, SIGFPE, SIGILL and SIGSEGV write one event
 * "worker_stack" to the error log, with the stack, and then do what they do by
 * default.  block says what the worker is doing.
 */
void worker_crash_open(const struct shm_board_worker *block, uint32_t slot);

#endif
