"""`python -m training deletion MODEL.tflite`: is the activation map true?

If the map shows what the model uses, then hiding its highest cells must take away more of the
probability than hiding other cells (Petsiuk et al., RISE, 2018). Each image loses a fifth of its
cells in four ways, and the probability of its predicted class is compared. A cell is hidden by
grey. Scattered cells hide less than a patch does, and things stand in the middle of images. So
besides random cells there are two stricter controls: the map's own patch moved elsewhere, and the
middle.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from lambda_function.classifier import Classifier
from lambda_function.images.decode import preprocess
from lambda_function.metadata import InputSpec
from training.data.dataset import Split, find_dataset, load_split
from training.data.images import load_image
from training.errors import ModelFileError
from training.files import markdown_table, sha256_of, write_json, write_text
from training.options import add_options
from training.provenance import command, provenance

OUTPUT = Path("runs") / "deletion"
SHARE = 0.2  # of the cells
SEED = 0
HIGHEST, RANDOM, MOVED, MIDDLE = (
    "the highest cells",
    "random cells",
    "the same patch, moved",
    "the middle",
)
WAYS = (HIGHEST, RANDOM, MOVED, MIDDLE)
NORMAL_95 = 1.96


@dataclasses.dataclass(frozen=True)
class Deletion:
    """What hiding cells did to each image.

    Attributes:
        probability: float64, (images,), of the predicted class before.
        drops: way of ``WAYS`` -> float64, (images,), how much of it was lost.
        changed: way -> bool, (images,), whether the predicted class changed.
        cells: number of hidden cells.
        grid: (height, width) of the map.
    """

    probability: NDArray[np.float64]
    drops: dict[str, NDArray[np.float64]]
    changed: dict[str, NDArray[np.bool_]]
    cells: int
    grid: tuple[int, int]


def choose_cells(
    class_map: NDArray[np.float32], share: float, rng: np.random.Generator
) -> dict[str, NDArray[np.bool_]]:
    """Return the cells to hide, by way of ``WAYS``. All ways hide the same number of cells.

    Args:
        class_map: float32, (height, width), of the predicted class.
        share: of the cells.
        rng: chooses the random cells and how far the patch moves.

    Returns:
        bool, (height, width), for each way. The moved patch goes around the edges.
    """
    height, width = class_map.shape
    count = max(1, round(share * class_map.size))
    rows, columns = np.indices(class_map.shape)
    # In units of the grid, so that the middle has the shape of the grid.
    distance = np.hypot((rows - (height - 1) / 2) / height, (columns - (width - 1) / 2) / width)
    highest = _first(-class_map.astype(np.float64), count)
    step = int(rng.integers(1, class_map.size))  # never 0
    moved = np.roll(highest, (step // width, step % width), axis=(0, 1))
    return {
        HIGHEST: highest,
        RANDOM: _first(rng.random(class_map.shape), count),
        MOVED: moved,
        MIDDLE: _first(distance, count),
    }


def hide(
    tensor: NDArray[np.float32], cells: NDArray[np.bool_], grey: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return an image with grey cells.

    Args:
        tensor: float32, (height, width, 3).
        cells: bool, (rows, columns), those to hide.
        grey: float32, (height, width, 3), a grey image.
    """
    height, width = tensor.shape[:2]
    rows = np.arange(height) * cells.shape[0] // height
    columns = np.arange(width) * cells.shape[1] // width
    return np.where(cells[np.ix_(rows, columns)][..., np.newaxis], grey, tensor)


def measure(classifier: Classifier, split: Split) -> Deletion:
    """Hide cells of every image in each way.

    Args:
        classifier: with an activation map.
        split: the images.

    Raises:
        ModelFileError: the model has no activation map.
    """
    spec, described = classifier.metadata.input, classifier.metadata.activation_map
    if described is None:
        raise ModelFileError(
            f"the model {classifier.metadata.name} has no activation map. Convert it with "
            "--activation-map."
        )
    rng = np.random.default_rng(SEED)
    grey = grey_image(spec)
    before: list[float] = []
    drops: dict[str, list[float]] = {way: [] for way in WAYS}
    changed: dict[str, list[bool]] = {way: [] for way in WAYS}
    for path in tqdm(split.paths, desc="deletion", unit="image", disable=None):
        tensor = load_image(path, spec)
        outputs = classifier.predict_all(tensor[np.newaxis])
        activation_map = np.asarray(outputs.activation_map)
        best = int(outputs.probabilities.argmax())
        before.append(float(outputs.probabilities[best]))
        for way, cells in choose_cells(activation_map[..., best], SHARE, rng).items():
            after = classifier.predict(hide(tensor, cells, grey)[np.newaxis])
            drops[way].append(before[-1] - float(after[best]))
            changed[way].append(int(after.argmax()) != best)
    return Deletion(
        np.array(before),
        {way: np.array(values) for way, values in drops.items()},
        {way: np.array(values) for way, values in changed.items()},
        max(1, round(SHARE * described.height * described.width)),
        (described.height, described.width),
    )


