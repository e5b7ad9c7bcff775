"""Strip what does not decide the pixels, and bound the work of what stays.

The bytes come from strangers. Pillow reads every comment, text chunk and EXIF tag in Python before
it decodes the first pixel. A 10 MB file of empty comments costs it seconds and hundreds of
megabytes. A hostile EXIF block puts thousands of warnings on the log (measured with Pillow 13).
None of this changes a pixel. So one bounded pass copies the file without such parts, and Pillow
sees only the copy. The same pass refuses files that would cost a decoder far more than their
pixels are worth.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import TYPE_CHECKING

from lambda_function.errors import TooLargeError, UndecodableImageError, UnsupportedImageError
from lambda_function.images.bmp import strip_bmp
from lambda_function.images.formats import FORMATS, advice, sniff
from lambda_function.images.profiles import MAX_PROFILE_BYTES, coded_profile, gamma_profile
from lambda_function.images.stripped import (
    MAX_PARTS,
    MAX_PIXELS,
    StrippedImage,
    check_size,
    damaged,
    too_many_parts,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_SCANS = 50  # of a JPEG. Encoders write about 10
# Components times pixels, over all scans of a JPEG. Ten scans of 50 megapixels are 650 million. An
# arithmetic-coded one without data takes 1.4 ns each, a Huffman-coded one 0.4 (November 2026).
MAX_SCANNED_PIXELS = 1_000_000_000
# Bytes of a PNG's rows: 50 megapixels of 8-bit RGBA are 200 million. Twice that takes 2 s.
MAX_ROW_BYTES = 250_000_000


def strip_image(data: bytes, max_pixels: int = MAX_PIXELS) -> StrippedImage:
    """Recognise the format and drop what does not decide the pixels.

    Args:
        data: the encoded image.
        max_pixels: larger images are refused, as far as this pass knows their size.

    Raises:
        UnsupportedImageError: not one of ``FORMATS``. The message says what it looks like.
        UndecodableImageError: empty, without an image, or built to cost time.
        TooLargeError: more than ``max_pixels`` pixels to decode.
    """
    if not data:
        raise UndecodableImageError("The image is empty: it has 0 bytes.")
    kind = sniff(data)
    if kind not in FORMATS:
        looks = f"It looks like {kind}. " if kind else ""
        raise UnsupportedImageError(
            "The content is not an image of a type that is read here. "
            f"{looks}{advice(kind)} Supported: {', '.join(FORMATS)}."
        )
    try:
        return _STRIPPERS[kind](data, kind, max_pixels)
    except (struct.error, IndexError, KeyError, ValueError) as error:  # cut short, out of range
        raise damaged(kind) from error


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


# --- JPEG -----------------------------------------------------------------------------------

_SOI, _EOI, _SOS, _COMMENT = 0xD8, 0xD9, 0xDA, 0xFE
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOFn, ITU-T T.81 table B.1
_LAST_HUFFMAN_FRAME = 0xC7  # the later ones are arithmetic-coded
# The next marker in entropy-coded data. Stuffed zeros and restart markers belong to the data.
_NEXT_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")


def _strip_jpeg(data: bytes, kind: str, max_pixels: int) -> StrippedImage:
    """Keep tables, frame, scans, and the APPn segments that tell the colour space."""
    kept: list[bytes | memoryview] = [b"\xff\xd8"]
    exif: bytes | None = None
    profile: list[bytes] = []
    pixels = scans = scanned = 0
    is_arithmetic = is_ended = False
    for marker, start, end in _jpeg_segments(data):
        payload = data[start + 4 : end] if marker not in (_SOS, _EOI) else b""
        if marker == 0xE1 and payload.startswith(b"Exif\0\0"):
            exif = exif or payload
        elif marker == 0xE2 and payload.startswith(b"ICC_PROFILE\0"):
            profile.append(payload[12:])
        elif marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == _COMMENT):
            kept.append(memoryview(data)[start:end])
        if marker in _FRAMES and len(payload) >= 5:
            height, width = struct.unpack_from(">HH", payload, 1)
            check_size(width, height, max_pixels)
            pixels = max(pixels, width * height)
            is_arithmetic |= marker > _LAST_HUFFMAN_FRAME
        elif marker == _SOS:
            scans += 1
            scanned += data[start + 4] * pixels
            if scans > MAX_SCANS:
                raise UndecodableImageError(f"The JPEG has more than {MAX_SCANS} scans.")
            if scanned > MAX_SCANNED_PIXELS:
                raise _too_many_scans(pixels, scans)
        elif marker == _EOI:
            is_ended = True
    # Without its end it is decoded twice. Two of Huffman's decodings cost less than one of these.
    if is_arithmetic and not is_ended and 2 * scanned > MAX_SCANNED_PIXELS:
        raise _too_many_scans(pixels, scans)
    if not scans:
        raise damaged(kind)
    joined = b"".join(kept)
    return StrippedImage(kind, joined, exif, _joined_profile(profile), is_ended=is_ended)


def _too_many_scans(pixels: int, scans: int) -> UndecodableImageError:
    return UndecodableImageError(
        f"The JPEG draws its {pixels:,} pixels too often, in {scans} scans. "
        "Save it without progressive scans."
    )


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) up to the end of the image.

    A start of scan comes with the scan's data. Junk between other segments is skipped.
    """
    position = 2
    for _ in range(MAX_PARTS):
        position = data.find(b"\xff", position)
        if position < 0 or position + 2 > len(data):
            return
        marker = data[position + 1]
        if marker == _EOI:
            yield marker, position, position + 2
            return
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= _SOI:  # no length follows
            position += 1 if marker == 0xFF else 2
            continue
        if position + 5 > len(data):
            return
        end = position + 2 + max(2, int.from_bytes(data[position + 2 : position + 4]))
        if marker == _SOS:
            following = _NEXT_MARKER.search(data, end)
            end = following.start() if following else len(data)
        yield marker, position, end
        position = end
    raise too_many_parts("JPEG")


