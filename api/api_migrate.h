/*
 * The schema's migrations, as one text for whoever has a connection.
 */
#ifndef API_MIGRATE_H
#define API_MIGRATE_H

#include "api/api_slice.h"

/* One file of api/sql/, embedded by api/embed-sql. */
struct api_migration {
	uint32_t number;      /* 1, 2, 3, ... without a gap */
	const char *name;     /* "book" of 001_book.sql */
	const char *checksum; /* of the file's bytes */
	const char *sql;
};

extern const struct api_migration api_migrations[];
extern const size_t api_migrations_count;

/*
 * All migrations as one text for PQexec(3), NUL-terminated, in buf; NULL when
 * there is no memory.  On success its last result is PGRES_TUPLES_OK with one
 * row of two text columns: how many migrations were applied now, and how many
 * there are.  On an error nothing was changed; the connection is then inside
 * a failed transaction, to be closed or rolled back.  It may wait for another
 * process that migrates the same database.
 */
const char *api_migrate_sql(struct api_buf *buf) SHM_MUSTCHECK;

#endif
