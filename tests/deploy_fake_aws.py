"""An aws for the tests of deploy/bin: answer() takes the words of a command,
answers from a state, changes it as AWS would, and writes down every call.
What a test wants to go wrong it puts into the state first.

The command itself is COMMAND, which hands its words to the test's process by
HTTP: a python for each of the hundreds of calls would cost minutes.
"""
import json
import re

ACCOUNT = "123456789012"
HERE = f"us-east-1:{ACCOUNT}"


class Refused(Exception):
    """What aws prints before it exits with 254."""


def parse(argv):
    """(service, operation, options): an option's values as a list."""
    words, options, name = [], {}, None
    for word in argv:
        if word.startswith("--"):
            name = word[2:]
            options[name] = []
        elif name is None:
            words.append(word)
        else:
            options[name].append(word)
            if name in ("endpoint-url", "output", "region"):
                name = None
    return words[0], words[1], options


def only(options, name):
    return options[name][0]


def revision_of(state, arn):
    found = [task for task in state["tasks"]
             if arn in (task["taskDefinitionArn"], task["family"])]
    if not found:
        raise Refused(f"no task definition {arn}")
    return found[-1]


# ---- sts, ecr, cloudformation

def get_caller_identity(_state, _options):
    return {"Account": ACCOUNT}


def image_of(state, text):
    kind, _, value = text.partition("=")
    for image in state["images"]:
        if image["tag" if kind == "imageTag" else "digest"] == value:
            return image
    raise Refused("ImageNotFoundException")


def describe_images(state, options):
    image = image_of(state, only(options, "image-ids"))
    return {"imageDetails": [{"imageDigest": image["digest"]}]}


def batch_get_image(state, options):
    image = image_of(state, only(options, "image-ids"))
    manifest = {"schemaVersion": 2}
    if "platforms" in image:
        manifest["manifests"] = [
            {"digest": digest, "platform": {"os": system}}
            for digest, system in image["platforms"]]
    return {"images": [{"imageManifest": json.dumps(manifest)}]}


def describe_image_scan_findings(state, options):
    image = image_of(state, only(options, "image-id"))
    scans = image["scan"]
    status = scans.pop(0) if len(scans) > 1 else scans[0]
    return {"imageScanStatus": {"status": status},
            "imageScanFindings": {
                "findingSeverityCounts": image.get("found", {})}}


def describe_stacks(state, options):
    name = only(options, "stack-name")
    if name not in state["stacks"]:
        raise Refused(f"Stack with id {name} does not exist")
    stack = state["stacks"][name]
    if stack["status"] == "DELETE_IN_PROGRESS":
        del state["stacks"][name]
    return {"Stacks": [{"StackStatus": stack["status"], "Outputs": [
        {"OutputKey": key, "OutputValue": value}
        for key, value in stack.get("outputs", {}).items()]}]}


def update_termination_protection(_state, _options):
    return {}


def delete_stack(state, options):
    stack = state["stacks"][only(options, "stack-name")]
    stack["status"] = stack.get("deleted", "DELETE_IN_PROGRESS")
    return {}


# ---- ecs

def register_task_definition(state, options):
    task = json.loads(only(options, "cli-input-json"))
    text = json.dumps(task)
    if re.search(r"<[A-Z]+>", text):
        raise Refused("a placeholder is left")
    same = [t for t in state["tasks"] if t["family"] == task["family"]]
    task["taskDefinitionArn"] = (
        f"arn:aws:ecs:{HERE}:task-definition/"
        f"{task['family']}:{len(same) + 1}")
    state["tasks"].append(task)
    return {"taskDefinition": task}


def describe_task_definition(state, options):
    return {"taskDefinition": {
        **revision_of(state, only(options, "task-definition")),
        "revision": 1, "status": "ACTIVE"}}


def run_task(state, options):
    revision_of(state, only(options, "task-definition"))
    network = json.loads(only(options, "network-configuration"))
    assert network["awsvpcConfiguration"]["assignPublicIp"] == "DISABLED"
    return {"tasks": [{"taskArn": "task/1"}]}


def describe_tasks(state, _options):
    return {"tasks": [{"lastStatus": "STOPPED", "containers": [
        {"exitCode": state.get("migrate_exit", 0)}]}]}


