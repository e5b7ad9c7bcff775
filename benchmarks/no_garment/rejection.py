"""Scores that should be low for images of something else, and what a threshold on each marks.

A score reads what a model gives for an image. The threshold of each score is the one that marks at
most ``SHARE`` of the validation images. No image of something else takes part in it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from converter.sources.feature_distance import SHARE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Score = Callable[["Activations"], NDArray[np.float64]]

LEAST_PROBABILITY = 1e-7  # of a class. A quantised softmax has zeros


@dataclasses.dataclass(frozen=True)
class Activations:
    """What a model gives for some images.

    Attributes:
        probabilities: float64, (images, classes).
        distances: float64, (images,), the feature distances. None if the model measures none.
    """

    probabilities: NDArray[np.float64]
    distances: NDArray[np.float64] | None = None

    def subset(self, chosen: Sequence[bool]) -> Activations:
        """Return the activations of some of the images."""
        fields: Any = {
            name: None if values is None else values[np.array(chosen)]
            for name, values in vars(self).items()
        }
        return Activations(**fields)


def scores_of(validation: Activations) -> dict[str, Score]:
    """Return every score that a model gives, by name. Low values mean something else.

    Args:
        validation: shows what the model gives.
    """
    scores: dict[str, Score] = {
        "highest probability": lambda given: given.probabilities.max(axis=1),
        "entropy": _negative_entropy,
    }
    if validation.distances is not None:
        scores["feature distance of the artifact"] = _negative_distance
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


def _negative_distance(given: Activations) -> NDArray[np.float64]:
    return -np.asarray(given.distances)


def _negative_entropy(given: Activations) -> NDArray[np.float64]:
    logarithms = np.log(np.maximum(given.probabilities, LEAST_PROBABILITY))
    return np.asarray((given.probabilities * logarithms).sum(axis=1))