def _joined_profile(parts: list[bytes]) -> bytes | None:
    """Join ICC segments. Each begins with its number and the total, ICC.1:2022 annex B.4."""
    parts = sorted(part for part in parts if len(part) > 2)
    if not parts or len(parts) != parts[0][1] or sum(map(len, parts)) > MAX_PROFILE_BYTES:
        return None
    return b"".join(part[2:] for part in parts)


# --- PNG ------------------------------------------------------------------------------------

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type


def _strip_png(data: bytes, kind: str, max_pixels: int) -> StrippedImage:
    """Keep the header, palette, transparency and pixels, the default image of an APNG."""
    kept: list[bytes | memoryview] = [data[:8]]
    pixels: list[memoryview] = []
    about: dict[bytes, bytes] = {}
    for name, start, end in _png_chunks(data):
        payload = memoryview(data)[start + 8 : end - 4]
        if name == b"IDAT":
            pixels.append(payload)
        elif name in (b"IHDR", b"PLTE", b"tRNS"):
            kept.append(memoryview(data)[start:end])
            if name == b"IHDR":
                _check_png_header(bytes(payload), max_pixels)
        elif name in (b"eXIf", b"iCCP", b"cICP", b"sRGB", b"gAMA", b"cHRM"):
            about[name] = bytes(payload)
    if not pixels:
        raise damaged(kind)
    kept += [*_chunk(b"IDAT", pixels), *_chunk(b"IEND", [])]
    profile = _inflated_profile(about[b"iCCP"]) if b"iCCP" in about else None
    return StrippedImage(
        kind,
        b"".join(kept),
        about.get(b"eXIf"),
        None if len(about.get(b"cICP", b"")) == 4 else profile,
        _png_colours(about) if profile is None or b"cICP" in about else None,
    )


def _check_png_header(header: bytes, max_pixels: int) -> None:
    if len(header) < 13:
        raise damaged("PNG")
    width, height, bits, colour = struct.unpack_from(">IIBB", header)
    check_size(width, height, max_pixels)
    row_bytes = (width * bits * _CHANNELS.get(colour, 4) + 7) // 8
    if row_bytes * height > MAX_ROW_BYTES:
        raise TooLargeError(
            f"The PNG has {width}x{height} pixels of {bits} bits; at most {MAX_ROW_BYTES:,} bytes "
            "of samples are accepted. Save it with 8 bits, or send a smaller one."
        )


def _png_colours(about: dict[bytes, bytes]) -> bytes | None:
    """Read what the colour chunks say, PNG third edition: cICP before sRGB before gAMA."""
    cicp = about.get(b"cICP", b"")
    if len(cicp) == 4:
        return coded_profile(cicp[0], cicp[1])
    if b"sRGB" in about:
        return None
    gamma = chromaticities = None
    if len(about.get(b"gAMA", b"")) == 4:
        gamma = int.from_bytes(about[b"gAMA"]) / 100_000
    if len(about.get(b"cHRM", b"")) == 32:
        chromaticities = tuple(n / 100_000 for n in struct.unpack(">8I", about[b"cHRM"]))
    return gamma_profile(gamma, chromaticities)


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
    raise too_many_parts("PNG")


def _chunk(name: bytes, parts: list[memoryview]) -> list[bytes | memoryview]:
    check = zlib.crc32(name)
    for part in parts:
        check = zlib.crc32(part, check)
    return [struct.pack(">I", sum(map(len, parts))), name, *parts, struct.pack(">I", check)]


def _inflated_profile(payload: bytes) -> bytes | None:
    _, _, compressed = payload.partition(b"\0")  # name, method (always 0), zlib stream
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(compressed[1:], MAX_PROFILE_BYTES)
    except zlib.error:
        return b""  # ignored, and said so
    return profile if inflater.eof else b""


# --- GIF ------------------------------------------------------------------------------------


