"""Batches to learn from: shuffled, varied at random, and blended in pairs.

``CachedFeatures`` serves activations of frozen blocks. ``AugmentedImages`` serves images, varied
anew in every epoch, for training whose cost is the network's.

MixUp (Zhang et al., ICLR 2018, arXiv:1710.09412) and CutMix (Yun et al., ICCV 2019,
arXiv:1905.04899) act on images, or on cached activations, as Manifold Mixup does (Verma et al.,
ICML 2019, arXiv:1806.05236). Keras's own layers of these names act on images alone.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from lambda_function.images.decode import preprocess
from training.config import TrainConfig
from training.data.augment import augment_strongly
from training.data.dataset import Split
from training.data.images import load_image, read_image
from training.devices import padded_length, predict

Blended = tuple[NDArray[np.float32], NDArray[np.float32]]
Batch = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
_POWERS = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}  # of the inverse frequency


class TrainingBatches(keras.utils.PyDataset):
    """Batches that repeat by seed, epoch and index alone, so that a resumed run sees the same."""

    def __init__(
        self,
        labels: NDArray[np.int64],
        classes: int,
        config: TrainConfig,
        workers: int = 1,
        unlabelled: int = 0,
    ) -> None:
        """Take the targets.

        Args:
            labels: int64, (images,), of the images to learn from.
            classes: number of classes.
            config: of the run.
            workers: threads that make batches ahead.
            unlabelled: number of images after those. The teacher gives their whole target.
        """
        super().__init__(workers=workers, use_multiprocessing=False, max_queue_size=4)
        unknown = np.zeros((unlabelled, classes), dtype=np.float32)
        self._targets = np.concatenate([np.eye(classes, dtype=np.float32)[labels], unknown])
        shares = np.repeat([config.teacher_share, 1], [len(labels), unlabelled])
        self._teacher_shares = shares.astype(np.float32)[:, None]
        self._class_weights = class_weights(labels, classes, config.class_weights)
        self._config = config
        self._epoch = 0
        self._order = np.arange(len(self._targets))

    def __len__(self) -> int:
        return max(1, len(self._order) // self._config.batch_size)

    def start_epoch(self, epoch: int) -> None:
        """Shuffle by seed and epoch."""
        self._epoch = epoch
        rng = np.random.default_rng((self._config.seed, epoch))
        self._order = rng.permutation(len(self._order))

    def __getitem__(self, index: int) -> Batch:
        """Return inputs, targets and the weight of each image in the loss."""
        size = self._config.batch_size
        rows = self._order[index * size : (index + 1) * size]
        rng = np.random.default_rng((self._config.seed, self._epoch, index))
        inputs, taught = self._read(rows, rng)
        targets = self._targets[rows]
        if taught is not None:
            targets = _weigh(taught, targets, self._teacher_shares[rows])
        blend = _choose_blend(self._config, rng)
        blended, targets = blend(inputs, targets, rng)
        return blended, targets, targets @ self._class_weights

    def _read(
        self, rows: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Return inputs, and what the teacher says of them, float32, (rows, classes)."""
        raise NotImplementedError


