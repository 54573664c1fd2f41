/*
 * Where settings are read from.
 *
 * The order is file, environment, flags: each value replaces what a weaker
 * source said (master_settings.c).  The flags are looked at twice, because
 * they name the file: once for themselves, once for their settings.
 *
 * An unknown BOOKS_ variable is an error like an unknown key: a typing mistake
 * in a task definition would else be found when the default bites.
 */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "master/master_settings.h"

#define ENVIRONMENT_PREFIX "BOOKS_"
#define SECRET_SUFFIX	   "_FILE"
#define SECRET_BYTES_MAX   16384
#define FLAG_FAIL_FAST	   256

static const char short_flags[] = "c:fho:tTV";
static const struct option long_flags[] = {
    {"fail-fast", no_argument, NULL, FLAG_FAIL_FAST}, {NULL, 0, NULL, 0}};

void
master_options_help(FILE *out)
{
	fputs("usage: booksd [-fhTtV] [-c FILE] [-o KEY=VALUE] [--fail-fast]\n"
	      "\n"
	      "  -c FILE       read settings from FILE\n"
	      "  -f            stay in the foreground (implied as process 1)\n"
	      "  -h            print this and exit\n"
	      "  -o KEY=VALUE  set a setting; repeatable\n"
	      "  -T            print every setting, secrets masked, and exit\n"
	      "  -t            check the settings and exit\n"
	      "  -V            print versions and the I/O back end, and exit\n"
	      "  --fail-fast   end when the database is away at the start\n"
	      "\n"
	      "Settings, in the order of precedence: -o, the environment "
	      "(BOOKS_KEY), the file,\nthe default.  SIGHUP reads them again, "
	      "but for those marked (restart).\nbooksd.conf(5) has the "
	      "details.\n\n",
	    out);
	master_settings_help(out);
}

/* ---- the file */

/*
 * The value of a line in place: quoted with \" and \\, or bare up to a comment
 * (a '#' after white space).  NULL: the quotes do not end, or something
 * follows them.
 */
static char *
unquote(char *text)
{
	char *out = text, *at = text + 1;

	if (*text != '"') {
		for (at = text; *at != '\0'; at++)
			if (*at == '#' &&
			    (at == text || strchr(" \t", at[-1]) != NULL))
				break;
		while (at > text && strchr(" \t", at[-1]) != NULL)
			at--;
		*at = '\0';
		return text;
	}
	for (; *at != '"'; at++) {
		if (*at == '\\' && (at[1] == '"' || at[1] == '\\'))
			at++;
		if (*at == '\0')
			return NULL;
		*out++ = *at;
	}
	at++;
	at += strspn(at, " \t");
	if (*at != '\0' && *at != '#')
		return NULL;
	*out = '\0';
	return text;
}

static void
read_line(struct master_settings *settings, char *line,
    const struct master_origin *origin, unsigned *seen)
{
	char *name = line + strspn(line, " \t"), *value, *end;
	const struct master_setting *setting;

	if (*name == '\0' || *name == '#')
		return;
	value = strchr(name, '=');
	end = value;
	if (value == NULL) {
		master_settings_error(settings, "%s:%u: need key = value",
		    origin->name, origin->line);
		return;
	}
	while (end > name && strchr(" \t", end[-1]) != NULL)
		end--;
	*end = '\0';
	value = unquote(value + 1 + strspn(value + 1, " \t"));
	if (value == NULL) {
		master_settings_error(settings,
		    "%s:%u: %s: the quotes do not end, or text follows them",
		    origin->name, origin->line, name);
		return;
	}
	setting = master_settings_find(name);
	if (setting != NULL && setting->type != MASTER_TYPE_LIST) {
		unsigned *first = &seen[setting - master_settings_table];

		if (*first != 0) {
			master_settings_error(settings,
			    "%s:%u: %s was set in line %u already",
			    origin->name, origin->line, name, *first);
			return;
		}
		*first = origin->line;
	}
	master_settings_set(settings, name, value, origin);
}

