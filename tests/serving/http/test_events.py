"""Events of all formats, damaged ones, and arbitrary JSON: read or refused, never a crash."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lambda_function.batches.bulk import BatchError
from lambda_function.classifier import Classifier
from lambda_function.errors import BadRequestError
from lambda_function.http.events import (
    QueueEventError,
    decode_base64,
    is_gateway_event,
    read_request,
    read_route,
)
from lambda_function.service import Service
from lambda_function.settings import Settings
from tests.conftest import TINY_MODEL, Api, encode_image, http_event, recorded
from tests.support.requests import BOUNDARY, form

if TYPE_CHECKING:
    from tools.image_server import ImageServer


@pytest.mark.parametrize(
    ("stage", "raw_path", "path"),
    [
        ("$default", "/predict", "/predict"),
        ("prod", "/prod/predict", "/predict"),
        ("prod", "/prod", "/"),
        ("prod", "/prod/", "/"),
        ("prod", "/production/predict", "/production/predict"),
        ("predict", "/predict/predict", "/predict"),
        ("", "/predict", "/predict"),
    ],
)
def test_named_stage_is_taken_off_the_path(stage: str, raw_path: str, path: str) -> None:
    event = recorded("http_api_v2") | {"rawPath": raw_path}
    event["requestContext"]["stage"] = stage
    assert read_route(event) == ("POST", path)


def test_rest_api_s_path_is_taken_as_it_is() -> None:
    event = recorded("rest_api_v1") | {"path": "/prod/predict"}  # its `path` has no stage
    assert read_route(event) == ("POST", "/prod/predict")


@pytest.mark.parametrize(
    ("event", "is_http"),
    [
        ({"url": "https://x"}, False),
        ({"version": "2.0"}, False),
        ({}, False),
        (None, False),
        (["rawPath"], False),
        ({"httpMethod": "GET"}, True),
        ({"requestContext": None}, True),
    ],
)
def test_http_events_are_told_from_direct_invokes(event: Any, is_http: bool) -> None:
    assert is_gateway_event(event) is is_http


def test_event_without_a_method_is_refused(api: Api) -> None:
    response = api.invoke({"rawPath": "/predict"})
    assert response["statusCode"] == 400
    assert "no HTTP method" in json.loads(response["body"])["detail"]


def test_header_names_are_case_blind_and_values_kept() -> None:
    event = recorded("rest_api_v1_image")
    event["headers"]["X-Custom"] = "A b"
    request = read_request(event, read_route(event))
    assert request.headers["x-custom"] == "A b"
    assert request.content_type == "image/png"
    assert request.body == base64.b64decode(event["body"])


def test_too_many_query_fields_are_refused() -> None:
    event = recorded("http_api_v2_get") | {"rawQueryString": "a=1&" * 200}
    with pytest.raises(BadRequestError, match=r"more than 100 fields\. Received: 201"):
        read_request(event, read_route(event))


@pytest.mark.parametrize("text", ["AAEC/w==", "AAEC/w", "AAEC\r\n/w==", " AAEC/w== "])
def test_base64_with_line_breaks_or_without_padding_is_read(text: str) -> None:
    assert decode_base64(text) == b"\x00\x01\x02\xff"


@pytest.mark.parametrize("text", ["AAEC_w==", "A", "A===", "AA==AA==", "AAEC!w==", "é", "\ud800"])
def test_what_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not base64"):
        decode_base64(text)


def test_base64_image_without_its_flag_is_still_read(api: Api) -> None:
    event = recorded("http_api_v2_image") | {"isBase64Encoded": False}
    assert api.invoke(event)["statusCode"] == 200
    del event["isBase64Encoded"]
    assert api.invoke(event)["statusCode"] == 200


def test_base64_form_without_its_flag_is_still_read(api: Api) -> None:
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    event = http_event(
        "POST", "/predict", body=form(("image", encode_image("red"))), content_type=kind
    )
    assert api.invoke(event | {"isBase64Encoded": False})["statusCode"] == 200


def test_json_marked_as_base64_is_still_read(api: Api, server: ImageServer) -> None:
    event = http_event("POST", "/predict", body=b"{}", content_type="application/json")
    event |= {"body": json.dumps({"url": server.url("/red.png")}), "isBase64Encoded": True}
    assert api.invoke(event)["statusCode"] == 200


def test_binary_passed_on_as_text_is_explained(api: Api) -> None:
    event = recorded("rest_api_v1_image")
    event |= {"body": encode_image("red").decode("utf-8", "replace"), "isBase64Encoded": False}
    response = api.invoke(event)
    assert response["statusCode"] == 400
    assert "binaryMediaTypes" in json.loads(response["body"])["detail"]


def test_form_passed_on_as_text_is_explained(api: Api) -> None:
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    event = http_event("POST", "/predict", body=b"", content_type=kind)
    text = form(("image", encode_image("red"))).decode("utf-8", "replace")
    response = api.invoke(event | {"body": text, "isBase64Encoded": False})
    assert response["statusCode"] == 400
    assert "binaryMediaTypes" in json.loads(response["body"])["detail"]


def test_wrong_base64_is_400(api: Api) -> None:
    event = recorded("http_api_v2_image") | {"body": "%%%"}
    response = api.invoke(event)
    assert response["statusCode"] == 400
    assert "marked as base64 but is not" in json.loads(response["body"])["detail"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
KEYS = st.sampled_from(
    [
        *("version", "rawPath", "rawQueryString", "headers", "requestContext", "http", "method"),
        *("path", "body", "httpMethod", "stage", "isBase64Encoded", "queryStringParameters"),
        *("content-type", "multiValueQueryStringParameters", "url", "urls", "image", "top_k"),
        *("Items", "Records", "BatchInput", "elb", "domainName", "multiValueHeaders", "user-agent"),
        "Via",
    ]
)
VALUES = st.sampled_from(
    [
        *("2.0", "/predict", "/", "POST", "GET", "{}", "image/png"),
        *("multipart/form-data; boundary=a", "multipart/form-data; boundary=a; x*=1; x*0=2"),
        "--a\r\nContent-Disposition: form-data; name=image; f*=1; f*0=2\r\n\r\n\r\n--a--",
        *('{"url": "https:/me:password@h/a.jpg"}', '{"url": "data:image/png;base64,AAAA"}'),
        '{"image": "data:' + ";a" * 200 + '"}',
        "https://\u0301\u0301.example/a.jpg%3FX-Amz-Signature%3D1",
        "serverless-image-classifier/0.2",
        "{" + '"a":[' * 2000,
        *("application/json", "--a\r\n\r\n\r\n--a--", "url=http%3A%2F%2F127.0.0.1", True, 1, None),
    ]
)
EVENTS = st.recursive(
    JSON | VALUES, lambda inner: st.dictionaries(KEYS, inner, max_size=8), max_leaves=20
)
HTTP_EVENTS = st.fixed_dictionaries(
    {
        "rawPath": st.just("/predict"),
        "requestContext": st.just({"http": {"method": "POST"}}),
        "headers": st.fixed_dictionaries({"content-type": VALUES | st.text()}),
        "body": VALUES | st.text() | JSON.map(lambda value: json.dumps(value)),
        "isBase64Encoded": st.booleans(),
    },
    optional={"rawQueryString": st.text(), "queryStringParameters": JSON},
)


FUZZ: dict[str, Any] = {"deadline": None, "derandomize": "FUZZ_EVENTS" not in os.environ}


@given(event=EVENTS | HTTP_EVENTS)
@settings(max_examples=int(os.environ.get("FUZZ_EVENTS", "100")), **FUZZ)
@example(event={"rawPath": "/predict", "requestContext": {"http": {"method": "POST"}}, "body": 1})
@example(event={"httpMethod": None, "path": 3})
@example(event={"url": "\ud800"})
@example(event={"\ud800": 1})
@example(event={"rawPath": "/\ud800", "requestContext": None})
def test_no_event_raises_or_becomes_a_500(event: Any) -> None:
    api = Api(FUZZED)
    try:
        body = api.invoke(event)
    except (BatchError, QueueEventError):  # for Step Functions and queues
        body = {"status": 400}
    json.dumps(body, allow_nan=False).encode()
    status = body.get("statusCode", body.get("status", 200))
    assert status < 500, (body, api.lines)
    assert len(api.lines) == 1


def _no_fetch(url: str, limits: Any, **_: Any) -> bytes:
    return encode_image("red")


FUZZED = Service(Settings(), Classifier(TINY_MODEL), fetch=_no_fetch)
