#!/usr/bin/env python3
"""Goal: GET /books is one snapshot of any number of rows, sent in bounded
memory at the pace of its client, at nobody else's expense, and a list that was
cut is never taken for a whole one.
Method: two tables, of 120,000 rows (more than all buffers on the way hold) and
of a million; clients that read fast, 10 KiB/s, not at all, or go away; the
database's own view of its sessions tells what a stream holds meanwhile.
"""
import contextlib
import json
import re
import socket
import statistics
import threading
import time

import booksd_test as t

BIG_ROWS = 1000000
ROWS = 120000
MEMORY_MAX_KIB = 64 << 10
SLOW_SECONDS = 10
FIRST_ISBN = 9780000000000
BODY = {"title": "T", "author": "A", "price": 1}
# What a stream's session runs; not the session that asks.
STREAMS = ("SELECT count(*) FROM pg_stat_activity WHERE usename = 'books'"
           " AND state = 'active' AND query LIKE '%ORDER BY id%'")


def fill(pg, name, rows):
    """A database with that many books: its conninfo."""
    conninfo = pg.create_database(name)
    done = t.booksctl("migrate", database=conninfo)
    t.equal(done.returncode, 0, f"booksctl migrate: {done.stderr}")
    # Indexes that are made at the end take half the time.
    pg.sql("ALTER TABLE book DROP CONSTRAINT book_pkey,"
           " DROP CONSTRAINT book_isbn_key;"
           " INSERT INTO book (isbn, author, title, price, version,"
           f" created_date, last_modified_date) SELECT {FIRST_ISBN} + n,"
           " 'Author ' || n % 1000, 'The title of book number ' || n, n / 1e2,"
           " 1, '2026-01-02 03:04:05', '2026-01-02 03:04:05'"
           f" FROM generate_series(1, {rows}) AS n;"
           " ALTER TABLE book ADD PRIMARY KEY (id), ADD UNIQUE (isbn);"
           " VACUUM ANALYZE book", name)
    return conninfo


def isbn_of(number):
    return str(FIRST_ISBN + number)


# ---- reading a list without holding it

class ListCheck:
    """Takes the bytes of a list piece by piece: is it one JSON array of books
    ordered by id?"""

    def __init__(self):
        self.rest, self.count, self.last_id, self.bytes = b"", 0, 0, 0
        self.isbns = None  # a set to collect them in
        self.begun = False

    def take(self, data):
        self.bytes += len(data)
        data = self.rest + data
        if not self.begun:
            t.equal(data[:1], b"[", "the first byte")
            data, self.begun = data[1:], True
        # Texts hold no quotes, so this is the border between two books.
        border = data.rfind(b'},{"id":')
        if border >= 0:
            self._check(data[:border + 1])
            data = data[border + 2:]
        self.rest = data

    def _check(self, elements):
        for book in json.loads(b"[" + elements + b"]"):
            t.check(book["id"] > self.last_id, "ids ascend")
            self.last_id = book["id"]
            self.count += 1
            if self.isbns is not None:
                self.isbns.add(book["isbn"])

    def end(self):
        t.equal(self.rest[-1:], b"]", "the last byte")
        if self.rest != b"]":
            self._check(self.rest[:-1])


class ListClient:
    """A client of GET /books that reads as much as it is told to."""

    def __init__(self, server, receive_buffer=None, version="1.1", seconds=20):
        self.raw = server.raw(seconds, receive_buffer=receive_buffer)
        self.raw.send(f"GET /books HTTP/{version}\r\nHost: a\r\n\r\n")
        self.head = self.raw.read_head()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.raw.close()

    def chunks(self):
        """The chunks of the rest of the body, one by one; Truncated when it
        ends before the last one."""
        while True:
            try:
                line = self.raw.recv_until(b"\r\n")
                size = int(line, 16)
                data = self.raw._take(size + 2)
            except ConnectionResetError:
                raise t.Truncated("reset") from None
            t.equal(data[-2:], b"\r\n", "after a chunk")
            if size == 0:
                return
            yield data[:-2]

    def hurry(self):
        """From now on as much as possible at a time."""
        self.raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF,
                                   1 << 20)

    def read(self, check=None):
        """Read to the end: what was checked on the way."""
        check = check or ListCheck()
        self.hurry()
        for chunk in self.chunks():
            check.take(chunk)
        check.end()
        return check

    def read_slowly(self, seconds, bytes_per_second):
        """Raw bytes, at a steady pace."""
        taken, begun = 0, time.monotonic()
        while (now := time.monotonic() - begun) < seconds:
            want = int(now * bytes_per_second) - taken
            if want > 0:
                data = self.raw.socket.recv(want)
                t.check(data, "the server closed")
                self.raw.buffer += data
                taken += len(data)
            time.sleep(0.02)
        return taken


