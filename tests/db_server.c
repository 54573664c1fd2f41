/*
 * A private cluster in a directory under /tmp, on a free port, without fsync.
 * As root everything runs as the user postgres (or nobody), because PostgreSQL
 * refuses to be root.
 */
#include "config.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <glob.h>
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/db_server.h"

struct db_server server;

static bool
has_initdb(const char *dir)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/initdb", dir);
	if (access(path, X_OK) == -1)
		return false;
	snprintf(server.bin, sizeof(server.bin), "%s", dir);
	return true;
}

bool
server_find(void)
{
	static const char *const variables[] = {"PGHOST", "PGHOSTADDR",
	    "PGPORT", "PGSERVICE", "PGUSER", "PGPASSWORD", "PGAPPNAME"};
	static char pattern[] = "/usr/lib/postgresql/*/bin";
	glob_t found;
	char *path = strdup(getenv("PATH"));
	char *rest = path, *dir;

	for (size_t i = 0; i < SHM_ARRAY_LEN(variables); i++)
		unsetenv(variables[i]);
	while ((dir = strsep(&rest, ":")) != NULL && !has_initdb(dir))
		continue;
	free(path);
	if (server.bin[0] == '\0' && glob(pattern, 0, NULL, &found) == 0) {
		/* the newest */
		(void)has_initdb(found.gl_pathv[found.gl_pathc - 1]);
		globfree(&found);
	}
	if (server.bin[0] == '\0')
		puts("1..0 # SKIP initdb was not found");
	return server.bin[0] != '\0';
}

/* PostgreSQL refuses to run as root. */
static const struct passwd *
server_user(void)
{
	struct passwd *user = getpwnam("postgres");

	return user != NULL ? user : getpwnam("nobody");
}

static pid_t
server_spawn(const char *program, const char *const *argv)
{
	char path[300];
	pid_t pid = fork();

	assert_int_not_equal(pid, -1);
	if (pid != 0)
		return pid;
	if (geteuid() == 0) {
		const struct passwd *user = server_user();

		if (user == NULL || setgid(user->pw_gid) == -1 ||
		    setuid(user->pw_uid) == -1)
			_exit(126);
	}
	prctl(PR_SET_PDEATHSIG, SIGQUIT);
	int fd = open(server.log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	snprintf(path, sizeof(path), "%s/%s", server.bin, program);
	execv(path, (char *const *)(uintptr_t)argv);
	_exit(127);
}

int
free_port(int *listener)
{
	struct sockaddr_in address = {
	    .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
	if (listener != NULL)
		*listener = fd;
	else
		close(fd);
	return ntohs(address.sin_port);
}

void
sleep_ms(long ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

PGconn *
server_connect(const char *more)
{
	char conninfo[300];

	snprintf(conninfo, sizeof(conninfo),
	    "host=%s port=%d dbname=postgres user=postgres %s", server.dir,
	    server.port, more);
	return PQconnectdb(conninfo);
}

void
server_start(void)
{
	char port[16];
	const char *argv[] = {"postgres", "-D", server.dir, "-k", server.dir,
	    "-h", "127.0.0.1", "-p", port, "-c", "fsync=off", "-c",
	    "max_connections=40", "-c", "shared_buffers=16MB", "-c",
	    "autovacuum=off", NULL};

	snprintf(port, sizeof(port), "%d", server.port);
	server.pid = server_spawn("postgres", argv);
	for (int i = 0; i < 300; i++) {
		server.admin = server_connect("");
		if (PQstatus(server.admin) == CONNECTION_OK)
			return;
		PQfinish(server.admin);
		server.admin = NULL;
		sleep_ms(100);
	}
	fail_msg("the server did not start: see %s", server.log);
}

void
server_stop(void)
{
	int status;

	if (server.admin != NULL)
		PQfinish(server.admin);
	server.admin = NULL;
	if (server.pid == 0)
		return;
	kill(server.pid, SIGINT); /* fast shutdown */
	waitpid(server.pid, &status, 0);
	server.pid = 0;
}

void
admin(const char *format, ...)
{
	char sql[4000];
	va_list args;
	PGresult *result;

	va_start(args, format);
	vsnprintf(sql, sizeof(sql), format, args);
	va_end(args);
	result = PQexec(server.admin, sql);
	if (PQresultStatus(result) != PGRES_COMMAND_OK &&
	    PQresultStatus(result) != PGRES_TUPLES_OK)
		fail_msg("%s: %s", sql, PQerrorMessage(server.admin));
	PQclear(result);
}

int
admin_int(const char *sql)
{
	PGresult *result = PQexec(server.admin, sql);
	int value;

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		fail_msg("%s: %s", sql, PQerrorMessage(server.admin));
	value = atoi(PQgetvalue(result, 0, 0));
	PQclear(result);
	return value;
}

int
server_setup(void **state)
{
	const char *initdb[] = {"initdb", "-D", server.dir, "-U", "postgres",
	    "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", NULL};
	const struct passwd *user = server_user();
	char path[100];
	int status;
	FILE *hba;

	(void)state;
	strcpy(server.dir, "/tmp/test_worker_db.XXXXXX");
	assert_non_null(mkdtemp(server.dir));
	if (geteuid() == 0)
		assert_int_equal(
		    chown(server.dir, user->pw_uid, user->pw_gid), 0);
	snprintf(server.log, sizeof(server.log), "%s.log", server.dir);
	assert_int_equal(close(open(server.log, O_CREAT | O_WRONLY, 0666)), 0);
	assert_int_equal(chmod(server.log, 0666), 0);
	waitpid(server_spawn("initdb", initdb), &status, 0);
	assert_int_equal(status, 0);
	snprintf(path, sizeof(path), "%s/pg_hba.conf", server.dir);
	hba = fopen(path, "w");
	assert_non_null(hba);
	fputs("host all locked all scram-sha-256\n"
	      "local all all trust\nhost all all all trust\n",
	    hba);
	assert_int_equal(fclose(hba), 0);
	server.port = free_port(NULL);
	server_start();
	admin("CREATE ROLE locked LOGIN PASSWORD 'other'");
	return 0;
}

int
server_teardown(void **state)
{
	char command[200];

	(void)state;
	server_stop();
	snprintf(command, sizeof(command), "rm -rf '%s' '%s'", server.dir,
	    server.log);
	return system(command);
}
