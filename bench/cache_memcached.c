/*
 * memcached over a unix socket, one get at a time, as a server without memory
 * of its own would ask it: the CPU time of both processes for a get, beside the
 * CPU time of ours for the same keys and values.
 */
#include "config.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "bench/cache.h"

#define KEYS	    20000
#define VALUE_BYTES 400
#define TIMES_LEAST 50

static int
dial(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(addr.sun_path))
		errx(EX_USAGE, "%s: too long", path);
	memcpy(addr.sun_path, path, strlen(path));
	if (fd == -1 ||
	    connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == -1)
		err(EX_UNAVAILABLE, "%s", path);
	return fd;
}

/* Send a command and read until what is received ends with end. */
static size_t
ask(int fd, const char *text, size_t len, const char *end)
{
	static char in[8192];
	size_t end_len = strlen(end), got = 0;
	ssize_t n;

	if (send(fd, text, len, MSG_NOSIGNAL) != (ssize_t)len)
		err(EX_IOERR, "memcached");
	do {
		n = recv(fd, in + got, sizeof(in) - got, 0);
		if (n <= 0)
			errx(EX_PROTOCOL, "memcached ended the connection");
		got += (size_t)n;
	} while (
	    got < end_len || memcmp(in + got - end_len, end, end_len) != 0);
	return got;
}

static void
store_all(int fd, uint32_t keys)
{
	char text[CACHE_KEY_BYTES + 2], command[64 + VALUE_BYTES];
	int len;

	memset(command, 'x', sizeof(command));
	for (uint32_t i = 0; i < keys; i++) {
		cache_key_text(text, i);
		len = snprintf(
		    command, 64, "set %s 0 0 %d\r\n", text, VALUE_BYTES);
		command[len] = 'x';
		memcpy(command + len + VALUE_BYTES, "\r\n", 2);
		(void)ask(
		    fd, command, (size_t)len + VALUE_BYTES + 2, "STORED\r\n");
	}
}

static double
clock_ns(clockid_t clock)
{
	struct timespec now;

	if (clock_gettime(clock, &now) == -1)
		err(EX_OSERR, "clock of memcached");
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* Client and server. */
static double
memcached_ns(int fd, clockid_t server, const struct cache_draws *draws)
{
	double begin = cache_cpu_ns() + clock_ns(server);
	char command[32];

	for (uint32_t i = 0; i < draws->count; i++) {
		memcpy(command, "get ", 4);
		memcpy(command + 4, draws->text[i], CACHE_KEY_BYTES);
		memcpy(command + 4 + CACHE_KEY_BYTES, "\r\n", 2);
		if (ask(fd, command, CACHE_KEY_BYTES + 6, "END\r\n") <
		    VALUE_BYTES)
			errx(EX_SOFTWARE, "memcached has lost a key");
	}
	return (cache_cpu_ns() + clock_ns(server) - begin) / draws->count;
}

static double
ours_ns(struct shm_cache *cache, const struct cache_draws *draws)
{
	static char out[SHM_CACHE_VALUE_MAX];
	double begin = cache_cpu_ns();

	for (uint32_t turn = 0; turn < 10; turn++)
		for (uint32_t i = 0; i < draws->count; i++)
			(void)cache_get(cache, draws->text[i], out);
	return (cache_cpu_ns() - begin) / draws->count / 10;
}

void
cache_bench_memcached(void)
{
	double theirs[CACHE_ROUNDS_MAX], times[CACHE_ROUNDS_MAX];
	uint32_t keys = cache_scaled(KEYS, 100);
	struct cache_draws draws;
	struct shm_cache *cache;
	clockid_t server;
	int fd;

	if (cache_options.memcached == NULL) {
		puts("  memcached: not asked for (--memcached)");
		return;
	}
	if (clock_getcpuclockid(cache_options.memcached_pid, &server) != 0)
		errx(EX_USAGE, "--memcached-pid: no such process");
	fd = dial(cache_options.memcached);
	store_all(fd, keys);
	draws = cache_draws_new(keys, cache_scaled(100000, 100), 1);
	cache =
	    cache_new((uint64_t)(64 * CACHE_MIB * cache_options.scale), 1, 0);
	shm_cache_enter(cache, 0);
	cache_fill(cache, keys, VALUE_BYTES);
	(void)ours_ns(cache, &draws);
	for (uint32_t i = 0; i < cache_options.rounds; i++) {
		theirs[i] = memcached_ns(fd, server, &draws);
		times[i] = theirs[i] / ours_ns(cache, &draws);
	}
	cache_report(&(struct cache_figure){"memcached",
	    "memcached get over a unix socket, client and server",
	    cache_median(theirs, cache_options.rounds) / 1e3, "us",
	    CACHE_NO_BAR, 0});
	cache_report(&(struct cache_figure){"memcached_times", "  over ours",
	    cache_median(times, cache_options.rounds), "times", CACHE_AT_LEAST,
	    TIMES_LEAST});
	(void)close(fd);
	cache_draws_free(&draws);
	shm_cache_free(&cache);
}
