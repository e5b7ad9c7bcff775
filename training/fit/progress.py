"""Shows the progress of a training: images per second, time left, and the wait for images."""

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
            total=images * config.epochs, initial=images * done, unit="image", desc="training",
            disable=None,
        )  # fmt: skip
        self._began_s = self._batch_began_s = self._batch_ended_s = self._waited_s = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002 (Keras's name)
        """Start the clock of the epoch."""
        self._bar.set_description(f"epoch {epoch + 1} of {self._config.epochs}")
        self._began_s = self._batch_ended_s = time.monotonic()
        self._waited_s = 0.0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Note the time. On JAX and PyTorch the batch is there."""
        self._batch_began_s = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Move the bar by one batch, and add the wait for it: since the end of the last one."""
        if isinstance(self._dataset, AugmentedImages):
            # TensorFlow begins a batch first, and may have asked for its images before.
            asked_s, ready_s = self._dataset.served_s[batch]
            before_s = self._batch_began_s - self._batch_ended_s
            within_s = ready_s - max(asked_s, self._batch_ended_s)
            self._waited_s += max(before_s, within_s)
            self._batch_ended_s = time.monotonic()
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
            text += f", waited {self._waited_s / max(seconds, 1e-9):.0%} of the time for images"
        tqdm.write(text)

    def close(self) -> None:
        """End the bar's line."""
        self._bar.close()
