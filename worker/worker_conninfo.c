/*
 * The connection string, taken apart and put together again.
 *
 * libpq would look up names itself, but blockingly and inside PQconnectPoll().
 * So the hosts are split here as libpq splits them (host, hostaddr and port
 * are comma-separated lists), each name is replaced by its addresses, and
 * libpq gets three lists of equal length: the name again (certificates are
 * verified against it), the address, the port.
 *
 * Precedence, as libpq has it: the string, a service file, libpq's
 * environment, and then our table of defaults instead of libpq's.
 *
 * Secrets: text from libpq's parser can quote a piece of a badly written
 * password, so what it quotes is cut out when the string may hold one.
 */
#include "config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/worker.h"
#include "worker/worker_conninfo.h"

#define CONNINFO_PARAMS_MAX 96 /* libpq 15 knows 42 keywords */

/* A directory that cannot be one: no socket is ever found in it. */
#define CONNINFO_NOWHERE "/dev/null/nowhere"

static const struct {
	const char *keyword;
	const char *value;
	bool is_forced;
} conninfo_defaults[] = {
    /* GSS negotiation asks name servers and key servers, blockingly. */
    {"gssencmode", "disable", true},
    {"client_encoding", "UTF8", true},
    {"target_session_attrs", "read-write", false},
    /* A host that vanished is noticed in 11 s, also with data under way. */
    {"keepalives_idle", "5", false},
    {"keepalives_interval", "2", false},
    {"keepalives_count", "3", false},
    {"tcp_user_timeout", "5000", false},
    {"application_name", "booksd", false},
};

struct conninfo_host {
	char *name;
	char *addr;
	char *port;
	bool is_lookup; /* name is neither address nor socket */
};

struct worker_conninfo {
	PQconninfoOption *given;    /* by the string */
	PQconninfoOption *defaults; /* by service file, environment, libpq */
	struct conninfo_host hosts[WORKER_CONNINFO_HOSTS_MAX];
	uint32_t hosts_count;
	const char *names[WORKER_CONNINFO_HOSTS_MAX];
	uint32_t names_count;
};

struct conninfo_params {
	const char *keywords[CONNINFO_PARAMS_MAX + 1];
	const char *values[CONNINFO_PARAMS_MAX + 1];
	uint32_t count;
};

static bool why_set(char **why, const char *format, ...) SHM_PRINTF(2, 3);

/* Always false, so that a check can end with it. */
static bool
why_set(char **why, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (vasprintf(why, format, args) == -1)
		*why = NULL;
	va_end(args);
	return false;
}

/* ---- values */

static PQconninfoOption *
option_find(PQconninfoOption *options, const char *keyword)
{
	for (PQconninfoOption *o = options; o->keyword != NULL; o++)
		if (strcmp(o->keyword, keyword) == 0)
			return o;
	return NULL;
}

static bool
option_has_default_changed(const PQconninfoOption *option)
{
	return option->val != NULL &&
	       (option->compiled == NULL ||
		   strcmp(option->val, option->compiled) != 0);
}

/* NULL: libpq decides when it connects. */
static const char *
conninfo_value(const struct worker_conninfo *info, const char *keyword)
{
	const PQconninfoOption *given = option_find(info->given, keyword);
	const PQconninfoOption *fallback = option_find(info->defaults, keyword);

	for (size_t i = 0; i < SHM_ARRAY_LEN(conninfo_defaults); i++) {
		if (strcmp(conninfo_defaults[i].keyword, keyword) != 0)
			continue;
		if (conninfo_defaults[i].is_forced)
			return conninfo_defaults[i].value;
		if (given != NULL && given->val != NULL)
			return given->val;
		if (fallback != NULL && option_has_default_changed(fallback))
			return fallback->val;
		return conninfo_defaults[i].value;
	}
	if (given != NULL && given->val != NULL)
		return given->val;
	return fallback == NULL ? NULL : fallback->val;
}

static void
params_add(
    struct conninfo_params *params, const char *keyword, const char *value)
{
	SHM_ASSERT(params->count < CONNINFO_PARAMS_MAX);
	if (value == NULL)
		return;
	params->keywords[params->count] = keyword;
	params->values[params->count++] = value;
}

