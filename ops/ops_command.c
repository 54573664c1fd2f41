/*
 * Commands to the master: a small message each (shm_command.h).
 *
 * The master answers nothing.  202 says that the message is on its way; what
 * came of it stands on the board, and so in /status.json, and in the log.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "ops/ops_command.h"
#include "shm/shm_command.h"

static const char *const verbs[] = {
    [SHM_COMMAND_DRAIN] = "drain",
    [SHM_COMMAND_RELOAD] = "reload",
    [SHM_COMMAND_WORKERS] = "workers",
};

static bool
command_send(const struct ops_request *request, enum shm_command_verb verb,
    uint32_t argument)
{
	const struct shm_command command = {verb, argument};
	int fd = request->options->command_fd;

	if (fd == -1)
		return false;
	if (send(fd, &command, sizeof(command), MSG_DONTWAIT | MSG_NOSIGNAL) ==
	    (ssize_t)sizeof(command))
		return true;
	ops_say(request->options, OPS_LOG_WARN, "command_failed",
	    "the master could not be asked for what an administrator wants",
	    OPS_LOG_STR("command", verbs[verb]),
	    OPS_LOG_STR("error", strerror(errno)));
	return false;
}

static enum MHD_Result
command(const struct ops_request *request, enum shm_command_verb verb,
    uint32_t argument)
{
	json_t *root;

	if (!command_send(request, verb, argument))
		return ops_http_problem(request, MHD_HTTP_SERVICE_UNAVAILABLE,
		    "The master cannot be asked for that now.");
	ops_say(request->options, OPS_LOG_INFO, "command_sent",
	    "an administrator asks the master for something",
	    OPS_LOG_STR("command", verbs[verb]),
	    OPS_LOG_INT("argument", argument));
	root = json_pack("{s:b,s:s}", "accepted", 1, "command", verbs[verb]);
	if (verb == SHM_COMMAND_WORKERS)
		json_object_set_new(root, "workers", json_integer(argument));
	return ops_http_json(request, MHD_HTTP_ACCEPTED, root);
}

static bool
no_argument(void *arg, const char *key, const char *value, size_t len)
{
	(void)arg;
	(void)key;
	(void)value;
	(void)len;
	return false;
}

static enum MHD_Result
plain_command(const struct ops_request *request, enum shm_command_verb verb)
{
	if (!ops_http_arguments(request, no_argument, NULL))
		return ops_http_problem(request, MHD_HTTP_BAD_REQUEST,
		    "There are no arguments to this.");
	return command(request, verb, 0);
}

enum MHD_Result
ops_command_drain(const struct ops_request *request)
{
	return plain_command(request, SHM_COMMAND_DRAIN);
}

enum MHD_Result
ops_command_reload(const struct ops_request *request)
{
	return plain_command(request, SHM_COMMAND_RELOAD);
}

enum MHD_Result
ops_command_workers(const struct ops_request *request)
{
	struct ops_http_number number = {
	    .key = "n", .least = 1, .most = SHM_BOARD_WORKERS_MAX};

	if (!ops_http_number(request, &number) || !number.is_given)
		return ops_http_problem(request, MHD_HTTP_BAD_REQUEST,
		    "The argument is n, 1 to 31.");
	return command(request, SHM_COMMAND_WORKERS, (uint32_t)number.value);
}

_Static_assert(SHM_BOARD_WORKERS_MAX == 31, "a sentence above says so");
