#!/usr/bin/env python3
"""Goal: what is in the cache is answered from it, byte for byte as the database
would have it answered, without asking the database, even when there is none;
what is not is asked for once, however many want it.
Method: the real binary on a real PostgreSQL that logs each statement, so that
reads can be counted; it is locked while 1,000 clients want one book, stopped
and frozen while books are cached, and workers are killed while they load.
"""
import collections
import contextlib
import os
import random
import re
import signal
import time
from urllib.parse import quote

import booksd_test as t

CROWD = 1000
FLIGHT_CONNECTIONS = 4
SEED = 20260102
BODY = {"title": "The title", "author": "An author", "price": 9.5}
DYNAMIC = ("date", "x-cache", "age")  # made for each answer
PROBLEM = {"Accept": "application/problem+json"}
BOUND_SECONDS = 10  # generous: what "in bounded time" means here
TIMEOUTS = {"database_acquire_timeout": "1s",
            "database_statement_timeout": "1s",
            "database_connect_timeout": "1s"}
PATIENT = {"database_acquire_timeout": "60s",
           "database_statement_timeout": "60s"}
BOOK_READ = re.compile(rb"execute [^:\n]*: SELECT [^\n]* FROM book"
                       rb" WHERE isbn = \$1::text\n"
                       rb"[^\n]*arameters: \$1 = '([^\n]*)'\n")
LIST_READ = re.compile(rb"execute [^:\n]*: SELECT [^\n]* FROM book"
                       rb" ORDER BY id\n")


new_isbn = t.Isbns()


def settings(backend, database, **more):
    return {"io_backend": backend, "workers": 2, "database": database,
            "access_log": "off", "cache_heartbeat": "1h", **more}


@contextlib.contextmanager
def serving(backend, database, **more):
    """A booksd that listens to the database: when it begins to, it takes
    nothing on trust that was cached before."""
    with t.Booksd(settings(backend, database, **more),
                  wait="readyz") as server:
        t.eventually(lambda: server.errors("notify_ready"), "it listens", 20)
        yield server


def quiet(pg, database):
    """A database that notifies nobody, not even of what booksd itself does:
    its conninfo.  What is cached stays so until booksd changes it."""
    conninfo = (pg.conninfo if database == "books"
                else pg.create_database(database))
    done = t.booksctl("migrate", database=conninfo)
    t.equal(done.returncode, 0, f"booksctl migrate: {done.stderr}")
    pg.sql("ALTER TABLE book DISABLE TRIGGER USER", database)
    return conninfo


class Reads:
    """How often the database was asked since this was made."""

    def __init__(self, pg):
        self.pg, self.begin = pg, os.path.getsize(pg.log)

    def text(self):
        with open(self.pg.log, "rb") as file:
            file.seek(self.begin)
            return file.read()

    def of(self, isbn):
        return sum(found[1].decode() == isbn
                   for found in BOOK_READ.finditer(self.text()))

    def lists(self):
        return len(LIST_READ.findall(self.text()))


def put(asker, isbn, **fields):
    answer = asker.request("PUT", f"/books/{isbn}",
                           {"isbn": isbn, **BODY, **fields})
    t.equal(answer.status, 200, f"status of PUT: {answer.body[:200]!r}")
    return answer.json()


def get(asker, isbn, headers=(), method="GET"):
    return asker.request(method, f"/books/{isbn}", headers=headers)


def came(answer):
    return answer.header("x-cache")


def kept(answer):
    """What is the same in each answer about one state of one thing."""
    return ({name: value for name, value in answer.headers.items()
             if name not in DYNAMIC}, answer.body)


def expect(answer, status, how):
    t.equal((answer.status, came(answer)), (status, how), "status and X-Cache")
    age = answer.header("age")
    if how in ("hit", "stale"):
        t.check(age is not None and age.isdigit(), f"Age: {age!r}")
    else:
        t.equal(age, None, "Age")
    return answer


def cached(asker):
    """A new book that is in the cache: its ISBN and the answer."""
    isbn = new_isbn()
    put(asker, isbn)
    expect(get(asker, isbn), 200, "miss")
    return isbn, expect(get(asker, isbn), 200, "hit")


def client_of_each_worker(stack, server):
    """Connections, one to each worker."""
    found = {}
    for _ in range(40):
        clients = [stack.enter_context(server.raw(30)) for _ in range(8)]
        for client in clients:
            client.request("GET", "/livez")
        found.update(zip(server.owners_of(clients), clients))
        if len(found) == len(server.worker_pids()):
            return list(found.values())
    raise AssertionError(f"connections come to {found} only")


# ---- one book

