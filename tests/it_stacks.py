#!/usr/bin/env python3
"""Goal: /profile answers with folded stacks of what busy workers do, by the
names of their functions, one at a time, and holds up nobody.
Method: real booksd under load without a database; the text is parsed and looked
through for functions that such a load has to pass.
"""
import re
import signal
import time

import booksd_test as t

LINE = re.compile(r"booksd((?:;[^; \n]+)*) ([1-9][0-9]*)\Z")


def stacks(text):
    """[(frames, count)], strictly."""
    t.check(text == "" or text.endswith("\n"), "the last line ends")
    found = []
    for line in text.split("\n")[:-1]:
        parts = LINE.match(line)
        t.check(parts, f"not a folded stack: {line!r}")
        found.append((parts[1].split(";")[1:], int(parts[2])))
    return found


def begin(books, target):
    client = t.Raw(books.control, seconds=30)
    client.send(t.make_request("GET", target))
    return client


for backend in t.backends():
    with t.Booksd({"database": "host=127.0.0.1 port=1", "workers": 2,
                   "migrate_on_start": "off", "drain_delay": "0s",
                   "io_backend": backend, "access_log": "off"}) as books:
        @t.case(f"{backend}: the functions of a load have their names")
        def _():
            found = []

            def enough():
                # A busy machine may leave the workers little time.
                with begin(books, "/profile?seconds=1") as client:
                    answer = client.read_response()
                t.equal(answer.status, 200, "status")
                t.equal(answer.header("content-type"),
                        "text/plain; charset=utf-8", "type")
                found.extend(stacks(answer.text()))
                return sum(count for _, count in found) >= 10
            with t.Load(books.address, 16, ["/", "/livez"]) as load:
                load.wait_for(100)
                t.eventually(enough, "samples of the load", 60)
            frames = {frame for one, _ in found for frame in one}
            if any(frame.startswith("[booksd+") for frame in frames):
                t.skip("the program has no symbols")
            t.check(any(frame.startswith(("worker_", "api_", "io_"))
                        for frame in frames), frames)

with t.Booksd({"database": "host=127.0.0.1 port=1", "workers": 1,
               "migrate_on_start": "off", "drain_delay": "0s"}) as books:
    def control(target):
        with t.Raw(books.control) as client:
            return client.request("GET", target)

    @t.case("one profile is taken at a time, and others are answered")
    def _():
        client = begin(books, "/profile?seconds=2")
        t.eventually(lambda: control("/profile?seconds=1").status == 409,
                     "the second is refused")
        t.equal(control("/livez").status, 200, "others")
        t.equal(client.read_response().status, 200, "the first")
        client.close()
        again = begin(books, "/profile?seconds=1")
        t.equal(again.read_response().status, 200, "another one")
        again.close()

    @t.case("what is no number of seconds is refused")
    def _():
        for wrong in ("0", "61", "-1", "", "x", "1.5", "1&seconds=2"):
            t.equal(control("/profile?seconds=" + wrong).status, 400, wrong)
        t.equal(control("/profile?time=1").status, 400, "another name")

    @t.case("a client that left gives its place up")
    def _():
        client = begin(books, "/profile?seconds=1")
        time.sleep(0.1)
        client.close()

        def taken():
            with t.Raw(books.control, seconds=10) as one:
                return one.request("GET", "/profile?seconds=1").status == 200
        t.eventually(taken, "there is room again")

    @t.case("a profile does not keep booksd")
    def _():
        client = begin(books, "/profile?seconds=60")
        t.eventually(lambda: control("/profile?seconds=1").status == 409,
                     "it is being taken")
        books.send_signal(signal.SIGTERM)
        t.equal(books.wait(20), 0, "exit code")
        client.read_eof()
        client.close()
t.done()
