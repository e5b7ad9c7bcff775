"""The course's published figures, and README's table that puts this project's beside them.

From the course's notebook (alexeygrigorev/mlbookcamp-code, deep-learning module) and the book
'Machine Learning Bookcamp', chapter 7: best validation accuracy of each trial at 150 px, and
test accuracy of the final model at 299 px.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from lambda_function import REPOSITORY
from training.files import markdown_table, read_json

RESULTS = REPOSITORY / "benchmarks" / "results" / "course"
README = REPOSITORY / "README.md"
MARKS = ("<!-- course:begin -->", "<!-- course:end -->")


@dataclasses.dataclass(frozen=True)
class Search:
    """One of the course's searches: some trials of a head.

    Attributes:
        title: of tables and plots.
        field: the setting that differs.
        trials: settings of ``HeadConfig`` each.
        course: the course's best validation accuracy of each trial.
    """

    title: str
    field: str
    trials: list[dict[str, Any]]
    course: list[float]


SEARCHES = {
    "learning-rate": Search(
        "Learning rate, no inner layer, 10 epochs",
        "learning_rate",
        [{"learning_rate": rate} for rate in (1e-4, 1e-3, 1e-2, 1e-1)],
        [0.789, 0.830, 0.821, 0.789],
    ),
    "inner": Search(
        "Inner layer size, 10 epochs",
        "inner_units",
        [{"inner_units": units} for units in (10, 100, 1000)],
        [0.815, 0.815, 0.812],
    ),
    "dropout": Search(
        "Dropout after an inner layer of 100, 30 epochs",
        "dropout",
        [{"inner_units": 100, "dropout": d, "epochs": 30} for d in (0.0, 0.2, 0.5, 0.8)],
        [0.842, 0.845, 0.853, 0.833],
    ),
}

# The nine steps: name, title, and the course's figure for the steps without trials.
STEPS = (
    ("look", "Load an image, look at it as an array", "no figure"),
    ("transfer", "Transfer learning at 150 px", "0.82 to 0.85 (validation)"),
    ("learning-rate", "Learning rate", ""),
    ("checkpoint", "Checkpointing and resuming", "no figure"),
    ("inner", "Inner layer size", ""),
    ("dropout", "Dropout", ""),
    ("augmentation", "Data augmentation", "no figure"),
    ("larger", "The larger model, 299 px", "0.8978 notebook, 0.9032 book (test)"),
    ("use", "Using the model", "no figure"),
)
NAMES = tuple(name for name, _, _ in STEPS)


def table(results: Path) -> str:
    """Return 'Follow the course' as Markdown, from the figures that have been measured.

    Args:
        results: folder of the steps' figures. The steps make no figures on test. Those come from
            ``accuracy.json`` in the folder above (``python -m benchmarks accuracy``).
    """
    on_test = _figures_on_test(results.parent / "accuracy.json")
    rows = []
    for number, (name, title, course) in enumerate(STEPS, 1):
        file = results / f"{name}.json"
        result = read_json(file) if file.is_file() else {}
        ours = _cell(result.get("ours", "not measured yet")) + on_test.get(name, "")
        command = f"`python -m training steps {name}`"
        rows.append([f"{number}. {title}", command, _cell(result.get("course") or course), ours])
    return markdown_table(["step", "command", "course", "ours"], rows).rstrip("\n")


def _cell(figures: dict[str, float] | str) -> str:
    if isinstance(figures, dict):
        return ", ".join(f"{name}: {value:.3f}" for name, value in figures.items())
    return figures


def _figures_on_test(file: Path) -> dict[str, str]:
    """Return what to add to a step's cell: the course's recipe, and this project's release."""
    if not file.is_file():
        return {}
    measured = read_json(file)["handlers"]
    cells = {}
    if course := measured.get("course"):
        cells["larger"] = f", {course['accuracy']:.4f} (test)"
    if ours := measured.get("ours"):
        cells["use"] = f", released model {ours['accuracy']:.4f} (test)"
    return cells
