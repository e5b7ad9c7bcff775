"""What a model says of images without a garment, and which score tells them apart.

    python -m benchmarks no-garment [MODEL] --archives FOLDER --write

Photographs, drawings and surfaces (``strangers``) and, where they are there, garments
of other kinds go through the serving path. ``rejection`` fixes the threshold of every
score on validation. A model gives probabilities, and its feature distance if it measures it
(``python -m converter ... --uncertain``). docs/experiments.md has the scores that lost.
Needs the environment `benchmarks` (``make .venv/benchmarks/.ok``).
"""

from __future__ import annotations

import csv
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from benchmarks.harness import RESULTS, command_line, origin, write_result
from benchmarks.no_garment.rejection import Activations, scores_of, summary
from benchmarks.no_garment.strangers import strangers
from lambda_function import REPOSITORY, SHIPPED_MODEL
from lambda_function.classifier import Classifier
from lambda_function.images.decode import decode_image, preprocess
from training.data.dataset import find_dataset, load_split
from training.files import markdown_table
from training.options import add_options

if TYPE_CHECKING:
    from collections.abc import Sequence

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
OTHER_GARMENTS = REPOSITORY.parent / "shared" / "clothing-other"
_GROUPS = {"photograph": "photographs", "drawing": "drawings", "surface": "surfaces"}


def main(arguments: list[str]) -> None:
    """Classify, print and keep the result."""
    parser = command_line("no-garment", __doc__)
    parser.add_argument("model", type=Path, nargs="?", default=SHIPPED_MODEL)
    parser.add_argument(
        "--archives",
        type=Path,
        required=True,
        help="pip download --no-deps --no-binary :all: of the locked pillow and pi-heif",
    )
    add_options(parser, "dataset")
    parser.add_argument("--other", type=Path, default=OTHER_GARMENTS, help="garments not known")
    parser.add_argument("--write", action="store_true", help=f"into {RESULTS.name}/")
    options = parser.parse_args(arguments)
    record = origin()
    classifier = Classifier(options.model)
    model = classifier.metadata
    images = strangers(options.archives)
    others = other_garments(options.other)
    found = look_at("strangers", [image.data for image in images], classifier)
    validation = load_split(find_dataset(options.dataset), "validation", model.labels)
    known = look_at("validation", validation.paths, classifier)
    groups = {
        title: found.subset([image.kind == kind for image in images])
        for kind, title in _GROUPS.items()
    }
    other_labels = list(others.values())
    if others:
        given = look_at("other garments", list(others), classifier)
        groups["other garments"] = given
        groups |= {
            label: given.subset([name == label for name in other_labels])
            for label in sorted(set(other_labels))
        }
    result = {
        **record,
        "model": f"{model.name} {model.version} (tflite)",
        "images": {
            image.name: {
                "kind": image.kind,
                "label": model.labels[int(row.argmax())],
                "score": float(row.max()),
            }
            for image, row in zip(images, found.probabilities, strict=True)
        },
        "counts": {
            "validation": len(validation),
            **{name: len(given.probabilities) for name, given in groups.items()},
        },
        "top_score": {
            name: describe(given.probabilities.max(axis=1).tolist())
            for name, given in {"validation": known, **groups}.items()
            if name not in other_labels
        },
        "scores": {name: summary(score, known, groups) for name, score in scores_of(known).items()},
    }
    print(f"{score_table(result)}\n\n{table(result)}")
    if options.write:
        write_result("no_garment", result)


def other_garments(folder: Path) -> dict[Path, str]:
    """Return the images of garments that the model does not know, with their labels.

    Args:
        folder: holds the images and ``labels.csv`` (image, label). It may be missing.
    """
    if not (folder / "labels.csv").is_file():
        return {}
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        return {folder / row["image"]: row["label"] for row in csv.DictReader(file)}


def describe(scores: list[float]) -> dict[str, Any]:
    """Return the number of scores, their median, and the share below each threshold."""
    below = {str(t): float(np.mean(np.array(scores) < t)) for t in THRESHOLDS}
    return {"count": len(scores), "median": statistics.median(scores), "below": below}


def table(result: dict[str, Any]) -> str:
    """Return what ``MIN_SCORE`` would mark, as Markdown."""
    columns = result["top_score"]
    heads = [f"{name} ({scores['count']}):" for name, scores in columns.items()]
    rows = [
        [threshold, *(f"{scores['below'][threshold]:.0%} marked" for scores in columns.values())]
        for threshold in map(str, THRESHOLDS)
    ]
    medians = [f"{scores['median']:.2f}" for scores in columns.values()]
    rows.append(["median of the highest probability", *medians])
    return markdown_table(["`MIN_SCORE`", *heads], rows)


def score_table(result: dict[str, Any]) -> str:
    """Return what each score's threshold marks, as Markdown."""
    names = [f"{name} ({count}):" for name, count in result["counts"].items()]
    rows = [
        [name, *(f"{share:.0%}" for share in found["marked"].values())]
        for name, found in result["scores"].items()
    ]
    return markdown_table(["score", *names], rows)


def look_at(name: str, images: Sequence[bytes | Path], classifier: Classifier) -> Activations:
    """Return what a model gives for images.

    Args:
        name: of the images, for the progress bar.
        images: encoded, or files.
        classifier: the model.
    """
    spec, outputs = classifier.metadata.input, []
    for image in tqdm(images, desc=name, unit="image", disable=None):
        encoded = image if isinstance(image, bytes) else image.read_bytes()
        outputs.append(classifier.predict_all(preprocess(decode_image(encoded, target=spec), spec)))
    measured = classifier.metadata.feature_distance
    return Activations(
        np.stack([each.probabilities for each in outputs]).astype(np.float64),
        np.array([each.feature_distance for each in outputs], np.float64) if measured else None,
    )
