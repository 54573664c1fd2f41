#!/usr/bin/env python3
"""Goal: whoever changes a book, all tasks know it: quickly while they hear the
database, within bounded time while they do not, and at once when they hear it
again.
Method: two booksd on one PostgreSQL, one with each back end where both work,
with caches that would keep for an hour.  Books that are known to be in both
caches are changed by psql and through either of them; then whoever listens is
killed, stopped, cut off or made deaf while books are changed.
"""
import contextlib
import os
import signal
import statistics
import time

import booksd_test as t

HOUR = {"cache_fresh": "1h", "cache_negative": "1h"}
HEARTBEAT = {"cache_heartbeat": "200ms"}
BODY = {"title": "The title", "author": "An author", "price": 9.5}
ROWS = 10000
SECONDS_MAX = 30  # only against hangs
COLUMNS = ("isbn, author, title, price, version, created_date,"
           " last_modified_date")


new_isbn = t.Isbns()


def insert(isbns, price=1):
    return (f"INSERT INTO book ({COLUMNS}) VALUES " + ", ".join(
        f"('{isbn}', 'A', 'T', {price}, 1, now(), now())" for isbn in isbns) +
        ";")


def get(asker, isbn):
    return asker.request("GET", f"/books/{isbn}")


def put(asker, isbn, **fields):
    answer = asker.request("PUT", f"/books/{isbn}",
                           {"isbn": isbn, **BODY, **fields})
    t.equal(answer.status, 200, f"status of PUT: {answer.body[:200]!r}")
    return answer.json()


def came(answer):
    return answer.header("x-cache")


def price_of(answer):
    """What is told of a book: its price, None for a 404."""
    if answer.status == 404:
        return None
    t.equal(answer.status, 200, f"status ({came(answer)})")
    return answer.json()["price"]


def prices(asker, isbns):
    return [price_of(get(asker, isbn)) for isbn in isbns]


class Tasks:
    """Some booksd, asked on one connection each."""

    def __init__(self, servers):
        self.servers = servers
        self.clients = [server.raw(30) for server in servers]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for client in self.clients:
            client.close()

    def expect_cached(self, isbns):
        """All of it comes from the caches, and so does the list."""
        for client in self.clients:
            for path in [f"/books/{isbn}" for isbn in isbns] + ["/books"]:
                t.eventually(lambda client=client, path=path: came(
                    client.request("GET", path)) == "hit",
                    f"{path} is cached", SECONDS_MAX)

    def expect_seen(self, wanted, server=None):
        """All of them tell what is in wanted, {ISBN: price or None}."""
        for client, its in zip(self.clients, self.servers):
            if server in (None, its):
                t.eventually(lambda client=client: prices(client, wanted) ==
                             list(wanted.values()), f"{wanted} is seen",
                             SECONDS_MAX, 0.001)
                t.eventually(lambda client=client: self.is_listed(
                    client, wanted), f"{wanted} in the list", SECONDS_MAX)

    @staticmethod
    def is_listed(client, wanted):
        listed = {book["isbn"]: book["price"] for book in
                  client.request("GET", "/books").json()}
        return all(listed.get(isbn) == price
                   for isbn, price in wanted.items())


def settings(backend, database, **more):
    return {"io_backend": backend, "workers": 2, "database": database,
            "access_log": "off", **HOUR, **more}


