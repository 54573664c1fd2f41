/*
 * booksctl: look after booksd and its database.  Here: the table of commands,
 * the global options and what is said when they make no sense.
 */
#include "config.h"

#include <ctype.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "ctl/ctl.h"

static int command_help(const struct ctl *ctl, int argc, char **argv);
static int command_version(const struct ctl *ctl, int argc, char **argv);

const struct ctl_command ctl_commands[] = {
    {"cache", ctl_cache,
	"[-S PATH] [--json] [status | flush [WHAT ...] | keys [-n COUNT]]",
	"look at the cache, or empty it", false},
    {"check", ctl_check, "[-c FILE] [-S PATH]",
	"find out what is wrong with settings, database or booksd", false},
    {"completion", ctl_completion, "(bash | zsh | fish)",
	"print a script with which a shell completes commands", false},
    {"drain", ctl_drain, "[-S PATH]",
	"end booksd once it has answered what it has", false},
    {"export", ctl_export, "[FILE]", "write all books as CSV", true},
    {"flush", ctl_flush,
	"[-S PATH] [all | books | lists | negatives | ISBN ...]",
	"empty the cache, as cache flush", false},
    {"health", ctl_health, "[-S PATH] [--live]",
	"exit with 0 when booksd is ready, else with 1", false},
    {"help", command_help, "", "print this", false},
    {"import", ctl_import, "[--dry-run] [--allow-rejects=N] FILE",
	"load books from CSV", true},
    {"log", ctl_log,
	"[-f] [--event=NAME] [--level=LEVEL] [--path=PATTERN] [--slow=MS]"
	" [--status=CODES] [--worker=N] [FILE]",
	"read booksd's JSON log lines", false},
    {"migrate", ctl_migrate, "[--wait[=SECONDS]]",
	"bring the tables up to date", true},
    {"reload", ctl_reload, "[-S PATH] [--no-wait]",
	"have booksd read its settings again", false},
    {"status", ctl_status, "[-S PATH] [--json]", "show what booksd is doing",
	false},
    {"top", ctl_top, "[-S PATH]", "watch booksd on a terminal", false},
    {"version", command_version, "", "print the version", false},
    {"workers", ctl_workers, "[-S PATH] [--no-wait] [N | +N | -N]",
	"show or set how many workers there are", false},
};
const size_t ctl_commands_count = SHM_ARRAY_LEN(ctl_commands);

#define WORD_BYTES_MAX 32

static struct {
	char *text; /* NULL: standard error */
	size_t size;
} said;

static size_t
least(size_t a, size_t b, size_t c)
{
	size_t ab = a < b ? a : b;

	return ab < c ? ab : c;
}

/* How many letters lie between two words (Levenshtein). */
static size_t
distance(const char *a, const char *b)
{
	size_t row[WORD_BYTES_MAX + 1], before, above;
	size_t a_len = strlen(a), b_len = strlen(b);

	if (a_len > WORD_BYTES_MAX || b_len > WORD_BYTES_MAX)
		return WORD_BYTES_MAX;
	for (size_t j = 0; j <= b_len; j++)
		row[j] = j;
	for (size_t i = 1; i <= a_len; i++) {
		before = row[0]++;
		for (size_t j = 1; j <= b_len; j++) {
			above = row[j];
			row[j] = least(row[j] + 1, row[j - 1] + 1,
			    before + (a[i - 1] != b[j - 1]));
			before = above;
		}
	}
	return row[b_len];
}

static int
command_unknown(const char *name)
{
	const struct ctl_command *nearest = NULL;
	size_t best = 3, found;

	for (size_t i = 0; i < ctl_commands_count; i++) {
		found = distance(name, ctl_commands[i].name);
		if (found < best) {
			best = found;
			nearest = &ctl_commands[i];
		}
	}
	if (nearest != NULL)
		return ctl_usage(
		    "unknown command; did you mean %s?", nearest->name);
	return ctl_usage("unknown command");
}

static const struct ctl_command *
command_find(const char *name)
{
	for (size_t i = 0; i < ctl_commands_count; i++)
		if (strcmp(ctl_commands[i].name, name) == 0)
			return &ctl_commands[i];
	return NULL;
}

#define HELP_INDENT  14
#define HELP_COLUMNS 80

/* In lines that are broken before an option alone. */
static void
print_usage(const char *usage)
{
	size_t column = HELP_INDENT - 1;

	printf("%*s", HELP_INDENT - 1, "");
	while (*usage != '\0') {
		size_t len = 1; /* with the next blank that may end a line */

		while (usage[len] != '\0' &&
		       (usage[len] != ' ' || usage[len + 1] != '['))
			len++;
		if (column + len > HELP_COLUMNS) {
			printf("\n%*s", HELP_INDENT - 1, "");
			column = HELP_INDENT - 1;
		}
		printf(" %.*s", (int)len, usage);
		column += len + 1;
		usage += len;
		usage += *usage == ' ';
	}
	putchar('\n');
}

