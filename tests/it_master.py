#!/usr/bin/env python3
"""Goal: the master keeps the service alive, says truthfully what happens, and
ends it as it was told; its command line and settings do what the manual says.

Method: the real binary, mostly without a database (GET / and /livez need
none); processes are killed, stopped and orphaned from outside, and /proc, the
log and the exit code have to agree about what became of them.
"""
import atexit
import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile

import booksd_test as t

NOWHERE = "host=127.0.0.1 port=1 connect_timeout=1"
BASIC = {"database": NOWHERE, "migrate_on_start": "off", "workers": 2,
         "drain_delay": "0s", "drain_timeout": "5s"}
OK, USAGE, NOUSER, UNAVAILABLE, OSERR, CANTCREAT, NOPERM, CONFIG = (
    0, 64, 67, 69, 71, 73, 77, 78)
scratch = tempfile.mkdtemp(prefix="booksd-master-", dir="/tmp")
os.chmod(scratch, 0o755)
atexit.register(shutil.rmtree, scratch, ignore_errors=True)


def run(*args, env=None, seconds=20, **popen):
    """booksd to its end: (exit code, standard output, standard error)."""
    done = subprocess.run([t.BOOKSD, *args], env=t.clean_environment(env),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=seconds,
                          check=False, encoding="utf-8", **popen)
    return done.returncode, done.stdout, done.stderr


def write(name, text):
    path = os.path.join(scratch, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def flags(settings):
    return [word for key, value in settings.items()
            for word in ("-o", f"{key}={value}")]


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file
                    if ":\t" in line)


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def worker_slots(server):
    """worker number -> pid, from the titles."""
    return {int(title.rpartition(" ")[2]): pid
            for pid, title in server.children().items()
            if re.fullmatch(r"booksd: worker [0-9]+", title)}


def is_gone(pid):
    found = t.process_stat(pid)
    return found is None or found[0] == "Z"


def unix_get(path, target="/livez"):
    with t.Raw(path) as client:
        return client.request("GET", target)


def deaths(server):
    return server.errors("worker_died")


# ---- the command line

@t.case("-h prints the flags and every setting of -T")
def _():
    code, out, err = run("-h")
    t.equal((code, err), (OK, ""))
    _, dump, _ = run("-T")
    for name in re.findall(r"^([a-z_]+) = ", dump, re.MULTILINE):
        t.check(re.search(rf"^  {name} ", out, re.MULTILINE), f"{name} in -h")


@t.case("-V names versions, the kernel and the back end")
def _():
    code, out, _ = run("-V", "-o", "io_backend=epoll")
    t.equal(code, OK)
    for pattern in (r"\Abooksd [0-9]", r"^libpq [0-9]", r"^liburing [0-9]",
                    r"^jansson [0-9]", r"^Linux [0-9]",
                    r"^I/O back end: epoll"):
        t.check(re.search(pattern, out, re.MULTILINE), f"{pattern} in {out}")


@t.case("-t checks and says so, and starts nothing")
def _():
    t.equal(run("-t", *flags(BASIC)), (OK, "booksd: configuration ok\n", ""))


@t.case("-T read back with -c gives the same, but for the origins")
def _():
    def without_origins(text):
        return re.sub(r"  # .*", "", text)

    code, out, _ = run("-T", "-o", 'greeting=a "b" \\ # c', "-o",
                       "listen=127.0.0.1:1", "-o", "listen=unix:/x y", env={
                           "BOOKS_WORKERS": "3",
                           "BOOKS_DATABASE": "host=a password=geheim"})
    t.equal(code, OK)
    t.check("geheim" not in out, "the password is masked")
    t.check("workers = 3  # environment BOOKS_WORKERS" in out, out)
    t.check('listen = "127.0.0.1:1, unix:/x y"  # -o' in out, out)
    path = write("dump.conf", out)
    code, again, err = run("-c", path, "-T")
    t.equal((code, err), (OK, ""))
    t.equal(without_origins(again), without_origins(out), "the dump")
    t.check(f"  # {path}:1\n" in again, "the origin is file and line")


