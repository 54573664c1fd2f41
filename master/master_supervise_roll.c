/*
 * A reload: other settings, then other workers, one by one.
 *
 * Nothing is touched before all settings were read again and found right.  Then
 * each worker that began with the ones before is relieved: a successor starts
 * in a place of its own, and when it serves and has a database connection, if
 * the old one has, or was waited for in vain, the old one is retired.  So
 * there is one more worker than wanted, never one less, and the cache stays.
 *
 * What no check could see shows when the first successor cannot live: then the
 * settings before are put back, and whoever was relieved already is relieved
 * once more.  If that fails too, the deaths are treated like any others.
 *
 * INVARIANTS
 *   R1  while a roll is under way, heritage->settings are those that it brings.
 *   R2  a worker's generation is that of the settings that it was forked with;
 *       the roll is over when no wanted one has another than the supervisor's.
 *   R3  a reload that comes meanwhile is remembered, once.
 */
#include "config.h"

#include <signal.h>

#include "master/master_notify.h"
#include "master/master_reload.h"
#include "master/master_supervise_part.h"

#define LOOK_US		   20000
#define DATABASE_WAIT_US   5000000  /* after it serves */
#define SUCCESSOR_START_US 30000000 /* until it serves; then it is given up */
#define HEAR_US		   1000000
#define DEATHS_MAX	   3 /* of a successor: one may be bad luck */
#define OPS_GRACE_US	   2000000

/* ---- settings */

static void
use(struct master_supervisor *supervisor, struct master_settings *settings)
{
	struct master_heritage *heritage = supervisor->heritage;
	const struct master_options *options = settings->options;
	uint32_t wanted;

	heritage->settings = settings;
	heritage->options = options;
	worker_log_adjust(options->log.format, options->log.level);
	if (heritage->cache != NULL)
		master_cache_policy(heritage->cache, options);
	shm_board_source_set(heritage->board, options->workers_source);
	shm_board_set(heritage->board->workers_min, options->workers_min);
	shm_board_set(heritage->board->workers_max, options->workers_max);
	supervisor->scale = (struct master_scale){.busy_us = 0};
	/* Within a range it stays as it is. */
	wanted = supervisor->wanted;
	if (wanted < options->workers_min)
		wanted = options->workers_min;
	if (wanted > options->workers_max)
		wanted = options->workers_max;
	master_supervise_resize(supervisor, wanted, "reload");
}

static bool
is_other_for_ops(
    const struct master_settings *a, const struct master_settings *b)
{
	static const enum master_setting_id told[] = {
#define MASTER_OPS(name) MASTER_SETTING_##name,
	    MASTER_SETTINGS_OPS
#undef MASTER_OPS
	};

	for (size_t i = 0; i < SHM_ARRAY_LEN(told); i++)
		if (master_settings_differ(a, b, told[i]))
			return true;
	return false;
}

/* The first ones are part of the program: the log refers to their texts. */
static void
forget(struct master_settings **settings)
{
	if (*settings != NULL && (*settings)->is_reload)
		master_reload_free(settings);
	*settings = NULL;
}

/* ---- beginning and end */

static void
begin(struct master_supervisor *supervisor, bool is_back)
{
	struct master_roll *roll = &supervisor->roll;

	roll->is_under_way = true;
	roll->is_back = is_back;
	roll->successor = SHM_BOARD_SLOTS;
	roll->began_us = shm_clock_us();
}

void
master_supervise_reload(struct master_supervisor *supervisor)
{
	struct master_roll *roll = &supervisor->roll;
	struct master_settings *fresh, *current;

	if (supervisor->phase != MASTER_PHASE_RUNNING)
		return;
	if (roll->is_under_way) {
		roll->is_asked_again = true;
		return;
	}
	current = supervisor->heritage->settings;
	fresh = master_reload_read(current);
	if (fresh == NULL) {
		shm_board_count(
		    supervisor->heritage->board, SHM_BOARD_EVENT_reload_failed);
		return;
	}
	worker_log(WORKER_LOG_INFO, "reload",
	    "the settings are read again, workers are replaced one by one",
	    LOG_INT("workers", supervisor->wanted), LOG_END);
	if (supervisor->is_ready)
		master_notify_reloading();
	roll->is_ops_stale = is_other_for_ops(fresh, current);
	master_slot_kill(&supervisor->ops, SIGHUP); /* for the secret */
	roll->before = current;
	(void)master_supervise_wake(supervisor);
	begin(supervisor, false);
	roll->generation_before = supervisor->generation;
	supervisor->generation = ++supervisor->generations;
	use(supervisor, fresh);
}

