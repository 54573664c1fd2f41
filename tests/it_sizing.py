#!/usr/bin/env python3
"""Goal: the number of workers follows the limits that really hold, that of an
ECS task among them, and the log says what decided.

Method: the real binary, and a metadata endpoint of our own on this machine
which answers as the service does, wrongly, too much, or not at all.
"""
import contextlib
import json
import os
import signal
import time

import booksd_test as t
from ecs_test import TASK, endpoint

NOWHERE = "host=127.0.0.1 port=1 connect_timeout=1"
BASIC = {"database": NOWHERE, "migrate_on_start": "off", "workers": "auto",
         "cache_size": 0, "drain_delay": "0s", "drain_timeout": "5s"}
CPUS = len(os.sched_getaffinity(0))


def start_of(env, settings=()):
    """What booksd says of itself at its start: (started, ecs events, number
    of workers that run)."""
    with t.Booksd({**BASIC, **dict(settings)}, env=env) as server:
        started = server.errors("started")[0]
        t.eventually(lambda: len(server.worker_pids()) == started["workers"],
                     "all workers run")
        return (started, server.errors("ecs_task"),
                server.errors("ecs_task_unknown"))


@t.case("the limit of the task decides, and the log says so")
def _():
    with endpoint() as (env, asked):
        started, task, unknown = start_of(env)
    t.equal(started["workers"], 1)
    t.equal(started["workers_source"], "ECS task limit of 0.500 vCPU")
    t.equal(started["limit_millicpus"], 500)
    t.equal(asked, ["/v4/0af3-1/task"])
    t.equal((task[0]["family"], task[0]["revision"], task[0]["task"]),
            ("books", "7", "0af3"))
    t.equal(unknown, [])


@t.case("a setting goes before the limit of the task")
def _():
    with endpoint() as (env, _):
        started, task, _ = start_of(env, {"workers": 2})
    t.equal((started["workers"], started["workers_source"]), (2, "setting"))
    t.equal(len(task), 1, "the task is known all the same")


@t.case("an endpoint that is not up yet is asked again")
def _():
    with endpoint(fail_first=2) as (env, asked):
        started, _, _ = start_of(env)
    t.equal(started["limit_millicpus"], 500)
    t.equal(len(asked), 3)


def is_ignored(env, asked=None):
    started, task, unknown = start_of(env)
    t.check("ECS" not in started["workers_source"], started["workers_source"])
    t.check(1 <= started["workers"] <= CPUS, started["workers"])
    t.equal(task, [])
    t.equal(len(unknown), 1)
    if asked is not None:
        t.equal(asked, [], "requests")
    return unknown[0]["reason"]


@t.case("an endpoint that does not answer delays the start for a second")
def _():
    with endpoint(pause=20) as (env, _):
        begin = time.monotonic()
        is_ignored(env)
        t.check(time.monotonic() - begin < 10, "it took too long")


@t.case("an answer that is no task changes nothing")
def _():
    for body in ("not json", "{}", "[1]"):
        with endpoint(body=body) as (env, _):
            t.equal(is_ignored(env), "the answer describes no task")


@t.case("an answer of more than 256 KiB is not read")
def _():
    body = json.dumps({**TASK, "Containers": "x" * (257 << 10)})
    with endpoint(body=body) as (env, _):
        t.equal(is_ignored(env), "the answer is too long")


@t.case("a redirect is not followed")
def _():
    with endpoint() as (other, asked):
        to = other["ECS_CONTAINER_METADATA_URI_V4"] + "/task"
        with endpoint(status=302, body="", location=to) as (env, _):
            is_ignored(env)
        t.equal(asked, [], "requests")


@t.case("nobody outside of the machine is asked, and no proxy")
def _():
    for uri in ("http://example.com/v4/a", "https://127.0.0.1/v4/a",
                "file:///etc/passwd"):
        t.equal(is_ignored({"ECS_CONTAINER_METADATA_URI_V4": uri}),
                "not http to a link-local address")
    with endpoint() as (env, asked), endpoint() as (proxy, proxied):
        uri = proxy["ECS_CONTAINER_METADATA_URI_V4"]
        start_of({**env, "http_proxy": uri, "ALL_PROXY": uri})
        t.equal((len(asked), proxied), (1, []))


