/*
 * What all listeners of ops show: the samples, their history and who listens
 * to events.  Once in the process, and looked at once a second.
 */
#ifndef OPS_SITE_H
#define OPS_SITE_H

#include "ops/ops_emf.h"
#include "ops/ops_events.h"
#include "ops/ops_history.h"
#include "ops/ops_listen.h"
#include "ops/ops_profile.h"
#include "ops/ops_queue.h"
#include "ops/ops_sample.h"

struct ops_site {
	const struct ops_options *options; /* borrowed */
	const struct ops_listen *listen;   /* borrowed */
	uint64_t due_us;		   /* the next look */
	struct ops_samples samples;
	struct ops_history history;
	struct ops_queue queue;
	struct shm_cache_stats cache; /* sizes, as of cache_us */
	uint64_t cache_us;
	struct ops_events events;
	struct ops_emf emf;
	struct ops_profile profile;
};

/* NULL without memory.  Looks for the first time. */
struct ops_site *ops_site_new(const struct ops_options *options,
    const struct ops_listen *listen) SHM_MUSTCHECK;
void ops_site_free(struct ops_site **site); /* takes; NULL is fine */

/* A last look, for what is told at the end. */
void ops_site_end(struct ops_site *site);

/* When something is due. */
uint64_t ops_site_due_us(const struct ops_site *site);
/* Do it. */
void ops_site_tick(struct ops_site *site, uint64_t now_us);

#endif
