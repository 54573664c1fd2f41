#!/usr/bin/env python3
"""Goal: the image holds what booksd needs and nothing else, says what it holds,
and runs as the task definition runs it.
Method: the root file system is made from this build's programs, as the
Dockerfile's build stage makes it, and looked through; packed as an OCI image
and compared with what the Dockerfile says; then booksd runs inside it as the
service's user, on a real PostgreSQL.  No container engine is asked.
"""
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import tarfile
import tempfile
import time

import booksd_test as t

IMAGE = os.path.join(t.SRCDIR, "deploy/image")
USER = 10001
COMPRESSED_MAX = 20 * 1000 * 1000

if shutil.which("objdump") is None or shutil.which("dpkg-query") is None:
    t.skip_all("objdump or dpkg-query is not installed")
if shutil.which("npm") is None:
    t.skip_all("npm, which RDS's authorities come with, is not installed")
if t.is_sanitized():
    t.skip_all("an image is not made of a sanitized build")

bundle = subprocess.run([os.path.join(IMAGE, "rds-bundle")], check=False,
                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE, timeout=120)
if bundle.returncode != 0 and b"FAILED" not in bundle.stderr:
    t.skip_all("npm cannot fetch RDS's authorities here")

work = tempfile.mkdtemp(prefix="booksd-image-", dir="/tmp")
root = os.path.join(work, "root")
layout = os.path.join(work, "image.tar")


def read(*parts):
    with open(os.path.join(*parts), encoding="utf-8") as file:
        return file.read()


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=300,
                          stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]}: {done.stdout.decode()}")
    return done.stdout.decode()


def files():
    for folder, _, names in os.walk(root):
        for name in names:
            yield os.path.relpath(os.path.join(folder, name), root)


def dockerfile():
    """The instructions of the last stage, as pairs."""
    text = read(t.SRCDIR, "Dockerfile").replace("\\\n", " ")
    lines = [line for line in text.split("\n")
             if line and not line.startswith("#")]
    last = max(i for i, line in enumerate(lines) if line.startswith("FROM "))
    return [line.split(None, 1) for line in lines[last:]]


def said(word):
    return [rest for name, rest in dockerfile() if name == word]


def make():
    for program, source in (("usr/sbin/booksd", t.BOOKSD),
                            ("usr/bin/booksctl", t.BOOKSCTL)):
        path = os.path.join(work, "stage", program)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copy(source, path)
    rds = os.path.join(work, "rds.pem")
    with open(rds, "wb") as file:
        file.write(bundle.stdout)
    run(os.path.join(IMAGE, "rootfs"), "--rds", rds,
        os.path.join(work, "stage"), root)


with t.case("the root file system is made", 300):
    make()

with t.case("two programs and no shell"):
    found = sorted(
        name for name in files() if re.match(r"(usr/)?s?bin/", name))
    t.equal(found, ["usr/bin/booksctl", "usr/sbin/booksd"], "programs")

with t.case("one user, who owns the folder of the socket"):
    t.equal([line.split(":")[2] for line in
             read(root, "etc/passwd").split("\n") if line], [str(USER)], "uids")
    status = os.stat(os.path.join(root, "run/booksd"))
    t.equal(status.st_mode & 0o7777, 0o700, "mode")
    if os.getuid() == 0:
        t.equal((status.st_uid, status.st_gid), (USER, USER), "owner")

with t.case("a scanner finds the package of each library"):
    folder = os.path.join(root, "var/lib/dpkg/status.d")
    listed = set()
    for name in os.listdir(folder):
        text = read(folder, name)
        t.check(re.search(r"^Version: \S+", text, re.M), name)
        listed.add(name)
    t.check("debian" in read(root, "etc/os-release"), "os-release")
    names = [name for name in files() if re.search(r"\.so(\.\d+)*$", name)]
    paths = {name: [p for p in ("/" + name, os.path.realpath("/" + name),
                                os.path.realpath("/" + name)[4:])]
             for name in names}
    done = subprocess.run(["dpkg-query", "-S"] + sum(paths.values(), []),
                          stdout=subprocess.PIPE, check=False,
                          stderr=subprocess.DEVNULL)
    owners = {path: package.split(":")[0] for package, path in (
        line.split(": ", 1) for line in done.stdout.decode().splitlines())}
    for name in names:
        found = {owners[p] for p in paths[name] if p in owners}
        t.check(found and found <= listed, f"{name} is of {found}")

with t.case("the bill of materials lists the same packages"):
    bill = json.loads(read(root, "usr/share/doc/booksd/sbom.spdx.json"))
    t.equal({p["name"] for p in bill["packages"]}, listed | {"booksd"}, "names")

with t.case("RDS's authorities are those whose sum is known"):
    sum_, name = read(IMAGE, "rds.pem.sha256").split()
    t.equal(name, "rds.pem", "name")
    text = read(root, "etc/ssl/certs", name)
    t.equal(hashlib.sha256(text.encode()).hexdigest(), sum_, name)
    t.check(not re.search("beta|preview", text, re.I), "trials")

with t.case("packed, it is small, and the same twice"):
    first = json.loads(run(os.path.join(IMAGE, "oci"), root, layout))
    again = json.loads(run(os.path.join(IMAGE, "oci"), root, layout))
    t.equal(first, again, "digests")
    t.check(first["compressed"] <= COMPRESSED_MAX, first)
    t.diag(f"{first['compressed'] / 1e6:.1f} MB compressed, "
           f"{first['size'] / 1e6:.1f} MB")

