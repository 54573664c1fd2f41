#!/usr/bin/env python3
"""Goal: booksctl does what its manual says to a real database, counts every
row, and says what went wrong without telling secrets.
Method: the real binary against a private PostgreSQL, each case in a database
of its own; the catalogue of data/ goes in, comes out, and goes in again.
"""
import csv
import io
import os
import pty
import re
import stat
import subprocess
import tempfile

import booksd_test as t

HEADER = "isbn,title,author,publisher,price\n"
CATALOGUE = os.path.join(t.SRCDIR, "data", "catalogue.csv")
# sysexits(3)
USAGE, DATAERR, NOINPUT, UNAVAILABLE, CANTCREAT, NOPERM, CONFIG = (
    64, 65, 66, 69, 73, 77, 78)

pg = t.Postgres()
folder = tempfile.mkdtemp(prefix="booksd-it-ctl-")
databases = 0


def new_database(migrated=True):
    """(conninfo, sql function) of an empty database."""
    global databases
    databases += 1
    name = f"ctl{databases}"
    conninfo = pg.create_database(name)
    if migrated:
        done(t.booksctl("migrate", database=conninfo), 0)
    return conninfo, lambda text: pg.sql(text, database=name)


def done(result, code):
    t.equal(result.returncode, code,
            f"exit code (said: {result.stdout}{result.stderr})")
    return result


def load(conninfo, text, *options):
    return t.booksctl("-q", "import", *options, "-", database=conninfo, stdin=text)


def counts(result):
    found = re.search(r"(\d+) loaded, (\d+) skipped \(already there\), "
                      r"(\d+) rejected$", result.stdout.strip())
    t.check(found, f"no counts in {result.stdout!r}")
    return tuple(int(number) for number in found.groups())


@t.case("import loads the catalogue, rejects the two titles that are too long")
def _():
    conninfo, sql = new_database()
    first = done(t.booksctl("import", "--allow-rejects=2", CATALOGUE,
                            database=conninfo), 0)
    t.equal(counts(first), (1012, 0, 2), "counts")
    rejects = [line for line in first.stderr.splitlines() if "reject" in line]
    t.equal(len(rejects), 2, "lines about rejected rows")
    for line, isbn in zip(rejects, ("9783763216284", "9791092674002")):
        t.check(f"ISBN {isbn}: The book title must have at most 255 "
                "characters." in line, line)
        number = int(re.search(r"catalogue\.csv:(\d+):", line)[1])
        with open(CATALOGUE, encoding="utf-8") as file:
            t.check(file.read().splitlines()[number - 1].startswith(isbn),
                    f"line {number} is not the one with {isbn}")
    t.equal(sql("SELECT count(*), min(id), max(id) FROM book"),
            "1012|1|1012", "rows and ids")
    t.equal(sql("SELECT title, author, price, publisher, version, "
                "created_date = last_modified_date, created_by FROM book "
                "WHERE isbn = '9780201134476'"),
            "The TeXbook|Donald E. Knuth|15.95|Addison-Wesley|1|t|", "a row")
    # and the same again
    again = done(t.booksctl("import", CATALOGUE, database=conninfo), DATAERR)
    t.equal(counts(again), (0, 1012, 2), "counts of the second time")
    done(t.booksctl("import", "--allow-rejects=1", CATALOGUE,
                    database=conninfo), DATAERR)


@t.case("what export writes is what import read, and reads again")
def _():
    conninfo, sql = new_database()
    done(t.booksctl("import", "--allow-rejects=2", CATALOGUE,
                    database=conninfo), 0)
    sql("""INSERT INTO book (isbn, title, author, price, publisher,
        created_date, last_modified_date, version) VALUES
        ('0000000001', E'a "quoted", \\n two-lined\\t\\\\N title', 'x;y', 1e-7,
         '', now(), now(), 1),
        ('0000000002', '  spaces  ', '\U0001F4DA', 1e21, NULL, now(), now(), 1),
        ('0000000003', E'\\\\.', 'null', 0.1, 'NULL', now(), now(), 1)""")
    path = os.path.join(folder, "out.csv")
    said = done(t.booksctl("export", path, database=conninfo), 0)
    t.equal(said.stdout, "1015 written\n", "what export says")
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    t.equal(len(rows), 1015, "rows")
    t.equal(rows[-3]["title"], 'a "quoted", \n two-lined\t\\N title', "title")
    other, other_sql = new_database()
    t.equal(counts(done(t.booksctl("import", path, database=other), 0)),
            (1015, 0, 0), "counts")
    same = ("SELECT isbn, title, author, price, publisher IS NULL, publisher "
            "FROM book ORDER BY id")
    t.equal(other_sql(same), sql(same), "the two catalogues")
    # to standard output, the same bytes
    out = done(t.booksctl("export", database=other), 0).stdout
    with open(path, encoding="utf-8", newline="") as file:
        t.equal(out, file.read().replace("\r\n", "\n"), "standard output")
    t.equal([name for name in os.listdir(folder) if "part" in name], [],
            "unfinished files")


