"""Colour profiles are bounded, and colours given in numbers become sRGB."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from lambda_function import REPOSITORY, SHIPPED_MODEL
from lambda_function.classifier import Classifier
from lambda_function.images.decode import decode_image
from lambda_function.images.profiles import (
    MAX_CURVE_ENTRIES,
    MAX_TAGS,
    clean_profile,
    coded_profile,
    gamma_profile,
)
from lambda_function.service import Service
from lambda_function.settings import Settings
from tests.support.hostile import (
    large_table_profile,
    long_curve_profile,
    many_tags_profile,
    mpet_lut_profile,
    mpet_profile,
    png_with_profile,
)
from tests.support.images import (
    BLUE,
    RED,
    chunk,
    cmyk_profile,
    encode,
    grey_profile,
    lab_profile,
    png,
    rgb_profile,
)
from tests.support.isobmff import av1_frames, avif, box, find_box, nclx


def convert(profile: bytes, image: Image.Image) -> np.ndarray:
    """Convert to sRGB with LittleCMS alone."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    found = ImageCms.profileToProfile(
        image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    return np.asarray(found).astype(int)


def grid(mode: str) -> Image.Image:
    rng = np.random.default_rng(1)
    channels = {"L": (), "RGB": (3,), "CMYK": (4,)}[mode]
    return Image.fromarray(rng.integers(0, 256, (40, 40, *channels), dtype=np.uint8), mode or None)


@pytest.mark.parametrize(
    ("profile", "mode"),
    [
        (rgb_profile("blue", "green", "red"), "RGB"),
        (grey_profile(1.8), "L"),
        (cmyk_profile(), "CMYK"),
        (lab_profile(), "RGB"),
        (large_table_profile(5), "RGB"),
        (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), "RGB"),
    ],
)
@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
def test_cleaned_profile_converts_as_the_whole_one(profile, mode):
    cleaned = clean_profile(profile)

    assert cleaned is not None
    assert np.array_equal(convert(cleaned, grid(mode)), convert(profile, grid(mode)))


def test_only_tags_that_lead_to_srgb_are_kept():
    cleaned = clean_profile(mpet_profile(1000))

    assert cleaned is not None
    assert b"mpet" not in cleaned
    assert len(cleaned) < 500


@pytest.mark.parametrize(
    "profile",
    [
        mpet_lut_profile(1000),
        long_curve_profile(MAX_CURVE_ENTRIES + 1),
        many_tags_profile(MAX_TAGS + 1),
        large_table_profile(89),  # 4.2 MB
        large_table_profile(5)[:-100],
        lab_profile()[:-1],
        lab_profile().replace(b"mAB ", b"mBA "),
        rgb_profile().replace(b"acsp", b"acsq"),
        rgb_profile().replace(b"mntr", b"link"),
        rgb_profile()[:140],
        b"",
    ],
)
def test_profile_beyond_its_bounds_is_ignored_and_said_so(profile):
    assert clean_profile(profile) is None
    image = decode_image(png_with_profile(profile))
    assert image.info == {"encoded_size": (1, 1), "profile_ignored": True}


def test_used_profile_is_not_called_ignored():
    for profile in (
        rgb_profile(),
        mpet_profile(1000),
        long_curve_profile(MAX_CURVE_ENTRIES),
        many_tags_profile(MAX_TAGS),
    ):
        assert decode_image(png_with_profile(profile)).info == {"encoded_size": (1, 1)}


# --- colours in numbers ---------------------------------------------------------------------


def shown(level: int | tuple[int, int, int], extra: bytes) -> list[int]:
    """Return what a PNG of one level becomes."""
    levels = level if isinstance(level, tuple) else (level,) * 3
    samples = np.array([[levels] * 4] * 4, np.uint8)
    return np.asarray(decode_image(png(samples, extra=extra)))[0, 0].tolist()


def cicp(primaries: int, transfer: int) -> bytes:
    return chunk(b"cICP", bytes((primaries, transfer, 0, 1)))


@pytest.mark.parametrize(
    ("transfer", "level", "expected"),
    [
        # BT.2408: PQ 58 % is 203 nits, SDR white. PQ 38.1 % is 26 nits, 12.8 % of it: sRGB 39.5 %.
        (16, 148, 255),
        (16, 97, 101),
        (16, 0, 0),
        (16, 255, 255),
        # HLG 75 % is SDR white. At 50 % the scene is 1/12, ** 1.2 * 1000 / 203 = 0.2497.
        # That is sRGB 53.7 %.
        (18, 192, 255),
        (18, 127, 136),
        (8, 128, 188),  # linear light
        (1, 128, 128),
        (13, 77, 77),
    ],
)
def test_transfer_of_a_png_is_converted(transfer, level, expected):
    found = shown(level, cicp(9, transfer))

    assert np.abs(np.array(found) - expected).max() <= 2


