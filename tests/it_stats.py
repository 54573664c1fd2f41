#!/usr/bin/env python3
"""Goal: what the shared memory counts is what the clients counted, exactly:
each request once, by route, method and status, whatever it was and however it
ended, each byte, each statement, each error; and nothing of it is lost when
workers die.
Method: clients that keep book ask everything there is on both back ends; what
the memory says is read by a small program that maps it, and differences
between two readings are compared with the books.
"""
import collections
import json
import os
import signal
import subprocess

import booksd_test as t

DUMP = os.path.join(t.BUILDDIR, "tests", "stats_dump")
BODY = {"title": "The title", "author": "An author", "price": 9.5}
H = b"Host: a\r\n"
DEPTH_MAX = 64  # statements on a connection; more wait
PATIENT = {"database_acquire_timeout": "60s",
           "database_statement_timeout": "60s"}

new_isbn = t.Isbns()


def dump(server):
    done = subprocess.run([DUMP, str(server.pid)], stdout=subprocess.PIPE,
                          timeout=20, check=True)
    return json.loads(done.stdout)


class Reading:
    """What the memory says at a moment when nothing is under way."""

    def __init__(self, server):
        self.server = server
        # Without connections all that was sent has been counted as well.
        self.data = t.eventually(self._quiet, "no connection is open")

    def _quiet(self):
        data = dump(self.server)
        return (not any(worker["connections"] or worker["requests_open"]
                        for worker in data["workers"]) and data)

    def requests(self):
        return collections.Counter(
            {tuple(key): count for *key, count in self.data["requests"]})

    def counter(self, name):
        return self.data["counters"][name]


class Book:
    """What clients sent and what was answered, between two readings."""

    def __init__(self, server):
        self.server = server
        self.wanted = collections.Counter()
        self.sent = self.received = self.connections = 0
        self.before = Reading(server)

    def client(self):
        self.connections += 1
        return Client(self)

    def count(self, route, method, status, times=1):
        self.wanted[(route, method, status)] += times

    def difference(self, name):
        return self.after.counter(name) - self.before.counter(name)

    def compare(self):
        """The second reading, and that it agrees with us."""
        self.after = Reading(self.server)
        t.equal(+(self.after.requests() - self.before.requests()),
                +self.wanted, "requests")
        routes = collections.Counter()
        for (route, _, _), count in self.wanted.items():
            routes[route] += count
        for route, (count, _) in self.after.data["duration"].items():
            t.equal(count - self.before.data["duration"][route][0],
                    routes[route], f"durations of {route}")
        t.equal(self.difference("connections"), self.connections,
                "connections")

    def compare_bytes(self):
        t.equal(self.difference("received"), self.sent, "bytes received")
        t.equal(self.difference("sent"), self.received, "bytes sent")


class Client(t.Raw):
    """Counts its bytes."""

    def __init__(self, book):
        self.book = book
        super().__init__(book.server.address, 20)

    def send(self, data):
        super().send(data)
        self.book.sent += len(data)

    def _more(self):
        before = len(self.buffer)
        more = super()._more()
        self.book.received += len(self.buffer) - before
        return more

    def ask(self, route, method, target, status, **more):
        answer = self.request(method, target, **more)
        t.equal(answer.status, status, f"{method} {target}")
        word = method if method in METHODS else "OTHER"
        self.book.count(route, word, answer.status)
        return answer


METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
PLAIN = {"/": "/", "/livez": "/livez", "/readyz": "/readyz",
         "/health": "/health", "/actuator/health": "/actuator/health",
         "/books": "/books", "/books/none": "/books/{isbn}",
         "/nowhere": "none"}


def ask_all_methods(client):
    for target, route in PLAIN.items():
        for method in METHODS + ("PATCH",):
            answer = client.request(method, target)
            word = method if method in METHODS else "OTHER"
            client.book.count(route, word, answer.status)
    client.ask("*", "OPTIONS", "*", 200)


