#!/usr/bin/env python3
"""Goal: booksd keeps the contract of the service that it replaces, to the
letter, and answers everything that contract leaves open in one defined way.
Method: a black box.  Tables of requests and of the answers that must come back
from the real binary on a real PostgreSQL: statuses, texts, fields, the order of
members, how numbers and dates are printed; what SQL alone can arrange is
arranged by SQL; many clients at once on two workers for the races.
"""
import datetime
import json
import re
import struct
import threading
import time
from typing import NamedTuple

import booksd_test as t

MEMBERS = ["id", "isbn", "title", "author", "price", "publisher",
           "createdDate", "lastModifiedDate", "createdBy", "lastModifiedBy",
           "version"]
INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}"
                     r"\.[0-9]{6}Z\Z")
JSON_TYPE = "application/json"
PROBLEM_TYPE = "application/problem+json"
BOOK = {"title": "The C Programming Language", "author": "Kernighan, Ritchie",
        "price": 9.9, "publisher": "Prentice Hall"}
UNDEFINED = {"isbn": "The book ISBN must be defined.",
             "title": "The book title must be defined.",
             "author": "The book author must be defined.",
             "price": "The book price must be defined."}
BAD_ISBN = "The ISBN format must be valid."
NOT_POSITIVE = "The book price must be greater than zero."
NO_NUMBER = "The book price must be a number."
CLIENTS = 32
LONG_ISBN = "9" * 300


class Isbns:
    """Each call is an ISBN that no other case has."""
    last = 9780000000000

    def __call__(self):
        Isbns.last += 1
        return str(Isbns.last)


new_isbn = Isbns()


# ---- what answers must look like

def expect_text(answer, status, text):
    t.equal(answer.status, status, "status")
    t.equal((answer.header("content-type") or "").replace(" ", "").lower(),
            "text/plain;charset=utf-8", "Content-Type")
    t.equal(answer.text(), text, "body")


def expect_not_found(answer, isbn):
    expect_text(answer, 404, f"The book with ISBN {isbn} was not found.")


def expect_exists(answer, isbn):
    expect_text(answer, 422, f"A book with ISBN {isbn} already exists.")


def expect_errors(answer, errors):
    """400 with a flat object of exactly these fields."""
    t.equal(answer.status, 400, f"status of {answer.body!r}")
    t.equal(answer.header("content-type"), JSON_TYPE, "Content-Type")
    t.equal(answer.json(), errors, "errors")


def parse_book(data):
    pairs = json.loads(data, object_pairs_hook=list)
    t.equal([name for name, _ in pairs], MEMBERS, "members in their order")
    return dict(pairs)


def expect_book(answer, status=200, **members):
    """The book of the answer; members are values that it must have."""
    t.equal(answer.status, status, f"status of {answer.body!r}")
    t.equal(answer.header("content-type"), JSON_TYPE, "Content-Type")
    book = parse_book(answer.body)
    for name in ("createdDate", "lastModifiedDate"):
        t.check(INSTANT.match(book[name]), f"{name}: {book[name]!r}")
    for name, value in members.items():
        t.equal(book[name], value, name)
    return book


def expect_problem(answer, status, title, detail):
    t.equal(answer.status, status, "status")
    t.equal(answer.header("content-type"), PROBLEM_TYPE, "Content-Type")
    problem = answer.json()
    t.equal(problem.get("type"), "about:blank", "type")
    t.equal(problem.get("title"), title, "title")
    t.equal(problem.get("status"), status, "status member")
    if detail is not None:
        t.equal(problem.get("detail"), detail, "detail")
    return problem


def price_text(answer):
    """The price as it is printed."""
    found = re.search(r'"price":([^,]*),"publisher"', answer.text())
    t.check(found, f"no price in {answer.body!r}")
    return found[1]


class Books:
    """The books of one server: requests with less to write."""

    def __init__(self, server):
        self.server = server
        self.request = server.request

    def post(self, isbn, headers=(), **fields):
        return self.request("POST", "/books", {"isbn": isbn, **BOOK, **fields},
                            headers)

    def put(self, path_isbn, headers=(), **fields):
        return self.request("PUT", f"/books/{path_isbn}",
                            {"isbn": path_isbn, **BOOK, **fields}, headers)

    def get(self, isbn, headers=()):
        return self.request("GET", f"/books/{isbn}", headers=headers)

    def new(self, **fields):
        """Store a book: what was answered."""
        isbn = new_isbn()
        return expect_book(self.post(isbn, **fields), 201, isbn=isbn)

    def send(self, body, method="POST", target="/books"):
        """A body as it is, declared to be JSON."""
        return self.request(method, target, body, {"Content-Type": JSON_TYPE})


# ---- one book

def test_post(books, backend):
    @t.case(f"{backend}: POST stores a book and answers 201 with its place")
    def _():
        isbn = new_isbn()
        answer = books.post(isbn)
        book = expect_book(answer, 201, isbn=isbn, version=1, createdBy=None,
                           lastModifiedBy=None, **BOOK)
        t.check(isinstance(book["id"], int) and book["id"] > 0, "id")
        t.equal(book["createdDate"], book["lastModifiedDate"], "dates")
        t.equal(answer.header("location"), f"/books/{isbn}", "Location")
        again = books.get(isbn)
        t.equal(again.status, 200, "status of GET")
        t.equal(again.body, answer.body, "GET answers the same bytes")
        t.equal(again.header("location"), None, "Location of GET")

    @t.case(f"{backend}: createdDate is the present time in UTC")
    def _():
        created = books.new()["createdDate"]
        moment = datetime.datetime.strptime(created, "%Y-%m-%dT%H:%M:%S.%fZ")
        age = time.time() - moment.replace(
            tzinfo=datetime.timezone.utc).timestamp()
        t.check(-5 < age < 60, f"{created} is {age} s ago")

    @t.case(f"{backend}: POST of an ISBN that exists is 422")
    def _():
        book = books.new()
        answer = books.post(book["isbn"], title="Another")
        expect_exists(answer, book["isbn"])
        t.equal(answer.header("location"), None, "Location")
        expect_book(books.get(book["isbn"]), **book)

    @t.case(f"{backend}: validation comes before the duplicate check")
    def _():
        expect_errors(books.post(books.new()["isbn"], title=None),
                      {"title": UNDEFINED["title"]})

    @t.case(f"{backend}: a missing publisher is null")
    def _():
        body = {"isbn": new_isbn(), **BOOK}
        del body["publisher"]
        expect_book(books.request("POST", "/books", body), 201, publisher=None)

    @t.case(f"{backend}: unknown and server-managed members are ignored")
    def _():
        book = expect_book(books.post(
            new_isbn(), id=-7, version=9, createdDate="x", createdBy="me",
            lastModifiedDate=1, lastModifiedBy=["me"], price_=None,
            unknown={"isbn": [1, {"title": None}]}), 201, version=1,
            createdBy=None, lastModifiedBy=None)
        t.check(book["id"] != -7, "the id of the body")
        expect_book(books.put(book["isbn"], id=7, version=99, createdBy="me",
                              lastModifiedBy="me"), id=book["id"], version=2,
                    createdBy=None, lastModifiedBy=None)

    @t.case(f"{backend}: a book can be sent back as it was answered")
    def _():
        book = books.new()
        expect_book(books.request("PUT", f"/books/{book['isbn']}", book),
                    id=book["id"], version=2)

    for kind, text in (("quotes", 'a"b\\c/d'), ("controls", "a\tb\nc\x01\x1fd"),
                       ("letters", "Łódź — 日本語"), ("emoji", "\U0001f4da" * 9),
                       ("SQL", "'; DROP TABLE book; --"), ("DEL", "a\x7fb"),
                       ("percents", "%s %n %41"), ("markup", "</a>&amp;"),
                       ("line separators", "a\u2028b\u2029c"),
                       ("spaces around", "  a  ")):
        @t.case(f"{backend}: texts with {kind} come back as they were")
        def _(text=text):
            book = books.new(title=text, author=text, publisher=text)
            for name in ("title", "author", "publisher"):
                t.equal(book[name], text, name)
            expect_book(books.get(book["isbn"]), title=text)

    @t.case(f"{backend}: escapes in a body are what they stand for")
    def _():
        isbn = new_isbn()
        body = (r'{"\u0069sbn":"' + isbn + r'","title":"\ud83d\udcda\u00e9\/",'
                r'"author":"\"\\\b\f\n\r\t","price":1}')
        expect_book(books.send(body), 201, title="\U0001f4daé/",
                    author='"\\\b\f\n\r\t')


