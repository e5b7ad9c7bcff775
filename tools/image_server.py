"""Serve images on loopback. Tests and benchmarks fetch from this server, without a network."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Resource:
    """The response at one path.

    Attributes:
        body: the bytes.
        content_type: as announced.
        status: HTTP status.
        delay_s: before anything is sent.
    """

    body: bytes
    content_type: str = "image/jpeg"
    status: int = 200
    delay_s: float = 0.0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # the base's 5 drops simultaneous connections. Each costs a second


class ImageServer:
    """Serves resources by path on 127.0.0.1 for the length of a ``with`` block.

    Other paths return 404. ``?...`` after a path is ignored, so that a URL can be made unique.
    """

    def __init__(self, resources: Mapping[str, Resource]) -> None:
        self.resources = dict(resources)
        self.requests = 0
        self._server = _Server(("127.0.0.1", 0), self._handler_class())

    def __enter__(self) -> ImageServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def host(self) -> str:
        """``host:port``, as ``TRUSTED_IMAGE_HOSTS`` needs it."""
        return f"127.0.0.1:{self._server.server_port}"

    def url(self, path: str) -> str:
        """Return the URL of a resource."""
        return f"http://{self.host}{path}"

    def _handler_class(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.requests += 1
                missing = Resource(b"no such image", "text/plain", 404)
                resource = owner.resources.get(self.path.partition("?")[0], missing)
                time.sleep(resource.delay_s)
                with contextlib.suppress(ConnectionError):  # the client may have given up
                    self.send_response(resource.status)
                    self.send_header("Content-Type", resource.content_type)
                    self.send_header("Content-Length", str(len(resource.body)))
                    self.end_headers()
                    self.wfile.write(resource.body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Log nothing."""

        return Handler