@t.case("a flag beats the environment, that the file, that the default")
def _():
    path = write("three.conf",
                 "workers = 1\ngreeting = f\nlog_level = warn\n")
    _, out, _ = run("-T", "-c", path, "-o", "workers=3",
                    env={"BOOKS_WORKERS": "2", "BOOKS_GREETING": "e"})
    for line in ("workers = 3  # -o",
                 'greeting = "e"  # environment BOOKS_GREETING',
                 f"log_level = warn  # {path}:3",
                 "log_format = json  # default"):
        t.check(line + "\n" in out, f"{line} in {out}")


@t.case("a secret comes from the file that BOOKS_DATABASE_FILE names")
def _():
    path = write("secret", "host=a password=geheim\n")
    _, out, _ = run("-T", env={"BOOKS_DATABASE_FILE": path})
    t.check(re.search(r'^database = ".*host=a.*"  # environment '
                      r"BOOKS_DATABASE_FILE$", out, re.MULTILINE), out)
    t.check("geheim" not in out, "the password is masked")


@t.case("all that is wrong is said, with its place and the nearest name")
def _():
    path = write("bad.conf", "# one\nworker = 3\ndrain_delay = 5\n")
    code, _, err = run("-t", "-c", path, "-o", "workers=999", "-o",
                       "wrokers=1", env={"BOOKS_GREETNG": "x"})
    t.equal(code, CONFIG)
    for line in (
            "booksd: there is no setting 'worker', did you mean 'workers'? "
            f"(from {path}:2)",
            "booksd: drain_delay=5: need 0 to 1h (ms, s, m, h) "
            f"(from {path}:3)",
            "booksd: there is no setting 'greetng', did you mean 'greeting'? "
            "(from environment BOOKS_GREETNG)",
            "booksd: workers=999: need auto or 1 to 64 processes (from -o)",
            "booksd: there is no setting 'wrokers', did you mean 'workers'? "
            "(from -o)"):
        t.check(line + "\n" in err, f"{line} in {err}")
    t.equal(len(err.splitlines()), 5, "lines")


@t.case("each kind of mistake has its exit code of sysexits(3)")
def _():
    for args, want in ((["-z"], USAGE), (["surplus"], USAGE),
                       (["-o", "workers"], USAGE), (["-c"], USAGE),
                       (["-t", "-o", "workers=0"], CONFIG),
                       (["-t", "-c", "/nonexistent"], CONFIG),
                       (["-t", "-o", "database=nonsense"], CONFIG),
                       (["-t", "-o", "listen=8080"], CONFIG),
                       (["-t", "-o", "drain_delay=1h"], CONFIG),
                       (["-T", "-o", "workers=0"], CONFIG),
                       (["-V", "-o", "workers=0"], CONFIG),
                       (["-t", "-o", "user=no-such-user"], NOUSER),
                       (["-f", "-o", "access_log=/nonexistent/log", "-o",
                         "listen=127.0.0.1:0"], CANTCREAT),
                       (["-f", "-o", "pid_file=/nonexistent/pid", "-o",
                         "listen=127.0.0.1:0"], CANTCREAT),
                       (["-f", "-o", "listen=unix:/nonexistent/s"],
                        CANTCREAT),
                       (["-f", "-o", "listen=192.0.2.1:80"], OSERR)):
        code, _, err = run(*args)
        t.equal(code, want, f"{args}: {err}")
        t.check(err.strip(), f"{args} says something")


@t.case("becoming somebody else needs root, and a low port a permission")
def _():
    if os.getuid() != 0:
        t.skip("only root can become nobody for this")
    t.equal(run("-t", "-o", "user=daemon", user="nobody")[0], NOPERM, "user")
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start",
              encoding="ascii") as file:
        if int(file.read()) > 79:
            code, _, err = run("-f", "-o", "listen=127.0.0.1:79",
                               user="nobody")
            t.equal(code, NOPERM, err)


# ---- listening