def test_get(pg, books, backend):
    @t.case(f"{backend}: GET of an unknown ISBN is 404 with its text")
    def _():
        expect_not_found(books.get("9789999999999"), "9789999999999")

    @t.case(f"{backend}: query parameters on one book are ignored")
    def _():
        book = books.new()
        for query in ("?x", "?isbn=1&title=%zz", "?verbose", "??", "?a=b&&"):
            expect_book(books.get(book["isbn"] + query), **book)

    @t.case(f"{backend}: one slash at the end is the same path")
    def _():
        book = books.new()
        expect_book(books.get(book["isbn"] + "/"), **book)
        expect_book(books.get(book["isbn"] + "/?x"), **book)
        expect_exists(books.request("POST", "/books/", book), book["isbn"])
        t.equal(books.request("GET", "/books/").status, 200, "GET /books/")

    for path, isbn in (("x", "x"), ("%39%37", "97"), ("%2539", "%39"),
                       ("a%2Fb", "a/b"), ("a+b", "a+b"), ("%C3%A9", "é"),
                       ("a%20b", "a b"), ("%3Cb%3E%22", '<b>"'),
                       ("a%0D%0Ab", "a\r\nb"), (LONG_ISBN, LONG_ISBN),
                       ("%F0%9F%93%9A", "\U0001f4da"), ("..", ".."),
                       ("'%20OR%20'1'='1", "' OR '1'='1")):
        @t.case(f"{backend}: 404 quotes the ISBN of /books/{path[:20]}")
        def _(path=path, isbn=isbn):
            expect_not_found(books.get(path), isbn)

    @t.case(f"{backend}: escapes in the path are decoded once")
    def _():
        book = books.new()
        escaped = "".join(f"%{ord(digit):02x}" for digit in book["isbn"])
        expect_book(books.get(escaped), **book)
        expect_book(books.put(escaped, isbn=book["isbn"]), id=book["id"],
                    version=2)
        t.equal(books.request("DELETE", f"/books/{escaped}").status, 204,
                "DELETE")
        expect_not_found(books.get(book["isbn"]), book["isbn"])

    for path in ("%zz", "%", "%4", "%00", "a%00b", "%ff", "%c0%80",
                 "%ed%a0%80", "%f4%90%80%80"):
        @t.case(f"{backend}: /books/{path} cannot be decoded: 400")
        def _(path=path):
            for method in ("GET", "DELETE"):
                t.equal(books.request(method, f"/books/{path}").status, 400,
                        method)
            t.equal(books.put(path, isbn=new_isbn()).status, 400, "PUT")

    for path in ("/book", "/bookshelf", "//books", "/books//", "/books/1/2",
                 "/books/1//", "/Books", "/books/../books", "/%62ooks",
                 "/livez/", "/actuator", "/favicon.ico"):
        @t.case(f"{backend}: there is nothing at {path}")
        def _(path=path):
            for method in ("GET", "PUT", "DELETE", "OPTIONS"):
                t.equal(books.request(method, path).status, 404, method)

    @t.case(f"{backend}: rows of the old service are printed as they are")
    def _():
        isbn = new_isbn()
        pg.sql("INSERT INTO book (isbn, author, title, price, version,"
               " created_date, last_modified_date, created_by,"
               f" last_modified_by) VALUES ('{isbn}', 'A', 'T', 10, 3,"
               " '2020-02-29 00:00:00', '2021-12-31 23:59:59.5', 'ann',"
               " 'bob')")
        answer = books.get(isbn)
        expect_book(answer, createdDate="2020-02-29T00:00:00.000000Z",
                    lastModifiedDate="2021-12-31T23:59:59.500000Z",
                    createdBy="ann", lastModifiedBy="bob", version=3,
                    publisher=None)
        t.equal(price_text(answer), "10", "price")

    @t.case(f"{backend}: an ISBN that is none can be in the table and be read")
    def _():
        isbn = "x/" + new_isbn()
        pg.sql("INSERT INTO book (isbn, author, title, price, version,"
               f" created_date, last_modified_date) VALUES ('{isbn}', 'A', 'T',"
               " 1, 1, now(), now())")
        expect_book(books.get(isbn.replace("/", "%2F")), isbn=isbn)
        expect_book(books.put(isbn.replace("/", "%2F"), isbn=new_isbn()),
                    isbn=isbn, version=2)


