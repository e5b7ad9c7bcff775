"""The deployed image: built, run as Lambda runs it, invoked, and inspected."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.harness import RESULTS
from benchmarks.image_size import bar_bytes
from deploy.image.names import default_name
from lambda_function import REPOSITORY, SHIPPED_MODEL, example_image
from lambda_function.classifier import Classifier
from lambda_function.images.decode import decode_image, preprocess
from tests.conftest import TINY_MODEL
from tests.docker.conftest import IMAGES_PORT, IS_STANDIN, PLATFORM, Container, build, run
from training.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.container, pytest.mark.slow]
IMAGE_URL = f"http://127.0.0.1:{IMAGES_PORT}/pants.jpg"
COUNTED = json.loads((RESULTS / "image_size.json").read_text())
LISTING = """
import hashlib, json, os, pathlib
root = pathlib.Path("/var/task")
print(json.dumps({
    str(path.relative_to(root)): [
        oct(path.lstat().st_mode), path.stat().st_size,
        hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
    ]
    for path in sorted(root.rglob("*"))
}))
"""


@pytest.fixture(scope="module")
def listing(container: Container) -> dict[str, list[Any]]:
    """Every path below /var/task with its mode, size and content's SHA-256."""
    found: dict[str, list[Any]] = container.python(LISTING)
    return found


# --- invoked --------------------------------------------------------------------------------


def test_a_url_gets_the_prediction_that_make_predict_gives(
    container: Container,
) -> None:
    reply = container.invoke({"url": IMAGE_URL})
    here = Classifier(SHIPPED_MODEL)
    decoded = decode_image(example_image().read_bytes())
    scores = here.predict(preprocess(decoded, here.metadata.input))
    expected = dict(zip(here.metadata.labels, scores.tolist(), strict=True))
    got = {item["label"]: item["score"] for item in reply["predictions"]}
    assert got == pytest.approx(expected, abs=0.02)  # other wheels than here: other rounding
    assert reply["model"]["version"] == here.metadata.version


def test_each_request_writes_one_line(container: Container) -> None:
    before = len(container.log_lines())
    request_id = container.invoke({"url": IMAGE_URL})["request_id"]
    (line,) = container.log_lines()[before:]
    assert (line["request_id"], line["status"]) == (request_id, 200)
    assert line["function_version"] == "$LATEST"


# --- inspected ------------------------------------------------------------------------------


def test_function_is_neither_root_nor_able_to_change_itself(container: Container) -> None:
    assert container.execute("id", "-u").stdout.strip() == "993"
    for place in ("/var/task/lambda_function/x", "/var/runtime/x", "/x"):
        assert container.execute("touch", place, check=False).returncode
    container.execute("touch", "/tmp/x")


def test_everybody_can_read_everything_and_nobody_else_write(
    listing: dict[str, list[Any]],
) -> None:
    for path, (mode, *_) in listing.items():
        bits = int(mode, 8)
        wanted = 0o555 if bits & 0o40000 else 0o444
        assert bits & wanted == wanted, path
        assert not bits & 0o022, path


def test_byte_code_is_there_for_every_module_and_never_checked(container: Container) -> None:
    wrong = container.python(
        "import importlib.util, json, pathlib\n"
        "wrong = []\n"
        "for path in pathlib.Path('/var/task').rglob('*.py'):\n"
        "    code = pathlib.Path(importlib.util.cache_from_source(str(path)))\n"
        "    if not code.is_file() or code.read_bytes()[4:8] != b'\\x01\\0\\0\\0':\n"
        "        wrong.append(str(path))\n"
        "print(json.dumps(wrong))"
    )
    assert wrong == []


def test_only_the_function_and_its_dependencies_are_in_it(
    listing: dict[str, list[Any]],
) -> None:
    top = {path.partition("/")[0] for path in listing}
    ours = {"tests", "training", "converter", "requirements", "Dockerfile", "examples", "runs"}
    unused = {"pip", "setuptools", "google", "ml_dtypes", "tqdm", "flatbuffers", "bin"}
    assert "lambda_function" in top
    assert not top & (ours | unused)
    assert not [path for path in listing if "/tests/" in path or "WebGpu" in path]
    there = {path.removeprefix("lambda_function/") for path in listing if path.endswith(".py")}
    assert {path.name for path in (REPOSITORY / "lambda_function").glob("*.py")} <= there


