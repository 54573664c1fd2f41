/*
 * Stacks by frame pointers.
 *
 * A frame begins with the caller's frame pointer and the return address, on
 * both machines that we know.  A chain of them is believed as long as it goes
 * up the stack; a bound on its length ends all else.
 *
 * QUICK reads memory between the stack pointer and the stack's end only: that
 * is in use, so it is there.  CAREFUL lets the kernel read, which says EFAULT
 * where a load would be a second fault; where a container forbids that call,
 * it is as QUICK.
 */
#include "config.h"

#include <sys/uio.h>

#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "worker/worker_stack.h"

#define FILES_MAX   64
#define NAME_BYTES  40
#define GUESS_WORDS 512 /* of library functions' frames */

struct stack_file {
	char name[NAME_BYTES];
	uintptr_t base; /* what was added to the file's addresses */
	uintptr_t begin, end;
};

struct registers {
	uintptr_t pc, sp, fp;
};

static struct stack_file files[FILES_MAX]; /* the program is the first */
static uint32_t files_count;
static uintptr_t stack_end;

/* ---- what is mapped */

static void
file_name(struct stack_file *file, const char *path)
{
	char own[256];
	ssize_t len;

	if (path[0] == '\0') { /* the program */
		len = readlink("/proc/self/exe", own, sizeof(own) - 1);
		own[len > 0 ? len : 0] = '\0';
		path = len > 0 ? own : "booksd";
	}
	if (strrchr(path, '/') != NULL)
		path = strrchr(path, '/') + 1;
	for (size_t i = 0; i < NAME_BYTES - 1 && path[i] != '\0'; i++)
		/* It goes into log lines and folded stacks as it is. */
		file->name[i] = path[i] > ' ' && path[i] < 0x7f &&
					strchr("\"\\;", path[i]) == NULL
				    ? path[i]
				    : '_';
}

/* The kernel's own page of code would be "linux-vdso.so.1": that is fine. */
static int
file_add(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct stack_file *file = &files[files_count];

	(void)size;
	(void)arg;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &info->dlpi_phdr[i];

		if (part->p_type != PT_LOAD || (part->p_flags & PF_X) == 0)
			continue;
		file->base = info->dlpi_addr;
		file->begin = info->dlpi_addr + part->p_vaddr;
		file->end = file->begin + part->p_memsz;
		file_name(file, info->dlpi_name);
		files_count++;
		break;
	}
	return files_count == FILES_MAX;
}

void
worker_stack_open(void)
{
	pthread_attr_t attr;
	void *begin;
	size_t size;

	files_count = 0;
	memset(files, 0, sizeof(files));
	dl_iterate_phdr(file_add, NULL);
	stack_end = 0;
	if (pthread_getattr_np(pthread_self(), &attr) != 0)
		return;
	if (pthread_attr_getstack(&attr, &begin, &size) == 0)
		stack_end = (uintptr_t)begin + size;
	pthread_attr_destroy(&attr);
}

static const struct stack_file *
file_of(uintptr_t pc)
{
	for (uint32_t i = 0; i < files_count; i++)
		if (pc >= files[i].begin && pc < files[i].end)
			return &files[i];
	return NULL;
}

const char *
worker_stack_place(uint64_t pc, uint64_t *offset)
{
	const struct stack_file *file = file_of((uintptr_t)pc);

	*offset = file != NULL ? pc - file->base : pc;
	return file != NULL ? file->name : "?";
}

/* ---- reading */

static bool
registers_of(const void *context, struct registers *at)
{
	const ucontext_t *user = context;

#if defined(__x86_64__)
	at->pc = (uintptr_t)user->uc_mcontext.gregs[REG_RIP];
	at->sp = (uintptr_t)user->uc_mcontext.gregs[REG_RSP];
	at->fp = (uintptr_t)user->uc_mcontext.gregs[REG_RBP];
	return true;
#elif defined(__aarch64__)
	at->pc = (uintptr_t)user->uc_mcontext.pc;
	at->sp = (uintptr_t)user->uc_mcontext.sp;
	at->fp = (uintptr_t)user->uc_mcontext.regs[29];
	return true;
#else
	(void)user;
	(void)at;
	return false;
#endif
}

