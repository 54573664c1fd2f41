#!/usr/bin/env python3
"""Goal: booksd fetches the database's user and password from Secrets Manager,
says clearly what stands in the way, and shows them to nobody.
Method: a PostgreSQL that asks for SCRAM passwords and the fake AWS, which
verifies signatures by AWS's own signer.
"""
import contextlib
import glob
import os
import signal

import booksd_test as t
import fake_aws
from secrets_test import asks_for_passwords, password, value

ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:db-AbCdEf"


def start(pg, aws, settings=None, env=None, wait="readyz", **more):
    base = {"database": f"host=127.0.0.1 port={pg.port} dbname=books",
            "database_secret": "db", "workers": 2, "io_backend": "epoll"}
    return t.Booksd({**base, **(settings or {})}, wait=wait,
                    env=env or aws.env(), **more)


def failed(server, words):
    """It says words, and goes on waiting."""
    t.eventually(lambda: [one for one in server.errors("secret_failed")
                          if words in one["reason"]], words)
    t.equal(server.request("GET", "/readyz").status, 503, "readyz")


def connects(server):
    server.wait_for("readyz")
    t.equal(server.request("GET", "/books").status, 200, "books")


def sources(aws):
    @t.case("keys of a task role, as the container endpoint gives them")
    def _():
        aws.control(token="Bearer a token")
        with start(pg, aws, env=aws.env(
                AWS_CONTAINER_AUTHORIZATION_TOKEN="Bearer a token")) as server:
            connects(server)
        with start(pg, aws, wait="livez") as server:
            failed(server, "the container credentials endpoint answered 401")
        with start(pg, aws, wait="livez") as server:
            path = os.path.join(server.folder, "token")
            with open(path, "w", encoding="ascii") as file:
                file.write("Bearer a token\n")
            with start(pg, aws, env=aws.env(
                    AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=path)) as other:
                connects(other)
        aws.control(token=None)

    @t.case("keys are not asked for at an address in the network")
    def _():
        for url in ("http://192.0.2.1/keys", "http://127.0.0.1@192.0.2.1/",
                    "http://127.0.0.1.example.com/", "ftp://127.0.0.1/"):
            with start(pg, aws, wait="livez", env=aws.env(
                    AWS_CONTAINER_CREDENTIALS_FULL_URI=url)) as server:
                failed(server, "has to be https")

    @t.case("keys of the environment, and of a profile in the shared file")
    def _():
        aws.control(key={"id": "AKIATEST", "secret": "s3/cr+t"})
        user = aws.env(AWS_CONTAINER_CREDENTIALS_FULL_URI=None, HOME="/none")
        with start(pg, aws, env={**user, "AWS_ACCESS_KEY_ID": "AKIATEST",
                                 "AWS_SECRET_ACCESS_KEY": "s3/cr+t"},
                   ) as server:
            connects(server)
            path = os.path.join(server.folder, "credentials")
            with open(path, "w", encoding="ascii") as file:
                file.write("[default]\naws_access_key_id = AKIANONE\n"
                           "aws_secret_access_key = none\n# [mine]\n"
                           "[mine]\naws_access_key_id=AKIATEST\n"
                           "aws_secret_access_key=s3/cr+t\n")
            with start(pg, aws, env={
                    **user, "AWS_SHARED_CREDENTIALS_FILE": path,
                    "AWS_PROFILE": "mine"}) as other:
                connects(other)

    @t.case("keys that have expired are fetched again")
    def _():
        with start(pg, aws) as server:
            before = aws.asked("credentials")
            aws.control(revoke=True)
            os.kill(server.ops_pid(), signal.SIGHUP)
            t.eventually(lambda: aws.asked("credentials") == before + 1,
                         "other keys")
            gets = aws.asked(result="OK")
            os.kill(server.ops_pid(), signal.SIGHUP)
            t.eventually(lambda: aws.asked(result="OK") > gets, "another get")
            gets = aws.asked(result="OK")
            server.send_signal(signal.SIGHUP)
            t.eventually(lambda: aws.asked(result="OK") > gets, "by a reload")


def shapes(aws):
    @t.case("the shape with host, port, dbname and engine needs no database")
    def _():
        aws.control(put={"name": "db", "value": value(
            "one", engine="postgres", host="127.0.0.1", port=pg.port,
            dbname="books", dbInstanceIdentifier="x")})
        with start(pg, aws, {"database": ""}) as server:
            connects(server)

    @t.case("an ARN names the region")
    def _():
        with start(pg, aws, {"database_secret": ARN},
                   env=aws.env(AWS_REGION=None)) as server:
            connects(server)
            t.equal(aws.requests()[-1]["region"], "us-east-1", "region")

    @t.case("a password of every printable kind")
    def _():
        text = """ '\\"{}=#& %s$(a)"""
        password(pg, text.replace("'", "''"))
        aws.control(put={"name": "db", "value": value(text)})
        with start(pg, aws) as server:
            connects(server)
        password(pg, "one")

    @t.case("secrets that are none are told apart")
    def _():
        for bad, words in (
                ("no JSON", "no JSON object with username"),
                ({"username": "a"}, "lacks username or password"),
                ({"password": "a"}, "lacks username or password"),
                (value("a", engine="mysql"), "another engine"),
                (value("a", port=[1]), "its port is no number"),
                (value("a" * 5000), "too long")):
            aws.control(put={"name": "bad", "value": bad})
            with start(pg, aws, {"database_secret": "bad"},
                       wait="livez") as server:
                failed(server, words)
        aws.control(put={"name": "db", "value": value("one")})