@t.case("export of an empty catalogue is a header")
def _():
    conninfo, _sql = new_database()
    t.equal(done(t.booksctl("export", database=conninfo), 0).stdout, HEADER,
            "output")


@t.case("the names and the order of the columns are the header's")
def _():
    conninfo, sql = new_database()
    text = ("Price,year,AUTHORS,isbn13,Title\n"
            "3.50,1999,A. Nobody; B. Body,0000000001,One\n")
    t.equal(counts(done(load(conninfo, "\ufeff" + text), 0)), (1, 0, 0),
            "counts")
    t.equal(sql("SELECT isbn, title, author, price, publisher IS NULL "
                "FROM book"), "0000000001|One|A. Nobody; B. Body|3.5|t", "row")


HEADERS = (
    ("a column is missing", "isbn,title,author\n", "price"),
    ("two columns have one name", "isbn,isbn13,title,author,price\n",
     "two columns"),
    ("the file is empty", "", "empty"),
    ("the file is blank", "\n\n", "empty"),
    ("the header is no CSV", 'isbn,ti"tle\n', "quote"),
)
for name, text, word in HEADERS:
    @t.case(f"a header is refused when {name}")
    def _():
        conninfo, sql = new_database()
        result = done(load(conninfo, text), DATAERR)
        t.check(word in result.stderr, result.stderr)
        t.equal(result.stdout, "", "output")


LONG = "x" * 255
ROWS = (
    # row, reason or "" when it is good
    ("0000000001,T,A,P,1", ""),
    (f"0000000001,{LONG},{LONG},{LONG},1", ""),
    (f"0000000001,{'é' * 255},{'书' * 255},P,1", ""),
    ("000000000X,T,A,P,1", "The ISBN format must be valid."),
    (" 0000000001,T,A,P,1", "The ISBN format must be valid."),
    (",T,A,P,1", "The book ISBN must be defined."),
    ("0000000001,,A,P,1", "The book title must be defined."),
    ('0000000001,"  ",A,P,1', "The book title must be defined."),
    ("0000000001,T,,P,1", "The book author must be defined."),
    (f"0000000001,{LONG}x,A,P,1",
     "The book title must have at most 255 characters."),
    (f"0000000001,T,{LONG}x,P,1",
     "The book author must have at most 255 characters."),
    (f"0000000001,T,A,{LONG}x,1",
     "The book publisher must have at most 255 characters."),
    ("0000000001,T,A,P,", "The book price must be defined."),
    ("0000000001,T,A,P,0", "The book price must be greater than zero."),
    ("0000000001,T,A,P,-1", "The book price must be greater than zero."),
    ("0000000001,T,A,P,1e-400", "The book price must be greater than zero."),
    ("0000000001,T,A,P,1e400", "The book price must be a number."),
    ("0000000001,T,A,P,NaN", "The book price must be a number."),
    ("0000000001,T,A,P,12.3.4", "The book price must be a number."),
    ("0000000001,T,A,P, 1", "The book price must be a number."),
    ("0000000001,T,A,P,0x10", "The book price must be a number."),
    ('0000000001,T,A,P,"1,5"', "The book price must be a number."),
    ("0000000001,T,A,P", "4 fields, the header has 5"),
    ("0000000001,T,A,P,1,", "6 fields, the header has 5"),
    ('0000000001,T "x",A,P,1', "a quote inside an unquoted field"),
    ('0000000001,"T",A,P,"1', "a quote that is never closed"),
    (",,,,", "The book ISBN must be defined. The book title must be defined. "
     "The book author must be defined. The book price must be defined."),
)


@t.case("rows are refused as the interface refuses books, with their reason")
def _():
    conninfo, sql = new_database()
    for row, reason in ROWS:
        sql("TRUNCATE book")
        result = load(conninfo, HEADER + row)
        t.equal(counts(done(result, DATAERR if reason else 0)),
                (0, 0, 1) if reason else (1, 0, 0), row)
        if reason:
            t.check(result.stderr.rstrip().endswith(": " + reason),
                    f"{row}: {result.stderr}")
            t.check("standard input:2: rejected" in result.stderr,
                    result.stderr)


