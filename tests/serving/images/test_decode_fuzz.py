"""For any bytes, decode_image returns an image or raises a documented error."""

from __future__ import annotations

import functools
import os
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from lambda_function.errors import (
    TooLargeError,
    UndecodableImageError,
    UnsupportedImageError,
)
from lambda_function.images.decode import decode_image, preprocess
from lambda_function.images.profiles import coded_profile
from lambda_function.metadata import InputSpec
from tests.support.hostile import (
    avif_larger_than_it_says,
    avif_of_several_frames,
    empty_scans_jpeg,
    gif_with_screen,
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
    exif,
    grey_profile,
    insert_segments,
    lab_profile,
    photo,
    png,
    read_fixture,
    rgb_profile,
    segment,
)

SPEC = InputSpec(height=16, width=16)
MAX_PIXELS = 1_000_000
REFUSALS = (TooLargeError, UndecodableImageError, UnsupportedImageError)
SIGNATURES = (
    *(b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x10\0\0\0WEBPVP8 "),
    b"RIFF\x10\0\0\0WEBPVP8X",
    b"BM" + bytes(12) + b"\x28\0\0\0",
    b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf",
)
SLOW_CASES = int(os.environ.get("FUZZ_CASES", "2000"))
FUZZ = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,  # the same cases on every machine, `slow` below tries new ones
    suppress_health_check=[HealthCheck.too_slow],
)


@functools.cache
def valid_files() -> tuple[bytes, ...]:
    """Return small files of every format and kind."""
    image = photo(24, 20)
    grey, palette = image.convert("L"), image.quantize(16)
    alpha = Image.merge("RGBA", (*image.split(), grey))
    turned = {"exif": exif(6), "icc_profile": rgb_profile("blue", "green", "red")}
    animation = {"save_all": True, "append_images": [photo(24, 20, 1), photo(24, 20, 2)]}
    deep = np.arange(480, dtype=np.uint16).reshape(24, 20) * 136
    return (
        encode(image, "JPEG", **turned),
        encode(image, "JPEG", progressive=True),
        encode(grey, "JPEG", icc_profile=grey_profile(1.8)),
        encode(image.convert("CMYK"), "JPEG", icc_profile=cmyk_profile()),
        encode(image, "MPO", **animation),
        insert_segments(encode(image, "JPEG"), segment(0xFE, b"comment"), segment(0xED, b"8BIM")),
        encode(image, "PNG", **turned),
        encode(alpha, "PNG"),
        encode(palette, "PNG", transparency=bytes(range(0, 160, 10))),
        encode(image.convert("1"), "PNG"),
        encode(image, "PNG", **animation),
        png(deep, extra=chunk(b"tRNS", b"\0\x88")),
        encode(palette, "GIF", transparency=3),
        encode(palette, "GIF", save_all=True, append_images=[photo(24, 20, 3).quantize(16)]),
        encode(image, "WebP", **turned),
        encode(alpha, "WebP", lossless=True),
        encode(image, "WebP", **animation),
        encode(image, "BMP"),
        encode(palette, "BMP"),
        encode(image.convert("1"), "BMP"),
        encode(image, "AVIF", **turned),
        encode(alpha, "AVIF"),
        encode(image, "AVIF", **animation),
        empty_scans_jpeg(64, 20),
        empty_scans_jpeg(64, 20, arithmetic=False),
        gif_with_screen(64, 64),
        rle_bmp(24, 20, b"\1\5\0\0" * 24),
        rle_bmp(24, 20, b"\x14\x12\0\0\0\4\x12\x34" * 24 + b"\0\1", bits=4),
        bit_field_bmp((0x1F << 10, 0x1F << 5, 0x1F, 0x8000), bits=16),
        png(np.asarray(image), extra=chunk(b"cICP", bytes((9, 16, 0, 1)))),
        png(np.asarray(image), extra=chunk(b"gAMA", (100_000).to_bytes(4))),
        *(read_fixture(name) for name in ("corners.heic", "alpha.heic", "ten-bit.heic")),
        read_fixture("ten-bit.avif"),
        read_fixture("twelve-bit-alpha.avif"),
    )


@functools.cache
def profiles() -> tuple[bytes, ...]:
    """Return small profiles of every kind, good and hostile."""
    return (
        rgb_profile("blue", "green", "red"),
        grey_profile(1.8),
        cmyk_profile(),
        lab_profile(),
        mpet_profile(200),
        mpet_profile(200).replace(b"D2B0", b"A2B0"),
        long_curve_profile(2_000),
        large_table_profile(5),
        many_tags_profile(50),
        coded_profile(9, 16) or b"",
    )


@functools.cache
def refused_files() -> tuple[bytes, ...]:
    """Return seeds that are refused as they are."""
    return (avif_of_several_frames(64, 5), avif_larger_than_it_says(256))


def is_read(data: bytes) -> bool:
    """Return whether the bytes are read. Everything but a documented error propagates."""
    try:
        image = decode_image(data, max_pixels=MAX_PIXELS, target=SPEC)
    except REFUSALS as error:
        assert error.detail
        return False
    assert image.mode == "RGB"
    tensor = preprocess(image, SPEC)
    assert tensor.shape == (1, 16, 16, 3)
    assert np.abs(tensor).max() <= 1
    return True


