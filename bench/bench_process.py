"""Processes under measurement: where they run, what they cost, how they end.

Every server is a Server: started on a processor of its own and told apart from
the generator by its process tree.  CPU time is user + system of all threads of
all processes of the tree, ended children included, as /proc/PID/stat has them.
"""
import ctypes
import os
import re
import resource
import signal
import socket
import subprocess
import time

_TICK = os.sysconf("SC_CLK_TCK")
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_START_SECONDS_MAX = 20
_STOP_SECONDS_MAX = 10

ALL_CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPUS = ALL_CPUS[:1]
LOAD_CPUS = ALL_CPUS[1:2] or ALL_CPUS


class Unavailable(Exception):
    """A server cannot run here; the text says why."""


def raise_files_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def pinned(cpus):
    """A preexec_fn: run on these processors, die with this program."""
    def apply():
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.sched_setaffinity(0, cpus)
    return apply


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _stat(pid):
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b") ")[2].split()


def tree(root):
    """The process and its descendants."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                children.setdefault(int(_stat(name)[1]), []).append(int(name))
            except OSError:
                continue
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def cpu_seconds(pids):
    """(user, system) of these processes and of their waited-for children."""
    user = system = 0
    for pid in pids:
        try:
            fields = _stat(pid)
        except OSError:
            continue
        user += int(fields[11]) + int(fields[13])
        system += int(fields[12]) + int(fields[14])
    return user / _TICK, system / _TICK


def memory_bytes(pids):
    """Anonymous PSS plus private dirty pages of file mappings.

    A private page of a file mapping that was written to is anonymous and so
    counted once; what is left of Private_Dirty belongs to shared file
    mappings.  Shared memory (memfd, /dev/zero, /dev/shm, SysV) is left out.
    """
    kib = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            kib += int(re.search(r"^Pss_Anon:\s+(\d+)", file.read(), re.M)[1])
        is_file, anonymous = False, 0
        with open(f"/proc/{pid}/smaps", encoding="utf-8",
                  errors="replace") as file:
            for line in file:
                name, _, rest = line.partition(":")
                if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                    path = (line.split(None, 5) + [""])[5]
                    is_file = path.startswith("/") and not re.match(
                        r"/memfd:|/dev/zero|/dev/shm/|/SYSV", path)
                elif name == "Private_Dirty":
                    dirty = int(rest.split()[0])
                elif name == "Anonymous" and is_file:
                    anonymous = int(rest.split()[0])
                    kib += max(0, dirty - anonymous)
    return kib * 1024


def exchange(port, target="/", stream=None):
    """All bytes of the answer to one GET, as the generator asks for it."""
    own = stream or socket.create_connection(("127.0.0.1", port), 5)
    try:
        own.settimeout(5)
        own.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost:{port}\r\n"
                    "\r\n".encode())
        data, whole = b"", None
        while whole is None or len(data) < whole:
            piece = own.recv(65536)
            if not piece:
                break
            data += piece
            head = data.find(b"\r\n\r\n")
            if whole is None and head >= 0:
                length = re.search(rb"(?i)\r\ncontent-length: *(\d+)\r",
                                   data[:head + 2])
                whole = head + 4 + int(length[1] if length else 0)
        return data
    finally:
        if stream is None:
            own.close()


class Server:
    """One server under measurement; a with block runs it."""

    def __init__(self, key, label, command, *, env=None, folder=None,
                 cpus=None, needs=(), alive="/", stop_signal=signal.SIGTERM):
        self.key, self.label = key, label
        self.command = command        # port -> argv
        self.env = env or (lambda port: {})
        self.folder = folder
        self.cpus = SERVER_CPUS if cpus is None else cpus
        self.needs = needs            # (path or None, what to say without it)
        self.alive = alive            # answers 200 as soon as it serves
        self.stop_signal = stop_signal
        self.process = None
        self.port = None

    def check(self):
        for path, advice in self.needs:
            if path is None or not os.path.exists(path):
                raise Unavailable(advice)

    def spawn(self):
        self.check()
        self.port = free_port()
        log = os.path.join(self.folder, f"{self.key}.log")
        env = {name: value for name, value in os.environ.items()
               if not name.startswith(("BOOKS_", "PG"))}
        env.update(self.env(self.port))
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                self.command(self.port), stdin=subprocess.DEVNULL,
                stdout=file, stderr=file, env=env, cwd=self.folder,
                preexec_fn=pinned(self.cpus))

    def is_serving(self):
        try:
            return exchange(self.port, self.alive)[9:12] == b"200"
        except OSError:
            return False

    def last_words(self):
        with open(os.path.join(self.folder, f"{self.key}.log"),
                  encoding="utf-8", errors="backslashreplace") as file:
            lines = file.read().strip().splitlines()
        return lines[-1][:200] if lines else "it said nothing"

    def wait_until_serving(self, pause=0.01):
        end = time.monotonic() + _START_SECONDS_MAX
        while not self.is_serving():
            if self.process.poll() is not None:
                raise Unavailable(f"ended at once: {self.last_words()}")
            if time.monotonic() > end:
                raise Unavailable(f"does not serve: {self.last_words()}")
            time.sleep(pause)

    def pids(self):
        return tree(self.process.pid)

    def __enter__(self):
        self.spawn()
        try:
            self.wait_until_serving()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.process.poll() is not None:
            return
        pids = self.pids()
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(_STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.process.wait()
