"""SAM with the project's own template: build, local invoke, and a local API Gateway."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from deploy.stamp import stamp
from lambda_function import REPOSITORY, example_image
from tests.docker.conftest import IS_STANDIN, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.container, pytest.mark.slow]
SAM = REPOSITORY / ".venv" / "sam" / "bin" / "sam"
ENCODED_IMAGE = base64.b64encode(example_image().read_bytes()).decode()
ENVIRONMENT = {
    **os.environ,
    "SAM_CLI_TELEMETRY": "0",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
}
# What this machine's processor runs without emulation.
ARCHITECTURE = {"aarch64": "arm64"}.get(os.uname().machine, "x86_64")
PARAMETERS = ["--parameter-overrides", f"Architecture={ARCHITECTURE}"]
SKIP_PULL = ["--skip-pull-image"] if IS_STANDIN else []


@pytest.fixture(scope="module")
def built(docker: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template that `sam build` made."""
    if not SAM.is_file():
        pytest.skip("SAM is not installed: `make test-container` does that (.venv/sam)")
    folder = tmp_path_factory.mktemp("sam")
    command = [str(SAM), "build", "--build-dir", str(folder), *PARAMETERS]
    run(*command, cwd=REPOSITORY, env=ENVIRONMENT)
    return folder / "template.yaml"


def test_the_template_that_sam_writes_can_be_stamped(built: Path) -> None:
    stamped = stamp(built.read_text(), {"Architecture": ARCHITECTURE})
    description = yaml_parse(stamped)["Resources"]["Function"]["Properties"]["Description"]
    assert re.search(r"\[[0-9a-f]{12}\]$", description["Fn::Sub"])


def test_local_invoke_classifies_an_image(built: Path, tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"image": ENCODED_IMAGE, "top_k": 2}))
    invoked = run(
        *(str(SAM), "local", "invoke", "Function", "--template", str(built)),
        *("--event", str(event), *PARAMETERS, *SKIP_PULL),
        cwd=REPOSITORY,
        env=ENVIRONMENT,
    )
    reply = json.loads(invoked.stdout.strip().splitlines()[-1])
    assert len(reply["predictions"]) == 2, invoked.stderr


@pytest.fixture(scope="module")
def api(built: Path) -> Iterator[str]:
    """The address of SAM's local API Gateway.

    `--disable-authorizer`, because SAM cannot resolve the route's conditional authorizer. No test
    asserts on its known differences from AWS (exceptions give 200, binary bodies 502).
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            *(str(SAM), "local", "start-api", "--template", str(built), "--port", str(port)),
            *("--warm-containers", "LAZY", "--disable-authorizer", *PARAMETERS, *SKIP_PULL),
        ],
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    base = f"http://127.0.0.1:{port}"
    for _ in range(120):
        if process.poll() is not None:
            pytest.fail(f"sam local start-api ended with {process.returncode}")
        try:
            request(f"{base}/docs")
            break
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
    yield base
    process.send_signal(signal.SIGTERM)
    process.wait(30)


def request(url: str, content: Any = None) -> tuple[int, str, str]:
    """Return status, content type and body."""
    data = None if content is None else json.dumps(content).encode()
    asked = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=60) as response:
            return response.status, response.headers["content-type"], response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["content-type"], error.read().decode()


def test_local_gateway_takes_an_image(api: str) -> None:
    status, content_type, body = request(f"{api}/predict", {"image": ENCODED_IMAGE, "top_k": 1})
    assert (status, content_type) == (200, "application/json")
    assert len(json.loads(body)["predictions"]) == 1


def test_local_gateway_shows_the_page_and_health(api: str) -> None:
    assert request(f"{api}/")[1].startswith("text/html")
    assert json.loads(request(f"{api}/health")[2])["status"] == "ok"


def test_unknown_paths_reach_the_function(api: str) -> None:
    status, content_type, body = request(f"{api}/nothing/here")
    assert (status, content_type) == (404, "application/problem+json")
    assert json.loads(body)["code"] == "not_found"


def test_the_function_responds_to_a_caller_s_mistake(api: str) -> None:
    status, _, body = request(f"{api}/predict", {"top_k": 1})
    assert (status, json.loads(body)["code"]) == (400, "bad_request")
