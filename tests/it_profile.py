#!/usr/bin/env python3
"""Goal: samples of where the workers spend their CPU time, asked for through
the shared memory, name the worker's functions, disturb no request, and end when
they should, whatever was asked for.
Method: a small program asks while clients load both workers; the addresses it
prints are looked up by addr2line.
"""
import collections
import os
import subprocess

import booksd_test as t

DUMP = os.path.join(t.BUILDDIR, "tests", "stats_dump")


def samples(server, hertz, seconds):
    """[(slot, [address, ...]), ...], the innermost first."""
    done = subprocess.run([DUMP, str(server.pid), "profile", str(hertz),
                           str(seconds)], stdout=subprocess.PIPE, timeout=60,
                          check=True, text=True)
    return [(int(line.split()[0]),
             [int(word, 16) for word in line.split()[1:]])
            for line in done.stdout.splitlines()]


def base_of(pid):
    with open(f"/proc/{pid}/maps", encoding="ascii") as file:
        return int(next(line for line in file if t.BOOKSD in line)
                   .split("-")[0], 16)


def names(addresses, base):
    done = subprocess.run(
        ["addr2line", "-f", "-e", t.BOOKSD],
        input="\n".join(hex(one - base) for one in addresses),
        stdout=subprocess.PIPE, timeout=60, check=True, text=True)
    return dict(zip(addresses, done.stdout.splitlines()[::2]))


def timers(pid):
    """The POSIX timers of a process, "" where the kernel does not tell."""
    try:
        with open(f"/proc/{pid}/timers", encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def is_quiet(server):
    return not any(timers(pid) for pid in server.worker_pids())


for backend in t.backends():
    with t.Booksd({"io_backend": backend, "workers": 2, "database":
                   "host=127.0.0.1 port=9", "access_log": "off"}) as server:
        @t.case(f"{backend}: a profile names where the time goes")
        def _():
            with t.Load(server.address, 32, ["/livez", "/"]) as load:
                load.wait_for(200)
                found = samples(server, 499, 2)
            t.equal(load.result.failed, 0, f"failed: {load.result}")
            t.check(len(found) >= 3, f"{len(found)} samples")
            t.check({slot for slot, _ in found} <= {0, 1}, "workers")
            base = base_of(server.worker_pids()[0])
            known = names(sorted({one for _, stack in found for one in stack}),
                          base)
            seen = collections.Counter()
            for _, stack in found:
                seen.update({known[one] for one in stack})
            t.check(seen["worker_loop_run"] >= 0.9 * len(found),
                    f"worker_loop_run in {seen['worker_loop_run']} of "
                    f"{len(found)}: {seen.most_common(20)}")
            # What the kernel does is seen where it was called.
            t.check(seen["epoll_turn"] + seen["uring_turn"] > 0,
                    f"no turn among {seen.most_common(20)}")
            t.eventually(lambda: is_quiet(server), "the timers are gone")

        @t.case(f"{backend}: an idle worker has no samples and no timer left")
        def _():
            t.check(len(samples(server, 99, 1)) < 10, "samples of nothing")
            t.eventually(lambda: is_quiet(server), "the timers are gone")

        @t.case(f"{backend}: a rate out of bounds is brought into them")
        def _():
            with t.Load(server.address, 16, ["/livez"]) as load:
                load.wait_for(100)
                for hertz in (0, 2 ** 32 - 1):
                    found = samples(server, hertz, 1)
                    t.check(0 < len(found) <= 2 * 2 * 1000,
                            f"{len(found)} samples at {hertz} Hz")
            t.equal(load.result.failed, 0, f"failed: {load.result}")
            t.eventually(lambda: is_quiet(server), "the timers are gone")
t.done()
