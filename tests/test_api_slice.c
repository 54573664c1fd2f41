/*
 * Goal: text is made without losing a byte: the buffer grows, keeps its bound
 * and fails for good; numbers and JSON escapes are right; UTF-8 is told from
 * what is not.
 * Method: tables; the escaper at every alignment; UTF-8 over all sequences of
 * up to three bytes and the edges of four, against a decoder written
 * differently.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "api/api_slice.h"

static void
expect_buf(const struct api_buf *buf, const char *text)
{
	assert_false(buf->failed);
	assert_int_equal(buf->len, strlen(text));
	assert_memory_equal(buf->data, text, buf->len);
}

static void
a_buffer_grows_and_keeps_what_it_has(void **state)
{
	struct api_buf buf = {.data = NULL};

	(void)state;
	for (int i = 0; i < 100000; i++)
		api_buf_bytes(&buf, &(char){(char)('a' + i % 26)}, 1);
	assert_int_equal(buf.len, 100000);
	for (int i = 0; i < 100000; i++)
		assert_int_equal(buf.data[i], 'a' + i % 26);
	api_buf_fini(&buf);
	assert_null(buf.data);
	assert_int_equal(buf.cap, 0);
}

static void
a_cleared_buffer_keeps_its_memory(void **state)
{
	struct api_buf buf = {.data = NULL};
	char *data;

	(void)state;
	api_buf_text(&buf, "first");
	data = buf.data;
	api_buf_clear(&buf);
	api_buf_text(&buf, "second");
	expect_buf(&buf, "second");
	assert_ptr_equal(buf.data, data);
	api_buf_fini(&buf);
}

static void
a_full_buffer_fails_until_it_is_cleared(void **state)
{
	struct api_buf buf = {.bytes_max = 1500};
	char filler[1400];

	(void)state;
	memset(filler, 'x', sizeof(filler));
	api_buf_bytes(&buf, filler, sizeof(filler));
	assert_false(buf.failed);
	assert_non_null(api_buf_reserve(&buf, 100)); /* exactly the bound */
	assert_null(api_buf_reserve(&buf, 101));
	assert_true(buf.failed);
	api_buf_text(&buf, "y");
	assert_int_equal(buf.len, sizeof(filler));
	assert_null(api_buf_reserve(&buf, 1));
	assert_in_range(buf.cap, 1400, 1500);
	api_buf_clear(&buf);
	api_buf_text(&buf, "y");
	expect_buf(&buf, "y");
	assert_null(api_buf_reserve(&buf, SIZE_MAX));
	api_buf_fini(&buf);
}

static void
nothing_is_written_for_no_bytes(void **state)
{
	struct api_buf buf = {.data = NULL};

	(void)state;
	api_buf_bytes(&buf, NULL, 0);
	api_buf_text(&buf, "");
	api_buf_json(&buf, (struct api_slice){NULL, 0});
	assert_int_equal(buf.len, 0);
	assert_false(buf.failed);
	api_buf_fini(&buf);
}

static void
integers_are_printed_from_end_to_end(void **state)
{
	static const int64_t values[] = {0, 1, 9, 10, 99, 100, -1, -10,
	    INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN};
	struct api_buf buf = {.data = NULL};
	char text[32];

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(values); i++) {
		api_buf_clear(&buf);
		api_buf_i64(&buf, values[i]);
		snprintf(text, sizeof(text), "%lld", (long long)values[i]);
		expect_buf(&buf, text);
	}
	api_buf_clear(&buf);
	api_buf_u64(&buf, UINT64_MAX);
	expect_buf(&buf, "18446744073709551615");
	api_buf_fini(&buf);
}

static void
a_slice_is_only_its_own_text(void **state)
{
	(void)state;
	assert_true(api_slice_is(API_SLICE("ab"), "ab"));
	assert_false(api_slice_is(API_SLICE("ab"), "a"));
	assert_false(api_slice_is(API_SLICE("ab"), "abc"));
	assert_false(api_slice_is(API_SLICE("ab"), "aB"));
	assert_true(api_slice_is((struct api_slice){NULL, 0}, ""));
}

