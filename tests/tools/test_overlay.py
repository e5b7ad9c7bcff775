"""An explanation is drawn where it belongs: upright, smooth, in the image's own pixels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encode
from tools.overlay import draw_overlay, smooth

GREY = (100, 100, 100)
# Four cells in a row. The third speaks for the class.
EXPLANATION = {"label": "hat", "grid": [[0, 0, 1, 0]], "box": [100, 0, 150, 80]}


def encoded(orientation: int = 1) -> bytes:
    image = Image.new("RGB", (80, 200) if orientation == 6 else (200, 80), GREY)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(image, exif=exif)


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_map_and_the_box_lie_where_the_model_looked(orientation: int) -> None:
    overlay = draw_overlay(encoded(orientation), EXPLANATION)

    assert (overlay.mode, overlay.size) == ("RGB", (200, 80))
    red = overlay.getpixel((125, 40))
    assert isinstance(red, tuple)
    assert red[0] > 150
    assert red[2] < 80
    assert overlay.getpixel((20, 40)) == GREY
    # The outline begins with the first pixel of the box and ends before its end.
    assert [overlay.getpixel((x, 40)) for x in (100, 149)] == [(0, 0, 0)] * 2
    assert [overlay.getpixel((x, 40)) for x in (101, 148)] == [(255, 255, 255)] * 2
    assert overlay.getpixel((150, 40)) != (0, 0, 0)


def test_a_map_of_zeros_leaves_the_image_as_it_is() -> None:
    nothing = {"label": "hat", "grid": [[0.0, 0.0]], "box": None}

    overlay = draw_overlay(encoded(), nothing)

    assert (np.asarray(overlay) == 100).all()


def test_an_image_of_many_rows_is_coloured_to_its_end() -> None:
    image = Image.new("RGB", (8, 1100), GREY)
    even = {"label": "hat", "grid": [[1.0, 1.0]], "box": None}

    overlay = np.asarray(draw_overlay(encode(image), even))

    # 0.35 of grey and 0.65 of the colour for 1, (200, 0, 40)
    assert (overlay == (165, 35, 61)).all()


def test_values_between_two_cells_are_between_theirs() -> None:
    values = smooth(np.array([[0, 1]], np.float32), 3, 100)

    assert values.shape == (3, 100)
    assert (np.diff(values, axis=1) >= 0).all()
    assert values[1, 50] == pytest.approx(0.5, abs=0.03)
    assert 0 <= values.min() <= values.max() <= 1


@pytest.mark.parametrize("box", [[0, 0, 1, 1], [199, 79, 200, 80], [5, 5, 7, 6]])
def test_a_box_of_few_pixels_is_drawn_too(box: list[int]) -> None:
    overlay = draw_overlay(encoded(), {"label": "hat", "grid": [[0.0]], "box": box})

    assert overlay.getpixel((box[0], box[1])) == (0, 0, 0)