@t.case("a busy port is named, with what to do about it")
def _():
    with t.Booksd(BASIC) as server:
        address = "%s:%d" % server.address
        code, _, err = run("-f", *flags({**BASIC, "listen": address}))
        t.equal(code, OSERR)
        t.check(re.search(rf"cannot listen on {re.escape(address)}: Address "
                          "already in use; .*-o listen=", err), err)
        t.equal(server.request("GET", "/livez").status, 200, "the first one")


@t.case("several addresses of both families and a unix socket are served")
def _():
    port, star = t.free_port(), t.free_port()
    path = os.path.join(scratch, "http.sock")
    listen = [f"127.0.0.1:{port}", f"*:{star}", f"unix:{path}"]
    has_v6 = os.path.exists("/proc/net/if_inet6")
    if has_v6:
        listen.append(f"[::1]:{port}")
    with t.Booksd({**BASIC, "listen": listen}) as server:
        places = [("127.0.0.1", port), ("127.0.0.1", star), path]
        if has_v6:
            places += [("::1", port), ("::1", star)]
        for place in places:
            t.equal(unix_get(place).status, 200, str(place))
        mode = os.stat(path).st_mode
        t.check(stat.S_ISSOCK(mode), "a socket")
        t.equal(stat.S_IMODE(mode), 0o660, "its mode")
        told = server.errors("started")[0]["listen"].split()
        t.equal(len(told), len(places), f"addresses in {told}")
        t.equal(server.stop(), OK)
    t.check(not os.path.exists(path), "the path is removed at the end")


@t.case("an abandoned unix socket is replaced, a living one is not")
def _():
    path = os.path.join(scratch, "stale.sock")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    with t.Booksd({**BASIC, "listen": f"unix:{path}"}, wait=None) as server:
        t.eventually(lambda: server.errors("io_backend"), "it runs")
        t.equal(unix_get(path).status, 200, "over the stale socket")
        code, _, err = run("-f", *flags({**BASIC, "listen": f"unix:{path}"}))
        t.equal(code, OSERR)
        t.check("Address already in use" in err, err)
        t.equal(unix_get(path).status, 200, "the first one lives on")
        # Somebody else's file in its place stays there at the end.
        os.rename(path, path + ".old")
        write("stale.sock", "not a socket")
        code, _, err = run("-f", *flags({**BASIC, "listen": f"unix:{path}"}))
        t.equal(code, CANTCREAT)
        t.check("a file that is no socket is in the way" in err, err)
        t.equal(server.stop(), OK)
    t.check(os.path.exists(path), "a file that is not ours stays")


# ---- the process

@t.case("the pid file has the master's pid, is locked, and goes with it")
def _():
    path = write("pid", "1\nrubbish of a dead one")
    with t.Booksd({**BASIC, "pid_file": path}) as server:
        with open(path, encoding="ascii") as file:
            t.equal(file.read(), f"{server.pid}\n")
        code, _, err = run("-f", *flags({**BASIC, "pid_file": path,
                                         "listen": "127.0.0.1:0"}))
        t.equal(code, CANTCREAT)
        t.check(f"another booksd runs as process {server.pid} " in err, err)
        t.equal(server.stop(), OK)
    t.check(not os.path.exists(path), "the file is gone")


@t.case("without -f it goes to the background when it listens")
def _():
    pid_file = os.path.join(scratch, "daemon.pid")
    log = os.path.join(scratch, "daemon.log")
    port = t.free_port()
    args = flags({**BASIC, "pid_file": pid_file, "error_log": log,
                  "access_log": "off", "listen": f"127.0.0.1:{port}"})
    t.equal(run(*args), (OK, "", ""))
    with open(pid_file, encoding="ascii") as file:
        pid = int(file.read())
    try:
        # It listens already: this waits in the queue at worst.
        t.equal(unix_get(("127.0.0.1", port)).status, 200)
        state = t.process_stat(pid)
        t.equal(state[2], pid, "its own process group")
        t.equal(state[3], pid, "its own session")
        t.equal(os.readlink(f"/proc/{pid}/cwd"), "/", "working directory")
        t.equal(os.readlink(f"/proc/{pid}/fd/2"), "/dev/null", "stderr")
        # What goes wrong in the background is the caller's to know.
        code, _, err = run(*args[:-1], "listen=127.0.0.1:0")
        t.equal(code, CANTCREAT, err)
        t.equal(run(*args)[0], OSERR, "the port is busy")
    finally:
        os.kill(pid, signal.SIGTERM)
    t.eventually(lambda: is_gone(pid), "the daemon ends by SIGTERM")


