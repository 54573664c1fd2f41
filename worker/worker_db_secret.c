/*
 * The database's secret: who connects, connects with the newest one.
 *
 * Connections that stand are never closed for it: a password counts when a
 * session begins.  When the server refuses one, ops is told and fetches; all
 * links that wait then go on at once, whatever their back-off.  There is no
 * descriptor for that moment: while it is waited for, each turn of the timers
 * looks.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "worker/worker_db_link.h"

#define SECRET_LOOK_US 50000

/* The text is the one of ops, so what is wrong with it was in the secret. */
static bool
secret_use(struct worker_db *db, const char *text, uint64_t version)
{
	char *why = NULL;
	struct worker_conninfo *fresh =
	    worker_conninfo_new(db->conninfo_text, text, &why);

	db->secret_version = version;
	if (fresh == NULL) {
		worker_log(WORKER_LOG_ERROR, "database_secret",
		    "the database's secret and the setting database do not go "
		    "together",
		    LOG_STR("reason", why != NULL ? why : "no memory"),
		    LOG_END);
		free(why);
		return false;
	}
	worker_conninfo_free(&db->conninfo);
	db->conninfo = fresh;
	return true;
}

bool
db_secret_take(struct worker_db *db)
{
	const struct shm_secret *secret = db->options.secret;
	char text[SHM_SECRET_BYTES_MAX];
	uint64_t version;

	if (secret == NULL)
		return true;
	/* A lookup under way is about the names of this one. */
	if (db->resolve == NULL &&
	    shm_secret_version(secret) != db->secret_version) {
		version = shm_secret_get(secret, text);
		db->has_secret = secret_use(db, text, version);
		explicit_bzero(text, sizeof(text));
	}
	return db->has_secret;
}

void
db_secret_missing(struct worker_db_link *link)
{
	struct worker_db *db = link->db;

	strcpy(link->failure.reason,
	    "the database's secret has not been fetched yet");
	link->deadline_us = db->now_us + SECRET_LOOK_US;
	db->wants_secret = true;
	db_wake_at(db, link->deadline_us);
	db_away_note_failure(link);
}

void
db_secret_refused(struct worker_db_link *link)
{
	struct worker_db *db = link->db;

	if (db->options.secret == NULL || link->state != DB_LINK_CONNECTING ||
	    (strcmp(link->failure.sqlstate, "28P01") != 0 &&
		strcmp(link->failure.sqlstate, "28000") != 0))
		return;
	shm_secret_refuse(db->options.secret, link->secret_version);
	db->wants_secret = true;
	db_wake_at(db, db->now_us + SECRET_LOOK_US);
}

void
db_secret_look(struct worker_db *db)
{
	if (!db->wants_secret)
		return;
	if (shm_secret_version(db->options.secret) == db->secret_version) {
		db_wake_at(db, db->now_us + SECRET_LOOK_US);
		return;
	}
	db->wants_secret = false;
	db->away_retry_us = 0;
	db->away_failures = 0;
	for (uint32_t i = 0; i < db->options.connections; i++)
		if (db->links[i].state == DB_LINK_WAITING)
			db->links[i].deadline_us = db->now_us;
}
