"""Three kinds of HTTP event become one ``Request``, one ``Response`` what they all accept.

API Gateway's HTTP API (payload 2.0), its REST API (payload 1.0) and Lambda Function URLs
(payload 2.0) differ in names and in small habits. Only this module knows the differences. Any JSON
value may be passed in. A missing value or a wrong type gives a ``BadRequestError`` or an empty
value, never a crash.

Why not Powertools: docs/decisions.md.
"""

from __future__ import annotations

import binascii
import dataclasses
import json
import urllib.parse
from typing import Any, NamedTuple

from lambda_function.errors import BadRequestError

_GATEWAY_KEYS = frozenset({"requestContext", "httpMethod", "rawPath", "routeKey"})
# S3, SQS, SNS and Kinesis. Firehose and Kafka. ActiveMQ. RabbitMQ. EventBridge.
_QUEUE_KEYS = frozenset({"Records", "records", "messages", "rmqMessagesByQueue", "detail-type"})
_BINARY_TYPES = ("image/", "multipart/", "application/octet-stream")
_DEFAULT_STAGE = "$default"
# Of the function. During a deployment the alias has two versions, and only a response tells which.
VERSION_HEADER = "x-function-version"
QUEUE_HANDLER = "lambda_function.queue_events.lambda_handler"
MAX_FIELDS = 100  # of a query string
MAX_QUERY_LENGTH = 100_000  # a URL of 8,192 characters, each percent-encoded in up to 12
_DAMAGED = (
    "The body's bytes were damaged on the way: the gateway passed binary content on as text. "
    "Configure it to pass binary types on (REST APIs: binaryMediaTypes), or send JSON with the "
    "image in base64."
)


class Route(NamedTuple):
    """Method and path, empty strings where the event does not say.

    Attributes:
        method: upper case.
        path: without stage and trailing slash, at least ``/``.
    """

    method: str
    path: str


class QueueEventError(Exception):
    """An event of a queue, a stream or a bucket reached the HTTP handler.

    It is raised into the runtime. A handler that returns confirms the event, and the queue would
    delete its messages.
    """

    def __init__(self) -> None:
        super().__init__(
            "This event holds records of a queue, a stream or a bucket. The handler for them is "
            f"{QUEUE_HANDLER}."
        )


@dataclasses.dataclass(frozen=True)
class Request:
    """An HTTP request, whatever event carried it.

    Attributes:
        method: upper case.
        path: without stage and trailing slash, at least ``/``.
        query: decoded pairs, in order.
        headers: names in lower case.
        body: bytes as the caller sent them.
        gateway_id: the gateway's own id of the request, or ``""``.
        host: the host name that the caller used, or ``""``.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    body: bytes = b""
    gateway_id: str = ""
    host: str = ""

    @property
    def content_type(self) -> str:
        """The media type alone, lower case, or ``""``."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclasses.dataclass(frozen=True)
class Response:
    """An HTTP response with a text body.

    Attributes:
        status: HTTP status code.
        body: text.
        content_type: with its charset where it needs one.
        headers: further ones.
    """

    status: int
    body: str
    content_type: str = "application/json"
    headers: dict[str, str] = dataclasses.field(default_factory=dict)

    def to_event(self, *, with_body: bool = True) -> dict[str, Any]:
        """Return the form that all three gateways accept.

        Args:
            with_body: False for HEAD.
        """
        headers = {"x-content-type-options": "nosniff", **self.headers}
        if self.body:
            headers["content-type"] = self.content_type
        return {
            "statusCode": self.status,
            "headers": headers,
            "body": self.body if with_body else "",
            "isBase64Encoded": False,
        }


def json_response(
    status: int,
    body: dict[str, Any],
    *,
    content_type: str = "application/json",
    headers: dict[str, str] | None = None,
) -> Response:
    """Return a JSON response that no cache keeps.

    Raises:
        ValueError: NaN or infinity in the body, which JSON does not have.
    """
    text = json.dumps(body, allow_nan=False)
    return Response(status, text, content_type, {"cache-control": "no-store", **(headers or {})})


def is_gateway_event(event: Any) -> bool:
    """Return whether this is an HTTP event and not a direct invoke."""
    return isinstance(event, dict) and not _GATEWAY_KEYS.isdisjoint(event)


def is_queue_event(event: Any) -> bool:
    """Return whether this is an event of S3, SQS, SNS, Kinesis or the like."""
    return isinstance(event, dict) and not _QUEUE_KEYS.isdisjoint(event)


