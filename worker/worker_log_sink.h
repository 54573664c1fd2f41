/*
 * Where log lines go: a buffer of whole lines and a descriptor that is never
 * waited for.
 */
#ifndef WORKER_LOG_SINK_H
#define WORKER_LOG_SINK_H

#include "shm/shm_base.h"

enum worker_log_sink_kind {
	WORKER_LOG_SINK_OFF = 0,
	WORKER_LOG_SINK_FILE,	/* regular file, /dev/null: written as it is */
	WORKER_LOG_SINK_OWN,	/* pipe or terminal, a description of our own */
	WORKER_LOG_SINK_SHARED, /* the same, but only the inherited one */
	WORKER_LOG_SINK_SOCKET,
};

#define WORKER_LOG_SINK_BYTES 65536 /* full: the next line is dropped */

struct worker_log_sink {
	/* set by the owner before open */
	const char *target; /* "stdout", "stderr", "off" or a path; borrowed */
	uint32_t owner;	    /* of files made here, 0: whoever we are */
	uint32_t group;

	/* readable by the owner */
	enum worker_log_sink_kind kind;
	uint64_t dropped;     /* lines, by this process */
	uint64_t dropped_new; /* of them not told in a line yet: owner clears */

	/* private */
	int fd;
	bool is_full; /* the last write found no room */
	uint64_t retry_us;
	uint64_t since_us; /* when flush first saw what waits; 0: not yet */
	size_t begin;
	size_t end;
	char data[WORKER_LOG_SINK_BYTES];
};

/* -1 with errno; a sink that was open then stays as it was (reopen). */
int worker_log_sink_open(struct worker_log_sink *sink) SHM_MUSTCHECK;
void worker_log_sink_close(struct worker_log_sink *sink);

/* Take one line (with its newline) or drop and count it. */
void
worker_log_sink_add(struct worker_log_sink *sink, const char *line, size_t len);

/* Write all that can be written now. */
void worker_log_sink_write(struct worker_log_sink *sink);

/* Write when enough has come together or the oldest line waited delay_us.
 * Returns the microseconds until the next call is due, UINT64_MAX: never. */
uint64_t worker_log_sink_flush(
    struct worker_log_sink *sink, uint64_t now_us, uint64_t delay_us);

/* Write although there was no room a moment ago. */
void worker_log_sink_retry(struct worker_log_sink *sink);

bool worker_log_sink_is_empty(const struct worker_log_sink *sink);

/* After fork: the parent writes its lines itself. */
void worker_log_sink_forget(struct worker_log_sink *sink);

#endif
