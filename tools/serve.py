"""The function without AWS and without Docker, for a look and for development::

    python -m tools.serve serve              # the HTTP API on http://127.0.0.1:8080
    python -m tools.serve predict --url https://example.com/pants.jpg
    python -m tools.serve predict --image pants.jpg

``serve`` turns each HTTP request into the API Gateway event (payload 2.0) that the deployed
function would get and hands it to the real handler, one at a time, as one Lambda environment
does. It is no web server for the internet.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http
import json
import os
import re
import sys
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_function import REPOSITORY, app
from lambda_function.classifier import ArtifactError
from lambda_function.fetching.s3 import ModelDownloadError
from lambda_function.metadata import MetadataError
from lambda_function.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE_IMAGE = REPOSITORY / "examples" / "pants.jpg"
MAX_EVENT_BYTES = 6 * 1024**2  # Lambda's limit for a synchronous invoke; base64 adds a third
TIMEOUT_S = 30.0  # that an HTTP API waits for its function
BAR_WIDTH = 30
Handler = Callable[[Any, Any], dict[str, Any]]
_TEXT_TYPES = ("text/", "application/json", "application/javascript", "application/xml")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class LocalContext:
    """As much of Lambda's context object as the handler uses."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self.aws_request_id = str(uuid.uuid4())
        self._end = time.monotonic() + timeout_s

    def get_remaining_time_in_millis(self) -> int:
        """Return what is left of the time that Lambda would give."""
        return max(0, int((self._end - time.monotonic()) * 1000))


def build_event(method: str, target: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """Build the event that an HTTP API sends for a request.

    Args:
        method: upper case.
        target: path and query string, as on the request line.
        headers: of the request.
        body: its bytes; passed on in base64 unless the content type is one of text.

    Returns:
        An event of payload format 2.0.
    """
    path, _, query = target.partition("?")
    lower = {name.lower(): value for name, value in headers.items()}
    is_text = lower.get("content-type", "").lower().startswith(_TEXT_TYPES)
    event = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": urllib.parse.unquote(path),
        "rawQueryString": query,
        "headers": lower,
        "requestContext": {
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1"},
            "requestId": uuid.uuid4().hex,
            "stage": "$default",
        },
        "isBase64Encoded": bool(body) and not is_text,
    }
    if body:
        text = body.decode("utf-8", "replace") if is_text else base64.b64encode(body).decode()
        event["body"] = text
    return event


class LocalServer(ThreadingHTTPServer):
    """Hands HTTP requests to the handler, one at a time."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: Handler) -> None:
        """Listen; ``handler`` is called with (event, context)."""
        super().__init__(address, _RequestHandler)
        self._handler = handler
        self._one_at_a_time = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has gone: pages do that when another picture is chosen."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def answer(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return the handler's response object."""
        with self._one_at_a_time:
            response: dict[str, Any] = self._handler(event, LocalContext())
        return response


