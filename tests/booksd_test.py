"""What every integration test needs: TAP, PostgreSQL, booksd, raw HTTP, load.

    import booksd_test as t

    with t.Postgres() as pg:                      # skips the file without one
        for backend in t.backends():              # "epoll", "io_uring"
            with t.Booksd({"database": pg.conninfo, "io_backend": backend,
                           "workers": 2}, wait="readyz") as server:
                @t.case(f"{backend}: the greeting is the one of the settings")
                def _():
                    answer = server.request("GET", "/")
                    t.equal(answer.status, 200, "status")
                    t.equal(answer.body, b"Welcome ...", "body")

                with t.case(f"{backend}: a bare LF is refused"):
                    with server.raw() as client:
                        client.send(b"GET / HTTP/1.1\\nHost: a\\r\\n\\r\\n")
                        t.equal(client.read_response().status, 400, "status")
                        t.equal(client.read_eof(), b"", "after the answer")
    t.done()

A case runs where it stands; whatever it raises is `not ok` with the traceback
as `#` lines, and an error outside a case is one more `not ok`.  Each case ends
after CASE_SECONDS_MAX.  t.skip("why") inside a case skips it, t.skip_all("why")
the whole file.  Arguments of the file select cases by substring (decorated ones
only): `python3 tests/it_http.py pipelin`.

Environment: BOOKSD, BOOKSCTL (else ./booksd, ./booksctl of the working or the
build folder), abs_top_srcdir, abs_top_builddir.
"""
import atexit
import contextlib
import ctypes
import fcntl
import json
import os
import pwd
import random
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from typing import NamedTuple

CASE_SECONDS_MAX = 120
SRCDIR = os.environ.get("abs_top_srcdir") or os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))
BUILDDIR = os.environ.get("abs_top_builddir") or os.getcwd()
BOOKSD = os.environ.get("BOOKSD") or os.path.join(BUILDDIR, "booksd")
BOOKSCTL = os.environ.get("BOOKSCTL") or os.path.join(BUILDDIR, "booksctl")


# ---- TAP

class Skip(Exception):
    """Raised by skip()."""


class _Tap:
    count = 0
    failed = 0
    planned = False
    in_case = False


def _line(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def diag(text):
    """Diagnostic lines; bytes that are not text are shown escaped."""
    for line in str(text).splitlines() or [""]:
        _line("# " + line.encode("ascii", "backslashreplace").decode())


def _report(ok, name, skipped=None):
    _Tap.count += 1
    _Tap.failed += not ok
    name = re.sub(r"[#\n\r]", " ", name)
    tail = "" if skipped is None else " # SKIP " + skipped.replace("\n", " ")
    _line(f"{'ok' if ok else 'not ok'} {_Tap.count} - {name}{tail}")


def skip(reason):
    """Skip the case that is running."""
    raise Skip(reason)


def skip_all(reason):
    """Skip the file; only before its first case."""
    _Tap.planned = True
    _line(f"1..0 # SKIP {reason}")
    sys.exit(0)


def done():
    """Print the plan and exit; happens by itself at the end of the file."""
    sys.exit(1 if _Tap.failed else 0)


def _on_exit():
    # Registered first, so it runs after everything else was cleaned up.
    if not _Tap.planned:
        if _Tap.count == 0:
            _report(False, "the file has at least one case")
        _line(f"1..{_Tap.count}")
    sys.stderr.flush()
    os._exit(1 if _Tap.failed else 0)


def _on_error(kind, error, trace):
    diag("".join(traceback.format_exception(kind, error, trace)))
    _report(False, "the file ran to its end")


def _on_alarm(_signal, _frame):
    raise TimeoutError("the case took too long")


def _on_term(_signal, _frame):
    raise KeyboardInterrupt("ended by SIGTERM")


atexit.register(_on_exit)
sys.excepthook = _on_error
signal.signal(signal.SIGALRM, _on_alarm)
# Shells start what runs in the background with these ignored, and what we start
# would go on ignoring them.
for _number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(_number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, _on_term)
sys.stdout.reconfigure(errors="backslashreplace")


class case:
    """@case("sentence") above a function, or with case("sentence"):"""

    def __init__(self, name, seconds=CASE_SECONDS_MAX):
        self.name, self.seconds = name, seconds

    def __call__(self, function):
        wanted = sys.argv[1:]
        if not wanted or any(word in self.name for word in wanted):
            with self:
                function()
        return function

    def __enter__(self):
        signal.alarm(self.seconds)
        _Tap.in_case = True
        return self

    def __exit__(self, kind, error, trace):
        signal.alarm(0)
        _Tap.in_case = False
        if kind is None:
            _report(True, self.name)
        elif issubclass(kind, Skip):
            _report(True, self.name, skipped=str(error))
        elif issubclass(kind, (KeyboardInterrupt, SystemExit)):
            _report(False, self.name)
            return False
        else:
            _report(False, self.name)
            diag("".join(traceback.format_exception(kind, error, trace)))
        return True


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def equal(got, want, what="value"):
    if got != want:
        raise AssertionError(f"{what}: got {got!r}, want {want!r}")


def eventually(probe, what, seconds=10, every=0.02):
    """Call probe until it returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} s still not: {what}")
        time.sleep(every)


# ---- processes and ports

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_locks = []


def die_with_parent(number=signal.SIGKILL):
    """A preexec_fn: the child gets the signal when this program dies."""
    def apply():
        _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    return apply


class Isbns:
    """Each call is an ISBN that no other case has."""
    last = 9780000000000

    def __call__(self):
        Isbns.last += 1
        return str(Isbns.last)


def free_port():
    """A TCP port that no other test of this machine will be given while this
    program lives, and outside the range of outgoing connections."""
    folder = os.path.join(tempfile.gettempdir(), f"booksd-ports-{os.getuid()}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for port in random.sample(range(20000, 32000), 500):
        lock = os.open(os.path.join(folder, str(port)),
                       os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for family, host in ((socket.AF_INET, "0.0.0.0"),
                                 (socket.AF_INET6, "::")):
                try:
                    probe = socket.socket(family, socket.SOCK_STREAM)
                except OSError:
                    continue  # no IPv6 here
                with probe:
                    probe.setsockopt(socket.SOL_SOCKET,
                                     socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        probe.setsockopt(socket.IPPROTO_IPV6,
                                         socket.IPV6_V6ONLY, 1)
                    try:
                        probe.bind((host, port))
                    except OSError as error:
                        if error.errno == 98:  # EADDRINUSE
                            raise
        except OSError:
            os.close(lock)
            continue
        _locks.append(lock)
        return port
    raise RuntimeError("no free port")


def clean_environment(extra=None):
    """The environment without settings that would reach booksd or libpq."""
    env = {name: value for name, value in os.environ.items()
           if not name.startswith(("BOOKS_", "PG", "NOTIFY_SOCKET"))}
    env["TZ"] = "America/St_Johns"  # nothing may depend on local time
    env.setdefault("ASAN_OPTIONS", "abort_on_error=1:detect_leaks=1")
    env.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
    env.update(extra or {})
    return env


def process_stat(pid):
    """(state letter, parent, process group, session), None when gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
    except OSError:
        return None
    return (fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]))


