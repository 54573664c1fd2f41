#!/usr/bin/env python3
"""Goal: release, rollback and their sisters do in every case what they say,
and leave scaling as it was on every way out.
Method: the real scripts run with an aws of our own in PATH, which keeps state
for ECR, ECS, CodeDeploy, STS and scaling; each case sets what goes wrong
(scan, migration, deployment, alarm, timeout, refusal, signal) and then reads
the exit status, the state and the calls.
"""
import http.server
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading

import booksd_test as t
import deploy_fake_aws

BIN = os.path.join(t.SRCDIR, "deploy/bin")
SCRIPTS = ("release", "rollback", "smoke", "failover-drill", "teardown",
           "import-certificate", "preflight", "notify")
OLD, NEW = ("sha256:" + digit * 64 for digit in "ab")
RUNNING = {"DynamicScalingInSuspended": False,
           "DynamicScalingOutSuspended": False,
           "ScheduledScalingSuspended": True}

for program in ("jq", "sha256sum", "openssl", "curl"):
    if shutil.which(program) is None:
        t.skip_all(f"{program} is not installed")

work = tempfile.mkdtemp(prefix="booksd-deploy-", dir="/tmp")
os.mkdir(os.path.join(work, "bin"))
FAKE = os.path.join(work, "bin/aws")
with open(FAKE, "w", encoding="ascii") as file:
    file.write(deploy_fake_aws.COMMAND)
os.chmod(FAKE, 0o755)


def case(name):
    """Hundreds of processes on a busy machine take their time."""
    return t.case(name, 600)


def task_of(digest, family="awsome-books-task", revision=1):
    return {"family": family, "taskDefinitionArn":
            f"arn:aws:ecs:us-east-1:123456789012:task-definition/{family}:"
            f"{revision}",
            "containerDefinitions": [{"name": "booksd",
                                      "image": f"x/awsome-books@{digest}"}]}


def new_state():
    old = task_of(OLD)
    return {
        "calls": [], "suspended": dict(RUNNING), "deployments": {},
        "images": [{"tag": "1.0.0", "digest": OLD, "scan": ["COMPLETE"]},
                   {"tag": "1.1.0", "digest": NEW,
                    "scan": ["IN_PROGRESS", "COMPLETE"]}],
        "tasks": [old, task_of(OLD, "awsome-books-migrate")],
        "serving": old["taskDefinitionArn"],
        "steps": ["Created", "InProgress", "Succeeded"],
        "stacks": {"awsome-books-network": {
            "status": "CREATE_COMPLETE",
            "outputs": {"AppSubnets": "subnet-1,subnet-2",
                        "TaskGroup": "sg-1"}}},
    }


class World:
    """The account of one case."""

    all = []

    def __init__(self, **changes):
        self.lock = threading.Lock()
        self.path = f"/aws/{len(World.all)}"
        World.all.append(self)
        self.write({**new_state(), **changes})

    def write(self, state):
        self.text = json.dumps(state)

    @property
    def state(self):
        return json.loads(self.text)

    def answer(self, body):
        with self.lock:
            state = self.state
            status, text = deploy_fake_aws.answer(
                state, body.decode().split("\0")[:-1])
            self.write(state)
        return status, text

    def environment(self, **more):
        return t.clean_environment({
            "PATH": os.path.join(work, "bin") + ":" + os.environ["PATH"],
            "FAKE_AWS_URL": URL + self.path, "AWS_REGION": "us-east-1",
            "DEPLOY_POLL": "0", **more})

    def start(self, script, *args, **more):
        return subprocess.Popen(
            [os.path.join(BIN, script), *args], cwd="/",
            env=self.environment(**more), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=t.die_with_parent())

    def run(self, script, *args, status=0, **more):
        process = self.start(script, *args, **more)
        output = process.communicate(timeout=250)[0].decode()
        t.equal(process.returncode, status, f"exit status ({output})")
        return output

    def operations(self):
        return [call[1] for call in self.state["calls"]]

    def serving(self):
        state = self.state
        (task,) = [task for task in state["tasks"]
                   if task["taskDefinitionArn"] == state["serving"]]
        return task["containerDefinitions"][0]["image"].split("@")[1]

    def is_as_before(self):
        t.equal(self.state["suspended"], RUNNING, "scaling")
        t.equal(self.serving(), OLD, "what serves")


