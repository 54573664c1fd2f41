#!/usr/bin/env python3
"""Goal: ops hears from the database whatever happens to its session, answers
administrators whatever they ask, and dies without a client noticing; booksctl
cache shows what it says and knows each way in which it says nothing.
Method: real booksd and PostgreSQL.  The session is cut, stopped, swallowed by a
proxy that lets no notification through, and given an address that does not
answer; the control socket is spoken to with raw HTTP; booksctl also meets
servers that are none.
"""
import contextlib
import json
import os
import pwd
import re
import signal
import socket
import stat
import struct
import subprocess
import tempfile
import threading

import booksd_test as t

# sysexits(3)
USAGE, UNAVAILABLE, PROTOCOL, NOPERM = 64, 69, 76, 77
BOOK = "9780201134476"

pg = t.Postgres()
t.check(t.booksctl("migrate", database=pg.conninfo).returncode == 0,
        "booksctl migrate")
folder = tempfile.mkdtemp(prefix="booksd-it-ops-", dir="/tmp")
os.chmod(folder, 0o755)
numbers = iter(range(1000))


def insert(isbn, database="books"):
    pg.sql("INSERT INTO book (isbn, title, author, price, created_date, "
           "last_modified_date, version) VALUES "
           f"('{isbn}', 'T', 'A', 1, now(), now(), 1)", database=database)


class Server(t.Booksd):
    """A booksd with a control socket of its own and a quick heartbeat."""

    def __init__(self, settings=None, heard=True, **kwargs):
        self.control = os.path.join(folder, f"control{next(numbers)}")
        super().__init__({
            "database": pg.conninfo, "workers": 2,
            "control_socket": self.control, "cache_heartbeat": "300ms",
            **(settings or {})}, **{"wait": "readyz", **kwargs})
        if heard:
            self.wait_ready()

    def ask(self, method, target, body=None, headers=()):
        with t.Raw(self.control) as client:
            return client.request(method, target, body, headers)

    def status(self):
        answer = self.ask("GET", "/cache")
        t.equal(answer.status, 200, "status")
        return answer.json()

    def session(self):
        return self.status()["notifications"]

    def counter(self, name):
        return self.status()["counters"][name]

    def wait_ready(self):
        t.eventually(lambda: self.session()["state"] == "ready",
                     "the notification session is ready", 30)

    def ops_pid(self):
        def find():
            found = [pid for pid, title in self.children().items()
                     if title == "booksd: ops"]
            return found[0] if len(found) == 1 else None
        return t.eventually(find, "there is one ops process")

    def cache_of(self, target):
        answer = self.request("GET", target)
        return answer.header("x-cache")

    def warm(self, target):
        t.eventually(lambda: self.cache_of(target) == "hit",
                     f"{target} is a hit")

    def ctl(self, *args, **kwargs):
        return t.booksctl("cache", *args, "-S", self.control, **kwargs)


def backend_pids():
    """Of the sessions of ops, in PostgreSQL."""
    rows = pg.sql("SELECT pid FROM pg_stat_activity "
                  "WHERE application_name = 'booksd ops'")
    return [int(row) for row in rows.split()]


def is_problem(answer, status, word=""):
    t.equal(answer.status, status, f"status of {str(answer)[:500]}")
    t.equal(answer.header("content-type"), "application/problem+json", "type")
    problem = answer.json()
    t.equal(problem["status"], status, "the problem's status")
    t.check(word in problem["detail"], problem["detail"])


insert(BOOK)

# ---- the control socket

