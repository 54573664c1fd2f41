/*
 * booksctl top, of a build that found no ncurses: it says so, since a command
 * that is missing would look like a mistake of the one who types it.
 */
#include "config.h"

#include <sysexits.h>

#include "ctl/ctl.h"

int
ctl_top(const struct ctl *ctl, int argc, char **argv)
{
	(void)ctl;
	(void)argc;
	(void)argv;
	ctl_say("top was left out of this build: there was no ncurses; status"
		" shows the same once");
	return EX_UNAVAILABLE;
}
