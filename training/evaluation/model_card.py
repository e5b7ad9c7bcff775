"""`python -m training card FILE`: the figures of an evaluation as the tables of a model card.

FILE is the ``report.json`` of ``evaluate``, so nobody types a figure. A ``.tflite`` has no report
yet: its card says "not measured". ``--into MODEL_CARD.md`` puts the tables between two marks.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from training.errors import ModelFileError
from training.evaluation.loaded_model import load_model
from training.files import markdown_table, read_json, replace_marked, write_text

MARKS = ("<!-- figures:begin -->", "<!-- figures:end -->")
NOT_MEASURED = "not measured"
METRICS = {
    "accuracy": "accuracy",
    "macro-F1": "macro_f1",
    "expected calibration error": "expected_calibration_error",
    "negative log-likelihood": "negative_log_likelihood",
    "Brier score": "brier_score",
}


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


def card(report: dict[str, Any], index: int = 0) -> str:
    """Return the figures of one model as Markdown.

    Args:
        report: the contents of ``report.json``.
        index: of the model in the report.
    """
    figures, images, origin = report["models"][index], report["images"], report["provenance"]
    model, summary = figures["model"], figures["metrics"]
    before = figures["metrics_before_temperature"] or {}
    rows = []
    for name, key in METRICS.items():
        value = f"{summary[key]:.4f}"
        if key == "accuracy":
            value += f" ({summary['correct']} of {summary['images']})"
        interval = " to ".join(f"{edge:.4f}" for edge in summary.get(f"{key}_interval_95", ()))
        scaled = key not in ("accuracy", "macro_f1") and key in before
        rows.append([name, value, interval, f"{before[key]:.4f}" if scaled else ""])
    classes = [
        [
            row["label"],
            row["images"],
            f"{row['precision']:.3f}",
            "{:.3f} ({:.3f} to {:.3f})".format(row["recall"], *row["recall_interval_95"]),
            f"{row['f1']:.3f}",
        ]
        for row in figures["per_class"]
    ]
    temperature = f"before temperature {model['temperature']:.3f}"
    return (
        f"{_describe(model)}, on {images['count']} images ({images['name']}); "
        f"{origin['date']}, commit {origin['commit']}.\n\n"
        + markdown_table(["figure", "value", "95 % interval", temperature], rows)
        + "\n"
        + markdown_table(["class", "images", "precision", "recall (95 % interval)", "F1"], classes)
        + _groups(figures)
    )


def card_without_figures(model: dict[str, Any]) -> str:
    """Return the tables of a model that nobody has evaluated.

    Args:
        model: from ``LoadedModel.describe``.
    """
    rows = [[name, NOT_MEASURED] for name in METRICS]
    return f"{_describe(model)}.\n\n" + markdown_table(["figure", "value"], rows)


def _groups(figures: dict[str, Any]) -> str:
    """Return the table of groups, such as people. Empty if the report has none."""
    groups, summary = figures.get("per_group"), figures["metrics"]
    if not groups:
        return ""
    whole = {**summary, "accuracy_interval_95": groups["accuracy_interval_95"]}
    whole["group"] = f"all {groups['count']}, drawn as wholes"
    rows = [
        [
            row["group"],
            row["images"],
            row["correct"],
            "{:.3f} ({:.3f} to {:.3f})".format(row["accuracy"], *row["accuracy_interval_95"]),
        ]
        for row in (*groups["rows"], whole)
    ]
    return "\n" + markdown_table(["group", "images", "right", "accuracy (95 % interval)"], rows)


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
        report = read_json(file)
    except ValueError as error:
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
        return replace_marked(page.read_text(encoding="utf-8"), MARKS, text.strip("\n"))
    except ValueError as error:
        raise ModelFileError(f"{page} has no place for the figures: {error}") from error