with Server({"cache_negative": "1h"}) as server:

    @t.case("GET /cache gives every counter by its name, and the sizes")
    def _():
        with open(os.path.join(t.SRCDIR, "shm", "shm_cache.h"),
                  encoding="utf-8") as file:
            names = re.findall(r"^\tSHM_CACHE_COUNTER\((\w+),", file.read(),
                               re.M)
        t.check(len(names) > 10, "the header was read")
        status = server.status()
        t.equal(list(status["counters"]), names, "counters")
        t.equal(status["memory"]["data_bytes"], 64 << 20, "bytes")
        t.equal(status["memory"]["segments"] *
                status["memory"]["segment_bytes"], 64 << 20, "segments")
        t.equal(status["notifications"]["heartbeat_s"], 0.3, "heartbeat")
        t.check(status["version"], "version")

    @t.case("the hit ratio is null before the first answer, then a fraction")
    def _():
        t.equal(server.status()["hit_ratio"], None, "before")
        server.cache_of("/books/" + BOOK)
        server.warm("/books/" + BOOK)
        counters = server.status()["counters"]
        t.check(counters["hits"] >= 1 and counters["misses"] >= 1, counters)
        good = (counters["hits"] + counters["stale"] + counters["coalesced"])
        t.check(abs(server.status()["hit_ratio"] -
                    good / (good + counters["misses"])) < 1e-5, "ratio")

    @t.case("HEAD is answered like GET, without a body")
    def _():
        with t.Raw(server.control) as client:
            head = client.request("HEAD", "/cache")
            t.equal(head.status, 200, "status")
            t.check(int(head.header("content-length")) > 100, "length")
            t.equal(client.request("GET", "/cache").status, 200, "after it")

    @t.case("other paths are 404 and other methods 405 with Allow")
    def _():
        for target in ("/x", "/cache/", "/cached", "/cache/flush/", "/Cache",
                       "/books", "/cache/keys/x"):
            is_problem(server.ask("GET", target), 404)
        for method, target, allow in (
                ("POST", "/cache", "GET, HEAD"),
                ("DELETE", "/cache", "GET, HEAD"),
                ("POST", "/cache/keys", "GET"),
                ("HEAD", "/cache/flush", "POST"),
                ("GE", "/cache/keys", "GET"),
                ("GET", "/cache/flush", "POST"),
                ("PUT", "/cache/flush", "POST")):
            answer = server.ask(method, target, body=b"")
            t.equal(answer.status, 405, f"{method} {target}")
            if method != "HEAD":
                is_problem(answer, 405)
            t.equal(answer.header("allow"), allow, f"{method} {target}")

    @t.case("arguments that make no sense are 400, and nothing is flushed")
    def _():
        server.warm("/books/" + BOOK)
        before = server.status()["counters"]
        long = "x" * 1021
        for target, word in (
                ("/cache/flush", "Say what"), ("/cache/flush?", "Say what"),
                ("/cache/flush?class=book", "all, books, lists or negatives"),
                ("/cache/flush?class=", "all, books, lists or negatives"),
                ("/cache/flush?class", "all, books, lists or negatives"),
                ("/cache/flush?class=all&class=some", "must be"),
                ("/cache/flush?isbn=1&clas=all", "class and isbn"),
                ("/cache/flush?isbn=", "1 to 1020"),
                ("/cache/flush?isbn=" + BOOK + "&isbn=" + long, "1 to 1020"),
                ("/cache/flush?isbn=" + BOOK + "&x%00y=1", "class and isbn")):
            is_problem(server.ask("POST", target, b""), 400, word)
        for limit in ("0", "10001", "-1", "", "x", "1x", "+1", "%31%00",
                      "99999999999999999999"):
            is_problem(server.ask("GET", "/cache/keys?limit=" + limit), 400,
                       "1 to 10000")
        is_problem(server.ask("GET", "/cache/keys?limi=1"), 400, "limit")
        after = server.status()["counters"]
        for name in ("flushes", "invalidations"):
            t.equal(after[name], before[name], name)
        t.equal(server.cache_of("/books/" + BOOK), "hit", "the book")

    @t.case("a flush empties the classes that it names, and no other")
    def _():
        for classes, hits in (
                (["books"], ["miss", "hit", "hit"]),
                (["lists"], ["hit", "miss", "hit"]),
                (["negatives"], ["hit", "hit", "miss"]),
                (["lists", "negatives"], ["hit", "miss", "miss"]),
                (["all"], ["miss", "miss", "miss"])):
            targets = ["/books/" + BOOK, "/books", "/books/0000000000"]
            for target in targets:
                server.warm(target)
            query = "&".join("class=" + name for name in classes)
            answer = server.ask("POST", "/cache/flush?" + query, b"")
            t.equal(answer.status, 200, "status")
            t.equal(answer.json()["flushed"],
                    ["books", "lists", "negatives"] if classes == ["all"]
                    else classes, "what was flushed")
            t.equal([server.cache_of(target) for target in targets], hits,
                    f"after {classes}")

    @t.case("a flush by ISBN voids these books and the lists")
    def _():
        targets = ["/books/" + BOOK, "/books", "/books/0000000000",
                   "/books/a%20%2B%26%3D%C3%A9"]
        for target in targets:
            server.warm(target)
        answer = server.ask("POST", "/cache/flush?isbn=a+%2B%26%3D%C3%A9&"
                            "isbn=0000000000", b"")
        t.equal(answer.json(), {"flushed": [], "books": 2}, "answer")
        t.equal([server.cache_of(target) for target in targets],
                ["hit", "miss", "miss", "miss"], "after it")

    @t.case("a request may have a body, which means nothing, within bounds")
    def _():
        with t.Raw(server.control) as client:
            for size in (1, 5000, 60000):
                t.equal(client.request("POST", "/cache/flush?class=lists",
                                       b"x" * size).status, 200, size)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.send(b"POST /cache/flush?class=lists HTTP/1.1\r\n"
                            b"Host: a\r\nContent-Length: 9000000\r\n\r\n"
                            + b"x" * 9000000)
            t.equal(client.read_eof(), b"", "the connection is closed")
        t.equal(server.ask("GET", "/cache").status, 200, "afterwards")

    @t.case("what is no HTTP/1.1 is refused, and the next one is served")
    def _():
        for bytes_ in (b"GET /cache HTTP/1.1\r\n\r\n", b"\0\0\0\0\r\n\r\n",
                       b"GET /cache\r\n\r\n",
                       b"GET /" + b"x" * 300000 + b" HTTP/1.1\r\n\r\n",
                       b"POST /cache/flush?" + b"isbn=1&" * 40000 +
                       b" HTTP/1.1\r\nHost: a\r\n\r\n"):
            with t.Raw(server.control) as client:
                with contextlib.suppress(OSError):
                    client.send(bytes_)
                    client.half_close()
                said = b""
                with contextlib.suppress(OSError):
                    said = client.read_eof()
                t.check(b" 200 " not in said, f"{bytes_[:30]}: {said[:80]}")
        t.equal(server.ask("GET", "/cache").status, 200, "afterwards")

    @t.case("many requests go over one connection, and more connections wait")
    def _():
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(t.Raw(server.control))
                       for _ in range(16)]
            for client in clients:
                for _ in range(5):
                    t.equal(client.request("GET", "/cache").status, 200,
                            "status")
            late = stack.enter_context(t.Raw(server.control, seconds=20))
            late.send(t.make_request("GET", "/cache"))
            t.check(not late.is_closed(), "the 17th is not refused")
            clients[0].close()
            t.equal(late.read_response().status, 200, "when there is room")

    @t.case("keys come by frequency, as many as are asked for")
    def _():
        server.ask("POST", "/cache/flush?class=all", b"")
        for i in range(30):
            server.cache_of(f"/books/{i:010}")
        for i in (3, 17):
            for _ in range(4):
                server.cache_of(f"/books/{i:010}")
        server.warm("/books/" + BOOK)
        answer = server.ask("GET", "/cache/keys?limit=10")
        t.equal(answer.header("content-type"), "application/json", "type")
        keys = answer.json()
        t.equal(len(keys), 10, "how many")
        used = [key["frequency"] for key in keys]
        t.equal(used, sorted(used, reverse=True), "order")
        t.check({"b0000000003", "b0000000017"} <=
                {key["key"] for key in keys[:4]}, keys)
        t.equal(sorted(keys[0]), sorted(
            ["key", "class", "status", "bytes", "frequency", "age_s",
             "version", "served"]), "members")
        every = server.ask("GET", "/cache/keys?limit=10000").json()
        t.check(len(every) >= 31, f"{len(every)} keys")
        book = [key for key in every
                if key["key"] == "b" + BOOK and key["served"]]
        t.equal(len(book), 1, "the book")
        t.equal((book[0]["class"], book[0]["status"], book[0]["version"]),
                ("book", 200, 1), "the book")
        one = [key for key in every if key["key"] == "b0000000005"][0]
        t.equal((one["class"], one["status"], one["bytes"]),
                ("negative", 404, 0), "a missing book")

    @t.case("keys are valid JSON whatever clients asked for")
    def _():
        hostile = ["%22%5C%2F", "%0A%0D%09%1B%5B31m", "%7F%C2%9B31m",
                   "%E2%80%AE", "%F0%9F%93%9A", "%EF%BF%BD", "a%20b"]
        for text in hostile:
            server.request("GET", "/books/" + text)
        keys = [key["key"] for key in
                server.ask("GET", "/cache/keys?limit=10000").json()]
        for text in ('b"\\/', "b\n\r\t\x1b[31m", "b\x7f\x9b31m", "b\u202e",
                     "b\U0001F4DA", "b\ufffd", "ba b"):
            t.check(text in keys, f"{text!r} is missing in {keys}")
        shown = server.ctl("keys", "-n", "10000")
        t.equal(shown.returncode, 0, shown.stderr)
        raw = server.ctl("keys", "-n", "10000", "--json")
        t.equal([key["key"] for key in json.loads(raw.stdout)], keys,
                "as JSON")
        for out in (shown.stdout, raw.stdout):
            for bad in "\x1b\r\t\x7f\x9b\u202e":
                t.check(bad not in out, f"{bad!r} reaches the terminal")
        t.check(r"\u000a\u000d\u0009\u001b[31m" in shown.stdout,
                shown.stdout)

    @t.case("slow readers of keys are two at a time, and hold up nobody")
    def _():
        # Answers that do not fit into a socket's buffer.
        with server.raw(seconds=60) as client:
            for i in range(1000):
                isbn = f"{i:04}" + "%E6%9B%B8" * 251
                t.equal(client.request("GET", "/books/" + isbn).status, 404,
                        "status")
        request = t.make_request("GET", "/cache/keys?limit=10000")
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(t.Raw(server.control, seconds=30))
                    for _ in range(2)]
            for client in slow:
                client.send(request)
                t.equal(client.read_head().status, 200, "status")
            is_problem(server.ask("GET", "/cache/keys"), 503, "Others")
            t.equal(server.ask("GET", "/cache").status, 200, "/cache")
            slow.pop().close()
            t.eventually(lambda: server.ask("GET", "/cache/keys?limit=1")
                         .status == 200, "there is room again")
            rest = slow[0].read_body(t.Response(
                200, {"transfer-encoding": ["chunked"]}, b""))
            t.check(len(json.loads(rest)) >= 1000, "the slow one gets all")

    @t.case("the socket is its owner's alone")
    def _():
        mode = os.stat(server.control)
        t.check(stat.S_ISSOCK(mode.st_mode), "it is a socket")
        t.equal(stat.S_IMODE(mode.st_mode), 0o600, "mode")
        t.equal(mode.st_uid, os.getuid(), "owner")
        if os.getuid() != 0:
            t.skip("only root can be somebody else")
        nobody = pwd.getpwnam("nobody").pw_uid
        done = subprocess.run(
            [t.BOOKSCTL, "cache", "-S", server.control],
            env=t.clean_environment(), user=nobody, extra_groups=[],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, encoding="utf-8", timeout=60, check=False)
        t.equal(done.returncode, NOPERM, done.stderr)
        t.check("only the user" in done.stderr, done.stderr)

    # ---- booksctl

    @t.case("booksctl cache shows every counter and the session")
    def _():
        for args in ((), ("status",)):
            shown = server.ctl(*args)
            t.equal(shown.returncode, 0, shown.stderr)
            for name in server.status()["counters"]:
                t.check(re.search(rf"^  {name.replace('_', ' ')} +[\d,]+  \S",
                                  shown.stdout, re.M), shown.stdout)
            for pattern in (r"hit ratio +\d+\.\d\d %", r"size +64\.0 MiB",
                            r"session +ready  for \d+ s",
                            r"heartbeat +0\.3 s  heard \d\.\d s ago"):
                t.check(re.search("^  " + pattern, shown.stdout, re.M),
                        f"{pattern}: {shown.stdout}")
        t.equal(json.loads(server.ctl("--json").stdout).keys(),
                server.status().keys(), "as JSON")

    @t.case("booksctl cache flush and keys do what the requests do")
    def _():
        server.warm("/books/" + BOOK)
        shown = server.ctl("keys").stdout
        t.check(re.search(rf"^ +[123]  book +200 +\d+ +1 +\d+ s  yes +{BOOK}$",
                          shown, re.M), shown)
        t.equal(len(server.ctl("keys", "-n", "1").stdout.splitlines()), 2,
                "lines")
        for args, said in (
                (("flush", "lists"), "lists: flushed\n"),
                (("flush",), "books: flushed\nlists: flushed\n"
                 "negatives: flushed\n"),
                (("flush", BOOK), "1 book and the lists will be loaded "
                 "again\n"),
                (("flush", "a b&1", "2", "negatives"), "2 books and the lists "
                 "will be loaded again\nnegatives: flushed\n")):
            server.warm("/books/" + BOOK)
            done = server.ctl(*args)
            t.equal((done.returncode, done.stdout), (0, said), args)
        server.ctl("flush", BOOK)
        t.equal(server.cache_of("/books/" + BOOK), "miss", "after the flush")
        t.equal(json.loads(server.ctl("flush", "books", "--json").stdout),
                {"flushed": ["books"], "books": 0}, "as JSON")

    @t.case("the socket comes from -S, BOOKS_CONTROL_SOCKET, nothing else")
    def _():
        env = {"BOOKS_CONTROL_SOCKET": server.control,
               "BOOKS_DATABASE_FILE": "/nowhere"}
        t.equal(t.booksctl("cache", env=env).returncode, 0, "environment")
        env["BOOKS_CONTROL_SOCKET"] = "/nowhere"
        t.equal(server.ctl(env=env).returncode, 0, "-S goes before it")
        done = t.booksctl("cache", env={"BOOKS_CONTROL_SOCKET": "off"})
        t.equal(done.returncode, UNAVAILABLE, done.stderr)
        t.check("BOOKS_CONTROL_SOCKET=off" in done.stderr, done.stderr)

    @t.case("mistakes on the command line are 64, and nothing is asked")
    def _():
        before = server.counter("flushes")
        for args, word in (
                (("stat",), "status, flush or keys"),
                (("status", "x"), "no argument"), (("keys", "5"), "-n"),
                (("keys", "-n", "0"), "1 to 10000"),
                (("keys", "-n", "10001"), "1 to 10000"),
                (("keys", "-n", "1x"), "1 to 10000"),
                (("keys", "-n", ""), "1 to 10000"),
                (("-n", "5"), "keys"), (("flush", "bokos"), "all, books"),
                (("flush", "lists", ""), "all, books"), (("--jsn",), "--jsn"),
                (("flush", *["9780201134476"] * 500), "too many")):
            done = server.ctl(*args)
            t.equal(done.returncode, USAGE, f"{args}: {done.stderr}")
            t.check(word in done.stderr, f"{args}: {done.stderr}")
            t.equal(done.stdout, "", f"{args}: output")
        t.equal(server.counter("flushes"), before, "flushes")

    # ---- the session

    @t.case("a change by psql is heard: the book and the lists are loaded")
    def _():
        for text, targets in (
                (f"UPDATE book SET price = 2 WHERE isbn = '{BOOK}'",
                 ["/books/" + BOOK, "/books"]),
                ("NOTIFY books_changed, '[\"0000000000\"]'",
                 ["/books/0000000000", "/books"]),
                ("NOTIFY books_changed, 'flush'",
                 ["/books/" + BOOK, "/books", "/books/0000000000"]),
                ("NOTIFY books_changed, 'what?'",
                 ["/books/" + BOOK, "/books", "/books/0000000000"]),
                ("NOTIFY books_changed",
                 ["/books/" + BOOK, "/books", "/books/0000000000"])):
            for target in targets:
                server.warm(target)
            before = server.session()["received"]
            pg.sql(text)
            t.eventually(lambda: server.session()["received"] > before,
                         "it was heard")
            for target in targets:
                t.equal(server.cache_of(target), "miss", f"{text}: {target}")

    @t.case("notifications that make no sense are logged once, unshown")
    def _():
        before = server.session()["unreadable"]
        pg.sql("".join(f"NOTIFY books_changed, 's3cret {i}';"
                       for i in range(300)))
        t.eventually(lambda: server.session()["unreadable"] == before + 300,
                     "all of them were counted")
        t.equal(len(server.errors("notify_unreadable")), 1, "log lines")
        t.check("s3cret" not in server.stderr_text(), "the payload is shown")

    @t.case("a flood is heard to its end, and the socket answers meanwhile")
    def _():
        before = server.session()
        count = 30000
        pg.sql("DO $$ BEGIN FOR i IN 1.." + str(count) + " LOOP PERFORM "
               "pg_notify('books_changed', '[\"' || i || '\"]'); "
               "END LOOP; END $$")
        t.eventually(lambda: server.session()["books"] ==
                     before["books"] + count, "every book was heard", 60)
        t.equal(server.session()["sessions"], before["sessions"], "sessions")

    @t.case("a session that is ended by the server comes back, and what is "
            "cached becomes suspect")
    def _():
        server.warm("/books/" + BOOK)
        sessions = server.session()["sessions"]
        suspects = server.counter("suspects")
        lost = len(server.errors("notify_lost"))
        old = backend_pids()
        t.equal(len(old), 1, "sessions in PostgreSQL")
        pg.sql(f"SELECT pg_terminate_backend({old[0]})")
        t.eventually(lambda: server.session()["sessions"] == sessions + 1,
                     "another session", 30)
        t.equal(server.counter("suspects"), suspects + 1, "suspects")
        t.check(server.cache_of("/books/" + BOOK) != "hit",
                "the book is loaded again")
        t.check(old[0] not in backend_pids(), "it is another one")
        lines = server.errors("notify_lost")[lost:]
        t.equal(len(lines), 1, "log lines")
        t.check("administrator" in lines[0]["reason"], lines[0])

    @t.case("a session that is deaf is noticed and replaced")
    def _():
        sessions = server.session()["sessions"]
        suspects = server.counter("suspects")
        old = backend_pids()
        os.kill(old[0], signal.SIGSTOP)
        try:
            t.eventually(lambda: server.session()["sessions"] > sessions,
                         "another session", 30)
            t.equal(server.counter("suspects"), suspects + 1, "suspects")
            lines = server.errors("notify_deaf")
            t.equal(len(lines), 1, "log lines")
            t.check("heartbeat" in lines[0]["reason"], lines[0])
        finally:
            os.kill(old[0], signal.SIGCONT)
        t.eventually(lambda: old[0] not in backend_pids(), "the old one went")

    @t.case("ops that was stopped for a while keeps its session")
    def _():
        sessions = server.session()["sessions"]
        pid = server.ops_pid()
        for _ in range(3):
            os.kill(pid, signal.SIGSTOP)
            t.time.sleep(1)  # several heartbeats
            os.kill(pid, signal.SIGCONT)
            t.time.sleep(0.1)
        t.equal(server.session()["sessions"], sessions, "sessions")

    @t.case("ops killed or ended under load: no request fails, and another one "
            "listens")
    def _():
        with t.Load(server.address, 8, ["/books/" + BOOK, "/books",
                                        "/livez"]) as load:
            for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
                load.wait_for(100)
                pid = server.ops_pid()
                suspects = server.counter("suspects")
                os.kill(pid, number)
                # Whoever asks meanwhile waits in the queue.
                done = server.ctl()
                t.equal(done.returncode, 0, done.stderr)
                t.check(server.ops_pid() != pid, "another process")
                server.wait_ready()
                t.equal(server.counter("suspects"), suspects + 1, "suspects")
        result = load.stop()
        t.equal(result.failed, 0, str(result))
        server.warm("/books/" + BOOK)
        before = server.session()["received"]
        pg.sql(f"UPDATE book SET price = 3 WHERE isbn = '{BOOK}'")
        t.eventually(lambda: server.session()["received"] > before, "heard")
        t.equal(server.cache_of("/books/" + BOOK), "miss", "the book")

    @t.case("with the database away the session is too, says why, and returns")
    def _():
        pg.stop()
        t.eventually(lambda: server.session()["state"] == "away", "away", 30)
        shown = server.ctl().stdout
        t.check(re.search(r"session +away  for \d+ s\n  reason +\S", shown),
                shown)
        pg.start()
        server.wait_ready()
        t.equal(server.session()["reason"], "", "reason")

    @t.case("TERM ends ops in good order, and the socket is gone")
    def _():
        t.equal(server.stop(), 0, "exit code")
        t.check(not os.path.exists(server.control), "the socket is left")
        t.equal([line for line in server.errors()
                 if line.get("process") == "ops" and
                 line["level"] == "error"], [], "errors of ops")


