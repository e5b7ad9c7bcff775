"""What the released model says of pictures without any garment: it has to name one of ten.

    make no-garment                       writes benchmarks/results/no_garment.json

Photographs and drawings that scikit-image and scikit-learn carry for their examples, without
clothing in them, and even surfaces drawn here, through the serving path. Beside them, where the
data set is there, its validation pictures: which share of either would ``MIN_SCORE`` mark
``uncertain``?
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmarks.measure import RESULTS, surroundings, write_result
from lambda_function import SHIPPED_MODEL
from lambda_function.classifier import Classifier
from lambda_function.images.decode import decode_image, preprocess
from tests.support.images import encode
from training.data.dataset import find_dataset, load_split
from training.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator

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


class PicturesError(RuntimeError):
    """There are no pictures to ask about."""


def main() -> None:
    """Classify, print, and keep the result."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.no_garment",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dataset", type=Path, help="default: CLOTHING_DATASET or ../shared")
    parser.add_argument("--write", action="store_true", help="benchmarks/results/no_garment.json")
    arguments = parser.parse_args()
    classifier = Classifier(SHIPPED_MODEL)
    found = {name: ask(classifier, data) for name, data in [*surfaces(), *carried_pictures()]}
    result = {
        **surroundings(),
        "model": f"{classifier.metadata.name} {classifier.metadata.version}",
        "pictures": found,
        "top_score": describe([float(row["score"]) for row in found.values()]),
        "validation_top_score": describe(validation_scores(classifier, arguments.dataset)),
    }
    for name, row in found.items():
        print(f"{name:<28}{row['label']:<12}{row['score']:.2f}")
    print(table(result))
    if arguments.write:
        print(f"written: {write_result('no_garment', result, folder=RESULTS)}")


def ask(classifier: Classifier, data: bytes) -> dict[str, Any]:
    """Return the first class of an encoded picture, and its probability."""
    tensor = preprocess(decode_image(data), classifier.metadata.input)
    probabilities = classifier.predict(tensor)
    best = int(probabilities.argmax())
    return {"label": classifier.metadata.labels[best], "score": float(probabilities[best])}


def surfaces() -> Iterator[tuple[str, bytes]]:
    """Yield even surfaces and noise, drawn here, as PNG."""
    for name, colour in (("white", 255), ("grey", 128), ("black", 0)):
        yield name, encode(Image.new("RGB", (400, 533), (colour,) * 3), kind="PNG")
    noise = np.random.default_rng(0).integers(0, 256, (533, 400, 3), dtype=np.uint8)
    yield "noise", encode(Image.fromarray(noise), kind="PNG")


def carried_pictures() -> Iterator[tuple[str, bytes]]:
    """Yield the pictures of the installed packages.

    Raises:
        PicturesError: a package is not installed.
    """
    for folder, names in FOLDERS.items():
        package, _, rest = folder.partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise PicturesError(f"{package} is not installed here: `make no-garment` does it")
        for name in names:
            yield Path(name).stem, (Path(spec.origin).parent / rest / name).read_bytes()


def validation_scores(classifier: Classifier, dataset: Path | None) -> list[float]:
    """Return the first class's probability of every validation picture; none without data."""
    try:
        split = load_split(find_dataset(dataset), "validation")
    except DatasetError as error:
        print(f"no comparison with pictures of garments: {error}", file=sys.stderr)
        return []
    return [float(ask(classifier, path.read_bytes())["score"]) for path in split.paths]


def describe(scores: list[float]) -> dict[str, Any] | None:
    """Return how many there are, their median, and the share below each threshold."""
    if not scores:
        return None
    below = {str(t): float(np.mean(np.array(scores) < t)) for t in THRESHOLDS}
    return {"count": len(scores), "median": statistics.median(scores), "below": below}


def table(result: dict[str, Any]) -> str:
    """Return what ``MIN_SCORE`` would mark, as Markdown."""
    columns = {
        "pictures without a garment": result["top_score"],
        "validation pictures": result["validation_top_score"],
    }
    shown = {name: found for name, found in columns.items() if found}
    heads = [f"{name} ({found['count']})" for name, found in shown.items()]
    lines = [f"| `MIN_SCORE` | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
    for threshold in map(str, THRESHOLDS):
        cells = [f"{found['below'][threshold]:.0%} marked" for found in shown.values()]
        lines.append(f"| {threshold} | {' | '.join(cells)} |")
    medians = [f"{found['median']:.2f}" for found in shown.values()]
    lines.append(f"| median of the first class's probability | {' | '.join(medians)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except PicturesError as error:
        sys.exit(str(error))