void
master_options_read_file(struct master_settings *settings, const char *path)
{
	struct master_origin origin = {MASTER_SOURCE_FILE, path, 0};
	unsigned seen[MASTER_SETTINGS_COUNT] = {0};
	FILE *file = fopen(path, "re");
	char *line = NULL;
	size_t bytes = 0;
	ssize_t len;

	if (file == NULL) {
		master_settings_error(settings, "cannot read %s: %s (from -c)",
		    path, strerror(errno));
		return;
	}
	while ((len = getline(&line, &bytes, file)) != -1) {
		origin.line++;
		if (strlen(line) != (size_t)len) {
			master_settings_error(settings,
			    "%s:%u: a NUL byte: not a settings file", path,
			    origin.line);
			break;
		}
		line[strcspn(line, "\r\n")] = '\0';
		read_line(settings, line, &origin, seen);
	}
	if (ferror(file))
		master_settings_error(settings, "cannot read %s: %s (from -c)",
		    path, strerror(errno));
	free(line);
	fclose(file);
}

/* ---- the environment */

/* BOOKS_KEY_FILE: the secret is the file's text without its last newline. */
static void
read_secret(struct master_settings *settings, const char *name,
    const char *path, const struct master_origin *origin)
{
	char text[SECRET_BYTES_MAX + 2];
	FILE *file = fopen(path, "re");
	size_t len = 0;

	if (file != NULL) {
		len = fread(text, 1, sizeof(text) - 1, file);
		if (ferror(file)) {
			fclose(file);
			file = NULL;
		}
	}
	if (file == NULL) {
		master_settings_error(settings,
		    "%s=%s: cannot read the file: %s (from the environment)",
		    origin->name, path, strerror(errno));
		return;
	}
	fclose(file);
	if (len > 0 && text[len - 1] == '\n')
		len--;
	text[len] = '\0';
	if (strlen(text) == len)
		master_settings_set(settings, name, text, origin);
	else
		master_settings_error(settings,
		    "%s=%s: the file has a NUL byte (from the environment)",
		    origin->name, path);
	explicit_bzero(text, sizeof(text));
}

/* The setting that NAME_FILE would bring from a file, or NULL. */
static const struct master_setting *
setting_of_file(const char *name, char *stem, size_t stem_bytes)
{
	size_t len = strlen(name), suffix = strlen(SECRET_SUFFIX);

	if (len <= suffix || len - suffix >= stem_bytes ||
	    strcasecmp(name + len - suffix, SECRET_SUFFIX) != 0 ||
	    master_settings_find(name) != NULL)
		return NULL;
	memcpy(stem, name, len - suffix);
	stem[len - suffix] = '\0';
	return master_settings_find(stem);
}

static void
read_variable(struct master_settings *settings, const char *variable,
    const char *value, char **environment)
{
	struct master_origin origin = {MASTER_SOURCE_ENVIRONMENT, variable, 0};
	const size_t prefix = strlen(ENVIRONMENT_PREFIX);
	const struct master_setting *setting;
	char name[64], stem[64];

	/* A lower-case letter becomes a wrong one: BOOKS_workers is no key. */
	snprintf(name, sizeof(name), "%s", variable + prefix);
	for (char *at = name; *at != '\0'; at++)
		if (isalpha((unsigned char)*at))
			*at ^= 'a' ^ 'A';
	setting = setting_of_file(name, stem, sizeof(stem));
	if (setting == NULL) {
		master_settings_set(settings, name, value, &origin);
		return;
	}
	if (setting->type != MASTER_TYPE_SECRET) {
		master_settings_error(settings,
		    "%s: only a secret can come from a file, "
		    "as with " ENVIRONMENT_PREFIX "DATABASE" SECRET_SUFFIX,
		    variable);
		return;
	}
	for (char **other = environment; *other != NULL; other++)
		if (strncmp(*other, variable,
			strlen(variable) - strlen(SECRET_SUFFIX)) == 0 &&
		    (*other)[strlen(variable) - strlen(SECRET_SUFFIX)] == '=') {
			master_settings_error(settings,
			    "%s and the variable without " SECRET_SUFFIX
			    " are both set: which one counts?",
			    variable);
			return;
		}
	read_secret(settings, stem, value, &origin);
}