/* All but the hosts, which the caller adds. */
static void
params_init(struct conninfo_params *params, const struct worker_conninfo *info)
{
	*params = (struct conninfo_params){.count = 0};
	for (PQconninfoOption *o = info->given; o->keyword != NULL; o++)
		if (strcmp(o->keyword, "host") != 0 &&
		    strcmp(o->keyword, "hostaddr") != 0 &&
		    strcmp(o->keyword, "port") != 0)
			params_add(params, o->keyword,
			    conninfo_value(info, o->keyword));
}

/* libpq reads a service file only for PGSERVICE when it is asked for defaults,
 * so the string's service takes that place for the moment. */
static PQconninfoOption *
conninfo_read_defaults(const char *service)
{
	const char *set = getenv("PGSERVICE");
	char *before = set == NULL ? NULL : strdup(set);
	PQconninfoOption *defaults;

	if (service != NULL)
		setenv("PGSERVICE", service, 1);
	defaults = PQconndefaults();
	if (service != NULL && before != NULL)
		setenv("PGSERVICE", before, 1);
	else if (service != NULL)
		unsetenv("PGSERVICE");
	free(before);
	return defaults;
}

/* ---- hosts */

static bool
is_address(const char *text)
{
	struct in6_addr v6;
	struct in_addr v4;
	char bare[INET6_ADDRSTRLEN + 1];
	size_t len = strcspn(text, "%"); /* fe80::1%eth0 */

	if (len >= sizeof(bare))
		return false;
	memcpy(bare, text, len);
	bare[len] = '\0';
	return inet_pton(AF_INET, text, &v4) == 1 ||
	       inet_pton(AF_INET6, bare, &v6) == 1;
}

static uint32_t
list_count(const char *list)
{
	uint32_t count = 1;

	if (list == NULL || list[0] == '\0')
		return 0;
	for (; *list != '\0'; list++)
		count += *list == ',';
	return count;
}

/* Element i of a list as a copy; "" past its end, the only element for all. */
static char *
list_element(const char *list, uint32_t i)
{
	if (list == NULL)
		return strdup("");
	if (list_count(list) == 1)
		i = 0;
	for (; i > 0 && *list != '\0'; i--) {
		list += strcspn(list, ",");
		list += *list == ',';
	}
	return strndup(list, strcspn(list, ","));
}

static bool
port_is_valid(const char *port)
{
	char *end;
	long number;

	if (port[0] == '\0')
		return true; /* libpq's default */
	number = strtol(port, &end, 10);
	return isdigit((unsigned char)port[0]) && *end == '\0' && number >= 1 &&
	       number <= 65535;
}

static bool
host_split(struct conninfo_host *host, char **why)
{
	if (host->name == NULL || host->addr == NULL || host->port == NULL)
		return why_set(why, "no memory");
	if (!port_is_valid(host->port))
		return why_set(why, "a port must be 1 to 65535");
	if (host->addr[0] != '\0' && !is_address(host->addr))
		return why_set(why, "a hostaddr must be a numeric address");
	host->is_lookup = host->addr[0] == '\0' && host->name[0] != '\0' &&
			  host->name[0] != '/' && host->name[0] != '@' &&
			  !is_address(host->name);
	return true;
}

static bool
conninfo_split_hosts(struct worker_conninfo *info, char **why)
{
	const char *names = conninfo_value(info, "host");
	const char *addrs = conninfo_value(info, "hostaddr");
	const char *ports = conninfo_value(info, "port");
	uint32_t count =
	    list_count(addrs) > 0 ? list_count(addrs) : list_count(names);

	if (count == 0)
		count = 1; /* libpq's default socket */
	if (count > WORKER_CONNINFO_HOSTS_MAX)
		return why_set(
		    why, "more than %d hosts", WORKER_CONNINFO_HOSTS_MAX);
	if (list_count(addrs) > 0 && list_count(names) > 0 &&
	    list_count(names) != count)
		return why_set(why, "%u host names for %u host addresses",
		    list_count(names), count);
	if (list_count(ports) > 1 && list_count(ports) != count)
		return why_set(
		    why, "%u ports for %u hosts", list_count(ports), count);
	for (uint32_t i = 0; i < count; i++) {
		struct conninfo_host *host = &info->hosts[info->hosts_count++];

		host->name = list_element(names, i);
		host->addr = list_element(addrs, i);
		host->port = list_element(ports, i);
		if (!host_split(host, why))
			return false;
		if (host->is_lookup)
			info->names[info->names_count++] = host->name;
	}
	return true;
}

