#!/usr/bin/env python3
"""Goal: a reload changes the settings and nothing else: no request fails, the
cache is kept, and settings that are wrong change nothing at all.

Method: a settings file is rewritten and SIGHUP sent, most often under load by
connections that are kept and by others that pipeline; the greeting tells which
settings an answer comes from.  A worker that cannot live with new settings is
made by a limit on the master's memory.
"""
import atexit
import os
import resource
import signal
import threading
import shutil
import tempfile
import time

import booksd_test as t

NOWHERE = "host=127.0.0.1 port=1 connect_timeout=1"
scratch = tempfile.mkdtemp(prefix="booksd-reload-", dir="/tmp")
atexit.register(shutil.rmtree, scratch, ignore_errors=True)
serial = iter(range(1000))


class Reloadable:
    """A booksd whose settings are in a file."""

    def __init__(self, **settings):
        self.path = os.path.join(scratch, f"{next(serial)}.conf")
        self.settings = {"database": NOWHERE, "migrate_on_start": "off",
                         "workers": 2, "drain_delay": "0s",
                         "drain_timeout": "10s", "access_log": "off",
                         "greeting": "first"}
        self.write(**settings)

    def write(self, **changes):
        self.settings.update(changes)
        with open(self.path, "w", encoding="utf-8") as file:
            for name, value in self.settings.items():
                if value is not None:
                    file.write(f'{name} = "{value}"\n')

    def start(self, wait="livez", **popen):
        return t.Booksd({}, args=["-c", self.path], wait=wait, **popen)


def greeting(server):
    return server.request("GET", "/").text()


def requests(server):
    """How many the task has answered, by its own sums."""
    with t.Raw(server.control) as client:
        return client.request("GET", "/status.json").json()[
            "requests"]["total"]


def reload(server, count=1):
    """HUP, until all workers have the new settings."""
    before = len(server.errors("reloaded"))
    for _ in range(count):
        server.send_signal(signal.SIGHUP)
    t.eventually(lambda: len(server.errors("reloaded")) > before,
                 "it is reloaded", 30)


def refuse(server, *errors):
    """HUP, and each of these is what is wrong."""
    before = len(server.errors("reload_refused"))
    server.send_signal(signal.SIGHUP)
    found = t.eventually(
        lambda: len(lines := server.errors("reload_refused")) - before >=
        len(errors) and lines[before:], f"{len(errors)} refusals")
    t.equal([line["error"] for line in found], list(errors))


class Pipeline(threading.Thread):
    """Bursts of requests on one connection.  After an answer that says close
    the rest of the burst is asked again; an end without that is a failure."""

    def __init__(self, address, target, burst=16):
        super().__init__(daemon=True)
        self.address, self.burst = address, burst
        self.request = t.make_request("GET", target)
        self.ok = self.closed = 0
        self.failed = []
        self.stopping = False

    def run(self):
        while not self.stopping:
            try:
                with t.Raw(self.address) as client:
                    self.serve(client)
            except (OSError, AssertionError) as error:
                self.failed.append(f"{type(error).__name__}: {error}")

    def serve(self, client):
        while not self.stopping:
            client.send(self.request * self.burst)
            for _ in range(self.burst):
                answer = client.read_response()
                t.equal(answer.status, 200, "status")
                self.ok += 1
                if answer.header("connection") == "close":
                    self.closed += 1
                    return


@t.case("20 reloads under load cost no request, and the settings change")
def _():
    config = Reloadable(greeting="number 0")
    with config.start() as server:
        t.eventually(lambda: len(server.worker_pids()) == 2, "two workers")
        first = set(server.worker_pids())
        t.eventually(server.ops_pid, "ops is there")
        time.sleep(1.2)  # the status is made once a second
        before = requests(server)
        pipelines = [Pipeline(server.address, "/") for _ in range(4)]
        with t.Load(server.address, 16, ["/"]) as load:
            for one in pipelines:
                one.start()
            for count in range(1, 21):
                config.write(greeting=f"number {count}")
                reload(server)
                t.equal(greeting(server), f"number {count}")
                load.wait_for(20)
            for one in pipelines:
                one.stopping = True
                one.join(20)
        result = load.stop()
        t.diag(str(result))
        t.diag(f"pipelined: {[(one.ok, one.closed) for one in pipelines]}")
        t.equal((result.failed, result.retries), (0, 0), str(result))
        t.equal([one.failed for one in pipelines], [[]] * 4)
        t.check(all(one.ok for one in pipelines), "they were served")
        # Not one request is missing in the sums, whoever answered it.
        asked = result.ok + sum(one.ok for one in pipelines) + 20
        t.eventually(lambda: requests(server) - before == asked,
                     f"{asked} requests are counted")
        t.eventually(lambda: len(server.worker_pids()) == 2, "two workers")
        t.check(not first & set(server.worker_pids()), "they are others")
        t.equal(server.errors("worker_died"), [])
        t.equal(server.errors("retire_overdue"), [])
        t.equal(server.stop(), 0)


