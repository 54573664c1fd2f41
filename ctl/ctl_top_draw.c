/*
 * The screen of booksctl top.
 *
 * The head is a row of items that flow into as many lines as they need; a table
 * shows the columns that fit, those of the least rank first.  What booksd sent
 * is foreign: of a text only printable ASCII is shown.
 */
#include "config.h"

#include <ncurses.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl_answer.h"
#include "ctl/ctl_text.h"
#include "ctl/ctl_top.h"

struct flow {
	const struct ctl_top *top;
	int line;
	int lines; /* what comes behind them is not shown */
	int column;
};

/* of the table, and the footer's, that the head leaves alone */
#define LINES_BELOW 4

/* ---- pieces */

static attr_t
color(const struct ctl_top *top, short pair)
{
	return top->is_colored ? (attr_t)COLOR_PAIR(pair) : A_NORMAL;
}

static const char *
harmless(const char *text, char *out, size_t size)
{
	size_t len = 0;

	for (; *text != '\0' && len + 1 < size; text++)
		out[len++] = *text >= ' ' && *text < 0x7f ? *text : '?';
	out[len] = '\0';
	return out;
}

static void flow_item(struct flow *flow, attr_t attributes, const char *format,
    ...) SHM_PRINTF(3, 4);

static void
flow_item(struct flow *flow, attr_t attributes, const char *format, ...)
{
	char text[256];
	va_list args;
	int len;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	len = (int)strlen(text);
	if (flow->column > 0 && flow->column + len > COLS) {
		flow->line++;
		flow->column = 0;
	}
	if (flow->line >= flow->lines)
		return;
	attrset(attributes);
	mvaddnstr(flow->line, flow->column, text, COLS - flow->column);
	attrset(A_NORMAL);
	flow->column += len + 2;
}

static void
flow_break(struct flow *flow)
{
	if (flow->column > 0)
		flow->line++;
	flow->column = 0;
}

/* ---- the head */

static void
draw_task(struct flow *flow)
{
	const json_t *root = flow->top->root;
	const char *state = ctl_answer_text(root, "state");
	char text[64], time[CTL_TEXT_BYTES];

	flow_item(flow, A_BOLD, "booksd %s",
	    harmless(ctl_answer_text(root, "version"), text, sizeof(text)));
	flow_item(flow,
	    A_BOLD |
		color(flow->top,
		    strcmp(state, "ready") == 0 ? COLOR_GREEN : COLOR_YELLOW),
	    "%s", harmless(state, text, sizeof(text)));
	flow_item(flow, A_NORMAL, "up %s",
	    ctl_text_time(ctl_answer_measure(root, "uptimeSeconds"), time));
	flow_item(flow, A_NORMAL, "pid %ju",
	    (uintmax_t)ctl_answer_figure(root, "pid"));
	flow_item(flow, A_NORMAL, "%s",
	    harmless(ctl_answer_text(root, "backend"), text, sizeof(text)));
	flow_break(flow);
}

static double
sum_of(const json_t *root, const char *member)
{
	const json_t *workers = json_object_get(root, "workers"), *worker;
	double sum = 0;
	size_t i;

	json_array_foreach(workers, i, worker)
	{
		sum += ctl_answer_measure(worker, member);
	}
	return sum;
}