@t.case("titles tell processes apart and hide what was on the command line")
def _():
    with t.Booksd({**BASIC, "database": NOWHERE + " password=geheim"},
                  env={"BOOKS_GREETING": "versteckt"}) as server:
        t.equal(t.process_title(server.pid), "booksd: master")
        t.equal(sorted(server.children().values()),
                ["booksd: worker 0", "booksd: worker 1"])
        for pid in [server.pid, *server.worker_pids()]:
            for name in ("cmdline", "environ"):
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    text = file.read()
                t.check(b"geheim" not in text and b"versteckt" not in text,
                        f"{name} of {pid} is clean")
        names = {status_of(pid)["Name"] for pid in server.worker_pids()}
        t.equal(names, {"booksd:worker0", "booksd:worker1"})
        t.equal(status_of(server.pid)["Name"], "booksd:master")
        t.equal(server.request("GET", "/").body, b"versteckt", "it got it")


@t.case("workers have the user's privileges and no way to others")
def _():
    if os.getuid() != 0:
        t.skip("needs root")
    nobody = pwd.getpwnam("nobody")
    with t.Booksd({**BASIC, "user": "nobody"}) as server:
        t.equal(len(server.worker_pids()), 2, "workers")
        # A worker carries its title before it has dropped anything.
        t.eventually(lambda: all(
            status_of(pid)["Uid"].split() == [str(nobody.pw_uid)] * 4
            for pid in server.worker_pids()), "the workers are nobody")
        for pid in server.worker_pids():
            found = status_of(pid)
            t.equal(found["Uid"].split(), [str(nobody.pw_uid)] * 4, "uid")
            t.equal(found["Gid"].split(), [str(nobody.pw_gid)] * 4, "gid")
            groups = [str(g) for g in os.getgrouplist("nobody",
                                                      nobody.pw_gid)]
            t.equal(sorted(found["Groups"].split()), sorted(groups))
            t.equal(found["NoNewPrivs"], "1", "no_new_privs")
            for name in ("CapPrm", "CapEff", "CapAmb"):
                t.equal(int(found[name], 16), 0, name)
        t.equal(status_of(server.pid)["Uid"].split()[0], "0", "the master")
        # A worker that comes later is no different.
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        t.eventually(lambda: len(server.worker_pids()) == 2, "a new worker")
        server.wait_for("livez")
        t.eventually(lambda: all(
            status_of(pid)["Uid"].split()[0] == str(nobody.pw_uid)
            for pid in server.worker_pids()), "it dropped privileges too")


@t.case("workers may open as many files as the hard limit allows")
def _():
    command = [t.BOOKSD, "-f", *flags({**BASIC, "listen": "127.0.0.1:0"})]
    with subprocess.Popen(
            ["sh", "-c", 'ulimit -Sn 64; exec "$@"', "sh", *command],
            env=t.clean_environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=t.die_with_parent()) as process:
        def limits():
            for pid in t.processes():
                found = t.process_stat(pid)
                if found and found[1] == process.pid and \
                        t.process_title(pid).startswith("booksd: worker"):
                    with open(f"/proc/{pid}/limits", encoding="ascii") as file:
                        words = re.search(r"Max open files +(\d+) +(\d+)",
                                          file.read())
                    return words[1] == words[2]
            return False
        try:
            t.eventually(limits, "the soft limit is the hard one")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


@t.case("the start line tells the workers, the addresses and the budget")
def _():
    with t.Booksd({**BASIC, "workers": 3, "database_connections": 7}) as server:
        line = server.errors("started")[0]
        t.equal(line["workers"], 3)
        t.equal(line["workers_source"], "setting")
        t.equal(line["database_connections"], 7)
        t.equal(line["listen"], "%s:%d" % server.address)
        t.equal(line["io_backend"], "auto")
        t.equal(line["process"], "master")
    with t.Booksd({**BASIC, "workers": "auto"}) as server:
        line = server.errors("started")[0]
        t.check(1 <= line["workers"] <= 64, line)
        t.check(line["workers_source"] != "setting", line)
        t.equal(line["database_connections"], 4 * line["workers"])


