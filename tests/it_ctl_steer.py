#!/usr/bin/env python3
"""Goal: booksctl status, health, flush, drain, reload and workers do to a
running booksd what they say, wait until it is done, and tell success, refusal
and absence apart by exit codes.
Method: a real booksd with a real PostgreSQL, whose processes are counted; what
another booksd could answer is answered by a small server of our own.
"""
import json
import os
import shutil
import signal
import tempfile

import booksd_test as t
from control_test import Control

USAGE, UNAVAILABLE, PROTOCOL, CONFIG = 64, 69, 76, 78
folder = tempfile.mkdtemp(prefix="booksd-it-steer-", dir="/tmp")
pg = t.Postgres()
t.check(t.booksctl("migrate", database=pg.conninfo).returncode == 0, "migrate")


def ctl(server, *args, code=0, **kwargs):
    path = server if isinstance(server, str) else server.control
    done = t.booksctl("-S", path, *args, **kwargs)
    t.equal(done.returncode, code, f"{args} ({done.stdout}{done.stderr})")
    return done


def start(**settings):
    return t.Booksd({"database": pg.conninfo, "workers": 2,
                     "drain_delay": "0", **settings}, wait="readyz")


# ---- health, flush, drain

with start() as server:
    @t.case("health says ready and alive, quietly too")
    def _():
        t.equal(ctl(server, "health").stdout, "ready\n", "output")
        t.equal(ctl(server, "health", "--live").stdout, "alive\n", "output")
        t.equal(ctl(server, "-q", "health").stdout, "", "quiet")
        t.equal(ctl("/none", "health", "-S", server.control).stdout,
                "ready\n", "its own -S")

    @t.case("flush empties the cache as cache flush does")
    def _():
        for _turn in range(2):
            server.request("GET", "/books/9780000000001")
        t.equal(ctl(server, "flush").stdout, "books: flushed\nlists: flushed\n"
                "negatives: flushed\n", "all")
        t.equal(ctl(server, "flush", "books", "lists").stdout,
                "books: flushed\nlists: flushed\n", "classes")
        t.check("1 book" in ctl(server, "flush", "9780000000001").stdout,
                "an ISBN")
        ctl(server, "flush", "boks", code=USAGE)

    @t.case("drain ends booksd in order; then health is 1")
    def _():
        with server.raw() as client:
            client.request("GET", "/")
            ctl(server, "drain")
            t.equal(server.wait(), 0, "exit code")
        for args in ((), ("--live",)):
            done = ctl(server, "health", *args, code=1)
            t.check(done.stderr.startswith("booksctl: "), done.stderr)
        ctl(server, "drain", code=UNAVAILABLE)
        ctl(server, "status", code=UNAVAILABLE)


@t.case("health is 1 while booksd drains")
def _():
    with start(drain_delay="20s") as draining:
        ctl(draining, "health")
        draining.send_signal(signal.SIGTERM)
        t.eventually(lambda: t.booksctl(
            "-S", draining.control, "health").returncode == 1, "not ready")
        t.check("not ready (503)" in ctl(draining, "health", code=1).stderr,
                "why")
        ctl(draining, "health", "--live")
        draining.send_signal(signal.SIGINT)
        draining.wait()


# ---- status, reload, workers

