"""Test a deployed endpoint with real requests: `make smoke`, or::

    python -m deploy.smoke --stack clothes
    python -m deploy.smoke https://abc123.execute-api.eu-central-1.amazonaws.com

Without a URL it reads address and authorisation from the stack's outputs. It names the version of
the function that responded, which each response carries in a header. It sends an example image in
every way that the API takes, and requests that the API must refuse. It checks bodies, the form of
errors, and latency. ``TOKEN`` in the environment authorises for ApiAuth=jwt. ApiAuth=iam is signed
with the AWS credentials. Without either, a protected API must respond with 401 or 403. Exit status
1 if a check failed.
"""

from __future__ import annotations

import argparse
import base64
import collections
import dataclasses
import http.client
import json
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError

from deploy.findings import CheckFailed, run_command
from deploy.stack import DeployedStack, describe, open_session, read_target
from lambda_function import example_image
from lambda_function.fetching.s3 import NO_CREDENTIALS
from lambda_function.http.events import VERSION_HEADER

EXAMPLE = example_image()
# One vCPU needs 0.3 s for a prediction. The limit is for a network, and for a cold neighbour.
MAX_WARM_S = 5.0
PROBLEM_KEYS = {"type", "title", "status", "detail", "code", "request_id"}
BOUNDARY = "smoke-test-boundary"
Sign = Callable[[urllib.request.Request], None]