with t.Postgres() as pg:
    @t.case("the cache is kept, and is read by those who come after")
    def _():
        config = Reloadable(database=pg.conninfo, migrate_on_start="on")
        with config.start("readyz") as server:
            isbn = t.Isbns()()
            book = {"isbn": isbn, "title": "T", "author": "A", "price": 1.0}
            t.equal(server.request("POST", "/books", book).status, 201)

            def cached():
                answer = server.request("GET", f"/books/{isbn}")
                t.equal(answer.status, 200)
                return answer.header("x-cache")
            t.eventually(lambda: cached() == "hit", "it is cached")
            pg.sql("SELECT pg_stat_reset()")
            for count in range(3):
                config.write(greeting=str(count))
                reload(server)
                t.equal(cached(), "hit", f"after reload {count}")
            t.equal(server.errors("reload_failed"), [])
            t.equal(server.stop(), 0)

    @t.case("a successor waits for its database connection, but not for ever")
    def _():
        config = Reloadable(database=pg.conninfo, workers=1)
        with config.start("readyz") as server:
            config.write(greeting="with")
            reload(server)
            with_database = server.errors("reloaded")[0]["duration_ms"]
            config.write(greeting="without", database=NOWHERE)
            reload(server)
            without = server.errors("reloaded")[1]["duration_ms"]
            t.diag(f"{with_database} ms and {without} ms")
            t.check(without >= 5000, "five seconds were waited")
            t.equal(greeting(server), "without")
            t.equal(server.stop(), 0)


@t.case("wrong settings are told one by one and change nothing")
def _():
    config = Reloadable()
    with config.start() as server:
        pids = t.eventually(
            lambda: len(found := server.worker_pids()) == 2 and found, "two")
        config.write(greeting="second", drain_delay="1h", workers="many",
                     wrokers="1")
        refuse(server,
               "booksd: workers=many: need auto or 1 to 31 processes, or MIN..MAX (from "
               f"{config.path}:3)",
               "booksd: there is no setting 'wrokers', did you mean "
               f"'workers'? (from {config.path}:8)")
        config.write(workers=2, wrokers=None)
        refuse(server, "booksd: drain_delay=1h: need less than "
               f"drain_timeout, which is 10s (from {config.path}:4)")
        os.unlink(config.path)
        refuse(server, f"booksd: cannot read {config.path}: No such file or "
               "directory (from -c)")
        t.equal(server.worker_pids(), pids, "workers")
        t.equal(greeting(server), "first")
        t.equal(server.errors("reload"), [])
        config.write(drain_delay="0s")
        reload(server)
        t.equal(greeting(server), "second", "the next one is fine")
        t.equal(server.stop(), 0)


@t.case("what needs a restart keeps its value, and whoever changed it is told")
def _():
    config = Reloadable(cache_size="8MiB", pid_file="")
    with config.start() as server:
        config.write(cache_size="16MiB", access_log="stdout", fail_fast="on",
                     pid_file=os.path.join(scratch, "pid"),
                     greeting="second")
        reload(server)
        t.equal(sorted(line["setting"] for line in
                       server.errors("setting_kept")),
                ["access_log", "cache_size", "fail_fast", "pid_file"])
        t.equal(greeting(server), "second", "the others change")
        t.equal(server.access(), [], "there is no access log")
        t.check(not os.path.exists(os.path.join(scratch, "pid")), "no file")
        t.equal(server.stop(), 0)


