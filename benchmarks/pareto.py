"""Every recipe of every trained model given: size, speed, memory and accuracy, side by side.

    python -m benchmarks.pareto runs/a224 runs/b299 --prepare    # convert and score: any time
    python -m benchmarks.pareto runs/a224 runs/b299              # measure: in a quiet hour

Writes benchmarks/results/frontier.{json,md,svg,png}: one table and one plot of all runs given.
Converted models, scores and every single measurement are kept in .cache/frontier, so that an
interrupted run goes on where it stopped; what was kept counts only for the model, the images and
the code that it was made with. Measurements are forgotten once the results are written. Accuracy
is on the validation split, from image bytes through the serving path; time is one prediction of a
loaded model, median.
Needs the training environment; sets up those of the other two runtimes by itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow: no start-up chatter

import numpy as np
from tqdm import tqdm

from benchmarks.baselines import COURSE, COURSE_ONNX, PeerError
from benchmarks.measure import RESULTS
from converter.calibration import Ranges, choose_images
from converter.errors import ConverterError
from converter.recipes import RECIPES
from converter.source import Source, open_source
from converter.tflite import quantise, to_float32
from lambda_function import REPOSITORY
from lambda_function.classifier import Classifier
from lambda_function.images.decode import decode_image, preprocess
from training.data.dataset import find_dataset, load_split
from training.errors import DatasetError
from training.evaluation.metrics import wilson_interval
from training.files import replacing, sha256_of, write_json, write_text
from training.provenance import provenance

CACHE = Path(".cache") / "frontier"
PROBE = Path(__file__).with_name("pareto_probe.py")
THREADS = (1, 2)
SECONDS = 4.0  # of repeated predictions, for each measurement
TIMEOUT_S = 180.0
COLOURS = ("#333333", "#7a5195", "#ef8a17", "#1f77b4", "#0b6e4f", "#c0392b", "#8c6d31")  # recipes
MARKERS = "osD^vP*Xh"  # runs, by size
# Times nearer than this are equal: int8 and int8_float_head, whose arithmetic differs by a
# thousandth, came out in either order by median and by fastest run (November 2026).
TIME_RESOLUTION = 0.02
# What a converted file and its scores come from, besides the model and the images.
MAKERS = (
    *(REPOSITORY / "converter" / f"{name}.py" for name in ("recipes", "tflite", "calibration")),
    *(REPOSITORY / "lambda_function" / f"{name}.py" for name in ("images/decode", "metadata")),
    REPOSITORY / "requirements" / "training.txt",
)
ONNX = "onnxruntime"
LITERT, TFLITE_RUNTIME = "ai-edge-litert", "tflite-runtime"


@dataclasses.dataclass(frozen=True)
class Point:
    """One artifact.

    Attributes:
        run: name of the trained model's folder.
        recipe: of the converter; ``onnx`` for the reference.
        size: height of the input, in pixels.
        path: of the file.
        accuracy: on the validation split; None for the reference, which is not scored.
    """

    run: str
    recipe: str
    size: int
    path: Path
    accuracy: dict[str, Any] | None


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pareto", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders, one for each input size")
    parser.add_argument("--dataset", type=Path, help="else $CLOTHING_DATASET, data/, ../shared/")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--prepare", action="store_true", help="convert and score, no timing")
    parser.add_argument("--again", action="store_true", help="forget an interrupted measurement")
    parsed = parser.parse_args(arguments)
    provenance()  # of what runs from here on
    try:
        dataset = find_dataset(parsed.dataset)
        points = [p for run in parsed.runs for p in prepare(run, dataset, parsed.recipes)]
    except (ConverterError, DatasetError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not parsed.prepare:
        notes = CACHE / "measurements.json"
        if parsed.again:
            notes.unlink(missing_ok=True)
        _write(measure(points, notes, _pythons()), parsed.output)
        notes.unlink(missing_ok=True)
    return 0


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
    digest = hashlib.sha256(source.sha256.encode())
    digest.update(json.dumps([source.config, source.report], sort_keys=True).encode())
    for maker in makers:
        digest.update(maker.read_bytes())
    for name in ("train", "validation"):
        for path in load_split(dataset, name, source.labels).paths:
            seen = f"{path.relative_to(dataset).as_posix()} {path.stat().st_size}\n"
            digest.update(seen.encode())
    return digest.hexdigest()


def measure(points: list[Point], notes: Path, pythons: Mapping[str, Path | str]) -> dict[str, Any]:
    """Measure every point in every runtime, each in a process of its own.

    Args:
        points: what to measure.
        notes: file that keeps finished measurements; those that it holds are not repeated.
        pythons: interpreter of each runtime, or the reason why there is none.

    Returns:
        The result file's content.
    """
    known: dict[str, Any] = json.loads(notes.read_text()) if notes.is_file() else {}
    jobs = [
        (point, runtime, threads)
        for point in points
        for runtime in ((ONNX,) if point.recipe == "onnx" else (LITERT, TFLITE_RUNTIME))
        for threads in THREADS
    ]
    for point, runtime, threads in tqdm(jobs, desc="measuring", unit="measurement"):
        key = _key(point, runtime, threads)
        if key not in known:
            known[key] = probe(pythons[runtime], runtime, point.path, threads)
            write_json(notes, known)
    rows = [_row(point, known) for point in points]
    _mark_front(rows)
    return {**provenance(), "threads": list(THREADS), "seconds": SECONDS, "rows": rows}


def probe(python: Path | str, runtime: str, model: Path, threads: int) -> dict[str, Any]:
    """Measure one model in one process; ``{"error": reason}`` where it cannot be loaded."""
    if isinstance(python, str):
        return {"error": python}
    if not model.is_file():
        return {"error": model.with_suffix(".error").read_text().strip()}
    words = [str(python), str(PROBE), runtime, str(model), "--threads", str(threads)]
    try:
        done = subprocess.run(
            [*words, "--seconds", str(SECONDS)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {TIMEOUT_S:.0f} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"error": f"the process ended with {done.returncode}: {reason}"}
    measured: dict[str, Any] = json.loads(lines[-1])
    return measured


def to_table(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    head = (
        "| model | recipe | MB | validation accuracy [95 %] "
        "| same answer as float32 (mean difference) "
        "| load, s | 1 thread, ms | 2 threads, ms | resident, MB | tflite-runtime, 1 thread |"
    )
    lines = [
        "# Recipes by size, speed and accuracy",
        "",
        f"{result['date']}, commit {result['commit']}, {result['processor']}, "
        f"{result['cores']} cores, {result['memory_gib']} GiB. `make frontier` writes this file. "
        "Points on the Pareto front of accuracy and time (ai-edge-litert, 1 thread) are bold; "
        f"times within {TIME_RESOLUTION:.0%} count as equal. "
        "The rows `onnx` are onnxruntime, float32, as the outside reference.",
        "",
        head,
        "| --- | --- " + "| ---: " * 7 + "| --- |",
    ]
    return "\n".join([*lines, *(_table_row(row) for row in result["rows"])]) + "\n"


def pareto_front(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the (time, accuracy) that no other point beats in one and equals in the other."""
    front: list[tuple[float, float]] = []
    for time_s, accuracy in sorted(set(points), key=lambda p: (p[0], -p[1])):
        if not front or accuracy > front[-1][1]:
            front.append((time_s, accuracy))
    return front


