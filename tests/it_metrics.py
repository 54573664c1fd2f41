#!/usr/bin/env python3
"""Goal: the metrics are valid OpenMetrics, count what clients counted, exactly,
never go back whoever dies, and are those of books-counters(7).
Method: a strict parser, tried first with texts that are wrong, reads what a
real booksd says around requests that are counted here.
"""
import collections
import os
import re
import signal
import time

import booksd_test as t

OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8"
OLD = "text/plain; version=0.0.4; charset=utf-8"
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABELS = r'(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\n"])*")'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABELS}(?:,{LABELS})*)\}})? (\S+)\Z")
NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?\Z")
SUFFIXES = {"counter": ["_total"], "gauge": [""], "info": ["_info"],
            "histogram": ["_bucket", "_count", "_sum"]}


class Bad(Exception):
    pass


class Family:
    def __init__(self, name):
        self.name, self.type, self.unit, self.help = name, None, None, None
        self.samples = {}  # (suffix, labels) -> value


def need(condition, what):
    if not condition:
        raise Bad(what)


def labels_of(text):
    pairs = re.findall(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"',
                       text or "")
    need(len(dict(pairs)) == len(pairs), f"a label twice: {text}")
    return tuple(sorted(pairs))


def check_histogram(family):
    series = collections.defaultdict(list)
    for (suffix, labels), value in family.samples.items():
        if suffix == "_bucket":
            le = dict(labels).get("le")
            need(le is not None, f"{family.name}: a bucket without le")
            rest = tuple(one for one in labels if one[0] != "le")
            series[rest].append((float(le), value, le))
    for rest, buckets in series.items():
        edges = [edge for edge, _, _ in buckets]
        need(edges == sorted(set(edges)), f"{family.name}: le out of order")
        need(buckets[-1][2] == "+Inf", f"{family.name}: no +Inf")
        counts = [count for _, count, _ in buckets]
        need(counts == sorted(counts), f"{family.name}: not cumulative")
        need(family.samples.get(("_count", rest)) == counts[-1],
             f"{family.name}: +Inf is not the count")
        need(("_sum", rest) in family.samples, f"{family.name}: no sum")
    need(all(key[0] != "_count" or key[1] in series
             for key in family.samples), f"{family.name}: no buckets")


def parse(text):
    """{family: Family}; raises Bad for what OpenMetrics 1.0 forbids."""
    need(text.endswith("# EOF\n"), "no EOF at the end")
    families, family = {}, None
    for line in text[:-len("# EOF\n")].split("\n")[:-1]:
        meta = re.match(rf"# (TYPE|UNIT|HELP) ({NAME}) (.+)\Z", line)
        if meta:
            what, name, value = meta.groups()
            if family is None or family.name != name:
                need(name not in families, f"{name} comes twice")
                family = families[name] = Family(name)
            need(not family.samples, f"{name}: {what} behind samples")
            need(getattr(family, what.lower()) is None, f"{what} twice")
            setattr(family, what.lower(), value)
            need(what != "TYPE" or value in SUFFIXES, f"type {value}")
            need(what != "UNIT" or name.endswith("_" + value),
                 f"{name} does not end in {value}")
            continue
        found = SAMPLE.match(line)
        need(found and NUMBER.match(found[3]), f"not a sample: {line!r}")
        need(family is not None and family.type, f"no TYPE before {line!r}")
        suffix = found[1][len(family.name):]
        need(found[1].startswith(family.name) and
             suffix in SUFFIXES[family.type], f"{found[1]}: not of its family")
        key = suffix, labels_of(found[2])
        need(key not in family.samples, f"twice: {line}")
        value = float(found[3])
        need(value >= 0 or family.type == "gauge", f"negative: {line}")
        need(value == 1 or family.type != "info", f"info is 1: {line}")
        family.samples[key] = value
    for family in families.values():
        need(family.type and family.help, f"{family.name}: no TYPE or HELP")
        if family.type == "histogram":
            check_histogram(family)
    return families


@t.case("the parser refuses what is wrong")
def _():
    head = "# TYPE a counter\n# HELP a Help.\n"
    hist = ('# TYPE h histogram\n# HELP h Help.\nh_bucket{le="1.0"} 1\n'
            'h_bucket{le="+Inf"} 2\nh_count 2\nh_sum 1.5\n')
    parse(head + 'a_total{x="y"} 1\n' + hist + "# EOF\n")
    for bad in (head + "a_total 1\n", head + "a 1\n# EOF\n",
                head + "a_total 1\na_total 1\n# EOF\n",
                head + "a_total -1\n# EOF\n", head + "a_total\n# EOF\n",
                head + "a_total 1\n# EOF\n\n",
                head + "a_total 1\n" + head + "# EOF\n",
                "a_total 1\n# EOF\n", "# TYPE a counter\na_total 1\n# EOF\n",
                head + "a_total 1\n\n# EOF\n",
                hist.replace("h_count 2", "h_count 3") + "# EOF\n",
                hist.replace("} 1\n", "} 3\n") + "# EOF\n",
                hist.replace('"1.0"', '"+Inf"') + "# EOF\n",
                hist.replace("h_sum 1.5\n", "") + "# EOF\n"):
        try:
            parse(bad)
        except Bad:
            continue
        raise AssertionError(f"accepted: {bad!r}")


