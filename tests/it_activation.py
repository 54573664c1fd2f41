#!/usr/bin/env python3
"""Goal: booksd is a good service of a manager like systemd: it takes the
sockets that it is given, and tells how it is.

Method: the real binary, started by a shell that gives it descriptors as the
manager does; a datagram socket that records what the manager would hear; and
systemd's own judgement of the unit files, where it is installed.
"""
import atexit
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import booksd_test as t

NOWHERE = "host=127.0.0.1 port=1 connect_timeout=1"
BASIC = {"database": NOWHERE, "migrate_on_start": "off", "workers": 1,
         "cache_size": 0, "drain_delay": "0s", "drain_timeout": "5s",
         "listen": None}
CONFIG = 78
REAL = t.BOOKSD
scratch = tempfile.mkdtemp(prefix="booksd-activation-", dir="/tmp")
os.chmod(scratch, 0o755)
atexit.register(shutil.rmtree, scratch, ignore_errors=True)


def tcp():
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("127.0.0.1", t.free_port()))
    found.listen(100)
    return found


def unix(name):
    found = socket.socket(socket.AF_UNIX)
    found.bind(os.path.join(scratch, name))
    found.listen(10)
    return found


@contextlib.contextmanager
def given(sockets, pid="$$", count=None):
    """While it lasts, t.BOOKSD is a booksd that is given these (name, socket),
    and the keyword arguments of Popen that this needs."""
    high = [fcntl.fcntl(one.fileno(), fcntl.F_DUPFD, 100)
            for _, one in sockets]
    names = ":".join(name for name, _ in sockets)
    script = os.path.join(scratch, "start")
    with open(script, "w", encoding="ascii") as file:
        file.write("#!/bin/bash\nexec")
        for at, fd in enumerate(high):
            file.write(f" {3 + at}<&{fd} {fd}<&-")
        file.write(f"\nexport LISTEN_FDS={len(sockets)} LISTEN_PID={pid} "
                   f"LISTEN_FDNAMES={names}\n"
                   f'exec {REAL} "$@"\n')
    os.chmod(script, 0o755)
    t.BOOKSD = script
    try:
        yield {"pass_fds": high}
    finally:
        t.BOOKSD = REAL
        for fd in high:
            os.close(fd)


def start(popen, settings=(), address=None, **kwargs):
    """A booksd that may not know its address from its settings."""
    server = t.Booksd({**BASIC, **dict(settings)}, wait=None, **popen,
                      **kwargs)
    server.address = address
    return server


@t.case("given sockets replace listen, and those who wait in them are served")
def _():
    one, two = tcp(), unix("http.sock")
    with t.Raw(one.getsockname()) as early, \
            given([("http", one), ("http", two)]) as popen:
        early.send(t.make_request("GET", "/livez"))
        with start(popen, {"listen": f"127.0.0.1:{t.free_port()}"},
                   one.getsockname()) as server:
            t.equal(early.read_response().status, 200, "the early one")
            with t.Raw(two.getsockname()) as client:
                t.equal(client.request("GET", "/livez").status, 200, "unix")
            t.equal(server.errors("started")[0]["listen"],
                    f"127.0.0.1:{one.getsockname()[1]} "
                    f"unix:{two.getsockname()}")
            for fd in (3, 4):
                with open(f"/proc/{server.pid}/fdinfo/{fd}",
                          encoding="ascii") as file:
                    flags = int(file.read().split("flags:")[1].split()[0], 8)
                t.check(flags & os.O_NONBLOCK, f"{fd} is nonblocking")
                t.check(flags & os.O_CLOEXEC, f"{fd} is close-on-exec")
            t.equal(server.stop(), 0)
        t.check(os.path.exists(two.getsockname()), "the path is the manager's")
        # The manager still listens: who comes now waits for the next start.
        with t.Raw(one.getsockname()) as client:
            client.send(t.make_request("GET", "/livez"))
            with start(popen, (), one.getsockname()):
                t.equal(client.read_response().status, 200, "the waiting one")


@t.case("sockets named control and admin are those")
def _():
    http, control, admin = tcp(), unix("control.sock"), tcp()
    with given([("http", http), ("control", control),
                ("admin", admin)]) as popen, \
            start(popen, {"admin_listen": "off"},
                  http.getsockname()) as server:
        server.wait_for("livez")
        started = server.errors("started")[0]
        t.equal(started["control_socket"], control.getsockname())
        t.equal(started["admin_listen"],
                "127.0.0.1:%d" % admin.getsockname()[1])
        with t.Raw(control.getsockname()) as client:
            t.equal(client.request("GET", "/livez").status, 200, "control")
        with t.Raw(admin.getsockname()) as client:
            t.equal(client.request("GET", "/livez", host="127.0.0.1").status,
                    200, "admin")
        t.equal(server.stop(), 0)
        t.check(os.path.exists(control.getsockname()), "its path stays")


