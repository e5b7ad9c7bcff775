"""How long do the course's eleven trials take: our way and the notebook's, on this machine?

The notebook runs every image through the whole network in each of 190 epochs. Ours runs each
image once through the frozen base and trains heads on what comes out. Ours is measured whole,
feature extraction included, from an empty cache; the notebook's way is measured on some full
epochs (training and validation, images read from disk each time, as its generators do) and
scaled to 190, which the table says.

    .venv/training/bin/python -m benchmarks.tuning_speed [--epochs 2] [--write]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.measure import at_least_one
from lambda_function.metadata import InputSpec
from training.data.dataset import Split, find_dataset, load_split
from training.data.imagenet import find_weights
from training.data.images import load_image
from training.experiments.course_figures import EPOCHS, EXPERIMENTS, SIZE
from training.experiments.tune import search_heads
from training.files import write_json, write_text
from training.fit.backbone import build_backbone
from training.fit.heads import pooled_features
from training.provenance import command, provenance

RESULTS = Path(__file__).parent / "results"
SPEC = InputSpec(SIZE, SIZE)
BATCH = 32
TARGET = 80  # times faster


class Pictures(keras.utils.PyDataset):
    """The images of a split, read and scaled anew in every epoch, on two threads."""

    def __init__(self, split: Split) -> None:
        super().__init__(workers=2, use_multiprocessing=False, max_queue_size=10)
        self._split = split

    def __len__(self) -> int:
        return -(-len(self._split) // BATCH)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        rows = slice(index * BATCH, (index + 1) * BATCH)
        images = np.stack([load_image(path, SPEC) for path in self._split.paths[rows]])
        return images, self._split.labels[rows]


def notebook_seconds(dataset: Path, weights: Path | None, epochs: int, limit: int) -> list[float]:
    """Train the course's first model its own way; return the seconds of every epoch."""
    training = load_split(dataset, "train").subsample(limit)
    validation = load_split(dataset, "validation", training.class_names).subsample(limit)
    base = build_backbone(SIZE, SIZE, weights)
    base.trainable = False
    inputs = keras.Input((SIZE, SIZE, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(base(inputs, training=False))
    model = keras.Model(inputs, keras.layers.Dense(len(training.class_names))(pooled))
    model.compile(
        optimizer=keras.optimizers.Adam(1e-2),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    # One batch first: compiling the graph happens once in 190 epochs.
    model.fit(*Pictures(training)[0], batch_size=BATCH, epochs=1, verbose=0)
    seconds = []
    for _ in range(epochs):
        started = time.perf_counter()
        model.fit(Pictures(training), validation_data=Pictures(validation), epochs=1, verbose=2)
        seconds.append(time.perf_counter() - started)
    return seconds


def our_seconds(dataset: Path, weights: Path | None, limit: int) -> tuple[float, float]:
    """Run the eleven trials from nothing; return the seconds of extraction, and of all."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        features = pooled_features(
            dataset, SPEC, weights=weights, limit=limit, cache=Path(folder) / "cache"
        )
        extracted = time.perf_counter() - started
        for name, search in EXPERIMENTS.items():
            search_heads(features, name, search["trials"], Path(folder))
        return extracted, time.perf_counter() - started


def table(found: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    origin = found["provenance"]
    return (
        f"# The course's eleven trials, {SIZE} px, {EPOCHS} epochs in all\n\n"
        "| way | measured | eleven trials |\n| --- | --- | --- |\n"
        f"| the notebook's: every image through the whole network in every epoch | "
        f"{len(found['notebook_epoch_seconds'])} full epochs, "
        f"{found['notebook_seconds_per_epoch']:.1f} s each | "
        f"{found['notebook_seconds_scaled']:,.0f} s (scaled to {EPOCHS} epochs) |\n"
        f"| ours: frozen base once ({found['our_extraction_seconds']:.0f} s), then heads | "
        f"all of it | {found['our_seconds']:.0f} s |\n"
        f"| ratio | | **{found['ratio']:.0f}** (target: above {TARGET}) |\n\n"
        f"{found['images']} images; {origin['processor']}, {origin['cores']} cores; Keras "
        f"{origin['packages']['keras']} on {found['backend']}; {origin['date']}, commit "
        f"{origin['commit']}. With the partial weights file our frozen base "
        "ends at block 13; the notebook's, timed here, runs block 14 as well.\n"
    )


def main() -> None:
    """Measure both, print the table, and write it where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=at_least_one, default=2, help="of the notebook's way")
    parser.add_argument("--limit", type=int, default=0, help="images per split, for a quick try")
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--backbone-weights", type=Path)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}/tuning_speed.*")
    parsed = parser.parse_args()
    provenance()  # of what runs from here on
    dataset, weights = find_dataset(parsed.dataset), find_weights(parsed.backbone_weights)

    extraction, ours = our_seconds(dataset, weights, parsed.limit)
    epochs = notebook_seconds(dataset, weights, parsed.epochs, parsed.limit)
    per_epoch = float(np.mean(epochs))
    images = sum(
        len(load_split(dataset, s).subsample(parsed.limit)) for s in ("train", "validation")
    )
    found = {
        "images": images,
        "command": command("python -m benchmarks.tuning_speed --write", parsed, epochs=2, limit=0),
        "our_seconds": round(ours, 1),
        "our_extraction_seconds": round(extraction, 1),
        "notebook_epoch_seconds": [round(value, 1) for value in epochs],
        "notebook_seconds_per_epoch": round(per_epoch, 1),
        "notebook_seconds_scaled": round(per_epoch * EPOCHS),
        "ratio": round(per_epoch * EPOCHS / ours, 1),
        "backend": keras.backend.backend(),
        "provenance": provenance(),
    }
    print("\n" + table(found))
    if parsed.write:
        write_json(RESULTS / "tuning_speed.json", found)
        write_text(RESULTS / "tuning_speed.md", table(found))


if __name__ == "__main__":
    main()
