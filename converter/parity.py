"""The gate: does the artifact, served, answer as the Keras model does, from the same bytes?

Keras side: ``reference`` (its own decoding and resizing, the run's configuration).
Serving side: ``decode_image``, ``preprocess`` and ``Classifier``, told everything by the artifact.
Whatever differs on the way shows: another resize filter or scale, swapped channels, shifted
labels, a bad quantisation. The limits are in ``THRESHOLDS`` and nowhere else; nothing overrides.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lambda_function.classifier import Classifier
from lambda_function.images.decode import decode_image, preprocess
from lambda_function.metadata import InputSpec, ModelMetadata
from training.data.dataset import Split, load_folder, load_split
from training.evaluation.metrics import mcnemar_exact, wilson_interval

TRAIN_IMAGES = 1000
TRAIN_SEED = 4  # of the choice of train images; any will do, as long as it stays
WORST_IMAGES = 8
HALF_A_GREY_LEVEL = 0.5 / 127.5  # in the model's input, -1..1


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """How far an artifact may be from the Keras model.

    Attributes:
        min_agreement: share of images with the same most probable label.
        max_mean_difference: of a probability, over all images and labels.
        max_difference: of any single probability.
        max_accuracy_loss: on images not trained on; 0.01 is one point.
        max_input_difference: mean difference of an image's tensor, for the worst image.
        max_sum_error: of an image's probabilities from 1; integer softmaxes answer in 1/256.
    """

    min_agreement: float
    max_mean_difference: float
    max_difference: float
    max_accuracy_loss: float
    max_input_difference: float = HALF_A_GREY_LEVEL
    max_sum_error: float = 0.02


_QUANTISED = Thresholds(0.98, 0.02, 1.0, 0.01)
THRESHOLDS = {
    "float32": Thresholds(1.0, 1e-4, 1e-3, 0.0),
    "float16": Thresholds(0.995, 1e-3, 0.05, 0.005),
    "dynamic": _QUANTISED,
    "int8": _QUANTISED,
    "int8_float_head": _QUANTISED,
}


@dataclasses.dataclass(frozen=True)
class ParityImages:
    """The images that both sides answer.

    Attributes:
        split: all of them; those not trained on first.
        held_out: how many those are; accuracy is theirs.
        description: for the report.
    """

    split: Split
    held_out: int
    description: str


@dataclasses.dataclass(frozen=True)
class Truth:
    """What the Keras side says of the images.

    Attributes:
        labels: in model order.
        spec: of the training run.
        probabilities: float32, (images, classes).
        tensor: image bytes -> float32, (height, width, 3).
    """

    labels: tuple[str, ...]
    spec: InputSpec
    probabilities: NDArray[np.float32]
    tensor: Callable[[bytes, InputSpec], NDArray[np.float32]]


@dataclasses.dataclass(frozen=True)
class Check:
    """One line of the verdict.

    Attributes:
        name: what was measured.
        found: the value.
        limit: what it may be at most (or at least, or must be), in words.
        passed: whether it is.
    """

    name: str
    found: str
    limit: str
    passed: bool


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """What was measured, against what was allowed.

    Attributes:
        recipe: of the artifact.
        artifact_sha256: of the whole file.
        images: what they were.
        figures: plain JSON types.
        checks: one per limit.
        worst: the images whose answers differ most, the worst first.
    """

    recipe: str
    artifact_sha256: str
    images: str
    figures: dict[str, Any]
    checks: tuple[Check, ...]
    worst: tuple[dict[str, Any], ...]

    @property
    def passed(self) -> bool:
        """Whether the artifact may be published."""
        return all(check.passed for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, nested."""
        return {**dataclasses.asdict(self), "passed": self.passed}

    def table(self) -> str:
        """Return the verdict for people; with the worst images where it failed."""
        lines = [f"{self.recipe}: {self.images}"]
        for check in self.checks:
            mark = "ok    " if check.passed else "FAILED"
            lines.append(f"  {mark} {check.name:<34} {check.found:<42} {check.limit}")
        if not self.passed:
            lines.append("  worst images (Keras, then served):")
            lines += [
                f"    {w['difference']:.3f}  {w['keras']:<22} {w['served']:<22} {w['image']}"
                for w in self.worst
            ]
        return "\n".join(lines)


