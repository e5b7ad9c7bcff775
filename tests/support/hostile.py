"""Small files that cost a decoder much: the seeds of the budget test and of the fuzzer."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

from tests.support.images import (
    chunk,
    encode,
    icc_profile,
    insert_segments,
    read_fixture,
    rgb_profile,
    segment,
    xyz,
)
from tests.support.isobmff import (
    av1_frames,
    avif,
    box,
    find_box,
    heif,
    one_item,
    sequence_size,
    tiled,
)

_COLOURS = {
    b"rXYZ": xyz(0.4361, 0.2225, 0.0139),
    b"gXYZ": xyz(0.3851, 0.7169, 0.0971),
    b"bXYZ": xyz(0.1431, 0.0606, 0.7139),
}


# --- ICC profiles ---------------------------------------------------------------------------


def mpet_profile(elements: int) -> bytes:
    """Return a profile whose D2B0 names one matrix many times, ICC.1:2022 10.16."""
    matrix = b"matf\0\0\0\0" + struct.pack(">HH", 3, 3)
    matrix += struct.pack(">12f", 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0)
    start = 16 + 8 * elements
    tag = b"mpet\0\0\0\0" + struct.pack(">HHI", 3, 3, elements)
    tag += struct.pack(">II", start, len(matrix)) * elements + matrix
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv\0\0\0\0" + struct.pack(">I", 0))
    return icc_profile(b"RGB ", {b"D2B0": tag, **_COLOURS, **curves}, version=0x04400000)


def mpet_lut_profile(elements: int) -> bytes:
    """Return the same in A2B0, where some readers look too."""
    return mpet_profile(elements).replace(b"D2B0", b"A2B0")


def long_curve_profile(entries: int) -> bytes:
    curve = b"curv\0\0\0\0" + struct.pack(">I", entries) + bytes(2 * entries)
    return icc_profile(b"RGB ", {**_COLOURS, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)})


def large_table_profile(points: int) -> bytes:
    """Return a profile with a 16-bit table of points x points x points colours."""
    tag = b"mft2\0\0\0\0" + bytes((3, 3, points, 0))
    tag += struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    tag += struct.pack(">HH", 2, 2) + struct.pack(">HH", 0, 65535) * 3
    tag += bytes(6 * points**3) + struct.pack(">HH", 0, 65535) * 3
    return icc_profile(b"RGB ", {b"A2B0": tag}, connection=b"Lab ")


def many_tags_profile(tags: int) -> bytes:
    """Return a good profile with many tags more, all of them at one place."""
    good = rgb_profile()
    (count,) = struct.unpack_from(">I", good, 128)
    table = struct.pack(">4sII", b"xxxx", 128, 20) * (tags - count)
    for name, start, size in struct.iter_unpack(">4sII", good[132 : 132 + 12 * count]):
        table += struct.pack(">4sII", name, start + 12 * (tags - count), size)
    return good[:128] + struct.pack(">I", tags) + table + good[132 + 12 * count :]


# --- PNG, GIF, BMP --------------------------------------------------------------------------


def blank_png(
    height: int,
    width: int,
    *,
    colour: int = 6,
    bits: int = 16,
    interlace: int = 0,
    extra: bytes = b"",
    filter_type: int = 0,
    rows: int | None = None,
) -> bytes:
    """Return a PNG of zeros, compressed without holding them in memory.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        colour: type, as in PNG's header.
        bits: per sample.
        interlace: 1 for Adam7. The rows then are those of a plain image, which are enough.
        extra: chunks before the pixels.
        filter_type: of each row, 4 is Paeth.
        rows: in the file, if other than ``height``.
    """
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = bytes((filter_type,)) + bytes((width * channels * bits + 7) // 8)
    block = row * max(1, 1_000_000 // len(row))
    squeeze = zlib.compressobj(9)
    total = len(row) * (rows or height) + (height * 2 if interlace else 0)
    parts = [squeeze.compress(block) for _ in range(total // len(block))]
    parts += [squeeze.compress(block[: total % len(block)]), squeeze.flush()]
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", head),
            extra,
            chunk(b"IDAT", b"".join(parts)),
            chunk(b"IEND", b""),
        )
    )


def icc_chunk(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"x\0\0" + zlib.compress(profile, 9))


def png_with_profile(profile: bytes) -> bytes:
    return blank_png(1, 1, colour=2, bits=8, extra=icc_chunk(profile))


def gif_with_screen(height: int, width: int) -> bytes:
    """Return a GIF of one transparent pixel on a large screen."""
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
        + b"\0\0\0\xff\0\0"
        + b"!\xf9\4\1\0\0\0\0"
        + b",\0\0\0\0\1\0\1\0\0\2\2\x4c\1\0;"
    )


def rle_bmp(height: int, width: int, body: bytes, *, bits: int = 8) -> bytes:
    """Return a run-length encoded BMP of 4 or 8 bits with a grey palette."""
    colours = 2**bits
    palette = b"".join(bytes((n, n, n, 0)) for n in range(0, 256, 256 // colours))
    start = 14 + 40 + len(palette)
    head = struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start)
    kind = {8: 1, 4: 2}[bits]
    head += struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, kind, 0, 0, 0, colours, 0)
    return head + palette + body


# --- JPEG -----------------------------------------------------------------------------------

# Huffman tables of one code, for DC and AC.
_EMPTY_TABLES = [segment(0xC4, bytes((table, 1)) + bytes(15) + b"\0") for table in (0x00, 0x10)]


def empty_scans_jpeg(
    side: int, scans: int, *, arithmetic: bool = True, restart: int = 1, sampling: int = 0x11
) -> bytes:
    """Return a progressive JPEG whose scans hold no data: the decoder fills in zeros.

    Args:
        side: height and width in pixels.
        scans: how many. The first holds the DC coefficients, the others AC ones.
        arithmetic: arithmetic coding (SOF10) instead of Huffman's (SOF2).
        restart: interval in blocks, 0 for none.
        sampling: factors of the first component.
    """
    parts = [b"\xff\xd8", segment(0xDB, b"\0" + b"\1" * 64)]
    frame = struct.pack(">BHHB", 8, side, side, 3)
    frame += bytes((1, sampling, 0, 2, 0x11, 0, 3, 0x11, 0))
    parts.append(segment(0xCA if arithmetic else 0xC2, frame))
    if not arithmetic:
        parts += _EMPTY_TABLES
    if restart:
        parts.append(segment(0xDD, struct.pack(">H", restart)))
    parts.append(segment(0xDA, bytes((3, 1, 0, 2, 0, 3, 0, 0, 0, 0))))
    parts += [segment(0xDA, bytes((1, scan % 3 + 1, 0, 1, 63, 0))) for scan in range(scans - 1)]
    return b"".join([*parts, b"\xff\xd9"])


def blank_jpeg(side: int) -> bytes:
    """Return a baseline JPEG without data."""
    parts = [b"\xff\xd8", segment(0xDB, b"\0" + b"\1" * 64)]
    parts.append(segment(0xC0, struct.pack(">BHHB", 8, side, side, 1) + bytes((1, 0x11, 0))))
    parts += _EMPTY_TABLES
    return b"".join([*parts, segment(0xDA, bytes((1, 1, 0, 0, 63, 0))), b"\xff\xd9"])


def jpeg_with_profile(profile: bytes) -> bytes:
    jpeg = encode(Image.new("RGB", (1, 1)), "JPEG")
    return insert_segments(jpeg, segment(0xE2, b"ICC_PROFILE\0\1\1" + profile))


# --- AVIF and WebP --------------------------------------------------------------------------


def avif_of_several_frames(side: int, frames: int) -> bytes:
    """Return an AVIF whose one item holds a whole sequence of frames."""
    images = [Image.new("RGB", (side, side), (n * 7 % 256, 0, 0)) for n in range(frames)]
    buffer = io.BytesIO()
    images[0].save(buffer, "AVIF", save_all=True, append_images=images[1:], speed=10)
    return avif(b"".join(av1_frames(buffer.getvalue())), height=side, width=side)


def avif_larger_than_it_says(side: int) -> bytes:
    """Return an AVIF that claims 16x16 pixels and codes many more."""
    data = encode(Image.new("RGB", (side, side)), "AVIF", speed=10)
    assert sequence_size(data) == (side, side)
    return avif(b"".join(av1_frames(data)), height=16, width=16)


def animated_webp(frames: int) -> bytes:
    """Return an animation of many frames of a pixel."""
    pixel = encode(Image.new("RGB", (1, 1)), "WebP", lossless=True)[12:]
    head = b"\2\0\0\0" + bytes(6)
    frame = struct.pack("<3s3s3s3s3sB", *[bytes(3)] * 5, 0) + pixel
    body = _riff_chunk(b"VP8X", head) + _riff_chunk(b"ANIM", bytes(6))
    body += _riff_chunk(b"ANMF", frame) * frames
    return _riff_chunk(b"RIFF", b"WEBP" + body)


def _riff_chunk(name: bytes, payload: bytes) -> bytes:
    return name + struct.pack("<I", len(payload)) + payload + bytes(len(payload) % 2)


def heic_turned(*properties: bytes, rows: int = 1, columns: int = 1) -> bytes:
    """Return a grid of tiles of 500 x 500 pixels with these properties, such as turns."""
    tile = one_item(read_fixture("tile.heic"), b"hvc1")
    size = {"height": rows * 500, "width": columns * 500}
    return tiled(tile, rows, columns, **size, extra=properties)


def heic_named_often(times: int) -> bytes:
    """Return a HEIC whose data is named again and again, as if it were pieces of the image."""
    tile = one_item(read_fixture("tile.heic"), b"hvc1")
    return heif([tile._replace(times=times)], brand=b"heic")


def avif_of_many_units(tiles: int, units: int) -> bytes:
    """Return a grid of small tiles, each with that many empty OBUs before its image."""
    tile = one_item(encode(Image.new("RGB", (64, 64)), "AVIF"), b"av01")
    padded = tile._replace(data=b"\x12\0" * units + tile.data)
    return tiled(padded, 1, tiles, height=64, width=64 * tiles)


def heic_with_long_numbers(parameter_sets: int, zeros: int) -> bytes:
    """Return a HEIC with more parameter sets, each with a number after that many zero bytes."""
    tile = one_item(read_fixture("tile.heic"), b"hvc1")
    unit = b"\x42\1\1" + bytes(12) + bytes(zeros) + b"\xff" * 8
    array = b"\x21" + struct.pack(">H", parameter_sets)
    array += (struct.pack(">H", len(unit)) + unit) * parameter_sets
    size, old, *others = tile.properties
    configuration = find_box(old, b"hvcC")
    more = configuration[:22] + bytes((configuration[22] + 1,)) + configuration[23:] + array
    return heif([tile._replace(properties=(size, box(b"hvcC", more), *others))], brand=b"heic")