def grey_image(spec: InputSpec) -> NDArray[np.float32]:
    """Return a grey image as the model sees it, float32, (height, width, 3)."""
    image = Image.new("RGB", (spec.width, spec.height), (128, 128, 128))
    tensor: NDArray[np.float32] = preprocess(image, spec)[0]
    return tensor


def summarise(deletion: Deletion) -> list[dict[str, Any]]:
    """Return one row for each way, as plain JSON types.

    ``more_than`` is by how much the highest cells take away more, with the 95 % interval of a
    paired mean.
    """
    rows = []
    for way in WAYS:
        drops = deletion.drops[way]
        row = {
            "way": way,
            "mean_drop": float(drops.mean()),
            "labels_changed": int(deletion.changed[way].sum()),
        }
        if way != HIGHEST:
            more = deletion.drops[HIGHEST] - drops
            margin = NORMAL_95 * float(more.std(ddof=1)) / len(more) ** 0.5
            mean = float(more.mean())
            row |= {"more_than": mean, "more_than_interval_95": [mean - margin, mean + margin]}
        rows.append(row)
    return rows


def is_true(rows: list[dict[str, Any]]) -> bool:
    """Return whether the highest cells take away more than random ones do, beyond chance."""
    (random,) = (row for row in rows if row["way"] == RANDOM)
    return bool(random["more_than_interval_95"][0] > 0)


def to_markdown(rows: list[dict[str, Any]], images: int) -> str:
    """Return the rows as a Markdown table."""
    cells = []
    for row in rows:
        more = "-"
        if "more_than" in row:
            low, high = row["more_than_interval_95"]
            more = f"{row['more_than']:.3f} ({low:.3f} to {high:.3f})"
        changed = f"{row['labels_changed']} of {images}"
        cells.append([row["way"], f"{row['mean_drop']:.3f}", changed, more])
    columns = [
        "hidden",
        "mean drop of the probability",
        "label changed",
        "the highest cells take away more by (95 % interval)",
    ]
    return markdown_table(columns, cells)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("model", type=Path, help="a .tflite with an activation map")
    add_options(parser, "dataset", "limit")
    parser.add_argument("--out", type=Path, default=OUTPUT, help=f"default: {OUTPUT}")


def run(parsed: argparse.Namespace) -> None:
    """Measure on validation, print the table, and write it as JSON and Markdown.

    Raises:
        ModelFileError: the map is not true, or the model has none.
    """
    if not parsed.model.is_file():
        raise ModelFileError(f"no model at {parsed.model}: name a .tflite with an activation map")
    classifier = Classifier(parsed.model, num_threads=2)
    root = find_dataset(parsed.dataset, model=parsed.model)
    split = load_split(root, "validation").subsample(parsed.limit)
    deletion = measure(classifier, split)
    rows = summarise(deletion)
    table = to_markdown(rows, len(split))
    origin, sha256 = provenance(), sha256_of(parsed.model)
    metadata, (height, width) = classifier.metadata, deletion.grid
    print(f"\n{table}")
    head = (
        f"# Deletion test on validation\n\n{metadata.name} {metadata.version}, SHA-256 "
        f"`{sha256[:12]}`, {origin['date']}, commit {origin['commit']}. {deletion.cells} of "
        f"{height}x{width} cells are hidden by grey. {len(split)} images, mean probability "
        f"before {deletion.probability.mean():.3f}.\n\n"
    )
    write_text(parsed.out / "deletion_validation.md", head + table)
    write_json(
        parsed.out / "deletion_validation.json",
        {
            "model_sha256": sha256,
            "command": command(f"python -m training deletion {parsed.model.name}", parsed, limit=0),
            "images": len(split),
            "grid": list(deletion.grid),
            "hidden_cells": deletion.cells,
            "mean_probability": float(deletion.probability.mean()),
            "rows": rows,
            "provenance": origin,
        },
    )
    if not is_true(rows):
        raise ModelFileError(
            "the activation map is not true: its highest cells take away no more of the "
            "probability than random cells do. Convert the model without --activation-map."
        )


def _first(values: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """Return the cells of the lowest values."""
    chosen = np.zeros(values.size, np.bool_)
    chosen[np.argsort(values, axis=None, kind="stable")[:count]] = True
    return chosen.reshape(values.shape)
