"""Accuracy, time and memory of converted models side by side, with the Pareto front.

    python -m benchmarks pareto runs/a224/*.tflite runs/b299/*.tflite --write

Takes artifacts of ``python -m converter``, one folder for each trained model, and writes
benchmarks/results/pareto.{json,md,svg}. Accuracy is on the validation split, from image bytes
through the serving path. Time is one prediction of a loaded model, median, in each lane
(``benchmarks.masking``). The front and the plot use the lane of Lambda. Needs Matplotlib, so the
environment `training` or `benchmarks`. That of tflite-runtime is set up when it is missing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.baselines import COURSE
from benchmarks.harness import RESULTS, command_line, origin, write_result
from benchmarks.masking import Lane, lanes
from benchmarks.report.pareto_table import LITERT, TFLITE_RUNTIME, mark_front, to_table
from lambda_function.classifier import Classifier
from training.data.dataset import Split, find_dataset, load_split
from training.evaluation.loaded_model import load_model, predict_split
from training.evaluation.metrics import wilson_interval
from training.files import sha256_of, write_text
from training.options import add_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PROBE = Path(__file__).parent / "baselines" / "probe.py"
THREADS = (1, 2)
SECONDS = 4.0  # of repeated predictions, for each measurement
TIMEOUT_S = 180.0
Probabilities = NDArray[np.float64]  # (images, classes), 0..1


def main(arguments: list[str]) -> None:
    """Score, measure, print and keep the result."""
    parser = command_line("pareto", __doc__)
    parser.add_argument("artifacts", type=Path, nargs="+", help=".tflite files of the converter")
    add_options(parser, "dataset")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--write", action="store_true", help="pareto.json, .md and .svg")
    options = parser.parse_args(arguments)
    measured_lanes = lanes()
    record = origin(measured_lanes)
    COURSE.prepare_environment()
    environments = {LITERT: Path(sys.prefix), TFLITE_RUNTIME: COURSE.venv}
    rows = [describe(path) for path in options.artifacts]
    add_accuracy(rows, options.artifacts, load_split(find_dataset(options.dataset), "validation"))
    for row, path in zip(tqdm(rows, disable=None), options.artifacts, strict=True):
        row["lanes"] = measure(path, measured_lanes, environments)
    mark_front(rows)
    result = {**record, "threads": list(THREADS), "seconds": SECONDS, "rows": rows}
    print(to_table(result))
    if options.write:
        from benchmarks.report.plots import draw_pareto  # needs Matplotlib

        write_result("pareto", result, folder=options.output)
        write_text(options.output / "pareto.md", to_table(result))
        draw_pareto(result, options.output)


def describe(artifact: Path) -> dict[str, Any]:
    """Return what identifies an artifact in the table."""
    metadata = Classifier(artifact).metadata
    return {
        "run": artifact.parent.name,
        "recipe": metadata.recipe,
        "size": metadata.input.height,
        "bytes": artifact.stat().st_size,
        "sha256": sha256_of(artifact),
    }


def add_accuracy(rows: list[dict[str, Any]], artifacts: Iterable[Path], split: Split) -> None:
    """Score the artifacts and add ``accuracy`` to their rows.

    An artifact is also compared with the float32 one of the same run, where that is given.
    """
    predicted = [predict_split(load_model(artifact), split) for artifact in artifacts]
    references = {
        row["run"]: probabilities
        for row, probabilities in zip(rows, predicted, strict=True)
        if row["recipe"] == "float32"
    }
    for row, probabilities in zip(rows, predicted, strict=True):
        row["accuracy"] = score(probabilities, split.labels, references.get(row["run"]))


def score(
    probabilities: Probabilities, labels: NDArray[np.int64], reference: Probabilities | None
) -> dict[str, Any]:
    """Return accuracy and its interval, and the agreement with a reference.

    Args:
        probabilities: of the artifact.
        labels: (images,), the true classes.
        reference: probabilities of the float32 artifact, or None.
    """
    best = probabilities.argmax(axis=1)
    correct, images = int((best == labels).sum()), len(labels)
    accuracy: dict[str, Any] = {
        "accuracy": correct / images,
        "correct": correct,
        "images": images,
        "interval_95": list(wilson_interval(correct, images)),
    }
    if reference is not None:
        accuracy["agreement_with_float32"] = float((best == reference.argmax(axis=1)).mean())
        accuracy["mean_difference_from_float32"] = float(np.abs(probabilities - reference).mean())
    return accuracy


def measure(
    artifact: Path, measured_lanes: Mapping[str, Lane], environments: Mapping[str, Path]
) -> dict[str, Any]:
    """Return the figures by lane, runtime and threads. Each comes from a process of its own."""
    return {
        name: {
            runtime: {str(n): probe(environment, lane, runtime, artifact, n) for n in THREADS}
            for runtime, environment in environments.items()
        }
        for name, lane in measured_lanes.items()
    }


def probe(
    environment: Path, lane: Lane, runtime: str, artifact: Path, threads: int
) -> dict[str, Any]:
    """Measure one model in one process.

    Args:
        environment: virtual environment of the runtime.
        lane: instruction sets that the runtime sees.
        runtime: name of its package.
        artifact: file that it loads.
        threads: of the runtime.

    Returns:
        The figures, or ``{"error": reason}`` where the model cannot be loaded.
    """
    words = [str(lane.python(environment)), str(PROBE), runtime, str(artifact)]
    try:
        done = subprocess.run(
            [*words, "--threads", str(threads), "--seconds", str(SECONDS)],
            env={**os.environ, **lane.environment},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no result within {TIMEOUT_S:.0f} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"error": f"the process ended with {done.returncode}: {reason}"}
    measured: dict[str, Any] = json.loads(lines[-1].replace(str(Path.cwd()), "."))
    return measured
