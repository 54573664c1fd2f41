/*
 * Goal: worker_http reads good request heads as RFC 9112 says and refuses
 * every doubtful one with the right status, however the bytes were cut.
 * Method: tables of heads.  Each head is parsed from an exact-size copy (a
 * sanitizer sees a byte too far) and then at every prefix: a prefix of a good
 * head must be MORE, of a bad one MORE until it is refused, once and for all.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "worker/worker_http.h"

static const struct worker_http_limits limits = {
    .request_line_bytes_max = 8192,
    .header_bytes_max = 16384,
    .headers_count_max = 100,
    .body_bytes_max = 1 << 20,
};

static struct worker_http_head head;

static enum worker_http_result
parse_copy(const char *text, size_t len, const struct worker_http_limits *lim,
    char **copy)
{
	*copy = malloc(len > 0 ? len : 1);
	assert_non_null(*copy);
	memcpy(*copy, text, len);
	return worker_http_parse(&head, *copy, len, lim);
}

static void
expect_slice(struct api_slice slice, const char *text)
{
	if (slice.len != strlen(text) ||
	    (slice.len > 0 && memcmp(slice.data, text, slice.len) != 0))
		fail_msg("got \"%.*s\", not \"%s\"", (int)slice.len, slice.data,
		    text);
}

/* ---- good heads */

struct good {
	const char *text;
	enum api_method method;
	const char *path, *query, *host;
	int minor; /* and the rest as in the head */
	bool keep_alive, expect_continue, asterisk;
	enum worker_http_framing framing;
	uint64_t length;
};

#define H "Host: a\r\n"
#define GET(target, path, query, host)                                        \
	{                                                                     \
		"GET " target " HTTP/1.1\r\n" H "\r\n", API_GET, path, query, \
		    host, 1, true, false, false, WORKER_HTTP_NO_BODY, 0       \
	}
#define METHOD(name, value)                                                    \
	{                                                                      \
		name " / HTTP/1.1\r\n" H "\r\n", value, "/", "", "a", 1, true, \
		    false, false, WORKER_HTTP_NO_BODY, 0                       \
	}
#define HOST(value)                                                            \
	{                                                                      \
		"GET / HTTP/1.1\r\nhOST: " value "\r\n\r\n", API_GET, "/", "", \
		    value, 1, true, false, false, WORKER_HTTP_NO_BODY, 0       \
	}
#define FIELDS(minor, fields, keep_alive)                                    \
	{                                                                    \
		"GET / HTTP/1." #minor "\r\n" H fields "\r\n", API_GET, "/", \
		    "", "a", minor, keep_alive, false, false,                \
		    WORKER_HTTP_NO_BODY, 0                                   \
	}
#define BODY(minor, fields, is_expect, framing, length)                      \
	{                                                                    \
		"PUT / HTTP/1." #minor "\r\n" H fields "\r\n", API_PUT, "/", \
		    "", "a", minor, minor == 1, is_expect, false, framing,   \
		    length                                                   \
	}

