"""Building requests and checking problems: what the handler's test files share."""

from __future__ import annotations

from typing import Any

from tests.conftest import Api, Context

PROBLEM_KEYS = {"type", "title", "status", "detail", "code", "request_id"}
BOUNDARY = "----formdata-7d3a"


def form(*parts: tuple[str, bytes]) -> bytes:
    """Build a multipart body as browsers do."""
    pieces = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="a b.png"\r\n'
        "Content-Type: image/png\r\n\r\n".encode()
        + content
        + b"\r\n"
        for name, content in parts
    ]
    return b"".join([*pieces, f"--{BOUNDARY}--\r\n".encode()])


def post_form(api: Api, *parts: tuple[str, bytes], **more: Any) -> Any:
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    return api.send("POST", "/predict", body=form(*parts), content_type=kind, **more)


def check_problem(reply: Any, status: int, code: str) -> str:
    """Check an error's form and return its detail."""
    assert reply.status == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert set(reply.json) == PROBLEM_KEYS
    assert (reply.json["status"], reply.json["code"]) == (status, code)
    assert reply.json["request_id"] == Context().aws_request_id
    detail: str = reply.json["detail"]
    return detail
