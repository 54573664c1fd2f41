#!/usr/bin/env python3
"""Goal: whatever the database does, requests are answered in bounded time with
the truth, the process stays up and comes back by itself: no write is answered
as done that is not, and none is done twice.
Method: the real PostgreSQL is started late, stopped, frozen, locked, made to
refuse a commit or a password, and has its sessions ended under load; answers,
logs and the table are compared.  BOOKS_TEST_LONG=1 makes the outage as long as
a slow failover, 180 s.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from urllib.parse import quote

import booksd_test as t

LONG = os.environ.get("BOOKS_TEST_LONG") == "1"
OUTAGE_SECONDS = 180 if LONG else 5
BOUND_SECONDS = 10  # generous: what "in bounded time" means here
BODY = {"title": "T", "author": "A", "price": 1}
ISBN = "9780000000001"
TIMEOUTS = {"database_acquire_timeout": "1s",
            "database_statement_timeout": "1s",
            "database_connect_timeout": "1s"}
DNS_ADDRESS = "127.53.53.53"  # of a server that never answers


def settings(backend, database, **more):
    """Of a booksd that asks the database each time."""
    return {"io_backend": backend, "workers": 1, "database": database,
            "cache_size": 0, **TIMEOUTS, **more}


def put(asker, isbn=ISBN, **fields):
    return asker.request("PUT", f"/books/{isbn}",
                         {"isbn": isbn, **BODY, **fields})


def get(asker, isbn=ISBN):
    return asker.request("GET", f"/books/{isbn}")


EVERYTHING = [("GET", f"/books/{ISBN}", None), ("GET", "/books", None),
              ("HEAD", f"/books/{ISBN}", None),
              ("PUT", f"/books/{ISBN}", {"isbn": ISBN, **BODY}),
              ("POST", "/books", {"isbn": "9780000000002", **BODY}),
              ("DELETE", "/books/9780000000003", None)]


def expect_unavailable(answer, what="request"):
    t.equal(answer.status, 503, f"status of {what}: {answer.body[:200]!r}")
    retry = answer.header("retry-after")
    t.check(retry and retry.isdigit() and int(retry) > 0,
            f"Retry-After of {what}: {retry!r}")


def expect_all_unavailable(*servers):
    """All of it at once, each in bounded time."""
    with contextlib.ExitStack() as stack:
        asked = []
        for server in servers:
            for method, target, body in EVERYTHING:
                client = stack.enter_context(server.raw(BOUND_SECONDS))
                client.send(t.make_request(method, target, body))
                asked.append((client, method, target))
        for client, method, target in asked:
            expect_unavailable(client.read_response(method),
                               f"{method} {target}")


def verbose(server):
    answer = server.request("GET", "/readyz?verbose")
    return answer.status, answer.json()["database"]


def all_have_it(server):
    told = server.request("GET", "/readyz?verbose").json()
    return all(worker["database"] == "ready" for worker in told["workers"])


def expect_serving(*servers, seconds=20):
    """They are back: a write and a read are answered."""
    for server in servers:
        t.eventually(lambda server=server: all_have_it(server),
                     "all workers have it", seconds)
        t.equal(put(server).status, 200, "status of PUT")
        t.equal(get(server).status, 200, "status of GET")
        t.equal(verbose(server), (200, "ready"), "verbose")


def version_of(pg, isbn=ISBN, database="books"):
    return int(pg.sql(f"SELECT version FROM book WHERE isbn = '{isbn}'",
                      database))


class Session:
    """A psql that stays: a transaction that others have to wait for."""

    def __init__(self, pg, *statements, database="books"):
        self.process = subprocess.Popen(
            [os.path.join(pg.bin, "psql"), "-XAtq", "-h", pg.folder, "-p",
             str(pg.port), "-U", "postgres", "-d", database],
            env=t.clean_environment(), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.run(*statements)

    def run(self, *statements):
        for statement in statements + ("\\echo done",):
            self.process.stdin.write(statement.encode() + b"\n")
        self.process.stdin.flush()
        while (line := self.process.stdout.readline()) != b"done\n":
            t.check(line and b"ERROR" not in line, f"psql said {line!r}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


def lock_book(pg, isbn=ISBN):
    return Session(pg, "BEGIN;", "SELECT 'x' FROM book WHERE isbn = "
                                 f"'{isbn}' FOR UPDATE \\g /dev/null")


# ---- starting

@contextlib.contextmanager
def one_of_each(backends, database, workers=1, **more):
    """A booksd for each back end, for what takes its time."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(t.Booksd(
            settings(backend, database, workers=workers), **more))
            for backend in backends]


