"""The folder of a run: its files, the settings it belongs to, and whether it is finished.

runs/<name>/started.json    everything that decides the result, written before the first epoch
            model.keras     images, float32, (N, height, width, 3), -1..1 -> probabilities
            config.json     the configuration, and what the model says about itself
            history.csv     loss and accuracy of every epoch
            report.json     figures on validation, temperature, versions, hardware
            learned.json    hashes of the images that the model has learned from
            checkpoints/    the epoch that counts so far, named by epoch and accuracy
            state.npz       the state after the last epoch, to resume from. Removed at the end
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from training.config import TrainConfig, fingerprint
from training.data.dataset import Split
from training.data.folds import Fold, refuse_fold
from training.errors import ConfigError
from training.files import read_json, replacing, sha256_of, write_json
from training.fit.checkpoints import STATE

STARTED = "started.json"
LEARNED = "learned.json"
MODEL = "model.keras"
BEGUN_WITH = {"weights", "start_sha256", "teacher_sha256"}
_DIFFERENCES_TOLD = 4


def find_folder(runs: Path, name: str) -> Path:
    """Return a run's folder, which may not be there yet.

    Raises:
        ConfigError: the name is not that of one folder.
    """
    if name in ("", ".", "..") or Path(name).name != name:
        raise ConfigError(f"a run's name is that of its folder in {runs}. Received: {name!r}")
    return runs / name


def is_finished(folder: Path) -> bool:
    """Tell whether the run has its model, which is written last."""
    return (folder / MODEL).is_file()


def describe_sources(
    splits: list[Split], weights: Path | None, licence: str, unlabelled: tuple[Path, ...] = ()
) -> dict[str, Any]:
    """Return what decides a run's result beside its configuration, as plain JSON types.

    Args:
        splits: all images that are learned from or judge. Folder, name and size identify them.
        weights: ImageNet weights. None has Keras download them.
        licence: of the trained weights, an SPDX identifier.
        unlabelled: further images that are learned from, identified likewise.

    Raises:
        ConfigError: the licence is empty.
    """
    if not licence.strip():
        raise ConfigError(f"licence must be an SPDX identifier, such as MIT. Received: {licence!r}")
    images = [
        [*_class_if_deep(path, split.class_names[label]), *_identify(path)]
        for split in splits
        for path, label in zip(split.paths, split.labels, strict=True)
    ]
    images += [_identify(path) for path in unlabelled]
    return {
        "images": fingerprint(images),
        "weights": sha256_of(weights)[:16] if weights else "downloaded by Keras",
        "licence": licence,
    }


def _identify(path: Path) -> list[Any]:
    return [path.parent.name, path.name, path.stat().st_size]


def _class_if_deep(path: Path, class_name: str) -> list[str]:
    """Return the class of an image in a sub-folder, because the name of its folder is another."""
    is_deep = unicodedata.normalize("NFC", path.parent.name) != class_name
    return [class_name] if is_deep else []


def check_settings(folder: Path, wanted: dict[str, Any]) -> None:
    """Raise ConfigError if the folder belongs to a run with different settings.

    The weights that a finished run began with are not compared. A run that was trained on a GPU is
    converted elsewhere, with another file of ImageNet weights and without the run it started from.

    Args:
        folder: of the run. It need not exist.
        wanted: plain JSON types, as ``record_settings`` writes them.

    Raises:
        ConfigError: the settings differ. The message says which.
    """
    remedy = "Choose another name, another folder of runs, or remove it."
    file = folder / STARTED
    if not file.is_file():
        if is_finished(folder):
            raise ConfigError(
                f"{folder} holds a model that `train` did not make: {STARTED} is missing. {remedy}"
            )
        return
    recorded = read_json(file)
    compared = (recorded.keys() | wanted.keys()) - (BEGUN_WITH if is_finished(folder) else set())
    pairs = {key: (recorded.get(key), wanted.get(key)) for key in sorted(compared)}
    differences = [
        f"{key} is {had!r}, not {new!r}" for key, (had, new) in pairs.items() if had != new
    ]
    if differences:
        more = len(differences) - _DIFFERENCES_TOLD
        told = differences[:_DIFFERENCES_TOLD] + ([f"and {more} more"] if more > 0 else [])
        raise ConfigError(f"{folder} holds a run with other settings ({'; '.join(told)}). {remedy}")


def record_settings(folder: Path, wanted: dict[str, Any]) -> None:
    """Write what decides the result. The folder belongs to this run from now on."""
    write_json(folder / STARTED, wanted)


def read_config(folder: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """Return a run's configuration, typed and as it was written.

    Raises:
        ConfigError: the folder holds no finished run.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise ConfigError(f"{folder} holds no training run: {file.name} is missing")
    fields = read_json(file)
    return TrainConfig.from_dict(fields), fields


