"""`python -m training evaluate MODEL [SECOND] --split validation`: how good is a model, honestly?

Every figure comes with its sample size and interval; the same facts go into ``report.json``
(for programs) and ``report.html`` (for people: one file, nothing fetched).
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Split, find_dataset, load_folder, load_split
from training.evaluation import metrics
from training.evaluation import test_log as ledger
from training.evaluation.loaded_model import ModelFileError, Scorer, load_scorer, score
from training.files import write_json, write_text
from training.options import add_dataset_option
from training.provenance import provenance

OUTPUT = Path("runs") / "evaluations"
BINS = 10


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A model's answers on one set of images.

    Attributes:
        model: what ``Scorer.describe`` says.
        split: the images.
        probabilities: float64, (images, classes), columns as ``split.class_names``.
    """

    model: dict[str, Any]
    split: Split
    probabilities: NDArray[np.float64]

    @property
    def predictions(self) -> NDArray[np.int64]:
        """The most probable class of every image."""
        return self.probabilities.argmax(axis=1)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Where the most probable class is the label."""
        return self.predictions == self.split.labels

    def to_dict(self) -> dict[str, Any]:
        """Return every figure as plain JSON types."""
        labels = self.split.labels
        confusion = metrics.confusion_matrix(self.probabilities, labels)
        return {
            "model": self.model,
            "metrics": metrics.summary(self.probabilities, labels),
            "metrics_before_temperature": self._before_temperature(),
            "per_class": _per_class(confusion, self.split.class_names),
            "confusion": confusion.tolist(),
            "reliability": reliability(self.probabilities, labels),
            "mistakes": [self.answer(index) for index in self.worst_mistakes()],
        }

    def worst_mistakes(self) -> list[int]:
        """Return the indices of the wrongly answered images, most confident first."""
        confidence = self.probabilities.max(axis=1)
        wrong = np.flatnonzero(~self.correct)
        return [int(i) for i in wrong[np.argsort(-confidence[wrong], kind="stable")]]

    def answer(self, index: int) -> dict[str, Any]:
        """Return one image's label and answer, the file named by class folder and name."""
        path, label, row = (
            self.split.paths[index],
            int(self.split.labels[index]),
            self.probabilities[index],
        )
        return {
            "file": f"{path.parent.name}/{path.name}",
            "label": self.split.class_names[label],
            "predicted": self.split.class_names[int(row.argmax())],
            "probability": round(float(row.max()), 4),
            "label_probability": round(float(row[label]), 4),
        }

    def _before_temperature(self) -> dict[str, Any] | None:
        """Undo the division by the temperature: log p times it are the logits, up to a constant."""
        temperature = self.model["temperature"]
        if temperature == 1.0:
            return None
        logits = np.log(np.clip(self.probabilities, 1e-12, 1.0)) * temperature
        return metrics.summary(metrics.softmax(logits), self.split.labels)


def evaluate(scorer: Scorer, split: Split) -> Evaluation:
    """Score a model on images; see ``scorer.score`` for what can go wrong."""
    return Evaluation(scorer.describe(), split, score(scorer, split))


def compare(first: Evaluation, second: Evaluation) -> dict[str, Any]:
    """Return the exact McNemar test of two models on the same images, as plain JSON types."""
    only_first = np.flatnonzero(first.correct & ~second.correct)
    only_second = np.flatnonzero(~first.correct & second.correct)
    return {
        "both_right": int(np.sum(first.correct & second.correct)),
        "only_first_right": len(only_first),
        "only_second_right": len(only_second),
        "both_wrong": int(np.sum(~first.correct & ~second.correct)),
        "mcnemar_exact_p": metrics.mcnemar_exact(first.correct, second.correct),
        "disagreements": [
            {
                "first": first.answer(int(i)),
                "second": second.answer(int(i)),
                "right": "first" if first.correct[i] else "second",
            }
            for i in _alternating(only_first, only_second)
        ],
    }


def _alternating(first: NDArray[np.int64], second: NDArray[np.int64]) -> list[int]:
    """Return both, one of each in turn, so that a gallery cut short shows both."""
    pairs = itertools.zip_longest(first.tolist(), second.tolist())
    return [index for pair in pairs for index in pair if index is not None]


