#!/usr/bin/env python3
"""Goal: the tables come into being, or are taken over from the service that
was here before, whoever asks for it, how often and at how many places at once;
and nobody loses a row.
Method: booksctl migrate and booksd with migrate_on_start against a private
PostgreSQL; databases as the original's Flyway left them, at each of its
stages, are adopted and then used through booksd.
"""
import signal
import subprocess
import time

import booksd_test as t

UNAVAILABLE, DATAERR, CONFIG = 69, 65, 78

# What Flyway had made after each of its scripts, and its own table, which
# stays what it is.
FLYWAY = """
CREATE TABLE flyway_schema_history (installed_rank integer PRIMARY KEY,
    version varchar(50), description varchar(200) NOT NULL,
    success boolean NOT NULL);
CREATE TABLE book (id bigserial PRIMARY KEY NOT NULL,
    author varchar(255) NOT NULL, isbn varchar(255) UNIQUE NOT NULL,
    price float8 NOT NULL, title varchar(255) NOT NULL,
    created_date timestamp NOT NULL, last_modified_date timestamp NOT NULL,
    version integer NOT NULL);
INSERT INTO flyway_schema_history VALUES (1, '1', 'first', true);
"""
STAGES = (
    ("the first", ""),
    ("the publisher's", "ALTER TABLE book ADD COLUMN publisher varchar(255);"),
    ("the auditors'", "ALTER TABLE book ADD COLUMN publisher varchar(255);"
     "ALTER TABLE book ADD COLUMN created_by varchar(255);"
     "ALTER TABLE book ADD COLUMN last_modified_by varchar(255);"),
)
OLD_ROWS = """
INSERT INTO book (author, isbn, price, title, created_date,
    last_modified_date, version)
SELECT 'Author ' || n, lpad(n::text, 10, '0'), n + 0.1, 'Title ' || n,
    timestamp '2022-02-02 22:22:22.222222' + n * interval '1 day',
    timestamp '2022-03-03 03:03:03.000003' + n * interval '1 day', n
FROM generate_series(1, 100) n;
DELETE FROM book WHERE id > 90;
"""
OLD_COLUMNS = ("id, author, isbn, price, title, created_date, "
               "last_modified_date, version")

pg = t.Postgres()
databases = 0


def new_database(script=""):
    """(conninfo, sql function); script is run by the owner."""
    global databases
    databases += 1
    name = f"migrate{databases}"
    conninfo = pg.create_database(name)
    if script:
        pg.sql(script, database=name, user="books")
    return conninfo, lambda text: pg.sql(text, database=name)


def migrate(conninfo, code=0, *args):
    result = t.booksctl("migrate", *args, database=conninfo)
    t.equal(result.returncode, code,
            f"exit code (said: {result.stdout}{result.stderr})")
    return result


def shape(sql):
    """Columns, types, indexes: what two equal tables have in common."""
    return sql("""
        SELECT column_name, data_type, is_nullable, character_maximum_length
        FROM information_schema.columns WHERE table_name = 'book' ORDER BY 1;
        SELECT indexdef FROM pg_indexes WHERE tablename = 'book' ORDER BY 1""")


def post(server, isbn):
    return server.request("POST", "/books", {
        "isbn": isbn, "title": "New", "author": "N", "price": 1})


@t.case("an empty database gets the tables, and a second time nothing happens")
def _():
    conninfo, sql = new_database()
    t.check("applied" in migrate(conninfo).stdout, "what it says")
    before = shape(sql)
    stamp = sql("SELECT * FROM booksd_migration")
    t.check("nothing to do" in migrate(conninfo).stdout, "what it says")
    t.equal(shape(sql), before, "the tables")
    t.equal(sql("SELECT * FROM booksd_migration"), stamp, "the record")


