"""The scenario "cache": a cached book over HTTP, and the cache by itself.

Over HTTP: GET /books/{isbn} for random books that are all cached, beside the
floor, nginx `return` (which has one answer) and nginx with a Lua shared
dictionary (which has them all).  All answers have as many bytes as booksd's.
By itself: bench/cache, with a memcached of its own beside it.
"""
import json
import os
import pwd
import random
import shutil
import socket
import subprocess
import time

import bench_process as proc
from bench_process import Unavailable
from bench_rows import BUSY_MIN, bar, interleave, new_row, ratio, row_of
from bench_servers import CONNECTIONS, say

ISBN_FIRST = 9780000000001      # as in bench/load.c
SAMPLE = 500                    # books that are looked at for X-Cache: hit
LUA_MIB_MIN = 8
BYTES_EACH_MAX = 1024           # of an entry, with everything around it
HTTP_BARS = (                   # server, over which, at most
    ("io_uring", "null_uring", "null io_uring", 1.08),
    ("epoll", "null_epoll", "null epoll", 1.12),
    ("io_uring", "nginx", "nginx return", 0.85),
    ("epoll", "nginx", "nginx return", 0.85),
    ("io_uring", "nginx_lua", "nginx + Lua shared dict", 0.5),
    ("epoll", "nginx_lua", "nginx + Lua shared dict", 0.5),
)


def target(number):
    return f"/books/{ISBN_FIRST + number}"


def cached_answer(server):
    """The bytes of a hit."""
    deadline = time.monotonic() + 20
    while True:
        answer = proc.exchange(server.port, target(0))
        if b"\r\nX-Cache: hit\r\n" in answer:
            return answer
        if time.monotonic() > deadline:
            raise Unavailable(f"no hit: {answer[:200]!r}")
        time.sleep(0.02)


def hit_share(server, books):
    """Of a sample, whose order no run repeats."""
    some = random.Random(books)
    with socket.create_connection(("127.0.0.1", server.port), 5) as stream:
        return sum(b"\r\nX-Cache: hit\r\n" in proc.exchange(
            server.port, target(some.randrange(books)), stream)
                   for _ in range(SAMPLE)) / SAMPLE


def write_values(path, body, books):
    """All bodies, made from the first one, for the Lua dictionary."""
    first = str(ISBN_FIRST)
    if first not in body:
        raise Unavailable("a book's answer has no ISBN in it")
    with open(path, "w", encoding="utf-8") as file:
        for number in range(books):
            isbn = str(ISBN_FIRST + number)
            file.write(f"{isbn}\t{body.replace(first, isbn)}\n")


def http_entries(bench, books, mib):
    """(key, label, function of no arguments that makes the server)."""
    settings = {"cache_size": f"{mib}MiB", "cache_fresh": "24h"}
    values = os.path.join(bench.folder, "values")
    with bench.booksd("epoll", settings) as server:
        bench.answer = cached_answer(server)
    body = bench.answer.partition(b"\r\n\r\n")[2].decode()
    write_values(values, body, books)
    return [
        ("null_uring", "null io_uring", lambda: bench.null("uring")),
        ("null_epoll", "null epoll", lambda: bench.null("epoll")),
        ("booksd_io_uring", "booksd io_uring, cached",
         lambda: bench.booksd("io_uring", settings)),
        ("booksd_epoll", "booksd epoll, cached",
         lambda: bench.booksd("epoll", settings)),
        ("nginx", "nginx return", lambda: bench.same_bytes(bench.nginx)),
        ("nginx_lua", "nginx + Lua shared dict",
         lambda: bench.same_bytes(
             lambda kind: bench.nginx_lua(values, mib, target(0), kind),
             target(0))),
    ]


