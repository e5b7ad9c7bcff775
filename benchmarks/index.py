"""What was measured, when and where: ``benchmarks/results/README.md``, one line a result file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

STUDY = "python -m training study size|ablation --results benchmarks/results"

# Result file, without its suffix -> what it answers, and what writes it, unless the file itself
# says so. `python` is that of .venv/test or, where Keras is needed, of .venv/training.
SOURCES = {
    "accuracy": (
        "each peer on the test split, through its own handler",
        "python -m benchmarks.accuracy --course-models FOLDER --peers ours course onnx tensorflow "
        "--write",
    ),
    "ablation_folds": ("the parts of the training recipe, cross-validated", STUDY),
    "ablation_study": ("the parts of the training recipe, over seeds", STUDY),
    "batch": ("16 pictures from slow servers", "python -m benchmarks.batch --write"),
    "coldstart": ("start to first answer", "python -m benchmarks.coldstart --write"),
    "compare": ("ours beside its peers, interleaved", "make benchmark"),
    "evaluation_test": (
        "the release on test: the model card's tables",
        "python -m training evaluate lambda_function/model.tflite --split test --no-gallery "
        "--out FOLDER",
    ),
    "frontier": (
        "every recipe of trained models: size, time, accuracy",
        "make frontier RUNS='runs/a runs/b'",
    ),
    "growth": (
        "latency and memory against megapixels, batch, threads",
        "python -m benchmarks.scaling --write",
    ),
    "image_size": ("what the image adds to its base", "make image-size ARGS=--write"),
    "imports": ("what a library adds to the start", "python -m benchmarks.imports --write"),
    "large_photos": (
        "a 24-megapixel photo to a tensor",
        "python -m benchmarks.large_photos --write",
    ),
    "limit": ("distance to the processor's peak", "python -m benchmarks.roofline --write"),
    "no_garment": ("pictures without a garment", "make no-garment"),
    "overhead": ("time around inference", "python -m benchmarks.overhead --write"),
    "robustness_test": (
        "test pictures saved otherwise",
        "python -m training robustness lambda_function/model.tflite --split test "
        "--out benchmarks/results",
    ),
    "robustness_validation": (
        "validation pictures saved otherwise",
        "python -m training robustness lambda_function/model.tflite --out benchmarks/results",
    ),
    "size_folds": ("input sizes, cross-validated", STUDY),
    "size_study": ("input sizes, over seeds", STUDY),
    "soak": ("5,000 mixed requests", "make soak"),
    "tuning_speed": (
        "the course's eleven trials, its way and ours",
        "python -m benchmarks.tuning_speed --write",
    ),
}


def index(results: Path) -> str:
    """Return the index of a folder of results as Markdown.

    Args:
        results: folder of the result files.

    Raises:
        KeyError: a result file that ``SOURCES`` does not name.
    """
    lines = [
        "| file | answers | command | measured | commit | on |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_line(path) for path in sorted(results.glob("*.json"))),
        "",
        "`test_ledger.csv`: every first scoring of an artifact on test. `course/`: the steps of "
        "the README's 'Follow the course' "
        "(`make steps ARGS='--results benchmarks/results/course'`). "
        "`plots/`: `make benchmark-plots`.",
    ]
    return "\n".join(lines) + "\n"


def command_of(name: str, result: dict[str, Any]) -> str:
    """Return what writes a result again, as Markdown."""
    return f"`{result.get('command', SOURCES[name][1])}`"


def commit_of(result: dict[str, Any], digits: int = 7) -> str:
    """Return the commit that a result was measured at, as Markdown; says where files differed."""
    origin = result.get("provenance", result)
    commit, dirty, _ = origin["commit"].partition("-dirty")  # as provenance() marks it
    changed = dirty or origin.get("uncommitted_changes")
    return f"`{commit[:digits]}`" + (" with uncommitted changes" if changed else "")


def _line(path: Path) -> str:
    answers, _ = SOURCES[path.stem]
    result: dict[str, Any] = json.loads(path.read_text())
    origin = result.get("provenance", result)
    hardware = origin.get("hardware", {})
    processor = hardware.get("cpu") or origin["processor"]
    cores = hardware.get("cores") or origin["cores"]
    return (
        f"| [{path.stem}]({path.name}) | {answers} | "
        f"{command_of(path.stem, result)} | {origin['date']} | {commit_of(result)} | "
        f"{processor}, {cores} cores |"
    )
