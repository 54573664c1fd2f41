#!/usr/bin/env python3
"""Goal: once a write has been answered, nobody is answered anything older by
this task, whoever reads, through whatever worker, and whoever dies meanwhile.
Method: the real binary on a real PostgreSQL.  Versions in the answers are
compared with the newest one that had been answered before the request was
sent: in a loop of writes and reads, and in a storm in which workers are killed
at random.  Statements whose fate booksd cannot know are made by killing it, and
by cutting its connection in a relay, while they wait for a lock; the triggers
that would tell it are off then.
"""
import collections
import contextlib
import json
import os
import random
import signal
import socket
import threading
import time

import booksd_test as t

SEED = 20260103
STORM_SECONDS = 8
STORM_SECONDS_MAX = 60  # on a machine that has much else to do
STORM_WORKERS = 8  # each has its pauses when it dies again and again
KILLS, PUTS, HITS = 30, 200, 200  # at least
KEYS = 8
BODY = {"title": "The title", "author": "An author", "price": 9.5}
CROWDED = 16  # connections of a reader, on all workers


new_isbn = t.Isbns()


def settings(backend, database, **more):
    return {"io_backend": backend, "workers": 2, "database": database,
            "access_log": "off", **more}


@contextlib.contextmanager
def listening(backend, database, **more):
    """A booksd that listens to the database: when it begins to, it takes
    nothing on trust that was cached before."""
    with t.Booksd(settings(backend, database, cache_heartbeat="1h", **more),
                  wait="readyz") as server:
        t.eventually(lambda: server.errors("notify_ready"), "it listens", 20)
        yield server


def write(asker, method, isbn, path=None, **fields):
    return asker.request(
        method, "/books" if method == "POST" else f"/books/{path or isbn}",
        None if method == "DELETE" else {"isbn": isbn, **BODY, **fields})


def put(asker, isbn, **fields):
    """The version that it has now."""
    answer = write(asker, "PUT", isbn, **fields)
    t.equal(answer.status, 200, f"status of PUT: {answer.body[:200]!r}")
    return answer.json()["version"]


def get(asker, isbn):
    return asker.request("GET", f"/books/{isbn}")


def came(answer):
    return answer.header("x-cache")


def cached(asker, isbn, status=200):
    """Read it until it comes from the cache."""
    def probe():
        answer = get(asker, isbn)
        t.equal(answer.status, status, "status")
        return came(answer) == "hit" and answer
    return t.eventually(probe, f"{isbn} is cached")


def newest_of(pg, isbn, database="books"):
    return int(pg.sql(f"SELECT version FROM book WHERE isbn = '{isbn}'",
                      database) or 0)


class Readers:
    """Connections on all workers, each asked at once."""

    def __init__(self, server, count=CROWDED):
        for _ in range(40):
            self.clients = [server.raw(30) for _ in range(count)]
            for client in self.clients:
                client.request("GET", "/livez")
            self.workers = set(server.owners_of(self.clients))
            if len(self.workers) == len(server.worker_pids()):
                return
            self.close()
        raise AssertionError(f"connections come to {self.workers} only")

    def ask(self, path):
        request = t.make_request("GET", path)
        for client in self.clients:
            client.send(request)
        return [client.read_response() for client in self.clients]

    def close(self):
        for client in self.clients:
            client.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# ---- after the answer

