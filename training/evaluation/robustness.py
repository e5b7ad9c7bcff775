"""`python -m training robustness MODEL`: the same pictures, saved or turned otherwise.

Nothing that leaves a picture's content alone may move accuracy by more than a point: enlarging
it, compressing it again, storing it sideways with an EXIF flag, or in another file format.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from training.data.dataset import Split, find_dataset, load_split
from training.data.encoding import encoded
from training.data.images import read_image
from training.evaluation import test_log as ledger
from training.evaluation.loaded_model import ModelFileError, Scorer, load_scorer, score
from training.evaluation.metrics import mcnemar_exact, wilson_interval
from training.files import sha256_of, write_json, write_text
from training.options import add_dataset_option
from training.provenance import command, provenance

OUTPUT = Path("runs") / "robustness"
ALLOWED = 0.01  # of accuracy
EXIF_ORIENTATION = 0x0112
ROTATED_90_CW = 6  # the viewer turns it clockwise, so the stored picture lies on its left side


def enlarged(image: Image.Image) -> bytes:
    """Return a JPEG, quality 95, three times as large (bicubic)."""
    size = (image.width * 3, image.height * 3)
    return encoded(image.resize(size, Image.Resampling.BICUBIC), "JPEG", quality=95)


def jpeg_60(image: Image.Image) -> bytes:
    """Return a JPEG of quality 60."""
    return encoded(image, "JPEG", quality=60)


def exif_rotated(image: Image.Image) -> bytes:
    """Return a JPEG, quality 95, stored sideways, with the flag that says so."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = ROTATED_90_CW
    turned = image.transpose(Image.Transpose.ROTATE_90)  # counter-clockwise
    return encoded(turned, "JPEG", quality=95, exif=exif)


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
    """Write the variation of every image below ``folder``; return a split of those."""
    paths = []
    for index, path in enumerate(split.paths):
        target = folder / f"{index}-{path.stem}.image"
        target.write_bytes(variation(read_image(path)))
        paths.append(target)
    return dataclasses.replace(split, paths=tuple(paths))


def right_answers(
    scorer: Scorer, split: Split, variation: str, *, batch: int = 64
) -> NDArray[np.bool_]:
    """Return bool, (images,): which pictures are classified rightly in a variation.

    Args:
        scorer: the model.
        split: the pictures as they are.
        variation: one of ``VARIATIONS``.
        batch: pictures written at a time: enlarged ones are large.
    """
    right = []
    with tqdm(total=len(split), desc=variation, unit="image") as bar:
        for start in range(0, len(split), batch):
            part = split.subset(np.arange(start, min(start + batch, len(split))))
            with tempfile.TemporaryDirectory() as folder:
                varied = vary(part, VARIATIONS[variation], Path(folder))
                answers = score(scorer, varied, quiet=True).argmax(axis=1)
            right.append(answers == part.labels)
            bar.update(len(part))
    return np.concatenate(right)


def measure(scorer: Scorer, split: Split) -> list[dict[str, Any]]:
    """Score the pictures as they are and in every variation; plain JSON types, one row each."""
    plain = score(scorer, split).argmax(axis=1) == split.labels
    rows = [_row("as they are", plain, plain)]
    return rows + [_row(name, right_answers(scorer, split, name), plain) for name in VARIATIONS]


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table."""
    lines = [
        "| pictures | correct | accuracy (95 % interval) | against the originals | changed |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        low, high = row["accuracy_interval_95"]
        lines.append(
            f"| {row['name']} | {row['correct']} of {row['images']} | {row['accuracy']:.4f} "
            f"({low:.4f} to {high:.4f}) | {row['difference'] * 100:+.2f} points | "
            f"{row['became_right']} right, {row['became_wrong']} wrong |"
        )
    return "\n".join(lines) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("model", type=Path, help="a .tflite, a .keras or a run's folder")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    add_dataset_option(parser)
    parser.add_argument("--limit", type=int, default=0, help="images, for a quick try")
    parser.add_argument("--out", type=Path, default=OUTPUT, help=f"default: {OUTPUT}")


def run(parsed: argparse.Namespace) -> None:
    """Measure, print the table, write it as JSON and Markdown; fail where accuracy moves.

    Raises:
        ModelFileError: accuracy moved by more than ``ALLOWED``; the reports are written.
    """
    if parsed.split == "test":
        _refuse_unless_recorded(parsed.model)
    split = load_split(find_dataset(parsed.dataset), parsed.split).subsample(parsed.limit)
    scorer = load_scorer(parsed.model)
    rows = measure(scorer, split)
    print("\n" + to_markdown(rows))
    origin = provenance()
    head = (
        f"# Robustness on {parsed.split}\n\n{scorer.name} {scorer.version} ({scorer.kind}, SHA-256 "
        f"`{scorer.sha256[:12]}`); {origin['date']}, commit {origin['commit']}.\n\n"
    )
    base = f"robustness_{parsed.split}"
    write_text(parsed.out / f"{base}.md", head + to_markdown(rows))
    write_json(
        parsed.out / f"{base}.json",
        {
            "model_sha256": scorer.sha256,
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
        raise ModelFileError(f"accuracy moves by more than {ALLOWED:.0%} when pictures are {moved}")


def _refuse_unless_recorded(model: Path) -> None:
    """Keep test for released models: the plain scoring comes first, and is recorded."""
    known = {row["sha256"] for row in ledger.read()}
    if not model.is_file() or sha256_of(model) not in known:
        raise ModelFileError(
            f"{model} is not in the test ledger: score it with `evaluate --split test` first, or "
            "measure on validation"
        )


def _row(name: str, right: NDArray[np.bool_], plain: NDArray[np.bool_]) -> dict[str, Any]:
    correct, images = int(right.sum()), len(right)
    return {
        "name": name,
        "images": images,
        "correct": correct,
        "accuracy": correct / images,
        "accuracy_interval_95": list(wilson_interval(correct, images)),
        "difference": (correct - int(plain.sum())) / images,
        "became_right": int(np.sum(right & ~plain)),
        "became_wrong": int(np.sum(~right & plain)),
        "mcnemar_exact_p": mcnemar_exact(plain, right),
    }
