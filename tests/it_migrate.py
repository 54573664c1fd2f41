#!/usr/bin/env python3
"""Goal: the tables come into being, or are taken over from the service that
was here before, whoever asks for it, how often and at how many places at once;
and nobody loses a row.  After that every change of a book, whoever makes it,
is notified when it is committed.
Method: booksctl migrate and booksd with migrate_on_start against a private
PostgreSQL; databases as the original's Flyway left them, at each of its
stages, are adopted and then used through booksd.  A psql that listens says
what was notified.
"""
import json
import os
import re
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
# How the original stores a book.
OLD_INSERT = """
INSERT INTO book (author, created_date, isbn, last_modified_date, price, title,
    version)
VALUES ('Old', now(), '9999999999', now(), 1, 'Old', 0)
"""
# The expression isbn is made of n, which is 1 to count.
NEW_ROWS = """
INSERT INTO book (author, isbn, price, title, created_date,
    last_modified_date, version)
SELECT 'A', {isbn}, 1, 'T', now(), now(), 1 FROM generate_series(1, {count}) n
"""
MIGRATIONS = str(len([name for name in os.listdir(
    os.path.join(t.SRCDIR, "api", "sql")) if name.endswith(".sql")]))
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
    return conninfo, lambda text, **how: pg.sql(text, database=name, **how)


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
        SELECT indexdef FROM pg_indexes WHERE tablename = 'book' ORDER BY 1;
        SELECT pg_get_triggerdef(oid) FROM pg_trigger
        WHERE tgrelid = 'book'::regclass ORDER BY 1""")


class Listener:
    """A psql that listens on books_changed."""
    SAID = re.compile('Asynchronous notification "books_changed" '
                      'with payload "(.*)" received from')

    def __init__(self, database):
        self.process = subprocess.Popen(
            [os.path.join(pg.bin, "psql"), "-XAtq", "-h", pg.folder,
             "-p", str(pg.port), "-U", "postgres", "-d", database],
            env=t.clean_environment({"LC_ALL": "C",
                                     "PGCLIENTENCODING": "UTF8"}),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, encoding="utf-8", bufsize=1,
            preexec_fn=t.die_with_parent())
        self.marks = 0
        self.ask("LISTEN books_changed;")

    def ask(self, text):
        """The lines up to a mark that psql prints behind the text's."""
        self.marks += 1
        mark = f"mark {self.marks}"
        self.process.stdin.write(f"{text}\n\\echo {mark}\n")
        lines = []
        while True:
            line = self.process.stdout.readline()
            t.check(line, f"psql ended ({lines})")
            if line.rstrip("\n") == mark:
                return lines
            lines.append(line.rstrip("\n"))

    def heard(self):
        """The payloads since the last time: what was committed before this
        call has been delivered when a statement of our own ends."""
        lines = self.ask("SELECT;")
        found = [self.SAID.match(line) for line in lines if line]
        t.check(all(found), f"lines that are no notification: {lines}")
        return [one[1] for one in found]

    def close(self):
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def heard_isbns(listener):
    """Of the only notification: its ISBNs, sorted, or the word."""
    payloads = listener.heard()
    t.equal(len(payloads), 1, f"notifications ({payloads})")
    if payloads[0] == "flush":
        return "flush"
    isbns = json.loads(payloads[0])
    t.equal(len(set(isbns)), len(isbns), "distinct ISBNs")
    return sorted(isbns)


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
        t.equal(sql("SELECT count(*) FROM booksd_migration"), MIGRATIONS,
                "records")


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
        t.equal(sql("SELECT count(*) FROM booksd_migration"), MIGRATIONS,
                "records")
        t.equal(post(server, "0000000001").status, 201, "a new book")


@t.case("three booksd start on one empty database")
def _():
    conninfo, sql = new_database()
    servers = [t.Booksd({"database": conninfo, "workers": 1}, wait=None)
               for _ in range(3)]
    try:
        for server in servers:
            server.wait_for("readyz")
        t.equal(sql("SELECT count(*) FROM booksd_migration"), MIGRATIONS,
                "records")
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


def notified(script=""):
    """A migrated database and a listener in it: (sql, listener, conninfo)."""
    conninfo, sql = new_database(script)
    migrate(conninfo)
    return sql, Listener(conninfo.split("dbname=")[1].split()[0]), conninfo


