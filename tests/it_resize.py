#!/usr/bin/env python3
"""Goal: there are as many workers as somebody wanted last, however he said
so, and nobody's request pays for the change.

Method: signals to the master, and orders over a copy of the descriptor that
ops has for them; titles, the log and clients have to agree about what came of
it.
"""
import contextlib
import ctypes
import os
import signal
import struct

import booksd_test as t

NOWHERE = "host=127.0.0.1 port=1 connect_timeout=1"
BASIC = {"database": NOWHERE, "migrate_on_start": "off", "workers": 2,
         "drain_delay": "0s", "drain_timeout": "10s"}
DRAIN, RELOAD, WORKERS, REOPEN = 1, 2, 3, 4
SYS_PIDFD_OPEN, SYS_PIDFD_GETFD = 434, 438
WORKERS_MAX = 31

libc = ctypes.CDLL(None, use_errno=True)


def is_count(server, count):
    return t.eventually(
        lambda: len(found := server.worker_pids()) == count and found,
        f"{count} workers", 15)


def resizes(server):
    return [(line["reason"], line["from"], line["to"])
            for line in server.errors("resize")]


def order_descriptor(server):
    """A copy of the end of the socket pair that ops has."""
    pid = t.eventually(server.ops_pid, "ops is there")
    handle = libc.syscall(SYS_PIDFD_OPEN, pid, 0)
    if handle < 0:
        t.skip("no pidfd_open here")
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            copy = libc.syscall(SYS_PIDFD_GETFD, handle, int(name), 0)
            if copy < 0:
                t.skip("descriptors of others cannot be copied here")
            if is_order_socket(copy):
                return copy
            os.close(copy)
    finally:
        os.close(handle)
    raise AssertionError("ops has no socket for orders")


def is_order_socket(fd):
    """A connected unix socket of sequenced packets."""
    try:
        kind = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return False
    if not kind.startswith("socket:["):
        return False
    with open("/proc/net/unix", encoding="ascii") as file:
        for line in list(file)[1:]:
            fields = line.split()
            if fields[6] == kind[8:-1]:
                return fields[4] == "0005"  # SOCK_SEQPACKET
    return False


def try_write(fd, data):
    try:
        os.write(fd, data)
    except BlockingIOError:
        return False
    return True


def send(fd, verb, argument=0):
    os.write(fd, struct.pack("=II", verb, argument))


@t.case("TTIN adds a worker and TTOU retires the youngest, down to one")
def _():
    with t.Booksd(BASIC) as server:
        first = is_count(server, 2)
        server.send_signal(signal.SIGTTIN)
        more = is_count(server, 3)
        t.check(set(first) < set(more), "the others stay")
        added = (set(more) - set(first)).pop()
        t.equal(t.process_title(added), "booksd: worker 2")
        server.send_signal(signal.SIGTTOU)
        t.equal(is_count(server, 2), first, "the youngest goes")
        server.send_signal(signal.SIGTTOU)
        t.check(is_count(server, 1)[0] in first, "one of the first is left")
        server.send_signal(signal.SIGTTOU)
        line = t.eventually(lambda: server.errors("resize_refused"),
                            "the last one stays")[0]
        t.equal((line["reason"], line["workers"]), ("SIGTTOU", 1))
        t.equal(resizes(server), [("SIGTTIN", 2, 3), ("SIGTTOU", 3, 2),
                                  ("SIGTTOU", 2, 1)])
        t.equal(server.request("GET", "/livez").status, 200)
        # Who was retired has no death that is worth a word.
        t.equal(server.errors("worker_died"), [])
        t.equal(server.stop(), 0)


@t.case("a load does not notice how the number goes up and down")
def _():
    with t.Booksd({**BASIC, "drain_timeout": "10s"}) as server:
        is_count(server, 2)
        with t.Load(server.address, 16, ["/"]) as load:
            load.wait_for(100)
            for number, count in ((signal.SIGTTIN, 3), (signal.SIGTTIN, 4),
                                  (signal.SIGTTOU, 3), (signal.SIGTTOU, 2),
                                  (signal.SIGTTOU, 1), (signal.SIGTTIN, 2)):
                server.send_signal(number)
                is_count(server, count)
                load.wait_for(100)
        result = load.stop()
        t.diag(str(result))
        t.equal(result.failed, 0, str(result))
        t.equal(server.errors("worker_died"), [])
        t.equal(server.stop(), 0)