def test_late(backends):
    with t.Postgres(start=False) as pg, one_of_each(
            backends, pg.conninfo) as servers:
        @t.case("each back end: booksd starts without a database")
        def _():
            for server in servers:
                t.equal(server.request("GET", "/livez").status, 200, "/livez")
                expect_unavailable(server.request("GET", "/readyz"), "/readyz")
                t.equal(verbose(server), (503, "away"), "verbose")
                for path in ("/health", "/actuator/health"):
                    answer = server.request("GET", path)
                    t.equal((answer.status, answer.body),
                            (503, b'{"status":"OUT_OF_SERVICE"}'), path)
                t.equal(server.request("GET", "/").status, 200, "greeting")
                t.equal(server.request("POST", "/books", {}).status, 400,
                        "a book that is not valid")
            expect_all_unavailable(*servers)

        @t.case("each back end: it becomes ready when the database appears")
        def _():
            pg.start()
            for server in servers:
                server.wait_for("readyz", 20)
                expect_serving(server)
                t.equal(len(server.errors("ready")), 1, "events ready")
                t.equal(server.request("GET", "/health").body,
                        b'{"status":"UP"}', "/health")

    for backend in backends:
        @t.case(f"{backend}: --fail-fast ends with 69 without a database")
        def _(backend=backend):
            conninfo = f"host=127.0.0.1 port={t.free_port()} user=a dbname=a"
            with t.Booksd(settings(backend, conninfo), wait=None,
                          args=["--fail-fast"]) as server:
                t.equal(server.wait(20), 69, "exit code")


# ---- outages

def freeze(pg):
    """SIGSTOP, the parent first so that it makes no more: the pids."""
    frozen = [pg.process.pid]
    os.kill(pg.process.pid, signal.SIGSTOP)
    t.eventually(lambda: t.process_stat(pg.process.pid)[0] == "T", "stopped")
    for pid in t.processes():
        stat = t.process_stat(pid)
        if stat and stat[1] == pg.process.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                frozen.append(pid)
    t.eventually(lambda: all(
        (stat := t.process_stat(pid)) is None or stat[0] in "TZ"
        for pid in frozen), "all stopped")
    return frozen


def outage(pg, servers):
    until = time.monotonic() + OUTAGE_SECONDS
    pg.stop()
    try:
        while time.monotonic() < until:
            expect_all_unavailable(*servers)
            for server in servers:
                t.equal(server.request("GET", "/readyz").status, 200,
                        "/readyz")
                t.equal(verbose(server), (200, "away"), "verbose")
                t.equal(server.request("GET", "/livez").status, 200, "/livez")
            time.sleep(0.2)
    finally:
        pg.start()


def test_outage(pg, backends):
    with one_of_each(backends, pg.conninfo, wait="readyz") as servers:
        @t.case(f"each back end: the database stops for {OUTAGE_SECONDS} s, "
                "and nothing but 503 comes of it", seconds=OUTAGE_SECONDS + 100)
        def _():
            expect_serving(*servers)
            workers = [server.worker_pids() for server in servers]
            outage(pg, servers)
            expect_serving(*servers)
            t.equal([server.worker_pids() for server in servers], workers,
                    "workers")
            for server in servers:
                states = [line["sqlstate"]
                          for line in server.errors("database_away")]
                # Once, and again only when the reason is another one.
                t.check(states and all(a != b for a, b in
                                       zip(states, states[1:])),
                        f"database_away was logged for {states}")

        @t.case("each back end: a crash of the database is survived")
        def _():
            pg.crash()
            try:
                for server in servers:
                    expect_unavailable(get(server))
            finally:
                pg.start()
            expect_serving(*servers, seconds=30)

        @t.case("each back end: a frozen database is 503 in bounded time")
        def _():
            before = version_of(pg)
            frozen = freeze(pg)
            try:
                expect_all_unavailable(*servers)
                for server in servers:
                    t.eventually(lambda server=server: verbose(server) ==
                                 (200, "away"), "database: away", 20)
                expect_all_unavailable(*servers)
            finally:
                for pid in frozen:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
            expect_serving(*servers, seconds=30)
            # What was sent while it was frozen may be made when it thaws: one
            # PUT a server, besides the one that was answered now.
            t.check(version_of(pg) <= before + 2 * len(servers), "versions")


