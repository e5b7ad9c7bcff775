"""`python -m training label-noise`: training images whose labels look wrong, for people to check.

Cross-validation: every image of train and validation is judged by a head that never saw it, on
pooled activations of the frozen base. Images are ranked by normalised margin (Northcutt et al.,
"Confident Learning", JAIR 2021): the label's probability less the best other one's. Test is
never read, and nothing is edited.
"""

from __future__ import annotations

import argparse
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import find_dataset, load_split
from training.data.folds import Fold, assign_folds
from training.files import write_csv, write_json, write_text
from training.options import add_dataset_option, add_limit_option, add_weights_option
from training.provenance import provenance

OUTPUT = Path("runs") / "label-noise"
SHOWN = 60  # pictures in the report
COLUMNS = ("file", "label", "suggested", "label_probability", "suggested_probability", "margin")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30, help="of each fold's head")
    parser.add_argument("--size", type=int, default=224, help="input height and width, pixels")
    add_limit_option(parser)
    parser.add_argument("--seed", type=int, default=0)
    add_dataset_option(parser)
    add_weights_option(parser)
    parser.add_argument("--out", type=Path, default=OUTPUT, help=f"default: {OUTPUT}")


def run(parsed: argparse.Namespace) -> None:
    """Judge every training and validation image; write a CSV, a JSON and an HTML page."""
    from lambda_function.metadata import InputSpec
    from training.data.imagenet import find_weights
    from training.fit.heads import HeadConfig, pooled_features

    Fold(0, parsed.folds)  # refuses what is no number of folds, before minutes go by
    config = HeadConfig(inner_units=100, dropout=0.5, epochs=parsed.epochs, seed=parsed.seed)
    dataset = find_dataset(parsed.dataset)
    features = pooled_features(
        dataset,
        InputSpec(parsed.size, parsed.size),
        weights=find_weights(parsed.backbone_weights),
        limit=parsed.limit,
    )
    values = np.concatenate([features.training[0], features.validation])
    labels = np.concatenate([features.training_labels, features.validation_labels])
    probabilities = cross_validated(values, labels, features.class_names, config, parsed.folds)

    paths = [
        path
        for split in ("train", "validation")
        for path in load_split(dataset, split, features.class_names).subsample(parsed.limit).paths
    ]
    rows = suspects(paths, labels, probabilities, features.class_names)
    write_csv(parsed.out / "suspects.csv", COLUMNS, rows)
    summary = {
        "images": len(labels),
        "suspects": len(rows),
        "cross_validated_accuracy": float(np.mean(probabilities.argmax(axis=1) == labels)),
        "folds": parsed.folds,
        "frozen_blocks": features.block,
        "size": list(features.size),
        "provenance": provenance(),
    }
    write_json(parsed.out / "summary.json", summary)
    write_text(parsed.out / "suspects.html", _page(rows, summary, dataset))
    print(
        f"{len(rows)} of {len(labels)} labels are doubted by a head that never saw the image "
        f"(its accuracy: {summary['cross_validated_accuracy']:.3f}). People decide: "
        f"{parsed.out}/suspects.html"
    )


def cross_validated(
    values: NDArray[np.float32],
    labels: NDArray[np.int64],
    class_names: tuple[str, ...],
    config: Any,
    count: int,
) -> NDArray[np.float64]:
    """Return probabilities, float64, (images, classes), each from a head that never saw it."""
    import keras
    from tqdm import tqdm

    from training.evaluation.metrics import softmax
    from training.fit.heads import PooledFeatures, train_head

    assigned = assign_folds(labels, count, config.seed)
    probabilities = np.empty((len(labels), len(class_names)))
    with tqdm(total=count * config.epochs, desc="cross-validation", unit="epoch") as bar:
        for fold in range(count):
            inside = assigned == fold
            part = PooledFeatures(
                training=(values[~inside],),
                training_labels=labels[~inside],
                validation=values[inside],
                validation_labels=labels[inside],
                class_names=class_names,
                size=(0, 0),
                block=0,
                seconds=0.0,
            )
            head, _ = train_head(part, config, on_epoch_end=lambda: bar.update(1))
            logits = keras.ops.convert_to_numpy(head.predict(values[inside], verbose=0))
            probabilities[inside] = softmax(logits)
    return probabilities


def suspects(
    paths: list[Path],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    class_names: tuple[str, ...],
) -> list[dict[str, Any]]:
    """Return the images that another class fits better than their label, worst first."""
    rows = []
    for path, label, row in zip(paths, labels, probabilities, strict=True):
        best = int(row.argmax())
        if row[best] <= row[label]:
            continue
        rows.append(
            {
                "file": "/".join(path.parts[-3:]),
                "label": class_names[label],
                "suggested": class_names[best],
                "label_probability": round(float(row[label]), 4),
                "suggested_probability": round(float(row[best]), 4),
                "margin": round(float(row[label] - row[best]), 4),
            }
        )
    return sorted(rows, key=lambda found: (found["margin"], found["file"]))


def _page(rows: list[dict[str, Any]], summary: dict[str, Any], dataset: Path) -> str:
    from training.evaluation.report import page, thumbnail

    figures = "".join(
        f'<figure><img src="{thumbnail((dataset / row["file"]).read_bytes())}" alt=""><figcaption>'
        f"labelled <b>{escape(row['label'])}</b> {row['label_probability']:.0%}<br>"
        f"<span class=good>perhaps <b>{escape(row['suggested'])}</b> "
        f"{row['suggested_probability']:.0%}</span><br>"
        f"<span class='soft file' title='{escape(row['file'])}'>{escape(row['file'])}</span>"
        "</figcaption></figure>"
        for row in rows[:SHOWN]
    )
    return page(
        "Labels to look at",
        f"<h1>Labels to look at</h1><p class=soft>{len(rows)} of {summary['images']} images of "
        f"train and validation; the {min(SHOWN, len(rows))} most doubted are shown. Each was "
        f"judged by a model that never saw it ({summary['folds']}-fold cross-validation, accuracy "
        f"{summary['cross_validated_accuracy']:.1%}): it is wrong more often than the labels are."
        f"</p><div class=gallery>{figures}</div>",
    )
