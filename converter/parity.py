"""The gate: does the served artifact predict as the original model does, from the same bytes?

Reference side: ``reference``, with its own decoding, resizing and scaling.
Serving side: ``decode_image``, ``preprocess`` and ``Classifier``, with the artifact's metadata.
The gate sees another resize filter or scale, swapped channels, shifted labels, a bad
quantisation. The limits stand in ``THRESHOLDS`` and nowhere else. Nothing overrides them.
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

from converter.reference import ReferenceMaps, reference_tensor
from converter.sources.feature_distance import SHARE
from lambda_function.classifier import Classifier
from lambda_function.images.decode import preprocess
from lambda_function.metadata import InputSpec, MapSpec, ModelMetadata
from training.data.dataset import Split, load_folder, load_split
from training.data.images import read_image
from training.evaluation.activation_maps import map_correlations, map_error
from training.evaluation.metrics import mcnemar_exact, wilson_interval

TRAIN_IMAGES = 1000
TRAIN_SEED = 4  # of the choice of train images. Any seed will do, as long as it stays
WORST_IMAGES = 8
HALF_A_GREY_LEVEL = 0.5 / 255  # as a share of the input's range
INPUT_RANGE = {"xception": 2.0, "tf": 2.0, "torch": 4.5, "caffe": 255.0, "0..1": 1.0, "0..255": 255}


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """How far an artifact may be from the original model.

    A share of a small set of images may be less than one image. One image is always allowed,
    unless the limit is zero: a single image says nothing about a share.

    Attributes:
        max_disagreement: share of images with another most probable label.
        max_mean_difference: of a probability, over all images and labels.
        max_difference: of any single probability.
        max_accuracy_loss: on images not trained on. 0.01 is one point.
        max_input_difference: mean difference of an image's tensor for the worst image, as a share
            of the input's range.
        max_sum_error: of an image's probabilities from 1. Integer softmaxes give steps of 1/256.
        max_map_error: of a logit that follows from the activation map, for the worst image.
        least_probability: of a class whose logit is compared. Logits follow from probabilities,
            and integer softmaxes round small ones.
        min_map_correlation: mean correlation of the activation maps with the original model's.
        max_distance_error: mean difference of the feature distance, as a share of it.
        max_uncertain: share of the images not trained on that are uncertain by their distance.
    """

    max_disagreement: float
    max_mean_difference: float
    max_difference: float
    max_accuracy_loss: float
    max_input_difference: float = HALF_A_GREY_LEVEL
    max_sum_error: float = 0.02
    max_map_error: float = 1e-3
    least_probability: float = 1e-20
    min_map_correlation: float = 0.95
    max_distance_error: float = 0.01
    max_uncertain: float = SHARE


_QUANTISED = Thresholds(0.02, 0.02, 1.0, 0.01, max_map_error=0.05, max_distance_error=0.2)
THRESHOLDS = {
    "float32": Thresholds(0.0, 1e-4, 1e-3, 0.0),
    "float16": Thresholds(0.005, 1e-3, 0.05, 0.005),
    "dynamic": _QUANTISED,
    "int8": dataclasses.replace(_QUANTISED, least_probability=0.1),
    "int8_float_head": _QUANTISED,
    "imported": Thresholds(0.005, 1e-3, 0.05, 0.005),  # a TFLite file, compared with itself
}


UNSEEN = ", not trained on"  # said of the held-out images, where that is known
DISTANCE_ERROR = "feature distance, mean error"
DISTANCE_REMEDY = (
    "The graph rounds the constants of the distance. A network of few features, or with features "
    "that are nearly always 0, loses too much by it: leave out --uncertain."
)


@dataclasses.dataclass(frozen=True)
class ParityImages:
    """The images that both sides classify.

    Attributes:
        split: all images, those not trained on first.
        held_out: number of images not trained on. Accuracy is measured on these. 0 for images
            without labels.
        description: for the report.
    """

    split: Split
    held_out: int
    description: str


@dataclasses.dataclass(frozen=True)
class ReferencePredictions:
    """What the original model says of the images.

    Attributes:
        labels: in model order.
        spec: of the original model.
        probabilities: float32, (images, classes).
        notes: sentences for the report, such as what the comparison cannot show.
        maps: the activation maps, if the artifact must have them.
        distances: float64, (images,), the feature distances, if the artifact must measure them.
    """

    labels: tuple[str, ...]
    spec: InputSpec
    probabilities: NDArray[np.float32]
    notes: tuple[str, ...] = ()
    maps: ReferenceMaps | None = None
    distances: NDArray[np.float64] | None = None


@dataclasses.dataclass(frozen=True)
class ServedPredictions:
    """What the artifact says of the images, in the reference's label order.

    Attributes:
        probabilities: float32, (images, classes).
        maps: float32, (images, height, width, classes). Empty if the artifact has none.
        distances: float64, (images,). Empty if the artifact measures none.
        input_differences: of each image's tensor from the reference's, as a share of its range.
    """

    probabilities: NDArray[np.float32]
    maps: NDArray[np.float32]
    distances: NDArray[np.float64]
    input_differences: list[float]


@dataclasses.dataclass(frozen=True)
class Check:
    """One line of the verdict.

    Attributes:
        name: what was measured.
        found: the value.
        limit: the largest value allowed, or the value required, in words.
        passed: whether the value is within the limit.
    """

    name: str
    found: str
    limit: str
    passed: bool


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """What was measured, beside what is allowed.

    Attributes:
        recipe: of the artifact.
        artifact_sha256: of the whole file.
        images: a description.
        figures: plain JSON types.
        checks: one per limit.
        worst: the images whose predictions differ most, the worst first.
        worst_maps: the images whose activation maps correlate least, the worst first.
        notes: what the comparison cannot show.
    """

    recipe: str
    artifact_sha256: str
    images: str
    figures: dict[str, Any]
    checks: tuple[Check, ...]
    worst: tuple[dict[str, Any], ...]
    worst_maps: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the artifact may be published."""
        return all(check.passed for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, nested."""
        return {**dataclasses.asdict(self), "passed": self.passed}

    def table(self) -> str:
        """Return the verdict for people, with the worst images if it failed."""
        lines = [f"{self.recipe}: {self.images}", *(f"  note: {note}" for note in self.notes)]
        for check in self.checks:
            mark = "ok    " if check.passed else "FAILED"
            lines.append(f"  {mark} {check.name:<34} {check.found:<42} {check.limit}")
            if check.name == DISTANCE_ERROR and not check.passed:
                lines.append(f"         {DISTANCE_REMEDY}")
        if self.worst_maps:
            lines.append("  activation maps that correlate least:")
            lines += [f"    {w['correlation']:.3f}  {w['image']}" for w in self.worst_maps]
        if not self.passed:
            lines.append("  worst images (reference, then served):")
            lines += [
                f"    {w['difference']:.3f}  {w['reference']:<22} {w['served']:<22} {w['image']}"
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
    """Return the images of a folder of class folders, assumed not to be trained on."""
    split = load_folder(folder, labels)
    return ParityImages(split, len(split), f"{len(split)} images of {folder.name}")


def compare(
    artifact: bytes,
    reference: ReferencePredictions,
    images: ParityImages,
    *,
    preprocess: Preprocess = preprocess,
) -> ParityReport:
    """Serve the artifact on the images and compare its predictions with the original model's.

    Args:
        artifact: with embedded metadata.
        reference: the original model's predictions of the same images.
        images: to classify.
        preprocess: of the serving side. Tests pass faulty ones.

    Raises:
        MetadataError, ArtifactError: the artifact cannot be served at all.
        DatasetError: an image cannot be served. The message names it.
    """
    classifier = Classifier(artifact, num_threads=2)
    metadata = classifier.metadata
    checks = _description_checks(metadata, reference)
    figures: dict[str, Any] = {}
    worst: tuple[dict[str, Any], ...] = ()
    worst_maps: tuple[dict[str, Any], ...] = ()
    if sorted(metadata.labels) == sorted(reference.labels):
        limits = THRESHOLDS.get(metadata.recipe, _QUANTISED)
        served = _serve(classifier, reference, images.split.paths, preprocess)
        figures = _figures(
            reference.probabilities,
            served.probabilities,
            images,
            float(np.max(served.input_differences)),
        )
        unseen = "" if "imported_from" in metadata.conversion else UNSEEN
        checks += _checks(figures, limits, unseen)
        worst = _worst(reference, served.probabilities, images.split)
        if reference.maps and _has_maps_like(metadata, reference.maps):
            best = reference.probabilities.argmax(axis=1)
            correlations = map_correlations(reference.maps.maps, served.maps, best)
            figures |= {
                "map_correlation": float(correlations.mean()),
                "map_error": map_error(
                    served.maps,
                    reference.maps.bias,
                    served.probabilities,
                    temperature=metadata.temperature,
                    least_probability=limits.least_probability,
                ),
            }
            checks += _map_checks(figures, limits)
            worst_maps = _worst_maps(correlations, images.split)
        if reference.distances is not None and metadata.feature_distance is not None:
            figures |= distance_figures(
                reference.distances,
                served.distances,
                images.held_out,
                metadata.feature_distance.farthest,
            )
            checks += _distance_checks(figures, limits, unseen)
    return ParityReport(
        metadata.recipe,
        hashlib.sha256(artifact).hexdigest(),
        images.description,
        figures,
        checks,
        worst,
        worst_maps,
        reference.notes,
    )


def _serve(
    classifier: Classifier,
    reference: ReferencePredictions,
    paths: Sequence[Path],
    preprocess: Preprocess,
) -> ServedPredictions:
    """Return what the artifact says of the images, in the reference's label order."""
    spec, names = classifier.metadata.input, classifier.metadata.labels
    order = [names.index(label) for label in reference.labels]
    served, maps, distances, differences = [], [], [], []
    for path in tqdm(
        paths, desc=f"served {classifier.metadata.recipe}", unit="image", disable=None
    ):
        tensor = preprocess(read_image(path, spec), spec)
        outputs = classifier.predict_all(tensor)
        served.append(outputs.probabilities[order])
        if outputs.activation_map is not None:
            maps.append(outputs.activation_map[..., order])
        if outputs.feature_distance is not None:
            distances.append(outputs.feature_distance)
        expected = reference_tensor(path.read_bytes(), reference.spec)
        # Tensors of other shapes cannot be compared, and never pass.
        same_shape = expected.shape == tensor.shape[1:]
        difference = np.abs(tensor[0] - expected).mean() if same_shape else np.inf
        differences.append(float(difference) / INPUT_RANGE[reference.spec.normalisation])
    return ServedPredictions(
        np.stack(served),
        np.stack(maps) if maps else np.zeros(0, np.float32),
        np.array(distances),
        differences,
    )


def _description_checks(
    metadata: ModelMetadata, reference: ReferencePredictions
) -> tuple[Check, ...]:
    def equal(name: str, found: Any, expected: Any, show: Callable[[Any], str]) -> Check:
        return Check(name, show(found), f"= {show(expected)}", bool(found == expected))

    checks: tuple[Check, ...] = (
        equal("label names", sorted(metadata.labels), sorted(reference.labels), _short),
        equal("label order", metadata.labels, reference.labels, _short),
        equal("input", metadata.input, reference.spec, _input_text),
    )
    if reference.maps or metadata.activation_map:
        expected = MapSpec(*reference.maps.maps.shape[1:3]) if reference.maps else None
        checks += (equal("activation map", metadata.activation_map, expected, _grid_text),)
    measured, wanted = metadata.feature_distance is not None, reference.distances is not None
    if measured or wanted:
        checks += (equal("feature distance", measured, wanted, str),)
    return checks


def distance_figures(
    expected: NDArray[np.float64], served: NDArray[np.float64], held_out: int, farthest: float
) -> dict[str, float]:
    """Return how far the served feature distances are from the original model's.

    Args:
        expected, served: float64, (images,).
        held_out: number of images that were not trained on. They come first.
        farthest: the largest distance that is not marked.

    Returns:
        The mean difference as a share of the expected distance, and the share of the images not
        trained on that is marked.
    """
    return {
        "distance_error": float(np.mean(np.abs(served - expected) / expected)),
        "uncertain": float(np.mean(served[:held_out] > farthest)),
    }


def _has_maps_like(metadata: ModelMetadata, expected: ReferenceMaps) -> bool:
    grid = metadata.activation_map
    return grid is not None and (grid.height, grid.width) == expected.maps.shape[1:3]


def _figures(
    reference: NDArray[np.float32],
    served: NDArray[np.float32],
    images: ParityImages,
    input_difference: float,
) -> dict[str, Any]:
    difference = np.abs(reference.astype(np.float64) - served)
    same_label = reference.argmax(axis=1) == served.argmax(axis=1)
    figures: dict[str, Any] = {
        "images": len(reference),
        "agreement": float(np.mean(same_label)),
        "disagreeing_images": int(np.sum(~same_label)),
        "mean_difference": float(difference.mean()),
        "largest_difference": float(difference.max()),
        "largest_sum_error": float(np.abs(served.sum(axis=1, dtype=np.float64) - 1).max()),
        "input_difference": input_difference,
        "held_out_images": images.held_out,
    }
    if images.held_out:
        labels = images.split.labels[: images.held_out]
        before = reference[: images.held_out].argmax(axis=1) == labels
        after = served[: images.held_out].argmax(axis=1) == labels
        figures |= {
            "accuracy_reference": _accuracy(before),
            "accuracy_served": _accuracy(after),
            "accuracy_loss": float(before.mean() - after.mean()),
            "accuracy_loss_interval_95": list(paired_interval(before, after)),
            "mcnemar_p": mcnemar_exact(before, after),
        }
    return figures


def paired_interval(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the 95 % interval of the accuracy that is lost between two looks at the same images.

    Wald's interval with half an image added to each kind of change (Agresti and Min, Simple
    improved confidence intervals for comparing matched proportions, 2005).

    Args:
        before, after: bool, (images,), whether the image is classified right.
    """
    lost, gained = np.sum(before & ~after) + 0.5, np.sum(~before & after) + 0.5
    total = len(before) + 2
    loss = (lost - gained) / total
    margin = 1.96 * np.sqrt(lost + gained - (lost - gained) ** 2 / total) / total
    return float(loss - margin), float(loss + margin)


def _accuracy(right: NDArray[np.bool_]) -> dict[str, Any]:
    correct, total = int(right.sum()), len(right)
    interval = list(wilson_interval(correct, total))
    return {"accuracy": correct / total, "interval_95": interval, "correct": correct}


def _checks(figures: dict[str, Any], limits: Thresholds, unseen: str = UNSEEN) -> tuple[Check, ...]:
    """Compare each figure with its limit. A NaN fails every comparison."""

    def at_most(name: str, key: str, limit: float) -> Check:
        found = figures[key]
        return Check(name, f"{found:.5f}", f"<= {limit:g}", bool(found <= limit))

    def share(name: str, found: float, total: int, limit: float, note: str = "") -> Check:
        allowed = max(1.0, limit * total) if limit else 0.0
        passed = bool(found * total <= allowed + 1e-6)
        return Check(name, f"{found:.5f}{note}", f"<= {allowed / total:.5f}", passed)

    checks = (
        at_most("input difference, worst image", "input_difference", limits.max_input_difference),
        share(
            "another most probable label",
            1 - figures["agreement"],
            figures["images"],
            limits.max_disagreement,
        ),
        at_most("mean probability difference", "mean_difference", limits.max_mean_difference),
        at_most("largest probability difference", "largest_difference", limits.max_difference),
        at_most("probabilities' sum, error", "largest_sum_error", limits.max_sum_error),
    )
    if not figures["held_out_images"]:
        return checks
    before, after = figures["accuracy_reference"], figures["accuracy_served"]
    low, high = figures["accuracy_loss_interval_95"]
    note = f" [{low:.3f}, {high:.3f}] ({_percent(before)} -> {_percent(after)})"
    loss = share(
        f"accuracy loss{unseen}",
        figures["accuracy_loss"],
        figures["held_out_images"],
        limits.max_accuracy_loss,
        note,
    )
    return (*checks, loss)


def _map_checks(figures: dict[str, Any], limits: Thresholds) -> tuple[Check, ...]:
    """Compare the figures of the maps with their limits. A NaN fails every comparison."""
    correlation, error = figures["map_correlation"], figures["map_error"]
    least, most = limits.min_map_correlation, limits.max_map_error
    return (
        Check(
            "activation maps, mean correlation",
            f"{correlation:.5f}",
            f">= {least:g}",
            bool(correlation >= least),
        ),
        Check("activation maps, logit error", f"{error:.5f}", f"<= {most:g}", bool(error <= most)),
    )


def _distance_checks(
    figures: dict[str, Any], limits: Thresholds, unseen: str = UNSEEN
) -> tuple[Check, ...]:
    """Compare the figures of the feature distance with their limits. A NaN fails."""
    names = {
        DISTANCE_ERROR: ("distance_error", limits.max_distance_error),
        f"uncertain{unseen}": ("uncertain", limits.max_uncertain),
    }
    return tuple(
        Check(name, f"{figures[key]:.5f}", f"<= {limit:g}", bool(figures[key] <= limit))
        for name, (key, limit) in names.items()
    )


def _worst_maps(correlations: NDArray[np.float64], split: Split) -> tuple[dict[str, Any], ...]:
    order = np.argsort(np.nan_to_num(correlations, nan=-np.inf), kind="stable")[:WORST_IMAGES]
    return tuple({"image": split.names[i], "correlation": float(correlations[i])} for i in order)


def _worst(
    reference: ReferencePredictions, served: NDArray[np.float32], split: Split
) -> tuple[dict[str, Any], ...]:
    expected = reference.probabilities
    largest = np.abs(expected - served).max(axis=1)
    order = np.argsort(-np.nan_to_num(largest, nan=np.inf), kind="stable")[:WORST_IMAGES]
    return tuple(
        {
            "image": split.names[i],
            "difference": float(largest[i]),
            "reference": _best(expected[i], reference.labels),
            "served": _best(served[i], reference.labels),
        }
        for i in order
    )


def _best(probabilities: NDArray[np.float32], labels: tuple[str, ...]) -> str:
    best = int(probabilities.argmax())
    return f"{labels[best]} {probabilities[best]:.3f}"


def _percent(accuracy: dict[str, Any]) -> str:
    low, high = accuracy["interval_95"]
    return f"{accuracy['accuracy']:.4f} [{low:.3f}, {high:.3f}]"


def _short(labels: Sequence[str]) -> str:
    return ",".join(label[:3] for label in labels)


def _grid_text(grid: MapSpec | None) -> str:
    return f"{grid.height}x{grid.width}" if grid else "none"


def _input_text(spec: InputSpec) -> str:
    return f"{spec.height}x{spec.width} {spec.resize_filter} {spec.normalisation}"