def test_put(pg, books, backend):
    @t.case(f"{backend}: PUT changes what it is sent and keeps the rest")
    def _():
        book = books.new()
        fields = {"title": "T", "author": "A", "price": 1.5, "publisher": "P"}
        answer = books.put(book["isbn"], **fields)
        after = expect_book(answer, id=book["id"], isbn=book["isbn"],
                            createdDate=book["createdDate"], version=2,
                            createdBy=None, **fields)
        t.check(after["lastModifiedDate"] > book["lastModifiedDate"],
                "lastModifiedDate is later")
        t.equal(answer.header("location"), None, "Location")
        expect_book(books.get(book["isbn"]), **after)

    @t.case(f"{backend}: identical PUTs count, each with a later date")
    def _():
        book = books.new()
        with books.server.raw() as client:
            for version in range(2, 22):
                after = expect_book(client.request(
                    "PUT", f"/books/{book['isbn']}",
                    {"isbn": book["isbn"], **BOOK}), version=version)
                t.check(after["lastModifiedDate"] > book["lastModifiedDate"],
                        f"date of version {version}")
                book = after

    @t.case(f"{backend}: PUT of a book from the future has a later date still")
    def _():
        isbn = books.new()["isbn"]
        pg.sql("UPDATE book SET last_modified_date = '2999-12-31 23:59:59'"
               f" WHERE isbn = '{isbn}'")
        expect_book(books.put(isbn), version=2,
                    lastModifiedDate="2999-12-31T23:59:59.000001Z")

    @t.case(f"{backend}: PUT keeps createdBy and createdDate")
    def _():
        isbn = books.new()["isbn"]
        pg.sql("UPDATE book SET created_by = 'ann', created_date ="
               f" '2001-02-03 04:05:06.789' WHERE isbn = '{isbn}'")
        expect_book(books.put(isbn), createdBy="ann", version=2,
                    createdDate="2001-02-03T04:05:06.789000Z")

    @t.case(f"{backend}: PUT without a publisher makes it null")
    def _():
        isbn = books.new()["isbn"]
        body = {"isbn": isbn, **BOOK}
        del body["publisher"]
        expect_book(books.request("PUT", f"/books/{isbn}", body),
                    publisher=None)
        expect_book(books.put(isbn, publisher="P"), publisher="P")
        expect_book(books.put(isbn, publisher=None), publisher=None)

    @t.case(f"{backend}: PUT keeps the ISBN of the path")
    def _():
        book, other, unknown = books.new(), books.new(), new_isbn()
        expect_book(books.put(book["isbn"], isbn=unknown), id=book["id"],
                    isbn=book["isbn"], version=2)
        expect_not_found(books.get(unknown), unknown)
        expect_book(books.put(book["isbn"], isbn=other["isbn"]),
                    id=book["id"], isbn=book["isbn"], version=3)
        expect_book(books.get(other["isbn"]), **other)

    @t.case(f"{backend}: PUT of an unknown ISBN stores the body's book")
    def _():
        isbn, path = new_isbn(), new_isbn()
        after = expect_book(books.put(isbn), isbn=isbn, version=1, **BOOK)
        t.equal(after["createdDate"], after["lastModifiedDate"], "dates")
        stored = new_isbn()
        expect_book(books.put(path, isbn=stored), isbn=stored, version=1)
        expect_not_found(books.get(path), path)
        expect_book(books.get(stored), isbn=stored)
        other = new_isbn()
        expect_book(books.put(LONG_ISBN, isbn=other), isbn=other, version=1)

    @t.case(f"{backend}: PUT of an unknown ISBN is 422 when the body's exists")
    def _():
        book = books.new()
        for path in (new_isbn(), "no-isbn", LONG_ISBN):
            expect_exists(books.put(path, isbn=book["isbn"]), book["isbn"])
        expect_book(books.get(book["isbn"]), **book)

    @t.case(f"{backend}: PUT validates before it looks")
    def _():
        expect_errors(books.put(new_isbn(), isbn="x", price=0),
                      {"isbn": BAD_ISBN, "price": NOT_POSITIVE})
        book = books.new()
        expect_errors(books.put(book["isbn"], isbn=None),
                      {"isbn": UNDEFINED["isbn"]})
        expect_book(books.get(book["isbn"]), **book)


def test_delete(books, backend):
    @t.case(f"{backend}: DELETE is 204 whether there was a book or not")
    def _():
        book = books.new()
        for isbn in (book["isbn"], book["isbn"], "nothing", LONG_ISBN):
            answer = books.request("DELETE", f"/books/{isbn}")
            t.equal(answer.status, 204, "status")
            t.equal(answer.body, b"", "body")
            for name in ("content-length", "content-type",
                         "transfer-encoding"):
                t.equal(answer.header(name), None, name)
        expect_not_found(books.get(book["isbn"]), book["isbn"])

    @t.case(f"{backend}: a book that was deleted can be stored again")
    def _():
        book = books.new()
        t.equal(books.request("DELETE", f"/books/{book['isbn']}").status, 204,
                "DELETE")
        again = expect_book(books.post(book["isbn"]), 201, version=1)
        t.check(again["id"] > book["id"], "a new id")


# ---- numbers

# What is sent and what is printed.
NUMBERS = [
    ("10", "10"), ("9.9", "9.9"), ("1e-7", "1e-7"), ("1e+21", "1e+21"),
    ("1e21", "1e+21"), ("1E2", "100"), ("10.0", "10"), ("0.10", "0.1"),
    ("123.456e1", "1234.56"), ("0.000001", "0.000001"), ("1e-6", "0.000001"),
    ("100000000000000000000", "100000000000000000000"),
    ("999999999999999900000", "999999999999999900000"),
    ("9007199254740993", "9007199254740992"), ("9.9000000000000004", "9.9"),
    ("0.1000000000000000055511151231257827", "0.1"), ("5e-324", "5e-324"),
    ("2.2250738585072014e-308", "2.2250738585072014e-308"),
    ("1.7976931348623157e308", "1.7976931348623157e+308"),
    ("18446744073709551616", "18446744073709552000"),
    ("123456789012345678901234567890", "1.2345678901234568e+29"),
    ("3e-324", "5e-324"), ("0.30000000000000004", "0.30000000000000004"),
    ("4.35", "4.35"), ("1e1", "10"), ("1234567.891", "1234567.891"),
    ("1.5e300", "1.5e+300"), ("0." + "0" * 400 + "1e401", "1"),
    ("1" + "0" * 400 + "e-400", "1"),
]


def test_numbers(pg, books, backend):
    @t.case(f"{backend}: prices are printed as ECMAScript prints numbers")
    def _():
        with books.server.raw() as client:
            for sent, printed in NUMBERS:
                isbn = new_isbn()
                body = json.dumps({"isbn": isbn, **BOOK, "price": 0}).replace(
                    '"price": 0', f'"price": {sent}')
                answer = client.request("POST", "/books", body,
                                        {"Content-Type": JSON_TYPE})
                expect_book(answer, 201)
                t.equal(price_text(answer), printed, f"price of {sent[:30]}")
                answer = client.request("GET", f"/books/{isbn}")
                t.equal(price_text(answer), printed, f"GET of {sent[:30]}")
                t.equal(pg.sql("SELECT price::text FROM book WHERE isbn ="
                               f" '{isbn}'") if sent == "9.9" else "9.9",
                        "9.9", "price in the table")

    @t.case(f"{backend}: doubles of all sizes come back as the same double")
    def _():
        state = 1
        with books.server.raw() as client:
            isbn = books.new()["isbn"]
            for _ in range(300):
                state = state * 6364136223846793005 + 1442695040888963407
                bits = (state >> 3) % 0x7fe << 52 | (state >> 7) % (1 << 52)
                price = struct.unpack("<d", struct.pack("<Q", bits or 1))[0]
                answer = client.request("PUT", f"/books/{isbn}",
                                        {"isbn": isbn, **BOOK,
                                         "price": price})
                t.equal(float(expect_book(answer)["price"]), price, "price")

    for sent in ("0", "0.0", "-0", "-1", "-1e-300", "1e-400", "0e10"):
        @t.case(f"{backend}: a price of {sent} is not greater than zero")
        def _(sent=sent):
            body = json.dumps({"isbn": new_isbn(), **BOOK, "price": 0})
            expect_errors(books.send(body.replace('"price": 0',
                                                  f'"price": {sent}')),
                          {"price": NOT_POSITIVE})


