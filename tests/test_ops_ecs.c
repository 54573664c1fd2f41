/*
 * Goal: what the container service tells of our task is taken as it is meant,
 * and nothing but the service is asked.
 * Method: tables of addresses and of answers.  Asking itself is shown by
 * it_sizing.py.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "ops/ops_ecs.h"

static void
only_local_addresses_are_asked(void **state)
{
	static const struct {
		const char *uri;
		bool is_local;
	} cases[] = {
	    {"http://169.254.170.2/v4/0123abcd-4567", true},
	    {"http://127.0.0.1:51678/v4/x", true},
	    {"http://127.0.0.1", true},
	    {"http://[::1]:80/v4/x", true},
	    {"http://[fe80::1]/v4/x", true},
	    {"", false},
	    {"http://", false},
	    {"https://169.254.170.2/v4/x", false},
	    {"file:///etc/passwd", false},
	    {"http://192.0.2.1/v4/x", false},
	    {"http://localhost/v4/x", false},
	    {"http://169.254.170.2.example.com/v4/x", false},
	    {"http://169.254.170.2@example.com/v4/x", false},
	    {"http://169.254.170.2:80@example.com/", false},
	    {"http://169.254.170.2:123456/", false},
	    {"http://169.254.170.2:/", false},
	    {"http://169.254.170.2/v4?x", false},
	    {"http://169.254.170.2/v4 x", false},
	    {"http://2852039166/v4", false},
	    {"http://[::1/v4", false},
	    {"http://[::1]x/v4", false},
	    {"http://[2001:db8::1]/v4", false},
	};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++)
		if (ops_ecs_is_local(cases[i].uri) != cases[i].is_local)
			fail_msg("%s", cases[i].uri);
}

static void
an_answer_is_read(void **state)
{
	static const char text[] =
	    "{\"Cluster\":\"arn:aws:ecs:eu-west-1:111122223333:cluster/shop\","
	    "\"ServiceName\":\"catalogue\",\"TaskARN\":\"arn:aws:ecs:eu-west-1:"
	    "111122223333:task/default/158d1c80\",\"Family\":\"books\","
	    "\"Revision\":\"26\",\"DesiredStatus\":\"RUNNING\","
	    "\"Limits\":{\"CPU\":0.25,\"Memory\":512},\"Containers\":[{}]}";
	struct ops_ecs_task task;

	(void)state;
	assert_true(ops_ecs_parse(text, strlen(text), &task));
	assert_int_equal(task.millicpus, 250);
	assert_string_equal(task.family, "books");
	assert_string_equal(task.revision, "26");
	assert_string_equal(task.id, "158d1c80");
	assert_string_equal(task.cluster, "shop");
	assert_string_equal(task.service, "catalogue");
}

static void
what_is_no_number_of_cpus_is_no_limit(void **state)
{
	static const struct {
		const char *text;
		uint32_t millicpus;
	} cases[] = {
	    {"{\"Family\":\"a\",\"Limits\":{\"CPU\":2}}", 2000},
	    {"{\"Family\":\"a\",\"Limits\":{\"CPU\":16.0}}", 16000},
	    {"{\"Family\":\"a\",\"Limits\":{\"CPU\":0}}", 0},
	    {"{\"Family\":\"a\",\"Limits\":{\"CPU\":-1}}", 0},
	    {"{\"Family\":\"a\",\"Limits\":{\"CPU\":1e300}}", 0},
	    {"{\"Family\":\"a\",\"Limits\":{\"CPU\":\"2\"}}", 0},
	    {"{\"Family\":\"a\",\"Limits\":{}}", 0},
	    {"{\"Family\":\"a\",\"Limits\":[2]}", 0},
	    {"{\"Family\":\"a\"}", 0},
	};
	struct ops_ecs_task task;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++) {
		assert_true(
		    ops_ecs_parse(cases[i].text, strlen(cases[i].text), &task));
		if (task.millicpus != cases[i].millicpus)
			fail_msg("%s: %u", cases[i].text, task.millicpus);
	}
}

static void
what_describes_no_task_is_refused(void **state)
{
	static const char *const cases[] = {"", "{", "[]", "null", "{}",
	    "{\"Family\":1}", "{\"Family\":\"a\\nb\"}",
	    "{\"Family\":\"a\\\"b\"}", "{\"TaskARN\":\"\"}",
	    "{\"Family\":\"a\"} x"};
	struct ops_ecs_task task;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++)
		if (ops_ecs_parse(cases[i], strlen(cases[i]), &task))
			fail_msg("%s", cases[i]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(only_local_addresses_are_asked),
	    cmocka_unit_test(an_answer_is_read),
	    cmocka_unit_test(what_is_no_number_of_cpus_is_no_limit),
	    cmocka_unit_test(what_describes_no_task_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
