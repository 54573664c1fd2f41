/*
 * How many workers there are, and which.
 *
 * There are SHM_BOARD_SLOTS places and always at least one more than workers:
 * who is replaced in order works on in its place while its successor begins in
 * another.
 *
 *	            start                 SIGHUP                 it ended
 *	free ------------------> wanted ------------> leaving -----------> free
 *	              ^            | it died
 *	              +------------+ (after a pause, master_slot.c)
 *
 * INVARIANTS
 *   W1  wanted slots are brought to the number of workers that are wanted by
 *       master_supervise_workers_tick(), nowhere else; who wants another number
 *       changes only that.
 *   W2  leaving is for ever: such a process ends, by itself or, when its time
 *is up, by SIGKILL.
 *
 * Of too many the youngest go: the oldest have the most connections.
 */
#include "config.h"

#include <signal.h>

#include "master/master_supervise_part.h"

#define SCALE_PERIOD_US 1000000
#define LEAVE_GRACE_US	500000 /* after drain_timeout */

/* ---- counting */

bool
master_supervise_is_wanted(const struct master_slot *slot)
{
	return !slot->is_leaving && !master_slot_is_free(slot);
}

static uint32_t
wanted_count(const struct master_supervisor *supervisor)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
		count += master_supervise_is_wanted(&supervisor->worker[i]);
	return count;
}

uint32_t
master_supervise_place(const struct master_supervisor *supervisor)
{
	uint32_t i = 0;

	while (
	    i < SHM_BOARD_SLOTS && !master_slot_is_free(&supervisor->worker[i]))
		i++;
	return i;
}

static bool
goes_before(const struct master_slot *a, const struct master_slot *b)
{
	if (a->generation != b->generation)
		return a->generation < b->generation;
	if ((a->pid == 0) != (b->pid == 0))
		return a->pid == 0;
	return a->started_us >= b->started_us;
}

/* Who goes when there are too many: one with settings of before, else one that
 * does not live yet, else the last one that began.  A pair of a roll stays. */
static uint32_t
surplus(const struct master_supervisor *supervisor)
{
	bool has_pair = master_supervise_roll_extra(supervisor) > 0;
	const struct master_roll *roll = &supervisor->roll;
	uint32_t found = SHM_BOARD_SLOTS;

	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++) {
		const struct master_slot *slot = &supervisor->worker[i];

		if (!master_supervise_is_wanted(slot) ||
		    (has_pair && (i == roll->old || i == roll->successor)))
			continue;
		if (found == SHM_BOARD_SLOTS ||
		    goes_before(slot, &supervisor->worker[found]))
			found = i;
	}
	return found;
}

/* ---- what is wanted */

static void
want(struct master_supervisor *supervisor, uint32_t wanted)
{
	struct master_heritage *heritage = supervisor->heritage;
	uint32_t usual = heritage->options->workers_max;

	supervisor->wanted = wanted;
	/* The budget of connections is divided among as many as there may be
	 * without anybody's interference, or more if there are more. */
	heritage->shares = wanted > usual ? wanted : usual;
	shm_board_set(heritage->board->workers_wanted, wanted);
}

void
master_supervise_resize(
    struct master_supervisor *supervisor, uint32_t wanted, const char *reason)
{
	uint32_t before = supervisor->wanted;

	SHM_ASSERT(wanted >= 1 && wanted <= SHM_BOARD_WORKERS_MAX);
	if (supervisor->phase != MASTER_PHASE_RUNNING)
		return;
	(void)master_supervise_wake(supervisor);
	want(supervisor, wanted);
	if (wanted == before)
		return;
	shm_board_count(supervisor->heritage->board, SHM_BOARD_EVENT_resize);
	worker_log(WORKER_LOG_INFO, "resize", "the number of workers changes",
	    LOG_STR("reason", reason), LOG_INT("from", before),
	    LOG_INT("to", wanted), LOG_END);
}

/* Of workers = MIN..MAX no more than there are CPUs, but MIN. */
static void
limit_range(struct master_supervisor *supervisor, uint32_t cpus)
{
	const struct master_options *options = supervisor->heritage->options;
	uint32_t most =
	    cpus > options->workers_min ? cpus : options->workers_min;

	if (options->workers_min < options->workers_max &&
	    !supervisor->is_resting && supervisor->wanted > most)
		master_supervise_resize(supervisor, most, "CPU limit");
}