def http(bench):
    books = bench.options.books
    mib = max(LUA_MIB_MIN, -(-books * BYTES_EACH_MAX >> 20) * 2)
    bench.postgres.add_books(books)

    def measure(key, make):
        made = []

        def once(number):
            made[:] = made or [make()]
            with made[0] as server:
                caches = key.startswith("booksd")
                seen = bench.load(
                    server, f"--isbns={books}", *["--sweep"] * caches,
                    seed=number + 1)
                return {**seen, "answer_bytes":
                        len(proc.exchange(server.port, target(0))),
                        "hit_share": hit_share(server, books)
                        if caches else None}
        return once
    kept = bench.answer
    try:
        return interleave(bench.options.rounds, [
            (new_row(key, label), measure(key, make))
            for key, label, make in http_entries(bench, books, mib)])
    finally:
        bench.answer = kept


# ---- the cache by itself

def memcached_begin(bench):
    """A memcached of our own and its socket, or None after saying why."""
    program = shutil.which("memcached")
    if program is None:
        say("memcached is not installed")
        return None, None
    folder, who = os.path.join(bench.folder, "memcached"), []
    os.mkdir(folder, 0o755)
    if os.getuid() == 0:  # it does not run as root
        os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
        who = ["-u", "nobody"]
    path = os.path.join(folder, "socket")
    process = subprocess.Popen(
        [program, "-s", path, "-a", "0777", "-t", "1", "-m", "256", *who],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, cwd=folder,
        preexec_fn=proc.pinned(proc.LOAD_CPUS))
    end = time.monotonic() + 10
    while not os.path.exists(path):
        if process.poll() is not None or time.monotonic() > end:
            say("memcached does not start")
            process.kill()
            process.wait()
            return None, None
        time.sleep(0.02)
    return process, path


def alone(bench):
    """What bench/cache measures: a list of figures."""
    if bench.options.cache_scale == 0:
        raise Unavailable("left out, as --cache-scale 0 asks for")
    program = bench.built("bench/cache")
    if not os.path.exists(program):
        raise Unavailable("bench/cache is not built: make bench/cache")
    path = os.path.join(bench.folder, "cache.lines")
    command = [program, f"--rounds={max(1, bench.options.rounds)}",
               f"--scale={bench.options.cache_scale}", f"--lines={path}"]
    peer, peer_path = memcached_begin(bench)
    if peer is not None:
        command += [f"--memcached={peer_path}", f"--memcached-pid={peer.pid}"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, encoding="utf-8", check=False,
            preexec_fn=proc.pinned(proc.ALL_CPUS))
    finally:
        if peer is not None:
            peer.terminate()
            peer.wait()
    say("\n" + done.stdout.rstrip())
    if done.returncode != 0:
        raise Unavailable("bench/cache failed")
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def cache(bench):
    """GET of cached books over HTTP, and the cache by itself."""
    notes, figures, rows = [], [], []
    try:
        figures = alone(bench)
    except Unavailable as why:
        notes.append(f"bench/cache: {why}")
    try:
        rows = http(bench)
    except Unavailable as why:
        notes.append(f"over HTTP: {why}")
    floors = [row for row in (row_of(rows, "null_uring"),
                              row_of(rows, "null_epoll")) if row]
    floor = min(floors, key=lambda row: row["median"]["cpu_us"], default=None)
    if floor and floor["median"]["busy"] < BUSY_MIN:
        notes.append("the floor was not saturated: other programs took "
                     "processor time, or the generator is the slower side")
    for row in rows:
        row["ratio"] = ratio(row, floor, "cpu_us")
        share = row["median"] and row["median"]["hit_share"]
        if share is not None and share < 0.99:
            notes.append(f"{row['label']}: {share:.0%} of the answers were "
                         "hits: more than the cache was measured")
    return {
        "title": f"cache: GET /books/{{isbn}}, {bench.options.books} random "
                 f"books, all cached, {CONNECTIONS} connections",
        "ratio_is": "server CPU per request, over " +
                    (floor["label"] if floor else "no floor"),
        "rows": rows, "figures": figures, "counted": True, "notes": notes,
        "bars": [bar(f"booksd {backend} over {what}, CPU per request",
                     ratio(row_of(rows, f"booksd_{backend}"),
                           row_of(rows, key), "cpu_us"), limit, "at most")
                 for backend, key, what, limit in HTTP_BARS],
    }
