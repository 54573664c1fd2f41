#!/usr/bin/env python3
"""Goal: the lines for CloudWatch keep to the embedded metric format, and the
requests in them are those that clients made, to the last one.
Method: real booksd without a database; each line is judged by the rules that
AWS publishes for the format, and compared with what was asked.
"""
import contextlib
import json
import os
import re
import time

import booksd_test as t
from ecs_test import endpoint

UNITS = {"Seconds", "Milliseconds", "Count", "Percent", "None", "Bytes"}
SETTINGS = {"database": "host=127.0.0.1 port=1", "migrate_on_start": "off",
            "workers": 2, "drain_delay": "0s", "metrics_emf": "2s"}
TASK = {"Cluster": "arn:aws:ecs:eu-west-1:111122223333:cluster/shop",
        "Family": "books", "Revision": "7", "ServiceName": "catalogue",
        "TaskARN": "arn:aws:ecs:eu-west-1:111122223333:task/shop/0af3",
        "Limits": {"CPU": 0.5, "Memory": 512}}


def lines(books):
    with open(books.stdout, encoding="utf-8") as file:
        return [json.loads(line) for line in file
                if line.startswith('{"_aws"')]


def judge(line):
    """What the format's specification demands; the metrics' names."""
    head = line["_aws"]
    t.equal(sorted(head), ["CloudWatchMetrics", "Timestamp"], "_aws")
    t.check(isinstance(head["Timestamp"], int) and
            abs(head["Timestamp"] / 1000 - time.time()) < 60, "Timestamp")
    t.equal(len(head["CloudWatchMetrics"]), 1, "directives")
    directive = head["CloudWatchMetrics"][0]
    t.equal(sorted(directive), ["Dimensions", "Metrics", "Namespace"],
            "directive")
    t.check(re.fullmatch(r"[0-9A-Za-z._/#:-]{1,255}",
                         directive["Namespace"]), "Namespace")
    for dimensions in directive["Dimensions"]:
        t.check(len(dimensions) <= 30, "dimensions")
        for name in dimensions:
            t.check(isinstance(line[name], str) and
                    1 <= len(line[name]) <= 1024, f"dimension {name}")
    names = [metric["Name"] for metric in directive["Metrics"]]
    t.check(0 < len(names) <= 100, "metrics")
    t.equal(len(set(names)), len(names), "names stand once")
    for metric in directive["Metrics"]:
        t.check(metric["Unit"] in UNITS, metric)
        value = line[metric["Name"]]
        t.check(isinstance(value, (int, float)) and 0 <= value < 2 ** 360,
                f"{metric}: {value}")
    return set(names)


with t.Booksd(SETTINGS) as books:
    @t.case("each line keeps to the format, and their requests are all")
    def _():
        with books.raw() as client:
            for _ in range(50):
                client.request("GET", "/")
            for _ in range(4):
                client.request("GET", "/nothing")
            t.equal(client.request("GET", "/books/5").status, 503, "away")
            t.eventually(lambda: len(lines(books)) >= 2, "two lines", 20)
            for _ in range(7):
                client.request("GET", "/")
        asked = sum(1 for line in books.access() if "method" in line)
        t.equal(books.stop(), 0, "exit code")
        found, names = lines(books), set()
        t.check(len(found) >= 3, "a last line")
        for line in found:
            names |= judge(line)
            t.equal(line["Service"], "booksd", "service")
            t.equal(line["_aws"]["CloudWatchMetrics"][0]["Dimensions"],
                    [["Service"]], "dimensions")
        asked = sum(1 for line in books.access() if "method" in line)
        t.check(asked >= 62, f"{asked} access lines")
        t.equal(sum(line["Requests"] for line in found), asked, "requests")
        t.equal(sum(line["Errors4xx"] for line in found), 4, "4xx")
        t.equal(sum(line["Errors5xx"] for line in found), 1, "5xx")
        first = next(line for line in found if line["Requests"] > 40)
        t.check(0 < first["LatencyP50"] <= first["LatencyP99"], first)
        t.check(0 <= first["BusyRatio"] <= 100, first)
        t.equal(first["Workers"], 2, "workers")
        unknown = names - t.documented("CloudWatch")
        t.equal(sorted(unknown), [], "not in books-counters(7)")
        missing = t.documented("CloudWatch") - names - {
            "CacheHitRatio", "DatabaseP99", "ListenQueue"}
        t.equal(sorted(missing), [], "in books-counters(7) only")

with endpoint(body=json.dumps(TASK)) as (task, _), \
        t.Booksd(SETTINGS, env=task) as books, \
        t.case("in a task of ECS the dimensions are cluster and service"):
    line = t.eventually(lambda: lines(books), "a line", 20)[0]
    judge(line)
    t.equal((line["Cluster"], line["Service"], line["TaskId"]),
            ("shop", "catalogue", "0af3"), "names")
    t.equal(line["_aws"]["CloudWatchMetrics"][0]["Dimensions"],
            [["Cluster", "Service"]], "dimensions")

with t.case("a full pipe costs lines and nothing else"):
    read_end, write_end = os.pipe()
    with t.Booksd({**SETTINGS, "metrics_emf": "1s", "access_log": "off"},
                  stdout=write_end) as books:
        os.set_blocking(write_end, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(write_end, b"x" * 65536)
        os.set_blocking(write_end, True)
        t.eventually(lambda: books.errors("metrics_dropped"), "dropped", 20)
        t.equal(books.request("GET", "/livez").status, 200, "served")
        with t.Raw(books.control) as client:
            t.equal(client.request("GET", "/livez").status, 200, "ops")
    os.close(read_end)
    os.close(write_end)
t.done()
