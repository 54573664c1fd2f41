/*
 * From an answer of the database to the cache.
 *
 *	begin --> rows --> end: put, and whoever waits for it is woken
 *
 * WHO LOADS.  A call with a client answers it at the end as always.  When the
 * client leaves, a load that others may wait for goes on without it.  A renewal
 * never had a client: a stale answer is served meanwhile.
 *
 * LISTS are streamed, so what is sent is kept beside (the tee), as long as it
 * fits the cache.  A list that is kept is not paused for a slow client, or all
 * who wait would be as slow: at most a value's bytes collect in its out buffer.
 * One that is too long is known to be so at once: its claim ends and the others
 * load in parallel.
 *
 *	I1  A claim ends exactly once: in worker_load_end(), when the load is
 *	    cut, or when it is given back.
 *	I2  has_tee implies is_load, and a call that has neither a client nor
 *	    a load is cancelled.
 *	I3  What failed for a reason of the request's own says nothing about
 *	    the database: no failure mark.
 *
 * LIMITS
 *   renewals  RENEWALS_MAX at a time in a worker: the others stay stale until
 *             the next look, and the queue of the database is the clients'
 */
#include "config.h"

#include <string.h>

#include "worker/worker_load.h"

#define RENEWALS_MAX  64
#define LOAD_GRACE_US 2000000 /* beyond the database's own timeouts */

uint64_t
worker_load_us(const struct worker_loop *loop)
{
	return (loop->options->database_acquire_timeout_ms +
		   (uint64_t)loop->options->database_statement_timeout_ms) *
	       1000;
}

uint64_t
worker_load_deadline(const struct worker_loop *loop)
{
	return loop->now_us + worker_load_us(loop) + LOAD_GRACE_US;
}

static void
load_claim_end(struct worker_call *call, enum shm_cache_ended how)
{
	if (call->cache.flight.word == 0 && how != SHM_CACHE_ENDED_FAILED)
		return;
	shm_cache_claim_end(call->loop->cache, &call->cache.flight,
	    &call->cache.key, how, call->loop->now_us);
	SHM_ASSERT(call->cache.flight.word == 0);
}

void
worker_load_begin(struct worker_call *call)
{
	call->cache.is_load = true;
	call->cache.has_tee = call->verdict == API_NEED_STREAM;
}

void
worker_load_give_back(struct worker_call *call)
{
	load_claim_end(call, SHM_CACHE_ENDED_NOTHING);
}

bool
worker_load_goes_on(const struct worker_call *call)
{
	return call->cache.is_load && call->cache.flight.word != 0;
}

/* ---- renewals */

