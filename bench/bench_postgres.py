"""A private PostgreSQL cluster for the run, and pgbench on it.

It lives in the run's own folder, listens on a unix socket only, is not pinned
to a processor and runs with fsync off: nothing that is measured writes.  When
root runs the harness the cluster belongs to the user postgres.
"""
import os
import pwd
import re
import shutil
import subprocess
import time

from bench_process import (ALL_CPUS, Unavailable, cpu_seconds, free_port,
                           pinned, tree)

PGBENCH_CLIENTS = 8
# booksd's own statement, on a copy of the table whose ISBNs are consecutive:
# pgbench can draw a number, but not a row of a list.
_SELECT_BOOK = """\
\\set isbn 9780000000000 + random(1, {rows})
SELECT id::int8, isbn::text, title::text, author::text, price::float8,
 publisher::text, created_date::timestamp, last_modified_date::timestamp,
 created_by::text, last_modified_by::text, version::int8
 FROM numbered_book WHERE isbn = :isbn::text;
"""
_NUMBERED_BOOK = """
CREATE TABLE numbered_book (LIKE book INCLUDING ALL);
INSERT INTO numbered_book SELECT * FROM book;
UPDATE numbered_book SET isbn = number FROM (SELECT id AS of_id,
 (9780000000000 + row_number() OVER (ORDER BY id))::text AS number
 FROM numbered_book) AS numbers WHERE id = of_id;
VACUUM (FULL, ANALYZE) numbered_book;
VACUUM (ANALYZE) book;
"""


def _bin_folder():
    """Debian keeps the server's programs out of PATH."""
    base = "/usr/lib/postgresql"
    found = [os.path.join(base, version, "bin")
             for version in sorted(os.listdir(base), key=float, reverse=True)
             ] if os.path.isdir(base) else []
    path = shutil.which("initdb")
    found += [os.path.dirname(os.path.realpath(path))] if path else []
    for folder in found:
        if all(os.access(os.path.join(folder, name), os.X_OK)
               for name in ("initdb", "postgres", "psql", "pgbench")):
            return folder
    raise Unavailable("PostgreSQL's server and pgbench are not installed")


