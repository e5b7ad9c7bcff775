"""What a request may ask: JSON, forms and queries, and the sentence for each mistake."""

from __future__ import annotations

import dataclasses
import functools
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lambda_function.classifier import Classifier
from lambda_function.errors import BadRequestError
from lambda_function.http.request_body import read_fields
from lambda_function.service import Service
from lambda_function.settings import Settings
from tests.conftest import FORMATS, Api, encode_image, http_event
from tests.support.requests import BOUNDARY, check_problem, form, post_form


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "Give exactly one of url, urls and image"),
        ({"link": "https://x"}, "Unknown key 'link'"),
        ({"url": "https://x", "topk": 1}, "Unknown key 'topk'"),
        ({"url": "https://x", "image": "AAAA"}, "Received: url and image"),
        ({"url": None}, "url must be an image's address. Received: null"),
        ({"url": True}, "url must be an image's address. Received: true"),
        ({"url": ["https://x"]}, "url must be an image's address"),
        ({"url": ""}, "url must be an image's address"),
        ({"url": {"a": 1}}, "url must be an image's address"),
        ({"urls": "https://x"}, "urls must be a list of 1 to 32 addresses"),
        ({"urls": []}, "urls must be a list of 1 to 32 addresses. Received: 0 of them"),
        ({"urls": ["https://x"] * 33}, "Received: 33 of them"),
        ({"urls": ["https://x", 3]}, "urls[1] must be an image's address. Received: 3"),
        ({"image": 5}, "image must be the image's bytes in base64. Received: 5"),
        ({"image": "not base64!"}, "image must be the image's bytes in base64"),
        ({"image": "é"}, "image must be the image's bytes in base64"),
        ({"image": ""}, "The image is empty"),
        ({"image": "data:image/png;base64,"}, "The image is empty"),
        ({"image": "data:image/png,AAAA"}, "image must be the image's bytes in base64"),
        ({"image": "data:" + ";a=b" * 50 + ";base64,AAAA"}, "image must be the image's bytes"),
        ({"url": "data:image/png;base64,AAAA"}, 'Send its base64 part as "image"'),
        ({"url": "https://a.example/" + "x" * 8192}, "longer than 8,192 characters"),
        ([1], 'must be a JSON object. Example: {"url": "https://example.com/image.jpg"}. Rec'),
        ([1], "Received: [1]."),
        ("url", "Received: 'url'."),
        (None, "Received: null."),
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


@pytest.mark.parametrize(
    ("body", "key"),
    [(b'{"url": "https://x", "url": "https://y"}', "url"), (b'{"url": {"a": 1, "a": 1}}', "a")],
)
def test_a_json_key_that_is_given_twice_is_400(api: Api, body: bytes, key: str) -> None:
    reply = api.send("POST", "/predict", body=body, content_type="application/json")
    assert f"The JSON key '{key}' is given twice." in check_problem(reply, 400, "bad_request")


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
    assert detail == f"Unknown form field {name.decode()!r}. Known: image, url, top_k, explain."


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
        ("multipart/form-data; boundary=B; x*=1; x*0=2", b"x", "cut short"),
        ("multipart/form-data; boundary*=utf-8''B", b"x", "no usable boundary"),
        ("multipart/form-data; boundary=" + "B" * 71, b"x", "no usable boundary"),
        ("multipart/form-data; boundary=B", b"\r\n--B" * 99, "too many parts"),
        ("multipart/form-data; boundary=B", b"--B--", "Give exactly one"),
    ],
)
def test_broken_form_is_400(api: Api, kind: str, body: bytes, said: str) -> None:
    reply = api.send("POST", "/predict", body=body, content_type=kind)
    assert said in check_problem(reply, 400, "bad_request")


def test_doubled_binary_and_long_form_fields_are_400(api: Api) -> None:
    twice = post_form(api, ("image", b"x"), ("top_k", b"1"), ("top_k", b"2"))
    assert "'top_k' is given twice" in check_problem(twice, 400, "bad_request")
    binary = post_form(api, ("image", b"x"), ("top_k", b"\xff"))
    assert "'top_k' is not text" in check_problem(binary, 400, "bad_request")
    long = post_form(api, ("image", b"x"), ("top_k", b"1" * 40_000))
    assert "'top_k' is longer than 32,768 bytes" in check_problem(long, 400, "bad_request")


def test_several_images_of_a_form_are_a_batch_in_order(api: Api) -> None:
    parts = [encode_image("red"), b"no image", encode_image("blue")]
    reply = post_form(api, *(("image", part) for part in parts), ("top_k", b"1"))
    red, broken, blue = reply.json["results"]
    assert [item["label"] for item in red["predictions"] + blue["predictions"]] == ["red", "blue"]
    assert broken["error"]["code"] == "unsupported_image"
    assert (api.lines[-1]["items"], api.lines[-1]["items_done"]) == (3, 2)


@pytest.mark.parametrize(("count", "status"), [(32, 200), (33, 400)])
def test_a_form_holds_up_to_32_images(api: Api, count: int, status: int) -> None:
    reply = post_form(api, *[("image", encode_image("red"))] * count)
    assert reply.status == status
    if status == 200:
        assert len(reply.json["results"]) == 32
    else:
        assert "up to 32 images. Received: 33" in reply.json["detail"]