@contextlib.contextmanager
def tasks_of(backends, database, **more):
    """Two booksd that listen."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(t.Booksd(settings(
            backend, database, **more), wait="readyz"))
            for backend in (backends * 2)[:2]]
        for server in servers:
            t.eventually(lambda server=server: server.errors("notify_ready"),
                         "it listens", SECONDS_MAX)
        yield stack.enter_context(Tasks(servers))


# ---- changes

def changes(a, b, c, d):
    """(what, statements, what is seen then) of a, b with price 1 and c, d that
    are not there."""
    values = f"('{c}', 'A', 'T', 5, 1, now(), now())"
    return [
        ("UPDATE", f"UPDATE book SET price = 2 WHERE isbn = '{a}'",
         {a: 2, b: 1}),
        ("UPDATE of two", "UPDATE book SET price = price + 2 WHERE isbn IN"
         f" ('{a}', '{b}')", {a: 3, b: 3}),
        ("INSERT", insert([c, d], 5), {c: 5, d: 5}),
        ("DELETE", f"DELETE FROM book WHERE isbn = '{a}'", {a: None, b: 1}),
        ("an UPDATE of an ISBN", f"UPDATE book SET isbn = '{c}' WHERE isbn ="
         f" '{a}'", {a: None, c: 1}),
        ("an exchange of ISBNs", f"UPDATE book SET isbn = 'x{d}', price = 7"
         f" WHERE isbn = '{a}'; UPDATE book SET isbn = '{a}' WHERE isbn ="
         f" '{b}'; UPDATE book SET isbn = '{b}' WHERE isbn = 'x{d}'",
         {a: 1, b: 7}),
        ("INSERT ON CONFLICT DO UPDATE", f"INSERT INTO book ({COLUMNS}) VALUES"
         f" {values}, ('{a}', 'A', 'T', 6, 1, now(), now()) ON CONFLICT (isbn)"
         " DO UPDATE SET price = excluded.price", {a: 6, c: 5}),
        ("one statement of several", f"WITH gone AS (DELETE FROM book WHERE"
         f" isbn = '{a}'), new AS (INSERT INTO book ({COLUMNS}) VALUES"
         f" {values}) UPDATE book SET price = 8 WHERE isbn = '{b}'",
         {a: None, b: 8, c: 5}),
        ("a transaction", "BEGIN; UPDATE book SET price = 8 WHERE isbn ="
         f" '{a}'; SAVEPOINT s; DELETE FROM book WHERE isbn = '{b}'; ROLLBACK"
         f" TO s; {insert([c], 9)} COMMIT", {a: 8, b: 1, c: 9}),
        ("COPY", f"COPY book ({COLUMNS}) FROM stdin;\n"
         f"{c}\tA\tT\t4\t1\tnow\tnow\n\\.\n", {c: 4, d: None}),
        (f"COPY of {ROWS:,}", f"COPY book ({COLUMNS}) FROM stdin;\n" +
         f"{c}\tA\tT\t4\t1\tnow\tnow\n{d}\tA\tT\t4\t1\tnow\tnow\n" +
         "".join(f"{n}\tA\tT\t4\t1\tnow\tnow\n" for n in range(ROWS)) +
         "\\.\n", {a: 1, c: 4, d: 4}),
        ("an UPDATE of all", "UPDATE book SET price = 3", {a: 3, b: 3}),
        ("a DELETE of all", "DELETE FROM book", {a: None, b: None, c: None}),
        ("TRUNCATE", "TRUNCATE book", {a: None, b: None, c: None}),
        ("TRUNCATE with what is new", f"BEGIN; TRUNCATE book; "
         f"{insert([a, d], 6)} COMMIT", {a: 6, b: None, d: 6}),
    ]


def test_sql(pg, backends):
    with tasks_of(backends, pg.conninfo) as tasks:
        for number in range(len(changes(*"abcd"))):
            isbns = [new_isbn() for _ in range(4)]
            what, sql, seen = changes(*isbns)[number]

            @t.case(f"{what} by psql is seen by all, in books, missing books "
                    "and the list")
            def _(isbns=isbns, sql=sql, seen=seen):
                pg.sql("TRUNCATE book;" + insert(isbns[:2]))
                tasks.expect_seen(dict(zip(isbns, (1, 1, None, None))))
                tasks.expect_cached(isbns)
                pg.sql(sql)
                tasks.expect_seen(seen)

        @t.case("what is rolled back is forgotten by nobody")
        def _():
            isbn = new_isbn()
            pg.sql(insert([isbn]))
            tasks.expect_seen({isbn: 1})
            tasks.expect_cached([isbn])
            pg.sql("BEGIN; UPDATE book SET price = 2; DELETE FROM book;"
                   " ROLLBACK")
            # Whatever is notified after it has come when this is seen.
            other = new_isbn()
            pg.sql(insert([other]))
            tasks.expect_seen({other: 1})
            for client in tasks.clients:
                t.equal(came(get(client, isbn)), "hit", "X-Cache")

        @t.case("what one task writes is seen by the other, and its own is "
                "never older")
        def _():
            times = []
            for turn in range(60):
                writer = turn % 2
                one, other = tasks.clients[writer], tasks.clients[1 - writer]
                isbn = f"97911110000{turn % 5:02}"
                book = put(one, isbn, price=turn + 1)
                begun = time.monotonic()
                t.equal(get(one, isbn).json(), book, "its own")
                t.eventually(lambda: price_of(get(other, isbn)) == turn + 1,
                             "the other's", SECONDS_MAX, 0.001)
                times.append(time.monotonic() - begun)
                get(other, isbn)  # so that it is cached for the next turn
                t.check(get(other, isbn).json()["version"] >=
                        book["version"], "the other's, later")
            t.diag(f"seen after {statistics.median(times) * 1e3:.1f} ms "
                   f"(median), {max(times) * 1e3:.1f} ms at most")

        @t.case("POST and DELETE through one task are seen by the other")
        def _():
            one, other = tasks.clients
            for isbn in (new_isbn(), new_isbn()):
                tasks.expect_cached([isbn])
                t.equal(one.request("POST", "/books", {"isbn": isbn, **BODY})
                        .status, 201, "status of POST")
                tasks.expect_seen({isbn: BODY["price"]})
                tasks.expect_cached([isbn])
                t.equal(other.request("DELETE", f"/books/{isbn}").status, 204,
                        "status of DELETE")
                tasks.expect_seen({isbn: None})
                one, other = other, one


# ---- nobody listens

def listener_of(pg, server):
    """The database's pid of the session that listens for server."""
    def probe():
        ops = server.ops_pid()
        ports = [port for port, pid in server.owners(False).items()
                 if pid == ops]
        return ports and pg.sql(
            "SELECT pid FROM pg_stat_activity WHERE client_port ="
            f" {ports[0]}", "postgres")
    return int(t.eventually(probe, "its session is known"))


