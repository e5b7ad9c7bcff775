"""What a team's own images give: default settings, a folder of class folders, one command.

    python -m benchmarks own-data --write
    python -m benchmarks own-data --quick        one small data set, one seed, two epochs

Data sets are sampled from train and validation of clothing-dataset-small, under other names. Each
is trained with ``python -m training train --dataset FOLDER`` and several seeds. The model is judged
on the images of the same classes that were not sampled, never on test. ``--search`` trains eight
other settings as well, and says how far the default is from the best of them.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import at_least_one, command_line, origin, write_result
from lambda_function import REPOSITORY
from training.data.dataset import Split, find_dataset
from training.errors import DatasetError
from training.evaluation.loaded_model import load_model, predict_split
from training.evaluation.metrics import wilson_interval

SEEDS = 3
MIN_JUDGES = 300
# The search: on either side of the defaults.
SETTINGS = [
    (f"--learning-rate={rate}", f"--views={views}", f"--epochs={epochs}")
    for rate, views, epochs in itertools.product((1e-4, 1e-3), (4, 12), (15, 60))
]


@dataclasses.dataclass(frozen=True)
class Sample:
    """One team's data set.

    Attributes:
        title: of the row.
        counts: class of the public data set -> (folder name, images).
        bar: accuracy that the mean of the seeds must reach; None for no bar.
    """

    title: str
    counts: dict[str, tuple[str, int]]
    bar: float | None = None


TEN = ("dress", "hat", "longsleeve", "outwear", "pants", "shirt", "shoes", "shorts", "skirt",
       "t-shirt")  # fmt: skip
SAMPLES = {
    "three": Sample(
        "3 classes of 40", {name: (name, 40) for name in ("pants", "shoes", "hat")}, bar=0.9
    ),
    "two": Sample("2 classes of 30", {"dress": ("dress", 30), "shirt": ("shirt", 30)}),
    "ten": Sample("10 classes of 100", {name: (name, 100) for name in TEN}),
    "names": Sample(
        "names with spaces, umlauts and CJK",
        {"pants": ("lange Hose", 40), "shoes": ("Stöckelschuh", 40), "hat": ("帽子", 40)},
    ),
    "uneven": Sample(
        "one class ten times the other", {"pants": ("pants", 300), "shoes": ("shoes", 30)}
    ),
}


def main(arguments: list[str]) -> None:
    """Train, judge, print and keep the result."""
    parser = command_line("own-data", __doc__)
    parser.add_argument("--dataset", type=Path, help="default: CLOTHING_DATASET or ../shared")
    parser.add_argument("--samples", nargs="+", choices=SAMPLES, default=list(SAMPLES))
    parser.add_argument("--seeds", type=at_least_one, default=SEEDS, help=f"default {SEEDS}")
    parser.add_argument("--search", action="store_true", help="train eight other settings as well")
    parser.add_argument("--quick", action="store_true", help="one small run; keeps nothing")
    parser.add_argument("--write", action="store_true", help="benchmarks/results/own_data.json")
    options = parser.parse_args(arguments)
    dataset, record = find_dataset(options.dataset), origin()
    names, seeds = options.samples, options.seeds
    more: tuple[str, ...] = ()
    if options.quick:
        names, seeds, more = ["three"], 1, ("--size=96", "--epochs=2", "--views=1")
    rows = []
    for name in names:
        rows.append(measure(SAMPLES[name], dataset, seeds, search=options.search, more=more))
        print(to_line(rows[-1]), flush=True)
    if options.write and not options.quick:
        write_result("own_data", {**record, "seeds": seeds, "rows": rows})


def measure(
    sample: Sample, dataset: Path, seeds: int, *, search: bool, more: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Train one sample with every seed and return its row as plain JSON types.

    Args:
        sample: the data set.
        dataset: the public data set.
        seeds: runs, each with another sample and another seed.
        search: train ``SETTINGS`` as well, with every seed.
        more: further options of every training.
    """
    tables, judges = [], 0
    settings = [(), *SETTINGS] if search else [()]
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as place:
            folder, judging = write_sample(sample, dataset, Path(place) / "own images", seed)
            judges = len(judging)
            trials = [(f"--seed={seed}", *setting, *more) for setting in settings]
            tables.append([train_and_judge(folder, judging, Path(place), t) for t in trials])
    mean, *others = (statistics.mean(column) for column in zip(*tables, strict=True))
    return {
        "title": sample.title,
        "classes": dict(sample.counts.values()),
        "judged_on": judges,
        "accuracy": [table[0] for table in tables],
        "mean": mean,
        "interval_95": list(wilson_interval(round(mean * judges), judges)),
        "bar": sample.bar,
        "best_of_search": max(others) if others else None,
    }


def write_sample(sample: Sample, dataset: Path, to: Path, seed: int) -> tuple[Path, Split]:
    """Write an unsplit data set as links, and return it with the images that judge it.

    Raises:
        DatasetError: fewer than ``MIN_JUDGES`` images are left to judge.
    """
    rng = np.random.default_rng(seed)
    class_names = tuple(sorted(folder for folder, _ in sample.counts.values()))
    paths, labels = [], []
    for name, (folder, count) in sample.counts.items():
        images = [
            path for split in ("train", "validation") for path in (dataset / split / name).iterdir()
        ]
        order = rng.permutation(len(images))
        (to / folder).mkdir(parents=True)
        for index in order[:count]:
            (to / folder / images[index].name).symlink_to(images[index].resolve())
        paths += [images[index] for index in order[count:]]
        labels += [class_names.index(folder)] * (len(images) - count)
    if len(paths) < MIN_JUDGES:
        raise DatasetError(f"{sample.title}: {len(paths)} images are left, {MIN_JUDGES} are needed")
    return to, Split(tuple(paths), np.array(labels, dtype=np.int64), class_names)


def train_and_judge(folder: Path, judging: Split, place: Path, options: tuple[str, ...]) -> float:
    """Train as a user does, in a process of its own, and return the accuracy on other images."""
    name = f"run{len(list(place.glob('runs/*')))}"
    command = [
        sys.executable, "-m", "training", "train", f"--dataset={folder}", f"--name={name}",
        f"--runs={place / 'runs'}", f"--cache={place / 'cache'}", *options,
    ]  # fmt: skip
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    subprocess.run(command, check=True, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": paths})
    probabilities = predict_split(load_model(place / "runs" / name), judging, quiet=True)
    return float(np.mean(probabilities.argmax(axis=1) == judging.labels))


def to_line(row: dict[str, Any]) -> str:
    """Return a row as one line for the terminal."""
    low, high = row["interval_95"]
    text = (
        f"{row['title']}: {row['mean']:.3f} ({low:.3f} to {high:.3f}) on {row['judged_on']} images"
    )
    if row["bar"] is not None:
        text += f", bar {row['bar']:.2f} {'reached' if row['mean'] >= row['bar'] else 'MISSED'}"
    if row["best_of_search"] is not None:
        lost = 100 * (row["best_of_search"] - row["mean"])
        text += f", {lost:.1f} points below the best of {len(SETTINGS)} settings"
    return text
