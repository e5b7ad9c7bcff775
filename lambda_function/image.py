"""From image bytes to the model's input tensor: the only such code in the repository.

Training, calibration, the parity gate, evaluation, benchmarks and the handler all call
``decode_image`` and ``preprocess``, so that no picture is ever seen in two ways.

The resize is ours and antialiased: phone photos are 3,000 pixels and more across while the
training images are about 400x533, and keras-image-helper's NEAREST resize aliases on the
former. Its Xception scaling is used as it is, on an image that already has the target size.
"""

from __future__ import annotations

import functools
import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from keras_image_helper import create_preprocessor
from PIL import Image, ImageCms, ImageOps

from lambda_function.errors import TooLargeError, UndecodableImageError, UnsupportedImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lambda_function.metadata import InputSpec

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")
MAX_PIXELS = 50_000_000  # 50 megapixels: above any phone's, 150 MB as RGB
_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def decode_image(
    data: bytes, *, max_pixels: int = MAX_PIXELS, target: InputSpec | None = None
) -> Image.Image:
    """Decode untrusted bytes into an upright sRGB image.

    EXIF orientation is applied, alpha is flattened on white, the first frame of an
    animation is taken, colour profiles are converted to sRGB.

    Args:
        data: the encoded image, in one of ``FORMATS``.
        max_pixels: refused above this, before any pixel is decoded.
        target: what ``preprocess`` will be asked for next; allows a large JPEG to be
            decoded at a fraction of its size.

    Returns:
        An image of mode RGB.

    Raises:
        UnsupportedImageError: not an image type that is read here.
        TooLargeError: more than ``max_pixels`` pixels.
        UndecodableImageError: truncated or damaged.
    """
    image = _open(data)
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise TooLargeError(
            f"The image has {image.width}x{image.height} = {pixels:,} pixels; "
            f"at most {max_pixels:,} are accepted. Send a smaller one."
        )
    try:
        return _to_upright_rgb(image)
    except (
        OSError,
        SyntaxError,
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        MemoryError,
    ) as error:
        raise UndecodableImageError(
            f"The image looks like {image.format} but cannot be decoded; "
            "it may be truncated or damaged."
        ) from error


def preprocess(image: Image.Image, spec: InputSpec) -> NDArray[np.float32]:
    """Turn an RGB image into the model's input.

    Args:
        image: mode RGB, upright, any size.
        spec: size, filter and scaling, from the artifact's metadata.

    Returns:
        float32, (1, height, width, 3), RGB, -1..1.
    """
    resized = image.resize((spec.width, spec.height), _FILTERS[spec.resize_filter])
    tensor: NDArray[np.float32] = _preprocessor(spec.height, spec.width).convert_to_tensor(resized)
    return tensor


@functools.cache
def _preprocessor(height: int, width: int) -> Any:
    return create_preprocessor("xception", target_size=(width, height))


def _open(data: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:
        raise UnsupportedImageError(
            "The content is not an image of a type that is read here. "
            f"Supported: {', '.join(FORMATS)}."
        ) from error


def _to_upright_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba).convert("RGB")
    if image.mode == "RGB" and profile:
        image = _to_srgb(image, profile)
    return image.convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, _srgb(), outputMode="RGB")
    except ImageCms.PyCMSError:
        return image  # a broken profile is no reason to refuse a picture
    return converted or image


@functools.cache
def _srgb() -> Any:
    return ImageCms.createProfile("sRGB")