def test_order(server, backend):
    @t.case(f"{backend}: after each PUT, POST and DELETE all workers tell the "
            "new state, while others read")
    def _():
        seeded = random.Random(SEED)
        isbns = [new_isbn() for _ in range(KEYS)]
        state = {isbn: None for isbn in isbns}  # (id, version)
        plan = [("GET", f"/books/{isbn}", None,
                 lambda answer: answer.status in (200, 404))
                for isbn in isbns]
        ways = collections.Counter()
        with Readers(server) as readers, server.raw(30) as writer, \
                t.Load(server.address, 8, plan) as load:
            for _ in range(150):
                isbn = seeded.choice(isbns)
                how = seeded.choice(["PUT", "PUT", "POST", "DELETE"])
                state[isbn] = expect_write(
                    write(writer, how, isbn), how, state[isbn])
                for answer in readers.ask(f"/books/{isbn}"):
                    expect_state(answer, state[isbn])
                    ways[came(answer)] += 1
            result = load.stop()
        t.equal(result.failed, 0, f"failed: {result.reasons}")
        t.diag(f"{dict(ways)}, and {result.ok} reads beside")
        t.check(ways["hit"] > 0, "no reader had a hit")

    @t.case(f"{backend}: after each write no older list is told by any worker")
    def _():
        isbn = new_isbn()
        plan = [("GET", "/books", None, None)]
        with Readers(server, 6) as readers, server.raw(30) as writer, \
                t.Load(server.address, 2, plan) as load:
            for _ in range(25):
                version = put(writer, isbn)
                for answer in readers.ask("/books"):
                    found = [book["version"] for book in answer.json()
                             if book["isbn"] == isbn]
                    t.equal(found, [version], "version in the list")
                if version % 3 == 0:
                    t.equal(write(writer, "DELETE", isbn).status, 204, "gone")
                    for answer in readers.ask("/books"):
                        t.check(isbn not in answer.text(), "it is there")
            result = load.stop()
        t.equal(result.failed, 0, f"failed: {result.reasons}")
        with Readers(server, 6) as readers:
            readers.ask("/books")
            t.equal({came(answer) for answer in readers.ask("/books")},
                    {"hit"}, "lists are cached at all")


def expect_write(answer, how, before):
    """Is it what how does to a book in the state before?  The state after."""
    if how == "DELETE":
        t.equal(answer.status, 204, "status of DELETE")
        return None
    if how == "POST" and before is not None:
        t.equal(answer.status, 422, "status of POST")
        return before
    t.equal(answer.status, 201 if how == "POST" else 200, f"status of {how}")
    book = answer.json()
    if before is not None:
        t.equal((book["id"], book["version"]), (before[0], before[1] + 1),
                "id and version")
    else:
        t.equal(book["version"], 1, "version")
    return book["id"], book["version"]


def expect_state(answer, state):
    if state is None:
        t.equal(answer.status, 404, f"status ({came(answer)})")
    else:
        t.equal(answer.status, 200, f"status ({came(answer)})")
        book = answer.json()
        t.equal((book["id"], book["version"]), state,
                f"id and version ({came(answer)})")


# ---- what a write is about

def insert(pg, isbn, database):
    pg.sql("INSERT INTO book (isbn, author, title, price, version,"
           f" created_date, last_modified_date) VALUES ('{isbn}', 'A', 'T', 1,"
           " 1, now(), now())", database)


