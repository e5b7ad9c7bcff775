"""The handler: routes, ways in, errors. With a real model, a real fetch and a real server."""

from __future__ import annotations

import ast
import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lambda_function import app, pages
from lambda_function.classifier import Classifier
from lambda_function.predictor import Predictor
from lambda_function.settings import Settings
from tests.conftest import (
    FORMATS,
    TINY_MODEL,
    Api,
    Context,
    http_event,
    make_api,
    picture,
    recorded,
)

if TYPE_CHECKING:
    from tests.support_server import PictureServer

LABELS = {"red", "green", "blue", "dark"}
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


# --- a prediction -------------------------------------------------------------


def test_prediction_has_the_shape_that_design_promises(api: Api, server: PictureServer) -> None:
    reply = api.post_json({"url": server.url("/red.png")})
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    body = reply.json
    assert set(body) == {"predictions", "model", "timings_ms", "request_id"}
    assert body["model"] == {"name": "tiny", "version": "1.2.3"}
    assert body["request_id"] == Context().aws_request_id
    assert set(body["timings_ms"]) == {"fetch", "decode", "preprocess", "inference", "total"}
    *steps, total = body["timings_ms"].values()
    assert all(ms >= 0 for ms in steps)
    assert total >= sum(steps) - 0.5  # each is rounded to a tenth


def test_scores_are_probabilities_sorted_and_summing_to_one(api: Api, server: Any) -> None:
    predictions = api.post_json({"url": server.url("/gray.png")}).json["predictions"]
    scores = [item["score"] for item in predictions]
    assert {item["label"] for item in predictions} == LABELS
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-6)
    assert all(isinstance(score, float) and 0 <= score <= 1 for score in scores)


@pytest.mark.parametrize(
    ("colour", "label"), [("red", "red"), ("lime", "green"), ("blue", "blue"), ("black", "dark")]
)
def test_each_colour_gets_its_label(api: Api, server: Any, colour: str, label: str) -> None:
    predictions = api.get("/predict", url=server.url(f"/{colour}.png")).json["predictions"]
    assert predictions[0]["label"] == label


@pytest.mark.parametrize("event_format", FORMATS)
@pytest.mark.parametrize("way", ["json", "base64", "data-url", "raw", "form", "query", "curl -d"])
def test_every_way_in_works_in_every_event_format(
    api: Api, server: PictureServer, event_format: str, way: str
) -> None:
    url, data = server.url("/lime.png?a=1,2&b=%26"), picture("lime")
    base64_text = base64.b64encode(data).decode()
    kinds: dict[str, Any] = {
        "json": ("application/json; charset=utf-8", json.dumps({"url": url}).encode()),
        "base64": ("application/json", json.dumps({"image": base64_text}).encode()),
        "data-url": (
            "application/json",
            json.dumps({"image": f"data:image/png;base64,{base64_text}"}).encode(),
        ),
        "raw": ("image/png", data),
        "form": (f'multipart/form-data; boundary="{BOUNDARY}"', form(("image", data))),
        "curl -d": ("application/x-www-form-urlencoded", json.dumps({"url": url}).encode()),
    }
    if way == "query":
        query = urlencode({"url": url, "top_k": "1"})
        reply = api.send("GET", "/predict", query=query, event_format=event_format)
    else:
        kind, body = kinds[way]
        reply = api.send(
            "POST",
            "/predict",
            query="top_k=1",
            body=body,
            content_type=kind,
            event_format=event_format,
        )
    assert reply.status == 200, reply.text
    assert [item["label"] for item in reply.json["predictions"]] == ["green"]


@pytest.mark.parametrize("name", ["http_api_v2_image", "rest_api_v1_image"])
def test_a_recorded_image_upload_is_classified(api: Api, name: str) -> None:
    response = api.invoke(recorded(name))
    assert response["statusCode"] == 200
    assert json.loads(response["body"])["predictions"][0]["label"] == "red"


@pytest.mark.parametrize(
    "name", ["http_api_v2", "http_api_v2_jwt", "rest_api_v1", "function_url", "http_api_v2_get"]
)
def test_a_recorded_event_s_url_reaches_the_fetch(tiny: Classifier, name: str) -> None:
    asked = []

    def fetch(url: str, limits: Any, *, deadline: float) -> bytes:
        asked.append(url)
        return picture("blue")

    api = Api(Predictor(Settings(), tiny, fetch=fetch))
    assert api.invoke(recorded(name))["statusCode"] == 200
    query = "?size=2,3&x=1" if name.endswith("_get") else ""
    assert asked == [f"https://images.example.com/pants.jpg{query}"]


