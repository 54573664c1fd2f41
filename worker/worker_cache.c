/*
 * From a request to the cache, and from the cache to the connection.
 *
 *	ask --> get: HIT, STALE ----------------> copied into out, answered
 *	         |   (STALE: and one reloads it)
 *	         '-> MISS, ERROR_ONLY --> claim: MINE, ALONE --> load
 *	                                         OTHER --> wait --> ask again
 *	                                         FAILED -> stale, or 503
 *
 * A hit costs one look and one copy: its bytes are complete, its status and
 * validators are known before anything is copied, so that 304 and HEAD copy
 * nothing of the body.  Nothing on this way allocates, waits or calls the
 * kernel.
 *
 *	I1  The bytes behind out->len are nobody's: a copy that turns out to be
 *	    rubbish was never part of an answer.
 *	I2  One who waited looks again from the start and is never handed what
 *	    the loader has read: it may be older than a write that was answered
 *	    before the waiter's request came.
 *	I3  A claim is given back or ended by whoever holds it before the call
 *	    has its answer.
 *	I4  While a write's intent is open nothing cached is served for its
 *	    books or the lists, and its answer begins after it is closed.
 *
 * LIMITS
 *   looks         a few for a call, then it loads alone
 *   waiting       as long as a load may take, then it loads alone
 *   writes        SHM_CACHE_INTENTS_MAX under way in a worker, then 503
 */
#include "config.h"

#include "worker/worker_cache.h"
#include "worker/worker_load.h"
#include "worker/worker_probe.h"
#include "worker/worker_wait.h"

#define LOOKS_MAX     6	 /* at entries that go away while they are copied */
#define SOON_ISBN_MAX 32 /* longer: not fetched ahead */

/* ---- serving */

static void
serve_not_modified(struct worker_call *call, const struct shm_cache_view *view)
{
	struct api_reply *reply = &call->reply;

	*reply = (struct api_reply){
	    .status = view->status,
	    .cacheable = view->cls == SHM_CACHE_LIST ? API_CACHEABLE_LIST
						     : API_CACHEABLE_BOOK,
	    .has_version = true,
	    .version = {view->id, view->row_version, view->modified_s},
	};
	api_reply_not_modified(reply);
	worker_conn_answer(call->conn, reply);
}

static void
serve_negative(struct worker_call *call)
{
	api_call_not_found(&call->api, &call->text, &call->reply);
	worker_conn_answer(call->conn, &call->reply);
}

/* False: it went away while it was copied (I1). */
static bool
serve_stored(struct worker_call *call, const struct shm_cache_view *view)
{
	struct worker_conn *conn = call->conn;
	uint32_t bytes = conn->is_head ? view->head_bytes : view->value_bytes;
	struct api_buf *out = &conn->out;
	char *at = worker_conn_answer_lead(conn, view->status, bytes);

	if (at != NULL) {
		if (!shm_cache_copy(call->loop->cache, view, 0, bytes, at))
			return false;
		out->len = (size_t)(at - out->data) + bytes;
	}
	worker_conn_answered(
	    conn, view->status, bytes - (uint64_t)view->head_bytes);
	return true;
}

static void
count(const struct worker_call *call, enum worker_source source)
{
	struct shm_cache *cache = call->loop->cache;
	const struct shm_cache_key *key = &call->cache.key;

	if (source == WORKER_SOURCE_MISS)
		WORKER_PROBE2(cache__miss, key->data, key->len);
	else
		WORKER_PROBE3(cache__hit, key->data, key->len, source);
	switch (source) {
	case WORKER_SOURCE_NONE:
		break;
	case WORKER_SOURCE_HIT:
		shm_cache_count(cache, SHM_CACHE_hits);
		break;
	case WORKER_SOURCE_MISS:
		shm_cache_count(cache, SHM_CACHE_misses);
		break;
	case WORKER_SOURCE_STALE:
		shm_cache_count(cache, SHM_CACHE_stale);
		break;
	case WORKER_SOURCE_COALESCED:
		shm_cache_count(cache, SHM_CACHE_coalesced);
		break;
	}
}

