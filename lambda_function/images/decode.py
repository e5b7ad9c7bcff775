"""From image bytes to the model's input tensor. No other module does this.

Training, calibration, the parity gate, evaluation, benchmarks and the handler all call
``decode_image`` and ``preprocess``, so every part of the project sees the same pixels.

The resize is antialiased. Phone photos are 3,000 pixels and more across, the training images are
about 400x533, and the NEAREST resize of keras-image-helper aliases on the former. Its Xception
scaling is used unchanged, on an image that already has the target size.

The Pillow class of the recognised format is called directly. ``Image.open`` warns through the
process-wide ``warnings`` state, which a thread of a server cannot silence safely.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from keras_image_helper import create_preprocessor
from PIL import Image

from lambda_function.errors import ServiceError, TooLargeError, UnsupportedImageError
from lambda_function.images.profiles import CHANNELS, clean_profile
from lambda_function.images.strip import read_orientation, strip_image
from lambda_function.images.stripped import MAX_PIXELS, check_size, damaged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from PIL.ImageCms import ImageCmsProfile, ImageCmsTransform

    from lambda_function.images.stripped import StrippedImage
    from lambda_function.metadata import InputSpec

# Large images are reduced early and cheaply while each side stays this many times the target's, so
# that the filter still has enough to average. At 2 the tensors differ from those without early
# reduction by 0.14 levels of 255 on average, at 3 by 0.07-0.14. Saving as JPEG of quality 95
# changes 0.28. benchmarks/large_photos.py measured it in November 2026.
REDUCE_MARGIN = 3.0
# Smaller images gain little. An integer model's predictions change a little with the tensor: when
# images of 3.4 megapixels were reduced, the first class of 5 of 341 validation images changed, all
# of them undecided (benchmarks/large_photos.py).
REDUCE_ABOVE_PIXELS = 6_000_000
FILTERS = {  # of ``InputSpec.resize_filter``
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# Mean and standard deviation of ImageNet's training images.
_TORCH_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_TORCH_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
_CAFFE_MEAN_BGR = np.array([103.939, 116.779, 123.68], np.float32)
_TAIL = bytes(range(1, 255, 7)) * 4  # any bytes that are no marker
_UPRIGHT = {  # EXIF orientation -> its inverse, 1 is upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PROFILE_MODES = dict(zip(CHANNELS, ("RGB", "L", "CMYK"), strict=True))


def decode_image(
    data: bytes, *, max_pixels: int = MAX_PIXELS, target: InputSpec | None = None
) -> Image.Image:
    """Decode untrusted bytes into an upright sRGB image.

    EXIF orientation is applied. Alpha is flattened on white. The first frame of an animation is
    taken. Colour profiles are converted to sRGB, and a broken profile is ignored.

    Args:
        data: the encoded image, in one of ``FORMATS``.
        max_pixels: larger images are refused before any pixel is decoded.
        target: the input that ``preprocess`` will make. A large image is then reduced early,
            a JPEG even while it is decoded.

    Returns:
        An image of mode RGB. It is smaller than the encoded image only if ``target`` is given.
        ``info["encoded_size"]`` is the upright (height, width) without reduction.
        ``info["profile_ignored"]`` is True if the file's colour profile could not be used.

    Raises:
        UnsupportedImageError: not one of ``FORMATS``.
        TooLargeError: more than ``max_pixels`` pixels, or more than ``MAX_SIDE`` on a side.
        UndecodableImageError: empty, truncated or damaged.
    """
    stripped = strip_image(data, max_pixels)
    image = _open(stripped)
    check_size(*image.size, max_pixels)
    width, height = stripped.canvas[2:] if stripped.canvas else image.size
    orientation = read_orientation(stripped.exif or image.info.get("exif") or b"")
    enough = _enough(target, orientation) if width * height > REDUCE_ABOVE_PIXELS else None
    with _refuse_damage(stripped.format):
        image = _load(image, stripped, enough)
        reduced = _reduce(_on_canvas(_to_samples(image), stripped.canvas), enough)
        rgb, is_ignored = _to_rgb(reduced, stripped)
        upright = rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb
    upright.info = {"encoded_size": (width, height) if orientation >= 5 else (height, width)}
    if is_ignored:
        upright.info["profile_ignored"] = True
    return upright


def preprocess(image: Image.Image, spec: InputSpec) -> NDArray[np.float32]:
    """Turn an RGB image into the model's input.

    Args:
        image: mode RGB, upright, any size.
        spec: size, filter and scaling from the artifact's metadata.

    Returns:
        float32, (1, height, width, 3). RGB, -1..1 for ``"xception"``. See ``InputSpec`` for
        the other normalisations.
    """
    resized = image.resize((spec.width, spec.height), FILTERS[spec.resize_filter])
    if spec.normalisation in ("xception", "tf"):
        helper = _preprocessor(spec.height, spec.width)
        tensor: NDArray[np.float32] = helper.convert_to_tensor(resized)
        return tensor
    return _normalise(np.asarray(resized, dtype=np.float32)[np.newaxis], spec.normalisation)


def _normalise(levels: NDArray[np.float32], normalisation: str) -> NDArray[np.float32]:
    """Scale levels of 0..255 in RGB as the other networks of Keras take them.

    The formulas and constants are those of ``keras.applications.imagenet_utils``.
    """
    if normalisation == "0..255":
        return levels
    if normalisation == "0..1":
        return levels / np.float32(255)
    if normalisation == "torch":
        return (levels / np.float32(255) - _TORCH_MEAN) / _TORCH_DEVIATION
    return levels[..., ::-1] - _CAFFE_MEAN_BGR


@functools.cache
def _preprocessor(height: int, width: int) -> Any:
    return create_preprocessor("xception", target_size=(width, height))


def _open(stripped: StrippedImage) -> Image.Image:
    """Read size, mode and palette, but no pixels yet, except those of a HEIC."""
    reader = _open_heic if stripped.format == "HEIC" else _reader(stripped.format)
    try:
        image: Image.Image = reader(io.BytesIO(stripped.data))
    except Image.DecompressionBombError as error:
        raise TooLargeError("The image has far too many pixels. Send a smaller one.") from error
    except ServiceError:
        raise
    except Exception as error:  # see _refuse_damage
        raise damaged(stripped.format) from error
    return image


@functools.cache
def _reader(kind: str) -> Any:
    """Return Pillow's class for a format. Rare ones are imported with their first image.

    JPEG's own class never changes to MPO, the format of phones that append further JPEGs. The
    first one is the image.
    """
    name = {"JPEG": "Jpeg", "PNG": "Png", "GIF": "Gif", "BMP": "Bmp", "AVIF": "Avif"}.get(
        kind, kind
    )
    return getattr(importlib.import_module(f"PIL.{name}ImagePlugin"), f"{name}ImageFile")


def _open_heic(file: io.BytesIO) -> Image.Image:
    """Decode a HEIC, turned upright."""
    try:
        import pi_heif  # a library of 4 MB, for these images only
    except ImportError as error:
        raise UnsupportedImageError(
            "The image looks like HEIC, which this installation does not read. "
            "Save it as JPEG or PNG."
        ) from error
    pi_heif.options.DECODE_THREADS = 1  # each thread holds a tile, and Lambda has one processor
    image: Image.Image = pi_heif.open_heif(file, convert_hdr_to_8bit=True).to_pillow()
    image.info.clear()
    return image.convert("RGBA") if image.mode == "RGBa" else image


def _load(
    image: Image.Image, stripped: StrippedImage, enough: tuple[int, int] | None
) -> Image.Image:
    """Decode the pixels, a JPEG at 1/2, 1/4 or 1/8 if that is enough."""
    if stripped.is_ended:
        if enough:
            image.draft(None, enough)
        image.load()
        return image
    # libjpeg fills a JPEG that was cut off with grey. It was complete if other bytes behind its
    # last one change no pixel.
    attempts = []
    for tail in (b"", _TAIL):
        ended = dataclasses.replace(
            stripped, data=stripped.data + tail + b"\xff\xd9", is_ended=True
        )
        attempts.append(_load(_open(ended), ended, enough))
    if attempts[0].tobytes() != attempts[1].tobytes():
        raise damaged(stripped.format)
    return attempts[0]


def _enough(target: InputSpec | None, orientation: int) -> tuple[int, int] | None:
    """Return the encoded (width, height) that an image must keep for the target."""
    if target is None or target.resize_filter == "nearest":  # nearest picks pixels, never means
        return None
    height, width = round(target.height * REDUCE_MARGIN), round(target.width * REDUCE_MARGIN)
    return (height, width) if orientation >= 5 else (width, height)


@contextlib.contextmanager
def _refuse_damage(kind: str | None) -> Iterator[None]:
    """Turn every exception that a damaged file causes in Pillow into an error about that file.

    Decoding and conversion can both raise. A missing palette shows only in the conversion.
    """
    try:
        yield
    except MemoryError as error:
        raise TooLargeError(
            "The image needs more memory than there is. Send a smaller one."
        ) from error
    except Exception as error:
        # OSError, SyntaxError, ValueError, EOFError, IndexError, AssertionError, struct.error,
        # zlib.error and more. None of them is documented.
        raise damaged(kind) from error


def _to_samples(image: Image.Image) -> Image.Image:
    """Return mode L, RGB, RGBA or CMYK, with 8 bits per channel and without palette."""
    if image.mode.startswith("I"):
        image = _to_eight_bits(image)
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit greyscale. Pillow's conversion clips everything above 255 to white."""
    samples = np.asarray(image)
    eight = Image.fromarray((samples >> 8).astype(np.uint8))
    key = image.info.get("transparency")
    if key is not None:
        eight.putalpha(Image.fromarray(np.where(samples == key, 0, 255).astype(np.uint8)))
    return eight