def test_hits(pg, server, backend):
    @t.case(f"{backend}: a book is a miss once, then a hit for all workers, "
            "with the same bytes")
    def _():
        isbn, reads = new_isbn(), Reads(pg)
        put(server, isbn)
        first = expect(get(server, isbn), 200, "miss")
        with contextlib.ExitStack() as stack:
            for client in client_of_each_worker(stack, server):
                for _ in range(5):
                    again = expect(get(client, isbn), 200, "hit")
                    t.equal(kept(again), kept(first), "answer")
        t.equal(reads.of(isbn), 1, "reads of the database")
        for name in ("etag", "last-modified", "content-length"):
            t.check(first.header(name), f"there is no {name}")
        t.equal(first.header("cache-control"), "no-cache", "Cache-Control")
        t.equal(first.header("vary"), "Accept", "Vary")

    @t.case(f"{backend}: HEAD is what GET is without the body, hit and miss")
    def _():
        isbn = new_isbn()
        put(server, isbn)
        head = expect(get(server, isbn, method="HEAD"), 200, "miss")
        answer = expect(get(server, isbn), 200, "hit")
        again = expect(get(server, isbn, method="HEAD"), 200, "hit")
        t.equal((head.body, again.body), (b"", b""), "bodies")
        t.equal(kept(head)[0], kept(answer)[0], "fields of the miss")
        t.equal(kept(again)[0], kept(answer)[0], "fields of the hit")

    @t.case(f"{backend}: Age counts seconds")
    def _():
        isbn, answer = cached(server)
        t.check(int(answer.header("age")) <= 60, "Age at first")
        t.eventually(lambda: int(get(server, isbn).header("age")) >= 1,
                     "Age: 1")

    @t.case(f"{backend}: only answers about books and lists say X-Cache")
    def _():
        isbn, _answer = cached(server)
        for method, path, body in (
                ("GET", "/", None), ("GET", "/livez", None),
                ("GET", "/readyz", None), ("GET", "/nothing", None),
                ("OPTIONS", f"/books/{isbn}", None),
                ("PUT", f"/books/{isbn}", {"isbn": isbn, **BODY}),
                ("POST", "/books", {"isbn": isbn, **BODY}),
                ("DELETE", f"/books/{isbn}", None)):
            answer = server.request(method, path, body)
            t.equal((came(answer), answer.header("age")), (None, None),
                    f"{method} {path}")

    @t.case(f"{backend}: a missing book is remembered, for clients of both "
            "kinds")
    def _():
        isbn, reads = new_isbn(), Reads(pg)
        text = expect(get(server, isbn), 404, "miss")
        t.equal(text.text(), f"The book with ISBN {isbn} was not found.",
                "text")
        problem = expect(get(server, isbn, PROBLEM), 404, "hit")
        t.equal(problem.header("content-type"), "application/problem+json",
                "Content-Type")
        t.equal(problem.json()["detail"], text.text(), "detail")
        t.equal(kept(expect(get(server, isbn), 404, "hit")), kept(text),
                "text")
        head = expect(get(server, isbn, PROBLEM, "HEAD"), 404, "hit")
        t.equal(kept(head)[0], kept(problem)[0], "fields of HEAD")
        t.equal(text.header("vary"), "Accept", "Vary")
        t.equal(text.header("etag"), None, "ETag")
        t.equal(reads.of(isbn), 1, "reads of the database")
        other = new_isbn()
        first = expect(get(server, other, PROBLEM), 404, "miss")
        t.equal(kept(first)[0].keys(), kept(problem)[0].keys(), "fields")
        expect(get(server, other), 404, "hit")

    @t.case(f"{backend}: If-None-Match: * does not make a missing book known")
    def _():
        isbn = new_isbn()
        for how in ("miss", "hit"):
            expect(get(server, isbn, {"If-None-Match": "*"}), 404, how)


def conditions(answer):
    """(status, fields) of requests about a book that is as in answer."""
    tag, modified = answer.header("etag"), answer.header("last-modified")
    other = '"0123456789abcdef"'
    match, since = "If-None-Match", "If-Modified-Since"
    early, late = ("Sat, 01 Jan 2000 00:00:00 GMT",
                   "Fri, 31 Dec 2049 23:59:59 GMT")
    return [(200, {}), (304, {match: tag}), (304, {match: "W/" + tag}),
            (304, {match: "*"}), (304, {match: f"{other}, {tag}"}),
            (304, {match: f'"", {other} ,W/{tag},"x,!y"'}),
            (200, {match: other}), (200, {match: tag.strip('"')}),
            (200, {match: tag[:-2] + '"'}), (200, {match: f'"{tag[1:3]}"'}),
            (304, {since: modified}), (304, {since: late}),
            (200, {since: early}), (200, {since: "the other day"}),
            (200, {match: other, since: late}),
            (304, {match: tag, since: early})]


def expect_conditional(answer, status, plain):
    t.equal(answer.status, status, "status")
    for name in ("etag", "last-modified", "cache-control", "vary"):
        t.equal(answer.header(name), plain.header(name), name)
    if status == 304:
        t.equal(answer.header("content-length"), None, "Content-Length")


def test_conditions(server, plain, backend):
    """plain: a server without a cache, to know tags of what is not cached."""
    for how in ("hit", "miss"):
        @t.case(f"{backend}: conditional requests on a {how}")
        def _(how=how):
            isbn, want = cached(server)
            for number, (status, fields) in enumerate(conditions(want)):
                for method in ("GET", "HEAD"):
                    if how == "miss":
                        isbn = new_isbn()
                        put(server, isbn)
                        want = get(plain, isbn)
                        fields = conditions(want)[number][1]
                    answer = get(server, isbn, fields, method)
                    t.equal(came(answer), how, f"X-Cache of {fields}")
                    with context(f"{method} {fields}"):
                        expect_conditional(answer, status, want)
                        body = want.body if (method, status) == ("GET", 200) \
                            else b""
                        t.equal(answer.body, body, "body")

    @t.case(f"{backend}: after a change a tag matches no more, and the new one "
            "does")
    def _():
        isbn, answer = cached(server)
        put(server, isbn)
        tag = {"If-None-Match": answer.header("etag")}
        new = expect(get(server, isbn, tag), 200, "miss")
        expect(get(server, isbn, tag), 200, "hit")
        expect(get(server, isbn, {"If-None-Match": new.header("etag")}), 304,
               "hit")

    @t.case(f"{backend}: a book that is deleted and created again has another "
            "tag")
    def _():
        isbn, answer = cached(server)
        t.equal(server.request("DELETE", f"/books/{isbn}").status, 204, "gone")
        t.equal(server.request("POST", "/books", {"isbn": isbn, **BODY})
                .status, 201, "new")
        again = get(server, isbn)
        t.equal(again.json()["version"], answer.json()["version"], "version")
        t.check(again.header("etag") != answer.header("etag"), "one tag")
        t.equal(get(server, isbn, {"If-None-Match": answer.header("etag")})
                .status, 200, "status with the old tag")

    @t.case(f"{backend}: 304 and what follows it on the connection")
    def _():
        isbn, answer = cached(server)
        with server.raw() as client:
            for _ in range(3):
                expect(get(client, isbn,
                           {"If-None-Match": answer.header("etag")}),
                       304, "hit")
                t.equal(kept(get(client, isbn)), kept(answer), "the next")


