"""Searches on made-up features: resumable, in order, and reported as they were found."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras", reason="needs Keras: make test-training")

import keras

from training.errors import ConfigError
from training.experiments import tune
from training.experiments.course_figures import EPOCHS, EXPERIMENTS
from training.fit import heads
from training.fit.heads import HeadConfig, PooledFeatures, build_head, train_head, whole_model

pytestmark = pytest.mark.training

TRIALS = [HeadConfig(learning_rate=rate, epochs=3, batch_size=8) for rate in (1e-1, 1e-5)]
SEARCH: dict[str, Any] = {
    "title": "Two rates", "field": "learning_rate", "trials": TRIALS, "course": [0.9, 0.1]
}  # fmt: skip


def make_features(images: int = 60, views: int = 1) -> PooledFeatures:
    """Three classes, each with a channel of its own that says so."""
    generator = np.random.default_rng(0)
    labels = np.arange(images) % 3

    def draw() -> Any:
        noise = generator.normal(0, 0.3, (images, 5)).astype(np.float32)
        noise[np.arange(images), labels] += 1
        return noise

    return PooledFeatures(
        training=tuple(draw() for _ in range(views)),
        training_labels=labels,
        validation=draw()[:30],
        validation_labels=labels[:30],
        class_names=("a", "b", "c"),
        size=(150, 150),
        block=13,
        seconds=0.0,
    )


@pytest.fixture
def features() -> PooledFeatures:
    return make_features()


def test_the_courses_searches_are_eleven_trials_of_190_epochs_in_all() -> None:
    assert list(EXPERIMENTS) == list(tune.COURSE)
    assert sum(len(search["trials"]) for search in EXPERIMENTS.values()) == 11
    assert EPOCHS == 190
    for search in EXPERIMENTS.values():
        assert len(search["course"]) == len(search["trials"])


def test_a_search_gives_one_row_per_trial_in_order(
    tmp_path: Path, features: PooledFeatures
) -> None:
    rows = tune.search_heads(features, "two", TRIALS, tmp_path)
    assert [row["config"]["learning_rate"] for row in rows] == [1e-1, 1e-5]
    for row in rows:
        assert {len(values) for values in row["history"].values()} == {3}
    good, bad = (row["history"]["val_accuracy"][-1] for row in rows)
    assert good >= 0.9  # a rate of 0.1 learns three separate classes, one of 1e-5 does not
    assert good > bad


def test_a_search_goes_on_with_the_trials_that_are_missing(
    tmp_path: Path, features: PooledFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[float] = []
    real = heads.train_head

    def stop_at_the_second(*args: Any, **kwargs: Any) -> Any:
        trained.append(args[1].learning_rate)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(heads, "train_head", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        tune.search_heads(features, "two", TRIALS, tmp_path)
    rows = tune.search_heads(features, "two", TRIALS, tmp_path)
    assert trained == [1e-1, 1e-5, 1e-5]
    assert len(rows) == 2
    assert tune.search_heads(features, "two", TRIALS, tmp_path) == rows
    assert len(trained) == 3


def test_other_images_or_another_grid_are_another_study(
    tmp_path: Path, features: PooledFeatures
) -> None:
    one = [dataclasses.replace(TRIALS[0], epochs=1)]
    first = tune.search_heads(features, "s", one, tmp_path)
    other = dataclasses.replace(features, validation=features.validation[::-1] * 2)
    assert tune.search_heads(other, "s", one, tmp_path) != first
    wider = [*one, dataclasses.replace(one[0], learning_rate=0.5)]
    assert len(tune.search_heads(features, "s", wider, tmp_path)) == 2


def test_equal_seeds_give_equal_trials(features: PooledFeatures) -> None:
    config = HeadConfig(inner_units=4, dropout=0.5, epochs=2, batch_size=8)
    first, again = (train_head(features, config)[1] for _ in range(2))
    assert first == again
    assert train_head(features, dataclasses.replace(config, seed=1))[1] != first


def test_the_best_epoch_is_kept_where_asked_for(features: PooledFeatures) -> None:
    # A learning rate this high makes accuracy jump about, so that the last epoch is not the best.
    config = HeadConfig(epochs=12, learning_rate=5.0, batch_size=8, seed=1)
    head, history = train_head(features, config, keep_best=True)
    last, _ = train_head(features, config)

    def accuracy(found: Any) -> float:
        answers = np.asarray(found.predict_on_batch(features.validation)).argmax(axis=1)
        return float(np.mean(answers == features.validation_labels))

    assert history["val_accuracy"][-1] < max(history["val_accuracy"])
    assert accuracy(head) == pytest.approx(max(history["val_accuracy"]), abs=1e-6)
    assert accuracy(last) == pytest.approx(history["val_accuracy"][-1], abs=1e-6)


def test_a_base_and_its_head_are_a_model_from_images_to_probabilities() -> None:
    pixels = keras.Input((4, 4, 3))
    base = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(pixels))
    head = build_head(3, 5, HeadConfig())
    model = whole_model(base, head)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 4, 4, 3)).astype(np.float32)
    logits = np.asarray(head(images.mean(axis=(1, 2))))
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.asarray(model(images)) == pytest.approx(expected, abs=1e-6)


def test_views_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    features = make_features(views=2)
    shown: list[int] = []
    head = build_head(5, 3, HeadConfig())
    real = head.fit

    def fit(images: Any, *args: Any, **kwargs: Any) -> Any:
        shown.append(next(i for i, view in enumerate(features.training) if view is images))
        return real(images, *args, **kwargs)

    monkeypatch.setattr(head, "fit", fit)
    monkeypatch.setattr(heads, "build_head", lambda *_: head)
    _, history = train_head(features, HeadConfig(epochs=3))
    assert shown == [0, 1, 0]
    assert len(history["val_accuracy"]) == 3


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

    table = tune.leaderboard([row(0.1, [0.1, 0.3, 0.2]), row(0.2, [0.1, 0.2, 0.4])], images=10)
    assert [line["learning_rate"] for line in table] == [0.2, 0.1]
    assert [line["best_epoch"] for line in table] == [3, 2]
    assert [line["training_accuracy"] for line in table] == [0.7, 0.6]
    # Wilson, 4 of 10: 0.1682 to 0.6873
    assert (table[0]["low"], table[0]["high"]) == (0.1682, 0.6873)


def test_a_report_is_tables_plots_and_json(
    tmp_path: Path, features: PooledFeatures, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tune.search_heads(features, "two", TRIALS, tmp_path)
    tune.report("two", SEARCH, rows, features, tmp_path, tmp_path / "results", command="tune two")
    text = (tmp_path / "two" / "leaderboard.md").read_text()
    assert text.startswith("# Two rates (frozen base: blocks 1-13 at 150 px)")
    assert text in capsys.readouterr().out
    with (tmp_path / "two" / "leaderboard.csv").open() as file:
        assert [row["learning_rate"] for row in csv.DictReader(file)] == ["0.1", "1e-05"]
    for plot in ("curves.png", "comparison.png"):
        assert (tmp_path / "two" / plot).read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "results" / "two.json").read_text())
    assert found["frozen_blocks"] == 13
    assert found["course"] == {"0.1": 0.9, "1e-05": 0.1}
    assert set(found["ours"]) == {"0.1", "1e-05"}


def test_a_grid_is_every_combination() -> None:
    trials = tune.parse_grid(["learning_rate=1e-3,1e-2", "inner_units=0,50"], epochs=7)
    assert [(t.learning_rate, t.inner_units, t.epochs) for t in trials] == [
        (1e-3, 0, 7), (1e-3, 50, 7), (1e-2, 0, 7), (1e-2, 50, 7)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ("momentum=0.9", "a grid is NAME=VALUE"),
        ("dropout", "a grid is NAME=VALUE"),
        ("dropout=a lot", "must be numbers. Received: a lot"),
        ("dropout=1.5", "dropout must be 0 or more, and below 1. Received: 1.5"),
    ],
)
def test_a_grid_that_cannot_be_searched_is_refused(definition: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tune.parse_grid([definition], epochs=1)


def test_an_unknown_search_is_named() -> None:
    with pytest.raises(ConfigError, match="Received: 'momentum'"):
        tune.run(argparse.Namespace(grid=None, searches=["momentum"]))