/* ---- checking */

/* libpq's words without what they quote, if that may be part of a secret. */
static bool
why_from_libpq(char **why, const char *message, const char *text)
{
	bool may_hold_secret = strcasestr(text, "pass") != NULL ||
			       strcasestr(text, "secret") != NULL ||
			       strchr(text, '@') != NULL;
	const char *first = strchr(message, '"');
	const char *last = strrchr(message, '"');
	size_t len = strcspn(message, "\n");

	if (!may_hold_secret || first == NULL)
		return why_set(why, "%.*s", (int)len, message);
	last = last == first ? "" : last + 1;
	return why_set(why, "%.*s\"...\"%.*s", (int)(first - message), message,
	    (int)strcspn(last, "\n"), last);
}

/* Let libpq judge the other values: it does so when a connection starts, and
 * this one ends at a socket that cannot exist. */
static bool
conninfo_try_values(
    const struct worker_conninfo *info, const char *text, char **why)
{
	struct conninfo_params params;
	PGconn *conn;
	bool ok;

	params_init(&params, info);
	params_add(&params, "host", CONNINFO_NOWHERE);
	params_add(&params, "port", "5432");
	conn = PQconnectStartParams(params.keywords, params.values, 0);
	if (conn == NULL)
		return why_set(why, "no memory");
	ok = strstr(PQerrorMessage(conn), CONNINFO_NOWHERE) != NULL;
	if (!ok)
		why_from_libpq(why, PQerrorMessage(conn), text);
	PQfinish(conn);
	return ok;
}

/* What more gives replaces what was given. */
static bool
conninfo_merge(struct worker_conninfo *info, const char *more, char **why)
{
	PQconninfoOption *options = PQconninfoParse(more, NULL);
	bool ok = true;

	/* libpq's words could quote the secret. */
	if (options == NULL)
		return why_set(why, "the database's secret cannot be read");
	for (const PQconninfoOption *o = options; ok && o->keyword != NULL;
	     o++) {
		PQconninfoOption *given = option_find(info->given, o->keyword);

		if (o->val == NULL || given == NULL)
			continue;
		free(given->val);
		given->val = strdup(o->val);
		ok = given->val != NULL;
	}
	PQconninfoFree(options);
	return ok || why_set(why, "no memory");
}

static bool
conninfo_read(struct worker_conninfo *info, const char *text, const char *more,
    char **why)
{
	const PQconninfoOption *option;
	char *message = NULL;

	info->given = PQconninfoParse(text, &message);
	if (info->given == NULL && message != NULL) {
		why_from_libpq(why, message, text);
		PQfreemem(message);
		return false;
	}
	if (info->given == NULL)
		return why_set(why, "no memory");
	if (more != NULL && !conninfo_merge(info, more, why))
		return false;
	option = option_find(info->given, "service");
	info->defaults =
	    conninfo_read_defaults(option == NULL ? NULL : option->val);
	if (info->defaults == NULL)
		return why_set(why, "no memory");
	option = option_find(info->given, "gssencmode");
	if (option != NULL && option->val != NULL &&
	    strcmp(option->val, "require") == 0)
		return why_set(why, "gssencmode=require is not supported");
	return conninfo_split_hosts(info, why) &&
	       conninfo_try_values(info, more == NULL ? text : "password", why);
}

struct worker_conninfo *
worker_conninfo_new(const char *text, const char *more, char **why)
{
	struct worker_conninfo *info = calloc(1, sizeof(*info));

	if (info == NULL) {
		why_set(why, "no memory");
		return NULL;
	}
	if (!conninfo_read(info, text, more, why))
		worker_conninfo_free(&info);
	return info;
}

