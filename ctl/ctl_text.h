/*
 * Figures and foreign text as people read them.
 */
#ifndef CTL_TEXT_H
#define CTL_TEXT_H

#include <stdio.h>

#include "shm/shm_base.h"

/* Each returns out. */
#define CTL_TEXT_BYTES 32
/* "1,234,567" */
const char *ctl_text_grouped(uint64_t value, char out[CTL_TEXT_BYTES]);
/* "12 B", "1.5 KiB", "64.0 MiB" */
const char *ctl_text_size(uint64_t bytes, char out[CTL_TEXT_BYTES]);
/* "45 s", "3 min 2 s", "5 h 10 min", "12 d 3 h" */
const char *ctl_text_time(double seconds, char out[CTL_TEXT_BYTES]);

/*
 * Print bytes that others chose.  Nothing of them reaches a terminal that it
 * would obey: control characters, and those that are invisible or turn the
 * direction of text, are printed as \uXXXX, bytes that are no UTF-8 as \xXX.
 */
void ctl_text_print(FILE *out, const char *text, size_t len);

/*
 * What turns a color on, "" when out is not a terminal that shows some, or when
 * NO_COLOR is set.  out is stdout or stderr.
 */
enum ctl_text_color {
	CTL_TEXT_PLAIN = 0,
	CTL_TEXT_BOLD,
	CTL_TEXT_FAINT,
	CTL_TEXT_RED,
	CTL_TEXT_GREEN,
	CTL_TEXT_YELLOW,
	CTL_TEXT_BLUE,
};
const char *ctl_text_color(FILE *out, enum ctl_text_color color);

#endif
