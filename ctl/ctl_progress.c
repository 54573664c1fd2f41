/*
 * Writing costs more than counting, so a step looks at the clock and writes at
 * most ten times a second on a terminal and every two seconds elsewhere: the
 * log of a container is not flooded, yet says that something moves.
 */
#include "config.h"

#include <stdio.h>
#include <unistd.h>

#include "ctl/ctl_progress.h"

#define PAUSE_TERMINAL_US 100000
#define PAUSE_PLAIN_US	  2000000
#define CLEAR_LINE	  "\r\033[K"

static void
progress_write(
    struct ctl_progress *progress, const char *before, const char *after)
{
	char text[160];

	if (progress->is_quiet)
		return;
	ctl_progress_text(progress, text, sizeof(text));
	fprintf(stderr, "%s%s%s", before, text, after);
	fflush(stderr);
}

/* 1234567 as "1,234,567". */
static void
number_text(uint64_t number, char out[32])
{
	char digits[24];
	int len = snprintf(
	    digits, sizeof(digits), "%llu", (unsigned long long)number);
	size_t at = 0;

	for (int i = 0; i < len; i++) {
		if (i > 0 && (len - i) % 3 == 0)
			out[at++] = ',';
		out[at++] = digits[i];
	}
	out[at] = '\0';
}

int
ctl_progress_text(
    const struct ctl_progress *progress, char *out, size_t out_size)
{
	char rows[32], bar[CTL_PROGRESS_WIDTH + 1];
	double part;

	number_text(progress->rows, rows);
	if (progress->total == 0)
		return snprintf(out, out_size, "%s: %s row%s", progress->label,
		    rows, progress->rows == 1 ? "" : "s");
	part = (double)progress->done / (double)progress->total;
	if (part > 1)
		part = 1;
	for (int i = 0; i < CTL_PROGRESS_WIDTH; i++)
		bar[i] = i < (int)(part * CTL_PROGRESS_WIDTH) ? '#' : '.';
	bar[CTL_PROGRESS_WIDTH] = '\0';
	return snprintf(out, out_size, "%s [%s] %3d %% %s row%s",
	    progress->label, bar, (int)(part * 100), rows,
	    progress->rows == 1 ? "" : "s");
}

void
ctl_progress_begin(struct ctl_progress *progress, const char *label,
    uint64_t total, bool is_quiet)
{
	*progress = (struct ctl_progress){
	    .label = label,
	    .total = total,
	    .is_quiet = is_quiet,
	    .is_terminal = isatty(STDERR_FILENO) == 1,
	};
	progress->next_us =
	    shm_clock_us() + (progress->is_terminal ? 0 : PAUSE_PLAIN_US);
}

void
ctl_progress_step(struct ctl_progress *progress, uint64_t done, uint64_t rows)
{
	uint64_t now_us;

	progress->done = done;
	progress->rows = rows;
	now_us = shm_clock_us();
	if (now_us < progress->next_us)
		return;
	if (progress->is_terminal) {
		progress->next_us = now_us + PAUSE_TERMINAL_US;
		progress_write(progress, CLEAR_LINE, "");
	} else {
		progress->next_us = now_us + PAUSE_PLAIN_US;
		progress_write(progress, "", "\n");
	}
}

void
ctl_progress_clear(struct ctl_progress *progress)
{
	if (!progress->is_terminal || progress->is_quiet)
		return;
	fputs(CLEAR_LINE, stderr);
	progress->next_us = 0;
}

void
ctl_progress_end(struct ctl_progress *progress)
{
	progress->done = progress->total;
	if (progress->is_terminal)
		progress_write(progress, CLEAR_LINE, "\n");
	else
		progress_write(progress, "", "\n");
}
