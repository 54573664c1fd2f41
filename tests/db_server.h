/*
 * A PostgreSQL server of a test's own: made by the group's setup, removed by
 * its teardown.  Any failure in here fails the test that runs.
 */
#ifndef TESTS_DB_SERVER_H
#define TESTS_DB_SERVER_H

#include <sys/types.h>

#include <libpq-fe.h>

#include "shm/shm_base.h"

struct db_server {
	char bin[200]; /* directory of initdb and postgres */
	char dir[64];
	char log[100];
	int port;
	pid_t pid;
	PGconn *admin;
};

extern struct db_server server;

/* Forget libpq's environment and look for the programs.  False: this machine
 * has none, and the test has said that it is skipped. */
bool server_find(void);

int server_setup(void **state);
int server_teardown(void **state);

/* The start waits until the server answers; the stop is a fast one. */
void server_start(void);
void server_stop(void);

/* A connection beside the pool; more is a piece of conninfo. */
PGconn *server_connect(const char *more);

/* On the server's own connection. */
void admin(const char *format, ...) SHM_PRINTF(1, 2);
int admin_int(const char *sql);

/* A port of 127.0.0.1 that nobody uses; with listener, a socket bound to it. */
int free_port(int *listener);
void sleep_ms(long ms);

#endif
