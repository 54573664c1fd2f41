/*
 * Goal: the setting `database` is understood as libpq understands it, names
 * become addresses off the loop, booksd's own defaults yield to what was
 * given, and no secret comes out again.
 * Method: tables of strings.  What libpq would do with a string is asked of a
 * connection that was started with it and that nobody carries on.
 */
#include "config.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/worker.h"
#include "worker/worker_conninfo.h"

static const struct {
	const char *text;
	const char *why; /* a piece of it; NULL: valid */
} checks[] = {
    {"", NULL},
    {"host=db dbname=books", NULL},
    {"postgresql://u:p@db:5433/books?sslmode=require", NULL},
    {"postgres:///books", NULL},
    {"host=a,b port=1,2", NULL},
    {"host=a,b port=5432", NULL},
    {"host=a,/run/pg,::1,fe80::1%lo", NULL},
    {"host=a,b hostaddr=10.0.0.1,::1", NULL},
    {"postgresql://[::1]:5432,db/books", NULL},
    {"hots=db", "\"hots\""},
    {"host", "missing \"=\""},
    {"host='db", "unterminated"},
    {"host=db sslmode=sometimes", "sslmode"},
    {"host=db target_session_attrs=best", "target_session_attrs"},
    {"host=db port=0", "port"},
    {"host=db port=65536", "port"},
    {"host=db port=5432x", "port"},
    {"host=a,b,c port=1,2", "2 ports for 3 hosts"},
    {"host=a hostaddr=10.0.0.1,10.0.0.2", "1 host names for 2"},
    {"hostaddr=db.example", "hostaddr"},
    {"host=a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z,0,1,2,3,4,5,6",
	"more than 32"},
    {"host=db gssencmode=require", "gssencmode"},
    {"host=db password=one hunter2", "missing \"...\" in"},
    {"host=db password=one hunter2=x", "invalid connection option \"...\""},
    {"postgresql://u:hunter2@db:x:y/", "port"},
    {"postgresql://u:hunter2%zz@db/", "\"...\""},
};

static void
a_bad_string_is_refused_and_says_why_without_secrets(void **state)
{
	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(checks); i++) {
		char *why = NULL;
		bool ok = worker_database_check(checks[i].text, &why);

		print_message("# %s: %s\n", checks[i].text, ok ? "valid" : why);
		assert_int_equal(ok, checks[i].why == NULL);
		if (!ok) {
			assert_non_null(why);
			assert_non_null(strstr(why, checks[i].why));
			assert_null(strstr(why, "hunter2"));
		}
		free(why);
	}
}

static const struct {
	const char *text;
	const char *masked;
} masks[] = {
    {"", ""},
    {"host=db dbname=books", "host=db dbname=books"},
    {"host=db password=hunter2", "password=******** host=db"},
    {"password = 'hun ter2' host='a b'", "password=******** host='a b'"},
    {"password='hun\\'ter2'", "password=********"},
    {"sslpassword=hunter2 user=password", "user=password"
					  " sslpassword=********"},
    {"postgresql://u:hunter2@db/books", "user=u password=******** "
					"dbname=books host=db"},
    {"postgres://u:a%40b@db/?password=hunter2", "user=u password=******** "
						"host=db"},
    {"application_name='it''s' host=''", NULL},
    {"application_name='it\\'s\\\\' host=''",
	"host='' application_name='it\\'s\\\\'"},
    {"password=one hunter2", "********"},
    {"dbname=postgresql://u:hunter2@db/", "dbname=********"},
};

/* The order of words is libpq's: only the words count. */
static size_t
words_found(const char *words, const char *text)
{
	size_t found = 0;
	char *copy = strdup(words), *rest = copy, *word;

	while ((word = strsep(&rest, " ")) != NULL)
		found += strstr(text, word) != NULL ? strlen(word) + 1 : 0;
	free(copy);
	return found;
}

static void
a_masked_string_keeps_all_but_the_secrets(void **state)
{
	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(masks); i++) {
		char *text = worker_database_mask(masks[i].text);
		const char *want = masks[i].masked;

		assert_non_null(text);
		print_message("# %s -> %s\n", masks[i].text, text);
		if (want != NULL) {
			assert_int_equal(strlen(text), strlen(want));
			assert_int_equal(
			    words_found(want, text), strlen(want) + 1);
		}
		assert_null(strstr(text, "hun"));
		assert_null(strstr(text, "ter2"));
		free(text);
	}
}