def processes():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def process_title(pid):
    """The command line as ps shows it."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(
                errors="replace").strip()
    except OSError:
        return ""


def is_sanitized(program=BOOKSD):
    """Built with a sanitizer?  Figures of memory mean nothing then."""
    with open(program, "rb") as file:
        return re.search(rb"__(asan|tsan|ubsan)_", file.read()) is not None


def documented(section):
    """The names that a section of books-counters(7) lists."""
    with open(os.path.join(SRCDIR, "man", "books-counters.7"),
              encoding="utf-8") as file:
        text = re.search(rf"^\.Ss {section}$(.*?)^\.S[sh] ", file.read(),
                         re.M | re.S)[1]
    return {name for line in re.findall(r"^\.It Ic (.*)$", text, re.M)
            for name in line.split(" , ")}


def booksctl(*args, database=None, stdin=None, env=None, seconds=60):
    """Run booksctl to its end: CompletedProcess with text."""
    command = [BOOKSCTL] + (["-d", database] if database else []) + list(args)
    return subprocess.run(command, input=stdin, env=clean_environment(env),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=seconds, encoding="utf-8",
                          errors="backslashreplace",
                          stdin=None if stdin is not None
                          else subprocess.DEVNULL)


# ---- PostgreSQL

def _pg_bin():
    """The folder with all of the server's programs: Debian keeps them out of
    PATH."""
    def is_complete(folder):
        return all(os.access(os.path.join(folder, name), os.X_OK)
                   for name in ("postgres", "initdb", "psql", "pg_isready"))

    found = shutil.which("postgres")
    if found and is_complete(os.path.dirname(os.path.realpath(found))):
        return os.path.dirname(os.path.realpath(found))
    base, best = "/usr/lib/postgresql", (0, None)
    for version in os.listdir(base) if os.path.isdir(base) else []:
        folder = os.path.join(base, version, "bin")
        if version.isdigit() and is_complete(folder):
            best = max(best, (int(version), folder))
    return best[1]


def _unprivileged():
    """Keyword arguments of Popen for a user that PostgreSQL accepts."""
    if os.getuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid,
                    "extra_groups": []}
    return None


class Postgres:
    """A private cluster: the database "books" of the role "books", trusted on
    127.0.0.1 and on a unix socket; gone when the with block ends.

    settings: lines of postgresql.conf as a dict.  start=False: not started.
    .conninfo (TCP, role books), .conninfo_unix, .superuser, .port, .folder
    """

    def __init__(self, settings=None, start=True):
        self.bin = _pg_bin()
        self.who = _unprivileged()
        if self.bin is None or self.who is None:
            if _Tap.count == 0:
                skip_all("PostgreSQL is not installed")
            raise RuntimeError("PostgreSQL is not installed")
        self.process = None
        self.port = free_port()
        self.folder = tempfile.mkdtemp(prefix="booksd-pg-", dir="/tmp")
        atexit.register(self.close)
        self._own(self.folder)
        self.data = os.path.join(self.folder, "data")
        self.log = os.path.join(self.folder, "log")
        self.conninfo = self.conninfo_of("books")
        self.conninfo_unix = (f"host={self.folder} port={self.port} "
                              "dbname=books user=books")
        self.superuser = (f"host={self.folder} port={self.port} "
                          "dbname=books user=postgres")
        self._copy_template()
        with open(os.path.join(self.data, "postgresql.conf"), "a",
                  encoding="utf-8") as file:
            for name, value in {
                    "port": self.port, "listen_addresses": "127.0.0.1",
                    "unix_socket_directories": self.folder, "fsync": "off",
                    "full_page_writes": "off", "synchronous_commit": "off",
                    "max_connections": 60, "log_min_messages": "warning",
                    "autovacuum": "off", "shared_buffers": "32MB",
                    "max_wal_size": "1GB", **(settings or {})}.items():
                file.write(f"{name} = '{value}'\n")
        if start:
            self.start()

    def conninfo_of(self, database):
        return (f"host=127.0.0.1 port={self.port} dbname={database} "
                "user=books")

    def _own(self, path):
        if self.who:
            os.chown(path, self.who["user"], self.who["group"])

    def _run(self, *command):
        done = subprocess.run(
            command, cwd="/", env=clean_environment({"LC_ALL": "C"}),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=100, check=False, **self.who)
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]}: {done.stdout.decode()}")

    def _copy_template(self):
        """initdb costs a second or more: once, then copies of its result."""
        cache = os.path.join(BUILDDIR, "var-test")
        os.makedirs(cache, exist_ok=True)
        version = self.bin.strip("/").replace("/", "-")
        template = os.path.join(cache, f"template-{version}")
        with open(os.path.join(cache, "lock"), "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.isdir(template):
                self._make_template()
                part = template + ".part"
                shutil.rmtree(part, ignore_errors=True)
                subprocess.run(["cp", "-a", self.data, part], check=True)
                os.rename(part, template)
                return
        subprocess.run(["cp", "-a", template, self.data], check=True)

    def _make_template(self):
        self._run(os.path.join(self.bin, "initdb"), "-D", self.data, "-N",
                  "-U", "postgres", "-A", "trust", "-E", "UTF8",
                  "--locale=C")
        conf = os.path.join(self.data, "postgresql.conf")
        with open(conf, encoding="utf-8") as file:
            original = file.read()
        with open(conf, "a", encoding="utf-8") as file:
            file.write(f"port = {self.port}\nlisten_addresses = ''\n"
                       f"unix_socket_directories = '{self.folder}'\n")
        self.start()
        self.sql("CREATE ROLE books LOGIN", database="postgres")
        self.sql("CREATE DATABASE books OWNER books", database="postgres")
        self.stop()
        with open(conf, "w", encoding="utf-8") as file:
            file.write(original)

    def is_up(self):
        return subprocess.run(
            [os.path.join(self.bin, "pg_isready"), "-q", "-h", self.folder,
             "-p", str(self.port)], env=clean_environment(),
            check=False).returncode == 0

    def start(self):
        assert self.process is None, "already started"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [os.path.join(self.bin, "postgres"), "-D", self.data],
                cwd="/", env=clean_environment({"LC_ALL": "C"}),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGQUIT), **self.who)

        def up():
            if self.process.poll() is not None:
                with open(self.log, encoding="utf-8") as file:
                    raise RuntimeError("postgres ended: " + file.read()[-2000:])
            return self.is_up()
        eventually(up, "PostgreSQL accepts connections", 60)

    def stop(self, how=signal.SIGINT):
        """SIGINT: fast, SIGTERM: when the clients are gone, SIGQUIT: at once
        (as a crash; the next start recovers)."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(how)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(30)
        self.process = None

    def crash(self):
        self.stop(signal.SIGQUIT)

    def restart(self):
        self.stop()
        self.start()

    def sql(self, text, database="books", user="postgres", check=True):
        """The output of psql -At, without its last newline."""
        done = subprocess.run(
            [os.path.join(self.bin, "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1",
             "-h", self.folder, "-p", str(self.port), "-U", user,
             "-d", database],
            input=text.encode(), env=clean_environment(), check=False,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=110)
        if check and done.returncode != 0:
            raise RuntimeError("psql: " + done.stderr.decode())
        return done.stdout.decode().rstrip("\n")

    def create_database(self, name):
        """A new empty database of the role books: its conninfo."""
        self.sql(f'CREATE DATABASE "{name}" OWNER books', database="postgres")
        return self.conninfo_of(name)

    def close(self):
        try:
            self.stop(signal.SIGQUIT)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            atexit.unregister(self.close)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Session:
    """A psql of the superuser that stays: a transaction that others have to
    wait for."""

    def __init__(self, pg, *statements, database="books"):
        self.process = subprocess.Popen(
            [os.path.join(pg.bin, "psql"), "-XAtq", "-h", pg.folder, "-p",
             str(pg.port), "-U", "postgres", "-d", database],
            env=clean_environment(), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent())
        self.run(*statements)

    def run(self, *statements):
        """The lines of their output."""
        for statement in statements + ("\\echo done",):
            self.process.stdin.write(statement.encode() + b"\n")
        self.process.stdin.flush()
        lines = []
        while (line := self.process.stdout.readline()) != b"done\n":
            check(line and b"ERROR" not in line, f"psql said {line!r}")
            lines.append(line.decode().rstrip("\n"))
        return lines

    def close(self):
        """What was not committed is rolled back."""
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# ---- HTTP over a raw socket

class Truncated(AssertionError):
    """The connection ended inside an answer."""


class Response(NamedTuple):
    status: int
    headers: dict  # lower-case name -> list of values, in order
    body: bytes
    version: str = "HTTP/1.1"
    reason: str = ""

    def header(self, name):
        """The only value of a field, None when it is absent."""
        values = self.headers.get(name.lower(), [])
        check(len(values) <= 1, f"{name} comes {len(values)} times")
        return values[0] if values else None

    def json(self):
        return json.loads(self.body)

    def text(self):
        return self.body.decode("utf-8")


_STATUS = re.compile(rb"(HTTP/1\.[01]) ([0-9]{3}) ([\t -~\x80-\xff]*)\Z")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*"
                    rb"([\t -~\x80-\xff]*?)[ \t]*\Z")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;[\t -~]*)?\Z")