def describe_services(state, _options):
    return {"services": [{"taskSets": [
        {"status": "PRIMARY", "taskDefinition": state["serving"]}]}]}


# ---- application-autoscaling

def describe_scalable_targets(state, _options):
    return {"ScalableTargets": [{"SuspendedState": state["suspended"]}]}


def register_scalable_target(state, options):
    text = only(options, "suspended-state")
    if text.startswith("{"):
        state["suspended"] = json.loads(text)
    else:
        state["suspended"] = {
            key: value == "true" for key, value in (
                pair.split("=") for pair in text.split(","))}
    return {}


# ---- deploy (CodeDeploy)

def create_deployment(state, options):
    if any(d["steps"][0] in ("Created", "InProgress")
           for d in state["deployments"].values()):
        raise Refused("DeploymentLimitExceededException")
    revision = json.loads(only(options, "revision"))
    content = revision["appSpecContent"]["content"]
    task = re.search(r'TaskDefinition: "(.*)"', content).group(1)
    revision_of(state, task)
    name = f"d-{len(state['deployments']) + 1}"
    overridden = options.get("override-alarm-configuration") == [
        "enabled=false"]
    steps = list(state["steps"])
    if state.get("alarm") and not overridden:
        steps = ["Created", "InProgress", "Stopped"]
    state["deployments"][name] = {"steps": steps, "task": task,
                                  "content": content}
    return {"deploymentId": name}


def get_deployment(state, options):
    deployment = state["deployments"][only(options, "deployment-id")]
    steps = deployment["steps"]
    status = steps.pop(0) if len(steps) > 1 else steps[0]
    if status == "Succeeded":
        state["serving"] = deployment["task"]
    return {"deploymentInfo": {"status": status,
                               "errorInformation": {"message": "as told"}}}


def stop_deployment(state, options):
    deployment = state["deployments"][only(options, "deployment-id")]
    if "auto-rollback-enabled" not in options:
        raise Refused("not rolled back")
    deployment["steps"] = ["Stopped"]
    state["serving"] = deployment.get("before", state["serving"])
    return {}


def list_deployments(state, options):
    wanted = options["include-only-statuses"]
    return {"deployments": [
        name for name, d in state["deployments"].items()
        if d["steps"][0] in wanted]}


# ---- the rest

def describe_db_instances(state, _options):
    return {"DBInstances": [{"MultiAZ": state.get("multi_az", True)}]}


def reboot_db_instance(_state, options):
    if "force-failover" not in options:
        raise Refused("that is no failover")
    return {}


def import_certificate(_state, options):
    for name in ("certificate", "private-key"):
        path = only(options, name)
        with open(path.removeprefix("fileb://"), encoding="ascii") as file:
            assert "-----BEGIN" in file.read()
    return {"CertificateArn": f"arn:aws:acm:{HERE}:certificate/1"}


def describe_load_balancers(_state, options):
    return {"LoadBalancers": [
        {"LoadBalancerArn": "arn:lb/" + only(options, "names")}]}


def modify_load_balancer_attributes(_state, _options):
    return {}


def answered(state, name):
    """Answers of preflight: those of the state, or refused."""
    if name not in state.get("answers", {}):
        raise Refused(f"{name}: NotFound")
    return state["answers"][name]


def answer(state, words):
    """(exit status, text) of the command with these words."""
    service, operation, options = parse(words)
    state["calls"].append([service, operation, options])
    try:
        if operation in state.get("refuse", []):
            raise Refused("AccessDeniedException")
        if state.get("answers") is not None and \
                operation != "get-caller-identity":
            return 0, json.dumps(answered(state, operation))
        function = globals()[operation.replace("-", "_")]
        return 0, json.dumps(function(state, options))
    except Refused as why:
        return 254, f"An error occurred: {why}"


COMMAND = """#!/bin/sh
text=$(printf '%s\\0' "$@" |
    curl -sS --fail-with-body --data-binary @- "$FAKE_AWS_URL") || {
    printf '%s\\n' "$text" >&2
    exit 254
}
printf '%s\\n' "$text"
"""
