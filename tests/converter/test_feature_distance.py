"""The feature distance: against the textbook formula, in numbers and in the graph."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from converter.errors import ConversionError
from converter.sources.feature_distance import (
    FeatureDistance,
    describe,
    fit,
    require_images,
    with_served_threshold,
)
from lambda_function.classifier import Classifier
from lambda_function.metadata import DistanceSpec, read_metadata
from tests.conftest import TINY_ALL_MODEL

RNG = np.random.default_rng(0)
SCALES = np.array([3.0, 2.0, 1.0, 0.5, 0.5, 0.5])
CENTRES = np.array([[0.0] * 6, [4, 0, 0, 0, 0, 4], [0, 9, 0, 2, 0, 0]])
LABELS = np.arange(600) % 3
FEATURES = CENTRES[LABELS] + RNG.normal(size=(600, 6)) * SCALES


def mahalanobis(points: np.ndarray, distance: FeatureDistance) -> np.ndarray:
    """Return the squared distances by the inverse of the whole covariance."""
    size = len(distance.components)
    inside = distance.components @ np.diag(distance.variances) @ distance.components.T
    rest = np.eye(size) - distance.components @ distance.components.T
    inverse = np.linalg.inv(inside + distance.rest * rest)
    return np.array(
        [
            min((point - mean) @ inverse @ (point - mean) for mean in distance.means)
            for point in points
        ]
    )


def test_the_distance_is_mahalanobis_of_the_fitted_covariance():
    distance = fit(FEATURES, LABELS, components=3)

    np.testing.assert_allclose(distance.measure(FEATURES), mahalanobis(FEATURES, distance))


def test_the_fit_finds_means_components_and_the_rest():
    distance = fit(FEATURES, LABELS, components=3)

    np.testing.assert_allclose(distance.means, CENTRES, atol=0.5)
    np.testing.assert_allclose(distance.variances, [1, 4, 9], rtol=0.2)
    assert distance.rest == pytest.approx(0.25, rel=0.2)
    np.testing.assert_allclose(np.abs(distance.components[[2, 1, 0], [0, 1, 2]]), 1, atol=0.05)


def test_strangers_are_farther_than_images_of_the_classes():
    distance = fit(FEATURES[:400], LABELS[:400])
    strangers = CENTRES[:1] + 5 * RNG.normal(size=(100, 6))
    farthest = describe(distance.measure(FEATURES[400:])).farthest

    assert np.mean(distance.measure(strangers) > farthest) > 0.9


@pytest.mark.parametrize(
    "features", [np.ones((9, 1)), np.tile([[1.0, 2.0, 3.0]], (9, 1))], ids=["one", "equal"]
)
def test_features_that_show_no_difference_are_refused(features):
    with pytest.raises(ConversionError, match="differ within a class"):
        fit(features, np.arange(9) % 3)


@pytest.mark.parametrize(
    ("count", "farthest", "share"), [(100, 94, 0.05), (341, 323, 17 / 341), (19, 18, 0.0)]
)
def test_at_most_a_twentieth_is_beyond_the_threshold(count, farthest, share):
    spec = describe(RNG.permutation(count).astype(float))

    assert spec == DistanceSpec(farthest=farthest, images=count, share=share)


@pytest.mark.parametrize(
    ("held_out", "train", "received"),
    [
        (99, np.arange(300) % 3, "99 and 300, 100 of the rarest class"),
        (100, np.arange(199) % 3, "100 and 199, 66 of the rarest class"),
        (100, np.repeat([0, 1, 2], [150, 150, 1]), "100 and 301, 1 of the rarest class"),
        (100, np.arange(300) % 2, "100 and 300, 0 of the rarest class"),
    ],
)
def test_too_few_images_are_refused_with_their_numbers(held_out, train, received):
    require_images(100, np.arange(200) % 3, 3)
    with pytest.raises(ConversionError, match=f"needs 100 images .* Received: {received}"):
        require_images(held_out, train, 3)


def test_the_threshold_of_an_artifact_is_that_of_its_own_distances(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(40)]
    for number, path in enumerate(paths):
        Image.new("RGB", (48, 32), (128 + 3 * number,) * 3).save(path)
    before = TINY_ALL_MODEL.read_bytes()

    after = with_served_threshold(before, paths)

    # Two of 40 may be farther, so the third brightest image gives the threshold: three times the
    # square of its level in -1..1.
    level = (128 + 3 * 37) / 127.5 - 1
    spec = read_metadata(after).feature_distance
    assert spec.farthest == pytest.approx(3 * level**2, abs=1e-5)
    assert (spec.images, spec.share) == (40, 0.05)
    same = dataclasses.replace(read_metadata(after), feature_distance=None)
    assert same == dataclasses.replace(read_metadata(before), feature_distance=None)
    image = np.zeros((1, 32, 48, 3), np.float32)
    assert Classifier(after).predict_all(image).feature_distance == 0


@pytest.mark.training
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_the_graph_measures_the_same_in_float32(offset):
    import tensorflow as tf

    features = FEATURES + offset
    distance = fit(features, LABELS, components=3)
    strange = np.concatenate([features[:20], offset + 20 * RNG.normal(size=(20, 6))])

    found = [
        float(distance.in_graph(tf.constant(row[np.newaxis], tf.float32))[0, 0]) for row in strange
    ]

    np.testing.assert_allclose(found, distance.measure(strange), rtol=5e-3, atol=5e-3)


@pytest.mark.training
def test_a_class_whose_features_hardly_differ_keeps_float32_exact_enough():
    import tensorflow as tf

    features = CENTRES[LABELS] + 1e-6 * RNG.normal(size=(600, 6)) * SCALES
    distance = fit(features, LABELS, components=3)

    rows = features[:20]
    found = [
        float(distance.in_graph(tf.constant(row[np.newaxis], tf.float32))[0, 0]) for row in rows
    ]

    # Without a least variance the rounding of float32 alone would make them millions.
    np.testing.assert_allclose(found, distance.measure(rows), atol=1)
