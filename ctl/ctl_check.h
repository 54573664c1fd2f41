/*
 * booksctl check: one finding a line, with what to do about it.
 */
#ifndef CTL_CHECK_H
#define CTL_CHECK_H

#include "ctl/ctl.h"

enum ctl_check_mark {
	CTL_CHECK_OK = 0,
	CTL_CHECK_WARN, /* works, but not as it should */
	CTL_CHECK_FAIL,
};

struct ctl_check {
	bool has_failed;
	/* what booksd would ask the database for; 0: not known */
	uint64_t connections_wanted;
};

/*
 * Print a finding about subject: what was found, and behind a semicolon what to
 * do.  Texts with foreign bytes are made harmless.
 */
void ctl_check_say(struct ctl_check *check, enum ctl_check_mark mark,
    const char *subject, const char *format, ...) SHM_PRINTF(4, 5);

/* All that the database has to say; ctl->database is set. */
void ctl_check_database(struct ctl_check *check, const struct ctl *ctl);

#endif
