#!/usr/bin/env python3
"""Goal: the fake AWS judges signatures as AWS does, or what is tested with it
means nothing.
Method: curl's signer and, when it is installed, botocore's against the
verifier, which is AWS's for JavaScript: right ones pass; each kind of wrong one
is refused with AWS's word for it.
"""
import json
import shutil
import subprocess

import booksd_test as t
import fake_aws

if shutil.which("curl") is None:
    t.skip_all("not installed: curl")

VALUE = {"username": "books", "password": "pa ss'\\"}


def curl(aws, key=None, headers=(), body=None):
    """(status, answer) of GetSecretValue, signed by curl."""
    key = key or aws.call("GET", "/credentials")
    command = [
        "curl", "-s", "-w", "\n%{http_code}", "--max-time", "20",
        "--aws-sigv4", "aws:amz:us-east-1:secretsmanager",
        "--user", f"{key['AccessKeyId']}:{key['SecretAccessKey']}",
        "-H", "Content-Type: application/x-amz-json-1.1",
        "-H", "X-Amz-Target: " + fake_aws.GET,
        "-d", json.dumps(body or {"SecretId": "db"}), aws.url + "/"]
    if key.get("Token"):
        command += ["-H", f"X-Amz-Security-Token: {key['Token']}"]
    for line in headers:
        command += ["-H", line]
    out = subprocess.run(command, stdin=subprocess.DEVNULL, check=True,
                         stdout=subprocess.PIPE, encoding="utf-8").stdout
    text, _, status = out.rpartition("\n")
    return int(status), json.loads(text)


def refused(aws, kind, **how):
    status, answer = curl(aws, **how)
    t.equal((status, answer.get("__type")), (400, kind), f"{answer}")


with fake_aws.FakeAws() as aws:
    aws.control(put={"name": "db", "value": VALUE})

    @t.case("a request that curl has signed is answered")
    def _():
        status, answer = curl(aws)
        t.equal(status, 200, f"{answer}")
        t.equal(json.loads(answer["SecretString"]), VALUE, "the secret")
        t.equal(answer["VersionStages"], ["AWSCURRENT"], "its stages")

    @t.case("a key of a user has no token")
    def _():
        aws.control(key={"id": "AKIATEST", "secret": "s3cr3t"})
        t.equal(curl(aws, {"AccessKeyId": "AKIATEST",
                           "SecretAccessKey": "s3cr3t"})[0], 200, "status")

    @t.case("a wrong secret key, an unknown key and a lacking token are "
            "refused")
    def _():
        key = aws.call("GET", "/credentials")
        refused(aws, "InvalidSignatureException",
                key={**key, "SecretAccessKey": "wrong"})
        refused(aws, "UnrecognizedClientException",
                key={**key, "AccessKeyId": "ASIANOBODY"})
        refused(aws, "UnrecognizedClientException", key={**key, "Token": ""})

    @t.case("a field that was signed and not sent is refused")
    def _():
        version = subprocess.run(["curl", "--version"], check=True,
                                 stdout=subprocess.PIPE,
                                 encoding="utf-8").stdout.split()[1]
        if tuple(map(int, version.split(".")[:2])) >= (8, 3):
            t.skip("this curl no longer signs fields that it takes away")
        refused(aws, "InvalidSignatureException", headers=["Accept:"])

    @t.case("a clock that is wrong by an hour is named")
    def _():
        for seconds, words in ((3600, "Signature expired"),
                               (-3600, "Signature not yet current")):
            aws.control(clock=seconds)
            status, answer = curl(aws)
            t.equal(status, 400, "status")
            t.check(answer["message"].startswith(words), f"{answer}")
        aws.control(clock=0)

    @t.case("a token that has expired is refused")
    def _():
        aws.control(ttl=60)
        key = aws.call("GET", "/credentials")
        aws.control(clock=90)
        refused(aws, "ExpiredTokenException", key=key)
        aws.control(clock=0, ttl=3600)

    @t.case("faults are used up in their order")
    def _():
        aws.control(fault={"kind": "throttle", "count": 2, "retryAfter": 1})
        aws.control(fault={"kind": "error"})
        found = [curl(aws)[1].get("__type") for _ in range(4)]
        t.equal(found, ["ThrottlingException", "ThrottlingException",
                        "InternalServiceError", None], "answers")

    @t.case("versions move through their stages")
    def _():
        def value(stage):
            answer = curl(aws, body={"SecretId": "moving",
                                     "VersionStage": stage})[1]
            return answer.get("SecretString", answer.get("__type"))

        aws.control(put={"name": "moving", "value": "one"})
        aws.control(put={"name": "moving", "value": "two",
                         "stage": "AWSPENDING"})
        t.equal((value("AWSCURRENT"), value("AWSPENDING")), ("one", "two"),
                "before")
        aws.control(promote="moving")
        t.equal((value("AWSCURRENT"), value("AWSPREVIOUS"),
                 value("AWSPENDING")),
                ("two", "one", "ResourceNotFoundException"), "after")

    @t.case("who may not is told so")
    def _():
        aws.control(deny="db")
        refused(aws, "AccessDeniedException")
        aws.control(allow="db")
        refused(aws, "ResourceNotFoundException", body={"SecretId": "none"})

    @t.case("botocore's signer is of the same opinion")
    def _():
        try:
            import botocore.session
        except ImportError:
            t.skip("not installed: botocore")
        key = aws.call("GET", "/credentials")
        client = botocore.session.Session().create_client(
            "secretsmanager", region_name="us-east-1", endpoint_url=aws.url,
            aws_access_key_id=key["AccessKeyId"],
            aws_secret_access_key=key["SecretAccessKey"],
            aws_session_token=key["Token"])
        t.equal(json.loads(client.get_secret_value(
            SecretId="db")["SecretString"]), VALUE, "the secret")

t.done()
