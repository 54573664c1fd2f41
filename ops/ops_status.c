/*
 * The status as JSON.
 *
 * Rates are of the last second, quantiles and the hit ratio of the last ten.
 * It is written when somebody asks and from what was sampled, so two who ask
 * within a second are told the same.  Words of the board that no process of
 * ours wrote are judged before they are used as an index.
 */
#include "config.h"

#include <string.h>
#include <unistd.h>

#include "api/api_health.h"
#include "api/api_route.h"
#include "ops/ops_site.h"
#include "ops/ops_status.h"

#define CACHE_LOOK_US 5000000

/* What the parts below look at. */
struct view {
	struct ops_site *site;
	struct ops_json *json;
	const struct shm_board *board;
	uint64_t now_us;
	const struct ops_sample *last;
	const struct ops_sample *before; /* a second earlier */
	const struct ops_sample *oldest; /* ten seconds earlier */
	double second;			 /* how long it really was */
};

static uint64_t
seconds_since(uint64_t then_us, uint64_t now_us)
{
	return then_us == 0 || then_us > now_us ? 0
						: (now_us - then_us) / 1000000;
}

static double
per_second(const struct view *view, uint64_t from, uint64_t to)
{
	return ops_ratio((double)(to - from), view->second);
}

static const char *
route_name(uint32_t route)
{
	return route < API_ROUTE_COUNT ? api_route_table[route].path : "none";
}

/* ---- the task */

static void
write_ecs(const struct view *view)
{
	const struct ops_ecs_task *ecs = view->site->options->ecs;
	struct ops_json *json = view->json;

	if (ecs == NULL) {
		ops_json_null(json, "task");
		return;
	}
	ops_json_object(json, "task");
	ops_json_text(json, "family", ecs->family);
	ops_json_text(json, "revision", ecs->revision);
	ops_json_text(json, "id", ecs->id);
	ops_json_end_object(json);
}

static void
write_task(const struct view *view)
{
	const struct shm_board *board = view->board;
	struct ops_json *json = view->json;

	ops_json_text(json, "version", view->site->options->version);
	ops_json_u64(json, "pid", (uint64_t)shm_board_get(board->master));
	ops_json_u64(json, "now", view->last->total.wall_ms);
	ops_json_u64(json, "uptimeSeconds",
	    seconds_since(
		shm_board_get(board->master_started_us), view->now_us));
	ops_json_text(json, "state", api_health_state(board));
	ops_json_text(json, "backend", api_health_io(board));
	ops_json_u64(json, "generation", shm_board_get(board->generation));
	ops_json_u64(json, "half", board->half);
	write_ecs(view);
	ops_json_u64(
	    json, "workersWanted", shm_board_get(board->workers_wanted));
	ops_json_u64(json, "workersMin", shm_board_get(board->workers_min));
	ops_json_u64(json, "workersMax", shm_board_get(board->workers_max));
}

static void
write_cpu(const struct view *view)
{
	const struct shm_board_cpu *cpu = &view->board->cpu;
	struct ops_json *json = view->json;
	char source[SHM_BOARD_TEXT + 1] = "";

	/* Any content is expected, with or without an end. */
	memcpy(source, cpu->source, SHM_BOARD_TEXT);
	ops_json_object(json, "cpu");
	ops_json_u64(json, "limitMillicpus", shm_board_get(cpu->millicpus));
	ops_json_text(json, "source", source);
	ops_json_real(json, "throttledSeconds",
	    (double)shm_board_get(cpu->throttled_us) / 1e6);
	ops_json_u64(
	    json, "throttledPeriods", shm_board_get(cpu->throttled_periods));
	ops_json_u64(json, "periods", shm_board_get(cpu->periods));
	ops_json_end_object(json);
}

/* ---- processes */

static void
write_doing(struct ops_json *json, const struct shm_board_worker *worker)
{
	static const char *const names[] = {
	    [SHM_BOARD_WAITING] = "waiting",
	    [SHM_BOARD_WORKING] = "working",
	    [SHM_BOARD_REQUEST] = "request",
	};
	uint32_t doing = shm_board_get(worker->doing);

	ops_json_text(json, "doing",
	    doing < SHM_ARRAY_LEN(names) ? names[doing] : "unknown");
	ops_json_text(json, "route",
	    doing == SHM_BOARD_REQUEST
		? route_name(shm_board_get(worker->route))
		: NULL);
}

