"""From image bytes to the model's input tensor: the only such code in the repository.

Training, calibration, the parity gate, evaluation, benchmarks and the handler all call
``decode_image`` and ``preprocess``, so that no picture is ever seen in two ways.

The resize is ours and antialiased: phone photos are 3,000 pixels and more across while the
training images are about 400x533, and keras-image-helper's NEAREST resize aliases on the
former. Its Xception scaling is used as it is, on an image that already has the target size.

Pillow's reader of the one format that the bytes claim is called directly: ``Image.open`` warns
through the process-wide ``warnings`` state, which no thread of a server can safely silence.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from keras_image_helper import create_preprocessor
from PIL import Image

from lambda_function.errors import TooLargeError, UndecodableImageError
from lambda_function.images.formats import (
    FORMATS,
    MAX_PROFILE_BYTES,
    read_essentials,
    read_orientation,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from PIL.ImageCms import ImageCmsProfile, ImageCmsTransform
    from PIL.ImageFile import ImageFile

    from lambda_function.images.formats import Essentials
    from lambda_function.metadata import InputSpec

__all__ = ["FORMATS", "MAX_PIXELS", "decode_image", "preprocess"]

MAX_PIXELS = 50_000_000  # 50 megapixels: above any phone's, 200 MB as Pillow holds RGB
# What JPEG can say. A PNG of 50,000,000 x 1 is a file of 6 kB, and the weights of resizing that one
# row take 1.8 GB (measured November 2026): as many as the picture is wide, for every column made.
MAX_SIDE = 65_535
# Large images are reduced early, and cheaply, while both sides stay this many times the target's:
# the filter then still has enough to average. At 2 the tensors differ from the full way's by 0.14
# levels of 255 on average, at 3 by 0.07-0.14; saving as JPEG of quality 95 alone makes 0.28.
# benchmarks/large_photos.py measures it, November 2026.
REDUCE_MARGIN = 3.0
# Below this many pixels there is little to win, and an integer model answers a hair differently
# to a tensor that differs by a hair: when pictures of 3.4 megapixels were reduced, the first class
# of 5 of 341 validation pictures, all undecided ones, changed (benchmarks/large_photos.py).
REDUCE_ABOVE_PIXELS = 6_000_000
_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_UPRIGHT = {  # EXIF orientation -> what undoes it; 1 is upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PROFILE_MODES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}  # ICC.1:2022 7.2.6


def decode_image(
    data: bytes, *, max_pixels: int = MAX_PIXELS, target: InputSpec | None = None
) -> Image.Image:
    """Decode untrusted bytes into an upright sRGB image.

    EXIF orientation is applied, alpha is flattened on white, the first frame of an
    animation is taken, colour profiles are converted to sRGB (a broken one is ignored).

    Args:
        data: the encoded image, in one of ``FORMATS``.
        max_pixels: refused above this, before any pixel is decoded.
        target: what ``preprocess`` will be asked for next; lets a large image be reduced
            before it is worked on, a JPEG even while it is decoded.

    Returns:
        An image of mode RGB; smaller than the encoded one only where ``target`` is given.
        ``info["encoded_size"]`` is the (height, width) that it has without reduction.

    Raises:
        UnsupportedImageError: not an image type that is read here.
        TooLargeError: more than ``max_pixels`` pixels, or ``MAX_SIDE`` on a side.
        UndecodableImageError: empty, truncated or damaged.
    """
    essentials = read_essentials(data)
    image = _open(essentials)
    _check_pixels(image, max_pixels)
    encoded = (image.height, image.width)
    orientation = read_orientation(essentials.exif or image.info.get("exif") or b"")
    enough = (
        _enough(target, orientation) if image.width * image.height > REDUCE_ABOVE_PIXELS else None
    )
    with _damage_refused(image.format):
        if enough:
            image.draft(None, enough)  # JPEG alone: decodes at 1/2, 1/4 or 1/8
        image.load()
        profile = essentials.profile or image.info.get("icc_profile")
        rgb = _to_rgb(_reduce(_to_samples(image), enough), profile)
        upright = rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb
    upright.info = {"encoded_size": encoded[::-1] if orientation >= 5 else encoded}
    return upright


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


def _open(essentials: Essentials) -> ImageFile:
    """Read the header: size, mode, palette; no pixels yet."""
    reader = _reader(essentials.format)
    try:
        image: ImageFile = reader(io.BytesIO(essentials.data))
    except Image.DecompressionBombError as error:
        raise TooLargeError("The image has far too many pixels. Send a smaller one.") from error
    except Exception as error:  # see _damage_refused
        raise _undecodable(essentials.format) from error
    return image


@functools.cache
def _reader(kind: str) -> Any:
    """Return Pillow's reader; the import of a rare one waits for the first such image.

    JPEG's own class never takes the road to MPO, the format of phones that append further
    JPEGs: the first one is the picture.
    """
    name = {"JPEG": "Jpeg", "PNG": "Png", "GIF": "Gif", "BMP": "Bmp", "AVIF": "Avif"}.get(
        kind, kind
    )
    return getattr(importlib.import_module(f"PIL.{name}ImagePlugin"), f"{name}ImageFile")


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise TooLargeError(
            f"The image has {image.width}x{image.height} = {pixels:,} pixels; "
            f"at most {max_pixels:,} are accepted. Send a smaller one."
        )
    if max(image.size) > MAX_SIDE:
        raise TooLargeError(
            f"The image has {image.width}x{image.height} pixels; "
            f"at most {MAX_SIDE:,} are accepted on a side. Send a smaller one."
        )


def _enough(target: InputSpec | None, orientation: int) -> tuple[int, int] | None:
    """Return the (width, height), as encoded, that an image must keep for the target."""
    if target is None:
        return None
    height, width = round(target.height * REDUCE_MARGIN), round(target.width * REDUCE_MARGIN)
    return (height, width) if orientation >= 5 else (width, height)


@contextlib.contextmanager
def _damage_refused(kind: str | None) -> Iterator[None]:
    """Turn whatever a damaged file makes Pillow raise into an answer about that file.

    While it decodes, and while it converts: a palette that is missing or too long shows only then.
    """
    try:
        yield
    except MemoryError as error:
        raise TooLargeError(
            "The image needs more memory than there is. Send a smaller one."
        ) from error
    except Exception as error:
        # OSError, SyntaxError, ValueError, EOFError, IndexError, AssertionError, struct.error,
        # zlib.error and more, none of them promised.
        raise _undecodable(kind) from error


def _undecodable(kind: str | None) -> UndecodableImageError:
    return UndecodableImageError(
        f"The image looks like {kind} but cannot be decoded; it may be truncated or damaged."
    )


def _to_samples(image: Image.Image) -> Image.Image:
    """Return mode L, RGB, RGBA or CMYK: every value a level of 8 bits, no palette."""
    if image.mode.startswith("I"):
        image = _to_eight_bits(image)
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit greyscale; Pillow's own conversion cuts everything above 255 to white."""
    samples = np.asarray(image)
    eight = Image.fromarray((samples >> 8).astype(np.uint8))
    key = image.info.get("transparency")
    if key is not None:
        eight.putalpha(Image.fromarray(np.where(samples == key, 0, 255).astype(np.uint8)))
    return eight


