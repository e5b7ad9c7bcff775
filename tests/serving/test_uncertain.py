"""Images unlike those that a model knows: distances on values that were worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lambda_function.classifier import is_unlike_known, log_ratios, square_distances
from lambda_function.metadata import UncertainSpec


def test_log_ratios_are_logarithms_less_their_mean() -> None:
    ratios = log_ratios(np.array([[0.8, 0.2]], np.float32))
    assert ratios[0] == pytest.approx([np.log(2), -np.log(2)], abs=1e-6)  # log(0.8 / 0.2) / 2


def test_a_zero_of_a_quantised_softmax_counts_as_a_small_probability() -> None:
    ratios = log_ratios(np.array([[1.0, 0.0]], np.float32))
    assert ratios[0] == pytest.approx([np.log(1e7) / 2, -np.log(1e7) / 2])


def test_the_nearest_centre_counts() -> None:
    centres = np.array([[0.0, 0.0], [10.0, 0.0]])
    assert square_distances(np.array([[3.0, 4.0], [9.0, 0.0]]), centres).tolist() == [25.0, 1.0]


@pytest.mark.parametrize(
    ("probabilities", "is_unlike"),
    [((0.8, 0.2), False), ((0.2, 0.8), False), ((0.5, 0.5), True), ((0.999, 0.001), True)],
)
def test_a_prediction_far_from_every_class_is_unlike_the_known_ones(
    probabilities: tuple[float, float], is_unlike: bool
) -> None:
    # Log-ratios of (0.8, 0.2) are (log 2, -log 2). Both centres lie there, doubled by the factor.
    double = 2 * np.log(2)
    rule = UncertainSpec(
        centres=((double, -double), (-double, double)),
        factor=((2.0, 0.0), (0.0, 2.0)),
        farthest=1.0,
    )
    assert is_unlike_known(np.array(probabilities, np.float32), rule) is is_unlike
