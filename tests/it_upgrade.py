#!/usr/bin/env python3
"""Goal: another program takes the place of a booksd that serves, and no client
notices: not when it works, not when the new one fails.

Method: SIGUSR2 to the real binary under load, again and again, with the new
program replaced by others: itself, one that cannot start, one that never gets
ready, one that lays its memory out differently.  This process adopts orphans,
so that it sees how every master ends.
"""
import atexit
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import booksd_test as t

PR_SET_CHILD_SUBREAPER = 36
UPGRADES = 10
REAL = t.BOOKSD

t._libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Upgradable(t.Booksd):
    """A booksd from a copy of the binary that can be replaced; .pid is that of
    the master that serves."""

    def __init__(self, settings, **kwargs):
        self.place = os.path.join("/tmp", f"booksd-upgrade-{os.getpid()}")
        self.install(REAL)
        t.BOOKSD = self.place
        self.first = None
        try:
            super().__init__(settings, **kwargs)
        finally:
            t.BOOKSD = REAL

    def install(self, program):
        """As packages do it: a new file under the old name."""
        shutil.copy(program, self.place + ".new")
        os.rename(self.place + ".new", self.place)

    def script(self, text):
        with open(self.place + ".new", "w", encoding="ascii") as file:
            file.write("#!/bin/sh\n" + text)
        os.chmod(self.place + ".new", 0o755)
        os.rename(self.place + ".new", self.place)

    def upgrade(self, seconds=20):
        """To the next master, until the one before has ended with 0."""
        old, count = self.pid, len(self.errors("took_over"))
        os.kill(old, signal.SIGUSR2)
        t.eventually(lambda: len(self.errors("took_over")) > count,
                     "the new master serves", seconds)
        new = self.errors("upgraded")[-1]["pid"]
        t.equal(self.ended(old, seconds), 0, "exit code of the old one")
        self.pid = new
        return new

    def ended(self, pid, seconds=20):
        """The exit code of a master, when it has ended."""
        if pid == self.process.pid:
            return self.process.wait(seconds)

        def probe():
            found, status = os.waitpid(pid, os.WNOHANG)
            return found and [os.waitstatus_to_exitcode(status)]
        return t.eventually(probe, f"the end of {pid}", seconds)[0]

    def send_signal(self, number):
        os.kill(self.pid, number)

    def stop(self, number=signal.SIGTERM, seconds=40):
        self.send_signal(number)
        return self.ended(self.pid, seconds)

    def close(self):
        if self.pid != self.process.pid and t.process_stat(self.pid):
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                self.stop(signal.SIGINT, 10)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.place)
        super().close()


def settings_of(pg, **more):
    return {"database": pg.conninfo, "workers": 2, "cache_size": "8MiB",
            "drain_delay": "0s", "drain_timeout": "5s", "access_log": "off",
            **more}


def goes_on(server):
    """It serves, as the master that it was, and says that the other failed."""
    count = len(server.errors("upgrade_failed"))
    old = server.pid
    os.kill(old, signal.SIGUSR2)
    line = t.eventually(lambda: server.errors("upgrade_failed")[count:],
                        "the failure is told")[0]
    t.equal(server.request("GET", "/readyz").status, 200)
    t.check(not t.process_stat(old)[0] == "Z", "the old master lives")
    return line["reason"]


def refused(server):
    count = len(server.errors("upgrade_refused"))
    os.kill(server.pid, signal.SIGUSR2)
    return t.eventually(lambda: server.errors("upgrade_refused")[count:],
                        "the refusal is told")[0]["reason"]


def until_idle(server):
    """What a failed one owned is given back a second later."""
    server.install(REAL)
    t.eventually(lambda: refused_or_begun(server), "an upgrade can begin")


def refused_or_begun(server):
    begun = len(server.errors("upgrade_begins"))
    no = len(server.errors("upgrade_refused"))
    os.kill(server.pid, signal.SIGUSR2)
    t.eventually(lambda: len(server.errors("upgrade_begins")) > begun or
                 len(server.errors("upgrade_refused")) > no, "an answer")
    return len(server.errors("upgrade_begins")) > begun


def finish(server):
    """The upgrade that until_idle() has begun."""
    old = server.pid
    new = server.errors("upgrade_begins")[-1]["pid"]
    t.equal(server.ended(old), 0, "exit code of the old one")
    server.pid = new


def answered(server):
    """Requests that the task's memory has counted, when none is open."""
    def probe():
        done = subprocess.run(
            [os.path.join(t.BUILDDIR, "tests", "stats_dump"),
             str(server.pid)], stdout=subprocess.PIPE, timeout=20, check=True)
        data = json.loads(done.stdout)
        return (not any(worker["connections"] or worker["requests_open"]
                        for worker in data["workers"]) and data)
    return sum(count for *_, count in
               t.eventually(probe, "no connection is open")["requests"])


isbns = t.Isbns()

