"""Is an image unlike those that the model knows? Its probabilities tell, all of them together.

For an image of its own kind the model not only prefers one class. It also rejects the others in a
way that is typical of that class. So the logarithms of the probabilities lie near those of other
images of the class. The distance is Mahalanobis's, with one covariance for all classes (Lee et al.,
A simple unified framework for detecting out-of-distribution samples, 2018). docs/experiments.md
compares it with other scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lambda_function.metadata import UncertainSpec

LEAST_PROBABILITY = 1e-7  # of a class. A quantised softmax has zeros


def is_unlike_known(probabilities: NDArray[np.float32], rule: UncertainSpec) -> bool:
    """Return whether a prediction is farther from all classes than the rule allows.

    Args:
        probabilities: float32, (classes,), in the order of the labels.
        rule: from the artifact's metadata.
    """
    point = log_ratios(probabilities[np.newaxis]) @ np.array(rule.factor)
    return bool(square_distances(point, np.array(rule.centres))[0] > rule.farthest)


def log_ratios(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the logarithms of probabilities, less their mean over the classes.

    Args:
        probabilities: float, (images, classes).
    """
    logarithms = np.log(np.maximum(probabilities.astype(np.float64), LEAST_PROBABILITY))
    return np.asarray(logarithms - logarithms.mean(axis=1, keepdims=True))


def square_distances(
    points: NDArray[np.float64], centres: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return each point's squared distance to the nearest centre, float64, (points,).

    Args:
        points: float64, (points, dimensions).
        centres: float64, (centres, dimensions).
    """
    return np.asarray(np.min([((points - one) ** 2).sum(axis=1) for one in centres], axis=0))