def test_touched(pg, server, database, backend):
    """The triggers of this database are off: nobody else tells."""
    def changed(isbn, **fields):
        """All readers see what psql has done behind the server's back."""
        with Readers(server) as readers:
            for answer in readers.ask(f"/books/{isbn}"):
                t.equal(answer.status, 200, f"status ({came(answer)})")
                for name, value in fields.items():
                    t.equal(answer.json()[name], value, name)

    @t.case(f"{backend}: without triggers psql is not heard, or the rest of "
            "this proves nothing")
    def _():
        isbn = new_isbn()
        cached(server, isbn, 404)
        insert(pg, isbn, database)
        time.sleep(0.2)
        expect_state(cached(server, isbn, 404), None)

    @t.case(f"{backend}: a POST that is told that the book exists is not "
            "followed by a cached 404")
    def _():
        isbn = new_isbn()
        cached(server, isbn, 404)
        insert(pg, isbn, database)
        t.equal(write(server, "POST", isbn).status, 422, "status of POST")
        changed(isbn, version=1)

    @t.case(f"{backend}: a PUT elsewhere that is told so neither")
    def _():
        isbn, path = new_isbn(), new_isbn()
        cached(server, isbn, 404)
        cached(server, path, 404)
        insert(pg, isbn, database)
        t.equal(write(server, "PUT", isbn, path).status, 422, "status of PUT")
        changed(isbn, version=1)
        t.equal(get(server, path).status, 404, "status of the path")

    @t.case(f"{backend}: a PUT elsewhere that makes the book does for its "
            "own ISBN too")
    def _():
        isbn, path = new_isbn(), new_isbn()
        cached(server, isbn, 404)
        cached(server, path, 404)
        t.equal(write(server, "PUT", isbn, path).status, 200, "status of PUT")
        changed(isbn, version=1)
        t.equal(get(server, path).status, 404, "status of the path")

    @t.case(f"{backend}: a PUT with the ISBN of another book changes the book "
            "of the path alone")
    def _():
        path, isbn = new_isbn(), new_isbn()
        put(server, path)
        put(server, isbn)
        cached(server, path)
        cached(server, isbn)
        answer = write(server, "PUT", isbn, path, title="new")
        t.equal((answer.status, answer.json()["isbn"]), (200, path), "PUT")
        changed(path, version=2, title="new")
        changed(isbn, version=1, title=BODY["title"])

    @t.case(f"{backend}: a PUT that changes nothing is a new version with a "
            "new tag")
    def _():
        isbn = new_isbn()
        put(server, isbn)
        before = cached(server, isbn)
        t.equal(put(server, isbn), 2, "version")
        changed(isbn, version=2)
        t.check(get(server, isbn).header("etag") != before.header("etag"),
                "the old tag")

    @t.case(f"{backend}: a DELETE of a book that somebody else deleted shows "
            "that it is gone")
    def _():
        isbn = new_isbn()
        put(server, isbn)
        cached(server, isbn)
        pg.sql(f"DELETE FROM book WHERE isbn = '{isbn}'", database)
        expect_state(cached(server, isbn), (get(server, isbn).json()["id"], 1))
        t.equal(write(server, "DELETE", isbn).status, 204, "status of DELETE")
        with Readers(server) as readers:
            for answer in readers.ask(f"/books/{isbn}"):
                expect_state(answer, None)

    @t.case(f"{backend}: a body that is refused changes and forgets nothing")
    def _():
        isbn = new_isbn()
        put(server, isbn)
        cached(server, isbn)
        t.equal(write(server, "PUT", isbn, price=-1).status, 400, "status")
        t.equal(came(get(server, isbn)), "hit", "X-Cache")


# ---- while a write is under way

def lock_book(pg, isbn, database):
    return t.Session(pg, "BEGIN;", "SELECT 'x' FROM book WHERE isbn = "
                     f"'{isbn}' FOR UPDATE \\g /dev/null", database=database)


def lock_waits(pg):
    """Ports of the clients whose writes wait."""
    return [int(port) for port in pg.sql(
        "SELECT client_port FROM pg_stat_activity WHERE"
        " wait_event_type = 'Lock' AND usename = 'books'",
        "postgres").split()]


def send_put(client, isbn, **fields):
    client.send(t.make_request("PUT", f"/books/{isbn}",
                               {"isbn": isbn, **BODY, **fields}))


def test_open(pg, server, database, backend):
    @t.case(f"{backend}: while a PUT is under way its book is read from the "
            "database, others from the cache")
    def _():
        isbn, other = new_isbn(), new_isbn()
        put(server, isbn)
        put(server, other)
        cached(server, isbn)
        cached(server, other)
        with Readers(server, 8) as readers, server.raw(30) as writer:
            with lock_book(pg, isbn, database) as lock:
                send_put(writer, isbn)
                t.eventually(lambda: lock_waits(pg), "the PUT waits")
                for answer in readers.ask(f"/books/{isbn}"):
                    t.equal((answer.status, answer.json()["version"]),
                            (200, 1), "status and version")
                    t.check(came(answer) != "hit", "a hit")
                ways = collections.Counter(came(answer) for answer in
                                           readers.ask(f"/books/{other}"))
                t.equal(ways, {"hit": 8}, "the other book")
                lock.run("COMMIT;")
            t.equal(writer.read_response().status, 200, "status of PUT")
            for answer in readers.ask(f"/books/{isbn}"):
                t.equal(answer.json()["version"], 2, "version")


# ---- what became of it is not known

