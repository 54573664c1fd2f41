/*
 * Goal: who may change something is decided as booksd(8) says, whatever the
 * fields of a request hold.
 * Method: a table of requests with their verdicts.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ops/ops_guard.h"

#define TOKEN "0123456789abcdef"

static void
judge(const struct ops_guard_facts *facts, enum ops_guard_verdict want)
{
	enum ops_guard_verdict got = ops_guard_judge(facts);

	if (got != want)
		fail_msg("host %s, origin %s, authorization %s: %d, not %d",
		    facts->host, facts->origin, facts->authorization, got,
		    want);
}

static void
from_this_machine_the_host_is_an_address_or_localhost(void **state)
{
	static const char *const good[] = {"127.0.0.1", "127.0.0.1:9180",
	    "localhost", "LocalHost:1", "[::1]", "[::1]:9180", "10.1.2.3:80"};
	static const char *const bad[] = {NULL, "", "books.example",
	    "books.example:9180", "127.0.0.1.example", "localhost.example",
	    "[books]", "[", "127.0.0.1x", "::1", "localhost/",
	    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
	struct ops_guard_facts facts = {.is_loopback = true, .token = ""};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(good); i++) {
		facts.host = good[i];
		judge(&facts, OPS_GUARD_PASS);
	}
	for (size_t i = 0; i < SHM_ARRAY_LEN(bad); i++) {
		facts.host = bad[i];
		facts.is_loopback = true;
		judge(&facts, OPS_GUARD_HOST);
		facts.is_loopback = false;
		judge(&facts, OPS_GUARD_PASS);
	}
}

static void
a_page_of_another_origin_changes_nothing(void **state)
{
	static const char *const bad[] = {"null", "", "http://evil.example.com",
	    "http://127.0.0.1", "http://127.0.0.1:9181", "127.0.0.1:9180",
	    "ftp://127.0.0.1:9180", "http://127.0.0.1:9180/",
	    "http://127.0.0.1:9180.example"};
	struct ops_guard_facts facts = {
	    .is_loopback = true,
	    .is_change = true,
	    .host = "127.0.0.1:9180",
	    .origin = "http://127.0.0.1:9180",
	    .token = "",
	};

	(void)state;
	judge(&facts, OPS_GUARD_PASS);
	facts.site = "same-origin";
	judge(&facts, OPS_GUARD_PASS);
	facts.site = "cross-site";
	judge(&facts, OPS_GUARD_ORIGIN);
	facts.site = NULL;
	for (size_t i = 0; i < SHM_ARRAY_LEN(bad); i++) {
		facts.origin = bad[i];
		facts.is_change = true;
		judge(&facts, OPS_GUARD_ORIGIN);
		facts.is_change = false;
		judge(&facts, OPS_GUARD_PASS);
	}
}

static void
from_another_machine_a_change_needs_the_token(void **state)
{
	static const char *const bad[] = {NULL, "", "Bearer", "Bearer ",
	    "Bearer 0123456789abcde", "Bearer 0123456789abcdeF",
	    "Bearer 0123456789abcdef0", "Bearer 0123456789abcdef ",
	    "Basic 0123456789abcdef", TOKEN};
	struct ops_guard_facts facts = {
	    .is_change = true, .host = "books.example", .token = TOKEN};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(bad); i++) {
		facts.authorization = bad[i];
		judge(&facts, OPS_GUARD_TOKEN);
	}
	facts.authorization = "Bearer " TOKEN;
	judge(&facts, OPS_GUARD_PASS);
	facts.authorization = "bearer   " TOKEN;
	judge(&facts, OPS_GUARD_PASS);
	facts.token = "";
	judge(&facts, OPS_GUARD_NO_TOKEN);
	facts.authorization = "Bearer ";
	judge(&facts, OPS_GUARD_NO_TOKEN);
	facts.authorization = NULL;
	facts.is_unix = true;
	judge(&facts, OPS_GUARD_PASS);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(
		from_this_machine_the_host_is_an_address_or_localhost),
	    cmocka_unit_test(a_page_of_another_origin_changes_nothing),
	    cmocka_unit_test(from_another_machine_a_change_needs_the_token),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