# ---- waiting

def test_waiting(pg, backend):
    with t.Booksd(settings(backend, pg.conninfo, database_connections=2),
                  wait="readyz") as server:
        put(server)

        @t.case(f"{backend}: statement_timeout ends a PUT that waits")
        def _():
            before = version_of(pg)
            with lock_book(pg), server.raw() as client:
                begun = time.monotonic()
                answer = put(client)
                took = time.monotonic() - begun
            expect_unavailable(answer)
            t.equal(answer.text(), "The database did not answer in time.",
                    "body")
            t.check(0.5 < took < 3, f"it took {took:.2f} s")
            t.equal(version_of(pg), before, "version")
            t.equal(put(server).json()["version"], before + 1,
                    "the next version")

        @t.case(f"{backend}: a PUT that waits less is made once")
        def _():
            before = version_of(pg)
            with server.raw() as client, lock_book(pg) as session:
                client.send(t.make_request("PUT", f"/books/{ISBN}",
                                           {"isbn": ISBN, **BODY}))
                time.sleep(0.3)
                session.run("COMMIT;")
                t.equal(client.read_response().status, 200, "status")
            t.equal(version_of(pg), before + 1, "version")

        @t.case(f"{backend}: a GET beside waiting PUTs is answered in time")
        def _():
            other = "9780000000077"
            put(server, other)
            clients = [server.raw(20) for _ in range(2)]
            with lock_book(pg):
                for client in clients:
                    client.send(t.make_request("PUT", f"/books/{ISBN}",
                                               {"isbn": ISBN, **BODY}))
                time.sleep(0.2)
                with server.raw(BOUND_SECONDS) as client:
                    answer = get(client, other)
                t.check(answer.status in (200, 503), f"{answer.status}")
                for client in clients:
                    expect_unavailable(client.read_response())
                    client.close()

        @t.case(f"{backend}: more than the connections can take is 503")
        def _():
            before = version_of(pg)
            clients = [server.raw(30) for _ in range(200)]
            with lock_book(pg):
                for client in clients:
                    client.send(t.make_request("PUT", f"/books/{ISBN}",
                                               {"isbn": ISBN, **BODY}))
                begun = time.monotonic()
                with server.raw(BOUND_SECONDS) as client:
                    expect_unavailable(get(client))
                answers = [client.read_response() for client in clients]
                took = time.monotonic() - begun
                for client in clients:
                    client.close()
                for answer in answers:
                    expect_unavailable(answer)
                t.check(any(answer.text() ==
                            "All connections to the database are busy."
                            for answer in answers), "none was told so")
                t.check(took < 2 * BOUND_SECONDS, f"it took {took:.1f} s")
                # What was sent and not answered must say so, and what says
                # that nothing was done must be true.
                unknown = sum("may or may not" in answer.text()
                              for answer in answers)
            t.eventually(lambda: pg.sql(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = 'books'"
                " AND state = 'active'") == "0", "the sessions are idle")
            t.check(version_of(pg) <= before + unknown,
                    f"{version_of(pg) - before} PUTs were made, {unknown} may"
                    " have been")
            expect_serving(server)


# ---- commits

