"""Golden probabilities of the shipped model: `python -m tools.golden --write` at a release.

Two sets, so that a change of model, preprocessing or runtime cannot pass unseen:
the project's own pictures (``tests/golden/examples.json``), and 50 validation images of
the data set by file name only (``tests/golden/dataset.json``), checked where the data is.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lambda_function import REPOSITORY, SHIPPED_MODEL
from lambda_function.classifier import Classifier
from lambda_function.images.decode import decode_image, preprocess

EXAMPLES = REPOSITORY / "examples"
GOLDEN = REPOSITORY / "tests" / "golden"
DATASET = Path(
    os.environ.get("CLOTHING_DATASET") or REPOSITORY.parent / "shared" / "clothing-dataset-small"
)
PER_CLASS = 5


def probabilities(classifier: Classifier, path: Path) -> list[float]:
    """Return one image's class probabilities through the serving path, in model order."""
    spec = classifier.metadata.input
    tensor = preprocess(decode_image(path.read_bytes(), target=spec), spec)
    return [round(float(p), 6) for p in classifier.predict(tensor)]


def dataset_images(validation: Path, labels: Iterable[str]) -> list[Path]:
    """Return the first ``PER_CLASS`` validation images of every class, by file name."""
    return [path for label in labels for path in sorted((validation / label).iterdir())[:PER_CLASS]]


def golden(classifier: Classifier, root: Path, paths: Iterable[Path]) -> dict[str, Any]:
    """Return the golden record of some images: file name -> probabilities by label."""
    labels = classifier.metadata.labels
    return {
        path.relative_to(root).as_posix(): dict(
            zip(labels, probabilities(classifier, path), strict=True)
        )
        for path in paths
    }


def main() -> None:
    """Print the golden records, or write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write tests/golden/*.json")
    write = parser.parse_args().write
    classifier = Classifier(SHIPPED_MODEL)
    records = {"examples.json": golden(classifier, EXAMPLES, sorted(EXAMPLES.glob("*.jpg")))}
    if DATASET.is_dir():
        images = dataset_images(DATASET / "validation", classifier.metadata.labels)
        records["dataset.json"] = golden(classifier, DATASET, images)
    for name, record in records.items():
        for file, scores in record.items():
            best = max(scores, key=lambda label: scores[label])
            print(f"{file:60} {best:12} {scores[best]:.4f}")
        if write:
            GOLDEN.mkdir(exist_ok=True)
            (GOLDEN / name).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
