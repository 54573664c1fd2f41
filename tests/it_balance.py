"""Goal: serving workers have the same number of connections, but for one, with
few clients and many, also after a death and a change of their number; and no
client waits for a worker that does not turn.

Method: keep-alive clients of the real binary without a database, each of which
must go on without a new connection; whose connection it is is what the kernel
says (/proc).
"""
import collections
import os
import signal
import time

import booksd_test as t

NOWHERE = "host=127.0.0.1 port=1 connect_timeout=1"


def settings(backend, workers, **more):
    return {"database": NOWHERE, "io_backend": backend, "workers": workers,
            "migrate_on_start": "off", "drain_delay": "0s",
            "drain_timeout": "8s", "access_log": "off", **more}


def ask(clients):
    for client in clients:
        client.send(t.make_request("GET", "/"))
    for client in clients:
        t.equal(client.read_response().status, 200, "status")


def dial(server, count):
    clients = [server.raw() for _ in range(count)]
    ask(clients)
    return clients


def counts(server, clients):
    """How many each worker has, those without any too."""
    owners = collections.Counter(server.owners_of(clients))
    return [owners[pid] for pid in server.worker_pids()]


def even(server, clients, workers):
    def probe():
        found = counts(server, clients)
        return (len(found) == workers and
                max(found) - min(found) <= 1 and found)
    return t.eventually(probe, "differences are at most one", 10)


def stays(server, clients):
    """Nothing moves any more: the same owners in many looks of theirs."""
    before = server.owners_of(clients)
    ask(clients)
    time.sleep(0.5)
    ask(clients)
    t.equal(server.owners_of(clients), before, "owners half a second later")


for backend in t.backends():
    for workers, count in ((2, 8), (4, 64)):
        with t.case(f"{backend}: {count} connections of {workers} workers are "
                    "even, after a death and changes of their number too"):
            with t.Booksd(settings(backend, workers)) as server:
                t.eventually(lambda: len(server.worker_pids()) == workers,
                             "all workers")
                clients = dial(server, count)
                even(server, clients, workers)
                stays(server, clients)

                dead = server.worker_pids()[0]
                owners = server.owners_of(clients)
                os.kill(dead, signal.SIGKILL)
                t.eventually(lambda: dead not in server.worker_pids() and
                             len(server.worker_pids()) == workers, "a new one")
                for one, owner in zip(list(clients), owners):
                    if owner == dead:
                        one.close()
                        clients.remove(one)
                clients += dial(server, count - len(clients))
                even(server, clients, workers)

                server.send_signal(signal.SIGTTIN)
                even(server, clients, workers + 1)
                ask(clients)
                server.send_signal(signal.SIGTTOU)
                even(server, clients, workers)
                ask(clients)
                for client in clients:
                    client.close()

    with t.case(f"{backend}: connections that never rest are evened out too"):
        with t.Booksd(settings(backend, 1)) as server:
            with t.Load(server.address, 8, ["/"]) as load:
                load.wait_for(200)
                server.send_signal(signal.SIGTTIN)

                def probe():
                    owners = server.owners()
                    owners.pop(0, None)  # of the listening socket
                    found = collections.Counter(owners.values())
                    return [found[pid] for pid in
                            server.worker_pids()] == [4, 4]
                t.eventually(probe, "four for each", 10)
                result = load.stop()
            t.diag(result)
            t.equal(result.failed + result.retries, 0, "requests that failed")

    with t.case(f"{backend}: clients that come while a worker is stopped are "
                "served by the other"):
        with t.Booksd(settings(backend, 2)) as server:
            t.eventually(lambda: len(server.worker_pids()) == 2, "two workers")
            # Each of them waits for the next client, in turn.
            for stopped in server.worker_pids():
                os.kill(stopped, signal.SIGSTOP)
                try:
                    for _ in range(3):
                        with server.raw() as client:
                            answer = client.request("GET", "/")
                            t.equal(answer.status, 200, "status")
                finally:
                    os.kill(stopped, signal.SIGCONT)
t.done()
