#!/usr/bin/env python3
"""Goal: booksctl log shows the log lines that were asked for and no others,
follows a log through its rotation, and lets no byte of a client's reach the
terminal as an order; booksctl completion completes in a real shell what
booksctl help lists.
Method: the log of a real booksd, moved away and reopened while booksctl
follows it; made up lines for what a client or another program could write;
the completion functions are called in bash, zsh and fish where they are.
"""
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import tempfile

import booksd_test as t

USAGE, NOINPUT = 64, 66
folder = tempfile.mkdtemp(prefix="booksd-it-log-", dir="/tmp")


def log(*args, stdin="", code=0, env=None):
    done = t.booksctl("log", *args, stdin=stdin, env=env)
    t.equal(done.returncode, code, f"exit code of {args} ({done.stderr})")
    return done.stdout


def request(target="/books/1", status=200, ms=1.5, worker=0, **more):
    return json.dumps({
        "time": "2026-01-31T23:59:59.123456Z", "level": "info",
        "message": "request", "request_id": "1", "trace_root": "",
        "method": "GET", "route": "/books/{isbn}", "target": target,
        "status": status, "bytes": 1200, "duration_us": int(ms * 1000),
        "database_us": 0, "worker": worker, **more}) + "\n"


def event(name="worker_died", level="warn", **more):
    return json.dumps({
        "time": "2026-01-31T23:59:59.500000Z", "level": level, "event": name,
        "message": "something happened", "process": "master", **more}) + "\n"


# ---- filters

LINES = (request("/books/1", 200, 1.5, 0) + request("/books/2?x", 404, 9, 1) +
         request("/books", 503, 250, 1) + request("/books", 500, 20, 2) +
         event("worker_died", "warn", pid=77) + event("started", "info") +
         event("broken", "error", worker=1) + "not JSON\n" + "[1]\n")


def targets(text):
    return re.findall(r"GET (\S+)", text)


@t.case("without a filter every line is shown, also those of others")
def _():
    lines = log(stdin=LINES).splitlines()
    t.equal(len(lines), 9, "lines")
    t.equal(lines[0], "2026-01-31 23:59:59.123 w0     200      1.500 ms  "
            "GET /books/1  1.2 KiB", "a request")
    t.equal(lines[4], "2026-01-31 23:59:59.500 master warn worker_died "
            "something happened pid=77", "an event")
    t.equal(lines[7:], ["not JSON", "[1]"], "what is not booksd's")


for args, count, words in (
        (("--status=5xx",), 2, ["/books", "/books"]),
        (("--status=404",), 1, ["/books/2?x"]),
        (("--status=4xx,503",), 2, ["/books/2?x", "/books"]),
        (("--path=/books/",), 2, ["/books/1", "/books/2?x"]),
        (("--path=/books/?",), 2, ["/books/1", "/books/2?x"]),
        (("--path=*s",), 2, ["/books", "/books"]),
        (("--slow=9",), 3, ["/books/2?x", "/books", "/books"]),
        (("--slow=249.9",), 1, ["/books"]),
        (("--worker=1",), 3, ["/books/2?x", "/books"]),
        (("--worker", "1", "--status", "5xx"), 1, ["/books"]),
        (("--level=warn",), 2, []),
        (("--level=error",), 1, []),
        (("--level=debug",), 7, None),
        (("--event=worker_*",), 1, [])):
    @t.case(f"log {' '.join(args)} lets {count} lines through")
    def _():
        text = log(*args, stdin=LINES)
        t.equal(len(text.splitlines()), count, text)
        if words is not None:
            t.equal(targets(text), words, "targets")


@t.case("filters that make no sense are told")
def _():
    for args in (("--status=6xx",), ("--status=50",), ("--status=5xx,",),
                 ("--level=loud",), ("--slow=fast",), ("--slow=-1",),
                 ("--worker=1.5",), ("--worker=-1",), ("--nothing",),
                 ("a", "b")):
        log(*args, code=USAGE)
    log(os.path.join(folder, "none"), code=NOINPUT)


