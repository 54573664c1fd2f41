#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "shm/shm_base.h"

static uint64_t
clock_us(clockid_t id)
{
	struct timespec ts;

	if (clock_gettime(id, &ts) == -1)
		abort();
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t
shm_clock_us(void)
{
	return clock_us(CLOCK_MONOTONIC);
}

uint64_t
shm_wallclock_us(void)
{
	return clock_us(CLOCK_REALTIME);
}

/* Called in a process whose state is wrong: no stdio, no allocation. */
void
shm_assert_failed(
    const char *cond, const char *file, int line, const char *func)
{
	char digits[12];
	size_t at = sizeof(digits);
	const char *base = strrchr(file, '/');
	const char *part[7];
	unsigned left = line < 0 ? 0 : (unsigned)line;

	digits[--at] = '\0';
	do {
		digits[--at] = (char)('0' + left % 10);
		left /= 10;
	} while (left > 0 && at > 0);
	part[0] = base != NULL ? base + 1 : file;
	part[1] = ":";
	part[2] = digits + at;
	part[3] = ": ";
	part[4] = func;
	part[5] = ": assertion failed: ";
	part[6] = cond;
	for (size_t i = 0; i < SHM_ARRAY_LEN(part); i++)
		if (write(STDERR_FILENO, part[i], strlen(part[i])) == -1)
			break;
	if (write(STDERR_FILENO, "\n", 1) == -1)
		abort();
	abort();
}