pg = t.Postgres()
with t.Booksd({"database": pg.conninfo, "workers": 2, "drain_delay": "0s",
               "admin_listen": "127.0.0.1:0"}, wait="readyz") as books:
    def scrape():
        answer = books.admin("GET", "/metrics", headers={
            "Accept": "application/openmetrics-text;version=1.0.0;q=0.8,"
                      "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"})
        t.equal(answer.status, 200, "status")
        t.equal(answer.header("content-type"), OPEN, "type")
        return parse(answer.text())

    def requests(families):
        return collections.Counter({
            tuple(dict(labels)[key] for key in ("method", "route", "code")):
            int(value) for (_, labels), value in
            families["books_requests"].samples.items()})

    def value(families, family, suffix="_total", **labels):
        key = suffix, tuple(sorted(labels.items()))
        return families[family].samples.get(key, 0)

    isbn = "9780201134476"

    @t.case("what clients counted is what the metrics say, at once")
    def _():
        book = {"isbn": isbn, "title": "T", "author": "A", "price": 1}
        plan = [("POST", "/books", book, "/books", 201, 1),
                ("GET", "/books/" + isbn, None, "/books/{isbn}", 200, 25),
                ("HEAD", "/books/" + isbn, None, "/books/{isbn}", 200, 3),
                ("GET", "/books/123", None, "/books/{isbn}", 404, 4),
                ("GET", "/books", None, "/books", 200, 5),
                ("DELETE", "/", None, "/", 405, 2),
                ("PATCH", "/books", None, "/books", 405, 1),
                ("GET", "/no/such", None, "none", 404, 6),
                ("GET", "/livez", None, "/livez", 200, 7)]
        before, wanted = scrape(), collections.Counter()
        with books.raw() as client:
            for method, target, body, route, status, times in plan:
                for _ in range(times):
                    answer = client.request(method, target, body)
                    t.equal(answer.status, status, f"{method} {target}")
                name = method if method != "PATCH" else "OTHER"
                wanted[(name, route, str(status))] += times
            after = scrape()
        t.equal(dict(requests(after) - requests(before)), dict(wanted),
                "requests")
        for route in {one[3] for one in plan}:
            count = [value(each, "books_request_duration_seconds", "_count",
                           route=route) for each in (before, after)]
            t.equal(count[1] - count[0],
                    sum(times for *_, where, _, times in plan
                        if where == route), f"durations of {route}")
        t.check(value(after, "books_cache_hits") >= 24, "cache hits")
        t.check(value(after, "books_database_duration_seconds", "_count") > 0,
                "statements")
        t.equal(value(after, "books_workers", "", state="serving"), 2,
                "workers")

    @t.case("errors of the database are counted by their SQLSTATE")
    def _():
        pg.sql("ALTER TABLE book RENAME TO away")
        before = scrape()
        count = 0
        for _ in range(3):
            count += books.request("GET", "/books/55").status >= 500
        pg.sql("ALTER TABLE away RENAME TO book")
        after = scrape()
        t.check(count > 0, "there were errors")
        errors = [value(each, "books_database_errors", sqlstate="42P01")
                  for each in (before, after)]
        t.check(errors[1] - errors[0] >= 1, errors)

    @t.case("the metrics are those of books-counters(7)")
    def _():
        names = set()
        for name, family in scrape().items():
            suffix = SUFFIXES[family.type][0]
            names.add(name if family.type == "histogram" else name + suffix)
        t.equal(sorted(names ^ t.documented("Metrics")), [], "differences")

    @t.case("old scrapers get the form that they read")
    def _():
        answer = books.admin("GET", "/metrics", headers={
            "Accept": "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"})
        t.equal(answer.header("content-type"), OLD, "type")
        text = answer.text()
        t.check("# EOF" not in text and "# UNIT" not in text, "not there")
        t.check("# TYPE books_requests_total counter\n" in text, "a counter")
        t.check("# TYPE books_build_info gauge\n" in text, "the info")
        t.equal(books.admin("GET", "/metrics", headers={"Accept": "*/*"})
                .header("content-type"), OPEN, "whatever there is")

    @t.case("counters never go back while workers and ops are killed")
    def _():
        def counters(families):
            return {(name, key): number for name, family in families.items()
                    if family.type != "gauge" and family.type != "info"
                    for key, number in family.samples.items()}
        last = counters(scrape())
        with t.Load(books.address, 4, ["/", "/books/" + isbn]) as load:
            for turn in range(4):
                load.wait_for(200)
                victims = (books.worker_pids() if turn % 2 == 0
                           else [books.ops_pid()])
                os.kill(victims[0], signal.SIGKILL)
                now = counters(scrape())
                for key, number in last.items():
                    t.check(now.get(key, -1) >= number,
                            f"{key}: {number} became {now.get(key)}")
                last = now
        events = scrape()
        t.equal(value(events, "books_events", event="worker_signal"), 2,
                "deaths of workers")

    @t.case("the queue of those who are not accepted yet is seen")
    def _():
        def queue():
            return value(scrape(), "books_listen_queue", "")
        if "books_listen_queue" not in scrape():
            t.skip("the kernel does not tell")
        time.sleep(1)  # the killed ones have successors
        pids = books.worker_pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            clients = [books.raw() for _ in range(20)]
            t.eventually(lambda: queue() >= 10, "a queue")
            for client in clients:
                client.close()
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        t.eventually(lambda: queue() == 0, "it is empty")
t.done()