void
worker_conninfo_free(struct worker_conninfo **info)
{
	struct worker_conninfo *old = *info;

	if (old == NULL)
		return;
	*info = NULL;
	for (uint32_t i = 0; i < old->hosts_count; i++) {
		free(old->hosts[i].name);
		free(old->hosts[i].addr);
		free(old->hosts[i].port);
	}
	if (old->given != NULL)
		PQconninfoFree(old->given);
	if (old->defaults != NULL)
		PQconninfoFree(old->defaults);
	free(old);
}

/* ---- connecting */

uint32_t
worker_conninfo_names(
    const struct worker_conninfo *info, const char *const **names)
{
	*names = info->names;
	return info->names_count;
}

static uint32_t
host_targets(const struct conninfo_host *host,
    const struct worker_resolve *resolve, uint32_t name)
{
	return host->is_lookup && resolve != NULL
		   ? worker_resolve_count(resolve, name)
		   : 1;
}

uint32_t
worker_conninfo_targets(
    const struct worker_conninfo *info, const struct worker_resolve *resolve)
{
	uint32_t count = 0, name = 0;

	for (uint32_t i = 0; i < info->hosts_count; i++) {
		count += host_targets(&info->hosts[i], resolve, name);
		name += info->hosts[i].is_lookup;
	}
	return count;
}

struct conninfo_target {
	const char *name;
	const char *addr;
	const char *port;
};

static struct conninfo_target
conninfo_target(const struct worker_conninfo *info,
    const struct worker_resolve *resolve, uint32_t target)
{
	const struct conninfo_host *host = info->hosts;
	uint32_t name = 0, count;

	SHM_ASSERT(target < worker_conninfo_targets(info, resolve));
	while (target >= (count = host_targets(host, resolve, name))) {
		target -= count;
		name += host->is_lookup;
		host++;
	}
	return (struct conninfo_target){.name = host->name,
	    .addr = host->is_lookup && resolve != NULL
			? worker_resolve_address(resolve, name, target)
			: host->addr,
	    .port = host->port};
}

/* Three comma-separated lists in three streams. */
static void
targets_print(FILE *const stream[3], const struct worker_conninfo *info,
    const struct worker_resolve *resolve, uint32_t first)
{
	uint32_t count = worker_conninfo_targets(info, resolve);

	for (uint32_t i = 0; i < count; i++) {
		struct conninfo_target target =
		    conninfo_target(info, resolve, (first + i) % count);
		const char *comma = i == 0 ? "" : ",";

		fprintf(stream[0], "%s%s", comma, target.name);
		fprintf(stream[1], "%s%s", comma, target.addr);
		fprintf(stream[2], "%s%s", comma, target.port);
	}
}

PGconn *
worker_conninfo_start(const struct worker_conninfo *info,
    const struct worker_resolve *resolve, uint32_t first)
{
	static const char *const keyword[3] = {"host", "hostaddr", "port"};
	struct conninfo_params params;
	char *list[3] = {NULL, NULL, NULL};
	FILE *stream[3];
	size_t size[3];
	PGconn *conn = NULL;
	bool ok = true;

	for (int i = 0; i < 3; i++) {
		stream[i] = open_memstream(&list[i], &size[i]);
		ok = ok && stream[i] != NULL;
	}
	if (ok)
		targets_print(stream, info, resolve, first);
	for (int i = 0; i < 3; i++)
		ok = (stream[i] != NULL && fclose(stream[i]) == 0) && ok;
	params_init(&params, info);
	for (int i = 0; i < 3 && ok; i++)
		if (list[i][strspn(list[i], ",")] != '\0')
			params_add(&params, keyword[i], list[i]);
	if (ok)
		conn = PQconnectStartParams(params.keywords, params.values, 0);
	/* Before the first poll, so that a failure's message ends with its
	 * SQLSTATE in any language and holds no text of the server's. */
	if (conn != NULL)
		PQsetErrorVerbosity(conn, PQERRORS_SQLSTATE);
	for (int i = 0; i < 3; i++)
		free(list[i]);
	return conn;
}
