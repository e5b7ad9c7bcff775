"""Draw an explanation over its image: the activation map in colour, and the box."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lambda_function.images.decode import decode_image

# Colour and opacity (0..1) by value. Yellow and red differ in lightness too.
_STOPS = (0.0, 0.5, 1.0)
_COLOURS = np.array([[255, 230, 80], [255, 200, 0], [200, 0, 40]], np.float32)
_OPACITIES = np.array([0.0, 0.3, 0.65], np.float32)
_ROWS_AT_ONCE = 256  # A row of floats takes 25 times the memory of the image's row.
_LINE_SHARE = 200  # of the shorter side: the line's width


def draw_overlay(data: bytes, explanation: dict[str, Any]) -> Image.Image:
    """Return an image with its activation map and box drawn over it.

    Args:
        data: the encoded image.
        explanation: of this image, as the response has it.

    Returns:
        Mode RGB, upright, in the image's own size.
    """
    image = decode_image(data)
    values = smooth(np.array(explanation["grid"], np.float32), image.height, image.width)
    levels = np.array(image)
    for top in range(0, len(levels), _ROWS_AT_ONCE):
        rows = slice(top, top + _ROWS_AT_ONCE)
        levels[rows] = _blend(levels[rows], values[rows])
    overlay = Image.fromarray(levels)
    if explanation["box"]:
        _draw_box(overlay, explanation["box"])
    return overlay


def _blend(levels: NDArray[np.uint8], values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return levels, uint8, (rows, width, 3), under the colours of values, (rows, width), 0..1."""
    colours = np.stack([np.interp(values, _STOPS, channel) for channel in _COLOURS.T], axis=-1)
    opacity = np.interp(values, _STOPS, _OPACITIES)[..., np.newaxis]
    return (levels * (1 - opacity) + colours * opacity).round().astype(np.uint8)


def smooth(grid: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Return a grid's values for every pixel.

    Args:
        grid: float32, (rows, columns), 0..1.
        height, width: of the image.

    Returns:
        float32, (height, width), 0..1.
    """
    resized = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(resized, np.float32), 0, 1)


def _draw_box(image: Image.Image, box: list[int]) -> None:
    left, top, right, bottom = box
    width = max(1, min(image.size) // _LINE_SHARE)
    pen = ImageDraw.Draw(image)
    corners = (left, top, right - 1, bottom - 1)  # Pillow draws the end too
    pen.rectangle(corners, outline="black", width=3 * width)
    inside = (left + width, top + width, right - 1 - width, bottom - 1 - width)
    if inside[0] <= inside[2] and inside[1] <= inside[3]:
        pen.rectangle(inside, outline="white", width=width)