# ---- a quota that changes

@contextlib.contextmanager
def quota_group():
    """A control group of our own with a quota: a function that sets it, and
    one that moves processes there."""
    name = None
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/cpu",
                 "/sys/fs/cgroup/cpu,cpuacct"):
        with contextlib.suppress(OSError):
            name = os.path.join(root, f"booksd-test-{os.getpid()}")
            os.mkdir(name)
            if any(os.path.exists(os.path.join(name, file))
                   for file in ("cpu.max", "cpu.cfs_quota_us")):
                break
            os.rmdir(name)
        name = None
    if name is None:
        t.skip("no control group can be made here")

    def write(file, text):
        with open(os.path.join(name, file), "w", encoding="ascii") as out:
            out.write(str(text))

    def limit(millicpus):
        quota = millicpus * 100 if millicpus else None
        if os.path.exists(os.path.join(name, "cpu.max")):
            write("cpu.max", f"{quota or 'max'} 100000")
        else:
            write("cpu.cfs_quota_us", quota or -1)

    def move(pids):
        for pid in pids:
            write("cgroup.procs", pid)
    try:
        yield limit, move
    finally:
        # Whoever is left in it is on the way out.
        def is_removed():
            with contextlib.suppress(OSError):
                os.rmdir(name)
            return not os.path.exists(name)
        t.eventually(is_removed, "the group is empty")


with t.case("a quota is followed at run time, and throttling is reported"):
    if CPUS < 2:
        t.skip("one CPU is one worker with any quota")
    with quota_group() as (limit, move), t.Booksd(BASIC) as server:
        before = server.errors("started")[0]["workers"]
        t.eventually(lambda: len(server.worker_pids()) == before,
                     "all workers run")
        limit(150)
        move([server.pid, *server.children()])
        changed = t.eventually(lambda: server.errors("quota_changed"),
                               "the quota is noticed")
        t.equal((changed[0]["to_millicpus"], changed[0]["cpus"]), (150, 1))
        t.eventually(lambda: len(server.worker_pids()) == 1,
                     "one worker is enough for a part of a CPU")
        limit(10)  # less than the load takes, however slow the machine is
        with t.Load(server.address, 8, ["/livez"]) as load:
            line = t.eventually(lambda: server.errors("cpu_throttled"),
                                "the kernel stops us, and the log says so", 20)
            limit(None)
            result = load.stop()
        t.check(line[0]["throttled_ms"] > 0, line)
        t.check(0 < line[0]["throttled_periods"] <= line[0]["periods"], line)
        t.check(line[0]["limit_millicpus"] in (150, 10), line)
        t.equal(result.failed, 0, result)
        t.eventually(lambda: len(server.worker_pids()) == before,
                     "without a quota there are as many as before")
        t.equal(len(server.errors("cpu_throttled")), 1, "in one minute")
        t.equal([line["to"] for line in server.errors("resize")],
                [1, before])

with t.case("a range of workers is cut to a smaller quota"):
    if CPUS < 2:
        t.skip("one CPU is one worker with any quota")
    with quota_group() as (limit, move), \
            t.Booksd({**BASIC, "workers": "1..3"}) as server:
        t.eventually(lambda: len(server.worker_pids()) == 1, "it begins small")
        server.send_signal(signal.SIGTTIN)
        t.eventually(lambda: len(server.worker_pids()) == 2, "one more")
        limit(90)
        move([server.pid, *server.children()])
        t.eventually(lambda: len(server.worker_pids()) == 1,
                     "as many as there are CPUs", 20)
        t.equal([(line["to"], line["reason"])
                 for line in server.errors("resize")][-1], (1, "CPU limit"))

t.done()
