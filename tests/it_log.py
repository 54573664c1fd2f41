#!/usr/bin/env python3
"""Goal: what booksd logs can be read by programs whatever clients send, goes
where the settings say, survives rotation, is never torn, and never makes a
worker wait for a reader.

Method: the real binary with its logs in files and pipes; requests with hostile
bytes and lengths; pipes that are read late, slowly or never.
"""
import atexit
import contextlib
import fcntl
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import booksd_test as t

BASIC = {"database": "host=127.0.0.1 port=1 connect_timeout=1",
         "migrate_on_start": "off", "workers": 1, "drain_delay": "0s",
         "drain_timeout": "5s"}
TIME = re.compile(r"20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:"
                  r"[0-5][0-9]\.[0-9]{6}Z")
ACCESS_KEYS = ["time", "level", "message", "request_id", "trace_root",
               "method", "route", "target", "status", "bytes", "duration_us",
               "database_us", "worker"]
LINE_BYTES_MAX = 4096
scratch = tempfile.mkdtemp(prefix="booksd-log-", dir="/tmp")
os.chmod(scratch, 0o755)
atexit.register(shutil.rmtree, scratch, ignore_errors=True)


def text_of(path):
    with contextlib.suppress(FileNotFoundError):
        with open(path, encoding="utf-8") as file:
            return file.read()
    return ""


def lines_of(path):
    return text_of(path).splitlines()


def line_with(probe, pattern, what):
    """The first line of probe() that matches, when it is there."""
    def find():
        return next((line for line in probe() if re.search(pattern, line)),
                    None)
    return t.eventually(find, what)


# ---- what lines look like

