"""Metrics of a classifier in plain NumPy, each with the source of its definition.

``probabilities`` are float, (images, classes). Rows sum to 1. ``labels`` are int, (images,).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

TEMPERATURE_RANGE = (0.05, 20.0)
TEMPERATURE_PRIOR = 1.0  # standard deviation of the log temperature, chosen by hand
Probabilities = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]

BINS = 10  # of confidence, of equal width
RESAMPLES, RESAMPLES_OF_IMAGES = 10_000, 1000  # of groups, and of single images
FEW_IMAGES = 10  # A group with fewer has no row of its own in ``by_group``.


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a proportion (JASA 22, 1927), 0..1."""
    if total <= 0 or not 0 <= correct <= total:
        raise ValueError(f"need 0 <= correct <= total, total > 0. Received: {correct}, {total}")
    z = NormalDist().inv_cdf(0.975)
    share = correct / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def confusion_matrix(probabilities: Probabilities, labels: Labels) -> NDArray[np.int64]:
    """Return counts, int64, (classes, classes): row is the label, column the prediction."""
    classes = probabilities.shape[1]
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (labels, probabilities.argmax(axis=1)), 1)
    return matrix


def per_class(confusion: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Return precision, recall and F1 of every class. An undefined value is 0."""
    hits = np.diag(confusion).astype(float)
    predicted, actual = confusion.sum(axis=0), confusion.sum(axis=1)
    precision = np.divide(hits, predicted, out=np.zeros_like(hits), where=predicted > 0)
    recall = np.divide(hits, actual, out=np.zeros_like(hits), where=actual > 0)
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(hits), where=both > 0)
    return {"precision": precision, "recall": recall, "f1": f1}


def macro_f1(probabilities: Probabilities, labels: Labels) -> float:
    """Return the unweighted mean of the classes' F1."""
    return float(per_class(confusion_matrix(probabilities, labels))["f1"].mean())


def negative_log_likelihood(probabilities: Probabilities, labels: Labels) -> float:
    """Return the mean of -log(probability of the label), in nats."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(chosen, 1e-12, 1.0)).mean())


def brier_score(probabilities: Probabilities, labels: Labels) -> float:
    """Return Brier's score summed over classes, 0 (perfect) .. 2."""
    one_hot = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - one_hot) ** 2).sum(axis=1).mean())


def expected_calibration_error(probabilities: Probabilities, labels: Labels) -> float:
    """Return the ECE of Guo et al. (ICML 2017) over equal-width bins, 0..1."""
    confidence, hits, index = _confidence_bins(probabilities, labels)
    gaps = [
        abs(hits[index == b].mean() - confidence[index == b].mean()) * np.mean(index == b)
        for b in np.unique(index)
    ]
    return float(np.sum(gaps))


def reliability(probabilities: Probabilities, labels: Labels) -> list[dict[str, Any]]:
    """Return how often the prediction is right in every bin of confidence.

    Returns:
        One row per bin, as plain JSON types: ``low`` and ``high`` edge, number of ``images``, and
        their mean ``confidence``, ``accuracy`` and ``accuracy_interval_95``. The last three are
        None for an empty bin.
    """
    confidence, hits, index = _confidence_bins(probabilities, labels)
    rows: list[dict[str, Any]] = []
    for b in range(BINS):
        inside = index == b
        count, correct = int(inside.sum()), int(hits[inside].sum())
        rows.append(
            {
                "low": b / BINS,
                "high": (b + 1) / BINS,
                "images": count,
                "confidence": float(confidence[inside].mean()) if count else None,
                "accuracy": correct / count if count else None,
                "accuracy_interval_95": wilson_interval(correct, count) if count else None,
            }
        )
    return rows


def bootstrap_interval(
    metric: Callable[[Probabilities, Labels], float],
    probabilities: Probabilities,
    labels: Labels,
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of ``metric(probabilities, labels)``."""
    rng = np.random.default_rng(0)
    size = len(labels)
    draws = (rng.integers(0, size, size) for _ in range(RESAMPLES_OF_IMAGES))
    values = [metric(probabilities[draw], labels[draw]) for draw in draws]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def bootstrap_groups(groups: NDArray[np.str_], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of ``values`` in resamples of whole groups, float64, (resamples,).

    The images of one person are not independent, so persons are drawn, with replacement (the
    cluster bootstrap, Davison and Hinkley, 1997, section 3.8).

    Args:
        groups: (images,), of each image.
        values: float64, (images,).
    """
    names, group_of = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(group_of, values), np.bincount(group_of)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(names), (RESAMPLES, len(names)))
    return np.asarray(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))


