"""What a training writes after every epoch: the model that counts, and the state to resume from.

The state file holds the weights, the optimizer and the number of finished epochs in one file,
which is written whole and last. So a kill or a full disk costs at most the epoch that was running.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.errors import ConfigError
from training.files import replacing, write_text

FOLDER, STATE, HISTORY = "checkpoints", "state.npz", "history.csv"
# Fewer validation images cannot tell which epoch is best. Of 12 images one or two lucky ones chose
# the first of 60 epochs.
MIN_JUDGES = 100


class SaveCheckpoint(keras.callbacks.Callback):
    """Save the model with the best validation accuracy, or that of the last epoch.

    Of equal epochs the later one counts: it has a lower learning rate and a longer average. With
    fewer than ``MIN_JUDGES`` validation images the last epoch counts for the same reason. Keras's
    ModelCheckpoint writes in place, and forgets the best accuracy when a run is resumed.
    """

    def __init__(self, folder: Path, validation_images: int) -> None:
        """Take the folder of the run and the number of images that judge."""
        super().__init__()
        self._folder, self._by_accuracy = folder / FOLDER, validation_images >= MIN_JUDGES
        self._best = max((_epoch_and_accuracy(f)[1] for f in _checkpoints(folder)), default=-1.0)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Save the model if it counts."""
        accuracy = float(logs["val_accuracy"])
        if self._by_accuracy and accuracy < self._best:
            return
        self._best = accuracy
        without_optimizer = keras.Model(self.model.inputs, self.model.outputs)  # a quarter as large
        with replacing(self._folder / f"xception_{epoch + 1:02d}_{accuracy:.4f}.keras") as file:
            without_optimizer.save(file)


class CaptureState(keras.callbacks.Callback):
    """Copy weights and optimizer at the end of an epoch, before the averaged weights come in."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[NDArray[Any]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002 (Keras's names)
        """Copy the values."""
        self.values = [keras.ops.convert_to_numpy(v).copy() for v in _variables(self.model)]


class WriteState(keras.callbacks.Callback):
    """Write the captured state after everything else of the epoch, and remove old checkpoints.

    Until the state is written, a resumed run needs the checkpoint before.
    """

    def __init__(self, captured: CaptureState, folder: Path) -> None:
        """Take the state of ``captured`` and the folder of the run."""
        super().__init__()
        self._captured, self._folder = captured, folder

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002 (Keras's name)
        """Write the state."""
        values = {f"v{index}": value for index, value in enumerate(self._captured.values)}
        with replacing(self._folder / STATE) as unfinished:
            np.savez(unfinished, allow_pickle=False, epochs=epoch + 1, **values)
        kept = last_checkpoint(self._folder)
        for file in _checkpoints(self._folder):
            if file != kept:
                file.unlink()


def resume(model: keras.Model, folder: Path) -> int:
    """Set a compiled model to the state after the last finished epoch.

    History and checkpoints of an unfinished epoch are removed.

    Args:
        model: compiled. Its weights and optimizer are set.
        folder: of the run.

    Returns:
        How many epochs are finished, 0 if the run begins anew.

    Raises:
        ConfigError: the state file is damaged.
    """
    model.optimizer.build(model.trainable_variables)
    file, epochs = folder / STATE, 0
    if file.is_file():
        try:
            with np.load(file, allow_pickle=False) as state:
                epochs = int(state["epochs"])
                for index, variable in enumerate(_variables(model)):
                    variable.assign(state[f"v{index}"])
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ConfigError(
                f"{file} is damaged: {error}. Remove {folder} and begin anew."
            ) from error
    _forget_after(folder, epochs)
    return epochs


def last_checkpoint(folder: Path) -> Path:
    """Return the checkpoint that counts. One is saved only if it does."""
    return max(_checkpoints(folder), key=_epoch_and_accuracy)


def _variables(model: keras.Model) -> list[Any]:
    """Return weights, states of random generators and the optimizer's variables, in fixed order."""
    metrics = {id(variable) for variable in model.metrics_variables}
    own = [variable for variable in model.variables if id(variable) not in metrics]
    return [*own, *model.optimizer.variables]


def _forget_after(folder: Path, epochs: int) -> None:
    for file in _checkpoints(folder):
        if _epoch_and_accuracy(file)[0] > epochs:
            file.unlink()
    history = folder / HISTORY
    if not history.is_file():
        return
    lines = history.read_text().splitlines(keepends=True)
    if epochs:
        write_text(history, "".join(lines[: epochs + 1]))
    else:
        history.unlink()


def _checkpoints(folder: Path) -> list[Path]:
    return list((folder / FOLDER).glob("xception_*.keras"))


def _epoch_and_accuracy(checkpoint: Path) -> tuple[int, float]:
    _, epoch, accuracy = checkpoint.stem.split("_")
    return int(epoch), float(accuracy)