class Relay:
    """Stands between booksd and the database, and can cut what is under way
    from booksd's side only."""

    class Pair:
        def __init__(self, near, far):
            self.near, self.far, self.is_cut = near, far, False
            for run in (self.out, self.back):
                threading.Thread(target=run, daemon=True).start()

        def out(self):
            with contextlib.suppress(OSError):
                while data := self.near.recv(65536):
                    self.far.sendall(data)
            if not self.is_cut:
                with contextlib.suppress(OSError):
                    self.far.shutdown(socket.SHUT_WR)

        def back(self):
            with contextlib.suppress(OSError):
                while data := self.far.recv(65536):
                    self.near.sendall(data)
            with contextlib.suppress(OSError):
                self.near.shutdown(socket.SHUT_RDWR)

        def cut(self):
            self.is_cut = True
            with contextlib.suppress(OSError):
                self.near.shutdown(socket.SHUT_RDWR)

    def __init__(self, port):
        self.far_port, self.pairs = port, []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near = self.listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self.far_port))
                self.pairs.append(self.Pair(near, far))

    def cut(self):
        """booksd sees all its connections end, the database none."""
        pairs, self.pairs = self.pairs, []
        for pair in pairs:
            pair.cut()

    def close(self):
        self.listener.close()


class Waiting:
    """A PUT of a book that is there and a POST of one that is not, both of
    which wait for a lock in the database, with the state before them in the
    cache."""

    def __init__(self, pg, server, database):
        self.pg, self.server, self.database = pg, server, database
        self.put_isbn, self.post_isbn = new_isbn(), new_isbn()
        put(server, self.put_isbn)
        self.put_lock = lock_book(pg, self.put_isbn, database)
        self.post_lock = t.Session(
            pg, "BEGIN;", "INSERT INTO book (isbn, author, title, price,"
            " version, created_date, last_modified_date) VALUES"
            f" ('{self.post_isbn}', 'A', 'T', 1, 1, now(), now());",
            database=database)
        self.clients = [server.raw(30), server.raw(30)]
        send_put(self.clients[0], self.put_isbn)
        self.clients[1].send(t.make_request(
            "POST", "/books", {"isbn": self.post_isbn, **BODY}))
        t.eventually(lambda: pg.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type ="
            f" 'Lock' AND datname = '{database}'", "postgres") == "2",
            "both wait")

    def told(self):
        """What the clients are told: statuses, 0 for a lost connection."""
        statuses = []
        for client in self.clients:
            try:
                statuses.append(client.read_response().status)
            except (OSError, t.Truncated):
                statuses.append(0)
        return statuses

    def read(self):
        """(version, X-Cache) of both, 0 for a 404, and of both in the list."""
        answers = [get(self.server, self.put_isbn),
                   get(self.server, self.post_isbn)]
        books = self.server.request("GET", "/books")
        for answer in answers + [books]:
            if answer.status not in (200, 404):
                return None  # it does not have its connections again
        listed = {book["isbn"]: book["version"] for book in books.json()}
        return [(answer.status == 200 and answer.json()["version"],
                 came(answer)) for answer in answers] + [
            (listed.get(isbn, 0), came(books))
            for isbn in (self.put_isbn, self.post_isbn)]

    def old_is_cached(self):
        """The old state is read, and cached if that is allowed: was it?"""
        for _ in range(20):
            found = t.eventually(self.read, "answers from the database")
            t.equal([version for version, _ in found], [1, 0] * 2, "versions")
            if {how for _, how in found} == {"hit"}:
                return True
            time.sleep(0.01)
        return False

    def let_go(self):
        """Now they commit, if they were in time: were they?"""
        self.put_lock.run("COMMIT;")
        self.post_lock.run("ROLLBACK;")
        t.eventually(lambda: self.pg.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
            " AND query LIKE '%book%' AND pid <> pg_backend_pid()"
            f" AND datname = '{self.database}'", "postgres") == "0",
            "both have ended")
        return (newest_of(self.pg, self.put_isbn, self.database),
                newest_of(self.pg, self.post_isbn, self.database)) == (2, 1)

    def close(self):
        for one in self.clients + [self.put_lock, self.post_lock]:
            one.close()