@t.case("bytes that are no UTF-8 and NUL are refused, others go on")
def _():
    conninfo, sql = new_database()
    for bad in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\0"):
        sql("TRUNCATE book")
        path = os.path.join(folder, "bytes.csv")
        with open(path, "wb") as file:
            file.write(HEADER.encode() + b"0000000001,T" + bad + b",A,P,1\n"
                       b"0000000002,T,A,P,1\n")
        result = done(t.booksctl("import", path, database=conninfo), DATAERR)
        t.equal(counts(result), (1, 0, 1), repr(bad))
        t.check("\\x" not in result.stderr, "bytes of the file are shown")


@t.case("control bytes of the file never reach the terminal")
def _():
    conninfo, _sql = new_database()
    result = done(load(conninfo, HEADER + "\033[31m,T\033,A,P,1\n"), DATAERR)
    t.check("\033" not in result.stderr + result.stdout, result.stderr)


@t.case("an ISBN that comes twice is loaded once, ids are in the file's order")
def _():
    conninfo, sql = new_database()
    rows = "".join(f"{number:010},Title {number},A,P,1\n"
                   for number in (5, 3, 5, 4, 3, 1))
    t.equal(counts(done(load(conninfo, HEADER + rows), 0)), (4, 2, 0),
            "counts")
    t.equal(sql("SELECT string_agg(isbn, ' ' ORDER BY id) FROM book"),
            "0000000005 0000000003 0000000004 0000000001", "order")


@t.case("a dry run counts the same and stores nothing")
def _():
    conninfo, sql = new_database()
    done(load(conninfo, HEADER + "0000000001,T,A,P,1\n"), 0)
    rows = HEADER + "".join(f"{number:010},T,A,P,{price}\n" for number, price
                            in ((1, 1), (2, 1), (2, 1), (3, 1), (4, 0)))
    result = done(load(conninfo, rows, "--dry-run"), DATAERR)
    t.equal(counts(result), (2, 2, 1), "counts")
    t.equal(sql("SELECT count(*) FROM book"), "1", "rows")
    result = done(load(conninfo, rows), DATAERR)
    t.equal(counts(result), (2, 2, 1), "counts of the real run")
    t.equal(sql("SELECT max(id) FROM book"), "3", "no id went to the dry run")


@t.case("many rows go through in pieces, many rejects are counted, not shown")
def _():
    conninfo, sql = new_database()
    rows = io.StringIO()
    rows.write(HEADER)
    for number in range(60000):
        rows.write(f"{number:013},Title {number},Author,Publisher,"
                   f"{number % 3 and 9.9}\n")
    result = done(load(conninfo, rows.getvalue()), DATAERR)
    t.equal(counts(result), (40000, 0, 20000), "counts")
    t.check(len(result.stderr.splitlines()) < 150, "too many lines")
    t.equal(sql("SELECT count(*) FROM book WHERE price = 9.9"), "40000",
            "rows")


@t.case("an error of the database in the middle stores nothing")
def _():
    conninfo, sql = new_database()
    sql("ALTER TABLE book ADD CHECK (title <> 'bad')")
    result = done(load(conninfo, HEADER + "0000000001,good,A,P,1\n"
                       "0000000002,bad,A,P,1\n"), DATAERR)
    t.check("23514" in result.stderr, result.stderr)
    t.equal(sql("SELECT count(*) FROM book"), "0", "rows")


@t.case("without tables import and export say what to do")
def _():
    conninfo, _sql = new_database(migrated=False)
    for result in (load(conninfo, HEADER + "0000000001,T,A,P,1\n"),
                   t.booksctl("export", database=conninfo)):
        done(result, UNAVAILABLE)
        t.check("booksctl migrate" in result.stderr, result.stderr)


@t.case("a terminal gets a progress bar, a file does not")
def _():
    conninfo, _sql = new_database()
    plain = done(t.booksctl("import", "--allow-rejects=2", CATALOGUE,
                            database=conninfo), 0)
    t.check("\r" not in plain.stderr and "100 %" in plain.stderr,
            plain.stderr)
    quiet = done(t.booksctl("-q", "import", "--allow-rejects=2", CATALOGUE,
                            database=conninfo), 0)
    t.check("%" not in quiet.stderr, quiet.stderr)
    ours, theirs = pty.openpty()
    process = subprocess.run(
        [t.BOOKSCTL, "-d", conninfo, "import", "--allow-rejects=2",
         CATALOGUE], env=t.clean_environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=theirs, timeout=60, check=False)
    os.close(theirs)
    seen = os.read(ours, 65536).decode()
    os.close(ours)
    t.equal(process.returncode, 0, "exit code")
    t.check("\r" in seen and "[####" in seen and "100 %" in seen, seen)


