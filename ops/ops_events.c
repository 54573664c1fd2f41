/*
 * Streams that ops writes as their clients read.
 *
 * A client of /events is given the history first, and then each second the
 * status as it is at that moment.  It has a buffer with what is being sent; a
 * client that is slower than a second misses a status and gets the next one,
 * and one that takes nothing for the server's time limit is dropped.  Between
 * two statuses its connection is suspended, or the server would ask it for
 * more all the time.
 *
 * The history is written a few points at a time.  Points are found by their
 * time, so it does not matter that the history moves meanwhile.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "ops/ops_events.h"
#include "ops/ops_site.h"
#include "ops/ops_status.h"

#define POINTS_AT_A_TIME 16
#define BLOCK_BYTES	 8192

struct ops_events_client {
	struct ops_site *site;
	struct MHD_Connection *connection;
	bool is_events; /* or the history by itself */
	bool is_suspended;
	uint64_t serial; /* of the last status that it was given */

	/* the history */
	bool is_opened, is_closed, has_points;
	uint64_t after_ms;

	struct api_buf text; /* what is being sent */
	size_t text_at;
};

/* ---- what is sent */

static void
history_open(struct ops_events_client *client)
{
	struct ops_json json = {.buf = &client->text};

	client->is_opened = true;
	if (client->is_events)
		api_buf_text(json.buf, "event: history\ndata: ");
	ops_json_object(&json, NULL);
	ops_json_array(&json, "bands");
	for (uint32_t i = 0; i < OPS_HISTORY_BANDS; i++)
		ops_json_real(&json, NULL, ops_history_band_ms(i));
	ops_json_end_array(&json);
	ops_json_array(&json, "points");
}

static void
history_points(struct ops_events_client *client)
{
	const struct ops_history *history = &client->site->history;
	struct ops_json json = {
	    .buf = &client->text, .needs_comma = client->has_points};
	const struct ops_point *point = NULL;

	for (uint32_t i = 0; i < POINTS_AT_A_TIME; i++) {
		point = ops_history_next(history, client->after_ms);
		if (point == NULL)
			break;
		ops_history_write(&json, NULL, point);
		client->has_points = true;
		client->after_ms = point->t_ms;
	}
	if (point != NULL)
		return;
	client->is_closed = true;
	api_buf_text(json.buf, client->is_events ? "]}\n\n" : "]}\n");
}

static void
status(struct ops_events_client *client)
{
	struct ops_json json = {.buf = &client->text};

	client->serial = client->site->events.serial;
	api_buf_text(json.buf, "event: status\ndata: ");
	ops_status_write(client->site, &json);
	api_buf_text(json.buf, "\n\n");
}

/* The next piece into text; false: there is none now. */
static bool
fill(struct ops_events_client *client)
{
	api_buf_clear(&client->text);
	client->text_at = 0;
	if (!client->is_opened)
		history_open(client);
	else if (!client->is_closed)
		history_points(client);
	else if (client->is_events &&
		 client->serial != client->site->events.serial)
		status(client);
	else
		return false;
	return true;
}

static ssize_t
read_more(void *arg, uint64_t at, char *out, size_t out_bytes)
{
	struct ops_events_client *client = arg;

	(void)at;
	if (client->site->events.is_ending)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (client->text_at == client->text.len && !fill(client)) {
		if (!client->is_events)
			return MHD_CONTENT_READER_END_OF_STREAM;
		client->is_suspended = true;
		MHD_suspend_connection(client->connection);
		return 0;
	}
	return ops_http_give(&client->text, &client->text_at, out, out_bytes);
}

/* ---- clients */

static void
client_free(void *arg)
{
	struct ops_events_client *client = arg;
	struct ops_events *events = &client->site->events;

	for (uint32_t i = 0; i < OPS_EVENTS_MAX; i++)
		if (events->client[i] == client)
			events->client[i] = NULL;
	api_buf_fini(&client->text);
	free(client);
}

static enum MHD_Result
begin(const struct ops_request *request, bool is_events)
{
	struct ops_events *events = &request->http->site->events;
	struct ops_events_client *client;
	struct MHD_Response *response;
	uint32_t place = 0;

	while (is_events && place < OPS_EVENTS_MAX &&
	       events->client[place] != NULL)
		place++;
	if (place == OPS_EVENTS_MAX)
		return ops_http_problem(request, MHD_HTTP_SERVICE_UNAVAILABLE,
		    "Others are told the events just now. Try again later.");
	client = calloc(1, sizeof(*client));
	if (client == NULL)
		return ops_http_problem(request, MHD_HTTP_INTERNAL_SERVER_ERROR,
		    "There is no memory for the answer.");
	client->site = request->http->site;
	client->connection = request->connection;
	client->is_events = is_events;
	if (is_events)
		events->client[place] = client;
	response = MHD_create_response_from_callback(
	    MHD_SIZE_UNKNOWN, BLOCK_BYTES, read_more, client, client_free);
	if (response == NULL)
		client_free(client);
	else if (is_events) /* or a proxy may keep them for a while */
		MHD_add_response_header(response, "X-Accel-Buffering", "no");
	return ops_http_answer(request, MHD_HTTP_OK,
	    is_events ? "text/event-stream" : "application/json", response);
}

enum MHD_Result
ops_events(const struct ops_request *request)
{
	return begin(request, true);
}

enum MHD_Result
ops_events_history(const struct ops_request *request)
{
	return begin(request, false);
}

static void
wake(struct ops_events *events)
{
	for (uint32_t i = 0; i < OPS_EVENTS_MAX; i++) {
		struct ops_events_client *client = events->client[i];

		if (client == NULL || !client->is_suspended)
			continue;
		client->is_suspended = false;
		MHD_resume_connection(client->connection);
	}
}

void
ops_events_tick(struct ops_site *site)
{
	site->events.serial++;
	wake(&site->events);
}

void
ops_events_end(struct ops_events *events)
{
	events->is_ending = true;
	wake(events);
}
