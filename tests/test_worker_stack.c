/*
 * Goal: the stack that a signal interrupts is found by its frame pointers, and
 * no content of registers or memory makes the search fault or run on.
 * Method: a handler walks from a known depth of calls; then contexts with
 * every kind of wrong frame pointer are walked.
 */
#include "config.h"

#include <sys/mman.h>

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/worker_stack.h"

static uint64_t pc[WORKER_STACK_DEPTH];
static uint32_t depth;
static enum worker_stack_care care;
static ucontext_t kept;

static void
on_signal(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)info;
	memcpy(&kept, context, sizeof(kept));
	depth = worker_stack_walk(context, care, pc, WORKER_STACK_DEPTH);
}

/* Each has a frame, and a call that is not the last thing it does. */
static __attribute__((noinline)) int
third(int number)
{
	raise(number);
	return number + 1;
}

static __attribute__((noinline)) int
second(int number)
{
	return third(number) + 1;
}

static __attribute__((noinline)) int
first(int number)
{
	return second(number) + 1;
}

static int
setup(void **state)
{
	struct sigaction action = {
	    .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};

	(void)state;
	worker_stack_open();
	return sigaction(SIGUSR1, &action, NULL);
}

static bool
is_inside(uint64_t at, int (*function)(int))
{
	uint64_t begin = (uint64_t)(uintptr_t)function;

	return at > begin && at < begin + 100;
}

static void
walks(enum worker_stack_care how)
{
	uint32_t found = 0;

	care = how;
	assert_int_equal(first(SIGUSR1), SIGUSR1 + 3);
	assert_true(depth >= 3);
	for (uint32_t i = 0; i < depth; i++)
		if (is_inside(pc[i], found == 0 ? third : second) ||
		    (found == 2 && is_inside(pc[i], first)))
			found++;
	assert_true(found >= 2); /* third, second */
}

static void
test_callers_are_found(void **state)
{
	(void)state;
	walks(WORKER_STACK_QUICK);
	walks(WORKER_STACK_CAREFUL);
}

static void
test_places_are_named(void **state)
{
	uint64_t offset;

	(void)state;
	assert_string_equal(
	    worker_stack_place((uint64_t)(uintptr_t)first, &offset),
	    "test_worker_stack");
	assert_true(offset > 0 && offset < 1u << 24);
	assert_string_equal(worker_stack_place(42, &offset), "?");
	assert_int_equal(offset, 42);
	(void)worker_stack_place((uint64_t)(uintptr_t)raise, &offset);
	assert_true(offset > 0 && offset < 1u << 28);
}

static void
frame_set(ucontext_t *context, uintptr_t frame)
{
#if defined(__x86_64__)
	context->uc_mcontext.gregs[REG_RBP] = (greg_t)frame;
#elif defined(__aarch64__)
	context->uc_mcontext.regs[29] = frame;
#else
	(void)context;
	(void)frame;
#endif
}

static uint32_t
walk_from(uintptr_t frame, enum worker_stack_care how)
{
	ucontext_t context = kept;

	frame_set(&context, frame);
	return worker_stack_walk(&context, how, pc, WORKER_STACK_DEPTH);
}

static void
test_bad_frames_end_the_walk(void **state)
{
	const uintptr_t frames[] = {0, 1, 8, 0x1000, (uintptr_t)&frames,
	    (uintptr_t)&frames + 1, (uintptr_t)-1, (uintptr_t)-8,
	    (uintptr_t)-16, 0x7fffffffffff, 0x7ffffffffff8, 0x800000000000,
	    (uintptr_t)test_bad_frames_end_the_walk};

	(void)state;
	(void)first(SIGUSR1);
	for (size_t i = 0; i < SHM_ARRAY_LEN(frames); i++) {
		assert_true(walk_from(frames[i], WORKER_STACK_QUICK) <=
			    WORKER_STACK_DEPTH);
		assert_true(walk_from(frames[i], WORKER_STACK_CAREFUL) <=
			    WORKER_STACK_DEPTH);
	}
}

static void
test_memory_that_is_gone_ends_the_walk(void **state)
{
	const size_t bytes = 2 * 4096;
	uintptr_t *page = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uintptr_t end;

	(void)state;
	assert_ptr_not_equal(page, MAP_FAILED);
	end = (uintptr_t)page + 4096;
	assert_int_equal(munmap((void *)end, 4096), 0);
	/* A frame that is half there, and one that leads to nowhere. */
	page[0] = end;
	page[1] = 42;
	assert_true(
	    walk_from(end - 8, WORKER_STACK_CAREFUL) <= WORKER_STACK_DEPTH);
	assert_true(walk_from((uintptr_t)page, WORKER_STACK_CAREFUL) <=
		    WORKER_STACK_DEPTH);
	munmap(page, 4096);
}

static void
test_a_loop_ends(void **state)
{
	uintptr_t loop[4] = {0, 42, 0, 43};

	(void)state;
	loop[0] = (uintptr_t)&loop[2];
	loop[2] = (uintptr_t)&loop[0];
	assert_true(walk_from((uintptr_t)loop, WORKER_STACK_CAREFUL) <=
		    WORKER_STACK_DEPTH);
	assert_true(walk_from((uintptr_t)loop, WORKER_STACK_QUICK) <=
		    WORKER_STACK_DEPTH);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_callers_are_found),
	    cmocka_unit_test(test_places_are_named),
	    cmocka_unit_test(test_bad_frames_end_the_walk),
	    cmocka_unit_test(test_memory_that_is_gone_ends_the_walk),
	    cmocka_unit_test(test_a_loop_ends),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