def is_on_front(point: tuple[float, float], points: Iterable[tuple[float, float]]) -> bool:
    """Whether no other (time, accuracy) is better, as far as times can be told apart."""
    time_s, accuracy = point
    return not any(
        (other >= accuracy and other_s < time_s * (1 - TIME_RESOLUTION))
        or (other > accuracy and other_s <= time_s * (1 + TIME_RESOLUTION))
        for other_s, other in points
    )


def _convert(source: Source, folder: Path, dataset: Path, recipes: Iterable[str]) -> None:
    missing = [name for name in recipes if not (folder / f"{name}.tflite").is_file()]
    if not missing:
        return
    print(f"converting {source.path}: {', '.join(missing)}", flush=True)
    float_model = to_float32(source)
    ranges = Ranges(float_model, choose_images(dataset, source.labels, source.spec))
    for name in missing:
        with replacing(folder / f"{name}.tflite") as unfinished:
            unfinished.write_bytes(quantise(source, float_model, RECIPES[name], ranges))


def _onnx(source: Source, folder: Path) -> Path:
    """Write the outside reference's file; where that fails, the reason stands beside its place."""
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
    answers = _answers(path, split.paths)
    reference = folder / "float32.answers.npy"
    right = answers.argmax(axis=1) == split.labels
    correct, images = int(right.sum()), len(split)
    accuracy: dict[str, Any] = {
        "accuracy": correct / images,
        "correct": correct,
        "images": images,
        "interval_95": list(wilson_interval(correct, images)),
    }
    if reference.is_file():
        expected = np.load(reference)
        same = answers.argmax(axis=1) == expected.argmax(axis=1)
        accuracy["agreement_with_float32"] = float(same.mean())
        accuracy["mean_difference_from_float32"] = float(np.abs(answers - expected).mean())
    return Point(run, recipe, source.spec.height, path, accuracy)