with t.Booksd(BASIC) as server:
    def logged(pattern):
        return json.loads(line_with(lambda: lines_of(server.stdout), pattern,
                                    f"a line with {pattern}"))

    @t.case("a request is one JSON object with the promised fields in order")
    def _():
        answer = server.request(
            "GET", "/?first=1", headers={
                "X-Request-Id": "my-id.42",
                "X-Amzn-Trace-Id": "Self=1-1-a;Root=1-67891233-abcdef0123456"
                                   "78912345678;Sampled=1"})
        line = logged("first=1")
        t.equal(list(line), ACCESS_KEYS, "keys")
        t.check(TIME.fullmatch(line["time"]), line["time"])
        t.equal(line["level"], "info")
        t.equal(line["message"], "request")
        t.equal(line["request_id"], "my-id.42")
        t.equal(line["trace_root"], "1-67891233-abcdef012345678912345678")
        t.equal(line["method"], "GET")
        t.equal(line["route"], "/")
        t.equal(line["target"], "/?first=1")
        t.equal(line["status"], 200)
        t.equal(line["bytes"], len(answer.body))
        t.check(line["duration_us"] > 0, "a duration")
        t.equal(line["database_us"], 0)
        t.equal(line["worker"], 0)

    @t.case("a request without an id gets one of its own")
    def _():
        for name in ("one", "two"):
            server.request("GET", f"/livez?{name}")
        first, second = (logged(r"livez\?" + name)["request_id"]
                         for name in ("one", "two"))
        t.check(re.fullmatch(r"[0-9a-f-]{8,64}", first), first)
        t.check(first != second, "they differ")
        t.equal(logged("livez.one")["trace_root"], "")

    @t.case("statuses and routes are those of the answers")
    def _():
        for target, status, route in (("/nowhere?a", 404, "none"),
                                      ("/books/1?b", 503, "/books/{isbn}")):
            t.equal(server.request("GET", target).status, status)
            line = logged(re.escape(f'"{target}"'))
            t.equal((line["status"], line["route"]), (status, route))

    @t.case("hostile bytes of a client never break a line")
    def _():
        before = len(lines_of(server.stdout))
        hostile = [b'"', b"\\", b'"}\\n{"level":"error"}', b"\xff\xfe",
                   b"\xc3\xa9", b"\xed\xa0\x80", b"%00%0a", b"\x7f", b"\x1b[2J",
                   b"\x01", b"\t", b"'", b"<script>", b"\xc2\x9b"]
        for data in hostile:
            for request in (
                    b"GET /h?" + data + b" HTTP/1.1\r\nHost: a\r\n\r\n",
                    data + b" / HTTP/1.1\r\nHost: a\r\n\r\n",
                    b"GET /i HTTP/1.1\r\nHost: a\r\nX-Request-Id: " + data +
                    b"\r\nX-Amzn-Trace-Id: Root=" + data +
                    b"\r\nReferer: " + data + b"\r\n\r\n"):
                with server.raw() as client:
                    client.send(request)
                    client.read_response()
        server.request("GET", "/livez?end-of-hostile")
        logged("end-of-hostile")
        lines = lines_of(server.stdout)[before:]
        t.check(len(lines) >= 2 * len(hostile), f"{len(lines)} lines")
        for line in lines:
            parsed = json.loads(line)
            t.equal(list(parsed), ACCESS_KEYS, line)
            t.check(line.isprintable(), f"no controls in {line!r}")
        for line in lines_of(server.stderr):
            json.loads(line)

    @t.case("a long target is shortened, and the line stays an object")
    def _():
        for size in (3000, 3600, 3800, 4000, 8000):
            target = f"/long{size}?" + '%22"'[:3] * (size // 3)
            server.request("GET", target)
            line = line_with(lambda: lines_of(server.stdout),
                             f"/long{size}", "the line")
            t.check(len(line) < LINE_BYTES_MAX, f"{len(line)} bytes")
            found = json.loads(line)["target"]
            if size <= 3000:
                t.equal(found, target)
            elif size >= 4000:
                t.check(found.endswith("..."), found[-20:])
                t.check(target.startswith(found[:-3]), "its start")

    @t.case("events have name, sentence and process")
    def _():
        for line in server.errors():
            t.equal(list(line)[:5],
                    ["time", "level", "event", "message", "process"])
            t.check(TIME.fullmatch(line["time"]), line["time"])
            t.check(line["level"] in ("error", "warn", "info"), line["level"])
        backend = server.errors("io_backend")[0]
        t.equal((backend["process"], backend["worker"]), ("worker", 0))
        t.equal(server.errors("started")[0]["process"], "master")

    @t.case("all lines were whole and parse to the end")
    def _():
        t.equal(server.stop(), 0)
        for path in (server.stdout, server.stderr):
            t.check(text_of(path).endswith("\n"), path)
            for line in lines_of(path):
                json.loads(line)


@t.case("log_format = combined is Apache's for requests, and text for events")
def _():
    pattern = re.compile(
        r'127\.0\.0\.1 - - \[[0-9]{2}/[A-Z][a-z]{2}/20[0-9]{2}:[0-9:]{8} '
        r'\+0000\] "GET /livez\?c HTTP/1\.1" 200 [0-9]+ '
        r'"http://example\.com/a\\"b" "tester \\\\ 1\.0"')
    with t.Booksd({**BASIC, "log_format": "combined"}) as server:
        server.request("GET", "/livez?c", headers={
            "Referer": 'http://example.com/a"b', "User-Agent": "tester \\ 1.0"})
        line = line_with(lambda: lines_of(server.stdout), "livez.c", "a line")
        t.check(pattern.fullmatch(line), line)
        t.equal(server.stop(), 0)
        for line in lines_of(server.stderr):
            t.check(re.fullmatch(
                TIME.pattern + r" (error|warn|info) [a-z_]+: .* "
                r"process=(master|ops|worker worker=0)( [a-z_]+=(\S+|\".*\"))*",
                line), line)


# ---- where they go

@t.case("log_level hides what matters less")
def _():
    with t.Booksd({**BASIC, "log_level": "error"}) as server:
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        t.eventually(lambda: server.errors("worker_died"), "an error")
        server.wait_for("livez")
        server.stop()
        t.equal({line["level"] for line in server.errors()}, {"error"})
        t.check(server.access(), "requests are logged all the same")


@t.case("off is silent, and a path is a file")
def _():
    path = os.path.join(scratch, "error.log")
    with t.Booksd({**BASIC, "access_log": "off", "error_log": path}) as server:
        server.request("GET", "/livez")
        server.stop()
        t.equal(text_of(server.stdout) + text_of(server.stderr), "")
        t.check('"event":"started"' in text_of(path), text_of(path))
        t.equal(os.stat(path).st_mode & 0o777, 0o640, "its mode")
        before = text_of(path)
    with t.Booksd({**BASIC, "error_log": path}) as server:
        server.stop()
    t.check(text_of(path).startswith(before), "it is appended to")


@t.case("both logs may go to one place")
def _():
    with t.Booksd({**BASIC, "error_log": "stdout"}) as server:
        server.request("GET", "/livez")
        server.stop()
        t.equal(text_of(server.stderr), "")
        kinds = {"event" in line for line in server.access()}
        t.equal(kinds, {True, False}, "events and requests")


@t.case("USR1 lets rotation move files, also when workers are another user")
def _():
    folder = os.path.join(scratch, "rotate")
    os.mkdir(folder, 0o755)
    path = os.path.join(folder, "access.log")
    errors = os.path.join(folder, "error.log")
    settings = {**BASIC, "workers": 2, "access_log": path,
                "error_log": errors}
    if os.getuid() == 0:
        settings["user"] = "nobody"
    with t.Booksd(settings) as server:
        for turn in range(3):
            server.request("GET", f"/livez?before{turn}")
            line_with(lambda: lines_of(path), f"before{turn}", "a line")
            os.rename(path, f"{path}.{turn}")
            os.rename(errors, f"{errors}.{turn}")
            server.send_signal(signal.SIGUSR1)
            t.eventually(lambda: os.path.exists(path), "the new file")

            def all_moved(old=f"{path}.{turn}"):
                server.request("GET", "/livez?probe")
                for pid in [server.pid, *server.worker_pids()]:
                    for name in os.listdir(f"/proc/{pid}/fd"):
                        with contextlib.suppress(FileNotFoundError):
                            if os.readlink(f"/proc/{pid}/fd/{name}") == old:
                                return False
                return True
            t.eventually(all_moved, "nobody has the old file open")
            server.request("GET", f"/livez?after{turn}")
            line_with(lambda: lines_of(path), f"after{turn}", "a line")
            t.check(f"after{turn}" not in text_of(f"{path}.{turn}"), "moved")
            if os.getuid() == 0:
                t.equal(os.stat(path).st_uid, pwd.getpwnam("nobody").pw_uid)
        t.equal(server.errors("log_reopen_failed"), [])
        # A folder that is gone keeps the old files in use, and is told.
        os.rename(folder, folder + ".gone")
        server.send_signal(signal.SIGUSR1)
        line_with(lambda: lines_of(folder + ".gone/error.log"),
                  '"log_reopen_failed"', "the failure")
        server.request("GET", "/livez?afterwards")
        line_with(lambda: lines_of(folder + ".gone/access.log"),
                  "afterwards", "a line in the old file")


# ---- pipes

def pipe_of(size):
    reader, writer = os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, size)
    return reader, writer