def expect_late(pg, server, database, end):
    """end(server) makes two writes unknown to booksd; then they commit."""
    for _ in range(5):
        waiting = Waiting(pg, server, database)
        try:
            begun = time.monotonic()
            end()
            statuses = waiting.told()
            for status in statuses:
                t.check(status in (0, 503), f"status {status}")
            was_cached = waiting.old_is_cached()
            if not waiting.let_go():
                continue  # the statements' time was over
            t.eventually(lambda: (found := waiting.read()) and
                         [version for version, _ in found] == [2, 1] * 2,
                         "the new state is told", 30)
            t.diag(f"told {statuses}; the old state was "
                   f"{'' if was_cached else 'not '}cached; the new one told"
                   f" after {time.monotonic() - begun:.1f} s")
            return
        finally:
            waiting.close()
    t.skip("the machine is too slow for statements of 2 s")


def quiet_database(pg, name):
    """A database that notifies nobody: its conninfo."""
    conninfo = pg.create_database(name)
    done = t.booksctl("migrate", database=conninfo)
    t.equal(done.returncode, 0, f"booksctl migrate: {done.stderr}")
    pg.sql("ALTER TABLE book DISABLE TRIGGER USER", name)
    return conninfo


def test_unknown(pg, backend):
    database = f"unknown_{backend}"
    quiet_database(pg, database)
    relay = Relay(pg.port)
    conninfo = (f"host=127.0.0.1 port={relay.port} dbname={database}"
                " user=books sslmode=disable")
    # An hour: it is not time that brings the new state.
    with listening(backend, conninfo, cache_fresh="1h", cache_negative="1h",
                   workers=1, database_statement_timeout="2s") as server:
        # It would make all suspect when it has a session again.
        ops = server.ops_pid()
        os.kill(ops, signal.SIGSTOP)

        @t.case(f"{backend}: writes that commit after their connection was "
                "lost are seen soon after statement_timeout")
        def _():
            expect_late(pg, server, database, relay.cut)

        @t.case(f"{backend}: and those that commit after their worker was "
                "killed")
        def _():
            def kill():
                for pid in server.worker_pids():
                    os.kill(pid, signal.SIGKILL)
                server.wait_for("livez")
            expect_late(pg, server, database, kill)
        os.kill(ops, signal.SIGCONT)
    relay.close()


# ---- the storm

class Oracle:
    """The newest version of each book that anybody was told."""

    def __init__(self, isbns):
        self.newest = {isbn: 0 for isbn in isbns}
        self.lock = threading.Lock()
        self.count = collections.Counter()
        self.made, self.failures = set(), []

    def told(self, isbn, version):
        with self.lock:
            self.newest[isbn] = max(self.newest[isbn], version)

    def expect(self, condition, what):
        if not condition:
            self.failures.append(what)


class Client(threading.Thread):
    """Asks one thing after the other; a lost connection is made again."""

    def __init__(self, server, oracle, seed, is_writer):
        super().__init__(daemon=True)
        self.server, self.oracle = server, oracle
        self.seeded, self.is_writer = random.Random(seed), is_writer
        self.ended = threading.Event()
        self.raw = None

    def run(self):
        try:
            while not self.ended.is_set():
                self.step(self.seeded.choice(list(self.oracle.newest)))
        except BaseException as error:
            self.oracle.failures.append(f"{type(error).__name__}: {error}")
        if self.raw:
            self.raw.close()

    def step(self, isbn):
        floor = self.oracle.newest[isbn]
        try:
            if self.raw is None:
                self.raw = self.server.raw(20)
            answer = (write(self.raw, "PUT", isbn) if self.is_writer
                      else get(self.raw, isbn))
        except (ConnectionError, t.Truncated):
            self.oracle.count["lost"] += 1
            if self.raw:
                self.raw.close()
                self.raw = None
            else:
                time.sleep(0.005)
            return
        self.take(isbn, floor, answer)

    def take(self, isbn, floor, answer):
        how = "PUT" if self.is_writer else came(answer)
        if answer.status == 503:
            self.oracle.count["503"] += 1
            time.sleep(0.005)
            return
        self.oracle.count[how] += 1
        if answer.status != 200:
            self.oracle.expect(not floor or self.is_writer,
                               f"{answer.status} ({how}) after {floor}")
            return
        version = answer.json()["version"]
        if self.is_writer:
            self.oracle.expect(version > floor, f"PUT made {version} of "
                                                f"{floor}")
            self.oracle.expect((isbn, version) not in self.oracle.made,
                               f"{version} was made twice")
            self.oracle.made.add((isbn, version))
        else:
            self.oracle.expect(version >= floor,
                               f"{isbn}: {version} ({how}) after {floor}")
        self.oracle.told(isbn, version)