def _on_canvas(image: Image.Image, canvas: tuple[int, int, int, int] | None) -> Image.Image:
    """Put an animation's first frame where it lies on its white canvas."""
    if canvas is None:
        return image
    left, top, width, height = canvas
    whole = Image.new("RGB", (width, height), "white")
    whole.paste(image, (left, top), image if image.mode == "RGBA" else None)
    return whole


def _reduce(image: Image.Image, enough: tuple[int, int] | None) -> Image.Image:
    """Average whole blocks of pixels, each side by its own factor.

    Transparent pixels have no weight.
    """
    if not enough:
        return image
    factors = (max(1, image.width // enough[0]), max(1, image.height // enough[1]))
    return image.reduce(factors) if factors != (1, 1) else image


def _to_rgb(image: Image.Image, stripped: StrippedImage) -> tuple[Image.Image, bool]:
    """Return mode RGB, in sRGB and on white, and whether a colour profile was ignored."""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    opaque = image if alpha is None else image.convert("RGB")
    rgb, is_ignored = _to_srgb(opaque, stripped)
    if alpha is None or alpha.getextrema() == (255, 255):
        return rgb, is_ignored
    flat = Image.new("RGB", rgb.size, "white")
    flat.paste(rgb, mask=alpha)
    return flat, is_ignored


def _to_srgb(image: Image.Image, stripped: StrippedImage) -> tuple[Image.Image, bool]:
    """Convert by the embedded profile, or else by the space that the file gives in numbers."""
    embedded = stripped.profile
    profile = stripped.coded_profile if embedded is None else clean_profile(embedded)
    mode = _PROFILE_MODES.get(profile[16:20]) if profile else None
    grey_as_rgb = mode == "RGB" and image.mode == "L"
    if profile and mode and (mode == image.mode or grey_as_rgb):
        try:
            transform = _transform(profile, mode)
        except ValueError:
            return image.convert("RGB"), True
        converted = transform.apply(image.convert(mode)) if transform else image.convert("RGB")
        return converted, False
    return image.convert("RGB"), embedded is not None


@functools.lru_cache(maxsize=8)  # the images of one shop or phone share a profile
def _transform(profile: bytes, mode: str) -> ImageCmsTransform | None:
    """Return the transform to sRGB, or None if the profile is sRGB itself.

    Raises:
        ValueError: the profile is broken.
    """
    from PIL import ImageCms  # only images with a profile need it

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, _srgb(), mode, "RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        raise ValueError("a broken profile") from error
    return None if mode == "RGB" and _is_identity(transform) else transform


def _is_identity(transform: ImageCmsTransform) -> bool:
    """Whether the transform moves no colour of a fine grid by more than one level.

    Most profiles are sRGB under another name. A needless conversion of 6 megapixels takes 0.3 s.
    """
    levels = np.arange(0, 256, 5, dtype=np.uint8)  # 0 and 255 among them
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(levels.size, -1, 3)
    moved = np.asarray(transform.apply(Image.fromarray(grid))).astype(np.int16) - grid
    return bool(np.abs(moved).max() <= 1)


@functools.cache
def _srgb() -> ImageCmsProfile:
    from PIL import ImageCms  # as in _transform

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