def ready_count(server):
    return len(server.errors("notify_ready"))


def known(pg, tasks):
    """A new book and a missing one, which all tasks have in their caches."""
    isbns = [new_isbn(), new_isbn()]
    pg.sql(insert(isbns[:1]))
    tasks.expect_seen({isbns[0]: 1, isbns[1]: None})
    tasks.expect_cached(isbns)
    return isbns


def change(pg, isbns):
    """What known() made is different now: what is to be seen."""
    pg.sql(f"UPDATE book SET price = 2 WHERE isbn = '{isbns[0]}';"
           + insert(isbns[1:]))
    return {isbns[0]: 2, isbns[1]: 1}


def expect_again(pg, tasks, server, before):
    """It listens again, and hears."""
    t.eventually(lambda: ready_count(server) > before, "it listens again",
                 SECONDS_MAX)
    isbns = known(pg, tasks)
    tasks.expect_seen(change(pg, isbns))


@contextlib.contextmanager
def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        t.eventually(lambda: t.process_stat(pid)[0] == "T", "it is stopped")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_deaf(pg, backends):
    with tasks_of(backends, pg.conninfo, **HEARTBEAT) as tasks:
        server = tasks.servers[0]

        @t.case("heartbeats without a reason make nothing suspect")
        def _():
            isbns = known(pg, tasks)
            ready = [ready_count(one) for one in tasks.servers]
            time.sleep(1)  # five of them
            if ready != [ready_count(one) for one in tasks.servers]:
                t.skip("the machine is too slow for heartbeats of 200 ms")
            for client in tasks.clients:
                for isbn in isbns:
                    t.equal(came(get(client, isbn)), "hit", "X-Cache")

        @t.case("ops is killed while books change: another one sees to it")
        def _():
            for _ in range(2):
                isbns, before = known(pg, tasks), ready_count(server)
                pid = server.ops_pid()
                os.kill(pid, signal.SIGKILL)
                seen = change(pg, isbns)
                tasks.expect_seen(seen)
                expect_again(pg, tasks, server, before)
                t.check(server.ops_pid() not in (None, pid), "the same ops")

        @t.case("its session is ended while books change")
        def _():
            for _ in range(3):
                isbns, before = known(pg, tasks), ready_count(server)
                pg.sql("SELECT pg_terminate_backend"
                       f"({listener_of(pg, server)}), pg_sleep(0.05)")
                seen = change(pg, isbns)
                tasks.expect_seen(seen)
                expect_again(pg, tasks, server, before)

        @t.case("what was cached before its session was lost is loaded again "
                "before it is served")
        def _():
            isbns, before = known(pg, tasks), ready_count(server)
            with stopped(server.ops_pid()):
                pg.sql("SELECT pg_terminate_backend"
                       f"({listener_of(pg, server)})")
                seen = change(pg, isbns)
                # It has not heard of that and never will.
                t.equal(prices(tasks.clients[0], isbns), [1, None], "prices")
                tasks.expect_seen(seen, tasks.servers[1])
            t.eventually(lambda: ready_count(server) > before,
                         "it listens again", SECONDS_MAX)
            t.equal(prices(tasks.clients[0], isbns), list(seen.values()),
                    "prices, once it listens")

        @t.case("its session is deaf: the heartbeat finds out")
        def _():
            isbns, before = known(pg, tasks), ready_count(server)
            with stopped(listener_of(pg, server)):
                seen = change(pg, isbns)
                tasks.expect_seen(seen)
                t.check(ready_count(server) > before, "by what, then?")
            expect_again(pg, tasks, server, before)

        @t.case("ops itself is stopped and goes on: nothing was missed")
        def _():
            isbns = known(pg, tasks)
            with stopped(server.ops_pid()):
                seen = change(pg, isbns)
                tasks.expect_seen(seen, tasks.servers[1])
            tasks.expect_seen(seen)

        @t.case("the database is restarted and books change before anybody "
                "can listen")
        def _():
            isbns = known(pg, tasks)
            before = [ready_count(one) for one in tasks.servers]
            pids = [one.ops_pid() for one in tasks.servers]
            with stopped(pids[0]), stopped(pids[1]):
                pg.restart()
                seen = change(pg, isbns)
            for one, count in zip(tasks.servers, before):
                t.eventually(lambda one=one, count=count:
                             ready_count(one) > count, "it listens again",
                             SECONDS_MAX)
            tasks.expect_seen(seen)
            expect_again(pg, tasks, server, before[0])


