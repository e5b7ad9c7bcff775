"""Images are compared by content and by a hash that survives resizing and compression."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from training.data.duplicates import (
    Fingerprint,
    find_pairs,
    group_images,
    take_fingerprints,
)


def scene(seed: int) -> Image.Image:
    """Return a smooth image with some shapes, as photos have."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (200, 160), tuple(int(v) for v in rng.integers(0, 256, 3)))
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        left, top, width, height = (int(v) for v in rng.integers(5, 120, 4))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        pen.ellipse((left, top, left + width, top + height), fill=colour)
    return image.filter(ImageFilter.GaussianBlur(2))


def near_pairs(*paths: Path) -> list[tuple[str, str]]:
    fingerprints, unreadable = take_fingerprints(paths)
    assert not unreadable
    return [(one.name, other.name) for one, other in find_pairs(fingerprints)[1]]


@pytest.mark.parametrize(
    ("name", "size", "quality"),
    [("small.jpg", (90, 72), 75), ("large.png", (400, 320), 0), ("bad.jpg", (200, 160), 30),
     ("stretched.jpg", (150, 150), 80)],
)  # fmt: skip
def test_a_resized_or_compressed_copy_is_nearly_equal(
    tmp_path: Path, name: str, size: tuple[int, int], quality: int
) -> None:
    scene(1).save(tmp_path / "original.png")
    options = {"quality": quality} if quality else {}
    scene(1).resize(size, Image.Resampling.BICUBIC).save(tmp_path / name, **options)

    assert near_pairs(tmp_path / "original.png", tmp_path / name) == [("original.png", name)]


def test_different_images_are_not_nearly_equal(tmp_path: Path) -> None:
    paths = [tmp_path / f"{seed}.png" for seed in range(40)]
    for seed, path in enumerate(paths):
        scene(seed).save(path)

    assert near_pairs(*paths) == []


def test_small_things_on_white_are_told_apart(tmp_path: Path) -> None:
    for place in (20, 60, 100, 140):
        image = Image.new("RGB", (200, 200), "white")
        ImageDraw.Draw(image).rectangle((place, 80, place + 8, 120), fill="grey")
        image.save(tmp_path / f"{place}.png")

    assert near_pairs(*sorted(tmp_path.iterdir())) == []


def test_the_same_shape_in_another_colour_is_another_image(tmp_path: Path) -> None:
    for name, colour in (("red", (200, 60, 60)), ("blue", (60, 60, 220))):
        image = Image.new("RGB", (100, 100), (230, 230, 230))
        ImageDraw.Draw(image).ellipse((20, 20, 80, 80), fill=colour)
        image.save(tmp_path / f"{name}.png")

    assert near_pairs(*sorted(tmp_path.iterdir())) == []


def test_copies_are_equal_and_only_their_first_one_is_compared_further(tmp_path: Path) -> None:
    scene(1).save(tmp_path / "a.png")
    for name in ("b.png", "c.png"):
        (tmp_path / name).write_bytes((tmp_path / "a.png").read_bytes())
    paths = sorted(tmp_path.iterdir())

    equal, near = find_pairs(take_fingerprints(paths)[0])

    assert [(one.name, other.name) for one, other in equal] == [
        ("a.png", "b.png"),
        ("a.png", "c.png"),
    ]
    assert near == []


def fingerprint(bits: int, name: str) -> Fingerprint:
    """Return a fingerprint whose hash has the bits of a number, of an even grey image."""
    words = np.frombuffer(bits.to_bytes(32, "little"), np.uint64)
    return Fingerprint(name, words, np.full(192, 128, np.uint8))


HALF_SET = int("01" * 128, 2)
ALL_SET = 2**256 - 1


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        (HALF_SET, HALF_SET ^ (2**16 - 1), True),
        (HALF_SET, HALF_SET ^ (2**17 - 1), False),
        (2**48 - 1, 2**48 - 1 - 15, True),  # 4 of 48 and 44 set bits differ
        (2**12 - 1, 2**12 - 1 - 15, False),  # 4 of 12 and 8: more than a sixth
        (ALL_SET, 0, False),  # 256 do not become 0
    ],
)
def test_near_images_differ_in_16_bits_and_in_a_sixth_at_most(
    one: int, other: int, near: bool
) -> None:
    prints = {Path("a"): fingerprint(one, "a"), Path("b"): fingerprint(other, "b")}

    assert find_pairs(prints) == ([], [(Path("a"), Path("b"))] if near else [])


def test_all_pairs_are_found_whatever_part_of_the_table_is_computed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.data.duplicates.ROWS_AT_ONCE", 2)
    small, block = 2**12 - 1, (2**64 - 1) << 64
    hashes = {
        "a": HALF_SET, "b": ALL_SET ^ HALF_SET, "c": small, "d": small ^ 15,  # c and d: a third
        "e": HALF_SET ^ 255, "f": ALL_SET, "g": block, "h": block ^ 255,
    }  # fmt: skip
    prints = {Path(name): fingerprint(bits, name) for name, bits in hashes.items()}

    assert find_pairs(prints) == ([], [(Path("a"), Path("e")), (Path("g"), Path("h"))])


def test_an_even_area_has_the_same_hash_when_it_is_compressed(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(127, 130, (160, 160, 3)).astype(np.uint8)
    image = Image.fromarray(grey)
    ImageDraw.Draw(image).ellipse((20, 20, 140, 60), fill=(20, 20, 20))
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.jpg", quality=30)

    assert near_pairs(tmp_path / "a.png", tmp_path / "b.jpg") == [("a.png", "b.jpg")]


def test_a_file_that_cannot_be_opened_is_named_beside_the_others(tmp_path: Path) -> None:
    scene(1).save(tmp_path / "a.png")

    taken, unreadable = take_fingerprints([tmp_path / "a.png", tmp_path / "gone"])

    assert list(taken) == [tmp_path / "a.png"]
    assert "No such file" in unreadable[tmp_path / "gone"]


def test_groups_join_pairs_that_share_an_image() -> None:
    a, b, c, d, e = (Path(name) for name in "abcde")

    groups = group_images([a, b, c, d, e], [(a, b), (d, c), (c, a)])

    assert sorted(sorted(group) for group in groups) == [[a, b, c, d], [e]]


def test_no_images_have_no_pairs() -> None:
    assert find_pairs({}) == ([], [])
