"""What a request may ask: JSON, forms and queries, and the sentence for each mistake."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from tests.conftest import FORMATS, Api
from tests.support.requests import check_problem, post_form


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "Give exactly one of url, urls and image"),
        ({"link": "https://x"}, "Unknown key 'link'"),
        ({"url": "https://x", "topk": 1}, "Unknown key 'topk'"),
        ({"url": "https://x", "image": "AAAA"}, "Received: url and image"),
        ({"url": None}, "url must be an image's address. Received: None"),
        ({"url": ["https://x"]}, "url must be an image's address"),
        ({"url": ""}, "url must be an image's address"),
        ({"url": {"a": 1}}, "url must be an image's address"),
        ({"urls": "https://x"}, "urls must be a list of 1 to 32"),
        ({"urls": []}, "urls must be a list of 1 to 32. Received: 0 of them"),
        ({"urls": ["https://x"] * 33}, "Received: 33 of them"),
        ({"urls": ["https://x", 3]}, "urls[1] must be an image's address. Received: 3"),
        ({"image": 5}, "image must be the image's bytes in base64. Received: 5"),
        ({"image": "not base64!"}, "image must be the image's bytes in base64"),
        ({"image": "é"}, "image must be the image's bytes in base64"),
        ({"image": ""}, "The image is empty"),
        ([1], "must be a JSON object"),
        ("url", "must be a JSON object"),
        (None, "must be a JSON object"),
    ],
)
def test_malformed_json_request_is_400_and_says_what(api: Api, content: Any, said: str) -> None:
    assert said in check_problem(api.post_json(content), 400, "bad_request")


@pytest.mark.parametrize("kind", ["digits", "brackets"])
def test_a_value_too_large_to_be_shown_is_400_too(api: Api, kind: str) -> None:
    """Python turns no more than 4,300 digits into text, and brackets until the stack ends."""
    brackets = functools.reduce(lambda inner, _: [inner], range(100_000), [])
    body = api.invoke({"url": "https://x", "top_k": 10**5000 if kind == "digits" else brackets})
    assert (body["status"], body["code"]) == (400, "bad_request")
    assert body["detail"].startswith("top_k must be an integer, 1 to 4. Received: ")
    assert len(body["detail"]) < 150


@pytest.mark.parametrize("body", [b"{", b"{'url': 1}", b"[" * 100_000, b'{"url": 1' + b"1" * 9999])
def test_what_is_not_json_is_400(api: Api, body: bytes) -> None:
    reply = api.send("POST", "/predict", body=body, content_type="application/json")
    assert "not valid JSON" in check_problem(reply, 400, "bad_request")


@pytest.mark.parametrize("kind", [None, "application/json", "image/png", "multipart/form-data"])
@pytest.mark.parametrize("body", [None, b""])
def test_missing_body_is_400(api: Api, kind: str | None, body: bytes | None) -> None:
    reply = api.send("POST", "/predict", body=body, content_type=kind)
    assert "has no body" in check_problem(reply, 400, "bad_request")


def test_missing_url_in_the_query_is_400(api: Api) -> None:
    assert "/predict?url=" in check_problem(api.get("/predict"), 400, "bad_request")


def test_a_post_with_its_address_in_the_query_is_told_where_it_belongs(api: Api) -> None:
    reply = api.send("POST", "/predict", query="url=https://a.example", body=b"{}")
    assert "names the image in its body" in check_problem(reply, 400, "bad_request")


@pytest.mark.parametrize("body", [b"url=https://a.example/a.jpg", b"top_k=3"])
def test_a_form_in_the_body_is_told_to_be_json(api: Api, body: bytes) -> None:
    kind = "application/x-www-form-urlencoded"
    reply = api.send("POST", "/predict", body=body, content_type=kind)
    assert "as JSON" in check_problem(reply, 400, "bad_request")


@pytest.mark.parametrize("name", [b"file", b"urls"])
def test_an_unknown_form_field_is_named_with_the_known_ones(api: Api, name: bytes) -> None:
    head = b'--B\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\n'
    kind = "multipart/form-data; boundary=B"
    reply = api.send("POST", "/predict", body=head + b"\xff\xd8\r\n--B--", content_type=kind)
    detail = check_problem(reply, 400, "bad_request")
    assert detail == f"Unknown form field {name.decode()!r}. Known: image, url, top_k."


def test_address_that_was_not_percent_encoded_is_explained(api: Api) -> None:
    reply = api.send("GET", "/predict", query="url=https://example.com/a?x=1&y=2")
    detail = check_problem(reply, 400, "bad_request")
    assert "Unknown query parameter 'y'" in detail
    assert "percent-encoded" in detail


@pytest.mark.parametrize("event_format", FORMATS)
def test_doubled_query_parameter_is_400(api: Api, event_format: str) -> None:
    query = "url=https://a.example&url=https://b.example"
    reply = api.send("GET", "/predict", query=query, event_format=event_format)
    assert "'url' is given twice" in check_problem(reply, 400, "bad_request")


def test_top_k_in_body_and_query_is_400(api: Api) -> None:
    reply = api.post_json({"url": "https://x", "top_k": 1}, query="top_k=2")
    assert "given twice" in check_problem(reply, 400, "bad_request")


def test_other_content_types_are_415(api: Api) -> None:
    reply = api.send("POST", "/predict", body=b"<p>", content_type="text/html")
    assert "'text/html' is not read here" in check_problem(reply, 415, "unsupported_image")


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("multipart/form-data", b"x", "no usable boundary"),
        ("multipart/form-data; boundary=", b"x", "no usable boundary"),
        ("multipart/form-data; boundary=é", b"x", "no usable boundary"),
        (f"multipart/form-data; {'a;' * 2048} boundary=B", b"--B--", "no usable boundary"),
        ("multipart/form-data; boundary=B", b"x", "cut short"),
        ("multipart/form-data; boundary=B", b"--B\r\n\r\nx", "cut short"),
        ("multipart/form-data; boundary=B", b"--B\r\n\r\nx\r\n--B--", "no name"),
        ("multipart/form-data; boundary=B", b"--Bx\r\nA: b\r\n\r\nx\r\n--B--", "no proper header"),
        ("multipart/form-data; boundary=B", b"--B\r\nA: b\r\n--B--", "no proper header"),
        ("multipart/form-data; boundary=B", b"\r\n--B" * 99, "too many parts"),
        ("multipart/form-data; boundary=B", b"--B--", "Give exactly one"),
    ],
)
def test_broken_form_is_400(api: Api, kind: str, body: bytes, said: str) -> None:
    reply = api.send("POST", "/predict", body=body, content_type=kind)
    assert said in check_problem(reply, 400, "bad_request")


def test_doubled_and_binary_form_fields_are_400(api: Api) -> None:
    twice = post_form(api, ("image", b"x"), ("image", b"y"))
    assert "'image' is given twice" in check_problem(twice, 400, "bad_request")
    binary = post_form(api, ("image", b"x"), ("top_k", b"\xff"))
    assert "'top_k' is not text" in check_problem(binary, 400, "bad_request")
