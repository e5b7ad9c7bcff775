"""The rule for uncertain images: fitted on held-out images, embedded, and then applied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lambda_function.classifier import Classifier, is_unlike_known
from lambda_function.images.decode import decode_image, preprocess
from lambda_function.metadata import read_metadata
from tests.conftest import TINY_MODEL
from training.data.dataset import Split
from training.errors import DatasetError
from training.evaluation.uncertain import add_uncertain_rule, fit_rule

COLOURS = {"red": (230, 30, 30), "green": (30, 230, 30), "blue": (30, 30, 230), "dark": (9, 9, 9)}


def predictions(seed: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return probabilities of three classes around one mean each, and the classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    logits = 5 * np.eye(3)[labels] + rng.normal(size=(count, 3))
    values = np.exp(logits)
    return (values / values.sum(axis=1, keepdims=True)).astype(np.float32), labels


def test_a_twentieth_of_new_images_is_marked_and_no_more_of_the_fitted_ones() -> None:
    fitted, labels = predictions(0, 210)
    rule = fit_rule(fitted, labels)
    new, _ = predictions(1, 3000)
    assert sum(is_unlike_known(row, rule) for row in fitted) <= 10  # 5 % of 210
    assert 0.03 < np.mean([is_unlike_known(row, rule) for row in new]) < 0.07


def test_a_prediction_between_all_classes_is_marked() -> None:
    rule = fit_rule(*predictions(1, 300))
    assert is_unlike_known(np.full(3, 1 / 3, np.float32), rule)


@pytest.fixture
def held_out(tmp_path: Path) -> Split:
    rng = np.random.default_rng(0)
    paths, labels = [], []
    for number in range(120):
        colour = np.array(list(COLOURS.values())[number % 4])
        pixels = np.clip(colour + rng.normal(0, 12, 3), 0, 255).astype(np.uint8)
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (20, 20), tuple(map(int, pixels))).save(paths[-1])
        labels.append(number % 4)
    return Split(tuple(paths), np.array(labels), tuple(COLOURS))


def test_the_rule_is_embedded_and_the_model_stays_the_same(held_out: Split) -> None:
    before = TINY_MODEL.read_bytes()
    after = add_uncertain_rule(before, held_out)
    metadata = read_metadata(after)
    assert metadata.uncertain is not None
    assert metadata.format_version == 3
    assert add_uncertain_rule(before, held_out) == after
    classifier, plain = Classifier(after), Classifier(before)
    tensors = [
        preprocess(decode_image(path.read_bytes(), target=metadata.input), metadata.input)
        for path in held_out.paths
    ]
    assert np.array_equal(classifier.predict(tensors[0]), plain.predict(tensors[0]))
    marked = [is_unlike_known(classifier.predict(each), metadata.uncertain) for each in tensors]
    assert 1 <= sum(marked) <= 6  # 5 % of 120


def test_too_few_images_in_all_or_of_a_class_are_refused(held_out: Split) -> None:
    artifact = TINY_MODEL.read_bytes()
    rare = np.flatnonzero((held_out.labels != 2) | (np.arange(120) < 4))
    assert len(rare) < 100
    many = held_out.subset(np.concatenate([rare, rare]))  # one image of a class, but twice
    many.labels[len(rare) :][many.labels[len(rare) :] == 2] = 1
    for chosen in (held_out.subset(np.arange(99)), many):
        with pytest.raises(DatasetError, match="needs 100 images that were not trained on"):
            add_uncertain_rule(artifact, chosen)