# ---- other settings

with Server({"cache_size": "0"}, heard=False) as server:

    @t.case("without a cache the control socket says so, and nobody listens")
    def _():
        for method, target in (("GET", "/cache"), ("GET", "/cache/keys"),
                               ("POST", "/cache/flush?class=all")):
            is_problem(server.ask(method, target, b""), 503, "off")
        is_problem(server.ask("GET", "/x"), 404)
        done = server.ctl()
        t.equal(done.returncode, UNAVAILABLE, done.stderr)
        t.check("The cache is off" in done.stderr, done.stderr)
        t.equal(backend_pids(), [], "sessions in PostgreSQL")

with Server({"control_socket": "off"}, heard=False) as server:

    @t.case("without a control socket ops listens all the same")
    def _():
        t.eventually(lambda: server.errors("notify_ready"), "it is ready")
        server.warm("/books/" + BOOK)
        pg.sql(f"UPDATE book SET price = 4 WHERE isbn = '{BOOK}'")
        t.eventually(lambda: server.request("GET", "/books/" + BOOK)
                     .json()["price"] == 4, "the new price", 5)


@t.case("USR1 makes ops write to the new log")
def _():
    path = os.path.join(folder, "error.log")

    def flushes(name):
        with contextlib.suppress(FileNotFoundError):
            with open(name, encoding="utf-8") as file:
                return file.read().count('"cache_flushed"')
        return 0

    with Server({"error_log": path}) as server:
        server.ctl("flush")
        t.eventually(lambda: flushes(path) == 1, "the first line")
        os.rename(path, path + ".1")
        server.send_signal(signal.SIGUSR1)

        def moved():
            server.ctl("flush")
            return flushes(path) > 0
        t.eventually(moved, "a line in the new file")