def parse_head(head):
    """Status line and fields, strictly; head is without its empty line."""
    lines = head.split(b"\r\n")
    status = _STATUS.match(lines[0])
    check(status, f"not a status line: {lines[0]!r}")
    headers = {}
    for line in lines[1:]:
        field = _FIELD.match(line)
        check(field, f"not a field line: {line!r}")
        headers.setdefault(field[1].decode().lower(), []).append(
            field[2].decode("latin-1"))
    return Response(int(status[2]), headers, b"", status[1].decode(),
                    status[3].decode("latin-1"))


def framing(head, method):
    """How an answer's body ends: an int, "chunked" or "close"."""
    if method == "HEAD" or head.status in (204, 304) or head.status < 200:
        return 0
    coding = head.header("transfer-encoding")
    length = head.header("content-length")
    check(coding is None or length is None,
          "both Transfer-Encoding and Content-Length")
    if coding is not None:
        equal(coding, "chunked", "Transfer-Encoding")
        return "chunked"
    if length is not None:
        check(length.isascii() and length.isdigit(), f"length {length!r}")
        return int(length)
    return "close"


class Raw:
    """A client that sends the bytes it is told to.

    address: (host, port) or the path of a unix socket.
    Every wait is bounded by seconds: TimeoutError.
    """

    def __init__(self, address, seconds=10, receive_buffer=None):
        family = (socket.AF_UNIX if isinstance(address, str)
                  else socket.AF_INET6 if ":" in address[0]
                  else socket.AF_INET)
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(seconds)
        self.buffer = b""
        try:
            if receive_buffer is not None:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF,
                                       receive_buffer)
            if family != socket.AF_UNIX:
                self.socket.setsockopt(socket.IPPROTO_TCP,
                                       socket.TCP_NODELAY, 1)
            self.socket.connect(address)
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def abort(self):
        """Close with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                               b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    def send(self, data):
        self.socket.sendall(data.encode() if isinstance(data, str) else data)

    def send_slowly(self, data, step=1, pause=0.001):
        """step bytes at a time, each in a segment of its own."""
        for at in range(0, len(data), step):
            self.send(data[at:at + step])
            if pause:
                time.sleep(pause)

    def _more(self):
        """Receive something; False at the end of the stream."""
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def _take(self, count):
        while len(self.buffer) < count:
            if not self._more():
                raise Truncated(f"end after {len(self.buffer)} of {count} "
                                f"bytes: {self.buffer[-200:]!r}")
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def recv_until(self, mark):
        """Everything up to and with mark."""
        seen = 0
        while (at := self.buffer.find(mark, max(0, seen - len(mark)))) < 0:
            seen = len(self.buffer)
            if not self._more():
                raise Truncated(f"end before {mark!r}: {self.buffer[-200:]!r}")
        return self._take(at + len(mark))

    def read_eof(self):
        """All bytes until the server closes (a reset counts as closed)."""
        with contextlib.suppress(ConnectionResetError):
            while self._more():
                pass
        taken, self.buffer = self.buffer, b""
        return taken

    def is_closed(self, seconds=0.2):
        """Has the server closed, with nothing left to read?"""
        before = self.socket.gettimeout()
        self.socket.settimeout(seconds)
        try:
            return not self.buffer and not self._more()
        except ConnectionResetError:
            return True
        except (TimeoutError, socket.timeout):
            return False
        finally:
            self.socket.settimeout(before)

    def read_head(self):
        return parse_head(self.recv_until(b"\r\n\r\n")[:-4])

    def read_body(self, head, method="GET"):
        how = framing(head, method)
        if how == "close":
            return self.read_eof()
        if how != "chunked":
            return self._take(how)
        parts = []
        while True:
            line = self.recv_until(b"\r\n")[:-2]
            size = _CHUNK.match(line)
            check(size, f"not a chunk size: {line!r}")
            size = int(size[1], 16)
            if size == 0:
                equal(self._take(2), b"\r\n", "after the last chunk")
                return b"".join(parts)
            parts.append(self._take(size))
            equal(self._take(2), b"\r\n", "after a chunk")

    def read_response(self, method="GET", skip_interim=False):
        """One answer; a 1xx is one of its own unless skip_interim."""
        head = self.read_head()
        while skip_interim and 100 <= head.status < 200:
            head = self.read_head()
        return head._replace(body=self.read_body(head, method))

    def request(self, method, target, body=None, headers=(), host="a"):
        """Send a well-formed request and read its answer."""
        self.send(make_request(method, target, body, headers, host))
        return self.read_response(method, skip_interim=True)


def make_request(method, target, body=None, headers=(), host="a"):
    """The bytes of a request.  body: None, bytes, text, or something for
    json.dumps (then Content-Type is application/json)."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    headers = dict(headers)
    if body is not None and not isinstance(body, (bytes, str)):
        body = json.dumps(body)
        if not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = "application/json"
    if isinstance(body, str):
        body = body.encode()
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


