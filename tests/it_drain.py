"""Goal: a task that is told to stop loses no request and ends in time.

Method: the real binary without a database (GET / needs none), under a load of
64 connections or with single connections in chosen states; SIGTERM, then every
connection that was established must get its answer, the exit code is 0, and
what is still open at drain_timeout is cut and said.
"""
import os
import signal
import socket
import threading
import time

import booksd_test as t

NOWHERE = "host=127.0.0.1 port=1 connect_timeout=1"


def settings(backend, **more):
    return {"database": NOWHERE, "io_backend": backend, "workers": 2,
            "migrate_on_start": "off", "drain_delay": "300ms",
            "drain_timeout": "8s", "access_log": "off", **more}


def dial_until_refused(server, found):
    """A new connection for each request; answered, or never established."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            client = socket.create_connection(server.address, 2)
        except OSError:
            if server.process.poll() is not None:
                return
            continue
        try:
            client.settimeout(5)
            client.sendall(t.make_request("GET", "/"))
            data = client.recv(65536)
            found.append(data.split(b" ", 2)[1] if data else b"closed")
        except OSError as error:
            found.append(type(error).__name__.encode())
        finally:
            client.close()


for backend in t.backends():
    with t.case(f"{backend}: TERM under 64 connections fails no request"):
        with t.Booksd(settings(backend)) as server:
            with t.Load(server.address, 64, ["/", "/livez"]) as load:
                load.wait_for(2000)
                load.retire()
                t.equal(server.stop(), 0, "exit code")
                result = load.stop()
            t.diag(result)
            t.equal(result.failed, 0, "failed requests")
            t.check(result.ok >= 2000, "there was a load")

    with t.case(f"{backend}: TERM under 64 connections that dial again fails "
                "no connection that was established"):
        with t.Booksd(settings(backend)) as server:
            found = []
            threads = [threading.Thread(target=dial_until_refused,
                                        args=(server, found))
                       for _ in range(8)]
            for thread in threads:
                thread.start()
            t.eventually(lambda: len(found) > 400, "there is a load", 20)
            t.equal(server.stop(), 0, "exit code")
            for thread in threads:
                thread.join(20)
            bad = [one for one in found if one != b"200"]
            t.diag(f"{len(found)} connections, {len(bad)} bad: {bad[:5]}")
            t.equal(len(bad), 0, "connections without an answer")

    with t.case(f"{backend}: while it drains readyz says 503 and the rest is "
                "served"):
        with t.Booksd(settings(backend, drain_delay="1500ms")) as server:
            with server.raw() as client:
                server.send_signal(signal.SIGTERM)
                t.eventually(lambda: client.request("GET", "/readyz")
                             .status == 503, "readyz is 503", 1)
                t.equal(client.request("GET", "/").status, 200, "status")
                t.equal(client.request("GET", "/livez").status, 200, "livez")
            t.equal(server.wait(), 0, "exit code")

    with t.case(f"{backend}: a request that was under way is answered with "
                "Connection: close"):
        with t.Booksd(settings(backend, drain_delay="0s")) as server:
            with server.raw() as client:
                client.send(b"POST /books HTTP/1.1\r\nHost: a\r\n"
                            b"Content-Type: application/json\r\n"
                            b"Content-Length: 12\r\n\r\n{\"isbn\"")
                time.sleep(0.1)
                server.send_signal(signal.SIGTERM)
                time.sleep(0.5)
                client.send(b":\"1\"}")
                answer = client.read_response()
                t.equal(answer.status, 400, "status")
                t.equal(answer.header("connection"), "close", "Connection")
                t.equal(client.read_eof(), b"", "after the answer")
            t.equal(server.wait(), 0, "exit code")

    with t.case(f"{backend}: an idle connection may ask once more, then it is "
                "closed, and the server ends long before drain_timeout"):
        with t.Booksd(settings(backend, drain_delay="0s",
                               drain_timeout="30s")) as server:
            with server.raw() as asks, server.raw() as silent:
                t.equal(asks.request("GET", "/").status, 200, "status")
                t.equal(silent.request("GET", "/").status, 200, "status")
                begun = time.monotonic()
                server.send_signal(signal.SIGTERM)
                time.sleep(0.3)
                answer = asks.request("GET", "/")
                t.equal(answer.status, 200, "status")
                t.equal(answer.header("connection"), "close", "Connection")
                t.equal(silent.read_eof(), b"", "an idle connection")
                asks.close()
                silent.close()
                t.equal(server.wait(), 0, "exit code")
                t.check(time.monotonic() - begun < 15, "it waited for nothing")

    with t.case(f"{backend}: a client that never finishes is cut at "
                "drain_timeout"):
        with t.Booksd(settings(backend, drain_delay="0s",
                               drain_timeout="2s")) as server:
            with server.raw() as client:
                client.send(b"POST /books HTTP/1.1\r\nHost: a\r\n"
                            b"Content-Type: application/json\r\n"
                            b"Content-Length: 12\r\n\r\n{")
                time.sleep(0.1)
                t.equal(server.stop(), 0, "exit code")
                t.equal(len(server.errors("drain_timeout")), 1, "events")

    with t.case(f"{backend}: clients beyond connections_max wait, also at a "
                "second listener, and a drain serves them"):
        port = t.free_port()
        with t.Booksd(settings(backend, workers=1, connections_max=16,
                               listen=[f"127.0.0.1:{port}",
                                       f"127.0.0.2:{port}"])) as server:
            open_ones = [server.raw() for _ in range(16)]
            for client in open_ones:
                t.equal(client.request("GET", "/").status, 200, "status")
            waiting = [server.raw(), t.Raw(("127.0.0.2", port)),
                       server.raw()]
            for client in waiting:
                client.send(t.make_request("GET", "/"))
                t.check(not client.is_closed(0.2), "it waits")
            server.send_signal(signal.SIGTERM)
            time.sleep(0.6)
            for client in open_ones:
                client.close()
            for client in waiting:
                t.equal(client.read_response().status, 200, "status")
                client.close()
            t.equal(server.wait(), 0, "exit code")

    with t.case(f"{backend}: TERM to the whole group drains as well"):
        with t.Booksd(settings(backend, drain_delay="800ms")) as server:
            with server.raw() as client:
                t.equal(client.request("GET", "/").status, 200, "status")
                for pid in server.worker_pids():
                    os.kill(pid, signal.SIGTERM)
                time.sleep(0.2)
                server.send_signal(signal.SIGTERM)
                time.sleep(0.2)
                t.equal(client.request("GET", "/").status, 200, "status")
            t.equal(server.wait(), 0, "exit code")

    with t.case(f"{backend}: a unix listener drains as well and its name "
                "goes away"):
        with t.Booksd(settings(backend)) as outer:
            path = outer.folder + "/sock"
            with t.Booksd(settings(backend, listen=[
                    f"unix:{path}", f"127.0.0.1:{t.free_port()}"])) as server:
                with t.Load(path, 16, ["/"]) as load:
                    load.wait_for(500)
                    load.retire()
                    t.equal(server.stop(), 0, "exit code")
                    result = load.stop()
                t.equal(result.failed, 0, "failed requests")
                probe = socket.socket(socket.AF_UNIX)
                try:
                    probe.connect(path)
                    t.check(False, "nobody listens")
                except FileNotFoundError:
                    pass
                finally:
                    probe.close()
t.done()