static void
replace_ops(struct master_supervisor *supervisor, uint64_t now_us)
{
	struct master_slot *slot = &supervisor->ops;

	supervisor->roll.is_ops_stale = false;
	if (slot->pid == 0)
		return; /* none is wanted, or it starts with the new ones */
	slot->is_leaving = true;
	slot->overdue_us = now_us + OPS_GRACE_US;
	master_slot_kill(slot, SIGTERM);
}

static void
end(struct master_supervisor *supervisor, uint64_t now_us)
{
	struct master_roll *roll = &supervisor->roll;
	struct shm_board *board = supervisor->heritage->board;

	roll->is_under_way = false;
	forget(&roll->before);
	if (supervisor->is_ready)
		master_notify_send("READY=1");
	if (roll->is_back)
		return; /* it was said when it turned back */
	if (roll->is_ops_stale)
		replace_ops(supervisor, now_us);
	shm_board_set(board->generation, shm_board_get(board->generation) + 1);
	shm_board_count(board, SHM_BOARD_EVENT_reload);
	worker_log(WORKER_LOG_INFO, "reloaded",
	    "all workers have the new settings",
	    LOG_INT("duration_ms", (now_us - roll->began_us) / 1000), LOG_END);
}

/* The successor cannot live: back to what worked. */
static void
turn_back(struct master_supervisor *supervisor, const char *why)
{
	struct master_roll *roll = &supervisor->roll;
	struct master_settings *failed = supervisor->heritage->settings;
	struct master_settings *before = roll->before;

	master_supervise_retire(supervisor, roll->successor);
	roll->successor = SHM_BOARD_SLOTS;
	if (roll->is_back) { /* so it is not the settings: an end */
		roll->is_under_way = false;
		return;
	}
	shm_board_count(
	    supervisor->heritage->board, SHM_BOARD_EVENT_reload_failed);
	worker_log(WORKER_LOG_ERROR, "reload_failed",
	    "a worker with the new settings does not serve, so the ones before "
	    "are used again",
	    LOG_STR("reason", why), LOG_END);
	begin(supervisor, true);
	roll->before = NULL;
	supervisor->generation = roll->generation_before;
	use(supervisor, before);
	forget(&failed);
}

/* ---- one by one */

/* Does one that was told to go not know it yet?  It may accept clients still,
 * who would see the settings before after a reload was said to be over. */
static bool
has_one_to_hear(const struct master_supervisor *supervisor, uint64_t now_us)
{
	const struct shm_board *board = supervisor->heritage->board;

	if (now_us >= supervisor->roll.told_us + HEAR_US)
		return false; /* one that hears nothing is the watchdog's */
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++) {
		const struct master_slot *slot = &supervisor->worker[i];

		if (slot->is_leaving && slot->pid > 0 &&
		    shm_board_get(board->worker[i].state) < SHM_BOARD_RETIRING)
			return true;
	}
	return false;
}

/* A wanted worker with other settings, SHM_BOARD_SLOTS: none. */
static uint32_t
next_old(const struct master_supervisor *supervisor)
{
	uint32_t i = 0;

	for (; i < SHM_BOARD_SLOTS; i++) {
		const struct master_slot *slot = &supervisor->worker[i];

		if (master_supervise_is_wanted(slot) && slot->pid > 0 &&
		    slot->generation != supervisor->generation)
			break;
	}
	return i;
}