def slow(server, **more):
    """A client that has the head, and whose window is full soon."""
    client = ListClient(server, receive_buffer=4096, **more)
    t.equal(client.head.status, 200, "status of a slow list")
    return client


def expect_cut(client):
    """The rest of the list ends without its last chunk."""
    client.hurry()
    try:
        for _ in client.chunks():
            pass
    except t.Truncated:
        return
    t.check(False, "the list ended as if it was whole")


def streams(pg):
    return int(pg.sql(STREAMS, "postgres"))


def expect_busy(answer):
    t.equal(answer.status, 503, f"status of {answer.body[:100]!r}")
    retry = answer.header("retry-after")
    t.check(retry and retry.isdigit() and int(retry) > 0,
            f"Retry-After {retry!r}")


def list_status(server):
    with ListClient(server) as client:
        return client.head.status


# ---- small lists

def test_small(pg, server, backend):
    def empty():
        pg.sql("DELETE FROM book")

    @t.case(f"{backend}: an empty table is []")
    def _():
        empty()
        answer = server.request("GET", "/books")
        t.equal((answer.status, answer.body), (200, b"[]"), "answer")
        t.equal(answer.header("content-type"), "application/json", "type")
        t.equal(answer.header("transfer-encoding"), "chunked", "coding")

    @t.case(f"{backend}: the order is that of the ids, not of the rows")
    def _():
        empty()
        for number in (3, 1, 2):
            pg.sql("INSERT INTO book (id, isbn, author, title, price, version,"
                   " created_date, last_modified_date) VALUES"
                   f" ({number}, '{number}', 'A', 'T', 1, 1, now(), now())")
        pg.sql("UPDATE book SET version = 2 WHERE id = 1;"
               " SELECT setval('book_id_seq', greatest(100,"
               " (SELECT last_value FROM book_id_seq)))")
        books = server.request("GET", "/books").json()
        t.equal([book["id"] for book in books], [1, 2, 3], "ids")

    @t.case(f"{backend}: HTTP/1.0 gets the list until the connection closes")
    def _():
        plain = server.request("GET", "/books").body
        with server.raw() as client:
            client.send("GET /books HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            head = client.read_head()
            t.equal(head.status, 200, "status")
            for name in ("transfer-encoding", "content-length"):
                t.equal(head.header(name), None, name)
            t.equal(head.header("connection"), "close", "Connection")
            t.equal(client.read_eof(), plain, "body")

    @t.case(f"{backend}: requests behind a list are answered in their order")
    def _():
        put = t.make_request("PUT", "/books/9780000000009",
                             {"isbn": "9780000000009", **BODY})
        one = t.make_request("GET", "/books/9780000000009")
        lists = t.make_request("GET", "/books")
        with server.raw() as client:
            client.send(lists + one + put + one + lists +
                        t.make_request("DELETE", "/books/9780000000009") +
                        lists + t.make_request("GET", "/livez"))
            answers = [client.read_response(method) for method in (
                "GET", "GET", "PUT", "GET", "GET", "DELETE", "GET", "GET")]
        t.equal([answer.status for answer in answers],
                [200, 404, 200, 200, 200, 204, 200, 200], "statuses")
        t.equal([len(answers[number].json()) for number in (0, 4, 6)],
                [3, 4, 3], "books in the lists")
        t.equal(answers[7].body, b"alive", "the last one")

    @t.case(f"{backend}: books of the longest titles fill many buffers")
    def _():
        empty()
        title = "\U0001f4da" * 255
        for number in range(40):
            t.equal(server.request("POST", "/books", {
                "isbn": isbn_of(number), **BODY, "title": title}).status, 201,
                "POST")
        books = server.request("GET", "/books").json()
        t.equal([book["title"] for book in books], [title] * 40, "titles")


# ---- a million rows

def memory_kib(pid):
    """(peak resident, anonymous now)"""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        peak = int(re.search(r"VmHWM:\s*([0-9]+)", file.read())[1])
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        anonymous = int(re.search(r"\nAnonymous:\s*([0-9]+)", file.read())[1])
    return peak, anonymous


def test_million(server, backend):
    @t.case(f"{backend}: a million rows need little memory")
    def _():
        pid = server.worker_pids()[0]
        # One client that stalls and one that reads: both ends of the range.
        with slow(server), ListClient(server) as client:
            check, peak, anonymous = ListCheck(), 0, 0
            for number, chunk in enumerate(client.chunks()):
                check.take(chunk)
                if number % 1000 == 0:
                    now = memory_kib(pid)
                    peak, anonymous = now[0], max(anonymous, now[1])
            check.end()
            peak = memory_kib(pid)[0]
        t.equal(check.count, BIG_ROWS, "books")
        t.diag(f"{check.bytes >> 20} MiB of JSON; worker: peak {peak} KiB, "
               f"anonymous {anonymous} KiB")
        if not t.is_sanitized():
            t.check(peak < MEMORY_MAX_KIB, f"peak of {peak} KiB")
            t.check(anonymous < MEMORY_MAX_KIB, f"anonymous {anonymous} KiB")

    @t.case(f"{backend}: a list that failed is no harm to the next one")
    def _():
        t.eventually(lambda: list_status(server) == 200, "a list again")
        t.equal(server.errors("worker_died"), [], "deaths")


# ---- slow clients

def latencies(client, seconds):
    """Of GETs of single books, one after the other."""
    found, until, number = [], time.monotonic() + seconds, 0
    while time.monotonic() < until:
        number = number % 1000 + 1
        begun = time.monotonic()
        answer = client.request("GET", f"/books/{isbn_of(number)}")
        found.append(time.monotonic() - begun)
        t.equal(answer.status, 200, "status of a single book")
        time.sleep(0.002)
    return found


def test_latency(server, backend):
    @t.case(f"{backend}: a client at 10 KiB/s does not slow down the others")
    def _():
        with server.raw() as client:
            alone = latencies(client, 2)
            with slow(server) as lazy:
                taken = []
                reader = threading.Thread(target=lambda: taken.append(
                    lazy.read_slowly(SLOW_SECONDS, 10 << 10)), daemon=True)
                reader.start()
                beside = latencies(client, SLOW_SECONDS)
                reader.join(10)
                t.check(taken and taken[0] > SLOW_SECONDS * (8 << 10),
                        f"the slow client read {taken}")
        t.diag(f"median {statistics.median(alone) * 1e3:.2f} ms alone, "
               f"{statistics.median(beside) * 1e3:.2f} ms beside it, "
               f"longest {max(beside) * 1e3:.1f} ms")
        t.check(statistics.median(beside) <
                5 * statistics.median(alone) + 0.005, "the median grew")
        t.check(max(beside) < 1, "one took more than a second")

    @t.case(f"{backend}: a fast list leaves turns to the others")
    def _():
        ended = threading.Event()

        def read():
            with contextlib.suppress(OSError, AssertionError):
                with ListClient(server) as client:
                    for _ in client.chunks():
                        if ended.is_set():
                            return
        reader = threading.Thread(target=read, daemon=True)
        with server.raw() as client:
            reader.start()
            beside = latencies(client, 1)
            ended.set()
            reader.join(20)
        t.check(max(beside) < 1, "one took more than a second")


# ---- what streams hold

def test_share(pg, server, backend):
    @t.case(f"{backend}: half of the connections at most have a stream")
    def _():
        with slow(server), slow(server) as second:
            t.eventually(lambda: streams(pg) == 2, "two streams")
            for _ in range(3):
                begun = time.monotonic()
                expect_busy(server.request("GET", "/books"))
                t.check(time.monotonic() - begun < 10, "503 in bounded time")
            t.equal(server.request("GET", f"/books/{isbn_of(1)}").status, 200,
                    "a single book meanwhile")
            t.equal(server.request("PUT", f"/books/{isbn_of(1)}",
                                   {"isbn": isbn_of(1), **BODY}).status, 200,
                    "a PUT meanwhile")
            t.equal(server.request("HEAD", "/books").status, 200,
                    "HEAD needs no connection")
            second.raw.close()
            t.eventually(lambda: list_status(server) == 200,
                         "a list when one of the two has gone")
        t.eventually(lambda: streams(pg) == 0, "no stream")

    @t.case(f"{backend}: clients that vanish give their connections back")
    def _():
        for end in ("abort", "close"):
            clients = [slow(server), slow(server)]
            t.eventually(lambda: streams(pg) == 2, "two streams")
            for client in clients:
                getattr(client.raw, end)()
            t.eventually(lambda: streams(pg) == 0, f"no stream after {end}")
            t.eventually(lambda: list_status(server) == 200,
                         f"a list after {end}")
        t.eventually(lambda: streams(pg) == 0, "no stream")
        with ListClient(server) as client:
            t.equal(client.read().count, ROWS, "books")

    @t.case(f"{backend}: a client that vanishes is one line 499")
    def _():
        def lines():
            return [line for line in server.access()
                    if line["route"] == "/books" and line["status"] == 499]
        before = len(lines())
        slow(server).raw.abort()
        t.eventually(lambda: len(lines()) == before + 1, "a line 499")

    @t.case(f"{backend}: the connection of a stream serves again afterwards")
    def _():
        for _ in range(3):
            with ListClient(server) as client:
                for _ in client.chunks():
                    break
            with server.raw() as client:
                for number in range(1, 20):
                    t.equal(client.request(
                        "GET", f"/books/{isbn_of(number)}").status, 200,
                        "status")


def test_snapshot(pg, server, backend):
    @t.case(f"{backend}: a list is one snapshot")
    def _():
        with slow(server) as client:
            t.eventually(lambda: streams(pg) == 1, "the stream has begun")
            isbn = "9799999999999"
            t.equal(server.request("POST", "/books",
                                   {"isbn": isbn, **BODY}).status, 201, "POST")
            t.equal(server.request("DELETE",
                                   f"/books/{isbn_of(ROWS)}").status, 204,
                    "DELETE")
            pg.sql(f"UPDATE book SET isbn = 'x' || isbn WHERE id > {ROWS} / 2",
                   "middle")
            check = ListCheck()
            check.isbns = set()
            client.read(check)
        pg.sql("UPDATE book SET isbn = substr(isbn, 2) WHERE isbn LIKE 'x%';"
               f" DELETE FROM book WHERE id > {ROWS};"
               " INSERT INTO book (id, isbn, author, title, price, version,"
               f" created_date, last_modified_date) SELECT {ROWS},"
               f" {isbn_of(ROWS)}, 'A', 'T', 1, 1, now(), now()", "middle")
        t.equal(check.count, ROWS, "books")
        t.check(isbn not in check.isbns, "a book of later came in")
        t.check(isbn_of(ROWS) in check.isbns, "a deleted book went missing")
        t.check(not any(one.startswith("x") for one in check.isbns),
                "a later change came in")


def test_failure(pg, server, backend):
    @t.case(f"{backend}: a failure midway cuts the list and is logged")
    def _():
        failed = len(server.errors("stream_failed"))
        with slow(server) as client:
            t.eventually(lambda: streams(pg) == 1, "the stream has begun")
            pg.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                   " WHERE query LIKE '%ORDER BY id%' AND usename = 'books'",
                   "postgres")
            t.eventually(lambda: streams(pg) == 0, "the session has ended")
            expect_cut(client)
        t.eventually(lambda: len(server.errors("stream_failed")) == failed + 1,
                     "the event stream_failed")
        line = server.errors("stream_failed")[-1]
        t.equal(line["level"], "error", "level")
        t.check(line["bytes"] > 0, "bytes")
        with ListClient(server) as client:
            t.equal(client.read().count, ROWS, "books of the next list")

    @t.case(f"{backend}: HTTP/1.0 can tell a cut list by its JSON")
    def _():
        with slow(server, version="1.0") as client:
            t.eventually(lambda: streams(pg) == 1, "the stream has begun")
            pg.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                   " WHERE query LIKE '%ORDER BY id%' AND usename = 'books'",
                   "postgres")
            client.hurry()
            last = client.raw.buffer
            with contextlib.suppress(ConnectionResetError):
                while data := client.raw.socket.recv(1 << 20):
                    last = data
            t.check(last[-1:] != b"]", "it looks whole")

    @t.case(f"{backend}: a table that is locked: 503 in bounded time")
    def _():
        with server.raw(20) as client:
            lock = threading.Thread(
                target=pg.sql, args=("BEGIN; LOCK TABLE book;"
                                     " SELECT pg_sleep(12); COMMIT", "middle"),
                kwargs={"check": False}, daemon=True)
            lock.start()
            t.eventually(lambda: pg.sql(
                "SELECT 1 FROM pg_locks WHERE granted AND mode ="
                " 'AccessExclusiveLock' AND locktype = 'relation'",
                "postgres") != "", "the lock")
            begun = time.monotonic()
            answer = client.request("GET", "/books")
            took = time.monotonic() - begun
            pg.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                   " WHERE query LIKE '%pg_sleep%' AND pid <>"
                   " pg_backend_pid()", "postgres")
            lock.join(20)
            t.equal(answer.status, 503, f"status after {took:.1f} s")
            t.check(answer.header("retry-after"), "Retry-After")