# ---- servers between and beside

class Proxy:
    """Passes bytes between booksd and PostgreSQL, but while is_deaf no
    notification of the sessions that wanted to hear them."""

    def __init__(self):
        self.is_deaf = False
        self.port = t.free_port()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", pg.port))
                for run in (lambda c=client, s=server: self._up(c, s),
                            lambda c=client, s=server: self._down(s, c)):
                    threading.Thread(target=run, daemon=True).start()

    @staticmethod
    def _end(*sockets):
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _up(self, client, server):
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
        self._end(client, server)

    def _down(self, server, client):
        with contextlib.suppress(OSError, EOFError):
            stream = server.makefile("rb")
            while head := stream.read(1):
                size = stream.read(4)
                rest = stream.read(struct.unpack("!I", size)[0] - 4)
                if head != b"A" or not self.is_deaf:
                    client.sendall(head + size + rest)
        self._end(client, server)


@t.case("a pooler that hears nothing is never trusted, and is logged once")
def _():
    proxy = Proxy()
    proxy.is_deaf = True
    conninfo = (pg.conninfo.replace(f"port={pg.port}", f"port={proxy.port}")
                + " sslmode=disable")
    with Server({"database": conninfo, "database_connect_timeout": "400ms"},
                heard=False) as server:
        t.eventually(lambda: server.errors("notify_deaf"), "it is noticed")
        t.eventually(lambda: server.session()["state"] == "away" and
                     "pooler" in server.session()["reason"], "the reason")
        server.warm("/books/" + BOOK)
        t.equal(server.counter("suspects"), 0, "suspects")
        t.time.sleep(2)  # several attempts
        t.equal(len(server.errors("notify_deaf")), 1, "log lines")
        t.equal(server.cache_of("/books/" + BOOK), "hit", "the cache")
        proxy.is_deaf = False
        server.wait_ready()
        t.equal(server.counter("suspects"), 1, "suspects")
        proxy.is_deaf = True
        t.eventually(lambda: server.session()["state"] == "away", "deaf again")
    proxy.listener.close()


