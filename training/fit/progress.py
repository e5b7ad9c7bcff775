"""Shows the progress of a training: images per second, time left, and what data loading costs."""

from __future__ import annotations

import time
from typing import Any

import keras
from tqdm import tqdm

from training.config import TrainConfig
from training.data.training_batches import AugmentedImages, TrainingBatches


class EpochProgress(keras.callbacks.Callback):
    """One progress bar for the whole training, and one line per epoch."""

    def __init__(self, dataset: TrainingBatches, config: TrainConfig, done: int) -> None:
        """Take what the model learns from, the run's configuration, and its finished epochs."""
        super().__init__()
        self._dataset, self._config = dataset, config
        images = len(dataset) * config.batch_size
        self._bar = tqdm(
            total=images * config.epochs, initial=images * done, unit="image", desc="training"
        )
        self._began_s = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002 (Keras's name)
        """Start the clock of the epoch."""
        self._bar.set_description(f"epoch {epoch + 1} of {self._config.epochs}")
        self._began_s = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Move the bar by one batch."""
        self._bar.update(self._config.batch_size)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Print the figures of the epoch."""
        seconds = time.monotonic() - self._began_s
        text = (
            f"epoch {epoch + 1} of {self._config.epochs}: loss {logs['loss']:.4f}, "
            f"accuracy {logs['accuracy']:.4f}, validation loss {logs['val_loss']:.4f}, "
            f"validation accuracy {logs['val_accuracy']:.4f}, {seconds:.0f} s"
        )
        if isinstance(self._dataset, AugmentedImages):
            share = self._dataset.take_busy_s() / (self._dataset.threads * max(seconds, 1e-9))
            text += f", data loading took {share:.0%} of {self._dataset.threads} threads"
        tqdm.write(text)

    def close(self) -> None:
        """End the bar's line."""
        self._bar.close()
