"""The own-data benchmark: what a team gets, what judges its model, and what the result says.

Trainings take minutes, so ``Trials`` gets others here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import own_data
from benchmarks.own_data import (
    SAMPLES,
    TEN,
    Sample,
    Trials,
    choose_images,
    link_images,
    measure,
    with_row,
)
from training.data.dataset import Split
from training.errors import DatasetError

TWO = Sample("two", {"hat": ("Hüte", 3), "shoes": ("帽子", 2)}, bar=0.9)


@pytest.fixture
def pool(tmp_path: Path) -> Split:
    """200 images of every class."""
    paths, labels = [], []
    for label, name in enumerate(TEN):
        (tmp_path / "all" / name).mkdir(parents=True)
        for number in range(200):
            path = tmp_path / "all" / name / f"{number}.jpg"
            path.write_bytes(b"")
            paths.append(path)
            labels.append(label)
    return Split(tuple(paths), np.array(labels, np.int64), TEN)


def test_a_team_gets_its_counts_and_never_an_image_that_judges(pool: Split) -> None:
    chosen, judging = choose_images(TWO, pool, seed=0)

    names = [TEN[label] for label in pool.labels[chosen]]
    assert (names.count("hat"), names.count("shoes"), len(names)) == (3, 2, 5)
    assert len(judging) == len(set(judging)) == 2 * 200 - 5
    assert not set(chosen) & set(judging)
    assert set(pool.labels[judging]) == {TEN.index("hat"), TEN.index("shoes")}


def test_another_seed_chooses_other_images(pool: Split) -> None:
    first, again, other = (set(choose_images(TWO, pool, seed)[0]) for seed in (0, 0, 1))

    assert first == again
    assert first != other


def test_at_most_400_images_judge(pool: Split) -> None:
    _, judging = choose_images(SAMPLES["names"], pool, seed=0)

    assert len(judging) == 400


def test_too_few_judges_are_refused(pool: Split) -> None:
    greedy = Sample("greedy", {"hat": ("hat", 101), "shoes": ("shoes", 0)})

    with pytest.raises(DatasetError, match=r"greedy: 299 images are left, 300 are needed"):
        choose_images(greedy, pool, seed=0)


def test_the_folder_is_not_split_and_has_the_team_s_names(pool: Split, tmp_path: Path) -> None:
    chosen, _ = choose_images(TWO, pool, seed=0)
    for _ in range(2):  # an interrupted benchmark writes it again
        link_images(pool.subset(chosen), TWO, tmp_path / "own")

    counts = {f.name: len(list(f.iterdir())) for f in (tmp_path / "own").iterdir()}
    assert counts == {"Hüte": 3, "帽子": 2}


def test_the_bars_of_the_issue_are_measured() -> None:
    assert {name: [count for _, count in s.counts.values()] for name, s in SAMPLES.items()} == {
        "three": [40, 40, 40],
        "two": [30, 30],
        "uneven": [300, 30],
        "names": [40, 40, 40],
        "ten": [100] * 10,
    }
    assert (SAMPLES["three"].bar, set(SAMPLES["three"].counts)) == (0.9, {"pants", "shoes", "hat"})
    assert len(own_data.SETTINGS) == 8


class Trainer:
    """Stands for the trainings: a model that calls every image a hat."""

    def __init__(self) -> None:
        self.trained: list[Mapping[str, Any]] = []

    def train(self, dataset: Path, settings: Mapping[str, Any], runs: Path, cache: Path) -> None:
        assert dataset.parts[-1] == ("images" if len(self.trained) > 2 else "own images")
        assert (runs.parent, cache.name) == (dataset.parent, "cache") or len(self.trained) > 2
        self.trained.append(settings)

    def predict_labels(self, file: Path, judges: Split) -> list[str]:
        assert file.name == "model.keras"
        return ["Hüte"] * len(judges)


def test_accuracy_is_that_of_the_judges_and_every_training_is_made_once(
    pool: Split, tmp_path: Path
) -> None:
    trainer = Trainer()
    trials = Trials(
        TWO, pool, tmp_path / "work" / "two",
        train_run=trainer.train, predict=trainer.predict_labels,
    )  # fmt: skip

    row = measure(TWO, trials, 3, search=True)

    assert len(trainer.trained) == 3 + 8
    assert trainer.trained[0] == {"seed": 0, "name": "default"}
    assert row["judged_on"] == 395
    assert row["mean"] == pytest.approx(197 / 395)  # 200 hats, of which the team has 3
    assert row["best_of_search"] == pytest.approx(197 / 395)
    assert "bar 0.90 MISSED, 0.0 points below the best of 8 settings" in own_data.to_line(row)
    assert measure(TWO, trials, 3, search=True) == row
    assert len(trainer.trained) == 3 + 8
    kept = json.loads((tmp_path / "work" / "two" / "seed0" / "default.json").read_text())
    assert kept == {"accuracy": pytest.approx(197 / 395)}


def test_a_new_row_replaces_its_own_and_keeps_the_others(tmp_path: Path) -> None:
    three, two, ten = (SAMPLES[name].title for name in ("three", "two", "ten"))
    file = tmp_path / "own_data.json"
    assert with_row(file, {"title": two, "mean": 0.8}) == [{"title": two, "mean": 0.8}]
    file.write_text(json.dumps({"rows": [{"title": three}, {"title": two}, {"title": ten}]}))

    rows = with_row(file, {"title": two, "mean": 0.9})

    assert rows == [{"title": three}, {"title": two, "mean": 0.9}, {"title": ten}]