def mutate(data: bytes, seed: int) -> bytes:
    """Damage a file in one to eight places, as transmission errors and attackers do."""
    rng = random.Random(seed)  # noqa: S311 - nothing secret
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        at = rng.randrange(len(changed))
        # Half of the damage goes to headers, because they decide more than pixels.
        at = at if rng.random() < 0.5 else at % 128 % len(changed)
        kind = rng.randrange(7)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            changed[at : at + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"))
        elif kind == 3:
            del changed[at : at + rng.choice((1, 2, 16))]
        elif kind == 4:
            changed[at:at] = rng.randbytes(rng.choice((1, 3, 40)))
        elif kind == 5:
            length = rng.randrange(1, 64)
            changed[at:at] = changed[at : at + length]
        else:
            del changed[max(1, at) :]
        if not changed:
            return b"\0"
    return bytes(changed)


def test_the_seeds_are_read():
    assert all(is_read(data) for data in valid_files())
    assert all(is_read(png_with_profile(profile)) for profile in profiles())


@FUZZ
@given(signature=st.sampled_from(SIGNATURES), rest=st.binary(max_size=400))
@example(signature=b"\xff\xd8\xff", rest=b"\xda\0\2")
@example(signature=b"GIF89a", rest=b"\1\0\1\0\0\0\0,")
def test_random_bytes_are_refused(signature, rest):
    assert not is_read(signature + rest) or signature


@FUZZ
@given(which=st.integers(0, 1000), share=st.floats(0, 1, exclude_max=True))
def test_truncated_files_are_refused_or_read(which, share):
    data = valid_files()[which % len(valid_files())]

    is_read(data[: int(len(data) * share)])


@settings(FUZZ, max_examples=300)
@given(which=st.integers(0, 1000), seed=st.integers(0, 2**32))
def test_damaged_files_are_refused_or_read(which, seed):
    data = valid_files()[which % len(valid_files())]

    is_read(mutate(data, seed))


@FUZZ
@given(which=st.integers(0, 1000), other=st.integers(0, 1000), share=st.floats(0.01, 0.99))
def test_files_grafted_onto_another_are_refused_or_read(which, other, share):
    files = valid_files()
    head, tail = files[which % len(files)], files[other % len(files)]

    is_read(head[: int(len(head) * share)] + tail[int(len(tail) * share) :])


CHUNK_DAMAGE = {
    "dropped": lambda name, payload: b"",
    "empty": lambda name, payload: chunk(name, b""),
    "cut short": lambda name, payload: chunk(name, payload[: len(payload) // 2]),
    "too long": lambda name, payload: chunk(name, payload * 40),
    "zeros": lambda name, payload: chunk(name, bytes(len(payload))),
    "ones": lambda name, payload: chunk(name, b"\xff" * len(payload)),
    "twice": lambda name, payload: chunk(name, payload) * 2,
}


@pytest.mark.parametrize("damage", CHUNK_DAMAGE)
def test_damaged_png_chunks_with_right_checksums_are_refused_or_read(damage):
    """Random damage breaks the checksum first. Here the checksum is right again."""
    images = [data for data in valid_files() if data.startswith(SIGNATURES[2])]
    assert len(images) >= 6
    for data in images:
        chunks = png_chunks(data)
        for index, (name, payload) in enumerate(chunks):
            parts = [chunk(*pair) for pair in chunks]
            parts[index] = CHUNK_DAMAGE[damage](name, payload)
            is_read(data[:8] + b"".join(parts))


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return names and payloads, in order."""
    found, at = [], 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4])
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += length + 12
    return found


def test_missing_palette_or_too_much_transparency_is_refused():
    """Both show only when the pixels are converted. 69 such bytes caused a status 500."""
    indexed = png_chunks(encode(photo(24, 20).quantize(16), "PNG"))
    missing = [chunk(*pair) for pair in indexed if pair[0] != b"PLTE"]
    too_much = [chunk(*pair) for pair in indexed]
    too_much.insert(-2, chunk(b"tRNS", bytes(range(44, 194)) * 2))  # before the pixels
    for chunks in (missing, too_much):
        with pytest.raises(UndecodableImageError, match="looks like PNG but cannot be decoded"):
            decode_image(SIGNATURES[2] + b"".join(chunks))


@settings(FUZZ, max_examples=200)
@given(which=st.integers(0, 1000), seed=st.integers(0, 2**32))
def test_images_with_damaged_profiles_are_read(which, seed):
    profile = mutate(profiles()[which % len(profiles())], seed)

    assert is_read(png_with_profile(profile))


@pytest.mark.slow
def test_thousands_of_other_damaged_files_are_refused_or_read():
    start = random.SystemRandom().randrange(2**32)
    for seed in range(start, start + SLOW_CASES):
        seeds = valid_files() + refused_files()
        which = seed % len(seeds)
        try:
            is_read(mutate(seeds[which], seed))
        except Exception as error:
            error.add_note(f"mutate(seeds[{which}], {seed})")
            raise