@t.case("an address that does not answer leaves the others their turn")
def _():
    full = socket.socket()
    full.bind(("127.0.0.1", t.free_port()))
    full.listen(0)
    fillers = []
    try:
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(full.getsockname())
            fillers.append(one)
        probe = socket.socket()
        probe.settimeout(1)
        try:
            probe.connect(full.getsockname())
            t.skip("this kernel answers although the queue is full")
        except TimeoutError:
            pass
        finally:
            probe.close()
        conninfo = (f"host=127.0.0.1,127.0.0.1 port={full.getsockname()[1]},"
                    f"{pg.port} dbname=books user=books")
        with Server({"database": conninfo,
                     "database_connect_timeout": "500ms"}) as server:
            t.equal(server.session()["state"], "ready", "state")
    finally:
        for one in fillers + [full]:
            one.close()


@t.case("a server that comes late is found, also by a name")
def _():
    conninfo = pg.conninfo.replace("127.0.0.1", "localhost")
    pg.stop()
    with Server({"database": conninfo}, wait="livez", heard=False) as server:
        t.eventually(lambda: server.errors("notify_lost"), "it is away")
        t.equal(server.session()["state"], "away", "state")
        pg.start()
        server.wait_ready()
        t.equal(len(server.errors("notify_lost")), 1, "log lines")