@contextlib.contextmanager
def context(what):
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from error


# ---- keys and connections

ODD_ISBNS = ("x", "a b", "a/b", "\u00e9", "%39", "..", "it's", "<b>\"", "a+b",
             "a\nb", "?", "#", "x" * 255, "\u00e9" * 255,
             "\U0001f4da" * 255, "\x01\x7f")


def test_keys(pg, server, backend):
    @t.case(f"{backend}: any ISBN that a row can have is a key")
    def _():
        isbns = [odd[:242] + new_isbn() for odd in ODD_ISBNS]
        literals = ["".join(f"\\U{ord(char):08x}" for char in isbn)
                    for isbn in isbns]
        pg.sql("INSERT INTO book (isbn, author, title, price, version,"
               " created_date, last_modified_date) VALUES " +
               ", ".join(f"(E'{literal}', 'A', 'T', 1, 1, now(), now())"
                         for literal in literals))
        for isbn in isbns:
            path = quote(isbn, safe="")
            answer = expect(get(server, path), 200, "miss")
            t.equal(kept(expect(get(server, path), 200, "hit")), kept(answer),
                    "answer")
            t.equal(answer.json()["isbn"], isbn, "ISBN")
            every = "".join(f"%{byte:02x}" for byte in isbn.encode())
            if len(every) < 8000:
                t.equal(kept(expect(get(server, every), 200, "hit")),
                        kept(answer), "all escaped")
            t.equal(server.request("DELETE", f"/books/{path}").status, 204,
                    "DELETE")
            t.equal(get(server, path).status, 404, "status after DELETE")

    @t.case(f"{backend}: an ISBN that is too long for a row is 404 as ever")
    def _():
        for isbn in ("9" * 256, "9" * 2000, quote("\u00e9" * 256)):
            for _ in range(3):
                t.equal(get(server, isbn).status, 404, "status")

    @t.case(f"{backend}: what is no part of the key makes no other entry")
    def _():
        isbn, answer = cached(server)
        for path in (isbn + "?x", isbn + "/", isbn + "/?a=b",
                     "".join(f"%{ord(digit):x}" for digit in isbn)):
            t.equal(kept(expect(get(server, path), 200, "hit")), kept(answer),
                    path)

    @t.case(f"{backend}: HTTP/1.0 and Connection: close are served from the "
            "cache")
    def _():
        isbn, answer = cached(server)
        for request, is_kept in (
                (f"GET /books/{isbn} HTTP/1.0\r\n\r\n", False),
                (f"GET /books/{isbn} HTTP/1.0\r\nConnection: keep-alive"
                 "\r\n\r\n", True),
                (f"GET /books/{isbn} HTTP/1.1\r\nHost: a\r\n"
                 "Connection: close\r\n\r\n", False)):
            with server.raw() as client:
                client.send(request)
                again = expect(client.read_response(), 200, "hit")
                t.equal(again.body, answer.body, "body")
                if is_kept:
                    t.equal(again.header("connection"), "keep-alive",
                            "Connection")
                    expect(get(client, isbn), 200, "hit")
                else:
                    t.equal(client.read_eof(), b"", "after the answer")

    @t.case(f"{backend}: pipelined hits, misses and writes keep their order")
    def _():
        seeded = random.Random(SEED)
        for _ in range(4):
            pipeline(server, seeded)


def pipeline(server, seeded):
    """Send a random sequence at once and compare with a model of it."""
    versions = {new_isbn(): 0 for _ in range(4)}  # 0: not there
    requests, wanted = [], []
    for number in range(150):
        isbn = seeded.choice(list(versions))
        what = seeded.choice(["GET"] * 5 + ["HEAD", "PUT", "DELETE"])
        title = f"title {number}"
        if what == "PUT":
            versions[isbn] += 1
        elif what == "DELETE":
            versions[isbn] = 0
        status = (204 if what == "DELETE" else 200 if versions[isbn] else 404)
        requests.append(t.make_request(
            what, f"/books/{isbn}", {"isbn": isbn, **BODY, "title": title}
            if what == "PUT" else None))
        wanted.append((what, status, isbn, versions[isbn]))
    with server.raw(30) as client:
        client.send(b"".join(requests))
        for what, status, isbn, version in wanted:
            answer = client.read_response(what)
            t.equal(answer.status, status, f"status of {what}")
            if status == 200 and what != "HEAD":
                book = answer.json()
                t.equal((book["isbn"], book["version"]), (isbn, version),
                        f"book of {what}")


# ---- many want one

def lock_table(pg, database="books"):
    return t.Session(pg, "BEGIN;", "LOCK TABLE book IN ACCESS EXCLUSIVE MODE;",
                     database=database)


class Watcher(t.Session):
    """Asks PostgreSQL who waits, quickly."""

    def idle(self, database):
        """Sessions of booksd."""
        return int(self.run(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'books'"
            f" AND datname = '{database}' AND state = 'idle';")[0])

    def waiting(self):
        """{pid of the session: port of its client} of reads that a lock
        stops."""
        return {int(pid): int(port) for pid, _, port in (
            line.partition("|") for line in self.run(
                "SELECT pid, client_port FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND usename = 'books'"
                " AND query LIKE 'SELECT %';"))}


