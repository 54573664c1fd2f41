/*
 * booksctl export: the catalogue as CSV, in a form that booksctl import reads
 * back.
 *
 * The server writes the CSV (COPY ... TO STDOUT) from one snapshot and libpq
 * hands it on row by row, so memory does not grow with the catalogue.  A file
 * appears under its name only when it is complete: what is written before
 * stands in FILE.part.
 */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "ctl/ctl.h"
#include "ctl/ctl_progress.h"

/* Prices are printed with the fewest digits that read back as the same. */
#define EXPORT_SQL                                           \
	"SET extra_float_digits = 1;"                        \
	"COPY (SELECT isbn, title, author, publisher, price" \
	" FROM book ORDER BY id) TO STDOUT (FORMAT csv, HEADER)"

struct export
{
	const struct ctl *ctl;
	const char *path; /* NULL: standard output */
	char *part_path;
	FILE *file;
	PGconn *conn;
	uint64_t rows;
	uint64_t bytes;
};

static int
write_failed(const struct export *export)
{
	ctl_say("%s: %s",
	    export->path != NULL ? export->path : "standard output",
	    strerror(errno));
	return EX_IOERR;
}

/* After the last row: did the server send all of them? */
static int
copy_result(struct export *export)
{
	PGresult *result = PQgetResult(export->conn);
	int code = EX_OK;

	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		code = ctl_sql_failed(export->conn, result, "export");
	PQclear(result);
	return code;
}

static int
rows_write(struct export *export)
{
	struct ctl_progress progress;
	char *row;
	int len, code = EX_OK;

	ctl_progress_begin(&progress, "writing", 0,
	    export->ctl->is_quiet || export->path == NULL);
	while (
	    code == EX_OK && (len = PQgetCopyData(export->conn, &row, 0)) > 0) {
		if (fwrite(row, 1, (size_t)len, export->file) != (size_t)len)
			code = write_failed(export);
		PQfreemem(row);
		export->rows++;
		export->bytes += (uint64_t)len;
		ctl_progress_step(&progress, export->bytes, export->rows - 1);
	}
	ctl_progress_clear(&progress);
	if (code == EX_OK && len == -2)
		code = ctl_sql_failed(export->conn, NULL, "export");
	return code == EX_OK ? copy_result(export) : code;
}

/* What is there already and is no plain file, /dev/null for instance, is
 * written to and not replaced. */
static bool
is_special(const char *path)
{
	struct stat status;

	return lstat(path, &status) == 0 && !S_ISREG(status.st_mode);
}

static int
special_open(struct export *export)
{
	export->file = fopen(export->path, "we");
	if (export->file != NULL)
		return EX_OK;
	ctl_say("%s: %s", export->path, strerror(errno));
	return EX_CANTCREAT;
}

static int
file_open(struct export *export)
{
	size_t size;

	if (export->path == NULL) {
		export->file = stdout;
		return EX_OK;
	}
	if (is_special(export->path))
		return special_open(export);
	size = strlen(export->path) + sizeof(".part");
	export->part_path = malloc(size);
	if (export->part_path == NULL) {
		ctl_say("out of memory");
		return EX_OSERR;
	}
	snprintf(export->part_path, size, "%s.part", export->path);
	export->file = fopen(export->part_path, "we");
	if (export->file == NULL) {
		ctl_say("%s: %s", export->part_path, strerror(errno));
		return EX_CANTCREAT;
	}
	return EX_OK;
}

/* The complete file gets its name; an incomplete one goes. */
static int
part_end(struct export *export, int code)
{
	if (code == EX_OK && (fsync(fileno(export->file)) == -1 ||
				 rename(export->part_path, export->path) == -1))
		code = write_failed(export);
	if (code != EX_OK)
		unlink(export->part_path);
	return code;
}

/* code: how it went so far. */
static int
file_close(struct export *export, int code)
{
	if (export->file == NULL)
		return code;
	if (code == EX_OK && fflush(export->file) == EOF)
		code = write_failed(export);
	if (export->part_path != NULL)
		code = part_end(export, code);
	if (export->file != stdout)
		fclose(export->file);
	return code;
}

static int
export_run(struct export *export)
{
	int code = ctl_connect(export->ctl, 0, &export->conn);

	if (code != EX_OK)
		return code;
	code = ctl_exec(export->conn, EXPORT_SQL, NULL);
	if (code == EX_OK)
		code = file_open(export);
	if (code == EX_OK)
		code = rows_write(export);
	code = file_close(export, code);
	PQfinish(export->conn);
	if (code == EX_OK && export->path != NULL && !export->ctl->is_quiet)
		printf("%llu written\n",
		    (unsigned long long)(export->rows - 1)); /* the header */
	return code;
}

int
ctl_export(const struct ctl *ctl, int argc, char **argv)
{
	static const struct option options[] = {{NULL, 0, NULL, 0}};
	struct export export = {.ctl = ctl};
	int code;

	if (getopt_long(argc, argv, "", options, NULL) != -1)
		return ctl_usage_option(argc, argv);
	if (argc - optind > 1)
		return ctl_usage("export: need one file or none");
	if (optind < argc && strcmp(argv[optind], "-") != 0)
		export.path = argv[optind];
	code = export_run(&export);
	free(export.part_path);
	return code;
}
