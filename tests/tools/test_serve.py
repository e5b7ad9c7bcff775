"""The local API and the command line: the real handler, without AWS and without Docker."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from lambda_function import REPOSITORY
from lambda_function.http.events import read_request, read_route
from tests.conftest import TINY_MODEL, Api, encode_image
from tests.support.processes import hear_interrupts, run_python
from tools import serve as local
from tools.gateway import MAX_EVENT_BYTES, build_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tools.image_server import ImageServer


@pytest.fixture
def listening(api: Api) -> Iterator[local.LocalServer]:
    with running(lambda event, _: api.invoke(event)) as server:
        yield server


class running:  # noqa: N801 - reads as a verb
    """A local server for the length of a ``with`` block."""

    def __init__(self, handler: Callable[[Any, Any], dict[str, Any]]) -> None:
        self.server = local.LocalServer(("127.0.0.1", 0), handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    def __enter__(self) -> local.LocalServer:
        self.thread.start()
        return self.server

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def ask(
    server: local.LocalServer,
    method: str,
    target: str,
    body: bytes | None = None,
    **headers: str,
) -> tuple[int, dict[str, str], bytes]:
    """Return (status, headers in lower case, body)."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    try:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, target, body, sent)
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return response.status, names, response.read()
    finally:
        connection.close()


def test_predictions_are_served_over_http(
    listening: local.LocalServer, server: ImageServer
) -> None:
    content = json.dumps({"url": server.url("/blue.png")}).encode()
    status, headers, body = ask(
        listening, "POST", "/predict", content, content_type="application/json"
    )
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body)["predictions"][0]["label"] == "blue"
    status, _, body = ask(
        listening, "POST", "/predict?top_k=1", encode_image("lime"), content_type="image/png"
    )
    assert [item["label"] for item in json.loads(body)["predictions"]] == ["green"]


def test_pages_problems_and_head_are_served_over_http(listening: local.LocalServer) -> None:
    status, headers, body = ask(listening, "GET", "/docs")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert body.startswith(b"<!doctype html>")
    status, headers, body = ask(listening, "PUT", "/predict", b"{}")
    assert (status, headers["content-type"]) == (405, "application/problem+json")
    assert headers["allow"] == "GET, HEAD, OPTIONS, POST"
    status, headers, body = ask(listening, "HEAD", "/docs")
    assert (status, body) == (200, b"")
    status, headers, body = ask(listening, "OPTIONS", "/predict")
    assert (status, body) == (204, b"")


def test_connections_are_kept_for_the_next_request(listening: local.LocalServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", listening.server_port, timeout=20)
    for method, target in (("GET", "/model"), ("OPTIONS", "/"), ("HEAD", "/"), ("GET", "/model")):
        connection.request(method, target)
        response = connection.getresponse()
        assert response.status in (200, 204)
        response.read()
    connection.close()


def test_too_much_is_refused_as_the_gateway_does(listening: local.LocalServer) -> None:
    too_long = str(MAX_EVENT_BYTES + 1)
    status, headers, body = ask(listening, "POST", "/predict", content_length=too_long)
    assert (status, json.loads(body)) == (413, {"message": "Request Entity Too Large"})
    # base64 makes 4 bytes of 3: these do not fit an event either
    status, headers, body = ask(
        listening, "POST", "/predict", bytes(5 * 1024**2), content_type="image/png"
    )
    assert status == 413
    assert headers["connection"] == "close"


def test_a_client_that_goes_away_harms_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    def handler(event: Any, context: Any) -> dict[str, Any]:
        time.sleep(0.1)
        return {"statusCode": 200, "headers": {}, "body": "x" * 5_000_000}

    with running(handler) as server:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert ask(server, "GET", "/")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("length", ["-1", "x", "1_0", "²"])
def test_strange_lengths_are_refused(listening: local.LocalServer, length: str) -> None:
    assert ask(listening, "POST", "/predict", content_length=length)[0] == 411


def test_requests_reach_the_handler_one_at_a_time() -> None:
    inside, most = 0, 0

    def handler(event: Any, context: Any) -> dict[str, Any]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.02)
        inside -= 1
        return {"statusCode": 200, "headers": {}, "body": ""}

    with running(handler) as server, concurrent.futures.ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda _: ask(server, "GET", "/")[0], range(6)))
    assert replies == [200] * 6
    assert most == 1


