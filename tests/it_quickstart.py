#!/usr/bin/env python3
"""Goal: ./quickstart brings up a catalogue that answers, goes on where it was,
starts over when told to, and leaves nothing running.
Method: the script in a folder of its own with the programs of this build in
place of a build; only compiling and installing packages are left out.
"""
import os
import pty
import re
import shutil
import signal
import subprocess
import tempfile

import booksd_test as t

THE_TEXBOOK = "9780201134476"
FILES = ("quickstart", "tests/packages.sh", "data/catalogue.csv")


class Quickstart:
    """A copy of the script with what it needs, and one run of it."""

    def __init__(self, folder):
        self.folder = folder
        self.process = None
        for name in FILES:
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            shutil.copy(os.path.join(t.SRCDIR, name), path)
        os.makedirs(os.path.join(folder, "build"))
        for program in (t.BOOKSD, t.BOOKSCTL):
            os.symlink(program, os.path.join(folder, "build",
                                             os.path.basename(program)))
        self.write("build/Makefile", "booksd booksctl:\n")
        self.write("configure.ac", "")
        self.write("configure", "")
        os.chmod(os.path.join(folder, "configure"), 0o755)

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w",
                  encoding="utf-8") as file:
            file.write(text)

    def read(self, name="said"):
        with open(os.path.join(self.folder, name), encoding="utf-8",
                  errors="backslashreplace") as file:
            return file.read()

    def start(self, *args, **popen):
        self.address = ("127.0.0.1", t.free_port())
        env = t.clean_environment({"PORT": str(self.address[1])})
        with open(os.path.join(self.folder, "said"), "w",
                  encoding="utf-8") as said:
            self.process = subprocess.Popen(
                [os.path.join(self.folder, "quickstart"), *args], env=env,
                stdin=subprocess.DEVNULL, start_new_session=True,
                **{"stdout": said, "stderr": said, **popen})

    def wait_up(self):
        def up():
            t.check(self.process.poll() is None,
                    f"it ended: {self.read()[-2000:]}")
            return "Ctrl-C stops it" in self.read()
        t.eventually(up, "it answers", 60)

    def request(self, method, target, body=None):
        with t.Raw(self.address) as client:
            return client.request(method, target, body)

    def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)
        return self.process.wait(40)

    def leftovers(self):
        """Processes that have to do with this folder."""
        return {pid: title for pid in t.processes()
                if self.folder in (title := t.process_title(pid))}

    def nothing_left(self):
        """pg_ctl waits until postmaster.pid is gone, a moment before the
        process itself is."""
        t.eventually(lambda: not self.leftovers(), "all of it ended")

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(40)


def place(quickstart):
    """Where the data are: var/ or what the script said."""
    for line in quickstart.read().splitlines():
        if "the database is in " in line:
            return line.split("the database is in ")[1]
    return os.path.join(quickstart.folder, "var")


