"""What several test files share: a tiny real model, images on loopback, and the handler.

The model is ``data/tiny.tflite`` (see make_tiny_model.py), which tells colours apart. The handler
is the real one, with a log that can be read. Nothing here reaches the network or AWS.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

import pytest
from PIL import Image

from lambda_function import SHIPPED_MODEL, app
from lambda_function.classifier import Classifier
from lambda_function.metadata import MetadataError, read_metadata
from lambda_function.service import Service
from lambda_function.settings import Settings
from tests.support.images import encode
from tests.support.paths import TESTS
from tests.support.shapes import write_dataset
from tools.image_server import ImageServer, Resource

if TYPE_CHECKING:
    from collections.abc import Iterator

TINY_MODEL = TESTS / "data" / "tiny.tflite"
TINY_MAP_MODEL = TESTS / "data" / "tiny_map.tflite"
TINY_ALL_MODEL = TESTS / "data" / "tiny_all.tflite"
EVENTS = TESTS / "events"
FORMATS = ("http_api_v2", "http_api_v2_named_stage", "rest_api_v1", "function_url")
RELEASE = "clothing-xception"


class Context:
    """Lambda's context object, as far as the handler uses it."""

    def __init__(self, remaining_s: float = 30.0) -> None:
        self.aws_request_id = "8f507cfc-xmpl-4697-b07a-ac58fc914c95"
        self._end = time.monotonic() + remaining_s

    def get_remaining_time_in_millis(self) -> int:
        return int((self._end - time.monotonic()) * 1000)


class Reply:
    """A gateway response, as an HTTP client would see it."""

    def __init__(self, response: dict[str, Any]) -> None:
        assert set(response) == {"statusCode", "headers", "body", "isBase64Encoded"}
        assert isinstance(response["body"], str)
        assert response["isBase64Encoded"] is False
        assert all(isinstance(value, str) for value in response["headers"].values())
        json.dumps(response, allow_nan=False)
        self.status: int = response["statusCode"]
        self.headers: dict[str, str] = response["headers"]
        self.text: str = response["body"]

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Api:
    """The handler with a service, called over HTTP or directly. Keeps its log lines."""

    def __init__(self, service: Service, *, remaining_s: float = 30.0) -> None:
        self.service = service
        self.lines: list[dict[str, Any]] = []
        self.remaining_s = remaining_s

    def invoke(self, event: Any) -> dict[str, Any]:
        """Give the handler an event as it is."""
        return app.handle(event, Context(self.remaining_s), self.service, write=self._keep)

    def send(self, method: str, path: str, **parts: Any) -> Reply:
        """Send an HTTP request. Parts are as for ``http_event``."""
        return Reply(self.invoke(http_event(method, path, **parts)))

    def get(self, path: str, **query: str) -> Reply:
        return self.send("GET", path, query=urlencode(query))

    def post_json(self, content: Any, **parts: Any) -> Reply:
        body = json.dumps(content).encode()
        return self.send("POST", "/predict", body=body, content_type="application/json", **parts)

    def _keep(self, line: str) -> None:
        self.lines.append(json.loads(line))


def recorded(name: str) -> dict[str, Any]:
    """Return an event of tests/events."""
    event: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text())
    return event


def http_event(
    method: str,
    path: str,
    *,
    query: str = "",
    body: bytes | None = None,
    content_type: str | None = None,
    event_format: str = "http_api_v2",
) -> dict[str, Any]:
    """Return a recorded event made over for another request.

    Args:
        method: of the request.
        path: without a stage.
        query: percent-encoded.
        body: of the request. The event has it in base64 unless it is JSON.
        content_type: of the body.
        event_format: one of ``FORMATS``.
    """
    event = copy.deepcopy(recorded(event_format))
    headers = {name: v for name, v in event["headers"].items() if name.lower() != "content-type"}
    if content_type is not None:
        headers["Content-Type" if event_format == "rest_api_v1" else "content-type"] = content_type
    event["headers"] = headers
    if event_format == "rest_api_v1":
        pairs = parse_qsl(query, keep_blank_values=True)
        many: dict[str, list[str]] = {}
        for name, value in pairs:
            many.setdefault(name, []).append(value)
        event |= {
            "httpMethod": method,
            "path": path,
            "queryStringParameters": dict(pairs) or None,
            "multiValueQueryStringParameters": many or None,
        }
    else:
        stage = event["requestContext"]["stage"]
        event["rawPath"] = path if stage == "$default" else f"/{stage}{path}"
        event["rawQueryString"] = query
        event["requestContext"]["http"]["method"] = method
    is_text = content_type is not None and content_type.startswith("application/json")
    if body is None:
        event.pop("body")
    else:
        event["body"] = body.decode() if is_text else base64.b64encode(body).decode()
    event["isBase64Encoded"] = body is not None and not is_text
    return event


def encode_image(colour: str, size: tuple[int, int] = (40, 60), kind: str = "PNG") -> bytes:
    """Return an encoded image of one colour. Size is (height, width)."""
    return encode(Image.new("RGB", (size[1], size[0]), colour), kind)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of the project's own model if another one was adopted.

    The artifact's name decides, so the tests of a damaged release fail. CI names the release in
    EXPECT_RELEASE, and then these tests run whatever the artifact says.
    """
    try:
        name = read_metadata(SHIPPED_MODEL).name
    except (MetadataError, OSError):
        name = RELEASE
    if RELEASE in (name, os.environ.get("EXPECT_RELEASE")):
        return
    skip = pytest.mark.skip(reason=f"the served model is {name}, not {RELEASE}")
    for item in items:
        if item.get_closest_marker("release"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def tiny() -> Classifier:
    return Classifier(TINY_MODEL)


@pytest.fixture(scope="session")
def tiny_map() -> Classifier:
    """Like ``tiny``, with an activation map of 4x6 cells."""
    return Classifier(TINY_MAP_MODEL)


@pytest.fixture(scope="session")
def server() -> Iterator[ImageServer]:
    """Images at /red.png, /lime.png and so on, and some resources that are no image."""
    resources = {
        f"/{name}.png": Resource(encode_image(name), "image/png")
        for name in ("red", "lime", "blue", "black", "gray")
    }
    resources["/page.html"] = Resource(b"<!doctype html><p>no image", "text/html")
    resources["/cut.jpg"] = Resource(encode_image("red", (400, 400), "JPEG")[:900])
    resources["/broken"] = Resource(b"oh no", "text/plain", 500)
    resources["/slow.png"] = Resource(encode_image("red"), "image/png", delay_s=5)
    with ImageServer(resources) as running:
        yield running


@pytest.fixture
def api(tiny: Classifier, server: ImageServer) -> Api:
    """The handler with default settings, which trusts the loopback image server."""
    return make_api(tiny, server)


def make_api(tiny: Classifier, server: ImageServer, **changed: Any) -> Api:
    """Return the handler with some settings changed."""
    settings = Settings(trusted_image_hosts=frozenset({server.host}), **changed)
    return Api(Service(settings, tiny))


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set with three splits."""
    return write_dataset(tmp_path_factory.mktemp("drawings"))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backbone's weights: the ImageNet file where there is one, else random ones."""
    import keras

    from training.data.imagenet import DEFAULT_WEIGHTS

    if DEFAULT_WEIGHTS.is_file():
        return DEFAULT_WEIGHTS
    file = tmp_path_factory.mktemp("weights") / "random.weights.h5"
    keras.utils.set_random_seed(0)
    keras.applications.Xception(
        weights=None, include_top=False, input_shape=(71, 71, 3)
    ).save_weights(file)
    return file
