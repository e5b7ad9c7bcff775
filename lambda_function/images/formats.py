"""Recognise an image's format and strip what does not decide its pixels.

The bytes come from strangers. Pillow reads every comment, text chunk and EXIF tag in Python before
it decodes the first pixel. A 10 MB file of empty comments costs it seconds and hundreds of
megabytes. A hostile EXIF block puts thousands of warnings on the log (measured with Pillow 13).
None of this changes a pixel. So one bounded pass copies the file without such parts, and Pillow
sees only the copy.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import struct
import zlib
from typing import TYPE_CHECKING

from lambda_function.errors import UndecodableImageError, UnsupportedImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FORMATS = ("JPEG", "PNG", "WebP", "GIF", "BMP", "AVIF")
MAX_PARTS = 50_000  # segments, chunks or blocks. A 20 MB PNG in pieces of 8 KiB has 2,500
MAX_SCANS = 50  # of a progressive JPEG. Encoders write about 10
MAX_RLE_BYTES = 4 * 1024**2  # 4 MiB of a run-length encoded BMP. Pillow expands it in Python
MAX_PROFILE_BYTES = 4 * 1024**2  # 4 MiB. The profiles of printing presses reach 2.5

_TEXT = rb"(\xef\xbb\xbf)?\s*"  # a byte order mark, blanks
# Atomic. Otherwise 25 comments without HTML behind them are split in all 2^25 ways.
_COMMENTS = rb"(?><!--.*?-->\s*)*"
# https://en.wikipedia.org/wiki/List_of_file_signatures. The first match counts.
_SIGNATURES = tuple(
    (re.compile(pattern, re.DOTALL), name)
    for pattern, name in (
        (rb"\xff\xd8\xff", "JPEG"),
        (rb"\x89PNG\r\n\x1a\n", "PNG"),
        (rb"GIF8[79]a", "GIF"),
        (rb"RIFF....WEBP", "WebP"),
        # With the size of the second header, because many texts begin with "BM".
        (rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", "BMP"),
        (rb"....ftypavi[fs]", "AVIF"),
        (rb"....ftypm(if|sf)1.{4}(....){0,16}avi[fs]", "AVIF"),
        (rb"....ftyp(hei[cmsx]|hev[cmsx]|m(if|sf)1)", "HEIC"),
        (rb"....ftyp", "a video (MP4 or QuickTime)"),
        (rb"\x1aE\xdf\xa3", "a video (WebM)"),
        (rb"II[*+]\0|MM\0[*+]", "TIFF"),
        (rb"\0\0\0\x0cJXL |\xff\x0a", "JPEG XL"),
        (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
        (rb"\0\0[\x01\x02]\0", "an icon (ICO)"),
        (rb"8BPS", "a Photoshop file"),
        (rb"%PDF-", "PDF"),
        (rb"PK\x03\x04", "a ZIP archive"),
        (rb"\x1f\x8b", "gzip"),
        (_TEXT + _COMMENTS + rb"(?i:<!doctype\s+html|<html|<head|<body)", "HTML"),
        (_TEXT + rb"<((\?xml|!--|!DOCTYPE\s+svg).*?<)?svg[\s/>]", "SVG"),
        (_TEXT + rb"<\?xml", "XML"),
        (_TEXT + rb"[{\[]", "JSON"),
    )
)
SNIFF_BYTES = 1024


@dataclasses.dataclass(frozen=True)
class StrippedImage:
    """The parts of an encoded image that decide its pixels.

    Attributes:
        format: one of ``FORMATS``.
        data: a complete image file with little but its pixels.
        exif: a TIFF structure, or None. For WebP and AVIF Pillow finds it.
        profile: an ICC profile, or None. For WebP and AVIF Pillow finds it.
    """

    format: str
    data: bytes
    exif: bytes | None = None
    profile: bytes | None = None


def sniff(first_bytes: bytes) -> str | None:
    """Return the name of the format that a file's first bytes claim.

    Example::

        sniff(b"\\xff\\xd8\\xff\\xe0") == "JPEG"

    Args:
        first_bytes: of the file. ``SNIFF_BYTES`` are enough.

    Returns:
        One of ``FORMATS``, the name of another type ("TIFF", "HTML"), or None.
    """
    head = first_bytes[:SNIFF_BYTES]
    return next((name for pattern, name in _SIGNATURES if pattern.match(head)), None)


def strip_image(data: bytes) -> StrippedImage:
    """Recognise the format and drop what does not decide the pixels.

    Args:
        data: the encoded image.

    Raises:
        UnsupportedImageError: not one of ``FORMATS``. The message says what it looks like.
        UndecodableImageError: empty, without an image, or built to cost time.
    """
    kind = _supported_format(data)
    return _READERS.get(kind, _as_it_is)(data, kind)


def read_orientation(exif: bytes) -> int:
    """Return the EXIF orientation, 1-8. It is 1 (upright) if none can be read.

    Only this tag is read, https://www.cipa.jp/std/documents/e/DC-008-2012_E.pdf 4.6.4.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
            if tag == 0x0112:
                (value,) = struct.unpack_from(order + ("I" if kind == 4 else "H"), tiff, entry + 8)
                return value if value in range(1, 9) else 1
    except struct.error:  # cut short
        pass
    return 1


