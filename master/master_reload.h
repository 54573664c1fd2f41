/*
 * Reading the settings again while booksd runs.
 */
#ifndef MASTER_RELOAD_H
#define MASTER_RELOAD_H

#include "master/master_settings.h"

/*
 * Remember where the settings come from: copies of the arguments, before they
 * become titles, and the working folder, before it is left.  Once, in the
 * master.  -1 with errno.
 */
int master_reload_init(int argc, char **argv) SHM_MUSTCHECK;

/* For a program that starts as we did: the arguments, and the way back to the
 * folder.  -1 with errno. */
char *const *master_reload_arguments(void);
int master_reload_return(void) SHM_MUSTCHECK;

/*
 * All settings from their sources anew, checked, with those that cannot change
 * taken from current; what is kept though it was changed is a warning in the
 * log.  NULL: something is wrong, which the log says.  Blocks while files are
 * read.
 */
struct master_settings *
master_reload_read(const struct master_settings *current) SHM_MUSTCHECK;

/* Takes what master_reload_read() returned; NULL is fine. */
void master_reload_free(struct master_settings **settings);

#endif