static int
command_help(const struct ctl *ctl, int argc, char **argv)
{
	(void)ctl;
	if (argc > 1)
		return ctl_usage("%s takes no argument", argv[0]);
	printf("usage: booksctl " CTL_GLOBAL_USAGE " COMMAND"
	       " [ARGUMENT ...]\n"
	       "\n"
	       "commands:\n");
	for (size_t i = 0; i < ctl_commands_count; i++) {
		printf("  %-*s%s\n", HELP_INDENT - 2, ctl_commands[i].name,
		    ctl_commands[i].help);
		if (*ctl_commands[i].usage != '\0')
			print_usage(ctl_commands[i].usage);
	}
	printf("\n"
	       "options:\n"
	       "  -d CONNINFO: the database, a libpq connection string or URI\n"
	       "  -q: no progress\n"
	       "  -S PATH: booksd's control socket\n"
	       "Without -d the database is BOOKS_DATABASE, else what the file\n"
	       "named by BOOKS_DATABASE_FILE holds, else what libpq's own\n"
	       "variables say.\n"
	       "Without -S the control socket, at which booksd itself is\n"
	       "asked, is BOOKS_CONTROL_SOCKET, else where booksd puts it.\n");
	return EX_OK;
}

static int
command_version(const struct ctl *ctl, int argc, char **argv)
{
	(void)ctl;
	if (argc > 1)
		return ctl_usage("%s takes no argument", argv[0]);
	printf("booksctl %s, libpq %d.%d\n", PACKAGE_VERSION,
	    PQlibVersion() / 10000, PQlibVersion() % 10000);
	return EX_OK;
}

/* A password on the command line should not stay visible in ps(1). */
static char *
argument_take(char *argument)
{
	char *copy = strdup(argument);

	if (copy != NULL)
		memset(argument, 'x', strlen(argument));
	return copy;
}

static int
command_run(struct ctl *ctl, int argc, char **argv)
{
	const struct ctl_command *command = command_find(argv[0]);
	int code;

	if (command == NULL)
		return command_unknown(argv[0]);
	if (command->needs_database && ctl->database == NULL) {
		code = ctl_database_from_env(&ctl->database);
		if (code != EX_OK)
			return code;
	}
	optind = 0; /* getopt starts anew */
	return command->run(ctl, argc, argv);
}

void
ctl_say_into(char *text, size_t size)
{
	said.text = text;
	said.size = size;
	if (text != NULL)
		*text = '\0';
}

void
ctl_say(const char *format, ...)
{
	va_list args;

	if (said.text != NULL) {
		va_start(args, format);
		if (*said.text == '\0')
			vsnprintf(said.text, said.size, format, args);
		va_end(args);
		return;
	}
	fflush(stdout);
	fputs("booksctl: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

int
ctl_usage(const char *format, ...)
{
	va_list args;

	fputs("booksctl: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputs("\nbooksctl: booksctl help lists the commands,"
	      " booksctl(1) explains them\n",
	    stderr);
	return EX_USAGE;
}

int
ctl_usage_option(int argc, char **argv)
{
	int at = optind > 1 && optind <= argc ? optind - 1 : 1;

	/* The value behind = is left out: it may be anything. */
	return ctl_usage("%s: option %.*s is unknown or has a wrong value",
	    argv[0], (int)strcspn(argv[at], "="), argv[at]);
}

int
main(int argc, char **argv)
{
	static struct ctl ctl;
	int option, code;

	opterr = 0;
	/* The + stops at the command, which has options of its own. */
	while ((option = getopt(argc, argv, "+d:hqS:V")) != -1) {
		switch (option) {
		case 'd':
			ctl.database = argument_take(optarg);
			break;
		case 'h':
			return command_help(&ctl, 1, argv);
		case 'q':
			ctl.is_quiet = true;
			break;
		case 'S':
			ctl.control = optarg;
			break;
		case 'V':
			return command_version(&ctl, 1, argv);
		default:
			return ctl_usage("option -%c is unknown or has no"
					 " value",
			    isprint(optopt) ? optopt : '?');
		}
	}
	if (optind == argc)
		return ctl_usage("no command is given");
	code = command_run(&ctl, argc - optind, argv + optind);
	if (fflush(stdout) == EOF && code == EX_OK) {
		ctl_say("cannot write to standard output");
		code = EX_IOERR;
	}
	return code;
}
