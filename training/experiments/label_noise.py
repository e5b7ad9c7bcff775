"""`python -m training label-noise`: list training images whose labels look wrong.

Cross-validation gives every image of train and validation a prediction from a head that never
saw it. The heads use pooled activations of the frozen base. Images are ranked by normalised
margin (Northcutt et al., "Confident Learning", JAIR 2021): the probability of the label minus
the highest probability of another class. People decide about the labels. The test set is not
read, and no file of the data set is changed.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lambda_function.metadata import InputSpec
from training.data.dataset import find_dataset, load_split
from training.data.folds import Fold, assign_folds
from training.data.imagenet import find_weights
from training.evaluation import report
from training.evaluation.metrics import softmax
from training.experiments.heads import HeadConfig, PooledFeatures, pooled_features, train_head
from training.files import write_csv, write_json, write_text
from training.options import add_options
from training.provenance import provenance

OUTPUT = Path("runs") / "label-noise"
SHOWN = 60  # images in the report
COLUMNS = ("file", "label", "suggested", "label_probability", "suggested_probability", "margin")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30, help="of each fold's head")
    parser.add_argument("--size", type=int, default=224, help="input height and width, pixels")
    add_options(parser, "limit", "dataset", "backbone-weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUTPUT, help=f"default: {OUTPUT}")


def run(parsed: argparse.Namespace) -> None:
    """Judge every training and validation image. Write a CSV, a JSON and an HTML page."""
    Fold(0, parsed.folds)  # raises before minutes go by
    config = HeadConfig(inner_units=100, dropout=0.5, epochs=parsed.epochs, seed=parsed.seed)
    dataset = find_dataset(parsed.dataset)
    features = pooled_features(
        dataset,
        InputSpec(parsed.size, parsed.size),
        weights=find_weights(parsed.backbone_weights),
        limit=parsed.limit,
    )
    probabilities = cross_validate(features, config, parsed.folds)
    files = [
        path.relative_to(dataset).as_posix()
        for split in ("train", "validation")
        for path in load_split(dataset, split, features.class_names).subsample(parsed.limit).paths
    ]
    labels = np.concatenate([features.training_labels, features.validation_labels])
    rows = find_suspects(files, labels, probabilities, features.class_names)
    summary = {
        "images": len(labels),
        "suspects": len(rows),
        "cross_validated_accuracy": float(np.mean(probabilities.argmax(axis=1) == labels)),
        "folds": parsed.folds,
        "size": list(features.size),
        "provenance": provenance(),
    }
    write_csv(parsed.out / "suspects.csv", COLUMNS, rows)
    write_json(parsed.out / "summary.json", summary)
    write_text(parsed.out / "suspects.html", _page(rows, summary, dataset))
    print(
        f"{len(rows)} of {len(labels)} labels are doubted by a head that never saw the image "
        f"(its accuracy: {summary['cross_validated_accuracy']:.3f}). People decide: "
        f"{parsed.out}/suspects.html"
    )


def cross_validate(features: PooledFeatures, config: HeadConfig, folds: int) -> NDArray[np.float64]:
    """Predict every image with a head that never saw it.

    Args:
        features: their training and validation images are pooled.
        config: of every head.
        folds: number of parts.

    Returns:
        Probabilities, float64, (images, classes): training images first, then validation images.
    """
    values = np.concatenate([features.training[0], features.validation])
    labels = np.concatenate([features.training_labels, features.validation_labels])
    assigned = assign_folds(labels, folds, config.seed)
    probabilities = np.empty((len(labels), len(features.class_names)))
    with tqdm(total=folds * config.epochs, desc="folds", unit="epoch", disable=None) as bar:
        for fold in range(folds):
            inside = assigned == fold
            part = dataclasses.replace(
                features,
                training=(values[~inside],),
                training_labels=labels[~inside],
                validation=values[inside],
                validation_labels=labels[inside],
            )
            head, _ = train_head(part, config, on_epoch_end=bar.update)
            logits = keras.ops.convert_to_numpy(head.predict(values[inside], verbose=0))
            probabilities[inside] = softmax(logits)
    return probabilities


def find_suspects(
    files: list[str],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    class_names: tuple[str, ...],
) -> list[dict[str, Any]]:
    """Return the images whose label is not the most probable class, worst first.

    Args:
        files: of the images, below the data set.
        labels: int64, (images,).
        probabilities: float64, (images, classes).
        class_names: in model order.

    Returns:
        One row per suspect: file, label, suggested class, both probabilities and the margin.
    """
    rows = []
    for file, label, row in zip(files, labels, probabilities, strict=True):
        best = int(row.argmax())
        if row[best] <= row[label]:
            continue
        rows.append(
            {
                "file": file,
                "label": class_names[label],
                "suggested": class_names[best],
                "label_probability": round(float(row[label]), 4),
                "suggested_probability": round(float(row[best]), 4),
                "margin": round(float(row[label] - row[best]), 4),
            }
        )
    return sorted(rows, key=lambda row: (row["margin"], row["file"]))


def _page(rows: list[dict[str, Any]], summary: dict[str, Any], dataset: Path) -> str:
    figures = [
        report.figure(
            dataset / row["file"],
            row["file"],
            "suspect",
            {
                "label": row["label"],
                "label_probability": f"{row['label_probability']:.0%}",
                "suggested": row["suggested"],
                "probability": f"{row['suggested_probability']:.0%}",
            },
        )
        for row in rows[:SHOWN]
    ]
    note = (
        f"{len(rows)} of {summary['images']} images of train and validation. The {len(figures)} "
        "most doubted are shown. A model that never saw the image judged it "
        f"({summary['folds']}-fold cross-validation, accuracy "
        f"{summary['cross_validated_accuracy']:.1%}). The model is wrong more often than the "
        "labels are."
    )
    title = "Labels to look at"
    return report.page(title, report.gallery(title, note, figures))
