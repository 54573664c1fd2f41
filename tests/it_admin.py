#!/usr/bin/env python3
"""Goal: the admin listener gives the answers of the control socket, over TCP
and over a unix socket, lets nobody change anything who may not, and never
keeps a second booksd from starting.
Method: real booksd, most without a database.  A peer of another machine is played by
this machine's own address outside loopback, where it has one.
"""
import os
import signal
import socket
import stat
import subprocess

import booksd_test as t

TOKEN = "It-is-a-secret-of-24-chars"
AWAY = "host=127.0.0.1 port=1"
OSERR, CANTCREAT, CONFIG = 71, 73, 78


def server(settings=None, **kwargs):
    return t.Booksd({"database": AWAY, "migrate_on_start": "off",
                     "workers": 1, "drain_delay": "0s",
                     "admin_listen": "127.0.0.1:0", **(settings or {})},
                    **kwargs)


def own_address():
    """An address of this machine that is not loopback, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            found = probe.getsockname()[0]
        except OSError:
            return None
    return None if found.startswith("127.") else found


def is_problem(answer, status, word=""):
    t.equal(answer.status, status, f"status of {answer}")
    t.equal(answer.header("content-type"), "application/problem+json", "type")
    t.check(word in answer.json()["detail"], answer.json()["detail"])


with server() as books:
    def control(method, target, body=None):
        with t.Raw(books.control) as client:
            return client.request(method, target, body)

    @t.case("both sockets say that booksd is alive and not ready yet")
    def _():
        for ask in (books.admin, control):
            t.equal(ask("GET", "/livez").body, b"alive", "livez")
            is_problem(ask("GET", "/readyz"), 503, "starting")
            verbose = ask("GET", "/readyz?verbose").json()
            t.equal(verbose["database"], "away", "verbose")
            t.equal(ask("HEAD", "/livez").status, 200, "HEAD")

    @t.case("other paths are 404, other methods 405, wrong arguments 400")
    def _():
        is_problem(books.admin("GET", "/nothing"), 404)
        for target in ("/workers?n=1", "/drain", "/reload", "/cache/flush"):
            answer = books.admin("GET", target)
            is_problem(answer, 405)
            t.equal(answer.header("allow"), "POST", target)
        is_problem(books.admin("POST", "/livez", b""), 405)
        for target in ("/workers", "/workers?n=", "/workers?n=0",
                       "/workers?n=32", "/workers?n=-1", "/workers?n=1x",
                       "/workers?n=1&n=1", "/workers?m=1",
                       "/workers?n=99999999999999999999"):
            is_problem(books.admin("POST", target, b""), 400, "1 to 31")
        for target in ("/drain?now", "/reload?x=1"):
            is_problem(books.admin("POST", target, b""), 400)

    @t.case("from this machine nothing is needed to change something")
    def _():
        answer = books.admin("POST", "/cache/flush?class=all", b"")
        t.equal(answer.status, 200, answer)
        for one in (books.admin, control):
            t.check(one("POST", "/workers?n=1", b"").status in (202, 503),
                    "there is such a command")

    @t.case("a name that was made to point to this machine is refused")
    def _():
        for method, target in (("GET", "/livez"), ("GET", "/cache"),
                               ("POST", "/cache/flush?class=all")):
            is_problem(books.admin(method, target, b"", host="evil.example.com"),
                       403, "localhost")
            t.equal(books.admin(method, target, b"",
                                host="localhost:1").status, 200, "localhost")

    @t.case("pages of other sites change nothing")
    def _():
        target = "/cache/flush?class=all"
        for headers in ({"Origin": "http://evil.example.com"},
                        {"Origin": "null"},
                        {"Sec-Fetch-Site": "cross-site"}):
            is_problem(books.admin("POST", target, b"", headers), 403, "page")
        t.equal(books.admin("POST", target, b"", {
            "Origin": "http://127.0.0.1:9", "Sec-Fetch-Site": "same-origin",
        }, host="127.0.0.1:9").status, 200, "our own page")

    @t.case("a stopped or dead ops keeps its clients waiting, and no others")
    def _():
        ops = books.ops_pid()
        os.kill(ops, signal.SIGKILL)
        t.equal(books.admin("GET", "/livez").status, 200, "its successor")
        t.check(books.ops_pid() != ops, "another process")

    @t.case("many clients wait for each other and none is refused")
    def _():
        many = 40
        address = books.errors("started")[0]["admin_listen"]
        host, _, port = address.rpartition(":")
        clients = [t.Raw((host, int(port)), 20) for _ in range(many)]
        for client in clients:
            client.send(t.make_request("GET", "/livez", host="127.0.0.1",
                                       headers={"Connection": "close"}))
        for client in clients:
            t.equal(client.read_response().status, 200, "status")
            client.close()

with t.Postgres() as pg, \
        t.case("readiness follows the drain, not the database"):
    with server({"drain_delay": "3s", "database": pg.conninfo,
                 "migrate_on_start": "on"}, wait="readyz") as books:
        t.equal(books.admin("GET", "/readyz").body, b"ready", "ready")
        pg.crash()
        t.eventually(lambda: books.admin("GET", "/readyz?verbose").json()
                     ["database"] == "away", "the database is away")
        t.equal(books.admin("GET", "/readyz").body, b"ready", "without it")
        books.send_signal(signal.SIGTERM)
        answer = t.eventually(
            lambda: (one := books.admin("GET", "/readyz")).status != 200
            and one, "not ready")
        is_problem(answer, 503, "draining")
        t.equal(books.admin("GET", "/livez").status, 200, "alive")

with t.case("from another machine a change needs the token"):
    address = own_address()
    if address is None:
        t.skip("this machine has no address but loopback")
    target = "/cache/flush?class=all"
    with server({"admin_listen": f"{address}:0",
                 "admin_token": TOKEN}) as books:
        t.equal(books.admin("GET", "/livez", host="any.example").status, 200,
                "reading is free")
        wrong = {"Authorization": "Bearer " + TOKEN[:-1] + "x"}
        for headers in ({}, wrong, {"Authorization": "Bearer"}):
            answer = books.admin("POST", target, b"", headers)
            is_problem(answer, 401, "token")
            t.equal(answer.header("www-authenticate"),
                    'Bearer realm="booksd"', "how")
        t.equal(books.admin("POST", target, b"", {
            "Authorization": "Bearer " + TOKEN}).status, 200, "with it")
        books.stop()
        said = books.stderr_text() + open(books.stdout,
                                          encoding="utf-8").read()
        t.check(TOKEN[:-1] not in said, "a log has the token")
    with server({"admin_listen": f"{address}:0"}) as books:
        is_problem(books.admin("POST", target, b"", {
            "Authorization": "Bearer "}), 403, "admin_token")

with t.case("a unix socket is its owner's alone and goes with booksd"):
    path = f"/tmp/booksd-it-admin-{os.getpid()}"
    with server({"admin_listen": f"unix:{path}",
                 "control_socket": "off"}) as books:
        t.equal(stat.S_IMODE(os.stat(path).st_mode), 0o600, "mode")
        t.equal(books.admin("POST", "/cache/flush?class=all", b"",
                            host="any.example").status, 200, "a change")
    t.check(not os.path.exists(path), "the path is removed")

with t.case("an address in use is an error when it was asked for"):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        books = server({"admin_listen": f"127.0.0.1:{port}"}, wait=None)
        t.equal(books.wait(), OSERR, "exit code")
        t.check("admin" in books.stderr_text() or
                "cannot listen" in books.stderr_text(), books.stderr_text())
        books.close()

with t.case("the default address in use is a warning, and books are served"):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 9180))
            taken.listen()
        except OSError:
            pass  # somebody else has it: as good
        with server({"admin_listen": None}) as books:
            t.equal(books.request("GET", "/").status, 200, "served")
            said = books.errors("admin_listener_missing")
            t.equal(len(said), 1, "warnings")
            t.check("in use" in said[0]["reason"], said)
            t.equal(books.errors("started")[0]["admin_listen"], "off", "off")

with t.case("what is no address, and a token too short, are refused"):
    for setting, word in (("admin_listen=here", "HOST:PORT"),
                          ("admin_listen=unix:x", "absolute path"),
                          ("admin_token=short", "16 characters"),
                          ("admin_token=0123456789 abcdef", "without spaces")):
        done = subprocess.run([t.BOOKSD, "-t", "-o", setting],
                              env=t.clean_environment(), timeout=20,
                              stdout=subprocess.PIPE, check=False,
                              stderr=subprocess.STDOUT)
        t.equal(done.returncode, CONFIG, setting)
        t.check(word in done.stdout.decode(), done.stdout)
        t.check("0123456789 abcdef" not in done.stdout.decode(), "secret")
    done = subprocess.run([t.BOOKSD, "-T", "-o", "admin_token=user=" + TOKEN],
                          env=t.clean_environment(), timeout=20,
                          stdout=subprocess.PIPE, check=False)
    t.check(b'admin_token = "********"' in done.stdout, "-T masks it")
    t.check(TOKEN.encode() not in done.stdout, "-T tells it")
t.done()
