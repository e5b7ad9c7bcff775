"""Asks a deployed endpoint real questions: `make smoke URL=https://...`, or::

    python -m deploy.smoke https://abc123.execute-api.eu-central-1.amazonaws.com

Posts our own pictures in every way that the API takes, and some requests that must be refused;
checks answers, the shape of errors, and latency. Where callers are authorised: ``--token`` (or
``TOKEN``) for jwt, ``--iam`` to sign with the AWS credentials at hand. Exit status 1 if anything
is not as it should be.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_function import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXAMPLES = REPOSITORY / "examples"
MAX_WARM_S = 5.0  # of one prediction after the first; a 1,769 MB function takes well below one
PROBLEM_KEYS = {"type", "title", "status", "detail", "code", "request_id"}
BOUNDARY = "smoke-test-boundary"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        status: HTTP status.
        content_type: media type without parameters.
        body: decoded JSON, or the text.
        elapsed_s: from sending to the last byte.
    """

    status: int
    content_type: str
    body: Any
    elapsed_s: float


class Endpoint:
    """The deployed API."""

    def __init__(
        self, url: str, *, sign: Callable[[urllib.request.Request], None] = lambda _: None
    ) -> None:
        """Remember where; ``sign`` adds what authorises a request."""
        self._url = url.rstrip("/")
        self._sign = sign

    @property
    def is_public(self) -> bool:
        """Whether the function can fetch from this address: https, which a local server is not."""
        return self._url.startswith("https://")

    def url(self, path: str) -> str:
        """Return the address of a path."""
        return self._url + path

    def send(
        self, method: str, path: str, data: bytes | None = None, content_type: str = ""
    ) -> Answer:
        """Send one request; an HTTP error is an answer too."""
        headers = {"content-type": content_type} if content_type else {}
        request = urllib.request.Request(self.url(path), data, headers, method=method)
        self._sign(request)
        start = time.perf_counter()
        try:
            with urllib.request.urlopen(request, timeout=35) as response:
                status, kind, body = response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            with error:
                status, kind, body = error.code, error.headers, error.read()
        elapsed_s = time.perf_counter() - start
        media_type = kind.get("content-type", "").partition(";")[0]
        text = body.decode("utf-8", "replace")
        decoded = json.loads(text) if media_type.endswith("json") else text
        return Answer(status, media_type, decoded, elapsed_s)

    def post_json(self, content: Any) -> Answer:
        """POST to /predict."""
        return self.send("POST", "/predict", json.dumps(content).encode(), "application/json")


class Failed(Exception):  # noqa: N818 - a result, not an error of this program
    """An answer is not as it should be; carries what is wrong."""


def expect_prediction(answer: Answer) -> dict[str, Any]:
    """Check a prediction of one image and return it."""
    if answer.status != 200:
        raise Failed(f"status {answer.status}: {str(answer.body)[:200]}")
    scores = [item["score"] for item in answer.body["predictions"]]
    if scores != sorted(scores, reverse=True) or not 0.99 < sum(scores) < 1.01:
        raise Failed(f"these are not all classes' probabilities, best first: {scores}")
    if not answer.body["model"]["version"] or not answer.body["request_id"]:
        raise Failed("the model's version or the request id is missing")
    return dict(answer.body)


def expect_problem(answer: Answer, status: int, code: str) -> None:
    """Check an error of the function's own."""
    if answer.status != status or answer.content_type != "application/problem+json":
        raise Failed(
            f"expected {status} as application/problem+json, got {answer.status} as "
            f"{answer.content_type}: {str(answer.body)[:200]}"
        )
    if set(answer.body) != PROBLEM_KEYS or answer.body["code"] != code:
        raise Failed(f"expected the code {code} and {sorted(PROBLEM_KEYS)}: {answer.body}")


