/*
 * Goal: Accept decides as RFC 9110 section 12.5.1 says, however badly it is
 * written, and only JSON in UTF-8 passes as Content-Type.
 * Method: tables of field values, parsed from exact-size copies.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "api/api_media.h"

#define J "application/json"
#define P "application/problem+json"

static const struct {
	const char *accept;
	bool json, problem;
} accepts[] = {
    {"*/*", true, false},
    {J, true, false},
    {"APPLICATION/JSON", true, false},
    {"application/*", true, false},
    {J ";charset=utf-8", true, false},
    {J "; q=0.5", true, false},
    {J ";q=0.001", true, false},
    {J ";q=0", false, false},
    {J ";q=0.000", false, false},
    {J " ; Q=0.0", false, false},
    {J ";charset=utf-8;q=0", false, false},
    {"text/html", false, false},
    {"text/html, */*", true, false},
    {"text/html, */*;q=0", false, false},
    {"text/html,application/xhtml+xml,*/*;q=0.8", true, false},
    {"*/*;q=0", false, false},
    {"application/*;q=0", false, false},
    {"application/*;q=0, */*", false, false},
    {"*/*;q=0, application/*", true, false},
    {J ";q=0, */*", false, false},
    {"*/*, " J ";q=0", false, false},
    {"*/*;q=0, " J, true, false},
    {J ";q=0, application/*;q=1, */*;q=1", false, false},
    {"text/*", false, false},
    {"application/xml", false, false},
    {"application/jsonx", false, false},
    {"application/vnd.api+json", false, false},
    {P, true, true},
    {P ";q=0", false, false},
    {P ", text/html", true, true},
    {J ", " P, true, true},
    {P ", " J ";q=0", false, true},
    {P ", */*;q=0", true, true},
    {"Application/Problem+JSON", true, true},
    {"*", true, false},
    {"text/html, *; q=.2, */*; q=.2", true, false},
    {"", true, false},
    {" ", true, false},
    {",,,", true, false},
    {"garbage", true, false},
    {"/", true, false},
    {"a/", true, false},
    {"/b", true, false},
    {"a/b/c", true, false},
    {";q=0", true, false},
    {"*/json", false, false},
    {J ";q=", true, false},
    {J ";q", true, false},
    {J ";q=abc", true, false},
    {J ";q=-1", true, false},
    {J ";q=-", true, false},
    {J ";q=2", true, false},
    {J ";q=1.5", true, false},
    {J ";q=0.0001", true, false},
    {J ";q=0.", false, false},
    {J ";q=00", true, false},
    {J ";x=\",\";q=0", false, false},
    {J ";x=\"\\\",\";q=0", false, false},
    {J ";x=\"a;q=0\"", true, false},
    {J ";x=\"unfinished", true, false},
    {J ";x=\"unfinished\\", true, false},
    {"text/html;x=\"" J "\"", false, false},
    {"\t" J "\t,\ttext/html", true, false},
};

static const struct {
	const char *type;
	bool ok;
} types[] = {
    {J, true},
    {"Application/Json", true},
    {J ";charset=utf-8", true},
    {J "; charset=UTF-8", true},
    {J " ; Charset=\"utf-8\" ", true},
    {J ";", true},
    {J ";;charset=utf-8", true},
    {J ";x=1;charset=utf-8", true},
    {"application/vnd.book+json", true},
    {P, true},
    {J ";charset=latin1", false},
    {J ";charset=utf-16", false},
    {J ";charset=", false},
    {J ";charset", false},
    {J ";charset=utf8", false},
    {J ";charset=utf-8;charset=latin1", false},
    {J ";=utf-8", false},
    {"application/+json", false},
    {"application/json5", false},
    {"application/xjson", false},
    {"application/*", false},
    {"application/", false},
    {"application", false},
    {"text/json", false},
    {"text/plain", false},
    {"text/plain;" J, false},
    {"*/*", false},
    {"", false},
    {J ", " J, false},
    {J " " J, false},
    {"application/x y+json", false},
    {"application/x/y+json", false},
    {"application/x\x01+json", false},
    {"application/\xc3\xa9+json", false},
    {"application/x-www-form-urlencoded", false},
};

static struct api_slice
copy_of(const char *text)
{
	size_t len = strlen(text);
	char *copy = malloc(len > 0 ? len : 1);

	assert_non_null(copy);
	memcpy(copy, text, len);
	return (struct api_slice){copy, len};
}

static void
accept_decides_by_the_most_specific_range(void **state)
{
	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(accepts); i++) {
		struct api_slice value = copy_of(accepts[i].accept);
		struct api_media_accept takes = api_media_accept(value);

		if (takes.json != accepts[i].json ||
		    takes.problem != accepts[i].problem)
			fail_msg("Accept: %s gave json %d problem %d",
			    accepts[i].accept, takes.json, takes.problem);
		free((char *)value.data);
	}
}

static void
no_accept_takes_everything(void **state)
{
	struct api_media_accept takes =
	    api_media_accept((struct api_slice){NULL, 0});

	(void)state;
	assert_true(takes.json);
	assert_false(takes.problem);
}

static void
only_json_in_utf8_is_a_content_type_of_ours(void **state)
{
	(void)state;
	assert_false(api_media_is_json((struct api_slice){NULL, 0}));
	for (size_t i = 0; i < SHM_ARRAY_LEN(types); i++) {
		struct api_slice value = copy_of(types[i].type);

		if (api_media_is_json(value) != types[i].ok)
			fail_msg("Content-Type: %s", types[i].type);
		free((char *)value.data);
	}
}

static void
only_identity_is_a_content_encoding_of_ours(void **state)
{
	(void)state;
	assert_true(api_media_is_identity((struct api_slice){NULL, 0}));
	assert_true(api_media_is_identity(API_SLICE("")));
	assert_true(api_media_is_identity(API_SLICE("identity")));
	assert_true(api_media_is_identity(API_SLICE("Identity, identity")));
	assert_false(api_media_is_identity(API_SLICE("gzip")));
	assert_false(api_media_is_identity(API_SLICE("identity, gzip")));
	assert_false(api_media_is_identity(API_SLICE("identityx")));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(accept_decides_by_the_most_specific_range),
	    cmocka_unit_test(no_accept_takes_everything),
	    cmocka_unit_test(only_json_in_utf8_is_a_content_type_of_ours),
	    cmocka_unit_test(only_identity_is_a_content_encoding_of_ours),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