static enum worker_source
source_of(const struct worker_call *call, enum shm_cache_found found)
{
	if (found != SHM_CACHE_HIT)
		return WORKER_SOURCE_STALE;
	return call->cache.has_waited ? WORKER_SOURCE_COALESCED
				      : WORKER_SOURCE_HIT;
}

static uint32_t
age_s(uint64_t now_us, uint64_t taken_us)
{
	return now_us > taken_us ? (uint32_t)((now_us - taken_us) / 1000000)
				 : 0;
}

/* Answer from the cache; the call has left then.  False: look again. */
static bool
serve(struct worker_call *call, enum shm_cache_found found,
    const struct shm_cache_view *view)
{
	const struct api_version version = {
	    view->id, view->row_version, view->modified_s};
	struct shm_cache *cache = call->loop->cache;
	enum worker_source source = source_of(call, found);

	call->cache.source = source;
	call->cache.age_s = age_s(call->loop->now_us, view->taken_us);
	if (view->cls == SHM_CACHE_NEGATIVE) {
		serve_negative(call);
		shm_cache_count(cache, SHM_CACHE_negative);
	} else if (api_call_is_not_modified(&call->api, &version)) {
		serve_not_modified(call, view);
		shm_cache_count(cache, SHM_CACHE_not_modified);
	} else if (!serve_stored(call, view)) {
		return false;
	}
	count(call, source); /* which has left; its key is still there */
	return true;
}

/* ---- looking */

static enum shm_cache_found
look(struct worker_call *call, struct shm_cache_view *view)
{
	return shm_cache_get(call->loop->cache, &call->cache.key,
	    call->loop->now_us, &call->cache.lease, view);
}

static bool
is_served(enum shm_cache_found found)
{
	return found == SHM_CACHE_HIT || found == SHM_CACHE_STALE;
}

enum next {
	NEXT_LOOK = 0,
	NEXT_LOAD,
	NEXT_WAIT,
	NEXT_LEFT,    /* it has its answer */
	NEXT_VERDICT, /* the answer is the call's reply */
};

/* Somebody else loads it. */
static enum next
next_other(struct worker_call *call, const struct shm_cache_flight *flight)
{
	uint64_t now_us = call->loop->now_us;

	if (call->cache.give_up_us == 0)
		call->cache.give_up_us = now_us + worker_load_us(call->loop);
	if (now_us >= call->cache.give_up_us)
		return NEXT_LOAD;
	call->cache.has_waited = true;
	if (!shm_cache_claim_wait(call->loop->cache, flight))
		return NEXT_LOOK;
	worker_call_keep_log(call);
	worker_wait_add(call);
	return NEXT_WAIT;
}

/* Loading it has just failed. */
static enum next
next_failed(struct worker_call *call, enum shm_cache_found found,
    const struct shm_cache_view *view)
{
	if (found == SHM_CACHE_ERROR_ONLY)
		return serve(call, found, view) ? NEXT_LEFT : NEXT_LOOK;
	api_call_unavailable(&call->api, &call->text, &call->reply);
	call->verdict = API_DONE;
	call->cache.source = WORKER_SOURCE_MISS;
	count(call, WORKER_SOURCE_MISS);
	return NEXT_VERDICT;
}

/* Would a load fail as far as anybody in this task can tell?  A worker that has
 * just started has no connection yet either, but the others have. */
static bool
is_database_away(const struct worker_loop *loop)
{
	return !worker_db_is_available(loop->db) &&
	       !shm_board_has_db(loop->options->board);
}

