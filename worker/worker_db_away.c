/*
 * When the database is away, and when to ask again.
 *
 * While no link is up, one link at a time finds out for all, and the
 * others follow when it stands; so a fleet of tasks does not hammer a server
 * that is starting.  What changes is logged, not each attempt.
 */
#include "config.h"

#include <string.h>

#include "worker/worker_db_link.h"

#define AWAY_SHORT_FAILURES 3

static uint64_t
away_random(struct worker_db *db, uint64_t below)
{
	db->random ^= db->random << 13;
	db->random ^= db->random >> 7;
	db->random ^= db->random << 17;
	return db->random % below;
}

/* Half of it sure, half of it chance, or all tasks come back at once. */
uint64_t
db_away_backoff_us(struct worker_db *db, uint32_t failures)
{
	uint64_t ms = DB_BACKOFF_MIN_MS;

	while (failures-- > 1 && ms < DB_BACKOFF_MAX_MS)
		ms *= 2;
	if (ms > DB_BACKOFF_MAX_MS)
		ms = DB_BACKOFF_MAX_MS;
	return ms * 500 + away_random(db, ms * 500);
}

static void
away_log(struct worker_db_link *link)
{
	struct worker_db *db = link->db;
	const struct worker_conninfo_failure *failure = &link->failure;

	if (db->is_away && strcmp(db->away_sqlstate, failure->sqlstate) == 0)
		return;
	if (!db->is_away) {
		db->away_failures = 0;
		db->away_retry_us = 0;
	}
	db->is_away = true;
	memcpy(db->away_sqlstate, failure->sqlstate, sizeof(db->away_sqlstate));
	worker_log(WORKER_LOG_WARN, "database_away",
	    "no connection to the database",
	    LOG_STR("sqlstate", failure->sqlstate),
	    LOG_STR("reason", failure->reason), LOG_END);
}

/* Some links stand, and this one does not come up: too many connections for
 * the server, say.  Once, until all of them stand. */
static void
away_log_short(struct worker_db_link *link)
{
	struct worker_db *db = link->db;

	if (db->is_short || link->failures < AWAY_SHORT_FAILURES)
		return;
	db->is_short = true;
	worker_log(WORKER_LOG_WARN, "database_connections_short",
	    "fewer connections to the database than configured",
	    LOG_INT("connections", db->up_count),
	    LOG_INT("configured", db->options.connections),
	    LOG_STR("sqlstate", link->failure.sqlstate),
	    LOG_STR("reason", link->failure.reason), LOG_END);
}

/* Once a round of attempts, not once a link. */
void
db_away_note_failure(struct worker_db_link *link)
{
	struct worker_db *db = link->db;

	if (db->is_closing)
		return;
	if (db->up_count > 0) {
		away_log_short(link);
		return;
	}
	away_log(link);
	if (db->now_us < db->away_retry_us)
		return;
	db->away_failures++;
	db->away_retry_us =
	    db->now_us + db_away_backoff_us(db, db->away_failures);
}

void
db_away_ends(struct worker_db_link *link)
{
	struct worker_db *db = link->db;

	db->is_away = false;
	db->away_failures = 0;
	db->away_retry_us = 0;
	db->away_sqlstate[0] = '\0';
	worker_log(WORKER_LOG_INFO, "database_available",
	    "connected to the database", LOG_STR("host", PQhost(link->conn)),
	    LOG_STR("port", PQport(link->conn)),
	    LOG_INT("server_version", PQserverVersion(link->conn)),
	    LOG_STR("tls", PQsslInUse(link->conn) ? "yes" : "no"), LOG_END);
	for (uint32_t i = 0; i < db->options.connections; i++) {
		struct worker_db_link *other = &db->links[i];

		if (other->state != DB_LINK_WAITING)
			continue;
		other->deadline_us = db->now_us + away_random(db, 50000);
		db_wake_at(db, other->deadline_us);
	}
}

/* While the database is away one link asks for all of them. */
bool
db_away_puts_off(struct worker_db_link *link)
{
	struct worker_db *db = link->db;

	if (!db->is_away)
		return false;
	if (db->connecting_count > 0)
		link->deadline_us = db->now_us + DB_BACKOFF_MAX_MS * 1000ull;
	else if (db->now_us < db->away_retry_us)
		link->deadline_us = db->away_retry_us;
	else
		return false;
	db_wake_at(db, link->deadline_us);
	return true;
}