static bool
is_plain(char byte)
{
	return (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') ||
	       (byte >= 'a' && byte <= 'z') || byte == '-' || byte == '_';
}

static char *
put_encoded(char *at, struct api_slice text)
{
	static const char hex[] = "0123456789ABCDEF";

	for (size_t i = 0; i < text.len; i++) {
		uint8_t byte = (uint8_t)text.data[i];

		if (is_plain(text.data[i])) {
			*at++ = text.data[i];
			continue;
		}
		*at++ = '%';
		*at++ = hex[byte >> 4];
		*at++ = hex[byte & 15];
	}
	return at;
}

/* The request that has this key. */
static struct worker_call *
renewal_begin(struct worker_loop *loop, const struct shm_cache_key *key)
{
	char path[sizeof("/books/") + 3 * (size_t)SHM_CACHE_KEY_MAX];
	const struct api_slice rest = {key->data + 1, key->len - 1};
	char *at = path + sizeof("/books/") - 1;

	if (key->data[0] == 'l')
		return worker_call_begin_alone(loop, API_SLICE("/books"), rest);
	memcpy(path, "/books/", sizeof("/books/") - 1);
	at = put_encoded(at, rest);
	return worker_call_begin_alone(loop,
	    (struct api_slice){path, (size_t)(at - path)},
	    (struct api_slice){NULL, 0});
}

/* Take the claim over into a call of its own. */
static bool
renewal_take(struct worker_call *renewal, const struct worker_call *call,
    const struct shm_cache_flight *flight, const struct shm_cache_lease *lease)
{
	enum shm_cache_class cls;
	struct api_slice key;

	if ((renewal->verdict != API_NEED_DB &&
		renewal->verdict != API_NEED_STREAM) ||
	    !api_cache_key(&renewal->api, &key, &cls))
		return false;
	renewal->cache.key = call->cache.key;
	renewal->cache.key.data = key.data;
	SHM_ASSERT(renewal->cache.key.len == key.len);
	renewal->cache.flight = *flight;
	renewal->cache.lease = *lease;
	renewal->cache.is_renewal = true;
	renewal->loop->renewals_count++;
	worker_load_begin(renewal);
	return true;
}

/* Has somebody renewed it since it was looked at? */
static bool
is_fresh(struct worker_call *call, struct shm_cache_lease *lease)
{
	struct shm_cache_view view;

	return shm_cache_get(call->loop->cache, &call->cache.key,
		   call->loop->now_us, lease, &view) == SHM_CACHE_HIT;
}

void
worker_load_renew(struct worker_call *call)
{
	struct worker_loop *loop = call->loop;
	struct shm_cache_flight flight;
	struct shm_cache_lease lease;
	struct worker_call *renewal = NULL;

	if (loop->renewals_count >= RENEWALS_MAX ||
	    shm_cache_claim(loop->cache, &call->cache.key, loop->now_us,
		worker_load_deadline(loop), &flight) != SHM_CACHE_CLAIM_MINE)
		return;
	if (!is_fresh(call, &lease))
		renewal = renewal_begin(loop, &call->cache.key);
	if (renewal != NULL && renewal_take(renewal, call, &flight, &lease)) {
		worker_call_start(renewal);
		return;
	}
	worker_call_drop(&renewal);
	shm_cache_claim_end(loop->cache, &flight, &call->cache.key,
	    SHM_CACHE_ENDED_NOTHING, loop->now_us);
}

/* ---- lists */

static void
load_over(struct worker_call *call, enum shm_cache_ended how)
{
	call->cache.is_load = call->cache.has_tee = false;
	load_claim_end(call, how);
}

void
worker_load_cut(struct worker_call *call)
{
	load_over(call, SHM_CACHE_ENDED_UNSTORED);
	api_buf_fini(&call->cache.tee);
	if (call->conn == NULL && call->query_open) /* I2 */
		worker_db_cancel(call->loop->db, &call->query);
}

void
worker_load_tee_check(struct worker_call *call)
{
	const struct api_buf *tee = &call->cache.tee;

	if (call->cache.has_tee &&
	    (tee->failed || tee->len > shm_cache_value_max(call->loop->cache)))
		worker_load_cut(call);
}

void
worker_load_tee(struct worker_call *call, const char *data, size_t len)
{
	if (!call->cache.has_tee)
		return;
	api_buf_bytes(&call->cache.tee, data, len);
	worker_load_tee_check(call);
}

/* ---- the end */

/* Up to a tenth less, so that what was loaded together does not expire
 * together; never more, for the setting is a promise. */
static uint64_t
jittered(struct worker_loop *loop, uint64_t us)
{
	loop->random ^= loop->random << 13;
	loop->random ^= loop->random >> 7;
	loop->random ^= loop->random << 17;
	return us - loop->random % (us / 10 + 1);
}

/* Is it the database that fails (I3)? */
static bool
is_failure(enum api_db_outcome outcome, const char *sqlstate)
{
	static const char *const classes[] = {
	    "08", "53", "57P0", "57014", "25006"};

	switch (outcome) {
	case API_DB_OK:
		return false;
	case API_DB_UNAVAILABLE:
	case API_DB_BUSY:
	case API_DB_TIMEOUT:
	case API_DB_UNKNOWN:
		return true;
	case API_DB_REFUSED:
		break;
	}
	for (size_t i = 0; i < SHM_ARRAY_LEN(classes); i++)
		if (strncmp(sqlstate, classes[i], strlen(classes[i])) == 0)
			return true;
	return false;
}

static enum shm_cache_ended
load_put(struct worker_call *call, const struct shm_cache_value *value)
{
	switch (shm_cache_put(call->loop->cache, &call->cache.key,
	    &call->cache.lease, value, &call->cache.flight,
	    call->loop->now_us)) {
	case SHM_CACHE_STORED:
		return SHM_CACHE_ENDED_STORED;
	case SHM_CACHE_TOO_LARGE:
	case SHM_CACHE_GAVE_UP:
		return SHM_CACHE_ENDED_UNSTORED;
	case SHM_CACHE_OUTDATED:
	case SHM_CACHE_OLDER:
	case SHM_CACHE_LOST:
		break;
	}
	return SHM_CACHE_ENDED_NOTHING; /* somebody has to load it again */
}

static enum shm_cache_ended
load_put_negative(struct worker_call *call)
{
	uint64_t fresh_us = call->loop->options->cache_negative_ms * 1000ull;

	if (fresh_us == 0)
		return SHM_CACHE_ENDED_UNSTORED;
	return load_put(call, &(struct shm_cache_value){
				  .fresh_us = jittered(call->loop, fresh_us),
				  .status = 404,
				  .cls = SHM_CACHE_NEGATIVE,
			      });
}

static enum shm_cache_ended
load_put_answer(struct worker_call *call)
{
	struct worker_loop *loop = call->loop;
	const struct api_reply *reply = &call->reply;
	struct api_slice block = worker_answer_block(loop, reply);

	return load_put(call, &(struct shm_cache_value){
				  .id = reply->version.id,
				  .row_version = reply->version.row_version,
				  .modified_s = reply->version.modified_s,
				  .fresh_us = jittered(loop,
				      loop->options->cache_fresh_ms * 1000ull),
				  .status = reply->status,
				  .cls = (uint8_t)call->cache.key.cls,
				  .head = block.data,
				  .head_bytes = (uint32_t)block.len,
				  .body = reply->body.data,
				  .body_bytes = (uint32_t)reply->body.len,
			      });
}

/* What a list's streamed answer does not know yet at its head. */
static void
list_finish(struct worker_call *call)
{
	struct api_reply *reply = &call->reply;

	reply->body = api_buf_slice(&call->cache.tee);
	reply->has_version = true;
	reply->version = (struct api_version){
	    .id = api_content_hash(0, reply->body.data, reply->body.len)};
}

void
worker_load_end(
    struct worker_call *call, enum api_db_outcome outcome, const char *sqlstate)
{
	enum shm_cache_ended how = SHM_CACHE_ENDED_NOTHING;

	if (!call->cache.is_load)
		return;
	if (call->loop->is_closing) {
		load_over(call, how);
		return;
	}
	if (outcome == API_DB_OK && call->cache.has_tee)
		list_finish(call);
	if (is_failure(outcome, sqlstate))
		how = SHM_CACHE_ENDED_FAILED;
	else if (outcome == API_DB_OK &&
		 call->reply.cacheable == API_CACHEABLE_NEGATIVE)
		how = load_put_negative(call);
	else if (outcome == API_DB_OK &&
		 call->reply.cacheable != API_CACHEABLE_NOT)
		how = load_put_answer(call);
	load_over(call, how);
	api_buf_fini(&call->cache.tee);
}
