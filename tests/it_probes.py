#!/usr/bin/env python3
"""Goal: the probes of the manual page are in the program, with the arguments
that it names, and fire once for each thing that happens.
Method: their notes are read from the file; then bpftrace, where the kernel lets
it, prints them while a worker answers requests.
"""
import os
import re
import shutil
import subprocess

import booksd_test as t

ARGUMENTS = {"request__start": 4, "request__done": 4, "cache__hit": 3,
             "cache__miss": 2, "query__start": 2, "query__done": 3}

with open(os.path.join(t.BUILDDIR, "config.h"), encoding="ascii") as file:
    if not re.search("^#define HAVE_SYS_SDT_H 1", file.read(), re.M):
        t.skip_all("booksd is built without <sys/sdt.h>")


def notes():
    """name -> [number of arguments, ...], one of each place of the probe."""
    done = subprocess.run(["readelf", "-nW", t.BOOKSD], timeout=60, check=True,
                          stdout=subprocess.PIPE, text=True)
    found = {}
    for note in done.stdout.split("Provider: booksd")[1:]:
        name = re.search(r"Name: (\S+)", note)[1]
        arguments = re.search(r"Arguments: ?(.*)", note)[1].split()
        semaphore = re.search(r"Semaphore: (0x[0-9a-f]+)", note)[1]
        t.check(int(semaphore, 16) != 0, f"{name} has no word to count in")
        found.setdefault(name, []).append(len(arguments))
    return found


@t.case("each probe is there with its arguments")
def _():
    found = notes()
    t.equal(set(found), set(ARGUMENTS), "probes")
    for name, counts in found.items():
        t.equal(set(counts), {ARGUMENTS[name]}, f"arguments of {name}")


@t.case("each probe fires, with what it says")
def _():
    if shutil.which("bpftrace") is None or os.getuid() != 0:
        t.skip("bpftrace is not installed, or we are not root")
    with t.Postgres() as pg, t.Booksd({"workers": 1, "database": pg.conninfo},
                                      wait="readyz") as server:
        pid = server.worker_pids()[0]
        script = (
            "usdt:{0}:booksd:request__start {{ printf(\"start %s %s %s\\n\","
            " str(arg0), str(arg1, arg2), str(arg3)); }}"
            "usdt:{0}:booksd:request__done {{ printf(\"done %s %s %d\\n\","
            " str(arg0), str(arg1), arg2); }}"
            "usdt:{0}:booksd:cache__miss {{ printf(\"miss %s\\n\","
            " str(arg0, arg1)); }}"
            "usdt:{0}:booksd:cache__hit {{ printf(\"hit %s\\n\","
            " str(arg0, arg1)); }}"
            "usdt:{0}:booksd:query__start {{ printf(\"query\\n\"); }}"
            "usdt:{0}:booksd:query__done {{ printf(\"answer %d\\n\","
            " arg1); }}").format(t.BOOKSD)
        out = os.path.join(server.folder, "trace")
        with open(out, "wb") as file:
            trace = subprocess.Popen(
                ["bpftrace", "-B", "line", "-p", str(pid), "-e", script],
                stdout=file, stderr=subprocess.STDOUT,
                preexec_fn=t.die_with_parent())

        def text():
            with open(out, encoding="utf-8") as file:
                return file.read()
        try:
            t.eventually(lambda: "Attaching" in text() or
                         trace.poll() is not None, "bpftrace begins", 30)
            client = server.raw()

            def asked():
                if trace.poll() is not None:
                    t.skip(f"bpftrace cannot work here: {text()[:200]!r}")
                client.request("GET", "/books/978")
                return "done GET /books/{isbn} 404" in text()
            t.eventually(asked, "a request is traced", 30, 0.2)
            client.request("GET", "/books/979")
            client.request("GET", "/books/979")
            t.eventually(lambda: "hit b979" in text(), "the hit is traced")
            for line in ("start GET /books/979 /books/{isbn}", "miss b979",
                         "query", "answer 0"):
                t.check(line in text().splitlines(), f"no {line!r}")
        finally:
            trace.terminate()
            trace.wait(20)
t.done()