@pytest.mark.parametrize(
    ("kind", "body"),
    [("application/json", b'{"url": "\xc3\xa9"}'), ("image/png", b"\x89PNG\xff"), (None, b"x=1")],
)
def test_built_event_carries_what_was_sent(kind: str | None, body: bytes) -> None:
    headers = {"Content-Type": kind} if kind else {}
    event = build_event("POST", "/predict?a=%20b&a=c", headers, body)
    assert event["isBase64Encoded"] is (kind != "application/json")
    event = json.loads(json.dumps(event))
    request = read_request(event, read_route(event))
    assert (request.method, request.path, request.body) == ("POST", "/predict", body)
    assert request.query == (("a", " b"), ("a", "c"))


def test_a_port_that_is_taken_is_said_so(listening: local.LocalServer) -> None:
    ended = command("--port", str(listening.server_port))
    assert ended.returncode == 1
    said = f"Cannot listen on 127.0.0.1:{listening.server_port}: Address already in use. "
    assert ended.stderr.endswith(f"{said}PORT=... (or --port) names another.\n")


def test_serve_says_what_a_port_is() -> None:
    ended = command("--port", "99999")
    assert ended.returncode == 1
    assert "ports are 0 to 65535" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"status": 200, "label": "red"}, "200  GET /x  1.5 ms  red"),
        ({"status": 400, "code": "bad_request"}, "400  GET /x  1.5 ms  bad_request"),
        ({"status": 200, "items": 3, "items_done": 2}, "200  GET /x  1.5 ms  2 of 3 images"),
        ({"status": 204}, "204  GET /x  1.5 ms"),
        (
            {"status": 500, "code": "internal_error", "exception": "Traceback\n  here\n"},
            "500  GET /x  1.5 ms  internal_error\nTraceback\n  here",
        ),
    ],
)
def test_log_line_is_brief_at_a_terminal(fields: dict[str, Any], shown: str) -> None:
    assert local.brief(json.dumps({"route": "GET /x", "Latency": 1.5, **fields})) == shown


def test_serve_says_where_and_logs_briefly(server: ImageServer) -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "tools.serve", "--port", "0"],
        env={"PATH": os.environ["PATH"], "MODEL_URI": str(TINY_MODEL)},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=hear_interrupts,
    ) as process:
        try:
            assert process.stdout
            address = process.stdout.readline().split()[2]
            connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
            connection.request("GET", "/health")
            assert json.loads(connection.getresponse().read())["status"] == "ok"
            connection.close()
            assert process.stdout.readline().startswith("200  GET /health  ")
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 130
        finally:
            process.kill()


def test_context_counts_down() -> None:
    context = local.LocalContext(timeout_s=0.05)
    assert 0 < context.get_remaining_time_in_millis() <= 50
    time.sleep(0.06)
    assert context.get_remaining_time_in_millis() == 0


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": os.environ["PATH"], "MODEL_URI": str(TINY_MODEL)}
    return run_python("-m", "tools.serve", *arguments, env=clean | environment)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"MIN_SCORE": "high"}, "Cannot start: MIN_SCORE must be number, 0 to 1. Received"),
        ({"MODEL_URI": "/nowhere.tflite"}, "the model /nowhere.tflite cannot be read (No such"),
    ],
)
def test_a_service_that_cannot_start_says_why_in_one_sentence(
    environment: dict[str, str], said: str
) -> None:
    ended = command(**environment)

    assert ended.returncode == 1
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