def test_upload_fetches_nothing(tiny: Classifier) -> None:
    def fetch(*_: Any, **__: Any) -> bytes:
        raise AssertionError("fetched")

    api = Api(Predictor(Settings(), tiny, fetch=fetch))
    reply = post_form(api, ("image", picture("blue")), ("top_k", b"2"))
    assert next(item["label"] for item in reply.json["predictions"]) == "blue"
    assert len(reply.json["predictions"]) == 2
    assert reply.json["timings_ms"]["fetch"] == 0


def test_form_may_carry_an_address(api: Api, server: PictureServer) -> None:
    reply = post_form(api, ("url", server.url("/blue.png").encode()))
    assert reply.json["predictions"][0]["label"] == "blue"


def test_bytes_that_look_like_form_lines_survive(api: Api) -> None:
    data = picture("red") + b"\r\n--\r\n\r\n\n\r-- \x00\xff"  # after a PNG's end anything may stand
    assert post_form(api, ("image", data)).json["predictions"][0]["label"] == "red"
    assert api.lines[-1]["image_bytes"] == len(data)


# --- top_k and MIN_SCORE ----------------------------------------------------------


def test_top_k_shows_the_best_and_omitted_shows_all(api: Api, server: PictureServer) -> None:
    url = server.url("/gray.png")
    everything = api.post_json({"url": url}).json["predictions"]
    assert len(everything) == 4
    for top_k in (1, 4):
        shown = api.post_json({"url": url, "top_k": top_k}).json["predictions"]
        assert shown == everything[:top_k]


@pytest.mark.parametrize("top_k", [0, 5, 11, -1, "x", "1", 1.0, True, None, [1], 10**30])
def test_top_k_outside_the_classes_is_refused(api: Api, server: Any, top_k: Any) -> None:
    reply = api.post_json({"url": server.url("/red.png"), "top_k": top_k})
    detail = check_problem(reply, 400, "bad_request")
    assert detail.startswith("top_k must be an integer, 1 to 4. Received: ")


@pytest.mark.parametrize("top_k", ["0", "5", "x", "", "1.0", "٣", " 1"])
def test_top_k_of_a_query_is_checked_too(api: Api, server: Any, top_k: str) -> None:
    reply = api.get("/predict", url=server.url("/red.png"), top_k=top_k)
    assert "top_k must be" in check_problem(reply, 400, "bad_request")


def test_min_score_marks_only_what_is_below_it(tiny: Classifier, server: PictureServer) -> None:
    marking = make_api(tiny, server, min_score=0.9)
    sure, unsure = server.url("/red.png"), server.url("/gray.png")
    assert "uncertain" not in marking.post_json({"url": sure}).json
    assert marking.post_json({"url": unsure}).json["uncertain"] is True
    assert "uncertain" not in make_api(tiny, server).post_json({"url": unsure}).json
    results = marking.post_json({"urls": [sure, unsure]}).json["results"]
    assert [item.get("uncertain", False) for item in results] == [False, True]


# --- other routes ------------------------------------------------------------------


@pytest.mark.parametrize("event_format", FORMATS)
def test_health_runs_the_model(api: Api, event_format: str) -> None:
    reply = api.send("GET", "/health", event_format=event_format)
    assert reply.status == 200
    assert reply.json["status"] == "ok"
    assert reply.json["model"] == {"name": "tiny", "version": "1.2.3"}
    assert reply.json["timings_ms"]["inference"] >= 0


def test_health_is_500_when_the_model_answers_nonsense(tiny: Classifier) -> None:
    class Broken:
        metadata = tiny.metadata

        def predict(self, tensor: Any) -> Any:
            return tensor.sum(axis=(0, 1))[:, 0][:4] * float("nan")

    api = Api(Predictor(Settings(), Broken()))  # type: ignore[arg-type]
    check_problem(api.get("/health"), 500, "internal_error")


def test_model_shows_the_artifact_s_metadata(api: Api, tiny: Classifier) -> None:
    assert api.get("/model").json == tiny.metadata.to_dict()


