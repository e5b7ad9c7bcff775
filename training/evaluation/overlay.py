"""An activation map as a colour over its image, for people."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOUR = (255, 70, 0)  # of the cell that speaks most for the class
STRENGTH = 0.7  # opacity of that colour. A cell of 0 shows the image


def overlay(image: Image.Image, class_map: NDArray[np.floating[Any]]) -> Image.Image:
    """Return an image with a class's activation map over it.

    Args:
        image: RGB, upright.
        class_map: float, (height, width), over the whole image. Negative cells count as 0.

    Returns:
        RGB, of the same size. The image itself if no cell is above 0.
    """
    positive = np.maximum(class_map, 0)
    highest = float(positive.max())
    if highest <= 0:
        return image
    opacity = Image.fromarray((positive / highest * STRENGTH * 255).astype(np.uint8))
    smooth = opacity.resize(image.size, Image.Resampling.BILINEAR)
    return Image.composite(Image.new("RGB", image.size, COLOUR), image, smooth)
