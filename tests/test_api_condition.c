/*
 * Goal: conditions of requests count as RFC 9110 section 13 says, and what
 * cannot be read never costs a client its answer.
 * Method: a table of both fields, tried with each method and path that knows
 * conditions; the same on calls that know none.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/api_call_test.h"

#define ETAG	   "\"5e41ab087439611e\"" /* of id 1, version 1 */
#define ETAG_OTHER "\"f18d6ce93d6cf1ee\""

#define AT	"Sun, 06 Nov 1994 08:49:37 GMT"
#define LATER	"Sun, 06 Nov 1994 08:49:38 GMT"
#define EARLIER "Sun, 06 Nov 1994 08:49:36 GMT"

static const struct api_version shown = {1, 1, 784111777};

static const struct {
	const char *none_match, *since;
	bool is_not_modified;
} conditions[] = {
    {NULL, NULL, false},
    {ETAG, NULL, true},
    {"W/" ETAG, NULL, true}, /* weak comparison */
    {" \t" ETAG " \t", NULL, true},
    {ETAG_OTHER, NULL, false},
    {ETAG_OTHER ", " ETAG, NULL, true},
    {ETAG "," ETAG_OTHER, NULL, true},
    {ETAG_OTHER " ,\tW/" ETAG, NULL, true},
    {",, " ETAG " ,, ,", NULL, true}, /* empty elements */
    {"\"\", \"a,b\", \"\\\", " ETAG, NULL, true},
    {"\"\xc3\xa9\", " ETAG, NULL, true},
    {"*", NULL, true},
    {" * ", NULL, true},
    {"\"*\"", NULL, false},
    {"\"\"", NULL, false},
    {"\"5E41AB087439611E\"", NULL, false}, /* compared byte by byte */
    {"\"5e41ab087439611\"", NULL, false},
    {"\"5e41ab087439611ee\"", NULL, false},
    /* malformed: as if it matched nothing */
    {"", NULL, false},
    {" ", NULL, false},
    {",", NULL, false},
    {"5e41ab087439611e", NULL, false},
    {"'5e41ab087439611e'", NULL, false},
    {"w/" ETAG, NULL, false},
    {"W/", NULL, false},
    {"W", NULL, false},
    {"W /" ETAG, NULL, false},
    {"W/ " ETAG, NULL, false},
    {"W/W/" ETAG, NULL, false},
    {"\"5e41ab087439611e", NULL, false},
    {"\"", NULL, false},
    {ETAG "x", NULL, false},
    {ETAG " x", NULL, false},
    {ETAG ETAG, NULL, false},
    {ETAG " " ETAG, NULL, false},
    {ETAG ", \"", NULL, false},
    {ETAG ", \"a b\"", NULL, false},
    {ETAG ", \"\x7f\"", NULL, false},
    {ETAG "; q=1", NULL, false},
    {ETAG ", *", NULL, false},
    {"*, " ETAG, NULL, false},
    {"*, *", NULL, false},
    {"**", NULL, false},
    /* the date */
    {NULL, AT, true},
    {NULL, LATER, true},
    {NULL, EARLIER, false},
    {NULL, "Sunday, 06-Nov-94 08:49:37 GMT", true},
    {NULL, "Sun Nov  6 08:49:36 1994", false},
    {NULL, "Fri, 31 Dec 9999 23:59:59 GMT", true},
    {NULL, "Thu, 01 Jan 1970 00:00:00 GMT", false},
    {NULL, "Fri Dec 13 20:45:52 1901", false},
    {NULL, "", false},
    {NULL, "tomorrow", false},
    {NULL, "Mon, 06 Nov 1994 08:49:37 GMT", false},
    /* the tag has the word, even one that says nothing */
    {ETAG, EARLIER, true},
    {ETAG_OTHER, LATER, false},
    {"", LATER, false},
    {"rubbish", LATER, false},
    {"*", EARLIER, true},
};

static void
conditions_count_as_the_rfc_says(void **state)
{
	static const enum api_method methods[] = {API_GET, API_HEAD};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(conditions); i++) {
		for (int book = 0; book < 2; book++) {
			for (int m = 0; m < 2; m++) {
				(void)begin((struct sent){
				    M(methods[m], book ? "/books/1" : "/books"),
				    .if_none_match = conditions[i].none_match,
				    .if_modified_since = conditions[i].since});
				if (api_call_is_not_modified(&call, &shown) !=
				    conditions[i].is_not_modified)
					fail_msg("%s | %s",
					    conditions[i].none_match,
					    conditions[i].since);
			}
		}
	}
}

static void
an_answer_without_a_date_is_always_newer(void **state)
{
	struct api_version undated = shown;

	(void)state;
	undated.modified_s = 0;
	(void)begin(
	    (struct sent){M(API_GET, "/books/1"), .if_modified_since = LATER});
	assert_true(api_call_is_not_modified(&call, &shown));
	assert_false(api_call_is_not_modified(&call, &undated));
}

static void
writes_errors_and_other_paths_have_no_conditions(void **state)
{
	static const struct sent others[] = {
	    {M(API_DELETE, "/books/1")},
	    {M(API_PUT, "/books/1"), .content_type = JSON},
	    {M(API_POST, "/books"), .content_type = JSON},
	    {M(API_OPTIONS, "/books/1")},
	    {M(API_GET, "/books/1"), .accept = "text/html"},
	    {M(API_GET, "/books"), .accept = "text/html"},
	    {M(API_GET, "/")},
	    {M(API_GET, "/livez")},
	    {M(API_GET, "/x")},
	};

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(others); i++) {
		struct sent sent = others[i];

		/* one before it, of which nothing must be left */
		(void)begin((struct sent){
		    M(API_GET, "/books/1"), .if_none_match = "*"});
		assert_true(api_call_is_not_modified(&call, &shown));
		sent.if_none_match = "*";
		sent.if_modified_since = LATER;
		(void)begin(sent);
		assert_false(api_call_is_not_modified(&call, &shown));
	}
}

static void
sixteen_tags_are_looked_at(void **state)
{
	char text[1024] = "\"other\"";

	(void)state;
	for (int i = 0; i < 15; i++)
		strcat(text, ", " ETAG_OTHER);
	strcat(text, ", \"other\", " ETAG);
	(void)begin(
	    (struct sent){M(API_GET, "/books/1"), .if_none_match = text});
	assert_true(api_call_is_not_modified(&call, &shown));
	strcpy(text, ETAG_OTHER);
	for (int i = 0; i < 15; i++)
		strcat(text, ", " ETAG_OTHER);
	strcat(text, ", " ETAG);
	(void)begin(
	    (struct sent){M(API_GET, "/books/1"), .if_none_match = text});
	assert_false(api_call_is_not_modified(&call, &shown));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    CALL_TEST(conditions_count_as_the_rfc_says),
	    CALL_TEST(an_answer_without_a_date_is_always_newer),
	    CALL_TEST(writes_errors_and_other_paths_have_no_conditions),
	    CALL_TEST(sixteen_tags_are_looked_at),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