def test_trailing_slash_is_the_same_route(api: Api) -> None:
    assert api.get("/model/").json == api.get("/model").json


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_are_html_and_allowed_to_run_their_own_parts_only(api: Api, path: str) -> None:
    reply = api.get(path)
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.text.startswith("<!doctype html>")
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "connect-src 'self'" in policy
    scripts = reply.text.count("<script")
    assert reply.text.count("<style") == 1
    assert policy.count("'sha256-") == 1 + scripts
    assert scripts == (1 if path == "/" else 0)


def test_policy_names_the_hash_that_the_standard_says() -> None:
    # CSP level 3's own example: the digest of `doSubmit()` in a script block
    policy = pages.content_security_policy("<script>alert('Hello, world.');</script>")
    assert "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='" in policy


def test_openapi_is_served_as_json(api: Api) -> None:
    assert api.get("/openapi.json").json["openapi"].startswith("3.1")


# --- unknown routes and methods --------------------------------------------------------


@pytest.mark.parametrize("event_format", FORMATS)
def test_unknown_route_is_404(api: Api, event_format: str) -> None:
    reply = api.send("GET", "/nope", event_format=event_format)
    assert "/nope" in check_problem(reply, 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/predict", "GET, HEAD, OPTIONS, POST"),
        ("PUT", "/predict", "GET, HEAD, OPTIONS, POST"),
        ("POST", "/health", "GET, HEAD, OPTIONS"),
        ("BREW", "/", "GET, HEAD, OPTIONS"),
    ],
)
@pytest.mark.parametrize("event_format", FORMATS)
def test_wrong_method_is_405_and_says_which(
    api: Api, method: str, path: str, allow: str, event_format: str
) -> None:
    reply = api.send(method, path, event_format=event_format)
    check_problem(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == allow


def test_options_answers_without_a_body(api: Api) -> None:
    reply = api.send("OPTIONS", "/predict")
    assert (reply.status, reply.text) == (204, "")
    assert reply.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert api.send("OPTIONS", "/nope").status == 404


@pytest.mark.parametrize("path", ["/", "/health", "/model", "/nope"])
def test_head_answers_as_get_without_the_body(api: Api, path: str) -> None:
    head, get = api.send("HEAD", path), api.send("GET", path)
    assert (head.status, head.headers) == (get.status, get.headers)
    assert head.text == ""


# --- bad requests -----------------------------------------------------------------------


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
        ({"image": 5}, "image must be the picture's bytes in base64. Received: 5"),
        ({"image": "not base64!"}, "image must be the picture's bytes in base64"),
        ({"image": "é"}, "image must be the picture's bytes in base64"),
        ({"image": ""}, "The image is empty"),
        ([1], "must be a JSON object"),
        ("url", "must be a JSON object"),
        (None, "must be a JSON object"),
    ],
)
def test_malformed_json_request_is_400_and_says_what(api: Api, content: Any, said: str) -> None:
    assert said in check_problem(api.post_json(content), 400, "bad_request")


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
    assert "Give exactly one" in check_problem(api.get("/predict"), 400, "bad_request")


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


# --- the gateway's base64 flag ------------------------------------------------------------


def test_base64_image_without_its_flag_is_still_read(api: Api) -> None:
    event = recorded("http_api_v2_image") | {"isBase64Encoded": False}
    assert api.invoke(event)["statusCode"] == 200
    del event["isBase64Encoded"]
    assert api.invoke(event)["statusCode"] == 200


def test_base64_form_without_its_flag_is_still_read(api: Api) -> None:
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    event = http_event("POST", "/predict", body=form(("image", picture("red"))), content_type=kind)
    assert api.invoke(event | {"isBase64Encoded": False})["statusCode"] == 200


def test_json_marked_as_base64_is_still_read(api: Api, server: PictureServer) -> None:
    event = http_event("POST", "/predict", body=b"{}", content_type="application/json")
    event |= {"body": json.dumps({"url": server.url("/red.png")}), "isBase64Encoded": True}
    assert api.invoke(event)["statusCode"] == 200


def test_binary_passed_on_as_text_is_explained(api: Api) -> None:
    event = recorded("rest_api_v1_image")
    event |= {"body": picture("red").decode("utf-8", "replace"), "isBase64Encoded": False}
    response = api.invoke(event)
    assert response["statusCode"] == 400
    assert "binaryMediaTypes" in json.loads(response["body"])["detail"]


