"""The activation map over an image: the colour lies where the map is high, and nowhere else."""

from __future__ import annotations

import numpy as np
from PIL import Image

from training.evaluation.overlay import overlay

GREY = Image.new("RGB", (40, 20), (100, 100, 100))


def test_the_colour_lies_where_the_map_is_high() -> None:
    shown = overlay(GREY, np.array([[8.0, 0.0, 0.0, -5.0]]))
    assert shown.size == (40, 20)
    left, right = shown.getpixel((1, 10)), shown.getpixel((38, 10))
    assert isinstance(left, tuple)
    # 70 % of (255, 70, 0) over 30 % of (100, 100, 100) is (208, 79, 30)
    assert np.abs(np.subtract(left, (208, 79, 30))).max() <= 4
    assert right == (100, 100, 100)


def test_a_map_without_a_cell_above_zero_shows_the_image_alone() -> None:
    assert overlay(GREY, np.zeros((2, 2))).tobytes() == GREY.tobytes()
    assert overlay(GREY, np.full((2, 2), -1.0)).tobytes() == GREY.tobytes()