def ask_books(client):
    """Every status that a book can have, from the cache and without it."""
    isbn = new_isbn()
    one, book = f"/books/{isbn}", {"isbn": isbn, **BODY}
    client.ask("/books", "POST", "/books", 201, body=book)
    client.ask("/books", "POST", "/books", 422, body=book)
    client.ask("/books", "POST", "/books", 400, body={"isbn": 1})
    client.ask("/books", "POST", "/books", 415, body="x",
               headers={"Content-Type": "text/plain"})
    etag = client.ask("/books/{isbn}", "GET", one, 200).header("etag")
    for _ in range(5):
        client.ask("/books/{isbn}", "GET", one, 200)
        client.ask("/books/{isbn}", "HEAD", one, 200)
        client.ask("/books/{isbn}", "GET", one, 304,
                   headers={"If-None-Match": etag})
        client.ask("/books", "GET", "/books", 200)
        client.ask("/books", "HEAD", "/books", 200)
    client.ask("/books/{isbn}", "PUT", one, 200, body=book)
    client.ask("/books/{isbn}", "DELETE", one, 204)
    client.ask("/books/{isbn}", "DELETE", one, 204)
    for _ in range(3):
        client.ask("/books/{isbn}", "GET", one, 404)


def ask_pipelined(client, isbn):
    """Many in one piece: the answers are in their order."""
    plan = [("/", "GET", "/"), ("/books/{isbn}", "GET", f"/books/{isbn}"),
            ("/books/{isbn}", "HEAD", f"/books/{isbn}"),
            ("none", "GET", "/no"), ("/livez", "GET", "/livez")] * 40
    client.send(b"".join(t.make_request(method, target)
                         for _, method, target in plan))
    for route, method, _ in plan:
        answer = client.read_response(method)
        client.book.count(route, method, answer.status)


def ask_chunked(client):
    body = json.dumps({"isbn": new_isbn(), **BODY}).encode()
    head = (b"POST /books HTTP/1.1\r\n" + H +
            b"Content-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n")
    client.send_slowly(head + b"5\r\n" + body[:5] + b"\r\n%x\r\n" %
                       len(body[5:]) + body[5:] + b"\r\n0\r\n\r\n", 60)
    t.equal(client.read_response().status, 201, "a chunked POST")
    client.book.count("/books", "POST", 201)
    client.send(head + b"zz\r\n")
    t.equal(client.read_response().status, 400, "a bad chunk")
    client.book.count("/books", "POST", 400)
    client.read_eof()


