/*
 * Who is let in to the database: what worker_admission.h judges by.
 *
 * The wait of a query that comes now is that of all that were sent before it
 * and have no answer, whatever queue they are in: ours, or the pipelines of
 * connections, which no queue of ours shows.  So slow statements make nobody
 * wait while a connection is free.
 */
#include "config.h"

#include "worker/worker_db_link.h"

#define SECOND_US UINT64_C(1000000)

void
db_admit_open(struct worker_db *db)
{
	db->admission = (struct worker_admission){
	    .target_us = db->options.queue_target_ms * 1000ull,
	    .least_us = UINT64_MAX};
}

void
db_admit_answered(struct worker_db_link *link)
{
	link->answered_us = link->db->now_us;
	link->db->admit_answered++;
}

/* For how long no connection has moved; 0: one is free, or none serves. */
static uint64_t
stalled_us(const struct worker_db *db, uint32_t *under_way)
{
	uint64_t least_us = UINT64_MAX;

	*under_way = db->waiting.count;
	for (uint32_t i = 0; i < db->options.connections; i++) {
		const struct worker_db_link *link = &db->links[i];
		uint64_t since_us = link->answered_us;

		if (link->state != DB_LINK_READY)
			continue;
		if (link->queries == 0)
			return 0;
		*under_way += link->queries - 1; /* one is served */
		if (link->busy_us > since_us)
			since_us = link->busy_us;
		if (db->now_us - since_us < least_us)
			least_us = db->now_us - since_us;
	}
	return least_us == UINT64_MAX ? 0 : least_us;
}

/* How long one that comes now waits: by what is under way, and by how many are
 * answered of late; when none is, by the stall. */
static uint64_t
wait_us(const struct worker_db *db)
{
	uint32_t under_way;
	uint64_t stall_us = stalled_us(db, &under_way);

	if (stall_us == 0 || db->admit_rate == 0)
		return stall_us;
	return under_way * SECOND_US / db->admit_rate;
}

static void
step(struct worker_db *db)
{
	uint64_t span_us = db->now_us - db->admit_step_us;
	uint64_t rate;

	if (span_us < WORKER_ADMISSION_INTERVAL_US)
		span_us = WORKER_ADMISSION_INTERVAL_US;
	rate = db->admit_answered * SECOND_US / span_us;
	db->admit_rate = (db->admit_rate * 3 + rate) / 4;
	db->admit_answered = 0;
	db->admit_step_us = db->now_us;
	worker_admission_step(&db->admission, db->now_us);
}

bool
db_admit_refuses(struct worker_db *db)
{
	struct worker_admission *admission = &db->admission;

	if (admission->target_us == 0)
		return false;
	if (worker_admission_is_due(admission, db->now_us))
		step(db);
	worker_admission_waits(admission, wait_us(db));
	if (!worker_admission_refuses(admission, db->now_us))
		return false;
	shm_stats_count(db->stats, SHM_STATS_refused, 1);
	return true;
}