def _supported_format(data: bytes) -> str:
    if not data:
        raise UndecodableImageError("The image is empty: it has 0 bytes.")
    kind = sniff(data)
    if kind not in FORMATS:
        looks = f"It looks like {kind}. " if kind else ""
        raise UnsupportedImageError(
            "The content is not an image of a type that is read here. "
            f"{looks}Supported: {', '.join(FORMATS)}."
        )
    return kind


def _as_it_is(data: bytes, kind: str) -> StrippedImage:
    return StrippedImage(kind, data)


def _jpeg(data: bytes, kind: str) -> StrippedImage:
    """Keep tables, frame, scans, and the APPn segments that tell the colour space."""
    kept: list[bytes | memoryview] = [b"\xff\xd8"]
    exif: bytes | None = None
    profile: list[bytes] = []
    for marker, start, end in _jpeg_segments(data):
        if marker == 0xDA:  # start of scan, the rest is pixels
            _limit_scans(data, start)
            kept.append(memoryview(data)[start:])
            return StrippedImage(kind, b"".join(kept), exif, _joined_profile(profile))
        payload = data[start + 4 : end]
        if marker == 0xE1 and payload.startswith(b"Exif\0\0"):
            exif = exif or payload
        elif marker == 0xE2 and payload.startswith(b"ICC_PROFILE\0"):
            profile.append(payload[12:])
        elif marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(data[start:end])
    raise _damaged(kind)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) up to the first scan. Junk between segments is skipped."""
    position = 2
    for _ in range(MAX_PARTS):
        position = data.find(b"\xff", position)
        if position < 0 or position + 4 > len(data):
            return
        marker = data[position + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:  # no length follows
            position += 1 if marker == 0xFF else 2
            continue
        end = position + 2 + max(2, int.from_bytes(data[position + 2 : position + 4]))
        yield marker, position, end
        position = end
    raise _too_many_parts("JPEG")


def _limit_scans(data: bytes, start: int) -> None:
    # This count is quick and never too low. The exact count below stops at the end of the image.
    if data.count(b"\xff\xda", start) <= MAX_SCANS:
        return
    marks = re.finditer(rb"\xff[\xd9\xda]", data[start:])  # scans, up to the end of the image
    scans = itertools.takewhile(lambda mark: mark[0] == b"\xff\xda", marks)
    if next(itertools.islice(scans, MAX_SCANS, None), None):
        raise UndecodableImageError(f"The JPEG has more than {MAX_SCANS} scans.")


def _joined_profile(parts: list[bytes]) -> bytes | None:
    """Join ICC segments. Each begins with its number and the total, ICC.1:2022 annex B.4."""
    parts = sorted(part for part in parts if len(part) > 2)
    if not parts or len(parts) != parts[0][1] or sum(map(len, parts)) > MAX_PROFILE_BYTES:
        return None
    return b"".join(part[2:] for part in parts)


def _png(data: bytes, kind: str) -> StrippedImage:
    """Keep the header, palette, transparency and pixels, the default image of an APNG."""
    kept: list[bytes] = [data[:8]]
    pixels: list[memoryview] = []
    exif = profile = None
    for name, start, end in _png_chunks(data):
        payload = memoryview(data)[start + 8 : end - 4]
        if name == b"IDAT":
            pixels.append(payload)
        elif name in (b"IHDR", b"PLTE", b"tRNS"):
            kept.append(data[start:end])
        elif name == b"eXIf":
            exif = bytes(payload)
        elif name == b"iCCP":
            profile = _inflated_profile(bytes(payload))
    if not pixels:
        raise _damaged(kind)
    kept += [_chunk(b"IDAT", b"".join(pixels)), _chunk(b"IEND", b"")]
    return StrippedImage(kind, b"".join(kept), exif, profile)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, end) up to the end mark."""
    position = 8
    for _ in range(MAX_PARTS):
        name = data[position + 4 : position + 8]
        if len(name) < 4 or name == b"IEND":
            return
        end = position + 12 + int.from_bytes(data[position : position + 4])
        yield name, position, end
        position = end
    raise _too_many_parts("PNG")