@pytest.mark.parametrize(
    ("primaries", "colour", "expected"),
    [
        # Display P3 and Rec. 2020 versions of sRGB's (255, 128, 0), computed with colour-science's
        # published matrices: linear (1, 0.2158, 0) to P3 (0.860, 0.242, 0.034).
        (12, (238, 135, 51), (255, 128, 0)),
        (9, (214, 0, 0), None),  # outside of sRGB: clipped
        (1, (200, 100, 50), (200, 100, 50)),
        (99, (200, 100, 50), (200, 100, 50)),  # unknown: as it is
    ],
)
def test_primaries_of_a_png_are_converted(primaries, colour, expected):
    found = shown(colour, cicp(primaries, 13))

    if expected is None:
        assert found[0] > 250
        assert found[1:] == [0, 0]
    else:
        assert np.abs(np.array(found) - expected).max() <= 3


def test_gamma_of_a_png_is_converted():
    assert shown(128, chunk(b"gAMA", struct.pack(">I", 100_000))) == [188, 188, 188]
    assert shown(128, chunk(b"gAMA", struct.pack(">I", 45_455))) == [128, 128, 128]
    assert shown(128, chunk(b"gAMA", struct.pack(">I", 0))) == [128, 128, 128]
    srgb = chunk(b"sRGB", b"\0") + chunk(b"gAMA", struct.pack(">I", 100_000))
    assert shown(128, srgb) == [128, 128, 128]


def test_chromaticities_of_a_png_are_converted():
    exchanged = (31270, 32900, 15000, 6000, 30000, 60000, 64000, 33000)  # blue, green, red

    assert shown(RED, chunk(b"cHRM", struct.pack(">8I", *exchanged))) == list(BLUE)


@pytest.mark.parametrize(
    "values",
    [(0,) * 8, (31270, 32900, 1, 1, 1, 1, 1, 1), (2**32 - 1,) * 8, (31270, 0, 1, 2, 3, 4, 5, 6)],
)
def test_senseless_chromaticities_are_ignored(values):
    assert shown((200, 100, 50), chunk(b"cHRM", struct.pack(">8I", *values))) == [200, 100, 50]


def test_profile_of_a_png_goes_before_its_gamma():
    profile = encode(Image.new("RGB", (4, 4), RED), icc_profile=rgb_profile("blue", "green", "red"))
    at = profile.index(b"IDAT") - 4
    both = profile[:at] + chunk(b"gAMA", struct.pack(">I", 100_000)) + profile[at:]

    found = np.asarray(decode_image(both))[0, 0].astype(int)
    assert np.abs(found - BLUE).max() <= 1


def test_colours_of_an_avif_are_converted():
    plain = encode(Image.new("RGB", (16, 16), (148, 148, 148)), "AVIF", quality=100)
    obus = b"".join(av1_frames(plain))
    configuration = find_box(plain, b"av1C")

    def level(*colours: bytes) -> int:
        data = avif(obus, height=16, width=16, av1c=configuration, extra=colours)
        return int(np.asarray(decode_image(data))[8, 8, 1])

    assert level(nclx(1, 13, 6)) in (147, 148, 149)
    assert level(nclx(9, 16, 6)) >= 253  # PQ 58 % is SDR white
    profile = box(b"colr", b"prof" + rgb_profile(exponent=1.0))
    assert level(nclx(1, 13, 6), profile) in range(198, 204)  # 0.58 of light is sRGB 200


def test_known_spaces_have_profiles_and_srgb_needs_none():
    assert coded_profile(1, 13) is coded_profile(1, 1) is coded_profile(3, 16) is None
    assert gamma_profile(1 / 2.2, None) is gamma_profile(None, None) is None
    for profile in (coded_profile(9, 16), coded_profile(12, 13), gamma_profile(1.0, None)):
        assert profile is not None
        assert clean_profile(profile) == profile


def test_ignored_profile_is_part_of_the_prediction():
    service = Service(Settings(), Classifier(REPOSITORY / "lambda_function" / SHIPPED_MODEL))
    image = png_with_profile(mpet_lut_profile(10))

    assert service.predict(image).profile_ignored
    assert not service.predict(png_with_profile(rgb_profile())).profile_ignored
