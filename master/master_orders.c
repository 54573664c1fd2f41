/*
 * Orders from ops.
 *
 * ops speaks with administrators over sockets, so it may be taken over by one
 * of them; the master must not be.  What comes is therefore one struct of two
 * words, taken as a whole, and both words are judged here before anybody acts
 * on them.  All that ops could do with wrong ones is what the right ones are
 * for: to drain, reload and resize.
 *
 * Both ends stay open in the master, so that the next ops gets the same one and
 * an order of a dead one is still obeyed.
 */
#include "config.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "master/master_orders.h"
#include "shm/shm_board.h"
#include "worker/worker_log.h"

int
master_orders_open(int *ours, int *theirs)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC,
		0, pair) == -1)
		return -1;
	if (fcntl(pair[0], F_SETOWN, getpid()) == -1 ||
	    fcntl(pair[0], F_SETFL, O_NONBLOCK | O_ASYNC) == -1)
		goto close_pair;
	*ours = pair[0];
	*theirs = pair[1];
	return 0;
close_pair:
	close(pair[0]);
	close(pair[1]);
	return -1;
}

void
master_orders_close(int *ours, int *theirs)
{
	if (*ours != -1)
		close(*ours);
	if (*theirs != -1)
		close(*theirs);
	*ours = *theirs = -1;
}

static bool
is_order(const struct shm_command *command, ssize_t bytes)
{
	if (bytes != (ssize_t)sizeof(*command))
		return false;
	switch ((enum shm_command_verb)command->verb) {
	case SHM_COMMAND_DRAIN:
	case SHM_COMMAND_RELOAD:
	case SHM_COMMAND_REOPEN:
		return true;
	case SHM_COMMAND_WORKERS:
		return command->argument >= 1 &&
		       command->argument <= SHM_BOARD_WORKERS_MAX;
	}
	return false;
}

static void
say_refused(const struct shm_command *command, ssize_t bytes)
{
	static bool is_said; /* a broken ops does not fill the log */

	if (is_said)
		return;
	is_said = true;
	worker_log(WORKER_LOG_WARN, "order_refused",
	    "ops asked for what it cannot have; more of that is not logged",
	    LOG_INT("bytes", bytes), LOG_INT("verb", command->verb),
	    LOG_INT("argument", command->argument), LOG_END);
}

bool
master_orders_next(int ours, struct shm_command *command)
{
	ssize_t bytes;

	if (ours == -1)
		return false;
	for (uint32_t i = 0; i < MASTER_ORDERS_MAX; i++) {
		*command = (struct shm_command){.verb = 0};
		/* MSG_TRUNC: one that is too long says so by its size. */
		bytes = recv(
		    ours, command, sizeof(*command), MSG_DONTWAIT | MSG_TRUNC);
		if (bytes < 0)
			return false;
		if (is_order(command, bytes))
			return true;
		say_refused(command, bytes);
	}
	/* The rest in the next turn. */
	(void)raise(SIGIO);
	return false;
}
