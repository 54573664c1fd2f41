#!/usr/bin/env python3
"""Goal: `make bench` does not rot: its programs build, the floor counts heads
right, the generator tells right answers from wrong ones, and the harness
writes what docs/PERFORMANCE.md is made from.
Method: build the two programs here, talk to the floor over a raw socket, point
the generator at a server of this file that answers badly, and run the harness
once with windows of a third of a second.  No figure is judged.
"""
import contextlib
import json
import os
import socket
import subprocess
import tempfile
import threading
import time

import booksd_test as t

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LOAD = os.path.join(t.BUILDDIR, "bench", "load")
NULL = os.path.join(t.BUILDDIR, "bench", "null_server")
RUN = os.path.join(t.SRCDIR, "bench", "run")


def build():
    """True when the programs are there and newer than their sources."""
    env = {name: value for name, value in os.environ.items()
           if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    done = subprocess.run(["make", "bench/null_server", "bench/load"],
                          cwd=t.BUILDDIR, env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          encoding="utf-8", errors="backslashreplace",
                          timeout=100, check=False)
    t.check(done.returncode == 0, f"make failed: {done.stdout[-2000:]}")


@contextlib.contextmanager
def null_server(io):
    port = t.free_port()
    with tempfile.NamedTemporaryFile() as answer:
        answer.write(ANSWER)
        answer.flush()
        with subprocess.Popen(
                [NULL, f"--io={io}", f"--port={port}",
                 f"--bytes={answer.name}"], stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                preexec_fn=t.die_with_parent()) as process:
            try:
                yield wait_for(process, port)
            finally:
                process.kill()


def wait_for(process, port):
    """The port once it is open; skips where io_uring is refused."""
    for _ in range(500):
        if process.poll() is not None:
            said = process.stderr.read().decode()
            if process.returncode == 69:  # EX_UNAVAILABLE
                t.skip(said)
            raise AssertionError(said)
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 5).close()
            return port
        time.sleep(0.01)
    raise AssertionError("the floor does not listen")


def answers(port, pieces):
    """All bytes that come for these pieces, each sent by itself."""
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.settimeout(10)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            client.sendall(piece)
            time.sleep(0.005)
        client.shutdown(socket.SHUT_WR)
        got = b""
        while piece := client.recv(65536):
            got += piece
    return got


@contextlib.contextmanager
def bad_server(answer):
    """Answers every request with these bytes, then closes if it must."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def serve(client):
            with client, contextlib.suppress(OSError):
                while client.recv(65536):
                    for piece in answer:
                        client.sendall(piece)
                        time.sleep(0.002)
                    if answer[-1] == b"":
                        return

        def accept():
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    client, _ = listener.accept()
                    threading.Thread(target=serve, args=(client,),
                                     daemon=True).start()
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()


def load(port, *more):
    """The exit code and what the generator printed."""
    done = subprocess.run(
        [LOAD, f"--port={port}", "--connections=2", "--seconds=0.2",
         "--warmup=0", *more], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="ascii",
        timeout=30, check=False)
    lines = done.stdout.splitlines()
    t.equal(lines[:1], ["measuring"], f"first line ({done.stderr})")
    return done.returncode, json.loads(lines[1])


with t.case("the programs of bench build"):
    build()

for backend in ("uring", "epoll"):
    for name, pieces, count in (
            ("one head", [HEAD], 1),
            ("a hundred pipelined heads", [HEAD * 100], 100),
            ("a head split at every byte",
             [HEAD[i:i + 1] for i in range(len(HEAD))], 1),
            ("two heads cut in the empty line",
             [HEAD[:-3], HEAD[-3:] + HEAD[:-1], HEAD[-1:]], 2),
            ("heads longer than its buffers",
             [HEAD[:-2] + b"X: " + b"y" * 5000 + b"\r\n\r\n"] * 5, 5),
            ("more heads than its buffers hold, read late",
             [HEAD * 160000], 160000),
            ("half a head", [HEAD[:-2]], 0)):
        with t.case(f"null {backend}: {name}"):
            with null_server(backend) as port:
                got = answers(port, pieces)
                t.check(got == ANSWER * count, f"{len(got)} bytes came, want "
                        f"{count} answers of {len(ANSWER)}: {got[:200]!r}")

for name, pieces, kind in (
        ("right answers are counted", [ANSWER], None),
        ("an answer in pieces is one answer",
         [ANSWER[:20], ANSWER[20:-2], ANSWER[-2:]], None),
        ("a length in lower case is read",
         [ANSWER.replace(b"Content-Length", b"content-length")], None),
        ("another status is an error",
         [ANSWER.replace(b"200 OK", b"503 No")], "status"),
        ("no length is an error",
         [ANSWER.replace(b"Content-Length", b"Content-Longth")], "framing"),
        ("a byte too many is an error", [ANSWER + b"d"], "framing"),
        ("no HTTP is an error", [b"abc\r\n\r\n"], "framing"),
        ("a connection that ends early is an error",
         [ANSWER[:-1], b""], "closed")):
    with t.case(f"load: {name}"):
        with bad_server(pieces) as port:
            code, seen = load(port)
        errors = {key: value > 0 for key, value in seen["errors"].items()}
        t.equal(errors, {"status": False, "framing": False, "closed": False,
                         "total": kind is not None,
                         **({kind: True} if kind else {})}, "errors")
        t.equal(seen["requests"] > 0, kind is None, "answers counted")
        t.equal(code == 0, kind is None, "exit code 0")

with t.case("the harness measures and writes what it measured"):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "bench.json")
        done = subprocess.run(
            ["timeout", "100", RUN, "--build", t.BUILDDIR, "--only", "hello",
             "--rounds", "1", "--seconds", "0.3", "--json", path], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=t.clean_environment(), encoding="utf-8", timeout=115,
            check=False)
        t.equal(done.returncode, 0, done.stdout[-2000:])
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
    t.equal(sorted(report), ["machine", "options", "scenarios", "version"])
    hello = report["scenarios"]["hello"]
    rows = {row["server"]: row for row in hello["rows"]}
    t.check({"null_epoll", "booksd_epoll", "nginx", "node"} <= set(rows),
            f"rows {sorted(rows)}")
    for wanted in ("null_epoll", "booksd_epoll"):
        t.check(rows[wanted]["available"],
                f"{wanted}: {rows[wanted]['why']}\n{done.stdout}")
        t.check(rows[wanted]["median"]["requests"] > 0, f"{wanted} answers")
    for row in rows.values():
        if not row["available"]:
            t.check(row["why"] and not row["rounds"], f"{row} says why")
            continue
        t.equal(len(row["rounds"]), 1, "rounds")
        for field in ("requests", "seconds", "rps", "answer_bytes", "p50_us",
                      "p90_us", "p99_us", "cpu_us", "user_us", "sys_us",
                      "busy", "load_busy"):
            t.check(row["median"][field] >= 0, f"{row['server']} {field}")
        t.equal(row["median"]["errors"], 0, f"errors of {row['server']}")
    same = {name: row["median"]["answer_bytes"] for name, row in rows.items()
            if row["available"] and name != "node"}
    t.equal(len(set(same.values())), 1, f"lengths of the answers {same}")
    for bar in hello["bars"]:
        t.equal(sorted(bar), ["limit", "met", "name", "sense", "unit",
                              "value"], "a bar")
        t.check(bar["name"] in done.stdout, f"{bar['name']} is printed")

t.done()
