"""The figures of folds: hand-made results, so that every number is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras", reason="needs Keras: make test-training")

from training.data.folds import Fold
from training.errors import ConfigError
from training.experiments.folds import (
    Judged,
    compare,
    read_judged,
    settings_of_fold,
    write_judged,
)

pytestmark = pytest.mark.training


def judged(correct: list[int], groups: list[str]) -> Judged:
    """Two classes, label 0 everywhere."""
    probabilities = np.array([[0.9, 0.1] if right else [0.2, 0.8] for right in correct])
    count = len(correct)
    return Judged(probabilities, np.zeros(count, int), np.zeros(count, int), np.array(groups))


def test_two_recipes_are_compared_image_by_image() -> None:
    groups = ["a", "a", "b", "c"]

    difference = compare(judged([1, 1, 1, 1], groups), judged([1, 1, 1, 0], groups))

    assert difference["accuracy"] == 0.25
    assert difference["interval_95_over_groups"] == [0.0, pytest.approx(0.75, abs=0.26)]


def test_results_of_different_images_are_not_compared() -> None:
    with pytest.raises(ConfigError, match="judged different images: 2 and 1"):
        compare(judged([1, 1], ["a", "b"]), judged([1], ["a"]))


def test_a_result_is_read_as_it_was_written_and_nothing_else_is(tmp_path: Path) -> None:
    file = tmp_path / "one.npz"
    write_judged(judged([1, 0], ["a", "b"]), file)

    assert read_judged(file).correct.tolist() == [True, False]
    (tmp_path / "other.npz").write_bytes(b"no archive")
    with pytest.raises(ConfigError, match="is no result of `folds`"):
        read_judged(tmp_path / "other.npz")


def test_stages_of_a_fold_use_each_other_and_no_other_fold() -> None:
    fold = Fold(1, 5)
    stages = [
        {"name": "large"},
        {"name": "small", "teacher": "large, published", "start_from": "large"},
    ]

    small = settings_of_fold(stages[1], ["large", "small"], fold)

    assert small["name"] == "small-fold1of5"
    assert small["teacher"] == "large-fold1of5,published"
    assert small["start_from"] == "large-fold1of5"
    assert settings_of_fold(stages[0], ["large", "small"], fold)["teacher"] == ""
