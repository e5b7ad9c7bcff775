"""Files that would cost a decoder too much are refused by rule, before any pixel is decoded."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from lambda_function.errors import TooLargeError, UndecodableImageError
from lambda_function.images.decode import decode_image
from lambda_function.images.strip import strip_image
from lambda_function.metadata import InputSpec
from tests.support.hostile import (
    animated_webp,
    avif_larger_than_it_says,
    avif_of_many_units,
    avif_of_several_frames,
    blank_png,
    empty_scans_jpeg,
    gif_with_screen,
    heic_named_often,
    heic_turned,
    heic_with_long_numbers,
    rle_bmp,
)
from tests.support.images import (
    BLUE,
    RED,
    WHITE,
    bit_field_bmp,
    corners,
    encode,
    insert_segments,
    photo,
    read_fixture,
    segment,
)
from tests.support.isobmff import av1_frames, avif, box, heif, ispe, one_item, tiled

SPEC = InputSpec(height=224, width=224)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode_image(data))


# --- JPEG -----------------------------------------------------------------------------------


@pytest.mark.parametrize("arithmetic", [True, False])
def test_scans_times_pixels_are_bounded(arithmetic):
    assert strip_image(empty_scans_jpeg(4000, 40, arithmetic=arithmetic))
    with pytest.raises(UndecodableImageError, match="49,000,000 pixels too often, in 19 scans"):
        strip_image(empty_scans_jpeg(7000, 49, arithmetic=arithmetic))


def test_arithmetic_scans_count_twice_without_the_end_that_asks_for_a_second_decoding():
    assert strip_image(empty_scans_jpeg(7000, 7)[:-2])
    with pytest.raises(UndecodableImageError, match="too often, in 10 scans"):
        strip_image(empty_scans_jpeg(7000, 10)[:-2])
    assert strip_image(empty_scans_jpeg(7000, 10, arithmetic=False)[:-2])


def test_scan_of_three_components_counts_three_times():
    jpeg = empty_scans_jpeg(7000, 1)
    scan = jpeg[jpeg.index(b"\xff\xda") : -2]

    strip_image(jpeg[:-2] + scan * 5 + b"\xff\xd9")
    with pytest.raises(UndecodableImageError, match="too often, in 7 scans"):
        strip_image(jpeg[:-2] + scan * 6 + b"\xff\xd9")


def test_scans_behind_a_comment_that_holds_an_end_marker_are_counted():
    jpeg = empty_scans_jpeg(7000, 1)
    scan = jpeg[jpeg.index(b"\xff\xda") : -2]
    comment = segment(0xFE, b"\xff\xd9")

    with pytest.raises(UndecodableImageError, match="too often"):
        strip_image(jpeg[:-2] + comment + scan * 6 + b"\xff\xd9")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("missing", [1, 2])
def test_jpeg_without_its_last_bytes_is_read(options, missing):
    data = encode(photo(100, 90), "JPEG", **options)

    assert np.array_equal(pixels(data[:-missing]), pixels(data))


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("missing", [12, 40, 400])
def test_jpeg_without_some_of_its_pixels_is_refused(options, missing):
    data = encode(photo(100, 90), "JPEG", **options)

    with pytest.raises(UndecodableImageError, match="may be truncated"):
        decode_image(data[:-missing])


def test_metadata_between_scans_is_dropped():
    data = encode(photo(100, 90), "JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    comments = segment(0xFE, b"x" * 60_000) + segment(0xE5, b"y" * 60_000)

    assert strip_image(data[:at] + comments + data[at:]).data == strip_image(data).data


# --- PNG, GIF, WebP -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "options"),
    [(6000, 6000, {}), (65535, 762, {}), (7000, 7000, {"colour": 2}), (6000, 6000, {"colour": 6})],
)
def test_bytes_of_a_pngs_rows_are_bounded(height, width, options):
    data = blank_png(height, width, rows=1, **options)

    with pytest.raises(TooLargeError, match="of 16 bits; at most 250,000,000 bytes"):
        strip_image(data)


@pytest.mark.parametrize("options", [{"bits": 8}, {"colour": 0}, {"colour": 4}])
def test_pngs_of_fifty_megapixels_are_within_the_bound(options):
    assert strip_image(blank_png(7000, 7000, rows=1, **options))


def test_sides_are_reduced_each_by_its_own_factor():
    data = encode(Image.new("RGB", (65_535, 100), RED), "PNG")

    found = decode_image(data, target=InputSpec(height=10, width=10))

    assert found.size == (31, 34)  # ceil(65535 / 2184) and ceil(100 / 3)


def test_gif_screen_around_the_first_frame_is_white():
    frame = Image.new("P", (2, 2))
    frame.putpalette([*RED])
    data = bytearray(encode(frame, "GIF"))
    data[6:10] = struct.pack("<2H", 4, 4)
    at = data.index(b",\0\0\0\0")
    data[at + 1 : at + 5] = struct.pack("<2H", 1, 2)

    found = pixels(bytes(data))

    expected = np.full((4, 4, 3), 255)
    expected[2:4, 1:3] = RED
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(("height", "width"), [(7100, 7100), (763, 65535)])
def test_gif_screen_counts_as_pixels(height, width):
    with pytest.raises(TooLargeError, match="at most 50,000,000"):
        strip_image(gif_with_screen(height, width))


def test_webp_canvas_around_the_first_frame_is_white():
    data = bytearray(animated_webp(1))
    at = data.index(b"VP8X") + 12
    data[at : at + 3] = data[at + 3 : at + 6] = b"\3\0\0"  # a canvas of 4x4
    at = data.index(b"ANMF") + 8
    data[at] = data[at + 3] = 1  # offsets count twice

    found = pixels(bytes(data))

    expected = np.full((4, 4, 3), 255)
    expected[2, 2] = 0
    assert np.array_equal(found, expected)


def test_webp_keeps_its_first_frame_alone():
    assert len(strip_image(animated_webp(1000)).data) < 100
    with pytest.raises(UndecodableImageError, match="more than 50,000 pieces"):
        strip_image(animated_webp(50_001))


# --- BMP ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "body", "expected"),
    [
        (8, b"\2\x09\0\0\2\x63\0\1", [[0x63, 0x63, 0], [9, 9, 0]]),
        (8, b"\0\3\1\2\3\0\0\0\0\3\4\5\6\0", [[4, 5, 6], [1, 2, 3]]),  # literal
        (8, b"\0\2\2\1\1\x09\0\1", [[0, 0, 9], [0, 0, 0]]),  # delta
        (8, b"\x09\7\0\0\1\1\0\1", [[1, 0, 0], [7, 7, 7]]),  # too long a run
        (4, b"\3\x12\0\0\0\3\x34\x50\0\1", [[0x30, 0x40, 0x50], [0x10, 0x20, 0x10]]),
    ],
)
def test_run_length_bmp_is_expanded(bits, body, expected):
    assert pixels(rle_bmp(2, 3, body, bits=bits))[..., 0].tolist() == expected


@pytest.mark.parametrize("body", [b"", b"\1\5\0\0", b"\3\5", b"\0\2\1", b"\0\x08\1"])
def test_run_length_bmp_that_ends_early_is_refused(body):
    with pytest.raises(UndecodableImageError):
        decode_image(rle_bmp(4, 3, body))


def test_run_length_bmp_is_bounded_in_pixels_and_bytes():
    with pytest.raises(TooLargeError):
        strip_image(rle_bmp(7100, 7100, b"\0\1"))
    with pytest.raises(UndecodableImageError, match="more than 1,048,576 bytes is not read"):
        strip_image(rle_bmp(10, 10, b"\1\1" * 1_100_000))


@pytest.mark.parametrize(
    ("masks", "bits", "value", "expected"),
    [
        ((0xF800, 0x7E0, 0x1F, 0), 16, 0xF800, RED),
        ((0x7C00, 0x3E0, 0x1F, 0), 16, 0x001F, BLUE),
        ((0x0F00, 0x00F0, 0x000F, 0xF000), 16, 0x0F00, WHITE),  # no alpha
        ((0x0F00, 0x00F0, 0x000F, 0xF000), 16, 0xFF00, RED),
        ((0x3, 0x1C, 0xE0, 0), 16, 0x2, (170, 0, 0)),
        ((0x3FF00000, 0xFFC00, 0x3FF, 0), 32, 0x3FF00000, RED),
        ((0xFF, 0xFF00, 0xFF0000, 0), 32, 0xFF0000, BLUE),
    ],
)
def test_bit_fields_of_a_bmp_are_scaled(masks, bits, value, expected):
    data = bit_field_bmp(masks, bits=bits, pixels=value.to_bytes(bits // 8, "little") * 16)

    assert pixels(data)[0, 0].tolist() == list(expected)


def test_other_kinds_of_bmp_are_named():
    data = bytearray(encode(photo(8, 8), "BMP"))
    data[30] = 4  # a JPEG inside

    with pytest.raises(UndecodableImageError, match=r"compression 4, 24 bits\)\. Send PNG"):
        decode_image(bytes(data))


# --- AVIF and HEIC --------------------------------------------------------------------------


def test_avif_that_codes_more_pixels_than_it_says_is_refused():
    with pytest.raises(UndecodableImageError):
        strip_image(avif_larger_than_it_says(1000))


def test_frames_of_an_avif_item_are_counted():
    assert strip_image(avif_of_several_frames(64, 2))
    with pytest.raises(TooLargeError, match="100,000,000 pixels"):
        strip_image(avif_of_several_frames(2000, 25))


@pytest.mark.parametrize(
    ("name", "kind", "rows", "columns", "is_read"),
    [
        ("tile.heic", b"hvc1", 6, 8, True),
        ("tile.heic", b"hvc1", 14, 14, False),
        ("ten-bit.avif", b"av01", 6, 8, True),
        ("ten-bit.avif", b"av01", 14, 14, False),
    ],
)
def test_tiles_count_each_even_if_they_share_their_data(name, kind, rows, columns, is_read):
    tile = one_item(read_fixture(name), kind)
    data = tiled(tile, rows, columns, height=rows * 500, width=columns * 500)

    if is_read:
        assert strip_image(data)
    else:
        with pytest.raises(TooLargeError, match="take too long to decode"):
            strip_image(data)


def test_transparency_counts_too():
    tile = one_item(read_fixture("tile.heic"), b"hvc1")
    plain = tiled(tile, 8, 10, height=4000, width=5000)

    assert strip_image(plain)
    with pytest.raises(TooLargeError, match="41,943,040 pixels"):
        strip_image(tiled(tile, 8, 10, height=4000, width=5000, alpha=tile), max_pixels=20_000_000)


def test_too_many_tiles_are_refused():
    tile = one_item(encode(Image.new("RGB", (16, 16)), "AVIF"), b"av01")

    with pytest.raises(UndecodableImageError, match="pieces"):
        strip_image(tiled(tile, 33, 32, height=500, width=500))


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        (heic_named_often(1), heic_named_often(40)),
        (avif_of_many_units(10, 900), avif_of_many_units(10, 1000)),
        (heic_with_long_numbers(2, zeros=3), heic_with_long_numbers(2, zeros=5)),
        (heic_with_long_numbers(2000, zeros=1), heic_with_long_numbers(4000, zeros=1)),
    ],
    ids=["data named often", "units of all tiles", "long numbers", "long property"],
)
def test_work_of_reading_a_heif_file_is_bounded(within, beyond):
    assert strip_image(within)
    with pytest.raises(UndecodableImageError):
        strip_image(beyond)


@pytest.mark.parametrize("name", ["corners.heic", "avif"])
def test_claimed_size_counts_as_pixels(name):
    kind = b"av01" if name == "avif" else b"hvc1"
    data = encode(corners(), "AVIF") if name == "avif" else read_fixture(name)
    item = one_item(data, kind)
    large = item._replace(properties=(ispe(7100, 7100), *item.properties[1:]))

    with pytest.raises(TooLargeError, match="7100x7100"):
        strip_image(heif([large], brand=b"avif" if name == "avif" else b"heic"))


@pytest.mark.parametrize("kind", [b"iovl", b"iden", b"jpeg", b"tmap"])
def test_images_made_of_others_are_refused_by_name(kind):
    item = one_item(encode(corners(), "AVIF"), b"av01")._replace(kind=kind)

    with pytest.raises(UndecodableImageError, match=f"of the kind '{kind.decode()}'"):
        strip_image(heif([item]))


def test_sequence_without_a_still_image_is_refused_by_name():
    with pytest.raises(UndecodableImageError, match="holds no still image"):
        strip_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


def test_avif_with_alpha_of_an_older_encoder_is_read():
    """Such encoders left out the size of the transparency, and Pillow refuses the file."""
    image = corners().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    data = encode(image, "AVIF", quality=100)
    association = data.index(b"ipma")
    second = data.index(b"\0\2", association + 12)
    assert data[second + 2] > 1  # properties of the second item, its size first
    old = bytearray(data)
    old[second + 3] = old[second + 4]  # the size's place now names another property
    with pytest.raises((OSError, ValueError, SyntaxError)):
        Image.open(io.BytesIO(bytes(old))).load()

    assert pixels(bytes(old)).min() == 255


def test_metadata_of_an_avif_is_dropped():
    plain = encode(corners(), "AVIF")
    data = encode(corners(), "AVIF", xmp=b"x" * 5000, icc_profile=b"y" * 5000)

    assert len(strip_image(data).data) < len(plain) + 100


def test_avif_whose_item_is_cut_short_is_refused():
    frame = b"".join(av1_frames(encode(corners(), "AVIF")))

    with pytest.raises(UndecodableImageError):
        strip_image(avif(frame[:-1], height=48, width=64))


def test_profile_in_many_segments_is_bounded():
    jpeg = insert_segments(
        encode(photo(8, 8), "JPEG"),
        *(segment(0xE2, b"ICC_PROFILE\0" + bytes((n, 100)) + bytes(65_000)) for n in range(100)),
    )

    assert strip_image(jpeg).profile is None


@pytest.mark.parametrize("name", [b"irot", b"imir", b"clap"])
def test_heic_that_repeats_a_transformation_is_refused(name):
    change = box(name, b"\1" * (32 if name == b"clap" else 1))

    assert strip_image(heic_turned(change))
    with pytest.raises(UndecodableImageError, match="damaged"):
        strip_image(heic_turned(change, change))


def test_turn_of_a_large_heic_counts():
    assert strip_image(heic_turned(rows=11, columns=15))
    with pytest.raises(TooLargeError, match="too long to decode"):
        strip_image(heic_turned(box(b"irot", b"\1"), rows=11, columns=15))
