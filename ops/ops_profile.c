/*
 * A profile: asked for in shared memory (shm_profile.h), taken by the workers,
 * collected here.
 *
 * One at a time.  The client's connection is suspended while the workers write
 * samples.  Then equal stacks are counted, a worker at a time between turns of
 * the loop, and written as the client reads.  Stacks are copied before they
 * are believed: what a worker wrote is judged by its bounds alone, and a sample
 * that it writes too late changes nothing that we have.
 *
 * MEMORY: STACKS_MAX different stacks; samples of others are counted as one
 * that is called [other].  The samples' pages are given back.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ops/ops_profile.h"
#include "ops/ops_site.h"
#include "ops/ops_symbols.h"

#define STACKS_MAX  4096
#define PLACES	    (2 * STACKS_MAX) /* of the table: a power of two */
#define GRACE_US    300000	     /* for a worker's last sample */
#define ROOT	    "booksd"
#define TYPE_STACKS "text/plain; charset=utf-8"

struct stack {
	uint32_t count; /* 0: free */
	uint32_t depth;
	uint64_t pc[SHM_PROFILE_DEPTH];
};

struct ops_profile_run {
	struct ops_profile *profile;
	const struct ops_options *options;
	struct MHD_Connection *connection;
	bool is_suspended, is_ending, is_collected;
	uint32_t serial;
	uint64_t due_us;
	uint32_t slot; /* to be collected next, of our half */
	uint32_t stacks;
	uint64_t other; /* samples for which there was no place */
	struct ops_symbols *symbols;
	uint32_t place; /* to be written next */
	struct api_buf text;
	size_t text_at;
	struct stack stack[PLACES];
};

/* ---- collecting */

static uint64_t
hash(const struct stack *stack)
{
	uint64_t sum = stack->depth;

	for (uint32_t i = 0; i < stack->depth; i++)
		sum = (sum ^ stack->pc[i]) * UINT64_C(0x9e3779b97f4a7c15);
	return sum ^ sum >> 32;
}

static bool
is_same(const struct stack *a, const struct stack *b)
{
	return a->depth == b->depth &&
	       memcmp(a->pc, b->pc, a->depth * sizeof(a->pc[0])) == 0;
}

static void
count_stack(struct ops_profile_run *run, const struct stack *stack)
{
	uint32_t at = (uint32_t)hash(stack) & (PLACES - 1);

	while (run->stack[at].count > 0 && !is_same(&run->stack[at], stack))
		at = (at + 1) & (PLACES - 1);
	if (run->stack[at].count == 0) {
		if (run->stacks == STACKS_MAX) {
			run->other++;
			return;
		}
		run->stacks++;
		run->stack[at] = *stack;
	}
	run->stack[at].count++;
}

/* Whole pages inside the samples; what is left of others stays. */
static void
give_back(struct shm_profile_worker *worker)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t begin = (uintptr_t)worker->sample;
	uintptr_t end = begin + sizeof(worker->sample);

	begin = (begin + page - 1) / page * page;
	end = end / page * page;
	(void)madvise((void *)begin, end - begin, MADV_REMOVE);
}

static void
collect(struct ops_profile_run *run, uint32_t slot)
{
	struct shm_task *task = run->options->task;
	struct shm_profile_worker *worker =
	    &task->samples[shm_task_slot(run->options->board, slot)];
	uint32_t count;

	if (shm_board_get(run->options->board->worker[slot].incarnation) == 0 ||
	    atomic_load_explicit(&worker->serial, memory_order_acquire) !=
		run->serial)
		return;
	count = atomic_load_explicit(&worker->count, memory_order_acquire);
	if (count > SHM_PROFILE_SAMPLES)
		count = SHM_PROFILE_SAMPLES;
	for (uint32_t i = 0; i < count; i++) {
		struct stack stack = {.depth = worker->sample[i].depth};

		if (stack.depth > SHM_PROFILE_DEPTH)
			stack.depth = SHM_PROFILE_DEPTH;
		memcpy(stack.pc, worker->sample[i].pc,
		    stack.depth * sizeof(stack.pc[0]));
		count_stack(run, &stack);
	}
	give_back(worker);
}

/* ---- writing */

static void
write_count(struct ops_profile_run *run, uint64_t count)
{
	api_buf_text(&run->text, " ");
	api_buf_u64(&run->text, count);
	api_buf_text(&run->text, "\n");
}

static void
write_stack(struct ops_profile_run *run, const struct stack *stack)
{
	char name[OPS_SYMBOLS_NAME];

	api_buf_text(&run->text, ROOT);
	for (uint32_t i = stack->depth; i > 0; i--) {
		/* A return address may be the next function's first. */
		uint64_t pc = stack->pc[i - 1] - (i > 1);

		ops_symbols_name(run->symbols, pc, name);
		api_buf_text(&run->text, ";");
		api_buf_text(&run->text, name);
	}
	write_count(run, stack->count);
}

