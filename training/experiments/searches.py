"""The course's searches (steps 3, 5 and 6): eleven trials of the head, 190 epochs in all.

Trials share the cached activations of the frozen base, so each takes seconds. Every finished trial
is a file below ``trials/``, and an interrupted search continues with the missing ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from training.config import fingerprint
from training.evaluation.metrics import wilson_interval
from training.experiments.course_figures import Search
from training.experiments.heads import HeadConfig, PooledFeatures, train_head
from training.experiments.plots import learning_curves
from training.files import markdown_table, read_json, write_json, write_text

SHOWN_SETTINGS = ("learning_rate", "inner_units", "dropout", "batch_size")


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
    with tqdm(total=sum(trial.epochs for trial in trials), unit="epoch", disable=None) as bar:
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
            rows.append(read_json(file))
    return rows


def leaderboard(rows: list[dict[str, Any]], images: int) -> list[dict[str, Any]]:
    """Return the trials, best first: settings, accuracy of the best epoch and its interval.

    Args:
        rows: see ``run_trials``.
        images: number of validation images.
    """
    table = []
    for row in rows:
        accuracies = row["history"]["val_accuracy"]
        best = max(accuracies)
        low, high = wilson_interval(round(best * images), images)
        table.append(
            {
                **{name: row["config"][name] for name in SHOWN_SETTINGS},
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
    """Write leaderboard and plot, print the leaderboard, and return the figures as JSON types.

    Args:
        search: what was tried.
        rows: its trials, see ``run_trials``.
        features: that they were trained on.
        folder: to write to.
    """
    images = len(features.validation_labels)
    table = leaderboard(rows, images)
    title = f"{search.title} (frozen base at {features.size[0]} px)"
    text = f"# {title}\n\n{images} validation images, 95 % Wilson intervals.\n\n"
    text += markdown_table(
        [name.replace("_", " ") for name in table[0]], [[*row.values()] for row in table]
    )
    write_text(folder / "leaderboard.md", text)
    histories = {f"{row['config'][search.field]:g}": row["history"] for row in rows}
    learning_curves(folder / "curves.png", histories, title)
    print(f"\n{text}\nwrote {folder}/leaderboard.md and curves.png")
    return {
        "size": list(features.size),
        "validation_images": images,
        "ours": {n: round(max(history["val_accuracy"]), 4) for n, history in histories.items()},
        "course": dict(zip(histories, search.course, strict=True)),
        "leaderboard": table,
    }


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