static const struct {
	const char *message;
	const char *sqlstate;
	const char *reason;
} failures[] = {
    {"", "", "connection lost"},
    {"connection to server at \"127.0.0.1\", port 1 failed: Connection "
     "refused\n\tIs the server running on that host?\n",
	"", "Connection refused"},
    {"connection to server at \"h\" (1.2.3.4), port 1 failed: FATAL:  28P01\n",
	"28P01", "wrong password"},
    {"connection to server on socket \"/x\" failed: FATALE:  XX001\n", "XX001",
	"refused by the server"},
    {"connection to server at \"a\", port 1 failed: FATAL:  57P03\n"
     "connection to server at \"b\", port 1 failed: Connection timed out\n",
	"57P03", "the server is starting up or shutting down"},
    {"connection to server at \"a\", port 1 failed: Connection refused\n"
     "connection to server at \"b\", port 1 failed: session is read-only\n",
	"", "session is read-only"},
    {"ERROR:  42P01\n", "42P01", "a table is missing: migrations are pending"},
    {"FATAL:  28p01\n", "", "FATAL:  28p01"},
    {"server closed the connection unexpectedly\n\tThis probably means\n", "",
	"server closed the connection unexpectedly"},
};

static void
a_failure_becomes_one_line_and_an_sqlstate(void **state)
{
	struct worker_conninfo_failure failure;
	char message[1000];

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(failures); i++) {
		worker_conninfo_failure(failures[i].message, &failure);
		assert_string_equal(failure.sqlstate, failures[i].sqlstate);
		assert_string_equal(failure.reason, failures[i].reason);
	}
	memset(message, 'x', sizeof(message));
	message[sizeof(message) - 1] = '\0';
	worker_conninfo_failure(message, &failure);
	assert_int_equal(strlen(failure.reason), sizeof(failure.reason) - 1);
}

static struct worker_conninfo *
conninfo_must(const char *text)
{
	char *why = NULL;
	struct worker_conninfo *info = worker_conninfo_new(text, NULL, &why);

	if (info == NULL)
		print_message("# %s: %s\n", text, why);
	assert_non_null(info);
	return info;
}

static struct worker_resolve *
resolve_must(const struct worker_conninfo *info)
{
	const char *const *names;
	uint32_t count = worker_conninfo_names(info, &names);
	struct worker_resolve *resolve = NULL;

	if (count == 0)
		return NULL;
	resolve = worker_resolve_start(names, count);
	assert_non_null(resolve);
	struct pollfd ready = {
	    .fd = worker_resolve_fd(resolve), .events = POLLIN};
	assert_int_equal(poll(&ready, 1, 30000), 1);
	worker_resolve_finish(resolve);
	return resolve;
}

/* What libpq understood of a parameter of conn; "" when it has none. */
static char *
conn_value(PGconn *conn, const char *keyword)
{
	PQconninfoOption *options = PQconninfo(conn);
	char *value = NULL;

	assert_non_null(options);
	for (PQconninfoOption *o = options; o->keyword != NULL; o++)
		if (strcmp(o->keyword, keyword) == 0)
			value = strdup(o->val == NULL ? "" : o->val);
	PQconninfoFree(options);
	assert_non_null(value);
	return value;
}

static void
check_start(const char *text, uint32_t first, const char *const (*want)[2])
{
	struct worker_conninfo *info = conninfo_must(text);
	struct worker_resolve *resolve = resolve_must(info);
	PGconn *conn = worker_conninfo_start(info, resolve, first);

	assert_non_null(conn);
	for (; (*want)[0] != NULL; want++) {
		char *value = conn_value(conn, (*want)[0]);

		print_message("# %s: %s=%s\n", text, (*want)[0], value);
		assert_string_equal(value, (*want)[1]);
		free(value);
	}
	PQfinish(conn);
	worker_resolve_free(&resolve);
	worker_conninfo_free(&info);
}

#define WANT(...) ((const char *const[][2]){__VA_ARGS__, {NULL, NULL}})

static void
defaults_are_ours_unless_something_else_was_given(void **state)
{
	(void)state;
	check_start("host=/nowhere", 0,
	    WANT({"target_session_attrs", "read-write"},
		{"gssencmode", "disable"}, {"keepalives_idle", "5"},
		{"keepalives_interval", "2"}, {"keepalives_count", "3"},
		{"tcp_user_timeout", "5000"}, {"client_encoding", "UTF8"},
		{"application_name", "booksd"}, {"hostaddr", ""}));
	check_start("host=/nowhere target_session_attrs=any keepalives_idle=9 "
		    "application_name=mine gssencmode=prefer "
		    "client_encoding=LATIN1",
	    0,
	    WANT({"target_session_attrs", "any"}, {"keepalives_idle", "9"},
		{"application_name", "mine"}, {"gssencmode", "disable"},
		{"client_encoding", "UTF8"}));
	setenv("PGAPPNAME", "from the environment", 1);
	check_start("host=/nowhere", 0,
	    WANT({"application_name", "from the environment"}));
	check_start("host=/nowhere application_name=mine", 0,
	    WANT({"application_name", "mine"}));
	unsetenv("PGAPPNAME");
}