# ---- deaths

@t.case("killed workers under load are replaced, each told once, none leaks")
def _():
    with t.Booksd({**BASIC, "workers": 4}) as server:
        t.eventually(lambda: len(worker_slots(server)) == 4, "four workers")
        before = descriptors(server.pid)
        killed = []
        with t.Load(server.address, 16, ["/"]) as load:
            load.wait_for(200)
            for turn in range(8):
                slot, pid = sorted(worker_slots(server).items())[turn % 4]
                os.kill(pid, signal.SIGKILL)
                killed.append((slot, pid))
                t.eventually(lambda at=slot, old=pid: worker_slots(
                    server).get(at, old) != old, f"worker {slot} is replaced")
                load.wait_for(50)
        result = load.stop()
        t.diag(str(result))
        told = [(line["worker"], line["pid"]) for line in deaths(server)]
        t.equal(told, killed, "deaths in the log")
        t.equal({line["cause"] for line in deaths(server)},
                {"signal 9 (SIGKILL)"})
        t.equal(server.zombies(), [], "zombies")
        t.equal(descriptors(server.pid), before, "descriptors of the master")
        t.equal(len(worker_slots(server)), 4, "workers")
        t.equal(server.request("GET", "/livez").status, 200)
        t.equal(server.stop(), OK)


@t.case("a worker that dies again and again waits longer each time")
def _():
    with t.Booksd(BASIC) as server:
        for count in range(1, 6):
            pid = t.eventually(lambda: worker_slots(server).get(1),
                               "worker 1 is there")
            # SIGSYS: one with a core, and that sanitizers leave alone.
            os.kill(pid, signal.SIGSYS if count == 2 else signal.SIGKILL)
            t.eventually(lambda want=count: len(deaths(server)) == want,
                         f"death {count} is told")
            t.equal(server.request("GET", "/livez").status, 200, "the other")
        t.equal([line["restart_in_ms"] for line in deaths(server)],
                [0, 100, 200, 400, 800])
        t.check(deaths(server)[1]["cause"].startswith("signal 31 (SIGSYS)"),
                deaths(server)[1]["cause"])
        t.equal({line["worker"] for line in deaths(server)}, {1})
        # The other slot has a history of its own.
        os.kill(worker_slots(server)[0], signal.SIGKILL)
        t.eventually(lambda: len(deaths(server)) == 6, "the sixth death")
        t.equal(deaths(server)[5]["restart_in_ms"], 0, "worker 0")


@t.case("a worker that ends by itself is replaced as well")
def _():
    with t.Booksd(BASIC) as server:
        pid = worker_slots(server)[0]
        os.kill(pid, signal.SIGTERM)
        t.eventually(lambda: deaths(server), "its end is told", 20)
        t.equal(deaths(server)[0]["cause"], "exit code 0")
        t.eventually(lambda: worker_slots(server).get(0, pid) != pid,
                     "it is replaced")


@t.case("workers do not outlive a killed master")
def _():
    for settings in (BASIC, {**BASIC, "user": "nobody"}):
        if "user" in settings and os.getuid() != 0:
            continue
        with t.Booksd(settings) as server:
            workers = server.worker_pids()
            t.equal(len(workers), 2, "workers")
            t.equal(server.kill(), -signal.SIGKILL)
            t.eventually(lambda pids=workers: all(map(is_gone, pids)),
                         "the workers are gone")


# ---- the end

@t.case("TERM and QUIT drain, INT stops, all with exit code 0")
def _():
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
        with t.Booksd(BASIC) as server:
            t.equal(server.stop(number), OK, str(number))
            t.equal(server.leftovers(), [], "processes")
            names = [line["event"] for line in server.errors()
                     if line["process"] == "master"]
            wanted = ("stopping" if number == signal.SIGINT else "draining")
            t.equal(names, ["started", wanted, "stopped"], "events")