@t.case("the number of workers is what the settings say")
def _():
    config = Reloadable()
    with config.start() as server:
        config.write(workers=4)
        reload(server)
        t.eventually(lambda: len(server.worker_pids()) == 4, "four", 15)
        config.write(workers=1)
        reload(server)
        t.eventually(lambda: len(server.worker_pids()) == 1, "one", 15)
        t.equal([(line["reason"], line["to"])
                 for line in server.errors("resize")],
                [("reload", 4), ("reload", 1)])
        server.send_signal(signal.SIGWINCH)
        t.eventually(lambda: not server.worker_pids(), "they rest", 15)
        reload(server)
        t.eventually(lambda: len(server.worker_pids()) == 1, "it returns")
        t.equal(server.stop(), 0)


@t.case("log_level and log_format change in every process")
def _():
    config = Reloadable()
    with config.start() as server:
        old = t.eventually(server.ops_pid, "ops is there")
        config.write(log_level="warn")
        server.send_signal(signal.SIGHUP)
        t.eventually(lambda: server.ops_pid() not in (None, old),
                     "ops is another one", 15)
        t.equal(server.errors("ops_died"), [])
        t.equal(server.errors("reloaded"), [], "that is no warning")
        config.write(log_level="info", log_format="combined")
        server.send_signal(signal.SIGHUP)
        t.eventually(lambda: " info reloaded" in server.stderr_text(),
                     "lines for people", 15)
        t.equal(server.stop(), 0)


@t.case("a worker that cannot live with new settings brings back the old")
def _():
    config = Reloadable(connections_max=64)
    if t.is_sanitized():
        t.skip("a sanitizer needs its address space")
    with config.start() as server:
        pids = t.eventually(
            lambda: len(found := server.worker_pids()) == 2 and found, "two")
        with open(f"/proc/{server.pid}/statm", encoding="ascii") as file:
            pages = int(file.read().split()[0])
        limit = pages * resource.getpagesize() + (12 << 20)
        resource.prlimit(server.pid, resource.RLIMIT_AS, (limit, limit))
        config.write(connections_max=65536, greeting="second")
        with t.Load(server.address, 8, ["/"]) as load:
            server.send_signal(signal.SIGHUP)
            line = t.eventually(lambda: server.errors("reload_failed"),
                                "it turns back", 20)[0]
            load.wait_for(50)
        t.equal(load.stop().failed, 0, str(load.result))
        t.equal(line["reason"], "it died again and again")
        t.equal(server.worker_pids(), pids, "the workers are the same")
        t.equal(greeting(server), "first")
        t.equal(server.errors("reloaded"), [])
        config.write(connections_max=64)
        reload(server)
        t.equal(greeting(server), "second", "the next one is fine")
        t.equal(server.stop(), 0)


@t.case("reloads that come in a roll are one, and TERM ends it all")
def _():
    config = Reloadable(workers=3)
    with config.start() as server:
        server.send_signal(signal.SIGHUP)
        t.eventually(lambda: server.errors("reload"), "a roll")
        config.write(greeting="second")
        for _ in range(5):
            server.send_signal(signal.SIGHUP)
        t.eventually(lambda: len(server.errors("reloaded")) == 2, "two", 30)
        t.equal(greeting(server), "second")
        server.send_signal(signal.SIGHUP)
        t.eventually(lambda: len(server.errors("reload")) == 3, "one more")
        t.equal(server.stop(signal.SIGTERM), 0)
        t.equal(server.errors("stop_overdue"), [])
        t.equal(server.errors("worker_died"), [])


@t.case("workers that die in the middle of a roll do not stop it")
def _():
    config = Reloadable(workers=3)
    with config.start() as server:
        for count in range(4):
            config.write(greeting=f"number {count}")
            before = set(server.worker_pids())
            server.send_signal(signal.SIGHUP)
            t.eventually(lambda at=count: len(server.errors("reload")) ==
                         at + 1, "a roll")
            victims = sorted(before) if count % 2 else sorted(t.eventually(
                lambda old=before: set(server.worker_pids()) - old, "one"))
            os.kill(victims[0], signal.SIGKILL)
            t.eventually(lambda at=count: len(server.errors("reloaded")) ==
                         at + 1, "it is reloaded", 30)
            t.equal(greeting(server), f"number {count}")
            t.eventually(lambda: len(server.worker_pids()) == 3, "three", 15)
        t.equal(server.errors("reload_failed"), [])
        t.equal(server.stop(), 0)


t.done()