@t.case("each kind of statement notifies the ISBNs that it changed, once")
def _():
    sql, listener, _conninfo = notified()
    with listener:
        for text, isbns in (
                (NEW_ROWS.format(isbn="'b' || n", count=5),
                 ["b1", "b2", "b3", "b4", "b5"]),
                ("UPDATE book SET price = 2 WHERE isbn = 'b1'", ["b1"]),
                # whatever it changes, even nothing that can be seen
                ("UPDATE book SET version = version WHERE isbn < 'b3'",
                 ["b1", "b2"]),
                ("UPDATE book SET isbn = 'c1' WHERE isbn = 'b1'",
                 ["b1", "c1"]),
                # a swap by ways of a third name: two statements, one each
                ("DELETE FROM book WHERE isbn IN ('c1', 'b2')", ["b2", "c1"]),
                ("INSERT INTO book (author, isbn, price, title, created_date,"
                 " last_modified_date, version) VALUES ('A', 'b3', 1, 'T',"
                 " now(), now(), 1), ('A', 'b6', 1, 'T', now(), now(), 1)"
                 " ON CONFLICT (isbn) DO NOTHING", ["b6"]),
                ("COPY book (author, isbn, price, title, created_date,"
                 " last_modified_date, version) FROM stdin;\n"
                 "A\td1\t1\tT\tnow\tnow\t1\n"
                 "A\td2\t1\tT\tnow\tnow\t1\n\\.\n", ["d1", "d2"]),
                ("TRUNCATE book", "flush"),
                # nobody knows what was in it
                ("TRUNCATE book", "flush")):
            sql(text)
            t.equal(heard_isbns(listener), isbns, text)


@t.case("INSERT ON CONFLICT DO UPDATE and a moved book notify all names")
def _():
    sql, listener, _conninfo = notified()
    with listener:
        sql(NEW_ROWS.format(isbn="'b' || n", count=2))
        t.equal(heard_isbns(listener), ["b1", "b2"], "new")
        sql(NEW_ROWS.format(isbn="'b' || n", count=3) +
            "ON CONFLICT (isbn) DO UPDATE SET price = 3")
        t.equal(sorted(sum(map(json.loads, listener.heard()), [])),
                ["b1", "b2", "b3"], "both triggers")
        sql("WITH gone AS (DELETE FROM book WHERE isbn = 'b1' RETURNING *) "
            "UPDATE book SET isbn = 'e' FROM gone WHERE book.isbn = 'b2'")
        t.equal(sorted(sum(map(json.loads, listener.heard()), [])),
                ["b1", "b2", "e"], "two in one statement")


@t.case("a statement that changes no row notifies nothing")
def _():
    sql, listener, _conninfo = notified()
    with listener:
        sql(NEW_ROWS.format(isbn="'b' || n", count=2))
        listener.heard()
        for text in ("UPDATE book SET price = 9 WHERE isbn = 'none'",
                     "DELETE FROM book WHERE isbn = 'none'",
                     NEW_ROWS.format(isbn="'b' || n", count=2) +
                     "ON CONFLICT (isbn) DO NOTHING",
                     NEW_ROWS.format(isbn="'x' || n", count=0),
                     "SELECT * FROM book FOR UPDATE"):
            sql(text)
            t.equal(listener.heard(), [], text)


@t.case("what is rolled back notifies nothing, what is committed then does")
def _():
    sql, listener, _conninfo = notified()
    with listener:
        sql("BEGIN; " + NEW_ROWS.format(isbn="'b' || n", count=2) +
            "; ROLLBACK")
        t.equal(listener.heard(), [], "a rollback")
        sql("BEGIN; " + NEW_ROWS.format(isbn="'a' || n", count=1) +
            "; SAVEPOINT s; " + NEW_ROWS.format(isbn="'b' || n", count=1) +
            "; ROLLBACK TO s; " + NEW_ROWS.format(isbn="'c' || n", count=1) +
            "; COMMIT")
        t.equal(listener.heard(), ['["a1"]', '["c1"]'], "a savepoint")
        sql("INSERT INTO book (isbn) VALUES ('z')", check=False)
        t.equal(listener.heard(), [], "an error")