def test_commit(pg, backend):
    database = f"commit_{backend}"
    conninfo = pg.create_database(database)
    with t.Booksd(settings(backend, conninfo), wait="readyz") as server:
        pg.sql("CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN"
               " IF NEW.title LIKE 'refuse %' THEN RAISE EXCEPTION"
               " 'not this one' USING ERRCODE = substr(NEW.title, 8, 5);"
               " END IF; RETURN NULL; END $$ LANGUAGE plpgsql;"
               " CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON"
               " book DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE"
               " FUNCTION refuse()", database)

        @t.case(f"{backend}: a write whose COMMIT fails is not answered as "
                "done")
        def _():
            t.equal(put(server).status, 200, "a PUT that may")
            for state, statuses in (("P0001", (500,)), ("23514", (500,)),
                                    ("23505", (422,)), ("40001", (503,)),
                                    ("57014", (503,)), ("53100", (503,))):
                answer = put(server, title=f"refuse {state}")
                t.check(answer.status in statuses,
                        f"PUT with {state}: {answer.status}")
                t.check(b"not this one" not in answer.body, "a text leaked")
                answer = server.request("POST", "/books", {
                    "isbn": "9780000000044", **BODY,
                    "title": f"refuse {state}"})
                t.check(answer.status in statuses,
                        f"POST with {state}: {answer.status}")
            t.equal(version_of(pg, database=database), 1, "version")
            t.equal(get(server, "9780000000044").status, 404, "the POST's")

        @t.case(f"{backend}: beside failing commits the others are honest")
        def _():
            asked = {}

            def work(number):
                isbn, done = f"97811110000{number:02}", 0
                with server.raw(30) as client:
                    for turn in range(30):
                        bad = (turn + number) % 3 == 0
                        answer = put(client, isbn, title="refuse P0001"
                                     if bad else "T")
                        t.equal(answer.status, 500 if bad else 200, "status")
                        done += not bad
                        t.equal(get(client, isbn).status,
                                200 if done else 404, "GET")
                asked[isbn] = done
            run_threads(12, work)
            for isbn, done in asked.items():
                t.equal(version_of(pg, isbn, database), done, isbn)


def run_threads(count, function):
    """function(number) on so many threads; the first failure is raised."""
    failures = []

    def run(number):
        try:
            function(number)
        except BaseException as error:
            failures.append(error)
    threads = [threading.Thread(target=run, args=(number,), daemon=True)
               for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        t.check(not thread.is_alive(), "a thread hangs")
    if failures:
        raise failures[0]


# ---- sessions that are ended

class Writer:
    """PUTs of one ISBN, one after the other, and what was said about them."""

    def __init__(self, server, isbn):
        self.server, self.isbn = server, isbn
        self.sent = self.ok = self.unsure = 0
        self.version, self.since = 0, 0  # answered last, sent since then

    def run(self, ended):
        with self.server.raw(30) as client:
            while not ended.is_set():
                self.sent += 1
                self.since += 1
                self.take(put(client, self.isbn))

    def take(self, answer):
        if answer.status == 503:
            self.unsure += "may or may not" in answer.text()
            return
        t.equal(answer.status, 200, f"status of {answer.body[:200]!r}")
        version = answer.json()["version"]
        t.check(self.version < version <= self.version + self.since,
                f"version {version} after {self.version} and {self.since} "
                "PUTs")
        self.ok += 1
        self.version, self.since = version, 0


END_ALL = ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
           " WHERE usename = 'books'")
END_ONE = END_ALL + " ORDER BY random() LIMIT 1"


def end_under_load(pg, server, sql, pause):
    ended, reads, sessions = threading.Event(), [], []
    writers = [Writer(server, f"97822220000{number:02}")
               for number in range(8)]
    pg.sql("DELETE FROM book WHERE isbn LIKE '978222%'")
    put(server)

    def end_sessions():
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            time.sleep(pause)
            sessions.extend(pg.sql(sql).split())
        ended.set()

    def read():
        with server.raw(30) as client:
            while not ended.is_set():
                answer = get(client)
                t.equal(answer.status, 200, f"a read: {answer.body[:200]!r}")
                reads.append(1)

    def work(number):
        if number == 0:
            end_sessions()
        elif number <= len(writers):
            writers[number - 1].run(ended)
        else:
            read()
    try:
        run_threads(len(writers) + 5, work)
    finally:
        ended.set()
    sent = sum(writer.sent for writer in writers)
    unsure = sum(writer.unsure for writer in writers)
    t.diag(f"{len(reads)} reads, {sent} PUTs, {unsure} unsure, "
           f"{sessions.count('t')} sessions ended")
    # Two writers wait for each session, so each end meets a write; the server
    # says that it did not happen, and it is sent once more.
    t.check(sessions.count("t") > 4, "sessions were ended under load")
    if int(pg.sql("SHOW server_version_num")) >= 150000:
        t.equal(unsure, 0, "writes that nobody knows of")
    for writer in writers:
        version = version_of(pg, writer.isbn)
        t.check(writer.ok <= version <= writer.ok + writer.unsure,
                f"{writer.isbn}: {version} PUTs were made, {writer.ok} "
                f"answered, {writer.unsure} unsure")
        t.check(writer.version <= version, "the last version")