def unread(server):
    """Bytes and connections that no worker has taken yet."""
    bytes_count = 0
    with open("/proc/net/tcp", encoding="ascii") as file:
        for line in list(file)[1:]:
            fields = line.split()
            if (int(fields[1].split(":")[1], 16) == server.address[1]
                    and fields[3] in ("01", "0A")):  # ESTABLISHED, LISTEN
                bytes_count += int(fields[4].split(":")[1], 16)
    return bytes_count


@contextlib.contextmanager
def crowd(server, count, request):
    """So many clients that have asked, and whose requests have been read."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.raw(60)) for _ in range(count)]
        for client in clients:
            client.send(request)
        t.eventually(lambda: unread(server) == 0, "all requests are read", 60)
        yield clients


def expect_one_load(answers, status, reads):
    ways = collections.Counter(came(answer) for answer in answers)
    t.diag(f"{len(answers)} answers: {dict(ways)}")
    t.equal({answer.status for answer in answers}, {status}, "statuses")
    t.equal(len({answer.body for answer in answers}), 1, "different bodies")
    t.equal(reads, 1, "reads of the database")
    t.equal(ways["miss"], 1, "misses")
    t.check(ways["coalesced"] > 0, "nobody waited")
    t.equal(ways["miss"] + ways["coalesced"] + ways["hit"], len(answers),
            "answers")


def test_flight(pg, watcher, backend):
    database = f"flight_{backend}"
    with serving(backend, quiet(pg, database), **PATIENT,
                 database_connections=FLIGHT_CONNECTIONS) as server:
        for count, path, status in ((CROWD, "/books/{}", 200),
                                    (100, "/books/0{}", 404),
                                    (100, "/books", 200)):
            @t.case(f"{backend}: {count} clients want {path} at once, and the "
                    f"database is asked once: {status}")
            def _(count=count, path=path, status=status):
                isbn = new_isbn()
                put(server, isbn)
                path, reads = path.format(isbn), Reads(pg)
                with lock_table(pg, database) as lock:
                    with crowd(server, count,
                               t.make_request("GET", path)) as clients:
                        t.eventually(lambda: len(watcher.waiting()) == 1,
                                     "one of them loads")
                        lock.run("ROLLBACK;")
                        answers = [one.read_response() for one in clients]
                expect_one_load(answers, status, reads.lists() if
                                path == "/books" else reads.of(path[7:]))

        @t.case(f"{backend}: a loader that leaves is no loss to those who wait")
        def _():
            isbn, reads = new_isbn(), Reads(pg)
            put(server, isbn)
            request = t.make_request("GET", f"/books/{isbn}")
            with lock_table(pg, database) as lock:
                with server.raw() as loader:
                    loader.send(request)
                    t.eventually(watcher.waiting, "it loads")
                    with crowd(server, 50, request) as clients:
                        loader.abort()
                        time.sleep(0.1)
                        lock.run("ROLLBACK;")
                        answers = [one.read_response() for one in clients]
            t.equal({answer.status for answer in answers}, {200}, "statuses")
            t.check(reads.of(isbn) <= 2, "reads of the database")

        @t.case(f"{backend}: the loader is killed: another one loads, and all "
                "who waited elsewhere get their answers")
        def _():
            for _ in range(2):
                kill_loader(pg, watcher, server, database)


def kill_loader(pg, watcher, server, database):
    isbn, reads = new_isbn(), Reads(pg)
    put(server, isbn)
    t.eventually(lambda: len(server.worker_pids()) == 2, "two workers")
    # A connection that is still being made would wait for the lock as well.
    t.eventually(lambda: watcher.idle(database) == FLIGHT_CONNECTIONS + 1,
                 "all connections stand, and that of ops", 20)
    with contextlib.ExitStack() as stack:
        # On both workers, or nobody would be left to answer.
        each = client_of_each_worker(stack, server)
        lock = stack.enter_context(lock_table(pg, database))
        request = t.make_request("GET", f"/books/{isbn}")
        clients = each + stack.enter_context(crowd(server, 200, request))
        for client in each:
            client.send(request)
        t.eventually(lambda: unread(server) == 0, "all requests are read")
        first = t.eventually(watcher.waiting, "one of them loads")
        t.equal(len(first), 1, "loads")
        port, = first.values()
        loader = t.eventually(lambda: server.owners(False).get(port),
                              "it is known who loads")
        others = [client for client, pid in
                  zip(clients, server.owners_of(clients)) if pid != loader]
        t.check(others, "all clients are of one worker")
        killed = time.monotonic()
        os.kill(loader, signal.SIGKILL)
        t.eventually(lambda: watcher.waiting().keys() - first.keys(),
                     "another one loads", 20, 0.001)
        t.diag(f"the second load was seen {time.monotonic() - killed:.3f} s "
               f"after the kill; {len(others)} of {len(clients)} clients left")
        lock.run("ROLLBACK;")
        for client in others:
            answer = client.read_response()
            t.equal(answer.status, 200, "status")
            t.equal(answer.json()["isbn"], isbn, "ISBN")
        t.check(reads.of(isbn) <= 2, "reads of the database")


# ---- time

def test_time(pg, watcher, backend):
    database = f"time_{backend}"
    conninfo = quiet(pg, database)
    with serving(backend, conninfo, cache_fresh="300ms",
                 cache_negative="300ms", cache_stale_while_revalidate="1h",
                 **PATIENT) as server:
        @t.case(f"{backend}: what has expired is served while one reloads it")
        def _():
            isbn, answer = cached(server)
            with contextlib.ExitStack() as stack:
                clients = client_of_each_worker(stack, server)
                lock = stack.enter_context(lock_table(pg, database))
                t.eventually(lambda: came(get(server, isbn)) == "stale",
                             "it expires")
                for _ in range(50):
                    for client in clients:
                        again = expect(get(client, isbn), 200, "stale")
                        t.equal(kept(again), kept(answer), "answer")
                # Admission may have refused the first renewals, for what the
                # cases before did to the database.
                t.eventually(lambda: came(get(clients[0], isbn)) == "stale"
                             and len(watcher.waiting()) == 1,
                             "one reloads it")
                head = expect(get(server, isbn, method="HEAD"), 200, "stale")
                t.equal(kept(head)[0], kept(answer)[0], "fields of HEAD")
                expect(get(server, isbn, {"If-None-Match":
                                          answer.header("etag")}),
                       304, "stale")
                t.equal(len(watcher.waiting()), 1, "loads")
                lock.run("ROLLBACK;")
                t.eventually(lambda: came(get(clients[0], isbn)) == "hit",
                             "it is fresh again")

        @t.case(f"{backend}: a missing book that expired is asked for again")
        def _():
            isbn, reads = new_isbn(), Reads(pg)
            expect(get(server, isbn), 404, "miss")
            t.eventually(lambda: get(server, isbn).status == 404 and
                         reads.of(isbn) >= 3, "it is asked for again")

    with serving(backend, conninfo, cache_fresh="1s",
                 cache_stale_while_revalidate="0s",
                 cache_negative="0s") as server:
        @t.case(f"{backend}: freshness ends within a tenth of cache_fresh, "
                "never after it")
        def _():
            expiry(server)

        @t.case(f"{backend}: with cache_negative=0 a missing book is asked "
                "for each time")
        def _():
            isbn, reads = new_isbn(), Reads(pg)
            for _ in range(3):
                expect(get(server, isbn), 404, "miss")
            t.equal(reads.of(isbn), 3, "reads of the database")


def expiry(server):
    """What can be known of an entry's age from outside is enough to see it
    served too old, or reloaded too early."""
    isbns = [new_isbn() for _ in range(30)]
    loaded, reloaded, ages = {}, {}, []
    with server.raw() as client:
        for isbn in isbns:
            put(client, isbn)
        while len(reloaded) < len(isbns):
            for isbn in isbns:
                asked = time.monotonic()
                how = came(get(client, isbn))
                told = time.monotonic()
                if how == "hit" and isbn not in reloaded:
                    age = asked - loaded[isbn][1]  # at least
                    t.check(age <= 1, f"a hit at an age of {age:.3f} s")
                elif isbn not in loaded:
                    t.equal(how, "miss", "X-Cache at first")
                    loaded[isbn] = (asked, told)
                elif isbn not in reloaded:
                    t.equal(how, "miss", "X-Cache after it expired")
                    reloaded[isbn] = told
                    age = told - loaded[isbn][0]  # at most
                    t.check(age >= 0.9, f"reloaded after {age:.3f} s")
                    ages.append(age)
            time.sleep(0.005)
    t.diag(f"reloaded after {min(ages):.3f} to {max(ages):.3f} s")


# ---- the database is away

def expect_unavailable(answer):
    t.equal(answer.status, 503, f"status of {answer.body[:200]!r}")
    retry = answer.header("retry-after")
    t.check(retry and retry.isdigit() and int(retry) > 0,
            f"Retry-After: {retry!r}")


WAYS = {"long": {},  # all is fresh
        "short": {"cache_fresh": "200ms",
                  "cache_stale_while_revalidate": "200ms"},
        "strict": {"cache_fresh": "200ms",
                   "cache_stale_while_revalidate": "100ms",
                   "cache_stale_if_error": "200ms"}}


def test_away(pg, backends):
    conninfo = quiet(pg, "away")
    isbns = [new_isbn(), new_isbn()]
    for isbn in isbns:
        pg.sql("INSERT INTO book (isbn, author, title, price, version,"
               f" created_date, last_modified_date) VALUES ('{isbn}', 'A',"
               " 'T', 1, 1, now(), now())", "away")
    # From now on it does; nothing that comes from before stands against it.
    pg.sql("ALTER TABLE book ENABLE TRIGGER USER", "away")
    with contextlib.ExitStack() as stack:
        servers = [(way, stack.enter_context(serving(
            backend, conninfo, workers=1, **TIMEOUTS, **more)))
            for backend in backends for way, more in WAYS.items()
            if way != "strict" or backend == backends[-1]]
        outage(pg, servers, isbns[0])
        frozen(pg, [server for way, server in servers if way == "short"],
               isbns[1])


def outage(pg, servers, isbn):
    missing = new_isbn()
    name = "each back end: the database is stopped: "
    answers = {}
    for _, server in servers:
        answers[server] = get(server, isbn)
        t.equal(answers[server].status, 200, "status")
        t.eventually(lambda server=server: came(server.request(
            "GET", "/books")) in ("hit", "stale"), "the list is cached")

    def same(server, how):
        answer = get(server, isbn)
        t.equal(answer.status, 200, "status")
        t.equal(kept(answer), kept(answers[server]), "answer")
        return how is None or came(answer) == how
    pg.crash()
    try:
        @t.case(name + "what is fresh is served as ever")
        def _():
            for way, server in servers:
                if way != "long":
                    continue
                for _ in range(20):
                    t.check(same(server, "hit"), "it is no hit")
                    expect(server.request("GET", "/books"), 200, "hit")
                    expect(get(server, isbn, method="HEAD"), 200, "hit")
                tag = answers[server].header("etag")
                expect(get(server, isbn, {"If-None-Match": tag}), 304, "hit")

        @t.case(name + "what has expired is served stale, and says so")
        def _():
            for way, server in servers:
                if way != "short":
                    continue
                t.eventually(lambda server=server: same(server, "stale"),
                             "it is stale")
                for _ in range(20):
                    t.check(same(server, "stale"), "it is not stale")
                # Longer than a load that failed is remembered.
                time.sleep(1.2)
                for _ in range(3):
                    t.check(same(server, "stale"), "it is not stale")
                tag = answers[server].header("etag")
                expect(get(server, isbn, {"If-None-Match": tag}), 304,
                       "stale")
                expect(get(server, isbn, method="HEAD"), 200, "stale")
                expect(server.request("GET", "/books"), 200, "stale")

        @t.case(name + "what is not cached is 503 in bounded time, never 404")
        def _():
            request = t.make_request("GET", f"/books/{new_isbn()}")
            with contextlib.ExitStack() as stack:
                clients = sum((stack.enter_context(crowd(server, 20, request))
                               for _, server in servers), [])
                for client in clients:
                    client.socket.settimeout(BOUND_SECONDS)
                    expect_unavailable(client.read_response())
            for way, server in servers:
                if way != "long":
                    continue
                for headers in ({}, PROBLEM):
                    for method in ("GET", "HEAD"):
                        expect_unavailable(get(server, missing, headers,
                                               method))

        @t.case(name + "after cache_stale_if_error it is 503")
        def _():
            for way, server in servers:
                if way != "strict":
                    continue
                t.eventually(lambda server=server: get(server, isbn).status
                             == 503, "it is too old")
                expect_unavailable(get(server, isbn))
                expect_unavailable(server.request("GET", "/books"))
    finally:
        pg.start()

    @t.case("each back end: the database is back: so is the truth")
    def _():
        pg.sql(f"UPDATE book SET price = 77 WHERE isbn = '{isbn}'", "away")
        for _, server in servers:
            t.eventually(lambda server=server: (answer := get(server, isbn))
                         .status == 200 and answer.json()["price"] == 77,
                         "the new price", 30)
            t.eventually(lambda server=server: came(get(server, isbn)) ==
                         "hit", "it is cached again", 30)
            t.eventually(lambda server=server: get(server, missing).status ==
                         404, "what is not there is 404 again")


def freeze(pg):
    """SIGSTOP, the parent first so that it makes no more: the pids."""
    pids = [pg.process.pid]
    os.kill(pg.process.pid, signal.SIGSTOP)
    t.eventually(lambda: t.process_stat(pg.process.pid)[0] == "T", "stopped")
    for pid in t.processes():
        stat = t.process_stat(pid)
        if stat and stat[1] == pg.process.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                pids.append(pid)
    return pids


def frozen(pg, servers, isbn):
    @t.case("each back end: the database is frozen: stale or 503 in bounded "
            "time")
    def _():
        for server in servers:
            t.eventually(lambda server=server: came(get(server, isbn)) ==
                         "hit", "it is cached")
        pids = freeze(pg)
        try:
            time.sleep(0.5)
            with contextlib.ExitStack() as stack:
                asked = [(stack.enter_context(server.raw(BOUND_SECONDS)),
                          path, wanted) for server in servers
                         for path, *wanted in ((isbn, 200, "stale"),
                                               (isbn, 200, "stale"),
                                               (new_isbn(), 503, "miss"))]
                for client, path, _ in asked:
                    client.send(t.make_request("GET", f"/books/{path}"))
                for client, _, wanted in asked:
                    expect(client.read_response(), *wanted)
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        for server in servers:
            t.eventually(lambda server=server: came(get(server, isbn)) ==
                         "hit", "it is fresh again", 30)


# ---- lists

def fill(pg, server, database, rows, title="'T'"):
    """So many books are all that there is, and the server knows."""
    pg.sql("TRUNCATE book; INSERT INTO book (isbn, author, title, price, version,"
           " created_date, last_modified_date) SELECT 9790000000000 + n, 'A',"
           f" {title}, 1, 1, '2026-01-02 03:04:05', '2026-01-02 03:04:05'"
           f" FROM generate_series(1, {rows}) AS n", database)
    t.equal(server.request("DELETE", f"/books/{new_isbn()}").status, 204,
            "status of DELETE")


def books(asker, method="GET", path="/books", headers=()):
    return asker.request(method, path, headers=headers)


def test_lists(pg, watcher, backend):
    database = f"lists_{backend}"
    with serving(backend, quiet(pg, database)) as server:
        @t.case(f"{backend}: the list is a hit for all workers, and then has a "
                "length and a tag")
        def _():
            for rows in (0, 1, 100):  # 0: "[]" is a list as well
                fill(pg, server, database, rows)
                lists(pg, server, rows)

        @t.case(f"{backend}: a list that changed is another one, of which the "
                "old tag says nothing")
        def _():
            old = expect(books(server), 200, "hit")
            put(server, new_isbn())
            tag = {"If-None-Match": old.header("etag")}
            new = books(server, headers=tag)
            t.equal((new.status, came(new)), (200, "miss"), "the next")
            t.equal(len(new.json()), len(old.json()) + 1, "books")
            again = expect(books(server, headers=tag), 200, "hit")
            t.equal(again.body, new.body, "body")

        @t.case(f"{backend}: a list from the cache over HTTP/1.0 has a length")
        def _():
            answer = expect(books(server), 200, "hit")
            with server.raw() as client:
                client.send("GET /books HTTP/1.0\r\n\r\n")
                old = expect(client.read_response(), 200, "hit")
                t.equal((old.body, old.header("content-length")),
                        (answer.body, str(len(answer.body))), "the list")

        @t.case(f"{backend}: lists of sizes around the limit are right, and "
                "cached when they fit")
        def _():
            list_sizes(pg, server, database)

        @t.case(f"{backend}: a list that does not fit is never cached, and its "
                "readers do not wait for each other")
        def _():
            large_list(pg, server, database)

    with serving(backend, pg.conninfo, cache_lists="off") as server:
        @t.case(f"{backend}: with cache_lists=off lists are asked for each "
                "time, books are cached")
        def _():
            reads = Reads(pg)
            for _ in range(3):
                t.check(came(books(server)) in (None, "miss"), "X-Cache")
            t.equal(reads.lists(), 3, "reads of the database")
            cached(server)

    with serving(backend, pg.conninfo, cache_lists="relaxed",
                 **PATIENT) as server:
        @t.case(f"{backend}: with cache_lists=relaxed an old list is served "
                "while it is reloaded, and says so")
        def _():
            isbn = new_isbn()
            books(server)
            old = expect(books(server), 200, "hit")
            t.check(isbn not in old.text(), "the book is there already")
            put(server, isbn)
            with lock_table(pg) as lock:
                for _ in range(10):
                    answer = expect(books(server), 200, "stale")
                    t.equal(kept(answer), kept(old), "the list")
                t.equal(len(t.eventually(watcher.waiting, "a reload")), 1,
                        "reloads")
                lock.run("ROLLBACK;")
            t.eventually(lambda: isbn in books(server).text(), "the new list")
            t.eventually(lambda: came(books(server)) == "hit", "it is fresh")


def lists(pg, server, rows):
    reads = Reads(pg)
    first = books(server)
    t.equal((first.status, came(first)), (200, "miss"), "the first")
    t.equal(len(first.json()), rows, "books")
    with contextlib.ExitStack() as stack:
        for client in client_of_each_worker(stack, server):
            answer = expect(books(client), 200, "hit")
            t.equal(answer.body, first.body, "body")
            t.equal(answer.header("content-length"), str(len(first.body)),
                    "Content-Length")
            t.equal(answer.header("transfer-encoding"), None, "coding")
            for name in ("content-type", "cache-control", "vary"):
                t.equal(answer.header(name), first.header(name), name)
            head = expect(books(client, "HEAD"), 200, "hit")
            t.equal(kept(head)[0], kept(answer)[0], "fields of HEAD")
            tag = {"If-None-Match": answer.header("etag")}
            expect(books(client, headers=tag), 304, "hit")
            expect(books(client, path="/books/?page=2"), 200, "hit")
            expect(books(client, headers={"If-None-Match": '"x"'}), 200,
                   "hit")
    t.equal(reads.lists(), 1, "reads of the database")


LEAD = ("server", "date", "x-cache", "age", "connection")
VALUE_MAX = 65536


def stored_bytes(answer):
    """Of a list's answer from the cache: its key, head block and body."""
    head = sum(len(name) + len(value) + 4
               for name, values in answer.headers.items()
               for value in values if name not in LEAD)
    return 1 + head + 2 + len(answer.body)


