"""`python -m training tune`: search learning rate, inner layer and dropout on cached activations.

The course's three searches by default (steps 3, 5 and 6: eleven trials, 190 epochs), or any grid:
``tune --grid learning_rate=1e-3,1e-2 dropout=0,0.5 --epochs 20``. Trials live in an Optuna study
in SQLite; an interrupted search goes on with the trials that are missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np

from training.config import fingerprint
from training.data.dataset import find_dataset
from training.errors import ConfigError
from training.evaluation.metrics import wilson_interval
from training.files import write_csv, write_json, write_text
from training.options import add_dataset_option, add_limit_option, add_weights_option
from training.provenance import command, provenance

OUTPUT = Path("runs") / "tune"
COURSE = ("learning-rate", "inner", "dropout")
GRID_EPOCHS = 10
_TYPES = {"learning_rate": float, "inner_units": int, "dropout": float, "batch_size": int}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("searches", nargs="*", metavar="SEARCH", help=f"of {COURSE}; default: all")
    parser.add_argument(
        "--grid",
        nargs="+",
        metavar="NAME=V1,V2",
        help=f"search these values instead; names: {', '.join(_TYPES)}",
    )
    parser.add_argument(
        "--epochs", type=int, default=0,
        help=f"per trial; default: the course's, or {GRID_EPOCHS} of a --grid",
    )  # fmt: skip
    parser.add_argument("--size", type=int, default=150, help="input height and width, pixels")
    add_limit_option(parser)
    parser.add_argument("--seed", type=int, default=0)
    add_dataset_option(parser)
    add_weights_option(parser)
    parser.add_argument("--out", type=Path, default=OUTPUT, help=f"default: {OUTPUT}")
    parser.add_argument("--results", type=Path, help="also write each search's JSON to this folder")


def run(parsed: argparse.Namespace) -> None:
    """Search as the command line says, and write tables and plots."""
    from lambda_function.metadata import InputSpec
    from training.data.imagenet import find_weights
    from training.fit.heads import pooled_features

    searches = _searches(parsed)
    started = time.monotonic()
    features = pooled_features(
        find_dataset(parsed.dataset),
        InputSpec(parsed.size, parsed.size),
        weights=find_weights(parsed.backbone_weights),
        limit=parsed.limit,
        seed=parsed.seed,
    )
    for name, search in searches.items():
        changed = {"seed": parsed.seed} | ({"epochs": parsed.epochs} if parsed.epochs else {})
        trials = [dataclasses.replace(trial, **changed) for trial in search["trials"]]
        rows = search_heads(features, name, trials, parsed.out)
        report(
            name, search, rows, features, parsed.out, parsed.results,
            command=command(
                f"python -m training tune {_words(name, parsed)}", parsed,
                epochs=0, size=150, limit=0, seed=0,
            ),
        )  # fmt: skip
    print(f"\n{features.seconds:.0f} s for features, {time.monotonic() - started:.0f} s in all")


def _words(name: str, parsed: argparse.Namespace) -> str:
    return f"--grid {' '.join(parsed.grid)}" if parsed.grid else name


def search_heads(features: Any, name: str, trials: list[Any], folder: Path) -> list[dict[str, Any]]:
    """Train every trial that the study does not hold yet.

    Args:
        features: ``heads.PooledFeatures``.
        name: of the search.
        trials: ``heads.HeadConfig`` each.
        folder: where ``study.db`` is, or will be.

    Returns:
        One row per trial, in the order of ``trials``: ``config``, ``history``, ``seconds``.
    """
    import optuna
    from tqdm import tqdm

    from training.fit.heads import train_head

    choices = {
        field: sorted({getattr(trial, field) for trial in trials})
        for field in dataclasses.asdict(trials[0])
    }
    study = _open_study(f"{name}-{_identity(features, choices)}", folder)
    with tqdm(total=sum(trial.epochs for trial in trials), desc=name, unit="epoch") as bar:
        for config in trials:
            if (known := _finished(study).get(fingerprint(dataclasses.asdict(config)))) is not None:
                bar.update(known["config"]["epochs"])
                continue
            study.enqueue_trial(dataclasses.asdict(config))
            trial = study.ask()
            for field, values in choices.items():
                trial.suggest_categorical(field, values)  # the enqueued one
            started = time.monotonic()
            _, history = train_head(features, config, on_epoch_end=bar.update)
            trial.set_user_attr("config", dataclasses.asdict(config))
            trial.set_user_attr("history", history)
            trial.set_user_attr("seconds", round(time.monotonic() - started, 2))
            study.tell(trial, max(history["val_accuracy"]), optuna.trial.TrialState.COMPLETE)
    finished = _finished(study)
    return [finished[fingerprint(dataclasses.asdict(config))] for config in trials]


def leaderboard(rows: list[dict[str, Any]], images: int) -> list[dict[str, Any]]:
    """Return a table's rows, best first: hyper-parameters, best epoch, accuracy and interval."""
    table = []
    for row in rows:
        accuracies = row["history"]["val_accuracy"]
        best = max(accuracies)
        low, high = wilson_interval(round(best * images), images)
        table.append(
            {
                **{name: row["config"][name] for name in _TYPES},
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
    name: str,
    search: dict[str, Any],
    rows: list[dict[str, Any]],
    features: Any,
    folder: Path,
    results: Path | None,
    *,
    command: str,
) -> None:
    """Write a search's leaderboard (Markdown, CSV), curves and comparison; print the first."""
    from training.experiments.plots import comparison, learning_curves

    images = len(features.validation_labels)
    table = leaderboard(rows, images)
    base = f"frozen base: blocks 1-{features.block} at {features.size[0]} px"
    title = f"{search['title']} ({base})"
    text = f"# {title}\n\n{images} validation images, 95 % Wilson intervals.\n\n" + markdown(table)
    write_text(folder / name / "leaderboard.md", text)
    write_csv(folder / name / "leaderboard.csv", list(table[0]), table)
    names = [_short(row["config"], search["field"]) for row in rows]
    histories = dict(zip(names, (row["history"] for row in rows), strict=True))
    best = {key: max(history["val_accuracy"]) for key, history in histories.items()}
    course = dict(zip(names, search["course"], strict=True)) if search["course"] else None
    learning_curves(folder / name / "curves.png", histories, title)
    comparison(
        folder / name / "comparison.png",
        best,
        title,
        intervals={k: wilson_interval(round(v * images), images) for k, v in best.items()},
        reference=course,
    )
    print(f"\n{text}\nwrote {folder / name}/: leaderboard.md, leaderboard.csv, 2 plots")
    if results:
        write_json(
            results / f"{name}.json",
            {
                "title": search["title"],
                "command": command,
                "frozen_blocks": features.block,
                "size": list(features.size),
                "validation_images": images,
                "ours": {key: round(value, 4) for key, value in best.items()},
                "course": course,
                "leaderboard": table,
                "provenance": provenance(),
            },
        )


def markdown(table: list[dict[str, Any]]) -> str:
    """Return rows of equal keys as a Markdown table."""
    lines = ["| " + " | ".join(name.replace("_", " ") for name in table[0]) + " |"]
    lines.append("| " + " | ".join("---" for _ in table[0]) + " |")
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in table]
    return "\n".join(lines) + "\n"


