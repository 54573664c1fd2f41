/*
 * What no single setting shows.
 *
 * The table checks a value by itself; here it meets the others and the
 * machine: the budget of connections the number of workers, an address the
 * resolver, the user the password file.  What was left to "auto" is decided
 * first, because the rules are about the numbers that will really be used.
 *
 * Nothing is changed on the machine: booksd -t runs all of this.
 */
#include "config.h"

#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "master/master_listen.h"
#include "master/master_rules.h"
#include "master/master_sizing.h"
#include "master/master_value.h"

#define DB_CONNECTIONS_AUTO  4 /* per worker */
#define DB_CONNECTIONS_LEAST 2 /* per worker: a stream takes one */

static void
check_listen(struct master_settings *settings)
{
	const struct master_list *list = &settings->options->listen;
	const char *why;

	if (list->count == 0)
		master_settings_refuse(settings, MASTER_SETTING_listen,
		    "need at least one address");
	for (uint32_t i = 0; i < list->count; i++)
		if (!master_listen_check(list->item[i], &why))
			master_settings_refuse(settings, MASTER_SETTING_listen,
			    "%s: %s", list->item[i], why);
}

static void
check_features(struct master_settings *settings)
{
	const struct master_list *list = &settings->options->io_uring_without;
	const char *name = NULL;
	unsigned bit;

	settings->options->worker.io_without = 0;
	for (uint32_t i = 0; i < list->count; i++) {
		for (bit = 0; (name = io_feature_name(bit)) != NULL; bit++)
			if (strcmp(name, list->item[i]) == 0)
				break;
		if (name != NULL)
			settings->options->worker.io_without |= 1u << bit;
		else
			master_settings_refuse(settings,
			    MASTER_SETTING_io_uring_without,
			    "no feature is called '%s' (the first is '%s')",
			    list->item[i], io_feature_name(0));
	}
}

static void
check_database(struct master_settings *settings)
{
	char *why = NULL;

	if (worker_database_check(settings->options->worker.database, &why))
		return;
	master_settings_refuse(settings, MASTER_SETTING_database, "%s",
	    why != NULL ? why : "no memory");
	free(why);
}

static void
decide_workers(struct master_options *options)
{
	struct master_sizing sizing;

	if (options->workers > 0) {
		snprintf(options->workers_source,
		    sizeof(options->workers_source), "setting");
		return;
	}
	master_sizing_decide("", master_sizing_affinity(), &sizing);
	options->workers = sizing.workers;
	memcpy(options->workers_source, sizing.source, sizeof(sizing.source));
}

static void
decide_connections(struct master_settings *settings)
{
	struct master_options *options = settings->options;

	if (options->database_connections == 0)
		options->database_connections =
		    options->workers * DB_CONNECTIONS_AUTO;
	if (options->database_connections <
	    options->workers * DB_CONNECTIONS_LEAST)
		master_settings_refuse(settings,
		    MASTER_SETTING_database_connections,
		    "%u workers need at least %u connections", options->workers,
		    options->workers * DB_CONNECTIONS_LEAST);
}

uint32_t
master_rules_share(const struct master_options *options, uint32_t slot)
{
	uint32_t share = options->database_connections / options->workers;

	return share +
	       (slot < options->database_connections % options->workers);
}

/* EX_NOUSER, EX_NOPERM, or EX_OK with user_id and group_id decided. */
static int
check_user(struct master_settings *settings)
{
	struct master_options *options = settings->options;
	struct passwd *entry;

	options->drops_privileges = false;
	if (options->user[0] == '\0')
		return EX_OK;
	entry = getpwnam(options->user);
	if (entry == NULL) {
		master_settings_refuse(
		    settings, MASTER_SETTING_user, "there is no such user");
		return EX_NOUSER;
	}
	options->user_id = entry->pw_uid;
	options->group_id = entry->pw_gid;
	if (geteuid() == 0) {
		options->drops_privileges = true;
		options->log.owner = entry->pw_uid;
		options->log.group = entry->pw_gid;
		return EX_OK;
	}
	if (geteuid() == entry->pw_uid)
		return EX_OK;
	master_settings_refuse(
	    settings, MASTER_SETTING_user, "only root can become another user");
	return EX_NOPERM;
}

int
master_rules_check(struct master_settings *settings)
{
	struct master_options *options = settings->options;
	char timeout[32];
	int code;

	decide_workers(options);
	decide_connections(settings);
	check_listen(settings);
	check_features(settings);
	check_database(settings);
	master_value_duration(options->worker.drain_timeout_ms, timeout);
	if (options->worker.drain_delay_ms >= options->worker.drain_timeout_ms)
		master_settings_refuse(settings, MASTER_SETTING_drain_delay,
		    "need less than drain_timeout, which is %s", timeout);
	if (options->pid_file[0] != '\0' && options->pid_file[0] != '/')
		master_settings_refuse(
		    settings, MASTER_SETTING_pid_file, "need an absolute path");
	code = settings->errors_count > 0 ? EX_CONFIG : EX_OK;
	if (code == EX_OK)
		code = check_user(settings);
	else
		(void)check_user(settings);
	return code;
}
