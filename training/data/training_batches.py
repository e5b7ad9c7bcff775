"""Batches to learn from: shuffled, varied at random, and blended in pairs.

``CachedFeatures`` serves activations of frozen blocks. ``AugmentedImages`` serves images, varied
anew in every epoch, for training whose cost is the network's.

MixUp (Zhang et al., ICLR 2018, arXiv:1710.09412) and CutMix (Yun et al., ICCV 2019,
arXiv:1905.04899) act on images, or on cached activations, as Manifold Mixup does (Verma et al.,
ICML 2019, arXiv:1806.05236). Keras's own layers of these names act on images alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lambda_function.images.decode import preprocess
from training.config import TrainConfig
from training.data.dataset import Split
from training.data.images import load_image, vary_images
from training.data.workers import (
    MAX_THREADED_CORES,
    ImageProcesses,
    block_interrupts,
    usable_cores,
)
from training.devices import padded_length, predict
from training.errors import ConfigError

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
        unlabelled: int = 0,
    ) -> None:
        """Take the targets.

        Args:
            labels: int64, (images,), of the images to learn from.
            classes: number of classes.
            config: of the run.
            unlabelled: number of images after those. The teacher gives their whole target.
        """
        super().__init__()
        unknown = np.zeros((unlabelled, classes), dtype=np.float32)
        self._targets = np.concatenate([np.eye(classes, dtype=np.float32)[labels], unknown])
        shares = np.repeat([config.teacher_share, 1], [len(labels), unlabelled])
        self._teacher_shares = shares.astype(np.float32)[:, None]
        self._class_weights = class_weights(labels, classes, config.class_weights)
        self._config = config
        self._epoch = 0
        self.error: Exception | None = None  # that ended the batches. TensorFlow raises another

    def __len__(self) -> int:
        return max(1, len(self._targets) // self._config.batch_size)

    def start_epoch(self, epoch: int) -> None:
        """Serve the batches of this epoch from here on."""
        self._epoch = epoch

    def close(self) -> None:
        """End threads and processes, if there are any."""

    def __getitem__(self, index: int) -> Batch:
        """Return inputs, targets and the weight of each image in the loss."""
        return self._make_batch(self._epoch, index)

    def _make_batch(self, epoch: int, index: int) -> Batch:
        size, seed = self._config.batch_size, self._config.seed
        order = np.random.default_rng((seed, epoch)).permutation(len(self._targets))
        rows = order[index * size : (index + 1) * size]
        rng = np.random.default_rng((seed, epoch, index))
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
    """Images of a split, varied anew in every epoch, some batches ahead of the training.

    Threads make the batches. On many cores each thread leaves the images to a worker process.
    Keras's own queue is not used, because it hands leftover batches to the next epoch.
    """

    def __init__(
        self,
        split: Split,
        config: TrainConfig,
        teacher: keras.Model | None = None,
        unlabelled: tuple[Path, ...] = (),
        cores: int | None = None,
    ) -> None:
        """Take the images. Nothing is read yet.

        Args:
            split: the images to learn from.
            config: of the run. Its ``training_input`` is the size of the images.
            teacher: images -> probabilities, see ``fit.teacher``.
            unlabelled: further images, of which the teacher alone says what they show.
            cores: that prepare images. Default: all that this process may use.
        """
        super().__init__(split.labels, len(split.class_names), config, len(unlabelled))
        self._paths, self._teacher = split.paths + unlabelled, teacher
        self._teacher_lock = threading.Lock()
        self._cores = cores or usable_cores()
        self._threads = ThreadPoolExecutor(self._cores, initializer=block_interrupts)
        self._processes = ImageProcesses(self._cores) if self._cores > MAX_THREADED_CORES else None
        self._ahead: dict[tuple[int, int], Future[Batch]] = {}  # by epoch and index
        self.served_s: dict[int, tuple[float, float]] = {}  # batch -> asked for, and there

    def start_epoch(self, epoch: int) -> None:
        """Serve the batches of this epoch from here on."""
        super().start_epoch(epoch)
        for key in [key for key in self._ahead if key[0] != epoch]:
            self._ahead.pop(key).cancel()
        self.served_s = {}

    def close(self) -> None:
        """End all threads and processes. No batch can be had afterwards."""
        if self._processes:  # first, because threads wait for processes
            self._processes.close()
        self._threads.shutdown(cancel_futures=True)

    def __getitem__(self, index: int) -> Batch:
        """Return images, targets and the weight of each image in the loss."""
        asked_s = time.monotonic()
        for step in range(index, index + self._cores + 2):  # 2 lie ready while all cores work
            later, place = divmod(step, len(self))
            key = (self._epoch + later, place)
            if key not in self._ahead and key[0] <= max(self._epoch, self._config.epochs - 1):
                self._ahead[key] = self._threads.submit(self._make_batch, *key)
        try:
            batch = self._ahead.pop((self._epoch, index)).result()
        except BrokenProcessPool as error:
            self.error = ConfigError(
                "a process that prepares images was killed, most likely because memory ran out. "
                "Free memory and give the same command again: it resumes after the last finished "
                "epoch."
            )
            raise self.error from error
        except Exception as error:
            self.error = error
            raise
        self.served_s[index] = asked_s, time.monotonic()
        return batch

    def _read(
        self, rows: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        spec, area = self._config.training_input, self._config.crop_area
        paths = [self._paths[row] for row in rows]
        vary = self._processes.vary if self._processes else vary_images
        pixels = vary(paths, spec, rng, min_area=area)
        batch = np.concatenate([preprocess(Image.fromarray(image), spec) for image in pixels])
        if self._teacher is None:
            return batch, None
        with self._teacher_lock:  # one prediction at a time: the threads share the device
            return batch, predict(self._teacher, batch).astype(np.float32)


class PlainImages(keras.utils.PyDataset):
    """Images of a split in order, never varied: what judges a run after every epoch."""

    def __init__(self, split: Split, config: TrainConfig) -> None:
        """Take the images. Nothing is read yet."""
        super().__init__(workers=usable_cores(), use_multiprocessing=False)
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