static void
write_worker_rates(const struct view *view, uint32_t i)
{
	const struct ops_sample_slot *last = &view->last->slot[i];
	struct ops_sample_slot from = view->before->slot[i];
	struct ops_json *json = view->json;

	if (from.incarnation != last->incarnation ||
	    from.requests > last->requests || from.cpu_us > last->cpu_us)
		from = (struct ops_sample_slot){.requests = 0};
	ops_json_u64(json, "requests", last->requests);
	ops_json_real(json, "requestsPerSecond",
	    per_second(view, from.requests, last->requests));
	ops_json_real(json, "cpuSeconds", (double)last->cpu_us / 1e6);
	ops_json_real(json, "cpuPercent",
	    per_second(view, from.cpu_us, last->cpu_us) / 1e4);
}

static void
write_worker(const struct view *view, uint32_t i)
{
	const struct shm_board_worker *worker = &view->board->worker[i];
	uint64_t beat_us = shm_board_get(worker->heartbeat_us);
	struct ops_json *json = view->json;

	ops_json_object(json, NULL);
	ops_json_u64(json, "slot", i);
	ops_json_u64(json, "pid", (uint64_t)shm_board_get(worker->pid));
	ops_json_text(
	    json, "state", shm_board_state_name(shm_board_get(worker->state)));
	ops_json_u64(json, "ageSeconds",
	    seconds_since(shm_board_get(worker->born_us), view->now_us));
	ops_json_text(json, "io", shm_board_io_name(shm_board_get(worker->io)));
	ops_json_text(json, "database",
	    shm_board_get(worker->db) == SHM_BOARD_DB_READY ? "ready" : "away");
	ops_json_u64(json, "connections", shm_board_get(worker->connections));
	write_worker_rates(view, i);
	ops_json_real(json, "busyPercent",
	    (double)shm_board_get(worker->busy_permille) / 10);
	write_doing(json, worker);
	if (beat_us == 0)
		ops_json_null(json, "heartbeatAgeMs");
	else
		ops_json_u64(json, "heartbeatAgeMs",
		    beat_us < view->now_us ? (view->now_us - beat_us) / 1000
					   : 0);
	ops_json_u64(
	    json, "databaseConnections", shm_board_get(worker->db_connections));
	ops_json_u64(json, "databaseBusy", shm_board_get(worker->db_busy));
	ops_json_u64(
	    json, "databaseWaiting", shm_board_get(worker->db_waiting));
	ops_json_u64(
	    json, "requestsOpen", shm_board_get(worker->requests_open));
	ops_json_u64(json, "restarts", shm_board_get(worker->restarts));
	ops_json_end_object(json);
}

static void
write_processes(const struct view *view)
{
	const struct shm_board_ops *ops = &view->board->ops;
	struct ops_json *json = view->json;

	ops_json_array(json, "workers");
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++)
		if (shm_board_get(view->board->worker[i].pid) != 0)
			write_worker(view, i);
	ops_json_end_array(json);
	ops_json_object(json, "ops");
	ops_json_u64(json, "pid", (uint64_t)getpid());
	ops_json_u64(json, "ageSeconds",
	    seconds_since(shm_board_get(ops->started_us), view->now_us));
	ops_json_u64(json, "restarts", shm_board_get(ops->restarts));
	ops_json_bool(json, "listening", shm_board_get(ops->listening) != 0);
	ops_json_end_object(json);
}

/* ---- requests */

static void
write_requests(const struct view *view)
{
	static const char *const names[] = {"2xx", "3xx", "4xx", "5xx"};
	const struct ops_total *last = &view->last->total;
	const struct ops_total *before = &view->before->total;
	const struct ops_total *oldest = &view->oldest->total;
	struct ops_json *json = view->json;

	ops_json_object(json, "requests");
	ops_json_u64(json, "total", last->requests);
	ops_json_real(json, "perSecond",
	    per_second(view, before->requests, last->requests));
	ops_json_real(json, "perCpuSecond",
	    ops_ratio((double)(last->requests - oldest->requests),
		(double)(last->cpu_us - oldest->cpu_us) / 1e6));
	ops_json_object(json, "byClass");
	for (size_t i = 0; i < SHM_ARRAY_LEN(names); i++)
		ops_json_u64(json, names[i], last->class[i]);
	ops_json_end_object(json);
	ops_json_real(json, "errorsPerSecond",
	    per_second(view, before->errors, last->errors));
	ops_json_u64(json, "aborted", view->last->counter[SHM_STATS_aborted]);
	ops_json_u64(json, "refused", view->last->counter[SHM_STATS_refused]);
	ops_json_end_object(json);
}

