/*
 * Print what the memory of a running booksd says, as one JSON object, or ask
 * its workers for samples.
 *
 *	stats_dump MASTER
 *	stats_dump MASTER profile HERTZ SECONDS   ask, wait, print the samples
 *
 * For tests: they compare these numbers with what their clients have counted.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/api.h"
#include "api/api_route.h"
#include "shm/shm_task.h"

static struct shm_task *
task_of(const char *master)
{
	char folder[64], path[PATH_MAX], to[PATH_MAX];
	struct shm_task *task = NULL;
	const struct dirent *entry;
	DIR *dir;
	ssize_t len;
	int fd;

	snprintf(folder, sizeof(folder), "/proc/%s/fd", master);
	dir = opendir(folder);
	while (dir != NULL && task == NULL && (entry = readdir(dir)) != NULL) {
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		len = readlink(path, to, sizeof(to) - 1);
		if (len <= 0)
			continue;
		to[len] = '\0';
		if (strstr(to, "memfd:booksd-task") == NULL)
			continue;
		fd = open(path, O_RDWR | O_CLOEXEC);
		task = fd != -1 ? shm_task_adopt(fd) : NULL;
		if (fd != -1)
			close(fd);
	}
	if (dir != NULL)
		closedir(dir);
	return task;
}

static const char *
route_name(uint32_t route)
{
	return route < API_ROUTE_COUNT ? api_route_table[route].path : "none";
}

static void
print_counters(const struct shm_stats *sum)
{
	for (uint32_t i = 0; i < SHM_STATS_COUNTERS_COUNT; i++)
		printf("%s\"%s\":%llu", i > 0 ? "," : "",
		    shm_stats_counter_name((enum shm_stats_counter)i),
		    (unsigned long long)shm_stats_get(sum->counter[i]));
}

static void
print_requests(const struct shm_stats *sum)
{
	const char *comma = "";

	for (uint32_t i = 0; i < SHM_STATS_ROUTES; i++)
		for (uint32_t j = 0; j < SHM_STATS_METHODS; j++)
			for (uint32_t k = 0; k < SHM_STATS_STATUSES_COUNT;
			     k++) {
				unsigned long long count =
				    shm_stats_get(sum->requests[i][j][k]);

				if (count == 0)
					continue;
				printf("%s[\"%s\",\"%s\",%u,%llu]", comma,
				    route_name(i),
				    api_method_name((enum api_method)j),
				    shm_stats_status(k), count);
				comma = ",";
			}
}

static void
print_histogram(const char *name, const struct shm_histogram *histogram)
{
	printf("\"%s\":[%llu,%llu]", name,
	    (unsigned long long)shm_histogram_count(histogram),
	    (unsigned long long)shm_stats_get(histogram->sum_us));
}

static void
print_durations(const struct shm_stats *sum)
{
	for (uint32_t i = 0; i < SHM_STATS_ROUTES; i++) {
		if (i > API_ROUTE_COUNT && i < SHM_STATS_ROUTES - 1)
			continue; /* not in use */
		if (i > 0)
			putchar(',');
		print_histogram(i == API_ROUTE_COUNT ? "unused" : route_name(i),
		    &sum->duration[i]);
	}
}

static void
print_sqlstates(const struct shm_stats *sum)
{
	char text[6];

	for (uint32_t i = 0; i < SHM_STATS_SQLSTATES; i++) {
		uint32_t state = shm_stats_get(sum->sqlstate[i].sqlstate);

		if (state == 0)
			break;
		shm_stats_sqlstate_text(state, text);
		printf("%s\"%s\":%llu", i > 0 ? "," : "", text,
		    (unsigned long long)shm_stats_get(sum->sqlstate[i].count));
	}
}