def _answers(artifact: Path, images: Iterable[Path]) -> Any:
    """Return the served probabilities, float32, (images, classes), kept beside the artifact."""
    file = artifact.with_suffix(".answers.npy")
    if not file.is_file():
        classifier = Classifier(artifact, num_threads=2)
        spec = classifier.metadata.input
        answers = [
            classifier.predict(preprocess(decode_image(path.read_bytes(), target=spec), spec))
            for path in tqdm(images, desc=f"{artifact.parent.name} {artifact.stem}", unit="image")
        ]
        unfinished = file.with_suffix(".part.npy")
        np.save(unfinished, np.stack(answers))
        unfinished.replace(file)
    return np.load(file)


def _pythons() -> dict[str, Path | str]:
    """Return each runtime's interpreter, or the reason why there is none."""
    found: dict[str, Path | str] = {LITERT: Path(sys.executable)}
    for runtime, peer in ((TFLITE_RUNTIME, COURSE), (ONNX, COURSE_ONNX)):
        try:
            peer._prepare_environment()
            found[runtime] = peer.venv / "bin" / "python"
        except (PeerError, OSError, subprocess.CalledProcessError) as error:
            found[runtime] = f"no environment for {runtime}: {error}"
    return found


def _key(point: Point, runtime: str, threads: int) -> str:
    content = sha256_of(point.path) if point.path.is_file() else "missing"
    return f"{point.run} {point.recipe} {content[:16]} {runtime} {threads}"


def _row(point: Point, known: dict[str, Any]) -> dict[str, Any]:
    runtimes = (ONNX,) if point.recipe == "onnx" else (LITERT, TFLITE_RUNTIME)
    return {
        "run": point.run,
        "recipe": point.recipe,
        "size": point.size,
        "bytes": point.path.stat().st_size if point.path.is_file() else None,
        "sha256": sha256_of(point.path) if point.path.is_file() else None,
        "accuracy": point.accuracy,
        "runtimes": {
            runtime: {str(t): _shortened(known[_key(point, runtime, t)]) for t in THREADS}
            for runtime in runtimes
        },
    }


def _shortened(measured: dict[str, Any]) -> dict[str, Any]:
    """Keep four digits, more than can be measured, and no path of this machine."""
    return {
        name: float(f"{value:.4g}")
        if isinstance(value, float)
        else value.replace(str(Path.cwd()), ".")
        if isinstance(value, str)
        else value
        for name, value in measured.items()
    }


def _mark_front(rows: list[dict[str, Any]]) -> None:
    places = [place for row in rows if (place := _place(row))]
    for row in rows:
        place = _place(row)
        row["on_front"] = place is not None and is_on_front(place, places)


def _place(row: dict[str, Any]) -> tuple[float, float] | None:
    """Return (seconds on one thread, accuracy), where both are known."""
    measured = row["runtimes"].get(LITERT, {}).get("1", {})
    if row["accuracy"] is None or "median_s" not in measured:
        return None
    return measured["median_s"], row["accuracy"]["accuracy"]


