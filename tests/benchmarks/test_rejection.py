"""Scores of images of something else: each on a few values that were worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from benchmarks.no_garment.rejection import Activations, scores_of, summary, threshold

KNOWN = Activations(np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8]]))


def test_a_threshold_marks_no_more_than_its_share_of_the_values() -> None:
    values = np.arange(100.0)
    assert threshold(values, 0.05) == 5
    assert np.mean(values < threshold(values, 0.05)) == 0.05
    assert threshold(np.zeros(100), 0.05) == 0  # ties are not marked


def test_a_model_of_probabilities_has_only_the_scores_of_probabilities() -> None:
    assert list(scores_of(KNOWN)) == ["highest probability", "entropy"]


def test_a_model_that_measures_the_feature_distance_is_scored_by_it() -> None:
    measured = dataclasses.replace(KNOWN, distances=np.array([1.0, 2, 3, 4]))
    score = scores_of(measured)["feature distance of the artifact"]
    assert score(measured).tolist() == [-1, -2, -3, -4]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("highest probability", 0.5),
        ("entropy", -np.log(2)),
    ],
)
def test_the_score_of_a_featureless_image_is_as_worked_out(name: str, expected: float) -> None:
    stranger = Activations(np.array([[0.5, 0.5]]))
    assert scores_of(KNOWN)[name](stranger)[0] == pytest.approx(expected)


def test_the_summary_counts_what_lies_below_the_threshold() -> None:
    many = Activations(np.column_stack([np.linspace(0.6, 1, 41), np.linspace(0.4, 0, 41)]))
    score = scores_of(many)["highest probability"]
    strange = {"drawings": Activations(np.array([[0.55, 0.45], [0.95, 0.05]]))}
    found = summary(score, many, strange)
    assert found["threshold"] == pytest.approx(0.62)  # two of 41 lie below: 0.60 and 0.61
    assert found["marked"] == {"validation": pytest.approx(2 / 41), "drawings": 0.5}
    assert found["area_under_roc"]["drawings"] == pytest.approx((41 + 6) / 82, abs=0.02)
