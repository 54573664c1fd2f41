/*
 * How far a long command is: a bar that is redrawn on a terminal, a plain line
 * now and then anywhere else.  Written to standard error.
 */
#ifndef CTL_PROGRESS_H
#define CTL_PROGRESS_H

#include "shm/shm_base.h"

#define CTL_PROGRESS_WIDTH 30 /* characters of the bar */

struct ctl_progress {	   /* private */
	const char *label; /* borrowed */
	uint64_t total;	   /* 0: not known, then there is no bar */
	uint64_t done;
	uint64_t rows;
	uint64_t next_us; /* when to write again */
	bool is_terminal;
	bool is_quiet;
};

/* total and done count bytes or whatever else grows with the work. */
void ctl_progress_begin(struct ctl_progress *progress, const char *label,
    uint64_t total, bool is_quiet);
void
ctl_progress_step(struct ctl_progress *progress, uint64_t done, uint64_t rows);

/* Take the bar away, for instance to write another line; the next step draws
 * it again. */
void ctl_progress_clear(struct ctl_progress *progress);
/* The work is done: the last state stays on a terminal as a line. */
void ctl_progress_end(struct ctl_progress *progress);

/*
 * The bar itself: "label [#####.....]  50 % 1,234 rows".  A pure function for
 * the sake of its test; returns the length that snprintf(3) would.
 */
int ctl_progress_text(
    const struct ctl_progress *progress, char *out, size_t out_size);

#endif
