/*
 * The words in which those who listen to a probe count themselves.
 */
#include "config.h"

#include "worker/worker_probe.h"

#ifdef HAVE_SYS_SDT_H
#define WORKER_PROBE(name)                          \
	volatile uint16_t booksd_##name##_semaphore \
	    __attribute__((section(".probes"), used)) = 0;
WORKER_PROBES
#endif

/* Which they are, also where they are left out: no empty file. */
const char *const worker_probe_names[] = {
#undef WORKER_PROBE
#define WORKER_PROBE(name) #name,
    WORKER_PROBES};
