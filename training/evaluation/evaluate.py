"""`python -m training evaluate MODEL [SECOND] --split validation`: how good is a model?

Every figure comes with its sample size and interval. ``report.json`` holds the figures for
programs. ``report.html`` shows the same figures to people: one file that fetches nothing.
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
from training.data.folds import groups_of
from training.data.images import load_image
from training.errors import ModelFileError
from training.evaluation import metrics, report, test_log
from training.evaluation.loaded_model import (
    LoadedModel,
    load_model,
    predict_split,
    refuse_fold_on,
)
from training.evaluation.model_card import card
from training.files import write_json, write_text
from training.options import add_options
from training.provenance import provenance

OUTPUT = Path("runs") / "evaluations"
SENDERS = "senders.csv"  # in the data set: the groups, unless --groups names another file


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A model's predictions on the images of one split.

    Attributes:
        model: from ``LoadedModel.describe``.
        split: the images.
        probabilities: float64, (images, classes), columns as ``split.class_names``.
        groups: (images,), such as the person who sent each image. None if nobody knows them.
    """

    model: dict[str, Any]
    split: Split
    probabilities: NDArray[np.float64]
    groups: NDArray[np.str_] | None = None

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the most probable class is the label, bool, (images,)."""
        return np.asarray(self.probabilities.argmax(axis=1) == self.split.labels)

    def to_dict(self) -> dict[str, Any]:
        """Return every figure as plain JSON types."""
        labels = self.split.labels
        confusion = metrics.confusion_matrix(self.probabilities, labels)
        return {
            "model": self.model,
            "metrics": metrics.summary(self.probabilities, labels),
            "metrics_before_temperature": self._before_temperature(),
            "per_class": class_rows(confusion, self.split.class_names),
            "per_group": None
            if self.groups is None
            else metrics.by_group(self.groups, self.correct),
            "confusion": confusion.tolist(),
            "reliability": metrics.reliability(self.probabilities, labels),
            "mistakes": [self.prediction(index) for index in self.worst_mistakes()],
        }

    def worst_mistakes(self) -> list[int]:
        """Return the indices of the misclassified images, most confident first."""
        confidence = self.probabilities.max(axis=1)
        wrong = np.flatnonzero(~self.correct)
        return [int(i) for i in wrong[np.argsort(-confidence[wrong], kind="stable")]]

    def prediction(self, index: int) -> dict[str, Any]:
        """Return the label and the prediction of one image, which its name identifies."""
        row = self.probabilities[index]
        label = int(self.split.labels[index])
        return {
            "file": self.split.names[index],
            "label": self.split.class_names[label],
            "predicted": self.split.class_names[int(row.argmax())],
            "probability": round(float(row.max()), 4),
            "label_probability": round(float(row[label]), 4),
        }

    def _before_temperature(self) -> dict[str, Any] | None:
        """Return the metrics of the undivided logits: log p times temperature, up to a constant."""
        temperature = self.model["temperature"]
        if temperature == 1.0:
            return None
        logits = np.log(np.clip(self.probabilities, 1e-12, 1.0)) * temperature
        return metrics.summary(metrics.softmax(logits), self.split.labels)


def evaluate(
    model: LoadedModel, split: Split, groups: NDArray[np.str_] | None = None
) -> Evaluation:
    """Run a model on the images of a split. ``predict_split`` names the errors."""
    return Evaluation(model.describe(), split, predict_split(model, split), groups)


def mistake_maps(
    model: LoadedModel, evaluation: Evaluation
) -> dict[str, NDArray[np.floating[Any]]]:
    """Return the activation map of the predicted class for the mistakes that a report shows.

    Returns:
        By file, float, (height, width). Empty if the model has no activation map.
    """
    worst = evaluation.worst_mistakes()[: report.GALLERY]
    if model.activation_maps is None or not worst:
        return {}
    paths = [evaluation.split.paths[index] for index in worst]
    maps = model.activation_maps(np.stack([load_image(path, model.input) for path in paths]))
    found = [evaluation.prediction(index) for index in worst]
    return {
        one["file"]: maps[i, :, :, model.labels.index(one["predicted"])]
        for i, one in enumerate(found)
    }


def compare(first: Evaluation, second: Evaluation) -> dict[str, Any]:
    """Return the exact McNemar test of two models on the same images, as plain JSON types."""
    only_first = np.flatnonzero(first.correct & ~second.correct)
    only_second = np.flatnonzero(~first.correct & second.correct)
    p = metrics.mcnemar_exact(first.correct, second.correct)
    verdict = "chance seldom makes such a difference" if p < 0.05 else "chance may explain it"
    return {
        "both_right": int(np.sum(first.correct & second.correct)),
        "only_first_right": len(only_first),
        "only_second_right": len(only_second),
        "both_wrong": int(np.sum(~first.correct & ~second.correct)),
        "mcnemar_exact_p": p,
        "sentence": (
            f"Only {report.title_of(first.model)} is right on {len(only_first)} images, only "
            f"{report.title_of(second.model)} on {len(only_second)}: exact McNemar p = {p:.4f}, "
            f"{verdict}."
        ),
        "disagreements": [
            {
                "first": first.prediction(i),
                "second": second.prediction(i),
                "right": "first" if first.correct[i] else "second",
            }
            for i in _alternating(only_first, only_second)
        ],
    }


def class_rows(confusion: NDArray[np.int64], class_names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the metrics of every class, as plain JSON types.

    Args:
        confusion: int64, (classes, classes), rows are labels. A class may have no image.
        class_names: in the order of the rows.
    """
    figures = metrics.per_class(confusion)
    images, hits = confusion.sum(axis=1).tolist(), np.diag(confusion).tolist()
    return [
        {
            "label": name,
            "images": images[index],
            "precision": float(figures["precision"][index]),
            "recall": float(figures["recall"][index]),
            "recall_interval_95": metrics.wilson_interval(hits[index], images[index])
            if images[index]
            else (0.0, 1.0),
            "f1": float(figures["f1"][index]),
        }
        for index, name in enumerate(class_names)
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("model", type=Path, help="a .tflite, a .keras or a run's folder")
    parser.add_argument("second", type=Path, nargs="?", help="compared with the first (McNemar)")
    images = parser.add_mutually_exclusive_group()
    images.add_argument("--folder", type=Path, help="a folder of one image folder per class")
    images.add_argument(
        "--split", choices=("validation", "test"), default="validation", help="of the data set"
    )
    add_options(parser, "dataset")
    parser.add_argument(
        "--groups",
        type=Path,
        help="CSV with columns image and group (or sender): adds the accuracy of each group. "
        f"Default: {SENDERS} of the data set, if it is there",
    )
    parser.add_argument("--out", type=Path, help=f"folder of the report. Default: in {OUTPUT}/")
    parser.add_argument("--no-gallery", action="store_true", help="no images in the report")
    parser.add_argument("--test-log", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "--must-be-recorded",
        action="store_true",
        help="fail if the test log does not hold this artifact (for CI)",
    )


def run(parsed: argparse.Namespace) -> None:
    """Evaluate the models, print the figures and write the reports."""
    if parsed.out and (parsed.out / "model.keras").exists():
        raise ModelFileError(
            f"{parsed.out} is a run's folder, and its report.json would be lost. Choose another "
            "--out."
        )
    paths = [parsed.model, *([parsed.second] if parsed.second else [])]
    models = [load_model(path) for path in paths]  # all, before minutes go into the first
    split, root, images_name, is_test = _find_images(parsed)
    for model in models:
        refuse_fold_on(images_name, model)
    groups = _find_groups(split, root, parsed.groups)
    evaluations = [evaluate(model, split, groups) for model in models]
    result: dict[str, Any] = {
        "images": {"name": images_name, "count": len(split), "classes": list(split.class_names)},
        "models": [evaluation.to_dict() for evaluation in evaluations],
        "comparison": compare(*evaluations) if len(evaluations) == 2 else None,
        "provenance": provenance(),
    }
    for index in range(len(models)):
        print("\n" + card(result, index))
    if result["comparison"]:
        print("\n" + result["comparison"]["sentence"])
    folder = parsed.out or OUTPUT / _report_name(models, images_name)
    write_json(folder / "report.json", result)
    shown = {} if parsed.no_gallery else dict(zip(split.names, split.paths, strict=True))
    maps = [mistake_maps(*pair) if shown else {} for pair in zip(models, evaluations, strict=True)]
    write_text(folder / "report.html", report.render(result, shown, maps))
    print(f"\nwrote {folder}/report.html and report.json")
    if is_test:
        for path, figures in zip(paths, result["models"], strict=True):
            _record(path, figures, result["provenance"], parsed)


def _find_images(parsed: argparse.Namespace) -> tuple[Split, Path, str, bool]:
    """Return the images, their root, their name, and whether they are the data set's test split."""
    if parsed.folder is None:
        is_test = parsed.split == "test"
        # A run makes validation images of its own, and never test images.
        root = find_dataset(parsed.dataset, model=None if is_test else parsed.model)
        return load_split(root, parsed.split), root, parsed.split, is_test
    split = load_folder(parsed.folder)
    is_test = _is_test_split(parsed.folder, parsed.dataset)
    return split, parsed.folder, parsed.folder.name, is_test


def _find_groups(split: Split, root: Path, named: Path | None) -> NDArray[np.str_] | None:
    """Return the group of every image, or None if no file says it."""
    file = named or root / SENDERS
    if named is None and not file.is_file():
        return None
    return np.array(groups_of(split, root, file))


def _is_test_split(folder: Path, dataset: Path | None) -> bool:
    """Tell whether ``--folder`` names the test split by another way."""
    try:
        root = find_dataset(dataset)
    except ValueError:  # there is no data set here that has a test split
        return False
    return folder.resolve() == (root / "test").resolve()


def _record(
    path: Path, figures: dict[str, Any], origin: dict[str, Any], parsed: argparse.Namespace
) -> None:
    model = figures["model"]
    if model["kind"] != "tflite":
        print(f"{model['name']} is a .keras: scored on test. The test log holds artifacts only.")
        return
    row = test_log.log_row(
        model["sha256"], model["version"], origin["date"], origin["commit"], figures["metrics"]
    )
    log = parsed.test_log or test_log.log_of(path, model["name"])
    print(test_log.record(row, log, must_be_recorded=parsed.must_be_recorded))


def _report_name(models: list[LoadedModel], images_name: str) -> str:
    names = "-against-".join(f"{model.name}-{model.kind}-{model.sha256[:8]}" for model in models)
    return f"{names}-{images_name}"


def _alternating(first: NDArray[np.int64], second: NDArray[np.int64]) -> list[int]:
    """Return both lists, one of each in turn, so that the start of a gallery shows both."""
    pairs = itertools.zip_longest(first.tolist(), second.tolist())
    return [index for pair in pairs for index in pair if index is not None]
