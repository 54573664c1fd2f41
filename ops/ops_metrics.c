/*
 * Metrics.
 *
 * They are summed when they are asked for, not taken from the last second's
 * look: who has an answer finds it counted.  Histograms are summed once and
 * written from that, so that their parts agree.
 *
 * HOW MANY series there can be is bounded by tables: routes, methods and
 * statuses that we have, slots, 32 SQLSTATEs.  Nothing that a client sends
 * becomes a label.  A series is there from its first event on.
 */
#include "config.h"

#include <string.h>

#include "api/api_health.h"
#include "api/api_route.h"
#include "ops/ops_metrics.h"
#include "ops/ops_site.h"
#include "ops/ops_text.h"

#define TYPE_OPEN "application/openmetrics-text; version=1.0.0; charset=utf-8"
#define TYPE_OLD  "text/plain; version=0.0.4; charset=utf-8"

struct metrics {
	struct ops_text text;
	struct ops_site *site;
	const struct ops_options *options;
	const struct shm_board *board;
	const struct shm_stats *sum;
};

static const char *
route_name(uint32_t route)
{
	return route < API_ROUTE_COUNT ? api_route_table[route].path : "none";
}

static void
gauge(struct metrics *metrics, const char *family, const char *help,
    uint64_t value)
{
	ops_text_family(&metrics->text, OPS_TEXT_GAUGE, family, "", help);
	ops_text_u64(&metrics->text, value);
}

static void
counter(struct metrics *metrics, const char *family, const char *help,
    uint64_t value)
{
	ops_text_family(&metrics->text, OPS_TEXT_COUNTER, family, "", help);
	ops_text_u64(&metrics->text, value);
}

/* ---- the task */

static void
write_task(struct metrics *metrics)
{
	struct ops_text *text = &metrics->text;
	uint64_t age_us = shm_clock_us() - metrics->options->task->started_us;

	ops_text_family(text, OPS_TEXT_INFO, "books_build", "",
	    "The program, and its I/O back end.");
	ops_text_label(text, "version", metrics->options->version);
	ops_text_label(text, "backend", api_health_io(metrics->board));
	ops_text_u64(text, 1);
	ops_text_family(text, OPS_TEXT_GAUGE, "books_start_time", "seconds",
	    "When the task began: Unix time.");
	ops_text_us(text, shm_wallclock_us() - age_us);
	gauge(metrics, "books_ready", "May a load balancer send requests here?",
	    shm_board_is_ready(metrics->board));
	gauge(metrics, "books_settings_generation",
	    "How often the settings were read again.",
	    shm_board_get(metrics->board->generation));
	ops_text_family(text, OPS_TEXT_COUNTER, "books_events", "",
	    "What happened to processes, by its kind.");
	for (uint32_t i = 0; i < SHM_BOARD_EVENTS_COUNT; i++) {
		enum shm_board_event event = (enum shm_board_event)i;

		ops_text_label(text, "event", shm_board_event_name(event));
		ops_text_u64(
		    text, shm_task_events(metrics->options->task, event));
	}
}

static void
write_cpu(struct metrics *metrics)
{
	const struct shm_board_cpu *cpu = &metrics->board->cpu;
	const struct ops_samples *samples = &metrics->site->samples;
	const struct ops_total *from = &ops_samples_oldest(samples)->total;
	const struct ops_total *to = &ops_samples_last(samples)->total;
	struct ops_text *text = &metrics->text;

	ops_text_family(text, OPS_TEXT_GAUGE, "books_cpu_limit", "",
	    "CPUs that the workers may use; 0: no limit.");
	ops_text_real(text, (double)shm_board_get(cpu->millicpus) / 1e3);
	ops_text_family(text, OPS_TEXT_COUNTER, "books_cpu_throttled",
	    "seconds", "For how long the control group was stopped.");
	ops_text_us(text, shm_board_get(cpu->throttled_us));
	counter(metrics, "books_cpu_throttled_periods",
	    "Periods in which the control group was stopped.",
	    shm_board_get(cpu->throttled_periods));
	counter(metrics, "books_cpu_periods",
	    "Periods of the control group's limit.",
	    shm_board_get(cpu->periods));
	ops_text_family(text, OPS_TEXT_GAUGE, "books_requests_per_cpu_second",
	    "",
	    "Requests for each second of CPU of the workers, over ten "
	    "seconds.");
	ops_text_real(text, ops_ratio((double)(to->requests - from->requests),
				(double)(to->cpu_us - from->cpu_us) / 1e6));
}

/* ---- requests */

static void
write_requests(struct metrics *metrics)
{
	struct ops_text *text = &metrics->text;

	ops_text_family(text, OPS_TEXT_COUNTER, "books_requests", "",
	    "Requests answered, by method, route and status.");
	for (uint32_t i = 0; i < SHM_STATS_ROUTES; i++)
		for (uint32_t j = 0; j < SHM_STATS_METHODS; j++)
			for (uint32_t k = 0; k < SHM_STATS_STATUSES_COUNT;
			     k++) {
				uint64_t count =
				    metrics->sum->requests[i][j][k];
				uint32_t status = shm_stats_status(k);

				if (count == 0)
					continue;
				ops_text_label(text, "method",
				    api_method_name((enum api_method)j));
				ops_text_label(text, "route", route_name(i));
				if (status == 0)
					ops_text_label(text, "code", "other");
				else
					ops_text_label_u64(
					    text, "code", status);
				ops_text_u64(text, count);
			}
}