def test_terminate(pg, backend):
    with t.Booksd(settings(backend, pg.conninfo, database_acquire_timeout="4s",
                           database_statement_timeout="4s"),
                  wait="readyz") as server:
        for name, sql, pause in (
                ("sessions that are ended one by one", END_ONE, 0.1),
                ("sessions that are ended all at once", END_ALL, 0.5)):
            @t.case(f"{backend}: {name} cost no read and no truth")
            def _(sql=sql, pause=pause):
                end_under_load(pg, server, sql, pause)
                expect_serving(server)

        @t.case(f"{backend}: one session that is ended is replaced")
        def _():
            for _ in range(5):
                pg.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                       " WHERE usename = 'books' LIMIT 1")
                t.equal(get(server).status, 200, "a read")
            t.eventually(lambda: pg.sql(
                "SELECT count(*) FROM pg_stat_activity WHERE usename ="
                " 'books'") == "4", "four sessions", 20)


# ---- the table changes

def test_table(pg, backend):
    database = f"table_{backend}"
    conninfo = pg.create_database(database)
    create = pg.sql("SELECT 'CREATE TABLE book (' || string_agg(format("
                    "'%I %s', a.attname, format_type(atttypid, atttypmod)),"
                    " ', ' ORDER BY attnum) || ')' FROM pg_attribute a WHERE"
                    " attrelid = 'book'::regclass AND attnum > 0")
    with t.Booksd(settings(backend, conninfo, database_acquire_timeout="4s",
                           database_statement_timeout="4s"),
                  wait="readyz") as server:
        changes = (
            ("a column is added", "ALTER TABLE book ADD COLUMN pages integer"),
            ("a column with a default is added",
             "ALTER TABLE book ADD COLUMN shelf text NOT NULL DEFAULT 'x'"),
            ("the price becomes numeric",
             "ALTER TABLE book ALTER COLUMN price TYPE numeric(20, 2)"),
            ("texts become longer",
             "ALTER TABLE book ALTER COLUMN title TYPE text"),
            ("the version becomes bigint",
             "ALTER TABLE book ALTER COLUMN version TYPE bigint"),
            ("an index is made anew", "REINDEX TABLE book"),
            ("the table is dropped and made anew",
             "BEGIN; CREATE TEMP TABLE kept AS SELECT * FROM book; DROP TABLE"
             f" book; {create}; ALTER TABLE book ADD PRIMARY KEY (id),"
             " ADD UNIQUE (isbn), ALTER id ADD GENERATED BY DEFAULT AS"
             " IDENTITY (START 1000), OWNER TO books; INSERT INTO book (id,"
             " author, isbn, price, title, created_date, last_modified_date,"
             " version) SELECT id, author, isbn, price, title, created_date,"
             " last_modified_date, version FROM kept; COMMIT"),
            ("the search path has another such table",
             "BEGIN; CREATE SCHEMA books AUTHORIZATION books; SET ROLE books;"
             " CREATE TABLE books.book (LIKE public.book INCLUDING ALL);"
             " INSERT INTO books.book SELECT * FROM public.book; COMMIT"),
        )

        @t.case(f"{backend}: no request fails while the table is changed")
        def _():
            ended = threading.Event()
            put(server)

            def work(number):
                if number == 0:
                    for name, sql in changes:
                        before = put(server)
                        t.equal(before.status, 200, f"before {name}")
                        pg.sql(sql, database)
                        after = put(server)
                        t.equal(after.status, 200, f"after {name}")
                        t.equal(server.request("GET", "/books").status, 200,
                                f"list after {name}")
                    ended.set()
                    return
                with server.raw(30) as client:
                    while not ended.is_set():
                        answer = (get(client) if number < 4 else put(
                            client, f"978333300000{number}"))
                        t.equal(answer.status, 200,
                                f"status of {answer.body[:200]!r}")
            try:
                run_threads(7, work)
            finally:
                ended.set()
            t.equal([line for line in server.errors()
                     if line["level"] == "error"], [], "error lines")

        @t.case(f"{backend}: a table that is gone is no 200, and it comes back")
        def _():
            pg.sql("ALTER TABLE book RENAME TO book_away; ALTER SCHEMA books"
                   " RENAME TO books_away; ALTER TABLE public.book RENAME TO"
                   " book_away", database, check=False)
            pg.sql("ALTER SCHEMA books RENAME TO books_away; ALTER TABLE"
                   " public.book RENAME TO book_away", database, check=False)
            t.check(get(server).status in (500, 503), "GET without a table")
            t.check(put(server).status in (500, 503), "PUT without a table")
            pg.sql("ALTER TABLE public.book_away RENAME TO book", database)
            t.eventually(lambda: get(server).status == 200, "GET", 20)
            t.equal(put(server).status, 200, "PUT")


