/*
 * A look sums the statistics of all slots of both halves, so that what is
 * shown goes on across deaths, reloads and upgrades; workers are those of our
 * own half.  Its cost does not depend on the load: a few thousand words for
 * each slot that ever had a process.
 *
 * A word of a sum may miss what was counted while it was read; the next look
 * has it.
 */
#include "config.h"

#include <string.h>

#include "ops/ops_sample.h"

static void
take_routes(struct ops_sample *sample, const struct shm_stats *sum)
{
	struct ops_total *total = &sample->total;

	for (uint32_t i = 0; i < SHM_STATS_ROUTES; i++) {
		struct ops_sample_route *route = &sample->route[i];

		route->duration = sum->duration[i];
		for (uint32_t j = 0; j < SHM_HISTOGRAM_BUCKETS; j++)
			total->duration.bucket[j] += route->duration.bucket[j];
		total->duration.sum_us += route->duration.sum_us;
		for (uint32_t k = 0; k < SHM_STATS_STATUSES_COUNT; k++) {
			uint32_t kind = shm_stats_status(k) / 100;
			uint64_t count = 0;

			for (uint32_t j = 0; j < SHM_STATS_METHODS; j++)
				count += sum->requests[i][j][k];
			route->requests += count;
			if (kind >= 2 && kind <= 5)
				total->class[kind - 2] += count;
			if (kind == 5)
				route->errors += count;
		}
		total->requests += route->requests;
		total->errors += route->errors;
	}
}

static void
take_workers(struct ops_sample *sample, const struct shm_board *board)
{
	for (uint32_t i = 0; i < SHM_BOARD_SLOTS; i++) {
		const struct shm_board_worker *worker = &board->worker[i];

		sample->slot[i] = (struct ops_sample_slot){
		    .incarnation = shm_board_get(worker->incarnation),
		    .requests = shm_board_get(worker->requests),
		    .cpu_us = shm_board_get(worker->cpu_us),
		};
		if (shm_board_get(worker->pid) == 0)
			continue;
		sample->total.connections += shm_board_get(worker->connections);
		sample->total.serving +=
		    shm_board_get(worker->state) == SHM_BOARD_SERVING;
	}
}

static void
take_cache(struct ops_sample *sample, const struct shm_cache *cache)
{
	struct ops_total *total = &sample->total;

	if (cache == NULL)
		return;
	shm_cache_counters(cache, sample->cache);
	total->cache_good = sample->cache[SHM_CACHE_hits] +
			    sample->cache[SHM_CACHE_stale] +
			    sample->cache[SHM_CACHE_coalesced];
	total->cache_all = total->cache_good + sample->cache[SHM_CACHE_misses];
}

void
ops_samples_take(struct ops_samples *samples, uint64_t now_us)
{
	const struct ops_options *options = samples->options;
	const struct shm_stats *sum = &samples->sum;
	struct ops_sample *sample;

	samples->last = (samples->last + 1) % OPS_SAMPLES;
	if (samples->count < OPS_SAMPLES)
		samples->count++;
	sample = &samples->sample[samples->last];
	memset(sample, 0, sizeof(*sample));
	shm_task_sum(options->task, &samples->sum);
	sample->total.at_us = now_us;
	sample->total.wall_ms = shm_wallclock_us() / 1000;
	take_routes(sample, sum);
	take_workers(sample, options->board);
	take_cache(sample, options->cache);
	for (uint32_t i = 0; i < SHM_STATS_COUNTERS_COUNT; i++)
		sample->counter[i] = sum->counter[i];
	sample->total.busy_us = sample->counter[SHM_STATS_busy];
	sample->total.cpu_us = sample->counter[SHM_STATS_cpu_user] +
			       sample->counter[SHM_STATS_cpu_system];
	sample->database = sum->database;
	memcpy(sample->sqlstate, sum->sqlstate, sizeof(sample->sqlstate));
	sample->sqlstate_other = sum->sqlstate_other;
}

static const struct ops_sample *
back(const struct ops_samples *samples, uint32_t periods)
{
	SHM_ASSERT(samples->count > 0);
	if (periods > samples->count - 1)
		periods = samples->count - 1;
	return &samples->sample[(samples->last + OPS_SAMPLES - periods) %
				OPS_SAMPLES];
}

const struct ops_sample *
ops_samples_last(const struct ops_samples *samples)
{
	return back(samples, 0);
}

const struct ops_sample *
ops_samples_before(const struct ops_samples *samples)
{
	return back(samples, 1);
}

const struct ops_sample *
ops_samples_oldest(const struct ops_samples *samples)
{
	return back(samples, OPS_SAMPLES - 1);
}

void
ops_histogram_between(struct shm_histogram *difference,
    const struct shm_histogram *from, const struct shm_histogram *to)
{
	for (uint32_t i = 0; i < SHM_HISTOGRAM_BUCKETS; i++)
		difference->bucket[i] = to->bucket[i] - from->bucket[i];
	difference->sum_us = to->sum_us - from->sum_us;
}

double
ops_histogram_ms(const struct shm_histogram *histogram, double part)
{
	return (double)shm_histogram_quantile(histogram, part) / 1e3;
}
