"""No file of at most 20 MB costs more than its budget of processor time and memory.

The budget is 20 decodings of a 12-megapixel JPEG, and 18 bytes for each pixel plus 60 MB. Each file
is decoded in a process of its own, best of three. `make test` leaves these tests out.
"""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lambda_function.images.profiles import MAX_CURVE_ENTRIES
from tests.support.hostile import (
    animated_webp,
    avif_larger_than_it_says,
    avif_of_many_units,
    avif_of_several_frames,
    blank_jpeg,
    blank_png,
    empty_scans_jpeg,
    gif_with_screen,
    heic_named_often,
    heic_turned,
    heic_with_long_numbers,
    icc_chunk,
    jpeg_with_profile,
    large_table_profile,
    long_curve_profile,
    many_tags_profile,
    mpet_profile,
    png_with_profile,
    rle_bmp,
)
from tests.support.images import (
    bit_field_bmp,
    chunk,
    cmyk_profile,
    encode,
    insert_segments,
    photo,
    png,
    read_fixture,
    rgb_profile,
    segment,
)
from tests.support.isobmff import box, one_item, tiled
from tests.support.processes import run_python

pytestmark = pytest.mark.budget

MAX_TIMES = 20
MAX_BYTES_PER_PIXEL = 18
MAX_BESIDE_MB = 60
TURNED = icc_chunk(rgb_profile("blue", "green", "red"))


def heic(rows: int, columns: int) -> bytes:
    tile = one_item(read_fixture("tile.heic"), b"hvc1")
    return tiled(tile, rows, columns, height=rows * 500, width=columns * 500)


def ten_bit_avif(rows: int, columns: int) -> bytes:
    tile = one_item(read_fixture("ten-bit.avif"), b"av01")
    return tiled(tile, rows, columns, height=rows * 500, width=columns * 500)


def image_of_48_megapixels(kind: str, **options: object) -> Callable[[], bytes]:
    return lambda: encode(large_photo(6048, 8064), kind, **options)


@functools.cache
def large_photo(height: int = 3000, width: int = 4000) -> Image.Image:
    return photo(height, width)