class CachedFeatures(TrainingBatches):
    """Cached activations, of a random view per image."""

    def __init__(
        self,
        views: list[NDArray[np.float16]],
        labels: NDArray[np.int64],
        classes: int,
        config: TrainConfig,
        rows: NDArray[np.int64] | None = None,
        taught: list[NDArray[np.float16]] | None = None,
    ) -> None:
        """Take the cached arrays. Nothing is read yet.

        Args:
            views: float16, (cached images, ...), one array per view.
            labels: int64, (images,), of the images to learn from.
            classes: number of classes.
            config: of the run.
            rows: int64, (images,), each image's index in the views. Default: all of them in order.
            taught: float16, (cached images, classes), what the teacher says of each view.
        """
        super().__init__(labels, classes, config)
        self._views = views
        self._rows = np.arange(len(labels)) if rows is None else rows
        self._taught = taught

    def _read(
        self, rows: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        chosen = rng.integers(0, len(self._views), len(rows))
        places = list(zip(chosen, self._rows[rows], strict=True))

        def stack(views: list[NDArray[np.float16]]) -> NDArray[np.float32]:
            return np.stack([views[view][row] for view, row in places]).astype(np.float32)

        return stack(self._views), stack(self._taught) if self._taught else None


class AugmentedImages(TrainingBatches):
    """Images of a split, varied anew in every epoch by threads that work ahead."""

    def __init__(
        self,
        split: Split,
        config: TrainConfig,
        teacher: keras.Model | None = None,
        unlabelled: tuple[Path, ...] = (),
    ) -> None:
        """Take the images. Nothing is read yet.

        Args:
            split: the images to learn from.
            config: of the run. Its ``training_input`` is the size of the images.
            teacher: images -> probabilities, see ``fit.teacher``.
            unlabelled: further images, of which the teacher alone says what they show.
        """
        self.threads = os.cpu_count() or 1
        classes = len(split.class_names)
        super().__init__(split.labels, classes, config, self.threads, len(unlabelled))
        self._paths, self._teacher = split.paths + unlabelled, teacher
        self._lock = threading.Lock()
        self._busy_s = 0.0

    def take_busy_s(self) -> float:
        """Return how long all threads together have worked since the last call, in seconds."""
        with self._lock:
            busy_s, self._busy_s = self._busy_s, 0.0
        return busy_s

    def __getitem__(self, index: int) -> Batch:
        """Return images, targets and the weight of each image in the loss."""
        started = time.thread_time()
        batch = super().__getitem__(index)
        with self._lock:
            self._busy_s += time.thread_time() - started
        return batch

    def _read(
        self, rows: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        spec, area = self._config.training_input, self._config.crop_area
        images = (
            augment_strongly(read_image(self._paths[row], spec), spec, rng, min_area=area)
            for row in rows
        )
        batch = np.concatenate([preprocess(image, spec) for image in images])
        if self._teacher is None:
            return batch, None
        with self._lock:  # one prediction at a time: the threads share the device
            return batch, predict(self._teacher, batch).astype(np.float32)


class PlainImages(keras.utils.PyDataset):
    """Images of a split in order, never varied: what judges a run after every epoch."""

    def __init__(self, split: Split, config: TrainConfig) -> None:
        """Take the images. Nothing is read yet."""
        super().__init__(workers=os.cpu_count() or 1, use_multiprocessing=False)
        self._split, self._spec, self._size = split, config.input, config.batch_size
        self._targets = np.eye(len(split.class_names), dtype=np.float32)[split.labels]

    def __len__(self) -> int:
        return -(-len(self._split) // self._size)

    def __getitem__(self, index: int) -> Batch:
        """Return images, targets and weights."""
        rows = slice(index * self._size, (index + 1) * self._size)
        images = np.stack([load_image(path, self._spec) for path in self._split.paths[rows]])
        return weigh_images(images, self._targets[rows])


def weigh_images(images: NDArray[np.float32], targets: NDArray[np.float32]) -> Batch:
    """Return images, targets and weights. Images of weight 0 fill up the last batch.

    Several devices share every batch, which must divide among them.

    Args:
        images: float32, (N, ...).
        targets: float32, (N, classes).
    """
    missing = padded_length(len(images)) - len(images)
    weights = np.ones(len(images), dtype=np.float32)

    def fill(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.concatenate([values, np.zeros_like(values[:1]).repeat(missing, axis=0)])

    return fill(images), fill(targets), fill(weights)


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
    one: NDArray[np.float32], other: NDArray[np.float32], share: float | NDArray[np.float32]
) -> NDArray[np.float32]:
    weight = np.float32(share)
    return weight * one + (1 - weight) * other