def _chunk(name: bytes, payload: bytes) -> bytes:
    check = zlib.crc32(payload, zlib.crc32(name))
    return b"".join((struct.pack(">I", len(payload)), name, payload, struct.pack(">I", check)))


def _inflated_profile(payload: bytes) -> bytes | None:
    _, _, compressed = payload.partition(b"\0")  # name, method (always 0), zlib stream
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(compressed[1:], MAX_PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if inflater.eof else None


def _gif(data: bytes, kind: str) -> StrippedImage:
    """Keep the screen, the first image and the control block before it."""
    if len(data) < 13:
        raise _damaged(kind)
    position = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    palette, control = data[10:position], b""
    budget = iter(range(MAX_PARTS))
    for _ in budget:
        if data[position : position + 1] == b",":
            screen = _gif_screen(data, position)
            return StrippedImage(
                kind, b"".join((screen, palette, control, memoryview(data)[position:]))
            )
        if data[position : position + 1] != b"!":
            raise _damaged(kind)
        end = _end_of_blocks(data, position + 2, budget)
        if data[position + 1 : position + 3] == b"\xf9\x04":
            control = data[position:end]
        position = end
    raise _too_many_parts(kind)


def _end_of_blocks(data: bytes, position: int, budget: Iterator[int]) -> int:
    for _ in budget:
        size = data[position] if position < len(data) else 0
        position += 1 + size
        if not size:
            break
    return position


def _gif_screen(data: bytes, frame: int) -> bytes:
    """Return the header with a screen that holds the frame. Pillow warns if it has to grow it."""
    if len(data) < frame + 9:
        raise _damaged("GIF")
    left, top, width, height = struct.unpack_from("<4H", data, frame + 1)
    screen_width, screen_height = struct.unpack_from("<2H", data, 6)
    size = (max(screen_width, left + width), max(screen_height, top + height))
    if max(size) > 0xFFFF:
        raise _damaged("GIF")
    return data[:6] + struct.pack("<2H", *size)


def _bmp(data: bytes, kind: str) -> StrippedImage:
    compression = int.from_bytes(data[30:34], "little") if data[14] >= 40 else 0
    if compression in (1, 2) and len(data) > MAX_RLE_BYTES:
        raise UndecodableImageError("Run-length encoded BMP of this size is not read. Send PNG.")
    return StrippedImage(kind, data)


def _avif(data: bytes, kind: str) -> StrippedImage:
    """Rename the EXIF item, so that nobody reads it. AVIF's own rotation counts."""
    return StrippedImage(kind, _AVIF_EXIF.sub(rb"\1free", data))


def _damaged(kind: str) -> UndecodableImageError:
    return UndecodableImageError(
        f"The image looks like {kind} but cannot be decoded; it may be truncated or damaged."
    )


def _too_many_parts(kind: str) -> UndecodableImageError:
    return UndecodableImageError(
        f"The {kind} image is in more than {MAX_PARTS:,} pieces. Save it anew and try again."
    )


# ISO/IEC 14496-12 8.11.6: version 2 has 16-bit item numbers, version 3 32-bit ones.
_AVIF_EXIF = re.compile(rb"(infe(?:\x02.{7}|\x03.{9}))Exif", re.DOTALL)

_READERS: dict[str, Callable[[bytes, str], StrippedImage]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "BMP": _bmp,
    "AVIF": _avif,
}