# bytes, and what they are counted as
MALFORMED = [
    (b"G@T / HTTP/1.1\r\n" + H + b"\r\n", "OTHER", 400),
    (b"GET / HTTP/2.0\r\n" + H + b"\r\n", "GET", 505),
    (b"GET / HTTP/1.1\r\n\r\n", "GET", 400),
    (b"HEAD / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "HEAD", 400),
    (b"POST /books HTTP/1.1\r\n" + H + b"Content-Length: x\r\n\r\n", "POST",
     400),
    (b"PUT /books/1 HTTP/1.1\r\n" + H + b"Transfer-Encoding: gzip\r\n\r\n",
     "PUT", 501),
    (b"GET / HTTP/1.1\r\n" + H + b"X: " + b"a" * 70000 + b"\r\n\r\n", "GET",
     431),
    (b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n" + H + b"\r\n", "GET", 414),
    (b"POST /books HTTP/1.1\r\n" + H + b"Content-Length: 99999999\r\n\r\n",
     "POST", 413),
]


def ask_malformed(book):
    for data, _, status in MALFORMED:
        with book.client() as client:
            client.send(data)
            t.equal(client.read_head().status, status, f"of {data[:60]!r}")
            client.read_eof()


def wait_for_worker(server, name, value, what):
    return t.eventually(
        lambda: sum(worker[name] for worker in dump(server)["workers"])
        == value, what, 20)


def crowd(book, count):
    """count clients, each of which has asked for a book of its own."""
    clients = [book.client() for _ in range(count)]
    for client in clients:
        client.send(t.make_request("GET", f"/books/{new_isbn()}"))
    return clients


with t.Postgres() as pg:
    for backend in t.backends():
        with t.Booksd({"io_backend": backend, "workers": 2,
                       "database": pg.conninfo, "cache_heartbeat": "1h",
                       "header_timeout": "1s", "body_timeout": "1s"},
                      wait="readyz") as server:
            t.eventually(lambda: server.errors("notify_ready"), "it listens")

            @t.case(f"{backend}: every route, method and status is counted "
                    "once, and every byte")
            def _():
                book = Book(server)
                for _ in range(4):  # both workers have some
                    with book.client() as client:
                        ask_all_methods(client)
                        ask_books(client)
                        ask_pipelined(client, new_isbn())
                        ask_chunked(client)
                book.compare()
                book.compare_bytes()
                t.equal(book.difference("malformed"), 0, "malformed")
                t.equal(book.difference("aborted"), 0, "aborted")

            @t.case(f"{backend}: each statement is counted and timed")
            def _():
                book = Book(server)
                with book.client() as client:
                    ask_books(client)
                book.compare()
                queries = book.difference("database_queries")
                t.check(queries >= 6, f"{queries} statements")
                t.equal(book.after.data["database"][0] -
                        book.before.data["database"][0], queries,
                        "timed statements")
                t.equal(book.difference("database_waits"), 0, "waits")

            @t.case(f"{backend}: what is no request is counted without a route")
            def _():
                book = Book(server)
                ask_malformed(book)
                for _, method, status in MALFORMED:
                    book.count("none", method, status)
                book.compare()
                t.equal(book.difference("malformed"), len(MALFORMED),
                        "malformed")

            @t.case(f"{backend}: who takes too long is counted")
            def _():
                book = Book(server)
                head = b"POST /books HTTP/1.1\r\n" + H
                for data, route, method in (
                        (b"GET / HTTP/1.1\r\n", "none", "OTHER"),
                        (head + b"Content-Type: application/json\r\n"
                         b"Content-Length: 9\r\n\r\n{", "/books", "POST")):
                    with book.client() as client:
                        client.send(data)
                        t.equal(client.read_response().status, 408, "status")
                        client.read_eof()
                        book.count(route, method, 408)
                book.compare()
                t.equal(book.difference("timeouts"), 2, "timeouts")

            @t.case(f"{backend}: a client that leaves is a 499")
            def _():
                book = Book(server)
                with t.Session(pg, "BEGIN;", "LOCK TABLE book;"):
                    clients = crowd(book, 5)
                    wait_for_worker(server, "requests_open", 5,
                                    "five requests are under way")
                    for client in clients:
                        client.abort()
                    wait_for_worker(server, "requests_open", 0,
                                    "nobody waits any more")
                book.count("/books/{isbn}", "GET", 499, 5)
                book.compare()
                t.equal(book.difference("aborted"), 5, "aborted")

            @t.case(f"{backend}: a statement's error is counted by SQLSTATE")
            def _():
                book = Book(server)
                isbn = new_isbn()
                pg.sql("CREATE FUNCTION bad() RETURNS trigger AS $$ BEGIN"
                       " RAISE EXCEPTION 'no' USING ERRCODE = 'BK042';"
                       " END $$ LANGUAGE plpgsql;"
                       "CREATE TRIGGER bad BEFORE INSERT ON book"
                       " FOR EACH ROW EXECUTE FUNCTION bad()")
                try:
                    with book.client() as client:
                        for _ in range(3):
                            answer = client.request(
                                "POST", "/books", {"isbn": isbn, **BODY})
                            book.count("/books", "POST", answer.status)
                finally:
                    pg.sql("DROP FUNCTION bad() CASCADE")
                book.compare()
                t.equal(book.after.data["sqlstate"].get("BK042", 0) -
                        book.before.data["sqlstate"].get("BK042", 0), 3,
                        "BK042")

            @t.case(f"{backend}: the numbers survive the deaths of workers")
            def _():
                book = Book(server)
                with book.client() as client:
                    ask_books(client)
                book.compare()
                for pid in server.worker_pids():
                    os.kill(pid, signal.SIGKILL)
                t.eventually(lambda: len(server.worker_pids()) == 2 and
                             all(worker["state"] == "serving" for worker in
                                 dump(server)["workers"]), "new workers", 20)
                book.compare()
                with book.client() as client:
                    ask_all_methods(client)
                book.compare()
                server.wait_for("readyz")

        with t.Booksd({"io_backend": backend, "workers": 1, **PATIENT,
                       "database": pg.conninfo, "database_connections": 2,
                       "access_log": "off"}, wait="readyz") as server:

            @t.case(f"{backend}: who waits for a connection is counted")
            def _():
                t.eventually(lambda: dump(server)["workers"][0]
                             ["db_connections"] == 2, "both connections")
                book = Book(server)
                with t.Session(pg, "BEGIN;", "LOCK TABLE book;"):
                    clients = crowd(book, 2 * DEPTH_MAX + 12)
                    wait_for_worker(server, "requests_open", len(clients),
                                    "all are under way")
                    now = dump(server)["workers"][0]
                    t.equal(now["db_busy"], 2, "connections that work")
                    t.equal(now["db_waiting"], 12, "requests that wait")
                for client in clients:
                    t.equal(client.read_response().status, 404, "status")
                    client.close()
                book.count("/books/{isbn}", "GET", 404, len(clients))
                book.compare()
                t.equal(book.difference("database_waits"), 12, "waits")
                t.equal(book.after.data["database_wait"][0] -
                        book.before.data["database_wait"][0], 12,
                        "timed waits")
                t.equal(book.difference("database_queries"), len(clients),
                        "statements")

            @t.case(f"{backend}: a lost connection is counted with its reason")
            def _():
                before = dump(server)
                pg.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                       " WHERE usename = 'books' AND datname = 'books'"
                       " AND query NOT LIKE 'LISTEN%'")
                t.eventually(lambda: dump(server)["counters"]
                             ["database_opened"] ==
                             before["counters"]["database_opened"] + 2,
                             "two new connections")
                after = dump(server)
                t.equal(after["counters"]["database_lost"] -
                        before["counters"]["database_lost"], 2, "lost")
                t.equal(after["sqlstate"].get("57P01", 0) -
                        before["sqlstate"].get("57P01", 0), 2, "57P01")

            @t.case(f"{backend}: an idle worker's heart beats")
            def _():
                first = dump(server)["workers"][0]
                turns = dump(server)["counters"]["turns"]
                t.eventually(lambda: dump(server)["counters"]["turns"] >
                             turns + 3, "turns without work", 10)
                last = dump(server)["workers"][0]
                t.equal(last["doing"], "waiting", "doing")
                t.check(last["heartbeat_age_us"] < 5000000,
                        f"{last['heartbeat_age_us']} us since a heartbeat")
                t.check(last["cpu_us"] >= first["cpu_us"], "CPU time")
                t.check(last["busy_permille"] < 500, f"busy {last}")

            @t.case(f"{backend}: a loaded worker says that it is busy")
            def _():
                with t.Load(server.address, 32, ["/livez"]) as load:
                    load.wait_for(1000)
                    t.eventually(lambda: dump(server)["workers"][0]
                                 ["busy_permille"] > 100, "busy", 20)
                worker = dump(server)["workers"][0]
                t.check(worker["cpu_us"] > 0 and worker["busy_us"] > 0,
                        f"no time: {worker}")
t.done()