# ---- validation

def test_validation(books, backend):
    @t.case(f"{backend}: all failing fields are told at once")
    def _():
        expect_errors(books.request("POST", "/books", {}), UNDEFINED)
        expect_errors(books.request("POST", "/books",
                                    dict.fromkeys(UNDEFINED)), UNDEFINED)
        expect_errors(books.request("POST", "/books", {
            "isbn": "1", "title": " ", "price": -1, "author": "x" * 256,
            "publisher": 1}), {
                "isbn": BAD_ISBN, "title": UNDEFINED["title"],
                "author": "The book author must have at most 255 characters.",
                "price": NOT_POSITIVE,
                "publisher": "The book publisher must be a string."})

    @t.case(f"{backend}: the errors come in the order of the fields")
    def _():
        answer = books.request("POST", "/books", {})
        t.equal(list(answer.json()), ["isbn", "title", "author", "price"],
                "names")

    for name in ("title", "author", "isbn"):
        @t.case(f"{backend}: a blank {name} is undefined")
        def _(name=name):
            for blank in ("", " ", "\t\r\n ", "   "):
                expect_errors(books.post(**{"isbn": new_isbn(), name: blank}),
                              {name: UNDEFINED[name]})

    @t.case(f"{backend}: an ISBN is ten or thirteen digits")
    def _():
        for isbn in ("123456789", "12345678901", "123456789012",
                     "12345678901234", "978020113447X", "978-0201134476",
                     " 9780201134476", "9780201134476 ", "9780201134476\n",
                     "\u0661" * 10, "+780201134476", "1e12345678", "9" * 256,
                     "9" * 5000):
            expect_errors(books.post(isbn), {"isbn": BAD_ISBN})
        # No check digit: that one would be wrong.
        isbn = new_isbn()[-10:]
        expect_book(books.post(isbn), 201, isbn=isbn)

    for name in ("title", "author", "publisher"):
        for kind, character in (("bytes", "x"), ("letters", "é"),
                                ("emoji", "\U0001f4da")):
            @t.case(f"{backend}: 255 {kind} of {name} are stored, 256 are 400")
            def _(name=name, character=character):
                text = character * 255
                book = books.new(**{name: text})
                expect_book(books.get(book["isbn"]), **{name: text})
                message = f"The book {name} must have at most 255 characters."
                for count in (256, 257, 20000):
                    expect_errors(books.post(
                        new_isbn(), **{name: character * count}),
                        {name: message})

    for name, wrong in (("isbn", 9780201134476), ("title", 1),
                        ("author", ["x"]), ("publisher", {}),
                        ("title", True), ("isbn", False), ("author", 1.5)):
        @t.case(f"{backend}: {name} of the wrong type is named: {wrong}")
        def _(name=name, wrong=wrong):
            what = {"isbn": "ISBN"}.get(name, name)
            expect_errors(books.post(**{"isbn": new_isbn(), name: wrong}),
                          {name: f"The book {what} must be a string."})

    for wrong in ("9.9", True, [9.9], {}, ""):
        @t.case(f"{backend}: a price of the wrong type is named: {wrong!r}")
        def _(wrong=wrong):
            expect_errors(books.post(new_isbn(), price=wrong),
                          {"price": NO_NUMBER})


# ---- bodies that cannot be read

START = '{"isbn":"9780000000001",'


class Bad(NamedTuple):
    name: str
    body: object
    line: object = None  # where, when it is sure
    words: str = ""


BAD_BODIES = [
    Bad("nothing", b"", 1), Bad("white space", b" \n\n "),
    Bad("an open object", b"{"), Bad("an open string", b'{"isbn":"9'),
    Bad("a word", b"oops", 1), Bad("a comma at the end", b'{"a":1,}', 1),
    Bad("single quotes", b"{'a':1}", 1), Bad("a comment", b"{/*x*/}", 1),
    Bad("no colon", b'{"a" 1}', 1), Bad("a bare key", b"{a:1}", 1),
    Bad("two objects", b"{}{}", 1), Bad("text behind it", b"{} x", 1),
    Bad("a defect on line 3", b'{\n"a":1,\n"b":oops}', 3),
    Bad("NaN", START + '"price":NaN}', 1),
    Bad("Infinity", START + '"price":Infinity}', 1),
    Bad("-Infinity", START + '"price":-Infinity}', 1),
    Bad("a number that is too large", START + '"price":1e400}', 1),
    Bad("a number of 400 digits", START + '"price":' + "9" * 400 + "}", 1),
    Bad("a number with a leading zero", START + '"price":010}', 1),
    Bad("a number with a plus", START + '"price":+1}', 1),
    Bad("a number without a digit", START + '"price":.5}', 1),
    Bad("a number with a bare point", START + '"price":1.}', 1),
    Bad("a hexadecimal number", START + '"price":0x10}', 1),
    Bad("a duplicate key", START + '"title":"a","title":"b"}', 1),
    Bad("a duplicate key that is escaped", '{"title":"a","\\u0074itle":"b"}'),
    Bad("a duplicate unknown key", '{"x":1,"x":1}'),
    Bad("a duplicate key inside", '{"x":{"y":1,"y":1}}'),
    Bad("a NUL byte", b'{"title":"a\0b"}'),
    Bad("an escaped NUL", '{"title":"a\\u0000b"}'),
    Bad("a NUL in a key", '{"a\\u0000b":1}'),
    Bad("a lone surrogate", '{"title":"\\ud83d"}'),
    Bad("a reversed pair", '{"title":"\\udcda\\ud83d"}'),
    Bad("a bad escape", '{"title":"\\x41"}'),
    Bad("a control byte in a string", b'{"title":"a\nb"}'),
    Bad("a lone continuation", b'{"title":"\x80"}'),
    Bad("a byte FF", b'{"title":"\xff"}'),
    Bad("an overlong slash", b'{"title":"\xc0\xaf"}'),
    Bad("a surrogate in UTF-8", b'{"title":"\xed\xa0\xbd"}'),
    Bad("beyond U+10FFFF", b'{"title":"\xf4\x90\x80\x80"}'),
    Bad("a cut sequence", b'{"title":"\xf0\x9f\x93"}'),
    Bad("invalid UTF-8 in an unknown member", b'{"x":"\xff"}'),
    Bad("a byte order mark", b"\xef\xbb\xbf{}", 1),
    Bad("UTF-16", "{}".encode("utf-16-le")),
    Bad("a deep array", b"[" * 100000), Bad("a deep object", b'{"a":' * 9000),
    Bad("a deep array in a member", b'{"x":' + b"[" * 9000),
    Bad("a deep array that ends", b"[" * 9000 + b"]" * 9000),
    Bad("many values", b'{"x":[' + b"[]," * 300000 + b"[]]}"),
]
WHERE = re.compile(r"The request body is not acceptable JSON at line "
                   r"([0-9]+), column ([0-9]+) \(byte ([0-9]+)\): "
                   r"([a-zA-Z0-9 -]+)\.\Z")


