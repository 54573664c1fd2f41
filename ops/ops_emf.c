/*
 * Embedded metric format: a JSON object a line, whose member _aws says which
 * other members are metrics.
 *
 * Standard output may be a pipe whose reader has stopped, and ops waits for
 * nobody: a line is shorter than what a pipe takes at once (PIPE_BUF), and is
 * dropped when there is no room.  Of what did not happen there is no figure
 * rather than a wrong one: without requests a line has no latencies.
 *
 * Dimensions are few and the same for all tasks of a service, since each
 * combination of their values is paid for.
 */
#include "config.h"

#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include "ops/ops_site.h"

#define NAMESPACE   "AWSomeBooks"
#define METRICS_MAX 24
#define SERVICE	    "booksd" /* where nobody gave it another name */

struct metric {
	const char *name;
	const char *unit; /* of CloudWatch's list */
	double value;
};

struct metrics {
	uint32_t count;
	struct metric metric[METRICS_MAX];
};

static void
add(struct metrics *metrics, const char *name, const char *unit, double value)
{
	SHM_ASSERT(metrics->count < METRICS_MAX);
	metrics->metric[metrics->count++] = (struct metric){name, unit, value};
}

/* ---- what is told */

static uint64_t
deaths(const struct shm_task *task)
{
	return shm_task_events(task, SHM_BOARD_EVENT_worker_exit) +
	       shm_task_events(task, SHM_BOARD_EVENT_worker_signal) +
	       shm_task_events(task, SHM_BOARD_EVENT_worker_watchdog);
}

static void
add_requests(struct metrics *metrics, const struct ops_total *from,
    const struct ops_total *to)
{
	struct shm_histogram took;
	double cpu_s = (double)(to->cpu_us - from->cpu_us) / 1e6;
	double requests = (double)(to->requests - from->requests);

	add(metrics, "Requests", "Count", requests);
	add(metrics, "Errors4xx", "Count",
	    (double)(to->class[2] - from->class[2]));
	add(metrics, "Errors5xx", "Count", (double)(to->errors - from->errors));
	add(metrics, "CpuTime", "Seconds", cpu_s);
	ops_histogram_between(&took, &from->duration, &to->duration);
	if (shm_histogram_count(&took) == 0)
		return;
	add(metrics, "LatencyP50", "Milliseconds", ops_histogram_ms(&took, .5));
	add(metrics, "LatencyP90", "Milliseconds", ops_histogram_ms(&took, .9));
	add(metrics, "LatencyP99", "Milliseconds",
	    ops_histogram_ms(&took, .99));
	if (cpu_s > 0)
		add(metrics, "RequestsPerCpuSecond", "None", requests / cpu_s);
}

static void
add_workers(struct metrics *metrics, const struct ops_total *from,
    const struct ops_total *to)
{
	double seconds = ops_seconds_between(from, to);
	double busy_s = (double)(to->busy_us - from->busy_us) / 1e6;

	add(metrics, "Workers", "Count", to->serving);
	add(metrics, "Connections", "Count", to->connections);
	if (to->serving > 0 && seconds > 0)
		add(metrics, "BusyRatio", "Percent",
		    100 * busy_s / (seconds * to->serving));
	if (to->cache_all > from->cache_all)
		add(metrics, "CacheHitRatio", "Percent",
		    100 * (double)(to->cache_good - from->cache_good) /
			(double)(to->cache_all - from->cache_all));
}

static void
add_database(struct metrics *metrics, const struct shm_board *board,
    const struct ops_sample *from, const struct ops_sample *to)
{
	struct shm_histogram took;
	uint64_t waiting = 0;

	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
		if (shm_board_get(board->worker[i].pid) != 0)
			waiting += shm_board_get(board->worker[i].db_waiting);
	add(metrics, "DatabaseWaiting", "Count", (double)waiting);
	add(metrics, "DatabaseTimeouts", "Count",
	    (double)(to->counter[SHM_STATS_database_timeouts] -
		     from->counter[SHM_STATS_database_timeouts]));
	ops_histogram_between(&took, &from->database, &to->database);
	if (shm_histogram_count(&took) > 0)
		add(metrics, "DatabaseP99", "Milliseconds",
		    ops_histogram_ms(&took, .99));
}

/* What is not in the samples. */
static void
add_rest(struct metrics *metrics, struct ops_site *site)
{
	const struct shm_board *board = site->options->board;
	struct ops_emf *emf = &site->emf;
	uint64_t throttled_us = shm_board_get(board->cpu.throttled_us);
	uint64_t died = deaths(site->options->task);

	add(metrics, "Throttled", "Seconds",
	    throttled_us < emf->throttled_us
		? 0
		: (double)(throttled_us - emf->throttled_us) / 1e6);
	add(metrics, "WorkerDeaths", "Count", (double)(died - emf->deaths));
	add(metrics, "ListenOverflows", "Count",
	    (double)(site->queue.overflows - emf->overflows));
	if (site->queue.is_known)
		add(metrics, "ListenQueue", "Count",
		    (double)site->queue.waiting);
}

