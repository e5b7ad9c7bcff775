"""`make smoke` against the real handler on loopback, and against servers that are wrong."""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest

from deploy import smoke as smoking
from deploy.smoke import Endpoint, signer, smoke
from deploy.stack import DeployedStack
from lambda_function import app
from lambda_function.fetching.s3 import NO_CREDENTIALS
from lambda_function.service import Service
from lambda_function.settings import Settings
from tests.deploy.conftest import FakeSession
from tools.serve import LocalServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_function.classifier import Classifier

Handler = "Callable[[Any, Any], dict[str, Any]]"


@pytest.fixture
def serve(tiny: Classifier) -> Iterator[Callable[[Any], str]]:
    """Serves a handler for the length of a test and returns its address."""
    servers = []

    def start(handler: Any) -> str:
        server = LocalServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def handler(tiny: Classifier) -> Callable[[Any, Any], dict[str, Any]]:
    service = Service(Settings(), tiny)
    return lambda event, context: app.handle(event, context, service, write=lambda _: None)


def test_the_real_handler_passes_every_check(
    serve: Any, handler: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert smoke(Endpoint(serve(handler))) == 0
    said = capsys.readouterr().out
    assert said.count("  ok  ") == 12 and "FAIL" not in said
    assert re.search(r"  version local of the function: \d+ responses\n", said)


def for_status(status: int, **changed: Any) -> Any:
    return lambda response: response | changed if response["statusCode"] == status else response


PLAIN = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("change", "failures", "said"),
    [
        # a gateway that answers for itself
        (for_status(404, body='{"message": "Not Found"}', headers=PLAIN), 1, "FAIL  404"),
        (for_status(405, headers=PLAIN), 1, "expected 405 as application/problem+json"),
        (
            lambda response: response | {"body": response["body"].replace(": 0.", ": 1.")},
            4,
            "these are no probabilities",
        ),
    ],
    ids=["404", "content type", "scores"],
)
def test_a_response_that_is_not_the_function_s_is_noticed(
    serve: Any,
    handler: Any,
    change: Any,
    failures: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = serve(lambda event, context: change(handler(event, context)))

    assert smoke(Endpoint(url)) == failures
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9",
        "https://",
        "http://[",
        "https://a b/",
        "http://a..b",
        "http://x.invalid",
    ],
)
def test_an_endpoint_that_is_not_there_ends_the_checks_with_one_sentence(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert smoking.main([url]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert f"{url.rstrip('/')} does not respond: " in line and "Check the address" in line


def test_a_server_that_goes_away_fails_the_later_checks(
    serve: Any, handler: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def leaves(event: Any, context: Any) -> dict[str, Any]:
        if event["rawPath"] == "/health":
            raise ConnectionAbortedError
        response: dict[str, Any] = handler(event, context)
        return response

    assert smoke(Endpoint(serve(leaves))) == 1
    printed = capsys.readouterr().out
    assert "FAIL  health: " in printed and printed.count("  ok  ") == 11


def test_slow_answers_are_noticed(
    serve: Any, handler: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(smoking, "MAX_WARM_S", 0.0)
    assert smoke(Endpoint(serve(handler))) == 1
    assert "FAIL  warm" in capsys.readouterr().out


def test_requests_carry_what_authorises_them(
    serve: Any, handler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def note(event: Any, context: Any) -> dict[str, Any]:
        seen.append(event["headers"].get("authorization", ""))
        response: dict[str, Any] = handler(event, context)
        return response

    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }.items():
        monkeypatch.setenv(name, value)
    url = serve(note)
    for sign in (signer("", iam=False), signer("t0k", iam=False), signer("", iam=True)):
        Endpoint(url, sign=sign).send("GET", "/docs")
    assert seen[:2] == ["", "Bearer t0k"]
    assert seen[2].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "/eu-central-1/execute-api/aws4_request" in seen[2]


@pytest.mark.parametrize("token", ["s3cr3t\nx", "s3cr3t\rx", "s3cr3t x", "s3cr3t\u20ac"])
def test_a_token_that_no_header_can_carry_is_not_printed(
    token: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOKEN", token)

    assert smoking.main(["http://127.0.0.1:9"]) == 1
    printed = capsys.readouterr().out
    assert "TOKEN must be one word" in printed and "s3cr3t" not in printed


def test_an_address_without_a_scheme_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert smoking.main(["example.com"]) == 1
    assert "must start with https://" in capsys.readouterr().out


# --- a stack ----------------------------------------------------------------------------------


def deployed(url: str, kind: str) -> DeployedStack:
    alias = "arn:aws:lambda:eu-central-1:123456789012:function:clothes-Function-1:live"
    outputs = {"Endpoint": url, "FunctionAlias": alias}
    return DeployedStack("clothes", "UPDATE_COMPLETE", {"ApiAuth": kind}, outputs)


def protected(handler: Any, *, opens_with: str) -> Any:
    """Return a gateway that lets a request through if its authorization begins with a word."""
    pages = ("/", "/docs", "/openapi.json")

    def gateway(event: Any, context: Any) -> dict[str, Any]:
        sent = event["headers"].get("authorization", "")
        if event["rawPath"] in pages or sent.startswith(opens_with):
            response: dict[str, Any] = handler(event, context)
            return response
        body = json.dumps({"message": "Unauthorized"})
        return {"statusCode": 401, "headers": {"content-type": "application/json"}, "body": body}

    return gateway


ACCOUNT = FakeSession()


@pytest.mark.parametrize(
    ("kind", "opens_with", "token"), [("jwt", "Bearer t0k", "t0k"), ("iam", "AWS4-HMAC-SHA256", "")]
)
def test_a_protected_stack_is_tested_without_and_with_authorisation(
    serve: Any,
    handler: Any,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    opens_with: str,
    token: str,
) -> None:
    url = serve(protected(handler, opens_with=opens_with))

    assert smoking.smoke_stack(ACCOUNT, deployed(url, kind), token=token) == 0

    printed = capsys.readouterr().out
    assert "  ok    without authorisation  401" in printed
    assert "  version local of the function: " in printed
    assert printed.count("  ok  ") == 13


def test_a_stack_that_lets_everybody_in_fails(
    serve: Any, handler: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert smoking.smoke_stack(ACCOUNT, deployed(serve(handler), "iam")) == 1
    assert "FAIL  without authorisation: expected 401 or 403" in capsys.readouterr().out


def test_a_function_in_a_vpc_need_not_reach_the_internet(
    serve: Any, handler: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A VPC without a NAT gateway is allowed: docs/deploy-reference.md, Private image servers."""
    stack = deployed(serve(handler), "none")
    stack = dataclasses.replace(stack, parameters={"VpcSubnetIds": "subnet-1"})

    assert smoking.smoke_stack(ACCOUNT, stack) == 0
    assert "note  the function is in a VPC" in capsys.readouterr().out
    for has_internet in (True, False):
        endpoint = Endpoint("https://api.example", has_internet=has_internet)
        names = [name for name, _ in smoking.checks(endpoint, smoking.EXAMPLE)]
        assert ("a URL is fetched" in names) is has_internet


def test_without_a_token_only_the_open_routes_are_tested(
    serve: Any, handler: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    url = serve(protected(handler, opens_with="Bearer"))

    assert smoking.smoke_stack(ACCOUNT, deployed(url, "jwt")) == 0
    assert "TOKEN is not set" in capsys.readouterr().out


def test_both_versions_of_a_deployment_under_way_are_counted(serve: Any, handler: Any) -> None:
    """The alias sends some requests to each, and only a response tells which version it had."""
    versions = iter("7787")

    def two(event: Any, context: Any) -> dict[str, Any]:
        response: dict[str, Any] = handler(event, context)
        response["headers"]["x-function-version"] = next(versions)
        return response

    endpoint = Endpoint(serve(two))
    for _ in range(4):
        endpoint.send("GET", "/health")
    assert endpoint.versions == (
        "version 7 of the function: 3 responses, version 8 of the function: 1 responses"
    )


def test_an_endpoint_that_names_no_version_says_so(serve: Any, handler: Any) -> None:
    def other(event: Any, context: Any) -> dict[str, Any]:
        response: dict[str, Any] = handler(event, context)
        del response["headers"]["x-function-version"]
        return response

    endpoint = Endpoint(serve(other))
    endpoint.send("GET", "/health")
    assert "no response named a version" in endpoint.versions


@pytest.mark.parametrize(
    "body", ["[]", "null", '"text"', '{"predictions": 1}', "no JSON", "{}", '{"model": []}']
)
def test_json_of_another_form_fails_and_never_ends_the_test(
    serve: Any, body: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def odd(*_: Any) -> dict[str, Any]:
        return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": body}

    assert smoke(Endpoint(serve(odd))) == 12
    assert capsys.readouterr().out.count("FAIL") == 12


def test_without_credentials_no_request_is_signed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)

    assert smoking.main(["--iam", "https://api.example"]) == 1
    assert capsys.readouterr().out == f" STOP  {NO_CREDENTIALS}\n"


def test_a_stack_without_an_endpoint_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert smoking.smoke_stack(ACCOUNT, DeployedStack("s", "UPDATE_COMPLETE", {}, {})) == 1
    assert "no output Endpoint" in capsys.readouterr().out
