"""Tests of how the ranges of the calibration images become one."""

import numpy as np
import pytest

from converter.calibration import join_ranges

pytestmark = pytest.mark.training


def of_image(low: float, high: float) -> dict[str, dict[str, np.ndarray]]:
    return {"relu": {"min": np.array([[low]]), "max": np.array([[high]])}}


def test_one_image_of_extremes_does_not_widen_the_range_of_all() -> None:
    images = [of_image(-1 - step, 1 + step) for step in range(10)] + [of_image(-100, 100)]
    joined = join_ranges(images, quantile=0.7)["relu"]
    # Of 11 sorted values the quantile 0.7 is the one at index 7.
    assert joined["max"].tolist() == [[8]]
    assert joined["min"].tolist() == [[-8]]
    assert joined["max"].dtype == np.float32


def test_the_quantile_1_covers_the_extremes_of_all_images() -> None:
    joined = join_ranges([of_image(-3, 1), of_image(-2, 5)], quantile=1)["relu"]
    assert (joined["min"].item(), joined["max"].item()) == (-3, 5)