static void
draw_figures(struct flow *flow)
{
	const json_t *root = flow->top->root;
	const json_t *latency = json_object_get(root, "latency");
	const json_t *cache = json_object_get(root, "cache");
	const json_t *cpu = json_object_get(root, "cpu");
	double errors = ctl_answer_measure(
	    json_object_get(root, "requests"), "errorsPerSecond");
	double limit = ctl_answer_measure(cpu, "limitMillicpus") / 10;
	double throttled = ctl_answer_measure(cpu, "throttledSeconds");

	flow_item(
	    flow, A_NORMAL, "p50 %.2f ms", ctl_answer_measure(latency, "p50"));
	flow_item(
	    flow, A_NORMAL, "p99 %.2f ms", ctl_answer_measure(latency, "p99"));
	flow_item(flow, errors > 0 ? color(flow->top, COLOR_RED) : A_NORMAL,
	    "errors %.1f/s", errors);
	if (json_is_true(json_object_get(cache, "enabled")))
		flow_item(flow, A_NORMAL, "hits %.1f %%",
		    100 * ctl_answer_measure(cache, "hitRatio"));
	if (limit > 0)
		flow_item(flow, A_NORMAL, "cpu %.0f of %.0f %%",
		    sum_of(root, "cpuPercent"), limit);
	else
		flow_item(
		    flow, A_NORMAL, "cpu %.0f %%", sum_of(root, "cpuPercent"));
	if (throttled > 0)
		flow_item(flow, color(flow->top, COLOR_YELLOW),
		    "throttled %.1f s", throttled);
}

static void
draw_database(struct flow *flow)
{
	const json_t *database = json_object_get(flow->top->root, "database");
	bool is_ready = json_is_true(json_object_get(database, "ready"));

	flow_item(flow, color(flow->top, is_ready ? COLOR_GREEN : COLOR_RED),
	    "database %s", is_ready ? "ready" : "away");
	flow_item(flow, A_NORMAL, "%ju of %ju busy, %ju wait",
	    (uintmax_t)ctl_answer_figure(database, "busy"),
	    (uintmax_t)ctl_answer_figure(database, "connections"),
	    (uintmax_t)ctl_answer_figure(database, "waiting"));
	flow_break(flow);
}

