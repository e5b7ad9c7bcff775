"""`python -m training folds CONFIG...`: judge a recipe by people whom it has never seen.

Train and validation are pooled and divided into folds. With ``--groups senders.csv`` the images of
one sender stay in one fold. Each fold is judged by a model that was trained on the other folds.
Every fold is a run of its own, so an interrupted command continues with the missing ones. Several
configurations are stages: a stage whose ``start_from`` or ``teacher`` names an earlier stage uses
that stage of the same fold.

The judging images also choose the best epoch. That flatters all recipes alike.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.config import TrainConfig
from training.data.dataset import find_dataset
from training.data.folds import Fold, groups_of, load_parts
from training.data.imagenet import find_weights
from training.devices import has_gpu
from training.errors import ConfigError
from training.evaluation.loaded_model import load_model, predict_split
from training.evaluation.metrics import (
    Labels,
    Probabilities,
    interval_over_groups,
    summary,
)
from training.files import replacing, write_json
from training.fit.settings import make_config, read_toml
from training.fit.train import train
from training.options import add_options
from training.provenance import provenance

OUTPUT = Path("runs") / "folds"


@dataclasses.dataclass(frozen=True)
class Judged:
    """What the folds said of all images that they judged.

    Attributes:
        probabilities: float, (images, classes).
        labels: int64, (images,).
        folds: int64, (images,), the fold that judged each image.
        groups: of each image. Its own path, if there are no groups.
    """

    probabilities: Probabilities
    labels: Labels
    folds: NDArray[np.int64]
    groups: NDArray[np.str_]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """bool, (images,), whether the most probable class is the label."""
        return np.asarray(self.probabilities.argmax(axis=1) == self.labels)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("config", type=Path, nargs="+", help="TOML file of each stage, in order")
    parser.add_argument("--folds", type=int, default=5, help="number of folds. Default: 5")
    parser.add_argument(
        "--only", type=int, nargs="+", help="judge these folds alone, from 0: a screening"
    )
    parser.add_argument(
        "--against", type=Path, help="another result, judged on the same folds, to compare with"
    )
    add_options(parser, "groups", "limit", "dataset", "backbone-weights", "runs")
    parser.add_argument("--out", type=Path, default=OUTPUT, help=f"default: {OUTPUT}")


def run(parsed: argparse.Namespace) -> None:
    """Train the missing folds, and write and print the figures."""
    stages = [read_toml(file) for file in parsed.config]
    name = str(stages[-1].get("name", parsed.config[-1].stem))
    other = read_judged(parsed.against) if parsed.against else None  # before hours go by
    judged = judge(stages, parsed)
    result = describe(judged, parsed)
    if other:
        result["difference"] = compare(judged, other)
    figures, predictions = parsed.out / f"{name}.json", parsed.out / f"{name}.npz"
    write_judged(judged, predictions)
    write_json(figures, {**result, "provenance": provenance()})
    print(as_text(name, result))
    print(f"wrote {figures} and {predictions}")


def judge(stages: list[dict[str, Any]], parsed: argparse.Namespace) -> Judged:
    """Train every stage on every wanted fold, and let the last one judge.

    Args:
        stages: settings of each stage, as ``read_toml`` gives them.
        parsed: the options of the command line.

    Raises:
        ConfigError: a fold does not exist, or two stages have one name.
    """
    names = [str(stage.get("name", TrainConfig.name)) for stage in stages]
    if len(set(names)) < len(names):
        raise ConfigError(f"every stage needs a name of its own. Received: {', '.join(names)}")
    dataset, groups = find_dataset(parsed.dataset), str(parsed.groups or "")
    parts = []
    for index in parsed.only or range(parsed.folds):
        fold = Fold(index, parsed.folds, groups)
        training, judging = load_parts(dataset, limit=parsed.limit, fold=fold)
        for stage in stages:
            config = make_config(
                settings_of_fold(stage, names, fold), training.labels, gpu=has_gpu()
            )
            print(f"\n=== {config.name}", flush=True)
            folder = train(
                config,
                dataset=dataset,
                weights=find_weights(parsed.backbone_weights),
                runs=parsed.runs,
                limit=parsed.limit,
                fold=fold,
            )
        split = judging.split
        paths = [path.relative_to(dataset).as_posix() for path in split.paths]
        parts.append(
            Judged(
                predict_split(load_model(folder), split),
                split.labels,
                np.full(len(split), index),
                np.array(groups_of(split, dataset, Path(groups)) if groups else paths),
            )
        )
    return Judged(
        *(np.concatenate([getattr(part, field.name) for part in parts])
          for field in dataclasses.fields(Judged))
    )  # fmt: skip


def describe(judged: Judged, parsed: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of all judged images, as plain JSON types."""
    accuracies = {
        str(fold): round(float(judged.correct[judged.folds == fold].mean()), 4)
        for fold in np.unique(judged.folds)
    }
    edges = interval_over_groups(judged.groups, judged.correct.astype(float))
    return {
        "kind": "screening" if parsed.only else "final",
        "folds": parsed.folds,
        "groups": len(set(judged.groups)),
        "accuracy_of_folds": accuracies,
        "accuracy_mean_of_folds": round(float(np.mean(list(accuracies.values()))), 4),
        "accuracy_interval_95_over_groups": _rounded(edges),
        **summary(judged.probabilities, judged.labels),
    }


