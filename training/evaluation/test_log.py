"""The test ledger: every scoring of an artifact on the test split, by the artifact's hash.

Test is for one look per release. The first scoring of a hash is written down; every later one
must repeat it, which makes scoring in CI a regression check.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lambda_function import REPOSITORY
from training.errors import TrainingError
from training.files import write_csv

LEDGER = REPOSITORY / "benchmarks" / "results" / "test_ledger.csv"
COLUMNS = (
    "sha256", "version", "date", "commit", "images", "correct", "accuracy", "low", "high",
    "macro_f1", "ece", "nll", "brier",
)  # fmt: skip
EXACT = ("images", "correct", "accuracy", "low", "high", "macro_f1")
# These follow the last digits of probabilities, which differ between processors' float
# arithmetic (see tests/serving/test_golden.py); ECE jumps when an image crosses a bin's edge.
TOLERANCES = {"ece": 0.005, "nll": 0.002, "brier": 0.002}


class LedgerError(TrainingError):
    """A scoring differs from the recorded one, or is not recorded and had to be."""


def entry(
    sha256: str, version: str, date: str, commit: str, summary: dict[str, Any]
) -> dict[str, str]:
    """Return one row of the ledger from ``metrics.summary``'s figures."""
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


def read(ledger: Path = LEDGER) -> list[dict[str, str]]:
    """Return the rows, oldest first; none where there is no ledger yet."""
    if not ledger.is_file():
        return []
    with ledger.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if rows and tuple(rows[0]) != COLUMNS:
        raise LedgerError(f"{ledger} has columns {tuple(rows[0])}; expected {COLUMNS}")
    return rows


def record(row: dict[str, str], ledger: Path = LEDGER, *, must_be_recorded: bool = False) -> str:
    """Append a new artifact's row, or compare a known one's with the record.

    Returns:
        A sentence that says which of the two was done.

    Raises:
        LedgerError: the figures differ from the recorded ones (nothing is written), or
            ``must_be_recorded`` and they are not there.
    """
    rows = read(ledger)
    known = next((old for old in rows if old["sha256"] == row["sha256"]), None)
    if known is not None:
        _compare(known, row)
        return f"as recorded on {known['date']} at {known['commit']}: {row['correct']} correct"
    if must_be_recorded:
        raise LedgerError(
            f"artifact {row['sha256'][:12]} is not in {ledger.name}. Score it once with "
            "`python -m training evaluate MODEL --split test` and commit the new row."
        )
    write_csv(ledger, COLUMNS, [*rows, row])
    return f"recorded as artifact {len(rows) + 1} in {ledger.name}"


def _compare(known: dict[str, str], row: dict[str, str]) -> None:
    different = [name for name in EXACT if known[name] != row[name]] + [
        name
        for name, tolerance in TOLERANCES.items()
        if abs(float(known[name]) - float(row[name])) > tolerance
    ]
    if different:
        shown = ", ".join(f"{name} {known[name]} -> {row[name]}" for name in different)
        raise LedgerError(
            f"artifact {row['sha256'][:12]} no longer scores as recorded on {known['date']}: "
            f"{shown}. Its bytes are the same, so the images or the code around it changed."
        )