def test_wrong_base64_is_400(api: Api) -> None:
    event = recorded("http_api_v2_image") | {"body": "%%%"}
    response = api.invoke(event)
    assert response["statusCode"] == 400
    assert "marked as base64 but is not" in json.loads(response["body"])["detail"]


# --- what is behind the address -----------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/missing.jpg", 502, "fetch_failed"),
        ("/broken", 502, "fetch_failed"),
        ("/cut.jpg", 422, "undecodable_image"),
    ],
)
def test_server_and_image_errors_keep_their_status(
    api: Api, server: PictureServer, path: str, status: int, code: str
) -> None:
    check_problem(api.post_json({"url": server.url(path)}), status, code)


def test_html_instead_of_an_image_is_refused(api: Api, server: PictureServer) -> None:
    assert api.post_json({"url": server.url("/page.html")}).status in (415, 502)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x.png", "http://169.254.169.254/latest"])
def test_private_address_is_refused(api: Api, url: str) -> None:
    assert api.post_json({"url": url}).status == 400


def test_slow_server_ends_with_the_function_s_time(api: Api, server: PictureServer) -> None:
    api.remaining_s = 1.5  # less the margin of 1 s
    reply = api.post_json({"url": server.url("/slow.png")})
    check_problem(reply, 504, "deadline_exceeded")
    assert api.lines[-1]["Latency"] < 1500


def test_upload_over_the_limit_is_413(tiny: Classifier, server: PictureServer) -> None:
    api = make_api(tiny, server, max_image_bytes=50)
    check_problem(post_form(api, ("image", picture("red"))), 413, "too_large")
    check_problem(api.post_json({"url": server.url("/red.png")}), 413, "too_large")


def test_more_pixels_than_allowed_is_413(tiny: Classifier, server: PictureServer) -> None:
    api = make_api(tiny, server, max_image_pixels=2399)  # the picture has 40x60
    check_problem(api.post_json({"url": server.url("/red.png")}), 413, "too_large")


# --- s3 ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("api_auth", "over_http", "allowed"),
    [
        ("none", True, False),
        ("iam", True, True),
        ("jwt", True, True),
        ("none", False, True),
        ("iam", False, True),
    ],
)
def test_s3_is_for_direct_invokes_and_authorised_apis(
    tiny: Classifier, api_auth: str, over_http: bool, allowed: bool
) -> None:
    asked = []

    def read_object(uri: str, **options: Any) -> bytes:
        asked.append((uri, options["buckets"], options["max_bytes"], options["deadline"] > 0))
        return picture("red")

    chosen = Settings(api_auth=api_auth, image_buckets=frozenset({"pics"}))
    api = Api(Predictor(chosen, tiny, read_object=read_object))
    body = {"url": "s3://pics/a.png"}
    answer = api.post_json(body).json if over_http else api.invoke(body)
    if allowed:
        assert answer["predictions"][0]["label"] == "red"
        assert asked == [("s3://pics/a.png", {"pics"}, 20 * 1024**2, True)]
    else:
        assert answer["status"] == 400
        assert "s3://" in answer["detail"]
        assert asked == []


# --- direct invokes -----------------------------------------------------------------------


def test_direct_invoke_gets_the_body_without_an_envelope(api: Api, server: Any) -> None:
    answer = api.invoke({"url": server.url("/red.png"), "top_k": 1})
    assert set(answer) == {"predictions", "model", "timings_ms", "request_id"}
    assert [item["label"] for item in answer["predictions"]] == ["red"]
    data = base64.b64encode(picture("blue")).decode()
    assert api.invoke({"image": data})["predictions"][0]["label"] == "blue"


@pytest.mark.parametrize("event", [{}, [], None, "url", 3, {"Records": []}, {"url": 3}])
def test_direct_invoke_that_asks_for_nothing_gets_a_problem(api: Api, event: Any) -> None:
    answer = api.invoke(event)
    assert set(answer) == PROBLEM_KEYS
    assert (answer["status"], answer["code"]) == (400, "bad_request")


# --- ours -----------------------------------------------------------------------------------