@t.case("no secret is said when the string is wrong for libpq")
def _():
    with Server({"database": pg.conninfo + " password=s3cret "
                 "application_name=mine"}) as server:
        t.equal(pg.sql("SELECT count(*) > 1 FROM pg_stat_activity WHERE "
                       "application_name = 'mine'"), "t", "sessions")
        t.check("s3cret" not in server.stderr_text(), "in the log")
        t.check("s3cret" not in json.dumps(server.status()), "in the answer")


# ---- booksctl against what is no booksd

def no_booksd(reply):
    """A path where each connection gets these bytes."""
    path = os.path.join(folder, f"fake{next(numbers)}")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def serve():
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, contextlib.suppress(OSError):
                    client.recv(65536)
                    client.sendall(reply)
    threading.Thread(target=serve, daemon=True).start()
    return path


def http(body, status="200 OK"):
    return (f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n").encode() + body


@t.case("booksctl says what is wrong with what answers")
def _():
    for reply, code, word in (
            (b"", UNAVAILABLE, "went away"),
            (b"\0\1\2\3\r\n\r\n", PROTOCOL, "not booksd"),
            (b"SSH-2.0-x\r\n", PROTOCOL, "not booksd"),
            (http(b""), PROTOCOL, "no sense"),
            (http(b"<html>"), PROTOCOL, "no sense"),
            (http(b"[]"), PROTOCOL, "no sense"),
            (http(b"{}"), PROTOCOL, "no sense"),
            (http(b'{"version":1,"counters":{},"memory":{}}'), PROTOCOL,
             "no sense"),
            (http(b"x", "404 Not Found"), PROTOCOL, "404"),
            (http(b'{"detail":"a\\u001b[31mb"}', "500 Oops"), PROTOCOL,
             r"(500): a\u001b[31mb"),
            (http(b"{}")[:-1], UNAVAILABLE, "went away"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", UNAVAILABLE,
             "went away")):
        done = t.booksctl("cache", "-S", no_booksd(reply))
        t.equal(done.returncode, code, f"{reply}: {done.stderr}")
        t.check(word in done.stderr, f"{reply}: {done.stderr}")
    for body in (b"{}", b"[1]", b'[{"key":1,"class":"book"}]',
                 b'[{"key":"b"}]'):
        done = t.booksctl("cache", "keys", "-S", no_booksd(http(body)))
        t.equal(done.returncode, PROTOCOL, f"{body}: {done.stdout}")
    done = t.booksctl("cache", "flush", "-S", no_booksd(http(b"{}")))
    t.equal(done.returncode, PROTOCOL, "flush")


@t.case("booksctl says why nobody answers, and what to do")
def _():
    dead = os.path.join(folder, "dead")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(dead)
    for path, word in ((os.path.join(folder, "none"), "is booksd running"),
                       (dead, "nobody listens"),
                       (os.path.join(folder, "x" * 108), "too long"),
                       (os.path.join(dead, "x"), "Not a directory")):
        done = t.booksctl("cache", "-S", path)
        t.equal(done.returncode, UNAVAILABLE, done.stderr)
        t.check(word in done.stderr, done.stderr)


@t.case("booksctl believes no folder of somebody else below /tmp")
def _():
    if os.getuid() != 0:
        t.skip("only root can be somebody else")
    uid = 54321  # nobody has it
    place = f"/tmp/booksd-{uid}"

    def ask():
        return subprocess.run(
            [t.BOOKSCTL, "cache"], env=t.clean_environment(), user=uid,
            extra_groups=[], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
            timeout=60, check=False)
    done = ask()
    t.check(done.returncode in (UNAVAILABLE, NOPERM), done.stderr)
    t.check("/run/booksd/control.sock" in done.stderr, done.stderr)
    os.mkdir(place, 0o755)
    try:
        done = ask()
        t.equal(done.returncode, NOPERM, done.stderr)
        t.check("somebody else" in done.stderr, done.stderr)
    finally:
        os.rmdir(place)


pg.close()
t.shutil.rmtree(folder)
t.done()
