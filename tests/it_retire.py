"""Goal: a worker that is told to retire loses nothing while the others go on.

Method: the real binary without a database (GET / needs none); SIGHUP to one
worker of two, under a load of keep-alive connections, under clients that dial
anew for each request, and with single connections in chosen states.  Every
request must get its answer, and the worker ends with exit code 0.
"""
import os
import signal
import socket
import threading
import time

import booksd_test as t

NOWHERE = "host=127.0.0.1 port=1 connect_timeout=1"
PART = (b"POST /books HTTP/1.1\r\nHost: a\r\n"
        b"Content-Type: application/json\r\nContent-Length: 12\r\n\r\n{")
REST = b'"isbn":"1"}'


def settings(backend, **more):
    return {"database": NOWHERE, "io_backend": backend, "workers": 2,
            "migrate_on_start": "off", "drain_delay": "0s",
            "drain_timeout": "8s", "access_log": "off", **more}


def is_there(server, pid):
    return pid in server.worker_pids()


def retire(server, pid):
    """Tell it, and wait until it is gone and has a successor."""
    os.kill(pid, signal.SIGHUP)
    t.eventually(lambda: not is_there(server, pid), "the worker ended")
    t.eventually(lambda: len(server.worker_pids()) == 2, "there are two again")


def ended_well(server, count):
    """So many workers said that they retire, and none ended otherwise."""
    t.equal(len(server.errors("retiring")), count, "workers that retired")
    for event in server.errors("worker_died"):
        t.equal(event["cause"], "exit code 0", "how a worker ended")


def dial_again(server, found, stop):
    """A new connection for each request; what became of it."""
    while not stop.is_set():
        try:
            with socket.create_connection(server.address, 5) as client:
                client.settimeout(5)
                client.sendall(t.make_request("GET", "/"))
                data = client.recv(65536)
                found.append(data.split(b" ", 2)[1] if data else b"closed")
        except OSError as error:
            found.append(type(error).__name__.encode())


def two_workers(server):
    return t.eventually(lambda: len(server.worker_pids()) == 2 and
                        server.worker_pids(), "two workers")


for backend in t.backends():
    with t.case(f"{backend}: six workers retire under 32 keep-alive "
                "connections and no request fails or is sent twice"):
        with t.Booksd(settings(backend)) as server:
            with t.Load(server.address, 32, ["/", "/livez"]) as load:
                load.wait_for(500)
                for turn in range(6):
                    retire(server, two_workers(server)[turn % 2])
                    load.wait_for(200)
                result = load.stop()
            t.diag(result)
            t.equal(result.failed, 0, "failed requests")
            t.equal(result.retries, 0, "connections closed under a request")
            ended_well(server, 6)

    with t.case(f"{backend}: six workers retire under clients that dial for "
                "each request and none is left without an answer"):
        with t.Booksd(settings(backend)) as server:
            found, stop = [], threading.Event()
            threads = [threading.Thread(target=dial_again,
                                        args=(server, found, stop))
                       for _ in range(4)]
            for thread in threads:
                thread.start()
            for turn in range(6):
                retire(server, two_workers(server)[turn % 2])
                goal = len(found) + 100
                t.eventually(lambda: len(found) > goal, "the load goes on")
            stop.set()
            for thread in threads:
                thread.join(20)
            bad = [one for one in found if one != b"200"]
            t.diag(f"{len(found)} connections, {len(bad)} bad: {bad[:5]}")
            t.equal(len(bad), 0, "connections without an answer")
            ended_well(server, 6)

    with t.case(f"{backend}: a client in the middle of a request is served, "
                "and new clients come to the others meanwhile"):
        with t.Booksd(settings(backend)) as server:
            workers = two_workers(server)
            with server.raw() as client:
                client.send(PART)
                [owner] = server.owners_of([client])
                os.kill(owner, signal.SIGHUP)
                t.eventually(lambda: server.errors("retiring"), "it heard")
                others = [server.raw() for _ in range(4)]
                for other in others:
                    t.equal(other.request("GET", "/").status, 200, "status")
                t.check(owner not in server.owners_of(others),
                        "the retiring worker took a new client")
                t.equal(sorted(server.worker_pids()), workers, "workers")
                client.send(REST)
                t.equal(client.read_response().status, 400, "status")
                for other in others:
                    t.equal(other.request("GET", "/").status, 200, "status")
                    other.close()
            t.eventually(lambda: not is_there(server, owner), "it ended")
            ended_well(server, 1)

    with t.case(f"{backend}: idle connections, and one that becomes idle, move "
                "to the other worker and go on"):
        with t.Booksd(settings(backend)) as server:
            two_workers(server)
            clients = [server.raw() for _ in range(40)]
            for client in clients[:-2]:
                t.equal(client.request("GET", "/").status, 200, "status")
            begun = clients[-1]
            begun.send(PART)
            owners = server.owners_of(clients)
            owner = owners[-1]
            os.kill(owner, signal.SIGHUP)

            def moved():
                return all(now != owner for now in
                           server.owners_of(clients[:-1]))
            t.eventually(moved, "the idle ones have moved")
            begun.send(REST)
            answer = begun.read_response()
            t.equal(answer.status, 400, "status")
            t.equal(answer.header("connection"), None, "Connection")
            t.eventually(lambda: not is_there(server, owner), "it ended")
            for client in clients:
                answer = client.request("GET", "/")
                t.equal(answer.status, 200, "status")
                t.equal(answer.header("connection"), None, "Connection")
                client.close()
            ended_well(server, 1)

    with t.case(f"{backend}: when nobody takes it, an idle connection is "
                "closed in order"):
        with t.Booksd(settings(backend, workers=1)) as server:
            with server.raw() as client:
                t.equal(client.request("GET", "/").status, 200, "status")
                [owner] = server.owners_of([client])
                os.kill(owner, signal.SIGHUP)
                t.eventually(lambda: server.errors("retiring"), "it heard")
                answer = client.request("GET", "/")
                t.equal(answer.status, 200, "status")
                t.equal(client.socket.recv(1), b"", "an end, no reset")
            t.eventually(lambda: not is_there(server, owner), "it ended")
            t.equal(server.request("GET", "/").status, 200, "status")
            ended_well(server, 1)

    with t.case(f"{backend}: a client that never finishes is cut at "
                "drain_timeout"):
        with t.Booksd(settings(backend, drain_timeout="1s")) as server:
            with server.raw() as client:
                client.send(PART)
                [owner] = server.owners_of([client])
                os.kill(owner, signal.SIGHUP)
                t.eventually(lambda: not is_there(server, owner), "it ended")
                t.equal(len(server.errors("drain_timeout")), 1, "events")
            ended_well(server, 1)

    with t.case(f"{backend}: TERM while a worker retires drains the whole"):
        with t.Booksd(settings(backend, drain_delay="500ms")) as server:
            with server.raw() as client:
                client.send(PART)
                [owner] = server.owners_of([client])
                os.kill(owner, signal.SIGHUP)
                t.eventually(lambda: server.errors("retiring"), "it heard")
                server.send_signal(signal.SIGTERM)
                t.eventually(lambda: server.errors("draining"), "it drains")
                time.sleep(0.1)
                client.send(REST)
                t.equal(client.read_response().status, 400, "status")
            t.equal(server.wait(), 0, "exit code")
t.done()
