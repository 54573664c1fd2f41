/*
 * What the cache costs in one process, beside a floor that nobody can go
 * under: hash the key and copy the value out of a plain array, in the same
 * order.
 *
 * Costs are CPU time.  A floor and what stands on it are measured in turns
 * (floor, cache, floor, cache ...), a ratio is taken within a turn, and the
 * median of the turns is printed; so a slow moment of the machine falls on
 * both.  A bar is what docs/PERFORMANCE.md promises.  Missing one is told, and
 * is no error of this program.
 *
 *	--rounds=N      turns of each measurement (9)
 *	--scale=F       of keys, requests and sizes (1); smaller: a smoke run
 *	--only=PART     get, put, mix, overhead, ratio or memcached
 *	--lines=FILE    the figures once more, a JSON object a line
 *	--memcached=SOCKET --memcached-pid=PID   compare with that one too
 */
#include "config.h"

#include <err.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "bench/cache.h"

struct cache_options cache_options = {.rounds = 9, .scale = 1};

static FILE *lines;

static const struct {
	const char *name;
	void (*run)(void);
} parts[] = {
    {"get", cache_bench_get},
    {"put", cache_bench_put},
    {"mix", cache_bench_mix},
    {"overhead", cache_bench_overhead},
    {"ratio", cache_bench_hit_ratio},
    {"memcached", cache_bench_memcached},
};

static void
report_line(const struct cache_figure *figure, bool is_met)
{
	fprintf(lines, "{\"figure\": \"%s\", \"what\": \"%s\", ", figure->key,
	    figure->what);
	if (isfinite(figure->value))
		fprintf(lines, "\"value\": %.9g, ", figure->value);
	else
		fputs("\"value\": null, ", lines);
	fprintf(lines, "\"unit\": \"%s\", ", figure->unit);
	if (figure->sense == CACHE_NO_BAR)
		fputs("\"sense\": null, \"limit\": null, ", lines);
	else
		fprintf(lines, "\"sense\": \"%s\", \"limit\": %.9g, ",
		    figure->sense == CACHE_AT_MOST ? "at most" : "at least",
		    figure->limit);
	if (figure->sense == CACHE_NO_BAR || !isfinite(figure->value))
		fputs("\"met\": null}\n", lines);
	else
		fprintf(lines, "\"met\": %s}\n", is_met ? "true" : "false");
	(void)fflush(lines);
}

void
cache_report(const struct cache_figure *figure)
{
	bool is_met = figure->sense == CACHE_AT_MOST
			  ? figure->value <= figure->limit
			  : figure->value >= figure->limit;

	printf("  %-55s ", figure->what);
	if (isfinite(figure->value))
		printf("%10.4g %-6s", figure->value, figure->unit);
	else
		printf("%10s %-6s", "-", "");
	if (figure->sense != CACHE_NO_BAR)
		printf(" %s %g: %s",
		    figure->sense == CACHE_AT_MOST ? "<=" : ">=", figure->limit,
		    !isfinite(figure->value) ? "not measured"
		    : is_met		     ? "met"
					     : "MISSED");
	putchar('\n');
	(void)fflush(stdout);
	if (lines != NULL)
		report_line(figure, is_met);
}

static const char usage[] =
    "bench/cache [--rounds=N] [--scale=F] "
    "[--only=get|put|mix|overhead|ratio|memcached] [--lines=FILE] "
    "[--memcached=SOCKET --memcached-pid=PID]";

static void
options_read(int argc, char **argv)
{
	static const struct option names[] = {
	    {"rounds", required_argument, NULL, 'r'},
	    {"scale", required_argument, NULL, 's'},
	    {"only", required_argument, NULL, 'o'},
	    {"lines", required_argument, NULL, 'l'},
	    {"memcached", required_argument, NULL, 'm'},
	    {"memcached-pid", required_argument, NULL, 'p'},
	    {NULL, 0, NULL, 0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (option) {
		case 'r':
			cache_options.rounds =
			    (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 's':
			cache_options.scale = strtod(optarg, NULL);
			break;
		case 'o':
			cache_options.only = optarg;
			break;
		case 'l':
			lines = fopen(optarg, "we");
			if (lines == NULL)
				err(EX_CANTCREAT, "%s", optarg);
			break;
		case 'm':
			cache_options.memcached = optarg;
			break;
		case 'p':
			cache_options.memcached_pid =
			    (int)strtol(optarg, NULL, 10);
			break;
		default:
			errx(EX_USAGE, "%s", usage);
		}
	}
	if (optind != argc || cache_options.rounds == 0 ||
	    cache_options.rounds > CACHE_ROUNDS_MAX ||
	    !(cache_options.scale > 0 && cache_options.scale <= 1))
		errx(EX_USAGE, "%s", usage);
}

int
main(int argc, char **argv)
{
	bool found = false;

	options_read(argc, argv);
	cache_pin(0);
	printf("the cache in one process: medians of %u rounds\n",
	    cache_options.rounds);
	for (size_t i = 0; i < SHM_ARRAY_LEN(parts); i++) {
		if (cache_options.only != NULL &&
		    strcmp(cache_options.only, parts[i].name) != 0)
			continue;
		found = true;
		parts[i].run();
	}
	if (!found)
		errx(EX_USAGE, "%s: no such part", cache_options.only);
	if (lines != NULL && fclose(lines) == EOF)
		err(EX_IOERR, "cannot write the lines");
	return EX_OK;
}