def _reduce(image: Image.Image, enough: tuple[int, int] | None) -> Image.Image:
    """Average whole blocks of pixels, transparent ones with no weight."""
    factor = min(image.width // enough[0], image.height // enough[1]) if enough else 1
    return image.reduce(factor) if factor > 1 else image


def _to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return mode RGB: colours converted to sRGB, alpha flattened on white."""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    opaque = image if alpha is None else image.convert("RGB")
    rgb = _to_srgb(opaque, profile) if profile else opaque.convert("RGB")
    if alpha is None or alpha.getextrema() == (255, 255):
        return rgb
    flat = Image.new("RGB", rgb.size, "white")
    flat.paste(rgb, mask=alpha)
    return flat


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert by the profile; where it is broken or of another kind, as if there were none."""
    mode = _PROFILE_MODES.get(profile[16:20]) if len(profile) <= MAX_PROFILE_BYTES else None
    grey_as_rgb = mode == "RGB" and image.mode == "L"
    transform = _transform(profile, mode) if mode == image.mode or grey_as_rgb else None
    if transform is None:
        return image.convert("RGB")
    converted: Image.Image = transform.apply(image.convert(mode))
    return converted


@functools.lru_cache(maxsize=8)  # the pictures of one shop or phone share a profile
def _transform(profile: bytes, mode: str) -> ImageCmsTransform | None:
    """Return the way to sRGB; ``None`` where there is none, or none is needed."""
    from PIL import ImageCms  # imported here: only pictures with a profile need it

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, _srgb(), mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None  # a broken profile is no reason to refuse a picture
    return None if mode == "RGB" and _is_identity(transform) else transform


def _is_identity(transform: ImageCmsTransform) -> bool:
    """Whether no colour of a fine grid moves by more than one level: sRGB by another name.

    Most profiles in the wild are; converting 6 megapixels for nothing takes 0.3 s.
    """
    levels = np.arange(0, 256, 5, dtype=np.uint8)  # 0 and 255 among them
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(levels.size, -1, 3)
    moved = np.asarray(transform.apply(Image.fromarray(grid))).astype(np.int16) - grid
    return bool(np.abs(moved).max() <= 1)


@functools.cache
def _srgb() -> ImageCmsProfile:
    from PIL import ImageCms  # as in _transform

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