static const struct good goods[] = {
    METHOD("GET", API_GET),
    METHOD("HEAD", API_HEAD),
    METHOD("POST", API_POST),
    METHOD("PUT", API_PUT),
    METHOD("DELETE", API_DELETE),
    METHOD("OPTIONS", API_OPTIONS),
    METHOD("PATCH", API_METHOD_OTHER),
    METHOD("TRACE", API_METHOD_OTHER),
    GET("/books/1", "/books/1", "", "a"),
    GET("/?", "/", "", "a"),
    GET("/a?b=c?d/e", "/a", "b=c?d/e", "a"),
    GET("//x/..//", "//x/..//", "", "a"),
    GET("/%41%zz", "/%41%zz", "", "a"),
    GET("/-._~!$&'()*+,;=:@", "/-._~!$&'()*+,;=:@", "", "a"),
    GET("http://b", "/", "", "b"),
    GET("http://b/", "/", "", "b"),
    GET("HTTP://b:80/x?y", "/x", "y", "b:80"),
    GET("https://[::1]:8443/x", "/x", "", "[::1]:8443"),
    GET("http://b?y", "/", "y", "b"),
    HOST("example.org"),
    HOST("example.org:8080"),
    HOST("example.org:"),
    HOST("10.0.0.1:65535"),
    HOST("[2001:db8::1]"),
    HOST("[::ffff:10.0.0.1]:80"),
    HOST("under_score-and~tilde"),
    HOST("b%C3%BCcher"),
    FIELDS(1, "X:\r\n", true),
    FIELDS(1, "X:y\r\n", true),
    FIELDS(1, "X: \t y z \t \r\n", true),
    FIELDS(1, "X: caf\xc3\xa9 \xff\r\n", true),
    FIELDS(1, "!#$%&'*+-.^_`|~09aZ: y\r\n", true),
    FIELDS(1, "Connection: close\r\n", false),
    FIELDS(1, "Connection: CLOSE\r\n", false),
    FIELDS(1, "Connection: upgrade , close\r\nUpgrade: h2c\r\n", false),
    FIELDS(1, "Connection: keep-alive, close\r\n", false),
    FIELDS(1, "Connection: close\r\nConnection: keep-alive\r\n", false),
    FIELDS(1, "Connection: keep-alive\r\n", true),
    FIELDS(1, "Connection: closed, not-close\r\n", true),
    FIELDS(1, "Connection:\r\n", true),
    FIELDS(1, "Connections: close\r\nConnectioX: close\r\n", true),
    FIELDS(0, "", false),
    FIELDS(0, "Connection: Keep-Alive\r\n", true),
    FIELDS(0, "Connection: x,keep-alive\r\n", true),
    FIELDS(0, "Connection: keep-alive\r\nConnection: close\r\n", false),
    FIELDS(1, "Content-Length: 0\r\n", true),
    FIELDS(1, "Expect: 100-continue\r\n", true),
    {"GET / HTTP/1.0\r\n\r\n", API_GET, "/", "", "", 0, false, false, false,
	WORKER_HTTP_NO_BODY, 0},
    {"GET / HTTP/1.9\r\n" H "\r\n", API_GET, "/", "", "a", 1, true, false,
	false, WORKER_HTTP_NO_BODY, 0},
    {"\r\nGET / HTTP/1.1\r\n" H "\r\n", API_GET, "/", "", "a", 1, true, false,
	false, WORKER_HTTP_NO_BODY, 0},
    {"OPTIONS * HTTP/1.1\r\n" H "\r\n", API_OPTIONS, "*", "", "a", 1, true,
	false, true, WORKER_HTTP_NO_BODY, 0},
    {"CONNECT b:443 HTTP/1.1\r\n" H "\r\n", API_METHOD_OTHER, "/", "", "b:443",
	1, true, false, false, WORKER_HTTP_NO_BODY, 0},
    BODY(1, "Content-Length: 1\r\n", false, WORKER_HTTP_LENGTH, 1),
    BODY(1, "content-LENGTH:0042\r\n", false, WORKER_HTTP_LENGTH, 42),
    BODY(1, "Content-Length: 1048576\r\n", false, WORKER_HTTP_LENGTH, 1 << 20),
    BODY(0, "Content-Length: 5\r\n", false, WORKER_HTTP_LENGTH, 5),
    BODY(1, "Transfer-Encoding: chunked\r\n", false, WORKER_HTTP_CHUNKED, 0),
    BODY(1, "TRANSFER-encoding:\tChunKed\t\r\n", false, WORKER_HTTP_CHUNKED, 0),
    BODY(1, "Expect: 100-Continue\r\nContent-Length: 1\r\n", true,
	WORKER_HTTP_LENGTH, 1),
    BODY(1, "Transfer-Encoding: chunked\r\nExpect:100-continue\r\n", true,
	WORKER_HTTP_CHUNKED, 0),
    BODY(0, "Expect: 100-continue\r\nContent-Length: 1\r\n", false,
	WORKER_HTTP_LENGTH, 1),
};

static void
expect_head(const struct good *good)
{
	assert_int_equal(head.method, good->method);
	assert_int_equal(head.minor, good->minor);
	assert_int_equal(head.keep_alive, good->keep_alive);
	assert_int_equal(head.expect_continue, good->expect_continue);
	assert_int_equal(head.asterisk, good->asterisk);
	assert_int_equal(head.framing, good->framing);
	assert_int_equal(head.content_length, good->length);
	expect_slice(head.path, good->path);
	expect_slice(head.query, good->query);
	expect_slice(head.host, good->host);
}