/* There is nothing to serve. */
static enum next
next_claim(struct worker_call *call, enum shm_cache_found found,
    const struct shm_cache_view *view)
{
	struct worker_loop *loop = call->loop;
	struct shm_cache_flight flight = {0};

	if (found == SHM_CACHE_ERROR_ONLY && is_database_away(loop))
		return next_failed(call, found, view);
	switch (shm_cache_claim(loop->cache, &call->cache.key, loop->now_us,
	    worker_load_deadline(loop), &flight)) {
	case SHM_CACHE_CLAIM_MINE:
		/* Another's load may have ended between look and claim. */
		call->cache.flight = flight;
		return NEXT_LOOK;
	case SHM_CACHE_CLAIM_ALONE:
		return NEXT_LOAD;
	case SHM_CACHE_CLAIM_OTHER:
		return next_other(call, &flight);
	case SHM_CACHE_CLAIM_FAILED:
		return next_failed(call, found, view);
	}
	return NEXT_LOAD;
}

static enum next
next(struct worker_call *call)
{
	struct shm_cache_view view;
	enum shm_cache_found found = look(call, &view);

	if (is_served(found)) {
		worker_load_give_back(call); /* I3 */
		if (found == SHM_CACHE_STALE)
			worker_load_renew(call);
		return serve(call, found, &view) ? NEXT_LEFT : NEXT_LOOK;
	}
	if (call->verdict == API_DONE || call->cache.flight.word != 0)
		return NEXT_LOAD;
	return next_claim(call, found, &view);
}

/* As worker_cache_ask(). */
static bool
ask(struct worker_call *call)
{
	enum next step = NEXT_LOOK;

	for (int i = 0; i < LOOKS_MAX && step == NEXT_LOOK; i++)
		step = next(call);
	switch (step) {
	case NEXT_LEFT:
	case NEXT_WAIT:
		return true;
	case NEXT_VERDICT:
		return false;
	case NEXT_LOOK: /* it changes faster than we look */
	case NEXT_LOAD:
		break;
	}
	call->cache.source = WORKER_SOURCE_MISS;
	count(call, WORKER_SOURCE_MISS);
	if (call->verdict != API_DONE) /* HEAD of a list needs no database */
		worker_load_begin(call);
	return false;
}

/* Is it the cache's business?  Then call->cache.key is its key. */
static bool
is_cacheable(struct worker_call *call)
{
	struct worker_loop *loop = call->loop;
	enum shm_cache_class cls;
	struct api_slice key;

	if (call->verdict == API_DONE && !call->reply.is_stream_head)
		return false;
	if (!api_cache_key(&call->api, &key, &cls) ||
	    key.len > SHM_CACHE_KEY_MAX)
		return false;
	if (cls == SHM_CACHE_LIST &&
	    loop->options->cache_lists == WORKER_LISTS_OFF)
		return false;
	call->cache.key = (struct shm_cache_key){
	    .data = key.data, .len = (uint32_t)key.len, .cls = cls};
	shm_cache_key_hash(loop->cache, &call->cache.key);
	return true;
}

bool
worker_cache_ask(struct worker_call *call)
{
	if (call->loop->cache == NULL || !is_cacheable(call))
		return false;
	call->cache.is_asked = true;
	return ask(call);
}

void
worker_cache_look_again(struct worker_call *call)
{
	struct worker_conn *conn = call->conn;

	if (!ask(call))
		worker_call_start(call);
	worker_conn_continue(conn);
}

bool
worker_cache_rescue(struct worker_call *call)
{
	struct shm_cache_view view;
	enum shm_cache_found found;

	if (!call->cache.is_asked || call->reply.status < 500)
		return false;
	for (int i = 0; i < LOOKS_MAX; i++) {
		found = look(call, &view);
		if (found == SHM_CACHE_MISS)
			break;
		if (serve(call, found, &view))
			return true;
	}
	call->cache.source = WORKER_SOURCE_MISS;
	return false;
}

/* ---- writes */

