"""Draw the project's example images of garments: `python -m tools.draw_examples`.

The data set's photographs must not be in the repository. So the example of `make predict` and the
images of the golden probabilities are drawn here: a silhouette, cloth with folds and a weave, a
shadow, a floor. Equal code gives equal pixels on one Pillow release. The tests read the committed
files.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from lambda_function import EXAMPLES

HEIGHT, WIDTH = 533, 400
SCALE = 2  # drawn larger and reduced, so that edges are smooth
Point = tuple[float, float]
Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Garment:
    """What to draw.

    Attributes:
        parts: closed outlines in the order of drawing. Points are shares of (width, height).
        colour: of the cloth.
        seams: open lines of stitching.
        floor: colour underneath.
    """

    parts: tuple[tuple[Point, ...], ...]
    colour: Colour
    seams: tuple[tuple[Point, ...], ...] = ()
    floor: Colour = (196, 178, 150)


GARMENTS = {
    "pants": Garment(
        parts=(
            (
                (0.33, 0.06), (0.67, 0.06), (0.70, 0.20), (0.75, 0.60), (0.77, 0.95),
                (0.60, 0.96), (0.55, 0.62), (0.505, 0.30), (0.495, 0.30), (0.45, 0.62),
                (0.40, 0.96), (0.23, 0.95), (0.25, 0.60), (0.30, 0.20),
            ),
        ),
        colour=(44, 62, 104),
        seams=(
            ((0.325, 0.10), (0.675, 0.10)),
            ((0.50, 0.10), (0.50, 0.29)),
            ((0.34, 0.11), (0.38, 0.17), (0.31, 0.19)),
            ((0.66, 0.11), (0.62, 0.17), (0.69, 0.19)),
        ),
    ),
    "t-shirt": Garment(
        parts=(
            (
                (0.36, 0.10), (0.42, 0.135), (0.50, 0.15), (0.58, 0.135), (0.64, 0.10),
                (0.80, 0.17), (0.95, 0.36), (0.82, 0.43), (0.75, 0.35), (0.755, 0.60),
                (0.765, 0.88), (0.50, 0.895), (0.235, 0.88), (0.245, 0.60), (0.25, 0.35),
                (0.18, 0.43), (0.05, 0.36), (0.20, 0.17),
            ),
        ),
        colour=(52, 110, 70),
        seams=(
            ((0.36, 0.115), (0.42, 0.15), (0.50, 0.165), (0.58, 0.15), (0.64, 0.115)),
            ((0.25, 0.35), (0.235, 0.20)),
            ((0.75, 0.35), (0.765, 0.20)),
            ((0.24, 0.865), (0.50, 0.88), (0.76, 0.865)),
        ),
        floor=(226, 224, 220),
    ),
    "skirt": Garment(
        parts=(
            (
                (0.33, 0.16), (0.50, 0.17), (0.67, 0.16), (0.76, 0.45), (0.90, 0.84),
                (0.70, 0.875), (0.50, 0.885), (0.30, 0.875), (0.10, 0.84), (0.24, 0.45),
            ),
        ),
        colour=(150, 70, 120),
        seams=(((0.325, 0.20), (0.50, 0.21), (0.675, 0.20)),),
        floor=(214, 206, 196),
    ),
    "dress": Garment(
        parts=(
            (
                (0.36, 0.04), (0.41, 0.04), (0.44, 0.12), (0.50, 0.15), (0.56, 0.12),
                (0.59, 0.04), (0.64, 0.04), (0.68, 0.20), (0.63, 0.38), (0.70, 0.60),
                (0.84, 0.94), (0.50, 0.965), (0.16, 0.94), (0.30, 0.60), (0.37, 0.38),
                (0.32, 0.20),
            ),
        ),
        colour=(28, 120, 118),
        seams=(((0.372, 0.38), (0.50, 0.395), (0.628, 0.38)),),
        floor=(232, 228, 222),
    ),
}  # fmt: skip


def draw(garment: Garment, seed: int = 0) -> Image.Image:
    """Return an image of a garment on a floor, mode RGB, ``HEIGHT`` x ``WIDTH`` pixels."""
    rng = np.random.default_rng(seed)
    size = (WIDTH * SCALE, HEIGHT * SCALE)
    mask = _silhouette(garment, size)
    folds = _noise(rng, size, cell=120) * 0.22 + _noise(rng, size, cell=45) * 0.12
    weave = _noise(rng, size, cell=2) * 0.10
    cloth = _shade(Image.new("RGB", size, garment.colour), 1 + folds + weave + _rounding(mask))
    floor_light = 1 + _noise(rng, size, cell=300) * 0.10 + _noise(rng, size, cell=2) * 0.04
    floor = _shade(Image.new("RGB", size, garment.floor), floor_light)
    shadow = ImageChops.offset(mask, 10, 14).filter(ImageFilter.GaussianBlur(14))
    floor = Image.composite(_shade(floor, np.full(size[::-1], 0.55)), floor, shadow)
    image = Image.composite(cloth, floor, mask)
    _stitch(image, garment)
    return image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def _silhouette(garment: Garment, size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size, 0)
    for part in garment.parts:
        ImageDraw.Draw(mask).polygon(_pixels(_smooth(part), size), fill=255)
    return mask.filter(ImageFilter.GaussianBlur(1.5))


def _smooth(outline: tuple[Point, ...]) -> list[Point]:
    """Round the corners (Chaikin, 1974)."""
    points = list(outline)
    for _ in range(2):
        following = [*points[1:], points[0]]
        points = [
            (a[0] * (1 - t) + b[0] * t, a[1] * (1 - t) + b[1] * t)
            for a, b in zip(points, following, strict=True)
            for t in (0.12, 0.88)
        ]
    return points


def _pixels(points: list[Point], size: tuple[int, int]) -> list[Point]:
    return [(x * size[0], y * size[1]) for x, y in points]


def _noise(rng: np.random.Generator, size: tuple[int, int], cell: float) -> NDArray[np.float64]:
    """Return smooth noise, (height, width), about -1..1, whose blobs are ``cell`` pixels."""
    width, height = (max(2, round(side / cell)) for side in size)
    coarse = Image.fromarray(rng.normal(size=(height, width)).astype(np.float32))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=float)
    return np.asarray(smooth / 2)


def _rounding(mask: Image.Image) -> NDArray[np.float64]:
    """Darken the cloth towards its edge, as a body of cloth does."""
    inside = np.asarray(mask.filter(ImageFilter.GaussianBlur(18)), dtype=float) / 255
    return np.asarray((inside - 1) * 0.55)


def _shade(image: Image.Image, light: NDArray[np.float64]) -> Image.Image:
    shaded = np.asarray(image, dtype=float) * light[..., None]
    return Image.fromarray(np.clip(shaded, 0, 255).astype(np.uint8))


def _stitch(image: Image.Image, garment: Garment) -> None:
    pen = ImageDraw.Draw(image)
    dark = tuple(int(channel * 0.55) for channel in garment.colour)
    light = tuple(min(255, int(channel * 1.35) + 12) for channel in garment.colour)
    for seam in garment.seams:
        points = _pixels(list(seam), image.size)
        pen.line(points, fill=dark, width=4, joint="curve")
        pen.line([(x + 3, y + 4) for x, y in points], fill=light, width=2, joint="curve")


def main() -> None:
    """Write every garment to ``examples/``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=EXAMPLES)
    folder = parser.parse_args().to
    folder.mkdir(parents=True, exist_ok=True)
    for name, garment in GARMENTS.items():
        draw(garment).save(folder / f"{name}.jpg", quality=88)
        print(folder / f"{name}.jpg")


if __name__ == "__main__":
    main()
