"""How far an image's pooled features lie from those of images that the model knows.

The features of a class scatter around its mean, and all classes share one covariance. So the
squared Mahalanobis distance to the nearest class mean tells images of something else (Lee et al.,
A simple unified framework for detecting out-of-distribution samples, 2018). The whole covariance of
2,048 features would take 4.2 million numbers. Here ``COMPONENTS`` principal components have
variances of their own, and all other directions share one (Tipping and Bishop, Probabilistic
principal component analysis, 1999). docs/experiments.md compares the two: they mark the same.

The artifact computes the distance in its graph. Its metadata says from which distance on an image
is uncertain.
"""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from converter.errors import ConversionError
from lambda_function.classifier import Classifier
from lambda_function.metadata import DistanceSpec, embed_metadata
from training.data.images import load_image

COMPONENTS = 32  # at most
SHARE = 0.05  # of the images that were not trained on, at most, is marked
MIN_HELD_OUT = 100  # images. Fewer say too little about their farthest twentieth
MIN_TRAIN = 200  # images
LEAST_VARIANCE = 1e-6  # as a share of the largest, or of the class means'. For float32


@dataclasses.dataclass(frozen=True)
class FeatureDistance:
    """Where the features of images lie that the model knows.

    Attributes:
        means: float64, (classes, channels).
        components: float64, (channels, components), orthonormal columns.
        variances: float64, (components,), along the components.
        rest: variance of every other direction, at most the smallest of ``variances``.
    """

    means: NDArray[np.float64]
    components: NDArray[np.float64]
    variances: NDArray[np.float64]
    rest: float

    def measure(self, pooled: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the squared distance to the nearest class mean, float64, (images,).

        Args:
            pooled: float, (images, channels).
        """
        distances = []
        for mean in self.means:
            difference = pooled - mean
            inside = difference @ self.components
            outside = (difference**2).sum(axis=1) - (inside**2).sum(axis=1)
            distances.append((inside**2 / self.variances).sum(axis=1) + outside / self.rest)
        return np.asarray(np.min(distances, axis=0))

    def in_graph(self, pooled: Any) -> Any:
        """Return the same distance of one image as TensorFlow operations, (1, 1).

        The square of a difference is written out, so two small products of matrices do the work.
        Recipes keep their constants in float16. The rounded constants fit each other, and the
        features are centred, so the large terms cancel exactly enough in float32.

        Args:
            pooled: tensor, (1, channels).
        """
        import tensorflow as tf

        def constant(values: NDArray[np.float64]) -> Any:
            return tf.constant(values.astype(np.float32))

        centre = self.means.mean(axis=0)
        means = _in_half(self.means - centre)
        # Along a component the component's variance counts, and not that of the rest.
        kernel = _in_half(self.components * np.sqrt(1 - self.rest / self.variances))
        centred = pooled - constant(centre[np.newaxis])
        square = tf.reduce_sum(centred * centred, axis=1, keepdims=True)
        towards = tf.linalg.matmul(centred, constant(2 * means.T))
        inside = tf.linalg.matmul(centred, constant(kernel))
        from_means = inside - constant(means @ kernel)
        less = tf.reduce_sum(from_means * from_means, axis=1)
        squares = constant((means**2).sum(axis=1))
        to_means = (square - towards - less + squares) * np.float32(1 / self.rest)
        return tf.reduce_min(to_means, axis=1, keepdims=True)


def fit(
    pooled: NDArray[np.floating], labels: NDArray[np.integer], *, components: int = COMPONENTS
) -> FeatureDistance:
    """Return where features like these lie.

    Args:
        pooled: float, (images, channels), of images that the model was trained on.
        labels: int, (images,).
        components: at most this number, and fewer than channels.

    Raises:
        ConversionError: there is one channel only, or the features of a class are all the same.
    """
    names, positions = np.unique(labels, return_inverse=True)
    exact = pooled.astype(np.float64)
    means = np.stack([exact[labels == name].mean(axis=0) for name in names])
    differences = exact - means[positions]
    channels = exact.shape[1]
    variances, directions = np.linalg.eigh(differences.T @ differences / len(exact))
    count = min(components, channels - 1)
    if count < 1 or not variances[-1] > 0:
        raise ConversionError(
            "a feature distance needs two channels or more, and features that differ within a "
            f"class. Received: {channels} channels, largest variance {variances[-1]:g}. Leave out "
            "--uncertain."
        )
    spread = ((means - means.mean(axis=0)) ** 2).sum(axis=1).max()
    least = LEAST_VARIANCE * max(variances[-1], spread)
    kept = np.maximum(variances[-count:], least)
    rest = max(float(variances[:-count].mean()), least)
    return FeatureDistance(means, directions[:, -count:], kept, min(rest, float(kept[0])))


def _in_half(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.astype(np.float16).astype(np.float64)


def describe(distances: Iterable[float]) -> DistanceSpec:
    """Return the threshold that marks at most ``SHARE`` of images with these distances.

    Args:
        distances: of images that the model was not trained on.
    """
    ordered = np.sort(np.array(list(distances), np.float64))
    farthest = float(ordered[len(ordered) - 1 - int(SHARE * len(ordered))])
    share = float(np.mean(ordered > farthest))
    return DistanceSpec(farthest=farthest, images=len(ordered), share=share)


def with_served_threshold(artifact: bytes, held_out: Sequence[Path]) -> bytes:
    """Return the same artifact with the threshold of its own distances, not the Keras model's.

    Args:
        artifact: with a feature distance.
        held_out: images that the model was not trained on.
    """
    classifier = Classifier(artifact)
    spec = classifier.metadata.input
    distances = []
    for path in tqdm(held_out, desc="feature distance", unit="image", disable=None):
        tensor = load_image(path, spec)[np.newaxis]
        distances.append(classifier.predict_all(tensor).feature_distance or 0.0)
    metadata = dataclasses.replace(classifier.metadata, feature_distance=describe(distances))
    with zipfile.ZipFile(io.BytesIO(artifact)) as archive:
        end = min(entry.header_offset for entry in archive.infolist())
    return embed_metadata(artifact[:end], metadata)


def require_images(held_out: int, train_labels: NDArray[np.integer], classes: int) -> None:
    """Check that there are enough images for a feature distance and its threshold.

    Args:
        held_out: number of images that were not trained on.
        train_labels: int, (images,), of images that were trained on.
        classes: number of labels.

    Raises:
        ConversionError: there are too few.
    """
    rarest = int(np.bincount(train_labels, minlength=classes).min())
    if held_out < MIN_HELD_OUT or len(train_labels) < MIN_TRAIN or rarest < 2:
        raise ConversionError(
            f"--uncertain needs {MIN_HELD_OUT} images that were not trained on, and {MIN_TRAIN} "
            f"that were, two or more of each class. Received: {held_out} and {len(train_labels)}, "
            f"{rarest} of the rarest class. Name a DATASET with more images in train/ and "
            "validation/, or leave out --uncertain."
        )