/* The last seconds, as many as fit, each as high as its part of the most. */
static void
draw_history(struct flow *flow)
{
	static const char *const high[] = {
	    "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
	static const char *const plain[] = {
	    "_", ".", ":", "-", "=", "+", "*", "#"};
	const struct ctl_top *top = flow->top;
	size_t room, from = 0;
	double most = 0;

	flow_item(
	    flow, A_BOLD, "%.1f req/s", top->history[top->history_count - 1]);
	room = flow->column < COLS ? (size_t)(COLS - flow->column) : 0;
	if (top->history_count > room)
		from = top->history_count - room;
	for (size_t i = from; i < top->history_count; i++)
		if (top->history[i] > most)
			most = top->history[i];
	attrset(color(top, COLOR_CYAN));
	for (size_t i = from; i < top->history_count; i++) {
		double part = most > 0 ? top->history[i] / most : 0;
		int step = part > 0 ? (int)(part * 7.999) : 0;

		mvaddstr(flow->line, flow->column + (int)(i - from),
		    top->is_utf8 ? high[step & 7] : plain[step & 7]);
	}
	attrset(A_NORMAL);
	flow->line++;
	flow->column = 0;
}

/* ---- the table */

static const struct ctl_top_column *compare_column;

static int
compare(const void *a, const void *b)
{
	const json_t *const *left = a, *const *right = b;
	const char *member = compare_column->member;
	double x = ctl_answer_measure(*left, member);
	double y = ctl_answer_measure(*right, member);
	int order = (x < y) - (x > y); /* the most first */

	if (strcmp(member, "slot") == 0 || strcmp(member, "pid") == 0)
		return -order;
	if (order != 0)
		return order;
	return strcmp(
	    ctl_answer_text(*left, "route"), ctl_answer_text(*right, "route"));
}

/* Those with a rank below what is returned fit. */
static int
ranks_that_fit(const struct ctl_top_table *table)
{
	int used = 0, rank = 0;

	for (; rank < (int)table->columns_count; rank++)
		for (size_t i = 0; i < table->columns_count; i++) {
			if (table->columns[i].rank != rank)
				continue;
			used += table->columns[i].width + 1;
			if (used > COLS + 1)
				return rank;
		}
	return rank;
}

static void
draw_cell(
    const struct ctl_top_column *column, const json_t *row, int line, int at)
{
	char text[64];

	if (row == NULL)
		mvprintw(line, at, column->decimals < 0 ? "%-*s" : "%*s",
		    column->width, column->title);
	else if (column->decimals < 0)
		mvprintw(line, at, "%-*.*s", column->width, column->width,
		    harmless(ctl_answer_text(row, column->member), text,
			sizeof(text)));
	else
		mvprintw(line, at, "%*.*f", column->width, column->decimals,
		    ctl_answer_measure(row, column->member));
}

/* row NULL: the titles. */
static void
draw_row(const struct ctl_top *top, const json_t *row, int line)
{
	const struct ctl_top_table *table = top->table;
	int ranks = ranks_that_fit(table), at = 0;

	for (size_t i = 0; i < table->columns_count; i++) {
		const struct ctl_top_column *column = &table->columns[i];

		if (column->rank >= ranks)
			continue;
		if (row == NULL)
			attrset(
			    column == top->sort ? A_REVERSE | A_BOLD : A_BOLD);
		draw_cell(column, row, line, at);
		attrset(A_NORMAL);
		at += column->width + 1;
	}
}

static void
draw_table(const struct ctl_top *top, int line)
{
	const json_t *rows = json_object_get(top->root, top->table->member);
	const json_t *sorted[CTL_TOP_ROWS_MAX], *row;
	size_t count = 0, i;

	json_array_foreach(rows, i, row)
	{
		if (json_is_object(row) && count < CTL_TOP_ROWS_MAX)
			sorted[count++] = row;
	}
	compare_column = top->sort;
	qsort(sorted, count, sizeof(sorted[0]), compare);
	draw_row(top, NULL, line++);
	for (i = 0; i < count && line < LINES - 1; i++)
		draw_row(top, sorted[i], line++);
}

static void
draw_footer(const struct ctl_top *top)
{
	struct flow flow = {.top = top, .line = LINES - 1, .lines = LINES};
	char title[16];

	flow_item(&flow, A_BOLD, "q quit");
	flow_item(&flow, A_BOLD, "r %s",
	    strcmp(top->table->member, "workers") == 0 ? "routes" : "workers");
	flow_item(&flow, A_NORMAL, "sort:");
	for (size_t i = 0; i < top->table->columns_count; i++) {
		const struct ctl_top_column *column = &top->table->columns[i];
		size_t len = strlen(column->title);

		if (column->key == 0)
			continue;
		for (size_t j = 0; j <= len; j++)
			title[j] = (char)(column->title[j] >= 'A' &&
						  column->title[j] <= 'Z'
					      ? column->title[j] | 0x20
					      : column->title[j]);
		if (flow.column + (int)len + 2 > COLS)
			break; /* there is one line */
		flow_item(&flow, column == top->sort ? A_REVERSE : A_NORMAL,
		    "%c %s", column->key, title);
	}
}

void
ctl_top_draw(const struct ctl_top *top)
{
	struct flow flow = {.top = top, .lines = LINES - LINES_BELOW};
	char text[256];

	erase();
	if (COLS < CTL_TOP_COLUMNS_MIN || LINES < CTL_TOP_LINES_MIN) {
		flow.lines = LINES;
		flow_item(&flow, A_NORMAL, "needs %dx%d", CTL_TOP_COLUMNS_MIN,
		    CTL_TOP_LINES_MIN);
		refresh();
		return;
	}
	if (top->why[0] != '\0') {
		flow_item(&flow, A_BOLD | color(top, COLOR_RED), "%s",
		    harmless(top->why, text, sizeof(text)));
		flow_break(&flow);
	}
	if (top->root != NULL) {
		draw_task(&flow);
		draw_history(&flow);
		draw_figures(&flow);
		draw_database(&flow);
		if (flow.line > flow.lines)
			flow.line = flow.lines;
		draw_table(top, flow.line + (flow.line < flow.lines));
		draw_footer(top);
	}
	refresh();
}
