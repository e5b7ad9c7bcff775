"""The shipped model predicts as it did when it was adopted.

`python -m converter adopt` records the predictions: of the images in ``examples/``, and for the
project's own model of 50 validation images, by file name only, checked where the data set is.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lambda_function import EXAMPLES, REPOSITORY, SHIPPED_MODEL, example_image
from lambda_function.classifier import Classifier
from lambda_function.images.decode import decode_image, preprocess

GOLDEN = REPOSITORY / "tests" / "golden"
DATASET = Path(
    os.environ.get("CLOTHING_DATASET") or REPOSITORY.parent / "shared" / "clothing-dataset-small"
)
# Largest difference of one probability. Integer kernels are exact. The last place of float
# arithmetic differs between processors.
TOLERANCE = 0.004
MIN_EXAMPLE_SCORE = 0.8  # an example that looks wrong makes a bad first impression
Scores = dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(SHIPPED_MODEL)


def recorded(name: str) -> Scores:
    scores: Scores = json.loads((GOLDEN / name).read_text())
    return scores


def largest_difference(
    classifier: Classifier,
    root: Path,
    expected: Scores,
    *,
    spec: Any = None,
    tensor_fault: Callable[[Any], Any] = lambda tensor: tensor,
    label_fault: Callable[[Any], Any] = lambda scores: scores,
) -> float:
    """Return the largest difference from the record, with a fault if one is given."""
    spec = spec or classifier.metadata.input
    worst = 0.0
    for file, scores in expected.items():
        tensor = preprocess(decode_image((root / file).read_bytes(), target=spec), spec)
        predicted = label_fault(classifier.predict(tensor_fault(tensor)))
        named = dict(zip(classifier.metadata.labels, predicted, strict=True))
        worst = max(worst, *(abs(float(named[label]) - scores[label]) for label in scores))
    return worst


def test_the_examples_get_the_recorded_probabilities(classifier: Classifier) -> None:
    expected = recorded("examples.json")

    assert set(expected) == {path.name for path in EXAMPLES.iterdir()}
    assert example_image().name in expected
    assert largest_difference(classifier, EXAMPLES, expected) <= TOLERANCE


@pytest.mark.release
def test_every_example_is_classified_right_and_with_confidence() -> None:
    for name, scores in recorded("examples.json").items():
        assert scores[name.removesuffix(".jpg")] >= MIN_EXAMPLE_SCORE, name


@pytest.mark.release
def test_swapped_channels_are_caught_by_the_examples(classifier: Classifier) -> None:
    difference = largest_difference(
        classifier,
        EXAMPLES,
        recorded("examples.json"),
        tensor_fault=lambda tensor: np.ascontiguousarray(tensor[..., ::-1]),
    )
    assert difference > 5 * TOLERANCE


@pytest.mark.release
def test_shifted_labels_are_caught_by_the_examples(classifier: Classifier) -> None:
    difference = largest_difference(
        classifier,
        EXAMPLES,
        recorded("examples.json"),
        label_fault=lambda scores: np.roll(scores, 1),
    )
    assert difference > 5 * TOLERANCE


@pytest.mark.release
@pytest.mark.parametrize("resize_filter", ["bilinear", "lanczos"])
def test_another_resize_filter_is_caught_by_the_examples(
    classifier: Classifier, resize_filter: str
) -> None:
    spec = dataclasses.replace(classifier.metadata.input, resize_filter=resize_filter)
    difference = largest_difference(classifier, EXAMPLES, recorded("examples.json"), spec=spec)
    assert difference > 2 * TOLERANCE


@pytest.mark.data
@pytest.mark.release
def test_fifty_data_set_images_get_the_recorded_probabilities(classifier: Classifier) -> None:
    if not DATASET.is_dir():
        pytest.skip(f"no data set at {DATASET}. Name one with CLOTHING_DATASET")
    expected = recorded("dataset.json")

    assert len(expected) == 50
    assert largest_difference(classifier, DATASET, expected) <= TOLERANCE
