"""The handler: routes, ways in, errors. With a real model, a real fetch and a real server."""

from __future__ import annotations

import ast
import base64
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from lambda_function import app
from lambda_function.classifier import Classifier
from lambda_function.http import pages
from lambda_function.http.events import QueueEventError
from lambda_function.service import Service
from lambda_function.settings import Settings
from tests.conftest import (
    FORMATS,
    TINY_MODEL,
    Api,
    Context,
    encode_image,
    http_event,
    make_api,
    recorded,
)
from tests.support.processes import run_python
from tests.support.requests import BOUNDARY, PROBLEM_KEYS, check_problem, form, post_form

if TYPE_CHECKING:
    from tools.image_server import ImageServer

LABELS = {"red", "green", "blue", "dark"}


def test_prediction_has_the_shape_that_design_promises(api: Api, server: ImageServer) -> None:
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
    api: Api, server: ImageServer, event_format: str, way: str
) -> None:
    url, data = server.url("/lime.png?a=1,2&b=%26"), encode_image("lime")
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

    def fetch(url: str, limits: Any, *, deadline: float, **_: Any) -> bytes:
        asked.append(url)
        return encode_image("blue")

    api = Api(Service(Settings(), tiny, fetch=fetch))
    assert api.invoke(recorded(name))["statusCode"] == 200
    query = "?size=2,3&x=1" if name.endswith("_get") else ""
    assert asked == [f"https://images.example.com/pants.jpg{query}"]


def test_upload_fetches_nothing(tiny: Classifier) -> None:
    def fetch(*_: Any, **__: Any) -> bytes:
        raise AssertionError("fetched")

    api = Api(Service(Settings(), tiny, fetch=fetch))
    reply = post_form(api, ("image", encode_image("blue")), ("top_k", b"2"))
    assert next(item["label"] for item in reply.json["predictions"]) == "blue"
    assert len(reply.json["predictions"]) == 2
    assert reply.json["timings_ms"]["fetch"] == 0


def test_form_may_carry_an_address(api: Api, server: ImageServer) -> None:
    reply = post_form(api, ("url", server.url("/blue.png").encode()))
    assert reply.json["predictions"][0]["label"] == "blue"


def test_bytes_that_look_like_form_lines_survive(api: Api) -> None:
    data = (
        encode_image("red") + b"\r\n--\r\n\r\n\n\r-- \x00\xff"
    )  # after a PNG's end anything may stand
    assert post_form(api, ("image", data)).json["predictions"][0]["label"] == "red"
    assert api.lines[-1]["image_bytes"] == len(data)


def test_top_k_shows_the_best_and_omitted_shows_all(api: Api, server: ImageServer) -> None:
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


def test_min_score_marks_only_what_is_below_it(tiny: Classifier, server: ImageServer) -> None:
    marking = make_api(tiny, server, min_score=0.9)
    sure, unsure = server.url("/red.png"), server.url("/gray.png")
    assert "uncertain" not in marking.post_json({"url": sure}).json
    assert marking.post_json({"url": unsure}).json["uncertain"] is True
    assert "uncertain" not in make_api(tiny, server).post_json({"url": unsure}).json
    results = marking.post_json({"urls": [sure, unsure]}).json["results"]
    assert [item.get("uncertain", False) for item in results] == [False, True]


@pytest.mark.parametrize("event_format", FORMATS)
def test_health_runs_the_model(api: Api, event_format: str) -> None:
    reply = api.send("GET", "/health", event_format=event_format)
    assert reply.status == 200
    assert reply.json["status"] == "ok"
    assert reply.json["model"] == {"name": "tiny", "version": "1.2.3"}
    assert reply.json["timings_ms"]["inference"] >= 0


def test_health_is_500_if_the_model_returns_no_probabilities(tiny: Classifier) -> None:
    class Broken:
        metadata = tiny.metadata

        def predict(self, tensor: Any) -> Any:
            return tensor.sum(axis=(0, 1))[:, 0][:4] * float("nan")

    api = Api(Service(Settings(), Broken()))  # type: ignore[arg-type]
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
    assert reply.text.count("<style") == reply.text.count("<script") == 1
    assert policy.count("'sha256-") == 2


def test_policy_names_the_hash_that_the_standard_says() -> None:
    # CSP level 3's own example: the digest of `doSubmit()` in a script block
    policy = pages.content_security_policy("<script>alert('Hello, world.');</script>")
    assert "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='" in policy


def test_openapi_is_served_as_json(api: Api) -> None:
    assert api.get("/openapi.json").json["openapi"].startswith("3.1")


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


def test_wrong_method_is_405_whatever_its_body(api: Api) -> None:
    event = http_event("PUT", "/predict", body=b"x", content_type="image/png")
    assert api.invoke(event | {"body": "%%%"})["statusCode"] == 405


def test_options_has_no_body(api: Api) -> None:
    reply = api.send("OPTIONS", "/predict")
    assert (reply.status, reply.text) == (204, "")
    assert reply.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert api.send("OPTIONS", "/nope").status == 404


@pytest.mark.parametrize("path", ["/", "/health", "/model", "/nope"])
def test_head_is_get_without_the_body(api: Api, path: str) -> None:
    head, get = api.send("HEAD", path), api.send("GET", path)
    assert (head.status, head.headers) == (get.status, get.headers)
    assert head.text == ""


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        ("http://{host}/missing.jpg", 502, "fetch_failed"),
        ("http://{host}/broken", 502, "fetch_failed"),
        ("http://{host}/cut.jpg", 422, "undecodable_image"),
        ("http://{host}/page.html", 415, "unsupported_image"),
        ("http://127.0.0.1:9/x.png", 400, "address_not_allowed"),
        ("http://169.254.169.254/latest", 400, "address_not_allowed"),
    ],
)
def test_each_error_has_its_status_and_code(
    api: Api, server: ImageServer, url: str, status: int, code: str
) -> None:
    check_problem(api.post_json({"url": url.format(host=server.host)}), status, code)