@t.case("WINCH sends all workers to rest, TTIN brings them back")
def _():
    with t.Booksd(BASIC) as server:
        is_count(server, 2)
        server.send_signal(signal.SIGWINCH)
        t.eventually(lambda: not server.worker_pids(), "nobody works", 15)
        t.check(server.process.poll() is None, "the master stays")
        t.equal(len(server.errors("workers_rest")), 1)
        # The sockets are the master's: who comes now waits.
        with server.raw(15) as client:
            client.send(t.make_request("GET", "/livez"))
            server.send_signal(signal.SIGTTIN)
            t.equal(client.read_response().status, 200, "it was not lost")
        is_count(server, 2)
        t.equal(resizes(server), [], "as many as before")
        t.equal(server.stop(), 0)


@t.case("ops orders another number, a reopening and the drain")
def _():
    log = os.path.join("/tmp", f"booksd-resize-{os.getpid()}.log")
    with t.Booksd({**BASIC, "access_log": log}) as server:
        fd = order_descriptor(server)
        try:
            is_count(server, 2)
            send(fd, WORKERS, 4)
            is_count(server, 4)
            send(fd, WORKERS, 1)
            is_count(server, 1)
            send(fd, WORKERS, WORKERS_MAX)
            send(fd, WORKERS, 2)
            is_count(server, 2)
            t.equal(resizes(server)[:2], [("order", 2, 4), ("order", 4, 1)])
            os.rename(log, log + ".1")
            send(fd, REOPEN)
            t.eventually(lambda: os.path.exists(log), "a new log")
            send(fd, DRAIN)
            t.equal(server.wait(20), 0, "it ends as by TERM")
            t.equal(len(server.errors("draining")), 1)
        finally:
            os.close(fd)
            for path in (log, log + ".1"):
                if os.path.exists(path):
                    os.unlink(path)


@t.case("what is no order is dropped, told once, and stops nothing")
def _():
    with t.Booksd(BASIC) as server:
        fd = order_descriptor(server)
        try:
            pids = is_count(server, 2)
            for bad in (b"x", bytes(8), bytes(4096),
                        struct.pack("=II", WORKERS, 0),
                        struct.pack("=II", WORKERS, WORKERS_MAX + 1),
                        struct.pack("=II", 99, 1),
                        struct.pack("=III", WORKERS, 3, 0)):
                os.write(fd, bad)
            line = t.eventually(lambda: server.errors("order_refused"),
                                "it is told")[0]
            t.equal((line["level"], line["bytes"]), ("warn", 1))
            for _ in range(100):  # more than a turn takes
                t.eventually(lambda: try_write(fd, bytes(8)), "room")
            send(fd, WORKERS, 3)
            more = is_count(server, 3)
            t.check(set(pids) < set(more), "nobody else was disturbed")
            t.equal(len(server.errors("order_refused")), 1)
            t.equal(resizes(server), [("order", 2, 3)])
        finally:
            os.close(fd)
        t.equal(server.stop(), 0)


@t.case("no worker has the socket of orders")
def _():
    with t.Booksd(BASIC) as server:
        fd = order_descriptor(server)
        name = os.readlink(f"/proc/self/fd/{fd}")
        os.close(fd)

        def has(pid):
            found = set()
            for number in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    found.add(os.readlink(f"/proc/{pid}/fd/{number}"))
            return name in found
        t.check(has(server.pid), "the master has it")
        for pid in is_count(server, 2):
            t.eventually(lambda who=pid: not has(who), "a worker has not")
        t.equal(server.stop(), 0)


@t.case("one that is retired while it hangs is killed when its time is up")
def _():
    with t.Booksd({**BASIC, "drain_timeout": "300ms",
                   "workers": 1}) as server:
        first = is_count(server, 1)
        server.send_signal(signal.SIGTTIN)
        stuck = (set(is_count(server, 2)) - set(first)).pop()
        os.kill(stuck, signal.SIGSTOP)
        server.send_signal(signal.SIGTTOU)
        t.equal(is_count(server, 1), first)
        t.equal([(line["worker"], line["pid"]) for line in
                 server.errors("retire_overdue")], [(1, stuck)])
        t.equal(server.errors("worker_died")[0]["cause"],
                "signal 9 (SIGKILL)")
        t.equal(server.stop(), 0)


@t.case("a range begins at its least, and an idle one stays there")
def _():
    with t.Booksd({**BASIC, "workers": "1..2"}) as server:
        is_count(server, 1)
        server.send_signal(signal.SIGTTIN)
        is_count(server, 2)
        server.send_signal(signal.SIGTTOU)
        is_count(server, 1)
        t.equal([line[0] for line in resizes(server)],
                ["SIGTTIN", "SIGTTOU"], "nobody else changed it")
        t.equal(server.stop(), 0)


t.done()
