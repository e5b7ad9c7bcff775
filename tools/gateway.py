"""What stands in for API Gateway here: its events (payload format 2.0), and a port for them."""

from __future__ import annotations

import base64
import json
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_EVENT_BYTES = 6 * 1024**2  # Lambda's limit for a synchronous invoke. base64 adds a third
_TEXT_TYPES = ("text/", "application/json", "application/javascript", "application/xml")


def describe_port_error(host: str, port: int, error: OSError | OverflowError) -> str:
    """Return why nothing can listen on a port, and how to name another one."""
    reason = error.strerror if isinstance(error, OSError) else "ports are 0 to 65535"
    return f"Cannot listen on {host}:{port}: {reason}. PORT=... (or --port) names another."


def build_event(
    method: str, target: str, headers: Mapping[str, str], body: bytes
) -> dict[str, Any]:
    """Build the event that an HTTP API sends for a request.

    Args:
        method: upper case.
        target: path and query string, as on the request line.
        headers: of the request.
        body: its bytes. They are base64 in the event, unless the content type is a text type.

    Returns:
        An event as in
        https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
    """
    path, _, query = target.partition("?")
    lower = {name.lower(): value for name, value in headers.items()}
    is_text = lower.get("content-type", "").lower().startswith(_TEXT_TYPES)
    event = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": unquote(path),
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


def http_event(
    method: str,
    path: str,
    *,
    json_body: Any = None,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Build the event of a request from its parts. ``json_body`` is sent in place of ``body``."""
    sent = dict(headers or {})
    if json_body is not None:
        body, sent["content-type"] = json.dumps(json_body).encode(), "application/json"
    return build_event(method, f"{path}?{urlencode(query)}" if query else path, sent, body)
