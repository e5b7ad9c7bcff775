"""What an interrupted run goes on from: Keras's backup, where it is whole and in step.

Keras writes weights, then the number of the epoch, each in place; checkpoint and history come
after. A kill or a full disk between any two of these leaves a backup that cannot be read, or one
that is ahead of what is recorded. Keras keeps the backup before as well: of the two, the later one
that is whole and recorded is what the run goes on from, and without one it begins anew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py

FOLDER, CHECKPOINTS, HISTORY = "backup", "checkpoints", "history.csv"
_NAMES = ("latest.weights.h5", "training_metadata.json")  # keras.callbacks.BackupAndRestore
_PREVIOUS = ".bkp"


def settle(folder: Path, steps_per_epoch: int) -> int:
    """Leave one backup to go on from, or none and no trace of a run.

    Args:
        folder: of the run.
        steps_per_epoch: of the optimizer.

    Returns:
        How many epochs are done.
    """
    recorded = _recorded_epochs(folder / HISTORY)
    latest = [folder / FOLDER / name for name in _NAMES]
    previous = [file.with_name(f"{file.name}{_PREVIOUS}") for file in latest]
    for files in (latest, previous):
        epochs = _epochs(*files, steps_per_epoch)
        if epochs is not None and epochs <= recorded:
            if files is previous:
                for source, target in zip(previous, latest, strict=True):
                    shutil.copyfile(source, target)
            return epochs
    for trace in (FOLDER, CHECKPOINTS):
        shutil.rmtree(folder / trace, ignore_errors=True)
    (folder / HISTORY).unlink(missing_ok=True)
    return 0


def _epochs(weights: Path, metadata: Path, steps_per_epoch: int) -> int | None:
    """Return the epochs that a backup holds; None where it is cut short or contradicts itself."""
    try:
        epochs = int(json.loads(metadata.read_text())["epoch"])
        with h5py.File(weights) as file:
            scaled = "optimizer/inner_optimizer/vars/0" in file
            steps = int(file[f"optimizer/{'inner_optimizer/' * scaled}vars/0"][()])  # iterations
    except (OSError, ValueError, KeyError, TypeError):
        return None
    expected = epochs * steps_per_epoch
    # Under mixed_float16, steps whose gradients overflow are skipped, and not counted.
    in_step = 0 < steps <= expected if scaled else steps == expected
    return epochs if in_step else None


def _recorded_epochs(history: Path) -> int:
    lines = history.read_text().splitlines()[1:] if history.is_file() else []
    return int(lines[-1].split(",")[0]) + 1 if lines else 0
