#!/usr/bin/env python3
"""Goal: booksd speaks HTTP/1.1 strictly on a real socket, the same on every
back end: each request has the answer it must have, the connection is kept or
closed as it must be, and nothing behind a doubtful request is interpreted.
Method: tables of raw bytes and of the answers that must come back, sent whole,
cut at every byte and in random pieces; then what needs a conversation: bodies
that are asked for, half-closed and lingering connections, clients that stall.
No database: what would need one is answered 503 and is a request all the same.
"""
import random
import re
import threading
import time
from typing import NamedTuple

import booksd_test as t

H = b"Host: a\r\n"
GREETING = b"Hello."
PART = b'{"isbn":"1","title":"T"}'
PART_ERRORS = {"isbn": "The ISBN format must be valid.",
               "author": "The book author must be defined.",
               "price": "The book price must be defined."}
JSON = b"Content-Type: application/json\r\n"
# What must never be answered when it stands behind a doubtful request.
SMUGGLED = b"GET /livez HTTP/1.1\r\nHost: smuggled\r\n\r\n"
LINE_MAX, HEADER_MAX, FIELDS_MAX, BODY_MAX = 8192, 16384, 100, 1 << 20
LINGER_BYTES = 4 << 20
DATE = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} (Jan|Feb|Mar|Apr|"
                  r"May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} "
                  r"[0-9]{2}:[0-9]{2}:[0-9]{2} GMT\Z")


class Case(NamedTuple):
    name: str
    data: bytes
    statuses: tuple       # of the answers, in order
    kept: bool            # is the connection kept after them?
    methods: tuple = ()   # of the answers, when one is HEAD
    fields: dict = {}     # of the last answer; None: absent
    body: object = None   # of the last answer; a dict: as JSON


def get(line=b"GET / HTTP/1.1", fields=b"", host=H):
    return line + b"\r\n" + host + fields + b"\r\n"


def put_body(fields, body=b"", line=b"POST /books HTTP/1.1"):
    return line + b"\r\n" + H + JSON + fields + b"\r\n" + body


def chunked(*chunks, trailers=b""):
    return b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in chunks) \
        + b"0\r\n" + trailers + b"\r\n"


def kept(name, data, *statuses, **more):
    return Case(name, data, statuses or (200,), True, **more)


def closed(name, data, *statuses, **more):
    return Case(name, data, statuses or (200,), False, **more)


def refused(status, what, data):
    """One answer, and the request behind it is not seen."""
    return Case(f"{status} for {what}", data + SMUGGLED, (status,), False)


def bad_line(what, line, status=400):
    return refused(status, what, get(line))


def bad_field(what, lines, status=400):
    return refused(status, what, get(fields=lines))


def bad_host(what, lines):
    return refused(400, what, get(host=lines))


def bad_body_field(what, lines, status=400):
    return refused(status, what, put_body(lines, b"0\r\n\r\n"))


CODED = b"Transfer-Encoding: chunked\r\n"


def bad_chunk(what, body):
    return refused(400, what, put_body(CODED, body))