static void
write_durations(struct metrics *metrics)
{
	const struct shm_stats *sum = metrics->sum;
	struct ops_text *text = &metrics->text;

	ops_text_family(text, OPS_TEXT_HISTOGRAM, "books_request_duration",
	    "seconds",
	    "From a request's first byte to its answer's last, by route.");
	for (uint32_t i = 0; i < SHM_STATS_ROUTES; i++)
		if (shm_histogram_count(&sum->duration[i]) > 0)
			ops_text_histogram(
			    text, "route", route_name(i), &sum->duration[i]);
	ops_text_family(text, OPS_TEXT_HISTOGRAM, "books_database_duration",
	    "seconds", "From a statement sent to its last row.");
	ops_text_histogram(text, NULL, NULL, &sum->database);
	ops_text_family(text, OPS_TEXT_HISTOGRAM, "books_database_wait",
	    "seconds", "Waits for a database connection.");
	ops_text_histogram(text, NULL, NULL, &sum->database_wait);
}

/* All that workers count, by the table. */
static void
write_counters(struct metrics *metrics)
{
	static const char *const units[] = {
	    [SHM_STATS_COUNT] = "",
	    [SHM_STATS_BYTES] = "bytes",
	    [SHM_STATS_MICROSECONDS] = "seconds",
	};
	struct ops_text *text = &metrics->text;
	char family[64];

	for (uint32_t i = 0; i < SHM_STATS_COUNTERS_COUNT; i++) {
		enum shm_stats_counter which = (enum shm_stats_counter)i;
		enum shm_stats_unit unit = shm_stats_counter_unit(which);

		snprintf(family, sizeof(family), "books_%s",
		    shm_stats_counter_name(which));
		ops_text_family(text, OPS_TEXT_COUNTER, family, units[unit],
		    shm_stats_counter_help(which));
		if (unit == SHM_STATS_MICROSECONDS)
			ops_text_us(text, metrics->sum->counter[i]);
		else
			ops_text_u64(text, metrics->sum->counter[i]);
	}
}

/* ---- workers */

static bool
is_there(const struct metrics *metrics, uint32_t i)
{
	return shm_board_get(metrics->board->worker[i].pid) != 0;
}

static void
write_worker_states(struct metrics *metrics)
{
	struct ops_text *text = &metrics->text;
	const struct shm_board *board = metrics->board;

	ops_text_family(text, OPS_TEXT_GAUGE, "books_workers", "",
	    "Workers by their state.");
	for (uint32_t state = SHM_BOARD_STARTING; state <= SHM_BOARD_DRAINING;
	     state++) {
		uint64_t count = 0;

		for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
			count += is_there(metrics, i) &&
				 shm_board_get(board->worker[i].state) == state;
		ops_text_label(text, "state", shm_board_state_name(state));
		ops_text_u64(text, count);
	}
	gauge(metrics, "books_workers_wanted", "Workers that there shall be.",
	    shm_board_get(board->workers_wanted));
	gauge(metrics, "books_workers_min", "The least that may be wanted.",
	    shm_board_get(board->workers_min));
	gauge(metrics, "books_workers_max", "The most that may be wanted.",
	    shm_board_get(board->workers_max));
}

static void
write_workers(struct metrics *metrics)
{
	const struct shm_task *task = metrics->options->task;
	struct ops_text *text = &metrics->text;

	ops_text_family(text, OPS_TEXT_GAUGE, "books_worker_busy", "ratio",
	    "The part of the last second in which a worker did not wait.");
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
		if (is_there(metrics, i)) {
			ops_text_label_u64(text, "slot", i);
			ops_text_real(
			    text, (double)shm_board_get(
				      metrics->board->worker[i].busy_permille) /
				      1e3);
		}
	ops_text_family(text, OPS_TEXT_GAUGE, "books_worker_connections", "",
	    "Clients of a worker.");
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
		if (is_there(metrics, i)) {
			ops_text_label_u64(text, "slot", i);
			ops_text_u64(
			    text, shm_board_get(
				      metrics->board->worker[i].connections));
		}
	ops_text_family(text, OPS_TEXT_COUNTER, "books_worker_cpu", "seconds",
	    "CPU time of all workers that a slot ever had.");
	for (uint32_t i = 0; i < SHM_TASK_SLOTS; i++) {
		const struct shm_board *board =
		    &task->half[i / SHM_BOARD_SLOTS];
		const struct shm_stats *stats = &task->stats[i];

		if (shm_board_get(
			board->worker[i % SHM_BOARD_SLOTS].incarnation) == 0)
			continue;
		ops_text_label_u64(text, "slot", i);
		ops_text_us(text,
		    shm_stats_get(stats->counter[SHM_STATS_cpu_user]) +
			shm_stats_get(stats->counter[SHM_STATS_cpu_system]));
	}
}

