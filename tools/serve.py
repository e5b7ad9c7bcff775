"""Serve the HTTP API and the demo page on this machine, without AWS: `make run`, or::

    python -m tools.serve --port 8080

Each HTTP request becomes the API Gateway event (payload 2.0) that the deployed function would get.
The real handler responds to one event at a time, as one Lambda environment does. This is no web
server for the internet.
"""

from __future__ import annotations

import argparse
import http
import json
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lambda_function import app
from lambda_function.classifier import ArtifactError
from lambda_function.fetching.s3 import ModelDownloadError
from lambda_function.metadata import MetadataError
from lambda_function.settings import SettingsError
from tools.gateway import MAX_EVENT_BYTES, build_event, describe_port_error

TIMEOUT_S = 30.0  # an HTTP API waits as long for its function
# No model can be served.
START_ERRORS = (SettingsError, ArtifactError, MetadataError, ModelDownloadError)
Handler = Callable[[Any, Any], dict[str, Any]]
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class LocalContext:
    """The part of Lambda's context object that the handler uses."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self.aws_request_id = str(uuid.uuid4())
        self._end = time.monotonic() + timeout_s

    def get_remaining_time_in_millis(self) -> int:
        """Return the rest of the time that Lambda would give."""
        return max(0, int((self._end - time.monotonic()) * 1000))


class LocalServer(ThreadingHTTPServer):
    """Pass HTTP requests to the handler, one at a time."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: Handler) -> None:
        """Listen. ``handler`` is called with (event, context)."""
        super().__init__(address, _RequestHandler)
        self._handler = handler
        self._one_at_a_time = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that has gone. A page does that when the user chooses another image."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def respond(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return the handler's response object."""
        with self._one_at_a_time:
            return self._handler(event, LocalContext())


class _RequestHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    server: LocalServer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_") and name[3:] in _METHODS:
            return self._respond
        raise AttributeError(name)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Print nothing, because the handler logs a line of its own."""

    def _respond(self) -> None:
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
        response = self.server.respond(event)
        self._send(response["statusCode"], response["headers"], response["body"].encode())

    def _refuse(self, status: http.HTTPStatus, message: str) -> None:
        """Send the gateway's own JSON. The connection cannot be used again.

        The words are the gateway's too. ``HTTPStatus.phrase`` of 413 changed in Python 3.13.
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
    """Serve until interrupted.

    Raises:
        SystemExit: the port cannot be used. Carries one sentence.
        SettingsError, ArtifactError, MetadataError, ModelDownloadError: no model can be served.
    """
    service = app.process_service()

    def handler(event: Any, context: Any) -> dict[str, Any]:
        return app.handle(event, context, service, write=_print_brief)

    try:
        server = LocalServer((host, port), handler)
    except (OSError, OverflowError) as error:
        raise SystemExit(describe_port_error(host, port, error)) from error
    with server:
        print(f"Listening on http://{host}:{server.server_port}  (Ctrl-C ends it)", flush=True)
        server.serve_forever()


def _print_brief(line: str) -> None:
    print(brief(line), flush=True)


def brief(line: str) -> str:
    """Return the handler's log line in short, for a person at a terminal.

    >>> brief('{"status": 200, "route": "GET /health", "Latency": 240.2}')
    '200  GET /health  240.2 ms'
    """
    fields = json.loads(line)
    result = fields.get("code") or fields.get("label") or ""
    if "items" in fields:
        result = f"{fields.get('items_done', 0)} of {fields['items']} images"
    shown = f"{fields.get('status')}  {fields['route']}  {fields['Latency']} ms  {result}".rstrip()
    return "\n".join([shown, *fields.get("reasons", []), *fields.get("exception", "").splitlines()])


def main(arguments: list[str] | None = None) -> None:
    """Serve on the address of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args(arguments)
    try:
        serve(options.host, options.port)
    except START_ERRORS as error:
        raise SystemExit(f"Cannot start: {error}") from error
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