def list_sizes(pg, server, database):
    fill(pg, server, database, 120, "repeat('t', 220)")
    books(server)
    answer = expect(books(server), 200, "hit")
    # Rows of one size until there is room for one with a long title.
    row = len(answer.body) // 120
    rows = (VALUE_MAX - stored_bytes(answer)) // row
    isbn, sizes = new_isbn(), collections.Counter()
    with server.raw() as client:
        for _ in range(rows):
            put(client, new_isbn(), title="t" * 220, author="A", price=1)
        put(client, isbn)
        books(client)
        spare = VALUE_MAX - stored_bytes(expect(books(client), 200, "hit"))
        t.check(0 < spare < 2 * row, f"{spare} bytes are spare")
        while spare > 150:
            put(client, new_isbn(), title="t")
            books(client)
            spare = VALUE_MAX - stored_bytes(expect(books(client), 200, "hit"))
        for length in [spare + d for d in (-40, -9, *range(-3, 12), 40)]:
            put(client, isbn, title="t" * (length + len(BODY["title"])))
            first = books(client)
            answers = [books(client) for _ in range(3)]
            for answer in answers:
                t.equal(answer.body, first.body, "body")
            t.equal(len(first.json()[-1]["title"]), length +
                    len(BODY["title"]), "length of the title")
            ways = {came(answer) for answer in answers}
            t.equal(len(ways), 1, f"ways {ways}")
            sizes[ways.pop()] += 1
            if answers[0].header("content-length"):
                t.check(stored_bytes(answers[0]) <= VALUE_MAX, "too large")
    t.diag(f"{dict(sizes)}")
    t.check(sizes["hit"] >= 3, "none was cached")
    t.check(sizes["miss"] >= 3, "all were cached")