@t.case("the database comes from -d, BOOKS_DATABASE, a file, libpq")
def _():
    conninfo, _sql = new_database()
    wrong = "host=127.0.0.1 port=1 dbname=nowhere"
    path = os.path.join(folder, "secret")
    with open(path, "w", encoding="utf-8") as file:
        file.write(conninfo + "\n")
    libpq = {"PGHOST": "127.0.0.1", "PGPORT": str(pg.port), "PGUSER": "books",
             "PGDATABASE": conninfo.split("dbname=")[1].split()[0]}
    for env, database in (({"BOOKS_DATABASE": wrong}, conninfo),
                          ({"BOOKS_DATABASE": conninfo}, None),
                          ({"BOOKS_DATABASE_FILE": path}, None),
                          (libpq, None)):
        done(t.booksctl("export", database=database, env=env), 0)
    done(t.booksctl("export", env={"BOOKS_DATABASE": wrong, **libpq}),
         UNAVAILABLE)
    done(t.booksctl("export", env={"BOOKS_DATABASE_FILE": "/nowhere"}), CONFIG)


@t.case("no secret is ever said, and ps does not show -d")
def _():
    for database, code in (
            ("host=127.0.0.1 port=1 password=s3cret", UNAVAILABLE),
            ("postgresql://books:s3cret@127.0.0.1:1/x", UNAVAILABLE),
            ("postgresql://books:s3cret@[127.0.0.1:1/x", CONFIG),
            ("password=a s3cret host=x", CONFIG),
            ("s3cret=1", CONFIG)):
        result = done(t.booksctl("export", database=database), code)
        t.check("s3cret" not in result.stderr + result.stdout, result.stderr)
    process = subprocess.Popen(
        [t.BOOKSCTL, "-d", "host=127.0.0.1 port=1 password=s3cret", "migrate",
         "--wait"], env=t.clean_environment(), stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        process.stderr.readline()  # it waits now
        t.check("migrate" in t.process_title(process.pid), "title")
        t.check("s3cret" not in t.process_title(process.pid), "title")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@t.case("mistakes on the command line are 64 and say what was meant")
def _():
    for args, words in (
            ((), "no command"), (("improt", "x"), "did you mean import?"),
            (("migrat",), "did you mean migrate?"), (("xyzzy",), "unknown"),
            (("-x",), "-x"), (("-d",), "-d"), (("import",), "one file"),
            (("import", "a", "b"), "one file"),
            (("import", "--allow-rejects=x", "a"), "number"),
            (("import", "--dry", "--wat", "a"), "--wat"),
            (("export", "a", "b"), "one file"), (("migrate", "x"), "argument"),
            (("migrate", "--wait=x"), "seconds"), (("help", "x"), "argument"),
            (("version", "x"), "argument")):
        result = done(t.booksctl(*args), USAGE)
        t.check(words in result.stderr, f"{args}: {result.stderr}")
        t.equal(result.stdout, "", f"{args}: output")


@t.case("files that are not there or cannot be made have codes of their own")
def _():
    conninfo, _sql = new_database()
    done(t.booksctl("import", "/nowhere/x.csv", database=conninfo), NOINPUT)
    done(t.booksctl("import", folder, database=conninfo), NOINPUT)
    done(t.booksctl("export", "/nowhere/x.csv", database=conninfo), CANTCREAT)
    done(t.booksctl("export", "/dev/full", database=conninfo), 74)
    with open("/dev/full", "wb") as full:
        process = subprocess.run([t.BOOKSCTL, "help"], stdout=full,
                                 stderr=subprocess.DEVNULL, check=False)
    t.equal(process.returncode, 74, "exit code with a full disk")
    t.check(stat.S_ISCHR(os.stat("/dev/full").st_mode), "a device stays one")


@t.case("a role without rights gets 77")
def _():
    conninfo, sql = new_database()
    sql("CREATE ROLE reader LOGIN; GRANT SELECT ON book TO reader")
    reader = conninfo.replace("user=books", "user=reader")
    done(t.booksctl("export", database=reader), 0)
    done(load(reader, HEADER + "0000000001,T,A,P,1\n"), NOPERM)


@t.case("help and version answer on standard output")
def _():
    for args in (("help",), ("-h",)):
        text = done(t.booksctl(*args), 0).stdout
        for command in ("export", "help", "import", "migrate", "version"):
            t.check(re.search(rf"^  {command}\b", text, re.M), text)
        t.check(all(len(line) <= 80 for line in text.splitlines()), "width")
    for args in (("version",), ("-V",)):
        t.check(re.match(r"booksctl \d+\.\d+", done(t.booksctl(*args),
                                                    0).stdout), "version")


pg.close()
t.shutil.rmtree(folder)
t.done()