def test_bad_bodies(books, backend):
    for bad in BAD_BODIES:
        @t.case(f"{backend}: {bad.name} is 400 and says where")
        def _(bad=bad):
            size = len(bad.body)
            for method, target in (("POST", "/books"), ("PUT", "/books/1")):
                answer = books.send(bad.body, method, target)
                t.equal(answer.status, 400, f"status of {answer.body[:200]!r}")
                t.check(answer.header("content-type").startswith("text/plain"),
                        "Content-Type")
                found = WHERE.match(answer.text())
                t.check(found, f"where: {answer.text()!r}")
                t.check(int(found[3]) <= size, f"byte {found[3]} of {size}")
                if bad.line is not None:
                    t.equal(int(found[1]), bad.line, "line")

    for name, body in (("an array", b"[]"), ("a string", b'"x"'),
                       ("a number", b"1"), ("null", b"null"),
                       ("true", b" true ")):
        @t.case(f"{backend}: {name} is not an object: 400")
        def _(body=body):
            expect_text(books.send(body), 400,
                        "The request body must be a JSON object.")

    @t.case(f"{backend}: white space around the object is nothing")
    def _():
        isbn = new_isbn()
        body = b" \r\n\t" + json.dumps({"isbn": isbn, **BOOK}).encode() + b"\n "
        expect_book(books.send(body), 201, isbn=isbn)

    @t.case(f"{backend}: client bytes are not quoted back")
    def _():
        answer = books.send(b'{"title":"<script>alert(1)</script>')
        t.equal(answer.status, 400, "status")
        t.check(b"<" not in answer.body, f"{answer.body!r}")


# ---- media types

TYPES = [
    (None, 415), ("", 415), ("text/plain", 415), ("application/xml", 415),
    ("application/x-www-form-urlencoded", 415), ("*/*", 415),
    ("application/json; charset=iso-8859-1", 415), ("json", 415),
    ("application/jsonp", 415), ("text/json", 415),
    ("application/json, text/plain", 415),
    ("application/json", 201), ("APPLICATION/JSON", 201),
    ("application/json;charset=UTF-8", 201),
    ('application/json; charset="utf-8"', 201),
    ("application/json ; charset=utf-8", 201),
]
ACCEPTS = [
    (None, 200), ("*/*", 200), ("application/*", 200),
    ("application/json", 200), ("text/html, */*;q=0.1", 200),
    ("application/json;q=0.001", 200), ("text/html", 406),
    ("application/xml", 406), ("application/json;q=0", 406),
    ("*/*;q=0", 406), ("application/json;q=0, */*", 406),
    ("text/*, application/json", 200), ("application/problem+json", 200),
    ("text/plain", 406), ("application/*;q=0, */*", 406),
]


def test_media(books, backend):
    @t.case(f"{backend}: a body that is not JSON in UTF-8 is 415")
    def _():
        for kind, status in TYPES:
            isbn = new_isbn()
            headers = {} if kind is None else {"Content-Type": kind}
            answer = books.request("POST", "/books",
                                   json.dumps({"isbn": isbn, **BOOK}), headers)
            t.equal(answer.status, status, f"status of {kind!r}")
            t.equal(books.get(isbn).status, 200 if status == 201 else 404,
                    f"stored as {kind!r}")
            answer = books.request("PUT", "/books/" + isbn,
                                   json.dumps({"isbn": isbn, **BOOK}), headers)
            t.equal(answer.status, 200 if status == 201 else 415,
                    f"PUT of {kind!r}")

    @t.case(f"{backend}: a compressed body is 415")
    def _():
        for coding, status in (("gzip", 415), ("identity", 201), ("br", 415),
                               ("identity, gzip", 415)):
            answer = books.post(new_isbn(), {"Content-Encoding": coding})
            t.equal(answer.status, status, f"status of {coding}")

    @t.case(f"{backend}: Accept that excludes JSON is 406")
    def _():
        book = books.new()
        isbn = book["isbn"]
        for accept, status in ACCEPTS:
            headers = {} if accept is None else {"Accept": accept}
            answer = books.get(isbn, headers)
            t.equal(answer.status, status, f"GET with {accept!r}")
            if status == 200:
                expect_book(answer, isbn=isbn)
            t.equal(books.request("GET", "/books", headers=headers).status,
                    status, f"list with {accept!r}")
            t.equal(books.put(isbn, headers).status, status,
                    f"PUT with {accept!r}")
            t.equal(books.request("GET", "/", headers=headers).status, 200,
                    f"greeting with {accept!r}")
        allowed = sum(status == 200 for _, status in ACCEPTS)
        expect_book(books.get(isbn), version=1 + allowed)
        other = new_isbn()
        t.equal(books.post(other, {"Accept": "text/html"}).status, 406, "POST")
        expect_not_found(books.get(other), other)
        t.equal(books.request("DELETE", f"/books/{isbn}",
                              headers={"Accept": "text/html"}).status, 204,
                "DELETE")


