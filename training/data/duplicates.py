"""Equal and nearly equal images: by content, and by a perceptual hash of the decoded image.

The perceptual hash is a difference hash (dHash): is each pixel of a 16x17 grey thumbnail clearly
brighter than its right neighbour? It survives resizing and compression. Photos of products on
white have similar hashes although they differ, so a pair must also have similar 8x8 colour
thumbnails.
https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from lambda_function.errors import ServiceError
from lambda_function.images.decode import decode_image
from lambda_function.metadata import InputSpec

HASH_SIDE = 16  # 256 bits
MARGIN = 3  # of 255. Without it compression turns over the bits of flat areas
COLOUR_SIDE = 8
# Of 256 that may differ. On clothing-dataset-small, resizing and JPEG of quality 30 to 80 changed
# 14 at most, and different images differed in 30 at least.
MAX_BITS = 16
MAX_SHARE = 1 / 6  # of the bits set in both. Photos of small things on white set few
MAX_COLOUR = 4.0  # mean difference of the colour thumbnails, of 255. The same changed 1.3 at most
ROWS_AT_ONCE = 256  # of the table of all pairs
_THUMBNAIL = InputSpec(64, 64)  # JPEGs are decoded at a size near this


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """What two images are compared by.

    Attributes:
        sha256: of the file.
        bits: uint64, (4,), the perceptual hash.
        colours: uint8, (192,), the colour thumbnail.
    """

    sha256: str
    bits: NDArray[np.uint64]
    colours: NDArray[np.uint8]


Pair = tuple[Path, Path]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What comparing images with each other showed.

    Attributes:
        readable: the images that can be read, in order.
        unreadable: the others, and why each cannot be read.
        equal: pairs of equal images, each copy with the first one.
        near: pairs of nearly equal images, which are not equal.
    """

    readable: list[Path]
    unreadable: dict[Path, str]
    equal: list[Pair]
    near: list[Pair]


def compare_images(paths: Sequence[Path]) -> Comparison:
    """Read images and find the equal and the nearly equal ones."""
    fingerprints, unreadable = take_fingerprints(paths)
    return Comparison(list(fingerprints), unreadable, *find_pairs(fingerprints))


def take_fingerprint(path: Path) -> Fingerprint:
    """Read an image through the serving code and return its fingerprint.

    Raises:
        ServiceError, OSError: the image cannot be read.
    """
    data = path.read_bytes()
    image = decode_image(data, target=_THUMBNAIL)
    grey = np.asarray(_shrink(image.convert("L"), HASH_SIDE + 1, HASH_SIDE), dtype=np.int16)
    bits = np.packbits(grey[:, :-1] - grey[:, 1:] > MARGIN)
    colours = np.asarray(_shrink(image, COLOUR_SIDE, COLOUR_SIDE), dtype=np.uint8)
    return Fingerprint(hashlib.sha256(data).hexdigest(), bits.view(np.uint64), colours.reshape(-1))


def take_fingerprints(
    paths: Sequence[Path],
) -> tuple[dict[Path, Fingerprint], dict[Path, str]]:
    """Return the fingerprint of each image, and why the others cannot be read."""

    def take(path: Path) -> Fingerprint | str:
        try:
            return take_fingerprint(path)
        except (ServiceError, OSError) as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:  # Pillow releases the interpreter's lock while it works
        taken = tqdm(
            pool.map(take, paths), total=len(paths), desc="check", unit="image",
            disable=None,
        )  # fmt: skip
        results = dict(zip(paths, taken, strict=True))
    fingerprints = {path: f for path, f in results.items() if isinstance(f, Fingerprint)}
    return fingerprints, {path: f for path, f in results.items() if isinstance(f, str)}


def find_pairs(fingerprints: dict[Path, Fingerprint]) -> tuple[list[Pair], list[Pair]]:
    """Return ``equal`` and ``near`` of a ``Comparison``."""
    first: dict[str, Path] = {}
    equal = []
    for path, fingerprint in fingerprints.items():
        original = first.setdefault(fingerprint.sha256, path)
        if original is not path:
            equal.append((original, path))
    paths = list(first.values())
    if not paths:
        return equal, []
    bits = np.stack([fingerprints[path].bits for path in paths])
    colours = np.stack([fingerprints[path].colours for path in paths]).astype(np.int16)
    ones = np.bitwise_count(bits).sum(axis=1).astype(np.int16)
    near = []
    for start in range(0, len(paths), ROWS_AT_ONCE):
        rows = bits[start : start + ROWS_AT_ONCE]
        distances = sum(
            np.bitwise_count(rows[:, None, word] ^ bits[None, :, word]).astype(np.int16)
            for word in range(bits.shape[1])
        )
        limits = (ones[start : start + ROWS_AT_ONCE, None] + ones[None, :]) * MAX_SHARE
        alike = np.asarray(distances) <= np.minimum(limits, MAX_BITS)
        for row, column in zip(*np.nonzero(alike), strict=True):
            one, other = start + int(row), int(column)
            if one < other and np.abs(colours[one] - colours[other]).mean() <= MAX_COLOUR:
                near.append((paths[one], paths[other]))
    return equal, near


def group_images(paths: Iterable[Path], pairs: Iterable[Pair]) -> list[list[Path]]:
    """Return the images in groups: two images of a pair are in one group, directly or not."""
    parents = {path: path for path in paths}

    def root(path: Path) -> Path:
        while parents[path] != path:
            parents[path] = parents[parents[path]]
            path = parents[path]
        return path

    for one, other in pairs:
        parents[root(other)] = root(one)
    groups: dict[Path, list[Path]] = {}
    for path in parents:
        groups.setdefault(root(path), []).append(path)
    return list(groups.values())


def _shrink(image: Image.Image, width: int, height: int) -> Any:
    return image.resize((width, height), Image.Resampling.BOX)
