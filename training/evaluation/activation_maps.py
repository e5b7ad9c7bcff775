"""How far an artifact's activation maps are from the original model's, and from its own logits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def map_correlations(
    expected: NDArray[np.float32], served: NDArray[np.float32], classes: NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """Return how each image's served map correlates with the original model's.

    It is Pearson's correlation over the cells of one class. Two maps without any difference
    between cells correlate with 1. If only one of them has no difference, the correlation is 0.

    Args:
        expected, served: float32, (images, height, width, classes).
        classes: int, (images,), whose map is compared.

    Returns:
        float64, (images,), -1..1. NaN where a map is not finite.
    """
    images = len(expected)
    first, second = (
        maps[np.arange(images), ..., classes].reshape(images, -1).astype(np.float64)
        for maps in (expected, served)
    )
    first -= first.mean(axis=1, keepdims=True)
    second -= second.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
    product = norms[0] * norms[1]
    correlations = (first * second).sum(axis=1) / np.where(product == 0, 1, product)
    return np.where((norms[0] == 0) & (norms[1] == 0), 1.0, correlations)


def map_error(
    maps: NDArray[np.float32],
    bias: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    *,
    temperature: float,
    least_probability: float,
) -> float:
    """Return how far the logits of an artifact's maps are from those of its probabilities.

    A map's mean over the cells plus the bias is the logits. Probabilities give the logits too, but
    for a constant. So each logit is taken less that of the most probable class.

    Args:
        maps: float32, (images, height, width, classes).
        bias: float32, (classes,), of the original model.
        probabilities: float32, (images, classes).
        temperature: that divides the logits before the softmax.
        least_probability: less probable classes are left out.

    Returns:
        The largest difference of any image and class.
    """
    exact = probabilities.astype(np.float64)
    compared = exact >= least_probability
    by_maps = maps.mean(axis=(1, 2), dtype=np.float64) + bias
    by_probabilities = temperature * np.log(np.where(compared, exact, 1))
    best = np.arange(len(exact)), exact.argmax(axis=1)
    difference = by_maps - by_probabilities
    difference -= difference[best][:, np.newaxis]
    return float(np.abs(difference[compared]).max())