def test_problems(books, backend):
    ask = {"Accept": PROBLEM_TYPE}
    both = {"Accept": f"application/json, {PROBLEM_TYPE};q=0.9"}

    @t.case(f"{backend}: problem+json instead of the bare texts")
    def _():
        isbn = books.new()["isbn"]
        for headers in (ask, both):
            expect_problem(books.get("7", headers), 404, "Not Found",
                           "The book with ISBN 7 was not found.")
            expect_problem(books.get('a"%5Cb%0A'.replace('"', "%22"), headers),
                           404, "Not Found",
                           'The book with ISBN a"\\b\n was not found.')
            expect_problem(books.post(isbn, headers), 422,
                           "Unprocessable Content",
                           f"A book with ISBN {isbn} already exists.")
            expect_problem(books.get("%zz", headers), 400, "Bad Request", None)
            expect_problem(books.request("GET", "/no", headers=headers), 404,
                           "Not Found", None)
            expect_problem(books.request("DELETE", "/books", headers=headers),
                           405, "Method Not Allowed", None)
            expect_problem(books.request(
                "POST", "/books", b"x", {"Content-Type": "a/b", **headers}),
                415, "Unsupported Media Type", None)
            problem = expect_problem(books.request(
                "POST", "/books", b"{\n!", {"Content-Type": JSON_TYPE,
                                            **headers}),
                400, "Bad Request", None)
            t.check(WHERE.match(problem["detail"]), problem["detail"])

    @t.case(f"{backend}: problem+json has the failing fields")
    def _():
        problem = expect_problem(books.request("POST", "/books", {}, ask), 400,
                                 "Bad Request", None)
        t.equal(problem["errors"], UNDEFINED, "errors")

    @t.case(f"{backend}: problem+json changes no success")
    def _():
        isbn = new_isbn()
        expect_book(books.post(isbn, ask), 201, isbn=isbn)
        expect_book(books.get(isbn, ask), isbn=isbn)
        expect_book(books.put(isbn, ask), version=2)
        t.equal(books.request("DELETE", f"/books/{isbn}",
                              headers=ask).status, 204, "DELETE")


# ---- methods

ALLOW = {"/": "GET, HEAD, OPTIONS",
         "/books": "GET, HEAD, POST, OPTIONS",
         "/books/9780000000001": "GET, HEAD, PUT, DELETE, OPTIONS",
         "/livez": "GET, HEAD, OPTIONS", "/readyz": "GET, HEAD, OPTIONS",
         "/health": "GET, HEAD, OPTIONS",
         "/actuator/health": "GET, HEAD, OPTIONS"}


def same_head(answer, *but):
    """What GET and HEAD must have in common."""
    return (answer.status, answer.reason,
            {name: value for name, value in answer.headers.items()
             if name not in ("date", "age") + but})


def test_methods(books, backend):
    def expect_same_head(client, got, target):
        head = client.request("HEAD", target)
        t.equal(head.body, b"", f"body of HEAD {target}")
        t.equal(same_head(head), same_head(got), f"head of {target}")
        t.equal(client.request("GET", "/livez").body, b"alive",
                f"behind HEAD {target}")

    @t.case(f"{backend}: HEAD has the head of GET and no body")
    def _():
        isbn = books.new()["isbn"]
        for target in ("/", "/books", f"/books/{isbn}", "/books/7", "/no",
                       "/livez", "/readyz", "/health", "/actuator/health",
                       "/books/%zz", "/books/" + LONG_ISBN):
            with books.server.raw() as client:
                got = first = client.request("GET", target)
                while got.header("x-cache") not in (None, "hit"):
                    got = client.request("GET", target)
                expect_same_head(client, got, target)
                if target != "/books":  # its tag is known only afterwards
                    t.equal(same_head(got, "x-cache"),
                            same_head(first, "x-cache"), "from the database")

    @t.case(f"{backend}: HEAD of a list that is not kept has that of its GET")
    def _():
        with books.server.raw() as client:
            books.new()
            got = client.request("GET", "/books")
            books.new()
            expect_same_head(client, got, "/books")
            t.equal(got.header("x-cache"), "miss", "X-Cache")

    @t.case(f"{backend}: OPTIONS names the methods, and others are 405")
    def _():
        for target, allow in ALLOW.items():
            answer = books.request("OPTIONS", target)
            t.equal(answer.status, 200, f"OPTIONS {target}")
            t.equal(answer.header("allow"), allow, f"Allow of {target}")
            t.equal(answer.body, b"", "body")
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH",
                           "TRACE"):
                if method in allow.split(", "):
                    continue
                answer = books.request(method, target)
                t.equal(answer.status, 405, f"{method} {target}")
                t.equal(answer.header("allow"), allow, f"Allow of {target}")

    @t.case(f"{backend}: the greeting of the settings")
    def _():
        expect_text(books.request("GET", "/"), 200,
                    "Welcome to the AWSome Books catalogue!")

    @t.case(f"{backend}: the health endpoints")
    def _():
        for target in ("/health", "/actuator/health"):
            answer = books.request("GET", target)
            t.equal(answer.status, 200, target)
            t.equal(answer.body, b'{"status":"UP"}', target)
            t.equal(answer.header("content-type"), JSON_TYPE, target)
        expect_text(books.request("GET", "/livez"), 200, "alive")
        expect_text(books.request("GET", "/readyz"), 200, "ready")

    @t.case(f"{backend}: /readyz?verbose tells about back end and workers")
    def _():
        def told():
            answer = books.request("GET", "/readyz?verbose")
            t.equal(answer.status, 200, "status")
            t.equal(answer.header("content-type"), JSON_TYPE, "Content-Type")
            told = answer.json()
            # The second worker may still be connecting.
            return told if all(worker["database"] == "ready"
                               for worker in told["workers"]) else None
        told = t.eventually(told, "both workers have the database")
        t.equal((told["status"], told["database"], told["backend"]),
                ("ready", "ready", backend), "status, database, backend")
        pids = {worker["pid"] for worker in told["workers"]}
        t.equal(pids, set(books.server.worker_pids()), "pids")


# ---- the list

def test_list(pg, books, backend):
    @t.case(f"{backend}: GET /books is all books ordered by id")
    def _():
        for _ in range(3):
            books.new()
        answer = books.request("GET", "/books")
        t.equal(answer.status, 200, "status")
        t.equal(answer.header("content-type"), JSON_TYPE, "Content-Type")
        rows = json.loads(answer.body, object_pairs_hook=dict)
        ids = [book["id"] for book in rows]
        t.equal(ids, [int(line) for line in pg.sql(
            "SELECT id FROM book ORDER BY id").split()], "ids")
        with books.server.raw() as client:
            for book in rows[-3:]:
                single = client.request("GET", f"/books/{book['isbn']}")
                t.check(single.body in answer.body, "the same bytes")

    @t.case(f"{backend}: query parameters of the list are ignored")
    def _():
        t.equal(books.request("GET", "/books?page=2&size=%zz").body,
                books.request("GET", "/books").body, "body")


# ---- validators and conditions

ETAG = re.compile(r'"[0-9a-f]{16}"\Z')
SOURCES = {"hit", "miss", "stale", "coalesced"}
KEPT = ("etag", "last-modified", "cache-control", "vary")


def kept_fields(answer):
    return {name: answer.header(name) for name in KEPT}


def expect_kept(answer, status=200):
    """The fields of an answer to a read of books."""
    t.equal(answer.status, status, f"status of {answer.body!r}")
    t.equal(answer.header("cache-control"), "no-cache", "Cache-Control")
    t.equal(answer.header("vary"), "Accept", "Vary")
    source = answer.header("x-cache")
    t.check(source in SOURCES, f"X-Cache: {source}")
    t.check((answer.header("age") or "0").isdigit(), "Age")
    if source == "miss":
        t.equal(answer.header("age"), None, "Age of what is new")


