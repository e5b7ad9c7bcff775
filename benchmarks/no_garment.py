"""What the shipped model says of images without any garment: it has to name one of its classes.

    python -m benchmarks no-garment --write

Photographs and drawings that scikit-image and scikit-learn carry for their examples, without
clothing in them, and even surfaces drawn here, through the serving path. Beside them, where the
data set is there, its validation images: which share of either would ``MIN_SCORE`` mark
``uncertain``? Needs the environment `benchmarks` (``make .venv/benchmarks/.ok``).
"""

from __future__ import annotations

import importlib.util
import io
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmarks.baselines import BaselineError
from benchmarks.harness import command_line, origin, write_result
from lambda_function import SHIPPED_MODEL
from lambda_function.classifier import Classifier
from lambda_function.images.decode import decode_image, preprocess
from training.data.dataset import find_dataset, load_split
from training.errors import DatasetError
from training.files import markdown_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
# No astronaut and no camera man: they wear something.
FOLDERS: dict[str, tuple[str, ...]] = {
    "skimage/data": (
        "brick.png", "cell.png", "chelsea.png", "chessboard_RGB.png", "clock_motion.png",
        "coffee.png", "coins.png", "grass.png", "gravel.png", "horse.png",
        "hubble_deep_field.jpg", "ihc.png", "logo.png", "moon.png", "motorcycle_left.png",
        "page.png", "phantom.png", "retina.jpg", "rocket.jpg", "text.png",
    ),
    "sklearn/datasets/images": ("china.jpg", "flower.jpg"),
}  # fmt: skip


def main(arguments: list[str]) -> None:
    """Classify, print and keep the result."""
    parser = command_line("no-garment", __doc__)
    parser.add_argument("--dataset", type=Path, help="default: CLOTHING_DATASET or ../shared")
    parser.add_argument("--write", action="store_true", help="benchmarks/results/no_garment.json")
    options = parser.parse_args(arguments)
    record = origin()
    classifier = Classifier(SHIPPED_MODEL)
    images = {
        name: classify(classifier, data) for name, data in [*surfaces(), *carried_images(FOLDERS)]
    }
    result = {
        **record,
        "model": f"{classifier.metadata.name} {classifier.metadata.version}",
        "images": images,
        "top_score": describe([float(row["score"]) for row in images.values()]),
        "validation_top_score": describe(validation_scores(classifier, options.dataset)),
    }
    for name, row in images.items():
        print(f"{name:<28}{row['label']:<12}{row['score']:.2f}")
    print(table(result))
    if options.write:
        write_result("no_garment", result)


def classify(classifier: Classifier, data: bytes) -> dict[str, Any]:
    """Return the best label of an encoded image, and its probability."""
    tensor = preprocess(decode_image(data), classifier.metadata.input)
    probabilities = classifier.predict(tensor)
    best = int(probabilities.argmax())
    return {"label": classifier.metadata.labels[best], "score": float(probabilities[best])}


def surfaces() -> Iterator[tuple[str, bytes]]:
    """Yield even surfaces and noise, drawn here, as PNG."""
    for name, grey in (("white", 255), ("grey", 128), ("black", 0)):
        yield name, _to_png(np.full((533, 400, 3), grey, np.uint8))
    yield "noise", _to_png(np.random.default_rng(0).integers(0, 256, (533, 400, 3), np.uint8))


def carried_images(folders: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, bytes]]:
    """Yield the images of installed packages.

    Args:
        folders: names of files by package and folder, such as "skimage/data".

    Raises:
        BaselineError: a package is not installed.
    """
    for folder, names in folders.items():
        package, _, rest = folder.partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise BaselineError(f"{package} is not installed here: `make .venv/benchmarks/.ok`")
        for name in names:
            yield Path(name).stem, (Path(spec.origin).parent / rest / name).read_bytes()


def validation_scores(classifier: Classifier, dataset: Path | None) -> list[float]:
    """Return the highest probability of every validation image. None without the data set."""
    try:
        split = load_split(find_dataset(dataset), "validation")
    except DatasetError as error:
        print(f"no comparison with images of garments: {error}", file=sys.stderr)
        return []
    return [float(classify(classifier, path.read_bytes())["score"]) for path in split.paths]


def describe(scores: list[float]) -> dict[str, Any] | None:
    """Return the number of scores, their median, and the share below each threshold."""
    if not scores:
        return None
    below = {str(t): float(np.mean(np.array(scores) < t)) for t in THRESHOLDS}
    return {"count": len(scores), "median": statistics.median(scores), "below": below}


def table(result: dict[str, Any]) -> str:
    """Return what ``MIN_SCORE`` would mark, as Markdown."""
    columns = {
        "images without a garment": result["top_score"],
        "validation images": result["validation_top_score"],
    }
    shown = {name: scores for name, scores in columns.items() if scores}
    heads = [f"{name} ({scores['count']}):" for name, scores in shown.items()]
    rows = [
        [threshold, *(f"{scores['below'][threshold]:.0%} marked" for scores in shown.values())]
        for threshold in map(str, THRESHOLDS)
    ]
    medians = [f"{scores['median']:.2f}" for scores in shown.values()]
    rows.append(["median of the highest probability", *medians])
    return markdown_table(["`MIN_SCORE`", *heads], rows)


def _to_png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