TURN = box(b"irot", b"\1")
# Refused, or cheap.
HOSTILE: dict[str, Callable[[], bytes]] = {
    "mpet in PNG": lambda: png_with_profile(mpet_profile(60_000)),
    "mpet in JPEG": lambda: jpeg_with_profile(mpet_profile(5_000)),
    "mpet in WebP": lambda: encode(photo(8, 8), "WebP", icc_profile=mpet_profile(20_000)),
    "mpet in AVIF": lambda: encode(photo(8, 8), "AVIF", icc_profile=mpet_profile(20_000)),
    "curves": lambda: png_with_profile(long_curve_profile(600_000)),
    "curves within the bound": lambda: png_with_profile(long_curve_profile(MAX_CURVE_ENTRIES)),
    "table within the bound": lambda: png_with_profile(large_table_profile(88)),
    "tags": lambda: png_with_profile(many_tags_profile(300_000)),
    "frames of AVIF": lambda: avif_of_several_frames(2000, 40),
    "frames of AVIF within the bound": lambda: avif_of_several_frames(2000, 20),
    "AVIF larger than it says": lambda: avif_larger_than_it_says(6000),
    "short rows of RLE": lambda: rle_bmp(762, 65_535, b"\1\5\0\0" * 762),
    "runs of one": lambda: rle_bmp(1000, 1000, b"\1\x11" * 1_000_000 + b"\0\1"),
    "runs of one within the bound": lambda: rle_bmp(1000, 524, b"\1\x11" * 524_000 + b"\0\1"),
    "short rows of RLE4": lambda: rle_bmp(7000, 7000, b"\4\x11" * 196_000, bits=4),
    "arithmetic scans": lambda: empty_scans_jpeg(7000, 49),
    "arithmetic scans within the bound": lambda: empty_scans_jpeg(7000, 18),
    "arithmetic scans without an end": lambda: empty_scans_jpeg(7000, 18)[:-2],
    "HEIC turned forty times": lambda: heic_turned(*[TURN] * 40, rows=6, columns=8),
    "HEIC turned once": lambda: heic_turned(TURN, rows=11, columns=14),
    "arithmetic scans of a smaller image": lambda: empty_scans_jpeg(4400, 49),
    "Huffman scans within the bound": lambda: empty_scans_jpeg(7000, 18, arithmetic=False),
    "JPEG without data": lambda: blank_jpeg(7000),
    "tall 16-bit PNG": lambda: blank_png(65_535, 762, extra=TURNED, filter_type=4),
    "tall 16-bit PNG within the bound": lambda: blank_png(65_535, 476, extra=TURNED, filter_type=4),
    "16-bit PNG within the bound": lambda: blank_png(5500, 5600, extra=TURNED, filter_type=4),
    "tall 8-bit PNG": lambda: blank_png(65_535, 762, bits=8, extra=TURNED, filter_type=4),
    "interlaced PNG": lambda: blank_png(5500, 5600, interlace=1),
    "PNG with surplus rows": lambda: blank_png(100, 100, rows=2_000_000),
    "screen of GIF": lambda: gif_with_screen(7000, 7000),
    "wide screen of GIF": lambda: gif_with_screen(762, 65_535),
    "frames of WebP": lambda: animated_webp(300_000),
    "text of PNG": lambda: png(
        np.zeros((2, 2), np.uint8),
        extra=chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(10**7))) * 900,
    ),
    "comments of JPEG": lambda: insert_segments(
        encode(photo(8, 8), "JPEG"), segment(0xFE, b"x" * 390) * 50_000
    ),
    "HEIC beyond the bound": lambda: heic(14, 14),
    "HEIC whose data is named often": lambda: heic_named_often(49_000),
    "HEIC with long numbers": lambda: heic_with_long_numbers(60, zeros=1000),
    "AVIF of many units": lambda: avif_of_many_units(250, 40_000),
    "AVIF beyond the bound": lambda: ten_bit_avif(14, 14),
}
# Must be read.
READ: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encode(large_photo(), "JPEG", quality=95),
    "progressive JPEG": lambda: encode(large_photo(), "JPEG", progressive=True),
    "CMYK JPEG": lambda: encode(large_photo().convert("CMYK"), "JPEG", icc_profile=cmyk_profile()),
    "noise JPEG": lambda: encode(large_photo(), "JPEG", quality=100, subsampling=0),
    "PNG": lambda: encode(large_photo(), "PNG", compress_level=1),
    "WebP": lambda: encode(large_photo(), "WebP", method=0),
    "lossless WebP": lambda: encode(large_photo(), "WebP", lossless=True, method=0, quality=0),
    "GIF": lambda: encode(large_photo().quantize(256), "GIF"),
    "BMP of 6 megapixels": lambda: encode(photo(2000, 3000), "BMP"),
    "BMP of 16-bit fields": lambda: bit_field_bmp(
        (0xF800, 0x7E0, 0x1F, 0), bits=16, pixels=bytes(range(256)) * 81_912, side=3238
    ),
    "AVIF": lambda: encode(large_photo(), "AVIF", quality=75, speed=9),
    "10-bit AVIF": lambda: ten_bit_avif(6, 8),
    "HEIC": lambda: heic(6, 8),
    "JPEG of 48 megapixels": image_of_48_megapixels("JPEG", quality=90),
    "progressive JPEG of 48 megapixels": image_of_48_megapixels("JPEG", progressive=True),
    "WebP of 48 megapixels": image_of_48_megapixels("WebP", quality=50, method=0),
    "AVIF of 48 megapixels": image_of_48_megapixels("AVIF", quality=50, speed=10),
    "HEIC of 24 megapixels": lambda: heic(8, 12),
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """Return a JPEG of 12 megapixels, the unit of the budget."""
    file = tmp_path_factory.mktemp("budget") / "reference.jpg"
    file.write_bytes(encode(large_photo(), "JPEG", quality=90))
    return file


def cost_of(data: bytes, reference: Path) -> dict:
    file = reference.with_name("image")
    file.write_bytes(data)
    done = run_python("-m", "tests.support.decode_cost", reference, file)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_within_budget(cost: dict) -> None:
    assert cost["times"] <= MAX_TIMES, cost
    assert cost["peak_mb"] * 2**20 <= MAX_BYTES_PER_PIXEL * cost["pixels"] + MAX_BESIDE_MB * 1e6, (
        cost
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused_or_within_the_budget(name, reference):
    data = HOSTILE[name]()
    assert len(data) <= 20_000_000

    cost = cost_of(data, reference)

    assert cost["outcome"][:3] in ("rea", "413", "415", "422")
    assert_within_budget(cost)


@pytest.mark.parametrize("name", READ)
def test_real_image_is_read_within_the_budget(name, reference):
    cost = cost_of(READ[name](), reference)

    assert cost["outcome"] == "read"
    assert_within_budget(cost)
