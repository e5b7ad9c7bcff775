"""Folds of cross-validation, and what is refused of the models that they give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from training.commands import main
from training.config import TrainConfig
from training.data.folds import Fold, assign_folds
from training.errors import ConfigError


def test_folds_share_every_class_equally() -> None:
    labels = np.array([0] * 50 + [1] * 23 + [2] * 7)

    assigned = assign_folds(labels, 5, seed=0)

    for label in range(3):
        counts = np.bincount(assigned[labels == label], minlength=5)
        assert counts.sum() == (labels == label).sum()
        assert counts.max() - counts.min() <= 1
    assert not np.array_equal(assigned, assign_folds(labels, 5, seed=1))


def test_more_folds_than_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="5 folds of 4 images leave some empty"):
        assign_folds(np.zeros(4, dtype=np.int64), 5, seed=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0/1", "folds are 2 or more, counted from 0. Received: fold 0 of 1"),
        ("5/5", "Received: fold 5 of 5"),
        ("5", "a fold is INDEX/COUNT, such as 0/5. Received: 5"),
    ],
)
def test_a_wrong_fold_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Fold.parse(text)


@pytest.mark.training
def test_each_fold_learns_from_the_images_that_it_does_not_judge(
    tmp_path: Path, drawings: Path, weights: Path
) -> None:
    command = [
        "train", "--name=turn", "--fold=0/3", "--size=71", "--epochs=1", "--warmup-epochs=0",
        f"--dataset={drawings}", f"--backbone-weights={weights}", f"--runs={tmp_path}",
        f"--cache={tmp_path / 'cache'}",
    ]  # fmt: skip
    assert main(command) == 0

    report = json.loads((tmp_path / "turn" / "report.json").read_text())
    assert report["train_images"] == 58  # of 60 of train and 27 of validation
    assert report["metrics"]["validation"]["images"] == 29


@pytest.mark.training
def test_a_model_of_a_fold_becomes_no_release_nor_its_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from converter.errors import SourceError
    from converter.sources.run_folder import open_source

    run = tmp_path / "fold"
    run.mkdir()
    described = {**TrainConfig(name="fold").to_dict(), "fold": {"index": 1, "count": 5}}
    (run / "config.json").write_text(json.dumps({**described, "labels": ["a", "b"]}))
    (run / "report.json").write_text(json.dumps({"temperature": 1.0}))
    (run / "model.keras").write_bytes(b"")
    for command in (
        ["release", str(run), "--version", "9.9.9"],
        ["soup", "mixed", "fold", "other", f"--runs={tmp_path}"],
    ):
        assert main(command) == 2
        assert "is fold 1 of 5: it has learned from validation" in capsys.readouterr().err
    with pytest.raises(SourceError, match="is of a cross-validation"):
        open_source(run / "model.keras")
