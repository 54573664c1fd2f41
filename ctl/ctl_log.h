/*
 * booksctl log in three parts: options and filters (ctl_log.c), where lines
 * come from (ctl_log_read.c), how they look (ctl_log_line.c).
 */
#ifndef CTL_LOG_H
#define CTL_LOG_H

#include <jansson.h>

#include "ctl/ctl.h"

#define CTL_LOG_LINE_MAX (64 * 1024) /* of a file; the rest is passed over */

/* text is not ended by a 0 and borrowed for the call. */
typedef void ctl_log_each(void *owner, const char *text, size_t len);

/*
 * Each line of path, "-": of standard input.  follow: from its last lines on,
 * and without end, also when the file is moved away and made anew, or cut.
 * EX_OK at the end, or another exit code after saying why.
 */
int ctl_log_read(const char *path, bool follow, ctl_log_each *each,
    void *owner) SHM_MUSTCHECK;

/* Print a line of booksd's, for people. */
void ctl_log_line(const json_t *line);

#endif
