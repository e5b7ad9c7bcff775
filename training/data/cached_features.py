"""Batches of cached activations: a random view per image, shuffled, and blended in pairs.

MixUp (Zhang et al., ICLR 2018, arXiv:1710.09412) and CutMix (Yun et al., ICCV 2019,
arXiv:1905.04899) act on activations here, as Manifold Mixup does (Verma et al., ICML 2019,
arXiv:1806.05236). The activations of the frozen blocks are cached, so the pixels are not at hand.
Keras's own layers of these names act on pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from numpy.typing import NDArray

from training.config import TrainConfig

Blended = tuple[NDArray[np.float32], NDArray[np.float32]]
Batch = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
_POWERS = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}  # of the inverse frequency


class CachedFeatures(keras.utils.PyDataset):
    """Batches of cached activations: a random view per image, shuffled, blended."""

    def __init__(
        self,
        views: list[NDArray[np.float16]],
        labels: NDArray[np.int64],
        classes: int,
        config: TrainConfig,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        """Take the cached arrays. Nothing is read yet.

        Args:
            views: float16, (cached images, ...), one array per view.
            labels: int64, (images,), of the images to learn from.
            classes: number of classes.
            config: of the run.
            rows: int64, (images,), each image's index in the views. Default: all of them in order.
        """
        super().__init__()
        self._views = views
        self._rows = np.arange(len(labels)) if rows is None else rows
        self._targets = np.eye(classes, dtype=np.float32)[labels]
        self._class_weights = class_weights(labels, classes, config.class_weights)
        self._config = config
        self._epoch = 0
        self._order = np.arange(len(labels))

    def __len__(self) -> int:
        return max(1, len(self._order) // self._config.batch_size)

    def start_epoch(self, epoch: int) -> None:
        """Shuffle by seed and epoch alone, so that a resumed run sees the same batches."""
        self._epoch = epoch
        rng = np.random.default_rng((self._config.seed, epoch))
        self._order = rng.permutation(len(self._order))

    def __getitem__(self, index: int) -> Batch:
        """Return activations, targets and the weight of each image in the loss."""
        size = self._config.batch_size
        rows = self._order[index * size : (index + 1) * size]
        rng = np.random.default_rng((self._config.seed, self._epoch, index))
        chosen = rng.integers(0, len(self._views), len(rows))
        cached = self._rows[rows]
        images = np.stack([self._views[v][r] for v, r in zip(chosen, cached, strict=True)])
        blend = _choose_blend(self._config, rng)
        blended, targets = blend(images.astype(np.float32), self._targets[rows], rng)
        return blended, targets, targets @ self._class_weights


def class_weights(labels: NDArray[np.int64], classes: int, kind: str) -> NDArray[np.float32]:
    """Return how much an image of each class counts in the loss, float32, (classes,).

    The mean over all images is 1, so that the learning rate keeps its meaning.

    Args:
        labels: int64, (images,), of the images to learn from.
        classes: number of classes.
        kind: one of ``config.CLASS_WEIGHTS``.
    """
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    weights = counts ** -_POWERS[kind]
    return np.asarray(weights / weights[labels].mean(), dtype=np.float32)


def mix_up(
    images: NDArray[np.float32],
    targets: NDArray[np.float32],
    rng: np.random.Generator,
    alpha: float,
) -> Blended:
    """Blend each image and its target with another image's, all by the same share.

    Args:
        images: float32, (N, ...).
        targets: float32, (N, classes).
        rng: random generator.
        alpha: of the Beta distribution of the share. The larger part stays.
    """
    share = float(rng.beta(alpha, alpha))
    kept = max(share, 1 - share)
    other = rng.permutation(len(images))
    return _weigh(images, images[other], kept), _weigh(targets, targets[other], kept)


def cut_mix(
    images: NDArray[np.float32],
    targets: NDArray[np.float32],
    rng: np.random.Generator,
    alpha: float,
) -> Blended:
    """Put a rectangle of another image's activations into each. Targets blend by its area.

    Args:
        images: float32, (N, height, width, channels).
        targets: float32, (N, classes).
        rng: random generator.
        alpha: of the Beta distribution of the share that stays.
    """
    height, width = images.shape[1:3]
    side = np.sqrt(1 - float(rng.beta(alpha, alpha)))
    rows, columns = (_stretch(length, side, rng) for length in (height, width))
    other = rng.permutation(len(images))
    pasted = images.copy()
    pasted[:, rows, columns] = images[other, rows, columns]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return pasted, _weigh(targets, targets[other], 1 - area / (height * width))


def _choose_blend(config: TrainConfig, rng: np.random.Generator) -> Callable[..., Blended]:
    """Return MixUp, CutMix or neither for one batch. If both are set, chance decides."""
    alphas = {mix_up: config.mixup_alpha, cut_mix: config.cutmix_alpha}
    wanted = [(blend, alpha) for blend, alpha in alphas.items() if alpha]
    if not wanted:
        return lambda images, targets, _: (images, targets)
    blend, alpha = wanted[int(rng.integers(len(wanted)))] if wanted[1:] else wanted[0]
    return lambda images, targets, rng: blend(images, targets, rng, alpha)


def _stretch(length: int, side: float, rng: np.random.Generator) -> slice:
    """Return a random stretch of about ``side * length`` places, cut off at the edges."""
    half = side * length / 2
    centre = rng.uniform(0, length)
    return slice(max(0, round(centre - half)), min(length, round(centre + half)))


def _weigh(
    one: NDArray[np.float32], other: NDArray[np.float32], share: float
) -> NDArray[np.float32]:
    weight = np.float32(share)
    return weight * one + (1 - weight) * other
