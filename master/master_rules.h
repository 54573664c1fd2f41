/*
 * The settings as a whole: what "auto" becomes, and rules between settings.
 */
#ifndef MASTER_RULES_H
#define MASTER_RULES_H

#include "master/master_memory.h"
#include "master/master_settings.h"

/*
 * Decide what is left to auto, and check what no single setting shows: rules
 * between settings, addresses, the connection string, the user.  Returns EX_OK
 * or the exit code of the gravest error; all are said.  May ask the resolver.
 */
int master_rules_check(struct master_settings *settings) SHM_MUSTCHECK;

/* Refuse a cache that would take too much of memory.  Part of the above; for
 * tests. */
void master_rules_check_memory(
    struct master_settings *settings, const struct master_memory *memory);

/* Connections of the worker in that slot: an even share of the budget of that
 * many workers, at least 2. */
uint32_t master_rules_share(
    const struct master_options *options, uint32_t workers, uint32_t slot);

#endif
