"""Every recipe of trained models: accuracy, time and memory side by side.

    python -m benchmarks pareto runs/a224 runs/b299 --prepare   # convert and score, at any time
    python -m benchmarks pareto runs/a224 runs/b299 --write     # measure, in a quiet hour

Writes benchmarks/results/pareto.{json,md,svg,png}: one table and one plot of all runs. Converted
models, scores and every single measurement are kept in .cache/pareto, so an interrupted run goes on
where it stopped. What was kept counts only for the model, the images and the code that made it.
Measurements are forgotten once the results are written.

Accuracy is on the validation split, from image bytes through the serving path. Time is one
prediction of a loaded model, median, in each lane (``benchmarks.masking``). The front and the plot
use the lane of Lambda. Needs the environment `benchmarks`. The environments of the other two
runtimes are set up when they are missing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow: no start-up messages

import numpy as np
from tqdm import tqdm

from benchmarks.baselines import COURSE, COURSE_ONNX, BaselineError
from benchmarks.harness import RESULTS, command_line, origin, to_plain
from benchmarks.masking import Lane, lanes
from benchmarks.report.pareto_table import LITERT, ONNX, TFLITE_RUNTIME, mark_front, to_table
from converter.calibration import CalibrationRanges, choose_images
from converter.recipes import RECIPES
from converter.sources.run_folder import open_source
from converter.sources.source import Source
from converter.tflite import quantise, to_float32
from lambda_function import REPOSITORY
from lambda_function.classifier import Classifier
from lambda_function.images.decode import decode_image, preprocess
from training.data.dataset import find_dataset, load_split
from training.evaluation.metrics import wilson_interval
from training.files import replacing, sha256_of, write_json, write_text

CACHE = Path(".cache") / "pareto"
PROBE = REPOSITORY / "benchmarks" / "baselines" / "probe.py"
THREADS = (1, 2)
SECONDS = 4.0  # of repeated predictions, for each measurement
TIMEOUT_S = 180.0
# What a converted file and its scores come from, besides the model and the images.
MAKERS = (
    *(REPOSITORY / "converter" / f"{name}.py" for name in ("recipes", "tflite", "calibration")),
    *(REPOSITORY / "lambda_function" / f"{name}.py" for name in ("images/decode", "metadata")),
    REPOSITORY / "requirements" / "training.txt",
)
Environments = Mapping[str, Path | str]  # of each runtime, or the reason why there is none


@dataclasses.dataclass(frozen=True)
class Point:
    """One artifact.

    Attributes:
        run: name of the trained model's folder.
        recipe: of the converter, or ``onnx`` for the reference.
        size: height of the input, in pixels.
        path: of the file.
        accuracy: on the validation split. None for the reference, which is not scored.
    """

    run: str
    recipe: str
    size: int
    path: Path
    accuracy: dict[str, Any] | None

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The runtimes that load the file."""
        return (ONNX,) if self.recipe == "onnx" else (LITERT, TFLITE_RUNTIME)


