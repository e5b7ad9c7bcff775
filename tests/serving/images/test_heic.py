"""HEIC, the format of phones, is read through pi-heif, which may be missing."""

from __future__ import annotations

import struct
import sys

import numpy as np
import pytest

from lambda_function.errors import UndecodableImageError, UnsupportedImageError
from lambda_function.images.decode import decode_image, preprocess
from lambda_function.images.formats import sniff
from lambda_function.metadata import InputSpec
from tests.support.images import WHITE, corners, photo, read_fixture
from tests.support.isobmff import box, heif, one_item, tiled

SPEC = InputSpec(height=224, width=224)


def corners_item(*extra: bytes):
    return one_item(read_fixture("corners.heic"), b"hvc1", extra=extra)


@pytest.mark.parametrize("name", ["corners.heic", "ten-bit.heic"])
def test_heic_keeps_channels_and_positions(name):
    image = decode_image(read_fixture(name))

    assert image.size == (64, 48)
    assert np.abs(np.asarray(image).astype(int) - np.asarray(corners())).mean() < 3


def test_transparency_of_a_heic_is_white():
    found = np.asarray(decode_image(read_fixture("alpha.heic")))

    assert np.abs(found[8, 8].astype(int) - WHITE).max() < 3  # red without transparency
    assert found[8, 56].tolist()[1] > 250


@pytest.mark.parametrize(("turns", "expected"), [(0, 0), (1, 1), (2, 2), (3, 3)])
def test_heic_is_turned_upright(turns, expected):
    data = heif([corners_item(box(b"irot", bytes((turns,))))], brand=b"heic")

    image = decode_image(data)

    upright = np.rot90(np.asarray(corners()), expected)
    assert image.info == {"encoded_size": upright.shape[:2]}
    assert np.abs(np.asarray(image).astype(int) - upright).mean() < 3


def test_tiles_of_a_phones_heic_are_joined():
    tile = one_item(read_fixture("tile.heic"), b"hvc1")

    image = decode_image(tiled(tile, 2, 3, height=900, width=1400))

    expected = np.tile(np.asarray(photo(512, 512)), (2, 3, 1))[:900, :1400].astype(int)
    assert image.size == (1400, 900)
    assert np.abs(np.asarray(image) - expected).mean() < 8


def test_heic_of_twelve_megapixels_becomes_a_tensor():
    tile = one_item(read_fixture("tile.heic"), b"hvc1")

    image = decode_image(tiled(tile, 6, 8, height=3000, width=4000), target=SPEC)

    assert image.info["encoded_size"] == (3000, 4000)
    assert preprocess(image, SPEC).shape == (1, 224, 224, 3)


def test_heic_is_unsupported_by_name_without_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)

    with pytest.raises(UnsupportedImageError, match="HEIC, which this installation does not read"):
        decode_image(read_fixture("corners.heic"))


def test_heic_whose_codec_says_a_larger_size_is_refused():
    data = bytearray(read_fixture("corners.heic"))
    at = data.index(b"ispe") + 8
    data[at : at + 8] = struct.pack(">II", 1, 1)
    large = heif([one_item(read_fixture("tile.heic"), b"hvc1")], brand=b"heic")
    at = large.index(b"ispe") + 8
    claims_less = large[:at] + struct.pack(">II", 64, 48) + large[at + 8 :]

    with pytest.raises(UndecodableImageError):
        decode_image(claims_less)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_truncated_heic_is_refused(share):
    data = read_fixture("tile.heic")

    with pytest.raises(UndecodableImageError):
        decode_image(data[: int(len(data) * share)])


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"mif1", b"msf1"])
def test_brands_of_heic_are_recognised(brand):
    assert sniff(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic") == "HEIC"