def _strip_gif(data: bytes, kind: str, max_pixels: int) -> StrippedImage:
    """Keep the first image and the control block before it, on a screen of its size."""
    if len(data) < 13:
        raise damaged(kind)
    position = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    palette, control = data[10:position], b""
    budget = iter(range(MAX_PARTS))
    for _ in budget:
        if data[position : position + 1] == b",":
            canvas = _gif_canvas(data, position, max_pixels)
            frame = memoryview(data)[position + 5 :]
            screen = data[:6] + data[position + 5 : position + 9]
            joined = b"".join((screen, palette, control, b",\0\0\0\0", frame))
            return StrippedImage(kind, joined, canvas=canvas)
        if data[position : position + 1] != b"!":
            raise damaged(kind)
        end = _end_of_blocks(data, position + 2, budget)
        if data[position + 1 : position + 3] == b"\xf9\x04":
            control = data[position:end]
        position = end
    raise too_many_parts(kind)


def _end_of_blocks(data: bytes, position: int, budget: Iterator[int]) -> int:
    for _ in budget:
        size = data[position] if position < len(data) else 0
        position += 1 + size
        if not size:
            break
    return position


def _gif_canvas(data: bytes, frame: int, max_pixels: int) -> tuple[int, int, int, int] | None:
    """Return where the frame lies on the screen, None if it fills the screen."""
    if len(data) < frame + 9:
        raise damaged("GIF")
    left, top, width, height = struct.unpack_from("<4H", data, frame + 1)
    screen_width, screen_height = struct.unpack_from("<2H", data, 6)
    size = (max(screen_width, left + width), max(screen_height, top + height))
    if max(size) > 0xFFFF:
        raise damaged("GIF")
    check_size(*size, max_pixels)
    return None if size == (width, height) else (left, top, *size)


# --- WebP -----------------------------------------------------------------------------------


def _strip_webp(data: bytes, kind: str, max_pixels: int) -> StrippedImage:
    """Keep the pixels of the first frame, with its transparency."""
    found: dict[bytes, bytes] = {}
    for name, start, end in _riff_chunks(data, 12):
        if name in (b"VP8X", b"ALPH", b"VP8 ", b"VP8L", b"ICCP", b"EXIF", b"ANMF"):
            found.setdefault(name, data[start:end])
        if name in (b"VP8 ", b"VP8L") and b"VP8X" not in found:
            break  # the simple form holds nothing else
    canvas, header = None, found.get(b"VP8X", b"")
    if b"ANMF" in found and len(header) >= 10:
        frame = found[b"ANMF"]
        canvas = _webp_canvas(header, frame)
        check_size(*canvas[2:], max_pixels)
        header = header[:4] + frame[6:12]
        found |= {name: frame[start:end] for name, start, end in _riff_chunks(frame, 16)}
    elif len(header) >= 10:
        check_size(_number3(header, 4) + 1, _number3(header, 7) + 1, max_pixels)
    pixels = next((name for name in (b"VP8 ", b"VP8L") if name in found), None)
    if pixels is None:
        raise damaged(kind)
    parts = _riff_chunk(pixels, found[pixels])
    if len(header) >= 10:
        alpha = found.get(b"ALPH") if pixels == b"VP8 " else None
        parts = (_riff_chunk(b"ALPH", alpha) if alpha else []) + parts
        flags = bytes((header[0] & 0x10 | (0x10 if alpha else 0),)) + bytes(3)
        parts = _riff_chunk(b"VP8X", flags + header[4:10]) + parts
    body = b"WEBP" + b"".join(parts)
    stripped = b"".join(_riff_chunk(b"RIFF", body))
    return StrippedImage(kind, stripped, found.get(b"EXIF"), found.get(b"ICCP"), canvas=canvas)


def _webp_canvas(header: bytes, frame: bytes) -> tuple[int, int, int, int]:
    """Return where an animation's first frame lies on its canvas."""
    if len(frame) < 16:
        raise damaged("WebP")
    left, top, width, height = (_number3(frame, at) for at in (0, 3, 6, 9))
    canvas = (_number3(header, 4) + 1, _number3(header, 7) + 1)
    if 2 * left + width + 1 > canvas[0] or 2 * top + height + 1 > canvas[1]:
        raise damaged("WebP")
    return 2 * left, 2 * top, *canvas


def _number3(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 3], "little")


def _riff_chunks(data: bytes, position: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, end) of each chunk's content, up to one that is cut short."""
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            return
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        start = position + 8
        if start + size > len(data):
            return
        yield data[position : position + 4], start, start + size
        position = start + size + size % 2
    raise too_many_parts("WebP")


def _riff_chunk(name: bytes, content: bytes) -> list[bytes]:
    return [name, struct.pack("<I", len(content)), content, bytes(len(content) % 2)]


def _strip_heif(data: bytes, kind: str, max_pixels: int) -> StrippedImage:
    from lambda_function.images.heif import strip_heif  # imported here: few images need it

    return strip_heif(data, kind, max_pixels)


_STRIPPERS: dict[str, Callable[[bytes, str, int], StrippedImage]] = {
    "JPEG": _strip_jpeg,
    "PNG": _strip_png,
    "GIF": _strip_gif,
    "WebP": _strip_webp,
    "BMP": strip_bmp,
    "AVIF": _strip_heif,
    "HEIC": _strip_heif,
}