def read_all(fd, chunks):
    while True:
        data = os.read(fd, 3000)
        if not data:
            return
        chunks.append(data)


@t.case("a reader that sleeps costs lines, told and counted, and no request")
def _():
    reader, writer = pipe_of(65536)
    count = 1500
    with t.Booksd(BASIC, stdout=writer) as server:
        with server.raw() as client:
            for number in range(count):
                client.send(t.make_request("GET", f"/livez?n={number:04}"
                                           + "x" * 200))
                t.equal(client.read_response().status, 200)
        flags = fcntl.fcntl(writer, fcntl.F_GETFL)
        t.check(not flags & os.O_NONBLOCK, "O_NONBLOCK on our description")
        chunks = []
        thread = threading.Thread(target=read_all, args=(reader, chunks))
        os.close(writer)
        thread.start()
        told = t.eventually(lambda: server.errors("log_lines_dropped"),
                            "the loss is told")
        t.equal(server.stop(), 0)
        thread.join(20)
        os.close(reader)
        found = [int(match) for match in re.findall(
            r'"target":"/livez\?n=([0-9]{4})x', b"".join(chunks).decode())]
        for line in b"".join(chunks).splitlines():
            json.loads(line)
        lost = sum(line["lines"] for line in
                   server.errors("log_lines_dropped")
                   if line["setting"] == "access_log")
        t.check(told[0]["level"] == "warn", told)
        t.diag(f"{len(found)} lines read, {lost} lost")
        t.equal(len(found) + lost, count, "lines read and lines told as lost")
        t.equal(found[:100], list(range(100)), "the oldest stay")
        t.equal(found, sorted(set(found)), "in order and none twice")