def test_unexpected_error_is_500_logged_and_not_shown(tiny: Classifier) -> None:
    def fetch(*_: Any, **__: Any) -> bytes:
        raise ZeroDivisionError("secret detail")

    api = Api(Predictor(Settings(), tiny, fetch=fetch))
    over_http = api.post_json({"url": "https://x"})
    check_problem(over_http, 500, "internal_error")
    direct = api.invoke({"url": "https://x"})
    batch = api.post_json({"urls": ["https://x"]})
    assert direct["status"] == 500
    assert batch.json["results"][0]["error"]["code"] == "internal_error"
    for text in (over_http.text, json.dumps(direct), batch.text):
        assert "secret" not in text
        assert "ZeroDivision" not in text
    for line in api.lines:
        assert line["level"] == "ERROR"
        assert line["ServerError"] == 1
        assert "ZeroDivisionError: secret detail" in line["exception"]
        assert "Traceback" in line["exception"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
KEYS = st.sampled_from(
    [
        "version",
        "rawPath",
        "rawQueryString",
        "headers",
        "requestContext",
        "http",
        "method",
        "path",
        "body",
        "httpMethod",
        "stage",
        "isBase64Encoded",
        "queryStringParameters",
        "content-type",
        "multiValueQueryStringParameters",
        "url",
        "urls",
        "image",
        "top_k",
    ]
)
VALUES = st.sampled_from(
    [
        "2.0",
        "/predict",
        "/",
        "POST",
        "GET",
        "{}",
        "image/png",
        "multipart/form-data; boundary=a",
        "application/json",
        "--a\r\n\r\n\r\n--a--",
        "url=http%3A%2F%2F127.0.0.1",
        True,
        1,
        None,
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


@given(event=EVENTS | HTTP_EVENTS)
@settings(max_examples=200, deadline=None, derandomize=True)
@example(event={"rawPath": "/predict", "requestContext": {"http": {"method": "POST"}}, "body": 1})
@example(event={"httpMethod": None, "path": 3})
@example(event={"url": "\ud800"})
@example(event={"\ud800": 1})
@example(event={"rawPath": "/\ud800", "requestContext": None})
def test_no_event_raises_or_becomes_a_500(event: Any) -> None:
    api = Api(FUZZED)
    answer = api.invoke(event)
    json.dumps(answer, allow_nan=False).encode()
    status = answer.get("statusCode", answer.get("status", 200))
    assert status < 500, (answer, api.lines)
    assert len(api.lines) == 1


def _no_fetch(url: str, limits: Any, **_: Any) -> bytes:
    return picture("red")


FUZZED = Predictor(Settings(), Classifier(TINY_MODEL), fetch=_no_fetch)


# --- start ------------------------------------------------------------------------------------


def start(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=clean | environment,
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_model_is_loaded_by_lambda_s_init_and_not_by_a_plain_import() -> None:
    code = "from lambda_function import app; print(app.predictor.cache_info().currsize)"
    assert start(code).stdout == "0\n"
    in_lambda = start(code, AWS_LAMBDA_RUNTIME_API="127.0.0.1:9", MODEL_URI=str(TINY_MODEL))
    assert in_lambda.stdout == "1\n"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"MAX_IMAGE_BYTES": "lots"}, "SettingsError: MAX_IMAGE_BYTES must be integer, 1 to"),
        ({"MODEL_URI": "/nowhere/model.tflite"}, "/nowhere/model.tflite"),
        ({"MODEL_URI": __file__}, "MetadataError: the artifact carries no metadata"),
    ],
)
def test_what_cannot_start_says_why(environment: dict[str, str], said: str) -> None:
    code = "import lambda_function.app"
    ended = start(code, AWS_LAMBDA_RUNTIME_API="127.0.0.1:9", **environment)
    assert ended.returncode == 1
    assert said in ended.stderr.splitlines()[-1]


def test_environment_is_read_by_settings_only() -> None:
    """``os.environ`` is handed to ``Settings`` by app; no other serving module may touch it."""
    folder = Path(app.__file__).parent
    readers = {
        path.name
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    }
    assert readers == {"app.py"}


def test_rare_things_are_not_imported_at_start() -> None:
    code = (
        "import sys; from lambda_function import app; "
        "print([m for m in ('boto3', 'tensorflow', 'keras', 'asyncio', 'pydantic', "
        "'lambda_function.form', 'lambda_function.s3') if m in sys.modules])"
    )
    assert start(code).stdout == "[]\n"
