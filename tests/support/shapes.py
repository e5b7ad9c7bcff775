"""Images that a network learns in a few epochs: discs, squares and stripes, drawn here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("disc", "square", "stripes")
COUNTS = {"train": 20, "validation": 9, "test": 3}  # images of each class


def draw(label: str, generator: np.random.Generator) -> Image.Image:
    """Return one image of a class, 90 by 100 pixels."""
    background, colour = (tuple(int(v) for v in generator.integers(0, 256, 3)) for _ in range(2))
    image = Image.new("RGB", (90, 100), background)
    pen = ImageDraw.Draw(image)
    left, top = (int(v) for v in generator.integers(5, 25, 2))
    box = (left, top, left + 60, top + 60)
    if label == "disc":
        pen.ellipse(box, fill=colour)
    elif label == "square":
        pen.rectangle(box, fill=colour)
    else:
        for x in range(0, 90, 12):
            pen.rectangle((x, 0, x + 5, 100), fill=colour)
    return image


def write_dataset(root: Path) -> Path:
    """Write all splits below a folder, and return it."""
    generator = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for label in CLASSES:
            (root / split / label).mkdir(parents=True)
            for index in range(count):
                draw(label, generator).save(root / split / label / f"{index}.png")
    return root
