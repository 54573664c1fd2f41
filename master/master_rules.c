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

#include "master/master_admin.h"
#include "master/master_cache.h"
#include "master/master_control.h"
#include "master/master_ecs.h"
#include "master/master_listen.h"
#include "master/master_memory.h"
#include "master/master_rules.h"
#include "master/master_secret.h"
#include "master/master_sizing.h"
#include "master/master_value.h"

#define DB_CONNECTIONS_AUTO  4 /* per worker */
#define DB_CONNECTIONS_LEAST 2 /* per worker: a stream takes one */
#define ADMIN_TOKEN_LEAST    16
#define WATCHDOG_LEAST_MS    100
#define CACHE_SHARE_MAX	     75 /* per cent of the memory that is left */

static void
check_listen(struct master_settings *settings)
{
	const struct master_list *list = &settings->options->listen;
	const char *why;

	if (settings->is_reload)
		return;
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
	uint32_t most = MASTER_VALUE_MOST(options->workers);
	const struct ops_ecs_task *task = master_ecs_task();
	struct master_sizing sizing;

	master_sizing_decide("", master_sizing_affinity(),
	    task != NULL ? task->millicpus : 0, &sizing);
	options->limit_millicpus = sizing.millicpus;
	options->workers_is_auto = options->workers == 0;
	options->workers = MASTER_VALUE_LEAST(options->workers);
	if (options->workers == 0)
		options->workers = sizing.workers;
	options->workers_min = options->workers;
	options->workers_max = most > 0 ? most : options->workers;
	if (!options->workers_is_auto) {
		snprintf(options->workers_source,
		    sizeof(options->workers_source), "setting");
		return;
	}
	memcpy(options->workers_source, sizing.source, sizeof(sizing.source));
}

static void
decide_connections(struct master_settings *settings)
{
	struct master_options *options = settings->options;

	if (options->database_connections == 0)
		options->database_connections =
		    options->workers_max * DB_CONNECTIONS_AUTO;
	if (options->database_connections <
	    options->workers_max * DB_CONNECTIONS_LEAST)
		master_settings_refuse(settings,
		    MASTER_SETTING_database_connections,
		    "%u workers need at least %u connections",
		    options->workers_max,
		    options->workers_max * DB_CONNECTIONS_LEAST);
}

void
master_rules_check_memory(
    struct master_settings *settings, const struct master_memory *memory)
{
	struct shm_cache_options wanted;
	char map_text[MASTER_MEMORY_TEXT], left_text[MASTER_MEMORY_TEXT];
	char fits_text[MASTER_MEMORY_TEXT];
	uint64_t map, fits;

	master_cache_wanted(settings->options, &wanted);
	map = shm_cache_map_bytes(&wanted);
	fits = memory->left / 100 * CACHE_SHARE_MAX;
	if (map <= fits)
		return;
	master_memory_text(map, map_text);
	master_memory_text(memory->left, left_text);
	master_memory_text(fits, fits_text);
	master_settings_refuse(settings, MASTER_SETTING_cache_size,
	    "the cache would take %s, and of the %s that are left it may take "
	    "%d %%, %s: %s",
	    map_text, left_text, CACHE_SHARE_MAX, fits_text, memory->source);
}

/* Is there enough of it, and not too much? */
static void
check_cache_size(struct master_settings *settings)
{
	struct shm_cache_options wanted;
	struct master_memory memory;
	char least_text[MASTER_MEMORY_TEXT];
	uint64_t least;

	/* With a reload the cache is there, and counts as used memory. */
	if (settings->options->cache_bytes == 0 || settings->is_reload)
		return;
	master_cache_wanted(settings->options, &wanted);
	if (!shm_cache_is_large_enough(&wanted, &least)) {
		master_memory_text(least, least_text);
		master_settings_refuse(settings, MASTER_SETTING_cache_size,
		    "need at least %s for %u worker%s, or 0 for no cache",
		    least_text, wanted.workers, wanted.workers == 1 ? "" : "s");
		return;
	}
	master_memory_left("", &memory);
	master_rules_check_memory(settings, &memory);
}

/* It becomes a field's value as it is: RFC 9110, 5.5. */
static void
check_cache_control(struct master_settings *settings)
{
	const char *text = settings->options->worker.cache_control;
	size_t len = strlen(text);

	for (const char *at = text; *at != '\0'; at++)
		if (*at < 0x20 || *at > 0x7e) {
			master_settings_refuse(settings,
			    MASTER_SETTING_cache_control,
			    "need a field value: printable ASCII");
			return;
		}
	if (len > 0 && (text[0] == ' ' || text[len - 1] == ' '))
		master_settings_refuse(settings, MASTER_SETTING_cache_control,
		    "need no space at the beginning and the end");
}

static void
check_secret(struct master_settings *settings)
{
	const char *why;

	if (!master_secret_check(settings->options->database_secret, &why))
		master_settings_refuse(
		    settings, MASTER_SETTING_database_secret, "%s", why);
}

static void
check_control_socket(struct master_settings *settings)
{
	const char *why;

	if (settings->is_reload)
		return;
	if (!master_control_check(settings->options->control_socket, &why))
		master_settings_refuse(
		    settings, MASTER_SETTING_control_socket, "%s", why);
}

/* It travels in a header field, and is tried by whoever gets there. */
static void
check_admin(struct master_settings *settings)
{
	const struct master_setting_value *value =
	    &settings->value[MASTER_SETTING_admin_listen];
	const char *token = settings->options->admin_token, *why;

	settings->options->admin_listen_is_default =
	    value->source == MASTER_SOURCE_DEFAULT;
	if (!settings->is_reload &&
	    !master_admin_check(settings->options->admin_listen, &why))
		master_settings_refuse(
		    settings, MASTER_SETTING_admin_listen, "%s", why);
	for (const char *at = token; *at != '\0'; at++)
		if (*at <= 0x20 || *at > 0x7e) {
			master_settings_refuse(settings,
			    MASTER_SETTING_admin_token,
			    "need printable ASCII without spaces");
			return;
		}
	if (token[0] != '\0' && strlen(token) < ADMIN_TOKEN_LEAST)
		master_settings_refuse(settings, MASTER_SETTING_admin_token,
		    "need at least %d characters", ADMIN_TOKEN_LEAST);
}

uint32_t
master_rules_share(
    const struct master_options *options, uint32_t workers, uint32_t slot)
{
	uint32_t budget = options->database_connections;
	uint32_t share = budget / workers + (slot < budget % workers);

	return share < DB_CONNECTIONS_LEAST ? DB_CONNECTIONS_LEAST : share;
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
	check_cache_size(settings);
	check_cache_control(settings);
	check_control_socket(settings);
	check_secret(settings);
	check_admin(settings);
	master_value_duration(options->worker.drain_timeout_ms, timeout);
	if (options->worker.drain_delay_ms >= options->worker.drain_timeout_ms)
		master_settings_refuse(settings, MASTER_SETTING_drain_delay,
		    "need less than drain_timeout, which is %s", timeout);
	if (options->worker.watchdog_ms > 0 &&
	    options->worker.watchdog_ms < WATCHDOG_LEAST_MS)
		master_settings_refuse(settings, MASTER_SETTING_worker_watchdog,
		    "need 0 or at least %d ms", WATCHDOG_LEAST_MS);
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