# ---- booksd

# What the server prints when it has a bug.
_ALARMS = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|"
                     r"runtime error:|assertion failed|stack smashing|"
                     r"malloc\(\)|free\(\)|double free|corrupted")


class Booksd:
    """A booksd of our own in the foreground, stopped when the block ends.

    settings: the -o options; listen defaults to 127.0.0.1 and a free port (a
        list gives several; None leaves -o listen out); control_socket
        defaults to control.sock in .folder; admin_listen defaults to off,
        and 127.0.0.1:0 takes a free port
    wait: "livez", "readyz", or None to return at once
    args, env: more arguments and environment
    allow_alarms: the block does not fail because of a sanitizer report or an
        assertion on standard error
    .address (of the first TCP listen), .pid, .process, .folder (a private
        folder for sockets and logs), .control (path of the control socket),
        .stdout and .stderr (paths)
    """

    def __init__(self, settings=None, wait="livez", args=(), env=None,
                 allow_alarms=False, seconds=20, **popen):
        self.folder = tempfile.mkdtemp(prefix="booksd-it-", dir="/tmp")
        os.chmod(self.folder, 0o755)
        self.allow_alarms = allow_alarms
        self.exit_code = None
        settings = dict(settings or {})
        self.address = None
        if "listen" not in settings:
            settings["listen"] = f"127.0.0.1:{free_port()}"
        self.control = settings.setdefault(
            "control_socket", os.path.join(self.folder, "control.sock"))
        settings.setdefault("admin_listen", "off")
        listens = settings["listen"] or []
        for one in [listens] if isinstance(listens, str) else listens:
            found = re.match(r"(?:\[(.*)\]|([^:/]*)):([0-9]+)\Z", one)
            if found and self.address is None:
                host = found[1] or found[2]
                self.address = ("127.0.0.1" if host == "*" else host,
                                int(found[3]))
        command = [BOOKSD, "-f"]
        for key, value in settings.items():
            for one in value if isinstance(value, (list, tuple)) else [value]:
                if one is not None:
                    command += ["-o", f"{key}={one}"]
        self.command = command + list(args)
        self.stdout = os.path.join(self.folder, "stdout")
        self.stderr = os.path.join(self.folder, "stderr")
        # Paths: a sink of the settings may be a file in .folder as well.
        try:
            with open(self.stdout, "ab") as out, \
                    open(self.stderr, "ab") as err:
                self.process = subprocess.Popen(
                    self.command, env=clean_environment(env),
                    stdin=subprocess.DEVNULL,
                    **{"stdout": out, "stderr": err, **popen},
                    start_new_session=True, preexec_fn=die_with_parent())
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        atexit.register(self.close)
        self.pid = self.process.pid
        if wait is not None:
            try:
                self.wait_for(wait, seconds)
            except BaseException:
                self.kill()
                diag(self.stderr_text()[-4000:])
                self.close()
                raise

    # -- talking to it

    def raw(self, seconds=10, **kwargs):
        return Raw(self.address, seconds, **kwargs)

    def request(self, method, target, body=None, headers=(), seconds=10):
        """One request on a connection of its own."""
        with self.raw(seconds) as client:
            return client.request(method, target, body, headers)

    def wait_for(self, path="readyz", seconds=20):
        """Until GET /path answers 200; fails when the server ended."""
        def answers():
            code = self.process.poll()
            check(code is None, f"booksd ended with {code} instead of serving"
                                f": {self.stderr_text()[-2000:]}")
            try:
                return self.request("GET", "/" + path, seconds=2).status == 200
            except (OSError, Truncated):
                return False
        eventually(answers, f"/{path} answers 200", seconds, 0.01)

    def admin(self, method, target, body=None, headers=(), seconds=10,
              host="127.0.0.1"):
        """One request on a connection of its own to the admin listener, whose
        address the log names."""
        started = eventually(lambda: self.errors("started"), "it started")
        text = started[0]["admin_listen"].split()[0]
        address = (text[5:] if text.startswith("unix:") else
                   (text.rpartition(":")[0].strip("[]"),
                    int(text.rpartition(":")[2])))
        with Raw(address, seconds) as client:
            return client.request(method, target, body, headers, host)

    # -- what it wrote

    def stderr_text(self):
        return _text_of(self.stderr)

    def errors(self, event=None):
        """The events on standard error, parsed; only those named event."""
        return [line for line in _json_lines(self.stderr_text())
                if event is None or line.get("event") == event]

    def access(self):
        """The access lines on standard output, parsed."""
        return _json_lines(_text_of(self.stdout))

    def alarms(self):
        return [line for line in self.stderr_text().splitlines()
                if _ALARMS.search(line)]

    # -- its processes

    def children(self):
        """pid -> title of the master's children that are not zombies."""
        found = {}
        for pid in processes():
            stat = process_stat(pid)
            if stat and stat[1] == self.pid and stat[0] != "Z":
                found[pid] = process_title(pid)
        return found

    def zombies(self):
        return [pid for pid in processes()
                if (stat := process_stat(pid)) and stat[1] == self.pid
                and stat[0] == "Z"]

    def worker_pids(self):
        # A child carries the master's title for a moment after fork.
        for _ in range(100):
            children = self.children()
            if "booksd: master" not in children.values():
                break
            time.sleep(0.01)
        return sorted(pid for pid, title in children.items()
                      if "worker" in title)

    def ops_pid(self):
        """The pid of the process beside the workers, None without one."""
        return next((pid for pid, title in self.children().items()
                     if title == "booksd: ops"), None)

    def owners(self, by_client=True):
        """{TCP port of a client: pid of the worker that has the connection},
        or of its own ends of those that it made."""
        inodes = {}
        with open("/proc/net/tcp", encoding="ascii") as file:
            for line in list(file)[1:]:
                fields = line.split()
                near, far = (int(end.split(":")[1], 16)
                             for end in fields[1:3])
                if not by_client:
                    inodes[f"socket:[{fields[9]}]"] = near
                elif near == self.address[1]:
                    inodes[f"socket:[{fields[9]}]"] = far
        found = {}
        for pid in self.children():
            with contextlib.suppress(OSError):
                for name in os.listdir(f"/proc/{pid}/fd"):
                    with contextlib.suppress(OSError):
                        inode = os.readlink(f"/proc/{pid}/fd/{name}")
                        if inode in inodes:
                            found[inodes[inode]] = pid
        return found

    def owners_of(self, clients):
        """The worker's pid of each of these Raw.  The kernel's list can lack
        connections while it changes."""
        ports = [client.socket.getsockname()[1] for client in clients]

        def probe():
            owners = self.owners()
            return (all(port in owners for port in ports) and
                    [owners[port] for port in ports])
        return eventually(probe, "each connection has its worker")

    def leftovers(self):
        """Processes of its session that live on."""
        return [pid for pid in processes()
                if (stat := process_stat(pid)) and stat[3] == self.pid
                and stat[0] != "Z"]

    # -- its end

    def send_signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=40):
        """Until it ended: the exit code (negative: by a signal)."""
        self.exit_code = self.process.wait(seconds)
        return self.exit_code

    def stop(self, number=signal.SIGTERM, seconds=40):
        if self.process.poll() is None:
            self.send_signal(number)
        return self.wait(seconds)

    def kill(self):
        """SIGKILL to the master; its workers have to end by themselves."""
        if self.process.poll() is None:
            self.process.kill()
        return self.wait()

    def close(self):
        """End it whatever state it is in.  Raises when it left processes
        behind or reported a bug."""
        atexit.unregister(self.close)
        try:
            if self.process.poll() is None:
                try:
                    self.stop(signal.SIGINT, 10)
                except subprocess.TimeoutExpired:
                    self.kill()
                    raise AssertionError("booksd did not end by SIGINT") \
                        from None
            try:
                eventually(lambda: not self.leftovers(), "no process is left",
                           5)
            except AssertionError:
                left = {pid: process_title(pid) for pid in self.leftovers()}
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                raise AssertionError(f"left behind: {left}") from None
            alarms = self.alarms()
            if alarms and not self.allow_alarms:
                diag(self.stderr_text()[-8000:])
                raise AssertionError(f"booksd reported a bug: {alarms[0]}")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            # Around cases a bug is one more failure, inside it is the case's.
            try:
                self.close()
            except AssertionError as bug:
                if _Tap.in_case:
                    raise
                _report(False, "booksd ended without a bug")
                diag(bug)
            return False
        with contextlib.suppress(AssertionError):
            diag("booksd said: " + self.stderr_text()[-2000:])
            self.close()
        return False


