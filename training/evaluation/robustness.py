"""`python -m training robustness MODEL`: the same images, saved or rotated in another way.

Accuracy may not move by more than a point if the content of the images stays the same. The
variations are a larger size, stronger compression, an EXIF rotation and other file formats.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from lambda_function.images.stripped import MAX_PIXELS
from training.data.augment import encoded
from training.data.dataset import Split, find_dataset, load_split
from training.data.images import read_image
from training.errors import ModelFileError
from training.evaluation import report, test_log
from training.evaluation.loaded_model import (
    LoadedModel,
    load_model,
    predict_split,
    refuse_fold_on,
)
from training.evaluation.metrics import mcnemar_exact, wilson_interval
from training.files import markdown_table, write_json, write_text
from training.options import add_options
from training.provenance import command, provenance

OUTPUT = Path("runs") / "robustness"
ALLOWED = 0.01  # of accuracy
IMAGES_ON_DISK = 64  # at a time, because enlarged images are large
EXIF_ORIENTATION = 0x0112
ROTATED_90_CW = 6  # the viewer rotates it clockwise, so the stored image lies on its left side


def enlarged(image: Image.Image) -> bytes:
    """Return a JPEG, quality 95, three times as large (bicubic), or as large as is served."""
    factor = min(3.0, math.sqrt(MAX_PIXELS / (image.width * image.height)))
    size = (int(image.width * factor), int(image.height * factor))
    return encoded(image.resize(size, Image.Resampling.BICUBIC), "JPEG", quality=95)


def jpeg_60(image: Image.Image) -> bytes:
    """Return a JPEG of quality 60."""
    return encoded(image, "JPEG", quality=60)


def exif_rotated(image: Image.Image) -> bytes:
    """Return a JPEG of quality 95 that is stored sideways, with the EXIF flag for that."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = ROTATED_90_CW
    sideways = image.transpose(Image.Transpose.ROTATE_90)  # counter-clockwise
    return encoded(sideways, "JPEG", quality=95, exif=exif)


def png_with_alpha(image: Image.Image) -> bytes:
    """Return a PNG with an opaque alpha channel."""
    return encoded(image.convert("RGBA"), "PNG", compress_level=1)


def webp(image: Image.Image) -> bytes:
    """Return a WebP of quality 80, Pillow's default."""
    return encoded(image, "WEBP", quality=80)


VARIATIONS: dict[str, Callable[[Image.Image], bytes]] = {
    "enlarged 3x (bicubic)": enlarged,
    "JPEG quality 60": jpeg_60,
    "rotated by EXIF flag": exif_rotated,
    "PNG with alpha": png_with_alpha,
    "WebP": webp,
}


def vary(split: Split, variation: Callable[[Image.Image], bytes], folder: Path) -> Split:
    """Write the variation of every image to ``folder`` and return the split of those files."""
    paths = []
    for index, path in enumerate(split.paths):
        target = folder / f"{index}-{path.stem}.image"
        target.write_bytes(variation(read_image(path)))
        paths.append(target)
    return dataclasses.replace(split, paths=tuple(paths))


def correct_predictions(model: LoadedModel, split: Split, variation: str) -> NDArray[np.bool_]:
    """Return which images are classified correctly in a variation, bool, (images,).

    Args:
        model: the model.
        split: the original images.
        variation: one of ``VARIATIONS``.
    """
    correct = []
    with tqdm(total=len(split), desc=variation, unit="image", disable=None) as bar:
        for start in range(0, len(split), IMAGES_ON_DISK):
            part = split.subset(np.arange(start, min(start + IMAGES_ON_DISK, len(split))))
            with tempfile.TemporaryDirectory() as folder:
                varied = vary(part, VARIATIONS[variation], Path(folder))
                predicted = predict_split(model, varied, quiet=True).argmax(axis=1)
            correct.append(predicted == part.labels)
            bar.update(len(part))
    return np.concatenate(correct)


def measure(model: LoadedModel, split: Split) -> list[dict[str, Any]]:
    """Score the original images and every variation. Return one row each, as plain JSON types."""
    original = predict_split(model, split).argmax(axis=1) == split.labels
    rows = [_row("as they are", original, original)]
    return rows + [
        _row(name, correct_predictions(model, split, name), original) for name in VARIATIONS
    ]


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    cells = [
        [
            row["name"],
            f"{row['correct']} of {row['images']}",
            "{:.4f} ({:.4f} to {:.4f})".format(row["accuracy"], *row["accuracy_interval_95"]),
            f"{row['difference'] * 100:+.2f} points",
            f"{row['became_right']} right, {row['became_wrong']} wrong",
        ]
        for row in rows
    ]
    columns = ["images", "correct", "accuracy (95 % interval)", "against the originals", "changed"]
    return markdown_table(columns, cells)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("model", type=Path, help="a .tflite, a .keras or a run's folder")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    add_options(parser, "dataset", "limit")
    parser.add_argument("--out", type=Path, default=OUTPUT, help=f"default: {OUTPUT}")


def run(parsed: argparse.Namespace) -> None:
    """Measure, print the table, and write it as JSON and Markdown.

    Raises:
        ModelFileError: accuracy moved by more than ``ALLOWED``. The reports are written.
    """
    if parsed.split == "test":
        _check_recorded(parsed.model)
    model = load_model(parsed.model)
    refuse_fold_on(parsed.split, model)
    root = find_dataset(parsed.dataset, model=None if parsed.split == "test" else parsed.model)
    split = load_split(root, parsed.split).subsample(parsed.limit)
    rows = measure(model, split)
    print("\n" + to_markdown(rows))
    origin = provenance()
    head = (
        f"# Robustness on {parsed.split}\n\n{report.title_of(model.describe())}, SHA-256 "
        f"`{model.sha256[:12]}`, {origin['date']}, commit {origin['commit']}.\n\n"
    )
    base = f"robustness_{parsed.split}"
    write_text(parsed.out / f"{base}.md", head + to_markdown(rows))
    write_json(
        parsed.out / f"{base}.json",
        {
            "model_sha256": model.sha256,
            "command": command(
                f"python -m training robustness {parsed.model.name}",
                parsed,
                split="validation",
                limit=0,
            ),
            "split": parsed.split,
            "allowed_difference": ALLOWED,
            "rows": rows,
            "provenance": origin,
        },
    )
    moved = [row["name"] for row in rows if abs(row["difference"]) > ALLOWED]
    if moved:
        raise ModelFileError(f"accuracy moves by more than {ALLOWED:.0%} when images are {moved}")


def _check_recorded(file: Path) -> None:
    """Keep the test set for artifacts whose plain score is in the test log already."""
    if file.suffix == ".tflite" and file.is_file():
        model = load_model(file)
        if model.sha256 in {
            row["sha256"] for row in test_log.read(test_log.log_of(file, model.name))
        }:
            return
    raise ModelFileError(
        f"{file} is not in the test log: score it with `evaluate --split test` first, or "
        "measure on validation"
    )


def _row(name: str, correct: NDArray[np.bool_], original: NDArray[np.bool_]) -> dict[str, Any]:
    count, images = int(correct.sum()), len(correct)
    return {
        "name": name,
        "images": images,
        "correct": count,
        "accuracy": count / images,
        "accuracy_interval_95": wilson_interval(count, images),
        "difference": (count - int(original.sum())) / images,
        "became_right": int(np.sum(correct & ~original)),
        "became_wrong": int(np.sum(~correct & original)),
        "mcnemar_exact_p": mcnemar_exact(original, correct),
    }
