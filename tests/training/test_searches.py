"""Searches on made-up features: resumable, in order, and reported as they were measured."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras", reason="needs Keras: make test-training")

import keras

from training.experiments import searches
from training.experiments.course_figures import SEARCHES, Search
from training.experiments.heads import HeadConfig, PooledFeatures, build_head, train_head

pytestmark = pytest.mark.training

TRIALS = [HeadConfig(learning_rate=rate, epochs=3, batch_size=8) for rate in (1e-1, 1e-5)]


def make_features(images: int = 60, views: int = 1, noise: float = 0.3) -> PooledFeatures:
    """Return features of three classes. Each class has a channel of its own."""
    rng = np.random.default_rng(0)
    labels = np.arange(images) % 3

    def draw() -> Any:
        values = rng.normal(0, noise, (images, 5)).astype(np.float32)
        values[np.arange(images), labels] += 1
        return values

    return PooledFeatures(
        training=tuple(draw() for _ in range(views)),
        training_labels=labels,
        validation=draw()[:30],
        validation_labels=labels[:30],
        class_names=("a", "b", "c"),
        size=(150, 150),
        seconds=0.0,
    )


@pytest.fixture(scope="module")
def features() -> PooledFeatures:
    return make_features()


@pytest.fixture(scope="module")
def searched(
    features: PooledFeatures, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[dict[str, Any]], Path]:
    """Return the rows of a search and its folder."""
    folder = tmp_path_factory.mktemp("searched")
    return searches.run_trials(features, TRIALS, folder), folder


def test_the_courses_searches_are_eleven_trials_of_190_epochs_in_all() -> None:
    trials = [HeadConfig(**trial) for search in SEARCHES.values() for trial in search.trials]

    assert len(trials) == 11
    assert sum(trial.epochs for trial in trials) == 190
    assert all(len(search.course) == len(search.trials) for search in SEARCHES.values())


def test_a_search_gives_one_row_per_trial_in_order(
    searched: tuple[list[dict[str, Any]], Path],
) -> None:
    rows, _ = searched
    assert [row["config"]["learning_rate"] for row in rows] == [1e-1, 1e-5]
    assert {len(values) for row in rows for values in row["history"].values()} == {3}
    good, bad = (row["history"]["val_accuracy"][-1] for row in rows)
    assert good >= 0.9  # a rate of 0.1 learns three separate classes, one of 1e-5 does not
    assert good > bad


def test_a_search_continues_with_the_missing_trials(
    tmp_path: Path, features: PooledFeatures, searched: tuple[list[dict[str, Any]], Path]
) -> None:
    rows, folder = searched
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for file in (tmp_path / "trials").iterdir():
        row = json.loads(file.read_text())
        if row["config"]["learning_rate"] == 1e-5:
            file.unlink()
        else:
            file.write_text(json.dumps({**row, "seconds": "not trained again"}))

    again = searches.run_trials(features, TRIALS, tmp_path)

    assert again[0]["seconds"] == "not trained again"
    assert again[1]["history"] == rows[1]["history"]


def test_other_images_are_other_trials(tmp_path: Path, features: PooledFeatures) -> None:
    one = [dataclasses.replace(TRIALS[0], epochs=1)]
    other = dataclasses.replace(features, validation=features.validation[::-1] * 2)

    assert searches.run_trials(features, one, tmp_path) != searches.run_trials(other, one, tmp_path)
    assert len(list((tmp_path / "trials").iterdir())) == 2


def test_equal_seeds_give_equal_trials(features: PooledFeatures) -> None:
    config = HeadConfig(inner_units=4, dropout=0.5, epochs=2, batch_size=8)

    first, again = (train_head(features, config)[1] for _ in range(2))

    assert first == again
    assert train_head(features, dataclasses.replace(config, seed=1))[1] != first


def test_the_best_epoch_is_kept_on_request(features: PooledFeatures) -> None:
    # Accuracy jumps about at a learning rate this high, so the last epoch is not the best.
    config = HeadConfig(epochs=12, learning_rate=5.0, batch_size=8, seed=1)

    head, history = train_head(features, config, keep_best=True)
    last, _ = train_head(features, config)

    def accuracy(model: keras.Model) -> float:
        predicted = np.asarray(model.predict_on_batch(features.validation)).argmax(axis=1)
        return float(np.mean(predicted == features.validation_labels))

    accuracies = history["val_accuracy"]
    assert accuracies[-1] < max(accuracies)
    assert accuracy(head) == pytest.approx(max(accuracies), abs=1e-6)
    assert accuracy(last) == pytest.approx(accuracies[-1], abs=1e-6)


def test_views_take_turns(features: PooledFeatures) -> None:
    # The second view shows nothing, so epochs 2 and 4 learn nothing about the classes.
    blank = np.zeros_like(features.training[0])
    config = HeadConfig(learning_rate=0.2, epochs=4)

    _, history = train_head(
        dataclasses.replace(features, training=(features.training[0], blank)), config
    )

    shown = history["accuracy"]
    assert shown[1] == pytest.approx(1 / 3, abs=0.02)
    assert shown[3] == pytest.approx(1 / 3, abs=0.02)
    assert shown[2] > 0.6


def test_the_head_is_the_courses_network() -> None:
    head = build_head(1024, 10, HeadConfig(inner_units=100, dropout=0.2))

    assert [type(layer).__name__ for layer in head.layers] == ["Dense", "Dropout", "Dense"]
    assert head.count_params() == 1024 * 100 + 100 + 100 * 10 + 10
    assert type(head.optimizer).__name__ == "Adam"


def test_a_leaderboard_is_sorted_and_names_the_best_epoch() -> None:
    def row(rate: float, accuracies: list[float]) -> dict[str, Any]:
        config = dataclasses.asdict(HeadConfig(learning_rate=rate))
        history = {"val_accuracy": accuracies, "accuracy": [0.5, 0.6, 0.7]}
        return {"config": config, "history": history, "seconds": 1.5}

    table = searches.leaderboard([row(0.1, [0.1, 0.3, 0.2]), row(0.2, [0.1, 0.2, 0.4])], images=10)

    assert [line["learning_rate"] for line in table] == [0.2, 0.1]
    assert [line["best_epoch"] for line in table] == [3, 2]
    assert [line["training_accuracy"] for line in table] == [0.7, 0.6]
    # Wilson, 4 of 10: 0.1682 to 0.6873
    assert (table[0]["low"], table[0]["high"]) == (0.1682, 0.6873)


def test_a_report_is_a_table_a_plot_and_json(
    tmp_path: Path, features: PooledFeatures, searched: tuple[list[dict[str, Any]], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    search = Search("Two rates", "learning_rate", [], [0.9, 0.1])

    result = searches.report(search, searched[0], features, tmp_path)

    text = (tmp_path / "leaderboard.md").read_text()
    assert text.startswith("# Two rates (frozen base at 150 px)")
    assert text in capsys.readouterr().out
    assert [line.split(" | ")[0] for line in text.splitlines()[6:]] == ["| 0.1", "| 1e-05"]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert result["course"] == {"0.1": 0.9, "1e-05": 0.1}
    assert set(result["ours"]) == {"0.1", "1e-05"}