class _RequestHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    server: LocalServer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_") and name[3:] in _METHODS:
            return self._answer
        raise AttributeError(name)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """The handler logs a line of its own."""

    def _answer(self) -> None:
        length = self.headers.get("content-length", "0")
        if not re.fullmatch("[0-9]{1,15}", length) or "transfer-encoding" in self.headers:
            self._refuse(http.HTTPStatus.LENGTH_REQUIRED, "Length Required")
            return
        event = {}
        if int(length) <= MAX_EVENT_BYTES:
            body = self.rfile.read(int(length))
            event = build_event(self.command, self.path, dict(self.headers), body)
        if not event or len(json.dumps(event)) > MAX_EVENT_BYTES:
            self._refuse(http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Request Entity Too Large")
            return
        response = self.server.answer(event)
        self._send(response["statusCode"], response["headers"], response["body"].encode())

    def _refuse(self, status: http.HTTPStatus, message: str) -> None:
        """Answer as the gateway does: its own JSON, not ours; the connection cannot be reused.

        Its own words too: ``HTTPStatus.phrase`` of 413 is another since Python 3.13.
        """
        self.close_connection = True
        headers = {"content-type": "application/json", "connection": "close"}
        self._send(status, headers, json.dumps({"message": message}).encode())

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != http.HTTPStatus.NO_CONTENT and self.command != "HEAD":
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve(host: str, port: int) -> None:
    """Serve until interrupted."""
    predictor = app.predictor()

    def handler(event: Any, context: Any) -> dict[str, Any]:
        return app.handle(event, context, predictor, write=_print_brief)

    try:
        server = LocalServer((host, port), handler)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else "ports are 0 to 65535"
        raise SystemExit(
            f"Cannot listen on {host}:{port}: {reason}. --port names another."
        ) from error
    with server:
        print(f"Listening on http://{host}:{server.server_port}  (Ctrl-C ends it)", flush=True)
        server.serve_forever()


def _print_brief(line: str) -> None:
    print(brief(line), flush=True)


def brief(line: str) -> str:
    """Return the handler's log line as a person at a terminal likes it.

    >>> brief('{"status": 200, "route": "GET /health", "Latency": 240.2}')
    '200  GET /health  240.2 ms'
    """
    fields = json.loads(line)
    result = fields.get("code") or fields.get("label") or ""
    if "items" in fields:
        result = f"{fields.get('items_done', 0)} of {fields['items']} images"
    shown = f"{fields.get('status')}  {fields['route']}  {fields['Latency']} ms  {result}".rstrip()
    return "\n".join([shown, *fields.get("exception", "").splitlines()])


def predict(url: str | None = None, image: Path | None = None) -> str:
    """Return a prediction in readable text, made by the real handler.

    Args:
        url: of an image, or None.
        image: path of one; without either, our example picture.

    Raises:
        SystemExit: no prediction; carries one sentence that says why.
    """
    path = image or Path(os.path.relpath(EXAMPLE_IMAGE))
    event = {"url": url} if url else {"image": _read_base64(path)}
    with _native_chatter_hidden():
        predictor = app.predictor()
    answer = app.handle(event, LocalContext(), predictor, write=lambda _: None)
    if "predictions" not in answer:
        raise SystemExit(f"{answer['title']}: {answer['detail']} ({answer['code']})")
    return render(url or str(path), answer)


def render(source: str, answer: dict[str, Any]) -> str:
    """Return a prediction as lines of text, with bars."""
    width = max(len(item["label"]) for item in answer["predictions"])
    lines = [source, ""]
    for item in answer["predictions"]:
        bar = "#" * round(item["score"] * BAR_WIDTH)
        lines.append(f"  {item['label']:<{width}}  {item['score']:7.2%}  {bar}".rstrip())
    timings = "  ".join(f"{name} {ms:g}" for name, ms in answer["timings_ms"].items())
    unsure = ["", "  uncertain: the best score is below MIN_SCORE"] if "uncertain" in answer else []
    model = f"  model {answer['model']['name']} {answer['model']['version']}"
    return "\n".join([*lines, *unsure, "", model, f"  ms    {timings}"])


def main(arguments: list[str] | None = None) -> None:
    """Run one command; see the module."""
    parser = argparse.ArgumentParser(prog="python -m tools.serve", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("predict", help="classify one picture and print the result")
    which = one.add_mutually_exclusive_group()
    which.add_argument("--url", help="of an image")
    which.add_argument("--image", type=Path, help="path of an image")
    many = commands.add_parser("serve", help="serve the HTTP API and the demo page")
    many.add_argument("--host", default="127.0.0.1")
    many.add_argument("--port", type=int, default=8080)
    options = parser.parse_args(arguments)
    try:
        if options.command == "serve":
            serve(options.host, options.port)
        else:
            print(predict(options.url, options.image))
    except (SettingsError, ArtifactError, MetadataError, ModelDownloadError) as error:
        raise SystemExit(f"Cannot start: {error}") from error
    except KeyboardInterrupt:
        sys.exit(130)


@contextlib.contextmanager
def _native_chatter_hidden() -> Iterator[None]:
    """Keep the interpreter's own INFO line, written by C++ to file descriptor 2, off the screen."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _read_base64(path: Path) -> str:
    try:
        return base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise SystemExit(f"Cannot read {path}: {error.strerror}.") from error


if __name__ == "__main__":
    main()
