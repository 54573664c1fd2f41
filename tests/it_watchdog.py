#!/usr/bin/env python3
"""Goal: a worker that does not go on is found, named, killed and replaced, and
nobody is killed for what happened to all of them.

Method: processes are stopped with SIGSTOP, one or all of them, with a watchdog
of half a second; the log, titles and clients have to agree about what came of
it.
"""
import os
import signal
import time

import booksd_test as t

NOWHERE = "host=127.0.0.1 port=1 connect_timeout=1"
LIMIT = 0.5
BASIC = {"database": NOWHERE, "migrate_on_start": "off", "workers": 2,
         "drain_delay": "0s", "drain_timeout": "5s", "access_log": "off",
         "worker_watchdog": "500ms"}


def two(server):
    return t.eventually(
        lambda: len(found := server.worker_pids()) == 2 and found,
        "two workers")


def beating(server):
    """The workers have begun their loops."""
    t.eventually(lambda: len(server.errors("io_backend")) >= 2, "they began")
    return two(server)


@t.case("a stopped worker is told, aborted and replaced")
def _():
    with t.Booksd(BASIC, allow_alarms=True) as server:
        stuck, other = beating(server)
        begun = time.monotonic()
        os.kill(stuck, signal.SIGSTOP)
        line = t.eventually(lambda: server.errors("worker_stuck"), "told")[0]
        t.check(time.monotonic() - begun >= LIMIT / 2, "not at once")
        t.equal((line["pid"], line["process_state"]), (stuck, "T"))
        # Nearly always the first: it may have been between two waits.
        t.check(line["doing"] in ("waiting", "working"), line)
        t.equal(line["route"], "none")
        t.check(line["heartbeat_age_ms"] >= 400, line)
        died = t.eventually(lambda: server.errors("worker_died"), "died")[0]
        t.equal((died["pid"], died["restart_in_ms"]), (stuck, 0))
        t.check(died["cause"].startswith(("signal 6", "signal 9")),
                died["cause"])
        pids = two(server)
        t.check(other in pids and stuck not in pids, f"{pids}")
        t.equal(server.request("GET", "/livez").status, 200)
        t.equal(server.stop(), 0)


for backend in t.backends():
    @t.case(f"{backend}: who waits in the queue is served by the others")
    def _():
        with t.Booksd({**BASIC, "io_backend": backend},
                      allow_alarms=True) as server:
            stuck = beating(server)[0]
            os.kill(stuck, signal.SIGSTOP)
            for _ in range(30):
                t.equal(server.request("GET", "/", seconds=5).status, 200)
            t.eventually(lambda: server.errors("worker_died"), "it is killed")
            t.equal(server.stop(), 0)


@t.case("all workers stopped: the sockets keep what comes meanwhile")
def _():
    with t.Booksd(BASIC, allow_alarms=True) as server:
        pids = beating(server)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        t.equal(server.request("GET", "/", seconds=10).status, 200)
        t.eventually(lambda: sorted(
            line["pid"] for line in server.errors("worker_stuck")) ==
            sorted(pids), "both are found")
        t.equal(server.stop(), 0)


@t.case("when everything was stopped nobody is to blame")
def _():
    with t.Booksd(BASIC) as server:
        pids = beating(server)
        everybody = [server.pid, *server.children()]
        for _ in range(3):
            for pid in everybody:  # the master first
                os.kill(pid, signal.SIGSTOP)
            time.sleep(3 * LIMIT)
            for pid in reversed(everybody):
                os.kill(pid, signal.SIGCONT)
            t.equal(server.request("GET", "/").status, 200)
        time.sleep(LIMIT)
        t.equal(server.errors("worker_stuck"), [])
        t.equal(server.worker_pids(), pids)
        t.equal(server.stop(), 0)


@t.case("a moment without a beat is forgiven, again and again")
def _():
    with t.Booksd({**BASIC, "worker_watchdog": "2s"}) as server:
        pids = beating(server)
        for _ in range(6):
            os.kill(pids[0], signal.SIGSTOP)
            time.sleep(0.4)
            os.kill(pids[0], signal.SIGCONT)
            time.sleep(0.2)
        t.equal(server.errors("worker_stuck"), [])
        t.equal(server.worker_pids(), pids)
        t.equal(server.stop(), 0)


@t.case("worker_watchdog = 0 leaves a stopped worker alone")
def _():
    with t.Booksd({**BASIC, "worker_watchdog": 0}) as server:
        pids = beating(server)
        os.kill(pids[0], signal.SIGSTOP)
        time.sleep(4 * LIMIT)
        t.equal(server.errors("worker_stuck"), [])
        os.kill(pids[0], signal.SIGCONT)
        t.equal(server.worker_pids(), pids)
        t.equal(server.stop(), 0)


@t.case("a watchdog of a few milliseconds is refused")
def _():
    with t.Booksd({**BASIC, "worker_watchdog": "5ms"}, wait=None) as server:
        t.equal(server.wait(), 78)
        t.check("need 0 or at least 100 ms" in server.stderr_text(),
                server.stderr_text())


@t.case("an ops that does not go on is replaced, after a longer time")
def _():
    with t.Booksd({**BASIC, "worker_watchdog": "100ms"}) as server:
        ops = t.eventually(server.ops_pid, "ops is there")
        time.sleep(0.5)
        os.kill(ops, signal.SIGSTOP)
        line = t.eventually(lambda: server.errors("ops_stuck"), "told")[0]
        t.equal(line["pid"], ops)
        t.eventually(lambda: server.ops_pid() not in (None, ops), "another")
        t.equal(server.stop(), 0)


t.done()
