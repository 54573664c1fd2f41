/*
 * The same figures as lines on standard output that CloudWatch makes metrics
 * of: its embedded metric format.
 */
#ifndef OPS_EMF_H
#define OPS_EMF_H

#include "ops/ops_sample.h"

struct ops_site;

struct ops_emf {
	uint64_t due_us;
	struct ops_sample from; /* what the last line ended with */
	uint64_t throttled_us;	/* likewise */
	uint64_t deaths;
	uint64_t overflows;
};

/* Write a line when a period is over, or, at the end, for what is left of it.
 * After the site's look. */
void ops_emf_tick(struct ops_site *site, bool is_end);

#endif