def test_a_slow_server_is_a_504_before_lambda_ends_the_function(
    api: Api, server: ImageServer
) -> None:
    api.remaining_s = 1.5  # less the margin of 1 s
    reply = api.post_json({"url": server.url("/slow.png")})
    check_problem(reply, 504, "deadline_exceeded")
    assert api.lines[-1]["Latency"] < 1500


@pytest.mark.parametrize("limit", [{"max_image_bytes": 50}, {"max_image_pixels": 2399}])
def test_an_image_over_a_limit_is_413(
    tiny: Classifier, server: ImageServer, limit: dict[str, int]
) -> None:
    api = make_api(tiny, server, **limit)  # the image has 40x60 pixels
    check_problem(post_form(api, ("image", encode_image("red"))), 413, "too_large")
    check_problem(api.post_json({"url": server.url("/red.png")}), 413, "too_large")


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
        return encode_image("red")

    chosen = Settings(api_auth=api_auth, image_buckets=frozenset({"pics"}))
    api = Api(Service(chosen, tiny, read_object=read_object))
    body = {"url": "s3://pics/a.png"}
    body = api.post_json(body).json if over_http else api.invoke(body)
    if allowed:
        assert body["predictions"][0]["label"] == "red"
        assert asked == [("s3://pics/a.png", {"pics"}, 20 * 1024**2, True)]
    else:
        assert body["status"] == 400
        assert "s3://" in body["detail"]
        assert asked == []


def test_direct_invoke_gets_the_body_without_an_envelope(api: Api, server: Any) -> None:
    body = api.invoke({"url": server.url("/red.png"), "top_k": 1})
    assert set(body) == {"predictions", "model", "timings_ms", "request_id"}
    assert [item["label"] for item in body["predictions"]] == ["red"]
    data = base64.b64encode(encode_image("blue")).decode()
    assert api.invoke({"image": data})["predictions"][0]["label"] == "blue"


@pytest.mark.parametrize("event", [{}, [], None, "url", 3, {"url": 3}])
def test_a_direct_invoke_without_an_image_gets_a_problem(api: Api, event: Any) -> None:
    body = api.invoke(event)
    assert set(body) == PROBLEM_KEYS
    assert (body["status"], body["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    "event",
    [
        {"Records": []},
        {"Records": [{"eventSource": "aws:sqs", "body": "{}"}]},
        {"Records": [{"eventSource": "aws:s3"}], "url": "https://example.com/a.jpg"},
        {"Records": None},
        {"invocationId": "1", "records": [{"recordId": "1", "data": "e30="}]},
        {"eventSource": "aws:mq", "messages": [{"data": "e30="}]},
        {"eventSource": "aws:rmq", "rmqMessagesByQueue": {"images::/": [{"data": "e30="}]}},
        {"detail-type": "Object Created", "source": "aws.s3", "detail": {}},
    ],
)
def test_an_event_of_a_queue_is_raised_so_that_the_queue_keeps_it(api: Api, event: Any) -> None:
    with pytest.raises(QueueEventError, match=r"lambda_function\.queue_events\.lambda_handler"):
        api.invoke(event)
    (line,) = api.lines
    assert (line["code"], line["ServerError"]) == ("QueueEventError", 0)


def test_an_event_of_a_load_balancer_is_refused_by_name(api: Api) -> None:
    response = api.invoke(recorded("load_balancer"))
    assert response["statusCode"] == 400
    assert "Application Load Balancer are not read" in json.loads(response["body"])["detail"]


def test_unexpected_error_is_500_logged_and_not_shown(tiny: Classifier) -> None:
    def fetch(*_: Any, **__: Any) -> bytes:
        raise ZeroDivisionError("secret detail")

    api = Api(Service(Settings(), tiny, fetch=fetch))
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


def start(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    return run_python("-c", code, env=clean | environment)


def test_model_is_loaded_by_lambda_s_init_and_not_by_a_plain_import() -> None:
    code = "from lambda_function import app; print(app.process_service.cache_info().currsize)"
    assert start(code).stdout == "0\n"
    in_lambda = start(code, AWS_LAMBDA_RUNTIME_API="127.0.0.1:9", MODEL_URI=str(TINY_MODEL))
    assert in_lambda.stdout == "1\n"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"MAX_IMAGE_BYTES": "lots"}, "SettingsError: MAX_IMAGE_BYTES must be integer, 1 to"),
        (
            {"MODEL_URI": "/nowhere/m.tflite"},
            "ArtifactError: the model /nowhere/m.tflite cannot be read (No such file or "
            "directory). MODEL or MODEL_URI names another.",
        ),
        ({"MODEL_URI": __file__}, f"MetadataError: {__file__}: the file holds no labels"),
    ],
)
def test_a_start_that_fails_names_the_reason(environment: dict[str, str], said: str) -> None:
    code = "import lambda_function.app"
    ended = start(code, AWS_LAMBDA_RUNTIME_API="127.0.0.1:9", **environment)
    assert ended.returncode == 1
    assert said in ended.stderr.splitlines()[-1]


def test_only_the_handlers_read_the_environment() -> None:
    """Only the two handlers read ``os.environ``, and hand it on."""
    folder = Path(app.__file__).parent
    readers = {
        path.name
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    }
    assert readers == {"app.py", "queue_events.py"}