def failures(aws):
    @t.case("what an administrator can mend is named with what to do")
    def _():
        for order, undo, settings, env, words in (
                ({"deny": "db"}, {"allow": "db"}, {}, {},
                 "allow secretsmanager:GetSecretValue"),
                ({}, {}, {"database_secret": "nowhere"}, {},
                 "there is no such secret in this region"),
                ({}, {}, {}, {"AWS_REGION": None}, "set AWS_REGION"),
                ({}, {}, {}, {"AWS_CONTAINER_CREDENTIALS_FULL_URI": None,
                              "HOME": "/none"}, "give the task a task role"),
                ({"clock": 3600}, {"clock": 0}, {}, {}, "s behind of AWS's"),
                ({"clock": -3600}, {"clock": 0}, {}, {}, "s ahead of AWS's"),
                ({}, {}, {}, {"AWS_ACCESS_KEY_ID": "AKIATEST",
                              "AWS_SECRET_ACCESS_KEY": "wrong"},
                 "does not belong to the access key id"),
                ({}, {}, {}, {"AWS_ENDPOINT_URL_SECRETS_MANAGER":
                              "http://127.0.0.1:9"}, "cannot be reached")):
            if order:
                aws.control(**order)
            try:
                with start(pg, aws, settings, aws.env(**env),
                           wait="livez") as server:
                    failed(server, words)
            finally:
                if undo:
                    aws.control(**undo)

    @t.case("what passes by itself is waited out, throttling as long as it "
            "says")
    def _():
        for fault in ({"kind": "error", "count": 3},
                      {"kind": "garbage", "count": 2},
                      {"kind": "expired"},
                      {"kind": "error", "where": "credentials"},
                      {"kind": "throttle", "count": 2}):
            aws.control(fault=fault, ttl=3600)
            with start(pg, aws) as server:
                connects(server)
        aws.control(fault={"kind": "throttle", "retryAfter": 2})
        with start(pg, aws, wait="livez") as server:
            failed(server, "too many requests")
            count = aws.asked()
            server.wait_for("readyz")
            t.equal(aws.asked(), count + 1, "requests")

    @t.case("an answer that takes its time stops nobody")
    def _():
        aws.control(slow=1500)
        with start(pg, aws, wait="livez") as server:
            with t.Raw(server.control) as client:
                t.equal(client.request("GET", "/cache").status, 200, "control")
            t.equal(server.request("GET", "/readyz").status, 503, "not yet")
            aws.control(slow=0)
            connects(server)

    @t.case("--fail-fast ends when there is no secret")
    def _():
        aws.control(deny="db")
        with start(pg, aws, wait=None, args=["--fail-fast"]) as server:
            t.equal(server.wait(), 69, "exit code")
        aws.control(allow="db")


def secrecy(aws):
    @t.case("it is in no log, no listing of settings, no environment")
    def _():
        text = "t0p5ecretpassw0rd"
        password(pg, text)
        aws.control(put={"name": "db", "value": value(text)})
        with start(pg, aws, {"log_level": "debug"}) as server:
            connects(server)
            for pid in [server.pid, *server.children()]:
                for name in ("environ", "cmdline"):
                    with open(f"/proc/{pid}/{name}", "rb") as file:
                        t.check(text.encode() not in file.read(), name)
            said = server.stderr_text()
            t.check(text not in said, "the log")
            t.check("secret_fetched" in said, "it was fetched")
            with open(server.stdout, encoding="utf-8") as file:
                t.check(text not in file.read(), "the access log")
        password(pg, "one")
        aws.control(put={"name": "db", "value": value("one")})

    @t.case("who holds it dumps no core, unless core_dumps is on")
    def _():
        def limits(server):
            found = set()
            for pid in server.children():
                with open(f"/proc/{pid}/limits", encoding="ascii") as file:
                    line = next(one for one in file if "core file" in one)
                found.add(line.split()[4])
            return found

        with start(pg, aws) as server:
            t.equal(limits(server), {"0"}, "limits")
            uids = {os.stat(f"/proc/{pid}/mem").st_uid
                    for pid in server.children()}
            t.equal(uids, {0}, "owners of their memory")
        with start(pg, aws, {"core_dumps": "on"}) as server:
            with open("/proc/self/limits", encoding="ascii") as file:
                own = next(one for one in file if "core file" in one)
            t.equal(limits(server), {own.split()[4]}, "limits")

    @t.case("it lies in memory that is locked and not dumped")
    def _():
        with start(pg, aws) as server:
            with open(f"/proc/{server.pid}/smaps", encoding="ascii") as file:
                text = file.read()
            flags = [one.split()[1:] for one in text.splitlines()
                     if one.startswith("VmFlags:")]
            wanted = {"sh", "dd", "lo"}
            if t.is_sanitized():
                wanted.remove("lo")  # mlock(2) does nothing under it
            t.check(any(wanted <= set(one) for one in flags),
                    "shared, don't dump, locked")


with contextlib.ExitStack() as stack:
    aws = stack.enter_context(fake_aws.FakeAws())
    pg = stack.enter_context(t.Postgres())
    asks_for_passwords(pg)
    password(pg, "one")
    aws.control(put={"name": "db", "value": value("one")})
    sources(aws)
    shapes(aws)
    failures(aws)
    secrecy(aws)
t.done()
