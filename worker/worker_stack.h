/*
 * Where this process is: the return addresses on its stack, by frame pointers.
 *
 * Everything but open may be called from a signal handler.  Libraries are
 * built without frame pointers as a rule: of a walk that begins in one, its
 * functions but the innermost are left out, and the one of ours that called it
 * is a guess, if a good one.
 */
#ifndef WORKER_STACK_H
#define WORKER_STACK_H

#include "shm/shm_base.h"

#define WORKER_STACK_DEPTH 40

enum worker_stack_care {
	WORKER_STACK_QUICK =
	    0,		      /* the main thread's own stack, no system call */
	WORKER_STACK_CAREFUL, /* anything: memory may be broken */
};

/* Once, in the main thread: what is mapped where. */
void worker_stack_open(void);

/*
 * The addresses of the stack that a signal has interrupted, the innermost
 * first, at most max; returns how many.  context is the handler's third
 * argument.
 */
uint32_t worker_stack_walk(const void *context, enum worker_stack_care care,
    uint64_t *pc, uint32_t max);

/* The file that pc is in, by its last part, and the place in it as addr2line
 * -e FILE takes it.  "?" and pc: in none. */
const char *worker_stack_place(uint64_t pc, uint64_t *offset);

#endif