class Answers(http.server.BaseHTTPRequestHandler):
    """AWS below /aws/, and an API: every status is in the table, writes fail
    when told."""

    table = {}
    writes = []

    posted = []

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if self.path.startswith("/aws/"):
            world = World.all[int(self.path[5:])]
            status, text = world.answer(body)
            return self.reply(200 if status == 0 else 400, text.encode())
        if self.command == "POST":
            self.posted.append(json.loads(body))
        code = self.table.get((self.command, self.path), 404)
        if self.command == "PUT":
            code = self.writes.pop(0) if self.writes else 200
        return self.reply(code, b"")

    def reply(self, code, body):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = answer

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
threading.Thread(target=server.serve_forever, daemon=True).start()
URL = f"http://127.0.0.1:{server.server_port}"

CHANGES = ("register-task-definition", "run-task", "create-deployment",
           "stop-deployment", "register-scalable-target", "delete-stack",
           "reboot-db-instance", "import-certificate")

with case("each script explains itself and refuses what it does not know"):
    for name in SCRIPTS:
        world = World()
        output = world.run(name, "--help")
        t.check(output.count("usage:") == 1 and name in output, output)
        t.equal(world.state["calls"], [], "calls")
        world.run(name, "--no-such-option", status=64)

with case("a release scans, migrates, deploys, waits"):
    world = World()
    output = world.run("release", "v1.1.0")
    t.check("1.1.0 is in service" in output, output)
    t.equal(world.serving(), NEW, "what serves")
    t.equal(world.state["suspended"], RUNNING, "scaling")
    order = [op for op in world.operations() if op in CHANGES]
    t.equal(order, ["register-scalable-target", "register-task-definition",
                    "run-task", "register-task-definition",
                    "create-deployment", "register-scalable-target"], "order")
    content = world.state["deployments"]["d-1"]["content"]
    t.check("awsome-books-hook" in content, content)
    t.check("ContainerPort: 8080" in content, content)

with case("scaling rests while the deployment runs"):
    world = World()
    world.run("release", "1.1.0")
    suspends = [call[2]["suspended-state"][0]
                for call in world.state["calls"]
                if call[1] == "register-scalable-target"]
    t.check(suspends[0].count("=true") == 3, suspends)
    t.equal(json.loads(suspends[1]), RUNNING, "restored")

for status in ("FAILED", "UNSUPPORTED_IMAGE"):
    with case(f"an image whose scan is {status} is not released"):
        world = World()
        state = world.state
        state["images"][1]["scan"] = [status]
        world.write(state)
        world.run("release", "1.1.0", status=1)
        world.is_as_before()
        t.check(not set(CHANGES) & set(world.operations()), "changes")

with case("of an index, each architecture's image has to be sound"):
    arm, amd = ("sha256:" + digit * 64 for digit in "cd")
    for found, status in (({}, 0), ({"CRITICAL": 1}, 1)):
        world = World()
        state = world.state
        state["images"][1]["platforms"] = [
            [arm, "linux"], [amd, "linux"], [NEW, "unknown"]]
        state["images"][1]["scan"] = ["UNSUPPORTED_IMAGE"]
        state["images"] += [
            {"tag": "", "digest": arm, "scan": ["COMPLETE"]},
            {"tag": "", "digest": amd, "scan": ["COMPLETE"], "found": found}]
        world.write(state)
        world.run("release", "1.1.0", status=status)

with case("an image with a serious weakness is not released"):
    world = World()
    state = world.state
    state["images"][1]["found"] = {"HIGH": 1, "LOW": 9}
    world.write(state)
    world.run("release", "1.1.0", status=1)
    world.is_as_before()

with case("without its image, a version is not released"):
    world = World()
    world.run("release", "9.9.9", status=1)
    t.check(not set(CHANGES) & set(world.operations()), "changes")