@t.case("bytes of clients are never orders to the terminal")
def _():
    text = log(stdin=request("/\x1b]0;x\x07\u202e", method="\x9bG") +
               event("x", bad="\x1b[2J") + "raw \x1b[31m \u009b\n")
    t.check(not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text),
            f"not clean: {text!r}")
    t.check("\\u001b]0;x" in text and "\\u202e" in text, text)


@t.case("a line that is far too long is passed over, the next one is read")
def _():
    text = log("--status=200", stdin='{"a":"' + "x" * 200000 + '"}\n' +
               request("/next") + request("/last").rstrip("\n"))
    t.equal(targets(text), ["/next", "/last"], "targets")


def on_terminal(env):
    """What log writes to a terminal."""
    path = os.path.join(folder, "colors")
    with open(path, "w", encoding="utf-8") as file:
        file.write(request(status=503))
    ours, theirs = pty.openpty()
    with subprocess.Popen([t.BOOKSCTL, "log", path], stdout=theirs,
                          stdin=subprocess.DEVNULL,
                          env=t.clean_environment(env)) as process:
        os.close(theirs)
        text = b""
        try:
            while part := os.read(ours, 4096):
                text += part
        except OSError:
            pass
        t.equal(process.wait(10), 0, "exit code")
    os.close(ours)
    return text


@t.case("colors are for terminals, and NO_COLOR turns them off")
def _():
    t.check(b"\x1b[31m503\x1b[0m" in on_terminal(
        {"TERM": "xterm", "NO_COLOR": ""}), "no red")
    for env in ({"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb"}):
        t.check(b"\x1b" not in on_terminal(env), f"colors with {env}")


# ---- a real log

class Follower:
    """booksctl log -f in the background."""

    def __init__(self, *args):
        self.path = os.path.join(folder, "followed")
        with open(self.path, "wb") as out:
            self.process = subprocess.Popen(
                [t.BOOKSCTL, "log", "-f", *args], stdout=out,
                stdin=subprocess.DEVNULL, env=t.clean_environment(),
                preexec_fn=t.die_with_parent())

    def targets(self):
        with open(self.path, encoding="utf-8") as file:
            return targets(file.read())

    def wait_for(self, target):
        t.eventually(lambda: target in self.targets(), f"{target} is shown")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        t.equal(self.process.wait(10), -signal.SIGINT, "how it ended")


def follow_rotation():
    access = os.path.join(folder, "access.log")
    with t.Booksd({"database": "host=127.0.0.1 port=1", "workers": 1,
                   "migrate_on_start": "off", "access_log": access}) as server:
        for i in range(20):
            server.request("GET", f"/before{i}")
        t.eventually(lambda: os.path.getsize(access) > 0 and
                     "/before19" in log(access), "the log is written")
        t.check("/before0" in targets(log("--status=404", access)), "first")
        with Follower("--status=404", access) as follower:
            follower.wait_for("/before19")
            t.check(len(follower.targets()) <= 10, "it began too early")
            for turn in range(3):
                server.request("GET", f"/old{turn}")
                os.rename(access, access + ".1")
                # still written to the old file
                server.request("GET", f"/late{turn}")
                follower.wait_for(f"/late{turn}")
                server.send_signal(signal.SIGUSR1)
                t.eventually(lambda: os.path.exists(access), "a new log")
                server.request("GET", f"/new{turn}")
                follower.wait_for(f"/new{turn}")
            # cut in place: seen as long as the file is shorter than it was
            for i in range(20):
                server.request("GET", f"/long{i}")
            follower.wait_for("/long19")
            os.truncate(access, 0)
            server.request("GET", "/cut")
            follower.wait_for("/cut")
            seen = [each for each in follower.targets()
                    if not each.startswith("/before")]
        t.equal(len(seen), len(set(seen)), f"lines are shown once: {seen}")


t.case("log -f follows the log of a running booksd through rotations")(
    follow_rotation)


