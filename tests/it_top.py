#!/usr/bin/env python3
"""Goal: booksctl top shows what booksd does in any size of terminal, follows
its keys, and gives the terminal back as it was however it ends; what foreign
texts hold never reaches the terminal as an order.
Method: the real program on a pty whose other end is a small terminal emulator,
asking a control socket of our own (every figure known) and a real booksd.
"""
import codecs
import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import termios

import booksd_test as t
from control_test import Control

USAGE, UNAVAILABLE = 64, 69
folder = tempfile.mkdtemp(prefix="booksd-it-top-", dir="/tmp")


class Screen:
    """What an xterm would show: enough of it for ncurses."""

    def __init__(self, columns, lines):
        self.resize(columns, lines)
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.rest = self.raw = ""
        self.last = " "

    def resize(self, columns, lines):
        self.columns, self.lines = columns, lines
        self.cells = [[" "] * columns for _ in range(lines)]
        self.x = self.y = 0
        self.region = (0, lines - 1)

    def feed(self, data):
        text = self.decoder.decode(data)
        self.raw += text
        self.rest += text
        while self.rest:
            found = re.match(r"\x1b\[([?>]?)([\d;]*)([@-~])|\x1b[()].|"
                             r"\x1b[=>78MDE]|[^\x1b]", self.rest)
            if not found:
                return
            self.rest = self.rest[found.end():]
            if found[3]:
                self.order(found[1], found[2], found[3])
            elif not found[0].startswith("\x1b"):
                self.letter(found[0])
            elif found[0] in ("\x1bM", "\x1bD", "\x1bE"):
                t.check(found[0] == "\x1bM", "an order that is not known")
                self.move_up()

    def move_up(self):
        if self.y != self.region[0]:
            self.y = max(self.y - 1, 0)
            return
        self.scroll(self.region[0], -1)

    def scroll(self, first, count):
        """The lines from first on go up, or down, within the region."""
        part = self.cells[first:self.region[1] + 1]
        new = [[" "] * self.columns for _ in range(min(abs(count), len(part)))]
        part = part[count:] + new if count > 0 else new + part[:count]
        self.cells[first:self.region[1] + 1] = part

    def letter(self, letter):
        if letter == "\r":
            self.x = 0
        elif letter == "\n":
            if self.y == self.region[1]:
                self.scroll(self.region[0], 1)
            else:
                self.y = min(self.y + 1, self.lines - 1)
        elif letter == "\b":
            self.x = max(self.x - 1, 0)
        elif letter >= " ":
            if self.x < self.columns and self.y < self.lines:
                self.cells[self.y][self.x] = letter
            self.x += 1
            self.last = letter

    def order(self, mark, arguments, letter):
        if mark or letter in "mhltc":
            return
        numbers = [int(n or 0) for n in arguments.split(";")]
        n = max(numbers[0], 1)
        row = self.cells[min(self.y, self.lines - 1)]
        if letter == "H":
            self.y = n - 1
            self.x = max(numbers[1], 1) - 1 if len(numbers) > 1 else 0
        elif letter in "ABCD":
            self.y += {"A": -n, "B": n}.get(letter, 0)
            self.x += {"C": n, "D": -n}.get(letter, 0)
        elif letter == "r":
            self.region = (n - 1, (numbers[1] if len(numbers) > 1 else
                                   self.lines) - 1)
            self.x = self.y = 0
        elif letter in "LM":
            self.scroll(self.y, n if letter == "M" else -n)
        elif letter == "G":
            self.x = n - 1
        elif letter == "d":
            self.y = n - 1
        elif letter == "K":
            span = range(self.x) if numbers[0] == 1 else range(
                self.x, self.columns)
            for x in span:
                row[x] = " "
        elif letter == "X":
            row[self.x:self.x + n] = [" "] * len(row[self.x:self.x + n])
        elif letter == "b":
            for _ in range(n):
                self.letter(self.last)
        elif letter == "P":
            row[self.x:] = row[self.x + n:] + [" "] * min(
                n, self.columns - self.x)
        elif letter == "@":
            row[self.x:] = ([" "] * n + row[self.x:])[:self.columns - self.x]
        elif letter == "J":
            for y in range(self.y + (numbers[0] == 0), self.lines):
                self.cells[y] = [" "] * self.columns
            if numbers[0] == 0:
                row[self.x:] = [" "] * (self.columns - self.x)
        else:
            raise AssertionError(f"order {letter} is not known here")

    def text(self):
        return "\n".join("".join(row).rstrip() for row in self.cells)


