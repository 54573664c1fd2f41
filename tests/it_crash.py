#!/usr/bin/env python3
"""Goal: a worker that a fatal signal ends says where it was: one whole line in
the error log, whose addresses are places in the worker's functions, and the
task goes on.
Method: workers under load are sent the signals, and one is made to run into an
illegal instruction that is written into its own code; the addresses are looked
up by addr2line.
"""
import os
import re
import signal
import subprocess

import booksd_test as t

TARGETS = ["/livez", "/", "/health"]
FRAME = re.compile(r"([^ +]+)\+(0x[0-9a-f]+)\Z")


def functions(stack):
    """The names of the frames that are in booksd itself."""
    places = []
    for frame in stack.split(" "):
        found = FRAME.match(frame)
        t.check(found, f"a frame is {frame!r}")
        if found[1] == os.path.basename(t.BOOKSD):
            places.append(found[2])
    t.check(places, f"no frame of booksd in {stack!r}")
    done = subprocess.run(["addr2line", "-f", "-e", t.BOOKSD] + places,
                          stdout=subprocess.PIPE, timeout=20, check=True,
                          text=True)
    return done.stdout.splitlines()[::2]


def last_words(server, pid):
    """The one event of a dead worker."""
    found = t.eventually(
        lambda: [line for line in server.errors("worker_stack")
                 if line["pid"] == pid], f"worker {pid} says where it was")
    t.equal(len(found), 1, "lines")
    t.equal(found[0]["level"], "error", "level")
    t.equal(found[0]["process"], "worker", "process")
    t.check(re.match(r"20..-..-..T..:..:..\.......Z\Z", found[0]["time"]),
            f"time {found[0]['time']!r}")
    return found[0]


def client_of(server, pid):
    """A connection that this worker has."""
    clients = []

    def probe():
        clients.append(server.raw())
        return server.owners_of(clients[-1:]) == [pid]
    t.eventually(probe, f"worker {pid} accepts a connection")
    for client in clients[:-1]:
        client.close()
    return clients[-1]


def recovers(server, dead):
    t.eventually(lambda: len(server.worker_pids()) == 2 and
                 dead not in server.worker_pids(), "a new worker", 20)
    t.eventually(lambda: server.request("GET", "/livez").status == 200,
                 "it serves")


def symbol(name):
    done = subprocess.run(["nm", t.BOOKSD], stdout=subprocess.PIPE, text=True,
                          timeout=20, check=True)
    return int(re.search(rf"^([0-9a-f]+) [tT] {name}$", done.stdout, re.M)[1],
               16)


def break_code(pid, name):
    """The next call of that function of a process is an illegal one."""
    with open(f"/proc/{pid}/maps", encoding="ascii") as file:
        base = int(next(line for line in file if t.BOOKSD in line)
                   .split("-")[0], 16)
    try:
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
            memory.seek(base + symbol(name))
            memory.write(b"\x0f\x0b" if os.uname().machine == "x86_64"
                         else b"\0\0\0\0")
    except PermissionError as error:
        t.skip(f"the process's memory cannot be written: {error}")


for backend in t.backends():
    with t.Booksd({"io_backend": backend, "workers": 2, "database":
                   "host=127.0.0.1 port=9", "cache_size": 0}) as server:
        for number, name in ((signal.SIGSEGV, "SIGSEGV"),
                             (signal.SIGABRT, "SIGABRT")):
            @t.case(f"{backend}: {name} under load leaves a stack")
            def _():
                if t.is_sanitized() and number == signal.SIGSEGV:
                    t.skip("the sanitizer reports faults")
                pid = server.worker_pids()[0]
                with t.Load(server.address, 16, TARGETS) as load:
                    load.wait_for(200)
                    os.kill(pid, number)
                    line = last_words(server, pid)
                t.equal(line["signal"], name, "signal")
                t.check(line["doing"] in ("waiting", "working", "request"),
                        f"doing {line['doing']!r}")
                names = functions(line["stack"])
                t.check("worker_loop_run" in names, f"the stack is {names}")
                died = t.eventually(
                    lambda: [one for one in server.errors("worker_died")
                             if one["pid"] == pid], "the master's word")
                t.check(name in died[0]["cause"], f"cause {died[0]['cause']}")
                recovers(server, pid)

        @t.case(f"{backend}: an idle worker's stack begins in its wait")
        def _():
            pid = server.worker_pids()[0]
            os.kill(pid, signal.SIGABRT)
            line = last_words(server, pid)
            names = functions(line["stack"])
            t.check(any(name.startswith(("epoll_", "uring_", "back_", "ep_",
                                         "ur_", "io_", "turn", "wait"))
                        for name in names[:3]), f"the stack is {names}")
            recovers(server, pid)

        @t.case(f"{backend}: a fault says its address and its function")
        def _():
            if t.is_sanitized():
                t.skip("the sanitizer reports faults")
            pid = server.worker_pids()[0]
            break_code(pid, "worker_conn_received")
            client = client_of(server, pid)
            client.send(t.make_request("GET", "/livez"))
            line = last_words(server, pid)
            client.close()
            t.equal(line["signal"], "SIGILL", "signal")
            t.check(line["address"].startswith("0x"), "address")
            names = functions(line["stack"])
            t.equal(names[0], "worker_conn_received", "where")
            t.check("worker_loop_run" in names, f"the stack is {names}")
            recovers(server, pid)

with t.Booksd({"workers": 2, "database": "host=127.0.0.1 port=9",
               "cache_size": 0, "log_format": "combined"}) as server:
    @t.case("the line for people says it too")
    def _():
        pid = server.worker_pids()[0]
        os.kill(pid, signal.SIGABRT)
        line = t.eventually(
            lambda: re.search(rf"^\S+ error worker_stack: .* pid={pid} "
                              r".*stack=\"(.*)\"$", server.stderr_text(),
                              re.M), "a line")
        t.check("worker_loop_run" in functions(line[1]), line[0])
        recovers(server, pid)
t.done()
