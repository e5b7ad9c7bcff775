"""Trains the trained part of a network on cached activations, resumable after every epoch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.config import TrainConfig
from training.data.cached_features import CachedFeatures
from training.devices import padded_length
from training.errors import ConfigError
from training.fit.checkpoints import (
    HISTORY,
    BestCheckpoint,
    CaptureState,
    WriteState,
    best_checkpoint,
    resume,
)
from training.fit.optimizer import build_optimizer

Batch = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


def fit(
    model: keras.Model,
    config: TrainConfig,
    dataset: CachedFeatures,
    validation: Batch,
    folder: Path,
) -> Path:
    """Train on cached activations. Resume after the last finished epoch of ``folder``.

    Args:
        model: activations -> logits.
        config: of the run.
        dataset: what the model learns from.
        validation: activations, targets and weights, see ``weigh_images``.
        folder: of the run.

    Returns:
        The checkpoint with the best validation accuracy.

    Raises:
        ConfigError: the loss became NaN or infinite, or the saved state is damaged.
    """
    model.compile(
        optimizer=build_optimizer(config, len(dataset)),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=config.label_smoothing
        ),
        weighted_metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    done = resume(model, folder)
    if done:
        print(f"resuming after epoch {done} of {config.epochs}")
    history = keras.callbacks.CSVLogger(str(folder / HISTORY), append=True)
    state = CaptureState()
    averaging = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if config.ema_momentum else []
    try:
        model.fit(
            dataset,
            validation_data=validation,
            initial_epoch=done,
            epochs=config.epochs,
            shuffle=False,  # the dataset shuffles, by seed and epoch alone
            # Order matters: the state holds the raw weights, the checkpoint the averaged ones,
            # and the state is written after everything else of its epoch.
            callbacks=[
                _EpochStarter(dataset),
                _StopAtNaN(config),
                state,
                *averaging,
                BestCheckpoint(folder),
                history,
                WriteState(state, folder),
            ],
            verbose=2,
        )
    finally:
        if history.csv_file:  # still open if something was raised
            history.csv_file.close()
    return best_checkpoint(folder)


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


class _EpochStarter(keras.callbacks.Callback):
    def __init__(self, dataset: CachedFeatures) -> None:
        super().__init__()
        self._dataset = dataset

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002 (Keras's name)
        self._dataset.start_epoch(epoch)


class _StopAtNaN(keras.callbacks.Callback):
    """Raise. Keras's TerminateOnNaN ends the training as if it were finished."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self._learning_rate = config.learning_rate

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not math.isfinite(float(logs["loss"])):
            raise ConfigError(
                f"the loss is {float(logs['loss'])} at batch {batch + 1}: the training has "
                f"diverged. Try a lower --learning-rate (now {self._learning_rate:g})."
            )