with t.Postgres() as pg:
    scratch = tempfile.mkdtemp(prefix="booksd-upgrade-", dir="/tmp")
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    os.chmod(scratch, 0o755)
    pid_file = os.path.join(scratch, "booksd.pid")
    path = os.path.join(scratch, "http.sock")
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(os.path.join(scratch, "notify"))
    notify.setblocking(False)
    port = t.free_port()
    with Upgradable(settings_of(
            pg, pid_file=pid_file,
            listen=[f"127.0.0.1:{port}", f"unix:{path}"]), wait="readyz",
            env={"NOTIFY_SOCKET": os.path.join(scratch, "notify")}) as server:
        isbn = isbns()

        @t.case("a process can be upgraded again and again under load, and "
                "no request fails")
        def _():
            masters = [server.pid]
            target = f"/books/{isbn}"
            t.equal(server.request("PUT", target, {
                "isbn": isbn, "title": "A", "author": "B", "price": 1.5,
            }).status // 100, 2)
            before = answered(server)
            with t.Load(server.address, 8,
                        ["/livez", target, "/readyz"]) as load:
                load.wait_for(50)
                for _ in range(UPGRADES):
                    masters.append(server.upgrade())
                    load.wait_for(20)
                result = load.stop()
            t.diag(result)
            t.equal(result.failed, 0, result)
            t.equal(answered(server) - before, result.ok,
                    "requests counted over all masters")
            t.equal(len(set(masters)), UPGRADES + 1, "masters")
            t.equal(len(server.errors("upgraded")), UPGRADES)
            t.equal({line["cache"] for line in server.errors("upgraded")},
                    {"shared"})

        @t.case("the cache and what it has counted are the same afterwards")
        def _():
            def hits():
                with t.Raw(server.control) as client:
                    return client.request(
                        "GET", "/cache").json()["counters"]["hits"]

            target = f"/books/{isbn}"
            t.eventually(lambda: server.request("GET", target).header(
                "X-Cache") == "hit", "it is cached")
            before = hits()
            t.check(before > 0, "hits are counted")
            server.upgrade()
            t.check(hits() >= before, "nothing is forgotten")
            # Somebody may have changed it while ops changed, so it is loaded
            # once more.
            t.eventually(lambda: server.request("GET", target).header(
                "X-Cache") == "hit", "it is cached again")

        @t.case("a write to the new one is seen through connections of the "
                "old one")
        def _():
            target, old = f"/books/{isbn}", server.pid
            with server.raw() as client:
                t.equal(client.request("GET", target).status, 200)
                server.install(REAL)
                os.kill(old, signal.SIGUSR2)
                count = len(server.errors("took_over"))
                t.eventually(
                    lambda: len(server.errors("took_over")) > count, "it is")
                # Idle connections of the old one get a second.
                with contextlib.suppress(OSError, t.Truncated):
                    title = f"T{time.monotonic_ns()}"
                    server.request("PUT", target, {
                        "isbn": isbn, "title": title, "author": "B",
                        "price": 2.5})
                    answer = client.request("GET", target)
                    t.equal(answer.json()["title"], title)
            t.equal(server.ended(old), 0)
            server.pid = server.errors("upgraded")[-1]["pid"]

        @t.case("pid file and sockets are the new one's, and the manager "
                "knows it")
        def _():
            heard = []

            def listen():
                with contextlib.suppress(BlockingIOError):
                    while True:
                        heard.extend(notify.recv(4096).decode().splitlines())

            listen()
            heard.clear()  # it may have been too much for the queue
            new = server.upgrade()
            with open(pid_file, encoding="ascii") as file:
                t.equal(int(file.read()), new)
            with open(pid_file, "r+b") as file:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    t.check(False, "the pid file is locked")
                except OSError:
                    pass
            with t.Raw(path) as client:
                t.equal(client.request("GET", "/livez").status, 200)
            t.equal(t.booksctl("cache", "-S", server.control).returncode, 0)

            def hears():
                listen()
                return (f"MAINPID={new}" in heard and "READY=1" in
                        heard[heard.index(f"MAINPID={new}"):])
            t.eventually(hears, "MAINPID, then READY")
            t.check("STOPPING=1" not in heard, "nobody stops")

        @t.case("a new program that fails changes nothing")
        def _():
            with t.Load(server.address, 4, ["/livez"]) as load:
                load.wait_for(20)
                server.script("exit 3\n")
                t.equal(goes_on(server), "exit code 3")
                until_idle(server)
                finish(server)
                load.wait_for(20)
                result = load.stop()
            t.equal(result.failed, 0, result)

        @t.case("a new master that dies before it serves leaves nothing")
        def _():
            server.script(f'exec {REAL} "$@" -o database="host=127.0.0.1 '
                          'port=1 connect_timeout=1"\n')
            old = server.pid
            os.kill(old, signal.SIGUSR2)
            new = t.eventually(lambda: [
                pid for pid, title in server.children().items()
                if title == "booksd: master"], "the new one")[0]

            def workers():
                return [pid for pid in t.processes()
                        if (stat := t.process_stat(pid)) and stat[1] == new]
            t.eventually(lambda: len(workers()) >= 2, "it has workers")
            t.equal(refused(server), "another upgrade is under way")
            left = workers()
            count = len(server.errors("upgrade_failed"))
            os.kill(new, signal.SIGKILL)
            line = t.eventually(
                lambda: server.errors("upgrade_failed")[count:], "a failure")
            t.equal(line[0]["reason"], "signal 9 (SIGKILL)")
            t.eventually(lambda: not [pid for pid in left
                                      if t.process_title(pid)], "its workers")
            t.equal(server.request("GET", "/readyz").status, 200)
            until_idle(server)
            finish(server)

        @t.case("an old master that is killed while it leaves is no loss")
        def _():
            old = server.pid
            with server.raw() as client:
                # An unfinished request holds its worker.
                client.send("GET /livez HTTP/1.1\r\n")
                time.sleep(0.1)
                os.kill(old, signal.SIGUSR2)
                count = len(server.errors("upgraded"))
                line = t.eventually(lambda: server.errors("upgraded")[count:],
                                    "it leaves")[0]
                server.pid = line["pid"]
                t.equal(refused(server),
                        "the master before still finishes what it has")
                os.kill(old, signal.SIGKILL)
                t.equal(server.ended(old), -signal.SIGKILL)
            t.eventually(lambda: server.errors("predecessor_died"), "a line")
            t.eventually(lambda: server.errors("cache_audited"), "an audit")
            t.equal(server.request("GET", f"/books/{isbn}").status, 200)
            until_idle(server)
            finish(server)

        @t.case("a program that lays out its cache in another way gets a new "
                "one")
        def _():
            server.script(
                "BOOKSD_UPGRADE=$(printf %s \"$BOOKSD_UPGRADE\" | sed "
                "'s/layout=[0-9a-f]*/layout=1/')\n"
                f'exec {REAL} "$@"\n')
            with t.Load(server.address, 4, [f"/books/{isbn}"]) as load:
                load.wait_for(20)
                server.upgrade()
                load.wait_for(20)
                result = load.stop()
            t.equal(result.failed, 0, result)
            t.equal(server.errors("upgraded")[-1]["cache"], "new")
            t.equal(len(server.errors("cache_new")), 1)

        @t.case("during a drain there is no upgrade")
        def _():
            with t.Booksd(settings_of(pg, drain_delay="2s"),
                          wait="readyz") as other:
                other.send_signal(signal.SIGTERM)
                t.eventually(lambda: other.errors("draining"), "it drains")
                t.equal(refused(other), "booksd is stopping")

        @t.case("as process 1 booksd is not upgraded")
        def _():
            if os.getuid() != 0 or shutil.which("unshare") is None:
                t.skip("needs root and unshare")
            starter = os.path.join(scratch, "start")
            with open(starter, "w", encoding="ascii") as file:
                file.write("#!/bin/sh\nexec unshare --pid --fork "
                           f'--kill-child {REAL} "$@"\n')
            os.chmod(starter, 0o755)
            t.BOOKSD = starter
            try:
                first = t.Booksd(settings_of(pg), wait="readyz")
            finally:
                t.BOOKSD = REAL
            with first:
                unshare, first.pid = first.pid, next(iter(first.children()))
                t.check("process 1" in refused(first), "the reason")
                t.equal(first.request("GET", "/readyz").status, 200)
                os.kill(first.pid, signal.SIGTERM)
                first.pid = unshare
                t.equal(first.wait(), 0)

        @t.case("in the background it is the same")
        def _():
            where = os.path.join(scratch, "background.pid")
            log = os.path.join(scratch, "background.log")
            address = ("127.0.0.1", t.free_port())
            words = {**settings_of(pg), "pid_file": where, "error_log": log,
                     "listen": "%s:%d" % address, "admin_listen": "off",
                     "control_socket": "off"}
            subprocess.run(
                [REAL] + [word for key, value in words.items()
                          for word in ("-o", f"{key}={value}")],
                env=t.clean_environment(), check=True, timeout=20)

            def pid():
                with open(where, encoding="ascii") as file:
                    return int(file.read() or 0)
            old = pid()

            def is_ready():
                with contextlib.suppress(OSError, t.Truncated), \
                        t.Raw(address) as client:
                    return client.request("GET", "/readyz").status == 200
            try:
                t.eventually(is_ready, "it serves")
                os.kill(old, signal.SIGUSR2)
                t.eventually(lambda: pid() not in (0, old), "the pid file")
                t.equal(server.ended(old), 0)
                t.check(is_ready(), "the new one serves")
                t.equal(os.readlink(f"/proc/{pid()}/cwd"), "/")
            finally:
                last = pid()
                os.kill(last, signal.SIGTERM)
                t.equal(server.ended(last), 0)
            t.check(not os.path.exists(where), "the pid file is gone")

        @t.case("at the end the sockets and the pid file are removed")
        def _():
            for gone in (path, pid_file, server.control):
                t.check(os.path.exists(gone), f"{gone} is there before")
            os.kill(server.pid, signal.SIGTERM)
            t.equal(server.ended(server.pid), 0)
            for gone in (path, pid_file, server.control):
                t.check(not os.path.exists(gone), f"{gone} is gone")

t.done()
