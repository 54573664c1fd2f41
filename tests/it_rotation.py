#!/usr/bin/env python3
"""Goal: a rotation of the database's password is noticed by no client.
Method: readers and writers that never pause, each request answered by the
database, while the password is changed five times and all old sessions are
ended each time, in the order that hurts most: the secret is the last to change.
Each writer has a book of its own, so that the row's version tells how often a
write was made.  BOOKS_TEST_LONG=1: a minute of it for each strategy.
"""
import contextlib
import os
import threading
import time

import booksd_test as t
import fake_aws
from secrets_test import asks_for_passwords, password, value

LONG = os.environ.get("BOOKS_TEST_LONG") == "1"
SECONDS = 60 if LONG else 6
ROTATIONS = 5
READERS, WRITERS, BOOKS = 4, 3, 50
BODY = {"title": "T", "author": "A", "price": 1}


def isbn(number):
    return f"97800000{number:05}"


class Load:
    """Clients that ask until they are told to stop."""

    def __init__(self, server):
        self.server = server
        self.is_ending = threading.Event()
        self.counts = {"read": 0, "write": 0}
        self.failed = []
        self.done = [0] * WRITERS
        self.threads = [
            threading.Thread(target=self.run, args=(number,), daemon=True)
            for number in range(READERS + WRITERS)]

    def ask(self, client, number, turn):
        if number < WRITERS:
            answer = client.request("PUT", f"/books/{isbn(number)}",
                                    {"isbn": isbn(number), **BODY})
            self.counts["write"] += 1
            self.done[number] += answer.status == 200
            return "write", answer
        self.counts["read"] += 1
        return "read", client.request(
            "GET", f"/books/{isbn((turn * 7 + number) % BOOKS)}")

    def run(self, number):
        try:
            with self.server.raw(30) as client:
                turn = 0
                while not self.is_ending.is_set():
                    turn += 1
                    kind, answer = self.ask(client, number, turn)
                    if answer.status != 200:
                        self.failed.append((kind, answer.status, answer.body))
        except BaseException as error:
            self.failed.append(("error", 0, repr(error)))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.is_ending.set()
        for thread in self.threads:
            thread.join(60)
            t.check(not thread.is_alive(), "a client hangs")


def end_sessions(pg, user):
    return int(pg.sql("SELECT count(pg_terminate_backend(pid)) FROM"
                      f" pg_stat_activity WHERE usename = '{user}'"))


def single_user(pg, aws, number):
    """One user: its old password is wrong at once, the secret a bit later."""
    text = f"single {number}"
    password(pg, text)
    ended = end_sessions(pg, "books")
    time.sleep(0.1)
    aws.control(put={"name": "db", "value": value(text)})
    return ended


def alternating_users(pg, aws, number):
    """The other user gets a new password and the secret; the one before can
    no longer log in."""
    old, new = f"books_{number % 2}", f"books_{(number + 1) % 2}"
    text = f"alternating {number}"
    password(pg, text, new)
    aws.control(put={"name": "db", "value": value(text, new)})
    pg.sql(f"ALTER ROLE {old} PASSWORD NULL")
    return end_sessions(pg, old)


def rotate(pg, aws, how, backend):
    database = f"host=127.0.0.1 port={pg.port} dbname=books"
    with t.Booksd({"database": database, "database_secret": "db",
                   "workers": 2, "io_backend": backend, "cache_size": 0,
                   # A second between fetches, and the machine may be busy.
                   "database_acquire_timeout": "5s",
                   "cache_lists": "off"},
                  env=aws.env(), wait="readyz") as server:
        for number in range(BOOKS):
            t.equal(server.request("PUT", f"/books/{isbn(number)}",
                                   {"isbn": isbn(number), **BODY}).status,
                    200, "a book")
        before = [version(pg, number) for number in range(WRITERS)]
        asked = aws.asked()
        ended = 0
        with Load(server) as load:
            for number in range(ROTATIONS):
                time.sleep(SECONDS / (ROTATIONS + 1))
                ended += how(pg, aws, number)
            time.sleep(SECONDS / (ROTATIONS + 1))
        refused = len(server.errors("secret_refused"))
        fetches = aws.asked() - asked
        t.diag(f"{load.counts['read']} reads, {load.counts['write']} writes, "
               f"{ended} sessions ended, {refused} refusals, "
               f"{fetches} fetches, {len(load.failed)} failed")
        for one in load.failed[:5]:
            t.diag(one)
        t.check(ended >= ROTATIONS * 5, "sessions were ended each time")
        t.check(refused >= 1, "a refusal led to a fetch")
        t.check(fetches <= SECONDS + 2, "one fetch a second at most")
        t.equal(len(load.failed), 0, "failed requests")
        for number in range(WRITERS):
            t.equal(version(pg, number) - before[number], load.done[number],
                    f"writes of writer {number}")


def version(pg, number):
    return int(pg.sql(
        f"SELECT version FROM book WHERE isbn = '{isbn(number)}'"))


with contextlib.ExitStack() as stack:
    aws = stack.enter_context(fake_aws.FakeAws())
    pg = stack.enter_context(t.Postgres())
    asks_for_passwords(pg)
    password(pg, "one")
    aws.control(put={"name": "db", "value": value("one")})

    for backend in t.backends():
        @t.case(f"{backend}: one user, five new passwords, no request fails")
        def _():
            rotate(pg, aws, single_user, backend)

    @t.case("two users by turns, five times, no request fails")
    def _():
        for number in range(2):
            pg.sql(f"CREATE ROLE books_{number} LOGIN IN ROLE books")
        password(pg, "first", "books_0")
        aws.control(put={"name": "db", "value": value("first", "books_0")})
        rotate(pg, aws, alternating_users, "epoll")

t.done()