def checks(endpoint: Endpoint, picture: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what is asked, in words, and a function that asks it or raises ``Failed``."""
    data = picture.read_bytes()
    text = base64.b64encode(data).decode()
    form = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    ).encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()  # fmt: skip
    send, post_json = endpoint.send, endpoint.post_json

    def raw() -> Answer:
        return send("POST", "/predict", data, "image/jpeg")

    def warm() -> str:
        seconds = sorted(_timed(raw) for _ in range(5))
        if seconds[2] > MAX_WARM_S:
            raise Failed(f"the median of 5 requests took {seconds[2]:.1f} s")
        return f"{seconds[2] * 1000:.0f} ms, median of 5"

    def same_answer() -> None:
        ways = (raw(), post_json({"image": text}))
        if len({json.dumps(expect_prediction(way)["predictions"]) for way in ways}) != 1:
            raise Failed("the same picture got different answers")

    def health() -> None:
        answer = send("GET", "/health")
        if (answer.status, answer.body.get("status")) != (200, "ok"):
            raise Failed(str(answer.body)[:200])

    def documents() -> None:
        if "openapi" not in send("GET", "/openapi.json").body:
            raise Failed("/openapi.json is no OpenAPI document")
        for path in ("/", "/docs"):
            if send("GET", path).content_type != "text/html":
                raise Failed(f"{path} is no page")

    def fetched() -> None:
        """A web page is not an image. To say so, the function has to resolve, connect and read."""
        page = {"url": "https://example.com/"}
        expect_problem(post_json(page), 415, "unsupported_image")

    kind = f"multipart/form-data; boundary={BOUNDARY}"
    private = {"url": "http://169.254.169.254/latest/meta-data/"}
    yield "first prediction (may be a cold start)", lambda: expect_prediction(raw()) and None
    yield "warm predictions", warm
    yield "JSON with base64 gets the same answer", same_answer
    yield "a form", lambda: expect_prediction(send("POST", "/predict", form, kind)) and None
    yield "health", health
    yield "demo page, docs, OpenAPI", documents
    yield "404", lambda: expect_problem(send("GET", "/no-such-path"), 404, "not_found")
    yield "405", lambda: expect_problem(send("DELETE", "/predict"), 405, "method_not_allowed")
    yield "400, no image", lambda: expect_problem(post_json({}), 400, "bad_request")
    yield (
        "400, metadata address",
        lambda: expect_problem(post_json(private), 400, "address_not_allowed"),
    )
    if endpoint.is_public:
        yield "a URL is fetched (a web page, refused because it is not an image)", fetched
    yield (
        "415, no picture",
        lambda: expect_problem(
            send("POST", "/predict", b"words, words", "image/jpeg"), 415, "unsupported_image"
        ),
    )
    yield (
        "422, a picture cut short",
        lambda: expect_problem(
            send("POST", "/predict", data[: len(data) // 2], "image/jpeg"), 422, "undecodable_image"
        ),
    )


def smoke(endpoint: Endpoint, picture: Path = EXAMPLES / "pants.jpg") -> int:
    """Run all checks, print a line for each, and return how many failed."""
    failures = 0
    for name, check in checks(endpoint, picture):
        try:
            note = check() or ""
            print(f"  ok    {name}  {note}".rstrip())
        except (Failed, OSError, ValueError, KeyError, TypeError) as problem:
            failures += 1
            print(f"  FAIL  {name}: {problem}")
    return failures


def signer(token: str, *, iam: bool) -> Callable[[urllib.request.Request], None]:
    """Return what authorises a request: a token, an AWS signature, or nothing."""
    if iam:
        return _sign_for_iam
    if token:
        return lambda request: request.add_header("authorization", f"Bearer {token}")
    return lambda _: None


def _sign_for_iam(request: urllib.request.Request) -> None:
    import boto3
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    session = boto3.Session()
    host = urllib.parse.urlsplit(request.full_url).netloc
    region = host.split(".")[2] if "execute-api" in host else session.region_name
    signed = AWSRequest(
        request.get_method(), request.full_url, dict(request.header_items()), request.data
    )
    SigV4Auth(session.get_credentials(), "execute-api", region).add_auth(signed)
    for name, value in signed.headers.items():
        request.add_header(name, value)


def _timed(ask: Callable[[], Answer]) -> float:
    answer = ask()
    expect_prediction(answer)
    return answer.elapsed_s


def main(arguments: list[str] | None = None) -> int:
    """Run the checks; see the module."""
    parser = argparse.ArgumentParser(prog="python -m deploy.smoke", description=__doc__)
    parser.add_argument("url", help="the stack's output Endpoint")
    parser.add_argument("--token", default=os.environ.get("TOKEN", ""), help="for ApiAuth=jwt")
    parser.add_argument("--iam", action="store_true", help="for ApiAuth=iam")
    options = parser.parse_args(arguments)
    if not options.url.startswith(("https://", "http://")):
        print(f"An address must start with https://. Received: {options.url!r}.")
        return 1
    failures = smoke(Endpoint(options.url, sign=signer(options.token, iam=options.iam)))
    print("All well." if not failures else f"{failures} not as it should be.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