def compare(one: Judged, other: Judged) -> dict[str, Any]:
    """Return how much more often one recipe is right than another, on the same images.

    Raises:
        ConfigError: the two have judged different images.
    """
    if not (np.array_equal(one.labels, other.labels) and np.array_equal(one.groups, other.groups)):
        raise ConfigError(
            f"the two results have judged different images: {len(one.labels)} and "
            f"{len(other.labels)}. Use the same data set, --folds, --only and --groups for both."
        )
    gains = one.correct.astype(float) - other.correct.astype(float)
    return {
        "accuracy": round(float(gains.mean()), 4),
        "interval_95_over_groups": _rounded(interval_over_groups(one.groups, gains)),
    }


def as_text(name: str, result: dict[str, Any]) -> str:
    """Return the figures in a few lines."""
    low, high = result["accuracy_interval_95_over_groups"]
    folds = result["accuracy_of_folds"].values()
    lines = [
        f"{name} ({result['kind']}): mean accuracy {result['accuracy_mean_of_folds']:.4f} over "
        f"{len(folds)} of {result['folds']} folds, range {min(folds):.4f} to {max(folds):.4f}",
        f"{result['correct']} of {result['images']} images of {result['groups']} groups right: "
        f"{result['accuracy']:.4f}, 95 % interval over groups {low:.4f} to {high:.4f}, "
        f"macro-F1 {result['macro_f1']:.4f}, NLL {result['negative_log_likelihood']:.4f}",
    ]
    if difference := result.get("difference"):
        low, high = difference["interval_95_over_groups"]
        lines.append(
            f"more than the other: {difference['accuracy']:+.4f}, 95 % interval over groups "
            f"{low:+.4f} to {high:+.4f}"
        )
    return "\n".join(lines)


def write_judged(judged: Judged, file: Path) -> None:
    """Write what the folds said as an ``.npz``."""
    with replacing(file) as unfinished, unfinished.open("wb") as opened:
        np.savez_compressed(opened, allow_pickle=False, **dataclasses.asdict(judged))


def read_judged(file: Path) -> Judged:
    """Read what ``write_judged`` wrote.

    Raises:
        ConfigError: the file is missing or another one.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return Judged(**{name: arrays[name] for name in arrays.files})
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{file} is no result of `folds`: {error}. Name its .npz file") from error


def settings_of_fold(stage: dict[str, Any], names: list[str], fold: Fold) -> dict[str, Any]:
    """Return a stage's settings for one fold.

    Args:
        stage: its settings, as ``read_toml`` gives them.
        names: of all stages. A run of this name is one of the same fold.
        fold: that the names tell.
    """

    def in_fold(name: str) -> str:
        return f"{name}-fold{fold.index}of{fold.count}"

    def in_fold_if_stage(listed: str) -> str:
        used = [name.strip() for name in listed.split(",")]
        return ",".join(in_fold(name) if name in names else name for name in used)

    return {
        **stage,
        "name": in_fold(stage.get("name", TrainConfig.name)),
        "start_from": in_fold_if_stage(stage.get("start_from", "")),
        "teacher": in_fold_if_stage(stage.get("teacher", "")),
    }


def _rounded(edges: tuple[float, float]) -> list[float]:
    return [round(edge, 4) for edge in edges]