@t.case("six at the same time: one works, none fails")
def _():
    for _turn in range(5):
        conninfo, sql = new_database()
        running = [subprocess.Popen(
            [t.BOOKSCTL, "-d", conninfo, "migrate"],
            env=t.clean_environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
            for _ in range(6)]
        said = [process.communicate(timeout=60) for process in running]
        t.equal([process.returncode for process in running], [0] * 6,
                f"exit codes ({said})")
        t.equal(sum("applied" in out and "nothing" not in out
                    for out, _err in said), 1, f"who did it ({said})")
        t.equal(sql("SELECT count(*) FROM booksd_migration"), "1", "records")


for stage, script in STAGES:
    @t.case(f"a database at {stage} Flyway stage is adopted with all its rows")
    def _():
        conninfo, sql = new_database(FLYWAY + script + OLD_ROWS)
        rows = sql(f"SELECT {OLD_COLUMNS} FROM book ORDER BY id")
        history = sql("SELECT * FROM flyway_schema_history")
        migrate(conninfo)
        t.equal(sql(f"SELECT {OLD_COLUMNS} FROM book ORDER BY id"), rows,
                "rows")
        t.equal(sql("SELECT * FROM flyway_schema_history"), history,
                "Flyway's own table")
        fresh, fresh_sql = new_database()
        migrate(fresh)
        t.equal(shape(sql).replace("\"", ""), shape(fresh_sql), "the tables")

    @t.case(f"booksd serves the books of {stage} stage and goes on counting")
    def _():
        conninfo, sql = new_database(FLYWAY + script + OLD_ROWS)
        with t.Booksd({"database": conninfo, "workers": 1},
                      wait="readyz") as server:
            book = server.request("GET", "/books/0000000007").json()
            t.equal(book, {
                "id": 7, "isbn": "0000000007", "title": "Title 7",
                "author": "Author 7", "price": 7.1, "publisher": None,
                "createdDate": "2022-02-09T22:22:22.222222Z",
                "lastModifiedDate": "2022-03-10T03:03:03.000003Z",
                "createdBy": None, "lastModifiedBy": None, "version": 7},
                "an old book")
            books = server.request("GET", "/books").json()
            t.equal([one["id"] for one in books], list(range(1, 91)), "ids")
            created = post(server, "0000000999")
            t.equal((created.status, created.json()["id"]), (201, 101),
                    "a new book")
            t.equal(post(server, "0000000007").status, 422, "an old ISBN")


@t.case("a role that owns nothing can run it when there is nothing to do")
def _():
    conninfo, sql = new_database()
    migrate(conninfo)
    sql("CREATE ROLE clerk LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE "
        "ON book TO clerk; GRANT SELECT ON booksd_migration TO clerk")
    migrate(conninfo.replace("user=books", "user=clerk"))


@t.case("a migration that fails changes nothing and says why")
def _():
    conninfo, sql = new_database("CREATE VIEW book AS SELECT 1 AS isbn")
    result = migrate(conninfo, DATAERR)
    t.check("SQLSTATE" in result.stderr and "nothing was changed"
            in result.stderr, result.stderr)
    t.equal(sql("SELECT to_regclass('booksd_migration') IS NULL"), "t",
            "the record")


@t.case("a record that does not fit this program is an error")
def _():
    conninfo, sql = new_database()
    migrate(conninfo)
    sql("UPDATE booksd_migration SET checksum = 'other'")
    result = migrate(conninfo, DATAERR)
    t.check("checksum" in result.stderr, result.stderr)


@t.case("a database from a newer program is left alone")
def _():
    conninfo, sql = new_database()
    migrate(conninfo)
    sql("INSERT INTO booksd_migration (version, name, checksum) "
        "VALUES (999, 'future', 'x')")
    migrate(conninfo)
    t.equal(sql("SELECT max(version) FROM booksd_migration"), "999", "record")


@t.case("without a database it ends at once, or waits as long as it is told")
def _():
    nowhere = f"host=127.0.0.1 port={t.free_port()} dbname=x"
    t.check("cannot connect" in migrate(nowhere, UNAVAILABLE).stderr, "text")
    t.check("waiting for the database" in
            migrate(nowhere, UNAVAILABLE, "--wait=1").stderr, "text")


@t.case("--wait goes on when the database appears")
def _():
    late = t.Postgres(start=False)
    waiting = subprocess.Popen(
        [t.BOOKSCTL, "-d", late.conninfo, "migrate", "--wait"],
        env=t.clean_environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
    try:
        t.check("waiting" in waiting.stderr.readline(), "it waits")
        late.start()
        out, err = waiting.communicate(timeout=60)
        t.equal((waiting.returncode, "applied" in out), (0, True), out + err)
    finally:
        waiting.kill()
        waiting.wait()
        late.close()


@t.case("booksd makes the tables of an empty database before it is ready")
def _():
    conninfo, sql = new_database()
    with t.Booksd({"database": conninfo, "workers": 2},
                  wait="readyz") as server:
        t.equal(sql("SELECT count(*) FROM booksd_migration"), "1", "record")
        t.equal(post(server, "0000000001").status, 201, "a new book")


@t.case("three booksd start on one empty database")
def _():
    conninfo, sql = new_database()
    servers = [t.Booksd({"database": conninfo, "workers": 1}, wait=None)
               for _ in range(3)]
    try:
        for server in servers:
            server.wait_for("readyz")
        t.equal(sql("SELECT count(*) FROM booksd_migration"), "1", "records")
    finally:
        for server in servers:
            server.close()


@t.case("booksd waits for a database that comes late, alive and not ready")
def _():
    late = t.Postgres(start=False)
    try:
        with t.Booksd({"database": late.conninfo, "workers": 1},
                      wait="livez") as server:
            t.equal(server.request("GET", "/readyz").status, 503, "readyz")
            t.equal(server.request("GET", "/books").status, 503, "books")
            late.start()
            server.wait_for("readyz", 40)
            t.equal(post(server, "0000000001").status, 201, "a new book")
            t.equal(server.zombies(), [], "zombies")
    finally:
        late.close()


@t.case("booksd reports a migration that fails and never becomes ready")
def _():
    conninfo, sql = new_database("CREATE VIEW book AS SELECT 1 AS isbn")
    with t.Booksd({"database": conninfo, "workers": 1}) as server:
        t.eventually(lambda: [event for event in server.errors()
                              if "migrat" in event.get("event", "") and
                              event.get("level") == "error"],
                     "an event about the migration", 20)
        time.sleep(0.5)
        t.equal(server.request("GET", "/readyz").status, 503, "readyz")
        t.equal(server.request("GET", "/livez").status, 200, "livez")
        verbose = server.request("GET", "/readyz?verbose")
        t.check("failed" in verbose.text(), verbose.text())


@t.case("migrate_on_start = off leaves the database alone")
def _():
    conninfo, sql = new_database()
    with t.Booksd({"database": conninfo, "workers": 1,
                   "migrate_on_start": "off"}) as server:
        t.eventually(lambda: server.errors("database_away"),
                     "an event about the missing table")
        verbose = server.request("GET", "/readyz?verbose")
        t.equal((verbose.status, verbose.json()["migrate"]), (503, "off"),
                "readyz")
        t.equal(sql("SELECT to_regclass('book') IS NULL"), "t", "the table")
        # and the tables may come from elsewhere
        migrate(conninfo)
        server.wait_for("readyz")
        t.equal(post(server, "0000000001").status, 201, "a new book")


@t.case("TERM ends a booksd that waits for its database")
def _():
    nowhere = f"host=127.0.0.1 port={t.free_port()} dbname=x"
    with t.Booksd({"database": nowhere, "workers": 1,
                   "drain_delay": "0s"}) as server:
        t.equal(server.stop(signal.SIGTERM), 0, "exit code")


pg.close()
t.done()