def main(arguments: list[str]) -> None:
    """Convert, score, measure and keep the result."""
    parser = command_line("pareto", __doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders, one for each input size")
    parser.add_argument("--dataset", type=Path, help="else $CLOTHING_DATASET, data/, ../shared/")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--prepare", action="store_true", help="convert and score, no timing")
    parser.add_argument("--again", action="store_true", help="forget an interrupted measurement")
    parser.add_argument("--write", action="store_true", help="pareto.json, .md, .svg and .png")
    options = parser.parse_args(arguments)
    measured_lanes = lanes()
    record = origin(measured_lanes)
    dataset = find_dataset(options.dataset)
    points = [p for run in options.runs for p in prepare(run, dataset, options.recipes)]
    if options.prepare:
        return
    notes = CACHE / "measurements.json"
    if options.again:
        notes.unlink(missing_ok=True)
    rows = measure(points, measured_lanes, notes, environments())
    result = {**record, "threads": list(THREADS), "seconds": SECONDS, "rows": rows}
    print(to_table(result))
    if options.write:
        from benchmarks.report.plots import draw_pareto  # needs Matplotlib

        write_json(options.output / "pareto.json", result)
        write_text(options.output / "pareto.md", to_table(result))
        draw_pareto(result, options.output)
        notes.unlink(missing_ok=True)


def prepare(run: Path, dataset: Path, recipes: Iterable[str]) -> list[Point]:
    """Convert one trained model by every recipe and score the results, unless done before."""
    source = open_source(run / "model.keras")
    folder = CACHE / f"{run.name}-{fingerprint(source, dataset)[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    _convert(source, folder, dataset, recipes)
    scored = [_scored(source, folder, recipe, run.name, dataset) for recipe in recipes]
    return [*scored, Point(run.name, "onnx", source.spec.height, _onnx(source, folder), None)]


def fingerprint(source: Source, dataset: Path, makers: Iterable[Path] = MAKERS) -> str:
    """Return a digest of all that converted files and scores depend on, hexadecimal.

    Args:
        source: the trained model, with what its run folder says.
        dataset: its images count by name and size.
        makers: files of code.
    """
    digest = hashlib.sha256(sha256_of(source.path).encode())
    digest.update(json.dumps(source.metadata.to_dict(), sort_keys=True).encode())
    for maker in makers:
        digest.update(maker.read_bytes())
    for name in ("train", "validation"):
        for path in load_split(dataset, name, source.labels).paths:
            seen = f"{path.relative_to(dataset).as_posix()} {path.stat().st_size}\n"
            digest.update(seen.encode())
    return digest.hexdigest()


def measure(
    points: list[Point],
    measured_lanes: Mapping[str, Lane],
    notes: Path,
    runtime_environments: Environments,
) -> list[dict[str, Any]]:
    """Measure every point in every lane and runtime, each in a process of its own.

    Args:
        points: what to measure.
        measured_lanes: by name. The front is that of the first one.
        notes: file that keeps finished measurements. Those that it holds are not repeated.
        runtime_environments: virtual environment of each runtime, or why there is none.

    Returns:
        The result's rows.
    """
    known: dict[str, Any] = json.loads(notes.read_text()) if notes.is_file() else {}
    jobs = [
        (point, runtime, threads, lane)
        for point in points
        for runtime in point.runtimes
        for threads in THREADS
        for lane in measured_lanes.values()
    ]
    for point, runtime, threads, lane in tqdm(jobs, desc="measuring", unit="measurement"):
        key = note_key(point, runtime, threads, lane.name)
        if key not in known:
            environment = runtime_environments[runtime]
            known[key] = probe(environment, lane, runtime, point.path, threads)
            write_json(notes, known)
    rows = [_row(point, list(measured_lanes), known) for point in points]
    mark_front(rows)
    return rows


def probe(
    environment: Path | str, lane: Lane, runtime: str, model: Path, threads: int
) -> dict[str, Any]:
    """Measure one model in one process.

    Args:
        environment: virtual environment of the runtime, or the reason why there is none.
        lane: instruction sets that the runtime sees.
        runtime: name of its package.
        model: file that it loads.
        threads: of the runtime.

    Returns:
        The figures, or ``{"error": reason}`` where the model cannot be loaded.
    """
    if isinstance(environment, str):
        return {"error": environment}
    if not model.is_file():
        return {"error": model.with_suffix(".error").read_text().strip()}
    words = [str(lane.python(environment)), str(PROBE), runtime, str(model)]
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
    measured: dict[str, Any] = json.loads(lines[-1])
    return measured


def _convert(source: Source, folder: Path, dataset: Path, recipes: Iterable[str]) -> None:
    missing = [name for name in recipes if not (folder / f"{name}.tflite").is_file()]
    if not missing:
        return
    print(f"converting {source.path}: {', '.join(missing)}", flush=True)
    float_model = to_float32(source)
    ranges = CalibrationRanges(
        float_model, choose_images(load_split(dataset, "train", source.labels), source.spec)
    )
    for name in missing:
        with replacing(folder / f"{name}.tflite") as unfinished:
            unfinished.write_bytes(quantise(source, float_model, RECIPES[name], ranges))


def _onnx(source: Source, folder: Path) -> Path:
    """Write the outside reference's file, or the reason beside its place."""
    path = folder / "reference.onnx"
    if not path.is_file():
        try:
            unfinished = folder / "unfinished.onnx"
            model = source.load()
            model(np.zeros((1, source.spec.height, source.spec.width, 3), np.float32))  # Keras asks
            model.export(str(unfinished), format="onnx", verbose=False)
            unfinished.replace(path)
        except Exception as error:  # an optional exporter, of many kinds of errors
            reason = str(error).strip().partition("\n")[0]
            path.with_suffix(".error").write_text(f"cannot be exported: {reason}")
    return path


def _scored(source: Source, folder: Path, recipe: str, run: str, dataset: Path) -> Point:
    path = folder / f"{recipe}.tflite"
    split = load_split(dataset, "validation", source.labels)
    predictions = _predict(path, split.paths)
    reference = folder / "float32.predictions.npy"
    right = predictions.argmax(axis=1) == split.labels
    correct, images = int(right.sum()), len(split)
    accuracy: dict[str, Any] = {
        "accuracy": correct / images,
        "correct": correct,
        "images": images,
        "interval_95": list(wilson_interval(correct, images)),
    }
    if reference.is_file():
        expected = np.load(reference)
        same = predictions.argmax(axis=1) == expected.argmax(axis=1)
        accuracy["agreement_with_float32"] = float(same.mean())
        accuracy["mean_difference_from_float32"] = float(np.abs(predictions - expected).mean())
    return Point(run, recipe, source.spec.height, path, accuracy)


def _predict(artifact: Path, images: Iterable[Path]) -> Any:
    """Return the served probabilities: float32, (images, classes). A file keeps them."""
    file = artifact.with_suffix(".predictions.npy")
    if not file.is_file():
        classifier = Classifier(artifact, num_threads=2)
        spec = classifier.metadata.input
        predictions = [
            classifier.predict(preprocess(decode_image(path.read_bytes(), target=spec), spec))
            for path in tqdm(images, desc=f"{artifact.parent.name} {artifact.stem}", unit="image")
        ]
        unfinished = file.with_suffix(".part.npy")
        np.save(unfinished, np.stack(predictions))
        unfinished.replace(file)
    return np.load(file)


def environments() -> Environments:
    """Return each runtime's virtual environment, or the reason why there is none."""
    places: dict[str, Path | str] = {LITERT: Path(sys.prefix)}
    for runtime, handler in ((TFLITE_RUNTIME, COURSE), (ONNX, COURSE_ONNX)):
        try:
            handler.prepare_environment()
            places[runtime] = handler.venv
        except (BaselineError, OSError, subprocess.CalledProcessError) as error:
            places[runtime] = f"no environment for {runtime}: {error}"
    return places


def note_key(point: Point, runtime: str, threads: int, lane: str) -> str:
    """Return the name of a measurement in the notes: another file has another name."""
    content = sha256_of(point.path) if point.path.is_file() else "missing"
    return f"{point.run} {point.recipe} {content[:16]} {runtime} {threads} {lane}"


def _row(point: Point, lane_names: list[str], known: dict[str, Any]) -> dict[str, Any]:
    return {
        "run": point.run,
        "recipe": point.recipe,
        "size": point.size,
        "bytes": point.path.stat().st_size if point.path.is_file() else None,
        "sha256": sha256_of(point.path) if point.path.is_file() else None,
        "accuracy": point.accuracy,
        "lanes": {
            lane: {
                runtime: {
                    str(threads): _shortened(known[note_key(point, runtime, threads, lane)])
                    for threads in THREADS
                }
                for runtime in point.runtimes
            }
            for lane in lane_names
        },
    }


def _shortened(measured: dict[str, Any]) -> Any:
    """Round the figures and remove this machine's paths from the errors."""
    return to_plain(
        {
            name: value.replace(str(Path.cwd()), ".") if isinstance(value, str) else value
            for name, value in measured.items()
        }
    )
