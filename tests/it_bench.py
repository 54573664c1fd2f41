#!/usr/bin/env python3
"""Goal: `make bench` does not rot: its programs build, the floor counts heads
right, the generator tells right answers from wrong ones and asks for the books
it is told to, the cache's figures come out, and the harness writes what
docs/PERFORMANCE.md is made from.
Method: build the programs here, talk to the floor over a raw socket, point the
generator at a server of this file that answers badly or remembers what it was
asked, and run bench/cache at a hundredth of its size and the harness with
windows of a third of a second.  No figure is judged.
"""
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import xml.etree.ElementTree

import booksd_test as t

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CACHE = os.path.join(t.BUILDDIR, "bench", "cache")
LOAD = os.path.join(t.BUILDDIR, "bench", "load")
NULL = os.path.join(t.BUILDDIR, "bench", "null_server")
RUN = os.path.join(t.SRCDIR, "bench", "run")
PROFILE = os.path.join(t.SRCDIR, "bench", "profile")


def build():
    """True when the programs are there and newer than their sources."""
    env = {name: value for name, value in os.environ.items()
           if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    done = subprocess.run(["make", "bench/null_server", "bench/load",
                           "bench/cache"],
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
def bad_server(answer, asked=None):
    """Answers every request with these bytes, then closes if it must.  What is
    asked for goes into the list."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def serve(client):
            with client, contextlib.suppress(OSError):
                while request := client.recv(65536):
                    if asked is not None:
                        asked.append(request.split(b" ")[1].decode())
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

with t.case("load: --isbns asks for that many books, by their numbers"):
    asked = []
    with bad_server([ANSWER], asked) as port:
        code, seen = load(port, "--isbns=3")
    t.equal(code, 0, "exit code")
    t.equal(set(asked), {f"/books/{9780000000001 + i}" for i in range(3)},
            "what was asked for")

with t.case("load: --sweep asks for each of them before it measures"):
    asked = []
    with bad_server([ANSWER], asked) as port:
        code, seen = load(port, "--isbns=40", "--sweep")
    t.equal(code, 0, "exit code")
    # A connection that has swept goes on before the others have; sixty drawn
    # at random would leave out nine of the forty.
    missing = {f"/books/{9780000000001 + i}" for i in range(40)}
    t.equal(missing - set(asked[:60]), set(), "not among the first sixty")
    t.check(seen["requests"] < len(asked) - 38, f"{seen['requests']} of "
            f"{len(asked)} answers were measured: the sweep was too")

FIGURES = """get_400_1k get_400_1k_ratio get_400_1k_batch
get_400_1k_batch_ratio get_400_1k_floor get_400_20k get_400_20k_ratio
get_400_20k_batch get_400_20k_batch_ratio get_400_20k_floor miss get_400_500k
get_400_500k_ratio get_400_500k_batch get_400_500k_batch_ratio
get_400_500k_floor get_16k get_16k_ratio get_16k_batch get_16k_batch_ratio
get_16k_floor get_60k get_60k_ratio get_60k_batch get_60k_batch_ratio
get_60k_floor put_p50 put_p99 put_p999 put_max mix_1 mix_2 mix_kept
mix_floor_kept overhead overhead_outside overhead_entries ratio_1pc_ideal
ratio_1pc_lru ratio_1pc_1 ratio_1pc_1_of_ideal ratio_1pc_4 ratio_1pc_4_of_ideal
ratio_10pc_ideal ratio_10pc_lru ratio_10pc_1 ratio_10pc_1_of_ideal ratio_10pc_4
ratio_10pc_4_of_ideal""".split()


def cache_figures(*more):
    """What bench/cache printed, and its figures by their keys."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "lines")
        done = subprocess.run(
            [CACHE, "--rounds=1", "--scale=0.01", f"--lines={path}", *more],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, encoding="utf-8", timeout=110,
            check=False)
        t.equal(done.returncode, 0, done.stdout[-2000:])
        with open(path, encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
    return done.stdout, {line["figure"]: line for line in lines}


with t.case("bench/cache measures all that it is asked for"):
    said, figures = cache_figures()
    t.equal(sorted(figures), sorted(FIGURES), "figures")
    for figure in figures.values():
        t.equal(sorted(figure), ["figure", "limit", "met", "sense", "unit",
                                 "value", "what"], "a figure")
        t.check(figure["value"] is not None and figure["value"] > 0,
                f"{figure['figure']} is a number\n{said}")
        t.equal(figure["met"] is None, figure["sense"] is None,
                f"{figure['figure']}: a bar is judged")
        t.check(figure["what"] in said, f"{figure['what']} is printed")

with t.case("bench/cache: the ideal and LRU are those of the law"):
    # Of 20,000 objects by Zipf's law with .99: sums of i ** -.99.
    said, figures = cache_figures("--only=ratio")
    weights = [(i + 1) ** -.99 for i in range(20000)]
    for name, kept in (("1pc", 200), ("10pc", 2000)):
        ideal = figures[f"ratio_{name}_ideal"]["value"]
        t.check(abs(ideal - sum(weights[:kept]) / sum(weights)) < 1e-6,
                f"{name}: ideal {ideal}")
        lru = figures[f"ratio_{name}_lru"]["value"]
        t.check(0.5 * ideal < lru < ideal, f"{name}: LRU {lru} of {ideal}")

with t.case("bench/cache: a part that does not exist is a usage error"):
    done = subprocess.run([CACHE, "--only=nothing"], check=False,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=30)
    t.equal(done.returncode, 64, done.stdout)

with t.case("bench/cache compares with a memcached"):
    program = shutil.which("memcached")
    if program is None:
        t.skip("memcached is not installed")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        path = os.path.join(folder, "socket")
        with subprocess.Popen(
                [program, "-s", path, "-a", "0777", "-t", "1", *(
                    ["-u", "nobody"] if os.getuid() == 0 else [])],
                stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                preexec_fn=t.die_with_parent()) as peer:
            try:
                for _ in range(1000):
                    if os.path.exists(path):
                        break
                    time.sleep(0.01)
                said, figures = cache_figures(
                    "--only=memcached", f"--memcached={path}",
                    f"--memcached-pid={peer.pid}")
            finally:
                peer.kill()
    t.equal(sorted(figures), ["memcached", "memcached_times"], "figures")
    for figure in figures.values():
        t.check(figure["value"] > 0, f"{figure}")


def harness(*more):
    """What the harness printed and reported."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "bench.json")
        done = subprocess.run(
            ["timeout", "110", RUN, "--build", t.BUILDDIR, "--rounds", "1",
             "--seconds", "0.3", "--json", path, *more],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=t.clean_environment(),
            encoding="utf-8", timeout=118, check=False)
        t.equal(done.returncode, 0, done.stdout[-2000:])
        with open(path, encoding="utf-8") as file:
            return done.stdout, json.load(file)


def rows_are_whole(report, name):
    """The scenario's rows by their servers; each measured or says why not."""
    rows = {row["server"]: row for row in report["scenarios"][name]["rows"]}
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
    return rows


def bars_are_printed(said, report, name):
    for bar in report["scenarios"][name]["bars"]:
        t.equal(sorted(bar), ["limit", "met", "name", "sense", "unit",
                              "value"], "a bar")
        t.check(bar["name"] in said, f"{bar['name']} is printed")


def svg_is_whole(path, words):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    tree = xml.etree.ElementTree.fromstring(text.encode())
    titles = [one.text for one in tree.iter(
        "{http://www.w3.org/2000/svg}title")]
    for word in words:
        t.check(any(title.startswith(word + ": ") for title in titles),
                f"no {word} in {titles[:20]}")


with t.case("folded stacks become a flame graph"), \
        tempfile.TemporaryDirectory() as folder:
    stacks, out = (os.path.join(folder, name) for name in ("in", "out"))
    with open(stacks, "w", encoding="ascii") as file:
        file.write("booksd;main;a<b> 3\nbooksd;main;c 1\n")
    subprocess.run([PROFILE, "--stacks", stacks, "-o", out], check=True,
                   stdout=subprocess.DEVNULL, timeout=60)
    svg_is_whole(out, ("all", "booksd", "main", "a<b>", "c"))

with t.case("perf's samples of a loaded worker become a flame graph"), \
        tempfile.TemporaryDirectory() as folder:
    if shutil.which("perf") is None:
        t.skip("perf is not installed")
    out = os.path.join(folder, "out")
    done = subprocess.run([PROFILE, "--build", t.BUILDDIR, "--seconds", "1",
                           "-o", out], stdout=subprocess.PIPE, timeout=100,
                          stderr=subprocess.STDOUT, text=True, check=False)
    if "perf is refused" in done.stdout:
        t.skip(done.stdout.strip())
    t.equal(done.returncode, 0, done.stdout)
    svg_is_whole(out, ("all", "worker_loop_run"))

with t.case("the harness measures and writes what it measured"):
    said, report = harness("--only", "hello")
    t.equal(sorted(report), ["machine", "options", "scenarios", "version"])
    rows = rows_are_whole(report, "hello")
    t.check({"null_epoll", "booksd_epoll", "nginx", "node"} <= set(rows),
            f"rows {sorted(rows)}")
    for wanted in ("null_epoll", "booksd_epoll"):
        t.check(rows[wanted]["available"],
                f"{wanted}: {rows[wanted]['why']}\n{said}")
        t.check(rows[wanted]["median"]["requests"] > 0, f"{wanted} answers")
    same = {name: row["median"]["answer_bytes"] for name, row in rows.items()
            if row["available"] and name != "node"}
    t.equal(len(set(same.values())), 1, f"lengths of the answers {same}")
    bars_are_printed(said, report, "hello")

with t.case("the harness measures cached books"):
    said, report = harness("--only", "cache", "--books", "300",
                           "--cache-scale", "0")
    if re.search(r"not measured: .*(installed|initdb)", said):
        t.skip(said.strip().splitlines()[-1])
    rows = rows_are_whole(report, "cache")
    t.equal(set(rows), {"null_uring", "null_epoll", "booksd_io_uring",
                        "booksd_epoll", "nginx", "nginx_lua"}, said)
    for wanted in ("null_epoll", "booksd_epoll"):
        t.check(rows[wanted]["available"],
                f"{wanted}: {rows[wanted]['why']}\n{said}")
    t.equal(rows["booksd_epoll"]["median"]["hit_share"], 1, f"hits\n{said}")
    same = {name: row["median"]["answer_bytes"] for name, row in rows.items()
            if row["available"]}
    t.check(max(same.values()) - min(same.values()) <= 3,  # Age
            f"lengths of the answers {same}")
    bars_are_printed(said, report, "cache")

t.done()