def expect_not_modified(answer, fields):
    expect_kept(answer, 304)
    t.equal(answer.body, b"", "body")
    t.equal(answer.header("content-type"), None, "Content-Type")
    t.equal(kept_fields(answer), fields, "fields")


def http_date(instant, seconds=0):
    """IMF-fixdate of a book's date and some seconds, in English."""
    moment = datetime.datetime.strptime(
        instant, "%Y-%m-%dT%H:%M:%S.%fZ") + datetime.timedelta(0, seconds)
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[moment.weekday()]
    month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep",
             "Oct", "Nov", "Dec")[moment.month - 1]
    return (f"{day}, {moment.day:02d} {month} {moment.year:04d} "
            f"{moment:%H:%M:%S} GMT")


def test_validators(pg, books, backend):
    @t.case(f"{backend}: a book has one ETag and one date wherever it is shown")
    def _():
        isbn = new_isbn()
        created = books.post(isbn)
        book = expect_book(created, 201)
        t.check(ETAG.match(created.header("etag") or ""), "ETag of POST")
        t.equal(created.header("last-modified"),
                http_date(book["lastModifiedDate"]), "Last-Modified of POST")
        for turn in range(6):
            for method in ("GET", "HEAD"):
                answer = books.request(method, f"/books/{isbn}")
                expect_kept(answer)
                t.equal(answer.header("content-type"), JSON_TYPE, "type")
                for name in ("etag", "last-modified"):
                    t.equal(answer.header(name), created.header(name),
                            f"{name} of {method} {turn}")
        changed = books.put(isbn)
        t.equal((changed.header("etag"), changed.header("last-modified")),
                (None, None), "validators of PUT, which stored more than it got")
        after = books.get(isbn)
        t.check(ETAG.match(after.header("etag")), "ETag of GET after PUT")
        t.check(after.header("etag") != created.header("etag"),
                "a version has an ETag of its own")

    @t.case(f"{backend}: a book that was stored again has another ETag")
    def _():
        isbn = new_isbn()
        tags = set()
        for _ in range(3):
            tags.add(books.post(isbn).header("etag"))
            tags.add(books.get(isbn).header("etag"))
            books.request("DELETE", f"/books/{isbn}")
        t.equal(len(tags), 3, f"ETags {tags}")

    @t.case(f"{backend}: what is no book has no validators")
    def _():
        isbn = new_isbn()
        for _ in range(3):
            answer = books.get(isbn)
            expect_not_found(answer, isbn)
            expect_kept(answer, 404)
            problem = books.get(isbn, headers={"Accept": PROBLEM_TYPE})
            expect_problem(problem, 404, "Not Found",
                           f"The book with ISBN {isbn} was not found.")
            expect_kept(problem, 404)
            for each in (answer, problem):
                t.equal((each.header("etag"), each.header("last-modified")),
                        (None, None), "validators")
        for method, path in (("GET", "/"), ("GET", "/livez"), ("GET", "/x"),
                             ("POST", f"/books/{isbn}"),
                             ("DELETE", f"/books/{isbn}")):
            answer = books.request(method, path)
            for name in KEPT + ("x-cache", "age"):
                t.equal(answer.header(name), None, f"{name} of {path}")

    @t.case(f"{backend}: a condition that names the present state is 304")
    def _():
        isbn = books.new()["isbn"]
        fields = kept_fields(books.get(isbn))
        tag = fields["etag"]
        for method in ("GET", "HEAD"):
            for value in (tag, "W/" + tag, f'"x", {tag}', "*",
                          f'"0000000000000000" , {tag}'):
                expect_not_modified(books.request(
                    method, f"/books/{isbn}",
                    headers={"If-None-Match": value}), fields)
            for value in ('"x"', tag.upper(), tag[1:-1], ""):
                answer = books.request(method, f"/books/{isbn}",
                                       headers={"If-None-Match": value})
                expect_kept(answer)
                t.equal(kept_fields(answer), fields, f"{value}: fields")

    @t.case(f"{backend}: If-Modified-Since counts when it is alone")
    def _():
        book = books.new()
        isbn, date = book["isbn"], book["lastModifiedDate"]
        fields = kept_fields(books.get(isbn))
        for turn in range(3):
            for headers, status in (
                    ({"If-Modified-Since": http_date(date)}, 304),
                    ({"If-Modified-Since": http_date(date, 5)}, 304),
                    ({"If-Modified-Since": http_date(date, -1)}, 200),
                    ({"If-Modified-Since": "yesterday"}, 200),
                    ({"If-Modified-Since": http_date(date, 5),
                      "If-None-Match": '"x"'}, 200),
                    ({"If-Modified-Since": http_date(date, -1),
                      "If-None-Match": fields["etag"]}, 304)):
                answer = books.get(isbn, headers=headers)
                t.equal(answer.status, status, f"{turn}: {headers}")

    @t.case(f"{backend}: after a change the old ETag is answered in full")
    def _():
        isbn = books.new()["isbn"]
        with books.server.raw() as client:
            for version in range(2, 12):
                old = client.request("GET", f"/books/{isbn}").header("etag")
                client.request("PUT", f"/books/{isbn}",
                               {"isbn": isbn, **BOOK})
                expect_book(client.request(
                    "GET", f"/books/{isbn}", headers={"If-None-Match": old}),
                    version=version)

    @t.case(f"{backend}: conditions change nothing about errors and writes")
    def _():
        isbn, condition = new_isbn(), {"If-None-Match": "*"}
        expect_not_found(books.get(isbn, headers=condition), isbn)
        book = expect_book(books.post(isbn, headers=condition), 201)
        expect_book(books.put(isbn, headers=condition), version=2)
        t.equal(books.request("GET", f"/books/{isbn}", headers={
            **condition, "Accept": "text/html"}).status, 406, "status")
        t.equal(books.request("DELETE", f"/books/{isbn}",
                              headers=condition).status, 204, "status")
        expect_not_found(books.get(isbn, headers=condition), book["isbn"])

    @t.case(f"{backend}: a list that was kept has an ETag until a book changes")
    def _():
        pg.sql("DELETE FROM book")  # or it might be too long to be kept
        isbn = books.new()["isbn"]

        def kept():
            answer = books.request("GET", "/books")
            expect_kept(answer)
            return answer if answer.header("etag") else None
        first = t.eventually(kept, "the list comes from the cache")
        t.check(ETAG.match(first.header("etag")), first.header("etag"))
        t.equal(first.header("last-modified"), None, "Last-Modified")
        expect_not_modified(
            books.request("GET", "/books", headers={
                "If-None-Match": first.header("etag")}), kept_fields(first))
        head = books.request("HEAD", "/books")
        t.equal(kept_fields(head), kept_fields(first), "fields of HEAD")
        t.equal(head.header("content-length"), str(len(first.body)), "length")
        books.put(isbn)
        answer = books.request("GET", "/books", headers={
            "If-None-Match": first.header("etag")})
        expect_kept(answer)
        t.check(answer.body != first.body, "the change is in the list")