def read_route(event: dict[str, Any]) -> Route:
    """Read an event's method and path."""
    if "httpMethod" in event:
        method, path = _text(event["httpMethod"]), _text(event.get("path"))
    else:
        context = _mapping(event.get("requestContext"))
        http = _mapping(context.get("http"))
        method, path = _text(http.get("method")), _text(event.get("rawPath") or http.get("path"))
        path = _without_stage(path, _text(context.get("stage")))
    return Route(method.upper(), path.rstrip("/") or "/")


def read_request(event: dict[str, Any], route: Route) -> Request:
    """Read an event of payload version 1.0 or 2.0.

    Args:
        event: the event.
        route: of this event, from ``read_route``.

    Raises:
        BadRequestError: no method, or a body that cannot be what the caller sent.
    """
    context = _mapping(event.get("requestContext"))
    if "elb" in context:
        raise BadRequestError(
            "Events of an Application Load Balancer are not read. Use an API Gateway or a Lambda "
            "Function URL."
        )
    if not route.method:
        raise BadRequestError("The event has no HTTP method. Is it a real API Gateway event?")
    headers = {
        name.lower(): value
        for name, value in _mapping(event.get("headers")).items()
        if isinstance(value, str)
    }
    for name, lines in _mapping(event.get("multiValueHeaders")).items():
        if name.lower() == "via" and isinstance(lines, list):
            # in version 1.0, headers has only the last of several lines
            headers["via"] = ", ".join(line for line in lines if isinstance(line, str))
    return Request(
        method=route.method,
        path=route.path,
        query=_query(event),
        headers=headers,
        body=_body(event, headers.get("content-type", "").lower()),
        gateway_id=_text(context.get("requestId")),
        host=_text(context.get("domainName")),
    )


def decode_base64(text: str) -> bytes:
    """Decode standard base64. Whitespace and missing padding are accepted.

    Raises:
        ValueError: anything else in the text.
    """
    packed = text
    for blank in " \r\n\t":  # split() would make an object of every piece
        packed = packed.replace(blank, "")
    packed += "=" * (-len(packed) % 4)
    try:
        # b64decode(validate=True) would run a regular expression over the whole text first
        return binascii.a2b_base64(packed, strict_mode=True)
    except ValueError as error:  # binascii.Error is one, and so is text outside ASCII
        raise ValueError("not base64") from error


def _query(event: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    if "rawQueryString" in event:
        # v2's queryStringParameters joins repeated values with commas, which URLs may hold too
        raw = _text(event["rawQueryString"])
        if len(raw) > MAX_QUERY_LENGTH:
            rule = f"The query string is longer than {MAX_QUERY_LENGTH:,} characters."
            raise BadRequestError(rule, received=len(raw))
        try:
            pairs = urllib.parse.parse_qsl(raw, keep_blank_values=True, max_num_fields=MAX_FIELDS)
        except ValueError as error:
            rule = f"The query string has more than {MAX_FIELDS} fields."
            raise BadRequestError(rule, received=1 + raw.count("&")) from error
        return tuple(pairs)
    many = _mapping(event.get("multiValueQueryStringParameters"))
    if many:
        return tuple(
            (name, _text(value))
            for name, values in many.items()
            for value in (values if isinstance(values, list) else [values])
        )
    return tuple((k, _text(v)) for k, v in _mapping(event.get("queryStringParameters")).items())


def _body(event: dict[str, Any], content_type: str) -> bytes:
    body = event.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        raise BadRequestError("The event's body must be a string.", received=body)
    flagged = event.get("isBase64Encoded") is True
    is_binary = content_type.startswith(_BINARY_TYPES)
    if flagged or (is_binary and not body.startswith("--")):  # "--" begins a form, as text
        try:
            return decode_base64(body)
        except ValueError as error:
            if not flagged:
                raise BadRequestError(_DAMAGED) from error
            if not body.lstrip().startswith("{"):  # a flag set on plain JSON is harmless
                raise BadRequestError("The body is marked as base64 but is not.") from error
    if is_binary and "\ufffd" in body:
        raise BadRequestError(_DAMAGED)
    return body.encode("utf-8", "surrogatepass")


def _without_stage(path: str, stage: str) -> str:
    prefix = f"/{stage}"
    if stage in ("", _DEFAULT_STAGE) or not (path == prefix or path.startswith(f"{prefix}/")):
        return path
    return path[len(prefix) :]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
