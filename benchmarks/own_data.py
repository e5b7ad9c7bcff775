"""What a team's own images give: default settings, a folder of class folders, one command.

    python -m benchmarks own-data --search --write
    python -m benchmarks own-data --quick        one small data set, one seed, two epochs

Data sets are sampled from train and validation of clothing-dataset-small, under other names. Each
is trained with ``python -m training train --dataset FOLDER`` and several seeds. The model is judged
on the images of the same classes that were not sampled, never on test. ``--search`` also trains
eight other settings with the first seed, and says how far the default is from the best of them.
The best of eight single runs is partly luck, so the comparison is harder than a fair one.

Every finished training is kept below ``--work``. An interrupted benchmark goes on with the missing
ones. ``--write`` keeps the rows of the data sets that were not asked for. A row names its commit.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import RESULTS, at_least_one, command_line, origin, write_result
from training.commands import main as run_training
from training.data.dataset import RUN_IMAGES, Split, find_dataset, load_split
from training.data.images import batches
from training.errors import DatasetError, TrainingError
from training.evaluation.loaded_model import load_model
from training.evaluation.metrics import wilson_interval
from training.files import read_json, write_json
from training.options import add_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

WORK = Path("runs") / "own-data"
SEEDS = 3
MIN_JUDGES, MAX_JUDGES = 300, 400  # images. More cost minutes and say little more
# The search: on either side of the defaults. The views are among those of the defaults, so that
# the cached activations serve the whole search.
SETTINGS: list[dict[str, Any]] = [
    {"learning_rate": rate, "views": views, "epochs": epochs}
    for rate, views, epochs in itertools.product((1e-4, 1e-3), (1, 4), (8, 24))
]
QUICK = {"size": 96, "epochs": 2, "views": 1}


@dataclasses.dataclass(frozen=True)
class Sample:
    """One team's data set.

    Attributes:
        title: of the row.
        counts: class of the public data set -> (folder name, images).
        bar: accuracy that the mean of the seeds must reach. None for no bar.
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
    "uneven": Sample(
        "one class ten times the other", {"pants": ("pants", 300), "shoes": ("shoes", 30)}
    ),
    "names": Sample(
        "names with spaces, umlauts and CJK",
        {"pants": ("lange Hose", 40), "shoes": ("Stöckelschuh", 40), "hat": ("帽子", 40)},
    ),
    "ten": Sample("10 classes of 100", {name: (name, 100) for name in TEN}),
}


def main(arguments: list[str]) -> None:
    """Train, judge, print and keep the result."""
    parser = command_line("own-data", __doc__)
    add_options(parser, "dataset")
    parser.add_argument("--samples", nargs="+", choices=SAMPLES, default=list(SAMPLES))
    parser.add_argument("--seeds", type=at_least_one, default=SEEDS, help=f"default {SEEDS}")
    parser.add_argument("--search", action="store_true", help="train eight other settings as well")
    parser.add_argument("--work", type=Path, default=WORK, help=f"folder; default {WORK}")
    parser.add_argument("--quick", action="store_true", help="one small run; keeps nothing")
    parser.add_argument("--write", action="store_true", help="benchmarks/results/own_data.json")
    options = parser.parse_args(arguments)
    pool, record = load_pool(find_dataset(options.dataset)), origin()
    names, seeds, work = options.samples, options.seeds, options.work
    more: dict[str, Any] = {}
    if options.quick:
        names, seeds, work, more = ["three"], 1, work / "quick", QUICK
    for name in names:
        trials = Trials(SAMPLES[name], pool, work / name, more)
        row = measure(SAMPLES[name], trials, seeds, search=options.search)
        row["commit"] = record["provenance"]["commit"]
        print(to_line(row), flush=True)
        if options.write and not options.quick:
            write_result("own_data", {**record, "rows": with_row(RESULTS / "own_data.json", row)})


def measure(sample: Sample, trials: Trials, seeds: int, *, search: bool) -> dict[str, Any]:
    """Train one sample with every seed and return its row as plain JSON types.

    Args:
        sample: the data set.
        trials: of this data set.
        seeds: runs, each with another sample and another seed.
        search: train ``SETTINGS`` as well, with seed 0.
    """
    accuracy = [trials.accuracy(seed) for seed in range(seeds)]
    others = [trials.accuracy(0, setting) for setting in SETTINGS] if search else []
    mean, judges = statistics.mean(accuracy), trials.judges
    return {
        "title": sample.title,
        "classes": dict(sample.counts.values()),
        "judged_on": judges,
        "accuracy": accuracy,
        "mean": mean,
        "interval_95": list(wilson_interval(round(mean * judges), judges)),
        "bar": sample.bar,
        "search": [
            {**setting, "accuracy": value} for setting, value in zip(SETTINGS, others, strict=False)
        ],
        "best_of_search": max(others) if others else None,
    }