def _table_row(row: dict[str, Any]) -> str:
    runtime = row["runtimes"].get(LITERT) or row["runtimes"][ONNX]
    one, two = runtime["1"], runtime["2"]
    accuracy = row["accuracy"]
    cells = [f"{row['run']}, {row['size']} px", row["recipe"]]
    cells.append(f"{row['bytes'] / 1e6:.1f}" if row["bytes"] else "")
    if accuracy:
        low, high = accuracy["interval_95"]
        cells.append(f"{accuracy['accuracy']:.4f} [{low:.3f}, {high:.3f}]")
        cells.append(_nearness(accuracy))
    else:
        cells += ["", ""]
    cells.append(_cell(one, "load_s", 1, 2))
    if "error" in one:  # said once is enough
        cells += ["", "", ""]
    else:
        cells += [_cell(m, "median_s", 1000, 0) for m in (one, two)]
        cells.append(_cell(one, "resident_mb", 1, 0))
    other = row["runtimes"].get(TFLITE_RUNTIME)
    cells.append("" if other is None else _cell(other["1"], "median_s", 1000, 0, " ms"))
    if row["on_front"]:
        cells = [f"**{cell}**" if cell else "" for cell in cells]
    return f"| {' | '.join(cells)} |"


def _nearness(accuracy: dict[str, Any]) -> str:
    if "agreement_with_float32" not in accuracy:  # measured without the recipe float32
        return ""
    agreement, difference = (
        accuracy[f"{name}_float32"] for name in ("agreement_with", "mean_difference_from")
    )
    return f"{agreement:.4f} ({difference:.4f})"


def _cell(measured: dict[str, Any], name: str, factor: float, digits: int, unit: str = "") -> str:
    if "error" in measured:
        return f"cannot load: {measured['error']}".replace("|", "/")
    value = measured[name]
    return "" if value is None else f"{value * factor:.{digits}f}{unit}"


def _write(result: dict[str, Any], folder: Path) -> None:
    write_json(folder / "frontier.json", result)
    write_text(folder / "frontier.md", to_table(result))
    draw(result, folder)
    print(to_table(result))


def point_styles(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str], tuple[str, str]]:
    """Return (run, recipe) -> (marker, colour): a marker for each run, a colour for each recipe."""
    runs = list(dict.fromkeys((row["size"], row["run"]) for row in rows))
    markers = dict(zip([run for _, run in sorted(runs)], itertools.cycle(MARKERS), strict=False))
    colours = dict(zip(RECIPES, itertools.cycle(COLOURS), strict=False))
    return {(run, name): (markers[run], colours[name]) for run in markers for name in colours}


def draw(result: dict[str, Any], folder: Path) -> None:
    """Plot accuracy against time, with intervals and the Pareto front; SVG and PNG."""
    import matplotlib as mpl

    mpl.use("Agg")  # no display
    from matplotlib import pyplot

    mpl.rcParams["svg.hashsalt"] = "frontier"  # equal input gives equal bytes
    figure, axes = pyplot.subplots(figsize=(10, 5), layout="constrained")
    styles = point_styles(result["rows"])
    for row in result["rows"]:
        if place := _place(row):
            low, high = row["accuracy"]["interval_95"]
            marker, colour = styles[row["run"], row["recipe"]]
            axes.errorbar(
                place[0] * 1000,
                place[1],
                yerr=[[place[1] - low], [high - place[1]]],
                fmt=marker,
                color=colour,
                ecolor="#dddddd",
                markersize=8,
                markeredgecolor="black" if row["on_front"] else colour,
                label=f"{row['run']}, {row['size']} px, {row['recipe']}, "
                f"{row['bytes'] / 1e6:.0f} MB",
                zorder=3,
            )
    front = pareto_front(place for row in result["rows"] if (place := _place(row)))
    axes.step(
        [time_s * 1000 for time_s, _ in front],
        [accuracy for _, accuracy in front],
        where="post",
        color="#0b6e4f",
        linewidth=1.2,
        label="Pareto front",
        zorder=2,
    )
    axes.set_xlabel("one prediction, ai-edge-litert, 1 thread, ms (median)")
    axes.set_ylabel("validation accuracy, 95 % interval")
    axes.set_xlim(left=0)
    axes.set_title(f"{result['date']}, {result['processor']}", fontsize=9, loc="left")
    axes.grid(alpha=0.25)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    for suffix in ("svg", "png"):
        metadata = {"Date": None} if suffix == "svg" else {"Software": None}
        figure.savefig(folder / f"frontier.{suffix}", metadata=metadata, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