static void
a_good_head_is_read_and_its_prefixes_are_more(void **state)
{
	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(goods); i++) {
		const struct good *good = &goods[i];
		size_t len = strlen(good->text);
		enum worker_http_result result;
		char *copy;

		for (size_t cut = 0; cut < len; cut++) {
			result = parse_copy(good->text, cut, &limits, &copy);
			free(copy);
			if (result != WORKER_HTTP_MORE)
				fail_msg("%d at byte %zu of: %s", result, cut,
				    good->text);
		}
		result = parse_copy(good->text, len, &limits, &copy);
		if (result != WORKER_HTTP_OK)
			fail_msg(
			    "%u %s: %s", head.status, head.detail, good->text);
		expect_head(good);
		assert_int_equal(head.bytes, len);
		free(copy);
	}
}

/* ---- bad heads */

struct bad {
	uint16_t status;
	const char *text;
	size_t len; /* 0: strlen */
};

#define LINE(status, line)                      \
	{                                       \
		status, line "\r\n" H "\r\n", 0 \
	}
#define FIELD(status, lines)                                         \
	{                                                            \
		status, "POST / HTTP/1.1\r\n" H lines "\r\n",        \
		    sizeof("POST / HTTP/1.1\r\n" H lines "\r\n") - 1 \
	}
#define BAD_HOST(value)                                            \
	{                                                          \
		400, "GET / HTTP/1.1\r\nHost:" value "\r\n\r\n", 0 \
	}