# ---- ways to the database

@contextlib.contextmanager
def guarded(password):
    """A cluster with the role keeper, who has to say that password."""
    with t.Postgres(start=False) as pg:
        path = os.path.join(pg.data, "pg_hba.conf")
        with open(path, encoding="ascii") as file:
            rules = file.read()
        with open(path, "w", encoding="ascii") as file:
            file.write("host books keeper 127.0.0.1/32 scram-sha-256\n" + rules)
        pg.start()
        pg.sql(f"CREATE ROLE keeper LOGIN PASSWORD {sql_text(password)};"
               " GRANT ALL ON SCHEMA public TO keeper")
        yield pg, (f"host=127.0.0.1 port={pg.port} dbname=books user=keeper "
                   "password=")


def sql_text(text):
    return "'" + text.replace("'", "''") + "'"


def test_passwords(backends):
    secret, wrong = "right-\\'x", "wrong-pw-4711"
    with guarded(secret) as (pg, conninfo):
        with one_of_each(backends, None, workers=2, env={
                "BOOKS_DATABASE": conninfo + wrong}) as servers:
            @t.case("each back end: a wrong password is said once, and never "
                    "shown")
            def _():
                for server in servers:
                    t.eventually(lambda server=server: len(
                        server.errors("database_away")) >= 2,
                        "both workers said so")
                expect_all_unavailable(*servers)
                time.sleep(1.5)  # several attempts
                for server in servers:
                    lines = server.errors("database_away")
                    t.equal([line["sqlstate"] for line in lines],
                            ["28P01"] * 2, "sqlstates")
                    t.check(lines[0]["worker"] != lines[1]["worker"],
                            "one line a worker")

            @t.case("each back end: the right password later is taken by "
                    "itself")
            def _():
                pg.sql(f"ALTER ROLE keeper PASSWORD '{wrong}'")
                for server in servers:
                    server.wait_for("readyz", 20)
                expect_serving(*servers)
                for server in servers:
                    said = server.stderr_text() + json.dumps(server.access())
                    t.check(wrong not in said, "the password was logged")

        pg.sql(f"ALTER ROLE keeper PASSWORD {sql_text(secret)}")
        quoted = secret.replace("\\", "\\\\").replace("'", "\\'")
        uri = (f"postgresql://keeper:{quote(secret, safe='')}@127.0.0.1:"
               f"{pg.port}/books")
        for kind, text in (("a string", conninfo + f"'{quoted}'"),
                           ("a URI", uri)):
            @t.case("each back end: a password with a quote and a backslash "
                    f"in {kind}")
            def _(text=text):
                with one_of_each(backends, None, wait="readyz",
                                 env={"BOOKS_DATABASE": text}) as servers:
                    expect_serving(*servers)
                    for server in servers:
                        t.check(secret not in server.stderr_text(),
                                "the password was logged")


