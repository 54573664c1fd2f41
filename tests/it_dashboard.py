#!/usr/bin/env python3
"""Goal: the dashboard at / shows the true figures of a running booksd, live, in
light and dark, with a keyboard, and on a phone without scrolling sideways;
keeps ten hours in bounded memory; comes back when ops is replaced; loads
nothing from elsewhere and breaks no rule of its content security policy.
Method: a real booksd under load, whose page a headless Chromium opens
(tests/browser/dashboard.js) and reports on; skipped without npm or Chromium.
The pictures it takes stay in the build folder (var-test/dashboard) to be looked
at.
"""
import fcntl
import json
import os
import re
import shutil
import subprocess

import booksd_test as t

SOURCE = os.path.join(t.SRCDIR, "tests", "browser")
PLACE = os.path.join(t.BUILDDIR, "var-test", "browser")
PICTURES = os.path.join(t.BUILDDIR, "var-test", "dashboard")


def install():
    """Why there is no browser to be driven, or None."""
    npm, program = shutil.which("npm"), shutil.which("chromium")
    if npm is None or shutil.which("node") is None:
        return "npm is not installed"
    if program is None:
        return "chromium is not installed"
    os.makedirs(PLACE, exist_ok=True)
    with open(os.path.join(PLACE, "lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = open(os.path.join(SOURCE, "package-lock.json"),
                      encoding="utf-8").read()
        stamp = os.path.join(PLACE, "installed")
        if os.path.exists(stamp) and open(
                stamp, encoding="utf-8").read() == wanted:
            return None
        for name in (".npmrc", "package.json", "package-lock.json"):
            shutil.copy(os.path.join(SOURCE, name), PLACE)
        done = subprocess.run([npm, "ci", "--omit=dev", "--ignore-scripts"],
                              cwd=PLACE, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, timeout=100,
                              stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            t.diag(done.stdout.decode(errors="replace")[-1000:])
            return "npm could not install playwright-core"
        with open(stamp, "w", encoding="utf-8") as file:
            file.write(wanted)
    return None


def drive(url, ops_pid):
    """What the browser found."""
    os.makedirs(PICTURES, exist_ok=True)
    # Node looks for packages beside the script.
    script = shutil.copy(os.path.join(SOURCE, "dashboard.js"), PLACE)
    done = subprocess.run(
        ["node", script, url, str(ops_pid), PICTURES,
         shutil.which("chromium")], stdin=subprocess.DEVNULL, timeout=100,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    t.equal(done.returncode, 0, "the browser's exit code: " +
            done.stderr.decode(errors="replace")[-3000:])
    return json.loads(done.stdout)


def brightness(color):
    return sum(int(n) for n in re.findall(r"\d+", color)[:3])


with t.Postgres() as pg, t.Booksd(
        {"database": pg.conninfo, "workers": 2, "admin_listen": "127.0.0.1:0"},
        wait="readyz") as server:
    BASE = server.admin("GET", "/")

    @t.case("the page is small, and may do nothing but what it needs")
    def _():
        t.equal(BASE.status, 200, "status")
        t.equal(BASE.header("content-type"), "text/html; charset=utf-8", "type")
        t.check(len(BASE.body) <= 60 * 1024, f"{len(BASE.body)} bytes")
        policy = BASE.header("content-security-policy")
        nonce = re.search(r"script-src 'nonce-(\w{32})'", policy)
        t.check(nonce and "default-src 'none'" in policy, policy)
        t.check("unsafe" not in policy, policy)
        text = BASE.text()
        t.equal(text.count(f'nonce="{nonce[1]}"'), 2, "places of the nonce")
        t.check("@NONCE@" not in text, "a nonce is missing")
        t.check(nonce[1] not in server.admin("GET", "/").text(),
                "a nonce is used twice")
        t.check(not re.search(r'(src|href)="(?!#|data:)', text),
                "it loads something")
        for sign in ("innerHTML", "eval(", " style=", "onclick="):
            t.check(sign not in text, f"{sign} in the page")

    why = install()
    if why is not None:
        @t.case("the page in a browser")
        def _():
            t.skip(why)
        t.done()

    with t.Load(server.address, 8, ["/", "/books/9780000000001"]) as load:
        load.wait_for(100)
        started = server.errors("started")[0]
        url = f"http://{started['admin_listen'].split()[0]}/"
        pids = server.worker_pids()
        facts = {}

        @t.case("a browser opens the page and nothing goes wrong")
        def _():
            facts.update(drive(url, server.ops_pid()))
            t.equal(facts["problems"], [], "what the console says")
            t.equal(facts["foreign"], [], "requests to others")

    if not facts:
        t.done()

    @t.case("the figures are booksd's")
    def _():
        cards = facts["cards"]
        rps = float(cards["requests a second"].replace(",", ""))
        t.check(rps > 0, cards)
        t.equal(cards["workers serving"], "2 of 2", "workers")
        t.equal(cards["connections"], "8", "connections")
        t.equal(cards["database"], "ready", "database")
        t.check(re.search(r"\d ms", cards["latency p99"]), cards)
        t.equal(facts["version"], started["version"], "version")
        t.equal(sorted(int(row[1]) for row in facts["workers"]), pids, "pids")
        for row in facts["workers"]:
            t.equal(row[2], "serving", row)
            t.check(float(row[4].replace(",", "")) > 0, row)
        t.check("/books/{isbn}" in facts["routes"], facts["routes"])
        t.check(re.search(r"2xx\s+[1-9]", facts["answers"]), facts["answers"])
        t.check("worker retired" in facts["events"], facts["events"])
        t.check(f"pid {server.pid}," in facts["deploy"], facts["deploy"])
        for name, pixels in facts["painted"].items():
            t.check(pixels > 500, f"{name} has {pixels} pixels")

    @t.case("light and dark, by the system or by choice, which is kept")
    def _():
        for name, dark in (("light", False), ("dark", True),
                           ("chosen", False), ("chosenDark", True),
                           ("kept", True)):
            t.equal(brightness(facts[name]) < 200, dark,
                    f"{name}: {facts[name]}")

    @t.case("a keyboard reaches everything and moves through time")
    def _():
        t.equal(facts["focused"][:6],
                ["hide", "600", "6000", "36000", "theme", "rps"], "order")
        t.check(re.match(r"Requests a second, \d", facts["label"]),
                facts["label"])

    @t.case("ten hours are kept in bounded memory, and no peak is lost")
    def _():
        fed = facts["fed"]
        t.check(fed["most"] <= 1800, f"{fed['most']} points")
        t.check(fed["kept"] > 1000, f"{fed['kept']} points")
        t.check(9.9 < fed["hours"] <= 10.1, f"{fed['hours']} hours")
        t.equal(fed["peak"], 777, "the highest latency")
        # 10 in each second, and 3 more in each tenth minute
        t.check(abs(fed["heat"] / (36000 * 10.3) - 1) < 0.01,
                f"counted {fed['heat']}")

    @t.case("a phone shows it without scrolling sideways")
    def _():
        for name in ("phone", "small"):
            t.check(facts[name][0] <= facts[name][1],
                    f"{name}: {facts[name]}")

    @t.case("points that make no sense are passed over")
    def _():
        t.check(facts["hostile"] <= 3, facts["hostile"])

    @t.case("when ops is replaced the page goes on, with the history it has")
    def _():
        t.check(facts["again"] > 0, facts["again"])

t.done()
