#include "config.h"

#include <stdlib.h>

#include "ops/ops_site.h"

struct ops_site *
ops_site_new(const struct ops_options *options, const struct ops_listen *listen)
{
	struct ops_site *site = calloc(1, sizeof(*site));

	if (site == NULL)
		return NULL;
	site->options = options;
	site->listen = listen;
	site->samples.options = options;
	ops_site_tick(site, shm_clock_us());
	return site;
}

void
ops_site_free(struct ops_site **site)
{
	free(*site);
	*site = NULL;
}

static void
look(struct ops_site *site, uint64_t now_us)
{
	ops_samples_take(&site->samples, now_us);
	ops_history_add(
	    &site->history, &ops_samples_last(&site->samples)->total);
	ops_queue_look(&site->queue, site->options->listen);
}

void
ops_site_end(struct ops_site *site)
{
	look(site, shm_clock_us());
	ops_emf_tick(site, true);
	ops_events_end(&site->events);
	ops_profile_end(&site->profile);
}

uint64_t
ops_site_due_us(const struct ops_site *site)
{
	uint64_t profile_us = ops_profile_due_us(&site->profile);

	return profile_us < site->due_us ? profile_us : site->due_us;
}

void
ops_site_tick(struct ops_site *site, uint64_t now_us)
{
	ops_profile_tick(&site->profile, now_us);
	if (now_us < site->due_us)
		return;
	/* Once after a pause, however long it was. */
	site->due_us += OPS_SAMPLE_PERIOD_US;
	if (site->due_us <= now_us)
		site->due_us = now_us + OPS_SAMPLE_PERIOD_US;
	look(site, now_us);
	ops_emf_tick(site, false);
	ops_events_tick(site);
}