with case("what is no version is refused"):
    for text in ("latest", "1.1", "v1.1.0;id", "1.1.0 "):
        World().run("release", text, status=1)
        World().run("rollback", text, status=1)

with case("a migration that fails stops the release"):
    world = World(migrate_exit=65)
    output = world.run("release", "1.1.0", status=1)
    t.check("nothing was deployed" in output, output)
    t.check("create-deployment" not in world.operations(), "deployment")
    world.is_as_before()

with case("a release may leave the tables alone"):
    world = World()
    world.run("release", "--no-migrate", "1.1.0")
    t.check("run-task" not in world.operations(), "run-task")

for last in ("Failed", "Stopped"):
    with case(f"a deployment that ends {last} is said"):
        world = World(steps=["Created", "InProgress", last])
        world.run("release", "1.1.0", status=1)
        world.is_as_before()

with case("a deployment that does not end is stopped"):
    world = World(steps=["InProgress"])
    output = world.run("release", "--timeout", "3", "1.1.0", status=1)
    t.check("timeout" in output, output)
    t.check("stop-deployment" in world.operations(), "stop")
    world.is_as_before()

for operation in ("register-task-definition", "create-deployment",
                  "run-task", "describe-stacks"):
    with case(f"a refused {operation} leaves everything as it was"):
        world = World(refuse=[operation])
        world.run("release", "1.1.0", status=1)
        world.is_as_before()

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    with case(f"interrupted by {number.name}, a release rolls back"):
        world = World(steps=["InProgress"])
        process = world.start("release", "1.1.0", DEPLOY_POLL="0.2")
        t.eventually(lambda: "get-deployment" in world.operations(),
                     "the deployment runs", 100)
        os.killpg(process.pid, number) if number == signal.SIGINT else \
            process.send_signal(number)
        output = process.communicate(timeout=250)[0].decode()
        t.equal(process.returncode, 130, output)
        t.check("stop-deployment" in world.operations(), output)
        world.is_as_before()

with case("a dry run changes nothing and says what it would"):
    for name in ("release", "rollback"):
        world = World()
        output = world.run(name, "--dry-run", "1.1.0")
        t.check("would: aws deploy create-deployment" in output, output)
        t.check(not set(CHANGES) & set(world.operations()),
                world.operations())
        world.is_as_before()

with case("a rollback brings a version back while an alarm fires"):
    world = World(alarm=True)
    output = world.run("rollback", "v1.1.0")
    t.equal(world.serving(), NEW, output)
    t.equal(world.state["suspended"], RUNNING, "scaling")
    t.check("run-task" not in world.operations(), "schema")
    World(alarm=True).run("release", "1.1.0", status=1)

with case("a rollback first stops what is under way"):
    world = World()
    state = world.state
    new = task_of(NEW, revision=2)
    state["tasks"].append(new)
    # As in the wait before the old tasks end: the new ones serve already.
    state["serving"] = new["taskDefinitionArn"]
    state["deployments"]["d-1"] = {
        "steps": ["InProgress"], "task": new["taskDefinitionArn"],
        "before": state["tasks"][0]["taskDefinitionArn"]}
    world.write(state)
    output = world.run("rollback", "1.0.0")
    t.check("serves already" in output, output)
    t.check("create-deployment" not in world.operations(), "create")
    world.is_as_before()

with case("a rollback to what is not in the repository is refused"):
    world = World()
    world.run("rollback", "0.0.1", status=1)
    t.check(not set(CHANGES) & set(world.operations()), "changes")

with case("the endpoint of the environment is passed on"):
    world = World()
    world.run("release", "1.1.0", AWS_ENDPOINT_URL="http://127.0.0.1:1")
    for _, _, options in world.state["calls"]:
        t.equal(options["endpoint-url"], ["http://127.0.0.1:1"], "endpoint")


GOOD = {("GET", "/"): 200, ("GET", "/books"): 200, ("PATCH", "/books"): 405,
        ("PATCH", "/books/0000000000"): 405}