def parse_grid(definitions: list[str], epochs: int) -> list[Any]:
    """Return one ``HeadConfig`` per combination of ``name=value,value`` definitions.

    Raises:
        ConfigError: an unknown name, or a value that is no number.
    """
    from training.fit.heads import HeadConfig

    values: dict[str, list[Any]] = {}
    for definition in definitions:
        name, _, listed = definition.partition("=")
        if name not in _TYPES or not listed:
            raise ConfigError(
                f"a grid is NAME=VALUE,VALUE with a name of {tuple(_TYPES)}. Received: {definition}"
            )
        try:
            values[name] = [_TYPES[name](value) for value in listed.split(",")]
        except ValueError as error:
            raise ConfigError(f"the grid's {name} must be numbers. Received: {listed}") from error
    combinations = itertools.product(*values.values())
    return [
        HeadConfig(epochs=epochs, **dict(zip(values, combination, strict=True)))
        for combination in combinations
    ]


def _searches(parsed: argparse.Namespace) -> dict[str, dict[str, Any]]:
    from training.experiments.course_figures import EXPERIMENTS

    if parsed.grid:
        trials = parse_grid(parsed.grid, parsed.epochs or GRID_EPOCHS)
        title = f"Grid over {', '.join(d.partition('=')[0] for d in parsed.grid)}"
        return {"grid": {"title": title, "field": None, "trials": trials, "course": None}}
    for name in parsed.searches:
        if name not in EXPERIMENTS:
            raise ConfigError(f"a search is one of {COURSE}, or --grid. Received: {name!r}")
    return {name: EXPERIMENTS[name] for name in parsed.searches or COURSE}


def _identity(features: Any, choices: dict[str, list[Any]]) -> str:
    """Name what a study depends on: other images or another grid are another study."""
    digest = hashlib.sha256()
    for array in (
        *features.training,
        features.training_labels,
        features.validation,
        features.validation_labels,
    ):
        digest.update(np.ascontiguousarray(array).tobytes())
    return fingerprint(
        {
            "choices": choices,
            "size": list(features.size),
            "block": features.block,
            "features_and_labels": digest.hexdigest(),
        }
    )


def _open_study(name: str, folder: Path) -> Any:
    """Open or create a study; trials that a kill left running are marked as failed."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'study.db'}",
        study_name=name,
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    unfinished = (optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.WAITING)
    for trial in study.get_trials(deepcopy=False, states=unfinished):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
    return study


def _finished(study: Any) -> dict[str, dict[str, Any]]:
    import optuna

    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    return {fingerprint(trial.user_attrs["config"]): trial.user_attrs for trial in complete}


def _short(config: dict[str, Any], field: str | None) -> str:
    if field:
        return f"{config[field]:g}"
    return ", ".join(f"{name.split('_')[0]} {config[name]:g}" for name in _TYPES)