static void
hosts_come_from_the_environment_and_from_a_service_file_too(void **state)
{
	char path[] = "/tmp/test_conninfo.XXXXXX";
	static const char file[] = "[books]\nhost=/from/service\nport=7\n";
	int fd = mkstemp(path);

	(void)state;
	assert_int_not_equal(fd, -1);
	assert_int_equal(write(fd, file, sizeof(file) - 1), sizeof(file) - 1);
	close(fd);
	setenv("PGHOST", "/from/environment", 1);
	setenv("PGSERVICEFILE", path, 1);
	check_start("", 0, WANT({"host", "/from/environment"}));
	check_start(
	    "service=books", 0, WANT({"host", "/from/service"}, {"port", "7"}));
	check_start("service=books host=/mine", 0,
	    WANT({"host", "/mine"}, {"port", "7"}));
	assert_null(getenv("PGSERVICE"));
	unsetenv("PGSERVICEFILE");
	unsetenv("PGHOST");
	unlink(path);
}

static void
addresses_and_sockets_need_no_lookup(void **state)
{
	static const char *const texts[] = {"host=/run/pg", "host=@abstract",
	    "host=127.0.0.1,::1,fe80::1%lo", "host=db hostaddr=10.0.0.1",
	    "hostaddr=10.0.0.1"};
	const char *const *names;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(texts); i++) {
		struct worker_conninfo *info = conninfo_must(texts[i]);

		assert_int_equal(worker_conninfo_names(info, &names), 0);
		worker_conninfo_free(&info);
	}
	check_start("host=/run/pg,127.0.0.1 port=1", 0,
	    WANT({"host", "/run/pg,127.0.0.1"}, {"hostaddr", ""},
		{"port", "1,1"}));
	check_start("host=db,db2 hostaddr=127.0.0.1,127.0.0.2 port=1,2", 1,
	    WANT({"host", "db2,db"}, {"hostaddr", "127.0.0.2,127.0.0.1"},
		{"port", "2,1"}));
}

static void
each_address_of_a_name_is_a_host_with_its_name_and_port(void **state)
{
	struct worker_conninfo *info = conninfo_must(
	    "host=/a,localhost,no-such-name.invalid,127.0.0.9 port=1,2,3,4");
	struct worker_resolve *resolve = resolve_must(info);
	uint32_t count = worker_resolve_count(resolve, 0);
	char host[1000] = "/a", addr[2000] = "", port[100] = "1";
	PGconn *conn;

	(void)state;
	assert_true(count >= 1);
	assert_int_equal(worker_resolve_count(resolve, 1), 0);
	assert_string_not_equal(worker_resolve_error(resolve), "");
	assert_int_equal(worker_conninfo_targets(info, resolve), count + 2);
	for (uint32_t i = 0; i < count; i++) {
		strcat(host, ",localhost");
		strcat(
		    strcat(addr, ","), worker_resolve_address(resolve, 0, i));
		strcat(port, ",2");
	}
	strcat(host, ",127.0.0.9");
	strcat(addr, ",");
	strcat(port, ",4");
	conn = worker_conninfo_start(info, resolve, 0);
	for (int i = 0; i < 3; i++) {
		char *value = conn_value(
		    conn, ((const char *[]){"host", "hostaddr", "port"})[i]);

		assert_string_equal(
		    value, ((const char *[]){host, addr, port})[i]);
		free(value);
	}
	PQfinish(conn);
	worker_resolve_free(&resolve);
	worker_conninfo_free(&info);
}

static void
a_lookup_without_an_owner_frees_itself(void **state)
{
	static const char *const names[] = {"localhost"};

	(void)state;
	for (int i = 0; i < 50; i++) {
		struct worker_resolve *resolve = worker_resolve_start(names, 1);

		assert_non_null(resolve);
		if (i % 2 == 1)
			usleep((useconds_t)i * 20);
		worker_resolve_free(&resolve);
		assert_null(resolve);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(
		a_bad_string_is_refused_and_says_why_without_secrets),
	    cmocka_unit_test(a_masked_string_keeps_all_but_the_secrets),
	    cmocka_unit_test(a_failure_becomes_one_line_and_an_sqlstate),
	    cmocka_unit_test(defaults_are_ours_unless_something_else_was_given),
	    cmocka_unit_test(
		hosts_come_from_the_environment_and_from_a_service_file_too),
	    cmocka_unit_test(addresses_and_sockets_need_no_lookup),
	    cmocka_unit_test(
		each_address_of_a_name_is_a_host_with_its_name_and_port),
	    cmocka_unit_test(a_lookup_without_an_owner_frees_itself),
	};

	/* What the test's own environment says is no part of it. */
	unsetenv("PGHOST");
	unsetenv("PGHOSTADDR");
	unsetenv("PGPORT");
	unsetenv("PGSERVICE");
	unsetenv("PGAPPNAME");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