@dataclasses.dataclass(frozen=True)
class Reply:
    """The response to one request.

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


class EndpointUnreachable(CheckFailed):
    """The first request got no response, so the other checks would say the same."""


class Endpoint:
    """The deployed API."""

    def __init__(self, url: str, *, sign: Sign = lambda _: None, has_internet: bool = True) -> None:
        """Send nothing yet.

        Args:
            url: the address.
            sign: adds what authorises a request.
            has_internet: whether the function reaches the internet for certain.
        """
        self._url = url.rstrip("/")
        self._sign = sign
        self._has_internet = has_internet
        self._has_responded = False
        self._versions: collections.Counter[str] = collections.Counter()

    @property
    def fetches_urls(self) -> bool:
        """Whether the function must be able to fetch a URL. A local server has no https."""
        return self._has_internet and self._url.startswith("https://")

    @property
    def versions(self) -> str:
        """The versions of the function that responded, as a sentence."""
        if not self._versions:
            return f"no response named a version of the function ({VERSION_HEADER})"
        counted = sorted(self._versions.items())
        return ", ".join(f"version {name} of the function: {n} responses" for name, n in counted)

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        return self._url + path

    def send(
        self, method: str, path: str, data: bytes | None = None, content_type: str = ""
    ) -> Reply:
        """Send one request. An HTTP error is a reply too.

        Raises:
            EndpointUnreachable: it is the first request, and there is no response.
        """
        headers = {"content-type": content_type} if content_type else {}
        try:
            request = urllib.request.Request(self.url(path), data, headers, method=method)
            self._sign(request)
            start = time.perf_counter()
            with urllib.request.urlopen(request, timeout=35) as response:
                status, kind, body = response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            with error:
                status, kind, body = error.code, error.headers, error.read()
        except (OSError, http.client.HTTPException, ValueError) as error:
            if self._has_responded:
                raise
            raise EndpointUnreachable(
                f"{self._url} does not respond: {getattr(error, 'reason', error)}. Check the "
                "address, and that the server runs and can be reached from here."
            ) from error
        self._has_responded = True
        elapsed_s = time.perf_counter() - start
        if kind.get(VERSION_HEADER):
            self._versions[kind[VERSION_HEADER]] += 1
        media_type = kind.get("content-type", "").partition(";")[0]
        text = body.decode("utf-8", "replace")
        decoded = json.loads(text) if media_type.endswith("json") else text
        return Reply(status, media_type, decoded, elapsed_s)

    def post_json(self, content: Any) -> Reply:
        """POST to /predict."""
        return self.send("POST", "/predict", json.dumps(content).encode(), "application/json")


def expect_prediction(reply: Reply) -> dict[str, Any]:
    """Return a prediction of one image, or raise ``CheckFailed``."""
    if reply.status != 200:
        raise CheckFailed(f"status {reply.status}: {str(reply.body)[:200]}")
    scores = [item["score"] for item in reply.body["predictions"]]
    if scores != sorted(scores, reverse=True) or not 0.99 < sum(scores) < 1.01:
        raise CheckFailed(f"these are no probabilities of all classes, best first: {scores}")
    if not reply.body["model"]["version"] or not reply.body["request_id"]:
        raise CheckFailed("the model's version or the request id is missing")
    return dict(reply.body)


def expect_problem(reply: Reply, status: int, code: str) -> None:
    """Check a problem response of the function."""
    if reply.status != status or reply.content_type != "application/problem+json":
        raise CheckFailed(
            f"expected {status} as application/problem+json, got {reply.status} as "
            f"{reply.content_type}: {str(reply.body)[:200]}"
        )
    if set(reply.body) != PROBLEM_KEYS or reply.body["code"] != code:
        raise CheckFailed(f"expected the code {code} and {sorted(PROBLEM_KEYS)}: {reply.body}")


Check = tuple[str, Callable[[], str | None]]
# A server that goes away, cuts a later response, or sends JSON of another form. No credentials.
UNEXPECTED = (
    OSError, http.client.HTTPException, BotoCoreError, ValueError, LookupError, TypeError,
)  # fmt: skip


def checks(endpoint: Endpoint, image: Path) -> Iterator[Check]:
    """Yield each check: its name, and a function that returns a note or raises ``CheckFailed``."""
    data = image.read_bytes()
    yield from _prediction_checks(endpoint, data)
    yield from _page_checks(endpoint)
    yield from _refusal_checks(endpoint, data)


def _prediction_checks(endpoint: Endpoint, data: bytes) -> Iterator[Check]:
    form = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    ).encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()  # fmt: skip
    kind = f"multipart/form-data; boundary={BOUNDARY}"

    def raw() -> Reply:
        return endpoint.send("POST", "/predict", data, "image/jpeg")

    def first() -> str:
        model = expect_prediction(raw())["model"]
        return f"model {model['name']} {model['version']}"

    def warm() -> str:
        seconds = sorted(_timed(raw) for _ in range(5))
        if seconds[2] > MAX_WARM_S:
            raise CheckFailed(f"the median of 5 requests took {seconds[2]:.1f} s")
        return f"{seconds[2] * 1000:.0f} ms, median of 5"

    def same_prediction() -> None:
        ways = (raw(), endpoint.post_json({"image": base64.b64encode(data).decode()}))
        if len({json.dumps(expect_prediction(way)["predictions"]) for way in ways}) != 1:
            raise CheckFailed("the same image got different predictions")

    def form_upload() -> None:
        expect_prediction(endpoint.send("POST", "/predict", form, kind))

    yield "first prediction (may be a cold start)", first
    yield "warm predictions", warm
    yield "JSON with base64 gets the same prediction", same_prediction
    yield "a form", form_upload


def _page_checks(endpoint: Endpoint) -> Iterator[Check]:
    def health() -> None:
        reply = endpoint.send("GET", "/health")
        if reply.status != 200 or dict(reply.body).get("status") != "ok":
            raise CheckFailed(str(reply.body)[:200])

    def documents() -> None:
        if "openapi" not in endpoint.send("GET", "/openapi.json").body:
            raise CheckFailed("/openapi.json is no OpenAPI document")
        for path in ("/", "/docs"):
            if endpoint.send("GET", path).content_type != "text/html":
                raise CheckFailed(f"{path} is no page")

    yield "health", health
    yield "demo page, docs, OpenAPI", documents


def _refusal_checks(endpoint: Endpoint, data: bytes) -> Iterator[Check]:
    send, post_json = endpoint.send, endpoint.post_json
    metadata = {"url": "http://169.254.169.254/latest/meta-data/"}

    def problem(reply: Callable[[], Reply], status: int, code: str) -> Callable[[], None]:
        return lambda: expect_problem(reply(), status, code)

    def post(body: bytes) -> Callable[[], Reply]:
        return lambda: send("POST", "/predict", body, "image/jpeg")

    yield "404", problem(lambda: send("GET", "/no-such-path"), 404, "not_found")
    yield "405", problem(lambda: send("DELETE", "/predict"), 405, "method_not_allowed")
    yield "400, no image", problem(lambda: post_json({}), 400, "bad_request")
    yield "400, metadata address", problem(lambda: post_json(metadata), 400, "address_not_allowed")
    if endpoint.fetches_urls:
        # A web page is no image. To say so, the function must resolve, connect and read. It refuses
        # requests of its own kind, so its own pages would not do.
        page = {"url": "https://example.com/"}
        yield "a URL is fetched", problem(lambda: post_json(page), 415, "unsupported_image")
    yield "415, no image", problem(post(b"words, words"), 415, "unsupported_image")
    yield "422, half an image", problem(post(data[: len(data) // 2]), 422, "undecodable_image")


def protection_checks(endpoint: Endpoint) -> Iterator[Check]:
    """Yield the check that a protected API refuses a request without authorisation."""

    def refused() -> str:
        reply = endpoint.post_json({})
        if reply.status not in (401, 403):
            raise CheckFailed(f"expected 401 or 403 without authorisation, got {reply.status}")
        return str(reply.status)

    yield "without authorisation", refused


def run_checks(checked: Iterator[Check]) -> int:
    """Run checks, print a line for each, and return how many failed."""
    failures = 0
    for name, check in checked:
        try:
            print(f"  ok    {name}  {check() or ''}".rstrip())
        except EndpointUnreachable:
            raise
        except CheckFailed as problem:
            failures += 1
            print(f"  FAIL  {name}: {problem}")
        except UNEXPECTED as problem:
            failures += 1
            print(f"  FAIL  {name}: {type(problem).__name__}: {problem}")
    return failures


def smoke(endpoint: Endpoint, image: Path = EXAMPLE) -> int:
    """Run all checks of an endpoint, print a line for each, and return how many failed."""
    failures = run_checks(checks(endpoint, image))
    print(f"  {endpoint.versions}")
    return failures


def smoke_stack(session: Any, deployed: DeployedStack, *, token: str = "") -> int:
    """Test the endpoint of a stack, print a line for each check, and return how many failed.

    Args:
        session: a ``boto3.Session``.
        deployed: the stack.
        token: for ApiAuth=jwt. Without one only the open routes and the refusal are checked.
    """
    url, kind = deployed.outputs.get("Endpoint", ""), deployed.parameters.get("ApiAuth", "none")
    if not url:
        print(f"  FAIL  the stack {deployed.name} has no output Endpoint")
        return 1
    print(f"{url} (ApiAuth={kind})")
    failures = 0
    if kind != "none":
        failures += run_checks(protection_checks(Endpoint(url)))
    if kind == "jwt" and not token:
        print("  note  TOKEN is not set, so only the open routes are checked")
        endpoint = Endpoint(url)
        failures += run_checks(_open_checks(endpoint))
        print(f"  {endpoint.versions}")
        return failures
    sign = signer(token if kind == "jwt" else "", iam=kind == "iam", session=session)
    in_vpc = bool(deployed.parameters.get("VpcSubnetIds"))
    if in_vpc:
        print("  note  the function is in a VPC, so it fetches no URL of the internet here")
    return failures + smoke(Endpoint(url, sign=sign, has_internet=not in_vpc))


def _open_checks(endpoint: Endpoint) -> Iterator[Check]:
    return (check for check in _page_checks(endpoint) if check[0] != "health")


def signer(token: str, *, iam: bool, session: Any = None) -> Sign:
    """Return what authorises a request: a token, an AWS signature, or nothing.

    Raises:
        CheckFailed: there are no credentials to sign with, or the token cannot be sent.
    """
    if not re.fullmatch("[!-~]*", token):  # http.client's error would print it
        raise CheckFailed("TOKEN must be one word of ASCII characters, without a line break.")
    if iam:
        session = session or boto3.Session()
        if session.get_credentials() is None:
            raise CheckFailed(NO_CREDENTIALS)
        return lambda request: _sign_for_iam(request, session)
    if token:
        return lambda request: request.add_header("authorization", f"Bearer {token}")
    return lambda _: None


def _sign_for_iam(request: urllib.request.Request, session: Any) -> None:
    host = urllib.parse.urlsplit(request.full_url).netloc
    region = host.split(".")[2] if "execute-api" in host else session.region_name
    signed = AWSRequest(
        request.get_method(), request.full_url, dict(request.header_items()), request.data
    )
    SigV4Auth(session.get_credentials(), "execute-api", region).add_auth(signed)
    for name, value in signed.headers.items():
        request.add_header(name, value)


def _timed(send: Callable[[], Reply]) -> float:
    reply = send()
    expect_prediction(reply)
    return reply.elapsed_s


def main(arguments: list[str] | None = None) -> int:
    """Run the checks of the endpoint or stack on the command line. Returns an exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.smoke",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("url", nargs="?", default="", help="default: the stack's output Endpoint")
    parser.add_argument("--stack", help="default: the stack that was deployed from here")
    parser.add_argument("--iam", action="store_true", help="sign requests to the URL")
    options = parser.parse_args(arguments)
    return run_command(lambda: _run(options, os.environ.get("TOKEN", "").strip()))


def _run(options: argparse.Namespace, token: str) -> int:
    if options.url and not options.url.startswith(("https://", "http://")):
        raise CheckFailed(f"A URL must start with https://. Received: {options.url!r}.")
    if options.url:
        failures = smoke(Endpoint(options.url, sign=signer(token, iam=options.iam)))
    else:
        failures = _smoke_target(options, token)
    print("All checks passed." if not failures else f"{failures} checks failed.")
    return 1 if failures else 0


def _smoke_target(options: argparse.Namespace, token: str) -> int:
    target = read_target(argparse.Namespace(stack=options.stack, parameters=()))
    session = open_session(target.region)
    deployed = describe(session, target.stack)
    if deployed is None:
        raise CheckFailed(
            f"There is no stack {target.stack}. Name one: STACK=..., or URL=https://..."
        )
    return smoke_stack(session, deployed, token=token)


if __name__ == "__main__":
    sys.exit(main())