t.Postgres(start=False).close()  # skips the file when there is none
folder = tempfile.mkdtemp(prefix="booksd-it-quickstart-", dir="/tmp")
os.chmod(folder, 0o755)
quickstart = Quickstart(folder)
try:
    with t.case("the first run loads the books and answers"):
        quickstart.start()
        quickstart.wait_up()
        said = quickstart.read()
        t.check("1012 loaded, 0 skipped (already there), 2 rejected" in said,
                said)
        t.equal(said.count("  curl -s"), 3, "curl lines")
        asks = next(line.split() for line in said.splitlines()
                    if line.startswith("  build/booksctl cache"))
        done = subprocess.run(asks, cwd=folder, env=t.clean_environment(),
                              stdout=subprocess.PIPE, timeout=20,
                              stderr=subprocess.STDOUT, encoding="utf-8",
                              check=False)
        t.equal(done.returncode, 0, done.stdout)
        t.check(re.search("hits +[0-9]", done.stdout), done.stdout)
        book = quickstart.request("GET", f"/books/{THE_TEXBOOK}")
        t.equal((book.status, book.json()["title"]), (200, "The TeXbook"),
                "a book")
        t.equal(quickstart.request("POST", "/books", {
            "isbn": "1234567890", "title": "Mine", "author": "Me",
            "price": 9.9}).status, 201, "a new book")

    with t.case("a second one beside it says that the port is busy"):
        done = subprocess.run(
            [os.path.join(folder, "quickstart")], stdin=subprocess.DEVNULL,
            env=t.clean_environment({"PORT": str(quickstart.address[1])}),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
            encoding="utf-8", check=False)
        t.equal(done.returncode, 1, "exit code")
        t.check("is busy" in done.stdout and "PORT=" in done.stdout,
                done.stdout)

    with t.case("on another port it says that it runs already"):
        done = subprocess.run(
            [os.path.join(folder, "quickstart")], stdin=subprocess.DEVNULL,
            env=t.clean_environment({"PORT": str(t.free_port())}),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
            encoding="utf-8", check=False)
        t.equal(done.returncode, 1, "exit code")
        t.check("another quickstart" in done.stdout, done.stdout)

    with t.case("INT stops the server and the database"):
        t.equal(quickstart.stop(), 0, "exit code")
        quickstart.nothing_left()

    with t.case("the second run has the books of the first one"):
        quickstart.start()
        quickstart.wait_up()
        t.check("loading" not in quickstart.read(), quickstart.read())
        t.equal(quickstart.request("GET", "/books/1234567890").status, 200,
                "the new book")

    with t.case("nobody else can read the password, and nothing shows it"):
        where = place(quickstart)
        for name in ("secret", "conninfo"):
            mode = os.stat(os.path.join(where, name)).st_mode & 0o777
            t.equal(oct(mode), oct(0o600), name)
        with open(os.path.join(where, "secret"), encoding="ascii") as file:
            secret = file.read()
        t.equal(len(secret), 36, "length of the password")
        t.check(secret not in quickstart.read(), "output")
        t.check(secret not in quickstart.read("build/quickstart.log"), "log")
        for pid in t.processes():
            t.check(secret not in t.process_title(pid), "a command line")

    with t.case("TERM stops the server and the database"):
        t.equal(quickstart.stop(signal.SIGTERM), 0, "exit code")
        quickstart.nothing_left()

    with t.case("Ctrl-C on a terminal stops both, in order"):
        ours, theirs = pty.openpty()
        quickstart.start(preexec_fn=lambda: t.fcntl.ioctl(
            theirs, 0x540E, 0))  # TIOCSCTTY: our terminal
        quickstart.wait_up()
        os.write(ours, b"\x03")
        t.equal(quickstart.process.wait(40), 0, "exit code")
        said = quickstart.read()
        t.check(said.index("Stopping booksd") <
                said.index("Stopping PostgreSQL"), said)
        quickstart.nothing_left()
        os.close(ours)
        os.close(theirs)

    with t.case("after a kill -9 the next run takes over what was left"):
        quickstart.start()
        quickstart.wait_up()
        server = [pid for pid in t.processes()
                  if (stat := t.process_stat(pid)) and
                  stat[1] == quickstart.process.pid and
                  "booksd" in t.process_title(pid)]
        quickstart.process.kill()
        quickstart.process.wait()
        for pid in server:
            os.kill(pid, signal.SIGKILL)
        quickstart.start()
        quickstart.wait_up()
        t.check("runs already" in quickstart.read(), quickstart.read())
        t.equal(quickstart.request("GET", "/books/1234567890").status, 200,
                "the new book")
        t.equal(quickstart.stop(), 0, "exit code")
        quickstart.nothing_left()

    with t.case("--reset starts over"):
        quickstart.start("--reset")
        quickstart.wait_up()
        t.check("1012 loaded" in quickstart.read(), quickstart.read())
        t.equal(quickstart.request("GET", "/books/1234567890").status, 404,
                "the new book")
        t.equal(quickstart.stop(), 0, "exit code")

    with t.case("mistakes are said before anything is done"):
        for args, port, code, words in (
                (("--resett",), "8080", 64, "usage"),
                ((), "x", 1, "PORT=x"), ((), "0", 1, "PORT=0"),
                ((), "65536", 1, "PORT=65536"), ((), "080", 1, "PORT=080"),
                (("--help",), "8080", 0, "--reset")):
            done = subprocess.run(
                [os.path.join(folder, "quickstart"), *args],
                env=t.clean_environment({"PORT": port}), check=False,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, timeout=60, encoding="utf-8")
            t.equal(done.returncode, code, f"{args} {port}: exit code")
            t.check(words in done.stdout, done.stdout)

    with t.case("a checkout that PostgreSQL's user cannot enter works as well"):
        if os.getuid() != 0:
            t.skip("only root has such checkouts")
        os.chmod(folder, 0o700)
        quickstart.start()
        quickstart.wait_up()
        where = place(quickstart)
        t.check(where.startswith("/var/lib/booksd-quickstart-"), where)
        t.equal(quickstart.request("GET", f"/books/{THE_TEXBOOK}").status, 200,
                "a book")
        t.equal(quickstart.stop(), 0, "exit code")
        quickstart.nothing_left()
        shutil.rmtree(where)
finally:
    quickstart.close()
    shutil.rmtree(folder, ignore_errors=True)
t.done()