/* ---- the line */

static void
write_head(struct ops_json *json, const struct metrics *metrics,
    uint64_t wall_ms, const char *cluster)
{
	ops_json_object(json, "_aws");
	ops_json_u64(json, "Timestamp", wall_ms);
	ops_json_array(json, "CloudWatchMetrics");
	ops_json_object(json, NULL);
	ops_json_text(json, "Namespace", NAMESPACE);
	ops_json_array(json, "Dimensions");
	ops_json_array(json, NULL);
	if (cluster != NULL)
		ops_json_text(json, NULL, "Cluster");
	ops_json_text(json, NULL, "Service");
	ops_json_end_array(json);
	ops_json_end_array(json);
	ops_json_array(json, "Metrics");
	for (uint32_t i = 0; i < metrics->count; i++) {
		ops_json_object(json, NULL);
		ops_json_text(json, "Name", metrics->metric[i].name);
		ops_json_text(json, "Unit", metrics->metric[i].unit);
		ops_json_end_object(json);
	}
	ops_json_end_array(json);
	ops_json_end_object(json);
	ops_json_end_array(json);
	ops_json_end_object(json);
}

/* NULL instead of an empty text. */
static const char *
known(const char *text)
{
	return text[0] != '\0' ? text : NULL;
}

static void
write_line(const struct ops_site *site, const struct metrics *metrics,
    uint64_t wall_ms, struct api_buf *buf)
{
	const struct ops_ecs_task *ecs = site->options->ecs;
	const char *cluster = ecs != NULL ? known(ecs->cluster) : NULL;
	const char *service = ecs != NULL ? known(ecs->service) : NULL;
	struct ops_json json = {.buf = buf};

	/* A task that no service started is known by its definition. */
	if (service == NULL && ecs != NULL)
		service = known(ecs->family);
	ops_json_object(&json, NULL);
	write_head(&json, metrics, wall_ms, cluster);
	if (cluster != NULL)
		ops_json_text(&json, "Cluster", cluster);
	ops_json_text(&json, "Service", service != NULL ? service : SERVICE);
	ops_json_text(&json, "Version", site->options->version);
	if (ecs != NULL)
		ops_json_text(&json, "TaskId", ecs->id);
	for (uint32_t i = 0; i < metrics->count; i++)
		ops_json_real(
		    &json, metrics->metric[i].name, metrics->metric[i].value);
	ops_json_end_object(&json);
	api_buf_text(buf, "\n");
}

static void
send_line(const struct ops_options *options, const struct api_buf *buf)
{
	struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};

	if (!buf->failed && buf->len <= PIPE_BUF && poll(&out, 1, 0) == 1 &&
	    (out.revents & POLLOUT) != 0 &&
	    write(STDOUT_FILENO, buf->data, buf->len) == (ssize_t)buf->len)
		return;
	ops_say(options, OPS_LOG_WARN, "metrics_dropped",
	    "standard output did not take a line of metrics",
	    OPS_LOG_INT("bytes", buf->len));
}

/* ---- its time */

static void
begin(struct ops_site *site)
{
	struct ops_emf *emf = &site->emf;
	const struct ops_sample *last = ops_samples_last(&site->samples);

	emf->from = *last;
	emf->throttled_us =
	    shm_board_get(site->options->board->cpu.throttled_us);
	emf->deaths = deaths(site->options->task);
	emf->overflows = site->queue.overflows;
	emf->due_us = last->total.at_us + site->options->metrics_emf_ms * 1000;
}

/* The task's first ops tells of what was before it; what another one has told
 * already is not known. */
static void
begin_first(struct ops_site *site)
{
	const struct shm_task *task = site->options->task;
	uint32_t count = 0;

	begin(site);
	for (uint32_t i = 0; i < SHM_TASK_HALVES; i++)
		count += shm_board_get(task->half[i].ops.incarnation);
	if (count > 1)
		return;
	site->emf.from = (struct ops_sample){
	    .total = {.at_us = task->started_us},
	};
	site->emf.deaths = 0;
}

void
ops_emf_tick(struct ops_site *site, bool is_end)
{
	const struct ops_sample *to = ops_samples_last(&site->samples);
	const struct ops_sample *from = &site->emf.from;
	struct metrics metrics = {.count = 0};
	struct api_buf buf = {0};

	if (site->options->metrics_emf_ms == 0)
		return;
	if (from->total.at_us == 0) {
		begin_first(site);
		return;
	}
	/* A look may come a little early. */
	if (!is_end &&
	    to->total.at_us + OPS_SAMPLE_PERIOD_US / 2 < site->emf.due_us)
		return;
	add_requests(&metrics, &from->total, &to->total);
	add_workers(&metrics, &from->total, &to->total);
	add_database(&metrics, site->options->board, from, to);
	add_rest(&metrics, site);
	write_line(site, &metrics, to->total.wall_ms, &buf);
	send_line(site->options, &buf);
	api_buf_fini(&buf);
	begin(site);
}
