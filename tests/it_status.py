#!/usr/bin/env python3
"""Goal: the status is what clients have seen, has the members that
books-counters(7) names and no others, and comes as events that end when booksd
or the client does.
Method: real booksd and PostgreSQL; what is counted is compared with what was
asked, before and after deaths.
"""
import json
import os
import re
import signal
import time

import booksd_test as t


def paths(value, prefix=""):
    """The names of books-counters(7) for what is in value."""
    if isinstance(value, dict):
        found = set()
        for key, member in value.items():
            name = f"{prefix}.{key}" if prefix else key
            inner = paths(member, name)
            found |= inner or {name}
        return found
    if isinstance(value, list):
        return set().union(*[paths(one, prefix + "[]") for one in value]) \
            if value else {prefix + "[]"}
    return {prefix}


class Events:
    """A client of /events."""

    def __init__(self, books):
        self.client = t.Raw(books.control, seconds=15)
        self.client.send(t.make_request("GET", "/events"))
        self.head = self.client.read_head()
        self.text = b""

    def next(self):
        """(type, parsed data)"""
        while b"\n\n" not in self.text:
            size = int(self.client.recv_until(b"\r\n"), 16)
            if size == 0:
                return None
            self.text += self.client._take(size + 2)[:-2]
        event, _, self.text = self.text.partition(b"\n\n")
        kind, data = re.fullmatch(rb"event: (\w+)\ndata: (.*)", event).groups()
        return kind.decode(), json.loads(data)

    def close(self):
        self.client.close()

    @staticmethod
    def many(books, count):
        """As soon as those before have been noticed to be gone."""
        clients = []

        def one():
            client = Events(books)
            if client.head.status == 200:
                clients.append(client)
                return True
            client.close()
            return False
        while len(clients) < count:
            t.eventually(one, "there is room for events")
        return clients


pg = t.Postgres()
with t.Booksd({"database": pg.conninfo, "workers": 2, "drain_delay": "0s",
               "admin_listen": "127.0.0.1:0"}, wait="readyz") as books:
    def ask(target="/status.json"):
        answer = books.admin("GET", target)
        t.equal(answer.status, 200, "status")
        t.equal(answer.header("content-type"), "application/json", "type")
        return answer.json()

    @t.case("the members are those of books-counters(7)")
    def _():
        books.request("GET", "/books/1234567890")
        pg.sql("ALTER TABLE book RENAME TO away")
        t.eventually(lambda: books.request("GET", "/books/77").status >= 500,
                     "an error of the database")
        pg.sql("ALTER TABLE away RENAME TO book")
        status = t.eventually(
            lambda: (one := ask())["routes"] and one["point"] and
            one["database"]["errors"] and one, "a full status")
        t.equal(status["task"], None, "no task")
        status["task"] = {"family": "", "revision": "", "id": ""}
        t.equal(sorted(paths(status) ^
                       (t.documented("Status") - {"task", "point"})),
                [], "differences")

    @t.case("each answer is counted, by class and by route")
    def _():
        before = ask()
        count = {"/": 7, "/livez": 11, "/nothing": 5}
        time.sleep(1.1)  # what was asked before is in a sample
        before = ask()
        for target, times in count.items():
            for _ in range(times):
                books.request("GET", target)

        def seen():
            now = ask()
            return now["requests"]["total"] >= (
                before["requests"]["total"] + 23) and now
        now = t.eventually(seen, "the requests are counted")
        for name, times in (("2xx", 18), ("4xx", 5), ("5xx", 0)):
            t.equal(now["requests"]["byClass"][name] -
                    before["requests"]["byClass"][name], times, name)
        t.equal(now["requests"]["total"] - before["requests"]["total"], 23,
                "in all")

        def of(status):
            return {one["route"]: one["total"] for one in status["routes"]}
        for route, times in (("/", 7), ("/livez", 11), ("none", 5)):
            t.equal(of(now)[route] - of(before).get(route, 0), times, route)

    @t.case("rates and quantiles follow the load")
    def _():
        isbn = "9780201134476"
        books.request("POST", "/books", {"isbn": isbn, "title": "T",
                                         "author": "A", "price": 1})
        with t.Load(books.address, 8, ["/books/" + isbn]) as load:
            load.wait_for(500)

            def busy():
                now = ask()
                return (now["requests"]["perSecond"] > 50 and
                        (now["cache"]["hitRatio"] or 0) > 0.5 and
                        now["requests"]["perCpuSecond"] > 0 and
                        sum(now["point"]["heat"]) > 0 and now)
            now = t.eventually(busy, "the load is seen")
        latency = now["latency"]
        t.check(0 < latency["p50"] <= latency["p90"] <= latency["p99"] <=
                latency["max"], latency)
        t.equal(len(now["workers"]), 2, "workers")
        t.equal(now["workersWanted"], 2, "wanted")
        t.check(sum(one["connections"] for one in now["workers"]) >= 8,
                now["workers"])
        t.check({one["pid"] for one in now["workers"]} ==
                set(books.worker_pids()), "pids")
        t.equal(now["listen"]["addresses"], ["%s:%d" % books.address],
                "addresses")
        t.check(now["cpu"]["source"], "source")

    @t.case("a worker's death loses no count")
    def _():
        time.sleep(1.1)
        before = ask()["requests"]["total"]
        for pid in books.worker_pids():
            os.kill(pid, signal.SIGKILL)
        t.eventually(lambda: len(books.worker_pids()) == 2 and
                     books.request("GET", "/").status == 200, "successors")
        t.eventually(lambda: ask()["requests"]["total"] == before + 1,
                     "one more than before")
        t.check(sum(one["restarts"] for one in ask()["workers"]) == 2,
                "restarts")

    @t.case("events begin with the history and go on each second")
    def _():
        client = Events(books)
        t.equal(client.head.status, 200, "status")
        t.equal(client.head.header("content-type"), "text/event-stream",
                "type")
        kind, history = client.next()
        t.equal(kind, "history", "first")
        t.equal(len(history["bands"]), 16, "bands")
        times = [point["t"] for point in history["points"]]
        t.check(len(times) >= 2 and times == sorted(set(times)), times)
        for _ in range(2):
            kind, status = client.next()
            t.equal(kind, "status", "then")
            t.check(status["point"]["t"] >= times[-1], "a later point")
            times.append(status["point"]["t"])
        t.check(times[-1] > times[-2], "another second")
        client.close()
        again = ask("/history.json")
        t.equal(sorted(again), ["bands", "points"], "by itself")
        t.check(len(again["points"]) >= len(history["points"]), "as long")

    @t.case("eight clients hear of events, the ninth is told to come later")
    def _():
        clients = Events.many(books, 8)
        late = Events(books)
        t.equal(late.head.status, 503, "the ninth")
        late.close()
        for one in clients:
            t.equal(one.next()[0], "history", "first")
            t.equal(one.next()[0], "status", "then")
        t.equal(ask()["version"] != "", True, "others are answered")
        for one in clients:
            one.close()
        Events.many(books, 1)[0].close()

    @t.case("who stays in the middle of events does not keep booksd")
    def _():
        clients = Events.many(books, 3)
        clients[0].next()
        books.send_signal(signal.SIGTERM)
        t.equal(books.wait(20), 0, "exit code")
        for one in clients:
            one.client.read_eof()
            one.close()
t.done()