@t.case("100 ISBNs are named and 101 are flush, whatever they are old or new")
def _():
    sql, listener, _conninfo = notified()
    with listener:
        for count, want in ((100, 100), (101, "flush"), (20000, "flush")):
            names = sorted(f"{n:05d}" for n in range(1, count + 1))
            if want != "flush":
                want = names
            for text in (
                    NEW_ROWS.format(isbn="lpad(n::text, 5, '0')",
                                    count=count),
                    "UPDATE book SET price = price + 1", "DELETE FROM book"):
                sql(text)
                t.equal(heard_isbns(listener), want, f"{count}: {text}")
        # 50 old ones and 50 new ones, then 51
        sql(NEW_ROWS.format(isbn="'o' || n", count=50))
        listener.heard()
        sql("UPDATE book SET isbn = 'n' || isbn")
        t.equal(len(heard_isbns(listener)), 100, "ISBNs")
        sql(NEW_ROWS.format(isbn="'o' || n", count=1))
        listener.heard()
        sql("UPDATE book SET isbn = 'n' || isbn")
        t.equal(heard_isbns(listener), "flush", "102 ISBNs")


@t.case("7,000 bytes are named and 7,001 are flush, counted in bytes")
def _():
    sql, listener, _conninfo = notified()
    with listener:
        # 40 of them: brackets, quotes and commas are 121 bytes
        for piece, each in (("x", 1), ("\u00e9", 2), ("\U0001f4da", 4)):
            for total, is_flush in ((7000, False), (7001, True)):
                long, rest = divmod(total - 121 - 40 * 3, 40 * each)
                sql(NEW_ROWS.format(
                    isbn=f"lpad(n::text, 3, '0') || repeat('{piece}', {long})"
                         f" || CASE n WHEN 1 THEN repeat('y', {rest})"
                         " ELSE '' END", count=40))
                payloads = listener.heard()
                t.equal(len(payloads), 1, "notifications")
                if is_flush:
                    t.equal(payloads[0], "flush", f"{piece}: {total}")
                else:
                    t.equal(len(payloads[0].encode()), total, "bytes")
                    t.equal(len(json.loads(payloads[0])), 40, "ISBNs")
                sql("DELETE FROM book")
                listener.heard()


@t.case("an ISBN with any characters comes through as it is")
def _():
    sql, listener, _conninfo = notified()
    odd = ['"quoted"', "it''s", "back\\slash", "a\nb\tc\r", "\x01\x1f\x7f",
           "</script>", "\u00e9\u20ac\U0001f4da\u2028", "[x, y]", "flush", " ",
           "", "%s $1 $body$"]
    with listener:
        for isbn in odd:
            isbn = isbn.replace("''", "'")
            quoted = "E'" + "".join(f"\\U{ord(c):08x}" for c in isbn) + "'"
            sql(NEW_ROWS.format(isbn=quoted, count=1))
            t.equal(heard_isbns(listener), [isbn], repr(isbn))


@t.case("booksd's own statements notify what they did and no more")
def _():
    sql, listener, conninfo = notified()
    with listener, t.Booksd({"database": conninfo, "workers": 1},
                            wait="readyz") as server:
        body = {"title": "T", "author": "A", "price": 1}
        for method, path, isbn, status, heard in (
                ("POST", "", "0000000001", 201, ['["0000000001"]']),
                ("POST", "", "0000000001", 422, []),
                ("PUT", "/0000000001", "0000000001", 200, ['["0000000001"]']),
                ("PUT", "/0000000002", "0000000002", 200, ['["0000000002"]']),
                ("PUT", "/0000000003", "0000000001", 422, []),
                ("PUT", "/0000000002", "0000000001", 200, ['["0000000002"]']),
                ("DELETE", "/0000000001", None, 204, ['["0000000001"]']),
                ("DELETE", "/0000000001", None, 204, []),
                ("GET", "/0000000002", None, 200, [])):
            answer = server.request(method, "/books" + path,
                                    {"isbn": isbn, **body} if isbn else None)
            t.equal(answer.status, status, f"{method} {path}")
            t.equal(listener.heard(), heard, f"{method} {path}")


