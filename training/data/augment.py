"""Random but repeatable variations of a training image. Validation images are never varied.

They act on the decoded image, before the one antialiased resize of
``lambda_function.images.decode.preprocess``, so that augmented pixels are as sharp as plain ones.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from lambda_function.images.decode import FILTERS, decode_image
from lambda_function.metadata import InputSpec

CROP_AREA = (0.5, 1.0)  # share of the image's area
CROP_ASPECT = (0.8, 1.25)  # relative to the image's own
ROTATION_DEGREES = 12.0
COLOUR_FACTOR = (0.7, 1.3)  # brightness, contrast, saturation. 1 is unchanged
JPEG_QUALITY = (30, 95)
STRONG_COLOUR_FACTOR = (0.6, 1.4)
STRONG_SHARES = {"rotate": 0.3, "grey": 0.1, "recompress": 0.3, "erase": 0.25}  # of the images
ERASED_AREA = (0.02, 0.2)  # share of the image's area


def augment(
    image: Image.Image, *, view: int, index: int, seed: int, recompress: bool = False
) -> Image.Image:
    """Return one view of an image. Equal arguments give equal pixels.

    Args:
        image: mode RGB.
        view: 0 is the image itself, 1 its mirror image, higher ones are random: flip,
            rotation, crop and colour.
        index: of the image in its split.
        seed: of the run.
        recompress: random views are also saved as JPEG of a random quality and read again.

    Returns:
        An image of mode RGB, of any size.
    """
    if view == 0:
        return image
    if view == 1:
        return ImageOps.mirror(image)
    rng = np.random.default_rng((seed, view, index))
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
    image = _rotate(image, rng)
    image = _crop(image, rng)
    image = _colour(image, rng)
    return _recompress(image, rng) if recompress else image


def augment_strongly(
    image: Image.Image, spec: InputSpec, rng: np.random.Generator, *, min_area: float
) -> Image.Image:
    """Return an image varied at random, at the size of the model's input.

    Crop and resize are one step (random resized crop, as Szegedy et al. train, arXiv:1409.4842).
    What follows acts on few pixels: flip, rotation, colour, greyscale, JPEG and random erasing
    (Zhong et al., AAAI 2020, arXiv:1708.04896).

    Args:
        image: mode RGB.
        spec: size and resize filter.
        rng: random generator.
        min_area: smallest share of the image's area that a crop keeps, 0..1.
    """
    box = _crop_box(image, rng, (min_area, 1.0))
    varied = image.resize((spec.width, spec.height), FILTERS[spec.resize_filter], box=box)
    if rng.random() < 0.5:
        varied = ImageOps.mirror(varied)
    happens = {name: rng.random() < share for name, share in STRONG_SHARES.items()}
    if happens["rotate"]:
        varied = _rotate(varied, rng)
    varied = _colour(varied, rng, STRONG_COLOUR_FACTOR)
    if happens["grey"]:
        varied = varied.convert("L").convert("RGB")
    if happens["recompress"]:
        varied = _recompress(varied, rng)
    return _erase(varied, rng) if happens["erase"] else varied


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


def _rotate(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    degrees = rng.uniform(-ROTATION_DEGREES, ROTATION_DEGREES)
    edge = tuple(int(v) for v in np.asarray(image.resize((1, 1))).reshape(3))
    return image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=edge)


def _crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.crop(_crop_box(image, rng, CROP_AREA))


def _crop_box(
    image: Image.Image, rng: np.random.Generator, areas: tuple[float, float]
) -> tuple[int, int, int, int]:
    area = rng.uniform(*areas)
    stretch = np.exp(rng.uniform(*np.log(CROP_ASPECT)) / 2)
    width = max(1, min(image.width, round(image.width * np.sqrt(area) * stretch)))
    height = max(1, min(image.height, round(image.height * np.sqrt(area) / stretch)))
    left = int(rng.integers(0, image.width - width + 1))
    top = int(rng.integers(0, image.height - height + 1))
    return left, top, left + width, top + height


def _colour(
    image: Image.Image, rng: np.random.Generator, factors: tuple[float, float] = COLOUR_FACTOR
) -> Image.Image:
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhancer(image).enhance(float(rng.uniform(*factors)))
    return image


def _erase(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Paint a rectangle in a random colour."""
    side = np.sqrt(rng.uniform(*ERASED_AREA))
    stretch = np.exp(rng.uniform(*np.log(CROP_ASPECT)))
    width = max(1, min(image.width, round(image.width * side * stretch)))
    height = max(1, min(image.height, round(image.height * side / stretch)))
    left = int(rng.integers(0, image.width - width + 1))
    top = int(rng.integers(0, image.height - height + 1))
    erased = image.copy()
    colour = tuple(int(level) for level in rng.integers(0, 256, 3))
    erased.paste(colour, (left, top, left + width, top + height))
    return erased


def _recompress(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return the image with what a JPEG of a random quality leaves of it."""
    quality = int(rng.integers(*JPEG_QUALITY, endpoint=True))
    return decode_image(encoded(image, "JPEG", quality=quality))