class Top:
    """booksctl top on a terminal of that size."""

    def __init__(self, path, columns=100, lines=24, **env):
        self.ours, self.theirs = pty.openpty()
        self.size(columns, lines)
        self.before = termios.tcgetattr(self.theirs)
        self.screen = Screen(columns, lines)
        self.process = subprocess.Popen(
            [t.BOOKSCTL, "top", "-S", path], stdin=self.theirs,
            stdout=self.theirs, stderr=self.theirs, start_new_session=True,
            preexec_fn=self.control_terminal,
            env=t.clean_environment({"TERM": "xterm-256color",
                                     "LC_ALL": "C.UTF-8", **env}))
        os.set_blocking(self.ours, False)

    @staticmethod
    def control_terminal():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        t.die_with_parent()()

    def size(self, columns, lines):
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ,
                    struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns, lines):
        self.text()
        self.screen.resize(columns, lines)
        self.size(columns, lines)

    def text(self):
        try:
            while data := os.read(self.ours, 65536):
                self.screen.feed(data)
        except OSError:
            pass
        return self.screen.text()

    def wait_for(self, pattern):
        return t.eventually(lambda: re.search(pattern, self.text()),
                            f"{pattern} is shown; there is:\n{self.text()}")

    def key(self, key):
        os.write(self.ours, key.encode())

    def end(self, code=0):
        t.eventually(lambda: self.text() and self.process.poll() is not None,
                     "it ends")
        t.equal(self.process.returncode, code, f"exit code {self.text()}")
        t.equal(termios.tcgetattr(self.theirs), self.before, "the terminal")
        if code == 0:
            for order in ("\x1b[?1049l", "\x1b[?25h"):
                t.check(order in self.screen.raw, f"{order!r} was not sent")
            t.check(self.screen.raw.rfind("\x1b[?1049l") >
                    self.screen.raw.rfind("\x1b[?1049h"), "the last word")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


STATUS = {
    "version": "9.8.7", "pid": 4242, "uptimeSeconds": 3725, "state": "ready",
    "backend": "epoll",
    "cpu": {"limitMillicpus": 1500, "throttledSeconds": 1.5},
    "workers": [
        {"slot": i, "pid": 100 + i, "state": "serving", "connections": 9 - i,
         "requestsPerSecond": [11.5, 33.5, 22.5][i], "busyPercent": 5.0 * i,
         "cpuPercent": 10, "doing": "request", "route": "/books"}
        for i in range(3)],
    "requests": {"perSecond": 67.5, "errorsPerSecond": 0},
    "latency": {"p50": 0.25, "p99": 4.75},
    "routes": [{"route": "/quick", "perSecond": 60, "p99": 1.5, "errors": 0},
               {"route": "/slow", "perSecond": 7, "p99": 99, "errors": 3}],
    "cache": {"enabled": True, "hitRatio": 0.875},
    "database": {"ready": True, "connections": 8, "busy": 3, "waiting": 1}}


class Fake(Control):
    """A control socket that answers with .status."""

    def __init__(self, status=None):
        self.status = status or STATUS
        super().__init__(folder, lambda _: (200, self.status))


if "left out" in t.booksctl("top").stderr:
    t.skip_all("booksctl was built without ncurses")


def order_of(top):
    return re.findall(r"^ +(\d) ", top.text(), re.MULTILINE)


@t.case("the head, the table of workers and the keys are shown")
def _():
    with Fake() as fake, Top(fake.path) as top:
        top.wait_for(r"booksd 9\.8\.7  ready  up 1 h 2 min  pid 4242  epoll")
        text = top.text()
        for word in ("67.5 req/s", "█", "p50 0.25 ms", "p99 4.75 ms",
                     "errors 0.0/s", "hits 87.5 %", "cpu 30 of 150 %",
                     "throttled 1.5 s", "database ready",
                     "3 of 8 busy, 1 wait", "q quit  r routes  sort:"):
            t.check(word in text, f"no {word!r} in\n{text}")
        t.check(re.search(r"SLOT +PID STATE +REQ/S", text), text)
        t.check(re.search(r"^ +1 +101 serving +33\.5", text, re.MULTILINE),
                text)
        top.wait_for("██")  # time passes
        top.key("q")
        top.end()