def told_until(client, isbn, price):
    """When the last request was sent that was not told this price."""
    begun, last = time.monotonic(), 0
    while True:
        asked = time.monotonic() - begun
        if price_of(get(client, isbn)) == price:
            return last
        last = asked
        t.check(asked < SECONDS_MAX, "it is never told")
        time.sleep(0.005)


def test_bound(pg, backends):
    with tasks_of(backends, pg.conninfo, cache_fresh="1s",
                  cache_negative="1s",
                  cache_stale_while_revalidate="1s") as tasks:
        @t.case("while ops is stopped an answer is at most cache_fresh and "
                "cache_stale_while_revalidate old")
        def _():
            isbn = new_isbn()
            pg.sql(insert([isbn]))
            tasks.expect_seen({isbn: 1})
            client, spans = tasks.clients[0], []
            with stopped(tasks.servers[0].ops_pid()):
                for turn in range(2, 5):
                    get(client, isbn)
                    pg.sql(f"UPDATE book SET price = {turn} WHERE isbn ="
                           f" '{isbn}'")
                    spans.append(told_until(client, isbn, turn))
                    t.check(spans[-1] <= 2, f"the old price after {spans}")
            t.diag("an old price was told up to "
                   f"{', '.join(f'{span:.2f}' for span in spans)} s later")

    with tasks_of(backends, pg.conninfo, control_socket="off",
                  cache_size="2MiB") as tasks:
        @t.case("a small cache without a control socket is told as well")
        def _():
            pg.sql("TRUNCATE book")  # or the list has no room in it
            isbns = known(pg, tasks)
            tasks.expect_seen(change(pg, isbns))


def main():
    with t.Postgres({"max_connections": 100}) as pg:
        backends = list(t.backends())
        test_sql(pg, backends)
        pg.sql("TRUNCATE book")
        test_deaf(pg, backends)
        test_bound(pg, backends)
    t.done()


main()