# ---- races

def at_once(count, function):
    """function(number) on so many threads that begin together: what they
    returned, in any order."""
    barrier, results, lock = threading.Barrier(count), [], threading.Lock()

    def run(number):
        try:
            barrier.wait(20)
            result = function(number)
        except Exception as error:  # must not look like an answer
            result = error
        with lock:
            results.append(result)

    threads = [threading.Thread(target=run, args=(number,), daemon=True)
               for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    t.equal(len(results), count, "threads that ended")
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def test_races(pg, books, backend):
    @t.case(f"{backend}: concurrent PUTs of one ISBN lose no version")
    def _():
        isbn, each = books.new()["isbn"], 8

        def put(number):
            with books.server.raw(30) as client:
                return [client.request(
                    "PUT", f"/books/{isbn}",
                    {"isbn": isbn, **BOOK, "title": f"{number}-{turn}"})
                    for turn in range(each)]
        answers = sum(at_once(CLIENTS, put), [])
        versions, dates = [], {}
        for answer in answers:
            book = expect_book(answer)
            versions.append(book["version"])
            dates[book["version"]] = book["lastModifiedDate"]
        t.equal(sorted(versions), list(range(2, CLIENTS * each + 2)),
                "each version once")
        ordered = [dates[version] for version in sorted(dates)]
        t.check(all(a < b for a, b in zip(ordered, ordered[1:])),
                "a later version has a later date")
        expect_book(books.get(isbn), version=CLIENTS * each + 1)

    @t.case(f"{backend}: of concurrent POSTs of one ISBN exactly one is 201")
    def _():
        for _ in range(5):
            isbn = new_isbn()
            answers = at_once(CLIENTS, lambda number, isbn=isbn: books.post(
                isbn, title=str(number)))
            made = [one for one in answers if one.status == 201]
            t.equal(len(made), 1, "how many 201")
            for answer in answers:
                if answer.status != 201:
                    expect_exists(answer, isbn)
            t.equal(books.get(isbn).body, made[0].body, "what is stored")

    @t.case(f"{backend}: concurrent PUTs of one unknown ISBN are all 200")
    def _():
        for _ in range(5):
            isbn = new_isbn()
            answers = at_once(CLIENTS, lambda number, isbn=isbn: books.put(
                isbn, title=str(number)))
            versions = [expect_book(one, isbn=isbn)["version"]
                        for one in answers]
            t.equal(sorted(versions), list(range(1, CLIENTS + 1)),
                    "each version once")

    @t.case(f"{backend}: PUT, POST and DELETE of one ISBN at once: no 500")
    def _():
        isbn = new_isbn()

        def mix(number):
            statuses = []
            for _ in range(6):
                if number % 3 == 0:
                    statuses.append(("PUT", books.put(isbn).status))
                elif number % 3 == 1:
                    statuses.append(("DELETE", books.request(
                        "DELETE", f"/books/{isbn}").status))
                else:
                    statuses.append(("POST", books.post(isbn).status))
            return statuses
        expected = {"PUT": {200, 503}, "DELETE": {204}, "POST": {201, 422}}
        seen = set(sum(at_once(CLIENTS, mix), []))
        for method, status in seen:
            t.check(status in expected[method], f"{method} answered {status}")
        t.check(("POST", 201) in seen, "no POST came through")
        count = pg.sql(f"SELECT count(*) FROM book WHERE isbn = '{isbn}'")
        t.check(count in "01", f"{count} rows")


# ---- the access log

def test_log(books, backend):
    def line_of(request_id):
        lines = [line for line in books.server.access()
                 if line.get("request_id") == request_id]
        return lines[0] if lines else None

    isbns = []  # that of the book which all of these are about
    for method, path, route, status in (
            ("GET", "/books/{}", "/books/{isbn}", 200),
            ("PUT", "/books/{}?x=y", "/books/{isbn}", 200),
            ("POST", "/books", "/books", 422),
            ("GET", "/books", "/books", 200),
            ("DELETE", "/books/{}/", "/books/{isbn}", 204),
            ("GET", "/books/{}", "/books/{isbn}", 404)):
        @t.case(f"{backend}: the access line of {method} {path}: {status}")
        def _(method=method, path=path, route=route, status=status):
            if not isbns:
                isbns.append(books.new()["isbn"])
            isbn = isbns[0]
            request_id = f"it-{backend}-{method}-{path}-{status}"
            answer = books.request(
                method, path.format(isbn),
                {"isbn": isbn, **BOOK} if method in ("PUT", "POST") else None,
                {"X-Request-Id": request_id,
                 "X-Amzn-Trace-Id": "Self=1-2-3;Root=1-6789abcd-12;Sampled=1"})
            t.equal(answer.status, status, "status")
            line = t.eventually(lambda: line_of(request_id), "the line")
            t.equal((line["method"], line["route"], line["status"]),
                    (method, route, status), "method, route, status")
            t.equal(line["target"], path.format(isbn), "target")
            t.equal(line["bytes"], len(answer.body), "bytes")
            t.equal(line["trace_root"], "1-6789abcd-12", "trace root")
            t.check(0 < line["database_us"] <= line["duration_us"],
                    f"times {line}")
            t.check(line["worker"] in (0, 1, 2), f"worker {line['worker']}")

    @t.case(f"{backend}: an access line without the database says so")
    def _():
        books.request("GET", "/nowhere", headers={
            "X-Request-Id": f"nowhere-{backend}"})
        line = t.eventually(lambda: line_of(f"nowhere-{backend}"), "the line")
        t.equal((line["route"], line["status"], line["database_us"]),
                ("none", 404, 0), "route, status, database_us")

    @t.case(f"{backend}: nothing of all this was an error")
    def _():
        t.equal([line for line in books.server.errors()
                 if line["level"] == "error"], [], "error lines")
        t.equal([line for line in books.server.access()
                 if line.get("status", 0) == 500], [], "answers 500")


def main():
    with t.Postgres() as pg:
        for backend in t.backends():
            with t.Booksd({"database": pg.conninfo, "io_backend": backend,
                           "workers": 2}, wait="readyz") as server:
                books = Books(server)
                test_post(books, backend)
                test_get(pg, books, backend)
                test_put(pg, books, backend)
                test_delete(books, backend)
                test_numbers(pg, books, backend)
                test_validation(books, backend)
                test_bad_bodies(books, backend)
                test_media(books, backend)
                test_problems(books, backend)
                test_methods(books, backend)
                test_list(pg, books, backend)
                test_validators(pg, books, backend)
                test_races(pg, books, backend)
                test_log(books, backend)


if __name__ == "__main__":
    main()
    t.done()
