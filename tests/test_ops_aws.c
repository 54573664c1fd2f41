/*
 * Goal: keys are looked for where AWS's own clients look, and are asked for
 * nowhere else than in the task's own network or over TLS.
 * Method: tables of environments, addresses, ARNs and times.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/ops_aws.h"

static struct ops_aws_keys keys;
static struct ops_aws_ask ask;
static char reason[OPS_AWS_REASON_BYTES];

static int
forget(void **state)
{
	static const char *const names[] = {"AWS_ACCESS_KEY_ID",
	    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION",
	    "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL",
	    "AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_PROFILE",
	    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
	    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
	    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
	    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(names); i++)
		unsetenv(names[i]);
	setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere", 1);
	ops_aws_forget(&keys);
	return 0;
}

static void
set(const char *name, const char *value)
{
	assert_int_equal(setenv(name, value, 1), 0);
}

static void
a_relative_address_is_of_ecs(void **state)
{
	(void)state;
	set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/1");
	set("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1/2");
	assert_int_equal(ops_aws_find(&keys, &ask, reason), OPS_AWS_ASK);
	assert_string_equal(ask.url, "http://169.254.170.2/v2/credentials/1");
	assert_string_equal(ask.authorization, "");
}

static void
keys_of_the_environment_come_first(void **state)
{
	(void)state;
	set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/1");
	set("AWS_ACCESS_KEY_ID", "AKIA");
	set("AWS_SECRET_ACCESS_KEY", "secret");
	assert_int_equal(ops_aws_find(&keys, &ask, reason), OPS_AWS_OK);
	assert_string_equal(keys.id, "AKIA");
	assert_string_equal(keys.token, "");
	assert_true(ops_aws_are_fresh(&keys, INT64_MAX));
	set("AWS_SESSION_TOKEN", "to\r\nken");
	assert_int_equal(ops_aws_find(&keys, &ask, reason), OPS_AWS_FAILED);
}

static void
an_authorization_is_one_field(void **state)
{
	(void)state;
	set("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1/");
	set("AWS_CONTAINER_AUTHORIZATION_TOKEN", "a token");
	assert_int_equal(ops_aws_find(&keys, &ask, reason), OPS_AWS_ASK);
	assert_string_equal(ask.authorization, "Authorization: a token");
	set("AWS_CONTAINER_AUTHORIZATION_TOKEN", "a\r\nHost: b");
	assert_int_equal(ops_aws_find(&keys, &ask, reason), OPS_AWS_FAILED);
	set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/nowhere");
	assert_int_equal(ops_aws_find(&keys, &ask, reason), OPS_AWS_FAILED);
}

static void
keys_are_asked_for_nearby_or_over_tls(void **state)
{
	static const struct {
		const char *url;
		bool is_near;
	} cases[] = {
	    {"https://example.com/", true},
	    {"http://127.0.0.1/", true},
	    {"http://127.0.0.1:81/x", true},
	    {"http://localhost:81", true},
	    {"http://[::1]:81/", true},
	    {"http://169.254.170.2/", true},
	    {"http://169.254.170.23/v1/credentials", true},
	    {"http://[fd00:ec2::23]/", true},
	    {"http://169.254.170.25/", false},
	    {"http://169.254.169.254/", false},
	    {"http://127.0.0.1.example.com/", false},
	    {"http://127.0.0.1@example.com/", false},
	    {"http://localhost.example.com/", false},
	    {"http://example.com/127.0.0.1", false},
	    {"ftp://127.0.0.1/", false},
	    {"file:///etc/passwd", false},
	    {"", false},
	};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++)
		if (ops_aws_is_near(cases[i].url) != cases[i].is_near)
			fail_msg("%s", cases[i].url);
}

static void
an_arn_names_its_region_and_wins(void **state)
{
	char region[64];

	(void)state;
	assert_false(ops_aws_region("name", region));
	set("AWS_DEFAULT_REGION", "eu-west-2");
	assert_true(ops_aws_region("name", region));
	assert_string_equal(region, "eu-west-2");
	set("AWS_REGION", "eu-west-1");
	assert_true(ops_aws_region("name", region));
	assert_string_equal(region, "eu-west-1");
	assert_true(ops_aws_region(
	    "arn:aws-cn:secretsmanager:cn-north-1:1:secret:a", region));
	assert_string_equal(region, "cn-north-1");
	assert_false(ops_aws_region("arn:aws:secretsmanager", region));
	set("AWS_REGION", "evil.example.com/");
	assert_false(ops_aws_region("name", region));
}

static void
an_endpoint_that_is_set_wins(void **state)
{
	char url[OPS_AWS_URL_BYTES];

	(void)state;
	ops_aws_endpoint("us-east-1", url);
	assert_string_equal(
	    url, "https://secretsmanager.us-east-1.amazonaws.com/");
	ops_aws_endpoint("cn-north-1", url);
	assert_string_equal(
	    url, "https://secretsmanager.cn-north-1.amazonaws.com.cn/");
	set("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
	ops_aws_endpoint("us-east-1", url);
	assert_string_equal(url, "http://127.0.0.1:1/");
	set("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:2/");
	ops_aws_endpoint("us-east-1", url);
	assert_string_equal(url, "http://127.0.0.1:2/");
}

static void
an_answer_without_keys_is_refused(void **state)
{
	static const char good[] =
	    "{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\",\"Token\":\"T\","
	    "\"Expiration\":\"2026-01-31T12:00:00Z\"}";
	static const char *const bad[] = {"", "{}", "[]", "null",
	    "{\"AccessKeyId\":\"A\"}",
	    "{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\","
	    "\"Token\":\"T\\r\\nX: 1\"}",
	    "{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\","
	    "\"Token\":\"T\",\"Expiration\":\"soon\"}"};
	struct ops_curl_answer answer = {
	    .status = 200, .body = good, .body_len = sizeof(good) - 1};

	(void)state;
	assert_true(ops_aws_read(&keys, &answer, reason));
	assert_int_equal(keys.expires_s, 1769860800);
	assert_true(ops_aws_are_fresh(&keys, keys.expires_s - 301));
	assert_false(ops_aws_are_fresh(&keys, keys.expires_s - 300));
	for (size_t i = 0; i < SHM_ARRAY_LEN(bad); i++) {
		answer.body = bad[i];
		answer.body_len = strlen(bad[i]);
		if (ops_aws_read(&keys, &answer, reason))
			fail_msg("%s", bad[i]);
	}
}

static void
times_are_in_utc(void **state)
{
	(void)state;
	assert_int_equal(ops_aws_time("1970-01-01T00:00:01Z"), 1);
	assert_int_equal(ops_aws_time("1970-01-01T00:00:01.5Z"), 1);
	assert_int_equal(ops_aws_time("1970-01-01T00:00:01"), 0);
	assert_int_equal(ops_aws_time("1970-01-01T00:00:01+02:00"), 0);
	assert_int_equal(ops_aws_time(""), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(a_relative_address_is_of_ecs, forget),
	    cmocka_unit_test_setup(keys_of_the_environment_come_first, forget),
	    cmocka_unit_test_setup(an_authorization_is_one_field, forget),
	    cmocka_unit_test_setup(
		keys_are_asked_for_nearby_or_over_tls, forget),
	    cmocka_unit_test_setup(an_arn_names_its_region_and_wins, forget),
	    cmocka_unit_test_setup(an_endpoint_that_is_set_wins, forget),
	    cmocka_unit_test_setup(an_answer_without_keys_is_refused, forget),
	    cmocka_unit_test(times_are_in_utc),
	};

	setenv("TZ", "America/St_Johns", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
