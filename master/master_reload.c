/*
 * Reading the settings again.
 *
 * The same sources are read in the same order as at the start, into an object
 * of their own; the one in use is not touched, so that a mistake changes
 * nothing.  The environment of a process does not change, but the files that
 * it names for secrets do.
 *
 * What is made once, before the first fork, cannot be had again by a reload:
 * sockets, the cache, the user (MASTER_SETTINGS_RESTART).  Such settings keep
 * the value that is in use and are not checked again; who changed one is told.
 */
#include "config.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "master/master_reload.h"
#include "master/master_rules.h"

extern char **environ;

static struct {
	int argc;
	char **argv;
	int folder; /* where relative paths began */
} sources = {.folder = -1};

int
master_reload_init(int argc, char **argv)
{
	sources.argv = calloc((size_t)argc + 1, sizeof(*sources.argv));
	if (sources.argv == NULL)
		return -1;
	for (sources.argc = 0; sources.argc < argc; sources.argc++) {
		sources.argv[sources.argc] = strdup(argv[sources.argc]);
		if (sources.argv[sources.argc] == NULL)
			return -1;
	}
	/* A folder that we may not see only matters to relative paths. */
	sources.folder = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return 0;
}

char *const *
master_reload_arguments(void)
{
	return sources.argv;
}

int
master_reload_return(void)
{
	return sources.folder == -1 ? 0 : fchdir(sources.folder);
}

/* Everything that was said of it, a line an event. */
static void
log_errors(char *text)
{
	char *rest = text, *error;

	while ((error = strsep(&rest, "\n")) != NULL)
		if (*error != '\0')
			worker_log(WORKER_LOG_ERROR, "reload_refused",
			    "a setting is wrong, so nothing is changed",
			    LOG_STR("error", error), LOG_END);
}

/* What cannot change stays as it is. */
static void
keep(struct master_settings *fresh, const struct master_settings *current)
{
	static const enum master_setting_id kept[] = {
#define MASTER_RESTART(name) MASTER_SETTING_##name,
	    MASTER_SETTINGS_RESTART
#undef MASTER_RESTART
	};

	for (size_t i = 0; i < SHM_ARRAY_LEN(kept); i++) {
		if (!master_settings_differ(fresh, current, kept[i]))
			continue;
		worker_log(WORKER_LOG_WARN, "setting_kept",
		    "a setting was changed that needs a restart of booksd, "
		    "so its old value stays in use",
		    LOG_STR("setting", master_settings_table[kept[i]].name),
		    LOG_END);
		master_settings_copy(fresh, current, kept[i]);
	}
}

static int
read_sources(
    struct master_settings *fresh, const struct master_settings *current)
{
	struct master_command command;
	int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (sources.folder != -1)
		(void)!fchdir(sources.folder);
	master_options_read(
	    fresh, sources.argc, sources.argv, environ, &command);
	if (here != -1) {
		(void)!fchdir(here);
		close(here);
	}
	if (command.exit_code != EX_OK)
		return command.exit_code;
	keep(fresh, current);
	return master_rules_check(fresh);
}

struct master_settings *
master_reload_read(const struct master_settings *current)
{
	struct master_settings *fresh = calloc(1, sizeof(*fresh));
	struct master_options *options = calloc(1, sizeof(*options));
	size_t bytes = 0;
	char *text = NULL;
	FILE *errors = open_memstream(&text, &bytes);
	int code = EX_OSERR;

	SHM_ASSERT(sources.argv != NULL);
	if (fresh == NULL || options == NULL || errors == NULL) {
		if (errors != NULL)
			fclose(errors);
		free(text);
		free(fresh);
		free(options);
		return NULL;
	}
	master_settings_init(fresh, options, errors);
	fresh->is_reload = true;
	code = read_sources(fresh, current);
	fclose(errors);
	fresh->errors = NULL;
	if (code != EX_OK) {
		log_errors(text);
		master_reload_free(&fresh);
	}
	free(text);
	return fresh;
}

void
master_reload_free(struct master_settings **settings)
{
	struct master_options *options;

	if (*settings == NULL)
		return;
	options = (*settings)->options;
	master_settings_fini(*settings);
	free(options);
	free(*settings);
	*settings = NULL;
}
