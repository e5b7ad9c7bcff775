"""An image as the bytes of an image file."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """Return the image as a file's bytes.

    Args:
        image: of a mode that the format takes.
        image_format: Pillow's name of it, such as ``JPEG``.
        options: of Pillow's writer, such as ``quality``.
    """
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()