class Postgres:
    """The cluster of a run, with the catalogue in it; a with block."""

    def __init__(self, folder, booksctl, catalogue):
        self.bin = _bin_folder()
        self.folder = os.path.join(folder, "pg")
        self.booksctl, self.catalogue = booksctl, catalogue
        self.port = free_port()
        self.process = None
        self.who = {}
        if os.getuid() == 0:
            user = pwd.getpwnam("postgres")
            self.who = {"user": user.pw_uid, "group": user.pw_gid,
                        "extra_groups": []}
        self.conninfo = (f"host={self.folder} port={self.port} dbname=books "
                         "user=postgres")
        self.env = {"PGHOST": self.folder, "PGPORT": str(self.port),
                    "PGDATABASE": "books", "PGUSER": "postgres"}

    def _run(self, program, *args, stdin=None, **more):
        done = subprocess.run(
            [os.path.join(self.bin, program), *args], cwd="/", input=stdin,
            encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, **self.env, "LC_ALL": "C"}, check=False, **more)
        if done.returncode != 0:
            raise Unavailable(f"{program}: {done.stdout.strip()[-300:]}")
        return done.stdout

    def sql(self, text):
        return self._run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", stdin=text)

    def _ctl(self, *args):
        done = subprocess.run(
            [self.booksctl, "-d", self.conninfo, *args], encoding="utf-8",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            raise Unavailable(f"booksctl {args[0]}: "
                              f"{done.stdout.strip()[-300:]}")

    def _start(self):
        data = os.path.join(self.folder, "data")
        os.mkdir(self.folder, 0o755)
        if self.who:
            os.chown(self.folder, self.who["user"], self.who["group"])
        self._run("initdb", "-D", data, "-N", "-U", "postgres", "-A", "trust",
                  "-E", "UTF8", "--locale=C.UTF-8", **self.who)
        log = os.path.join(self.folder, "log")
        settings = {
            "port": self.port, "unix_socket_directories": self.folder,
            "listen_addresses": "", "fsync": "off", "max_connections": 100,
            "shared_buffers": "128MB", "autovacuum": "off",
        }
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                [os.path.join(self.bin, "postgres"), "-D", data] +
                [f"--{name}={value}" for name, value in settings.items()],
                cwd="/", stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                preexec_fn=pinned(ALL_CPUS), **self.who)
        end = time.monotonic() + 30
        while True:
            try:
                self._run("psql", "-XAtq", "-d", "postgres", "-c", "SELECT 1")
                break
            except Unavailable:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise
                time.sleep(0.05)

    def _load(self):
        if not os.path.exists(self.booksctl):
            raise Unavailable("booksctl is not built")
        self._run("psql", "-XAtq", "-d", "postgres", "-c",
                  "CREATE DATABASE books")
        self._ctl("migrate")
        # Two titles of the catalogue are longer than the interface allows.
        self._ctl("import", "--allow-rejects=2", self.catalogue)
        self.sql(_NUMBERED_BOOK)
        self._run("pgbench", "-i", "-q", "-s", "1")
        self.isbns = self.sql("SELECT isbn FROM book ORDER BY id").split()
        self.script = os.path.join(self.folder, "select_book.sql")
        with open(self.script, "w", encoding="ascii") as file:
            # One statement must be one command for pgbench -M prepared.
            file.write(_SELECT_BOOK.format(rows=len(self.isbns)))

    def add_books(self, count):
        """COPY books whose ISBNs follow one another (as bench/load --isbns
        asks for them) and whose texts all have the same length."""
        self.sql("DELETE FROM book WHERE isbn BETWEEN '9780000000001' AND "
                 f"'{9780000000000 + count}';\n"
                 "COPY book (id, isbn, title, author, price, publisher, "
                 "created_date, last_modified_date, created_by, "
                 "last_modified_by, version) FROM STDIN;\n" + "".join(
                     f"{1000000 + i}\t{9780000000000 + i}\t"
                     f"The Book of the Number {i:07d}\tAn Author of Books\t"
                     "12.5\tThe Publishers of Numbers\t"
                     "2024-01-02 03:04:05.678\t2024-01-02 03:04:05.678\t"
                     "bench\tbench\t0\n" for i in range(1, count + 1)) +
                 "\\.\nVACUUM (ANALYZE) book;\n")

    def __enter__(self):
        try:
            self._start()
            self._load()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.send_signal(3)  # SIGQUIT: at once
                self.process.wait()

    def cpu(self):
        return sum(cpu_seconds(tree(self.process.pid)))

    def pgbench(self, seconds, cpus, script=None):
        """One run of prepared single-row selects: what it measured.

        The cost of the client is pgbench's own, that of the database is kept
        beside it.
        """
        what = ["-f", script] if script else ["-S"]
        command = [os.path.join(self.bin, "pgbench"), "-n", *what, "-M",
                   "prepared", "-c", str(PGBENCH_CLIENTS), "-j", "1", "-T",
                   str(max(1, round(seconds)))]
        before = self.cpu()
        with subprocess.Popen(
                command, env={**os.environ, **self.env}, cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, encoding="utf-8",
                preexec_fn=pinned(cpus)) as process:
            text = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        tps = re.search(r"^tps = ([0-9.]+)", text, re.M)
        count = re.search(r"actually processed: (\d+)", text)
        latency = re.search(r"^latency average = ([0-9.]+) ms", text, re.M)
        if process.returncode != 0 or not (tps and count and latency):
            raise Unavailable(f"pgbench: {text.strip()[-300:]}")
        count = int(count[1])
        return {
            "requests": count, "rps": float(tps[1]),
            "seconds": count / float(tps[1]),
            "cpu_us": (usage.ru_utime + usage.ru_stime) / count * 1e6,
            "user_us": usage.ru_utime / count * 1e6,
            "sys_us": usage.ru_stime / count * 1e6,
            "busy": (usage.ru_utime + usage.ru_stime) * float(tps[1]) / count,
            "database_us": (self.cpu() - before) / count * 1e6,
            "p50_us": None, "p90_us": None, "p99_us": None,
            "mean_us": float(latency[1]) * 1000, "errors": 0,
        }