def reliability(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """Return, per equal-width bin of confidence, how often the answer is right.

    ``confidence`` and ``accuracy`` are means over the bin's images; None where it has none.
    """
    confidence = probabilities.max(axis=1)
    hits = probabilities.argmax(axis=1) == labels
    index = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = []
    for b in range(BINS):
        inside = index == b
        count, right = int(inside.sum()), int(hits[inside].sum())
        rows.append(
            {
                "low": b / BINS,
                "high": (b + 1) / BINS,
                "images": count,
                "confidence": float(confidence[inside].mean()) if count else None,
                "accuracy": right / count if count else None,
                "accuracy_interval_95": list(metrics.wilson_interval(right, count))
                if count
                else None,
            }
        )
    return rows


def _per_class(confusion: NDArray[np.int64], names: tuple[str, ...]) -> list[dict[str, Any]]:
    figures = metrics.per_class(confusion)
    rows = []
    for index, name in enumerate(names):
        images, right = int(confusion[index].sum()), int(confusion[index, index])
        rows.append(
            {
                "label": name,
                "images": images,
                "precision": float(figures["precision"][index]),
                "recall": float(figures["recall"][index]),
                # a subsample may hold no picture of a class
                "recall_interval_95": list(metrics.wilson_interval(right, images))
                if images
                else [0.0, 1.0],
                "f1": float(figures["f1"][index]),
            }
        )
    return rows


def to_text(figures: dict[str, Any]) -> str:
    """Return the figures of one model as a table for a terminal."""
    found, model = figures["metrics"], figures["model"]
    low, high = found["accuracy_interval_95"]
    ece_low, ece_high = found["expected_calibration_error_interval_95"]
    lines = [
        f"{model['name']} {model['version']} ({model['kind']}, {model['sha256'][:12]})",
        f"  accuracy   {found['accuracy']:.4f}  95 % interval {low:.4f} to {high:.4f}  "
        f"({found['correct']} of {found['images']})",
        f"  macro-F1   {found['macro_f1']:.4f}",
        f"  ECE        {found['expected_calibration_error']:.4f}  "
        f"95 % bootstrap interval {ece_low:.4f} to {ece_high:.4f}",
        f"  NLL        {found['negative_log_likelihood']:.4f}",
        f"  Brier      {found['brier_score']:.4f}",
    ]
    if before := figures["metrics_before_temperature"]:
        lines.append(
            f"  before temperature {model['temperature']:.3f}: "
            f"ECE {before['expected_calibration_error']:.4f}, "
            f"NLL {before['negative_log_likelihood']:.4f}, Brier {before['brier_score']:.4f}"
        )
    lines.append(f"\n  {'class':<12}{'images':>7}{'precision':>11}{'recall':>9}{'F1':>9}")
    lines += [
        f"  {row['label']:<12}{row['images']:>7}{row['precision']:>11.3f}"
        f"{row['recall']:>9.3f}{row['f1']:>9.3f}"
        for row in figures["per_class"]
    ]
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("model", type=Path, help="a .tflite, a .keras or a run's folder")
    parser.add_argument("second", type=Path, nargs="?", help="compared with the first (McNemar)")
    images = parser.add_mutually_exclusive_group()
    images.add_argument("--folder", type=Path, help="a folder of one image folder per class")
    images.add_argument(
        "--split", choices=("validation", "test"), default="validation", help="of the data set"
    )
    add_dataset_option(parser)
    parser.add_argument("--out", type=Path, help=f"report's folder; default: in {OUTPUT}/")
    parser.add_argument("--no-gallery", action="store_true", help="no pictures in the report")
    parser.add_argument("--ledger", type=Path, default=ledger.LEDGER, help=argparse.SUPPRESS)
    parser.add_argument(
        "--must-be-recorded",
        action="store_true",
        help="fail where the test ledger does not hold this artifact (for CI)",
    )


def run(parsed: argparse.Namespace) -> None:
    """Evaluate as the command line says, print the figures and write the reports."""
    from training.evaluation.report import report_html

    if parsed.out and (parsed.out / "model.keras").exists():
        raise ModelFileError(
            f"{parsed.out} is a run's folder, and its report.json would be lost. Choose another "
            "--out."
        )
    split, images_name, is_test = _images(parsed)
    paths = [parsed.model, *([parsed.second] if parsed.second else [])]
    scorers = [load_scorer(path) for path in paths]  # both, before minutes go into the first
    evaluations = [evaluate(scorer, split) for scorer in scorers]
    report = {
        "images": {"name": images_name, "count": len(split), "classes": list(split.class_names)},
        "models": [evaluation.to_dict() for evaluation in evaluations],
        "comparison": compare(*evaluations) if len(evaluations) == 2 else None,
        "provenance": provenance(),
    }
    for figures in report["models"]:
        print("\n" + to_text(figures))
    if report["comparison"]:
        print("\n" + comparison_sentence(report))
    folder = parsed.out or OUTPUT / _report_name(evaluations, images_name)
    write_json(folder / "report.json", report)
    gallery = {} if parsed.no_gallery else _thumbnails(split, report)
    write_text(folder / "report.html", report_html(report, gallery))
    print(f"\nwrote {folder}/report.html and report.json")
    if is_test:
        for evaluation, figures in zip(evaluations, report["models"], strict=True):
            _record(evaluation, figures, report["provenance"], parsed)


def comparison_sentence(report: dict[str, Any]) -> str:
    """Return McNemar's result in words."""
    found = report["comparison"]
    first, second = (figures["model"] for figures in report["models"])
    p = found["mcnemar_exact_p"]
    verdict = "a difference that chance seldom makes" if p < 0.05 else "chance may explain it"
    return (
        f"Only {first['name']} {first['version']} ({first['kind']}) is right on "
        f"{found['only_first_right']} images, only {second['name']} {second['version']} "
        f"({second['kind']}) on {found['only_second_right']}: "
        f"exact McNemar p = {p:.4f}, {verdict}."
    )


def _images(parsed: argparse.Namespace) -> tuple[Split, str, bool]:
    """Return the images, their name, and whether they are the data set's test split."""
    if parsed.folder is None:
        root = find_dataset(parsed.dataset)
        return load_split(root, parsed.split), parsed.split, parsed.split == "test"
    split = load_folder(parsed.folder)
    return split, parsed.folder.name, _is_test_split(parsed.folder, parsed.dataset)


def _is_test_split(folder: Path, dataset: Path | None) -> bool:
    """Tell whether ``--folder`` names the test split by another way."""
    try:
        root = find_dataset(dataset)
    except ValueError:  # no data set here, so this is not its test split
        return False
    return folder.resolve() == (root / "test").resolve()


def _record(
    evaluation: Evaluation,
    figures: dict[str, Any],
    origin: dict[str, Any],
    parsed: argparse.Namespace,
) -> None:
    model = evaluation.model
    if model["kind"] != "tflite":
        print(f"{model['name']} is a .keras: scored on test, not an artifact of the ledger")
        return
    row = ledger.entry(
        model["sha256"], model["version"], origin["date"], origin["commit"], figures["metrics"]
    )
    print(ledger.record(row, parsed.ledger, must_be_recorded=parsed.must_be_recorded))


def _report_name(evaluations: list[Evaluation], images_name: str) -> str:
    models = "-against-".join(
        f"{e.model['name']}-{e.model['kind']}-{e.model['sha256'][:8]}" for e in evaluations
    )
    return f"{models}-{images_name}"


def _thumbnails(split: Split, report: dict[str, Any]) -> dict[str, str]:
    """Return small JPEGs as data URIs, by file, of every picture that the report shows."""
    from training.evaluation.report import GALLERY, thumbnail

    wanted = {answer["file"] for m in report["models"] for answer in m["mistakes"][:GALLERY]}
    if report["comparison"]:
        wanted |= {d["first"]["file"] for d in report["comparison"]["disagreements"][:GALLERY]}
    by_name = {f"{path.parent.name}/{path.name}": path for path in split.paths}
    return {name: thumbnail(by_name[name].read_bytes()) for name in sorted(wanted)}