void
master_supervise_limit(struct master_supervisor *supervisor)
{
	const struct master_options *options = supervisor->heritage->options;
	const struct master_sizing *sizing = &supervisor->throttle.sizing;

	if (supervisor->phase != MASTER_PHASE_RUNNING)
		return;
	if (!options->workers_is_auto) {
		limit_range(supervisor, sizing->workers);
		return;
	}
	shm_board_source_set(supervisor->heritage->board, sizing->source);
	if (supervisor->is_resting)
		supervisor->wanted = sizing->workers;
	else
		master_supervise_resize(
		    supervisor, sizing->workers, "CPU limit");
}

void
master_supervise_step(
    struct master_supervisor *supervisor, int step, const char *reason)
{
	int64_t wanted = (int64_t)supervisor->wanted + step;

	if (supervisor->phase != MASTER_PHASE_RUNNING ||
	    (step > 0 && master_supervise_wake(supervisor)))
		return;
	if (wanted >= 1 && wanted <= SHM_BOARD_WORKERS_MAX) {
		master_supervise_resize(supervisor, (uint32_t)wanted, reason);
		return;
	}
	worker_log(WORKER_LOG_WARN, "resize_refused",
	    "there are as many workers, or as few, as there can be",
	    LOG_STR("reason", reason), LOG_INT("workers", supervisor->wanted),
	    LOG_END);
}

void
master_supervise_rest(struct master_supervisor *supervisor)
{
	if (supervisor->phase != MASTER_PHASE_RUNNING || supervisor->is_resting)
		return;
	supervisor->is_resting = true;
	supervisor->roll.successor = SHM_BOARD_SLOTS; /* nobody stays */
	shm_board_set(supervisor->heritage->board->workers_wanted, 0);
	worker_log(WORKER_LOG_WARN, "workers_rest",
	    "all workers finish what they have and end; clients wait until "
	    "SIGTTIN or SIGHUP brings workers back",
	    LOG_INT("workers", supervisor->wanted), LOG_END);
}

bool
master_supervise_wake(struct master_supervisor *supervisor)
{
	if (!supervisor->is_resting)
		return false;
	supervisor->is_resting = false;
	want(supervisor, supervisor->wanted);
	worker_log(WORKER_LOG_INFO, "workers_return", "workers start again",
	    LOG_INT("workers", supervisor->wanted), LOG_END);
	return true;
}

/* ---- bringing it about */

void
master_supervise_retire(struct master_supervisor *supervisor, uint32_t i)
{
	struct master_slot *slot = &supervisor->worker[i];

	SHM_ASSERT(i < SHM_BOARD_SLOTS && master_supervise_is_wanted(slot));
	slot->start_us = 0;
	if (slot->pid == 0)
		return; /* it is free now */
	slot->is_leaving = true;
	slot->overdue_us =
	    shm_clock_us() + (uint64_t)slot->drain_ms * 1000 + LEAVE_GRACE_US;
	master_slot_kill(slot, SIGHUP);
}

void
master_supervise_plan(
    struct master_supervisor *supervisor, uint32_t i, uint64_t now_us)
{
	struct master_slot *slot = &supervisor->worker[i];

	SHM_ASSERT(master_slot_is_free(slot));
	*slot = (struct master_slot){
	    .start_us = now_us, .generation = supervisor->generation};
}

static void
balance(struct master_supervisor *supervisor, uint64_t now_us)
{
	uint32_t goal = supervisor->is_resting ? 0 : supervisor->wanted;
	uint32_t count = wanted_count(supervisor), i;

	goal += master_supervise_roll_extra(supervisor);
	for (; count > goal; count--)
		master_supervise_retire(supervisor, surplus(supervisor));
	for (; count < goal; count++) {
		i = master_supervise_place(supervisor);
		if (i == SHM_BOARD_SLOTS)
			return; /* when one of the leaving has ended */
		master_supervise_plan(supervisor, i, now_us);
	}
}

/* ops has no requests that are worth more than a moment. */
static uint64_t
overdue_ops(struct master_supervisor *supervisor, uint64_t now_us)
{
	struct master_slot *slot = &supervisor->ops;

	if (!slot->is_leaving || slot->overdue_us == 0)
		return UINT64_MAX;
	if (slot->overdue_us > now_us)
		return slot->overdue_us;
	slot->overdue_us = 0;
	master_slot_kill(slot, SIGKILL);
	return UINT64_MAX;
}

