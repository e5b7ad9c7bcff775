"""Options win over the TOML file, and the file over defaults that follow the data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.config import TrainConfig
from training.errors import ConfigError
from training.fit.settings import add_setting_options, make_config, read_settings

FEW = np.arange(84) % 3
MANY = np.arange(3000) % 10


def settings(*words: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_setting_options(parser)
    return read_settings(parser.parse_args(words))


def test_options_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("epochs = 7\nsize = 150\nlearning_rate = 1\nviews = 3\n")

    config = make_config(settings(f"--config={file}", "--epochs=9"), MANY)

    assert (config.epochs, config.views, config.input.height, config.learning_rate) == (
        *(9, 3, 150, 1),
    )
    assert config.dropout == TrainConfig.dropout


def test_defaults_follow_the_number_of_images() -> None:
    few, many = make_config({}, FEW), make_config({}, MANY)

    # 84 images: 10 steps of 8 an epoch, so 40 epochs give 400 steps
    assert (few.batch_size, few.epochs, few.views) == (8, 40, 8)
    assert (many.batch_size, many.epochs, many.views) == (32, 12, 4)
    assert make_config({"epochs": 1}, FEW).warmup_epochs == 0.5


def test_a_gpu_trains_the_whole_network_unless_told_otherwise() -> None:
    config = make_config({}, MANY, gpu=True)
    assert (config.first_trainable_block, config.augmentation) == (1, "strong")
    assert (config.precision, config.layer_decay) == ("mixed_bfloat16", 0.9)
    head = make_config({"first_trainable_block": 14, "precision": "float32"}, MANY, gpu=True)
    assert (head.first_trainable_block, head.augmentation, head.precision) == (
        14, "mild", "float32",
    )  # fmt: skip
    assert make_config({"first_trainable_block": 1}, MANY).augmentation == "strong"
    with pytest.raises(ConfigError, match=r"set augmentation to strong\. Received: 'mild'"):
        make_config({"first_trainable_block": 1, "augmentation": "mild"}, MANY)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("first_trainable_block", 16), ("first_trainable_block", 0), ("dropped_blocks", "4"),
        ("dropped_blocks", "5,5"), ("dropped_blocks", "13"), ("train_size", 70),
        ("crop_area", 0.0), ("layer_decay", 1.1), ("fresh_from_block", 0),
    ],
)  # fmt: skip
def test_a_block_or_size_that_does_not_exist_is_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"{name} must be .*Received: {value!r}"):
        make_config({name: value}, MANY)


@pytest.mark.parametrize(("rare", "expected"), [(30, "none"), (10, "sqrt")])
def test_uneven_classes_are_weighed(rare: int, expected: str) -> None:
    labels = np.array([0] * 60 + [1] * rare)

    assert make_config({}, labels).class_weights == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 7", r"unknown setting 'epoch'. There are: .*epochs"),
        ("epochs = 'ten'", r"epochs in .* must be of type int. Received: 'ten'"),
        ("epochs = true", r"must be of type int. Received: True"),
        ("epochs = 0", r"epochs must be 1 or more. Received: 0"),
        ("size = 70", r"size must be 71 or more. Received: 70"),
        ("epochs 7", "is not TOML"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        settings(f"--config={file}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file of settings at .*absent\.toml"):
        settings(f"--config={tmp_path / 'absent.toml'}")


def test_help_explains_every_option_with_its_range() -> None:
    parser = argparse.ArgumentParser()
    add_setting_options(parser)
    text = " ".join(parser.format_help().split())

    assert "share of the pooled features that is dropped" in text
    assert "Allowed: 0 or more, and below 1. Default: 0.3." in text
    assert "Allowed: one of none, sqrt, balanced. Default: sqrt if a class has 3 times" in text
    assert "pixels; 71 or more; default 224" in text
