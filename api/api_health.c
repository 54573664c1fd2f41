/*
 * Health: alive, ready, and what there is to know about both.
 *
 * Readiness is about this task, not about the database behind all tasks: if
 * every task became unready at a failover, the scheduler would replace them
 * all.  So the database's state is told (?verbose) and changes nothing.
 *
 * Everything is read from the scoreboard, word by word, as other processes
 * left it; two numbers of one answer may be from different moments.
 */
#include "config.h"

#include "api/api_health.h"
#include "api/api_problem.h"

#define RETRY_AFTER_S 1 /* starting takes no longer, draining ends in death */

const char *
api_health_state(const struct shm_board *board)
{
	if (shm_board_get(board->draining))
		return "draining";
	return shm_board_is_ready(board) ? "ready" : "starting";
}

/* Is name among the parameters of query, with a value or without? */
static bool
query_has(struct api_slice query, const char *name)
{
	size_t len = strlen(name);

	while (query.len > 0) {
		const char *end = memchr(query.data, '&', query.len);
		size_t bytes =
		    end != NULL ? (size_t)(end - query.data) : query.len;

		if (bytes >= len && memcmp(query.data, name, len) == 0 &&
		    (bytes == len || query.data[len] == '='))
			return true;
		bytes += end != NULL; /* and the separator */
		query.data += bytes;
		query.len -= bytes;
	}
	return false;
}

static void
write_member_text(struct api_buf *buf, const char *name, const char *value)
{
	api_buf_text(buf, "\"");
	api_buf_text(buf, name);
	api_buf_text(buf, "\":\"");
	api_buf_json(buf, (struct api_slice){value, strlen(value)});
	api_buf_text(buf, "\"");
}

static void
write_member_u64(struct api_buf *buf, const char *name, uint64_t value)
{
	api_buf_text(buf, ",\"");
	api_buf_text(buf, name);
	api_buf_text(buf, "\":");
	api_buf_u64(buf, value);
}

static const char *
db_name(bool is_ready)
{
	return is_ready ? "ready" : "away";
}

const char *
api_health_io(const struct shm_board *board)
{
	uint32_t common = SHM_BOARD_IO_NONE;

	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++) {
		uint32_t io = shm_board_get(board->worker[i].io);

		if (io == SHM_BOARD_IO_NONE)
			continue;
		if (common != SHM_BOARD_IO_NONE && common != io)
			return "mixed";
		common = io;
	}
	return shm_board_io_name(common);
}

static void
write_worker(
    const struct shm_board_worker *worker, uint64_t now_us, struct api_buf *buf)
{
	uint64_t started_us = shm_board_get(worker->started_us);
	bool has_db = shm_board_get(worker->db) == SHM_BOARD_DB_READY;
	int32_t pid = shm_board_get(worker->pid);

	if (pid == 0 || started_us == 0 || started_us > now_us)
		started_us = now_us; /* nobody yet, or between two reads */
	api_buf_text(buf, "{\"pid\":");
	api_buf_i64(buf, pid);
	api_buf_text(buf, ",");
	write_member_text(
	    buf, "state", shm_board_state_name(shm_board_get(worker->state)));
	api_buf_text(buf, ",");
	write_member_text(
	    buf, "io", shm_board_io_name(shm_board_get(worker->io)));
	api_buf_text(buf, ",");
	write_member_text(buf, "database", db_name(has_db));
	write_member_u64(
	    buf, "databaseConnections", shm_board_get(worker->db_connections));
	write_member_u64(
	    buf, "connections", shm_board_get(worker->connections));
	write_member_u64(buf, "requests", shm_board_get(worker->requests));
	write_member_u64(buf, "restarts", shm_board_get(worker->restarts));
	write_member_u64(buf, "ageSeconds", (now_us - started_us) / 1000000);
	api_buf_text(buf, "}");
}

static void
write_verbose(const struct api *api, struct api_buf *buf)
{
	const struct shm_board *board = api->board;
	uint64_t now_us = shm_clock_us();
	uint32_t workers = 0;

	api_buf_text(buf, "{");
	write_member_text(buf, "status", api_health_state(board));
	api_buf_text(buf, ",");
	write_member_text(
	    buf, "version", api->version != NULL ? api->version : "unknown");
	api_buf_text(buf, ",");
	write_member_text(buf, "migrate",
	    shm_board_migrate_name(shm_board_get(board->migrate)));
	api_buf_text(buf, ",");
	write_member_text(buf, "database", db_name(shm_board_has_db(board)));
	api_buf_text(buf, ",");
	write_member_text(buf, "backend", api_health_io(board));
	api_buf_text(buf, ",\"workers\":[");
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++) {
		const struct shm_board_worker *worker = &board->worker[i];

		if (shm_board_get(worker->pid) == 0)
			continue;
		if (workers++ > 0)
			api_buf_text(buf, ",");
		write_worker(worker, now_us, buf);
	}
	api_buf_text(buf, "]}");
}

void
api_health_livez(struct api_reply *reply)
{
	*reply = (struct api_reply){
	    .status = 200,
	    .content_type = API_TYPE_TEXT,
	    .body = API_SLICE("alive"),
	};
}

void
api_health_readyz(const struct api *api, struct api_slice query,
    bool as_problem_json, struct api_buf *buf, struct api_reply *reply)
{
	const char *name = api_health_state(api->board);
	bool is_ready = strcmp(name, "ready") == 0;
	size_t start = buf->len;

	if (query_has(query, "verbose")) {
		write_verbose(api, buf);
		api_reply_written(
		    is_ready ? 200 : 503, API_TYPE_JSON, start, buf, reply);
	} else if (is_ready) {
		*reply = (struct api_reply){
		    .status = 200,
		    .content_type = API_TYPE_TEXT,
		    .body = API_SLICE("ready"),
		};
	} else {
		api_problem(503, name, as_problem_json, buf, reply);
	}
	if (reply->status == 503)
		reply->retry_after_s = RETRY_AFTER_S;
}

void
api_health_actuator(const struct api *api, struct api_reply *reply)
{
	bool is_ready = shm_board_is_ready(api->board);

	*reply = (struct api_reply){
	    .status = is_ready ? 200 : 503,
	    .content_type = API_TYPE_JSON,
	    .body = is_ready ? API_SLICE("{\"status\":\"UP\"}")
			     : API_SLICE("{\"status\":\"OUT_OF_SERVICE\"}"),
	    .retry_after_s = is_ready ? 0 : RETRY_AFTER_S,
	};
}