/* Those that were told to end and did not. */
static uint64_t
overdue_tick(struct master_supervisor *supervisor, uint64_t now_us)
{
	uint64_t at_us = overdue_ops(supervisor, now_us);

	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++) {
		struct master_slot *slot = &supervisor->worker[i];

		if (!slot->is_leaving || slot->overdue_us == 0)
			continue;
		if (slot->overdue_us > now_us) {
			at_us =
			    master_supervise_sooner(at_us, slot->overdue_us);
			continue;
		}
		slot->overdue_us = 0;
		worker_log(WORKER_LOG_WARN, "retire_overdue",
		    "a worker that did not end in time is killed",
		    LOG_INT("worker", i), LOG_INT("pid", slot->pid), LOG_END);
		master_slot_kill(slot, SIGKILL);
	}
	return at_us;
}

/* What part of the time those who serve are busy, in the mean. */
static uint32_t
busy_permille(const struct master_supervisor *supervisor)
{
	const struct shm_board *board = supervisor->heritage->board;
	uint64_t sum = 0;
	uint32_t count = 0;

	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++) {
		uint32_t busy = shm_board_get(board->worker[i].busy_permille);

		if (shm_board_get(board->worker[i].state) != SHM_BOARD_SERVING)
			continue;
		sum += busy < 1000 ? busy : 1000;
		count++;
	}
	return count > 0 ? (uint32_t)(sum / count) : 0;
}

/* workers = MIN..MAX: follow the load, never beyond the CPUs. */
static uint64_t
scale_tick(struct master_supervisor *supervisor, uint64_t now_us)
{
	const struct master_options *options = supervisor->heritage->options;
	uint32_t bounds[2] = {options->workers_min, options->workers_max};
	uint32_t cpus = supervisor->throttle.sizing.workers;
	int step;

	if (bounds[0] == bounds[1] || supervisor->is_resting ||
	    supervisor->roll.is_under_way)
		return UINT64_MAX; /* a roll has its own ticks */
	if (now_us < supervisor->scaled_us + SCALE_PERIOD_US)
		return supervisor->scaled_us + SCALE_PERIOD_US;
	supervisor->scaled_us = now_us;
	if (cpus > 0 && bounds[1] > cpus)
		bounds[1] = cpus > bounds[0] ? cpus : bounds[0];
	step = master_scale_step(&supervisor->scale, busy_permille(supervisor),
	    supervisor->wanted, bounds, now_us);
	if (step != 0)
		master_supervise_step(
		    supervisor, step, step > 0 ? "busy" : "idle");
	return now_us + SCALE_PERIOD_US;
}

uint64_t
master_supervise_workers_tick(
    struct master_supervisor *supervisor, uint64_t now_us)
{
	uint64_t at_us;

	if (supervisor->phase != MASTER_PHASE_RUNNING)
		return UINT64_MAX; /* the phases have their own deadlines */
	balance(supervisor, now_us);
	at_us = master_supervise_sooner(
	    master_supervise_roll_tick(supervisor, now_us),
	    scale_tick(supervisor, now_us));
	return master_supervise_sooner(at_us, overdue_tick(supervisor, now_us));
}

/* ---- orders from ops */

static void
obey(struct master_supervisor *supervisor, const struct shm_command *command)
{
	if (supervisor->phase != MASTER_PHASE_RUNNING)
		return;
	switch ((enum shm_command_verb)command->verb) {
	case SHM_COMMAND_DRAIN:
		master_supervise_drain(supervisor);
		break;
	case SHM_COMMAND_RELOAD:
		master_supervise_reload(supervisor);
		break;
	case SHM_COMMAND_WORKERS:
		master_supervise_resize(supervisor, command->argument, "order");
		break;
	case SHM_COMMAND_REOPEN:
		master_supervise_reopen(supervisor);
		break;
	}
}

void
master_supervise_obey(struct master_supervisor *supervisor)
{
	struct shm_command command;
	uint32_t count = 0;

	while (master_orders_next(supervisor->heritage->orders_fd, &command)) {
		obey(supervisor, &command);
		if (++count == MASTER_ORDERS_MAX) {
			(void)raise(SIGIO); /* the rest in the next turn */
			return;
		}
	}
}