@pytest.mark.parametrize("name", ["image", "another"])
def test_a_file_input_without_a_file_is_ignored(api: Api, name: str) -> None:
    unchosen = f'--B\r\nContent-Disposition: form-data; name="{name}"; filename=""\r\n'
    chosen = '--B\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    body = b"".join(
        [
            f"{unchosen}Content-Type: application/octet-stream\r\n\r\n\r\n".encode(),
            chosen.encode() + encode_image("lime") + b"\r\n--B--\r\n",
        ]
    )
    reply = api.send("POST", "/predict", body=body, content_type="multipart/form-data; boundary=B")
    assert reply.json["predictions"][0]["label"] == "green"


def test_an_empty_file_is_named(api: Api) -> None:
    check_problem(post_form(api, ("image", b"")), 400, "bad_request")
    _, empty = post_form(api, ("image", encode_image("red")), ("image", b"")).json["results"]
    assert "0 bytes" in empty["error"]["detail"]


@pytest.mark.parametrize(
    "disposition",
    [
        'form-data; name="image"; filename="a.png"; filename*=utf-8\'\'b.png',
        "form-data; name=image; filename*=utf-8''b.png; filename*0=a",
        "form-data; x*=1; x*0=2; name=image",
        'form-data; filename="a; name=url; \\" .png"; NAME="image"',
        'form-data;\r\n name="image"',
        'form-data; name="image"; filename="unclosed',
    ],
)
def test_odd_header_parameters_of_a_part_are_read(api: Api, disposition: str) -> None:
    head = f"--B\r\nX-Other: 1\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
    kind = "multipart/form-data; x*=1; x*0=2; boundary=B"
    body = head + encode_image("red") + b"\r\n--B--"
    reply = api.send("POST", "/predict", body=body, content_type=kind)
    assert reply.json["predictions"][0]["label"] == "red"


PIECES = st.sampled_from(
    [*"*0=;\"'\\%,() \t\r\n", "utf-8''", "name", "boundary", "filename", "B", "image", "é", "\0"]
)
PARAMETERS = st.lists(PIECES | st.text(max_size=3), max_size=24).map("".join)


@given(of_request=PARAMETERS, of_part=PARAMETERS)
@settings(max_examples=300, deadline=None, derandomize=True)
@example(of_request="; x*=1; x*0=2", of_part="")
@example(of_request="", of_part="; filename*=a; filename*0=b")
@example(of_request="", of_part="; name*=a; name*0*=b")
def test_no_header_parameter_becomes_a_500(tiny: Classifier, of_request: str, of_part: str) -> None:
    part = f"--B\r\nContent-Disposition: form-data; name=image{of_part}\r\n\r\n".encode()
    body = part + b"no image\r\n--B--"  # headers are read before it is decoded
    for kind in ("multipart/form-data; boundary=B", "multipart/form-data", ""):
        api = Api(Service(Settings(), tiny))
        reply = api.send("POST", "/predict", body=body, content_type=kind + of_request)
        assert reply.status < 500, api.lines


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"url": ' + b"[]," * 2_000_000 + b"[]}", "application/json"),
        (b'{"urls": [' + b"{}," * 2_000_000 + b"{}]}", "application/json"),
        (b'{"url": "' + b"x" * 5_000_000 + b'"}', "application/json"),
        (b'{"url": "https://' + "\u0301".encode() * 100_000 + b'/"}', "application/json"),
        (b'{"image": "data:' + b";a" * 2_000_000 + b'"}', "application/json"),
        (b'{"image": "' + b"A " * 2_500_000 + b'"}', "application/json"),
        (form(("url", b"x" * 4_000_000)), f"multipart/form-data; boundary={BOUNDARY}"),
        (b"x", "multipart/form-data; boundary=" + ";" * 4_000_000),
    ],
    ids=["lists", "objects", "url", "marks", "data", "blanks", "form", "boundary"],
)
def test_a_long_request_is_refused_within_bounded_memory(api: Api, body: bytes, kind: str) -> None:
    event = http_event("POST", "/predict", body=body, content_type=kind)
    tracemalloc.start()
    response = api.invoke(event)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert response["statusCode"] in (400, 415)
    assert peak_bytes < 4 * len(json.dumps(event)) + 1_000_000


def test_scores_that_do_not_fit_into_a_response_are_refused(tiny: Classifier) -> None:
    """Lambda sends 6 MB. 32 images of a model with 5,000 classes would have 10 MB."""
    labels = tuple(f"a species of animal {number}" for number in range(5000))
    metadata = dataclasses.replace(tiny.metadata, labels=labels)
    urls = {"urls": ["https://x"] * 32}
    assert read_fields(urls | {"top_k": 1562}, metadata).top_k == 1562
    with pytest.raises(BadRequestError, match="Give top_k, at most 1,562 here, or send fewer"):
        read_fields(urls, metadata)
    assert read_fields({"url": "https://x"}, metadata).top_k == 5000


@pytest.mark.parametrize("query", ["url=" + "%C3%A9" * 20_000, "x" * 6_000_000])
def test_a_long_query_is_refused_before_it_is_parsed(api: Api, query: str) -> None:
    reply = api.send("GET", "/predict", query=query)
    assert "longer than 100,000 characters" in check_problem(reply, 400, "bad_request")