static const struct bad bads[] = {
    /* the request line */
    LINE(400, "GET  / HTTP/1.1"),
    LINE(400, "GET /  HTTP/1.1"),
    LINE(400, "GET\t/ HTTP/1.1"),
    LINE(400, "GET /\tHTTP/1.1"),
    LINE(400, " GET / HTTP/1.1"),
    LINE(400, "GET / HTTP/1.1 "),
    LINE(400, "GET /"),
    LINE(400, "GET / "),
    LINE(400, "GET"),
    LINE(400, "GET /a b HTTP/1.1"),
    LINE(400, "G(T / HTTP/1.1"),
    LINE(400, "G\xc3T / HTTP/1.1"),
    LINE(400, "\x16\x03\x01\x02"),
    LINE(501, "get / HTTP/1.1"),
    LINE(501, "BREW / HTTP/1.1"),
    LINE(501, "GETS / HTTP/1.1"),
    LINE(501, "CONNECTS a:1 HTTP/1.1"),
    LINE(501, "PRI * HTTP/2.0"),
    LINE(505, "GET / HTTP/2.0"),
    LINE(505, "GET / HTTP/0.9"),
    LINE(505, "GET / HTTP/3.1"),
    LINE(400, "GET / HTTP/2"),
    LINE(400, "GET / HTTP/1"),
    LINE(400, "GET / HTTP/1."),
    LINE(400, "GET / HTTP/1.1.1"),
    LINE(400, "GET / HTTP/1.10"),
    LINE(400, "GET / HTTP/11.1"),
    LINE(400, "GET / http/1.1"),
    LINE(400, "GET / HTTP/a.1"),
    LINE(400, "GET / HTTPS/1.1"),
    LINE(400, "GET / HTTP/+1.1"),
    {400, "GET / HTTP/1.1\n" H "\r\n", 0},
    {400, "GET / HTTP/1.1\r" H "\r\n", 0},
    {400, "GET /\n", 0},
    {400, "\nGET / HTTP/1.1\r\n" H "\r\n", 0},
    {400, "\rGET / HTTP/1.1\r\n" H "\r\n", 0},
    {400, "\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n", 0},
    {400, "\0GET / HTTP/1.1\r\n" H "\r\n", 20},
    /* the target */
    LINE(400, "GET books HTTP/1.1"),
    LINE(400, "GET * HTTP/1.1"),
    LINE(400, "OPTIONS ** HTTP/1.1"),
    LINE(400, "OPTIONS *?x HTTP/1.1"),
    LINE(400, "GET ?x HTTP/1.1"),
    LINE(400, "GET a:80 HTTP/1.1"),
    LINE(400, "GET ftp://a/ HTTP/1.1"),
    LINE(400, "GET http:/a HTTP/1.1"),
    LINE(400, "GET http:///a HTTP/1.1"),
    LINE(400, "GET http://u@a/ HTTP/1.1"),
    LINE(400, "GET http://u:p@a/ HTTP/1.1"),
    LINE(400, "GET http://a:b/ HTTP/1.1"),
    LINE(400, "GET http://a:65536/ HTTP/1.1"),
    LINE(400, "CONNECT / HTTP/1.1"),
    LINE(400, "CONNECT a HTTP/1.1"),
    LINE(400, "CONNECT a: HTTP/1.1"),
    LINE(400, "CONNECT http://a:1 HTTP/1.1"),
    LINE(400, "GET /#x HTTP/1.1"),
    LINE(400, "GET /?#x HTTP/1.1"),
    LINE(400, "GET /<x HTTP/1.1"),
    LINE(400, "GET /> HTTP/1.1"),
    LINE(400, "GET /\" HTTP/1.1"),
    LINE(400, "GET /{ HTTP/1.1"),
    LINE(400, "GET /} HTTP/1.1"),
    LINE(400, "GET /| HTTP/1.1"),
    LINE(400, "GET /\\ HTTP/1.1"),
    LINE(400, "GET /^ HTTP/1.1"),
    LINE(400, "GET /` HTTP/1.1"),
    LINE(400, "GET /?` HTTP/1.1"),
    LINE(400, "GET /caf\xc3\xa9 HTTP/1.1"),
    LINE(400, "GET /\x7f HTTP/1.1"),
    LINE(400, "GET /\x01 HTTP/1.1"),
    /* field syntax */
    FIELD(400, "X : y\r\n"),
    FIELD(400, "X\t: y\r\n"),
    FIELD(400, ": y\r\n"),
    FIELD(400, "X\r\n"),
    FIELD(400, "X y\r\n"),
    FIELD(400, "X(: y\r\n"),
    FIELD(400, "X\xe9: y\r\n"),
    FIELD(400, "X: y\r\n z\r\n"),
    FIELD(400, "X: y\r\n\tz\r\n"),
    FIELD(400, "X: y\n"),
    FIELD(400, "X: y\rz\r\n"),
    FIELD(400, "X: y\r\r\n"),
    FIELD(400, "X: y\0z\r\n"),
    FIELD(400, "X: y\x0bz\r\n"),
    FIELD(400, "X: 123456789\x1bz\r\n"),
    FIELD(400, "X: y\x7fz\r\n"),
    FIELD(400, "X: 123456789\x7f\r\n"),
    FIELD(400, "\n"),
    FIELD(400, "\rX: y\r\n"),
    {400, "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 0},
    {400, "GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", 0},
    {400, "GET / HTTP/1.1\r\n: a\r\n" H "\r\n", 0},
    {400, "GET / HTTP/1.1\r\n" H "\n", 0},
    {400, "GET / HTTP/1.1\r\n" H "\rX", 0},
    /* Host */
    {400, "GET / HTTP/1.1\r\n\r\n", 0},
    {400, "GET http://a/ HTTP/1.1\r\n\r\n", 0},
    {400, "GET / HTTP/1.1\r\nX-Host: a\r\n\r\n", 0},
    {400, "GET / HTTP/1.0\r\n" H H "\r\n", 0},
    {400, "GET http://a/ HTTP/1.1\r\n" H "Host: b c\r\n\r\n", 0},
    FIELD(400, "Host: a\r\n"),
    FIELD(400, "HOST: b\r\n"),
    BAD_HOST(""),
    BAD_HOST(" "),
    BAD_HOST("a b"),
    BAD_HOST("a,b"),
    BAD_HOST("a/b"),
    BAD_HOST("a@b"),
    BAD_HOST("http://a"),
    BAD_HOST(":80"),
    BAD_HOST("a:80:80"),
    BAD_HOST("a:http"),
    BAD_HOST("a:-1"),
    BAD_HOST("a:65536"),
    BAD_HOST("a:99999999999999999999"),
    BAD_HOST("::1"),
    BAD_HOST("[::1"),
    BAD_HOST("[]"),
    BAD_HOST("[::1]80"),
    BAD_HOST("[::g]"),
    BAD_HOST("a%"),
    BAD_HOST("a%2"),
    BAD_HOST("a%2x"),
    BAD_HOST("caf\xc3\xa9"),
    /* Content-Length */
    FIELD(400, "Content-Length:\r\n"),
    FIELD(400, "Content-Length: +1\r\n"),
    FIELD(400, "Content-Length: -1\r\n"),
    FIELD(400, "Content-Length: 0x1\r\n"),
    FIELD(400, "Content-Length: 1.0\r\n"),
    FIELD(400, "Content-Length: 1 1\r\n"),
    FIELD(400, "Content-Length: 1, 1\r\n"),
    FIELD(400, "Content-Length: 1,\r\n"),
    FIELD(400, "Content-Length: \xb2\r\n"),
    FIELD(400, "Content-Length: 1\r\nContent-Length: 1\r\n"),
    FIELD(400, "Content-Length: 1\r\ncontent-length: 2\r\n"),
    FIELD(400, "Content-Length: 9223372036854775808\r\n"),
    FIELD(400, "Content-Length: 18446744073709551616\r\n"),
    FIELD(400, "Content-Length: 99999999999999999999999999\r\n"),
    FIELD(413, "Content-Length: 9223372036854775807\r\n"),
    FIELD(413, "Content-Length: 1048577\r\n"),
    FIELD(400, "Content-Length: 1048577\r\nX : y\r\n"),
    /* Transfer-Encoding */
    FIELD(400, "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n"),
    FIELD(400, "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
    FIELD(400, "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
    FIELD(400, "Content-Length: 1\r\nTransfer-Encoding: gzip\r\n"),
    FIELD(400, "Transfer-Encoding: chunked, chunked\r\n"),
    FIELD(400, "Transfer-Encoding: chunked, gzip\r\n"),
    FIELD(400, "Transfer-Encoding: chunked;q=1\r\n"),
    FIELD(400, "Transfer-Encoding: chunked,\r\n"),
    FIELD(400, "Transfer-Encoding: ,chunked\r\n"),
    FIELD(400, "Transfer-Encoding:\r\n"),
    FIELD(400, "Transfer-Encoding: \"chunked\"\r\n"),
    FIELD(400, "Transfer-Encoding: gzip@\r\n"),
    FIELD(400, "Transfer-Encoding: \x0b"
	       "chunked\r\n"),
    FIELD(400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
    FIELD(400, "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"),
    FIELD(501, "Transfer-Encoding: gzip, chunked\r\n"),
    FIELD(501, "Transfer-Encoding: gzip\r\n"),
    FIELD(501, "Transfer-Encoding: identity\r\n"),
    FIELD(501, "Transfer-Encoding: xchunked\r\n"),
    FIELD(501, "Transfer-Encoding: chunkedx\r\n"),
    FIELD(501, "Transfer-Encoding: x;y=z\r\n"),
    {400, "PUT / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n", 0},
    {400, "PUT / HTTP/1.0\r\n" H "Transfer-Encoding: gzip\r\n\r\n", 0},
    /* Expect */
    FIELD(417, "Expect: 200-ok\r\n"),
    FIELD(417, "Expect: 100-continue, x\r\n"),
    FIELD(417, "Expect:\r\n"),
    FIELD(417, "Expect: 100-continue\r\nExpect: x\r\n"),
    FIELD(400, "Expect: x\r\nX : y\r\n"),
};

static void
a_bad_head_is_refused_and_stays_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(bads); i++) {
		const struct bad *bad = &bads[i];
		size_t len = bad->len > 0 ? bad->len : strlen(bad->text);
		enum worker_http_result result = WORKER_HTTP_MORE, before;
		char *copy;

		for (size_t cut = 0; cut <= len; cut++) {
			before = result;
			result = parse_copy(bad->text, cut, &limits, &copy);
			free(copy);
			if (result == WORKER_HTTP_OK ||
			    (before != WORKER_HTTP_MORE && result != before))
				fail_msg("%d at byte %zu of: %s", result, cut,
				    bad->text);
			if (result == WORKER_HTTP_REJECT &&
			    head.status != bad->status)
				fail_msg("%u at byte %zu, not %u, for: %s",
				    head.status, cut, bad->status, bad->text);
		}
		if (result != WORKER_HTTP_REJECT || head.detail == NULL)
			fail_msg("%d, not %u, for: %s", result, bad->status,
			    bad->text);
	}
}

/* At which byte a syntax error is seen: nothing behind it is waited for. */
static void
a_wrong_byte_is_refused_where_it_stands(void **state)
{
	static const struct {
		const char *upto;
	} cases[] = {
	    {"\n"},
	    {"G\x01"},
	    {"GET  "},
	    {"GET /\x80"},
	    {"GET / HTTP/1.1\n"},
	    {"GET / HTTP/1.1\r\n "},
	    {"GET / HTTP/1.1\r\nX "},
	    {"GET / HTTP/1.1\r\nX: a\n"},
	    {"GET / HTTP/1.1\r\nX: a\x02"},
	    {"GET / HTTP/1.1\r\nX: a\r\n\t"},
	};
	char *copy;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++) {
		size_t len = strlen(cases[i].upto);

		assert_int_equal(WORKER_HTTP_MORE,
		    parse_copy(cases[i].upto, len - 1, &limits, &copy));
		free(copy);
		assert_int_equal(WORKER_HTTP_REJECT,
		    parse_copy(cases[i].upto, len, &limits, &copy));
		assert_int_equal(head.status, 400);
		free(copy);
	}
}

static void
a_refused_head_tells_its_method_once_it_is_read(void **state)
{
	static const struct {
		const char *text, *method_text;
		enum api_method method;
	} cases[] = {
	    {"HEAD / HTTP/1.1\r\n\r\n", "HEAD", API_HEAD},
	    {"HEAD /\n", "HEAD", API_HEAD},
	    {"BREW / ", "BREW", API_METHOD_OTHER},
	    {"HEAD\n", "", API_GET},
	};
	char *copy;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++) {
		assert_int_equal(WORKER_HTTP_REJECT,
		    parse_copy(
			cases[i].text, strlen(cases[i].text), &limits, &copy));
		expect_slice(head.method_text, cases[i].method_text);
		assert_int_equal(head.method, cases[i].method);
		free(copy);
	}
}

