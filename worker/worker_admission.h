/*
 * Admission to the database: refuse early when waiting has become the rule.
 *
 * CoDel (Nichols and Jacobson) at the door instead of at the queue's head, by
 * the wait that is to be expected: those who have waited tell too late.  What
 * counts is the least wait of an interval, because a queue that is empty at
 * times is a burst, and one that never is stands.  While the least wait is
 * above the target, requests are refused, one after each interval / sqrt(count)
 * with count growing.  CoDel's packets slow their senders down, our clients
 * know nothing of each other, so count also grows and shrinks with each
 * interval.
 *
 * Pure functions of given times; worker_db_admit.c measures.
 */
#ifndef WORKER_ADMISSION_H
#define WORKER_ADMISSION_H

#include "shm/shm_base.h"

#define WORKER_ADMISSION_INTERVAL_US 100000

struct worker_admission {
	uint64_t target_us;	  /* 0: all are admitted */
	uint64_t interval_end_us; /* 0: none has begun */
	uint64_t least_us;	  /* of the interval; UINT64_MAX: none */
	uint64_t last_us;	  /* of the interval before */
	uint64_t count;		  /* 0: all are admitted */
	uint64_t next_us;	  /* the next refusal */
	uint64_t asked;		  /* requests in the interval */
};

/* A request comes, and will have to wait so long. */
void
worker_admission_waits(struct worker_admission *admission, uint64_t wait_us);

/* Is the interval over, and worker_admission_step() due? */
static inline bool
worker_admission_is_due(
    const struct worker_admission *admission, uint64_t now_us)
{
	return admission->target_us > 0 && now_us >= admission->interval_end_us;
}

/* The interval is over. */
void worker_admission_step(struct worker_admission *admission, uint64_t now_us);

/* Is the request that came now to be refused? */
bool
worker_admission_refuses(struct worker_admission *admission, uint64_t now_us);

#endif
