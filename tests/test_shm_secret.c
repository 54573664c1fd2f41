/*
 * Goal: the secret is read whole by every process, whatever its writer does,
 * and a refusal of the present one is heard.
 * Method: one process changes it as fast as it can, each version to a letter
 * of its own; another reads until it has seen 100,000 changes, and finds the
 * letter of the version everywhere.  Writers are killed and followed by others.
 */
#include "config.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/shm_secret.h"

#define CHANGES	   100000
#define TEXT_BYTES 4000

static struct shm_secret *secret;

static int
setup(void **state)
{
	(void)state;
	secret = shm_secret_new();
	return secret != NULL ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	shm_secret_free(&secret);
	return secret == NULL ? 0 : -1;
}

static bool
is_woken(void)
{
	struct pollfd fd = {.fd = shm_secret_wake_fd(secret), .events = POLLIN};

	return poll(&fd, 1, 0) == 1;
}

static void
there_is_none_before_the_first(void **state)
{
	char text[SHM_SECRET_BYTES_MAX];

	(void)state;
	assert_int_equal(shm_secret_get(secret, text), 0);
	assert_string_equal(text, "");
}

static void
the_same_text_is_no_new_version(void **state)
{
	char text[SHM_SECRET_BYTES_MAX];

	(void)state;
	assert_true(shm_secret_put(secret, "user=a"));
	assert_true(shm_secret_put(secret, "user=a"));
	assert_int_equal(shm_secret_get(secret, text), 1);
	assert_string_equal(text, "user=a");
	assert_true(shm_secret_put(secret, ""));
	assert_int_equal(shm_secret_get(secret, text), 2);
	assert_string_equal(text, "");
}

static void
a_text_of_one_byte_too_many_is_refused(void **state)
{
	char text[SHM_SECRET_BYTES_MAX + 1];

	(void)state;
	memset(text, 'x', sizeof(text));
	text[SHM_SECRET_BYTES_MAX] = '\0';
	assert_false(shm_secret_put(secret, text));
	text[SHM_SECRET_BYTES_MAX - 1] = '\0';
	assert_true(shm_secret_put(secret, text));
	assert_int_equal(shm_secret_version(secret), 1);
}

static void
only_the_present_one_can_be_refused(void **state)
{
	(void)state;
	assert_true(shm_secret_put(secret, "user=a"));
	assert_true(shm_secret_put(secret, "user=b"));
	shm_secret_refuse(secret, 1);
	assert_false(is_woken());
	assert_int_equal(shm_secret_refusals(secret), 0);
	shm_secret_refuse(secret, 2);
	shm_secret_refuse(secret, 2);
	assert_true(is_woken());
	assert_int_equal(shm_secret_refusals(secret), 2);
	shm_secret_woken(secret);
	assert_false(is_woken());
}

/* Never returns: it is killed.  Each version has a letter and a length. */
static void
write_for_ever(void)
{
	char text[SHM_SECRET_BYTES_MAX];

	for (;;) {
		uint64_t version = shm_secret_version(secret) + 1;

		memset(text, (char)('a' + version % 26), sizeof(text));
		text[TEXT_BYTES] = '\0';
		if (!shm_secret_put(secret, text))
			_exit(1);
	}
}

static void
look(uint64_t *last, int *changes)
{
	char text[SHM_SECRET_BYTES_MAX];
	uint64_t version = shm_secret_get(secret, text);

	assert_true(version >= *last);
	*changes += version != *last;
	*last = version;
	if (version == 0)
		return;
	/* A torn one is nearly always seen at one of its ends. */
	assert_int_equal(text[0], 'a' + version % 26);
	assert_int_equal(text[TEXT_BYTES / 2], 'a' + version % 26);
	assert_int_equal(text[TEXT_BYTES - 1], 'a' + version % 26);
	assert_int_equal(text[TEXT_BYTES], '\0');
}

static void
no_text_is_torn_though_writers_are_killed(void **state)
{
	uint64_t last = 0, until_us = shm_clock_us() + 20000000;
	int changes = 0;

	(void)state;
	while (changes < CHANGES && shm_clock_us() < until_us) {
		pid_t pid = fork();

		assert_int_not_equal(pid, -1);
		if (pid == 0)
			write_for_ever();
		for (int i = 0; i < 200000; i++)
			look(&last, &changes);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
	}
	if (changes < CHANGES)
		skip(); /* they hardly ran at the same time */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(
		there_is_none_before_the_first, setup, teardown),
	    cmocka_unit_test_setup_teardown(
		the_same_text_is_no_new_version, setup, teardown),
	    cmocka_unit_test_setup_teardown(
		a_text_of_one_byte_too_many_is_refused, setup, teardown),
	    cmocka_unit_test_setup_teardown(
		only_the_present_one_can_be_refused, setup, teardown),
	    cmocka_unit_test_setup_teardown(
		no_text_is_torn_though_writers_are_killed, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
