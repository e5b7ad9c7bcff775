"""`python -m training tune`: search learning rate, inner layer and dropout of the head.

The default is the course's three searches (steps 3, 5 and 6: eleven trials, 190 epochs). Any grid
works: ``tune --grid learning_rate=1e-3,1e-2 dropout=0,0.5 --epochs 20``. Trials share the cached
activations of the frozen base, so each takes seconds. Every finished trial is a file below
``trials/``, and an interrupted search continues with the missing ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lambda_function.metadata import InputSpec
from training.config import fingerprint
from training.data.dataset import find_dataset
from training.data.imagenet import find_weights
from training.errors import ConfigError
from training.evaluation.metrics import wilson_interval
from training.experiments.course_figures import SEARCHES, Search
from training.experiments.head_run import write_head_run
from training.experiments.heads import HeadConfig, PooledFeatures, pooled_features, train_head
from training.experiments.plots import comparison, learning_curves
from training.files import markdown_table, write_csv, write_json, write_text
from training.options import add_dataset_option, add_limit_option, add_weights_option
from training.provenance import command, provenance

OUTPUT = Path("runs") / "tune"
GRID_EPOCHS = 10
TYPES = {"learning_rate": float, "inner_units": int, "dropout": float, "batch_size": int}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "searches", nargs="*", metavar="SEARCH", help=f"of {', '.join(SEARCHES)}. Default: all"
    )
    parser.add_argument(
        "--grid",
        nargs="+",
        metavar="NAME=V1,V2",
        help=f"search these values instead. Names: {', '.join(TYPES)}",
    )
    parser.add_argument(
        "--epochs", type=int, default=0,
        help=f"per trial. Default: the course's, or {GRID_EPOCHS} with --grid",
    )  # fmt: skip
    parser.add_argument("--size", type=int, default=150, help="input height and width, pixels")
    add_limit_option(parser)
    parser.add_argument("--seed", type=int, default=0)
    add_dataset_option(parser)
    add_weights_option(parser)
    parser.add_argument("--out", type=Path, default=OUTPUT, help=f"default: {OUTPUT}")
    parser.add_argument("--results", type=Path, help="write each search's JSON here, too")


def run(parsed: argparse.Namespace) -> None:
    """Search, and write tables, plots and a run folder with the best trial's model."""
    searches = _searches(parsed)
    started = time.monotonic()
    dataset, weights = find_dataset(parsed.dataset), find_weights(parsed.backbone_weights)
    features = pooled_features(
        dataset,
        InputSpec(parsed.size, parsed.size),
        weights=weights,
        limit=parsed.limit,
        seed=parsed.seed,
    )
    for name, search in searches.items():
        rows = run_trials(features, trials_of(search, parsed), parsed.out)
        words = f"--grid {' '.join(parsed.grid)}" if parsed.grid else name
        asked = command(
            f"python -m training tune {words}", parsed, epochs=0, size=150, limit=0, seed=0
        )
        folder = parsed.out / name
        result = report(search, rows, features, folder)
        if parsed.results:
            write_json(parsed.results / f"{name}.json", {"command": asked, **result})
        best = max(rows, key=lambda row: max(row["history"]["val_accuracy"]))
        config = HeadConfig(**best["config"])
        head, history = train_head(features, config, keep_best=True)
        write_head_run(folder, features, config, head, history, weights=weights, dataset=dataset)
    print(f"\n{features.seconds:.0f} s for features, {time.monotonic() - started:.0f} s in all")


def trials_of(search: Search, parsed: argparse.Namespace) -> list[HeadConfig]:
    """Return the trials of a search with the seed and the epochs of the command line."""
    changed = {"seed": parsed.seed} | ({"epochs": parsed.epochs} if parsed.epochs else {})
    return [HeadConfig(**{**settings, **changed}) for settings in search.trials]


def run_trials(
    features: PooledFeatures, trials: list[HeadConfig], folder: Path
) -> list[dict[str, Any]]:
    """Train every trial that has no file yet.

    Args:
        features: of the frozen base.
        trials: one head each.
        folder: holds ``trials/``.

    Returns:
        One row per trial, in the order of ``trials``: ``config``, ``history``, ``seconds``.
    """
    images = _features_sha256(features)
    rows = []
    with tqdm(total=sum(trial.epochs for trial in trials), unit="epoch") as bar:
        for config in trials:
            settings = dataclasses.asdict(config)
            file = folder / "trials" / f"{fingerprint([images, settings])}.json"
            if file.is_file():
                bar.update(config.epochs)
            else:
                started = time.monotonic()
                _, history = train_head(features, config, on_epoch_end=bar.update)
                seconds = round(time.monotonic() - started, 2)
                write_json(file, {"config": settings, "history": history, "seconds": seconds})
            rows.append(json.loads(file.read_text()))
    return rows