/* The next line into text; false: there is none. */
static bool
fill(struct ops_profile_run *run)
{
	api_buf_clear(&run->text);
	run->text_at = 0;
	while (run->place < PLACES && run->stack[run->place].count == 0)
		run->place++;
	if (run->place < PLACES) {
		write_stack(run, &run->stack[run->place++]);
	} else if (run->other > 0) {
		api_buf_text(&run->text, ROOT ";[other]");
		write_count(run, run->other);
		run->other = 0;
	} else {
		return false;
	}
	return true;
}

static ssize_t
read_more(void *arg, uint64_t at, char *out, size_t out_bytes)
{
	struct ops_profile_run *run = arg;

	(void)at;
	if (run->is_ending)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (!run->is_collected) {
		run->is_suspended = true;
		MHD_suspend_connection(run->connection);
		return 0;
	}
	if (run->text_at == run->text.len && !fill(run))
		return MHD_CONTENT_READER_END_OF_STREAM;
	return ops_http_give(&run->text, &run->text_at, out, out_bytes);
}

/* ---- the run */

static void
run_free(void *arg)
{
	struct ops_profile_run *run = arg;

	run->profile->run = NULL;
	ops_symbols_free(&run->symbols);
	api_buf_fini(&run->text);
	free(run);
}

static struct ops_profile_run *
run_new(const struct ops_request *request, uint64_t seconds)
{
	struct shm_profile_request *ask = &request->options->task->profile;
	struct ops_profile_run *run = calloc(1, sizeof(*run));
	uint64_t until_us = shm_clock_us() + seconds * 1000000;

	if (run == NULL)
		return NULL;
	run->profile = &request->http->site->profile;
	run->options = request->options;
	run->connection = request->connection;
	run->due_us = until_us + GRACE_US;
	run->symbols = ops_symbols_new();
	if (run->symbols == NULL) {
		free(run);
		return NULL;
	}
	run->serial = atomic_load_explicit(&ask->serial, memory_order_relaxed);
	run->serial += run->serial == UINT32_MAX ? 2 : 1; /* never 0 */
	atomic_store_explicit(
	    &ask->hertz, SHM_PROFILE_HERTZ, memory_order_relaxed);
	atomic_store_explicit(&ask->until_us, until_us, memory_order_relaxed);
	atomic_store_explicit(&ask->serial, run->serial, memory_order_release);
	run->profile->run = run;
	return run;
}

enum MHD_Result
ops_profile(const struct ops_request *request)
{
	struct ops_http_number seconds = {.key = "seconds",
	    .least = 1,
	    .most = SHM_PROFILE_SECONDS_MAX,
	    .value = OPS_PROFILE_SECONDS_DEFAULT};
	struct ops_profile_run *run;
	struct MHD_Response *response;

	if (!ops_http_number(request, &seconds))
		return ops_http_problem(request, MHD_HTTP_BAD_REQUEST,
		    "The argument is seconds, 1 to 60.");
	if (request->http->site->profile.run != NULL)
		return ops_http_problem(request, MHD_HTTP_CONFLICT,
		    "A profile is being taken just now. Try again later.");
	run = run_new(request, seconds.value);
	if (run == NULL)
		return ops_http_problem(request, MHD_HTTP_INTERNAL_SERVER_ERROR,
		    "There is no memory for a profile.");
	response = MHD_create_response_from_callback(
	    MHD_SIZE_UNKNOWN, 8192, read_more, run, run_free);
	if (response == NULL)
		run_free(run);
	return ops_http_answer(request, MHD_HTTP_OK, TYPE_STACKS, response);
}

_Static_assert(SHM_PROFILE_SECONDS_MAX == 60, "a sentence above says so");

static void
wake(struct ops_profile_run *run)
{
	if (run->is_suspended)
		MHD_resume_connection(run->connection);
	run->is_suspended = false;
}

uint64_t
ops_profile_due_us(const struct ops_profile *profile)
{
	const struct ops_profile_run *run = profile->run;

	return run == NULL || run->is_collected ? UINT64_MAX : run->due_us;
}

void
ops_profile_tick(struct ops_profile *profile, uint64_t now_us)
{
	struct ops_profile_run *run = profile->run;

	if (run == NULL || run->is_collected || now_us < run->due_us)
		return;
	collect(run, run->slot++);
	if (run->slot < SHM_BOARD_SLOTS)
		return;
	run->is_collected = true;
	wake(run);
}

void
ops_profile_end(struct ops_profile *profile)
{
	if (profile->run == NULL)
		return;
	profile->run->is_ending = true;
	wake(profile->run);
}
