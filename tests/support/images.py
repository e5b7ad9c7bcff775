"""Images that the tests make, among them odd files that Pillow does not write."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from lambda_function import REPOSITORY

RED, GREEN, BLUE, WHITE, BLACK = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 255),
    (0, 0, 0),
)
FIXTURES = REPOSITORY / "tests" / "data" / "images"
FORMATS = ("JPEG", "PNG", "WebP", "GIF", "BMP", "AVIF")


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(height: int, width: int, seed: int = 0) -> Image.Image:
    """Return an RGB image with soft shapes and a little noise, as a camera's."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)
    soft = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.integers(-6, 7, (64, 64, 3), dtype=np.int16)
    tiles = np.tile(noise, (-(-height // 64), -(-width // 64), 1))[:height, :width]
    return Image.fromarray(np.clip(np.asarray(soft) + tiles, 0, 255).astype(np.uint8))


def corners(height: int = 48, width: int = 64) -> Image.Image:
    """Return an image with red, green, blue and white quarters, different in every orientation."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    image.paste(WHITE, (width // 2, height // 2, width, height))
    return image


def exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """Return an EXIF block with an orientation and one tag before it."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    value = struct.pack(order + ("HH" if kind == 3 else "I"), *(orientation, 0)[: 5 - kind])
    return b"Exif\0\0" + b"".join(
        (
            mark,
            struct.pack(f"{order}I", 8),
            struct.pack(f"{order}H", 2),
            struct.pack(f"{order}HHI4s", 0x0103, 3, 1, b"\0\6\0\6"),
            struct.pack(f"{order}HHI4s", 0x0112, kind, 1, value),
            b"\0\0\0\0",
        )
    )


def chunk(name: bytes, payload: bytes) -> bytes:
    """Return one PNG chunk."""
    return (
        struct.pack(">I", len(payload))
        + name
        + payload
        + struct.pack(">I", zlib.crc32(name + payload))
    )


def png(samples: np.ndarray, extra: bytes = b"", bits: int | None = None) -> bytes:
    """Write a PNG by hand.

    Args:
        samples: uint8 or uint16, (height, width) or (height, width, 2, 3 or 4).
        extra: chunks to put before the pixels.
        bits: per sample, if fewer than 8. Then ``samples`` holds packed rows.
    """
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[1 if samples.ndim == 2 else samples.shape[2]]
    depth = bits or samples.dtype.itemsize * 8
    height, width = samples.shape[0], samples.shape[1] * (8 // bits if bits else 1)
    big_endian = samples.astype(samples.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + row.tobytes() for row in big_endian)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)),
            extra,
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        )
    )


def png_header(height: int, width: int, colour: int = 2) -> bytes:
    """Return a PNG that claims a size and holds next to nothing."""
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)),
            chunk(b"IDAT", zlib.compress(bytes(1000))),
            chunk(b"IEND", b""),
        )
    )


def segment(marker: int, payload: bytes) -> bytes:
    """Return one JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def insert_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """Put segments right after the start of a JPEG."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def without_segment(jpeg: bytes, marker: int) -> bytes:
    start = jpeg.index(bytes((0xFF, marker)))
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4]) :]


def icc_profile(
    space: bytes,
    tags: dict[bytes, bytes],
    connection: bytes = b"XYZ ",
    version: int = 0x02100000,
) -> bytes:
    """Write an ICC profile by hand, https://www.color.org/icc32.pdf."""
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    rest = struct.pack(">I", len(tags)) + table + body
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    header = struct.pack(">I4sI4s4s4s", 128 + len(rest), bytes(4), version, kind, space, connection)
    header += bytes(12) + b"acsp" + bytes(28)
    header += struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)  # D50, the illuminant of every profile
    return header.ljust(128, b"\0") + rest


def xyz(x: float, y: float, z: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in (x, y, z)))


def gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


_D50 = xyz(0.9642, 1.0, 0.8249)
# sRGB's primaries adapted to D50, https://www.color.org/sRGB.pdf.
_PRIMARIES = {
    "red": xyz(0.4361, 0.2225, 0.0139),
    "green": xyz(0.3851, 0.7169, 0.0971),
    "blue": xyz(0.1431, 0.0606, 0.7139),
}


def rgb_profile(
    red: str = "red", green: str = "green", blue: str = "blue", *, exponent: float = 2.2
) -> bytes:
    """Return a profile with sRGB's primaries, in any order, and a plain gamma curve."""
    primaries = {
        b"rXYZ": _PRIMARIES[red],
        b"gXYZ": _PRIMARIES[green],
        b"bXYZ": _PRIMARIES[blue],
    }
    curves = {name: gamma(exponent) for name in (b"rTRC", b"gTRC", b"bTRC")}
    return icc_profile(b"RGB ", {b"wtpt": _D50, **primaries, **curves})


def grey_profile(exponent: float) -> bytes:
    return icc_profile(b"GRAY", {b"wtpt": _D50, b"kTRC": gamma(exponent)})


def cmyk_profile() -> bytes:
    """Return a profile of a press whose cyan ink is black and whose other inks are invisible."""
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0))
    lut += struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut += bytes(range(256)) * 4
    for point in range(16):  # the first ink varies slowest
        lut += bytes((0 if point >= 8 else 255, 128, 128))  # L*, a*, b*
    lut += bytes(range(256)) * 3
    return icc_profile(b"CMYK", {b"wtpt": _D50, b"A2B0": lut}, connection=b"Lab ")


def lab_profile() -> bytes:
    """Return an RGB profile whose mAB tag exchanges red and blue, ICC.1:2022 10.12."""
    line = b"para\0\0\0\0" + struct.pack(">HHi", 0, 0, 65536)
    curves = line * 3
    tag = b"mAB \0\0\0\0" + bytes((3, 3, 0, 0))
    table = 32 + len(curves)
    tag += struct.pack(">5I", 32, 0, 0, table, 32) + curves
    corners_of_cube = [
        bytes(255 * part for part in (blue, green, red))
        for red in (0, 1)
        for green in (0, 1)
        for blue in (0, 1)
    ]
    tag += bytes((2, 2, 2)).ljust(16, b"\0") + b"\1\0\0\0" + b"".join(corners_of_cube)
    return icc_profile(b"RGB ", {b"wtpt": _D50, b"A2B0": tag}, version=0x04400000)


def bit_field_bmp(
    masks: tuple[int, int, int, int], *, bits: int, pixels: bytes = b"", side: int = 4
) -> bytes:
    """Return a square BMP whose channels have these masks."""
    pixels = pixels or bytes(range(16 * bits // 8))
    start = 14 + 108
    head = struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start)
    head += struct.pack("<IiiHHIIiiII", 108, side, side, 1, bits, 3, 0, 0, 0, 0, 0)
    return (head + struct.pack("<4I", *masks)).ljust(start, b"\0") + pixels


def read_fixture(name: str) -> bytes:
    """Return a file that no library of the tests can write: HEIC, and AVIF of 10 and 12 bits.

    pillow-heif 1.4 and imagecodecs 2026.3.6 made them from ``corners`` and ``photo(512, 512)``.
    """
    return (FIXTURES / name).read_bytes()