def large_list(pg, server, database):
    fill(pg, server, database, 20000, "repeat('t', 200)")
    reads = Reads(pg)
    with server.raw(30, receive_buffer=4096) as slow:
        slow.send(t.make_request("GET", "/books"))
        slow_head = slow.read_head()
        t.equal((slow_head.status, came(slow_head)), (200, "miss"), "slow")
        # It has most of its list to come while others read all of theirs.
        for _ in range(2):
            answer = books(server)
            t.equal((answer.status, came(answer)), (200, "miss"), "others")
            t.equal(len(answer.json()), 20000, "books")
        t.equal(slow.read_body(slow_head), answer.body, "the slow one's list")
    t.equal(reads.lists(), 3, "reads of the database")


# ---- settings and ends

def test_settings(pg, backend):
    @t.case(f"{backend}: one tag in two tasks, and after a restart")
    def _():
        isbn, answers, lists_ = new_isbn(), [], []
        for _ in range(2):
            with serving(backend, pg.conninfo) as one, \
                    serving(backend, pg.conninfo) as other:
                if not answers:
                    put(one, isbn)
                for server in (one, other):
                    answers += [get(server, isbn), get(server, isbn)]
                    books(server)
                    lists_.append(expect(books(server), 200, "hit"))
        t.equal([came(answer) for answer in answers], ["miss", "hit"] * 4,
                "X-Cache")
        for answer in answers:
            t.equal(kept(answer), kept(answers[0]), "answer")
        for answer in lists_:
            t.equal(answer.header("etag"), lists_[0].header("etag"), "list")

    @t.case(f"{backend}: cache_header=off says nothing, cache_control is said "
            "as it is")
    def _():
        for control in ("public, max-age=5", ""):
            with serving(backend, pg.conninfo, cache_header="off",
                         cache_control=control) as server:
                isbn, reads = new_isbn(), Reads(pg)
                put(server, isbn)
                answers = [get(server, isbn), get(server, isbn),
                           books(server), books(server),
                           get(server, new_isbn())]
                answers.append(get(server, isbn, {
                    "If-None-Match": answers[0].header("etag")}))
                t.equal(answers[-1].status, 304, "status")
                t.equal(reads.of(isbn), 1, "reads of the database")
                for answer in answers:
                    t.equal(came(answer), None, "X-Cache")
                    t.equal(answer.header("cache-control"), control or None,
                            "Cache-Control")
                    t.equal(answer.header("vary"), "Accept", "Vary")

    @t.case(f"{backend}: cache_size=0 is no cache, and all works")
    def _():
        with t.Booksd(settings(backend, pg.conninfo, cache_size=0),
                      wait="readyz") as server:
            isbn, reads = new_isbn(), Reads(pg)
            t.equal(get(server, isbn).status, 404, "status")
            put(server, isbn)
            first = get(server, isbn)
            t.equal((first.status, came(first)), (200, None), "status")
            t.equal(get(server, isbn, {"If-None-Match": first.header("etag")})
                    .status, 304, "status")
            t.equal(kept(get(server, isbn)), kept(first), "answer")
            t.equal(reads.of(isbn), 4, "reads of the database")
            t.equal([came(books(server)) for _ in range(2)], [None, None],
                    "lists")
            t.equal(server.request("DELETE", f"/books/{isbn}").status, 204,
                    "DELETE")
            t.equal(get(server, isbn).status, 404, "status")

    @t.case(f"{backend}: what does not fit a small cache is served all the "
            "same, and what fits is cached")
    def _():
        with serving(backend, pg.conninfo, workers=1,
                     cache_size="1MiB") as server:
            isbn = new_isbn()
            long = {"title": "\U0001f4da" * 255, "author": "\u00e9" * 255,
                    "publisher": "\U0001f4da" * 255}
            put(server, isbn, **long)
            for _ in range(4):
                answer = get(server, isbn)
                t.equal((answer.status, answer.json()["title"]),
                        (200, long["title"]), "the long one")
            # More than there is room for: old ones go, none is wrong.
            isbns = [new_isbn() for _ in range(3000)]
            pg.sql("INSERT INTO book (isbn, author, title, price, version,"
                   " created_date, last_modified_date) SELECT n, 'A',"
                   " 'T' || n, 1, 1, now(), now() FROM generate_series("
                   f"{isbns[0]}, {isbns[-1]}) AS n")
            ways = collections.Counter()
            with server.raw() as client:
                for isbn in isbns + isbns[-50:]:
                    answer = get(client, isbn)
                    t.equal(answer.json()["title"], f"T{isbn}", "title")
                    ways[came(answer)] += 1
            t.diag(f"a small cache: {dict(ways)}")
            t.check(ways["hit"] > 0, "nothing was cached")
            pg.sql(f"DELETE FROM book WHERE isbn >= '{isbns[0]}'")