def read_finished_run(
    runs: Path, name: str, fold: Fold | None, setting: str
) -> tuple[Path, TrainConfig, dict[str, Any]]:
    """Return the folder and the configuration of a run whose model another run uses.

    Args:
        runs: folder of all runs.
        name: of the run.
        fold: of the run that uses the model.
        setting: that names the run, for the message.

    Raises:
        ConfigError: the run is not finished, or has seen images that judge.
    """
    folder = find_folder(runs, name)
    if not is_finished(folder):
        raise ConfigError(f"{setting} names no finished run: {folder / MODEL} is missing")
    config, described = read_config(folder)
    refuse_fold(described, folder, fold)
    return folder, config, described


def hash_images(images: Sequence[Path]) -> dict[str, Path]:
    """Return the images by a hash of their files."""
    return {sha256_of(path)[:16]: path for path in images}


def record_learned(folder: Path, names: list[str], learned: Mapping[str, Path]) -> None:
    """Write which images a run has learned from, itself or through other runs.

    Args:
        folder: of the run.
        names: of the runs whose weights or predictions it uses. They lie beside it.
        learned: images that it has learned from, see ``hash_images``.
    """
    others = [_read_learned(folder.with_name(name)) for name in names]
    write_json(folder / LEARNED, sorted(learned.keys() | set().union(*others)))


def refuse_seen(
    runs: Path, names: list[str], learned: Mapping[str, Path], judging: Sequence[Path]
) -> None:
    """Keep a run from weights or predictions that have learned from the images that judge it.

    Images that the run learns from and is judged by are a matter of ``data-check``.

    Args:
        runs: folder of all runs.
        names: of the runs whose weights or predictions are used.
        learned: images that the run learns from, see ``hash_images``.
        judging: that judge it.

    Raises:
        ConfigError: a run has learned from them.
    """
    if not names:
        return
    judges = hash_images(judging)
    for name in names:
        seen = judges.keys() & _read_learned(find_folder(runs, name)) - learned.keys()
        if seen:
            raise ConfigError(
                f"{runs / name} has learned from {len(seen)} of the images that judge this run, "
                f"such as {judges[min(seen)]}. Its figures would flatter. Split the images once, "
                "with make split, and train both runs on the result"
            )


def _read_learned(folder: Path) -> set[str]:
    file = folder / LEARNED  # a restored model and a step of the course have none
    return set(read_json(file)) if file.is_file() else set()


def write_run(
    folder: Path,
    config: TrainConfig,
    class_names: tuple[str, ...],
    model: keras.Model,
    report: dict[str, Any],
    *,
    dataset: str,
    licence: str,
    fold: Fold | None = None,
) -> None:
    """Write the model last, and by renaming: a folder with a model is complete.

    Args:
        folder: of the run.
        config: of the run.
        class_names: in model order.
        model: images -> probabilities.
        report: its figures.
        dataset: name of the data, which the model will say.
        licence: of the weights, likewise.
        fold: of cross-validation.
    """
    described = {
        **config.to_dict(),
        "version": "0.0.0",
        "labels": list(class_names),
        "dataset": dataset,
        "licence": licence,
        **({"fold": dataclasses.asdict(fold)} if fold else {}),
    }
    write_json(folder / "config.json", described)
    write_json(folder / "report.json", report)
    with replacing(folder / MODEL) as unfinished:
        model.save(unfinished)
    (folder / STATE).unlink(missing_ok=True)  # large, and nothing will resume from it