@t.case("a reader that went away costs lines and no request")
def _():
    reader, writer = pipe_of(65536)
    with t.Booksd(BASIC, stdout=writer) as server:
        os.close(writer)
        os.close(reader)
        for _ in range(20):
            t.equal(server.request("GET", "/livez").status, 200)
        t.equal(server.errors("worker_died"), [], "deaths")
        t.equal(server.stop(), 0)


# A process of its own, so that the load does not decide how slowly it reads.
SLOW_READER = """
import os, sys, time
with open(sys.argv[1], "wb") as out:
    while data := os.read(0, 3000):
        out.write(data)
        time.sleep(0.0005)
"""


@t.case("lines of four workers on one slow pipe are never torn")
def _():
    reader, writer = pipe_of(8192)
    path = os.path.join(scratch, "slow")
    with subprocess.Popen([sys.executable, "-c", SLOW_READER, path],
                          stdin=reader,
                          preexec_fn=t.die_with_parent()) as process:
        os.close(reader)
        with t.Booksd({**BASIC, "workers": 4}, stdout=writer) as server:
            os.close(writer)
            targets = [f"/livez?{c * size}" for size in (1, 300, 900, 2500)
                       for c in "abcd"]
            # Several loads: the connections of each spread anew.
            for _ in range(5):
                with t.Load(server.address, 32, targets) as load:
                    load.wait_for(600, 60)
                t.equal(load.stop().failed, 0, "failed requests")
            t.equal(server.stop(), 0)
        process.wait(60)
    lines = lines_of(path)
    workers, changes, last = set(), 0, None
    for line in lines:
        found = json.loads(line)
        workers.add(found["worker"])
        changes += found["worker"] != last
        last = found["worker"]
        if found["target"] != "/livez":
            t.check(re.fullmatch(r"/livez\?(a+|b+|c+|d+)", found["target"]),
                    found["target"])
    t.diag(f"{len(lines)} lines, {changes} changes of worker")
    if changes < 50:
        t.skip("the workers hardly took turns")
    t.check(len(workers) > 1, "several workers wrote")


@t.case("a pipe of another user is never waited for either")
def _():
    if os.getuid() != 0:
        t.skip("needs root")
    reader, writer = pipe_of(4096)
    os.fchmod(writer, 0o600)
    # Started as nobody: the pipe is root's and cannot be opened again.
    command = [t.BOOKSD, "-f"]
    port = t.free_port()
    for key, value in {**BASIC, "listen": f"127.0.0.1:{port}",
                       "control_socket": "off"}.items():
        command += ["-o", f"{key}={value}"]
    with subprocess.Popen(command, env=t.clean_environment(), stdout=writer,
                          stdin=subprocess.DEVNULL, user="nobody",
                          stderr=subprocess.DEVNULL) as process:
        try:
            def answers():
                with contextlib.suppress(OSError):
                    with t.Raw(("127.0.0.1", port)) as client:
                        return client.request("GET", "/livez").status == 200
            t.eventually(answers, "it serves")
            with t.Raw(("127.0.0.1", port)) as client:
                for _ in range(800):
                    t.equal(client.request("GET", "/livez").status, 200)
        finally:
            os.close(writer)
            process.send_signal(signal.SIGTERM)
            t.equal(process.wait(20), 0)
            os.close(reader)


t.done()
