/*
 * The admin listener.
 *
 * The master makes it for the reasons for which it makes the control socket:
 * it has the rights and outlives ops.  A unix socket is the owner's alone
 * (mode 0600) like that one; TCP is open to whoever reaches the address, and
 * ops judges who may change something.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "master/master_admin.h"

static bool
is_off(const char *text)
{
	return strcmp(text, "off") == 0;
}

static bool
is_unix(const char *text)
{
	return strncmp(text, "unix:", 5) == 0;
}

bool
master_admin_check(const char *text, const char **why)
{
	*why = NULL;
	return is_off(text) || master_listen_check(text, why);
}

static int
open_unix(struct master_admin *admin, const char *text,
    const struct master_options *options, FILE *errors)
{
	const char *why =
	    master_control_open_path(&admin->local, text + 5, options);

	if (why != NULL) {
		fprintf(errors, "booksd: cannot make the admin socket %s: %s\n",
		    text, why);
		return EX_CANTCREAT;
	}
	admin->fd[admin->count++] = admin->local.fd;
	snprintf(admin->text, sizeof(admin->text), "%s", text);
	return EX_OK;
}

static void
take_listeners(struct master_admin *admin)
{
	size_t len = 0;

	for (uint32_t i = 0; i < admin->tcp.count; i++) {
		const struct master_listener *one = &admin->tcp.listener[i];

		admin->fd[admin->count++] = one->fd;
		len += (size_t)snprintf(admin->text + len,
		    sizeof(admin->text) - len, i > 0 ? " %s" : "%s", one->text);
		if (len >= sizeof(admin->text))
			len = sizeof(admin->text) - 1;
	}
}

static int
open_tcp(struct master_admin *admin, const char *text, FILE *errors)
{
	const struct master_list list = {.count = 1, .item = {text}};
	int code = master_listen_open(&admin->tcp, &list, errors);

	if (code != EX_OK)
		return code;
	if (admin->tcp.count > OPS_ADMIN_MAX) {
		fprintf(errors,
		    "booksd: admin_listen=%s: at most %d addresses\n", text,
		    OPS_ADMIN_MAX);
		master_listen_close(&admin->tcp);
		return EX_CONFIG;
	}
	take_listeners(admin);
	return EX_OK;
}

/* Nobody asked for it, so nobody has to miss it. */
static int
open_default(struct master_admin *admin, const char *text)
{
	char *said = NULL;
	size_t said_bytes = 0;
	FILE *errors = open_memstream(&said, &said_bytes);
	int code = EX_OSERR;

	if (errors != NULL) {
		code = open_tcp(admin, text, errors);
		fclose(errors);
	}
	if (code != EX_OK) {
		if (said_bytes > 0)
			said[strcspn(said, "\n")] = '\0';
		worker_log(WORKER_LOG_WARN, "admin_listener_missing",
		    "there are no metrics and no dashboard of this booksd: its "
		    "default address cannot be had (the setting admin_listen "
		    "gives it another one)",
		    LOG_STR("address", text),
		    LOG_STR("reason", said_bytes > 0 ? said : "no memory"),
		    LOG_END);
	}
	free(said);
	return EX_OK;
}

int
master_admin_open(struct master_admin *admin,
    const struct master_options *options, FILE *errors)
{
	const char *text = options->admin_listen;
	int code = EX_OK;

	*admin = (struct master_admin){.text = "off", .local = {.fd = -1}};
	if (is_off(text))
		return EX_OK;
	if (is_unix(text))
		code = open_unix(admin, text, options, errors);
	else if (options->admin_listen_is_default)
		code = open_default(admin, text);
	else
		code = open_tcp(admin, text, errors);
	return code;
}

void
master_admin_adopt(
    struct master_admin *admin, const struct master_inherit_sockets *given)
{
	*admin = (struct master_admin){.local = {.fd = -1}};
	/* Of whatever kind: what differs is only how they are made. */
	master_listen_adopt(&admin->tcp, given);
	take_listeners(admin);
}

void
master_admin_forget(const struct master_admin *admin)
{
	for (uint32_t i = 0; i < admin->count; i++)
		close(admin->fd[i]);
}

void
master_admin_leave(struct master_admin *admin)
{
	master_control_leave(&admin->local);
	master_listen_leave(&admin->tcp);
}

void
master_admin_close(struct master_admin *admin)
{
	master_control_close(&admin->local);
	master_listen_close(&admin->tcp);
	admin->count = 0;
}
