"""Scores that should be low for images of something else, and what a threshold on each marks.

A score reads what a model gives for an image. The threshold of each score is the one that marks at
most ``SHARE`` of the validation images. No image of something else takes part in it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from converter.sources.feature_distance import SHARE, fit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Score = Callable[["Activations"], NDArray[np.float64]]

LEAST_PROBABILITY = 1e-7  # of a class. A quantised softmax has zeros
SHRINKAGE = 0.01  # of a covariance, towards a multiple of the identity


@dataclasses.dataclass(frozen=True)
class Activations:
    """What a model gives for some images.

    A ``.tflite`` gives probabilities, and its feature distance if it measures it.

    Attributes:
        probabilities: float64, (images, classes).
        logits: float64, (images, classes), before temperature. None if unknown.
        pooled: float64, (images, channels), the input of the last dense layer.
        maps: float64, (images, height, width, classes), the activation maps.
        distances: float64, (images,), the feature distances.
    """

    probabilities: NDArray[np.float64]
    logits: NDArray[np.float64] | None = None
    pooled: NDArray[np.float64] | None = None
    maps: NDArray[np.float64] | None = None
    distances: NDArray[np.float64] | None = None

    def subset(self, chosen: Sequence[bool]) -> Activations:
        """Return the activations of some of the images."""
        fields: Any = {
            name: None if values is None else values[np.array(chosen)]
            for name, values in vars(self).items()
        }
        return Activations(**fields)


def scores_of(
    validation: Activations,
    train: Activations | None = None,
    train_labels: NDArray[np.int64] | None = None,
) -> dict[str, Score]:
    """Return every score that can be computed, by name. Low values mean something else.

    Args:
        validation: shows what the model gives.
        train: gives the class means of the pooled features. None leaves those scores out.
        train_labels: int64, (images,).
    """
    scores: dict[str, Score] = {
        "highest probability": lambda given: given.probabilities.max(axis=1),
        "entropy": _negative_entropy,
    }
    if validation.distances is not None:
        scores["feature distance of the artifact"] = lambda given: -_present(given.distances)
    if validation.logits is not None:
        scores |= {
            "highest logit": lambda given: _present(given.logits).max(axis=1),
            "energy": lambda given: _log_sum_exp(_present(given.logits)),
            "map inside one blob": lambda given: _blob_shares(_present(given.maps), given),
        }
    if train is not None and train_labels is not None:
        features, labels = _present(train.pooled), train_labels
        scores |= {
            "Euclidean distance of features": _diagonal(features, labels, scaled=False),
            "distance of scaled features": _diagonal(features, labels, scaled=True),
            "Mahalanobis distance of features": _mahalanobis(features, labels),
            "the same of 32 components and the rest": _components(features, labels),
        }
    return scores


def threshold(values: NDArray[np.float64], share: float = SHARE) -> float:
    """Return the largest threshold below which at most this share of the values lies."""
    return float(np.sort(values)[int(share * len(values))])


def summary(
    score: Score, validation: Activations, groups: dict[str, Activations]
) -> dict[str, Any]:
    """Return the threshold of a score and the share of each group below it.

    Args:
        score: from ``scores_of``.
        validation: fixes the threshold.
        groups: images of other things, by name.
    """
    own = score(validation)
    limit = threshold(own)
    marked, ranking = {"validation": float(np.mean(own < limit))}, {}
    for name, given in groups.items():
        values = score(given)
        marked[name] = float(np.mean(values < limit))
        ranking[name] = float(np.mean(values[:, None] < own[None, :]))
    return {"threshold": limit, "marked": marked, "area_under_roc": ranking}


def _present(values: NDArray[np.float64] | None) -> NDArray[np.float64]:
    if values is None:
        raise ValueError("this score needs activations that the model does not give")
    return values


def _negative_entropy(given: Activations) -> NDArray[np.float64]:
    logarithms = np.log(np.maximum(given.probabilities, LEAST_PROBABILITY))
    return np.asarray((given.probabilities * logarithms).sum(axis=1))


def _log_sum_exp(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return minus the energy of Liu et al., Energy-based out-of-distribution detection, 2020."""
    highest = logits.max(axis=1)
    return np.asarray(highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1)))


def _components(features: NDArray[np.float64], labels: NDArray[np.int64]) -> Score:
    """Return minus the distance that the converter's ``--uncertain`` puts into an artifact."""
    distance = fit(features, labels)
    return lambda given: -distance.measure(_present(given.pooled))


def _mahalanobis(features: NDArray[np.float64], labels: NDArray[np.int64]) -> Score:
    """Return minus the distance to the nearest class mean, with one covariance for all classes.

    Lee et al., A simple unified framework for detecting out-of-distribution samples, 2018. The
    covariance is shrunk a little.
    """
    names = np.unique(labels)
    means = np.stack([features[labels == name].mean(axis=0) for name in names])
    differences = features - means[np.searchsorted(names, labels)]
    covariance = differences.T @ differences / len(differences)
    size = len(covariance)
    target = np.eye(size) * np.trace(covariance) / size
    factor = np.linalg.cholesky(np.linalg.inv((1 - SHRINKAGE) * covariance + SHRINKAGE * target))
    centres = means @ factor
    return lambda given: -_square_distances(_present(given.pooled) @ factor, centres)


def _square_distances(
    points: NDArray[np.float64], centres: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return each point's squared distance to the nearest centre, float64, (points,)."""
    return np.asarray(np.min([((points - one) ** 2).sum(axis=1) for one in centres], axis=0))


def _diagonal(features: NDArray[np.float64], labels: NDArray[np.int64], *, scaled: bool) -> Score:
    """Return minus the squared distance to the nearest class mean, each channel by its deviation.

    Args:
        features: float64, (images, channels).
        labels: int64, (images,).
        scaled: False leaves the channels as they are.
    """
    names = np.unique(labels)
    means = np.stack([features[labels == name].mean(axis=0) for name in names])
    variance = ((features - means[np.searchsorted(names, labels)]) ** 2).mean(axis=0)
    scale = 1 / np.sqrt(variance + 0.1 * variance.mean()) if scaled else np.ones(len(variance))
    return lambda given: -_square_distances(_present(given.pooled) * scale, means * scale)


def _blob_shares(maps: NDArray[np.float64], given: Activations) -> NDArray[np.float64]:
    best = given.probabilities.argmax(axis=1)
    return np.array([blob_share(maps[i, :, :, best[i]]) for i in range(len(best))])


def blob_share(class_map: NDArray[np.float64]) -> float:
    """Return the share of a map that lies in its largest connected blob.

    A blob is of cells of at least half the maximum that touch at an edge. Negative cells count
    as 0.

    Args:
        class_map: float64, (height, width).
    """
    positive = np.maximum(class_map, 0)
    if not positive.any():
        return 0.0
    waiting = {tuple(map(int, cell)) for cell in np.argwhere(positive >= positive.max() / 2)}
    largest = 0.0
    while waiting:
        edge, blob = [waiting.pop()], 0.0
        while edge:
            row, column = edge.pop()
            blob += float(positive[row, column])
            beside = {(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)}
            edge += beside & waiting
            waiting -= beside
        largest = max(largest, blob)
    return largest / float(positive.sum())
