"""Goal: a worker that is killed costs the requests that it had in flight and
nothing else, and the figures stay true.

Method: constant load of keep-alive connections; a worker is stopped, its
connections are counted, it is killed; and so on, 50 times a back end (13 under
a sanitizer).  Each of those connections can lose one request: what failed, or
had to be sent again, is at most their sum; no connection is refused.
Afterwards books_requests_total lies between the answers that clients have and
those plus the lost ones.
"""
import contextlib
import os
import re
import signal

import booksd_test as t

KILLS = 13 if t.is_sanitized() else 50
CONNECTIONS = 48
WORKERS = 13  # each dies four times at most: no long pause before the next one
TARGETS = ["/", "/books/9780201134476", "/livez"]


def counted(server):
    """Requests of the load's routes, as booksd counted them."""
    text = server.admin("GET", "/metrics").text()
    total = 0
    for line in text.splitlines():
        found = re.match(r'books_requests_total\{.*route="([^"]*)".*\} (\d+)',
                         line)
        if found and found[1] in ("/", "/books/{isbn}", "/livez"):
            total += int(found[2])
    return total


def next_victim(server, slot):
    title = f"booksd: worker {slot}"
    return t.eventually(
        lambda: next((pid for pid in server.worker_pids()
                      if t.process_title(pid) == title), None),
        f"there is a worker {slot}")


def stop_and_kill(server, pid):
    """How many connections it had, of which each may lose a request."""
    os.kill(pid, signal.SIGSTOP)
    t.eventually(lambda: t.process_stat(pid)[0] == "T", "it stands still")
    had = set()  # the kernel's list can lack connections while it changes
    for _ in range(4):
        had |= {port for port, owner in server.owners().items()
                if owner == pid}
    os.kill(pid, signal.SIGKILL)
    return len(had)


pg = t.Postgres()
for backend in t.backends():
    with t.case(f"{backend}: {KILLS} killed workers cost what they had in "
                "flight, and the counts stay true", 200):
        with t.Booksd({"database": pg.conninfo, "io_backend": backend,
                       "workers": WORKERS, "access_log": "off",
                       "database_connections": 2 * WORKERS,
                       "admin_listen": "127.0.0.1:0"},
                      wait="readyz") as server:
            with contextlib.suppress(AssertionError):
                server.request("POST", "/books", {
                    "isbn": "9780201134476", "title": "T", "author": "A",
                    "price": 1})
            before = counted(server)
            at_stake = 0
            with t.Load(server.address, CONNECTIONS, TARGETS) as load:
                load.wait_for(300)
                for count in range(KILLS):
                    at_stake += stop_and_kill(server, next_victim(
                        server, count % WORKERS))
                    load.wait_for(60)
                result = load.stop()
            lost = result.failed + result.retries
            t.diag(result)
            t.diag(f"{KILLS} kills, {at_stake} connections of the killed, "
                   f"{lost} requests lost or sent again")
            t.equal([why for why in result.reasons if "Refused" in why], [],
                    "refused connections")
            t.check(lost <= at_stake, "more was lost than was in flight")
            difference = counted(server) - before - result.ok
            t.diag(f"counted by booksd, not received: {difference}")
            t.check(0 <= difference <= lost,
                    f"{difference} of {lost} lost requests were counted")
            t.equal(len(server.errors("worker_died")), KILLS, "deaths told")
            t.check(result.ok > KILLS * 60, "there was a load")
pg.close()
