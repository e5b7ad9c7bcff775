"""The end of a run: the temperature, the figures on validation, and what looks wrong in them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.config import TrainConfig
from training.data.dataset import Split
from training.data.images import batches
from training.devices import predict
from training.evaluation import metrics
from training.fit.backbone import with_probabilities
from training.provenance import provenance

MAX_GAP = 0.2  # of accuracy, between training and validation


def calibrate(
    whole: keras.Model, config: TrainConfig, validation: Split
) -> tuple[keras.Model, dict[str, Any]]:
    """Fit the temperature on validation, and put it and the softmax into the graph.

    Args:
        whole: images -> logits, float32.
        config: of the run.
        validation: images that the weights have not been trained on.

    Returns:
        Images -> probabilities, and a run's report.
    """
    report = calibration_report(predict_logits(whole, validation, config), validation.labels)
    return with_probabilities(whole, report["temperature"]), report


def calibration_report(
    logits: NDArray[np.floating[Any]], labels: NDArray[np.int64]
) -> dict[str, Any]:
    """Fit the temperature and return a run's report.

    Args:
        logits: float, (images, classes), of validation images.
        labels: int64, (images,).
    """
    temperature = metrics.fit_temperature(logits, labels)
    return {
        "temperature": temperature,
        "metrics": {
            "validation_before_temperature": metrics.summary(metrics.softmax(logits), labels),
            "validation": metrics.summary(metrics.softmax(logits / temperature), labels),
        },
        "backend": keras.backend.backend(),
        "provenance": provenance(),
    }


def predict_logits(model: keras.Model, split: Split, config: TrainConfig) -> NDArray[np.float32]:
    """Return float32, (images, classes): a model's output on the images of a split."""
    return np.concatenate([predict(model, batch) for batch in batches(split, config.input)])


def find_problems(report: dict[str, Any], validation: Split, history: Path) -> list[str]:
    """Return a sentence for each sign that the model is not to be trusted.

    Args:
        report: of the run, see ``calibrate``.
        validation: the images of the report.
        history: ``history.csv`` of the run.
    """
    figures = report["metrics"]["validation"]
    counts = np.bincount(validation.labels, minlength=len(validation.class_names))
    largest, share = validation.class_names[int(counts.argmax())], counts.max() / counts.sum()
    problems = []
    if figures["accuracy_interval_95"][0] <= share:
        problems.append(
            f"validation accuracy {figures['accuracy']:.2f} is not clearly better than always "
            f"answering {largest!r} ({share:.2f}). Check the labels with `make data-check`, add "
            "images, or train longer with --epochs."
        )
    trained = _training_accuracy(history, report["checkpoint"])
    if trained - figures["accuracy"] > MAX_GAP:
        problems.append(
            f"training accuracy {trained:.2f} is far above validation accuracy "
            f"{figures['accuracy']:.2f}: the model has memorised its images. Add images, or use "
            "more --views, or check that validation shows the same things as training."
        )
    low, high = metrics.TEMPERATURE_RANGE
    if not low * 1.01 < report["temperature"] < high / 1.01:
        problems.append(
            f"the temperature {report['temperature']:.2f} is at the end of its range ({low:g} to "
            f"{high:g}): {figures['images']} validation images are too few, or too easy, to "
            "calibrate probabilities. Add validation images before you trust the scores."
        )
    return problems


def print_report(report: dict[str, Any]) -> None:
    """Print a run's figures on validation in one line, and its problems in one line each."""
    figures = report["metrics"]["validation"]
    low, high = figures["accuracy_interval_95"]
    print(
        f"validation accuracy {figures['accuracy']:.4f} (95 % interval {low:.4f} to {high:.4f}, "
        f"{figures['correct']} of {figures['images']}), macro-F1 {figures['macro_f1']:.4f}, "
        f"ECE {figures['expected_calibration_error']:.4f}, "
        f"temperature {report['temperature']:.3f}"
    )
    for problem in report.get("problems", []):
        print(f"warning: {problem}")


def _training_accuracy(history: Path, checkpoint: str) -> float:
    epoch = int(checkpoint.split("_")[1]) - 1
    with history.open(newline="") as file:
        return next(float(r["accuracy"]) for r in csv.DictReader(file) if int(r["epoch"]) == epoch)
