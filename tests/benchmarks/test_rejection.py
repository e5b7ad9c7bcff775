"""Scores of images of something else: each on a few values that were worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from benchmarks.no_garment.rejection import Activations, blob_share, scores_of, summary, threshold

LABELS = np.array([0, 0, 1, 1])
KNOWN = Activations(
    probabilities=np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8]]),
    logits=np.array([[3.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 2.0]]),
    pooled=np.array([[1.0, 0.0], [1.0, 0.2], [0.0, 1.0], [0.2, 1.0]]),
    maps=np.ones((4, 2, 2, 2)),
)


def test_a_threshold_marks_no_more_than_its_share_of_the_values() -> None:
    values = np.arange(100.0)
    assert threshold(values, 0.05) == 5
    assert np.mean(values < threshold(values, 0.05)) == 0.05
    assert threshold(np.zeros(100), 0.05) == 0  # ties are not marked


def test_a_model_of_probabilities_has_only_the_scores_of_probabilities() -> None:
    alone = Activations(KNOWN.probabilities)
    assert list(scores_of(alone)) == ["highest probability", "entropy"]


def test_a_model_that_measures_the_feature_distance_is_scored_by_it() -> None:
    measured = dataclasses.replace(KNOWN, distances=np.array([1.0, 2, 3, 4]))
    score = scores_of(measured)["feature distance of the artifact"]
    assert score(measured).tolist() == [-1, -2, -3, -4]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("highest probability", 0.5),
        ("entropy", -np.log(2)),
        ("highest logit", 0.0),
        ("energy", np.log(2)),
        ("map inside one blob", 1.0),
        ("Euclidean distance of features", -(0.9**2 + 1)),  # nearest mean: (1, 0.1) or (0.1, 1)
    ],
)
def test_the_score_of_a_featureless_image_is_as_worked_out(name: str, expected: float) -> None:
    stranger = Activations(
        np.array([[0.5, 0.5]]), np.zeros((1, 2)), np.array([[1.9, 1.1]]), np.ones((1, 2, 2, 2))
    )
    score = scores_of(KNOWN, KNOWN, LABELS)[name]
    assert score(stranger)[0] == pytest.approx(expected)


def test_every_distance_is_largest_far_from_all_class_means() -> None:
    far = Activations(np.array([[1e-6, 1 - 1e-6]]), np.zeros((1, 2)), np.array([[-5.0, 9.0]]))
    for name, score in scores_of(KNOWN, KNOWN, LABELS).items():
        if "distance" in name:
            assert score(far)[0] < score(dataclasses.replace(KNOWN)).min(), name


def test_the_summary_counts_what_lies_below_the_threshold() -> None:
    many = Activations(np.column_stack([np.linspace(0.6, 1, 41), np.linspace(0.4, 0, 41)]))
    score = scores_of(many)["highest probability"]
    strange = {"drawings": Activations(np.array([[0.55, 0.45], [0.95, 0.05]]))}
    found = summary(score, many, strange)
    assert found["threshold"] == pytest.approx(0.62)  # two of 41 lie below: 0.60 and 0.61
    assert found["marked"] == {"validation": pytest.approx(2 / 41), "drawings": 0.5}
    assert found["area_under_roc"]["drawings"] == pytest.approx((41 + 6) / 82, abs=0.02)


def test_the_largest_blob_is_of_touching_cells_of_at_least_half_the_maximum() -> None:
    grid = np.array([[4.0, 2.0, 0.0], [0.0, 0.0, 3.0], [1.0, -9.0, 0.0]])
    assert blob_share(grid) == pytest.approx(6 / 10)  # 4 and 2 touch, 3 only at a corner
    assert blob_share(np.full((2, 2), -1.0)) == 0
