"""Goal: a database that is asked for more than it can do is refused what it
cannot do, early, and the rest is answered in time; what needs no database is
always answered.

Method: reads are slow by the database (a view with pg_sleep in the book's
place), so that a worker can do a known number a second; an open loop of clients
offers three times that.  Figures are printed; the assertions have wide margins.
"""
import selectors
import socket
import statistics
import time

import booksd_test as t

SLEEP = 0.05
CONNECTIONS = 4
CAPACITY = CONNECTIONS / SLEEP      # statements a second
SECONDS = 6
SLOW = f"""
ALTER TABLE book RENAME TO book_kept;
CREATE FUNCTION slowly() RETURNS boolean VOLATILE LANGUAGE sql AS
    'SELECT pg_sleep({SLEEP}) IS NOT NULL';
CREATE VIEW book AS SELECT * FROM book_kept WHERE slowly();
ALTER VIEW book OWNER TO books;
"""


def open_loop(server, rate, seconds, target):
    """Requests at a steady rate on a connection of their own each: a list of
    (when it was due, status, seconds until the answer)."""
    found, begun = [], time.monotonic()
    selector = selectors.DefaultSelector()
    due, open_ones = begun, 0

    def read(client, at):
        data = client.recv(65536)
        selector.unregister(client)
        client.close()
        found.append((at - begun, int(data[9:12]) if data else 0,
                      time.monotonic() - at))
    while time.monotonic() < begun + seconds or open_ones > len(found):
        now = time.monotonic()
        if now > begun + seconds + 10:
            break
        while due <= now and due < begun + seconds:
            client = socket.create_connection(server.address, 5)
            client.sendall(t.make_request("GET", target,
                                          headers={"Connection": "close"}))
            selector.register(client, selectors.EVENT_READ, due)
            open_ones += 1
            due += 1 / rate
        for key, _ in selector.select(max(0, min(due - now, 0.01))):
            read(key.fileobj, key.data)
    t.equal(len(found), open_ones, "requests with an answer")
    return found


def goodput(found, since):
    """Answers a second and their times, of what was due after that."""
    good = [took for at, status, took in found if status == 200 and at > since]
    return len(good) / (SECONDS - since), sorted(good)


with t.Postgres() as pg:
    for backend in t.backends():
        database = pg.create_database(backend)
        settings = {"database": database, "io_backend": backend, "workers": 1,
                    "database_connections": CONNECTIONS, "cache_size": "0",
                    "access_log": "off"}
        isbn = t.Isbns()()
        with t.Booksd(settings, wait="readyz") as server:
            with t.case(f"{backend}: a book is stored"):
                answer = server.request("POST", "/books", {
                    "isbn": isbn, "title": "a", "author": "b", "price": 1.0})
                t.equal(answer.status, 201, "status")
        pg.sql(SLOW, database=backend)
        with t.Booksd(settings, wait="readyz") as server:
            with t.case(f"{backend}: what can be done is not refused"):
                found = open_loop(server, CAPACITY / 4, 3, f"/books/{isbn}")
                good = sum(status == 200 for _, status, _ in found)
                t.check(good >= len(found) * 0.9, f"{good} of {len(found)}")

            with t.case(f"{backend}: three times as much as can be done is "
                        "refused early, and the rest answered in time"):
                found = open_loop(server, 3 * CAPACITY, SECONDS,
                                  f"/books/{isbn}")
                rate, good = goodput(found, 2)
                refused = [took for at, status, took in found
                           if status == 503 and at > 2]
                p99 = good[len(good) * 99 // 100]
                t.diag(f"offered {3 * CAPACITY:.0f}/s, goodput {rate:.0f}/s "
                       f"= {rate / CAPACITY:.0%} of {CAPACITY:.0f}/s, p99 of "
                       f"the admitted {p99 * 1000:.0f} ms, refused "
                       f"{len(refused)} in "
                       f"{statistics.median(refused) * 1000:.1f} ms (median)")
                t.equal({status for _, status, _ in found} - {200, 503}, set(),
                        "other statuses")
                t.check(rate > CAPACITY * 0.3, f"goodput {rate:.0f}/s")
                t.check(p99 < 5, f"p99 of the admitted {p99:.3f} s")
                t.check(statistics.median(refused) < 1, "refusals are late")

            with t.case(f"{backend}: refusals say when to come again, and "
                        "health is answered meanwhile"):
                seen, clients = set(), []
                for _ in range(400):
                    clients.append(server.raw())
                    clients[-1].send(t.make_request("GET", f"/books/{isbn}"))
                t.equal(server.request("GET", "/livez").status, 200, "livez")
                t.equal(server.request("GET", "/").status, 200, "greeting")
                for client in clients:
                    answer = client.read_response()
                    seen.add(answer.status)
                    if answer.status == 503:
                        t.check(int(answer.header("retry-after")) >= 1,
                                "Retry-After")
                    client.close()
                t.equal(seen - {200, 503}, set(), "other statuses")

            with t.case(f"{backend}: afterwards nothing is refused"):
                t.eventually(lambda: server.request(
                    "GET", f"/books/{isbn}").status == 200, "it recovers")
                with server.raw() as client:
                    def ten():
                        return {client.request("GET", f"/books/{isbn}").status
                                for _ in range(10)} == {200}
                    t.eventually(ten, "ten answers in a row")
t.done()
