"""`make smoke` against the real handler on loopback, and against servers that are wrong."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from deploy import smoke as smoking
from deploy.smoke import Endpoint, signer, smoke
from lambda_function import app
from lambda_function.service import Service
from lambda_function.settings import Settings
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


def test_a_gateway_that_answers_for_itself_is_noticed(
    serve: Any, handler: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def gateway(event: Any, context: Any) -> dict[str, Any]:
        response: dict[str, Any] = handler(event, context)
        if response["statusCode"] == 404:
            body = json.dumps({"message": "Not Found"})
            return response | {"body": body, "headers": {"content-type": "application/json"}}
        return response

    assert smoke(Endpoint(serve(gateway))) == 1
    assert "FAIL  404" in capsys.readouterr().out


def test_scores_that_are_no_probabilities_are_noticed(
    serve: Any, handler: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(event: Any, context: Any) -> dict[str, Any]:
        response: dict[str, Any] = handler(event, context)
        return response | {"body": response["body"].replace('"score": 0.', '"score": 1.')}

    assert smoke(Endpoint(serve(wrong))) == 4
    assert "probabilities" in capsys.readouterr().out


def test_an_endpoint_that_is_not_there_fails_every_check() -> None:
    assert smoke(Endpoint("http://127.0.0.1:9")) == 12


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


def test_an_address_without_a_scheme_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert smoking.main(["example.com"]) == 1
    assert "must start with https://" in capsys.readouterr().out


def test_errors_of_another_content_type_are_noticed(
    serve: Any, handler: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def plain(event: Any, context: Any) -> dict[str, Any]:
        response: dict[str, Any] = handler(event, context)
        if response["statusCode"] == 405:
            return response | {"headers": {"content-type": "application/json"}}
        return response

    assert smoke(Endpoint(serve(plain))) == 1
    assert "expected 405 as application/problem+json" in capsys.readouterr().out
