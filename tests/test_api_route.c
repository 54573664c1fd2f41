/*
 * Goal: each path finds its one route and nothing else does; the table says
 * the same in bits and in words; an ISBN is decoded once and strictly.
 * Method: tables of paths and of segments.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "api/api_route.h"

#define NO_ROUTE "none"

static const struct {
	const char *path, *route, *segment;
} paths[] = {
    {"/", "/", NULL},
    {"/books", "/books", NULL},
    {"/books/", "/books", NULL},
    {"/books/9780201134476", "/books/{isbn}", "9780201134476"},
    {"/books/9780201134476/", "/books/{isbn}", "9780201134476"},
    {"/books/a%2Fb", "/books/{isbn}", "a%2Fb"},
    {"/books/..", "/books/{isbn}", ".."},
    {"/books/.", "/books/{isbn}", "."},
    {"/books/%", "/books/{isbn}", "%"},
    {"/books/;v=1", "/books/{isbn}", ";v=1"},
    {"/books//", NO_ROUTE, NULL},
    {"/books//9780201134476", NO_ROUTE, NULL},
    {"/books/1//", NO_ROUTE, NULL},
    {"/books/1/2", NO_ROUTE, NULL},
    {"/books/1/2/", NO_ROUTE, NULL},
    {"//", NO_ROUTE, NULL},
    {"//books", NO_ROUTE, NULL},
    {"/./books", NO_ROUTE, NULL},
    {"/x/../books", NO_ROUTE, NULL},
    {"/bookshelf", NO_ROUTE, NULL},
    {"/book", NO_ROUTE, NULL},
    {"/Books", NO_ROUTE, NULL},
    {"/%62ooks", NO_ROUTE, NULL},
    {"/books%2F1", NO_ROUTE, NULL},
    {"/livez", "/livez", NULL},
    {"/livez/", NO_ROUTE, NULL},
    {"/livezz", NO_ROUTE, NULL},
    {"/readyz", "/readyz", NULL},
    {"/health", "/health", NULL},
    {"/healthy", NO_ROUTE, NULL},
    {"/actuator", NO_ROUTE, NULL},
    {"/actuator/health", "/actuator/health", NULL},
    {"/actuator/health/x", NO_ROUTE, NULL},
    {"*", NO_ROUTE, NULL},
    {"", NO_ROUTE, NULL},
    {"books", NO_ROUTE, NULL},
};

/* On an exact-size copy, so that a sanitizer sees one byte too far. */
static void
expect_route(const char *path, const char *name, const char *segment_text)
{
	struct api_slice segment = {NULL, 0};
	const struct api_route *route;
	size_t len = strlen(path);
	char *copy = malloc(len > 0 ? len : 1);

	assert_non_null(copy);
	memcpy(copy, path, len);
	route = api_route_match((struct api_slice){copy, len}, &segment);
	if (strcmp(route != NULL ? route->path : NO_ROUTE, name) != 0)
		fail_msg("%s is %s", path, route != NULL ? route->path : "no");
	if (segment_text == NULL)
		assert_null(segment.data);
	else
		assert_true(api_slice_is(segment, segment_text));
	free(copy);
}

static void
each_path_has_its_route_and_nothing_is_normalised(void **state)
{
	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(paths); i++)
		expect_route(paths[i].path, paths[i].route, paths[i].segment);
}

static void
the_table_is_in_the_order_of_its_ids(void **state)
{
	(void)state;
	for (int i = 0; i < API_ROUTE_COUNT; i++) {
		assert_int_equal(api_route_table[i].id, i);
		assert_non_null(api_route_table[i].path);
	}
}

static void
allow_lists_the_methods_that_are_served(void **state)
{
	char allow[128];

	(void)state;
	for (int i = 0; i < API_ROUTE_ASTERISK; i++) {
		const struct api_route *route = &api_route_table[i];

		allow[0] = '\0';
		for (int method = 0; method < API_METHODS; method++) {
			if (!api_route_has(route, (enum api_method)method))
				continue;
			if (allow[0] != '\0')
				strcat(allow, ", ");
			strcat(allow, api_method_name((enum api_method)method));
		}
		assert_string_equal(allow, route->allow);
		assert_true(api_route_has(route, API_OPTIONS));
		assert_int_equal(api_route_has(route, API_GET),
		    api_route_has(route, API_HEAD));
		assert_false(api_route_has(route, API_METHOD_OTHER));
	}
}

static const struct {
	const char *segment, *decoded; /* NULL: refused */
	size_t points;
} segments[] = {
    {"9780201134476", "9780201134476", 13},
    {"a%2Fb", "a/b", 3},
    {"a%2fb", "a/b", 3},
    {"%41%62", "Ab", 2},
    {"%2541", "%41", 3}, /* once */
    {"a+b", "a+b", 3},
    {"%20", " ", 1},
    {"%0A", "\n", 1},
    {"%C3%A9", "\xc3\xa9", 1},
    {"%f0%9f%93%9a", "\xf0\x9f\x93\x9a", 1},
    {"\xc3\xa9", "\xc3\xa9", 1},
    {"%", NULL, 0},
    {"%4", NULL, 0},
    {"1%", NULL, 0},
    {"1%a", NULL, 0},
    {"%zz", NULL, 0},
    {"%4g", NULL, 0},
    {"%g4", NULL, 0},
    {"%%41", NULL, 0},
    {"%-1", NULL, 0},
    {"%+1", NULL, 0},
    {"% 1", NULL, 0},
    {"%u0041", NULL, 0},
    {"%00", NULL, 0},
    {"1%002", NULL, 0},
    {"%C3", NULL, 0},
    {"%C3(", NULL, 0},
    {"%80", NULL, 0},
    {"%C0%AF", NULL, 0},
    {"%ED%A0%80", NULL, 0},
    {"%FF", NULL, 0},
};

static void
a_segment_is_decoded_once_or_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(segments); i++) {
		size_t bytes = strlen(segments[i].segment), len, points;
		char *copy = malloc(bytes), *out = malloc(bytes);
		bool ok;

		assert_true(copy != NULL && out != NULL);
		memcpy(copy, segments[i].segment, bytes);
		ok = api_route_decode(
		    (struct api_slice){copy, bytes}, out, &len, &points);
		if (ok != (segments[i].decoded != NULL))
			fail_msg("%s gave %d", segments[i].segment, ok);
		if (ok) {
			assert_int_equal(len, strlen(segments[i].decoded));
			assert_memory_equal(out, segments[i].decoded, len);
			assert_int_equal(points, segments[i].points);
		}
		free(copy);
		free(out);
	}
}

static void
a_nul_byte_in_a_segment_is_refused(void **state)
{
	char out[3];
	size_t len, points;

	(void)state;
	assert_false(api_route_decode(API_SLICE("1\0"
						"2"),
	    out, &len, &points));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(each_path_has_its_route_and_nothing_is_normalised),
	    cmocka_unit_test(the_table_is_in_the_order_of_its_ids),
	    cmocka_unit_test(allow_lists_the_methods_that_are_served),
	    cmocka_unit_test(a_segment_is_decoded_once_or_refused),
	    cmocka_unit_test(a_nul_byte_in_a_segment_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
