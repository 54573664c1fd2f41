/*
 * The list of calls that wait for a load.
 *
 * They are as many as there are connections at most.  A wake-up says that some
 * load has ended, not which: all look again, and those whose load goes on wait
 * again.  A wake-up that is lost costs SHM_CACHE_WAIT_US, for that is how long
 * anybody waits without looking.
 *
 *	I1  The list is in the order of look_us, since all wait equally long.
 *	I2  One who looks again is not in the list; it may be again after it.
 */
#include "config.h"

#include <unistd.h>

#include "worker/worker_cache.h"
#include "worker/worker_wait.h"

void
worker_wait_add(struct worker_call *call)
{
	struct worker_loop *loop = call->loop;
	struct worker_call_cache *cache = &call->cache;

	SHM_ASSERT(!cache->is_waiting && call->conn != NULL);
	cache->is_waiting = true;
	cache->look_us = loop->now_us + SHM_CACHE_WAIT_US;
	cache->wait_next = NULL;
	cache->wait_prev = loop->wait_last;
	if (loop->wait_last != NULL)
		loop->wait_last->cache.wait_next = call;
	else
		loop->wait_first = call;
	loop->wait_last = call;
	loop->wait_count++;
}

void
worker_wait_remove(struct worker_call *call)
{
	struct worker_loop *loop = call->loop;
	struct worker_call_cache *cache = &call->cache;

	if (!cache->is_waiting)
		return;
	SHM_ASSERT(loop->wait_count > 0);
	cache->is_waiting = false;
	if (cache->wait_prev != NULL)
		cache->wait_prev->cache.wait_next = cache->wait_next;
	else
		loop->wait_first = cache->wait_next;
	if (cache->wait_next != NULL)
		cache->wait_next->cache.wait_prev = cache->wait_prev;
	else
		loop->wait_last = cache->wait_prev;
	loop->wait_count--;
}

static void
wait_look(struct worker_call *call)
{
	worker_wait_remove(call); /* I2 */
	worker_cache_look_again(call);
}

void
worker_wait_woken(struct worker_loop *loop)
{
	uint64_t value;

	/* What is not there to read was read before: look all the same. */
	(void)!read(shm_cache_wake_fd(loop->cache), &value, sizeof(value));
	for (uint32_t n = loop->wait_count; n > 0 && loop->wait_first != NULL;
	     n--)
		wait_look(loop->wait_first);
}

uint64_t
worker_wait_tick(struct worker_loop *loop)
{
	for (uint32_t n = loop->wait_count;
	     n > 0 && loop->wait_first != NULL &&
	     loop->wait_first->cache.look_us <= loop->now_us;
	     n--)
		wait_look(loop->wait_first);
	if (loop->wait_first == NULL)
		return UINT64_MAX;
	return loop->wait_first->cache.look_us > loop->now_us
		   ? loop->wait_first->cache.look_us - loop->now_us
		   : 0;
}