def with_row(file: Path, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a result with one more or another one, in the order of ``SAMPLES``."""
    old = read_json(file)["rows"] if file.is_file() else []
    rows = {one["title"]: one for one in [*old, row]}
    return [rows[sample.title] for sample in SAMPLES.values() if sample.title in rows]


class Trials:
    """The trainings of one data set. Each is made once, and its accuracy kept."""

    def __init__(
        self,
        sample: Sample,
        pool: Split,
        place: Path,
        more: Mapping[str, Any] | None = None,
        *,
        train_run: Callable[[Path, Mapping[str, Any], Path, Path], None] | None = None,
        predict: Callable[[Path, Split], list[str]] | None = None,
    ) -> None:
        """Make no file yet.

        Args:
            sample: the data set.
            pool: the public data set, see ``load_pool``.
            place: folder of this data set. Beside it stands the cache of all data sets.
            more: further settings of every training.
            train_run: stands for ``train``.
            predict: stands for ``predict_labels``.
        """
        self._train, self._predict = train_run or train, predict or predict_labels
        self._sample, self._more = sample, more or {}
        self._place, self._cache = place.absolute(), place.absolute().parent / "cache"
        self._pool = pool
        self.judges = len(choose_images(sample, pool, seed=0)[1])

    def accuracy(self, seed: int, setting: Mapping[str, Any] | None = None) -> float:
        """Return the accuracy of one training on the images that it has not seen.

        Args:
            seed: of the sample and of the training.
            setting: settings of ``python -m training train``. None for a user's defaults.
        """
        place, setting = self._place / f"seed{seed}", setting or {}
        name = "-".join(map(str, setting.values())) or "default"
        result = place / f"{name}.json"
        if result.is_file():
            return float(read_json(result)["accuracy"])
        chosen, judging = choose_images(self._sample, self._pool, seed)
        images = place / "own images"
        link_images(self._pool.subset(chosen), self._sample, images)
        split = place / "runs" / "default" / RUN_IMAGES  # the default has split them
        given = {"seed": seed, "name": name, **setting, **self._more}
        self._train(split if setting else images, given, place / "runs", self._cache)
        judges = self._pool.subset(judging)
        predicted = self._predict(place / "runs" / name / "model.keras", judges)
        folders = [folder_of(self._sample, label) for label in judges.labels]
        accuracy = float(np.mean([p == f for p, f in zip(predicted, folders, strict=True)]))
        write_json(result, {"accuracy": accuracy})
        return accuracy


def load_pool(dataset: Path) -> Split:
    """Return the train and validation images of the public data set as one split."""
    parts = [load_split(dataset, name, TEN) for name in ("train", "validation")]
    paths = tuple(path for part in parts for path in part.paths)
    return Split(paths, np.concatenate([part.labels for part in parts]), TEN)


def choose_images(
    sample: Sample, pool: Split, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which images of the pool the team has, and which judge its model.

    Returns:
        int64, (images,) each, index into the pool.

    Raises:
        DatasetError: fewer than ``MIN_JUDGES`` images are left to judge.
    """
    rng = np.random.default_rng(seed)
    chosen, judging = [], []
    for name, (_, count) in sample.counts.items():
        order = rng.permutation(np.flatnonzero(pool.labels == pool.class_names.index(name)))
        chosen.append(order[:count])
        judging.append(order[count:])
    left = np.concatenate(judging)
    if len(left) < MIN_JUDGES:
        raise DatasetError(f"{sample.title}: {len(left)} images are left, {MIN_JUDGES} are needed")
    return np.concatenate(chosen), rng.permutation(left)[:MAX_JUDGES]


def link_images(chosen: Split, sample: Sample, to: Path) -> None:
    """Write an unsplit data set of links, one folder per class, under the team's names."""
    for path, label in zip(chosen.paths, chosen.labels, strict=True):
        folder = to / folder_of(sample, label)
        folder.mkdir(parents=True, exist_ok=True)
        link = folder / path.name
        if not link.is_symlink():
            link.symlink_to(path.resolve())


def folder_of(sample: Sample, label: int) -> str:
    """Return the team's name of a class."""
    return sample.counts[TEN[label]][0]


def train(dataset: Path, settings: Mapping[str, Any], runs: Path, cache: Path) -> None:
    """Train as a user does.

    Raises:
        TrainingError: the training failed. It has said why.
    """
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    words = [f"--dataset={dataset}", f"--runs={runs}", f"--cache={cache}", *options]
    if run_training(["train", *words]):
        raise TrainingError(f"the training {' '.join(words)} failed. Its own message is above")


def predict_labels(file: Path, judges: Split) -> list[str]:
    """Return the label that a model gives to every image of a split.

    Args:
        file: ``model.keras`` of a run.
        judges: the images.
    """
    model = load_model(file)
    best = [model.predict_proba(batch).argmax(axis=1) for batch in batches(judges, model.input)]
    return [model.labels[index] for index in np.concatenate(best)]


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