@t.case("a second TERM stops a drain that would take long")
def _():
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
        with t.Booksd({**BASIC, "drain_delay": "10m",
                       "drain_timeout": "20m"}) as server:
            server.send_signal(signal.SIGTERM)
            t.eventually(lambda s=server: s.errors("draining"), "it drains")
            t.equal(server.request("GET", "/").status, 200, "while draining")
            t.equal(server.stop(number, 20), OK, str(number))
            t.equal(deaths(server), [], "deaths")


@t.case("workers that do not listen any more are killed when time is up")
def _():
    for number, settings in (
            (signal.SIGTERM, {**BASIC, "drain_timeout": "300ms"}),
            (signal.SIGINT, BASIC)):
        with t.Booksd(settings) as server:
            stuck = server.worker_pids()[0]
            os.kill(stuck, signal.SIGSTOP)
            t.equal(server.stop(number, 20), OK, str(number))
            t.equal(server.errors("stop_overdue")[0]["processes"], 1)
            t.equal(deaths(server), [], "deaths")


@t.case("a worker that dies while draining is told and not replaced")
def _():
    with t.Booksd({**BASIC, "drain_delay": "10m",
                   "drain_timeout": "20m"}) as server:
        server.send_signal(signal.SIGTERM)
        t.eventually(lambda: server.errors("draining"), "it drains")
        victim, other = server.worker_pids()
        os.kill(victim, signal.SIGKILL)
        t.eventually(lambda: deaths(server), "the death is told")
        t.check("restart_in_ms" not in deaths(server)[0], "not replaced")
        t.equal(server.worker_pids(), [other], "workers")
        t.equal(server.stop(signal.SIGTERM, 20), OK)


@t.case("signals that mean nothing yet are told once and change nothing")
def _():
    numbers = (signal.SIGHUP, signal.SIGUSR2, signal.SIGWINCH,
               signal.SIGTTIN, signal.SIGTTOU)
    with t.Booksd(BASIC) as server:
        for number in numbers * 2:
            server.send_signal(number)
            t.eventually(lambda: {line["signal"] for line in server.errors(
                "signal_ignored")} >= {number.name}, f"{number.name} is told")
        told = [line["signal"] for line in server.errors("signal_ignored")]
        t.equal(told, [number.name for number in numbers])
        t.equal(server.request("GET", "/livez").status, 200)
        t.equal(server.stop(), OK)


@t.case("signals ignored by whoever started it still work")
def _():
    def ignore():
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        t.die_with_parent()()

    log = os.path.join(scratch, "ignored.log")
    settings = {**BASIC, "listen": "127.0.0.1:0", "error_log": log}
    with subprocess.Popen([t.BOOKSD, "-f", *flags(settings)],
                          env=t.clean_environment(), preexec_fn=ignore,
                          restore_signals=False, stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL) as process:
        try:
            t.eventually(lambda: os.path.exists(log) and
                         "io_backend" in open(log, encoding="utf-8").read(),
                         "it runs")
            process.send_signal(signal.SIGTERM)
            t.equal(process.wait(20), OK)
        finally:
            process.kill()


# ---- service managers and containers

class Manager:
    """The socket of a service manager: a path, or '@' and a name."""

    def __init__(self, name):
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + name[1:] if name[0] == "@" else name)
        self.socket.setblocking(False)
        self.lines = []

    def has(self, line):
        with contextlib.suppress(BlockingIOError):
            while True:
                self.lines += self.socket.recv(4096).decode().splitlines()
        return line in self.lines

    def close(self):
        self.socket.close()


