"""The figures of activation maps, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.activation_maps import map_correlations, map_error


def two_class_map(first, second):
    """One image's map of 1x3 cells."""
    return np.stack([np.array([first], np.float32), np.array([second], np.float32)], axis=-1)[
        np.newaxis
    ]


@pytest.mark.parametrize(
    ("served", "expected"),
    [
        ([1, 2, 3], 1.0),
        ([10, 30, 50], 1.0),  # scale and offset do not matter here, the logit error sees them
        ([3, 2, 1], -1.0),
        # Less their means: (-1, 0, 1) and (-1, 1, 0). The product is 1, the norms sqrt(2) each.
        ([1, 3, 2], 0.5),
        ([7, 7, 7], 0.0),
        ([1, 2, np.nan], np.nan),
    ],
)
def test_correlation_is_pearsons_over_the_cells_of_one_class(served, expected):
    other = [9, 1, 5]  # of the class that is not compared
    found = map_correlations(
        two_class_map(other, [1, 2, 3]), two_class_map([0, 0, 1], served), np.array([1])
    )

    assert found == pytest.approx([expected], nan_ok=True)


def test_two_maps_without_any_difference_between_cells_agree():
    flat = two_class_map([2, 2, 2], [0, 0, 0])

    assert map_correlations(flat, flat * 3, np.array([0])) == [1.0]


def error(maps, probabilities, least_probability=0.0, bias=(0.5, -0.5)):
    return map_error(
        maps,
        np.array(bias, np.float32),
        np.array([probabilities], np.float32),
        temperature=2.0,
        least_probability=least_probability,
    )


# Means 2 and 1, with the bias logits 2.5 and 0.5: a difference of 2, of 1 after the temperature.
MAP = two_class_map([1, 2, 3], [0, 0, 3])
RIGHT = [np.e / (1 + np.e), 1 / (1 + np.e)]


def test_a_map_that_averages_to_the_logits_has_no_error():
    assert error(MAP, RIGHT) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("maps", "bias", "expected"),
    [
        (MAP + two_class_map([0, 0, 0], [0.3, 0.3, 0.3]), (0.5, -0.5), 0.3),
        (MAP / 2, (0.5, -0.5), 0.5),  # after the temperature, not before
        (MAP, (0.5, 0.5), 1.0),
        (MAP[..., ::-1], (0.5, -0.5), 2.0),  # of the other class
        (np.full_like(MAP, np.nan), (0.5, -0.5), np.nan),
    ],
)
def test_an_error_is_in_logits_before_the_temperature(maps, bias, expected):
    assert error(maps, RIGHT, bias=bias) == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_less_probable_classes_are_left_out():
    wrong = MAP + two_class_map([0, 0, 0], [9, 9, 9])

    assert error(wrong, RIGHT, least_probability=0.5) == 0.0
    assert error(wrong, RIGHT, least_probability=0.2) == pytest.approx(9, abs=1e-5)