def _text_of(path):
    with contextlib.suppress(FileNotFoundError):
        with open(path, encoding="utf-8", errors="backslashreplace") as file:
            return file.read()
    return ""


def _json_lines(text):
    found = []
    for line in text.splitlines():
        if line.startswith("{"):
            found.append(json.loads(line))
    return found


def backends():
    """The back ends that work here; the other one is reported as skipped."""
    yield "epoll"
    done = subprocess.run([BOOKSD, "-V", "-o", "io_backend=io_uring"],
                          env=clean_environment(), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=20, check=False)
    if done.returncode == 0:
        yield "io_uring"
    elif done.returncode == 69:  # EX_UNAVAILABLE, with the reason
        _report(True, "io_uring", skipped="the kernel refuses io_uring")
    else:
        raise AssertionError(f"booksd -V: {done.returncode} {done.stdout!r}")


# ---- load

class LoadResult(NamedTuple):
    ok: int        # complete correct answers
    failed: int    # requests without one
    retries: int   # a reused connection closed before any byte of an answer
    reasons: list  # the first failures in words
    latencies: list  # seconds, of correct answers
    seconds: float

    def percentile(self, percent):
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1,
                           int(len(ordered) * percent / 100))] if ordered else 0

    def __str__(self):
        return (f"{self.ok} correct, {self.failed} failed, {self.retries} "
                f"retries, {self.ok / max(self.seconds, 1e-9):.0f}/s, "
                f"p50 {self.percentile(50) * 1e3:.2f} ms, "
                f"p99 {self.percentile(99) * 1e3:.2f} ms"
                + "".join("; " + reason for reason in self.reasons))