/* Every byte in every place where bytes are classified. */
static void
each_of_the_256_bytes_is_allowed_only_where_the_grammar_says(void **state)
{
	static const char tchars[] = "!#$%&'*+-.^_`|~";
	static const char not_in_target[] = "\"<>{}|\\^`#";
	char text[64], *copy;

	(void)state;
	for (int byte = 0; byte < 256; byte++) {
		bool is_alnum = (byte >= '0' && byte <= '9') ||
				(byte >= 'a' && byte <= 'z') ||
				(byte >= 'A' && byte <= 'Z');
		bool in_name =
		    is_alnum || (byte != 0 && strchr(tchars, byte) != NULL);
		bool in_target = byte > 0x20 && byte < 0x7f &&
				 strchr(not_in_target, byte) == NULL;
		bool in_value = byte == '\t' || (byte >= 0x20 && byte != 0x7f);
		size_t len;

		len = (size_t)snprintf(
		    text, sizeof(text), "GET /?%c HTTP/1.1\r\n" H "\r\n", byte);
		assert_int_equal(parse_copy(text, len, &limits, &copy),
		    in_target ? WORKER_HTTP_OK : WORKER_HTTP_REJECT);
		free(copy);
		len = (size_t)snprintf(text, sizeof(text),
		    "GET / HTTP/1.1\r\n" H "a%cb: c\r\n\r\n", byte);
		if (byte == ':')
			in_name = true;
		assert_int_equal(parse_copy(text, len, &limits, &copy),
		    in_name ? WORKER_HTTP_OK : WORKER_HTTP_REJECT);
		free(copy);
		for (int pad = 0; pad < 10; pad++) {
			len = (size_t)snprintf(text, sizeof(text),
			    "GET / HTTP/1.1\r\n" H "a: %.*s%cbbbbbbbb\r\n\r\n",
			    pad, "cccccccccc", byte);
			assert_int_equal(parse_copy(text, len, &limits, &copy),
			    in_value ? WORKER_HTTP_OK : WORKER_HTTP_REJECT);
			free(copy);
		}
	}
}

