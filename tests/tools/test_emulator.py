"""The handler under the real Lambda Runtime Interface Emulator, asked as Lambda asks it."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest

from lambda_function.fetching import s3
from tests.conftest import encode_image
from tests.support.aws import invent_account, moto_server
from tests.support.emulator import require_emulator
from tests.support.paths import TESTS
from tools.emulator import (
    EXAMPLE,
    Emulator,
    EmulatorError,
    emulator_binary,
    main,
    prepare_model,
    print_log,
)
from tools.gateway import MAX_EVENT_BYTES, http_event
from tools.image_server import ImageServer, Resource

pytestmark = [pytest.mark.emulator, pytest.mark.timeout(180)]

TINY = TESTS / "data" / "tiny.tflite"
CLASSES = {*("dress", "hat", "longsleeve", "outwear", "pants")}
CLASSES |= {*("shirt", "shoes", "shorts", "skirt", "t-shirt")}

HANDLER = """
import os, subprocess, time

def lambda_handler(event, context):
    print("saw", event)
    if event.get("do") == "sleep":
        time.sleep(60)
    if event.get("do") == "raise":
        raise ValueError("boom")
    if event.get("do") == "spawn":
        return {"pid": subprocess.Popen(["sleep", "300"], start_new_session=True).pid}
    return {"environment": dict(os.environ), "cores": sorted(os.sched_getaffinity(0))}
"""


@pytest.fixture(scope="module", autouse=True)
def _emulator_here():
    require_emulator()


@pytest.fixture
def own(tmp_path):
    """Starts a handler of these tests' own."""
    (tmp_path / "own.py").write_text(HANDLER)
    return lambda **options: Emulator("own.lambda_handler", cwd=tmp_path, **options)


