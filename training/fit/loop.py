"""Trains a network on the batches of a run, resumable after every epoch."""

from __future__ import annotations

import math
import signal
import threading
from pathlib import Path
from typing import Any

import keras

from training.config import TrainConfig
from training.data.training_batches import Batch, PlainImages, TrainingBatches
from training.errors import ConfigError, DatasetError
from training.fit.checkpoints import (
    HISTORY,
    MIN_JUDGES,
    CaptureState,
    SaveCheckpoint,
    WriteState,
    last_checkpoint,
    resume,
)
from training.fit.optimizer import build_optimizer
from training.fit.progress import EpochProgress


def fit(
    model: keras.Model,
    config: TrainConfig,
    dataset: TrainingBatches,
    validation: Batch | PlainImages,
    folder: Path,
    *,
    validation_images: int,
) -> Path:
    """Train on batches. Resume after the last finished epoch of ``folder``.

    Args:
        model: inputs of the dataset -> logits.
        config: of the run.
        dataset: what the model learns from.
        validation: inputs, targets and weights, see ``weigh_images``.
        folder: of the run.
        validation_images: their number. ``MIN_JUDGES`` or more choose the best epoch.

    Returns:
        The checkpoint of the best epoch, or of the last one.

    Raises:
        ConfigError: the loss became NaN or infinite, the saved state is damaged, or memory ran out.
        DatasetError: an image cannot be read.
        OSError: a file cannot be written, as on a full disk.
    """
    model.compile(
        optimizer=build_optimizer(config, len(dataset), model),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=config.label_smoothing
        ),
        weighted_metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    done = resume(model, folder)
    if done:
        print(f"resuming after epoch {done} of {config.epochs}")
    if validation_images < MIN_JUDGES:
        print(
            f"{validation_images} validation images cannot tell which epoch is best, so the last "
            f"one counts. {MIN_JUDGES} can"
        )
    history = keras.callbacks.CSVLogger(str(folder / HISTORY), append=True)
    state, progress = CaptureState(), EpochProgress(dataset, config, done)
    averaging = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if config.ema_momentum else []
    starter = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, _: dataset.start_epoch(epoch)
    )
    interrupts = _InterruptBetweenBatches()
    try:
        with interrupts:
            model.fit(
                dataset,
                validation_data=validation,
                initial_epoch=done,
                epochs=config.epochs,
                shuffle=False,  # the dataset shuffles, by seed and epoch alone
                # Order matters: the state holds the raw weights, the checkpoint the averaged ones,
                # and the state is written after everything else of its epoch.
                callbacks=[
                    interrupts,
                    starter,
                    _StopAtNaN(config),
                    state,
                    *averaging,
                    SaveCheckpoint(folder, validation_images),
                    history,
                    WriteState(state, folder),
                    progress,
                ],
                verbose=0,
            )
    except Exception as error:  # of the backend, which has its own classes
        if isinstance(dataset.error, ConfigError | DatasetError | OSError):
            raise dataset.error from error
        if "RESOURCE_EXHAUSTED" not in str(error) and not isinstance(error, MemoryError):
            raise
        raise ConfigError(
            f"the memory does not hold a batch of {config.batch_size} images of "
            f"{config.training_input.height} px. Choose a smaller --batch-size or --size, and "
            "another --name."
        ) from error
    finally:
        progress.close()  # an error or an interrupt has the last word
        if history.csv_file:  # still open if something was raised
            history.csv_file.close()
    return last_checkpoint(folder)


class _InterruptBetweenBatches(keras.callbacks.Callback):
    """Lets an interrupt wait for the end of a batch. Inside the backend it can abort the process.

    A second interrupt does not wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self._asked = False
        self._previous: Any = None

    def __enter__(self) -> None:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous = signal.signal(signal.SIGINT, self._note)

    def __exit__(self, *_: object) -> None:
        if self._previous:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _note(self, *_: object) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def _raise(self, *_: object, **__: object) -> None:
        if self._asked:
            raise KeyboardInterrupt

    on_train_batch_end = on_test_batch_end = on_train_end = _raise


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