def test_send_timeout(pg, server, backend):
    @t.case(f"{backend}: send_timeout ends a client that reads nothing")
    def _():
        with slow(server, seconds=30) as client:
            t.eventually(lambda: streams(pg) == 1, "the stream has begun")
            t.eventually(lambda: streams(pg) == 0, "the stream was cut", 15)
            expect_cut(client)
        with ListClient(server) as client:
            t.equal(client.read().count, ROWS, "books of the next list")

    @t.case(f"{backend}: send_timeout spares a client that reads slowly")
    def _():
        with slow(server) as client:
            client.read_slowly(4, 100 << 10)
            t.equal(streams(pg), 1, "streams after 4 s at 100 KiB/s")


def slow_rows(pg):
    """A database whose rows take 10 ms each: its conninfo."""
    conninfo = fill(pg, "slowly", 120)
    pg.sql("ALTER TABLE book RENAME TO book_real;"
           " CREATE FUNCTION slowly() RETURNS boolean LANGUAGE plpgsql"
           " VOLATILE AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN true; END $$;"
           " CREATE VIEW book AS SELECT * FROM book_real WHERE slowly();"
           " GRANT ALL ON book, book_real TO PUBLIC", "slowly")
    # In the order of the index: a sort would give all rows at once.
    pg.sql("ALTER DATABASE slowly SET enable_seqscan = off;"
           " ALTER DATABASE slowly SET enable_sort = off;"
           " ALTER DATABASE slowly SET enable_bitmapscan = off",
           "slowly")
    return conninfo


