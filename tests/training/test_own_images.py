"""A team's images, end to end: an unsplit folder is trained, converted, scored and served."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lambda_function.classifier import Classifier
from lambda_function.service import Service
from lambda_function.settings import Settings
from tests.conftest import Api
from tests.support.processes import run_python
from training.data.dataset import load_split
from training.data.imagenet import DEFAULT_WEIGHTS

pytestmark = [pytest.mark.training, pytest.mark.slow, pytest.mark.timeout(600)]


def run(*words: object) -> str:
    """Run a program as a user does and return what it printed."""
    done = run_python("-m", *words, timeout=None)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_unsplit_folder_becomes_a_served_classifier(
    drawings: Path, weights: Path, tmp_path: Path
) -> None:
    folder, mine = tmp_path / "our shapes", tmp_path / "runs" / "mine"
    shutil.copytree(drawings / "train", folder)
    (folder / "disc").rename(folder / "Schräubchen 钉")
    artifact, report = mine / "model.tflite", tmp_path / "evaluation" / "report.json"

    run(
        *("training", "train", "--dataset", folder, "--backbone-weights", weights),
        *("--name", "mine", "--runs", mine.parent, "--cache", tmp_path / "cache", "--size", 71),
        *("--first-trainable-block", 15, "--learning-rate", 0.1, "--epochs", 3, "--views", 1),
    )
    run(
        *("converter", mine / "model.keras", "--recipe", "float32", "--output", artifact),
        *("--dataset", folder, "--name", "shapes", "--title", "Which shape?", "--subject", "shape"),
    )
    run(
        *("training", "evaluate", artifact, mine, "--dataset", folder, "--split", "validation"),
        *("--out", report.parent, "--no-gallery"),
    )

    api = Api(Service(Settings(), Classifier(artifact)))
    model = api.get("/model").json
    assert (model["name"], model["title"], model["subject"]) == ("shapes", "Which shape?", "shape")
    assert model["licence"] == "not stated"
    validation = load_split(mine / "images", "validation")
    right = 0
    for path, label in zip(validation.paths, validation.labels, strict=True):
        reply = api.send("POST", "/predict", body=path.read_bytes(), content_type="image/png")
        best = reply.json["predictions"][0]["label"]
        right += best == validation.class_names[label]
    scored = json.loads(report.read_text())
    assert len(validation) == 12
    assert right == scored["models"][0]["metrics"]["correct"]
    if weights == DEFAULT_WEIGHTS:  # random weights recognise nothing
        assert right >= 10