@pytest.fixture(scope="module")
def server():
    image = Resource(EXAMPLE.read_bytes())
    resources = {
        "/pants.jpg": image,
        "/red.png": Resource(encode_image("red"), "image/png"),
        "/truncated.jpg": Resource(image.body[: len(image.body) // 2]),
        "/page.html": Resource(b"<!doctype html><title>no image</title>", "text/html"),
    }
    with ImageServer(resources) as running:
        yield running


@pytest.fixture(scope="module")
def tiny(server):
    """The handler with the tests' model, which tells colours: quick."""
    environment = {"TRUSTED_IMAGE_HOSTS": f"{server.host},{closed_host()}", "MODEL_URI": str(TINY)}
    with Emulator(env=environment) as running:
        yield running


def closed_host():
    """A host:port on loopback where nothing listens."""
    return "127.0.0.1:1"


# --- the product -------------------------------------------------------------


@pytest.mark.release
def test_the_shipped_model_answers_a_direct_invoke_and_api_gateway_alike(server):
    url = server.url("/pants.jpg")
    with Emulator(env={"TRUSTED_IMAGE_HOSTS": server.host}) as emulator:
        direct = emulator.invoke({"url": url}).body
        response = emulator.invoke(http_event("POST", "/predict", json_body={"url": url})).body
    over_http = json.loads(response["body"])

    assert response["statusCode"] == 200
    assert response["headers"]["content-type"] == "application/json"
    assert direct["predictions"][0]["label"] == "pants"
    assert {item["label"] for item in direct["predictions"]} == CLASSES
    assert len(direct["predictions"]) == len(CLASSES)
    assert sum(item["score"] for item in direct["predictions"]) == pytest.approx(1, abs=1e-5)
    assert over_http["predictions"] == direct["predictions"]
    assert direct["request_id"] != over_http["request_id"]


# (what the caller names, status, code)
BAD = [
    ("http://{closed}/a.jpg", 502, "fetch_failed"),
    ("http://127.0.0.1:9001/2018-06-01/runtime/invocation/next", 400, "address_not_allowed"),
    ("http://{host}/page.html", 415, "unsupported_image"),
    ("http://{host}/truncated.jpg", 422, "undecodable_image"),
]


@pytest.mark.parametrize(("url", "status", "code"), BAD, ids=[case[0] for case in BAD])
def test_a_bad_image_gets_its_status_and_the_runtime_lives_on(tiny, server, url, status, code):
    url = url.format(host=server.host, closed=closed_host())
    with same_process(tiny):
        response = tiny.invoke(http_event("POST", "/predict", json_body={"url": url})).body
        direct = tiny.invoke({"url": url}).body
        good = tiny.invoke({"url": server.url("/red.png")}).body

    problem = json.loads(response["body"])
    assert (response["statusCode"], problem["status"], problem["code"]) == (status, status, code)
    assert response["headers"]["content-type"] == "application/problem+json"
    assert (direct["status"], direct["code"]) == (status, code)
    assert_nothing_leaks(response, direct)
    assert good["predictions"][0]["label"] == "red"


def test_a_broken_model_fails_the_init_with_its_reason(tmp_path):
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(TINY.read_bytes()[:500])
    with Emulator(env={"MODEL_URI": str(broken)}) as emulator:
        answer = emulator.invoke({}).body
    assert "errorType" in answer
    assert "holds no labels" in json.dumps(answer)


def assert_nothing_leaks(*answers):
    text = json.dumps(answers)
    for secret in ("Traceback", 'File \\"', "stackTrace", "errorType", str(Path.cwd())):
        assert secret not in text


@contextmanager
def same_process(emulator):
    """Holds that the handler's process is not replaced: the RIE restarts a crashed one."""
    emulator.invoke({})
    before = emulator.handler_pid()
    yield
    assert emulator.handler_pid() == before


# --- the emulator itself -----------------------------------------------------


def test_it_reports_what_the_process_uses(own):
    with own() as emulator:
        with pytest.raises(EmulatorError, match="invoke it first"):
            emulator.handler_pid()
        emulator.invoke({})
        assert 5e6 < emulator.resident_bytes() <= emulator.peak_resident_bytes() < 5e8
        assert emulator.open_files() >= 3
        assert 0 < emulator.cpu_seconds() < 30


def test_nothing_of_our_environment_reaches_the_handler_but_what_is_named(own, monkeypatch):
    monkeypatch.setenv("SECRET_OF_OURS", "1")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    with own(env={"NAMED": "yes"}, memory_mb=1024) as emulator:
        seen = emulator.invoke({}).body["environment"]
    assert seen["NAMED"] == "yes"
    assert seen["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "1024"
    assert not {"SECRET_OF_OURS", "PYTHONPATH"} & set(seen)


def test_a_handler_can_be_confined_to_one_core(own):
    before = os.sched_getaffinity(0)
    core = min(before)
    with own(core=core) as emulator:
        assert emulator.invoke({}).body["cores"] == [core]
    assert os.sched_getaffinity(0) == before


def test_an_exception_and_a_timeout_are_told_apart_from_an_answer(own):
    with own(timeout_s=1) as emulator:
        raised = emulator.invoke({"do": "raise"})
        late = emulator.invoke({"do": "sleep"})
        answered = emulator.invoke({})
    assert raised.body["errorType"] == "ValueError"
    assert late.body == "Task timed out after 1.00 seconds"
    assert 1 <= late.elapsed_s < 10
    assert "environment" in answered.body
    assert any(line.startswith("saw {'do': 'raise'}") for line in emulator.log)


def test_the_emulator_and_all_that_it_started_end_with_the_block(own):
    with pytest.raises(RuntimeError, match="ours"), own() as emulator:
        child = emulator.invoke({"do": "spawn"}).body["pid"]
        pids = [emulator._process.pid, emulator.handler_pid(), child]
        assert all(alive(pid) for pid in pids)
        raise RuntimeError("ours")
    until = time.monotonic() + 5  # a killed process takes a moment on a busy machine
    while any(alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(alive(pid) for pid in pids)
    with pytest.raises(EmulatorError, match="No reply"):
        emulator.invoke({})


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_an_event_that_lambda_would_refuse_is_refused(own):
    with own() as emulator, pytest.raises(EmulatorError, match="Lambda accepts 6,291,456"):
        emulator.invoke("x" * MAX_EVENT_BYTES)


def test_a_port_in_use_is_named(own):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = f"Cannot listen on 127.0.0.1:{port}: Address already in use"
        with pytest.raises(EmulatorError, match=said), own(port=port):
            pass


def test_a_number_that_is_no_port_is_named_before_anything_starts(own):
    said = r"127\.0\.0\.1:99999: ports are 0 to 65535\. PORT=\.\.\. \(or --port\) names another"
    with pytest.raises(EmulatorError, match=said), own(port=99999):
        pass


def test_a_changed_binary_is_refused(tmp_path):
    good = emulator_binary()
    (tmp_path / good.name).write_bytes(good.read_bytes() + b"\0")
    with pytest.raises(EmulatorError, match="not the expected emulator: SHA-256"):
        emulator_binary(tmp_path)


def test_without_a_network_the_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(EmulatorError, match=r"could not be fetched.*Is there a network"):
        emulator_binary(tmp_path / "empty")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("/nowhere.tflite", r"^Cannot start: the model /nowhere\.tflite cannot be read"),
        (str(EXAMPLE), r"^Cannot start: .*: the file holds no labels"),
        ("s3://models/latest.tflite", "^Cannot start: MODEL_URI=s3://models/latest.tflite must"),
    ],
)
def test_make_emulate_checks_the_model_before_it_starts(model, said, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["emulator", "--port", "0"])
    monkeypatch.setenv("MODEL_URI", model)
    with pytest.raises(EmulatorError, match=said):
        main()


def test_a_model_in_s3_is_read_once_and_by_us(tmp_path, monkeypatch):
    """The handler gets no credentials, so it gets a file."""
    model = TINY.read_bytes()
    key = f"tiny-{hashlib.sha256(model).hexdigest()}.tflite"
    with moto_server() as address:
        invent_account(monkeypatch, AWS_ENDPOINT_URL_S3=address)
        s3._clients.clear()
        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        client.put_object(Bucket="models", Key=f"v1/{key}", Body=model)
        for_handler = prepare_model(f"s3://models/v1/{key}", tmp_path)
        client.close()
        s3._clients.clear()
    assert for_handler == str(tmp_path / key)
    assert (tmp_path / key).read_bytes() == model


def test_make_emulate_ends_with_the_emulator(own, capsys):
    with own() as emulator:
        emulator.invoke({"do": "nothing"})
        emulator._process.kill()
        with pytest.raises(EmulatorError, match="Two requests at once"):
            print_log(emulator)
    assert "saw {'do': 'nothing'}" in capsys.readouterr().out


@pytest.mark.release
def test_make_emulate_prints_commands_that_work(tmp_path):
    command = [sys.executable, "-m", "tools.emulator", "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            lines = read_until(process.stdout, lambda line: "event.json" in line)
            curls = [line for line in lines if line.startswith("curl ")]
            answers = [
                json.loads(subprocess.run(line, shell=True, capture_output=True, check=True).stdout)  # noqa: S602
                for line in curls
            ]
        finally:
            process.terminate()
            process.wait(timeout=20)
    assert len(curls) == 2
    assert answers[0]["predictions"][0]["label"] == "pants"
    assert answers[1]["statusCode"] == 200
    assert len(json.loads(answers[1]["body"])["predictions"]) == 3


def read_until(stream, found):
    lines = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (lines and found(lines[-1])):
        lines.append(stream.readline().rstrip("\n"))
    return lines
