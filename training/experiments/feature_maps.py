"""`python -m training feature-maps RUN`: draw what the network sees, for docs/from-the-course.md.

Three rows: feature maps of block 2, of block 14, and the activation map of the best class.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lambda_function import EXAMPLES, REPOSITORY
from training.data.images import load_image
from training.errors import ModelFileError
from training.evaluation.loaded_model import load_model
from training.evaluation.overlay import overlay
from training.files import replacing

SHOWN = 4  # feature maps of each block: those with the largest variance
SIDE, GAP, CAPTION = 150, 10, 34  # pixels
COLOURS = 128  # of the written PNG, which keeps it small


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="such as runs/release-1.0.0")
    parser.add_argument("--image", type=Path, default=EXAMPLES / "pants.jpg")
    parser.add_argument(
        "--out", type=Path, default=REPOSITORY / "docs" / "images" / "feature-maps.png"
    )


def run(parsed: argparse.Namespace) -> None:
    """Run the network on one image and write the drawing.

    Raises:
        ModelFileError: there is no model, or it has no activation map.
    """
    import keras

    file = parsed.run_folder / "model.keras"
    described = load_model(file)
    if described.activation_maps is None:
        raise ModelFileError(
            f"{file} has no activation map: it has a dense layer before the last one. Name a run "
            "of `train` with --inner-units 0"
        )
    tensor = load_image(parsed.image, described.input)[np.newaxis]
    model = keras.models.load_model(file, compile=False)
    ends = [model.get_layer("block2_pool").output, model.get_layer("pool").input, model.output]
    early, late, scores = map(np.asarray, keras.Model(model.input, ends).predict_on_batch(tensor))
    best = int(scores[0].argmax())
    kernel = np.asarray(model.get_layer("logits").get_weights()[0])
    # What the network sees has levels of -1..1 in every run of this project.
    image = Image.fromarray(np.rint((tensor[0] + 1) * 127.5).astype(np.uint8))
    drawing = draw(image, early[0], late[0], late[0] @ kernel[:, best], described.labels[best])
    with replacing(parsed.out) as unfinished:
        drawing.quantize(COLOURS).save(unfinished, "PNG", optimize=True)
    print(f"wrote {parsed.out}")


def draw(
    image: Image.Image,
    early: NDArray[np.floating[Any]],
    late: NDArray[np.floating[Any]],
    class_map: NDArray[np.floating[Any]],
    label: str,
) -> Image.Image:
    """Return the three rows with their captions.

    Args:
        image: RGB, as the network sees it.
        early: float, (height, width, channels), the feature maps of block 2.
        late: likewise, of block 14.
        class_map: float, (height, width), the activation map.
        label: of its class.
    """
    grey_map = grey(np.maximum(class_map, 0))
    rows = [
        (caption(2, early), [grey(each) for each in strongest(early)]),
        (caption(14, late), [grey(each) for each in strongest(late)]),
        (
            f'The input, the map of "{label}", and the map over the input',
            [image, grey_map, overlay(image, class_map)],
        ),
    ]
    width, height = GAP + SHOWN * (SIDE + GAP), GAP + len(rows) * (SIDE + CAPTION)
    drawing = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(drawing), ImageFont.load_default(14)
    for row, (text, images) in enumerate(rows):
        top = GAP + row * (SIDE + CAPTION)
        pen.text((GAP, top), text, fill="black", font=font)
        for column, each in enumerate(images):
            nearest = Image.Resampling.NEAREST if each.mode == "L" else Image.Resampling.BICUBIC
            tile = each.resize((SIDE, SIDE), nearest)
            drawing.paste(tile, (GAP + column * (SIDE + GAP), top + CAPTION - 12))
    return drawing


def strongest(maps: NDArray[np.floating[Any]]) -> list[NDArray[np.floating[Any]]]:
    """Return the feature maps with the largest variance, the largest first.

    Args:
        maps: float, (height, width, channels).
    """
    order = np.argsort(-maps.var(axis=(0, 1)), kind="stable")[:SHOWN]
    return [maps[..., channel] for channel in order]


def grey(values: NDArray[np.floating[Any]]) -> Image.Image:
    """Return a map as a grey image, its lowest value black and its highest white."""
    spread = float(np.ptp(values)) or 1.0
    return Image.fromarray(((values - values.min()) / spread * 255).astype(np.uint8))


def caption(block: int, maps: NDArray[np.floating[Any]]) -> str:
    """Return what a row shows."""
    height, width, channels = maps.shape
    return f"Block {block}: {SHOWN} of {channels:,} feature maps, {height}x{width}"