static void
print_worker(
    const struct shm_board_worker *block, uint32_t slot, const char *comma)
{
	static const char *const doing[] = {"waiting", "working", "request"};
	uint32_t what = shm_board_get(block->doing);

	printf("%s{\"slot\":%u,\"pid\":%d,\"state\":\"%s\",", comma, slot,
	    shm_board_get(block->pid),
	    shm_board_state_name(shm_board_get(block->state)));
	printf("\"connections\":%u,\"requests\":%llu,\"requests_open\":%u,",
	    shm_board_get(block->connections),
	    (unsigned long long)shm_board_get(block->requests),
	    shm_board_get(block->requests_open));
	printf("\"heartbeat_age_us\":%lld,\"busy_us\":%llu,\"cpu_us\":%llu,",
	    (long long)(shm_clock_us() - shm_board_get(block->heartbeat_us)),
	    (unsigned long long)shm_board_get(block->busy_us),
	    (unsigned long long)shm_board_get(block->cpu_us));
	printf("\"busy_permille\":%u,\"doing\":\"%s\",\"route\":\"%s\",",
	    shm_board_get(block->busy_permille), what < 3 ? doing[what] : "?",
	    route_name(shm_board_get(block->route)));
	printf("\"db_connections\":%u,\"db_busy\":%u,\"db_waiting\":%u}",
	    shm_board_get(block->db_connections), shm_board_get(block->db_busy),
	    shm_board_get(block->db_waiting));
}

static void
print_workers(const struct shm_task *task)
{
	const char *comma = "";

	for (uint32_t i = 0; i < SHM_TASK_SLOTS; i++) {
		const struct shm_board_worker *block =
		    &task->half[i / SHM_BOARD_SLOTS]
			 .worker[i % SHM_BOARD_SLOTS];

		if (shm_board_get(block->pid) == 0)
			continue;
		print_worker(block, i, comma);
		comma = ",";
	}
}

static void
print_task(const struct shm_task *task)
{
	static struct shm_stats sum;

	shm_task_sum(task, &sum);
	printf("{\"counters\":{");
	print_counters(&sum);
	printf("},\"requests\":[");
	print_requests(&sum);
	printf("],\"duration\":{");
	print_durations(&sum);
	printf("},");
	print_histogram("database", &sum.database);
	printf(",");
	print_histogram("database_wait", &sum.database_wait);
	printf(",\"sqlstate\":{");
	print_sqlstates(&sum);
	printf("},\"sqlstate_other\":%llu,\"workers\":[",
	    (unsigned long long)shm_stats_get(sum.sqlstate_other));
	print_workers(task);
	printf("]}\n");
}

static void
print_samples(const struct shm_profile_worker *worker, uint32_t slot)
{
	uint32_t count =
	    atomic_load_explicit(&worker->count, memory_order_acquire);

	for (uint32_t i = 0; i < count && i < SHM_PROFILE_SAMPLES; i++) {
		const struct shm_profile_sample *sample = &worker->sample[i];

		printf("%u", slot);
		for (uint32_t j = 0; j < sample->depth && j < SHM_PROFILE_DEPTH;
		     j++)
			printf(" %llx", (unsigned long long)sample->pc[j]);
		printf("\n");
	}
}

static void
profile(struct shm_task *task, uint32_t hertz, uint32_t seconds)
{
	struct shm_profile_request *request = &task->profile;
	uint32_t serial = shm_board_get(request->serial) + 1;

	shm_board_set(request->hertz, hertz);
	shm_board_set(request->until_us, shm_clock_us() + seconds * 1000000ull);
	atomic_store_explicit(&request->serial, serial, memory_order_release);
	sleep(seconds + 1);
	for (uint32_t i = 0; i < SHM_TASK_SLOTS; i++)
		if (shm_board_get(task->samples[i].serial) == serial)
			print_samples(&task->samples[i], i);
}

int
main(int argc, char **argv)
{
	struct shm_task *task = argc > 1 ? task_of(argv[1]) : NULL;

	if (task == NULL) {
		fprintf(
		    stderr, "stats_dump: no task there: %s\n", strerror(errno));
		return 1;
	}
	if (argc == 5 && strcmp(argv[2], "profile") == 0)
		profile(task, (uint32_t)strtoul(argv[3], NULL, 10),
		    (uint32_t)strtoul(argv[4], NULL, 10));
	else
		print_task(task);
	shm_task_free(&task);
	return 0;
}
