#!/usr/bin/env python3
"""Goal: booksctl check finds what is wrong with the settings, the database or
the running booksd, says what to do about it in one line each, and exits with 1
exactly when something is broken; it tells no secret.
Method: the real programs against a private PostgreSQL that is whole at first
and then lacks one thing after the other.
"""
import os
import shutil
import tempfile

import booksd_test as t

folder = tempfile.mkdtemp(prefix="booksd-it-check-", dir="/tmp")
pg = t.Postgres()
pg.sql("CREATE ROLE reader LOGIN")


def check(database, *args, code=0, env=None, control="none"):
    """{subject: (mark, text)} of its lines."""
    path = os.path.join(folder, control) if control == "none" else control
    args = list(args) + (["-S", path] if control else [])
    done = t.booksctl("check", *args, database=database, env=env)
    t.equal(done.returncode, code, f"exit code ({done.stdout}{done.stderr})")
    t.equal(done.stderr, "", "standard error")
    found = {}
    for line in done.stdout.splitlines():
        mark, subject, text = line.split(None, 2)
        t.check(subject not in found, f"{subject} comes twice")
        t.check(mark in ("ok", "warn", "fail"), f"mark of {line!r}")
        t.check(mark == "ok" or ";" in text or subject in ("control", "pool"),
                f"says not what to do: {line}")
        found[subject] = (mark, text)
    t.equal(any(mark == "fail" for mark, _ in found.values()), code != 0,
            "a failure is an exit code")
    return found


def check_or_none(database, control):
    try:
        return check(database, control=control)
    except AssertionError as error:
        if "exit code" in str(error):
            return None
        raise


empty = pg.create_database("empty")
migrated = pg.create_database("migrated")
t.check(t.booksctl("migrate", database=migrated).returncode == 0, "migrate")


@t.case("with everything in place every line is ok")
def _():
    with t.Booksd({"database": migrated}, wait="readyz") as server:
        control = server.control
        def probe():
            found = check_or_none(migrated, server.control)
            return found if found and all(
                mark == "ok" for mark, _ in found.values()) else None
        found = t.eventually(probe, "all is ok")
        t.equal(sorted(found), sorted([
            "settings", "database", "tls", "server", "writes", "tables",
            "migrations", "permissions", "connections", "control", "version",
            "booksd"]), "subjects")
        t.check("migrated" in found["database"][1], found["database"])
        t.check("2 applied" in found["migrations"][1], found["migrations"])


@t.case("without a booksd that is a warning, but one that was named must be")
def _():
    found = check(migrated, control=None, env={
        "BOOKS_CONTROL_SOCKET": os.path.join(folder, "nobody")})
    t.equal(found["control"][0], "warn", found)
    t.equal(check(migrated, code=1)["control"][0], "fail", "named")


# ---- the database; no booksd runs
OFF = {"BOOKS_CONTROL_SOCKET": "off"}


def database(conninfo, code=1):
    return check(conninfo, control=None, env=OFF, code=code)


@t.case("a database without tables, and what to do")
def _():
    found = database(empty)
    t.equal(found["tables"][0], "fail", found)
    t.check("booksctl migrate" in found["tables"][1], found)
    t.check("permissions" not in found, "judged without a table")


@t.case("a migration that is missing")
def _():
    pg.sql("DELETE FROM booksd_migration WHERE version = 2",
           database="migrated")
    found = database(migrated)
    t.equal(found["migrations"], (
        "fail", "1 of 2 applied; run booksctl migrate"), "finding")
    pg.sql("DROP TABLE booksd_migration", database="migrated")
    t.check("0 of 2" in database(migrated)["migrations"][1], "none")
    t.check(t.booksctl("migrate", database=migrated).returncode == 0,
            "migrate")
    database(migrated, 0)


@t.case("a role that may read only is told which permissions it lacks")
def _():
    reader = migrated.replace("user=books", "user=reader")
    pg.sql("GRANT SELECT ON book TO reader", database="migrated")
    found = database(reader)
    t.equal(found["permissions"][0], "fail", found)
    for word in ("INSERT", "UPDATE", "DELETE", "sequence", "reader"):
        t.check(word in found["permissions"][1], found)
    t.check("SELECT" not in found["permissions"][1], found)
    t.equal(found["migrations"][0], "warn", "which it may not see")
    pg.sql("GRANT INSERT, UPDATE, DELETE ON book TO reader",
           database="migrated")
    pg.sql("GRANT USAGE ON SEQUENCE book_id_seq TO reader",
           database="migrated")
    t.equal(database(reader, 0)["permissions"][0], "ok", "granted")


@t.case("a server that takes no writes, and one that has too little room")
def _():
    readonly = migrated + " options='-c default_transaction_read_only=on'"
    t.equal(database(readonly)["writes"][0], "fail", "read only")
    few = dict(OFF, BOOKS_DATABASE_CONNECTIONS="100")
    found = check(migrated, control=None, env=few, code=1)
    t.equal(found["connections"][0], "fail", found)
    t.check("asks for 100" in found["connections"][1], found)
    few["BOOKS_DATABASE_CONNECTIONS"] = "4"
    t.check("asks for 4" in check(migrated, control=None, env=few)[
        "connections"][1], "enough")


@t.case("nobody at the database, and a string that cannot be parsed")
def _():
    found = database("host=127.0.0.1 port=1 user=a password=sesame")
    t.equal(found["database"][0], "fail", found)
    t.check("refused" in found["database"][1], found)
    for text in ("host=a password=sesame oops", "postgresql://a:sesame@[x/"):
        found = database(text)
        t.equal(found["database"][0], "fail", found)
        t.check("sesame" not in str(found), f"the password is shown: {found}")


# ---- settings

@t.case("a settings file is judged by booksd, and one that is not there told")
def _():
    path = os.path.join(folder, "booksd.conf")
    with open(path, "w", encoding="ascii") as file:
        file.write("workers = 2\n")
    found = check(migrated, "-c", path, control=None, env=OFF)
    t.check(path in found["settings"][1], found)
    with open(path, "a", encoding="ascii") as file:
        file.write("wrokers = 3\n")
    found = check(migrated, "-c", path, control=None, env=OFF, code=1)
    t.equal(found["settings"][0], "fail", found)
    t.check("wrokers" in found["settings"][1] and
            "booksd.conf" in found["settings"][1], found)
    found = check(migrated, "-c", path + "x", control=None, env=OFF, code=1)
    t.check("No such file" in found["settings"][1], found)


@t.case("without booksd in reach the settings are not judged")
def _():
    alone = os.path.join(folder, "booksctl")
    shutil.copy(t.BOOKSCTL, alone)
    before, t.BOOKSCTL = t.BOOKSCTL, alone
    try:
        found = check(migrated, control=None, env=dict(OFF, PATH="/none"))
    finally:
        t.BOOKSCTL = before
    t.equal(found["settings"][0], "warn", found)


shutil.rmtree(folder)
pg.close()
t.done()