bool
worker_cache_write_begin(struct worker_call *call)
{
	struct shm_cache *cache = call->loop->cache;
	char text[1 + API_ISBN_BYTES_MAX];
	struct shm_cache_key key = {.data = text, .cls = SHM_CACHE_BOOK};
	struct api_slice isbn[2];
	uint64_t hash[2];
	uint32_t touched, hashes = 0;

	if (cache == NULL || call->cache.intent != -1)
		return true;
	touched = api_call_touches(&call->api, isbn);
	for (uint32_t i = 0; i < touched; i++) {
		if (isbn[i].len > API_ISBN_BYTES_MAX)
			continue; /* no book has it */
		key.len = (uint32_t)api_cache_book_key(isbn[i], text);
		shm_cache_key_hash(cache, &key);
		hash[hashes++] = key.hash;
	}
	if (hashes == 0)
		return true;
	call->cache.intent = shm_cache_intent_open(cache, hash, hashes);
	return call->cache.intent != -1;
}

void
worker_cache_write_end(struct worker_call *call, enum api_db_outcome outcome)
{
	int intent = call->cache.intent;

	if (intent == -1)
		return;
	call->cache.intent = -1;
	if (outcome == API_DB_UNKNOWN)
		shm_cache_intent_unknown(
		    call->loop->cache, intent, shm_clock_us());
	else
		shm_cache_intent_close(call->loop->cache, intent);
}

/* ---- ahead of the requests */

/* The hash of the book that a request asks for, as far as can be told without
 * parsing it: a wrong guess fetches a line for nothing. */
static bool
guess(
    const struct worker_loop *loop, const struct io_soon *soon, uint64_t *hash)
{
	static const char begin[] = "GET /books/";
	const size_t skip = sizeof(begin) - 1;
	char text[1 + SOON_ISBN_MAX];
	struct shm_cache_key key = {.data = text, .cls = SHM_CACHE_BOOK};
	size_t len = 0;

	if (soon->len < skip + SOON_ISBN_MAX ||
	    memcmp(soon->data, begin, skip) != 0)
		return false;
	while (len < SOON_ISBN_MAX && soon->data[skip + len] > ' ' &&
	       soon->data[skip + len] != '?' && soon->data[skip + len] != '%')
		len++;
	if (len == 0 || len == SOON_ISBN_MAX)
		return false;
	key.len = (uint32_t)api_cache_book_key(
	    (struct api_slice){soon->data + skip, len}, text);
	shm_cache_key_hash(loop->cache, &key);
	*hash = key.hash;
	return true;
}

void
worker_cache_soon(
    const struct worker_loop *loop, const struct io_soon *soon, uint32_t count)
{
	uint64_t hash[IO_BATCH_MAX];
	uint32_t hashes = 0;

	SHM_ASSERT(count <= IO_BATCH_MAX);
	for (uint32_t i = 0; i < count; i++)
		hashes += guess(loop, &soon[i], &hash[hashes]);
	/* Nothing between the fetches: the more of them wait together. */
	for (uint32_t i = 0; i < hashes; i++)
		shm_cache_prefetch_bucket(loop->cache, hash[i]);
	for (uint32_t i = 0; i < hashes; i++)
		shm_cache_prefetch_entry(loop->cache, hash[i]);
}

/* ---- the beginning */

void
worker_cache_open(struct worker_loop *loop)
{
	const struct worker_options *options = loop->options;
	const struct shm_cache_policy policy = {
	    .stale_us = options->cache_stale_while_revalidate_ms * 1000ull,
	    .error_us = options->cache_stale_if_error_ms * 1000ull,
	    .lists_relaxed = options->cache_lists == WORKER_LISTS_RELAXED,
	    /* The server gives a statement up after its timeout. */
	    .linger_us =
		options->database_statement_timeout_ms * 1000ull + 1000000,
	};

	loop->cache = options->cache;
	if (loop->cache == NULL)
		return;
	shm_cache_enter(
	    loop->cache, shm_task_slot(options->board, options->slot));
	shm_cache_set_policy(loop->cache, &policy);
	loop->random = 0x9e3779b97f4a7c15ull * (options->slot + 1);
}