def test_it_adds_at_most_four_fifths_of_a_course_style_image(
    listing: dict[str, list[Any]],
) -> None:
    added = sum(size for mode, size, _ in listing.values() if int(mode, 8) & 0o100000)
    assert added <= bar_bytes(COUNTED)
    # Another Python's byte code, as AWS's base image has it, is of nearly the same size.
    assert added == pytest.approx(COUNTED["images"]["ours"]["added_bytes"], rel=0.02), (
        "the size in docs/deploy-reference.md is old: `python -m benchmarks image-size --write`"
    )


def test_every_component_has_a_licence(container: Container) -> None:
    components = json.loads(container.execute("cat", "/var/task/sbom.cdx.json").stdout)
    licences = {
        component["name"]: component["licenses"][0]["license"]["name"]
        for component in components["components"]
        if component["type"] != "file"  # native libraries come with their wheel's licence
    }
    assert {"ai-edge-litert", "numpy", "pillow", "keras-image-helper"} <= set(licences)
    assert not [name for name, licence in licences.items() if licence in ("", "unknown")]


@pytest.mark.skipif(IS_STANDIN, reason="the stand-in base image has no boto3, AWS's has")
def test_base_image_brings_boto3(container: Container) -> None:
    container.execute("python", "-c", "import boto3")


# --- built ----------------------------------------------------------------------------------


def test_two_builds_have_equal_paths_modes_and_contents(
    docker: Callable[..., Any], listing: dict[str, list[Any]]
) -> None:
    build(docker, REPOSITORY, "--no-cache", "--tag", "clothing-test:again")
    again = docker("run", "--rm", "--entrypoint", "python", "clothing-test:again", "-c", LISTING)
    docker("image", "rm", "--force", "clothing-test:again", check=False)
    differing = {
        path
        for path in listing.keys() | json.loads(again.stdout).keys()
        if listing.get(path) != json.loads(again.stdout).get(path)
    }
    assert differing == set()


def test_boto3_can_come_from_the_lock(docker: Callable[..., Any]) -> None:
    build(docker, REPOSITORY, "--build-arg", "BOTO3=locked", "--tag", "clothing-test:boto3")
    code = "import boto3; print(boto3.__version__)"
    said = docker("run", "--rm", "--entrypoint", "python", "clothing-test:boto3", "-c", code)
    docker("image", "rm", "--force", "clothing-test:boto3", check=False)
    locked = (REPOSITORY / "requirements/s3.txt").read_text()
    assert f"boto3=={said.stdout.strip()} " in locked


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A copy of what the build reads, for a test to damage."""
    for name in ("lambda_function", "requirements", "deploy"):
        shutil.copytree(
            REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("Dockerfile", ".dockerignore"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    return tmp_path


def test_build_without_a_model_is_refused_with_a_sentence(
    docker: Callable[..., Any], context: Path
) -> None:
    (context / "lambda_function/model.tflite").unlink()
    failed = build(docker, context, check=False)
    assert failed.returncode
    assert "There is no model at model.tflite" in failed.stdout + failed.stderr


def test_unknown_build_argument_is_refused_with_a_sentence(
    docker: Callable[..., Any], context: Path
) -> None:
    failed = build(docker, context, "--build-arg", "BOTO3=newest", check=False)
    assert failed.returncode
    assert "BOTO3 must be base or locked" in failed.stdout + failed.stderr


def test_make_image_puts_another_model_in(docker: Callable[..., Any]) -> None:
    name = default_name(TINY_MODEL)
    assert name != default_name()
    digest = (
        "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())"
    )

    run(
        *("make", "--silent", "image", f"MODEL={TINY_MODEL}", f"PYTHON={sys.executable}"),
        *(["ARCH=arm64"] if PLATFORM == "linux/arm64" else []),
        cwd=REPOSITORY,
    )

    served = docker(
        *("run", "--rm", "--entrypoint", "python", name),
        *("-c", digest, "/var/task/lambda_function/model.tflite"),
    ).stdout.split()[0]
    docker("image", "rm", "--force", name, check=False)
    assert served == sha256_of(TINY_MODEL)
    assert served != sha256_of(SHIPPED_MODEL)
