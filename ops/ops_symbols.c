/*
 * Symbols.
 *
 * Our own functions are static for the most part and named in .symtab alone;
 * what strip(1) has left is .dynsym.  The file is mapped and read where it
 * lies, every offset in it judged first.  Libraries are asked by dladdr(3),
 * which knows what they export: a static function of theirs is counted as the
 * library's.
 */
#include "config.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops/ops_symbols.h"

#define FILE_MAX (UINT64_C(1) << 30)

struct symbol {
	uint64_t begin, end;
	const char *name; /* in the file */
};

struct ops_symbols {
	const char *file; /* mapped, or NULL */
	size_t bytes;
	uint64_t base; /* where the program was loaded */
	uint64_t begin, end;
	struct symbol *symbol; /* by their begin */
	size_t count;
};

/* ---- the file */

/* NULL: not all of it lies in the file. */
static const void *
part(const struct ops_symbols *symbols, uint64_t offset, uint64_t bytes)
{
	if (offset > symbols->bytes || bytes > symbols->bytes - offset)
		return NULL;
	return symbols->file + offset;
}

static const ElfW(Shdr) * section(const struct ops_symbols *symbols,
			      const ElfW(Ehdr) * head, uint32_t i)
{
	if (i >= head->e_shnum || head->e_shentsize != sizeof(ElfW(Shdr)))
		return NULL;
	return part(symbols, head->e_shoff + i * sizeof(ElfW(Shdr)),
	    sizeof(ElfW(Shdr)));
}

static int
compare(const void *a, const void *b)
{
	const struct symbol *one = a, *other = b;

	return one->begin < other->begin ? -1 : one->begin > other->begin;
}

/* The functions of a table. */
static void
take(struct ops_symbols *symbols, const ElfW(Shdr) * table,
    const ElfW(Shdr) * strings)
{
	size_t count = table->sh_size / sizeof(ElfW(Sym));
	const ElfW(Sym) *sym =
	    part(symbols, table->sh_offset, count * sizeof(*sym));
	const char *text = part(symbols, strings->sh_offset, strings->sh_size);

	if (sym == NULL || text == NULL || strings->sh_size == 0 ||
	    text[strings->sh_size - 1] != '\0')
		return;
	symbols->symbol = calloc(count + 1, sizeof(*symbols->symbol));
	for (size_t i = 0; symbols->symbol != NULL && i < count; i++) {
		if (ELF64_ST_TYPE(sym[i].st_info) != STT_FUNC ||
		    sym[i].st_value == 0 || sym[i].st_name >= strings->sh_size)
			continue;
		symbols->symbol[symbols->count++] = (struct symbol){
		    sym[i].st_value,
		    sym[i].st_value + sym[i].st_size,
		    text + sym[i].st_name,
		};
	}
	if (symbols->symbol != NULL)
		qsort(symbols->symbol, symbols->count, sizeof(*symbols->symbol),
		    compare);
}

static void
find_table(struct ops_symbols *symbols)
{
	static const uint32_t kinds[] = {SHT_SYMTAB, SHT_DYNSYM};
	const ElfW(Ehdr) *head = part(symbols, 0, sizeof(*head));

	if (head == NULL || memcmp(head->e_ident, ELFMAG, SELFMAG) != 0)
		return;
	for (size_t k = 0; k < SHM_ARRAY_LEN(kinds); k++)
		for (uint32_t i = 0; i < head->e_shnum; i++) {
			const ElfW(Shdr) *table = section(symbols, head, i);
			const ElfW(Shdr) * strings;

			if (table == NULL || table->sh_type != kinds[k])
				continue;
			strings = section(symbols, head, table->sh_link);
			if (strings != NULL && symbols->count == 0)
				take(symbols, table, strings);
		}
}

static void
map_file(struct ops_symbols *symbols)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *file;

	if (fd == -1)
		return;
	if (fstat(fd, &st) == 0 && st.st_size > 0 &&
	    (uint64_t)st.st_size <= FILE_MAX) {
		file = mmap(
		    NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (file != MAP_FAILED) {
			symbols->file = file;
			symbols->bytes = (size_t)st.st_size;
		}
	}
	close(fd);
}

/* ---- where the program lies */

/* The first one is the program itself. */
static int
find_program(struct dl_phdr_info *info, size_t bytes, void *arg)
{
	struct ops_symbols *symbols = arg;

	(void)bytes;
	symbols->base = info->dlpi_addr;
	symbols->begin = UINT64_MAX;
	for (uint32_t i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *phdr = &info->dlpi_phdr[i];
		uint64_t begin = info->dlpi_addr + phdr->p_vaddr;

		if (phdr->p_type != PT_LOAD)
			continue;
		if (begin < symbols->begin)
			symbols->begin = begin;
		if (begin + phdr->p_memsz > symbols->end)
			symbols->end = begin + phdr->p_memsz;
	}
	return 1;
}

struct ops_symbols *
ops_symbols_new(void)
{
	struct ops_symbols *symbols = calloc(1, sizeof(*symbols));

	if (symbols == NULL)
		return NULL;
	dl_iterate_phdr(find_program, symbols);
	map_file(symbols);
	if (symbols->file != NULL)
		find_table(symbols);
	return symbols;
}

void
ops_symbols_free(struct ops_symbols **symbols)
{
	struct ops_symbols *old = *symbols;

	*symbols = NULL;
	if (old == NULL)
		return;
	if (old->file != NULL)
		munmap((void *)(uintptr_t)old->file, old->bytes);
	free(old->symbol);
	free(old);
}

/* ---- names */

/* The last symbol that begins at or before the place; NULL: it ended. */
static const struct symbol *
find(const struct ops_symbols *symbols, uint64_t place)
{
	size_t low = 0, high = symbols->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (symbols->symbol[middle].begin <= place)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0 || place >= symbols->symbol[low - 1].end)
		return NULL;
	return &symbols->symbol[low - 1];
}

static void
clean(char *name)
{
	for (; *name != '\0'; name++)
		if (*name <= ' ' || *name == ';' || *name == 0x7f)
			*name = '_';
}

void
ops_symbols_name(
    const struct ops_symbols *symbols, uint64_t pc, char name[OPS_SYMBOLS_NAME])
{
	const struct symbol *symbol;
	const char *file;
	Dl_info info;

	if (pc >= symbols->begin && pc < symbols->end) {
		symbol = find(symbols, pc - symbols->base);
		if (symbol != NULL)
			snprintf(name, OPS_SYMBOLS_NAME, "%s", symbol->name);
		else
			snprintf(name, OPS_SYMBOLS_NAME, "[booksd+0x%jx]",
			    (uintmax_t)(pc - symbols->base));
	} else if (dladdr((void *)(uintptr_t)pc, &info) != 0 &&
		   info.dli_fname != NULL) {
		file = strrchr(info.dli_fname, '/');
		file = file != NULL ? file + 1 : info.dli_fname;
		snprintf(name, OPS_SYMBOLS_NAME, "[%s]%s", file,
		    info.dli_sname != NULL ? info.dli_sname : "");
	} else {
		snprintf(name, OPS_SYMBOLS_NAME, "[unknown]");
	}
	clean(name);
}
