"""BMP: expand what Pillow reads slowly or not at all.

Pillow expands run lengths in Python, and pads each short row byte by byte: a file of 4 kB took it
11 s. It knows few bit-field layouts. Both are rewritten here as plain BMP.
https://learn.microsoft.com/windows/win32/gdi/bitmap-compression
"""

from __future__ import annotations

import struct

import numpy as np

from lambda_function.errors import UndecodableImageError
from lambda_function.images.stripped import StrippedImage, check_size, damaged

MAX_RLE_BYTES = 1024**2  # 1 MiB of runs takes ten times as long as a photo
_RLE8, _RLE4, _BIT_FIELDS, _ALPHA_BIT_FIELDS = 1, 2, 3, 6


def strip_bmp(data: bytes, kind: str, max_pixels: int) -> StrippedImage:
    """Return a BMP without compression.

    Args:
        data: the file.
        kind: BMP.
        max_pixels: larger images are refused.

    Raises:
        UndecodableImageError: damaged, or of a kind that is not read.
        TooLargeError: more than ``max_pixels`` pixels.
    """
    header_bytes = data[14]
    compression = int.from_bytes(data[30:34], "little") if header_bytes >= 40 else 0
    if compression == 0:
        return StrippedImage(kind, data)
    if len(data) < 54:
        raise damaged(kind)
    (start,) = struct.unpack_from("<I", data, 10)
    width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
    check_size(width, abs(height), max_pixels)
    if (compression, bits) in ((_RLE8, 8), (_RLE4, 4)) and width > 0 and height > 0:
        return StrippedImage(kind, _expand_runs(data, start, width, height, bits))
    is_fields = compression in (_BIT_FIELDS, _ALPHA_BIT_FIELDS)
    if is_fields and bits in (16, 32) and width > 0 and height:
        return StrippedImage(kind, _expand_fields(data, start, width, height, bits))
    raise UndecodableImageError(
        f"This kind of BMP is not read (compression {compression}, {bits} bits). Send PNG."
    )


def _expand_runs(data: bytes, start: int, width: int, height: int, bits: int) -> bytes:
    body = data[start:]
    if len(body) > MAX_RLE_BYTES:
        raise UndecodableImageError(
            f"Run-length encoded BMP of more than {MAX_RLE_BYTES:,} bytes is not read. Send PNG."
        )
    stride = width + -width % 4
    rows = bytearray(stride * height)
    x = y = at = 0
    is_ended = False
    while at + 1 < len(body) and y < height and not is_ended:
        count, value = body[at], body[at + 1]
        at += 2
        if count:
            pixels = _repeat(value, count, bits)
        elif value == 0:
            x, y = 0, y + 1
            continue
        elif value == 1:
            is_ended = True
            continue
        elif value == 2:
            if at + 2 > len(body):
                break
            x, y, at = x + body[at], y + body[at + 1], at + 2
            continue
        else:
            size = (value * bits + 7) // 8
            pixels = _unpack(body[at : at + size], bits)[:value]
            at += size + size % 2
        pixels = pixels[: max(0, width - x)]
        rows[y * stride + x : y * stride + x + len(pixels)] = pixels
        x += len(pixels)
    if not (is_ended or y >= height or (y == height - 1 and x >= width)):
        raise damaged("BMP")
    palette_start = 14 + data[14]
    colours = min(int.from_bytes(data[46:50], "little") or 2**bits, 2**bits)
    palette = data[palette_start : palette_start + 4 * colours]
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 0, 0, 0, 0, len(palette) // 4, 0)
    return _file(head + palette, bytes(rows))


def _repeat(value: int, count: int, bits: int) -> bytes:
    if bits == 8:
        return bytes((value,)) * count
    return (bytes((value >> 4, value & 15)) * 128)[:count]


def _unpack(packed: bytes, bits: int) -> bytes:
    if bits == 8:
        return packed
    return bytes(nibble for byte in packed for nibble in (byte >> 4, byte & 15))


def _expand_fields(data: bytes, start: int, width: int, height: int, bits: int) -> bytes:
    """Scale each field of each pixel to 8 bits."""
    masks = struct.unpack_from("<4I", data, 54) if len(data) >= 70 else (0, 0, 0, 0)
    if data[14] < 56 and int.from_bytes(data[30:34], "little") != _ALPHA_BIT_FIELDS:
        masks = (*masks[:3], 0)  # the older headers have no mask for alpha
    stride = (width * bits // 8 + 3) // 4 * 4
    if len(data) < start + stride * abs(height):
        raise damaged("BMP")
    rows = np.frombuffer(data, np.uint8, stride * abs(height), start).reshape(abs(height), stride)
    words = rows[:, : width * bits // 8].copy().view("<u2" if bits == 16 else "<u4")
    pixels = np.zeros((abs(height), width, 4), np.uint8)
    masks = tuple(mask & (1 << bits) - 1 for mask in masks)
    for channel, mask in zip((2, 1, 0, 3), masks, strict=True):
        lowest = mask & -mask
        top = mask // lowest if lowest else 0
        if not top:
            continue
        levels = (words & words.dtype.type(mask)) // words.dtype.type(lowest)
        wide = levels.astype(np.uint64 if bits == 32 else np.uint32)  # 255 times as large
        pixels[..., channel] = wide * 255 // top
    standard = (0xFF0000, 0xFF00, 0xFF, 0xFF000000 if masks[3] else 0)
    head = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, 0, 0, 0, 0, 0)
    head = (head + struct.pack("<4I", *standard)).ljust(108, b"\0")
    return _file(head, pixels.tobytes())


def _file(head: bytes, pixels: bytes) -> bytes:
    start = 14 + len(head)
    return struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start) + head + pixels
