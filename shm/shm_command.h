/*
 * What ops asks the master for: one small message over a socket pair.
 *
 * The master parses nothing that came from a network.  A command is a whole
 * struct of that size, from the one process that holds the other end, and its
 * words are judged before they mean anything; all else is dropped and logged.
 * The answer is what the board shows afterwards (workers_wanted, draining,
 * generation, event[reload_failed]) and what the log says.
 */
#ifndef SHM_COMMAND_H
#define SHM_COMMAND_H

#include "shm/shm_base.h"

enum shm_command_verb {
	SHM_COMMAND_DRAIN = 1, /* as SIGTERM */
	SHM_COMMAND_RELOAD,    /* as SIGHUP */
	SHM_COMMAND_WORKERS,   /* argument: how many there shall be */
	SHM_COMMAND_REOPEN,    /* logs, as SIGUSR1 */
};

struct shm_command {
	uint32_t verb; /* enum shm_command_verb */
	uint32_t argument;
};

#endif
