"""The log line: one per request, JSON, metrics inside, nothing secret."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from lambda_function.logs import RequestLog, write_line
from lambda_function.processor import instruction_sets
from lambda_function.service import Service
from lambda_function.settings import Settings
from tests.conftest import TINY_MODEL, Api, encode_image
from tests.support.processes import run_python
from tools.image_server import Resource

if TYPE_CHECKING:
    from lambda_function.classifier import Classifier
    from tools.image_server import ImageServer


def test_the_line_of_a_prediction_has_its_fields(api: Api, server: ImageServer) -> None:
    data = encode_image("red")
    body = api.post_json({"url": server.url("/red.png?X-Amz-Signature=abc")}).json
    (line,) = api.lines
    assert line["level"] == "INFO"
    assert line["request_id"] == body["request_id"]
    assert line["gateway_request_id"] == "UkZlthJdFiAEJxQ="
    assert (line["route"], line["status"]) == ("POST /predict", 200)
    assert line["model_version"] == "1.2.3"
    assert line["image_bytes"] == len(data)
    assert line["image_size"] == [40, 60]
    assert (line["label"], line["score"]) == ("red", round(body["predictions"][0]["score"], 4))
    assert line["image_url"] == server.url("/red.png")
    assert set(line["timings_ms"]) == {"fetch", "decode", "preprocess", "inference"}
    assert line["Latency"] >= body["timings_ms"]["total"]
    assert "code" not in line


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [({"url": 3}, 400, "bad_request"), ({"url": "http://10.0.0.1/"}, 400, "address_not_allowed")],
)
def test_a_caller_s_error_is_logged_with_its_code(
    api: Api, content: Any, status: int, code: str
) -> None:
    api.post_json(content)
    api.invoke(content)
    for line in api.lines:
        assert (line["status"], line["code"], line["level"]) == (status, code, "INFO")
        assert line["ServerError"] == 0
        assert "exception" not in line


def test_unknown_paths_do_not_become_routes(api: Api) -> None:
    api.get("/wp-admin/" + "x" * 5000)
    assert api.lines[0]["route"] == "unknown"
    assert len(json.dumps(api.lines[0])) < 1000


def test_a_method_of_any_length_is_logged_short(api: Api) -> None:
    api.send("X" * 5000, "/predict")
    assert api.lines[0]["route"] == f"{'X' * 20} /predict"


def test_every_kind_of_request_writes_exactly_one_line(api: Api, server: ImageServer) -> None:
    url = server.url("/red.png")
    api.get("/health")
    api.send("OPTIONS", "/predict")
    api.post_json({"urls": [url, url]})
    api.invoke({"url": url})
    api.invoke(None)
    assert len(api.lines) == 5


def test_line_is_valid_embedded_metrics(api: Api, server: ImageServer) -> None:
    api.post_json({"url": server.url("/red.png")})
    (line,) = api.lines
    metrics = line["_aws"]["CloudWatchMetrics"]
    assert abs(line["_aws"]["Timestamp"] / 1000 - __import__("time").time()) < 10
    assert [(m["Namespace"], m["Dimensions"]) for m in metrics] == [
        ("ImageClassifier", [["service"]]),
        ("ImageClassifier", [["service", "function_version"]]),
    ]
    assert [metric["Name"] for metric in metrics[1]["Metrics"]] == ["ServerError", "OwnTime"]
    assert line["function_version"] == "local"
    names = [metric["Name"] for metric in metrics[0]["Metrics"]]
    assert names == ["Latency", "ServerError", "ColdStart"]
    assert all(isinstance(line[name], (int, float)) for name in names)
    assert isinstance(line["service"], str)


def test_a_slow_image_server_is_not_our_own_time(api: Api, server: ImageServer) -> None:
    server.resources["/slower.png"] = Resource(encode_image("red"), delay_s=0.3)
    api.post_json({"url": server.url("/slower.png")})
    api.get("/health")
    predicted, other = api.lines
    assert predicted["Latency"] > 300
    assert 0 < predicted["OwnTime"] < 200
    assert "OwnTime" not in other  # a metric that a line names has to be in it
    assert len(other["_aws"]["CloudWatchMetrics"][1]["Metrics"]) == 1


@pytest.mark.parametrize(("path", "reason"), [("/gone.png", "404"), ("/empty.png", "empty")])
def test_the_line_says_why_an_image_could_not_be_fetched(
    api: Api, server: ImageServer, path: str, reason: str
) -> None:
    server.resources["/empty.png"] = Resource(b"")
    api.post_json({"url": server.url(path)})
    (line,) = api.lines
    assert line["code"] == "fetch_failed"
    (logged,) = line["reasons"]
    assert reason in logged


def test_metrics_can_be_off() -> None:
    log = RequestLog(
        Settings(metrics_namespace=None), request_id="r", model_version="1", cold_start=False
    )
    assert "_aws" not in json.loads(log.line(1.0))


def test_images_and_secrets_are_never_in_the_line(api: Api, server: ImageServer) -> None:
    data = base64.b64encode(encode_image("red", (300, 300))).decode()
    host = server.host
    for content in (
        {"image": data},
        {"url": f"http://user:hunter2@{host}/red.png?token=hunter2#hunter2"},
        {"url": f"http:/user:hunter2@{host}/red.png"},
        {"url": f"http://{host}/red.png%3Ftoken=hunter2"},
        {"url": f"data:image/png;base64,{data}"},
        {"url": data},
        {"urls": [f"http://{host}/red.png?token=hunter2"]},
        {"hunter2": 1},
    ):
        api.post_json(content)
        api.invoke(content)
    text = json.dumps(api.lines)
    assert "hunter2" not in text
    assert data[:40] not in text


def test_line_breaks_in_a_request_stay_inside_the_line(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    log = RequestLog(Settings(), request_id="a\nb\r\u2028", model_version="1", cold_start=False)
    write_line(log.line(1.0))
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_failure_is_an_error_line_with_the_traceback(tiny: Classifier) -> None:
    def fetch(*_: Any, **__: Any) -> bytes:
        raise RuntimeError("disk on fire")

    api = Api(Service(Settings(), tiny, fetch=fetch))
    api.invoke({"url": "https://x"})
    (line,) = api.lines
    assert (line["level"], line["ServerError"], line["status"]) == ("ERROR", 1, 500)
    assert line["exception_name"] == "RuntimeError"
    assert "disk on fire" in line["exception"]
    assert "in fetch\n" in line["exception"]


@pytest.mark.parametrize(("started", "cold"), [("provisioned-concurrency", 0), ("on-demand", 1)])
def test_nobody_waits_for_a_start_that_aws_made_in_advance(started: str, cold: int) -> None:
    code = "from lambda_function import app; app.lambda_handler({}, None)"
    environment = {**os.environ, "AWS_LAMBDA_INITIALIZATION_TYPE": started}
    shown = run_python("-c", code, env=environment, check=True)
    assert json.loads(shown.stdout)["ColdStart"] == cold


def test_cold_start_is_true_once_per_process_and_in_lambda_s_own_handler() -> None:
    code = (
        "from lambda_function.app import lambda_handler\n"
        "for _ in range(3): lambda_handler({}, None)"
    )
    environment = {
        "MODEL_URI": str(TINY_MODEL),
        "AWS_LAMBDA_FUNCTION_NAME": "clothes",
        "AWS_LAMBDA_FUNCTION_VERSION": "7",
        "METRICS_NAMESPACE": "Mine",
    }
    ended = run_python("-c", code, env=environment, check=True)
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["cold_start"] for line in lines] == [True, False, False]
    assert [line["ColdStart"] for line in lines] == [1, 0, 0]
    shown = [line.get("instruction_sets") for line in lines]
    assert shown == [instruction_sets(), None, None]  # of /proc/cpuinfo, once
    assert {line["service"] for line in lines} == {"clothes"}
    assert {line["function_version"] for line in lines} == {"7"}
    assert {line["_aws"]["CloudWatchMetrics"][0]["Namespace"] for line in lines} == {"Mine"}
