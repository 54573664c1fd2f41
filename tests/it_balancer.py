"""Goal: a load balancer in front sees tasks come and go, and no client does.

Method: HAProxy with health checks of /readyz and kept-alive server connections
that it reuses for anybody (as an ALB does), no retries, no redispatch.  Two
tasks behind it; a third one is started, TERM ends the oldest, and so on, under
constant load: every request is answered 200, and HAProxy counted no error, no
retry and no 5xx of its own.  BOOKS_TEST_LONG=1: 50 tasks are stopped, not 6.
"""
import collections
import os
import shutil
import signal
import socket
import subprocess
import tempfile

import booksd_test as t

CYCLES = 50 if os.environ.get("BOOKS_TEST_LONG") else 6
CONNECTIONS = 32
PLACES = 3  # one more than there are tasks: who comes before who goes

PROGRAM = shutil.which("haproxy") or "/usr/sbin/haproxy"
if not os.access(PROGRAM, os.X_OK):
    t.skip_all("HAProxy is not installed")


class Balancer:
    """HAProxy with PLACES servers, all of them down at first."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="booksd-balancer-", dir="/tmp")
        self.control = os.path.join(self.folder, "control")
        self.port = t.free_port()
        self.ports = [t.free_port() for _ in range(PLACES)]
        servers = "\n".join(
            f"  server s{i} 127.0.0.1:{port} check inter 100ms fall 2 rise 1"
            for i, port in enumerate(self.ports))
        path = os.path.join(self.folder, "haproxy.cfg")
        with open(path, "w", encoding="ascii") as file:
            file.write(f"""\
global
  stats socket {self.control} mode 600 level admin
  maxconn 1000
defaults
  mode http
  timeout client 30s
  timeout server 30s
  timeout connect 5s
  timeout http-keep-alive 30s
  retries 0
  http-reuse always
frontend front
  bind 127.0.0.1:{self.port}
  default_backend tasks
backend tasks
  balance roundrobin
  option httpchk GET /readyz
  http-check expect status 200
{servers}
""")
        self.log = open(os.path.join(self.folder, "log"), "wb")
        self.process = subprocess.Popen(
            [PROGRAM, "-db", "-f", path], stdin=subprocess.DEVNULL,
            stdout=self.log, stderr=self.log, preexec_fn=t.die_with_parent())
        t.eventually(self.is_there, "HAProxy listens", 10)

    def is_there(self):
        if self.process.poll() is not None:
            with open(self.log.name, encoding="utf-8") as file:
                raise RuntimeError("haproxy ended: " + file.read()[-2000:])
        return os.path.exists(self.control)

    def ask(self, command):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(self.control)
            client.sendall(command.encode() + b"\n")
            parts = []
            while part := client.recv(65536):
                parts.append(part)
        return b"".join(parts).decode()

    def rows(self):
        """What "show stat" says, by name of the server."""
        lines = self.ask("show stat").lstrip("# ").splitlines()
        names = lines[0].split(",")
        found = (dict(zip(names, line.split(","))) for line in lines[1:]
                 if line)
        return {row["svname"]: row for row in found
                if row["pxname"] == "tasks"}

    def is_up(self, place):
        return self.rows()[f"s{place}"]["status"] == "UP"

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def start(pg, balancer, place, backend):
    server = t.Booksd({"database": pg.conninfo, "io_backend": backend,
                       "workers": 1, "access_log": "off",
                       "listen": f"127.0.0.1:{balancer.ports[place]}",
                       "cache_size": "4MiB", "drain_delay": "500ms",
                       "drain_timeout": "20s"}, wait="readyz")
    t.eventually(lambda: balancer.is_up(place), "the balancer sends to it")
    return server


def errors(balancer):
    """All that went wrong between it and the tasks.  (The health checks of a
    place without a task fail as they should: not counted here.)"""
    found = collections.Counter()
    for row in balancer.rows().values():
        for name in ("econ", "eresp", "wretr", "wredis", "hrsp_5xx",
                     "hrsp_4xx"):
            if row.get(name):
                found[name] += int(row[name])
    return +found


pg = t.Postgres()
for backend in t.backends():
    with t.case(f"{backend}: {CYCLES} tasks are stopped and replaced behind a "
                "load balancer, and no client notices", 600):
        balancer = Balancer()
        tasks = collections.deque()
        try:
            for place in range(PLACES - 1):
                tasks.append((place, start(pg, balancer, place, backend)))
            with t.Load(("127.0.0.1", balancer.port), CONNECTIONS,
                        ["/", "/books?page=1", "/livez"]) as load:
                load.wait_for(500)
                for cycle in range(CYCLES):
                    place = (cycle + PLACES - 1) % PLACES
                    tasks.append((place,
                                  start(pg, balancer, place, backend)))
                    _, oldest = tasks.popleft()
                    t.equal(oldest.stop(), 0, "exit code")
                    t.eventually(lambda: not balancer.is_up(
                        (cycle + PLACES) % PLACES), "its place is down")
                result = load.stop()
            t.diag(result)
            t.equal(errors(balancer), {}, "errors that HAProxy counted")
            t.equal(result.failed, 0, "failed requests")
            t.check(result.ok > 100 * CYCLES, "there was a load")
        finally:
            for _, server in tasks:
                server.close()
            balancer.close()
pg.close()