/* A guess may lead between the variables of a function, where the address
 * sanitizer lets nobody look. */
__attribute__((no_sanitize("address"))) static void
words_copy(uintptr_t from, uintptr_t out[2])
{
	const volatile uintptr_t *words = (const volatile uintptr_t *)from;

	out[0] = words[0];
	out[1] = words[1];
}

static bool
words_read(uintptr_t from, const struct registers *at,
    enum worker_stack_care care, uintptr_t out[2])
{
	const size_t bytes = 2 * sizeof(out[0]);
	struct iovec here = {out, bytes};
	struct iovec there = {(void *)from, bytes};

	if (care == WORKER_STACK_CAREFUL) {
		ssize_t got =
		    process_vm_readv(getpid(), &here, 1, &there, 1, 0);

		if (got == (ssize_t)bytes)
			return true;
		if (got != -1 || (errno != EPERM && errno != ENOSYS))
			return false;
	}
	if (stack_end < bytes || from < at->sp || from > stack_end - bytes)
		return false;
	words_copy(from, out);
	return true;
}

/* ---- walking */

#ifdef __x86_64__
/* Does a call end where pc is? */
static bool
is_behind_call(uintptr_t pc)
{
	const unsigned char *code = (const unsigned char *)pc;

	if (pc < files[0].begin + 6 || pc >= files[0].end)
		return false;
	return code[-5] == 0xe8 ||
	       (code[-6] == 0xff && (code[-5] & 0x38) == 0x10) ||
	       (code[-3] == 0xff && (code[-2] & 0x38) == 0x10) ||
	       (code[-2] == 0xff && (code[-1] & 0x38) == 0x10);
}

static bool
is_frame(
    uintptr_t frame, const struct registers *at, enum worker_stack_care care)
{
	uintptr_t words[2];

	return frame > at->sp && frame % sizeof(frame) == 0 &&
	       words_read(frame, at, care, words) && is_behind_call(words[1]);
}

/*
 * A library's function keeps no frame: the register is still its caller's, or
 * is used for something else and its caller's is on the stack, above it the
 * address to return to.  So that is the first thing there which looks like
 * one, and what is in the register would be the caller's caller.
 */
static uintptr_t
library_leave(struct registers *at, enum worker_stack_care care)
{
	uintptr_t words[2], frame = 0, from;

	if (file_of(at->pc) == &files[0])
		return 0;
	for (uint32_t i = 0; i < GUESS_WORDS; i++) {
		from = at->sp + i * sizeof(words[0]);
		if (!words_read(from, at, care, words))
			return 0;
		if (is_behind_call(words[0]))
			break;
		if (is_frame(words[0], at, care))
			frame = words[0];
	}
	if (!is_behind_call(words[0]))
		return 0;
	if (!is_frame(at->fp, at, care) && frame != 0)
		at->fp = frame;
	return words[0];
}
#else
/* There libraries keep frames. */
static uintptr_t
library_leave(struct registers *at, enum worker_stack_care care)
{
	(void)at;
	(void)care;
	return 0;
}
#endif

uint32_t
worker_stack_walk(const void *context, enum worker_stack_care care,
    uint64_t *pc, uint32_t max)
{
	struct registers at;
	uintptr_t frame, words[2], guess;
	uint32_t depth = 0;
	int saved = errno;

	if (max == 0 || !registers_of(context, &at))
		return 0;
	pc[depth++] = at.pc;
	guess = library_leave(&at, care);
	if (guess != 0 && depth < max)
		pc[depth++] = guess;
	frame = at.fp;
	while (depth < max && frame >= at.sp && frame % sizeof(frame) == 0 &&
	       words_read(frame, &at, care, words) && words[1] != 0) {
		pc[depth++] = words[1];
		if (words[0] <= frame)
			break;
		frame = words[0];
	}
	errno = saved;
	return depth;
}
