"""The service knows its own fetches, so that one request does not become a thousand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from lambda_function.fetching.identity import VIA, is_own_request, user_agent
from lambda_function.service import Service
from lambda_function.settings import Settings
from tests.conftest import Api, http_event
from tests.support.servers import LoopbackServer, answer
from tools.gateway import build_event

if TYPE_CHECKING:
    from lambda_function.classifier import Classifier
    from tests.support.servers import Stage

URLS = 16  # of one request
DEPTH = 3  # how often the service's URL is nested in each of them


def test_the_user_agent_begins_with_the_product_and_may_name_a_contact() -> None:
    purpose = "fetches one image at its user's request"
    assert user_agent() == f"serverless-image-classifier/0.2 ({purpose})"
    assert user_agent("https://shop.example/; mail@shop.example") == (
        f"serverless-image-classifier/0.2 (https://shop.example/; mail@shop.example; {purpose})"
    )


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({"user-agent": user_agent()}, True),
        ({"user-agent": user_agent("mail@shop.example")}, True),
        ({"user-agent": " Serverless-Image-Classifier/9.9"}, True),
        ({"user-agent": "proxy/1", "via": VIA}, True),
        ({"user-agent": "proxy/1", "via": f"1.0 fred, {VIA}, 2.0 x.cloudfront.net (CDN)"}, True),
        ({"user-agent": "proxy/1", "via": "HTTP/1.1 Serverless-Image-Classifier"}, True),
        ({}, False),
        ({"user-agent": "curl/8", "via": "2.0 x.cloudfront.net (CloudFront)"}, False),
        ({"user-agent": "Mozilla/5.0 (like serverless-image-classifier)"}, False),
    ],
)
def test_a_request_is_the_service_s_own_by_user_agent_or_via(
    headers: dict[str, str], own: bool
) -> None:
    assert is_own_request(headers) is own


@pytest.mark.parametrize("path", ["/predict", "/health", "/docs"])
@pytest.mark.parametrize("event_format", ["http_api_v2", "rest_api_v1", "function_url"])
def test_the_service_refuses_its_own_requests(api: Api, path: str, event_format: str) -> None:
    event = http_event("GET", path, event_format=event_format)
    event["headers"] |= {"via": "2.0 x.cloudfront.net"}
    assert api.invoke(event)["statusCode"] != 400 or path == "/predict"
    if event_format == "rest_api_v1":  # shows all lines of Via here only
        event["multiValueHeaders"]["Via"] = [VIA, "2.0 x.cloudfront.net"]
    else:
        event["headers"]["via"] = f"{VIA},2.0 x.cloudfront.net"
    response = api.invoke(event)
    assert response["statusCode"] == 400
    assert "the URL of a classifier" in response["body"]


class Gateway:
    """The service behind a proxy that drops or replaces headers, on loopback.

    Attributes:
        calls: of the handler.
    """

    def __init__(self, tiny: Classifier, replaced: dict[str, str], *, domain: str = "") -> None:
        self.calls = 0
        self._replaced = replaced
        self._domain = domain
        self._server = LoopbackServer({}, default=self._play)
        trusted = frozenset({self._server.host})
        self._api = Api(Service(Settings(trusted_image_hosts=trusted), tiny))

    def post_nested_urls(self) -> int:
        """Post ``URLS`` URLs that each lead through the service ``DEPTH`` times. Return calls."""
        with self._server:
            urls = [self._server.url(f"/{n}") for n in range(URLS)]
            for _ in range(DEPTH):
                urls = [self._server.url(f"/predict?url={quote(url, safe='')}") for url in urls]
            headers = {"content-type": "application/json"}
            self._invoke("POST", "/predict", headers, json.dumps({"urls": urls}).encode())
        return self.calls

    def _play(self, stage: Stage) -> None:
        lines = stage.head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        headers = {name.lower(): value for name, value in headers.items()} | self._replaced
        response = self._invoke("GET", lines[0].split(" ")[1], headers)
        answer(response["body"].encode(), status=f"{response['statusCode']} x")(stage)

    def _invoke(
        self, method: str, target: str, headers: dict[str, str], body: bytes = b""
    ) -> dict[str, Any]:
        self.calls += 1
        event = build_event(method, target, headers, body)
        event["requestContext"]["domainName"] = self._domain
        return self._api.invoke(event)


def test_one_request_stays_one_request_and_its_fetches(tiny: Classifier) -> None:
    assert Gateway(tiny, {}).post_nested_urls() == 1 + URLS


def test_a_proxy_that_replaces_the_user_agent_changes_nothing(tiny: Classifier) -> None:
    assert Gateway(tiny, {"user-agent": "proxy/1"}).post_nested_urls() == 1 + URLS


def test_a_proxy_that_drops_via_too_meets_the_rule_of_the_own_host(tiny: Classifier) -> None:
    anonymous = {"user-agent": "proxy/1", "via": ""}
    assert Gateway(tiny, anonymous, domain="127.0.0.1").post_nested_urls() == 1


def test_it_is_a_brake_and_no_boundary(tiny: Classifier) -> None:
    """Behind a name that the gateway does not report, and a proxy that drops both headers."""
    anonymous = {"user-agent": "proxy/1", "via": ""}
    assert Gateway(tiny, anonymous).post_nested_urls() == 1 + URLS * (DEPTH + 1)
