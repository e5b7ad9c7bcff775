"""Planted label errors are found; nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.commands import main
from training.data.folds import assign_folds
from training.errors import ConfigError
from training.evaluation.label_noise import cross_validated, suspects


def test_folds_share_every_class_equally() -> None:
    labels = np.array([0] * 50 + [1] * 23 + [2] * 7)
    assigned = assign_folds(labels, 5, seed=0)
    for label in range(3):
        counts = np.bincount(assigned[labels == label], minlength=5)
        assert counts.sum() == (labels == label).sum()
        assert counts.max() - counts.min() <= 1
    assert not np.array_equal(assigned, assign_folds(labels, 5, seed=1))


@pytest.mark.training
@pytest.mark.parametrize("folds", [0, 1, -2])
def test_no_number_of_folds_is_refused_before_anything_is_read(folds: int) -> None:
    pytest.importorskip("keras", reason="needs Keras: make test-training")
    assert main(["label-noise", f"--folds={folds}"]) == 2


def test_more_folds_than_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="5 folds of 4 images leave some empty"):
        assign_folds(np.zeros(4, dtype=np.int64), 5, seed=0)


def test_suspects_are_those_that_another_class_fits_better_worst_first() -> None:
    paths = [Path(f"/data/train/{'ab'[i]}/{n}.jpg") for n, i in enumerate([0, 0, 1, 1])]
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.95, 0.05], [0.5, 0.5]])
    found = suspects(paths, labels, probabilities, ("a", "b"))
    assert [row["file"] for row in found] == ["train/b/2.jpg", "train/a/1.jpg"]
    assert found[0]["suggested"] == "a"
    assert [row["margin"] for row in found] == [-0.9, -0.2]


@pytest.mark.training
def test_planted_errors_are_found() -> None:
    pytest.importorskip("keras", reason="needs Keras: make test-training")
    from training.fit.heads import HeadConfig

    generator = np.random.default_rng(0)
    labels = np.arange(90) % 3
    values = generator.normal(0, 0.2, (90, 6)).astype(np.float32)
    values[np.arange(90), labels] += 1
    planted = [4, 40, 77]
    labels[planted] = (labels[planted] + 1) % 3
    config = HeadConfig(learning_rate=0.05, epochs=10, batch_size=16)
    probabilities = cross_validated(values, labels, ("a", "b", "c"), config, 3)
    paths = [Path(f"/d/train/x/{i}.jpg") for i in range(90)]
    found = suspects(paths, labels, probabilities, ("a", "b", "c"))
    assert {row["file"] for row in found[:3]} == {f"train/x/{i}.jpg" for i in planted}
