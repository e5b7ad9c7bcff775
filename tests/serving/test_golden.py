"""The shipped model predicts as it did when it was adopted.

`python -m converter adopt` records the predictions: of the images in ``examples/``, and for the
project's own model of 50 validation images, by file name only, checked where the data set is.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

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


def largest_difference(classifier: Classifier, root: Path, expected: Scores) -> float:
    """Return the largest difference from the record."""
    spec = classifier.metadata.input
    worst = 0.0
    for file, scores in expected.items():
        tensor = preprocess(decode_image((root / file).read_bytes(), target=spec), spec)
        named = dict(zip(classifier.metadata.labels, classifier.predict(tensor), strict=True))
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


@pytest.mark.data
@pytest.mark.release
def test_fifty_data_set_images_get_the_recorded_probabilities(classifier: Classifier) -> None:
    if not DATASET.is_dir():
        pytest.skip(f"no data set at {DATASET}. Name one with CLOTHING_DATASET")
    expected = recorded("dataset.json")

    assert len(expected) == 50
    assert largest_difference(classifier, DATASET, expected) <= TOLERANCE
