"""The API description and the docs page: written by hand, held to the code that serves."""

from __future__ import annotations

import base64
import html
import inspect
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from lambda_function import app, errors
from lambda_function.http import pages
from lambda_function.http.request_body import MAX_EXPLAINED, MAX_IMAGES
from lambda_function.service import Service
from lambda_function.settings import Settings
from tests.conftest import Api, encode_image, make_api
from tests.support.requests import post_form

if TYPE_CHECKING:
    from lambda_function.classifier import Classifier
    from tools.image_server import ImageServer

FOLDER = Path(pages.__file__).parent
DOCUMENT: dict[str, Any] = json.loads((FOLDER / "openapi.json").read_text())
PAGE = (FOLDER / "docs.html").read_text()
ERRORS = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, errors.ServiceError) and error is not errors.ServiceError
]


def check(schema: str, value: Any) -> None:
    """Check a value against one of the document's schemas."""
    root = {"$ref": f"#/components/schemas/{schema}", "components": DOCUMENT["components"]}
    Draft202012Validator(root).validate(value)


def test_document_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    validate(DOCUMENT)


def test_document_has_exactly_the_routes() -> None:
    described = {path: sorted(methods) for path, methods in DOCUMENT["paths"].items()}
    served = {path: sorted(m.lower() for m in methods) for path, methods in app.ROUTES.items()}
    assert described == served


def test_document_and_page_name_every_error_a_caller_may_see() -> None:
    properties = DOCUMENT["components"]["schemas"]["Problem"]["properties"]
    assert set(properties["code"]["enum"]) == {error.code for error in ERRORS}
    assert set(properties["status"]["enum"]) == {error.status for error in ERRORS}
    assert set(re.findall(r'<tr id="(\w+)">', PAGE)) == {error.code for error in ERRORS}
    for error in ERRORS:
        meaning = html.escape(error.__doc__ or "", quote=False)
        row = f"<td>{error.status}</td><td><code>{error.code}</code></td><td>{meaning}</td>"
        assert row in PAGE


@pytest.mark.parametrize("status", [400, 413, 415, 422, 500, 502, 504])
def test_each_documented_problem_lists_its_errors(status: int) -> None:
    response = DOCUMENT["components"]["responses"][f"Problem{status}"]
    listed = set(re.findall(r"(?:^|; )(.+?) \(`(\w+)`\)", response["description"]))
    assert listed == {(error.title, error.code) for error in ERRORS if error.status == status}
    assert list(response["content"]) == ["application/problem+json"]


def test_page_lists_each_route_with_the_summary_of_the_document() -> None:
    listed = dict(re.findall(r"<tr><td><code>(\w+ /\S*)</code></td><td>(.+?)\.</td>", PAGE))
    assert listed == {
        f"{method.upper()} {path}": operation["summary"]
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    }


def test_document_names_the_most_images_of_one_request() -> None:
    assert f"up to {MAX_IMAGES} " in DOCUMENT["paths"]["/predict"]["post"]["summary"]
    schemas = dict(DOCUMENT["components"]["schemas"])
    del schemas["Explanation"]  # a box has four numbers
    limits = set(re.findall(r'"maxItems": (\d+)', json.dumps(schemas)))
    assert limits == {str(MAX_IMAGES), str(MAX_EXPLAINED)}
    texts = re.findall(r"At most (\d+) images of one request", json.dumps(DOCUMENT))
    assert set(texts) == {str(MAX_EXPLAINED)}


def test_predictions_fit_their_schema(api: Api, tiny: Classifier, server: ImageServer) -> None:
    good, bad = server.url("/red.png"), server.url("/missing")
    check("Prediction", api.get("/predict", url=good).json)
    check("PredictionOrBatch", api.post_json({"url": good, "top_k": 2}).json)
    check("Batch", api.post_json({"urls": [good, bad]}).json)
    check("Prediction", api.invoke({"url": good}))
    check("Health", api.get("/health").json)
    check("Model", api.get("/model").json)
    unsure = make_api(tiny, server, min_score=1.0)
    check("Prediction", unsure.post_json({"url": server.url("/gray.png")}).json)


@pytest.mark.parametrize("label", ["red", "green"])  # all cells of green are 0
def test_explanations_fit_their_schema(tiny_map: Classifier, label: str) -> None:
    api = Api(Service(Settings(), tiny_map))
    image = ("image", encode_image("red"))

    one = post_form(api, image, ("explain", label.encode())).json
    two = post_form(api, image, image, ("explain", label.encode())).json

    assert (one["explanation"]["box"] is None) == (label == "green")
    check("Prediction", one)
    check("Batch", two)
    check("Model", api.get("/model").json)


def test_problems_fit_their_schema_and_the_operation_lists_their_status(
    api: Api, server: ImageServer
) -> None:
    replies = [
        api.post_json({"url": 3}),
        api.post_json({"url": "http://127.0.0.1/"}),
        api.post_json({"url": server.url("/missing")}),
        api.post_json({"url": server.url("/cut.jpg")}),
        api.send("POST", "/predict", body=b"text", content_type="image/png"),
    ]
    listed = DOCUMENT["paths"]["/predict"]["post"]["responses"]
    for reply in replies:
        check("Problem", reply.json)
        assert str(reply.status) in listed


@pytest.mark.parametrize(
    ("request_body", "fits"),
    [
        ({"url": "https://example.com/a.jpg"}, True),
        ({"urls": ["https://example.com/a.jpg"], "top_k": 1}, True),
        ({"image": base64.b64encode(encode_image("red")).decode()}, True),
        ({"url": "https://example.com/a.jpg", "explain": True}, True),
        ({"url": "https://example.com/a.jpg", "explain": "red"}, True),
        ({"url": "https://example.com/a.jpg", "explain": 1}, False),
        ({"urls": ["https://example.com/a.jpg"] * 4, "explain": "red"}, True),
        ({"urls": ["https://example.com/a.jpg"] * 5, "explain": "red"}, False),
        ({"urls": ["https://example.com/a.jpg"] * 5, "explain": True}, False),
        ({"urls": ["https://example.com/a.jpg"] * 5, "explain": False}, True),
        ({"url": "https://example.com/a.jpg", "image": "AA=="}, False),
        ({"urls": []}, False),
        ({"urls": ["https://example.com/a.jpg"] * 33}, False),
        ({"link": "https://example.com/a.jpg"}, False),
        ({"url": "https://example.com/a.jpg", "top_k": 0}, False),
        ({}, False),
    ],
)
def test_schema_and_handler_agree_on_requests(
    tiny_map: Classifier, request_body: dict[str, Any], fits: bool
) -> None:
    api = Api(Service(Settings(), tiny_map, fetch=lambda *_, **__: encode_image("red")))
    schema = {"$ref": "#/components/schemas/PredictRequest", "components": DOCUMENT["components"]}
    assert Draft202012Validator(schema).is_valid(request_body) is fits
    assert (api.post_json(request_body).status == 200) is fits


def test_response_on_the_page_fits_the_schema() -> None:
    response = next(
        text for text in re.findall(r"<pre>(.*?)</pre>", PAGE, re.DOTALL) if text[0] == "{"
    )
    check("Prediction", json.loads(html.unescape(response)))
