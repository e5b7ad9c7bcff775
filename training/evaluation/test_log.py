"""The test log: the score of every artifact on the test split, by the artifact's SHA-256.

The test set is for one look per release. The first score of an artifact becomes a row. Every
later score of the same bytes must repeat that row, so scoring in CI is a regression check.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lambda_function import REPOSITORY
from training.errors import TestLogError
from training.files import write_csv

RELEASED_NAME = "clothing-xception"  # of this project's own model, by its metadata
RELEASE_LOG = REPOSITORY / "benchmarks" / "results" / "test_log.csv"
COLUMNS = (
    "sha256", "version", "date", "commit", "images", "correct", "accuracy", "low", "high",
    "macro_f1", "ece", "nll", "brier",
)  # fmt: skip
EXACT = ("images", "correct", "accuracy", "low", "high", "macro_f1")
# These follow the last digits of probabilities. Processors differ in those (see
# tests/serving/test_golden.py), and ECE jumps when an image crosses the edge of a bin.
TOLERANCES = {"ece": 0.005, "nll": 0.002, "brier": 0.002}


def log_of(model: Path, name: str) -> Path:
    """Return the file of the log that an artifact belongs to.

    Args:
        model: the artifact. The log of anybody's own model lies beside it.
        name: from the artifact's metadata. This project's own model has the log of its releases.
    """
    return RELEASE_LOG if name == RELEASED_NAME else model.with_suffix(".test_log.csv")


def log_row(
    sha256: str, version: str, date: str, commit: str, summary: dict[str, Any]
) -> dict[str, str]:
    """Return one row of the log from the figures of ``metrics.summary``."""
    low, high = summary["accuracy_interval_95"]
    figures = {
        "accuracy": summary["accuracy"],
        "low": low,
        "high": high,
        "macro_f1": summary["macro_f1"],
        "ece": summary["expected_calibration_error"],
        "nll": summary["negative_log_likelihood"],
        "brier": summary["brier_score"],
    }
    return {
        "sha256": sha256,
        "version": version,
        "date": date,
        "commit": commit,
        "images": str(summary["images"]),
        "correct": str(summary["correct"]),
        **{name: f"{value:.6f}" for name, value in figures.items()},
    }


def read(log: Path = RELEASE_LOG) -> list[dict[str, str]]:
    """Return the rows, oldest first. A log that does not exist yet has none.

    Raises:
        TestLogError: the file has other columns.
    """
    if not log.is_file():
        return []
    with log.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if rows and tuple(rows[0]) != COLUMNS:
        raise TestLogError(f"{log} has columns {tuple(rows[0])}; expected {COLUMNS}")
    return rows


def record(row: dict[str, str], log: Path, *, must_be_recorded: bool = False) -> str:
    """Append the row of a new artifact, or compare a known artifact with its row.

    Args:
        row: from ``log_row``.
        log: the file, see ``log_of``.
        must_be_recorded: refuse an artifact that the log does not hold.

    Returns:
        A sentence that says what happened.

    Raises:
        TestLogError: the figures differ from the recorded ones, or the artifact must be recorded
            and is not. Nothing is written then.
    """
    rows = read(log)
    known = next((old for old in rows if old["sha256"] == row["sha256"]), None)
    if known is not None:
        _compare(known, row)
        return f"as recorded on {known['date']} at {known['commit']}: {row['correct']} correct"
    if must_be_recorded:
        raise TestLogError(
            f"artifact {row['sha256'][:12]} is not in {log.name}. Score it once with "
            "`python -m training evaluate MODEL --split test` and commit the new row."
        )
    write_csv(log, COLUMNS, [*rows, row])
    return f"recorded as artifact {len(rows) + 1} in {log.name}"


def _compare(known: dict[str, str], row: dict[str, str]) -> None:
    different = [name for name in EXACT if known[name] != row[name]] + [
        name
        for name, tolerance in TOLERANCES.items()
        if abs(float(known[name]) - float(row[name])) > tolerance
    ]
    if different:
        shown = ", ".join(f"{name} {known[name]} -> {row[name]}" for name in different)
        raise TestLogError(
            f"artifact {row['sha256'][:12]} no longer scores as recorded on {known['date']}: "
            f"{shown}. Its bytes are the same, so the images or the code around it changed."
        )