static void
start_successor(
    struct master_supervisor *supervisor, uint32_t old, uint64_t now_us)
{
	struct master_roll *roll = &supervisor->roll;
	uint32_t place = master_supervise_place(supervisor);

	if (place == SHM_BOARD_SLOTS)
		return; /* when one that is leaving has ended */
	master_supervise_plan(supervisor, place, now_us);
	roll->old = old;
	roll->old_pid = supervisor->worker[old].pid;
	roll->successor = place;
	roll->successor_us = now_us;
	roll->serving_us = 0;
}

/* May the old one go?  Turns back when its successor cannot live. */
static bool
is_relieved(struct master_supervisor *supervisor, uint64_t now_us)
{
	struct master_roll *roll = &supervisor->roll;
	const struct master_slot *slot = &supervisor->worker[roll->successor];
	const struct shm_board *board = supervisor->heritage->board;
	const struct shm_board_worker *block = &board->worker[roll->successor];
	const struct shm_board_worker *old = &board->worker[roll->old];

	if (slot->failures >= DEATHS_MAX) {
		turn_back(supervisor, "it died again and again");
		return false;
	}
	if (slot->pid == 0 ||
	    shm_board_get(block->state) != SHM_BOARD_SERVING) {
		if (now_us > roll->successor_us + SUCCESSOR_START_US)
			turn_back(supervisor, "it took too long to start");
		return false;
	}
	if (roll->serving_us == 0)
		roll->serving_us = now_us;
	/* Without the database it is worth as much as an old one without. */
	return shm_board_get(block->db) == SHM_BOARD_DB_READY ||
	       shm_board_get(old->db) != SHM_BOARD_DB_READY ||
	       now_us >= roll->serving_us + DATABASE_WAIT_US;
}

/* Is the one that is relieved still at work? */
static bool
has_old(const struct master_supervisor *supervisor)
{
	const struct master_slot *old =
	    &supervisor->worker[supervisor->roll.old];

	return master_supervise_is_wanted(old) &&
	       old->pid == supervisor->roll.old_pid;
}

uint32_t
master_supervise_roll_extra(const struct master_supervisor *supervisor)
{
	const struct master_roll *roll = &supervisor->roll;

	return roll->successor != SHM_BOARD_SLOTS &&
	       master_supervise_is_wanted(
		   &supervisor->worker[roll->successor]) &&
	       has_old(supervisor);
}

/* What became of the successor, if there is one. */
static void
look_at_successor(struct master_supervisor *supervisor, uint64_t now_us)
{
	struct master_roll *roll = &supervisor->roll;
	struct master_slot *old = &supervisor->worker[roll->old];

	if (roll->successor == SHM_BOARD_SLOTS)
		return;
	if (!master_supervise_is_wanted(&supervisor->worker[roll->successor])) {
		roll->successor = SHM_BOARD_SLOTS; /* less were wanted */
		return;
	}
	/* An old one that has died needs no other one in its place. */
	if (master_supervise_is_wanted(old) && old->pid == 0)
		master_supervise_retire(supervisor, roll->old);
	if (!is_relieved(supervisor, now_us))
		return;
	if (has_old(supervisor))
		master_supervise_retire(supervisor, roll->old);
	roll->successor = SHM_BOARD_SLOTS;
	roll->told_us = now_us;
}

uint64_t
master_supervise_roll_tick(
    struct master_supervisor *supervisor, uint64_t now_us)
{
	struct master_roll *roll = &supervisor->roll;

	if (!roll->is_under_way)
		return UINT64_MAX;
	look_at_successor(supervisor, now_us);
	if (roll->is_under_way && roll->successor == SHM_BOARD_SLOTS) {
		uint32_t old = next_old(supervisor);

		if (old != SHM_BOARD_SLOTS)
			start_successor(supervisor, old, now_us);
		else if (!has_one_to_hear(supervisor, now_us))
			end(supervisor, now_us);
	}
	if (!roll->is_under_way && roll->is_asked_again) {
		roll->is_asked_again = false;
		master_supervise_reload(supervisor);
	}
	return roll->is_under_way ? now_us + LOOK_US : UINT64_MAX;
}