@t.case("sockets that are meant for another process are not taken")
def _():
    http = tcp()
    with given([("http", http)], pid="1") as popen, \
            start(popen, {"listen": f"127.0.0.1:{t.free_port()}"}) as server:
        started = t.eventually(lambda: server.errors("started"), "it starts")
        t.check(str(http.getsockname()[1]) not in started[0]["listen"],
                started[0]["listen"])


@t.case("a descriptor that is no listening socket is an error that names it")
def _():
    datagram = socket.socket(type=socket.SOCK_DGRAM)
    datagram.bind(("127.0.0.1", 0))
    idle = socket.socket()
    with open("/dev/null", "rb") as null:
        for one, name, why in (
                (datagram, "http", "does not listen for streams"),
                (idle, "http", "does not listen for streams"),
                (null, "http", "is no open socket"),
                (tcp(), "control", "is no unix socket")):
            with given([("http", tcp()), (name, one)]) as popen, \
                    start(popen) as server:
                t.equal(server.wait(), CONFIG)
                text = server.stderr_text()
                t.check("descriptor 4" in text and why in text, text)


# ---- what the manager hears

class Manager:
    """$NOTIFY_SOCKET: the lines that came, with their times."""

    def __init__(self):
        self.name = os.path.join(scratch, f"notify-{time.monotonic_ns()}")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.name)
        self.socket.setblocking(False)
        self.heard = []

    def lines(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                for line in self.socket.recv(4096).decode().splitlines():
                    self.heard.append(line)
        return self.heard

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


with t.Postgres() as pg:
    @t.case("a manager hears the state, and twice per watchdog time a sign "
            "of life")
    def _():
        with Manager() as manager, t.Booksd(
                {**BASIC, "database": pg.conninfo, "workers": 2,
                 "migrate_on_start": "on",
                 "listen": f"127.0.0.1:{t.free_port()}"}, wait="readyz",
                env={"NOTIFY_SOCKET": manager.name,
                     "WATCHDOG_USEC": "400000"}) as server:
            t.eventually(lambda: "STATUS=Serving, 2 of 2 workers" in
                         manager.lines(), "the status")
            t.check("READY=1" in manager.lines(), "ready")
            t.eventually(lambda: manager.lines().count("WATCHDOG=1") >= 5,
                         "signs of life")
            pids = server.worker_pids()
            os.kill(pids[0], signal.SIGKILL)
            t.eventually(lambda: any(
                "1 of 2" in line for line in manager.lines()) or
                len(set(server.worker_pids()) - set(pids)) == 1,
                "a death is seen")
            t.equal(server.stop(), 0)
            heard = manager.lines()
            t.check("STOPPING=1" in heard, "stopping")
            t.check(heard.index("READY=1") < heard.index("STOPPING=1"),
                    heard)
            t.equal(heard.count("READY=1"), 1, "ready is said once")

    @t.case("a watchdog that is meant for another process is not fed")
    def _():
        with Manager() as manager, t.Booksd(
                {**BASIC, "database": pg.conninfo,
                 "listen": f"127.0.0.1:{t.free_port()}"}, wait="livez",
                env={"NOTIFY_SOCKET": manager.name, "WATCHDOG_PID": "1",
                     "WATCHDOG_USEC": "100000"}) as server:
            t.equal(server.stop(), 0)
            t.check("WATCHDOG=1" not in manager.lines(), manager.lines())


@t.case("the unit files are what systemd understands")
def _():
    if shutil.which("systemd-analyze") is None:
        t.skip("systemd-analyze is not installed")
    for name in ("booksd.service", "booksd.socket"):
        with open(os.path.join(t.SRCDIR, "deploy/systemd", name),
                  encoding="utf-8") as file:
            text = file.read().replace("/usr/sbin/booksd", REAL)
        with open(os.path.join(scratch, name), "w", encoding="utf-8") as file:
            file.write(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no",
         os.path.join(scratch, "booksd.service"),
         os.path.join(scratch, "booksd.socket")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
        check=False, encoding="utf-8")
    t.equal((done.returncode, done.stdout), (0, ""))


t.done()