def test_ends(pg, backend):
    with serving(backend, pg.conninfo) as server:
        @t.case(f"{backend}: what a worker stored is served when it is dead")
        def _():
            entries = [cached(server) for _ in range(30)]
            reads = Reads(pg)
            for pid in server.worker_pids():
                os.kill(pid, signal.SIGKILL)
                t.eventually(lambda pid=pid: pid not in server.worker_pids()
                             and len(server.worker_pids()) == 2,
                             "another worker", 20)
                for isbn, answer in entries:
                    t.equal(kept(expect(get(server, isbn), 200, "hit")),
                            kept(answer), "answer")
            t.equal([reads.of(isbn) for isbn, _ in entries], [0] * 30,
                    "reads of the database")

    with serving(backend, pg.conninfo, drain_delay="300ms") as server:
        @t.case(f"{backend}: a drain loses no request that is a hit")
        def _():
            isbn, answer = cached(server)
            plan = [("GET", f"/books/{isbn}", None,
                     lambda got: got.body == answer.body),
                    ("HEAD", f"/books/{isbn}", None, None)]
            with t.Load(server.address, 32, plan) as load:
                load.wait_for(1000)
                load.retire()
                t.equal(server.stop(), 0, "exit code")
                result = load.stop()
            t.diag(result)
            t.equal(result.failed, 0, "failed requests")


def main():
    with t.Postgres({"log_statement": "all", "max_connections": 100}) as pg:
        backends = list(t.backends())
        quiet(pg, "books")
        for backend in backends:
            with serving(backend, pg.conninfo) as server, \
                    t.Booksd(settings(backend, pg.conninfo, workers=1,
                                      cache_size=0), wait="readyz") as plain:
                test_hits(pg, server, backend)
                test_conditions(server, plain, backend)
                test_keys(pg, server, backend)
            with Watcher(pg, database="postgres") as watcher:
                test_time(pg, watcher, backend)
                test_flight(pg, watcher, backend)
                test_lists(pg, watcher, backend)
            test_settings(pg, backend)
            test_ends(pg, backend)
        test_away(pg, backends)
    t.done()


main()