def real_cases():
    with start(workers="2") as server, t.Load(server.address, 4, ["/"]):

        @t.case("status shows a running booksd")
        def _():
            def probe():
                root = json.loads(ctl(server, "status", "--json").stdout)
                return root["requests"]["perSecond"] > 0 and root
            root = t.eventually(probe, "requests are counted")
            t.equal(sorted(each["pid"] for each in root["workers"]),
                    server.worker_pids(), "workers")
            text = ctl(server, "status").stdout
            for word in (root["version"], str(server.pid), "ready",
                         *map(str, server.worker_pids()), "2 wanted"):
                t.check(word in text, f"no {word} in {text}")
            t.check("\x1b" not in text, "colors without a terminal")

        @t.case("workers sets their number, by itself or by a difference")
        def _():
            for args, count in ((("3",), 3), (("+1",), 4), (("-2",), 2),
                                (("2",), 2)):
                done = ctl(server, "workers", *args)
                t.equal(done.stdout, f"{count} wanted, {count} serving\n",
                        f"after {args}")
                t.eventually(lambda: len(server.worker_pids()) == count,
                             f"{count} processes")
            t.equal(ctl(server, "workers").stdout, "2 wanted, 2 serving\n",
                    "without a number")
            ctl(server, "workers", "99", code=USAGE)
            ctl(server, "workers", "-9", code=PROTOCOL)  # none at all
            ctl(server, "workers", "1", "2", code=USAGE)
            ctl(server, "workers", "--no-wait", "2")

        @t.case("reload waits for the new workers")
        def _():
            t.check(ctl(server, "reload").stdout.startswith(
                "reloaded: generation "), "what it says")
            ctl(server, "reload", "--no-wait")

    @t.case("reload tells that settings were refused")
    def _():
        path = os.path.join(folder, "booksd.conf")
        with open(path, "w", encoding="ascii") as file:
            file.write("greeting = one\n")
        with t.Booksd({"database": pg.conninfo}, wait="readyz",
                      args=["-c", path]) as other:
            with open(path, "a", encoding="ascii") as file:
                file.write("no_such_setting = 1\n")
            done = ctl(other, "reload", code=CONFIG)
            t.check("refused" in done.stderr, done.stderr)
            ctl(other, "health")


real_cases()


# ---- what another could answer

def status(**more):
    return {"version": "9.9", "generation": 1, "workersWanted": 1,
            "workers": [{"state": "serving"}], "events": {}, **more}


@t.case("an answer that lacks nearly everything is shown all the same")
def _():
    with Control(folder, lambda _: (200, status())) as fake:
        t.check("9.9" in ctl(fake.path, "status").stdout, "version")


@t.case("nothing foreign reaches the terminal as an order")
def _():
    evil = "\x1b[2J\x9b\u202e"
    root = status(version=evil, state=evil, backend=evil,
                  task={"family": evil, "revision": evil, "id": evil},
                  cpu={"source": evil}, listen={"addresses": [evil, 1]},
                  events={evil: 1}, requests={"byClass": {evil: 3}},
                  database={"errors": [{"sqlstate": evil, "count": 1}]})
    root["workers"] = [{"state": evil, "doing": evil, "route": evil,
                        "pid": -5, "connections": "x"}, 3, None]
    with Control(folder, lambda _: (200, root)) as fake:
        for args in (("status",), ("status", "--json")):
            text = ctl(fake.path, *args).stdout
            t.check(not set(text) & set("\x1b\x9b\u202e"), repr(text))


@t.case("answers that make no sense are told apart from refusals")
def _():
    for answer, code in (((200, "[]"), PROTOCOL), ((200, "{"), PROTOCOL),
                         ((404, {"detail": "There is nothing here."}),
                          PROTOCOL),
                         ((503, {"detail": "Not now."}), UNAVAILABLE)):
        with Control(folder, lambda _, answer=answer: answer) as fake:
            for args in (("status",), ("workers",), ("reload",)):
                ctl(fake.path, *args, code=code)
            ctl(fake.path, "health", code=0 if answer[0] == 200 else 1)


@t.case("reload asks again while the process that answers is replaced")
def _():
    state = {"looks": 0}

    def answers(target):
        if target == "/reload":
            return 202, {"accepted": True}
        state["looks"] += 1
        if 1 < state["looks"] < 4:
            return 500, ""
        return 200, status(generation=1 if state["looks"] < 6 else 2)
    with Control(folder, answers) as fake:
        t.equal(ctl(fake.path, "reload").stdout, "reloaded: generation 2\n",
                "output")
        t.equal(fake.seen.count("POST /reload"), 1, "it asked once")
        ctl(fake.path, "workers", "+2", "--no-wait")
        t.equal(fake.seen[-1], "POST /workers?n=3", "a difference")


shutil.rmtree(folder)
pg.close()
t.done()