def interval_over_groups(
    groups: NDArray[np.str_], values: NDArray[np.float64]
) -> tuple[float, float]:
    """Return the 95 % interval of the mean of ``values``, see ``bootstrap_groups``."""
    low, high = np.quantile(bootstrap_groups(groups, values), [0.025, 0.975])
    return float(low), float(high)


def by_group(groups: NDArray[np.str_], correct: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the accuracy of every group, such as a person, as plain JSON types.

    Args:
        groups: (images,), of each image.
        correct: bool, (images,), whether the prediction is right.

    Returns:
        ``count`` of groups, ``accuracy_interval_95`` over groups (see ``bootstrap_groups``), and
        ``rows``: the largest group first, and groups of fewer than ``FEW_IMAGES`` images together.
    """
    names, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    hits = np.bincount(group_of, correct).astype(int)
    large = [i for i in np.argsort(-sizes, kind="stable") if sizes[i] >= FEW_IMAGES]
    rows = [_group_row(str(names[i]), int(sizes[i]), int(hits[i])) for i in large]
    if others := len(names) - len(large):
        images, right = len(groups) - sizes[large].sum(), hits.sum() - hits[large].sum()
        name = f"{others} with fewer than {FEW_IMAGES} images"
        rows.append(_group_row(name, int(images), int(right)))
    return {
        "count": len(names),
        "accuracy_interval_95": interval_over_groups(groups, correct.astype(float)),
        "rows": rows,
    }


def mcnemar_exact(first_correct: NDArray[np.bool_], second_correct: NDArray[np.bool_]) -> float:
    """Return the two-sided exact p value of McNemar's test on paired predictions."""
    only_first = int(np.sum(first_correct & ~second_correct))
    only_second = int(np.sum(~first_correct & second_correct))
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    tail = sum(math.comb(discordant, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2.0 * tail / 2.0**discordant)


def summary(probabilities: Probabilities, labels: Labels) -> dict[str, Any]:
    """Return every figure above, with sample size and intervals, as plain JSON types."""
    correct = int((probabilities.argmax(axis=1) == labels).sum())
    ece = expected_calibration_error
    return {
        "images": len(labels),
        "correct": correct,
        "accuracy": correct / len(labels),
        "accuracy_interval_95": wilson_interval(correct, len(labels)),
        "macro_f1": macro_f1(probabilities, labels),
        "negative_log_likelihood": negative_log_likelihood(probabilities, labels),
        "brier_score": brier_score(probabilities, labels),
        "expected_calibration_error": ece(probabilities, labels),
        "expected_calibration_error_interval_95": bootstrap_interval(ece, probabilities, labels),
    }


def fit_temperature(logits: NDArray[np.floating[Any]], labels: Labels) -> float:
    """Return the temperature that minimises the NLL of ``softmax(logits / temperature)``.

    The NLL has one minimum in log temperature. A golden-section search over ``TEMPERATURE_RANGE``
    finds it (Guo et al., ICML 2017). A normal prior on the log temperature counts as much as few
    images do. Without it, 20 images that are all right would make every probability 0 or 1.
    """

    def loss(log_temperature: float) -> float:
        prior = 0.5 * (log_temperature / TEMPERATURE_PRIOR) ** 2
        probabilities = softmax(logits / math.exp(log_temperature))
        return negative_log_likelihood(probabilities, labels) + prior / len(labels)

    golden = (math.sqrt(5) - 1) / 2
    low, high = (math.log(edge) for edge in TEMPERATURE_RANGE)
    while high - low > 1e-5:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return probabilities, float64, of logits, (images, classes)."""
    shifted = np.asarray(logits, dtype=np.float64) - np.max(logits, axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def _group_row(name: str, images: int, correct: int) -> dict[str, Any]:
    return {
        "group": name,
        "images": images,
        "correct": correct,
        "accuracy": correct / images,
        "accuracy_interval_95": wilson_interval(correct, images),
    }


def _confidence_bins(
    probabilities: Probabilities, labels: Labels
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    """Return every image's confidence, whether its prediction is right, and its bin."""
    confidence = probabilities.max(axis=1)
    hits = probabilities.argmax(axis=1) == labels
    return confidence, hits, np.minimum((confidence * BINS).astype(int), BINS - 1)