static void
write_latency(const struct view *view)
{
	struct ops_json *json = view->json;
	struct shm_histogram took;

	ops_histogram_between(
	    &took, &view->oldest->total.duration, &view->last->total.duration);
	ops_json_object(json, "latency");
	ops_json_real(json, "p50", ops_histogram_ms(&took, 0.5));
	ops_json_real(json, "p90", ops_histogram_ms(&took, 0.9));
	ops_json_real(json, "p99", ops_histogram_ms(&took, 0.99));
	ops_json_real(json, "max", ops_histogram_ms(&took, 1));
	ops_json_end_object(json);
}

static void
write_routes(const struct view *view)
{
	struct ops_json *json = view->json;
	struct shm_histogram took;

	ops_json_array(json, "routes");
	for (uint32_t i = 0; i < SHM_STATS_ROUTES; i++) {
		const struct ops_sample_route *route = &view->last->route[i];

		if (route->requests == 0)
			continue;
		ops_histogram_between(
		    &took, &view->oldest->route[i].duration, &route->duration);
		ops_json_object(json, NULL);
		ops_json_text(json, "route", route_name(i));
		ops_json_u64(json, "total", route->requests);
		ops_json_real(json, "perSecond",
		    per_second(view, view->before->route[i].requests,
			route->requests));
		ops_json_real(json, "p50", ops_histogram_ms(&took, 0.5));
		ops_json_real(json, "p99", ops_histogram_ms(&took, 0.99));
		ops_json_u64(json, "errors", route->errors);
		ops_json_end_object(json);
	}
	ops_json_end_array(json);
}

/* ---- what is behind them */

static void
look_at_cache(const struct view *view)
{
	struct ops_site *site = view->site;

	if (site->options->cache == NULL ||
	    (site->cache_us != 0 &&
		view->now_us < site->cache_us + CACHE_LOOK_US))
		return;
	shm_cache_stats(site->options->cache, &site->cache);
	site->cache_us = view->now_us;
}

static void
write_cache(const struct view *view)
{
	static const enum shm_cache_counter shown[] = {SHM_CACHE_hits,
	    SHM_CACHE_misses, SHM_CACHE_stale, SHM_CACHE_coalesced,
	    SHM_CACHE_negative, SHM_CACHE_evictions, SHM_CACHE_invalidations};
	const struct ops_total *last = &view->last->total;
	const struct ops_total *oldest = &view->oldest->total;
	uint64_t all = last->cache_all - oldest->cache_all;
	struct ops_json *json = view->json;

	look_at_cache(view);
	ops_json_object(json, "cache");
	ops_json_bool(json, "enabled", view->site->options->cache != NULL);
	for (size_t i = 0; i < SHM_ARRAY_LEN(shown); i++)
		ops_json_u64(json, shm_cache_counter_name(shown[i]),
		    view->last->cache[shown[i]]);
	if (all == 0)
		ops_json_null(json, "hitRatio");
	else
		ops_json_real(json, "hitRatio",
		    (double)(last->cache_good - oldest->cache_good) /
			(double)all);
	ops_json_u64(json, "entries", view->site->cache.entries);
	ops_json_u64(json, "usedBytes", view->site->cache.used_bytes);
	ops_json_u64(json, "dataBytes", view->site->cache.data_bytes);
	ops_json_end_object(json);
}

static void
write_sqlstates(const struct view *view)
{
	struct ops_json *json = view->json;
	char text[6];

	ops_json_array(json, "errors");
	for (uint32_t i = 0; i < SHM_STATS_SQLSTATES; i++) {
		const struct shm_stats_sqlstate *one = &view->last->sqlstate[i];

		if (one->sqlstate == 0)
			break;
		shm_stats_sqlstate_text(one->sqlstate, text);
		ops_json_object(json, NULL);
		ops_json_text(json, "sqlstate", text);
		ops_json_u64(json, "count", one->count);
		ops_json_end_object(json);
	}
	if (view->last->sqlstate_other > 0) {
		ops_json_object(json, NULL);
		ops_json_text(json, "sqlstate", "other");
		ops_json_u64(json, "count", view->last->sqlstate_other);
		ops_json_end_object(json);
	}
	ops_json_end_array(json);
}