@t.case("keys sort the workers and switch to the routes and back")
def _():
    with Fake() as fake, Top(fake.path) as top:
        top.wait_for("serving")
        t.equal(order_of(top), ["0", "1", "2"], "by slot")
        for key, order in (("n", "120"), ("b", "210"), ("c", "012"),
                           ("s", "012")):
            top.key(key)
            t.eventually(lambda: order_of(top) == list(order), f"by {key}")
        top.key("r")
        top.wait_for(r"(?s)/quick +60\.0.*/slow +7\.0 .* 99\.00 +3 ")
        top.key("9")
        top.wait_for(r"(?s)/slow.*/quick")
        top.key("r")
        top.wait_for("r routes")
        top.key("\x1b")
        top.end()


@t.case("a narrow terminal shows less, a tiny one says what it takes")
def _():
    with Fake() as fake, Top(fake.path, 40, 20) as top:
        top.wait_for(r"SLOT STATE +REQ/S +BUSY% +CONN\n")
        t.check("hits 87.5 %" in top.text(), "the head flows")
        for columns, lines, pattern in ((10, 3, "needs 32x"), (1, 1, "n"),
                                        (32, 10, "SLOT STATE"),
                                        (200, 50, "DOING +ROUTE\n")):
            top.resize(columns, lines)
            top.wait_for(pattern)
        top.key("q")
        top.end()


@t.case("signals and Ctrl-C give the terminal back")
def _():
    with Fake() as fake:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with Top(fake.path) as top:
                top.wait_for("serving")
                top.process.send_signal(number)
                top.end()
        with Top(fake.path) as top:
            top.wait_for("serving")
            top.key("\x03")
            top.end()


@t.case("when booksd goes away that is said, and it comes back")
def _():
    fake = Fake()
    with Top(fake.path) as top:
        top.wait_for("serving")
        fake.close()
        top.wait_for("there is no such socket")
        t.check("serving" in top.text(), "the last figures stay")
        with Fake({**STATUS, "version": "9.8.8"}):
            top.wait_for(r"\Abooksd 9\.8\.8")
        top.key("q")
        top.end()


@t.case("colors, and none with NO_COLOR; no blocks without UTF-8")
def _():
    with Fake() as fake:
        for env, colored, blocks in (({}, True, True),
                                     ({"NO_COLOR": "1"}, False, True),
                                     ({"LC_ALL": "C"}, True, False)):
            with Top(fake.path, **env) as top:
                top.wait_for("serving")
                top.key("q")
                top.end()
                raw = top.screen.raw
                t.equal(re.search(r"\x1b\[[\d;]*3[0-7]m", raw) is not None,
                        colored, f"colors with {env}")
                t.equal("█" in raw, blocks, f"blocks with {env}")


@t.case("foreign texts and figures do no harm")
def _():
    evil = "\x1b]0;x\x07\x9b2J\u202e" + "x" * 500
    bad = {"version": evil, "state": evil, "backend": evil, "workers": [
        {"slot": 1e300, "pid": -1, "state": evil, "route": evil}, None, [], 7],
        "routes": evil, "requests": {"perSecond": -1e300}, "latency": 3}
    with Fake(bad) as fake, Top(fake.path) as top:
        top.wait_for(r"booksd \?\]0;x\?")
        for word in ("\x1b]", "\x9b", "\u202e"):
            t.check(word not in top.screen.raw, f"{word!r} went through")
        top.key("r")
        top.wait_for("r workers")
        top.key("q")
        top.end()


@t.case("without a terminal, or on an unknown one, it says so")
def _():
    t.equal(t.booksctl("top").returncode, USAGE, "no terminal")
    # newterm(3) leaks when it fails
    with Top("/none", TERM="no-such-terminal",
             ASAN_OPTIONS="detect_leaks=0") as top:
        top.end(UNAVAILABLE)
        t.check("TERM=no-such-terminal" in top.text(), top.text())


@t.case("it watches a real booksd")
def _():
    with t.Postgres() as pg, \
            t.Booksd({"database": pg.conninfo, "workers": 2},
                     wait="readyz") as server:
        with t.Load(server.address, 4, ["/"]), Top(server.control) as top:
            for pid in server.worker_pids():
                top.wait_for(rf" {pid} serving")
            top.wait_for(r"[1-9][\d.]* req/s")
            top.key("q")
            top.end()


shutil.rmtree(folder)
t.done()