static const struct {
	const char *text, *json;
} escapes[] = {
    {"", ""},
    {"plain", "plain"},
    {"\"", "\\\""},
    {"\\", "\\\\"},
    {"/", "/"},
    {"\b\f\n\r\t", "\\b\\f\\n\\r\\t"},
    {"\x01", "\\u0001"},
    {"\x1f", "\\u001f"},
    {"\x7f", "\x7f"},
    {" !#[]~", " !#[]~"},
    {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x93\x9a",
	"\xc3\xa9\xe2\x82\xac\xf0\x9f\x93\x9a"},
    {"\x80", "\xef\xbf\xbd"},
    {"\xff", "\xef\xbf\xbd"},
    {"\xc3", "\xef\xbf\xbd"},
    {"\xc3(", "\xef\xbf\xbd("},
    {"\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd"},
    {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
};

/* Each case with 0 to 16 bytes before and after it, on an exact-size copy. */
static void
json_escapes_are_right_at_every_alignment(void **state)
{
	static const char pad[] = "abcdefghijklmnop";
	struct api_buf buf = {.data = NULL};
	char text[64], want[128], *copy;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(escapes); i++) {
		for (int around = 0; around < 17 * 17; around++) {
			int before = around / 17, after = around % 17;
			size_t len;

			snprintf(text, sizeof(text), "%.*s%s%.*s", before, pad,
			    escapes[i].text, after, pad);
			snprintf(want, sizeof(want), "%.*s%s%.*s", before, pad,
			    escapes[i].json, after, pad);
			len = strlen(text);
			copy = malloc(len + 1);
			assert_non_null(copy);
			memcpy(copy, text, len);
			api_buf_clear(&buf);
			api_buf_json(&buf, (struct api_slice){copy, len});
			free(copy);
			expect_buf(&buf, want);
		}
	}
	api_buf_fini(&buf);
}

static void
every_single_byte_becomes_json(void **state)
{
	struct api_buf buf = {.data = NULL};
	char text[9];

	(void)state;
	for (int byte = 0; byte < 256; byte++) {
		memset(text, 'a', sizeof(text));
		text[4] = (char)byte;
		api_buf_clear(&buf);
		api_buf_json(&buf, (struct api_slice){text, sizeof(text)});
		assert_false(buf.failed);
		for (size_t i = 0; i < buf.len; i++)
			assert_true((uint8_t)buf.data[i] >= 0x20);
		assert_int_equal(buf.len == sizeof(text) &&
				     memcmp(buf.data, text, buf.len) == 0,
		    byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\');
	}
	api_buf_fini(&buf);
}

/* What RFC 3629 says, by decoding and encoding again. */
static size_t
reference_sequence(const uint8_t *s, size_t len)
{
	static const uint32_t low[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t need = s[0] < 0x80	      ? 1
		      : (s[0] & 0xe0) == 0xc0 ? 2
		      : (s[0] & 0xf0) == 0xe0 ? 3
		      : (s[0] & 0xf8) == 0xf0 ? 4
					      : 0;
	uint32_t point;

	if (need == 0 || len < need)
		return 0;
	if (need == 1)
		return 1;
	point = s[0] & (0xffu >> (need + 1));
	for (size_t i = 1; i < need; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		point = point << 6 | (s[i] & 0x3f);
	}
	if (point < low[need] || point > 0x10ffff ||
	    (point >= 0xd800 && point <= 0xdfff))
		return 0;
	return need;
}

static void
expect_sequence(const uint8_t *bytes)
{
	for (size_t len = 1; len <= 4; len++)
		if (api_utf8_sequence((const char *)bytes, len) !=
		    reference_sequence(bytes, len))
			fail_msg("%02x %02x %02x %02x of %zu", bytes[0],
			    bytes[1], bytes[2], bytes[3], len);
}

static void
utf8_sequences_are_those_of_rfc_3629(void **state)
{
	static const uint8_t third[] = {0x00, 0x7f, 0x80, 0xbf, 0xc0, 0xff};

	(void)state;
	for (unsigned lead = 0; lead < 256; lead++)
		for (unsigned second = 0; second < 256; second++)
			for (size_t i = 0; i < 36; i++)
				expect_sequence(
				    (uint8_t[]){(uint8_t)lead, (uint8_t)second,
					third[i / 6], third[i % 6]});
}

static void
code_points_are_counted(void **state)
{
	size_t points = 77;

	(void)state;
	assert_true(api_utf8_is_valid(API_SLICE(""), &points));
	assert_int_equal(points, 0);
	assert_true(api_utf8_is_valid(
	    API_SLICE("a\xc3\xa9\xe2\x82\xac\xf0\x9f\x93\x9a"), &points));
	assert_int_equal(points, 4);
	assert_false(api_utf8_is_valid(API_SLICE("abc\xe2\x82"), &points));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_buffer_grows_and_keeps_what_it_has),
	    cmocka_unit_test(a_cleared_buffer_keeps_its_memory),
	    cmocka_unit_test(a_full_buffer_fails_until_it_is_cleared),
	    cmocka_unit_test(nothing_is_written_for_no_bytes),
	    cmocka_unit_test(integers_are_printed_from_end_to_end),
	    cmocka_unit_test(a_slice_is_only_its_own_text),
	    cmocka_unit_test(json_escapes_are_right_at_every_alignment),
	    cmocka_unit_test(every_single_byte_becomes_json),
	    cmocka_unit_test(utf8_sequences_are_those_of_rfc_3629),
	    cmocka_unit_test(code_points_are_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