with t.Postgres(start=False) as pg:
    @t.case("a service manager hears READY when it serves, then STOPPING")
    def _():
        for name in (os.path.join(scratch, "notify"),
                     f"@booksd-test-{os.getpid()}"):
            manager = Manager(name)
            with t.Booksd({**BASIC, "database": pg.conninfo,
                           "migrate_on_start": "on"},
                          env={"NOTIFY_SOCKET": name}) as server:
                t.check(not manager.has("READY=1"), "not without a database")
                t.equal(server.request("GET", "/readyz").status, 503)
                if not pg.is_up():
                    pg.start()
                server.wait_for("readyz", 30)
                t.eventually(lambda m=manager: m.has("READY=1"), "READY=1")
                t.check(not manager.has("STOPPING=1"), "not stopping yet")
                t.equal(server.stop(), OK)
                t.check(manager.has("STOPPING=1"), "STOPPING=1")
                t.equal(manager.lines.count("READY=1"), 1, "READY=1")
            manager.close()
            pg.stop()

    @t.case("the migrating child has its title and ends with the master")
    def _():
        with t.Booksd({**BASIC, "database": pg.conninfo,
                       "migrate_on_start": "on"}) as server:
            t.eventually(lambda: "booksd: migrate" in
                         server.children().values(), "it waits")
            t.equal(server.request("GET", "/").status, 200, "meanwhile")
            t.equal(server.stop(), OK)
        with t.Booksd({**BASIC, "database": pg.conninfo,
                       "migrate_on_start": "on"}) as server:
            child = t.eventually(
                lambda: [pid for pid, title in server.children().items()
                         if title == "booksd: migrate"], "it waits")[0]
            os.kill(child, signal.SIGKILL)
            line = t.eventually(lambda: server.errors("migrate_died"),
                                "its death is told")[0]
            t.equal(line["cause"], "signal 9 (SIGKILL)")
            t.eventually(lambda: [
                pid for pid, title in server.children().items()
                if title == "booksd: migrate" and pid != child],
                "it is started again")

    @t.case("with --fail-fast a missing database ends the start with 69")
    def _():
        code, _, err = run("-f", "--fail-fast", *flags(
            {**BASIC, "database": pg.conninfo, "migrate_on_start": "on",
             "listen": "127.0.0.1:0", "access_log": "off"}))
        t.equal(code, UNAVAILABLE, err)


def in_namespace(*command):
    """The command as process 1 of a pid namespace, or None."""
    probe = ["unshare", "--pid", "--fork", "--mount-proc",
             "--kill-child=KILL"]
    if shutil.which("unshare") is None or shutil.which("nsenter") is None or \
            subprocess.run([*probe, "true"], check=False,
                           stderr=subprocess.DEVNULL).returncode != 0:
        return None
    return [*probe, *command]


@t.case("as process 1 it stays in front, adopts orphans and leaves no zombie")
def _():
    port = t.free_port()
    log = os.path.join(scratch, "init.log")
    settings = {**BASIC, "listen": f"127.0.0.1:{port}", "access_log": "off",
                "error_log": log}
    command = in_namespace(t.BOOKSD, *flags(settings))
    if command is None:
        t.skip("no pid namespace can be made here")
    with subprocess.Popen(command, env=t.clean_environment(),
                          stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL,
                          preexec_fn=t.die_with_parent()) as process:
        try:
            def first():
                return [pid for pid in t.processes()
                        if (t.process_stat(pid) or "  ")[1] == process.pid]
            master = t.eventually(first, "process 1 of the namespace")[0]

            def answers():
                with contextlib.suppress(OSError):
                    return unix_get(("127.0.0.1", port)).status == 200
            t.eventually(answers, "it serves without -f in front")

            # A grandchild without a parent becomes the master's.
            subprocess.run(
                ["nsenter", "-t", str(master), "-p", "-m", "sh", "-c",
                 "sleep 0.2 & sleep 0.3 & exit 0"], check=True,
                stdin=subprocess.DEVNULL, timeout=20)

            def children():
                return [(pid, found[0]) for pid in t.processes()
                        if (found := t.process_stat(pid))
                        and found[1] == master]
            t.eventually(lambda: len(children()) == 2,
                         "only the two workers are left")
            t.eventually(lambda: all(state != "Z" for _, state in children()),
                         "no zombie")
            with open(log, encoding="utf-8") as file:
                t.check("worker_died" not in file.read(),
                        "orphans are no workers")
            os.kill(master, signal.SIGTERM)
            t.equal(process.wait(20), OK, "exit code by SIGTERM")
        finally:
            process.kill()


t.done()
