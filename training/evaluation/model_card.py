"""`python -m training card FILE`: the figures of an evaluation as the tables of a model card.

FILE is the ``report.json`` of ``evaluate``, so nobody types a figure. A ``.tflite`` has no report
yet: its card says "not measured". ``--into MODEL_CARD.md`` puts the tables between two marks.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from training.errors import ModelFileError
from training.evaluation.loaded_model import load_model
from training.files import replace_marked, write_text

MARKS = ("<!-- figures:begin -->", "<!-- figures:end -->")
NOT_MEASURED = "not measured"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("file", type=Path, help="report.json of an evaluation, or a .tflite")
    parser.add_argument("--out", type=Path, help="write the tables to this file, too")
    parser.add_argument(
        "--into", type=Path, help=f"put the tables into this file, between {MARKS[0]} and end"
    )


def run(parsed: argparse.Namespace) -> None:
    """Print the tables and write them to the named files."""
    if parsed.file.suffix == ".tflite":
        text = card_without_figures(load_model(parsed.file).describe())
    else:
        text = card(_read(parsed.file))
    page = _fill(parsed.into, text) if parsed.into else ""  # may raise, so before any writing
    print(text)
    if parsed.out:
        write_text(parsed.out, text)
    if parsed.into:
        write_text(parsed.into, page)


def card(report: dict[str, Any]) -> str:
    """Return the figures of the report's first model as Markdown."""
    figures, images, origin = report["models"][0], report["images"], report["provenance"]
    model, summary = figures["model"], figures["metrics"]
    before = figures["metrics_before_temperature"]
    low, high = summary["accuracy_interval_95"]
    ece_low, ece_high = summary["expected_calibration_error_interval_95"]
    rows = [
        ("accuracy", f"{summary['accuracy']:.4f} ({summary['correct']} of {summary['images']})",
         f"{low:.4f} to {high:.4f}", ""),
        ("macro-F1", f"{summary['macro_f1']:.4f}", "", ""),
        ("expected calibration error", f"{summary['expected_calibration_error']:.4f}",
         f"{ece_low:.4f} to {ece_high:.4f}", _earlier(before, "expected_calibration_error")),
        ("negative log-likelihood", f"{summary['negative_log_likelihood']:.4f}", "",
         _earlier(before, "negative_log_likelihood")),
        ("Brier score", f"{summary['brier_score']:.4f}", "", _earlier(before, "brier_score")),
    ]  # fmt: skip
    lines = [
        f"{_describe(model)}, on {images['count']} images ({images['name']}); "
        f"{origin['date']}, commit {origin['commit']}.",
        "",
        f"| figure | value | 95 % interval | before temperature {model['temperature']:.3f} |",
        "| --- | --- | --- | --- |",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "| class | images | precision | recall (95 % interval) | F1 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in figures["per_class"]:
        low, high = row["recall_interval_95"]
        lines.append(
            f"| {row['label']} | {row['images']} | {row['precision']:.3f} | {row['recall']:.3f} "
            f"({low:.3f} to {high:.3f}) | {row['f1']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def card_without_figures(model: dict[str, Any]) -> str:
    """Return the tables of a model that nobody has evaluated.

    Args:
        model: from ``LoadedModel.describe``.
    """
    names = ("accuracy", "macro-F1", "expected calibration error", "negative log-likelihood",
             "Brier score")  # fmt: skip
    rows = [f"| {name} | {NOT_MEASURED} |" for name in names]
    return "\n".join([f"{_describe(model)}.", "", "| figure | value |", "| --- | --- |", *rows, ""])


def _describe(model: dict[str, Any]) -> str:
    return (
        f"{model['name']} {model['version']}, {model['kind']}, SHA-256 `{model['sha256']}`, "
        f"{model['size_bytes'] / 1e6:.1f} MB"
    )


def _read(file: Path) -> dict[str, Any]:
    """Read the report of an evaluation.

    Raises:
        ModelFileError: the file is missing, or is something else.
    """
    if not file.is_file():
        raise ModelFileError(f"no report at {file}: `evaluate` writes it")
    try:
        report = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{file} is not JSON: {error}") from error
    if not (isinstance(report, dict) and report.get("models") and "provenance" in report):
        raise ModelFileError(
            f"{file} is not the report of an evaluation: `python -m training evaluate MODEL` "
            "writes one (a run's own report.json is another)"
        )
    return report


def _fill(page: Path, text: str) -> str:
    if not page.is_file():
        raise ModelFileError(f"no file at {page} to put the figures into")
    try:
        return replace_marked(page.read_text(), MARKS, text.strip("\n"))
    except ValueError as error:
        raise ModelFileError(f"{page} has no place for the figures: {error}") from error


def _earlier(before: dict[str, Any] | None, key: str) -> str:
    return f"{before[key]:.4f}" if before else ""