/* ---- limits */

static void
a_limit_is_reached_without_harm_and_passed_with_its_status(void **state)
{
	static const char text[] = "GET /12345 HTTP/1.1\r\n"  /* 21 bytes */
				   "Host: a\r\nX: 1\r\n\r\n"; /* 17 bytes */
	static const struct {
		uint32_t line, header, count;
		uint16_t status;
		size_t at; /* refused with this many bytes */
	} cases[] = {
	    {21, 17, 2, 0, 0},
	    {20, 17, 2, 414, 21},
	    {3, 17, 2, 414, 4},
	    {0, 17, 2, 414, 1},
	    {21, 16, 2, 431, 38},
	    {21, 8, 2, 431, 30},
	    {21, 0, 2, 431, 22},
	    {21, 17, 1, 431, 31},
	    {21, 17, 0, 431, 22},
	};
	char *copy;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++) {
		const struct worker_http_limits lim = {
		    cases[i].line, cases[i].header, cases[i].count, 0};
		size_t at = cases[i].at > 0 ? cases[i].at : sizeof(text) - 1;

		assert_int_equal(
		    WORKER_HTTP_MORE, parse_copy(text, at - 1, &lim, &copy));
		free(copy);
		assert_int_equal(parse_copy(text, at, &lim, &copy),
		    cases[i].status > 0 ? WORKER_HTTP_REJECT : WORKER_HTTP_OK);
		assert_int_equal(head.status, cases[i].status);
		free(copy);
	}
}