static void
write_database(const struct view *view)
{
	const uint64_t *counter = view->last->counter;
	uint64_t connections = 0, busy = 0, waiting = 0;
	struct ops_json *json = view->json;
	struct shm_histogram took;

	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++) {
		const struct shm_board_worker *worker = &view->board->worker[i];

		if (shm_board_get(worker->pid) == 0)
			continue;
		connections += shm_board_get(worker->db_connections);
		busy += shm_board_get(worker->db_busy);
		waiting += shm_board_get(worker->db_waiting);
	}
	ops_histogram_between(
	    &took, &view->oldest->database, &view->last->database);
	ops_json_object(json, "database");
	ops_json_bool(json, "ready", shm_board_has_db(view->board));
	ops_json_u64(json, "connections", connections);
	ops_json_u64(json, "busy", busy);
	ops_json_u64(json, "waiting", waiting);
	ops_json_u64(json, "queries", counter[SHM_STATS_database_queries]);
	ops_json_real(json, "p50", ops_histogram_ms(&took, 0.5));
	ops_json_real(json, "p99", ops_histogram_ms(&took, 0.99));
	ops_json_u64(json, "waits", counter[SHM_STATS_database_waits]);
	ops_json_u64(json, "timeouts", counter[SHM_STATS_database_timeouts]);
	write_sqlstates(view);
	ops_json_end_object(json);
}

static void
write_listen(const struct view *view)
{
	const char *at = view->site->options->listen;
	struct ops_json *json = view->json;
	char one[128];

	ops_json_object(json, "listen");
	if (view->site->queue.is_known)
		ops_json_u64(json, "queue", view->site->queue.waiting);
	else
		ops_json_null(json, "queue");
	ops_json_u64(json, "overflows", view->site->queue.overflows);
	ops_json_array(json, "addresses");
	while (*at != '\0') {
		size_t len = strcspn(at, " ");

		snprintf(one, sizeof(one), "%.*s", (int)len, at);
		ops_json_text(json, NULL, one);
		at += len;
		at += strspn(at, " ");
	}
	ops_json_end_array(json);
	ops_json_end_object(json);
}

static void
write_events(const struct view *view)
{
	struct ops_json *json = view->json;

	ops_json_object(json, "events");
	for (uint32_t i = 0; i < SHM_BOARD_EVENTS_COUNT; i++)
		ops_json_u64(json,
		    shm_board_event_name((enum shm_board_event)i),
		    shm_task_events(
			view->site->options->task, (enum shm_board_event)i));
	ops_json_end_object(json);
}

void
ops_status_write(struct ops_site *site, struct ops_json *json)
{
	const struct ops_point *point = ops_history_last(&site->history);
	struct view view = {
	    .site = site,
	    .json = json,
	    .board = site->options->board,
	    .last = ops_samples_last(&site->samples),
	    .before = ops_samples_before(&site->samples),
	    .oldest = ops_samples_oldest(&site->samples),
	};

	view.now_us = view.last->total.at_us;
	view.second =
	    ops_seconds_between(&view.before->total, &view.last->total);
	ops_json_object(json, NULL);
	write_task(&view);
	write_cpu(&view);
	write_processes(&view);
	write_requests(&view);
	write_latency(&view);
	write_routes(&view);
	write_cache(&view);
	write_database(&view);
	write_listen(&view);
	write_events(&view);
	if (point == NULL)
		ops_json_null(json, "point");
	else
		ops_history_write(json, "point", point);
	ops_json_end_object(json);
}

enum MHD_Result
ops_status(const struct ops_request *request)
{
	struct api_buf buf = {0};
	struct ops_json json = {.buf = &buf};

	ops_status_write(request->http->site, &json);
	api_buf_text(&buf, "\n");
	return ops_http_buf(request, MHD_HTTP_OK, "application/json", &buf);
}