Preprocess = Callable[[Any, InputSpec], NDArray[np.float32]]


def fixed_images(dataset: Path, labels: tuple[str, ...]) -> ParityImages:
    """Return the validation split and 1,000 train images that are always the same."""
    validation = load_split(dataset, "validation", labels)
    train = load_split(dataset, "train", labels)
    order = np.random.default_rng(TRAIN_SEED).permutation(len(train))
    chosen = train.subset(np.sort(order[:TRAIN_IMAGES]))
    both = Split(
        validation.paths + chosen.paths, np.concatenate([validation.labels, chosen.labels]), labels
    )
    return ParityImages(
        both, len(validation), f"{len(validation)} validation and {len(chosen)} train images"
    )


def folder_images(folder: Path, labels: tuple[str, ...]) -> ParityImages:
    """Return the images of a folder of class folders, taken as not trained on."""
    split = load_folder(folder, labels)
    return ParityImages(split, len(split), f"{len(split)} images of {folder.name}")


def compare(
    artifact: bytes, truth: Truth, images: ParityImages, *, preprocess: Preprocess = preprocess
) -> ParityReport:
    """Answer the images on the serving side and hold the answers against the Keras side's.

    Args:
        artifact: with embedded metadata.
        truth: the Keras side.
        images: that ``truth`` speaks of.
        preprocess: the serving side's; tests pass faulty ones.

    Raises:
        MetadataError, ArtifactError: the artifact cannot be served at all.
    """
    classifier = Classifier(artifact, num_threads=2)
    metadata = classifier.metadata
    thresholds = THRESHOLDS.get(metadata.recipe, _QUANTISED)
    described = _description_checks(metadata, truth)
    if not all(check.passed for check in described if check.name == "label names"):
        return _report(artifact, metadata, images, {}, described, ())
    served, input_differences = _serve(classifier, truth, images.split.paths, preprocess)
    figures = _figures(truth.probabilities, served, images, float(np.max(input_differences)))
    checks = described + _checks(figures, thresholds)
    return _report(artifact, metadata, images, figures, checks, _worst(truth, served, images.split))


def _serve(
    classifier: Classifier, truth: Truth, paths: Sequence[Path], preprocess: Preprocess
) -> tuple[NDArray[np.float32], list[float]]:
    """Return the served probabilities in the truth's label order, and each input's difference."""
    spec, names = classifier.metadata.input, classifier.metadata.labels
    order = [names.index(label) for label in truth.labels]
    served, differences = [], []
    for path in tqdm(paths, desc=f"served {classifier.metadata.recipe}", unit="image"):
        data = path.read_bytes()
        tensor = preprocess(decode_image(data, target=spec), spec)
        served.append(classifier.predict(tensor)[order])
        expected = truth.tensor(data, truth.spec)
        same_shape = expected.shape == tensor.shape[1:]
        # A sized-down worst case stands for "not comparable": it can never pass.
        difference = np.abs(tensor[0] - expected).mean() if same_shape else np.inf
        differences.append(float(difference))
    return np.stack(served), differences


def _description_checks(metadata: ModelMetadata, truth: Truth) -> tuple[Check, ...]:
    same_names = sorted(metadata.labels) == sorted(truth.labels)
    return (
        Check("label names", _short(metadata.labels), f"= {_short(truth.labels)}", same_names),
        Check(
            "label order",
            "as trained" if metadata.labels == truth.labels else _short(metadata.labels),
            f"= {_short(truth.labels)}",
            metadata.labels == truth.labels,
        ),
        Check(
            "input",
            _input_text(metadata.input),
            f"= {_input_text(truth.spec)}",
            metadata.input == truth.spec,
        ),
    )