static void
a_hundred_fields_are_kept_and_one_more_is_431(void **state)
{
	char text[4096], *copy;
	size_t len;

	(void)state;
	len = (size_t)sprintf(text, "GET / HTTP/1.1\r\n" H);
	for (int i = 1; i < 100; i++)
		len += (size_t)sprintf(text + len, "X%d: %d\r\n", i, i);
	memcpy(text + len, "\r\n", 2);
	assert_int_equal(
	    WORKER_HTTP_OK, parse_copy(text, len + 2, &limits, &copy));
	assert_int_equal(head.fields_count, 100);
	expect_slice(head.field[99].name, "X99");
	expect_slice(head.field[99].value, "99");
	free(copy);
	memcpy(text + len, "X", 1);
	assert_int_equal(
	    WORKER_HTTP_REJECT, parse_copy(text, len + 1, &limits, &copy));
	assert_int_equal(head.status, 431);
	free(copy);
}

/* ---- looking fields up */

static void
bytes_behind_the_head_are_not_looked_at(void **state)
{
	static const char text[] = "GET / HTTP/1.1\r\n" H "\r\n\n\x01 GET";
	char *copy;

	(void)state;
	assert_int_equal(
	    WORKER_HTTP_OK, parse_copy(text, sizeof(text) - 1, &limits, &copy));
	assert_int_equal(head.bytes, 16 + 9 + 2);
	free(copy);
}

static void
fields_are_found_by_name_and_their_values_joined(void **state)
{
	static const char text[] =
	    "GET / HTTP/1.1\r\n" H "Accept: a\r\nX: y\r\nACCEPT:\r\n"
	    "accept:  bc \r\n\r\n";
	char scratch[8], *copy;
	const struct worker_http_field *field;
	struct api_slice values;

	(void)state;
	assert_int_equal(
	    WORKER_HTTP_OK, parse_copy(text, sizeof(text) - 1, &limits, &copy));
	field = worker_http_field(&head, "accept");
	assert_non_null(field);
	expect_slice(field->name, "Accept");
	expect_slice(field->value, "a");
	assert_null(worker_http_field(&head, "accep"));
	assert_null(worker_http_field(&head, "accept-language"));
	values = worker_http_values(&head, "x", NULL, 0);
	assert_ptr_equal(
	    values.data, worker_http_field(&head, "x")->value.data);
	values = worker_http_values(&head, "accept", scratch, 7);
	expect_slice(values, "a, , bc");
	values = worker_http_values(&head, "accept", scratch, 6);
	expect_slice(values, "a, ");
	values = worker_http_values(&head, "accept", NULL, 0);
	expect_slice(values, "a");
	assert_null(worker_http_values(&head, "cookie", scratch, 8).data);
	free(copy);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_good_head_is_read_and_its_prefixes_are_more),
	    cmocka_unit_test(a_bad_head_is_refused_and_stays_refused),
	    cmocka_unit_test(a_wrong_byte_is_refused_where_it_stands),
	    cmocka_unit_test(a_refused_head_tells_its_method_once_it_is_read),
	    cmocka_unit_test(
		each_of_the_256_bytes_is_allowed_only_where_the_grammar_says),
	    cmocka_unit_test(
		a_limit_is_reached_without_harm_and_passed_with_its_status),
	    cmocka_unit_test(a_hundred_fields_are_kept_and_one_more_is_431),
	    cmocka_unit_test(bytes_behind_the_head_are_not_looked_at),
	    cmocka_unit_test(fields_are_found_by_name_and_their_values_joined),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
