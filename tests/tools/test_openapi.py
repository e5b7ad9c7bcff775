"""The OpenAPI document: valid, equal to the committed file, true of routes and real answers."""

from __future__ import annotations

import base64
import html
import json
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from lambda_function import app
from lambda_function.errors import ServiceError
from tests.conftest import Api, encode_image, make_api
from tools import openapi

if TYPE_CHECKING:
    from lambda_function.classifier import Classifier
    from tools.image_server import ImageServer

DOCUMENT: dict[str, Any] = json.loads(openapi.JSON_FILE.read_text())


def check(schema: str, value: Any) -> None:
    """Check a value against one of the document's schemas."""
    root = {"$ref": f"#/components/schemas/{schema}", "components": DOCUMENT["components"]}
    Draft202012Validator(root).validate(value)


def test_document_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    validate(DOCUMENT)


def test_committed_files_are_what_the_tool_writes() -> None:
    document = openapi.build_document()
    assert openapi.JSON_FILE.read_text() == openapi.render_json(document), (
        "run: python -m tools.openapi"
    )
    assert openapi.HTML_FILE.read_text() == openapi.build_page(document), (
        "run: python -m tools.openapi"
    )


def test_document_has_exactly_the_routes() -> None:
    described = {path: sorted(methods) for path, methods in DOCUMENT["paths"].items()}
    served = {path: sorted(m.lower() for m in methods) for path, methods in app.ROUTES.items()}
    assert described == served


def test_a_route_that_is_not_described_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(app.ROUTES, "/new", {"GET": app.health})
    with pytest.raises(ValueError, match="/new"):
        openapi.build_document()


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
        ({"url": "https://example.com/a.jpg", "image": "AA=="}, False),
        ({"urls": []}, False),
        ({"urls": ["https://example.com/a.jpg"] * 33}, False),
        ({"link": "https://example.com/a.jpg"}, False),
        ({"url": "https://example.com/a.jpg", "top_k": 0}, False),
        ({}, False),
    ],
)
def test_schema_and_handler_agree_on_requests(
    tiny: Classifier, request_body: dict[str, Any], fits: bool
) -> None:
    from lambda_function.service import Service
    from lambda_function.settings import Settings

    api = Api(Service(Settings(), tiny, fetch=lambda *_, **__: encode_image("red")))
    schema = {"$ref": "#/components/schemas/PredictRequest", "components": DOCUMENT["components"]}
    assert Draft202012Validator(schema).is_valid(request_body) is fits
    assert (api.post_json(request_body).status == 200) is fits


def test_every_error_has_its_place_on_the_docs_page() -> None:
    page = openapi.HTML_FILE.read_text()
    family = openapi.service_errors()
    assert len(family) >= 10
    for error in family:
        assert issubclass(error, ServiceError)
        assert f'id="{error.code}"' in page


def test_the_answer_on_the_docs_page_is_one_that_the_schema_allows() -> None:
    check("Prediction", json.loads(openapi.EXAMPLE_ANSWER))
    assert html.escape(openapi.EXAMPLE_ANSWER, quote=False) in openapi.HTML_FILE.read_text()


def test_docs_page_takes_nothing_from_elsewhere() -> None:
    page = openapi.HTML_FILE.read_text()
    assert "src=" not in page
    assert "@import" not in page
    assert '<link rel="icon" href="data:,">' in page
    assert page.count("<link") == 1
