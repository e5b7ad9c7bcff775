"""What the readers of all formats share: their result, their bounds and their errors."""

from __future__ import annotations

import dataclasses

from lambda_function.errors import TooLargeError, UndecodableImageError

MAX_PIXELS = 50_000_000  # more than most phones make, 200 MB as Pillow holds RGB
# The limit of JPEG. A PNG of 50,000,000 x 1 is a file of 6 kB, and resizing its row takes 1.8 GB
# of weights (measured November 2026): one per source column, for every target column.
MAX_SIDE = 65_535
MAX_PARTS = 50_000  # segments, chunks or blocks. A 20 MB PNG in pieces of 8 KiB has 2,500


@dataclasses.dataclass(frozen=True)
class StrippedImage:
    """The parts of an encoded image that decide its pixels.

    Attributes:
        format: one of ``FORMATS``.
        data: a complete image file with little but its pixels.
        exif: a TIFF structure, or None.
        profile: an ICC profile as the file holds it, or None.
        coded_profile: an ICC profile made from what the file says in numbers, or None.
        canvas: (left, top, width, height): where the image lies on a white canvas, or None.
        is_ended: whether the file holds the end of the image.
    """

    format: str
    data: bytes
    exif: bytes | None = None
    profile: bytes | None = None
    coded_profile: bytes | None = None
    canvas: tuple[int, int, int, int] | None = None
    is_ended: bool = True


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse an image with too many pixels or too long a side.

    Args:
        width: in pixels.
        height: in pixels.
        max_pixels: most pixels.

    Raises:
        TooLargeError: it is too large.
    """
    if width * height > max_pixels:
        raise TooLargeError(
            f"The image has {width}x{height} = {width * height:,} pixels; "
            f"at most {max_pixels:,} are accepted. Send a smaller one."
        )
    if max(width, height) > MAX_SIDE:
        raise TooLargeError(
            f"The image has {width}x{height} pixels; "
            f"at most {MAX_SIDE:,} are accepted on a side. Send a smaller one."
        )


def damaged(kind: str | None) -> UndecodableImageError:
    """Return the error for a file that breaks its format's rules."""
    return UndecodableImageError(
        f"The image looks like {kind} but cannot be decoded; it may be truncated or damaged."
    )


def too_many_parts(kind: str) -> UndecodableImageError:
    """Return the error for a file in more than ``MAX_PARTS`` pieces."""
    return UndecodableImageError(
        f"The {kind} image is in more than {MAX_PARTS:,} pieces. Save it anew and try again."
    )
