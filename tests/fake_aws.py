"""An AWS of our own (fake-aws/fake-aws.mjs) for integration tests.

    import fake_aws

    with fake_aws.FakeAws() as aws:               # skips the file without npm
        aws.control(put={"name": "db", "value": {"username": "books", ...}})
        server = t.Booksd({"database_secret": "db", ...}, env=aws.env())
        aws.asked("secretsmanager.GetSecretValue")

What the JavaScript verifies signatures with comes from npm, once for a build
folder; the versions are those of the lock file.
"""
import contextlib
import fcntl
import http.client
import json
import os
import shutil
import subprocess

import booksd_test as t

FILES = (".npmrc", "package.json", "package-lock.json", "fake-aws.mjs")
GET = "secretsmanager.GetSecretValue"


def _is_same(source, copy):
    try:
        with open(source, "rb") as one, open(copy, "rb") as other:
            return one.read() == other.read()
    except OSError:
        return False


def _install():
    """The folder with the program and its modules; skips without."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        t.skip_all("not installed: node and npm, for the fake AWS")
    source = os.path.join(t.SRCDIR, "tests", "fake-aws")
    place = os.path.join(t.BUILDDIR, "var-test", "fake-aws")
    os.makedirs(place, exist_ok=True)
    with open(os.path.join(place, "lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        is_done = all(_is_same(os.path.join(source, name),
                               os.path.join(place, name)) for name in FILES)
        if is_done and os.path.isdir(os.path.join(place, "node_modules")):
            return place
        shutil.rmtree(os.path.join(place, "node_modules"), ignore_errors=True)
        for name in FILES:
            shutil.copyfile(os.path.join(source, name),
                            os.path.join(place, name))
        try:
            done = subprocess.run(
                [npm, "ci", "--omit=dev", "--ignore-scripts"], cwd=place,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, encoding="utf-8",
                errors="backslashreplace", timeout=100, check=False)
        except subprocess.TimeoutExpired:
            done = None
        if done is None or done.returncode != 0:
            shutil.rmtree(os.path.join(place, "node_modules"),
                          ignore_errors=True)
            t.diag("" if done is None else done.stdout[-1000:])
            t.skip_all("npm cannot install what the fake AWS needs")
    return place


class FakeAws:
    """.port, .url; gone when the with block ends."""

    def __init__(self):
        self.process = subprocess.Popen(
            [shutil.which("node") or "node",
             os.path.join(_install(), "fake-aws.mjs")],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            preexec_fn=t.die_with_parent())
        line = self.process.stdout.readline().split()
        t.check(line and line[0] == b"listening", f"fake AWS said {line}")
        self.port = int(line[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def env(self, **more):
        """The environment of a task; a value None leaves a variable out."""
        env = {"AWS_REGION": "us-east-1",
               "AWS_ENDPOINT_URL_SECRETS_MANAGER": self.url,
               "AWS_CONTAINER_CREDENTIALS_FULL_URI":
                   self.url + "/credentials", **more}
        return {name: value for name, value in env.items()
                if value is not None}

    def call(self, method, path, body=None):
        with contextlib.closing(http.client.HTTPConnection(
                "127.0.0.1", self.port, timeout=20)) as client:
            client.request(method, path, body)
            answer = client.getresponse()
            text = answer.read()
        t.check(answer.status == 200, f"{path}: {answer.status} {text!r}")
        return json.loads(text)

    def control(self, **order):
        """See control() of fake-aws.mjs."""
        self.call("POST", "/_control", json.dumps(order))

    def requests(self):
        return self.call("GET", "/_control")["requests"]

    def asked(self, what=GET, result=None):
        """How often; only with that result."""
        return sum(one["what"] == what and result in (None, one["result"])
                   for one in self.requests())

    def close(self):
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