def leaderboard(rows: list[dict[str, Any]], images: int) -> list[dict[str, Any]]:
    """Return the trials, best first: settings, accuracy of the best epoch and its interval."""
    table = []
    for row in rows:
        accuracies = row["history"]["val_accuracy"]
        best = max(accuracies)
        low, high = wilson_interval(round(best * images), images)
        table.append(
            {
                **{name: row["config"][name] for name in TYPES},
                "best_validation_accuracy": round(best, 4),
                "low": round(low, 4),
                "high": round(high, 4),
                "best_epoch": accuracies.index(best) + 1,
                "epochs": len(accuracies),
                "training_accuracy": round(row["history"]["accuracy"][accuracies.index(best)], 4),
                "seconds": row["seconds"],
            }
        )
    return sorted(table, key=lambda row: -row["best_validation_accuracy"])


def report(
    search: Search, rows: list[dict[str, Any]], features: PooledFeatures, folder: Path
) -> dict[str, Any]:
    """Write leaderboard and plots, print the leaderboard, and return the result's JSON."""
    images = len(features.validation_labels)
    table = leaderboard(rows, images)
    title = f"{search.title} (frozen base at {features.size[0]} px)"
    text = f"# {title}\n\n{images} validation images, 95 % Wilson intervals.\n\n"
    text += markdown_table(
        [name.replace("_", " ") for name in table[0]], [[*row.values()] for row in table]
    )
    write_text(folder / "leaderboard.md", text)
    write_csv(folder / "leaderboard.csv", list(table[0]), table)
    histories = {_name(row["config"], search.field): row["history"] for row in rows}
    best = {name: max(history["val_accuracy"]) for name, history in histories.items()}
    course = dict(zip(histories, search.course, strict=True)) if search.course else None
    intervals = {k: wilson_interval(round(v * images), images) for k, v in best.items()}
    learning_curves(folder / "curves.png", histories, title)
    comparison(folder / "comparison.png", best, title, intervals=intervals, reference=course)
    print(f"\n{text}\nwrote {folder}/: leaderboard.md, leaderboard.csv, 2 plots")
    return {
        "title": search.title,
        "size": list(features.size),
        "validation_images": images,
        "ours": {name: round(value, 4) for name, value in best.items()},
        "course": course,
        "leaderboard": table,
        "provenance": provenance(),
    }


def parse_grid(definitions: list[str], epochs: int) -> Search:
    """Return one trial per combination of ``name=value,value`` definitions.

    Raises:
        ConfigError: an unknown name, a value that is no number, or a value out of range.
    """
    values: dict[str, list[Any]] = {}
    for definition in definitions:
        name, _, listed = definition.partition("=")
        if name not in TYPES or not listed:
            raise ConfigError(
                f"a grid is NAME=VALUE,VALUE with a name of {tuple(TYPES)}. Received: {definition}"
            )
        try:
            values[name] = [TYPES[name](value) for value in listed.split(",")]
        except ValueError as error:
            raise ConfigError(f"the grid's {name} must be numbers. Received: {listed}") from error
    trials = [
        {"epochs": epochs, **dict(zip(values, combination, strict=True))}
        for combination in itertools.product(*values.values())
    ]
    for settings in trials:
        HeadConfig(**settings)
    return Search(f"Grid over {', '.join(values)}", "", trials, [])


def _searches(parsed: argparse.Namespace) -> dict[str, Search]:
    if parsed.grid:
        return {"grid": parse_grid(parsed.grid, parsed.epochs or GRID_EPOCHS)}
    for name in parsed.searches:
        if name not in SEARCHES:
            raise ConfigError(
                f"a search is one of {tuple(SEARCHES)}, or --grid. Received: {name!r}"
            )
    return {name: SEARCHES[name] for name in parsed.searches or SEARCHES}


def _features_sha256(features: PooledFeatures) -> str:
    """Return the SHA-256 of all features and labels. Other images give other trials."""
    digest = hashlib.sha256()
    for array in (
        *features.training,
        features.training_labels,
        features.validation,
        features.validation_labels,
    ):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _name(config: dict[str, Any], field: str) -> str:
    if field:
        return f"{config[field]:g}"
    return ", ".join(f"{name.split('_')[0]} {config[name]:g}" for name in TYPES)