void
master_options_read_environment(
    struct master_settings *settings, char **environment)
{
	for (char **entry = environment; *entry != NULL; entry++) {
		const char *equals = strchr(*entry, '=');
		char *variable;

		if (equals == NULL || strncmp(*entry, ENVIRONMENT_PREFIX,
					  strlen(ENVIRONMENT_PREFIX)) != 0)
			continue;
		variable = strndup(*entry, (size_t)(equals - *entry));
		if (variable == NULL)
			abort();
		read_variable(settings, variable, equals + 1, environment);
		free(variable);
	}
}

/* ---- flags */

/* First look: everything but the settings. */
static void
read_flags(int argc, char **argv, struct master_command *command)
{
	int flag;

	optind = 0; /* so that it can be done again */
	while ((flag = getopt_long(
		    argc, argv, short_flags, long_flags, NULL)) != -1)
		switch (flag) {
		case 'c':
			command->file = optarg;
			break;
		case 'f':
			command->foreground = true;
			break;
		case 'h':
			command->mode = MASTER_MODE_HELP;
			break;
		case 't':
			command->mode = MASTER_MODE_TEST;
			break;
		case 'T':
			command->mode = MASTER_MODE_DUMP;
			break;
		case 'V':
			command->mode = MASTER_MODE_VERSION;
			break;
		case 'o':
		case FLAG_FAIL_FAST:
			break;
		default: /* getopt has said what is wrong */
			command->exit_code = EX_USAGE;
			break;
		}
}

static void
read_option(struct master_settings *settings, char *text,
    struct master_command *command)
{
	static const struct master_origin origin = {
	    MASTER_SOURCE_FLAG, "-o", 0};
	char *equals;

	SHM_ASSERT(text != NULL); /* getopt's argument */
	equals = strchr(text, '=');
	if (equals == NULL || equals == text) {
		master_settings_error(settings, "-o %s: need KEY=VALUE", text);
		command->exit_code = EX_USAGE;
		return;
	}
	*equals = '\0';
	master_settings_set(settings, text, equals + 1, &origin);
	*equals = '=';
}

/* Second look, when the weaker sources have been read. */
static void
read_flag_settings(struct master_settings *settings, int argc, char **argv,
    struct master_command *command)
{
	static const struct master_origin origin = {
	    MASTER_SOURCE_FLAG, "--fail-fast", 0};
	int flag;

	optind = 0;
	opterr = 0; /* said already */
	while ((flag = getopt_long(
		    argc, argv, short_flags, long_flags, NULL)) != -1)
		if (flag == 'o')
			read_option(settings, optarg, command);
		else if (flag == FLAG_FAIL_FAST)
			master_settings_set(
			    settings, "fail_fast", "on", &origin);
	opterr = 1;
}

void
master_options_read(struct master_settings *settings, int argc, char **argv,
    char **environment, struct master_command *command)
{
	*command = (struct master_command){.exit_code = EX_OK};
	read_flags(argc, argv, command);
	if (optind < argc) {
		master_settings_error(
		    settings, "%s: unexpected argument", argv[optind]);
		command->exit_code = EX_USAGE;
	}
	if (command->file != NULL)
		master_options_read_file(settings, command->file);
	master_options_read_environment(settings, environment);
	read_flag_settings(settings, argc, argv, command);
	if (command->exit_code == EX_OK && settings->errors_count > 0)
		command->exit_code = EX_CONFIG;
}