@t.case("the original service goes on writing, before, while and after")
def _():
    # complete, or 001's ALTER TABLE would keep readers out as well
    conninfo, sql = new_database(FLYWAY + STAGES[2][1] + OLD_ROWS)
    name = conninfo.split("dbname=")[1].split()[0]
    writer = subprocess.Popen(
        [os.path.join(pg.bin, "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-h",
         pg.folder, "-p", str(pg.port), "-U", "books", "-d", name],
        env=t.clean_environment(), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, encoding="utf-8", bufsize=1)
    try:
        writer.stdin.write("BEGIN;" + OLD_INSERT + ";\n\\echo open\n")
        t.equal(writer.stdout.readline(), "open\n", "the writer")
        with Listener(name) as listener:
            migrating = subprocess.Popen(
                [t.BOOKSCTL, "-d", conninfo, "migrate"],
                env=t.clean_environment(), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                encoding="utf-8")
            # CREATE TRIGGER waits for the open transaction
            t.eventually(lambda: sql(
                "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = "
                "'book'::regclass"), "the migration waits")
            t.equal(sql("SELECT count(*) FROM book"), "90", "readers go on")
            writer.stdin.write("COMMIT;\n\\echo done\n")
            t.equal(writer.stdout.readline(), "done\n", "the writer")
            out, err = migrating.communicate(timeout=60)
            t.equal((migrating.returncode, "applied" in out), (0, True),
                    out + err)
            writer.stdin.write(
                OLD_INSERT.replace("9999999999", "8888888888") +
                ";\n\\echo again\n")
            t.equal(writer.stdout.readline(), "again\n", "the writer")
            t.equal(heard_isbns(listener), ["8888888888"], "notified")
        t.equal(sql("SELECT count(*) FROM book"), "92", "books")
    finally:
        writer.stdin.close()
        writer.wait(20)
        writer.stdout.close()


@t.case("the file of the triggers can be run again, changed ones stay")
def _():
    sql, listener, _conninfo = notified()
    path = os.path.join(t.SRCDIR, "api", "sql", "002_book_notify.sql")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    with listener:
        before = shape(sql)
        sql("SET ROLE books;" + text)
        t.equal(shape(sql), before, "the triggers")
        sql("ALTER TABLE book DISABLE TRIGGER booksd_book_insert;"
            "DROP TRIGGER booksd_book_delete ON book")
        sql("SET ROLE books;" + text + text)
        t.equal(shape(sql), before, "the triggers, with the missing one")
        sql(NEW_ROWS.format(isbn="'b' || n", count=2))
        t.equal(listener.heard(), [], "of the disabled one")
        sql("DELETE FROM book")
        t.equal(heard_isbns(listener), ["b1", "b2"], "of the new one")


@t.case("a role with the TRIGGER privilege that does not own the table will do")
def _():
    conninfo, sql = new_database(FLYWAY + STAGES[2][1])
    sql("CREATE ROLE guest LOGIN;"
        "GRANT SELECT, INSERT, UPDATE, DELETE, TRIGGER ON book TO guest;"
        "GRANT USAGE ON SEQUENCE book_id_seq TO guest;"
        "GRANT CREATE ON SCHEMA public TO guest")
    migrate(conninfo.replace("user=books", "user=guest"))
    with Listener(conninfo.split("dbname=")[1].split()[0]) as listener:
        # whoever writes: nobody needs a right on the function
        for user, n in (("books", 1), ("guest", 2), ("postgres", 3)):
            sql(f"SET ROLE {user};" +
                NEW_ROWS.format(isbn=f"'b{n}'", count=1))
            t.equal(heard_isbns(listener), [f"b{n}"], user)


@t.case("a hostile search path changes nothing")
def _():
    sql, listener, _conninfo = notified()
    sql("CREATE SCHEMA evil;"
        "CREATE FUNCTION evil.pg_notify(text, text) RETURNS void "
        "LANGUAGE sql AS 'SELECT 1/0';"
        "CREATE FUNCTION evil.octet_length(text) RETURNS integer "
        "LANGUAGE sql AS 'SELECT 1/0';"
        "CREATE TABLE evil.booksd_new (isbn text);"
        "GRANT ALL ON SCHEMA evil TO PUBLIC")
    with listener:
        sql("SET search_path = evil, pg_catalog, public;"
            "CREATE TEMP TABLE booksd_new (isbn text);" +
            NEW_ROWS.format(isbn="'b' || n", count=2))
        t.equal(heard_isbns(listener), ["b1", "b2"], "notified")


pg.close()
t.done()