# ---- completion

def commands():
    text = t.booksctl("help").stdout
    return sorted(re.findall(r"^  ([a-z]+) ", text, re.MULTILINE))


def bash(line):
    """What bash offers for the last word of the line."""
    words = line.split(" ")
    script = ('. /dev/stdin; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
              '_booksctl; printf "%s\\n" "${COMPREPLY[@]}"')
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", *words], cwd=folder,
        input=t.booksctl("completion", "bash").stdout, encoding="utf-8",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
    t.equal(done.stderr, "", "what bash complains of")
    return sorted(done.stdout.split())


@t.case("bash completes commands, their words, options and files")
def _():
    done = subprocess.run(["bash", "-n"], encoding="utf-8",
                          input=t.booksctl("completion", "bash").stdout)
    t.equal(done.returncode, 0, "bash -n")
    t.check(len(commands()) >= 8, "commands were found")
    t.equal(bash("booksctl "), commands(), "all commands")
    t.equal(bash("booksctl ca"), ["cache"], "a command")
    t.equal(bash("booksctl -q -d mig mig"), ["migrate"], "behind options")
    t.equal(bash("booksctl cache "), ["flush", "keys", "status"], "words")
    t.equal(bash("booksctl cache --"), ["--json"], "options")
    t.equal(bash("booksctl -"), ["-S", "-V", "-d", "-h", "-q"], "global")
    t.equal(bash("booksctl import --a"), ["--allow-rejects="], "a value")
    t.equal(bash("booksctl log access"), ["access.log", "access.log.1"],
            "files")
    t.equal(bash("booksctl cache -S access"), ["access.log", "access.log.1"],
            "a path")
    t.equal(bash("booksctl completion "), ["bash", "fish", "zsh"], "shells")
    for each in ("tcsh", ""):
        t.equal(t.booksctl("completion", each).returncode, USAGE, "a shell")


@t.case("every option that help shows is known, and none is missing there")
def _():
    for name in commands():
        options = bash(f"booksctl {name} -")
        for option in options:
            if not option.startswith("--"):
                continue
            done = t.booksctl(name, option + ("1" if option[-1] == "=" else ""),
                              "--surely-not")
            t.check("--surely-not" in done.stderr or "takes no argument" in
                    done.stderr or "need" in done.stderr,
                    f"{name} {option}: {done.stderr}")


@t.case("zsh takes the script")
def _():
    if shutil.which("zsh") is None:
        t.skip("zsh is not installed")
    script = t.booksctl("completion", "zsh").stdout
    t.equal(subprocess.run(["zsh", "-n"], input=script,
                           encoding="utf-8").returncode, 0, "zsh -n")
    path = os.path.join(folder, "_booksctl")
    with open(path, "w", encoding="utf-8") as file:
        file.write(script)
    # compadd prints what it is given instead of offering it
    done = subprocess.run(
        ["zsh", "-fc", 'compdef() { : }; source $1; '
         'compadd() { shift ${@[(i)--]}; print -l -- "$@" }; _files() { : }; '
         'words=(booksctl cache ""); CURRENT=3; _booksctl', "zsh", path],
        encoding="utf-8", stdout=subprocess.PIPE, timeout=20)
    t.equal(sorted(done.stdout.split()), ["flush", "keys", "status"], "words")


@t.case("fish takes the script and completes")
def _():
    if shutil.which("fish") is None:
        t.skip("fish is not installed")
    path = os.path.join(folder, "booksctl.fish")
    with open(path, "w", encoding="utf-8") as file:
        file.write(t.booksctl("completion", "fish").stdout)
    done = subprocess.run(
        ["fish", "--no-config", "-c",
         f"source {path}; complete -C 'booksctl '"],
        encoding="utf-8", stdout=subprocess.PIPE, timeout=20)
    t.equal(sorted(line.split("\t")[0] for line in done.stdout.splitlines()
                   if line), commands(), "commands")


shutil.rmtree(folder)
t.done()
