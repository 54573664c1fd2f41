"""Goal: io_uring where the kernel lets us, epoll where it does not, and never
silent about which.

Method: the real binary behind a small program that installs a seccomp filter
as Fargate, Docker and containerd do (and stranger ones) and then becomes
booksd; the log, -V and /readyz?verbose must all name the same back end.  And
each io_uring feature is taken away by itself with io_uring_without.
"""
import os
import re
import stat
import subprocess
import sys
import tempfile

import booksd_test as t

NOWHERE = "host=127.0.0.1 port=1 connect_timeout=1"
SETTINGS = {"database": NOWHERE, "migrate_on_start": "off", "workers": 1,
            "drain_delay": "0s"}
SETUP, ENTER, REGISTER = 425, 426, 427  # the same numbers on x86-64 and arm64
EPERM, ENOSYS, ENOMEM = 1, 38, 12

WRAPPER = """#!{python}
import ctypes, os, struct, sys
def op(code, jt, jf, k):
    return struct.pack("HBBI", code, jt, jf, k)
calls, errno = {calls!r}, {errno}
program = op(0x20, 0, 0, 0)                     # the call's number
for call in calls:
    program += op(0x15, 0, 1, call) + op(0x06, 0, 0, 0x50000 | errno)
program += op(0x06, 0, 0, 0x7fff0000)           # allowed
code = ctypes.create_string_buffer(program)
fprog = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
arg = ctypes.create_string_buffer(fprog)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, arg, 0, 0):
    sys.exit("seccomp was refused: errno %d" % ctypes.get_errno())
os.execv({booksd!r}, [{booksd!r}] + sys.argv[1:])
"""

real_booksd = t.BOOKSD
folder = tempfile.mkdtemp(prefix="booksd-seccomp-", dir="/tmp")


def behind(calls, errno):
    path = os.path.join(folder, "booksd")
    with open(path, "w", encoding="utf-8") as file:
        file.write(WRAPPER.format(python=sys.executable, calls=calls,
                                  errno=errno, booksd=real_booksd))
    os.chmod(path, stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP
             | stat.S_IROTH | stat.S_IXOTH)
    t.BOOKSD = path


def version(*args):
    return subprocess.run(
        [t.BOOKSD, "-V", *args], env=t.clean_environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, timeout=20, check=False).stdout.decode()


def backend_of(server):
    answer = server.request("GET", "/readyz?verbose")
    return re.findall(r'"io"\s*:\s*"([a-z_]+)"', answer.text())


def said(server):
    return server.errors("io_backend")[0]["message"]


t.BOOKSD = real_booksd
has_uring = "io_uring" in list(t.backends())

for name, errno, words in (("EPERM", EPERM, "Operation not permitted"),
                           ("ENOSYS", ENOSYS, "Function not implemented"),
                           ("ENOMEM", ENOMEM, "Cannot allocate memory")):
    behind([SETUP, ENTER, REGISTER], errno)
    with t.case(f"auto takes epoll where io_uring answers {name}, and says so"):
        with t.Booksd({**SETTINGS, "io_backend": "auto"}) as server:
            t.equal(server.request("GET", "/").status, 200, "status")
            t.equal(set(backend_of(server)), {"epoll"}, "readyz?verbose")
            t.check("epoll" in said(server) and words in said(server),
                    f"the log tells why: {said(server)}")
        text = version()
        t.check("epoll" in text and words in text, f"-V tells why: {text}")

behind([SETUP, ENTER, REGISTER], EPERM)
with t.case("io_backend = io_uring that is refused ends with 69 and a reason"):
    server = t.Booksd({**SETTINGS, "io_backend": "io_uring"}, wait=None)
    t.equal(server.wait(), 69, "exit code")
    t.check(server.errors("io_failed"), "the log names it")
    server.close()

if has_uring:
    behind([ENTER], EPERM)
    with t.case("a ring that can be made but not used is no ring: epoll"):
        with t.Booksd({**SETTINGS, "io_backend": "auto"}) as server:
            t.equal(server.request("GET", "/").status, 200, "status")
            t.equal(set(backend_of(server)), {"epoll"}, "readyz?verbose")

    behind([REGISTER], EPERM)
    with t.case("a ring without registered buffers still is io_uring"):
        with t.Booksd({**SETTINGS, "io_backend": "auto"}) as server:
            t.equal(server.request("GET", "/").status, 200, "status")
            t.equal(set(backend_of(server)), {"io_uring"}, "readyz?verbose")
            t.check("buffer_ring" not in said(server), said(server))

    t.BOOKSD = real_booksd
    for feature in ("single_issuer", "defer_taskrun", "coop_taskrun",
                    "buffer_ring", "multishot_recv"):
        with t.case(f"io_uring without {feature} serves as before"):
            with t.Booksd({**SETTINGS, "io_backend": "io_uring",
                           "io_uring_without": feature}) as server:
                with t.Load(server.address, 16, ["/", "/livez"]) as load:
                    load.wait_for(500)
                    result = load.stop()
                t.equal(result.failed, 0, "failed requests")
                t.check(feature not in said(server), said(server))

t.BOOKSD = real_booksd
with t.case("-V names the back end that would be used"):
    text = version("-o", "io_backend=epoll")
    t.check(re.search(r"\bepoll\b", text), text)
    if has_uring:
        text = version("-o", "io_backend=io_uring")
        t.check(re.search(r"io_uring \(.*multishot_recv", text), text)
t.done()