class _Client:
    """One keep-alive connection of the load: at most one request at a time."""

    def __init__(self, load):
        self.load = load
        self.socket = None
        self.answers = 0       # on this connection
        self.request = None    # (bytes, method, correct) that waits
        self.retried = False
        self.not_before = 0.0

    def open(self):
        self.answers, self.buffer = 0, b""
        address = self.load.address
        self.socket = socket.socket(
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6
            if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(5)
        self.socket.connect(address)
        if not isinstance(address, str):
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.load.selector.register(self.socket, selectors.EVENT_READ, self)

    def shut(self):
        if self.socket is not None:
            with contextlib.suppress(KeyError, ValueError):
                self.load.selector.unregister(self.socket)
            self.socket.close()
            self.socket = None

    def begin(self):
        """Send the request that waits, or a new one."""
        if self.request is None:
            if self.load.is_ending():
                self.shut()
                return
            self.request = self.load.next_request()
            self.retried = False
            self.started = time.monotonic()
        try:
            if self.socket is None:
                self.open()
            self.buffer = b""
            self.socket.sendall(self.request[0])
        except OSError as error:
            self.broken(f"{type(error).__name__} when sending")

    def broken(self, why):
        """The connection ended before the answer was complete."""
        reused = self.socket is not None and self.answers > 0
        untouched = not self.buffer if self.socket is not None else True
        self.shut()
        if reused and untouched and not self.retried:
            self.retried = True
            self.load.retries += 1
            self.begin()
            return
        self.fail(why)

    def fail(self, why):
        self.shut()
        self.load.fail(why)
        self.request = None
        self.not_before = time.monotonic() + 0.01

    def readable(self):
        try:
            data = self.socket.recv(65536)
        except OSError as error:
            self.broken(type(error).__name__)
            return
        if self.request is None:
            self.shut()  # an idle connection was closed, or worse
            if data:
                self.load.fail(f"unasked bytes {data[:60]!r}")
            return
        self.buffer += data
        try:
            answer = self.answer(ended=not data)
        except AssertionError as error:
            self.fail(f"not HTTP: {error}")
            return
        if answer is None:
            if not data:
                self.broken(f"closed after {len(self.buffer)} bytes")
            return
        self.finish(answer)

    def answer(self, ended):
        """The complete answer in the buffer, or None."""
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = parse_head(self.buffer[:end])
        body = self.buffer[end + 4:]
        how = framing(head, self.request[1])
        if how == "close":
            return head._replace(body=body) if ended else None
        if how == "chunked":
            return self.chunks(head, body)
        if len(body) < how:
            return None
        check(len(body) == how, f"{len(body) - how} bytes too many")
        return head._replace(body=body)

    @staticmethod
    def chunks(head, body):
        parts, at = [], 0
        while (end := body.find(b"\r\n", at)) >= 0:
            size = _CHUNK.match(body[at:end])
            check(size, f"chunk size {body[at:end]!r}")
            size = int(size[1], 16)
            at = end + 2 + size + 2
            if len(body) < at:
                return None
            if size == 0:
                check(len(body) == at, "bytes after the last chunk")
                return head._replace(body=b"".join(parts))
            parts.append(body[end + 2:end + 2 + size])
        return None

    def finish(self, answer):
        self.answers += 1
        _, _, correct = self.request
        self.request = None
        if correct(answer):
            self.load.succeed(time.monotonic() - self.started)
        else:
            self.load.fail(f"wrong answer {answer.status} "
                           f"{answer.body[:80]!r}")
        closing = "close" in (answer.header("connection") or "").lower()
        if closing:
            self.shut()
            if self.load.is_retired:
                return
        self.begin()


class Load:
    """N keep-alive connections that each ask, wait for the answer, ask again.

    requests: list of targets, or of (method, target, body, correct) where
        correct(Response) says whether the answer is right (default: 200)
    with Load(server.address, 64, ["/livez"]) as load: ...
    print(load.stop())      # LoadResult; also .result after the block

    Failed: no complete correct answer.  A request is sent once more when a
    reused connection closed before any byte of its answer; that is counted as
    a retry.  load.retire() does what a load balancer does with a target that
    drains: connections that the server closes are not opened again.
    """

    def __init__(self, address, connections=64, requests=("/",)):
        self.address = address
        self.plan = [self._prepare(one) for one in requests]
        self.turn = 0
        self.ok = self.failed = self.retries = 0
        self.reasons, self.latencies = [], []
        self.is_retired = False
        self.stopping = False
        self.result = None
        self.selector = selectors.DefaultSelector()
        self.clients = [_Client(self) for _ in range(connections)]
        self.begun = time.monotonic()
        self.thread = threading.Thread(target=self._run, daemon=True)

    @staticmethod
    def _prepare(one):
        if isinstance(one, str):
            one = ("GET", one, None, None)
        method, target, body, correct = one
        return (make_request(method, target, body), method,
                correct or (lambda answer: answer.status == 200))

    def next_request(self):
        self.turn += 1
        return self.plan[self.turn % len(self.plan)]

    def is_ending(self):
        return self.stopping

    def succeed(self, seconds):
        self.ok += 1
        if len(self.latencies) < 1000000:
            self.latencies.append(seconds)

    def fail(self, why):
        self.failed += 1
        if len(self.reasons) < 10:
            self.reasons.append(why)

    def _run(self):
        try:
            self._loop()
        except Exception:  # a bug here must not look like a quiet server
            self.fail(traceback.format_exc())

    def _loop(self):
        for client in self.clients:
            client.begin()
        ending_since = None
        while True:
            for key, _ in self.selector.select(0.02):
                if key.data.socket is key.fileobj:
                    key.data.readable()
            now = time.monotonic()
            idle = [client for client in self.clients
                    if client.request is None and client.socket is None]
            if self.stopping or self.is_retired:
                if len(idle) == len(self.clients):
                    break
            if self.stopping:
                ending_since = ending_since or now
                if now > ending_since + 10:
                    for client in self.clients:
                        if client.request is not None:
                            client.fail("no answer within 10 s of the end")
                continue
            for client in idle:
                if not self.is_retired and now >= client.not_before:
                    client.begin()
        for client in self.clients:
            client.shut()
        self.selector.close()

    def retire(self):
        self.is_retired = True

    def wait_for(self, count, seconds=20):
        """Until count more answers arrived: the load is really on."""
        goal = self.ok + count
        eventually(lambda: self.ok >= goal or not self.thread.is_alive(),
                   f"{count} answers under load", seconds)

    def stop(self):
        """Let what is in flight finish, and count."""
        if self.result is None:
            self.stopping = True
            self.thread.join(60)
            check(not self.thread.is_alive(), "the load generator hangs")
            self.result = LoadResult(self.ok, self.failed, self.retries,
                                     self.reasons, self.latencies,
                                     time.monotonic() - self.begun)
        return self.result

    def __enter__(self):
        self.begun = time.monotonic()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop()
