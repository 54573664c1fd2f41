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
    env = {"BOOKS_CONTROL_SOCKET": "off", **(env or {})}
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
    """Without a control socket: the automatic one may be another booksd's."""
    settings = {"control_socket": "off", **settings}
    return [word for key, value in settings.items()
            for word in ("-o", f"{key}={value}")]


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file
                    if ":\t" in line)


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def opened(pid):
    """What its descriptors are: paths, "socket:[inode]" and so on."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found


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
                    r"^jansson [0-9]", r"^libmicrohttpd [0-9]",
                    r"^Linux [0-9]", r"^I/O back end: epoll"):
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
            "booksd: workers=999: need auto or 1 to 31 processes, or MIN..MAX (from -o)",
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
                       (["-t", "-o", "cache_size=1"], CONFIG),
                       (["-t", "-o", "cache_control= x"], CONFIG),
                       (["-t", "-o", "control_socket=x"], CONFIG),
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
        titles = ["booksd: ops", "booksd: worker 0", "booksd: worker 1"]
        t.eventually(lambda: sorted(server.children().values()) == titles,
                     "the titles of the children")
        for pid in [server.pid, *server.children()]:
            for name in ("cmdline", "environ"):
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    text = file.read()
                t.check(b"geheim" not in text and b"versteckt" not in text,
                        f"{name} of {pid} is clean")
        names = {status_of(pid)["Name"] for pid in server.worker_pids()}
        t.equal(names, {"booksd:worker0", "booksd:worker1"})
        t.equal(status_of(server.ops_pid())["Name"], "booksd:ops")
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
        t.eventually(lambda: not server.zombies(), "no zombies")
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


@t.case("workers and ops do not outlive a killed master")
def _():
    for settings in (BASIC, {**BASIC, "user": "nobody"}):
        if "user" in settings and os.getuid() != 0:
            continue
        with t.Booksd(settings) as server:
            children = t.eventually(
                lambda s=server: len(found := s.children()) == 3 and found,
                "two workers and ops")
            t.equal(server.kill(), -signal.SIGKILL)
            t.eventually(lambda pids=children: all(map(is_gone, pids)),
                         "they are gone")


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


# ---- ops

def ops_deaths(server):
    return server.errors("ops_died")


@t.case("ops is there with a cache or a control socket, and else not")
def _():
    for more, want in (({}, True), ({"cache_size": 0}, True),
                       ({"control_socket": "off"}, True),
                       ({"cache_size": 0, "control_socket": "off"}, False)):
        with t.Booksd({**BASIC, **more}) as server:
            if want:
                t.eventually(server.ops_pid, f"ops with {more}")
            else:
                t.equal(sorted(server.children().values()),
                        ["booksd: worker 0", "booksd: worker 1"])
            line = server.errors("started")[0]
            t.equal(line["cache_bytes"] > 0, "cache_size" not in more)
            t.equal(line["cache_segments"] >= 256, "cache_size" not in more)
            t.equal(line["control_socket"], server.control)
            t.equal(server.request("GET", "/").status, 200)
            t.equal(server.stop(), OK)


@t.case("a killed ops is replaced, with pauses, and nobody is disturbed")
def _():
    with t.Booksd(BASIC) as server:
        t.eventually(lambda: len(server.worker_pids()) == BASIC["workers"],
                     "all workers run")
        workers = server.worker_pids()
        before = descriptors(server.pid)
        with t.Load(server.address, 8, ["/"]) as load:
            for count in range(1, 5):
                pid = t.eventually(server.ops_pid, "ops is there")
                os.kill(pid, signal.SIGKILL)
                t.eventually(lambda want=count: len(ops_deaths(server)) ==
                             want, f"death {count} is told")
                t.eventually(lambda old=pid: server.ops_pid() not in
                             (None, old), "another one")
                load.wait_for(50)
        result = load.stop()
        t.equal((result.failed, result.retries), (0, 0), str(result))
        t.equal([line["restart_in_ms"] for line in ops_deaths(server)],
                [0, 100, 200, 400])
        t.equal({line["cause"] for line in ops_deaths(server)},
                {"signal 9 (SIGKILL)"})
        t.equal(server.worker_pids(), workers, "the workers are the same")
        t.equal(deaths(server), [], "deaths of workers")
        t.equal(descriptors(server.pid), before, "descriptors of the master")
        # Its death is not a worker's: there is nothing to give back.
        t.equal(server.errors("cache_audited"), [])
        t.equal(server.stop(), OK)


@t.case("ops has the user's privileges and no listening TCP socket")
def _():
    user = {"user": "nobody"} if os.getuid() == 0 else {}
    with t.Booksd({**BASIC, **user}) as server:
        pid = t.eventually(server.ops_pid, "ops is there")
        if user:
            uid = str(pwd.getpwnam("nobody").pw_uid)
            t.eventually(lambda: status_of(pid)["Uid"].split() == [uid] * 4,
                         "it is nobody")
            t.equal(int(status_of(pid)["CapEff"], 16), 0, "capabilities")
        t.eventually(lambda: status_of(pid)["NoNewPrivs"] == "1",
                     "no_new_privs")

        def listening(table):
            with open(f"/proc/net/{table}", encoding="ascii") as file:
                rows = [line.split() for line in file.readlines()[1:]]
            return {row[9] for row in rows if row[3] == "0A"}

        tcp = {f"socket:[{inode}]"
               for inode in listening("tcp") | listening("tcp6")}
        t.check(opened(server.worker_pids()[0]) & tcp, "a worker has one")
        t.equal(opened(pid) & tcp, set(), "of ops")


@t.case("ops ends after the last worker")
def _():
    with t.Booksd({**BASIC, "drain_delay": "10m",
                   "drain_timeout": "20m"}) as server:
        pid = t.eventually(server.ops_pid, "ops is there")
        server.send_signal(signal.SIGTERM)
        t.eventually(lambda: server.errors("draining"), "it drains")
        for worker in server.worker_pids():
            t.equal(server.ops_pid(), pid, "while a worker lives")
            os.kill(worker, signal.SIGKILL)
            t.eventually(lambda old=worker: is_gone(old), "a worker less")
        t.equal(server.wait(20), OK)
        t.check(is_gone(pid), "ops is gone")
        t.equal(ops_deaths(server), [], "it ended in good order")
        t.equal(server.errors("stop_overdue"), [], "and in time")


@t.case("an ops that does not listen any more is killed at the end")
def _():
    for number in (signal.SIGTERM, signal.SIGINT):
        with t.Booksd(BASIC) as server:
            pid = t.eventually(server.ops_pid, "ops is there")
            os.kill(pid, signal.SIGSTOP)
            t.equal(server.stop(number, 20), OK, str(number))
            t.equal(server.errors("stop_overdue")[0]["processes"], 1)


@t.case("USR1 makes ops open its logs again")
def _():
    log = os.path.join(scratch, "ops.log")
    with t.Booksd({**BASIC, "error_log": log}) as server:
        pid = t.eventually(server.ops_pid, "ops is there")
        t.eventually(lambda: log in opened(pid), "it has the log open")
        os.rename(log, log + ".1")
        t.check(log + ".1" in opened(pid), "the renamed one")
        # It may have to come as far as reading signals first.
        t.eventually(lambda: server.send_signal(signal.SIGUSR1) or
                     log in opened(pid), "the new one", every=0.1)
        t.equal(server.stop(), OK)


# ---- the cache

@t.case("a cache that the memory does not allow, or too small, is refused")
def _():
    with open("/proc/meminfo", encoding="ascii") as file:
        total = int(re.search(r"MemTotal: +([0-9]+) kB", file.read())[1])
    wanted = min(total // 1024 + 1024, 64 * 1024)
    if wanted * 1024 < total:
        t.skip("this machine has memory for any cache")
    for mode in ("-t", "-f"):
        code, out, err = run(mode, *flags({**BASIC, "listen": "127.0.0.1:0",
                                           "cache_size": f"{wanted}MiB"}))
        t.equal((code, out), (CONFIG, ""), err)
        t.check(re.search(
            rf"cache_size={wanted}MiB: the cache would take [0-9.]+ GiB, and "
            r"of the [0-9.]+ [MG]iB that are left it may take 75 %, "
            r"[0-9.]+ [MG]iB: (MemAvailable|memory\.)", err), err)
    code, _, err = run("-t", *flags({**BASIC, "cache_size": "1MiB",
                                     "workers": 3}))
    t.equal(code, CONFIG)
    t.check("cache_size=1MiB: need at least 2.8 MiB for 3 workers" in err, err)


@t.case("the memory limit of our own control group counts")
def _():
    for mount, limit, procs in (
            ("/sys/fs/cgroup", "memory.max", "cgroup.procs"),
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes",
             "cgroup.procs")):
        group = os.path.join(mount, f"booksd-test-{os.getpid()}")
        try:
            os.mkdir(group)
        except OSError:
            continue
        try:
            if not os.path.exists(os.path.join(group, limit)):
                continue
            with open(os.path.join(group, limit), "w",
                      encoding="ascii") as file:
                file.write("134217728")

            def enter(path=os.path.join(group, procs)):
                with open(path, "w", encoding="ascii") as file:
                    file.write(str(os.getpid()))
            code, _, err = run("-t", *flags({**BASIC, "cache_size": "120MiB"}),
                               preexec_fn=enter)
            t.equal(code, CONFIG, err)
            t.check(f"{limit} of {group} is 128 MiB, " in err, err)
            code, _, err = run("-t", *flags({**BASIC, "cache_size": "64MiB"}),
                               preexec_fn=enter)
            t.equal(code, OK, err)
            return
        except OSError as error:
            t.diag(str(error))
        finally:
            os.rmdir(group)
    t.skip("no control group with a memory limit can be made here")


@t.case("each worker's death is swept, and the abnormal ones are audited")
def _():
    with t.Booksd(BASIC) as server:
        for count in range(1, 4):
            slot = count % 2
            pid = t.eventually(lambda at=slot: worker_slots(server).get(at),
                               "the worker is there")
            os.kill(pid, signal.SIGKILL)
            t.eventually(lambda want=count: len(server.errors(
                "cache_audited")) == want, f"audit {count}")
        t.equal(server.errors("cache_audit_failed"), [])
        # By its own will and in order: swept, and no reason to distrust it.
        os.kill(worker_slots(server)[0], signal.SIGTERM)
        t.eventually(lambda: len(deaths(server)) == 4, "the fourth end", 20)
        t.eventually(lambda: len(worker_slots(server)) == 2, "it is replaced")
        t.equal(len(server.errors("cache_audited")), 3, "audits")
        t.equal(server.stop(), OK)
    with t.Booksd({**BASIC, "cache_size": 0}) as server:
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        t.eventually(lambda: deaths(server), "the death is told")
        t.equal(server.stop(), OK)
        t.equal(server.errors("cache_audited"), [], "without a cache")


@t.case("a cache that was written into is told and not served from")
def _():
    with t.Booksd(BASIC) as server:
        t.eventually(lambda: len(worker_slots(server)) == 2, "two workers")
        fd = next(fd for fd in os.listdir(f"/proc/{server.pid}/fd")
                  if os.readlink(f"/proc/{server.pid}/fd/{fd}").startswith(
                      "/memfd:booksd-cache"))
        # What a stray write could do: the first word is the map's magic.
        with open(f"/proc/{server.pid}/fd/{fd}", "r+b", buffering=0) as file:
            magic = file.read(8)
            file.seek(0)
            file.write(bytes(8))
            os.kill(worker_slots(server)[1], signal.SIGKILL)
            line = t.eventually(lambda: server.errors("cache_audit_failed"),
                                "the breach is told")[0]
            t.equal((line["level"], line["process"], line["breaches"]),
                    ("error", "audit", 1))
            t.check("the head has changed" in line["why"], line["why"])
            t.equal(server.request("GET", "/").status, 200, "it goes on")
            t.equal(server.errors("cache_audited"), [])
            file.seek(0)
            file.write(magic)
        t.eventually(lambda: len(worker_slots(server)) == 2, "two workers")
        os.kill(worker_slots(server)[0], signal.SIGKILL)
        t.eventually(lambda: server.errors("cache_audited"), "all is well")
        t.equal(len(server.errors("cache_audit_failed")), 1)
        t.equal(server.stop(), OK)


# ---- the control socket

def is_listening(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(path)
        except OSError:
            return False
    return True


@t.case("the control socket is its owner's alone and goes with the master")
def _():
    user = {"user": "nobody"} if os.getuid() == 0 else {}
    owner = pwd.getpwnam("nobody").pw_uid if user else os.getuid()
    old = os.umask(0)
    try:
        with t.Booksd({**BASIC, **user}) as server:
            found = os.lstat(server.control)
            t.check(stat.S_ISSOCK(found.st_mode), "a socket")
            t.equal(oct(stat.S_IMODE(found.st_mode)), oct(0o600), "its mode")
            t.equal(found.st_uid, owner, "its owner")
            t.check(is_listening(server.control), "somebody listens")
            t.equal(server.stop(), OK)
            t.check(not os.path.lexists(server.control), "it is gone")
    finally:
        os.umask(old)


@t.case("an abandoned control socket is replaced, a living one is not")
def _():
    path = os.path.join(scratch, "control.sock")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    settings = {**BASIC, "control_socket": path}
    with t.Booksd(settings) as server:
        t.check(is_listening(path), "over the stale socket")
        code, _, err = run("-f", *flags({**settings,
                                         "listen": "127.0.0.1:0"}))
        t.equal(code, CANTCREAT)
        t.check(f"cannot make the control socket {path}: another booksd "
                "listens there" in err, err)
        t.check(is_listening(path), "the first one's lives on")
        # Somebody else's file in its place stays there at the end.
        os.rename(path, path + ".old")
        write("control.sock", "not a socket")
        code, _, err = run("-f", *flags({**settings,
                                         "listen": "127.0.0.1:0"}))
        t.equal(code, CANTCREAT)
        t.check("a file that is no socket is in the way" in err, err)
        t.equal(server.stop(), OK)
    t.check(os.path.exists(path), "a file that is not ours stays")
    os.unlink(path)
    # A killed master leaves its socket; the next one takes the path over.
    with t.Booksd(settings) as server:
        server.kill()
        t.check(os.path.exists(path), "left behind")
    with t.Booksd(settings) as server:
        t.check(is_listening(path), "taken over")


@t.case("a control socket is not made through a symbolic link")
def _():
    target = os.path.join(scratch, "target.sock")
    path = os.path.join(scratch, "link.sock")
    os.symlink(target, path)
    code, _, err = run("-f", *flags({**BASIC, "listen": "127.0.0.1:0",
                                     "control_socket": path}))
    t.equal(code, CANTCREAT, err)
    t.check(not os.path.lexists(target), "nothing behind the link")
    t.check(os.path.islink(path), "the link stays")
    code, _, err = run("-f", *flags({**BASIC, "listen": "127.0.0.1:0",
                                     "control_socket": "/nonexistent/x"}))
    t.equal(code, CANTCREAT, err)
    t.check("/nonexistent/x: No such file or directory" in err, err)


AUTO_USER = "daemon"  # has no files in /tmp that others might miss


@contextlib.contextmanager
def auto_booksd():
    """A booksd of AUTO_USER with the automatic socket, and its folder."""
    if os.getuid() != 0:
        t.skip("needs root to be another user")
    folder = f"/tmp/booksd-{pwd.getpwnam(AUTO_USER).pw_uid}"
    if os.path.lexists(folder):
        t.skip(f"{folder} is there already")

    def start():
        return t.Booksd({**BASIC, "control_socket": "auto"}, user=AUTO_USER,
                        group=pwd.getpwnam(AUTO_USER).pw_gid)
    try:
        yield folder, start
    finally:
        if os.path.islink(folder):
            os.unlink(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)


@t.case("the automatic control socket lies in a folder of ours")
def _():
    with auto_booksd() as (folder, start):
        path = os.path.join(folder, "control.sock")
        with start() as server:
            found = os.lstat(folder)
            t.equal(oct(stat.S_IMODE(found.st_mode)), oct(0o700), "mode")
            t.equal(found.st_uid, pwd.getpwnam(AUTO_USER).pw_uid, "owner")
            t.check(is_listening(path), "somebody listens")
            t.equal(server.errors("started")[0]["control_socket"], path)
            t.equal(server.errors("control_socket_missing"), [])
            # A second one does without, and leaves the first one's alone.
            with start() as second:
                line = second.errors("control_socket_missing")[0]
                t.equal(line["reason"], "another booksd listens there")
                t.equal(line["path"], path)
                t.equal(second.errors("started")[0]["control_socket"], "off")
                t.equal(second.stop(), OK)
            t.check(is_listening(path), "the first one's is there")
            t.equal(server.stop(), OK)
        t.check(not os.path.lexists(path), "it is gone")


@t.case("a folder that another user made or can write to is not used")
def _():
    elsewhere = os.path.join(scratch, "elsewhere")
    uid = pwd.getpwnam(AUTO_USER).pw_uid

    def mine(mode, owner):
        def make(folder):
            os.mkdir(folder)
            os.chown(folder, owner, -1)
            os.chmod(folder, mode)
        return make

    def link(folder):
        os.mkdir(elsewhere)
        os.chown(elsewhere, uid, -1)
        os.chmod(elsewhere, 0o700)
        os.symlink(elsewhere, folder)
        os.lchown(folder, uid, -1)

    for make, reason in (
            (mine(0o777, 0), "its folder belongs to another user"),
            (mine(0o770, uid), "other users may write to its folder"),
            (mine(0o1777, uid), "other users may write to its folder"),
            (link, "its folder's name is taken by what is no folder")):
        with auto_booksd() as (folder, start):
            make(folder)
            with start() as server:
                line = server.errors("control_socket_missing")[0]
                t.equal(line["reason"], reason)
                t.equal(server.request("GET", "/livez").status, 200)
            t.check(not os.path.lexists(
                os.path.join(folder, "control.sock")), "nothing is made")
    t.equal(os.listdir(elsewhere), [], "behind the link")


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
            t.eventually(lambda: len(children()) == 3,
                         "only the two workers and ops are left")
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