def test_ways(pg, backend):
    port, folder = pg.port, pg.folder
    closed = t.free_port()
    for name, database in (
            ("a unix socket", pg.conninfo_unix),
            ("a host name",
             f"host=localhost port={port} dbname=books user=books"),
            ("a URI", f"postgresql://books@127.0.0.1:{port}/books"),
            ("a URI with a host name",
             f"postgres://books@localhost:{port}/books?connect_timeout=2"),
            ("a URI with a unix socket",
             f"postgresql://books@{quote(folder, safe='')}:{port}/books"),
            ("two hosts, the first of them closed",
             f"host=127.0.0.1,localhost port={closed},{port} dbname=books"
             " user=books"),
            ("hostaddr",
             f"hostaddr=127.0.0.1 host=nowhere.example.net port={port}"
             " dbname=books user=books")):
        @t.case(f"{backend}: the database by {name}")
        def _(database=database):
            with t.Booksd(settings(backend, database),
                          wait="readyz") as server:
                expect_serving(server)

    @t.case(f"{backend}: libpq's own variables")
    def _():
        with t.Booksd(settings(backend, ""), wait="readyz", env={
                "PGHOST": folder, "PGPORT": str(port), "PGUSER": "books",
                "PGDATABASE": "books"}) as server:
            expect_serving(server)


@contextlib.contextmanager
def silent_names():
    """A program that runs booksd where no name server answers."""
    if os.getuid() != 0 or shutil.which("unshare") is None:
        t.skip("this needs root and unshare(1)")
    dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with dns:
        try:
            dns.bind((DNS_ADDRESS, 53))
        except OSError as error:
            t.skip(f"no name server can be put up: {error}")
        folder = os.path.join(t.BUILDDIR, "var-test", f"dns-{os.getpid()}")
        os.makedirs(folder)
        try:
            for name, text in (
                    ("resolv.conf", f"nameserver {DNS_ADDRESS}\n"
                                    "options timeout:5 attempts:3\n"),
                    ("nsswitch.conf", "hosts: files dns\n"),
                    ("booksd", "#!/bin/sh\nexec unshare -m sh -c '"
                     f"mount --bind {folder}/resolv.conf /etc/resolv.conf && "
                     f"mount --bind {folder}/nsswitch.conf /etc/nsswitch.conf "
                     f"&& exec \"$0\" \"$@\"' {t.BOOKSD} \"$@\"\n")):
                with open(os.path.join(folder, name), "w",
                          encoding="ascii") as file:
                    file.write(text)
            program = os.path.join(folder, "booksd")
            os.chmod(program, 0o755)
            done = subprocess.run([program, "-V"], check=False, timeout=20,
                                  stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE)
            if done.returncode != 0:
                t.skip(f"no mount here: {done.stderr.decode()}")
            yield program, dns
        finally:
            shutil.rmtree(folder)


def test_names(backend):
    @t.case(f"{backend}: a name that nobody resolves blocks nothing")
    def _():
        real = t.BOOKSD
        with silent_names() as (program, dns):
            t.BOOKSD = program
            try:
                with t.Booksd(settings(
                        backend, "host=db.example.net dbname=a user=a"
                        )) as server:
                    dns.settimeout(10)
                    t.check(re.search(rb"db.example", dns.recv(512)),
                            "a question for the name")
                    slowest = 0
                    for _ in range(50):
                        begun = time.monotonic()
                        t.equal(server.request("GET", "/livez").status, 200,
                                "/livez")
                        slowest = max(slowest, time.monotonic() - begun)
                        time.sleep(0.02)
                    t.check(slowest < 1, f"one took {slowest:.2f} s")
                    expect_all_unavailable(server)
                    t.check(server.errors("database_away"), "database_away")
            finally:
                t.BOOKSD = real


def main():
    with t.Postgres() as pg:
        backends = list(t.backends())
        test_late(backends)
        test_outage(pg, backends)
        test_passwords(backends)
        for backend in backends:
            test_waiting(pg, backend)
            test_commit(pg, backend)
            test_terminate(pg, backend)
            test_table(pg, backend)
            test_ways(pg, backend)
            test_names(backend)


if __name__ == "__main__":
    main()
    t.done()
