/*
 * booksctl top: the status, again each second, on a terminal.
 *
 * It looks and changes nothing.  One thread: a question to booksd may take up
 * to ASK_S seconds, in which keys wait; it is on the same machine.  Whatever
 * ends the program, but for SIGKILL, goes through endwin(3), so that the shell
 * gets its terminal back as it was: signals only leave a mark, and getch(3)
 * returns.
 */
#include "config.h"

#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <ncurses.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "ctl/ctl_answer.h"
#include "ctl/ctl_top.h"

#define PERIOD_US 1000000
#define ASK_S	  2
#define ESCAPE	  27

static const struct ctl_top_column worker_columns[] = {
    {"SLOT", "slot", 4, 0, 0, 's'},
    {"PID", "pid", 8, 0, 5, 'p'},
    {"STATE", "state", 8, -1, 1, 0},
    {"REQ/S", "requestsPerSecond", 9, 1, 2, 'n'},
    {"BUSY%", "busyPercent", 6, 1, 3, 'b'},
    {"CPU%", "cpuPercent", 6, 1, 6, 'u'},
    {"CONN", "connections", 6, 0, 4, 'c'},
    {"OPEN", "requestsOpen", 5, 0, 9, 'o'},
    {"DB", "databaseBusy", 4, 0, 7, 'd'},
    {"WAIT", "databaseWaiting", 5, 0, 8, 'w'},
    {"AGE/S", "ageSeconds", 8, 0, 11, 'a'},
    {"DIED", "restarts", 5, 0, 10, 'x'},
    {"DOING", "doing", 8, -1, 12, 0},
    {"ROUTE", "route", 16, -1, 13, 0},
};

static const struct ctl_top_column route_columns[] = {
    {"ROUTE", "route", 16, -1, 0, 0},
    {"REQ/S", "perSecond", 9, 1, 1, 'n'},
    {"P50/MS", "p50", 8, 2, 4, '5'},
    {"P99/MS", "p99", 8, 2, 2, '9'},
    {"ERRORS", "errors", 8, 0, 5, 'e'},
    {"TOTAL", "total", 12, 0, 3, 't'},
};

static const struct ctl_top_table tables[] = {
    {"workers", worker_columns, SHM_ARRAY_LEN(worker_columns)},
    {"routes", route_columns, SHM_ARRAY_LEN(route_columns)},
};

static volatile sig_atomic_t is_ended;

static void
end_mark(int number)
{
	(void)number;
	is_ended = 1;
}

/* Without SA_RESTART: whoever waits for a key hears of it. */
static void
signals_take(void)
{
	static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	struct sigaction action = {.sa_handler = end_mark};

	for (size_t i = 0; i < SHM_ARRAY_LEN(numbers); i++)
		sigaction(numbers[i], &action, NULL);
}

static void
history_add(struct ctl_top *top)
{
	const json_t *requests = json_object_get(top->root, "requests");

	if (top->history_count == CTL_TOP_HISTORY) {
		memmove(top->history, top->history + 1,
		    sizeof(top->history) - sizeof(top->history[0]));
		top->history_count--;
	}
	top->history[top->history_count++] =
	    ctl_answer_measure(requests, "perSecond");
}

static void
top_ask(struct ctl_top *top, const char *path)
{
	const struct ctl_control_question question = {
	    .path = path, .target = "/status.json", .timeout_s = ASK_S};
	json_t *root;
	int code;

	ctl_say_into(top->why, sizeof(top->why));
	code = ctl_answer_get(&question, false, &root);
	ctl_say_into(NULL, 0);
	if (code != EX_OK)
		return; /* the old one stays, with the reason */
	top->why[0] = '\0';
	json_decref(top->root);
	top->root = root;
	history_add(top);
}

/* Texts and slots rise, all else begins with the most. */
static void
sort_by(struct ctl_top *top, int key)
{
	for (size_t i = 0; i < top->table->columns_count; i++)
		if (top->table->columns[i].key != 0 &&
		    top->table->columns[i].key == key)
			top->sort = &top->table->columns[i];
}

static void
table_switch(struct ctl_top *top)
{
	top->table = &tables[top->table == &tables[0]];
	top->sort = NULL;
	sort_by(top, top->table == &tables[0] ? 's' : 'n');
}

/* Until it is time to ask again, or to end. */
static void
keys_read(struct ctl_top *top, uint64_t next_us)
{
	uint64_t now_us;

	while (!is_ended && (now_us = shm_clock_us()) < next_us) {
		int key;

		timeout((int)((next_us - now_us) / 1000) + 1);
		key = getch();
		if (key == 'q' || key == ESCAPE)
			is_ended = 1;
		else if (key == 'r')
			table_switch(top);
		else if (key == KEY_RESIZE)
			clear(); /* terminals differ in what they keep */
		else if (key > 0 && key < 128)
			sort_by(top, key);
		else if (key == ERR && isatty(STDIN_FILENO) == 0)
			is_ended = 1; /* the terminal went away */
		if (!is_ended && key != ERR)
			ctl_top_draw(top);
	}
}

static void
colors_begin(struct ctl_top *top)
{
	const char *no_color = getenv("NO_COLOR");

	if ((no_color != NULL && *no_color != '\0') || !has_colors())
		return;
	start_color();
	use_default_colors();
	init_pair(COLOR_RED, COLOR_RED, -1);
	init_pair(COLOR_GREEN, COLOR_GREEN, -1);
	init_pair(COLOR_YELLOW, COLOR_YELLOW, -1);
	init_pair(COLOR_CYAN, COLOR_CYAN, -1);
	top->is_colored = true;
}

static void
top_run(struct ctl_top *top, const char *path)
{
	cbreak();
	noecho();
	keypad(stdscr, TRUE);
	set_escdelay(25);
	curs_set(0);
	colors_begin(top);
	while (!is_ended) {
		uint64_t next_us = shm_clock_us() + PERIOD_US;

		top_ask(top, path);
		ctl_top_draw(top);
		keys_read(top, next_us);
	}
}

int
ctl_top(const struct ctl *ctl, int argc, char **argv)
{
	static struct ctl_top top;
	const char *path = ctl->control;
	SCREEN *screen;
	int option;

	while ((option = getopt(argc, argv, "S:")) != -1) {
		if (option != 'S')
			return ctl_usage_option(argc, argv);
		path = optarg;
	}
	if (optind < argc)
		return ctl_usage("top takes no argument");
	if (isatty(STDIN_FILENO) == 0 || isatty(STDOUT_FILENO) == 0)
		return ctl_usage("top needs a terminal; status does not");
	setlocale(LC_CTYPE, "");
	top.is_utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	top.table = &tables[0];
	sort_by(&top, 's');
	signals_take();
	screen = newterm(NULL, stdout, stdin);
	if (screen == NULL) {
		ctl_say("the terminal's type, TERM=%s, is not known",
		    getenv("TERM") != NULL ? getenv("TERM") : "");
		return EX_UNAVAILABLE;
	}
	top_run(&top, path);
	endwin();
	delscreen(screen);
	json_decref(top.root);
	return EX_OK;
}