with t.case("the image says what the Dockerfile says"):
    with tarfile.open(layout) as tar:
        def blob(digest):
            name = "blobs/sha256/" + digest.split(":")[1]
            return json.load(tar.extractfile(name))
        index = json.load(tar.extractfile("index.json"))
        manifest = blob(index["manifests"][0]["digest"])
        config = blob(manifest["config"]["digest"])["config"]
    t.equal([config["User"]], said("USER"), "USER")
    t.equal(config["Entrypoint"], json.loads(said("ENTRYPOINT")[0]),
            "ENTRYPOINT")
    t.equal(list(config["Volumes"]), said("VOLUME"), "VOLUME")
    t.equal([p.split("/")[0] for p in config["ExposedPorts"]], said("EXPOSE"),
            "EXPOSE")
    t.equal([config["StopSignal"]], said("STOPSIGNAL"), "STOPSIGNAL")
    t.equal(config["Env"], said("ENV")[0].split(), "ENV")

with t.case("the Dockerfile copies what is there, and fetches nothing"):
    text = read(t.SRCDIR, "Dockerfile")
    t.equal(said("FROM"), ["scratch"], "last stage")
    t.check(not re.search(r"^ADD |https?://|curl|wget", text, re.M), "fetches")
    t.check('"/usr/bin/booksctl", "health", "--live"' in said("HEALTHCHECK")[0],
            "HEALTHCHECK")
    ignored = read(t.SRCDIR, ".dockerignore").split("\n")
    for source in re.findall(r"^COPY ([^-\s]\S*) ", text, re.M):
        t.check(os.path.exists(os.path.join(t.SRCDIR, source)), source)
        t.check(source == "." or any(
            line[:1] == "!" and source.startswith(line[1:])
            for line in ignored), f"{source} is ignored")
    for script in re.findall(r"/src/(deploy/\S+)", text):
        t.check(os.access(os.path.join(t.SRCDIR, script), os.X_OK), script)

with t.case("the sources of the build reach the build"):
    ignored = read(t.SRCDIR, ".dockerignore").split("\n")
    for name in re.findall(r"^\s+((?:\w+/)+\w+\.[ch])\b",
                           read(t.SRCDIR, "Makefile.am"), re.M):
        t.check("!" + name.split("/")[0] in ignored, name)

with t.case("task definition and image agree"):
    task = json.loads(read(t.SRCDIR, "deploy/taskdef.json"))
    (container,) = task["containerDefinitions"]
    t.equal([container["user"]], said("USER"), "user")
    t.equal([str(p["containerPort"]) for p in container["portMappings"]],
            said("EXPOSE"), "port")
    t.equal(container["healthCheck"]["command"][1:],
            json.loads(re.search(r"CMD (\[.*\])",
                                 said("HEALTHCHECK")[0]).group(1)), "health")
    t.check(container["readonlyRootFilesystem"], "read-only")
    t.equal([m["containerPath"] for m in container["mountPoints"]],
            said("VOLUME"), "mounts")
    for pair in container["environment"]:
        if pair["value"].startswith("/etc/"):
            t.check(os.path.exists(root + pair["value"]), pair)
    appspec = read(t.SRCDIR, "deploy/appspec.yml")
    t.check(f"ContainerName: {container['name']}\n" in appspec, "name")
    t.check(f"ContainerPort: {said('EXPOSE')[0]}\n" in appspec, "port")


def start(port, conninfo):
    # An engine brings /dev.
    null = os.path.join(root, "dev/null")
    if not os.path.exists(null):
        os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.chmod(null, 0o666)
    # And /proc, here in a name space that goes with the process.
    enter = ('mount -t proc proc "$0/proc" && '
             f'exec chroot --userspec={USER}:{USER} "$0" /usr/sbin/booksd -f')
    return subprocess.Popen(
        [shutil.which("unshare"), "-m", "/bin/sh", "-c", enter, root],
        cwd="/", start_new_session=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=t.die_with_parent(), env={
            "PATH": os.environ["PATH"],
            "BOOKS_LISTEN": f"127.0.0.1:{port}", "BOOKS_DATABASE": conninfo,
            "BOOKS_CONTROL_SOCKET": "/run/booksd/control.sock",
            "BOOKS_ADMIN_LISTEN": "off",
            "BOOKS_DRAIN_DELAY": "0s", "BOOKS_WORKERS": "1"})


def get(port, path):
    done = subprocess.run(
        ["curl", "-sS", "-o", "-", "-w", "\n%{http_code}",
         f"http://127.0.0.1:{port}{path}"], check=False,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20)
    body, _, code = done.stdout.decode().rpartition("\n")
    return int(code), body


with t.case("inside, as the service's user, it serves a book and drains"):
    if os.getuid() != 0:
        t.skip("only root can change the root")
    if shutil.which("curl") is None or shutil.which("unshare") is None or \
            subprocess.run(["unshare", "-m", "true"],
                           check=False).returncode != 0:
        t.skip("curl is not installed, or there are no name spaces")
    with t.Postgres() as pg:
        port = t.free_port()
        began = time.monotonic()
        process = start(port, pg.conninfo)
        try:
            t.eventually(lambda: get(port, "/")[0] == 200, "the greeting")
            t.diag(f"{1000 * (time.monotonic() - began):.0f} ms from exec to "
                   "the first 200")
            t.eventually(lambda: get(port, "/readyz")[0] == 200, "ready", 30)
            pg.sql("INSERT INTO book (isbn, title, author, price, "
                   "created_date, last_modified_date, version) VALUES "
                   "('9780201134476', 'T', 'A', 1, now(), now(), 0)")
            code, body = get(port, "/books/9780201134476")
            t.equal(code, 200, body)
            t.check(os.path.exists(
                os.path.join(root, "run/booksd/control.sock")), "socket")
            process.send_signal(signal.SIGTERM)
            t.equal(process.wait(30), 0, "exit status")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

shutil.rmtree(work, ignore_errors=True)
t.done()
