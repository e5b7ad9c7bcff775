"""Planted label errors are found, and nothing else is listed before them."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from training.commands import main

pytest.importorskip("keras", reason="needs Keras: make test-training")

from tests.training.test_searches import make_features
from training.experiments.heads import HeadConfig
from training.experiments.label_noise import cross_validate, find_suspects

pytestmark = pytest.mark.training


@pytest.mark.parametrize("folds", [0, 1, -2])
def test_fewer_than_two_folds_are_refused(folds: int) -> None:
    assert main(["label-noise", f"--folds={folds}"]) == 2


def test_images_smaller_than_the_network_takes_are_refused(
    drawings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["label-noise", "--size=70", f"--dataset={drawings}"]) == 2
    assert "size must be 71 or more. Received: 70" in capsys.readouterr().err


def test_suspects_are_those_that_another_class_fits_better_worst_first() -> None:
    files = [f"train/{'ab'[i]}/{n}.jpg" for n, i in enumerate([0, 0, 1, 1])]
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.95, 0.05], [0.5, 0.5]])

    rows = find_suspects(files, np.array([0, 0, 1, 1]), probabilities, ("a", "b"))

    assert [row["file"] for row in rows] == ["train/b/2.jpg", "train/a/1.jpg"]
    assert rows[0]["suggested"] == "a"
    assert [row["margin"] for row in rows] == [-0.9, -0.2]


def test_planted_errors_are_found() -> None:
    features = make_features(noise=0.2)
    planted = [4, 40, 57]
    features.training_labels[planted] = (features.training_labels[planted] + 1) % 3
    config = HeadConfig(learning_rate=0.05, epochs=10, batch_size=16)

    probabilities = cross_validate(features, config, 3)

    labels = np.concatenate([features.training_labels, features.validation_labels])
    files = [f"train/x/{i}.jpg" for i in range(len(labels))]
    rows = find_suspects(files, labels, probabilities, ("a", "b", "c"))
    assert {row["file"] for row in rows[:3]} == {f"train/x/{i}.jpg" for i in planted}


def test_the_command_writes_a_page_for_people(
    tmp_path: Path, drawings: Path, small_network: Path
) -> None:
    images = tmp_path / "images"
    shutil.copytree(drawings, images)
    for folder in images.glob("*/*"):  # images may lie in sub-folders of a class
        folder.rename(images / "day")
        folder.mkdir()
        (images / "day").rename(folder / "day")
    words = [
        *("--folds=2", "--epochs=1", "--size=71"),
        f"--dataset={images}",
        f"--out={tmp_path}",
    ]

    assert main(["label-noise", *words, f"--backbone-weights={small_network}"]) == 0

    with (tmp_path / "suspects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} <= {"disc", "square", "stripes"}
    assert (tmp_path / "suspects.html").read_text().count("<figure>") == min(60, len(rows))
