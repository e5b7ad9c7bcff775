"""Batches of cached activations: a random view per image, shuffled, and blended in pairs.

MixUp (Zhang et al., ICLR 2018, arXiv:1710.09412) and CutMix (Yun et al., ICCV 2019,
arXiv:1905.04899) act on activations here, as Manifold Mixup does (Verma et al., ICML 2019,
arXiv:1806.05236): the frozen blocks' answers are cached, and pixels are no longer at hand.
Keras's own layers of these names act on pixels, inside the network's input.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from numpy.typing import NDArray

from training.config import TrainConfig

Batch = tuple[NDArray[np.float32], NDArray[np.float32]]


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
        """Take what is cached; nothing is read yet.

        Args:
            views: float16, (cached images, ...), one array per view.
            labels: int64, (images,), of the images to learn from.
            classes: how many there are.
            config: of the run.
            rows: int64, (images,), where each is in the views; default: they are all of them.
        """
        super().__init__()
        self._views = views
        self._rows = np.arange(len(labels)) if rows is None else rows
        self._targets = np.eye(classes, dtype=np.float32)[labels]
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

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        size = self._config.batch_size
        rows = self._order[index * size : (index + 1) * size]
        rng = np.random.default_rng((self._config.seed, self._epoch, index))
        chosen = rng.integers(0, len(self._views), len(rows))
        cached = self._rows[rows]
        images = np.stack([self._views[v][r] for v, r in zip(chosen, cached, strict=True)])
        blend = _choose_blend(self._config, rng)
        return blend(images.astype(np.float32), self._targets[rows], rng)


def mix_up(
    images: NDArray[np.float32],
    targets: NDArray[np.float32],
    rng: np.random.Generator,
    alpha: float,
) -> Batch:
    """Blend each image, and its target, with another one's, all by the same share.

    Args:
        images: float32, (N, ...).
        targets: float32, (N, classes).
        rng: random generator.
        alpha: of the Beta distribution that the share is drawn from; the larger part stays.
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
) -> Batch:
    """Put a rectangle of another image's activations into each; targets blend by its area.

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


def _choose_blend(config: TrainConfig, rng: np.random.Generator) -> Callable[..., Batch]:
    """Return what one batch gets: MixUp, CutMix or neither; a coin decides between the two."""
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
