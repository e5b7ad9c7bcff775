"""The settings of a run: options, then a TOML file, then defaults that follow the data.

``--help`` is generated from ``TrainConfig``'s docstring and ``config.RANGES``.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lambda_function.metadata import InputSpec
from training.config import (
    DEFAULT_INPUT,
    RANGES,
    TrainConfig,
    check_range,
    describe_settings,
    warmup_for,
)
from training.errors import ConfigError

# Chosen by hand on 84 images: fewer steps leave the head untrained. `python -m benchmarks own-data
# --search` measures it.
MIN_STEPS = 400
MAX_EPOCHS = 60
UNEVEN = 3  # times as many images in the largest class as in the smallest
# Defaults for the whole network. Early blocks know edges and textures already: they move slowly.
WHOLE = {"augmentation": "strong", "layer_decay": 0.9}
FOLLOW_DATA = {
    "batch_size": "32, 16 below 400 training images, 8 below 100",
    "epochs": f"{TrainConfig.epochs}, or as many as give {MIN_STEPS} steps, at most {MAX_EPOCHS}",
    "views": f"{TrainConfig.views}, 8 below 400 training images",
    "first_trainable_block": f"{TrainConfig.first_trainable_block}, 1 on a GPU",
    "augmentation": "mild, strong if the whole network is trained",
    "layer_decay": f"{TrainConfig.layer_decay:g}, {WHOLE['layer_decay']:g} for the whole network",
    "precision": f"{TrainConfig.precision}, mixed_bfloat16 on a GPU",
    "warmup_epochs": f"{TrainConfig.warmup_epochs:g}, half of the epochs at most",
    "class_weights": f"sqrt if a class has {UNEVEN} times the images of another, else none",
}
_FIELDS = {field.name: field for field in dataclasses.fields(TrainConfig) if field.name != "input"}


def add_setting_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``, ``--size`` and one option per setting of ``TrainConfig``."""
    parser.add_argument(
        "--config", type=Path, help="TOML file of settings, such as epochs = 20; options win"
    )
    parser.add_argument(
        "--size",
        type=int,
        help=f"height and width of the images, pixels; {RANGES['size'].text}; "
        f"default {DEFAULT_INPUT.height}",
    )
    meanings = describe_settings(TrainConfig)
    for name, field in _FIELDS.items():
        allowed = f" Allowed: {RANGES[name].text}." if name in RANGES else ""
        default = FOLLOW_DATA.get(name, repr(field.default))
        text = f"{meanings[name]}{allowed} Default: {default}."
        parser.add_argument(
            "--" + name.replace("_", "-"), type=type(field.default), help=text.replace("%", "%%")
        )


def read_settings(parsed: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that the user gave, each in its range: options before the TOML file.

    Raises:
        ConfigError: a setting is unknown, of another type, or out of range.
    """
    given = read_toml(parsed.config) if parsed.config else {}
    for name in ("size", *_FIELDS):
        if (value := getattr(parsed, name)) is not None:
            given[name] = value
    for name, value in given.items():
        if name in RANGES:
            check_range(name, value)
    return given


def read_toml(file: Path) -> dict[str, Any]:
    """Return the settings of a TOML file.

    Raises:
        ConfigError: the file is missing or malformed, or a setting is unknown or of another type.
    """
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no file of settings at {file}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from error
    for name, value in settings.items():
        if name != "size" and name not in _FIELDS:
            known = ", ".join(sorted(["size", *_FIELDS]))
            raise ConfigError(f"{file} has an unknown setting {name!r}. There are: {known}")
        default = DEFAULT_INPUT.height if name == "size" else _FIELDS[name].default
        wanted = (int, float) if isinstance(default, float) else type(default)
        if isinstance(value, bool) or not isinstance(value, wanted):
            raise ConfigError(
                f"{name} in {file} must be of type {type(default).__name__}. Received: {value!r}"
            )
    return settings


def make_config(
    given: dict[str, Any], labels: NDArray[np.int64], *, gpu: bool = False
) -> TrainConfig:
    """Return the configuration of a run.

    Args:
        given: settings of the user, see ``read_settings``.
        labels: int64, (images,), of the training images. Defaults follow their number.
        gpu: whether the run has a GPU. The default is then the whole network.

    Raises:
        ConfigError: two settings contradict each other.
    """
    settings = {**follow_device(given, gpu=gpu), **follow_data(labels, given), **given}
    size = settings.pop("size", DEFAULT_INPUT.height)
    return TrainConfig(input=InputSpec(size, size), **settings)


def follow_device(given: dict[str, Any], *, gpu: bool) -> dict[str, Any]:
    """Return the defaults that follow the device, and the blocks that are trained.

    Args:
        given: settings of the user, which the others follow.
        gpu: whether the run has a GPU.
    """
    default = 1 if gpu else TrainConfig.first_trainable_block
    first = given.get("first_trainable_block", default)
    return {
        "first_trainable_block": first,
        "precision": "mixed_bfloat16" if gpu else TrainConfig.precision,
        **(WHOLE if first == 1 else {}),
    }


def follow_data(labels: NDArray[np.int64], given: dict[str, Any]) -> dict[str, Any]:
    """Return the defaults of the settings in ``FOLLOW_DATA``.

    Args:
        labels: int64, (images,), of the training images.
        given: settings of the user, which the others follow.
    """
    images = len(labels)
    batch_size = given.get("batch_size") or (32 if images >= 400 else 16 if images >= 100 else 8)
    steps = max(1, images // batch_size)
    epochs = given.get("epochs") or int(
        np.clip(math.ceil(MIN_STEPS / steps), TrainConfig.epochs, MAX_EPOCHS)
    )
    counts = np.bincount(labels)
    return {
        "batch_size": batch_size,
        "epochs": epochs,
        "views": TrainConfig.views if images >= 400 else 8,
        "warmup_epochs": warmup_for(epochs),
        "class_weights": "sqrt" if counts.max() >= UNEVEN * counts.min() else "none",
    }
