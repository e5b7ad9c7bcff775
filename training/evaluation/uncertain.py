"""Fit the rule that marks images of something else, on the validation images of an artifact.

``lambda_function.classifier`` applies the rule. The artifact itself classifies the images, so the
threshold holds for what is served. No image of something else takes part in it.
"""

from __future__ import annotations

import dataclasses
import io
import zipfile

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lambda_function.classifier import Classifier, log_ratios, square_distances
from lambda_function.images.decode import decode_image, preprocess
from lambda_function.metadata import MAP_FORMAT_VERSION, UncertainSpec, embed_metadata
from training.data.dataset import Split
from training.errors import DatasetError

SHARE = 0.05  # of the validation images, at most, is marked
FOLDS = 10
SHRINKAGE = 0.01  # of the covariance, towards a multiple of the identity
MIN_IMAGES = 100  # fewer say too little about their farthest twentieth


def add_uncertain_rule(artifact: bytes, validation: Split) -> bytes:
    """Return the same artifact with a rule for uncertain images in its metadata.

    Args:
        artifact: without such a rule.
        validation: images that the model was not trained on.

    Raises:
        DatasetError: there are too few images, or a class has none.
    """
    classifier = Classifier(artifact)
    spec, labels = classifier.metadata.input, classifier.metadata.labels
    fewest = int(np.bincount(validation.labels, minlength=len(labels)).min())
    if len(validation) < MIN_IMAGES or fewest < 2:
        raise DatasetError(
            f"a rule for uncertain images needs {MIN_IMAGES} images that were not trained on, and "
            f"two of every class. Received: {len(validation)} images, {fewest} of the rarest "
            "class. Leave out --uncertain."
        )
    probabilities = [
        classifier.predict(preprocess(decode_image(path.read_bytes(), target=spec), spec))
        for path in tqdm(validation.paths, desc="uncertain images", unit="image")
    ]
    names = np.array([labels.index(name) for name in validation.class_names])
    metadata = dataclasses.replace(
        classifier.metadata,
        uncertain=fit_rule(np.stack(probabilities), names[validation.labels]),
        format_version=MAP_FORMAT_VERSION,
    )
    with zipfile.ZipFile(io.BytesIO(artifact)) as archive:
        end = min(entry.header_offset for entry in archive.infolist())
    return embed_metadata(artifact[:end], metadata)


def fit_rule(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> UncertainSpec:
    """Return the rule that marks at most ``SHARE`` of images like these.

    The threshold is that of images which the rule was not fitted on, see ``cross_distances``.

    Args:
        probabilities: float, (images, classes).
        labels: int64, (images,). Every class has two images or more.
    """
    points = log_ratios(probabilities)
    factor, means = whiten(points, labels)
    distances = np.sort(cross_distances(points, labels))
    farthest = float(distances[len(distances) - 1 - int(SHARE * len(distances))])
    centres = (means @ factor).tolist()
    return UncertainSpec(tuple(map(tuple, centres)), tuple(map(tuple, factor.tolist())), farthest)


def cross_distances(points: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each point's squared distance to the nearest class, fitted on the other folds.

    A rule knows the images that it was fitted on: fitted on half of 341 images, it marked 11 % of
    the other half instead of 5 %.

    Args:
        points: float64, (points, dimensions).
        labels: int64, (points,).
    """
    fold = np.empty(len(labels), np.int64)
    fold[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % FOLDS
    distances = np.empty(len(labels))
    for number in range(FOLDS):
        own = fold == number
        factor, means = whiten(points[~own], labels[~own])
        distances[own] = square_distances(points[own] @ factor, means @ factor)
    return distances


def whiten(
    points: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the factor that gives points of one class equal spread, and the class means.

    Args:
        points: float64, (points, dimensions).
        labels: int64, (points,).

    Returns:
        float64, (dimensions, dimensions). Squared distances of points times this factor are
        Mahalanobis's, with one shrunk covariance for all classes. And float64, (classes,
        dimensions).
    """
    names = np.unique(labels)
    means = np.stack([points[labels == name].mean(axis=0) for name in names])
    differences = points - means[np.searchsorted(names, labels)]
    covariance = differences.T @ differences / len(differences)
    size = len(covariance)
    target = np.eye(size) * np.trace(covariance) / size
    factor = np.linalg.cholesky(np.linalg.inv((1 - SHRINKAGE) * covariance + SHRINKAGE * target))
    return factor, means