def _figures(
    keras: NDArray[np.float32],
    served: NDArray[np.float32],
    images: ParityImages,
    input_difference: float,
) -> dict[str, Any]:
    difference = np.abs(keras.astype(np.float64) - served)
    labels = images.split.labels[: images.held_out]
    keras_right = keras[: images.held_out].argmax(axis=1) == labels
    served_right = served[: images.held_out].argmax(axis=1) == labels
    return {
        "images": len(keras),
        "agreement": float(np.mean(keras.argmax(axis=1) == served.argmax(axis=1))),
        "mean_difference": float(difference.mean()),
        "largest_difference": float(difference.max()),
        "largest_sum_error": float(np.abs(served.sum(axis=1, dtype=np.float64) - 1).max()),
        "input_difference": input_difference,
        "held_out_images": images.held_out,
        "accuracy_keras": _accuracy(keras_right),
        "accuracy_served": _accuracy(served_right),
        "accuracy_loss": float(keras_right.mean() - served_right.mean()),
        "mcnemar_p": mcnemar_exact(keras_right, served_right),
    }


def _accuracy(right: NDArray[np.bool_]) -> dict[str, Any]:
    correct, total = int(right.sum()), len(right)
    interval = list(wilson_interval(correct, total))
    return {"accuracy": correct / total, "interval_95": interval, "correct": correct}


def _checks(figures: dict[str, Any], limits: Thresholds) -> tuple[Check, ...]:
    """Every comparison is written so that a NaN fails."""

    def at_most(name: str, key: str, limit: float, note: str = "") -> Check:
        found = figures[key]
        return Check(name, f"{found:.5f}{note}", f"<= {limit:g}", bool(found <= limit))

    keras, served = figures["accuracy_keras"], figures["accuracy_served"]
    sides = f" ({_percent(keras)} -> {_percent(served)})"
    agreement = figures["agreement"]
    return (
        at_most("input difference, worst image", "input_difference", limits.max_input_difference),
        Check(
            "same most probable label",
            f"{agreement:.5f}",
            f">= {limits.min_agreement:g}",
            bool(agreement >= limits.min_agreement),
        ),
        at_most("mean probability difference", "mean_difference", limits.max_mean_difference),
        at_most("largest probability difference", "largest_difference", limits.max_difference),
        at_most("accuracy loss, not trained on", "accuracy_loss", limits.max_accuracy_loss, sides),
        at_most("probabilities' sum, error", "largest_sum_error", limits.max_sum_error),
    )


def _worst(truth: Truth, served: NDArray[np.float32], split: Split) -> tuple[dict[str, Any], ...]:
    keras = truth.probabilities
    largest = np.abs(keras - served).max(axis=1)
    order = np.argsort(-np.nan_to_num(largest, nan=np.inf), kind="stable")[:WORST_IMAGES]
    return tuple(
        {
            "image": f"{split.paths[i].parent.name}/{split.paths[i].name}",
            "difference": float(largest[i]),
            "keras": _answer(keras[i], truth.labels),
            "served": _answer(served[i], truth.labels),
        }
        for i in order
    )


def _report(
    artifact: bytes,
    metadata: ModelMetadata,
    images: ParityImages,
    figures: dict[str, Any],
    checks: tuple[Check, ...],
    worst: tuple[dict[str, Any], ...],
) -> ParityReport:
    digest = hashlib.sha256(artifact).hexdigest()
    return ParityReport(metadata.recipe, digest, images.description, figures, checks, worst)


def _answer(probabilities: NDArray[np.float32], labels: tuple[str, ...]) -> str:
    best = int(probabilities.argmax())
    return f"{labels[best]} {probabilities[best]:.3f}"


def _percent(accuracy: dict[str, Any]) -> str:
    low, high = accuracy["interval_95"]
    return f"{accuracy['accuracy']:.4f} [{low:.3f}, {high:.3f}]"


def _short(labels: Sequence[str]) -> str:
    return ",".join(label[:3] for label in labels)


def _input_text(spec: InputSpec) -> str:
    return f"{spec.height}x{spec.width} {spec.resize_filter} {spec.normalisation}"