def test_storm(pg, backend):
    with t.Booksd(settings(backend, pg.conninfo, workers=STORM_WORKERS,
                           database_connections=2 * STORM_WORKERS,
                           database_statement_timeout="2s",
                           cache_fresh="1h"), wait="readyz") as server:
        @t.case(f"{backend}: workers are killed at random while books are "
                "PUT: nobody is told an older version than was told before")
        def _():
            storm(pg, server)


def storm(pg, server):
    seeded = random.Random(SEED)
    oracle = Oracle([new_isbn() for _ in range(KEYS)])
    clients = [Client(server, oracle, f"{SEED} {number}", number < 3)
               for number in range(9)]
    t.diag(f"seed {SEED}")
    with server.raw() as first:
        for isbn in oracle.newest:
            oracle.told(isbn, put(first, isbn))
    for client in clients:
        client.start()
    count, begun = oracle.count, time.monotonic()
    while not oracle.failures and (spent := time.monotonic() - begun) < \
            STORM_SECONDS_MAX:
        if (spent > STORM_SECONDS and count["kills"] >= KILLS
                and count["PUT"] >= PUTS and count["hit"] >= HITS):
            break
        time.sleep(seeded.uniform(0, 0.2))
        pids = server.worker_pids()
        # The others have time to answer something between the kills.
        if len(pids) > STORM_WORKERS // 2:
            with contextlib.suppress(ProcessLookupError):
                os.kill(seeded.choice(pids), signal.SIGKILL)
                count["kills"] += 1
    for client in clients:
        client.ended.set()
    for client in clients:
        client.join(30)
        t.check(not client.is_alive(), "a client hangs")
    t.diag(f"{spent:.0f} s: {dict(count)}")
    t.equal(oracle.failures[:5], [], "what was wrong")
    t.check(count["kills"] >= KILLS, "there were too few kills")
    t.check(count["lost"] >= 10, "kills hit no client")
    t.check(count["PUT"] >= PUTS, "there were too few writes")
    t.check(count["hit"] >= HITS, "there were too few hits")
    expect_calm(pg, server, oracle)


def expect_calm(pg, server, oracle):
    """Each book is what the database says, and the cache is sound."""
    t.eventually(lambda: len(server.worker_pids()) == STORM_WORKERS,
                 "all workers", 30)
    server.wait_for("readyz", 30)

    def is_true(client, isbn):
        answer = get(client, isbn)
        return (answer.status == 200 and
                answer.json()["version"] == newest_of(pg, isbn))
    with server.raw(30) as client:
        for isbn, newest in oracle.newest.items():
            t.eventually(lambda isbn=isbn: is_true(client, isbn),
                         f"the last version of {isbn}", 20)
            t.check(newest <= newest_of(pg, isbn), "a version was lost")
            cached(client, isbn)
    audits = server.errors("cache_audited")
    t.check(audits, "nobody looked at the cache after a death")
    unsound = [line for line in server.errors() if line["level"] == "error"
               and "SIGKILL" not in json.dumps(line)]
    t.equal(unsound, [], "errors")


def main():
    with t.Postgres({"max_connections": 100}) as pg:
        for backend in t.backends():
            with t.Booksd(settings(backend, pg.conninfo),
                          wait="readyz") as server:
                test_order(server, backend)
            database = f"quiet_{backend}"
            conninfo = quiet_database(pg, database)
            with listening(backend, conninfo, cache_fresh="1h",
                           cache_negative="1h") as server:
                test_touched(pg, server, database, backend)
                test_open(pg, server, database, backend)
            test_unknown(pg, backend)
            test_storm(pg, backend)
    t.done()


main()
