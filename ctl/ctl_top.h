/*
 * booksctl top in two parts: asking, keys and sorting (ctl_top.c), the screen
 * (ctl_top_draw.c).
 */
#ifndef CTL_TOP_H
#define CTL_TOP_H

#include <jansson.h>

#include "ctl/ctl.h"

#define CTL_TOP_HISTORY	    512 /* seconds, wider than terminals are */
#define CTL_TOP_COLUMNS_MIN 32	/* smaller: a message instead */
#define CTL_TOP_LINES_MIN   10
#define CTL_TOP_ROWS_MAX    128 /* of a table; more are not shown */

/* A column of a table; member is of the object that a row shows. */
struct ctl_top_column {
	const char *title;
	const char *member;
	int width;
	int decimals; /* -1: a text, on the left */
	int rank;     /* those with the least stay on narrow terminals */
	char key;     /* sorts by it; 0: none does */
};

struct ctl_top_table {
	const char *member; /* the array in the status */
	const struct ctl_top_column *columns;
	size_t columns_count;
};

struct ctl_top {
	json_t *root;  /* the last status; NULL: none came yet */
	char why[256]; /* why there is no newer one, or "" */
	double history[CTL_TOP_HISTORY]; /* requests a second */
	size_t history_count;
	const struct ctl_top_table *table;
	const struct ctl_top_column *sort;
	bool is_colored;
	bool is_utf8;
};

/* Everything; curses is initialized. */
void ctl_top_draw(const struct ctl_top *top);

#endif