/* ---- what is around them */

static void
write_database(struct metrics *metrics)
{
	struct ops_text *text = &metrics->text;
	uint64_t all = 0, busy = 0, waiting = 0;
	char sqlstate[6];

	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++) {
		const struct shm_board_worker *worker =
		    &metrics->board->worker[i];

		if (!is_there(metrics, i))
			continue;
		all += shm_board_get(worker->db_connections);
		busy += shm_board_get(worker->db_busy);
		waiting += shm_board_get(worker->db_waiting);
	}
	if (all < busy) /* one was lost between two reads */
		all = busy;
	ops_text_family(text, OPS_TEXT_GAUGE, "books_database_connections", "",
	    "Database connections, with a statement under way or without.");
	ops_text_label(text, "state", "busy");
	ops_text_u64(text, busy);
	ops_text_label(text, "state", "idle");
	ops_text_u64(text, all - busy);
	gauge(metrics, "books_database_waiting",
	    "Requests that wait for a database connection.", waiting);
	gauge(metrics, "books_database_listening",
	    "Does ops hear from the database what others change?",
	    shm_board_get(metrics->board->ops.listening) != 0);
	ops_text_family(text, OPS_TEXT_COUNTER, "books_database_errors", "",
	    "Errors of the database by their SQLSTATE.");
	for (uint32_t i = 0; i < SHM_STATS_SQLSTATES; i++) {
		const struct shm_stats_sqlstate *one =
		    &metrics->sum->sqlstate[i];

		if (one->sqlstate == 0)
			break;
		shm_stats_sqlstate_text(one->sqlstate, sqlstate);
		ops_text_label(text, "sqlstate", sqlstate);
		ops_text_u64(text, one->count);
	}
	ops_text_label(text, "sqlstate", "other");
	ops_text_u64(text, metrics->sum->sqlstate_other);
}

static void
write_listen(struct metrics *metrics)
{
	const struct ops_queue *queue = &metrics->site->queue;

	if (queue->is_known) {
		gauge(metrics, "books_listen_queue",
		    "Connections that no worker has accepted yet.",
		    queue->waiting);
		gauge(metrics, "books_listen_queue_max",
		    "Connections that the queues have room for.", queue->limit);
	}
	counter(metrics, "books_listen_overflows",
	    "Connections that found a full queue, of all servers of the "
	    "network namespace.",
	    queue->overflows);
}

static void
write_cache(struct metrics *metrics)
{
	uint64_t count[SHM_CACHE_COUNTERS_COUNT];
	struct shm_cache_stats stats;
	char family[64];

	if (metrics->options->cache == NULL)
		return;
	shm_cache_counters(metrics->options->cache, count);
	for (uint32_t i = 0; i < SHM_CACHE_COUNTERS_COUNT; i++) {
		snprintf(family, sizeof(family), "books_cache_%s",
		    shm_cache_counter_name((enum shm_cache_counter)i));
		counter(metrics, family,
		    shm_cache_counter_help((enum shm_cache_counter)i),
		    count[i]);
	}
	shm_cache_stats(metrics->options->cache, &stats);
	gauge(metrics, "books_cache_entries", "Answers that the cache holds.",
	    stats.entries);
	ops_text_family(&metrics->text, OPS_TEXT_GAUGE, "books_cache_used",
	    "bytes", "Memory of the cache that holds something.");
	ops_text_u64(&metrics->text, stats.used_bytes);
	ops_text_family(&metrics->text, OPS_TEXT_GAUGE, "books_cache_size",
	    "bytes", "Memory of the cache.");
	ops_text_u64(&metrics->text, stats.data_bytes);
}

/* ---- the answer */

static bool
wants_open_metrics(const struct ops_request *request)
{
	const char *accept = MHD_lookup_connection_value(
	    request->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT);

	return accept == NULL ||
	       strstr(accept, "application/openmetrics-text") != NULL ||
	       strstr(accept, "text/plain") == NULL;
}

enum MHD_Result
ops_metrics(const struct ops_request *request)
{
	struct ops_site *site = request->http->site;
	struct api_buf buf = {0};
	struct metrics metrics = {
	    .text = {.buf = &buf,
		.is_open_metrics = wants_open_metrics(request)},
	    .site = site,
	    .options = request->options,
	    .board = request->options->board,
	    .sum = &site->samples.sum,
	};

	shm_task_sum(request->options->task, &site->samples.sum);
	write_task(&metrics);
	write_cpu(&metrics);
	write_requests(&metrics);
	write_durations(&metrics);
	write_counters(&metrics);
	write_worker_states(&metrics);
	write_workers(&metrics);
	write_database(&metrics);
	write_listen(&metrics);
	write_cache(&metrics);
	ops_text_end(&metrics.text);
	return ops_http_buf(request, MHD_HTTP_OK,
	    metrics.text.is_open_metrics ? TYPE_OPEN : TYPE_OLD, &buf);
}
