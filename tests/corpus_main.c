/*
 * Goal: the seed corpus of a fuzz target stays a plain test, on any compiler.
 * Method: linked with fuzz_<name>.c it calls the target once for each file in
 * the folder tests/corpus/<name> (argv[0] tells the name) and speaks TAP; the
 * target itself aborts when an invariant breaks.
 */
#include "config.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_BYTES_MAX (1u << 20)

static uint8_t input[INPUT_BYTES_MAX];

/* An exact-size copy on the heap, so that a sanitizer sees one byte too far. */
static int
run_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	size_t size;
	uint8_t *copy;

	if (file == NULL)
		return -1;
	size = fread(input, 1, sizeof(input), file);
	fclose(file);
	copy = malloc(size > 0 ? size : 1);
	if (copy == NULL)
		return -1;
	memcpy(copy, input, size);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
	return 0;
}

int
main(int argc, char **argv)
{
	const char *srcdir = getenv("abs_top_srcdir");
	const char *base = strrchr(argv[0], '/');
	char folder[4096], path[8192];
	struct dirent **entry;
	int count, number = 0;

	(void)argc;
	base = base != NULL ? base + 1 : argv[0];
	if (strncmp(base, "corpus_", 7) != 0)
		return 99;
	snprintf(folder, sizeof(folder), "%s/tests/corpus/%s",
	    srcdir != NULL ? srcdir : ".", base + 7);
	count = scandir(folder, &entry, NULL, alphasort);
	if (count == -1) {
		printf("Bail out! cannot read %s\n", folder);
		return 99;
	}
	for (int i = 0; i < count; i++) {
		if (entry[i]->d_name[0] != '.') {
			snprintf(path, sizeof(path), "%s/%s", folder,
			    entry[i]->d_name);
			printf("%s %d - %s\n",
			    run_file(path) == 0 ? "ok" : "not ok", ++number,
			    entry[i]->d_name);
			fflush(stdout);
		}
		free(entry[i]);
	}
	free(entry);
	printf("1..%d\n", number);
	return number > 0 ? 0 : 1;
}