def test_slow_rows(server, backend):
    for what, act in (
            ("the next request", lambda raw: raw.send(
                b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")),
            ("a part of a request", lambda raw: raw.send(b"G")),
            ("the end of its side", lambda raw: raw.half_close())):
        with t.case(f"{backend}: {what} in the middle of a list leaves its "
                    "chunks whole"):
            with server.raw(20) as raw:
                raw.send(b"GET /books HTTP/1.1\r\nHost: a\r\n\r\n")
                time.sleep(0.6)
                act(raw)
                answer = raw.read_response()
                t.equal(answer.status, 200, f"status: {answer.text()[:200]}")
                t.equal(len(answer.json()), 120, "books")
                if what == "the next request":
                    t.equal(raw.read_response().status, 200, "the next one")


def main():
    with t.Postgres({"max_wal_size": "4GB", "shared_buffers": "128MB",
                     "maintenance_work_mem": "256MB",
                     "wal_level": "minimal", "max_wal_senders": 0}) as pg:
        middle = fill(pg, "middle", ROWS)
        big = fill(pg, "big", BIG_ROWS)
        slowly = slow_rows(pg)
        for backend in t.backends():
            # A list from the cache is no stream.
            settings = {"io_backend": backend, "workers": 1, "cache_size": 0,
                        "database_connections": 4,
                        "database_statement_timeout": "1s"}
            with t.Booksd({"database": pg.conninfo, **settings},
                          wait="readyz") as server:
                test_small(pg, server, backend)
            with t.Booksd({"database": slowly, **settings,
                           "migrate_on_start": "off"},
                          wait="readyz") as server:
                test_slow_rows(server, backend)
            with t.Booksd({"database": big, **settings},
                          wait="readyz") as server:
                test_million(server, backend)
                test_latency(server, backend)
            with t.Booksd({"database": middle, **settings},
                          wait="readyz") as server:
                test_share(pg, server, backend)
                test_snapshot(pg, server, backend)
                test_failure(pg, server, backend)
            with t.Booksd({"database": middle, "send_timeout": "1s",
                           **settings}, wait="readyz") as server:
                test_send_timeout(pg, server, backend)


if __name__ == "__main__":
    main()
    t.done()