ACCEPTED = [
    kept("GET / is the greeting", get(), body=GREETING,
         fields={"content-type": "text/plain; charset=UTF-8"}),
    kept("HEAD has the length and no body", get(b"HEAD / HTTP/1.1"),
         methods=("HEAD",), fields={"content-length": str(len(GREETING))}),
    kept("HEAD of a missing page has no body", get(b"HEAD /no HTTP/1.1"), 404,
         methods=("HEAD",)),
    kept("OPTIONS * is answered", get(b"OPTIONS * HTTP/1.1")),
    kept("OPTIONS of a path names its methods", get(b"OPTIONS /books HTTP/1.1"),
         fields={"allow": "GET, HEAD, POST, OPTIONS"}),
    kept("an empty line before the request is skipped", b"\r\n" + get()),
    kept("a query is no part of the path", get(b"GET /?a=b&c HTTP/1.1"),
         body=GREETING),
    kept("an unknown path is 404", get(b"GET /nowhere HTTP/1.1"), 404),
    kept("a bad escape in the path is the api's 400",
         get(b"GET /books/%zz HTTP/1.1"), 400),
    kept("absolute-form is taken", get(b"GET http://b/livez HTTP/1.1")),
    kept("absolute-form takes https, any case and a port",
         get(b"GET HttpS://b:8443/livez HTTP/1.1")),
    kept("absolute-form without a path is /", get(b"GET http://b HTTP/1.1"),
         body=GREETING),
    kept("absolute-form with a query only is /",
         get(b"GET http://[::1]:80?x HTTP/1.1"), body=GREETING),
    kept("HTTP/1.9 is spoken to as 1.1", get(b"GET / HTTP/1.9")),
    closed("Connection: close closes", get(fields=b"Connection: close\r\n")),
    closed("Connection: close is found in a list of any case",
           get(fields=b"Connection: te , CLOSE\r\n")),
    closed("close wins over keep-alive",
           get(fields=b"Connection: close\r\nConnection: keep-alive\r\n")),
    kept("Connection: keep-alive keeps",
         get(fields=b"Connection: keep-alive\r\n")),
    kept("an unknown connection option means nothing",
         get(fields=b"Connection: closed\r\n")),
    kept("Upgrade is ignored",
         get(fields=b"Connection: Upgrade\r\nUpgrade: websocket\r\n")),
    kept("an h2c upgrade is ignored", get(
        fields=b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
               b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n")),
    closed("HTTP/1.0 closes", b"GET / HTTP/1.0\r\n\r\n", body=GREETING),
    closed("HTTP/1.0 with a Host closes", get(b"GET / HTTP/1.0")),
    kept("HTTP/1.0 with keep-alive is kept and told so",
         get(b"GET / HTTP/1.0", b"Connection: Keep-Alive\r\n"),
         fields={"connection": "keep-alive"}),
    closed("HTTP/1.0 HEAD has no body", b"HEAD / HTTP/1.0\r\n\r\n",
           methods=("HEAD",)),
    closed("HTTP/1.0 ignores Expect", b"POST /books HTTP/1.0\r\n" + JSON +
           b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}", 400),
    kept("obs-text in a value is let through",
         get(fields=b"X: \xc3\xa9\xff\r\n")),
    kept("tabs and spaces around a value mean nothing",
         get(fields=b"X: \t y\tz \t \r\nY:\r\n")),
    kept("every token byte is let through in a name",
         get(fields=b"!#$%&'*+-.^_`|~09aZ: y\r\n")),
    kept("a Host with a port", get(host=b"Host: a.example:8080\r\n")),
    kept("a Host with an IPv6 address", get(host=b"hOsT: [::1]:8080\r\n")),
    kept("PATCH of a known path is 405 with Allow",
         get(b"PATCH /books/1 HTTP/1.1"), 405,
         fields={"allow": "GET, HEAD, PUT, DELETE, OPTIONS"}),
    kept("DELETE of / is 405 with Allow", get(b"DELETE / HTTP/1.1"), 405,
         fields={"allow": "GET, HEAD, OPTIONS"}),
    kept("TRACE is 405", get(b"TRACE / HTTP/1.1"), 405),
    kept("CONNECT is 405", get(b"CONNECT b:443 HTTP/1.1"), 405),
    kept("a GET with a body has it read",
         get(fields=b"Content-Length: 5\r\n") + b"hello"),
    kept("a GET with a chunked body has it read",
         get(fields=CODED) + chunked(b"hello")),
    kept("a body that looks like a request is a body",
         put_body(b"Content-Length: %d\r\n" % len(SMUGGLED), SMUGGLED), 400),
    kept("Content-Length: 0 is no body", put_body(b"Content-Length: 0\r\n"),
         400),
    kept("a POST without a length has no body", put_body(b""), 400),
    kept("leading zeros of a length are digits",
         put_body(b"Content-Length: 0002\r\n", b"{}"), 400),
    kept("a body refused by its type is read and thrown away",
         b"POST /books HTTP/1.1\r\n" + H + b"Content-Type: text/plain\r\n"
         b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED, 415),
    kept("a body sent to nowhere is read and thrown away",
         put_body(CODED, chunked(SMUGGLED, b"x"),
                  b"POST /nowhere HTTP/1.1"), 404),
    kept("a body with a method that is not allowed is thrown away",
         put_body(b"Content-Length: 3\r\n", b"abc", b"DELETE / HTTP/1.1"),
         405),
    kept("chunks of any case, extensions and trailers",
         put_body(CODED, b"00A;x;y=z;q=\"\\\"\"\r\n" + PART[:10] +
                  b"\r\n%X ; e\r\n" % len(PART[10:]) + PART[10:] +
                  b"\r\n0;last\r\nX-Sum: 1\r\nY:\r\n\r\n"), 400,
         body=PART_ERRORS),
    kept("trailers change nothing", put_body(
        CODED, chunked(b"{}", trailers=b"Content-Length: 99\r\n"
                       b"Transfer-Encoding: x\r\nHost: b\r\n")), 400),
    kept("a chunked body without bytes",
         put_body(b"transfer-ENCODING:\tCHUNKED \r\n", chunked()), 400),
    kept("a request line of the greatest length",
         get(b"GET /?" + b"a" * (LINE_MAX - 17) + b" HTTP/1.1")),
    kept("header fields of the greatest length",
         get(fields=b"X: " + b"a" * (HEADER_MAX - len(H) - 7) + b"\r\n")),
    kept("header fields of the greatest number",
         get(fields=b"X: y\r\n" * (FIELDS_MAX - 1))),
    kept("a body of the greatest length",
         put_body(b"Content-Length: %d\r\n" % BODY_MAX, b" " * BODY_MAX), 400),
    kept("a chunked body of the greatest length",
         put_body(CODED, chunked(b" " * (BODY_MAX - 1), b" ")), 400),
    kept("two requests in one piece", get() + get(b"GET /livez HTTP/1.1"),
         200, 200),
    kept("a request behind a chunked body",
         put_body(CODED, chunked(b"{}")) + get(), 400, 200, body=GREETING),
    kept("an empty line between requests", get() + b"\r\n" + get(), 200, 200),
    kept("answers in the order of the requests",
         get() + get(b"HEAD / HTTP/1.1") + get(b"GET /no HTTP/1.1") +
         put_body(b"Content-Length: 2\r\n", b"{}") +
         get(b"PATCH / HTTP/1.1") + get(b"OPTIONS * HTTP/1.1") + get(),
         200, 200, 404, 400, 405, 200, 200,
         methods=("GET", "HEAD", "GET", "POST", "PATCH", "OPTIONS", "GET"),
         body=GREETING),
    closed("nothing behind Connection: close is interpreted",
           get() + get(fields=b"Connection: close\r\n") + SMUGGLED, 200, 200),
    closed("nothing behind an HTTP/1.0 request is interpreted",
           b"GET / HTTP/1.0\r\n\r\n" + SMUGGLED, 200),
    closed("good requests before a bad one are answered",
           get() + get() + get(b"GET  / HTTP/1.1") + SMUGGLED, 200, 200, 400),
]

REFUSED = [
    # the request line
    bad_line("two spaces before the target", b"GET  / HTTP/1.1"),
    bad_line("two spaces before the version", b"GET /  HTTP/1.1"),
    bad_line("a tab before the target", b"GET\t/ HTTP/1.1"),
    bad_line("a space at the end of the line", b"GET / HTTP/1.1 "),
    bad_line("a space before the method", b" GET / HTTP/1.1"),
    bad_line("a space in the target", b"GET /a b HTTP/1.1"),
    bad_line("a request of HTTP/0.9", b"GET /"),
    bad_line("a line of one word", b"GET"),
    bad_line("a method that is no token", b"G@T / HTTP/1.1"),
    bad_line("a method with a byte over 127", b"G\xc9T / HTTP/1.1"),
    bad_line("a lower-case method", b"get / HTTP/1.1", 501),
    bad_line("an unknown method", b"BREW /pot HTTP/1.1", 501),
    bad_line("a version 2.0", b"GET / HTTP/2.0", 505),
    bad_line("a version 0.9", b"GET / HTTP/0.9", 505),
    bad_line("a version of one digit", b"GET / HTTP/1"),
    bad_line("a version of three digits", b"GET / HTTP/1.10"),
    bad_line("a lower-case version", b"GET / http/1.1"),
    bad_line("another protocol", b"GET / ICAP/1.1"),
    refused(501, "the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    refused(400, "a TLS hello",
            b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03"),
    refused(400, "a bare LF behind the request line",
            b"GET / HTTP/1.1\n" + H + b"\r\n"),
    refused(400, "a bare CR behind the request line",
            b"GET / HTTP/1.1\r" + H + b"\r\n"),
    refused(400, "two empty lines before the request", b"\r\n\r\n" + get()),
    refused(400, "an empty line with a bare LF before the request",
            b"\n" + get()),
    refused(400, "a NUL before the request", b"\0" + get()),
    # the target
    bad_line("a target without a slash", b"GET books HTTP/1.1"),
    bad_line("an asterisk with GET", b"GET * HTTP/1.1"),
    bad_line("a fragment", b"GET /#a HTTP/1.1"),
    bad_line("a backslash", b"GET /a\\b HTTP/1.1"),
    bad_line("a quote", b"GET /\" HTTP/1.1"),
    bad_line("an angle bracket", b"GET /<b> HTTP/1.1"),
    bad_line("a brace", b"GET /{isbn} HTTP/1.1"),
    bad_line("a bar in a query", b"GET /?a|b HTTP/1.1"),
    bad_line("a byte over 127 in the target", b"GET /\xc3\xa9 HTTP/1.1"),
    bad_line("a NUL in the target", b"GET /\0 HTTP/1.1"),
    bad_line("DEL in the target", b"GET /\x7f HTTP/1.1"),
    bad_line("a scheme that is not http", b"GET ftp://a/ HTTP/1.1"),
    bad_line("a URI without a host", b"GET http:///a HTTP/1.1"),
    bad_line("a URI with a user", b"GET http://u@a/ HTTP/1.1"),
    bad_line("a URI with a bad port", b"GET http://a:x/ HTTP/1.1"),
    bad_line("CONNECT without a port", b"CONNECT a HTTP/1.1"),
    # field lines
    bad_field("a space before a colon", b"X : y\r\n"),
    bad_field("a tab before a colon", b"X\t: y\r\n"),
    bad_field("a line without a colon", b"X y\r\n"),
    bad_field("an empty name", b": y\r\n"),
    bad_field("a name that is no token", b"X(y): z\r\n"),
    bad_field("a name with a byte over 127", b"X\xe9: y\r\n"),
    bad_field("a folded line", b"X: y\r\n z\r\n"),
    bad_field("a line folded by a tab", b"X: y\r\n\tz\r\n"),
    bad_field("a bare LF in a field line", b"X: y\nZ: z\r\n"),
    bad_field("a bare CR in a value", b"X: y\rz\r\n"),
    bad_field("a CR before CR LF", b"X: y\r\r\n"),
    bad_field("a NUL in a value", b"X: y\0z\r\n"),
    bad_field("a control byte in a value", b"X: y\x1bz\r\n"),
    bad_field("DEL in a value", b"X: y\x7fz\r\n"),
    bad_host("white space before the first field", b" Host: a\r\n"),
    refused(400, "a bare LF as the empty line",
            b"GET / HTTP/1.1\r\n" + H + b"\n"),
    # Host
    bad_host("no Host", b""),
    bad_host("two Hosts", H + H),
    bad_host("two Hosts in other letters", H + b"hOST: b\r\n"),
    bad_host("an empty Host", b"Host:\r\n"),
    bad_host("a Host list", b"Host: a, b\r\n"),
    bad_host("a Host with a path", b"Host: a/b\r\n"),
    bad_host("a Host with a user", b"Host: u@a\r\n"),
    bad_host("a Host with a bad port", b"Host: a:8o\r\n"),
    bad_host("an open bracket in Host", b"Host: [::1\r\n"),
    refused(400, "two Hosts in HTTP/1.0", get(b"GET / HTTP/1.0", H)),
    refused(400, "absolute-form without Host",
            get(b"GET http://a/ HTTP/1.1", host=b"")),
    # Content-Length and Transfer-Encoding
    bad_body_field("two equal lengths",
                   b"Content-Length: 5\r\nContent-Length: 5\r\n"),
    bad_body_field("two different lengths",
                   b"Content-Length: 5\r\nContent-Length: 6\r\n"),
    bad_body_field("a list of lengths", b"Content-Length: 5, 5\r\n"),
    bad_body_field("a length with a plus", b"Content-Length: +5\r\n"),
    bad_body_field("a negative length", b"Content-Length: -5\r\n"),
    bad_body_field("a hexadecimal length", b"Content-Length: 0x5\r\n"),
    bad_body_field("an empty length", b"Content-Length:\r\n"),
    bad_body_field("a length with a space", b"Content-Length: 5 5\r\n"),
    bad_body_field("a length over 2^63",
                   b"Content-Length: 9223372036854775808\r\n"),
    bad_body_field("a length over 2^64",
                   b"Content-Length: 18446744073709551621\r\n"),
    bad_body_field("a length and a coding", b"Content-Length: 5\r\n" + CODED),
    bad_body_field("a coding and a length", CODED + b"Content-Length: 5\r\n"),
    bad_body_field("two codings", CODED + CODED),
    bad_body_field("chunked twice",
                   b"Transfer-Encoding: chunked, chunked\r\n"),
    bad_body_field("chunked not last", b"Transfer-Encoding: chunked, gzip\r\n"),
    bad_body_field("an empty coding", b"Transfer-Encoding:\r\n"),
    bad_body_field("a quoted coding", b"Transfer-Encoding: \"chunked\"\r\n"),
    bad_body_field("a vertical tab before chunked",
                   b"Transfer-Encoding: \x0bchunked\r\n"),
    bad_body_field("an unknown coding", b"Transfer-Encoding: gzip, chunked\r\n",
                   501),
    bad_body_field("identity", b"Transfer-Encoding: identity\r\n", 501),
    bad_body_field("xchunked", b"Transfer-Encoding: xchunked\r\n", 501),
    bad_body_field("a space before the coding's colon",
                   b"Transfer-Encoding : chunked\r\n"),
    refused(400, "chunked in HTTP/1.0",
            put_body(CODED, chunked(), b"POST /books HTTP/1.0")),
    bad_body_field("an expectation that is not 100-continue",
                   b"Expect: x\r\nContent-Length: 5\r\n", 417),
    bad_body_field("a length over the limit",
                   b"Content-Length: %d\r\n" % (BODY_MAX + 1), 413),
    # chunks
    bad_chunk("a chunk size without digits", b"\r\n0\r\n\r\n"),
    bad_chunk("a chunk size of letters", b"xyz\r\n"),
    bad_chunk("a chunk size with 0x", b"0x2\r\n{}\r\n0\r\n\r\n"),
    bad_chunk("a chunk size with a minus", b"-2\r\n{}\r\n0\r\n\r\n"),
    bad_chunk("a chunk size with a space behind it",
              b"2 \r\n{}\r\n0\r\n\r\n"),
    bad_chunk("a chunk size over 2^60", b"1000000000000001\r\n"),
    bad_chunk("a chunk size of 17 digits", b"00000000000000002\r\n{}\r\n"),
    bad_chunk("a bare LF behind a chunk size", b"2\n{}\r\n0\r\n\r\n"),
    bad_chunk("a bare LF behind an extension", b"2;a\n{}\r\n0\r\n\r\n"),
    bad_chunk("an extension without a name", b"2;\r\n{}\r\n0\r\n\r\n"),
    bad_chunk("a chunk that is too long", b"2\r\n{}}\r\n0\r\n\r\n"),
    bad_chunk("a chunk that is too short", b"4\r\n{}\r\n0\r\n\r\n"),
    bad_chunk("a bare LF behind a chunk", b"2\r\n{}\n0\r\n\r\n"),
    bad_chunk("a size line that is too long",
              b"2;" + b"a" * 2000 + b"\r\n{}\r\n0\r\n\r\n"),
    bad_chunk("a trailer with a space before its colon",
              b"0\r\nX : y\r\n\r\n"),
    bad_chunk("a folded trailer", b"0\r\nX: y\r\n z\r\n\r\n"),
    bad_chunk("a request in the place of a trailer",
              b"0\r\nGET / HTTP/1.1\r\n\r\n"),
    bad_chunk("trailers that are too long",
              b"0\r\nX: " + b"a" * 9000 + b"\r\n\r\n"),
    bad_chunk("a bare LF at the end of the body", b"0\r\n\n"),
    refused(413, "chunks over the limit",
            put_body(CODED, b"%x\r\n" % (BODY_MAX + 1) +
                     b" " * (BODY_MAX + 1))),
    refused(413, "a body to throw away over the limit",
            put_body(CODED, chunked(b" " * (BODY_MAX + 1)),
                     b"POST /nowhere HTTP/1.1")),
    # limits
    refused(414, "a request line one byte too long",
            get(b"GET /?" + b"a" * (LINE_MAX - 16) + b" HTTP/1.1")),
    refused(414, "a request line without an end", b"GET /" + b"a" * LINE_MAX),
    refused(414, "a method without an end", b"A" * (LINE_MAX + 1)),
    refused(431, "header fields one byte too long", get(
        fields=b"X: " + b"a" * (HEADER_MAX - len(H) - 6) + b"\r\n")),
    refused(431, "a field without an end",
            b"GET / HTTP/1.1\r\n" + H + b"X: " + b"a" * HEADER_MAX),
    refused(431, "one field too many",
            get(fields=b"X: y\r\n" * FIELDS_MAX)),
]


def method_of(case, index):
    return case.methods[index] if case.methods else "GET"


def expect_sound(answer, method):
    """What every answer must have."""
    t.equal(answer.version, "HTTP/1.1", "version")
    t.equal(answer.header("server"), "booksd", "Server")
    date = answer.header("date")
    t.check(date and DATE.match(date), f"Date: {date!r}")
    if answer.status != 204 and method != "HEAD":
        t.equal(answer.header("content-length"), str(len(answer.body)),
                "Content-Length")


def expect_answers(client, case):
    answers = []
    for index, status in enumerate(case.statuses):
        method = method_of(case, index)
        answer = client.read_response(method)
        t.equal(answer.status, status, f"status {index + 1}")
        expect_sound(answer, method)
        answers.append(answer)
    for name, value in case.fields.items():
        t.equal(answers[-1].header(name), value, name)
    if isinstance(case.body, dict):
        t.equal(answers[-1].json(), case.body, "body")
    elif case.body is not None:
        t.equal(answers[-1].body, case.body, "body")
    return answers


def expect_kept(client):
    """It still answers the next request, and only that."""
    client.send(get(b"GET /livez HTTP/1.1", b"Connection: close\r\n"))
    answer = client.read_response()
    t.equal((answer.status, answer.body), (200, b"alive"), "the next answer")
    t.equal(client.read_eof(), b"", "behind the next answer")


def expect_closed(client, last):
    t.equal(last.header("connection"), "close", "Connection")
    t.equal(client.read_eof(), b"", "behind the last answer")


def run_case(server, case):
    with server.raw() as client:
        client.send(case.data)
        answers = expect_answers(client, case)
        if case.kept:
            expect_kept(client)
        else:
            expect_closed(client, answers[-1])


def test_table(server, backend):
    for one in ACCEPTED + REFUSED:
        @t.case(f"{backend}: {one.name}")
        def _(one=one):
            run_case(server, one)


# ---- pieces

SPLIT = [
    kept("a GET as a load balancer sends it", get(
        b"GET /livez?x=%41 HTTP/1.1",
        b"X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Port: 443\r\n"
        b"Accept: */*\r\nConnection: keep-alive\r\n"), body=b"alive"),
    kept("a chunked POST with trailers", put_body(
        CODED, chunked(PART[:7], PART[7:], trailers=b"X: y\r\nZ:\r\n")),
        400, body=PART_ERRORS),
    kept("a pipelined pair", put_body(b"Content-Length: 2\r\n", b"{}") +
         get(), 400, 200, body=GREETING),
    refused(400, "a length and a coding",
            put_body(b"Content-Length: 5\r\n" + CODED, chunked())),
    refused(400, "a bad chunk", put_body(CODED, b"2\r\n{}\n0\r\n\r\n")),
]


def send_quietly(client, data):
    """The server may have refused and closed already."""
    try:
        client.send(data)
    except (BrokenPipeError, ConnectionResetError):
        pass


def finish_case(client, case):
    answers = expect_answers(client, case)
    if case.kept:
        expect_kept(client)
    else:
        expect_closed(client, answers[-1])
    return answers


def split_everywhere(server, case):
    """All first halves, a pause, all second halves."""
    cuts = range(1, len(case.data))
    clients = [server.raw() for _ in cuts]
    try:
        for client, cut in zip(clients, cuts):
            client.send(case.data[:cut])
        time.sleep(0.05)  # so that most halves are read alone
        for client, cut in zip(clients, cuts):
            send_quietly(client, case.data[cut:])
        for client, cut in zip(clients, cuts):
            try:
                finish_case(client, case)
            except Exception as error:
                raise AssertionError(f"cut at byte {cut}") from error
    finally:
        for client in clients:
            client.close()


def bytewise(server, case):
    with server.raw() as client:
        for at in range(len(case.data)):
            send_quietly(client, case.data[at:at + 1])
            time.sleep(0.0003)
        finish_case(client, case)


def random_pieces(server, seed):
    """64 clients, each with requests of its own, their pieces interleaved."""
    chance = random.Random(seed)
    plans = []
    for _ in range(64):
        good = chance.sample([one for one in ACCEPTED
                              if one.kept and len(one.data) < 2000], 3)
        plans.append(good + [chance.choice(
            [one for one in REFUSED if len(one.data) < 2000])])
    clients = [server.raw(seconds=30) for _ in plans]
    try:
        left = [b"".join(one.data for one in plan) for plan in plans]
        while any(left):
            for index, client in enumerate(clients):
                size = chance.choice((1, 2, 5, 20, 100))
                if left[index]:
                    send_quietly(client, left[index][:size])
                    left[index] = left[index][size:]
        for client, plan in zip(clients, plans):
            for one in plan:
                answers = expect_answers(client, one)
            expect_closed(client, answers[-1])
    finally:
        for client in clients:
            client.close()


def test_pieces(server, backend):
    for one in SPLIT:
        @t.case(f"{backend}: cut at every byte: {one.name}")
        def _(one=one):
            split_everywhere(server, one)

        @t.case(f"{backend}: byte by byte: {one.name}")
        def _(one=one):
            bytewise(server, one)

    @t.case(f"{backend}: 64 clients at once in random pieces")
    def _():
        seed = random.randrange(1 << 32)
        try:
            random_pieces(server, seed)
        except Exception:
            t.diag(f"seed {seed}")
            raise


# ---- conversations

# A long answer that needs no database: more of them than the kernel buffers.
LONG = b"1" * 7000
LONG_GET = get(b"GET /books/" + LONG + b" HTTP/1.1")
LONG_COUNT = 1500


def expect_long(client):
    for at in range(LONG_COUNT):
        answer = client.read_response()
        t.equal(answer.status, 404, f"status {at}")
        t.check(LONG in answer.body, f"body {at}")


def test_pipelining(server, backend):
    @t.case(f"{backend}: 2,000 pipelined requests have 2,000 answers in order")
    def _():
        count = 2000
        with server.raw(seconds=30) as client:
            client.send(b"".join(
                get(b"GET /livez HTTP/1.1") if at % 3 else get()
                for at in range(count)))
            for at in range(count):
                t.equal(client.read_response().body,
                        b"alive" if at % 3 else GREETING, f"answer {at}")
            expect_kept(client)

    @t.case(f"{backend}: a client that reads late holds up nobody else")
    def _():
        with server.raw(seconds=30, receive_buffer=4096) as client:
            sender = threading.Thread(target=send_quietly, daemon=True,
                                      args=(client, LONG_GET * LONG_COUNT))
            sender.start()
            time.sleep(0.2)
            t.equal(server.request("GET", "/livez").status, 200, "other's")
            expect_long(client)
            sender.join()
            expect_kept(client)

    @t.case(f"{backend}: the answer to a bad request comes behind the others")
    def _():
        with server.raw() as client:
            client.send(get() * 50 + b"GET\n" + SMUGGLED)
            for _ in range(50):
                t.equal(client.read_response().status, 200, "status")
            last = client.read_response()
            t.equal(last.status, 400, "status")
            expect_closed(client, last)


def test_ends(server, backend):
    @t.case(f"{backend}: a client that ended its side has its answers")
    def _():
        for count in (1, 2, 30):
            with server.raw() as client:
                client.send(get() * count)
                client.half_close()
                for _ in range(count):
                    t.equal(client.read_response().body, GREETING, "body")
                t.equal(client.read_eof(), b"", "behind the answers")

    @t.case(f"{backend}: answers that are still to be sent outlive its end")
    def _():
        def ask(client):
            send_quietly(client, LONG_GET * LONG_COUNT)
            client.half_close()

        with server.raw(seconds=30, receive_buffer=4096) as client:
            sender = threading.Thread(target=ask, daemon=True, args=(client,))
            sender.start()
            time.sleep(0.2)
            expect_long(client)
            sender.join()
            t.equal(client.read_eof(), b"", "behind the answers")

    @t.case(f"{backend}: a client that ends its side later has its answer")
    def _():
        with server.raw() as client:
            client.send(put_body(b"Content-Length: 2\r\n"))
            time.sleep(0.05)
            client.send(b"{}")
            client.half_close()
            t.equal(client.read_response().status, 400, "status")
            t.equal(client.read_eof(), b"", "behind the answer")

    @t.case(f"{backend}: a request that ends too early is not carried out")
    def _():
        for data in (b"G", b"GET / HTTP/1.1\r\n" + H, get()[:-1],
                     put_body(b"Content-Length: 3\r\n", b"{}"),
                     put_body(CODED, b"2\r\n{}\r\n0\r\n"),
                     put_body(CODED, b"2\r\n{")):
            with server.raw() as client:
                client.send(data)
                client.half_close()
                rest = client.read_eof()
                t.check(rest == b"" or rest.startswith(b"HTTP/1.1 400 "),
                        f"got {rest[:60]!r}")

    @t.case(f"{backend}: a client that says nothing and ends is let go")
    def _():
        with server.raw() as client:
            client.half_close()
            t.equal(client.read_eof(), b"", "answer")

    @t.case(f"{backend}: a reset in the middle harms nobody")
    def _():
        for data in (b"GET", get(), put_body(b"Content-Length: 9\r\n", b"{")):
            client = server.raw()
            client.send(data)
            client.abort()
        t.equal(server.request("GET", "/livez").status, 200, "status")

    early = (
        (413, put_body(b"Content-Length: %d\r\n" % LINGER_BYTES)),
        (400, put_body(CODED, b"zz\r\n")),
        (400, get(b"GET / HTTP/1.1 ")),
        (501, get(b"BREW / HTTP/1.1")),
        (431, get(fields=b"X: " + b"a" * HEADER_MAX + b"\r\n")),
    )

    @t.case(f"{backend}: an error is not lost to a client that still sends")
    def _():
        for status, head in early:
            with server.raw() as client:
                client.send(head)
                for _ in range(LINGER_BYTES >> 16):
                    client.send(b"a" * 65536)
                answer = client.read_response()
                t.equal(answer.status, status, "status")
                client.half_close()
                expect_closed(client, answer)

    @t.case(f"{backend}: HEAD that is refused has no body either")
    def _():
        with server.raw() as client:
            client.send(get(b"HEAD / HTTP/1.1", host=b""))
            answer = client.read_response("HEAD")
            t.equal(answer.status, 400, "status")
            expect_closed(client, answer)


EXPECT = b"Expect: 100-continue\r\n"


def test_continue(server, backend):
    asking = (
        ("with a length", EXPECT + b"Content-Length: 2\r\n", b"{}"),
        ("with chunks", CODED + b"expect:100-Continue\r\n", chunked(b"{}")),
    )
    for name, fields, body in asking:
        @t.case(f"{backend}: 100 comes before the body {name}")
        def _(fields=fields, body=body):
            with server.raw() as client:
                client.send(put_body(fields))
                interim = client.read_response()
                t.equal(interim.status, 100, "interim status")
                t.check(not client.buffer, "something behind the 100")
                client.send(body)
                answer = client.read_response()
                t.equal(answer.status, 400, "status")
                expect_sound(answer, "POST")
                expect_kept(client)

    @t.case(f"{backend}: a client that does not wait for 100 is served")
    def _():
        with server.raw() as client:
            client.send(put_body(EXPECT + b"Content-Length: 2\r\n", b"{}"))
            answer = client.read_response(skip_interim=True)
            t.equal(answer.status, 400, "status")
            expect_kept(client)

    early = (
        (404, put_body(EXPECT + b"Content-Length: 2\r\n", b"",
                       b"POST /nowhere HTTP/1.1")),
        (405, put_body(EXPECT + CODED, b"", b"PATCH /books HTTP/1.1")),
        (415, b"POST /books HTTP/1.1\r\n" + H + EXPECT +
         b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n"),
        (413, put_body(EXPECT + b"Content-Length: 9999999\r\n")),
        (400, put_body(EXPECT + b"Content-Length: 2\r\n" + CODED)),
    )

    @t.case(f"{backend}: a request refused at once is not told to go on")
    def _():
        for status, head in early:
            with server.raw() as client:
                client.send(head)
                answer = client.read_response()
                t.equal(answer.status, status, "status")
                expect_closed(client, answer)

    @t.case(f"{backend}: Expect without a body asks for nothing")
    def _():
        with server.raw() as client:
            client.send(get(fields=EXPECT))
            t.equal(client.read_response().status, 200, "status")
            expect_kept(client)


# ---- clients that stall

def expect_timeout(client):
    answer = client.read_response()
    t.equal(answer.status, 408, "status")
    expect_sound(answer, "GET")
    expect_closed(client, answer)


def drip(client, data, pause=0.02):
    """One byte after the other until the server has enough of it."""
    deadline = time.monotonic() + 20
    at = 0
    while time.monotonic() < deadline:
        try:
            client.send(data[at % len(data):][:1])
        except (BrokenPipeError, ConnectionResetError):
            return
        at += 1
        if client.is_closed(pause) or client.buffer:
            return
    raise AssertionError("the server still listens")


def test_timeouts(server, backend):
    stalled = (
        ("inside the request line", b"GET /"),
        ("inside a field", b"GET / HTTP/1.1\r\nHos"),
        ("before the empty line", b"GET / HTTP/1.1\r\n" + H),
        ("before the last LF", get()[:-1]),
        ("before its body", put_body(b"Content-Length: 2\r\n")),
        ("inside its body", put_body(b"Content-Length: 2\r\n", b"{")),
        ("inside a chunk size", put_body(CODED, b"2")),
        ("inside a chunk", put_body(CODED, b"2\r\n{")),
        ("inside the trailers", put_body(CODED, b"2\r\n{}\r\n0\r\nX: y")),
        ("inside a body to throw away", put_body(
            b"Content-Length: 9\r\n", b"{", b"POST /nowhere HTTP/1.1")),
    )
    for name, data in stalled:
        @t.case(f"{backend}: 408 for a request that stalls {name}")
        def _(data=data):
            with server.raw() as client:
                client.send(data)
                expect_timeout(client)

    @t.case(f"{backend}: 408 for a second request that stalls")
    def _():
        with server.raw() as client:
            client.send(get() + b"GET /")
            t.equal(client.read_response().status, 200, "status")
            expect_timeout(client)

    @t.case(f"{backend}: 408 for a client that was told to go on and does not")
    def _():
        with server.raw() as client:
            client.send(put_body(EXPECT + b"Content-Length: 2\r\n"))
            t.equal(client.read_response().status, 100, "interim status")
            expect_timeout(client)

    for name, start in (("a new", b""), ("a used", get())):
        @t.case(f"{backend}: {name} connection that is idle closes silently")
        def _(start=start):
            with server.raw() as client:
                if start:
                    client.send(start)
                    t.equal(client.read_response().status, 200, "status")
                t.equal(client.read_eof(), b"", "before the end")

    @t.case(f"{backend}: a client that drips a head is cut")
    def _():
        with server.raw() as client:
            client.send(b"GET / HTTP/1.1\r\n" + H)
            drip(client, b"X: y\r\n")
            rest = client.read_eof()
            t.check(rest == b"" or rest.startswith(b"HTTP/1.1 408 "),
                    f"got {rest[:60]!r}")

    @t.case(f"{backend}: a client that drips a body is cut")
    def _():
        with server.raw() as client:
            client.send(put_body(b"Content-Length: 100000\r\n"))
            drip(client, b"{")
            rest = client.read_eof()
            t.check(rest == b"" or rest.startswith(b"HTTP/1.1 408 "),
                    f"got {rest[:60]!r}")


def test_connections(server, backend, limit):
    @t.case(f"{backend}: connections over the limit wait for their turn")
    def _():
        held = [server.raw() for _ in range(limit)]
        for client in held:
            client.send(get(b"GET /livez HTTP/1.1"))
            t.equal(client.read_response().status, 200, "status")
        with server.raw() as late:
            late.send(get(b"GET /livez HTTP/1.1"))
            t.check(not late.is_closed(0.3) and not late.buffer,
                    "it was served or closed")
            for client in held:
                client.send(get(b"GET /livez HTTP/1.1"))
                t.equal(client.read_response().status, 200, "status")
            held.pop().close()
            t.equal(late.read_response().status, 200, "the late one's status")
        for client in held:
            client.close()


SMALL_LINE, SMALL_HEADER, SMALL_FIELDS = 256, 512, 8


def test_small_limits(server, backend):
    cases = (
        refused(414, "a request line over a small limit",
                get(b"GET /?" + b"a" * (SMALL_LINE - 16) + b" HTTP/1.1")),
        kept("a request line at a small limit",
             get(b"GET /?" + b"a" * (SMALL_LINE - 17) + b" HTTP/1.1")),
        refused(431, "fields over a small limit",
                get(fields=b"X: " + b"a" * (SMALL_HEADER - len(H) - 6) +
                    b"\r\n")),
        kept("fields at a small limit",
             get(fields=b"X: " + b"a" * (SMALL_HEADER - len(H) - 7) +
                 b"\r\n")),
        refused(431, "more fields than a small limit",
                get(fields=b"X: y\r\n" * SMALL_FIELDS)),
        kept("as many fields as a small limit",
             get(fields=b"X: y\r\n" * (SMALL_FIELDS - 1))),
    )
    for one in cases:
        @t.case(f"{backend}: {one.name}")
        def _(one=one):
            run_case(server, one)


def settings(backend, **more):
    return {"io_backend": backend, "workers": 1, "database": "",
            "migrate_on_start": "off", "greeting": GREETING.decode(), **more}


def main():
    for backend in t.backends():
        with t.Booksd(settings(backend)) as server:
            test_table(server, backend)
            test_pieces(server, backend)
            test_pipelining(server, backend)
            test_ends(server, backend)
            test_continue(server, backend)
        with t.Booksd(settings(backend, header_timeout="300ms",
                               body_timeout="300ms",
                               keepalive_timeout="500ms")) as server:
            test_timeouts(server, backend)
        limit = 16
        with t.Booksd(settings(backend, connections_max=limit)) as server:
            test_connections(server, backend, limit)
        with t.Booksd(settings(backend, request_line_max=SMALL_LINE,
                               header_max=SMALL_HEADER,
                               header_fields_max=SMALL_FIELDS)) as server:
            test_small_limits(server, backend)


if __name__ == "__main__":
    main()
    t.done()