with case("smoke sees right and wrong answers"):
    Answers.table = GOOD
    World().run("smoke", URL + "/")
    Answers.table = {**GOOD, ("GET", "/metrics"): 200}
    output = World().run("smoke", URL, status=1)
    t.check("WRONG: GET /metrics: 200, not 404" in output, output)
    World().run("smoke", "--direct", URL)

with case("the failover drill measures the writes that were refused"):
    Answers.writes = [200, 200, 503, 503, 503]
    world = World()
    output = world.run("failover-drill", URL, DRILL_PAUSE="0")
    t.check("3 writes refused" in output, output)
    t.check("reboot-db-instance" in world.operations(), "reboot")

with case("there is no drill in one zone"):
    world = World(multi_az=False)
    world.run("failover-drill", URL, status=1)
    t.check("reboot-db-instance" not in world.operations(), "reboot")

with case("the stacks are deleted last one first, when they are named"):
    stacks = {f"awsome-books-{name}": {"status": "CREATE_COMPLETE"}
              for name in ("registry", "network", "data", "rotation",
                           "service", "api", "ops")}
    world = World(stacks=stacks)
    world.run("teardown", "--yes", "awsome", status=1)
    t.check("delete-stack" not in world.operations(), "deleted")
    world.run("teardown", "--yes", "awsome-books")
    t.equal([call[2]["stack-name"][0].removeprefix("awsome-books-")
             for call in world.state["calls"] if call[1] == "delete-stack"],
            ["ops", "api", "service", "rotation", "data", "network",
             "registry"], "order")
    t.equal(world.state["stacks"], {}, "left")

with case("the imported certificate is a CA for that name"):
    world = World()
    output = world.run("import-certificate", "books.example.com")
    t.check("arn:aws:acm:" in output, output)
    for text in ("CA:TRUE", "Certificate Sign", "DNS:books.example.com"):
        t.check(text in output, text)
    World().run("import-certificate", "not a name", status=1)

with case("preflight names what is missing and how to mend it"):
    world = World(answers={})
    output = world.run("preflight", status=1)
    for text in ("create-service-linked-role", "fill them in",
                 "Slack workspace", "quota"):
        t.check(text in output, f"{text}: {output}")
    filled = os.path.join(work, "filled.json")
    with open(filled, "w", encoding="ascii") as file:
        json.dump([{"ParameterKey": "SlackWorkspaceId",
                    "ParameterValue": "T01234567"},
                   {"ParameterKey": "CertificateArn",
                    "ParameterValue": "arn:aws:acm:x"}], file)
    world = World(answers={
        "get-account": {}, "get-role": {"Role": {}},
        "describe-certificate": {"Certificate": {"Status": "ISSUED"}},
        "describe-slack-workspaces": {
            "SlackWorkspaces": [{"SlackTeamId": "T01234567"}]},
        "get-service-quota": {"Quota": {"Value": 10000.0}}})
    output = world.run("preflight", filled)
    t.check("MISSING" not in output, output)

with case("a notification is posted, and its address kept to itself"):
    Answers.table = {("POST", "/hook/s3cret"): 200}
    output = World().run("notify", "failure", 'it "failed"',
                         SLACK_WEBHOOK=URL + "/hook/s3cret")
    t.check('it "failed"' in Answers.posted[-1]["text"], Answers.posted)
    t.check("s3cret" not in output, output)
    World().run("notify", "success", "nobody is told")
    output = World().run("notify", "success", "x", SLACK_WEBHOOK=URL + "/no",
                         status=1)

with case("shellcheck has nothing to say"):
    if shutil.which("shellcheck") is None:
        t.skip("shellcheck is not installed")
    done = subprocess.run(
        ["shellcheck", "-x", "-P", t.SRCDIR] +
        [os.path.join(folder, name) for folder in (
            BIN, os.path.join(t.SRCDIR, "deploy/image"))
         for name in sorted(os.listdir(folder))
         if "." not in name and name != "oci" or name.endswith(".sh")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    t.equal(done.returncode, 0, done.stdout.decode())

server.shutdown()
shutil.rmtree(work, ignore_errors=True)
t.done()
